//! The binary's verbs for looking after a directory, as a person calls them: what they print and
//! with which code they end. Dumps and imports, and the binary as a server, have files of their
//! own.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "the tests damage files, and give a verb one as its output"
)]

#[path = "care/dumps.rs"]
mod dumps;
#[path = "care/serving.rs"]
mod serving;

use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use dumps::import;
use strandline::{Copies, Engine};
use strandline_server::{Config, Hash};
use tempfile::TempDir;

fn run(arguments: &[&Path]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_strandline"))
        .args(arguments)
        .output()
        .expect("the binary starts")
}

fn verb(name: &str, dirs: &[&Path]) -> Output {
    run(&[&[Path::new(name)], dirs].concat())
}

fn text(output: &Output) -> (String, String) {
    (String::from_utf8_lossy(&output.stdout).into(), String::from_utf8_lossy(&output.stderr).into())
}

#[track_caller]
fn ends_with(output: &Output, code: i32) -> (String, String) {
    let (out, err) = text(output);
    assert_eq!(output.status.code(), Some(code), "{out}\n{err}");
    (out, err)
}

/// A closed directory with entries: names and bodies that are text, and some that are not.
fn made() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let dir = folder.path().join("data");
    let engine = Engine::open(&dir, Config::default().engine_options()).expect("opens");
    let messages = engine.store("messages").expect("a store");
    for (name, body) in
        [(b"c/1".as_slice(), b"hello".as_slice()), (b"c/1", &[0xFF, 0]), (&[0xFE], b"")]
    {
        messages.append(name, body).expect("appends");
    }
    engine
        .create_store("other", None)
        .expect("makes a store")
        .append(b"t", "ü\n".as_bytes())
        .expect("appends");
    engine.close().expect("closes");
    (folder, dir)
}

fn damage(dir: &Path) -> String {
    let files = std::fs::read_dir(dir).expect("lists").map(|entry| entry.expect("lists").path());
    let mut data: Vec<PathBuf> =
        files.filter(|path| path.extension().is_some_and(|ending| ending == "data")).collect();
    data.sort();
    let mut bytes = std::fs::read(&data[0]).expect("reads");
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    std::fs::write(&data[0], bytes).expect("writes");
    data[0].file_name().expect("a file").to_string_lossy().into()
}

/// A child that another test is starting holds all descriptors, the lock's too, until it has become
/// its program.
fn open_when_free(dir: &std::path::Path) -> Engine {
    loop {
        match Engine::open(dir, Config::default().engine_options()) {
            Err(strandline::Error::Locked { .. }) => std::thread::yield_now(),
            opened => return opened.expect("opens"),
        }
    }
}

#[test]
fn verify_exits_with_0_if_intact_1_for_damage_and_2_without_an_engine() {
    let (folder, dir) = made();
    let (out, _) = ends_with(&verb("verify", &[&dir]), 0);
    assert!(out.starts_with("0 findings"), "{out}");
    let file = damage(&dir);
    let (out, _) = ends_with(&verb("verify", &[&dir]), 1);
    assert!(
        out.contains(&file) && out.contains("timeline messages:c/1, sequences 1 to 2"),
        "{out}"
    );
    assert!(
        out.contains("next: restore a backup") && !out.contains("repair"),
        "nothing can be mended: {out}"
    );
    let (_, error) = ends_with(&verb("verify", &[&folder.path().join("nothing")]), 2);
    assert_eq!(error.matches("No such file").count(), 1, "{error}");
    ends_with(&verb("verify", &[]), 2);
}

