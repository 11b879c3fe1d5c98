//! Watches: notify watchers that a timeline advanced (P9, P10): a batch that names it in an append,
//! a trim, a removal or an edit was committed, or its store was dropped. A retry that is answered
//! with its original receipt marks no watch, and a change of a shared body marks none of the
//! timelines that show it.
//!
//! ```text
//!  committer     ──publish(timeline)──> table: timeline → watches ──> the watcher's ready list,
//!                │                                                    waiting threads
//!                └──> returns the wakers to be woken, outside the commit path
//! ```
//!
//! A watcher resembles a set of file descriptors with one wait: it holds a flag and a token per
//! watched timeline, never entries, so that a slow reader costs the same as a fast one. Commits are
//! visible before they are published, and a watch is in the table before `watch` returns: a caller
//! that watches first and then reads misses nothing.
//!
//! Wakers are code of the caller: none is woken, cloned or dropped under a lock of this file. Locks
//! are taken in the order `watched`, shard, inbox, or in the order `watchers`, inbox.
//!
//! When the engine closes, no timeline advances any more: every watcher is closed, and all waits
//! end.
//!
//! This file does not know entries, sequences, or what a reader does with the notification.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Poll, Waker};
use std::time::Duration;

use crate::error::{Error, Result};
use crate::ids::{Instance, StoreId, StoreKey, TimelineRef};
use crate::locks::{AtomicUsize, Condvar, Mutex};

const SHARDS: usize = 16;

/// A timeline and the token that its advance makes ready.
type Watched = (StoreId, Box<[u8]>, u64);

/// Sorted by watcher and token: a hundred thousand watchers may watch one timeline, and come and
/// go.
type Watches = HashMap<(StoreId, Box<[u8]>), Vec<Arc<Watch>>>;

/// All watches of an engine.
#[derive(Default)]
pub(crate) struct WatchTable {
    /// The number of watches, so that an engine without any pays one load per group.
    count: AtomicUsize,
    shards: [Mutex<Watches>; SHARDS],
    /// The engine whose timelines are watched.
    instance: Instance,
    watchers: Mutex<Watchers>,
}

/// Every watcher, those without watches included, so that all can be closed.
#[derive(Default)]
struct Watchers {
    states: BTreeMap<u64, Arc<WatcherState>>,
    last_number: u64,
    closed: bool,
}

/// What happens to a timeline, as bits of a watch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Happening {
    Appended = 1,
    Changed = 2,
    Dropped = 4,
}

/// What happened to a watched timeline since the last report. Several commits are one event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct WatchEvent {
    /// The token of the watch.
    pub token: u64,
    /// Whether entries were appended.
    pub appended: bool,
    /// Whether entries were edited, trimmed or deleted.
    pub changed: bool,
    /// Whether its store was dropped.
    pub dropped: bool,
}

struct Watch {
    token: u64,
    /// What happened, set by marks, and cleared when it is reported; 0: nothing.
    happened: AtomicUsize,
    watcher: Arc<WatcherState>,
}

#[derive(Default)]
struct WatcherState {
    inbox: Mutex<Inbox>,
    arrived: Condvar,
}

#[derive(Default)]
struct Inbox {
    ready: Vec<Arc<Watch>>,
    waker: Option<Waker>,
    /// The engine was closed: nothing becomes ready any more.
    closed: bool,
}

impl WatchTable {
    /// A table without watches.
    pub fn new(instance: Instance) -> WatchTable {
        WatchTable { instance, ..WatchTable::default() }
    }

    fn shard(&self, timeline: TimelineRef<'_>) -> &Mutex<Watches> {
        // Any distribution is good enough: a lock is held for a look-up, or while the watches of a
        // timeline are marked.
        let sum: usize = timeline.name.iter().map(|byte| usize::from(*byte)).sum();
        &self.shards[sum % SHARDS]
    }

