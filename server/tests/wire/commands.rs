//! Every command's reply, in both dialects, and the first words of the errors.

use crate::support::{Client, TestServer, Value};

fn in_both_dialects(test: impl Fn(&TestServer, &mut Client, &str)) {
    let server = TestServer::start();
    test(&server, &mut server.client(), "two");
    test(&server, &mut server.client3(), "three");
}

#[test]
fn appended_entries_are_read_back_in_every_way() {
    in_both_dialects(|_, client, name| {
        let key = format!("messages:{name}");
        for (body, sequence) in [("one", 1), ("", 2), ("three", 3)] {
            assert_eq!(client.call(&["TL.APPEND", &key, body]), Value::Integer(sequence));
        }
        assert_eq!(
            client.call(&["tl.append", &key, "four", "durability", "OS"]),
            Value::Integer(4)
        );
        let entry = client.line(&format!("TL.GET {key} 1"));
        assert_eq!((entry.items()[0].integer(), entry.items()[2].text()), (1, "one".into()));
        let time = entry.items()[1].integer();
        assert!(time > 1_600_000_000_000, "Unix milliseconds: {time}");
        assert_eq!(client.line(&format!("TL.GET {key} 9")), Value::Null);
        assert_eq!(client.line(&format!("TL.LAST {key}")).items()[2].text(), "four");
        assert_eq!(client.line("TL.LAST messages:never"), Value::Null);
        let all = client.line(&format!("TL.RANGE {key} - +")).entries();
        assert_eq!(
            all,
            [(1, "one".into()), (2, String::new()), (3, "three".into()), (4, "four".into())]
        );
        let some = client.line(&format!("TL.RANGE {key} (1 3")).entries();
        assert_eq!(some.iter().map(|entry| entry.0).collect::<Vec<_>>(), [2, 3]);
        let back = client.line(&format!("TL.REVRANGE {key} + - COUNT 2")).entries();
        assert_eq!(back.iter().map(|entry| entry.0).collect::<Vec<_>>(), [4, 3]);
        for empty in ["3 2", "(4 +", "- (1", "+ -", "(9223372036854775807 +", "- (0"] {
            assert_eq!(
                client.line(&format!("TL.RANGE {key} {empty}")),
                Value::Array(vec![]),
                "{empty}"
            );
        }
        assert_eq!(
            client.line(&format!("TL.RANGE {key} - + BYTES 0")).entries().len(),
            1,
            "one always passes"
        );
        let info = client.line(&format!("TL.INFO {key}"));
        let facts =
            ["first", "last", "count", "bytes", "trimmed_to"].map(|fact| info.get(fact).integer());
        assert_eq!(facts, [1, 4, 4, 12, 0]);
        assert!(info.get("first_time").integer() <= info.get("last_time").integer());
        assert_eq!(client.line(&format!("TL.SEQAT {key} 0")), Value::Integer(1));
        assert_eq!(client.line(&format!("TL.SEQAT {key} {}", i64::MAX)), Value::Integer(5));
        assert_eq!(client.line(&format!("TL.SEQAT {key} {time}")), Value::Integer(1));
    });
}

#[test]
fn a_fan_out_reaches_every_key_and_counts_each_on_its_own() {
    in_both_dialects(|_, client, name| {
        assert_eq!(client.line(&format!("TL.APPEND sync:{name}-b first")), Value::Integer(1));
        let reply =
            client.line(&format!("TL.FANOUT all 3 messages:{name}-a sync:{name}-b sync:{name}-b"));
        assert_eq!(reply, Value::Array([1, 2, 3].map(Value::Integer).to_vec()));
        assert_eq!(client.line(&format!("TL.LAST messages:{name}-a")).items()[2].text(), "all");
        let refused = client.line(&format!("TL.FANOUT x 2 messages:{name}-a nostore:x"));
        assert_eq!(refused.word(), "NOSTORE");
        assert_eq!(
            client.line(&format!("TL.INFO messages:{name}-a")).get("last"),
            Value::Integer(1),
            "all or none"
        );
    });
}

