//! What an operator can watch on a running server: slow commands (SLOWLOG), moments that took long
//! (LATENCY), all commands as they run (MONITOR), and the log.
//!
//! Promises: memory is bounded, whatever clients send: lists have a length, and words are cut.
//! Secrets are hidden: of a command whose words may contain one, only the name is kept. While
//! nothing is slow and nobody monitors, a command costs two relaxed loads.
//!
//! It knows nothing of sockets, sessions or replies.

mod latency;
mod logging;
mod monitors;
mod settings;
mod slowlog;
#[cfg(feature = "otel")]
mod traces;
mod words;

pub use latency::{LatencyEvent, LatencyEvents};
pub use logging::{FilterError, set_log_filter, start_log};
pub use monitors::{Monitoring, Monitors};
pub use settings::{HttpSettings, LogFormat, LogSettings, SlowlogSettings};
pub use slowlog::Slowlog;
#[cfg(feature = "otel")]
pub use traces::finish_traces;
pub use words::shown_line;
