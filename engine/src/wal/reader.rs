//! The reading end of the log, used once, by recovery: which groups are there, and is what is missing a torn tail or damage.

use std::path::PathBuf;

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
    /// The lsn of its first byte behind the header.
    pub start: Lsn,
}

/// Where the log ends.
#[derive(Clone, Debug)]
pub struct Tail {
    /// The next group would stand here.
    pub end: Lsn,
    /// Everything below is known to be durable.
    pub durable: Lsn,
    /// The bytes of the log from `durable` to `end`.
    pub unsynced: Vec<u8>,
    /// What was skipped, when the caller asked to go on behind damage.
    pub damage: Vec<Error>,
}

/// The number in a log file's name.
pub fn is_file(name: &str) -> Option<FileNumber> {
    let number = name.strip_prefix("wal-")?.strip_suffix(".log")?;
    let number = number.parse().ok()?;
    (file_name(number) == name).then_some(number)
}

/// The headers of the log's files, in order. A header that cannot be read is damage: files get their names when they are whole.
pub fn files(dir: &Dir, names: &[String], engine: EngineId) -> Result<Vec<(WalFile, FileHeader)>> {
    let mut files = Vec::new();
    for number in names.iter().filter_map(|name| is_file(name)) {
        let file = dir.open(&file_name(number))?;
        let bytes = file.read(0, file_header::BYTES)?;
        let header =
            FileHeader::decode(&bytes, file.path())?.expect(FileKind::Wal, engine, number, file.path())?;
        if file.len()? < header.second {
            let what = format!("the file is shorter than the {} bytes that it was made with", header.second);
            return Err(Error::corrupt(file.path(), file.len()?, what));
        }
        files.push((WalFile { number, start: Lsn(header.first) }, header));
    }
    files.sort_by_key(|(file, _)| file.number);
    Ok(files)
}

/// What recovery does with each record: the lsn of its group, and the record.
pub type OnRecord<'a> = &'a mut dyn FnMut(Lsn, &Record<'_>) -> Result<()>;

/// Reads the log from `checkpoint` to its end. With `go_on`, damage is collected and skipped instead of returned.
pub fn replay(
    dir: &Dir,
    files: &[(WalFile, FileHeader)],
    checkpoint: Lsn,
    go_on: bool,
    on_record: OnRecord<'_>,
) -> Result<Tail> {
    let mut replay = Replay {
        on_record,
        go_on,
        checkpoint,
        tail: Tail { end: checkpoint, durable: checkpoint, unsynced: Vec::new(), damage: Vec::new() },
        groups: Vec::new(),
    };
    for (place, (file, header)) in files.iter().enumerate() {
        let next = files.get(place + 1).map(|(next, _)| next.start);
        // A file is made only when everything before its start is durable.
        replay.tail.durable = replay.tail.durable.max(file.start);
        let superseded = next.is_some_and(|next| next <= file.start.max(checkpoint));
        if !superseded {
            replay.file(dir, *file, header, next)?;
        }
    }
    replay.collect_unsynced();
    Ok(replay.tail)
}

struct Replay<'a> {
    on_record: OnRecord<'a>,
    go_on: bool,
    checkpoint: Lsn,
    tail: Tail,
    /// The groups that are not known to be durable so far, with their bytes.
    groups: Vec<(Lsn, Vec<u8>)>,
}

