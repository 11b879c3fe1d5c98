//! Pushing what reaches a user: IM.FOLLOW from a cursor on, and SUBSCRIBE to `im:{<user>}` as hints.
//!
//! What is watched follows from the user's conversations, and so may change: the user's own ledger is watched too, and before each
//! read the watches are brought up to date.

use bytes::Bytes;
use strandline::Watcher;

use super::Kind;
use super::pump::PAGE;
use crate::key::Key;
use crate::messaging::{Cursor, Delivery, Messaging, Shown, Standing, SyncPage};
use crate::metrics::Metrics;
use crate::protocol::Encoder;
use crate::refusal::Refusal;

/// A user's place in everything that reaches it.
pub struct Inbox {
    user: Bytes,
    cursor: Vec<u8>,
    /// The gap at the start was told by the reply.
    gap_told: bool,
    watched: Vec<Key>,
}

impl Inbox {
    /// From behind a cursor.
    pub fn new(user: Bytes, cursor: Vec<u8>, gap_told: bool) -> Inbox {
        Inbox { user, cursor, gap_told, watched: Vec::new() }
    }

    /// From behind everything that is there now.
    pub fn start_at_end(&mut self, messaging: Option<&Messaging>) {
        // A channel of no possible user stays silent, as other channels that are no key do.
        if let Some(Ok(cursor)) = messaging.map(|messaging| messaging.tail(&self.user)) {
            self.cursor = cursor;
        }
    }

    /// Where it is: behind everything that was pushed.
    pub fn cursor(&self) -> &[u8] {
        &self.cursor
    }

    /// What is watched.
    pub fn watched(&self) -> &[Key] {
        &self.watched
    }

    /// Brings the watches up to date.
    pub fn watch(&mut self, messaging: &Messaging, watcher: &Watcher, token: u64) -> Result<(), Refusal> {
        let wanted = watched_keys(messaging, &self.user)?;
        rewatch(&mut self.watched, wanted, watcher, token)
    }

    /// Writes one page; whether there is more.
    pub fn turn(
        &mut self,
        kind: Kind,
        channel: &Bytes,
        messaging: &Messaging,
        out: &mut Encoder,
        metrics: &Metrics,
    ) -> Result<bool, Refusal> {
        if self.cursor.is_empty() {
            return Ok(false);
        }
        let cursor: Cursor = messaging.cursor(&self.user, &self.cursor)?;
        let page = messaging.sync(&self.user, &cursor, PAGE)?;
        let gap_told = std::mem::take(&mut self.gap_told);
        if kind == Kind::UserFollow && page.verdict != Standing::Ok && !gap_told {
            self.write_gap(&page, out);
        }
        for delivery in &page.deliveries {
            match kind {
                Kind::UserFollow => {
                    let cursor = messaging.cursor_behind(&self.user, delivery);
                    self.write_entry(delivery, &cursor, out);
                }
                Kind::Message => write_hint("message", channel, delivery, out),
                Kind::ShardMessage => write_hint("smessage", channel, delivery, out),
                Kind::Follow => {}
            }
        }
        metrics.pushes.add(page.deliveries.len() as u64);
        self.cursor = page.cursor;
        Ok(page.more)
    }

    /// The events of the page come behind it, so its cursor is where they start.
    fn write_gap(&self, page: &SyncPage, out: &mut Encoder) {
        out.push(4);
        out.bulk("im.gap");
        out.bulk(&self.user);
        out.bulk(page.verdict.word());
        out.bulk(page.start(&self.cursor));
    }

    fn write_entry(&self, delivery: &Delivery, cursor: &[u8], out: &mut Encoder) {
        out.push(4 + shown_parts(&delivery.shown));
        out.bulk("im.entry");
        out.bulk(&self.user);
        out.bulk(cursor);
        out.bulk(&delivery.conv);
        write_shown(&delivery.shown, out);
    }
}

