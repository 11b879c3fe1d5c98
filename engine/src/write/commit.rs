//! The write path: from a batch to a durable, visible entry (P1, P2, P3, P4).
//!
//! ```text
//!  callers ──push──> queue: the group that fills up ──take──> committer ──resolve──> tickets
//!
//!  1. make room: seal the memtable if it is full, or if its lifetimes began later
//!     than these; change to the next log file
//!  2. decide: give each append its sequence, encode one record      nothing visible or durable
//!     per batch
//!  3. write the group; sync it if one of its batches asked for it   durable
//!  4. apply it to the memtable, and publish it                      visible
//!  5. mark watches, resolve tickets, hand over their wakers         known to callers
//! ```
//!
//! While one group is written to the disk, the next one fills up: this is group commit, and there
//! is no timer. Callers do as much of the work as they can: they copy, checksum and hash when they
//! build and prepare a batch, and look up the end of a cold timeline when they submit it. A caller
//! that waits commits, or the commit thread (`pipeline`). One thread at a time gives sequences and
//! writes to the log and the memtable, so none of these needs a lock against another writer.
//!
//! A group that could not be written because the disk is full is refused as a whole: its sequences
//! are taken back, and at most empty slots remain. If it contains batches that only trim or remove,
//! the reserve is given back to them, or a flush that is under way is waited for, and the group is
//! committed again; batches that add data are refused until the reserve is in place. After any
//! other failure of a write or a sync, the state of the disk is unknown, and the engine is
//! poisoned.
//!
//! This file has the order of the steps; `decide` has step 2. The other steps change the engine
//! through [`Environment`], so that tests need no disk and no threads.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::task::Waker;

use crate::clock::SLACK_MS;
use crate::entry::Receipt;
use crate::error::{Error, Result};
use crate::ids::TimeMs;
use crate::memtable::Group;
use crate::metrics::COMMIT;
use crate::timeline::Times;
use crate::write::batch::Durability;
use crate::write::decide::{Decisions, Ground, Known};
use crate::write::pipeline::Commit;
use crate::write::queue::{Filling, Seal, Submission};

/// What a commit needs: `Active` in an engine.
pub trait Environment {
    /// What decisions need in addition to the active memtable.
    type Known: Known;

    /// The timestamp of a commit, and the time at which its lifetimes begin.
    fn moment(&self) -> (TimeMs, TimeMs);

    /// An error while only batches that free space are accepted.
    fn may_add(&self) -> Result<()>;

    /// Step 1, for lifetimes that begin at `start_ms`. True if it took long: it waited, or wrote to
    /// the disk.
    fn make_room(&mut self, group: &Filling, start_ms: TimeMs, may_add: bool) -> Result<bool>;

    /// Calls `commit` while no store can be dropped.
    fn with_stores<T>(&mut self, commit: impl FnOnce(&mut Self) -> T) -> T;

    /// What step 2 decides on, and where it writes records.
    fn ground(&mut self) -> Ground<'_, Self::Known>;

    /// Step 3. True if the group has a record. A group without one may still have to make earlier
    /// ones durable: a retry is answered that its append is durable.
    fn write(&mut self, and_sync: bool) -> Result<bool>;

    /// Step 4. `times`: those of the records, if there are any.
    fn apply(&mut self, group: &mut Group, times: Option<Times>);

    /// Step 5, without the tickets: the batches with a receipt are visible now.
    fn publish(&self, group: &Filling, outcomes: &[Result<Receipt>], woken: &mut Vec<Waker>);

    /// Whether wakers of tickets are so short that the thread that commits may call them.
    fn has_short_wakers(&self) -> bool;

    /// Passes wakers to the thread that calls them.
    fn hand_over(&self, wakers: Vec<Waker>);

    /// Makes space on a full disk for batches that only free space: gives the reserve back, or, if
    /// there is none, waits for the flush that is under way.
    fn make_space(&self);

    /// Seals what a caller asked for, unless everything is in segments.
    fn seal(&mut self, seal: Seal) -> Result<()>;

    /// Confirms by an empty group that the last one was durable.
    fn vouch(&mut self);

    /// Counts a refusal.
    fn refused(&self, error: &Error);

    /// Called after each group.
    fn finished(&mut self);

    /// A step panicked, which is a broken invariant: nothing is written any more. Returns the error
    /// for those who wait.
    fn panicked(&self) -> Error;
}

/// The most wakers that a thread calls after its commit: the next group may wait for this thread.
const MAX_OWN_WAKERS: usize = 64;

/// Commits one group after another.
pub struct Committer<E> {
    env: E,
    decisions: Decisions,
    /// The outcomes of the batches of a group; empty between groups.
    outcomes: Outcomes,
    /// The start of the lifetimes of the last group with a record.
    last_start_ms: TimeMs,
}

/// The outcome of each batch of a group, in their order.
type Outcomes = Vec<Result<Receipt>>;

impl<E: Environment> Commit for Committer<E> {
    fn commit(&mut self, group: &Filling) -> Vec<Waker> {
        let mut outcomes = std::mem::take(&mut self.outcomes);
        self.answer(group, &mut outcomes);
        let wakers = group.fill.resolve(outcomes.drain(..));
        self.outcomes = outcomes;
        if self.env.has_short_wakers() && wakers.len() <= MAX_OWN_WAKERS {
            return wakers;
        }
        self.env.hand_over(wakers);
        Vec::new()
    }
}

