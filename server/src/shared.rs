//! The state that all connections of a server share: the engine, the settings, the counters, the
//! list of connections, and the request to stop.

use std::fmt::Display;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use strandline::Engine;
use strandline::clock::{Clock as _, SystemClock};
use tokio::sync::Notify;
use tracing::{error, info};

use crate::access::Access;
use crate::backups::Backups;
use crate::busiest::Busiest;
use crate::clients::{Channels, Client, Clients};
use crate::config::{Change, Config, ConfigError, RunningConfig, Setting};
use crate::memory::Memory;
use crate::messaging::Messaging;
use crate::metrics::{Calls, EngineMetrics, Metrics};
use crate::notices::{NoticeKind, Notices};
use crate::observe::{LatencyEvents, Monitors, Slowlog, set_log_filter};
use crate::pool::Pool;
use crate::tls::{Acceptor, TlsError};

/// The reason why the server stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopReason {
    /// It was asked to by a signal or by SHUTDOWN.
    Asked,
    /// The engine refuses writes since one failed: only a restart can determine what is durable.
    Poisoned,
}

/// What must exist before the engine is opened, to measure it.
pub struct Measured {
    latency: Arc<LatencyEvents>,
    engine_metrics: EngineMetrics,
}

impl Measured {
    /// Nothing measured yet.
    pub fn new(config: &Config) -> Measured {
        let latency = Arc::new(LatencyEvents::new(config.slowlog.threshold_us));
        Measured { engine_metrics: EngineMetrics::new(&latency), latency }
    }

    /// Opens an engine that is measured.
    pub fn open(
        &self,
        dir: &Path,
        options: strandline::Options,
    ) -> Result<Engine, strandline::Error> {
        metrics::with_local_recorder(&self.engine_metrics, || Engine::open(dir, options))
    }
}

/// A duration in whole milliseconds.
pub fn milliseconds(time: Duration) -> u64 {
    time.as_secs() * 1000 + u64::from(time.subsec_millis())
}

/// The shared state of a server.
pub struct Shared {
    /// The engine with the data.
    pub engine: Engine,
    /// Conversations and users; `None` if the directory was opened read-only and has none.
    pub messaging: Option<Arc<Messaging>>,
    /// The settings.
    pub config: RunningConfig,
    /// Users and tokens.
    pub access: Access,
    /// The keys that are written to most.
    pub busiest: Busiest,
    /// The counters.
    pub metrics: Metrics,
    /// The calls of each command.
    pub calls: Calls,
    /// What the engine measures and its figures do not have.
    pub engine_metrics: EngineMetrics,
    /// The commands that took long.
    pub slowlog: Slowlog,
    /// The moments that took long.
    pub latency: Arc<LatencyEvents>,
    /// The connections that see all commands.
    pub monitors: Arc<Monitors>,
    /// Whether the directory was opened without writing to it.
    pub read_only: bool,
    /// The lines that are logged at most once per minute.
    pub notices: Notices,
    /// The list of connections.
    pub clients: Clients,
    /// The budgets of the memory of connections.
    pub memory: Memory,
    /// The scheduled backups.
    pub backups: Backups,
    /// The subscribers of channels.
    pub channels: Arc<Channels>,
    /// TLS, if it is on.
    pub tls: Option<Acceptor>,
    /// The address on which the server listens.
    pub address: SocketAddr,
    /// When it started, Unix ms.
    pub since_ms: u64,
    /// The bytes that all connections together have read ahead of the commands that may run.
    pub read_ahead_bytes: AtomicUsize,
    /// The threads for work that may block.
    pub pool: Arc<Pool>,
    /// Whether a client has sent HTTP.
    pub was_foreign: AtomicBool,
    clock: SystemClock,
    reason: OnceLock<StopReason>,
    stop: Notify,
}

impl Shared {
    /// The shared state of a server with an open engine that listens on `address`.
    pub fn new(
        (engine, measured): (Engine, Measured),
        messaging: Option<Messaging>,
        (access, config): (Access, RunningConfig),
        pool: Pool,
        (address, tls): (SocketAddr, Option<Acceptor>),
    ) -> Shared {
        let (clock, given) = (SystemClock::new(), config.now());
        Shared {
            engine,
            messaging: messaging.map(Arc::new),
            access,
            busiest: Busiest::default(),
            metrics: Metrics::default(),
            calls: Calls::default(),
            engine_metrics: measured.engine_metrics,
            slowlog: Slowlog::new(&given.slowlog),
            latency: measured.latency,
            monitors: Arc::default(),
            read_only: given.read_only,
            notices: Notices::default(),
            clients: Clients::default(),
            memory: Memory::new(given.limits.client_memory_bytes),
            // A backup flushes first, which an engine that is read-only refuses.
            backups: if given.read_only {
                Backups::default()
            } else {
                Backups::new(given.backup_dir.clone(), given.backup.clone())
            },
            config,
            channels: Arc::default(),
            tls,
            address,
            since_ms: clock.now_ms(),
            read_ahead_bytes: AtomicUsize::new(0),
            pool: Arc::new(pool),
            was_foreign: AtomicBool::new(false),
            clock,
            reason: OnceLock::new(),
            stop: Notify::new(),
        }
    }

