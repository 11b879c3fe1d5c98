//! The log: groups, their records, and the tails of records.
//!
//! Not written by an encoder, and therefore only decoded: a record whose start is listed although
//! it is the record's time, a tail whose bodies are not in the order of their first use, and a
//! removal whose ranges do not ascend. The padding of a record has no checksum, and its flags have
//! bits without meaning: both are set to zeros before the bytes are compared.

use std::collections::BTreeMap;
use std::ops::Range;

use strandline::format::checksum::{Seed, crc};
use strandline::format::codec::Reader;
use strandline::format::layout::{get_u32, put};
use strandline::format::list::{EncodedList, NewList, RecordList, decode_list};
use strandline::format::wal::{
    GroupHeader, GroupWriter, NewRecord, Operation, Record, TailWriter, decode_records,
    decode_tail, group_header, record_header,
};
use strandline::{Lsn, TimelineRef};

use super::{Checksum, ENGINE, plans};

const PLACE: Lsn = Lsn(512);
const OWN_START: u32 = 2;
const LIST: u32 = 4;
const ALL_FLAGS: u32 = 15;

/// A group of the log, from its header to its tails.
pub fn wal_group(bytes: &[u8]) -> bool {
    let seed = Seed::new(ENGINE, PLACE.0);
    let covered = group_header::CRC.end..group_header::BYTES;
    let sum = Checksum { at: group_header::CRC, covered, seed };
    let decoded = GroupHeader::decode(bytes, ENGINE, PLACE);
    assert!(decoded.is_none() || sum.matches(bytes), "a wrong checksum is refused");
    let Some((head, payload)) = bytes.split_at_checked(group_header::BYTES) else { return false };
    let mut head = head.to_vec();
    put(&mut head, group_header::MAGIC, b"SLgr");
    put(&mut head, group_header::LSN, &PLACE.0.to_le_bytes());
    sum.repair(&mut head);
    let header = GroupHeader::decode(&head, ENGINE, PLACE).expect("its checksum was repaired");
    let changed = GroupHeader::decode(&sum.changed(&head), ENGINE, PLACE);
    assert!(changed.is_none(), "a wrong checksum is refused");
    let payload = payload.get(..header.payload_bytes).unwrap_or(payload);
    let Some(again) = records_again(payload.to_vec(), header.records, header.durable) else {
        return false;
    };
    let is_whole = payload.len() == header.payload_bytes;
    assert!(!is_whole || again[..group_header::BYTES] == head, "it is encoded to the same bytes");
    is_whole
}

/// The records of a group: the first four bytes give the number.
pub fn wal_records(bytes: &[u8]) -> bool {
    let Some((count, payload)) = bytes.split_first_chunk::<4>() else { return false };
    let count = u32::from_le_bytes(*count);
    if decode_records(payload, count, ENGINE, PLACE).is_some() {
        let records = record_ranges(payload, count);
        let sums = records.iter().flat_map(RecordRange::sums);
        assert!(sums.into_iter().all(|sum| sum.matches(payload)), "a wrong checksum is refused");
    }
    records_again(payload.to_vec(), count % 64, Lsn(0)).is_some()
}

/// Where a record is in a payload.
struct RecordRange {
    start: usize,
    /// Empty if it has none.
    list: Range<usize>,
    /// The checksum of its list.
    list_sum: Option<Range<usize>>,
    tail: Range<usize>,
}

impl RecordRange {
    /// Its checksums. That of the header, the last one, covers the others.
    fn sums(&self) -> Vec<Checksum> {
        let field = |field: Range<usize>| self.start + field.start..self.start + field.end;
        let unseeded = |at, covered| Checksum { at, covered, seed: Seed::NONE };
        let list = self.list_sum.clone().map(|at| unseeded(at, self.list.clone()));
        let tail = unseeded(field(record_header::TAIL_CRC), self.tail.clone());
        let at = field(record_header::CRC);
        let covered = at.end..self.list.start;
        let header = Checksum { at, covered, seed: Seed::new(ENGINE, PLACE.0) };
        list.into_iter().chain([tail, header]).collect()
    }

    fn flags(&self, payload: &[u8]) -> u32 {
        get_u32(&payload[self.start..], record_header::FLAGS).expect("the header is inside")
    }
}

