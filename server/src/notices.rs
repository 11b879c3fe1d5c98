//! Lines of the log about clients and maintenance: disconnections with their reasons, failed
//! logins, refusals by a limit, backups. Each kind writes at most one line per minute, with the
//! number of occurrences since the last line (`strandline::OnceAMinute`), so that no client can
//! fill a disk with lines.
//!
//! It does not know why a connection ends, nor how the log is written.

use std::fmt::Display;
use std::time::Duration;

use strandline::OnceAMinute;
use tracing::{info, warn};

use crate::clients::Client;

/// The kinds of events that are logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoticeKind {
    /// A client was disconnected because it took or sent too little.
    Slow,
    /// A client was disconnected because memory was short.
    Memory,
    /// A client was disconnected because it did not log in in time, or because its token expired or
    /// its user lost rights.
    NoLogin,
    /// A client was disconnected by CLIENT KILL.
    Killed,
    /// A client was disconnected because it does not speak RESP.
    Protocol,
    /// A connection was refused, since there are too many.
    Refused,
    /// A login failed.
    FailedLogin,
    /// A command was refused with `LIMIT`.
    Limit,
    /// A TLS handshake failed.
    Handshake,
    /// A backup was completed.
    Backup,
    /// A backup failed.
    BackupFailed,
}

const KINDS: usize = NoticeKind::BackupFailed as usize + 1;

/// The counters of all kinds.
#[derive(Debug, Default)]
pub struct Notices([OnceAMinute; KINDS]);

impl Notices {
    /// Logs an event of a client, at a time of the monotonic clock.
    pub fn of_client(&self, kind: NoticeKind, client: &Client, why: impl Display, now: Duration) {
        let Some(count) = self.0[kind as usize].add(now) else { return };
        let name = client.name.lock().escape_ascii().to_string();
        let (id, address) = (client.id, client.address);
        match kind {
            NoticeKind::FailedLogin => {
                warn!(client = id, %address, name, count, %why, "a login failed");
            }
            NoticeKind::Handshake => {
                warn!(client = id, %address, count, %why, "a TLS handshake failed");
            }
            NoticeKind::Limit => {
                warn!(client = id, %address, name, count, %why, "a command was refused by a limit");
            }
            _ => warn!(client = id, %address, name, count, %why, "a client was disconnected"),
        }
    }

    /// Logs an event of a connection without a session, or of the server.
    pub fn of_server(&self, kind: NoticeKind, what: impl Display, now: Duration) {
        let Some(count) = self.0[kind as usize].add(now) else { return };
        match kind {
            NoticeKind::Backup => info!(count, %what, "a backup was completed"),
            NoticeKind::BackupFailed => warn!(count, %what, "a backup failed"),
            _ => warn!(count, %what, "a connection was refused"),
        }
    }
}
