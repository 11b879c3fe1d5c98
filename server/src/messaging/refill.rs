//! Restores a damaged sync timeline from the conversations (P5, P10).
//!
//! A lost entry of a sync timeline was a copy of an event that is still in its conversation, at the
//! same time; but it is unknown which conversation. So the lost events are those that the user's
//! conversations pushed in that time, without those that the sync timeline still shows (`placing`).
//! A user's own marks are in its ledger. Entries that cannot be restored become one entry of kind
//! `lost` for each range; the terminal then reads the history again.
//!
//! 1. Collect the pieces of the page, and those before and after it with the same times as its
//!    gaps.
//! 2. Collect all events of these times that must be in this sync timeline. Only their keys are
//!    kept; bodies are read when the events are delivered.
//! 3. Assign an event to each lost place, or mark the place as lost.
//!
//! The result depends on the timelines alone, not on where a page begins: a terminal that continues
//! in the middle of a gap gets what it lacks and nothing twice.

use std::collections::{BTreeMap, HashSet, VecDeque};

use bytes::Bytes;
use strandline::{Entry, Limit, MAX_SEQUENCE, Page, Sequence, TimeMs};

use super::around::{
    LATEST_MS, Piece, Scan, bound_by_neighbours, none_if_hidden, pieces, sequence_up_to,
};
use super::event::{Event, Kind};
use super::placing::{Absent, Nature, Present, Vacancy, place};
use super::trouble::Result;
use super::user::{Membership, User};
use super::{Messaging, names};

/// Entries read at a time.
const PAGE: Limit =
    Limit { entries: 64, body_bytes: 4 * 1024 * 1024, first_always: true, around_damage: true };

/// If more entries than this are lost, none of them is restored.
const MOST_VACANCIES: u64 = 4096;

/// Pages read before and after a page for entries of the same time as its gaps.
const MOST_PAGES: usize = 64;

/// An entry of a sync timeline that is to be delivered.
#[derive(Clone, Debug)]
pub struct Arrival {
    /// Its sequence in the sync timeline.
    pub place: Sequence,
    /// When it was committed; of a lost entry, a lower bound.
    pub time_ms: TimeMs,
    /// Its content.
    pub content: ArrivalContent,
}

/// The content of an entry of a sync timeline.
#[derive(Clone, Debug)]
pub enum ArrivalContent {
    /// Not an event: a client appended to the timeline directly.
    Foreign,
    /// The copy of an event.
    Copy(Event),
    /// The copy is lost; the event is there in its conversation.
    Original(Bytes, Sequence),
    /// The event cannot be read anywhere, but its conversation and sequence are known.
    Damaged(Bytes, Sequence),
    /// The event is not known. If the entries directly before are lost as well, the entry stands
    /// for all of them.
    Lost,
}

impl Arrival {
    fn of(entry: &Entry) -> Arrival {
        let content =
            Event::for_members(&entry.body).map_or(ArrivalContent::Foreign, ArrivalContent::Copy);
        Arrival { place: entry.sequence, time_ms: entry.time_ms, content }
    }

    /// Its conversation and sequence, if known.
    pub fn event(&self) -> Option<(&Bytes, Sequence)> {
        match &self.content {
            ArrivalContent::Copy(event) => Some((&event.conv, event.sequence)),
            ArrivalContent::Original(conv, sequence) | ArrivalContent::Damaged(conv, sequence) => {
                Some((conv, *sequence))
            }
            ArrivalContent::Foreign | ArrivalContent::Lost => None,
        }
    }
}

impl Messaging {
    /// The entries of a page of a user's sync timeline, which was read after `cursor` and around
    /// damage.
    pub(super) fn arrivals(
        &self,
        user: &Bytes,
        state: &User,
        cursor: Sequence,
        page: Page,
    ) -> Result<VecDeque<Arrival>> {
        if page.lost.is_empty() {
            return Ok(page.entries.iter().map(Arrival::of).collect());
        }
        let mut pieces: VecDeque<Piece> = pieces(page, false).into();
        let end = pieces.back().map_or(cursor, Piece::last);
        self.surround(user, &mut pieces)?;
        let vacancies = vacancies(&pieces);
        let mut filled = match vacancies.len() as u64 {
            0..=MOST_VACANCIES => self.fill(user, state, &pieces, &vacancies)?,
            _ => BTreeMap::new(),
        };
        let mut arrivals: VecDeque<Arrival> = VecDeque::new();
        for piece in &pieces {
            let Piece::Lost(gap) = piece else {
                arrivals.extend(piece.entry().map(Arrival::of));
                continue;
            };
            // Of a long gap the last entry is enough: nothing was searched for.
            let first = if filled.is_empty() { gap.last } else { gap.first };
            for place in first..=gap.last {
                let lost = Arrival { place, time_ms: gap.from_ms, content: ArrivalContent::Lost };
                arrivals.push_back(filled.remove(&place).unwrap_or(lost));
            }
        }
        arrivals.retain(|arrival| (cursor + 1..=end).contains(&arrival.place));
        Ok(one_for_each_range(arrivals))
    }

