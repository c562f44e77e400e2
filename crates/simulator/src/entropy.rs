//! Where this program gets its random bytes from: the seed, and nowhere else.
//!
//! The order of hash maps, the fairness of `select!` and the jitter of back-offs all come from the
//! libraries' own generators, which ask the C library for bytes. This program defines the function
//! that they ask, so that two runs of a seed are the same run.

use std::ffi::{c_uint, c_void};
use std::sync::atomic::{AtomicU64, Ordering};

static STATE: AtomicU64 = AtomicU64::new(0);

/// Decides all bytes that come. What has asked already has its own.
pub(crate) fn seed(seed: u64) {
    STATE.store(seed, Ordering::Relaxed);
}

/// The C library's `getrandom`.
///
/// # Safety
/// `buffer` must be writable for `length` bytes.
#[expect(unsafe_code, reason = "the libraries' only source of bytes is this function of C")]
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn getrandom(
    buffer: *mut c_void,
    length: usize,
    _flags: c_uint,
) -> isize {
    // SAFETY: the caller promises that the buffer is writable for this length, and keeps it to
    // itself during the call.
    let bytes = unsafe { std::slice::from_raw_parts_mut(buffer.cast::<u8>(), length) };
    for chunk in bytes.chunks_mut(8) {
        let state = STATE.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
        let word = crate::dice::mix(state).to_le_bytes();
        chunk.copy_from_slice(&word[..chunk.len()]);
    }
    isize::try_from(length).unwrap_or(isize::MAX)
}
