//! A batch: what a caller wants committed together (P3), encoded by the caller's thread as far as it can be.
//!
//! A batch copies each body once, into the very bytes that the log will hold; the memtable later keeps slices of the same bytes.
//! What only the commit thread knows, sequences and time, goes in front of them in the record.
//!
//! It does not know: the log's files, or what any timeline holds.

use std::hash::BuildHasher;
use std::ops::Range;

use bytes::Bytes;

use crate::error::{Error, Result};
use crate::format::checksum::{Seed, crc};
use crate::format::wal::TailWriter;
use crate::ids::{MAX_NAME_BYTES, StoreId, TimelineRef};
use crate::options::{MAX_BATCH_BYTES, MAX_BODY_BYTES, Options};

/// What a success reply means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Durability {
    /// The operating system has it: it survives a crash of the process, not a power cut.
    Os,
    /// The disk has it (the default).
    #[default]
    Disk,
}

/// Appends that are committed together: all of them or none, after any crash.
///
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// # let engine = strandline::Engine::open(dir.path(), strandline::Options::default())?;
/// let (messages, sync) = (engine.store("messages")?, engine.store("sync")?);
/// let targets = [(&messages, b"c/room".as_slice()), (&sync, b"u/ann"), (&sync, b"u/bob")];
/// let receipt = engine.submit(strandline::Batch::new().fan_out(b"hello", targets))?.wait()?;
/// assert_eq!(receipt.sequences, [1, 1, 1]);
/// # Ok::<(), strandline::Error>(())
/// ```
#[derive(Debug, Default)]
pub struct Batch {
    tail: TailWriter,
    targets: Vec<Target>,
    bodies: Vec<Range<usize>>,
    durability: Durability,
    /// The first thing wrong with it, told when it is submitted.
    wrong: Option<Error>,
}

/// One timeline that gets an entry.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub store: StoreId,
    /// Its name's place in the tail.
    pub name: Range<u32>,
    /// The memtable's hash of store and name.
    pub hash: u64,
    /// Which of the batch's bodies.
    pub body: u32,
}

impl Batch {
    /// A batch of nothing.
    pub fn new() -> Batch {
        Batch::default()
    }

    /// Adds an append of a body to one timeline.
    #[must_use]
    pub fn append(self, store: impl Into<StoreId>, timeline: &[u8], body: &[u8]) -> Batch {
        self.fan_out(body, [(store, timeline)])
    }

    /// Adds an append of one body to many timelines: the body is stored once, each target costs its name and a few bytes.
    #[must_use]
    pub fn fan_out<'a, S: Into<StoreId>>(
        mut self,
        body: &[u8],
        targets: impl IntoIterator<Item = (S, &'a [u8]), IntoIter: ExactSizeIterator>,
    ) -> Batch {
        let targets = targets.into_iter();
        if body.len() > MAX_BODY_BYTES {
            self.refuse(Error::TooLarge { what: "a body", actual: body.len(), limit: MAX_BODY_BYTES });
            return self;
        }
        self.bodies.push(self.tail.body(body));
        self.tail.append(0, targets.len());
        for (store, name) in targets {
            self.target(TimelineRef { store: store.into(), name });
        }
        if self.tail.byte_count() > MAX_BATCH_BYTES {
            self.refuse(Error::TooLarge {
                what: "a batch",
                actual: self.tail.byte_count(),
                limit: MAX_BATCH_BYTES,
            });
        }
        self
    }

    fn target(&mut self, timeline: TimelineRef<'_>) {
        if timeline.name.is_empty() {
            return self.refuse(Error::invalid("a timeline's name must not be empty"));
        }
        if timeline.name.len() > MAX_NAME_BYTES {
            return self.refuse(name_too_long(timeline.name));
        }
        let name = self.tail.target(timeline);
        self.targets.push(Target {
            store: timeline.store,
            name: name.start as u32..name.end as u32,
            hash: 0,
            body: (self.bodies.len() - 1) as u32,
        });
    }

    /// What a success means for this batch. Among the batches of one fsync the strictest wins.
    #[must_use]
    pub fn durability(self, durability: Durability) -> Batch {
        Batch { durability, ..self }
    }

    fn refuse(&mut self, error: Error) {
        self.wrong.get_or_insert(error);
    }

