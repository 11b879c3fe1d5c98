//! Tests of messaging on damaged files (P5). After one flipped bit, or one missing file, every
//! command of every user answers; events that one of the stores `messages` and `sync` has lost are
//! read from the other; and every event that is missing is reported. If both copies of an index are
//! damaged, only the commands that need it are refused, with the name of the file. Events lost in
//! both stores are shown as damaged or lost.

mod ledgers;
mod twins;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use strandline::clock::ManualClock;
use strandline::format::header::FileHeader;
use strandline::vfs::Dir;
use strandline::vfs::simulated::{Image, SimulatedDisk};
use strandline::{Engine, Limit, Trim, World};

use super::stores::engine_options;
use super::{
    Cursor, Delivery, History, LostLedgers, Message, Messaging, Mode, NewConversation, Options,
    Trouble, Window,
};

const START_MS: u64 = 1_700_000_000_000;
const USERS: [&str; 4] = ["ann", "bob", "carl", "dora"];
const PUSHED: [&str; 3] = ["red", "green", "joined"];
const PULLED: &str = "lake";

struct DamageFixture {
    clock: Arc<ManualClock>,
    engine: Engine,
    messaging: Messaging,
}

fn engine_on(disk: &SimulatedDisk, clock: &Arc<ManualClock>) -> Engine {
    let world = World { dir: Dir::new(Arc::new(disk.clone())), clock: clock.clone() };
    Engine::open_in(world, engine_options()).expect("what a bit harms opens")
}

fn open(disk: &SimulatedDisk, now_ms: u64) -> DamageFixture {
    let clock = Arc::new(ManualClock::at(now_ms));
    let engine = engine_on(disk, &clock);
    let messaging = Messaging::open(&engine, Options::default()).expect("its stores are there");
    DamageFixture { clock, engine, messaging }
}

/// The parts of an event that a terminal keeps.
type Summary = (String, u64, String, String);

fn summary(delivery: &Delivery) -> Summary {
    let shown = &delivery.shown;
    let text = |bytes: &Bytes| String::from_utf8_lossy(bytes).into_owned();
    let kind = if shown.is_damaged { "damaged" } else { shown.kind };
    (text(&delivery.conv), shown.sequence, kind.to_string(), text(&shown.body))
}

