//! The events that a terminal gets from its own cursor: pages, blocked syncs, follows and hints,
//! over pushed and pulled conversations.

use std::thread;

use crate::messaging::{event_text, event_texts, send};
use crate::support::{Client, TestServer, Value};

/// Everything after a cursor, and the cursor at the end.
fn drain(client: &mut Client, user: &str, cursor: &str, options: &str) -> (Vec<String>, String) {
    let (mut all, mut cursor) = (Vec::new(), cursor.to_owned());
    loop {
        let page = client.line(&format!("IM.SYNC {user} {cursor}{options}"));
        assert_eq!(page.get("verdict").text(), "OK", "{user} {cursor}");
        let entries = page.get("entries");
        all.extend(event_texts(&entries));
        cursor = page.get("cursor").text();
        if page.get("more") == Value::Integer(0) {
            return (all, cursor);
        }
        assert!(!entries.items().is_empty(), "a page that is not the last brings something");
    }
}

/// A frame of IM.FOLLOW as its cursor and the event.
fn followed(frame: &Value, user: &str) -> (String, String) {
    let parts = frame.items();
    assert_eq!((parts[0].text(), parts[1].text()), ("im.entry".into(), user.into()));
    (parts[2].text(), event_text(&Value::Array(parts[3..].to_vec())))
}

/// Events of one conversation, which are in the order of its sequences.
fn of<'a>(conv: &str, events: &'a [String]) -> Vec<&'a String> {
    let head = format!("{conv} ");
    events.iter().filter(|event| event.starts_with(&head)).collect()
}

#[test]
fn pages_of_any_size_return_the_same_events() {
    let server = TestServer::with(|config| config.messaging.push_members = 2);
    let mut client = server.client();
    client.line("IM.CREATE pushed MODE push MEMBERS ann bob");
    client.line("IM.CREATE pulled MODE pull MEMBERS ann bob");
    client.line("IM.CREATE other MODE pull MEMBERS ann carl");
    client.line("IM.CREATE both MEMBERS ann bob");
    for round in 1..=30 {
        for conv in ["pushed", "pulled", "other", "both"] {
            client.line(&format!("IM.SEND {conv} ann {conv}-{round}-{}", "x".repeat(round % 7)));
        }
        match round % 6 {
            0 => client.line("IM.JOIN both carl"),
            1 => client.line(&format!("IM.READ pulled ann {round}")),
            2 => client.line(&format!("IM.EDIT pulled ann {round} edited")),
            3 => client.line("IM.LEAVE both carl"),
            4 => client.line(&format!("IM.HIDE pushed ann {round}")),
            _ => client.line("IM.RECALL other ann 1"),
        };
    }
    let (whole, tail) = drain(&mut client, "ann", "0", "");
    assert!(whole.len() > 130, "{}", whole.len());
    for options in
        ["COUNT 1", "COUNT 2", "COUNT 3", "COUNT 7", "BYTES 0", "BYTES 30", "COUNT 10000"]
    {
        let (pages, cursor) = drain(&mut client, "ann", "0", &format!(" {options}"));
        assert_eq!(pages, whole, "{options}");
        assert_eq!(drain(&mut client, "ann", &cursor, "").0.len(), 0, "{options}");
    }
    // From any position, the rest.
    let mut cursor = "0".to_owned();
    for place in 0..whole.len() {
        assert_eq!(drain(&mut client, "ann", &cursor, "").0, whole[place..]);
        cursor = client.line(&format!("IM.SYNC ann {cursor} COUNT 1")).get("cursor").text();
    }
    assert_eq!(client.line("IM.TAIL ann").text(), tail);
    for conv in ["pushed", "pulled", "other", "both"] {
        let messages =
            of(conv, &whole).into_iter().filter(|event| event.contains(" message ")).cloned();
        let sequences: Vec<i64> = messages
            .map(|event| {
                event
                    .split(' ')
                    .nth(1)
                    .and_then(|sequence| sequence.parse().ok())
                    .expect("a sequence")
            })
            .collect();
        assert!(sequences.is_sorted_by(|one, next| one < next), "{conv}: {sequences:?}");
    }
}

