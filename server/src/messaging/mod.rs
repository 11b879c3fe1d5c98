//! Messaging: conversations, members, fan-out, hybrid sync. It knows the engine, and nothing of
//! sockets, RESP or the runtime.
//!
//! ```text
//!  send ── one batch ─┬▶ messages:c/{conv}   every event of the conversation, kept   roaming
//!                     │                      without a TTL by default
//!                     ├▶ sync:u/{user} × N   a copy for each member, if it is        sync
//!                     │                      pushed
//!                     └▶ im.pulled:all       a line with the conversation's id, if   sync
//!                                            it has pulled events
//!
//!  ledgers (im.state):   c/conv            settings, members
//!                        e/conv            when a message was last edited or recalled
//!                        m/conv{sequence}  the newest change of that message
//!                        u/user            the user's conversations with periods, read
//!                                          marks and hidden messages
//!                        p                 the history of the engine for which the log
//!                                          of pulled events is complete
//! ```
//!
//! All state is kept in timelines. A command reads the ledgers, decides, and submits one batch that
//! is valid only if those ledgers still end where they did (`Batch::if_last_of`); if one of them
//! has advanced, the command decides again (`decision`). This condition alone orders sends, joins,
//! recalls and marks; there is no queue. Joins, leaves, edits and recalls of a conversation also
//! take a lock, but only to avoid repeated decisions (`Messaging::turns`).
//!
//! Promises: P3: an event reaches the conversation and, in push mode, every member, or nobody. P10:
//! from a cursor, each event once, in the order of its conversation, whether it was pushed or
//! pulled. P11: verdicts. P12: an id of a send, in a conversation and from a sender, gives one
//! message.

mod around;
mod became;
mod change;
#[cfg(test)]
mod changing;
mod content;
mod conversation;
mod copies;
#[cfg(test)]
mod crowds;
mod cursor;
#[cfg(test)]
mod damage;
mod decision;
mod effort;
mod event;
mod heads;
mod history;
mod ledger;
mod lines;
mod list;
mod mark;
mod members;
mod merge;
mod moment;
#[cfg(test)]
mod moments;
mod names;
mod page;
mod periods;
mod placing;
mod pulled;
mod pulled_log;
mod rebuild;
mod refill;
mod rewrite;
mod send;
mod stores;
mod story;
mod sync;
#[cfg(test)]
mod tests;
mod trouble;
mod user;
mod visible;

use std::collections::HashSet;
use std::hash::Hash;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;
use strandline::{Copies, Engine, Error, Store, StoreInfo, StoreOptions};

pub use conversation::{History, Mode};
pub use cursor::Cursor;
pub use decision::{Basis, Decision};
pub use history::Window;
pub use lines::{forget as forget_lines, is_mark};
pub use list::Listed;
pub use members::NewConversation;
pub use names::MAX_ID_BYTES;
pub use page::{Delivery, Shown, Standing, SyncPage};
pub use rebuild::{LostLedgers, Rebuilt};
pub use send::Message;
pub use stores::{FIRST_STORES, MESSAGES_STORE, WEEK_MS, first_stores, limit_ms, limit_of};
pub use trouble::Trouble;

use conversation::Conversation;
use effort::Effort;
use ledger::{Ledger, Ledgers};
use list::Lists;
use pulled::Tails;
use stores::SYNC_STORE;
use trouble::Result;
use user::User;

/// The settings of messaging.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// A conversation of mode auto is pushed while it has at most this many members, and pulled
    /// above.
    pub push_members: usize,
    /// The most members that a conversation may have.
    pub max_members: usize,
    /// How long a message may be edited or recalled after it was sent, in milliseconds; 0: without
    /// limit.
    pub change_window_ms: u64,
    /// Memory for the states of conversations and users and for unfinished lists, in bytes.
    pub ledger_memory_bytes: u64,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            push_members: 500,
            max_members: 100_000,
            change_window_ms: 0,
            ledger_memory_bytes: 128 * 1024 * 1024,
        }
    }
}

