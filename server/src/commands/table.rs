//! The table of commands, composed of the rows in the files of the groups. Dispatch, the checks of
//! arity, login and subscriber mode, COMMAND, COMMAND DOCS and the tables of docs/protocol.md all
//! use it, so they cannot disagree.

use std::sync::LazyLock;

use super::row::{CommandTable, Group};
use super::{
    acl, append, change, client, command, config, connection, follow, get, im, latency, list,
    maintenance, monitor, range, read, read_many, server, slowlog, store, subscribe,
};

/// The whole table, in the order of the document.
pub static GROUPS: &[Group] = &[
    Group {
        title: "Timelines",
        word: "timeline",
        rows: &[
            append::COMMANDS,
            change::COMMANDS,
            get::COMMANDS,
            range::COMMANDS,
            read::COMMANDS,
            read_many::COMMANDS,
            list::COMMANDS,
            store::COMMANDS,
            maintenance::COMMANDS,
        ],
    },
    Group {
        title: "Messaging",
        word: "messaging",
        rows: &[
            im::members::COMMANDS,
            im::send::COMMANDS,
            im::sync::COMMANDS,
            im::history::COMMANDS,
            im::mark::COMMANDS,
        ],
    },
    Group { title: "Push", word: "pubsub", rows: &[follow::COMMANDS, subscribe::COMMANDS] },
    Group {
        title: "Connection",
        word: "connection",
        rows: &[connection::COMMANDS, client::COMMANDS],
    },
    Group {
        title: "Server",
        word: "server",
        rows: &[
            command::COMMANDS,
            acl::COMMANDS,
            config::COMMANDS,
            server::COMMANDS,
            slowlog::COMMANDS,
            latency::COMMANDS,
            monitor::COMMANDS,
        ],
    },
];

/// The same table, with an index by name.
pub static TABLE: LazyLock<CommandTable> = LazyLock::new(|| CommandTable::new(GROUPS));

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use bytes::Bytes;

    use super::*;
    use crate::commands::row::MAX_NAME_BYTES;
    use crate::commands::scope::Scope;
    use crate::metrics::MOST_COMMANDS;

    fn words(text: &str) -> Vec<Bytes> {
        text.split(' ').map(|word| Bytes::copy_from_slice(word.as_bytes())).collect()
    }

    #[test]
    fn every_name_is_found_in_any_case_and_is_unique() {
        for (_, command) in TABLE.all() {
            assert_eq!(
                TABLE.find(command.lower_name().as_bytes()).map(|found| found.name),
                Some(command.name)
            );
            assert_eq!(command.name, command.name.to_ascii_uppercase());
            assert!(
                !command.summary.is_empty() && command.name.len() <= MAX_NAME_BYTES,
                "{}",
                command.name
            );
        }
        let names: HashSet<&str> = TABLE.all().map(|(_, command)| command.name).collect();
        assert_eq!(TABLE.all().count(), names.len());
        assert!(TABLE.find(&[b'x'; 100]).is_none() && TABLE.find(b"NOPE").is_none());
    }

    #[test]
    fn each_command_has_a_position_of_its_own_and_there_is_room_for_its_calls() {
        for (position, (_, command)) in TABLE.all().enumerate() {
            assert_eq!(command.position, position, "{}", command.name);
        }
        assert!(TABLE.all().count() <= MOST_COMMANDS, "raise MOST_COMMANDS");
    }

    #[test]
    fn commands_with_passwords_are_secret() {
        for (_, command) in TABLE.all() {
            let usage = command.usage.to_ascii_lowercase();
            let has_secret = ["pass", "secret"].iter().any(|word| usage.contains(word))
                || matches!(command.name, "ACL" | "CONFIG");
            assert!(command.is_secret || !has_secret, "{}: mark it as secret", command.name);
        }
    }

    #[test]
    fn keys_are_where_the_table_says() {
        let keys = |text: &str| {
            let request = words(text);
            let command = TABLE.find(&request[0]).expect("a command of the table");
            command.keys_of(&request).map(|keys| keys.into_iter().cloned().collect::<Vec<_>>())
        };
        assert_eq!(keys("tl.append a:b body"), Ok(words("a:b")));
        assert_eq!(keys("tl.fanout body 2 a:b c:d DURABILITY os"), Ok(words("a:b c:d")));
        assert_eq!(keys("tl.mread 1 a:b AFTER 0"), Ok(words("a:b")));
        assert_eq!(keys("ssubscribe a:b c:d"), Ok(words("a:b c:d")));
        assert_eq!(keys("ping"), Ok(vec![]));
        assert!(keys("tl.fanout body x a:b").is_err());
        assert!(keys("tl.fanout body 9223372036854775807 a:b").is_err());
        assert!(keys("tl.fanout body 2 a:b").is_err());
    }

    #[test]
    fn each_command_says_what_it_touches_and_has_its_subcommands() {
        for (_, command) in TABLE.all() {
            assert!(!matches!(command.scope, Scope::Undeclared), "{}", command.name);
            let has = |word: &str| command.parts.iter().any(|part| part.word == word);
            let forms = command.usage.split(" | ").map(|form| form.split(' ').next());
            assert!(
                command.parts.is_empty() || forms.flatten().all(has),
                "{}: a subcommand without needs",
                command.name
            );
        }
    }

    #[test]
    fn a_subcommand_has_a_number_and_needs_of_its_own() {
        let units = TABLE.units();
        let needs = |line: &str| {
            let request = words(line);
            TABLE.found(&request[0]).expect("it is there").needs(&request)
        };
        for (line, name) in [
            ("tl.get a:b 1", "tl.get"),
            ("client list", "client|list"),
            ("CLIENT Kill ID 1", "client|kill"),
            ("client nonsense", "client"),
            ("client", "client"),
            ("shutdown", "shutdown"),
        ] {
            assert_eq!(units[needs(line).unit].name(), name, "{line}");
        }
    }

    #[test]
    fn arity_counts_the_name_and_negative_means_at_least() {
        let append = TABLE.find(b"TL.APPEND").expect("it is there");
        assert!(!append.takes(2) && append.takes(3) && append.takes(9));
        let get = TABLE.find(b"TL.GET").expect("it is there");
        assert!(get.takes(3) && !get.takes(4));
    }
}
