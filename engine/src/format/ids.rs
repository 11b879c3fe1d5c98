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

use std::sync::Arc;

use super::codec::{Put, Reader, put_name, put_varint};
use crate::ids::{Sequence, TimeMs};

/// The hashes of a batch with an id: a batch with the same id and other hashes is another batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IdHashes {
    /// A hash of its bodies.
    pub bodies: u64,
    /// A hash of its targets and changes.
    pub targets: u64,
}

/// The result of a batch with a client's id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdRecord {
    /// The hashes of the batch.
    pub hashes: IdHashes,
    /// When the batch was committed.
    pub time_ms: TimeMs,
    /// When the id's window began.
    pub start_ms: TimeMs,
    /// The sequences that were given.
    pub sequences: Arc<[Sequence]>,
}

impl IdHashes {
    /// Appends the hashes to a slot or a record.
    pub fn encode(&self, out: &mut impl Put) {
        out.put(&self.bodies.to_le_bytes());
        out.put(&self.targets.to_le_bytes());
    }

    /// The hashes that a reader stands at; `None` if there are too few bytes.
    pub fn decode(reader: &mut Reader<'_>) -> Option<IdHashes> {
        Some(IdHashes { bodies: reader.u64()?, targets: reader.u64()? })
    }
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

impl IdRecord {
    /// Appends the id to a page.
    pub fn encode(&self, name: &[u8], id: &[u8], out: &mut Vec<u8>) {
        put_key(name, id, out);
        self.hashes.encode(out);
        put_varint(out, self.time_ms);
        put_varint(out, self.sequences.len() as u64);
        self.sequences.iter().for_each(|sequence| put_varint(out, *sequence));
        if self.start_ms != self.time_ms {
            put_varint(out, self.start_ms);
        }
    }

    /// The id in a page's slot; `None` if the bytes are not an id.
    pub fn decode(slot: &[u8]) -> Option<IdRecord> {
        let mut reader = Reader::new(slot);
        reader.name()?;
        reader.piece()?;
        let hashes = IdHashes::decode(&mut reader)?;
        let time_ms = reader.varint()?;
        let count = reader.varint()?;
        let sequences = (0..count).map(|_| reader.varint()).collect::<Option<_>>()?;
        let start_ms = if reader.is_empty() { time_ms } else { reader.varint()? };
        reader.is_empty().then_some(IdRecord { hashes, time_ms, start_ms, sequences })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_id_reads_back_as_written() {
        for start_ms in [5, 3] {
            let hashes = IdHashes { bodies: 1, targets: u64::MAX };
            let sequences = [7, 1, 1].into();
            let entry = IdRecord { hashes, time_ms: 5, start_ms, sequences };
            let mut slot = Vec::new();
            entry.encode(b"c/1", b"", &mut slot);
            let read = (key(&slot), IdRecord::decode(&slot));
            assert_eq!(read, (Some((b"c/1".as_slice(), b"".as_slice())), Some(entry)));
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_an_id_or_refused(bytes: Vec<u8>) {
            let _ = (key(&bytes), IdRecord::decode(&bytes));
        }
    }
}
