//! Scheduled backups: which are due, which are kept, and what is known of the last one.
//!
//! ```text
//!  due ──> remove unfinished ones ──> engine's backup into a .partial folder
//!      ──> rename ──> remove the oldest ones beyond `keep`
//! ```
//!
//! Promises: a folder without `.partial` holds a complete backup; an old one is removed only after
//! the new one is complete and durable; only folders that this server made are removed
//! (`folders.rs`). A failure affects nothing but the figures and the log, and is tried again.
//!
//! It does not know which thread runs it, nor when it is asked.

mod folders;
mod plan;
mod settings;

use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use strandline::Engine;
use strandline::clock::Clock;
use tracing::warn;

use folders::{BackupFolder, FolderError};
use plan::BackupPlan;
pub use plan::{Schedule, ScheduleError};
pub use settings::{BackupSettings, MOST_KEPT};

/// The reason why there is no new backup.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The engine could not write it.
    #[error(transparent)]
    Engine(#[from] strandline::Error),
    /// The directory of the backups could not be used.
    #[error(transparent)]
    Folder(#[from] FolderError),
}

/// A backup that was taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewBackup {
    /// Its folder.
    pub path: PathBuf,
    /// The number of its files.
    pub files: u64,
    /// The number of its entries.
    pub entries: u64,
}

/// The scheduled backups of a server.
#[derive(Debug, Default)]
pub struct Backups {
    directory: Option<PathBuf>,
    settings: BackupSettings,
    state: Mutex<BackupState>,
}

#[derive(Clone, Copy, Debug, Default)]
struct BackupState {
    plan: BackupPlan,
    /// Whether the directory was listed since the start of the server.
    is_listed: bool,
    kept: u64,
    failures: u64,
    duration_ms: u64,
}

impl Backups {
    /// Backups by these settings; each gets a folder of its own in the directory.
    pub fn new(directory: Option<PathBuf>, settings: BackupSettings) -> Backups {
        Backups { directory, settings, state: Mutex::default() }
    }

    /// Whether there are scheduled backups.
    pub fn are_scheduled(&self) -> bool {
        self.target().is_some()
    }

    /// Where and when backups are taken, if they are.
    fn target(&self) -> Option<(&Path, Schedule)> {
        self.directory.as_deref().zip(self.settings.schedule)
    }

    /// Whether a backup is due, or may be: before the first call of [`Backups::take_if_due`]
    /// nothing is known of earlier ones.
    pub fn may_be_due(&self, now_ms: u64) -> bool {
        // With nothing known of earlier ones, a plan is due.
        self.target().is_some_and(|(_, schedule)| self.state.lock().plan.is_due(schedule, now_ms))
    }

    /// Takes a backup if one is due. May take minutes; must not be called twice at a time.
    pub fn take_if_due(
        &self,
        engine: &Engine,
        clock: &dyn Clock,
    ) -> Result<Option<NewBackup>, BackupError> {
        let Some((directory, schedule)) = self.target() else { return Ok(None) };
        let taken = self.look(directory, schedule, engine, clock);
        if taken.is_err() {
            self.failed(clock.now_ms());
        }
        taken
    }

    /// Notes that a backup was not taken.
    pub fn failed(&self, now_ms: u64) {
        let mut state = self.state.lock();
        state.plan.failed_ms = Some(now_ms);
        state.failures += 1;
    }

    fn look(
        &self,
        directory: &Path,
        schedule: Schedule,
        engine: &Engine,
        clock: &dyn Clock,
    ) -> Result<Option<NewBackup>, BackupError> {
        let (now_ms, history) = (clock.now_ms(), engine.epoch().history());
        let found = folders::list(directory, history)?;
        {
            let mut state = self.state.lock();
            if !state.is_listed {
                state.plan.last_ms = found.complete.last().map(|folder| folder.start_ms);
            }
            (state.is_listed, state.kept) = (true, found.complete.len() as u64);
            if !state.plan.is_due(schedule, now_ms) {
                return Ok(None);
            }
        }
        for path in &found.partial {
            folders::remove_all(path)?;
        }
        let start = clock.monotonic();
        let folder = BackupFolder::new(directory, now_ms, history);
        let made = engine.backup(folder.partial())?;
        folder.complete()?;
        let duration = clock.monotonic().saturating_sub(start);
        let kept = 1 + self.remove_old(&found.complete);
        let mut state = self.state.lock();
        state.plan = BackupPlan { last_ms: Some(folder.start_ms), failed_ms: None };
        (state.kept, state.duration_ms) = (kept, duration.as_millis() as u64);
        Ok(Some(NewBackup { path: folder.path, files: made.files, entries: made.entries }))
    }

    /// Removes the oldest of the earlier backups, so that `keep` are left with the new one. Returns
    /// how many of them are left.
    fn remove_old(&self, earlier: &[BackupFolder]) -> u64 {
        let excess = (earlier.len() + 1).saturating_sub(self.settings.keep);
        let mut left = earlier.len() as u64;
        for folder in &earlier[..excess.min(earlier.len())] {
            match folder.remove() {
                Ok(()) => left -= 1,
                // The new backup is complete, and this one is tried again after the next.
                Err(error) => warn!(%error, "an old backup was not removed"),
            }
        }
        left
    }

    /// The figures of INFO and TL.STATS.
    pub fn figures(&self, now_ms: u64) -> [(&'static str, u64); 6] {
        let state = *self.state.lock();
        let last_ms = state.plan.last_ms.unwrap_or(0);
        let age_ms = state.plan.last_ms.map_or(0, |last_ms| now_ms.saturating_sub(last_ms));
        [
            ("scheduled_backups", state.kept),
            ("scheduled_backup_last_ms", last_ms),
            ("scheduled_backup_age_seconds", age_ms / 1000),
            ("scheduled_backup_duration_ms", state.duration_ms),
            ("scheduled_backup_failed", u64::from(state.plan.failed_ms.is_some())),
            ("scheduled_backup_failures", state.failures),
        ]
    }
}

#[cfg(test)]
mod tests;
