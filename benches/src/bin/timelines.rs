//! The cost of millions of timelines, or of ids. A table in Markdown on standard output.
//!
//! ```sh
//! cargo run --release -p strandline-benches --bin timelines -- \
//!     --timelines 1000000 --entries 5 --body 200 --dir D
//! ```
#![forbid(unsafe_code)]
#![allow(clippy::disallowed_methods, reason = "a benchmark's own directory is its own business")]

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use clap::{Parser, ValueEnum};
use strandline_benches::scale::load::{End, compact, load};
use strandline_benches::scale::{Data, reads};

/// As in the server: what an allocator keeps of freed memory is a part of what this measures.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Parser)]
#[command(about = "Loads millions of timelines, and tells what they cost to open and to read.")]
struct Arguments {
    #[command(flatten)]
    data: Data,
    /// How the load ends.
    #[arg(long, value_enum, default_value = "settled")]
    end: Ends,
    /// Random reads, or retries, before memory is measured again.
    #[arg(long, default_value_t = 100_000)]
    reads: u64,
    /// An empty directory, or none yet, on the disk that is to be measured. It is removed at the
    /// end.
    #[arg(long)]
    dir: PathBuf,
    /// Keep the directory, for another `--step`.
    #[arg(long)]
    keep: bool,
    /// One step only, in this process, on a directory that is kept.
    #[arg(long, value_enum)]
    step: Option<Step>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Ends {
    /// Closed when the engine's own merges are done.
    Settled,
    /// Closed when all is merged into one segment.
    Compacted,
    /// Cut off without flush: the last appends are in the log only.
    Killed,
}

#[derive(Clone, Copy, ValueEnum)]
enum Step {
    /// Fill the directory.
    Load,
    /// Merge all of it into one segment.
    Compact,
    /// Open it and read.
    Read,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    ensure!((1..1 << 31).contains(&arguments.data.timelines), "1 to 2^31 timelines");
    ensure!((1..0xF_FFFF).contains(&arguments.data.entries), "1 to 2^20 entries");
    match arguments.step {
        Some(Step::Load) => return fill(&arguments),
        Some(Step::Compact) => return compact(&arguments.data, &arguments.dir),
        Some(Step::Read) => return read(&arguments),
        None => {}
    }
    let is_free = !arguments.dir.exists() || std::fs::read_dir(&arguments.dir)?.next().is_none();
    ensure!(is_free, "{} is not empty", arguments.dir.display());
    println!("| what | figure |\n|---|--:|");
    let done = in_own_process("load").and_then(|()| in_own_process("read"));
    if !arguments.keep {
        remove(&arguments.dir)?;
    }
    done
}

/// Runs a step with the same arguments in a process of its own.
fn in_own_process(step: &str) -> Result<()> {
    let this = std::env::current_exe().context("finding this program")?;
    let status =
        Command::new(this).args(std::env::args_os().skip(1)).args(["--step", step]).status()?;
    ensure!(status.success(), "the step {step} failed");
    Ok(())
}

fn fill(arguments: &Arguments) -> Result<()> {
    let end = match arguments.end {
        Ends::Settled => End::Settled,
        Ends::Compacted => End::Compacted,
        Ends::Killed => End::Killed,
    };
    load(&arguments.data, &arguments.dir, end)
}

fn read(arguments: &Arguments) -> Result<()> {
    let engine = reads::open(&arguments.data, &arguments.dir)?;
    if arguments.data.ids {
        reads::retries(&arguments.data, &engine, arguments.reads)?;
    } else {
        reads::latest(&arguments.data, &engine, arguments.reads)?;
    }
    engine.close()?;
    Ok(())
}

fn remove(dir: &Path) -> Result<()> {
    std::fs::remove_dir_all(dir).with_context(|| format!("removing {}", dir.display()))
}
