//! The tail of a record: bodies and operations. The caller encodes and checksums it; every reader
//! of the log decodes it. The grammar is in `wal`.

use std::collections::BTreeMap;
use std::ops::Range;

use smallvec::SmallVec;

use super::codec::{MAX_VARINT_BYTES, Reader, put_name, put_varint};
use super::ids::IdHashes;
use super::layout::put;
use crate::ids::{Sequence, StoreId, TimelineRef};
use crate::timeline::Floor;

/// Room for an append to one timeline with a name of a common length, before it takes memory of its
/// own.
const OPERATION_BYTES: usize = 64;

/// The most that an operation takes besides its names: its kind, and numbers.
const NUMBERS_BYTES: usize = 24;

/// The number of bytes of the count of bodies.
const COUNT_BYTES: usize = 4;

/// The kinds of operations in a record's tail.
const APPEND: u8 = 1;
const LISTED: u8 = 2;
const TRIM: u8 = 3;
const REMOVE: u8 = 4;
const EDIT: u8 = 5;
const ID: u8 = 6;
const STAMPED: u8 = 7;
const STAMPED_LISTED: u8 = 8;

/// The number of bytes at the start of a stamped body that receive its origin.
pub const ORIGIN_BYTES: usize = 8;

/// A stamped body as readers see it.
pub fn stamp(body: &[u8], origin: Sequence) -> Vec<u8> {
    let mut stamped = body.to_vec();
    put(&mut stamped, 0..ORIGIN_BYTES, &origin.to_le_bytes());
    stamped
}

/// The part of a record that a caller encodes while it builds a batch. Bodies come first, so that
/// each is copied once.
#[derive(Clone, Debug, Default)]
pub struct TailWriter {
    /// Space for the count, then the bodies. Empty before the first body.
    bodies: Vec<u8>,
    body_count: u32,
    operations: SmallVec<[u8; OPERATION_BYTES]>,
    operation_count: u64,
}

impl TailWriter {
    /// Makes room for an append to one timeline. If it is the only one, the tail needs no other
    /// memory.
    pub fn reserve(&mut self, body_bytes: usize, name_bytes: usize) {
        let operations = self.operations.len() + NUMBERS_BYTES + name_bytes;
        self.bodies.reserve(COUNT_BYTES + MAX_VARINT_BYTES + body_bytes + operations);
    }

    /// Adds a body and returns its byte range in the finished tail.
    pub fn body(&mut self, body: &[u8]) -> Range<usize> {
        self.bodies.reserve(COUNT_BYTES + MAX_VARINT_BYTES + body.len());
        self.make_room_for_count();
        put_varint(&mut self.bodies, body.len() as u64);
        self.bodies.extend_from_slice(body);
        self.body_count += 1;
        self.bodies.len() - body.len()..self.bodies.len()
    }

    /// Starts an append of the body added last to `targets` timelines, which must follow, and, if
    /// it is `listed`, to those of the record's list.
    pub fn append(&mut self, (stamped, listed): (bool, bool), lifetime_ms: u64, targets: usize) {
        self.start(match (stamped, listed) {
            (false, false) => APPEND,
            (false, true) => LISTED,
            (true, false) => STAMPED,
            (true, true) => STAMPED_LISTED,
        });
        self.number(u64::from(self.body_count - 1));
        self.number(lifetime_ms);
        self.number(targets as u64);
    }

    /// Adds a trim: the timeline's new floor.
    pub fn trim(&mut self, timeline: TimelineRef<'_>, floor: Floor) -> Range<usize> {
        self.start(TRIM);
        let name = self.timeline(timeline);
        [floor.lowest, floor.start_ms, floor.until_ms, floor.trimmed_to]
            .into_iter()
            .for_each(|part| self.number(part));
        name
    }

