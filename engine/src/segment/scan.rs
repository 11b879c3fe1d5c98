//! Walks a segment's timelines in the order of their names: for merging and for listing. Reads past the cache.

use std::sync::Arc;

use bytes::Bytes;

use super::reader::Segment;
use crate::error::Result;
use crate::format::index::{TimelineEntry, slot_name};
use crate::format::slots::Slots;

/// A walk through one segment.
pub struct SegmentScan {
    segment: Arc<Segment>,
    page: usize,
    slot: usize,
    content: Option<Bytes>,
}

impl SegmentScan {
    /// All timelines.
    pub fn all(segment: Arc<Segment>) -> SegmentScan {
        SegmentScan { segment, page: 0, slot: 0, content: None }
    }

    /// The timelines whose names are `name` or above.
    pub fn from(segment: Arc<Segment>, name: &[u8]) -> Result<SegmentScan> {
        let page = segment.page_for(name)?;
        let mut scan = SegmentScan { segment, page, slot: 0, content: None };
        if scan.load()? {
            let slots = scan.content.as_ref().and_then(|content| Slots::new(content));
            let at = slots.and_then(|slots| slots.partition(|slot| Some(slot_name(slot)? >= name)));
            scan.slot = at.ok_or_else(|| scan.segment.page_damage(scan.page))?;
        }
        Ok(scan)
    }

    /// The segment.
    pub fn segment(&self) -> &Arc<Segment> {
        &self.segment
    }

    /// Makes sure that the current page is there; false at the end.
    fn load(&mut self) -> Result<bool> {
        if self.content.is_none() {
            if self.page >= self.segment.page_count()? {
                return Ok(false);
            }
            self.content = Some(self.segment.page(self.page)?);
        }
        Ok(true)
    }

    /// The next timeline.
    pub fn next(&mut self) -> Result<Option<(Vec<u8>, TimelineEntry)>> {
        while self.load()? {
            let content = self.content.as_ref().expect("load loaded it");
            let broken = || self.segment.page_damage(self.page);
            let slots = Slots::new(content).ok_or_else(broken)?;
            if self.slot < slots.count() {
                let found = slots.get(self.slot).and_then(TimelineEntry::decode);
                let (name, entry) = found.ok_or_else(broken)?;
                self.slot += 1;
                return Ok(Some((name.to_vec(), entry)));
            }
            (self.page, self.slot, self.content) = (self.page + 1, 0, None);
        }
        Ok(None)
    }
}
