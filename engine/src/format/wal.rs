//! The format of the log: groups of records (P1, P3, P5).
//!
//! ```text
//!  wal file   := header, zeros up to 512, group, group, …, zeros
//!  group      := group header, record × n                             ; one write, one sync
//!  record     := record header, sequences, list, tail, zeros up to 8  ; one batch
//!  tail       := bodies, operations                  ; encoded and checksummed by the caller
//!  bodies     := count: u32, (length, bytes) × count
//!  operations := count, operation × count
//!  operation  := 1, body index, lifetime in ms (0: none),             ; append
//!                   target count, timeline × targets
//!              | 7, as 1: of a body that begins with its origin,      ; stamped append
//!                   eight zeros
//!              | 2, as 1; or 8, as 7: also to the timelines of the    ; append to the list
//!                   record's list, which follow the named targets
//!              | 3, timeline, lowest, its start, its expiry,          ; trim
//!                   trimmed to
//!              | 4, timeline, range count,                            ; remove
//!                   (first, last − first) × ranges
//!              | 5, timeline, sequence, body index                    ; edit
//!              | 6, timeline, length, id bytes,                       ; id of the batch's
//!                   body hash: u64, targets hash: u64                 ; first append
//!  timeline   := store id, name
//! ```
//!
//! Numbers without a type, outside the two headers, are varints. A group is valid if and only if
//! its header's checksum matches, its lsn is its position, its records fill its payload exactly,
//! all checksums of each record match, and no record has both flags or refers to a group that is
//! not before its own.
//!
//! The sequences of a record are, in this order:
//! 1. the sequence of each target of each append, in the order of the operations;
//! 2. for each trim, removal and edit, the highest sequence that its timeline was given so far,
//!    because a damaged segment may hide it;
//! 3. with flag 2, the time at which lifetimes and id windows of the batch began;
//! 4. with flag 4, the length of the list, and its checksum: u32;
//! 5. with flag 8, the distance from the group with the list to this group in sectors, and the hash
//!    of the list: u64. The list is that of the first record with this hash in that group, and the
//!    sequences of its targets are counted from the sequences of that record.
//!
//! A record has flag 4 or flag 8 if and only if one of its appends is to the list. With flag 4 the
//! list is in the record (`list`). The group that a reference names is at or above the
//! checkpoint, so the log from any checkpoint explains itself.
//!
//! An origin is the sequence of the batch's first append, which is among the sequences. Whoever
//! applies the record writes it over the eight zeros, little-endian.
//!
//! Every group starts at a multiple of 512, the first one at or after the end of the group before
//! it. So a sector that holds durable bytes is never written again, and a torn write cannot damage
//! them; and the start of the next group is always known, so that the loss of a group between two
//! others is noticed. Zeros are never a valid group.

use super::checksum::{Seed, crc, crc_of_two};
use super::codec::{Reader, put_varint};
use super::header::EngineId;
use super::layout::{get_u32, get_u64, layout, put};
use super::list::{NewList, RecordList};
pub use super::tail::{ORIGIN_BYTES, Operation, TailWriter, decode_tail, stamp};
use crate::ids::{Lsn, Sequence, TimeMs};

/// The alignment of groups in bytes.
pub const SECTOR_BYTES: u64 = 512;

/// The position of the first group in a file.
pub const WAL_HEADER_BYTES: u64 = SECTOR_BYTES;

const GROUP_MAGIC: u32 = u32::from_le_bytes(*b"SLgr");

/// The number of bytes of a group's buffer that are kept for the next group.
const KEPT_BYTES: usize = 4 * 1024 * 1024;

layout! {
    /// The byte ranges of a group header's fields.
    group_header {
        MAGIC: 4, "`SLgr`";
        CRC: 4, "over the rest of this header; seed: engine id, lsn";
        LSN: 8, "lsn of the start of this group";
        DURABLE: 8, "everything below this lsn was durable before this group was written";
        PAYLOAD_BYTES: 4, "length of the records after this header, a multiple of 8";
        RECORDS: 4, "number of records";
    }
}

