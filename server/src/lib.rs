//! The Strandline server: RESP2 and RESP3 over TCP, on the `strandline` engine. docs/protocol.md is
//! its contract.
//!
//! ```text
//!  main
//!  lib
//!  listener
//!  http  loops
//!  session  watch
//!  commands
//!  connection  figures
//!  push  shared
//!  config  key  notices
//!  submitter
//!  limits  pool
//!  metrics  refusal
//!  access
//!  backups  busiest  clients  files  glob  memory  messaging  observe  protocol  tls
//!  (engine)
//! ```
//!
//! A module uses only modules on lines below its own, and the engine. The engine is used only
//! through its public items. It knows nothing of connections, and the server nothing of the
//! engine's files.

#![forbid(unsafe_code)]

mod access;
mod backups;
mod busiest;
mod clients;
mod commands;
mod config;
mod connection;
mod figures;
mod files;
mod glob;
mod http;
mod key;
mod limits;
mod listener;
mod loops;
mod memory;
mod messaging;
mod metrics;
mod notices;
mod observe;
mod pool;
mod protocol;
mod push;
mod refusal;
mod session;
mod shared;
mod submitter;
mod tls;
mod watch;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use strandline::{Engine, LEAST_OPEN_FILES};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

pub use access::{
    Hash, RateSettings, Secret, TokenAlgorithm, TokenKeySettings, TokenSettings, UserSettings,
    UserTable,
};
pub use backups::{BackupSettings, Schedule, ScheduleError};
pub use commands::render_tables;
pub use config::{
    Config, ConfigError, DEFAULT_PORT, Loaded, Origin, Sources, sample_file, settings_help,
    settings_table,
};
pub use http::render_families;
pub use limits::Limits;
pub use messaging::{
    FIRST_STORES, LostLedgers, MESSAGES_STORE, Messaging, Options as MessagingOptions, Rebuilt,
    forget_lines, is_mark,
};
#[cfg(feature = "otel")]
pub use observe::finish_traces;
pub use observe::{FilterError, HttpSettings, LogFormat, LogSettings, SlowlogSettings};
pub use observe::{set_log_filter, start_log};
pub use protocol::split_words;
pub use shared::StopReason;
pub use tls::{ClientCertificates, TlsError, TlsSettings, TlsVersion};

use crate::access::Access;
use crate::config::RunningConfig;
use crate::files::Shares;
use crate::http::Http;
use crate::listener::Listeners;
use crate::loops::Loops;
use crate::pool::Pool;
use crate::shared::{Measured, Shared};
use crate::tls::Acceptor;

/// Checks the settings and what they name, as a start of the server does: users, keys of tokens,
/// certificates, `backup_dir`. Takes tens of milliseconds if there is a password.
pub fn check(config: &Config) -> Result<(), ServerError> {
    config.check()?;
    prepare(config).map(drop)
}

/// What admits connections.
struct Security {
    access: Access,
    tls: Option<Acceptor>,
}

/// Does what needs nothing but the settings. It comes before the engine opens: a mistake is found
/// before the engine recovers, which may take long.
fn prepare(config: &Config) -> Result<Security, ServerError> {
    let wrong = |what| ConfigError::Value { what };
    if let Some(dir) = config.backup_dir.as_ref().filter(|dir| dir.exists() && !dir.is_dir()) {
        return Err(wrong(format!("backup_dir: {} is not a directory", dir.display())).into());
    }
    let access = Access::open(&config.access(), commands::catalog()).map_err(wrong)?;
    let tls = config.uses_tls().then(|| Acceptor::load(&config.tls)).transpose()?;
    Ok(Security { access, tls })
}

