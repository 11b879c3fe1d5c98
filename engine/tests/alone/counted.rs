//! Memory cost of reads (P7), counted by the allocator of this process: the cost must depend on the
//! request, not on the number of entries that ever existed.
//!
//! The tests run one at a time, and measure only while no thread of the engine has work.
#![allow(unsafe_code, reason = "an allocator cannot be written without")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::atomic::{AtomicUsize, Ordering};

use strandline::{Batch, Durability, Engine, Limit, Store, Trim};

use crate::alone;
use crate::two_stores;

struct Counting;

static LIVE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);
static CALLS: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    /// Calls of this thread.
    static OWN_CALLS: Cell<usize> = const { Cell::new(0) };
}

fn grow(bytes: usize) {
    CALLS.fetch_add(1, Ordering::Relaxed);
    // A thread that ends has no cell any more.
    let _ = OWN_CALLS.try_with(|calls| calls.set(calls.get() + 1));
    let live = LIVE.fetch_add(bytes, Ordering::Relaxed) + bytes;
    PEAK.fetch_max(live, Ordering::Relaxed);
}

// SAFETY: the system's allocator does the work; counting does not touch the memory that it returns.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        grow(layout.size());
        // SAFETY: the caller's guarantees for this call are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's guarantees for this call are passed on.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The cost of a call.
#[derive(Clone, Copy, Debug)]
struct Cost {
    /// Largest number of bytes held at any time, beyond those held before.
    peak: usize,
    /// Bytes that are still held, including the result.
    held: usize,
    /// Calls of the allocator.
    calls: usize,
}

fn counted<T>(run: impl FnOnce() -> T) -> (T, Cost) {
    let (before, calls) = (LIVE.load(Ordering::Relaxed), CALLS.load(Ordering::Relaxed));
    PEAK.store(before, Ordering::Relaxed);
    let result = run();
    let cost = Cost {
        peak: PEAK.load(Ordering::Relaxed) - before,
        held: LIVE.load(Ordering::Relaxed).saturating_sub(before),
        calls: CALLS.load(Ordering::Relaxed) - calls,
    };
    (result, cost)
}

const MIB: usize = 1024 * 1024;

fn engine_with(folder: &tempfile::TempDir, memory_budget_bytes: usize) -> (Engine, Store) {
    let options = two_stores::options().memory_budget_bytes(memory_budget_bytes);
    let engine = Engine::open(folder.path(), options).expect("opens");
    let store = engine.store("messages").expect("is there");
    (engine, store)
}

/// An engine that caches few blocks.
fn engine(folder: &tempfile::TempDir) -> (Engine, Store) {
    engine_with(folder, 64 * MIB)
}

/// An engine with so much memory that nothing is flushed.
fn engine_that_flushes_nothing(folder: &tempfile::TempDir) -> (Engine, Store) {
    engine_with(folder, 1024 * MIB)
}

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a directory")
}

fn commit(engine: &Engine, batch: Batch) {
    engine.commit(batch).expect("commits");
}

fn bytes(number: usize, len: usize) -> Vec<u8> {
    (0..len).map(|at| (at * (number * 2 + 7) % 251) as u8).collect()
}

/// The calls of the allocator per append, of this thread and of all others, in a long run to
/// timelines that are in memory. What grows by doubling costs a little more than nothing.
fn calls_per_append(append: impl Fn(&Engine, &Store, &[u8])) -> (f64, f64) {
    const APPENDS: usize = 20_000;
    let (_alone, folder) = (alone(), folder());
    let (engine, store) = engine_that_flushes_nothing(&folder);
    let names: Vec<Vec<u8>> = (0..100).map(|name| format!("u/{name}").into_bytes()).collect();
    let run = || names.iter().cycle().take(APPENDS).for_each(|name| append(&engine, &store, name));
    run();
    let own = OWN_CALLS.get();
    let ((), cost) = counted(run);
    let own = OWN_CALLS.get() - own;
    let per_append = |calls: usize| calls as f64 / APPENDS as f64;
    (per_append(own), per_append(cost.calls - own))
}

const BODY: [u8; 200] = [7; 200];

#[test]
fn an_append_that_is_waited_for_allocates_twice() {
    let (own, others) = calls_per_append(|engine, store, name| {
        let batch = Batch::new().append(store, name, BODY).durability(Durability::Os);
        engine.commit(batch).expect("commits");
    });
    assert!(own < 2.1 && others < 0.1, "{own} of the caller, {others} of other threads");
}

