//! Reads the tables of an index file: finds a row, and moves from it in both directions.
//!
//! A look-up reads one page a level, through the cache; a cursor holds the pages on its path and
//! nothing else.

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
    access: PageAccess,
    about: About<'a>,
}

/// The way in which pages are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PageAccess {
    /// Through the cache.
    Cached,
    /// Directly, without filling the cache, as in walks over a whole table.
    Once,
}

/// A position in a table: a row of the lowest level, and the rows that lead to it. If a page cannot
/// be read, the cursor is at the row that leads to the page, and moves on from there.
#[derive(Clone, Debug)]
pub(super) struct Cursor {
    path: Vec<(Bytes, usize)>,
    damage: Option<Error>,
}

/// Returns the number of rows of a page before the position to descend to: the last of them is
/// taken. `None` if a row is broken.
type Pick<'p> = &'p dyn Fn(&TablePage<'_>) -> Option<usize>;

impl Cursor {
    /// The damage of the page that the row leads to; the row then represents all rows of that page.
    pub fn damage(&self) -> Option<&Error> {
        self.damage.as_ref()
    }

    /// The next row, if it is in the same page.
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
        (access, about): (PageAccess, About<'a>),
    ) -> Table<'a> {
        Table { file, kind, root, access, about }
    }

    /// The last row for whose key `is_after` is false, given that it is true for all rows after
    /// that; `None` if it is true for all rows.
    pub fn seek(&self, is_after: impl Fn(&[u8]) -> Option<bool>) -> Result<Option<Cursor>> {
        whole(self.seek_around(is_after)?)
    }

    /// As [`Table::seek`], but a page that cannot be read is reported by the cursor.
    pub fn seek_around(&self, is_after: impl Fn(&[u8]) -> Option<bool>) -> Result<Option<Cursor>> {
        self.descend(&|page| page.partition(&is_after))
    }

    /// Whether all pages that [`Table::seek`] needs are in the cache, and `is_last_near` holds for
    /// the row that it finds. Broken pages count as near: `seek` reports them.
    pub fn is_near(
        &self,
        is_after: impl Fn(&[u8]) -> Option<bool>,
        is_last_near: impl Fn(Row<'_>) -> bool,
    ) -> bool {
        let mut raw = self.root.clone();
        loop {
            let Some(page) = TablePage::new(&raw) else { return true };
            let before = page.partition(&is_after).and_then(|index| index.checked_sub(1));
            let Some(row) = before.and_then(|index| page.row(index)) else { return true };
            if page.level == 0 {
                return is_last_near(row);
            }
            let Some(below) = self.file.cached(row.block) else { return false };
            raw = below;
        }
    }

    /// The first row.
    pub fn first(&self) -> Result<Option<Cursor>> {
        whole(self.first_around()?)
    }

    /// As [`Table::first`], but a page that cannot be read is reported by the cursor.
    pub fn first_around(&self) -> Result<Option<Cursor>> {
        self.descend(&first_row)
    }

    fn descend(&self, pick: Pick<'_>) -> Result<Option<Cursor>> {
        let mut cursor = Cursor { path: Vec::with_capacity(2), damage: None };
        let root = TablePage::new(self.root).ok_or_else(|| self.broken(0))?;
        Ok(self.down(&mut cursor, (self.root.clone(), root.level, 0), pick)?.then_some(cursor))
    }

    /// Descends from a page to the lowest level, by the rows that `pick` takes; false if it takes
    /// no row of the root.
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
            let Some(index) = pick(&page).ok_or_else(|| self.broken(at))?.checked_sub(1) else {
                // A page begins with the key of the row that led to it.
                return if cursor.path.is_empty() { Ok(false) } else { Err(self.broken(at)) };
            };
            let below = page.row(index).ok_or_else(|| self.broken(at))?.block;
            cursor.path.push((raw, index));
            if level == 0 {
                return Ok(true);
            }
            let Some(page) = self.page(below, cursor)? else { return Ok(true) };
            (raw, level, at) = (page, level - 1, below.at);
        }
    }

    /// A page; `None` if it cannot be read: the cursor, which is at the row that leads to it, has
    /// the damage.
    fn page(&self, block: BlockRef, cursor: &mut Cursor) -> Result<Option<Bytes>> {
        let page = match self.access {
            PageAccess::Cached => self.file.block(self.kind, block, self.about),
            PageAccess::Once => self.file.read(self.kind, block, self.about),
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

    /// Moves to the next row; false, without moving, if there is none. After damage, the next call
    /// continues.
    pub fn next(&self, cursor: &mut Cursor) -> Result<bool> {
        let is_there = self.next_around(cursor)?;
        cursor.damage.clone().map_or(Ok(is_there), Err)
    }

    /// As [`Table::next`], but a page that cannot be read is reported by the cursor.
    pub fn next_around(&self, cursor: &mut Cursor) -> Result<bool> {
        let behind = |page: &TablePage<'_>, index: usize| {
            Some(index + 1).filter(|next| *next < page.count())
        };
        self.step(cursor, behind, &first_row)
    }

    /// Moves to the previous row; false, without moving, if there is none. A page that cannot be
    /// read is reported by the cursor.
    pub fn previous_around(&self, cursor: &mut Cursor) -> Result<bool> {
        self.step(cursor, |_, index| index.checked_sub(1), &|page| Some(page.count()))
    }

    /// Moves the lowest row of the path that has a neighbour, and descends from it by `pick`.
    fn step(
        &self,
        cursor: &mut Cursor,
        neighbour: impl Fn(&TablePage<'_>, usize) -> Option<usize>,
        pick: Pick<'_>,
    ) -> Result<bool> {
        for depth in (0..cursor.path.len()).rev() {
            let (raw, index) = &cursor.path[depth];
            let page = TablePage::new(raw).expect("the page was decoded to get here");
            let Some(index) = neighbour(&page, *index) else { continue };
            let (level, below) = (page.level, page.row(index).ok_or_else(|| self.broken(0))?.block);
            cursor.path.truncate(depth + 1);
            cursor.path[depth].1 = index;
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

/// A cursor for a caller that cannot skip damage.
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
