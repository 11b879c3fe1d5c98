//! Reads timelines of messaging around damage (P5). Every read of events that are shown to users
//! goes through this module.
//!
//! The engine reports what it cannot read separately from what it can. This module merges both into
//! one list of pieces: entries, and gaps of consecutive lost entries with the times between which
//! they were committed. A lost body is a gap of one entry.
//!
//! It does not know what the bodies mean, nor where another copy of a lost entry is (`copies`,
//! `refill`).

use std::ops::RangeInclusive;

use strandline::{Entry, Error, Limit, MAX_SEQUENCE, Page, Sequence, Store, TimeMs};

use super::trouble::{Result, Trouble};

/// Entries read at a time when one entry is wanted.
const FEW: usize = 8;

/// Later than any time: the upper bound of a gap if none is known.
pub const LATEST_MS: TimeMs = TimeMs::MAX;

/// A piece of a timeline.
#[derive(Clone, Debug)]
pub enum Piece {
    /// An entry that can be read.
    Whole(Entry),
    /// Entries that cannot be read.
    Lost(Gap),
}

/// Consecutive entries that cannot be read.
#[derive(Clone, Debug)]
pub struct Gap {
    /// The lowest sequence.
    pub first: Sequence,
    /// The highest sequence.
    pub last: Sequence,
    /// None of them was committed earlier; 0: not known.
    pub from_ms: TimeMs,
    /// None of them was committed later; [`LATEST_MS`]: not known.
    pub to_ms: TimeMs,
    /// The damaged file, and where in it.
    pub error: Error,
}

impl Piece {
    /// Its lowest sequence.
    pub fn first(&self) -> Sequence {
        match self {
            Piece::Whole(entry) => entry.sequence,
            Piece::Lost(gap) => gap.first,
        }
    }

    /// Its highest sequence.
    pub fn last(&self) -> Sequence {
        match self {
            Piece::Whole(entry) => entry.sequence,
            Piece::Lost(gap) => gap.last,
        }
    }

    /// The entry, if it can be read.
    pub fn entry(&self) -> Option<&Entry> {
        match self {
            Piece::Whole(entry) => Some(entry),
            Piece::Lost(_) => None,
        }
    }

    /// The lost entries, if it is a gap.
    pub fn gap(&self) -> Option<&Gap> {
        match self {
            Piece::Whole(_) => None,
            Piece::Lost(gap) => Some(gap),
        }
    }

    /// The times between which it was committed.
    pub fn times(&self) -> (TimeMs, TimeMs) {
        match self {
            Piece::Whole(entry) => (entry.time_ms, entry.time_ms),
            Piece::Lost(gap) => (gap.from_ms, gap.to_ms),
        }
    }
}

impl Gap {
    /// The first `most` entries in the direction of a read.
    pub fn part(&self, descending: bool, most: u64) -> Gap {
        let (mut first, mut last) = (self.first, self.last);
        if descending {
            first = first.max(last.saturating_sub(most - 1));
        } else {
            last = last.min(first.saturating_add(most - 1));
        }
        Gap { first, last, ..self.clone() }
    }

    /// The sequences of the gap.
    pub fn sequences(&self) -> RangeInclusive<Sequence> {
        self.first..=self.last
    }

    /// The number of entries in the gap.
    pub fn count(&self) -> u64 {
        self.last - self.first + 1
    }
}

/// The pieces of a page, in the direction of the read.
pub fn pieces(page: Page, descending: bool) -> Vec<Piece> {
    let Page { mut entries, mut lost, .. } = page;
    if lost.is_empty() {
        return entries.into_iter().map(Piece::Whole).collect();
    }
    if descending {
        entries.reverse();
    }
    lost.sort_by_key(|lost| lost.first);
    let mut pieces = Vec::new();
    let mut entries = entries.into_iter().peekable();
    let mut next = 0;
    for lost in lost {
        while let Some(entry) = entries.next_if(|entry| entry.sequence < lost.first) {
            pieces.push(Piece::Whole(entry));
        }
        let gap = |first, last, from_ms, to_ms| {
            Piece::Lost(Gap { first, last, from_ms, to_ms, error: lost.error.clone() })
        };
        next = lost.first.max(next);
        while let Some(entry) = entries.next_if(|entry| entry.sequence <= lost.last) {
            if next < entry.sequence {
                pieces.push(gap(next, entry.sequence - 1, 0, LATEST_MS));
            }
            next = entry.sequence + 1;
            // No frame is empty. If an entry in a lost range has a body, a later edit supplied it.
            let is_whole = !entry.body.is_empty();
            pieces.push(if is_whole {
                Piece::Whole(entry)
            } else {
                gap(entry.sequence, entry.sequence, entry.time_ms, LATEST_MS)
            });
        }
        if next <= lost.last {
            pieces.push(gap(next, lost.last, 0, LATEST_MS));
            next = lost.last + 1;
        }
    }
    pieces.extend(entries.map(Piece::Whole));
    bound_by_neighbours(&mut pieces);
    if descending {
        pieces.reverse();
    }
    pieces
}

/// Narrows the times of gaps to those of the adjacent pieces, since times never decrease within a
/// timeline. The pieces are in ascending order.
pub fn bound_by_neighbours<'a, I>(pieces: I)
where
    I: IntoIterator<Item = &'a mut Piece>,
    I::IntoIter: DoubleEndedIterator,
{
    let mut pieces: Vec<&mut Piece> = pieces.into_iter().collect();
    let mut earliest_ms = 0;
    for piece in &mut pieces {
        if let Piece::Lost(gap) = piece {
            gap.from_ms = gap.from_ms.max(earliest_ms);
        }
        earliest_ms = piece.times().0;
    }
    let mut latest_ms = LATEST_MS;
    for piece in pieces.iter_mut().rev() {
        if let Piece::Lost(gap) = piece {
            gap.to_ms = gap.to_ms.min(latest_ms);
        }
        latest_ms = piece.times().1;
    }
}

