//! Ledgers: the state of messaging as timelines of records, and the states in memory that are
//! replayed from them.
//!
//! A state in memory is a cache: it is never written first, and it is brought up to date from its
//! timeline before each use, which costs one lookup of the timeline's end. So no notifications of
//! changes are needed, and a state may be evicted at any time. A long ledger is shortened by a
//! snapshot: a `Reset` and the state as records are appended in one batch, then everything before
//! is trimmed. If a crash comes between the two, the `Reset` makes the old records ineffective.

use std::sync::Arc;

use bytes::Bytes;
use parking_lot::{RwLock, RwLockReadGuard};
use quick_cache::sync::{Cache, DefaultLifecycle};
use quick_cache::{DefaultHashBuilder, OptionsBuilder, Weighter};
use strandline::{Batch, Engine, Error, Limit, Sequence, Store, TimeMs, Trim};

use super::event::{Event, Kind};
use super::trouble::{Result, Trouble};

/// Records read at a time.
const PAGE: Limit =
    Limit { entries: 4096, body_bytes: 8 * 1024 * 1024, first_always: true, around_damage: false };

/// A ledger gets a snapshot when it has more records than this, and more than twice as many as its
/// state has items.
const SNAPSHOT_RECORDS: u64 = 512;

/// A list in a snapshot is split at about this many bytes.
const LIST_BYTES: usize = 256 * 1024;

/// Records of a kind that contain lists, split so that no record is long.
pub fn list_records<T>(
    kind: Kind,
    things: impl Iterator<Item = T>,
    put: impl Fn(T, &mut Vec<u8>),
) -> Vec<Event> {
    let mut lists: Vec<Vec<u8>> = Vec::new();
    for thing in things {
        if lists.last().is_none_or(|list| list.len() > LIST_BYTES) {
            lists.push(Vec::new());
        }
        put(thing, lists.last_mut().expect("one was just made sure of"));
    }
    let nobody = Bytes::new();
    let record = |list: Vec<u8>| Event { body: list.into(), ..Event::new(kind, &nobody, &nobody) };
    lists.into_iter().map(record).collect()
}

/// A state that is replayed from records.
pub trait State: Clone + Default {
    /// Applies a record. Returns false if it is not a record of this kind of ledger.
    fn apply(&mut self, record: &Event, time_ms: TimeMs) -> bool;
    /// The whole state as records.
    fn records(&self) -> Vec<Event>;
    /// Its memory, roughly, in bytes.
    fn bytes(&self) -> usize;
    /// The number of its items.
    fn count(&self) -> usize;
}

/// A state and how far its ledger was replayed.
#[derive(Clone, Default)]
pub struct Ledger<S> {
    /// The state.
    pub state: S,
    /// The sequence of the last record that was applied.
    pub version: Sequence,
    /// The number of records since the last snapshot began.
    records: u64,
}

impl<S: State> Ledger<S> {
    fn is_long(&self) -> bool {
        self.records > SNAPSHOT_RECORDS.max(2 * self.state.count() as u64)
    }
}

/// The inner `Arc` is copied when the ledger is updated while a snapshot of it is in use.
type SharedLedger<S> = Arc<RwLock<Arc<Ledger<S>>>>;

/// A ledger in the cache. Its state grows in place; its weight changes only by inserting it again,
/// never by changing `bytes`.
struct Kept<S> {
    ledger: SharedLedger<S>,
    bytes: usize,
}

impl<S> Clone for Kept<S> {
    fn clone(&self) -> Kept<S> {
        Kept { ledger: Arc::clone(&self.ledger), bytes: self.bytes }
    }
}

#[derive(Clone)]
struct ByBytes;

impl<S> Weighter<Bytes, Kept<S>> for ByBytes {
    fn weight(&self, name: &Bytes, kept: &Kept<S>) -> u64 {
        (name.len() + kept.bytes + 200) as u64
    }
}

/// The ledgers of one kind. As many states as fit are kept in memory.
pub struct Ledgers<S> {
    store: Store,
    kept: Cache<Bytes, Kept<S>, ByBytes>,
}

impl<S: State> Ledgers<S> {
    /// Ledgers of this store, whose states may take about `kept_bytes` in memory.
    pub fn new(store: Store, kept_bytes: u64) -> Ledgers<S> {
        // One shard: the state of a user in very many conversations may take a large part of the
        // space.
        let options = OptionsBuilder::new()
            .shards(1)
            .estimated_items_capacity(10_000)
            .weight_capacity(kept_bytes)
            .build()
            .expect("all that must be given is given");
        let kept = Cache::with_options(
            options,
            ByBytes,
            DefaultHashBuilder::default(),
            DefaultLifecycle::default(),
        );
        Ledgers { store, kept }
    }

    /// The bytes that are kept in memory.
    pub fn kept_bytes(&self) -> u64 {
        self.kept.weight()
    }

