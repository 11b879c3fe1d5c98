//! A stock Redis client, with its default settings, in both dialects.

use redis::{Commands as _, Connection, Value};

use crate::support::TestServer;

fn connect(server: &TestServer, dialect: &str) -> Connection {
    let address = format!("redis://{}/?protocol={dialect}", server.address);
    let client = redis::Client::open(address).expect("a url");
    client.get_connection().expect("it connects")
}

#[test]
fn a_stock_client_appends_reads_and_pipelines_in_both_dialects() {
    let server = TestServer::start();
    for (dialect, key) in [("resp2", "messages:two"), ("resp3", "messages:three")] {
        let mut connection = connect(&server, dialect);
        let sequence: u64 = redis::cmd("TL.APPEND")
            .arg(key)
            .arg(b"\x00\xff")
            .query(&mut connection)
            .expect("a reply");
        assert_eq!(sequence, 1);
        let entry: (u64, u64, Vec<u8>) =
            redis::cmd("TL.GET").arg(key).arg(1).query(&mut connection).expect("a reply");
        assert_eq!((entry.0, entry.2), (1, b"\x00\xff".to_vec()));
        let mut pipeline = redis::pipe();
        for number in 0..1000 {
            pipeline.cmd("TL.APPEND").arg(key).arg(number);
        }
        let sequences: Vec<u64> = pipeline.query(&mut connection).expect("a reply");
        assert_eq!(sequences, (2..=1001).collect::<Vec<_>>());
        let read: std::collections::HashMap<String, Value> = redis::cmd("TL.READ")
            .arg(key)
            .arg("AFTER")
            .arg(0)
            .query(&mut connection)
            .expect("a map");
        assert_eq!(read["last"], Value::Int(1001));
        let error = redis::cmd("TL.GET")
            .arg("nope:x")
            .arg(1)
            .query::<Value>(&mut connection)
            .expect_err("refused");
        assert_eq!(error.code(), Some("NOSTORE"));
    }
}

#[test]
fn a_stock_client_s_pub_sub_gets_entries() {
    let server = TestServer::start();
    let mut listener = connect(&server, "resp2");
    let mut subscription = listener.as_pubsub();
    subscription.subscribe("sync:u").expect("it subscribes");
    let mut writer = connect(&server, "resp2");
    let _: u64 =
        redis::cmd("TL.APPEND").arg("sync:u").arg("hi").query(&mut writer).expect("a reply");
    let message = subscription.get_message().expect("a message");
    let payload: String = message.get_payload().expect("a text");
    assert!(payload.starts_with("1 ") && payload.ends_with("\nhi"));
    let pong: String = writer.ping().expect("a reply");
    assert_eq!(pong, "PONG");
}
