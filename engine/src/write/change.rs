//! Changes of entries that were written before: trim, delete, edit, drop (P2, P11).
//!
//! A trim moves the floor of a timeline; a delete removes ranges of sequences; an edit replaces a
//! body. Each is one log record. Readers apply it to the entries in older memtables and segments,
//! and merging applies it to the entries that it writes. There is no tombstone per entry. A dropped
//! timeline is one whose floor is above its last sequence: its sequences continue.
//!
//! The result, the number of removed entries, needs a read. So a change reads first, then submits a
//! batch with what it found, and waits; two changes of one timeline exclude each other meanwhile.
//! Appends do not wait for changes: they only add entries above those that were read.
//!
//! Damaged entries can be changed too (P5): entries that cannot be read are counted by their
//! sequences.
//!
//! A trim and a delete read by sure time (`clock::SureTime`). An entry that is hidden only because
//! the wall clock jumped ahead is alive, and a floor above it would remove it for good.

use std::collections::BTreeSet;

use crate::entry::{Limit, Receipt};
use crate::error::Result;
use crate::ids::{MAX_SEQUENCE, Sequence, TimeMs, TimelineRef};
use crate::read::reading::Reading;
use crate::state::State;
use crate::timeline::{End, Floor, Times};
use crate::write::active::CommitPipeline;
use crate::write::batch::Batch;
use crate::write::queue::prepare_and_look_up;

/// The entries that a trim removes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trim {
    /// Entries with sequences below this one.
    Before(Sequence),
    /// Entries with an earlier time, Unix ms.
    Older(TimeMs),
    /// All entries except this number of the newest readable ones.
    Keep(u64),
}

/// The number of entries that are read at a time while they are counted.
const COUNT_PAGE: usize = 1000;

/// The limit of one such page.
const COUNTED: Limit =
    Limit { entries: COUNT_PAGE, body_bytes: u64::MAX, first_always: true, around_damage: true };

/// Removes the start of a timeline. Returns the number of readable entries removed.
pub fn trim(
    state: &State,
    pipeline: &CommitPipeline,
    timeline: TimelineRef<'_>,
    trim: Trim,
) -> Result<u64> {
    let key = state.key(timeline);
    let _alone = state.turns.changing(key).lock();
    let moment = state.view.moment();
    let reading = Reading::sure(state, &moment, key).around_damage(true);
    // Entries that are appended meanwhile are above this end, and stay.
    let end = reading.end()?;
    let keep_from = match trim {
        Trim::Before(sequence) => sequence,
        Trim::Older(time_ms) => reading.sequence_at(time_ms)?,
        Trim::Keep(count) => keep_from(&reading, count, end.last)?,
    };
    let keep_from = keep_from.min(end.last + 1);
    let Some(below) = keep_from.checked_sub(1) else { return Ok(0) };
    let (removed, highest) = count_to(&reading, below)?;
    let Some(highest) = highest else { return Ok(0) };
    let floor = floor_from(&reading, keep_from, &end)?;
    let batch = Batch::new().trim(timeline, Floor { trimmed_to: highest, ..floor });
    commit(state, pipeline, batch)?;
    state.counters.trimmed_entries.add(removed);
    Ok(removed)
}

/// The lowest sequence of the newest `count` readable entries. Entries lost to damage are counted
/// by their sequences.
fn keep_from(reading: &Reading<'_>, count: u64, last: Sequence) -> Result<Sequence> {
    let (mut from, mut left) = (last + 1, count);
    while left > 0 {
        let limit = Limit::entries(COUNT_PAGE.min(left as usize)).around_damage();
        let page = reading.range_without_bodies(0, from - 1, limit, true)?;
        let spans = page.spans();
        if spans.is_empty() {
            break;
        }
        for (first, last) in spans.into_iter().rev() {
            let taken = left.min(last - first + 1);
            left -= taken;
            if taken > 0 {
                from = last + 1 - taken;
            }
        }
    }
    Ok(from)
}

