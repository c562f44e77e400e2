//! Container logs as CRI wants them: `<time> <stream> <tag> <text>`, one line each.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use jiff::Timestamp;

use crate::protocol::Stream;

/// Longer lines are split, as upstream splits them.
const LINE_BYTES_MAX: usize = 16 * 1024;

/// One container's log.
pub(super) struct Log {
    path: PathBuf,
    file: Option<File>,
    batch: Vec<u8>,
}

impl Log {
    /// Opens the log for appending. An empty path means that nothing is kept.
    pub(super) fn open(path: PathBuf) -> io::Result<Self> {
        let mut log = Self { path, file: None, batch: Vec::new() };
        log.reopen()?;
        Ok(log)
    }

    /// Opens the file anew, after it was renamed.
    pub(super) fn reopen(&mut self) -> io::Result<()> {
        if !self.path.as_os_str().is_empty() {
            let mut options = OpenOptions::new();
            self.file = Some(options.create(true).append(true).mode(0o640).open(&self.path)?);
        }
        Ok(())
    }

    /// Writes what the batch holds. A full disk loses lines, it does not stop the container.
    pub(super) fn flush(&mut self) {
        if let Some(file) = &mut self.file {
            file.write_all(&self.batch).ok();
        }
        self.batch.clear();
    }
}

/// Cuts one output of a container into lines.
pub(super) struct Lines {
    stream: Stream,
    partial: Vec<u8>,
}

impl Lines {
    pub(super) fn new(stream: Stream) -> Self {
        Self { stream, partial: Vec::new() }
    }

    /// Adds bytes that came at `now`.
    pub(super) fn push(&mut self, mut bytes: &[u8], now: Timestamp, log: &mut Log) {
        // Once for all of them: to write a time takes longer than to copy a line.
        let start = self.start(now);
        while !bytes.is_empty() {
            let room = LINE_BYTES_MAX - self.partial.len();
            let window = &bytes[..bytes.len().min(room)];
            if let Some(end) = memchr::memchr(b'\n', window) {
                self.line(&bytes[..end], b'F', &start, log);
                bytes = &bytes[end + 1..];
            } else if window.len() == room && bytes.get(room) == Some(&b'\n') {
                // Exactly as long as allowed: one full line, not a part and an empty rest.
                self.line(window, b'F', &start, log);
                bytes = &bytes[room + 1..];
            } else if bytes.len() > room {
                self.line(window, b'P', &start, log);
                bytes = &bytes[room..];
            } else {
                self.partial.extend_from_slice(bytes);
                bytes = &[];
            }
        }
    }

    /// Ends the stream. A last line without its end is a partial one.
    pub(super) fn finish(&mut self, now: Timestamp, log: &mut Log) {
        if !self.partial.is_empty() {
            self.line(&[], b'P', &self.start(now), log);
        }
    }

    /// What all lines of now begin with.
    fn start(&self, now: Timestamp) -> String {
        match self.stream {
            Stream::Stdout => format!("{now:.9} stdout "),
            Stream::Stderr => format!("{now:.9} stderr "),
        }
    }

    fn line(&mut self, rest: &[u8], tag: u8, start: &str, log: &mut Log) {
        log.batch.extend_from_slice(start.as_bytes());
        log.batch.extend_from_slice(&[tag, b' ']);
        log.batch.extend_from_slice(&self.partial);
        log.batch.extend_from_slice(rest);
        log.batch.push(b'\n');
        self.partial.clear();
        self.partial.shrink_to(4096);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(chunks: &[&[u8]]) -> Vec<String> {
        let mut log = Log::open(PathBuf::new()).unwrap();
        let mut lines = Lines::new(Stream::Stderr);
        for chunk in chunks {
            lines.push(chunk, Timestamp::UNIX_EPOCH, &mut log);
        }
        lines.finish(Timestamp::UNIX_EPOCH, &mut log);
        let text = String::from_utf8(log.batch).unwrap();
        let prefix = "1970-01-01T00:00:00.000000000Z stderr ";
        text.lines().map(|line| line.strip_prefix(prefix).unwrap().to_owned()).collect()
    }

    #[test]
    fn lines_are_cut_at_their_ends_and_not_at_the_reads() {
        assert_eq!(lines(&[b"a\nb", b"c\n\n", b"rest"]), ["F a", "F bc", "F ", "P rest"]);
        assert!(lines(&[]).is_empty());
    }

    #[test]
    fn long_lines_are_split() {
        let long = "x".repeat(LINE_BYTES_MAX);
        let full = format!("F {long}");
        assert_eq!(lines(&[long.as_bytes(), b"\n"]), std::slice::from_ref(&full));
        assert_eq!(lines(&[format!("{long}\n").as_bytes()]), [full]);
        let longer = format!("{long}yz\n");
        assert_eq!(lines(&[longer.as_bytes()]), [format!("P {long}"), "F yz".to_owned()]);
        assert_eq!(lines(&[long.as_bytes(), b"yz\n"]), [format!("P {long}"), "F yz".to_owned()]);
    }
}
