//! Data that arrives without a request for each: blocked reads, subscriptions, follows.

use std::net::Shutdown;
use std::thread;
use std::time::Duration;

use crate::support::{Client, TestServer, Value};

fn message(word: &str, key: &str, sequence: i64, body: &str) -> impl Fn(&Value) -> bool {
    let (word, key, body) = (word.to_owned(), key.to_owned(), body.to_owned());
    move |frame| {
        let items = frame.items();
        let payload = items[2].text();
        let (head, found) = payload.split_once('\n').expect("a line, then the body");
        let (found_sequence, time) = head.split_once(' ').expect("sequence and time");
        items[0].text() == word
            && items[1].text() == key
            && found_sequence == sequence.to_string()
            && time.parse::<u64>().is_ok()
            && found == body
    }
}

#[test]
fn subscribers_get_what_is_appended_afterwards_in_both_dialects() {
    let server = TestServer::start();
    let mut writer = server.client();
    writer.line("TL.APPEND sync:u before");
    let (mut two, mut three) = (server.client(), server.client3());
    assert_eq!(
        two.line("SUBSCRIBE sync:u"),
        Value::Array(vec![Value::bulk("subscribe"), Value::bulk("sync:u"), Value::Integer(1)])
    );
    assert_eq!(
        three.line("SSUBSCRIBE sync:u"),
        Value::Push(vec![Value::bulk("ssubscribe"), Value::bulk("sync:u"), Value::Integer(1)])
    );
    assert_eq!(
        writer.line("PUBSUB NUMSUB sync:u nope").items()[1],
        Value::Integer(1),
        "shard channels do not count"
    );
    writer.line("TL.FANOUT hello 2 messages:c sync:u");
    assert!(message("message", "sync:u", 2, "hello")(&two.receive()));
    let frame = three.receive();
    assert!(matches!(frame, Value::Push(_)) && message("smessage", "sync:u", 2, "hello")(&frame));
    assert_eq!(two.line("PING x"), Value::Array(vec![Value::bulk("pong"), Value::bulk("x")]));
    assert_eq!(
        two.line("TL.LAST sync:u").word(),
        "ERR",
        "RESP2 cannot tell a reply from a message"
    );
    assert_eq!(three.line("TL.LAST sync:u").items()[2].text(), "hello");
    assert_eq!(two.line("UNSUBSCRIBE").items()[2], Value::Integer(0));
    assert_eq!(two.line("TL.LAST sync:u").items()[2].text(), "hello");
    assert_eq!(writer.line("PUBSUB NUMSUB sync:u").items()[1], Value::Integer(0));
}

#[test]
fn a_channel_that_is_not_a_timeline_is_accepted_and_stays_silent() {
    let server = TestServer::start();
    let mut client = server.client();
    client.send(&["SUBSCRIBE", "nope:x", "plain", "im:{u}", "sync:u"]);
    for count in 1..=4 {
        assert_eq!(client.receive().items()[2], Value::Integer(count));
    }
    server.client().line("TL.APPEND sync:u x");
    assert!(message("message", "sync:u", 1, "x")(&client.receive()));
    client.send(&["UNSUBSCRIBE"]);
    let names: Vec<String> = (0..4).map(|_| client.receive().items()[1].text()).collect();
    assert_eq!(names, ["nope:x", "plain", "im:{u}", "sync:u"], "in the order of subscribing");
}

#[test]
fn a_follow_in_resp2_gets_an_error_that_names_the_alternative() {
    let server = TestServer::start();
    let refused = server.client().line("TL.FOLLOW messages:a AFTER 0");
    assert!(
        matches!(&refused, Value::Error(text) if text.contains("HELLO 3") && text.contains("BLOCK"))
    );
}

