//! Wrong clocks (P2, P8, P12): a clock that was ahead, one that is behind, and a start after a long
//! stop give new entries no wrong lifetime, and destroy no old data. `clock::SureTime` lists which
//! clock each decision uses.

use strandline::{Batch, Engine, Entry, Limit, Store, Trim, Verdict};

use crate::short::{TTL_MS, sequences};
use crate::two_stores;
use crate::world::{House, START_MS, soon};

const SECOND_MS: u64 = 1000;
const HOUR_MS: u64 = 3600 * SECOND_MS;
const DAY_MS: u64 = 24 * HOUR_MS;
const YEAR_MS: u64 = 365 * DAY_MS;

impl House {
    /// The clock is a year ahead for one append, and is corrected.
    fn was_ahead_once(&self, engine: &Engine) {
        self.clock.set(START_MS + YEAR_MS);
        let store = engine.store("short").expect("is there");
        store.append(b"ahead", b"while it was wrong").expect("appends");
        self.clock.set(START_MS);
    }
}

fn append_for(engine: &Engine, store: &Store, timeline: &[u8], lifetime_ms: u64) {
    let batch =
        Batch::new().lifetime(two_stores::ttl(lifetime_ms)).append(store, timeline, b"for a while");
    engine.submit(batch).expect("queued").wait().expect("commits");
}

/// The entries that a reader is shown, wherever they are: in memory, in a segment, merged, after a
/// reopening.
fn in_every_place(house: &House, look: impl Fn(&str, &Store)) {
    let (engine, store) = house.open_short();
    look("in memory, or replayed", &store);
    engine.flush().expect("flushes");
    look("flushed", &store);
    engine.compact().expect("merges");
    look("merged", &store);
    engine.close().expect("closes");
    drop((engine, store));
    look("reopened", &house.open_short().1);
}

#[test]
fn an_expiry_of_a_single_entry_is_right_after_the_clock_was_once_a_year_ahead() {
    for passes in [HOUR_MS - 1, HOUR_MS] {
        let house = House::new();
        let (engine, store) = house.open_short();
        let messages = engine.store("messages").expect("is there");
        house.was_ahead_once(&engine);
        append_for(&engine, &messages, b"px", HOUR_MS);
        let targets = [(&messages, b"shared 1".as_slice()), (&messages, b"shared 2")];
        let shared =
            Batch::new().lifetime(two_stores::ttl(HOUR_MS)).fan_out(b"for a while", targets);
        engine.submit(shared).expect("queued").wait().expect("commits");
        let entry: Entry = messages.last(b"px").expect("reads").expect("is there");
        assert_eq!(
            (entry.time_ms, entry.start_ms),
            (START_MS + YEAR_MS, START_MS),
            "timestamps never fall"
        );
        drop((engine, store, messages));
        house.clock.pass(passes);
        let is_there = passes < HOUR_MS;
        let engine = house.engine();
        let messages = engine.store("messages").expect("is there");
        for step in [|_: &Engine| Ok(()), Engine::flush, Engine::compact] {
            step(&engine).expect("flushes, merges");
            for name in [b"px".as_slice(), b"shared 1", b"shared 2"] {
                assert_eq!(!sequences(&messages, name).is_empty(), is_there, "after {passes} ms");
            }
        }
    }
}

#[test]
fn the_ttl_of_a_store_is_right_for_new_entries_after_the_clock_was_once_a_year_ahead() {
    let house = House::new();
    let (engine, store) = house.open_short();
    store.append(b"t", b"before").expect("appends");
    house.was_ahead_once(&engine);
    house.clock.pass(10 * SECOND_MS);
    store.append(b"t", b"after").expect("appends");
    store.append(b"ahead", b"after").expect("appends");
    drop((engine, store));
    house.clock.pass(TTL_MS - 10 * SECOND_MS - 1);
    in_every_place(&house, |place, store| assert_eq!(sequences(store, b"t"), [1, 2], "{place}"));
    house.clock.pass(1);
    in_every_place(&house, |place, store| assert_eq!(sequences(store, b"t"), [2], "{place}"));
    house.clock.pass(10 * SECOND_MS);
    in_every_place(&house, |place, store| {
        assert_eq!(sequences(store, b"t"), [], "{place}");
        // The entry that was committed while the clock was ahead keeps the lifetime that it got
        // then.
        assert_eq!(sequences(store, b"ahead"), [1], "{place}");
        let page = store.read_after(b"ahead", 1, Limit::entries(10)).expect("reads");
        assert_eq!(
            (page.verdict, page.last, page.next),
            (Verdict::Trimmed, 2, 2),
            "{place}: the second is lost"
        );
    });
    let (_engine, store) = house.open_short();
    assert_eq!(store.append(b"ahead", b"next").expect("appends"), 3);
    assert_eq!(sequences(&store, b"ahead"), [1, 3]);
}

