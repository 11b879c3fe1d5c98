//! Iteration over a timeline from both ends, and the cursors of pages.

use std::collections::VecDeque;

use strandline::{Engine, Entry, Error, Limit, Page, Sequence, Store, Trim};

use crate::two_stores;

fn opened() -> (tempfile::TempDir, Engine, Store) {
    let dir = tempfile::tempdir().expect("a directory");
    let options = two_stores::options().memory_budget_bytes(1024 * 1024);
    let engine = Engine::open(dir.path(), options).expect("opens");
    let store = engine.store("messages").expect("is there");
    (dir, engine, store)
}

/// A timeline of 700 entries, in segments and in memory, without some of them.
fn filled() -> (tempfile::TempDir, Engine, Store) {
    let (dir, engine, store) = opened();
    for number in 1..=700_usize {
        store.append(b"t", "x".repeat(number % 50).as_bytes()).expect("appends");
        if number % 250 == 0 {
            engine.flush().expect("flushes");
        }
    }
    store.trim(b"t", Trim::Before(20)).expect("trims");
    let gone: Vec<Sequence> = (100..400).chain([699, 700]).collect();
    store.delete(b"t", &gone).expect("deletes");
    (dir, engine, store)
}

fn sequence(entry: Result<Entry, Error>) -> Sequence {
    entry.expect("reads").sequence
}

fn sequences(entries: impl Iterator<Item = Result<Entry, Error>>) -> Vec<Sequence> {
    entries.map(sequence).collect()
}

fn present() -> Vec<Sequence> {
    (20..100).chain(400..699).collect()
}

#[test]
fn all_entries_come_in_both_directions_and_inside_bounds() {
    let (_dir, _engine, store) = filled();
    assert_eq!(sequences(store.entries(b"t", ..)), present());
    let descending: Vec<Sequence> = present().into_iter().rev().collect();
    assert_eq!(sequences(store.entries(b"t", ..).rev()), descending);
    assert_eq!(sequences(store.entries(b"t", 98..402)), [98, 99, 400, 401]);
    assert_eq!(sequences(store.entries(b"t", 98..=401).rev()), [401, 400, 99, 98]);
    assert_eq!(sequences(store.entries(b"t", 698..)), [698]);
    assert_eq!(sequences(store.entries(b"t", ..=20).rev()), [20]);
    for empty in [150..200, 0..20, 5..5, 0..0, 699..u64::MAX, u64::MAX..u64::MAX] {
        assert_eq!(sequences(store.entries(b"t", empty.clone())), [], "{empty:?}");
        assert_eq!(sequences(store.entries(b"t", empty.clone()).rev()), [], "{empty:?}");
    }
    assert_eq!(sequences(store.entries(b"never", ..)), []);
}

#[test]
fn both_ends_meet_and_no_entry_comes_twice() {
    let (_dir, _engine, store) = filled();
    for seed in 0..40_u64 {
        let mut left: VecDeque<Sequence> = present().into();
        let mut entries = store.entries(b"t", ..);
        let mut random = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        loop {
            random ^= random << 13;
            random ^= random >> 7;
            // Long pieces from one end, and single entries from each in turn.
            let from_front = if seed % 2 == 0 { random % 2 == 0 } else { random % 64 > seed };
            let (expected, got) = if from_front {
                (left.pop_front(), entries.next().map(sequence))
            } else {
                (left.pop_back(), entries.next_back().map(sequence))
            };
            assert_eq!(got, expected, "seed {seed}");
            if got.is_none() {
                break;
            }
        }
        assert!(entries.next().is_none() && entries.next_back().is_none(), "seed {seed}");
    }
}

#[test]
fn what_is_appended_later_is_left_out_and_what_is_removed_before_it_is_read_too() {
    let (_dir, engine, store) = filled();
    let moment = engine.snapshot();
    let mut entries = store.entries(b"t", ..);
    assert_eq!(entries.next().map(sequence), Some(20));
    store.append(b"t", b"later").expect("appends");
    store.trim(b"t", Trim::Before(600)).expect("trims");
    // The first page was read before the trim; the next ones were not.
    let rest = sequences(entries);
    assert!(rest.starts_with(&present()[1..16]), "{rest:?}");
    assert!(rest.ends_with(&(600..699).collect::<Vec<_>>()), "{rest:?}");
    assert!(rest.len() < present().len() - 1);
    assert_eq!(sequences(store.at(&moment).entries(b"t", ..)), present());
    assert_eq!(sequences(store.entries(b"t", ..)).last(), Some(&701));
}

#[test]
fn a_limit_of_bytes_counts_both_ends_and_lets_the_first_entry_pass() {
    let (_dir, _engine, store) = opened();
    for bytes in [10, 20, 30, 40] {
        store.append(b"t", vec![1; bytes]).expect("appends");
    }
    let limited = |bytes| store.entries(b"t", ..).limit_bytes(bytes);
    assert_eq!(sequences(limited(0)), [1]);
    assert_eq!(sequences(limited(0).rev()), [4]);
    assert_eq!(sequences(limited(30)), [1, 2]);
    assert_eq!(sequences(limited(59)), [1, 2]);
    assert_eq!(sequences(limited(60)), [1, 2, 3]);
    assert_eq!(sequences(limited(70).rev()), [4, 3]);
    let mut both = limited(60);
    assert_eq!(both.next().map(sequence), Some(1));
    assert_eq!(both.next_back().map(sequence), Some(4));
    assert!(both.next_back().is_none() && both.next().is_none());
}

#[test]
fn after_an_error_nothing_comes() {
    let (_dir, engine, store) = filled();
    let mut entries = store.entries(b"t", ..);
    engine.drop_store("messages", true).expect("drops");
    assert!(matches!(entries.next(), Some(Err(Error::StoreDropped))));
    assert!(entries.next().is_none() && entries.next_back().is_none());
    assert!(matches!(store.entries(b"", ..).next(), Some(Err(_))), "no timeline has this name");
}

#[test]
fn the_latest_entries_are_the_newest_first() {
    let (_dir, _engine, store) = filled();
    let page = store.latest(b"t", 3).expect("reads");
    let newest: Vec<Sequence> = page.entries.iter().map(|entry| entry.sequence).collect();
    assert_eq!((newest, page.next, page.more), (vec![698, 697, 696], 696, true));
}

#[test]
fn an_empty_page_does_not_move_its_cursor() {
    let (_dir, _engine, store) = filled();
    let cursor = |page: Page| (page.entries.len(), page.next);
    let ascending = |bounds, limit| cursor(store.range(b"t", bounds, limit).expect("reads"));
    let descending = |bounds, limit| cursor(store.range_back(b"t", bounds, limit).expect("reads"));
    let (some, none) = (Limit::entries(5), Limit::entries(0));
    assert_eq!(ascending(150..=199, some), (0, 149));
    assert_eq!(descending(150..=199, some), (0, 200));
    assert_eq!(ascending(50..=99, none), (0, 49));
    assert_eq!(descending(50..=99, none), (0, 100));
    assert_eq!(ascending(900..=950, some), (0, 899));
    assert_eq!(descending(900..=950, some), (0, 951));
    // A page with entries ends at its last one.
    assert_eq!(ascending(98..=410, some), (5, 402));
    assert_eq!(descending(98..=401, some), (4, 98));
}
