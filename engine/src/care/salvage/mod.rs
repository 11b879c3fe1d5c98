//! The salvage path (P5): writes everything readable in a damaged directory to a new one, and
//! reports what is lost.
//!
//! 1. the manifest, if it can be read; without it, all segment files that exist, and the whole log,
//!    with the names of stores that the caller gives;
//! 2. the log, without its damaged parts, into memory: it is as large as memtables are;
//! 3. for each store, all segments merged by name: each timeline's parts in the order of their
//!    sequences, then its part of the log, with all removals and the last edit of each entry
//!    applied, into one segment;
//! 4. the manifest, last, of a new engine with a new history.
//!
//! The source is not changed. Sequences, times, bodies, expiry, last sequences and floors are kept;
//! ids of retries are not. Lost entries read as trimmed at the start of a timeline, and as a hole
//! elsewhere.
//!
//! This folder does not know the cause of the damage.

mod bodies;
mod log;
mod timeline;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use self::bodies::ChangedBodies;
use self::log::SalvagedLog;
use self::timeline::{Data, SalvagedSegment, SalvagedTimeline};
use crate::care::finding::Finding;
use crate::care::target;
use crate::error::{Error, Failure, IoOperation, Result};
use crate::format::block::Compression;
use crate::format::header::{FileHeader, FileKind, file_header};
use crate::format::manifest::{Live, SegmentRecord, StoreRecord};
use crate::format::run::SharedBody;
use crate::ids::{CommitPlace, EngineId, Lsn, StoreId};
use crate::manifest::Manifest;
use crate::options::check_store_names;
use crate::random::{new_engine_id, random};
use crate::segment::{self, Remains, SegmentFiles, SegmentPlan, SegmentWriter};
use crate::vfs::LOCK_NAME;
use crate::vfs::{Dir, disk::DiskDirectory};
use crate::wal;

/// The start of the new directory's log: its segments hold everything before.
const START: Lsn = Lsn(512);

/// The tier of the new segments: they are large, and cold.
const TIER: u8 = 3;

/// The result of [`salvage`].
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Salvage {
    /// The damage, file by file, and the losses of each timeline.
    pub findings: Vec<Finding>,
    /// The number of timelines in the new directory.
    pub timelines: u64,
    /// The number of entries in it.
    pub entries: u64,
}

/// Creates a new directory from everything readable in a damaged one, which is not changed.
///
/// `first_stores`: the names in [`Options::stores`](crate::Options::stores) when the damaged
/// directory was created, in this order. They are used only if the manifest is lost, since no other
/// file contains names of stores: then the new directory has all these stores, and each other store
/// with data is named `store-N` after its id. All of them are without a TTL.
pub fn salvage(
    source: impl AsRef<Path>,
    target: impl AsRef<Path>,
    first_stores: &[&str],
) -> Result<Salvage> {
    check_store_names(first_stores.iter().copied())?;
    let (source, target) = (source.as_ref(), target.as_ref());
    let raw = DiskDirectory::open(source)
        .map_err(|error| Error::io(IoOperation::OpenDirectory, source, error))?;
    let source = Dir::new(Arc::new(raw));
    target::make(
        target,
        || DiskDirectory::create_noting(target),
        |target| salvage_in(&source, target, first_stores),
    )
}

/// As [`salvage`], with directories that may be simulated.
pub fn salvage_in(source: &Dir, target: &Dir, first_stores: &[&str]) -> Result<Salvage> {
    check_store_names(first_stores.iter().copied())?;
    target::claim(target, |target| {
        let _lock = source.lock(LOCK_NAME, false)?;
        fill(source, target, first_stores)
    })
}

