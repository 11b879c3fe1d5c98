//! Stopping: by a call, by SHUTDOWN, by SIGTERM; with connections that are idle, blocked or stuck.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};
use std::time::Duration;

use strandline_server::StopReason;

use crate::support::{Client, TestServer, Value, encoded};

/// A stop must take at most five seconds; the tests' servers give connections one.
const LONGEST_STOP: Duration = Duration::from_secs(5);

#[allow(clippy::disallowed_methods, reason = "the test measures")]
fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let start = std::time::Instant::now();
    (work(), start.elapsed())
}

#[test]
fn a_stop_does_not_wait_for_idle_blocked_or_stuck_clients() {
    let server = TestServer::start();
    let _idle = server.client();
    let mut blocked = server.client();
    blocked.send(&["TL.READ", "messages:b", "AFTER", "0", "BLOCK", "0"]);
    let mut half_a_request = server.client();
    half_a_request.send_raw(b"*2\r\n$4\r\nEC");
    let mut stuck = server.client();
    stuck.call(&["TL.APPEND", "messages:a", &"x".repeat(100_000)]);
    stuck.send_raw(&encoded(&["TL.LAST", "messages:a"]).repeat(1000));
    let (reason, took) = timed(|| server.stop());
    assert_eq!(reason, StopReason::Asked);
    assert!(took < LONGEST_STOP, "{took:?}");
    assert!(blocked.is_closed());
}

#[test]
fn shutdown_stops_the_server() {
    let server = TestServer::start();
    let mut client = server.client();
    client.line("TL.APPEND messages:a x");
    assert_eq!(client.line("SHUTDOWN sideways").word(), "ERR");
    client.send(&["SHUTDOWN", "NOSAVE"]);
    assert!(client.is_closed());
    assert_eq!(server.wait(), StopReason::Asked);
}

#[test]
fn a_failure_in_the_background_stops_the_server_even_if_no_write_is_refused() {
    let server = TestServer::with(|config| config.memory_budget_bytes = 1 << 20);
    let mut client = server.client();
    client.line("TL.APPEND messages:a x");
    server.lose_files();
    // The fourth append meets a full memtable whose segment cannot be made; the log's file is still
    // open.
    let body = "x".repeat(60_000);
    for sequence in 2..=5 {
        assert_eq!(client.call(&["TL.APPEND", "messages:a", &body]), Value::Integer(sequence));
    }
    assert_eq!(server.wait(), StopReason::Poisoned);
}

#[test]
fn the_binary_prints_its_address_and_keeps_acknowledged_entries_across_sigterm() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    for run in 1..=2 {
        let mut process = Command::new(env!("CARGO_BIN_EXE_strandline"))
            .args(["serve", "--port", "0", "--dir"])
            .arg(dir.path().join("data"))
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("the binary starts");
        let mut line = String::new();
        let out = process.stdout.take().expect("it is piped");
        BufReader::new(out).read_line(&mut line).expect("a line comes");
        let address =
            line.trim().strip_prefix("listening on ").expect("the line names the address");
        let mut client = Client::connect(address.parse().expect("an address"));
        assert_eq!(
            client.line("TL.APPEND messages:a x"),
            Value::Integer(run),
            "what was acknowledged is there"
        );
        let kill = Command::new("kill").args(["-TERM", &process.id().to_string()]).status();
        assert!(kill.is_ok_and(|status| status.success()));
        let (status, took) = timed(|| process.wait().expect("it ends"));
        assert!(status.success() && took < LONGEST_STOP, "{status} after {took:?}");
        assert!(client.is_closed());
    }
}

#[test]
fn the_binary_prints_its_version_and_refuses_unknown_arguments() {
    let run = |arguments: &[&str]| {
        Command::new(env!("CARGO_BIN_EXE_strandline"))
            .args(arguments)
            .output()
            .expect("the binary starts")
    };
    let version = run(&["--version"]);
    assert_eq!(
        String::from_utf8_lossy(&version.stdout),
        format!("strandline {}\n", env!("CARGO_PKG_VERSION"))
    );
    assert!(!run(&["serve", "--prot", "1"]).status.success());
    let missing = run(&["serve", "--config", "no-such-file.toml"]);
    assert!(
        !missing.status.success()
            && String::from_utf8_lossy(&missing.stderr).contains("no-such-file.toml")
    );
}
