//! Files of variables, which containers write for those after them: `NAME='value'`, one after the
//! other, with blank lines and comments between. A value may have several lines.

use std::io::Read;
use std::os::fd::OwnedFd;

/// A file of variables is no larger than an object with them could be.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// The value of a name in an open file; `None` when it is not there.
pub(crate) fn read(open: &OwnedFd, key: &str) -> Result<Option<String>, String> {
    use std::os::fd::AsRawFd;
    let wrong = |error: std::io::Error| error.to_string();
    // What is open is but a path.
    let path = format!("/proc/self/fd/{}", open.as_raw_fd());
    let file = std::fs::File::open(path).map_err(wrong)?;
    let mut text = String::new();
    file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text).map_err(wrong)?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(format!("larger than {FILE_BYTES_MAX} bytes"));
    }
    find(&text, key)
}

fn find(text: &str, key: &str) -> Result<Option<String>, String> {
    let mut rest = text;
    let mut found = None;
    loop {
        rest = rest.trim_start();
        if rest.is_empty() {
            return Ok(found);
        }
        if rest.starts_with('#') {
            rest = rest.split_once('\n').map_or("", |(_, after)| after);
            continue;
        }
        let wrong = || {
            let line = text[..text.len() - rest.len()].matches('\n').count() + 1;
            format!("invalid environment variable format at line {line}")
        };
        let (name, after) = rest.split_once('=').ok_or_else(wrong)?;
        let (value, after) = after
            .strip_prefix('\'')
            .and_then(|quoted| quoted.split_once('\''))
            .ok_or_else(wrong)?;
        let (tail, after) = after.split_once('\n').unwrap_or((after, ""));
        let tail = tail.trim();
        if name.contains(char::is_whitespace) || !(tail.is_empty() || tail.starts_with('#')) {
            return Err(wrong());
        }
        if name == key {
            found = Some(value.to_owned());
        }
        rest = after;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_stand_in_quotes() {
        let text = "# a comment\n\n  A='1'\nB='two\nlines' # more\nA='3'\nC=''";
        assert_eq!(find(text, "A").unwrap().unwrap(), "3");
        assert_eq!(find(text, "B").unwrap().unwrap(), "two\nlines");
        assert_eq!(find(text, "C").unwrap().unwrap(), "");
        assert_eq!(find(text, "D").unwrap(), None);
        for bad in ["A=1", "A='1", "A", "A='1' B='2'", "A B='1'"] {
            let text = format!("X='1'\n{bad}");
            let error = find(&text, "X").unwrap_err();
            assert_eq!(error, "invalid environment variable format at line 2", "{bad}");
        }
    }
}
