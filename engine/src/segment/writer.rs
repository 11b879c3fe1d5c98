//! Writes a segment: first all shared bodies, then the timelines in the order of their names.
//!
//! ```text
//!  body × n, (begin, entry × n, changes, id × n, end) × timelines, finish
//! ```
//!
//! Blocks and pages are written to the disk as they fill up. Until the end, only an open page per
//! level of each table and, for each shared body, its properties and its length are kept in memory.

use std::collections::BTreeMap;

use crate::error::Result;
use crate::format::block::{BlockKind, BlockRef, Compression, TARGET_RAW_BYTES};
use crate::format::header::{EngineId, FileHeader, FileKind, VERSION};
use crate::format::ids::{self, IdRecord};
use crate::format::index::{Edited, Footer, RunBlock, TimelineEntry, name_prefix};
use crate::format::manifest::{Copies, ENTRY_WEIGHT, SegmentRecord};
use crate::format::run::{RunWriter, SharedBody, put_shared_body};
use crate::format::slots::SlotsWriter;
use crate::format::table::{Row, TableWriter};
use crate::ids::{CommitPlace, FileNumber, Lsn, Sequence, StoreId, TimeMs};
use crate::timeline::{End, Times};
use crate::vfs::Dir;

use super::blocks::Blocks;
use super::expiry_histogram::ExpiryHistogram;
use super::pages::PagesWriter;
use super::run_list::RunList;
use super::{data_name, index_name};

/// The properties of a segment that is to be written.
#[derive(Clone, Debug)]
pub struct SegmentPlan {
    /// The number in its files' names.
    pub number: FileNumber,
    /// The store whose timelines it holds.
    pub store: StoreId,
    /// The time partition; 0 in a store without TTL.
    pub partition: u64,
    /// The store's TTL; 0: no limit.
    pub ttl_ms: u64,
    /// The number of times that its content was merged.
    pub tier: u8,
    /// Whether it has only the ends of timelines, all of whose entries here have expired.
    pub dropped: bool,
    /// How the blocks of its data file are compressed.
    pub compression: Compression,
    /// The number of copies of each of its files: one or two.
    pub copies: Copies,
    /// It holds the log from this lsn on …
    pub from: Lsn,
    /// … up to this one.
    pub to: Lsn,
    /// Changes of shared bodies below this lsn of the log are applied to its content.
    pub changed_to: Lsn,
    /// The time of the write: no lifetime that sure time counts began later.
    pub now_ms: TimeMs,
}

/// From this tier on, data is compressed in any case: it is read so seldom that space counts more.
const COOL_TIER: u8 = 2;

/// The compression of a segment's data, by its tier. `recent`: whether recent data is compressed.
pub fn compression(tier: u8, recent: bool) -> Compression {
    if recent || tier >= COOL_TIER { Compression::Zstd } else { Compression::None }
}

/// A segment under construction.
pub struct SegmentWriter {
    plan: SegmentPlan,
    data: Blocks,
    index: Blocks,
    bodies: SlotsWriter,
    body_table: TableWriter,
    /// For each shared body: its properties, its length, and whether an entry or a change refers to
    /// it.
    shared: Vec<(SharedBody, u32, bool)>,
    /// The number of bodies that may be changed for all their entries, and the weight of these
    /// entries.
    placed: (u64, u64),
    runs: Vec<u8>,
    timeline: Option<Timeline>,
    /// Timelines whose last run is in the block that is still open.
    waiting: Vec<Timeline>,
    pages: PagesWriter,
    ids: PagesWriter,
    footer: Footer,
    weight: u64,
    expiries: ExpiryHistogram,
    last_start_ms: TimeMs,
    /// Whether a lifetime began at another time than its entry's timestamp.
    own_starts: bool,
    first_name: Vec<u8>,
    last_name: Vec<u8>,
}

struct Timeline {
    name: Vec<u8>,
    entry: TimelineEntry,
    run: Option<RunWriter>,
    run_first: Sequence,
    run_time_ms: TimeMs,
    /// Whether its last run is in the block that is still open.
    is_waiting: bool,
    blocks: RunList,
}

