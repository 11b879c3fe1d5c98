//! Conversations and their members, sends and their retries, history, unread, recalls: the replies
//! and the refusals.

use crate::support::{Client, TestServer, Value};

/// An event of a reply as words, without its time and attributes: the conversation if IM.SYNC
/// returned it, sequence, sender, kind, body.
pub fn event_text(event: &Value) -> String {
    let parts = event.items();
    let parts = match parts.split_last() {
        Some((Value::Array(_) | Value::Map(_), parts)) => parts,
        _ => parts,
    };
    let time_at = parts.len() - 4;
    let words =
        parts.iter().enumerate().filter(|(at, _)| *at != time_at).map(|(_, part)| match part {
            Value::Integer(number) => number.to_string(),
            other => other.text(),
        });
    words.collect::<Vec<_>>().join(" ")
}

/// All events of an array.
pub fn event_texts(events: &Value) -> Vec<String> {
    events.items().iter().map(event_text).collect()
}

/// Sends; returns the sequence.
pub fn send(client: &mut Client, words: &str) -> i64 {
    client.line(&format!("IM.SEND {words}")).get("seq").integer()
}

#[test]
fn a_conversation_is_created_once_and_lists_its_members() {
    for three in [false, true] {
        let server = TestServer::start();
        let mut client = if three { server.client3() } else { server.client() };
        assert_eq!(client.line("IM.CREATE c MEMBERS bob ann bob"), Value::Integer(1));
        assert_eq!(
            client.line("IM.CREATE c MODE auto HISTORY all MEMBERS ann bob"),
            Value::Integer(0)
        );
        for other in ["MODE pull MEMBERS ann bob", "HISTORY joined MEMBERS ann bob", "MEMBERS ann"]
        {
            assert_eq!(client.line(&format!("IM.CREATE c {other}")).word(), "CONFLICT", "{other}");
        }
        assert_eq!(client.line("IM.JOIN c carl ann dora carl"), Value::Integer(2));
        assert_eq!(client.line("IM.LEAVE c bob nobody"), Value::Integer(1));
        let members = |client: &mut Client, options: &str| {
            let reply = client.line(&format!("IM.MEMBERS c{options}"));
            reply.items().iter().map(Value::text).collect::<Vec<_>>()
        };
        assert_eq!(members(&mut client, ""), ["ann", "carl", "dora"]);
        assert_eq!(members(&mut client, " AFTER ann COUNT 1"), ["carl"]);
        let info = client.line("IM.INFO c");
        let facts = ["members", "first", "last"].map(|fact| info.get(fact).integer());
        assert_eq!(facts, [3, 1, 3], "two joins and a leave have a sequence each");
        assert_eq!(
            (info.get("mode").text(), info.get("history").text()),
            ("auto".into(), "all".into())
        );
        assert!(info.get("created").integer() > 1_600_000_000_000);
        assert_eq!(
            client.line("IM.CREATE c MEMBERS bob ann"),
            Value::Integer(0),
            "founders, not members"
        );
    }
}

#[test]
fn a_conversation_of_one_is_a_note_to_oneself() {
    let server = TestServer::start();
    let mut client = server.client();
    assert_eq!(client.line("IM.CREATE c MEMBERS ann"), Value::Integer(1));
    assert_eq!(send(&mut client, "c ann hello"), 1);
    assert_eq!(
        event_texts(&client.line("IM.SYNC ann 0").get("entries")),
        ["c 1 ann message hello"]
    );
    assert_eq!(client.line("IM.UNREAD ann").get("c"), Value::Integer(0));
    assert_eq!(client.line("IM.LEAVE c ann"), Value::Integer(1));
    assert_eq!(client.line("IM.MEMBERS c"), Value::Array(vec![]));
    assert_eq!(client.line("IM.SEND c ann x").word(), "NOPERM");
    assert_eq!(
        client.line("IM.JOIN c bob"),
        Value::Integer(1),
        "an empty conversation can be joined"
    );
}

