//! The header at the start of every file: the kind of the file, the engine that wrote it, and the
//! writer epoch in which it was written.
//!
//! The engine id is random and is part of the seed of every checksum, so that a piece of another
//! engine's file, or of another position in the same file, is never accepted as valid.

use std::path::Path;

use super::checksum::{Seed, crc};
use super::layout::{get_u32, get_u64, layout, put};
use crate::error::{Error, Result};
use crate::ids::FileNumber;

pub use crate::ids::EngineId;

/// The format version that this code writes, one for all files.
pub const VERSION: u32 = 7;

/// The oldest version that this code reads.
pub const OLDEST_VERSION: u32 = 1;

/// The first bytes of every file.
pub const MAGIC: &[u8; 8] = b"strandln";

layout! {
    /// The byte ranges of a file header's fields.
    file_header {
        MAGIC: 8, "`strandln`";
        VERSION: 4, "7; files of versions 1 to 6 are read";
        KIND: 4, "1 wal, 2 segment data, 3 segment index, 4 manifest";
        ENGINE_ID: 16, "random, the same in all files of a directory";
        WRITER_EPOCH: 8, "number of times the directory was opened for writing, including this one";
        NUMBER: 8, "the number in the file's name";
        FIRST: 8, "wal: lsn of the byte after the header · segment: store id · manifest: bytes of \
                   the payload";
        SECOND: 8, "wal: length of the whole file · segment: time partition · manifest: CRC of \
                    the payload";
        THIRD: 8, "wal: 1 if the file was a log file before, so that bytes of older groups may \
                   follow its last one · segment: lsn of the log below which changes of bodies \
                   are applied to its entries · manifest: zeros";
        ZERO: 4, "zeros";
        CRC: 4, "over the fields before it";
    }
}

/// The kind of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileKind {
    /// A file of the log.
    Wal = 1,
    /// The blocks of a segment.
    Data = 2,
    /// The index of a segment.
    Index = 3,
    /// A list of everything that is live.
    Manifest = 4,
}

impl FileKind {
    fn from_number(number: u32) -> Option<FileKind> {
        [FileKind::Wal, FileKind::Data, FileKind::Index, FileKind::Manifest]
            .into_iter()
            .find(|kind| *kind as u32 == number)
    }
}

/// A decoded header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the layout table says what they mean")]
pub struct FileHeader {
    /// The format version of the file. [`FileHeader::encode`] always writes [`VERSION`].
    pub version: u32,
    pub kind: FileKind,
    pub engine_id: EngineId,
    pub writer_epoch: u64,
    pub number: FileNumber,
    pub first: u64,
    pub second: u64,
    pub third: u64,
}

impl FileHeader {
    /// The header's bytes.
    pub fn encode(&self) -> [u8; file_header::BYTES] {
        let mut bytes = [0; file_header::BYTES];
        put(&mut bytes, file_header::MAGIC, MAGIC);
        put(&mut bytes, file_header::VERSION, &VERSION.to_le_bytes());
        put(&mut bytes, file_header::KIND, &(self.kind as u32).to_le_bytes());
        put(&mut bytes, file_header::ENGINE_ID, &self.engine_id.0);
        put(&mut bytes, file_header::WRITER_EPOCH, &self.writer_epoch.to_le_bytes());
        put(&mut bytes, file_header::NUMBER, &self.number.to_le_bytes());
        put(&mut bytes, file_header::FIRST, &self.first.to_le_bytes());
        put(&mut bytes, file_header::SECOND, &self.second.to_le_bytes());
        put(&mut bytes, file_header::THIRD, &self.third.to_le_bytes());
        let sum = crc(Seed::NONE, bytes.get(..file_header::CRC.start).unwrap_or_default());
        put(&mut bytes, file_header::CRC, &sum.to_le_bytes());
        bytes
    }