#[test]
fn a_read_reports_where_the_cursor_is() {
    in_both_dialects(|_, client, name| {
        let key = format!("messages:read-{name}");
        let never = client.line(&format!("TL.READ {key} AFTER 0"));
        assert_eq!(
            ["first", "last", "next", "more"].map(|fact| never.get(fact).integer()),
            [1, 0, 0, 0]
        );
        for body in ["a", "b", "c"] {
            client.line(&format!("TL.APPEND {key} {body}"));
        }
        let page = client.line(&format!("TL.READ {key} after 1 count 1"));
        assert_eq!(page.get("verdict").text(), "OK");
        assert_eq!(page.get("entries").entries(), [(2, "b".into())]);
        assert_eq!((page.get("next"), page.get("more")), (Value::Integer(2), Value::Integer(1)));
        let ahead = client.line(&format!("TL.READ {key} AFTER 9"));
        assert_eq!(
            (ahead.get("verdict").text(), ahead.get("next")),
            ("FUTURE".into(), Value::Integer(3))
        );
        let epoch = page.get("epoch").text();
        let same = client.line(&format!("TL.READ {key} AFTER 2 EPOCH {epoch}"));
        assert_eq!(
            (same.get("verdict").text(), same.get("entries").entries().len()),
            ("OK".into(), 1)
        );
        let other = client.line(&format!("TL.READ {key} AFTER 2 EPOCH other"));
        assert_eq!(
            (other.get("verdict").text(), other.get("next")),
            ("EPOCH".into(), Value::Integer(0))
        );
        assert!(other.get("entries").items().is_empty());
    });
}

#[test]
fn a_cursor_from_before_a_power_cut_that_may_have_taken_entries_is_of_another_epoch() {
    let mut server = TestServer::start();
    let mut client = server.client();
    client.line("TL.APPEND messages:a x DURABILITY os");
    client.line("TL.APPEND sync:a x");
    let epoch = client.line("TL.INFO messages:a").get("epoch").text();
    assert_eq!(
        client.line("TL.INFO sync:a").get("epoch").text(),
        epoch,
        "today's epochs stay as they are"
    );
    assert_eq!(epoch.len(), 16);
    let inbox = client.line("IM.TAIL ann").text();
    server.restart();
    let mut client = server.client3();
    assert_eq!(
        client.line("TL.INFO messages:a").get("epoch").text(),
        epoch,
        "nor does a restart change them"
    );
    assert_eq!(client.line(&format!("IM.SYNC ann {inbox}")).get("verdict").text(), "OK");

    server.restart_after_power_cut(&[1]);
    let mut client = server.client3();
    let next = format!("{epoch}-1");
    assert_eq!(client.line("TL.INFO messages:a").get("epoch").text(), next);
    assert_eq!(client.line("TL.INFO sync:a").get("epoch").text(), epoch, "it was not at risk");
    let read = |client: &mut Client, line: &str| {
        let page = client.line(line);
        (page.get("verdict").text(), page.get("epoch").text())
    };
    let expected = |verdict: &str, epoch: &str| (verdict.to_owned(), epoch.to_owned());
    assert_eq!(
        read(&mut client, &format!("TL.READ messages:a AFTER 1 EPOCH {epoch}")),
        expected("EPOCH", &next)
    );
    assert_eq!(
        read(&mut client, &format!("TL.READ messages:a AFTER 1 EPOCH {next}")),
        expected("OK", &next)
    );
    assert_eq!(
        read(&mut client, &format!("TL.READ sync:a AFTER 1 EPOCH {epoch}")),
        expected("OK", &epoch)
    );
    assert_eq!(
        read(&mut client, &format!("TL.FOLLOW messages:a AFTER 1 EPOCH {epoch}")),
        expected("EPOCH", &next)
    );
    assert_eq!(
        read(&mut client, &format!("TL.FOLLOW messages:a AFTER 1 EPOCH {next}")),
        expected("OK", &next)
    );
    let many = client.line("TL.MREAD 2 messages:a sync:a AFTER 0 0");
    let epochs: Vec<String> =
        many.items().iter().map(|pair| pair.items()[1].get("epoch").text()).collect();
    assert_eq!(epochs, [next.clone(), epoch.clone()]);
    // Cursors of messaging refer to positions in both stores.
    assert_eq!(client.line(&format!("IM.SYNC ann {inbox}")).get("verdict").text(), "EPOCH");
    let inbox = client.line("IM.TAIL ann").text();
    server.restart();
    let mut client = server.client();
    assert_eq!(client.line(&format!("IM.SYNC ann {inbox}")).get("verdict").text(), "OK");
    assert_eq!(client.line("TL.INFO messages:a").get("epoch").text(), next);
}

