//! Batches that depend on the content of timelines, and copies that know the position of their
//! original: `if_last_of`, `stamp_origin`, `id_for`, each also after a kill.

use strandline::{Batch, Durability, Engine, Error, Limit, Store};

use crate::two_stores;

fn open(dir: &tempfile::TempDir) -> (Engine, Store, Store) {
    let engine = Engine::open(dir.path(), two_stores::options()).expect("opens");
    let (messages, sync) =
        (engine.store("messages").expect("is there"), engine.store("sync").expect("is there"));
    (engine, messages, sync)
}

fn bodies(store: &Store, timeline: &[u8]) -> Vec<Vec<u8>> {
    let page = store.range(timeline, .., Limit::entries(100)).expect("reads");
    page.entries.into_iter().map(|entry| entry.body.to_vec()).collect()
}

fn stamped(origin: u64, rest: &[u8]) -> Vec<u8> {
    [&origin.to_le_bytes(), rest].concat()
}

#[test]
fn copies_name_the_sequence_of_the_original_also_after_replay_and_flush() {
    let dir = tempfile::tempdir().expect("a directory");
    let (engine, messages, sync) = open(&dir);
    for number in 0..3u8 {
        let targets = [(&messages, b"c".as_slice()), (&sync, b"u")];
        sync.append(b"u", b"other").expect("appends");
        let batch = Batch::new()
            .append(&messages, b"c", b"plain")
            .stamp_origin()
            .fan_out(stamped(0, &[number]), targets);
        let receipt = engine.submit(batch).expect("is taken").wait().expect("commits");
        assert_eq!(
            receipt.sequences,
            [u64::from(number) * 2 + 1, u64::from(number) * 2 + 2, u64::from(number) * 2 + 2]
        );
    }
    let expected: Vec<Vec<u8>> = (0..3)
        .flat_map(|number| [b"other".to_vec(), stamped(number * 2 + 1, &[number as u8])])
        .collect();
    assert_eq!(bodies(&sync, b"u"), expected);
    drop((engine, messages, sync));
    let (engine, messages, sync) = open(&dir);
    assert_eq!(bodies(&sync, b"u"), expected, "after replay");
    assert_eq!(bodies(&messages, b"c")[1], stamped(1, &[0]));
    engine.flush().expect("flushes");
    assert_eq!(bodies(&sync, b"u"), expected, "after the flush");
}

#[test]
fn a_body_without_room_for_its_origin_is_refused() {
    let dir = tempfile::tempdir().expect("a directory");
    let (engine, messages, _) = open(&dir);
    let batch = Batch::new().stamp_origin().append(&messages, b"c", b"short");
    assert!(matches!(engine.submit(batch), Err(Error::Invalid { .. })));
}

#[test]
fn a_batch_is_committed_only_while_its_conditions_hold() {
    let dir = tempfile::tempdir().expect("a directory");
    let (engine, messages, sync) = open(&dir);
    let send = |members_last: u64, mode_last: u64| {
        let batch = Batch::new()
            .append(&messages, b"c", b"x")
            .if_last_of(&sync, b"members", members_last)
            .if_last_of(&messages, b"mode", mode_last);
        engine.submit(batch).and_then(strandline::Ticket::wait)
    };
    assert!(send(0, 0).is_ok());
    assert!(matches!(send(1, 0), Err(Error::LastSequence { last: 0, .. })));
    sync.append(b"members", b"joins").expect("appends");
    assert!(matches!(send(0, 0), Err(Error::LastSequence { last: 1, .. })));
    assert!(send(1, 0).is_ok());
    // Cold: the end of the timeline is in a segment only.
    engine.flush().expect("flushes");
    assert!(send(1, 0).is_ok());
    assert!(matches!(send(0, 0), Err(Error::LastSequence { last: 1, .. })));
    assert!(matches!(send(1, 1), Err(Error::LastSequence { last: 0, .. })));
    // Batches of one group see the earlier ones.
    let join = Batch::new().append(&sync, b"members", b"leaves");
    let late = Batch::new().append(&messages, b"c", b"x").if_last_of(&sync, b"members", 1);
    let mut tickets = engine.submit_all(vec![join, late]).into_iter();
    assert!(tickets.next().expect("two").expect("is taken").wait().is_ok());
    assert!(matches!(
        tickets.next().expect("two").expect("is taken").wait(),
        Err(Error::LastSequence { last: 2, .. })
    ));
    assert_eq!(messages.end(b"c").expect("reads").0, 3);
}

