//! Which commands a user may run: rules in their order, and the set that they make.

use super::catalog::{CLASSES, Catalog, Class, MOST_UNITS, RAW_EVENTS};

const WORD_BITS: usize = u64::BITS as usize;

/// A rule about commands.
#[derive(Clone, Debug, PartialEq, Eq)]
struct CommandRule {
    /// `+` allows, `-` forbids.
    allows: bool,
    /// A category or a command, in lower case.
    subject: String,
}

/// The commands that a user may run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Grants {
    /// Whether the rules begin with `+@all`, and not with `-@all`.
    starts_with_all: bool,
    rules: Vec<CommandRule>,
    /// A bit for each unit of the catalog.
    units: [u64; MOST_UNITS / WORD_BITS],
    raw_events: bool,
}

impl Grants {
    /// Every command.
    pub fn everything() -> Grants {
        Grants {
            starts_with_all: true,
            units: [u64::MAX; MOST_UNITS / WORD_BITS],
            raw_events: true,
            ..Grants::default()
        }
    }

    /// Adds a rule, `+` or `-` and a category or a command. False if there is no such category or
    /// command.
    pub fn add(&mut self, allows: bool, subject: &str, catalog: &Catalog) -> bool {
        let subject = subject.to_ascii_lowercase();
        if subject == "@all" {
            *self = if allows { Grants::everything() } else { Grants::default() };
            return true;
        }
        let Some(numbers) = numbers(&subject, catalog) else { return false };
        for number in numbers {
            self.set(number, allows);
        }
        if subject == RAW_EVENTS {
            self.raw_events = allows;
        }
        // What an earlier rule says about the same subject, or about a part of it, has no effect.
        let whole = format!("{subject}|");
        self.rules.retain(|rule| rule.subject != subject && !rule.subject.starts_with(&whole));
        self.rules.push(CommandRule { allows, subject });
        true
    }

    fn set(&mut self, number: usize, allows: bool) {
        let bit = 1 << (number % WORD_BITS);
        let word = &mut self.units[number / WORD_BITS];
        *word = if allows { *word | bit } else { *word & !bit };
    }

    /// Whether the unit of that number may be run.
    pub fn has(&self, number: usize) -> bool {
        self.units[number / WORD_BITS] & (1 << (number % WORD_BITS)) != 0
    }

    /// Whether events may be written into the timelines of conversations and users.
    pub fn has_raw_events(&self) -> bool {
        self.raw_events
    }

    /// Whether no rule forbids anything.
    pub fn is_everything(&self) -> bool {
        self.starts_with_all && self.rules.iter().all(|rule| rule.allows)
    }

    /// The rules as a line, in their order.
    pub fn text(&self) -> String {
        let mut text = String::from(if self.starts_with_all { "+@all" } else { "-@all" });
        for rule in &self.rules {
            text.push_str(if rule.allows { " +" } else { " -" });
            text.push_str(&rule.subject);
        }
        text
    }
}

/// The units that a rule is about. None if there is no such category or command.
fn numbers(subject: &str, catalog: &Catalog) -> Option<Vec<usize>> {
    if subject == RAW_EVENTS {
        return Some(Vec::new());
    }
    if subject.starts_with('@') {
        let class = Class::named(subject)?;
        return Some(of_class(class, catalog));
    }
    Some(catalog.named(subject)).filter(|numbers| !numbers.is_empty())
}

fn of_class(class: Class, catalog: &Catalog) -> Vec<usize> {
    catalog.all().filter(|(_, unit)| unit.class == class).map(|(number, _)| number).collect()
}

/// The names of all categories, without the `@`.
pub fn categories() -> impl Iterator<Item = &'static str> {
    CLASSES.into_iter().map(Class::word).chain([RAW_EVENTS]).map(|word| &word[1..])
}

#[cfg(test)]
mod tests {
    use super::super::catalog::example;
    use super::*;

    fn granted(rules: &str) -> (Grants, Vec<String>) {
        let catalog = example();
        let mut grants = Grants::default();
        for rule in rules.split(' ') {
            let allows = rule.starts_with('+');
            assert!(grants.add(allows, &rule[1..], &catalog), "{rule}");
        }
        let names =
            catalog.all().filter(|(number, _)| grants.has(*number)).map(|(_, unit)| unit.name());
        let names = names.collect();
        (grants, names)
    }

    #[test]
    fn later_rules_hold() {
        assert_eq!(granted("+@read").1, ["tl.get"]);
        assert_eq!(granted("+@write -tl.drop").1, ["tl.append"]);
        assert_eq!(granted("-tl.drop +@write").1, ["tl.append", "tl.drop"]);
        assert_eq!(granted("+@connection").1, ["ping", "client|id"]);
        assert_eq!(granted("+client -client|list").1, ["client", "client|id"]);
        assert_eq!(granted("+@all -@write -@admin").1, ["ping", "tl.get", "client|id"]);
        assert_eq!(granted("+@all +@read -@all").1, [""; 0]);
    }

    #[test]
    fn raw_events_are_in_all_and_in_no_other_category() {
        assert!(granted("+@all").0.has_raw_events());
        assert!(!granted("+@read +@write +@admin +@pubsub +@connection").0.has_raw_events());
        assert!(granted("+@write +@rawevents").0.has_raw_events());
        assert!(!granted("+@all -@rawevents").0.has_raw_events());
    }

    #[test]
    fn rules_are_shown_as_they_hold() {
        for (given, shown) in [
            ("+@all", "+@all"),
            ("+@read +TL.Append +@read", "-@all +tl.append +@read"),
            ("+client|list -client", "-@all -client"),
            ("+@all -@admin", "+@all -@admin"),
        ] {
            let (grants, _) = granted(given);
            assert_eq!(grants.text(), shown);
            assert_eq!(grants.is_everything(), shown == "+@all");
        }
    }

    #[test]
    fn unknown_subjects_are_refused() {
        let catalog = example();
        for subject in ["nope", "@nope", "client|nope", "", "@"] {
            assert!(!Grants::default().add(true, subject, &catalog), "{subject}");
        }
    }
}