#[test]
fn a_read_of_many_uses_one_budget_in_the_order_of_the_keys() {
    let server = TestServer::start();
    let mut client = server.client();
    for name in ["a", "b", "c"] {
        for body in ["xx", "yy"] {
            client.line(&format!("TL.APPEND messages:{name} {body}"));
        }
    }
    let shown = |reply: &Value| -> Vec<(String, usize)> {
        let one =
            |pair: &Value| (pair.items()[0].text(), pair.items()[1].get("entries").items().len());
        reply.items().iter().map(one).collect()
    };
    let all = client.line("TL.MREAD 3 messages:a messages:b messages:c AFTER 0 1 2");
    assert_eq!(shown(&all), [("messages:a".into(), 2), ("messages:b".into(), 1)]);
    let counted = client.line("TL.MREAD 3 messages:a messages:b messages:c AFTER 0 0 9 COUNT 3");
    assert_eq!(
        shown(&counted),
        [("messages:a".into(), 2), ("messages:b".into(), 1), ("messages:c".into(), 0)]
    );
    let tight = client.line("TL.MREAD 2 messages:a messages:b AFTER 0 0 BYTES 1");
    assert_eq!(shown(&tight), [("messages:a".into(), 1)], "what is over the budget ends the reply");
}

#[test]
fn keys_are_listed_in_byte_order_in_pages() {
    let server = TestServer::start();
    let mut client = server.client();
    for name in ["b", "a:1", "a", "c"] {
        client.line(&format!("TL.APPEND messages:{name} x"));
    }
    client.line("TL.APPEND sync:a x");
    let list = |client: &mut Client, rest: &str| -> Vec<String> {
        client.line(&format!("TL.LIST {rest}")).items().iter().map(Value::text).collect()
    };
    assert_eq!(
        list(&mut client, "messages:"),
        ["messages:a", "messages:a:1", "messages:b", "messages:c"]
    );
    assert_eq!(list(&mut client, "messages:a"), ["messages:a", "messages:a:1"]);
    assert_eq!(
        list(&mut client, "messages: AFTER messages:a COUNT 2"),
        ["messages:a:1", "messages:b"]
    );
    assert_eq!(list(&mut client, "messages: AFTER sync:a"), [""; 0]);
}

#[test]
fn stores_are_created_described_and_changed() {
    in_both_dialects(|_, client, name| {
        assert_eq!(
            client.line(&format!("TL.STORE CREATE {name} TTL 5000")),
            Value::Simple("OK".into())
        );
        assert_eq!(
            client.line(&format!("TL.STORE create {name} ttl 5000")),
            Value::Simple("OK".into())
        );
        assert_eq!(client.line(&format!("TL.STORE CREATE {name}")).word(), "CONFLICT");
        assert_eq!(client.line(&format!("TL.STORE INFO {name}")).get("ttl"), Value::Integer(5000));
        assert_eq!(client.line(&format!("TL.STORE TTL {name} 0")), Value::Simple("OK".into()));
        assert_eq!(client.line(&format!("TL.STORE INFO {name}")).get("ttl"), Value::Integer(0));
        let names: Vec<String> =
            client.line("TL.STORE LIST").items().iter().map(Value::text).collect();
        assert!(
            names.is_sorted() && names.contains(&"messages".into()) && names.contains(&name.into())
        );
        for refused in [
            "TL.STORE CREATE im",
            "TL.STORE CREATE Upper",
            "TL.STORE LIST x",
            "TL.STORE CREATE",
            "TL.STORE FROB",
        ] {
            assert_eq!(client.line(refused).word(), "ERR", "{refused}");
        }
        assert_eq!(client.line("TL.STORE INFO nope").word(), "NOSTORE");
        assert_eq!(client.line("TL.STORE TTL nope 5").word(), "NOSTORE");
    });
}

