//! The operations, and how they are drawn.
//!
//! Sequences are given by their position, so that shrinking keeps their meaning. The map and the
//! engine are not known here.

use std::ops::Bound;

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use strandline::{Durability, Limit};

/// The last one gets a TTL that passes.
pub const STORES: [&str; 3] = ["messages", "sync", "brief"];

/// Names that sort and share prefixes in unusual ways.
pub const NAMES: [&[u8]; 10] =
    [b"a", b"a\0", b"ab", b"a/1", b"a/10", b"a/2", b"b", b"\xff", b"\xff\xff", &[b'n'; 255]];

/// How many snapshots are held at once.
pub const SNAPSHOTS: usize = 3;

/// A timeline: the number of its store and of its name.
pub type Key = (usize, usize);

/// A sequence.
#[derive(Clone, Copy, Debug)]
pub enum Place {
    At(u64),
    FromLast(i64),
    /// The first readable one, and later ones.
    FromFirst(u64),
    Half,
    Highest,
    BehindAll,
}

/// Some bodies, each for some timelines, and the other options of a batch.
#[derive(Clone, Debug)]
pub struct Sending {
    pub parts: Vec<(usize, Vec<Key>)>,
    pub edits: Vec<(Key, Place, usize)>,
    /// With an id, bodies of one length are alike.
    pub id: Option<u8>,
    pub if_last: Option<Place>,
    pub sequence: Option<Place>,
    /// Only in worlds whose entries have their own expiry.
    pub lifetime_ms: u64,
    pub durability: Durability,
}

/// The range of a trim.
#[derive(Clone, Copy, Debug)]
pub enum Cut {
    Before(Place),
    /// This far from now.
    Older(i64),
    Keep(u64),
}

#[derive(Clone, Debug)]
pub enum Operation {
    /// Batches submitted at once: one group.
    Send(Vec<Sending>),
    Trim(Key, Cut),
    Delete(Key, Vec<Place>),
    /// A removal and an append of a body of this length, in one batch.
    TrimWith(Key, Cut, usize),
    DeleteWith(Key, Vec<Place>, usize),
    Edit(Key, Place, usize),
    Drop(Key),
    Get(Key, Place),
    Range(Key, Bound<Place>, Bound<Place>, Limit, Direction),
    ReadAfter(Key, Place, Limit),
    Last(Key),
    Info(Key),
    SequenceAt(Key, i64),
    List {
        store: usize,
        prefix: Vec<u8>,
        after: Option<usize>,
        count: usize,
    },
    /// Takes a snapshot, in the place of the one with this number.
    Snapshot(usize),
    /// A read at a snapshot, if it is there.
    At(usize, Box<Operation>),
    /// Back only in worlds where nothing expires.
    MoveClock(i64),
    /// Only in worlds whose TTLs change.
    SetTtl(usize, u64),
    Flush,
    Compact,
    Close,
    Kill,
    /// Only in worlds whose power may be cut; elsewhere it is a kill.
    PowerCut(u64),
}

/// The properties that a case draws once.
#[derive(Clone, Copy, Debug)]
pub struct Kind {
    pub power: bool,
    pub time: Time,
}

/// The effect of time on entries. A clock that goes back brings expired entries back, so in worlds
/// where it does, nothing expires. And whether an entry's own expiry or a TTL came first has one
/// answer only as long as the TTL stays the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Time {
    GoesBack,
    OwnExpiry,
    TtlChanges,
}

/// A case, which prints one operation per line, so that a shrunk failure can be read.
#[derive(Clone)]
pub struct Case(pub Vec<Operation>);

impl std::fmt::Debug for Case {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|operation| out.write_fmt(format_args!("\n    {operation:?}")))
    }
}

#[derive(Clone, Copy, Debug)]
pub enum Direction {
    Up,
    Down,
}

pub fn kind() -> impl Strategy<Value = Kind> {
    let time = prop_oneof![Just(Time::GoesBack), Just(Time::OwnExpiry), Just(Time::TtlChanges)];
    (any::<bool>(), time).prop_map(|(power, time)| Kind { power, time })
}

fn key() -> impl Strategy<Value = Key> {
    // A few are used often, so that they get a history.
    prop_oneof![(0..STORES.len(), 0..NAMES.len()), (0..STORES.len(), 0..2_usize)]
}

fn place() -> impl Strategy<Value = Place> {
    prop_oneof![
        3 => (0..30_u64).prop_map(Place::At),
        3 => (-12..=3_i64).prop_map(Place::FromLast),
        3 => (0..6_u64).prop_map(Place::FromFirst),
        2 => Just(Place::Half),
        1 => Just(Place::Highest),
        1 => Just(Place::BehindAll),
    ]
}

fn bound() -> impl Strategy<Value = Bound<Place>> {
    prop_oneof![
        place().prop_map(Bound::Included),
        place().prop_map(Bound::Excluded),
        Just(Bound::Unbounded)
    ]
}

fn limit() -> impl Strategy<Value = Limit> {
    let entries = prop_oneof![6 => 0..12_usize, 1 => Just(1000), 1 => Just(usize::MAX)];
    let body_bytes = prop_oneof![2 => Just(u64::MAX), 1 => 0..3000_u64];
    (entries, body_bytes, any::<bool>()).prop_map(|(entries, body_bytes, first_always)| Limit {
        entries,
        body_bytes,
        first_always,
        around_damage: false,
    })
}

fn durability() -> impl Strategy<Value = Durability> {
    prop_oneof![Just(Durability::Disk), Just(Durability::Os)]
}

