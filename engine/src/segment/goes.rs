//! Removes a segment's files when their last reader is gone.
//!
//! Two segments can share one file: after a segment's data expired, the old segment (with data) and
//! the new one (without) have the same index file. Neither may remove the file while the other is
//! read; so the file is an object of its own, which both hold.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::cache::BlockCache;
use super::{data_name, index_name, twin_of};
use crate::ids::FileNumber;
use crate::vfs::Dir;

/// A segment's file on the disk.
#[derive(Debug)]
pub(super) struct OnDisk {
    dir: Dir,
    cache: Arc<BlockCache>,
    number: FileNumber,
    is_index: bool,
    goes: AtomicBool,
}

impl OnDisk {
    /// The data file and the index file of a segment.
    pub fn pair(
        dir: &Dir,
        number: FileNumber,
        cache: &Arc<BlockCache>,
    ) -> (Arc<OnDisk>, Arc<OnDisk>) {
        let file = |is_index| {
            let (dir, cache) = (dir.clone(), cache.clone());
            Arc::new(OnDisk { dir, cache, number, is_index, goes: AtomicBool::new(false) })
        };
        (file(false), file(true))
    }

    /// Removes the file as soon as nobody holds it any more. The manifest that no longer needs it
    /// must be durable.
    pub fn go(&self) {
        self.goes.store(true, Ordering::Release);
    }
}

impl Drop for OnDisk {
    fn drop(&mut self) {
        if !*self.goes.get_mut() {
            return;
        }
        self.cache.close(self.number, self.is_index);
        let name = if self.is_index { index_name(self.number) } else { data_name(self.number) };
        // The number of copies may have changed since.
        for name in [twin_of(&name), name] {
            match self.dir.remove(&name) {
                // The manifest does not name the file any more: the next open removes it.
                Err(error) if !error.is_not_found() => {
                    tracing::warn!(%error, "an obsolete file stays until the next open");
                }
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Segment, SegmentPlan, SegmentWriter};
    use super::*;
    use crate::ids::EngineId;
    use crate::timeline::{End, Times};
    use crate::vfs::simulated::SimulatedDisk;

    const NAME: &[u8] = b"u/ann";

    /// A segment of one timeline, and its directory. No part of its index stays cached.
    fn segment() -> (Dir, Arc<BlockCache>, Segment) {
        let dir = Dir::new(Arc::new(SimulatedDisk::new()));
        let (engine, cache) = (EngineId([7; 16]), Arc::new(BlockCache::new(0, 8)));
        let written = || {
            let mut writer = SegmentWriter::create(&dir, engine, 1, SegmentPlan::of_a_test())?;
            writer.begin(NAME);
            writer.inline(1, Times::new(5, 5, 0), None, b"hello")?;
            let mut end = End::NEVER;
            end.append(1, &Times::new(5, 5, 0));
            writer.end(end)?;
            writer.finish()
        };
        let record = written().expect("written");
        let segment = Segment::open(&dir, engine, record, &cache);
        (dir, cache, segment)
    }

    #[test]
    fn an_index_of_two_segments_is_removed_with_the_second() {
        for first_to_go_is_older in [true, false] {
            let (dir, cache, whole) = segment();
            let without_data = whole.expired();
            whole.make_obsolete();
            without_data.make_obsolete();
            let (gone, kept) =
                if first_to_go_is_older { (whole, without_data) } else { (without_data, whole) };
            drop(gone);
            cache.close(6, true);
            let found = kept.find(NAME).expect("the index can be read");
            assert_eq!(found.map(|entry| entry.end.last), Some(1));
            drop(kept);
            assert_eq!(dir.list().expect("lists"), Vec::<String>::new());
        }
    }

    #[test]
    fn expired_data_is_removed_without_its_index() {
        let (dir, _, whole) = segment();
        let without_data = whole.expired();
        whole.make_data_obsolete();
        assert!(whole.check().is_ok(), "a reader still has it");
        drop(whole);
        assert_eq!(dir.list().expect("lists"), [index_name(6)]);
        assert!(without_data.check().is_ok());
    }
}