#[test]
fn a_count_holds_for_pushed_and_pulled_together() {
    let server = TestServer::start();
    let mut client = server.client();
    for mode in ["push", "pull"] {
        client.line(&format!("IM.CREATE {mode} MODE {mode} MEMBERS ann"));
        (0..5).for_each(|_| assert!(send(&mut client, &format!("{mode} ann 12345")) > 0));
    }
    let sizes = |client: &mut Client, options: &str| {
        let page = client.line(&format!("IM.SYNC ann 0 {options}"));
        (page.get("entries").items().len(), page.get("more").integer())
    };
    assert_eq!(sizes(&mut client, "COUNT 9"), (9, 1));
    assert_eq!(sizes(&mut client, "COUNT 10"), (10, 0));
    assert_eq!(sizes(&mut client, "BYTES 1"), (1, 1), "one always passes");
    assert_eq!(sizes(&mut client, "BYTES 34"), (6, 1));
    assert_eq!(sizes(&mut client, "BYTES 50"), (10, 0));
}

#[test]
fn acknowledged_sends_are_synced_at_once_on_another_connection() {
    let server = TestServer::start();
    let (mut writer, mut reader) = (server.client(), server.client());
    for mode in ["push", "pull"] {
        writer.line(&format!("IM.CREATE {mode} MODE {mode} MEMBERS ann bob"));
    }
    let mut cursor = "0".to_owned();
    for round in 1..=200 {
        let mode = if round % 3 == 0 { "pull" } else { "push" };
        send(&mut writer, &format!("{mode} ann m{round}"));
        let (fresh, next) = drain(&mut reader, "bob", &cursor, "");
        assert!(
            fresh.len() == 1 && fresh[0].ends_with(&format!(" m{round}")),
            "{fresh:?} in round {round}"
        );
        cursor = next;
    }
}

#[test]
fn a_blocked_sync_wakes_on_what_is_pushed_pulled_or_joined() {
    let server = TestServer::start();
    let (mut writer, mut reader) = (server.client(), server.client());
    writer.line("IM.CREATE pushed MODE push MEMBERS ann bob");
    writer.line("IM.CREATE pulled MODE pull MEMBERS ann bob");
    writer.line("IM.CREATE later MODE pull MEMBERS ann");
    send(&mut writer, "later ann before");
    let mut cursor = reader.line("IM.TAIL bob").text();
    for (line, expected) in [
        ("IM.SEND pushed ann x", "pushed 1 ann message x"),
        ("IM.SEND pulled ann y", "pulled 1 ann message y"),
        ("IM.JOIN later bob", "later 2 bob join "),
        ("IM.SEND later ann z", "later 3 ann message z"),
        ("IM.READ pulled bob 1", "pulled 1 bob read "),
    ] {
        reader.send(&["IM.SYNC", "bob", &cursor, "BLOCK", "0"]);
        writer.line(line);
        let page = reader.receive();
        assert_eq!(event_texts(&page.get("entries")), [expected]);
        cursor = page.get("cursor").text();
    }
    // A sync that was already waiting is notified of a conversation that its user has just joined.
    let tail = reader.line("IM.TAIL eve").text();
    reader.send(&["IM.SYNC", "eve", &tail, "BLOCK", "0"]);
    writer.line("IM.CREATE new MODE pull MEMBERS ann eve");
    send(&mut writer, "new ann hello");
    assert_eq!(event_texts(&reader.receive().get("entries")), ["new 1 ann message hello"]);
    let late = reader.line("IM.SYNC eve $ BLOCK 30");
    assert_eq!((late.get("verdict").text(), late.get("entries").items().len()), ("OK".into(), 0));
}

#[test]
fn a_conversation_that_crosses_the_threshold_gives_each_event_once_and_in_order() {
    let server = TestServer::with(|config| config.messaging.push_members = 3);
    let mut client = server.client();
    client.line("IM.CREATE c MEMBERS ann bob carl");
    client.line("IM.CREATE quiet MODE pull MEMBERS bob");
    let mut expected = Vec::new();
    let (mut live, mut cursor) = (Vec::new(), "0".to_owned());
    let mut follower = server.client3();
    follower.line("IM.FOLLOW bob 0");
    let mut sequence = 0;
    for round in 0..12 {
        for (verb, rest, shown) in [
            ("SEND", "ann few", "ann message few"),
            ("JOIN", "dora", "dora join "),
            ("SEND", "dora many", "dora message many"),
            ("SEND", "ann many", "ann message many"),
            ("LEAVE", "dora", "dora leave "),
            ("SEND", "carl few", "carl message few"),
        ] {
            client.line(&format!("IM.{verb} c {rest}"));
            sequence += 1;
            expected.push(format!("c {sequence} {shown}"));
            if (round + sequence) % 4 == 0 {
                let (fresh, next) = drain(&mut client, "bob", &cursor, " COUNT 2");
                live.extend(fresh);
                cursor = next;
            }
        }
    }
    live.extend(drain(&mut client, "bob", &cursor, "").0);
    assert_eq!(live, expected, "step by step");
    for options in ["", " COUNT 1", " COUNT 5"] {
        assert_eq!(drain(&mut client, "bob", "0", options).0, expected, "at the end,{options}");
    }
    for event in &expected {
        assert_eq!(followed(&follower.receive(), "bob").1, *event);
    }
    let dora = drain(&mut client, "dora", "0", " COUNT 1").0;
    assert_eq!(dora.len(), 12 * 4, "from each joining to each leaving");
    assert!(dora.iter().all(|event| expected.contains(event)));
}

