//! The folders of scheduled backups: their names, and their life.
//!
//! ```text
//!  20261201T033000Z-00000000075bcd15            a complete backup
//!  └─ when it was   └─ history of the engine
//!     started, UTC     that it is a copy of
//!  20261201T033000Z-00000000075bcd15.partial    one that is being taken, or removed
//! ```
//!
//! Only directories with exactly such a name, and with the history of the server's own engine, are
//! ever removed. After a restore the history is another one, so the backups from before it stay.
//! A complete backup is renamed before it is removed: a folder with a complete name is complete.
//!
//! It does not know when backups are due.

#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "no file of the engine")]

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

const PARTIAL: &str = ".partial";
const SECOND_MS: u64 = 1000;
const DAY_SECONDS: u64 = 24 * 3600;
const FIRST_YEAR: u64 = 1970;

/// The days from 1970 to the end of 9999: later years do not fit the names.
const MOST_DAYS: u64 = 2_932_897;

/// An action on a folder that failed.
#[derive(Debug, thiserror::Error)]
#[error("cannot {what} {path}: {source}; check the owner and the free space of this directory")]
pub struct FolderError {
    what: &'static str,
    path: PathBuf,
    source: io::Error,
}

impl FolderError {
    fn of(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> FolderError {
        let path = path.to_path_buf();
        move |source| FolderError { what, path, source }
    }
}

/// The folder of one backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackupFolder {
    /// When the backup was started, Unix ms, in whole seconds.
    pub start_ms: u64,
    /// The path of the complete backup.
    pub path: PathBuf,
}

impl BackupFolder {
    /// The folder of a backup that is started at `now_ms`.
    pub fn new(directory: &Path, now_ms: u64, history: u64) -> BackupFolder {
        let start_ms = now_ms - now_ms % SECOND_MS;
        BackupFolder { start_ms, path: directory.join(name(start_ms, history)) }
    }

    /// The path of the backup until it is complete.
    pub fn partial(&self) -> PathBuf {
        let mut path = self.path.clone().into_os_string();
        path.push(PARTIAL);
        path.into()
    }

    /// Gives a backup that is complete, and durable, its name.
    pub fn complete(&self) -> Result<(), FolderError> {
        fs::rename(self.partial(), &self.path).map_err(FolderError::of("rename", &self.path))?;
        let directory = self.path.parent().expect("the folder is in a directory");
        let synced = File::open(directory).and_then(|directory| directory.sync_all());
        synced.map_err(FolderError::of("sync", directory))
    }

    /// Removes a complete backup.
    pub fn remove(&self) -> Result<(), FolderError> {
        fs::rename(&self.path, self.partial()).map_err(FolderError::of("rename", &self.path))?;
        remove_all(&self.partial())
    }
}

/// The backups of one history in a directory.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct BackupList {
    /// The complete ones, the oldest first.
    pub complete: Vec<BackupFolder>,
    /// The paths of the others.
    pub partial: Vec<PathBuf>,
}

/// Lists a directory, which need not exist.
pub fn list(directory: &Path, history: u64) -> Result<BackupList, FolderError> {
    let failed = || FolderError::of("list", directory);
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BackupList::default()),
        entries => entries.map_err(failed())?,
    };
    let mut found = BackupList::default();
    for entry in entries {
        let entry = entry.map_err(failed())?;
        // A link to a directory is not one: this does not follow it.
        let is_directory = entry.file_type().is_ok_and(|kind| kind.is_dir());
        let file_name = entry.file_name();
        let Some(file_name) = file_name.to_str().filter(|_| is_directory) else { continue };
        let (whole, is_partial) = match file_name.strip_suffix(PARTIAL) {
            Some(whole) => (whole, true),
            None => (file_name, false),
        };
        match start_of(whole, history) {
            Some(_) if is_partial => found.partial.push(entry.path()),
            Some(start_ms) => {
                found.complete.push(BackupFolder { start_ms, path: entry.path() });
            }
            None => {}
        }
    }
    found.complete.sort_by_key(|folder| folder.start_ms);
    Ok(found)
}

/// Removes a folder that [`list`] found, with its content.
pub fn remove_all(path: &Path) -> Result<(), FolderError> {
    fs::remove_dir_all(path).map_err(FolderError::of("remove", path))
}

fn name(start_ms: u64, history: u64) -> String {
    let seconds = start_ms / SECOND_MS;
    let (mut year, mut day) = (FIRST_YEAR, (seconds / DAY_SECONDS).min(MOST_DAYS - 1));
    while day >= days_of_year(year) {
        day -= days_of_year(year);
        year += 1;
    }
    let mut month = 1;
    while day >= days_of_month(year, month) {
        day -= days_of_month(year, month);
        month += 1;
    }
    let of_day = seconds % DAY_SECONDS;
    let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
    let day = day + 1;
    format!("{year:04}{month:02}{day:02}T{hour:02}{minute:02}{second:02}Z-{history:016x}")
}

