//! The order of a commit's steps, in an environment that records its steps: no disk, no threads.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::hash::{BuildHasherDefault, DefaultHasher};
use std::path::PathBuf;
use std::sync::Arc;

use super::*;
use crate::format::header::EngineId;
use crate::format::ids::IdRecord;
use crate::format::list::RecordList;
use crate::format::wal::{GroupHeader, GroupWriter, decode_records, group_header};
use crate::ids::{Instance, Lsn, Sequence, StoreId, StoreKey, TimelineRef};
use crate::memtable::Memtable;
use crate::options::Options;
use crate::timeline::{End, Key};
use crate::write::batch::{Batch, Prepared, TargetList};
use crate::write::hints::Hints;

const STORE: StoreKey = StoreKey { instance: Instance(0), id: StoreId(1) };
const ENGINE: EngineId = EngineId([7; 16]);
const DROPPED: StoreKey = StoreKey { instance: Instance(0), id: StoreId(9) };

/// A directory in which every timeline without a slot ends at 40.
struct Directory;

impl Known for Directory {
    fn check_store(&self, store: StoreId) -> Result<()> {
        if store == DROPPED.id { Err(Error::StoreDropped) } else { Ok(()) }
    }

    fn store_name(&self, _: StoreId) -> String {
        "rooms".to_string()
    }

    fn end_of(&self, _: Key<'_>) -> Result<End> {
        Ok(End { last: 40, ..End::NEVER })
    }

    fn use_of_id(&self, _: &Prepared, _: &[u8]) -> Result<Option<IdRecord>> {
        Ok(None)
    }

    fn remembers(&self, _: TimeMs) -> bool {
        true
    }
}

/// An environment whose steps fail or panic as scripted. A step without a script succeeds.
struct Scripted {
    memtable: Arc<Memtable>,
    records: GroupWriter,
    end: Lsn,
    /// The bodies in the memtable.
    applied: usize,
    now_ms: TimeMs,
    /// The steps taken, in order.
    steps: RefCell<Vec<String>>,
    /// For each record that was written and has a list: whether in full.
    full_lists: Vec<bool>,
    /// What the next writes return.
    writes: VecDeque<Result<()>>,
    /// What the next seal returns.
    seal: Result<()>,
    /// The step that panics.
    panics: &'static str,
    /// How long step 1 takes.
    room_takes_ms: TimeMs,
    is_reserve_out: Cell<bool>,
}

impl Scripted {
    fn step(&self, what: &str) {
        self.steps.borrow_mut().push(what.to_string());
        assert_ne!(self.panics, what, "a scripted panic");
    }
}

impl Environment for Scripted {
    type Known = Directory;

    fn moment(&self) -> (TimeMs, TimeMs) {
        (self.now_ms, self.now_ms)
    }

    fn may_add(&self) -> Result<()> {
        if self.is_reserve_out.get() { Err(disk_full()) } else { Ok(()) }
    }

    fn make_room(&mut self, _: &Filling, start_ms: TimeMs, _: bool) -> Result<bool> {
        self.step(&format!("room from {start_ms}"));
        self.now_ms += self.room_takes_ms;
        Ok(self.room_takes_ms > 0)
    }

    fn with_stores<T>(&mut self, commit: impl FnOnce(&mut Scripted) -> T) -> T {
        self.step("stores");
        commit(self)
    }

    fn ground(&mut self) -> Ground<'_, Directory> {
        self.records.start(self.end);
        let (memtable, records) = (&self.memtable, &mut self.records);
        Ground { known: &Directory, memtable, records, at: self.end }
    }

    fn write(&mut self, and_sync: bool) -> Result<bool> {
        self.step(if and_sync { "write and sync" } else { "write" });
        assert_eq!(self.memtable.body_count(), self.applied, "visible before it is written");
        self.writes.pop_front().unwrap_or(Ok(()))?;
        let group = self.records.finish(self.end);
        let header = GroupHeader::decode(group, ENGINE, self.end).expect("a group");
        let records =
            decode_records(&group[group_header::BYTES..], header.records, ENGINE, self.end);
        let lists = records.expect("records").into_iter().filter_map(|record| record.list);
        self.full_lists.extend(lists.map(|list| matches!(list, RecordList::Full(_))));
        self.end = self.end.plus(512);
        Ok(!self.records.is_empty())
    }

    fn apply(&mut self, group: &mut Group, times: Option<Times>) {
        self.step(&times.map_or("apply".into(), |times| format!("apply at {}", times.start_ms)));
        self.applied = self.memtable.apply(group, self.end, Lsn(0));
    }

    fn publish(&self, _: &Filling, outcomes: &[Result<Receipt>], _: &mut Vec<Waker>) {
        let committed = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
        self.steps.borrow_mut().push(format!("publish {committed} of {}", outcomes.len()));
        assert_ne!(self.panics, "publish", "a scripted panic");
    }

    fn has_short_wakers(&self) -> bool {
        false
    }

    fn hand_over(&self, _: Vec<Waker>) {
        self.step("wake");
    }

    fn make_space(&self) {
        self.step("make space");
        self.is_reserve_out.set(true);
    }

    fn seal(&mut self, _seal: Seal) -> Result<()> {
        self.step("seal");
        self.seal.clone()
    }

    fn vouch(&mut self) {
        self.step("vouch");
    }

    fn refused(&self, error: &Error) {
        self.step(&format!("refused: {error}"));
    }

    fn finished(&mut self) {
        self.step("finished");
    }

    fn panicked(&self) -> Error {
        self.steps.borrow_mut().push("panicked".into());
        Error::Poisoned { why: "a step panicked".into() }
    }
}

