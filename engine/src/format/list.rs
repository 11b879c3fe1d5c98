//! The list of targets of a fan-out, as a record of the log has it (P3).
//!
//! ```text
//!  list     := count, timeline × count
//!  timeline := store id, name
//! ```
//!
//! Numbers are varints. A record that has a list in full contains these bytes; a later record
//! refers to it by the lsn of the group and the hash of the bytes. The checksum and the hash are
//! computed once, for all records with the list.

use std::ops::Range;

use super::checksum::{Seed, crc, name_hash};
use super::codec::{Reader, put_name, put_varint};
use super::tail::decode_timeline;
use crate::ids::{Lsn, Sequence, TimelineRef};

/// An encoded list.
#[derive(Clone, Debug, Default)]
pub struct EncodedList {
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// The checksum of the bytes.
    pub crc: u32,
    /// The hash by which records refer to it.
    pub hash: u64,
    /// The byte range of each name.
    pub names: Vec<Range<u32>>,
}

impl EncodedList {
    /// Encodes a list.
    pub fn new(targets: &[TimelineRef<'_>]) -> EncodedList {
        let (mut bytes, mut names) = (Vec::new(), Vec::with_capacity(targets.len()));
        put_varint(&mut bytes, targets.len() as u64);
        for target in targets {
            put_varint(&mut bytes, u64::from(target.store.0));
            put_name(&mut bytes, target.name);
            names.push((bytes.len() - target.name.len()) as u32..bytes.len() as u32);
        }
        bytes.shrink_to_fit();
        let (crc, hash) = (crc(Seed::NONE, &bytes), list_hash(&bytes));
        EncodedList { bytes, crc, hash, names }
    }
}

/// The hash by which records refer to the list with these bytes.
pub fn list_hash(bytes: &[u8]) -> u64 {
    name_hash(bytes)
}

/// The timelines of a list; `None` if the bytes are not a list.
pub fn decode_list(bytes: &[u8]) -> Option<Vec<TimelineRef<'_>>> {
    let mut reader = Reader::new(bytes);
    let mut targets = Vec::new();
    for _ in 0..reader.varint()? {
        targets.push(decode_timeline(&mut reader)?);
    }
    reader.is_empty().then_some(targets)
}

/// The list of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordList<'a> {
    /// All of it: its bytes. Later records may refer to it.
    Full(&'a [u8]),
    /// That of an earlier record, by the lsn of its group and the hash of its bytes.
    Earlier(Lsn, u64),
}

/// The list of a record that is written.
#[derive(Clone, Copy, Debug)]
pub enum NewList<'a> {
    /// All of it: its bytes and their checksum.
    Full(&'a [u8], u32),
    /// That of an earlier record.
    Earlier {
        /// The lsn of that record's group.
        at: Lsn,
        /// The hash of the list's bytes.
        hash: u64,
        /// The number of the record's sequences before those of the list.
        after: usize,
        /// The sequences of the earlier record, from which those of this one are counted.
        base: &'a [Sequence],
    },
}
