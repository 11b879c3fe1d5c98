//! Compares Strandline with its peers: tables in Markdown on standard output, progress on standard
//! error.
//!
//! ```sh
//! cargo run --release -p strandline-benches --features peers --bin compare -- \
//!     --workload w3 --scale 0.1
//! ```
#![forbid(unsafe_code)]

use anyhow::{Result, ensure};
use clap::{Parser, ValueEnum};
use strandline_benches::rounds::Settings;
use strandline_benches::servers;
use strandline_benches::servers::process::Program;
use strandline_benches::workloads::recovery::RecoveryStep;
use strandline_benches::workloads::{append, cold, fan_out, inbox, latest, pull, recovery};

#[derive(Parser)]
#[command(about = "Compares Strandline with its peers, in turns, and prints medians and ratios.")]
#[command(subcommand_negates_reqs = true)]
struct Arguments {
    /// The workload; may be repeated.
    #[arg(long, required = true, value_delimiter = ',')]
    workload: Vec<Named>,
    #[command(flatten)]
    settings: Settings,
    /// W2: the number of outstanding appends.
    #[arg(long, value_delimiter = ',', default_values_t = [64])]
    outstanding: Vec<usize>,
    /// Servers: what to start, as make=program. Makes are strandline, redis, valkey, nats and
    /// nats-unsynced.
    #[arg(long, value_delimiter = ',', default_values = SERVERS)]
    servers: Vec<Program>,
    #[command(flatten)]
    groups: fan_out::Shape,
    /// A part of W7 in a process of its own.
    #[command(subcommand)]
    step: Option<RecoveryStep>,
}

const SERVERS: [&str; 2] = ["strandline=target/release/strandline", "redis=redis-server"];

#[derive(Clone, Copy, ValueEnum)]
enum Named {
    /// Appends, logged.
    W1,
    /// Appends, fdatasync before each answer.
    W2,
    /// Fan-out.
    W3,
    /// Reads after appends, warm: the newest 50 entries, 100 after a cursor, one by its sequence.
    W4,
    /// The newest 50 entries of a user's sync timeline.
    W4i,
    /// Everything after a cursor of a user's sync timeline.
    W5,
    /// Recovery after a kill.
    W7,
    /// The newest 50 entries, not in memory.
    Cold,
    /// Appends, fan-outs and reads over TCP, with an fsync before each reply to a write.
    Servers,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    if let Some(step) = arguments.step {
        return step.run();
    }
    ensure!(
        arguments.outstanding.iter().all(|&count| (1..=100_000).contains(&count)),
        "1 to 100000 outstanding"
    );
    let settings = arguments.settings;
    for workload in arguments.workload {
        let tables = match workload {
            Named::W1 => append::w1(&settings)?,
            Named::W2 => append::w2(&settings, &arguments.outstanding)?,
            Named::W3 => fan_out::w3(&settings, &arguments.groups)?,
            Named::W4 => latest::w4(&settings)?,
            Named::W4i => inbox::w4i(&settings)?,
            Named::W5 => pull::w5(&settings)?,
            Named::W7 => recovery::w7(&settings)?,
            Named::Cold => cold::cold(&settings)?,
            Named::Servers => {
                for table in servers::compare(&arguments.servers, &settings) {
                    settings.show(&table?)?;
                }
                continue;
            }
        };
        for table in tables {
            settings.show(&table)?;
        }
    }
    Ok(())
}
