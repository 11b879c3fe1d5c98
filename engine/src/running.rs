//! A running engine: its threads and its lock, from start to stop. Handles of it are `Engine`,
//! `Store` and `Snapshot`.
//!
//! The engine stops in this order:
//!
//! 1. the queue takes no more batches; the commit thread ends when all queued batches are
//!    committed and no caller commits any more;
//! 2. watchers are closed, since nothing advances any more;
//! 3. the flush, compaction and expiry threads end, then the prepare thread; if the engine is
//!    closed after a flush and nothing was committed since, the log is removed;
//! 4. a caller that merges gives up, and a caller that drops data finishes; then the manifest is
//!    closed;
//! 5. the wake thread wakes all queued wakers, releases the directory's lock and ends.
//!
//! Short wakers (`Options::wakers`) of the last group may be called after this, by the caller that
//! committed it.
//!
//! Nothing touches the directory after its lock is released. A thread that stops the engine waits
//! for all of this, with two exceptions. A waker may stop the engine, but the wake thread cannot
//! wait for its own end, so step 5 is done after that waker has returned. If another thread of the
//! engine drops the last handle, it leaves the stop to the wake thread.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::task::{Wake, Waker};
use std::thread::{JoinHandle, ThreadId};

use parking_lot::Mutex;

use crate::entry::Receipt;
use crate::error::{Error, IoOperation, Result};
use crate::format::manifest::Relaxed;
use crate::recover::open::Opened;
use crate::recover::recovery::Recovery;
use crate::state::State;
use crate::upkeep::{compact, expire, flush};
use crate::write::active::{Active, CommitPipeline};
use crate::write::batch::Batch;
use crate::write::change::commit;
use crate::write::commit::Committer;
use crate::write::pipeline::Pipeline;
use crate::write::queue::{Submission, prepare, prepare_and_look_up};
use crate::write::ticket::Ticket;

const CLOSED: Error = Error::Closed { what: "the engine is closed: nothing can be written" };

const FORKED: Error = Error::Closed {
    what: "the process that opened the engine was forked, and the engine runs in that process: a \
           child opens another directory, or engines are opened after the fork",
};

/// A running engine. It stops when its last handle is dropped.
pub struct Running {
    pub state: Arc<State>,
    pub pipeline: Arc<CommitPipeline>,
    threads: Arc<Threads>,
    pub damage: Vec<Error>,
    pub recovery: Recovery,
    pub creating: Mutex<()>,
    /// The process that opened it. The threads of an engine are not in a child of that process.
    process: u32,
}

impl Running {
    /// Starts the threads of an engine that was opened. If a thread cannot be started, those
    /// started before it are stopped again.
    pub fn start(opened: Opened) -> Result<Running> {
        let state = opened.state;
        let is_writable = opened.wal.is_some();
        let active = |wal| Active::new(state.clone(), wal, compact::is_behind);
        let committer = opened.wal.map(active).map(Committer::new);
        let pipeline = Arc::new(Pipeline::new(committer, state.options.group_bytes()));
        let threads = Arc::new(Threads::start(&state, &pipeline, opened.lock)?);
        let (damage, recovery) = (opened.damage, opened.recovery);
        let running = Running {
            state,
            pipeline,
            threads,
            damage,
            recovery,
            creating: Mutex::default(),
            process: std::process::id(),
        };
        if is_writable {
            let (pipeline, threads) = (&running.pipeline, &running.threads);
            let committing = pipeline.clone();
            threads.add("commit", move |_| committing.run())?;
            threads.add("flush", flush::run)?;
            threads.add("compact", compact::run)?;
            let sealing = pipeline.clone();
            threads.add("expire", move |state| expire::run(state, &sealing))?;
        }
        Ok(running)
    }

    /// An error if nothing may be written.
    pub fn check_writable(&self) -> Result<()> {
        if self.is_forked() {
            return Err(FORKED);
        }
        match (self.state.options.read_only, self.state.is_closing()) {
            (true, _) => Err(Error::ReadOnly),
            (false, true) => Err(CLOSED),
            (false, false) => self.state.poison.check(),
        }
    }

