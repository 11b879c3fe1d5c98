//! Messaging on the simulated disk: the power is cut at every call of a send, a join and a recall in a conversation of 50. Either
//! all who must get the event have it or nobody has, and doing it again gives one (P3, P12).

use std::sync::Arc;

use bytes::Bytes;
use strandline::clock::ManualClock;
use strandline::vfs::Dir;
use strandline::vfs::simulated::{Cut, Dice, Model, Op, SimulatedDisk};
use strandline::{Engine, Limit, World};

use super::event::{Event, Kind};
use super::{Cursor, History, Message, Messaging, Mode, NewConversation, Options, Sending, names};

const MEMBERS: usize = 50;

/// The driver's note in the log: from here on the event may not be lost.
const ACKNOWLEDGED: u64 = 1;

const CONV: &[u8] = b"c";
const NOW_MS: u64 = 1_700_000_000_000;

/// One event that is cut.
struct Scene {
    mode: Mode,
    push_members: usize,
    /// Does it; done again it changes nothing.
    act: fn(&Engine, &Messaging),
    kind: Kind,
    /// Who gets it, besides the founders.
    joiner: Option<&'static str>,
}

impl Scene {
    fn users(&self) -> impl Iterator<Item = String> {
        (0..MEMBERS).map(|number| format!("user-{number}")).chain(self.joiner.map(String::from))
    }

    fn open(&self, disk: &SimulatedDisk) -> (Engine, Messaging) {
        let world = World { dir: Dir::new(Arc::new(disk.clone())), clock: Arc::new(ManualClock::at(NOW_MS)) };
        // Small, so that the event goes through every part.
        let options = strandline::Options {
            memory_budget_bytes: 1,
            wal_file_bytes: 64 * 1024,
            ..strandline::Options::default()
        };
        let engine = Engine::open_in(world, options).expect("what a power cut leaves opens");
        let options = Options { push_members: self.push_members, ..Options::default() };
        let messaging = Messaging::open(&engine, options).expect("its stores are there");
        (engine, messaging)
    }

    /// A conversation with one message, then the event. Gives the log and where the event begins in it.
    fn record(&self) -> (Vec<Op>, usize) {
        let disk = SimulatedDisk::new();
        let (engine, messaging) = self.open(&disk);
        let members = (0..MEMBERS).map(|number| format!("user-{number}").into()).collect();
        let new = NewConversation { mode: self.mode, history: History::All, members };
        messaging.create(CONV, &new).expect("it is new");
        send(&engine, &messaging, "first", "0");
        let start = disk.log_len();
        (self.act)(&engine, &messaging);
        disk.mark(ACKNOWLEDGED);
        engine.close().expect("closes");
        (disk.log(), start)
    }

    /// How often the event stands in the conversation and reaches each who must get it.
    fn counts(&self, messaging: &Messaging) -> Vec<usize> {
        let page = messaging.messages.range(&names::conversation(CONV), .., Limit::entries(100));
        let events = page.expect("reads").entries.into_iter().filter_map(|entry| Event::decode(&entry.body));
        let own = events.filter(|event| self.is_it(event.kind.word(), &event.body)).count();
        let reached = self.users().map(|user| {
            let page = messaging.sync(user.as_bytes(), &Cursor::Oldest, Limit::entries(100)).expect("syncs");
            let shown = page.deliveries.iter().map(|delivery| &delivery.shown);
            shown.filter(|shown| shown.sequence > 0 && self.is_it(shown.kind, &shown.body)).count()
        });
        std::iter::once(own).chain(reached).collect()
    }

    fn is_it(&self, kind: &str, body: &[u8]) -> bool {
        kind == self.kind.word() && body != b"first"
    }

    /// What a cut left; `due`: the event was acknowledged.
    fn judge(&self, disk: &SimulatedDisk, due: bool) -> Result<(), String> {
        let (engine, messaging) = self.open(disk);
        let counts = self.counts(&messaging);
        let (least, most) = (counts.iter().min(), counts.iter().max());
        if least != most {
            return Err(format!("some have it and some have not: {counts:?}"));
        }
        let there = counts[0] > 0;
        if due && !there {
            return Err("it was acknowledged and is lost".into());
        }
        (self.act)(&engine, &messaging);
        (self.act)(&engine, &messaging);
        let again = self.counts(&messaging);
        // A recall shows twice: in the place of the message, and as the event that tells.
        let expected = if self.kind == Kind::Recall { 2 } else { 1 };
        if again.iter().any(|count| *count != expected) || (there && again != counts) {
            return Err(format!("done again, it is there {again:?} times; it was {counts:?}"));
        }
        Ok(())
    }

    /// Cuts the power behind every call of the event, in every way.
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

fn send(engine: &Engine, messaging: &Messaging, body: &'static str, id: &'static str) {
    let message = Message {
        conv: Bytes::from_static(CONV),
        sender: Bytes::from_static(b"user-0"),
        body: body.into(),
        id: Some(id.into()),
        lifetime_ms: 0,
    };
    match messaging.send(&message).expect("the sender is a member") {
        Sending::Commit(commit) => engine.submit(commit.batch).expect("queued").wait().expect("committed"),
        Sending::Known(receipt) => receipt,
    };
}

fn send_second(engine: &Engine, messaging: &Messaging) {
    send(engine, messaging, "second", "1");
}

#[test]
fn a_pushed_send_that_is_cut_reached_all_fifty_or_nobody_and_its_retry_gives_one() {
    let act = send_second;
    Scene { mode: Mode::Push, push_members: 500, act, kind: Kind::Message, joiner: None }.cut_everywhere();
}

#[test]
fn a_pulled_send_that_is_cut_reached_all_fifty_or_nobody_and_its_retry_gives_one() {
    let act = send_second;
    Scene { mode: Mode::Pull, push_members: 500, act, kind: Kind::Message, joiner: None }.cut_everywhere();
}

#[test]
fn a_join_that_switches_from_push_to_pull_and_is_cut_reached_all_or_nobody() {
    let act = |_: &Engine, messaging: &Messaging| {
        messaging.join(CONV, &["late".into()]).expect("there is room");
    };
    let joiner = Some("late");
    Scene { mode: Mode::Auto, push_members: MEMBERS, act, kind: Kind::Join, joiner }.cut_everywhere();
}

#[test]
fn a_recall_that_is_cut_took_the_body_and_told_all_or_did_neither() {
    let act = |_: &Engine, messaging: &Messaging| {
        messaging.recall(CONV, b"user-0", 1, NOW_MS).expect("the ledgers are there");
    };
    Scene { mode: Mode::Push, push_members: 500, act, kind: Kind::Recall, joiner: None }.cut_everywhere();
}
