//! What a command touches: which of its words are keys, conversations, users, prefixes or
//! channels, and what a terminal's token may do with it. `permit.rs` enforces both, and
//! docs/protocol.md shows them.
//!
//! Positions count from the command's name, which has position 0.

use bytes::Bytes;

use super::arguments::counted;
use crate::access::{Class, Unit};
use crate::refusal::Refusal;

/// What a command touches.
#[derive(Clone, Copy, Debug)]
pub enum Scope {
    /// It was not declared. A test fails; until then it is as `Everything`, and no terminal may run
    /// the command.
    Undeclared,
    /// No data of anybody, or nothing but this connection.
    Nothing,
    /// Data of everybody, or the server as a whole: it needs every key, `~*`.
    Everything,
    /// What these words name.
    Of(&'static [Touch]),
}

/// Words of a request that name something.
#[derive(Clone, Copy, Debug)]
pub enum Touch {
    /// The key at a position.
    Key(usize),
    /// The number of keys at a position, and the keys after it.
    CountedKeys(usize),
    /// The prefix of keys at a position.
    Prefix(usize),
    /// The store at a position: all its keys.
    Store(usize),
    /// The conversation at a position.
    Conversation(usize),
    /// The conversations from a position on.
    Conversations(usize),
    /// The user at a position.
    User(usize),
    /// The users from a position on.
    Users(usize),
    /// The users after the word MEMBERS, from a position on.
    Members(usize),
    /// The channels from a position on.
    Channels(usize),
}

/// A name in an error is shown up to this length.
const SHOWN_BYTES: usize = 128;

/// Something that a word names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject<'r> {
    /// A key.
    Key(&'r [u8]),
    /// A prefix of keys.
    Prefix(&'r [u8]),
    /// A store.
    Store(&'r [u8]),
    /// A conversation.
    Conversation(&'r [u8]),
    /// A user.
    User(&'r [u8]),
    /// A channel.
    Channel(&'r [u8]),
}

/// Which requests of a command a terminal's token may send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenRule {
    /// None.
    Never,
    /// All.
    Always,
    /// Those in which the word at a position is its own user.
    AsItself(usize),
    /// Those in which all words from a position on are its own user.
    OnlyItself(usize),
    /// The same, for conversations that the claim `join` allows.
    Join,
    /// Those for conversations that the claim `create` allows.
    Create,
    /// All: the command itself checks that the user is a member now.
    AsMember,
    /// Those with no other channel than its user's.
    OwnChannel,
}

/// A subcommand with needs of its own.
#[derive(Clone, Copy, Debug)]
pub struct Part {
    /// The word after the command's name, in capitals.
    pub word: &'static str,
    /// The category that it needs.
    pub class: Class,
    /// What it touches.
    pub scope: Scope,
}

/// What a request needs.
pub struct Needs {
    /// The number of the command, or of the subcommand, in the catalog of access.
    pub unit: usize,
    /// The subcommand, if it has needs of its own.
    pub part: Option<&'static str>,
    /// What it touches.
    pub scope: Scope,
    /// What a terminal's token may do with it.
    pub token: TokenRule,
}

impl Needs {
    /// The name of the command, or of the subcommand, as in rules.
    pub fn name(&self, command: &'static str, class: Class) -> String {
        Unit { command, part: self.part.unwrap_or_default(), class }.name()
    }
}

impl Part {
    /// A subcommand.
    pub const fn new(word: &'static str, class: Class, scope: Scope) -> Part {
        Part { word, class, scope }
    }
}

impl Subject<'_> {
    /// The subject as errors name it.
    pub fn described(&self) -> String {
        let (what, name) = match self {
            Subject::Key(name) => ("key", name),
            Subject::Prefix(name) => ("prefix", name),
            Subject::Store(name) => ("store", name),
            Subject::Conversation(name) => ("conversation", name),
            Subject::User(name) => ("user", name),
            Subject::Channel(name) => ("channel", name),
        };
        format!("the {what} '{}'", name[..name.len().min(SHOWN_BYTES)].escape_ascii())
    }
}

impl Touch {
    /// Passes each subject of a request to `see`. The request has the words that the command's
    /// arity requires; a word that is missing nevertheless is refused by the command itself.
    pub fn visit<'r>(
        self,
        request: &'r [Bytes],
        see: &mut dyn FnMut(Subject<'r>) -> Result<(), Refusal>,
    ) -> Result<(), Refusal> {
        let one = |at: usize| request.get(at).map(|word| &word[..]).into_iter();
        let from = |at: usize| request.get(at..).unwrap_or_default().iter().map(|word| &word[..]);
        match self {
            Touch::Key(at) => one(at).map(Subject::Key).try_for_each(see),
            Touch::CountedKeys(at) => {
                let Some(count) = request.get(at) else { return Ok(()) };
                let (keys, _) = counted(count, &request[at + 1..])?;
                keys.iter().map(|key| Subject::Key(key)).try_for_each(see)
            }
            Touch::Prefix(at) => one(at).map(Subject::Prefix).try_for_each(see),
            Touch::Store(at) => one(at).map(Subject::Store).try_for_each(see),
            Touch::Conversation(at) => one(at).map(Subject::Conversation).try_for_each(see),
            Touch::Conversations(at) => from(at).map(Subject::Conversation).try_for_each(see),
            Touch::User(at) => one(at).map(Subject::User).try_for_each(see),
            Touch::Users(at) => from(at).map(Subject::User).try_for_each(see),
            Touch::Members(at) => {
                let words = request.get(at..).unwrap_or_default();
                let Some(members) = members_at(words) else { return Ok(()) };
                words[members + 1..].iter().map(|word| Subject::User(word)).try_for_each(see)
            }
            Touch::Channels(at) => from(at).map(Subject::Channel).try_for_each(see),
        }
    }

    /// What it names, for the document.
    pub fn word(self) -> &'static str {
        match self {
            Touch::Key(_) | Touch::CountedKeys(_) => "key",
            Touch::Prefix(_) => "prefix",
            Touch::Store(_) => "store",
            Touch::Conversation(_) | Touch::Conversations(_) => "conv",
            Touch::User(_) | Touch::Users(_) | Touch::Members(_) => "user",
            Touch::Channels(_) => "channel",
        }
    }
}

/// The position of MEMBERS in words that begin with options, in pairs.
pub fn members_at(words: &[Bytes]) -> Option<usize> {
    (0..words.len()).step_by(2).find(|at| words[*at].eq_ignore_ascii_case(b"MEMBERS"))
}

impl Scope {
    /// What it names, for the document; `~*` for everything.
    pub fn text(self) -> String {
        match self {
            Scope::Undeclared => "?".into(),
            Scope::Nothing => String::new(),
            Scope::Everything => "~*".into(),
            Scope::Of(touches) => {
                let mut words: Vec<&str> = touches.iter().map(|touch| touch.word()).collect();
                words.dedup();
                words.join(", ")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(touch: Touch, line: &str) -> Result<Vec<String>, Refusal> {
        let request: Vec<Bytes> =
            line.split(' ').map(|word| Bytes::copy_from_slice(word.as_bytes())).collect();
        let mut names = Vec::new();
        touch.visit(&request, &mut |subject| {
            names.push(subject.described());
            Ok(())
        })?;
        Ok(names)
    }

    #[test]
    fn each_word_that_names_something_is_seen() {
        let users = |names: &[&str]| -> Vec<String> {
            names.iter().map(|name| format!("the user '{name}'")).collect()
        };
        assert_eq!(seen(Touch::Users(2), "IM.JOIN c ann bob"), Ok(users(&["ann", "bob"])));
        for line in ["IM.CREATE c MEMBERS ann bob", "im.create c mode push members ann bob"] {
            assert_eq!(seen(Touch::Members(2), line), Ok(users(&["ann", "bob"])), "{line}");
        }
        // A value that is spelled like the word is a value.
        let line = "IM.CREATE c MODE MEMBERS MEMBERS ann";
        assert_eq!(seen(Touch::Members(2), line), Ok(users(&["ann"])));
        let keys = seen(Touch::CountedKeys(2), "TL.FANOUT body 2 a:x b:y ID c:z");
        assert_eq!(keys, Ok(vec!["the key 'a:x'".into(), "the key 'b:y'".into()]));
        assert!(seen(Touch::CountedKeys(2), "TL.FANOUT body 3 a:x b:y").is_err());
        assert_eq!(seen(Touch::Key(1), "TL.GET"), Ok(vec![]));
    }
}