    fn is_forked(&self) -> bool {
        self.process != std::process::id()
    }

    /// Prepares a batch, and looks up what is in memory.
    pub fn prepare(&self, batch: Batch) -> Result<Submission> {
        self.check_writable()?;
        let mut submission = prepare(&self.state, batch)?;
        submission.look_up(&self.state, false)?;
        Ok(submission)
    }

    /// Queues a batch.
    pub fn submit(&self, batch: Batch) -> Result<Ticket> {
        self.check_writable()?;
        self.pipeline.submit_one(prepare_and_look_up(&self.state, batch)?)
    }

    /// Queues batches in this order. Each is refused or gets its ticket.
    pub fn submit_all(&self, batches: Vec<Batch>) -> Vec<Result<Ticket>> {
        if let Err(error) = self.check_writable() {
            return batches.iter().map(|_| Err(error.clone())).collect();
        }
        // All are looked up before the first is queued. A removal may wait for the commit of one
        // before it.
        let (mut tickets, mut prepared) = (Vec::new(), Vec::with_capacity(batches.len()));
        for batch in batches {
            if batch.has_removals() {
                tickets.extend(self.pipeline.submit(std::mem::take(&mut prepared)));
            }
            prepared.push(prepare_and_look_up(&self.state, batch));
        }
        tickets.extend(self.pipeline.submit(prepared));
        tickets
    }

    /// The same for batches that are prepared, without waiting for room.
    pub fn submit_prepared(&self, submissions: Vec<Result<Submission>>) -> Vec<Result<Ticket>> {
        if let Err(error) = self.check_writable() {
            return submissions.iter().map(|_| Err(error.clone())).collect();
        }
        let own = |submission: Submission| submission.of(self.state.instance);
        let submissions = submissions.into_iter().map(|submission| submission.and_then(own));
        self.pipeline.submit_at_once(submissions)
    }

    /// Commits a batch and waits for it.
    pub fn commit(&self, batch: Batch) -> Result<Receipt> {
        self.check_writable()?;
        commit(&self.state, &self.pipeline, batch)
    }

    /// Stops the engine. If everything that was in memory is in segments now, the next open has no
    /// log to read.
    pub fn close(&self, flushed: Result<()>) -> Result<()> {
        if self.is_forked() {
            return Err(FORKED);
        }
        let stopped = self.threads.stop(flushed.is_ok());
        flushed.and(stopped)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.is_forked() {
            // Files that this state would remove at its end belong to the other process.
            return std::mem::forget(self.state.clone());
        }
        if self.threads.is_worker_here() {
            self.state.wake.hand_over(vec![Waker::from(self.threads.clone())]);
        } else {
            self.threads.wake_by_ref();
        }
    }
}

/// The threads of an engine.
struct Threads {
    state: Arc<State>,
    pipeline: Arc<CommitPipeline>,
    workers: Mutex<Workers>,
    /// The thread that calls wakers, and releases the lock at its end.
    waking: Mutex<Option<JoinHandle<()>>>,
    waking_id: ThreadId,
}

/// All threads except the wake thread.
#[derive(Default)]
struct Workers {
    /// The commit thread is the first.
    threads: Vec<JoinHandle<()>>,
    stopped: bool,
}

/// As a waker, it stops the engine: a worker thread that drops the last handle hands it to the wake
/// thread.
impl Wake for Threads {
    fn wake(self: Arc<Threads>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Threads>) {
        // Without a flush, there is nothing that could fail.
        let _stopped = self.stop(false);
    }
}

impl Threads {
    fn start(
        state: &Arc<State>,
        pipeline: &Arc<CommitPipeline>,
        lock: Box<dyn Send + Sync>,
    ) -> Result<Threads> {
        let (state, pipeline) = (state.clone(), pipeline.clone());
        let waking = start("wake", &state, |state| state.wake.run(), Some(lock))?;
        let waking_id = waking.thread().id();
        Ok(Threads {
            state,
            pipeline,
            workers: Mutex::default(),
            waking: Mutex::new(Some(waking)),
            waking_id,
        })
    }

