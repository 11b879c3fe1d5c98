//! Entries in blocks: the runs of timelines, and the bodies that several timelines share.
//!
//! ```text
//!  runs block   := run × n
//!  run          := 0, name, first sequence, first time, count, length of heads, heads,
//!                  length of bodies, bodies
//!                | name, first sequence, first time, count, length, (head, body) × count
//!                                                   ; up to version 5
//!  head         := (length << 2 | own expiry << 1), time − time of the entry before,
//!                  [expiry − start]                 ; a body of this length in the run
//!                | (step << 1 | 1)                  ; the shared body whose number is step − 1
//!                                                   ; after the last shared one of this run
//!                | escape, head
//!  escape       := 1, n                             ; n sequences that were never given
//!                | 1, 0, 0, start                   ; the entry's lifetime began at start, not
//!                                                   ; at its time
//!                | 1, 0, 1                          ; the entry's body, empty here, is an edit
//!                                                   ; in a younger segment
//!                | 1, 0, 2, place − the one before  ; the entry, of a body of its own, was
//!                                                   ; written with the body committed at this
//!                                                   ; place, which may be changed for all its
//!                                                   ; entries
//!  bodies block := slots of shared body
//!  shared body  := time, expiry or 0, body
//!                | time, 1, place, expiry or 0, body
//!                                                   ; a body that may be changed for all its
//!                                                   ; entries: the place of its commit
//! ```
//!
//! All numbers are varints. A run contains its timeline's name, so that blocks can be read without
//! an index. Heads are beside each other: a reader that looks for one entry, or for the last ones,
//! passes over the others without a look at their bodies. The time and the expiry of a shared body
//! are stored with the body: one more receiver costs one or two bytes.

use std::ops::Range;

use super::codec::{Reader, put_name, put_varint};
use super::slots::{Slots, SlotsWriter};
pub use crate::ids::CommitPlace;
use crate::ids::{Sequence, TimeMs};
pub use crate::timeline::{PlainEntry, Times};

/// The first byte of a run whose heads are before all of its bodies. In a run of an earlier version
/// it is the length of a name, which is never empty.
const HEADS_FIRST: u8 = 0;

/// The meaning of an escape before an entry.
const OWN_START: u64 = 0;
const ELSEWHERE: u64 = 1;
const PLACE: u64 = 2;

/// The location of an entry's content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EntryContent {
    /// In the run itself.
    Inline {
        /// Its commit time, and its lifetime.
        times: Times,
        /// The byte range of the body in the raw block.
        body: Range<usize>,
        /// The body is not here: the entry was edited, and the new body is in a younger segment.
        is_elsewhere: bool,
        /// The place of the commit of the body that the entry was written with, if that body may
        /// be changed for all its entries.
        place: Option<CommitPlace>,
    },
    /// In a body that other entries of the segment share.
    Shared {
        /// The number of the body.
        number: u32,
        /// The start of the lifetime, if it is not the body's time.
        own_start_ms: Option<TimeMs>,
    },
}

/// Encodes one run.
#[derive(Debug)]
pub struct RunWriter {
    first: Sequence,
    next: Sequence,
    first_time_ms: TimeMs,
    time_ms: TimeMs,
    shared: u32,
    place: u64,
    count: u64,
    heads: Vec<u8>,
    bodies: Vec<u8>,
}

impl RunWriter {
    /// A run whose first entry has this sequence and time.
    pub fn new(first: Sequence, first_time_ms: TimeMs) -> RunWriter {
        RunWriter {
            first,
            next: first,
            first_time_ms,
            time_ms: first_time_ms,
            shared: 0,
            place: 0,
            count: 0,
            heads: Vec::new(),
            bodies: Vec::new(),
        }
    }

    /// The number of bytes so far.
    pub fn len(&self) -> usize {
        self.heads.len() + self.bodies.len()
    }

