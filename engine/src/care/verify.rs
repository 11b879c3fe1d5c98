//! The verify path (P5): reads everything, and reports everything that is not as it was written.
//!
//! 1. the manifest: its checksums, and that it equals the one in memory;
//! 2. the log from the checkpoint on: every group and record;
//! 3. each segment: every block of its files, of both copies; then the index against the data,
//!    timeline by timeline: each block that it names exists, sequences, times, counts, head and
//!    tail agree, shared bodies and ids are found;
//! 4. the segments of a store against each other: newer parts follow older ones.
//!
//! It holds a view, so that it works while appends, flushes and merges continue. It changes nothing
//! except a copy that can be repaired from the other one. The log is written meanwhile: apparent
//! damage there is checked a second time, and reported if it is still there. Segments are read
//! without the engine's cache.
//!
//! This file does not know how a copy is repaired.

use std::sync::Arc;

use tracing::field::Empty;

use crate::care::finding::Finding;
use crate::care::repair::{Repair, finding, kinds, repair_segment};
use crate::error::{Error, Result};
use crate::format::header::FileKind;
use crate::format::index::TimelineEntry;
use crate::ids::StoreId;
use crate::manifest::Manifest;
use crate::metrics::VERIFY;
use crate::options::LEAST_OPEN_FILES;
use crate::segment::{
    BlockCache, BlockWalk, IdScan, Segment, SegmentScan, Twins, data_name, index_name,
};
use crate::state::State;
use crate::state::view::View;
use crate::wal;
use crate::write::apply::{Flaw, Interpreter};

/// The maximum number of findings that are listed; further ones are only counted.
const MOST_FINDINGS: usize = 10_000;

/// The cache for decoded blocks of the current segment: consecutive timelines share them.
const CACHE_BYTES: usize = 4 * 1024 * 1024;

/// The result of [`Engine::verify`](crate::Engine::verify).
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Verification {
    /// The findings; empty if there is no damage.
    pub findings: Vec<Finding>,
    /// The number of further findings.
    pub left_off: u64,
    /// The number of files read.
    pub files: u64,
    /// Their total length in bytes.
    pub bytes: u64,
    /// The number of timelines in the segments.
    pub timelines: u64,
    /// The number of entries in the segments.
    pub entries: u64,
    /// The names of the files that were repaired from their other copies.
    pub mended: Vec<String>,
    /// The reason why not everything could be read, if so. It is no damage.
    shortage: Option<Error>,
}

impl Verification {
    fn add(&mut self, finding: Finding) {
        if self.findings.len() < MOST_FINDINGS {
            self.findings.push(finding);
        } else {
            self.left_off += 1;
        }
    }

    fn error(&mut self, error: &Error) {
        if error.is_shortage() {
            self.shortage.get_or_insert_with(|| error.clone());
        } else {
            self.add(Finding::new(error));
        }
    }

    fn file(&mut self, bytes: u64) {
        self.files += 1;
        self.bytes += bytes;
    }
}

/// Verifies everything. `on_progress` gets the number of bytes of segments read so far, and the
/// total.
pub fn verify(state: &State, on_progress: &mut dyn FnMut(u64, u64)) -> Result<Verification> {
    let span = tracing::info_span!(
        VERIFY,
        files = Empty,
        entries = Empty,
        bytes = Empty,
        findings = Empty
    );
    let _entered = span.enter();
    let mut out = Verification::default();
    manifest(state, &mut out)?;
    log(state, &mut out);
    let view = state.view.load();
    let total = view.segments.all().map(|segment| segment.record().bytes()).sum();
    let mut done = 0;
    for segment in view.segments.all() {
        let mut check = SegmentCheck { state, record: segment, out: &mut out };
        let mut is_mendable = false;
        for kind in kinds(segment.record()) {
            if segment.record().copies.of(*kind) > 1 {
                is_mendable |= check.twins(*kind);
            } else {
                check.blocks(*kind, &mut |bytes| on_progress((done + bytes).min(total), total));
            }
        }
        done += segment.record().bytes();
        on_progress(done.min(total), total);
        check.index_against_data();
        if is_mendable && !state.options.read_only {
            mend(state, segment, &mut out);
        }
    }
    let mut stores: Vec<StoreId> =
        view.segments.all().map(|segment| segment.record().store).collect();
    stores.sort_unstable();
    stores.dedup();
    stores.into_iter().for_each(|store| order(state, &view, store, &mut out));
    span.record("files", out.files);
    span.record("entries", out.entries);
    span.record("bytes", out.bytes);
    span.record("findings", out.findings.len() as u64 + out.left_off);
    out.shortage.take().map_or(Ok(out), Err)
}

/// Repairs the copies of a segment that can be repaired. An obstacle to this is also a finding.
fn mend(state: &State, segment: &Segment, out: &mut Verification) {
    let mut repair = Repair::default();
    if let Err(error) =
        repair_segment(state, segment.record().store, segment.record().number, &mut repair)
    {
        out.error(&error);
    }
    out.mended.extend(repair.mended);
}

