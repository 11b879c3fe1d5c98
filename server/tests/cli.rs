//! The verbs that talk to a running server, as a person or a script calls them: what they print,
//! where, and with which code they end.

#![allow(clippy::disallowed_methods, reason = "the tests write files of a person's")]

use std::io::{BufRead as _, BufReader, Read, Write as _};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use tempfile::TempDir;

/// Long enough for a busy machine; a test that reaches it has failed.
const PATIENCE: Duration = Duration::from_mins(1);

/// A server of the binary's.
struct Served {
    process: Child,
    address: SocketAddr,
    folder: TempDir,
}

impl Served {
    fn new() -> Served {
        Served::with("")
    }

    fn with(config: &str) -> Served {
        let folder = tempfile::tempdir().expect("a temporary directory");
        std::fs::write(folder.path().join("config.toml"), config).expect("writes");
        let (process, address) = start(folder.path(), 0);
        Served { process, address, folder }
    }

    /// Kills the server, and starts it again at the same address.
    fn restart(&mut self) {
        self.process.kill().expect("it runs");
        self.process.wait().expect("it ends");
        (self.process, _) = start(self.folder.path(), self.address.port());
    }

    /// A verb with this server's address.
    fn verb(&self, verb: &str, arguments: &[&str]) -> Command {
        let mut command = strandline(&[verb, "--address", &self.address.to_string()]);
        command.args(arguments);
        command
    }

    /// A command, whose reply is returned as text.
    fn ask(&self, words: &[&str]) -> String {
        ends_with(&output(&mut self.verb("cli", words)), 0).0
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn start(folder: &Path, port: u16) -> (Child, SocketAddr) {
    let mut command = strandline(&["serve", "--port", &port.to_string(), "--config"]);
    command.arg(folder.join("config.toml")).arg("--dir").arg(folder.join("data"));
    let mut process =
        command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("the binary starts");
    let mut line = String::new();
    let mut out = BufReader::new(process.stdout.take().expect("it is piped"));
    out.read_line(&mut line).expect("reads");
    let address = line.trim().strip_prefix("listening on ").expect("an announcement");
    (process, address.parse().expect("an address"))
}

fn strandline(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_strandline"));
    command.args(arguments).env_remove("STRANDLINE_PASSWORD").stdin(Stdio::null());
    command
}

fn output(command: &mut Command) -> Output {
    command.output().expect("the binary starts")
}

#[track_caller]
fn ends_with(output: &Output, code: i32) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(code), "{out}\n{err}");
    (out, err)
}

/// A process with pipes, whose output is read by threads.
struct Piped {
    process: Child,
    input: Option<ChildStdin>,
    out: Receiver<String>,
    err: Receiver<String>,
}

impl Piped {
    fn new(command: &mut Command) -> Piped {
        let mut process = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("it starts");
        let out = lines(process.stdout.take().expect("it is piped"));
        let err = lines(process.stderr.take().expect("it is piped"));
        let input = process.stdin.take();
        Piped { process, input, out, err }
    }

    fn write(&mut self, text: &str) {
        let input = self.input.as_mut().expect("it is open");
        input.write_all(text.as_bytes()).and_then(|()| input.flush()).expect("it reads");
    }

    fn line(&self) -> String {
        self.out.recv_timeout(PATIENCE).expect("a line comes")
    }

    /// Reads until a line contains `wanted`; returns what came before, with it.
    fn until(&self, wanted: &str) -> String {
        let mut text = String::new();
        while !text.contains(wanted) {
            match self.out.recv_timeout(PATIENCE) {
                Ok(line) => text.push_str(&(line + "\n")),
                Err(problem) => panic!("{problem}: no {wanted} in\n{text}"),
            }
        }
        text
    }

    /// Interrupts it as Ctrl-C does; returns its exit code.
    fn interrupt(mut self) -> Option<i32> {
        let pid = self.process.id().to_string();
        let sent = Command::new("kill").args(["-INT", &pid]).status().expect("kill runs");
        assert!(sent.success());
        self.process.wait().expect("it ends").code()
    }
}

fn lines(pipe: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = channel();
    thread::spawn(move || {
        for line in BufReader::new(pipe).split(b'\n').map_while(Result::ok) {
            if sender.send(String::from_utf8_lossy(&line).into_owned()).is_err() {
                return;
            }
        }
    });
    receiver
}

