//! The facts at a position of the log: everything that was submitted, acknowledged, observed,
//! trimmed, deleted and has expired by then.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use strandline::vfs::simulated::Op;
use strandline::{Durability, Engine, Epoch};

use super::{Key, START_MS, TTL_MS, fan_out};

/// One batch that a driver submitted: one body to some timelines. Its number is in its body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sent {
    pub number: u64,
    /// Batches of one writer are committed in the order of their numbers.
    pub writer: u64,
    pub durability: Durability,
    pub filler: usize,
    pub targets: Vec<Key>,
}

impl Sent {
    pub fn body(&self) -> Vec<u8> {
        let mut body = format!("batch {} ", self.number).into_bytes();
        body.resize(body.len() + self.filler, b'.');
        body
    }

    pub fn batch(&self, engine: &Engine) -> strandline::Batch {
        let stores = ["messages", "sync"].map(|name| engine.store(name).expect("store"));
        let named: Vec<_> = self
            .targets
            .iter()
            .map(|(name, timeline)| (&stores[usize::from(*name == "sync")], timeline.as_bytes()))
            .collect();
        let batch = strandline::Batch::new().durability(self.durability);
        let by_list = self.targets.len() > 1 && !self.number.is_multiple_of(4);
        let batch = fan_out(batch, engine, &self.body(), &named, by_list);
        self.id().into_iter().fold(batch, |batch, id| batch.id(&id))
    }

    /// Two in three have an id of the client.
    pub fn id(&self) -> Option<Vec<u8>> {
        (!self.number.is_multiple_of(3)).then(|| format!("id {}", self.number).into_bytes())
    }
}

/// The body that an edit of this number gives to an entry.
pub fn edited_body(number: u64) -> Vec<u8> {
    format!("edit {number}").into_bytes()
}

/// A removal or replacement in a timeline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Everything below a sequence; a dropped timeline is one that is trimmed to above its end.
    Trim(Key, u64),
    Delete(Key, u64),
    /// An entry gets the body of this edit.
    Edit(Key, u64, u64),
    /// All entries of the batch that wrote an entry get it.
    EditAll(Key, u64, u64),
}

/// The content of a timeline in an engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// The epoch of its store.
    pub epoch: Epoch,
    pub last: u64,
    pub entries: Vec<(u64, Vec<u8>)>,
}

pub type Timelines = BTreeMap<Key, Shown>;

/// The events that a driver notes in the log: mark n refers to event n.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// About to be submitted. From here on it may be there.
    Submitted(Arc<Sent>),
    /// Its ticket resolved with success.
    Acknowledged(u64),
    /// It was sent again with disk durability, and that was acknowledged as well.
    Repeated(u64),
    /// A read, or a read after a watch notification, returned an entry.
    Observed(Key, u64),
    /// An engine was opened and showed this: its content is durable, everything else is gone.
    Opened(Timelines),
    /// About to be requested. From here on it may have happened.
    Asked(Change),
    /// It was answered.
    Done(Change),
    /// The time from here on.
    Clock(u64),
}

impl Event {
    /// Whether a crash after it must leave more than one before it: otherwise there is no new state
    /// to judge.
    pub fn binds(&self) -> bool {
        !matches!(self, Event::Submitted(_) | Event::Asked(_))
    }
}

/// A batch, and the facts about it.
#[derive(Clone, Debug)]
pub struct Batch {
    pub sent: Arc<Sent>,
    /// The sequences that it gets if it is committed: timelines are dense, and each has one writer.
    pub sequences: Vec<u64>,
    pub time_ms: u64,
    pub acknowledged: bool,
    pub observed: bool,
    /// An open showed it, or a repeat that asked for the disk was acknowledged: it is durable
    /// however it was acknowledged first.
    pub settled: bool,
}

impl Batch {
    /// Whether a crash may not take it.
    pub fn must_stay(&self, power: bool) -> bool {
        let durable = self.sent.durability == Durability::Disk || !power;
        self.settled || (durable && (self.acknowledged || self.observed))
    }
}

/// A timeline: which batch each sequence belongs to, and what was removed.
#[derive(Clone, Debug, Default)]
pub struct Timeline {
    pub batches: Vec<u64>,
    pub trim_asked: u64,
    pub trim_done: u64,
    pub delete_asked: BTreeSet<u64>,
    pub delete_done: BTreeSet<u64>,
    /// The edits of each entry in order, and whether they were answered.
    pub edits: BTreeMap<u64, Vec<(u64, bool)>>,
}

