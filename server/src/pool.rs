//! The threads for work that may block: reads of the disk, changes that wait for their commit,
//! maintenance.
//!
//! Their number is constant. Reads may use all of them. Work that waits for a commit, or for room
//! in the engine's queue, leaves one of them to reads. Work that may last for minutes is done one
//! at a time.

use std::io;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tracing::error;

use crate::refusal::Refusal;

/// One for each kind of work.
const LEAST_THREADS: usize = 3;

/// An idle thread is kept for a year, so that the number is constant.
const KEPT: Duration = Duration::from_hours(365 * 24);

/// The time in which a thread starts on a very busy machine.
const START_TIMEOUT: Duration = Duration::from_secs(10);

const NEVER_CLOSED: &str = "the semaphores are never closed";

/// The threads for work that may block.
pub struct Pool {
    /// Only its threads for blocking work are used. `None` only in `drop`.
    runtime: Option<Runtime>,
    /// A permit for each thread except one.
    slow: Semaphore,
    /// One permit.
    long: Semaphore,
}

impl Pool {
    /// Starts `threads` threads, and at least three.
    pub fn start(threads: usize) -> io::Result<Pool> {
        let threads = threads.max(LEAST_THREADS);
        let runtime = Builder::new_current_thread()
            .max_blocking_threads(threads)
            .thread_keep_alive(KEPT)
            .thread_name("strandline-pool")
            .build()?;
        let (slow, long) = (Semaphore::new(threads - 1), Semaphore::new(1));
        let pool = Pool { runtime: Some(runtime), slow, long };
        pool.start_all(threads).map(|()| pool)
    }

    /// A thread is started when work finds no idle one; if the system gives none, the work waits
    /// for one.
    fn start_all(&self, threads: usize) -> io::Result<()> {
        let gate = Arc::new(Mutex::new(()));
        let closed = gate.lock();
        let (started, arrived) = mpsc::channel();
        for _ in 0..threads {
            let (gate, started) = (Arc::clone(&gate), started.clone());
            self.spawn(move || {
                // If the start was given up, nobody counts.
                let _ = started.send(());
                drop(gate.lock());
            });
        }
        let all = (0..threads).try_for_each(|_| arrived.recv_timeout(START_TIMEOUT));
        drop(closed);
        all.map_err(|_| io::Error::from(io::ErrorKind::WouldBlock))
    }

    /// Starts work; its handle has the result, or the panic.
    pub fn spawn<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> JoinHandle<T> {
        self.runtime.as_ref().expect("the pool is in use").spawn_blocking(work)
    }

    /// Runs a read. If it panics, the client gets an error.
    pub async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Refusal> {
        self.spawn(work).await.map_err(|problem| {
            error!(%problem, "a command ended unexpectedly");
            Refusal::usage("the command ended unexpectedly: see the server's log")
        })
    }

    /// Runs work that waits for a commit.
    pub async fn run_slow<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Refusal> {
        let _permit = self.slow.acquire().await.expect(NEVER_CLOSED);
        self.run(work).await
    }

    /// Runs work that may take minutes, after all earlier such work.
    pub async fn run_long<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Refusal> {
        let _permit = self.long.acquire().await.expect(NEVER_CLOSED);
        self.run_slow(work).await
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        // The last owner may be a task, which must not wait for work that still runs.
        self.runtime.take().into_iter().for_each(Runtime::shutdown_background);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn long_and_slow_work_leave_a_thread_for_reads() {
        let pool = Arc::new(Pool::start(1).expect("it starts"));
        let (go, wait) = std::sync::mpsc::channel::<()>();
        let long = tokio::spawn({
            let pool = Arc::clone(&pool);
            async move { pool.run_long(move || wait.recv().is_ok()).await }
        });
        let (go_slow, wait_slow) = std::sync::mpsc::channel::<()>();
        let slow = tokio::spawn({
            let pool = Arc::clone(&pool);
            async move { pool.run_slow(move || wait_slow.recv().is_ok()).await }
        });
        let waiting = [true, false].map(|is_long| {
            let pool = Arc::clone(&pool);
            tokio::spawn(async move {
                if is_long { pool.run_long(|| 2).await } else { pool.run_slow(|| 2).await }
            })
        });
        tokio::task::yield_now().await;
        assert_eq!(pool.run(|| 1).await, Ok(1));
        assert!(waiting.iter().all(|task| !task.is_finished()));
        for go in [go, go_slow] {
            go.send(()).expect("it waits");
        }
        assert_eq!(long.await.expect("no panic"), Ok(true));
        assert_eq!(slow.await.expect("no panic"), Ok(true));
        for task in waiting {
            assert_eq!(task.await.expect("no panic"), Ok(2));
        }
    }

    #[tokio::test]
    async fn work_that_panics_is_refused_and_harms_no_later_work() {
        let pool = Pool::start(1).expect("it starts");
        for _ in 0..LEAST_THREADS {
            assert!(pool.run(|| panic!("a broken command")).await.is_err());
        }
        assert_eq!(pool.run_long(|| 1).await, Ok(1));
    }
}
