//! The manifest's payload: everything that is live.
//!
//! ```text
//!  manifest file := header, payload
//!  payload       := history: u64, checkpoint, log file, next file, last time, seen time, store count, store × n, segment count, segment × m
//!  store         := id, name, ttl in ms (0: none), gone before
//!  segment       := number, store id, partition, tier, gone, data bytes, index bytes, timelines, entries, first time, last time,
//!                   lsn from, lsn to, weight, dead weight, half expired, first name, last name
//!  gone          := 0: nothing, 1: the data, since all of it has expired, 2: the data, since all of it is dead, 3: both hold
//! ```
//!
//! Plain numbers are varints. The header tells the payload's length and checksum.

use super::checksum::{Seed, crc};
use super::codec::{Reader, put_name, put_varint};
use super::header::{FileHeader, FileKind};
use crate::ids::{FileNumber, Lsn, StoreId, TimeMs};

/// A named set of timelines with one retention policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreRecord {
    /// How records and segments name it. Ids are never used twice.
    pub id: StoreId,
    /// How callers name it.
    pub name: String,
    /// How long entries live; 0: for ever.
    pub ttl_ms: u64,
    /// Entries of an earlier time had expired when the TTL was changed: they stay so.
    pub gone_before_ms: TimeMs,
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
    /// All of its entries have expired: the data file is gone, the index still knows how timelines ended.
    pub dropped: bool,
    /// None of its entries is shown any more: the data file is gone, the index still knows how timelines ended, which ids were used
    /// and what is removed in older segments.
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
    /// The highest time of an entry, here or of a timeline of which only changes or the end are here.
    pub last_time_ms: TimeMs,
    /// It holds what the log said from here …
    pub from: Lsn,
    /// … to here. Segments of one store do not overlap.
    pub to: Lsn,
    /// What its entries and its edits of older ones weigh: the bytes of their bodies, and [`ENTRY_WEIGHT`] each. A shared body counts for
    /// each of its entries.
    pub weight: u64,
    /// How much of that was trimmed, removed or edited since it was written, as far as flushed changes tell; an estimate, which may be
    /// above the weight.
    pub dead_weight: u64,
    /// From then on half of the weight has expired by itself; 0: never.
    pub half_expired_ms: TimeMs,
    /// The lowest name in it, so that damage to its index is local to the names between these two.
    pub first_name: Vec<u8>,
    /// The highest name in it.
    pub last_name: Vec<u8>,
}

impl SegmentRecord {
    /// Length of the files that are there.
    pub fn bytes(&self) -> u64 {
        self.index_bytes + if self.has_data() { self.data_bytes } else { 0 }
    }

    /// Whether its data file is there.
    pub fn has_data(&self) -> bool {
        !self.dropped && !self.dead
    }

    /// Where it stands among the segments of its store: a later place holds later entries of each timeline.
    pub fn place(&self) -> (u64, Lsn) {
        (self.partition, self.from)
    }
}

/// Everything that is live.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Live {
    /// The history that clients' cursors belong to. A restore changes it.
    pub history: u64,
    /// Replay starts here: everything before is in segments.
    pub checkpoint: Lsn,
    /// The log file that must be there, since replay needs it; 0: none (after a clean stop, and before the first file).
    pub log_file: FileNumber,
    /// The number of the next file.
    pub next_file: FileNumber,
    /// The highest time given so far, as far as segments know: no later one may be lower.
    pub last_time_ms: TimeMs,
    /// The highest time that the engine was sure of when this was written.
    pub seen_ms: TimeMs,
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
    put_varint(&mut payload, live.stores.len() as u64);
    for store in &live.stores {
        put_varint(&mut payload, u64::from(store.id.0));
        put_name(&mut payload, store.name.as_bytes());
        put_varint(&mut payload, store.ttl_ms);
        put_varint(&mut payload, store.gone_before_ms);
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
    decode_live(payload).ok_or("the manifest's records do not fit its length")
}

fn decode_live(payload: &[u8]) -> Option<Live> {
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
    for _ in 0..reader.varint()? {
        live.stores.push(StoreRecord {
            id: StoreId(reader.varint_u32()?),
            name: String::from_utf8(reader.name()?.to_vec()).ok()?,
            ttl_ms: reader.varint()?,
            gone_before_ms: reader.varint()?,
        });
    }
    for _ in 0..reader.varint()? {
        let (number, store) = (reader.varint()?, StoreId(reader.varint_u32()?));
        let (partition, tier) = (reader.varint()?, u8::try_from(reader.varint()?).ok()?);
        let gone = reader.varint().filter(|gone| *gone <= 3)?;
        live.segments.push(SegmentRecord {
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
            weight: reader.varint()?,
            dead_weight: reader.varint()?,
            half_expired_ms: reader.varint()?,
            first_name: reader.name()?.to_vec(),
            last_name: reader.name()?.to_vec(),
        });
    }
    reader.is_empty().then_some(live)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::header::{EngineId, file_header};
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
            stores: vec![StoreRecord {
                id: StoreId(1),
                name: "messages".into(),
                ttl_ms: 0,
                gone_before_ms: 3,
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
                weight: 12,
                dead_weight: 13,
                half_expired_ms: 14,
                first_name: b"a".to_vec(),
                last_name: b"z".to_vec(),
            }],
        }
    }

    fn file() -> Vec<u8> {
        let header = FileHeader {
            kind: FileKind::Manifest,
            engine_id: EngineId([3; 16]),
            writer_epoch: 1,
            number: 5,
            first: 0,
            second: 0,
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
            let _ = decode_live(&payload);
        }
    }
}
