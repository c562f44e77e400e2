//! What went wrong how often in all seeds, and for whom: a table.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// What a line begins with that counts something: then who, what and how often.
pub(super) const LINE: &str = "count ";

/// Every controller must meet each of these.
const FAULTS: [&str; 8] =
    ["Busy", "Deposed", "Died", "Late", "Lost", "WatchEnds", "WatchExpires", "WrongClock"];
/// Of what it does so often at least: these too.
const FAULTS_OF: [(&str, &str); 2] = [("Unanswered", "Write"), ("Conflict", "Change")];
/// How often is often: some write only when their program starts.
const OFTEN: u64 = 50;
/// Who competes for the lease watches nothing, and what is scheduled goes by no lease.
const NEVER: [(&str, &str); 5] = [
    ("leader-election", "Late"),
    ("leader-election", "WatchEnds"),
    ("leader-election", "WatchExpires"),
    ("leader-election", "Deposed"),
    ("scheduler", "Deposed"),
];

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

    /// Who never met which fault, though it could have.
    pub(super) fn missed(&self) -> Vec<String> {
        let mut missed = Vec::new();
        for (whom, row) in &self.0 {
            let count = |what: &str| row.get(what).copied().unwrap_or(0);
            let often = FAULTS_OF.iter().filter(|(_, of)| count(of) >= OFTEN);
            let wanted = FAULTS.iter().chain(often.map(|(fault, _)| fault));
            let never = wanted
                .filter(|fault| count(fault) == 0 && !NEVER.contains(&(whom.as_str(), fault)));
            missed.extend(never.map(|fault| format!("{whom}: {fault}")));
        }
        missed
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
    fn a_controller_that_never_met_a_fault_is_told_of() {
        let all = |but: &str| {
            let mut counts = Counts::default();
            counts.add("count job Write 60");
            for fault in FAULTS.iter().chain(&["Unanswered"]).filter(|fault| **fault != but) {
                counts.add(&format!("count job {fault} 1"));
            }
            counts.missed()
        };
        assert_eq!(all(""), [""; 0]);
        assert_eq!(all("Died"), ["job: Died"]);
        assert_eq!(all("Unanswered"), ["job: Unanswered"]);
    }

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