impl DamageFixture {
    fn create(&self, conv: &str, mode: Mode, members: &[&'static str]) {
        let members = members.iter().map(|user| Bytes::from_static(user.as_bytes())).collect();
        let new = NewConversation { mode, history: History::All, members };
        assert!(self.messaging.create(conv.as_bytes(), &new).expect("it is made"));
    }

    fn send(&self, conv: &str, sender: &'static str, body: String) -> Result<(), super::Trouble> {
        let conv = Bytes::copy_from_slice(conv.as_bytes());
        let message =
            Message { conv, sender: sender.into(), body: body.into(), id: None, lifetime_ms: 0 };
        self.messaging.send(&message).map(drop)
    }

    /// Everything that a new terminal of a user gets, in pages of `count` events.
    fn drain(&self, user: &str, count: usize) -> Vec<Summary> {
        let (mut all, mut cursor) = (Vec::new(), Cursor::Oldest);
        for _ in 0..10_000 {
            let page = self.messaging.sync(user.as_bytes(), &cursor, Limit::entries(count));
            let page = page.unwrap_or_else(|trouble| panic!("{user} syncs: {trouble}"));
            all.extend(page.deliveries.iter().map(summary));
            cursor = self.messaging.cursor(user.as_bytes(), &page.cursor).expect("its own");
            if !page.more {
                return all;
            }
        }
        panic!("{user} never comes to the end");
    }

    fn history(&self, conv: &str, user: &str, window: Window) -> Vec<Summary> {
        let shown =
            self.messaging.history(conv.as_bytes(), user.as_bytes(), window, Limit::entries(1000));
        let shown = shown.unwrap_or_else(|trouble| panic!("{user} reads {conv}: {trouble}"));
        let text = |bytes: &Bytes| String::from_utf8_lossy(bytes).into_owned();
        let row = |shown: super::Shown| {
            let kind = if shown.is_damaged { "damaged" } else { shown.kind };
            (conv.to_string(), shown.sequence, kind.to_string(), text(&shown.body))
        };
        shown.into_iter().map(row).collect()
    }

    /// The facts and members of all conversations, as the ledgers state them.
    fn facts(&self) -> Vec<String> {
        let fact = |conv: &str| {
            let info = self.messaging.info(conv.as_bytes()).expect("IM.INFO answers");
            let members =
                self.messaging.members(conv.as_bytes(), b"", 100).expect("IM.MEMBERS answers");
            format!("{conv} {info:?} {members:?}")
        };
        PUSHED.into_iter().chain([PULLED]).map(fact).collect()
    }
}

/// Three pushed conversations and a pulled one, in several segments a store. The newest events are
/// still in the log, unless `closes`.
fn scene(closes: bool) -> (Image, u64) {
    let disk = SimulatedDisk::new();
    let fixture = open(&disk, START_MS);
    fixture.create("red", Mode::Push, &["ann", "bob", "carl"]);
    fixture.create("green", Mode::Push, &["ann", "dora"]);
    fixture.create("joined", Mode::Push, &["ann", "bob"]);
    fixture.create(PULLED, Mode::Pull, &["ann", "bob", "carl", "dora"]);
    for round in 0..40_u64 {
        let body = |conv: &str| format!("{conv} says {round} {}", "well ".repeat(4));
        fixture.send("red", ["ann", "bob", "carl"][round as usize % 3], body("red")).expect("sent");
        fixture.send("green", "dora", body("green")).expect("sent");
        if round % 3 > 0 {
            fixture.clock.pass(round % 3);
        }
        fixture.send(PULLED, "carl", body(PULLED)).expect("sent");
        fixture.send("joined", "ann", body("joined")).expect("sent");
        let messaging = &fixture.messaging;
        match round {
            5 => drop(messaging.join(b"joined", &["carl".into()]).expect("there is room")),
            9 => assert!(messaging.recall(b"red", b"ann", 1).expect("it is ann's")),
            11 => messaging.edit(b"green", b"dora", 2, &"edited".into()).expect("dora's"),
            12 => assert!(messaging.read(b"red", b"bob", 7).expect("bob is a member")),
            16 => drop(messaging.leave(b"joined", &["carl".into()]).expect("it is a member")),
            10 | 20 | 30 => fixture.engine.flush().expect("flushes"),
            _ => {}
        }
    }
    if closes {
        fixture.engine.close().expect("closes");
    }
    drop(fixture);
    (disk.contents(), START_MS + 1000)
}

/// The answers before the damage.
struct Whole {
    synced: BTreeMap<&'static str, Vec<Summary>>,
    histories: BTreeMap<(&'static str, &'static str), Vec<Summary>>,
    unread: BTreeMap<&'static str, u64>,
    facts: Vec<String>,
}

fn conversations() -> impl Iterator<Item = &'static str> {
    PUSHED.into_iter().chain([PULLED])
}

impl Whole {
    fn of(fixture: &DamageFixture) -> Whole {
        let history = |(conv, user)| ((conv, user), fixture.history(conv, user, Window::Newest));
        Whole {
            synced: USERS.map(|user| (user, fixture.drain(user, 100))).into(),
            histories: conversations()
                .flat_map(|conv| USERS.map(|user| (conv, user)))
                .map(history)
                .collect(),
            unread: USERS.map(|user| (user, unread(fixture, user))).into(),
            facts: fixture.facts(),
        }
    }

