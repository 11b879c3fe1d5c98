//! The writing end of the log: one file that grows by groups, and the change to the next one.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::prepare::{PREPARED_NAME, Preparer};
use super::{Tail, WalFile, file_name, temporary_name};
use crate::error::{Failure, Result};
use crate::format::header::{EngineId, FileHeader, FileKind, VERSION};
use crate::format::wal::{GroupWriter, WAL_HEADER_BYTES, group_header, sector_up};
use crate::ids::{FileNumber, Lsn};
use crate::vfs::{Dir, File};

/// How much larger the next file is, until files are as large as was asked for.
const GROWTH: u64 = 4;

/// No file is made smaller, unless that was asked for.
const MIN_FILE_BYTES: u64 = 1024 * 1024;

/// The writing end.
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
    /// Where the next group goes.
    end: Lsn,
    /// Everything below is durable.
    durable: Lsn,
    /// The last groups have records, and nothing behind them says that they were durable.
    unvouched: bool,
    group: GroupWriter,
}

impl Wal {
    /// Goes on in `active`, an open file that holds a durable log up to `end`.
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
            end,
            durable: end,
            unvouched: start < end,
            group: GroupWriter::new(header.engine_id),
        }
    }

    /// Where the next group will start.
    pub fn end(&self) -> Lsn {
        self.end
    }

    /// Starts a group whose records take at most so many bytes, in the next file if this one has no
    /// room. Gives the file if it is a new one.
    pub fn start_group(&mut self, record_bytes: usize) -> Result<Option<WalFile>, Failure> {
        let bytes = (group_header::BYTES + record_bytes) as u64;
        let mut changed = None;
        if self.end.plus(bytes) > self.capacity {
            changed = Some(self.change_file(bytes)?);
        }
        self.group.start(self.end);
        Ok(changed)
    }

    /// The maker of the next files: it can give its space back.
    pub fn preparer(&self) -> Arc<Preparer> {
        self.preparer.clone()
    }

    /// The group under construction.
    pub fn group(&mut self) -> &mut GroupWriter {
        &mut self.group
    }

    /// Writes the group. It can be read after a crash of the process; a power cut may still take
    /// it.
    ///
    /// When the disk is full the log is as before: the place is written again next time, and
    /// nothing that stands there now can be taken for a group, since it has no valid header or not
    /// all of its records.
    pub fn write_group(&mut self) -> Result<(), Failure> {
        let at = WAL_HEADER_BYTES + (self.end.0 - self.start.0);
        let bytes = self.group.finish(self.durable);
        self.file.write(at, bytes).map_err(Failure::before)?;
        self.end = sector_up(self.end.plus(bytes.len() as u64));
        self.unvouched = !self.group.is_empty();
        Ok(())
    }

    /// Where the log ends, if damage to its last group could not be told from a write that a crash
    /// cut.
    pub fn unvouched(&self) -> Option<Lsn> {
        self.unvouched.then_some(self.end)
    }

    /// Writes a group without records, which says that all before it was durable, and makes it
    /// durable. Gives the file if there was no room for it in this one: the start of the next says
    /// the same.
    ///
    /// No further file is made ahead for it: only durable appends need one.
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

    /// Makes all groups durable.
    pub fn sync(&mut self) -> Result<(), Failure> {
        if self.is_unsynced() {
            self.make_durable()?;
            self.preparer.ask(self.next_file_bytes());
        }
        Ok(())
    }

    fn make_durable(&mut self) -> Result<(), Failure> {
        if self.is_unsynced() {
            self.file.sync().map_err(Failure::Poisoned)?;
            self.durable = self.end;
        }
        Ok(())
    }

    /// Files start small and grow fourfold up to the size that was asked for, so that an engine
    /// that lives shortly or writes little does not pay for large ones.
    fn next_file_bytes(&self) -> u64 {
        let this = WAL_HEADER_BYTES + (self.capacity.0 - self.start.0);
        (GROWTH * this).clamp(MIN_FILE_BYTES.min(self.file_bytes), self.file_bytes)
    }

    /// Steps (1) to (4) of the room's heading. The new file has room for a group of so many bytes.
    pub fn change_file(&mut self, bytes: u64) -> Result<WalFile, Failure> {
        self.sync()?;
        let number = self.next_file.fetch_add(1, Ordering::Relaxed);
        let needed = WAL_HEADER_BYTES + bytes;
        let prepared = self.preparer.take();
        let prepared_bytes =
            prepared.as_ref().map_or(Ok(0), File::len).map_err(Failure::Poisoned)?;
        let header = FileHeader {
            version: VERSION,
            kind: FileKind::Wal,
            engine_id: self.engine,
            writer_epoch: self.writer_epoch,
            number,
            first: self.end.0,
            second: if needed <= prepared_bytes {
                prepared_bytes
            } else {
                needed.max(self.next_file_bytes())
            },
            third: 0,
        };
        self.file = match prepared {
            Some(file) if needed <= prepared_bytes => name_prepared(&self.dir, &header, file),
            _ => create(&self.dir, &header, &[]),
        }
        .inspect_err(|_| {
            self.preparer.discard();
        })?;
        self.start = self.end;
        self.unvouched = false;
        self.capacity = self.end.plus(header.second - WAL_HEADER_BYTES);
        Ok(WalFile { number, start: self.start })
    }
}

/// Makes a log file with `groups` at its start, and gives it its name when all of it is durable.
///
/// It is not written through with zeros (see `prepare`): it only has its final length, so that a
/// file cut short is known by it.
pub fn create(dir: &Dir, header: &FileHeader, groups: &[u8]) -> Result<File, Failure> {
    let temporary = temporary_name(header.number);
    let _ = dir.remove(&temporary);
    let file = dir.create(&temporary).map_err(Failure::before)?;
    let write = || {
        file.set_len(header.second)?;
        file.write(0, &header.encode())?;
        file.write(WAL_HEADER_BYTES, groups)?;
        file.sync()
    };
    give_name(dir, &temporary, header.number, write)?;
    Ok(file)
}

fn name_prepared(dir: &Dir, header: &FileHeader, file: File) -> Result<File, Failure> {
    give_name(dir, PREPARED_NAME, header.number, || {
        file.write(0, &header.encode())?;
        file.sync()
    })?;
    Ok(file)
}

/// Gives a file its name when `write` has made it durable. With its name the file is part of the
/// log, and what the old file holds behind its start is dead: if it is not known whether the name
/// is there for good, nothing can be acknowledged any more. A file that gets no name does not keep
/// its space.
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