    /// The header in `bytes`, the first bytes of `path`; otherwise the check that failed.
    pub fn decode(bytes: &[u8], path: &Path) -> Result<FileHeader> {
        let damaged = |what: &str| Error::corrupt(path, 0, what);
        let fields = || {
            Some((
                get_u32(bytes, file_header::VERSION)?,
                get_u32(bytes, file_header::KIND)?,
                get_u32(bytes, file_header::CRC)?,
                bytes.get(..file_header::CRC.start)?,
            ))
        };
        let (version, kind, sum, covered) =
            fields().ok_or_else(|| damaged("the file is shorter than its header"))?;
        if bytes.get(file_header::MAGIC) != Some(MAGIC.as_slice()) {
            return Err(damaged("it does not begin with the magic number of this engine's files"));
        }
        if crc(Seed::NONE, covered) != sum {
            return Err(damaged("the checksum of the file header does not match"));
        }
        if !(OLDEST_VERSION..=VERSION).contains(&version) {
            return Err(Error::invalid(format!(
                "{} has format version {version}, this build knows {OLDEST_VERSION} to {VERSION}: \
                 open it with the build that \
                 wrote it",
                path.display()
            )));
        }
        let rest = || {
            Some(FileHeader {
                version,
                kind: FileKind::from_number(kind)?,
                engine_id: EngineId(bytes.get(file_header::ENGINE_ID)?.try_into().ok()?),
                writer_epoch: get_u64(bytes, file_header::WRITER_EPOCH)?,
                number: get_u64(bytes, file_header::NUMBER)?,
                first: get_u64(bytes, file_header::FIRST)?,
                second: get_u64(bytes, file_header::SECOND)?,
                third: get_u64(bytes, file_header::THIRD)?,
            })
        };
        if !bytes.get(file_header::ZERO).is_some_and(|zeros| zeros.iter().all(|byte| *byte == 0)) {
            return Err(damaged("the reserved bytes of the file header are not zeros"));
        }
        rest().ok_or_else(|| damaged("the file header has an unknown kind"))
    }

    /// Checks that this is the header of the expected file.
    pub fn expect(
        self,
        kind: FileKind,
        engine_id: EngineId,
        number: FileNumber,
        path: &Path,
    ) -> Result<FileHeader> {
        if self.kind != kind || self.engine_id != engine_id || self.number != number {
            let what =
                format!("the header is that of another file ({:?} {})", self.kind, self.number);
            return Err(Error::corrupt(path, 0, what));
        }
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> FileHeader {
        FileHeader {
            version: VERSION,
            kind: FileKind::Index,
            engine_id: EngineId([7; 16]),
            writer_epoch: 3,
            number: 12,
            first: 1,
            second: 2,
            third: 0,
        }
    }

    #[test]
    fn a_header_reads_back_as_written() {
        let bytes = header().encode();
        assert_eq!(FileHeader::decode(&bytes, Path::new("f")).expect("decodes"), header());
    }

    #[test]
    fn every_changed_byte_is_detected() {
        let good = header().encode();
        for at in 0..good.len() {
            let mut bad = good;
            bad[at] ^= 1;
            assert!(FileHeader::decode(&bad, Path::new("f")).is_err(), "byte {at}");
        }
        for len in 0..good.len() {
            assert!(FileHeader::decode(&good[..len], Path::new("f")).is_err());
        }
    }

    #[test]
    fn reserved_bytes_that_are_not_zeros_are_refused() {
        let mut bytes = header().encode();
        put(&mut bytes, file_header::ZERO, &[0, 0, 0, 1]);
        let sum = crc(Seed::NONE, &bytes[..file_header::CRC.start]);
        put(&mut bytes, file_header::CRC, &sum.to_le_bytes());
        let refused = FileHeader::decode(&bytes, Path::new("f")).expect_err("reserved bytes");
        assert!(refused.to_string().contains("reserved bytes"), "{refused}");
    }

    #[test]
    fn a_header_of_another_file_is_named() {
        let found = header().expect(FileKind::Index, EngineId([7; 16]), 13, Path::new("index-13"));
        assert!(found.expect_err("another number").to_string().contains("index-13"));
    }
}
