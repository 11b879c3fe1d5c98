//! The fuzz targets' bodies, run bounded and without a fuzzer: on the output of encoders, on that
//! with a few bytes changed, and on noise. `fuzz/` runs the same bodies without a bound.
//!
//! `STRANDLINE_PROOF=long` does forty times as much.

mod decoders;
mod operations;

use strandline::format::block::{BlockKind, BlockRef, encode};
use strandline::format::checksum::{Seed, crc};
use strandline::format::filter::filter;
use strandline::format::header::{EngineId, FileHeader, FileKind, VERSION, file_header};
use strandline::format::index::{End, Footer, RunBlock, RunBlocks, TimelineEntry};
use strandline::format::list::{EncodedList, NewList};
use strandline::format::manifest::{self, Copies, Live, SegmentRecord, StoreRecord};
use strandline::format::run::{RunWriter, SharedBody, Times, put_shared_body};
use strandline::format::slots::SlotsWriter;
use strandline::format::table::{Row, TableWriter};
use strandline::format::wal::{GroupWriter, NewRecord, TailWriter, group_header};
use strandline::vfs::simulated::Dice;
use strandline::{Lsn, StoreId, TimelineRef};

const ENGINE: EngineId = EngineId([7; 16]);

fn rounds(short: u64) -> u64 {
    if std::env::var("STRANDLINE_PROOF").is_ok_and(|value| value == "long") {
        40 * short
    } else {
        short
    }
}

fn byte(dice: &mut Dice) -> u8 {
    dice.below(256) as u8
}

fn noise(dice: &mut Dice, most: u64) -> Vec<u8> {
    (0..dice.below(most)).map(|_| byte(dice)).collect()
}

/// The bytes with a few changes: other values, pieces removed, pieces repeated, the end cut off.
fn changed(good: &[u8], dice: &mut Dice) -> Vec<u8> {
    let mut bytes = good.to_vec();
    for _ in 0..=dice.below(4) {
        if bytes.is_empty() {
            return bytes;
        }
        let at = dice.below(bytes.len() as u64) as usize;
        let end = bytes.len().min(at + 1 + dice.below(8) as usize);
        match dice.below(5) {
            0 => bytes[at] ^= 1 << dice.below(8),
            1 => bytes[at..end].fill([0, 0xFF, 0x7F, 0x80][dice.below(4) as usize]),
            2 => drop(bytes.drain(at..end)),
            3 => {
                let piece = bytes[at..end].to_vec();
                bytes.splice(at..at, piece);
            }
            _ => bytes.truncate(at),
        }
    }
    bytes
}

fn tail(listed: bool) -> Vec<u8> {
    let mut tail = TailWriter::default();
    for body in [b"hello".as_slice(), b"", b"world"] {
        tail.body(body);
        tail.append((false, listed && body.is_empty()), 0, 2);
        tail.timeline(TimelineRef { store: StoreId(1), name: b"c/1" });
        tail.timeline(TimelineRef { store: StoreId(2), name: b"u/2" });
    }
    tail.finish().0
}

fn group() -> Vec<u8> {
    let mut group = GroupWriter::new(ENGINE);
    group.start(Lsn(512));
    let targets = [TimelineRef { store: StoreId(2), name: b"u/3" }];
    let EncodedList { bytes, crc: sum, hash, .. } = EncodedList::new(&targets);
    let earlier = NewList::Earlier { at: Lsn(0), hash, after: 2, base: &[] };
    let lists = [None, Some(NewList::Full(&bytes, sum)), Some(earlier)];
    for (list, time_ms) in lists.into_iter().zip(1..) {
        let tail = tail(list.is_some());
        group.record(&NewRecord {
            time_ms,
            start_ms: 2,
            sequences: &[1, 300, 1 << 40],
            chosen: false,
            list,
            tail: &tail,
            tail_crc: crc(Seed::NONE, &tail),
        });
    }
    group.finish(Lsn(512)).to_vec()
}

fn runs() -> Vec<u8> {
    let mut block = Vec::new();
    for name in [b"a".as_slice(), b"b"] {
        let mut run = RunWriter::new(5, 1000);
        let times = |time_ms, start_ms, expire_at_ms| Times { time_ms, start_ms, expire_at_ms };
        run.inline(5, times(1000, 1000, 0), b"five");
        run.shared(6, 0, None);
        run.shared(9, 300, Some(70));
        run.inline(20, times(1500, 1500, 9000), b"");
        run.inline(21, times(1500, 80, 90), b"early");
        run.elsewhere(22, times(1500, 1500, 9000));
        run.finish(name, &mut block);
    }
    block
}

fn shared_bodies() -> Vec<u8> {
    let mut slots = SlotsWriter::default();
    let shared = |time_ms| SharedBody { time_ms, ..SharedBody::default() };
    (0..5).for_each(|number| put_shared_body(&mut slots, shared(number), b"body"));
    slots.finish()
}

fn timeline() -> Vec<u8> {
    let run = |at, first| RunBlock {
        block: BlockRef { at, bytes: 900 },
        first,
        first_time_ms: 10 * first,
    };
    let entry = TimelineEntry {
        first: 3,
        end: End { last: 90, last_time_ms: 900, ..End::default() },
        count: 80,
        blocks: RunBlocks::Listed(vec![run(80, 3), run(2000, 50)]),
        ..TimelineEntry::default()
    };
    let mut slot = Vec::new();
    entry.encode(b"c/1", &mut slot);
    slot
}

