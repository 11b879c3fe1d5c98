//! A running engine: its threads and its lock, from start to stop. Handles to it are `Engine` and `Store`.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;

use parking_lot::Mutex;

use crate::append::Committer;
use crate::batch::Batch;
use crate::error::{Error, Result};
use crate::open::Opened;
use crate::queue::Queue;
use crate::state::State;
use crate::ticket::Ticket;
use crate::{compact, expire, flush, wal};

const CLOSED: Error = Error::Closed { what: "the engine is closed: nothing is written any more" };
const READ_ONLY: Error = Error::Closed { what: "the engine is open for reading only: nothing is written" };

/// A running engine. The last handle that goes stops it.
pub struct Running {
    pub state: Arc<State>,
    pub queue: Arc<Queue>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    pub damage: Vec<Error>,
    pub creating: Mutex<()>,
    /// Released when the threads have ended.
    lock: Mutex<Option<Box<dyn Send + Sync>>>,
}

impl Running {
    /// Starts the threads of an engine that was opened.
    pub fn start(opened: Opened) -> Running {
        let (state, queue) = (opened.state, Arc::new(Queue::default()));
        let mut threads = Vec::new();
        match opened.wal {
            Some(wal) => {
                let committer = Committer::new(state.clone(), queue.clone(), wal);
                threads.push(start("commit", &state, move |_| committer.run()));
                threads.push(start("flush", &state, flush::run));
                threads.push(start("compact", &state, compact::run));
                let expire_queue = queue.clone();
                threads.push(start("expire", &state, move |state| expire::run(state, &expire_queue)));
            }
            None => queue.close(),
        }
        let (threads, lock) = (Mutex::new(threads), Mutex::new(Some(opened.lock)));
        Running { state, queue, threads, damage: opened.damage, creating: Mutex::default(), lock }
    }

    /// An error if nothing may be written.
    pub fn check_writable(&self) -> Result<()> {
        match (self.state.options.read_only, self.state.is_closing()) {
            (true, _) => Err(READ_ONLY),
            (false, true) => Err(CLOSED),
            (false, false) => self.state.poison.check(),
        }
    }

    /// Queues batches in this order. Each is refused or gets its ticket.
    pub fn submit_all(&self, batches: Vec<Batch>) -> Vec<Result<Ticket>> {
        let state = &self.state;
        if let Err(error) = self.check_writable() {
            return batches.iter().map(|_| Err(error.clone())).collect();
        }
        let prepare = |batch: Batch| batch.prepare(state.instance, &state.options, &state.hasher);
        self.queue.submit(state, batches.into_iter().map(prepare).collect())
    }

    /// Ends the threads: the commit thread first, when all that is queued is committed, since it may wait for a flush.
    pub fn stop_threads(&self) {
        self.queue.close();
        let mut threads = self.threads.lock();
        for thread in threads.drain(..) {
            // A panic was told when it happened; what is durable is durable.
            let _ = thread.join();
            self.state.closing.store(true, Ordering::Release);
            self.state.progress.end();
        }
        self.state.preparer.lock().take();
    }

    /// Lets another engine have the directory. Nothing here touches it from now on.
    pub fn unlock(&self) {
        self.state.closing.store(true, Ordering::Release);
        self.state.progress.end();
        // A caller may be merging: it gives up, and cleans up, before another engine can have the directory.
        let _no_merge = self.state.merging.lock();
        self.state.manifest.lock().close();
        self.lock.lock().take();
    }

    /// If nothing was committed since the flush, says in the manifest that no log file is needed, and removes them all.
    pub fn nothing_to_replay(&self) -> Result<()> {
        let view = self.state.view.load();
        if !self.state.options.read_only && view.active.is_empty() && view.sealed.is_empty() {
            let seen_ms = self.state.sure_now_ms();
            let committed = self.state.manifest.lock().commit(|live| {
                live.log_file = 0;
                live.seen_ms = live.seen_ms.max(seen_ms);
            });
            committed.map_err(|failure| self.state.failed(failure))?;
            for file in self.state.wal_files.lock().drain(..) {
                self.state.dir.remove(&wal::file_name(file.number))?;
            }
        }
        Ok(())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop_threads();
        self.unlock();
    }
}

/// Starts a thread. If it panics, which is a broken invariant, no more writes are acknowledged and nobody waits for it in vain.
fn start(
    name: &'static str,
    state: &Arc<State>,
    work: impl FnOnce(&State) + Send + 'static,
) -> JoinHandle<()> {
    let thread = std::thread::Builder::new().name(format!("strandline-{name}"));
    let state = state.clone();
    let guarded = move || {
        if catch_unwind(AssertUnwindSafe(|| work(&state))).is_err() {
            let error = Error::Poisoned { why: format!("the {name} thread panicked") };
            state.poison.set(&error);
            state.progress.flush_outcome(Some(error));
        }
    };
    thread.spawn(guarded).expect("a thread can be started while the engine opens")
}
