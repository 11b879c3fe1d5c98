//! Counters of the server, shown by INFO and TL.STATS. Each is one atomic that is only added to, so
//! counting never waits.

use std::sync::atomic::{AtomicU64, Ordering};

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds one.
    pub fn one(&self) {
        self.add(1);
    }

    /// Adds `count`.
    pub fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    /// The sum so far.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The server's counters.
#[derive(Debug, Default)]
pub struct Metrics {
    /// Connections that were accepted.
    pub connections: Counter,
    /// Connections that were refused because of the limit.
    pub connections_refused: Counter,
    /// Commands that were run, including refused ones.
    pub commands: Counter,
    /// Error replies.
    pub errors: Counter,
    /// Connections closed for bytes that are not RESP.
    pub protocol_errors: Counter,
    /// Push frames of follows and subscriptions.
    pub pushes: Counter,
    /// Connections closed because they held the most input while memory was short.
    pub memory_closed: Counter,
    /// Connections closed because their client took, or sent, next to nothing.
    pub slow_closed: Counter,
    /// Connections closed because they did not log in in time.
    pub auth_timeouts: Counter,
    /// Connections closed because they were idle too long.
    pub idle_closed: Counter,
    /// Bytes received.
    pub input_bytes: Counter,
    /// Bytes sent.
    pub output_bytes: Counter,
}

impl Metrics {
    /// All counters with their names.
    pub fn fields(&self) -> [(&'static str, u64); 12] {
        [
            ("total_connections_received", self.connections.get()),
            ("rejected_connections", self.connections_refused.get()),
            ("total_commands_processed", self.commands.get()),
            ("total_error_replies", self.errors.get()),
            ("protocol_errors", self.protocol_errors.get()),
            ("pushed_frames", self.pushes.get()),
            ("slow_clients_closed", self.slow_closed.get()),
            ("memory_clients_closed", self.memory_closed.get()),
            ("auth_timeouts", self.auth_timeouts.get()),
            ("idle_clients_closed", self.idle_closed.get()),
            ("total_net_input_bytes", self.input_bytes.get()),
            ("total_net_output_bytes", self.output_bytes.get()),
        ]
    }
}