impl Timeline {
    /// The block of its last run was written at `block`.
    fn place(&mut self, block: BlockRef, index: &mut Blocks) -> Result<()> {
        if !std::mem::take(&mut self.is_waiting) {
            return Ok(());
        }
        let run = RunBlock { block, first: self.run_first, first_time_ms: self.run_time_ms };
        self.blocks.add(run, index)
    }
}

impl SegmentWriter {
    /// Creates its files. Leftovers of an earlier attempt have other numbers.
    pub fn create(
        dir: &Dir,
        engine_id: EngineId,
        writer_epoch: u64,
        plan: SegmentPlan,
    ) -> Result<SegmentWriter> {
        let header = FileHeader {
            version: VERSION,
            kind: FileKind::Data,
            engine_id,
            writer_epoch,
            number: plan.number,
            first: u64::from(plan.store.0),
            second: plan.partition,
            third: plan.changed_to.0,
        };
        let data =
            Blocks::create(dir, &data_name(plan.number), &header, plan.copies.of(FileKind::Data))?;
        let index_header = FileHeader { kind: FileKind::Index, ..header };
        let index = Blocks::create(
            dir,
            &index_name(plan.number),
            &index_header,
            plan.copies.of(FileKind::Index),
        )?;
        Ok(SegmentWriter {
            plan,
            data,
            index,
            bodies: SlotsWriter::default(),
            body_table: TableWriter::default(),
            shared: Vec::new(),
            placed: (0, 0),
            runs: Vec::new(),
            timeline: None,
            waiting: Vec::new(),
            pages: PagesWriter::new(BlockKind::IndexPage, BlockKind::PageTable, name_prefix),
            ids: PagesWriter::new(BlockKind::IdPage, BlockKind::IdTable, ids::key_prefix),
            footer: Footer { first_time_ms: TimeMs::MAX, ..Footer::default() },
            weight: 0,
            expiries: ExpiryHistogram::default(),
            last_start_ms: 0,
            own_starts: false,
            first_name: Vec::new(),
            last_name: Vec::new(),
        })
    }

    /// Adds a shared body, in commit order, and returns its number.
    pub fn body(&mut self, shared: SharedBody, body: &[u8]) -> Result<u32> {
        let number = self.shared.len() as u32;
        put_shared_body(&mut self.bodies, shared, body);
        self.shared.push((shared, body.len() as u32, false));
        self.placed.0 += u64::from(shared.place.is_some());
        if self.bodies.raw_bytes() >= TARGET_RAW_BYTES {
            self.close_bodies()?;
        }
        Ok(number)
    }

    fn close_bodies(&mut self) -> Result<()> {
        let count = self.bodies.count();
        if count > 0 {
            let first = (self.shared.len() - count) as u32;
            let block =
                self.data.block(BlockKind::Bodies, &self.bodies.finish(), self.plan.compression)?;
            let row = Row { key: &first.to_le_bytes(), block, filter: &[] };
            let index = &mut self.index;
            self.body_table
                .add(row, &mut |page| index.block(BlockKind::BodyTable, page, Compression::None))?;
        }
        Ok(())
    }

    /// Starts the next timeline.
    pub fn begin(&mut self, name: &[u8]) {
        self.timeline = Some(Timeline {
            name: name.to_vec(),
            entry: TimelineEntry::default(),
            run: None,
            run_first: 0,
            run_time_ms: 0,
            is_waiting: false,
            blocks: RunList::default(),
        });
    }