    /// Calls `look` on the current state of a ledger. It holds a lock that delays the next update
    /// of the state, so `look` must take microseconds only.
    pub fn read<T>(&self, name: &[u8], look: impl FnOnce(&Ledger<S>) -> Result<T>) -> Result<T> {
        let ledger = self.caught_up(name)?;
        let ledger: RwLockReadGuard<'_, Arc<Ledger<S>>> = ledger.read();
        look(&ledger)
    }

    /// The current state of a ledger, which may be used for any length of time.
    pub fn snapshot(&self, name: &[u8]) -> Result<Arc<Ledger<S>>> {
        Ok(Arc::clone(&self.caught_up(name)?.read()))
    }

    /// Whether a ledger is in memory, and its end is known without the disk. Records that are newer
    /// than the state in memory are in a memtable, as a rule.
    pub fn is_near(&self, name: &[u8]) -> bool {
        self.kept.peek(name).is_some() && self.store.is_end_in_memory(name).unwrap_or(true)
    }

    /// Whether a ledger is so long that it is to be shortened.
    pub fn is_long(&self, name: &[u8]) -> Result<bool> {
        self.read(name, |ledger| Ok(ledger.is_long()))
    }

    /// The sequence and the time of the last record of a ledger.
    pub fn end(&self, name: &[u8]) -> Result<(Sequence, TimeMs)> {
        self.end_in(&self.store, name)
    }

    /// The same at the moment that a handle of the store shows.
    pub fn end_in(&self, store: &Store, name: &[u8]) -> Result<(Sequence, TimeMs)> {
        store.end(name).map_err(|error| self.hidden(name, error))
    }

    fn caught_up(&self, name: &[u8]) -> Result<SharedLedger<S>> {
        let (last, _) = self.end(name)?;
        let known = self.kept.get(name).map(|kept| kept.ledger);
        if let Some(known) = &known
            && known.read().version >= last
        {
            return Ok(Arc::clone(known));
        }
        let shared = known.unwrap_or_default();
        let bytes = {
            let mut ledger = shared.write();
            self.catch_up(name, Arc::make_mut(&mut ledger))?;
            ledger.state.bytes()
        };
        self.kept.insert(Bytes::copy_from_slice(name), Kept { ledger: Arc::clone(&shared), bytes });
        Ok(shared)
    }

    fn catch_up(&self, name: &[u8], ledger: &mut Ledger<S>) -> Result<()> {
        let lost = |sequence| Err(Trouble::Ledger { ledger: self.label(name), sequence });
        loop {
            let page = self.store.read_after(name, ledger.version, PAGE);
            let page = page.map_err(|error| self.hidden(name, error))?;
            for entry in &page.entries {
                // Sequences have no gaps, except for records that a snapshot replaced: a salvage
                // omits records that it cannot read.
                let follows = entry.sequence == ledger.version + 1;
                match Event::decode(&entry.body) {
                    Some(record) if record.kind == Kind::Reset => *ledger = Ledger::default(),
                    Some(record) if follows && ledger.state.apply(&record, entry.time_ms) => {}
                    _ => return lost(entry.sequence),
                }
                ledger.version = entry.sequence;
                ledger.records += 1;
            }
            // At the end, the last sequence is compared: nothing else shows that records at the end
            // are lost.
            let reached = if page.more { page.next } else { page.last };
            if reached != ledger.version {
                return lost(reached);
            }
            if !page.more {
                return Ok(());
            }
        }
    }

    /// The name of a ledger for messages to people.
    pub fn label(&self, name: &[u8]) -> String {
        format!("{}:{}", self.store.name(), name.escape_ascii())
    }

    /// The error for a ledger that could not be read.
    fn hidden(&self, name: &[u8], error: Error) -> Trouble {
        if error.is_damage() {
            return Trouble::DamagedLedger { ledger: self.label(name), error };
        }
        error.into()
    }

    /// Shortens a ledger if it has become long. Waits for the disk. The command is done by then, so
    /// a failure is logged for the operator and not returned; the next command tries again.
    pub fn shorten(&self, engine: &Engine, name: &[u8]) {
        if let Err(error) = self.try_to_shorten(engine, name) {
            let ledger = name.escape_ascii();
            tracing::warn!(
                %ledger, %error,
                "a ledger could not be shortened: it grows until there is room"
            );
        }
    }

    fn try_to_shorten(&self, engine: &Engine, name: &[u8]) -> Result<()> {
        let snapshot = self.read(name, |ledger| {
            Ok(ledger.is_long().then(|| (ledger.version, ledger.state.records())))
        })?;
        let Some((version, records)) = snapshot else { return Ok(()) };
        let reset = Event::new(Kind::Reset, &Bytes::new(), &Bytes::new());
        let batch = Batch::new().if_last_of(&self.store, name, version);
        let batch = [reset]
            .iter()
            .chain(&records)
            .fold(batch, |batch, record| batch.append(&self.store, name, record.encode()));
        match engine.commit(batch) {
            Ok(receipt) => {
                self.store.trim(name, Trim::Before(receipt.sequences[0]))?;
                Ok(())
            }
            // The ledger has advanced: the next command shortens it.
            Err(Error::LastSequence { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}
