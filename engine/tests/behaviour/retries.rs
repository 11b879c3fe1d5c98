//! Retries with a client's id (P12), conditions and chosen sequences, over flush, merge and
//! reopening.

use std::collections::HashMap;
use std::time::Duration;

use strandline::vfs::simulated::{Cut, Dice, Model, SimulatedDisk};
use strandline::{Batch, Durability, Engine, Error, Limit, Receipt, Result, Store};

use crate::two_stores;
use crate::world::House;

fn open(dir: &tempfile::TempDir) -> (Engine, Store) {
    let engine = Engine::open(dir.path(), two_stores::options()).expect("opens");
    let sync = engine.store("sync").expect("is there");
    (engine, sync)
}

fn commit(engine: &Engine, batch: Batch) -> Result<Receipt> {
    engine.commit(batch)
}

#[test]
fn the_same_ids_in_many_timelines_by_many_threads_across_flushes_and_reopening() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut used: Vec<HashMap<(u64, u64), (u64, u64)>> = vec![HashMap::new(); 3];
    for life in 0..3 {
        let (engine, sync) = open(&dir);
        std::thread::scope(|scope| {
            for (thread, used) in used.iter_mut().enumerate() {
                let (engine, sync) = (&engine, &sync);
                scope.spawn(move || {
                    for round in 0..200u64 {
                        let (key, id, body) =
                            (round * 7 % 3, round * 13 % (8 + 8 * life), round % 5);
                        if round % 67 == 5 * thread as u64 {
                            engine.flush().expect("flushes");
                        }
                        let name = format!("thread {thread} key {key}");
                        let batch = Batch::new().append(sync, name.as_bytes(), [body as u8]);
                        let got = commit(engine, batch.id(format!("id {id}").as_bytes()));
                        match (used.get(&(key, id)), got) {
                            (None, Ok(receipt)) => {
                                assert!(!receipt.duplicate);
                                used.insert((key, id), (body, receipt.sequences[0]));
                            }
                            (Some(first), Ok(receipt)) => {
                                assert!(receipt.duplicate);
                                assert_eq!(*first, (body, receipt.sequences[0]));
                            }
                            (
                                Some((first, sequence)),
                                Err(Error::IdConflict { sequence: named }),
                            ) => {
                                assert_ne!(*first, body);
                                assert_eq!(*sequence, named);
                            }
                            (known, got) => panic!("{name} id {id} body {body}: {known:?} {got:?}"),
                        }
                    }
                });
            }
        });
        engine.compact().expect("merges");
        if life == 1 {
            engine.close().expect("closes");
        }
    }
}

#[test]
fn a_retried_fan_out_returns_all_sequences_and_other_targets_are_a_conflict() {
    let dir = tempfile::tempdir().expect("a directory");
    let (engine, sync) = open(&dir);
    sync.append(b"b", b"before").expect("appends");
    let fan_out = |targets: &[&'static [u8]]| {
        let targets: Vec<(&Store, &[u8])> = targets.iter().map(|name| (&sync, *name)).collect();
        commit(&engine, Batch::new().fan_out(b"x", targets).id(b"one"))
    };
    let first = fan_out(&[b"a", b"b", b"b"]).expect("commits");
    assert_eq!((first.sequences.as_slice(), first.duplicate), ([1, 2, 3].as_slice(), false));
    let again = fan_out(&[b"a", b"b", b"b"]).expect("is answered");
    assert_eq!((again.sequences.as_slice(), again.duplicate), ([1, 2, 3].as_slice(), true));
    assert!(matches!(fan_out(&[b"a", b"b"]), Err(Error::IdConflict { sequence: 1 })));
    assert_eq!(sync.info(b"b").expect("reads").last, 3);
}

#[test]
fn retries_refusals_and_flushes_count_as_no_batch_and_wake_no_watcher() {
    let dir = tempfile::tempdir().expect("a directory");
    let (engine, sync) = open(&dir);
    let append = || Batch::new().append(&sync, b"a", b"hello").id(b"one");
    commit(&engine, append()).expect("commits");
    let watcher = engine.watcher();
    watcher.watch(&sync, b"a", 7).expect("watches");
    assert!(commit(&engine, append()).expect("is known").duplicate);
    assert!(commit(&engine, Batch::new().append(&sync, b"a", b"x").if_last(9)).is_err());
    engine.flush().expect("flushes");
    let stats = engine.stats();
    let figures = ["batches", "entries", "body_bytes"].map(|name| stats.get(name));
    assert_eq!(figures, [Some(1), Some(1), Some(5)]);
    assert!(watcher.ready().is_empty());
}

