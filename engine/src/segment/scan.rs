//! Walks a segment in order, without filling the cache: its timelines, for merges and listings, and
//! its ids, for merges.

use std::sync::Arc;

use bytes::Bytes;

use super::damage::About;
use super::parts::Pages;
use super::reader::Segment;
use super::table::{Cursor, PageAccess};
use crate::error::{Error, Result};
use crate::format::ids::{self, IdRecord};
use crate::format::index::{TimelineEntry, slot_name};
use crate::format::slots::Slots;

/// A walk over the slots of pages.
struct PageScan {
    segment: Arc<Segment>,
    of: Pages,
    /// The page's row in the table; `None` at the end.
    cursor: Option<Cursor>,
    content: Option<Bytes>,
    slot: usize,
}

impl PageScan {
    /// From the page at the cursor on.
    fn new(segment: Arc<Segment>, of: Pages, cursor: Option<Cursor>) -> PageScan {
        PageScan { segment, of, cursor, content: None, slot: 0 }
    }

    /// From the first page on.
    fn all(segment: Arc<Segment>, of: Pages) -> Result<PageScan> {
        let cursor = segment.parts()?.pages(of, PageAccess::Once, About::ALL).first_around()?;
        Ok(PageScan::new(segment, of, cursor))
    }

    /// Loads the current page; false at the end.
    fn load(&mut self) -> Result<bool> {
        let Some(cursor) = &self.cursor else { return Ok(false) };
        if let Some(error) = cursor.damage() {
            return Err(error.clone());
        }
        if self.content.is_none() {
            self.content = Some(self.segment.parts()?.index.read(
                self.of.kind(),
                cursor.row().block,
                About::ALL,
            )?);
        }
        Ok(true)
    }

    /// Moves to the next page. After a page of the table that cannot be read, moves to the first
    /// page of the next table page.
    fn turn(&mut self) -> Result<()> {
        (self.content, self.slot) = (None, 0);
        if let Some(mut cursor) = self.cursor.take() {
            let is_there = self
                .segment
                .parts()?
                .pages(self.of, PageAccess::Once, About::ALL)
                .next_around(&mut cursor)?;
            self.cursor = is_there.then_some(cursor);
        }
        Ok(())
    }

    /// Damage in the current page.
    fn broken(&self) -> Error {
        let at = self.cursor.as_ref().map_or(0, |cursor| cursor.row().block.at);
        self.segment.parts().map_or_else(|error| error, |parts| parts.page_damage(at, About::ALL))
    }

    /// The result of `decode` for the next slot.
    fn next<T>(&mut self, decode: impl FnOnce(&[u8]) -> Option<T>) -> Result<Option<T>> {
        while self.load()? {
            let content = self.content.as_ref().expect("load loaded it");
            let slots = Slots::new(content).ok_or_else(|| self.broken())?;
            if self.slot < slots.count() {
                let found = slots.get(self.slot).and_then(decode).ok_or_else(|| self.broken())?;
                self.slot += 1;
                return Ok(Some(found));
            }
            self.turn()?;
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
    pub fn all(segment: Arc<Segment>) -> Result<SegmentScan> {
        Ok(SegmentScan { pages: PageScan::all(segment, Pages::Timelines)? })
    }

    /// The timelines whose names are `name` or above.
    pub fn from(segment: Arc<Segment>, name: &[u8]) -> Result<SegmentScan> {
        let is_after = |key: &[u8]| Some(slot_name(key)? > name);
        let Some(cursor) = segment
            .parts()?
            .pages(Pages::Timelines, PageAccess::Once, About::ALL)
            .seek(is_after)?
        else {
            return SegmentScan::all(segment);
        };
        let mut pages = PageScan::new(segment, Pages::Timelines, Some(cursor));
        if pages.load()? {
            let slots = pages.content.as_ref().and_then(|content| Slots::new(content));
            let at = slots.and_then(|slots| slots.partition(|slot| Some(slot_name(slot)? >= name)));
            pages.slot = at.ok_or_else(|| pages.broken())?;
        }
        Ok(SegmentScan { pages })
    }

    /// The segment.
    pub fn segment(&self) -> &Arc<Segment> {
        &self.pages.segment
    }

    /// Skips the current page, which cannot be read.
    pub fn pass_over(&mut self) -> Result<()> {
        self.pages.turn()
    }

    /// The next timeline.
    pub fn next(&mut self) -> Result<Option<(Vec<u8>, TimelineEntry)>> {
        self.pages
            .next(|slot| TimelineEntry::decode(slot).map(|(name, entry)| (name.to_vec(), entry)))
    }
}

/// An id in a segment: the timeline, the id, its use.
pub type FoundId = (Vec<u8>, Vec<u8>, IdRecord);

/// A walk through a segment's ids.
pub struct IdScan {
    pages: PageScan,
}

impl IdScan {
    /// All ids.
    pub fn all(segment: Arc<Segment>) -> Result<IdScan> {
        Ok(IdScan { pages: PageScan::all(segment, Pages::Ids)? })
    }

    /// The next id.
    pub fn next(&mut self) -> Result<Option<FoundId>> {
        self.pages.next(|slot| {
            let (name, id) = ids::key(slot)?;
            Some((name.to_vec(), id.to_vec(), IdRecord::decode(slot)?))
        })
    }
}
