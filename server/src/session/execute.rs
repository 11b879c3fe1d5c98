//! Runs the requests that have arrived. Consecutive writes, from one read or from the rest of one,
//! are collected and submitted to the engine together. Any other command first waits for them, so
//! that replies are in order and a client reads its own writes.

use std::collections::HashMap;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use strandline::{Error, Submission};
use tokio::task::consume_budget;
use tokio::time::Instant;
use tracing::{error, warn};

use super::Session;
use super::pace::Pace;
use super::running::Running;
use super::slow::Slices;
use crate::commands::{
    After, Again, Flow, Prepared, Run, STEPS, Write, WriteReply, admit, context, is_small, named,
};
use crate::messaging::{Basis, Decision};
use crate::notices::NoticeKind;
use crate::protocol::{ProtocolError, Request};
use crate::refusal::{POISONED, Refusal};
use crate::shared::{Shared, StopReason};

/// The most commands in one round, so that a connection writes and pushes even if its client never
/// stops sending.
const ROUND_COMMANDS: usize = 4096;

/// The bytes of collected writes in one submission: enough to fill a group, and short enough to
/// wait for.
const SUBMISSION_BYTES: usize = 4 * 1024 * 1024;

/// Writes that are to be submitted together.
#[derive(Default)]
struct Collected {
    submissions: Vec<Result<Submission, Error>>,
    replies: Vec<(Running, WriteReply, Option<Again>, Option<After>)>,
    /// The versions that they are based on, by conversation or user.
    bases: HashMap<Bytes, u64>,
    bytes: usize,
}

impl Collected {
    /// Whether a collected write is based on another version of the same conversation or user. It
    /// must then be committed first: otherwise this write could be committed and the earlier one
    /// refused.
    fn must_go_first(&self, basis: &Basis) -> bool {
        self.bases.get(&basis.name).is_some_and(|version| *version != basis.version)
    }
}

impl Session {
    /// Runs complete requests until there are no more, a command blocks, the output is full, or the
    /// round is over.
    pub(super) async fn execute(&mut self) -> bool {
        let mut collected = Collected::default();
        let mut count = 0;
        (self.out_of_requests, self.paced_until) = (false, None);
        while count < ROUND_COMMANDS && !self.is_answering() && !self.closing && !self.is_full() {
            match self.next_request() {
                Ok(None) => {
                    self.out_of_requests = true;
                    break;
                }
                Ok(Some(request)) => {
                    if !self.may_make(|| is_small(&request)) || !self.may_take_turn() {
                        self.pending = Some(request);
                        break;
                    }
                    if count == 0 {
                        self.tick();
                    }
                    count += 1;
                    self.one(request, &mut collected).await;
                    self.note_memory();
                    if self.logins > 0 {
                        // It may have taken seconds: the round ends, so that deadlines and requests
                        // to end are seen before the next login.
                        break;
                    }
                }
                Err(problem) => {
                    self.settle(&mut collected).await;
                    self.shared.metrics.protocol_errors.one();
                    self.shared.note(NoticeKind::Protocol, &self.connection.client, problem);
                    self.refuse(&Refusal::usage(format!("Protocol error: {problem}")));
                    self.closing = true;
                }
            }
        }
        self.settle(&mut collected).await;
        self.shared.metrics.commands.add(count as u64);
        if count > 0 {
            self.last_command = Instant::now();
            self.input_pace = Pace::new(self.last_command);
        }
        count > 0
    }

    /// Whether the limits on commands per second allow one more. Otherwise it waits until they do.
    fn may_take_turn(&mut self) -> bool {
        let turn = self.connection.take_turn(|| self.shared.monotonic());
        self.paced_until = turn.err().map(|wait| Instant::now() + wait);
        self.paced_until.is_none()
    }

    /// The command that waited for memory, or for its turn, or the next one from the input.
    fn next_request(&mut self) -> Result<Option<Request>, ProtocolError> {
        match self.pending.take() {
            Some(request) => Ok(Some(request)),
            None => self.decoder.next(&self.limits().bounds(self.connection.is_logged_in())),
        }
    }