#[test]
fn a_retry_returns_the_first_message_also_after_leaving_and_after_a_restart() {
    let mut server = TestServer::start();
    let mut client = server.client();
    client.line("IM.CREATE c MEMBERS ann bob");
    let first = client.line("IM.SEND c ann hello ID 1");
    assert_eq!((first.get("seq"), first.get("duplicate")), (Value::Integer(1), Value::Integer(0)));
    let repeats = |client: &mut Client, when: &str| {
        let again = client.line("IM.SEND c ann hello ID 1");
        assert_eq!(again.get("duplicate"), Value::Integer(1), "{when}");
        assert_eq!(
            (again.get("seq"), again.get("time")),
            (first.get("seq"), first.get("time")),
            "{when}"
        );
        let other = client.line("IM.SEND c ann other ID 1");
        assert!(matches!(&other, Value::Error(text)
                if text.starts_with("CONFLICT ") && text.contains('1')));
    };
    repeats(&mut client, "at once");
    assert_eq!(send(&mut client, "c bob hello ID 1"), 2, "an id belongs to its sender");
    client.line("IM.CREATE d MEMBERS ann");
    assert_eq!(send(&mut client, "d ann hello ID 1"), 1, "and to its conversation");
    client.line("IM.JOIN c carl");
    repeats(&mut client, "when others have joined");
    client.line("IM.LEAVE c ann");
    repeats(&mut client, "when the sender has left");
    assert_eq!(client.line("IM.SEND c ann hello ID 2").word(), "NOPERM");
    assert_eq!(client.line("IM.SEND c ann hello").word(), "NOPERM");
    server.restart();
    let mut client = server.client();
    repeats(&mut client, "after a restart");
    let history = event_texts(&client.line("IM.HISTORY c bob AFTER 0"));
    let expected = ["1 ann message hello", "2 bob message hello", "3 carl join ", "4 ann leave "];
    assert_eq!(history, expected);
}

#[test]
fn a_pipeline_of_retries_gives_one_message() {
    let server = TestServer::start();
    let mut client = server.client();
    client.line("IM.CREATE c MEMBERS ann bob");
    let others: Vec<Client> = (0..5).map(|_| server.client()).collect();
    let replies: Vec<Value> = std::thread::scope(|scope| {
        let retry = |mut client: Client| {
            (0..20).for_each(|_| client.send(&["IM.SEND", "c", "ann", "hello", "ID", "1"]));
            (0..20).map(|_| client.receive()).collect::<Vec<_>>()
        };
        let running: Vec<_> =
            others.into_iter().map(|client| scope.spawn(move || retry(client))).collect();
        running.into_iter().flat_map(|one| one.join().expect("it is answered")).collect()
    });
    assert!(replies.iter().all(|reply| reply.get("seq") == Value::Integer(1)));
    let firsts = replies.iter().filter(|reply| reply.get("duplicate") == Value::Integer(0)).count();
    assert_eq!(firsts, 1);
    assert_eq!(
        event_texts(&client.line("IM.SYNC bob 0").get("entries")),
        ["c 1 ann message hello"]
    );
    // Ids in any order are keys, not a high-water mark.
    for (id, sequence) in [(9, 2), (8, 3), (7, 4), (8, 3)] {
        assert_eq!(send(&mut client, &format!("c ann n{id} ID {id}")), sequence);
    }
}

/// Commands that name no conversation or nobody's, or are misspelt, and the words that refuse them.
const REFUSED: [(&str, &str); 30] = [
    ("IM.SEND none ann x", "NOTFOUND"),
    ("IM.JOIN none ann", "NOTFOUND"),
    ("IM.LEAVE none ann", "NOTFOUND"),
    ("IM.MEMBERS none", "NOTFOUND"),
    ("IM.INFO none", "NOTFOUND"),
    ("IM.HISTORY none ann", "NOTFOUND"),
    ("IM.READ none ann 1", "NOTFOUND"),
    ("IM.RECALL none ann 1", "NOTFOUND"),
    ("IM.EDIT none ann 1 x", "NOTFOUND"),
    ("IM.HIDE none ann 1", "NOTFOUND"),
    ("IM.SEND c eve x", "NOPERM"),
    ("IM.SEND c eve x ID 1", "NOPERM"),
    ("IM.SEND c ann x PX 0", "ERR"),
    ("IM.SEND c ann x SEQ 9", "ERR"),
    ("IM.SEND c ann", "ERR"),
    ("IM.CREATE d MEMBERS", "ERR"),
    ("IM.CREATE d MODE pull ann", "ERR"),
    ("IM.CREATE d MODE loud MEMBERS ann", "ERR"),
    ("IM.CREATE d{ MEMBERS ann", "ERR"),
    ("IM.CREATE d MEMBERS ann }", "ERR"),
    ("IM.READ c ann x", "ERR"),
    ("IM.READ c ann -1", "ERR"),
    ("IM.HIDE c ann 1 x", "ERR"),
    ("IM.HISTORY c ann BEFORE 3 AFTER 1", "ERR"),
    ("IM.HISTORY c ann AT -1", "ERR"),
    ("IM.HISTORY c ann AT 9223372036854775808", "ERR"),
    ("IM.CONVERSATIONS ann AFTER token", "ERR"),
    ("IM.SYNC ann garbage", "ERR"),
    ("IM.SYNC ann 1", "ERR"),
    ("IM.SYNC ann 0 BLOCK -1", "ERR"),
];

