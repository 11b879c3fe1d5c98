//! Stores that are dropped and created again, as clients see it.

use crate::support::{TestServer, Value};

const OK: &str = "OK";

fn ok() -> Value {
    Value::Simple(OK.into())
}

#[test]
fn a_drop_is_refused_in_the_order_of_the_contract_and_takes_everything_with_it() {
    let server = TestServer::start();
    let mut client = server.client3();
    for (line, word) in [
        ("TL.STORE DROP", "ERR"),
        ("TL.STORE DROP messages NONSENSE", "ERR"),
        ("TL.STORE DROP messages", "NOPERM"),
        ("TL.STORE DROP messages FORCE", "NOPERM"),
        ("TL.STORE DROP sync force", "NOPERM"),
        ("TL.STORE DROP box FORCE", "NOSTORE"),
        ("TL.STORE DROP im FORCE", "NOSTORE"),
        ("TL.STORE DROP im.users FORCE", "NOSTORE"),
    ] {
        assert_eq!(client.line(line).word(), word, "{line}");
    }
    assert_eq!(client.line("TL.STORE CREATE box"), ok());
    assert_eq!(client.line("TL.APPEND box:a x ID i"), Value::Integer(1));
    let epoch = client.line("TL.INFO box:a").get("epoch").text();
    assert_eq!(client.line("TL.STORE DROP box").word(), "ERR", "it is not empty");
    assert_eq!(client.line("TL.LAST box:a").items()[0], Value::Integer(1));
    assert_eq!(client.line("TL.STORE DROP box FORCE"), ok());
    for line in [
        "TL.LAST box:a",
        "TL.APPEND box:a x",
        "TL.LIST box:",
        "TL.STORE INFO box",
        "TL.STORE DROP box",
    ] {
        assert_eq!(client.line(line).word(), "NOSTORE", "{line}");
    }
    assert_eq!(client.line("TL.STORE CREATE box TTL 5000"), ok());
    assert_eq!(
        client.line("TL.APPEND box:a y ID i"),
        Value::Integer(1),
        "the ID is forgotten, too"
    );
    let read = client.line(&format!("TL.READ box:a AFTER 1 EPOCH {epoch}"));
    assert_eq!(read.get("verdict").text(), "EPOCH");
    assert_ne!(read.get("epoch").text(), epoch);
    assert_eq!(client.line("TL.DROP box:a"), Value::Integer(1));
    assert_eq!(client.line("TL.STORE DROP box"), ok(), "nothing in it can be read");
}

#[test]
fn listeners_to_a_dropped_store_are_notified() {
    let server = TestServer::start();
    let (mut client, mut follower, mut blocked) =
        (server.client(), server.client3(), server.client());
    client.line("TL.STORE CREATE box");
    client.line("TL.APPEND box:a one");
    assert_eq!(follower.line("TL.FOLLOW box:a AFTER 0").get("verdict").text(), "OK");
    assert_eq!(follower.receive().items()[0].text(), "tl.entry");
    assert_eq!(follower.line("TL.FOLLOW messages:a AFTER 0").get("verdict").text(), "OK");
    assert_eq!(follower.line("SUBSCRIBE box:b").items()[2], Value::Integer(1));
    blocked.send(&["TL.MREAD", "2", "messages:a", "box:b", "AFTER", "0", "0", "BLOCK", "0"]);
    while !client.line("CLIENT LIST").text().contains(" flags=b ") {}
    assert_eq!(client.line("TL.STORE DROP box FORCE"), ok());
    let gap = follower.receive();
    assert_eq!(
        gap,
        Value::Push(vec![
            Value::bulk("tl.gap"),
            Value::bulk("box:a"),
            Value::bulk("EPOCH"),
            Value::Integer(1),
            Value::Integer(0)
        ])
    );
    assert_eq!(blocked.receive().word(), "NOSTORE");
    assert_eq!(follower.line("TL.UNFOLLOW box:a"), Value::Integer(0), "it has ended");
    client.line("TL.STORE CREATE box");
    client.line("TL.APPEND box:a two");
    client.line("TL.APPEND box:b two");
    client.line("TL.APPEND messages:a two");
    assert_eq!(
        follower.receive().items()[1].text(),
        "messages:a",
        "nothing of the new store comes"
    );
    assert_eq!(
        follower.line("SUBSCRIBE box:b").items()[2],
        Value::Integer(1),
        "unless it is asked for again"
    );
    client.line("TL.APPEND box:b three");
    assert_eq!(follower.receive().items()[0].text(), "message");
    assert_eq!(blocked.line("PING"), Value::Simple("PONG".into()));
}