#[test]
fn conditions_hold_or_nothing_is_written() {
    let dir = tempfile::tempdir().expect("a directory");
    let (engine, sync) = open(&dir);
    let append = || Batch::new().append(&sync, b"a", b"x");
    assert!(matches!(
        commit(&engine, append().if_last(1)),
        Err(Error::LastSequence { last: 0, .. })
    ));
    assert_eq!(commit(&engine, append().if_last(0)).expect("holds").sequences, [1]);
    assert_eq!(commit(&engine, append().sequence(100)).expect("is above").sequences, [100]);
    assert!(matches!(
        commit(&engine, append().sequence(100)),
        Err(Error::SequenceOrder { last: 100 })
    ));
    drop((engine, sync));
    let (engine, sync) = open(&dir);
    let sequences = |sync: &Store| {
        let page = sync.range(b"a", .., Limit::entries(10)).expect("reads");
        page.entries.iter().map(|entry| entry.sequence).collect::<Vec<_>>()
    };
    assert_eq!(sequences(&sync), [1, 100], "a hole that was chosen is no damage");
    engine.flush().expect("flushes");
    assert_eq!(sync.append(b"a", b"y").expect("appends"), 101);
    assert_eq!(sequences(&sync), [1, 100, 101]);
}

#[test]
fn an_id_is_forgotten_after_its_window() {
    let dir = tempfile::tempdir().expect("a directory");
    let options = two_stores::options().id_window(Duration::from_millis(1));
    let engine = Engine::open(dir.path(), options).expect("opens");
    let sync = engine.store("sync").expect("is there");
    let append = |body: &[u8]| commit(&engine, Batch::new().append(&sync, b"a", body).id(b"id"));
    let first = append(b"x").expect("commits");
    while append(b"other").is_err() {
        // The clock moves automatically.
        std::thread::yield_now();
    }
    assert_eq!((first.sequences, sync.info(b"a").expect("reads").last), (vec![1].into(), 2));
}

#[test]
fn a_retry_that_asks_for_the_disk_is_answered_when_its_append_is_durable() {
    let house = House::with(two_stores::options());
    let engine = house.engine();
    let store = engine.store("messages").expect("is there");
    let batch =
        |durability| Batch::new().append(&store, b"t", b"once").id(b"id").durability(durability);
    assert!(!commit(&engine, batch(Durability::Os)).expect("commits").duplicate);
    assert!(commit(&engine, batch(Durability::Disk)).expect("is known").duplicate);
    let mut model = Model::default();
    house.disk.log().iter().for_each(|op| model.apply(op, None));
    let disk = SimulatedDisk::from_image(&model.power_cut(Cut::Lost, &mut Dice::new(1)));
    let after = House { disk, ..House::with(two_stores::options()) };
    let last = after.engine().store("messages").expect("is there").last(b"t").expect("reads");
    assert_eq!(last.map(|entry| entry.body), Some("once".into()));
}

/// A batch of several bodies and an edit. `texts` are the second body and the edit's.
fn several(store: &Store, id: &[u8], texts: [&[u8]; 2]) -> Batch {
    let users = [(store, b"u/1".as_slice()), (store, b"u/2")];
    Batch::new()
        .append(store, b"room", b"first")
        .fan_out(texts[0], users)
        .edit(store, b"edited", 1, texts[1])
        .id(id)
}

