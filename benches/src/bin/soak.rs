//! Long runs: steady load with a TTL, and growth. Tables in Markdown on standard output; the exit
//! code shows whether the bounds held.
//!
//! `cargo run --release -p strandline-benches --bin soak -- --dir /data ttl --ttl 60 --seconds 600`
#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, ensure};
use clap::{Parser, Subcommand};
use strandline::Durability;
use strandline_benches::soak::ingest::Load;
use strandline_benches::soak::{growth, ttl};

#[derive(Parser)]
#[command(about = "Runs an engine for long and looks whether it stays what it was.")]
struct Arguments {
    /// The parent of the temporary directory: on the disk that is to be measured.
    #[arg(long, default_value_os_t = std::env::temp_dir())]
    dir: PathBuf,
    /// Answers come when an append is logged, before fsync.
    #[arg(long)]
    relaxed: bool,
    /// The number of seconds per row of the table.
    #[arg(long, default_value_t = 60)]
    every: u64,
    #[command(subcommand)]
    run: Run,
}

#[derive(Subcommand)]
enum Run {
    /// W8: full speed into a store with a TTL; then nothing, until it is empty.
    Ttl {
        /// The lifetime of an entry, in seconds.
        #[arg(long, default_value_t = 60)]
        ttl: u64,
        /// The time to append.
        #[arg(long, default_value_t = 600)]
        seconds: u64,
        /// The number of timelines.
        #[arg(long, default_value_t = 100_000)]
        timelines: u32,
    },
    /// W9: entries of 200 bytes up to a total size; then cold reads.
    Growth {
        /// Megabytes of bodies.
        #[arg(long, default_value_t = 20_000)]
        megabytes: u64,
        /// The number of timelines.
        #[arg(long, default_value_t = 1_000_000)]
        timelines: u32,
        /// The number of timelines to read at the end.
        #[arg(long, default_value_t = 2000)]
        reads: u32,
    },
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let dir = tempfile::Builder::new().prefix("strandline-soak-").tempdir_in(&arguments.dir)?;
    let durability = if arguments.relaxed { Durability::Os } else { Durability::Disk };
    let every = Duration::from_secs(arguments.every.max(1));
    match arguments.run {
        Run::Ttl { ttl, seconds, timelines } => {
            ensure!(ttl > 0 && timelines > 0, "a TTL and timelines");
            let load = Load { timelines, durability, most_bytes: u64::MAX };
            ttl::run(
                dir.path(),
                load,
                Duration::from_secs(ttl),
                Duration::from_secs(seconds),
                every,
            )
        }
        Run::Growth { megabytes, timelines, reads } => {
            ensure!(megabytes > 0 && timelines > 0 && reads > 0, "bytes, timelines and reads");
            let most_bytes = megabytes * 1_000_000;
            growth::run(dir.path(), Load { timelines, durability, most_bytes }, reads, every)
        }
    }
}
