//! The binary `strandline`: command line, settings, log, signals, exit code.
//!
//! Standard output gets one line, with the address on which the server listens; the log goes to
//! standard error. The server does not depend on readers of either. Exit codes of `serve`: 0 after
//! a graceful stop; 1 if the server could not start, if its engine refuses writes, or if it did not
//! close. `care` has those of the other verbs.

#![forbid(unsafe_code)]

mod care;
mod log;

use std::env;
use std::io::{self, Write as _};
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::thread;

use anyhow::Context as _;
use clap::{Args, Parser, Subcommand};
use log::Log;
use mimalloc::MiMalloc;
use strandline_server::{Config, Server, ServerError, StopReason};
use tokio::signal::unix::{SignalKind, signal};
use tracing::level_filters::LevelFilter;
use tracing::{error, info, warn};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;

/// The buffers of a commit are made on the threads of clients and freed on the thread that commits,
/// for which the allocator of the C library takes locks.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// The advice for a directory that cannot be opened because of damage.
const AFTER_DAMAGE: &str =
    "next: restore a backup, or save what can be read: strandline salvage DIR TARGET";

/// Message push and sync on a storage engine made for timelines.
#[derive(Parser)]
#[command(name = "strandline", version)]
struct CommandLine {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Run the server until SIGTERM, SIGINT or SHUTDOWN.
    Serve(Serve),
    #[command(flatten)]
    Care(care::Care),
}

#[derive(Args)]
struct Serve {
    /// Directory of the data [default: strandline-data].
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Address to listen on [default: 127.0.0.1].
    #[arg(long)]
    bind: Option<IpAddr>,
    /// Port to listen on; 0 takes a free one [default: 7411].
    #[arg(long)]
    port: Option<u16>,
    /// TOML file with settings. The other options override it.
    #[arg(long)]
    config: Option<PathBuf>,
    /// Serve intact data and refuse writes.
    #[arg(long)]
    read_only: bool,
}

impl Serve {
    fn settings(self) -> anyhow::Result<Config> {
        let mut config = match &self.config {
            Some(path) => Config::read(path)?,
            None => Config::default(),
        };
        config.dir = self.dir.unwrap_or(config.dir);
        config.bind = self.bind.unwrap_or(config.bind);
        config.port = self.port.unwrap_or(config.port);
        config.read_only |= self.read_only;
        Ok(config)
    }
}

fn main() -> ExitCode {
    let log = Log::to(io::stderr());
    start_log(&log);
    let code = match CommandLine::parse().verb {
        Verb::Serve(serve) => run_server(serve),
        Verb::Care(care) => care::run(care),
    };
    log.finish();
    code
}

fn run_server(serve: Serve) -> ExitCode {
    match run(serve) {
        Ok(StopReason::Asked) => ExitCode::SUCCESS,
        Ok(StopReason::Poisoned) => {
            error!("a write or fsync failed: restart to recover what is durable");
            ExitCode::FAILURE
        }
        Err(problem) => {
            error!("{}", chain_text(&problem));
            if let Some(ServerError::Engine(strandline::Error::Corrupt { .. })) =
                problem.downcast_ref()
            {
                error!("{AFTER_DAMAGE}");
            }
            ExitCode::FAILURE
        }
    }
}

/// The log, on standard error. `RUST_LOG` sets the levels: one for everything, or levels by module,
/// as in `warn,strandline=debug`.
fn start_log(log: &Log) {
    let wanted = env::var("RUST_LOG").ok().filter(|words| !words.trim().is_empty());
    let parsed = wanted.as_deref().map(str::parse::<Targets>);
    let levels = parsed.iter().flatten().next().cloned();
    let filter = levels.unwrap_or_else(|| Targets::new().with_default(LevelFilter::INFO));
    let writer = log.clone();
    let lines =
        tracing_subscriber::fmt::layer().with_writer(move || writer.clone()).with_ansi(false);
    tracing_subscriber::registry().with(lines.with_filter(filter)).init();
    if let Some(Err(problem)) = parsed {
        warn!(%problem, "RUST_LOG is invalid: the level is info");
    }
}

/// The chain of causes as text. The text of some errors ends with that of their cause, which is
/// then not repeated.
fn chain_text(problem: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in problem.chain() {
        let cause = cause.to_string();
        let cause = cause.trim();
        if !text.ends_with(cause) {
            if !text.is_empty() {
                text.push_str(": ");
            }
            text.push_str(cause);
        }
    }
    text
}

fn run(serve: Serve) -> anyhow::Result<StopReason> {
    let config = serve.settings()?;
    // This thread accepts connections, and waits for signals.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let reason = runtime.block_on(serve_until_stopped(config))?;
    // There is nothing to wait for: the engine is closed.
    runtime.shutdown_background();
    Ok(reason)
}

async fn serve_until_stopped(config: Config) -> anyhow::Result<StopReason> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
    let dir = config.dir.clone();
    let mut server =
        Server::start(config).await.with_context(|| format!("cannot serve {}", dir.display()))?;
    announce(&server);
    tokio::select! {
        reason = server.wait() => return Ok(reason?),
        _ = terminate.recv() => info!("SIGTERM"),
        _ = interrupt.recv() => info!("SIGINT"),
    }
    server.stop();
    Ok(server.wait().await?)
}

/// Prints the address, for whoever started the server. If nobody reads it, only a thread of its own
/// blocks or fails.
fn announce(server: &Server) {
    let line = format!("listening on {}\n", server.address());
    let started = thread::Builder::new().name("strandline-announce".into()).spawn(move || {
        let mut out = io::stdout().lock();
        if let Err(error) = out.write_all(line.as_bytes()).and_then(|()| out.flush()) {
            warn!(%error, "cannot print the address on which the server listens");
        }
    });
    if let Err(error) = started {
        warn!(%error, "cannot start the thread that prints the address");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_that_its_effect_already_names_is_printed_once() {
        let cause = anyhow::anyhow!("no space");
        let problem = cause.context("cannot write x: no space").context("cannot serve y");
        assert_eq!(chain_text(&problem), "cannot serve y: cannot write x: no space");
    }
}
