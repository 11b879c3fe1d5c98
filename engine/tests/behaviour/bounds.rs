//! Bounds that hold whatever the number of segments and of ids: open files, decoded blocks, the
//! cost of a forgotten id.

use std::collections::BTreeMap;
use std::time::Duration;

use strandline::vfs::simulated::{Dice, Op};
use strandline::{Batch, Durability, Engine, Store};

use crate::two_stores;
use crate::world::{House, figure};

const WINDOW_MS: u64 = 3_600_000;
const BUDGET_BYTES: usize = 1024 * 1024;

fn house() -> House {
    House::with(
        two_stores::options()
            .memory_budget_bytes(BUDGET_BYTES)
            .wal_file_bytes(64 * 1024)
            .id_window(Duration::from_millis(WINDOW_MS)),
    )
}

#[test]
fn more_segments_than_may_be_open_are_all_read() {
    let house = house();
    let engine = house.engine();
    let stores: Vec<Store> = (0..4)
        .map(|store| {
            engine.create_store(&format!("s{store}"), two_stores::ttl(64_000)).expect("is made")
        })
        .collect();
    // One partition per second, and none of them expires meanwhile.
    for second in 0..60u64 {
        for store in &stores {
            store.append(format!("t{second}").as_bytes(), second.to_le_bytes()).expect("appends");
        }
        engine.flush().expect("flushes");
        house.clock.pass(1000);
    }
    assert!(figure(&engine, "segments") >= 240);
    for _ in 0..2 {
        for second in 0..60u64 {
            for store in &stores {
                let last =
                    store.last(format!("t{second}").as_bytes()).expect("reads").expect("is there");
                assert_eq!(last.body, second.to_le_bytes()[..]);
            }
        }
    }
    assert!(figure(&engine, "open_segment_files") <= 256);
}

#[test]
fn blocks_and_memtables_stay_within_the_budget() {
    let house = house();
    let engine = house.engine();
    let store = engine.store("messages").expect("is there");
    for round in 0..200u64 {
        let batch = (0..100).fold(Batch::new(), |batch, timeline| {
            batch.append(&store, format!("t{timeline}").as_bytes(), [round as u8; 200])
        });
        engine.submit(batch).expect("queued").wait().expect("committed");
        store.last(format!("t{}", round % 100).as_bytes()).expect("reads");
        let taken = figure(&engine, "memtable_bytes") + figure(&engine, "cache_bytes");
        // A group may overfill the active memtable.
        let most = BUDGET_BYTES as u64 + 100 * 1024;
        assert!(taken <= most, "{taken} bytes in round {round}");
    }
}

#[test]
fn an_id_past_its_window_costs_no_read_and_leaves_the_disk_with_the_next_merge() {
    let house = house();
    let append = |engine: &Engine, number: u64, body: &[u8]| {
        let store = engine.store("messages").expect("is there");
        // Pages of ids are compressed, and these do not become shorter.
        let mut dice = Dice::new(number);
        let id: Vec<u8> = (0..64).map(|_| dice.below(256) as u8).collect();
        let batch = Batch::new().append(&store, b"c/1", body).id(id);
        engine.submit(batch).expect("queued").wait().expect("committed")
    };
    let engine = house.engine();
    for number in 0..2000 {
        assert!(!append(&engine, number, b"body").duplicate);
    }
    engine.compact().expect("merges");
    engine.close().expect("closes");
    let with_ids = house.bytes();

    house.clock.pass(WINDOW_MS - 1);
    let engine = house.engine();
    let receipt = append(&engine, 700, b"body");
    assert!(receipt.duplicate);
    assert_eq!(receipt.sequences, [701]);
    let reads = figure(&engine, "block_reads");
    // The root of the id table is in memory; one page of ids is read. In addition, the read that
    // finds the timeline's end.
    assert!(reads <= 2, "{reads} reads for a retry");
    drop(engine);

    house.clock.pass(1);
    let engine = house.engine();
    let receipt = append(&engine, 700, b"body");
    assert!(!receipt.duplicate, "the window is over");
    let reads = figure(&engine, "block_reads");
    assert!(reads <= 1, "{reads} reads for an id that is forgotten");
    engine.compact().expect("merges");
    engine.close().expect("closes");
    assert!(house.bytes() + 2000 * 50 < with_ids, "{} bytes after {with_ids}", house.bytes());
}

