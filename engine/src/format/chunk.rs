//! Memory for the tails of records: the small tails that a thread writes share chunks.
//!
//! A memtable keeps the tails until it is flushed. An allocation for each of them costs the caller
//! an eighth of an append, and the flush, which frees them one by one on another thread, as much.
//!
//! A thread has one chunk, of which it gives the rest to the next tail. A tail that is longer than
//! an eighth of a chunk has memory of its own, so at most that much of a chunk stays unused.
//!
//! This file does not know what a tail contains.

use std::cell::RefCell;

use bytes::{Bytes, BytesMut};

const CHUNK_BYTES: usize = 64 * 1024;

/// The longest tail that shares a chunk.
const MAX_SHARING_BYTES: usize = CHUNK_BYTES / 8;

thread_local! {
    /// The rest of this thread's chunk. Empty while a tail is written to it.
    static REST: RefCell<BytesMut> = RefCell::default();
}

/// An empty buffer with room for this many bytes.
pub fn buffer(bytes: usize) -> BytesMut {
    if bytes > MAX_SHARING_BYTES {
        return BytesMut::with_capacity(bytes);
    }
    // A thread that ends may have no rest any more.
    let rest = REST.try_with(RefCell::take).unwrap_or_default();
    if rest.capacity() >= bytes { rest } else { BytesMut::with_capacity(CHUNK_BYTES) }
}

/// The bytes of a buffer. What remains of it is for the next one.
pub fn finish(mut buffer: BytesMut) -> Bytes {
    let bytes = buffer.split().freeze();
    if buffer.capacity() > CHUNK_BYTES {
        // It grew by doubling, and whoever keeps the bytes would keep all of it.
        return Bytes::copy_from_slice(&bytes);
    }
    let _ended = REST.try_with(|rest| {
        if rest.borrow().capacity() < buffer.capacity() {
            rest.replace(buffer);
        }
    });
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(len: usize) -> Bytes {
        let mut buffer = buffer(len);
        buffer.resize(len, 7);
        finish(buffer)
    }

    fn is_behind(second: &Bytes, first: &Bytes) -> bool {
        first.as_ptr().addr() + first.len() == second.as_ptr().addr()
    }

    #[test]
    fn small_tails_of_a_thread_are_in_one_piece_of_memory() {
        let (first, second) = (written(200), written(300));
        assert!(is_behind(&second, &first));
        assert!(is_behind(&written(200), &second), "whoever is gone meanwhile");
        // Two are written at a time.
        let (mut outer, inner) = (buffer(200), written(200));
        outer.resize(200, 7);
        assert!(!is_behind(&inner, &finish(outer)), "they do not touch each other");
        let before = written(200);
        assert!(is_behind(&written(200), &before));
    }

    #[test]
    fn a_large_tail_keeps_no_memory_but_its_own() {
        let before = written(200);
        let large = written(MAX_SHARING_BYTES + 1);
        assert!(!is_behind(&large, &before));
        assert!(is_behind(&written(200), &before), "the chunk goes on");
        // A tail whose length was not known.
        let mut grown = buffer(200);
        (0..10 * CHUNK_BYTES / 200).for_each(|_| grown.extend_from_slice(&[7; 200]));
        let capacity = grown.capacity();
        assert!(capacity > grown.len() + CHUNK_BYTES, "{capacity}");
        let grown = finish(grown);
        assert_eq!(grown.len(), 10 * CHUNK_BYTES / 200 * 200);
        assert!(grown.try_into_mut().expect("nobody shares it").capacity() < capacity);
    }
}
