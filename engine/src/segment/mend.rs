//! Compares the two copies of a file, and repairs damage in one of them from the other (P5, P6).
//!
//! ```text
//!  original  ████░░████████   a piece (header, block, footer) is valid if its checksum matches,
//!  twin      ████████████░░   and so is the same piece of the other copy if its bytes are equal
//!              │
//!              └─> a new file: each piece from the copy in which it is valid;
//!                  sync; rename over the damaged file
//! ```
//!
//! A piece that is damaged in both copies stays as it is in each. After a power cut a copy is
//! either unchanged or repaired, and there may be a temporary file that the next open removes. The
//! caller makes the names durable.
//!
//! This file does not know which segments exist, or who reads them.

use super::walk::{BlockWalk, check_header};
use super::{data_name, index_name, twin_of};
use crate::error::{Error, Result};
use crate::format::checksum::Seed;
use crate::format::header::{FileKind, file_header};
use crate::format::index::{Footer, footer};
use crate::format::manifest::SegmentRecord;
use crate::ids::EngineId;
use crate::vfs::{Dir, File};

/// The number of bytes that are copied at once.
const COPY_BYTES: u64 = 1024 * 1024;

/// Both copies of a segment's file.
pub struct Twins<'a> {
    dir: &'a Dir,
    engine: EngineId,
    record: &'a SegmentRecord,
    kind: FileKind,
    names: [String; 2],
    len: u64,
}

/// Adjacent pieces of the file with the same validity in both copies.
struct Stretch {
    at: u64,
    end: u64,
    /// The damage in each copy.
    bad: [Option<Error>; 2],
}

/// The result of a comparison of two copies.
#[derive(Default)]
pub struct Compared {
    stretches: Vec<Stretch>,
}

/// Damage of a copy.
pub struct CopyDamage {
    /// The file, the byte and the damage.
    pub error: Error,
    /// The number of the copy.
    pub copy: u8,
    /// Whether the other copy is valid there.
    pub is_mendable: bool,
}

impl Compared {
    fn add(&mut self, at: u64, end: u64, bad: [Option<Error>; 2]) {
        let pattern = |bad: &[Option<Error>; 2]| [bad[0].is_some(), bad[1].is_some()];
        match self.stretches.last_mut() {
            Some(last) if last.end == at && at < end && pattern(&last.bad) == pattern(&bad) => {
                last.end = end;
            }
            _ => self.stretches.push(Stretch { at, end, bad }),
        }
    }

    /// All damage, of both copies.
    pub fn damage(&self) -> Vec<CopyDamage> {
        let of = |copy: usize| {
            self.stretches.iter().filter_map(move |stretch| {
                let error = stretch.bad[copy].clone()?;
                Some(CopyDamage {
                    error,
                    copy: copy as u8,
                    is_mendable: stretch.bad[1 - copy].is_none(),
                })
            })
        };
        of(0).chain(of(1)).collect()
    }

    fn is_mendable(&self, copy: usize) -> bool {
        self.stretches
            .iter()
            .any(|stretch| stretch.bad[copy].is_some() && stretch.bad[1 - copy].is_none())
    }
}

