//! Tests of the cost of edits and recalls: neither the number of changes nor concurrent changes of
//! other messages make anything slow (P7, P9).

use std::sync::atomic::Ordering;

use super::*;
use crate::messaging::moments::incompressible;

#[test]
fn each_change_is_decided_once_however_many_run_at_the_same_time() {
    const EDITORS: u64 = 8;
    const EDITS: u64 = 40;
    let table = Table::new();
    table.create("room", Mode::Pull, &["ann", "bob"]);
    for _ in 0..=EDITORS {
        table.send("room", "x");
    }
    let messaging = &table.messaging;
    let before = messaging.decisions.load(Ordering::Relaxed);
    std::thread::scope(|scope| {
        for sequence in 1..=EDITORS {
            let table = &table;
            scope.spawn(move || (0..EDITS).for_each(|_| table.edit("room", sequence, "new")));
        }
        scope.spawn(|| table.recall("room", EDITORS + 1));
    });
    let decisions = messaging.decisions.load(Ordering::Relaxed) - before;
    assert_eq!(decisions, EDITORS * EDITS + 1, "none is decided again");
}

#[test]
fn ledgers_of_changes_have_as_many_records_as_there_are_changed_messages() {
    let table = Table::new();
    table.create("room", Mode::Pull, &["ann", "bob"]);
    table.send("room", "one");
    table.send("room", "two");
    for round in 1..=300_u64 {
        table.edit("room", 1, "new");
        let (all, one) = table.records("room", 1);
        assert!(all <= 64 && one <= 8, "{all} and {one} records after {round} edits");
    }
    table.recall("room", 2);
    assert!(table.messaging.has_all_changes(b"room").expect("reads"));
    assert_eq!(table.messaging.changed_messages(b"room").expect("reads").len(), 2);
    assert_eq!(table.history("room", "bob"), ["1 message new 300", "2 recall  0"]);
}

#[test]
fn reads_for_a_message_do_not_grow_with_the_changes_of_others() {
    const MESSAGES: u64 = 400;
    let table = Table::new();
    table.create("room", Mode::Pull, &["ann", "bob"]);
    for _ in 0..MESSAGES {
        table.send("room", "x");
    }
    let reads = |changes: u64| {
        for sequence in (2..=MESSAGES).take(changes as usize) {
            table.edit("room", sequence, "new");
        }
        table.engine.flush().expect("flushes");
        let before = table.block_reads();
        table.edit("room", 1, "new");
        table.block_reads() - before
    };
    let (few, many) = (reads(2), reads(MESSAGES));
    assert!(many <= few + 8, "{many} blocks with {MESSAGES} changed messages, {few} with two");
}

#[test]
fn a_history_skips_edits_in_both_directions() {
    const EDITS: u64 = 2000;
    let table = Table::new();
    table.create("room", Mode::Pull, &["ann", "bob"]);
    table.send("room", "one");
    table.send("room", "two");
    for number in 0..EDITS {
        let body = Bytes::from(incompressible(4096, number));
        table.messaging.edit(b"room", b"ann", 1, &body).expect("it is ann's");
    }
    table.edit("room", 1, "new");
    table.send("room", "three");
    table.engine.flush().expect("flushes");
    let last = EDITS + 4;
    let rows = [
        "1 message new 2001".to_string(),
        "2 message two 0".into(),
        format!("{last} message three 0"),
    ];
    let mut newest_first = rows.clone();
    newest_first.reverse();
    let reads = |look: &dyn Fn()| {
        let before = table.block_reads();
        look();
        table.block_reads() - before
    };
    let looks: [(&str, &dyn Fn()); 4] = [
        ("newest", &|| assert_eq!(table.history_in("room", "bob", Window::Newest), newest_first)),
        ("after", &|| assert_eq!(table.history("room", "bob"), rows)),
        ("unread", &|| assert_eq!(table.messaging.unread(b"bob", &[]).expect("reads")[0].1, 3)),
        ("list", &|| {
            let listed =
                table.messaging.conversations(b"bob", b"", Limit::entries(9)).expect("reads");
            assert_eq!(listed.items[0].last.sequence, last);
        }),
    ];
    for (what, look) in looks {
        let blocks = reads(look);
        assert!(blocks < EDITS / 8, "{blocks} blocks for {what}");
    }
}