fn disk_full() -> Error {
    Error::DiskFull { path: PathBuf::from("wal") }
}

fn committer() -> Committer<Scripted> {
    Committer::new(Scripted {
        memtable: Arc::new(Memtable::new(Lsn(0))),
        records: GroupWriter::new(ENGINE),
        end: Lsn(0),
        applied: 0,
        now_ms: 1_000,
        steps: RefCell::default(),
        full_lists: Vec::new(),
        writes: VecDeque::new(),
        seal: Ok(()),
        panics: "",
        room_takes_ms: 0,
        is_reserve_out: Cell::new(false),
    })
}

impl Committer<Scripted> {
    /// Commits the batches as one group.
    fn group(&mut self, batches: Vec<Batch>) -> Vec<Result<Receipt>> {
        self.answered(&filling(batches))
    }

    fn answered(&mut self, group: &Filling) -> Vec<Result<Receipt>> {
        let mut outcomes = Outcomes::new();
        self.answer(group, &mut outcomes);
        outcomes
    }

    /// The steps taken since the last call.
    fn steps(&self) -> Vec<String> {
        self.env.steps.take()
    }
}

fn submitted(batch: Batch) -> Submission {
    let batch = batch.prepare(Instance(0), &Options::default(), &hasher()).expect("a good batch");
    Submission { batch, ..Submission::default() }
}

fn filling(batches: Vec<Batch>) -> Filling {
    let mut group = Filling::default();
    group.batches.extend(batches.into_iter().map(submitted));
    group
}

fn append(timeline: &[u8]) -> Batch {
    Batch::new().append(STORE, timeline, b"hello")
}

fn trim(timeline: &[u8]) -> Batch {
    let floor = crate::timeline::Floor { lowest: 10, ..Default::default() };
    Batch::new().move_floor(TimelineRef { store: STORE.id, name: timeline }, floor)
}

fn sequences(outcomes: &[Result<Receipt>]) -> Vec<Option<Sequence>> {
    let first = |outcome: &Result<Receipt>| Some(outcome.as_ref().ok()?.sequences[0]);
    outcomes.iter().map(first).collect()
}

#[test]
fn a_group_is_written_and_synced_once_before_it_is_applied_and_published() {
    let mut committer = committer();
    let relaxed = append(b"b").durability(Durability::Os);
    let outcomes = committer.group(vec![append(b"a"), relaxed, append(b"a")]);
    assert_eq!(sequences(&outcomes), [Some(41), Some(41), Some(42)]);
    assert_eq!(
        committer.steps(),
        [
            "room from 1000",
            "stores",
            "write and sync",
            "apply at 1000",
            "publish 3 of 3",
            "wake",
            "finished"
        ]
    );
}

#[test]
fn a_group_that_asks_for_no_sync_gets_none() {
    let mut committer = committer();
    assert!(committer.group(vec![append(b"a").durability(Durability::Os)])[0].is_ok());
    assert_eq!(committer.steps()[2], "write");
}

