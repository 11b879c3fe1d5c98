//! Submits the writes of all connections of an event loop to the engine.
//!
//! ```text
//!  sessions that are ready ──batches──> submitter ──one submission──> engine
//!          ▲                                                            │ one wake-up
//!          └────────── receipts ────────── answers <────────────────────┘
//! ```
//!
//! The submitter is a task of the loop. The first session that asks wakes it, so it runs after all
//! sessions that were ready then, and submits for all of them at once. When a group is committed,
//! one waker is called for the whole submission; the sessions are woken on their own thread.
//!
//! Nothing here waits for the disk or for room in the engine's queue, except on a thread of the
//! pool. Batches that are not committed yet count as input of their connections.

use std::sync::Arc;

use parking_lot::Mutex;
use strandline::{Engine, Error, Receipt, Submission, Ticket};
use tokio::sync::{Notify, oneshot};

use crate::pool::Pool;
use crate::refusal::Refusal;

const UNKNOWN: &str = "the server does not submit writes any more, since it stops or has \
                       failed: it is not known whether this write was committed";

type Outcomes = Vec<Result<Receipt, Error>>;

/// The path of the writes of one event loop.
pub struct Submitter {
    /// `None`: the task has ended.
    asked: Mutex<Option<Vec<SessionBatches>>>,
    arrived: Notify,
}

/// The batches of one session.
struct SessionBatches {
    submissions: Vec<Result<Submission, Error>>,
    answer: oneshot::Sender<Outcomes>,
}

/// Refuses further batches when the task ends, also if it panics. Sessions that wait notice that
/// their batches are dropped.
struct Ending<'a>(&'a Submitter);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.asked.lock().take();
    }
}

impl Submitter {
    /// A submitter whose task is about to start.
    pub fn new() -> Submitter {
        Submitter { asked: Mutex::new(Some(Vec::new())), arrived: Notify::new() }
    }

    /// Commits batches in this order. A batch that was refused keeps its error.
    pub async fn commit(
        &self,
        submissions: Vec<Result<Submission, Error>>,
        engine: &Engine,
        pool: &Pool,
    ) -> Result<Outcomes, Refusal> {
        let are_cold = submissions.iter().flatten().any(Submission::is_cold);
        let submissions = if are_cold {
            let engine = engine.clone();
            pool.run(move || look_up(submissions, &engine)).await?
        } else {
            submissions
        };
        let (answer, answered) = oneshot::channel();
        match &mut *self.asked.lock() {
            Some(asked) => asked.push(SessionBatches { submissions, answer }),
            None => drop(answer),
        }
        self.arrived.notify_one();
        answered.await.map_err(|_| Refusal::usage(UNKNOWN))
    }

    /// The task of the loop: submits what sessions ask for.
    pub async fn run(self: Arc<Self>, engine: Engine, pool: Arc<Pool>) {
        let _ending = Ending(&self);
        loop {
            self.arrived.notified().await;
            if !engine.has_room() {
                let engine = engine.clone();
                // If it panicked, the queue takes the batches all the same.
                let _ = pool.run_slow(move || engine.wait_for_room()).await;
            }
            let asked = self.asked.lock().as_mut().map(std::mem::take).unwrap_or_default();
            if asked.is_empty() {
                continue;
            }
            let mut answers = Vec::with_capacity(asked.len());
            let mut submissions = Vec::with_capacity(asked.len());
            for SessionBatches { submissions: some, answer } in asked {
                answers.push((some.len(), answer));
                submissions.extend(some);
            }
            tokio::spawn(send(answers, engine.submit_prepared(submissions)));
        }
    }
}

/// Completes batches that are cold.
fn look_up(
    submissions: Vec<Result<Submission, Error>>,
    engine: &Engine,
) -> Vec<Result<Submission, Error>> {
    let warm = |mut submission: Submission| {
        if submission.is_cold() {
            engine.look_up(&mut submission)?;
        }
        Ok(submission)
    };
    submissions.into_iter().map(|submission| submission.and_then(warm)).collect()
}

/// Sends each session its outcomes as soon as they are known.
async fn send(
    answers: Vec<(usize, oneshot::Sender<Outcomes>)>,
    tickets: Vec<Result<Ticket, Error>>,
) {
    let mut tickets = tickets.into_iter();
    for (count, answer) in answers {
        let mut outcomes = Vec::with_capacity(count);
        for ticket in tickets.by_ref().take(count) {
            outcomes.push(match ticket {
                Ok(ticket) => ticket.await,
                Err(refused) => Err(refused),
            });
        }
        if outcomes.len() == count {
            // A session that has ended needs no answer.
            let _ = answer.send(outcomes);
        }
    }
}

#[cfg(test)]
mod tests {
    use strandline::{Batch, NewStore, Options};

    use super::*;

    #[tokio::test]
    async fn batches_are_committed_in_order_and_refused_when_the_task_has_ended() {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let options = Options::default().stores([NewStore::new("messages", None)]);
        let engine = Engine::open(folder.path(), options).expect("opens");
        let store = engine.store("messages").expect("is there");
        let pool = Arc::new(Pool::start(1).expect("it starts"));
        let submitter = Arc::new(Submitter::new());
        let task = tokio::spawn(Arc::clone(&submitter).run(engine.clone(), Arc::clone(&pool)));
        let append = |body: &[u8]| engine.prepare(Batch::new().append(&store, b"t", body));
        let batches = vec![append(b"x"), Err(Error::SequenceExhausted), append(b"y")];
        let outcomes = submitter.commit(batches, &engine, &pool).await.expect("the task runs");
        let sequences = |outcome: &Result<Receipt, Error>| {
            outcome.as_ref().map(|receipt| receipt.sequences[0]).ok()
        };
        assert_eq!(outcomes.iter().map(sequences).collect::<Vec<_>>(), [Some(1), None, Some(2)]);
        task.abort();
        assert!(task.await.is_err());
        let refused = submitter.commit(vec![append(b"z")], &engine, &pool).await;
        assert!(refused.is_err_and(|refusal| refusal.sentence.contains("not known")));
    }
}
