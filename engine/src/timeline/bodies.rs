//! The bodies of a page. Its memory is about what the limit of a page counts: a small body that is
//! a small part of its memory is copied, so that it does not keep that memory alive.
//!
//! The bodies of a page are slices of blocks, and most entries come block by block. When the next
//! block begins, the number of bytes that the page takes of the last one is known: if that is less
//! than a quarter of the block, or the block is large, copies that share memory of their own
//! replace the slices. A body that is most of a large block stays a slice.
//!
//! This file does not know which entries are in a page.

use std::ops::Range;

use bytes::Bytes;

use crate::entry::Entry;
use crate::ids::{CommitPlace, Sequence, TimeMs};

/// The size up to which bodies are copied into shared memory.
const SMALL_BYTES: usize = 4096;

/// The maximum size of a piece of memory for small bodies.
const PIECE_BYTES: usize = 16 * 1024;

/// A body that is offered to a page.
#[derive(Clone, Debug)]
pub(crate) enum Offered<'b> {
    /// A range of a decoded block.
    Part(&'b Bytes, Range<usize>),
    /// A slice of memory of an unknown size.
    Slice(Bytes),
}

impl Offered<'_> {
    /// Its length in bytes.
    pub fn len(&self) -> usize {
        match self {
            Offered::Part(_, range) => range.len(),
            Offered::Slice(bytes) => bytes.len(),
        }
    }
}

/// An entry with its own body, without an expiry of its own, whose lifetime starts at its time.
/// Most entries without a shared body are plain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlainEntry {
    /// Its sequence.
    pub sequence: Sequence,
    /// Its commit time.
    pub time_ms: TimeMs,
    /// The place of the commit of the body that it was written with, if that body may be changed
    /// for all its entries.
    pub place: Option<CommitPlace>,
    /// The byte range of the body in its block.
    pub body: Range<usize>,
}

/// A page takes at least this part of a block that its bodies are slices of.
const LEAST_PART: usize = 4;

/// The maximum size of a block that several bodies of a page share.
const SHARED_BYTES: usize = 2 * PIECE_BYTES;

/// The bodies of the entries that were taken.
#[derive(Debug, Default)]
pub(super) struct PageBodies {
    /// The address and the length of the block that entries came from last; zeros: none.
    block: (usize, usize),
    /// The index of the first entry from there, and the number of bytes from there in the page.
    first: usize,
    part_bytes: usize,
    /// The indexes of entries whose bodies are small slices of memory of unknown sizes.
    loose: Vec<usize>,
}

impl PageBodies {
    /// The body of the entry that comes next in the page.
    #[inline]
    pub fn keep(&mut self, entries: &mut [Entry], body: Offered<'_>) -> Bytes {
        match body {
            Offered::Part(block, range) => {
                self.go_on_in(block, entries);
                self.count_part(range.len());
                block.slice(range)
            }
            Offered::Slice(bytes) => {
                if bytes.len() <= SMALL_BYTES && !bytes.is_empty() {
                    self.loose.push(entries.len());
                }
                bytes
            }
        }
    }

    /// The entries that come next in the page are of this block.
    #[inline]
    pub fn go_on_in(&mut self, block: &Bytes, entries: &mut [Entry]) {
        let block_at = (block.as_ptr().addr(), block.len());
        if self.block != block_at {
            self.settle_block(entries);
            (self.block, self.first) = (block_at, entries.len());
        }
    }

    /// Adds to the number of bytes that the page takes of the block.
    #[inline]
    pub fn count_part(&mut self, bytes: usize) {
        self.part_bytes += bytes;
    }

    /// Replaces the slices of the last block by copies, unless they are a large part of it.
    fn settle_block(&mut self, entries: &mut [Entry]) {
        let (_, block_bytes) = std::mem::take(&mut self.block);
        let part_bytes = std::mem::take(&mut self.part_bytes);
        if part_bytes >= block_bytes / LEAST_PART && block_bytes <= SHARED_BYTES {
            return;
        }
        for entry in &mut entries[self.first..] {
            if entry.body.len() > SMALL_BYTES && entry.body.len() < block_bytes / 2 {
                entry.body = Bytes::copy_from_slice(&entry.body);
            }
        }
        // The indexes are in order.
        self.loose.truncate(self.loose.partition_point(|index| *index < self.first));
        self.loose.extend(self.first..entries.len());
    }

