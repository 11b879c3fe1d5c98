//! Tests of lost ledgers, which are rebuilt from other ledgers, from events and from copies.

use strandline::Batch;

use super::*;
use crate::messaging::event::{Event, Kind};
use crate::messaging::names;
use crate::messaging::stores::{WEEK_MS, limit_of};

/// Removes ledgers, as a salvage does with those that it cannot read.
fn lose(fixture: &DamageFixture, is_lost: impl Fn(&str) -> bool) {
    let state = &fixture.messaging.state;
    for name in state.list(b"", None, 1000).expect("lists") {
        if is_lost(&String::from_utf8_lossy(&name)) {
            assert!(state.drop_timeline(&name).expect("drops"));
        }
    }
}

/// Removes ledgers and rebuilds them. Returns the lost ledgers, the rebuilt conversations, and the
/// fixture.
fn rebuilt(is_lost: impl Fn(&str) -> bool) -> (LostLedgers, Vec<(Bytes, usize)>, DamageFixture) {
    let (image, now_ms) = scene(true);
    let disk = SimulatedDisk::from_image(&image);
    let fixture = open(&disk, now_ms);
    lose(&fixture, is_lost);
    drop(fixture);
    let fixture = open(&disk, now_ms);
    let lost = fixture.messaging.lost_ledgers().expect("reads");
    let mut all = Vec::new();
    let result =
        fixture.messaging.rebuild(|rebuilt| all.push((rebuilt.conv.clone(), rebuilt.members)));
    assert_eq!(result.expect("rebuilds"), lost);
    assert_eq!(
        fixture.messaging.lost_ledgers().expect("reads"),
        LostLedgers::default(),
        "nothing is lost now"
    );
    (lost, all, fixture)
}

fn members(fixture: &DamageFixture, conv: &str) -> Vec<Bytes> {
    fixture.messaging.members(conv.as_bytes(), b"", 100).expect("it is there")
}

#[test]
fn a_lost_ledger_is_refused_by_name_until_it_is_rebuilt_from_those_of_its_members() {
    let (image, now_ms) = scene(true);
    let fixture = open(&SimulatedDisk::from_image(&image), now_ms);
    let whole: Vec<_> = conversations().map(|conv| members(&fixture, conv)).collect();
    lose(&fixture, |name| name.starts_with("c/"));
    let fresh = Messaging::open(&fixture.engine, Options::default()).expect("opens");
    let refused = fresh.members(b"red", b"", 10).expect_err("its ledger is gone");
    assert!(refused.to_string().contains("im.state:c/red"), "{refused}");

    let (lost, all, fixture) = rebuilt(|name| name.starts_with("c/"));
    assert_eq!((lost.conversations.len(), lost.users.len(), all.len()), (4, 0, 4));
    assert_eq!(conversations().map(|conv| members(&fixture, conv)).collect::<Vec<_>>(), whole);
    fixture.send("red", "bob", "again".into()).expect("bob is a member");
    assert!(fixture.drain("carl", 100).iter().any(|event| event.3 == "again"));
}

#[test]
fn a_ledger_that_lost_its_last_records_is_refused_by_name_until_it_is_rebuilt() {
    let (image, now_ms) = scene(true);
    let fixture = open(&SimulatedDisk::from_image(&image), now_ms);
    let whole = unread(&fixture, "bob");
    let state = &fixture.messaging.state;
    let name = names::user_ledger(b"bob");
    let (last, _) = state.end(&name).expect("it is there");
    assert_eq!(state.delete(&name, &[last]).expect("deletes"), 1);
    let fresh = Messaging::open(&fixture.engine, Options::default()).expect("opens");
    let refused = fresh.unread(b"bob", &[]).expect_err("its end is gone");
    assert!(refused.to_string().contains("im.state:u/bob"), "{refused}");
    assert_eq!(fresh.lost_ledgers().expect("looks").users, [Bytes::from("bob")]);
    fresh.rebuild(|_| ()).expect("rebuilds");
    let fresh = Messaging::open(&fixture.engine, Options::default()).expect("opens");
    assert!(fresh.lost_ledgers().expect("looks").users.is_empty());
    assert!(fresh.unread(b"bob", &[]).expect("it is known again").len() as u64 >= whole.min(1));
}

