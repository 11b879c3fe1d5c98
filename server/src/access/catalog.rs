//! The commands as rules know them: each has a number, a name and a category. A command with
//! subcommands has a number for each of them too.
//!
//! It does not know what a command does: the table of commands fills it.

/// The category of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Commands about the connection itself.
    Connection,
    /// Reading timelines.
    Read,
    /// Writing timelines.
    Write,
    /// Receiving pushes.
    PubSub,
    /// Managing the server.
    Admin,
}

/// All categories of commands, in the order in which ACL CAT lists them.
pub const CLASSES: [Class; 5] =
    [Class::Connection, Class::Read, Class::Write, Class::PubSub, Class::Admin];

/// The category that is a right, and not a set of commands.
pub const RAW_EVENTS: &str = "@rawevents";

/// The most numbers, commands and subcommands together.
pub const MOST_UNITS: usize = 256;

impl Class {
    /// The category, as rules and COMMAND name it.
    pub fn word(self) -> &'static str {
        match self {
            Class::Connection => "@connection",
            Class::Read => "@read",
            Class::Write => "@write",
            Class::PubSub => "@pubsub",
            Class::Admin => "@admin",
        }
    }

    /// The category of that name.
    pub fn named(word: &str) -> Option<Class> {
        CLASSES.into_iter().find(|class| class.word() == word)
    }
}

/// A command or a subcommand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unit {
    /// The command, in capitals.
    pub command: &'static str,
    /// The subcommand, in capitals; empty: the command itself.
    pub part: &'static str,
    /// The category that it needs.
    pub class: Class,
}

impl Unit {
    /// The name in rules: `tl.get`, or `client|list`.
    pub fn name(&self) -> String {
        let command = self.command.to_ascii_lowercase();
        if self.part.is_empty() {
            return command;
        }
        format!("{command}|{}", self.part.to_ascii_lowercase())
    }
}

/// All commands and subcommands, by number.
#[derive(Clone, Debug, Default)]
pub struct Catalog(Vec<Unit>);

impl Catalog {
    /// The catalog of these units; each one's number is its position.
    pub fn new(units: Vec<Unit>) -> Catalog {
        assert!(units.len() <= MOST_UNITS, "a set of grants has a bit for each unit");
        Catalog(units)
    }

    /// The units with their numbers.
    pub fn all(&self) -> impl Iterator<Item = (usize, &Unit)> {
        self.0.iter().enumerate()
    }

    /// The numbers that a name in a rule stands for: those of a subcommand, or of a command with
    /// all its subcommands. None if there is no such command.
    pub fn named(&self, name: &str) -> Vec<usize> {
        let (command, part) = name.split_once('|').unwrap_or((name, ""));
        let is_meant = |unit: &Unit| {
            unit.command.eq_ignore_ascii_case(command)
                && (part.is_empty() || unit.part.eq_ignore_ascii_case(part))
        };
        self.all().filter(|(_, unit)| is_meant(unit)).map(|(number, _)| number).collect()
    }
}

/// A small catalog for the tests of rules.
#[cfg(test)]
pub fn example() -> Catalog {
    let unit = |command, part, class| Unit { command, part, class };
    Catalog::new(vec![
        unit("PING", "", Class::Connection),
        unit("TL.GET", "", Class::Read),
        unit("TL.APPEND", "", Class::Write),
        unit("TL.DROP", "", Class::Write),
        unit("CLIENT", "", Class::Admin),
        unit("CLIENT", "ID", Class::Connection),
        unit("CLIENT", "LIST", Class::Admin),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_stands_for_its_subcommands() {
        let catalog = example();
        assert_eq!(catalog.named("client"), [4, 5, 6]);
        assert_eq!(catalog.named("Client|List"), [6]);
        assert!(catalog.named("client|nope").is_empty() && catalog.named("nope").is_empty());
    }
}