#[test]
fn repair_restores_files_that_are_kept_twice_and_names_the_others() {
    let (folder, dir) = made();
    ends_with(&verb("repair", &[&folder.path().join("nothing")]), 2);
    assert!(!folder.path().join("nothing").exists(), "a mistyped name makes no directory");
    let (out, _) = ends_with(&verb("repair", &[&dir]), 0);
    assert!(out.contains("0 files mended"), "{out}");
    let engine = open_when_free(&dir);
    engine.set_store_copies("messages", Copies::Twice).expect("copies");
    engine.close().expect("closes");
    drop(engine);
    let (dump, _) = ends_with(&verb("dump", &[&dir]), 0);
    let file = damage(&dir);
    assert_eq!(ends_with(&verb("dump", &[&dir]), 0).0, dump, "the other copy is read");
    let (out, _) = ends_with(&verb("verify", &[&dir]), 1);
    assert!(out.contains(&file) && out.contains("its other copy is good"), "{out}");
    assert!(out.contains("next: strandline repair"), "{out}");
    let (out, _) = ends_with(&verb("repair", &[&dir]), 1);
    assert!(out.contains("its other copy is good") && out.contains("1 files mended"), "{out}");
    assert!(out.contains(&format!("mended {}", dir.join(&file).display())), "{out}");
    ends_with(&verb("verify", &[&dir]), 0);
    // Damage to files that are kept once can only be reported.
    let (_folder, dir) = made();
    let file = damage(&dir);
    let (out, _) = ends_with(&verb("repair", &[&dir]), 1);
    assert!(out.contains(&file) && out.contains("0 files mended"), "{out}");
    ends_with(&verb("verify", &[&dir]), 1);
}

#[test]
fn a_backup_is_restored_with_another_history_and_nothing_is_overwritten() {
    let (folder, dir) = made();
    let (backup, restored) = (folder.path().join("backup"), folder.path().join("restored"));
    ends_with(&verb("backup", &[&dir, &backup]), 0);
    ends_with(&verb("restore", &[&backup, &restored]), 0);
    ends_with(&verb("verify", &[&restored]), 0);
    assert_eq!(ends_with(&verb("dump", &[&dir]), 0).0, ends_with(&verb("dump", &[&restored]), 0).0);
    let epoch =
        |dir: &Path| Engine::open(dir, Config::default().engine_options()).expect("opens").epoch();
    assert_ne!(epoch(&dir), epoch(&restored));
    ends_with(&verb("backup", &[&dir, &backup]), 2);
    ends_with(&verb("restore", &[&backup, &restored]), 2);
    ends_with(&verb("backup", &[&folder.path().join("nothing"), &folder.path().join("new")]), 2);
    assert!(!folder.path().join("nothing").exists());
}

#[test]
fn a_directory_in_use_is_left_alone_and_the_command_for_its_server_is_named() {
    let (folder, dir) = made();
    let _engine = Engine::open(&dir, Config::default().engine_options()).expect("opens");
    let (_, err) = ends_with(&verb("backup", &[&dir, &folder.path().join("backup")]), 2);
    assert!(err.contains("TL.BACKUP"), "{err}");
    let (_, err) = ends_with(&verb("verify", &[&dir]), 2);
    assert!(err.contains("TL.VERIFY"), "{err}");
}