/// Batches that differ from that of [`several`] in one thing each, with its id.
fn others(store: &Store) -> Vec<(&'static str, Batch)> {
    let same = || several(store, b"id", [b"second", b"new"]);
    let first = || Batch::new().append(store, b"room", b"first");
    let second = |batch: Batch, users: [&'static [u8]; 2]| {
        batch.fan_out(b"second", users.map(|user| (store, user)))
    };
    let edit =
        |batch: Batch, name: &[u8], sequence| batch.edit(store, name, sequence, b"new").id(b"id");
    let users: [&[u8]; 2] = [b"u/1", b"u/2"];
    let moved = first().append(store, b"u/1", b"first").append(store, b"u/2", b"second");
    vec![
        ("another second body", several(store, b"id", [b"other", b"new"])),
        ("another edit", several(store, b"id", [b"second", b"other"])),
        ("one more edit", same().edit(store, b"edited", 1, b"newer")),
        ("one more append", same().append(store, b"room", b"third")),
        ("the first append alone", first().id(b"id")),
        ("no edit", second(first(), users).id(b"id")),
        ("an edit of another timeline", edit(second(first(), users), b"room", 1)),
        ("an edit of another entry", edit(second(first(), users), b"edited", 2)),
        ("other receivers", edit(second(first(), [b"u/1", b"u/3"]), b"edited", 1)),
        ("receivers in another order", edit(second(first(), [b"u/2", b"u/1"]), b"edited", 1)),
        ("the same names and bodies otherwise combined", edit(moved, b"edited", 1)),
    ]
}

#[test]
fn an_id_stands_for_the_whole_batch_across_flushes_and_reopening() {
    let dir = tempfile::tempdir().expect("a directory");
    for life in 0..3 {
        let (engine, store) = open(&dir);
        if life == 0 {
            store.append(b"edited", b"old").expect("appends");
            assert!(
                !commit(&engine, several(&store, b"id", [b"second", b"new"]))
                    .expect("commits")
                    .duplicate
            );
        }
        let again = || {
            let receipt =
                commit(&engine, several(&store, b"id", [b"second", b"new"])).expect("is known");
            assert_eq!((receipt.duplicate, receipt.sequences), (true, vec![1, 1, 1].into()));
        };
        let conflict = |what: &str, batch: Batch| {
            let got = commit(&engine, batch);
            assert!(
                matches!(got, Err(Error::IdConflict { sequence: 1 })),
                "{what} in life {life}: {got:?}"
            );
        };
        again();
        // Neither the lifetime of the entries nor the durability that the client waits for is part
        // of the request's identity.
        let shorter = Batch::new().lifetime(two_stores::ttl(1000)).durability(Durability::Os);
        let shorter = shorter
            .append(&store, b"room", b"first")
            .fan_out(b"second", [(&store, b"u/1".as_slice()), (&store, b"u/2")]);
        let shorter = shorter.edit(&store, b"edited", 1, b"new").id(b"id");
        assert!(commit(&engine, shorter).expect("is known").duplicate);

        others(&store).into_iter().for_each(|(what, batch)| conflict(what, batch));
        assert_eq!(
            [b"room".as_slice(), b"u/1", b"u/2"].map(|name| store.info(name).expect("reads").last),
            [1, 1, 1],
            "of a conflict nothing is kept"
        );
        assert_eq!(store.last(b"edited").expect("reads").expect("is there").body, "new");
        if life == 0 {
            engine.flush().expect("flushes");
            again();
            conflict("another second body", several(&store, b"id", [b"other", b"new"]));
        }
        if life == 1 {
            engine.compact().expect("merges");
            engine.close().expect("closes");
        }
    }
}

#[test]
fn bodies_in_another_order_are_another_batch() {
    let dir = tempfile::tempdir().expect("a directory");
    let (engine, store) = open(&dir);
    let batch = |bodies: [&[u8]; 3]| {
        bodies.iter().fold(Batch::new(), |batch, body| batch.append(&store, b"t", body)).id(b"id")
    };
    assert_eq!(commit(&engine, batch([b"a", b"b", b"c"])).expect("commits").sequences, [1, 2, 3]);
    assert!(commit(&engine, batch([b"a", b"b", b"c"])).expect("is known").duplicate);
    let others: [[&[u8]; 3]; 2] = [[b"a", b"c", b"b"], [b"a", b"b", b"b"]];
    for bodies in others {
        let got = commit(&engine, batch(bodies));
        assert!(matches!(got, Err(Error::IdConflict { sequence: 1 })), "{got:?}");
    }
    let split = Batch::new()
        .append(&store, b"t", b"ab")
        .append(&store, b"t", b"")
        .append(&store, b"t", b"c");
    assert!(matches!(commit(&engine, split.id(b"id")), Err(Error::IdConflict { sequence: 1 })));
}
