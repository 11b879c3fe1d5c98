//! The settings of the log, of the list of slow commands, and of the port for metrics.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// The form of a line of the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Time, level, module, text and fields, for people.
    #[default]
    Text,
    /// One JSON object, for programs that collect logs.
    Json,
}

/// The settings of the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogSettings {
    /// The form of a line.
    pub format: LogFormat,
    /// The least level of a line: one for everything, or levels by module, as in
    /// `warn,strandline=debug`. The environment variable `RUST_LOG` overrides it.
    pub filter: String,
}

impl Default for LogSettings {
    fn default() -> LogSettings {
        LogSettings { format: LogFormat::Text, filter: "info".into() }
    }
}

/// The settings of SLOWLOG and LATENCY.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SlowlogSettings {
    /// The time above which a command, a commit or an fsync is slow, in microseconds.
    pub threshold_us: u64,
    /// The number of slow commands that are kept; 0: none.
    pub length: usize,
}

impl Default for SlowlogSettings {
    fn default() -> SlowlogSettings {
        SlowlogSettings { threshold_us: 10_000, length: 128 }
    }
}

/// The settings of the port for metrics and health.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HttpSettings {
    /// The address to listen on.
    pub bind: IpAddr,
    /// The port to listen on; 0: any free port; none: nothing listens.
    pub port: Option<u16>,
    /// Whether it has TLS, by the settings of `tls`.
    pub tls: bool,
}

impl Default for HttpSettings {
    fn default() -> HttpSettings {
        HttpSettings { bind: IpAddr::from([127, 0, 0, 1]), port: None, tls: false }
    }
}