#[test]
fn wrong_requests_are_refused_by_name_and_change_nothing() {
    let server = TestServer::start();
    let mut client = server.client();
    let _made =
        ["IM.CREATE c MEMBERS ann bob", "IM.SEND c ann hello"].map(|line| client.line(line));
    let long = "x".repeat(201);
    let standing = |client: &mut Client| {
        [
            "IM.INFO c",
            "IM.MEMBERS c",
            "IM.TAIL ann",
            "IM.TAIL bob",
            "IM.TAIL eve",
            "IM.HISTORY c ann",
        ]
        .map(|line| client.line(line))
    };
    let before = standing(&mut client);
    for (line, word) in REFUSED {
        assert_eq!(client.line(line).word(), word, "{line}");
    }
    for line in [
        format!("IM.CREATE {long} MEMBERS ann"),
        format!("IM.JOIN c {long}"),
        format!("IM.TAIL {long}"),
    ] {
        assert_eq!(client.line(&line).word(), "TOOBIG", "{line}");
    }
    for name in ["", "a b", "a\n", "\x7f"] {
        assert_eq!(client.call(&["IM.CREATE", name, "MEMBERS", "ann"]).word(), "ERR", "{name:?}");
        assert_eq!(client.call(&["IM.JOIN", "c", name]).word(), "ERR", "{name:?}");
    }
    let large = "x".repeat((1 << 20) + 1);
    assert_eq!(client.call(&["IM.SEND", "c", "ann", &large]).word(), "TOOBIG");
    assert_eq!(client.call(&["IM.EDIT", "c", "ann", "1", &large]).word(), "TOOBIG");
    for line in ["IM.RECALL c bob 1", "IM.RECALL c eve 1", "IM.EDIT c bob 1 x", "IM.EDIT c eve 1 x"]
    {
        assert_eq!(client.line(line).word(), "NOPERM", "{line}");
    }
    for line in ["IM.RECALL c ann 9", "IM.RECALL c eve 9", "IM.EDIT c ann 9 x", "IM.EDIT c ann 0 x"]
    {
        assert_eq!(client.line(line).word(), "NOTFOUND", "{line}");
    }
    for line in ["IM.READ c eve 1", "IM.HIDE c eve 1", "IM.HIDE c ann 9", "IM.READ c ann 0"] {
        assert_eq!(client.line(line), Value::Integer(0), "{line}");
    }
    assert_eq!(client.line("IM.UNREAD eve none c").items().len(), 4);
    assert_eq!(client.line("IM.HISTORY c eve"), Value::Array(vec![]));
    assert_eq!(standing(&mut client), before);
    assert_eq!(client.line("IM.INFO d").word(), "NOTFOUND");
}

