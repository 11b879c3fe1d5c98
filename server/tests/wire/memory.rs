//! The memory that unknown clients can make the server hold, and the closing of clients that are
//! gone, stuck or slow.

use std::io::{Read as _, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use crate::support::{Client, TestServer, Value, encoded};

#[allow(clippy::disallowed_methods, reason = "the test lets time pass")]
fn pause(milliseconds: u64) {
    thread::sleep(Duration::from_millis(milliseconds));
}

fn connected(client: &mut Client) -> String {
    let text = client.line("INFO clients").text();
    text.lines().find(|line| line.starts_with("connected_clients")).unwrap_or_default().to_owned()
}

#[test]
fn disconnected_clients_are_noticed_even_if_others_have_used_up_the_read_ahead() {
    let server = TestServer::with(|config| {
        config.limits.read_ahead_bytes = 1 << 20;
        config.limits.total_read_ahead_bytes = 8 << 20;
    });
    let block = encoded(&["TL.READ", "messages:a", "AFTER", "0", "BLOCK", "0"]);
    let hogs: Vec<_> = (0..9)
        .map(|_| {
            let mut hog = server.client();
            hog.send_raw(&block);
            hog.socket
                .set_write_timeout(Some(Duration::from_millis(300)))
                .expect("an option of the socket");
            // As much as it accepts: the server's read-ahead, then the kernel's buffers.
            while hog.socket.write_all(&encoded(&["PING"]).repeat(1000)).is_ok() {}
            hog
        })
        .collect();
    let blocked: Vec<_> = (0..50)
        .map(|_| {
            let mut client = server.client();
            client.send_raw(&block);
            client
        })
        .collect();
    let mut witness = server.client();
    assert_eq!(connected(&mut witness), "connected_clients:60");
    drop(blocked);
    for _ in 0..20 {
        if connected(&mut witness) == "connected_clients:10" {
            drop(hogs);
            return;
        }
        pause(100);
    }
    panic!("still there after two seconds: {}", connected(&mut witness));
}

#[test]
fn incomplete_requests_of_many_connections_are_bounded_together_and_the_largest_is_closed() {
    let server = TestServer::with(|config| config.limits.client_memory_bytes = 4 << 20);
    // Each may send its own 1 MiB; all of them together, 20 MiB, exceed the 2 MiB that input may
    // take.
    let mut halves: Vec<_> = (0..20)
        .map(|_| {
            let mut client = server.client();
            client.send_raw(b"*2\r\n$4\r\nECHO\r\n$1048576\r\n");
            client
                .socket
                .set_write_timeout(Some(Duration::from_millis(100)))
                .expect("an option of the socket");
            // Bytes that the server does not read stay in the kernel's buffers, or are not
            // accepted.
            let _ = client.socket.write_all(&vec![b'x'; 1_000_000]);
            client
        })
        .collect();
    let mut witness = server.client();
    while !witness.line("TL.STATS").get("memory_clients_closed").integer().is_positive() {
        pause(20);
    }
    assert_eq!(witness.line("TL.APPEND messages:a x"), Value::Integer(1), "small requests go on");
    let is_refused = halves.iter_mut().any(|half| {
        half.socket
            .set_read_timeout(Some(Duration::from_millis(10)))
            .expect("an option of the socket");
        half.frame().is_ok_and(|frame| frame.word() == "LIMIT")
    });
    assert!(is_refused, "one of them got LIMIT");
}

#[test]
fn slow_readers_of_large_replies_are_bounded_together_and_the_others_continue() {
    let server = TestServer::with(|config| config.limits.client_memory_bytes = 16 << 20);
    let mut writer = server.client();
    let body = "x".repeat(1 << 20);
    for _ in 0..8 {
        writer.call(&["TL.APPEND", "messages:a", &body]);
    }
    // Each requests 8 MiB and reads none of it; output may take 8 MiB.
    let readers: Vec<_> = (0..10)
        .map(|_| {
            let mut reader = server.client();
            reader.send(&["TL.RANGE", "messages:a", "-", "+"]);
            reader
        })
        .collect();
    while !writer.line("TL.STATS").get("slow_clients_closed").integer().is_positive() {
        pause(20);
    }
    assert_eq!(writer.line("PING"), Value::Simple("PONG".into()));
    drop(readers);
}

#[test]
fn a_request_that_is_not_completed_is_closed_and_one_that_is_slow_but_moves_is_not() {
    let server = TestServer::with(|config| config.limits.client_stall_seconds = 1);
    let mut stuck = server.client();
    stuck.send_raw(b"*2\r\n$4\r\nECHO\r\n$100000\r\nxyz");
    let mut moving = server.client();
    moving.send_raw(b"*2\r\n$4\r\nECHO\r\n$100000\r\n");
    for _ in 0..10 {
        moving.send_raw(&[b'x'; 10_000]);
        pause(200);
    }
    moving.send_raw(b"\r\n");
    assert_eq!(moving.receive().text().len(), 100_000);
    assert_eq!(stuck.receive().word(), "SLOW");
    assert!(stuck.is_closed());
}

#[test]
fn a_reader_that_takes_a_byte_now_and_then_is_closed() {
    let server = TestServer::with(|config| {
        config.limits.client_stall_seconds = 1;
        config.limits.output_high_water_bytes = 64 * 1024;
    });
    let mut slow = server.client();
    let body = "x".repeat(1 << 20);
    for _ in 0..16 {
        slow.call(&["TL.APPEND", "messages:a", &body]);
    }
    slow.send(&["TL.RANGE", "messages:a", "-", "+"]);
    let mut reader = slow.socket.try_clone().expect("a second handle");
    let is_over = Arc::new(AtomicBool::new(false));
    let over = Arc::clone(&is_over);
    let trickle = thread::spawn(move || {
        let mut byte = [0];
        while !over.load(Ordering::Relaxed) && reader.read(&mut byte).is_ok_and(|count| count > 0) {
            pause(100);
        }
    });
    let mut other = server.client();
    while !other.line("TL.STATS").get("slow_clients_closed").integer().is_positive() {
        pause(20);
    }
    is_over.store(true, Ordering::Relaxed);
    trickle.join().expect("the reader ends");
}