fn manifest(state: &State, out: &mut Verification) -> Result<()> {
    let manifest = state.manifest.lock();
    let names = state.dir.list()?;
    match Manifest::load(&state.dir, &names) {
        Ok(Some(found)) if found.live() == manifest.live() => {}
        Ok(_) => out.error(&Error::corrupt(
            state.dir.path_of(&manifest.name()),
            0,
            "the manifest on the disk is not the one that the engine uses",
        )),
        Err(error) => out.error(&error),
    }
    out.file(state.dir.open(&manifest.name()).and_then(|file| file.len()).unwrap_or(0));
    Ok(())
}

/// Reports damage of the log that is found twice, and so is no effect of reading the log while it
/// is written.
fn log(state: &State, out: &mut Verification) {
    let look = || log_damage(state).unwrap_or_else(|error| (0, 0, vec![error]));
    let (files, bytes, mut damage) = look();
    if !damage.is_empty() {
        let again: Vec<String> = look().2.iter().map(Error::to_string).collect();
        damage.retain(|error| again.contains(&error.to_string()));
    }
    (out.files, out.bytes) = (out.files + files, out.bytes + bytes);
    damage.iter().for_each(|error| out.error(error));
}

fn log_damage(state: &State) -> Result<(u64, u64, Vec<Error>)> {
    let manifest = state.manifest.lock();
    let (checkpoint, names) = (manifest.live().checkpoint, state.dir.list()?);
    let (files, mut damage) = wal::files(&state.dir, &names, state.engine_id, true)?;
    damage.extend(wal::check_last(&state.dir, manifest.live().log_file, &files).err());
    drop(manifest);
    let mut interpreter = Interpreter::default();
    let tail = wal::replay(&state.dir, &files, checkpoint, true, &mut |lsn, record| {
        let damaged = |flaw: Flaw| wal::damaged_record(&state.dir, &files, lsn, &flaw.to_string());
        interpreter.check(lsn, record).map_err(damaged)
    })?;
    damage.extend(tail.damage);
    let bytes = files.iter().map(|(_, header)| header.second).sum();
    Ok((files.len() as u64, bytes, damage))
}

/// The check of one segment.
struct SegmentCheck<'a> {
    state: &'a State,
    record: &'a Segment,
    out: &'a mut Verification,
}

impl SegmentCheck<'_> {
    /// Checks every block of a file.
    fn blocks(&mut self, kind: FileKind, on_progress: &mut dyn FnMut(u64)) {
        let record = self.record.record();
        let (name, wanted) = match kind {
            FileKind::Index => (index_name(record.number), record.index_bytes),
            _ => (data_name(record.number), record.data_bytes),
        };
        let dir = &self.state.dir;
        let opened = BlockWalk::open(
            dir,
            std::slice::from_ref(&name),
            self.state.engine_id,
            record.number,
            kind,
        );
        let (mut walk, header) = match opened {
            Ok(walk) => walk,
            Err(error) => return self.damage(kind, &error),
        };
        header.iter().for_each(|error| self.damage(kind, error));
        let len = walk.file_bytes();
        self.out.file(len);
        if len != wanted {
            let what = format!("the file has {len} bytes, the manifest says {wanted}");
            self.damage(kind, &Error::corrupt(dir.path_of(&name), len.min(wanted), what));
        }
        while let Some(block) = walk.next() {
            match block {
                Ok(block) if block.kind.is_of_data() == (kind == FileKind::Data) => {}
                Ok(block) => {
                    let what = "the block belongs to the other file of a segment";
                    self.damage(kind, &Error::corrupt(dir.path_of(&name), block.location.at, what));
                }
                Err(error) => self.damage(kind, &error),
            }
            on_progress(walk.at());
        }
    }

    /// Compares both copies of a file. True if one can be repaired from the other.
    fn twins(&mut self, kind: FileKind) -> bool {
        let record = self.record.record();
        let twins = Twins::new(&self.state.dir, self.state.engine_id, record, kind);
        let damage = twins.compare().damage();
        for damage in &damage {
            self.out.add(finding(damage));
            let is_index = kind == FileKind::Index;
            self.state.cache.damages().report(record.number, is_index, damage.copy, &damage.error);
        }
        (0..record.copies.of(kind)).for_each(|_| self.out.file(twins.len()));
        damage.iter().any(|damage| damage.is_mendable)
    }

    /// Reports damage in a file with one copy.
    fn damage(&mut self, kind: FileKind, error: &Error) {
        self.out.error(error);
        let number = self.record.record().number;
        self.state.cache.damages().report(number, kind == FileKind::Index, 0, error);
    }

    /// Checks every timeline and id of the index, in a segment that is opened again: the engine's
    /// state in memory proves nothing.
    fn index_against_data(&mut self) {
        let cache = Arc::new(BlockCache::for_check(CACHE_BYTES, LEAST_OPEN_FILES));
        let record = self.record.record().clone();
        let segment =
            Arc::new(Segment::open(&self.state.dir, self.state.engine_id, record, &cache));
        let checked = self.timelines(&segment).and_then(|()| ids(&segment));
        if let Err(error) = checked {
            self.out.error(&error);
        }
    }

    fn timelines(&mut self, segment: &Arc<Segment>) -> Result<()> {
        let (record, footer) = (segment.record(), *segment.footer()?);
        let (mut timelines, mut entries, mut is_whole) = (0, 0, true);
        let mut before: Option<Vec<u8>> = None;
        let mut scan = SegmentScan::all(segment.clone())?;
        loop {
            let (name, entry) = match scan.next() {
                Ok(Some(found)) => found,
                Ok(None) => break,
                Err(error) => {
                    self.out.error(&error);
                    is_whole = false;
                    scan.pass_over()?;
                    continue;
                }
            };
            if before.as_ref().is_some_and(|before| *before >= name) {
                let what = format!("names are not in ascending order at {}", name.escape_ascii());
                self.out.error(&segment.contradicted(&what));
            }
            match timeline(segment, &name, &entry) {
                Ok(count) => (timelines, entries) = (timelines + 1, entries + count),
                Err(error) if error.is_shortage() => return Err(error),
                Err(error) => {
                    is_whole = false;
                    let timeline = Some((self.state.store_name(record.store), name.clone()));
                    let sequences =
                        Some((entry.first, entry.end.last)).filter(|(first, last)| first <= last);
                    self.out.add(Finding { timeline, sequences, ..Finding::new(&error) });
                }
            }
            before = Some(name);
        }
        self.out.entries += if record.has_data() { entries } else { 0 };
        let counts = (timelines, entries);
        if is_whole && counts != (footer.timelines, footer.entries) && record.has_data() {
            self.out.error(
                &segment.contradicted("the footer has other numbers of timelines or entries"),
            );
        }
        if (footer.timelines, footer.entries) != (record.timelines, record.entries) {
            self.out.error(&segment.contradicted("the manifest has other numbers than the footer"));
        }
        if is_whole && before.is_some_and(|last| last != record.last_name) {
            self.out.error(&segment.contradicted("the manifest has another last name"));
        }
        segment.for_each_body(|_| true, |_, _, _| Ok(()))
    }
}