/// The number of readable entries up to a sequence, and the highest of them. Entries lost to damage
/// are counted by their sequences.
fn count_to(reading: &Reading<'_>, high: Sequence) -> Result<(u64, Option<Sequence>)> {
    let (mut count, mut highest) = (0, None);
    let mut low = 0;
    loop {
        let page = reading.range_without_bodies(low, high, COUNTED, false)?;
        let spans = page.spans();
        let Some((_, last)) = spans.last() else { return Ok((count, highest)) };
        count += spans.iter().map(|(first, last)| last - first + 1).sum::<u64>();
        highest = Some(*last);
        low = last + 1;
    }
}

/// The floor of a timeline in which everything below `from` is gone.
fn floor_from(reading: &Reading<'_>, from: Sequence, end: &End) -> Result<Floor> {
    let trimmed_to = end.floor.trimmed_to;
    let first = reading.first_from(from)?;
    Ok(match first {
        Some((lowest, Times { start_ms, expire_at_ms: until_ms, .. })) => {
            Floor { lowest, start_ms, until_ms, trimmed_to }
        }
        // Above the sequences given so far: entries that are appended meanwhile are readable.
        None => Floor {
            lowest: (end.last + 1).min(MAX_SEQUENCE + 1),
            start_ms: 0,
            until_ms: 0,
            trimmed_to,
        },
    })
}

/// Removes single entries. Returns the number of entries removed.
pub fn delete(
    state: &State,
    pipeline: &CommitPipeline,
    timeline: TimelineRef<'_>,
    sequences: &[Sequence],
) -> Result<u64> {
    let key = state.key(timeline);
    let _alone = state.turns.changing(key).lock();
    let moment = state.view.moment();
    let reading = Reading::sure(state, &moment, key).around_damage(true);
    let mut wanted = sequences.to_vec();
    wanted.sort_unstable();
    wanted.dedup();
    let gone = reading.present(&wanted)?;
    if gone.is_empty() {
        return Ok(0);
    }
    let end = reading.end()?;
    let ranges = gone.iter().map(|sequence| (*sequence, *sequence)).collect();
    let mut batch = Batch::new().remove(timeline, &ranges);
    if gone.contains(&end.floor.lowest) {
        let from = lowest_beside(&reading, &gone, &end)?;
        batch = batch.trim(timeline, floor_from(&reading, from, &end)?);
    }
    commit(state, pipeline, batch)?;
    state.counters.trimmed_entries.add(gone.len() as u64);
    Ok(gone.len() as u64)
}

/// The lowest sequence of an entry that is not in `gone`; above the last one if there is none.
fn lowest_beside(reading: &Reading<'_>, gone: &BTreeSet<Sequence>, end: &End) -> Result<Sequence> {
    let mut low = end.floor.lowest;
    loop {
        let spans = reading.range_without_bodies(low, end.last, COUNTED, false)?.spans();
        let Some((_, last)) = spans.last() else { return Ok(end.last + 1) };
        let left =
            spans.iter().flat_map(|(first, last)| *first..=*last).find(|at| !gone.contains(at));
        if let Some(sequence) = left {
            return Ok(sequence);
        }
        low = last + 1;
    }
}

/// Replaces a body. False if there is no such readable entry.
pub fn edit(
    state: &State,
    pipeline: &CommitPipeline,
    timeline: TimelineRef<'_>,
    sequence: Sequence,
    body: &[u8],
) -> Result<bool> {
    let key = state.key(timeline);
    let _alone = state.turns.changing(key).lock();
    let moment = state.view.moment();
    if !Reading::new(state, &moment, key).around_damage(true).has(sequence)? {
        return Ok(false);
    }
    commit(state, pipeline, Batch::new().edit_in(timeline, sequence, body))?;
    Ok(true)
}

/// Commits a batch and waits for it.
pub fn commit(state: &State, pipeline: &CommitPipeline, batch: Batch) -> Result<Receipt> {
    pipeline.commit(prepare_and_look_up(state, batch)?)
}
