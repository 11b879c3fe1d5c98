//! Submits batches to the engine from a thread of the runtime.
//!
//! Usually this takes microseconds. It waits if the ends of timelines are in segments that must be
//! read, or if the engine's queue is full. Then the thread should be declared as blocked, so that
//! the runtime moves its other connections to another thread. Declaring it every time costs a
//! pipeline of eight a tenth of its throughput, so it is done only for a while after a submission
//! that took long.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use strandline::{Batch, Engine, Error, Ticket};
use tokio::task::block_in_place;
use tokio::time::Instant;

/// A submission that takes longer has waited for something.
const LONG: Duration = Duration::from_micros(500);

/// The number of submissions that are declared as blocking after a long one.
const WARY_SUBMISSIONS: u64 = 1000;

/// The recent behaviour of submissions.
#[derive(Debug, Default)]
pub struct Submission {
    wary: AtomicU64,
}

impl Submission {
    /// Submits batches to the engine.
    pub fn submit(&self, engine: &Engine, batches: Vec<Batch>) -> Vec<Result<Ticket, Error>> {
        let start = Instant::now();
        let wary = self.wary.load(Ordering::Relaxed);
        let tickets = if wary > 0 {
            // Two threads may count one submission together: the number need not be exact.
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