    /// The batch as the commit thread wants it: encoded, summed, its names hashed.
    pub(crate) fn prepare(self, options: &Options, hasher: &impl BuildHasher) -> Result<Prepared> {
        if let Some(wrong) = self.wrong {
            return Err(wrong);
        }
        let limit = options.max_body_bytes.min(MAX_BODY_BYTES);
        if let Some(actual) = self.bodies.iter().map(ExactSizeIterator::len).find(|len| *len > limit) {
            return Err(Error::TooLarge { what: "a body", actual, limit });
        }
        let (tail, names_at) = self.tail.finish();
        let mut targets = self.targets;
        for target in &mut targets {
            target.name.start += names_at as u32;
            target.name.end += names_at as u32;
            let name = &tail[target.name.start as usize..target.name.end as usize];
            target.hash = timeline_hash(hasher, TimelineRef { store: target.store, name });
        }
        let tail_crc = crc(Seed::NONE, &tail);
        Ok(Prepared {
            tail: Bytes::from(tail),
            tail_crc,
            targets,
            bodies: self.bodies,
            durability: self.durability,
        })
    }
}

/// The refusal of a name over the limit.
pub(crate) fn name_too_long(name: &[u8]) -> Error {
    Error::TooLarge { what: "a timeline's name", actual: name.len(), limit: MAX_NAME_BYTES }
}

/// The memtable's hash of a timeline: seeded at random in each engine, so that no client can choose names that collide.
pub(crate) fn timeline_hash(hasher: &impl BuildHasher, timeline: TimelineRef<'_>) -> u64 {
    hasher.hash_one((timeline.store.0, timeline.name))
}

/// A batch ready for the commit thread.
#[derive(Debug)]
pub(crate) struct Prepared {
    /// The record's tail: bodies, stores and names.
    pub tail: Bytes,
    /// Its checksum.
    pub tail_crc: u32,
    /// The timelines, in the caller's order.
    pub targets: Vec<Target>,
    /// Where the bodies are in the tail.
    pub bodies: Vec<Range<usize>>,
    /// What a success means.
    pub durability: Durability,
}

impl Prepared {
    /// A batch of nothing, for who only wants to know that all before it was committed.
    pub fn nothing() -> Prepared {
        Prepared {
            tail: Bytes::new(),
            tail_crc: 0,
            targets: Vec::new(),
            bodies: Vec::new(),
            durability: Durability::Os,
        }
    }

    /// The timeline of a target.
    pub fn timeline(&self, target: &Target) -> TimelineRef<'_> {
        let name = &self.tail[target.name.start as usize..target.name.end as usize];
        TimelineRef { store: target.store, name }
    }

    /// What its record can take at most in the log: header, padding and sequences of ten bytes.
    pub fn record_bytes_bound(&self) -> usize {
        64 + self.tail.len() + 10 * self.targets.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::wal::decode_tail;

    const STORE: StoreId = StoreId(1);

    fn prepare(batch: Batch) -> Result<Prepared> {
        batch.prepare(&Options::default(), &hashbrown::DefaultHashBuilder::default())
    }

    #[test]
    fn targets_and_bodies_are_found_in_the_tail() {
        let batch = Batch::new()
            .append(STORE, b"a", b"one")
            .fan_out(b"two", [(STORE, b"b".as_slice()), (STORE, b"c")]);
        let prepared = prepare(batch).expect("a good batch");
        let seen: Vec<_> = prepared
            .targets
            .iter()
            .map(|target| {
                (
                    prepared.timeline(target).name,
                    &prepared.tail[prepared.bodies[target.body as usize].clone()],
                )
            })
            .collect();
        assert_eq!(seen, [(&b"a"[..], &b"one"[..]), (b"b", b"two"), (b"c", b"two")]);
        assert_eq!(decode_tail(&prepared.tail).expect("decodes").len(), 2);
    }

    #[test]
    fn what_is_over_a_limit_is_refused_by_name() {
        let long_name = prepare(Batch::new().append(STORE, &[b'n'; 256], b"x")).expect_err("too long");
        assert!(long_name.to_string().contains("256 bytes, over the limit of 255"), "{long_name}");
        let big = vec![0; 1024 * 1024 + 1];
        assert!(matches!(
            prepare(Batch::new().append(STORE, b"a", &big)),
            Err(Error::TooLarge { what: "a body", .. })
        ));
        assert!(matches!(prepare(Batch::new().append(STORE, b"", b"x")), Err(Error::Invalid { .. })));
    }
}
