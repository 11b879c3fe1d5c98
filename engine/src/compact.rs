//! Merging segments (P5, P6): so that a read meets few of them, and cold history lies together, compressed.
//!
//! ```text
//!  oldest                                                              newest
//!  tier 3 │ tier 2 │ tier 2 │ tier 1 │ tier 0 tier 0 tier 0 … (8 of them) ──> one of tier 1
//! ```
//!
//! Size tiers: when eight neighbours of one tier stand in a row, they become one of the next tier, so that an entry is written
//! about log₈(segments) times. Neighbours only: a merged segment holds one piece of the log as any other. From tier 2 on,
//! blocks are compressed: recent data is read most, and decompressing costs more than it saves there.
//!
//! Inputs are removed when the manifest that names the output instead of them is durable, and the last reader has let go.
//!
//! It does not know: memtables or the log.

use std::sync::Arc;
use std::time::Duration;

use crate::error::{Error, Result};
use crate::flush::remove_unfinished;
use crate::format::index::TimelineEntry;
use crate::format::manifest::SegmentRecord;
use crate::format::run::Content;
use crate::ids::StoreId;
use crate::segment::{Segment, SegmentPlan, SegmentScan, SegmentWriter};
use crate::state::State;
use crate::view::View;

/// How many segments of one tier become one of the next.
const FAN_IN: usize = 8;

/// From this tier on, blocks are compressed.
const COOL_TIER: u8 = 2;

/// How long the thread waits after a merge failed.
const RETRY: Duration = Duration::from_secs(5);

/// The compaction thread: merges whatever is due until the engine closes.
pub fn run(state: &State) {
    loop {
        // Read before looking at anything, so that no change falls between the look and the wait.
        let seen = state.progress.changes();
        if state.is_closing() {
            return;
        }
        let due = due(&state.view.load());
        let Some(inputs) = due else {
            state.progress.wait(seen, Duration::from_hours(1));
            continue;
        };
        if let Err(error) = merge(state, &inputs) {
            // Nothing is lost: the inputs stay. A full disk may have room later; damage waits for a person.
            tracing::warn!(%error, "segments could not be merged");
            let seen = state.progress.changes();
            state.progress.wait(seen, RETRY);
        }
    }
}

/// The oldest row of neighbours that is due.
fn due(view: &View) -> Option<Vec<Arc<Segment>>> {
    let mut stores: Vec<StoreId> = view.segments.all().map(|segment| segment.record().store).collect();
    stores.sort();
    stores.dedup();
    stores.into_iter().find_map(|store| due_in(view.segments.of(store)))
}

fn due_in(newest_first: &[Arc<Segment>]) -> Option<Vec<Arc<Segment>>> {
    let alike = |one: &Arc<Segment>, other: &Arc<Segment>| {
        let (one, other) = (one.record(), other.record());
        (one.tier, one.partition) == (other.tier, other.partition)
    };
    let is_due =
        |row: &[Arc<Segment>]| row.len() >= FAN_IN && row.iter().all(|segment| segment.damage().is_none());
    let row = newest_first.chunk_by(alike).rfind(|row| is_due(row))?;
    Some(row[row.len() - FAN_IN..].to_vec())
}

/// Merges all segments of each store into one.
pub fn merge_all(state: &State) -> Result<()> {
    let view = state.view.load();
    let mut stores: Vec<StoreId> = view.segments.all().map(|segment| segment.record().store).collect();
    stores.sort();
    stores.dedup();
    for store in stores {
        let row = view.segments.of(store);
        if let Some(damage) = row.iter().find_map(|segment| segment.damage()) {
            return Err(damage.clone());
        }
        if row.len() > 1 {
            merge(state, row)?;
        }
    }
    Ok(())
}