impl Replay<'_> {
    fn file(&mut self, dir: &Dir, file: WalFile, header: &FileHeader, next: Option<Lsn>) -> Result<()> {
        let source = dir.open(&file_name(file.number))?;
        let bytes = source.read(WAL_HEADER_BYTES, (header.second - WAL_HEADER_BYTES) as usize)?;
        let log = Log {
            engine: header.engine_id,
            start: file.start,
            bytes: &bytes,
            path: source.path().to_path_buf(),
        };
        if file.start > self.tail.end {
            self.damaged(log.damage(file.start, "the log before this file is missing"))?;
        }
        let limit = next.unwrap_or(Lsn(u64::MAX));
        let mut at = file.start;
        loop {
            match log.group_at(at) {
                Some((lsn, _, _)) if lsn >= limit => break,
                Some((lsn, header, records)) => {
                    self.group(&log, lsn, &header, &records)?;
                    at = lsn.plus(header.group_bytes());
                }
                None => match self.gap(&log, at, next)? {
                    Some(further) => at = further,
                    None => break,
                },
            }
        }
        // Between the last group and the start of the next file lies the rest of a sector at most.
        self.tail.end = self.tail.end.max(next.unwrap_or(at));
        Ok(())
    }

    fn group(&mut self, log: &Log<'_>, lsn: Lsn, header: &GroupHeader, records: &[Record<'_>]) -> Result<()> {
        if lsn >= self.checkpoint {
            for record in records {
                (self.on_record)(lsn, record)?;
            }
        }
        self.tail.end = lsn.plus(header.group_bytes());
        if self.tail.durable < header.durable {
            self.tail.durable = header.durable;
            self.groups.retain(|(kept, _)| *kept >= header.durable);
        }
        let start = (lsn.0 - log.start.0) as usize;
        self.groups.push((lsn, log.bytes[start..start + header.group_bytes() as usize].to_vec()));
        Ok(())
    }

    /// No valid group starts at `at`, nor at the next sector, where one would start behind a sync. Gives the place where the log goes on behind damage, if it was damage and goes on.
    fn gap(&mut self, log: &Log<'_>, at: Lsn, next: Option<Lsn>) -> Result<Option<Lsn>> {
        // The end of a file that is followed by another: what lies between the last group and the next file's start is at most
        // the rest of a sector.
        if next.is_some_and(|next| sector_up(at) >= next) {
            return Ok(None);
        }
        let further = log.headers_behind(at);
        let contradicts = further.iter().find(|(_, header)| header.durable > sector_up(at));
        if let Some(next) = next {
            let what = format!("the log goes on at {next} in the next file, but no group can be read here");
            self.damaged(log.damage(at, &what))?;
        } else if let Some((lsn, header)) = contradicts {
            let what = format!(
                "no group can be read here, but the one at {lsn} says that all below {} was durable",
                header.durable
            );
            self.damaged(log.damage(at, &what))?;
        } else if self.tail.durable > sector_up(at) {
            self.damaged(log.damage(at, "no group can be read here, but this part of the log was durable"))?;
        } else {
            return Ok(None);
        }
        Ok(further.first().map(|(lsn, _)| *lsn))
    }

    fn damaged(&mut self, error: Error) -> Result<()> {
        if !self.go_on {
            return Err(error);
        }
        self.tail.damage.push(error);
        Ok(())
    }

    fn collect_unsynced(&mut self) {
        let durable = self.tail.durable;
        self.tail.end = self.tail.end.max(durable);
        for (lsn, bytes) in self.groups.drain(..).filter(|(lsn, _)| *lsn >= durable) {
            self.tail.unsynced.resize((lsn.0 - durable.0) as usize, 0);
            self.tail.unsynced.extend_from_slice(&bytes);
        }
    }
}

/// The bytes of one file behind its header.
struct Log<'a> {
    engine: EngineId,
    start: Lsn,
    bytes: &'a [u8],
    path: PathBuf,
}

type Group<'a> = (Lsn, GroupHeader, Vec<Record<'a>>);

impl<'a> Log<'a> {
    fn from(&self, lsn: Lsn) -> &'a [u8] {
        let at = (lsn.0 - self.start.0) as usize;
        self.bytes.get(at..).unwrap_or_default()
    }

    /// The valid group at `lsn` or, where a sync may have been before it, at the next sector.
    fn group_at(&self, lsn: Lsn) -> Option<Group<'a>> {
        [lsn, sector_up(lsn)].into_iter().find_map(|lsn| self.group_exactly_at(lsn))
    }

    fn group_exactly_at(&self, lsn: Lsn) -> Option<Group<'a>> {
        let bytes = self.from(lsn);
        let header = GroupHeader::decode(bytes, self.engine, lsn)?;
        let payload = bytes.get(group_header::BYTES..)?.get(..header.payload_bytes)?;
        let records = decode_records(payload, header.records, self.engine, lsn)?;
        Some((lsn, header, records))
    }

    /// The group headers behind `at` that can be trusted. Groups start at multiples of eight.
    fn headers_behind(&self, at: Lsn) -> Vec<(Lsn, GroupHeader)> {
        let mut headers = Vec::new();
        let mut lsn = at.plus(8);
        while let Some(bytes) =
            self.bytes.get((lsn.0 - self.start.0) as usize..).filter(|rest| !rest.is_empty())
        {
            // Behind a torn tail there are zeros, nearly always: whole pages of them are passed over at once.
            if bytes.get(..PAGE_BYTES).is_some_and(|page| page == ZERO_PAGE) {
                lsn = lsn.plus(PAGE_BYTES as u64);
                continue;
            }
            if let Some(header) = GroupHeader::decode(bytes, self.engine, lsn) {
                headers.push((lsn, header));
            }
            lsn = lsn.plus(8);
        }
        headers
    }

    fn damage(&self, at: Lsn, what: &str) -> Error {
        Error::corrupt(&self.path, WAL_HEADER_BYTES + (at.0 - self.start.0), what)
    }
}

const _: () =
    assert!(WAL_HEADER_BYTES.is_multiple_of(SECTOR_BYTES) && file_header::BYTES <= WAL_HEADER_BYTES as usize);