/// The records that are inside the payload as a whole, up to `count`.
fn record_ranges(payload: &[u8], count: u32) -> Vec<RecordRange> {
    let mut ranges = Vec::new();
    let mut start = 0;
    for _ in 0..count {
        let Some(header) = payload.get(start..start + record_header::BYTES) else { break };
        let length = |field| get_u32(header, field).expect("the header is inside") as usize;
        let list = start + record_header::BYTES + length(record_header::SEQUENCE_BYTES);
        let Some(record) = payload.get(start..list) else { break };
        let (list_bytes, list_sum) = match list_sum(record) {
            Some((bytes, at)) => (bytes, Some(start + at..start + at + 4)),
            None => (0, None),
        };
        let tail = list.saturating_add(list_bytes);
        let end = tail.saturating_add(length(record_header::TAIL_BYTES));
        if end > payload.len() {
            break;
        }
        ranges.push(RecordRange { start, list: list..tail, list_sum, tail: tail..end });
        start = end.next_multiple_of(8);
    }
    ranges
}

/// The length of a record's list, and where its checksum is in the record, if it has a list.
fn list_sum(record: &[u8]) -> Option<(usize, usize)> {
    let flags = get_u32(record, record_header::FLAGS)?;
    let mut numbers = Reader::new(&record[record_header::BYTES..]);
    let starts = u64::from(flags & OWN_START != 0);
    for _ in 0..u64::from(get_u32(record, record_header::SEQUENCES)?) + starts {
        numbers.varint()?;
    }
    let bytes = numbers.length().filter(|_| flags & LIST != 0)?;
    let at = record.len() - numbers.rest().len();
    numbers.u32().map(|_| (bytes, at))
}

/// Gives each record its checksums, zeros as padding, and the flags that have a meaning.
fn repair(payload: &mut [u8], records: &[RecordRange]) {
    for record in records {
        let flags = record.flags(payload) & ALL_FLAGS;
        put(&mut payload[record.start..], record_header::FLAGS, &flags.to_le_bytes());
        let end = record.tail.end.next_multiple_of(8).min(payload.len());
        payload[record.tail.end..end].fill(0);
        record.sums().iter().for_each(|sum| sum.repair(payload));
    }
}

/// The group with these records, repaired; `None` if they cannot be decoded, or if an encoder does
/// not write them in this form.
fn records_again(mut payload: Vec<u8>, count: u32, durable: Lsn) -> Option<Vec<u8>> {
    let ranges = record_ranges(&payload, count);
    repair(&mut payload, &ranges);
    let records = decode_records(&payload, count, ENGINE, PLACE)?;
    assert_eq!((records.len(), ranges.len()), (count as usize, count as usize));
    let held: usize = records.iter().map(|record| record.tail.len() + record.sequences.len()).sum();
    assert!(held <= payload.len(), "records hold no more than there is");
    for sum in ranges.last().iter().flat_map(|record| record.sums()) {
        let changed = sum.changed(&payload);
        let decoded = decode_records(&changed, count, ENGINE, PLACE);
        assert!(decoded.is_none(), "a wrong checksum is refused");
    }
    let again = group_of(&records, durable);
    let decoded = decode_records(&again[group_header::BYTES..], count, ENGINE, PLACE);
    assert_eq!(decoded.as_ref(), Some(&records), "records decode to the same values");
    let is_needless = |(record, range): (&Record<'_>, &RecordRange)| {
        range.flags(&payload) & OWN_START != 0 && record.start_ms == record.time_ms
    };
    if records.iter().zip(&ranges).any(is_needless) {
        return None;
    }
    assert_eq!(again[group_header::BYTES..], payload, "records are encoded to the same bytes");
    Some(again)
}

