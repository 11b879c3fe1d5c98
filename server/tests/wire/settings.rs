//! The settings: documents and the sample file are rendered from their table; CONFIG and SIGHUP
//! change those that may change at run time, and the change takes effect.

#![allow(
    clippy::disallowed_methods,
    reason = "the tests read documents of the repository, and write configuration files"
)]

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use strandline_server::{sample_file, settings_table};

use crate::support::{Client, SHARED, TestServer, Value, token};

const BEGIN: &str = "<!-- settings: begin -->\n";
const END: &str = "<!-- settings: end -->\n";

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Compares a file with its rendered text, or writes it.
fn compare(path: &Path, text: &str, rendered: &str) {
    if std::env::var_os("STRANDLINE_BLESS").is_some() {
        std::fs::write(path, rendered).expect("it is written");
    } else {
        let path = path.display();
        assert!(text == rendered, "{path} is not up to date: run this with STRANDLINE_BLESS=1");
    }
}

#[test]
fn the_documents_and_the_sample_file_are_those_of_the_code() {
    for (name, is_messaging) in [("operations.md", false), ("messaging.md", true)] {
        let path = repository().join("docs").join(name);
        let text = std::fs::read_to_string(&path).expect("the document is there");
        let (head, rest) = text.split_once(BEGIN).expect("the table begins");
        let (_, tail) = rest.split_once(END).expect("the table ends");
        let table = settings_table(|section| (section == "messaging") == is_messaging);
        compare(&path, &text, &[head, BEGIN, &table, END, tail].concat());
    }
    let path = repository().join("ops/strandline.toml");
    let text = std::fs::read_to_string(&path).expect("the sample file is there");
    compare(&path, &text, &sample_file());
}

fn run(arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_strandline"))
        .args(arguments)
        .envs(variables.iter().copied())
        .output()
        .expect("the binary starts")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn check_config_prints_settings_with_their_sources_or_says_what_is_wrong() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let file = folder.path().join("strandline.toml");
    let name = file.to_str().expect("it is UTF-8");
    let given = "password = \"open sesame\"\n[limits]\nidle_seconds = 1\n\
                 [users.shop]\nrules = \"+@read ~*\"\n[users.monitor]\nrules = \"+info\"\n";
    std::fs::write(&file, given).expect("it is written");
    let checked = run(
        &["check-config", name, "--set", "threads=2"],
        &[("STRANDLINE_LIMITS_IDLE_SECONDS", "9")],
    );
    let printed = text(&checked.stdout);
    assert!(checked.status.success(), "{printed}");
    for line in [
        "limits.idle_seconds = 9  # STRANDLINE_LIMITS_IDLE_SECONDS",
        "threads = 2  # command line",
        "port = 7411  # default",
        &format!("password = (hidden)  # {name}"),
        &format!("users = monitor, shop  # {name}"),
        "tokens.keys =  # none",
    ] {
        assert!(printed.lines().any(|printed| printed == line), "{line}\n{printed}");
    }
    assert!(!printed.contains("sesame"));
    std::fs::write(&file, "prot = 1\n").expect("it is written");
    let checked = run(&["check-config"], &[("STRANDLINE_CONFIG", name)]);
    assert_eq!((checked.status.code(), text(&checked.stdout)), (Some(1), String::new()));
    let sentence = text(&checked.stderr);
    assert!(sentence.contains(name) && sentence.contains("unknown field `prot`"), "{sentence}");
    let served = run(&["serve", "--set", "threads=9999"], &[]);
    assert_eq!(served.status.code(), Some(1));
    assert!(text(&served.stderr).contains("threads is 9999, and must be from 0 to 1024"));
    assert_eq!(text(&run(&["settings", "--sample"], &[]).stdout), sample_file());
    assert!(text(&run(&["settings"], &[]).stdout).contains("STRANDLINE_LIMITS_AUTH_SECONDS"));
}

#[test]
fn no_filter_hides_why_a_server_does_not_start() {
    for (setting, log, needed) in [
        ("threads=9999", "off", "threads is 9999"),
        ("threads=9999", "wran", "threads is 9999"),
        ("log.filter=debugg", "", "log.filter: 'debugg' is no level (error, warn, info, "),
    ] {
        for verb in ["serve", "check-config"] {
            let ended = run(&[verb, "--set", setting], &[("RUST_LOG", log)]);
            let said = text(&ended.stderr);
            assert_eq!(ended.status.code(), Some(1), "{said}");
            assert!(said.contains(needed), "{verb} {setting} {log}: {said}");
        }
    }
    let folder = tempfile::tempdir().expect("a temporary directory");
    // A file is where the directory of the data should be.
    let file = folder.path().join("data");
    std::fs::write(&file, "").expect("it is written");
    let name = file.to_str().expect("it is UTF-8");
    let ended = run(&["serve", "--dir", name, "--set", "log.filter=off"], &[]);
    assert!(text(&ended.stderr).contains(name), "{}", text(&ended.stderr));
}