#[test]
fn a_follow_goes_from_catch_up_to_live_without_gap_or_repetition_under_a_writer() {
    const ENTRIES: i64 = 20_000;
    let server = TestServer::start();
    let mut writer = server.client();
    let writing = thread::spawn(move || {
        for chunk in 0..ENTRIES / 100 {
            let numbers = chunk * 100 + 1..=chunk * 100 + 100;
            for number in numbers.clone() {
                writer.send(&["TL.APPEND", "messages:live", &number.to_string()]);
            }
            for number in numbers {
                assert_eq!(writer.receive(), Value::Integer(number));
            }
        }
    });
    let followers: Vec<_> = [0, 0, 150, 4000]
        .into_iter()
        .map(|after| {
            let mut client = server.client3();
            thread::spawn(move || {
                while client.line("TL.INFO messages:live").get("last").integer() < after {}
                let reply = client.line(&format!("TL.FOLLOW messages:live AFTER {after}"));
                assert_eq!(
                    (reply.get("verdict").text(), reply.get("next")),
                    ("OK".into(), Value::Integer(after))
                );
                for expected in after + 1..=ENTRIES {
                    let frame = client.receive();
                    let items = frame.items();
                    assert_eq!(
                        (items[0].text(), items[2].integer()),
                        ("tl.entry".into(), expected)
                    );
                    assert_eq!(items[4].text(), expected.to_string());
                }
                assert_eq!(client.line("TL.UNFOLLOW messages:live"), Value::Integer(1));
                assert_eq!(client.line("TL.UNFOLLOW messages:live"), Value::Integer(0));
            })
        })
        .collect();
    writing.join().expect("the writer is content");
    for follower in followers {
        follower.join().expect("the follower is content");
    }
}

#[test]
fn a_follow_from_a_future_cursor_gets_a_verdict_and_is_not_started() {
    let server = TestServer::start();
    let mut client = server.client3();
    client.line("TL.APPEND messages:a x");
    assert_eq!(client.line("TL.FOLLOW messages:a AFTER 7").get("verdict").text(), "FUTURE");
    assert_eq!(
        client.line("TL.FOLLOW messages:a AFTER 0 EPOCH other").get("verdict").text(),
        "EPOCH"
    );
    assert_eq!(client.line("TL.UNFOLLOW messages:a"), Value::Integer(0));
    assert_eq!(client.line("TL.FOLLOW messages:a AFTER 1 COUNT 3").word(), "ERR");
}

#[test]
fn follows_end_when_the_connection_leaves_resp3() {
    let server = TestServer::start();
    let mut writer = server.client();
    for change in ["HELLO 2", "RESET"] {
        let mut client = server.client3();
        client.line("TL.FOLLOW messages:a AFTER 99");
        client.line("TL.FOLLOW messages:b AFTER 0");
        client.line(change);
        writer.line("TL.APPEND messages:b x");
        assert_eq!(client.line("PING"), Value::Simple("PONG".into()), "no frame comes between");
        assert_eq!(client.line("TL.UNFOLLOW messages:b"), Value::Integer(0), "{change}");
        writer.line("TL.DROP messages:b");
    }
}

#[test]
fn a_blocked_read_wakes_with_the_entry_and_serves_follows_meanwhile() {
    let server = TestServer::start();
    let mut writer = server.client();
    let mut reader = server.client3();
    reader.line("TL.FOLLOW messages:followed AFTER 0");
    reader.send(&["TL.READ", "messages:awaited", "AFTER", "0", "BLOCK", "0"]);
    writer.line("TL.APPEND messages:followed pushed");
    assert_eq!(reader.receive().items()[4].text(), "pushed");
    writer.line("TL.APPEND messages:awaited woken");
    assert_eq!(reader.receive().get("entries").entries(), [(1, "woken".into())]);
    reader.send(&["TL.MREAD", "2", "messages:x", "messages:y", "AFTER", "0", "0", "BLOCK", "0"]);
    writer.line("TL.APPEND messages:y woken");
    let reply = reader.receive();
    assert_eq!(reply.items().len(), 1);
    assert_eq!(reply.items()[0].items()[0].text(), "messages:y");
    assert_eq!(reader.line("PING"), Value::Simple("PONG".into()));
}