/// Saves everything readable to a claimed directory.
fn fill(source: &Dir, target: &Dir, first_stores: &[&str]) -> Result<Salvage> {
    let mut out = Salvage::default();
    let wreck = Wreck::look(source, &mut out)?;
    let log = SalvagedLog::read(source, wreck.engine, wreck.live.as_ref(), &mut out.findings)?;
    let mut live = Live { history: random(), checkpoint: START, next_file: 1, ..Live::default() };
    live.stores = wreck.stores(&log, first_stores);
    live.last_time_ms =
        log.last_time_ms.max(wreck.live.as_ref().map_or(0, |live| live.last_time_ms));
    live.seen_ms = wreck.live.as_ref().map_or(0, |live| live.seen_ms);
    let engine = new_engine_id();
    for store in live.stores.clone() {
        let number = live.next_file;
        live.next_file += 1;
        let record = save_store(source, target, (engine, number), &store, &wreck, &log, &mut out)?;
        if record.timelines == 0 {
            // A segment must have a first and a last name.
            segment::names(&record).iter().try_for_each(|name| target.remove(name))?;
            continue;
        }
        live.last_time_ms = live.last_time_ms.max(record.last_time_ms);
        live.segments.push(record);
    }
    target.sync()?;
    Manifest::new(target.clone(), engine, live).commit(|_| ()).map_err(Failure::into_error)?;
    Ok(out)
}

/// The source of a salvage.
struct Wreck {
    engine: EngineId,
    live: Option<Live>,
    /// The segments, oldest first; without a manifest, in the order of their numbers.
    segments: Vec<Wrecked>,
}

/// A segment: its store, its partition, the state of its data in the manifest, its files.
struct Wrecked {
    store: StoreId,
    partition: u64,
    data: Data,
    changed_to: Lsn,
    found: SegmentFiles,
}

impl Wreck {
    fn look(source: &Dir, out: &mut Salvage) -> Result<Wreck> {
        let names = source.list()?;
        let manifest = match Manifest::load(source, &names) {
            Ok(Some(manifest)) => Some(manifest),
            Ok(None) => {
                let error = Error::corrupt(source.path_of("manifest"), 0, "there is no manifest");
                out.findings.push(Finding::new(&error));
                None
            }
            Err(shortage) if shortage.is_shortage() => return Err(shortage),
            Err(error) => {
                out.findings.push(Finding::new(&error));
                None
            }
        };
        let mut headers: Vec<(&String, FileHeader)> = Vec::new();
        for name in &names {
            headers.extend(header(source, name)?.map(|header| (name, header)));
        }
        let engine = match &manifest {
            Some(manifest) => manifest.engine_id(),
            None => most_frequent(&headers).ok_or_else(|| {
                Error::invalid(format!(
                    "{} holds nothing that can be salvaged",
                    source.path_of("").display()
                ))
            })?,
        };
        let files = files(&names, &headers, engine);
        let live = manifest.map(|manifest| manifest.live().clone());
        let absent = |number| SegmentFiles { number, ..SegmentFiles::default() };
        let found = |number| files.get(&number).map_or(absent(number), |(_, found)| found.clone());
        let mut segments = Vec::new();
        match &live {
            Some(live) => {
                let mut oldest_first: Vec<&SegmentRecord> = live.segments.iter().collect();
                oldest_first.sort_by_key(|record| record.place());
                for record in oldest_first {
                    let mut found = found(record.number);
                    if !record.has_data() {
                        found.data.clear();
                    }
                    missing(source, record, &found, out);
                    let (store, partition, changed_to) =
                        (record.store, record.partition, record.changed_to);
                    segments.push(Wrecked {
                        store,
                        partition,
                        data: data(record),
                        changed_to,
                        found,
                    });
                }
            }
            None => {
                for (header, found) in files.values() {
                    // The store of a file without a readable header is unknown.
                    let Some(header) = header else { continue };
                    let (store, partition) = (StoreId(header.first as u32), header.second);
                    let (data, changed_to, found) = (Data::There, Lsn(header.third), found.clone());
                    segments.push(Wrecked { store, partition, data, changed_to, found });
                }
            }
        }
        Ok(Wreck { engine, live, segments })
    }

