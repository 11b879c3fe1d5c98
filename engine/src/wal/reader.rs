//! The reading end of the log, used once, by recovery: finds the valid groups, and decides whether
//! the end of the log is a torn tail or damage.

use std::path::PathBuf;

use bytes::Bytes;

use super::file_name;
use crate::error::{Error, Result};
use crate::format::header::{EngineId, FileHeader, FileKind, file_header};
use crate::format::wal::{
    GroupHeader, Record, SECTOR_BYTES, WAL_HEADER_BYTES, decode_records, group_header, sector_up,
};
use crate::ids::{FileNumber, Lsn};
use crate::vfs::Dir;

const PAGE_BYTES: usize = 4096;
const ZERO_PAGE: &[u8] = &[0; PAGE_BYTES];

/// A file of the log and the lsn at which it starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WalFile {
    /// The number in its name.
    pub number: FileNumber,
    /// The lsn of its first byte after the header.
    pub start: Lsn,
}

/// The end of the log.
#[derive(Clone, Debug)]
pub struct Tail {
    /// The position of the next group.
    pub end: Lsn,
    /// Everything below this lsn is known to be durable.
    pub durable: Lsn,
    /// The bytes of the log from `durable` to `end`.
    pub unsynced: Vec<u8>,
    /// The damage that was skipped, if the caller asked to continue after damage.
    pub damage: Vec<Error>,
    /// The lsn at which the log continues after the last damage: records before it may be missing,
    /// records from here on are complete. 0: there was no damage; the maximum: nothing follows the
    /// damage.
    pub whole_from: Lsn,
    /// The torn tail that was cut off.
    pub torn: Option<TornTail>,
}

/// Bytes after the last complete group of the log that are no complete group. Either a crash
/// interrupted their write, or they were the last group and are damaged: the two cannot be
/// distinguished.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TornTail {
    /// The log file.
    pub path: PathBuf,
    /// Their first byte in the file.
    pub offset: u64,
    /// Their number, up to the last one that is not zero.
    pub bytes: u64,
}

/// The number in a log file's name.
pub fn is_file(name: &str) -> Option<FileNumber> {
    let number = name.strip_prefix("wal-")?.strip_suffix(".log")?;
    let number = number.parse().ok()?;
    (file_name(number) == name).then_some(number)
}

/// The log's files that can be read, in order, with their headers.
pub type Files = Vec<(WalFile, FileHeader)>;

/// Reads the headers of the log's files. A header that cannot be read is damage, since files get
/// their names when they are complete; with `go_on` such files are left out and their damage is
/// returned.
pub fn files(
    dir: &Dir,
    names: &[String],
    engine: EngineId,
    go_on: bool,
) -> Result<(Files, Vec<Error>)> {
    let (mut files, mut damage) = (Vec::new(), Vec::new());
    for number in names.iter().filter_map(|name| is_file(name)) {
        match read_header(dir, engine, number) {
            Ok(header) => files.push((WalFile { number, start: Lsn(header.first) }, header)),
            Err(error) if go_on && !error.is_shortage() => damage.push(error),
            Err(error) => return Err(error),
        }
    }
    files.sort_by_key(|(file, _)| file.number);
    Ok((files, damage))
}

/// Fails if the log file that the manifest requires, if any, is missing.
pub fn check_last(dir: &Dir, wanted: FileNumber, files: &Files) -> Result<()> {
    if wanted == 0 || files.iter().any(|(file, _)| file.number >= wanted) {
        return Ok(());
    }
    let path = dir.path_of(&file_name(wanted));
    Err(Error::corrupt(path, 0, "the manifest needs this log file, but it is missing: restore it"))
}

/// The error for a record of the group at `lsn` that cannot be applied.
pub fn damaged_record(dir: &Dir, files: &Files, lsn: Lsn, what: &str) -> Error {
    let file = files.iter().rev().map(|(file, _)| file).find(|file| file.start <= lsn);
    let what = format!("a record of the group cannot be applied: {what}");
    match file {
        Some(file) => {
            let at = WAL_HEADER_BYTES + (lsn.0 - file.start.0);
            Error::corrupt(dir.path_of(&file_name(file.number)), at, what)
        }
        None => Error::invalid(format!("at {lsn}: {what}")),
    }
}

/// Whether the last log file is known by its name only, in the directory or in the manifest.
pub fn is_end_missing(names: &[String], wanted: FileNumber, files: &Files) -> bool {
    let highest = names.iter().filter_map(|name| is_file(name)).max().unwrap_or(0);
    highest.max(wanted) > files.last().map_or(0, |(file, _)| file.number)
}

