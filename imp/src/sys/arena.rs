//! A memory allocator that needs no system call once it is sealed: the parser of configuration has none.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::io;
use std::ptr::null_mut;

/// The system's allocator, until [`seal`] is called. `main.rs` makes it the program's.
#[derive(Debug)]
pub struct Arena;

/// What is left of the arena; empty until it is sealed.
struct Rest(Cell<(usize, usize)>);

// SAFETY: only the sealed child, which has one thread and never makes another, changes the cell.
unsafe impl Sync for Rest {}

static REST: Rest = Rest(Cell::new((0, 0)));

// SAFETY: before `seal` every call goes to the system's allocator. Afterwards blocks are cut, aligned and apart from each
// other, from a mapping that is never returned.
unsafe impl GlobalAlloc for Arena {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let (next, end) = REST.0.get();
        if end == 0 {
            // SAFETY: the caller keeps the contract of `alloc`.
            return unsafe { System.alloc(layout) };
        }
        let start = next.checked_next_multiple_of(layout.align());
        let after = start.and_then(|start| start.checked_add(layout.size()));
        match (start, after) {
            (Some(start), Some(after)) if after <= end => {
                REST.0.set((after, end));
                start as *mut u8
            }
            _ => null_mut(),
        }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        if REST.0.get().1 == 0 {
            // SAFETY: the block came from the system's allocator, as none other has been in use.
            unsafe { System.dealloc(block, layout) };
        }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let (next, end) = REST.0.get();
        if end == 0 {
            // SAFETY: the block came from the system's allocator, as none other has been in use.
            return unsafe { System.realloc(block, layout, size) };
        }
        let start = block as usize;
        let after = start.checked_add(size);
        // The newest block grows in place.
        if let Some(after) = after.filter(|after| start + layout.size() == next && *after <= end) {
            REST.0.set((after, end));
            return block;
        }
        let Ok(wider) = Layout::from_size_align(size, layout.align()) else {
            return null_mut();
        };
        // SAFETY: the caller promises a size that is not zero.
        let moved = unsafe { self.alloc(wider) };
        if !moved.is_null() {
            // SAFETY: both blocks are that long and apart from each other.
            unsafe { std::ptr::copy_nonoverlapping(block, moved, layout.size().min(size)) };
        }
        moved
    }
}

/// From here on all memory of this process comes from `size` bytes that are taken now; it never gives any back.
pub fn seal(size: usize) -> io::Result<()> {
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    // SAFETY: a new mapping at a place that the kernel chooses.
    let base = unsafe { libc::mmap(null_mut(), size, protection, flags, -1, 0) };
    if base == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    let base = base as usize;
    REST.0.set((base, base.saturating_add(size)));
    Ok(())
}
