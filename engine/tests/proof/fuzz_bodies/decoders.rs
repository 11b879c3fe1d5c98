//! The checks of the fuzzer and the bounded tests for arbitrary bytes: decode them, and compare the
//! result with the guarantees of decoders.
//!
//! Guarantees of each decoder:
//!
//! * any bytes give a value or an error, never a panic;
//! * bytes whose checksum does not match are refused;
//! * a value is inside the bytes that it was decoded from, and its size is bounded by their number;
//! * a decoded value, encoded again, gives the bytes that it was decoded from.
//!
//! Bytes rarely have a valid checksum by chance. So each body also repairs the checksums in the
//! bytes and decodes them a second time: a forger could write such bytes, and they reach the code
//! after the checks. Each accepted checksum is then changed, and must be refused.
//!
//! Some bytes are valid although no encoder writes them: a compressed block that another compressor
//! made, bodies that are not in the order of their use, escapes in another order, bytes after the
//! last slot, a start that is listed although it is the time. For these, the value alone must come
//! back, or the part that an encoder writes; each body says which.

use std::ops::Range;
use std::path::Path;

use strandline::format::checksum::{Seed, crc};
use strandline::format::codec::{Reader, put_name, put_varint};
use strandline::format::filter::may_contain;
use strandline::format::header::{EngineId, FileHeader, FileKind, VERSION, file_header};
use strandline::format::ids::{self, IdRecord};
use strandline::format::index::{self, Footer, RunBlock, RunBlocks, TimelineEntry, footer};
use strandline::format::layout::{get_u32, put};
use strandline::format::manifest;

#[path = "blocks.rs"]
mod blocks;
#[path = "log.rs"]
mod log;
#[path = "plans.rs"]
mod plans;

pub use blocks::{block, run, slots, table};
pub use log::{wal_group, wal_records, wal_tail};

pub const ENGINE: EngineId = EngineId([7; 16]);

/// A body that a target or a test runs. Returns whether something was decoded and then encoded to
/// the same bytes.
pub type Body = fn(&[u8]) -> bool;

/// All of them, by the names of their targets.
pub const ALL: &[(&str, Body)] = &[
    ("codec", codec),
    ("file_header", file_header),
    ("wal_group", wal_group),
    ("wal_records", wal_records),
    ("wal_tail", wal_tail),
    ("block", block),
    ("slots", slots),
    ("run", run),
    ("index", index),
    ("table", table),
    ("footer", footer),
    ("filter", filter),
    ("manifest", manifest),
];

/// A checksum among some bytes.
struct Checksum {
    /// Its own bytes.
    at: Range<usize>,
    /// The bytes that it covers.
    covered: Range<usize>,
    seed: Seed,
}

impl Checksum {
    /// Whether it matches; false if the bytes are too short.
    fn matches(&self, bytes: &[u8]) -> bool {
        let sum = bytes.get(self.covered.clone()).map(|covered| crc(self.seed, covered));
        sum.is_some() && get_u32(bytes, self.at.clone()) == sum
    }

    /// Makes it match. The bytes must be long enough.
    fn repair(&self, bytes: &mut [u8]) {
        let sum = crc(self.seed, &bytes[self.covered.clone()]);
        put(bytes, self.at.clone(), &sum.to_le_bytes());
    }

    /// The bytes with another checksum. The checksum itself chooses the bit that is changed.
    fn changed(&self, bytes: &[u8]) -> Vec<u8> {
        let mut changed = bytes.to_vec();
        let bit = usize::from(bytes[self.at.start]) % 32;
        changed[self.at.start + bit / 8] ^= 1 << (bit % 8);
        changed
    }
}

/// Varints, names and pieces.
pub fn codec(bytes: &[u8]) -> bool {
    let mut reader = Reader::new(bytes);
    let mut again = Vec::new();
    while let Some(value) = reader.varint() {
        put_varint(&mut again, value);
    }
    assert_eq!(again, bytes[..again.len()], "numbers are encoded to the same bytes");
    for read in [Reader::piece, Reader::name] {
        let mut reader = Reader::new(bytes);
        let Some(piece) = read(&mut reader) else { continue };
        assert!(
            piece.len() + reader.rest().len() < bytes.len(),
            "a piece lies inside, after its length"
        );
    }
    if let Some(name) = Reader::new(bytes).name() {
        let mut again = Vec::new();
        put_name(&mut again, name);
        assert_eq!(again, bytes[..again.len()], "a name is encoded to the same bytes");
    }
    !again.is_empty()
}

/// The header of a file.
pub fn file_header(bytes: &[u8]) -> bool {
    let path = Path::new("file");
    let sum =
        Checksum { at: file_header::CRC, covered: 0..file_header::CRC.start, seed: Seed::NONE };
    let decoded = FileHeader::decode(bytes, path);
    assert!(decoded.is_err() || sum.matches(bytes), "a wrong checksum is refused");
    let Some(forged) = bytes.get(..file_header::BYTES) else { return false };
    let mut forged = forged.to_vec();
    put(&mut forged, file_header::MAGIC, b"strandln");
    put(&mut forged, file_header::VERSION, &VERSION.to_le_bytes());
    sum.repair(&mut forged);
    let Ok(header) = FileHeader::decode(&forged, path) else { return false };
    let changed = FileHeader::decode(&sum.changed(&forged), path);
    assert!(changed.is_err(), "a wrong checksum is refused");
    assert_eq!(header.encode().as_slice(), forged, "it is encoded to the same bytes");
    true
}

