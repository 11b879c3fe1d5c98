//! Offers one timeline's entries in a segment to a read, in both directions.
//!
//! Plain entries are offered together if the read has met no changes. A descending read decodes the
//! entries at the end of a block that it needs, and passes over the others.
//!
//! Damage is passed to the collector, which ends the read or continues after it (P5). A block or a
//! page of the run table that cannot be read hides the sequences from its first one, which is in
//! the index, to the first one of the next. An entry whose shared body cannot be read is still an
//! entry; its time is between those of its neighbours.
//!
//! This file does not know how a block is found, or what a page may hold.

use std::ops::RangeInclusive;

use bytes::Bytes;

use super::runs::{BlockAt, RunEntries, RunsOf, take_plain};
use crate::error::Result;
use crate::format::run::{EntryContent, SharedBody};
use crate::ids::Sequence;
use crate::timeline::{Collector, Offered, Own, Times};

/// The maximum number of plain entries that an ascending read decodes before it offers them: the
/// limit of bytes may take few of them.
const AT_A_TIME: usize = 256;

impl RunsOf<'_> {
    /// Offers the entries from `low` to `high`, ascending.
    pub fn ascending(
        &mut self,
        low: Sequence,
        high: Sequence,
        out: &mut Collector<'_>,
    ) -> Result<()> {
        let mut next = self.first_from(low)?;
        while let Some(block_at) = next.filter(|block_at| block_at.run.first <= high) {
            let mut from = block_at.run.first;
            let goes_on = match self.block_ascending(&block_at, low..=high, &mut from, out) {
                Err(error) if error.is_damage() => {
                    let (last, to_ms) = self.reach(&block_at)?;
                    out.offer_lost(
                        (from.max(low), last.min(high)),
                        self.entry.latest_start(to_ms),
                        &error,
                    )
                }
                goes_on => goes_on?,
            };
            if !goes_on {
                return Ok(());
            }
            next = self.next(block_at)?;
        }
        Ok(())
    }

    /// Offers the entries of one block. `from` becomes the sequence after the last one that was
    /// read.
    fn block_ascending(
        &mut self,
        block_at: &BlockAt,
        wanted: RangeInclusive<Sequence>,
        from: &mut Sequence,
        out: &mut Collector<'_>,
    ) -> Result<bool> {
        let block = self.block(block_at)?;
        let (mut run, most) = self.run_from(block_at, &block, &wanted, from)?;
        out.reserve(most);
        let mut plain = Vec::new();
        loop {
            if out.takes_plain() {
                let count = out.wanted().clamp(1, AT_A_TIME);
                let first = run.next_sequence().max(*wanted.start());
                let last = first.saturating_add(count as Sequence - 1).min(*wanted.end());
                take_plain(&mut run, &(*wanted.start()..=last), most.min(count), &mut plain);
                if let Some(last) = plain.last() {
                    *from = last.sequence + 1;
                    if !out.offer_plain(&block, plain.drain(..)) {
                        return Ok(false);
                    }
                }
            }
            let Some((sequence, content)) = run.next_entry() else { break };
            if sequence > *wanted.end() {
                return Ok(false);
            }
            *from = sequence + 1;
            if sequence >= *wanted.start()
                && !self.offer(block_at, sequence, &content, &block, out)?
            {
                return Ok(false);
            }
        }
        self.check_end(block_at, &run).map(|()| true)
    }

    /// Offers the entries from `high` to `low`.
    pub fn descending(
        &mut self,
        low: Sequence,
        high: Sequence,
        out: &mut Collector<'_>,
    ) -> Result<()> {
        let mut next = self.seek(|first, _| first > high)?;
        while let Some(block_at) = next {
            let goes_on = self.block_descending(&block_at, low, high, out)?;
            if !goes_on || block_at.run.first <= low {
                return Ok(());
            }
            next = self.previous(block_at)?;
        }
        Ok(())
    }

    /// Offers the entries of one block, the last ones first: as many as the collector wants, and
    /// all others if some of these were not visible. So each entry is decoded twice at the most.
    fn block_descending(
        &mut self,
        block_at: &BlockAt,
        low: Sequence,
        high: Sequence,
        out: &mut Collector<'_>,
    ) -> Result<bool> {
        let (last, to_ms) = self.reach(block_at)?;
        let low = low.max(block_at.run.first);
        let mut high = high.min(last);
        let mut from = low.max(high.saturating_sub(out.wanted().saturating_sub(1) as Sequence));
        while low <= high {
            let RunEntries { block, plain, found, damage } =
                self.entries_within(block_at, from..=high, out.takes_plain())?;
            let mut lowest = from;
            if let Some((hidden, error)) = damage.filter(|(hidden, _)| *hidden <= high) {
                let range = (hidden.max(low), high);
                if !out.offer_lost(range, self.entry.latest_start(to_ms), &error) {
                    return Ok(false);
                }
                lowest = from.min(hidden);
            }
            out.reserve(found.len() + plain.len());
            for (sequence, content) in found.iter().rev() {
                if !self.offer(block_at, *sequence, content, &block, out)? {
                    return Ok(false);
                }
            }
            if !plain.is_empty() && !out.offer_plain(&block, plain.into_iter().rev()) {
                return Ok(false);
            }
            if lowest <= low {
                break;
            }
            (from, high) = (low, lowest - 1);
        }
        Ok(true)
    }

    /// Offers an entry to the collector. Its body is a slice of its block.
    fn offer(
        &mut self,
        block_at: &BlockAt,
        sequence: Sequence,
        content: &EntryContent,
        block: &Bytes,
        out: &mut Collector<'_>,
    ) -> Result<bool> {
        let (number, own_start_ms) = match content {
            EntryContent::Inline { times, is_elsewhere: true, place: body, .. }
                if out.needs_body(sequence, times, (*body, self.applied_to())) =>
            {
                let error = self.damaged(block_at, "the edit of an entry is in no younger segment");
                return Ok(out.offer_without_body(
                    sequence,
                    (*times, *times),
                    self.applied_to(),
                    &error,
                ));
            }
            EntryContent::Inline { times, body, place, is_elsewhere } => {
                let (applied_to, is_elsewhere) = (self.applied_to(), *is_elsewhere);
                let own = Own { place: *place, applied_to, is_elsewhere };
                let body = Offered::Part(block, body.clone());
                return Ok(out.offer(sequence, *times, own, body));
            }
            EntryContent::Shared { number, own_start_ms } => (*number, *own_start_ms),
        };
        if !out.may_show(sequence) {
            return Ok(!out.is_full());
        }
        let applied_to = self.applied_to();
        match self.shared(block_at, sequence, number) {
            Ok((SharedBody { time_ms, expire_at_ms, place }, block, body)) => {
                let times = Times::stored(time_ms, own_start_ms, expire_at_ms);
                let own = Own { place, applied_to, is_elsewhere: false };
                Ok(out.offer(sequence, times, own, Offered::Part(block, body)))
            }
            Err(error) if error.is_damage() => {
                let (from_ms, to_ms) = self.times_around(block_at, sequence)?;
                let times = |time_ms| Times::stored(time_ms, own_start_ms, 0);
                Ok(out.offer_without_body(
                    sequence,
                    (times(from_ms), times(to_ms)),
                    applied_to,
                    &error,
                ))
            }
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::super::{BlockCache, Segment, SegmentPlan, SegmentWriter};
    use super::*;
    use crate::entry::Limit;
    use crate::ids::{CommitPlace, EngineId};
    use crate::timeline::{End, Lifetimes, Sight, Times};
    use crate::vfs::Dir;
    use crate::vfs::simulated::SimulatedDisk;

    const NAME: &[u8] = b"c/1";
    const NOW_MS: u64 = 1200;

    /// The kinds of entries that a run can have.
    #[derive(Clone, Copy, Debug)]
    enum Shape {
        Plain,
        Placed,
        OwnStart,
        /// Half of them have expired.
        OwnExpiry,
        Shared,
    }

    type WrittenEntry = (Sequence, Times, Vec<u8>);

    /// Entries in order, and a segment that has them.
    fn segment(entries: &[(Shape, u64, usize)]) -> (Vec<WrittenEntry>, Segment) {
        let dir = Dir::new(Arc::new(SimulatedDisk::new()));
        let (engine, cache) = (EngineId([7; 16]), Arc::new(BlockCache::new(1 << 20, 8)));
        let plan =
            SegmentPlan { partition: 0, ttl_ms: 0, now_ms: NOW_MS, ..SegmentPlan::of_a_test() };
        let mut written: Vec<WrittenEntry> = Vec::new();
        let mut sequence = 0;
        for (number, (kind, step, bytes)) in entries.iter().enumerate() {
            sequence += step;
            let time_ms = 1000 + number as u64;
            let times = match kind {
                Shape::OwnStart => Times::stored(time_ms, Some(1100), 0),
                Shape::OwnExpiry => Times::stored(time_ms, None, NOW_MS - 1 + sequence % 2 * 2),
                Shape::Plain | Shape::Placed | Shape::Shared => Times::stored(time_ms, None, 0),
            };
            written.push((sequence, times, vec![number as u8; *bytes]));
        }
        let write = || {
            let mut writer = SegmentWriter::create(&dir, engine, 1, plan)?;
            let mut numbers = Vec::new();
            for ((kind, ..), (_, times, body)) in entries.iter().zip(&written) {
                if matches!(kind, Shape::Shared) {
                    let shared = SharedBody { time_ms: times.time_ms, ..SharedBody::default() };
                    numbers.push(writer.body(shared, body)?);
                }
            }
            let (mut numbers, mut end) = (numbers.into_iter(), End::NEVER);
            writer.begin(NAME);
            for ((kind, ..), (sequence, times, body)) in entries.iter().zip(&written) {
                let place = matches!(kind, Shape::Placed).then_some(CommitPlace(7 * sequence));
                if matches!(kind, Shape::Shared) {
                    writer.shared(*sequence, numbers.next().expect("one each"), None)?;
                } else {
                    writer.inline(*sequence, *times, place, body)?;
                }
                end.append(*sequence, times);
            }
            writer.end(end)?;
            writer.finish()
        };
        let record = write().expect("written");
        (written, Segment::open(&dir, engine, record, &cache))
    }

    fn kind() -> impl Strategy<Value = Shape> {
        prop_oneof![
            6 => Just(Shape::Plain),
            1 => Just(Shape::Placed),
            1 => Just(Shape::OwnStart),
            1 => Just(Shape::OwnExpiry),
            2 => Just(Shape::Shared),
        ]
    }

    proptest! {
        #[test]
        fn each_page_of_any_runs_has_the_visible_entries_in_its_direction(
            entries in prop::collection::vec(
                (
                    kind(),
                    prop_oneof![9 => Just(1_u64), 1 => 2_u64..9],
                    prop_oneof![5 => 0_usize..40, 1 => 2000_usize..5000],
                ),
                1..150,
            ),
            (limit, sufficient) in (1_usize..60, any::<bool>()),
            (low, high) in (0_u64..200, 0_u64..300),
            (lowest, alive_from_ms) in (0_u64..80, prop_oneof![Just(0_u64), 1000_u64..1100]),
            descending: bool,
        ) {
            let (written, segment) = segment(&entries);
            let lifetimes = Lifetimes { now_ms: NOW_MS, ttl_ms: 0, alive_from_ms };
            let mut visible: Vec<_> = written
                .into_iter()
                .filter(|(sequence, Times { start_ms, expire_at_ms, .. }, _)| {
                    (low.max(lowest)..=high).contains(sequence)
                        && *start_ms >= alive_from_ms
                        && (*expire_at_ms == 0 || *expire_at_ms > NOW_MS)
                })
                .map(|(sequence, times, body)| (sequence, times.time_ms, times.start_ms, body))
                .collect();
            if descending {
                visible.reverse();
            }
            let sight = Sight { lifetimes, lowest, ..Sight::default() };
            let mut out = Collector::new(Limit::entries(limit), descending, sight);
            if sufficient {
                out = out.sufficient();
            }
            let entry = segment.find(NAME).expect("can be read").expect("is there");
            segment.read(NAME, &entry, low, high, &mut out).expect("can be read");
            let page = out.finish().expect("no damage");
            prop_assert_eq!(page.more, !sufficient && visible.len() > limit);
            visible.truncate(limit);
            let read: Vec<_> = page
                .entries
                .into_iter()
                .map(|entry| (entry.sequence, entry.time_ms, entry.start_ms, entry.body.to_vec()))
                .collect();
            prop_assert_eq!(read, visible);
        }
    }
}