#[test]
fn a_blocked_read_ends_when_its_time_is_over_or_the_verdict_is_not_ok() {
    let server = TestServer::start();
    let mut client = server.client();
    let late = client.line("TL.READ messages:a AFTER 0 BLOCK 30");
    assert_eq!((late.get("verdict").text(), late.get("entries").items().len()), ("OK".into(), 0));
    assert_eq!(client.line("TL.MREAD 1 messages:a AFTER 0 BLOCK 30"), Value::Array(vec![]));
    let ahead = client.line("TL.READ messages:a AFTER 5 BLOCK 0");
    assert_eq!(ahead.get("verdict").text(), "FUTURE");
    assert_eq!(client.line("TL.READ messages:a AFTER 0 BLOCK -1").word(), "ERR");
}

#[test]
fn a_blocked_read_of_an_emptied_timeline_returns_once_and_then_waits() {
    let server = TestServer::start();
    let mut client = server.client();
    client.line("TL.APPEND messages:a x");
    client.line("TL.TRIM messages:a KEEP 0");
    let reply = client.line("TL.READ messages:a AFTER 0 BLOCK 0");
    assert_eq!(
        (reply.get("verdict").text(), reply.get("entries").items().len()),
        ("TRIMMED".into(), 0)
    );
    let Value::Integer(next) = reply.get("next") else { panic!("{reply:?}") };
    let after = next.to_string();
    client.send(&["TL.READ", "messages:a", "AFTER", &after, "BLOCK", "0"]);
    // It also waits when the timeline is dropped, because the timeline continues its sequences.
    let mut other = server.client();
    other.line("TL.APPEND messages:b x");
    other.line("TL.DROP messages:a");
    assert_eq!(other.line("TL.APPEND messages:a y"), Value::Integer(2));
    let came = client.receive();
    assert_eq!((came.get("verdict").text(), came.get("entries").entries()[0].0), ("OK".into(), 2));
}

#[test]
fn commands_after_a_blocked_one_wait_for_it() {
    let server = TestServer::start();
    let mut client = server.client();
    client.send(&["TL.READ", "messages:a", "AFTER", "0", "BLOCK", "0"]);
    client.send(&["PING"]);
    server.client().line("TL.APPEND messages:a x");
    assert_eq!(client.receive().get("entries").entries().len(), 1);
    assert_eq!(client.receive(), Value::Simple("PONG".into()));
}

#[test]
fn a_blocked_or_subscribed_client_that_disconnects_is_forgotten_at_once() {
    let server = TestServer::start();
    let mut watcher = server.client();
    let mut blocked = server.client();
    blocked.send(&["TL.READ", "messages:a", "AFTER", "0", "BLOCK", "0"]);
    let mut subscribed = server.client();
    subscribed.line("SUBSCRIBE sync:u");
    let half = server.client();
    half.socket.shutdown(Shutdown::Write).expect("it is connected");
    drop((blocked, subscribed, half));
    wait_until(&mut watcher, |watcher| {
        watcher.line("INFO clients").text().contains("connected_clients:1\r\n")
    });
    assert_eq!(watcher.line("PUBSUB NUMSUB sync:u").items()[1], Value::Integer(0));
}

#[test]
fn a_follower_that_reads_late_loses_nothing() {
    const ENTRIES: i64 = 3_000;
    let server = TestServer::with(|config| config.limits.output_high_water_bytes = 64 * 1024);
    let mut follower = server.client3();
    follower.line("TL.FOLLOW messages:big AFTER 0");
    let mut writer = server.client();
    let body = "x".repeat(4096);
    for _ in 0..ENTRIES / 100 {
        for _ in 0..100 {
            writer.send(&["TL.APPEND", "messages:big", &body]);
        }
        for _ in 0..100 {
            assert!(matches!(writer.receive(), Value::Integer(_)));
        }
    }
    for expected in 1..=ENTRIES {
        assert_eq!(follower.receive().items()[2], Value::Integer(expected));
    }
}

#[allow(clippy::disallowed_methods, reason = "a test may sleep while it polls")]
fn wait_until(client: &mut Client, holds: impl Fn(&mut Client) -> bool) {
    for _ in 0..1000 {
        if holds(client) {
            return;
        }
        thread::sleep(Duration::from_millis(10));
    }
    panic!("it never came to hold");
}
