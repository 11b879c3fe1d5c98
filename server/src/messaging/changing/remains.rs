//! Tests of edits and recalls of messages that their conversation no longer has: the copies that
//! are left in sync timelines decide.

use strandline::Trim;

use super::*;

#[test]
fn a_message_of_which_only_copies_are_left_can_be_changed() {
    for (mode, by_delete) in [(Mode::Push, false), (Mode::Push, true), (Mode::Auto, false)] {
        let table = Table::new();
        table.create("noise", Mode::Push, &["ann", "bob"]);
        table.create("room", mode, &["ann", "bob", "carl"]);
        for body in ["one", "two", "three"] {
            table.send("noise", "between");
            table.send("room", body);
            table.clock.pass(1);
        }
        table.edit("room", 3, "third"); // 4
        let messaging = &table.messaging;
        let own = names::conversation(b"room");
        if by_delete {
            messaging.messages.delete(&own, &[1, 2, 3, 4]).expect("deletes");
        } else {
            messaging.messages.trim(&own, Trim::Before(5)).expect("trims");
        }
        assert!(matches!(messaging.recall(b"room", b"bob", 1), Err(Trouble::NotTheSender)));
        assert!(
            matches!(messaging.recall(b"room", b"ann", 4), Err(Trouble::NoMessage)),
            "an edit is no message"
        );
        table.recall("room", 1); // 5
        assert!(!messaging.recall(b"room", b"ann", 1).expect("it is ann's"), "done before");
        assert!(matches!(messaging.edit(b"room", b"ann", 1, &"x".into()), Err(Trouble::NoMessage)));
        table.edit("room", 2, "second");
        table.edit("room", 3, "last");
        let of_room: Vec<String> =
            table.drain("bob", 2).into_iter().filter(|line| line.starts_with("room")).collect();
        let expected = [
            "room 1 recall ",
            "room 2 message second",
            "room 3 message last",
            "room 3 edit last",
            "room 1 recall ",
            "room 2 edit second",
            "room 3 edit last",
        ];
        assert_eq!(of_room, expected, "{mode:?}");
        messaging.sync.trim(names::inbox(b"ann"), Trim::Keep(0)).expect("trims");
        table.recall("room", 2);
        for user in ["bob", "carl"] {
            messaging.sync.trim(names::inbox(user.as_bytes()), Trim::Keep(0)).expect("trims");
        }
        messaging.messages.trim(&own, Trim::Keep(0)).expect("trims");
        messaging.sync.trim(names::inbox(b"ann"), Trim::Keep(0)).expect("trims");
        assert!(
            matches!(messaging.recall(b"room", b"ann", 3), Err(Trouble::NoMessage)),
            "nothing is kept"
        );
    }
    let table = Table::new();
    table.create("room", Mode::Pull, &["ann", "bob"]);
    table.send("room", "one");
    table.send("room", "two");
    table.edit("room", 2, "second");
    table.messaging.messages.delete(names::conversation(b"room"), &[1, 2]).expect("deletes");
    assert!(matches!(table.messaging.recall(b"room", b"ann", 1), Err(Trouble::NoMessage)));
    table.recall("room", 2);
    assert!(
        !table.messaging.recall(b"room", b"ann", 2).expect("it is ann's"),
        "its edit is still there"
    );
    assert_eq!(table.drain("bob", 5), ["room 2 edit ", "room 2 recall "]);
}

#[test]
fn changes_are_refused_with_the_right_error_when_only_former_members_have_copies() {
    let table = Table::new();
    table.create("room", Mode::Push, &["ann", "bob", "carl"]);
    table.send("room", "one");
    table.send("room", "two");
    table.recall("room", 2);
    table.join("room", "dora"); // 4
    table.send("room", "three"); // 5
    table.leave("room", "carl");
    table.leave("room", "bob");
    table.leave("room", "ann");
    let messaging = &table.messaging;
    messaging.messages.trim(names::conversation(b"room"), Trim::Before(6)).expect("trims");
    for sequence in [1, 2] {
        let refused = messaging.recall(b"room", b"dora", sequence).expect_err("it is ann's");
        assert!(matches!(refused, Trouble::NotTheSender), "{sequence}: {refused}");
    }
    assert!(
        matches!(messaging.recall(b"room", b"dora", 4), Err(Trouble::NoMessage)),
        "a join is no message"
    );
}

#[test]
fn a_copy_of_a_former_member_is_found_when_no_record_names_the_member() {
    let table = Table::new();
    table.create("room", Mode::Push, &["ann", "carl"]);
    table.send("room", "one");
    table.leave("room", "carl"); // 2
    table.join("room", "bob"); // 3
    let messaging = &table.messaging;
    messaging.messages.trim(names::conversation(b"room"), Trim::Before(4)).expect("trims");
    messaging.sync.trim(names::inbox(b"ann"), Trim::Keep(0)).expect("trims");
    for is_cut_short in [false, true] {
        let refused = messaging.recall(b"room", b"bob", 1).expect_err("it is ann's");
        assert!(matches!(refused, Trouble::NotTheSender), "{refused}");
        if !is_cut_short {
            // The ledger is shortened: only the records of a snapshot remain.
            for round in 0..600 {
                let user = format!("guest-{}", round % 3).into();
                messaging.join(b"room", &[Bytes::clone(&user)]).expect("joins");
                messaging.leave(b"room", &[user]).expect("leaves");
            }
        }
    }
    table.recall("room", 1);
    assert_eq!(table.drain("carl", 9)[0], "room 1 recall ");
}

#[test]
fn a_copy_shows_the_newest_body_when_only_its_author_who_left_has_it() {
    let table = Table::new();
    table.create("room", Mode::Push, &["ann", "bob"]);
    table.send("room", "one"); // 1
    table.leave("room", "bob"); // 2
    table.edit("room", 1, "first"); // 3
    table.leave("room", "ann"); // 4
    table.join("room", "bob"); // 5
    table.messaging.messages.trim(names::conversation(b"room"), Trim::Before(5)).expect("trims");
    assert_eq!(table.drain("bob", 1), ["room 1 message first", "room 2 leave ", "room 5 join "]);
}
