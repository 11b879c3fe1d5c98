//! Identifiers: small numbers and names that every other room speaks of. Nothing here does
//! anything.

use std::fmt;

/// A dense position in a timeline: 1, 2, 3, …. Zero is "none": the cursor of a reader that has seen
/// nothing.
pub type Sequence = u64;

/// The highest sequence that is ever given: 2^63 − 1, which a signed 64-bit integer holds.
/// JavaScript's numbers are exact up to 2^53 only: choose no higher sequences where such clients
/// read.
pub const MAX_SEQUENCE: Sequence = i64::MAX as u64;

/// Unix milliseconds, as the engine's clock told them when the entry was committed.
pub type TimeMs = u64;

/// The number in a file's name. Numbers rise and are never used twice in a directory.
pub type FileNumber = u64;

/// Which engine a file belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct EngineId(pub [u8; 16]);

/// Which boot of the machine: the page cache lives as long. Zeros: not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct BootId(pub [u8; 16]);

/// A store, as records and segments name it. The manifest maps it to its name and settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StoreId(pub u32);

/// Which open engine a handle belongs to. Every open draws another one at random, and none is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Instance(pub u64);

/// A store of one open engine: what batches and watchers take, from a [`Store`](crate::Store)
/// handle. Store ids repeat in every engine, so an id alone could name an unrelated store of
/// another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StoreKey {
    pub(crate) instance: Instance,
    pub(crate) id: StoreId,
}

/// A byte position in the WAL, counted from the first byte ever logged. It goes on across files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Lsn(pub u64);

impl Lsn {
    /// The position `bytes` further on.
    pub fn plus(self, bytes: u64) -> Lsn {
        Lsn(self.0 + bytes)
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "lsn {}", self.0)
    }
}

/// A change that was committed, or a body: where its group stands in the log, plus its number among
/// those of the group, from 1 on. A group takes more bytes than it has of them, so each is unique,
/// lies where its group does, and they rise from commit to commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct CommitPlace(pub u64);

/// The body of a fan-out in an open engine, from [`Store::body_of`](crate::Store::body_of): what
/// all its entries share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BodyKey {
    pub(crate) instance: Instance,
    pub(crate) place: CommitPlace,
}

/// The name that changes of shared bodies are kept under, beside the timelines of a store: no
/// timeline's is empty.
pub const BODIES: &[u8] = b"";

/// Which timeline: its store and its name's bytes. Orders as keys do in a segment: by store, then
/// by bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TimelineRef<'a> {
    /// The store that holds it.
    pub store: StoreId,
    /// Its name inside the store: 1 to [`MAX_NAME_BYTES`] bytes, any.
    pub name: &'a [u8],
}

/// How many stores an engine has at most: each has segments of its own in every flush that it has a
/// part in.
pub const MAX_STORES: usize = 1000;

/// The stores that are there from the start, and stay.
pub const PERMANENT_STORES: [&str; 2] = ["messages", "sync"];

/// The longest client's id of a batch.
pub const MAX_ID_BYTES: usize = 255;

/// The longest timeline name.
pub const MAX_NAME_BYTES: usize = 255;

impl fmt::Debug for TimelineRef<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}/{}", self.store.0, self.name.escape_ascii())
    }
}
