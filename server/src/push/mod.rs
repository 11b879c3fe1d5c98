//! Push: the follows and subscriptions of a connection, and the delivery of their entries.
//!
//! A subscription is a key, a cursor and a watch: no entry is ever queued for it (P9). When the
//! engine signals that the timeline advanced, the subscription is *behind*. While the connection's
//! output has space, a page after the cursor is read from the engine and written as frames, and the
//! cursor advances. A client that reads slowly stays behind, and costs only its cursor. So catching
//! up and following live are the same, and each entry is delivered exactly once, in order (P10).
//!
//! A new subscription is first watched and then read, so that no commit is missed between the two:
//! it is behind from the start. The watcher also wakes a blocked command, under a token of its own.
//!
//! A turn reads one page: at once if the page is in memory, otherwise on a thread that may block
//! (`commands/place.rs` has the rule).

mod heartbeat;
mod inbox;
mod pump;

use heartbeat::{Heartbeat, Heartbeats};
use inbox::Inbox;
pub use inbox::{shown_parts, watched_keys, write_attributes, write_shown};
pub use pump::verdict_word;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use strandline::{Engine, Limit, MAX_SEQUENCE, Sequence, Watcher};

use crate::access::{Account, user_of_channel};
use crate::clients::Channels;
use crate::key::Key;
use crate::messaging::Messaging;
use crate::refusal::Refusal;

/// The token for the timelines of a blocked command.
const BLOCKED: u64 = 0;

/// The page of one turn of a subscription: small enough for many subscriptions to share a
/// connection fairly, large enough for the cost of the call not to dominate a catch-up.
const PAGE: Limit =
    Limit { entries: 256, body_bytes: 256 * 1024, first_always: true, around_damage: false };

/// The form of a subscription's frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SubscriptionKind {
    /// TL.FOLLOW: every entry from a cursor on, and a gap where entries are gone.
    Follow,
    /// SUBSCRIBE: a hint for each entry from now on.
    Message,
    /// SSUBSCRIBE: the same under another name.
    ShardMessage,
    /// IM.FOLLOW: every event of a user, from a cursor on.
    UserFollow,
}

struct Subscription {
    kind: SubscriptionKind,
    channel: Bytes,
    source: Source,
    queued: bool,
    heartbeat: Option<Heartbeat>,
}

/// The source of a subscription's entries.
enum Source {
    /// A channel that is neither a timeline nor a user: it is accepted, as by Redis, and stays
    /// silent.
    Nothing,
    /// A timeline, after a sequence.
    Timeline { key: Key, cursor: Sequence },
    /// The events of a user, after a cursor of messaging.
    User(Inbox),
}

/// The start of a channel, after everything that exists.
pub enum Start {
    /// The channel is neither a timeline nor a user.
    Nowhere,
    /// A timeline and its last sequence.
    Timeline(Key, Sequence),
    /// A user and its newest cursor.
    User(Bytes, Vec<u8>),
}

impl Start {
    /// Determines the start of a channel. May read the disk.
    pub fn of(
        engine: &Engine,
        messaging: Option<&Messaging>,
        channel: &Bytes,
    ) -> Result<Start, Refusal> {
        if let Some(user) = user_of(channel) {
            // A channel with an invalid user id stays silent, like other channels that are not
            // keys.
            let tail = messaging.and_then(|messaging| messaging.tail(&user).ok());
            return Ok(tail.map_or(Start::Nowhere, |tail| Start::User(user, tail)));
        }
        let Ok(key) = Key::find(engine, channel) else { return Ok(Start::Nowhere) };
        let last = last_sequence(&key)?;
        Ok(Start::Timeline(key.detached(), last))
    }

    /// The same, if it needs no read from the disk; otherwise `None`.
    pub fn near(engine: &Engine, channel: &Bytes) -> Result<Option<Start>, Refusal> {
        let is_near = match Key::find(engine, channel) {
            _ if user_of(channel).is_some() => false,
            Ok(key) => key.store.is_in_memory(key.name(), MAX_SEQUENCE)?,
            Err(_) => true,
        };
        is_near.then(|| Start::of(engine, None, channel)).transpose()
    }
}