impl<'a> Twins<'a> {
    /// The copies of one of a segment's files.
    pub fn new(
        dir: &'a Dir,
        engine: EngineId,
        record: &'a SegmentRecord,
        kind: FileKind,
    ) -> Twins<'a> {
        let (name, len) = match kind {
            FileKind::Index => (index_name(record.number), record.index_bytes),
            _ => (data_name(record.number), record.data_bytes),
        };
        Twins { dir, engine, record, kind, names: [name.clone(), twin_of(&name)], len }
    }

    /// The length that each copy should have.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Reads both copies, piece by piece.
    pub fn compare(&self) -> Compared {
        let files = [self.open(0), self.open(1)];
        let mut out = Compared::default();
        let number = self.record.number;
        let header =
            |file: &File| check_header(file, file.len()?, (self.kind, self.engine, number));
        let mut at = file_header::BYTES as u64;
        out.add(0, at, each(&files, &header));
        let names: Vec<String> = self
            .names
            .iter()
            .zip(&files)
            .filter(|(_, file)| file.is_ok())
            .map(|(name, _)| name.clone())
            .collect();
        let footer_bytes = if self.kind == FileKind::Index { footer::BYTES as u64 } else { 0 };
        let end = self.len.saturating_sub(footer_bytes);
        if let Ok((walk, _)) = BlockWalk::open(self.dir, &names, self.engine, number, self.kind) {
            let mut walk = walk.expecting(self.kind, end);
            while let Some(block) = walk.next() {
                let bad = match &block {
                    Ok(block) => each(&files, &|file| same(file, at, &block.bytes)),
                    Err(error) => each(&files, &|file| Err(moved(error, file))),
                };
                out.add(at, walk.at(), bad);
                at = walk.at();
            }
        }
        // If neither copy can be opened, there was no walk.
        if at < end {
            out.add(
                at,
                end,
                each(&files, &|file| Err(Error::corrupt(file.path(), at, "the file ends here"))),
            );
        }
        if self.kind == FileKind::Index {
            let seed = Seed::new(self.engine, number);
            let decode = |file: &File| {
                let bytes = file.read(end, footer::BYTES)?;
                Footer::decode(&bytes, seed, file.path(), end).map(|_| ())
            };
            out.add(end, self.len, each(&files, &decode));
        }
        let len = each(&files, &|file| self.check_len(file));
        if len.iter().any(Option::is_some) {
            out.add(self.len, self.len, len);
        }
        out
    }

    fn open(&self, copy: usize) -> Result<File> {
        let name = &self.names[copy];
        self.dir.open(name).map_err(|error| {
            if error.is_not_found() {
                Error::corrupt(
                    self.dir.path_of(name),
                    0,
                    "the file is missing: the manifest says that it is live",
                )
            } else {
                error
            }
        })
    }

    fn check_len(&self, file: &File) -> Result<()> {
        match file.len()? {
            len if len > self.len => {
                let what = format!("the file has {len} bytes, the manifest says {}", self.len);
                Err(Error::corrupt(file.path(), self.len, what))
            }
            // A shorter file: the missing part was found before.
            _ => Ok(()),
        }
    }

    /// Repairs the copies that can be repaired. Returns the names of the files that were rewritten;
    /// the directory is not synced.
    pub fn mend(&self, compared: &Compared) -> Result<Vec<String>> {
        let mut mended = Vec::new();
        for copy in (0..2).filter(|copy| compared.is_mendable(*copy)) {
            let name = &self.names[copy];
            let temporary = format!("{name}.tmp");
            let _ = self.dir.remove(&temporary);
            self.write(copy, compared, &temporary)
                .inspect_err(|_| drop(self.dir.remove(&temporary)))?;
            self.dir.rename(&temporary, name)?;
            mended.push(name.clone());
        }
        Ok(mended)
    }

    /// Writes a repaired copy: each stretch from the copy in which it is valid.
    fn write(&self, copy: usize, compared: &Compared, temporary: &str) -> Result<()> {
        let files = [self.open(copy), self.open(1 - copy)];
        let target = self.dir.create(temporary)?;
        for stretch in &compared.stretches {
            // A stretch that is damaged in both copies stays as it is, as far as it can be read.
            let other_is_better = stretch.bad[copy].is_some() && stretch.bad[1 - copy].is_none();
            let order: &[usize] = if other_is_better { &[1] } else { &[0, 1] };
            let mut at = stretch.at;
            while at < stretch.end {
                let bytes = COPY_BYTES.min(stretch.end - at);
                let read = |from: &usize| files[*from].as_ref().ok()?.read(at, bytes as usize).ok();
                match order.iter().find_map(read) {
                    Some(piece) => target.write(at, &piece)?,
                    None if other_is_better => {
                        let what = "a copy that was good a moment ago cannot be read: try again";
                        return Err(Error::corrupt(
                            self.dir.path_of(&self.names[1 - copy]),
                            at,
                            what,
                        ));
                    }
                    None => target.set_len(at + bytes)?,
                }
                at += bytes;
            }
        }
        target.sync()
    }
}

/// The damage of each of the files.
fn each(files: &[Result<File>; 2], check: &dyn Fn(&File) -> Result<()>) -> [Option<Error>; 2] {
    let look = |file: &Result<File>| file.as_ref().map_err(Clone::clone).and_then(check).err();
    [look(&files[0]), look(&files[1])]
}

fn same(file: &File, at: u64, bytes: &[u8]) -> Result<()> {
    if file.read(at, bytes.len())? == bytes {
        Ok(())
    } else {
        Err(Error::corrupt(file.path(), at, "the checksum of the block does not match"))
    }
}

/// The same damage, reported for the other copy.
fn moved(error: &Error, file: &File) -> Error {
    match error {
        Error::Corrupt { offset, what, .. } => Error::corrupt(file.path(), *offset, what.clone()),
        _ => error.clone(),
    }
}
