//! Reads the tables of an index file: finds a row, and goes on from it in both directions.
//!
//! A look-up reads one page a level, through the cache; a cursor holds the pages that it stands in
//! and nothing else.

use bytes::Bytes;

use super::cache::CachedFile;
use super::damage::About;
use crate::error::{Error, Result};
use crate::format::block::{BlockKind, BlockRef};
use crate::format::table::{Row, TablePage};

/// A table that can be read.
pub(super) struct Table<'a> {
    file: &'a CachedFile,
    kind: BlockKind,
    root: &'a Bytes,
    reading: Reading,
    about: About<'a>,
}

/// How pages are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reading {
    /// Through the cache.
    Cached,
    /// Past it, as walks over all of a table do.
    Once,
}

/// A place in a table: a row of the lowest level, and the rows that lead there. Where a page cannot
/// be read, it stands at the row that leads to the page, and goes on from there.
#[derive(Clone, Debug)]
pub(super) struct Cursor {
    path: Vec<(Bytes, usize)>,
    damage: Option<Error>,
}

/// How many rows of a page stand before the place to go on from: the last of them is taken. `None`
/// where one is broken.
type Pick<'p> = &'p dyn Fn(&TablePage<'_>) -> Option<usize>;

impl Cursor {
    /// Why the page that the row leads to cannot be read: then the row stands for all rows of that
    /// page.
    pub fn damage(&self) -> Option<&Error> {
        self.damage.as_ref()
    }

    /// The row behind, if the same page has it.
    pub fn row_behind(&self) -> Option<Row<'_>> {
        let (page, row) = self.path.last()?;
        TablePage::new(page)?.row(row + 1)
    }

    /// The row.
    pub fn row(&self) -> Row<'_> {
        let (page, row) = self.path.last().expect("a cursor stands in a page of every level");
        TablePage::new(page)
            .and_then(|page| page.row(*row))
            .expect("the row was decoded to get here")
    }
}

impl<'a> Table<'a> {
    /// The table of a file with this root.
    pub fn new(
        file: &'a CachedFile,
        kind: BlockKind,
        root: &'a Bytes,
        (reading, about): (Reading, About<'a>),
    ) -> Table<'a> {
        Table { file, kind, root, reading, about }
    }

    /// The last row of whose key `is_after` says false, given that all behind it say true; `None`
    /// when all do.
    pub fn seek(&self, is_after: impl Fn(&[u8]) -> Option<bool>) -> Result<Option<Cursor>> {
        whole(self.seek_around(is_after)?)
    }

    /// The same; where a page cannot be read, the cursor says so.
    pub fn seek_around(&self, is_after: impl Fn(&[u8]) -> Option<bool>) -> Result<Option<Cursor>> {
        self.descend(&|page| page.partition(&is_after))
    }

    /// The first row.
    pub fn first(&self) -> Result<Option<Cursor>> {
        whole(self.first_around()?)
    }

    /// The same; where a page cannot be read, the cursor says so.
    pub fn first_around(&self) -> Result<Option<Cursor>> {
        self.descend(&first_row)
    }

    fn descend(&self, pick: Pick<'_>) -> Result<Option<Cursor>> {
        let mut cursor = Cursor { path: Vec::with_capacity(2), damage: None };
        let root = TablePage::new(self.root).ok_or_else(|| self.broken(0))?;
        Ok(self.down(&mut cursor, (self.root.clone(), root.level, 0), pick)?.then_some(cursor))
    }

    /// From a page of a level down to the lowest, by the rows that `pick` takes; false when it
    /// takes none of the root.
    fn down(
        &self,
        cursor: &mut Cursor,
        (mut raw, mut level, mut at): (Bytes, u8, u64),
        pick: Pick<'_>,
    ) -> Result<bool> {
        loop {
            let page = TablePage::new(&raw)
                .filter(|page| page.level == level)
                .ok_or_else(|| self.broken(at))?;
            let Some(place) = pick(&page).ok_or_else(|| self.broken(at))?.checked_sub(1) else {
                // A page that a row led to begins with that row's key.
                return if cursor.path.is_empty() { Ok(false) } else { Err(self.broken(at)) };
            };
            let below = page.row(place).ok_or_else(|| self.broken(at))?.block;
            cursor.path.push((raw, place));
            if level == 0 {
                return Ok(true);
            }
            let Some(page) = self.page(below, cursor)? else { return Ok(true) };
            (raw, level, at) = (page, level - 1, below.at);
        }
    }

    /// A page; `None` when it cannot be read: the cursor, which stands at the row that leads to it,
    /// says so.
    fn page(&self, block: BlockRef, cursor: &mut Cursor) -> Result<Option<Bytes>> {
        let page = match self.reading {
            Reading::Cached => self.file.block(self.kind, block, self.about),
            Reading::Once => self.file.read(self.kind, block, self.about),
        };
        match page {
            Ok(page) => Ok(Some(page)),
            Err(error) if error.is_damage() => {
                cursor.damage = Some(error);
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Goes on to the next row; false, and the cursor stays, when there is none. Behind damage, the
    /// next call goes on.
    pub fn next(&self, cursor: &mut Cursor) -> Result<bool> {
        let is_there = self.next_around(cursor)?;
        cursor.damage.clone().map_or(Ok(is_there), Err)
    }

    /// The same; where a page cannot be read, the cursor says so.
    pub fn next_around(&self, cursor: &mut Cursor) -> Result<bool> {
        let behind = |page: &TablePage<'_>, place: usize| {
            Some(place + 1).filter(|next| *next < page.count())
        };
        self.step(cursor, behind, &first_row)
    }

    /// Goes back to the row before; false, and the cursor stays, when there is none. Where a page
    /// cannot be read, the cursor says so.
    pub fn previous_around(&self, cursor: &mut Cursor) -> Result<bool> {
        self.step(cursor, |_, place| place.checked_sub(1), &|page| Some(page.count()))
    }

    /// Moves the lowest row of the path that has a neighbour, and goes down from it by `pick`.
    fn step(
        &self,
        cursor: &mut Cursor,
        neighbour: impl Fn(&TablePage<'_>, usize) -> Option<usize>,
        pick: Pick<'_>,
    ) -> Result<bool> {
        for depth in (0..cursor.path.len()).rev() {
            let (raw, place) = &cursor.path[depth];
            let page = TablePage::new(raw).expect("the page was decoded to get here");
            let Some(place) = neighbour(&page, *place) else { continue };
            let (level, below) = (page.level, page.row(place).ok_or_else(|| self.broken(0))?.block);
            cursor.path.truncate(depth + 1);
            cursor.path[depth].1 = place;
            cursor.damage = None;
            if level == 0 {
                return Ok(true);
            }
            let Some(page) = self.page(below, cursor)? else { return Ok(true) };
            return self.down(cursor, (page, level - 1, below.at), pick);
        }
        Ok(false)
    }

    fn broken(&self, at: u64) -> Error {
        self.file.damaged(at, "a page of a table is broken", self.about)
    }
}

/// A cursor for a caller who cannot go around damage.
fn whole(cursor: Option<Cursor>) -> Result<Option<Cursor>> {
    match cursor.as_ref().and_then(Cursor::damage) {
        Some(error) => Err(error.clone()),
        None => Ok(cursor),
    }
}

#[allow(clippy::unnecessary_wraps, reason = "it is one of the picks")]
fn first_row(page: &TablePage<'_>) -> Option<usize> {
    Some(page.count().min(1))
}