/// The subscriptions and follows of one connection.
pub struct Subscriptions {
    /// Created when needed: most connections never subscribe to anything.
    watcher: Option<Arc<Watcher>>,
    by_token: BTreeMap<u64, Subscription>,
    tokens: HashMap<(SubscriptionKind, Bytes), u64>,
    behind: VecDeque<u64>,
    last_token: u64,
    blocked: Vec<Key>,
    heartbeats: Heartbeats,
    /// The part of this connection in the total of all connections.
    counted: usize,
    messages: usize,
    shard_messages: usize,
    channels: Arc<Channels>,
    messaging: Option<Arc<Messaging>>,
    /// The user whose patterns the conversations of events must match.
    sight: Option<Arc<Account>>,
}

impl Subscriptions {
    /// No subscriptions yet.
    pub fn new(channels: Arc<Channels>, messaging: Option<Arc<Messaging>>) -> Subscriptions {
        Subscriptions {
            watcher: None,
            by_token: BTreeMap::new(),
            tokens: HashMap::new(),
            behind: VecDeque::new(),
            last_token: BLOCKED,
            blocked: Vec::new(),
            heartbeats: Heartbeats::default(),
            counted: 0,
            messages: 0,
            shard_messages: 0,
            channels,
            messaging,
            sight: None,
        }
    }

    /// Later subscriptions push only events of conversations that match the patterns of this user.
    pub fn see(&mut self, sight: Option<Arc<Account>>) {
        self.sight = sight;
    }

    /// The number of subscriptions and follows.
    pub fn total(&self) -> usize {
        self.by_token.len()
    }

    /// The number of a kind.
    pub fn count(&self, kind: SubscriptionKind) -> usize {
        match kind {
            SubscriptionKind::Message => self.messages,
            SubscriptionKind::ShardMessage => self.shard_messages,
            SubscriptionKind::Follow | SubscriptionKind::UserFollow => {
                self.by_token.values().filter(|one| one.kind == kind).count()
            }
        }
    }

    /// Whether there is one of this kind and channel.
    pub fn contains(&self, kind: SubscriptionKind, channel: &Bytes) -> bool {
        self.tokens.contains_key(&(kind, channel.clone()))
    }

    /// The channels of a kind, in the order of their subscription.
    pub fn names(&self, kind: SubscriptionKind) -> Vec<Bytes> {
        self.by_token
            .values()
            .filter(|one| one.kind == kind)
            .map(|one| one.channel.clone())
            .collect()
    }

    /// Subscribes to the entries after a start.
    pub fn subscribe(
        &mut self,
        engine: &Engine,
        kind: SubscriptionKind,
        channel: &Bytes,
        start: Start,
    ) -> Result<(), Refusal> {
        match self.tokens.get(&(kind, channel.clone())).and_then(|token| self.by_token.get(token)) {
            // Its store may exist by now.
            Some(Subscription { source: Source::Nothing, .. }) => drop(self.remove(kind, channel)),
            Some(_) => return Ok(()),
            None => {}
        }
        // A copy: a slice of the input would keep the whole read buffer alive.
        let channel = Bytes::copy_from_slice(channel);
        let source = match start {
            Start::Nowhere => Source::Nothing,
            Start::Timeline(key, cursor) => Source::Timeline { key, cursor },
            Start::User(user, cursor) => {
                Source::User(Inbox::new(user, cursor, false, self.sight.clone()))
            }
        };
        let queued = !matches!(source, Source::Nothing);
        self.insert(Subscription { kind, channel, source, queued, heartbeat: None }, engine)
    }

    /// Follows the events of a user after a cursor. An earlier follow of the same user ends.
    pub fn follow_user(
        &mut self,
        engine: &Engine,
        user: Bytes,
        cursor: Vec<u8>,
        gap_reported: bool,
        heartbeat: Option<Duration>,
    ) -> Result<(), Refusal> {
        self.remove(SubscriptionKind::UserFollow, &user);
        let source =
            Source::User(Inbox::new(user.clone(), cursor, gap_reported, self.sight.clone()));
        let heartbeat = heartbeat.map(Heartbeat::new);
        let one = Subscription {
            kind: SubscriptionKind::UserFollow,
            channel: user,
            source,
            queued: true,
            heartbeat,
        };
        self.insert(one, engine)
    }

