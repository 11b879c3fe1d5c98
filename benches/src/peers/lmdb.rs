//! LMDB, by the crate heed, with default options except the size of its map, which limits the
//! database. For data that is larger than the memory, also `NO_READ_AHEAD`, as its documentation
//! advises.
//!
//! Keys are numbered by the caller (`sequences`); stores are databases of one environment. There is
//! one writer at a time: concurrent callers queue, each for a transaction of its own. Synced: the
//! default: fdatasync of the changed pages, then a synchronous write of the page that makes them
//! valid. Logged: `NO_SYNC`: the commit returns after the same writes without the syncs; a power
//! cut can then damage the whole database. A B-tree is changed in place, and the cache is the
//! operating system's: flush is a sync, and there is no compaction but by a copy.

use std::ops::{Bound, Range};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result};
use heed::types::Bytes;
use heed::{CommitOrAbort, Database, Env, EnvFlags, EnvOpenOptions, FlagSetMode, RoTxn};

use super::sequences::{Key, Sequences, key, keys_after};
use super::{Copies, Durability, Found, Peer, Pending, Work};
use crate::workload::{TIMELINES, sync_timeline};

/// Address space that is reserved, of which the file occupies what it needs.
const MAP_BYTES: usize = 64 << 30;

/// An open environment.
pub struct Lmdb {
    env: Env,
    messages: Database<'static, Bytes, Bytes>,
    sync: Database<'static, Bytes, Bytes>,
    copies: Copies,
    sequences: Sequences,
    /// The durability that the environment's flags say. They apply to all transactions, so a writer
    /// holds this lock during its own.
    writing: Mutex<Durability>,
}

impl Lmdb {
    /// Opens one in an empty directory, or in one that it filled before.
    pub fn open(dir: &Path, copies: Copies, read_ahead: bool) -> Result<Lmdb> {
        let mut options = EnvOpenOptions::new();
        options.map_size(MAP_BYTES).max_dbs(2);
        if !read_ahead {
            // SAFETY: the flag only changes the advice to the operating system about the map.
            #[allow(unsafe_code, reason = "other flags of this function are unsafe")]
            unsafe {
                options.flags(EnvFlags::NO_READ_AHEAD);
            }
        }
        // SAFETY: the directory is a temporary one of this process, and nothing but this
        // environment opens the mapped file in it.
        #[allow(unsafe_code, reason = "a mapped file is undefined behavior if others change it")]
        let env = unsafe { options.open(dir)? };
        let (messages, sync) = env
            .create_databases_and_commit(env.write_txn()?, |opener, transaction| {
                let messages = opener.create_database(transaction, Some("messages"))?;
                let sync = opener.create_database(transaction, Some("sync"))?;
                Ok::<_, heed::Error>(CommitOrAbort::<_, ()>::Commit((messages, sync)))
            })?
            .commit()
            .context("the databases were not created")?;
        let writing = Mutex::new(Durability::Synced);
        Ok(Lmdb { env, messages, sync, copies, sequences: Sequences::new(), writing })
    }

    /// Sets the flags of the environment to `wanted`, from `current`.
    fn set_durability(&self, current: &mut Durability, wanted: Durability) -> Result<()> {
        if *current == wanted {
            return Ok(());
        }
        let mode = match wanted {
            Durability::Logged => FlagSetMode::Enable,
            Durability::Synced => FlagSetMode::Disable,
        };
        // SAFETY: one thread at a time may set flags: `current` is the content of a locked mutex.
        // What `NO_SYNC` leaves to a power cut is the meaning of `Durability::Logged`.
        #[allow(unsafe_code, reason = "the flags are shared by all threads")]
        unsafe {
            self.env.set_flags(EnvFlags::NO_SYNC, mode)?;
        }
        *current = wanted;
        Ok(())
    }

    fn database(&self, timeline: u32) -> Database<'static, Bytes, Bytes> {
        if timeline < TIMELINES { self.messages } else { self.sync }
    }

    /// Adds the body of an entry of a timeline, which a reference leads to in the same transaction.
    fn add(
        &self,
        found: &mut Found,
        transaction: &RoTxn<'_>,
        timeline: u32,
        value: &[u8],
    ) -> Result<()> {
        if self.copies.refers(timeline) {
            let body = self.messages.get(transaction, value)?;
            found.add(body.context("a reference without its body")?);
        } else {
            found.add(value);
        }
        Ok(())
    }
}

fn bounds(keys: &Range<Key>) -> (Bound<&[u8]>, Bound<&[u8]>) {
    (Bound::Included(keys.start.as_slice()), Bound::Excluded(keys.end.as_slice()))
}

impl Peer for Lmdb {
    fn submit(&self, work: Work<'_>, durability: Durability) -> Result<Pending> {
        let mut writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        self.set_durability(&mut writing, durability)?;
        let mut transaction = self.env.write_txn()?;
        match work {
            Work::Appends(appends) => {
                for append in appends {
                    let key = self.sequences.next_key(append.timeline);
                    self.messages.put(&mut transaction, &key, append.body)?;
                }
            }
            Work::FanOut(fan_out) => {
                let first = self.sequences.next_key(fan_out.conversation);
                self.messages.put(&mut transaction, &first, fan_out.body)?;
                let value = match self.copies {
                    Copies::Inline => fan_out.body,
                    Copies::References => &first,
                };
                for &user in fan_out.members {
                    let key = self.sequences.next_key(sync_timeline(user));
                    self.sync.put(&mut transaction, &key, value)?;
                }
            }
        }
        transaction.commit()?;
        Ok(Pending::Done)
    }

    fn resume(&self, timeline: u32, last_sequence: u64) {
        self.sequences.resume(timeline, last_sequence);
    }

    fn latest(&self, timeline: u32, count: usize) -> Result<Found> {
        let transaction = self.env.read_txn()?;
        let keys = self.sequences.newest_keys(timeline, count);
        let mut found = Found::default();
        for item in self.database(timeline).rev_range(&transaction, &bounds(&keys))? {
            self.add(&mut found, &transaction, timeline, item?.1)?;
        }
        Ok(found)
    }

    fn after(&self, timeline: u32, sequence: u64, count: usize) -> Result<Found> {
        let transaction = self.env.read_txn()?;
        let keys = keys_after(timeline, sequence);
        let mut found = Found::default();
        for item in self.database(timeline).range(&transaction, &bounds(&keys))?.take(count) {
            self.add(&mut found, &transaction, timeline, item?.1)?;
        }
        Ok(found)
    }

    fn get(&self, timeline: u32, sequence: u64) -> Result<Found> {
        let transaction = self.env.read_txn()?;
        let mut found = Found::default();
        if let Some(value) = self.database(timeline).get(&transaction, &key(timeline, sequence))? {
            self.add(&mut found, &transaction, timeline, value)?;
        }
        Ok(found)
    }

    fn flush(&self) -> Result<()> {
        Ok(self.env.force_sync()?)
    }

    fn compact(&self) -> Result<()> {
        Ok(())
    }
}