#[test]
fn more_members_than_allowed_are_refused_and_none_of_them_joins() {
    let server = TestServer::start();
    let mut client = server.client();
    let users: Vec<String> = (0..=100_000).map(|number| format!("u{number}")).collect();
    let mut words = vec!["IM.CREATE", "c", "MEMBERS"];
    words.extend(users.iter().map(String::as_str));
    assert_eq!(client.call(&words).word(), "LIMIT");
    assert_eq!(client.line("IM.INFO c").word(), "NOTFOUND");
    assert_eq!(client.line("IM.SYNC u0 0").get("entries"), Value::Array(vec![]));
    drop(client);
    let server = TestServer::with(|config| config.messaging.max_members = 3);
    let mut client = server.client();
    assert_eq!(client.line("IM.CREATE c MEMBERS a b"), Value::Integer(1));
    assert_eq!(client.line("IM.JOIN c b d e").word(), "LIMIT");
    assert_eq!(client.line("IM.MEMBERS c").items().len(), 2);
    assert_eq!(client.line("IM.JOIN c a b d"), Value::Integer(1));
    assert_eq!(client.line("IM.JOIN c e").word(), "LIMIT");
    assert_eq!(client.line("IM.INFO c").get("last"), Value::Integer(1));
}

#[test]
fn the_stores_that_messaging_keeps_for_itself_are_out_of_reach() {
    let server = TestServer::start();
    let mut client = server.client();
    client.line("IM.CREATE c MODE pull MEMBERS ann");
    client.line("IM.SEND c ann x");
    for line in [
        "TL.RANGE im.state:c/c - +",
        "TL.APPEND im.state:c/c x",
        "TL.APPEND im.pulled:all x",
        "TL.DROP im.state:c/c",
        "TL.TRIM im.pulled:all KEEP 0",
        "TL.READ im.state:u/ann AFTER 0",
        "TL.FANOUT x 2 messages:a im.state:c/c",
        "TL.LIST im.state:",
        "TL.STORE INFO im.state",
        "TL.STORE TTL im.pulled 1",
    ] {
        assert_eq!(client.line(line).word(), "NOSTORE", "{line}");
    }
    for name in ["im.state", "im.other", "im"] {
        assert_eq!(client.line(&format!("TL.STORE CREATE {name}")).word(), "ERR", "{name}");
    }
    let listed: Vec<String> =
        client.line("TL.STORE LIST").items().iter().map(Value::text).collect();
    assert_eq!(listed, ["messages", "sync"]);
    assert_eq!(client.line("IM.INFO c").get("members"), Value::Integer(1));
}

#[test]
fn history_shows_each_user_its_own_periods_in_both_directions() {
    let server = TestServer::start();
    let mut client = server.client();
    for (conv, policy) in [("all", "all"), ("joined", "joined")] {
        client.line(&format!("IM.CREATE {conv} HISTORY {policy} MEMBERS ann"));
        for step in [
            "SEND ann m1",
            "JOIN bob",
            "SEND ann m3",
            "LEAVE bob",
            "SEND ann m5",
            "JOIN bob",
            "SEND ann m7",
        ] {
            let (verb, rest) = step.split_once(' ').expect("a verb and words");
            client.line(&format!("IM.{verb} {conv} {rest}"));
        }
    }
    let sequences = |client: &mut Client, line: &str| {
        let reply = client.line(&format!("IM.HISTORY {line}"));
        reply.items().iter().map(|event| event.items()[0].integer()).collect::<Vec<_>>()
    };
    assert_eq!(sequences(&mut client, "all bob"), [7, 6, 5, 4, 3, 2, 1]);
    assert_eq!(sequences(&mut client, "joined bob"), [7, 6, 4, 3, 2]);
    assert_eq!(sequences(&mut client, "joined bob AFTER 0 COUNT 3"), [2, 3, 4]);
    assert_eq!(sequences(&mut client, "joined bob AFTER 4"), [6, 7]);
    assert_eq!(sequences(&mut client, "joined bob BEFORE 6 COUNT 2"), [4, 3]);
    assert_eq!(sequences(&mut client, "joined bob AT 0"), [2, 3, 4, 6, 7]);
    assert_eq!(sequences(&mut client, &format!("joined bob AT {}", i64::MAX)), [0; 0]);
    assert_eq!(sequences(&mut client, &format!("joined bob AFTER {}", i64::MAX)), [0; 0]);
    assert_eq!(sequences(&mut client, "joined bob BEFORE 0"), [0; 0]);
    assert_eq!(sequences(&mut client, "joined ann BEFORE 3"), [2, 1]);
    client.line("IM.LEAVE all bob");
    client.line("IM.SEND all ann m9");
    assert_eq!(
        sequences(&mut client, "all bob COUNT 2"),
        [8, 7],
        "to the end of the last membership"
    );
    assert_eq!(
        client.line("IM.HIDE joined bob 3 5 7 7 3"),
        Value::Integer(2),
        "what it cannot see it cannot hide"
    );
    assert_eq!(sequences(&mut client, "joined bob AFTER 0"), [2, 4, 6]);
    assert_eq!(
        sequences(&mut client, "joined ann AFTER 0"),
        [1, 2, 3, 4, 5, 6, 7],
        "hidden for bob only"
    );
}

