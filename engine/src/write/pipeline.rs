//! Who commits: the queue, and the committer's role.
//!
//! ```text
//!  commit ──> queue ──role is free──> the caller commits the group, its own batch in it
//!                   ──role is taken─> the caller waits
//!  submit ──> queue ──call──────────> the commit thread commits the group
//!  end of a commit ─────────────────> a thread that waits for the next group, or the commit
//!                                     thread
//! ```
//!
//! The role is one lock around everything that a commit changes. A caller that waits for its batch
//! takes the role if it is free: handing a batch to another thread and being woken by it costs more
//! than the commit. The commit thread serves batches that nobody waits for.
//!
//! Every group finds a thread:
//! * after a push, either its caller tries the role, or the commit thread is called;
//! * a caller that finds the role taken is served by the holder: whoever releases the role looks at
//!   the queue *after* that, and offers the role to a thread that waits for the group, or calls the
//!   commit thread;
//! * a thread that is offered the role and finds it taken again is served by the new holder.
//!
//! A holder commits one group, then hands over. So no caller works for others without end.
//!
//! This file does not know how a group is committed.

use std::ops::DerefMut;
use std::sync::Arc;
use std::task::Waker;

use crate::entry::Receipt;
use crate::error::Result;
use crate::locks::Mutex;
use crate::notify::wake::wake;
use crate::write::queue::{Filling, Queue, Seal, Submission};
use crate::write::ticket::{Fill, Ticket};

/// Commits groups.
pub trait Commit {
    /// Commits a group and resolves its tickets. Returns wakers that the caller calls when it is
    /// not the committer any more. Does not panic.
    fn commit(&mut self, group: &Filling) -> Vec<Waker>;
}

/// The queue, and the role of the thread that commits.
pub struct Pipeline<C> {
    queue: Queue,
    /// `None`: nothing is committed any more.
    role: Mutex<Option<C>>,
    /// The size of the group that fills up, above which a push waits.
    limit: usize,
}

impl<C: Commit> Pipeline<C> {
    /// A pipeline. Without a committer it takes no batches.
    pub fn new(committer: Option<C>, limit: usize) -> Pipeline<C> {
        let pipeline = Pipeline { queue: Queue::default(), role: Mutex::new(committer), limit };
        if pipeline.role.lock().is_none() {
            pipeline.close();
        }
        pipeline
    }

    /// Queues batches in this order for the commit thread; a batch that was refused keeps its
    /// error. Waits only while the group that fills up is above its limit.
    pub fn submit(
        &self,
        batches: impl IntoIterator<Item = Result<Submission>>,
    ) -> Vec<Result<Ticket>> {
        self.queue.push_all(batches, Some(self.limit))
    }

    /// The same without a limit, so that it does not wait.
    pub fn submit_at_once(
        &self,
        batches: impl IntoIterator<Item = Result<Submission>>,
    ) -> Vec<Result<Ticket>> {
        self.queue.push_all(batches, None)
    }

    /// The same for one batch.
    pub fn submit_one(&self, batch: Submission) -> Result<Ticket> {
        self.queue.push(batch, self.limit, true)
    }

    /// Whether the group that fills up is not above its limit.
    pub fn has_room(&self) -> bool {
        self.queue.has_room(self.limit)
    }

    /// Waits until it is not.
    pub fn wait_for_room(&self) {
        self.queue.wait_for_room(self.limit);
    }

    /// Commits a batch, on this thread if the role is free.
    pub fn commit(&self, batch: Submission) -> Result<Receipt> {
        let ticket = self.queue.push(batch, self.limit, false)?;
        ticket.wait_or_lead(|fill| self.lead(fill))
    }

    /// Asks the commit thread for a seal after everything submitted so far. The ticket resolves
    /// when it is done.
    pub fn seal(&self, seal: Seal) -> Result<Ticket> {
        self.queue.seal(seal)
    }

    /// Asks for a group without records after the last one. Nobody waits for it.
    pub fn vouch(&self) {
        self.queue.vouch();
    }

    /// Takes no more batches: the commit thread ends when the queued ones are committed.
    pub fn close(&self) {
        self.queue.close();
    }

    /// Commits the caller's group, if no thread has the role. If the group was committed meanwhile,
    /// the one that fills up now is left to its own callers.
    fn lead(&self, own: &Arc<Fill>) {
        if let Some(role) = self.role.try_lock() {
            self.commit_with(role, Some(own));
        }
    }

    /// The commit thread: commits the groups that it is called for until the queue is closed and
    /// empty.
    pub fn run(&self) {
        while self.queue.wait_for_call() {
            self.commit_with(self.role.lock(), None);
        }
    }

    /// Commits the group that fills up, with `only` if it is that one, and hands over.
    fn commit_with(&self, mut role: impl DerefMut<Target = Option<C>>, only: Option<&Arc<Fill>>) {
        let mut committed = None;
        if let (Some(committer), Some(group)) = (role.as_mut(), self.queue.take(only)) {
            committed = Some((committer.commit(&group), group));
        }
        // In this order: a batch that comes before the release finds the role taken.
        drop(role);
        self.queue.hand_over();
        if let Some((wakers, group)) = committed {
            wakers.into_iter().for_each(wake);
            self.queue.give_back(group);
        }
    }

    /// Waits for the last caller that commits, and drops the committer: nobody commits any more.
    /// Called after the close, when the commit thread has ended.
    pub fn end(&self) {
        self.role.lock().take();
    }
}

#[cfg(all(test, loom))]
mod modelled {
    use loom::thread::JoinHandle;

    use super::*;

    /// Commits nothing, and resolves each group. Counts batches and confirmations.
    #[derive(Default)]
    struct BatchCounter {
        batches: usize,
        vouched: usize,
    }