    /// Adds the timeline's changes of older segments: removed sequences, and the shared bodies that
    /// replace others. The time of such a body is the start of the lifetime of the edited entry,
    /// and its expiry is that entry's own expiry, if it has one.
    pub fn changes(
        &mut self,
        removed: &BTreeMap<Sequence, Sequence>,
        edited: Vec<(Sequence, u32, CommitPlace)>,
    ) {
        let timeline = self.timeline.as_mut().expect("changes come between begin and end");
        timeline.entry.removed = removed.iter().map(|(first, last)| (*first, *last)).collect();
        let add = |(sequence, number, at): (Sequence, u32, CommitPlace)| {
            let (SharedBody { time_ms: start_ms, expire_at_ms, .. }, bytes, is_used) =
                &mut self.shared[number as usize];
            *is_used = true;
            let (start_ms, expire_at_ms, bytes) = (*start_ms, *expire_at_ms, *bytes);
            let weight = u64::from(bytes) + ENTRY_WEIGHT;
            self.weight += weight;
            if is_brief(&self.plan, start_ms, expire_at_ms) {
                self.expiries.add(start_ms, expire_at_ms, weight);
            }
            timeline.entry.own_expiry |= expire_at_ms != 0;
            Edited { sequence, body: number, body_bytes: Some(bytes), at }
        };
        timeline.entry.edited = edited.into_iter().map(add).collect();
    }

    /// Adds an id of the timeline. Ids come in order.
    pub fn id(&mut self, id: &[u8], entry: &IdRecord) -> Result<()> {
        let name = &self.timeline.as_ref().expect("ids come between begin and end").name;
        self.footer.ids += 1;
        self.footer.ids_until_ms = self.footer.ids_until_ms.max(entry.start_ms);
        self.ids.add(&mut self.index, |out| entry.encode(name, id, out))
    }

    /// Adds an entry with its own body. `place` is the place of the commit of the body that it was
    /// written with, if that body may be changed for all its entries.
    pub fn inline(
        &mut self,
        sequence: Sequence,
        times: Times,
        place: Option<CommitPlace>,
        body: &[u8],
    ) -> Result<()> {
        if place.is_some() {
            self.placed = (self.placed.0 + 1, self.placed.1 + body.len() as u64 + ENTRY_WEIGHT);
        }
        let run = self.run(sequence, &times, body.len() as u64);
        place.into_iter().for_each(|place| run.place(sequence, place));
        run.inline(sequence, times, body);
        self.close_runs_if_full()
    }

    /// Adds an entry whose body is in a younger segment.
    pub fn elsewhere(
        &mut self,
        sequence: Sequence,
        times: Times,
        place: Option<CommitPlace>,
    ) -> Result<()> {
        let run = self.run(sequence, &times, 0);
        place.into_iter().for_each(|place| run.place(sequence, place));
        run.elsewhere(sequence, times);
        self.close_runs_if_full()
    }

    /// Adds an entry with a shared body. Its lifetime began at the body's time, or at
    /// `own_start_ms`.
    pub fn shared(
        &mut self,
        sequence: Sequence,
        number: u32,
        own_start_ms: Option<TimeMs>,
    ) -> Result<()> {
        let (known, bytes, is_used) = &mut self.shared[number as usize];
        *is_used = true;
        let (SharedBody { time_ms, expire_at_ms, place }, bytes) = (*known, *bytes);
        self.placed.1 += if place.is_some() { u64::from(bytes) + ENTRY_WEIGHT } else { 0 };
        let times = Times::stored(time_ms, own_start_ms, expire_at_ms);
        self.run(sequence, &times, u64::from(bytes)).shared(sequence, number, times.own_start_ms());
        self.close_runs_if_full()
    }

