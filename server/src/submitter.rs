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
//! pool.

use std::sync::Arc;

use parking_lot::Mutex;
use strandline::{Engine, Error, Receipt, Submission, Ticket};
use tokio::sync::{Notify, oneshot};

use crate::pool::Pool;
use crate::refusal::Refusal;

type Outcomes = Vec<Result<Receipt, Error>>;

/// The path of the writes of one event loop.
#[derive(Default)]
pub struct Submitter {
    asked: Mutex<Vec<SessionBatches>>,
    arrived: Notify,
}

/// The batches of one session.
struct SessionBatches {
    submissions: Vec<Result<Submission, Error>>,
    answer: oneshot::Sender<Outcomes>,
}

impl Submitter {
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
        self.asked.lock().push(SessionBatches { submissions, answer });
        self.arrived.notify_one();
        let unknown = "the server is stopping: it is not known whether this write was committed";
        answered.await.map_err(|_| Refusal::usage(unknown))
    }

    /// The task of the loop: submits what sessions ask for.
    pub async fn run(self: Arc<Self>, engine: Engine, pool: Arc<Pool>) {
        loop {
            self.arrived.notified().await;
            let asked = std::mem::take(&mut *self.asked.lock());
            let mut answers = Vec::with_capacity(asked.len());
            let mut submissions = Vec::with_capacity(asked.len());
            for SessionBatches { submissions: some, answer } in asked {
                answers.push((some.len(), answer));
                submissions.extend(some);
            }
            let tickets = if engine.has_room() {
                engine.submit_prepared(submissions)
            } else {
                let engine = engine.clone();
                let waiting = pool.run(move || engine.submit_prepared(submissions));
                // After a panic the answers are dropped, which the sessions notice.
                waiting.await.unwrap_or_default()
            };
            tokio::spawn(send(answers, tickets));
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
