//! Work that is not done on the connection's own thread: single pieces of work, and replies that
//! are made in slices.
//!
//! The bytes of a large reply are reserved before its work starts. So however many clients request
//! large replies at once, these fit into the memory of all connections; the others wait, and no
//! work is done in vain. Between two slices the connection reads, writes and pushes as always, and
//! may be asked to end.

use parking_lot::Mutex;

use super::Session;
use crate::commands::{Done, Sliced, context, watch_instead};
use crate::refusal::Refusal;

/// A reply that is being made, or waits for memory.
pub(super) struct Slices {
    /// Only the task of the connection locks it. Without the lock the task could not be sent to
    /// another thread.
    work: Mutex<Sliced>,
    begun: bool,
}

impl Slices {
    /// A reply whose work has not begun.
    pub(super) fn new(work: Sliced) -> Slices {
        Slices { work: Mutex::new(work), begun: false }
    }

    /// Whether the work has begun.
    pub(super) fn has_begun(&self) -> bool {
        self.begun
    }
}

impl Session {
    /// Does the next slice, if there is one and there is memory for its reply.
    pub(super) async fn one_slice(&mut self) -> bool {
        if self.slices.as_ref().is_none_or(|slices| !slices.begun && self.is_full()) {
            return false;
        }
        let Some(mut slices) = self.slices.take() else { return false };
        if !slices.begun {
            let output = &self.shared.memory.output;
            // No reply needs more; half of the budget remains for the others.
            let bytes = slices.work.get_mut().bytes.min(output.limit() / 2);
            if !output.try_take(bytes) {
                self.short_of = Some(bytes);
                self.slices = Some(slices);
                return false;
            }
            (self.reserved, slices.begun) = (bytes, true);
        }
        let slice = move || {
            let outcome = (slices.work.get_mut().slice)();
            (slices, outcome)
        };
        match self.shared.pool.run(slice).await {
            Ok((slices, Ok(None))) => {
                self.slices = Some(slices);
                return true;
            }
            Ok((_, Ok(Some(done)))) => self.finish(done),
            Ok((_, Err(refusal))) | Err(refusal) => {
                self.refuse(&refusal);
                self.unblock();
            }
        }
        // First the current output is counted, then the reservation is released: in between both
        // count, never neither.
        self.note_memory();
        self.shared.memory.output.change(std::mem::take(&mut self.reserved), 0);
        true
    }

    /// Writes the reply, which is small, of work that ran elsewhere.
    pub(super) fn answer(&mut self, outcome: Result<Result<Done, Refusal>, Refusal>) {
        match outcome.flatten() {
            Ok(done) => self.finish(done),
            Err(refusal) => self.refuse(&refusal),
        }
    }

    fn finish(&mut self, done: Done) {
        let out = &mut self.connection.out;
        match done {
            Done::Ok => out.ok(),
            Done::Integer(value) => out.integer(value),
            Done::Reply(write) => write(out),
            Done::Then(then) => {
                let mut context = context(&self.shared, &mut self.connection);
                if let Err(refusal) = then(&mut context) {
                    self.refuse(&refusal);
                }
            }
            // A blocked command has no reply yet.
            Done::NotYet => return,
            Done::Larger(work) => {
                self.slices = Some(Slices::new(work));
                return;
            }
            Done::NotYetOn(keys) => {
                let mut context = context(&self.shared, &mut self.connection);
                match watch_instead(&mut context, keys) {
                    Ok(are_others) => {
                        self.blocked.iter_mut().for_each(|waiting| waiting.woken |= are_others);
                        return;
                    }
                    Err(refusal) => self.refuse(&refusal),
                }
            }
        }
        self.unblock();
    }
}
