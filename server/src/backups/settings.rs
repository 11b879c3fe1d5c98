//! The settings of scheduled backups, and the text of a schedule.

use serde::{Deserialize, Serialize};

use super::plan::Schedule;

/// The most backups that are kept.
pub const MOST_KEPT: u64 = 10_000;

/// The settings of scheduled backups.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BackupSettings {
    /// When a backup is taken: after an interval such as `6h`, or at a time of the day, in UTC,
    /// such as `03:30`; none: no scheduled backups.
    pub schedule: Option<Schedule>,
    /// The number of complete backups that are kept.
    pub keep: usize,
}

impl Default for BackupSettings {
    fn default() -> BackupSettings {
        BackupSettings { schedule: None, keep: 7 }
    }
}
