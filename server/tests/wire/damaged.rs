//! Messaging on damaged files, as terminals see it: attributes, entries of kind `lost`, and rebuilt
//! ledgers.

#![allow(clippy::disallowed_methods, reason = "the tests run the binary")]

use std::process::{Command, Output};

use crate::messaging::{event_texts, send};
use crate::support::{Client, TestServer, Value};

const MESSAGES: u8 = 1;
const SYNC: u8 = 2;
const LEDGERS: u8 = 3;

/// The attributes of an entry, a history item or a frame.
fn attributes(event: &Value) -> &Value {
    event.items().last().expect("it has parts")
}

#[test]
fn damaged_entries_are_marked_everywhere_and_nothing_fails() {
    let mut server = TestServer::start();
    let mut client = server.client();
    client.line("IM.CREATE lake MODE pull MEMBERS ann bob");
    assert_eq!(send(&mut client, "lake ann one") + send(&mut client, "lake ann two"), 3);
    server.damage_store(MESSAGES);
    for mut client in [server.client(), server.client3()] {
        let synced = client.line("IM.SYNC bob 0");
        let (entries, rows) = (synced.get("entries"), client.line("IM.HISTORY lake bob AFTER 0"));
        for (event, parts) in [(&entries.items()[1], 7), (&rows.items()[1], 6)] {
            assert_eq!(event.items().len(), parts, "{event:?}");
            assert_eq!(attributes(event).get("damaged"), Value::Integer(1), "{event:?}");
            assert_eq!(event.items()[parts - 2].text(), "", "the body is empty");
        }
        assert_eq!((entries.items().len(), rows.items().len()), (2, 2));
        let listed = client.line("IM.CONVERSATIONS bob").get("items");
        let item = &listed.items()[0];
        assert_eq!(item.get("attributes").get("damaged"), Value::Integer(1), "{item:?}");
        assert_eq!((item.get("seq").integer(), item.get("unread").integer()), (2, 2));
        assert_eq!(client.line("IM.UNREAD bob").get("lake"), Value::Integer(2));
        assert_eq!(client.line("IM.INFO lake").get("last").integer(), 2);
    }
    let mut follower = server.client3();
    follower.line("IM.FOLLOW bob 0");
    let frame = follower.receive();
    assert_eq!(frame.items().len(), 10, "{frame:?}");
    assert_eq!(attributes(&frame).get("damaged"), Value::Integer(1));
    let mut client = server.client();
    assert_eq!(client.line("IM.EDIT lake ann 1 new").word(), "CORRUPT");
    assert_eq!(client.line("IM.RECALL lake ann 1"), Value::Integer(1), "its place is taken");
    assert_eq!(send(&mut client, "lake bob three"), 4);
    let rows = client.line("IM.HISTORY lake bob AFTER 3");
    assert_eq!(event_texts(&rows), ["4 bob message three"]);
}

#[test]
fn a_damaged_sync_timeline_is_refilled_and_missing_entries_are_one_lost_entry() {
    let mut server = TestServer::start();
    let mut client = server.client();
    client.line("IM.CREATE red MEMBERS ann bob");
    for body in ["one", "two", "three"] {
        send(&mut client, &format!("red ann {body}"));
    }
    let whole = event_texts(&client.line("IM.SYNC bob 0").get("entries"));
    server.damage_store(SYNC);
    let mut client = server.client3();
    assert_eq!(event_texts(&client.line("IM.SYNC bob 0").get("entries")), whole);
    client.line("TL.TRIM messages:c/{red} BEFORE 4");
    let page = client.line("IM.SYNC bob 0 COUNT 1");
    let lost = page.get("entries");
    assert_eq!(event_texts(&lost), [" 0  lost "]);
    assert_eq!((lost.items()[0].items().len(), page.get("more").integer()), (6, 0));
    assert_eq!(send(&mut client, "red ann four"), 4);
    let next = client.line(&format!("IM.SYNC bob {}", page.get("cursor").text()));
    assert_eq!(event_texts(&next.get("entries")), ["red 4 ann message four"]);
}

fn strandline(words: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_strandline")).args(words).output().expect("the binary starts")
}

fn members(client: &mut Client, conv: &str) -> Vec<String> {
    client.line(&format!("IM.MEMBERS {conv}")).items().iter().map(Value::text).collect()
}

#[test]
fn a_salvage_names_lost_ledgers_and_members_are_rebuilt() {
    let mut server = TestServer::start();
    let mut client = server.client();
    client.line("IM.CREATE red MEMBERS ann bob dora");
    send(&mut client, "red ann one");
    client.line("IM.JOIN red carl");
    client.line("IM.LEAVE red dora");
    server.damage_store(LEDGERS);
    let mut client = server.client();
    let refused = client.line("IM.MEMBERS red");
    assert!(matches!(&refused, Value::Error(text)
            if text.starts_with("CORRUPT ") && text.contains("im.state")));
    server.pause();
    let (dir, target) = (server.data(), server.data().with_extension("salvaged"));
    let [from, to] = [&dir, &target].map(|path| path.to_str().expect("a name").to_owned());
    let salvaged = strandline(&["salvage", &from, &to]);
    let out = String::from_utf8_lossy(&salvaged.stdout).into_owned();
    assert_eq!(salvaged.status.code(), Some(1), "{out}");
    assert!(out.contains("the members of conversation red are lost"), "{out}");
    assert!(out.contains("conversations and marks of user bob are lost"), "{out}");
    let rebuilt = strandline(&["rebuild-members", &to]);
    let out = String::from_utf8_lossy(&rebuilt.stdout).into_owned();
    assert_eq!(rebuilt.status.code(), Some(0), "{out}");
    assert!(out.contains("conversation red: 3 members"), "{out}");
    let salvaged = TestServer::with(|config| config.dir = target.clone());
    let mut client = salvaged.client();
    assert_eq!(members(&mut client, "red"), ["ann", "bob", "carl"]);
    assert_eq!(send(&mut client, "red bob again"), 4);
    assert_eq!(event_texts(&client.line("IM.HISTORY red carl AFTER 3")), ["4 bob message again"]);
    server.resume();
}
