//! Collects the result of a read: entries, and ranges lost to damage, until the limit is reached
//! (P5).
//!
//! Entries and lost ranges come in the direction of the read. A read that does not continue after
//! damage ends with the first damage that it would have had to report.
//!
//! A read that only counts keeps no bodies.
//!
//! This file does not know where entries come from.

use bytes::Bytes;

use super::bodies::{Offered, PageBodies, PlainEntry};
use super::end::Times;
use super::overlay::FoundEdit;
use super::sight::{Sight, Wanted};
use crate::entry::{Entry, Limit, Lost};
use crate::error::{Error, Result};
use crate::ids::{CommitPlace, Lsn, Sequence, TimeMs};

/// The treatment of bodies in a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum BodyMode {
    Kept,
    /// Only their bytes are counted.
    Measured,
    /// They are not read.
    Unread,
}

/// Collects the result of a read, in the direction of the read, until the limit is reached.
#[derive(Debug)]
pub(crate) struct Collector<'v> {
    limit: Limit,
    descending: bool,
    bodies: BodyMode,
    /// The entries that may be collected. It changes as the read comes to older places.
    pub sight: Sight<'v>,
    taken: Collected,
    /// The bodies of the entries taken.
    kept: PageBodies,
    /// The number of lost ranges taken. Each counts as an entry.
    ranges: usize,
    /// Whether the last element of `lost` is a range, not the body of an entry.
    ends_with_range: bool,
    /// Whether `more` is not needed: then the collector is full with the last entry that it may
    /// take.
    is_sufficient: bool,
    /// The damage that ended the read, if it does not continue after damage.
    failure: Option<Error>,
}

/// The body that an entry was written with.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Own {
    /// Its place, if other entries share it.
    pub place: Option<CommitPlace>,
    /// Changes below this lsn are applied to it already, if other entries share it.
    pub applied_to: Lsn,
    /// Whether the entry's body is an edit in a younger place, which is not applied to it.
    pub is_elsewhere: bool,
}

/// The result of a read.
#[derive(Debug, Default)]
pub(crate) struct Collected {
    /// The entries, in the direction of the read.
    pub entries: Vec<Entry>,
    /// The lost ranges and bodies, in the direction of the read.
    pub lost: Vec<Lost>,
    /// Whether the limit excluded anything.
    pub more: bool,
    /// The sequence that the read reached: that of the last entry, or the end of the last lost
    /// range in the direction of the read.
    pub reached: Option<Sequence>,
    /// The times of the entry taken last.
    pub last_times: Times,
    /// The place of the body that the entry taken last was written with, if other entries share it.
    pub last_body: Option<CommitPlace>,
    /// The total length of the bodies in bytes; 0 if they were not needed.
    pub body_bytes: u64,
}

impl Collected {
    /// The lowest sequence that an ascending read returned, readable or lost.
    pub fn lowest(&self) -> Option<Sequence> {
        let entry = self.entries.first().map(|entry| entry.sequence);
        entry.into_iter().chain(self.lost.first().map(|lost| lost.first)).min()
    }
}

impl<'v> Collector<'v> {
    pub fn new(limit: Limit, descending: bool, sight: Sight<'v>) -> Collector<'v> {
        Collector {
            limit,
            descending,
            bodies: BodyMode::Kept,
            sight,
            taken: Collected::default(),
            kept: PageBodies::default(),
            ranges: 0,
            ends_with_range: false,
            is_sufficient: false,
            failure: None,
        }
    }

    /// Stops when the page is full; does not read on to learn whether more exists.
    pub fn sufficient(self) -> Collector<'v> {
        Collector { is_sufficient: true, ..self }
    }

