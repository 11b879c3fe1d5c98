//! Memory for the tails of records: the small tails that a thread writes share chunks.
//!
//! A memtable keeps the tails until it is flushed. An allocation for each of them costs the caller
//! an eighth of an append, and the flush, which frees them one by one on another thread, as much.
//!
//! A thread has one chunk. A buffer takes a piece of it of the size that was asked for, so any
//! number of buffers may be in use at a time. A buffer that outgrows its piece moves to memory of
//! its own, and its bytes return to a chunk when they are finished. Tails longer than an eighth of
//! a chunk have memory of their own, so at most that much of a chunk stays unused.
//!
//! This file does not know what a tail contains.

use std::cell::RefCell;

use bytes::{Bytes, BytesMut};

/// A body that a reader keeps keeps its chunk: no more than a page of a segment.
const CHUNK_BYTES: usize = 16 * 1024;

/// The longest tail that shares a chunk.
const MAX_SHARING_BYTES: usize = CHUNK_BYTES / 8;

/// The unused end of a buffer that is not worth a copy, unless it is a small part of the buffer.
const SLACK_BYTES: usize = 64;

thread_local! {
    /// The rest of this thread's chunk.
    static REST: RefCell<BytesMut> = RefCell::default();
}

/// An empty buffer with room for this many bytes.
pub fn buffer(bytes: usize) -> BytesMut {
    // A thread that ends may have no chunk any more.
    let piece = if bytes <= MAX_SHARING_BYTES {
        REST.try_with(|rest| {
            let rest = &mut *rest.borrow_mut();
            if rest.capacity() < bytes {
                *rest = BytesMut::with_capacity(CHUNK_BYTES);
            }
            let behind = rest.split_off(bytes);
            std::mem::replace(rest, behind)
        })
        .ok()
    } else {
        None
    };
    piece.unwrap_or_else(|| BytesMut::with_capacity(bytes))
}

/// Makes room for this many more bytes.
pub fn make_room(buffer: &mut BytesMut, bytes: usize) {
    let needed = buffer.len() + bytes;
    if needed > buffer.capacity() {
        // Not by `BytesMut::reserve`: what has a piece of a chunk gets at least a whole chunk.
        let larger = BytesMut::with_capacity(needed.max(2 * buffer.capacity()));
        move_to(buffer, larger);
    }
}

/// Makes room for the last bytes: this many, and no more follow.
pub fn make_room_for_last(buffer: &mut BytesMut, bytes: usize) {
    let needed = buffer.len() + bytes;
    if needed > buffer.capacity() {
        move_to(buffer, self::buffer(needed));
    }
}

fn move_to(buffer: &mut BytesMut, mut larger: BytesMut) {
    larger.extend_from_slice(buffer);
    *buffer = larger;
}

/// The bytes of a buffer, and of the memory no more than they need.
pub fn finish(mut buffer: BytesMut) -> Bytes {
    let len = buffer.len();
    if buffer.capacity() - len > SLACK_BYTES.max(len / 8) {
        move_to(&mut buffer, self::buffer(len));
    }
    buffer.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(len: usize) -> Bytes {
        filled(buffer(len), len)
    }

    fn filled(mut buffer: BytesMut, len: usize) -> Bytes {
        buffer.resize(len, 7);
        finish(buffer)
    }

    fn is_behind(second: &Bytes, first: &Bytes) -> bool {
        first.as_ptr().addr() + first.len() == second.as_ptr().addr()
    }

    #[test]
    fn small_tails_of_a_thread_are_in_one_piece_of_memory_also_if_many_are_written_at_a_time() {
        let (first, second) = (written(200), written(300));
        assert!(is_behind(&second, &first));
        let buffers: Vec<BytesMut> = (0..50).map(|_| buffer(200)).collect();
        let tails: Vec<Bytes> = buffers.into_iter().map(|buffer| filled(buffer, 200)).collect();
        assert!(is_behind(&tails[0], &second));
        assert!(tails.windows(2).all(|two| is_behind(&two[1], &two[0])));
    }

    #[test]
    fn a_large_tail_has_memory_of_its_own() {
        let before = written(200);
        let large = written(MAX_SHARING_BYTES + 1);
        assert!(!is_behind(&large, &before));
        assert!(is_behind(&written(200), &before), "the chunk goes on");
    }

    #[test]
    fn a_tail_that_outgrows_its_piece_ends_in_as_much_memory_as_it_needs() {
        for rounds in [5_u8, 200] {
            let mut grown = buffer(200);
            let before = written(200);
            for round in 0..rounds {
                make_room(&mut grown, 200);
                grown.extend_from_slice(&[round; 200]);
            }
            assert!(grown.capacity() > grown.len() + grown.len() / 8, "it grew by doubling");
            let grown = finish(grown);
            let expected: Vec<u8> = (0..rounds).flat_map(|round| [round; 200]).collect();
            assert_eq!(grown, expected);
            assert_eq!(
                is_behind(&grown, &before),
                rounds == 5,
                "{rounds}: only a small one shares"
            );
            if let Ok(alone) = grown.try_into_mut() {
                assert!(alone.capacity() <= alone.len() + alone.len() / 8);
            }
        }
    }
}