    /// The stores of the manifest; without it, the first stores and all stores that anything
    /// belongs to, without a TTL until an operator sets one.
    fn stores(&self, log: &SalvagedLog, first: &[&str]) -> Vec<StoreRecord> {
        if let Some(live) = &self.live {
            return live.stores.clone();
        }
        let of_log = log.timelines.keys().map(|(store, _)| *store);
        let mut ids: BTreeSet<StoreId> =
            self.segments.iter().map(|segment| segment.store).chain(of_log).collect();
        let first: BTreeMap<StoreId, &str> =
            (1..).map(StoreId).zip(first.iter().copied()).collect();
        ids.extend(first.keys());
        let name = |id: &StoreId| match first.get(id) {
            Some(name) => (*name).to_string(),
            None => unused_name(*id, &first),
        };
        ids.iter().map(|id| StoreRecord::new(*id, name(id), 0)).collect()
    }
}

/// The name of a store whose name is lost. A first store may already have it; then dashes are
/// appended until none has.
fn unused_name(id: StoreId, first: &BTreeMap<StoreId, &str>) -> String {
    let mut name = format!("store-{}", id.0);
    while first.values().any(|known| *known == name) {
        name.push('-');
    }
    name
}

/// The header of a segment or log file, if it can be read.
fn header(source: &Dir, name: &str) -> Result<Option<FileHeader>> {
    if segment::is_file(name).or_else(|| wal::is_file(name)).is_none() {
        return Ok(None);
    }
    let read = || {
        let file = source.open(name)?;
        FileHeader::decode(&file.read(0, file_header::BYTES)?, file.path())
    };
    match read() {
        Err(shortage) if shortage.is_shortage() => Err(shortage),
        read => Ok(read.ok()),
    }
}

fn most_frequent(headers: &[(&String, FileHeader)]) -> Option<EngineId> {
    let count = |id: EngineId| headers.iter().filter(|(_, header)| header.engine_id == id).count();
    headers.iter().map(|(_, header)| header.engine_id).max_by_key(|id| count(*id))
}

/// The files of segments by number: the number in the header, since files may have been exchanged;
/// if a header cannot be read, the number in the name.
fn files(
    names: &[String],
    headers: &[(&String, FileHeader)],
    engine: EngineId,
) -> BTreeMap<u64, (Option<FileHeader>, SegmentFiles)> {
    let mut files: BTreeMap<u64, (Option<FileHeader>, SegmentFiles)> = BTreeMap::new();
    for (name, header) in headers.iter().filter(|(_, header)| header.engine_id == engine) {
        let (known, found) = files.entry(header.number).or_default();
        match header.kind {
            FileKind::Data => found.data.push((*name).clone()),
            FileKind::Index => found.index.push((*name).clone()),
            FileKind::Wal | FileKind::Manifest => continue,
        }
        *known = Some(*header);
    }
    for name in names.iter().filter(|name| headers.iter().all(|(known, _)| known != name)) {
        let Some(number) = segment::is_file(name) else { continue };
        let (_, found) = files.entry(number).or_default();
        let data = segment::data_name(number);
        let is_data = *name == data || *name == segment::twin_of(&data);
        let place = if is_data { &mut found.data } else { &mut found.index };
        // A file that belongs here by its header is enough, unless it is this file's other copy.
        if place.iter().all(|known| segment::is_file(known) == Some(number)) {
            place.push(name.clone());
        }
    }
    files.retain(|_, (_, found)| !found.data.is_empty() || !found.index.is_empty());
    files.iter_mut().for_each(|(number, (_, found))| found.number = *number);
    files
}

fn data(record: &SegmentRecord) -> Data {
    match record {
        record if record.has_data() => Data::There,
        // Data that was dead before it expired was not removed by the TTL.
        record if record.dead => Data::Dead,
        _ => Data::Expired,
    }
}