#[test]
fn bytes_leave_the_disk_in_time_after_the_clock_was_once_a_year_ahead() {
    let house = House::new();
    let (engine, store) = house.open_short();
    house.was_ahead_once(&engine);
    for round in 0..5 {
        store.append(format!("t {round}").as_bytes(), [b'~'; 3000]).expect("appends");
        house.clock.pass(2 * SECOND_MS);
    }
    engine.flush().expect("flushes");
    house.clock.pass(TTL_MS);
    engine.compact().expect("drops");
    soon("expired bytes leave", || {
        let files = house.disk.contents().files;
        let mut rows =
            files.values().flat_map(|content| content.chunk_by(|one, other| one == other));
        rows.all(|row| row[0] != b'~' || row.len() <= 50)
    });
    assert_eq!(sequences(&store, b"ahead"), [1]);
}

#[test]
fn after_a_stop_of_three_days_a_lifetime_of_an_hour_is_an_hour() {
    let house = House::new();
    let (engine, store) = house.open_short();
    store.append(b"t", b"x").expect("appends");
    engine.close().expect("closes");
    drop((engine, store));
    // Neither clock of the process counts the time while it is stopped.
    house.clock.set(START_MS + 3 * DAY_MS);
    let (engine, store) = house.open_short();
    let messages = engine.store("messages").expect("is there");
    append_for(&engine, &messages, b"px", HOUR_MS);
    store.append(b"new", b"x").expect("appends");
    house.clock.pass(TTL_MS - 1);
    assert_eq!(sequences(&store, b"new"), [1]);
    house.clock.pass(1);
    assert_eq!(sequences(&store, b"new"), []);
    house.clock.pass(HOUR_MS - TTL_MS - 1);
    assert_eq!(sequences(&messages, b"px"), [1], "readable for an hour");
    house.clock.pass(1);
    assert_eq!(sequences(&messages, b"px"), [], "and not longer");
}

#[test]
fn a_lifetime_that_begins_while_the_clock_is_behind_does_not_end_when_it_is_corrected() {
    let house = House::new();
    let (engine, store) = house.open_short();
    store.append(b"t", b"x").expect("appends");
    engine.close().expect("closes");
    drop((engine, store));
    house.clock.set(1000);
    let (engine, store) = house.open_short();
    let messages = engine.store("messages").expect("is there");
    append_for(&engine, &messages, b"px", HOUR_MS);
    store.append(b"t", b"y").expect("appends");
    house.clock.set(START_MS + SECOND_MS);
    assert_eq!((sequences(&messages, b"px"), sequences(&store, b"t")), (vec![1], vec![1, 2]));
    house.clock.pass(HOUR_MS);
    assert_eq!((sequences(&messages, b"px"), sequences(&store, b"t")), (vec![], vec![]));
}

#[test]
fn a_ttl_that_is_set_under_a_wrong_clock_destroys_nothing_and_hides_nothing_new() {
    for ttl_ms in [TTL_MS, 2 * TTL_MS, 0] {
        let house = House::new();
        let (engine, store) = house.open_short();
        store.append(b"t", b"before").expect("appends");
        house.clock.set(START_MS + YEAR_MS);
        engine.set_store_ttl("short", two_stores::ttl(ttl_ms)).expect("sets");
        house.clock.set(START_MS + SECOND_MS);
        store.append(b"t", b"after").expect("appends");
        assert_eq!(sequences(&store, b"t"), [1, 2], "TTL {ttl_ms}");
        engine.close().expect("closes");
        drop((engine, store));
        let engine = house.engine();
        assert_eq!(
            sequences(&engine.store("short").expect("is there"), b"t"),
            [1, 2],
            "TTL {ttl_ms}"
        );
    }
}

#[test]
fn a_trim_under_a_wrong_clock_removes_what_it_says_and_no_more() {
    let ways: [(Trim, u64, &[u64]); 3] = [
        (Trim::Before(3), 2, &[3, 4, 5]),
        (Trim::Keep(2), 3, &[4, 5]),
        (Trim::Older(START_MS + 3 * SECOND_MS), 3, &[4, 5]),
    ];
    for (trim, removed, left) in ways {
        let house = House::new();
        let (_engine, store) = house.open_short();
        for _ in 0..5 {
            store.append(b"t", b"x").expect("appends");
            house.clock.pass(SECOND_MS);
        }
        let now_ms = START_MS + 5 * SECOND_MS;
        house.clock.set(now_ms + YEAR_MS);
        assert_eq!(sequences(&store, b"t"), [], "a reader goes by the wall clock");
        assert_eq!(store.trim(b"t", trim).expect("trims"), removed, "{trim:?}");
        house.clock.set(now_ms);
        assert_eq!(sequences(&store, b"t"), left, "{trim:?}");
    }
}