    /// Step 1 of the heading: adds the pieces with the same times as the gaps, before and after.
    fn surround(&self, user: &Bytes, pieces: &mut VecDeque<Piece>) -> Result<()> {
        let name = names::inbox(user);
        let (first, last) = match (pieces.front(), pieces.back()) {
            (Some(first), Some(last)) => (first.first(), last.last()),
            _ => return Ok(()),
        };
        let mut before = Scan::new(&self.sync, &name, (1, first.saturating_sub(1)), true, PAGE);
        for _ in 0..MOST_PAGES {
            let begins = pieces.iter().find_map(Piece::gap).map_or(0, |gap| gap.from_ms);
            let known = pieces.front().and_then(Piece::entry);
            if known.is_some_and(|entry| entry.time_ms < begins) {
                break;
            }
            let Some(earlier) = before.next_page()? else { break };
            earlier.into_iter().for_each(|piece| pieces.push_front(piece));
            bound_by_neighbours(pieces.iter_mut());
        }
        let mut behind = Scan::new(&self.sync, &name, (last + 1, MAX_SEQUENCE), false, PAGE);
        let mut is_all = false;
        for _ in 0..MOST_PAGES {
            let ends = pieces.iter().rev().find_map(Piece::gap).map_or(LATEST_MS, |gap| gap.to_ms);
            let known = pieces.back().and_then(Piece::entry);
            if known.is_some_and(|entry| entry.time_ms > ends) {
                break;
            }
            let Some(later) = behind.next_page()? else {
                is_all = true;
                break;
            };
            pieces.extend(later);
            bound_by_neighbours(pieces.iter_mut());
        }
        if is_all && let Some(Piece::Lost(gap)) = pieces.back_mut() {
            gap.to_ms = gap.to_ms.min(self.sync.end(&name)?.1);
        }
        Ok(())
    }

    /// Steps 2 and 3 of the heading: the restored entries, by place.
    fn fill(
        &self,
        user: &Bytes,
        state: &User,
        pieces: &VecDeque<Piece>,
        vacancies: &[Vacancy],
    ) -> Result<BTreeMap<Sequence, Arrival>> {
        let (Some(first), Some(last)) = (vacancies.first(), vacancies.last()) else {
            return Ok(BTreeMap::new());
        };
        let (mut shown, mut marks) = (Present::default(), HashSet::new());
        for entry in pieces.iter().filter_map(Piece::entry) {
            match Event::for_members(&entry.body) {
                Some(mark) if mark.is_mark() => drop(marks.insert(of_mark(&mark, entry.time_ms))),
                Some(event) => shown.add(&event.conv, event.sequence, entry.sequence),
                None => {}
            }
        }
        let times = (first.from_ms, last.to_ms);
        let mut absent = self.absent_marks(user, times)?;
        absent.retain(|mark| !marks.contains(mark));
        let mut damaged = Vec::new();
        // No conversation can have more events that matter than there are lost and shown entries.
        let most = vacancies.len() + pieces.len();
        for (conv, membership) in state.all() {
            for event in self.pushed_in(conv, membership, times, most)? {
                if shown.has(conv, event.sequence) {
                    continue;
                }
                let which =
                    if event.nature == Nature::Damaged { &mut damaged } else { &mut absent };
                which.push(event);
            }
        }
        let mut filled = place(vacancies, absent, &shown);
        for (place, event) in &filled {
            if event.nature == Nature::Readable {
                shown.add(&event.conv, event.sequence, *place);
            }
        }
        let vacant: Vec<Vacancy> =
            vacancies.iter().filter(|one| !filled.contains_key(&one.sequence)).copied().collect();
        filled.extend(place(&vacant, damaged, &shown));
        Ok(filled.into_iter().map(|(place, event)| (place, arrival(user, place, event))).collect())
    }

