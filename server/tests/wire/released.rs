//! The directories of earlier releases stay readable, with what the server itself keeps in them:
//! each folder in `fixtures/` was written once, by the release whose name it has, and is never
//! edited. The files alone are tested in `engine/tests/format/compat.rs`.
//!
//! Checked for each, on a copy: messages, users, marks and a cursor of that time are as they were;
//! the server continues with the next sequences; all of it is there after another start.
//!
//! The folder of a release is written once, before the version in the manifests is raised:
//!
//! ```text
//! cargo test -p strandline-server --test wire released -- --ignored
//! ```

#![allow(clippy::disallowed_methods, reason = "fixtures are files on the disk")]

use std::path::{Path, PathBuf};

use crate::support::{Client, TestServer, Value};

/// The cursor of a terminal, as the release gave it.
const CURSOR: &str = "cursor-of-bob.txt";

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

fn server() -> TestServer {
    TestServer::with(|config| {
        // A fixture is read years later.
        config.sync_ttl_ms = 0;
        // Zeros need not be in the repository.
        config.reserve_bytes = 0;
    })
}

fn copy(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).expect("a folder") {
        let path = entry.expect("an entry").path();
        std::fs::copy(&path, to.join(path.file_name().expect("a file"))).expect("it is copied");
    }
}

/// Writes what `check` expects; returns the cursor of a terminal in the middle of it.
fn tell(client: &mut Client) -> String {
    for line in [
        "TL.APPEND messages:notes one ID n1",
        "TL.APPEND messages:notes two",
        "TL.FANOUT three 2 messages:notes sync:inbox-ann",
        "TL.EDIT messages:notes 2 TWO",
        "TL.TRIM messages:notes BEFORE 2",
        "TL.STORE CREATE files",
        "TL.APPEND files:a kept",
        "IM.CREATE team MEMBERS ann bob cid",
        "IM.SEND team ann hello",
        "IM.SEND team bob draft",
        "IM.EDIT team bob 2 hi",
        "TL.FLUSH",
        "IM.CREATE news MODE pull HISTORY joined MEMBERS ann bob",
        "IM.SEND news ann headline",
        "IM.READ team bob 1",
        "IM.LEAVE team cid",
    ] {
        let reply = client.line(line);
        assert!(!matches!(reply, Value::Error(_)), "{line}: {reply:?}");
    }
    let synced = client.line("IM.SYNC bob 0");
    assert_eq!(synced.get("more").integer(), 0);
    for line in ["IM.SEND team ann secret", "IM.SEND team ann bye"] {
        let reply = client.line(line);
        assert!(!matches!(reply, Value::Error(_)), "{line}: {reply:?}");
    }
    let last = client.line("IM.HISTORY team ann COUNT 2");
    let secret = last.items()[1].items()[0].integer();
    assert_eq!(client.line(&format!("IM.RECALL team ann {secret}")), Value::Integer(1));
    synced.get("cursor").text()
}

/// The kinds and bodies of events, from these positions of their arrays on.
fn told(events: &Value, kind: usize) -> Vec<(String, String)> {
    let of = |event: &Value| (event.items()[kind].text(), event.items()[kind + 1].text());
    events.items().iter().map(of).collect()
}

fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
    expected.iter().map(|(kind, body)| ((*kind).to_owned(), (*body).to_owned())).collect()
}

fn check(client: &mut Client, cursor: &str) {
    let entries = client.line("TL.RANGE messages:notes - +").entries();
    assert_eq!(entries, [(2, "TWO".into()), (3, "three".into())]);
    assert_eq!(client.line("TL.INFO messages:notes").get("trimmed_to").integer(), 1);
    assert_eq!(client.line("TL.RANGE sync:inbox-ann - +").entries(), [(1, "three".into())]);
    assert_eq!(client.line("TL.RANGE files:a - +").entries(), [(1, "kept".into())]);
    let members = client.line("IM.MEMBERS team");
    assert_eq!(members, Value::Array(vec![Value::bulk("ann"), Value::bulk("bob")]));
    assert_eq!(client.line("IM.INFO news").get("mode").text(), "pull");
    let unread = client.line("IM.UNREAD bob");
    assert_eq!((unread.get("team").integer(), unread.get("news").integer()), (1, 1));
    let history = client.line("IM.HISTORY team ann AFTER 0 COUNT 3");
    let expected = [("message", "hello"), ("message", "hi"), ("leave", "")];
    assert_eq!(told(&history, 3), pairs(&expected));
    // A terminal that was away since that release continues from its cursor.
    let synced = client.line(&format!("IM.SYNC bob {cursor}"));
    assert_eq!((synced.get("verdict").text().as_str(), synced.get("more").integer()), ("OK", 0));
    let expected = [("recall", ""), ("message", "bye"), ("recall", "")];
    assert_eq!(told(&synced.get("entries"), 4), pairs(&expected));
}

#[test]
fn the_directory_of_each_release_opens_with_all_that_is_in_it() {
    let mut count = 0;
    for release in std::fs::read_dir(fixtures()).expect("there are fixtures") {
        let release = release.expect("an entry").path();
        let mut server = server();
        server.pause();
        std::fs::remove_dir_all(server.data()).expect("the new directory");
        std::fs::create_dir(server.data()).expect("it is made");
        copy(&release.join("data"), &server.data());
        server.resume();
        let cursor = std::fs::read_to_string(release.join(CURSOR)).expect("it has a cursor");
        check(&mut server.client(), cursor.trim());
        server.restart();
        let mut client = server.client();
        check(&mut client, cursor.trim());
        assert_eq!(client.line("TL.APPEND messages:notes four"), Value::Integer(4));
        let sent = client.line("IM.SEND team bob again");
        let last = client.line("IM.INFO team").get("last").integer();
        assert_eq!(sent.get("seq").integer(), last);
        assert_eq!(client.line("IM.UNREAD ann team").get("team").integer(), 2);
        count += 1;
    }
    assert!(count > 0, "there is a release");
}

#[test]
#[ignore = "writes the fixture of this version, once"]
fn the_directory_of_this_release_is_written() {
    let folder = fixtures().join(env!("CARGO_PKG_VERSION"));
    assert!(!folder.exists(), "{} is there, and is never edited", folder.display());
    let mut server = server();
    let cursor = tell(&mut server.client());
    server.pause();
    std::fs::create_dir_all(folder.join("data")).expect("it is made");
    copy(&server.data(), &folder.join("data"));
    let lock = folder.join("data/LOCK");
    std::fs::remove_file(lock).expect("the copy is locked by nobody");
    std::fs::write(folder.join(CURSOR), cursor + "\n").expect("it is written");
}