#[test]
fn what_settings_name_is_checked_before_a_server_starts() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let (file, data) = (folder.path().join("strandline.toml"), folder.path().join("data"));
    let name = file.to_str().expect("it is UTF-8");
    let data_name = data.to_str().expect("it is UTF-8");
    for (wrong, needed) in [
        ("[users.ann]\nrules = \"+@nothing\"\n", "ann"),
        ("[users.ann]\nrules = \"+@all ~*\"\npassword_hash = \"sesame\"\n", "ann"),
        ("[[tokens.keys]]\nid = \"k1\"\nalgorithm = \"HS256\"\nkey = \"open\"\n", "k1"),
        (
            "[[tokens.keys]]\nid = \"k1\"\nalgorithm = \"EdDSA\"\nkey_file = \"/nope/key\"\n",
            "/nope/key",
        ),
        (&format!("backup_dir = \"{name}\"\n"), "is not a directory"),
        ("[tls]\nport = 0\ncertificate = \"/nope/crt\"\nkey = \"/nope/key\"\n", "/nope/crt"),
    ] {
        std::fs::write(&file, wrong).expect("it is written");
        for arguments in [
            &["check-config", name][..],
            &["serve", "--port", "0", "--dir", data_name, "--config", name],
        ] {
            let ended = run(arguments, &[]);
            let said = text(&ended.stderr);
            assert_eq!(ended.status.code(), Some(1), "{arguments:?} {said}");
            assert!(said.contains(needed) && !said.contains("sesame"), "{arguments:?} {said}");
        }
        assert!(!data.exists(), "the engine was opened");
    }
}

fn config(client: &mut Client, name: &str) -> String {
    client.line(&format!("CONFIG GET {name}")).get(name).text()
}

#[test]
fn a_setting_that_is_changed_takes_effect_on_open_connections_and_new_ones() {
    let server = TestServer::start();
    let (mut idle, mut client) = (server.client(), server.client());
    assert_eq!(idle.line("PING"), Value::Simple("PONG".into()));
    let ok = Value::Simple("OK".into());
    assert_eq!(client.line("CONFIG SET limits.max_body_bytes 3"), ok);
    assert_eq!(client.line("TL.APPEND messages:a four").word(), "TOOBIG");
    assert_eq!(client.line("TL.APPEND messages:a one"), Value::Integer(1));
    assert_eq!(client.line("CONFIG SET maxclients 2 limits.keepalive_seconds 7"), ok);
    assert_eq!(config(&mut client, "limits.max_clients"), "2");
    assert_eq!(config(&mut client, "tcp-keepalive"), "7");
    let mut refused = server.client();
    assert_eq!(refused.receive().word(), "LIMIT");
    assert_eq!(client.line("CONFIG SET compact_bytes_per_second 5"), ok);
    // The connection is waiting, without a deadline, when it gets one.
    assert_eq!(client.line("CONFIG SET timeout 1"), ok);
    assert!(idle.is_closed());
}

#[test]
fn a_change_that_is_refused_changes_nothing() {
    let server = TestServer::with(|config| {
        config.password = Some("sesame".into());
        config.users.insert("shop".into(), strandline_server::UserSettings::default());
    });
    let mut client = server.client();
    client.line("AUTH sesame");
    for (line, needed) in [
        ("CONFIG SET limits.idle_seconds 9 port 1", "port is read at the start only"),
        ("CONFIG SET limits.idle_seconds 9 limits.auth_seconds 0", "must be from 1 to"),
        (
            "CONFIG SET limits.idle_seconds 9 limits.max_body_bytes 16777216 x 1",
            "'x': strandline settings lists",
        ),
        ("CONFIG SET limits.idle_seconds 9 timeout 8", "twice"),
        ("CONFIG SET limits.idle_seconds nine", "must be a number"),
        ("CONFIG SET limits.idle_seconds", "wrong number of arguments"),
        ("CONFIG SET save x", "save"),
        ("CONFIG REWRITE", "without a configuration file"),
        ("CONFIG REWRITE now", "wrong number of arguments"),
    ] {
        let Value::Error(refused) = client.line(line) else { panic!("{line} is not refused") };
        assert!(refused.starts_with("ERR ") && refused.contains(needed), "{refused}");
        assert_eq!(config(&mut client, "limits.idle_seconds"), "0", "{line}");
    }
    let everything = client.line("CONFIG GET *");
    assert_eq!(everything.get("password").text(), "(hidden)");
    assert_eq!(everything.get("users").text(), "shop");
    assert_eq!(everything.get("port").text(), server.address.port().to_string());
    assert!(everything.items().iter().all(|item| !item.text().contains("sesame")));
}

