//! How much of an archive is read for one entry.

use std::cell::Cell;
use std::io::{self, Read};
use std::rc::Rc;

/// Names and attributes of one entry: attributes have 64 KiB each in the kernel, few have any.
const HEADERS_BYTES_MAX: u64 = 2 << 20;

/// How much of an archive may be read at once. The library reads long names and extended headers
/// whole into memory, and an archive can claim any size for them.
#[derive(Default)]
pub(crate) struct Allowance(Rc<Cell<u64>>);

impl Allowance {
    /// What is read now are headers.
    pub(crate) fn headers(&self) {
        self.0.set(HEADERS_BYTES_MAX);
    }

    /// What is read now are the contents of a file, which are limited elsewhere.
    pub(crate) fn contents(&self) {
        self.0.set(u64::MAX);
    }

    /// Reads as much of `inner` as is allowed.
    pub(crate) fn limit<R: Read>(&self, inner: R) -> Allowed<R> {
        Allowed { inner, left: Rc::clone(&self.0) }
    }
}

/// A reader with an [`Allowance`].
pub(crate) struct Allowed<R> {
    inner: R,
    left: Rc<Cell<u64>>,
}

impl<R: Read> Read for Allowed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.left.get();
        if left == 0 {
            let text = format!("headers of an entry exceed the limit of {HEADERS_BYTES_MAX} bytes");
            return Err(io::Error::other(text));
        }
        let most = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        let read = self.inner.read(&mut buffer[..most])?;
        self.left.set(left - u64::try_from(read).unwrap_or(left));
        Ok(read)
    }
}
