//! The binary `strandline`: command line, settings, log, signals, exit code.
//!
//! Standard output gets a line for each address on which the server listens; the log goes to
//! standard error. The server does not depend on readers of either. Exit codes of `serve`: 0 after
//! a graceful stop; 1 if the server could not start, if its engine refuses writes, or if it did not
//! close. `care` has those of the other verbs.

#![forbid(unsafe_code)]

mod care;
mod configuring;
mod health;
mod log;
mod service;

use std::env;
use std::io::{self, Write as _};
use std::process::ExitCode;
use std::thread;

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use configuring::Serve;
use log::Log;
use mimalloc::MiMalloc;
use service::Systemd;
use strandline_server::{Server, ServerError, Sources, StopReason};
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
    ///
    /// Settings come from a TOML file, from the environment (`STRANDLINE_LIMITS_MAX_CLIENTS`
    /// is `limits.max_clients`), and from the options, in rising precedence. `strandline settings`
    /// lists all of them. SIGHUP reads them again, and applies those that may change at run time.
    Serve(Serve),
    /// Ask a server whether it serves: exits with 0 if it answers, and with 1 otherwise.
    Health(health::HealthArguments),
    #[command(flatten)]
    Configuring(configuring::Configuring),
    #[command(flatten)]
    Care(care::Care),
}

fn main() -> ExitCode {
    let log = Log::to(io::stderr());
    start_log(&log);
    let code = match CommandLine::parse().verb {
        Verb::Serve(serve) => run_server(serve),
        Verb::Configuring(verb) => configuring::run(verb),
        Verb::Health(arguments) => health::run(&arguments),
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
    let sources = serve.sources()?;
    // This thread accepts connections, and waits for signals.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let reason = runtime.block_on(serve_until_stopped(sources))?;
    // There is nothing to wait for: the engine is closed.
    runtime.shutdown_background();
    Ok(reason)
}

async fn serve_until_stopped(sources: Sources) -> anyhow::Result<StopReason> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
    // It would end the process if nobody listened to it.
    let mut hangup = signal(SignalKind::hangup()).context("cannot listen for SIGHUP")?;
    let dir = sources.load()?.config.dir;
    let mut server = Server::start_from(sources)
        .await
        .with_context(|| format!("cannot serve {}", dir.display()))?;
    announce(&server);
    let service = Systemd::from_environment();
    service.is_ready(&format!("listening on {}", server.address()));
    loop {
        tokio::select! {
            reason = server.wait() => return Ok(reason?),
            _ = terminate.recv() => info!("SIGTERM"),
            _ = interrupt.recv() => info!("SIGINT"),
            _ = hangup.recv() => {
                reload(&server).await;
                continue;
            }
            () = stay_alive(&service) => {}
        }
        break;
    }
    service.is_stopping();
    server.stop();
    Ok(server.wait().await?)
}

/// Reads the settings again. With an error the server continues with those that it has.
async fn reload(server: &Server) {
    info!("SIGHUP: the settings are read again");
    if let Err(problem) = server.reload().await {
        error!("the settings stay as they are: {}", chain_text(&anyhow::Error::from(problem)));
    }
}

/// Notifies systemd that the event loop runs, until it is dropped.
async fn stay_alive(service: &Systemd) {
    let Some(pause) = service.watchdog() else { return std::future::pending().await };
    let mut tick = tokio::time::interval(pause);
    loop {
        tick.tick().await;
        service.is_alive();
    }
}

/// Prints the addresses, for whoever started the server. If nobody reads it, only a thread of its own
/// blocks or fails.
fn announce(server: &Server) {
    let mut line = format!("listening on {}\n", server.address());
    if let Some(address) = server.tls_address() {
        line.push_str(&format!("listening for TLS on {address}\n"));
    }
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
