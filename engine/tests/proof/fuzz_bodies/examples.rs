//! Examples for each decoder, made by the encoders. They are the seeds of the fuzz targets, too.

use std::collections::BTreeMap;

use strandline::format::block::{BlockKind, BlockRef, Compression, encode};
use strandline::format::checksum::{Seed, crc};
use strandline::format::filter::filter;
use strandline::format::header::{FileHeader, FileKind, VERSION, file_header};
use strandline::format::ids::{IdHashes, IdRecord};
use strandline::format::index::{Edited, End, Floor, Footer, RunBlock, RunBlocks, TimelineEntry};
use strandline::format::list::{EncodedList, NewList};
use strandline::format::manifest::{self, Copies, Live, SegmentRecord, StoreRecord};
use strandline::format::run::{CommitPlace, RunWriter, SharedBody, Times, put_shared_body};
use strandline::format::slots::SlotsWriter;
use strandline::format::table::{Row, TableWriter};
use strandline::format::wal::{GroupWriter, NewRecord, TailWriter, group_header};
use strandline::{Lsn, StoreId, TimelineRef};

use super::decoders::ENGINE;

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

/// A tail with every kind of operation but a plain append.
fn tail_of_changes() -> Vec<u8> {
    let timeline = TimelineRef { store: StoreId(300), name: b"c/1" };
    let mut tail = TailWriter::default();
    tail.body(b"\0\0\0\0\0\0\0\0stamped");
    tail.append((true, false), 3_600_000, 1);
    tail.timeline(timeline);
    tail.body(b"edited");
    tail.edit(timeline, 7);
    tail.edit(TimelineRef { name: b"", ..timeline }, 4096);
    tail.trim(timeline, Floor { lowest: 7, start_ms: 8, until_ms: 0, trimmed_to: 6 });
    tail.remove(timeline, &BTreeMap::from([(8, 9), (300, 300)]));
    tail.id(timeline, b"an id", IdHashes { bodies: 1, targets: u64::MAX });
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
        run.place(30, CommitPlace(4096));
        run.elsewhere(30, times(1500, 80, 0));
        run.finish(name, &mut block);
    }
    block
}

fn shared_bodies() -> Vec<u8> {
    let mut slots = SlotsWriter::default();
    let shared = |time_ms| SharedBody { time_ms, ..SharedBody::default() };
    (0..3).for_each(|number| put_shared_body(&mut slots, shared(number), b"body"));
    let placed = SharedBody { place: Some(CommitPlace(4096)), ..shared(3) };
    for expire_at_ms in [0, 9000] {
        put_shared_body(&mut slots, SharedBody { expire_at_ms, ..placed }, b"body");
    }
    slots.finish()
}

/// Entries of a timeline with two blocks, and of one with everything that an entry can have.
fn timelines() -> [Vec<u8>; 2] {
    let run = |at, first| RunBlock {
        block: BlockRef { at, bytes: 900 },
        first,
        first_time_ms: 10 * first,
    };
    let listed = TimelineEntry {
        first: 3,
        end: End { last: 90, last_time_ms: 900, ..End::default() },
        count: 80,
        last_start_ms: 900,
        blocks: RunBlocks::Listed(vec![run(80, 3), run(2000, 50)]),
        ..TimelineEntry::default()
    };
    let floor = Floor { lowest: 3, start_ms: 700, until_ms: 2000, trimmed_to: 2 };
    let edited = |sequence, body_bytes| Edited {
        sequence,
        body: 1,
        body_bytes: Some(body_bytes),
        at: CommitPlace(4096),
    };
    let whole = TimelineEntry {
        end: End { floor, ..listed.end },
        last_lost: 80,
        body_bytes: 9000,
        first_start_ms: 70,
        last_start_ms: 800,
        own_expiry: true,
        run_at: 300,
        blocks: RunBlocks::Table(BlockRef { at: 5000, bytes: 900 }),
        removed: [(1, 1), (5, 300)].into(),
        edited: [edited(2, 4), edited(6, 300)].into(),
        ..listed.clone()
    };
    [listed, whole].map(|entry| {
        let mut slot = Vec::new();
        entry.encode(b"c/1", &mut slot);
        slot
    })
}

fn ids() -> [Vec<u8>; 2] {
    [5, 3].map(|start_ms| {
        let hashes = IdHashes { bodies: 1, targets: u64::MAX };
        let record = IdRecord { hashes, time_ms: 5, start_ms, sequences: [7, 1, 300].into() };
        let mut slot = Vec::new();
        record.encode(b"c/1", b"an id", &mut slot);
        slot
    })
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

/// Valid input for each decoder, as its encoder writes it.
pub fn of_target(target: &str) -> Vec<Vec<u8>> {
    match target {
        "codec" => vec![vec![0x80, 1, 5, 1, 2, 3, 4, 5]],
        "file_header" => vec![header(FileKind::Wal).encode().to_vec()],
        "wal_group" => vec![group()],
        "wal_records" => {
            vec![[3u32.to_le_bytes().as_slice(), &group()[group_header::BYTES..]].concat()]
        }
        "wal_tail" => vec![tail(false), tail(true), tail_of_changes()],
        "block" => {
            let raw = b"all work and no play ".repeat(20);
            [Compression::None, Compression::Zstd, Compression::Lz4]
                .map(|compression| encode(BlockKind::Runs, &raw, compression, Seed::NONE))
                .to_vec()
        }
        "slots" => vec![shared_bodies()],
        "run" => vec![runs()],
        "index" => {
            let keys = vec![RunBlock::default().key(), 7u32.to_le_bytes().to_vec()];
            [timelines().to_vec(), ids().to_vec(), keys].concat()
        }
        "table" => vec![table_page()],
        "footer" => vec![Footer { timelines: 9, ..Footer::default() }.encode(Seed::NONE).to_vec()],
        "filter" => vec![[b"\x01a".as_slice(), &filter([b"a".as_slice()].into_iter())].concat()],
        "manifest" => vec![live()],
        other => panic!("{other} has no example: a target without one is noise only"),
    }
}
