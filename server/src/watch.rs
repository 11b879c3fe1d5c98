//! What is looked at from time to time: whether connections hold more memory than all may, and whether the engine still takes
//! writes.
//!
//! Sessions stop reading, or running, by themselves when memory is short (see `memory`). Mostly that passes as clients take what is
//! theirs. If it does not, the connection that holds the most goes: one at a time, until there is room.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tracing::{error, info};

use crate::clients::{Client, End};
use crate::shared::{Shared, StopReason};

/// Looks for which a shortage may last although it is getting less.
const PATIENCE: u32 = 5;

/// Who holds the most goes when a shortage does not pass.
#[derive(Debug, Default)]
pub struct MemoryWatch {
    input: Shortage,
    output: Shortage,
}

/// One direction's shortage.
#[derive(Debug, Default)]
struct Shortage {
    /// Looks at which it was there, without a break.
    seen: u32,
    /// The sum at the last one.
    sum: usize,
}

impl Shortage {
    /// Whether somebody must go: it is not getting less, or not fast enough.
    fn must_end(&mut self, is_short: bool, sum: usize) -> bool {
        if !is_short {
            *self = Shortage::default();
            return false;
        }
        let lasts = self.seen > 0 && (sum >= self.sum || self.seen >= PATIENCE);
        *self = Shortage { seen: self.seen + 1, sum };
        lasts
    }
}

impl MemoryWatch {
    /// Looks, and ends a connection in each direction in which that is needed.
    pub fn look(&mut self, shared: &Shared) {
        let (memory, sums) = (&shared.memory, shared.memory.sums());
        if self.input.must_end(!memory.has_room_for_input(), sums.input) {
            end_largest(shared, End::Full, |client| &client.input_bytes);
        }
        if self.output.must_end(!memory.has_room_for_output(), sums.output) {
            end_largest(shared, End::Slow, |client| &client.output_bytes);
        }
    }
}

fn end_largest(shared: &Shared, end: End, held: impl Fn(&Client) -> &AtomicUsize) {
    let bytes = |client: &Arc<Client>| held(client).load(Ordering::Relaxed);
    let Some(largest) = shared.clients.all().into_iter().max_by_key(bytes) else { return };
    // The session tells the log when it ends; this says how much it held, for who wants to know.
    info!(client = largest.id, address = %largest.address, bytes = bytes(&largest), ?end, "memory of connections is short");
    largest.tell(end);
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

    #[test]
    fn a_shortage_that_passes_ends_nobody_and_one_that_stays_does() {
        let mut shortage = Shortage::default();
        assert!(!shortage.must_end(true, 100), "it has just begun");
        assert!(!shortage.must_end(true, 90), "it is getting less");
        assert!(shortage.must_end(true, 90));
        assert!(!shortage.must_end(false, 10) && !shortage.must_end(true, 100));
        let mut slow = (0..=PATIENCE as usize).map(|step| shortage.must_end(true, 90 - step));
        assert!(slow.any(|must| must), "it lasts too long");
    }
}