    async fn one(&mut self, request: Request, collected: &mut Collected) {
        let arguments: &[Bytes] = &request[1..];
        if self.decoder.was_inline() && is_foreign(&request) {
            self.settle(collected).await;
            return self.turn_away();
        }
        self.connection.look_at_rights(&self.shared, false);
        let command = match admit(&request, &self.connection) {
            Ok(command) => command,
            Err(refusal) => {
                self.settle(collected).await;
                if let Some(command) = named(&request) {
                    self.shared.calls.of(command.position).rejected.one();
                }
                return self.refuse(&refusal);
            }
        };
        self.begin(command, &request);
        let mut began = self.measuring.now;
        let result = match command.run {
            Run::Write(prepare) => {
                let context = context(&self.shared, &mut self.connection);
                let mut is_alone = false;
                let write = match prepare(&context, arguments) {
                    Ok(Prepared::Decided(write)) => Ok(write),
                    Ok(Prepared::Elsewhere(decide)) => {
                        // It depends on the writes before it, and those after it may on it.
                        is_alone = true;
                        self.settle(collected).await;
                        self.shared.pool.run(decide).await.flatten()
                    }
                    Err(refusal) => Err(refusal),
                };
                match write {
                    Ok(write) => {
                        if let Some(key) = request.get(command.keys.first) {
                            self.shared.busiest.write(key);
                        }
                        let bytes = request.iter().map(Bytes::len).sum();
                        let running = Running::new(command, began, request).lightened(bytes);
                        self.collect(write, running, bytes, collected).await;
                        if is_alone {
                            self.settle(collected).await;
                        }
                        return;
                    }
                    Err(refusal) => Err(refusal),
                }
            }
            Run::Now(run) => {
                self.settle(collected).await;
                began = self.measuring.now;
                // Reads do not wait by themselves: a long pipeline of reads yields to others now
                // and then.
                consume_budget().await;
                run(&mut context(&self.shared, &mut self.connection), arguments)
            }
        };
        self.settle(collected).await;
        self.follow_up(result).await;
        let running = Running::new(command, began, request);
        if self.is_answering() {
            self.keep_running(running);
        } else {
            self.tick();
            self.end(&running);
        }
    }

    /// Does what a command wants that was run.
    async fn follow_up(&mut self, result: Result<Flow, Refusal>) {
        match result {
            Ok(Flow::Done) => {}
            Ok(Flow::Close) => self.closing = true,
            Ok(Flow::Wait(waiting)) => {
                self.connection.client.activity.is_blocked.store(true, Ordering::Relaxed);
                self.blocked = Some(waiting);
            }
            Ok(Flow::LogIn(login)) => {
                self.logins += 1;
                self.log_in(*login).await;
            }
            Ok(Flow::Slow(work)) => {
                let outcome = self.shared.pool.run_slow(work).await;
                self.answer(outcome);
            }
            Ok(Flow::Long(work)) => {
                let outcome = self.shared.pool.run_long(work).await;
                self.answer(outcome);
            }
            Ok(Flow::Sliced(work)) => self.slices = Some(Slices::new(work)),
            Err(refusal) => self.refuse(&refusal),
        }
    }

    /// Adds a write to the collected ones, or replies if it was committed before.
    async fn collect(
        &mut self,
        write: Write,
        running: Running,
        bytes: usize,
        collected: &mut Collected,
    ) {
        let Write { decision, reply, again, after } = write;
        let (batch, basis) = match decision {
            Decision::Known(answer) => {
                self.settle(collected).await;
                answer(&mut self.connection.out);
                self.tick();
                return self.end(&running);
            }
            Decision::Commit(batch, basis) => (batch, basis),
        };
        if let Some(basis) = basis {
            if collected.must_go_first(&basis) {
                self.settle(collected).await;
            }
            collected.bases.insert(basis.name, basis.version);
        }
        let submission = if batch.operations() <= STEPS {
            self.shared.engine.prepare(*batch)
        } else {
            let engine = self.shared.engine.clone();
            match self.shared.pool.run(move || engine.prepare(*batch)).await {
                Ok(submission) => submission,
                Err(refusal) => {
                    self.settle(collected).await;
                    self.refuse(&refusal);
                    self.tick();
                    return self.end(&running);
                }
            }
        };
        collected.submissions.push(submission);
        collected.replies.push((running, reply, again, after));
        collected.bytes += bytes;
        self.writing_bytes = collected.bytes;
        if collected.bytes >= SUBMISSION_BYTES {
            self.settle(collected).await;
        }
    }