    /// Follows a timeline after `cursor`. An earlier follow of the same key ends.
    pub fn follow(
        &mut self,
        engine: &Engine,
        key: Key,
        cursor: Sequence,
        heartbeat: Option<Duration>,
    ) -> Result<(), Refusal> {
        let key = key.detached();
        let channel = Bytes::copy_from_slice(key.bytes());
        self.remove(SubscriptionKind::Follow, &channel);
        let source = Source::Timeline { key, cursor };
        let heartbeat = heartbeat.map(Heartbeat::new);
        self.insert(
            Subscription {
                kind: SubscriptionKind::Follow,
                channel,
                source,
                queued: true,
                heartbeat,
            },
            engine,
        )
    }

    /// Ends a subscription or follow. Returns whether it existed.
    pub fn remove(&mut self, kind: SubscriptionKind, channel: &Bytes) -> bool {
        let Some(token) = self.tokens.remove(&(kind, channel.clone())) else { return false };
        let Some(gone) = self.by_token.remove(&token) else { return false };
        if let Some(watcher) = &self.watcher {
            for key in gone.source.watched() {
                // The key was watched, so it belongs to this engine.
                let _ended = watcher.unwatch(&key.store, key.name(), token);
            }
        }
        self.forget(kind, &gone.channel);
        self.note_total();
        true
    }

    /// Ends all follows.
    pub fn end_follows(&mut self) {
        for kind in [SubscriptionKind::Follow, SubscriptionKind::UserFollow] {
            for channel in self.names(kind) {
                self.remove(kind, &channel);
            }
        }
    }

    /// Ends all subscriptions and follows.
    pub fn clear(&mut self) {
        for one in std::mem::take(&mut self.by_token).into_values() {
            self.forget(one.kind, &one.channel);
        }
        self.tokens.clear();
        self.behind.clear();
        self.blocked.clear();
        self.heartbeats = Heartbeats::default();
        self.watcher = None;
        self.note_total();
    }

    /// The number of timelines that the blocked command waits for.
    pub fn blocked_on(&self) -> usize {
        self.blocked.len()
    }

    /// Watches these timelines, and no others, for a blocked command. Returns whether they are not
    /// the ones watched before: earlier events wake nobody, so the caller must read the timelines
    /// after this.
    pub fn block(&mut self, engine: &Engine, keys: Vec<Key>) -> Result<bool, Refusal> {
        let watcher = self.watcher.get_or_insert_with(|| Arc::new(engine.watcher()));
        let outcome = inbox::rewatch(&mut self.blocked, keys, watcher, BLOCKED);
        self.note_total();
        outcome
    }

    /// Ends the watches of a blocked command.
    pub fn unblock(&mut self) {
        for key in self.blocked.drain(..) {
            if let Some(watcher) = &self.watcher {
                let _ended = watcher.unwatch(&key.store, key.name(), BLOCKED);
            }
        }
        self.note_total();
    }

    /// Updates the part of this connection in the total.
    fn note_total(&mut self) {
        let now = self.by_token.len() + self.blocked.len();
        self.channels.change_total(std::mem::replace(&mut self.counted, now), now);
    }

    /// Whether a wake-up may come. An engine that was closed sends none.
    pub fn is_watching(&self) -> bool {
        let listens = !(self.by_token.is_empty() && self.blocked.is_empty());
        listens && self.watcher.as_ref().is_some_and(|watcher| !watcher.is_closed())
    }

    /// Whether the engine was closed, so that no entries come any more.
    pub fn is_closed(&self) -> bool {
        self.watcher.as_ref().is_some_and(|watcher| watcher.is_closed())
    }

    /// Ready when [`Subscriptions::collect`] has something to collect.
    pub fn poll_ready(&self, context: &Context<'_>) -> Poll<()> {
        match &self.watcher {
            Some(watcher) => watcher.poll_ready(context.waker()),
            None => Poll::Pending,
        }
    }