#[test]
fn errors_have_the_contract_s_words_and_leave_the_connection_open() {
    let server = TestServer::start();
    let mut client = server.client();
    let long_key = format!("messages:{}", "n".repeat(256));
    for (line, word) in [
        ("TL.APPEND messages:a", "ERR"),
        ("TL.APPEND messages:a x KEY k", "ERR"),
        ("TL.APPEND messages:a x DURABILITY", "ERR"),
        ("TL.APPEND messages:a x DURABILITY maybe", "ERR"),
        ("TL.APPEND messages x", "ERR"),
        ("TL.APPEND messages: x", "ERR"),
        ("TL.APPEND nope:a x", "NOSTORE"),
        ("TL.APPEND :a x", "NOSTORE"),
        (&format!("TL.APPEND {long_key} x"), "TOOBIG"),
        ("TL.FANOUT x 0 messages:a", "ERR"),
        ("TL.FANOUT x 2 messages:a", "ERR"),
        ("TL.GET messages:a 9223372036854775808", "ERR"),
        ("TL.GET nope:a x", "ERR"),
        ("TL.RANGE messages:a - + COUNT", "ERR"),
        ("TL.RANGE messages:a - + COUNT -1", "ERR"),
        ("TL.RANGE nope:a + -", "NOSTORE"),
        ("TL.READ messages:a BEFORE 1", "ERR"),
        ("TL.MREAD 2 messages:a messages:b AFTER 1", "ERR"),
        ("TL.LIST messages", "ERR"),
        ("TL.LIST nope:", "NOSTORE"),
        ("TL.COMPACT nope", "NOSTORE"),
        ("SELECT 1", "ERR"),
        ("CLIENT TRACKING on", "ERR"),
        ("CONFIG SET save x", "ERR"),
        ("HELLO 4", "NOPROTO"),
        ("AUTH x", "ERR"),
    ] {
        assert_eq!(client.line(line).word(), word, "{line}");
    }
    let body = vec![b'x'; 1024 * 1024 + 1];
    let too_big = client.call(&[b"TL.APPEND".as_slice(), b"nope:a", &body]);
    assert_eq!(too_big.word(), "TOOBIG", "sizes are looked at before stores");
    assert_eq!(
        client.call(&[b"TL.APPEND".as_slice(), b"messages:a", &body[1..]]),
        Value::Integer(1)
    );
    assert_eq!(client.line("PING"), Value::Simple("PONG".into()));
    let unknown = client.line("NOPE a b");
    assert_eq!(
        unknown,
        Value::Error("ERR unknown command 'NOPE', with args beginning with: 'a' 'b' ".into())
    );
}

#[test]
fn no_integer_of_a_timeline_at_its_highest_sequence_is_above_it() {
    let server = TestServer::start();
    let mut client = server.client3();
    let highest = i64::MAX;
    assert_eq!(
        client.line(&format!("TL.APPEND messages:a x SEQ {highest}")),
        Value::Integer(highest)
    );
    assert_eq!(client.line("TL.APPEND messages:a x").word(), "LIMIT");
    assert_eq!(client.line("TL.TRIM messages:a KEEP 0"), Value::Integer(1));
    let read = client.line("TL.READ messages:a AFTER 0");
    assert_eq!(
        (read.get("first"), read.get("last")),
        (Value::Integer(highest), Value::Integer(highest))
    );
    assert_eq!(client.line("TL.INFO messages:a").get("first"), Value::Integer(highest));
    assert_eq!(client.line("TL.SEQAT messages:a 0"), Value::Integer(highest));
    assert_eq!(client.line("TL.FOLLOW messages:a AFTER 0").get("first"), Value::Integer(highest));
}

/// Checks that a command is refused, and that CLIENT INFO shows the same name and protocol as
/// before.
fn changes_nothing(client: &mut Client, line: &str, word: &str) {
    assert_eq!(client.line(line).word(), word, "{line}");
    assert_eq!(client.line("CLIENT GETNAME").text(), "first", "{line}");
    let info = client.line("CLIENT INFO").text();
    assert!(
        info.contains(" resp=3 ") && info.contains("lib-name=lib lib-ver=1.0"),
        "{line}: {info}"
    );
}

