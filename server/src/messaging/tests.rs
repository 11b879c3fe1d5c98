//! Tests of messaging on the simulated disk. The power is cut at every call of a send, a join and a
//! recall in a conversation of 50: either all who must get the event have it or nobody has, and
//! repeating the command gives one event (P3, P12). Syncs run in the middle of commits, and must
//! not pass events that they have not seen (P10).

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use strandline::clock::ManualClock;
use strandline::vfs::Dir;
use strandline::vfs::simulated::{Cut, Dice, Model, Op, SimulatedDisk};
use strandline::{Engine, Limit, World};

use super::cursor::{Passed, Position};
use super::event::{Event, Kind};
use super::stores::engine_options;
use super::{Cursor, Decision, History, Message, Messaging, Mode, NewConversation, Options, names};

const MEMBERS: usize = 50;

/// The test's mark in the disk's log: from here on the event must not be lost.
const ACKNOWLEDGED: u64 = 1;

const CONV: &[u8] = b"c";
const NOW_MS: u64 = 1_700_000_000_000;

/// An event during which the power is cut.
struct Scene {
    mode: Mode,
    push_members: usize,
    /// Causes the event; when repeated, changes nothing.
    act: fn(&Messaging),
    kind: Kind,
    /// The user who gets it besides the first members.
    joiner: Option<&'static str>,
}

impl Scene {
    fn users(&self) -> impl Iterator<Item = String> {
        (0..MEMBERS).map(|number| format!("user-{number}")).chain(self.joiner.map(String::from))
    }

    fn open(&self, disk: &SimulatedDisk) -> (Engine, Messaging) {
        let world = World {
            dir: Dir::new(Arc::new(disk.clone())),
            clock: Arc::new(ManualClock::at(NOW_MS)),
        };
        // Small, so that the event reaches every part of the engine.
        let options = engine_options().memory_budget_bytes(1).wal_file_bytes(64 * 1024);
        let engine = Engine::open_in(world, options).expect("what a power cut leaves opens");
        let options = Options { push_members: self.push_members, ..Options::default() };
        let messaging = Messaging::open(&engine, options).expect("its stores are there");
        (engine, messaging)
    }

    /// Creates a conversation with one message, then causes the event. Returns the disk's log, and
    /// where the event begins in it.
    fn record(&self) -> (Vec<Op>, usize) {
        let disk = SimulatedDisk::new();
        let (engine, messaging) = self.open(&disk);
        let members = (0..MEMBERS).map(|number| format!("user-{number}").into()).collect();
        let new = NewConversation { mode: self.mode, history: History::All, members };
        messaging.create(CONV, &new).expect("it is new");
        send(&messaging, "first", "0");
        let start = disk.log_len();
        (self.act)(&messaging);
        disk.mark(ACKNOWLEDGED);
        engine.close().expect("closes");
        (disk.log(), start)
    }

    /// How often the event is in the conversation, and how often it reaches each user who must get
    /// it.
    fn counts(&self, messaging: &Messaging) -> Vec<usize> {
        let page = messaging.messages.range(names::conversation(CONV), .., Limit::entries(100));
        let events =
            page.expect("reads").entries.into_iter().filter_map(|entry| Event::decode(&entry.body));
        let own = events.filter(|event| self.is_it(event.kind.word(), &event.body)).count();
        let reached = self.users().map(|user| {
            let page = messaging
                .sync(user.as_bytes(), &Cursor::Oldest, Limit::entries(100))
                .expect("syncs");
            let shown = page.deliveries.iter().map(|delivery| &delivery.shown);
            shown.filter(|shown| shown.sequence > 0 && self.is_it(shown.kind, &shown.body)).count()
        });
        std::iter::once(own).chain(reached).collect()
    }

    fn is_it(&self, kind: &str, body: &[u8]) -> bool {
        kind == self.kind.word() && body != b"first"
    }

    /// Checks the state after a power cut; `due`: the event was acknowledged.
    fn judge(&self, disk: &SimulatedDisk, due: bool) -> Result<(), String> {
        let (_engine, messaging) = self.open(disk);
        let counts = self.counts(&messaging);
        let (least, most) = (counts.iter().min(), counts.iter().max());
        if least != most {
            return Err(format!("some have it and some have not: {counts:?}"));
        }
        let there = counts[0] > 0;
        if due && !there {
            return Err("it was acknowledged and is lost".into());
        }
        (self.act)(&messaging);
        (self.act)(&messaging);
        let again = self.counts(&messaging);
        // A recall shows twice: in place of the message, and as the event itself.
        let expected = if self.kind == Kind::Recall { 2 } else { 1 };
        if again.iter().any(|count| *count != expected) || (there && again != counts) {
            return Err(format!("done again, it is there {again:?} times; it was {counts:?}"));
        }
        Ok(())
    }