#[test]
fn a_refused_batch_takes_no_sequence_and_the_others_are_committed() {
    let mut committer = committer();
    let outcomes = committer.group(vec![
        append(b"a"),
        append(b"a").if_last(40),
        append(b"a").sequence(7),
        Batch::new().append(DROPPED, b"a", b"hello"),
        append(b"a").if_last(41),
    ]);
    assert_eq!(sequences(&outcomes), [Some(41), None, None, None, Some(42)]);
    assert!(matches!(outcomes[1], Err(Error::LastSequence { last: 41, .. })));
    assert!(matches!(outcomes[2], Err(Error::SequenceOrder { last: 41 })));
    assert!(matches!(outcomes[3], Err(Error::StoreDropped)));
    let steps = committer.steps();
    assert!(steps.contains(&"publish 2 of 5".into()), "{steps:?}");
    assert_eq!(steps.iter().filter(|step| step.starts_with("refused")).count(), 3);
}

#[test]
fn a_group_without_a_record_still_syncs_for_a_retry() {
    let mut committer = committer();
    let os = || append(b"a").id(b"x").durability(Durability::Os);
    assert_eq!(sequences(&committer.group(vec![os()])), [Some(41)]);
    committer.steps();
    let again = committer.group(vec![append(b"a").id(b"x")]);
    assert!(again[0].as_ref().is_ok_and(|receipt| receipt.duplicate), "{again:?}");
    assert_eq!(committer.steps()[2..4], ["write and sync", "apply"]);
}

#[test]
fn a_retry_in_the_same_group_gets_the_original_receipt_and_another_body_a_conflict() {
    let mut committer = committer();
    let other = Batch::new().append(STORE, b"a", b"another body");
    let retries = vec![append(b"a").id(b"x"), append(b"a").id(b"x"), other.id(b"x")];
    let outcomes = committer.group(retries);
    assert_eq!(sequences(&outcomes), [Some(41), Some(41), None]);
    assert!(outcomes[1].as_ref().is_ok_and(|receipt| receipt.duplicate));
    assert!(matches!(outcomes[2], Err(Error::IdConflict { sequence: 41 })));
}

#[test]
fn a_group_that_could_not_be_written_leaves_nothing_and_its_sequences_are_given_again() {
    let mut committer = committer();
    committer.env.writes.push_back(Err(disk_full()));
    let outcomes = committer.group(vec![append(b"a"), append(b"b")]);
    assert_eq!(sequences(&outcomes), [None, None]);
    let steps = committer.steps();
    assert_eq!(steps[..3], ["room from 1000", "stores", "write and sync"]);
    assert_eq!(steps[3..].iter().filter(|step| step.starts_with("refused")).count(), 2);
    assert_eq!((steps.len(), steps[5].as_str()), (6, "finished"));
    assert_eq!(sequences(&committer.group(vec![append(b"b"), append(b"a")])), [Some(41), Some(41)]);
}

#[test]
fn on_a_full_disk_space_is_made_for_a_trim_and_an_append_is_refused() {
    let mut committer = committer();
    committer.env.writes.push_back(Err(disk_full()));
    let outcomes = committer.group(vec![append(b"a"), trim(b"b")]);
    assert!(matches!(outcomes[0], Err(Error::DiskFull { .. })));
    assert!(outcomes[1].is_ok());
    let steps = committer.steps();
    assert_eq!(steps.iter().filter(|step| *step == "make space").count(), 1);
    assert_eq!(steps.iter().filter(|step| *step == "write and sync").count(), 2);
    assert_eq!(steps.iter().filter(|step| step.starts_with("refused")).count(), 1);
}

/// The hasher of all batches and lists of the tests.
fn hasher() -> BuildHasherDefault<DefaultHasher> {
    BuildHasherDefault::default()
}

/// A fan-out to one timeline and to a list of three.
fn to_list() -> Batch {
    let names: [&[u8]; 3] = [b"x", b"y", b"z"];
    let list = TargetList::new(Instance(0), &hasher(), names.map(|name| (STORE, name)));
    Batch::new().fan_out_to_list(b"hello", [(STORE, b"a".as_slice())], &list.expect("a list"))
}

#[test]
fn a_list_is_in_full_in_the_first_group_that_is_written_with_it_under_each_memtable() {
    let mut committer = committer();
    committer.env.writes.push_back(Err(disk_full()));
    assert_eq!(sequences(&committer.group(vec![to_list()])), [None]);
    // It takes the place of the refused group, and must not take its list.
    committer.group(vec![append(b"other")]);
    assert_eq!(sequences(&committer.group(vec![to_list(), to_list()])), [Some(41), Some(42)]);
    let outcomes = committer.group(vec![to_list().if_last(7), append(b"y"), to_list()]);
    assert_eq!(outcomes[2].as_ref().expect("committed").sequences, [43, 43, 44, 43]);
    assert_eq!(committer.env.full_lists, [true, true, false]);
    committer.env.memtable = Arc::new(Memtable::new(Lsn(0)));
    committer.env.applied = 0;
    committer.env.full_lists.clear();
    committer.group(vec![to_list()]);
    committer.group(vec![to_list()]);
    assert_eq!(committer.env.full_lists, [true, false]);
}

