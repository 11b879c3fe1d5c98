//! Tests of edits and recalls: which members get them, which body each member is shown, and what is
//! refused (P10).

mod cost;
mod remains;

use bytes::Bytes;
use strandline::{Batch, Limit};

use super::event::{Event, Kind};
use super::moments::Table;
use super::{History, Mode, Trouble, Window, names};

const MODES: [Mode; 3] = [Mode::Push, Mode::Pull, Mode::Auto];

impl Table {
    fn edit(&self, conv: &str, sequence: u64, body: &'static str) {
        self.messaging.edit(conv.as_bytes(), b"ann", sequence, &body.into()).expect("it is ann's");
    }

    fn recall(&self, conv: &str, sequence: u64) {
        assert!(self.messaging.recall(conv.as_bytes(), b"ann", sequence).expect("it is ann's"));
    }

    fn leave(&self, conv: &str, user: &'static str) {
        assert_eq!(self.messaging.leave(conv.as_bytes(), &[user.into()]).expect("leaves"), 1);
    }

    fn join(&self, conv: &str, user: &'static str) {
        assert_eq!(self.messaging.join(conv.as_bytes(), &[user.into()]).expect("joins"), 1);
    }

    fn history(&self, conv: &str, user: &str) -> Vec<String> {
        self.history_in(conv, user, Window::After(0))
    }

    fn history_in(&self, conv: &str, user: &str, window: Window) -> Vec<String> {
        let rows =
            self.messaging.history(conv.as_bytes(), user.as_bytes(), window, Limit::entries(100));
        let row = |shown: super::Shown| {
            let body = String::from_utf8_lossy(&shown.body).into_owned();
            format!("{} {} {body} {}", shown.sequence, shown.kind, shown.edited)
        };
        rows.expect("reads").into_iter().map(row).collect()
    }

    /// The number of records in the ledgers of changes of a conversation and of one message.
    fn records(&self, conv: &str, sequence: u64) -> (u64, u64) {
        let state = &self.messaging.state;
        let count = |name: &[u8]| state.info(name).expect("reads").count;
        let (all, one) = (
            names::changes_ledger(conv.as_bytes()),
            names::message_ledger(conv.as_bytes(), sequence),
        );
        (count(&all), count(&one))
    }
}

#[test]
fn a_change_reaches_only_users_who_may_see_the_message() {
    for mode in MODES {
        let table = Table::new();
        table.create_with("room", mode, History::Joined, &["ann", "carl", "gone"]);
        table.send("room", "before"); // 1
        table.join("room", "bob"); // 2
        table.leave("room", "carl"); // 3
        table.send("room", "meanwhile"); // 4
        table.join("room", "carl"); // 5
        table.leave("room", "gone"); // 6
        table.edit("room", 1, "one");
        table.edit("room", 4, "four");
        table.recall("room", 1);
        table.recall("room", 4);
        let changes = |user: &str| -> Vec<String> {
            let is_change = |line: &String| line.contains("edit") || line.contains(" recall");
            table.drain(user, 2).into_iter().filter(is_change).collect()
        };
        let ann = [
            "room 1 recall ",
            "room 4 recall ",
            "room 1 edit ",
            "room 4 edit ",
            "room 1 recall ",
            "room 4 recall ",
        ];
        assert_eq!(changes("ann"), ann, "{mode:?}");
        assert_eq!(
            changes("bob"),
            ["room 4 recall ", "room 4 edit ", "room 4 recall "],
            "{mode:?}: joined behind 1"
        );
        assert_eq!(
            changes("carl"),
            ["room 1 recall ", "room 1 edit ", "room 1 recall "],
            "{mode:?}: was away for 4"
        );
        assert_eq!(
            changes("gone"),
            ["room 1 recall ", "room 4 recall "],
            "{mode:?}: the messages, and no change"
        );
        let with_history = Table::new();
        with_history.create("room", mode, &["ann"]);
        with_history.send("room", "before");
        with_history.join("room", "bob");
        with_history.edit("room", 1, "one");
        assert_eq!(
            with_history.drain("bob", 9),
            ["room 2 join ", "room 1 edit one"],
            "{mode:?}: history all"
        );
    }
}

