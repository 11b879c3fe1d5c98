//! Determines which lost entry of a sync timeline was which event: assigns the events that must be
//! there, and are not shown, to the lost places.
//!
//! A place is a sequence of the sync timeline. Two things are known: the times between which its
//! entry was committed, and that the events of one conversation are in their order. So each event
//! has a range of possible places. The places are filled from the newest to the oldest; each gets
//! the event whose range begins last, among those whose range includes it. This fills as many
//! places as possible. An event without a place shows that an assumption is wrong: all places of
//! its range stay empty, except if the range begins before everything that is kept.
//!
//! It does not know where places and events come from.

use std::collections::{BTreeMap, BinaryHeap, HashMap};

use bytes::Bytes;
use strandline::{Sequence, TimeMs};

/// A lost entry of the sync timeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vacancy {
    /// Its sequence in the sync timeline.
    pub sequence: Sequence,
    /// The earliest time at which it was committed; 0: not known.
    pub from_ms: TimeMs,
    /// The latest time at which it was committed.
    pub to_ms: TimeMs,
}

/// An event that must be in one of the places. Ordered by time, then by conversation.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Absent {
    /// The earliest time at which it was committed.
    pub from_ms: TimeMs,
    /// Its conversation.
    pub conv: Bytes,
    /// Its sequence there; of a mark, the sequence that is marked.
    pub sequence: Sequence,
    /// What is known of it.
    pub nature: Nature,
    /// The latest time at which it was committed.
    pub to_ms: TimeMs,
}

/// What is known of an event that needs a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Nature {
    /// It can be read in its conversation.
    Readable,
    /// It is in its conversation and cannot be read there either.
    Damaged,
    /// The user's own read mark.
    Read,
    /// A hide mark of the user.
    Hide,
}

/// The events that the sync timeline still shows: their places by conversation and sequence.
#[derive(Debug, Default)]
pub struct Present {
    places: HashMap<Bytes, BTreeMap<Sequence, Sequence>>,
}

impl Present {
    /// Adds an event that is shown.
    pub fn add(&mut self, conv: &Bytes, sequence: Sequence, place: Sequence) {
        self.places.entry(conv.clone()).or_default().insert(sequence, place);
    }

    /// Whether an event is shown.
    pub fn has(&self, conv: &Bytes, sequence: Sequence) -> bool {
        self.places.get(conv).is_some_and(|places| places.contains_key(&sequence))
    }

    /// The places between which an event must be: those of its neighbours in the conversation. A
    /// mark only has a lower bound: it comes after the event that it marks.
    fn around(&self, event: &Absent) -> (Sequence, Sequence) {
        let Some(places) = self.places.get(&event.conv) else { return (0, Sequence::MAX) };
        let before = places.range(..=event.sequence).next_back().map_or(0, |(_, place)| *place);
        let is_mark = matches!(event.nature, Nature::Read | Nature::Hide);
        let next = places.range(event.sequence + 1..).next().filter(|_| !is_mark);
        (before, next.map_or(Sequence::MAX, |(_, place)| *place))
    }
}

/// An event and its range of places, as indexes into the list of places.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Candidate {
    first: usize,
    event: Absent,
    end: usize,
}

/// Assigns events to places, which are in ascending order. Returns the events by place.
pub fn place(
    vacancies: &[Vacancy],
    absent: Vec<Absent>,
    shown: &Present,
) -> BTreeMap<Sequence, Absent> {
    let mut candidates: Vec<Candidate> =
        absent.into_iter().filter_map(|event| candidate(event, vacancies, shown)).collect();
    candidates.sort_by_key(|candidate| candidate.end);
    let (mut fitting, mut left_over) = (BinaryHeap::new(), Vec::new());
    let mut filled: BTreeMap<Sequence, Absent> = BTreeMap::new();
    for (at, vacancy) in vacancies.iter().enumerate().rev() {
        while candidates.last().is_some_and(|candidate| candidate.end > at) {
            fitting.extend(candidates.pop());
        }
        while fitting.peek().is_some_and(|candidate: &Candidate| candidate.first > at) {
            left_over.extend(fitting.pop());
        }
        if let Some(candidate) = fitting.pop() {
            filled.insert(vacancy.sequence, candidate.event);
        }
    }
    left_over.extend(fitting);
    for candidate in left_over {
        // Before everything that is kept there may be more events than lost entries.
        if vacancies[candidate.first].from_ms > 0 {
            for vacancy in &vacancies[candidate.first..candidate.end] {
                filled.remove(&vacancy.sequence);
            }
        }
    }
    filled
}

