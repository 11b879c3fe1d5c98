//! The memory of connections: input that has not run yet, and output that was not taken yet. Each
//! has one budget for all connections, half of the limit, so that output that waits for clients
//! cannot keep input from being run.
//!
//! A small floor for each connection is not counted: that much is always read, so a client that is
//! gone is always noticed. All connections that have logged in together hold at most the limit, the
//! floors, and one reply for each thread that was building one when the limit was reached.
//!
//! A connection that has not logged in uses neither of these budgets. It has a small limit of its
//! own, and all such connections share a third budget, an eighth of the limit in addition to it. So
//! strangers cannot delay a client that has logged in.
//!
//! It knows nothing of sockets, nor of which connections are closed when a limit is reached.

mod budget;
#[cfg(test)]
mod modelled;

mod locks {
    //! The source of the budget's locks, which its models replace.

    pub use parking_lot::Mutex;
    pub use std::sync::atomic::AtomicUsize;
}

pub use budget::Budget;

/// The input, and the output, that each connection may hold without being counted.
pub const FLOOR_BYTES: usize = 16 * 1024;

/// The input that a connection may hold before it has logged in: a request within the bounds of
/// [`crate::limits`] fits, with its framing.
pub const STRANGER_INPUT_BYTES: usize = 24 * 1024;

/// The size of one read before login. A buffer grows by doubling: with reads of this size to 32
/// KiB.
pub const STRANGER_READ_BYTES: usize = 4 * 1024;

/// The output above which a connection that has not logged in runs no command. Replies before login
/// have less than 1 KiB, so the buffer, which grows by doubling, has less than 18 KiB; with that of
/// the input, and the list of its arguments, less than 64 KiB.
pub const STRANGER_OUTPUT_BYTES: usize = 8 * 1024;

/// The budgets of all connections.
#[derive(Debug)]
pub struct Memory {
    /// The input of connections that have logged in.
    pub input: Budget,
    /// The output of connections that have logged in, and replies that are being built.
    pub output: Budget,
    /// Everything that connections hold that have not logged in.
    pub strangers: Budget,
}

/// The bytes that are counted for one connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// The bytes of input.
    pub input: usize,
    /// The bytes of output.
    pub output: usize,
    /// The bytes of both, before login.
    pub stranger: usize,
}

impl Held {
    /// The count for these bytes of input and output: the bytes above the floor, rounded up to
    /// steps, so that a busy connection does not change the sums with each command.
    pub fn of(input: usize, output: usize, logged_in: bool) -> Held {
        if !logged_in {
            return Held { stranger: input + output, ..Held::default() };
        }
        let counted =
            |bytes: usize| bytes.saturating_sub(FLOOR_BYTES).next_multiple_of(FLOOR_BYTES);
        Held { input: counted(input), output: counted(output), stranger: 0 }
    }
}

impl Memory {
    /// Budgets with no bytes in use.
    pub fn new(limit: usize) -> Memory {
        Memory {
            input: Budget::new(limit / 2),
            output: Budget::new(limit / 2),
            strangers: Budget::new(limit / 8),
        }
    }

    /// Replaces the count of a connection.
    pub fn change(&self, before: Held, now: Held) {
        self.input.change(before.input, now.input);
        self.output.change(before.output, now.output);
        self.strangers.change(before.stranger, now.stranger);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::{Wake, Waker};

    use super::*;

    #[test]
    fn each_half_of_the_limit_fills_by_itself_and_floors_do_not_count() {
        let memory = Memory::new(8 * FLOOR_BYTES);
        let room = || (memory.input.has_room(0), memory.output.has_room(0));
        assert_eq!(Held::of(FLOOR_BYTES, FLOOR_BYTES, true), Held::default());
        let much = Held::of(FLOOR_BYTES, 6 * FLOOR_BYTES, true);
        memory.change(Held::default(), much);
        assert_eq!(room(), (true, false));
        memory.change(much, Held::of(6 * FLOOR_BYTES, 1, true));
        assert_eq!(room(), (false, true));
        memory.change(Held::of(6 * FLOOR_BYTES, 1, true), Held::default());
        assert_eq!((memory.input.used(), memory.output.used()), (0, 0));
    }

    #[test]
    fn memory_before_login_is_counted_from_the_first_byte_and_separately() {
        let memory = Memory::new(64 * FLOOR_BYTES);
        let stranger = Held::of(1, 9 * FLOOR_BYTES, false);
        memory.change(Held::default(), stranger);
        assert_eq!((memory.input.used(), memory.output.used()), (0, 0));
        assert_eq!(memory.strangers.used(), 9 * FLOOR_BYTES + 1);
        assert!(memory.strangers.excess() > 0 && memory.output.excess() == 0);
        memory.change(stranger, Held::of(1, 9 * FLOOR_BYTES, true));
        assert_eq!((memory.strangers.used(), memory.output.used()), (0, 8 * FLOOR_BYTES));
    }

    struct Counts(AtomicUsize);

    impl Wake for Counts {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn a_waiter_is_woken_once_there_is_room_for_it_and_counts_as_a_shortage_until_then() {
        let (budget, counts) = (Budget::new(10), Arc::new(Counts(AtomicUsize::new(0))));
        let waker = Waker::from(Arc::clone(&counts));
        budget.change(0, 9);
        assert!(budget.try_take(1) && !budget.try_take(1));
        assert!(
            budget.poll_room(1, 5, &waker).is_pending()
                && budget.poll_room(2, 2, &waker).is_pending()
        );
        assert_eq!(budget.excess(), 2, "the smaller wish");
        budget.change(9, 7);
        assert_eq!((counts.0.load(Ordering::Relaxed), budget.excess()), (1, 3), "the second one");
        assert!(budget.poll_room(2, 2, &waker).is_ready());
        budget.stop_waiting(1);
        budget.change(7, 0);
        assert_eq!(
            (counts.0.load(Ordering::Relaxed), budget.excess()),
            (1, 0),
            "nobody waits any more"
        );
    }
}
