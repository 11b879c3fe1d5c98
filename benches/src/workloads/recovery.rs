//! W7: recovery after a kill: the time from opening a directory to the first answer.
//!
//! A process of its own loads the engine, logged, and is killed (SIGKILL) when every append is
//! acknowledged; nothing is closed or flushed at the end. Another process opens the directory and
//! reads the newest 50 entries of the longest timeline. Its files are in the cache of the operating
//! system. Both processes are this program with a hidden subcommand.
//!
//! Strandline takes part twice: with default options, which flush while they load, and with a
//! budget so large that everything is replayed from the log. fjall flushes while it loads, too.
//! LMDB has no log to replay, and redb keeps nothing of an append that is only logged.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use clap::Subcommand;

use super::append::APPENDS;
use super::load;
use crate::disk::settle;
use crate::peers::{Copies, Kind, Peer, Work};
use crate::report::{Column, Table};
use crate::rounds::{Contestant, Settings, in_turns};
use crate::scale::process::memory_mb;
use crate::workload::{Bodies, TIMELINES, appends};

const COUNT: usize = 50;

/// A memory budget whose memtable holds all appends at scale 1.
const LARGE_BUDGET_BYTES: usize = 8 << 30;

/// The line by which the loading process reports that everything is acknowledged.
const LOADED: &str = "loaded";

/// What a process of its own does.
#[derive(Clone, Debug, Subcommand)]
pub enum RecoveryStep {
    /// Appends, and waits to be killed.
    #[command(hide = true)]
    RecoveryLoad {
        /// The engine.
        kind: Kind,
        /// Its memory budget.
        budget_bytes: usize,
        /// Its directory.
        dir: PathBuf,
        /// The number of appends.
        appends: usize,
    },
    /// Opens the directory, and prints milliseconds and megabytes.
    #[command(hide = true)]
    RecoveryOpen {
        /// The engine.
        kind: Kind,
        /// Its memory budget.
        budget_bytes: usize,
        /// Its directory.
        dir: PathBuf,
        /// The timeline to read.
        timeline: u32,
        /// Its last sequence.
        last: u64,
    },
}

impl RecoveryStep {
    /// Does it in this process.
    pub fn run(&self) -> Result<()> {
        match self {
            RecoveryStep::RecoveryLoad { kind, budget_bytes, dir, appends } => {
                let _peer = fill(*kind, *budget_bytes, dir, *appends)?;
                println!("{LOADED}");
                io::stdout().flush()?;
                // Until the kill, or until the process that measures has gone.
                io::stdin().read_to_end(&mut Vec::new())?;
                std::process::exit(1);
            }
            RecoveryStep::RecoveryOpen { kind, budget_bytes, dir, timeline, last } => {
                let [ms, mb] = open(*kind, *budget_bytes, dir, (*timeline, *last))?;
                println!("{ms} {mb}");
                Ok(())
            }
        }
    }

    fn command(&self) -> Result<Command> {
        let mut command = Command::new(std::env::current_exe().context("finding this program")?);
        let (name, kind, budget, dir, rest) = match self {
            RecoveryStep::RecoveryLoad { kind, budget_bytes, dir, appends } => {
                ("recovery-load", kind, budget_bytes, dir, vec![appends.to_string()])
            }
            RecoveryStep::RecoveryOpen { kind, budget_bytes, dir, timeline, last } => {
                let rest = vec![timeline.to_string(), last.to_string()];
                ("recovery-open", kind, budget_bytes, dir, rest)
            }
        };
        command.args([name, kind.name(), &budget.to_string()]).arg(dir).args(rest);
        Ok(command)
    }
}

fn fill(kind: Kind, budget: usize, dir: &Path, count: usize) -> Result<Box<dyn Peer>> {
    let bodies = Bodies::new(1);
    let all = appends(&bodies, count, 0, 1);
    let peer = kind.open_within(dir, Copies::Inline, budget)?;
    load(kind, peer.as_ref(), Box::new(all.chunks(1).map(Work::Appends)))?;
    Ok(peer)
}

