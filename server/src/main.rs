//! The binary `strandline`: command line, settings, log, signals, exit code.
//!
//! Standard output gets a line for each address on which the server listens; the log goes to
//! standard error. The server does not depend on readers of either. Exit codes of `serve`: 0 after
//! a graceful stop; 1 if the server could not start, if its engine refuses writes, or if it did not
//! close. `care` and `remote` have those of the other verbs.

#![forbid(unsafe_code)]

mod care;
mod configuring;
mod hash;
mod health;
mod log;
mod output;
mod progress;
mod remote;
mod service;

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::thread;

use anyhow::Context as _;
use clap::{CommandFactory as _, Parser, Subcommand};
use configuring::Serve;
use log::Log;
use mimalloc::MiMalloc;
use service::Systemd;
use strandline_server::{
    Config, LogSettings, Server, ServerError, Sources, StopReason, settings_help, start_log,
};
use tokio::signal::unix::{SignalKind, signal};
use tracing::{Level, enabled, error, info, warn};

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
    #[command(after_long_help = format!("Settings:\n\n{}", settings_help()))]
    Serve(Serve),
    #[command(flatten)]
    Tool(Tool),
}

/// The verbs that do not run a server.
#[derive(Subcommand)]
enum Tool {
    /// Ask a server whether it serves: exits with 0 if it answers, and with 1 otherwise.
    Health(health::HealthArguments),
    /// Read a password from standard input and print its hash, for `password_hash` in the
    /// configuration file or for ACL SETUSER.
    HashPassword,
    #[command(flatten)]
    Configuring(configuring::Configuring),
    #[command(flatten)]
    Care(care::Care),
    #[command(flatten)]
    Remote(Box<remote::Remote>),
    /// Print the completions of a shell: source them, or put them where the shell looks for them.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
    /// Print the manual page, or write one page for each verb into a directory.
    Man {
        /// Directory for the pages; it must exist.
        dir: Option<PathBuf>,
    },
}

fn main() -> ExitCode {
    let verb = CommandLine::parse().verb;
    let log = Log::to(io::stderr());
    let writer = log.clone();
    let start_log = |settings: &LogSettings| start_log(settings, move || writer.clone());
    let code = match verb {
        Verb::Serve(serve) => {
            let given = given_settings(serve);
            start_log(&given.as_ref().map(|(_, config)| config.log.clone()).unwrap_or_default());
            run_server(given)
        }
        Verb::Tool(tool) => {
            start_log(&LogSettings::default());
            match tool {
                Tool::Configuring(verb) => output::written(configuring::run(verb), 1),
                Tool::Health(arguments) => health::run(&arguments),
                Tool::HashPassword => output::written(hash::run(), 1),
                Tool::Care(care) => care::run(care),
                Tool::Remote(verb) => remote::run(*verb),
                Tool::Completions { shell } => output::written(print_completions(shell), 2),
                Tool::Man { dir } => output::written(print_manual(dir.as_deref()), 2),
            }
        }
    };
    #[cfg(feature = "otel")]
    strandline_server::finish_traces();
    log.finish();
    code
}

/// The sources of the settings, and what was read from them.
fn given_settings(serve: Serve) -> anyhow::Result<(Sources, Config)> {
    let sources = serve.sources()?;
    let config = sources.load()?.config;
    Ok((sources, config))
}

fn run_server(given: anyhow::Result<(Sources, Config)>) -> ExitCode {
    match given.and_then(run) {
        Ok(StopReason::Asked) => ExitCode::SUCCESS,
        Ok(StopReason::Poisoned) => {
            say_why("a write or fsync failed: restart to recover what is durable");
            ExitCode::FAILURE
        }
        Err(problem) => {
            say_why(&chain_text(&problem));
            if let Some(ServerError::Engine(strandline::Error::Corrupt { .. })) =
                problem.downcast_ref()
            {
                say_why(AFTER_DAMAGE);
            }
            ExitCode::FAILURE
        }
    }
}

/// Says why the server ends: in the log, or on standard error if the filter of the log hides it.
fn say_why(reason: &str) {
    if enabled!(Level::ERROR) {
        error!("{reason}");
    } else {
        output::complain(reason);
    }
}

fn print_completions(shell: clap_complete::Shell) -> anyhow::Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut CommandLine::command(), "strandline", &mut script);
    io::stdout().write_all(&script)?;
    Ok(())
}

/// The page of the binary on standard output, or all pages in a directory.
fn print_manual(dir: Option<&Path>) -> anyhow::Result<()> {
    let command = CommandLine::command();
    match dir {
        Some(dir) => clap_mangen::generate_to(command, dir)
            .with_context(|| format!("cannot write manual pages into {}", dir.display()))?,
        None => clap_mangen::Man::new(command).render(&mut io::stdout().lock())?,
    }
    Ok(())
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

fn run(given: (Sources, Config)) -> anyhow::Result<StopReason> {
    // This thread accepts connections, and waits for signals.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let reason = runtime.block_on(serve_until_stopped(given))?;
    // There is nothing to wait for: the engine is closed.
    runtime.shutdown_background();
    Ok(reason)
}

async fn serve_until_stopped((sources, config): (Sources, Config)) -> anyhow::Result<StopReason> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
    // It would end the process if nobody listened to it.
    let mut hangup = signal(SignalKind::hangup()).context("cannot listen for SIGHUP")?;
    let dir = config.dir.clone();
    let mut server = Server::start_from(sources, config)
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

/// Prints the addresses, for whoever started the server. If nobody reads them, only a thread of its
/// own blocks or fails.
fn announce(server: &Server) {
    let plain = format!("listening on {}\n", server.address());
    let encrypted = server.tls_address().map(|address| format!("listening for TLS on {address}\n"));
    let lines = plain + encrypted.as_deref().unwrap_or_default();
    let started = thread::Builder::new().name("strandline-announce".into()).spawn(move || {
        let mut out = io::stdout().lock();
        if let Err(error) = out.write_all(lines.as_bytes()).and_then(|()| out.flush()) {
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
