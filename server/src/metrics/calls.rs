//! The calls of each command: how many, how long they took, how many were refused.
//!
//! A command is known by its position in the table, so that counting a call is an index and two
//! additions. A call's time is that of running it: without the wait of a blocked command for its
//! timelines, and for a write with its commit.

use super::{Counter, Histogram};

/// The most commands that the table may have: 128 histograms take about 100 KB.
pub const MOST_COMMANDS: usize = 128;

/// The calls of one command.
#[derive(Debug, Default)]
pub struct CommandCalls {
    /// The time of each call, in microseconds.
    pub micros: Histogram,
    /// Calls that were answered with an error.
    pub failed: Counter,
    /// Requests that were refused before they ran: no login, no permission, wrong arguments.
    pub rejected: Counter,
}

/// The calls of all commands.
#[derive(Debug)]
pub struct Calls(Box<[CommandCalls]>);

impl Default for Calls {
    fn default() -> Calls {
        Calls((0..MOST_COMMANDS).map(|_| CommandCalls::default()).collect())
    }
}

impl Calls {
    /// The calls of the command at a position of the table.
    pub fn of(&self, position: usize) -> &CommandCalls {
        &self.0[position]
    }

    /// Forgets all calls.
    pub fn reset(&self) {
        for CommandCalls { micros, failed, rejected } in &self.0 {
            micros.reset();
            failed.reset();
            rejected.reset();
        }
    }
}