layout! {
    /// The byte ranges of a record header's fields.
    record_header {
        CRC: 4, "over the rest of this header and the sequences; seed: engine id, lsn of the group";
        TAIL_CRC: 4, "over the tail; seed: none";
        TIME: 8, "commit time, Unix ms";
        TAIL_BYTES: 4, "length of the tail";
        SEQUENCE_BYTES: 4, "length of the sequences";
        SEQUENCES: 4, "number of sequences";
        FLAGS: 4, "1: the sequence of the first append was chosen by the caller, 2: a start \
                   follows the sequences, 4: the record has a list, 8: it refers to one";
    }
}

/// The flags of a record.
const CHOSEN: u32 = 1;
const OWN_START: u32 = 2;
const LIST: u32 = 4;
const EARLIER_LIST: u32 = 8;

/// The start of the group that follows a group with this end.
pub fn sector_up(lsn: Lsn) -> Lsn {
    Lsn(lsn.0.next_multiple_of(SECTOR_BYTES))
}

/// The number of sequences that operations need: those of their appends, and those of the timelines
/// of their changes.
pub fn count_sequences(operations: &[Operation<'_>]) -> (usize, usize) {
    let (mut appends, mut changes) = (0, 0);
    for operation in operations {
        match operation {
            Operation::Append { targets, .. } => appends += targets.len(),
            Operation::Trim { .. } | Operation::Remove { .. } | Operation::Edit { .. } => {
                changes += 1;
            }
            Operation::Id { .. } => {}
        }
    }
    (appends, changes)
}

/// A record that is written.
#[derive(Clone, Copy, Debug)]
pub struct NewRecord<'a> {
    /// Its commit time.
    pub time_ms: TimeMs,
    /// The time at which lifetimes and id windows of the batch began.
    pub start_ms: TimeMs,
    /// The sequences of its appends and of the timelines of its changes.
    pub sequences: &'a [Sequence],
    /// Whether the caller chose the first sequence.
    pub chosen: bool,
    /// Its list.
    pub list: Option<NewList<'a>>,
    /// Its tail.
    pub tail: &'a [u8],
    /// The checksum of the tail.
    pub tail_crc: u32,
}

/// A group under construction: space for its header, then records.
#[derive(Debug)]
pub struct GroupWriter {
    engine: EngineId,
    bytes: Vec<u8>,
    records: u32,
    lsn: Lsn,
}

impl GroupWriter {
    /// An empty group. Its buffer is reused for the next group.
    pub fn new(engine: EngineId) -> GroupWriter {
        GroupWriter { engine, bytes: Vec::new(), records: 0, lsn: Lsn(0) }
    }

    /// Starts a new group, whose position will be `lsn`.
    pub fn start(&mut self, lsn: Lsn) {
        self.bytes.clear();
        // One very large group must not keep its memory for ever.
        self.bytes.shrink_to(KEPT_BYTES);
        self.bytes.resize(group_header::BYTES, 0);
        self.records = 0;
        self.lsn = lsn;
    }

    /// The number of bytes so far.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether it holds no record.
    pub fn is_empty(&self) -> bool {
        self.records == 0
    }

