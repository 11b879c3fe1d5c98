//! The only interpreter of records (P1, P2, P3): the effects of a batch's operations, and their
//! order.
//!
//! A commit, a replay and a salvage each call [`apply`] with a sink of their own. So a record has
//! the same meaning when it is committed, when it is replayed after a crash, and when it is
//! salvaged from a damaged directory. A replay and a salvage read records with an [`Interpreter`],
//! which remembers the lists that records have in full, for those that refer to them.
//!
//! 1. Appends come first. Each target takes the next of the record's sequences: the named ones,
//!    then those of the list.
//! 2. A body that has a target takes the next place of its group. A stamped body begins with its
//!    origin, the sequence of the record's first append.
//! 3. Changes follow. Each has the last sequence of its timeline after step 1. An edit above that
//!    sequence is skipped and takes no place: the entry that gets this sequence later is another
//!    one.
//! 4. The client's id remembers the sequences that were given.
//!
//! This file does not know slots, dropped stores, or where a sink stores its data.

use std::borrow::Cow;
use std::collections::HashMap;
use std::ops::Range;

use bytes::Bytes;

use super::batch::remembered;
use crate::format::ids::IdRecord;
use crate::format::list::{RecordList, decode_list, list_hash};
use crate::format::wal::{Operation, Record, count_sequences, decode_tail, stamp};
use crate::ids::{CommitPlace, Lsn, Sequence, TimeMs, TimelineRef};
use crate::memtable::{Body, Effect};
use crate::timeline::Times;

/// Numbers the bodies and edits of one group of the log.
#[derive(Clone, Copy, Debug, Default)]
pub struct CommitPlaces {
    at: Lsn,
    taken: u64,
}

impl CommitPlaces {
    /// The places of the group that starts at `at`.
    pub fn new(at: Lsn) -> CommitPlaces {
        CommitPlaces { at, taken: 0 }
    }

    /// Starts over if a record is in another group than the previous record.
    pub fn of_group(&mut self, at: Lsn) {
        if self.at != at {
            *self = CommitPlaces::new(at);
        }
    }

    fn next(&mut self) -> CommitPlace {
        self.taken += 1;
        CommitPlace(self.at.0 + self.taken)
    }
}

/// The data of a record in addition to its operations.
#[derive(Clone, Copy, Debug)]
pub struct RecordFacts<'a> {
    /// Its commit time.
    pub time_ms: TimeMs,
    /// The start of the lifetimes and id windows of the batch.
    pub start_ms: TimeMs,
    /// Whether the caller chose the first sequence.
    pub chosen: bool,
    /// The sequences of its appends.
    pub given: &'a [Sequence],
    /// The last sequence of each timeline that it changes, in the order of the changes.
    pub ends: &'a [Sequence],
    /// The bytes that contain its bodies, names and ids.
    pub tail: &'a Bytes,
}

/// A timeline that a record names. Appends are numbered first, then changes, starting with 0. An id
/// has the number of the first append.
#[derive(Clone, Copy, Debug)]
pub struct Named<'a> {
    pub number: usize,
    pub timeline: TimelineRef<'a>,
}

/// Receives the effects of a record. It receives all of them, whatever it makes of them: the places
/// of bodies and edits are those of the commit.
pub trait Sink {
    /// Receives a body; the entries that follow have it. `is_copy`: its bytes are not part of the
    /// tail.
    fn body(&mut self, body: Body, is_copy: bool);

