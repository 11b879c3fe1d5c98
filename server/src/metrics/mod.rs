//! What the server counts and measures: its counters, the calls of each command, and what the
//! engine passes on to a recorder. INFO, TL.STATS, LATENCY and /metrics show them.
//!
//! Each number is one atomic that is only added to, so counting never waits.
//!
//! It does not know how the numbers are shown.

mod calls;
mod histogram;
mod recorder;

use std::sync::atomic::{AtomicU64, Ordering};

pub use calls::Calls;
#[cfg(test)]
pub use calls::MOST_COMMANDS;
pub use histogram::{Distribution, Histogram};
pub use recorder::EngineMetrics;

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

    /// Starts again at 0, for CONFIG RESETSTAT.
    pub fn reset(&self) {
        self.0.store(0, Ordering::Relaxed);
    }
}

/// The words of error replies that are counted one by one; all others are counted with the last.
pub const ERROR_WORDS: [&str; 18] = [
    "ERR",
    "NOAUTH",
    "WRONGPASS",
    "NOPERM",
    "NOSTORE",
    "NOTFOUND",
    "TOOBIG",
    "SEQORDER",
    "LASTSEQ",
    "CONFLICT",
    "FULL",
    "POISONED",
    "CORRUPT",
    "LIMIT",
    "SLOW",
    "FENCED",
    "NOPROTO",
    "OTHER",
];

/// Error replies by their first word.
#[derive(Debug, Default)]
pub struct ErrorWords([Counter; ERROR_WORDS.len()]);

impl ErrorWords {
    /// Counts an error reply.
    pub fn count(&self, word: &str) {
        let position = ERROR_WORDS.iter().position(|known| *known == word);
        self.0[position.unwrap_or(ERROR_WORDS.len() - 1)].one();
    }

    /// The words that were counted, with their numbers.
    pub fn all(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        let counted = ERROR_WORDS.into_iter().zip(self.0.iter().map(Counter::get));
        counted.filter(|(_, count)| *count > 0)
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
    /// Error replies by their first word.
    pub error_words: ErrorWords,
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

    /// Starts all counters again at 0.
    pub fn reset(&self) {
        let Metrics {
            connections,
            connections_refused,
            commands,
            errors,
            error_words,
            protocol_errors,
            pushes,
            memory_closed,
            slow_closed,
            auth_timeouts,
            idle_closed,
            input_bytes,
            output_bytes,
        } = self;
        let counters = [
            connections,
            connections_refused,
            commands,
            errors,
            protocol_errors,
            pushes,
            memory_closed,
            slow_closed,
            auth_timeouts,
            idle_closed,
            input_bytes,
            output_bytes,
        ];
        counters.into_iter().chain(&error_words.0).for_each(Counter::reset);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_counted_by_word_and_unknown_words_together() {
        let words = ErrorWords::default();
        ["NOAUTH", "NOAUTH", "NEW", "NEWER"].iter().for_each(|word| words.count(word));
        assert_eq!(words.all().collect::<Vec<_>>(), [("NOAUTH", 2), ("OTHER", 2)]);
    }

    #[test]
    fn a_reset_starts_every_counter_again() {
        let metrics = Metrics::default();
        metrics.commands.add(3);
        metrics.error_words.count("ERR");
        metrics.reset();
        assert!(metrics.fields().iter().all(|(_, value)| *value == 0));
        assert_eq!(metrics.error_words.all().count(), 0);
    }
}
