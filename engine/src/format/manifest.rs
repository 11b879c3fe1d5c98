//! The manifest's payload: everything that is live.
//!
//! ```text
//!  manifest file := header, payload
//!  payload       := history: u64, checkpoint, log file, next file, last time, seen time,
//!                   changes to, boot id: 16 bytes, count, store id × count,
//!                   store count, store × n, segment count, segment × m
//!  store         := id, name, ttl in ms (0: none), gone before, generation, copies
//!  segment       := number, store id, partition, tier, gone, data bytes, index bytes,
//!                   timelines, entries, first time, last time, lsn from, lsn to,
//!                   weight, dead weight, half expired, last start, own starts: 0 or 1,
//!                   copies, changed to, body weight, first name, last name
//!  gone          := 0: nothing, 1: the data, since all of it has expired,
//!                   2: the data, since all of it is dead, 3: both hold
//! ```
//!
//! Numbers without a type are varints. The file header holds the payload's length and checksum.
//! Version 1 lacks: changes to, boot id and the store ids after it, generation, last start, own
//! starts, copies. Versions 1 and 2 lack: changed to, body weight. Copies are 1: once, 2: the
//! index twice, 3: both files twice.

use super::checksum::{Seed, crc};
use super::codec::{Reader, put_name, put_varint};
use super::header::{FileHeader, FileKind};
use crate::ids::{BootId, FileNumber, Lsn, StoreId, TimeMs};

/// A named set of timelines with one retention policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreRecord {
    /// Identifies the store in records and segments. Ids are never reused: they come from the
    /// counter of files.
    pub id: StoreId,
    /// The name of the store for callers.
    pub name: String,
    /// The lifetime of its entries; 0: no limit.
    pub ttl_ms: u64,
    /// Entries whose lifetime began before this time remain expired: they had expired when the TTL
    /// was changed or when their segment was dropped.
    pub gone_before_ms: TimeMs,
    /// Part of the epoch of its timelines. The first two stores begin with 0. Every other store
    /// begins with its id, so that it never has the epoch of a dropped store of the same name. The
    /// generation rises when sequences that may have been seen were lost with the page cache.
    pub generation: u64,
    /// The number of copies of the files of its new segments.
    pub copies: Copies,
}

/// The number of copies of a segment's files. Damage in one copy is read from the other copy, and
/// repaired by [`Engine::repair`](crate::Engine::repair). The log has one copy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Copies {
    /// Once.
    #[default]
    Once = 1,
    /// Two copies of the indexes: damage hides no entries, it can only destroy bodies. Takes a few
    /// percent more space.
    IndexTwice = 2,
    /// Two copies of data and indexes: twice the space, and twice the writing of segments.
    Twice = 3,
}

impl Copies {
    /// The number of copies of files of a kind.
    pub(crate) fn of(self, kind: FileKind) -> u8 {
        match self {
            Copies::Twice => 2,
            Copies::IndexTwice if kind == FileKind::Index => 2,
            Copies::IndexTwice | Copies::Once => 1,
        }
    }

    /// The total length of all copies of files of these lengths.
    pub(crate) fn bytes(self, data_bytes: u64, index_bytes: u64) -> u64 {
        let times = |bytes: u64, kind| bytes * u64::from(self.of(kind));
        times(data_bytes, FileKind::Data) + times(index_bytes, FileKind::Index)
    }
}

impl StoreRecord {
    /// A new store.
    pub fn new(id: StoreId, name: impl Into<String>, ttl_ms: u64) -> StoreRecord {
        StoreRecord {
            id,
            name: name.into(),
            ttl_ms,
            gone_before_ms: 0,
            generation: 0,
            copies: Copies::Once,
        }
    }
}

/// The stores with entries that were acknowledged with relaxed durability, and the boot of the
/// machine in which that happened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Relaxed {
    /// The boot whose page cache holds these entries.
    pub boot: BootId,
    /// The stores; empty if there are no such entries.
    pub stores: Vec<StoreId>,
}

/// The weight of an entry beside its body: about the bytes that it takes in its run.
pub const ENTRY_WEIGHT: u64 = 16;