    /// Checks every answer to every user while files of `store` are damaged.
    fn check(&self, fixture: &DamageFixture, store: u64) {
        let mut lost = 0;
        for user in USERS {
            let all = fixture.drain(user, 100);
            assert_eq!(fixture.drain(user, 3), all, "{user}: pages of any size give the same");
            lost += self.check_sync(user, &all, store);
        }
        if store == SYNC {
            assert_eq!(lost, 0, "every event is still in its conversation");
        }
        for ((conv, user), whole) in &self.histories {
            let mut now = fixture.history(conv, user, Window::Newest);
            check_history(&now, whole, store != MESSAGES || *conv != PULLED);
            now.reverse();
            assert_eq!(
                fixture.history(conv, user, Window::After(0)),
                now,
                "both ways are the same"
            );
        }
        for user in USERS {
            let count = unread(fixture, user);
            let whole = self.unread[user];
            assert!(count >= whole, "{user}: {count} unread, and there were {whole}");
            assert!(
                store == MESSAGES || count == whole,
                "{user}: {count} unread, and there were {whole}"
            );
        }
        assert_eq!(fixture.facts(), self.facts, "the ledgers are whole");
        for conv in conversations() {
            let sent = fixture.send(conv, "ann", "after the damage".into());
            sent.unwrap_or_else(|trouble| panic!("a send to {conv}: {trouble}"));
        }
        for user in USERS {
            let newest = fixture.drain(user, 7);
            assert!(newest.iter().any(|event| event.3 == "after the damage"), "{user} goes on");
        }
    }

    /// Checks the events that a user gets. Returns the number of lost entries.
    fn check_sync(&self, user: &str, all: &[Summary], store: u64) -> usize {
        let whole = &self.synced[user];
        let lost = all.iter().filter(|event| event.2 == "lost").count();
        for event in whole {
            let damaged = (event.0.clone(), event.1, "damaged".to_string(), String::new());
            let is_there = all.contains(event) || (event.0 == PULLED && all.contains(&damaged));
            assert!(is_there || lost > 0, "{user} lacks {event:?} without a word");
        }
        if store == STATE || lost == 0 {
            assert_eq!(all.len(), whole.len(), "{user} gets nothing twice");
        }
        for conv in conversations() {
            let of_it = all.iter().filter(|event| event.0 == conv && event.2 == "message");
            assert!(of_it.is_sorted_by_key(|event| event.1), "{user}: {conv} is in order");
        }
        lost
    }
}

/// The ids of stores in file headers.
const MESSAGES: u64 = 1;
const SYNC: u64 = 2;
const STATE: u64 = 3;

fn unread(fixture: &DamageFixture, user: &str) -> u64 {
    let counts = fixture.messaging.unread(user.as_bytes(), &[]).expect("IM.UNREAD answers");
    let listed = fixture.messaging.conversations(user.as_bytes(), b"", Limit::entries(100));
    let listed = listed.expect("IM.CONVERSATIONS answers");
    assert_eq!(listed.items.len(), counts.len(), "the list has all conversations of {user}");
    counts.iter().map(|(_, count)| count).sum()
}

/// Checks that each event is there or is shown as damaged; with `is_restored`, that all are there
/// unchanged.
fn check_history(now: &[Summary], whole: &[Summary], is_restored: bool) {
    if is_restored {
        assert_eq!(now, whole);
    }
    let sequences: Vec<u64> = now.iter().map(|event| event.1).collect();
    for event in whole {
        let at = sequences.iter().position(|sequence| *sequence == event.1);
        let found = &now[at.unwrap_or_else(|| panic!("{event:?} is missing without a word"))];
        assert!(found == event || found.2 == "damaged", "{found:?} is not {event:?}");
    }
}

/// Flips a bit of each file of the kind, once in every `every` bytes, and the same bit of its twin
/// if `twins`. `check` gets the store, a description of the position, and the damaged files.
fn flip_everywhere(
    image: &Image,
    (ending, twins): (&str, bool),
    every: usize,
    mut check: impl FnMut(u64, &str, &Image),
) {
    let files: Vec<String> =
        image.files.keys().filter(|name| name.contains(ending)).cloned().collect();
    assert!(!files.is_empty(), "there are files");
    for name in files {
        let bytes = &image.files[&name];
        let header = FileHeader::decode(&bytes[..80], Path::new(&name)).expect("it is whole");
        for at in (80..bytes.len()).step_by(every).chain([bytes.len() - 1]) {
            let mut damaged = image.clone();
            for name in
                [name.clone(), format!("{name}.twin")].iter().take(if twins { 2 } else { 1 })
            {
                damaged.files.get_mut(name).into_iter().for_each(|bytes| bytes[at] ^= 0x10);
            }
            check(header.first, &format!("{name} at {at} of {}", bytes.len()), &damaged);
        }
    }
}

