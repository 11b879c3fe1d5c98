//! What all connections of a server share: the engine, the settings, the counters, the list of who
//! is there, and the word to stop.

use std::fmt::Display;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::sync::{Arc, OnceLock};

use strandline::Engine;
use strandline::clock::{Clock as _, SystemClock};
use tokio::sync::Notify;

use crate::auth::Password;
use crate::clients::{Channels, Client, Clients};
use crate::config::Config;
use crate::limits::Limits;
use crate::memory::Memory;
use crate::messaging::Messaging;
use crate::metrics::Metrics;
use crate::notices::{Kind, Notices};
use crate::submission::Submission;

/// Why the server stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopReason {
    /// It was asked to, by a signal or by SHUTDOWN.
    Asked,
    /// The engine takes no more writes since one failed: only a restart finds out what is durable.
    Poisoned,
}

/// The server, as its connections see it.
pub struct Shared {
    /// Where the data is.
    pub engine: Engine,
    /// Conversations and users; none in a directory that was opened read-only before there were
    /// any.
    pub messaging: Option<Arc<Messaging>>,
    /// What connections may ask for.
    pub limits: Limits,
    /// Who may come in.
    pub password: Password,
    /// Counters.
    pub metrics: Metrics,
    /// What the log says once a minute.
    pub notices: Notices,
    /// Connections.
    pub clients: Clients,
    /// What connections hold.
    pub memory: Memory,
    /// Subscribers.
    pub channels: Arc<Channels>,
    /// Where the server listens.
    pub address: SocketAddr,
    /// When it started.
    pub since_ms: u64,
    /// Bytes that all connections together have read ahead of what they may run.
    pub read_ahead_bytes: AtomicUsize,
    /// Where writes go to the engine.
    pub submission: Submission,
    /// Whether a client spoke HTTP.
    pub was_foreign: AtomicBool,
    clock: SystemClock,
    reason: OnceLock<StopReason>,
    stop: Notify,
}

impl Shared {
    /// The server of an open engine that listens on `address`.
    pub fn new(
        engine: Engine,
        messaging: Option<Messaging>,
        config: &Config,
        address: SocketAddr,
    ) -> Shared {
        let clock = SystemClock::new();
        Shared {
            engine,
            messaging: messaging.map(Arc::new),
            limits: config.limits.clone(),
            password: Password::new(config.password.clone()),
            metrics: Metrics::default(),
            notices: Notices::default(),
            clients: Clients::default(),
            memory: Memory::new(config.limits.client_memory_bytes),
            channels: Arc::default(),
            address,
            since_ms: clock.now_ms(),
            read_ahead_bytes: AtomicUsize::new(0),
            submission: Submission::default(),
            was_foreign: AtomicBool::new(false),
            clock,
            reason: OnceLock::new(),
            stop: Notify::new(),
        }
    }

    /// Unix milliseconds.
    pub fn now_ms(&self) -> u64 {
        self.clock.now_ms()
    }

    /// Something happened to a client that the log tells.
    pub fn note(&self, kind: Kind, client: &Client, why: impl Display) {
        self.notices.of_client(kind, client, why, self.clock.monotonic());
    }

    /// Something happened to the server, or to a connection without a session, that the log tells.
    pub fn note_server(&self, kind: Kind, what: impl Display) {
        self.notices.of_server(kind, what, self.clock.monotonic());
    }

    /// Asks the server to stop. The first reason holds.
    pub fn stop(&self, reason: StopReason) {
        if self.reason.set(reason).is_ok() {
            self.stop.notify_one();
        }
    }

    /// Waits for the word to stop. For the listener only: one word wakes one waiter.
    pub async fn stopped(&self) -> StopReason {
        loop {
            if let Some(reason) = self.reason.get() {
                return *reason;
            }
            self.stop.notified().await;
        }
    }
}