    /// Only counts the bodies' bytes. The entries have empty bodies.
    pub fn measuring(self) -> Collector<'v> {
        Collector { bodies: BodyMode::Measured, ..self }
    }

    /// Reads no bodies. The entries have empty bodies.
    pub fn without_bodies(self) -> Collector<'v> {
        Collector { bodies: BodyMode::Unread, ..self }
    }

    pub fn is_descending(&self) -> bool {
        self.descending
    }

    /// The number of entries and lost ranges taken.
    fn count(&self) -> usize {
        self.taken.entries.len() + self.ranges
    }

    /// The number of entries that it can use, if all are visible: one more than fits shows that
    /// there is more.
    pub fn wanted(&self) -> usize {
        self.limit
            .entries
            .saturating_sub(self.count())
            .saturating_add(usize::from(!self.is_sufficient))
    }

    /// Makes room for as many further entries as may be offered next.
    pub fn reserve(&mut self, offered: usize) {
        self.taken.entries.reserve(offered.min(self.wanted()));
    }

    /// Whether nothing was taken yet.
    pub fn is_empty(&self) -> bool {
        self.count() == 0
    }

    /// Whether something was excluded already, or would be, so that further offers are useless.
    pub fn is_full(&self) -> bool {
        let is_sated = self.is_sufficient && self.count() >= self.limit.entries;
        self.taken.more || self.failure.is_some() || is_sated
    }

    /// Whether an entry can be visible at all, whatever its time is: if not, its body need not be
    /// read.
    pub fn may_show(&self, sequence: Sequence) -> bool {
        sequence >= self.sight.lowest && !self.sight.overlay.removes(sequence)
    }

    /// Whether an entry would be returned with the body that it was written with.
    pub fn needs_body(
        &self,
        sequence: Sequence,
        times: &Times,
        (place, applied_to): (Option<CommitPlace>, Lsn),
    ) -> bool {
        self.bodies != BodyMode::Unread
            && self.sight.wanted == Wanted::Readable
            && self.sight.shows(sequence, times)
            && !self.sight.overlay.edits(sequence)
            && place
                .and_then(|place| self.sight.bodies.find(place.0))
                .is_none_or(|found| Lsn(found.at.0) < applied_to)
    }

    /// Takes the entry if it is visible and fits. False if this entry, or one before it, did not
    /// fit: then no further entry may be offered.
    #[inline]
    pub fn offer(&mut self, sequence: Sequence, times: Times, own: Own, body: Offered<'_>) -> bool {
        if !self.sight.shows(sequence, &times) {
            return !self.taken.more;
        }
        if self.bodies != BodyMode::Unread && self.sight.is_unchanged() {
            return self.take_entry(sequence, times, own.place, body);
        }
        self.take_shown(sequence, times, own, Ok(body))
    }

    /// Whether it takes readable entries with the bodies that they were written with: then plain
    /// ones may be offered together.
    pub fn takes_plain(&self) -> bool {
        self.bodies == BodyMode::Kept
            && self.sight.wanted == Wanted::Readable
            && self.sight.is_unchanged()
    }

    /// Takes plain entries of a block, in the direction of the read, until one does not fit. The
    /// same as an offer of each; what is the same for all of them is looked up once. False as in
    /// [`Collector::offer`].
    pub fn offer_plain(&mut self, block: &Bytes, plain: impl Iterator<Item = PlainEntry>) -> bool {
        debug_assert!(self.takes_plain());
        if self.is_full() {
            return false;
        }
        let Limit { entries: most, body_bytes: most_bytes, first_always, .. } = self.limit;
        let (lowest, lifetimes) = (self.sight.lowest, self.sight.lifetimes);
        let mut room = most.saturating_sub(self.count());
        let mut first = first_always && self.is_empty();
        let (before, mut sum) = (self.taken.body_bytes, self.taken.body_bytes);
        let entries = &mut self.taken.entries;
        let (taken_before, mut last_body) = (entries.len(), None);
        for PlainEntry { sequence, time_ms, place, body } in plain {
            if sequence < lowest || lifetimes.is_expired(time_ms) {
                continue;
            }
            let with_it = sum + body.len() as u64;
            if room == 0 || (with_it > most_bytes && !first) {
                self.taken.more = true;
                break;
            }
            if entries.len() == taken_before {
                self.kept.go_on_in(block, entries);
            }
            (room, sum, first) = (room - 1, with_it, false);
            entries.push(Entry { sequence, time_ms, start_ms: time_ms, body: block.slice(body) });
            last_body = place;
            if room == 0 && self.is_sufficient {
                break;
            }
        }
        self.taken.body_bytes = sum;
        self.kept.count_part((sum - before) as usize);
        if let Some(Entry { sequence, time_ms, .. }) = entries[taken_before..].last() {
            self.taken.reached = Some(*sequence);
            self.taken.last_times = Times::stored(*time_ms, None, 0);
            self.taken.last_body = last_body;
        }
        !self.is_full()
    }

    /// Takes an entry whose body cannot be read, nor its times, which are between `earliest` and
    /// `latest`. It is skipped only if it has certainly expired.
    pub fn offer_without_body(
        &mut self,
        sequence: Sequence,
        (earliest, latest): (Times, Times),
        applied_to: Lsn,
        error: &Error,
    ) -> bool {
        if !self.sight.shows(sequence, &latest) {
            return !self.taken.more;
        }
        let sight = &self.sight;
        // The entry's body is unknown: a change of that body may be later than the edit of the
        // entry.
        let is_last = |found: &FoundEdit| {
            found.at.0 == 0
                || (Lsn(found.at.0) >= applied_to
                    && sight.bodies.is_empty()
                    && sight.hidden_bodies.is_none())
        };
        if sight.overlay.find(sequence).as_ref().is_some_and(is_last) {
            // The damage is in a body that was replaced.
            return self.take_shown(sequence, earliest, Own::default(), Err(error.clone()));
        }
        self.take_without_body(sequence, earliest, None, error)
    }

    /// Takes an entry with its replaced body, or else with its own.
    fn take_shown(
        &mut self,
        sequence: Sequence,
        times: Times,
        own: Own,
        body: Result<Offered<'_>>,
    ) -> bool {
        if self.bodies == BodyMode::Unread || self.count() >= self.limit.entries {
            return self.take_entry(sequence, times, own.place, Offered::Slice(Bytes::new()));
        }
        let replaced = self.replaced(sequence, own);
        match replaced.map_or(body, |replaced| replaced.map(Offered::Slice)) {
            Ok(body) => self.take_entry(sequence, times, own.place, body),
            Err(error) if error.is_damage() => {
                self.take_without_body(sequence, times, own.place, &error)
            }
            Err(error) => self.fail(&error),
        }
    }

    /// The body that replaces an entry's own: a change of the entry or of the body that it shares,
    /// whichever is later.
    fn replaced(&self, sequence: Sequence, own: Own) -> Option<Result<Bytes>> {
        let sight = &self.sight;
        let of_entry = sight.overlay.find(sequence);
        let Some(place) = own.place else {
            return of_entry.map(|found| sight.overlay.read(sequence, found));
        };
        let is_later = |found: &FoundEdit| Lsn(found.at.0) >= own.applied_to;
        let of_entry = of_entry.filter(|found| own.is_elsewhere || is_later(found));
        let is_hidden = |below: CommitPlace| place < below && own.applied_to < Lsn(below.0);
        if let Some((_, error)) =
            sight.hidden_bodies.as_ref().filter(|(below, _)| is_hidden(*below))
        {
            return Some(Err(error.clone()));
        }
        let of_body = sight.bodies.find(place.0).filter(is_later);
        match (of_entry, of_body) {
            (None, None) => None,
            (Some(entry), Some(body)) if entry.at < body.at => {
                Some(sight.bodies.read(place.0, body))
            }
            (Some(entry), _) => Some(sight.overlay.read(sequence, entry)),
            (None, Some(body)) => Some(sight.bodies.read(place.0, body)),
        }
    }

    fn take_without_body(
        &mut self,
        sequence: Sequence,
        times: Times,
        place: Option<CommitPlace>,
        error: &Error,
    ) -> bool {
        if !self.limit.around_damage {
            return self.fail(error);
        }
        let before = self.taken.entries.len();
        let goes_on = self.take_entry(sequence, times, place, Offered::Slice(Bytes::new()));
        if self.taken.entries.len() > before {
            self.taken.lost.push(Lost { first: sequence, last: sequence, error: error.clone() });
            self.ends_with_range = false;
        }
        goes_on
    }

    #[inline]
    fn take_entry(
        &mut self,
        sequence: Sequence,
        times: Times,
        place: Option<CommitPlace>,
        body: Offered<'_>,
    ) -> bool {
        let sum = self.taken.body_bytes + body.len() as u64;
        let first = self.limit.first_always && self.is_empty();
        let fits = self.count() < self.limit.entries && (first || sum <= self.limit.body_bytes);
        if self.taken.more || !fits {
            self.taken.more = true;
            return false;
        }
        self.taken.body_bytes = sum;
        (self.taken.last_times, self.taken.last_body) = (times, place);
        self.taken.reached = Some(sequence);
        let Times { time_ms, start_ms, .. } = times;
        let entries = &mut self.taken.entries;
        let body = match self.bodies {
            BodyMode::Kept => self.kept.keep(entries, body),
            BodyMode::Measured | BodyMode::Unread => Bytes::new(),
        };
        entries.push(Entry { sequence, time_ms, start_ms, body });
        !self.is_full()
    }

    /// Takes a range in which no entry can be read, and no lifetime began later than `to_ms`: the
    /// parts of it that were not removed. False as in [`Collector::offer`].
    pub fn offer_lost(
        &mut self,
        (first, last): (Sequence, Sequence),
        to_ms: TimeMs,
        error: &Error,
    ) -> bool {
        let first = first.max(self.sight.lowest);
        if first > last || self.sight.passes_over(to_ms) {
            return !self.taken.more;
        }
        let mut ranges = self.sight.overlay.left_of(first, last);
        if ranges.is_empty() {
            return !self.taken.more;
        }
        if !self.limit.around_damage {
            return self.fail(error);
        }
        if self.descending {
            ranges.reverse();
        }
        ranges
            .into_iter()
            .all(|(first, last)| self.take_lost(Lost { first, last, error: error.clone() }))
    }

    fn take_lost(&mut self, lost: Lost) -> bool {
        if self.taken.more {
            return false;
        }
        let reached = if self.descending { lost.first } else { lost.last };
        let joined =
            self.taken.lost.last_mut().filter(|_| self.ends_with_range).is_some_and(|before| {
                let touches = if self.descending {
                    lost.last + 1 == before.first
                } else {
                    before.last + 1 == lost.first
                };
                if touches {
                    (before.first, before.last) =
                        (before.first.min(lost.first), before.last.max(lost.last));
                }
                touches
            });
        if !joined {
            if self.count() >= self.limit.entries {
                self.taken.more = true;
                return false;
            }
            self.ranges += 1;
            self.ends_with_range = true;
            self.taken.lost.push(lost);
        }
        self.taken.reached = Some(reached);
        !self.is_full()
    }

    fn fail(&mut self, error: &Error) -> bool {
        self.failure.get_or_insert_with(|| error.clone());
        false
    }

    /// The result so far; afterwards the collector is empty. The damage, if the read does not
    /// continue after damage.
    pub fn take(&mut self) -> Result<Collected> {
        self.ranges = 0;
        std::mem::take(&mut self.kept).settle(&mut self.taken.entries);
        let taken = std::mem::take(&mut self.taken);
        self.failure.take().map_or(Ok(taken), Err)
    }

    /// The result; the damage, if the read does not continue after damage.
    pub fn finish(mut self) -> Result<Collected> {
        self.take()
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use proptest::prelude::*;

    use super::*;
    use crate::timeline::overlay::tests::TestLayer;
    use crate::timeline::{Changes, Lifetimes};

    #[test]
    fn after_the_first_body_over_the_budget_nothing_more_fits() {
        let mut out = Collector::new(Limit::entries(10).body_bytes(0), false, Sight::default());
        let body = |body| Offered::Slice(Bytes::from_static(body));
        assert!(out.offer(1, Times::default(), Own::default(), body(b"over")));
        assert!(!out.offer(2, Times::default(), Own::default(), body(b"")));
        assert!(!out.offer(3, Times::default(), Own::default(), body(b"")));
        assert_eq!(out.finish().expect("no damage").entries.len(), 1);
    }

    #[test]
    fn lost_ranges_are_clipped_joined_and_count_as_one() {
        let error = Error::corrupt("file", 0, "damage");
        let mut sight = Sight { lowest: 3, ..Sight::default() };
        let mut changes = Changes::default();
        changes.remove(10, 12);
        sight.overlay.add_older(Some(Rc::new(TestLayer(changes, Sequence::MAX))));
        for descending in [false, true] {
            let limit = Limit::entries(3).around_damage();
            let mut out = Collector::new(limit, descending, sight.clone());
            let mut blocks = [(1, 6), (7, 14)];
            if descending {
                blocks.reverse();
            }
            for range in blocks {
                assert!(out.offer_lost(range, 0, &error));
            }
            let entry = if descending { 2 } else { 15 };
            assert!(
                out.offer(entry, Times::default(), Own::default(), Offered::Slice(Bytes::new())),
                "below the floor nothing is kept back"
            );
            let taken = out.finish().expect("goes around");
            let mut ranges: Vec<_> =
                taken.lost.iter().map(|lost| (lost.first, lost.last)).collect();
            ranges.sort_unstable();
            assert_eq!(ranges, [(3, 9), (13, 14)], "descending: {descending}");
            assert_eq!(taken.reached, Some(if descending { 3 } else { 15 }));
        }
    }

    #[test]
    fn a_range_and_a_body_are_never_joined_and_strict_reads_fail() {
        let error = Error::corrupt("file", 0, "damage");
        let at = |time_ms| Times::stored(time_ms, None, 0);
        let mut out = Collector::new(Limit::entries(9).around_damage(), false, Sight::default());
        assert!(out.offer_without_body(5, (at(1), at(2)), Lsn(0), &error));
        assert!(out.offer_lost((6, 8), 0, &error));
        let taken = out.finish().expect("goes around");
        assert_eq!(
            taken.lost.iter().map(|lost| (lost.first, lost.last)).collect::<Vec<_>>(),
            [(5, 5), (6, 8)]
        );
        assert_eq!(taken.entries.len(), 1);
        let mut out = Collector::new(Limit::entries(9), false, Sight::default());
        assert!(!out.offer_without_body(5, (at(1), at(2)), Lsn(0), &error) && out.is_full());
        out.finish().expect_err("the damage");
    }

    /// The result of a collector after an offer of plain entries of a block, and whether it takes
    /// more.
    fn offered(
        (limit, is_sufficient, lowest, alive_from_ms): (Limit, bool, Sequence, TimeMs),
        plain: &[PlainEntry],
        block: &Bytes,
        together: bool,
    ) -> (String, bool) {
        let lifetimes = Lifetimes { alive_from_ms, ..Lifetimes::default() };
        let sight = Sight { lifetimes, lowest, ..Sight::default() };
        let mut out = Collector::new(limit, false, sight);
        out.is_sufficient = is_sufficient;
        let goes_on = if together {
            out.offer_plain(block, plain.iter().cloned())
        } else {
            plain.iter().all(|PlainEntry { sequence, time_ms, place, body }| {
                let own = Own { place: *place, ..Own::default() };
                let body = Offered::Part(block, body.clone());
                out.offer(*sequence, Times::stored(*time_ms, None, 0), own, body)
            })
        };
        (format!("{:?}", out.finish().expect("no damage")), goes_on)
    }

    #[test]
    fn an_offer_of_no_plain_entries_does_not_end_the_block_of_the_others() {
        let shared = Bytes::from(vec![7; 10_000]);
        let run = Bytes::from(vec![8; 10_000]);
        let mut out = Collector::new(Limit::entries(9), false, Sight::default());
        for sequence in 1..=4 {
            let at = 1000 * sequence as usize;
            let body = Offered::Part(&shared, at..at + 1000);
            assert!(out.offer_plain(&run, std::iter::empty()));
            assert!(out.offer(sequence, Times::default(), Own::default(), body));
        }
        let entries = out.finish().expect("no damage").entries;
        let is_slice = |entry: &Entry| shared.as_ptr_range().contains(&entry.body.as_ptr());
        assert!(entries.len() == 4 && entries.iter().all(is_slice), "they are 40 % of their block");
    }

    proptest! {
        #[test]
        fn plain_entries_that_are_offered_together_are_taken_as_if_each_were_offered(
            lengths in prop::collection::vec(0_usize..20, 1..20),
            entries in 0_usize..25,
            body_bytes in prop_oneof![Just(u64::MAX), 0_u64..100],
            (first_always, is_sufficient) in any::<(bool, bool)>(),
            lowest in 0_u64..10,
            alive_from_ms in prop_oneof![Just(0), 995_u64..1010],
        ) {
            let block = Bytes::from((0..=255).cycle().take(600).collect::<Vec<u8>>());
            let mut at = 0;
            let plain: Vec<PlainEntry> = (1..).zip(&lengths).map(|(sequence, bytes)| {
                let body = at..at + bytes;
                at = body.end;
                let place = (sequence % 3 == 0).then_some(CommitPlace(sequence));
                PlainEntry { sequence, time_ms: 1000 + sequence, place, body }
            }).collect();
            let limit = Limit { entries, body_bytes, first_always, around_damage: false };
            // One that needs nothing is never offered anything.
            prop_assume!(entries > 0 || !is_sufficient);
            let case = (limit, is_sufficient, lowest, alive_from_ms);
            prop_assert_eq!(
                offered(case, &plain, &block, true),
                offered(case, &plain, &block, false)
            );
        }
    }
}
