//! Pushes the events of a user: IM.FOLLOW from a cursor on, and SUBSCRIBE to `im:{<user>}` as
//! hints.
//!
//! The watched timelines depend on the user's conversations and may change. So the user's own
//! ledger is watched too, and the watches are updated before each read.

use std::sync::Arc;

use bytes::Bytes;
use strandline::Watcher;

use super::{PAGE, SubscriptionKind};
use crate::access::Account;
use crate::key::Key;
use crate::messaging::{Cursor, Delivery, Messaging, Shown, Standing, SyncPage};
use crate::metrics::Metrics;
use crate::protocol::Encoder;
use crate::refusal::Refusal;

/// A user's position in its events.
pub struct Inbox {
    user: Bytes,
    /// The cursor of the last frame.
    cursor: Vec<u8>,
    /// The gap at the start was in the reply.
    gap_reported: bool,
    watched: Vec<Key>,
    /// The user whose patterns the conversations must match.
    sight: Option<Arc<Account>>,
}

impl Inbox {
    /// Starts after a cursor.
    pub fn new(
        user: Bytes,
        cursor: Vec<u8>,
        gap_reported: bool,
        sight: Option<Arc<Account>>,
    ) -> Inbox {
        Inbox { user, cursor, gap_reported, watched: Vec::new(), sight }
    }

    /// The position after everything that was pushed.
    pub fn cursor(&self) -> &[u8] {
        &self.cursor
    }

    /// The watched timelines.
    pub fn watched(&self) -> &[Key] {
        &self.watched
    }

    /// Updates the watches.
    pub fn watch(
        &mut self,
        messaging: &Messaging,
        watcher: &Watcher,
        token: u64,
    ) -> Result<(), Refusal> {
        let wanted = watched_keys(messaging, &self.user)?;
        rewatch(&mut self.watched, wanted, watcher, token).map(drop)
    }

    /// Reads the next page.
    pub fn read(&self, messaging: &Messaging) -> Result<SyncPage, Refusal> {
        let cursor: Cursor = messaging.cursor(&self.user, &self.cursor)?;
        let mut page = messaging.sync(&self.user, &cursor, PAGE)?;
        if let Some(sight) = &self.sight {
            page.deliveries.retain(|one| sight.rules().patterns.has_conversation(&one.conv));
        }
        Ok(page)
    }

    /// Writes a page. Returns whether there is more.
    pub fn write(
        &mut self,
        kind: SubscriptionKind,
        channel: &Bytes,
        page: SyncPage,
        (messaging, metrics): (&Messaging, &Metrics),
        out: &mut Encoder,
    ) -> bool {
        let gap_reported = std::mem::take(&mut self.gap_reported);
        if kind == SubscriptionKind::UserFollow && page.verdict != Standing::Ok && !gap_reported {
            self.write_gap(&page, out);
            self.cursor.clone_from(&page.start);
        }
        for delivery in &page.deliveries {
            match kind {
                SubscriptionKind::UserFollow => {
                    self.cursor = messaging.cursor_behind(&self.user, delivery);
                    self.write_entry(delivery, out);
                }
                SubscriptionKind::Message => write_hint("message", channel, delivery, out),
                SubscriptionKind::ShardMessage => write_hint("smessage", channel, delivery, out),
                SubscriptionKind::Follow => {}
            }
        }
        metrics.pushes.add(page.deliveries.len() as u64);
        if kind == SubscriptionKind::UserFollow && !page.more && page.cursor != self.cursor {
            self.write_cursor(&page.cursor, out);
        }
        self.cursor = page.cursor;
        page.more
    }

    /// Writes the position if it is not that of the last frame, which means that entries were
    /// skipped.
    fn write_cursor(&self, cursor: &[u8], out: &mut Encoder) {
        out.push(3);
        out.bulk("im.cursor");
        out.bulk(&self.user);
        out.bulk(cursor);
    }

    /// Writes a gap. The events of the page come after it, so its cursor is the position before
    /// them, after the entries that are gone.
    fn write_gap(&self, page: &SyncPage, out: &mut Encoder) {
        out.push(4);
        out.bulk("im.gap");
        out.bulk(&self.user);
        out.bulk(page.verdict.word());
        out.bulk(&page.start);
    }

