//! Long runs: does an engine stay what it was after the first minute?
//!
//! * `ttl` (W8): full speed into a store with a short TTL; how much the disk holds, and when it is
//!   empty after the last append.
//! * `growth` (W9): many gigabytes over many timelines; the append rate as they grow, write
//!   amplification, cold reads at the end.
//! * `ingest` is the load of both: batches of appends, so many in flight, on a thread of its own.

pub mod growth;
pub mod ingest;
pub mod ttl;

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use strandline::Engine;

/// A figure of an engine.
pub fn figure(engine: &Engine, name: &str) -> Result<u64> {
    engine.stats().get(name).with_context(|| format!("the engine tells no {name}"))
}

/// Megabytes, for a table.
pub fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

/// The lengths of the files of a directory whose names end so, each with its length.
pub fn file_bytes(dir: &Path, ending: &str) -> Result<Vec<u64>> {
    let mut lengths = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().ends_with(ending) {
            // A file may go between being listed and being looked at.
            lengths.extend(entry.metadata().map(|facts| facts.len()));
        }
    }
    Ok(lengths)
}