#[test]
fn ledgers_that_are_all_lost_are_rebuilt_from_events_and_copies() {
    let (image, now_ms) = scene(true);
    let before = open(&SimulatedDisk::from_image(&image), now_ms);
    let (lost, _, fixture) = rebuilt(|_| true);
    assert_eq!((lost.conversations.len(), lost.users.len()), (4, 4));
    for conv in PUSHED {
        assert_eq!(members(&fixture, conv), members(&before, conv), "{conv}");
    }
    assert_eq!(
        members(&fixture, PULLED),
        ["carl"],
        "of who never said anything in it nothing tells"
    );
    for (conv, user) in [("red", "ann"), ("green", "dora"), ("joined", "carl")] {
        let (now, then) = (
            fixture.history(conv, user, Window::Newest),
            before.history(conv, user, Window::Newest),
        );
        let kept = now.iter().filter(|event| then.contains(event)).count();
        assert!(kept + 2 >= then.len() && now.len() == then.len(), "{conv} {user}: {now:?}");
    }
    let of_pushed = |fixture: &DamageFixture| -> Vec<Summary> {
        fixture.drain("ann", 100).into_iter().filter(|event| event.0 == "joined").collect()
    };
    assert_eq!(of_pushed(&fixture), of_pushed(&before));
    let changes = |fixture: &DamageFixture| -> Vec<(u8, u64, u64)> {
        let known = fixture.messaging.changed_messages(b"red").expect("reads");
        known.iter().map(|(about, became)| (became.kind as u8, *about, became.sequence)).collect()
    };
    assert_eq!(changes(&fixture), changes(&before));
    assert_eq!(changes(&fixture).len(), 1, "one message was recalled");
}

#[test]
fn a_user_whose_ledger_is_lost_is_a_member_where_the_conversations_say() {
    let (lost, all, fixture) = rebuilt(|name| name == "u/bob");
    assert_eq!((lost.conversations.len(), lost.users, all.len()), (0, vec![Bytes::from("bob")], 0));
    let counts = fixture.messaging.unread(b"bob", &[]).expect("bob is known");
    let convs: Vec<&[u8]> = counts.iter().map(|(conv, _)| conv.as_ref()).collect();
    assert_eq!(convs, [b"joined".as_slice(), b"lake", b"red"]);
    assert!(fixture.drain("bob", 100).iter().any(|event| event.0 == PULLED));
}

/// Appends the entries of some stores to another engine, with their sequences, store by store, as
/// an import does.
fn import(fixture: &DamageFixture, into: &DamageFixture, stores: &[&str]) {
    let engine = &into.engine;
    crate::messaging::forget_lines(engine).expect("is written");
    for name in stores {
        into.clock.pass(5000);
        let (from, to) =
            (fixture.engine.store(name).expect("it is there"), engine.create_store(name, None));
        let to = to.or_else(|_| engine.store(name)).expect("it is made");
        let timelines = from.list(b"", None, 1000).expect("lists");
        for timeline in
            timelines.into_iter().filter(|timeline| !crate::messaging::is_mark(name, timeline))
        {
            for entry in from.range(&timeline, .., Limit::entries(1000)).expect("reads").entries {
                let batch =
                    Batch::new().append(&to, &timeline, &entry.body).sequence(entry.sequence);
                engine.submit(batch).expect("queued").wait().expect("committed");
            }
        }
    }
    into.clock.pass(1);
}

fn opened(clock: &Arc<ManualClock>, engine: &Engine) -> DamageFixture {
    let messaging = Messaging::open(engine, Options::default()).expect("opens");
    clock.pass(1);
    DamageFixture { clock: Arc::clone(clock), engine: engine.clone(), messaging }
}