    fn write_entry(&self, delivery: &Delivery, out: &mut Encoder) {
        out.push(4 + shown_parts(&delivery.shown));
        out.bulk("im.entry");
        out.bulk(&self.user);
        out.bulk(&self.cursor);
        out.bulk(&delivery.conv);
        write_shown(&delivery.shown, out);
    }
}

/// The number of parts that [`write_shown`] writes.
pub fn shown_parts(shown: &Shown) -> usize {
    5 + usize::from(shown.has_attributes())
}

/// The five parts of an event, then its attributes if it has any.
pub fn write_shown(shown: &Shown, out: &mut Encoder) {
    out.integer(shown.sequence);
    out.integer(shown.time_ms);
    out.bulk(&shown.sender);
    out.bulk(shown.kind);
    out.bulk(&shown.body);
    if shown.has_attributes() {
        write_attributes(shown, out);
    }
}

/// The map of an event's attributes.
pub fn write_attributes(shown: &Shown, out: &mut Encoder) {
    out.map(shown.attributes().count());
    for (name, value) in shown.attributes() {
        out.field(name, value);
    }
}

/// Writes `"<conv> <seq> <time> <sender> <kind>\n"` and the body.
fn write_hint(word: &str, channel: &Bytes, delivery: &Delivery, out: &mut Encoder) {
    let shown = &delivery.shown;
    out.push(3);
    out.bulk(word);
    out.bulk(channel);
    let middle = format!(" {} {} ", shown.sequence, shown.time_ms);
    let end = format!(" {}\n", shown.kind);
    out.bulk_of(&[&delivery.conv, middle.as_bytes(), &shown.sender, end.as_bytes(), &shown.body]);
}

/// Watches the wanted timelines and no others, given those that are watched under the token now.
/// Returns whether the two lists differ.
pub fn rewatch(
    known: &mut Vec<Key>,
    wanted: Vec<Key>,
    watcher: &Watcher,
    token: u64,
) -> Result<bool, Refusal> {
    let is_same = |one: &Key, other: &Key| {
        one.bytes() == other.bytes() && one.store.name() == other.store.name()
    };
    if wanted.len() == known.len()
        && wanted.iter().zip(&*known).all(|(one, other)| is_same(one, other))
    {
        return Ok(false);
    }
    for key in &wanted {
        watcher.watch(&key.store, key.name(), token)?;
    }
    for key in known.iter().filter(|key| !wanted.iter().any(|other| is_same(key, other))) {
        watcher.unwatch(&key.store, key.name(), token)?;
    }
    *known = wanted;
    Ok(true)
}

/// The timelines whose changes show that there may be new events for a user.
pub fn watched_keys(messaging: &Messaging, user: &[u8]) -> Result<Vec<Key>, Refusal> {
    let timelines = messaging.watched(user)?;
    Ok(timelines.into_iter().map(|(store, name)| Key::of(store, name)).collect())
}

#[cfg(test)]
mod tests {
    use strandline::clock::ManualClock;
    use strandline::vfs::Dir;
    use strandline::vfs::simulated::SimulatedDisk;
    use strandline::{Engine, Limit, Trim, World};

    use super::*;
    use crate::config::Config;
    use crate::messaging::{History, Message, Mode, NewConversation, Options};
    use crate::protocol::Protocol;

    /// Ann writes, bob follows.
    struct InboxFixture {
        clock: Arc<ManualClock>,
        engine: Engine,
        messaging: Messaging,
    }

    impl InboxFixture {
        fn new(mode: Mode) -> InboxFixture {
            let clock = Arc::new(ManualClock::at(1_700_000_000_000));
            let world =
                World { dir: Dir::new(Arc::new(SimulatedDisk::new())), clock: clock.clone() };
            let engine = Engine::open_in(world, Config::default().engine_options()).expect("opens");
            let messaging =
                Messaging::open(&engine, Options::default()).expect("its stores are there");
            let members = vec!["ann".into(), "bob".into()];
            let new = NewConversation { mode, history: History::All, members };
            messaging.create(b"c", &new).expect("it is new");
            InboxFixture { clock, engine, messaging }
        }

