//! The limits on a connection's memory and requests, and on its lifetime, other than those for slow
//! readers (`memory.rs`).

use std::io::Write as _;
use std::time::Duration;

use crate::support::{Client, TestServer, Value, encoded};

fn figure(client: &mut Client, name: &str) -> i64 {
    client.line("TL.STATS").get(name).integer()
}

#[test]
fn before_login_a_connection_holds_at_most_64_kib_and_nothing_of_the_memory_of_others() {
    const STRANGERS: i64 = 20;
    let server = TestServer::with(|config| {
        config.password = Some("secret".into());
        config.limits.client_memory_bytes = 16 << 20;
        config.limits.auth_seconds = 60;
    });
    let strangers: Vec<_> = (0..STRANGERS)
        .map(|_| {
            let mut stranger = server.client();
            let patience = Some(Duration::from_millis(50));
            stranger.socket.set_write_timeout(patience).expect("an option of the socket");
            // Until it takes no more: the replies are not read.
            while stranger.socket.write_all(&encoded(&["PING"]).repeat(1000)).is_ok() {}
            stranger
        })
        .collect();
    let mut client = server.client();
    assert_eq!(client.line("AUTH secret"), Value::Simple("OK".into()));
    let held = figure(&mut client, "client_stranger_bytes");
    assert!(held > 0 && held <= STRANGERS * 64 * 1024, "{held}");
    // Its own.
    assert!(figure(&mut client, "client_input_bytes") <= 32 * 1024);
    assert!(figure(&mut client, "client_output_bytes") <= 32 * 1024);
    drop(strangers);
}

#[test]
fn an_idle_connection_is_closed_and_one_that_listens_or_waits_is_not() {
    let server = TestServer::with(|config| config.limits.idle_seconds = 2);
    let mut subscriber = server.client3();
    subscriber.line("SUBSCRIBE messages:a");
    let mut blocked = server.client();
    blocked.send(&["TL.READ", "messages:a", "AFTER", "0", "BLOCK", "0"]);
    let mut idle = server.client();
    assert!(idle.is_closed());
    let mut other = server.client();
    assert_eq!(other.line("TL.APPEND messages:a x"), Value::Integer(1));
    assert!(figure(&mut other, "idle_clients_closed") > 0);
    assert!(matches!(subscriber.receive(), Value::Push(_)));
    assert_eq!(blocked.receive().get("entries").entries(), [(1, "x".into())]);
}

#[test]
fn subscriptions_of_all_connections_are_limited_together_and_released() {
    let server = TestServer::with(|config| config.limits.max_total_subscriptions = 3);
    let (mut first, mut second) = (server.client3(), server.client3());
    first.line("SUBSCRIBE a:a");
    first.line("SSUBSCRIBE messages:b");
    assert!(matches!(second.line("TL.FOLLOW messages:c AFTER 0"), Value::Map(_)));
    assert_eq!(second.line("TL.FOLLOW messages:d AFTER 0").word(), "LIMIT");
    assert_eq!(second.line("TL.READ messages:d AFTER 0 BLOCK 9").word(), "LIMIT");
    first.line("UNSUBSCRIBE a:a");
    assert!(matches!(second.line("TL.FOLLOW messages:d AFTER 0"), Value::Map(_)));
    assert_eq!(first.line("SUBSCRIBE a:a").word(), "LIMIT");
    assert_eq!(second.line("RESET"), Value::Simple("RESET".into()));
    assert!(matches!(first.line("SUBSCRIBE a:a"), Value::Push(_)));
}

fn many_keys(count: usize, after: &str) -> Vec<String> {
    let mut words = vec!["TL.MREAD".to_owned(), count.to_string()];
    words.extend((0..count).map(|number| format!("messages:{number}")));
    words.push("AFTER".into());
    words.extend((0..count).map(|_| after.to_owned()));
    words
}

#[test]
fn a_read_of_more_keys_than_a_slice_has_returns_what_a_short_one_would() {
    let server = TestServer::start();
    let mut client = server.client();
    for number in [0, 999, 1000, 4999] {
        client.call(&["TL.APPEND", &format!("messages:{number}"), "x"]);
    }
    client.line("TL.FLUSH");
    let reply = client.call(&many_keys(5000, "0"));
    let keys: Vec<_> = reply.items().iter().map(|item| item.items()[0].text()).collect();
    assert_eq!(keys, ["messages:0", "messages:999", "messages:1000", "messages:4999"]);
    assert_eq!(reply.items()[3].items()[1].get("entries").entries(), [(1, "x".into())]);
    let mut wrong = many_keys(5000, "0");
    *wrong.last_mut().expect("there are words") = "x".into();
    wrong[2] = "nostore:a".into();
    assert_eq!(client.call(&wrong).word(), "ERR", "words come before keys");
    *wrong.last_mut().expect("there are words") = "0".into();
    assert_eq!(client.call(&wrong).word(), "NOSTORE");
    let mut blocked = many_keys(3000, "1");
    blocked[3002] = "AFTER".into();
    blocked.extend(["BLOCK".into(), "0".into()]);
    for number in 0..3000 {
        blocked[3003 + number] = "0".into();
    }
    blocked[3003] = "1".into();
    blocked[3003 + 999] = "1".into();
    blocked[3003 + 1000] = "1".into();
    client.send(&blocked);
    server.client().line("TL.APPEND messages:2999 y");
    let reply = client.receive();
    assert_eq!(reply.items()[0].items()[0].text(), "messages:2999");
}

#[test]
fn replies_that_consist_of_many_small_parts_are_bounded_too() {
    let server = TestServer::with(|config| config.limits.reply_bytes = 100_000);
    let mut client = server.client();
    assert_eq!(client.call(&many_keys(2000, "7")).word(), "LIMIT", "a verdict for each");
    assert_eq!(client.call(&many_keys(2000, "0")), Value::Array(vec![]));
    let info: Vec<_> =
        ["COMMAND", "INFO"].into_iter().chain(std::iter::repeat_n("PING", 5000)).collect();
    assert_eq!(client.call(&info).word(), "LIMIT");
    let docs: Vec<_> =
        ["COMMAND", "DOCS"].into_iter().chain(std::iter::repeat_n("PING", 5000)).collect();
    assert_eq!(client.call(&docs).items().len(), 2, "one command and its map");
    assert_eq!(client.line("PING"), Value::Simple("PONG".into()));
}

#[test]
fn a_follow_with_heartbeats_sends_its_position_when_nothing_comes() {
    let server = TestServer::start();
    let mut client = server.client3();
    assert_eq!(client.line("TL.FOLLOW messages:a AFTER 0 HEARTBEAT 999").word(), "ERR");
    client.line("TL.APPEND messages:a x");
    client.line("TL.FOLLOW messages:a AFTER 0 HEARTBEAT 1000");
    assert_eq!(client.receive().items()[0].text(), "tl.entry");
    let position =
        Value::Push(vec![Value::bulk("tl.cursor"), Value::bulk("messages:a"), Value::Integer(1)]);
    assert_eq!((client.receive(), client.receive()), (position.clone(), position));
    let mut terminal = server.client3();
    terminal.line("IM.CREATE c MEMBERS ann bob");
    assert_eq!(terminal.line("IM.FOLLOW ann 0 HEARTBEAT x").word(), "ERR");
    terminal.line("IM.FOLLOW ann $ HEARTBEAT 1000");
    let frame = terminal.receive();
    let words: Vec<_> = frame.items().iter().map(Value::text).collect();
    assert_eq!(words[..2], ["im.cursor", "ann"]);
    assert_eq!(words[2], terminal.line("IM.TAIL ann").text());
}