#[test]
fn a_change_that_an_earlier_version_pushed_to_all_is_hidden_where_the_message_is() {
    let table = Table::new();
    table.create_with("room", Mode::Push, History::Joined, &["ann"]);
    table.send("room", "before");
    table.join("room", "bob");
    let (room, ann) = (Bytes::from_static(b"room"), Bytes::from_static(b"ann"));
    let event = Event {
        sequence: 3,
        about: 1,
        body: "secret".into(),
        ..Event::new(Kind::Edit, &room, &ann)
    };
    let messaging = &table.messaging;
    table.commit(Batch::new().append(&messaging.sync, names::inbox(b"bob"), event.encode()));
    table.commit(Batch::new().append(
        &messaging.messages,
        names::conversation(b"room"),
        event.encode(),
    ));
    table.send("room", "after");
    assert_eq!(table.drain("bob", 1), ["room 2 join ", "room 4 message after"]);
}

#[test]
fn text_that_was_written_after_the_end_of_the_last_membership_is_not_shown() {
    for mode in MODES {
        for history in [History::All, History::Joined] {
            let table = Table::new();
            table.create_with("room", mode, history, &["ann", "carl"]);
            table.send("room", "one"); // 1
            table.send("room", "two"); // 2
            table.send("room", "three"); // 3
            table.edit("room", 1, "first"); // 4
            table.edit("room", 2, "second"); // 5
            table.leave("room", "carl"); // 6
            table.edit("room", 2, "secret");
            table.recall("room", 3);
            let synced = [
                "room 1 message first",
                "room 2 message ",
                "room 3 recall ",
                "room 1 edit first",
                "room 2 edit ",
                "room 6 leave ",
            ];
            assert_eq!(table.drain("carl", 1), synced, "{mode:?} {history:?}");
            let rows = ["1 message first 1", "2 message  2", "3 recall  0", "6 leave  0"];
            assert_eq!(table.history("room", "carl"), rows, "{mode:?} {history:?}");
            table.join("room", "carl");
            let rows = [
                "1 message first 1",
                "2 message secret 2",
                "3 recall  0",
                "6 leave  0",
                "9 join  0",
            ];
            assert_eq!(table.history("room", "carl"), rows, "{mode:?} {history:?}: a member again");
            assert!(
                table.drain("carl", 1).contains(&"room 2 edit secret".to_string()),
                "{mode:?} {history:?}"
            );
        }
    }
}

#[test]
fn every_entry_about_a_message_shows_its_newest_body() {
    for mode in MODES {
        let table = Table::new();
        table.create("room", mode, &["ann", "bob"]);
        table.send("room", "old");
        for body in ["newer", "still newer", "new"] {
            table.edit("room", 1, body);
            table.clock.pass(1);
        }
        let entry = |kind: &str| format!("room 1 {kind} new");
        assert_eq!(
            table.drain("bob", 1),
            ["message", "edit", "edit", "edit"].map(entry),
            "{mode:?}"
        );
        assert_eq!(table.history("room", "bob"), ["1 message new 3"], "{mode:?}");
        let stored = table
            .messaging
            .messages
            .range(names::conversation(b"room"), .., Limit::entries(9))
            .expect("reads");
        let bodies: Vec<Bytes> = stored
            .entries
            .iter()
            .filter_map(|entry| Event::decode(&entry.body))
            .map(|event| event.body)
            .collect();
        assert_eq!(bodies, ["new", "", "", "new"], "{mode:?}: no entry has an old one");
    }
}