    /// Adds a record. The file's heading describes its sequences.
    pub fn record(&mut self, record: &NewRecord<'_>) {
        let NewRecord { time_ms, start_ms, sequences, chosen, list, tail, tail_crc } = *record;
        let start = self.bytes.len();
        self.bytes.resize(start + record_header::BYTES, 0);
        let (after, base) = match list {
            Some(NewList::Earlier { after, base, .. }) => (after, base),
            _ => (0, &[][..]),
        };
        let (before, rest) = sequences.split_at(after);
        let (listed, rest) = rest.split_at(base.len());
        before.iter().for_each(|sequence| put_varint(&mut self.bytes, *sequence));
        for (sequence, base) in listed.iter().zip(base) {
            put_varint(&mut self.bytes, sequence - base);
        }
        rest.iter().for_each(|sequence| put_varint(&mut self.bytes, *sequence));
        let own_start = start_ms != time_ms;
        if own_start {
            put_varint(&mut self.bytes, start_ms);
        }
        let mut flags = if chosen { CHOSEN } else { 0 } | if own_start { OWN_START } else { 0 };
        let mut list_bytes: &[u8] = &[];
        match list {
            Some(NewList::Full(bytes, crc)) => {
                put_varint(&mut self.bytes, bytes.len() as u64);
                self.bytes.extend_from_slice(&crc.to_le_bytes());
                flags |= LIST;
                list_bytes = bytes;
            }
            Some(NewList::Earlier { at, hash, .. }) => {
                put_varint(&mut self.bytes, (self.lsn.0 - at.0) / SECTOR_BYTES);
                self.bytes.extend_from_slice(&hash.to_le_bytes());
                flags |= EARLIER_LIST;
            }
            None => {}
        }
        let sequence_bytes = self.bytes.len() - start - record_header::BYTES;
        let seed = Seed::new(self.engine, self.lsn.0);
        let header = self.bytes.get_mut(start..).expect("the record was just started");
        put(header, record_header::TAIL_CRC, &tail_crc.to_le_bytes());
        put(header, record_header::TIME, &time_ms.to_le_bytes());
        put(header, record_header::TAIL_BYTES, &(tail.len() as u32).to_le_bytes());
        put(header, record_header::SEQUENCE_BYTES, &(sequence_bytes as u32).to_le_bytes());
        put(header, record_header::SEQUENCES, &(sequences.len() as u32).to_le_bytes());
        put(header, record_header::FLAGS, &flags.to_le_bytes());
        let sum = crc(seed, header.get(record_header::CRC.end..).unwrap_or_default());
        put(header, record_header::CRC, &sum.to_le_bytes());
        self.bytes.extend_from_slice(list_bytes);
        self.bytes.extend_from_slice(tail);
        self.bytes.resize(self.bytes.len().next_multiple_of(8), 0);
        self.records += 1;
    }

    /// The group's bytes. `durable` is the lsn below which everything is durable.
    pub fn finish(&mut self, durable: Lsn) -> &[u8] {
        let payload = u32::try_from(self.bytes.len() - group_header::BYTES)
            .expect("the queue is bounded far below 4 GiB");
        put(&mut self.bytes, group_header::MAGIC, &GROUP_MAGIC.to_le_bytes());
        put(&mut self.bytes, group_header::LSN, &self.lsn.0.to_le_bytes());
        put(&mut self.bytes, group_header::DURABLE, &durable.0.to_le_bytes());
        put(&mut self.bytes, group_header::PAYLOAD_BYTES, &payload.to_le_bytes());
        put(&mut self.bytes, group_header::RECORDS, &self.records.to_le_bytes());
        let covered =
            self.bytes.get(group_header::CRC.end..group_header::BYTES).unwrap_or_default();
        let sum = crc(Seed::new(self.engine, self.lsn.0), covered);
        put(&mut self.bytes, group_header::CRC, &sum.to_le_bytes());
        &self.bytes
    }
}

/// A decoded group header: it can be trusted even if the records after it cannot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupHeader {
    /// Everything below this lsn was durable before the group was written.
    pub durable: Lsn,
    /// The number of bytes of records.
    pub payload_bytes: usize,
    /// The number of records.
    pub records: u32,
}

impl GroupHeader {
    /// The header at the start of `bytes`, whose position is `lsn`; `None` if there is none.
    pub fn decode(bytes: &[u8], engine: EngineId, lsn: Lsn) -> Option<GroupHeader> {
        if !GroupHeader::is_begun(bytes, lsn) {
            return None;
        }
        let covered = bytes.get(group_header::CRC.end..group_header::BYTES)?;
        if crc(Seed::new(engine, lsn.0), covered) != get_u32(bytes, group_header::CRC)? {
            return None;
        }
        Some(GroupHeader {
            durable: Lsn(get_u64(bytes, group_header::DURABLE)?),
            payload_bytes: get_u32(bytes, group_header::PAYLOAD_BYTES)? as usize,
            records: get_u32(bytes, group_header::RECORDS)?,
        })
    }

    /// Whether these may be the first bytes of a group whose position is `lsn`.
    pub fn is_begun(bytes: &[u8], lsn: Lsn) -> bool {
        get_u32(bytes, group_header::MAGIC) == Some(GROUP_MAGIC)
            && get_u64(bytes, group_header::LSN) == Some(lsn.0)
    }

    /// The total length of the group.
    pub fn group_bytes(&self) -> u64 {
        (group_header::BYTES + self.payload_bytes) as u64
    }
}

