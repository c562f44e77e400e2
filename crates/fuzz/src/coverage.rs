//! Which code an input reaches: the counters that the compiler puts into every block.
//!
//! `cargo xtask fuzz` compiles with `-sanitizer-coverage-inline-8bit-counters`; each module then
//! tells where its counters are before `main`. Without that option there are none, and every input
//! looks alike.

use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};

/// The linker puts the counters of all modules side by side, so that there is one range per
/// program; libraries that are loaded later would have their own, and there are none.
static START: AtomicPtr<u8> = AtomicPtr::new(std::ptr::null_mut());
static LEN: AtomicUsize = AtomicUsize::new(0);

/// Called by every module with the range of the program's counters.
#[expect(unsafe_code, reason = "the compiler calls it by this name")]
#[unsafe(no_mangle)]
extern "C" fn __sanitizer_cov_8bit_counters_init(start: *mut u8, stop: *mut u8) {
    START.store(start, Ordering::Relaxed);
    LEN.store(stop as usize - start as usize, Ordering::Relaxed);
}

/// What has been reached so far: for every counter, a bit for each order of magnitude.
pub(crate) struct Seen {
    bits: Vec<u8>,
}

impl Seen {
    pub(crate) fn new() -> Self {
        Self { bits: vec![0; LEN.load(Ordering::Relaxed)] }
    }

    /// Whether there are counters at all.
    pub(crate) fn has_counters(&self) -> bool {
        !self.bits.is_empty()
    }

    /// Counters that were reached at least once.
    pub(crate) fn reached(&self) -> usize {
        self.bits.iter().filter(|bits| **bits != 0).count()
    }

    /// Sets all counters to nothing.
    pub(crate) fn reset(&self) {
        with_counters(|counters| in_use(counters, |_, page| page.fill(0)));
    }

    /// Takes in the counters; whether any of them was new.
    pub(crate) fn absorb(&mut self) -> bool {
        let mut is_new = false;
        let bits = &mut self.bits;
        with_counters(|counters| {
            in_use(counters, |at, page| {
                for (counter, bits) in page.iter().zip(&mut bits[at..]) {
                    if *counter != 0 {
                        let bit = magnitude(*counter);
                        is_new |= bit & !*bits != 0;
                        *bits |= bit;
                    }
                }
            });
        });
        is_new
    }
}

/// There are millions of counters, of which an execution reaches a few: whole pages of zeros are
/// passed over as fast as memory is compared.
const PAGE: usize = 512;
static ZEROS: [u8; PAGE] = [0; PAGE];

/// The pages that are not all zeros, with their places.
fn in_use(counters: &mut [u8], mut each: impl FnMut(usize, &mut [u8])) {
    for (number, page) in counters.chunks_mut(PAGE).enumerate() {
        if *page != ZEROS[..page.len()] {
            each(number * PAGE, page);
        }
    }
}

/// One bit for how often a block ran.
fn magnitude(count: u8) -> u8 {
    match count {
        0 => 0,
        1 => 1,
        2 => 2,
        3 => 4,
        4..=7 => 8,
        8..=15 => 16,
        16..=31 => 32,
        32..=127 => 64,
        128.. => 128,
    }
}

fn with_counters(run: impl FnOnce(&mut [u8])) {
    let (start, len) = (START.load(Ordering::Relaxed), LEN.load(Ordering::Relaxed));
    if start.is_null() {
        return;
    }
    #[expect(unsafe_code, reason = "the counters are memory of the compiler's")]
    // SAFETY: the range is the program's counters, which live as long as it does; only instrumented
    // code writes to them besides, a lost count is of no consequence, and the engine runs its target
    // on this thread alone.
    let counters = unsafe { std::slice::from_raw_parts_mut(start, len) };
    run(counters);
}
