//! Trims and deletes in batches: atomic with appends, one after the other in a timeline.

use strandline::{Batch, Error, Limit, Sequence, Store, Trim, Verdict};

use crate::world::House;

fn sequences(store: &Store, timeline: &[u8]) -> Vec<Sequence> {
    let page = store.range(timeline, .., Limit::entries(1000)).expect("reads");
    page.entries.iter().map(|entry| entry.sequence).collect()
}

fn fill(store: &Store, timeline: &[u8], count: usize) {
    for _ in 0..count {
        store.append(timeline, b"body").expect("appends");
    }
}

#[test]
fn a_trim_keeps_the_entries_of_its_own_batch_and_counts_what_it_removes() {
    let house = House::new();
    let (engine, store) = house.open();
    for number in 1..=10 {
        let batch = Batch::new().append(&store, b"t", b"new").trim(&store, b"t", Trim::Keep(2));
        let receipt = engine.commit(batch).expect("commits");
        assert_eq!(receipt.sequences, [number]);
        assert_eq!(receipt.removed, u64::from(number > 3), "append {number}");
    }
    assert_eq!(sequences(&store, b"t"), [8, 9, 10]);
    assert_eq!(
        store.read_after(b"t", 3, Limit::entries(9)).expect("reads").verdict,
        Verdict::Trimmed
    );
    engine.flush().expect("flushes");
    drop((engine, store));
    assert_eq!(sequences(&house.open().1, b"t"), [8, 9, 10], "after another opening");
}

#[test]
fn a_batch_that_is_refused_removes_nothing() {
    let house = House::new();
    let (engine, store) = house.open();
    fill(&store, b"t", 5);
    let batch = Batch::new().append(&store, b"a", b"x").if_last(7);
    let batch = batch.trim(&store, b"t", Trim::Keep(1)).delete(&store, b"u", [1]);
    assert!(matches!(engine.commit(batch), Err(Error::LastSequence { .. })));
    assert_eq!(sequences(&store, b"t"), [1, 2, 3, 4, 5]);
    assert_eq!(store.trim(b"t", Trim::Keep(1)).expect("its turn is free"), 4);
}

#[test]
fn removals_of_one_timeline_that_are_submitted_together_come_one_after_the_other() {
    let house = House::new();
    let (engine, store) = house.open();
    fill(&store, b"t", 9);
    let delete = |sequence| Batch::new().delete(&store, b"t", [sequence]);
    let batches = vec![
        delete(1),
        delete(2),
        Batch::new().trim(&store, b"t", Trim::Before(5)),
        delete(4),
        delete(5),
    ];
    let removed: Vec<u64> = engine
        .submit_all(batches)
        .into_iter()
        .map(|ticket| ticket.expect("is queued").wait().expect("commits").removed)
        .collect();
    assert_eq!(removed, [1, 1, 2, 0, 1]);
    let info = store.info(b"t").expect("reads");
    assert_eq!((info.first, info.count), (6, 4), "the floor is at an entry that exists");
    assert_eq!(engine.stats().get("trimmed_total"), Some(5));
}

#[test]
fn removals_by_many_threads_remove_each_entry_once() {
    let house = House::new();
    let (engine, store) = house.open();
    for timeline in [b"a", b"b"] {
        fill(&store, timeline, 64);
    }
    let removed: u64 = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4_u64)
            .map(|thread| {
                let (engine, store) = (&engine, &store);
                scope.spawn(move || {
                    let commit = |sequence: u64| {
                        // Two timelines in both orders.
                        let (one, other) =
                            if thread % 2 == 0 { (b"a", b"b") } else { (b"b", b"a") };
                        let batch = Batch::new().delete(store, one, [sequence]);
                        let batch = batch.trim(store, other, Trim::Before(sequence));
                        engine.commit(batch).expect("commits").removed
                    };
                    (1..=64).map(commit).sum::<u64>()
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().expect("no panic")).sum()
    });
    assert_eq!(removed, 128);
    for timeline in [b"a", b"b"] {
        assert_eq!(sequences(&store, timeline), []);
    }
}

#[test]
fn a_removal_is_not_prepared_by_itself() {
    let house = House::new();
    let (engine, store) = house.open();
    fill(&store, b"t", 3);
    let batch = Batch::new().append(&store, b"t", b"x").trim(&store, b"t", Trim::Keep(1));
    let refused = engine.prepare(batch).expect_err("its turn would wait for another call");
    assert!(refused.to_string().contains("use commit, submit or submit_all"), "{refused}");
    assert_eq!(store.trim(b"t", Trim::Keep(1)).expect("its turn is free"), 2);
}

#[test]
fn a_condition_holds_for_a_batch_that_finds_nothing_to_remove() {
    let house = House::new();
    let (engine, store) = house.open();
    fill(&store, b"ledger", 7);
    let batch = |last| {
        let batch = Batch::new().trim(&store, b"t", Trim::Keep(0));
        engine.commit(batch.if_last_of(&store, b"ledger", last))
    };
    assert_eq!(batch(7).expect("it holds").removed, 0);
    assert!(matches!(batch(6), Err(Error::LastSequence { last: 7, .. })));
}

#[test]
fn a_repeat_with_an_id_removes_nothing_more() {
    let house = House::new();
    let (engine, store) = house.open();
    fill(&store, b"t", 5);
    let batch = |keep| {
        let batch = Batch::new().append(&store, b"t", b"new").trim(&store, b"t", Trim::Keep(keep));
        engine.commit(batch.id(b"id"))
    };
    let first = batch(2).expect("commits");
    assert_eq!((first.removed, first.duplicate), (3, false));
    let repeat = batch(2).expect("is known");
    assert_eq!((repeat.removed, repeat.duplicate, repeat.sequences), (0, true, first.sequences));
    assert_eq!(sequences(&store, b"t"), [4, 5, 6]);
    assert!(matches!(batch(1), Err(Error::IdConflict { .. })), "another removal");
}

#[test]
fn a_batch_removes_from_a_timeline_once() {
    let house = House::new();
    let (engine, store) = house.open();
    fill(&store, b"t", 3);
    let batch = Batch::new().trim(&store, b"t", Trim::Before(2)).delete(&store, b"t", [3]);
    assert!(matches!(engine.commit(batch), Err(Error::Invalid { .. })));
    let mut two = Batch::new();
    for timeline in [b"t", b"u"] {
        two.add(|batch| batch.trim(&store, timeline, Trim::Keep(0)));
    }
    assert_eq!(engine.commit(two).expect("commits").removed, 3);
}

#[test]
fn removals_in_a_dropped_store_are_refused() {
    let house = House::new();
    let (engine, _) = house.open();
    let other = engine.create_store("other", None).expect("creates");
    fill(&other, b"t", 3);
    engine.drop_store("other", true).expect("drops");
    assert!(matches!(other.trim(b"t", Trim::Keep(0)), Err(Error::StoreDropped)));
    assert!(matches!(other.delete(b"t", &[1]), Err(Error::StoreDropped)));
}
