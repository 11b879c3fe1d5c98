//! Fills a directory, and waits until the engine is idle.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use parking_lot::Mutex;
use strandline::{Batch, Durability, Engine, Stats, Ticket};

use super::{Data, process};
use crate::workload::{Bodies, Random};

/// The number of batches in flight.
const IN_FLIGHT: usize = 64;

/// The time without merges after which the engine counts as idle.
const REST: Duration = Duration::from_secs(6);

/// How a load ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Closed as the engine's own merges left it.
    Settled,
    /// Everything merged into one segment, then closed.
    Compacted,
    /// As after a kill: the log has the data that was not flushed.
    Killed,
}

/// Loads all entries. With ids a batch is one append, otherwise a hundred.
pub fn load(data: &Data, dir: &Path, end: End) -> Result<()> {
    let engine = Engine::open(dir, data.options())?;
    let watched = Memory::watch(&engine);
    let store = engine.store("messages")?;
    let (bodies, mut random) = (Bodies::new(1), Random::new(2));
    let start = Instant::now();
    let mut tickets: VecDeque<Ticket> = VecDeque::new();
    let in_a_batch = if data.ids { 1 } else { 100 };
    let in_flight = IN_FLIGHT * 100 / in_a_batch;
    for entry in 1..=data.entries {
        for first in (0..data.timelines).step_by(in_a_batch) {
            let mut batch = Batch::new().durability(Durability::Os);
            for place in first..(first + in_a_batch as u64).min(data.timelines) {
                let timeline = data.scattered(place);
                batch = batch.append(
                    &store,
                    Data::name(timeline),
                    bodies.piece(&mut random, data.body),
                );
                if data.ids {
                    batch = batch.id(Data::id(timeline, entry));
                }
            }
            tickets.push_back(engine.submit(batch)?);
            if tickets.len() >= in_flight {
                tickets.drain(..in_flight / 2).try_for_each(|ticket| ticket.wait().map(|_| ()))?;
            }
        }
    }
    tickets.into_iter().try_for_each(|ticket| ticket.wait().map(|_| ()))?;
    let seconds = start.elapsed().as_secs_f64();
    let appends = data.timelines * data.entries;
    println!("| loading, appends/s | {:.0} |", appends as f64 / seconds);
    if end == End::Killed {
        // No part of the engine is dropped or notified.
        std::process::exit(0);
    }
    engine.flush()?;
    settle(&engine);
    let at_rest = start.elapsed().as_secs_f64() - REST.as_secs_f64();
    println!("| loading and merging, until rest, s | {at_rest:.0} |");
    let figure = |name| engine.stats().get(name).unwrap_or(0);
    println!("| segments | {} |", figure("segments"));
    println!(
        "| flushed and merged, MB | {:.0} |",
        (figure("flush_bytes") + figure("merge_bytes")) as f64 / 1e6
    );
    println!("| largest memory of the loading process, MB | {:.0} |", process::memory_mb("VmHWM")?);
    watched.print();
    engine.close()?;
    if end == End::Compacted { compact(data, dir) } else { Ok(()) }
}

/// The moment at which the process had the most anonymous memory, and what the engine counted then.
struct Memory {
    largest: Arc<Mutex<(f64, Option<Stats>)>>,
}

impl Memory {
    /// Looks ten times a second, until it is printed.
    fn watch(engine: &Engine) -> Memory {
        let largest = Arc::new(Mutex::new((0.0, None)));
        std::thread::spawn({
            let (engine, watched) = (engine.clone(), Arc::downgrade(&largest));
            move || {
                while let (Some(largest), Ok(anonymous_mb)) =
                    (watched.upgrade(), process::memory_mb("RssAnon"))
                {
                    let mut largest = largest.lock();
                    if anonymous_mb > largest.0 {
                        *largest = (anonymous_mb, Some(engine.stats()));
                    }
                    drop(largest);
                    std::thread::sleep(Duration::from_millis(100));
                }
            }
        });
        Memory { largest }
    }

    fn print(self) {
        let (anonymous_mb, Some(stats)) = &*self.largest.lock() else { return };
        let mb = |bytes: u64| bytes as f64 / 1e6;
        println!("| anonymous memory, at its largest, MB | {anonymous_mb:.0} |");
        println!("| of it memtables, MB | {:.0} |", mb(stats.memtable_bytes));
        println!("| of it the cache, MB | {:.0} |", mb(stats.cache_bytes));
        println!("| sealed memtables then | {} |", stats.sealed_memtables);
    }
}

/// Merges everything into one segment.
pub fn compact(data: &Data, dir: &Path) -> Result<()> {
    let engine = Engine::open(dir, data.options())?;
    let start = Instant::now();
    engine.compact()?;
    println!("| merging all into one, s | {:.0} |", start.elapsed().as_secs_f64());
    println!("| largest memory of that, MB | {:.0} |", process::memory_mb("VmHWM")?);
    engine.close()?;
    Ok(())
}

/// Waits until the engine has no merges left to do.
fn settle(engine: &Engine) {
    let merges = || engine.stats().merges;
    let (mut seen, mut since) = (merges(), Instant::now());
    while since.elapsed() < REST {
        std::thread::sleep(Duration::from_millis(100));
        let now = merges();
        if now != seen || is_busy() {
            (seen, since) = (now, Instant::now());
        }
    }
}

/// Whether this process wrote something in the last moment: a merge may take longer than the idle
/// time.
fn is_busy() -> bool {
    use std::cell::Cell;
    thread_local!(static WRITTEN: Cell<u64> = const { Cell::new(0) });
    let own = std::fs::read_to_string("/proc/self/io").unwrap_or_default();
    let written =
        own.lines().find_map(|line| line.strip_prefix("wchar: ")?.parse().ok()).unwrap_or(0);
    WRITTEN.replace(written).abs_diff(written) > 64 * 1024
}