    /// Receives an entry of the last body. `is_chosen`: the caller chose its sequence.
    fn entry(&mut self, named: Named<'_>, sequence: Sequence, is_chosen: bool);

    /// Receives a change. `end` is the last sequence of the timeline, or 0 for an id, whose
    /// timeline was appended to; `place` is the place of an edit's commit.
    fn change(&mut self, named: Named<'_>, end: Sequence, effect: Effect, place: CommitPlace);
}

/// Applies a record's operations to a sink, as described in the heading. Appends come before
/// changes in `operations`; the facts have as many sequences and ends as the operations need.
pub fn apply<'a, T, S>(
    operations: impl Iterator<Item = Operation<'a, T>>,
    facts: RecordFacts<'_>,
    places: &mut CommitPlaces,
    sink: &mut S,
) where
    T: IntoIterator<Item = TimelineRef<'a>, IntoIter: ExactSizeIterator>,
    S: Sink,
{
    let (given, ends) = (facts.given.iter().copied(), facts.ends.iter().copied());
    let mut applying = Applying { facts, sequences: given, ends, number: 0, places, sink };
    operations.for_each(|operation| applying.operation(operation));
}

const COUNTED: &str = "a record has a sequence for each append and change";

/// A record that is being applied.
struct Applying<'f, 'p, S, Q> {
    facts: RecordFacts<'f>,
    /// The sequences that are left.
    sequences: Q,
    /// The ends that are left.
    ends: Q,
    /// The number of the next timeline.
    number: usize,
    places: &'p mut CommitPlaces,
    sink: &'p mut S,
}

impl<S: Sink, Q: Iterator<Item = Sequence>> Applying<'_, '_, S, Q> {
    #[inline]
    fn operation<'a, T>(&mut self, operation: Operation<'a, T>)
    where
        T: IntoIterator<Item = TimelineRef<'a>, IntoIter: ExactSizeIterator>,
    {
        let RecordFacts { time_ms, start_ms, given, tail, .. } = self.facts;
        match operation {
            Operation::Append { body, stamped, listed, lifetime_ms, targets } => {
                self.append(body, (stamped, listed), lifetime_ms, targets.into_iter());
            }
            Operation::Trim { timeline, floor } => self.change(timeline, Effect::Trim(floor)),
            Operation::Remove { timeline, ranges } => self.change(timeline, Effect::Remove(ranges)),
            Operation::Edit { timeline, sequence, body } => {
                self.change(timeline, Effect::Edit(sequence, tail.slice(body)));
            }
            Operation::Id { timeline, id, hashes } => {
                let sequences = remembered(hashes, given).into();
                let used = IdRecord { hashes, time_ms, start_ms, sequences };
                let effect = Effect::Id(tail.slice_ref(id), used);
                let named = Named { number: 0, timeline };
                self.sink.change(named, 0, effect, CommitPlace::default());
            }
        }
    }

    #[inline]
    fn append<'a>(
        &mut self,
        body: Range<usize>,
        (stamped, listed): (bool, bool),
        lifetime_ms: u64,
        targets: impl ExactSizeIterator<Item = TimelineRef<'a>>,
    ) {
        let RecordFacts { time_ms, start_ms, chosen, given, tail, .. } = self.facts;
        if targets.len() == 0 {
            return;
        }
        let times = Times::new(time_ms, start_ms, lifetime_ms);
        let bytes = if stamped { stamped_body(tail, body, given) } else { tail.slice(body) };
        // Also if the list is lost: a change of the body must find the entries that are left.
        let is_shared = targets.len() > 1 || listed;
        self.sink.body(Body { times, bytes, place: self.places.next(), is_shared }, stamped);
        for timeline in targets {
            let sequence = self.sequences.next().expect(COUNTED);
            let named = Named { number: self.number, timeline };
            self.sink.entry(named, sequence, chosen && self.number == 0);
            self.number += 1;
        }
    }

    fn change(&mut self, timeline: TimelineRef<'_>, effect: Effect) {
        let end = self.ends.next().expect(COUNTED);
        let named = Named { number: self.number, timeline };
        self.number += 1;
        let place = match effect {
            Effect::Edit(sequence, _) if sequence > end => return,
            Effect::Edit(..) => self.places.next(),
            _ => CommitPlace::default(),
        };
        self.sink.change(named, end, effect, place);
    }
}

fn stamped_body(tail: &Bytes, body: Range<usize>, given: &[Sequence]) -> Bytes {
    stamp(&tail[body], given.first().copied().unwrap_or(0)).into()
}

/// What is wrong with a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flaw {
    /// The record itself; nothing of it is applied.
    Record(&'static str),
    /// The record that has its list, in the group at this lsn, is lost: only the timelines that it
    /// names are known.
    ListLost(Lsn),
}

impl std::fmt::Display for Flaw {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Flaw::Record(what) => out.write_str(what),
            Flaw::ListLost(at) => write!(
                out,
                "the list of its targets, which a record at {at} had, is lost; only the timelines \
                 that it names itself are known"
            ),
        }
    }
}

/// Reads the records of a log, in their order.
#[derive(Debug, Default)]
pub struct Interpreter {
    places: CommitPlaces,
    /// The lists that records have in full, by the lsn of the group and the hash of the list.
    lists: HashMap<(Lsn, u64), LoggedList>,
}

#[derive(Debug)]
struct LoggedList {
    bytes: Vec<u8>,
    /// The sequences that the record gave to the targets of the list.
    sequences: Vec<Sequence>,
}

