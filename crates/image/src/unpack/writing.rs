//! The contents of files.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;

use crate::ImageError;
use crate::space::{LOOK_EVERY_BYTES, Space};

/// What is read and written at once.
const BUFFER_BYTES: usize = 128 << 10;

/// Writing files, with an eye on the disk.
pub(super) struct Writing<'a> {
    space: &'a Space,
    until_look: u64,
}

impl<'a> Writing<'a> {
    /// Onto this disk.
    pub(super) fn new(space: &'a Space) -> Self {
        Self { space, until_look: 0 }
    }

    /// Writes a file. `sparse` leaves out what is zero.
    pub(super) fn write(
        &mut self,
        from: &mut impl Read,
        to: &mut File,
        full: &Path,
        sparse: bool,
    ) -> Result<(), ImageError> {
        let mut buffer = vec![0; BUFFER_BYTES];
        let mut length = 0;
        loop {
            let read = from.read(&mut buffer).map_err(ImageError::Archive)?;
            if read == 0 {
                break;
            }
            let bytes = &buffer[..read];
            let count = u64::try_from(read).unwrap_or(0);
            length += count;
            if sparse && bytes.iter().all(|byte| *byte == 0) {
                to.seek(SeekFrom::Start(length)).map_err(ImageError::io("write", full))?;
                continue;
            }
            if self.until_look < count {
                self.space.require(0)?;
                self.until_look = LOOK_EVERY_BYTES;
            }
            self.until_look = self.until_look.saturating_sub(count);
            to.write_all(bytes).map_err(ImageError::io("write", full))?;
        }
        if sparse {
            to.set_len(length).map_err(ImageError::io("write", full))?;
        }
        Ok(())
    }
}
