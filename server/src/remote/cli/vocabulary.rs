//! The commands of a server, from COMMAND DOCS: completion, hints and help for the prompt.

use std::collections::{BTreeMap, BTreeSet};

use crate::remote::frame::Frame;

/// The commands, by their names in capitals.
#[derive(Default)]
pub struct Vocabulary(BTreeMap<String, Manual>);

struct Manual {
    usage: String,
    summary: String,
}

impl Vocabulary {
    /// From the reply to COMMAND DOCS. A summary begins with the command and its arguments, then a
    /// colon.
    pub fn new(docs: &Frame) -> Vocabulary {
        let Frame::Map(commands) = docs else { return Vocabulary::default() };
        let known = commands.iter().map(|(name, facts)| {
            let name = name.text().to_ascii_uppercase();
            let text = facts.get("summary").map(Frame::text).unwrap_or_default();
            let has_usage = text.strip_prefix(&format!("{name} "));
            let (usage, summary) =
                has_usage.and_then(|rest| rest.split_once(": ")).unwrap_or(("", &text));
            let manual = Manual { usage: usage.to_owned(), summary: summary.to_owned() };
            (name, manual)
        });
        Vocabulary(known.collect())
    }

    /// What the word before the cursor can become, and where it starts. The case of letters is that
    /// of the word.
    pub fn completions(&self, line: &str) -> (usize, Vec<String>) {
        let start = line.rfind(char::is_whitespace).map_or(0, |space| space + 1);
        let word = &line[start..];
        let is_lower = word.chars().any(char::is_lowercase);
        let wanted = word.to_ascii_uppercase();
        let before = line[..start].trim();
        let candidates: Vec<String> = if before.is_empty() {
            self.0.keys().filter(|name| name.starts_with(&wanted)).cloned().collect()
        } else if before.eq_ignore_ascii_case("HELP") {
            self.0.keys().filter(|name| name.starts_with(&wanted)).cloned().collect()
        } else {
            self.manual(before)
                .map(|manual| keywords(&manual.usage))
                .unwrap_or_default()
                .into_iter()
                .filter(|keyword| !wanted.is_empty() && keyword.starts_with(&wanted))
                .collect()
        };
        let in_case = |text: String| if is_lower { text.to_ascii_lowercase() } else { text };
        (start, candidates.into_iter().map(in_case).collect())
    }

    /// The arguments that may follow.
    pub fn hint(&self, line: &str) -> Option<String> {
        let mut words = line.split_whitespace();
        let manual = self.manual(words.next()?)?;
        let rest = arguments(&manual.usage);
        let typed = words.count();
        // Options may come in any order, so they are shown until the end.
        let required = rest.iter().take_while(|part| !part.starts_with('[')).count();
        let shown = rest.get(typed.min(required)..)?.join(" ");
        let gap = if line.ends_with(char::is_whitespace) { "" } else { " " };
        let is_within_word = typed > 0 && gap == " ";
        let is_option_begun = is_within_word && typed > required;
        (!shown.is_empty() && !is_option_begun).then(|| format!("{gap}{shown}"))
    }

    /// The usage and summary of a command.
    pub fn help(&self, name: &str) -> Option<String> {
        let manual = self.manual(name)?;
        let call = format!("{} {}", name.to_ascii_uppercase(), manual.usage);
        Some(format!("{}\n  {}", call.trim_end(), manual.summary))
    }

    /// All names.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    fn manual(&self, line: &str) -> Option<&Manual> {
        self.0.get(&line.split_whitespace().next()?.to_ascii_uppercase())
    }
}

/// The words in capitals.
fn keywords(usage: &str) -> BTreeSet<String> {
    let words = usage.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '-');
    let is_keyword = |word: &&str| {
        word.len() > 1 && word.chars().all(|letter| letter.is_ascii_uppercase() || letter == '-')
    };
    words.filter(is_keyword).map(str::to_owned).collect()
}

/// The parts of a usage: words, and bracketed parts as a whole.
fn arguments(usage: &str) -> Vec<&str> {
    let (mut parts, mut start, mut depth) = (Vec::new(), 0, 0_usize);
    for (position, letter) in usage.char_indices().chain([(usage.len(), ' ')]) {
        match letter {
            '[' => depth += 1,
            ']' => depth = depth.saturating_sub(1),
            ' ' if depth == 0 => {
                if start < position {
                    parts.push(&usage[start..position]);
                }
                start = position + 1;
            }
            _ => {}
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn vocabulary() -> Vocabulary {
        let bulk = |text: &str| Frame::Bulk(Bytes::copy_from_slice(text.as_bytes()));
        let command = |name: &str, summary: &str| {
            (bulk(name), Frame::Map(vec![(bulk("summary"), bulk(summary))]))
        };
        Vocabulary::new(&Frame::Map(vec![
            command("tl.range", "TL.RANGE key from to [COUNT n] [BYTES n]: Entries: ascending."),
            command("tl.read", "TL.READ key AFTER seq [BLOCK ms]: A page."),
            command("time", "Array: seconds and microseconds."),
        ]))
    }

    #[test]
    fn commands_and_their_words_are_completed_in_the_case_that_was_typed() {
        let completions = |line: &str| vocabulary().completions(line);
        assert_eq!(completions("tl.r"), (0, vec!["tl.range".into(), "tl.read".into()]));
        assert_eq!(completions("TI"), (0, vec!["TIME".into()]));
        assert_eq!(completions("help TI"), (5, vec!["TIME".into()]));
        assert_eq!(completions("TL.RANGE k - + C"), (15, vec!["COUNT".into()]));
        assert_eq!(completions("tl.range k - + by"), (15, vec!["bytes".into()]));
        assert_eq!(completions("TL.RANGE "), (9, vec![]));
        assert_eq!(completions("nothing x"), (8, vec![]));
    }

    #[test]
    fn hints_name_what_is_missing() {
        let hint = |line: &str| vocabulary().hint(line);
        assert_eq!(hint("tl.range").as_deref(), Some(" key from to [COUNT n] [BYTES n]"));
        assert_eq!(hint("TL.RANGE k ").as_deref(), Some("from to [COUNT n] [BYTES n]"));
        assert_eq!(hint("TL.RANGE k - +").as_deref(), Some(" [COUNT n] [BYTES n]"));
        assert_eq!(hint("TL.RANGE k - + COUNT 1 ").as_deref(), Some("[COUNT n] [BYTES n]"));
        assert_eq!((hint("TIME "), hint("nothing")), (None, None));
    }

    #[test]
    fn help_has_the_usage_and_the_summary() {
        let help = |name: &str| vocabulary().help(name).expect("it is known");
        assert_eq!(
            help("tl.range"),
            "TL.RANGE key from to [COUNT n] [BYTES n]\n  Entries: ascending."
        );
        assert_eq!(help("TIME"), "TIME\n  Array: seconds and microseconds.");
    }
}