#[test]
fn a_salvaged_directory_verifies_and_the_losses_are_reported() {
    let (folder, dir) = made();
    let file = damage(&dir);
    let target = folder.path().join("salvaged");
    let (out, _) = ends_with(&verb("salvage", &[&dir, &target]), 1);
    assert!(out.contains(&file) && out.contains("timeline messages:c/1"), "{out}");
    ends_with(&verb("verify", &[&target]), 0);
    let (out, _) = ends_with(&verb("dump", &[&target]), 0);
    assert!(out.contains(r#""store":"other","timeline":"t","sequence":1"#), "{out}");
}

#[test]
fn a_salvage_without_the_manifest_knows_the_stores_of_the_server() {
    let (folder, dir) = made();
    let files = std::fs::read_dir(&dir).expect("lists").map(|file| file.expect("a file").path());
    let is_manifest = |path: &PathBuf| path.to_string_lossy().contains("manifest-");
    files.filter(is_manifest).for_each(|path| std::fs::remove_file(path).expect("removes"));
    let target = folder.path().join("salvaged");
    ends_with(&verb("salvage", &[&dir, &target]), 1);
    let engine = open_when_free(&target);
    let names: Vec<String> = engine.stores().into_iter().map(|store| store.name).collect();
    assert!(names.starts_with(&["messages".into()]) && names.contains(&"sync".into()), "{names:?}");
    let messages = engine.store("messages").expect("a store");
    assert_eq!(messages.get(b"c/1", 1).expect("reads").expect("is there").body, "hello");
}

#[test]
fn a_directory_of_an_engine_without_the_server_is_salvaged() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let (dir, target) = (folder.path().join("data"), folder.path().join("salvaged"));
    let engine = Engine::open(&dir, strandline::Options::default()).expect("opens");
    let store = engine.create_store("box", None).expect("makes a store");
    store.append(b"t", b"x").expect("appends");
    engine.close().expect("closes");
    let (out, _) = ends_with(&verb("salvage", &[&dir, &target]), 0);
    assert!(out.contains("0 findings; saved 1 timelines, 1 entries"), "{out}");
    let stores = open_when_free(&target).stores();
    assert_eq!(stores.iter().map(|store| store.name.as_str()).collect::<Vec<_>>(), ["box"]);
}

#[test]
fn a_directory_without_an_engine_gets_one_only_from_verbs_that_fill_it() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let path = |name: &str| folder.path().join(name);
    let listed = |dir: &Path| std::fs::read_dir(dir).map_or(0, Iterator::count);
    std::fs::create_dir(path("empty")).expect("makes it");
    std::fs::create_dir(path("other")).expect("makes it");
    std::fs::write(path("other/notes.txt"), "mine").expect("writes");
    for (name, targets) in [
        ("verify", vec![]),
        ("repair", vec![]),
        ("backup", vec![path("target")]),
        ("restore", vec![path("target")]),
        ("salvage", vec![path("target")]),
        ("rebuild-members", vec![]),
        ("dump", vec![]),
        ("import", vec![]),
    ] {
        for dir in ["missing", "empty", "other"] {
            if name == "import" && dir != "other" {
                continue;
            }
            let mut paths = vec![path(dir)];
            paths.extend(targets.clone());
            let paths: Vec<&Path> = paths.iter().map(PathBuf::as_path).collect();
            let (_, err) = ends_with(&verb(name, &paths), 2);
            assert!(err.contains(dir), "{name}: {err}");
            assert_eq!((listed(&path("empty")), listed(&path("other"))), (0, 1), "{name} {dir}");
            assert!(!path("missing").exists() && !path("target").exists(), "{name} {dir}");
        }
    }
    ends_with(&import(&path("empty"), ""), 0);
    ends_with(&verb("verify", &[&path("empty")]), 0);
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).expect("it is there").permissions().mode() & 0o7777
}

/// Runs a command under a umask that removes no permission. Returns the modes of the files in `dir`
/// afterwards.
fn modes(arguments: &[&Path], dir: &Path) -> Vec<(PathBuf, u32)> {
    let under = "umask 0; exec \"$0\" \"$@\" < /dev/null";
    let mut command = Command::new("sh");
    command.arg("-c").arg(under).arg(env!("CARGO_BIN_EXE_strandline")).args(arguments);
    ends_with(&command.output().expect("a shell starts"), 0);
    let files = std::fs::read_dir(dir).expect("lists").map(|entry| entry.expect("lists").path());
    files.map(|path| (path.clone(), mode(&path))).collect()
}

#[test]
fn created_files_are_for_the_owner_only_whatever_the_umask_and_existing_ones_keep_their_mode() {
    let (folder, dir) = made();
    let shared = folder.path().join("shared");
    std::fs::create_dir(&shared).expect("makes it");
    let set = |path: &Path, mode| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("it is ours");
    };
    set(&shared, 0o755);
    let path = |name: &str| shared.join(name);
    let data = path("new/data");
    let works: [(&str, Vec<PathBuf>); 4] = [
        ("import", vec![data.clone()]),
        ("backup", vec![dir.clone(), path("b/backup")]),
        ("restore", vec![path("b/backup"), path("r/restored")]),
        ("salvage", vec![dir.clone(), path("s/salvaged")]),
    ];
    for (name, paths) in works {
        let arguments: Vec<&Path> =
            std::iter::once(Path::new(name)).chain(paths.iter().map(PathBuf::as_path)).collect();
        let target = paths.last().expect("each has one");
        let files = modes(&arguments, target);
        assert!(files.len() >= 2, "{name}: {files:?}");
        assert!(files.iter().all(|(_, mode)| *mode == 0o600), "{name}: {files:?}");
        let above = target.parent().expect("it has one");
        assert_eq!((mode(target), mode(above), mode(&shared)), (0o700, 0o700, 0o755), "{name}");
    }
    // Linked files, and those that were there before, keep their owner's modes.
    let is_data = |file: &Path| file.extension().is_some_and(|ending| ending == "data");
    let open = path("open");
    std::fs::create_dir(&open).expect("makes it");
    set(&open, 0o750);
    for (file, _) in
        modes(&[Path::new("verify"), &dir], &dir).iter().filter(|(file, _)| is_data(file))
    {
        set(file, 0o640);
    }
    let files = modes(&[Path::new("backup"), &dir, &open], &open);
    assert!(
        files.iter().all(|(file, mode)| *mode == if is_data(file) { 0o640 } else { 0o600 }),
        "{files:?}"
    );
    assert_eq!(mode(&open), 0o750);
}

