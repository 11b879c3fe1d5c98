//! Opens the loaded directory, and reads timelines that were not read before.

use std::path::Path;
use std::time::Instant;

use anyhow::{Result, ensure};
use hdrhistogram::Histogram;
use strandline::{Batch, Engine, Store};

use super::{Data, process};
use crate::workload::Random;

/// Timelines that are read one by one.
const LOOKED_AT: u64 = 1000;

/// Opens, and prints the memory of an engine that has done nothing yet.
pub fn open(data: &Data, dir: &Path) -> Result<Engine> {
    let (files, bytes) = process::files(dir)?;
    println!("| files | {files} |");
    println!("| bytes on disk, MB | {:.0} |", bytes as f64 / 1e6);
    let before = process::memory_mb("RssAnon")?;
    let (start, processor) = (Instant::now(), process::processor_ms()?);
    let engine = Engine::open(dir, data.options())?;
    println!("| open, ms | {:.1} |", start.elapsed().as_secs_f64() * 1e3);
    println!("| … of it on a processor, ms | {:.1} |", process::processor_ms()? - processor);
    println!("| anonymous memory after open, MB | {:.1} |", process::memory_mb("RssAnon")?);
    println!("| of it before open, MB | {before:.1} |");
    println!("| open files | {} |", process::descriptors()?);
    Ok(engine)
}

fn block_reads(engine: &Engine) -> u64 {
    engine.stats().block_reads
}

/// Calls `look` for some timelines that were not read before, and prints how many blocks each call
/// read.
fn count_reads(
    engine: &Engine,
    what: &str,
    mut look: impl FnMut(u64) -> Result<()>,
    timelines: impl Iterator<Item = u64>,
) -> Result<()> {
    let mut reads = Histogram::<u64>::new(3)?;
    let mut micros = Histogram::<u64>::new(3)?;
    for timeline in timelines {
        let (before, start) = (block_reads(engine), Instant::now());
        look(timeline)?;
        micros.record(start.elapsed().as_nanos() as u64)?;
        reads.record(block_reads(engine) - before)?;
    }
    println!("| {what}: block reads, mean | {:.2} |", reads.mean());
    println!(
        "| {what}: block reads, p50 · p99 · most | {} · {} · {} |",
        reads.value_at_quantile(0.5),
        reads.value_at_quantile(0.99),
        reads.max()
    );
    let at = |quantile| micros.value_at_quantile(quantile) as f64 / 1e3;
    println!("| {what}: µs, p50 · p99 | {:.1} · {:.1} |", at(0.5), at(0.99));
    Ok(())
}

/// Reads the newest entry of timelines: first with an empty cache; later, with everything cached
/// that all timelines share.
pub fn latest(data: &Data, engine: &Engine, reads: u64) -> Result<()> {
    let store = engine.store("messages")?;
    let newest = |timeline: u64| {
        let last = store.last(Data::name(timeline))?.map(|entry| entry.sequence);
        ensure!(last == Some(data.entries), "timeline {timeline} ends at {last:?}");
        Ok(())
    };
    let mut random = Random::new(3);
    let mut picks = |count: u64| -> Vec<u64> {
        (0..count).map(|_| random.next_u64() % data.timelines).collect()
    };
    count_reads(engine, "newest entry, at first", newest, picks(LOOKED_AT).into_iter())?;
    picks(20 * LOOKED_AT).into_iter().try_for_each(newest)?;
    count_reads(engine, "newest entry, later", newest, picks(LOOKED_AT).into_iter())?;
    let start = Instant::now();
    picks(reads).into_iter().try_for_each(newest)?;
    println!(
        "| random reads, µs each | {:.1} |",
        start.elapsed().as_secs_f64() * 1e6 / reads as f64
    );
    println!(
        "| memory after {reads} random reads: resident, MB | {:.0} |",
        process::memory_mb("VmRSS")?
    );
    println!("| … of it anonymous, MB | {:.0} |", process::memory_mb("RssAnon")?);
    println!("| … open files | {} |", process::descriptors()?);
    Ok(())
}

fn commit(
    engine: &Engine,
    store: &Store,
    timeline: u64,
    id: &[u8],
    body: &[u8],
) -> Result<(u64, bool)> {
    let batch = Batch::new().durability(strandline::Durability::Os);
    let receipt = engine.submit(batch.append(store, Data::name(timeline), body).id(id))?.wait()?;
    Ok((receipt.sequences[0], receipt.duplicate))
}

/// Repeats appends whose ids were used before the restart, and makes appends with new ids.
pub fn retries(data: &Data, engine: &Engine, reads: u64) -> Result<()> {
    let store = engine.store("messages")?;
    let retry = |timeline: u64| {
        let entry = 1 + timeline % data.entries;
        // The body differs from the original one, so the engine must find the id to refuse it.
        match commit(engine, &store, timeline, &Data::id(timeline, entry), b"another") {
            Err(error) => {
                let conflict = error.downcast_ref::<strandline::Error>();
                let found = matches!(
                    conflict,
                    Some(strandline::Error::IdConflict { sequence }) if *sequence == entry
                );
                ensure!(found, "timeline {timeline}: {error}");
                Ok(())
            }
            Ok(given) => anyhow::bail!("timeline {timeline}: the id was forgotten, {given:?}"),
        }
    };
    let fresh = |timeline: u64| {
        let (_, duplicate) =
            commit(engine, &store, timeline, &Data::id(timeline, 0xF_FFFF), b"fresh")?;
        ensure!(!duplicate, "timeline {timeline}: a fresh id was taken for a retry");
        Ok(())
    };
    // No timeline twice: a retry or an append leaves it in memory.
    let mut place = 0;
    let mut next = |count: u64| {
        place += count;
        (place - count..place).map(|place| data.scattered(place)).collect::<Vec<_>>().into_iter()
    };
    count_reads(engine, "retry, at first", retry, next(LOOKED_AT))?;
    next(20 * LOOKED_AT).try_for_each(retry)?;
    count_reads(engine, "retry, later", retry, next(LOOKED_AT))?;
    count_reads(engine, "append with a fresh id", fresh, next(LOOKED_AT))?;
    next(reads).try_for_each(retry)?;
    println!(
        "| memory after {reads} more retries: resident, MB | {:.0} |",
        process::memory_mb("VmRSS")?
    );
    println!("| … of it anonymous, MB | {:.0} |", process::memory_mb("RssAnon")?);
    Ok(())
}