/// A directory on which a server was started once, and into which the stores were then imported.
fn moved(fixture: &DamageFixture, stores: &[&str]) -> DamageFixture {
    let empty = open(&SimulatedDisk::new(), fixture.engine.now_ms());
    import(fixture, &empty, stores);
    opened(&empty.clock, &empty.engine)
}

/// The same without a start before the import.
fn moved_to_nothing(fixture: &DamageFixture, stores: &[&str]) -> DamageFixture {
    let clock = Arc::new(ManualClock::at(fixture.engine.now_ms()));
    let engine = engine_on(&SimulatedDisk::new(), &clock);
    let other = open(&SimulatedDisk::new(), fixture.engine.now_ms());
    let empty = DamageFixture {
        clock: Arc::clone(&clock),
        engine: engine.clone(),
        messaging: other.messaging,
    };
    import(fixture, &empty, stores);
    opened(&clock, &engine)
}

fn of_lake(fixture: &DamageFixture, user: &str) -> Vec<Summary> {
    fixture.drain(user, 7).into_iter().filter(|event| event.0 == PULLED).collect()
}

fn whole_scene() -> DamageFixture {
    let (image, now_ms) = scene(true);
    open(&SimulatedDisk::from_image(&image), now_ms)
}

#[test]
fn a_terminal_continues_from_the_end_of_an_import() {
    let before = whole_scene();
    let fixture = moved_to_nothing(&before, &["im.pulled", "im.state", "messages", "sync"]);
    for user in USERS {
        let tail = fixture.messaging.tail(user.as_bytes()).expect("reads");
        let cursor = fixture.messaging.cursor(user.as_bytes(), &tail).expect("its own");
        let page =
            fixture.messaging.sync(user.as_bytes(), &cursor, Limit::entries(9)).expect("syncs");
        assert_eq!(
            (page.verdict, page.deliveries.len()),
            (super::super::Standing::Ok, 0),
            "{user}"
        );
        assert_eq!(of_lake(&fixture, user)[..40], of_lake(&before, user), "{user}");
        fixture.send(PULLED, "ann", "new".into()).expect("ann is a member");
        let page =
            fixture.messaging.sync(user.as_bytes(), &cursor, Limit::entries(9)).expect("syncs");
        assert_eq!(summary(&page.deliveries[0]).3, "new", "{user}");
    }
    let stores = fixture.engine.stores();
    let lines = stores.iter().find(|store| store.name == "im.pulled").expect("it is there");
    assert_eq!(lines.ttl, limit_of(WEEK_MS), "an import makes stores without TTL");
}

#[test]
fn events_without_ledgers_are_refused_by_name_and_pulled_ones_are_shown_after_a_rebuild() {
    let before = whole_scene();
    let fixture = moved(&before, &["messages", "sync"]);
    let messaging = &fixture.messaging;
    let refused = [
        messaging.members(b"red", b"", 9).map(drop),
        messaging.members(b"none", b"", 9).map(drop),
        messaging.info(b"red").map(drop),
        fixture.send("red", "ann", "new".into()),
        messaging.unread(b"ann", &[]).map(drop),
        messaging.tail(b"ann").map(drop),
        messaging.sync(b"ann", &Cursor::Oldest, Limit::entries(9)).map(drop),
        messaging
            .create(
                b"red",
                &NewConversation {
                    mode: Mode::Push,
                    history: History::All,
                    members: vec!["ann".into()],
                },
            )
            .map(drop),
    ];
    for (at, refused) in refused.into_iter().enumerate() {
        let trouble = refused.expect_err("its ledger is lost");
        assert!(trouble.is_damage(), "{at}: {trouble}");
        let text = trouble.to_string();
        assert!(text.contains("im.state:") && text.contains("rebuild-members"), "{at}: {text}");
    }
    messaging.rebuild(|_| ()).expect("rebuilds");
    fixture.clock.pass(1);
    assert!(matches!(messaging.members(b"none", b"", 9), Err(Trouble::NotFound)));
    assert!(of_lake(&before, "carl").len() > 10);
    assert_eq!(
        of_lake(&fixture, "carl"),
        of_lake(&before, "carl"),
        "no line tells of them any more"
    );
    let tail = messaging.tail(b"carl").expect("reads");
    let cursor = messaging.cursor(b"carl", &tail).expect("his");
    fixture.send(PULLED, "carl", "new".into()).expect("carl is a member");
    let page = messaging.sync(b"carl", &cursor, Limit::entries(9)).expect("syncs");
    assert_eq!(page.deliveries.iter().map(|one| summary(one).3).collect::<Vec<_>>(), ["new"]);
}

