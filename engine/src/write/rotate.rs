//! Step 1 of a commit: makes space in the memtable, in the log and on the disk, and makes durable
//! what must be durable before anything is acknowledged.
//!
//! This file does not know what is committed.

use std::sync::Arc;
use std::time::Duration;

use crate::error::{Error, Failure, Result};
use crate::ids::TimeMs;
use crate::memtable::Memtable;
use crate::options::MAX_SEALED;
use crate::wal::WalFile;
use crate::write::active::Active;
use crate::write::batch::{Durability, Prepared};
use crate::write::queue::Filling;

impl Active {
    /// Makes room for a group. Waits if memtables are sealed faster than they are flushed, unless
    /// the disk is full. True if it took long: it waited, or wrote to the disk.
    pub(super) fn make_room_for(&mut self, bytes: usize, start_ms: TimeMs) -> Result<bool> {
        let mut took_long = false;
        let is_full = self.memtable.bytes() >= self.state.options.memtable_bytes();
        if is_full || !self.memtable.may_start_at(start_ms) {
            took_long = true;
            let mut has_waited = false;
            match self.wait_for_flush(&mut has_waited) {
                Ok(()) => {
                    self.wait_for_merge(&mut has_waited);
                    self.seal_memtable()?;
                }
                // Only changes that free space are accepted in this case, into a memtable that is
                // above its size. A replay may seal here, since a start may be lower than the one
                // before it: later records must not refer to lists before this position.
                Err(Error::DiskFull { .. }) if self.state.reserve.is_out() => {
                    self.memtable.forget_lists();
                }
                Err(error) => return Err(error),
            }
        }
        if let Some(file) =
            self.wal.start_group(bytes).map_err(|failure| self.state.failed(failure))?
        {
            self.in_use(file);
        }
        took_long |= self.unnamed_file.is_some();
        self.name_file()?;
        Ok(took_long)
    }

    /// Records that a log file is in use.
    fn in_use(&mut self, file: WalFile) {
        self.state.counters.wal_files.add(1);
        self.state.log_files.add(file, self.state.now_ms());
        self.unnamed_file = Some(file.number);
    }

    /// The manifest must name the log file before anything in it is acknowledged; otherwise the
    /// loss of the file would not be noticed.
    fn name_file(&mut self) -> Result<()> {
        if let Some(number) = self.unnamed_file {
            let named = self.state.manifest.lock().commit(|live| live.log_file = number);
            named.map_err(|failure| {
                self.state.make_space();
                self.state.failed(failure)
            })?;
            self.unnamed_file = None;
        }
        Ok(())
    }

    /// The manifest must name the stores that a power cut can set back before any entry that it can
    /// lose is visible.
    pub(super) fn note_relaxed(&mut self, group: &Filling, may_add: bool) -> Result<bool> {
        let is_concerned = |batch: &&Prepared| {
            batch.durability == Durability::Os && (may_add || batch.frees_only())
        };
        let batches = group.batches.iter().map(|submitted| &submitted.batch).filter(is_concerned);
        self.relaxed.add(&self.state, batches.flat_map(Prepared::stores)).map_err(|failure| {
            self.state.make_space();
            self.state.failed(failure)
        })
    }

    /// Waits until the flush that is under way, if there is one, has succeeded or failed.
    pub(super) fn wait_for_flush_attempt(&self) {
        let (attempts, mut has_waited) = (self.state.progress.flush_attempts(), false);
        loop {
            let seen = self.state.progress.changes();
            let is_over = self.state.progress.flush_attempts() != attempts
                || self.state.view.load().sealed.is_empty()
                || self.state.poison.check().is_err();
            if is_over {
                return;
            }
            self.stall(seen, &mut has_waited);
        }
    }

    fn wait_for_flush(&self, has_waited: &mut bool) -> Result<()> {
        loop {
            let seen = self.state.progress.changes();
            if self.state.view.load().sealed.len() < MAX_SEALED {
                return Ok(());
            }
            if let Some(failure) = self.state.progress.flush_failure() {
                return Err(failure);
            }
            self.stall(seen, has_waited);
        }
    }

    /// Waits for progress. A commit that makes room and waits is counted once.
    fn stall(&self, seen: u64, has_waited: &mut bool) {
        if !std::mem::replace(has_waited, true) {
            self.state.counters.stalls.add(1);
        }
        self.state.progress.wait(seen, Duration::from_secs(1));
    }

    /// Waits while merging is too far behind and makes progress: data that is written faster than
    /// it can be merged would fill the disk.
    fn wait_for_merge(&self, has_waited: &mut bool) {
        loop {
            let seen = self.state.progress.changes();
            if self.state.reserve.is_out() || !(self.is_merge_behind)(&self.state) {
                return;
            }
            self.state.merging.lag.hurry(true);
            self.stall(seen, has_waited);
        }
    }

    /// Seals the active memtable at a durable position of the log, and starts a new one.
    fn seal_memtable(&mut self) -> Result<()> {
        self.wal.make_durable().map_err(|failure| self.state.failed(failure))?;
        let next = Arc::new(Memtable::new(self.wal.end()));
        self.memtable.seal(self.wal.end());
        let sealed = std::mem::replace(&mut self.memtable, next);
        self.state.view.change(|view| {
            view.sealed.insert(0, sealed);
            view.active = self.memtable.clone();
        });
        self.state.share_memory();
        self.state.progress.announce();
        Ok(())
    }

    /// Seals the active memtable, unless everything is in segments. The log goes on in the same
    /// file.
    pub(super) fn seal_all(&mut self) -> Result<()> {
        if self.is_all_flushed() {
            return Ok(());
        }
        self.wait_for_flush(&mut false)?;
        self.seal_memtable()
    }

    /// Seals the active memtable and changes to a new log file, unless the present one holds
    /// nothing: after the flush, everything live on the disk is in segments.
    pub(super) fn seal_and_leave(&mut self) -> Result<()> {
        self.seal_all()?;
        let is_clean = !self.wal.was_used() || !self.state.log_files.is_active_doomed();
        if self.wal.is_empty() && is_clean {
            self.state.log_files.active_is_clean(self.state.now_ms());
            return Ok(());
        }
        let file = self.wal.change_file(0).map_err(|failure| self.state.failed(failure))?;
        self.in_use(file);
        self.name_file()?;
        // The flush may have been done before there was a file to change to.
        let checkpoint = self.state.manifest.lock().live().checkpoint;
        self.state.retire_log(checkpoint);
        Ok(())
    }

    /// Writes a group without records if no later group confirms that the last one was durable. If
    /// everything is in segments, the log is not needed and nothing is written. On a full disk this
    /// is tried again at the next tick of the expiry thread.
    pub(super) fn vouch_for_last(&mut self) -> Result<(), Failure> {
        let is_needed = self.wal.unvouched().is_some() && !self.memtable.is_empty();
        if !is_needed || self.state.reserve.is_out() || self.state.poison.check().is_err() {
            return Ok(());
        }
        if let Some(file) = self.wal.vouch()? {
            self.in_use(file);
        }
        self.state.counters.vouching_groups.add(1);
        Ok(())
    }

    /// Whether the active memtable is empty and starts at the end of the log; then the checkpoint
    /// is there too.
    pub(super) fn is_all_flushed(&self) -> bool {
        self.memtable.is_empty() && self.memtable.from() == self.wal.end()
    }
}