#[test]
fn history_at_a_time_starts_with_the_first_event_that_is_not_older() {
    let server = TestServer::start();
    let mut client = server.client();
    client.line("IM.CREATE c MEMBERS ann");
    for body in 1..=50 {
        client.line(&format!("IM.SEND c ann m{body}"));
    }
    let times: Vec<i64> = (client.line("IM.HISTORY c ann AFTER 0").items().iter())
        .map(|event| event.items()[1].integer())
        .collect();
    for time in times.iter().flat_map(|time| [time - 1, *time, time + 1]) {
        let first =
            (1..).zip(&times).find(|(_, other)| **other >= time).map(|(sequence, _)| sequence);
        let reply = client.line(&format!("IM.HISTORY c ann AT {time} COUNT 1"));
        assert_eq!(reply.items().first().map(|event| event.items()[0].integer()), first, "{time}");
    }
}

#[test]
fn the_unread_count_matches_the_messages_to_read_after_every_change() {
    let server = TestServer::start();
    let mut client = server.client();
    client.line("IM.CREATE c MEMBERS ann bob");
    let unread = |client: &mut Client| client.line("IM.UNREAD bob c").get("c").integer();
    (0..4).for_each(|_| assert!(send(&mut client, "c ann x") > 0));
    send(&mut client, "c bob own");
    assert_eq!(unread(&mut client), 4);
    assert_eq!(client.line("IM.RECALL c ann 1"), Value::Integer(1));
    assert_eq!(client.line("IM.HIDE c bob 2"), Value::Integer(1));
    assert_eq!(client.line("IM.EDIT c ann 3 edited"), Value::Integer(1));
    assert_eq!(unread(&mut client), 2, "3 and 4");
    assert_eq!(client.line("IM.READ c bob 3"), Value::Integer(1));
    assert_eq!(client.line("IM.READ c bob 2"), Value::Integer(0), "it only goes up");
    assert_eq!(unread(&mut client), 1);
    assert_eq!(client.line("TL.TRIM messages:c/{c} BEFORE 5"), Value::Integer(4));
    assert_eq!(unread(&mut client), 0, "what is gone cannot be read");
    assert_eq!(client.line("IM.READ c bob 9223372036854775807"), Value::Integer(1));
    let last = client.line("IM.INFO c").get("last").integer();
    let listed = client.line("IM.CONVERSATIONS bob").get("items").items()[0].clone();
    assert_eq!(listed.get("read").integer(), last, "above the last is to the last");
    send(&mut client, "c ann new");
    assert_eq!(unread(&mut client), 1);
    client.line("IM.LEAVE c bob");
    send(&mut client, "c ann unseen");
    assert_eq!(unread(&mut client), 0);
    assert_eq!(client.line("IM.UNREAD bob").items().len(), 0, "of no conversation");
    client.line("IM.JOIN c bob");
    assert_eq!(unread(&mut client), 0, "a new membership starts with nothing unread");
    send(&mut client, "c ann again");
    assert_eq!(client.line("IM.UNREAD bob").get("c"), Value::Integer(1));
}

