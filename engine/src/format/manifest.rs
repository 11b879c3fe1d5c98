//! The manifest's payload: everything that is live.
//!
//! ```text
//!  manifest file := header, payload
//!  payload       := history: u64, checkpoint, log file, next file, last time, seen time, changes to,
//!                   boot id: 16 bytes, count, store id × count, store count, store × n, segment count, segment × m
//!  store         := id, name, ttl in ms (0: none), gone before, generation, copies
//!  segment       := number, store id, partition, tier, gone, data bytes, index bytes, timelines, entries, first time, last time,
//!                   lsn from, lsn to, weight, dead weight, half expired, last start, own starts: 0 or 1, copies, changed to,
//!                   body weight, first name, last name
//!  gone          := 0: nothing, 1: the data, since all of it has expired, 2: the data, since all of it is dead, 3: both hold
//! ```
//!
//! Plain numbers are varints. The header tells the payload's length and checksum. Version 1 has no
//! changes to, no boot id and no stores behind it, no generation, no last start, no own starts and
//! no copies; versions 1 and 2 have no changed to and no body weight. Copies are 1: once, 2: the
//! index twice, 3: both files twice.

use super::checksum::{Seed, crc};
use super::codec::{Reader, put_name, put_varint};
use super::header::{FileHeader, FileKind};
use crate::ids::{BootId, FileNumber, Lsn, StoreId, TimeMs};

/// A named set of timelines with one retention policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreRecord {
    /// How records and segments name it. Ids are never used twice: they come from the counter of
    /// files.
    pub id: StoreId,
    /// How callers name it.
    pub name: String,
    /// How long entries live; 0: for ever.
    pub ttl_ms: u64,
    /// Entries of an earlier time had expired when the TTL was changed: they stay so.
    pub gone_before_ms: TimeMs,
    /// Part of the epoch of its timelines. A store that was made begins with its id, so that it
    /// never has the epoch of a dropped one of its name; it rises when sequences that may have been
    /// seen were lost with the page cache. The first two stores begin with 0.
    pub generation: u64,
    /// How often the files of its new segments are kept.
    pub copies: Copies,
}

/// How often the files of a segment are kept. What is damaged in one copy is read from the other,
/// and mended by [`Engine::repair`](crate::Engine::repair). The log is kept once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Copies {
    /// Once.
    #[default]
    Once = 1,
    /// The indexes twice: damage hides no entries, it takes bodies only. A few percent of the
    /// space.
    IndexTwice = 2,
    /// Data and indexes twice: twice the space, and twice the writing of segments.
    Twice = 3,
}

impl Copies {
    /// How often files of a kind are kept.
    pub(crate) fn of(self, kind: FileKind) -> u8 {
        match self {
            Copies::Twice => 2,
            Copies::IndexTwice if kind == FileKind::Index => 2,
            Copies::IndexTwice | Copies::Once => 1,
        }
    }

    /// How many bytes files of these lengths take.
    pub(crate) fn bytes(self, data_bytes: u64, index_bytes: u64) -> u64 {
        let times = |bytes: u64, kind| bytes * u64::from(self.of(kind));
        times(data_bytes, FileKind::Data) + times(index_bytes, FileKind::Index)
    }
}

impl StoreRecord {
    /// A store that is new.
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

/// Which stores hold entries that were acknowledged with relaxed durability, and by which boot of
/// the machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Relaxed {
    /// The boot in whose page cache they are.
    pub boot: BootId,
    /// The stores; empty: there is no such entry.
    pub stores: Vec<StoreId>,
}

/// What an entry weighs beside its body: about what it takes of its run.
pub const ENTRY_WEIGHT: u64 = 16;

