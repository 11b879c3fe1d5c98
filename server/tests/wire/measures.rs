//! /metrics: what it shows is what happened, each figure is there, docs/observability.md has the
//! table, and the dashboard and the alerts of ops/ use nothing else.

#![allow(clippy::disallowed_methods, reason = "the tests read documents of the repository")]
#![allow(clippy::float_cmp, reason = "whole numbers, which are exact")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde_json::Value as Json;

use crate::support::{Client, TestServer};

fn server() -> TestServer {
    TestServer::with(|config| config.http.port = Some(0))
}

/// The values of a page by metric and labels.
fn values(page: &str) -> BTreeMap<String, f64> {
    let lines = page.lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| {
            let (name, value) = line.rsplit_once(' ').expect("a name and a value");
            (name.to_owned(), value.parse().unwrap_or_else(|_| panic!("a number in {line}")))
        })
        .collect()
}

fn metrics(server: &TestServer) -> BTreeMap<String, f64> {
    let answer = server.get("/metrics", "");
    assert_eq!(answer.status, 200);
    assert_eq!(answer.content_type, "text/plain; version=0.0.4; charset=utf-8");
    values(&answer.body)
}

/// Work that moves most metrics.
fn work(client: &mut Client) {
    client.line("TL.APPEND messages:a one");
    client.line("TL.FANOUT two 2 messages:a sync:b");
    client.line("TL.APPEND messages:a three SEQ 1");
    client.line("TL.FLUSH");
    client.line("TL.RANGE messages:a - +");
    client.line("TL.APPEND");
    client.line("NOPE");
}

#[test]
fn commits_commands_errors_and_stores_are_counted() {
    let server = server();
    let mut client = server.client();
    // Messaging writes an entry when a directory is new.
    let before = metrics(&server);
    work(&mut client);
    let found = metrics(&server);
    let value = |name: &str| found.get(name).copied().unwrap_or_else(|| panic!("no {name}"));
    let more = |name: &str| value(name) - before.get(name).copied().unwrap_or_default();
    assert_eq!(more("strandline_commit_entries_total"), 3.0);
    assert!(value("strandline_commit_duration_seconds_count") >= 2.0);
    assert!(value("strandline_commit_duration_seconds_sum") > 0.0);
    assert!(value("strandline_wal_fsync_duration_seconds_count") >= 2.0);
    assert_eq!(more("strandline_commit_group_entries_bucket{le=\"+Inf\"}"), 2.0);
    assert_eq!(more("strandline_commit_group_entries_bucket{le=\"1\"}"), 1.0);
    assert!(value("strandline_flush_duration_seconds_count") >= 1.0);
    let calls = |name: &str| {
        value(&format!("strandline_command_duration_seconds_count{{command=\"{name}\"}}"))
    };
    assert_eq!((calls("tl.append"), calls("tl.fanout"), calls("tl.range")), (2.0, 1.0, 1.0));
    let failures = |kind: &str| {
        value(&format!(
            "strandline_command_failures_total{{command=\"tl.append\",kind=\"{kind}\"}}"
        ))
    };
    assert_eq!((failures("failed"), failures("rejected")), (1.0, 1.0));
    assert_eq!(value("strandline_error_replies_total{word=\"SEQORDER\"}"), 1.0);
    assert_eq!(value("strandline_error_replies_total{word=\"ERR\"}"), 2.0);
    assert_eq!(value("strandline_store_entries{store=\"messages\"}"), 2.0);
    assert!(value("strandline_store_oldest_timestamp_seconds{store=\"sync\"}") > 1.7e9);
    assert_eq!(value("strandline_connected_clients"), 1.0);
    assert_eq!((value("strandline_ready"), value("strandline_poisoned")), (1.0, 0.0));
    assert!(!found.contains_key("strandline_last_backup_timestamp_seconds"), "there was none");
    for part in ["memtables", "cache", "client_input", "client_output", "ledgers"] {
        let limit = value(&format!("strandline_memory_limit_bytes{{part=\"{part}\"}}"));
        let used = value(&format!("strandline_memory_bytes{{part=\"{part}\"}}"));
        assert!(used <= limit && limit > 0.0, "{part}: {used} of {limit}");
    }
}

#[test]
fn a_histogram_grows_with_its_bounds_up_to_its_count() {
    let server = server();
    let mut client = server.client();
    (0..50).for_each(|_| drop(client.line("PING")));
    let page = server.get("/metrics", "").body;
    let name = "strandline_command_duration_seconds_bucket{command=\"ping\",le=\"";
    let buckets: Vec<(f64, f64)> = page
        .lines()
        .filter_map(|line| line.strip_prefix(name)?.split_once("\"} "))
        .map(|(bound, count)| (bound.parse().expect("+Inf, too"), count.parse().expect("a count")))
        .collect();
    assert!(buckets.len() > 10 && buckets.is_sorted_by(|one, next| one.0 < next.0), "{buckets:?}");
    assert!(buckets.is_sorted_by(|one, next| one.1 <= next.1), "{buckets:?}");
    assert_eq!(buckets.last(), Some(&(f64::INFINITY, 50.0)));
}

