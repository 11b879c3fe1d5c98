//! Dumps and imports: what is dumped is what is imported, and what is left out is named.

use std::io::Write as _;

use super::*;

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

pub fn import(dir: &Path, dump: &str) -> Output {
    let mut process = start_import(dir);
    process.stdin.take().expect("it is piped").write_all(dump.as_bytes()).expect("it reads");
    process.wait_with_output().expect("it ends")
}

#[test]
fn a_dump_that_is_imported_dumps_the_same_but_for_the_times() {
    let (folder, dir) = made();
    let engine = open_when_free(&dir);
    engine.store("messages").expect("a store").delete(b"c/1", &[1, 2]).expect("deletes");
    engine
        .create_store("im.state", None)
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
fn a_line_that_cannot_be_imported_is_named_and_those_before_it_are_imported() {
    let (folder, dir) = made();
    let (dump, _) = ends_with(&verb("dump", &[&dir]), 0);
    let target = folder.path().join("imported");
    let (_, err) = ends_with(&import(&target, &format!("{dump}\n{{\"store\":1}}\n")), 2);
    assert!(err.contains("line 6"), "{err}");
    assert_eq!(untimed(&ends_with(&verb("dump", &[&target]), 0).0), untimed(&dump));
    let (_, err) = ends_with(&import(&target, &dump), 2);
    assert!(err.contains("line 1") && err.contains("above the last"), "{err}");
    // Lines are under way at once: those behind it are not in all the same.
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
fn an_import_locks_its_directory_against_every_other_verb() {
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
        assert!(err.contains("exists already"), "{name}: {err}");
    }
    drop(input);
    ends_with(&first.wait_with_output().expect("it ends"), 0);
    assert_eq!(untimed(&ends_with(&verb("dump", &[&target]), 0).0), untimed(&dump));
}

#[test]
fn a_dump_of_damage_leaves_out_only_the_damaged_sequences_and_names_them() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let dir = folder.path().join("data");
    let engine = Engine::open(&dir, Config::default().engine_options()).expect("opens");
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
        store.append(b"c/1", body()).expect("appends");
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
fn a_dump_of_a_missing_store_names_the_existing_ones() {
    let (_folder, dir) = made();
    let output = run(&[Path::new("dump"), &dir, Path::new("--store"), Path::new("nope")]);
    let (_, err) = ends_with(&output, 2);
    assert!(err.contains("messages, other, sync") && !err.contains("create"), "{err}");
}