    /// Completes the bodies of a page.
    pub fn settle(mut self, entries: &mut [Entry]) {
        self.settle_block(entries);
        self.loose.retain(|index| (1..=SMALL_BYTES).contains(&entries[*index].body.len()));
        copy(entries, &self.loose);
    }
}

/// Replaces bodies by copies, which share pieces of memory.
fn copy(entries: &mut [Entry], mut indexes: &[usize]) {
    while !indexes.is_empty() {
        let (mut count, mut bytes) = (0, 0);
        for index in indexes {
            let more = entries[*index].body.len();
            if bytes + more > PIECE_BYTES {
                break;
            }
            (count, bytes) = (count + 1, bytes + more);
        }
        let (group, behind) = indexes.split_at(count);
        let mut piece = Vec::with_capacity(bytes);
        group.iter().for_each(|index| piece.extend_from_slice(&entries[*index].body));
        let mut piece = Bytes::from(piece);
        for index in group {
            let body = &mut entries[*index].body;
            *body = piece.split_to(body.len());
        }
        indexes = behind;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The bodies of a page that takes these ranges, each of a block.
    fn page(taken: &[(&Bytes, Range<usize>)]) -> Vec<Bytes> {
        let (mut entries, mut bodies) = (Vec::new(), PageBodies::default());
        for (block, range) in taken {
            let sequence = entries.len() as u64 + 1;
            let body = bodies.keep(&mut entries, Offered::Part(block, range.clone()));
            entries.push(Entry { sequence, time_ms: 0, start_ms: 0, body });
        }
        bodies.settle(&mut entries);
        entries.into_iter().map(|entry| entry.body).collect()
    }

    #[test]
    fn bodies_that_are_most_of_their_block_are_slices_of_it_and_others_are_copies() {
        let block = |byte: u8| Bytes::from(vec![byte; 10_000]);
        let (most, little) = (block(1), block(2));
        let bodies = page(&[(&most, 0..3000), (&most, 3000..5000), (&little, 7..2400)]);
        let is_slice = |body: &Bytes, of: &Bytes| of.as_ptr_range().contains(&body.as_ptr());
        assert!(is_slice(&bodies[0], &most) && is_slice(&bodies[1], &most));
        assert!(!is_slice(&bodies[2], &little));
        let lengths: Vec<usize> = bodies.iter().map(Bytes::len).collect();
        assert_eq!(lengths, [3000, 2000, 2393]);
        assert!(bodies[2].iter().all(|byte| *byte == 2));
    }

    #[test]
    fn a_small_body_does_not_keep_a_large_block() {
        let block = Bytes::from(vec![1; 100_000]);
        let bodies = page(&[(&block, 0..10), (&block, 10..90_000), (&block, 90_000..96_000)]);
        let is_slice = |body: &Bytes| block.as_ptr_range().contains(&body.as_ptr());
        let slices: Vec<bool> = bodies.iter().map(is_slice).collect();
        assert_eq!(slices, [false, true, false]);
        assert_eq!(bodies.iter().map(Bytes::len).sum::<usize>(), 96_000);
    }

    #[test]
    fn copies_share_pieces_of_a_limited_size() {
        let block = Bytes::from((0..=255).cycle().take(100_000).collect::<Vec<u8>>());
        let ranges: Vec<Range<usize>> = (0..12).map(|at| at * 2000..at * 2000 + 1900).collect();
        let taken: Vec<_> = ranges.iter().map(|range| (&block, range.clone())).collect();
        let bodies = page(&taken);
        for (body, range) in bodies.iter().zip(ranges) {
            assert_eq!(body[..], block[range]);
        }
        // Eight of these bodies fit into a piece.
        let adjacent = |pair: &[Bytes]| pair[0].as_ptr_range().end == pair[1].as_ptr();
        let pieces = 1 + bodies.windows(2).filter(|pair| !adjacent(pair)).count();
        assert!(pieces >= 2, "{pieces} pieces");
    }
}
