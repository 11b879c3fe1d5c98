//! Scheduled backups of a real engine into a real directory, by a clock that the tests set.

#![allow(clippy::disallowed_methods, reason = "the tests look at files of backups")]

use std::collections::BTreeMap;
use std::fs;

use strandline::clock::ManualClock;
use strandline::{Limit, NewStore, Options};
use tempfile::TempDir;

use super::*;

const HOUR_MS: u64 = 3_600_000;

/// 2026-12-01 00:00 UTC.
const START_MS: u64 = 1_796_083_200_000;

struct Site {
    folder: TempDir,
    engine: Engine,
    clock: ManualClock,
    backups: Backups,
}

impl Site {
    fn new(keep: usize) -> Site {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let stores = [NewStore::new("messages", None)];
        let engine = Engine::open(folder.path().join("data"), Options::default().stores(stores))
            .expect("opens");
        let backups = backups(&folder.path().join("backups"), keep);
        Site { folder, engine, clock: ManualClock::at(START_MS), backups }
    }

    fn directory(&self) -> PathBuf {
        self.folder.path().join("backups")
    }

    fn append(&self, body: &str) {
        self.engine.store("messages").expect("a store").append("t", body).expect("appends");
    }

    fn take(&self) -> Option<NewBackup> {
        self.backups.take_if_due(&self.engine, &self.clock).expect("it is taken")
    }

    /// The names in the directory of the backups without the history, sorted.
    fn names(&self) -> Vec<String> {
        let history = self.engine.epoch().to_string();
        let entries = fs::read_dir(self.directory()).expect("it is there");
        let mut names: Vec<String> = entries
            .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
            .map(|name| name.replace(&history, "own"))
            .collect();
        names.sort();
        names
    }

    fn figure(&self, name: &str) -> u64 {
        let figures = BTreeMap::from(self.backups.figures(self.clock.now_ms()));
        figures[name]
    }
}

fn backups(directory: &Path, keep: usize) -> Backups {
    let schedule = "1h".parse().expect("a schedule");
    let directory = Some(directory.to_path_buf());
    Backups::new(directory, BackupSettings { schedule: Some(schedule), keep })
}

fn bodies(backup: &Path) -> Vec<String> {
    let target = tempfile::tempdir().expect("a temporary directory");
    strandline::restore(backup, target.path().join("restored")).expect("it is complete");
    let engine =
        Engine::open(target.path().join("restored"), Options::default()).expect("it opens");
    let store = engine.store("messages").expect("a store");
    let page = store.read_after("t", 0, Limit::entries(10)).expect("reads");
    page.entries.iter().map(|entry| String::from_utf8_lossy(&entry.body).into()).collect()
}

#[test]
fn each_backup_has_a_folder_and_the_newest_ones_are_kept() {
    let site = Site::new(2);
    site.append("one");
    let first = site.take().expect("the first is due at once");
    assert_eq!((first.entries, bodies(&first.path)), (1, vec!["one".into()]));
    assert_eq!(site.take(), None, "nothing is due");
    assert_eq!(site.names(), ["20261201T000000Z-own"]);
    site.append("two");
    site.clock.pass(HOUR_MS);
    let second = site.take().expect("it is due");
    assert_eq!(bodies(&second.path), ["one", "two"]);
    assert_eq!(site.names(), ["20261201T000000Z-own", "20261201T010000Z-own"]);
    site.clock.pass(HOUR_MS);
    site.take().expect("it is due");
    assert_eq!(site.names(), ["20261201T010000Z-own", "20261201T020000Z-own"]);
    site.clock.pass(90_000);
    let last_ms = START_MS + 2 * HOUR_MS;
    for (name, value) in [
        ("scheduled_backups", 2),
        ("scheduled_backup_last_ms", last_ms),
        ("scheduled_backup_age_seconds", 90),
        ("scheduled_backup_failed", 0),
        ("scheduled_backup_failures", 0),
    ] {
        assert_eq!(site.figure(name), value, "{name}");
    }
}

#[test]
fn a_restarted_server_continues_with_the_backups_that_are_there() {
    let mut site = Site::new(7);
    site.take().expect("the first is due at once");
    site.clock.pass(HOUR_MS / 2);
    site.backups = backups(&site.directory(), 7);
    assert!(site.backups.may_be_due(site.clock.now_ms()), "nothing is known yet");
    assert_eq!(site.take(), None);
    assert!(!site.backups.may_be_due(site.clock.now_ms()));
    assert_eq!(site.figure("scheduled_backup_age_seconds"), 1800);
    site.clock.pass(HOUR_MS / 2);
    assert!(site.backups.may_be_due(site.clock.now_ms()));
    assert!(site.take().is_some());
}

