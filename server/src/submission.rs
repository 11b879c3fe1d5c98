//! Handing batches to the engine from a thread of the runtime.
//!
//! Mostly that takes microseconds. It waits when timelines end in segments that must be read, or
//! when the engine's queue is full; then the thread is declared to be blocked, so that the runtime
//! moves the other connections to another one. To declare it each time costs a pipeline of eight a
//! tenth of its throughput, so it is done only for a while after a submission that took long.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use strandline::{Batch, Engine, Error, Ticket};
use tokio::task::block_in_place;
use tokio::time::Instant;

/// A submission that takes longer has waited for something.
const LONG: Duration = Duration::from_micros(500);

/// How many submissions are declared to block after one that was long.
const WARY_SUBMISSIONS: u64 = 1000;

/// How submissions have gone lately.
#[derive(Debug, Default)]
pub struct Submission {
    wary: AtomicU64,
}

impl Submission {
    /// Hands batches to the engine.
    pub fn submit(&self, engine: &Engine, batches: Vec<Batch>) -> Vec<Result<Ticket, Error>> {
        let start = Instant::now();
        let wary = self.wary.load(Ordering::Relaxed);
        let tickets = if wary > 0 {
            // Two at a time may take one step together; the number need not be exact.
            self.wary.store(wary - 1, Ordering::Relaxed);
            block_in_place(|| engine.submit_all(batches))
        } else {
            engine.submit_all(batches)
        };
        if start.elapsed() > LONG {
            self.wary.store(WARY_SUBMISSIONS, Ordering::Relaxed);
        }
        tickets
    }
}