#[test]
fn marks_reach_the_other_terminals_of_the_same_user_only() {
    let server = TestServer::start();
    let mut client = server.client();
    client.line("IM.CREATE c MEMBERS ann bob");
    send(&mut client, "c ann one");
    send(&mut client, "c ann two");
    let [ann, bob] = ["ann", "bob"].map(|user| client.line(&format!("IM.TAIL {user}")).text());
    client.line("IM.READ c bob 2");
    client.line("IM.HIDE c bob 1 2");
    client.line("IM.READ c bob 1");
    let marks = ["c 2 bob read ", "c 1 bob hide ", "c 2 bob hide "];
    for terminal in [" COUNT 1", " COUNT 2", ""] {
        assert_eq!(drain(&mut client, "bob", &bob, terminal).0, marks);
    }
    assert_eq!(drain(&mut client, "ann", &ann, "").0.len(), 0);
}

#[test]
fn a_user_who_leaves_gets_the_leave_event_and_nothing_after_it() {
    for mode in ["push", "pull"] {
        let server = TestServer::start();
        let mut client = server.client();
        client.line(&format!("IM.CREATE c MODE {mode} MEMBERS ann bob"));
        send(&mut client, "c ann before");
        client.line("IM.LEAVE c bob");
        send(&mut client, "c ann between");
        client.line("IM.JOIN c bob");
        send(&mut client, "c ann after");
        let expected =
            ["c 1 ann message before", "c 2 bob leave ", "c 4 bob join ", "c 5 ann message after"];
        assert_eq!(drain(&mut client, "bob", "0", "").0, expected, "{mode}");
    }
}

#[test]
fn a_follow_goes_from_any_cursor_to_live_without_gap_or_repetition() {
    const MESSAGES: usize = 3_000;
    let server = TestServer::start();
    let mut writer = server.client();
    for mode in ["push", "pull"] {
        writer.line(&format!("IM.CREATE {mode} MODE {mode} MEMBERS ann bob"));
    }
    let followers: Vec<_> = [0, 0, 700, 1500]
        .into_iter()
        .map(|start| {
            let mut client = server.client3();
            thread::spawn(move || {
                let (mut events, mut cursor): (Vec<String>, _) = (Vec::new(), "0".to_owned());
                while events.len() < start {
                    let page = client.line(&format!("IM.SYNC bob {cursor} COUNT 90"));
                    events.extend(event_texts(&page.get("entries")));
                    cursor = page.get("cursor").text();
                }
                // Every thousand events it drops everything and resumes from the cursor of the last
                // frame.
                while events.len() < MESSAGES {
                    let reply = client.line(&format!("IM.FOLLOW bob {cursor}"));
                    assert_eq!(reply.get("verdict").text(), "OK");
                    let due = (MESSAGES - events.len()).min(1000);
                    for _ in 0..due {
                        let (next, event) = followed(&client.receive(), "bob");
                        let mode = &event[..4];
                        let expected = of(mode, &events).len() + 1;
                        assert!(
                            event.starts_with(&format!("{mode} {expected} ")),
                            "{event}, not {expected}"
                        );
                        events.push(event);
                        cursor = next;
                    }
                    client.send(&["IM.UNFOLLOW", "bob"]);
                    while matches!(client.receive(), Value::Push(_)) {}
                    assert_eq!(client.line("IM.UNFOLLOW bob"), Value::Integer(0));
                }
                events
            })
        })
        .collect();
    for chunk in 0..MESSAGES / 100 {
        let numbers = chunk * 100..chunk * 100 + 100;
        for number in numbers.clone() {
            let mode = if number % 2 == 0 { "push" } else { "pull" };
            writer.send(&["IM.SEND", mode, "ann", &number.to_string()]);
        }
        numbers.for_each(|_| assert_eq!(writer.receive().get("duplicate"), Value::Integer(0)));
    }
    let whole = drain(&mut writer, "bob", "0", "").0;
    assert_eq!(whole.len(), MESSAGES);
    for follower in followers {
        let events = follower.join().expect("the follower is content");
        for mode in ["push", "pull"] {
            assert_eq!(of(mode, &events), of(mode, &whole));
        }
    }
}