    impl Commit for BatchCounter {
        fn commit(&mut self, group: &Filling) -> Vec<Waker> {
            let receipt = || Ok(Receipt { time_ms: 1, ..Receipt::default() });
            self.batches += group.batches.len();
            self.vouched += usize::from(group.vouch);
            group.fill.resolve(group.batches.iter().map(|_| receipt()))
        }
    }

    type Modelled = Arc<Pipeline<BatchCounter>>;

    fn pipeline(limit: usize) -> Modelled {
        Arc::new(Pipeline::new(Some(BatchCounter::default()), limit))
    }

    /// What was committed, batches and confirmations. Nothing is committed any more.
    fn counted(pipeline: &Modelled) -> (usize, usize) {
        let counter = pipeline.role.lock().take().expect("nobody has ended it");
        (counter.batches, counter.vouched)
    }

    /// The commit thread.
    fn commit_thread(pipeline: &Modelled) -> JoinHandle<()> {
        let pipeline = pipeline.clone();
        loom::thread::spawn(move || pipeline.run())
    }

    /// Three threads have too many orders to try them all: those with up to three preemptions.
    fn three_threads(model: fn()) {
        let mut builder = loom::model::Builder::new();
        builder.preemption_bound = Some(3);
        builder.check(model);
    }

    fn commit(pipeline: &Modelled) -> Result<Receipt> {
        pipeline.commit(Submission::nothing())
    }

    fn submit(pipeline: &Modelled, count: usize) -> Vec<Ticket> {
        let tickets = pipeline.submit((0..count).map(|_| Ok(Submission::nothing())));
        tickets.into_iter().flatten().collect()
    }

    /// Two callers beside the commit thread, with this limit of the group.
    fn two_callers(limit: usize) {
        let pipeline = pipeline(limit);
        let thread = commit_thread(&pipeline);
        let other = loom::thread::spawn({
            let pipeline = pipeline.clone();
            move || commit(&pipeline).is_ok()
        });
        assert!(submit(&pipeline, 0).is_empty());
        assert!(commit(&pipeline).is_ok());
        assert!(other.join().expect("no panic"));
        pipeline.close();
        thread.join().expect("no panic");
        assert_eq!(counted(&pipeline), (2, 0));
    }

    #[test]
    fn callers_that_wait_are_all_answered_whoever_leads() {
        three_threads(|| two_callers(1 << 20));
    }

    #[test]
    fn a_batch_that_nobody_waits_for_is_committed_beside_a_caller_that_leads() {
        three_threads(|| {
            let pipeline = pipeline(1 << 20);
            let thread = commit_thread(&pipeline);
            let leader = loom::thread::spawn({
                let pipeline = pipeline.clone();
                move || commit(&pipeline).is_ok()
            });
            for ticket in submit(&pipeline, 1) {
                assert!(ticket.wait().is_ok());
            }
            assert!(leader.join().expect("no panic"));
            pipeline.close();
            thread.join().expect("no panic");
        });
    }

    #[test]
    fn dropped_tickets_leave_no_batch_behind() {
        loom::model(|| {
            let pipeline = pipeline(1 << 20);
            let leader = loom::thread::spawn({
                let pipeline = pipeline.clone();
                move || commit(&pipeline).is_ok()
            });
            drop(submit(&pipeline, 1));
            pipeline.close();
            // The commit thread may start last.
            let taken = leader.join().expect("no panic");
            commit_thread(&pipeline).join().expect("no panic");
            assert_eq!(counted(&pipeline), (1 + usize::from(taken), 0));
        });
    }

    #[test]
    fn a_caller_beside_a_close_is_refused_or_answered() {
        three_threads(|| {
            let pipeline = pipeline(1 << 20);
            let thread = commit_thread(&pipeline);
            let caller = loom::thread::spawn({
                let pipeline = pipeline.clone();
                move || drop(commit(&pipeline))
            });
            pipeline.close();
            caller.join().expect("no panic");
            thread.join().expect("no panic");
            assert!(pipeline.queue.take(None).is_none(), "no batch is left");
        });
    }

    #[test]
    fn a_caller_that_waits_for_room_goes_on_when_the_group_is_taken() {
        loom::model(|| {
            let pipeline = pipeline(0);
            let thread = commit_thread(&pipeline);
            let tickets = submit(&pipeline, 2);
            assert_eq!(tickets.len(), 2);
            tickets.into_iter().for_each(|ticket| assert!(ticket.wait().is_ok()));
            pipeline.close();
            thread.join().expect("no panic");
        });
    }

    #[test]
    fn callers_that_wait_for_room_and_then_for_their_batch_are_answered() {
        three_threads(|| two_callers(0));
    }

    #[test]
    fn a_close_releases_a_caller_that_waits_for_room() {
        loom::model(|| {
            let pipeline = pipeline(0);
            let submitter = loom::thread::spawn({
                let pipeline = pipeline.clone();
                move || submit(&pipeline, 2).len()
            });
            pipeline.close();
            assert!(submitter.join().expect("no panic") < 2);
        });
    }

    #[test]
    fn a_confirmation_is_written_beside_a_seal_and_a_close() {
        three_threads(|| {
            let pipeline = pipeline(1 << 20);
            let thread = commit_thread(&pipeline);
            let asker = loom::thread::spawn({
                let pipeline = pipeline.clone();
                move || pipeline.vouch()
            });
            assert!(pipeline.seal(Seal::Log).expect("is open").wait().is_ok());
            asker.join().expect("no panic");
            pipeline.close();
            thread.join().expect("no panic");
            assert_eq!(counted(&pipeline), (1, 1));
        });
    }
}