fn missing(source: &Dir, record: &SegmentRecord, found: &SegmentFiles, out: &mut Salvage) {
    let names = [
        (segment::index_name(record.number), found.index.is_empty()),
        (segment::data_name(record.number), found.data.is_empty() && record.has_data()),
    ];
    for (name, _) in names.into_iter().filter(|(_, is_missing)| *is_missing) {
        let error = Error::corrupt(
            source.path_of(&name),
            0,
            "the file is missing or belongs to another segment",
        );
        out.findings.push(Finding::new(&error));
    }
}

/// Saves a store into one segment.
fn save_store(
    source: &Dir,
    target: &Dir,
    (engine, number): (EngineId, u64),
    store: &StoreRecord,
    wreck: &Wreck,
    log: &SalvagedLog,
    out: &mut Salvage,
) -> Result<SegmentRecord> {
    let of_store = || wreck.segments.iter().filter(|segment| segment.store == store.id);
    let plan = SegmentPlan {
        number,
        store: store.id,
        partition: of_store().map(|segment| segment.partition).max().unwrap_or(0),
        ttl_ms: store.ttl_ms,
        tier: TIER,
        dropped: false,
        compression: Compression::Zstd,
        copies: store.copies,
        from: Lsn(0),
        to: START,
        changed_to: START,
        now_ms: wreck.live.as_ref().map_or(0, |live| live.seen_ms),
    };
    let mut writer = SegmentWriter::create(target, engine, 1, plan)?;
    let mut opened = Vec::new();
    for segment in of_store() {
        opened.push((Remains::open(source, wreck.engine, &segment.found)?, segment));
    }
    let mut changed = ChangedBodies::default();
    opened
        .iter_mut()
        .for_each(|(remains, segment)| changed.take(remains, segment.data == Data::There));
    for (place, edit) in log.changed_bodies(store.id) {
        changed.add(CommitPlace(*place), edit.at, Some(edit.body.clone()));
    }
    let mut sources = Vec::new();
    for (remains, segment) in opened {
        let path = source.path_of(&segment::data_name(segment.found.number));
        sources.push(with_bodies(remains, path, segment, &changed, &mut writer)?);
    }
    let shared = log.write_shared(store.id, &changed, &mut writer)?;
    let mut of_log = log.of(store.id).peekable();
    while let Some(name) = sources
        .iter()
        .filter_map(|source| source.remains.name())
        .chain(of_log.peek().map(|(name, _)| *name))
        .min()
        .map(<[u8]>::to_vec)
    {
        let from_log = of_log.next_if(|(found, _)| *found == name).map(|(_, timeline)| timeline);
        let parts = sources.iter_mut().enumerate();
        let parts =
            parts.filter_map(|(at, source)| Some((at, source.remains.take(&name)?))).collect();
        let timeline =
            SalvagedTimeline::new((&store.name, &name), &changed, &mut writer, &mut out.findings);
        timeline.save(&mut sources, parts, from_log.map(|timeline| (timeline, log, &shared)))?;
    }
    for source in &sources {
        out.findings.extend(source.remains.damage.iter().map(Finding::new));
    }
    let record = writer.finish()?;
    out.timelines += record.timelines;
    out.entries += record.entries;
    Ok(record)
}

/// Writes a segment's shared bodies, in their current form, before any timeline.
fn with_bodies(
    mut remains: Remains,
    path: PathBuf,
    segment: &Wrecked,
    changed: &ChangedBodies,
    writer: &mut SegmentWriter,
) -> Result<SalvagedSegment> {
    let mut numbers = HashMap::new();
    for number in remains.shared_numbers() {
        let Some(left) = remains.shared(number) else { continue };
        let Some(body) = changed.now(left.place, segment.changed_to, &left.body) else { continue };
        let (time_ms, expire_at_ms) = (left.times.time_ms, left.times.expire_at_ms);
        numbers
            .insert(number, writer.body(SharedBody { time_ms, expire_at_ms, place: None }, body)?);
    }
    let (data, changed_to) = (segment.data, segment.changed_to);
    Ok(SalvagedSegment { remains, path, data, changed_to, numbers })
}
