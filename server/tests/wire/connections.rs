//! Which connections are accepted, how many, and for how long.

use std::thread;
use std::time::Duration;

use crate::support::{TestServer, Value};

fn with_password() -> TestServer {
    TestServer::with(|config| {
        config.password = Some("secret".into());
        config.limits.auth_seconds = 2;
    })
}

#[test]
fn a_password_logs_in_by_auth_and_by_hello() {
    let server = with_password();
    let mut client = server.client();
    for line in ["PING", "TL.LAST messages:a", "SUBSCRIBE sync:a", "HELLO 3", "INFO", "SHUTDOWN"] {
        assert_eq!(client.line(line).word(), "NOAUTH", "{line}");
    }
    assert_eq!(client.line("AUTH wrong").word(), "WRONGPASS");
    assert_eq!(client.line("AUTH root secret").word(), "WRONGPASS");
    assert_eq!(client.line("AUTH secret"), Value::Simple("OK".into()));
    assert_eq!(client.line("PING"), Value::Simple("PONG".into()));
    assert_eq!(client.line("RESET"), Value::Simple("RESET".into()));
    assert_eq!(client.line("PING").word(), "NOAUTH", "RESET logs out");
    let mut other = server.client();
    let hello = other.line("HELLO 3 AUTH default secret SETNAME n");
    assert_eq!(hello.get("proto"), Value::Integer(3));
    assert_eq!(other.line("CLIENT GETNAME").text(), "n");
}

#[test]
fn before_login_a_header_that_announces_much_is_refused() {
    let server = with_password();
    for (bytes, complaint) in [
        ("*1000000\r\n", "unauthenticated multibulk length"),
        ("*2\r\n$4\r\nAUTH\r\n$536870912\r\n", "unauthenticated bulk length"),
    ] {
        let mut client = server.client();
        client.send_raw(bytes.as_bytes());
        assert_eq!(client.receive(), Value::Error(format!("ERR Protocol error: {complaint}")));
        assert!(client.is_closed());
    }
}

#[test]
#[allow(clippy::disallowed_methods, reason = "the test lets time pass")]
fn connections_that_do_not_log_in_are_closed_however_busy_and_make_room() {
    let server = TestServer::with(|config| {
        config.password = Some("secret".into());
        config.limits.auth_seconds = 2;
        config.limits.max_clients = 5;
    });
    let mut squatters: Vec<_> = (0..5).map(|_| server.client()).collect();
    let mut turned_away = server.client();
    assert_eq!(turned_away.receive().word(), "LIMIT");
    assert!(turned_away.is_closed());
    for _ in 0..3 {
        for squatter in &mut squatters {
            assert_eq!(squatter.line("PING").word(), "NOAUTH");
        }
        thread::sleep(Duration::from_millis(500));
    }
    for squatter in &mut squatters {
        assert_eq!(squatter.receive().word(), "NOAUTH");
        assert!(squatter.is_closed());
    }
    let mut client = server.client();
    assert_eq!(client.line("AUTH secret"), Value::Simple("OK".into()));
}

#[test]
fn subscriptions_are_limited_and_the_limit_leaves_the_connection_open() {
    let server = TestServer::with(|config| config.limits.max_subscriptions = 2);
    let mut client = server.client3();
    client.send(&["SUBSCRIBE", "sync:a", "sync:b", "sync:c"]);
    assert_eq!(client.receive().items()[2], Value::Integer(1));
    assert_eq!(client.receive().items()[2], Value::Integer(2));
    assert_eq!(client.receive().word(), "LIMIT");
    assert_eq!(client.line("TL.FOLLOW messages:a AFTER 0").word(), "LIMIT");
    assert!(
        matches!(client.line("SUBSCRIBE sync:a"), Value::Push(_)),
        "one that is there is not one more"
    );
    assert_eq!(
        client.line("TL.MREAD 1 sync:a AFTER 0 BLOCK 1").word(),
        "LIMIT",
        "to be blocked is to watch"
    );
    assert_eq!(client.line("TL.MREAD 1 sync:a AFTER 0"), Value::Array(vec![]));
    client.line("UNSUBSCRIBE sync:b");
    assert_eq!(client.line("TL.FOLLOW messages:a AFTER 0").get("verdict").text(), "OK");
}
