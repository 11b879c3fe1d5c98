//! Bytes that are not requests, requests that are cut, and very many requests.

use std::io::{Read as _, Write as _};
use std::net::Shutdown;
use std::thread;

use crate::support::{Client, TestServer, Value, encoded};

#[test]
fn a_malformed_frame_is_named_and_the_connection_closed() {
    let server = TestServer::start();
    for (bytes, complaint) in [
        ("*-2\r\n", "invalid multibulk length"),
        ("*1048577\r\n", "invalid multibulk length"),
        ("*x\r\n", "invalid multibulk length"),
        ("*1\n", "invalid multibulk length"),
        ("*1\r\n$-1\r\n", "invalid bulk length"),
        ("*1\r\n$01\r\n", "invalid bulk length"),
        ("*1\r\n$536870912\r\n", "invalid bulk length"),
        ("*1\r\n$99999999999999999999\r\n", "invalid bulk length"),
        ("*1\r\n+PING\r\n", "expected '$', got '+'"),
        ("*1\r\n$4\r\nPINGxx", "a bulk string must end with CRLF"),
        ("PING \"x\r\n", "unbalanced quotes in request"),
    ] {
        for step in [bytes.len(), 1] {
            let mut client = server.client();
            client.send(&["PING"]);
            for piece in bytes.as_bytes().chunks(step) {
                client.send_raw(piece);
            }
            assert_eq!(
                client.receive(),
                Value::Simple("PONG".into()),
                "what came before is answered"
            );
            assert_eq!(
                client.receive(),
                Value::Error(format!("ERR Protocol error: {complaint}")),
                "{bytes:?}"
            );
            assert!(client.is_closed());
        }
    }
}

#[test]
fn inline_commands_and_empty_requests_work() {
    let server = TestServer::start();
    let mut client = server.client();
    client.send_raw(b"\r\n*0\r\n*-1\r\n\nPING\r\nECHO \"a b\"\n");
    assert_eq!(client.receive(), Value::Simple("PONG".into()));
    assert_eq!(client.receive(), Value::bulk("a b"));
}

#[test]
fn an_endless_line_is_refused() {
    let server = TestServer::start();
    let mut client = server.client();
    client.send_raw(&vec![b'a'; 64 * 1024]);
    assert_eq!(client.receive(), Value::Error("ERR Protocol error: too big inline request".into()));
    assert!(client.is_closed());
}

#[test]
fn a_request_that_is_cut_at_any_byte_affects_no_other_client() {
    let server = TestServer::start();
    let mut witness = server.client();
    for line in [
        "TL.APPEND messages:a body",
        "TL.FANOUT body 2 messages:a sync:b",
        "TL.READ messages:a AFTER 0 BLOCK 0",
        "TL.MREAD 1 messages:a AFTER 0",
        "TL.STORE CREATE cut",
        "SUBSCRIBE messages:a",
        "HELLO 3",
    ] {
        let whole = encoded(&line.split(' ').collect::<Vec<_>>());
        for cut in 0..whole.len() {
            let mut client = server.client();
            client.send_raw(&whole[..cut]);
            client.socket.shutdown(Shutdown::Write).expect("it is connected");
            assert!(client.is_closed(), "{line} cut at {cut}");
        }
    }
    assert_eq!(witness.line("PING"), Value::Simple("PONG".into()));
    assert_eq!(
        witness.line("TL.INFO messages:a").get("last"),
        Value::Integer(0),
        "nothing was half done"
    );
}

#[test]
fn a_client_that_closes_its_sending_half_still_gets_all_replies() {
    let server = TestServer::start();
    let mut client = server.client();
    for _ in 0..10_000 {
        client.send_raw(b"PING\r\n");
    }
    client.socket.shutdown(Shutdown::Write).expect("it is connected");
    for _ in 0..10_000 {
        assert_eq!(client.receive(), Value::Simple("PONG".into()));
    }
    assert!(client.is_closed());
}

#[test]
fn a_pipeline_of_a_hundred_thousand_is_answered_in_order_even_if_nothing_is_read_meanwhile() {
    const COMMANDS: i64 = 100_000;
    let server = TestServer::start();
    let mut client = server.client();
    let mut bytes = Vec::new();
    for number in 0..COMMANDS {
        let text = number.to_string();
        match number % 4 {
            0 => bytes.extend(encoded(&["ECHO", &text])),
            _ => bytes.extend(encoded(&["TL.APPEND", "messages:pipe", &text])),
        }
    }
    client.send_raw(&bytes);
    let mut sequence = 0;
    for number in 0..COMMANDS {
        let expected = if number % 4 == 0 {
            Value::bulk(number.to_string())
        } else {
            sequence += 1;
            Value::Integer(sequence)
        };
        assert_eq!(client.receive(), expected);
    }
}