fn check_everywhere(closes: bool, ending: &str, every: usize) {
    let (image, now_ms) = scene(closes);
    let whole = Whole::of(&open(&SimulatedDisk::from_image(&image), now_ms));
    assert!(whole.synced.values().all(|events| events.len() > 80), "there is something to lose");
    let mut failures = Vec::new();
    flip_everywhere(&image, (ending, false), every, |store, place, damaged| {
        let checked = std::panic::catch_unwind(|| {
            whole.check(&open(&SimulatedDisk::from_image(damaged), now_ms), store);
        });
        if let Err(cause) = checked {
            let text = cause.downcast_ref::<String>().map_or("no text", String::as_str);
            failures.push(format!("store {store}, {place}: {}", &text[..text.len().min(1500)]));
        }
    });
    assert!(
        failures.is_empty(),
        "{} places: {:#?}",
        failures.len(),
        &failures[..failures.len().min(40)]
    );
}

#[test]
fn a_flipped_bit_in_data_stops_nothing_and_bodies_of_the_other_store_are_shown() {
    check_everywhere(true, ".data", 400);
}

/// A file that the disk does not return counts as damage.
#[test]
fn a_missing_file_stops_nothing() {
    let (image, now_ms) = scene(true);
    let whole = Whole::of(&open(&SimulatedDisk::from_image(&image), now_ms));
    let mut gone = 0;
    for (name, bytes) in image.files.iter().filter(|(name, _)| name.starts_with("segment-")) {
        let header = FileHeader::decode(&bytes[..80], Path::new(name)).expect("it is whole");
        let mut damaged = image.clone();
        damaged.files.remove(name);
        whole.check(&open(&SimulatedDisk::from_image(&damaged), now_ms), header.first);
        gone += 1;
    }
    assert!(gone > 20, "{gone} files");
}

/// Indexes are kept twice, whether the newest entries are in the log or not.
#[test]
fn a_flipped_bit_in_an_index_stops_nothing() {
    check_everywhere(false, ".index", 200);
    check_everywhere(true, ".index", 200);
}

/// If both copies of an index are damaged, and nothing else knows where timelines end, only the
/// commands that need these ends are refused, with the name of the file.
#[test]
fn an_index_that_hides_conversations_fails_no_list_and_no_sync() {
    let (image, now_ms) = scene(true);
    let whole = Whole::of(&open(&SimulatedDisk::from_image(&image), now_ms));
    let mut hidden = 0;
    flip_everywhere(&image, (".index", true), 200, |store, place, damaged| {
        if store != MESSAGES || place.contains(".twin") {
            return;
        }
        let fixture = open(&SimulatedDisk::from_image(damaged), now_ms);
        for user in USERS {
            let all = fixture.drain(user, 100);
            let pushed = |all: &[Summary]| all.iter().filter(|event| event.0 != PULLED).count();
            assert_eq!(pushed(&all), pushed(&whole.synced[user]), "{place}: {user} has the copies");
            assert_eq!(
                all.len(),
                whole.synced[user].len(),
                "{place}: {user} knows of what was pulled"
            );
            let listed = unread(&fixture, user);
            assert!(
                listed > 0 || whole.unread[user] == 0,
                "{place}: {user} learns that there may be something"
            );
        }
        for conv in conversations() {
            if let Err(trouble) = fixture.send(conv, "ann", "more".into()) {
                hidden += 1;
                assert!(trouble.to_string().contains(".index"), "{place}: {trouble}");
            }
        }
    });
    assert!(hidden > 0, "an end was hidden");
}

