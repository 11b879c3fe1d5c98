//! Blocks, the units of segment files: each block is verified when it is read, and compressed if
//! the writer asks for it and compression saves enough.
//!
//! A block is valid if and only if its checksum matches, seeded with the engine id, the file number
//! and the block's position in the file; it is of the wanted kind, and of a codec of the table
//! below; its reserved bytes are zeros; and both its stored form and its content have the lengths
//! in its header. Plain content is as long as its stored form, so its length is bounded by the
//! file; compressed content is bounded by `MAX_RAW_BYTES` before anything is allocated for it.

use std::io;

use parking_lot::Mutex;
use zstd::bulk::{Compressor, Decompressor};

use super::checksum::{Seed, crc};
use super::layout::{get_u32, layout, put};
use crate::options::MAX_BODY_BYTES;

/// The raw size at which a block of a data file is closed; index files have sizes of their own
/// (`format/index.rs`, `format/table.rs`).
pub const TARGET_RAW_BYTES: usize = 16 * 1024;

/// The largest compressed content: the largest body, after a block that was nearly full (at most
/// `TARGET_RAW_BYTES`), and the fields, names and slots around both (less than that again).
const MAX_RAW_BYTES: usize = MAX_BODY_BYTES + 2 * TARGET_RAW_BYTES;

/// A compressed form is used only if it saves more than 1/16: less is not worth the decompression.
const WORTHWHILE: usize = 16;

/// The fastest regular level; it decompresses as fast as higher levels.
const ZSTD_LEVEL: i32 = 1;

layout! {
    /// The byte ranges of a block header's fields.
    block_header {
        CRC: 4, "over the rest of this header and the stored content; seed: engine id, file \
                 number, position";
        STORED_BYTES: 4, "length of what follows";
        RAW_BYTES: 4, "length of the content";
        KIND: 1, "1 bodies, 2 runs, 3 index page, 4 page table, 5 body table, 6 run table, 7 id \
                  page, 8 id table";
        CODEC: 1, "1 plain, 2 zstd, 3 lz4";
        ZERO: 2, "zeros";
    }
}

/// The kind of a block's content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the layout table says what they mean")]
pub enum BlockKind {
    Bodies = 1,
    Runs = 2,
    IndexPage = 3,
    PageTable = 4,
    BodyTable = 5,
    RunTable = 6,
    IdPage = 7,
    IdTable = 8,
}

impl BlockKind {
    /// Whether blocks of this kind are in data files; all other kinds are in index files
    /// (`format/index.rs`).
    pub fn is_of_data(self) -> bool {
        matches!(self, BlockKind::Bodies | BlockKind::Runs)
    }

    fn from_number(number: u8) -> Option<BlockKind> {
        use BlockKind::{Bodies, BodyTable, IdPage, IdTable, IndexPage, PageTable, RunTable, Runs};
        [Bodies, Runs, IndexPage, PageTable, BodyTable, RunTable, IdPage, IdTable]
            .into_iter()
            .find(|kind| *kind as u8 == number)
    }
}

const PLAIN: u8 = 1;
const ZSTD: u8 = 2;
const LZ4: u8 = 3;

/// How the content of blocks is compressed, if that saves enough.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    None,
    /// By lz4: it is unpacked twice as fast as by zstd.
    Lz4,
    /// By zstd: it takes less space.
    Zstd,
}

/// The position of a block in its file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct BlockRef {
    /// The offset of its first byte.
    pub at: u64,
    /// Its length, header included.
    pub bytes: u32,
}

/// Encodes a block.
pub fn encode(kind: BlockKind, raw: &[u8], compression: Compression, seed: Seed) -> Vec<u8> {
    let packed = match compression {
        // `decode` would refuse it: the index entry of a timeline with millions of changes.
        _ if raw.len() > MAX_RAW_BYTES => None,
        Compression::None => None,
        Compression::Lz4 => Some((LZ4, lz4_flex::block::compress(raw))),
        Compression::Zstd => PACKERS
            .with(|| Compressor::new(ZSTD_LEVEL), |packer| packer.compress(raw))
            .map(|packed| (ZSTD, packed)),
    };
    let (codec, stored) = match &packed {
        Some((codec, packed)) if packed.len() + raw.len() / WORTHWHILE < raw.len() => {
            (*codec, packed.as_slice())
        }
        _ => (PLAIN, raw),
    };
    let mut block = vec![0; block_header::BYTES];
    put(&mut block, block_header::STORED_BYTES, &(stored.len() as u32).to_le_bytes());
    put(&mut block, block_header::RAW_BYTES, &(raw.len() as u32).to_le_bytes());
    put(&mut block, block_header::KIND, &[kind as u8]);
    put(&mut block, block_header::CODEC, &[codec]);
    block.extend_from_slice(stored);
    let sum = crc(seed, block.get(block_header::CRC.end..).unwrap_or_default());
    put(&mut block, block_header::CRC, &sum.to_le_bytes());
    block
}

static PACKERS: Idle<Compressor<'static>> = Idle(Mutex::new(Vec::new()));
static UNPACKERS: Idle<Decompressor<'static>> = Idle(Mutex::new(Vec::new()));

/// The contexts of zstd that nobody uses now: as many as were ever used at once. To make one takes
/// as long as to decompress a block, and threads may be short-lived.
struct Idle<C>(Mutex<Vec<C>>);

impl<C> Idle<C> {
    /// What `work` does with a context, which `make` makes if none is idle.
    fn with(
        &self,
        make: impl FnOnce() -> io::Result<C>,
        work: impl FnOnce(&mut C) -> io::Result<Vec<u8>>,
    ) -> Option<Vec<u8>> {
        let idle = self.0.lock().pop();
        let mut context = idle.map_or_else(make, Ok).ok()?;
        let done = work(&mut context).ok();
        self.0.lock().push(context);
        done
    }
}