    /// Whether there are no watches.
    pub fn is_idle(&self) -> bool {
        // An advance is made visible under a lock, before this load. Whoever read before it took
        // that lock first, and had added its watch before: the load sees the watch.
        self.count.load(Ordering::Acquire) == 0
    }

    /// Marks the watches of a timeline that advanced, wakes waiting threads, and adds the wakers
    /// that are to be woken to `woken`. The advance must be visible already.
    pub fn publish(&self, timeline: TimelineRef<'_>, what: Happening, woken: &mut Vec<Waker>) {
        let shard = self.shard(timeline).lock();
        let Some(watches) = shard.get(&(timeline.store, timeline.name) as &dyn WatchKey) else {
            return;
        };
        woken.extend(watches.iter().filter_map(|watch| watch.mark(what)));
    }

    /// Marks the watches of all timelines of a store that was dropped; returns the wakers that are
    /// to be woken.
    pub fn publish_store(&self, store: StoreId) -> Vec<Waker> {
        let mut woken = Vec::new();
        for shard in &self.shards {
            let shard = shard.lock();
            let of_store = shard.iter().filter(|((of, _), _)| *of == store);
            let watches = of_store.flat_map(|(_, watches)| watches);
            woken.extend(watches.filter_map(|watch| watch.mark(Happening::Dropped)));
        }
        woken
    }

    /// A new watcher without watches.
    pub fn watcher(self: &Arc<WatchTable>) -> Watcher {
        let mut watchers = self.watchers.lock();
        watchers.last_number += 1;
        let (number, state) = (watchers.last_number, Arc::<WatcherState>::default());
        state.inbox.lock().closed = watchers.closed;
        watchers.states.insert(number, state.clone());
        drop(watchers);
        Watcher { table: self.clone(), number, state, watched: Mutex::default() }
    }

    /// Closes every watcher and wakes waiting threads. Returns the wakers that are to be woken.
    pub fn close(&self) -> Vec<Waker> {
        let mut watchers = self.watchers.lock();
        watchers.closed = true;
        watchers.states.values().filter_map(|state| state.close()).collect()
    }
}

impl WatcherState {
    fn close(&self) -> Option<Waker> {
        let mut inbox = self.inbox.lock();
        inbox.closed = true;
        self.arrived.notify_all();
        inbox.waker.take()
    }
}

impl Watch {
    /// Puts the token into its watcher's ready list, and returns the waker to wake; `None` if the
    /// token was there already or there is no waker.
    fn mark(self: &Arc<Watch>, what: Happening) -> Option<Waker> {
        if self.happened.fetch_or(what as usize, Ordering::AcqRel) != 0 {
            return None;
        }
        let mut inbox = self.watcher.inbox.lock();
        inbox.ready.push(self.clone());
        self.watcher.arrived.notify_one();
        inbox.waker.take()
    }
}

/// A borrowed look-up key: without it, `HashMap` would require a boxed name.
trait WatchKey {
    fn parts(&self) -> (StoreId, &[u8]);
}

impl WatchKey for (StoreId, Box<[u8]>) {
    fn parts(&self) -> (StoreId, &[u8]) {
        (self.0, &self.1)
    }
}

impl WatchKey for (StoreId, &[u8]) {
    fn parts(&self) -> (StoreId, &[u8]) {
        (self.0, self.1)
    }
}

impl<'a> std::borrow::Borrow<dyn WatchKey + 'a> for (StoreId, Box<[u8]>) {
    fn borrow(&self) -> &(dyn WatchKey + 'a) {
        self
    }
}

impl std::hash::Hash for dyn WatchKey + '_ {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.parts().hash(state);
    }
}

impl PartialEq for dyn WatchKey + '_ {
    fn eq(&self, other: &Self) -> bool {
        self.parts() == other.parts()
    }
}

impl Eq for dyn WatchKey + '_ {}