/// The reason why a server could not start, or did not end well.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// A setting is not allowed.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The engine did not open, or did not close.
    #[error(transparent)]
    Engine(#[from] strandline::Error),
    /// The server cannot listen on the address.
    #[error("{setting}: cannot listen on {address}")]
    Listen {
        /// The setting of the port.
        setting: &'static str,
        /// The address.
        address: SocketAddr,
        /// The error of the operating system.
        source: io::Error,
    },
    /// TLS cannot be used.
    #[error("cannot use TLS")]
    Tls(#[from] TlsError),
    /// The operating system does not give the server its threads.
    #[error("cannot start the server's threads: allow more (ulimit -u)")]
    Threads(#[source] io::Error),
    /// A task of the server panicked or was cancelled.
    #[error("the server ended unexpectedly")]
    BrokeOff(#[from] tokio::task::JoinError),
}

/// A running server.
pub struct Server {
    shared: Arc<Shared>,
    tls_address: Option<SocketAddr>,
    http_address: Option<SocketAddr>,
    task: JoinHandle<Result<StopReason, strandline::Error>>,
}

impl Server {
    /// Opens the engine and starts to listen. Must be called in a tokio runtime, which is the first
    /// of the event loops; the others have threads of their own.
    ///
    /// The port is bound after the engine is open, so that no client can connect to a server that
    /// does not start.
    pub async fn start(config: Config) -> Result<Server, ServerError> {
        Server::open(config, None).await
    }

    /// The same with settings that were read from these sources, which can be read again while the
    /// server runs.
    pub async fn start_from(sources: Sources, config: Config) -> Result<Server, ServerError> {
        Server::open(config, Some(sources)).await
    }

    async fn open(mut config: Config, sources: Option<Sources>) -> Result<Server, ServerError> {
        config.check()?;
        let given = config.clone();
        let wanted =
            Shares { clients: config.limits.max_clients, segment_files: config.max_open_files };
        let others = config.http.port.map_or(0, |_| http::DESCRIPTORS);
        let (allowed, most_clients) =
            files::share(wanted, LEAST_OPEN_FILES, config.loops(), others);
        config.max_open_files = allowed.segment_files;
        let running = RunningConfig::new(given, sources, Some(most_clients));
        let (dir, options) = (config.dir.clone(), config.engine_options());
        let pool = Pool::start(config.loops() + 1).map_err(ServerError::Threads)?;
        let measured = Measured::new(&config);
        let security = pool.spawn(move || prepare(&config)).await??;
        let open = move || Ok((measured.open(&dir, options)?, measured));
        let opened = pool.spawn(open).await?.map_err(ServerError::Engine)?;
        Server::start_with(opened, security, running, pool).await
    }

    /// Starts to listen for an open engine. The engine's settings in `config` are ignored. Metrics
    /// that the engine passes on to a recorder only, such as its histograms, stay at 0.
    pub async fn start_on(engine: Engine, config: Config) -> Result<Server, ServerError> {
        config.check()?;
        let pool = Pool::start(config.loops() + 1).map_err(ServerError::Threads)?;
        let measured = Measured::new(&config);
        let running = RunningConfig::new(config, None, None);
        let given = running.now();
        let security = pool.spawn(move || prepare(&given)).await??;
        Server::start_with((engine, measured), security, running, pool).await
    }

    async fn start_with(
        (engine, measured): (Engine, Measured),
        Security { access, tls }: Security,
        running: RunningConfig,
        pool: Pool,
    ) -> Result<Server, ServerError> {
        let config = running.now();
        let (read_only, messaging_options) = (config.read_only, config.messaging.clone());
        let open = move || match Messaging::open(&engine, messaging_options) {
            Ok(messaging) => Ok((engine, Some(messaging))),
            Err(strandline::Error::ReadOnly) if read_only => Ok((engine, None)),
            Err(error) => Err(error),
        };
        let (engine, messaging) = pool.spawn(open).await??;
        let (plain, address) = listen("port", (config.bind, config.port)).await?;
        let mut listeners = Listeners { plain, encrypted: None };
        let mut tls_address = None;
        if let Some(port) = config.tls.port {
            let bind = config.tls.bind.unwrap_or(config.bind);
            let (listener, address) = listen("tls.port", (bind, port)).await?;
            (listeners.encrypted, tls_address) = (Some(listener), Some(address));
        }
        let http_wanted = config.http.port.map(|port| SocketAddr::new(config.http.bind, port));
        let bind = |address| {
            std::net::TcpListener::bind(address).map_err(|source| ServerError::Listen {
                setting: "http.port",
                address,
                source,
            })
        };
        let http_listener = http_wanted.map(bind).transpose()?;
        let shared =
            Shared::new((engine, measured), messaging, (access, running), pool, (address, tls));
        let shared = Arc::new(shared);
        let loops = Loops::start(config.loops(), &shared).map_err(ServerError::Threads)?;
        let start = |listener| Http::start(listener, config.http.tls, &shared, loops.handles());
        let http = http_listener.map(start).transpose().map_err(ServerError::Threads)?;
        let http_address = http.as_ref().map(Http::address);
        let serving = listener::run(listeners, loops, Arc::clone(&shared));
        let task = tokio::spawn(async move {
            let ended = serving.await;
            // Until here it says that the server stops.
            drop(http);
            ended
        });
        Ok(Server { shared, tls_address, http_address, task })
    }

    /// The address of the port for metrics and health, if there is one.
    pub fn http_address(&self) -> Option<SocketAddr> {
        self.http_address
    }

    /// The address on which the server listens.
    pub fn address(&self) -> SocketAddr {
        self.shared.address
    }

    /// The address on which the server listens for TLS, if it does.
    pub fn tls_address(&self) -> Option<SocketAddr> {
        self.tls_address
    }

    /// Reads the sources of the settings again, applies what may change at run time, and then reads
    /// the certificates. With an error nothing changes. A certificate that cannot be used is
    /// logged, and the old one stays.
    pub async fn reload(&self) -> Result<(), ServerError> {
        let shared = Arc::clone(&self.shared);
        Ok(self.shared.pool.spawn(move || shared.reload()).await??)
    }

    /// Asks the server to stop gracefully. [`Server::wait`] returns when it has stopped.
    pub fn stop(&self) {
        self.shared.stop(StopReason::Asked);
    }

    /// Waits until the server has stopped, for whatever reason, and its engine is closed.
    pub async fn wait(&mut self) -> Result<StopReason, ServerError> {
        Ok((&mut self.task).await??)
    }
}

async fn listen(
    setting: &'static str,
    address: (IpAddr, u16),
) -> Result<(TcpListener, SocketAddr), ServerError> {
    let address = SocketAddr::from(address);
    let error = |source| ServerError::Listen { setting, address, source };
    let listener = TcpListener::bind(address).await.map_err(error)?;
    let address = listener.local_addr().map_err(error)?;
    Ok((listener, address))
}