impl<E: Environment> Committer<E> {
    /// A committer whose first lifetimes begin now or later.
    pub fn new(env: E) -> Committer<E> {
        let (_, last_start_ms) = env.moment();
        let (decisions, outcomes) = (Decisions::default(), Outcomes::new());
        Committer { env, decisions, outcomes, last_start_ms }
    }

    /// Determines the outcomes. If a step panics, this and all later groups are refused, so that
    /// nobody waits for them in vain.
    fn answer(&mut self, group: &Filling, outcomes: &mut Outcomes) {
        if catch_unwind(AssertUnwindSafe(|| self.commit_and_seal(group, outcomes))).is_err() {
            refuse_all(group, &self.env.panicked(), outcomes);
        }
    }

    /// Commits a group, and then seals or vouches if a caller asked for it. A seal that failed is
    /// reported only to the callers that asked for it: the batches are committed.
    fn commit_and_seal(&mut self, group: &Filling, outcomes: &mut Outcomes) {
        if !group.batches.is_empty() {
            self.commit_group(group, outcomes);
        }
        // If the group has batches, the vouching is left out: the next group vouches for them, or
        // the expiry thread asks again.
        if group.vouch && group.batches.is_empty() {
            self.env.vouch();
        }
        if let Some(seal) = group.seal {
            let sealed = guarded(&mut self.env, |env| env.seal(seal)).flatten();
            if let Err(error) = sealed {
                let batches = group.batches.iter().zip(outcomes);
                let askers = batches.filter(|(submitted, _)| submitted.batch.is_nothing());
                askers.for_each(|(_, outcome)| *outcome = Err(error.clone()));
            }
        }
        let _poisoned = guarded(&mut self.env, E::finished);
    }

    /// Commits a group, and counts its refusals. If the disk is full and a batch only frees space,
    /// space is made and the group is committed again.
    fn commit_group(&mut self, group: &Filling, outcomes: &mut Outcomes) {
        self.commit_once(group, outcomes);
        let refused = |(submitted, outcome): (&Submission, &Result<Receipt>)| {
            submitted.batch.frees_only()
                && !submitted.batch.is_nothing()
                && matches!(outcome, Err(Error::DiskFull { .. }))
        };
        // A group that found the disk full was refused as a whole and changed nothing.
        if group.batches.iter().zip(&*outcomes).any(refused) {
            let _poisoned = guarded(&mut self.env, |env| env.make_space());
            self.commit_once(group, outcomes);
        }
        let errors = outcomes.iter().filter_map(|outcome| outcome.as_ref().err());
        let _poisoned = guarded(&mut self.env, |env| errors.for_each(|error| env.refused(error)));
    }

    /// Steps 1 to 5 of the heading, without the tickets.
    fn commit_once(&mut self, group: &Filling, outcomes: &mut Outcomes) {
        let batches = group.batches.len();
        let _commit = tracing::debug_span!(COMMIT, batches, bytes = group.bytes).entered();
        // Checked once, so that the stores that step 1 notes are those of the batches that are
        // recorded.
        let may_add = self.env.may_add();
        let times = match self.make_room(group, may_add.is_ok()) {
            Ok(times) => times,
            Err(error) => return refuse_all(group, &error, outcomes),
        };
        let Committer { env, decisions, last_start_ms, .. } = self;
        env.with_stores(|env| {
            decisions.on_group(group, times, &may_add, env.ground(), outcomes);
            let is_recorded = match env.write(is_sync_asked(group)) {
                Ok(is_recorded) => is_recorded,
                Err(error) => {
                    decisions.take_back();
                    return refuse_all(group, &error, outcomes);
                }
            };
            if is_recorded {
                *last_start_ms = times.start_ms;
            }
            env.apply(decisions.group(), is_recorded.then_some(times));
            decisions.settle();
            // The group is committed: a failure from here on changes no outcome.
            let mut woken = Vec::new();
            let _poisoned = guarded(env, |env| env.publish(group, outcomes, &mut woken));
            env.hand_over(woken);
        });
    }

    /// Step 1. Returns the times of the commit.
    fn make_room(&mut self, group: &Filling, may_add: bool) -> Result<Times> {
        let mut moment = self.env.moment();
        let room_ms = self.start_ms(moment.1);
        if self.env.make_room(group, room_ms, may_add)? {
            // A lifetime begins at the commit.
            moment = self.env.moment();
        }
        // The memtable accepts no start below the one that room was made for.
        Ok(Times::new(moment.0, self.start_ms(moment.1).max(room_ms), 0))
    }

    /// The start of a group's lifetimes. If the clock is set back by at most `SLACK_MS`, it is not
    /// below that of the previous group.
    fn start_ms(&self, now_ms: TimeMs) -> TimeMs {
        if self.last_start_ms.saturating_sub(now_ms) <= SLACK_MS {
            now_ms.max(self.last_start_ms)
        } else {
            now_ms
        }
    }
}

fn is_sync_asked(group: &Filling) -> bool {
    group.batches.iter().any(|submitted| submitted.batch.durability == Durability::Disk)
}

/// Runs a step whose panic refuses this and all later groups.
fn guarded<E: Environment, T>(env: &mut E, step: impl FnOnce(&mut E) -> T) -> Result<T> {
    catch_unwind(AssertUnwindSafe(|| step(env))).map_err(|_| env.panicked())
}

fn refuse_all(group: &Filling, error: &Error, outcomes: &mut Outcomes) {
    outcomes.clear();
    outcomes.extend(group.batches.iter().map(|_| Err(error.clone())));
}

#[cfg(test)]
mod tests;