/// A command on a pseudo-terminal, by `script` of util-linux.
fn on_terminal(command: &Command) -> Command {
    let quoted = |word: &std::ffi::OsStr| format!("'{}'", word.to_string_lossy());
    let words: Vec<String> =
        [command.get_program()].into_iter().chain(command.get_args()).map(quoted).collect();
    let mut script = Command::new("script");
    script.args(["-q", "-e", "-f", "-c", &words.join(" "), "/dev/null"]);
    script.env("TERM", "xterm").env_remove("NO_COLOR");
    script
}

#[test]
fn a_command_prints_its_reply_and_an_error_goes_to_standard_error_with_code_1() {
    let served = Served::new();
    assert_eq!(served.ask(&["TL.APPEND", "messages:a", "two\nlines"]), "1\n");
    let line = served.ask(&["TL.RANGE", "messages:a", "-", "+"]);
    assert!(line.starts_with("1  20") && line.ends_with("  two\\nlines\n"), "{line}");
    let json = served.ask(&["--json", "TL.READ", "messages:a", "AFTER", "0"]);
    let value: serde_json::Value = serde_json::from_str(&json).expect("it is JSON");
    assert_eq!((&value["verdict"], &value["entries"][0][2]), (&"OK".into(), &"two\nlines".into()));
    let (out, err) = ends_with(&output(&mut served.verb("cli", &["TL.LAST", "nothing:a"])), 1);
    assert_eq!(out, "");
    assert!(err.starts_with("strandline: NOSTORE "), "{err}");
    let (out, _) = ends_with(&output(&mut served.verb("cli", &["--json", "NOTHING"])), 1);
    assert!(out.starts_with("{\"error\":\"ERR unknown command"), "{out}");
    // The address may be the first word.
    let (out, _) =
        ends_with(&output(&mut strandline(&["cli", &served.address.to_string(), "PING"])), 0);
    assert_eq!(out, "PONG\n");
}

#[test]
fn commands_come_from_standard_input_and_all_of_them_are_run() {
    let served = Served::new();
    let mut cli = Piped::new(&mut served.verb("cli", &[]));
    cli.write(
        "TL.APPEND messages:a \"\\x00\\xff\"\n\nNOTHING\nECHO 'it\\'s'\nTL.LAST messages:a\n",
    );
    drop(cli.input.take());
    assert_eq!(cli.line(), "1");
    assert_eq!(cli.line(), "it's");
    assert!(cli.line().ends_with("  \\x00\\xff"));
    assert_eq!(cli.process.wait().expect("it ends").code(), Some(1));
    let err: Vec<String> = cli.err.iter().collect();
    assert!(err[0].starts_with("strandline: line 3: ERR unknown command"), "{err:?}");
    assert_eq!(err[1], "strandline: 1 commands were refused");
    let mut cli = Piped::new(&mut served.verb("cli", &[]));
    cli.write("ECHO \"open\n");
    drop(cli.input.take());
    assert_eq!(cli.process.wait().expect("it ends").code(), Some(2));
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let served = Served::new();
    let mut process = served
        .verb("cli", &[])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    let mut first = String::new();
    let mut input = process.stdin.take().expect("it is piped");
    input.write_all(b"PING\n").expect("it reads");
    let mut out = BufReader::new(process.stdout.take().expect("it is piped"));
    out.read_line(&mut first).expect("reads");
    drop(out);
    // It ends as soon as it notices, so the last line may find a closed pipe, too.
    let _ = input.write_all(b"PING\nPING\n");
    drop(input);
    let output = process.wait_with_output().expect("it ends");
    assert_eq!(first, "PONG\n");
    assert_eq!(ends_with(&output, 0).1, "");
}

