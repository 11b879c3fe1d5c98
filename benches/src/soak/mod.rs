//! Long runs: does the behavior of an engine stay the same after the first minute?
//!
//! * `ttl` (W8): full speed into a store with a short TTL; the size on disk, and the time at which
//!   it is empty after the last append.
//! * `growth` (W9): many gigabytes over many timelines; the append rate as they grow, write
//!   amplification, cold reads at the end.
//! * `ingest` is the load of both: batches of appends, a fixed number in flight, on a thread of its
//!   own.

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

/// The files of a directory whose names have this ending, each with its length.
pub fn file_bytes(dir: &Path, ending: &str) -> Result<Vec<u64>> {
    let mut lengths = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().ends_with(ending) {
            // A file may be removed after it was listed.
            lengths.extend(entry.metadata().map(|facts| facts.len()));
        }
    }
    Ok(lengths)
}
