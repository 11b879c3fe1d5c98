//! redb, with default options except its cache: 256 MiB unless a workload says otherwise, as much
//! as Strandline's budget gives to blocks.
//!
//! Keys are numbered by the caller (`sequences`); stores are tables of one file. There is one
//! writer at a time: concurrent callers queue, each for a transaction of its own. Synced:
//! `Durability::Immediate`, fdatasync in each commit. Logged: `Durability::None`, **which promises
//! less**: the commit is visible, but until the next synced one a crash of the process takes it.
//! The engine has nothing in between. A B-tree is changed in place: flush is an empty synced
//! commit; compaction moves pages to the front and shortens the file.

use std::path::Path;
use std::sync::{PoisonError, RwLock};

use anyhow::{Context, Result};
use redb::{
    Database, Durability as Persistence, ReadOnlyTable, ReadTransaction, ReadableDatabase,
    TableDefinition,
};

use super::sequences::{Key, Sequences, key, keys_after};
use super::{Copies, Durability, Found, Peer, Pending, Work};
use crate::workload::{TIMELINES, sync_timeline};

const MESSAGES: TableDefinition<'_, &Key, &[u8]> = TableDefinition::new("messages");
const SYNC: TableDefinition<'_, &Key, &[u8]> = TableDefinition::new("sync");

/// An open database.
pub struct Redb {
    /// Locked for writing only by compaction, which the engine gives the database to alone.
    database: RwLock<Database>,
    copies: Copies,
    sequences: Sequences,
}

impl Redb {
    /// Opens one in an empty directory, or in one that it filled before.
    pub fn open(dir: &Path, copies: Copies, cache_bytes: usize) -> Result<Redb> {
        let database = Database::builder().set_cache_size(cache_bytes).create(dir.join("redb"))?;
        // A reader needs tables that exist.
        let transaction = database.begin_write()?;
        transaction.open_table(MESSAGES)?;
        transaction.open_table(SYNC)?;
        transaction.commit()?;
        let database = RwLock::new(database);
        Ok(Redb { database, copies, sequences: Sequences::new() })
    }

    fn read(&self, timeline: u32) -> Result<Tables> {
        let database = self.database.read().unwrap_or_else(PoisonError::into_inner);
        let transaction = database.begin_read()?;
        Tables::new(&transaction, timeline, self.copies)
    }
}

/// The tables that a read of one timeline needs, as of one transaction.
struct Tables {
    entries: ReadOnlyTable<&'static Key, &'static [u8]>,
    /// Where references lead to, if the entries are references.
    bodies: Option<ReadOnlyTable<&'static Key, &'static [u8]>>,
}

impl Tables {
    fn new(transaction: &ReadTransaction, timeline: u32, copies: Copies) -> Result<Tables> {
        let entries = if timeline < TIMELINES { MESSAGES } else { SYNC };
        let refers = copies.refers(timeline);
        Ok(Tables {
            entries: transaction.open_table(entries)?,
            bodies: refers.then(|| transaction.open_table(MESSAGES)).transpose()?,
        })
    }

    fn add(&self, found: &mut Found, value: &[u8]) -> Result<()> {
        if let Some(bodies) = &self.bodies {
            let body = bodies.get(<&Key>::try_from(value)?)?;
            found.add(body.context("a reference without its body")?.value());
        } else {
            found.add(value);
        }
        Ok(())
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
                    sync.insert(&self.sequences.next_key(sync_timeline(user)), value)?;
                }
            }
        }
        drop(messages);
        transaction.commit()?;
        Ok(Pending::Done)
    }

    fn resume(&self, timeline: u32, last_sequence: u64) {
        self.sequences.resume(timeline, last_sequence);
    }

    fn latest(&self, timeline: u32, count: usize) -> Result<Found> {
        let (tables, mut found) = (self.read(timeline)?, Found::default());
        let keys = self.sequences.newest_keys(timeline, count);
        for item in tables.entries.range::<&Key>(&keys.start..&keys.end)?.rev() {
            tables.add(&mut found, item?.1.value())?;
        }
        Ok(found)
    }

    fn after(&self, timeline: u32, sequence: u64, count: usize) -> Result<Found> {
        let (tables, mut found) = (self.read(timeline)?, Found::default());
        let keys = keys_after(timeline, sequence);
        for item in tables.entries.range::<&Key>(&keys.start..&keys.end)?.take(count) {
            tables.add(&mut found, item?.1.value())?;
        }
        Ok(found)
    }

    fn get(&self, timeline: u32, sequence: u64) -> Result<Found> {
        let (tables, mut found) = (self.read(timeline)?, Found::default());
        if let Some(value) = tables.entries.get(&key(timeline, sequence))? {
            tables.add(&mut found, value.value())?;
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