#[test]
fn the_cursor_in_the_reply_to_a_follow_is_where_the_frames_start() {
    let server = TestServer::start();
    let mut client = server.client3();
    client.line("IM.CREATE c MEMBERS ann bob");
    send(&mut client, "c ann one");
    let first = client.line("IM.SYNC bob 0").get("cursor").text();
    send(&mut client, "c ann two");
    for (cursor, expected) in [("0", 2), (first.as_str(), 1), ("$", 0)] {
        let mut follower = server.client3();
        let reply = follower.line(&format!("IM.FOLLOW bob {cursor}"));
        assert_eq!(reply.get("more").integer(), i64::from(expected > 0));
        let start = reply.get("cursor").text();
        assert_eq!(drain(&mut client, "bob", &start, "").0.len(), expected, "from {cursor}");
    }
    // After the missing entries: a client that stores it, and stops before the first frame, misses
    // nothing and gets the gap once.
    send(&mut client, "c ann three");
    for (trimmed, expected) in [("sync:u/{bob} BEFORE 3", 1), ("sync:u/{bob} BEFORE 4", 0)] {
        client.line(&format!("TL.TRIM {trimmed}"));
        let reply = server.client3().line(&format!("IM.FOLLOW bob {first}"));
        assert_eq!(reply.get("verdict").text(), "TRIMMED");
        let start = reply.get("cursor").text();
        assert_eq!(drain(&mut client, "bob", &start, "").0.len(), expected, "{trimmed}");
    }
}

#[test]
fn the_cursor_in_the_reply_to_a_follow_is_after_pulled_events_that_are_gone() {
    let server = TestServer::start();
    let mut client = server.client3();
    client.line("IM.CREATE c MODE pull MEMBERS ann bob");
    let first = client.line("IM.TAIL bob").text();
    for (kept, expected) in [(2, 2), (1, 1), (0, 0)] {
        (0..3).for_each(|_| assert!(send(&mut client, "c ann x") > 0));
        client.line(&format!("TL.TRIM messages:c/{{c}} KEEP {kept}"));
        let reply = server.client3().line(&format!("IM.FOLLOW bob {first}"));
        assert_eq!(reply.get("verdict").text(), "TRIMMED");
        let start = reply.get("cursor").text();
        assert_eq!(drain(&mut client, "bob", &start, "").0.len(), expected, "{kept} are kept");
    }
}

#[test]
fn a_follow_without_a_cursor_or_in_resp2_gets_an_error_that_names_the_alternative() {
    let server = TestServer::start();
    let refused = server.client().line("IM.FOLLOW ann 0");
    let names =
        |text: &str| text.contains("HELLO 3") && text.contains("IM.SYNC") && text.contains("BLOCK");
    assert!(matches!(&refused, Value::Error(text) if text.starts_with("ERR ") && names(text)));
    let mut client = server.client3();
    assert_eq!(client.line("IM.FOLLOW ann garbage").word(), "ERR");
    assert_eq!(client.line("IM.FOLLOW ann 0 COUNT 3").word(), "ERR");
    assert_eq!(client.line("IM.UNFOLLOW ann"), Value::Integer(0));
}

