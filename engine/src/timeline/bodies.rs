//! The bodies of a page. Its memory is about what the limit of a page counts: a small body that is
//! a small part of its memory is copied, so that it does not keep that memory alive.
//!
//! The entries of a page come block by block, and their bodies are slices of the blocks. When the
//! next block begins, the number of bytes that the page takes of the last one is known: if that is
//! less than a quarter of the block, copies that share memory of their own replace the slices.
//!
//! This file does not know which entries are in a page.

use std::ops::Range;

use bytes::Bytes;

use crate::entry::Entry;

/// The size up to which bodies are copied into shared memory.
const SMALL_BYTES: usize = 4096;

/// The maximum size of a piece of memory for small bodies.
const PIECE_BYTES: usize = 16 * 1024;

/// The first allocation of such a piece, if the page may take as much.
const FIRST_BYTES: usize = 2 * 1024;

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

/// A page takes at least this part of a block that its bodies are slices of.
const LEAST_PART: usize = 4;

/// The bodies of the entries that were taken.
#[derive(Debug, Default)]
pub(super) struct PageBodies {
    /// The block that entries came from last, and its length; a null address: none.
    block: (usize, usize),
    /// The index of the first entry from that block, and the number of its bytes in the page.
    first: usize,
    part_bytes: usize,
    /// Copies of small bodies.
    piece: Vec<u8>,
    /// The indexes of their entries, and their ranges in the piece.
    copied: Vec<(usize, Range<usize>)>,
}

impl PageBodies {
    /// The body of the entry with this index, the next one of the page. A small body of unknown
    /// memory is given to its entry when the bodies are settled.
    #[inline]
    pub fn keep(&mut self, entries: &mut [Entry], index: usize, body: Offered<'_>) -> Bytes {
        match body {
            Offered::Part(block, range) => {
                if self.block.0 != block.as_ptr().addr() {
                    self.settle_block(entries);
                    (self.block, self.first) = ((block.as_ptr().addr(), block.len()), index);
                }
                self.part_bytes += range.len();
                block.slice(range)
            }
            Offered::Slice(bytes) if bytes.len() > SMALL_BYTES || bytes.is_empty() => bytes,
            Offered::Slice(bytes) => {
                self.settle_block(entries);
                self.copy(entries, index, &bytes);
                Bytes::new()
            }
        }
    }

    fn copy(&mut self, entries: &mut [Entry], index: usize, body: &[u8]) {
        if self.piece.len() + body.len() > PIECE_BYTES {
            self.settle_piece(entries);
        }
        if self.piece.is_empty() {
            self.piece.reserve(FIRST_BYTES.max(body.len()));
        }
        let at = self.piece.len();
        self.piece.extend_from_slice(body);
        self.copied.push((index, at..self.piece.len()));
    }

    /// Replaces the bodies of the last block by copies, if they are a small part of it.
    fn settle_block(&mut self, entries: &mut [Entry]) {
        let ((_, block_bytes), part_bytes) = (self.block, self.part_bytes);
        (self.block, self.part_bytes) = ((0, 0), 0);
        if part_bytes >= block_bytes / LEAST_PART {
            return;
        }
        for index in self.first..entries.len() {
            let body = std::mem::take(&mut entries[index].body);
            if body.len() > SMALL_BYTES {
                entries[index].body = Bytes::copy_from_slice(&body);
            } else if !body.is_empty() {
                self.copy(entries, index, &body);
            }
        }
    }

    fn settle_piece(&mut self, entries: &mut [Entry]) {
        if self.piece.capacity() / 2 > self.piece.len() {
            self.piece.shrink_to_fit();
        }
        let piece = Bytes::from(std::mem::take(&mut self.piece));
        for (index, range) in self.copied.drain(..) {
            entries[index].body = piece.slice(range);
        }
    }

    /// Completes the bodies of a page.
    pub fn settle(&mut self, entries: &mut [Entry]) {
        self.settle_block(entries);
        self.settle_piece(entries);
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
            let index = entries.len();
            let body = bodies.keep(&mut entries, index, Offered::Part(block, range.clone()));
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
