//! A store handle is valid for the engine that returned it, and for no other: store ids repeat in
//! every engine.

use strandline::{Batch, Engine, Error, Limit, Store};

use crate::two_stores;

fn open(dir: &tempfile::TempDir) -> (Engine, Store) {
    let engine = Engine::open(dir.path(), two_stores::options()).expect("opens");
    let store = engine.store("messages").expect("it is there");
    (engine, store)
}

/// Whether it is refused as a wrong call, with a text that says what to do.
fn is_refused<T>(outcome: strandline::Result<T>, advice: &str) -> bool {
    matches!(outcome, Err(Error::Invalid { what }) if what.contains(advice))
}

const GET_ITS_OWN: &str = "get it from this engine by Engine::store";

#[test]
fn a_store_of_another_engine_is_refused_by_every_part_of_a_batch() {
    let (here, there) =
        (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
    let ((engine, own), (other, foreign)) = (open(&here), open(&there));
    own.append(b"t", b"original").expect("appends");
    foreign.append(b"t", b"original").expect("appends");
    let name: &[u8] = b"t";
    for wrong in [
        Batch::new().append(&foreign, name, b"x"),
        Batch::new().fan_out(b"x", [(&foreign, name), (&foreign, b"u")]),
        Batch::new().edit(&foreign, name, 1, b"x"),
        Batch::new().if_last_of(&foreign, name, 1),
    ] {
        assert!(is_refused(engine.submit(wrong), GET_ITS_OWN));
    }
    for mixed in [
        Batch::new().append(&own, name, b"x").append(&foreign, name, b"x"),
        Batch::new().append(&foreign, name, b"x").append(&own, name, b"x"),
        Batch::new().fan_out(b"x", [(&own, name), (&foreign, b"u")]),
        Batch::new().append(&own, name, b"x").edit(&foreign, name, 1, b"x"),
        Batch::new().append(&own, name, b"x").if_last_of(&foreign, name, 1),
    ] {
        assert!(is_refused(engine.submit(mixed), "make a batch for each"));
    }
    // A refused batch does not affect others.
    let batches =
        vec![Batch::new().append(&own, name, b"x"), Batch::new().append(&foreign, name, b"x")];
    let taken: Vec<bool> =
        engine.submit_all(batches).into_iter().map(|ticket| ticket.is_ok()).collect();
    assert_eq!(taken, [true, false]);
    engine.flush().expect("flushes");
    for (store, count) in [(&own, 2), (&foreign, 1)] {
        let entries = store.range(name, .., Limit::entries(9)).expect("reads").entries;
        assert_eq!((entries.len(), &entries[0].body[..]), (count, b"original".as_slice()));
    }
    assert!(
        other.submit(Batch::new().append(&foreign, name, b"x")).expect("is queued").wait().is_ok()
    );
}

#[test]
fn a_store_of_another_engine_is_refused_by_a_watcher() {
    let (here, there) =
        (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
    let ((engine, own), (_other, foreign)) = (open(&here), open(&there));
    let watcher = engine.watcher();
    watcher.watch(&own, b"t", 1).expect("its own store");
    assert!(is_refused(watcher.watch(&foreign, b"t", 2), GET_ITS_OWN));
    assert!(is_refused(watcher.unwatch(&foreign, b"t", 1), GET_ITS_OWN));
    own.append(b"t", b"x").expect("appends");
    assert_eq!(watcher.ready(), [1], "its own watch goes on");
}

#[test]
fn a_batch_that_was_prepared_for_another_engine_is_refused() {
    let (here, there) =
        (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
    let ((engine, own), (other, _)) = (open(&here), open(&there));
    let prepared = engine.prepare(Batch::new().append(&own, b"t", b"body"));
    assert!(is_refused(other.submit_prepared([prepared]).remove(0), GET_ITS_OWN));
    // What was refused before keeps its error.
    let refused = engine.submit_prepared([Err(Error::SequenceExhausted)]).remove(0);
    assert!(matches!(refused, Err(Error::SequenceExhausted)));
}

#[test]
fn a_store_of_an_earlier_opening_is_refused() {
    let dir = tempfile::tempdir().expect("a directory");
    let (engine, old) = open(&dir);
    engine.close().expect("closes");
    let (engine, own) = open(&dir);
    assert!(is_refused(engine.submit(Batch::new().append(&old, b"t", b"x")), GET_ITS_OWN));
    assert!(is_refused(engine.watcher().watch(&old, b"t", 1), GET_ITS_OWN));
    assert_eq!(own.append(b"t", b"x").expect("appends"), 1);
}