#[test]
fn of_an_append_that_is_submitted_the_committer_allocates_nothing() {
    let (own, others) = calls_per_append(|engine, store, name| {
        let batch = Batch::new().append(store, name, BODY).durability(Durability::Os);
        engine.submit(batch).expect("is queued").wait().expect("commits");
    });
    assert!(own < 2.1 && others < 0.1, "{own} of the caller, {others} of other threads");
}

#[test]
fn batches_that_are_made_before_the_first_is_submitted_keep_no_more_memory_than_their_bytes() {
    const ROUNDS: usize = 100;
    const BATCHES: usize = 64;
    let (_alone, folder) = (alone(), folder());
    let (engine, store) = engine_that_flushes_nothing(&folder);
    let ((), cost) = counted(|| {
        for _ in 0..ROUNDS {
            let batch = |_| Batch::new().append(&store, b"t", BODY).durability(Durability::Os);
            for ticket in engine.submit_all((0..BATCHES).map(batch).collect()) {
                ticket.expect("is queued").wait().expect("commits");
            }
        }
    });
    let held = cost.held / (ROUNDS * BATCHES);
    assert!(held < 3 * BODY.len(), "{held} bytes are kept for an append of {}", BODY.len());
}

#[test]
fn a_read_loads_no_edited_body_that_it_does_not_return() {
    const EDITS: usize = 60;
    let (_alone, folder) = (alone(), folder());
    let (engine, store) = engine(&folder);
    for number in 0..EDITS {
        store.append(b"t", bytes(number, 20)).expect("appends");
    }
    engine.flush().expect("flushes");
    for number in 0..EDITS {
        assert!(store.edit(b"t", number as u64 + 1, bytes(number, MIB)).expect("edits"));
    }
    engine.flush().expect("flushes");
    drop((engine, store));
    // A thread of the engine may do its regular work meanwhile, which counts too: not three times.
    let first_read = |_| {
        let (_engine, store) = self::engine(&folder);
        let (entry, cost) = counted(|| store.get(b"t", 7).expect("reads").expect("is there"));
        assert_eq!(entry.body, bytes(6, MIB));
        cost
    };
    let cost = (0..3).map(first_read).min_by_key(|cost| cost.peak).expect("three reads");
    // The block as read, decoded, and in the cache.
    assert!(cost.peak < 7 * MIB, "one entry: {cost:?}");
    let (engine, store) = self::engine(&folder);
    let limit = Limit { entries: 100, body_bytes: MIB as u64 + 10, ..Limit::entries(100) };
    let (page, cost) = counted(|| store.range(b"t", 20.., limit).expect("reads"));
    assert_eq!(page.entries.len(), 1);
    assert!(cost.peak < 10 * MIB, "a page of one: {cost:?}");
    drop(page);
    let (info, cost) = counted(|| store.info(b"t").expect("reads"));
    assert_eq!((info.count, info.body_bytes), (EDITS as u64, (EDITS * MIB) as u64));
    assert!(cost.peak < 40 * MIB, "all are measured, and some stay in the cache: {cost:?}");
    let ((), cost) = counted(|| engine.compact().expect("merges"));
    assert!(cost.peak < 10 * MIB, "a merge: {cost:?}");
    assert_eq!(store.get(b"t", 7).expect("reads").expect("is there").body, bytes(6, MIB));
}

#[test]
fn a_page_of_small_bodies_holds_no_large_block() {
    const ROUNDS: usize = 300;
    let (_alone, folder) = (alone(), folder());
    let (engine, store) = engine(&folder);
    let fan_out = |number, len| {
        Batch::new()
            .fan_out(bytes(number, len), [b"one".as_slice(), b"two"].map(|name| (&store, name)))
    };
    for number in 0..ROUNDS {
        commit(&engine, fan_out(number, 20));
        let others = [b"three".as_slice(), b"four"].map(|name| (&store, name));
        commit(&engine, Batch::new().fan_out(bytes(number, 200_000), others));
    }
    engine.flush().expect("flushes");
    drop((engine, store));
    let (_engine, store) = engine_with_few_blocks(&folder);
    let page = store.range(b"one", .., Limit::entries(1)).expect("reads");
    drop(page);
    let (page, cost) = counted(|| store.range(b"one", .., Limit::entries(1000)).expect("reads"));
    assert_eq!(page.entries.len(), ROUNDS);
    assert!(page.entries.iter().enumerate().all(|(number, entry)| entry.body == bytes(number, 20)));
    assert!(cost.held < 5 * MIB, "{cost:?}");
}