/// A set of watched timelines with one wait. Dropping it ends its watches. When the engine closes,
/// the watcher is closed too: every wait ends, and [`Watcher::is_closed`] returns true.
///
/// [`Watcher::wait`] blocks a plain thread. A waker that is registered by [`Watcher::poll_ready`]
/// is woken on the engine's wake thread, where it may do anything; see [`Ticket`](crate::Ticket).
///
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// # let engine = strandline::Engine::open(dir.path(), strandline::Options::default())?;
/// use std::time::Duration;
/// let rooms = engine.create_store("rooms", None)?;
/// let watcher = engine.watcher();
/// watcher.watch(&rooms, "lobby", 7)?;
/// rooms.append("lobby", "hello")?;
/// assert!(watcher.wait(Duration::from_secs(10)));
/// assert_eq!(watcher.ready(), [7]);
/// # Ok::<(), strandline::Error>(())
/// ```
pub struct Watcher {
    table: Arc<WatchTable>,
    number: u64,
    state: Arc<WatcherState>,
    /// The watches to remove from the table at the end.
    watched: Mutex<HashSet<Watched>>,
}

impl Watcher {
    /// Marks `token` ready whenever the timeline advances. A second call with the same timeline and
    /// token has no effect. A store of another engine is an [`Error::Invalid`].
    pub fn watch(
        &self,
        store: impl Into<StoreKey>,
        timeline: impl AsRef<[u8]>,
        token: u64,
    ) -> Result<()> {
        let timeline = TimelineRef { store: self.own(store)?, name: timeline.as_ref() };
        let key = (timeline.store, Box::from(timeline.name));
        let mut shard = self.table.shard(timeline).lock();
        let watches = shard.entry(key).or_default();
        let Err(index) = self.index(watches, token) else { return Ok(()) };
        let watch = Watch { token, happened: AtomicUsize::new(0), watcher: self.state.clone() };
        watches.insert(index, Arc::new(watch));
        self.table.count.fetch_add(1, Ordering::AcqRel);
        drop(shard);
        self.watched.lock().insert((timeline.store, Box::from(timeline.name), token));
        Ok(())
    }

    /// Ends a watch; does nothing if there is none with this token. The token may be returned once
    /// more if it was ready already. A store of another engine is an [`Error::Invalid`].
    pub fn unwatch(
        &self,
        store: impl Into<StoreKey>,
        timeline: impl AsRef<[u8]>,
        token: u64,
    ) -> Result<()> {
        let (store, timeline) = (self.own(store)?, timeline.as_ref());
        self.watched.lock().remove(&(store, Box::from(timeline), token));
        self.end(store, timeline, token);
        Ok(())
    }

    fn own(&self, store: impl Into<StoreKey>) -> Result<StoreId> {
        let StoreKey { instance, id } = store.into();
        if instance == self.table.instance { Ok(id) } else { Err(Error::foreign_store()) }
    }

    fn end(&self, store: StoreId, name: &[u8], token: u64) {
        let timeline = TimelineRef { store, name };
        let mut shard = self.table.shard(timeline).lock();
        let key = (store, name);
        let key: &dyn WatchKey = &key;
        let Some(watches) = shard.get_mut(key) else { return };
        let Ok(index) = self.index(watches, token) else { return };
        watches.remove(index);
        self.table.count.fetch_sub(1, Ordering::AcqRel);
        if watches.is_empty() {
            shard.remove(key);
        }
    }

    /// The index of its watch with a token among a timeline's watches, or the index to insert it
    /// at.
    fn index(&self, watches: &[Arc<Watch>], token: u64) -> Result<usize, usize> {
        let key = |state: &Arc<WatcherState>, token| (Arc::as_ptr(state).addr(), token);
        watches.binary_search_by_key(&key(&self.state, token), |watch| {
            key(&watch.watcher, watch.token)
        })
    }

