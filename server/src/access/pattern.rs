//! What a user may touch: patterns of keys, and of channels.
//!
//! Everything that a command names is matched as a key, so one list of patterns is enough:
//!
//! | in the command | matched as |
//! |---|---|
//! | a key, a prefix of keys | itself |
//! | a conversation `c` | its timeline, `messages:c/{c}` |
//! | a user `u` | its timeline, `sync:u/{u}` |
//!
//! A pattern without a colon is one of ids: `~t1.*` stands for the timelines of the conversations
//! `t1.*` and of these users' own conversations, `@t1.*`; and for the users `t1.*` in commands that
//! name a user. Their timelines as keys need a pattern with a colon.
//!
//! A channel is matched as what it names, a key or a user, or by the patterns of channels.

use crate::glob::matches;

/// The longest key with an id in it: the longest id has 200 bytes, and the rest a dozen.
const MOST_BYTES: usize = 256;

const CONVERSATION: &[u8] = b"messages:c/{";
const INBOX: &[u8] = b"sync:u/{";
const CHANNEL: &[u8] = b"im:{";
const END: &[u8] = b"}";

/// A pattern of keys.
#[derive(Clone, Debug, PartialEq, Eq)]
struct KeyPattern {
    /// As it was given.
    text: String,
    /// What keys are compared with.
    globs: Vec<Vec<u8>>,
    /// What the timelines of users are compared with in commands that name a user: the timeline has
    /// copies from conversations that the pattern may not match, so it is no key of the pattern.
    inbox: Option<Vec<u8>>,
}

impl KeyPattern {
    fn new(text: &str) -> KeyPattern {
        let raw = text.as_bytes();
        let is_of_ids = !text.contains(':') && text != "*";
        let globs = if is_of_ids {
            let own = [CONVERSATION, b"@", raw, END].concat();
            vec![[CONVERSATION, raw, END].concat(), own]
        } else {
            vec![raw.to_vec()]
        };
        let inbox = is_of_ids.then(|| [INBOX, raw, END].concat());
        KeyPattern { text: text.to_owned(), globs, inbox }
    }
}

/// The patterns of a user.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Patterns {
    keys: Vec<KeyPattern>,
    channels: Vec<String>,
}

impl Patterns {
    /// Adds a pattern of keys.
    pub fn add_key(&mut self, text: &str) {
        if text == "*" {
            self.keys.clear();
        }
        if !self.is_all() && !self.keys.iter().any(|known| known.text == text) {
            self.keys.push(KeyPattern::new(text));
        }
    }

    /// Adds a pattern of channels.
    pub fn add_channel(&mut self, text: &str) {
        if !self.channels.iter().any(|known| known == text) {
            self.channels.push(text.to_owned());
        }
    }

    /// Removes the patterns of keys.
    pub fn reset_keys(&mut self) {
        self.keys.clear();
    }

    /// Removes the patterns of channels.
    pub fn reset_channels(&mut self) {
        self.channels.clear();
    }

    /// Whether every key matches.
    pub fn is_all(&self) -> bool {
        self.keys.first().is_some_and(|pattern| pattern.text == "*")
    }

    /// Whether a key, or a prefix of keys, matches.
    pub fn has_key(&self, key: &[u8]) -> bool {
        self.is_all()
            || self.keys.iter().flat_map(|pattern| &pattern.globs).any(|glob| matches(glob, key))
    }

    /// Whether a conversation matches.
    pub fn has_conversation(&self, id: &[u8]) -> bool {
        self.has_id(CONVERSATION, id, false)
    }

    /// Whether a user matches.
    pub fn has_user(&self, id: &[u8]) -> bool {
        self.has_id(INBOX, id, true)
    }

    /// An id that is too long matches nothing: no conversation and no user has it.
    fn has_id(&self, head: &[u8], id: &[u8], is_user: bool) -> bool {
        if self.is_all() {
            return true;
        }
        let mut key = [0; MOST_BYTES];
        let mut length = 0;
        for part in [head, id, END] {
            let Some(room) = key.get_mut(length..length + part.len()) else { return false };
            room.copy_from_slice(part);
            length += part.len();
        }
        let key = &key[..length];
        let mut inboxes = self.keys.iter().filter_map(|pattern| pattern.inbox.as_deref());
        self.has_key(key) || (is_user && inboxes.any(|glob| matches(glob, key)))
    }