    /// Counts an entry and returns the run that takes it.
    fn run(&mut self, sequence: Sequence, times: &Times, body_bytes: u64) -> &mut RunWriter {
        let Times { time_ms, start_ms, expire_at_ms } = *times;
        let is_brief = is_brief(&self.plan, start_ms, expire_at_ms);
        let timeline = self.timeline.as_mut().expect("entries come between begin and end");
        let entry = &mut timeline.entry;
        if entry.count == 0 {
            (entry.first, entry.first_time_ms) = (sequence, time_ms);
            (entry.first_start_ms, entry.last_start_ms) = (start_ms, start_ms);
        }
        entry.first_start_ms = entry.first_start_ms.min(start_ms);
        entry.last_start_ms = entry.last_start_ms.max(start_ms);
        self.last_start_ms = self.last_start_ms.max(start_ms);
        self.own_starts |= start_ms != time_ms;
        entry.own_expiry |= expire_at_ms != 0;
        self.weight += body_bytes + ENTRY_WEIGHT;
        if is_brief {
            self.expiries.add(start_ms, expire_at_ms, body_bytes + ENTRY_WEIGHT);
        } else {
            entry.last_lost = sequence;
        }
        entry.count += 1;
        entry.body_bytes += body_bytes;
        self.footer.entries += 1;
        self.footer.first_time_ms = self.footer.first_time_ms.min(time_ms);
        self.footer.last_time_ms = self.footer.last_time_ms.max(time_ms);
        timeline.run.get_or_insert_with(|| {
            (timeline.run_first, timeline.run_time_ms) = (sequence, time_ms);
            RunWriter::new(sequence, time_ms)
        })
    }

    fn close_runs_if_full(&mut self) -> Result<()> {
        let run_bytes = self
            .timeline
            .as_ref()
            .and_then(|timeline| timeline.run.as_ref())
            .map_or(0, RunWriter::len);
        if self.runs.len() + run_bytes < TARGET_RAW_BYTES {
            return Ok(());
        }
        self.end_run();
        self.close_runs()
    }

    /// Puts the open run into the open block.
    fn end_run(&mut self) {
        let Some(timeline) = &mut self.timeline else { return };
        let Some(run) = timeline.run.take() else { return };
        if timeline.blocks.is_empty() {
            timeline.entry.run_at = self.runs.len() as u32;
        }
        // The position of the block is known when it is closed.
        timeline.is_waiting = true;
        run.finish(&timeline.name, &mut self.runs);
    }

    /// Writes the open block and records its position in the timelines that have a run in it.
    fn close_runs(&mut self) -> Result<()> {
        if self.runs.is_empty() {
            return Ok(());
        }
        self.close_bodies()?;
        let block = self.data.block(BlockKind::Runs, &self.runs, self.plan.compression)?;
        self.runs.clear();
        if let Some(timeline) = &mut self.timeline {
            timeline.place(block, &mut self.index)?;
        }
        for mut timeline in std::mem::take(&mut self.waiting) {
            timeline.place(block, &mut self.index)?;
            self.index_entry(timeline)?;
        }
        Ok(())
    }

    /// Ends the timeline. `end` is the end of the timeline as a whole.
    pub fn end(&mut self, end: End) -> Result<()> {
        self.end_run();
        let mut timeline = self.timeline.take().expect("end follows begin");
        let entry = &mut timeline.entry;
        if entry.count == 0 {
            (entry.first, entry.first_time_ms) = (end.last + 1, end.last_time_ms);
            (entry.first_start_ms, entry.last_start_ms) = (end.last_time_ms, end.last_time_ms);
            self.footer.last_time_ms = self.footer.last_time_ms.max(end.last_time_ms);
            // Removals in older segments are needed as long as these live. Timestamps may be ahead
            // of the clock that lifetimes use.
            self.last_start_ms = self.last_start_ms.max(end.last_time_ms.min(self.plan.now_ms));
        }
        if !entry.edited.is_empty() {
            // New bodies of entries in older segments are needed as long as these live: none of
            // their lifetimes began later.
            self.last_start_ms = self.last_start_ms.max(end.last_time_ms).max(self.plan.now_ms);
        }
        timeline.entry.end = end;
        if self.footer.timelines == 0 {
            self.first_name.clone_from(&timeline.name);
        }
        self.last_name.clone_from(&timeline.name);
        self.footer.timelines += 1;
        if !timeline.is_waiting && self.waiting.is_empty() {
            return self.index_entry(timeline);
        }
        self.waiting.push(timeline);
        if self.runs.len() >= TARGET_RAW_BYTES { self.close_runs() } else { Ok(()) }
    }

