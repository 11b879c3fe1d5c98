//! Blocks of segments, and what is in them.
//!
//! Not written by an encoder, and therefore only decoded: a compressed block that another
//! compressor made, and a run with escapes in another order, or with escapes, an expiry or bytes
//! that say nothing. Bytes after the last slot are not compared.

use strandline::MAX_BODY_BYTES;
use strandline::format::block::{self, BlockKind, BlockRef, Compression, block_header};
use strandline::format::checksum::Seed;
use strandline::format::codec::Reader;
use strandline::format::layout::put;
use strandline::format::run::{EntryContent, RunReader, RunWriter, put_shared_body, shared_body};
use strandline::format::slots::{Slots, SlotsWriter};
use strandline::format::table::{Row, TablePage, TableWriter};

use super::{Checksum, plans};

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
pub fn block(bytes: &[u8]) -> bool {
    const PLAIN: u8 = 1;
    const ZSTD: u8 = 2;
    const LZ4: u8 = 3;
    let covered = block_header::CRC.end..bytes.len().max(block_header::CRC.end);
    let sum = Checksum { at: block_header::CRC, covered, seed: Seed::NONE };
    let is_right = sum.matches(bytes);
    let mut forged = bytes.to_vec();
    if forged.len() >= block_header::BYTES {
        let stored = (forged.len() - block_header::BYTES) as u32;
        put(&mut forged, block_header::STORED_BYTES, &stored.to_le_bytes());
        sum.repair(&mut forged);
    }
    let mut is_same = false;
    for kind in KINDS {
        let decoded = block::decode(kind, bytes, Seed::NONE);
        assert!(decoded.is_err() || is_right, "a wrong checksum is refused");
        let Ok(raw) = block::decode(kind, &forged, Seed::NONE) else { continue };
        let changed = block::decode(kind, &sum.changed(&forged), Seed::NONE);
        assert!(changed.is_err(), "a wrong checksum is refused");
        assert!(raw.len() <= MAX_BODY_BYTES + 64 * 1024 + bytes.len());
        let is_plain = forged[block_header::CODEC] == [PLAIN];
        let compression = match forged[block_header::CODEC] {
            [ZSTD] if raw.len() < 64 * 1024 => Compression::Zstd,
            [LZ4] if raw.len() < 64 * 1024 => Compression::Lz4,
            _ => Compression::None,
        };
        let again = block::encode(kind, &raw, compression, Seed::NONE);
        assert!(!is_plain || again == forged, "it is encoded to the same bytes");
        is_same |= again == forged;
        assert_eq!(block::decode(kind, &again, Seed::NONE), Ok(raw));
    }
    is_same
}

/// Numbered records, and the shared bodies in them.
pub fn slots(bytes: &[u8]) -> bool {
    let Some(slots) = Slots::new(bytes) else {
        assert_eq!(shared_body(bytes, 0), None);
        return false;
    };
    assert!(4 * slots.count() <= bytes.len(), "each record costs four bytes");
    let _ = slots.partition(|record| Some(record > b"m".as_slice()));
    assert_eq!(slots.get(slots.count()), None);
    for number in [0, 1, slots.count() / 2, slots.count().saturating_sub(1)] {
        shared_body_again(bytes, slots, number);
    }
    let records: Option<Vec<&[u8]>> = (0..slots.count()).map(|number| slots.get(number)).collect();
    let Some(records) = records else { return false };
    let mut writer = SlotsWriter::default();
    records.iter().for_each(|record| writer.add(|out| out.extend_from_slice(record)));
    let again = writer.finish();
    assert_eq!(again, bytes[..again.len()], "records are encoded to the same bytes");
    true
}

fn shared_body_again(bytes: &[u8], slots: Slots<'_>, number: usize) {
    let Some((shared, body)) = shared_body(bytes, number) else { return };
    let mut writer = SlotsWriter::default();
    put_shared_body(&mut writer, shared, &bytes[body]);
    let again = writer.finish();
    let again = Slots::new(&again).expect("slots").get(0);
    assert_eq!(again, slots.get(number), "a shared body is encoded to the same bytes");
}

/// A block of runs: from the first to the last that can be reached.
pub fn run(bytes: &[u8]) -> bool {
    plans::run(bytes);
    let (mut at, mut are_same) = (0, true);
    while let Some(run) = RunReader::at(bytes, at) {
        let end = run.next_run_at();
        assert!(end > at && end <= bytes.len(), "runs go forward, inside the block");
        are_same &= run_again(bytes, at, run);
        at = end;
    }
    are_same && at > 0
}

/// Checks a run. Returns whether it is encoded to the same bytes.
fn run_again(bytes: &[u8], at: usize, mut run: RunReader<'_>) -> bool {
    let end = run.next_run_at();
    let is_old = bytes[at] != 0;
    let (name, mut head) = (run.name, Reader::new(&bytes[at + usize::from(!is_old)..]));
    head.name();
    let mut number = || head.varint().expect("a run begins with its numbers");
    let (first, first_time_ms) = (number(), number());
    let mut writer = RunWriter::new(first, first_time_ms);
    let (mut next, mut count, mut has_two_escapes) = (first, 0, false);
    while let Some((sequence, content)) = run.next_entry() {
        assert!(sequence >= next, "sequences rise");
        count += 1;
        let mut escapes = usize::from(sequence > next);
        next = sequence + 1;
        match content {
            EntryContent::Inline { times, body, is_elsewhere, place } => {
                assert!(body.end <= end, "a body lies inside its run");
                escapes += usize::from(is_elsewhere) + usize::from(place.is_some());
                escapes += usize::from(times.own_start_ms().is_some());
                place.into_iter().for_each(|place| writer.place(sequence, place));
                if is_elsewhere {
                    writer.elsewhere(sequence, times);
                } else {
                    writer.inline(sequence, times, &bytes[body]);
                }
            }
            EntryContent::Shared { number, own_start_ms } => {
                escapes += usize::from(own_start_ms.is_some());
                writer.shared(sequence, number, own_start_ms);
            }
        }
        has_two_escapes |= escapes > 1;
    }
    assert!(count <= end - at, "each entry costs a byte");
    if run.remaining() > 0 {
        return false;
    }
    let mut again = Vec::new();
    writer.finish(name, &mut again);
    let is_same = again == bytes[at..end];
    let is_unusual = again.len() < end - at || has_two_escapes && again.len() == end - at;
    assert!(is_same || is_unusual || is_old, "a run is encoded to the same bytes");
    is_same
}

/// A page of a table.
pub fn table(bytes: &[u8]) -> bool {
    let Some(page) = TablePage::new(bytes) else { return false };
    assert!(4 * page.count() <= bytes.len(), "each row costs four bytes");
    let _ = page.partition(|key| Some(key > b"m".as_slice()));
    let rows: Option<Vec<Row<'_>>> = (0..page.count()).map(|number| page.row(number)).collect();
    assert_eq!(page.row(page.count()), None);
    let Some(rows) = rows else { return false };
    let mut pages = Vec::new();
    let mut write = |page: &[u8]| {
        pages.push(page.to_vec());
        Ok::<_, ()>(BlockRef::default())
    };
    let mut writer = TableWriter::with_targets(usize::MAX, usize::MAX);
    rows.iter().for_each(|row| writer.add(*row, &mut write).expect("it writes to memory"));
    writer.finish(&mut write).expect("it writes to memory");
    // The writer made a page of level 0.
    let (level, again) = pages[0].split_first().expect("a page begins with its level");
    assert_eq!(*again, bytes[1..=again.len()], "rows are encoded to the same bytes");
    *level == page.level
}