    /// What happened since the last call, one event a watch: a token of several watches may repeat.
    /// It is visible to reads from now on.
    pub fn events(&self) -> Vec<WatchEvent> {
        let ready = std::mem::take(&mut self.state.inbox.lock().ready);
        ready
            .into_iter()
            .map(|watch| {
                // Also an acquire: a mark that found the watch marked, and so notified nobody, is
                // of an advance that is visible from here on.
                let happened = watch.happened.swap(0, Ordering::AcqRel);
                let has = |what: Happening| happened & what as usize != 0;
                WatchEvent {
                    token: watch.token,
                    appended: has(Happening::Appended),
                    changed: has(Happening::Changed),
                    dropped: has(Happening::Dropped),
                }
            })
            .collect()
    }

    /// The tokens of the [events](Watcher::events) since the last call, for a caller that reads
    /// whatever happened.
    pub fn ready(&self) -> Vec<u64> {
        self.events().into_iter().map(|event| event.token).collect()
    }

    /// Ready if [`Watcher::ready`] would return something, and always if the watcher is closed;
    /// otherwise the waker is kept and woken once.
    pub fn poll_ready(&self, waker: &Waker) -> Poll<()> {
        let waker = waker.clone();
        let mut inbox = self.state.inbox.lock();
        if inbox.is_over() {
            drop(inbox);
            return Poll::Ready(());
        }
        let replaced = inbox.waker.replace(waker);
        drop(inbox);
        drop(replaced);
        Poll::Pending
    }

    /// Waits until something happens, and returns what [`Watcher::events`] returns; nothing if the
    /// watcher is closed. Needs no runtime. One task waits at a time.
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// use std::future::Future;
    /// use std::task::{Context, Poll, Waker};
    /// use strandline::{Engine, Options};
    /// let engine = Engine::open(dir.path(), Options::default())?;
    /// let rooms = engine.create_store("rooms", None)?;
    /// let watcher = engine.watcher();
    /// watcher.watch(&rooms, b"r", 7)?;
    /// let mut context = Context::from_waker(Waker::noop());
    /// let mut changed = std::pin::pin!(watcher.changed());
    /// assert!(changed.as_mut().poll(&mut context).is_pending());
    /// rooms.append(b"r", b"hi")?;
    /// let Poll::Ready(events) = changed.poll(&mut context) else { panic!("it was appended to") };
    /// assert_eq!((events[0].token, events[0].appended, events[0].changed), (7, true, false));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub async fn changed(&self) -> Vec<WatchEvent> {
        std::future::poll_fn(|context| self.poll_ready(context.waker())).await;
        self.events()
    }

    /// Blocks until something is ready (true), or the timeout has passed or the watcher is closed
    /// (false). One thread waits at a time: if another takes the tokens, a wait may return false
    /// early.
    pub fn wait(&self, timeout: Duration) -> bool {
        let mut inbox = self.state.inbox.lock();
        if !inbox.is_over() {
            self.state.arrived.wait_for(&mut inbox, timeout);
        }
        !inbox.ready.is_empty()
    }

    /// Whether the engine was closed: no timeline advances any more. Tokens that became ready
    /// before can still be taken.
    pub fn is_closed(&self) -> bool {
        self.state.inbox.lock().closed
    }
}

impl Inbox {
    /// Whether there is nothing to wait for.
    fn is_over(&self) -> bool {
        self.closed || !self.ready.is_empty()
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        for (store, name, token) in std::mem::take(&mut *self.watched.lock()) {
            self.end(store, &name, token);
        }
        self.table.watchers.lock().states.remove(&self.number);
        // Watches in the ready list hold this state, which holds the list.
        self.state.inbox.lock().ready.clear();
    }
}

impl std::fmt::Debug for Watcher {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "Watcher({} watches)", self.watched.lock().len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STORE: StoreKey = StoreKey { instance: Instance(0), id: StoreId(1) };

    fn publish(table: &WatchTable, name: &[u8]) {
        let mut woken = Vec::new();
        table.publish(TimelineRef { store: STORE.id, name }, Happening::Appended, &mut woken);
        woken.into_iter().for_each(Waker::wake);
    }

