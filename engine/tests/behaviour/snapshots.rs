//! Snapshots: one moment of all stores (P3).
//!
//! Checked here:
//!  * a snapshot shows each batch completely, while other threads commit, seal and flush;
//!  * the reads of a snapshot stay the same, whatever is appended, edited, deleted, trimmed,
//!    dropped, flushed or merged later;
//!  * snapshots that keep too much memory are revoked, the oldest first.
//!
//! The model (`model`) tests random operations with snapshots among them.

use std::sync::atomic::{AtomicBool, Ordering};

use strandline::{Batch, Durability, Engine, Error, Limit, Options, Snapshot, Store, Trim};

use crate::two_stores;

const NAMES: usize = 40;

fn name(number: usize) -> Vec<u8> {
    format!("t/{number}").into_bytes()
}

/// Small memtables, so that many are sealed.
fn small() -> Options {
    two_stores::options().memory_budget_bytes(1).wal_file_bytes(64 * 1024)
}

/// Every batch appends to all timelines and replaces the first entry of each by its own number: in
/// a snapshot, that number is the last sequence of each timeline.
#[test]
fn a_snapshot_shows_each_batch_as_a_whole() {
    const BATCHES: u64 = 1500;
    let dir = tempfile::tempdir().expect("a directory");
    let engine = Engine::open(dir.path(), small()).expect("opens");
    let store = engine.create_store("store", None).expect("is new");
    let is_over = AtomicBool::new(false);
    let commit = |number: u64| {
        let body = vec![b'x'; 600];
        let names: Vec<Vec<u8>> = (0..NAMES).map(name).collect();
        let targets = names.iter().map(|name| (&store, name.as_slice()));
        let batch = Batch::new().durability(Durability::Os).fan_out(&body, targets);
        let batch = names
            .iter()
            .fold(batch, |batch, name| batch.edit(&store, name, 1, number.to_le_bytes()));
        engine.submit(batch).expect("queued").wait().expect("committed");
    };
    commit(1);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            (2..=BATCHES).for_each(commit);
            is_over.store(true, Ordering::SeqCst);
        });
        for offset in [0, NAMES / 2] {
            let (store, engine, is_over) = (&store, &engine, &is_over);
            scope.spawn(move || {
                while !is_over.load(Ordering::SeqCst) {
                    let snapshot = engine.snapshot();
                    let at = store.at(&snapshot);
                    let seen: Result<Vec<(u64, u64)>, Error> = (0..NAMES)
                        .map(|number| {
                            let name = name((number + offset) % NAMES);
                            let first = at.get(&name, 1)?.expect("it is there from the start");
                            let edited = first.body[..8].try_into().expect("eight bytes");
                            Ok((at.end(&name)?.0, u64::from_le_bytes(edited)))
                        })
                        .collect();
                    match seen {
                        Ok(seen) => {
                            let one = seen[0];
                            assert_eq!(one.0, one.1, "the end and the edit are of one batch");
                            assert!(seen.iter().all(|other| *other == one), "{seen:?}");
                        }
                        Err(Error::SnapshotTooOld) => {}
                        Err(error) => panic!("a read failed: {error}"),
                    }
                }
            });
        }
    });
    assert_eq!(store.end(name(0)).expect("reads").0, BATCHES);
}

/// All results of reads of some timelines.
fn all_of(store: &Store, names: &[&[u8]]) -> String {
    let mut text = format!("{:?}\n", store.list(b"", None, 100).expect("lists"));
    for name in names {
        let up = store.range(name, .., Limit::entries(1000)).expect("reads");
        let down = store.range_back(name, .., Limit::entries(1000)).expect("reads");
        let after = store.read_after(name, 2, Limit::entries(3)).expect("reads");
        let (info, end) = (store.info(name).expect("reads"), store.end(name).expect("reads"));
        let last = store.last(name).expect("reads");
        let at = store.sequence_at(name, 1).expect("reads");
        let lines = format!("{up:?}\n{down:?}\n{after:?}\n{info:?}\n{end:?}\n{last:?}\n{at}\n");
        text.push_str(&lines);
    }
    text
}