impl Timeline {
    /// A change that had been requested when a crash came has happened, or it has not: the first
    /// open decides, and it stays so.
    fn settle(&mut self, shown: Option<&Shown>) {
        let (last, entries) = shown.map_or((0, &[][..]), |shown| (shown.last, &shown.entries[..]));
        let body =
            |sequence: u64| entries.iter().find(|entry| entry.0 == sequence).map(|entry| &entry.1);
        self.batches.truncate(last as usize);
        // A change to an entry that the crash took does not apply to the entry that gets its
        // position.
        self.trim_asked = self.trim_asked.min(last + 1);
        if entries.first().is_some_and(|entry| entry.0 < self.trim_asked) {
            self.trim_asked = self.trim_done;
        }
        self.trim_done = self.trim_asked;
        self.delete_asked.retain(|sequence| *sequence <= last && body(*sequence).is_none());
        self.delete_done = self.delete_asked.clone();
        self.edits.retain(|sequence, _| *sequence <= last);
        for (sequence, edits) in &mut self.edits {
            if let Some(body) = body(*sequence) {
                let happened = edits.iter().rposition(|(number, _)| edited_body(*number) == *body);
                edits.truncate(happened.map_or(0, |at| at + 1));
                edits.last_mut().into_iter().for_each(|edit| edit.1 = true);
            }
        }
    }
}

/// An entry that was seen, by a read or by an acknowledgement: its batch and its epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sighting {
    pub key: Key,
    pub sequence: u64,
    pub number: u64,
    pub epoch: Epoch,
}

/// The facts at a position.
#[derive(Clone, Debug)]
pub struct Books {
    pub now_ms: u64,
    /// By store, as the last open showed it.
    pub epochs: BTreeMap<&'static str, Epoch>,
    /// Of all lives, separated by crashes.
    pub sightings: Vec<Sighting>,
    pub batches: BTreeMap<u64, Batch>,
    pub timelines: BTreeMap<Key, Timeline>,
}

impl Default for Books {
    fn default() -> Books {
        Books {
            now_ms: START_MS,
            epochs: BTreeMap::new(),
            sightings: Vec::new(),
            batches: BTreeMap::new(),
            timelines: BTreeMap::new(),
        }
    }
}

impl Books {
    /// Records the effect of an operation of the log.
    pub fn note(&mut self, op: &Op, events: &[Event]) {
        if let Op::Mark(mark) = op
            && let Some(event) = events.get(*mark as usize)
        {
            self.event(event);
        }
    }

    pub fn event(&mut self, event: &Event) {
        match event {
            Event::Submitted(sent) => self.submitted(sent),
            Event::Acknowledged(number) => {
                let batch = self.batches.get_mut(number).expect("it was submitted");
                batch.acknowledged = true;
                let (sent, sequences) = (batch.sent.clone(), batch.sequences.clone());
                sent.targets
                    .iter()
                    .zip(sequences)
                    .for_each(|(key, sequence)| self.sighted(key, sequence));
            }
            Event::Repeated(number) => {
                self.batches.get_mut(number).expect("it was submitted").settled = true;
            }
            Event::Observed(key, sequence) => {
                let number = self.timeline(key).batches[*sequence as usize - 1];
                self.batches.get_mut(&number).expect("it was submitted").observed = true;
                self.sighted(key, *sequence);
            }
            Event::Opened(shown) => self.opened(shown),
            Event::Asked(Change::Trim(key, below)) => {
                let timeline = self.timeline(key);
                timeline.trim_asked = timeline.trim_asked.max(*below);
            }
            Event::Done(Change::Trim(key, below)) => {
                let timeline = self.timeline(key);
                timeline.trim_done = timeline.trim_done.max(*below);
            }
            Event::Asked(Change::Delete(key, sequence)) => {
                self.timeline(key).delete_asked.insert(*sequence);
            }
            Event::Done(Change::Delete(key, sequence)) => {
                self.timeline(key).delete_done.insert(*sequence);
            }
            Event::Asked(Change::Edit(key, sequence, number)) => {
                self.timeline(key).edits.entry(*sequence).or_default().push((*number, false));
            }
            Event::Done(Change::Edit(key, sequence, number)) => {
                let edits = self.timeline(key).edits.entry(*sequence).or_default();
                edits.iter_mut().filter(|edit| edit.0 == *number).for_each(|edit| edit.1 = true);
            }
            Event::Asked(Change::EditAll(key, sequence, number)) => {
                for (key, sequence) in self.with(key, *sequence) {
                    self.event(&Event::Asked(Change::Edit(key, sequence, *number)));
                }
            }
            Event::Done(Change::EditAll(key, sequence, number)) => {
                for (key, sequence) in self.with(key, *sequence) {
                    self.event(&Event::Done(Change::Edit(key, sequence, *number)));
                }
            }
            Event::Clock(now_ms) => self.now_ms = *now_ms,
        }
    }