/// The binary, with a configuration file.
struct Process {
    child: Child,
    address: std::net::SocketAddr,
    log: std::io::Lines<BufReader<std::process::ChildStderr>>,
}

impl Process {
    fn start(folder: &Path, file: &Path) -> Process {
        let mut child = Command::new(env!("CARGO_BIN_EXE_strandline"))
            .args(["serve", "--port", "0", "--config"])
            .arg(file)
            .arg("--dir")
            .arg(folder.join("data"))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        let mut line = String::new();
        let out = child.stdout.take().expect("it is piped");
        BufReader::new(out).read_line(&mut line).expect("a line comes");
        let address = line.trim().strip_prefix("listening on ").expect("the line has an address");
        let log = BufReader::new(child.stderr.take().expect("it is piped")).lines();
        Process { address: address.parse().expect("an address"), child, log }
    }

    fn signal(&self, name: &str) {
        let kill = Command::new("kill").args([name, &self.child.id().to_string()]).status();
        assert!(kill.is_ok_and(|status| status.success()));
    }

    /// Reads the log up to a line.
    fn until(&mut self, words: &str) -> String {
        self.log
            .by_ref()
            .map(|line| line.expect("the log is text"))
            .find(|line| line.contains(words))
            .expect("the line comes before the log ends")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.signal("-TERM");
        let ended = self.child.wait();
        if !std::thread::panicking() {
            assert!(ended.expect("it ends").success());
        }
    }
}

#[test]
fn a_rewrite_keeps_what_was_set_and_sighup_reads_the_file_again() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let file = folder.path().join("strandline.toml");
    std::fs::write(&file, "# Ours.\n[limits]\nidle_seconds = 600 # ten minutes\n")
        .expect("it is written");
    let mut process = Process::start(folder.path(), &file);
    let mut client = Client::connect(process.address);
    assert_eq!(config(&mut client, "timeout"), "600");
    let ok = Value::Simple("OK".into());
    assert_eq!(client.line("CONFIG SET timeout 700 compact_bytes_per_second 9"), ok);
    assert_eq!(client.line("CONFIG REWRITE"), ok);
    assert_eq!(
        std::fs::read_to_string(&file).expect("it is read"),
        "compact_bytes_per_second = 9\n# Ours.\n[limits]\nidle_seconds = 700 # ten minutes\n"
    );
    std::fs::write(&file, "threads = 9\n[limits]\nidle_seconds = 800\n").expect("it is written");
    process.signal("-HUP");
    process.until("takes effect at the next start setting=\"threads\"");
    process.until("a setting has changed setting=\"limits.idle_seconds\"");
    assert_eq!(config(&mut client, "timeout"), "800");
    std::fs::write(&file, "[limits]\nidle_second = 900\n").expect("it is written");
    process.signal("-HUP");
    let line = process.until("the settings stay as they are");
    assert!(line.contains("strandline.toml") && line.contains("ERROR"), "{line}");
    assert_eq!(config(&mut client, "timeout"), "800");
}

#[test]
fn no_secret_is_logged() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let file = folder.path().join("strandline.toml");
    let text = format!(
        "password = \"sesame-word\"\n[log]\nfilter = \"debug\"\n[slowlog]\nthreshold_us = 0\n\
         [[tokens.keys]]\nid = \"k\"\nalgorithm = \"HS256\"\nkey = \"{SHARED}\"\n"
    );
    std::fs::write(&file, text).expect("it is written");
    let mut process = Process::start(folder.path(), &file);
    let jwt = token("k", "ann", 60);
    let (of_nobody, wrong) = (token("other", "ann", 60), token("k", "an n", 60));
    for line in [
        "AUTH guessed-word".to_owned(),
        format!("AUTH {jwt}"),
        format!("AUTH {of_nobody}"),
        format!("HELLO 3 AUTH ann {wrong}"),
    ] {
        Client::connect(process.address).line(&line);
    }
    let mut admin = Client::connect(process.address);
    for line in [
        "AUTH sesame-word",
        "ACL SETUSER ann >hidden-word",
        "ACL SETUSER ann <hidden-word >hidden-word nonsense",
        "CONFIG SET password other-word",
        "MIGRATE host 1 key 0 1 AUTH hidden-word",
    ] {
        admin.line(line);
    }
    process.signal("-HUP");
    process.signal("-TERM");
    let log: Vec<String> = process.log.by_ref().map(|line| line.expect("it is text")).collect();
    let log = log.join("\n");
    assert!(log.contains("stopped"), "{log}");
    for secret in ["-word", SHARED, &jwt, &of_nobody, &wrong, "$argon2"] {
        assert!(!log.contains(secret), "{secret}: {log}");
    }
}
