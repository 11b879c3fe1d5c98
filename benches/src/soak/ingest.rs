//! Appends at full speed until it is stopped: batches of a hundred entries to timelines that are
//! picked evenly, sixteen in flight.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;

use anyhow::{Result, anyhow};
use strandline::{Batch, Durability, Engine, Store};

use crate::workload::{BODY_BYTES, Bodies, Random};

const BATCH: usize = 100;
const IN_FLIGHT: usize = 16;

/// The load.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// How many timelines there are.
    pub timelines: u32,
    /// The meaning of an acknowledgement.
    pub durability: Durability,
    /// It ends after this many bytes of bodies, if not before.
    pub most_bytes: u64,
}

/// A thread that appends.
pub struct Ingest {
    told: Arc<Told>,
    thread: JoinHandle<Result<()>>,
}

#[derive(Default)]
struct Told {
    appends: AtomicU64,
    stop: AtomicBool,
}

/// The name of a timeline.
pub fn name(timeline: u32) -> Vec<u8> {
    format!("t/{timeline:08}").into_bytes()
}

impl Ingest {
    /// Starts to append.
    pub fn start(engine: &Engine, store: &Store, load: Load) -> Ingest {
        let told = Arc::new(Told::default());
        let (engine, store, shared) = (engine.clone(), store.clone(), told.clone());
        Ingest { told, thread: std::thread::spawn(move || append(&engine, &store, load, &shared)) }
    }

    /// How many appends were acknowledged so far.
    pub fn appends(&self) -> u64 {
        self.told.appends.load(Ordering::Relaxed)
    }

    /// The bytes of their bodies.
    pub fn body_bytes(&self) -> u64 {
        self.appends() * BODY_BYTES as u64
    }

    /// Whether it has ended on its own.
    pub fn is_done(&self) -> bool {
        self.thread.is_finished()
    }

    /// Ends it, when everything in flight is acknowledged.
    pub fn stop(self) -> Result<()> {
        self.told.stop.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_| anyhow!("the appending thread panicked"))?
    }
}

fn append(engine: &Engine, store: &Store, load: Load, told: &Told) -> Result<()> {
    let (bodies, mut random) = (Bodies::new(1), Random::new(0x50AC));
    let mut in_flight = VecDeque::new();
    let batches = load.most_bytes.div_ceil((BATCH * BODY_BYTES) as u64);
    for _ in 0..batches {
        if told.stop.load(Ordering::Relaxed) {
            break;
        }
        let batch = (0..BATCH).fold(Batch::new().durability(load.durability), |batch, _| {
            batch.append(store, name(random.below(load.timelines)), bodies.pick(&mut random))
        });
        in_flight.push_back(engine.submit(batch)?);
        if in_flight.len() >= IN_FLIGHT
            && let Some(oldest) = in_flight.pop_front()
        {
            oldest.wait()?;
            told.appends.fetch_add(BATCH as u64, Ordering::Relaxed);
        }
    }
    for ticket in in_flight {
        ticket.wait()?;
        told.appends.fetch_add(BATCH as u64, Ordering::Relaxed);
    }
    Ok(())
}