fn table_page() -> Vec<u8> {
    let mut pages = Vec::new();
    let mut write = |page: &[u8]| {
        pages.push(page.to_vec());
        Ok::<_, ()>(BlockRef::default())
    };
    let mut table = TableWriter::default();
    for key in [b"a".as_slice(), b"b"] {
        let block = BlockRef { at: 80, bytes: 900 };
        table.add(Row { key, block, filter: b"f" }, &mut write).expect("it writes to memory");
    }
    table.finish(&mut write).expect("it writes to memory");
    pages.remove(0)
}

fn live() -> Vec<u8> {
    let segment = SegmentRecord {
        number: 8,
        store: StoreId(1),
        partition: 0,
        tier: 2,
        dropped: false,
        dead: false,
        data_bytes: 1 << 33,
        index_bytes: 5,
        timelines: 6,
        entries: 7,
        first_time_ms: 8,
        last_time_ms: 9,
        from: Lsn(10),
        to: Lsn(11),
        changed_to: Lsn(11),
        body_weight: 3,
        weight: 12,
        dead_weight: 13,
        half_expired_ms: 14,
        last_start_ms: 15,
        own_starts: true,
        copies: Copies::Twice,
        first_name: b"a".to_vec(),
        last_name: b"z".to_vec(),
    };
    let stores = vec![StoreRecord::new(StoreId(1), "messages", 7)];
    let live = Live { stores, segments: vec![segment.clone(), segment], ..Live::default() };
    manifest::encode(&live, header(FileKind::Manifest)).split_off(file_header::BYTES)
}

fn header(kind: FileKind) -> FileHeader {
    FileHeader {
        version: VERSION,
        kind,
        engine_id: ENGINE,
        writer_epoch: 1,
        number: 5,
        first: 0,
        second: 4096,
        third: 0,
    }
}

/// Valid input for each decoder.
fn good(target: &str) -> Vec<Vec<u8>> {
    match target {
        "codec" => vec![vec![0x80, 1, 5, 1, 2, 3, 4, 5]],
        "file_header" => vec![header(FileKind::Wal).encode().to_vec()],
        "wal_group" => vec![group()],
        "wal_records" => {
            vec![[3u32.to_le_bytes().as_slice(), &group()[group_header::BYTES..]].concat()]
        }
        "wal_tail" => vec![tail(false), tail(true)],
        "block" => {
            let raw = b"all work and no play ".repeat(20);
            [false, true]
                .map(|compress| encode(BlockKind::Runs, &raw, compress, Seed::NONE))
                .to_vec()
        }
        "slots" => vec![shared_bodies()],
        "run" => vec![runs()],
        "index" => vec![timeline(), RunBlock::default().key(), 7u32.to_le_bytes().to_vec()],
        "table" => vec![table_page()],
        "footer" => vec![Footer { timelines: 9, ..Footer::default() }.encode(Seed::NONE).to_vec()],
        "filter" => vec![[b"\x01a".as_slice(), &filter([b"a".as_slice()].into_iter())].concat()],
        "manifest" => vec![live()],
        other => panic!("{other} has no example: a target without one is noise only"),
    }
}

#[test]
fn decoders_keep_their_promises_for_good_bytes_changed_bytes_and_noise() {
    for (name, body) in decoders::ALL {
        let mut dice = Dice::new(name.len() as u64);
        let examples = good(name);
        examples.iter().for_each(|example| body(example));
        for _ in 0..rounds(2000) {
            examples.iter().for_each(|example| body(&changed(example, &mut dice)));
            body(&noise(&mut dice, 200));
        }
    }
}

#[test]
#[ignore = "writes the examples into fuzz/corpus, for a fuzzer to start from"]
#[allow(clippy::disallowed_methods, reason = "a corpus is files on the disk")]
fn write_the_corpus() {
    let corpus = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus");
    let calls = (0..20).map(|seed| noise(&mut Dice::new(seed), 240)).collect();
    let decoded = decoders::ALL.iter().map(|(name, _)| (*name, good(name)));
    for (name, examples) in decoded.chain([("operations", calls)]) {
        std::fs::create_dir_all(corpus.join(name)).expect("a folder");
        for (number, example) in examples.into_iter().enumerate() {
            std::fs::write(corpus.join(name).join(format!("example-{number}")), example)
                .expect("a file");
        }
    }
}

#[test]
fn an_engine_answers_as_a_plain_map_does() {
    for seed in 0..rounds(400) {
        operations::operations(&noise(&mut Dice::new(seed), 240));
    }
}

#[test]
fn each_body_has_a_target_and_each_target_a_body() {
    let names = decoders::ALL.iter().map(|(name, _)| *name);
    let targets = include_str!("../../../fuzz/Cargo.toml");
    let mut listed: Vec<&str> = targets
        .split("[[bin]]\nname = \"")
        .skip(1)
        .map(|rest| rest.split('"').next().unwrap_or_default())
        .collect();
    let mut bodies: Vec<&str> = names.chain(["operations", "requests"]).collect();
    listed.sort_unstable();
    bodies.sort_unstable();
    assert_eq!(listed, bodies);
}
