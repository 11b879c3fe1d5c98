//! The http port: who is answered, what health it reports, and that it harms nobody.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use strandline_server::Config;

use crate::support::{HttpAnswer, PATIENCE, TestServer, Value};

fn server() -> TestServer {
    TestServer::with(|config| config.http.port = Some(0))
}

#[test]
fn a_server_that_serves_is_alive_and_ready() {
    let server = server();
    for path in ["/livez", "/readyz"] {
        let answer = server.get(path, "");
        assert_eq!((answer.status, &*answer.body), (200, "ok\n"), "{path}");
    }
    let answer = server.get("/", "");
    assert_eq!(answer.status, 404);
    assert!(answer.body.contains("/metrics"), "{}", answer.body);
    let answer = HttpAnswer::to(
        server.http_address(),
        "POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n",
    );
    assert_eq!(answer.status, 405);
}

#[test]
fn without_the_setting_no_port_is_open_and_with_it_only_loopback() {
    assert!(Config::default().http.port.is_none());
    assert!(server().http_address().ip().is_loopback());
}

#[test]
fn a_read_only_server_is_alive_and_not_ready_with_the_reason() {
    let mut server = server();
    server.client().line("TL.APPEND messages:a x");
    server.pause();
    server.change(|config| config.read_only = true);
    server.resume();
    let answer = server.get("/readyz", "");
    assert_eq!(answer.status, 503);
    assert!(answer.body.contains("read-only"), "{}", answer.body);
    assert_eq!(server.get("/livez", "").status, 200);
}

#[test]
fn a_server_that_stops_says_so_until_it_has_stopped() {
    let server = TestServer::with(|config| {
        config.http.port = Some(0);
        config.limits.stop_seconds = 30;
    });
    let address = server.http_address();
    // Its reply is larger than what the peer takes, so that the server waits for it.
    let mut slow = server.client();
    let body = "x".repeat(900_000);
    for _ in 0..20 {
        slow.call(&["TL.APPEND", "messages:a", &body]);
    }
    slow.send(&["TL.RANGE", "messages:a", "-", "+"]);
    let mut first = [0];
    slow.socket.read_exact(&mut first).expect("the reply has begun");
    server.client().send(&["SHUTDOWN"]);
    let answer = loop {
        let answer = HttpAnswer::to(address, "GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n");
        if answer.status != 200 {
            break answer;
        }
    };
    assert_eq!(answer.body, "the server is stopping\n");
    drop(slow);
    server.wait();
    assert!(TcpStream::connect(address).is_err(), "the port is closed");
}

#[test]
fn a_thousand_connections_that_send_nothing_keep_no_check_out() {
    let server = server();
    let mut silent: Vec<TcpStream> = Vec::new();
    for count in 0..1000 {
        silent.push(TcpStream::connect(server.http_address()).expect("it is accepted"));
        if count % 100 == 0 {
            assert_eq!(server.get("/livez", "").status, 200, "after {count}");
        }
    }
    let mut half = TcpStream::connect(server.http_address()).expect("it is accepted");
    half.write_all(b"GET /metrics HTTP/1.1\r\nHo").expect("it is sent");
    assert_eq!(server.get("/readyz", "").status, 200);
    // The oldest were replaced.
    let oldest = &mut silent[0];
    oldest.set_read_timeout(Some(PATIENCE)).expect("an option of the socket");
    assert!(matches!(oldest.read(&mut [0]), Ok(0) | Err(_)), "it is closed");
    assert_eq!(server.client().line("PING"), Value::Simple("PONG".into()));
}