/// A live segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentRecord {
    /// The number in the names of its files.
    pub number: FileNumber,
    /// The store whose timelines it holds.
    pub store: StoreId,
    /// Its time partition; 0 in a store without TTL.
    pub partition: u64,
    /// The number of times that its content was merged; flushed segments have 0.
    pub tier: u8,
    /// All of its entries have expired: the data file is gone, the index still has the ends of the
    /// timelines.
    pub dropped: bool,
    /// None of its entries is visible any more: the data file is gone, the index still has the ends
    /// of the timelines, the used ids and the removals in older segments.
    pub dead: bool,
    /// Length of the data file when it was written.
    pub data_bytes: u64,
    /// Length of the index file.
    pub index_bytes: u64,
    /// The number of timelines with an entry in its index.
    pub timelines: u64,
    /// The number of entries in it.
    pub entries: u64,
    /// The lowest time of an entry.
    pub first_time_ms: TimeMs,
    /// The highest time of an entry here, or of a timeline that has only changes or its end here.
    pub last_time_ms: TimeMs,
    /// It holds the log from this lsn on …
    pub from: Lsn,
    /// … up to this one. Segments of one store do not overlap.
    pub to: Lsn,
    /// Changes of shared bodies below this lsn of the log are applied to its content.
    pub changed_to: Lsn,
    /// About the weight of the entries of one body that can be changed for all of them.
    pub body_weight: u64,
    /// The weight of its entries and of its edits of older ones: the bytes of their bodies, plus
    /// [`ENTRY_WEIGHT`] each. A shared body counts once for each of its entries.
    pub weight: u64,
    /// The part of the weight that was trimmed, removed or edited since the segment was written,
    /// according to flushed changes; an estimate, which may exceed the weight.
    pub dead_weight: u64,
    /// From this time on, half of the weight has expired by the entries' own lifetimes; 0: never.
    pub half_expired_ms: TimeMs,
    /// The highest time at which the lifetime of an entry began: its last time, unless a clock was
    /// ahead.
    pub last_start_ms: TimeMs,
    /// Whether the lifetime of some entry began at another time than its timestamp.
    pub own_starts: bool,
    /// The number of copies of its files.
    pub copies: Copies,
    /// The lowest name in it: damage to its index affects only names between this and the last one.
    pub first_name: Vec<u8>,
    /// The highest name in it.
    pub last_name: Vec<u8>,
}

impl SegmentRecord {
    /// The total length of its existing files, all copies.
    pub fn bytes(&self) -> u64 {
        let data_bytes = if self.has_data() { self.data_bytes } else { 0 };
        self.copies.bytes(data_bytes, self.index_bytes)
    }

    /// Whether its data file exists.
    pub fn has_data(&self) -> bool {
        !self.dropped && !self.dead
    }

    /// Its position among the segments of its store: a segment at a higher position holds later
    /// entries of each timeline. The lsn decides first, because a time partition comes again when a
    /// clock that was ahead is corrected, and later records of the log are later all the same.
    pub fn place(&self) -> (Lsn, u64) {
        (self.from, self.partition)
    }
}

/// Everything that is live.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Live {
    /// The history that clients' cursors belong to. A restore changes it.
    pub history: u64,
    /// Replay starts here: everything before is in segments.
    pub checkpoint: Lsn,
    /// The log file that must exist because replay needs it; 0: none (after a clean stop, and
    /// before the first file).
    pub log_file: FileNumber,
    /// The number of the next file, or the id of the next store.
    pub next_file: FileNumber,
    /// The highest time given so far, as far as segments have it: no later time may be lower.
    pub last_time_ms: TimeMs,
    /// The highest sure time when this was written.
    pub seen_ms: TimeMs,
    /// Merges left out entries that changes below this lsn of the log removed: the segments are
    /// complete only together with the log up to there, or with the segments flushed from it.
    pub changes_to: Lsn,
    /// Stores whose last entries a power cut may remove although they were seen.
    pub relaxed: Relaxed,
    /// All stores.
    pub stores: Vec<StoreRecord>,
    /// All segments. [`SegmentRecord::place`] gives their order, not this list.
    pub segments: Vec<SegmentRecord>,
}

/// The manifest's file. `header` names the writer; its last two fields are filled in.
pub fn encode(live: &Live, header: FileHeader) -> Vec<u8> {
    let mut payload = live.history.to_le_bytes().to_vec();
    put_varint(&mut payload, live.checkpoint.0);
    put_varint(&mut payload, live.log_file);
    put_varint(&mut payload, live.next_file);
    put_varint(&mut payload, live.last_time_ms);
    put_varint(&mut payload, live.seen_ms);
    put_varint(&mut payload, live.changes_to.0);
    payload.extend_from_slice(&live.relaxed.boot.0);
    put_varint(&mut payload, live.relaxed.stores.len() as u64);
    live.relaxed.stores.iter().for_each(|store| put_varint(&mut payload, u64::from(store.0)));
    put_varint(&mut payload, live.stores.len() as u64);
    for store in &live.stores {
        put_varint(&mut payload, u64::from(store.id.0));
        put_name(&mut payload, store.name.as_bytes());
        put_varint(&mut payload, store.ttl_ms);
        put_varint(&mut payload, store.gone_before_ms);
        put_varint(&mut payload, store.generation);
        put_varint(&mut payload, store.copies as u64);
    }
    put_varint(&mut payload, live.segments.len() as u64);
    live.segments.iter().for_each(|segment| put_segment(segment, &mut payload));
    let sum = crc(Seed::new(header.engine_id, header.number), &payload);
    let header = FileHeader {
        kind: FileKind::Manifest,
        first: payload.len() as u64,
        second: u64::from(sum),
        ..header
    };
    [header.encode().as_slice(), &payload].concat()
}

