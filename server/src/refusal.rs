//! Error replies: a first word for programs, then a sentence for people.
//!
//! Every error of the engine is mapped to its word here and nowhere else.

use std::borrow::Cow;
use std::fmt;

use strandline::Error;

use crate::messaging::Trouble;

/// The word for a failed write or fsync. The process must be restarted after it.
pub const POISONED: &str = "POISONED";

/// The word for a store that does not exist, or was dropped.
pub const NO_STORE: &str = "NOSTORE";

/// The reason why a command was not done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The word, which programs can test.
    pub word: &'static str,
    /// The sentence, for people.
    pub sentence: Cow<'static, str>,
}

impl Refusal {
    /// A refusal.
    pub fn new(word: &'static str, sentence: impl Into<Cow<'static, str>>) -> Refusal {
        Refusal { word, sentence: sentence.into() }
    }

    /// `ERR`: the command was used incorrectly.
    pub fn usage(sentence: impl Into<Cow<'static, str>>) -> Refusal {
        Refusal::new("ERR", sentence)
    }

    /// `ERR syntax error`.
    pub fn syntax() -> Refusal {
        Refusal::usage("syntax error")
    }

    /// `TOOBIG`: the body, key or batch is over a limit.
    pub fn too_big(what: &str, limit: usize) -> Refusal {
        Refusal::new("TOOBIG", format!("{what} has at most {limit} bytes"))
    }

    /// `NOSTORE`: there is no store of that name.
    pub fn no_store(name: &[u8]) -> Refusal {
        let advice = if is_store_name(name) {
            ": TL.STORE CREATE makes one"
        } else {
            ", and none can have this name"
        };
        Refusal::new(NO_STORE, format!("there is no store '{}'{advice}", name.escape_ascii()))
    }
}

/// Whether a store may have this name on the wire. `im` would be ambiguous with the channels of
/// messaging.
pub fn is_store_name(name: &[u8]) -> bool {
    let allowed = |byte: &u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-');
    (1..=32).contains(&name.len()) && name.iter().all(allowed) && name != b"im"
}

impl fmt::Display for Refusal {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} {}", self.word, self.sentence)
    }
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Refusal {
        let word = match &error {
            Error::NoStore { name } => return Refusal::no_store(name.as_bytes()),
            Error::StoreDropped => NO_STORE,
            Error::TooLarge { .. } | Error::TooManyOperations { .. } => "TOOBIG",
            Error::StoreExists { .. } | Error::IdConflict { .. } => "CONFLICT",
            Error::LastSequence { .. } => "LASTSEQ",
            Error::SequenceOrder { .. } => "SEQORDER",
            Error::SequenceExhausted | Error::TooManyStores { .. } => "LIMIT",
            Error::DiskFull { .. } => "FULL",
            Error::Poisoned { .. } => POISONED,
            Error::Corrupt { .. } => "CORRUPT",
            _ => "ERR",
        };
        Refusal::new(word, error.to_string())
    }
}

impl From<Trouble> for Refusal {
    fn from(trouble: Trouble) -> Refusal {
        let word = match &trouble {
            Trouble::Engine(error) => return error.clone().into(),
            Trouble::Usage(_) => "ERR",
            Trouble::TooBig { .. } => "TOOBIG",
            Trouble::NotFound | Trouble::NoMessage => "NOTFOUND",
            Trouble::NoPermission | Trouble::NotTheSender | Trouble::TooLate { .. } => "NOPERM",
            Trouble::OtherSettings => "CONFLICT",
            Trouble::TooManyMembers { .. } => "LIMIT",
            Trouble::Ledger { .. } | Trouble::DamagedLedger { .. } | Trouble::NoLedger { .. } => {
                "CORRUPT"
            }
        };
        Refusal::new(word, trouble.to_string())
    }
}

#[cfg(test)]
mod tests {
    use strandline::IoOperation;

    use super::*;

    #[test]
    fn creating_a_store_is_advised_only_if_it_is_possible() {
        let advises = |name: &[u8]| Refusal::no_store(name).sentence.contains("CREATE");
        assert!(advises(b"inbox-2"));
        assert!(!advises(b"im") && !advises(b"") && !advises(b"Inbox") && !advises(&[b'x'; 33]));
    }

    #[test]
    fn each_error_of_the_engine_has_its_word() {
        let word = |error: Error| Refusal::from(error).word;
        assert_eq!(word(Error::invalid("x")), "ERR");
        assert_eq!(word(Error::TooLarge { what: "the body", actual: 2, limit: 1 }), "TOOBIG");
        assert_eq!(word(Error::TooManyOperations { actual: 2, limit: 1 }), "TOOBIG");
        assert_eq!(word(Error::NoStore { name: "x".into() }), "NOSTORE");
        assert_eq!(word(Error::StoreDropped), "NOSTORE");
        assert_eq!(word(Error::TooManyStores { limit: 7 }), "LIMIT");
        assert_eq!(word(Error::StoreExists { name: "x".into(), ttl: None }), "CONFLICT");
        assert_eq!(word(Error::IdConflict { sequence: 1 }), "CONFLICT");
        let (store, timeline) = ("messages".to_string(), b"c".to_vec());
        let expected = Error::LastSequence { store, timeline, last: 1 };
        assert_eq!(expected.to_string(), "the last sequence of messages:c is 1");
        assert_eq!(word(expected), "LASTSEQ");
        assert_eq!(word(Error::SequenceOrder { last: 1 }), "SEQORDER");
        assert_eq!(word(Error::SequenceExhausted), "LIMIT");
        assert_eq!(word(Error::DiskFull { path: "x".into() }), "FULL");
        assert_eq!(
            word(Error::TooManyFiles { operation: IoOperation::Open, path: "x".into() }),
            "ERR"
        );
        assert_eq!(word(Error::Poisoned { why: "x".into() }), "POISONED");
        assert_eq!(word(Error::corrupt("x", 0, "y")), "CORRUPT");
        assert_eq!(word(Error::Closed { what: "closing" }), "ERR");
        assert_eq!(word(Error::ReadOnly), "ERR");
    }
}