fn read_header(dir: &Dir, engine: EngineId, number: FileNumber) -> Result<FileHeader> {
    let file = dir.open(&file_name(number))?;
    let bytes = file.read(0, file_header::BYTES)?;
    let header = FileHeader::decode(&bytes, file.path())?.expect(
        FileKind::Wal,
        engine,
        number,
        file.path(),
    )?;
    if header.second < WAL_HEADER_BYTES {
        return Err(Error::corrupt(file.path(), 0, "the length in the header is impossible"));
    }
    Ok(header)
}

/// A valid group of the log.
#[derive(Debug)]
pub struct ReadGroup {
    lsn: Lsn,
    engine: EngineId,
    header: GroupHeader,
    bytes: Bytes,
}

impl ReadGroup {
    /// Its length in the log.
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

    fn records(&self) -> Option<Vec<Record<'_>>> {
        let payload = self.bytes.get(group_header::BYTES..)?;
        decode_records(payload, self.header.records, self.engine, self.lsn)
    }
}

/// The records of groups, and what was wrong with them.
#[derive(Debug)]
pub struct RecordTaker {
    go_on: bool,
    damage: Vec<Error>,
    whole_from: Lsn,
}

impl RecordTaker {
    /// With `go_on`, a record that cannot be applied is skipped.
    pub fn new(go_on: bool) -> RecordTaker {
        RecordTaker { go_on, damage: Vec::new(), whole_from: Lsn(0) }
    }

    /// Passes on the records of a group, each with the group's lsn.
    pub fn group(
        &mut self,
        group: &ReadGroup,
        on_record: &mut dyn FnMut(Lsn, &Record<'_>) -> Result<()>,
    ) -> Result<()> {
        for record in group.records().expect("the reader has decoded them") {
            match on_record(group.lsn, &record) {
                Err(error) if self.go_on && !error.is_shortage() => {
                    self.damage.push(error);
                    self.whole_from = self.whole_from.max(group.lsn.plus(1));
                }
                taken => taken?,
            }
        }
        Ok(())
    }

    /// Adds what was wrong to the damage that the reader found.
    pub fn add_to(self, tail: &mut Tail) {
        tail.damage.extend(self.damage);
        tail.whole_from = tail.whole_from.max(self.whole_from);
    }
}

/// Reads the log from `checkpoint` to its end, and passes on its records. With `go_on`, damage, and
/// records that were refused, are collected and skipped instead of returned.
pub fn replay(
    dir: &Dir,
    files: &Files,
    checkpoint: Lsn,
    go_on: bool,
    on_record: &mut dyn FnMut(Lsn, &Record<'_>) -> Result<()>,
) -> Result<Tail> {
    let mut taken = RecordTaker::new(go_on);
    let on_group = &mut |group: ReadGroup| taken.group(&group, on_record);
    let mut tail = read(dir, files, checkpoint, go_on, on_group)?;
    taken.add_to(&mut tail);
    Ok(tail)
}

/// Reads the log from `checkpoint` to its end, and passes on its groups, until one is refused. With
/// `go_on`, damage is collected and skipped instead of returned.
pub fn read(
    dir: &Dir,
    files: &Files,
    checkpoint: Lsn,
    go_on: bool,
    on_group: &mut dyn FnMut(ReadGroup) -> Result<()>,
) -> Result<Tail> {
    let mut reader = LogReader {
        on_group,
        go_on,
        checkpoint,
        tail: Tail {
            end: checkpoint,
            durable: checkpoint,
            unsynced: Vec::new(),
            damage: Vec::new(),
            whole_from: Lsn(0),
            torn: None,
        },
        groups: Vec::new(),
    };
    for (index, (file, header)) in files.iter().enumerate() {
        let next = files.get(index + 1).map(|(next, _)| next.start);
        // A file is created only when everything before its start is durable.
        reader.tail.durable = reader.tail.durable.max(file.start);
        let superseded = next.is_some_and(|next| next <= file.start.max(checkpoint));
        if !superseded {
            reader.file(dir, *file, header, next)?;
        }
    }
    reader.collect_unsynced();
    Ok(reader.tail)
}

struct LogReader<'a> {
    on_group: &'a mut dyn FnMut(ReadGroup) -> Result<()>,
    go_on: bool,
    checkpoint: Lsn,
    tail: Tail,
    /// The groups that are not known to be durable so far, with their bytes.
    groups: Vec<(Lsn, Bytes)>,
}

impl LogReader<'_> {
    fn file(
        &mut self,
        dir: &Dir,
        file: WalFile,
        header: &FileHeader,
        next: Option<Lsn>,
    ) -> Result<()> {
        let source = dir.open(&file_name(file.number))?;
        let len = source.len()?.min(header.second);
        if len < header.second {
            let what = format!(
                "the file is shorter than the {} bytes that it was created with",
                header.second
            );
            self.damaged(Error::corrupt(source.path(), len, what), next)?;
        }
        let bytes = source
            .read(WAL_HEADER_BYTES.min(len), len.saturating_sub(WAL_HEADER_BYTES) as usize)?;
        let bytes = Bytes::from(bytes);
        let log = LogBytes {
            engine: header.engine_id,
            start: file.start,
            was_used: header.third != 0,
            bytes: &bytes,
            path: source.path().to_path_buf(),
        };
        if file.start > self.tail.end {
            self.damaged(
                log.damage(file.start, "the log before this file is missing"),
                Some(file.start),
            )?;
        }
        let limit = next.unwrap_or(Lsn(u64::MAX));
        // Everything before the checkpoint is dead: it is not read, and its loss is not damage.
        let mut at = file.start.max(self.checkpoint);
        loop {
            match log.group_at(at) {
                Some(group) if group.lsn >= limit => break,
                Some(group) => {
                    at = sector_up(group.lsn.plus(group.header.group_bytes()));
                    self.group(group)?;
                }
                None => match self.gap(&log, at, next)? {
                    Some(further) => at = further,
                    None => break,
                },
            }
        }
        self.tail.end = self.tail.end.max(next.unwrap_or(at));
        Ok(())
    }

