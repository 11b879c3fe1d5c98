//! W1 to W4, as docs/benchmarks.md describes them. Each is a `rounds::Workload`, or one for each
//! table, and a function that makes its data and runs it.

pub mod append;
pub mod fan_out;
pub mod latest;

use std::path::Path;

use anyhow::Result;

use crate::disk::{self, Written};
use crate::drive::Outcome;
use crate::peers::Peer;

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