    /// Whether there is no entry yet.
    #[cfg(feature = "internals")]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    fn step_over(&mut self, sequence: Sequence, own_start_ms: Option<TimeMs>) {
        if sequence > self.next {
            put_varint(&mut self.heads, 1);
            put_varint(&mut self.heads, sequence - self.next);
        }
        if let Some(start_ms) = own_start_ms {
            [1, 0, OWN_START, start_ms]
                .into_iter()
                .for_each(|number| put_varint(&mut self.heads, number));
        }
        self.next = sequence;
    }

    fn step_to(&mut self, sequence: Sequence, own_start_ms: Option<TimeMs>) {
        self.step_over(sequence, own_start_ms);
        self.next = sequence + 1;
        self.count += 1;
    }

    /// Marks the entry that is added next: it was written with the body committed at `place`.
    pub fn place(&mut self, sequence: Sequence, place: CommitPlace) {
        self.step_over(sequence, None);
        // When parts of several segments are merged, places may decrease.
        let step = place.0.wrapping_sub(self.place);
        [1, 0, PLACE, step].into_iter().for_each(|number| put_varint(&mut self.heads, number));
        self.place = place.0;
    }

    /// Adds an entry with its own body.
    pub fn inline(&mut self, sequence: Sequence, times: Times, body: &[u8]) {
        let Times { time_ms, expire_at_ms, .. } = times;
        self.step_to(sequence, times.own_start_ms());
        let own_expiry = expire_at_ms != 0;
        put_varint(&mut self.heads, (body.len() as u64) << 2 | u64::from(own_expiry) << 1);
        put_varint(&mut self.heads, time_ms.saturating_sub(self.time_ms));
        self.time_ms = self.time_ms.max(time_ms);
        if own_expiry {
            put_varint(&mut self.heads, expire_at_ms.saturating_sub(times.start_ms));
        }
        self.bodies.extend_from_slice(body);
    }

    /// Adds an entry that was edited: its body is in a younger segment.
    pub fn elsewhere(&mut self, sequence: Sequence, times: Times) {
        self.step_over(sequence, None);
        [1, 0, ELSEWHERE].into_iter().for_each(|number| put_varint(&mut self.heads, number));
        self.inline(sequence, times, &[]);
    }

    /// Adds an entry with the shared body of this number. Numbers do not decrease inside a run.
    pub fn shared(&mut self, sequence: Sequence, body: u32, own_start_ms: Option<TimeMs>) {
        self.step_to(sequence, own_start_ms);
        put_varint(&mut self.heads, (u64::from(body - self.shared) + 1) << 1 | 1);
        self.shared = body;
    }

    /// Appends the whole run to a block.
    pub fn finish(self, name: &[u8], block: &mut Vec<u8>) {
        block.push(HEADS_FIRST);
        put_name(block, name);
        put_varint(block, self.first);
        put_varint(block, self.first_time_ms);
        put_varint(block, self.count);
        put_varint(block, self.heads.len() as u64);
        block.extend_from_slice(&self.heads);
        put_varint(block, self.bodies.len() as u64);
        block.extend_from_slice(&self.bodies);
    }
}

/// Reads one run. `None` is the end; a run that breaks off before its count is damage, which
/// `remaining` shows.
#[derive(Clone, Debug)]
pub struct RunReader<'a> {
    /// The timeline's name.
    pub name: &'a [u8],
    heads: Reader<'a>,
    /// The bodies that are not read yet, in the block; `None`: each is after its head.
    bodies: Option<Range<usize>>,
    block_bytes: usize,
    /// The number of bytes of the block after the heads.
    behind_heads: usize,
    next_run_at: usize,
    sequence: Sequence,
    time_ms: TimeMs,
    shared: u64,
    place: u64,
    remaining: u64,
}

