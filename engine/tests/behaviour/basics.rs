//! The behavior that a caller sees: appends, fan-outs, reads, reopening, watching.

use std::time::Duration;

use strandline::{
    Batch, Engine, Error, ErrorKind, Limit, Options, Store, Trim, Verdict, WatchEvent, Watcher,
};

use crate::two_stores;
use crate::world::House;

fn small() -> Options {
    two_stores::options().memory_budget_bytes(1024 * 1024).wal_file_bytes(64 * 1024)
}

#[test]
fn appended_entries_are_read_back_before_and_after_flush_and_reopen() {
    let dir = tempfile::tempdir().expect("a directory");
    for round in 0..3u64 {
        let engine = Engine::open(dir.path(), small()).expect("opens");
        let (messages, sync) =
            (engine.store("messages").expect("m"), engine.store("sync").expect("s"));
        for number in 0..300u64 {
            let body = format!("body {round} {number} {}", "x".repeat((number % 7 * 100) as usize));
            let users: Vec<Vec<u8>> =
                (0..5).map(|user| format!("u/{}", (number + user) % 20).into_bytes()).collect();
            let targets = users.iter().map(|user| (&sync, user.as_slice()));
            let batch = Batch::new()
                .append(&messages, b"c/1", body.as_bytes())
                .fan_out(body.as_bytes(), targets);
            let receipt = engine.submit(batch).expect("queued").wait().expect("committed");
            assert_eq!(receipt.sequences[0], round * 300 + number + 1);
            if number == 150 {
                engine.flush().expect("flushes");
            }
        }
        let check = || {
            let page = messages.range(b"c/1", .., Limit::entries(10_000)).expect("reads");
            assert_eq!(page.entries.len() as u64, (round + 1) * 300);
            assert!(
                page.entries.iter().zip(1..).all(|(entry, sequence)| entry.sequence == sequence)
            );
            let tail = messages.range_back(b"c/1", .., Limit::entries(50)).expect("reads");
            let newest: Vec<_> = page.entries.iter().rev().take(50).cloned().collect();
            assert_eq!(tail.entries, newest);
            let all: usize = (0..20)
                .map(|user| {
                    sync.range(format!("u/{user}").as_bytes(), .., Limit::entries(10_000))
                        .expect("reads")
                })
                .map(|page| page.entries.len())
                .sum();
            assert_eq!(all as u64, (round + 1) * 300 * 5);
            let info = messages.info(b"c/1").expect("reads");
            assert_eq!(
                (info.first, info.last, info.count),
                (1, (round + 1) * 300, (round + 1) * 300)
            );
        };
        check();
        engine.flush().expect("flushes");
        check();
        engine.compact().expect("compacts");
        check();
        if round == 1 {
            engine.close().expect("closes");
        }
    }
}

#[test]
fn a_read_reports_where_its_cursor_is() {
    let dir = tempfile::tempdir().expect("a directory");
    let engine = Engine::open(dir.path(), small()).expect("opens");
    let messages = engine.store("messages").expect("m");
    let page = messages.read_after(b"never", 0, Limit::entries(5)).expect("reads");
    assert_eq!(
        (page.verdict, page.first, page.last, page.next, page.more),
        (Verdict::Ok, 1, 0, 0, false)
    );
    for _ in 0..10 {
        messages.append(b"t", b"x").expect("appends");
    }
    let page = messages.read_after(b"t", 3, Limit::entries(5)).expect("reads");
    assert_eq!(
        (page.verdict, page.first, page.last, page.next, page.more),
        (Verdict::Ok, 1, 10, 8, true)
    );
    let page = messages.read_after(b"t", 11, Limit::entries(5)).expect("reads");
    assert_eq!((page.verdict, page.next, page.entries.len()), (Verdict::Future, 10, 0));
    let page =
        messages.read_after(b"t", 5, Limit { entries: 0, ..Limit::entries(0) }).expect("reads");
    assert_eq!((page.next, page.more), (5, true));
}

#[test]
fn a_second_engine_on_the_directory_is_refused_by_name() {
    let dir = tempfile::tempdir().expect("a directory");
    let engine = Engine::open(dir.path(), small()).expect("opens");
    let Err(error) = Engine::open(dir.path(), small()) else { panic!("opened twice") };
    assert!(matches!(error, Error::Locked { .. }), "{error}");
    assert!(error.to_string().contains("LOCK"), "{error}");
    drop(engine);
    Engine::open(dir.path(), small()).expect("opens when the first one is gone");
}