#[test]
fn a_refused_hello_or_client_command_changes_nothing() {
    let server = TestServer::with(|config| config.password = Some("secret".into()));
    let mut client = server.client();
    for line in ["HELLO 3 AUTH default secret SETNAME a\tb", "HELLO 3 AUTH default secret NONSENSE"]
    {
        assert_eq!(client.line(line).word(), "ERR", "{line}");
        assert_eq!(client.line("PING").word(), "NOAUTH", "{line}");
    }
    assert!(matches!(client.line("HELLO 3 AUTH default secret SETNAME first"), Value::Map(_)));
    client.line("CLIENT SETINFO lib-name lib");
    client.line("CLIENT SETINFO LIB-VER 1.0");
    for (line, word) in [
        ("HELLO 2 SETNAME second AUTH default wrong", "WRONGPASS"),
        ("HELLO 2 SETNAME second NONSENSE", "ERR"),
        ("HELLO 2 SETNAME second AUTH default", "ERR"),
        ("HELLO 2 SETNAME second SETNAME a\tb", "ERR"),
        ("HELLO 4 SETNAME second", "NOPROTO"),
        ("CLIENT SETNAME a\tb", "ERR"),
        ("CLIENT SETINFO NONSENSE x", "ERR"),
        ("CLIENT SETINFO LIB-NAME a\tb", "ERR"),
        ("CLIENT SETINFO LIB-NAME", "ERR"),
        ("CLIENT SETINFO LIB-NAME a b", "ERR"),
        ("CLIENT NO-EVICT maybe", "ERR"),
        ("CLIENT NO-EVICT", "ERR"),
        ("CLIENT NO-TOUCH on off", "ERR"),
        ("CLIENT LIST NONSENSE", "ERR"),
        ("CLIENT LIST TYPE", "ERR"),
        ("CLIENT LIST TYPE nonsense", "ERR"),
        ("CLIENT LIST ID", "ERR"),
        ("CLIENT LIST ID x", "ERR"),
        ("CLIENT INFO x", "ERR"),
        ("CLIENT ID x", "ERR"),
    ] {
        changes_nothing(&mut client, line, word);
    }
}

#[test]
fn the_list_of_clients_applies_its_filters_and_shows_what_each_client_runs() {
    let server = TestServer::start();
    let (mut one, mut reader, mut blocked) = (server.client(), server.client(), server.client());
    let (own, read) = (one.line("CLIENT ID").integer(), reader.line("CLIENT ID").integer());
    reader.line("SUBSCRIBE messages:x");
    blocked.send(&["TL.READ", "messages:x", "AFTER", "0", "BLOCK", "0"]);
    while !one.line("CLIENT LIST").text().contains(" flags=b ") {}
    let list = |one: &mut Client, filter: &str| one.line(&format!("CLIENT LIST {filter}")).text();
    for (filter, lines) in [
        ("TYPE normal", 2),
        ("TYPE pubsub", 1),
        ("TYPE master", 0),
        ("TYPE replica", 0),
        ("ID 999", 0),
    ] {
        assert_eq!(list(&mut one, filter).lines().count(), lines, "{filter}");
    }
    assert_eq!(list(&mut one, &format!("ID {own} {read}")).lines().count(), 2);
    let subscriber = list(&mut one, "type PubSub");
    assert!(
        subscriber.contains(&format!("id={read} ")) && subscriber.contains(" flags=P "),
        "{subscriber}"
    );
    assert!(subscriber.contains(" cmd=subscribe "), "{subscriber}");
    one.line("CLIENT NO-EVICT on");
    one.line("CLIENT NO-TOUCH ON");
    let info = one.line("CLIENT INFO").text();
    for fact in [" idle=0 ", " flags=eT ", " cmd=client ", " resp=2 ", " lib-name= ", " lib-ver=\n"]
    {
        assert!(info.contains(fact), "{fact:?} in {info}");
    }
    one.line("CLIENT NO-EVICT off");
    one.line("RESET");
    assert!(one.line("CLIENT INFO").text().contains(" flags=N "));
}

