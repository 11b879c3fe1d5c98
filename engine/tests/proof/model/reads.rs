//! The results of reads, from the engine and from the map.
//!
//! It does not know: how the two got their content (`twins.rs`).

use std::ops::Bound;

use proptest::prelude::*;
use strandline::{Entry, Limit, Page, Verdict};

use super::map::{Row, entry, within};
use super::operations::{Direction, Key, NAMES, Operation, Place, STORES, Time};
use super::twins::Twins;

impl Twins {
    /// An entry as the map knows it. In worlds where the clock goes back, timestamps use the wall
    /// clock and lifetimes sure time: the map knows the first only; `clocks.rs` tests the second.
    fn as_modelled(&self, mut entry: Entry) -> Entry {
        if self.kind.time == Time::GoesBack {
            entry.start_ms = entry.time_ms;
        }
        entry
    }

    fn page_as_modelled(&self, mut page: Page) -> Page {
        page.entries = page.entries.into_iter().map(|entry| self.as_modelled(entry)).collect();
        page
    }

    pub fn read(&self, operation: &Operation) -> Result<(), TestCaseError> {
        match operation {
            Operation::Get(key, place) => {
                let sequence = self.sequence(*key, *place);
                let found = self.store(*key).get(NAMES[key.1], sequence).expect("reads");
                let timeline = self.timeline(*key);
                let row = timeline.readable(self.now(*key)).find(|row| row.sequence == sequence);
                prop_assert_eq!(found.map(|found| self.as_modelled(found)), row.map(entry));
            }
            Operation::Range(key, low, high, limit, direction) => {
                return self.range(*key, (*low, *high), *limit, *direction);
            }
            Operation::ReadAfter(key, place, limit) => {
                return self.read_after(*key, *place, *limit);
            }
            Operation::Last(key) => {
                let found = self.store(*key).last(NAMES[key.1]).expect("reads");
                let found = found.map(|found| self.as_modelled(found));
                prop_assert_eq!(
                    found,
                    self.timeline(*key).readable(self.now(*key)).next_back().map(entry)
                );
            }
            Operation::Info(key) => {
                let info = self.store(*key).info(NAMES[key.1]).expect("reads");
                let (timeline, now) = (self.timeline(*key), self.now(*key));
                prop_assert!(
                    timeline.may_be_trimmed_to(info.trimmed_to, now),
                    "trimmed to {}",
                    info.trimmed_to
                );
                prop_assert_eq!(info, timeline.info(now, info));
            }
            Operation::SequenceAt(key, distance) => {
                let time_ms = self.now_ms.saturating_add_signed(*distance);
                let found = self.store(*key).sequence_at(NAMES[key.1], time_ms).expect("reads");
                prop_assert_eq!(found, self.timeline(*key).sequence_at(time_ms, self.now(*key)));
            }
            Operation::List { store, prefix, after, count } => {
                return self.list(*store, prefix, after.map(|after| NAMES[after]), *count);
            }
            other => unreachable!("{other:?} does not read"),
        }
        Ok(())
    }

    fn range(
        &self,
        key: Key,
        bounds: (Bound<Place>, Bound<Place>),
        limit: Limit,
        direction: Direction,
    ) -> Result<(), TestCaseError> {
        let sequence = |bound: Bound<Place>| bound.map(|place| self.sequence(key, place));
        let bounds = (sequence(bounds.0), sequence(bounds.1));
        let inside = |row: &&Row| {
            let above = match bounds.0 {
                Bound::Included(low) => row.sequence >= low,
                Bound::Excluded(low) => row.sequence > low,
                Bound::Unbounded => true,
            };
            let below = match bounds.1 {
                Bound::Included(high) => row.sequence <= high,
                Bound::Excluded(high) => row.sequence < high,
                Bound::Unbounded => true,
            };
            above && below
        };
        let (timeline, now, store) = (self.timeline(key), self.now(key), self.store(key));
        let rows = timeline.readable(now).filter(inside);
        let (page, (entries, more)) = match direction {
            Direction::Up => (store.range(NAMES[key.1], bounds, limit), within(rows, limit)),
            Direction::Down => {
                (store.range_back(NAMES[key.1], bounds, limit), within(rows.rev(), limit))
            }
        };
        let page = self.page_as_modelled(page.expect("reads"));
        prop_assert_eq!((page.entries, page.more, page.verdict), (entries, more, Verdict::Ok));
        prop_assert_eq!((page.first, page.last), (timeline.first(now), timeline.last));
        Ok(())
    }

    fn read_after(&self, key: Key, place: Place, limit: Limit) -> Result<(), TestCaseError> {
        let (cursor, timeline, now) =
            (self.sequence(key, place), self.timeline(key), self.now(key));
        let page = self.store(key).read_after(NAMES[key.1], cursor, limit).expect("reads");
        let (entries, more) =
            within(timeline.readable(now).filter(|row| row.sequence > cursor), limit);
        // Entries beyond the limit are not skipped; a cursor of another history is set back to this
        // one.
        let trimmed_to = self.store(key).info(NAMES[key.1]).expect("reads").trimmed_to;
        prop_assert!(timeline.may_be_trimmed_to(trimmed_to, now), "trimmed to {trimmed_to}");
        let unmoved = if more { cursor.max(trimmed_to) } else { timeline.last };
        let next = entries.last().map_or(unmoved, |entry| entry.sequence);
        let page = self.page_as_modelled(page);
        let mut expected = page.clone();
        expected.verdict = timeline.verdict(cursor, trimmed_to);
        (expected.entries, expected.lost) = (entries, Vec::new());
        (expected.first, expected.last) = (timeline.first(now), timeline.last);
        (expected.next, expected.more) = (next, more);
        prop_assert_eq!(page, expected);
        Ok(())
    }

    fn list(
        &self,
        store: usize,
        prefix: &[u8],
        after: Option<&[u8]>,
        count: usize,
    ) -> Result<(), TestCaseError> {
        let mut names: Vec<Vec<u8>> = self
            .timelines
            .iter()
            .filter(|(key, timeline)| {
                key.0 == store && timeline.readable(self.now(**key)).next().is_some()
            })
            .map(|(key, _)| NAMES[key.1].to_vec())
            .filter(|name| {
                name.starts_with(prefix) && after.is_none_or(|after| name.as_slice() > after)
            })
            .collect();
        names.sort();
        names.truncate(count);
        let listed = self.store((store, 0)).list(prefix, after, count).expect("lists");
        prop_assert_eq!(listed, names);
        Ok(())
    }

    /// The facts of all timelines: counts must not depend on where entries are stored.
    pub fn compare_facts(&self) -> Result<(), TestCaseError> {
        keys().try_for_each(|key| self.read(&Operation::Info(key)))
    }

    /// Everything, after a clean stop.
    pub fn compare_all(&mut self) -> Result<(), TestCaseError> {
        self.carry_out(&Operation::Close)?;
        self.compare_facts()?;
        for key in keys() {
            let all = Limit::entries(usize::MAX);
            self.range(key, (Bound::Unbounded, Bound::Unbounded), all, Direction::Up)?;
            self.range(key, (Bound::Unbounded, Bound::Unbounded), all, Direction::Down)?;
        }
        (0..STORES.len()).try_for_each(|store| self.list(store, b"", None, 100))
    }
}

fn keys() -> impl Iterator<Item = Key> {
    (0..STORES.len()).flat_map(|store| (0..NAMES.len()).map(move |name| (store, name)))
}
