//! Ids of conversations and users, and the names of their timelines.
//!
//! The braces are a hash tag: a timeline and the bare id share a slot, so that a cluster's client
//! can route by the id.

use bytes::Bytes;
use sha2::{Digest as _, Sha256};
use strandline::Sequence;

use super::trouble::{Result, Trouble};

/// The longest id, in bytes.
pub const MAX_ID_BYTES: usize = 200;

/// The store of ledgers.
pub const STATE_STORE: &str = "im.state";

/// The ledger of pulled events, in the store `im.pulled`.
pub const PULLED_LOG: &[u8] = b"all";

/// The mark with the history for which the log of pulled events is complete, in the store of
/// ledgers.
pub const LINES_MARK: &[u8] = b"p";

/// Checks an id and copies it.
pub fn valid(id: &[u8]) -> Result<Bytes> {
    if id.len() > MAX_ID_BYTES {
        return Err(Trouble::TooBig { what: "a conversation or user id", limit: MAX_ID_BYTES });
    }
    if id.is_empty()
        || id.iter().any(|byte| *byte <= 32 || *byte == 127 || matches!(byte, b'{' | b'}'))
    {
        return Err(Trouble::Usage(
            "a conversation or user id has no spaces, control characters or braces, and is not \
             empty",
        ));
    }
    Ok(Bytes::copy_from_slice(id))
}

fn joined(head: &[u8], id: &[u8], tail: &[u8]) -> Vec<u8> {
    [head, id, tail].concat()
}

/// A conversation's timeline, in `messages`.
pub fn conversation(conv: &[u8]) -> Vec<u8> {
    joined(b"c/{", conv, b"}")
}

/// A user's timeline, in `sync`.
pub fn inbox(user: &[u8]) -> Vec<u8> {
    joined(b"u/{", user, b"}")
}

/// A conversation's ledger of members and settings.
pub fn conversation_ledger(conv: &[u8]) -> Vec<u8> {
    joined(b"c/", conv, b"")
}

/// A conversation's ledger of edits and recalls, for the newest of all.
pub fn changes_ledger(conv: &[u8]) -> Vec<u8> {
    joined(b"e/", conv, b"")
}

/// The prefix of the ledgers of a conversation's changed messages. Ids have no braces, so no other
/// conversation shares it.
pub fn changed_messages(conv: &[u8]) -> Vec<u8> {
    joined(b"m/", conv, b"{")
}

/// A message's ledger of edits and recalls, for the newest one.
pub fn message_ledger(conv: &[u8], sequence: Sequence) -> Vec<u8> {
    joined(&changed_messages(conv), sequence.to_string().as_bytes(), b"}")
}

/// The message of a ledger, given the name after the prefix.
pub fn message_of_ledger(rest: &[u8]) -> Option<Sequence> {
    std::str::from_utf8(rest.strip_suffix(b"}")?).ok()?.parse().ok()
}

/// A user's ledger of conversations and marks.
pub fn user_ledger(user: &[u8]) -> Vec<u8> {
    joined(b"u/", user, b"")
}

/// A digest of some byte strings. Nobody can find other strings with the same digest (SHA-256, each
/// string after its length).
pub fn strong_digest<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> [u8; 32] {
    let add =
        |hash: Sha256, part: &[u8]| hash.chain_update(part.len().to_le_bytes()).chain_update(part);
    parts.into_iter().fold(Sha256::new(), add).finalize().into()
}

/// A digest of the sorted list of a conversation's first members.
pub fn founders_digest(founders: &[Bytes]) -> u64 {
    let digest = strong_digest(founders.iter().map(Bytes::as_ref));
    u64::from_le_bytes(digest[..8].try_into().expect("it has 32 bytes"))
}

/// A number that distinguishes users in cursors (FNV-1a). Not for secrets: other ids with the same
/// number can be found.
pub fn digest(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}