    fn add(&self, name: &'static str, work: impl FnOnce(&State) + Send + 'static) -> Result<()> {
        let thread = start(name, &self.state, work, None)?;
        self.workers.lock().threads.push(thread);
        Ok(())
    }

    fn is_worker_here(&self) -> bool {
        let here = std::thread::current().id();
        self.workers.lock().threads.iter().any(|thread| thread.thread().id() == here)
    }

    /// Steps 1 to 5 of the heading. Several threads may stop an engine: each waits for the end.
    fn stop(&self, flushed: bool) -> Result<()> {
        let stopped = self.stop_workers(flushed);
        self.state.wake.close();
        if std::thread::current().id() != self.waking_id {
            // Held during the join, so that other threads that stop the engine wait for it too.
            let mut waking = self.waking.lock();
            waking.take().into_iter().for_each(join);
        }
        stopped
    }

    /// Steps 1 to 4. None of them waits for a waker.
    fn stop_workers(&self, flushed: bool) -> Result<()> {
        let mut workers = self.workers.lock();
        if std::mem::replace(&mut workers.stopped, true) {
            return Ok(());
        }
        let state = &self.state;
        self.pipeline.close();
        let mut threads = workers.threads.drain(..);
        threads.next().into_iter().for_each(join);
        self.pipeline.end();
        state.wake.hand_over(state.watch.close());
        state.closing.set();
        state.progress.end();
        threads.for_each(join);
        state.preparer.lock().take();
        let removed = if flushed { self.nothing_to_replay() } else { Ok(()) };
        // A caller may be merging: it gives up and cleans up before another engine can open the
        // directory. A caller that drops expired data or a store finishes before that.
        let _no_merge = state.merging.turn.lock();
        let _no_expiry = state.turns.expiring.lock();
        state.manifest.lock().close();
        removed
    }

    /// If nothing was committed since the flush, records in the manifest that no log file is needed
    /// and no store can be set back, and removes all log files. The checkpoint is the end of the
    /// log: the next log continues there.
    fn nothing_to_replay(&self) -> Result<()> {
        let view = self.state.view.load();
        if !self.state.options.read_only && view.active.is_empty() && view.sealed.is_empty() {
            let seen_ms = self.state.sure_now_ms();
            let committed = self.state.manifest.lock().commit(|live| {
                live.log_file = 0;
                live.relaxed = Relaxed::default();
                live.seen_ms = live.seen_ms.max(seen_ms);
            });
            committed.map_err(|failure| self.state.failed(failure))?;
            self.state.log_files.remove_all()?;
        }
        Ok(())
    }
}

fn join(thread: JoinHandle<()>) {
    // A panic was reported when it happened; data that is durable stays durable.
    let _ = thread.join();
}

/// Starts a thread. If it panics, which is a broken invariant, no more writes are acknowledged, and
/// nobody waits for it in vain. A lock that is passed to it is released at its end.
fn start(
    name: &'static str,
    state: &Arc<State>,
    work: impl FnOnce(&State) + Send + 'static,
    lock: Option<Box<dyn Send + Sync>>,
) -> Result<JoinHandle<()>> {
    let thread = std::thread::Builder::new().name(format!("strandline-{name}"));
    let path = state.dir.path_of("");
    let state = state.clone();
    let guarded = move || {
        if catch_unwind(AssertUnwindSafe(|| work(&state))).is_err() {
            let error = Error::Poisoned { why: format!("the {name} thread panicked") };
            state.poison.set(&error);
            state.progress.flush_outcome(Some(error));
            // The other threads continue, so the lock is not released: if this thread has it, the
            // directory stays locked until the process ends.
            std::mem::forget(lock);
            return;
        }
        drop(state);
        drop(lock);
    };
    thread.spawn(guarded).map_err(|error| Error::io(IoOperation::StartThread, &path, error))
}
