//! The checks of the fuzzer and the bounded tests for arbitrary bytes: decode them, and compare the
//! result with the guarantees of decoders.
//!
//! Guarantees of each decoder:
//!
//! * any bytes give a value or an error, never a panic;
//! * a value is inside the bytes that it was decoded from, and its size is bounded by their number;
//! * a decoded value, encoded again, decodes to the same value.
//!
//! Bytes rarely have a valid checksum by chance. So each body also repairs the checksums in the
//! bytes and decodes them a second time: a forger could write such bytes, and they reach the code
//! after the checks.

use std::path::Path;

use strandline::format::block::{self, BlockKind, block_header};
use strandline::format::checksum::{Seed, crc, crc_of_two};
use strandline::format::codec::{Reader, put_varint};
use strandline::format::filter::may_contain;
use strandline::format::header::{EngineId, FileHeader, file_header};
use strandline::format::ids::{self, IdRecord};
use strandline::format::index::{self, Footer, RunBlock, RunBlocks, TimelineEntry, footer};
use strandline::format::layout::{get_u32, put};
use strandline::format::list::{EncodedList, NewList, RecordList, decode_list};
use strandline::format::manifest;
use strandline::format::run::{EntryContent, RunReader, shared_body};
use strandline::format::slots::{Slots, SlotsWriter};
use strandline::format::table::{TablePage, TableWriter};
use strandline::format::wal::{
    GroupHeader, GroupWriter, NewRecord, Operation, decode_records, decode_tail, group_header,
    record_header,
};
use strandline::{Lsn, MAX_BODY_BYTES, TimelineRef};

const ENGINE: EngineId = EngineId([7; 16]);
const PLACE: Lsn = Lsn(512);

/// A body that a target or a test runs.
pub type Body = fn(&[u8]);

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

/// Writes the checksum of `covered` to the front of the bytes, if there is room.
fn repair(
    bytes: &mut [u8],
    at: std::ops::Range<usize>,
    covered: std::ops::Range<usize>,
    seed: Seed,
) {
    if let Some(sum) = bytes.get(covered).map(|covered| crc(seed, covered)) {
        put(bytes, at, &sum.to_le_bytes());
    }
}

/// Varints, names and pieces.
pub fn codec(bytes: &[u8]) {
    let mut reader = Reader::new(bytes);
    while let Some(value) = reader.varint() {
        let mut again = Vec::new();
        put_varint(&mut again, value);
        assert_eq!(Reader::new(&again).varint(), Some(value));
    }
    for read in [Reader::piece, Reader::name] {
        let mut reader = Reader::new(bytes);
        let Some(piece) = read(&mut reader) else { continue };
        assert!(
            piece.len() + reader.rest().len() < bytes.len(),
            "a piece lies inside, behind its length"
        );
    }
}

/// The header of a file.
pub fn file_header(bytes: &[u8]) {
    let path = Path::new("file");
    let _ = FileHeader::decode(bytes, path);
    let mut forged = bytes.to_vec();
    if forged.len() >= file_header::BYTES {
        put(&mut forged, file_header::MAGIC, b"strandln");
        put(&mut forged, file_header::VERSION, &strandline::format::header::VERSION.to_le_bytes());
        repair(&mut forged, file_header::CRC, 0..file_header::CRC.start, Seed::NONE);
    }
    if let Ok(header) = FileHeader::decode(&forged, path) {
        assert_eq!(FileHeader::decode(&header.encode(), path).expect("decodes again"), header);
    }
}

/// A group of the log, from its header to its tails.
pub fn wal_group(bytes: &[u8]) {
    let _ = GroupHeader::decode(bytes, ENGINE, PLACE);
    let mut forged = bytes.to_vec();
    if forged.len() >= group_header::BYTES {
        put(&mut forged, group_header::MAGIC, b"SLgr");
        put(&mut forged, group_header::LSN, &PLACE.0.to_le_bytes());
        let covered = group_header::CRC.end..group_header::BYTES;
        repair(&mut forged, group_header::CRC, covered, Seed::new(ENGINE, PLACE.0));
    }
    let Some(header) = GroupHeader::decode(&forged, ENGINE, PLACE) else { return };
    let payload = forged.get(group_header::BYTES..).unwrap_or_default();
    let payload = payload.get(..header.payload_bytes).unwrap_or(payload).to_vec();
    records_of(payload, header.records);
}

/// The records of a group: the first four bytes give the number.
pub fn wal_records(bytes: &[u8]) {
    let Some((count, payload)) = bytes.split_first_chunk::<4>() else { return };
    let count = u32::from_le_bytes(*count);
    let _ = decode_records(payload, count, ENGINE, PLACE);
    records_of(payload.to_vec(), count % 64);
}