/// The conversations and users of an engine.
pub struct Messaging {
    engine: Engine,
    messages: Store,
    sync: Store,
    state: Store,
    pulled: Store,
    conversations: Ledgers<Conversation>,
    users: Ledgers<User>,
    options: Options,
    history: u64,
    tails: Tails,
    lists: Lists,
    effort: Effort,
    /// The engine has events and no ledgers at all. False again after a rebuild.
    are_ledgers_lost: AtomicBool,
    /// The turns of conversations. Joins, leaves, edits and recalls of a conversation are
    /// serialized. Otherwise only one of many concurrent decisions on the same ledger could commit,
    /// and all others, including those of sends, would be computed again each time.
    turns: [Mutex<()>; TURNS],
    /// The number of decisions so far.
    #[cfg(test)]
    decisions: std::sync::atomic::AtomicU64,
}

/// Conversations that share a turn by chance only wait for each other.
const TURNS: usize = 64;

impl Messaging {
    /// Opens messaging on an open engine. Creates its own stores if they do not exist.
    pub fn open(engine: &Engine, options: Options) -> std::result::Result<Messaging, Error> {
        let state = own_store(engine, names::STATE_STORE, 0)?;
        // Two of sixteen parts are for lists.
        let part_bytes = options.ledger_memory_bytes / 16;
        let (messages, sync) = (engine.store(MESSAGES_STORE)?, engine.store(SYNC_STORE)?);
        [&messages, &sync]
            .into_iter()
            .try_for_each(|store| keep(engine, store, Copies::IndexTwice))?;
        let pulled = own_store(engine, "im.pulled", WEEK_MS)?;
        lines::check(engine, [&state, &messages, &pulled])?;
        let are_ledgers_lost = rebuild::are_all_lost([&state, &messages, &sync])?;
        if are_ledgers_lost {
            tracing::error!(
                "there are conversations but no ledgers: stop the server and run strandline \
                 rebuild-members"
            );
        }
        let history = history(engine, [&messages, &sync, &state, &pulled]);
        Ok(Messaging {
            conversations: Ledgers::new(state.clone(), 7 * part_bytes),
            users: Ledgers::new(state.clone(), 7 * part_bytes),
            state,
            history,
            engine: engine.clone(),
            messages,
            sync,
            pulled,
            options,
            tails: pulled::tails(),
            lists: Lists::new(2 * part_bytes, engine.now_ms()),
            effort: Effort::default(),
            are_ledgers_lost: AtomicBool::new(are_ledgers_lost),
            turns: std::array::from_fn(|_| Mutex::default()),
            #[cfg(test)]
            decisions: std::sync::atomic::AtomicU64::new(0),
        })
    }

    /// The bytes that the ledgers of conversations and users take in memory, and the limit of
    /// `ledger_memory_bytes`.
    pub fn ledger_memory(&self) -> (u64, u64) {
        (
            self.conversations.kept_bytes() + self.users.kept_bytes(),
            self.options.ledger_memory_bytes,
        )
    }

    /// Whether the members of a conversation are in memory, so that a send to it is decided without
    /// a read from the disk.
    pub fn is_near(&self, conv: &[u8]) -> bool {
        self.conversations.is_near(&names::conversation_ledger(conv))
    }

    /// Calls `look` on a conversation, which must exist. `look` holds a lock that delays the next
    /// change of the conversation's state, so it must take microseconds only.
    fn conversation<T>(
        &self,
        conv: &[u8],
        look: impl FnOnce(&Ledger<Conversation>) -> Result<T>,
    ) -> Result<T> {
        self.conversations.read(&names::conversation_ledger(conv), |ledger| {
            if ledger.state.settings.is_some() {
                look(ledger)
            } else {
                Err(self.no_conversation(conv))
            }
        })
    }

    /// The reason why a conversation has no ledger.
    fn no_conversation(&self, conv: &[u8]) -> Trouble {
        self.check_ledgers(&names::conversation_ledger(conv)).err().unwrap_or(Trouble::NotFound)
    }

    /// An error while all ledgers are lost: an empty ledger may then be a lost one.
    fn check_ledgers(&self, ledger: &[u8]) -> Result<()> {
        if self.are_ledgers_lost.load(Ordering::Relaxed) {
            return Err(Trouble::NoLedger { ledger: self.users.label(ledger) });
        }
        Ok(())
    }