#[test]
fn a_user_who_left_is_not_rebuilt_as_a_member_when_only_copies_show_it() {
    let fixture = open(&SimulatedDisk::new(), START_MS);
    fixture.create("room", Mode::Push, &["ann", "bob", "carl"]);
    fixture.send("room", "ann", "one".into()).expect("sent");
    let users = |user: &'static str| [Bytes::from_static(user.as_bytes())];
    fixture.messaging.leave(b"room", &users("bob")).expect("leaves");
    fixture.messaging.leave(b"room", &users("carl")).expect("leaves");
    fixture.messaging.join(b"room", &users("carl")).expect("joins");
    fixture.send("room", "ann", "two".into()).expect("sent");
    fixture.messaging.messages.trim(names::conversation(b"room"), Trim::Keep(1)).expect("trims");
    let fixture = moved(&fixture, &["messages", "sync"]);
    fixture.messaging.rebuild(|_| ()).expect("rebuilds");
    assert_eq!(members(&fixture, "room"), ["ann", "carl"]);
}

#[test]
fn pulled_events_are_shown_after_an_import_whatever_lines_came_with_it() {
    let before = whole_scene();
    let events = of_lake(&before, "carl");
    for stores in [
        ["im.state", "messages", "sync"].as_slice(),
        &["im.pulled", "im.state", "messages", "sync"],
    ] {
        assert_eq!(of_lake(&moved(&before, stores), "carl"), events, "{stores:?}");
        assert_eq!(of_lake(&moved_to_nothing(&before, stores), "carl"), events, "{stores:?}");
    }
    // Into a directory that has a conversation with its own lines, and after a start that was
    // interrupted between the new line and its trim.
    let own = open(&SimulatedDisk::new(), before.engine.now_ms());
    own.create("own", Mode::Pull, &["zoe"]);
    own.send("own", "zoe", "x".into()).expect("sent");
    import(&before, &own, &["im.state", "messages", "sync"]);
    let line = Event::new(Kind::Reset, &Bytes::new(), &Bytes::new()).encode();
    own.messaging.pulled.append(names::PULLED_LOG, &line).expect("appends");
    assert_eq!(of_lake(&opened(&own.clock, &own.engine), "carl"), events);
    // A complete log is kept.
    let kept = |fixture: &DamageFixture| {
        fixture.messaging.pulled.info(names::PULLED_LOG).expect("reads").count
    };
    assert_eq!((kept(&before), kept(&opened(&before.clock, &before.engine))), (40, 40));
}

#[test]
fn a_user_who_came_back_is_rebuilt_as_a_member_when_only_a_message_shows_it() {
    let fixture = open(&SimulatedDisk::new(), START_MS);
    let fixture = DamageFixture {
        messaging: Messaging::open(
            &fixture.engine,
            Options { push_members: 3, ..Options::default() },
        )
        .expect("opens"),
        ..fixture
    };
    fixture.create("room", Mode::Auto, &["ann", "bob", "carl"]);
    fixture.messaging.leave(b"room", &["bob".into()]).expect("leaves");
    for user in ["dora", "erin", "bob"] {
        fixture.messaging.join(b"room", &[user.into()]).expect("joins");
    }
    fixture.send("room", "bob", "here I am".into()).expect("bob is a member");
    fixture.messaging.messages.trim(names::conversation(b"room"), Trim::Keep(1)).expect("trims");
    fixture.messaging.messages.append(names::conversation(b"raw"), b"no event").expect("appends");
    let fixture = moved(&fixture, &["messages", "sync"]);
    fixture.messaging.rebuild(|_| ()).expect("a timeline that is no conversation's is passed over");
    assert!(members(&fixture, "room").contains(&"bob".into()));
}

