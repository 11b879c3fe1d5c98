//! W9: the append rate while a store grows, the bytes that merging writes for it, and reads of cold
//! timelines at its end.
//!
//! Appends run at full speed while the compaction thread works at its default rate. Then the run
//! waits for the debt, closes the engine, drops the caches of the operating system, and reads
//! timelines that were not read before.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use hdrhistogram::Histogram;
use strandline::{Engine, Limit, Options};

use super::ingest::{Ingest, Load, name};
use super::{figure, megabytes};
use crate::disk::{Written, drop_caches, occupied_bytes, settle};
use crate::workload::{BODY_BYTES, Random};

/// The number of entries that a user sees on opening a conversation.
const LATEST: usize = 50;

/// The time limit for the debt at the end.
const PATIENCE: Duration = Duration::from_hours(2);

/// Runs it and prints a row every `every`, and the result.
pub fn run(dir: &Path, load: Load, reads: u32, every: Duration) -> Result<()> {
    let engine = Engine::open(dir, Options::default())?;
    let before = Written::now(dir)?;
    let rates = grow(&engine, dir, load, every)?;
    engine.flush()?;
    let start = Instant::now();
    // The figure was computed by the compaction thread in its last pass, at most a second ago when
    // it is idle.
    loop {
        std::thread::sleep(Duration::from_secs(2));
        if figure(&engine, "compaction_debt_bytes")? == 0 || start.elapsed() >= PATIENCE {
            break;
        }
    }
    let debt_seconds = start.elapsed().as_secs_f64();
    let appends = load.most_bytes / BODY_BYTES as u64;
    settle()?;
    let [calls, device] = Written::now(dir)?.per_work_since(before, appends);
    println!("\nThe debt was merged {debt_seconds:.0} s after the last append.");
    println!(
        "Written per byte of bodies: {:.2} by the engine's count, {:.2} by calls, {:.2} by the \
         device.",
        figure(&engine, "write_amplification_percent")? as f64 / 100.0,
        calls / BODY_BYTES as f64,
        device / BODY_BYTES as f64
    );
    for name in [
        "wal_bytes",
        "wal_prepared_bytes",
        "flush_bytes",
        "merge_bytes",
        "merges",
        "segments",
        "write_stalls",
    ] {
        println!("{name}: {}", figure(&engine, name)?);
    }
    println!(
        "The disk holds {:.2} bytes per byte of bodies.",
        occupied_bytes(dir)? as f64 / load.most_bytes as f64
    );
    engine.close()?;
    drop(engine);
    cold_reads(dir, load.timelines, reads)?;
    let first = rates.first().copied().unwrap_or_default();
    let lowest = rates.iter().copied().fold(first, f64::min);
    println!("Lowest rate of a row: {:.2} of the first.", lowest / first);
    ensure!(2.0 * lowest >= first, "the rate sank below half");
    Ok(())
}

/// Appends all of it; returns the rate of each row.
fn grow(engine: &Engine, dir: &Path, load: Load, every: Duration) -> Result<Vec<f64>> {
    let store = engine.create_store("messages", None)?;
    println!(
        "| s | appends/s | bodies MB | disk MB | written per byte | debt MB | segments | stalls |"
    );
    println!("|--:|--:|--:|--:|--:|--:|--:|--:|");
    let ingest = Ingest::start(engine, &store, load);
    let (start, mut last, mut rates) = (Instant::now(), (Duration::ZERO, 0), Vec::new());
    while !ingest.is_done() {
        std::thread::sleep(Duration::from_millis(200));
        let (now, appends) = (start.elapsed(), ingest.appends());
        if now.saturating_sub(last.0) < every {
            continue;
        }
        let rate = (appends - last.1) as f64 / now.saturating_sub(last.0).as_secs_f64();
        println!(
            "| {} | {rate:.0} | {:.0} | {:.0} | {:.2} | {:.0} | {} | {} |",
            now.as_secs(),
            megabytes(ingest.body_bytes()),
            megabytes(occupied_bytes(dir)?),
            figure(engine, "write_amplification_percent")? as f64 / 100.0,
            megabytes(figure(engine, "compaction_debt_bytes")?),
            figure(engine, "segments")?,
            figure(engine, "write_stalls")?
        );
        rates.push(rate);
        last = (now, appends);
    }
    ingest.stop()?;
    Ok(rates)
}

/// The newest entries of timelines that neither the engine nor the operating system has in memory.
fn cold_reads(dir: &Path, timelines: u32, reads: u32) -> Result<()> {
    let how = drop_caches(dir)?;
    let start = Instant::now();
    let engine = Engine::open(dir, Options::default())?;
    println!("\nOpened in {:.1} ms, {how}.", start.elapsed().as_secs_f64() * 1e3);
    let store = engine.create_store("messages", None)?;
    let (mut random, mut entries) = (Random::new(0xC01D), 0);
    let mut first = Histogram::<u64>::new(3)?;
    let mut all = Histogram::<u64>::new(3)?;
    for number in 0..reads {
        let timeline = name(random.below(timelines));
        let start = Instant::now();
        entries += store.range_back(&timeline, .., Limit::entries(LATEST))?.entries.len();
        let micros = start.elapsed().as_micros() as u64;
        if number < 100 {
            first.record(micros)?;
        }
        all.record(micros)?;
    }
    for (which, times) in [("first 100", &first), ("all", &all)] {
        let (middle, high) = (times.value_at_quantile(0.5), times.value_at_quantile(0.99));
        println!(
            "Latest {LATEST}, {which} of {reads} cold timelines: p50 {middle} µs, p99 {high} µs."
        );
    }
    println!("{:.1} entries a read.", entries as f64 / f64::from(reads));
    engine.close()?;
    Ok(())
}
