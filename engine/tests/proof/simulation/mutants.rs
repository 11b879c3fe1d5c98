//! Mutants: the engine as it would be with one fsync removed or moved, one name made durable at the
//! wrong time, one number wrong. The code is not changed: a mutant rewrites the log of the engine's
//! calls. The harness must find a crash that the mutant does not survive; otherwise the harness
//! detects nothing.

use std::collections::HashMap;
use std::path::Path;

use bytes::Bytes;
use strandline::Lsn;
use strandline::format::checksum::{Seed, crc};
use strandline::format::header::{FileHeader, file_header};
use strandline::format::manifest::{Live, Relaxed, decode, encode};
use strandline::format::wal::{GroupHeader, WAL_HEADER_BYTES, group_header};
use strandline::vfs::Site;
use strandline::vfs::simulated::{Image, Op};

use super::books::Event;

/// One wrong engine.
#[derive(Clone)]
pub struct Mutant {
    pub name: String,
    change: Change,
}

/// Whether an operation is meant, given the names that files had when it was called.
type Which = fn(&Call<'_>) -> bool;

#[derive(Clone)]
enum Change {
    /// The sync at a source position is missing, for files whose names have this ending.
    Without(Site, &'static str),
    /// Each of the first happens only after the next of the second.
    Later(Which, Which),
    /// As [`Change::Later`], for those of the first that are not followed by one of the third
    /// before the second.
    LaterIfNone(Which, Which, Which),
    /// Each of the first happens before the second that preceded it.
    Earlier(Which, Which),
    /// Acknowledgements are ignored: the observations of readers must be enough.
    LaterUnanswered(Which, Which),
    /// The written content is different.
    Written(fn(&Call<'_>, &[u8]) -> Option<Vec<u8>>),
}

/// An operation with the name of its file.
pub struct Call<'a> {
    pub op: &'a Op,
    pub name: &'a str,
    /// The driver's note, if it is a mark.
    event: Option<&'a Event>,
    /// The initial content of the file.
    header: Option<FileHeader>,
    /// It makes a manifest durable which lists a further store from which a power cut may take
    /// entries that were seen.
    notes_relaxed: bool,
}

impl Mutant {
    /// The engine without the sync at a site, of files whose names end with `suffix`.
    pub fn without(site: Site, suffix: &'static str) -> Mutant {
        let of = if suffix.is_empty() { String::new() } else { format!(" of …{suffix}") };
        let name = format!("no sync at {}:{}{of}", site.file(), site.line());
        Mutant { name, change: Change::Without(site, suffix) }
    }

    /// The calls that the mutant would have made.
    pub fn apply(&self, base: &Image, log: &[Op], events: &[Event]) -> Vec<Op> {
        let mut calls = calls(base, log, events);
        if matches!(self.change, Change::LaterUnanswered(..)) {
            calls.retain(|call| !matches!(call.event, Some(Event::Acknowledged(_))));
        }
        match &self.change {
            Change::Without(site, suffix) => calls
                .iter()
                .filter(|call| !(call.is_sync_at(site) && call.name.ends_with(suffix)))
                .map(|call| call.op.clone())
                .collect(),
            Change::Later(which, behind) | Change::LaterUnanswered(which, behind) => {
                later(&calls, *which, *behind, |_| false)
            }
            Change::LaterIfNone(which, behind, between) => later(&calls, *which, *behind, *between),
            Change::Earlier(which, before) => earlier(&calls, *which, *before),
            Change::Written(written) => {
                let rewritten = |call: &Call<'_>| match call.op {
                    Op::Write { file, offset, bytes } => {
                        let bytes = written(call, bytes).map_or_else(|| bytes.clone(), Bytes::from);
                        Op::Write { file: *file, offset: *offset, bytes }
                    }
                    other => other.clone(),
                };
                calls.iter().map(rewritten).collect()
            }
        }
    }
}

/// If there is no second after it, or a third in between, the first stays where it is.
fn later(calls: &[Call<'_>], which: Which, behind: Which, between: Which) -> Vec<Op> {
    let is_free = |place: usize| {
        calls[place..].iter().find(|call| behind(call) || between(call)).is_some_and(behind)
    };
    let (mut log, mut held) = (Vec::new(), Vec::new());
    for (place, call) in calls.iter().enumerate() {
        if which(call) && is_free(place) {
            held.push(call.op.clone());
            continue;
        }
        log.push(call.op.clone());
        if behind(call) {
            log.append(&mut held);
        }
    }
    log
}

fn earlier(calls: &[Call<'_>], which: Which, before: Which) -> Vec<Op> {
    let mut log: Vec<Op> = Vec::new();
    let mut place = None;
    for call in calls {
        match place {
            Some(at) if which(call) => log.insert(at, call.op.clone()),
            _ => log.push(call.op.clone()),
        }
        if before(call) {
            place = Some(log.len() - 1);
        }
    }
    log
}

/// The calls of a log, each with the name that its file had.
fn calls<'a>(base: &'a Image, log: &'a [Op], events: &'a [Event]) -> Vec<Call<'a>> {
    let mut names: HashMap<u64, &'a str> =
        (0..).zip(base.files.keys().map(String::as_str)).collect();
    let header = |bytes: &[u8]| FileHeader::decode(bytes, Path::new("")).ok();
    let of_base = (0..).zip(base.files.values());
    let mut headers: HashMap<u64, FileHeader> =
        of_base.filter_map(|(file, bytes)| Some((file, header(bytes)?))).collect();
    let mut calls = Vec::with_capacity(log.len());
    let (mut relaxed, mut notes) = (0, false);
    for op in log {
        let file = match op {
            Op::Create { file, .. } | Op::Write { file, .. } | Op::Sync { file, .. } => Some(*file),
            _ => None,
        };
        match op {
            Op::Create { name, file } => drop(names.insert(*file, name)),
            Op::Rename { from, to } => {
                names.values_mut().filter(|name| *name == from).for_each(|name| *name = to);
            }
            Op::Write { file, offset: 0, bytes } => {
                headers.extend(header(bytes).map(|header| (*file, header)));
            }
            _ => {}
        }
        let name = match op {
            Op::Rename { to, .. } => to,
            Op::Remove { name } => name,
            _ => file.and_then(|file| names.get(&file).copied()).unwrap_or(""),
        };
        let event = if let Op::Mark(mark) = op { events.get(*mark as usize) } else { None };
        let header = file.and_then(|file| headers.get(&file).copied());
        let mut call = Call { op, name, event, header, notes_relaxed: false };
        if let Some(live) = call.manifest() {
            notes = live.relaxed.stores.len() > relaxed;
            relaxed = live.relaxed.stores.len();
        } else if is_manifest_durable(&call) {
            call.notes_relaxed = std::mem::take(&mut notes);
        }
        calls.push(call);
    }
    calls
}

impl Call<'_> {
    fn is_sync_at(&self, wanted: Site) -> bool {
        matches!(self.op, Op::Sync { site, .. } | Op::SyncDir { site } if *site == wanted)
    }

    /// The manifest that it writes, if it writes one.
    fn manifest(&self) -> Option<Live> {
        let Op::Write { offset: 0, bytes, .. } = self.op else { return None };
        let header = self.header.filter(|_| self.name.starts_with("manifest"))?;
        decode(bytes.get(file_header::BYTES..)?, &header).ok()
    }

    fn is_sync_of(&self, prefix: &str) -> bool {
        matches!(self.op, Op::Sync { .. }) && self.name.starts_with(prefix)
    }

    fn is_directory_sync_in(&self, file: &str) -> bool {
        matches!(self.op, Op::SyncDir { site } if site.file().ends_with(file))
    }

    fn is_rename_to(&self, prefix: &str) -> bool {
        matches!(self.op, Op::Rename { .. }) && self.name.starts_with(prefix)
    }

    fn is_remove_of(&self, prefix: &str) -> bool {
        matches!(self.op, Op::Remove { .. }) && self.name.starts_with(prefix)
    }
}

fn is_group_sync(call: &Call<'_>) -> bool {
    call.is_sync_of("wal-") && is_log(call.name)
}

/// Whether it is a log file that has its name already.
fn is_log(name: &str) -> bool {
    name.starts_with("wal-") && name.strip_suffix(".log").is_some()
}

fn is_unnamed_log(name: &str) -> bool {
    name.starts_with("wal-") && !is_log(name)
}

fn is_manifest_durable(call: &Call<'_>) -> bool {
    call.is_directory_sync_in("manifest.rs")
}

/// Every move and every wrong number. Removals use the source positions that a recording meets.
pub fn moves() -> Vec<Mutant> {
    let all = log_moves().into_iter().chain(manifest_moves()).chain(wrong_numbers());
    all.map(|(name, change)| Mutant { name: name.into(), change }).collect()
}

type Named = (&'static str, Change);

fn log_moves() -> [Named; 7] {
    [
        (
            "a batch is acknowledged before the sync of its group",
            Change::Later(is_group_sync, |call| matches!(call.event, Some(Event::Acknowledged(_)))),
        ),
        (
            "a repeat is acknowledged before the sync that it asks for",
            Change::LaterIfNone(
                is_group_sync,
                |call| matches!(call.event, Some(Event::Repeated(_))),
                |call| {
                    matches!(call.event, Some(Event::Acknowledged(_))) || call.is_rename_to("wal-")
                },
            ),
        ),
        (
            "the boot is noted after the first acknowledgement of relaxed durability",
            Change::Later(
                |call| call.notes_relaxed,
                |call| matches!(call.event, Some(Event::Acknowledged(_))),
            ),
        ),
        (
            "an entry is shown before the sync of its group",
            Change::LaterUnanswered(is_group_sync, |call| {
                matches!(call.event, Some(Event::Observed(..)))
            }),
        ),
        (
            "the log goes on in the next file before the old one is synced",
            Change::LaterIfNone(
                is_group_sync,
                |call| call.is_directory_sync_in("wal/writer.rs"),
                |call| matches!(call.event, Some(Event::Acknowledged(_))),
            ),
        ),
        (
            "a log file gets its name before its sync",
            Change::Later(
                |call| call.is_sync_of("wal-") && is_unnamed_log(call.name),
                |call| call.is_rename_to("wal-"),
            ),
        ),
        (
            "the directory is synced before a log file gets its name",
            Change::Earlier(
                |call| call.is_directory_sync_in("wal/writer.rs"),
                |call| call.is_rename_to("wal-"),
            ),
        ),
    ]
}

fn manifest_moves() -> [Named; 7] {
    [
        (
            "a manifest gets its name before its sync",
            Change::Later(
                |call| call.is_sync_of("manifest"),
                |call| call.is_rename_to("manifest-"),
            ),
        ),
        (
            "the directory is synced before a manifest gets its name",
            Change::Earlier(is_manifest_durable, |call| call.is_rename_to("manifest-")),
        ),
        (
            "the old manifest goes before the name of the new one is durable",
            Change::Earlier(|call| call.is_remove_of("manifest-"), is_manifest_durable),
        ),
        (
            "the name of a manifest is made durable after the next unlink",
            Change::Later(is_manifest_durable, |call| matches!(call.op, Op::Remove { .. })),
        ),
        (
            "log files go before the manifest that does not need them is durable",
            Change::Earlier(
                |call| call.is_remove_of("wal-") && is_log(call.name),
                is_manifest_durable,
            ),
        ),
        (
            "merged and expired files go before the manifest that does not name them is durable",
            Change::Earlier(|call| call.is_remove_of("segment-"), is_manifest_durable),
        ),
        (
            "a segment is synced after the manifest that names it",
            Change::Later(|call| call.is_sync_of("segment-"), is_manifest_durable),
        ),
    ]
}

fn wrong_numbers() -> [Named; 5] {
    [
        (
            "the checkpoint is a sector too far",
            Change::Written(|call, bytes| manifest(call, bytes, too_far)),
        ),
        (
            "a manifest forgets where file numbers go on",
            Change::Written(|call, bytes| manifest(call, bytes, |live| live.next_file = 1)),
        ),
        (
            "what a power cut takes of relaxed durability is given again under the same epoch",
            Change::Written(|call, bytes| {
                manifest(call, bytes, |live| live.relaxed = Relaxed::default())
            }),
        ),
        ("the group itself counts as durable in its watermark", Change::Written(watermark)),
        (
            "recovery does not copy what may be in the page cache only",
            Change::Written(|call, bytes| {
                let behind =
                    matches!(call.op, Op::Write { offset, .. } if *offset >= WAL_HEADER_BYTES);
                // A log file that is made ahead of need has another name, and is zeros anyway.
                (is_unnamed_log(call.name) && behind).then(|| vec![0; bytes.len()])
            }),
        ),
    ]
}

fn too_far(live: &mut Live) {
    live.checkpoint.0 += if live.checkpoint.0 > 0 { 512 } else { 0 };
}

/// A manifest with different content.
fn manifest(call: &Call<'_>, bytes: &[u8], change: fn(&mut Live)) -> Option<Vec<u8>> {
    if !call.name.starts_with("manifest") {
        return None;
    }
    let header = FileHeader::decode(bytes, Path::new("")).ok()?;
    let mut live = decode(bytes.get(file_header::BYTES..)?, &header).ok()?;
    change(&mut live);
    Some(encode(&live, header))
}

/// A group whose header says that the group itself was durable when it was written.
fn watermark(call: &Call<'_>, bytes: &[u8]) -> Option<Vec<u8>> {
    let header = call.header.filter(|_| is_log(call.name))?;
    let Op::Write { offset, .. } = call.op else { return None };
    let lsn = Lsn(header.first + offset.checked_sub(WAL_HEADER_BYTES)?);
    let group = GroupHeader::decode(bytes, header.engine_id, lsn)?;
    let mut bytes = bytes.to_vec();
    let durable = (lsn.0 + group.group_bytes()).next_multiple_of(512);
    bytes[group_header::DURABLE].copy_from_slice(&durable.to_le_bytes());
    let covered = &bytes[group_header::CRC.end..group_header::BYTES];
    let sum = crc(Seed::new(header.engine_id, lsn.0), covered);
    bytes[group_header::CRC].copy_from_slice(&sum.to_le_bytes());
    Some(bytes)
}