    /// The clock of the server.
    pub fn clock(&self) -> &SystemClock {
        &self.clock
    }

    /// The time in Unix milliseconds.
    pub fn now_ms(&self) -> u64 {
        self.clock.now_ms()
    }

    /// Changes settings, all of them or, with an error, none.
    pub fn configure(&self, wanted: &[(&'static Setting, String)]) -> Result<(), ConfigError> {
        self.config.set(wanted).map(|change| self.apply(&change))
    }

    /// Reads the sources of the settings again, from the disk, and then the certificates. With an
    /// error nothing changes. A certificate that cannot be used is logged, and the old one stays.
    pub fn reload(&self) -> Result<(), ConfigError> {
        let change = self.config.reload(|config| self.load_users(config))?;
        self.apply(&change);
        if let Some(Err(problem)) = self.tls.as_ref().map(Acceptor::reload) {
            note_old_certificate(problem);
        }
        Ok(())
    }

    /// Replaces users and tokens by those of these settings. With an error the old ones stay.
    pub fn load_users(&self, config: &Config) -> Result<(), ConfigError> {
        let loaded = self.access.load(&config.users, &config.tokens);
        loaded.map_err(|what| ConfigError::Value { what })?;
        self.clients.all().iter().for_each(|client| client.look_again());
        Ok(())
    }

    /// Uses a certificate whose files have changed. Reads the disk.
    pub fn look_at_certificates(&self) {
        match self.tls.as_ref().map(Acceptor::reload_if_changed) {
            Some(Ok(true)) => info!("the certificate has changed, and is used from now on"),
            Some(Err(problem)) => note_old_certificate(problem),
            Some(Ok(false)) | None => {}
        }
    }

    /// Hands changed settings to everyone who does not read them each time.
    fn apply(&self, change: &Change) {
        let Change { before, now } = change;
        if before.compact_bytes_per_second != now.compact_bytes_per_second {
            self.engine.set_compact_bytes_per_second(now.compact_bytes_per_second);
        }
        if before.limits != now.limits {
            // Connections wait until deadlines that may have changed.
            self.clients.wake_all();
        }
        if before.rates != now.rates {
            self.access.set_rates(&now.rates);
            self.clients.wake_all();
        }
        if before.slowlog != now.slowlog {
            self.slowlog.set(&now.slowlog);
            self.latency.set_threshold(now.slowlog.threshold_us);
        }
        if before.log.filter != now.log.filter
            && let Err(problem) = set_log_filter(&now.log.filter)
        {
            error!(%problem, "the filter of the log stays as it is");
        }
    }

    /// The time of the monotonic clock, since the start of the server: it never decreases.
    pub fn monotonic(&self) -> Duration {
        self.clock.monotonic()
    }

    /// The same in milliseconds.
    pub fn monotonic_ms(&self) -> u64 {
        milliseconds(self.monotonic())
    }

    /// Whether the server was asked to stop.
    pub fn is_stopping(&self) -> bool {
        self.reason.get().is_some()
    }

    /// Logs an event of a client.
    pub fn note(&self, kind: NoticeKind, client: &Client, why: impl Display) {
        self.notices.of_client(kind, client, why, self.clock.monotonic());
    }

    /// Logs an event of the server, or of a connection without a session.
    pub fn note_server(&self, kind: NoticeKind, what: impl Display) {
        self.notices.of_server(kind, what, self.clock.monotonic());
    }

    /// Asks the server to stop. The first reason holds.
    pub fn stop(&self, reason: StopReason) {
        if self.reason.set(reason).is_ok() {
            self.stop.notify_one();
        }
    }

    /// Waits for the request to stop. For the listener only: one request wakes one waiter.
    pub async fn stopped(&self) -> StopReason {
        loop {
            if let Some(reason) = self.reason.get() {
                return *reason;
            }
            self.stop.notified().await;
        }
    }
}

fn note_old_certificate(problem: TlsError) {
    let problem = anyhow::Error::from(problem);
    error!("the old certificate stays in use: {problem:#}");
}