/// The content of an index file's pages and tables.
pub fn index(bytes: &[u8]) -> bool {
    let mut is_decoded = timeline_entry(bytes);
    if let Some(name) = index::slot_name(bytes) {
        assert_eq!(index::name_prefix(bytes), Some(index::name_key(name).as_slice()));
    }
    if let Some((first, first_time_ms)) = RunBlock::decode_key(bytes) {
        let run = RunBlock { first, first_time_ms, ..RunBlock::default() };
        assert_eq!(run.key(), bytes, "a key is encoded to the same bytes");
        is_decoded = true;
    }
    let number = index::body_key(bytes);
    assert_eq!(number.is_some(), bytes.len() == 4);
    if let Some(number) = number {
        assert_eq!(number.to_le_bytes(), bytes);
        is_decoded = true;
    }
    if let Some((name, id)) = ids::key(bytes) {
        let key = ids::key_bytes(name, id);
        assert_eq!(ids::key_prefix(bytes), Some(key.as_slice()));
        is_decoded |= id_record(bytes, name, id);
    }
    is_decoded
}

/// A timeline's entry in a page.
fn timeline_entry(bytes: &[u8]) -> bool {
    // One with starts of its own lists the start of its floor twice, and only the last one counts.
    const OWN_START: u8 = 4;
    let Some((name, entry)) = TimelineEntry::decode(bytes) else { return false };
    if let RunBlocks::Listed(listed) = &entry.blocks {
        assert!(4 * listed.len() <= bytes.len(), "each block costs four bytes");
    }
    let mut again = Vec::new();
    entry.encode(name, &mut again);
    assert_eq!(TimelineEntry::decode(&again), Some((name, entry)), "it decodes to the same value");
    // A flag may announce fields that no part of the entry has.
    let flags = bytes[1 + name.len()];
    let is_usual = flags == again[1 + name.len()] && flags & OWN_START == 0;
    assert!(!is_usual || again == bytes, "it is encoded to the same bytes");
    again == bytes
}

/// The use of an id in a page, after its key.
fn id_record(bytes: &[u8], name: &[u8], id: &[u8]) -> bool {
    let Some(record) = IdRecord::decode(bytes) else { return false };
    assert!(record.sequences.len() <= bytes.len(), "each sequence costs a byte");
    let mut again = Vec::new();
    record.encode(name, id, &mut again);
    if again.len() < bytes.len() {
        assert_eq!(record.start_ms, record.time_ms, "only a needless start is left out");
        put_varint(&mut again, record.start_ms);
    }
    assert_eq!(again, bytes, "it is encoded to the same bytes");
    true
}

/// The footer of an index file.
pub fn footer(bytes: &[u8]) -> bool {
    let path = Path::new("index");
    let sum =
        Checksum { at: footer::CRC, covered: footer::CRC.end..footer::BYTES, seed: Seed::NONE };
    let decoded = Footer::decode(bytes, Seed::NONE, path, 0);
    assert!(decoded.is_err() || sum.matches(bytes), "a wrong checksum is refused");
    let Some(forged) = bytes.get(..footer::BYTES) else { return false };
    let mut forged = forged.to_vec();
    put(&mut forged, footer::MAGIC, index::FOOTER_MAGIC);
    sum.repair(&mut forged);
    let Ok(decoded) = Footer::decode(&forged, Seed::NONE, path, 0) else { return false };
    let changed = Footer::decode(&sum.changed(&forged), Seed::NONE, path, 0);
    assert!(changed.is_err(), "a wrong checksum is refused");
    assert_eq!(decoded.encode(Seed::NONE).as_slice(), forged, "it is encoded to the same bytes");
    true
}

/// A filter, queried for a key: the first byte is the length of the key.
pub fn filter(bytes: &[u8]) -> bool {
    let Some((length, rest)) = bytes.split_first() else { return false };
    let (key, filter) = rest.split_at(usize::from(*length).min(rest.len()));
    let _ = may_contain(filter, key);
    let built = strandline::format::filter::filter([key, filter].into_iter());
    assert!(may_contain(&built, key) && may_contain(&built, filter));
    true
}

/// A manifest after its header.
pub fn manifest(bytes: &[u8]) -> bool {
    let header = FileHeader {
        version: VERSION,
        kind: FileKind::Manifest,
        engine_id: ENGINE,
        writer_epoch: 1,
        number: 5,
        first: bytes.len() as u64,
        second: u64::from(crc(Seed::new(ENGINE, 5), bytes)),
        third: 0,
    };
    for bit in [0, 31] {
        let changed = FileHeader { second: header.second ^ 1 << bit, ..header };
        assert!(manifest::decode(bytes, &changed).is_err(), "a wrong checksum is refused");
    }
    let Ok(live) = manifest::decode(bytes, &header) else { return false };
    assert!(live.stores.len() + live.segments.len() <= bytes.len(), "each record costs a byte");
    let again = manifest::encode(&live, header);
    let (again_header, again) = again.split_at(file_header::BYTES);
    assert_eq!(again, bytes, "it is encoded to the same bytes");
    assert_eq!(FileHeader::decode(again_header, Path::new("manifest")).expect("decodes"), header);
    true
}