#[test]
fn changes_that_are_not_allowed_are_refused_by_name() {
    let table = Table::new();
    table.create("room", Mode::Auto, &["ann", "bob"]);
    table.send("room", "one");
    table.send("room", "two");
    table.recall("room", 2);
    table.join("room", "carl"); // 4
    let messaging = &table.messaging;
    let edit =
        |user: &str, sequence| messaging.edit(b"room", user.as_bytes(), sequence, &"x".into());
    let recall = |user: &str, sequence| messaging.recall(b"room", user.as_bytes(), sequence);
    for (user, sequence) in [("ann", 9), ("nobody", 9), ("ann", 3), ("ann", 4), ("ann", 0)] {
        assert!(matches!(edit(user, sequence), Err(Trouble::NoMessage)), "{user} {sequence}");
        assert!(matches!(recall(user, sequence), Err(Trouble::NoMessage)), "{user} {sequence}");
    }
    assert!(matches!(edit("bob", 2), Err(Trouble::NoMessage)), "it was recalled");
    assert!(matches!(recall("bob", 2), Err(Trouble::NotTheSender)));
    assert!(!recall("ann", 2).expect("it is ann's"), "it was recalled before");
    assert!(matches!(edit("bob", 1), Err(Trouble::NotTheSender)));
    assert!(matches!(recall("nobody", 1), Err(Trouble::NoPermission)));
    table.leave("room", "ann");
    assert!(matches!(edit("ann", 1), Err(Trouble::NoPermission)));
    assert!(matches!(recall("ann", 2), Err(Trouble::NoPermission)));
}

#[test]
fn changes_that_an_earlier_version_recorded_singly_are_known_and_move_to_ledgers_by_message() {
    let table = Table::new();
    table.create("room", Mode::Push, &["ann", "bob"]);
    for body in ["one", "two", "three"] {
        table.send("room", body);
    }
    let messaging = &table.messaging;
    let (room, ann) = (Bytes::from_static(b"room"), Bytes::from_static(b"ann"));
    let (own, ledger) = (names::conversation(b"room"), names::changes_ledger(b"room"));
    let change = |sequence, kind, about, body: &'static str| {
        let event = Event { sequence, about, body: body.into(), ..Event::new(kind, &room, &ann) };
        let note = Event { body: Bytes::new(), ..event.clone() };
        let now = if kind == Kind::Edit { Kind::Message } else { Kind::Recall };
        let now = Event { sequence: about, body: body.into(), ..Event::new(now, &room, &ann) };
        let inbox = names::inbox(b"bob");
        let targets = [(&messaging.messages, own.as_slice()), (&messaging.sync, inbox.as_slice())];
        let batch = Batch::new().fan_out(event.encode(), targets);
        table.commit(batch.append(&messaging.state, &ledger, note.encode()).edit(
            &messaging.messages,
            &own,
            about,
            now.encode(),
        ));
    };
    change(4, Kind::Edit, 1, "first");
    change(5, Kind::Edit, 2, "secret");
    change(6, Kind::Edit, 1, "newest");
    change(7, Kind::Recall, 2, "");
    let mut expected = vec![
        "room 1 message newest",
        "room 2 recall ",
        "room 3 message three",
        "room 1 edit newest",
        "room 2 edit ",
        "room 1 edit newest",
        "room 2 recall ",
    ];
    assert_eq!(table.drain("bob", 2), expected);
    assert!(messaging.has_all_changes(b"room").expect("reads"));
    assert!(messaging.changed_messages(b"room").expect("reads").is_empty());
    table.edit("room", 3, "third");
    assert_eq!(messaging.changed_messages(b"room").expect("reads").len(), 3);
    assert!(messaging.has_all_changes(b"room").expect("reads"));
    (expected[2], expected[6]) = ("room 3 message third", "room 2 recall ");
    expected.push("room 3 edit third");
    assert_eq!(table.drain("bob", 2), expected);
    assert_eq!(table.history("room", "bob")[0], "1 message newest 0", "as it was stored");
    table.edit("room", 1, "again");
    assert_eq!(table.history("room", "bob")[0], "1 message again 3");
    assert!(!messaging.recall(b"room", b"ann", 2).expect("it is ann's"), "recalled long ago");
}
