//! Strandline, with default options and the two stores of the server.
//!
//! Logged: the ticket resolves after write(2). Synced: after fdatasync. Visible to readers at the
//! same moment. A fan-out always stores its body once, so `Copies` means nothing here. Names are
//! made before the clock starts, as an application has them; the list of a conversation's members
//! is made with the first message to it.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Mutex;

use anyhow::Result;
use strandline::{Batch, Engine, Limit, NewStore, Options, Store, TargetList};

use super::{Durability, Found, Peer, Pending, Work};
use crate::workload::{FanOut, TIMELINES};

/// The TTL of `sync`, as the server sets it by default: seven days.
const SYNC_TTL_MS: u64 = 7 * 24 * 3600 * 1000;

/// An open engine and the names of its timelines.
pub struct Strandline {
    engine: Engine,
    messages: Store,
    sync: Store,
    conversations: Vec<Vec<u8>>,
    users: Vec<Vec<u8>>,
    /// The members of conversations, which stay the same.
    members: Mutex<HashMap<u32, TargetList>>,
}

impl Strandline {
    /// Opens one in an empty directory.
    pub fn open(dir: &Path) -> Result<Strandline> {
        let stores = vec![NewStore::new("messages", 0), NewStore::new("sync", SYNC_TTL_MS)];
        let engine = Engine::open(dir, Options { stores, ..Options::default() })?;
        let (messages, sync) = (engine.store("messages")?, engine.store("sync")?);
        let names =
            |kind: &str| (0..TIMELINES).map(|id| format!("{kind}/{id:08}").into_bytes()).collect();
        let (conversations, users, members) = (names("c"), names("u"), Mutex::default());
        Ok(Strandline { engine, messages, sync, conversations, users, members })
    }

    fn members_of(&self, fan_out: &FanOut<'_>) -> Result<TargetList> {
        let mut lists = self.members.lock().expect("no panic inside");
        if let Some(list) = lists.get(&fan_out.conversation) {
            return Ok(list.clone());
        }
        let names = fan_out.members.iter().map(|user| self.users[*user as usize].as_slice());
        let list = self.engine.target_list(names.map(|name| (&self.sync, name)))?;
        lists.insert(fan_out.conversation, list.clone());
        Ok(list)
    }

    fn batch(&self, work: Work<'_>, durability: Durability) -> Result<Batch> {
        let batch = Batch::new().durability(match durability {
            Durability::Logged => strandline::Durability::Os,
            Durability::Synced => strandline::Durability::Disk,
        });
        Ok(match work {
            Work::Appends(appends) => appends.iter().fold(batch, |batch, append| {
                batch.append(
                    &self.messages,
                    &self.conversations[append.timeline as usize],
                    append.body,
                )
            }),
            Work::FanOut(fan_out) => {
                let conversation = self.conversations[fan_out.conversation as usize].as_slice();
                let members = self.members_of(&fan_out)?;
                batch.fan_out_to_list(fan_out.body, [(&self.messages, conversation)], &members)
            }
        })
    }
}

impl Peer for Strandline {
    fn submit(&self, work: Work<'_>, durability: Durability) -> Result<Pending> {
        Ok(Pending::Ticket(self.engine.submit(self.batch(work, durability)?)?))
    }

    fn commit(&self, work: Work<'_>, durability: Durability) -> Result<()> {
        self.engine.commit(self.batch(work, durability)?)?;
        Ok(())
    }

    fn submit_all(
        &self,
        works: &[Work<'_>],
        durability: Durability,
        pending: &mut Vec<Pending>,
    ) -> Result<()> {
        let batches = works.iter().map(|&work| self.batch(work, durability));
        let batches = batches.collect::<Result<_>>()?;
        for ticket in self.engine.submit_all(batches) {
            pending.push(Pending::Ticket(ticket?));
        }
        Ok(())
    }

    fn begin_after(&self, last_sequence: u64) -> Result<()> {
        let users = self.users.iter().map(|name| (&self.sync, name));
        let all = users.chain(self.conversations.iter().map(|name| (&self.messages, name)));
        for (store, name) in all {
            let first = Batch::new().append(store, name, b"first").sequence(last_sequence);
            self.engine.commit(first.durability(strandline::Durability::Os))?;
        }
        Ok(self.engine.flush()?)
    }

    fn latest(&self, timeline: u32, count: usize) -> Result<Found> {
        let name = &self.conversations[timeline as usize];
        let page = self.messages.range_back(name, .., Limit::entries(count))?;
        let mut found = Found::default();
        page.entries.iter().for_each(|entry| found.add(&entry.body));
        Ok(found)
    }

    fn flush(&self) -> Result<()> {
        Ok(self.engine.flush()?)
    }

    fn compact(&self) -> Result<()> {
        Ok(self.engine.compact()?)
    }
}

impl Drop for Strandline {
    /// The next contestant must not share the machine with this one's threads.
    fn drop(&mut self) {
        if let Err(error) = self.engine.close() {
            eprintln!("strandline did not close: {error}");
        }
    }
}