/// The kind and the total length that a block's header claims; `None` if it cannot be a header.
/// No checksum is verified.
pub fn peek(header: &[u8]) -> Option<(BlockKind, u64)> {
    let [kind] = header.get(block_header::KIND)? else { return None };
    let is_possible =
        matches!(header.get(block_header::CODEC)?, [PLAIN | ZSTD | LZ4]) && has_zeros(header);
    let bytes =
        block_header::BYTES as u64 + u64::from(get_u32(header, block_header::STORED_BYTES)?);
    BlockKind::from_number(*kind)
        .filter(|_| is_possible && u32::try_from(bytes).is_ok())
        .map(|kind| (kind, bytes))
}

/// Whether the reserved bytes are zeros.
fn has_zeros(header: &[u8]) -> bool {
    header.get(block_header::ZERO).is_some_and(|zeros| zeros.iter().all(|byte| *byte == 0))
}

/// The content of a block, which must fill `block` exactly; otherwise the check that failed.
pub fn decode(kind: BlockKind, block: &[u8], seed: Seed) -> Result<Vec<u8>, &'static str> {
    let header = block.get(..block_header::BYTES).ok_or("the block is shorter than its header")?;
    let stored = block.get(block_header::BYTES..).unwrap_or_default();
    let covered = block.get(block_header::CRC.end..).unwrap_or_default();
    if get_u32(header, block_header::CRC) != Some(crc(seed, covered)) {
        return Err("the checksum of the block does not match");
    }
    if header.get(block_header::KIND) != Some(&[kind as u8]) {
        return Err("the block is of another kind");
    }
    if get_u32(header, block_header::STORED_BYTES) != Some(stored.len() as u32) {
        return Err("the block has another length than its header says");
    }
    if !has_zeros(header) {
        return Err("the reserved bytes of the block are not zeros");
    }
    let raw_bytes = get_u32(header, block_header::RAW_BYTES).unwrap_or(u32::MAX) as usize;
    let unpacked = match header.get(block_header::CODEC) {
        Some([PLAIN]) if raw_bytes == stored.len() => return Ok(stored.to_vec()),
        Some([ZSTD]) if raw_bytes <= MAX_RAW_BYTES => {
            UNPACKERS.with(Decompressor::new, |unpacker| unpacker.decompress(stored, raw_bytes))
        }
        Some([LZ4]) if raw_bytes <= MAX_RAW_BYTES => {
            lz4_flex::block::decompress(stored, raw_bytes).ok()
        }
        _ => return Err("the block's length or codec is not possible"),
    };
    unpacked
        .filter(|raw| raw.len() == raw_bytes)
        .ok_or("the block does not decompress to its length")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn forge(block: &mut [u8], seed: Seed) {
        let sum = crc(seed, &block[block_header::CRC.end..]);
        put(block, block_header::CRC, &sum.to_le_bytes());
    }

    #[test]
    fn a_block_reads_back_plain_and_compressed() {
        let raw = b"all work and no play ".repeat(100);
        for compression in [Compression::None, Compression::Lz4, Compression::Zstd] {
            let block = encode(BlockKind::Runs, &raw, compression, Seed::NONE);
            assert_eq!(block.len() < raw.len(), compression != Compression::None);
            assert_eq!(decode(BlockKind::Runs, &block, Seed::NONE), Ok(raw.clone()));
        }
    }

    #[test]
    fn content_over_the_limit_is_written_plain() {
        let raw = vec![0; MAX_RAW_BYTES + 1];
        for compression in [Compression::Lz4, Compression::Zstd] {
            let block = encode(BlockKind::IndexPage, &raw, compression, Seed::NONE);
            assert!(decode(BlockKind::IndexPage, &block, Seed::NONE).is_ok_and(|read| read == raw));
        }
    }

    #[test]
    fn every_changed_byte_is_detected() {
        let good = encode(BlockKind::Runs, b"some content", Compression::None, Seed::NONE);
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 0x10;
            assert!(decode(BlockKind::Runs, &bad, Seed::NONE).is_err(), "byte {at}");
        }
        assert!(decode(BlockKind::Bodies, &good, Seed::NONE).is_err());
    }

    #[test]
    fn a_forged_length_with_a_good_checksum_allocates_nothing() {
        let raw = b"abc".repeat(1000);
        for compression in [Compression::Lz4, Compression::Zstd] {
            let mut block = encode(BlockKind::Runs, &raw, compression, Seed::NONE);
            put(&mut block, block_header::RAW_BYTES, &u32::MAX.to_le_bytes());
            forge(&mut block, Seed::NONE);
            assert_eq!(
                decode(BlockKind::Runs, &block, Seed::NONE),
                Err("the block's length or codec is not possible")
            );
        }
    }

    #[test]
    fn reserved_bytes_that_are_not_zeros_are_refused() {
        let mut block = encode(BlockKind::Runs, b"some content", Compression::None, Seed::NONE);
        put(&mut block, block_header::ZERO, &[0, 1]);
        forge(&mut block, Seed::NONE);
        assert_eq!(peek(&block), None);
        assert_eq!(
            decode(BlockKind::Runs, &block, Seed::NONE),
            Err("the reserved bytes of the block are not zeros")
        );
    }

    proptest! {
        #[test]
        fn any_bytes_with_a_good_checksum_are_content_or_an_error(mut block: Vec<u8>) {
            if block.len() >= block_header::BYTES {
                forge(&mut block, Seed::NONE);
            }
            let _ = decode(BlockKind::Runs, &block, Seed::NONE);
        }
    }
}