impl Interpreter {
    /// Applies a record of the group at `at`. If it has a flaw, the sink receives nothing. With
    /// `in_part`, a record whose list is lost is applied to the timelines that it names.
    pub fn apply<S: Sink>(
        &mut self,
        at: Lsn,
        record: &Record<'_>,
        tail: &Bytes,
        in_part: bool,
        sink: &mut S,
    ) -> Result<(), Flaw> {
        self.places.of_group(at);
        let mut operations =
            decode_tail(tail).ok_or(Flaw::Record("its operations cannot be read"))?;
        let mut sequences = Cow::from(&record.sequences);
        let resolved = resolve(&mut self.lists, at, record, &mut operations, &mut sequences);
        let is_lost = matches!(resolved, Err(Flaw::ListLost(_)));
        if resolved.is_err() && !(is_lost && in_part) {
            return resolved;
        }
        let (appends, _) = count_sequences(&operations);
        let (given, ends) = sequences.split_at(appends);
        let facts = RecordFacts {
            time_ms: record.time_ms,
            start_ms: record.start_ms,
            chosen: record.chosen,
            given,
            ends,
            tail,
        };
        // Stable, so appends come first, and each kind keeps its order.
        operations.sort_by_key(|operation| !matches!(operation, Operation::Append { .. }));
        apply(operations.into_iter(), facts, &mut self.places, sink);
        resolved
    }

    /// Checks a record of the group at `at`, without applying it.
    pub fn check(&mut self, at: Lsn, record: &Record<'_>) -> Result<(), Flaw> {
        let mut operations =
            decode_tail(record.tail).ok_or(Flaw::Record("its operations cannot be read"))?;
        let mut sequences = Cow::from(&record.sequences);
        resolve(&mut self.lists, at, record, &mut operations, &mut sequences)
    }
}

