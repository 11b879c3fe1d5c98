//! Compares Strandline with its peers: tables in Markdown on standard output, progress on standard
//! error.
//!
//! ```sh
//! cargo run --release -p strandline-benches --features peers --bin compare -- \
//!     --workload w3 --scale 0.1
//! ```
#![forbid(unsafe_code)]

use std::path::PathBuf;

use anyhow::{Result, ensure};
use clap::{Parser, ValueEnum};
use strandline_benches::peers::Kind;
use strandline_benches::rounds::Settings;
use strandline_benches::workloads::{append, fan_out, latest};

#[derive(Parser)]
#[command(about = "Compares Strandline with its peers, in turns, and prints medians and ratios.")]
struct Arguments {
    /// The workload; may be repeated.
    #[arg(long, required = true, value_delimiter = ',')]
    workload: Vec<Workload>,
    /// The engines to compare. Default: every engine that this build knows.
    #[arg(long, value_delimiter = ',')]
    peers: Vec<Kind>,
    /// The number of runs of each contestant.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// The amount of work: 1 is the amount that the documentation describes.
    #[arg(long, default_value_t = 1.0)]
    scale: f64,
    /// W2: the number of outstanding appends.
    #[arg(long, value_delimiter = ',', default_values_t = [64])]
    outstanding: Vec<usize>,
    /// W3: the number of members of a group.
    #[arg(long, value_delimiter = ',', default_values_t = [500])]
    members: Vec<usize>,
    /// The parent of the temporary directories: a directory on the disk that is to be measured.
    #[arg(long, default_value_os_t = std::env::temp_dir())]
    dir: PathBuf,
}

#[derive(Clone, Copy, ValueEnum)]
enum Workload {
    /// Appends, logged.
    W1,
    /// Appends, fdatasync before each answer.
    W2,
    /// Fan-out.
    W3,
    /// The newest 50 entries.
    W4,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    ensure!(arguments.rounds > 0, "at least one round");
    ensure!(arguments.scale > 0.0, "a scale above 0");
    ensure!(
        arguments.outstanding.iter().all(|&count| (1..=100_000).contains(&count)),
        "1 to 100000 outstanding"
    );
    ensure!(
        arguments.members.iter().all(|&count| (1..=6_250).contains(&count)),
        "1 to 6250 members"
    );
    let peers = if arguments.peers.is_empty() { Kind::built() } else { arguments.peers };
    let settings =
        Settings { peers, rounds: arguments.rounds, scale: arguments.scale, dir: arguments.dir };
    for workload in arguments.workload {
        let tables = match workload {
            Workload::W1 => append::w1(&settings)?,
            Workload::W2 => append::w2(&settings, &arguments.outstanding)?,
            Workload::W3 => fan_out::w3(&settings, &arguments.members)?,
            Workload::W4 => latest::w4(&settings)?,
        };
        for table in tables {
            println!("{table}");
        }
    }
    Ok(())
}
