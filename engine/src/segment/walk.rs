//! Walks all blocks of a segment's file from its start to its end, without an index (P5): to verify
//! every byte of a file, and to find the valid blocks of a damaged one.
//!
//! Blocks are adjacent, and each header has its block's length. Where no valid block starts, the
//! walk continues at the next position where one does, and reports the skipped bytes as one piece
//! of damage. If a file has two copies, both are walked as one: a block is valid if it is valid in
//! either.
//!
//! This file does not know the content of the blocks.

use crate::error::{Error, Result};
use crate::format::block::{BlockKind, BlockRef, block_header, decode, peek};
use crate::format::checksum::Seed;
use crate::format::header::{FileHeader, FileKind, file_header};
use crate::format::index::footer;
use crate::ids::{EngineId, FileNumber};
use crate::vfs::{Dir, File};

/// The number of bytes that are read at once to find the next valid block.
const LOOK_BYTES: u64 = 64 * 1024;

/// A valid block.
pub struct WalkedBlock {
    /// The kind of its content.
    pub kind: BlockKind,
    /// Its position.
    pub location: BlockRef,
    /// Its content.
    pub raw: Vec<u8>,
    /// Its bytes as stored in the file.
    pub bytes: Vec<u8>,
}

/// A walk in progress.
pub struct BlockWalk {
    /// The copies that exist.
    files: Vec<File>,
    /// The length of the longest copy.
    file_bytes: u64,
    seed: Seed,
    at: u64,
    end: u64,
    /// If set, only blocks of this kind of file are valid.
    expected: Option<FileKind>,
}

impl BlockWalk {
    /// A walk through the copies of a file, which should be what its name says. The second value is
    /// the damage of its header: the blocks may be valid nevertheless.
    pub fn open(
        dir: &Dir,
        names: &[String],
        engine: EngineId,
        number: FileNumber,
        kind: FileKind,
    ) -> Result<(BlockWalk, Option<Error>)> {
        let mut files = Vec::new();
        let (mut len, mut headers, mut missing) = (0, Vec::new(), None);
        for name in names {
            match dir.open(name).and_then(|file| Ok((file.len()?, file))) {
                Ok((bytes, file)) => {
                    headers.push(check_header(&file, bytes, (kind, engine, number)));
                    len = len.max(bytes);
                    files.push(file);
                }
                Err(error) => drop(missing.get_or_insert(error)),
            }
        }
        if let Some(missing) = missing.filter(|_| files.is_empty()) {
            return Err(missing);
        }
        let is_good = headers.iter().any(Result::is_ok);
        let header = headers.into_iter().find_map(Result::err).filter(|_| !is_good);
        let footer_bytes = if kind == FileKind::Index { footer::BYTES as u64 } else { 0 };
        let walk = BlockWalk {
            seed: Seed::new(engine, number),
            at: file_header::BYTES as u64,
            end: len.saturating_sub(footer_bytes),
            files,
            file_bytes: len,
            expected: None,
        };
        Ok((walk, header))
    }

    /// The same walk, restricted to blocks of this kind of file, up to `end`.
    #[must_use]
    pub fn expecting(self, kind: FileKind, end: u64) -> BlockWalk {
        BlockWalk { expected: Some(kind), end, ..self }
    }

    /// The length of the file.
    pub fn file_bytes(&self) -> u64 {
        self.file_bytes
    }

    /// The position at which the next block should start.
    pub fn at(&self) -> u64 {
        self.at
    }

    /// The next valid block, or the damage before it.
    pub fn next(&mut self) -> Option<Result<WalkedBlock>> {
        if self.at >= self.end {
            return None;
        }
        let at = self.at;
        Some(self.block(at).inspect(|block| self.at += u64::from(block.location.bytes)).map_err(
            |error| {
                self.at = self.next_good(at + 1);
                let Error::Corrupt { path, offset, what } = error else { return error };
                Error::corrupt(
                    path,
                    offset,
                    format!("{what}; nothing can be read up to byte {}", self.at),
                )
            },
        ))
    }

    /// The valid block at a position, from the first copy that has it; otherwise the damage of the
    /// first copy.
    fn block(&self, at: u64) -> Result<WalkedBlock> {
        let mut damage = None;
        for file in &self.files {
            match self.block_of(file, at) {
                Ok(block) => return Ok(block),
                Err(error) => drop(damage.get_or_insert(error)),
            }
        }
        Err(damage.unwrap_or_else(|| Error::invalid("there is no file to scan")))
    }

    fn block_of(&self, file: &File, at: u64) -> Result<WalkedBlock> {
        let damaged = |what: &str| Error::corrupt(file.path(), at, what);
        let left = self.end - at;
        if left < block_header::BYTES as u64 {
            return Err(damaged("the file ends within a block's header"));
        }
        let header = file.read(at, block_header::BYTES)?;
        let (kind, bytes) = peek(&header).ok_or_else(|| damaged("no block starts here"))?;
        if self.expected.is_some_and(|expected| kind.is_of_data() != (expected == FileKind::Data)) {
            return Err(damaged("the block belongs to the other file of a segment"));
        }
        if bytes > left {
            return Err(damaged("the block is longer than the rest of the file"));
        }
        let location = BlockRef { at, bytes: bytes as u32 };
        let bytes = file.read(at, bytes as usize)?;
        let raw = decode(kind, &bytes, self.seed.at(at)).map_err(damaged)?;
        Ok(WalkedBlock { kind, location, raw, bytes })
    }

    /// The first position from `at` on at which a valid block starts; the end if there is none.
    fn next_good(&self, at: u64) -> u64 {
        self.files.iter().map(|file| self.next_good_of(file, at)).min().unwrap_or(self.end)
    }

    fn next_good_of(&self, file: &File, mut at: u64) -> u64 {
        let header_bytes = block_header::BYTES as u64;
        while at + header_bytes <= self.end {
            let len = LOOK_BYTES.min(self.end - at);
            let Ok(bytes) = file.read(at, len as usize) else {
                // A sector that cannot be read: the bytes after it may be readable.
                at += len;
                continue;
            };
            let starts = bytes.windows(block_header::BYTES).enumerate();
            for (start, _) in starts.filter(|(_, header)| peek(header).is_some()) {
                if self.block_of(file, at + start as u64).is_ok() {
                    return at + start as u64;
                }
            }
            at += len - header_bytes + 1;
        }
        self.end
    }
}

/// Fails if a file does not begin with the header of one of a segment's files.
pub(super) fn check_header(
    file: &File,
    len: u64,
    (kind, engine, number): (FileKind, EngineId, FileNumber),
) -> Result<()> {
    let header = file.read(0, (file_header::BYTES as u64).min(len) as usize)?;
    FileHeader::decode(&header, file.path())?.expect(kind, engine, number, file.path()).map(|_| ())
}
