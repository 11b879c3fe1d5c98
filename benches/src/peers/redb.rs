//! redb, with default options except its cache: 256 MiB, as much as Strandline's default budget
//! gives to blocks.
//!
//! Keys are numbered by the caller (`sequences`); stores are tables of one file. There is one
//! writer at a time: concurrent callers queue, each for a transaction of its own. Synced:
//! `Durability::Immediate`, fdatasync in each commit. Logged: `Durability::None`, **which promises
//! less**: the commit is visible, but until the next synced one a crash of the process takes it.
//! The engine has nothing in between. A B-tree is changed in place: flush is an empty synced
//! commit; compaction moves pages to the front and shortens the file.

use std::path::Path;
use std::sync::{PoisonError, RwLock};

use anyhow::Result;
use redb::{Database, Durability as Persistence, ReadableDatabase, TableDefinition};

use super::sequences::{Key, Sequences};
use super::{Copies, Durability, Found, Peer, Pending, Work};
use crate::workload::TIMELINES;

const MESSAGES: TableDefinition<'_, &Key, &[u8]> = TableDefinition::new("messages");
const SYNC: TableDefinition<'_, &Key, &[u8]> = TableDefinition::new("sync");

const CACHE_BYTES: usize = 256 * 1024 * 1024;

/// An open database.
pub struct Redb {
    /// Locked for writing only by compaction, which the engine gives the database to alone.
    database: RwLock<Database>,
    copies: Copies,
    sequences: Sequences,
}

impl Redb {
    /// Opens one in an empty directory.
    pub fn open(dir: &Path, copies: Copies) -> Result<Redb> {
        let database = Database::builder().set_cache_size(CACHE_BYTES).create(dir.join("redb"))?;
        // A reader needs tables that exist.
        let transaction = database.begin_write()?;
        transaction.open_table(MESSAGES)?;
        transaction.open_table(SYNC)?;
        transaction.commit()?;
        let database = RwLock::new(database);
        Ok(Redb { database, copies, sequences: Sequences::new() })
    }
}

impl Peer for Redb {
    fn submit(&self, work: Work<'_>, durability: Durability) -> Result<Pending> {
        let database = self.database.read().unwrap_or_else(PoisonError::into_inner);
        let mut transaction = database.begin_write()?;
        transaction.set_durability(match durability {
            Durability::Logged => Persistence::None,
            Durability::Synced => Persistence::Immediate,
        })?;
        let mut messages = transaction.open_table(MESSAGES)?;
        match work {
            Work::Appends(appends) => {
                for append in appends {
                    messages.insert(&self.sequences.next_key(append.timeline), append.body)?;
                }
            }
            Work::FanOut(fan_out) => {
                let first = self.sequences.next_key(fan_out.conversation);
                messages.insert(&first, fan_out.body)?;
                let value = match self.copies {
                    Copies::Inline => fan_out.body,
                    Copies::References => &first,
                };
                let mut sync = transaction.open_table(SYNC)?;
                for &user in fan_out.members {
                    sync.insert(&self.sequences.next_key(TIMELINES + user), value)?;
                }
            }
        }
        drop(messages);
        transaction.commit()?;
        Ok(Pending::Done)
    }

    fn latest(&self, timeline: u32, count: usize) -> Result<Found> {
        let database = self.database.read().unwrap_or_else(PoisonError::into_inner);
        let messages = database.begin_read()?.open_table(MESSAGES)?;
        let keys = self.sequences.newest_keys(timeline, count);
        let mut found = Found::default();
        for item in messages.range::<&Key>(&keys.start..&keys.end)?.rev() {
            found.add(item?.1.value());
        }
        Ok(found)
    }

    fn flush(&self) -> Result<()> {
        let database = self.database.read().unwrap_or_else(PoisonError::into_inner);
        Ok(database.begin_write()?.commit()?)
    }

    fn compact(&self) -> Result<()> {
        let mut database = self.database.write().unwrap_or_else(PoisonError::into_inner);
        database.compact()?;
        Ok(())
    }
}
