//! The active log file and the active memtable: what a commit changes in an engine.
//!
//! Both have one writer, the thread with the committer's role (`pipeline`). `rotate` replaces them.
//!
//! This file does not know how batches are decided, or in which order the steps are taken.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Waker;
use std::time::Duration;

use crate::entry::Receipt;
use crate::error::{Error, Failure, Result};
use crate::ids::{FileNumber, Lsn, TimeMs};
use crate::memtable::{Group, Memtable};
use crate::metrics::FSYNC;
use crate::notify::watch::Happening;
use crate::options::Wakers;
use crate::state::State;
use crate::timeline::{Key, Times};
use crate::wal::Wal;
use crate::write::commit::{Committer, Environment};
use crate::write::decide::Ground;
use crate::write::pipeline::Pipeline;
use crate::write::queue::{Filling, Seal};
use crate::write::relaxed;

/// The pipeline of an engine.
pub type CommitPipeline = Pipeline<Committer<Active>>;

/// The active log file and the active memtable.
pub struct Active {
    pub(super) state: Arc<State>,
    pub(super) wal: Wal,
    pub(super) memtable: Arc<Memtable>,
    /// A log file that is in use and that the manifest does not name yet.
    pub(super) unnamed_file: Option<FileNumber>,
    /// Whether merging is so far behind that commits wait for it.
    pub(super) is_merge_behind: fn(&State) -> bool,
    /// The stores that a power cut may set back.
    pub(super) relaxed: relaxed::Noted,
    /// The start of the group in the log.
    at: Lsn,
    /// The monotonic time at which the write of the group started.
    started: Duration,
}

impl Active {
    /// Continues after the end of the log that recovery found.
    pub fn new(state: Arc<State>, wal: Wal, is_merge_behind: fn(&State) -> bool) -> Active {
        let memtable = state.view.load().active.clone();
        let at = wal.end();
        let active = Active {
            state,
            wal,
            memtable,
            unnamed_file: None,
            is_merge_behind,
            relaxed: relaxed::Noted::default(),
            at,
            started: Duration::ZERO,
        };
        active.report_unvouched();
        active
    }

    fn write_and_sync(&mut self, and_sync: bool) -> Result<bool, Failure> {
        let counters = &self.state.counters;
        let is_recorded = !self.wal.group().is_empty();
        if is_recorded {
            counters.groups.add(1);
            counters.wal_bytes.add(self.wal.group().len() as u64);
            self.wal.write_group()?;
        }
        if and_sync && self.wal.is_unsynced() {
            counters.wal_syncs.add(1);
            let _fsync = tracing::debug_span!(FSYNC, end = %self.wal.end()).entered();
            let start = self.state.clock.monotonic();
            self.wal.sync()?;
            counters.sync_times.add(start, self.state.clock.monotonic());
        }
        Ok(is_recorded)
    }

    /// Records for the expiry thread whether a group needs confirmation.
    fn report_unvouched(&self) {
        let end = self.wal.unvouched().filter(|_| !self.memtable.is_empty());
        self.state.unvouched.store(end.map_or(0, |end| end.0), Ordering::Relaxed);
    }
}

impl Environment for Active {
    type Known = State;

    fn moment(&self) -> (TimeMs, TimeMs) {
        self.state.times.moment()
    }

    fn may_add(&self) -> Result<()> {
        self.state.reserve.check()
    }

    fn make_room(&mut self, group: &Filling, start_ms: TimeMs, may_add: bool) -> Result<bool> {
        self.state.poison.check()?;
        let made_room = self.make_room_for(group.bytes, start_ms)?;
        Ok(self.note_relaxed(group, may_add)? || made_room)
    }

    fn with_stores<T>(&mut self, commit: impl FnOnce(&mut Active) -> T) -> T {
        let state = self.state.clone();
        let _no_drop = state.turns.dropping.read();
        commit(self)
    }

    fn ground(&mut self) -> Ground<'_, State> {
        self.at = self.wal.end();
        let (memtable, records) = (&self.memtable, self.wal.group());
        Ground { known: &self.state, memtable, records, at: self.at }
    }

    fn write(&mut self, and_sync: bool) -> Result<bool> {
        self.started = self.state.clock.monotonic();
        self.write_and_sync(and_sync).map_err(|failure| self.state.failed(failure))
    }

    fn apply(&mut self, group: &mut Group, times: Option<Times>) {
        if let Some(times) = times {
            self.state.times.committed_at(times.time_ms, times.start_ms);
            self.memtable.started_at(times.start_ms);
        }
        let leaves_history = group.leaves_history();
        let settled = if leaves_history { self.state.view.settled() } else { Lsn(0) };
        let bodies = self.memtable.apply(group, self.at, settled);
        self.state.view.publish(self.wal.end(), bodies);
    }

    fn publish(&self, group: &Filling, outcomes: &[Result<Receipt>], woken: &mut Vec<Waker>) {
        let is_new = |receipt: &Receipt| !receipt.duplicate;
        let (mut batches, mut entries, mut body_bytes, mut removed) = (0, 0, 0, 0);
        let idle = self.state.watch.is_idle();
        for (submitted, outcome) in group.batches.iter().zip(outcomes) {
            let batch = &submitted.batch;
            if batch.is_nothing() || !outcome.as_ref().is_ok_and(is_new) {
                continue;
            }
            batches += 1;
            entries += batch.appends() as u64;
            body_bytes += batch.body_bytes();
            removed += batch.removed;
            if !idle {
                let mut publish = |key: Key<'_>, what| {
                    self.state.watch.publish(key.timeline, what, woken);
                };
                let (named, targets) = (batch.named(), batch.targets.len());
                for (number, key) in named.enumerate() {
                    let is_append = number < targets;
                    publish(key, if is_append { Happening::Appended } else { Happening::Changed });
                }
                batch.listed().for_each(|key| publish(key, Happening::Appended));
            }
        }
        let counters = &self.state.counters;
        counters.batches.add(batches);
        counters.entries.add(entries);
        counters.body_bytes.add(body_bytes);
        counters.trimmed_entries.add(removed);
        if batches > 0 {
            counters.group_entries.add(entries);
            counters.commit_times.add_time(self.started, self.state.clock.monotonic());
        }
    }

    fn has_short_wakers(&self) -> bool {
        self.state.options.wakers == Wakers::Short
    }

    fn hand_over(&self, wakers: Vec<Waker>) {
        self.state.wake.hand_over(wakers);
    }

    fn make_space(&self) {
        if !self.state.reserve.give_back() {
            self.wait_for_flush_attempt();
        }
    }

    fn seal(&mut self, seal: Seal) -> Result<()> {
        self.state.poison.check()?;
        match seal {
            Seal::Memtable => self.seal_all(),
            Seal::Log => self.seal_and_leave(),
        }
    }

    fn vouch(&mut self) {
        match self.vouch_for_last() {
            Ok(()) | Err(Failure::Refused(_)) => {}
            Err(failure) => drop(self.state.failed(failure)),
        }
    }

    fn refused(&self, error: &Error) {
        self.state.refusals.note(error, self.state.clock.monotonic());
    }

    fn finished(&mut self) {
        self.report_unvouched();
    }

    fn panicked(&self) -> Error {
        let error = Error::Poisoned { why: "a commit panicked".into() };
        self.state.poison.set(&error);
        error
    }
}
