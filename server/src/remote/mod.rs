//! The verbs that talk to a running server: `cli`, `tail`, `bench`, `top`. A file or a folder per
//! verb.
//!
//! Exit codes: 0: success, or interrupted by a person (`tail`, `top`). 1: the server refused a
//! command. 2: the verb failed: no connection, a refused login, or a wrong command line. Results go
//! to standard output, problems and progress to standard error. If the reader of standard output
//! goes away, the verb ends with 0.
//!
//! ```text
//!  bench  cli  tail  top
//!  show
//!  login
//!  link
//!  address  frame  paint  tls
//! ```
//!
//! It knows nothing of the engine, and of the server only what docs/protocol.md promises.

mod address;
mod bench;
mod cli;
mod frame;
mod link;
mod login;
mod paint;
mod show;
mod tail;
mod tls;
mod top;

use std::process::ExitCode;

use anyhow::Context as _;
use clap::Subcommand;
use frame::Refused;
use tokio::runtime::{Builder, Runtime};

use crate::output::{complain, is_unread};

/// The verbs that talk to a running server.
#[derive(Subcommand)]
pub enum Remote {
    /// Run commands on a server: at a prompt, from the command line, or from standard input.
    Cli(cli::CliArguments),
    /// Follow a timeline or a user, and print each entry as it comes.
    Tail(tail::TailArguments),
    /// Measure a server: rates and latencies at full speed and at a fixed rate.
    Bench(bench::BenchArguments),
    /// Show the load of a server, its connections and its commands.
    Top(top::TopArguments),
}

/// Runs a verb.
pub fn run(verb: Remote) -> ExitCode {
    let done = match verb {
        Remote::Cli(arguments) => cli::run(arguments),
        Remote::Tail(arguments) => tail::run(arguments),
        Remote::Bench(arguments) => bench::run(&arguments),
        Remote::Top(arguments) => top::run(arguments),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) if is_unread(&problem) => ExitCode::SUCCESS,
        Err(problem) => {
            complain(crate::chain_text(&problem));
            let is_refused = problem.downcast_ref::<Refused>().is_some();
            ExitCode::from(if is_refused { 1 } else { 2 })
        }
    }
}

/// The event loop of a verb, on its own thread.
fn event_loop() -> anyhow::Result<Runtime> {
    Builder::new_current_thread().enable_all().build().context("cannot start the event loop")
}
