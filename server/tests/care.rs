//! The binary's commands for the care of a directory: their output and exit codes.

#![allow(clippy::disallowed_methods, reason = "the tests damage files")]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use strandline::{Copies, Engine, Options};
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
    let engine = Engine::open(&dir, Options::default()).expect("opens");
    let messages = engine.store("messages").expect("a store");
    for (name, body) in
        [(b"c/1".as_slice(), b"hello".as_slice()), (b"c/1", &[0xFF, 0]), (&[0xFE], b"")]
    {
        messages.append(name, body).expect("appends");
    }
    engine
        .create_store("other", 0)
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

#[test]
fn verify_ends_with_0_for_what_is_whole_1_for_damage_and_2_where_there_is_nothing() {
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
fn repair_mends_what_is_kept_twice_and_names_what_is_not() {
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
    let epoch = |dir: &Path| Engine::open(dir, Options::default()).expect("opens").epoch();
    assert_ne!(epoch(&dir), epoch(&restored));
    ends_with(&verb("backup", &[&dir, &backup]), 2);
    ends_with(&verb("restore", &[&backup, &restored]), 2);
    ends_with(&verb("backup", &[&folder.path().join("nothing"), &folder.path().join("new")]), 2);
    assert!(!folder.path().join("nothing").exists());
}

#[test]
fn a_directory_in_use_is_left_alone_and_the_command_for_its_server_is_told() {
    let (folder, dir) = made();
    let _engine = Engine::open(&dir, Options::default()).expect("opens");
    let (_, err) = ends_with(&verb("backup", &[&dir, &folder.path().join("backup")]), 2);
    assert!(err.contains("TL.BACKUP"), "{err}");
    let (_, err) = ends_with(&verb("verify", &[&dir]), 2);
    assert!(err.contains("TL.VERIFY"), "{err}");
}

#[test]
fn what_is_salvaged_verifies_and_the_losses_are_told() {
    let (folder, dir) = made();
    let file = damage(&dir);
    let target = folder.path().join("salvaged");
    let (out, _) = ends_with(&verb("salvage", &[&dir, &target]), 1);
    assert!(out.contains(&file) && out.contains("timeline messages:c/1"), "{out}");
    ends_with(&verb("verify", &[&target]), 0);
    let (out, _) = ends_with(&verb("dump", &[&target]), 0);
    assert!(out.contains(r#""store":"other","timeline":"t","sequence":1"#), "{out}");
}

/// A dump's lines without their times.
fn untimed(dump: &str) -> Vec<String> {
    let line = |line: &str| {
        let mut value: serde_json::Value =
            serde_json::from_str(line).expect("each line is an object");
        value.as_object_mut().expect("an object").remove("time").expect("it has a time");
        value.to_string()
    };
    dump.lines().map(line).collect()
}

fn start_import(dir: &Path) -> Child {
    Command::new(env!("CARGO_BIN_EXE_strandline"))
        .arg("import")
        .arg(dir)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary starts")
}

fn import(dir: &Path, dump: &str) -> Output {
    let mut process = start_import(dir);
    process.stdin.take().expect("it is piped").write_all(dump.as_bytes()).expect("it reads");
    process.wait_with_output().expect("it ends")
}

/// A child that another test is starting holds all descriptors, including the lock's, until it
/// executes its program.
fn open_when_free(dir: &std::path::Path) -> Engine {
    loop {
        match Engine::open(dir, Options::default()) {
            Err(strandline::Error::Locked { .. }) => std::thread::yield_now(),
            opened => return opened.expect("opens"),
        }
    }
}

#[test]
fn a_dump_that_is_imported_dumps_the_same_but_for_the_times() {
    let (folder, dir) = made();
    let engine = open_when_free(&dir);
    engine.store("messages").expect("a store").delete(b"c/1", &[1, 2]).expect("deletes");
    engine
        .create_store("im.state", 0)
        .expect("makes a store")
        .append(b"u/ann", b"x")
        .expect("appends");
    engine.close().expect("closes");
    let (dump, _) = ends_with(&verb("dump", &[&dir]), 0);
    assert_eq!(dump.lines().count(), 3, "{dump}");
    let stores: Vec<&str> = dump.lines().filter_map(|line| line.split('"').nth(3)).collect();
    assert_eq!(stores, ["messages", "other", "im.state"], "ledgers come last");
    let target = folder.path().join("imported");
    ends_with(&import(&target, &dump), 0);
    let (again, _) = ends_with(&verb("dump", &[&target]), 0);
    assert_eq!(untimed(&again), untimed(&dump));
}

#[test]
fn a_line_that_cannot_be_taken_is_named_and_those_before_it_are_in() {
    let (folder, dir) = made();
    let (dump, _) = ends_with(&verb("dump", &[&dir]), 0);
    let target = folder.path().join("imported");
    let (_, err) = ends_with(&import(&target, &format!("{dump}\n{{\"store\":1}}\n")), 2);
    assert!(err.contains("line 6"), "{err}");
    assert_eq!(untimed(&ends_with(&verb("dump", &[&target]), 0).0), untimed(&dump));
    let (_, err) = ends_with(&import(&target, &dump), 2);
    assert!(err.contains("line 1") && err.contains("above the last"), "{err}");
    // Several lines are imported at once: later ones are not imported nevertheless.
    let line = |timeline: &str, sequence: u32| {
        format!(
            "{{\"store\":\"messages\",\"timeline\":\"{timeline}\",\"sequence\":{sequence},\
             \"time\":1,\"body\":\"x\"}}\n"
        )
    };
    let lines = [("a", 1), ("a", 3), ("b", 1), ("a", 3), ("c", 1), ("a", 4)];
    let target = folder.path().join("in part");
    let dump: String = lines.iter().map(|(timeline, sequence)| line(timeline, *sequence)).collect();
    let (_, err) = ends_with(&import(&target, &dump), 2);
    assert!(err.contains("line 4") && err.contains("above the last one, 3"), "{err}");
    assert_eq!(untimed(&ends_with(&verb("dump", &[&target]), 0).0).len(), 3);
}

#[test]
fn a_directory_that_holds_no_engine_gets_none_but_where_it_is_filled() {
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

#[test]
fn an_import_keeps_every_other_verb_out_of_its_directory() {
    let (folder, dir) = made();
    let (dump, _) = ends_with(&verb("dump", &[&dir]), 0);
    let (backup, target) = (folder.path().join("backup"), folder.path().join("imported"));
    ends_with(&verb("backup", &[&dir, &backup]), 0);
    let mut first = start_import(&target);
    let mut input = first.stdin.take().expect("it is piped");
    input.write_all(dump.as_bytes()).expect("it reads");
    // It has the directory once its manifest is there, and waits for the end of its input.
    let is_open = || {
        let files =
            std::fs::read_dir(&target).into_iter().flatten().map(|entry| entry.expect("lists"));
        files.into_iter().any(|file| file.file_name().to_string_lossy().starts_with("wal-"))
    };
    while !is_open() {
        assert_eq!(first.try_wait().expect("it runs"), None, "it waits for its input");
        std::thread::yield_now();
    }
    let lock = target.join("LOCK");
    let (_, err) = ends_with(&import(&target, &dump), 2);
    assert!(
        err.contains("another command") && err.contains(lock.to_str().expect("a name")),
        "{err}"
    );
    ends_with(&verb("verify", &[&target]), 2);
    for (name, source) in [("backup", &dir), ("restore", &backup), ("salvage", &backup)] {
        let (_, err) = ends_with(&verb(name, &[source, &target]), 2);
        assert!(err.contains("is there already"), "{name}: {err}");
    }
    drop(input);
    ends_with(&first.wait_with_output().expect("it ends"), 0);
    assert_eq!(untimed(&ends_with(&verb("dump", &[&target]), 0).0), untimed(&dump));
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
fn what_is_made_is_its_owners_only_whatever_the_umask_and_what_was_there_keeps_its_mode() {
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

#[test]
fn each_verb_tells_a_stranger_what_it_does() {
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

#[test]
fn a_dump_of_damage_leaves_out_only_the_damaged_sequences_and_names_them() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let dir = folder.path().join("data");
    let engine = Engine::open(&dir, Options::default()).expect("opens");
    let store = engine.store("messages").expect("a store");
    // Bodies that do not compress: several blocks, of which the last is damaged.
    let mut state = 1_u64;
    let mut body = || -> Vec<u8> {
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 56) as u8
        };
        (0..20_000).map(|_| next()).collect()
    };
    for _ in 0..30 {
        store.append(b"c/1", &body()).expect("appends");
    }
    engine.close().expect("closes");
    damage(&dir);
    let (out, err) = ends_with(&verb("dump", &[&dir]), 1);
    let left_out: Vec<&str> = err.lines().filter(|line| line.contains("left out")).collect();
    assert_eq!(left_out.len(), 1, "{err}");
    assert!(
        left_out[0].contains("messages:c/1, sequences ") && err.contains("strandline salvage"),
        "{err}"
    );
    let dumped = out.lines().count();
    assert!((20..30).contains(&dumped), "{dumped} of 30 entries\n{err}");
    let (out, _) = ends_with(&verb("verify", &[&dir]), 1);
    assert!(out.contains("next: restore a backup"), "{out}");
}

#[test]
fn a_dump_of_a_store_that_is_not_there_names_those_that_are() {
    let (_folder, dir) = made();
    let output = run(&[Path::new("dump"), &dir, Path::new("--store"), Path::new("nope")]);
    let (_, err) = ends_with(&output, 2);
    assert!(err.contains("messages, other, sync") && !err.contains("create"), "{err}");
}

#[test]
fn rust_log_chooses_what_is_logged() {
    let (_folder, dir) = made();
    let lock = Engine::open(&dir, Options::default()).expect("opens");
    let refused = |levels: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_strandline"));
        let output = command
            .args(["serve", "--port", "0", "--dir"])
            .arg(&dir)
            .env("RUST_LOG", levels)
            .output();
        ends_with(&output.expect("the binary starts"), 1).1
    };
    assert!(refused("error").contains("is locked"));
    assert_eq!(refused("off"), "");
    assert!(refused("strandline=loud").contains("RUST_LOG is not understood"));
    lock.close().expect("closes");
}

/// A server process of the binary, its address, and the lines of its log.
fn served(dir: &Path, config: &str) -> (Child, std::net::SocketAddr, impl Iterator<Item = String>) {
    let file = dir.with_extension("toml");
    std::fs::write(&file, config).expect("writes");
    let mut command = Command::new(env!("CARGO_BIN_EXE_strandline"));
    command.args(["serve", "--port", "0", "--config"]).arg(&file).arg("--dir").arg(dir);
    let mut process =
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("starts");
    let mut announced = String::new();
    BufReader::new(process.stdout.take().expect("it is piped"))
        .read_line(&mut announced)
        .expect("reads");
    let address = announced.trim().strip_prefix("listening on ").expect("an announcement").parse();
    let log = BufReader::new(process.stderr.take().expect("it is piped"));
    (process, address.expect("an address"), log.lines().map(|line| line.expect("reads")))
}

#[test]
fn the_log_names_failed_logins_and_disconnected_clients_once_a_minute_each() {
    let (_folder, dir) = made();
    let (mut process, address, mut log) = served(&dir, "password = \"secret\"\n");
    let mut client = std::net::TcpStream::connect(address).expect("connects");
    let from = client.local_addr().expect("an address");
    client.write_all(&b"AUTH wrong\r\n".repeat(5)).expect("writes");
    client.write_all(b"AUTH secret\r\nCLIENT SETNAME ann\r\n").expect("writes");
    let mut replies = BufReader::new(&client).lines().map(|line| line.expect("reads"));
    let answers: Vec<String> = replies.by_ref().take(7).collect();
    assert_eq!(
        answers.iter().filter(|line| line.starts_with("-WRONGPASS")).count(),
        5,
        "{answers:?}"
    );
    let mut other = std::net::TcpStream::connect(address).expect("connects");
    other.write_all(b"AUTH secret\r\nCLIENT KILL ID 1\r\n").expect("writes");
    assert_eq!(replies.count(), 0, "the connection is closed");
    other.write_all(b"SHUTDOWN\r\n").expect("writes");
    let lines: Vec<String> = log.by_ref().collect();
    assert!(process.wait().expect("ends").success());
    let with = |text: &str| lines.iter().filter(|line| line.contains(text)).collect::<Vec<_>>();
    let (logins, disconnected) = (with("a login failed"), with("a client was disconnected"));
    assert_eq!((logins.len(), disconnected.len()), (1, 1), "{lines:#?}");
    assert!(logins[0].contains(&from.to_string()) && logins[0].contains("WRONGPASS"), "{logins:?}");
    let line = disconnected[0];
    assert!(
        line.contains(&from.to_string()) && line.contains("ann") && line.contains("CLIENT KILL"),
        "{line}"
    );
}

#[test]
fn a_server_that_meets_a_damaged_manifest_says_what_to_do_next_read_only_too() {
    let (_folder, dir) = made();
    let files = std::fs::read_dir(&dir).expect("lists").map(|entry| entry.expect("lists").path());
    let is_manifest = |path: &PathBuf| path.to_string_lossy().contains("manifest-");
    let path = files.filter(is_manifest).max().expect("there is a manifest");
    let mut bytes = std::fs::read(&path).expect("reads");
    *bytes.last_mut().expect("it is not empty") ^= 1;
    std::fs::write(&path, bytes).expect("writes");
    let serve: [&Path; 4] =
        [Path::new("serve"), Path::new("--read-only"), Path::new("--dir"), &dir];
    for arguments in [&serve[..], &[serve[0], serve[2], serve[3]]] {
        let (_, err) = ends_with(&run(arguments), 1);
        assert!(err.contains("is damaged at byte") && err.contains("strandline salvage"), "{err}");
    }
}

/// Runs a command whose standard output is not read.
fn unread(name: &str, dirs: &[&Path]) -> Output {
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let mut command = Command::new(env!("CARGO_BIN_EXE_strandline"));
    command.arg(name).args(dirs).stdout(writer).stderr(Stdio::piped());
    command.spawn().and_then(Child::wait_with_output).expect("the binary runs")
}

#[test]
fn a_verb_whose_output_nobody_reads_does_its_work_and_ends_quietly_with_3() {
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

/// A server with this standard output and standard error, and the address where it is to listen.
fn serve(dir: &Path, out: impl Into<Stdio>, err: impl Into<Stdio>) -> (Child, SocketAddr) {
    let free = TcpListener::bind("127.0.0.1:0")
        .and_then(|socket| socket.local_addr())
        .expect("a free port");
    let mut command = Command::new(env!("CARGO_BIN_EXE_strandline"));
    command.arg("serve").arg("--dir").arg(dir).args(["--port", &free.port().to_string()]);
    (command.stdout(out).stderr(err).spawn().expect("the binary starts"), free)
}

/// Sends lines, and returns everything received until the connection is closed.
fn talk(server: &mut Child, address: SocketAddr, lines: &str) -> String {
    let mut socket = loop {
        match TcpStream::connect(address) {
            Ok(socket) => break socket,
            Err(_) => {
                assert!(server.try_wait().expect("it is a child").is_none(), "the server has ended")
            }
        }
    };
    socket.write_all(lines.as_bytes()).expect("the server takes it");
    let mut replies = String::new();
    let _ = socket.read_to_string(&mut replies);
    replies
}

#[test]
fn a_server_whose_log_nobody_reads_starts_serves_and_stops() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let closed = || std::io::pipe().expect("a pipe").1;
    // Nothing more fits into this one, and a process that writes to it waits.
    let (_nobody_reads, mut full) = std::io::pipe().expect("a pipe");
    full.write_all(&vec![b'x'; 65_536]).expect("that much fits");
    let kinds: [(&str, Stdio, Stdio); 4] = [
        ("closed standard output", closed().into(), Stdio::null()),
        ("closed standard error", Stdio::null(), closed().into()),
        ("full standard error", Stdio::null(), full.try_clone().expect("a second handle").into()),
        ("full standard output", full.into(), Stdio::null()),
    ];
    for (kind, out, err) in kinds {
        let (mut server, address) = serve(&folder.path().join("data"), out, err);
        // Each is a line of the log.
        for _ in 0..3 {
            assert_eq!(talk(&mut server, address, "POST / HTTP/1.1\r\n"), "", "{kind}");
        }
        let replies = talk(&mut server, address, "TL.APPEND messages:a x\r\nPING\r\nQUIT\r\n");
        assert!(
            replies.ends_with("+PONG\r\n+OK\r\n") && replies.starts_with(':'),
            "{kind}: {replies}"
        );
        assert_eq!(talk(&mut server, address, "SHUTDOWN\r\n"), "", "{kind}");
        assert_eq!(server.wait().expect("it ends").code(), Some(0), "{kind}");
    }
}

#[test]
fn with_few_descriptors_most_of_those_that_are_left_serve_clients() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let binary = env!("CARGO_BIN_EXE_strandline");
    let free = TcpListener::bind("127.0.0.1:0")
        .and_then(|socket| socket.local_addr())
        .expect("a free port");
    let script = format!(
        "ulimit -n 64; exec {binary} serve --dir {} --port {}",
        folder.path().join("data").display(),
        free.port()
    );
    let mut server = Command::new("bash").args(["-c", &script]).spawn().expect("bash starts");
    assert_eq!(talk(&mut server, free, "PING\r\nQUIT\r\n"), "+PONG\r\n+OK\r\n");
    let mut clients: Vec<TcpStream> =
        (0..23).map(|_| TcpStream::connect(free).expect("the server listens")).collect();
    for (number, client) in clients.iter_mut().enumerate() {
        client
            .write_all(format!("TL.APPEND messages:{number} x\r\n").as_bytes())
            .expect("it takes it");
        let mut reply = [0; 4];
        client.read_exact(&mut reply).expect("it answers");
        assert_eq!(&reply, b":1\r\n", "client {number}");
    }
    clients.truncate(20);
    assert_eq!(talk(&mut server, free, "TL.FLUSH\r\nSHUTDOWN\r\n"), "+OK\r\n");
    assert_eq!(server.wait().expect("it ends").code(), Some(0));
}
