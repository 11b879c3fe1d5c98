//! Periodic checks: whether connections hold more memory than allowed, whether the engine still
//! accepts writes, and whether a scheduled backup is due.
//!
//! Sessions stop reading, or running commands, by themselves when memory is short (see `memory`).
//! If a connection waits for memory, the connections that hold the most and make no progress are
//! ended, as many at once as needed. A client that takes its output is spared for a while: it
//! releases the memory that is needed.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};
use tracing::{error, info};

use crate::clients::{Client, End};
use crate::memory::Budget;
use crate::notices::NoticeKind;
use crate::shared::{Shared, StopReason};

/// The number of checks without progress after which a client counts as stalled.
const STILL: u32 = 10;

/// The number of checks without a waiter being woken, after which connections are ended although
/// all make progress.
const PATIENCE: u32 = 20;

/// How often it is checked whether a scheduled backup is due. The wall clock is asked each time,
/// since it may be set while the server sleeps.
const BACKUP_PAUSE: Duration = Duration::from_secs(10);

/// Ends the connections that hold the most while memory is short.
#[derive(Debug, Default)]
pub struct MemoryWatch {
    input: Shortage,
    output: Shortage,
    strangers: Shortage,
}

/// A shortage of one budget.
#[derive(Debug, Default)]
struct Shortage {
    /// The number of consecutive checks with a shortage.
    looks: u32,
    /// The number of checks since a waiter was woken.
    stuck: u32,
    /// The number of waiters woken until the last check.
    woken: usize,
    /// For each connection that holds memory: the bytes it had moved when that number last changed,
    /// and the check at which it changed.
    moved: HashMap<u64, (u64, u32)>,
}

/// A connection that holds memory.
#[derive(Clone, Copy, Debug)]
struct Holder {
    id: u64,
    bytes: usize,
    moved_bytes: u64,
}

impl Shortage {
    /// The connections to end so that `excess` bytes become free: those that hold the most first.
    fn victims(&mut self, excess: usize, woken: usize, mut holders: Vec<Holder>) -> Vec<u64> {
        let looks = self.looks;
        self.looks += 1;
        let somebody_went_on = std::mem::replace(&mut self.woken, woken) != woken;
        self.stuck = if somebody_went_on { 0 } else { self.stuck + 1 };
        let before = std::mem::take(&mut self.moved);
        for Holder { id, moved_bytes, .. } in &holders {
            let known = before.get(id).copied().filter(|(moved, _)| moved == moved_bytes);
            self.moved.insert(*id, known.unwrap_or((*moved_bytes, looks)));
        }
        if self.stuck < PATIENCE {
            holders.retain(|holder| {
                self.moved.get(&holder.id).is_some_and(|(_, since)| looks - since >= STILL)
            });
        }
        holders.sort_by_key(|holder| std::cmp::Reverse(holder.bytes));
        let (mut freed, mut victims) = (0, Vec::new());
        for holder in holders.into_iter().filter(|holder| holder.bytes > 0) {
            if freed >= excess {
                break;
            }
            freed += holder.bytes;
            victims.push(holder.id);
        }
        victims
    }
}

impl MemoryWatch {
    /// Checks the budgets, and ends the connections whose memory is needed.
    pub fn look(&mut self, shared: &Shared) {
        let memory = &shared.memory;
        let (input, output): (HeldCounter, HeldCounter) =
            (|client| &client.input_bytes, |client| &client.output_bytes);
        for (shortage, budget, end, held, logged_in) in [
            (&mut self.input, &memory.input, End::Full, input, true),
            (&mut self.output, &memory.output, End::Slow, output, true),
            (&mut self.strangers, &memory.strangers, End::Full, input, false),
        ] {
            look_at(shortage, shared, budget, (end, held, logged_in));
        }
    }
}

/// The bytes that a client holds of a budget.
type HeldCounter = fn(&Client) -> &AtomicUsize;