fn records_of(mut payload: Vec<u8>, count: u32) {
    repair_records(&mut payload, count);
    let Some(records) = decode_records(&payload, count, ENGINE, PLACE) else { return };
    assert_eq!(records.len(), count as usize);
    let held: usize = records.iter().map(|record| record.tail.len() + record.sequences.len()).sum();
    assert!(held <= payload.len(), "records hold no more than there is");
    let mut group = GroupWriter::new(ENGINE);
    group.start(PLACE);
    for record in &records {
        let full = |bytes: &[u8]| crc(Seed::NONE, bytes);
        let list = record.list.map(|list| match list {
            RecordList::Full(bytes) => NewList::Full(bytes, full(bytes)),
            RecordList::Earlier(at, hash) => NewList::Earlier { at, hash, after: 0, base: &[] },
        });
        group.record(&NewRecord {
            time_ms: record.time_ms,
            start_ms: record.start_ms,
            sequences: &record.sequences,
            chosen: record.chosen,
            list,
            tail: record.tail,
            tail_crc: full(record.tail),
        });
        wal_tail(record.tail);
        if let Some(RecordList::Full(bytes)) = record.list {
            record_list(bytes);
        }
    }
    let again = group.finish(Lsn(0)).to_vec();
    assert_eq!(decode_records(&again[group_header::BYTES..], count, ENGINE, PLACE), Some(records));
}

/// Gives each record inside the payload its checksums.
fn repair_records(payload: &mut [u8], count: u32) {
    let mut at = 0;
    for _ in 0..count {
        let Some(record) = payload.get_mut(at..).filter(|rest| rest.len() >= record_header::BYTES)
        else {
            return;
        };
        let length = |field| get_u32(record, field).unwrap_or_default() as usize;
        let list_at = record_header::BYTES + length(record_header::SEQUENCE_BYTES);
        let Some(sequences) = record.get(record_header::BYTES..list_at) else { return };
        let list = list_sum(record, sequences);
        let tail_at = list_at + list.as_ref().map_or(0, |(bytes, _)| *bytes);
        let end = tail_at + length(record_header::TAIL_BYTES);
        let Some(tail) = record.get(tail_at..end) else { return };
        let tail_sum = crc(Seed::NONE, tail);
        put(record, record_header::TAIL_CRC, &tail_sum.to_le_bytes());
        if let Some((bytes, sum_at)) = list {
            let sum = crc(Seed::NONE, &record[list_at..list_at + bytes]);
            put(record, sum_at..sum_at + 4, &sum.to_le_bytes());
        }
        let header = &record[record_header::CRC.end..record_header::BYTES];
        let sum =
            crc_of_two(Seed::new(ENGINE, PLACE.0), header, &record[record_header::BYTES..list_at]);
        put(record, record_header::CRC, &sum.to_le_bytes());
        at += end.next_multiple_of(8);
    }
}

/// The length of a record's list, and where its checksum stands in the record, if it has a list.
fn list_sum(record: &[u8], sequences: &[u8]) -> Option<(usize, usize)> {
    let flags = get_u32(record, record_header::FLAGS)?;
    let mut numbers = Reader::new(sequences);
    for _ in 0..u64::from(get_u32(record, record_header::SEQUENCES)?) + u64::from(flags >> 1 & 1) {
        numbers.varint()?;
    }
    let bytes = numbers.length().filter(|bytes| flags & 4 != 0 && *bytes <= record.len())?;
    let behind = record_header::BYTES + sequences.len() + bytes;
    let sum_at = record_header::BYTES + sequences.len() - numbers.rest().len();
    (numbers.rest().len() >= 4 && behind <= record.len()).then_some((bytes, sum_at))
}

/// The list of a record.
pub fn record_list(bytes: &[u8]) {
    let Some(targets) = decode_list(bytes) else { return };
    let again = EncodedList::new(&targets);
    assert_eq!(decode_list(&again.bytes), Some(targets.clone()));
    let names = again.names.iter().map(|name| &again.bytes[name.start as usize..name.end as usize]);
    assert!(names.eq(targets.iter().map(|target| target.name)));
    assert!(3 * targets.len() < bytes.len(), "targets cost bytes each");
}