#[test]
fn problems_of_the_connection_and_the_login_end_with_2_and_say_what_to_do() {
    let served = Served::with("password = \"secret\"\n");
    let (_, err) = ends_with(&output(&mut served.verb("cli", &["PING"])), 2);
    assert!(err.contains("set STRANDLINE_PASSWORD, or use --password-file"), "{err}");
    let with = |password: &str| {
        let mut command = served.verb("cli", &["PING"]);
        output(command.env("STRANDLINE_PASSWORD", password))
    };
    assert_eq!(ends_with(&with("secret"), 0).0, "PONG\n");
    let (_, err) = ends_with(&with("wrong"), 2);
    assert!(err.contains("the login was refused: WRONGPASS") && !err.contains("wrong\n"), "{err}");
    let file = served.folder.path().join("password");
    std::fs::write(&file, "secret\n").expect("writes");
    let file = file.to_str().expect("it is text");
    let (out, _) =
        ends_with(&output(&mut served.verb("cli", &["--password-file", file, "PING"])), 0);
    assert_eq!(out, "PONG\n");
    let (_, err) =
        ends_with(&output(&mut strandline(&["cli", "redis://ann:secret@db", "PING"])), 2);
    assert!(err.contains("STRANDLINE_PASSWORD") && !err.contains("secret"), "{err}");
    for option in [&["--password", "hunter2"][..], &["--password=hunt:er2"]] {
        let (out, err) =
            ends_with(&output(&mut served.verb("cli", &[option, &["PING"]].concat())), 2);
        assert!(err.contains("there is no option --password: use --password-file"), "{err}");
        assert!(!err.contains("hunt") && out.is_empty(), "{out}{err}");
    }
    let gone = served.address.to_string();
    drop(served);
    let (_, err) = ends_with(&output(&mut strandline(&["top", &gone, "--once"])), 2);
    assert!(
        err.contains(&format!("cannot connect to {gone}")) && err.contains("strandline serve"),
        "{err}"
    );
}

#[test]
fn a_port_that_speaks_tls_is_named_and_so_is_what_it_wants() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".into()]).expect("it is made");
    let path = |name: &str| folder.path().join(name).display().to_string();
    std::fs::write(path("crt"), made.cert.pem()).expect("writes");
    std::fs::write(path("key"), made.signing_key.serialize_pem()).expect("writes");
    let free = std::net::TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr());
    let port = free.expect("a free port").port();
    let config = format!(
        "[tls]\nport = {port}\ncertificate = \"{crt}\"\nkey = \"{key}\"\n\
         client_ca = \"{crt}\"\nclient_certificates = \"required\"\n",
        crt = path("crt"),
        key = path("key"),
    );
    let _served = Served::with(&config);
    let address = format!("127.0.0.1:{port}");
    let cli = |options: &[&str]| {
        let arguments = [&["cli", "--address", &address], options, &["PING"]].concat();
        ends_with(&output(&mut strandline(&arguments)), 2).1
    };
    assert!(cli(&[]).contains("this port speaks TLS: add --tls (and --cacert)"));
    let refused = cli(&["--cacert", &path("crt")]);
    assert!(refused.contains("the server wants a certificate: --cert and --key"), "{refused}");
    let (_, err) = ends_with(&output(&mut strandline(&["health", &address])), 1);
    assert!(err.contains("speaks TLS: ask the plain port"), "{err}");
    let (_, err) = ends_with(&output(&mut strandline(&["health", "nonsense"])), 1);
    assert!(err.contains("nonsense is no address: use HOST:PORT"), "{err}");
}

#[test]
fn a_port_that_is_in_use_is_named_by_its_setting() {
    let served = Served::new();
    let data = served.folder.path().join("other").display().to_string();
    for setting in ["port", "http.port"] {
        let used = format!("{setting}={}", served.address.port());
        let arguments = ["serve", "--dir", &data, "--set", "port=0", "--set", &used];
        let (_, err) = ends_with(&output(&mut strandline(&arguments)), 1);
        assert!(err.contains(&format!("{setting}: cannot listen on 127.0.0.1:")), "{err}");
    }
}

#[test]
fn an_empty_password_is_refused() {
    let (_, err) = ends_with(&output(&mut strandline(&["hash-password"])), 1);
    assert!(err.starts_with("strandline: the password on standard input is empty"), "{err}");
}

#[test]
fn a_tail_goes_on_where_it_was_after_a_restart_and_ends_with_ctrl_c() {
    let mut served = Served::new();
    for body in ["one", "two"] {
        served.ask(&["TL.APPEND", "messages:a", body]);
    }
    let tail = Piped::new(&mut served.verb("tail", &["messages:a", "--from-start"]));
    assert!(tail.line().ends_with("  one"));
    assert!(tail.line().ends_with("  two"));
    served.restart();
    served.ask(&["TL.APPEND", "messages:a", "three"]);
    let line = tail.line();
    assert!(line.starts_with("3  ") && line.ends_with("  three"), "{line}");
    let said = tail.err.recv_timeout(PATIENCE).expect("it says so");
    assert!(said.contains("the connection to the server is lost"), "{said}");
    assert_eq!(tail.interrupt(), Some(0));
}