#[test]
fn hints_carry_the_event_in_a_line_and_its_body() {
    let server = TestServer::start();
    let mut writer = server.client();
    writer.line("IM.CREATE pushed MODE push MEMBERS ann bob");
    writer.line("IM.CREATE pulled MODE pull MEMBERS ann bob");
    send(&mut writer, "pushed ann before");
    let (mut two, mut three) = (server.client(), server.client3());
    assert_eq!(two.line("SUBSCRIBE im:{bob}").items()[2], Value::Integer(1));
    assert_eq!(three.line("SSUBSCRIBE im:{bob}").items()[0].text(), "ssubscribe");
    for (line, conv, sequence, kind, body) in [
        ("IM.SEND pushed ann hello", "pushed", 2, "message", "hello"),
        ("IM.SEND pulled ann there", "pulled", 1, "message", "there"),
        ("IM.EDIT pulled ann 1 here", "pulled", 1, "edit", "here"),
        ("IM.RECALL pushed ann 2", "pushed", 2, "recall", ""),
        ("IM.JOIN pulled carl", "pulled", 3, "join", ""),
    ] {
        writer.line(line);
        for (client, word) in [(&mut two, "message"), (&mut three, "smessage")] {
            let frame = client.receive();
            let parts: Vec<String> = frame.items().iter().map(Value::text).collect();
            assert_eq!(parts[..2], [word, "im:{bob}"]);
            let (head, found) = parts[2].split_once('\n').expect("a line, then the body");
            let words: Vec<&str> = head.split(' ').collect();
            let sender = if kind == "join" { "carl" } else { "ann" };
            assert_eq!(
                [words[0], words[1], words[3], words[4]],
                [conv, &sequence.to_string(), sender, kind]
            );
            assert!(
                words.len() == 5
                    && words[2].parse::<u64>().is_ok_and(|time| time > 1_600_000_000_000)
            );
            assert_eq!(found, body, "{line}");
        }
    }
}

#[test]
fn the_tail_shows_whether_something_is_missing() {
    let server = TestServer::start();
    let mut client = server.client();
    client.line("IM.CREATE pushed MODE push MEMBERS ann bob");
    client.line("IM.CREATE pulled MODE pull MEMBERS ann bob");
    let mut cursor = client.line("IM.SYNC bob $").get("cursor").text();
    for conv in ["pushed", "pulled"] {
        assert_eq!(client.line("IM.TAIL bob").text(), cursor, "nothing is lacking");
        send(&mut client, &format!("{conv} ann x"));
        assert_ne!(client.line("IM.TAIL bob").text(), cursor);
        let (fresh, next) = drain(&mut client, "bob", &cursor, "");
        assert_eq!(fresh, [format!("{conv} 1 ann message x")]);
        cursor = next;
    }
}

#[test]
fn cursors_of_other_users_of_other_histories_and_of_the_future_are_distinguished() {
    let server = TestServer::start();
    let mut client = server.client3();
    client.line("IM.CREATE c MEMBERS ann bob");
    send(&mut client, "c ann x");
    let cursor = client.line("IM.SYNC bob 0").get("cursor").text();
    assert_eq!(client.line(&format!("IM.SYNC ann {cursor}")).word(), "ERR", "it is bob's");
    assert_eq!(client.line(&format!("IM.FOLLOW ann {cursor}")).word(), "ERR");
    for garbage in
        ["", "x", "-1", "00", &cursor[1..], &cursor[..20], &format!("{cursor}0"), &"f".repeat(4000)]
    {
        assert_eq!(client.call(&["IM.SYNC", "bob", garbage]).word(), "ERR", "{garbage:?}");
    }
    // One byte is the version, eight the history, four the user; then follows the position in the
    // sync timeline.
    let other_history = format!("{}{}{}", &cursor[..2], "0123456789abcdef", &cursor[18..]);
    let ahead = format!("{}7f{}", &cursor[..26], &cursor[28..]);
    for (bad, verdict) in [(&other_history, "EPOCH"), (&ahead, "FUTURE")] {
        for options in ["", " BLOCK 0"] {
            let page = client.line(&format!("IM.SYNC bob {bad}{options}"));
            assert_eq!(
                (page.get("verdict").text(), page.get("more").integer()),
                (verdict.into(), 0)
            );
            assert_eq!(page.get("entries"), Value::Array(vec![]));
            let from = page.get("cursor").text();
            assert_eq!(
                drain(&mut client, "bob", &from, "").0,
                ["c 1 ann message x"],
                "from the oldest"
            );
        }
        assert_eq!(client.line(&format!("IM.FOLLOW bob {bad}")).get("verdict").text(), verdict);
        assert_eq!(client.line("IM.UNFOLLOW bob"), Value::Integer(0), "it was not started");
    }
}