/// The output of `hash-password`, given its standard input.
fn hashed(input: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_strandline"));
    command.arg("hash-password").stdin(Stdio::piped());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut process = command.spawn().expect("starts");
    let mut stdin = process.stdin.take().expect("it is piped");
    stdin.write_all(input.as_bytes()).expect("it reads");
    drop(stdin);
    process.wait_with_output().expect("ends")
}

#[test]
fn a_password_is_hashed_for_the_configuration_file() {
    let (out, _) = ends_with(&hashed("pass word\n"), 0);
    let hash = Hash::parse(out.trim()).expect("it is a hash");
    assert!(hash.matches(b"pass word") && !hash.matches(b"pass word\n"));
    ends_with(&hashed("\n"), 1);
}

#[test]
fn the_help_of_each_verb_says_what_it_does() {
    for (name, word) in [
        ("verify", "checksum"),
        ("repair", "two copies"),
        ("backup", "TL.BACKUP"),
        ("restore", "EPOCH"),
        ("salvage", "not changed"),
        ("rebuild-members", "copies of its events"),
        ("dump", "NDJSON"),
        ("import", "time of the import"),
    ] {
        let (out, _) = ends_with(&run(&[Path::new(name), Path::new("--help")]), 0);
        assert!(out.contains(word), "{out}");
    }
}

/// Runs a verb with this standard output.
fn into(output: impl Into<Stdio>, name: &str, dirs: &[&Path]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_strandline"));
    command.arg(name).args(dirs).stdout(output).stderr(Stdio::piped());
    command.spawn().and_then(Child::wait_with_output).expect("the binary runs")
}

/// Runs a verb whose standard output nobody reads.
fn unread(name: &str, dirs: &[&Path]) -> Output {
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    into(writer, name, dirs)
}

#[test]
fn a_report_that_the_disk_does_not_take_is_an_error() {
    let (_folder, dir) = made();
    let full = || std::fs::File::options().write(true).open("/dev/full").expect("it is there");
    for (name, dirs, code) in
        [("verify", vec![dir.as_path()], 2), ("dump", vec![&dir], 2), ("settings", vec![], 1)]
    {
        let (_, err) = ends_with(&into(full(), name, &dirs), code);
        assert!(err.contains("No space left on device"), "{name}: {err}");
    }
}

#[test]
fn a_verb_whose_output_nobody_reads_does_its_work_and_exits_quietly_with_3() {
    let (folder, dir) = made();
    let [backup, restored, salvaged] = ["b", "r", "s"].map(|name| folder.path().join(name));
    for (name, dirs) in [
        ("verify", vec![dir.as_path()]),
        ("repair", vec![&dir]),
        ("dump", vec![&dir]),
        ("backup", vec![&dir, &backup]),
        ("restore", vec![&backup, &restored]),
        ("salvage", vec![&dir, &salvaged]),
        ("rebuild-members", vec![&dir]),
    ] {
        let (_, err) = ends_with(&unread(name, &dirs), 3);
        assert!(!err.contains("panicked") && !err.contains("strandline: "), "{name}: {err}");
    }
    for whole in [&backup, &restored, &salvaged] {
        ends_with(&verb("verify", &[whole]), 0);
    }
    ends_with(&unread("restore", &[&dir.join("nothing"), &folder.path().join("x")]), 2);
    damage(&dir);
    ends_with(&unread("verify", &[&dir]), 1);
    for name in ["--help", "--version"] {
        let (_, err) = text(&unread(name, &[]));
        assert!(!err.contains("panicked"), "{err}");
    }
}
