//! An allocator whose costs do not depend on its history.
//!
//! The system's allocator splits and merges blocks: whether a vector grows in place depends on what
//! was freed before, and so on the random seeds of hash maps. With it, the count of a read of 50
//! entries differed by 5 % from run to run. Here, sizes are rounded up to a power of two, and each
//! thread has a list of free blocks for each of them; nothing is split, merged or given back.
//!
//! A call costs less than one of the system's allocator: counts show what the engine does with
//! memory, not what an allocator does.
#![allow(unsafe_code, reason = "an allocator cannot be written without")]
#![allow(clippy::cast_ptr_alignment, reason = "every block of a list is aligned to 16 bytes")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::ptr;

/// The alignment of every block of the system's allocator, and the smallest block: 2^4 bytes.
const LEAST_BYTES: usize = 16;

/// The largest block that is kept in a list: 2^20 bytes. The system has the larger ones.
const MOST_BYTES: usize = 1 << 20;

/// Lists by the power of two; the first four are not used.
const LISTS: usize = 21;

thread_local! {
    /// The first free block of each size. Its first bytes are the address of the next one.
    static FREE: [Cell<*mut u8>; LISTS] =
        const { [const { Cell::new(ptr::null_mut()) }; LISTS] };
}

/// The allocator.
pub struct Lists;

/// The size of the block for a layout, unless it is the system's to allocate.
fn block_bytes(layout: Layout) -> Option<usize> {
    let bytes = layout.size().max(LEAST_BYTES);
    (bytes <= MOST_BYTES && layout.align() <= LEAST_BYTES).then(|| bytes.next_power_of_two())
}

// SAFETY: a block comes from the system with the size of its list, and is in no list while it is in
// use. The layout alone decides whether a block is of a list, so that `alloc` and `dealloc` agree.
unsafe impl GlobalAlloc for Lists {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let Some(bytes) = block_bytes(layout) else {
            // SAFETY: as the caller promised for this call.
            return unsafe { System.alloc(layout) };
        };
        FREE.with(|lists| {
            let list = &lists[bytes.ilog2() as usize];
            let first = list.get();
            if first.is_null() {
                // SAFETY: the size is not zero, and the alignment is a power of two.
                return unsafe {
                    System.alloc(Layout::from_size_align_unchecked(bytes, LEAST_BYTES))
                };
            }
            // SAFETY: a block in a list has at least 16 bytes, is aligned to 16, and begins with
            // the address of the next one.
            list.set(unsafe { first.cast::<*mut u8>().read() });
            first
        })
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        let Some(bytes) = block_bytes(layout) else {
            // SAFETY: as the caller promised for this call.
            return unsafe { System.dealloc(memory, layout) };
        };
        FREE.with(|lists| {
            let list = &lists[bytes.ilog2() as usize];
            // SAFETY: as above; nobody uses the block any more.
            unsafe { memory.cast::<*mut u8>().write(list.get()) };
            list.set(memory);
        });
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller promises that the size is right for this alignment.
        let grown = unsafe { Layout::from_size_align_unchecked(size, layout.align()) };
        match (block_bytes(layout), block_bytes(grown)) {
            (Some(old), Some(new)) if old == new => memory,
            // SAFETY: as the caller promised for this call.
            (None, None) => unsafe { System.realloc(memory, layout, size) },
            // SAFETY: the new block does not overlap the old one, which is freed with its layout.
            _ => unsafe {
                let moved = self.alloc(grown);
                if !moved.is_null() {
                    ptr::copy_nonoverlapping(memory, moved, layout.size().min(size));
                    self.dealloc(memory, layout);
                }
                moved
            },
        }
    }
}