#[test]
fn every_figure_is_a_metric() {
    let table = strandline_server::render_families();
    let server = server();
    let stats = server.client().line("TL.STATS");
    let missing: Vec<String> = stats
        .items()
        .chunks(2)
        .map(|pair| pair[0].text())
        // The first has a row of METRICS without a figure; stores have labels.
        .filter(|name| name != "last_backup_ms" && !name.starts_with("store_"))
        .filter(|name| !table.contains(&format!("| `{name}` |")))
        .collect();
    assert!(
        missing.is_empty(),
        "give these figures a row in server/src/http/families.rs: {missing:?}"
    );
}

#[test]
fn every_metric_is_described_once_and_in_the_document() {
    let server = server();
    work(&mut server.client());
    let page = server.get("/metrics", "").body;
    let described: Vec<&str> =
        page.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
    let distinct: BTreeSet<&str> = described.iter().copied().collect();
    assert_eq!(distinct.len(), described.len(), "each metric is described once");
    let table = strandline_server::render_families();
    for name in values(&page).into_keys() {
        let family = family_of(&name, &distinct);
        assert!(table.contains(&format!("| `{family}` |")), "{family} has no row");
    }
    let path = root().join("docs/observability.md");
    let text = std::fs::read_to_string(&path).expect("the document is there");
    let (head, rest) = text.split_once("<!-- families -->\n").expect("the table begins");
    let (shown, tail) = rest.split_once("<!-- end -->\n").expect("the table ends");
    if std::env::var_os("STRANDLINE_BLESS").is_some() {
        let text = [head, "<!-- families -->\n", &table, "<!-- end -->\n", tail].concat();
        std::fs::write(&path, text).expect("the document is written");
    } else {
        assert!(shown == table, "docs/observability.md is old: run this with STRANDLINE_BLESS=1");
    }
}

/// The metric to which a line belongs.
fn family_of<'a>(line: &'a str, described: &BTreeSet<&str>) -> &'a str {
    let name = line.split('{').next().unwrap_or_default();
    let base = ["_bucket", "_sum", "_count"].iter().find_map(|ending| name.strip_suffix(ending));
    let family = base.filter(|base| described.contains(base)).unwrap_or(name);
    assert!(described.contains(family), "{line} is not described");
    family
}

#[test]
fn open_metrics_are_written_for_a_client_that_asks_for_them() {
    let server = server();
    let answer = server.get("/metrics", "Accept: application/openmetrics-text;version=1.0.0\r\n");
    assert_eq!(answer.content_type, "application/openmetrics-text; version=1.0.0; charset=utf-8");
    assert!(answer.body.ends_with("\n# EOF\n"));
    assert!(answer.body.contains("# TYPE strandline_commit_batches counter\n"));
    assert!(answer.body.contains("\nstrandline_commit_batches_total "));
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The names of metrics in an expression.
fn names_in(expression: &str) -> impl Iterator<Item = &str> {
    let is_part = |char: char| char.is_ascii_alphanumeric() || char == '_';
    expression
        .split(move |char| !is_part(char))
        .filter(|word| word.starts_with("strandline_") || word.starts_with("process_"))
}

#[test]
fn the_dashboard_and_the_alerts_use_metrics_that_exist() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let server = TestServer::with(|config| {
        config.http.port = Some(0);
        config.backup_dir = Some(folder.path().to_owned());
    });
    let mut client = server.client();
    work(&mut client);
    client.line("TL.BACKUP backup");
    let mut known: BTreeSet<String> = metrics(&server)
        .into_keys()
        .map(|line| line.split('{').next().unwrap_or_default().to_owned())
        .collect();
    known.extend(["strandline_clients_closed_total".to_owned()]);
    let read = |path: &str| std::fs::read_to_string(root().join(path)).expect("it is there");
    let alerts = read("ops/prometheus/alerts.yml");
    let expressions: Vec<&str> =
        alerts.lines().filter_map(|line| line.trim().strip_prefix("expr: ")).collect();
    assert!(expressions.len() >= 10, "each alert has its expression on one line");
    let dashboard: Json =
        serde_json::from_str(&read("ops/grafana/strandline.json")).expect("it is JSON");
    let mut queries = Vec::new();
    collect_queries(&dashboard, &mut queries);
    assert!(queries.len() >= 20, "{}", queries.len());
    let used = expressions.iter().copied().chain(queries.iter().map(String::as_str));
    let mut count = 0;
    for expression in used {
        for name in names_in(expression) {
            count += 1;
            assert!(known.contains(name), "{name} of `{expression}` is not in /metrics");
        }
    }
    assert!(count > 30, "{count}");
}

fn collect_queries(value: &Json, found: &mut Vec<String>) {
    match value {
        Json::Object(fields) => {
            for (name, value) in fields {
                match value {
                    Json::String(text) if name == "expr" => found.push(text.clone()),
                    other => collect_queries(other, found),
                }
            }
        }
        Json::Array(items) => items.iter().for_each(|item| collect_queries(item, found)),
        _ => {}
    }
}
