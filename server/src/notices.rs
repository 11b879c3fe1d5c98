//! What the log says of clients and of care: who was disconnected and why, failed logins, refusals
//! by a limit, backups. Each kind has at most one line a minute, with how often it happened since
//! the last one (`strandline::OnceAMinute`), so that no client can fill a disk with lines.
//!
//! It does not know: who decides that a connection ends, or how the log is written.

use std::fmt::Display;
use std::time::Duration;

use strandline::OnceAMinute;
use tracing::{info, warn};

use crate::clients::Client;

/// What is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A client was disconnected because it took or sent too little.
    Slow,
    /// A client was disconnected because memory was short.
    Memory,
    /// A client was disconnected because it did not log in in time.
    NoLogin,
    /// A client was disconnected by CLIENT KILL.
    Killed,
    /// A client was disconnected because it does not speak RESP.
    Protocol,
    /// A connection was not let in, since there are too many.
    Refused,
    /// A login failed.
    FailedLogin,
    /// A command was refused with `LIMIT`.
    Limit,
    /// A backup was completed.
    Backup,
    /// A backup failed.
    BackupFailed,
}

const KINDS: usize = Kind::BackupFailed as usize + 1;

/// The counters of all kinds.
#[derive(Debug, Default)]
pub struct Notices([OnceAMinute; KINDS]);

impl Notices {
    /// It happened to a client, at a time of the monotonic clock.
    pub fn of_client(&self, kind: Kind, client: &Client, why: impl Display, now: Duration) {
        let Some(count) = self.0[kind as usize].add(now) else { return };
        let name = client.name.lock().escape_ascii().to_string();
        let (id, address) = (client.id, client.address);
        match kind {
            Kind::FailedLogin => warn!(client = id, %address, name, count, %why, "a login failed"),
            Kind::Limit => {
                warn!(client = id, %address, name, count, %why, "a command was refused by a limit");
            }
            _ => warn!(client = id, %address, name, count, %why, "a client was disconnected"),
        }
    }

    /// It happened to a connection that has no session, or to nobody.
    pub fn of_server(&self, kind: Kind, what: impl Display, now: Duration) {
        let Some(count) = self.0[kind as usize].add(now) else { return };
        match kind {
            Kind::Backup => info!(count, %what, "a backup was completed"),
            Kind::BackupFailed => warn!(count, %what, "a backup failed"),
            _ => warn!(count, %what, "a connection was refused"),
        }
    }
}
