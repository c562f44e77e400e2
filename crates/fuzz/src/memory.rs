//! An allocator that counts.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

static USED: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

/// The system's allocator, which remembers how much was in use at once. A program that fuzzes has
/// it as its global allocator; without it, memory is not judged.
pub struct Counting;

/// Starts to measure; answers what is in use now.
pub(crate) fn begin() -> usize {
    let used = USED.load(Ordering::Relaxed);
    PEAK.store(used, Ordering::Relaxed);
    used
}

/// The most that was in use since, beyond what was.
pub(crate) fn since(begun: usize) -> usize {
    PEAK.load(Ordering::Relaxed).saturating_sub(begun)
}

fn grow(by: usize) {
    let used = USED.fetch_add(by, Ordering::Relaxed).wrapping_add(by);
    PEAK.fetch_max(used, Ordering::Relaxed);
}

fn shrink(by: usize) {
    USED.fetch_sub(by, Ordering::Relaxed);
}

#[expect(unsafe_code, reason = "allocators are unsafe to write")]
// SAFETY: every call is passed on to the system's allocator as it came, whose contract is the same;
// counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        grow(layout.size());
        // SAFETY: the caller keeps to the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        shrink(layout.size());
        // SAFETY: the caller keeps to the contract of `dealloc`.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        grow(size);
        shrink(layout.size());
        // SAFETY: the caller keeps to the contract of `realloc`.
        unsafe { System.realloc(at, layout, size) }
    }
}