#[test]
fn a_tail_prints_gaps_and_counts_entries_and_follows_users() {
    let served = Served::new();
    for number in 1..=5 {
        served.ask(&["TL.APPEND", "messages:a", &number.to_string()]);
    }
    served.ask(&["TL.TRIM", "messages:a", "BEFORE", "4"]);
    let mut tail = served.verb("tail", &["messages:a", "--after", "1", "--count", "2", "--json"]);
    let (out, _) = ends_with(&output(&mut tail), 0);
    let rows: Vec<serde_json::Value> =
        out.lines().map(|line| serde_json::from_str(line).expect("it is JSON")).collect();
    assert_eq!(rows[0], serde_json::json!({"gap": "TRIMMED", "first": 2, "last": 3}));
    assert_eq!((&rows[1]["seq"], &rows[2]["body"], rows.len()), (&4.into(), &"5".into(), 3));
    let (_, err) = ends_with(&output(&mut served.verb("tail", &["nothing:a"])), 1);
    assert!(err.contains("NOSTORE"), "{err}");
    served.ask(&["IM.CREATE", "room", "MEMBERS", "ann", "bob"]);
    served.ask(&["IM.SEND", "room", "ann", "hello"]);
    let mut tail = served.verb("tail", &["--user", "bob", "--from-start", "--count", "1"]);
    let (out, _) = ends_with(&output(&mut tail), 0);
    assert!(out.starts_with("room  1  ") && out.ends_with("  ann  message  hello\n"), "{out}");
}

#[test]
fn a_tail_without_a_start_prints_only_what_comes() {
    let served = Served::new();
    served.ask(&["TL.APPEND", "messages:a", "before"]);
    let tail = Piped::new(&mut served.verb("tail", &["messages:a", "--count", "1"]));
    let followed = || served.ask(&["CLIENT", "LIST"]).contains("cmd=tl.follow");
    while !followed() {
        thread::yield_now();
    }
    served.ask(&["TL.APPEND", "messages:a", "after"]);
    assert!(tail.line().ends_with("  after"));
}

#[test]
fn a_bench_reports_each_workload_at_both_speeds_and_drops_its_store() {
    let served = Served::new();
    let page = served.folder.path().join("page.html");
    let html = page.to_str().expect("it is text");
    let quick = ["--seconds", "0.3", "--warm-up", "0", "--connections", "2", "--members", "3"];
    let arguments = [&quick[..], &["--json", "--html", html]].concat();
    let (out, _) = ends_with(&output(&mut served.verb("bench", &arguments)), 0);
    let rows: Vec<serde_json::Value> =
        out.lines().map(|line| serde_json::from_str(line).expect("it is JSON")).collect();
    let names: Vec<&str> = rows.iter().filter_map(|row| row["workload"].as_str()).collect();
    let each = ["append", "fanout", "latest", "sync", "push"];
    assert_eq!(names, each.map(|name| [name; 2]).concat());
    for row in &rows {
        assert!(row["replies"].as_u64() > Some(0) && row["errors"] == 0, "{row}");
        assert!(row["latency_us"]["p50"].as_u64() <= row["latency_us"]["max"].as_u64(), "{row}");
    }
    assert!(rows[0]["rate_wanted"].is_null() && rows[1]["rate_wanted"].is_f64(), "{out}");
    assert!(!served.ask(&["TL.STORE", "LIST"]).contains("bench"), "it leaves no store");
    let page = std::fs::read_to_string(&page).expect("there is a page");
    assert_eq!(page.matches("<svg").count(), 10);
    let (out, err) =
        ends_with(&output(&mut served.verb("bench", &[&quick[..], &["append"]].concat())), 0);
    assert!(out.contains("append    full speed") && out.contains("append    fixed "), "{out}");
    assert_eq!(err, "", "there is no progress where nobody looks");
}

#[test]
fn top_prints_a_picture_without_control_characters_when_it_is_piped() {
    let served = Served::new();
    let (out, _) = ends_with(&output(&mut served.verb("top", &["--once", "--interval", "0.1"])), 0);
    for part in [&format!("at {}", served.address), "entries/s", "1 connections", "CLIENT"] {
        assert!(out.contains(part), "{part} is not in\n{out}");
    }
    assert!(!out.contains('\x1b'), "{out:?}");
    let top = Piped::new(&mut served.verb("top", &["--interval", "0.1"]));
    top.until("connection ");
    top.until("connection ");
    assert_eq!(top.interrupt(), Some(0));
}