fn put_segment(segment: &SegmentRecord, out: &mut Vec<u8>) {
    let numbers = [
        segment.number,
        u64::from(segment.store.0),
        segment.partition,
        u64::from(segment.tier),
        u64::from(segment.dropped) | u64::from(segment.dead) << 1,
        segment.data_bytes,
        segment.index_bytes,
        segment.timelines,
        segment.entries,
        segment.first_time_ms,
        segment.last_time_ms,
        segment.from.0,
        segment.to.0,
        segment.weight,
        segment.dead_weight,
        segment.half_expired_ms,
        segment.last_start_ms,
        u64::from(segment.own_starts),
        segment.copies as u64,
        segment.changed_to.0,
        segment.body_weight,
    ];
    numbers.into_iter().for_each(|number| put_varint(out, number));
    put_name(out, &segment.first_name);
    put_name(out, &segment.last_name);
}

/// Everything that is live, from the bytes after a manifest's checked header; otherwise the check
/// that failed.
pub fn decode(payload: &[u8], header: &FileHeader) -> Result<Live, &'static str> {
    if payload.len() as u64 != header.first {
        return Err("the manifest has another length than its header says");
    }
    if u64::from(crc(Seed::new(header.engine_id, header.number), payload)) != header.second {
        return Err("the checksum of the manifest does not match");
    }
    decode_live(payload, header.version).ok_or("the manifest's records do not fit its length")
}

/// The first version in which stores and segments have copies, and in which the manifest has
/// `changes_to`.
const FIRST_WITH_COPIES: u32 = 2;

/// The first version in which shared bodies are changed by their places.
const FIRST_WITH_PLACES: u32 = 3;

fn decode_live(payload: &[u8], version: u32) -> Option<Live> {
    let has_copies = version >= FIRST_WITH_COPIES;
    let mut reader = Reader::new(payload);
    let mut live = Live {
        history: reader.u64()?,
        checkpoint: Lsn(reader.varint()?),
        log_file: reader.varint()?,
        next_file: reader.varint()?,
        last_time_ms: reader.varint()?,
        seen_ms: reader.varint()?,
        ..Live::default()
    };
    if has_copies {
        live.changes_to = Lsn(reader.varint()?);
        live.relaxed.boot = BootId(reader.bytes(16)?.try_into().ok()?);
        for _ in 0..reader.varint()? {
            live.relaxed.stores.push(StoreId(reader.varint_u32()?));
        }
    }
    for _ in 0..reader.varint()? {
        let mut store = StoreRecord {
            id: StoreId(reader.varint_u32()?),
            name: String::from_utf8(reader.name()?.to_vec()).ok()?,
            ttl_ms: reader.varint()?,
            gone_before_ms: reader.varint()?,
            generation: 0,
            copies: Copies::Once,
        };
        if has_copies {
            (store.generation, store.copies) = (reader.varint()?, copies(&mut reader)?);
        }
        live.stores.push(store);
    }
    for _ in 0..reader.varint()? {
        live.segments.push(decode_segment(&mut reader, version)?);
    }
    reader.is_empty().then_some(live)
}

