//! Walks a segment in order: its timelines, for merging and listing, and its ids, for merging. Reads past the cache.

use std::sync::Arc;

use bytes::Bytes;

use super::reader::Segment;
use crate::error::Result;
use crate::format::ids::{self, IdEntry};
use crate::format::index::{TimelineEntry, slot_name};
use crate::format::slots::Slots;

/// A walk over the slots of pages.
struct PageScan {
    segment: Arc<Segment>,
    /// Whether it walks over ids instead of timelines.
    ids: bool,
    page: usize,
    slot: usize,
    content: Option<Bytes>,
}

impl PageScan {
    fn new(segment: Arc<Segment>, ids: bool) -> PageScan {
        PageScan { segment, ids, page: 0, slot: 0, content: None }
    }

    /// Makes sure that the current page is there; false at the end.
    fn load(&mut self) -> Result<bool> {
        if self.content.is_none() {
            let count = if self.ids { self.segment.id_page_count()? } else { self.segment.page_count()? };
            if self.page >= count {
                return Ok(false);
            }
            let page =
                if self.ids { self.segment.id_page(self.page)? } else { self.segment.page(self.page)? };
            self.content = Some(page);
        }
        Ok(true)
    }

    /// What `decode` makes of the next slot.
    fn next<T>(&mut self, decode: impl FnOnce(&[u8]) -> Option<T>) -> Result<Option<T>> {
        while self.load()? {
            let content = self.content.as_ref().expect("load loaded it");
            let broken = || self.segment.page_damage(self.page);
            let slots = Slots::new(content).ok_or_else(broken)?;
            if self.slot < slots.count() {
                let found = slots.get(self.slot).and_then(decode).ok_or_else(broken)?;
                self.slot += 1;
                return Ok(Some(found));
            }
            (self.page, self.slot, self.content) = (self.page + 1, 0, None);
        }
        Ok(None)
    }
}

/// A walk through a segment's timelines.
pub struct SegmentScan {
    pages: PageScan,
}

impl SegmentScan {
    /// All timelines.
    pub fn all(segment: Arc<Segment>) -> SegmentScan {
        SegmentScan { pages: PageScan::new(segment, false) }
    }

    /// The timelines whose names are `name` or above.
    pub fn from(segment: Arc<Segment>, name: &[u8]) -> Result<SegmentScan> {
        let page = segment.page_for(name)?;
        let mut pages = PageScan { page, ..PageScan::new(segment, false) };
        if pages.load()? {
            let slots = pages.content.as_ref().and_then(|content| Slots::new(content));
            let at = slots.and_then(|slots| slots.partition(|slot| Some(slot_name(slot)? >= name)));
            pages.slot = at.ok_or_else(|| pages.segment.page_damage(pages.page))?;
        }
        Ok(SegmentScan { pages })
    }

    /// The segment.
    pub fn segment(&self) -> &Arc<Segment> {
        &self.pages.segment
    }

    /// The next timeline.
    pub fn next(&mut self) -> Result<Option<(Vec<u8>, TimelineEntry)>> {
        self.pages.next(|slot| TimelineEntry::decode(slot).map(|(name, entry)| (name.to_vec(), entry)))
    }
}

/// An id of a segment: timeline, id, what it was used for.
pub type FoundId = (Vec<u8>, Vec<u8>, IdEntry);

/// A walk through a segment's ids.
pub struct IdScan {
    pages: PageScan,
}

impl IdScan {
    /// All ids.
    pub fn all(segment: Arc<Segment>) -> IdScan {
        IdScan { pages: PageScan::new(segment, true) }
    }

    /// The next id.
    pub fn next(&mut self) -> Result<Option<FoundId>> {
        self.pages.next(|slot| {
            let (name, id) = ids::key(slot)?;
            Some((name.to_vec(), id.to_vec(), IdEntry::decode(slot)?))
        })
    }
}