#[test]
fn whatever_happens_later_the_reads_of_a_snapshot_stay_the_same() {
    let dir = tempfile::tempdir().expect("a directory");
    let engine = Engine::open(dir.path(), two_stores::options()).expect("opens");
    let store = engine.create_store("store", None).expect("is new");
    let names: [&[u8]; 5] = [b"a", b"b", b"c", b"d", b"e"];
    let shared = |body: &[u8]| {
        let targets = names.iter().take(4).map(|name| (&store, *name));
        let batch = Batch::new().fan_out(body, targets);
        engine.submit(batch).expect("queued").wait().expect("committed")
    };
    let mut snapshots: Vec<(Snapshot, String)> = Vec::new();
    let steps: [&dyn Fn(); 12] = [
        &|| drop((0..5).map(|number| shared(&[number])).collect::<Vec<_>>()),
        &|| engine.flush().expect("flushes"),
        &|| drop(shared(b"in memory")),
        &|| assert_eq!(store.delete(b"a", &[1, 3, 6]).expect("deletes"), 3),
        &|| assert!(store.edit(b"b", 6, b"another body").expect("edits")),
        &|| assert!(store.edit(b"b", 6, b"and another").expect("edits")),
        &|| {
            let key = store.body_of(b"c", 6).expect("reads").expect("it is shared");
            let batch = Batch::new().edit_body(key, [&store], b"for all");
            engine.submit(batch).expect("queued").wait().expect("committed");
        },
        &|| assert_eq!(store.trim(b"c", Trim::Before(4)).expect("trims"), 3),
        &|| assert!(store.drop_timeline(b"d").expect("drops")),
        &|| assert_eq!(store.append(b"d", b"again").expect("appends"), 7),
        &|| assert_eq!(store.delete(b"a", &[2, 4]).expect("deletes"), 2),
        &|| engine.compact().expect("merges"),
    ];
    for step in steps {
        step();
        assert_eq!(store.append(b"e", b"e").expect("appends"), snapshots.len() as u64 + 1);
        let snapshot = engine.snapshot();
        let before = all_of(&store.at(&snapshot), &names);
        assert_eq!(before, all_of(&store, &names), "a new snapshot shows what is there now");
        snapshots.push((snapshot, before));
        for (number, (snapshot, before)) in snapshots.iter().enumerate() {
            let now = all_of(&store.at(snapshot), &names);
            let other = now.lines().zip(before.lines()).find(|(now, before)| now != before);
            assert_eq!(other, None, "snapshot {number}");
        }
    }
}

#[test]
fn snapshots_that_keep_too_much_memory_are_revoked_oldest_first() {
    let dir = tempfile::tempdir().expect("a directory");
    let engine = Engine::open(dir.path(), small()).expect("opens");
    let store = engine.create_store("store", None).expect("is new");
    let fill = || {
        for _ in 0..20 {
            store.append(b"t", vec![b'x'; 100_000]).expect("appends");
        }
        engine.flush().expect("flushes");
    };
    store.append(b"t", b"first").expect("appends");
    let oldest = engine.snapshot();
    let mut snapshots = Vec::new();
    let is_revoked =
        |snapshot: &Snapshot| matches!(store.at(snapshot).end(b"t"), Err(Error::SnapshotTooOld));
    for _ in 0..100 {
        fill();
        snapshots.push(engine.snapshot());
        if is_revoked(&oldest) {
            break;
        }
    }
    assert!(is_revoked(&oldest), "2 MB after 2 MB stay in memory");
    let newest = snapshots.last().expect("there are some");
    let end = |store: &Store| store.end(b"t").expect("reads");
    assert_eq!(end(&store.at(newest)), end(&store), "the newest is not revoked");
    let revoked = snapshots.iter().map(is_revoked).collect::<Vec<_>>();
    assert!(revoked.is_sorted_by(|older, newer| older >= newer), "{revoked:?}");
}
