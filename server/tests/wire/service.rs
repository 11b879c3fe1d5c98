//! The binary under a supervisor: what systemd is notified of, and what `strandline health` says.

use std::io::{BufRead as _, BufReader};
use std::os::unix::net::UnixDatagram;
use std::process::{Child, Command, Output, Stdio};

use tempfile::TempDir;

use crate::support::{Client, PATIENCE, TestServer};

fn binary() -> Command {
    Command::new(env!("CARGO_BIN_EXE_strandline"))
}

/// A server that is started as systemd starts it, with the socket that systemd reads.
struct Notifying {
    process: Child,
    socket: UnixDatagram,
    _folder: TempDir,
}

impl Notifying {
    fn start(environment: &[(&str, &str)]) -> Notifying {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let path = folder.path().join("notify");
        let socket = UnixDatagram::bind(&path).expect("it is bound");
        socket.set_read_timeout(Some(PATIENCE)).expect("an option of the socket");
        let process = binary()
            .args(["serve", "--port", "0", "--dir"])
            .arg(folder.path().join("data"))
            .env("NOTIFY_SOCKET", &path)
            .envs(environment.iter().copied())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("the binary starts");
        Notifying { process, socket, _folder: folder }
    }

    fn received(&self) -> String {
        let mut bytes = [0; 1024];
        let length = self.socket.recv(&mut bytes).expect("a datagram comes");
        String::from_utf8_lossy(&bytes[..length]).into()
    }
}

impl Drop for Notifying {
    fn drop(&mut self) {
        // It is gone already, unless a test failed.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn systemd_is_notified_when_the_server_listens_lives_and_stops() {
    let mut server = Notifying::start(&[("WATCHDOG_USEC", "20000")]);
    let ready = server.received();
    let address = ready.strip_prefix("READY=1\nSTATUS=listening on ").expect(&ready);
    let mut client = Client::connect(address.parse().expect("an address"));
    assert_eq!(client.line("PING").text(), "PONG");
    for _ in 0..3 {
        assert_eq!(server.received(), "WATCHDOG=1");
    }
    let kill = Command::new("kill").args(["-TERM", &server.process.id().to_string()]).status();
    assert!(kill.is_ok_and(|status| status.success()));
    while server.received() != "STOPPING=1" {}
    assert!(server.process.wait().expect("it ends").success());
}

#[test]
fn a_server_without_a_watchdog_notifies_only_of_its_start_and_stop() {
    let mut server = Notifying::start(&[]);
    assert!(server.received().starts_with("READY=1\n"));
    let kill = Command::new("kill").args(["-TERM", &server.process.id().to_string()]).status();
    assert!(kill.is_ok_and(|status| status.success()));
    assert_eq!(server.received(), "STOPPING=1");
    assert!(server.process.wait().expect("it ends").success());
}

#[test]
fn a_server_whose_notify_socket_is_gone_serves() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let mut process = binary()
        .args(["serve", "--port", "0", "--dir"])
        .arg(folder.path().join("data"))
        .env("NOTIFY_SOCKET", folder.path().join("nothing"))
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("the binary starts");
    let mut line = String::new();
    BufReader::new(process.stdout.take().expect("it is piped"))
        .read_line(&mut line)
        .expect("a line comes");
    let address = line.trim().strip_prefix("listening on ").expect("an address");
    let mut client = Client::connect(address.parse().expect("an address"));
    client.send(&["SHUTDOWN"]);
    assert!(process.wait().expect("it ends").success());
}

fn health(arguments: &[&str]) -> Output {
    binary().arg("health").args(arguments).output().expect("the binary starts")
}

#[test]
fn health_is_the_exit_code_0_while_a_server_answers_and_1_otherwise() {
    let server = TestServer::start();
    let address = server.address.to_string();
    let healthy = health(&[&address]);
    assert!(healthy.status.success(), "{healthy:?}");
    assert_eq!(String::from_utf8_lossy(&healthy.stdout), format!("{address} serves: +PONG\n"));
    server.stop();
    let gone = health(&[&address, "--timeout", "1"]);
    assert_eq!(gone.status.code(), Some(1));
    let text = String::from_utf8_lossy(&gone.stderr);
    assert!(text.contains(&format!("{address} does not answer")), "{text}");
    // A port at which something else answers.
    let other = std::net::TcpListener::bind("127.0.0.1:0").expect("it is bound");
    let address = other.local_addr().expect("an address").to_string();
    let answering = std::thread::spawn(move || {
        let (mut socket, _) = other.accept().expect("it connects");
        std::io::Write::write_all(&mut socket, b"220 mail\r\n").expect("it is sent");
        socket
    });
    let wrong = health(&[&address]);
    let text = String::from_utf8_lossy(&wrong.stderr).into_owned();
    assert!(wrong.status.code() == Some(1) && text.contains("220 mail"), "{text}");
    drop(answering.join());
}

#[test]
fn a_server_that_asks_for_a_login_is_healthy() {
    let server = TestServer::with(|config| config.password = Some("secret".into()));
    let healthy = health(&[&server.address.to_string()]);
    assert!(healthy.status.success(), "{healthy:?}");
}

#[test]
fn a_server_with_all_its_connections_is_healthy() {
    let server = TestServer::with(|config| config.limits.max_clients = 1);
    let mut client = server.client();
    assert_eq!(client.line("PING").text(), "PONG");
    let healthy = health(&[&server.address.to_string()]);
    assert!(String::from_utf8_lossy(&healthy.stdout).contains("-LIMIT"), "{healthy:?}");
    assert!(healthy.status.success(), "{healthy:?}");
}

#[test]
fn health_by_http_is_the_status_200() {
    for (status, code) in [("200 OK", 0), ("503 Service Unavailable", 1)] {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("it is bound");
        let address = listener.local_addr().expect("an address").to_string();
        let answering = std::thread::spawn(move || {
            let (mut socket, _) = listener.accept().expect("it connects");
            let mut reader = BufReader::new(socket.try_clone().expect("a second handle"));
            let mut line = String::new();
            reader.read_line(&mut line).expect("it is read");
            let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n");
            std::io::Write::write_all(&mut socket, answer.as_bytes()).expect("it is sent");
            (line, reader)
        });
        assert_eq!(health(&["--http", &address]).status.code(), Some(code));
        let (line, _) = answering.join().expect("it answers");
        assert_eq!(line, "GET /readyz HTTP/1.1\r\n");
    }
}