fn chosen() -> impl Strategy<Value = Place> {
    prop_oneof![
        40 => (-1..=60_i64).prop_map(Place::FromLast),
        5 => (0..300_u64).prop_map(Place::At),
        1 => Just(Place::Highest),
        1 => Just(Place::BehindAll),
    ]
}

fn sending() -> impl Strategy<Value = Sending> {
    let body_bytes = prop_oneof![12 => 0..80_usize, 3 => 80..1500_usize, 1 => 1500..20_000_usize];
    let targets = prop_oneof![3 => vec(key(), 1), 1 => vec(key(), 0..8)];
    let edits = prop_oneof![
        9 => vec((key(), place(), 0..80_usize), 0),
        1 => vec((key(), place(), 0..80_usize), 1..3),
    ];
    let if_last = option::weighted(0.05, prop_oneof![2 => Just(Place::FromLast(0)), 1 => place()]);
    let lifetime_ms = prop_oneof![4 => Just(0_u64), 1 => 1..120_u64];
    (
        vec((body_bytes, targets), 0..4),
        edits,
        if_last,
        option::weighted(0.06, chosen()),
        lifetime_ms,
        durability(),
    )
        .prop_map(|(parts, edits, if_last, sequence, lifetime_ms, durability)| Sending {
            parts,
            edits,
            id: None,
            if_last,
            sequence,
            lifetime_ms,
            durability,
        })
}

/// A batch that may have been sent before.
fn retry() -> impl Strategy<Value = Sending> {
    let target = (0..STORES.len(), 0..2_usize);
    let targets = prop_oneof![6 => vec(target.clone(), 1), 1 => vec(target, 2)];
    let if_last = option::weighted(0.1, Just(Place::FromLast(0)));
    let sequence = option::weighted(0.1, (0..=9_i64).prop_map(Place::FromLast));
    let body_bytes = prop_oneof![4 => Just(3_usize), 1 => Just(4)];
    (body_bytes, targets, 0..3_u8, if_last, sequence, durability()).prop_map(
        |(body_bytes, targets, id, if_last, sequence, durability)| Sending {
            parts: vec![(body_bytes, targets)],
            edits: Vec::new(),
            id: Some(id),
            if_last,
            sequence,
            lifetime_ms: 0,
            durability,
        },
    )
}

fn change() -> impl Strategy<Value = Operation> {
    let cut = prop_oneof![
        place().prop_map(Cut::Before),
        (-80..5_i64).prop_map(Cut::Older),
        prop_oneof![4 => 0..12_u64, 1 => Just(1_u64 << 40)].prop_map(Cut::Keep),
    ];
    prop_oneof![
        4 => (key(), cut.clone()).prop_map(|(key, cut)| Operation::Trim(key, cut)),
        4 => (key(), vec(place(), 0..6)).prop_map(|(key, places)| Operation::Delete(key, places)),
        2 => (key(), cut, 0..80_usize)
            .prop_map(|(key, cut, bytes)| Operation::TrimWith(key, cut, bytes)),
        2 => (key(), vec(place(), 0..6), 0..80_usize)
            .prop_map(|(key, places, bytes)| Operation::DeleteWith(key, places, bytes)),
        6 => (key(), place(), 0..80_usize)
            .prop_map(|(key, place, bytes)| Operation::Edit(key, place, bytes)),
        1 => key().prop_map(Operation::Drop),
        1 => (0..STORES.len(), prop_oneof![1 => Just(0_u64), 3 => 1..150_u64])
            .prop_map(|(store, ttl_ms)| Operation::SetTtl(store, ttl_ms)),
    ]
}

fn reading() -> impl Strategy<Value = Operation> {
    let direction = prop_oneof![Just(Direction::Up), Just(Direction::Down)];
    let prefix = prop_oneof![
        Just(Vec::new()),
        (0..NAMES.len(), 0..4_usize)
            .prop_map(|(name, len)| { NAMES[name].iter().copied().take(len).collect() })
    ];
    prop_oneof![
        6 => (key(), place()).prop_map(|(key, place)| Operation::Get(key, place)),
        16 => (key(), bound(), bound(), limit(), direction)
            .prop_map(|(key, low, high, limit, to)| Operation::Range(key, low, high, limit, to)),
        12 => (key(), place(), limit())
            .prop_map(|(key, place, limit)| Operation::ReadAfter(key, place, limit)),
        3 => key().prop_map(Operation::Last),
        6 => key().prop_map(Operation::Info),
        6 => (key(), -60..60_i64).prop_map(|(key, time)| Operation::SequenceAt(key, time)),
        4 => (0..STORES.len(), prefix, option::of(0..NAMES.len()), 0..8_usize)
            .prop_map(|(store, prefix, after, count)| {
                Operation::List { store, prefix, after, count }
            }),
    ]
}

pub fn operation() -> impl Strategy<Value = Operation> {
    prop_oneof![
        36 => vec(prop_oneof![4 => sending(), 1 => retry()], 1..4).prop_map(Operation::Send),
        16 => change(),
        46 => reading(),
        5 => (0..SNAPSHOTS).prop_map(Operation::Snapshot),
        20 => (0..SNAPSHOTS, reading())
            .prop_map(|(number, reading)| Operation::At(number, Box::new(reading))),
        5 => (-20..40_i64).prop_map(Operation::MoveClock),
        4 => Just(Operation::Flush),
        1 => Just(Operation::Compact),
        1 => Just(Operation::Close),
        1 => Just(Operation::Kill),
        1 => (0..1000_u64).prop_map(Operation::PowerCut),
    ]
}