    fn group(&mut self, group: ReadGroup) -> Result<()> {
        let ReadGroup { lsn, header, bytes, .. } = &group;
        self.tail.end = sector_up(lsn.plus(header.group_bytes()));
        if self.tail.durable < header.durable {
            self.tail.durable = header.durable;
            self.groups.retain(|(kept, _)| *kept >= header.durable);
        }
        self.groups.push((*lsn, bytes.clone()));
        (self.on_group)(group)
    }

    /// Handles a position without a valid group. Returns the position at which the log continues
    /// after damage, if this is damage and the log continues.
    fn gap(&mut self, log: &LogBytes<'_>, at: Lsn, next: Option<Lsn>) -> Result<Option<Lsn>> {
        if next.is_some_and(|next| at >= next) {
            return Ok(None);
        }
        let further = log.headers_behind(at);
        let contradicts = further.iter().find(|(_, header)| header.durable > at);
        let what = if let Some(next) = next {
            format!("the log continues at {next} in the next file, but no group can be read here")
        } else if let Some((lsn, header)) = contradicts {
            let durable = header.durable;
            format!(
                "no group can be read here, but the one at {lsn} says that all below {durable} \
                 was durable"
            )
        } else if self.tail.durable > at {
            "no group can be read here, but this part of the log was durable".into()
        } else {
            self.tail.torn = log.torn(at);
            return Ok(None);
        };
        let whole = further.iter().map(|(lsn, _)| *lsn).find(|lsn| log.group_at(*lsn).is_some());
        self.damaged(log.damage(at, &what), whole.or(next))?;
        Ok(whole)
    }

    /// Records damage, after which the log continues at `further`, if it does.
    fn damaged(&mut self, error: Error, further: Option<Lsn>) -> Result<()> {
        // A shortage of descriptors or space is not damage to the log.
        if !self.go_on || error.is_shortage() {
            return Err(error);
        }
        self.tail.damage.push(error);
        self.tail.whole_from = self.tail.whole_from.max(further.unwrap_or(Lsn(u64::MAX)));
        Ok(())
    }

    fn collect_unsynced(&mut self) {
        let durable = self.tail.durable;
        self.tail.end = self.tail.end.max(durable);
        self.tail.unsynced.reserve_exact(self.groups.iter().map(|(_, bytes)| bytes.len()).sum());
        for (lsn, bytes) in self.groups.drain(..).filter(|(lsn, _)| *lsn >= durable) {
            self.tail.unsynced.resize((lsn.0 - durable.0) as usize, 0);
            self.tail.unsynced.extend_from_slice(&bytes);
        }
    }
}