    /// Whether every key of a store matches one pattern.
    pub fn has_store(&self, name: &[u8]) -> bool {
        let all = [name, b":"].concat();
        let covers = |glob: &Vec<u8>| {
            let head = glob.strip_suffix(b"*");
            head.is_some_and(|head| {
                !head.iter().any(|byte| b"*?[\\".contains(byte)) && all.starts_with(head)
            })
        };
        self.is_all() || self.keys.iter().flat_map(|pattern| &pattern.globs).any(covers)
    }

    /// Whether a channel matches.
    pub fn has_channel(&self, channel: &[u8]) -> bool {
        if self.channels.iter().any(|pattern| matches(pattern.as_bytes(), channel)) {
            return true;
        }
        match user_of_channel(channel) {
            Some(user) => self.has_user(user),
            None => self.has_key(channel),
        }
    }

    /// The patterns of keys as rules.
    pub fn key_rules(&self) -> Vec<String> {
        self.keys.iter().map(|pattern| format!("~{}", pattern.text)).collect()
    }

    /// The patterns of channels as rules.
    pub fn channel_rules(&self) -> Vec<String> {
        self.channels.iter().map(|pattern| format!("&{pattern}")).collect()
    }
}

/// The user of the channel `im:{<user>}`.
pub fn user_of_channel(channel: &[u8]) -> Option<&[u8]> {
    channel.strip_prefix(CHANNEL)?.strip_suffix(END)
}

/// Whether a key is the timeline of a conversation or of a user, in which events are framed.
pub fn is_event_timeline(key: &[u8]) -> bool {
    [CONVERSATION, INBOX].iter().any(|head| key.starts_with(head)) && key.ends_with(END)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn patterns(texts: &[&str]) -> Patterns {
        let mut patterns = Patterns::default();
        texts.iter().for_each(|text| patterns.add_key(text));
        patterns
    }

    #[test]
    fn a_pattern_of_keys_matches_keys_and_no_ids() {
        let own = patterns(&["messages:t1.*"]);
        assert!(own.has_key(b"messages:t1.a") && own.has_key(b"messages:t1."));
        for other in ["messages:t10.a", "messages:", "sync:t1.a", "messages:c/{t1.a}", ""] {
            assert!(!own.has_key(other.as_bytes()), "{other}");
        }
        assert!(!own.has_conversation(b"t1.a") && !own.has_user(b"t1.a"));
        assert!(own.has_channel(b"messages:t1.a") && !own.has_channel(b"messages:t2.a"));
    }

    #[test]
    fn a_pattern_of_ids_matches_ids_and_their_timelines() {
        let own = patterns(&["t1.*"]);
        assert!(own.has_conversation(b"t1.room") && own.has_user(b"t1.ann"));
        assert!(own.has_conversation(b"@t1.ann") && own.has_channel(b"im:{t1.ann}"));
        assert!(own.has_key(b"messages:c/{t1.room}"));
        assert!(!own.has_key(b"sync:u/{t1.ann}"), "it has copies from other conversations");
        assert!(!own.has_conversation(b"t2.room") && !own.has_user(b"xt1.ann"));
        assert!(!own.has_key(b"messages:t1.a") && !own.has_channel(b"im:{t2.ann}"));
        assert!(!own.has_user(&[b'x'; 300]), "no user has such an id");
        assert!(!patterns(&["t1.*", "x"]).is_all() && patterns(&["t1.*", "*"]).is_all());
    }

    #[test]
    fn conversations_and_users_may_have_patterns_of_their_own() {
        let own = patterns(&["messages:c/{t1.*"]);
        assert!(own.has_conversation(b"t1.room") && !own.has_user(b"t1.ann"));
    }

    #[test]
    fn a_channel_may_be_given_alone() {
        let mut own = patterns(&[]);
        own.add_channel("im:{t1.*");
        assert!(own.has_channel(b"im:{t1.ann}") && !own.has_user(b"t1.ann"));
    }

    #[test]
    fn event_timelines_are_those_with_braces() {
        assert!(is_event_timeline(b"messages:c/{x}") && is_event_timeline(b"sync:u/{x}"));
        for other in ["messages:c/x", "sync:c/{x}", "messages:c/{x}y", "messages:x"] {
            assert!(!is_event_timeline(other.as_bytes()), "{other}");
        }
    }
}
