//! What connections hold in memory: input that has not run yet, and output that was not taken yet. One sum of each for all
//! connections, and a limit, of which each has a half: so that what waits to be taken cannot keep what came from being run.
//!
//! A small floor for each connection is not counted: that much is read always, so a client that is gone is noticed always. All
//! connections together thus hold at most the limit, the floors, and one reply for each thread that was at work when the limit
//! was reached.
//!
//! Knows nothing of sockets, nor of who is to go when the limit is reached.

use std::sync::atomic::{AtomicUsize, Ordering};

/// What each connection may hold of input, and of output, without being counted.
pub const FLOOR_BYTES: usize = 16 * 1024;

/// The sums of all connections.
#[derive(Debug)]
pub struct Memory {
    limit: usize,
    input: AtomicUsize,
    output: AtomicUsize,
}

/// What one connection is counted with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// Of input.
    pub input: usize,
    /// Of output.
    pub output: usize,
}

impl Held {
    /// What holding so many bytes counts. In steps, so that a connection at work does not change the sums with each command.
    pub fn of(input: usize, output: usize) -> Held {
        let counted = |bytes: usize| bytes.saturating_sub(FLOOR_BYTES).next_multiple_of(FLOOR_BYTES);
        Held { input: counted(input), output: counted(output) }
    }
}

impl Memory {
    /// Sums of nothing.
    pub fn new(limit: usize) -> Memory {
        Memory { limit, input: AtomicUsize::new(0), output: AtomicUsize::new(0) }
    }

    /// A connection holds something else now.
    pub fn change(&self, before: Held, now: Held) {
        for (sum, before, now) in
            [(&self.input, before.input, now.input), (&self.output, before.output, now.output)]
        {
            if now > before {
                sum.fetch_add(now - before, Ordering::Relaxed);
            } else if before > now {
                sum.fetch_sub(before - now, Ordering::Relaxed);
            }
        }
    }

    /// Whether input may be read beyond the floors.
    pub fn has_room_for_input(&self) -> bool {
        self.sums().input <= self.limit / 2
    }

    /// Whether anything may be run or pushed.
    pub fn has_room_for_output(&self) -> bool {
        self.sums().output <= self.limit / 2
    }

    /// What all hold.
    pub fn sums(&self) -> Held {
        Held { input: self.input.load(Ordering::Relaxed), output: self.output.load(Ordering::Relaxed) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_half_of_the_limit_fills_by_itself_and_floors_do_not_count() {
        let memory = Memory::new(8 * FLOOR_BYTES);
        assert_eq!(Held::of(FLOOR_BYTES, FLOOR_BYTES), Held::default());
        let much = Held::of(FLOOR_BYTES, 6 * FLOOR_BYTES);
        memory.change(Held::default(), much);
        assert!(memory.has_room_for_input() && !memory.has_room_for_output());
        memory.change(much, Held::of(6 * FLOOR_BYTES, 1));
        assert!(!memory.has_room_for_input() && memory.has_room_for_output());
        memory.change(Held::of(6 * FLOOR_BYTES, 1), Held::default());
        assert_eq!(memory.sums(), Held::default());
    }
}