fn look_at(
    shortage: &mut Shortage,
    shared: &Shared,
    budget: &Budget,
    (end, held, logged_in): (End, HeldCounter, bool),
) {
    let excess = budget.excess();
    if excess == 0 {
        *shortage = Shortage::default();
        return;
    }
    let bytes = |client: &Arc<Client>| held(client).load(Ordering::Relaxed);
    let clients: Vec<_> = shared.clients.all();
    // Connections that were already asked to end will release their memory.
    let (ending, others): (Vec<_>, Vec<_>) = clients
        .into_iter()
        .filter(|client| client.logged_in.load(Ordering::Relaxed) == logged_in)
        .partition(|client| client.end() != End::No);
    let excess = excess.saturating_sub(ending.iter().map(bytes).sum());
    let holder = |client: &Arc<Client>| Holder {
        id: client.id,
        bytes: bytes(client),
        moved_bytes: client.moved_bytes(),
    };
    let victims = shortage.victims(excess, budget.woken(), others.iter().map(holder).collect());
    for client in others.iter().filter(|client| victims.contains(&client.id)) {
        // The session logs its end; this line adds how much it held.
        info!(
            client = client.id, address = %client.address, bytes = bytes(client), ?end,
            "memory of connections is short"
        );
        client.ask_to_end(end);
    }
}

/// Stops the server if the engine is poisoned: only a restart can determine what is durable.
pub fn look_at_engine(shared: &Shared) {
    if shared.engine.stats().poisoned {
        // A poisoned engine refuses this at once, with the reason.
        if let Err(problem) = shared.engine.flush() {
            error!(%problem, "the engine refuses all writes: stopping");
        }
        shared.stop(StopReason::Poisoned);
    }
}

/// Takes scheduled backups until it is dropped. Does nothing if there is no schedule.
pub async fn back_up_by_schedule(shared: Arc<Shared>) {
    if !shared.backups.are_scheduled() {
        return;
    }
    let mut tick = interval(BACKUP_PAUSE);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        if shared.backups.may_be_due(shared.now_ms()) {
            let job = Arc::clone(&shared);
            if shared.pool.run_long(move || back_up_if_due(&job)).await.is_err() {
                // It panicked, which the pool has logged.
                shared.backups.failed(shared.now_ms());
            }
        }
    }
}

fn back_up_if_due(shared: &Shared) {
    match shared.backups.take_if_due(&shared.engine, shared.clock()) {
        Ok(None) => {}
        Ok(Some(taken)) => shared.note_server(
            NoticeKind::Backup,
            format_args!(
                "{}: {} files, {} entries",
                taken.path.display(),
                taken.files,
                taken.entries
            ),
        ),
        Err(error) => shared.note_server(NoticeKind::BackupFailed, error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holders(moved_bytes: [u64; 4]) -> Vec<Holder> {
        [(1, 10), (2, 40), (3, 30), (4, 0)]
            .into_iter()
            .zip(moved_bytes)
            .map(|((id, bytes), moved_bytes)| Holder { id, bytes, moved_bytes })
            .collect()
    }

    #[test]
    fn stalled_clients_are_closed_together_largest_first_and_no_more_than_needed() {
        let mut shortage = Shortage::default();
        for look in 0..u64::from(STILL) {
            assert!(shortage.victims(35, 0, holders([0, look, 0, 0])).is_empty(), "look {look}");
        }
        assert_eq!(shortage.victims(35, 0, holders([0, 99, 0, 0])), [3, 1], "the second one moves");
        assert_eq!(shortage.victims(5, 0, holders([0, 100, 0, 0])), [3]);
        assert!(shortage.victims(0, 0, holders([0, 101, 0, 0])).is_empty(), "nothing is wanted");
    }

    #[test]
    fn while_all_clients_move_one_is_closed_only_if_no_waiting_one_continues() {
        let mut shortage = Shortage::default();
        for look in 0..5 * u64::from(PATIENCE) {
            let woken = look as usize / 10;
            assert!(shortage.victims(35, woken, holders([look; 4])).is_empty(), "look {look}");
        }
        let mut stuck = (1000..1000 + u64::from(PATIENCE))
            .map(|look| shortage.victims(35, 9, holders([look; 4])));
        assert!(stuck.any(|victims| victims == [2]), "the largest");
    }
}