#[test]
fn conversations_are_listed_by_their_last_message() {
    let server = TestServer::start();
    let mut client = server.client3();
    for conv in ["a", "b", "c", "d"] {
        client.line(&format!("IM.CREATE {conv} MEMBERS ann bob"));
        later();
    }
    for conv in ["b", "a", "c"] {
        client.line(&format!("IM.SEND {conv} ann last-of-{conv}"));
        later();
    }
    client.line("IM.RECALL c ann 1");
    client.line("IM.LEAVE b bob");
    let mut seen = Vec::new();
    let mut token = String::new();
    loop {
        let page = client.line(&format!("IM.CONVERSATIONS bob AFTER {token} COUNT 1"));
        for item in page.get("items").items() {
            let facts = ["conv", "body"].map(|fact| item.get(fact).text()).join(":");
            seen.push(format!("{facts}:{}", item.get("unread").integer()));
        }
        token = page.get("next").text();
        if token.is_empty() {
            break;
        }
    }
    assert_eq!(
        seen,
        ["c::0", "a:last-of-a:1", "d::0"],
        "a recalled message stands there with no body"
    );
    assert_eq!(client.line("IM.CONVERSATIONS nobody").get("items"), Value::Array(vec![]));
}

/// Times are milliseconds: events that are to be ordered by time need one in between.
#[allow(clippy::disallowed_methods, reason = "the test lets time pass")]
fn later() {
    std::thread::sleep(std::time::Duration::from_millis(3));
}

#[test]
fn a_body_that_was_recalled_or_replaced_is_shown_nowhere() {
    for mode in ["push", "pull"] {
        let server = TestServer::start();
        let mut client = server.client();
        let mut follower = server.client3();
        client.line(&format!("IM.CREATE c MODE {mode} MEMBERS ann bob"));
        let start = client.line("IM.TAIL bob").text();
        for body in ["secret-1", "secret-2", "fine"] {
            send(&mut client, &format!("c ann {body}"));
        }
        let cursor = client.line("IM.SYNC bob 0 COUNT 1").get("cursor").text();
        assert_eq!(client.line("IM.EDIT c ann 1 secret-3"), Value::Integer(1));
        assert_eq!(client.line("IM.RECALL c ann 1"), Value::Integer(1));
        assert_eq!(client.line("IM.EDIT c ann 2 better"), Value::Integer(1));
        assert_eq!(client.line("IM.RECALL c ann 1"), Value::Integer(0), "it is recalled already");
        for (line, word) in [
            ("IM.EDIT c ann 1 x", "NOTFOUND"),
            ("IM.RECALL c ann 4", "NOTFOUND"),
            ("IM.RECALL c bob 3", "NOPERM"),
        ] {
            assert_eq!(client.line(line).word(), word, "{line}");
        }
        let expected = [
            "c 1 ann recall ",
            "c 2 ann message better",
            "c 3 ann message fine",
            "c 1 ann edit ",
            "c 1 ann recall ",
            "c 2 ann edit better",
        ];
        let entries = client.line("IM.SYNC bob 0").get("entries");
        let lengths: Vec<usize> = entries.items().iter().map(|entry| entry.items().len()).collect();
        assert_eq!(lengths, [6, 7, 6, 6, 6, 7], "what was edited says so, {mode}");
        assert_eq!(entries.items()[1].items()[6].get("edited"), Value::Integer(1));
        assert_eq!(event_texts(&client.line("IM.SYNC bob 0").get("entries")), expected, "{mode}");
        assert_eq!(
            event_texts(&client.line(&format!("IM.SYNC bob {cursor}")).get("entries")),
            expected[1..]
        );
        assert_eq!(event_texts(&client.line("IM.SYNC ann 0").get("entries")), expected);
        let history = ["1 ann recall ", "2 ann message better", "3 ann message fine"];
        assert_eq!(event_texts(&client.line("IM.HISTORY c bob AFTER 0")), history);
        follower.line(&format!("IM.FOLLOW bob {start}"));
        for event in expected {
            let frame = follower.receive();
            assert_eq!(event_text(&Value::Array(frame.items()[3..].to_vec())), event, "{mode}");
        }
        let stored = format!("{:?}", client.line("TL.RANGE messages:c/{c} - +"));
        for secret in ["secret-1", "secret-2", "secret-3"] {
            let bytes = format!("{:?}", secret.as_bytes());
            assert!(!stored.contains(bytes.trim_matches(['[', ']'])), "{secret} is stored, {mode}");
        }
    }
}

