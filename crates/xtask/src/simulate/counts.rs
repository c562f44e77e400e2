//! What went wrong how often in all seeds, and for whom: a table.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// What a line begins with that counts something: then who, what and how often.
pub(super) const LINE: &str = "count ";

/// The sums.
#[derive(Default)]
pub(super) struct Counts(BTreeMap<String, BTreeMap<String, u64>>);

impl Counts {
    /// Adds a line of the simulator.
    pub(super) fn add(&mut self, line: &str) {
        let mut words = line.split_whitespace().skip(1);
        let (Some(whom), Some(what), Some(count)) = (words.next(), words.next(), words.next())
        else {
            return;
        };
        let sum = self.0.entry(whom.to_owned()).or_default().entry(what.to_owned()).or_default();
        *sum += count.parse::<u64>().unwrap_or(0);
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let columns: BTreeSet<&str> =
            self.0.values().flat_map(|row| row.keys().map(String::as_str)).collect();
        let widest = self.0.keys().map(String::len).max().unwrap_or(0);
        write!(f, "{:widest$}", "")?;
        for column in &columns {
            write!(f, " {column:>12}")?;
        }
        for (whom, row) in &self.0 {
            write!(f, "\n{whom:widest$}")?;
            for column in &columns {
                write!(f, " {:>12}", row.get(*column).copied().unwrap_or(0))?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_added_up_in_a_table() {
        let mut counts = Counts::default();
        for line in ["count job Lost 2", "count pods WatchEnds 1", "count job Lost 40"] {
            counts.add(line);
        }
        let table = counts.to_string();
        let rows: Vec<Vec<&str>> =
            table.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(
            rows,
            [vec!["Lost", "WatchEnds"], vec!["job", "42", "0"], vec!["pods", "0", "1"],]
        );
    }
}