fn candidate(event: Absent, vacancies: &[Vacancy], shown: &Present) -> Option<Candidate> {
    let (before, after) = shown.around(&event);
    let by_time = vacancies.partition_point(|vacancy| vacancy.to_ms < event.from_ms);
    let by_order = vacancies.partition_point(|vacancy| vacancy.sequence < before);
    let end_by_time = vacancies.partition_point(|vacancy| vacancy.from_ms <= event.to_ms);
    let end_by_order = vacancies.partition_point(|vacancy| vacancy.sequence < after);
    let (first, end) = (by_time.max(by_order), end_by_time.min(end_by_order));
    (first < end).then_some(Candidate { first, event, end })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vacancy(sequence: Sequence, from_ms: TimeMs, to_ms: TimeMs) -> Vacancy {
        Vacancy { sequence, from_ms, to_ms }
    }

    fn event(conv: &'static str, sequence: Sequence, time_ms: TimeMs) -> Absent {
        let conv = Bytes::from_static(conv.as_bytes());
        Absent { from_ms: time_ms, conv, sequence, nature: Nature::Readable, to_ms: time_ms }
    }

    fn placed(
        vacancies: &[Vacancy],
        absent: Vec<Absent>,
        shown: &Present,
    ) -> Vec<(Sequence, String)> {
        let name =
            |event: Absent| format!("{} {}", String::from_utf8_lossy(&event.conv), event.sequence);
        let filled = place(vacancies, absent, shown);
        filled.into_iter().map(|(place, event)| (place, name(event))).collect()
    }

    #[test]
    fn lost_entries_are_placed_by_their_time_and_conversation() {
        let mut shown = Present::default();
        shown.add(&"a".into(), 2, 11);
        let vacancies =
            [vacancy(10, 5, 5), vacancy(12, 5, 5), vacancy(13, 6, 9), vacancy(14, 6, 9)];
        let absent = vec![event("b", 7, 8), event("a", 3, 5), event("a", 4, 7), event("b", 6, 5)];
        assert_eq!(
            placed(&vacancies, absent, &shown),
            [(10, "b 6".into()), (12, "a 3".into()), (13, "a 4".into()), (14, "b 7".into())]
        );
    }

    #[test]
    fn a_mark_comes_after_the_events_that_it_covers_and_after_no_others() {
        let mut present = Present::default();
        for (sequence, place) in [(1, 10), (2, 12), (3, 13)] {
            present.add(&"a".into(), sequence, place);
        }
        let vacancies = [vacancy(11, 5, 5), vacancy(14, 5, 5)];
        let mark = Absent { nature: Nature::Read, ..event("a", 2, 5) };
        assert_eq!(placed(&vacancies, vec![mark], &present), [(14, "a 2".into())]);
    }

    #[test]
    fn entries_that_do_not_fit_empty_the_positions_where_they_could_have_been_and_no_others() {
        let vacancies = [vacancy(1, 5, 5), vacancy(2, 6, 6), vacancy(3, 7, 7)];
        let absent = vec![event("a", 1, 5), event("a", 2, 6), event("b", 1, 6), event("c", 1, 8)];
        assert_eq!(placed(&vacancies, absent, &Present::default()), [(1, "a 1".into())]);
    }

    #[test]
    fn of_entries_before_all_that_is_kept_the_newest_are_taken() {
        let vacancies = [vacancy(8, 0, 9), vacancy(9, 0, 9)];
        let absent = (1..=5).map(|sequence| event("a", sequence, sequence)).collect();
        let expected = [(8, "a 4".to_string()), (9, "a 5".to_string())];
        assert_eq!(placed(&vacancies, absent, &Present::default()), expected);
    }

    #[test]
    fn too_few_entries_leave_a_position_empty() {
        let vacancies = [vacancy(1, 5, 8), vacancy(2, 5, 8)];
        assert_eq!(placed(&vacancies, vec![event("a", 1, 6)], &Present::default()).len(), 1);
    }
}