#[test]
fn no_space_is_made_for_appends_alone() {
    let mut committer = committer();
    committer.env.writes.push_back(Err(disk_full()));
    committer.group(vec![append(b"a")]);
    assert!(!committer.steps().contains(&"make space".into()));
}

#[test]
fn lifetimes_begin_after_the_wait_for_room_and_not_before_those_of_the_last_group() {
    let mut committer = committer();
    committer.env.room_takes_ms = 500;
    committer.group(vec![append(b"a")]);
    assert_eq!(committer.steps()[3], "apply at 1500");
    // The clock is set back by a second.
    (committer.env.now_ms, committer.env.room_takes_ms) = (500, 0);
    committer.group(vec![append(b"a")]);
    let steps = committer.steps();
    assert_eq!((steps[0].as_str(), steps[3].as_str()), ("room from 1500", "apply at 1500"));
    // It was ahead by more than clocks that are set differ.
    committer.env.now_ms = 1_500 + 2 * SLACK_MS;
    committer.group(vec![append(b"a")]);
    committer.env.now_ms = 1_500;
    committer.steps();
    committer.group(vec![append(b"a")]);
    assert_eq!(committer.steps()[3], "apply at 1500");
}

#[test]
fn a_panic_refuses_the_group_and_a_panic_after_it_is_visible_changes_no_outcome() {
    let mut committer = committer();
    committer.env.panics = "write and sync";
    let outcomes = committer.group(vec![append(b"a"), append(b"b")]);
    assert!(outcomes.iter().all(|outcome| matches!(outcome, Err(Error::Poisoned { .. }))));
    assert!(committer.steps().contains(&"panicked".into()));

    let mut committer = self::committer();
    committer.env.panics = "publish";
    assert_eq!(sequences(&committer.group(vec![append(b"a")])), [Some(41)]);
    assert_eq!(committer.steps()[5..], ["panicked", "wake", "finished"]);
}

#[test]
fn a_seal_that_failed_is_reported_only_to_those_who_asked_for_it() {
    let mut committer = committer();
    committer.env.seal = Err(disk_full());
    let mut group = filling(vec![append(b"a")]);
    group.batches.push(Submission::nothing());
    group.seal = Some(Seal::Log);
    let outcomes = committer.answered(&group);
    assert!(outcomes[0].is_ok());
    assert!(matches!(outcomes[1], Err(Error::DiskFull { .. })));
}

#[test]
fn an_empty_group_vouches_and_one_with_batches_does_not() {
    let mut committer = committer();
    let mut group = filling(Vec::new());
    group.vouch = true;
    assert!(committer.answered(&group).is_empty());
    assert_eq!(committer.steps(), ["vouch", "finished"]);
    group.batches.push(submitted(append(b"a")));
    assert!(committer.answered(&group)[0].is_ok());
    assert!(!committer.steps().contains(&"vouch".into()));
}

#[test]
fn the_look_ups_of_a_caller_count_only_under_their_memtable() {
    let mut committer = committer();
    let looked_up = |memtable: &Arc<Memtable>| {
        let hints = Hints::of_end(End { last: 98, ..End::NEVER });
        Submission { memtable: Arc::downgrade(memtable), hints, ..submitted(append(b"a")) }
    };
    let current = committer.env.memtable.clone();
    let mut group = Filling::default();
    group.batches.extend([looked_up(&current), looked_up(&current)]);
    assert_eq!(sequences(&committer.answered(&group)), [Some(99), Some(100)]);
    // The directory says 40.
    committer.env.memtable = Arc::new(Memtable::new(Lsn(0)));
    committer.env.applied = 0;
    assert_eq!(sequences(&committer.answered(&group)), [Some(41), Some(42)]);
}

#[test]
fn of_the_slots_of_the_memtable_before_nothing_is_remembered() {
    let mut committer = committer();
    assert_eq!(sequences(&committer.group(vec![append(b"a"), append(b"a")])), [Some(41), Some(42)]);
    // It starts where the one before it does, as after a memtable full of slots without entries.
    committer.env.memtable = Arc::new(Memtable::new(Lsn(0)));
    committer.env.applied = 0;
    assert_eq!(sequences(&committer.group(vec![append(b"a")])), [Some(41)]);
}
