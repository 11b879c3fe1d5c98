//! TL.VERIFY and TL.BACKUP on a running server.

#![allow(clippy::disallowed_methods, reason = "the tests look at files")]

use strandline::Engine;
use strandline_server::Config;

use crate::support::{TestServer, Value};

#[test]
fn verify_returns_totals_and_findings_in_both_dialects() {
    let server = TestServer::start();
    let mut writer = server.client();
    writer.line("TL.APPEND messages:a one");
    writer.line("TL.FLUSH");
    for mut client in [server.client(), server.client3()] {
        let found = client.line("TL.VERIFY");
        // In addition to the entry there is the mark of messaging.
        assert_eq!((found.get("entries").integer(), found.get("timelines").integer()), (2, 2));
        assert!(found.get("files").integer() >= 4 && found.get("bytes").integer() > 0);
        assert_eq!(
            (found.get("findings"), found.get("left_off").integer()),
            (Value::Array(vec![]), 0)
        );
    }
}

#[test]
fn verify_names_the_file_and_the_timeline_of_what_is_damaged() {
    let server = TestServer::start();
    let mut client = server.client();
    client.line("TL.APPEND messages:a one");
    client.line("TL.FLUSH");
    server.damage_a_segment();
    let findings = client.line("TL.VERIFY").get("findings");
    let named = findings
        .items()
        .iter()
        .find(|finding| finding.text_of("timeline").is_some())
        .expect("it is named");
    assert!(named.get("file").text().contains(".data"), "{named:?}");
    assert_eq!(
        (named.get("store").text(), named.get("timeline").text()),
        ("messages".into(), "a".into())
    );
    assert_eq!((named.get("first").integer(), named.get("last").integer()), (1, 1));
}

#[test]
fn a_backup_of_a_running_server_is_restored_and_holds_what_was_acknowledged() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let backup_dir = folder.path().to_owned();
    let server = TestServer::with(|config| config.backup_dir = Some(backup_dir));
    let mut client = server.client();
    client.line("TL.APPEND messages:a one");
    let (backup, restored) = (folder.path().join("backup"), folder.path().join("restored"));
    let made = client.call(&["TL.BACKUP", backup.to_str().expect("a name")]);
    // The manifest; the data of the segment and both copies of its index; and both copies of
    // messaging's ledgers, which have a mark.
    assert_eq!((made.get("entries").integer(), made.get("files").integer()), (2, 8));
    client.line("TL.APPEND messages:a two");
    strandline::restore(&backup, &restored).expect("restores");
    let engine = Engine::open(&restored, Config::default().engine_options()).expect("opens");
    assert_eq!(engine.store("messages").expect("a store").info(b"a").expect("reads").last, 1);
    assert_eq!(client.call(&["TL.BACKUP", backup.to_str().expect("a name")]).word(), "ERR");
    assert!(client.line("TL.BACKUP here").get("files").integer() > 0);
    assert!(folder.path().join("here").is_dir(), "a name is one below the directory");
}