#[test]
fn an_unfinished_backup_is_removed_by_the_next_one_and_nothing_else_is() {
    let site = Site::new(1);
    let first = site.take().expect("the first is due at once");
    // A crash leaves a backup without its name, or an old one that is removed in part.
    let unfinished =
        first.path.with_file_name(format!("20261201T003000Z-{}.partial", site.engine.epoch()));
    fs::create_dir(&unfinished).expect("it is made");
    fs::write(unfinished.join("segment-000000000001.data"), "half").expect("it is written");
    for foreign in ["notes", "20261201T003000Z-00000000075bcd15", "20261201T003000Z.partial"] {
        fs::create_dir(site.directory().join(foreign)).expect("it is made");
        fs::write(site.directory().join(foreign).join("mine"), "mine").expect("it is written");
    }
    site.clock.pass(HOUR_MS);
    site.take().expect("it is due");
    let mut expected = ["notes", "20261201T003000Z-00000000075bcd15", "20261201T003000Z.partial"]
        .map(String::from)
        .to_vec();
    expected.push("20261201T010000Z-own".into());
    expected.sort();
    assert_eq!(site.names(), expected);
}

#[test]
fn a_failed_backup_removes_no_old_one_is_counted_and_tried_again() {
    let site = Site::new(1);
    site.append("one");
    site.take().expect("the first is due at once");
    site.clock.pass(HOUR_MS);
    // In the place of the next folder.
    let name = format!("20261201T010000Z-{}.partial", site.engine.epoch());
    let obstacle = site.directory().join(name);
    fs::write(&obstacle, "a file").expect("it is written");
    let error = site.backups.take_if_due(&site.engine, &site.clock).expect_err("it fails");
    assert!(error.to_string().contains("20261201T010000Z"), "{error}");
    assert_eq!(site.names().len(), 2, "the old one is there");
    assert_eq!(site.figure("scheduled_backup_failed"), 1);
    assert_eq!(site.figure("scheduled_backup_failures"), 1);
    assert!(!site.backups.may_be_due(site.clock.now_ms()));
    fs::remove_file(&obstacle).expect("it is ours");
    site.clock.pass(HOUR_MS / 6);
    site.take().expect("it is tried again");
    assert_eq!(site.names(), ["20261201T011000Z-own"]);
    assert_eq!(site.figure("scheduled_backup_failed"), 0);
    assert_eq!(site.figure("scheduled_backup_failures"), 1);
}

#[test]
fn backups_of_another_history_stay() {
    let site = Site::new(1);
    let backup = site.take().expect("the first is due at once").path;
    let restored = site.folder.path().join("restored");
    strandline::restore(&backup, &restored).expect("restores");
    let engine = Engine::open(&restored, Options::default()).expect("opens");
    let backups = backups(&site.directory(), 1);
    for _ in 0..3 {
        site.clock.pass(HOUR_MS);
        assert!(backups.take_if_due(&engine, &site.clock).expect("it is taken").is_some());
    }
    assert_eq!(site.names().len(), 2);
    assert!(backup.is_dir(), "the backup that was restored is not removed");
}

#[test]
fn a_clock_that_was_ahead_does_not_make_the_new_backup_the_oldest_that_is_removed() {
    let site = Site::new(1);
    site.clock.pass(1000 * HOUR_MS);
    site.take().expect("the first is due at once");
    site.clock.set(START_MS);
    assert_eq!(site.take(), None);
    site.clock.pass(HOUR_MS);
    site.take().expect("it is due an interval later");
    assert_eq!(site.names(), ["20261201T010000Z-own"]);
}

#[test]
fn without_a_directory_or_a_schedule_nothing_is_ever_due() {
    let site = Site::new(1);
    for directory in [None, Some(site.directory())] {
        let backups = Backups::new(directory, BackupSettings::default());
        assert!(!backups.are_scheduled() && !backups.may_be_due(START_MS));
        let taken = backups.take_if_due(&site.engine, &site.clock);
        assert_eq!(taken.expect("it does nothing"), None);
        assert!(!site.directory().exists());
    }
}