/// Milliseconds until the newest entries are read, and the memory that is resident then, in MB more
/// than before.
fn open(kind: Kind, budget: usize, dir: &Path, (timeline, last): (u32, u64)) -> Result<[f64; 2]> {
    kind.prepare();
    let before = memory_mb("VmRSS")?;
    let start = Instant::now();
    let peer = kind.open_within(dir, Copies::Inline, budget)?;
    peer.resume(timeline, last);
    let found = peer.latest(timeline, COUNT)?;
    let ms = start.elapsed().as_secs_f64() * 1e3;
    let resident = memory_mb("VmRSS")? - before;
    // Appends to a timeline are logged in their order: if the last one survived, all have.
    let newest = peer.after(timeline, last - 1, COUNT)?;
    ensure!((found.entries, newest.entries) == (COUNT, 1), "appends were lost: {found:?}");
    Ok([ms, resident])
}

/// W7.
pub fn w7(settings: &Settings) -> Result<Vec<Table>> {
    let count = settings.count(APPENDS, 20_000);
    let longest = longest_timeline(count)?;
    let mut contestants = vec![
        Contestant::new(Kind::Strandline, "default budget"),
        Contestant {
            budget_bytes: LARGE_BUDGET_BYTES,
            ..Contestant::new(Kind::Strandline, "8 GiB: nothing flushed")
        },
    ];
    let with_a_log = [Kind::RaftEngine, Kind::Fjall, Kind::RocksDb];
    let peers = Kind::peers().into_iter().filter(|kind| with_a_log.contains(kind));
    contestants.extend(peers.map(|kind| Contestant::new(kind, "default")));
    contestants.retain(|contestant| settings.peers.contains(&contestant.kind));
    let labels = contestants.iter().map(Contestant::label).collect();
    let title = format!("W7 recovery, {count} appends, killed");
    let columns =
        vec![Column::compared("ms to the first answer"), Column::compared("MB resident then")];
    let measure = |place: usize| measure(settings, &contestants[place], count, longest);
    Ok(vec![in_turns(settings, (title, columns), labels, measure)?])
}

/// The longest timeline and its last sequence.
fn longest_timeline(count: usize) -> Result<(u32, u64)> {
    let bodies = Bodies::new(1);
    let mut lasts = vec![0_u64; TIMELINES as usize];
    for append in appends(&bodies, count, 0, 1) {
        lasts[append.timeline as usize] += 1;
    }
    (0..).zip(lasts).max_by_key(|&(_, last)| last).context("there are timelines")
}

fn measure(
    settings: &Settings,
    contestant: &Contestant,
    appends: usize,
    (timeline, last): (u32, u64),
) -> Result<Vec<f64>> {
    let temporary = settings.fresh_dir()?;
    let (kind, budget_bytes, dir) =
        (contestant.kind, contestant.budget_bytes, temporary.path().to_owned());
    let step = RecoveryStep::RecoveryLoad { kind, budget_bytes, dir: dir.clone(), appends };
    load_and_kill(&step)?;
    settle()?;
    let step = RecoveryStep::RecoveryOpen { kind, budget_bytes, dir, timeline, last };
    let output = step.command()?.stderr(Stdio::inherit()).output()?;
    ensure!(output.status.success(), "the opening process failed");
    let figures = String::from_utf8(output.stdout)?;
    Ok(figures.split_ascii_whitespace().map(str::parse).collect::<Result<_, _>>()?)
}

fn load_and_kill(step: &RecoveryStep) -> Result<()> {
    let mut command = step.command()?;
    let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let output = process.stdout.take().context("a piped output")?;
    let mut line = String::new();
    let read = BufReader::new(output).read_line(&mut line);
    process.kill()?;
    process.wait()?;
    read?;
    ensure!(line.trim_end() == LOADED, "the loading process failed");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filled_directory_answers_after_opening() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let budget = crate::peers::BUDGET_BYTES;
        drop(fill(Kind::Strandline, budget, dir.path(), 2_000).expect("appends"));
        let longest = longest_timeline(2_000).expect("a timeline");
        let [ms, _] = open(Kind::Strandline, budget, dir.path(), longest).expect("an answer");
        assert!(ms > 0.0);
        let (timeline, last) = longest;
        assert!(open(Kind::Strandline, budget, dir.path(), (timeline, last + 1)).is_err());
    }
}