#[test]
fn an_id_is_forgotten_after_elapsed_time_and_not_by_a_clock_that_jumps() {
    let house = House::new();
    let (engine, store) = house.open_short();
    let messages = engine.store("messages").expect("is there");
    let send = |engine: &Engine| {
        let batch = Batch::new().append(&messages, b"t", b"once").id(b"7");
        engine.submit(batch).expect("queued").wait().expect("commits").sequences
    };
    house.was_ahead_once(&engine);
    assert_eq!(send(&engine), [1]);
    house.clock.set(START_MS + 2 * DAY_MS);
    assert_eq!(send(&engine), [1], "after a jump of two days");
    engine.compact().expect("flushes and merges");
    assert_eq!(send(&engine), [1], "in a segment");
    house.clock.set(START_MS);
    house.clock.pass(DAY_MS - 1);
    assert_eq!(send(&engine), [1], "its window is a day");
    house.clock.pass(1);
    assert_eq!(send(&engine), [2], "and no longer, though its timestamp is a year ahead");
    drop(store);
}

#[test]
fn removals_without_entries_are_kept_as_long_as_what_they_remove_may_live() {
    let house = House::new();
    let (engine, store) = house.open_short();
    for _ in 0..10 {
        store.append(b"t", b"alive").expect("appends");
    }
    engine.flush().expect("flushes");
    for before in [3, 4] {
        store.trim(b"t", Trim::Before(before)).expect("trims");
        store.delete(b"t", &[before + 3]).expect("deletes");
        engine.flush().expect("flushes");
    }
    let left = [4, 5, 8, 9, 10];
    for _ in 0..2 {
        engine.compact().expect("merges");
        assert_eq!(sequences(&store, b"t"), left);
    }
    drop((engine, store));
    assert_eq!(sequences(&house.open_short().1, b"t"), left);
}

/// Segments that have expired keep their removals for an older one whose entries live longer, also
/// when they are merged.
#[test]
fn expired_segments_still_remove_entries_committed_while_the_clock_was_ahead() {
    let house = House::new();
    let (engine, store) = house.open_short();
    house.clock.set(START_MS + YEAR_MS);
    for _ in 0..8 {
        store.append(b"t", b"lives for a year").expect("appends");
    }
    engine.flush().expect("flushes");
    house.clock.set(START_MS);
    for deleted in [4, 6] {
        store.trim(b"t", Trim::Before(deleted - 1)).expect("trims");
        assert_eq!(store.delete(b"t", &[deleted]).expect("deletes"), 1);
        store.append(b"t", b"lives for a minute").expect("appends");
        engine.flush().expect("flushes");
    }
    let left = [5, 7, 8];
    let segments = |engine: &Engine| engine.stats().segments;
    house.clock.pass(2 * TTL_MS);
    for place in ["expired", "merged", "merged again"] {
        if place != "expired" {
            engine.compact().expect("drops, merges");
        }
        assert_eq!(sequences(&store, b"t"), left, "{place}");
        let page = store.read_after(b"t", 8, Limit::entries(10)).expect("reads");
        let found = (page.verdict, page.last, page.entries.len());
        assert_eq!(found, (Verdict::Trimmed, 10, 0), "{place}: two have expired");
        let page = store.read_after(b"t", 3, Limit::entries(10)).expect("reads");
        assert_eq!(page.verdict, Verdict::Trimmed, "{place}: below the trim");
    }
    assert_eq!(segments(&engine), 2, "those that have expired are one");
    drop((engine, store));
    assert_eq!(sequences(&house.open_short().1, b"t"), left);
}

#[test]
fn where_no_clock_is_wrong_a_lifetime_begins_at_the_timestamp() {
    let folder = tempfile::tempdir().expect("a directory");
    let engine = Engine::open(folder.path(), two_stores::options()).expect("opens");
    let store = engine.create_store("messages", None).expect("is made");
    for _ in 0..2000 {
        let batch =
            Batch::new().durability(strandline::Durability::Os).append(&store, b"t", b"now");
        engine.submit(batch).expect("queued").wait().expect("commits");
    }
    let page = store.range(b"t", .., Limit::entries(5000)).expect("reads");
    assert_eq!(page.entries.len(), 2000);
    assert!(page.entries.iter().all(|entry| entry.time_ms == entry.start_ms));
}