fn decode_segment(reader: &mut Reader<'_>, version: u32) -> Option<SegmentRecord> {
    let (number, store) = (reader.varint()?, StoreId(reader.varint_u32()?));
    let (partition, tier) = (reader.varint()?, u8::try_from(reader.varint()?).ok()?);
    let gone = reader.varint().filter(|gone| *gone <= 3)?;
    let mut segment = SegmentRecord {
        number,
        store,
        partition,
        tier,
        dropped: gone & 1 != 0,
        dead: gone & 2 != 0,
        data_bytes: reader.varint()?,
        index_bytes: reader.varint()?,
        timelines: reader.varint()?,
        entries: reader.varint()?,
        first_time_ms: reader.varint()?,
        last_time_ms: reader.varint()?,
        from: Lsn(reader.varint()?),
        to: Lsn(reader.varint()?),
        changed_to: Lsn(0),
        body_weight: 0,
        weight: reader.varint()?,
        dead_weight: reader.varint()?,
        half_expired_ms: reader.varint()?,
        last_start_ms: 0,
        own_starts: false,
        copies: Copies::Once,
        first_name: Vec::new(),
        last_name: Vec::new(),
    };
    segment.last_start_ms = segment.last_time_ms;
    segment.changed_to = segment.to;
    if version >= FIRST_WITH_COPIES {
        segment.last_start_ms = reader.varint()?;
        segment.own_starts = reader.varint().filter(|own| *own <= 1)? == 1;
        segment.copies = copies(reader)?;
    }
    if version >= FIRST_WITH_PLACES {
        (segment.changed_to, segment.body_weight) = (Lsn(reader.varint()?), reader.varint()?);
    }
    (segment.first_name, segment.last_name) = (reader.name()?.to_vec(), reader.name()?.to_vec());
    Some(segment)
}

fn copies(reader: &mut Reader<'_>) -> Option<Copies> {
    let known = [Copies::Once, Copies::IndexTwice, Copies::Twice];
    let number = reader.varint()?;
    known.into_iter().find(|copies| *copies as u64 == number)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::header::{EngineId, OLDEST_VERSION, VERSION, file_header};
    use proptest::prelude::*;
    use std::path::Path;

    fn live() -> Live {
        Live {
            history: 42,
            checkpoint: Lsn(4096),
            log_file: 7,
            next_file: 9,
            last_time_ms: 1_700_000_000_000,
            seen_ms: 1_700_000_000_001,
            changes_to: Lsn(16),
            relaxed: Relaxed { boot: BootId([9; 16]), stores: vec![StoreId(1), StoreId(300)] },
            stores: vec![StoreRecord {
                gone_before_ms: 3,
                generation: 5,
                copies: Copies::Twice,
                ..StoreRecord::new(StoreId(1), "messages", 0)
            }],
            segments: vec![SegmentRecord {
                number: 8,
                store: StoreId(1),
                partition: 0,
                tier: 2,
                dropped: true,
                dead: true,
                data_bytes: 1 << 33,
                index_bytes: 5,
                timelines: 6,
                entries: 7,
                first_time_ms: 8,
                last_time_ms: 9,
                from: Lsn(10),
                to: Lsn(11),
                changed_to: Lsn(16),
                body_weight: 17,
                weight: 12,
                dead_weight: 13,
                half_expired_ms: 14,
                last_start_ms: 15,
                own_starts: true,
                copies: Copies::Twice,
                first_name: b"a".to_vec(),
                last_name: b"z".to_vec(),
            }],
        }
    }

    fn file() -> Vec<u8> {
        let header = FileHeader {
            version: VERSION,
            kind: FileKind::Manifest,
            engine_id: EngineId([3; 16]),
            writer_epoch: 1,
            number: 5,
            first: 0,
            second: 0,
            third: 0,
        };
        encode(&live(), header)
    }

    fn open(bytes: &[u8]) -> Option<Live> {
        let header = FileHeader::decode(bytes, Path::new("manifest")).ok()?;
        decode(&bytes[file_header::BYTES..], &header).ok()
    }

    #[test]
    fn a_manifest_reads_back_as_written() {
        assert_eq!(open(&file()), Some(live()));
    }

    #[test]
    fn every_changed_byte_and_every_cut_is_detected() {
        let good = file();
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 4;
            assert_eq!(open(&bad), None, "byte {at}");
            assert_eq!(open(&good[..at]), None, "cut to {at}");
        }
    }

    #[test]
    fn own_starts_are_zero_or_one() {
        let payload = file().split_off(file_header::BYTES);
        // Before it is the last start, after it are copies, changed to, body weight and the names.
        let at = payload.len() - 8;
        assert_eq!(payload[at - 1..at + 2], [15, 1, 3]);
        for (own_starts, is_known) in [(0, true), (1, true), (2, false)] {
            let mut payload = payload.clone();
            payload[at] = own_starts;
            assert_eq!(decode_live(&payload, VERSION).is_some(), is_known, "{own_starts}");
        }
    }

    proptest! {
        #[test]
        fn any_payload_is_decoded_or_refused(payload: Vec<u8>) {
            for version in OLDEST_VERSION..=VERSION {
                let _ = decode_live(&payload, version);
            }
        }
    }
}
