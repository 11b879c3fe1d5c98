//! The workloads W1 to W5, W7 and the cold reads, as docs/benchmarks.md describes them. Each is a
//! `rounds::Workload`, or one for each table, and a function that makes its data and runs it.

pub mod append;
pub mod cold;
pub mod fan_out;
pub mod inbox;
pub mod latest;
pub mod pull;
pub mod recovery;

use std::path::Path;

use anyhow::{Result, ensure};

use crate::disk::{self, Written};
use crate::drive::{self, Feed, Outcome, Pace};
use crate::peers::{Durability, Found, Kind, Peer};

/// Flushes, and returns the bytes written per piece of work since `before`: call bytes, device
/// bytes.
fn written_per_work(
    peer: &dyn Peer,
    dir: &Path,
    before: Written,
    outcome: &Outcome,
) -> Result<[f64; 2]> {
    peer.flush()?;
    disk::settle()?;
    Ok(Written::now(dir)?.per_work_since(before, outcome.works))
}

/// Writes all of it, logged. It is not measured: Strandline's window only makes it shorter.
fn load(kind: Kind, peer: &dyn Peer, feed: Feed<'_>) -> Result<()> {
    let window = if kind == Kind::Strandline { 1_024 } else { 1 };
    let pace = Pace { latencies: false, ..Pace::new(window, Durability::Logged) };
    drive::run(peer, vec![feed], pace).map(drop)
}

/// A read by sequence.
#[derive(Clone, Copy, Debug)]
struct Look {
    timeline: u32,
    sequence: u64,
    /// The number of entries that it finds.
    finds: usize,
}

/// Does each read once to warm up, with a check of the number of entries, and once more to measure.
fn read_warm<R>(
    reads: &[R],
    finds: impl Fn(&R) -> usize,
    read: impl Fn(&R) -> Result<Found>,
) -> Result<Outcome> {
    for one in reads {
        let (found, expected) = (read(one)?.entries, finds(one));
        ensure!(found == expected, "{found} of {expected} entries");
    }
    drive::read_each(reads, true, read)
}
