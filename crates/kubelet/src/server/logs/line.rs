//! Lines of a log in CRI format: `time stream tag content`, the tag being `F` for a full line and
//! `P` for a part of one.

use jiff::Timestamp;

/// Which lines are wanted, and how.
#[derive(Clone, Debug, Default)]
pub(super) struct Filter {
    pub(super) since: Option<Timestamp>,
    pub(super) stream: Option<&'static str>,
    pub(super) timestamps: bool,
}

impl Filter {
    /// Appends what is wanted of a line, which ends with a line feed.
    pub(super) fn apply(&self, line: &[u8], out: &mut Vec<u8>) {
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        let mut fields = line.splitn(4, |byte| *byte == b' ');
        let (Some(time), Some(stream), Some(tag)) = (fields.next(), fields.next(), fields.next())
        else {
            return;
        };
        let content = fields.next().unwrap_or_default();
        if self.stream.is_some_and(|wanted| wanted.as_bytes() != stream) {
            return;
        }
        if let Some(since) = self.since {
            let at = std::str::from_utf8(time).ok().and_then(|t| t.parse::<Timestamp>().ok());
            if at.is_none_or(|at| at < since) {
                return;
            }
        }
        if self.timestamps {
            out.extend_from_slice(time);
            out.push(b' ');
        }
        out.extend_from_slice(content);
        if tag != b"P" {
            out.push(b'\n');
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "2026-01-01T00:00:00.5Z stdout F one\n\
                       2026-01-01T00:00:01Z stderr F two  words\n\
                       2026-01-01T00:00:02Z stdout P par\n\
                       2026-01-01T00:00:02Z stdout F t\n";

    fn read(filter: &Filter) -> String {
        let mut out = Vec::new();
        for line in LOG.as_bytes().split_inclusive(|byte| *byte == b'\n') {
            filter.apply(line, &mut out);
        }
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn lines_are_selected_and_put_together() {
        assert_eq!(read(&Filter::default()), "one\ntwo  words\npart\n");
        let stderr = Filter { stream: Some("stderr"), ..Filter::default() };
        assert_eq!(read(&stderr), "two  words\n");
        let since = Filter {
            since: Some("2026-01-01T00:00:01Z".parse().unwrap()),
            timestamps: true,
            stream: Some("stderr"),
        };
        assert_eq!(read(&since), "2026-01-01T00:00:01Z two  words\n");
    }
}
