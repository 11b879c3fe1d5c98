//! The targets of a backup, a restore and a salvage (P6): each claims its target, and one that
//! loses or fails removes only what it made.
//!
//! It does not know: the content of the copies; `care.rs` and `salvage.rs` check that.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use std::sync::{Arc, Barrier};

use strandline::vfs::disk::DiskDirectory;
use strandline::vfs::simulated::SimulatedDisk;
use strandline::vfs::{Dir, RawDirectory, RawFile};
use strandline::{Engine, Error, restore_in, salvage_in};
use tempfile::TempDir;

use super::directory::{changed, contents, dir, open, send, try_open, two_segments, verify};
use crate::disks::as_the_disk;
use crate::two_stores;

/// A way to fill a target.
type Fill = (&'static str, Box<dyn Fn(&Path) -> Result<(), Error> + Send + Sync>);

/// A running engine, its backup, a folder for targets, and the three ways to fill one.
fn fills(folder: &TempDir) -> (Engine, [Fill; 3]) {
    let (data, backup) = (folder.path().join("data"), folder.path().join("source"));
    let engine = Engine::open(&data, two_stores::options()).expect("opens");
    (0..40).for_each(|number| send(&engine, number));
    engine.backup(&backup).expect("backs up");
    let (running, damaged) = (engine.clone(), backup.clone());
    let fills: [Fill; 3] = [
        ("backup", Box::new(move |target| running.backup(target).map(drop))),
        ("restore", Box::new(move |target| strandline::restore(&backup, target).map(drop))),
        (
            "salvage",
            Box::new(move |target| {
                strandline::salvage(&damaged, target, &two_stores::NAMES).map(drop)
            }),
        ),
    ];
    (engine, fills)
}

fn files(path: &Path) -> BTreeSet<String> {
    let raw = DiskDirectory::open(path).expect("a directory");
    Dir::new(Arc::new(raw)).list().expect("lists").into_iter().collect()
}

fn is_whole(path: &Path, expected: &Engine) {
    let options = two_stores::options().read_only(true);
    let engine = Engine::open(path, options).expect("opens");
    assert_eq!(verify(&engine).findings, []);
    assert_eq!(contents(&engine), contents(expected));
}

#[test]
fn of_many_at_once_into_one_directory_one_completes() {
    let folder = tempfile::tempdir().expect("a directory");
    let (engine, fills) = fills(&folder);
    for (name, fill) in &fills {
        for round in 0..10 {
            let target = folder.path().join(format!("{name}-{round}"));
            let start = Barrier::new(4);
            let run = || {
                start.wait();
                fill(&target)
            };
            let results: Vec<Result<(), Error>> = std::thread::scope(|scope| {
                let running: Vec<_> = (0..4).map(|_| scope.spawn(run)).collect();
                running.into_iter().map(|one| one.join().expect("does not panic")).collect()
            });
            assert_eq!(
                results.iter().filter(|result| result.is_ok()).count(),
                1,
                "{name}: {results:?}"
            );
            for refused in results.into_iter().filter_map(Result::err) {
                assert!(
                    matches!(refused, Error::Locked { .. } | Error::Invalid { .. }),
                    "{name}: {refused}"
                );
            }
            is_whole(&target, &engine);
        }
    }
}

#[test]
fn a_directory_that_another_has_claimed_is_refused_by_name_and_left_as_it_is() {
    let folder = tempfile::tempdir().expect("a directory");
    let (_engine, fills) = fills(&folder);
    for (name, fill) in &fills {
        let target = folder.path().join(name);
        let other = Dir::new(Arc::new(DiskDirectory::create(&target).expect("makes it")));
        let lock = other.lock("LOCK", true).expect("is free");
        let refused = fill(&target).expect_err("it is claimed");
        assert!(matches!(refused, Error::Locked { .. }), "{name}: {refused}");
        assert!(refused.to_string().contains("LOCK"), "{name}: {refused}");
        assert_eq!(files(&target), BTreeSet::from(["LOCK".into()]), "{name}");
        drop(lock);
        fill(&target).expect("it is free, and empty but for its lock");
    }
}

/// A directory in which another action happens just before a file is made.
struct Visited {
    disk: SimulatedDisk,
    before_create: Box<dyn Fn(&str) + Send + Sync>,
}

impl RawDirectory for Visited {
    as_the_disk!(path, lock, list, open, rename, remove, sync);

    fn create(&self, name: &str) -> io::Result<Arc<dyn RawFile>> {
        (self.before_create)(name);
        self.disk.create(name)
    }
}

/// A way to fill a target that may be simulated, always with the same files.
type FillIn = (&'static str, Arc<dyn Fn(&Dir) -> Result<(), Error> + Send + Sync>);

fn simulated_fills() -> [FillIn; 3] {
    let engine = open(&SimulatedDisk::new());
    (0..10).for_each(|number| send(&engine, number));
    let (backup, damaged) = (SimulatedDisk::new(), two_segments());
    engine.backup_in(&dir(&backup)).expect("backs up");
    [
        ("backup", Arc::new(move |target: &Dir| engine.backup_in(target).map(drop))),
        ("restore", Arc::new(move |target: &Dir| restore_in(&dir(&backup), target).map(drop))),
        (
            "salvage",
            Arc::new(move |target: &Dir| {
                salvage_in(&dir(&SimulatedDisk::from_image(&damaged)), target, &two_stores::NAMES)
                    .map(drop)
            }),
        ),
    ]
}

#[test]
fn a_target_that_is_being_filled_is_locked_for_others_and_for_engines() {
    for (name, fill) in simulated_fills() {
        let disk = SimulatedDisk::new();
        let visited = disk.clone();
        let others = simulated_fills();
        let before_create = Box::new(move |file: &str| {
            if file.starts_with("segment-") {
                for (other, fill) in &others {
                    let refused = fill(&dir(&visited)).expect_err("it is being filled");
                    let is_refused =
                        matches!(refused, Error::Locked { .. } | Error::Invalid { .. });
                    assert!(is_refused, "{other} during {name}: {refused}");
                }
                for read_only in [true, false] {
                    let opened = try_open(&visited, read_only).map(drop);
                    assert!(
                        matches!(opened, Err(Error::Locked { .. })),
                        "during {name}: {opened:?}"
                    );
                }
            }
        });
        let target = Dir::new(Arc::new(Visited { disk: disk.clone(), before_create }));
        fill(&target).expect("nobody disturbed it");
        assert_eq!(verify(&open(&disk)).findings, [], "{name}");
    }
}

#[test]
fn a_foreign_file_in_the_target_stays_and_the_files_made_beside_it_are_removed() {
    for (name, fill) in simulated_fills() {
        let whole = SimulatedDisk::new();
        fill(&dir(&whole)).expect("fills it");
        let names: Vec<String> = whole
            .contents()
            .files
            .into_keys()
            .filter(|file| file.starts_with("segment-"))
            .collect();
        assert!(names.len() >= 4, "{name}: {names:?}");
        for theirs in names {
            let disk = SimulatedDisk::new();
            let (visited, wanted) = (disk.clone(), theirs.clone());
            let before_create = Box::new(move |file: &str| {
                if file == wanted {
                    let file = visited.create(file).expect("it is free");
                    file.write_at(0, b"theirs").expect("writes");
                }
            });
            let target = Dir::new(Arc::new(Visited { disk: disk.clone(), before_create }));
            let refused = fill(&target).expect_err("the name is taken");
            assert!(refused.to_string().contains(&theirs), "{name}: {refused}");
            let left: Vec<(String, Vec<u8>)> = disk.contents().files.into_iter().collect();
            assert_eq!(left, [(theirs, b"theirs".to_vec())], "{name}");
        }
    }
}

#[test]
fn whatever_call_fails_the_target_is_filled_or_empty_again() {
    for (name, fill) in simulated_fills() {
        for at in 0.. {
            let disk = SimulatedDisk::new();
            let calls = Arc::new(std::sync::Mutex::new(0));
            let counted = calls.clone();
            disk.set_faults(Some(Box::new(move |_| {
                let mut calls = counted.lock().expect("nobody panics");
                *calls += 1;
                (*calls == at + 1).then_some(io::ErrorKind::Other)
            })));
            let filled = fill(&dir(&disk));
            disk.set_faults(None);
            match filled {
                Ok(()) => assert_eq!(verify(&open(&disk)).findings, [], "{name}, call {at}"),
                Err(error) => {
                    assert_eq!(disk.contents().files.len(), 0, "{name}, call {at}: {error}");
                    fill(&dir(&disk)).expect("what is empty again can be filled");
                }
            }
            if *calls.lock().expect("nobody panics") <= at {
                assert!(at > 10, "{name} makes {at} calls");
                break;
            }
        }
    }
}

#[test]
#[allow(clippy::disallowed_methods, reason = "the test makes what the engine must leave alone")]
fn a_directory_with_lost_and_found_and_a_lock_alone_counts_as_empty_and_keeps_it() {
    let folder = tempfile::tempdir().expect("a directory");
    let (engine, fills) = fills(&folder);
    for (name, fill) in &fills {
        let target = folder.path().join(name);
        std::fs::create_dir_all(target.join("lost+found")).expect("makes it");
        std::fs::write(target.join("lost+found/#12"), b"found").expect("writes");
        std::fs::write(target.join("LOCK"), b"").expect("writes");
        fill(&target).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(
            std::fs::read(target.join("lost+found/#12")).expect("reads"),
            b"found",
            "{name}"
        );
        is_whole(&target, &engine);
    }
}

#[test]
#[allow(clippy::disallowed_methods, reason = "the test makes what the engine must leave alone")]
fn a_directory_with_anything_else_is_refused_with_its_name_and_left_as_it_is() {
    use std::os::unix::ffi::OsStrExt as _;
    let folder = tempfile::tempdir().expect("a directory");
    let (_engine, fills) = fills(&folder);
    for (name, fill) in &fills {
        let other = std::ffi::OsStr::from_bytes(b"not \xFF text");
        for (at, theirs) in [std::ffi::OsStr::new(".hidden"), other].into_iter().enumerate() {
            let target = folder.path().join(format!("{name}-{at}"));
            std::fs::create_dir_all(&target).expect("makes it");
            std::fs::write(target.join(theirs), b"theirs").expect("writes");
            let refused = fill(&target).expect_err("it is not empty");
            assert!(matches!(refused, Error::Invalid { .. }), "{name}: {refused}");
            let text = theirs.to_string_lossy().into_owned();
            assert!(refused.to_string().contains(&text), "{name}: {refused}");
            assert_eq!(files(&target), BTreeSet::from([text]), "{name}");
        }
    }
}

#[test]
#[allow(clippy::disallowed_methods, reason = "the test damages a file")]
fn a_refused_copy_leaves_nothing_in_a_new_directory() {
    let folder = tempfile::tempdir().expect("a directory");
    let (engine, fills) = fills(&folder);
    engine.close().expect("closes");
    let backup = folder.path().join("source");
    let manifest =
        files(&backup).into_iter().find(|name| name.starts_with("manifest-")).expect("has one");
    std::fs::write(backup.join(manifest), b"").expect("writes");
    let target = folder.path().join("one/two/three");
    let mut refused = vec![("backup", (fills[0].1)(&target)), ("restore", (fills[1].1)(&target))];
    let reading = Engine::open(&backup, two_stores::options().read_only(true));
    assert!(reading.is_err(), "the manifest is damaged");
    let lock = Dir::new(Arc::new(DiskDirectory::open(&backup).expect("opens"))).lock("LOCK", true);
    refused.push(("salvage of what is in use", (fills[2].1)(&target)));
    drop(lock);
    let nothing = folder.path().join("nothing");
    std::fs::create_dir_all(&nothing).expect("makes it");
    refused.push((
        "salvage of nothing",
        strandline::salvage(&nothing, &target, &two_stores::NAMES).map(drop),
    ));
    for (name, refused) in refused {
        assert!(refused.is_err(), "{name}");
        assert!(!folder.path().join("one").exists(), "{name} leaves something");
    }
    (fills[2].1)(&target).expect("a salvage works without the manifest");
}

#[test]
fn a_backup_of_a_damaged_directory_is_refused_and_leaves_nothing() {
    let image = two_segments();
    let name = image
        .files
        .keys()
        .find(|name| name.ends_with(".data"))
        .expect("there is a segment")
        .clone();
    let disk = changed(&image, |files| files.get_mut(&name).expect("it is there").truncate(90));
    let backup = SimulatedDisk::new();
    let error = open(&disk).backup_in(&dir(&backup)).expect_err("it is damaged");
    assert!(error.to_string().contains(&name), "{error}");
    assert!(backup.contents().files.is_empty());
}
