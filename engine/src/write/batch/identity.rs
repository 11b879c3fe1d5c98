//! The meaning of a client's id (P12): two hashes, which show whether a batch with the same id is a
//! repeat or another batch.
//!
//! The first hash covers the bodies, the second the timelines and changes. A repeat has the same
//! appends, to the same timelines in the same order, and the same changes. Durability, conditions,
//! a chosen sequence, the origin's stamp and lifetimes are not compared: a client that repeats a
//! batch may compute a lifetime again, from the time that is left.
//!
//! The hashes are in the log and in segments, so their definition is part of the format.
//!
//! This file does not know where ids are stored.

use super::{AppendedBody, Change, ChangeKind, Listed, Removal, Target};
use crate::entry::Receipt;
use crate::error::{Error, Result};
use crate::format::checksum::name_hash;
use crate::format::ids::{IdHashes, IdRecord};
use crate::format::wal::TailWriter;
use crate::ids::{Sequence, StoreId};

/// The targets' hash of an id that stands for other bytes than the batch's: only the first sequence
/// is remembered for it.
const STANDS_ALONE: u64 = 0;

/// The hashes of an id that stands for these bytes.
pub(crate) fn stands_for(what: &[u8]) -> IdHashes {
    IdHashes { bodies: name_hash(what), targets: STANDS_ALONE }
}

/// The sequences that are remembered for an id with these hashes.
pub(crate) fn remembered(hashes: IdHashes, sequences: &[Sequence]) -> &[Sequence] {
    if hashes.targets == STANDS_ALONE { &sequences[..sequences.len().min(1)] } else { sequences }
}

/// The answer to a batch with an id that was used before: the original receipt, or
/// [`Error::IdConflict`] if the id belongs to another batch.
pub(crate) fn original(used: &IdRecord, hashes: IdHashes) -> Result<Receipt> {
    if used.hashes != hashes {
        return Err(Error::IdConflict { sequence: used.sequences.first().copied().unwrap_or(0) });
    }
    Ok(Receipt {
        time_ms: used.time_ms,
        sequences: used.sequences.iter().copied().collect(),
        duplicate: true,
        removed: 0,
    })
}

/// An unfinished batch, whose byte ranges are those in the writer.
pub(super) struct Content<'a> {
    pub tail: &'a TailWriter,
    pub bodies: &'a [AppendedBody],
    pub targets: &'a [Target],
    pub list: Option<&'a Listed>,
    pub changes: &'a [Change],
    /// As they were asked for: a repeat finds less to remove.
    pub removals: &'a [Removal],
}

impl Content<'_> {
    /// The hashes of an id that stands for the whole batch.
    pub fn hashes(&self) -> IdHashes {
        let (bodies, targets) = match self.bodies {
            // Every release has computed them so; an id that was used before an update is still
            // known after it.
            [body] if self.changes.is_empty() && self.removals.is_empty() => {
                (name_hash(self.tail.body_at(&body.place)), self.targets())
            }
            bodies => {
                let bodies = bodies.iter().map(|body| name_hash(self.tail.body_at(&body.place)));
                (bodies.fold(0, mixed), self.operations())
            }
        };
        IdHashes { bodies, targets: if targets == STANDS_ALONE { 1 } else { targets } }
    }

    /// All targets in their order: store, name, and the number of the body. A list counts as if its
    /// timelines were named.
    fn all_targets(&self) -> impl Iterator<Item = (StoreId, &[u8], u32)> {
        let named = |target: &Target| (target.store, self.tail.name_at(&target.name), target.body);
        let named = self.targets.iter().map(named);
        let after = self.list.map_or(0, |listed| listed.after);
        let listed = self.list.into_iter().flat_map(|listed| {
            listed.list.keys().map(|key| (key.timeline.store, key.timeline.name, listed.body))
        });
        named.clone().take(after).chain(listed).chain(named.skip(after))
    }

    /// A hash of the targets, in their order.
    fn targets(&self) -> u64 {
        self.all_targets().fold(0, |hash, (store, name, _)| timeline(hash, store, name))
    }

    /// A hash of the targets, each with the number of its body, and of the changes, in their order.
    fn operations(&self) -> u64 {
        let appended = self.all_targets().fold(0, |hash, (store, name, body)| {
            mixed(timeline(hash, store, name), u64::from(body))
        });
        // The counts keep targets and changes apart.
        let targets = self.all_targets().count() as u64;
        let counted = mixed(mixed(appended, targets), self.changes.len() as u64);
        let changed = self.changes.iter().fold(counted, |hash, change| {
            let hash = timeline(hash, change.store, self.tail.name_at(&change.name));
            match &change.kind {
                ChangeKind::Trim(floor) => {
                    [1, floor.lowest, floor.start_ms, floor.until_ms, floor.trimmed_to]
                        .into_iter()
                        .fold(hash, mixed)
                }
                ChangeKind::Remove(ranges) => {
                    let ends = ranges.iter().flat_map(|(first, last)| [*first, *last]);
                    [2, ranges.len() as u64].into_iter().chain(ends).fold(hash, mixed)
                }
                ChangeKind::Edit(sequence, body) => {
                    [3, *sequence, name_hash(self.tail.body_at(body))].into_iter().fold(hash, mixed)
                }
            }
        });
        self.removals.iter().flat_map(Removal::numbers).fold(changed, mixed)
    }
}

fn timeline(hash: u64, store: StoreId, name: &[u8]) -> u64 {
    mixed(hash, name_hash(name) ^ u64::from(store.0))
}

/// Adds a piece to a hash of pieces in their order.
fn mixed(hash: u64, piece: u64) -> u64 {
    (hash.rotate_left(5) ^ piece).wrapping_mul(0x9E37_79B9_7F4A_7C15)
}

#[cfg(test)]
mod tests {
    use crate::ids::{Instance, StoreId, StoreKey};
    use crate::options::Options;
    use crate::write::batch::Batch;

    fn store(id: u32) -> StoreKey {
        StoreKey { instance: Instance(0), id: StoreId(id) }
    }

    fn hashes(batch: Batch) -> (u64, u64) {
        let hasher = hashbrown::DefaultHashBuilder::default();
        let prepared = batch.id(b"id").prepare(Instance(0), &Options::default(), &hasher);
        let id = prepared.expect("a good batch").id.expect("it has one");
        (id.1.bodies, id.1.targets)
    }

    #[test]
    fn hashes_of_one_body_are_those_of_every_release() {
        let targets =
            [(store(1), b"c/room".as_slice()), (store(2), b"u/ann"), (store(2), b"u/bob")];
        let golden = [
            hashes(Batch::new().append(store(1), b"c/room", b"hello")),
            hashes(Batch::new().fan_out(b"hello", targets)),
        ];
        assert_eq!(
            golden,
            [
                (14_992_991_971_677_993_776, 765_651_957_383_144_124),
                (14_992_991_971_677_993_776, 13_672_566_675_628_291_477)
            ]
        );
    }

    #[test]
    fn hashes_of_several_bodies_and_changes_are_part_of_the_format() {
        let several = || Batch::new().append(store(1), b"a", b"one").append(store(2), b"b", b"two");
        let golden = [hashes(several()), hashes(several().edit(store(1), b"a", 7, b"three"))];
        assert_eq!(
            golden,
            [
                (12_839_987_010_458_640_500, 6_466_323_927_798_519_918),
                (12_839_987_010_458_640_500, 16_441_232_576_518_758_657)
            ]
        );
    }
}
