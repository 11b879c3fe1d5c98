//! Tests of messaging at chosen times: events of one millisecond, expired events, entries that are
//! not events, and how much is read for a page (P10, P11).

use std::sync::Arc;

use bytes::Bytes;
use strandline::clock::ManualClock;
use strandline::vfs::Dir;
use strandline::vfs::simulated::{Dice, SimulatedDisk};
use strandline::{Batch, Engine, Limit, Store, Trim, World};

use super::event::{Event, Kind};
use super::stores::engine_options;
use super::{
    Cursor, Decision, History, Message, Messaging, Mode, NewConversation, Options, Standing,
    SyncPage, names,
};

/// An engine in memory whose time is set by hand.
pub(super) struct Table {
    pub(super) clock: Arc<ManualClock>,
    pub(super) engine: Engine,
    pub(super) messaging: Messaging,
}

impl Table {
    pub(super) fn new() -> Table {
        Table::with(Options::default().push_members)
    }

    pub fn with(push_members: usize) -> Table {
        let clock = Arc::new(ManualClock::at(1_700_000_000_000));
        let world = World { dir: Dir::new(Arc::new(SimulatedDisk::new())), clock: clock.clone() };
        let engine = Engine::open_in(world, engine_options()).expect("opens");
        let messaging = Messaging::open(&engine, Options { push_members, ..Options::default() })
            .expect("its stores are there");
        Table { clock, engine, messaging }
    }