fn group_of(records: &[Record<'_>], durable: Lsn) -> Vec<u8> {
    let mut group = GroupWriter::new(ENGINE);
    group.start(PLACE);
    for record in records {
        let sum = |bytes: &[u8]| crc(Seed::NONE, bytes);
        let list = record.list.map(|list| match list {
            RecordList::Full(bytes) => NewList::Full(bytes, sum(bytes)),
            RecordList::Earlier(at, hash) => NewList::Earlier { at, hash, after: 0, base: &[] },
        });
        group.record(&NewRecord {
            time_ms: record.time_ms,
            start_ms: record.start_ms,
            sequences: &record.sequences,
            chosen: record.chosen,
            list,
            tail: record.tail,
            tail_crc: sum(record.tail),
        });
        wal_tail(record.tail);
        if let Some(RecordList::Full(bytes)) = record.list {
            record_list(bytes);
        }
    }
    group.finish(durable).to_vec()
}

/// The list of a record.
fn record_list(bytes: &[u8]) {
    let Some(targets) = decode_list(bytes) else { return };
    assert!(3 * targets.len() < bytes.len(), "targets cost bytes each");
    let again = EncodedList::new(&targets);
    assert_eq!(again.bytes, bytes, "a list is encoded to the same bytes");
    let names = again.names.iter().map(|name| &bytes[name.start as usize..name.end as usize]);
    assert!(names.eq(targets.iter().map(|target| target.name)), "names are where it says");
}

/// The tail of a record: bodies and operations.
pub fn wal_tail(bytes: &[u8]) -> bool {
    plans::tail(bytes);
    let Some(operations) = decode_tail(bytes) else { return false };
    let bodies = bodies_of(bytes).expect("a tail begins with its bodies");
    let is_body = |body: &Range<usize>| assert!(bodies.contains(body), "a body is a whole one");
    let named = |timeline: &TimelineRef<'_>| assert!((1..=255).contains(&timeline.name.len()));
    let mut cost = 0;
    for operation in &operations {
        cost += match operation {
            Operation::Append { body, targets, .. } => {
                is_body(body);
                targets.iter().for_each(named);
                4 + 3 * targets.len()
            }
            Operation::Edit { body, .. } => {
                is_body(body);
                5
            }
            Operation::Trim { timeline, .. } => {
                named(timeline);
                8
            }
            Operation::Remove { timeline, ranges } => {
                named(timeline);
                assert!(ranges.iter().all(|(first, last)| first <= last));
                5 + 2 * ranges.len()
            }
            Operation::Id { timeline, id, .. } => {
                named(timeline);
                21 + id.len()
            }
        };
    }
    assert!(cost <= bytes.len(), "operations cost bytes each");
    let Some(again) = tail_again(bytes, &bodies, &operations) else { return false };
    assert_eq!(again, bytes, "a tail is encoded to the same bytes");
    true
}

/// The bodies that a tail begins with.
fn bodies_of(tail: &[u8]) -> Option<Vec<Range<usize>>> {
    let mut reader = Reader::new(tail);
    let count = reader.u32()?;
    (0..count)
        .map(|_| {
            let body = reader.piece()?;
            let end = tail.len() - reader.rest().len();
            Some(end - body.len()..end)
        })
        .collect()
}

/// The tail with these operations; `None` if an encoder does not write them in this form.
fn tail_again(
    tail: &[u8],
    bodies: &[Range<usize>],
    operations: &[Operation<'_>],
) -> Option<Vec<u8>> {
    let mut writer = TailWriter::default();
    let mut unused = bodies.iter();
    let mut added = None;
    let mut use_body = |writer: &mut TailWriter, body: &Range<usize>| {
        if added.as_ref() != Some(body) {
            added = unused.next().filter(|next| *next == body).cloned();
            writer.body(&tail[added.clone()?]);
        }
        Some(())
    };
    for operation in operations {
        match operation {
            Operation::Append { body, stamped, listed, lifetime_ms, targets } => {
                use_body(&mut writer, body)?;
                writer.append((*stamped, *listed), *lifetime_ms, targets.len());
                for target in targets {
                    writer.timeline(*target);
                }
            }
            Operation::Edit { timeline, sequence, body } => {
                use_body(&mut writer, body)?;
                writer.edit(*timeline, *sequence);
            }
            Operation::Trim { timeline, floor } => drop(writer.trim(*timeline, *floor)),
            Operation::Remove { timeline, ranges } => {
                if !ranges.is_sorted_by(|one, next| one.0 < next.0) {
                    return None;
                }
                let ranges: BTreeMap<_, _> = ranges.iter().copied().collect();
                writer.remove(*timeline, &ranges);
            }
            Operation::Id { timeline, id, hashes } => drop(writer.id(*timeline, id, *hashes)),
        }
    }
    unused.next().is_none().then(|| writer.finish().0)
}
