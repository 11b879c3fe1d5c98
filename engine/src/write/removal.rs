//! Finds what the removals of a batch remove (P2, P11).
//!
//! A trim moves the floor of a timeline; a delete removes ranges of sequences. Each is one log
//! record. Readers apply it to the entries in older memtables and segments, and merging applies it
//! to the entries that it writes. There is no tombstone per entry. A dropped timeline is one whose
//! floor is above its last sequence: its sequences continue.
//!
//! The floor and the number of removed entries need a read. So the caller's thread reads before the
//! batch is queued, and the batch keeps its turn to change these timelines until it is committed or
//! refused: the next removal reads what this one left. Appends do not wait for removals: they only
//! add entries above those that were read.
//!
//! Damaged entries can be removed too (P5): entries that cannot be read are counted by their
//! sequences.
//!
//! A removal reads by sure time (`clock::SureTime`). An entry that is hidden only because the wall
//! clock jumped ahead is alive, and a floor above it would remove it for good.

use std::collections::BTreeSet;

use crate::entry::Limit;
use crate::error::Result;
use crate::ids::{MAX_SEQUENCE, Sequence};
use crate::read::reading::Reading;
use crate::state::State;
use crate::state::turns::Turn;
use crate::timeline::{End, Floor, Times};
use crate::write::batch::{Batch, Removal, Removed, Trim};

/// The number of entries that are read at a time while they are counted.
const COUNT_PAGE: usize = 1000;

/// The limit of one such page.
const COUNTED: Limit =
    Limit { entries: COUNT_PAGE, body_bytes: u64::MAX, first_always: true, around_damage: true };

/// Finds what the removals of a batch remove, and adds it to the batch. The turn is to be kept
/// until the batch is committed or refused.
pub fn find(state: &State, mut batch: Batch) -> Result<(Batch, Turn)> {
    let removals = batch.take_removals();
    let keys: Vec<_> = removals.iter().map(|removal| state.key(removal.timeline())).collect();
    let turn = state.turns.change(keys.iter().copied());
    let moment = state.view.moment();
    for (Removal { store, what, .. }, key) in removals.iter().zip(keys) {
        let reading = Reading::sure(state, &moment, key).around_damage(true);
        // Entries that are appended meanwhile are above this end, and stay.
        let end = reading.end()?;
        batch = match what {
            Removed::Start(trim) => find_start(&reading, &end, *trim, batch)?,
            Removed::Entries(sequences) => find_entries(&reading, &end, sequences, batch)?,
        };
        // What was read of a store that was dropped meanwhile means nothing.
        state.check_store(*store)?;
    }
    Ok((batch, turn))
}

fn find_start(reading: &Reading<'_>, end: &End, trim: Trim, mut batch: Batch) -> Result<Batch> {
    let keep_from = match trim {
        Trim::Before(sequence) => sequence,
        Trim::Older(time_ms) => reading.sequence_at(time_ms)?,
        Trim::Keep(count) => keep_from(reading, count, end.last)?,
    };
    let keep_from = keep_from.min(end.last + 1);
    let Some(below) = keep_from.checked_sub(1) else { return Ok(batch) };
    let (removed, Some(highest)) = count_to(reading, below)? else { return Ok(batch) };
    let floor = Floor { trimmed_to: highest, ..floor_from(reading, keep_from, end)? };
    batch.count_removed(removed);
    Ok(batch.move_floor(reading.key.timeline, floor))
}

fn find_entries(
    reading: &Reading<'_>,
    end: &End,
    sequences: &[Sequence],
    mut batch: Batch,
) -> Result<Batch> {
    let gone = reading.present(sequences)?;
    if gone.is_empty() {
        return Ok(batch);
    }
    batch.count_removed(gone.len() as u64);
    let ranges = gone.iter().map(|sequence| (*sequence, *sequence)).collect();
    let batch = batch.remove(reading.key.timeline, &ranges);
    if !gone.contains(&end.floor.lowest) {
        return Ok(batch);
    }
    let from = lowest_beside(reading, &gone, end)?;
    Ok(batch.move_floor(reading.key.timeline, floor_from(reading, from, end)?))
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