    /// Calls `look` on a user. It may read timelines: nobody waits for it.
    fn user<T>(&self, user: &[u8], look: impl FnOnce(&Ledger<User>) -> Result<T>) -> Result<T> {
        let name = names::user_ledger(user);
        let ledger = self.users.snapshot(&name)?;
        if ledger.version == 0 {
            self.check_ledgers(&name)?;
        }
        look(&ledger)
    }

    /// Checks that a conversation exists, without loading its members.
    fn check_exists(&self, conv: &[u8]) -> Result<()> {
        match self.conversations.end(&names::conversation_ledger(conv))? {
            (0, _) => Err(self.no_conversation(conv)),
            _ => Ok(()),
        }
    }

    /// The turn of a conversation.
    fn turn(&self, conv: &[u8]) -> &Mutex<()> {
        &self.turns[names::digest(conv) as usize % TURNS]
    }
}

/// The history that cursors belong to: that of the engine, or another number if one of the stores
/// that cursors refer to has begun another epoch.
fn history(engine: &Engine, stores: [&Store; 4]) -> u64 {
    let epoch = engine.epoch();
    let begun = stores.into_iter().filter(|store| store.epoch() != epoch);
    let mark =
        |store: &Store| names::digest(format!("{} {}", store.name(), store.epoch()).as_bytes());
    begun.fold(epoch.history(), |mixed, store| mixed ^ mark(store))
}

/// How many copies are kept of the stores of ledgers. There is no other copy of a ledger, and every
/// command depends on ledgers. Events have other copies. But without the end of a timeline nothing
/// can be appended to it, and without its index it is unknown what was recalled; so the indexes of
/// the event stores are kept twice.
const LEDGER_COPIES: Copies = Copies::Twice;

/// Opens a store of ledgers, or creates it. A store that an earlier version created is kept twice
/// from now on.
fn own_store(engine: &Engine, name: &str, ttl_ms: u64) -> std::result::Result<Store, Error> {
    let Ok(store) = engine.store(name) else {
        let options = StoreOptions::default().ttl(limit_of(ttl_ms)).copies(LEDGER_COPIES);
        return engine.create_store_with(name, options);
    };
    // An import creates stores without a TTL.
    if ttl_ms > 0 && info_of(engine, name).is_some_and(|known| known.ttl.is_none()) {
        engine.set_store_ttl(name, limit_of(ttl_ms)).or_else(|error| excused(&store, error))?;
    }
    keep(engine, &store, LEDGER_COPIES).map(|()| store)
}

/// Excuses a failed change of a store's options. A directory that is open read-only cannot be
/// changed. On a full disk the start must go on, since it is what frees space; the next start tries
/// again.
fn excused(store: &Store, error: Error) -> std::result::Result<(), Error> {
    if error.is_shortage() {
        tracing::warn!(
            store = store.name(),
            %error,
            "the options of a store could not be changed: the next start tries again"
        );
        return Ok(());
    }
    if matches!(error, Error::ReadOnly) { Ok(()) } else { Err(error) }
}

fn info_of(engine: &Engine, name: &str) -> Option<StoreInfo> {
    engine.stores().into_iter().find(|known| known.name == name)
}

/// Keeps at least this many copies of a store from now on.
fn keep(engine: &Engine, store: &Store, copies: Copies) -> std::result::Result<(), Error> {
    // Also done if the option is set already: it completes what an earlier start left undone.
    let copies = info_of(engine, store.name()).map_or(copies, |known| known.copies.max(copies));
    engine.set_store_copies(store.name(), copies).or_else(|error| excused(store, error))
}

/// The valid ids of a command, in their order, without duplicates.
fn valid_once(ids: &[Bytes]) -> Result<Vec<Bytes>> {
    let valid: Vec<Bytes> = ids.iter().map(|id| names::valid(id)).collect::<Result<_>>()?;
    Ok(each_once(valid))
}

/// The same values in the same order, without duplicates.
fn each_once<T: Clone + Eq + Hash>(all: impl IntoIterator<Item = T>) -> Vec<T> {
    let mut seen = HashSet::new();
    all.into_iter().filter(|one| seen.insert(one.clone())).collect()
}