/// Adds the targets of a record's list to the operations, and the sequences from which theirs are
/// counted to the sequences. Then the number of the sequences is that which the operations need. If
/// the list is lost, the sequences of its targets are removed.
fn resolve<'l>(
    lists: &'l mut HashMap<(Lsn, u64), LoggedList>,
    at: Lsn,
    record: &Record<'l>,
    operations: &mut [Operation<'l>],
    sequences: &mut Cow<'_, [Sequence]>,
) -> Result<(), Flaw> {
    const COUNT: Flaw = Flaw::Record("it has more or fewer sequences than its operations need");
    let (appends, changes) = count_sequences(operations);
    let is_listed =
        |operation: &Operation<'_>| matches!(operation, Operation::Append { listed: true, .. });
    let place = operations.iter().position(is_listed);
    let is_one = operations.iter().filter(|operation| is_listed(operation)).count() < 2;
    if !is_one || place.is_some() != record.list.is_some() {
        return Err(Flaw::Record("its list and its operations contradict each other"));
    }
    let (Some(place), Some(list)) = (place, record.list) else {
        return if sequences.len() == appends + changes { Ok(()) } else { Err(COUNT) };
    };
    let (after, _) = count_sequences(&operations[..=place]);
    let count = sequences.len().checked_sub(appends + changes).ok_or(COUNT)?;
    let listed = after..after + count;
    let bytes = match list {
        RecordList::Full(bytes) => {
            // Of several with the same hash in a group, the first counts.
            lists.entry((at, list_hash(bytes))).or_insert_with(|| LoggedList {
                bytes: bytes.to_vec(),
                sequences: sequences[listed.clone()].to_vec(),
            });
            bytes
        }
        RecordList::Earlier(earlier, hash) => {
            let lists: &'l HashMap<_, _> = lists;
            let Some(known) = lists.get(&(earlier, hash)) else {
                sequences.to_mut().drain(listed);
                return Err(Flaw::ListLost(earlier));
            };
            if known.sequences.len() != count {
                return Err(COUNT);
            }
            for (sequence, base) in sequences.to_mut()[listed].iter_mut().zip(&known.sequences) {
                *sequence = sequence.checked_add(*base).ok_or(COUNT)?;
            }
            &known.bytes
        }
    };
    let timelines = decode_list(bytes).ok_or(Flaw::Record("its list cannot be read"))?;
    if timelines.len() != count {
        return Err(COUNT);
    }
    if let Some(Operation::Append { targets, .. }) = operations.get_mut(place) {
        targets.extend(timelines);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::format::wal::ORIGIN_BYTES;
    use crate::ids::{Instance, StoreId, StoreKey};
    use crate::options::Options;
    use crate::timeline::Floor;
    use crate::write::batch::{Batch, Prepared, TargetList};

    const STORE: StoreId = StoreId(7);
    const AT: Lsn = Lsn(4096);
    const LATER: Lsn = Lsn(8192);

    /// Keeps everything that it receives.
    #[derive(Debug, Default, PartialEq)]
    struct Taken {
        bodies: Vec<(Bytes, CommitPlace, bool)>,
        /// Timeline, sequence, number of the body, whether the sequence was chosen.
        entries: Vec<(Vec<u8>, Sequence, usize, bool)>,
        changes: Vec<(Vec<u8>, Sequence, Effect, CommitPlace)>,
        numbers: Vec<usize>,
    }

    impl Sink for Taken {
        fn body(&mut self, body: Body, _: bool) {
            self.bodies.push((body.bytes, body.place, body.is_shared));
        }

        fn entry(&mut self, named: Named<'_>, sequence: Sequence, chosen: bool) {
            let name = named.timeline.name.to_vec();
            self.entries.push((name, sequence, self.bodies.len() - 1, chosen));
            self.numbers.push(named.number);
        }

        fn change(&mut self, named: Named<'_>, end: Sequence, effect: Effect, place: CommitPlace) {
            self.changes.push((named.timeline.name.to_vec(), end, effect, place));
            self.numbers.push(named.number);
        }
    }

    /// One call on a batch.
    #[derive(Clone, Debug)]
    enum Call {
        Append(u8, usize),
        FanOut(Vec<u8>, usize),
        /// To one timeline, and to those of a list.
        ToList(u8, Vec<u8>, usize),
        Trim(u8, Sequence),
        Remove(u8, Sequence),
        Edit(u8, Sequence),
    }

    fn calls() -> impl Strategy<Value = Vec<Call>> {
        let timeline = 0..4_u8;
        let call = prop_oneof![
            3 => (timeline.clone(), 0..20_usize).prop_map(|(to, bytes)| Call::Append(to, bytes)),
            2 => (vec(timeline.clone(), 0..5), 0..20_usize)
                .prop_map(|(to, bytes)| Call::FanOut(to, bytes)),
            1 => (timeline.clone(), vec(timeline.clone(), 0..5), 0..20_usize)
                .prop_map(|(to, list, bytes)| Call::ToList(to, list, bytes)),
            1 => (timeline.clone(), 1..9_u64).prop_map(|(of, lowest)| Call::Trim(of, lowest)),
            1 => (timeline.clone(), 1..9_u64).prop_map(|(of, at)| Call::Remove(of, at)),
            2 => (timeline, 1..9_u64).prop_map(|(of, at)| Call::Edit(of, at)),
        ];
        vec(call, 1..12)
    }

    fn prepared(calls: &[Call], stamped: bool) -> Option<Prepared> {
        let store = StoreKey { instance: Instance(0), id: STORE };
        let timeline = |name: &'static [u8]| TimelineRef { store: STORE, name };
        let name = |number: &u8| [&b"a"[..], b"b", b"c", b"d"][usize::from(*number)];
        let body = |bytes: &usize| vec![b'x'; ORIGIN_BYTES + bytes];
        let hasher = hashbrown::DefaultHashBuilder::default();
        let mut batch = Batch::new();
        let mut has_list = false;
        if stamped {
            batch = batch.stamp_origin();
        }
        for call in calls {
            batch = match call {
                Call::Append(to, bytes) => batch.append(store, name(to), body(bytes)),
                Call::FanOut(to, bytes) => {
                    let mut to = to.clone();
                    to.sort_unstable();
                    to.dedup();
                    batch.fan_out(body(bytes), to.iter().map(|to| (store, name(to))))
                }
                // A batch has one list.
                Call::ToList(..) if has_list => batch,
                Call::ToList(to, list, bytes) => {
                    has_list = true;
                    let list = list.iter().map(|to| (store, name(to)));
                    let list = TargetList::new(Instance(0), &hasher, list).ok()?;
                    batch.fan_out_to_list(body(bytes), [(store, name(to))], &list)
                }
                Call::Trim(of, lowest) => batch
                    .move_floor(timeline(name(of)), Floor { lowest: *lowest, ..Floor::default() }),
                Call::Remove(of, at) => {
                    batch.remove(timeline(name(of)), &BTreeMap::from([(*at, *at)]))
                }
                Call::Edit(of, at) => batch.edit(store, name(of), *at, b"new"),
            };
        }
        batch.id(b"id").prepare(Instance(0), &Options::default(), &hasher).ok()
    }

    /// The sequences of a batch and of the timelines that it changes, as the commit path gives
    /// them: one after the other, in each timeline.
    fn given(batch: &Prepared) -> (Vec<Sequence>, Vec<Sequence>) {
        let mut last: BTreeMap<Vec<u8>, Sequence> = BTreeMap::new();
        let mut sequences = Vec::new();
        let (named, after) =
            (batch.targets.len(), batch.list.as_ref().map_or(0, |list| list.after));
        let targets = batch.named().take(after).chain(batch.listed());
        for target in targets.chain(batch.named().take(named).skip(after)) {
            let last = last.entry(target.timeline.name.to_vec()).or_default();
            *last += 1;
            sequences.push(*last);
        }
        let changed = batch.named().skip(named);
        let ends = changed.map(|key| last.get(key.timeline.name).copied().unwrap_or(0));
        (sequences, ends.collect())
    }

    proptest! {
        /// A commit and a replay of its record apply the same effects; sequences rise by one in
        /// each timeline, places rise by one in the group, and edits above the end take no place.
        #[test]
        fn a_record_means_the_same_when_it_is_committed_and_when_it_is_replayed(
            calls in calls(),
            stamped: bool,
        ) {
            let Some(batch) = prepared(&calls, stamped) else { return Ok(()) };
            let (sequences, ends) = given(&batch);
            let (time_ms, start_ms, chosen) = (5, 6, true);
            let tail = &batch.tail;
            let facts =
                RecordFacts { time_ms, start_ms, chosen, given: &sequences, ends: &ends, tail };
            let mut committed = Taken::default();
            let mut places = CommitPlaces::new(AT);
            apply(batch.operations(tail), facts, &mut places, &mut committed);
            let both = [sequences.clone(), ends.clone()].concat();
            let bytes = batch.list.as_ref().map(|listed| listed.list.bytes());
            let list = bytes.map(|bytes| RecordList::Full(bytes));
            let mut record = Record { time_ms, start_ms, chosen, sequences: both, list, tail };
            let mut interpreter = Interpreter::default();
            let mut replayed = Taken::default();
            interpreter.apply(AT, &record, tail, false, &mut replayed).expect("a record");
            prop_assert_eq!(&committed, &replayed);

            // A later record that refers to the list means the same. Its sequences are the same,
            // so their distances are zeros.
            let after = batch.list.as_ref().map_or(0, |listed| listed.after);
            let listed = after..after + batch.listed().count();
            if let Some(bytes) = bytes {
                record.list = Some(RecordList::Earlier(AT, list_hash(bytes)));
                record.sequences[listed.clone()].fill(0);
            }
            let mut again = Taken::default();
            interpreter.apply(LATER, &record, tail, false, &mut again).expect("a record");
            prop_assert_eq!(&again.entries, &committed.entries);
            // Without the list, only the named timelines are known.
            let mut rest = Taken::default();
            let lost = Interpreter::default().apply(LATER, &record, tail, true, &mut rest);
            prop_assert_eq!(lost.is_err(), batch.list.is_some());
            let mut named_entries = committed.entries.clone();
            named_entries.drain(listed);
            prop_assert_eq!(rest.entries, named_entries);

            let given: Vec<Sequence> = committed.entries.iter().map(|entry| entry.1).collect();
            prop_assert_eq!(given, sequences.clone());
            let chosen = committed.entries.iter().filter(|entry| entry.3).count();
            prop_assert_eq!(chosen, sequences.len().min(1));
            let edits = committed.changes.iter().filter_map(|(_, end, effect, place)| match effect {
                Effect::Edit(sequence, _) => Some((*sequence, *end, *place)),
                _ => None,
            });
            let edits: Vec<_> = edits.collect();
            prop_assert!(edits.iter().all(|(sequence, end, _)| sequence <= end));
            let bodies = committed.bodies.iter().map(|(_, place, _)| *place);
            let places: Vec<u64> =
                bodies.chain(edits.iter().map(|edit| edit.2)).map(|place| place.0).collect();
            let expected: Vec<u64> = (AT.0 + 1..).take(places.len()).collect();
            prop_assert_eq!(places, expected);
            for (bytes, ..) in committed.bodies.iter().filter(|_| stamped) {
                prop_assert_eq!(&bytes[..ORIGIN_BYTES], sequences[0].to_le_bytes());
            }
        }
    }

    #[test]
    fn a_record_with_too_few_sequences_is_not_applied() {
        let batch = prepared(&[Call::Append(0, 3)], false).expect("a good batch");
        let tail = &batch.tail;
        let (chosen, sequences, list) = (false, vec![], None);
        let record = Record { time_ms: 1, start_ms: 1, chosen, sequences, list, tail };
        let mut taken = Taken::default();
        assert!(Interpreter::default().apply(AT, &record, tail, true, &mut taken).is_err());
        assert_eq!(taken, Taken::default());
    }
}
