//! The settings of scheduled backups, and the text of a schedule.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::plan::Schedule;

/// The most backups that are kept.
pub const MOST_KEPT: u64 = 10_000;

/// The settings of scheduled backups.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BackupSettings {
    /// The directory in which each backup gets a folder of its own; none: no scheduled backups.
    pub directory: Option<PathBuf>,
    /// When a backup is taken: an interval such as `6h`, or a time of the day, in UTC, such as
    /// `03:30`.
    pub schedule: Schedule,
    /// The number of complete backups that are kept.
    pub keep: usize,
}

impl Default for BackupSettings {
    fn default() -> BackupSettings {
        BackupSettings { directory: None, schedule: Schedule::Every { minutes: 24 * 60 }, keep: 7 }
    }
}