    pub(super) fn create(&self, conv: &str, mode: Mode, members: &[&'static str]) {
        self.create_with(conv, mode, History::All, members);
    }

    pub(super) fn create_with(
        &self,
        conv: &str,
        mode: Mode,
        history: History,
        members: &[&'static str],
    ) {
        let members = members.iter().map(|user| Bytes::from_static(user.as_bytes())).collect();
        let new = NewConversation { mode, history, members };
        assert!(self.messaging.create(conv.as_bytes(), &new).expect("it is made"));
    }

    pub fn batch(&self, conv: &str, body: impl Into<Bytes>, lifetime_ms: u64) -> Batch {
        let conv = Bytes::copy_from_slice(conv.as_bytes());
        let message =
            Message { conv, sender: "ann".into(), body: body.into(), id: None, lifetime_ms };
        match self.messaging.decide_send(&message).expect("ann is a member") {
            Decision::Commit(batch, _) => *batch,
            Decision::Known(_) => unreachable!("there is no id"),
        }
    }

    pub(super) fn commit(&self, batch: Batch) {
        self.engine.submit(batch).expect("queued").wait().expect("committed");
    }

    pub(super) fn send(&self, conv: &str, body: &'static str) {
        self.commit(self.batch(conv, body, 0));
    }

    pub fn append(&self, store: &Store, name: &[u8], event: &Event) {
        self.commit(Batch::new().append(store, name, event.encode()));
    }

    pub(super) fn tail(&self, user: &str) -> Cursor {
        let tail = self.messaging.tail(user.as_bytes()).expect("reads");
        self.messaging.cursor(user.as_bytes(), &tail).expect("its own")
    }

    pub(super) fn sync(&self, user: &str, cursor: &Cursor, count: usize) -> SyncPage {
        self.messaging.sync(user.as_bytes(), cursor, Limit::entries(count)).expect("syncs")
    }

    /// Everything that a terminal gets in pages of `count` events.
    pub(super) fn drain(&self, user: &str, count: usize) -> Vec<String> {
        let (mut all, mut cursor) = (Vec::new(), Cursor::Oldest);
        loop {
            let page = self.sync(user, &cursor, count);
            all.extend(event_lines(&page));
            cursor = self.messaging.cursor(user.as_bytes(), &page.cursor).expect("its own");
            if !page.more {
                return all;
            }
        }
    }

    pub(super) fn block_reads(&self) -> u64 {
        self.engine.stats().block_reads
    }
}

/// A body that does not compress.
pub(super) fn incompressible(bytes: usize, seed: u64) -> Vec<u8> {
    let mut dice = Dice::new(seed);
    std::iter::repeat_with(|| dice.below(256) as u8).take(bytes).collect()
}

pub(super) fn event_lines(page: &SyncPage) -> Vec<String> {
    let line = |delivery: &super::Delivery| {
        let (conv, shown) = (String::from_utf8_lossy(&delivery.conv), &delivery.shown);
        format!("{conv} {} {} {}", shown.sequence, shown.kind, String::from_utf8_lossy(&shown.body))
    };
    page.deliveries.iter().map(line).collect()
}

#[test]
fn a_mark_in_the_millisecond_of_its_message_skips_nothing_earlier_elsewhere() {
    let table = Table::new();
    table.create("elsewhere", Mode::Pull, &["ann", "bob"]);
    table.create("room", Mode::Pull, &["ann", "bob"]);
    table.send("elsewhere", "one");
    table.send("elsewhere", "two");
    table.clock.pass(1);
    table.send("room", "three");
    assert!(table.messaging.read(b"room", b"bob", 1).expect("bob is a member"));
    let whole = [
        "elsewhere 1 message one",
        "elsewhere 2 message two",
        "room 1 message three",
        "room 1 read ",
    ];
    for count in [1, 2, 3, 100] {
        assert_eq!(table.drain("bob", count), whole, "in pages of {count}");
    }
}

#[test]
fn a_page_reads_little_of_the_conversations_that_it_does_not_reach() {
    const ROOMS: usize = 40;
    const MESSAGES: usize = 32;
    let table = Table::new();
    for room in 0..ROOMS {
        let conv = format!("room-{room}");
        table.create(&conv, Mode::Pull, &["ann", "bob"]);
        for _ in 0..MESSAGES {
            // Each message takes a block.
            table.commit(table.batch(&conv, incompressible(32 * 1024, 1), 0));
        }
    }
    table.engine.flush().expect("flushes");
    let before = table.block_reads();
    let page = table.sync("bob", &Cursor::Oldest, 1);
    assert_eq!((page.deliveries.len(), page.more), (1, true));
    let reads = table.block_reads() - before;
    assert!(reads < (ROOMS * MESSAGES / 4) as u64, "{reads} blocks for one message");
    assert_eq!(table.drain("bob", 7).len(), ROOMS * MESSAGES);
}

#[test]
fn a_trim_is_reported_also_after_many_pages() {
    for (before, entries) in [(4, 1), (5, 0)] {
        let table = Table::new();
        table.create("room", Mode::Pull, &["ann", "bob", "gone"]);
        table.create("noise", Mode::Pull, &["ann", "carl"]);
        table.messaging.leave(b"room", &["gone".into()]).expect("it was there");
        table.clock.pass(1);
        table.send("noise", "what moves the cursor of who is gone on");
        table.clock.pass(1);
        let [bob, gone] = ["bob", "gone"].map(|user| table.tail(user));
        for body in ["one", "two", "three", "four"] {
            table.send("room", body);
        }
        let ready = |_| table.batch("noise", "", 0);
        let tickets = table.engine.submit_all((0..1100).map(ready).collect());
        tickets
            .into_iter()
            .for_each(|ticket| drop(ticket.expect("queued").wait().expect("committed")));
        let own = names::conversation(b"room");
        // The first sequence is that of the leave.
        table.messaging.messages.trim(&own, Trim::Before(before + 1)).expect("trims");
        let page = table.sync("bob", &bob, 100);
        assert_eq!(
            (page.verdict, page.deliveries.len()),
            (Standing::Trimmed, entries),
            "before {before}"
        );
        let cursor = table.messaging.cursor(b"bob", &page.cursor).expect("its own");
        assert_eq!(table.sync("bob", &cursor, 100).verdict, Standing::Ok, "it was reported");
        assert_eq!(
            table.sync("bob", &Cursor::Oldest, 100).verdict,
            Standing::Ok,
            "the oldest that is kept"
        );
        assert_eq!(table.sync("gone", &gone, 100).verdict, Standing::Ok, "it was for others");
    }
}

#[test]
fn foreign_entries_in_a_timeline_of_messaging_are_skipped() {
    let table = Table::new();
    table.create("pushed", Mode::Push, &["ann", "bob"]);
    table.create("pulled", Mode::Pull, &["ann", "bob"]);
    table.send("pushed", "one");
    let (ann, room) = (Bytes::from_static(b"ann"), Bytes::from_static(b"pushed"));
    let long = Bytes::from(vec![b'x'; 255]);
    let foreign = [
        Event { sequence: 1, ..Event::new(Kind::Message, &long, &ann) },
        Event { sequence: 1, ..Event::new(Kind::Message, &room, &long) },
        Event { sequence: u64::MAX, ..Event::new(Kind::Message, &room, &ann) },
        Event { sequence: 1, about: u64::MAX, ..Event::new(Kind::Edit, &room, &ann) },
        Event { sequence: 1, flags: super::event::PULLED, ..Event::new(Kind::Reset, &room, &ann) },
    ];
    for event in &foreign {
        table.append(&table.messaging.sync, &names::inbox(b"bob"), event);
        table.append(&table.messaging.messages, &names::conversation(b"pulled"), event);
    }
    table.send("pushed", "two");
    table.send("pulled", "three");
    let mut all = table.drain("bob", 1);
    all.sort();
    assert_eq!(all, ["pulled 6 message three", "pushed 1 message one", "pushed 2 message two"]);
}

#[test]
fn a_conversation_is_still_known_to_have_moved_after_its_message_expires() {
    let table = Table::new();
    table.create("room", Mode::Pull, &["ann", "bob"]);
    table.commit(table.batch("room", "soon gone", 1000));
    table.clock.pass(2000);
    let lines =
        table.messaging.pulled.range(names::PULLED_LOG, .., Limit::entries(10)).expect("reads");
    assert_eq!(lines.entries.len(), 1);
    assert_eq!(table.drain("bob", 10).len(), 0, "the message itself is gone");
}

#[test]
fn a_mark_does_not_wait_for_a_long_read_of_the_same_user() {
    let table = Table::new();
    table.create("room", Mode::Pull, &["ann", "bob"]);
    table.send("room", "one");
    let messaging = &table.messaging;
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        let look = messaging.user(b"bob", |ledger| {
            scope.spawn(|| {
                assert!(messaging.read(b"room", b"bob", 1).expect("bob is a member"));
                sender
                    .send(messaging.unread(b"bob", &[]).expect("reads"))
                    .expect("somebody waits for it");
            });
            let unread = receiver
                .recv_timeout(std::time::Duration::from_secs(30))
                .expect("it goes on meanwhile");
            assert_eq!(unread, [("room".into(), 0)]);
            assert_eq!(ledger.state.membership(b"room").map(|membership| membership.read), Some(0));
            Ok(())
        });
        look.expect("reads");
    });
}