#[test]
fn all_large_replies_to_a_pipeline_that_is_read_late_arrive() {
    const READS: usize = 20_000;
    let server = TestServer::start();
    let mut client = server.client();
    let body = "x".repeat(2000);
    client.call(&["TL.APPEND", "messages:a", &body]);
    // 40 MB of replies: far over the high-water mark and the kernel's buffers.
    client.send_raw(&encoded(&["TL.LAST", "messages:a"]).repeat(READS));
    for _ in 0..READS {
        assert_eq!(client.receive().items()[2].text().len(), 2000);
    }
}

#[test]
fn a_client_that_reads_nothing_is_closed_and_the_others_continue() {
    let server = TestServer::with(|config| {
        config.limits.client_stall_seconds = 1;
        config.limits.output_high_water_bytes = 64 * 1024;
        config.limits.read_ahead_bytes = 64 * 1024;
    });
    let mut slow = server.client();
    let body = "x".repeat(100_000);
    slow.call(&["TL.APPEND", "messages:a", &body]);
    let mut sender = slow.socket.try_clone().expect("a second handle");
    let sending = thread::spawn(move || {
        let request = encoded(&["TL.LAST", "messages:a"]);
        while sender.write_all(&request).is_ok() {}
    });
    let mut other = server.client();
    while !other.line("TL.STATS").get("slow_clients_closed").integer().is_positive() {
        assert_eq!(other.line("PING"), Value::Simple("PONG".into()));
    }
    sending.join().expect("the connection was closed");
    drain(slow);
}

#[test]
fn a_client_that_speaks_http_is_closed_and_nothing_after_that_runs() {
    let server = TestServer::start();
    for head in
        ["POST / HTTP/1.1\r\n", "GET / HTTP/1.1\r\n", "host: 127.0.0.1\r\n", "HEAD /x HTTP/1.0\r\n"]
    {
        let mut client = server.client();
        client.send_raw(format!("PING\r\n{head}TL.APPEND messages:a x\r\n").as_bytes());
        assert_eq!(client.receive(), Value::Simple("PONG".into()), "what came before is answered");
        assert!(client.is_closed(), "{head}");
    }
    assert_eq!(server.client().line("TL.LAST messages:a"), Value::Null);
}

#[test]
fn an_array_may_have_words_that_a_line_of_http_has() {
    let server = TestServer::start();
    let mut client = server.client();
    for line in ["TL.APPEND messages:a HTTP/1.1", "ECHO HTTP/1.0"] {
        let reply = client.line(line);
        assert!(!matches!(reply, Value::Error(_)), "{reply:?}");
    }
    assert_eq!(client.line("TL.LAST messages:a").items()[2].text(), "HTTP/1.1");
    assert_eq!(client.line("POST / HTTP/1.1").word(), "ERR", "no such command");
    assert_eq!(client.line("PING"), Value::Simple("PONG".into()), "and the connection goes on");
}

#[test]
fn a_client_that_closes_its_sending_half_after_a_blocked_command_gets_the_replies_before_it() {
    let server = TestServer::start();
    let mut client = server.client();
    let body = "x".repeat(1 << 20);
    client.call(&["TL.APPEND", "messages:big", &body]);
    // More than the kernel takes at once, so that replies wait when the end arrives.
    let mut bytes = encoded(&["TL.LAST", "messages:big"]).repeat(16);
    bytes.extend(encoded(&["TL.READ", "messages:none", "AFTER", "0", "BLOCK", "0"]));
    client.send_raw(&bytes);
    client.socket.shutdown(Shutdown::Write).expect("it is connected");
    for _ in 0..16 {
        assert_eq!(client.receive().items()[2].text().len(), 1 << 20);
    }
    assert!(client.is_closed());
}

/// Reads the rest; the end, or a reset, must follow.
fn drain(mut client: Client) {
    let mut rest = Vec::new();
    let _ = client.socket.read_to_end(&mut rest);
    assert!(rest.len() < 200_000_000);
}
