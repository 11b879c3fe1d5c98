//! Writes the blocks of one file.

use crate::error::Result;
use crate::format::block::{BlockKind, BlockRef, Compression, encode};
use crate::format::checksum::Seed;
use crate::format::header::FileHeader;
use crate::vfs::{Dir, File};

use super::twin_of;

/// The number of buffered bytes at which they are written and synced. A sync of a whole segment
/// would fill the disk's queue, and the next sync of the log would wait for all of it.
const PIECE_BYTES: usize = 1024 * 1024;

/// The blocks of one file, and of its second copy if there is one.
pub(super) struct Blocks {
    files: Vec<File>,
    /// The seed that the blocks' checksums start from.
    pub seed: Seed,
    /// Bytes that are not written yet.
    pub buffer: Vec<u8>,
    written: u64,
}

impl Blocks {
    /// Creates the file, in one or two copies, and puts its header into the buffer.
    pub fn create(dir: &Dir, name: &str, header: &FileHeader, copies: u8) -> Result<Blocks> {
        let seed = Seed::new(header.engine_id, header.number);
        let twin = (copies > 1).then(|| twin_of(name));
        let files =
            [Some(name.to_string()), twin].into_iter().flatten().map(|name| dir.create(&name));
        let buffer = header.encode().to_vec();
        Ok(Blocks { files: files.collect::<Result<_>>()?, seed, buffer, written: 0 })
    }

    /// The position of the next block.
    pub fn end(&self) -> u64 {
        self.written + self.buffer.len() as u64
    }

    /// Adds a block.
    pub fn block(
        &mut self,
        kind: BlockKind,
        raw: &[u8],
        compression: Compression,
    ) -> Result<BlockRef> {
        let at = self.end();
        let block = encode(kind, raw, compression, self.seed.at(at));
        self.buffer.extend_from_slice(&block);
        if self.buffer.len() >= PIECE_BYTES {
            self.write_out()?;
        }
        Ok(BlockRef { at, bytes: block.len() as u32 })
    }

    fn write_out(&mut self) -> Result<()> {
        for file in &self.files {
            file.write(self.written, &self.buffer)?;
            file.sync()?;
        }
        self.written += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }

    /// Writes the remaining bytes. Returns the length of the files, which are durable.
    pub fn finish(&mut self) -> Result<u64> {
        self.write_out()?;
        Ok(self.written)
    }
}