    /// Omits the timeline: it has no entries, no ids and no changes.
    pub fn leave_out(&mut self) {
        let left_out = self.timeline.take();
        debug_assert!(
            left_out.is_some_and(|timeline| timeline.entry.count == 0),
            "it has no entries"
        );
    }

    /// The number of bytes of its files so far.
    pub fn written_bytes(&self) -> u64 {
        self.plan.copies.bytes(self.data.end(), self.index.end())
    }

    fn index_entry(&mut self, timeline: Timeline) -> Result<()> {
        let Timeline { name, mut entry, blocks, .. } = timeline;
        entry.blocks = blocks.finish(&mut self.index)?;
        self.pages.add(&mut self.index, |out| entry.encode(&name, out))
    }

    /// Writes the remaining content and makes the files durable (not their names). Returns the
    /// record for the manifest.
    pub fn finish(mut self) -> Result<SegmentRecord> {
        self.close_bodies()?;
        self.close_runs()?;
        for timeline in std::mem::take(&mut self.waiting) {
            // Timelines that have only an end here have no block.
            self.index_entry(timeline)?;
        }
        // Bodies that became unused between the two passes of a merge.
        let unused = self.shared.iter().filter(|(.., is_used)| !is_used);
        let unused: u64 = unused.map(|(_, bytes, _)| u64::from(*bytes) + ENTRY_WEIGHT).sum();
        self.weight += unused;
        self.footer.data_bytes = self.data.finish()?;
        self.footer.bodies = self.shared.len() as u64;
        self.footer.first_time_ms = self.footer.first_time_ms.min(self.footer.last_time_ms);
        let index = &mut self.index;
        self.footer.page_table = self.pages.finish(index)?;
        self.footer.id_table = self.ids.finish(index)?;
        self.footer.body_table = self
            .body_table
            .finish(&mut |page| index.block(BlockKind::BodyTable, page, Compression::None))?;
        self.index.buffer.extend_from_slice(&self.footer.encode(self.index.seed));
        let index_bytes = self.index.finish()?;
        Ok(SegmentRecord {
            number: self.plan.number,
            store: self.plan.store,
            partition: self.plan.partition,
            tier: self.plan.tier,
            dropped: self.plan.dropped,
            dead: false,
            data_bytes: self.footer.data_bytes,
            index_bytes,
            timelines: self.footer.timelines,
            entries: self.footer.entries,
            first_time_ms: self.footer.first_time_ms,
            last_time_ms: self.footer.last_time_ms,
            from: self.plan.from,
            to: self.plan.to,
            changed_to: self.plan.changed_to,
            body_weight: self.placed.1 / self.placed.0.max(1),
            weight: self.weight,
            dead_weight: unused,
            half_expired_ms: self.expiries.half_expired_ms(self.weight),
            last_start_ms: self.last_start_ms,
            own_starts: self.own_starts,
            copies: self.plan.copies,
            first_name: self.first_name,
            last_name: self.last_name,
        })
    }
}

/// Whether an entry's own lifetime ends before the store's TTL removes it.
fn is_brief(plan: &SegmentPlan, start_ms: TimeMs, expire_at_ms: TimeMs) -> bool {
    let ttl_ms = if plan.ttl_ms == 0 { TimeMs::MAX } else { plan.ttl_ms };
    expire_at_ms != 0 && expire_at_ms < start_ms.saturating_add(ttl_ms)
}

#[cfg(test)]
impl SegmentPlan {
    /// The plan of a segment that a test writes.
    pub(super) fn of_a_test() -> SegmentPlan {
        SegmentPlan {
            number: 6,
            store: StoreId(1),
            partition: 1,
            ttl_ms: 1000,
            tier: 0,
            dropped: false,
            compression: Compression::None,
            copies: Copies::Once,
            from: Lsn(0),
            to: Lsn(512),
            changed_to: Lsn(512),
            now_ms: 5,
        }
    }
}