    /// Cuts the power after every call of the event, in every way.
    fn cut_everywhere(&self) {
        let (log, start) = self.record();
        let mut model = Model::default();
        log[..start].iter().for_each(|op| model.apply(op, None));
        let (mut due, mut states) = (false, 0);
        for (place, op) in log.iter().enumerate().skip(start) {
            model.apply(op, None);
            due |= matches!(op, Op::Mark(ACKNOWLEDGED));
            for cut in Cut::ALL {
                for seed in 0..if cut == Cut::Dice { 8 } else { 1 } {
                    let image = model.power_cut(cut, &mut Dice::new(seed + 1000 * place as u64));
                    let judged = self.judge(&SimulatedDisk::from_image(&image), due);
                    assert_eq!(judged, Ok(()), "cut {cut:?} seed {seed} after call {place}");
                    states += 1;
                }
            }
        }
        assert!(due && states > 12, "the event makes calls, and is acknowledged: {states}");
    }
}

fn send(messaging: &Messaging, body: &'static str, id: &'static str) {
    let message = Message {
        conv: Bytes::from_static(CONV),
        sender: Bytes::from_static(b"user-0"),
        body: body.into(),
        id: Some(id.into()),
        lifetime_ms: 0,
    };
    messaging.send(&message).expect("the sender is a member");
}

fn send_second(messaging: &Messaging) {
    send(messaging, "second", "1");
}

#[test]
fn an_interrupted_pushed_send_reached_all_fifty_or_nobody_and_its_retry_makes_it_one() {
    let act = send_second;
    Scene { mode: Mode::Push, push_members: 500, act, kind: Kind::Message, joiner: None }
        .cut_everywhere();
}

#[test]
fn an_interrupted_pulled_send_reached_all_fifty_or_nobody_and_its_retry_makes_it_one() {
    let act = send_second;
    Scene { mode: Mode::Pull, push_members: 500, act, kind: Kind::Message, joiner: None }
        .cut_everywhere();
}

#[test]
fn an_interrupted_join_that_switches_from_push_to_pull_reached_all_or_nobody() {
    let act = |messaging: &Messaging| {
        messaging.join(CONV, &["late".into()]).expect("there is room");
    };
    let joiner = Some("late");
    Scene { mode: Mode::Auto, push_members: MEMBERS, act, kind: Kind::Join, joiner }
        .cut_everywhere();
}

#[test]
fn an_interrupted_recall_removed_the_body_and_notified_all_or_did_neither() {
    let act = |messaging: &Messaging| {
        messaging.recall(CONV, b"user-0", 1).expect("the ledgers are there");
    };
    Scene { mode: Mode::Push, push_members: 500, act, kind: Kind::Recall, joiner: None }
        .cut_everywhere();
}

/// Members of pulled conversations while others write as fast as they can.
struct Crowd {
    engine: Engine,
    messaging: Messaging,
}

impl Crowd {
    fn new() -> Crowd {
        let clock = Arc::new(strandline::clock::SystemClock::new());
        let world = World { dir: Dir::new(Arc::new(SimulatedDisk::new())), clock };
        let engine = Engine::open_in(world, engine_options()).expect("opens");
        let messaging = Messaging::open(&engine, Options::default()).expect("its stores are there");
        Crowd { engine, messaging }
    }

