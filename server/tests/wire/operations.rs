//! docs/operations.md lists every figure, and nothing else. The figures that operators need exist.

#![allow(clippy::disallowed_methods, reason = "the tests read documents of the repository")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crate::support::{TestServer, Value};

fn document(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs").join(name);
    std::fs::read_to_string(path).expect("the document is there")
}

/// The cells of the tables of a section, which ends at the next heading.
fn rows(text: &str, heading: &str) -> Vec<Vec<String>> {
    let (_, section) = text.split_once(&format!("\n{heading}\n")).expect("the section is there");
    let lines = section
        .lines()
        .take_while(|line| !line.starts_with('#'))
        .filter(|line| line.starts_with("| `"));
    lines
        .map(|line| {
            line.trim_matches('|').split(" | ").map(|cell| cell.trim().to_owned()).collect()
        })
        .collect()
}

/// The words in backquotes.
fn quoted(cell: &str) -> impl Iterator<Item = String> + '_ {
    cell.split('`').skip(1).step_by(2).map(ToOwned::to_owned)
}

fn figures_in(heading: &str) -> BTreeSet<String> {
    rows(&document("operations.md"), heading)
        .iter()
        .flat_map(|row| quoted(&row[0]).collect::<Vec<_>>())
        .collect()
}

/// The documented name of a figure: those of stores have a placeholder.
fn kind(name: &str) -> String {
    let ending =
        ["_oldest_ms", "_entries", "_bytes"].into_iter().find(|ending| name.ends_with(ending));
    match (name.starts_with("store_"), ending) {
        (true, Some(ending)) => format!("store_<name>{ending}"),
        _ => name.to_owned(),
    }
}

fn figures_of_code(stats: &Value) -> BTreeSet<String> {
    stats.items().chunks(2).map(|pair| kind(&pair[0].text())).collect()
}

fn facts(info: &str) -> BTreeMap<&str, &str> {
    info.lines().filter_map(|line| line.split_once(':')).collect()
}

#[test]
fn the_document_lists_every_figure_and_no_other() {
    let server = TestServer::start();
    let mut client = server.client();
    let of_code = figures_of_code(&client.line("TL.STATS"));
    assert_eq!(figures_in("### All figures"), of_code);
    let info = client.line("INFO").text();
    let only_in_info: BTreeSet<String> =
        facts(&info).into_keys().map(kind).filter(|name| !of_code.contains(name)).collect();
    assert_eq!(figures_in("### Only in INFO"), only_in_info);
    let of_both: BTreeSet<String> = facts(&info).into_keys().map(kind).collect();
    assert!(of_code.is_subset(&of_both), "{:?}", of_code.difference(&of_both));
}

#[test]
fn everything_to_watch_is_a_figure() {
    let all = figures_in("### All figures");
    let watched = figures_in("## What to watch");
    assert!(watched.len() > 10 && watched.is_subset(&all), "{:?}", watched.difference(&all));
}

#[test]
fn memory_blocked_clients_syncs_stores_and_backups_have_figures() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let backup_dir = folder.path().to_owned();
    let server = TestServer::with(|config| config.backup_dir = Some(backup_dir));
    let (mut client, mut waiting) = (server.client(), server.client());
    client.line("TL.APPEND messages:a one");
    client.line("TL.FLUSH");
    waiting.send_raw(b"TL.READ messages:a AFTER 1 BLOCK 0\r\n");
    let figure = |client: &mut crate::support::Client, name: &str| {
        client.line("TL.STATS").get(name).integer()
    };
    while figure(&mut client, "blocked_clients") == 0 {
        std::thread::yield_now();
    }
    assert!(figure(&mut client, "process_resident_bytes") > 1 << 20);
    assert!(figure(&mut client, "process_resident_peak_bytes") > 1 << 20);
    assert!(figure(&mut client, "wal_sync_us_total") >= figure(&mut client, "wal_sync_us_max"));
    let time = client.line("TL.GET messages:a 1").items()[1].integer();
    assert_eq!(figure(&mut client, "store_messages_oldest_ms"), time);
    assert_eq!(figure(&mut client, "store_sync_oldest_ms"), 0);
    assert_eq!(figure(&mut client, "last_backup_ms"), 0);
    client.line("TL.BACKUP backup");
    assert!(figure(&mut client, "last_backup_ms") >= time);
    assert!(client.line("INFO memory").text().contains("\r\nused_memory_rss:"));
    client.line("TL.APPEND messages:a two");
    assert_eq!(waiting.receive().get("last").integer(), 2);
    assert_eq!(figure(&mut client, "blocked_clients"), 0);
}

#[test]
fn a_server_with_a_schedule_for_backups_takes_one_at_its_start_and_counts_it() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let directory = folder.path().join("backups");
    let server = TestServer::with(|config| {
        config.backup_dir = Some(directory.clone());
        config.backup.schedule = "1d".parse().ok();
    });
    let mut client = server.client();
    while client.line("TL.STATS").get("scheduled_backups").integer() == 0 {
        std::thread::yield_now();
    }
    let stats = client.line("TL.STATS");
    let last_ms = stats.get("scheduled_backup_last_ms").integer();
    assert!(last_ms > 0 && last_ms <= stats.get("last_backup_ms").integer());
    assert_eq!(stats.get("scheduled_backup_failed").integer(), 0);
    let info = client.line("INFO persistence").text();
    assert_eq!(facts(&info)["scheduled_backups"], "1");
    let epoch = client.line("INFO timelines").text();
    let epoch = facts(&epoch)["epoch"].to_owned();
    assert_eq!(server.stop(), strandline_server::StopReason::Asked);
    let names: Vec<String> = std::fs::read_dir(&directory)
        .expect("it was made")
        .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
        .collect();
    assert!(names.len() == 1 && names[0].ends_with(&format!("Z-{epoch}")), "{names:?}");
    let restored = folder.path().join("restored");
    strandline::restore(directory.join(&names[0]), &restored).expect("it is complete");
}

#[test]
fn a_scheduled_backup_that_fails_is_counted_and_the_server_serves_on() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let file = folder.path().join("file");
    std::fs::write(&file, "no directory").expect("it is written");
    let server = TestServer::with(|config| {
        config.backup_dir = Some(file.join("backups"));
        config.backup.schedule = "03:30".parse().ok();
    });
    let mut client = server.client();
    while client.line("TL.STATS").get("scheduled_backup_failures").integer() == 0 {
        std::thread::yield_now();
    }
    assert_eq!(client.line("TL.STATS").get("scheduled_backup_failed").integer(), 1);
    assert_eq!(client.line("TL.APPEND messages:a x"), Value::Integer(1));
}