/// Checks one timeline; returns the number of entries in its runs.
fn timeline(segment: &Segment, name: &[u8], entry: &TimelineEntry) -> Result<u64> {
    if segment.find_once(name)?.as_ref() != Some(entry) {
        return Err(segment.contradicted("the tables of the index do not lead to the timeline"));
    }
    if !segment.record().has_data() {
        return Ok(0);
    }
    let counted = segment.count(name, entry)?;
    match counted.contradiction(entry) {
        Some(what) => Err(segment.contradicted(&what)),
        None => Ok(counted.count),
    }
}

fn ids(segment: &Arc<Segment>) -> Result<()> {
    let mut scan = IdScan::all(segment.clone())?;
    let mut count = 0;
    while let Some((name, id, entry)) = scan.next()? {
        count += 1;
        if segment.find_id(&name, &id, 0)?.as_ref() != Some(&entry) {
            return Err(segment.contradicted("the tables of the index do not lead to an id"));
        }
    }
    if count == segment.footer()?.ids {
        Ok(())
    } else {
        Err(segment.contradicted("the footer has another number of ids"))
    }
}

/// Merges the segments of a store by name, oldest first: each timeline's parts must follow one
/// another.
fn order(state: &State, view: &View, store: StoreId, out: &mut Verification) {
    let mut scans = Vec::new();
    for segment in view.segments.of(store).iter().rev() {
        // A segment that cannot be read was reported before.
        if let Ok(mut scan) = SegmentScan::all(segment.clone()) {
            let at = next_of(&mut scan, out);
            scans.push((scan, at));
        }
    }
    while let Some(name) =
        scans.iter().filter_map(|(_, at)| at.as_ref()).map(|(name, _)| name).min().cloned()
    {
        out.timelines += 1;
        let mut older: Option<TimelineEntry> = None;
        for (scan, at) in &mut scans {
            let Some((_, entry)) = at.take_if(|(found, _)| *found == name) else { continue };
            *at = next_of(scan, out);
            if let Some(older) = older.filter(|older| !follows(&entry, older)) {
                let error = scan
                    .segment()
                    .contradicted("the timeline does not continue after an older segment");
                let timeline = Some((state.store_name(store), name.clone()));
                let sequences = Some((older.first, entry.end.last));
                out.add(Finding { timeline, sequences, ..Finding::new(&error) });
            }
            older = Some(entry);
        }
    }
}

/// The next timeline of a scan. Damage was reported before; a shortage may be new.
fn next_of(scan: &mut SegmentScan, out: &mut Verification) -> Option<(Vec<u8>, TimelineEntry)> {
    scan.next().unwrap_or_else(|error| {
        if error.is_shortage() {
            out.error(&error);
        }
        None
    })
}

/// Whether a part of a timeline can follow an older one.
fn follows(newer: &TimelineEntry, older: &TimelineEntry) -> bool {
    let is_behind = newer.count == 0 || older.count == 0 || newer.first > older.first;
    is_behind
        && newer.end.last >= older.end.last
        && newer.end.last_time_ms >= older.end.last_time_ms
}
