//! The writing end of the log: one file to which groups are appended, and the change to the next
//! file.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::prepare::{NextFile, Preparer};
use super::{NEXT_NAME, Tail, WalFile, file_name, temporary_name};
use crate::error::{Failure, Result};
use crate::format::header::{EngineId, FileHeader, FileKind, VERSION};
use crate::format::wal::{GroupWriter, WAL_HEADER_BYTES, group_header, sector_up};
use crate::ids::{FileNumber, Lsn};
use crate::vfs::{Dir, File};

/// The factor by which the next file is larger, until files have the requested size.
const GROWTH: u64 = 4;

/// The minimum size of a file, unless a smaller one was requested.
const MIN_FILE_BYTES: u64 = 256 * 1024;

/// The writer of the log.
pub struct Wal {
    dir: Dir,
    engine: EngineId,
    writer_epoch: u64,
    next_file: Arc<AtomicU64>,
    file_bytes: u64,
    preparer: Arc<Preparer>,
    file: File,
    start: Lsn,
    capacity: Lsn,
    /// Whether the file was a log file before.
    was_used: bool,
    /// The position of the next group.
    end: Lsn,
    /// Everything below this lsn is durable.
    durable: Lsn,
    /// The bytes of groups in the file before this one; 0 if there was none since the start.
    received_before: u64,
    /// The last groups have records, and nothing after them proves that they were durable.
    unvouched: bool,
    group: GroupWriter,
}

impl Wal {
    /// Continues in `active`, an open file that holds a durable log up to `end`.
    pub fn new(
        dir: Dir,
        header: &FileHeader,
        active: File,
        tail: &Tail,
        next_file: Arc<AtomicU64>,
        file_bytes: u64,
    ) -> Wal {
        let (start, end) = (Lsn(header.first), sector_up(tail.end));
        Wal {
            preparer: Arc::new(Preparer::new(dir.clone())),
            dir,
            engine: header.engine_id,
            writer_epoch: header.writer_epoch,
            next_file,
            file_bytes,
            file: active,
            start,
            capacity: start.plus(header.second - WAL_HEADER_BYTES),
            was_used: false,
            end,
            durable: end,
            received_before: 0,
            unvouched: start < end,
            group: GroupWriter::new(header.engine_id),
        }
    }

    /// The position of the next group.
    pub fn end(&self) -> Lsn {
        self.end
    }

    /// Starts a group whose records take at most `record_bytes`, in the next file if this one has
    /// no space left. Returns the file if it is a new one.
    pub fn start_group(&mut self, record_bytes: usize) -> Result<Option<WalFile>, Failure> {
        let bytes = (group_header::BYTES + record_bytes) as u64;
        let mut changed = None;
        if self.end.plus(bytes) > self.capacity {
            changed = Some(self.change_file(bytes)?);
        }
        self.group.start(self.end);
        Ok(changed)
    }

    /// The preparer of the next files: it can free its space.
    pub fn preparer(&self) -> Arc<Preparer> {
        self.preparer.clone()
    }

    /// The group under construction.
    pub fn group(&mut self) -> &mut GroupWriter {
        &mut self.group
    }

    /// Writes the group. It can be read after a crash of the process; a power cut may still remove
    /// it.
    ///
    /// If the disk is full, the log is unchanged: the same position is written again next time, and
    /// the bytes that are there now cannot be taken for a group, since there is no valid header or
    /// not all of its records.
    pub fn write_group(&mut self) -> Result<(), Failure> {
        let at = WAL_HEADER_BYTES + (self.end.0 - self.start.0);
        let bytes = self.group.finish(self.durable);
        self.file.write(at, bytes).map_err(Failure::before)?;
        self.end = sector_up(self.end.plus(bytes.len() as u64));
        self.unvouched = !self.group.is_empty();
        Ok(())
    }

    /// The end of the log, if damage of its last group could not be distinguished from an
    /// interrupted write.
    pub fn unvouched(&self) -> Option<Lsn> {
        self.unvouched.then_some(self.end)
    }

    /// Writes a group without records, which proves that everything before it was durable, and
    /// makes it durable. Returns the file if there was no space for the group in this one: the
    /// start of the next file proves the same.
    pub fn vouch(&mut self) -> Result<Option<WalFile>, Failure> {
        self.make_durable()?;
        let changed = self.start_group(0)?;
        if changed.is_none() {
            self.write_group()?;
            self.make_durable()?;
        }
        Ok(changed)
    }

    /// Whether there are groups that are not durable yet.
    pub fn is_unsynced(&self) -> bool {
        self.durable < self.end
    }

    /// Makes all groups durable. If the file is half full, has the next one prepared: an engine
    /// that writes little never pays for it.
    pub fn sync(&mut self) -> Result<(), Failure> {
        if self.is_unsynced() {
            self.make_durable()?;
            if 2 * self.received() >= self.capacity.0 - self.start.0 {
                self.preparer.ask(self.next_file_bytes());
            }
        }
        Ok(())
    }

    /// Makes all groups durable. Does not request a preparation: only durable appends need one.
    pub fn make_durable(&mut self) -> Result<(), Failure> {
        if self.is_unsynced() {
            self.file.sync().map_err(Failure::Poisoned)?;
            self.durable = self.end;
        }
        Ok(())
    }

    /// The bytes of groups in this file.
    fn received(&self) -> u64 {
        self.end.0 - self.start.0
    }

    /// Whether there is no group in this file.
    pub fn is_empty(&self) -> bool {
        self.received() == 0
    }

    /// Whether the file may have bytes of older groups.
    pub fn was_used(&self) -> bool {
        self.was_used
    }