impl<'a> RunReader<'a> {
    /// The run that starts at `at` in a raw block.
    pub fn at(block: &'a [u8], at: usize) -> Option<RunReader<'a>> {
        let mut reader = Reader::new(block.get(at..)?);
        let heads_first = reader.rest().first() == Some(&HEADS_FIRST);
        if heads_first {
            reader.u8()?;
        }
        let name = reader.name().filter(|name| !name.is_empty())?;
        let sequence = reader.varint()?;
        let time_ms = reader.varint()?;
        let remaining = reader.varint()?;
        let heads = Reader::new(reader.piece()?);
        let behind_heads = reader.rest().len();
        let bodies = if heads_first { Some(reader.piece()?.len()) } else { None };
        let next_run_at = block.len() - reader.rest().len();
        Some(RunReader {
            name,
            heads,
            bodies: bodies.map(|bytes| next_run_at - bytes..next_run_at),
            block_bytes: block.len(),
            behind_heads,
            next_run_at,
            sequence,
            time_ms,
            shared: 0,
            place: 0,
            remaining,
        })
    }

    /// The offset of the next run, if there is one; otherwise the end of the block.
    pub fn next_run_at(&self) -> usize {
        self.next_run_at
    }

    /// The number of entries that are not read yet.
    pub fn remaining(&self) -> u64 {
        self.remaining
    }

    /// The lowest sequence that the next entry can have.
    pub fn next_sequence(&self) -> Sequence {
        self.sequence
    }

    /// Passes over entries below a sequence. It may stop before: at what is not usual, or broken.
    pub fn skip_below(&mut self, low: Sequence) {
        while self.remaining > 0 && self.sequence < low {
            let mut heads = self.heads;
            let Some(head) = heads.varint() else { return };
            if head & 1 == 0 || head == 1 {
                let before = self.sequence;
                self.plain_to(low - 1, |_| ());
                if self.sequence == before {
                    return;
                }
                continue;
            }
            let shared = self.shared.checked_add((head >> 1) - 1);
            let Some(shared) = shared.filter(|shared| u32::try_from(*shared).is_ok()) else {
                return;
            };
            (self.shared, self.heads) = (shared, heads);
            self.sequence += 1;
            self.remaining -= 1;
        }
    }

    /// Reads the plain entries that come next, up to a sequence, and passes them on. It stops
    /// before an entry that is not plain, or broken.
    pub fn plain_to(&mut self, high: Sequence, mut pass_on: impl FnMut(PlainEntry)) {
        let Some(Range { start: mut body_at, end: bodies_end }) = self.bodies.clone() else {
            return;
        };
        // Copies: the compiler keeps them in registers.
        let RunReader { mut heads, mut sequence, mut time_ms, place: mut last_place, .. } = *self;
        let mut remaining = self.remaining;
        while remaining > 0 && sequence <= high && sequence < Sequence::MAX {
            let (mut ahead, mut place) = (heads, None);
            let Some(mut head) = ahead.varint() else { break };
            if head == 1 {
                let mut number = || ahead.varint();
                let (Some(0), Some(PLACE), Some(step), Some(behind)) =
                    (number(), number(), number(), number())
                else {
                    break;
                };
                (place, head) = (Some(CommitPlace(last_place.wrapping_add(step))), behind);
            }
            let Some(step_ms) = ahead.varint() else { break };
            let body_bytes = head >> 2;
            let is_there = body_bytes <= (bodies_end - body_at) as u64;
            let (0, true, Some(time)) = (head & 3, is_there, time_ms.checked_add(step_ms)) else {
                break;
            };
            let body = body_at..body_at + body_bytes as usize;
            body_at = body.end;
            (heads, time_ms, last_place) = (ahead, time, place.map_or(last_place, |place| place.0));
            pass_on(PlainEntry { sequence, time_ms, place, body });
            (sequence, remaining) = (sequence + 1, remaining - 1);
        }
        self.bodies = Some(body_at..bodies_end);
        (self.heads, self.sequence, self.time_ms) = (heads, sequence, time_ms);
        (self.place, self.remaining) = (last_place, remaining);
    }

    /// The next entry; `None` at the end and at broken bytes.
    #[inline]
    pub fn next_entry(&mut self) -> Option<(Sequence, EntryContent)> {
        if self.remaining == 0 {
            return None;
        }
        let mut head = self.heads.varint()?;
        let (mut own_start_ms, mut is_elsewhere, mut place) = (None, false, None);
        while head == 1 {
            match self.heads.varint()? {
                0 => match self.heads.varint()? {
                    OWN_START => own_start_ms = Some(self.heads.varint()?),
                    ELSEWHERE => is_elsewhere = true,
                    PLACE => {
                        self.place = self.place.wrapping_add(self.heads.varint()?);
                        place = Some(CommitPlace(self.place));
                    }
                    _ => return None,
                },
                passed_over => self.sequence = self.sequence.checked_add(passed_over)?,
            }
            head = self.heads.varint()?;
        }
        let content = if head & 1 == 1 {
            if is_elsewhere || place.is_some() {
                return None;
            }
            EntryContent::Shared { number: self.shared_number(head >> 1)?, own_start_ms }
        } else {
            self.inline_content(head, own_start_ms, (is_elsewhere, place))?
        };
        let sequence = self.sequence;
        self.sequence = sequence.checked_add(1)?;
        self.remaining -= 1;
        Some((sequence, content))
    }

    fn shared_number(&mut self, step: u64) -> Option<u32> {
        self.shared = self.shared.checked_add(step.checked_sub(1)?)?;
        u32::try_from(self.shared).ok()
    }

    #[inline]
    fn inline_content(
        &mut self,
        head: u64,
        own_start_ms: Option<TimeMs>,
        (is_elsewhere, place): (bool, Option<CommitPlace>),
    ) -> Option<EntryContent> {
        let len = usize::try_from(head >> 2).ok()?;
        self.time_ms = self.time_ms.checked_add(self.heads.varint()?)?;
        let start_ms = own_start_ms.unwrap_or(self.time_ms);
        let expire_at_ms =
            if head & 2 == 0 { 0 } else { start_ms.checked_add(self.heads.varint()?)? };
        let body = self.body(len)?;
        let times = Times::stored(self.time_ms, own_start_ms, expire_at_ms);
        Some(EntryContent::Inline { times, body, is_elsewhere, place })
    }

    /// The range of the next body in the block.
    #[inline]
    fn body(&mut self, len: usize) -> Option<Range<usize>> {
        if let Some(bodies) = &mut self.bodies {
            let start = bodies.start;
            bodies.start = start.checked_add(len).filter(|end| *end <= bodies.end)?;
            return Some(start..bodies.start);
        }
        let start = self.block_bytes - self.behind_heads - self.heads.rest().len();
        self.heads.bytes(len)?;
        Some(start..start + len)
    }
}

/// A body that several entries share, or that replaces an entry's body.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SharedBody {
    /// Its commit time.
    pub time_ms: TimeMs,
    /// The time at which its entries expire by an expiry of their own; 0: never.
    pub expire_at_ms: TimeMs,
    /// The place of its commit, if it may be changed for all its entries.
    pub place: Option<CommitPlace>,
}