/// The bytes of one file after its header.
struct LogBytes<'a> {
    engine: EngineId,
    start: Lsn,
    /// Whether the file was a log file before: it may have bytes of older groups.
    was_used: bool,
    bytes: &'a Bytes,
    path: PathBuf,
}

impl<'a> LogBytes<'a> {
    fn from(&self, lsn: Lsn) -> &'a [u8] {
        let at = (lsn.0 - self.start.0) as usize;
        self.bytes.get(at..).unwrap_or_default()
    }

    /// The valid group at `lsn`.
    fn group_at(&self, lsn: Lsn) -> Option<ReadGroup> {
        let bytes = self.from(lsn);
        let header = GroupHeader::decode(bytes, self.engine, lsn)?;
        let bytes = self.bytes.slice_ref(bytes.get(..header.group_bytes() as usize)?);
        let group = ReadGroup { lsn, engine: self.engine, header, bytes };
        group.records()?;
        Some(group)
    }

    /// The valid group headers after `at`.
    fn headers_behind(&self, at: Lsn) -> Vec<(Lsn, GroupHeader)> {
        let mut headers = Vec::new();
        let mut lsn = at.plus(SECTOR_BYTES);
        while let Some(bytes) =
            self.bytes.get((lsn.0 - self.start.0) as usize..).filter(|rest| !rest.is_empty())
        {
            // After a torn tail there are nearly always zeros: whole pages of them are skipped at
            // once.
            if bytes.get(..PAGE_BYTES).is_some_and(|page| page == ZERO_PAGE) {
                lsn = lsn.plus(PAGE_BYTES as u64);
                continue;
            }
            if let Some(header) = GroupHeader::decode(bytes, self.engine, lsn) {
                headers.push((lsn, header));
            }
            lsn = lsn.plus(SECTOR_BYTES);
        }
        headers
    }

    /// The bytes from `at` on, where no group can be read; `None` if nothing was written there.
    fn torn(&self, at: Lsn) -> Option<TornTail> {
        let bytes = if self.was_used { self.begun(at)? } else { self.written(at)? };
        Some(TornTail { path: self.path.clone(), offset: self.offset_of(at), bytes })
    }

    /// The number of bytes from `at` on, up to the last one that is not zero.
    fn written(&self, at: Lsn) -> Option<u64> {
        let mut rest = self.from(at);
        // A file nearly always ends in zeros: whole pages of them are skipped at once.
        while let Some(before) = rest.strip_suffix(ZERO_PAGE) {
            rest = before;
        }
        rest.iter().rposition(|byte| *byte != 0).map(|last| last as u64 + 1)
    }

    /// The size of the group at `at`, as far as it is known, if the start of one is there: anything
    /// else is older.
    fn begun(&self, at: Lsn) -> Option<u64> {
        let rest = self.from(at);
        let header = GroupHeader::decode(rest, self.engine, at);
        let bytes = header.map(|header| header.group_bytes());
        let bytes = bytes.or_else(|| GroupHeader::is_begun(rest, at).then_some(SECTOR_BYTES))?;
        Some(bytes.min(rest.len() as u64))
    }

    fn offset_of(&self, at: Lsn) -> u64 {
        WAL_HEADER_BYTES + (at.0 - self.start.0)
    }

    fn damage(&self, at: Lsn, what: &str) -> Error {
        Error::corrupt(&self.path, self.offset_of(at), what)
    }
}

const _: () = assert!(
    WAL_HEADER_BYTES.is_multiple_of(SECTOR_BYTES)
        && file_header::BYTES <= WAL_HEADER_BYTES as usize
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shortage_while_a_record_is_replayed_is_not_damage() {
        let on_group = &mut |_| Ok(());
        let tail = Tail {
            end: Lsn(0),
            durable: Lsn(0),
            unsynced: Vec::new(),
            damage: Vec::new(),
            whole_from: Lsn(0),
            torn: None,
        };
        let (go_on, checkpoint, groups) = (true, Lsn(0), Vec::new());
        let mut reader = LogReader { on_group, go_on, checkpoint, tail, groups };
        let path = std::path::PathBuf::from("seg-000000000001.dat");
        let full = Error::DiskFull { path: path.clone() };
        assert!(matches!(reader.damaged(full, None), Err(Error::DiskFull { .. })));
        assert!(reader.damaged(Error::corrupt(path, 0, "bad bytes"), None).is_ok());
        assert_eq!(reader.tail.damage.len(), 1);
    }
}