    fn watch(watcher: &Watcher, name: &[u8], token: u64) {
        watcher.watch(STORE, name, token).expect("a store of its engine");
    }

    fn unwatch(watcher: &Watcher, name: &[u8], token: u64) {
        watcher.unwatch(STORE, name, token).expect("a store of its engine");
    }

    #[test]
    fn a_token_is_reported_once_however_often_its_timeline_advances() {
        let table = Arc::new(WatchTable::default());
        let watcher = table.watcher();
        watch(&watcher, b"a", 7);
        watch(&watcher, b"b", 8);
        publish(&table, b"a");
        publish(&table, b"a");
        publish(&table, b"c");
        assert_eq!(watcher.ready(), [7]);
        publish(&table, b"a");
        assert_eq!(watcher.ready(), [7], "it is told again after it was taken");
    }

    #[test]
    fn many_watchers_of_one_timeline_come_and_go() {
        let table = Arc::new(WatchTable::default());
        let mut watchers: Vec<Watcher> = (0..300).map(|_| table.watcher()).collect();
        for watcher in &watchers {
            (1..=2).for_each(|token| watch(watcher, b"a", token));
            watch(watcher, b"a", 1);
        }
        (0..100).for_each(|index| drop(watchers.swap_remove(index)));
        watchers.iter().step_by(2).for_each(|watcher| unwatch(watcher, b"a", 1));
        publish(&table, b"a");
        for (index, watcher) in watchers.iter().enumerate() {
            let mut ready = watcher.ready();
            ready.sort_unstable();
            assert_eq!(ready, if index % 2 == 0 { vec![2] } else { vec![1, 2] });
        }
        drop(watchers);
        assert!(table.is_idle());
    }

    #[test]
    fn a_dropped_watcher_leaves_nothing_behind() {
        let table = Arc::new(WatchTable::default());
        let watcher = table.watcher();
        for token in 0..100 {
            watch(&watcher, format!("t{token}").as_bytes(), token);
        }
        publish(&table, b"t1");
        unwatch(&watcher, b"t2", 2);
        let state = Arc::downgrade(&watcher.state);
        drop(watcher);
        assert!(table.is_idle());
        assert!(table.watchers.lock().states.is_empty());
        assert!(table.shards.iter().all(|shard| shard.lock().is_empty()));
        assert!(state.upgrade().is_none());
    }

    #[test]
    fn a_wait_ends_when_something_is_published() {
        let table = Arc::new(WatchTable::default());
        let watcher = table.watcher();
        watch(&watcher, b"a", 1);
        assert!(!watcher.wait(Duration::from_millis(1)));
        let waiting = std::thread::spawn(move || watcher.wait(Duration::from_mins(1)));
        publish(&table, b"a");
        assert!(waiting.join().expect("no panic"));
    }

    #[test]
    fn a_closed_watcher_returns_what_was_ready_and_never_waits() {
        let table = Arc::new(WatchTable::default());
        let watcher = table.watcher();
        watch(&watcher, b"a", 1);
        publish(&table, b"a");
        assert!(table.close().is_empty() && watcher.is_closed());
        assert!(watcher.wait(Duration::from_mins(1)), "something is ready");
        assert_eq!(watcher.ready(), [1]);
        assert!(!watcher.wait(Duration::from_mins(1)));
        assert!(watcher.poll_ready(Waker::noop()).is_ready());
        assert!(table.watcher().is_closed(), "nor does one that is made afterwards");
    }
}

#[cfg(all(test, loom))]
mod modelled {
    use loom::thread::JoinHandle;

    use super::*;

    const HERE: TimelineRef<'static> = TimelineRef { store: StoreId(1), name: b"t" };

