//! Conditions of a write, retries, and later changes and removals of entries.

use crate::support::{TestServer, Value, encoded};

#[test]
fn an_id_makes_a_retry_give_the_first_sequence_whatever_else_it_asks_for() {
    let server = TestServer::start();
    let mut client = server.client();
    assert_eq!(client.line("TL.APPEND messages:a x ID 1"), Value::Integer(1));
    assert_eq!(client.line("TL.APPEND messages:a y"), Value::Integer(2));
    for retry in ["ID 1", "ID 1 IFLAST 9", "ID 1 SEQ 1"] {
        assert_eq!(
            client.line(&format!("TL.APPEND messages:a x {retry}")),
            Value::Integer(1),
            "{retry}"
        );
    }
    let conflict = client.line("TL.APPEND messages:a other ID 1");
    assert!(matches!(&conflict, Value::Error(text)
            if text.starts_with("CONFLICT ") && text.contains('1')));
    assert_eq!(
        client.line("TL.APPEND messages:b other ID 1"),
        Value::Integer(1),
        "an id belongs to its timeline"
    );
    let all = Value::Array(vec![Value::Integer(3), Value::Integer(1), Value::Integer(4)]);
    for _ in 0..2 {
        assert_eq!(client.line("TL.FANOUT z 3 messages:a sync:u messages:a ID 2"), all);
    }
    assert_eq!(client.line("TL.FANOUT z 2 messages:a sync:u ID 2").word(), "CONFLICT");
    assert_eq!(client.line("TL.INFO messages:a").get("last"), Value::Integer(4));
}

#[test]
fn conditions_are_kept_and_name_the_last_sequence() {
    let server = TestServer::start();
    let mut client = server.client();
    assert_eq!(client.line("TL.APPEND messages:a x IFLAST 0"), Value::Integer(1));
    let refused = client.line("TL.APPEND messages:a x IFLAST 0 SEQ 1");
    assert!(matches!(&refused, Value::Error(text)
            if text.starts_with("LASTSEQ ") && text.ends_with('1')));
    assert_eq!(client.line("TL.APPEND messages:a x SEQ 1").word(), "SEQORDER");
    assert_eq!(client.line("TL.APPEND messages:a x SEQ 10 IFLAST 1"), Value::Integer(10));
    assert_eq!(client.line("TL.APPEND messages:a x"), Value::Integer(11));
    assert_eq!(
        client.line("TL.APPEND messages:a x SEQ 9223372036854775807"),
        Value::Integer(i64::MAX)
    );
    assert_eq!(client.line("TL.APPEND messages:a x").word(), "LIMIT");
    for wrong in ["PX 0", "PX -1", "SEQ", "IFLAST x", "IFLAST 0 SIDEWAYS 1"] {
        assert_eq!(
            client.line(&format!("TL.APPEND messages:b x {wrong}")).word(),
            "ERR",
            "{wrong}"
        );
    }
    assert_eq!(
        client.line("TL.FANOUT x 1 messages:b SEQ 5").word(),
        "ERR",
        "a fan-out has no chosen sequence"
    );
}

#[test]
fn entries_are_trimmed_deleted_edited_and_dropped() {
    let server = TestServer::start();
    let mut client = server.client3();
    for number in 1..=10 {
        client.line(&format!("TL.APPEND messages:a m{number}"));
    }
    assert_eq!(client.line("TL.TRIM messages:a BEFORE 3"), Value::Integer(2));
    assert_eq!(client.line("TL.READ messages:a AFTER 0 COUNT 1").get("verdict").text(), "TRIMMED");
    assert_eq!(client.line("TL.DEL messages:a 4 4 99"), Value::Integer(1));
    assert_eq!(client.line("TL.EDIT messages:a 5 new"), Value::Integer(1));
    assert_eq!(client.line("TL.EDIT messages:a 4 new"), Value::Integer(0));
    assert_eq!(
        client.line("TL.RANGE messages:a - 5").entries(),
        [(3, "m3".into()), (5, "new".into())]
    );
    assert_eq!(client.line("TL.TRIM messages:a keep 2"), Value::Integer(5));
    assert_eq!(client.line("TL.TRIM messages:a OLDER 1"), Value::Integer(0));
    assert_eq!(client.line("TL.INFO messages:a").get("first"), Value::Integer(9));
    assert_eq!(client.line("TL.DROP messages:a"), Value::Integer(1));
    assert_eq!(client.line("TL.DROP messages:a"), Value::Integer(0));
    assert_eq!(client.line("TL.APPEND messages:a again"), Value::Integer(11));
    for (line, word) in [
        ("TL.TRIM messages:a SIDEWAYS 1", "ERR"),
        ("TL.TRIM messages:a KEEP x", "ERR"),
        ("TL.TRIM nope:a KEEP 1", "NOSTORE"),
        ("TL.DEL messages:a x", "ERR"),
        ("TL.EDIT messages:a x y", "ERR"),
        ("TL.DROP messages", "ERR"),
    ] {
        assert_eq!(client.line(line).word(), word, "{line}");
    }
    let large = "x".repeat((1 << 20) + 1);
    assert_eq!(client.call(&["TL.EDIT", "messages:a", "11", &large]).word(), "TOOBIG");
}

#[test]
#[allow(clippy::disallowed_methods, reason = "the test lets time pass")]
fn an_entry_with_its_own_lifetime_expires_alone() {
    let server = TestServer::start();
    let mut client = server.client();
    client.line("TL.APPEND messages:a short PX 50");
    client.line("TL.APPEND messages:a long PX 100000");
    std::thread::sleep(std::time::Duration::from_millis(80));
    let page = client.line("TL.READ messages:a AFTER 0");
    assert_eq!(
        (page.get("verdict").text(), page.get("entries").entries()),
        ("OK".into(), vec![(2, "long".into())])
    );
}

#[test]
fn changes_in_a_pipeline_are_answered_in_order_and_see_what_was_written_before() {
    let server = TestServer::start();
    let mut client = server.client();
    let mut bytes = Vec::new();
    for line in [
        "TL.APPEND messages:a 1",
        "TL.APPEND messages:a 2",
        "TL.EDIT messages:a 2 two",
        "TL.TRIM messages:a BEFORE 2",
        "TL.APPEND messages:a 3",
        "TL.DEL messages:a 3",
        "TL.RANGE messages:a - +",
    ] {
        bytes.extend(encoded(&line.split(' ').collect::<Vec<_>>()));
    }
    client.send_raw(&bytes);
    for expected in [1, 2, 1, 1, 3, 1] {
        assert_eq!(client.receive(), Value::Integer(expected));
    }
    assert_eq!(client.receive().entries(), [(2, "two".into())]);
}
