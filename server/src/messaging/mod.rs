//! Messaging: conversations, members, fan-out, hybrid sync. It knows the engine, and nothing of
//! sockets, RESP or the runtime.
//!
//! ```text
//!                        messages:c/{conv}     every event of the conversation, for ever          roaming
//!  send ── one batch ──▶ sync:u/{user} × N     a copy for each member, in push mode               sync
//!                        im.pulled:all         which conversation moved, in pull mode             sync
//!
//!  ledgers (im.state):   c/conv  settings, members
//!                        e/conv  when a message was edited or recalled last
//!                        m/conv{sequence}  what became of that message
//!                        u/user  a user's conversations with its periods, read marks, hidden messages
//!                        p       for which history of the engine the log of pulled events is whole
//! ```
//!
//! Everything it remembers lives in timelines. A command reads what the ledgers say, decides, and
//! submits one batch that holds only if those ledgers still end where they did
//! (`Batch::if_last_of`); if they moved on it decides anew (`decision`). That one condition puts
//! sends, joins, recalls and marks in order, without a lock and without a queue.
//!
//! Promises: P3: an event reaches the conversation and, in push mode, every member, or nobody. P10:
//! from a cursor each event once, in the order of its conversation, whether it was pushed or
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
use strandline::{Copies, Engine, Error, Store, StoreInfo, StoreOptions, WEEK_MS};

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
pub use trouble::Trouble;

use conversation::Conversation;
use effort::Effort;
use ledger::{Ledger, Ledgers};
use list::Lists;
use pulled::Tails;
use trouble::Result;
use user::User;

/// What an operator may set.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// Conversations of mode auto are pushed up to so many members, and pulled above.
    pub push_members: usize,
    /// Most members of a conversation.
    pub max_members: usize,
    /// How long after it was sent a message may be edited or recalled, in milliseconds; 0: for
    /// ever.
    pub change_window_ms: u64,
    /// Memory for states of conversations and users, and for lists of which pages are to come, in
    /// bytes.
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

/// Conversations and users on an engine.
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
    /// There are events and no ledgers at all, until they are rebuilt.
    are_ledgers_lost: AtomicBool,
    /// Who joins, leaves, edits or recalls takes a turn: of many who decide on the same ledger only
    /// one would get through, and all others, sends too, would decide again each time.
    turns: [Mutex<()>; TURNS],
    /// How often something was decided.
    #[cfg(test)]
    decisions: std::sync::atomic::AtomicU64,
}

/// Conversations with the same turn, by chance, only wait for each other.
const TURNS: usize = 64;

