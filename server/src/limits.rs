//! The limits of connections, in one place, so that the sum of what strangers can make the server
//! hold can be computed. `memory` has the amounts of memory that follow from them.
//!
//! It does not know how the limits are enforced.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use strandline::MAX_BODY_BYTES;

use crate::protocol::Bounds;

/// The most arguments in one request.
const MAX_ARGUMENTS: usize = 1024 * 1024;

/// The longest argument that is read at all. It is longer than the largest body, so that a body
/// that is a little too large is refused with `TOOBIG` on a connection that goes on.
const MAX_BULK_BYTES: usize = MAX_BODY_BYTES + 1024 * 1024;

/// The longest inline command.
const MAX_INLINE_BYTES: usize = 64 * 1024;

/// The longest request: the largest batch of the engine (48 MiB) and its framing.
const MAX_REQUEST_BYTES: usize = 64 * 1024 * 1024;

/// Before login: enough for HELLO with AUTH and SETNAME, and no more. A request with its framing
/// fits into the input that a connection may hold then (`memory::STRANGER_INPUT_BYTES`).
const BEFORE_LOGIN_ARGUMENTS: usize = 10;
const BEFORE_LOGIN_BULK_BYTES: usize = 16 * 1024;
const BEFORE_LOGIN_REQUEST_BYTES: usize = 20 * 1024;

/// The shortest time between two heartbeats of a follow.
pub const LEAST_HEARTBEAT_MS: u64 = 1000;

/// The limits that an operator may set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// The most connections. Further ones get the error `LIMIT` and are closed.
    pub max_clients: usize,
    /// The largest body, in bytes; at most 16 MiB.
    pub max_body_bytes: usize,
    /// The most subscriptions and follows of one connection.
    pub max_subscriptions: usize,
    /// The most subscriptions, follows and keys of blocked commands, of all connections together.
    pub max_total_subscriptions: usize,
    /// The output above which a connection runs no further command and gets no pushes, until its
    /// client has taken some of it.
    pub output_high_water_bytes: usize,
    /// The memory for input that has not run and output that was not taken, of all connections
    /// together, above a floor of 16 KiB each. Input may take half of it, and output half.
    pub client_memory_bytes: usize,
    /// The input that one connection reads ahead while commands may not run.
    pub read_ahead_bytes: usize,
    /// The input that all connections together read ahead; at most a quarter of
    /// [`Limits::client_memory_bytes`] is used.
    pub total_read_ahead_bytes: usize,
    /// The most bytes of bodies in one reply, whatever COUNT and BYTES request. The first entry is
    /// always returned.
    pub reply_bytes: u64,
    /// How long a connection may exist without having logged in, when a password is set. Commands
    /// do not extend it.
    pub auth_seconds: u64,
    /// How long a client may take next to nothing while its output is over the high-water mark, or
    /// send next to nothing of a request that it has begun.
    pub client_stall_seconds: u64,
    /// After this time without a byte the peer is probed (TCP keepalive); 0: never.
    pub keepalive_seconds: u64,
    /// How long a connection may be idle: no command, no subscription or follow, no blocked
    /// command; 0: without limit.
    pub idle_seconds: u64,
    /// How long connections may take to finish when the server stops.
    pub stop_seconds: u64,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            max_clients: 10_000,
            max_body_bytes: 1024 * 1024,
            max_subscriptions: 100_000,
            max_total_subscriptions: 1_000_000,
            output_high_water_bytes: 1024 * 1024,
            client_memory_bytes: 256 * 1024 * 1024,
            read_ahead_bytes: 32 * 1024 * 1024,
            total_read_ahead_bytes: 64 * 1024 * 1024,
            reply_bytes: 32 * 1024 * 1024,
            auth_seconds: 10,
            client_stall_seconds: 30,
            keepalive_seconds: 60,
            idle_seconds: 0,
            stop_seconds: 2,
        }
    }
}

impl Limits {
    /// The bounds of requests for a peer that has, or has not, logged in.
    pub fn bounds(&self, logged_in: bool) -> Bounds {
        if logged_in {
            Bounds {
                arguments: MAX_ARGUMENTS,
                bulk_bytes: MAX_BULK_BYTES,
                inline_bytes: MAX_INLINE_BYTES,
                request_bytes: MAX_REQUEST_BYTES,
                before_login: false,
            }
        } else {
            Bounds {
                arguments: BEFORE_LOGIN_ARGUMENTS,
                bulk_bytes: BEFORE_LOGIN_BULK_BYTES,
                inline_bytes: BEFORE_LOGIN_BULK_BYTES,
                request_bytes: BEFORE_LOGIN_REQUEST_BYTES,
                before_login: true,
            }
        }
    }

    /// The bytes of bodies that one reply can really have: two replies at once, each of this size,
    /// fit into the half of the memory that is for output.
    pub fn reply_bytes_that_fit(&self) -> u64 {
        self.reply_bytes.min(self.client_memory_bytes as u64 / 4)
    }

    /// The bytes that all connections together may really read ahead: blocked connections must
    /// leave space for those that send.
    pub fn shared_read_ahead_bytes(&self) -> usize {
        self.total_read_ahead_bytes.min(self.client_memory_bytes / 4)
    }

    /// [`Limits::auth_seconds`] as a duration.
    pub fn auth_timeout(&self) -> Duration {
        Duration::from_secs(self.auth_seconds)
    }

    /// [`Limits::client_stall_seconds`] as a duration.
    pub fn stall_timeout(&self) -> Duration {
        Duration::from_secs(self.client_stall_seconds)
    }

    /// [`Limits::keepalive_seconds`] as a duration, if it is on.
    pub fn keepalive(&self) -> Option<Duration> {
        (self.keepalive_seconds > 0).then(|| Duration::from_secs(self.keepalive_seconds))
    }

    /// [`Limits::idle_seconds`] as a duration, if it is on.
    pub fn idle_timeout(&self) -> Option<Duration> {
        (self.idle_seconds > 0).then(|| Duration::from_secs(self.idle_seconds))
    }

    /// [`Limits::stop_seconds`] as a duration.
    pub fn stop_timeout(&self) -> Duration {
        Duration::from_secs(self.stop_seconds)
    }
}