#[test]
fn an_id_for_bytes_is_found_in_another_frame_and_for_other_receivers() {
    let dir = tempfile::tempdir().expect("a directory");
    let (engine, messages, sync) = open(&dir);
    let send = |engine: &Engine,
                messages: &Store,
                sync: &Store,
                body: &[u8],
                frame: u8,
                receivers: &[&[u8]]| {
        let framed = [&[frame; 8], body].concat();
        let targets: Vec<(&Store, &[u8])> = [(messages, b"c".as_slice())]
            .into_iter()
            .chain(receivers.iter().map(|name| (sync, *name)))
            .collect();
        let batch = Batch::new().stamp_origin().id_for(b"id", body).fan_out(&framed, targets);
        engine.submit(batch).and_then(strandline::Ticket::wait)
    };
    messages.append(b"c", b"first").expect("appends");
    assert_eq!(messages.committed(b"c", b"id", b"hello").expect("reads"), None);
    let first = send(&engine, &messages, &sync, b"hello", 0, &[b"u1", b"u2"]).expect("commits");
    assert_eq!((first.sequences.as_slice(), first.duplicate), ([2, 1, 1].as_slice(), false));
    let check = |engine: &Engine, messages: &Store, sync: &Store| {
        let again = send(engine, messages, sync, b"hello", 1, &[b"u1", b"u3"]).expect("is known");
        assert_eq!(
            (again.time_ms, again.sequences.as_slice(), again.duplicate),
            (first.time_ms, [2].as_slice(), true)
        );
        assert_eq!(messages.committed(b"c", b"id", b"hello").expect("reads"), Some(again));
        assert!(matches!(
            send(engine, messages, sync, b"other", 0, &[]),
            Err(Error::IdConflict { sequence: 2 })
        ));
        assert!(matches!(
            messages.committed(b"c", b"id", b"other"),
            Err(Error::IdConflict { sequence: 2 })
        ));
        assert_eq!(messages.end(b"c").expect("reads").0, 2);
    };
    check(&engine, &messages, &sync);
    drop((engine, messages, sync));
    let (engine, messages, sync) = open(&dir);
    check(&engine, &messages, &sync);
    engine.flush().expect("flushes");
    check(&engine, &messages, &sync);
}

#[test]
fn conditions_alone_are_refused_and_never_pass_for_held() {
    let dir = tempfile::tempdir().expect("a directory");
    let (engine, messages, _) = open(&dir);
    let ticket = engine.submit(Batch::new().if_last_of(&messages, b"a", 7));
    assert!(matches!(ticket, Err(Error::Invalid { .. })), "{ticket:?}");
}

#[test]
fn no_reader_sees_one_timeline_of_a_batch_ahead_of_another() {
    let dir = tempfile::tempdir().expect("a directory");
    let (engine, _, sync) = open(&dir);
    let names: Vec<String> = (0..5000).map(|number| format!("u/{number}")).collect();
    let writer = std::thread::spawn({
        let (sync, names) = (sync.clone(), names.clone());
        move || {
            for _ in 0..150 {
                let batch = Batch::new().durability(Durability::Os);
                let batch =
                    batch.fan_out(b"to all", names.iter().map(|name| (&sync, name.as_bytes())));
                engine.submit(batch).expect("queued").wait().expect("committed");
            }
        }
    });
    let end = |name: &String| sync.end(name.as_bytes()).expect("reads").0;
    let (mut one, mut other) = (names.iter().cycle(), names.iter().rev().cycle());
    while !writer.is_finished() {
        let (one, other) = (one.next().expect("a cycle"), other.next().expect("a cycle"));
        let seen = end(one);
        assert!(end(other) >= seen, "{one} was at {seen}, {other} is at {}", end(other));
    }
    writer.join().expect("no panic");
}