/// The tail of a record: bodies and operations.
pub fn wal_tail(bytes: &[u8]) {
    let Some(operations) = decode_tail(bytes) else { return };
    let mut cost = 0;
    for operation in &operations {
        let named = |timeline: &TimelineRef<'_>| assert!((1..=255).contains(&timeline.name.len()));
        cost += match operation {
            Operation::Append { body, targets, .. } => {
                assert!(bytes.get(body.clone()).is_some(), "a body lies inside the tail");
                targets.iter().for_each(named);
                4 + 3 * targets.len()
            }
            Operation::Edit { timeline, body, .. } => {
                assert!(bytes.get(body.clone()).is_some(), "a body lies inside the tail");
                named(timeline);
                6
            }
            Operation::Trim { timeline, .. } => {
                named(timeline);
                8
            }
            Operation::Remove { timeline, ranges } => {
                named(timeline);
                assert!(ranges.iter().all(|(first, last)| first <= last));
                5 + 2 * ranges.len()
            }
            Operation::Id { timeline, id, .. } => {
                named(timeline);
                21 + id.len()
            }
        };
    }
    assert!(cost <= bytes.len(), "operations cost bytes each");
}

const KINDS: [BlockKind; 8] = [
    BlockKind::Bodies,
    BlockKind::Runs,
    BlockKind::IndexPage,
    BlockKind::PageTable,
    BlockKind::BodyTable,
    BlockKind::RunTable,
    BlockKind::IdPage,
    BlockKind::IdTable,
];

/// A block, as it is and with its lengths and checksum corrected.
pub fn block(bytes: &[u8]) {
    let mut forged = bytes.to_vec();
    if forged.len() >= block_header::BYTES {
        let stored = (forged.len() - block_header::BYTES) as u32;
        put(&mut forged, block_header::STORED_BYTES, &stored.to_le_bytes());
        let covered = block_header::CRC.end..forged.len();
        repair(&mut forged, block_header::CRC, covered, Seed::NONE);
    }
    for kind in KINDS {
        let _ = block::decode(kind, bytes, Seed::NONE);
        if let Ok(raw) = block::decode(kind, &forged, Seed::NONE) {
            assert!(raw.len() <= MAX_BODY_BYTES + 64 * 1024 + bytes.len());
            let again = block::encode(kind, &raw, raw.len() < 64 * 1024, Seed::NONE);
            assert_eq!(block::decode(kind, &again, Seed::NONE), Ok(raw));
        }
    }
}

/// Numbered records, and the shared bodies in them.
pub fn slots(bytes: &[u8]) {
    for number in [0, 1, usize::from(bytes.first().copied().unwrap_or_default())] {
        if let Some((_, body)) = shared_body(bytes, number) {
            assert!(bytes.get(body).is_some(), "a body lies inside the block");
        }
    }
    let Some(slots) = Slots::new(bytes) else { return };
    assert!(4 * slots.count() <= bytes.len(), "each record costs four bytes");
    let _ = slots.partition(|record| Some(record > b"m".as_slice()));
    let records: Option<Vec<&[u8]>> = (0..slots.count()).map(|number| slots.get(number)).collect();
    assert_eq!(slots.get(slots.count()), None);
    // Records may overlap in forged bytes, so the encoded form could be quadratically larger.
    let Some(records) =
        records.filter(|all| all.iter().map(|one| one.len()).sum::<usize>() <= bytes.len())
    else {
        return;
    };
    let mut writer = SlotsWriter::default();
    records.iter().for_each(|record| writer.add(|out| out.extend_from_slice(record)));
    let raw = writer.finish();
    let again = Slots::new(&raw).expect("slots");
    assert!(records.iter().enumerate().all(|(number, record)| again.get(number) == Some(record)));
}

/// A block of runs: from the first to the last that can be reached.
pub fn run(bytes: &[u8]) {
    let mut at = 0;
    while let Some(mut run) = RunReader::at(bytes, at) {
        assert!(
            run.next_run_at() > at && run.next_run_at() <= bytes.len(),
            "runs go forward, inside the block"
        );
        let (mut last, mut count) = (None, 0);
        while let Some((sequence, content)) = run.next_entry() {
            assert!(last.is_none_or(|last| sequence > last), "sequences rise");
            if let EntryContent::Inline { body, .. } = content {
                assert!(
                    body.end <= run.next_run_at() && bytes.get(body).is_some(),
                    "a body lies inside its run"
                );
            }
            (last, count) = (Some(sequence), count + 1);
        }
        assert!(count <= run.next_run_at() - at, "each entry costs a byte");
        at = run.next_run_at();
    }
}

