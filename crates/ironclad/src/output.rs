//! What people read: the one place that prints.

use std::io::{self, Write};
use std::time::Duration;

/// Prints a line to standard output. A reader that is gone is no reason to fail.
pub(crate) fn line(text: &str) {
    writeln!(io::stdout().lock(), "{text}").ok();
}

/// Prints a finished step with its time.
pub(crate) fn step(text: &str, took: Duration) {
    writeln!(io::stdout().lock(), "  {text:<44} {:>6} ms", took.as_millis()).ok();
}

/// Prints an error with its causes to standard error.
pub(crate) fn error(error: &anyhow::Error) {
    let mut text = format!("error: {error}");
    let mut previous = error.to_string();
    for cause in error.chain().skip(1) {
        let cause = cause.to_string();
        // Some libraries repeat their cause in their own message.
        if !previous.contains(&cause) {
            text.push_str(": ");
            text.push_str(&cause);
        }
        previous = cause;
    }
    writeln!(io::stderr().lock(), "{text}").ok();
}

/// Prints rows in columns, the first row as a heading.
pub(crate) fn table(rows: &[Vec<String>]) {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max()
    };
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    for row in rows {
        let mut text = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            text.push_str(&format!("{cell:<width$}   "));
        }
        line(text.trim_end());
    }
}