impl Messaging {
    /// On an engine that is open. Makes the stores of its own if they are not there.
    pub fn open(engine: &Engine, options: Options) -> std::result::Result<Messaging, Error> {
        let state = own_store(engine, names::STATE_STORE, 0)?;
        // Of sixteen parts two are for lists.
        let part_bytes = options.ledger_memory_bytes / 16;
        let (messages, sync) = (engine.store("messages")?, engine.store("sync")?);
        [&messages, &sync]
            .into_iter()
            .try_for_each(|store| keep(engine, store, Copies::IndexTwice))?;
        let pulled = own_store(engine, "im.pulled", WEEK_MS)?;
        lines::check(engine, [&state, &messages, &pulled])?;
        let are_ledgers_lost = rebuild::are_all_lost([&state, &messages, &sync])?;
        if are_ledgers_lost {
            tracing::error!(
                "there are conversations and no ledgers: stop, and run strandline rebuild-members"
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

    /// The bytes that ledgers of conversations and users take in memory, and the most that they may
    /// take.
    pub fn ledger_memory(&self) -> (u64, u64) {
        (
            self.conversations.kept_bytes() + self.users.kept_bytes(),
            self.options.ledger_memory_bytes,
        )
    }

    /// Whether the members of a conversation are in memory, so that a send to it is decided without
    /// a look at the disk.
    pub fn is_near(&self, conv: &[u8]) -> bool {
        self.conversations.is_near(&names::conversation_ledger(conv))
    }

    /// Looks at a conversation that must exist. Who joins it meanwhile waits for that: look for
    /// microseconds.
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

    /// Why a conversation has no ledger.
    fn no_conversation(&self, conv: &[u8]) -> Trouble {
        self.check_ledgers(&names::conversation_ledger(conv)).err().unwrap_or(Trouble::NotFound)
    }

    /// An error while a ledger that says nothing may be one that is lost.
    fn check_ledgers(&self, ledger: &[u8]) -> Result<()> {
        if self.are_ledgers_lost.load(Ordering::Relaxed) {
            return Err(Trouble::NoLedger { ledger: self.users.told(ledger) });
        }
        Ok(())
    }

    /// Looks at a user, with reads of timelines if need be: nobody waits for it.
    fn user<T>(&self, user: &[u8], look: impl FnOnce(&Ledger<User>) -> Result<T>) -> Result<T> {
        let name = names::user_ledger(user);
        let ledger = self.users.snapshot(&name)?;
        if ledger.version == 0 {
            self.check_ledgers(&name)?;
        }
        look(&ledger)
    }

    /// Whether a conversation exists, without looking at its members.
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

/// What cursors belong to: the engine's history, or another number when one of the stores that they
/// mean places in began another epoch.
fn history(engine: &Engine, stores: [&Store; 4]) -> u64 {
    let history = engine.epoch();
    let begun = stores.into_iter().filter(|store| store.epoch() != history);
    let mark =
        |store: &Store| names::digest(format!("{} {}", store.name(), store.epoch()).as_bytes());
    begun.fold(u64::from_str_radix(&history, 16).unwrap_or(0), |mixed, store| mixed ^ mark(store))
}

/// A store of ledgers is kept so often: of what is in them there is no other copy, and all depends
/// on them. Of events there are other copies, but without the end of a timeline nothing can be
/// appended to it, and without its index nobody knows what was recalled.
const LEDGER_COPIES: Copies = Copies::Twice;

/// A store of ledgers, made if it is not there. One of an earlier version is kept twice from now
/// on.
fn own_store(engine: &Engine, name: &str, ttl_ms: u64) -> std::result::Result<Store, Error> {
    let Ok(store) = engine.store(name) else {
        return engine.create_store_with(name, StoreOptions { ttl_ms, copies: LEDGER_COPIES });
    };
    // An import makes stores without TTL.
    if ttl_ms > 0 && info_of(engine, name).is_some_and(|known| known.ttl_ms == 0) {
        engine.set_store_ttl(name, ttl_ms).or_else(|error| excused(&store, error))?;
    }
    keep(engine, &store, LEDGER_COPIES).map(|()| store)
}

/// Of a directory that is only read nothing can be changed, and a start is what makes room: the
/// next one tries again.
fn excused(store: &Store, error: Error) -> std::result::Result<(), Error> {
    if error.is_shortage() {
        tracing::warn!(store = store.name(), %error, "the store is not as it should be yet");
        return Ok(());
    }
    if matches!(error, Error::Closed { .. }) { Ok(()) } else { Err(error) }
}

fn info_of(engine: &Engine, name: &str) -> Option<StoreInfo> {
    engine.stores().into_iter().find(|known| known.name == name)
}

/// A store is kept at least so often from now on.
fn keep(engine: &Engine, store: &Store, copies: Copies) -> std::result::Result<(), Error> {
    // What a start before this one did not get done is done now.
    let copies = info_of(engine, store.name()).map_or(copies, |known| known.copies.max(copies));
    engine.set_store_copies(store.name(), copies).or_else(|error| excused(store, error))
}

/// The ids that a command names, in their order, each once.
fn valid_once(ids: &[Bytes]) -> Result<Vec<Bytes>> {
    let valid: Vec<Bytes> = ids.iter().map(|id| names::valid(id)).collect::<Result<_>>()?;
    Ok(each_once(valid))
}

/// The same in the same order, each once.
fn each_once<T: Clone + Eq + Hash>(all: impl IntoIterator<Item = T>) -> Vec<T> {
    let mut seen = HashSet::new();
    all.into_iter().filter(|one| seen.insert(one.clone())).collect()
}
