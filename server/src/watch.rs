//! What is looked at from time to time: whether connections hold more memory than all may, and
//! whether the engine still takes writes.
//!
//! Sessions stop reading, or running, by themselves when memory is short (see `memory`). If
//! somebody waits for memory, those go that hold the most and stand still, as many at once as it
//! takes. A client that takes what is its own is let go on for a while: it makes the room that is
//! wanted.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tracing::{error, info};

use crate::clients::{Client, End};
use crate::memory::Budget;
use crate::shared::{Shared, StopReason};

/// Looks at which nothing has moved, after which a client stands still.
const STILL: u32 = 10;

/// Looks at which nobody was woken who waits, after which somebody must go although all move.
const PATIENCE: u32 = 20;

/// Who holds the most goes while memory is short.
#[derive(Debug, Default)]
pub struct MemoryWatch {
    input: Shortage,
    output: Shortage,
    strangers: Shortage,
}

/// A shortage of one budget.
#[derive(Debug, Default)]
struct Shortage {
    /// Looks at which it was there, without a break.
    looks: u32,
    /// Looks since somebody who waits was woken.
    stuck: u32,
    /// How many were woken until the last look.
    woken: usize,
    /// Of each connection that holds something: what it had moved when that last changed, and at
    /// which look that was.
    moved: HashMap<u64, (u64, u32)>,
}

/// One who holds memory.
#[derive(Clone, Copy, Debug)]
struct Holder {
    id: u64,
    bytes: usize,
    moved_bytes: u64,
}

impl Shortage {
    /// Who must go so that `excess` bytes become free: those that hold the most first.
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
    /// Looks, and ends the connections whose memory is needed.
    pub fn look(&mut self, shared: &Shared) {
        let memory = &shared.memory;
        let (input, output): (Held, Held) =
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

/// What a client holds of a budget.
type Held = fn(&Client) -> &AtomicUsize;

fn look_at(
    shortage: &mut Shortage,
    shared: &Shared,
    budget: &Budget,
    (end, held, logged_in): (End, Held, bool),
) {
    let excess = budget.excess();
    if excess == 0 {
        *shortage = Shortage::default();
        return;
    }
    let bytes = |client: &Arc<Client>| held(client).load(Ordering::Relaxed);
    let clients: Vec<_> = shared.clients.all();
    // What those hold who were told to end, and have not ended yet, will be free without more.
    let (ending, others): (Vec<_>, Vec<_>) = clients
        .into_iter()
        .filter(|client| client.logged_in.load(Ordering::Relaxed) == logged_in)
        .partition(|client| client.end() != End::No);
    let excess = excess.saturating_sub(ending.iter().map(bytes).sum());
    let holder = |client: &Arc<Client>| Holder {
        id: client.id,
        bytes: bytes(client),
        moved_bytes: client.moved_bytes.load(Ordering::Relaxed),
    };
    let victims = shortage.victims(excess, budget.woken(), others.iter().map(holder).collect());
    for client in others.iter().filter(|client| victims.contains(&client.id)) {
        // The session tells the log when it ends; this says how much it held, for who wants to
        // know.
        info!(client = client.id, address = %client.address, bytes = bytes(client), ?end, "memory of connections is short");
        client.tell(end);
    }
}

/// Stops the server when the engine is poisoned: only a restart finds out what is durable.
pub fn look_at_engine(shared: &Shared) {
    if shared.engine.stats().get("poisoned") == Some(1) {
        // A poisoned engine refuses this at once, and says since when.
        if let Err(problem) = shared.engine.flush() {
            error!(%problem, "the engine takes no more writes: stopping");
        }
        shared.stop(StopReason::Poisoned);
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
    fn those_that_stand_still_go_together_the_largest_first_and_no_more_than_needed() {
        let mut shortage = Shortage::default();
        for look in 0..u64::from(STILL) {
            assert!(shortage.victims(35, 0, holders([0, look, 0, 0])).is_empty(), "look {look}");
        }
        assert_eq!(shortage.victims(35, 0, holders([0, 99, 0, 0])), [3, 1], "the second one moves");
        assert_eq!(shortage.victims(5, 0, holders([0, 100, 0, 0])), [3]);
        assert!(shortage.victims(0, 0, holders([0, 101, 0, 0])).is_empty(), "nothing is wanted");
    }

    #[test]
    fn while_all_move_somebody_goes_only_if_nobody_who_waits_goes_on() {
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
