//! The ids of retries in a segment's index file (P12): sorted by timeline and id, in pages as the
//! timelines are.
//!
//! ```text
//!  id page  := block of slots of ids, sorted
//!  id table := table of id pages; key: the page's first id key; filters over the id keys
//!  id       := id key, body hash: u64, targets hash: u64, time,
//!              sequence count, sequence × count, [start]
//!  id key   := name, length, id bytes
//! ```
//!
//! The start of the id's window is present if it differs from the time. The filters answer nearly
//! all look-ups of new ids without a page read.

use super::codec::{Reader, put_name, put_varint};
use crate::ids::{Sequence, TimeMs};

/// A used id: the request that it belonged to, and the result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdEntry {
    /// A hash of the body.
    pub body_hash: u64,
    /// A hash of the targets.
    pub targets_hash: u64,
    /// When the batch was committed.
    pub time_ms: TimeMs,
    /// When the id's window began.
    pub start_ms: TimeMs,
    /// The sequences that were given.
    pub sequences: Vec<Sequence>,
}

fn put_key(name: &[u8], id: &[u8], out: &mut Vec<u8>) {
    put_name(out, name);
    put_varint(out, id.len() as u64);
    out.extend_from_slice(id);
}

/// The timeline's name and the id, from a slot of a page or a key of the table.
pub fn key(slot: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut reader = Reader::new(slot);
    Some((reader.name()?, reader.piece()?))
}

/// The key that a slot begins with.
pub fn key_prefix(slot: &[u8]) -> Option<&[u8]> {
    let mut reader = Reader::new(slot);
    reader.name()?;
    reader.piece()?;
    slot.get(..slot.len() - reader.rest().len())
}

/// The bytes of a key as the table stores them and filters hash them.
pub fn key_bytes(name: &[u8], id: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(name.len() + id.len() + 11);
    put_key(name, id, &mut bytes);
    bytes
}

impl IdEntry {
    /// Appends the id to a page.
    pub fn encode(&self, name: &[u8], id: &[u8], out: &mut Vec<u8>) {
        put_key(name, id, out);
        out.extend_from_slice(&self.body_hash.to_le_bytes());
        out.extend_from_slice(&self.targets_hash.to_le_bytes());
        put_varint(out, self.time_ms);
        put_varint(out, self.sequences.len() as u64);
        self.sequences.iter().for_each(|sequence| put_varint(out, *sequence));
        if self.start_ms != self.time_ms {
            put_varint(out, self.start_ms);
        }
    }

    /// The id in a page's slot; `None` if the bytes are not an id.
    pub fn decode(slot: &[u8]) -> Option<IdEntry> {
        let mut reader = Reader::new(slot);
        reader.name()?;
        reader.piece()?;
        let mut entry = IdEntry {
            body_hash: reader.u64()?,
            targets_hash: reader.u64()?,
            time_ms: reader.varint()?,
            start_ms: 0,
            sequences: Vec::new(),
        };
        for _ in 0..reader.varint()? {
            entry.sequences.push(reader.varint()?);
        }
        entry.start_ms = if reader.is_empty() { entry.time_ms } else { reader.varint()? };
        reader.is_empty().then_some(entry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_id_reads_back_as_written() {
        for start_ms in [5, 3] {
            let (body_hash, targets_hash, sequences) = (1, u64::MAX, vec![7, 1, 1]);
            let entry = IdEntry { body_hash, targets_hash, time_ms: 5, start_ms, sequences };
            let mut slot = Vec::new();
            entry.encode(b"c/1", b"", &mut slot);
            let read = (key(&slot), IdEntry::decode(&slot));
            assert_eq!(read, (Some((b"c/1".as_slice(), b"".as_slice())), Some(entry)));
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_an_id_or_refused(bytes: Vec<u8>) {
            let _ = (key(&bytes), IdEntry::decode(&bytes));
        }
    }
}