#[test]
fn a_terminal_that_was_away_too_long_gets_a_verdict_and_recovers() {
    let server = TestServer::start();
    let mut client = server.client3();
    for mode in ["push", "pull"] {
        client.line(&format!("IM.CREATE {mode} MODE {mode} MEMBERS ann bob"));
    }
    let old = client.line("IM.TAIL bob").text();
    for mode in ["push", "pull"] {
        (1..=4).for_each(|number| assert!(send(&mut client, &format!("{mode} ann m{number}")) > 0));
    }
    client.line("TL.TRIM sync:u/{bob} BEFORE 4");
    let page = client.line(&format!("IM.SYNC bob {old}"));
    assert_eq!(page.get("verdict").text(), "TRIMMED");
    let cursor = page.get("cursor").text();
    let kept = event_texts(&page.get("entries"));
    assert_eq!(kept.first().map(String::as_str), Some("push 4 ann message m4"));
    assert_eq!(kept.len(), 5, "what is pulled is all there");
    assert_eq!(drain(&mut client, "bob", &cursor, "").0.len(), 0, "reported once");
    assert_eq!(
        client.line("IM.SYNC bob 0").get("verdict").text(),
        "OK",
        "who asks for the oldest misses nothing"
    );
    // One look at the list, one at each conversation: everything is displayed again.
    let items = client.line("IM.CONVERSATIONS bob").get("items");
    let listed: Vec<String> = items.items().iter().map(|item| item.get("conv").text()).collect();
    assert_eq!(listed.len(), 2);
    for conv in listed {
        assert_eq!(client.line(&format!("IM.HISTORY {conv} bob")).items().len(), 4);
    }
    let reply = client.line(&format!("IM.FOLLOW bob {old}"));
    assert_eq!(
        (reply.get("verdict").text(), reply.get("more")),
        ("TRIMMED".into(), Value::Integer(1))
    );
    for event in &kept {
        assert_eq!(followed(&client.receive(), "bob").1, *event);
    }
    client.line("IM.UNFOLLOW bob");
    client.line("TL.TRIM messages:c/{pull} BEFORE 3");
    assert_eq!(client.line(&format!("IM.SYNC bob {old}")).get("verdict").text(), "TRIMMED");
}

#[test]
fn everything_is_kept_across_a_restart() {
    let mut server = TestServer::start();
    let mut client = server.client();
    for mode in ["push", "pull"] {
        client.line(&format!("IM.CREATE {mode} MODE {mode} HISTORY joined MEMBERS ann"));
        client.line(&format!("IM.JOIN {mode} bob"));
        (0..3).for_each(|_| assert!(send(&mut client, &format!("{mode} ann x")) > 0));
        client.line(&format!("IM.READ {mode} bob 2"));
        client.line(&format!("IM.HIDE {mode} bob 3"));
    }
    let standing = |client: &mut Client| {
        [
            "IM.SYNC bob 0",
            "IM.TAIL bob",
            "IM.CONVERSATIONS bob",
            "IM.UNREAD bob",
            "IM.HISTORY push bob",
        ]
        .map(|line| client.line(line))
    };
    let before = standing(&mut client);
    let cursor = client.line("IM.SYNC bob 0 COUNT 5").get("cursor").text();
    let rest = drain(&mut client, "bob", &cursor, "").0;
    for flushed in [false, true] {
        if flushed {
            client.line("TL.FLUSH");
        }
        server.restart();
        client = server.client();
        assert_eq!(standing(&mut client), before);
        assert_eq!(drain(&mut client, "bob", &cursor, "").0, rest);
    }
}

#[test]
fn trimmed_pulled_events_are_reported_to_the_users_who_would_have_got_them() {
    let server = TestServer::start();
    let mut client = server.client();
    client.line("IM.CREATE room MODE pull MEMBERS ann bob");
    client.line("IM.CREATE quiet MODE pull MEMBERS ann carl");
    let [bob, carl] = ["bob", "carl"].map(|user| client.line(&format!("IM.TAIL {user}")).text());
    for body in ["one", "two", "three", "four"] {
        send(&mut client, &format!("room ann {body}"));
    }
    client.line("IM.JOIN room carl");
    assert_eq!(client.line("TL.TRIM messages:c/{room} BEFORE 4"), Value::Integer(3));
    let page = client.line(&format!("IM.SYNC bob {bob}"));
    assert_eq!(page.get("verdict").text(), "TRIMMED");
    assert_eq!(page.get("entries").items().len(), 2, "the fourth message, and that carl joined");
    let page = client.line(&format!("IM.SYNC carl {carl}"));
    assert_eq!(page.get("verdict").text(), "OK", "they were never for carl");
    assert_eq!(page.get("entries").items().len(), 1);
}