/// A read of a range of a timeline, page by page.
pub struct Scan<'a> {
    store: &'a Store,
    name: &'a [u8],
    low: Sequence,
    high: Sequence,
    descending: bool,
    limit: Limit,
    is_over: bool,
}

impl<'a> Scan<'a> {
    /// Reads the sequences from `low` to `high`, with this limit for each page.
    pub fn new(
        store: &'a Store,
        name: &'a [u8],
        (low, high): (Sequence, Sequence),
        descending: bool,
        limit: Limit,
    ) -> Scan<'a> {
        let limit = limit.around_damage();
        Scan { store, name, low: low.max(1), high, descending, limit, is_over: false }
    }

    /// Continues after a range of sequences that need not be read, in the direction of the read.
    pub fn step_over(&mut self, (first, last): (Sequence, Sequence)) {
        if self.descending {
            self.high = self.high.min(first.saturating_sub(1));
        } else {
            self.low = self.low.max(last.saturating_add(1));
        }
    }

    /// The pieces of the next page; `None` when there is none.
    pub fn next_page(&mut self) -> Result<Option<Vec<Piece>>> {
        if self.is_over || self.low > self.high {
            return Ok(None);
        }
        let bounds = self.low..=self.high;
        let page = if self.descending {
            self.store.range_back(self.name, bounds, self.limit)?
        } else {
            self.store.range(self.name, bounds, self.limit)?
        };
        self.is_over = !page.more;
        let pieces = pieces(page, self.descending);
        match pieces.last() {
            Some(last) if self.descending => self.high = last.first().saturating_sub(1),
            Some(last) => self.low = last.last().saturating_add(1),
            None => self.is_over = true,
        }
        Ok(Some(pieces))
    }
}

/// Returns `None` if a damaged index hides the answer. Used for the end of a timeline, which no
/// read can obtain around damage.
pub fn none_if_hidden<T>(result: std::result::Result<T, Error>) -> Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.is_damage() => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// The piece at a sequence; `None` if there is none.
pub fn piece_at(store: &Store, name: &[u8], sequence: Sequence) -> Result<Option<Piece>> {
    match store.range(name, sequence..=sequence, Limit::entries(1).around_damage()) {
        Ok(page) => Ok(pieces(page, false).into_iter().next()),
        Err(error) if error.is_damage() => {
            let (first, last) = (sequence, sequence);
            Ok(Some(Piece::Lost(Gap { first, last, from_ms: 0, to_ms: LATEST_MS, error })))
        }
        Err(error) => Err(error.into()),
    }
}

/// The nearest readable entry of a range in the direction of the read: its sequence and time.
fn nearest(
    store: &Store,
    name: &[u8],
    range: (Sequence, Sequence),
    descending: bool,
) -> Result<Option<(Sequence, TimeMs)>> {
    let mut scan = Scan::new(store, name, range, descending, Limit::entries(FEW));
    loop {
        match scan.next_page() {
            Ok(None) => return Ok(None),
            Err(Trouble::Engine(error)) if error.is_damage() => return Ok(None),
            Ok(Some(pieces)) => {
                if let Some(entry) = pieces.iter().find_map(Piece::entry) {
                    return Ok(Some((entry.sequence, entry.time_ms)));
                }
            }
            Err(trouble) => return Err(trouble),
        }
    }
}

/// The gap, with its times narrowed to those of the nearest readable entries.
pub fn bounded(store: &Store, name: &[u8], mut gap: Gap) -> Result<Gap> {
    if gap.from_ms == 0 {
        let before = nearest(store, name, (1, gap.first.saturating_sub(1)), true)?;
        gap.from_ms = before.map_or(0, |(_, time_ms)| time_ms);
    }
    if gap.to_ms == LATEST_MS {
        let after = nearest(store, name, (gap.last.saturating_add(1), MAX_SEQUENCE), false)?;
        gap.to_ms = match after {
            Some((_, time_ms)) => time_ms,
            None => none_if_hidden(store.end(name))?.map_or(LATEST_MS, |(_, last_ms)| last_ms),
        };
    }
    Ok(gap)
}

/// The lowest readable sequence with this time or a later one; `last + 1` if there is none. If
/// damage hides times, the lowest sequence that may have such a time.
pub fn sequence_at(store: &Store, name: &[u8], time_ms: TimeMs) -> Result<Sequence> {
    if let Some(found) = none_if_hidden(store.sequence_at(name, time_ms))? {
        return Ok(found);
    }
    let (mut low, mut high) = (1, store.end(name)?.0.saturating_add(1));
    while low < high {
        let middle = low + (high - low) / 2;
        match nearest(store, name, (middle, MAX_SEQUENCE), false)? {
            Some((sequence, found_ms)) if found_ms < time_ms => low = sequence + 1,
            _ => high = middle,
        }
    }
    Ok(low)
}

/// The highest sequence that is not later than a time.
pub fn sequence_up_to(store: &Store, name: &[u8], time_ms: TimeMs) -> Result<Sequence> {
    match time_ms.checked_add(1) {
        Some(later_ms) => Ok(sequence_at(store, name, later_ms)?.saturating_sub(1)),
        None => Ok(MAX_SEQUENCE),
    }
}
