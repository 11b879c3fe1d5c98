//! Strandline, with the two stores of the server and default options; a workload may choose the
//! memory budget.
//!
//! Logged: the ticket resolves after write(2). Synced: after fdatasync. Visible to readers at the
//! same moment. A fan-out always stores its body once, so `Copies` means nothing here. Names are
//! made before the clock starts, as an application has them; the list of a conversation's members
//! is made with the first message to it.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{LazyLock, Mutex};
use std::time::Duration;

use anyhow::Result;
use strandline::{Batch, Engine, Entry, Limit, NewStore, Options, Store, TargetList};

use super::{Durability, Found, Peer, Pending, Work};
use crate::workload::{FanOut, TIMELINES};

/// The TTL of `sync`, as the server sets it by default: seven days.
const SYNC_TTL: Duration = Duration::from_hours(7 * 24);

/// The names of conversations and, after them, of users.
static NAMES: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
    let names = |kind| (0..TIMELINES).map(move |id| format!("{kind}/{id:08}").into_bytes());
    names("c").chain(names("u")).collect()
});

fn user(id: u32) -> &'static [u8] {
    &NAMES[(TIMELINES + id) as usize]
}

fn conversation(id: u32) -> &'static [u8] {
    &NAMES[id as usize]
}

/// An open engine.
pub struct Strandline {
    engine: Engine,
    messages: Store,
    sync: Store,
    /// The members of conversations, which stay the same.
    members: Mutex<HashMap<u32, TargetList>>,
}

impl Strandline {
    /// Makes the names, which an application has before it opens the engine.
    pub fn prepare() {
        LazyLock::force(&NAMES);
    }

    /// Opens one in an empty directory, or in one that it filled before.
    pub fn open(dir: &Path, memory_budget_bytes: usize) -> Result<Strandline> {
        Strandline::prepare();
        let stores = [NewStore::new("messages", None), NewStore::new("sync", Some(SYNC_TTL))];
        let options = Options::default().stores(stores).memory_budget_bytes(memory_budget_bytes);
        let engine = Engine::open(dir, options)?;
        let (messages, sync) = (engine.store("messages")?, engine.store("sync")?);
        Ok(Strandline { engine, messages, sync, members: Mutex::default() })
    }

    /// The store and the name of a timeline.
    fn place(&self, timeline: u32) -> (&Store, &'static [u8]) {
        let store = if timeline < TIMELINES { &self.messages } else { &self.sync };
        (store, &NAMES[timeline as usize])
    }

    fn members_of(&self, fan_out: &FanOut<'_>) -> Result<TargetList> {
        let mut lists = self.members.lock().expect("no panic inside");
        if let Some(list) = lists.get(&fan_out.conversation) {
            return Ok(list.clone());
        }
        let members = fan_out.members.iter().map(|&member| (&self.sync, user(member)));
        let list = self.engine.target_list(members)?;
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
                batch.append(&self.messages, conversation(append.timeline), append.body)
            }),
            Work::FanOut(fan_out) => {
                let conversation = conversation(fan_out.conversation);
                let members = self.members_of(&fan_out)?;
                batch.fan_out_to_list(fan_out.body, [(&self.messages, conversation)], &members)
            }
        })
    }
}

fn found(entries: &[Entry]) -> Found {
    let mut found = Found::default();
    entries.iter().for_each(|entry| found.add(&entry.body));
    found
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
        for timeline in (TIMELINES..2 * TIMELINES).chain(0..TIMELINES) {
            let (store, name) = self.place(timeline);
            let first = Batch::new().append(store, name, b"first").sequence(last_sequence);
            self.engine.commit(first.durability(strandline::Durability::Os))?;
        }
        Ok(self.engine.flush()?)
    }

    fn latest(&self, timeline: u32, count: usize) -> Result<Found> {
        let (store, name) = self.place(timeline);
        Ok(found(&store.range_back(name, .., Limit::entries(count))?.entries))
    }

    fn after(&self, timeline: u32, sequence: u64, count: usize) -> Result<Found> {
        let (store, name) = self.place(timeline);
        Ok(found(&store.read_after(name, sequence, Limit::entries(count))?.entries))
    }

    fn get(&self, timeline: u32, sequence: u64) -> Result<Found> {
        let (store, name) = self.place(timeline);
        Ok(found(store.get(name, sequence)?.as_slice()))
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