    /// Commits the collected writes and writes the replies.
    async fn settle(&mut self, collected: &mut Collected) {
        if collected.submissions.is_empty() {
            return;
        }
        let Collected { submissions, replies, .. } = std::mem::take(collected);
        let Shared { engine, pool, .. } = &*self.shared;
        let outcomes = self.submitter.commit(submissions, engine, pool).await;
        self.writing_bytes = 0;
        self.tick();
        let outcomes = match outcomes {
            Ok(outcomes) => outcomes,
            Err(refusal) => {
                return replies.iter().for_each(|(running, ..)| {
                    self.refuse(&refusal);
                    self.end(running);
                });
            }
        };
        for (outcome, (running, reply, again, after)) in outcomes.into_iter().zip(replies) {
            match (outcome, again) {
                (Ok(receipt), _) => reply(&receipt, &mut self.connection.out),
                (Err(error), Some(again)) if Basis::has_moved(&error) => {
                    match self.shared.pool.run_slow(again).await.flatten() {
                        Ok(answer) => answer(&mut self.connection.out),
                        Err(refusal) => self.refuse(&refusal),
                    }
                    self.tick();
                }
                (Err(error), _) => self.refuse(&Refusal::from(error)),
            }
            self.end(&running);
            if let Some(after) = after {
                // The command is done; if this panicked, it was logged.
                let _ = self.shared.pool.run_slow(after).await;
            }
        }
    }

    /// Ends a connection that speaks HTTP: a browser may have been made to send a body that looks
    /// like commands after its headers. Only the first one is logged, since a page can open very
    /// many.
    fn turn_away(&mut self) {
        self.shared.metrics.protocol_errors.one();
        if !self.shared.was_foreign.swap(true, Ordering::Relaxed) {
            let address = self.connection.client.address;
            warn!(
                %address,
                "a client speaks HTTP: its connection is closed; later ones are not logged"
            );
        }
        self.closing = true;
    }

    /// Writes an error reply. If the engine is poisoned, also stops the server, since only a
    /// restart can determine what is durable.
    pub(super) fn refuse(&mut self, refusal: &Refusal) {
        match refusal.word {
            "LIMIT" => self.shared.note(NoticeKind::Limit, &self.connection.client, refusal),
            "WRONGPASS" => {
                self.shared.note(NoticeKind::FailedLogin, &self.connection.client, refusal);
            }
            _ => {}
        }
        self.reply_error(refusal);
        if refusal.word == POISONED {
            error!(%refusal, "the engine refuses all writes: stopping");
            self.shared.stop(StopReason::Poisoned);
        }
    }

    /// Writes an error reply, and logs nothing.
    pub(super) fn reply_error(&mut self, refusal: &Refusal) {
        self.measuring.has_failed = true;
        self.shared.metrics.errors.one();
        self.shared.metrics.error_words.count(refusal.word);
        self.connection.out.error(refusal);
    }
}

/// Whether an inline request is a line of HTTP. An array may have any words: no browser sends one
/// as its first line.
fn is_foreign(request: &[Bytes]) -> bool {
    let (first, last) = (&request[0], &request[request.len() - 1]);
    first.eq_ignore_ascii_case(b"POST")
        || first.eq_ignore_ascii_case(b"HOST:")
        || (request.len() == 3 && last.len() == 8 && last.starts_with(b"HTTP/"))
}