/// The start of the backup whose folder has this name; none for all names that [`name`] does not
/// give.
fn start_of(text: &str, history: u64) -> Option<u64> {
    let number = |from: usize, to: usize| -> Option<u64> { text.get(from..to)?.parse().ok() };
    let (year, month, day) = (number(0, 4)?, number(4, 6)?, number(6, 8)?);
    if year < FIRST_YEAR || !(1..=12).contains(&month) || day < 1 {
        return None;
    }
    let days = (FIRST_YEAR..year).map(days_of_year).sum::<u64>()
        + (1..month).map(|month| days_of_month(year, month)).sum::<u64>()
        + day
        - 1;
    let of_day = number(9, 11)? * 3600 + number(11, 13)? * 60 + number(13, 15)?;
    let start_ms = (days * DAY_SECONDS + of_day) * SECOND_MS;
    (name(start_ms, history) == text).then_some(start_ms)
}

fn is_leap(year: u64) -> bool {
    year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
}

fn days_of_year(year: u64) -> u64 {
    365 + u64::from(is_leap(year))
}

fn days_of_month(year: u64, month: u64) -> u64 {
    match month {
        2 => 28 + u64::from(is_leap(year)),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HISTORY: u64 = 0x75b_cd15;

    #[test]
    fn names_are_utc_times_and_read_back() {
        for (seconds, text) in [
            (0, "19700101T000000Z-00000000075bcd15"),
            (951_782_399, "20000228T235959Z-00000000075bcd15"),
            (951_782_400, "20000229T000000Z-00000000075bcd15"),
            (1_796_095_800, "20261201T033000Z-00000000075bcd15"),
            (4_107_542_399, "21000228T235959Z-00000000075bcd15"),
            (4_107_542_400, "21000301T000000Z-00000000075bcd15"),
            (253_402_300_799, "99991231T235959Z-00000000075bcd15"),
        ] {
            assert_eq!(name(seconds * SECOND_MS, HISTORY), text);
            assert_eq!(start_of(text, HISTORY), Some(seconds * SECOND_MS));
        }
        assert!(name(u64::MAX, HISTORY).starts_with("99991231T"));
    }

    #[test]
    fn other_names_are_not_those_of_backups() {
        for text in [
            "",
            "20261201",
            "20261201T033000Z",
            "20261201T033000Z-",
            "20261201T033000Z-00000000075bcd16",
            "20261201T033000Z-00000000075BCD15",
            "20261201T033000Z-00000000075bcd15x",
            "20261201T033000z-00000000075bcd15",
            "20261301T033000Z-00000000075bcd15",
            "20261200T033000Z-00000000075bcd15",
            "20260229T033000Z-00000000075bcd15",
            "20261201T243000Z-00000000075bcd15",
            "20261201T036000Z-00000000075bcd15",
            "+2261201T033000Z-00000000075bcd15",
            "99991301T000000Z-00000000075bcd15",
            "ü0261201T033000Z-00000000075bcd15",
        ] {
            assert_eq!(start_of(text, HISTORY), None, "{text}");
        }
    }

    #[test]
    fn only_directories_with_the_name_of_an_own_backup_are_listed() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let at = |name: &str| directory.path().join(name);
        let (old, new) = ("20261201T033000Z-00000000075bcd15", "20261202T033000Z-00000000075bcd15");
        let partial = "20261203T033000Z-00000000075bcd15.partial";
        let foreign = "20261201T033000Z-00000000075bcd16";
        for name in [new, old, partial, foreign, "notes"] {
            fs::create_dir(at(name)).expect("it is made");
        }
        fs::write(at("20261204T033000Z-00000000075bcd15"), "a file").expect("it is written");
        std::os::unix::fs::symlink(at("notes"), at("20261205T033000Z-00000000075bcd15"))
            .expect("it is made");
        let found = list(directory.path(), HISTORY).expect("it is listed");
        let paths: Vec<PathBuf> = found.complete.into_iter().map(|folder| folder.path).collect();
        assert_eq!((paths, found.partial), (vec![at(old), at(new)], vec![at(partial)]));
        assert_eq!(list(&at("nothing"), HISTORY).expect("none is needed"), BackupList::default());
    }

    #[test]
    fn an_error_names_the_folder_and_the_action() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let folder = BackupFolder::new(directory.path(), 1_796_095_800_123, HISTORY);
        let text = folder.complete().expect_err("there is nothing to rename").to_string();
        assert!(text.contains("cannot rename") && text.contains("20261201T033000Z"), "{text}");
    }
}