    /// Takes the wake-ups and marks their subscriptions as behind. Returns whether the blocked
    /// command should try again.
    pub fn collect(&mut self) -> bool {
        let Some(watcher) = &self.watcher else { return false };
        let mut retry = false;
        for token in watcher.ready() {
            if token == BLOCKED {
                retry = true;
            } else if let Some(one) = self.by_token.get_mut(&token)
                && !one.queued
            {
                one.queued = true;
                self.behind.push_back(token);
            }
        }
        retry
    }

    fn insert(&mut self, one: Subscription, engine: &Engine) -> Result<(), Refusal> {
        self.last_token += 1;
        let token = self.last_token;
        let watcher = self.watcher.get_or_insert_with(|| Arc::new(engine.watcher()));
        // The timelines of a user are watched by the turns of the subscription.
        if let Source::Timeline { key, .. } = &one.source {
            watcher.watch(&key.store, key.name(), token)?;
        }
        if one.queued {
            self.behind.push_back(token);
        }
        match one.kind {
            SubscriptionKind::Message => {
                self.messages += 1;
                self.channels.enter(&one.channel);
            }
            SubscriptionKind::ShardMessage => self.shard_messages += 1,
            SubscriptionKind::Follow | SubscriptionKind::UserFollow => {}
        }
        self.tokens.insert((one.kind, one.channel.clone()), token);
        if let Some(heartbeat) = &one.heartbeat {
            self.heartbeats.set(heartbeat.due(), token);
        }
        self.by_token.insert(token, one);
        self.note_total();
        Ok(())
    }

    fn forget(&mut self, kind: SubscriptionKind, channel: &Bytes) {
        match kind {
            SubscriptionKind::Message => {
                self.messages -= 1;
                self.channels.leave(channel);
            }
            SubscriptionKind::ShardMessage => self.shard_messages -= 1,
            SubscriptionKind::Follow | SubscriptionKind::UserFollow => {}
        }
    }
}

impl Source {
    /// The watched timelines.
    fn watched(&self) -> &[Key] {
        match self {
            Source::Nothing => &[],
            Source::Timeline { key, .. } => std::slice::from_ref(key),
            Source::User(inbox) => inbox.watched(),
        }
    }
}

/// The user in a channel of messaging, `im:{<user>}`.
fn user_of(channel: &[u8]) -> Option<Bytes> {
    let user = user_of_channel(channel)?;
    (!user.is_empty()).then(|| Bytes::copy_from_slice(user))
}

impl Drop for Subscriptions {
    fn drop(&mut self) {
        self.clear();
    }
}

/// The highest sequence that was assigned. A cursor that is certainly ahead is answered without a
/// search for entries.
fn last_sequence(key: &Key) -> Result<Sequence, Refusal> {
    Ok(key.store.read_after(key.name(), MAX_SEQUENCE, Limit::NOTHING)?.last)
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use strandline::World;
    use strandline::clock::ManualClock;
    use strandline::vfs::Dir;
    use strandline::vfs::simulated::SimulatedDisk;

    use super::*;
    use crate::config::Config;

    #[test]
    fn a_session_is_woken_once_by_a_close_and_then_never() {
        let clock = Arc::new(ManualClock::at(1_700_000_000_000));
        let world = World { dir: Dir::new(Arc::new(SimulatedDisk::new())), clock };
        let engine = Engine::open_in(world, Config::default().engine_options()).expect("opens");
        let mut subscriptions = Subscriptions::new(Arc::default(), None);
        let key = Key::find(&engine, &"messages:t".into()).expect("a key");
        subscriptions.follow(&engine, key, 0, None).expect("its own store");
        assert!(subscriptions.is_watching() && !subscriptions.is_closed());
        engine.close().expect("closes");
        let context = Context::from_waker(Waker::noop());
        assert!(subscriptions.poll_ready(&context).is_ready(), "the session is woken once more");
        assert!(subscriptions.is_closed());
        assert!(!subscriptions.is_watching(), "and then waits for nothing from it");
    }
}
