//! The core paths of the engine, one per process, for a tool that counts instructions.
//!
//! `paths prepare PATH OPERATIONS DIR` fills a directory; `paths run PATH OPERATIONS DIR` opens it
//! and performs the operations. `benches/count.py` counts the second command with two numbers of
//! operations and divides the difference: the costs of the start, the open and the warm-up cancel.
//!
//! Uses the public API of the engine only, so that it can count older versions of the engine, too.

mod allocator;

use std::hint::black_box;
use std::path::PathBuf;

use anyhow::{Result, ensure};
use clap::{Parser, ValueEnum};
use strandline::{Batch, Durability, Engine, Limit, Options, Store};
use strandline_benches::workload::{BODY_BYTES, Bodies, Random};

#[global_allocator]
static ALLOCATOR: allocator::Lists = allocator::Lists;

const STORE: &str = "paths";

/// Timelines that `append` and `batch` write to in turn.
const WRITTEN: usize = 1_000;
const APPENDS_PER_BATCH: usize = 16;

/// Timelines that fan-outs write to, and how many of them each does.
const INBOXES: usize = 2_000;
const TARGETS: usize = 500;

/// Timelines that are read, and the entries of each: 1.6 MB, a small part of the block cache.
const READ: usize = 64;
const ENTRIES: u32 = 128;
const LATEST: usize = 50;

#[derive(Parser)]
#[command(about = "Performs one core path of the engine, for a tool that counts instructions.")]
struct Arguments {
    #[arg(value_enum)]
    step: Step,
    #[arg(value_enum)]
    path: Measured,
    /// How often.
    operations: usize,
    /// A directory that `prepare` makes, and `run` changes.
    dir: PathBuf,
}

#[derive(Clone, Copy, ValueEnum)]
enum Step {
    /// Fill the directory.
    Prepare,
    /// Open it and perform the operations.
    Run,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Measured {
    /// A batch with one append.
    Append,
    /// A batch with 16 appends to as many timelines.
    Batch,
    /// One body to 500 timelines.
    FanOut,
    /// The newest 50 entries of a timeline, from memory.
    LatestMemory,
    /// The newest 50 entries of a timeline, from a segment whose blocks are cached.
    LatestSegment,
    /// One entry, from memory.
    GetMemory,
    /// One entry, from a segment whose blocks are cached.
    GetSegment,
    /// A group of the log, with one append, in an open.
    Replay,
}

fn main() -> Result<()> {
    let Arguments { step, path, operations, dir } = Arguments::parse();
    match step {
        Step::Prepare => {
            let engine = Engine::open(&dir, Options::default())?;
            prepare(&engine, path, operations)
        }
        Step::Run => {
            let engine = Engine::open(&dir, Options::default())?;
            run(&engine, path, operations)?;
            // Dropping the engine would free what the operations allocated, which is not a part of
            // them.
            std::process::exit(0)
        }
    }
}

/// Without a flush, what is appended here is in the log only, and in memory after the next open.
fn prepare(engine: &Engine, path: Measured, operations: usize) -> Result<()> {
    let store = engine.create_store(STORE, None)?;
    match path {
        Measured::Append | Measured::Batch | Measured::FanOut => Ok(()),
        Measured::Replay => append(engine, &store, &names(WRITTEN), operations),
        Measured::LatestMemory | Measured::GetMemory => fill(engine, &store),
        Measured::LatestSegment | Measured::GetSegment => {
            fill(engine, &store)?;
            Ok(engine.close()?)
        }
    }
}

/// Writes the timelines that are read.
fn fill(engine: &Engine, store: &Store) -> Result<()> {
    let (bodies, mut random) = (Bodies::new(1), Random::new(2));
    let names = names(READ);
    for _ in 0..ENTRIES {
        let batch = names
            .iter()
            .fold(Batch::new(), |batch, name| batch.append(store, name, bodies.pick(&mut random)));
        engine.submit(batch)?.wait()?;
    }
    Ok(())
}

fn run(engine: &Engine, path: Measured, operations: usize) -> Result<()> {
    let store = engine.store(STORE)?;
    match path {
        Measured::Append => append(engine, &store, &names(WRITTEN), operations),
        Measured::Batch => batches(engine, &store, operations),
        Measured::FanOut => fan_outs(engine, &store, operations),
        Measured::LatestMemory => latest(&store, true, operations),
        Measured::LatestSegment => latest(&store, false, operations),
        Measured::GetMemory => get(&store, true, operations),
        Measured::GetSegment => get(&store, false, operations),
        Measured::Replay => {
            ensure!(engine.recovery().entries == operations as u64, "not every group was replayed");
            Ok(())
        }
    }
}

/// Waits for each batch, so that each is a group of its own. The operating system's durability
/// keeps the kernel's work out of it.
fn commit(engine: &Engine, batch: Batch) -> Result<()> {
    black_box(engine.submit(batch.durability(Durability::Os))?.wait()?);
    Ok(())
}

fn append(engine: &Engine, store: &Store, names: &[Vec<u8>], operations: usize) -> Result<()> {
    names.iter().cycle().take(operations).try_for_each(|name| {
        let batch = Batch::new().append(store, name, [b'x'; BODY_BYTES]);
        commit(engine, batch)
    })
}

fn batches(engine: &Engine, store: &Store, operations: usize) -> Result<()> {
    let names = names(WRITTEN);
    let mut targets = names.iter().cycle();
    for _ in 0..operations {
        let batch = targets
            .by_ref()
            .take(APPENDS_PER_BATCH)
            .fold(Batch::new(), |batch, name| batch.append(store, name, [b'x'; BODY_BYTES]));
        commit(engine, batch)?;
    }
    Ok(())
}

fn fan_outs(engine: &Engine, store: &Store, operations: usize) -> Result<()> {
    let names = names(INBOXES);
    for group in names.chunks(TARGETS).cycle().take(operations) {
        let targets = group.iter().map(|name| (store, name.as_slice()));
        commit(engine, Batch::new().fan_out([b'x'; BODY_BYTES], targets))?;
    }
    Ok(())
}

fn latest(store: &Store, in_memory: bool, operations: usize) -> Result<()> {
    let names = warm(store, in_memory)?;
    let mut random = Random::new(3);
    for _ in 0..operations {
        let name = &names[random.below(READ as u32) as usize];
        let page = black_box(store.range_back(name, .., Limit::entries(LATEST))?);
        ensure!(page.entries.len() == LATEST, "a page is short");
    }
    Ok(())
}

fn get(store: &Store, in_memory: bool, operations: usize) -> Result<()> {
    let names = warm(store, in_memory)?;
    let mut random = Random::new(4);
    for _ in 0..operations {
        let name = &names[random.below(READ as u32) as usize];
        let sequence = u64::from(1 + random.below(ENTRIES));
        ensure!(black_box(store.get(name, sequence)?).is_some(), "an entry is missing");
    }
    Ok(())
}

/// Reads all entries once, so that the blocks of segments are cached. Gives the timelines' names.
fn warm(store: &Store, in_memory: bool) -> Result<Vec<Vec<u8>>> {
    let names = names(READ);
    for name in &names {
        ensure!(store.is_in_memory(name, 1)? == in_memory, "the entries are in the wrong place");
        let page = store.range_back(name, .., Limit::entries(ENTRIES as usize))?;
        ensure!(page.entries.len() == ENTRIES as usize, "entries are missing");
    }
    Ok(names)
}

fn names(count: usize) -> Vec<Vec<u8>> {
    (0..count).map(|number| format!("timeline/{number:08}").into_bytes()).collect()
}