#[test]
fn a_join_counts_when_only_later_records_of_the_user_are_left() {
    for is_conversation_lost in [true, false] {
        let fixture = open(&SimulatedDisk::new(), START_MS);
        fixture.create("room", Mode::Push, &["ann"]);
        fixture.messaging.join(b"room", &["zed".into()]).expect("joins"); // 1
        fixture.messaging.leave(b"room", &["zed".into()]).expect("leaves"); // 2
        fixture.send("room", "ann", "one".into()).expect("sent"); // 3
        fixture.messaging.join(b"room", &["zed".into()]).expect("joins"); // 4
        fixture.send("room", "ann", "two".into()).expect("sent"); // 5
        fixture.messaging.read(b"room", b"zed", 5).expect("reads");
        let state = &fixture.messaging.state;
        let ledger = names::user_ledger(b"zed");
        assert_eq!(state.delete(&ledger, &[1, 2, 3]).expect("deletes"), 3, "the read mark is left");
        if is_conversation_lost {
            lose(&fixture, |name| name == "c/room");
        }
        let fixture = opened(&fixture.clock, &fixture.engine);
        fixture.messaging.rebuild(|_| ()).expect("rebuilds");
        assert_eq!(members(&fixture, "room"), ["ann", "zed"]);
        let bodies: Vec<u64> =
            fixture.history("room", "zed", Window::Newest).iter().map(|event| event.1).collect();
        assert_eq!(bodies, [5, 4, 3, 2, 1]);
        assert_eq!(
            fixture.messaging.unread(b"zed", &[]).expect("reads"),
            [(Bytes::from("room"), 0)],
            "the mark is kept"
        );
        let ledger = fixture.messaging.users.snapshot(&ledger).expect("reads");
        let membership = ledger.state.membership(b"room").expect("it is known");
        assert_eq!(
            membership.periods.all().collect::<Vec<_>>(),
            [(1, 2), (4, strandline::MAX_SEQUENCE)]
        );
    }
}

#[test]
fn an_import_with_ledgers_last_shows_who_left_and_what_was_edited_as_before() {
    let before = open(&SimulatedDisk::new(), START_MS);
    for (conv, mode) in [("push", Mode::Push), ("pull", Mode::Pull)] {
        before.create(conv, mode, &["ann", "bob"]);
        before.send(conv, "ann", "one".into()).expect("sent");
        before.clock.pass(10);
        before.messaging.edit(conv.as_bytes(), b"ann", 1, &"uno".into()).expect("it is ann's");
        before.clock.pass(10);
        before.send(conv, "ann", "two".into()).expect("sent");
        before.messaging.leave(conv.as_bytes(), &["bob".into()]).expect("leaves");
        before.send(conv, "ann", "three".into()).expect("sent");
    }
    let fixture = moved(&before, &["messages", "sync", "im.pulled", "im.state"]);
    let shown = |fixture: &DamageFixture, user: &str| {
        let page = fixture
            .messaging
            .sync(user.as_bytes(), &Cursor::Oldest, Limit::entries(100))
            .expect("syncs");
        let mut rows: Vec<(Summary, u64)> =
            page.deliveries.iter().map(|one| (summary(one), one.shown.edited)).collect();
        rows.sort();
        rows
    };
    for user in ["ann", "bob"] {
        assert_eq!(shown(&fixture, user), shown(&before, user), "{user}");
    }
    assert!(shown(&before, "bob").iter().any(|(_, edited)| *edited == 1));
}