/// One decoded record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// Its commit time.
    pub time_ms: TimeMs,
    /// The time at which lifetimes and id windows of the batch began.
    pub start_ms: TimeMs,
    /// Whether the caller chose the first sequence, so that sequences before it may be skipped.
    pub chosen: bool,
    /// The sequences that its appends were given, and those of its changes. If it refers to a list,
    /// those of the list's targets are counted from the sequences of the record with the list.
    pub sequences: Vec<Sequence>,
    /// Its list.
    pub list: Option<RecordList<'a>>,
    /// Its tail, for [`decode_tail`].
    pub tail: &'a [u8],
}

/// The records of a group, whose payload must be all of `payload`; `None` if any check fails.
pub fn decode_records(
    payload: &[u8],
    count: u32,
    engine: EngineId,
    lsn: Lsn,
) -> Option<Vec<Record<'_>>> {
    let seed = Seed::new(engine, lsn.0);
    let mut rest = payload;
    let mut records = Vec::new();
    for _ in 0..count {
        let header = rest.get(..record_header::BYTES)?;
        let sequence_bytes = get_u32(header, record_header::SEQUENCE_BYTES)? as usize;
        let tail_bytes = get_u32(header, record_header::TAIL_BYTES)? as usize;
        let list_start = record_header::BYTES + sequence_bytes;
        let sequences = rest.get(record_header::BYTES..list_start)?;
        let sum = crc_of_two(seed, header.get(record_header::CRC.end..)?, sequences);
        if sum != get_u32(header, record_header::CRC)? {
            return None;
        }
        let (time_ms, flags) =
            (get_u64(header, record_header::TIME)?, get_u32(header, record_header::FLAGS)?);
        let mut numbers = Reader::new(sequences);
        let sequences = decode_sequences(&mut numbers, get_u32(header, record_header::SEQUENCES)?)?;
        let start_ms = if flags & OWN_START == 0 { time_ms } else { numbers.varint()? };
        let list = match flags & (LIST | EARLIER_LIST) {
            0 => None,
            kind => Some(decode_record_list(&mut numbers, kind, rest.get(list_start..)?, lsn)?),
        };
        if !numbers.is_empty() {
            return None;
        }
        let list_bytes = if let Some(RecordList::Full(bytes)) = list { bytes.len() } else { 0 };
        let tail_start = list_start + list_bytes;
        let tail = rest.get(tail_start..tail_start + tail_bytes)?;
        if crc(Seed::NONE, tail) != get_u32(header, record_header::TAIL_CRC)? {
            return None;
        }
        let chosen = flags & CHOSEN != 0;
        records.push(Record { time_ms, start_ms, chosen, sequences, list, tail });
        rest = rest.get((tail_start + tail_bytes).next_multiple_of(8)..)?;
    }
    rest.is_empty().then_some(records)
}

/// The list of a record in the group at `lsn`, or its reference to one. `rest`: the bytes after
/// the sequences.
fn decode_record_list<'a>(
    numbers: &mut Reader<'_>,
    kind: u32,
    rest: &'a [u8],
    lsn: Lsn,
) -> Option<RecordList<'a>> {
    match kind {
        LIST => {
            let bytes = rest.get(..numbers.length()?)?;
            (crc(Seed::NONE, bytes) == numbers.u32()?).then_some(RecordList::Full(bytes))
        }
        EARLIER_LIST => {
            let distance = numbers.varint()?.checked_mul(SECTOR_BYTES)?;
            let at = Lsn(lsn.0.checked_sub(distance).filter(|at| *at < lsn.0)?);
            Some(RecordList::Earlier(at, numbers.u64()?))
        }
        _ => None,
    }
}