/// A live segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentRecord {
    /// The number in its two files' names.
    pub number: FileNumber,
    /// Whose timelines it holds.
    pub store: StoreId,
    /// Its time partition; 0 in a store without TTL.
    pub partition: u64,
    /// How often what is in it was merged; flushed segments have 0.
    pub tier: u8,
    /// All of its entries have expired: the data file is gone, the index still knows how timelines
    /// ended.
    pub dropped: bool,
    /// None of its entries is shown any more: the data file is gone, the index still knows how
    /// timelines ended, which ids were used and what is removed in older segments.
    pub dead: bool,
    /// Length of the data file, when it was written.
    pub data_bytes: u64,
    /// Length of the index file.
    pub index_bytes: u64,
    /// How many timelines it knows.
    pub timelines: u64,
    /// How many entries it holds.
    pub entries: u64,
    /// The lowest time of an entry.
    pub first_time_ms: TimeMs,
    /// The highest time of an entry, here or of a timeline of which only changes or the end are
    /// here.
    pub last_time_ms: TimeMs,
    /// It holds what the log said from here …
    pub from: Lsn,
    /// … to here. Segments of one store do not overlap.
    pub to: Lsn,
    /// Changes of shared bodies that the log has below this place are applied to what is here.
    pub changed_to: Lsn,
    /// About what the entries of one body weigh that may be changed for all of them.
    pub body_weight: u64,
    /// What its entries and its edits of older ones weigh: the bytes of their bodies, and
    /// [`ENTRY_WEIGHT`] each. A shared body counts for each of its entries.
    pub weight: u64,
    /// How much of that was trimmed, removed or edited since it was written, as far as flushed
    /// changes tell; an estimate, which may be above the weight.
    pub dead_weight: u64,
    /// From then on half of the weight has expired by itself; 0: never.
    pub half_expired_ms: TimeMs,
    /// The highest time at which the lifetime of an entry began: its last time, unless a clock had
    /// been ahead.
    pub last_start_ms: TimeMs,
    /// Whether the lifetime of some entry began at another time than its timestamp.
    pub own_starts: bool,
    /// How often its files are kept.
    pub copies: Copies,
    /// The lowest name in it, so that damage to its index is local to the names between these two.
    pub first_name: Vec<u8>,
    /// The highest name in it.
    pub last_name: Vec<u8>,
}

impl SegmentRecord {
    /// Length of the files that are there, all copies.
    pub fn bytes(&self) -> u64 {
        let data_bytes = if self.has_data() { self.data_bytes } else { 0 };
        self.copies.bytes(data_bytes, self.index_bytes)
    }

    /// Whether its data file is there.
    pub fn has_data(&self) -> bool {
        !self.dropped && !self.dead
    }

    /// Where it stands among the segments of its store: a later place holds later entries of each
    /// timeline. A partition of time comes again when a clock that was ahead is put right; what the
    /// log says later is later all the same.
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
    /// The log file that must be there, since replay needs it; 0: none (after a clean stop, and
    /// before the first file).
    pub log_file: FileNumber,
    /// The number of the next file, or the id of the next store.
    pub next_file: FileNumber,
    /// The highest time given so far, as far as segments know: no later one may be lower.
    pub last_time_ms: TimeMs,
    /// The highest time that the engine was sure of when this was written.
    pub seen_ms: TimeMs,
    /// Merges left entries out that changes in the log below this place removed: these segments are
    /// complete only together with the log up to there, or with what was flushed of it.
    pub changes_to: Lsn,
    /// Stores whose last entries a power cut may take although they were seen.
    pub relaxed: Relaxed,
    /// All stores.
    pub stores: Vec<StoreRecord>,
    /// All segments. Their places tell which is older, not their order here.
    pub segments: Vec<SegmentRecord>,
}

/// The manifest's file. `header` tells who writes; its last two fields are filled in.
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

/// What is live, from the bytes behind a manifest's checked header; otherwise what does not hold.
pub fn decode(payload: &[u8], header: &FileHeader) -> Result<Live, &'static str> {
    if payload.len() as u64 != header.first {
        return Err("the manifest has another length than its header says");
    }
    if u64::from(crc(Seed::new(header.engine_id, header.number), payload)) != header.second {
        return Err("the checksum of the manifest does not match");
    }
    decode_live(payload, header.version).ok_or("the manifest's records do not fit its length")
}

/// The first version in which stores and segments tell their copies, and the log up to where
/// changes were used.
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
        (segment.own_starts, segment.copies) = (reader.varint()? == 1, copies(reader)?);
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
    fn every_changed_byte_and_every_cut_is_noticed() {
        let good = file();
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 4;
            assert_eq!(open(&bad), None, "byte {at}");
            assert_eq!(open(&good[..at]), None, "cut to {at}");
        }
    }

    proptest! {
        #[test]
        fn any_payload_decodes_or_does_not(payload: Vec<u8>) {
            for version in OLDEST_VERSION..=VERSION {
                let _ = decode_live(&payload, version);
            }
        }
    }
}
