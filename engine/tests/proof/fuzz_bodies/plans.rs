//! Any bytes as a plan for an encoder. What it writes must decode to what was planned.
//!
//! So encoders get input of all shapes, and a decoder that loses a part of a value is noticed, even
//! if the encoder leaves out the same part of a decoded value.

use std::collections::BTreeMap;

use strandline::format::codec::Reader;
use strandline::format::ids::IdHashes;
use strandline::format::index::Floor;
use strandline::format::run::{CommitPlace, EntryContent, RunReader, RunWriter, Times};
use strandline::format::wal::{ORIGIN_BYTES, Operation, TailWriter, decode_tail};
use strandline::{StoreId, TimelineRef};

/// Limit of operations and entries per plan.
const MOST_STEPS: usize = 64;

/// Limit of steps of sequences and times: their sums are far from the end of the numbers.
const MOST_STEP: u64 = 1 << 30;

/// Numbers of a plan: of one byte, and every fourth of up to eight bytes.
fn number(plan: &mut Reader<'_>) -> u64 {
    let first = u64::from(plan.u8().unwrap_or_default());
    if first % 4 == 3 { plan.u64().unwrap_or(first) >> (first / 4) } else { first }
}

/// A piece of the plan of at most seven bytes.
fn piece<'a>(plan: &mut Reader<'a>) -> &'a [u8] {
    let bytes = usize::from(plan.u8().unwrap_or_default() % 8);
    plan.bytes(bytes).unwrap_or_default()
}

fn timeline<'a>(plan: &mut Reader<'a>) -> TimelineRef<'a> {
    let name = Some(piece(plan)).filter(|name| !name.is_empty()).unwrap_or(b"t");
    TimelineRef { store: StoreId(number(plan) as u32), name }
}

/// A tail with the planned operations.
pub fn tail(plan: &[u8]) {
    let mut plan = Reader::new(plan);
    let mut writer = TailWriter::default();
    let mut planned = Vec::new();
    let mut body = None;
    while planned.len() < MOST_STEPS
        && let Some(kind) = plan.u8()
    {
        if kind % 2 == 0 || body.is_none() {
            let bytes = [&[0; ORIGIN_BYTES], piece(&mut plan)].concat();
            body = Some(writer.body(&bytes[usize::from(kind % 3)..]));
        }
        let body = body.clone().expect("it was just added");
        planned.push(match kind / 2 % 5 {
            0 => {
                let (stamped, listed) = (body.len() >= ORIGIN_BYTES, kind & 64 != 0);
                let lifetime_ms = number(&mut plan);
                let targets: Vec<_> = (0..kind % 4).map(|_| timeline(&mut plan)).collect();
                writer.append((stamped, listed), lifetime_ms, targets.len());
                for target in &targets {
                    writer.timeline(*target);
                }
                Operation::Append { body, stamped, listed, lifetime_ms, targets }
            }
            1 => {
                let (timeline, sequence) = (timeline(&mut plan), number(&mut plan));
                writer.edit(timeline, sequence);
                Operation::Edit { timeline, sequence, body }
            }
            2 => {
                let timeline = timeline(&mut plan);
                let floor = Floor {
                    lowest: number(&mut plan),
                    start_ms: number(&mut plan),
                    until_ms: number(&mut plan),
                    trimmed_to: number(&mut plan),
                };
                writer.trim(timeline, floor);
                Operation::Trim { timeline, floor }
            }
            3 => {
                let timeline = timeline(&mut plan);
                let ranges: BTreeMap<_, _> = (0..kind % 4)
                    .map(|_| {
                        let first = number(&mut plan);
                        (first, first.saturating_add(number(&mut plan)))
                    })
                    .collect();
                writer.remove(timeline, &ranges);
                Operation::Remove { timeline, ranges: ranges.into_iter().collect() }
            }
            _ => {
                let (timeline, id) = (timeline(&mut plan), piece(&mut plan));
                let hashes = IdHashes { bodies: number(&mut plan), targets: number(&mut plan) };
                writer.id(timeline, id, hashes);
                Operation::Id { timeline, id, hashes }
            }
        });
    }
    let (written, _) = writer.finish();
    assert_eq!(decode_tail(&written), Some(planned), "a tail decodes to what was written");
}

/// An entry as it was planned: the body of an inline one, and the rest.
type PlannedEntry = (u64, Vec<u8>, EntryContent);

/// A run with the planned entries.
pub fn run(plan: &[u8]) {
    let mut plan = Reader::new(plan);
    let name = Some(piece(&mut plan)).filter(|name| !name.is_empty()).unwrap_or(b"t");
    let step = |plan: &mut Reader<'_>| number(plan) % MOST_STEP;
    let (first, mut time_ms) = (step(&mut plan), step(&mut plan));
    let mut writer = RunWriter::new(first, time_ms);
    let mut planned: Vec<PlannedEntry> = Vec::new();
    let (mut sequence, mut shared) = (first, 0);
    while planned.len() < MOST_STEPS
        && let Some(kind) = plan.u8()
    {
        sequence += if kind & 1 == 0 { 0 } else { step(&mut plan) };
        let own_start_ms = if kind & 2 == 0 { None } else { Some(step(&mut plan)) };
        let (body, content) = if kind & 4 == 0 {
            shared += (step(&mut plan) % 1000) as u32;
            writer.shared(sequence, shared, own_start_ms);
            (Vec::new(), EntryContent::Shared { number: shared, own_start_ms })
        } else {
            time_ms += step(&mut plan);
            let start_ms = own_start_ms.unwrap_or(time_ms);
            let expire_at_ms = if kind & 8 == 0 { 0 } else { start_ms + 1 + step(&mut plan) };
            let times = Times { time_ms, start_ms, expire_at_ms };
            let is_elsewhere = kind & 16 != 0;
            let place = Some(CommitPlace(number(&mut plan))).filter(|_| kind & 32 != 0);
            place.into_iter().for_each(|place| writer.place(sequence, place));
            let body = if is_elsewhere { Vec::new() } else { piece(&mut plan).to_vec() };
            if is_elsewhere {
                writer.elsewhere(sequence, times);
            } else {
                writer.inline(sequence, times, &body);
            }
            (body, EntryContent::Inline { times, body: 0..0, is_elsewhere, place })
        };
        planned.push((sequence, body, content));
        sequence += 1;
    }
    let mut block = b"before".to_vec();
    let at = block.len();
    writer.finish(name, &mut block);
    let mut reader = RunReader::at(&block, at).expect("a run was written");
    assert_eq!((reader.name, reader.next_run_at()), (name, block.len()));
    for wanted in planned {
        let (sequence, mut content) = reader.next_entry().expect("an entry was written");
        let mut found = Vec::new();
        if let EntryContent::Inline { body, .. } = &mut content {
            found = block[std::mem::replace(body, 0..0)].to_vec();
        }
        assert_eq!((sequence, found, content), wanted, "an entry decodes to what was written");
    }
    assert_eq!(reader.remaining(), 0);
}