    /// A watcher of the timeline.
    fn watcher(table: &Arc<WatchTable>) -> Watcher {
        let watcher = table.watcher();
        let store = StoreKey { instance: Instance(0), id: HERE.store };
        watcher.watch(store, HERE.name, 7).expect("a store of its engine");
        watcher
    }

    fn publish(table: &WatchTable) {
        let mut woken = Vec::new();
        table.publish(HERE, Happening::Appended, &mut woken);
        woken.into_iter().for_each(Waker::wake);
    }

    /// The committer: makes each entry visible, then publishes it unless nobody watches.
    fn commit_two(table: &Arc<WatchTable>, visible: &Arc<Mutex<u64>>) -> JoinHandle<()> {
        let (table, visible) = (table.clone(), visible.clone());
        loom::thread::spawn(move || {
            for entry in 1..=2 {
                *visible.lock() = entry;
                if !table.is_idle() {
                    publish(&table);
                }
            }
        })
    }

    #[test]
    fn watching_before_reading_misses_nothing() {
        loom::model(|| {
            let (table, visible) = (Arc::new(WatchTable::default()), Arc::new(Mutex::default()));
            let committer = commit_two(&table, &visible);
            let watcher = watcher(&table);
            let mut seen: u64 = *visible.lock();
            while seen < 2 {
                // Without a time limit: a lost wake-up would be the deadlock that the model
                // reports.
                assert!(watcher.wait(Duration::ZERO));
                if watcher.ready() == [7] {
                    seen = *visible.lock();
                }
            }
            committer.join().expect("no panic");
        });
    }

    #[test]
    fn the_advance_of_a_ready_token_is_visible_without_another_lock() {
        loom::model(|| {
            let (table, visible) = (Arc::new(WatchTable::default()), Arc::new(AtomicUsize::new(0)));
            let watcher = watcher(&table);
            let committer = loom::thread::spawn({
                let (table, visible) = (table.clone(), visible.clone());
                move || {
                    for entry in 1..=2 {
                        visible.store(entry, Ordering::Relaxed);
                        publish(&table);
                    }
                }
            });
            let mut seen = 0;
            while seen < 2 {
                assert!(watcher.wait(Duration::ZERO));
                watcher.ready();
                seen = visible.load(Ordering::Relaxed);
            }
            committer.join().expect("no panic");
        });
    }

    #[test]
    fn a_registered_waker_is_woken_by_the_next_advance() {
        loom::model(|| {
            let (table, visible) = (Arc::new(WatchTable::default()), Arc::new(Mutex::default()));
            let watcher = watcher(&table);
            let committer = commit_two(&table, &visible);
            let mut seen: u64 = *visible.lock();
            while seen < 2 {
                loom::future::block_on(std::future::poll_fn(|context| {
                    watcher.poll_ready(context.waker())
                }));
                watcher.ready();
                seen = *visible.lock();
            }
            committer.join().expect("no panic");
        });
    }

    #[test]
    fn a_watch_that_ends_during_a_commit_leaves_nothing_behind() {
        loom::model(|| {
            let (table, visible) = (Arc::new(WatchTable::default()), Arc::new(Mutex::default()));
            let watcher = watcher(&table);
            let committer = commit_two(&table, &visible);
            drop(watcher);
            committer.join().expect("no panic");
            assert!(table.is_idle());
        });
    }
    #[test]
    fn a_close_releases_waiting_and_polling_watchers() {
        loom::model(|| {
            let table = Arc::new(WatchTable::default());
            let (waits, polls) = (table.watcher(), table.watcher());
            let waiting =
                loom::thread::spawn(move || waits.wait(Duration::ZERO) || !waits.is_closed());
            let closing =
                loom::thread::spawn(move || table.close().into_iter().for_each(Waker::wake));
            loom::future::block_on(std::future::poll_fn(|context| {
                polls.poll_ready(context.waker())
            }));
            assert!(polls.is_closed());
            assert!(!waiting.join().expect("no panic"));
            closing.join().expect("no panic");
        });
    }
}