/// Marks a shared body with a place; it is in the position of the expiry.
const PLACED: u64 = 1;

/// Adds a body to a block of shared bodies.
pub fn put_shared_body(block: &mut SlotsWriter, shared: SharedBody, body: &[u8]) {
    block.add(|out| {
        put_varint(out, shared.time_ms);
        if let Some(place) = shared.place {
            put_varint(out, PLACED);
            put_varint(out, place.0);
        }
        put_varint(out, shared.expire_at_ms);
        out.extend_from_slice(body);
    });
}

/// The properties of a shared body, and its byte range in the raw block.
pub fn shared_body(block: &[u8], number: usize) -> Option<(SharedBody, Range<usize>)> {
    let range = Slots::new(block)?.range(number)?;
    let mut reader = Reader::new(block.get(range.clone())?);
    let (time_ms, mut expire_at_ms, mut place) = (reader.varint()?, reader.varint()?, None);
    if expire_at_ms == PLACED {
        (place, expire_at_ms) = (Some(CommitPlace(reader.varint()?)), reader.varint()?);
    }
    Some((SharedBody { time_ms, expire_at_ms, place }, range.end - reader.rest().len()..range.end))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_run_reads_back_as_written() {
        let mut run = RunWriter::new(5, 1000);
        let times = |time_ms, start_ms, expire_at_ms| Times { time_ms, start_ms, expire_at_ms };
        run.inline(5, times(1000, 1000, 0), b"five");
        run.shared(6, 0, None);
        run.shared(7, 0, Some(77));
        run.inline(20, times(1500, 1500, 9000), b"");
        run.shared(21, 300, None);
        run.inline(22, times(1600, 200, 300), b"early");
        run.inline(23, times(1600, 1600, 1700), b"");
        run.elsewhere(25, times(1600, 1600, 9000));
        run.elsewhere(26, times(1600, 50, 9000));
        run.place(30, CommitPlace(4096));
        run.inline(30, times(1600, 1600, 0), b"");
        run.place(31, CommitPlace(7));
        run.elsewhere(31, times(1600, 50, 0));
        let mut block = b"before".to_vec();
        run.finish(b"c/1", &mut block);
        let end = block.len();
        block.extend_from_slice(b"after");
        let mut reader = RunReader::at(&block, 6).expect("a run");
        assert_eq!(
            (reader.name, reader.next_run_at(), reader.remaining()),
            (b"c/1".as_slice(), end, 11)
        );
        let (mut seen, mut places) = (Vec::new(), Vec::new());
        while let Some((sequence, content)) = reader.next_entry() {
            if let EntryContent::Inline { place: Some(place), .. } = content {
                places.push((sequence, place.0));
            }
            seen.push(match content {
                EntryContent::Inline { times, is_elsewhere: true, body, .. } if body.is_empty() => {
                    (sequence, times, b"elsewhere".to_vec())
                }
                EntryContent::Inline { times, body, .. } => (sequence, times, block[body].to_vec()),
                EntryContent::Shared { number, own_start_ms } => {
                    let times = Times::stored(u64::from(number), own_start_ms, 0);
                    (sequence, times, b"shared".to_vec())
                }
            });
        }
        assert_eq!(
            seen,
            [
                (5, times(1000, 1000, 0), b"five".to_vec()),
                (6, times(0, 0, 0), b"shared".to_vec()),
                (7, times(0, 77, 0), b"shared".to_vec()),
                (20, times(1500, 1500, 9000), b"".to_vec()),
                (21, times(300, 300, 0), b"shared".to_vec()),
                (22, times(1600, 200, 300), b"early".to_vec()),
                (23, times(1600, 1600, 1700), b"".to_vec()),
                (25, times(1600, 1600, 9000), b"elsewhere".to_vec()),
                (26, times(1600, 50, 9000), b"elsewhere".to_vec()),
                (30, times(1600, 1600, 0), b"".to_vec()),
                (31, times(1600, 50, 0), b"elsewhere".to_vec()),
            ]
        );
        assert_eq!(places, [(30, 4096), (31, 7)]);
        assert_eq!(reader.remaining(), 0);
    }

    #[test]
    fn entries_below_a_sequence_are_passed_over() {
        let mut run = RunWriter::new(5, 1000);
        let times = |time_ms, start_ms, expire_at_ms| Times { time_ms, start_ms, expire_at_ms };
        for sequence in [5, 6, 7, 20, 21, 22] {
            if sequence == 5 || sequence == 22 {
                run.place(sequence, CommitPlace(4096 + sequence));
            }
            match sequence {
                6 => run.shared(6, 3, None),
                7 => run.inline(7, times(1100, 1100, 2000), b"own expiry"),
                21 => run.shared(21, 300, Some(4)),
                _ => run.inline(sequence, times(1000 + sequence, 1000 + sequence, 0), b"body"),
            }
        }
        let mut block = Vec::new();
        run.finish(b"c/1", &mut block);
        let rest =
            |mut run: RunReader<'_>| std::iter::from_fn(|| run.next_entry()).collect::<Vec<_>>();
        let all = rest(RunReader::at(&block, 0).expect("a run"));
        assert_eq!(all.len(), 6);
        for low in 0..25 {
            let mut run = RunReader::at(&block, 0).expect("a run");
            run.skip_below(low);
            let left = rest(run);
            assert_eq!(left[..], all[all.len() - left.len()..], "from {low}");
            assert!(
                left.iter()
                    .filter(|(sequence, _)| *sequence >= low)
                    .eq(all.iter().filter(|(sequence, _)| *sequence >= low))
            );
        }
    }

    #[test]
    fn a_run_of_an_earlier_version_reads_back() {
        let mut block = b"before".to_vec();
        put_name(&mut block, b"c/1");
        // Two entries from sequence 5 and time 9 on, in nine bytes; then the next run.
        block.extend([5, 9, 2, 9, 4 << 2, 1, b'f', b'o', b'u', b'r', 1 << 2, 2, b'x', 0]);
        let mut run = RunReader::at(&block, 6).expect("a run");
        assert_eq!((run.name, run.next_run_at()), (b"c/1".as_slice(), block.len() - 1));
        for (at, time_ms, bytes) in [(5, 10, b"four".as_slice()), (6, 12, b"x")] {
            let (sequence, content) = run.next_entry().expect("an entry");
            let EntryContent::Inline { times, body, .. } = content else { panic!("{content:?}") };
            assert_eq!((sequence, times.time_ms, &block[body]), (at, time_ms, bytes));
        }
        assert!(run.next_entry().is_none() && run.remaining() == 0);
    }

    #[test]
    fn bodies_that_end_before_their_heads_do_are_damage() {
        let mut run = RunWriter::new(1, 0);
        run.inline(1, Times::stored(0, None, 0), b"body");
        let mut block = Vec::new();
        run.finish(b"t", &mut block);
        let at = block.len() - 5;
        assert_eq!(block[at], 4);
        block[at] = 3;
        let mut run = RunReader::at(&block, 0).expect("a run");
        assert!(run.next_entry().is_none() && run.remaining() == 1);
    }

    #[test]
    fn a_shared_body_reads_back_with_its_time() {
        let mut block = SlotsWriter::default();
        let one = SharedBody { time_ms: 10, ..SharedBody::default() };
        let two = SharedBody { time_ms: 20, expire_at_ms: 500, place: None };
        let all = [
            one,
            two,
            SharedBody { place: Some(CommitPlace(7)), ..one },
            SharedBody { place: Some(CommitPlace(0)), ..two },
        ];
        for shared in all {
            put_shared_body(&mut block, shared, b"body");
        }
        let raw = block.finish();
        for (number, shared) in all.iter().enumerate() {
            let (found, body) = shared_body(&raw, number).expect("a body");
            assert_eq!((found, &raw[body]), (*shared, b"body".as_slice()));
        }
        assert_eq!(shared_body(&raw, 4), None);
    }

    /// What `next_entry` reads; with a bound, plain entries up to it are read by `plain_to`. And
    /// how many entries are not read.
    fn read_all(
        mut run: RunReader<'_>,
        plain_to: Option<Sequence>,
    ) -> (Vec<(Sequence, EntryContent)>, u64) {
        let mut all = Vec::new();
        loop {
            if let Some(high) = plain_to {
                run.plain_to(high, |PlainEntry { sequence, time_ms, place, body }| {
                    let times = Times::stored(time_ms, None, 0);
                    let content = EntryContent::Inline { times, body, is_elsewhere: false, place };
                    all.push((sequence, content));
                });
            }
            let Some(entry) = run.next_entry() else { return (all, run.remaining()) };
            all.push(entry);
        }
    }

    #[test]
    fn plain_entries_are_read_up_to_a_sequence_and_not_above_it() {
        let mut run = RunWriter::new(5, 1000);
        for sequence in 5..15 {
            run.inline(sequence, Times::stored(1000 + sequence, None, 0), b"body");
        }
        let mut block = Vec::new();
        run.finish(b"c/1", &mut block);
        for high in 0..20 {
            let mut run = RunReader::at(&block, 0).expect("a run");
            let mut read = Vec::new();
            run.plain_to(high, |entry| read.push((entry.sequence, entry.time_ms)));
            let expected: Vec<_> =
                (5..15).filter(|at| *at <= high).map(|at| (at, 1000 + at)).collect();
            assert_eq!(read, expected, "up to {high}");
            assert_eq!(run.next_sequence(), 5 + read.len() as u64);
        }
    }

    proptest! {
        #[test]
        fn plain_entries_are_those_that_each_entry_alone_gives(
            heads in prop::collection::vec(prop_oneof![0_u8..5, 8_u8..10, 127_u8..=130], 0..60),
            count in 0_u64..30,
            bodies in 0_usize..40,
            high in 0_u64..40,
        ) {
            let mut block = vec![HEADS_FIRST];
            put_name(&mut block, b"t");
            for number in [1, 1000, count, heads.len() as u64] {
                put_varint(&mut block, number);
            }
            block.extend(&heads);
            put_varint(&mut block, bodies as u64);
            block.resize(block.len() + bodies, 7);
            let run = RunReader::at(&block, 0).expect("a run");
            prop_assert_eq!(read_all(run.clone(), Some(high)), read_all(run, None));
        }

        #[test]
        fn any_bytes_are_entries_or_refused(block: Vec<u8>, at in 0usize..40) {
            if let Some(mut reader) = RunReader::at(&block, at) {
                while let Some((_, content)) = reader.next_entry() {
                    if let EntryContent::Inline { body, .. } = content {
                        prop_assert!(block.get(body).is_some());
                    }
                }
            }
            let _ = shared_body(&block, at);
        }
    }
}