#[test]
fn the_connection_commands_answer_as_redis_does() {
    let server = TestServer::start();
    let mut client = server.client();
    let ok = Value::Simple("OK".into());
    let hello = client.line("HELLO 3 SETNAME me");
    assert_eq!(
        (hello.get("proto"), hello.get("mode").text()),
        (Value::Integer(3), "standalone".into())
    );
    assert_eq!(client.line("CLIENT GETNAME").text(), "me");
    assert_eq!(client.line("CLIENT ID"), hello.get("id"));
    assert!(client.line("CLIENT INFO").text().contains("name=me"));
    assert_eq!(client.line("CLIENT SETNAME other"), ok);
    assert_eq!(client.line("CLIENT SETINFO LIB-NAME x"), ok);
    assert_eq!(client.line("CLIENT NO-EVICT on"), ok);
    assert_eq!(client.line("ECHO x").text(), "x");
    assert_eq!(client.line("PING x").text(), "x");
    assert_eq!(client.line("SELECT 0"), ok);
    assert_eq!(client.line("READONLY"), ok);
    assert_eq!(client.line("ROLE").items()[0].text(), "master");
    assert_eq!(client.line("TIME").items().len(), 2);
    let info = client.line("INFO").text();
    for fact in
        ["redis_version:7.", "loading:0", "redis_mode:standalone", "connected_clients:1", "epoch:"]
    {
        assert!(info.contains(fact), "{fact} in {info}");
    }
    assert!(!client.line("INFO replication").text().contains("redis_version"));
    assert_eq!(client.line("CONFIG GET save").get("save").text(), "");
    assert_eq!(client.line("CONFIG GET append*").get("appendonly").text(), "yes");
    assert_eq!(client.line("RESET"), Value::Simple("RESET".into()));
    assert_eq!(client.line("CLIENT GETNAME"), Value::Null, "RESET forgets the name");
    assert!(matches!(client.line("HELLO"), Value::Array(_)), "and goes back to RESP2");
    for line in ["TL.FLUSH", "TL.COMPACT", "TL.COMPACT messages"] {
        assert_eq!(client.line(line), ok, "{line}");
    }
    assert!(client.line("TL.STATS").get("total_commands_processed").integer() > 10);
    assert_eq!(client.line("QUIT"), ok);
    assert!(client.is_closed());
}

#[test]
fn the_table_of_commands_has_the_true_key_positions() {
    let server = TestServer::start();
    let mut client = server.client3();
    let count = client.line("COMMAND COUNT").integer();
    assert_eq!(client.line("COMMAND").items().len(), usize::try_from(count).expect("it is small"));
    assert_eq!(
        client.line("COMMAND LIST").items().len(),
        usize::try_from(count).expect("it is small")
    );
    let rows = client.line("COMMAND INFO tl.append tl.fanout nope");
    let positions = |row: &Value| [3, 4, 5].map(|at: usize| row.items()[at].integer());
    assert_eq!(positions(&rows.items()[0]), [1, 1, 1]);
    assert_eq!(positions(&rows.items()[1]), [3, 3, 1]);
    assert!(rows.items()[1].items()[2].items().contains(&Value::Simple("movablekeys".into())));
    assert_eq!(rows.items()[2], Value::Null);
    let keys = client.line("COMMAND GETKEYS TL.FANOUT x 2 messages:a sync:b");
    assert_eq!(keys, Value::Array(vec![Value::bulk("messages:a"), Value::bulk("sync:b")]));
    assert_eq!(client.line("COMMAND GETKEYS PING").word(), "ERR");
    assert_eq!(client.line("COMMAND GETKEYS TL.FANOUT x 3 messages:a sync:b").word(), "ERR");
    for command in ["CLIENT", "COMMAND", "CONFIG", "PUBSUB"] {
        let help = client.line(&format!("{command} HELP"));
        assert!(help.items().len() > 2 && help.items()[0].text().starts_with(command), "{help:?}");
    }
    let docs = client.line("COMMAND DOCS tl.read");
    assert!(docs.get("tl.read").get("summary").text().contains("AFTER seq"));
}

#[test]
fn one_connection_can_list_and_close_another() {
    let server = TestServer::start();
    let (mut one, mut other) = (server.client(), server.client());
    let id = other.line("CLIENT ID").integer();
    assert_eq!(one.line("CLIENT LIST").text().lines().count(), 2);
    assert_eq!(one.line(&format!("CLIENT KILL ID {id}")), Value::Integer(1));
    assert!(other.is_closed());
    let address = one.socket.local_addr().expect("it is connected");
    assert_eq!(
        one.line(&format!("CLIENT KILL {address}")),
        Value::Simple("OK".into()),
        "its own reply comes"
    );
    assert!(one.is_closed());
}