/// Replaces neighbours, newest first, by one segment.
fn merge(state: &State, inputs: &[Arc<Segment>]) -> Result<()> {
    let _one_at_a_time = state.merging.lock();
    let live = state.view.load();
    let store = inputs[0].record().store;
    if !inputs.iter().all(|input| live.segments.of(store).iter().any(|segment| Arc::ptr_eq(segment, input))) {
        return Ok(());
    }
    let record = write_merged(state, inputs)?;
    state.dir.sync()?;
    state.counters.merges.add(1);
    state.counters.merge_bytes.add(record.data_bytes + record.index_bytes);
    let gone: Vec<u64> = inputs.iter().map(|input| input.record().number).collect();
    state.manifest.lock().commit(|live| {
        live.segments.retain(|segment| !gone.contains(&segment.number));
        let place = live.segments.partition_point(|segment| segment.from < record.from);
        live.segments.insert(place, record.clone());
    })?;
    let output = Arc::new(Segment::open(&state.dir, state.engine_id, record, state.cache.clone()));
    state.view.change(|view| {
        view.segments.remove(inputs);
        view.segments.add([output]);
    });
    inputs.iter().for_each(|input| input.make_obsolete());
    state.progress.announce();
    Ok(())
}

fn write_merged(state: &State, inputs: &[Arc<Segment>]) -> Result<SegmentRecord> {
    let (newest, oldest) = (inputs[0].record(), inputs[inputs.len() - 1].record());
    let tier = inputs.iter().map(|input| input.record().tier).max().unwrap_or(0).saturating_add(1);
    let plan = SegmentPlan {
        number: state.manifest.lock().take_file_number(),
        store: newest.store,
        partition: newest.partition,
        tier,
        compress: tier >= COOL_TIER,
        from: oldest.from,
        to: newest.to,
    };
    let number = plan.number;
    let written = || {
        let mut writer = SegmentWriter::create(&state.dir, state.engine_id, state.writer_epoch, plan)?;
        Merge::new(state, inputs, &mut writer)?.run(&mut writer)?;
        writer.finish()
    };
    written().inspect_err(|_| remove_unfinished(state, [number].into_iter()))
}

/// A merge under way. Inputs are oldest first, so that each timeline's parts come in the order of its sequences.
struct Merge<'a> {
    state: &'a State,
    inputs: Vec<Input>,
}

struct Input {
    scan: SegmentScan,
    /// The timeline that the scan stands at.
    at: Option<(Vec<u8>, TimelineEntry)>,
    /// The number that its first shared body has in the output.
    bodies_from: u32,
}

impl<'a> Merge<'a> {
    /// Copies the shared bodies: of all inputs in order, which is commit order.
    fn new(state: &'a State, newest_first: &[Arc<Segment>], writer: &mut SegmentWriter) -> Result<Merge<'a>> {
        let mut inputs = Vec::new();
        let mut bodies_from = 0;
        for segment in newest_first.iter().rev() {
            segment.for_each_body(|time_ms, expire_at_ms, body| {
                writer.body(time_ms, expire_at_ms, body).map(|_| ())
            })?;
            let mut scan = SegmentScan::all(segment.clone());
            inputs.push(Input { at: scan.next()?, scan, bodies_from });
            bodies_from += segment.body_count()? as u32;
        }
        Ok(Merge { state, inputs })
    }

    fn run(&mut self, writer: &mut SegmentWriter) -> Result<()> {
        while let Some(name) = self.inputs.iter().filter_map(Input::name).min().map(<[u8]>::to_vec) {
            if self.state.is_closing() {
                return Err(Error::Closed { what: "the engine is closing: the merge is given up" });
            }
            self.timeline(&name, writer)?;
        }
        Ok(())
    }

    fn timeline(&mut self, name: &[u8], writer: &mut SegmentWriter) -> Result<()> {
        let parts = || self.inputs.iter().filter(|input| input.name() == Some(name));
        let (_, newest) =
            parts().next_back().and_then(|input| input.at.as_ref()).expect("the name is some input's");
        let last = newest.last;
        writer.begin(name, newest.lowest, newest.trimmed_to);
        for input in parts() {
            let (_, entry) = input.at.as_ref().expect("it stands at the name");
            input.scan.segment().for_each(name, entry, |sequence, content, block| match content {
                Content::Inline { time_ms, expire_at_ms, body } => {
                    writer.inline(sequence, *time_ms, *expire_at_ms, &block[body.clone()])
                }
                Content::Shared(number) => writer.shared(sequence, input.bodies_from + number),
            })?;
        }
        writer.end(last)?;
        for input in self.inputs.iter_mut().filter(|input| input.name() == Some(name)) {
            input.at = input.scan.next()?;
        }
        Ok(())
    }
}

impl Input {
    fn name(&self) -> Option<&[u8]> {
        self.at.as_ref().map(|(name, _)| name.as_slice())
    }
}