/// The content of an index file's pages and tables.
pub fn index(bytes: &[u8]) {
    if let Some((name, entry)) = TimelineEntry::decode(bytes) {
        if let RunBlocks::Listed(listed) = &entry.blocks {
            assert!(4 * listed.len() <= bytes.len(), "each block costs four bytes");
        }
        let mut again = Vec::new();
        entry.encode(name, &mut again);
        // Of the span of an emptied timeline, only the end is kept.
        let span_is_kept = entry.end.last + 1 >= entry.first;
        assert!(!span_is_kept || TimelineEntry::decode(&again) == Some((name, entry)));
    }
    if let Some(name) = index::slot_name(bytes) {
        assert_eq!(index::name_prefix(bytes), Some(index::name_key(name).as_slice()));
    }
    if let Some((first, first_time_ms)) = RunBlock::decode_key(bytes) {
        let run = RunBlock { first, first_time_ms, ..RunBlock::default() };
        assert_eq!(RunBlock::decode_key(&run.key()), Some((first, first_time_ms)));
    }
    assert_eq!(index::body_key(bytes).is_some(), bytes.len() == 4);
    if let (Some((name, id)), Some(entry)) = (ids::key(bytes), IdRecord::decode(bytes)) {
        assert!(entry.sequences.len() <= bytes.len(), "each sequence costs a byte");
        let mut again = Vec::new();
        entry.encode(name, id, &mut again);
        assert_eq!(IdRecord::decode(&again), Some(entry));
    }
    if let Some((name, id)) = ids::key(bytes) {
        let prefix = ids::key_prefix(bytes).expect("it begins with a key");
        assert_eq!(ids::key(&ids::key_bytes(name, id)), ids::key(prefix));
    }
}

/// A page of a table.
pub fn table(bytes: &[u8]) {
    let Some(page) = TablePage::new(bytes) else { return };
    assert!(4 * page.count() <= bytes.len(), "each row costs four bytes");
    let _ = page.partition(|key| Some(key > b"m".as_slice()));
    let rows: Option<Vec<_>> = (0..page.count()).map(|number| page.row(number)).collect();
    assert_eq!(page.row(page.count()), None);
    // Rows may overlap in forged bytes, so the encoded form could be quadratically larger.
    let row_bytes = |row: &strandline::format::table::Row<'_>| row.key.len() + row.filter.len();
    let Some(rows) = rows.filter(|all| all.iter().map(row_bytes).sum::<usize>() <= bytes.len())
    else {
        return;
    };
    let mut pages = Vec::new();
    let mut write = |page: &[u8]| {
        pages.push(page.to_vec());
        Ok::<_, ()>(block::BlockRef::default())
    };
    let mut writer = TableWriter::with_targets(usize::MAX, usize::MAX);
    rows.iter().for_each(|row| writer.add(*row, &mut write).expect("it writes to memory"));
    writer.finish(&mut write).expect("it writes to memory");
    let again = TablePage::new(&pages[0]).expect("a page");
    assert!(rows.iter().enumerate().all(|(number, row)| again.row(number) == Some(*row)));
}

/// The footer of an index file.
pub fn footer(bytes: &[u8]) {
    let path = Path::new("index");
    let _ = Footer::decode(bytes, Seed::NONE, path, 0);
    let mut forged = bytes.to_vec();
    if forged.len() >= footer::BYTES {
        put(&mut forged, footer::MAGIC, index::FOOTER_MAGIC);
        repair(&mut forged, footer::CRC, footer::CRC.end..footer::BYTES, Seed::NONE);
    }
    if let Ok(decoded) = Footer::decode(&forged, Seed::NONE, path, 0) {
        let again = decoded.encode(Seed::NONE);
        assert_eq!(Footer::decode(&again, Seed::NONE, path, 0).expect("decodes again"), decoded);
    }
}

/// A filter, queried for a key: the first byte is the length of the key.
pub fn filter(bytes: &[u8]) {
    let Some((length, rest)) = bytes.split_first() else { return };
    let (key, filter) = rest.split_at(usize::from(*length).min(rest.len()));
    let _ = may_contain(filter, key);
    let built = strandline::format::filter::filter([key, filter].into_iter());
    assert!(may_contain(&built, key) && may_contain(&built, filter));
}

/// A manifest after its header.
pub fn manifest(bytes: &[u8]) {
    let header = FileHeader {
        version: strandline::format::header::VERSION,
        kind: strandline::format::header::FileKind::Manifest,
        engine_id: ENGINE,
        writer_epoch: 1,
        number: 5,
        first: bytes.len() as u64,
        second: u64::from(crc(Seed::new(ENGINE, 5), bytes)),
        third: 0,
    };
    assert!(manifest::decode(bytes, &FileHeader { second: header.second ^ 1, ..header }).is_err());
    let Ok(live) = manifest::decode(bytes, &header) else { return };
    assert!(live.stores.len() + live.segments.len() <= bytes.len(), "each record costs a byte");
    let again = manifest::encode(&live, header);
    let header = FileHeader::decode(&again, Path::new("manifest")).expect("decodes again");
    assert_eq!(manifest::decode(&again[file_header::BYTES..], &header), Ok(live));
}