        fn send(&self, body: &'static str, lifetime_ms: u64) {
            let body = body.into();
            let message =
                Message { conv: "c".into(), sender: "ann".into(), body, id: None, lifetime_ms };
            self.messaging.send(&message).expect("ann is a member");
        }

        fn tail(&self) -> String {
            String::from_utf8(self.messaging.tail(b"bob").expect("reads")).expect("it is text")
        }

        /// The bodies after a cursor, and the verdict.
        fn rest(&self, cursor: &str) -> (Standing, Vec<Bytes>) {
            let cursor = self.messaging.cursor(b"bob", cursor.as_bytes()).expect("its own");
            let page = self.messaging.sync(b"bob", &cursor, Limit::entries(100)).expect("syncs");
            (
                page.verdict,
                page.deliveries.into_iter().map(|delivery| delivery.shown.body).collect(),
            )
        }

        /// The frames of one turn, each as its words.
        fn turn(&self, inbox: &mut Inbox) -> Vec<Vec<String>> {
            let mut out = Encoder::default();
            out.protocol = Protocol::Resp3;
            let metrics = Metrics::default();
            let page = inbox.read(&self.messaging).expect("reads");
            inbox.write(
                SubscriptionKind::UserFollow,
                &"bob".into(),
                page,
                (&self.messaging, &metrics),
                &mut out,
            );
            let text = String::from_utf8_lossy(out.waiting()).into_owned();
            let frames = text.split('>').skip(1);
            let is_word = |word: &&str| !word.is_empty() && !word.starts_with('$');
            frames
                .map(|frame| {
                    frame.split("\r\n").skip(1).filter(is_word).map(String::from).collect()
                })
                .collect()
        }
    }

    fn words(frames: &[Vec<String>]) -> Vec<&str> {
        frames.iter().map(|frame| frame[0].as_str()).collect()
    }

    #[test]
    fn the_cursor_of_a_gap_is_the_position_before_the_first_frame_after_it() {
        let fixture = InboxFixture::new(Mode::Push);
        let start = fixture.tail();
        (0..3).for_each(|_| fixture.send("x", 0));
        fixture
            .engine
            .store("sync")
            .expect("it is there")
            .trim(b"u/{bob}", Trim::Before(2))
            .expect("trims");
        let mut inbox = Inbox::new("bob".into(), start.into(), false, None);
        let frames = fixture.turn(&mut inbox);
        assert_eq!(words(&frames), ["im.gap", "im.entry", "im.entry"]);
        assert_eq!((frames[0][1].as_str(), frames[0][2].as_str()), ("bob", "TRIMMED"));
        let (verdict, rest) = fixture.rest(&frames[0][3]);
        assert_eq!(
            (verdict, rest.len()),
            (Standing::Ok, 2),
            "who keeps it lacks nothing, and gets one gap"
        );
    }

    #[test]
    fn the_position_is_pushed_when_it_moves_without_an_entry() {
        for mode in [Mode::Push, Mode::Pull] {
            let fixture = InboxFixture::new(mode);
            for (body, lifetime_ms) in [("gone", 5), ("one", 0), ("two", 0), ("gone, too", 5)] {
                fixture.send(body, lifetime_ms);
            }
            fixture.clock.pass(5);
            let mut inbox = Inbox::new("bob".into(), b"0".to_vec(), false, None);
            let frames = fixture.turn(&mut inbox);
            assert_eq!(words(&frames), ["im.entry", "im.entry", "im.cursor"], "{mode:?}");
            assert_eq!(frames[2][1..], ["bob".to_string(), fixture.tail()]);
            assert_eq!(fixture.rest(&frames[0][2]), (Standing::Ok, vec!["two".into()]));
            assert_eq!(fixture.rest(&frames[1][2]), (Standing::Ok, vec![]));
            assert_eq!(words(&fixture.turn(&mut inbox)), [""; 0], "nothing has moved");
            fixture.send("live", 0);
            let live = fixture.turn(&mut inbox);
            assert_eq!((words(&live), live[0][2].clone()), (vec!["im.entry"], fixture.tail()));
            // It expires before the turn of the follow.
            fixture.send("soon gone", 1);
            fixture.clock.pass(1);
            let frames = fixture.turn(&mut inbox);
            assert_eq!(frames, [["im.cursor".to_string(), "bob".to_string(), fixture.tail()]]);
        }
    }
}
