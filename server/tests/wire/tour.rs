//! The sessions with redis-cli in the README and in docs/start.md: every command of them runs, and
//! the replies that are printed there are the replies.
//!
//! A line that begins with `> ` is a command; the lines after it, up to the next command, are its
//! reply, unless there are none: then it must not be an error.

#![allow(clippy::disallowed_methods, reason = "the tests read documents of the repository")]

use std::path::Path;

use crate::support::{TestServer, Value};

/// A reply as redis-cli prints it to a terminal.
fn printed(reply: &Value) -> String {
    match reply {
        Value::Simple(text) => text.clone(),
        Value::Error(text) => format!("(error) {text}"),
        Value::Integer(number) => format!("(integer) {number}"),
        Value::Bulk(bytes) => format!("{:?}", String::from_utf8_lossy(bytes)),
        Value::Null => "(nil)".into(),
        Value::Array(items) if items.is_empty() => "(empty array)".into(),
        Value::Array(items) => {
            let width = items.len().to_string().len();
            let numbered = items.iter().enumerate().map(|(index, item)| {
                let item = printed(item).replace('\n', &format!("\n{}", " ".repeat(width + 2)));
                format!("{:>width$}) {item}", index + 1)
            });
            numbered.collect::<Vec<_>>().join("\n")
        }
        Value::Map(_) | Value::Push(_) => panic!("RESP2 has neither"),
    }
}

/// The words of a line, of which some are in quotes.
fn words(line: &str) -> Vec<String> {
    let quoted = line.split('"').enumerate();
    quoted
        .flat_map(|(index, part)| {
            if index % 2 == 1 {
                vec![part.to_owned()]
            } else {
                part.split_whitespace().map(ToOwned::to_owned).collect()
            }
        })
        .collect()
}

/// The commands of each block of a document, with their printed replies.
fn sessions(document: &str) -> Vec<Vec<(String, String)>> {
    let mut sessions = Vec::new();
    for block in document.split("```").skip(1).step_by(2) {
        let mut commands: Vec<(String, String)> = Vec::new();
        for line in block.lines().skip(1) {
            if let Some(command) = line.strip_prefix("> ") {
                commands.push((command.to_owned(), String::new()));
            } else if let Some((_, reply)) = commands.last_mut() {
                reply.push_str(line);
                reply.push('\n');
            }
        }
        sessions.push(commands);
    }
    sessions
}

#[test]
fn the_commands_of_the_first_pages_run_and_reply_as_printed() {
    for (name, least) in [("README.md", 10), ("docs/start.md", 10)] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(name);
        let document = std::fs::read_to_string(path).expect("the document is there");
        let sessions = sessions(&document);
        let count = sessions.iter().map(Vec::len).sum::<usize>();
        assert!(count >= least, "{name}: {count} commands");
        let server = TestServer::start();
        for session in sessions {
            // The one before may end with a subscription.
            let mut client = server.client();
            for (command, expected) in session {
                let reply = client.call(&words(&command));
                assert!(!matches!(reply, Value::Error(_)), "{name}: {command}: {reply:?}");
                if !expected.is_empty() {
                    assert_eq!(printed(&reply), expected.trim_end(), "{name}: {command}");
                }
            }
        }
    }
}
