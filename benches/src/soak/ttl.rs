//! W8: the size on disk while entries arrive at full speed with a short lifetime, and the time at
//! which the disk is empty afterwards.
//!
//! The bound is 1.4 × (the bodies' bytes that were accepted within the last TTL + one partition);
//! it is checked each second, from the first moment at which something has expired. One timeline is
//! written once at the start and never again: it must keep nothing else on the disk. After the last
//! append, all entries must have left the disk within TTL + one partition + 5 s: no data file with
//! entries, nothing in memory that the log would have to hold.

use std::collections::VecDeque;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use strandline::{Engine, Options};

use super::ingest::{Ingest, Load};
use super::{figure, file_bytes, megabytes};
use crate::disk::occupied_bytes;

const SECOND: Duration = Duration::from_secs(1);

/// The factor of the bound for everything but bodies.
const FACTOR: f64 = 1.4;

/// A data file without entries consists of its header.
const EMPTY_DATA_BYTES: u64 = 128;

/// Runs it and prints a row every `every` and a summary.
pub fn run(dir: &Path, load: Load, ttl: Duration, time: Duration, every: Duration) -> Result<()> {
    let engine = Engine::open(dir, Options::default())?;
    let store = engine.create_store("short", Some(ttl))?;
    store.append(b"idle", b"written once")?;
    let partition = (ttl / 64).max(SECOND);
    let window = ttl + partition;
    println!("TTL {} s, a partition {:.1} s\n", ttl.as_secs(), partition.as_secs_f64());
    println!("| s | appends/s | disk MB | of the bound | log MB | segments |");
    println!("|--:|--:|--:|--:|--:|--:|");
    let ingest = Ingest::start(&engine, &store, load);
    let start = Instant::now();
    let mut samples: VecDeque<(Duration, u64)> = VecDeque::from([(Duration::ZERO, 0)]);
    let (mut worst, mut row) = (0.0_f64, (Duration::ZERO, 0));
    while start.elapsed() < time && !ingest.is_done() {
        std::thread::sleep(SECOND);
        let (now, accepted) = (start.elapsed(), ingest.body_bytes());
        samples.push_back((now, accepted));
        while samples.get(1).is_some_and(|(at, _)| now.saturating_sub(*at) >= window) {
            samples.pop_front();
        }
        let disk = occupied_bytes(dir)?;
        let share = disk as f64 / (FACTOR * (accepted - samples[0].1) as f64);
        if now >= window {
            worst = worst.max(share);
        }
        if now.saturating_sub(row.0) >= every {
            let rate = (ingest.appends() - row.1) as f64 / now.saturating_sub(row.0).as_secs_f64();
            let log = file_bytes(dir, ".log")?.iter().sum();
            let (disk, log, segments) =
                (megabytes(disk), megabytes(log), figure(&engine, "segments")?);
            println!(
                "| {} | {rate:.0} | {disk:.0} | {share:.2} | {log:.0} | {segments} |",
                now.as_secs()
            );
            row = (now, ingest.appends());
        }
    }
    let appends = ingest.appends();
    ingest.stop()?;
    let stopped = Instant::now();
    println!("\n{appends} appends. The disk held at most {worst:.2} of the bound.");
    let limit = window + 5 * SECOND;
    while !is_gone(&engine, dir)? && stopped.elapsed() < 4 * limit {
        std::thread::sleep(SECOND / 10);
    }
    let gone = stopped.elapsed();
    println!(
        "All entries had left {:.1} s after the last append; {:.1} s are allowed.",
        gone.as_secs_f64(),
        limit.as_secs_f64()
    );
    println!("Left on the disk: {:.1} MB.", megabytes(occupied_bytes(dir)?));
    for name in
        ["expired_total", "expired_bytes", "write_amplification_percent", "merges", "write_stalls"]
    {
        println!("{name}: {}", figure(&engine, name)?);
    }
    let next = store.append(b"idle", b"again")?;
    ensure!(next == 2, "the idle timeline was given {next} after 1");
    engine.close()?;
    ensure!(worst <= 1.0, "the disk held {worst:.2} of the bound");
    ensure!(gone <= limit, "the entries took {} s to leave", gone.as_secs());
    Ok(())
}

fn is_gone(engine: &Engine, dir: &Path) -> Result<bool> {
    let empty = file_bytes(dir, ".data")?.iter().all(|bytes| *bytes <= EMPTY_DATA_BYTES);
    Ok(empty && figure(engine, "memtable_bytes")? == 0)
}