    /// Adds a removal of ranges of sequences.
    pub fn remove(
        &mut self,
        timeline: TimelineRef<'_>,
        ranges: &BTreeMap<Sequence, Sequence>,
    ) -> Range<usize> {
        self.start(REMOVE);
        let name = self.timeline(timeline);
        self.number(ranges.len() as u64);
        for (first, last) in ranges {
            self.number(*first);
            self.number(last - first);
        }
        name
    }

    /// Adds an edit: the body added last replaces the body of an entry.
    pub fn edit(&mut self, timeline: TimelineRef<'_>, sequence: Sequence) -> Range<usize> {
        self.start(EDIT);
        let name = self.timeline(timeline);
        self.number(sequence);
        self.number(u64::from(self.body_count - 1));
        name
    }

    /// Adds the client's id of the batch, in the timeline of its first append. Returns the byte
    /// ranges of the name and of the id.
    pub fn id(
        &mut self,
        timeline: TimelineRef<'_>,
        id: &[u8],
        hashes: IdHashes,
    ) -> (Range<usize>, Range<usize>) {
        self.start(ID);
        let name = self.timeline(timeline);
        self.number(id.len() as u64);
        self.operations.extend_from_slice(id);
        let end = self.operations.len();
        hashes.encode(&mut self.operations);
        (name, end - id.len()..end)
    }

    /// Adds one timeline: a target of the append started last, or the object of a change. Returns
    /// the byte range of its name, counted from [`TailWriter::finish`]'s second value.
    pub fn timeline(&mut self, timeline: TimelineRef<'_>) -> Range<usize> {
        self.number(u64::from(timeline.store.0));
        put_name(&mut self.operations, timeline.name);
        self.operations.len() - timeline.name.len()..self.operations.len()
    }

    /// A body by its byte range.
    pub fn body_at(&self, range: &Range<usize>) -> &[u8] {
        self.bodies.get(range.clone()).unwrap_or_default()
    }

    /// A name by its byte range, before the tail is finished.
    pub fn name_at(&self, range: &Range<u32>) -> &[u8] {
        self.operations.get(range.start as usize..range.end as usize).unwrap_or_default()
    }

    fn start(&mut self, kind: u8) {
        self.operations.push(kind);
        self.operation_count += 1;
    }

    fn number(&mut self, number: u64) {
        put_varint(&mut self.operations, number);
    }

    fn make_room_for_count(&mut self) {
        if self.bodies.is_empty() {
            self.bodies.extend_from_slice(&[0; COUNT_BYTES]);
        }
    }

    /// The number of bytes so far.
    pub fn byte_count(&self) -> usize {
        self.bodies.len() + self.operations.len()
    }

    /// The tail's bytes, and the offset in them that the byte ranges of names count from.
    pub fn finish(mut self) -> (Vec<u8>, usize) {
        self.make_room_for_count();
        put(&mut self.bodies, 0..COUNT_BYTES, &self.body_count.to_le_bytes());
        let mut tail = self.bodies;
        tail.reserve_exact(self.operations.len() + MAX_VARINT_BYTES);
        put_varint(&mut tail, self.operation_count);
        let base = tail.len();
        tail.extend_from_slice(&self.operations);
        // The buffer of many bodies grew by doubling, and a memtable keeps it. As a rule shrinking
        // it costs no copy.
        if tail.capacity() - tail.len() > OPERATION_BYTES.max(tail.len() / 8) {
            tail.shrink_to_fit();
        }
        (tail, base)
    }
}