/// How many parts [`write_shown`] writes.
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
    out.map(usize::from(shown.is_damaged));
    if shown.is_damaged {
        out.field("damaged", 1);
    }
}

/// `"<conv> <seq> <time> <sender> <kind>\n"` and the body.
fn write_hint(word: &str, channel: &Bytes, delivery: &Delivery, out: &mut Encoder) {
    let shown = &delivery.shown;
    out.push(3);
    out.bulk(word);
    out.bulk(channel);
    let middle = format!(" {} {} ", shown.sequence, shown.time_ms);
    let end = format!(" {}\n", shown.kind);
    out.bulk_of(&[&delivery.conv, middle.as_bytes(), &shown.sender, end.as_bytes(), &shown.body]);
}

/// Watches what is wanted and nothing else, given what is watched under the token now.
pub fn rewatch(known: &mut Vec<Key>, wanted: Vec<Key>, watcher: &Watcher, token: u64) -> Result<(), Refusal> {
    let is_same =
        |one: &Key, other: &Key| one.bytes() == other.bytes() && one.store.name() == other.store.name();
    if wanted.len() == known.len() && wanted.iter().zip(&*known).all(|(one, other)| is_same(one, other)) {
        return Ok(());
    }
    for key in &wanted {
        watcher.watch(&key.store, key.name(), token)?;
    }
    for key in known.iter().filter(|key| !wanted.iter().any(|other| is_same(key, other))) {
        watcher.unwatch(&key.store, key.name(), token)?;
    }
    *known = wanted;
    Ok(())
}

/// The timelines that tell that there may be something new for a user.
pub fn watched_keys(messaging: &Messaging, user: &[u8]) -> Result<Vec<Key>, Refusal> {
    let timelines = messaging.watched(user)?;
    Ok(timelines.into_iter().map(|(store, name)| Key::of(store, name)).collect())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use strandline::clock::ManualClock;
    use strandline::vfs::Dir;
    use strandline::vfs::simulated::SimulatedDisk;
    use strandline::{Engine, Limit, Trim, World};

    use super::*;
    use crate::messaging::{History, Mode, NewConversation, Options};
    use crate::protocol::Protocol;

    #[test]
    fn the_cursor_of_a_gap_has_every_event_that_is_written_behind_it() {
        let clock = Arc::new(ManualClock::at(1_700_000_000_000));
        let world = World { dir: Dir::new(Arc::new(SimulatedDisk::new())), clock };
        let engine = Engine::open_in(world, strandline::Options::default()).expect("opens");
        let messaging = Messaging::open(&engine, Options::default()).expect("its stores are there");
        let members = vec!["ann".into(), "bob".into()];
        let new = NewConversation { mode: Mode::Push, history: History::All, members };
        messaging.create(b"c", &new).expect("it is new");
        let start = messaging.tail(b"bob").expect("reads");
        messaging.join(b"c", &["carl".into(), "dora".into(), "eve".into()]).expect("there is room");
        engine.store("sync").expect("it is there").trim(b"u/{bob}", Trim::Before(2)).expect("trims");
        let mut inbox = Inbox::new("bob".into(), start, false);
        let mut out = Encoder::default();
        out.protocol = Protocol::Resp3;
        inbox
            .turn(Kind::UserFollow, &"bob".into(), &messaging, &mut out, &Metrics::default())
            .expect("reads");
        let text = String::from_utf8_lossy(out.waiting()).into_owned();
        let words: Vec<&str> = text.split("\r\n").collect();
        let gap = words.iter().position(|word| *word == "im.gap").expect("there is a gap");
        assert_eq!((words[gap + 2], words[gap + 4]), ("bob", "TRIMMED"));
        let cursor = messaging.cursor(b"bob", words[gap + 6].as_bytes()).expect("its own");
        let page = messaging.sync(b"bob", &cursor, Limit::entries(100)).expect("syncs");
        assert_eq!(page.deliveries.len(), 2, "dora and eve");
        assert_eq!(words.iter().filter(|word| **word == "im.entry").count(), 2);
    }
}