    /// All entries of the batch that wrote an entry.
    fn with(&mut self, key: &Key, sequence: u64) -> Vec<(Key, u64)> {
        let number = self.timeline(key).batches[sequence as usize - 1];
        let Batch { sent, sequences, .. } = &self.batches[&number];
        sent.targets.iter().cloned().zip(sequences.iter().copied()).collect()
    }

    fn timeline(&mut self, key: &Key) -> &mut Timeline {
        self.timelines.entry(key.clone()).or_default()
    }

    fn submitted(&mut self, sent: &Arc<Sent>) {
        let mut sequences = Vec::with_capacity(sent.targets.len());
        for key in &sent.targets {
            let timeline = self.timeline(key);
            timeline.batches.push(sent.number);
            sequences.push(timeline.batches.len() as u64);
        }
        let batch = Batch {
            sent: sent.clone(),
            sequences,
            time_ms: self.now_ms,
            acknowledged: false,
            observed: false,
            settled: false,
        };
        self.batches.insert(sent.number, batch);
    }

    fn sighted(&mut self, key: &Key, sequence: u64) {
        let number = self.timeline(key).batches[sequence as usize - 1];
        let epoch = *self.epochs.get(key.0).expect("it was opened");
        self.sightings.push(Sighting { key: key.clone(), sequence, number, epoch });
    }

    fn opened(&mut self, shown: &Timelines) {
        self.epochs.extend(shown.iter().map(|(key, shown)| (key.0, shown.epoch)));
        let last = |key: &Key| shown.get(key).map_or(0, |shown| shown.last);
        self.batches.retain(|_, batch| {
            let there =
                batch.sent.targets.iter().zip(&batch.sequences).all(|(key, at)| *at <= last(key));
            batch.settled |= there;
            there
        });
        for (key, timeline) in &mut self.timelines {
            timeline.settle(shown.get(key));
        }
    }

    /// Whether an entry must not be shown, and whether it may be missing.
    pub fn is_gone(&self, key: &Key, sequence: u64) -> (bool, bool) {
        let Some(timeline) = self.timelines.get(key) else { return (false, false) };
        let time_ms = timeline
            .batches
            .get(sequence as usize - 1)
            .map_or(u64::MAX, |number| self.batches[number].time_ms);
        let expired = key.0 == "sync" && time_ms.saturating_add(TTL_MS) <= self.now_ms;
        let done = sequence < timeline.trim_done || timeline.delete_done.contains(&sequence);
        let asked = sequence < timeline.trim_asked || timeline.delete_asked.contains(&sequence);
        (expired || done, expired || asked)
    }

    /// Whether an entry may have this body: that of its batch, or of an edit, but none from before
    /// the last answered edit.
    pub fn may_have(&self, key: &Key, sequence: u64, body: &[u8]) -> bool {
        let Some(timeline) = self.timelines.get(key) else { return false };
        let edits = timeline.edits.get(&sequence).map_or(&[][..], Vec::as_slice);
        let last_done = edits.iter().rposition(|(_, done)| *done);
        let is_original =
            || self.batches[&timeline.batches[sequence as usize - 1]].sent.body() == body;
        edits[last_done.unwrap_or(0)..].iter().any(|(number, _)| edited_body(*number) == body)
            || (last_done.is_none() && is_original())
    }

    /// How many binding facts there are: a proof about nothing would pass.
    pub fn promises(&self) -> usize {
        self.batches.values().filter(|batch| batch.acknowledged || batch.observed).count()
    }
}