    /// Files start small. A file is at most four times as large as what one of the last two
    /// received, but not smaller than the minimum, nor larger than requested: an engine that runs
    /// for a short time, writes little, or leaves its files early does not pay for large ones.
    fn next_file_bytes(&self) -> u64 {
        let received = self.received_before.max(self.received());
        (GROWTH * received).clamp(MIN_FILE_BYTES.min(self.file_bytes), self.file_bytes)
    }

    /// Steps 1 to 4 of the change to the next file, described in `wal`. The new file has space for
    /// a group of `bytes`.
    pub fn change_file(&mut self, bytes: u64) -> Result<WalFile, Failure> {
        self.make_durable()?;
        let number = self.next_file.fetch_add(1, Ordering::Relaxed);
        let needed = WAL_HEADER_BYTES + bytes;
        let next = self.preparer.take(needed);
        let was_used = next.as_ref().is_some_and(|next| next.was_used);
        let header = FileHeader {
            version: VERSION,
            kind: FileKind::Wal,
            engine_id: self.engine,
            writer_epoch: self.writer_epoch,
            number,
            first: self.end.0,
            second: next.as_ref().map_or_else(
                // Twice, since what the group needs is a bound far above what it takes: the next
                // group has space too.
                || needed.max((2 * needed).min(self.file_bytes)).max(self.next_file_bytes()),
                |next| next.bytes,
            ),
            third: u64::from(was_used),
        };
        self.file = match next {
            Some(NextFile { file, .. }) => {
                let named = name_prepared(&self.dir, &header, file);
                self.preparer.was_named();
                named
            }
            None => create(&self.dir, &header, &[]),
        }
        .inspect_err(|_| {
            self.preparer.discard();
        })?;
        self.received_before = self.received();
        self.was_used = was_used;
        self.start = self.end;
        self.unvouched = false;
        self.capacity = self.end.plus(header.second - WAL_HEADER_BYTES);
        Ok(WalFile { number, start: self.start })
    }
}

/// Creates a log file with `groups` at its start, and gives it its final name when all of it is
/// durable.
fn create(dir: &Dir, header: &FileHeader, groups: &[u8]) -> Result<File, Failure> {
    Unnamed::write(dir, header, groups).map_err(Failure::before)?.name()
}

/// A durable log file that is not part of the log yet. If it gets no name, it is removed.
#[derive(Debug)]
pub struct Unnamed {
    dir: Dir,
    header: FileHeader,
    /// `None` once it has its name.
    file: Option<File>,
}

impl Unnamed {
    /// Writes a log file with `groups` at its start.
    ///
    /// It is not filled with zeros (see `prepare`): only its final length is set, so that a
    /// truncated file is detected.
    pub fn write(dir: &Dir, header: &FileHeader, groups: &[u8]) -> Result<Unnamed> {
        let temporary = temporary_name(header.number);
        let _ = dir.remove(&temporary);
        let file = dir.create(&temporary)?;
        let unnamed = Unnamed { dir: dir.clone(), header: *header, file: Some(file) };
        let file = unnamed.file.as_ref().expect("it has no name yet");
        file.set_len(header.second)?;
        file.write(0, &header.encode())?;
        file.write(WAL_HEADER_BYTES, groups)?;
        file.sync()?;
        Ok(unnamed)
    }

    /// The header.
    pub fn header(&self) -> &FileHeader {
        &self.header
    }

    /// Gives it its final name.
    pub fn name(mut self) -> Result<File, Failure> {
        let number = self.header.number;
        give_name(&self.dir, &temporary_name(number), number, || Ok(()))?;
        let file = self.file.take().expect("it has no name yet");
        Ok(file.renamed(&self.dir, &file_name(number)))
    }
}

impl Drop for Unnamed {
    fn drop(&mut self) {
        if self.file.is_some() {
            let _ = self.dir.remove(&temporary_name(self.header.number));
        }
    }
}

fn name_prepared(dir: &Dir, header: &FileHeader, file: File) -> Result<File, Failure> {
    give_name(dir, NEXT_NAME, header.number, || {
        file.write(0, &header.encode())?;
        file.sync()
    })?;
    Ok(file.renamed(dir, &file_name(header.number)))
}

/// Gives a file its final name after `write` has made it durable. With this name the file is part
/// of the log, and the content of the old file beyond its start is dead: if it is unknown whether
/// the name is durable, nothing can be acknowledged any more. A file that does not get its name
/// does not keep its space.
fn give_name(
    dir: &Dir,
    temporary: &str,
    number: FileNumber,
    write: impl FnOnce() -> Result<()>,
) -> Result<(), Failure> {
    write().and_then(|()| dir.rename(temporary, &file_name(number))).map_err(|error| {
        let _ = dir.remove(temporary);
        Failure::before(error)
    })?;
    dir.sync().map_err(Failure::Poisoned)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::format::header::{FileKind, VERSION};
    use crate::ids::EngineId;
    use crate::vfs::simulated::SimulatedDisk;

    #[test]
    fn a_file_that_gets_no_name_is_removed() {
        let disk = SimulatedDisk::new();
        let dir = Dir::new(Arc::new(disk.clone()));
        let header = FileHeader {
            version: VERSION,
            kind: FileKind::Wal,
            engine_id: EngineId([1; 16]),
            writer_epoch: 1,
            number: 7,
            first: 0,
            second: 8192,
            third: 0,
        };
        let names = || dir.list().expect("lists");
        let unnamed = Unnamed::write(&dir, &header, b"groups").expect("writes");
        assert_eq!(names(), [temporary_name(7)]);
        drop(unnamed);
        assert!(names().is_empty());
        Unnamed::write(&dir, &header, b"groups").expect("writes").name().expect("is named");
        assert_eq!(names(), [file_name(7)]);
    }
}