#[test]
fn events_outside_of_memberships_and_pushed_events_are_not_read() {
    const MESSAGES: u64 = 3000;
    let table = Table::with(2);
    table.create("room", Mode::Pull, &["ann", "bob"]);
    let say = |conv: &str| {
        let ready = |number| table.batch(conv, incompressible(1024, number), 0);
        let tickets = table.engine.submit_all((0..MESSAGES).map(ready).collect());
        tickets
            .into_iter()
            .for_each(|ticket| drop(ticket.expect("queued").wait().expect("committed")));
    };
    table.messaging.leave(b"room", &["bob".into()]).expect("it was there");
    say("room");
    table.messaging.join(b"room", &["bob".into()]).expect("there is room");
    table.create("growing", Mode::Auto, &["ann", "carl"]);
    say("growing");
    table.messaging.join(b"growing", &["dora".into()]).expect("there is room");
    table
        .engine
        .store("sync")
        .expect("it is there")
        .trim(names::inbox(b"carl"), Trim::Keep(1))
        .expect("trims");
    table.engine.flush().expect("flushes");
    for user in ["bob", "carl"] {
        let before = table.block_reads();
        assert_eq!(table.drain(user, 100).len(), 2, "{user}");
        let reads = table.block_reads() - before;
        assert!(reads < 50, "{reads} blocks for {user}");
    }
}

#[test]
fn a_copy_whose_original_is_gone_shows_what_became_of_it() {
    let shown = |recalled: bool, before: u64| {
        let table = Table::new();
        table.create("room", Mode::Push, &["ann", "bob"]);
        table.send("room", "old");
        let messaging = &table.messaging;
        messaging.edit(b"room", b"ann", 1, &"newer".into()).expect("it is ann's");
        messaging.edit(b"room", b"ann", 1, &"new".into()).expect("it is ann's");
        if recalled {
            assert!(messaging.recall(b"room", b"ann", 1).expect("it is ann's"));
        }
        messaging.messages.trim(names::conversation(b"room"), Trim::Before(before)).expect("trims");
        table.drain("bob", 1)
    };
    for before in 1..=4 {
        assert_eq!(
            shown(false, before),
            ["room 1 message new", "room 1 edit new", "room 1 edit new"]
        );
    }
    for before in 1..=5 {
        assert_eq!(
            shown(true, before),
            ["room 1 recall ", "room 1 edit ", "room 1 edit ", "room 1 recall "]
        );
    }
}