fn decode_sequences(reader: &mut Reader<'_>, count: u32) -> Option<Vec<Sequence>> {
    // A sequence takes at least one byte: the count cannot reserve more than the bytes justify.
    let mut sequences = Vec::with_capacity(reader.rest().len().min(count as usize));
    for _ in 0..count {
        sequences.push(reader.varint()?);
    }
    Some(sequences)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::ids::IdHashes;
    use crate::ids::{StoreId, TimelineRef};
    use crate::timeline::Floor;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    const ENGINE: EngineId = EngineId([9; 16]);

    const TIMELINE: TimelineRef<'_> = TimelineRef { store: StoreId(1), name: b"c/1" };

    fn tail() -> Vec<u8> {
        let mut writer = TailWriter::default();
        writer.body(b"hello");
        writer.append((false, false), 0, 2);
        writer.timeline(TIMELINE);
        writer.timeline(TimelineRef { store: StoreId(2), name: b"u/2" });
        writer.finish().0
    }

    #[test]
    fn operations_read_back_as_written() {
        let floor = Floor { lowest: 7, start_ms: 8, until_ms: 0, trimmed_to: 6 };
        let mut writer = TailWriter::default();
        let body = writer.body(b"new body");
        writer.trim(TIMELINE, floor);
        writer.remove(TIMELINE, &BTreeMap::from([(3, 5), (9, 9)]));
        writer.edit(TIMELINE, 11);
        let hashes = IdHashes { bodies: 1, targets: u64::MAX };
        writer.id(TIMELINE, b"an id", hashes);
        let (tail, _) = writer.finish();
        assert_eq!(
            decode_tail(&tail).expect("a tail"),
            [
                Operation::Trim { timeline: TIMELINE, floor },
                Operation::Remove { timeline: TIMELINE, ranges: vec![(3, 5), (9, 9)] },
                Operation::Edit { timeline: TIMELINE, sequence: 11, body },
                Operation::Id { timeline: TIMELINE, id: b"an id", hashes },
            ]
        );
    }

    fn group(lsn: Lsn) -> Vec<u8> {
        let mut group = GroupWriter::new(ENGINE);
        group.start(lsn);
        for time in 1..4 {
            group.record(&NewRecord {
                time_ms: time,
                start_ms: time.max(2),
                sequences: &[time, 300],
                chosen: false,
                list: None,
                tail: &tail(),
                tail_crc: crc(Seed::NONE, &tail()),
            });
        }
        group.finish(Lsn(100)).to_vec()
    }

    fn decode(bytes: &[u8], lsn: Lsn) -> Option<Vec<(TimeMs, TimeMs, Vec<Sequence>)>> {
        let header = GroupHeader::decode(bytes, ENGINE, lsn)?;
        let payload = bytes.get(group_header::BYTES..group_header::BYTES + header.payload_bytes)?;
        let records = decode_records(payload, header.records, ENGINE, lsn)?;
        Some(
            records
                .into_iter()
                .map(|record| (record.time_ms, record.start_ms, record.sequences))
                .collect(),
        )
    }

    #[test]
    fn a_group_reads_back_as_written() {
        let bytes = group(Lsn(512));
        let expected = vec![(1, 2, vec![1, 300]), (2, 2, vec![2, 300]), (3, 3, vec![3, 300])];
        assert_eq!(decode(&bytes, Lsn(512)), Some(expected));
        let tail = tail();
        let operations = decode_tail(&tail).expect("a tail");
        let Operation::Append { body, targets, .. } = &operations[0] else {
            panic!("not an append")
        };
        assert_eq!(&tail[body.clone()], b"hello");
        assert_eq!(targets[1], TimelineRef { store: StoreId(2), name: b"u/2" });
    }

    #[test]
    fn every_changed_byte_makes_a_group_invalid() {
        let good = group(Lsn(512));
        let zeros = |at: usize| {
            // Padding between records is not covered by a checksum; nothing is read from it.
            let mut bad = good.clone();
            bad[at] ^= 0x40;
            decode(&bad, Lsn(512)) == decode(&good, Lsn(512))
        };
        let unnoticed: Vec<usize> = (0..good.len()).filter(|at| zeros(*at)).collect();
        assert!(unnoticed.iter().all(|at| good[*at] == 0), "not only padding: {unnoticed:?}");
        assert!(unnoticed.len() < 3 * 8);
    }

    #[test]
    fn a_group_at_another_position_or_of_another_engine_is_invalid() {
        let bytes = group(Lsn(512));
        assert_eq!(GroupHeader::decode(&bytes, ENGINE, Lsn(1024)), None);
        assert_eq!(GroupHeader::decode(&bytes, EngineId([8; 16]), Lsn(512)), None);
        assert_eq!(GroupHeader::decode(&[0; 64], ENGINE, Lsn(0)), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_decoded_or_refused(bytes: Vec<u8>, count: u32) {
            let _ = GroupHeader::decode(&bytes, ENGINE, Lsn(0));
            let _ = decode_records(&bytes, count, ENGINE, Lsn(0));
            let _ = decode_tail(&bytes);
        }
    }
}