fn engine_with_few_blocks(folder: &tempfile::TempDir) -> (Engine, Store) {
    engine_with(folder, 4 * MIB)
}

#[test]
fn counting_holds_no_bodies() {
    const ENTRIES: usize = 200;
    let (_alone, folder) = (alone(), folder());
    let (engine, store) = engine(&folder);
    for number in 0..ENTRIES {
        store.append(b"t", bytes(number, 100_000)).expect("appends");
    }
    for sequence in [50, 150] {
        assert_eq!(store.delete(b"t", &[sequence]).expect("deletes"), 1);
    }
    engine.flush().expect("flushes");
    drop((engine, store));
    let (_engine, store) = engine_with_few_blocks(&folder);
    let (info, cost) = counted(|| store.info(b"t").expect("reads"));
    assert_eq!(info.count, ENTRIES as u64 - 2);
    assert!(cost.peak < 4 * MIB, "info: {cost:?}");
    let (removed, cost) = counted(|| store.trim(b"t", Trim::Before(101)).expect("trims"));
    assert_eq!(removed, 99);
    assert!(cost.peak < 4 * MIB, "trim: {cost:?}");
    let (dropped, cost) = counted(|| store.drop_timeline(b"t").expect("drops"));
    assert!(dropped);
    assert!(cost.peak < 4 * MIB, "drop: {cost:?}");
}

/// A timeline of which every second entry was removed, or every third edited, in small pieces.
fn scattered(edits: bool, changes: u64) -> (tempfile::TempDir, Engine, Store) {
    let folder = folder();
    let (engine, store) = engine(&folder);
    for _ in 0..40 {
        let batch =
            (0..1000).fold(Batch::new(), |batch, _| batch.append(&store, b"t", b"an entry"));
        commit(&engine, batch);
    }
    engine.flush().expect("flushes");
    if edits {
        let batch = |first: u64| {
            let of = (first..(first + 1000).min(changes)).map(|number| 3 * number + 1);
            of.fold(Batch::new(), |batch, sequence| batch.edit(&store, b"t", sequence, b"another"))
        };
        (0..changes).step_by(1000).for_each(|first| commit(&engine, batch(first)));
    } else {
        let all: Vec<u64> = (0..changes).map(|number| 2 * number + 2).collect();
        for some in all.chunks(1000) {
            assert_eq!(store.delete(b"t", some).expect("deletes"), some.len() as u64);
        }
    }
    (folder, engine, store)
}

/// The cost of a chat's reads, when everything that they need is in memory.
fn read_costs(store: &Store) -> Vec<Cost> {
    let reads: [&dyn Fn() -> usize; 4] = [
        &|| store.get(b"t", 301).expect("reads").into_iter().count(),
        &|| store.range_back(b"t", .., Limit::entries(50)).expect("reads").entries.len(),
        &|| store.read_after(b"t", 10_000, Limit::entries(50)).expect("reads").entries.len(),
        &|| store.last(b"t").expect("reads").into_iter().count(),
    ];
    let cost = |read: &dyn Fn() -> usize| {
        assert!(read() > 0);
        counted(read).1
    };
    reads.into_iter().map(cost).collect()
}

#[test]
fn reads_cost_what_they_return_however_many_entries_were_removed_or_edited() {
    let _alone = alone();
    for edits in [false, true] {
        let (_folder, few, store) = scattered(edits, 100);
        let before = read_costs(&store);
        few.flush().expect("flushes");
        let before_flushed = read_costs(&store);
        drop((store, few));
        let (_folder, many, store) = scattered(edits, 13_000);
        let after = read_costs(&store);
        many.flush().expect("flushes");
        let after_flushed = read_costs(&store);
        let all = before.iter().zip(&after).chain(before_flushed.iter().zip(&after_flushed));
        for (few, many) in all {
            let most = |few: usize, more: usize| 2 * few + more;
            let is_same =
                many.calls <= most(few.calls, 40) && many.peak <= most(few.peak, 16 * 1024);
            assert!(is_same, "edits: {edits}, with 100 changes {few:?}, with 13,000 {many:?}");
        }
    }
}