    /// The marks that a user set between two times, as far as its ledger has them as single
    /// records.
    fn absent_marks(
        &self,
        user: &Bytes,
        (from_ms, to_ms): (TimeMs, TimeMs),
    ) -> Result<Vec<Absent>> {
        let name = names::user_ledger(user);
        let from = self.state.sequence_at(&name, from_ms)?;
        let mut scan = Scan::new(&self.state, &name, (from, MAX_SEQUENCE), false, PAGE);
        let mut found = Vec::new();
        while let Some(pieces) = scan.next_page()? {
            for entry in pieces.iter().filter_map(Piece::entry) {
                if entry.time_ms > to_ms || found.len() as u64 > MOST_VACANCIES {
                    return Ok(found);
                }
                let mark = Event::for_members(&entry.body).filter(Event::is_mark);
                found.extend(mark.map(|mark| of_mark(&mark, entry.time_ms)));
            }
        }
        Ok(found)
    }

    /// The events of a conversation that were pushed to a member between two times, and those that
    /// cannot be read and may have been; the newest first, at most `most`.
    fn pushed_in(
        &self,
        conv: &Bytes,
        membership: &Membership,
        (from_ms, to_ms): (TimeMs, TimeMs),
        most: usize,
    ) -> Result<Vec<Absent>> {
        let (name, mut found) = (names::conversation(conv), Vec::new());
        let end = none_if_hidden(self.messages.end(&name))?;
        if membership.is_over(from_ms) || end.is_none_or(|(_, last_ms)| last_ms < from_ms) {
            return Ok(found);
        }
        let high = sequence_up_to(&self.messages, &name, to_ms)?;
        let mut scan = Scan::new(&self.messages, &name, (1, high), true, PAGE);
        let is_pushed = |sequence| membership.pulls_from.is_none_or(|from| sequence < from);
        while let Some(pieces) = scan.next_page()? {
            for piece in pieces {
                if found.len() >= most || piece.times().1 < from_ms {
                    return Ok(found);
                }
                match piece {
                    Piece::Whole(entry) => {
                        let event = Event::for_members(&entry.body);
                        let is_for_it = |event: &Event| {
                            !event.is_pulled() && membership.got_at_commit(entry.sequence, event)
                        };
                        if event.as_ref().is_some_and(is_for_it) {
                            found.push(absent(
                                conv,
                                entry.sequence,
                                Nature::Readable,
                                entry.time_ms,
                            ));
                        }
                    }
                    Piece::Lost(gap) => {
                        let sequences = gap.sequences().rev().take(most - found.len());
                        let of_it = sequences.filter(|sequence| {
                            is_pushed(*sequence) && membership.periods.contains(*sequence)
                        });
                        found.extend(of_it.map(|sequence| Absent {
                            to_ms: gap.to_ms,
                            ..absent(conv, sequence, Nature::Damaged, gap.from_ms)
                        }));
                    }
                }
            }
        }
        Ok(found)
    }
}

fn absent(conv: &Bytes, sequence: Sequence, nature: Nature, time_ms: TimeMs) -> Absent {
    Absent { from_ms: time_ms, conv: conv.clone(), sequence, nature, to_ms: time_ms }
}

fn of_mark(mark: &Event, time_ms: TimeMs) -> Absent {
    let nature = if mark.kind == Kind::Hide { Nature::Hide } else { Nature::Read };
    absent(&mark.conv, mark.sequence, nature, time_ms)
}

fn arrival(user: &Bytes, place: Sequence, event: Absent) -> Arrival {
    let Absent { from_ms, conv, sequence, nature, .. } = event;
    let mark = |kind| ArrivalContent::Copy(Event { sequence, ..Event::new(kind, &conv, user) });
    let content = match nature {
        Nature::Read => mark(Kind::Read),
        Nature::Hide => mark(Kind::Hide),
        Nature::Readable => ArrivalContent::Original(conv, sequence),
        Nature::Damaged => ArrivalContent::Damaged(conv, sequence),
    };
    Arrival { place, time_ms: from_ms, content }
}

/// The lost entries as places.
fn vacancies(pieces: &VecDeque<Piece>) -> Vec<Vacancy> {
    let gaps = pieces.iter().filter_map(Piece::gap);
    let places = gaps.flat_map(|gap| {
        gap.sequences().map(|sequence| Vacancy { sequence, from_ms: gap.from_ms, to_ms: gap.to_ms })
    });
    // One more than the limit shows that there are too many.
    places.take(MOST_VACANCIES as usize + 1).collect()
}

/// The same entries, with one lost entry for each range of them.
fn one_for_each_range(arrivals: VecDeque<Arrival>) -> VecDeque<Arrival> {
    let mut merged: VecDeque<Arrival> = VecDeque::new();
    for arrival in arrivals {
        let is_lost = |arrival: &Arrival| matches!(arrival.content, ArrivalContent::Lost);
        match merged.back_mut().filter(|before| is_lost(before) && is_lost(&arrival)) {
            Some(before) => before.place = arrival.place,
            None => merged.push_back(arrival),
        }
    }
    merged
}