#[test]
fn a_watcher_is_notified_of_every_advance() {
    let dir = tempfile::tempdir().expect("a directory");
    let engine = Engine::open(dir.path(), small()).expect("opens");
    let messages = engine.store("messages").expect("m");
    let watcher = engine.watcher();
    watcher.watch(&messages, b"t", 9).expect("its own store");
    messages.append(b"other", b"x").expect("appends");
    assert!(!watcher.wait(Duration::from_millis(1)));
    messages.append(b"t", b"x").expect("appends");
    assert!(watcher.wait(Duration::from_secs(10)));
    assert_eq!(watcher.ready(), [9]);
    assert_eq!(messages.read_after(b"t", 0, Limit::entries(9)).expect("reads").entries.len(), 1);
}

#[test]
fn names_are_listed_in_order_from_memory_and_disk() {
    let dir = tempfile::tempdir().expect("a directory");
    let engine = Engine::open(dir.path(), small()).expect("opens");
    let messages = engine.store("messages").expect("m");
    for number in 0..500 {
        messages.append(format!("k{number:03}").as_bytes(), b"x").expect("appends");
        if number % 100 == 50 {
            engine.flush().expect("flushes");
        }
    }
    messages.append(b"other", b"x").expect("appends");
    let names = messages.list(b"k", Some(b"k123"), 10).expect("lists");
    let expected: Vec<Vec<u8>> =
        (124..134).map(|number| format!("k{number}").into_bytes()).collect();
    assert_eq!(names, expected);
    assert_eq!(messages.list(b"k", None, 10_000).expect("lists").len(), 500);
    assert_eq!(messages.list(b"", Some(b"k499"), 10).expect("lists"), [b"other".to_vec()]);
}

#[test]
fn the_names_of_stores_are_checked() {
    let dir = tempfile::tempdir().expect("a directory");
    let engine = Engine::open(dir.path(), small()).expect("opens");
    assert!(matches!(engine.store("nosuch"), Err(Error::NoStore { .. })));
    for name in ["", "a:b", "Upper", &"n".repeat(33)] {
        assert!(matches!(engine.create_store(name, None), Err(Error::Invalid { .. })), "{name}");
    }
    engine.create_store("mine", two_stores::ttl(5)).expect("creates");
    engine.create_store("mine", two_stores::ttl(5)).expect("is there");
    let other = engine.create_store("mine", two_stores::ttl(6)).expect_err("it has another TTL");
    assert_eq!(other.to_string(), "the store \"mine\" exists with a TTL of 5 ms");
    assert!(matches!(other, Error::StoreExists { ttl, .. } if ttl == two_stores::ttl(5)));
    engine.set_store_ttl("mine", two_stores::ttl(7)).expect("sets");
    let mine = engine.store("mine").expect("is there");
    mine.append(b"t", b"x").expect("appends");
    drop((mine, engine));
    let engine = Engine::open(dir.path(), small()).expect("opens");
    let mine = engine.store("mine").expect("is there");
    assert_eq!(mine.ttl(), two_stores::ttl(7));
    assert_eq!(mine.append(b"t", b"y").expect("appends"), 2);
}

#[test]
fn a_limit_of_any_size_reads_back_to_the_oldest_entry() {
    let dir = tempfile::tempdir().expect("a directory");
    let engine = Engine::open(dir.path(), small()).expect("opens");
    let messages = engine.store("messages").expect("m");
    for number in 1..=4 {
        assert_eq!(messages.append(b"c/1", b"body").expect("appends"), number);
        engine.flush().expect("flushes");
    }
    let page = messages.range_back(b"c/1", .., Limit::entries(usize::MAX)).expect("reads");
    let sequences: Vec<u64> = page.entries.iter().map(|entry| entry.sequence).collect();
    assert_eq!((sequences, page.more), (vec![4, 3, 2, 1], false));
}

/// Two targets, of which it says that they are three.
struct Liar<'s>(&'s Store, usize);

impl<'s> Iterator for Liar<'s> {
    type Item = (&'s Store, &'static str);

    fn next(&mut self) -> Option<Self::Item> {
        self.1 += 1;
        (self.1 <= 2).then_some((self.0, "b"))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (3, Some(3))
    }
}