#[test]
fn preparing_a_batch_reads_nothing_and_tells_whether_the_commit_would() {
    let house = house();
    let engine = house.engine();
    let store = engine.store("messages").expect("is there");
    // More than one page of timelines and of ids.
    for timeline in 0..2000u64 {
        let name = timeline.to_le_bytes();
        let batch = Batch::new().append(&store, name, b"body").id(name);
        engine.commit(batch).expect("commits");
    }
    engine.compact().expect("merges");
    engine.close().expect("closes");

    let engine = house.engine();
    let store = engine.store("messages").expect("is there");
    let at_open = figure(&engine, "block_reads");
    let append = |timeline: u64| Batch::new().append(&store, timeline.to_le_bytes(), b"body");
    let is_cold = |batch: Batch| engine.prepare(batch).expect("a good batch").is_cold();
    assert!(is_cold(append(7)), "its end is on the disk");
    let ids = (0..200u64).map(|id| append(1 << 40).id(id.to_le_bytes()));
    assert!(!is_cold(append(1 << 40)), "the filter excludes it");
    // A filter is wrong for about one of a hundred.
    let cold = ids.map(is_cold).filter(|cold| *cold).count();
    assert!(cold <= 10, "{cold} of 200 ids");
    assert_eq!(figure(&engine, "block_reads"), at_open, "nothing was read");

    let mut submission = engine.prepare(append(7).id(7u64.to_le_bytes())).expect("a good batch");
    assert!(submission.is_cold());
    engine.look_up(&mut submission).expect("looks up");
    assert!(!submission.is_cold());
    assert!(figure(&engine, "block_reads") > at_open);
    let reads = figure(&engine, "block_reads");
    assert!(!is_cold(append(7)), "its page is in the cache");
    let commit = |submission| {
        let tickets = engine.submit_prepared([Ok(submission)]);
        tickets.into_iter().next().expect("one ticket").and_then(strandline::Ticket::wait)
    };
    let receipt = commit(submission).expect("commits");
    assert!(receipt.duplicate);
    assert_eq!(receipt.sequences, [1]);
    assert_eq!(figure(&engine, "block_reads"), reads, "the commit reads nothing");

    // A commit finds what nobody looked up.
    let cold = engine.prepare(append(1999)).expect("a good batch");
    assert_eq!(commit(cold).expect("commits").sequences, [2]);
    assert!(!is_cold(append(1999)), "it is in the memtable");
}

#[test]
fn a_timeline_with_removed_entries_is_counted_piece_by_piece() {
    let house = house();
    let engine = house.engine();
    let store = engine.store("messages").expect("is there");
    let engine_holds = || {
        let info = store.info(b"t").expect("reads");
        (info.first, info.last, info.count, info.body_bytes, info.first_time_ms, info.last_time_ms)
    };
    for number in 0..3000 {
        store.append(b"t", format!("{number:04}").as_bytes()).expect("appends");
    }
    house.clock.pass(1000);
    for _ in 0..2 {
        store.append(b"t", vec![7; 1024 * 1024]).expect("appends");
    }
    store.append(b"t", b"last").expect("appends");
    let before = engine_holds();
    store.delete(b"t", &[1500]).expect("deletes");
    let without_one = (before.0, before.1, before.2 - 1, before.3 - 4, before.4, before.5);
    assert_eq!(without_one.2, 3002);
    assert_eq!(engine_holds(), without_one);
    engine.flush().expect("flushes");
    assert_eq!(engine_holds(), without_one);
}

#[test]
fn nothing_is_merged_after_a_close() {
    let house = house();
    let engine = house.engine();
    let store = engine.store("messages").expect("is there");
    for _ in 0..3 {
        store.append(b"t", b"x").expect("appends");
        engine.flush().expect("flushes");
    }
    engine.close().expect("closes");
    let calls = house.disk.log_len();
    assert!(matches!(engine.compact(), Err(strandline::Error::Closed { .. })));
    assert_eq!(house.disk.log_len(), calls, "nothing was done to the disk");
}

#[test]
fn no_zeros_are_written_ahead_of_few_appends() {
    const APPENDS: u64 = 40;
    let prepared = |durability| {
        let house = House::with(house().options.wal_file_bytes(64 * 1024 * 1024));
        let engine = house.engine();
        let store = engine.store("messages").expect("is there");
        for number in 0..APPENDS {
            let batch = Batch::new().append(&store, b"t", number.to_le_bytes());
            engine.commit(batch.durability(durability)).expect("commits");
            // The log file is left nearly empty.
            engine.flush().expect("flushes");
        }
        figure(&engine, "wal_prepared_bytes")
    };
    assert_eq!(prepared(Durability::Os), 0);
    assert_eq!(prepared(Durability::Disk), 0);
}

/// The largest number of bytes that were written to a file between two of its syncs.
fn most_unsynced_bytes(log: &[Op]) -> usize {
    let (mut unsynced, mut most) = (BTreeMap::<u64, usize>::new(), 0);
    for op in log {
        match op {
            Op::Write { file, bytes, .. } => {
                let held = unsynced.entry(*file).or_default();
                *held += bytes.len();
                most = most.max(*held);
            }
            Op::Sync { file, .. } => {
                unsynced.remove(file);
            }
            _ => {}
        }
    }
    most
}

#[test]
fn a_flush_and_a_merge_sync_their_files_in_small_pieces() {
    const BYTES: usize = 6 * 1024 * 1024;
    let house = House::with(two_stores::options().memory_budget_bytes(64 * 1024 * 1024));
    let engine = house.engine();
    let store = engine.store("messages").expect("is there");
    let mut dice = Dice::new(1);
    let body: Vec<u8> = (0..60_000).map(|_| dice.below(256) as u8).collect();
    let written = |op: &Op| if let Op::Write { bytes, .. } = op { bytes.len() } else { 0 };
    for _ in 0..8 {
        for append in 0..BYTES / 60_000 {
            store.append(format!("t{}", append % 10).as_bytes(), &body).expect("appends");
        }
        let before = house.disk.log_len();
        engine.flush().expect("flushes");
        let log = house.disk.log();
        assert!(log[before..].iter().map(written).sum::<usize>() > BYTES * 3 / 4);
        let most = most_unsynced_bytes(&log[before..]);
        assert!(most < 2 * 1024 * 1024, "{most} bytes in one sync of a flush");
    }
    let before = house.disk.log_len();
    engine.compact().expect("merges");
    let log = house.disk.log();
    assert!(log[before..].iter().map(written).sum::<usize>() > 4 * BYTES);
    let most = most_unsynced_bytes(&log[before..]);
    assert!(most < 2 * 1024 * 1024, "{most} bytes in one sync of a merge");
}