    fn create(&self, conv: &str, members: &[&'static str]) {
        let members = members.iter().map(|user| Bytes::from_static(user.as_bytes())).collect();
        let new = NewConversation { mode: Mode::Pull, history: History::All, members };
        self.messaging.create(conv.as_bytes(), &new).expect("it is new");
    }

    /// Sends messages in groups.
    fn send_many(&self, conv: &str, sender: &'static str, groups: usize) {
        for _ in 0..groups {
            let message = Message {
                conv: Bytes::copy_from_slice(conv.as_bytes()),
                sender: sender.into(),
                body: Bytes::new(),
                id: None,
                lifetime_ms: 0,
            };
            let tickets: Vec<_> = (0..16)
                .map(|_| match self.messaging.decide_send(&message).expect("a member") {
                    Decision::Commit(batch, _) => self.engine.submit(*batch).expect("queued"),
                    Decision::Known(_) => unreachable!("there is no id"),
                })
                .collect();
            tickets.into_iter().for_each(|ticket| drop(ticket.wait().expect("committed")));
        }
    }

    /// Syncs without a pause until `enough` holds and everything has come. If `forgets`, the server
    /// keeps no ends in memory, as after a restart.
    fn follow(
        &self,
        user: &str,
        forgets: bool,
        mut take: impl FnMut(&super::Delivery),
        enough: impl Fn() -> bool,
    ) {
        let mut cursor = Cursor::Oldest;
        loop {
            let over = enough();
            if forgets {
                self.messaging.tails.clear();
            }
            let page =
                self.messaging.sync(user.as_bytes(), &cursor, Limit::entries(50)).expect("syncs");
            page.deliveries.iter().for_each(&mut take);
            cursor = self.messaging.cursor(user.as_bytes(), &page.cursor).expect("its own");
            if over && !page.more {
                return;
            }
        }
    }
}

#[test]
fn a_sync_in_the_middle_of_a_commit_skips_nothing() {
    sync_in_the_middle(&["a", "b", "c", "d"].map(String::from), 1_000);
}

/// More conversations than a cursor can note: the newest millisecond is passed by lines.
#[test]
fn a_sync_in_the_middle_of_a_commit_skips_nothing_of_a_crowd() {
    let rooms: Vec<String> = (0..8).map(|number| format!("{number}-{}", "x".repeat(100))).collect();
    sync_in_the_middle(&rooms, 150);
}

/// One writer for each conversation, and two terminals that sync meanwhile. For one of them the
/// server keeps nothing in memory.
fn sync_in_the_middle(rooms: &[String], groups: usize) {
    let crowd = Crowd::new();
    for conv in rooms {
        crowd.create(conv, &["ann", "bob"]);
    }
    let written = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for conv in rooms {
            let (crowd, written) = (&crowd, &written);
            scope.spawn(move || {
                crowd.send_many(conv, "ann", groups);
                written.fetch_add(1, Ordering::SeqCst);
            });
        }
        for forgets in [false, true] {
            let (crowd, written) = (&crowd, &written);
            scope.spawn(move || {
                let mut ends: HashMap<Bytes, u64> =
                    rooms.iter().map(|conv| (Bytes::copy_from_slice(conv.as_bytes()), 0)).collect();
                let take = |delivery: &super::Delivery| {
                    let end = ends.get_mut(&delivery.conv).expect("one of these");
                    assert_eq!(delivery.shown.sequence, *end + 1, "in {:?}", delivery.conv);
                    *end += 1;
                };
                crowd
                    .follow("bob", forgets, take, || written.load(Ordering::SeqCst) == rooms.len());
                assert!(ends.values().all(|end| *end == 16 * groups as u64), "{ends:?}");
            });
        }
    });
}

/// If no line of a user is left, the user's newest events are found by the end of each
/// conversation.
#[test]
fn the_end_of_a_sync_is_not_after_events_that_it_did_not_read() {
    let crowd = Crowd::new();
    crowd.create("others", &["ann", "carl"]);
    crowd.create("room", &["ann", "bob"]);
    crowd.send_many("others", "ann", 1);
    let (messaging, bob) = (&crowd.messaging, Bytes::from_static(b"bob"));
    let end = messaging.user(b"bob", |ledger| {
        let start = Passed::default();
        let moment = messaging.now();
        let mut moves = moment.moves_since(&bob, &ledger.state, &start)?;
        moment.advance(&ledger.state, &start, &mut moves)?;
        crowd.send_many("room", "ann", 1);
        moment.end_of(&bob, &ledger.state, &moves)
    });
    let end = Position { inbox: 0, pulled: end.expect("reads") };
    let page = messaging.sync(b"bob", &Cursor::At(end), Limit::entries(50)).expect("syncs");
    assert_eq!(page.deliveries.len(), 16);
}

#[test]
fn a_sync_that_a_join_overtakes_starts_again() {
    let crowd = Crowd::new();
    crowd.create("busy", &["ann", "bob"]);
    crowd.create("room", &["ann"]);
    let (messaging, bob) = (&crowd.messaging, Bytes::from_static(b"bob"));
    let sync =
        |ledger: &_| messaging.now().sync_as(&bob, ledger, &Cursor::Oldest, Limit::entries(50));
    std::thread::scope(|scope| {
        let look = messaging.user(b"bob", |ledger| {
            assert!(sync(ledger)?.is_some(), "nothing has moved");
            scope.spawn(|| messaging.join(b"room", &["bob".into()]).expect("there is room"));
            while messaging.state.end(names::user_ledger(b"bob"))?.0 == ledger.version {
                std::thread::yield_now();
            }
            // A later event, which moves the newest line past the join.
            crowd.send_many("busy", "ann", 1);
            assert!(sync(ledger)?.is_none(), "it would pass the room that it does not know");
            Ok(())
        });
        look.expect("reads");
    });
    let page = messaging.sync(b"bob", &Cursor::Oldest, Limit::entries(50)).expect("syncs");
    assert_eq!(page.deliveries.iter().filter(|delivery| delivery.shown.kind == "join").count(), 1);
}