/// A fixture in which all bodies of pushed conversations in these stores are damaged, by a flipped
/// bit in every 100 bytes.
fn damaged_in(stores: &[u64]) -> DamageFixture {
    let (image, now_ms) = scene(true);
    let mut damaged = image.clone();
    for (name, bytes) in &mut damaged.files {
        let Ok(header) = FileHeader::decode(bytes.get(..80).unwrap_or_default(), Path::new(name))
        else {
            continue;
        };
        if name.contains(".data") && stores.contains(&header.first) {
            for at in (80..bytes.len()).step_by(100) {
                bytes[at] ^= 0x10;
            }
        }
    }
    open(&SimulatedDisk::from_image(&damaged), now_ms)
}

#[test]
fn entries_lost_in_both_stores_are_shown_as_damaged_or_lost_and_nothing_fails() {
    let (image, now_ms) = scene(true);
    let whole = Whole::of(&open(&SimulatedDisk::from_image(&image), now_ms));
    let fixture = damaged_in(&[MESSAGES, SYNC]);
    for user in USERS {
        let all = fixture.drain(user, 100);
        assert!(
            all.iter().all(|event| ["damaged", "lost", "read"].contains(&event.2.as_str())),
            "{all:?}"
        );
        assert!(all.iter().any(|event| event.2 == "lost") || all.len() >= whole.synced[user].len());
        assert_eq!(fixture.drain(user, 1), all, "{user}: pages of any size give the same");
        assert!(unread(&fixture, user) >= whole.unread[user]);
    }
    for ((conv, user), whole) in &whole.histories {
        check_history(&fixture.history(conv, user, Window::Newest), whole, false);
    }
}

#[test]
fn a_damaged_message_is_recalled_and_edited_by_the_sender_that_a_copy_names() {
    let edit = |fixture: &DamageFixture, user: &str, sequence| {
        fixture.messaging.edit(b"red", user.as_bytes(), sequence, &"new".into())
    };
    let fixture = damaged_in(&[MESSAGES]);
    let refused = edit(&fixture, "bob", 4).expect_err("it is ann's");
    assert!(matches!(refused, Trouble::NotTheSender), "{refused}");
    edit(&fixture, "ann", 4).expect("it is ann's");
    let refused = fixture.messaging.recall(b"red", b"carl", 4).expect_err("it is ann's");
    assert!(matches!(refused, Trouble::NotTheSender), "{refused}");
    assert!(fixture.messaging.recall(b"red", b"ann", 7).expect("it is ann's"));
    let shown = fixture.history("red", "bob", Window::Newest);
    assert!(shown.contains(&("red".into(), 4, "message".into(), "new".into())), "{shown:?}");
    assert!(shown.contains(&("red".into(), 7, "recall".into(), String::new())), "{shown:?}");

    let fixture = damaged_in(&[MESSAGES, SYNC]);
    let recall = |user: &str| fixture.messaging.recall(b"green", user.as_bytes(), 2);
    let refused = recall("ann").expect_err("dora edited it: it is hers");
    assert!(matches!(refused, Trouble::NotTheSender), "{refused}");
    assert!(recall("dora").expect("it is hers"));
    let refused = edit(&fixture, "ann", 4).expect_err("nobody knows whose it is");
    assert!(refused.to_string().contains("c/{red}"), "{refused}");
    assert!(
        fixture
            .messaging
            .recall(b"red", b"ann", 4)
            .expect("there is nothing to take but its place")
    );
    let shown = fixture.history("red", "bob", Window::Newest);
    assert!(shown.contains(&("red".into(), 4, "recall".into(), String::new())), "{shown:?}");
}

#[test]
fn entries_that_neither_store_has_are_one_lost_entry() {
    let fixture = damaged_in(&[SYNC]);
    let gone =
        fixture.messaging.messages.trim(super::names::conversation(b"green"), Trim::Before(30));
    assert!(gone.expect("trims") > 20);
    let all = fixture.drain("dora", 100);
    assert!(all.iter().any(|event| event.2 == "lost"), "{all:?}");
    assert!(
        all.iter().any(|event| event.0 == "green" && event.1 == 35 && event.2 == "message"),
        "{all:?}"
    );
    assert_eq!(fixture.drain("dora", 1), all, "one at a time goes on, too");
}