#[test]
fn top_names_the_timelines_that_are_written_to_most() {
    let served = Served::new();
    let mut cli = Piped::new(&mut served.verb("cli", &[]));
    for number in 0..800 {
        let key =
            if number % 4 == 0 { "rare".to_owned() + &number.to_string() } else { "busy".into() };
        cli.write(&format!("TL.APPEND messages:{key} x\n"));
    }
    drop(cli.input.take());
    assert_eq!(cli.process.wait().expect("it ends").code(), Some(0));
    let (out, _) = ends_with(&output(&mut served.verb("top", &["--once", "--interval", "0.1"])), 0);
    let (_, busiest) = out.split_once("busiest key").expect("there is a heading");
    let first = busiest.lines().nth(1).expect("there is a key");
    assert!(first.starts_with("messages:busy  ") && first.ends_with(" %"), "{out}");
    assert!(!served.ask(&["INFO"]).contains("busiest"), "keys are shown on request only");
}

#[test]
fn completions_and_manual_pages_name_all_verbs() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let (out, _) = ends_with(&output(&mut strandline(&["completions", shell])), 0);
        assert!(out.contains("salvage") && out.contains("tail"), "{shell}");
    }
    let (out, _) = ends_with(&output(&mut strandline(&["man"])), 0);
    assert!(out.contains(".TH strandline 1"), "{out}");
    let folder = tempfile::tempdir().expect("a temporary directory");
    let dir = folder.path().to_str().expect("it is text");
    ends_with(&output(&mut strandline(&["man", dir])), 0);
    for page in ["strandline.1", "strandline-serve.1", "strandline-cli.1", "strandline-top.1"] {
        assert!(folder.path().join(page).exists(), "{page}");
    }
    let missing = folder.path().join("missing");
    let missing = missing.to_str().expect("it is text");
    let (_, err) = ends_with(&output(&mut strandline(&["man", missing])), 2);
    assert!(err.contains(missing), "{err}");
}

#[test]
fn the_prompt_runs_commands_and_shows_pushes_when_they_come() {
    let served = Served::new();
    let mut command = on_terminal(&served.verb("cli", &[]));
    command.env("XDG_STATE_HOME", served.folder.path());
    let mut prompt = Piped::new(&mut command);
    prompt.write("TL.APPEND messages:a hello\nTL.LAST messages:a\n");
    prompt.until("  hello");
    prompt.write("help tl.last\n");
    prompt.until("TL.LAST key");
    prompt.write("SUBSCRIBE messages:a\n");
    // The reply to it is a push frame.
    prompt.until("subscribe");
    served.ask(&["TL.APPEND", "messages:a", "pushed"]);
    prompt.until("pushed");
    prompt.write("AUTH ann password-of-ann\nNOTHING\n");
    let text = prompt.until("(error) ERR unknown command");
    assert!(text.contains("\x1b[31m"), "errors are red on a terminal: {text:?}");
    prompt.write("exit\n");
    assert_eq!(prompt.process.wait().expect("it ends").code(), Some(0));
    let history = std::fs::read_to_string(served.folder.path().join("strandline/history"));
    let history = history.expect("there is a history");
    assert!(history.contains("TL.APPEND messages:a hello"), "{history}");
    assert!(!history.contains("password-of-ann"), "{history}");
}

#[test]
fn times_are_local() {
    let served = Served::new();
    served.ask(&["TL.APPEND", "messages:a", "hello"]);
    let last = |zone: &str| {
        let mut command = served.verb("cli", &["TL.LAST", "messages:a"]);
        ends_with(&output(command.env("TZ", zone)), 0).0
    };
    assert!(last("<+03>-3").contains("+03:00  hello"));
    assert!(last("UTC0").contains("+00:00  hello"));
}

#[test]
fn no_color_is_obeyed() {
    let served = Served::new();
    served.ask(&["TL.APPEND", "messages:a", "hello"]);
    let last = served.verb("cli", &["TL.LAST", "messages:a"]);
    let coloured = ends_with(&output(&mut on_terminal(&last)), 0).0;
    let plain = ends_with(&output(on_terminal(&last).env("NO_COLOR", "1")), 0).0;
    assert!(coloured.contains("\x1b[36m1\x1b[0m"), "{coloured:?}");
    assert!(plain.starts_with("1  ") && !plain.contains('\x1b'), "{plain:?}");
}