/// One operation of a decoded tail. Bodies and ids are byte ranges in the tail.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the fields are those of the heading's grammar")]
pub enum Operation<'a, T = Vec<TimelineRef<'a>>> {
    Append { body: Range<usize>, stamped: bool, listed: bool, lifetime_ms: u64, targets: T },
    Trim { timeline: TimelineRef<'a>, floor: Floor },
    Remove { timeline: TimelineRef<'a>, ranges: Vec<(Sequence, Sequence)> },
    Edit { timeline: TimelineRef<'a>, sequence: Sequence, body: Range<usize> },
    Id { timeline: TimelineRef<'a>, id: &'a [u8], hashes: IdHashes },
}

/// The operations of a tail, in which the targets of the record's list are left out; `None` if the
/// bytes are not a tail.
pub fn decode_tail(tail: &[u8]) -> Option<Vec<Operation<'_>>> {
    let mut reader = Reader::new(tail);
    let mut bodies = Vec::new();
    for _ in 0..reader.u32()? {
        let len = reader.length()?;
        let start = tail.len() - reader.rest().len();
        reader.bytes(len)?;
        bodies.push(start..start + len);
    }
    let mut operations = Vec::new();
    for _ in 0..reader.varint()? {
        operations.push(decode_operation(&mut reader, &bodies)?);
    }
    reader.is_empty().then_some(operations)
}

fn decode_operation<'a>(reader: &mut Reader<'a>, bodies: &[Range<usize>]) -> Option<Operation<'a>> {
    Some(match reader.u8()? {
        kind @ (APPEND | LISTED | STAMPED | STAMPED_LISTED) => {
            let body = bodies.get(reader.length()?)?.clone();
            let stamped = matches!(kind, STAMPED | STAMPED_LISTED);
            let listed = matches!(kind, LISTED | STAMPED_LISTED);
            if stamped && body.len() < ORIGIN_BYTES {
                return None;
            }
            let lifetime_ms = reader.varint()?;
            let mut targets = Vec::new();
            for _ in 0..reader.varint()? {
                targets.push(decode_timeline(reader)?);
            }
            Operation::Append { body, stamped, listed, lifetime_ms, targets }
        }
        TRIM => Operation::Trim {
            timeline: decode_timeline(reader)?,
            floor: Floor {
                lowest: reader.varint()?,
                start_ms: reader.varint()?,
                until_ms: reader.varint()?,
                trimmed_to: reader.varint()?,
            },
        },
        REMOVE => {
            let timeline = decode_timeline(reader)?;
            let mut ranges = Vec::new();
            for _ in 0..reader.varint()? {
                let first = reader.varint()?;
                ranges.push((first, first.checked_add(reader.varint()?)?));
            }
            Operation::Remove { timeline, ranges }
        }
        EDIT => Operation::Edit {
            timeline: decode_object(reader)?,
            sequence: reader.varint()?,
            body: bodies.get(reader.length()?)?.clone(),
        },
        ID => Operation::Id {
            timeline: decode_timeline(reader)?,
            id: reader.piece()?,
            hashes: IdHashes::decode(reader)?,
        },
        _ => return None,
    })
}

/// A timeline: its store id and its name. The empty name is none of its names.
pub fn decode_timeline<'a>(reader: &mut Reader<'a>) -> Option<TimelineRef<'a>> {
    decode_object(reader).filter(|timeline| !timeline.name.is_empty())
}

/// What an edit changes: an entry of a timeline or, under the empty name, a shared body.
fn decode_object<'a>(reader: &mut Reader<'a>) -> Option<TimelineRef<'a>> {
    Some(TimelineRef { store: StoreId(reader.varint_u32()?), name: reader.name()? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::BODIES;

    #[test]
    fn only_an_edit_may_have_the_empty_name() {
        let bodies = TimelineRef { store: StoreId(1), name: BODIES };
        let started = || {
            let mut tail = TailWriter::default();
            tail.body(b"body");
            tail
        };
        let mut edit = started();
        edit.edit(bodies, 512);
        assert_eq!(decode_tail(&edit.finish().0).map(|operations| operations.len()), Some(1));
        let mut append = started();
        append.append((false, false), 0, 1);
        append.timeline(bodies);
        let mut trim = started();
        trim.trim(bodies, Floor::default());
        let mut remove = started();
        remove.remove(bodies, &BTreeMap::from([(1, 2)]));
        let mut id = started();
        id.id(bodies, b"an id", IdHashes::default());
        for refused in [append, trim, remove, id] {
            assert_eq!(decode_tail(&refused.finish().0), None);
        }
    }
}