#[test]
fn a_change_is_pushed_only_to_users_who_may_see_the_message() {
    for mode in ["push", "pull", "auto"] {
        let server = TestServer::start();
        let mut client = server.client();
        let (mut follower, mut hinted) = (server.client3(), server.client());
        client.line(&format!("IM.CREATE c MODE {mode} HISTORY joined MEMBERS ann carl"));
        send(&mut client, "c ann old-secret");
        client.line("IM.JOIN c bob");
        let start = client.line("IM.TAIL bob").text();
        follower.line(&format!("IM.FOLLOW bob {start}"));
        hinted.line("SUBSCRIBE im:{bob}");
        assert_eq!(client.line("IM.EDIT c ann 1 new-secret"), Value::Integer(1));
        assert_eq!(client.line("IM.RECALL c ann 1"), Value::Integer(1));
        send(&mut client, "c ann open");
        let frame = follower.receive();
        assert_eq!(
            event_text(&Value::Array(frame.items()[3..].to_vec())),
            "c 5 ann message open",
            "{mode}"
        );
        assert!(hinted.receive().items()[2].text().ends_with("message\nopen"), "{mode}");
        let of_bob = ["c 2 bob join ", "c 5 ann message open"];
        assert_eq!(event_texts(&client.line("IM.SYNC bob 0").get("entries")), of_bob, "{mode}");
        let of_carl = event_texts(&client.line("IM.SYNC carl 0").get("entries"));
        let expected = [
            "c 1 ann recall ",
            "c 2 bob join ",
            "c 1 ann edit ",
            "c 1 ann recall ",
            "c 5 ann message open",
        ];
        assert_eq!(of_carl, expected, "{mode}");
    }
}

#[test]
fn a_message_is_changed_only_within_its_window_and_while_its_sender_is_a_member() {
    let server = TestServer::with(|config| config.messaging.change_window_ms = 1);
    let mut client = server.client();
    client.line("IM.CREATE c MEMBERS ann");
    send(&mut client, "c ann late");
    later();
    assert_eq!(client.line("IM.RECALL c ann 1").word(), "NOPERM", "too late");
    let server = TestServer::start();
    let mut client = server.client();
    client.line("IM.CREATE c MEMBERS ann bob");
    send(&mut client, "c ann x");
    client.line("IM.LEAVE c ann");
    assert_eq!(client.line("IM.EDIT c ann 1 y").word(), "NOPERM", "not a member");
    client.line("IM.JOIN c ann");
    assert_eq!(client.line("IM.EDIT c ann 1 y"), Value::Integer(1));
    assert_eq!(client.line("IM.RECALL c ann 2").word(), "NOTFOUND", "a leave is no message");
}

#[test]
fn a_list_of_large_last_messages_comes_in_pages_of_bounded_bytes() {
    let server = TestServer::with(|config| config.limits.reply_bytes = 512 * 1024);
    let mut client = server.client();
    let body = "x".repeat(200 * 1024);
    for number in 0..8 {
        client.line(&format!("IM.CREATE c{number} MEMBERS ann"));
        send(&mut client, &format!("c{number} ann {body}"));
    }
    let (mut all, mut token) = (Vec::new(), String::new());
    loop {
        let after = if token.is_empty() { String::new() } else { format!(" AFTER {token}") };
        let page = client.line(&format!("IM.CONVERSATIONS ann{after} COUNT 5"));
        let items = page.get("items");
        assert!((1..=2).contains(&items.items().len()), "{} of 200 KiB each", items.items().len());
        all.extend(items.items().iter().map(|item| item.get("conv").text()));
        token = page.get("next").text();
        if token.is_empty() {
            break;
        }
    }
    all.sort();
    assert_eq!(all, (0..8).map(|number| format!("c{number}")).collect::<Vec<_>>());
}

#[test]
fn an_id_may_have_as_many_bytes_as_in_other_commands() {
    let server = TestServer::start();
    let mut client = server.client();
    let sender = "s".repeat(200);
    client.line(&format!("IM.CREATE c MEMBERS {sender}"));
    let longest = "i".repeat(255);
    assert_eq!(send(&mut client, &format!("c {sender} hello ID {longest}")), 1);
    let again = client.line(&format!("IM.SEND c {sender} hello ID {longest}"));
    assert_eq!((again.get("seq"), again.get("duplicate")), (Value::Integer(1), Value::Integer(1)));
    assert_eq!(client.line(&format!("IM.SEND c {sender} hello ID {longest}i")).word(), "TOOBIG");
}