#[test]
fn a_fan_out_takes_names_of_any_type_from_any_iterator_that_counts_right() {
    let dir = tempfile::tempdir().expect("a directory");
    let engine = Engine::open(dir.path(), small()).expect("opens");
    let sync = engine.store("sync").expect("s");
    let names = ["a".to_string(), "b".to_string(), "c".to_string()];
    let most = || names.iter().filter(|name| *name != "b").map(|name| (&sync, name));
    let batch = Batch::new().fan_out("hello", most()).append(&sync, "a", "again");
    assert_eq!(engine.commit(batch).expect("commits").sequences, [1, 1, 2]);
    let list = engine.target_list(most()).expect("a list");
    let batch = Batch::new().fan_out_to_list("listed", [(&sync, "b")], &list);
    assert_eq!(engine.commit(batch).expect("commits").sequences, [1, 3, 2]);
    assert_eq!(sync.latest("c", 1).expect("reads").entries[0].body, "listed");
    for wrong in [
        Batch::new().fan_out("x", Liar(&sync, 0)),
        Batch::new().fan_out_to_list("x", Vec::<(&Store, &str)>::new(), &list),
    ] {
        assert!(matches!(engine.commit(wrong), Err(Error::Invalid { .. })));
    }
    assert_eq!(sync.end("b").expect("reads").0, 1);
}

#[test]
fn an_error_says_what_its_caller_can_do() {
    let dir = tempfile::tempdir().expect("a directory");
    let engine = Engine::open(dir.path(), small()).expect("opens");
    let messages = engine.store("messages").expect("m");
    let kind = |outcome: Result<_, Error>| outcome.map(drop).expect_err("fails");
    let other = kind(engine.commit(Batch::new().append(&messages, "r\n", "x").if_last(7)));
    assert_eq!((other.kind(), other.is_retryable()), (ErrorKind::Conflict, false));
    assert_eq!(other.to_string(), r"the last sequence of messages:r\n is 0");
    let locked = Engine::open(dir.path(), small()).expect_err("it is open");
    assert_eq!((locked.kind(), locked.is_retryable()), (ErrorKind::Busy, true));
    assert_eq!(messages.append("", "x").expect_err("no name").kind(), ErrorKind::Invalid);
    engine.close().expect("closes");
    assert_eq!(messages.append("t", "x").expect_err("closed").kind(), ErrorKind::Ended);
    // Another engine may write there now: what this one has is not what the directory has.
    for refused in [
        messages.end("t").map(drop),
        messages.latest("t", 1).map(drop),
        messages.entries("t", ..).next().expect("an error").map(drop),
        messages.list("", None, 1).map(drop),
    ] {
        assert!(matches!(refused, Err(Error::Closed { .. })), "{refused:?}");
    }
    drop((engine, messages));
    let engine = Engine::open(dir.path(), small().read_only(true)).expect("opens");
    let messages = engine.store("messages").expect("m");
    let refused = messages.append("t", "x").expect_err("read-only");
    assert!(matches!(refused, Error::ReadOnly) && refused.kind() == ErrorKind::Ended);
}

#[test]
fn an_event_says_what_happened_to_a_timeline() {
    let house = House::new();
    let (engine, store) = house.open();
    let other = engine.create_store("other", None).expect("is made");
    let watcher = engine.watcher();
    for (token, name) in [(1, b"a"), (2, b"b")] {
        watcher.watch(&store, name, token).expect("is watched");
    }
    watcher.watch(&other, b"c", 3).expect("is watched");
    let seen = |watcher: &Watcher| -> Vec<(u64, bool, bool, bool)> {
        let mut events = watcher.events();
        events.sort_by_key(|event| event.token);
        let parts =
            |event: &WatchEvent| (event.token, event.appended, event.changed, event.dropped);
        events.iter().map(parts).collect()
    };
    store.append(b"a", b"x").expect("appends");
    store.append(b"b", b"x").expect("appends");
    assert_eq!(seen(&watcher), [(1, true, false, false), (2, true, false, false)]);
    let batch = Batch::new().append(&store, b"a", b"y").trim(&store, b"b", Trim::Keep(0));
    engine.commit(batch).expect("commits");
    assert_eq!(seen(&watcher), [(1, true, false, false), (2, false, true, false)]);
    // Several commits are one event.
    store.append(b"a", b"z").expect("appends");
    store.edit(b"a", 1, b"edited").expect("edits");
    store.delete(b"a", &[2]).expect("deletes");
    engine.drop_store("other", true).expect("is dropped");
    assert_eq!(seen(&watcher), [(1, true, true, false), (3, false, false, true)]);
    assert_eq!(seen(&watcher), []);
}
