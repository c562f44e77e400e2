//! What is going on, as text: upstream's debugging pages.
//!
//! Upstream: `util/flowcontrol/apf_controller_debug.go`.

use std::fmt::Write as _;
use std::time::Duration;

use crate::config::Response;
use crate::controller::FlowControl;

impl FlowControl {
    /// A line per level.
    pub fn dump_levels(&self) -> String {
        let mut rows = vec![row(&[
            "PriorityLevelName",
            "ActiveQueues",
            "IsIdle",
            "IsQuiescing",
            "WaitingRequests",
            "ExecutingRequests",
            "DispatchedRequests",
            "RejectedRequests",
            "TimedoutRequests",
            "CancelledRequests",
        ])];
        for level in self.levels().values() {
            rows.push(level.show(|response, queues, counts| {
                if response == Response::Exempt {
                    let mut cells = vec![level.name.clone()];
                    cells.extend(vec!["<none>".to_owned(); 9]);
                    return cells;
                }
                let is_idle = queues.executing() + queues.waiting() == 0;
                vec![
                    level.name.clone(),
                    queues.active().to_string(),
                    is_idle.to_string(),
                    // One that goes is gone from here at once.
                    "false".to_owned(),
                    queues.waiting().to_string(),
                    queues.executing().to_string(),
                    counts.dispatched.to_string(),
                    counts.rejected.to_string(),
                    counts.timed_out.to_string(),
                    counts.cancelled.to_string(),
                ]
            }));
        }
        table(&rows)
    }

    /// A line per queue.
    pub fn dump_queues(&self) -> String {
        let mut rows = vec![row(&[
            "PriorityLevelName",
            "Index",
            "PendingRequests",
            "ExecutingRequests",
            "SeatsInUse",
            "NextDispatchR",
            "InitialSeatsSum",
            "MaxSeatsSum",
            "TotalWorkSum",
        ])];
        for level in self.levels().values() {
            level.show(|_, queues, _| {
                for (at, queue) in queues.views().enumerate() {
                    let seats = queue.seats_waiting.to_string();
                    rows.push(vec![
                        level.name.clone(),
                        at.to_string(),
                        queue.waiting.to_string(),
                        queue.executing.to_string(),
                        queue.seats_in_use.to_string(),
                        format!("{:.8}ss", queue.next),
                        seats.clone(),
                        seats,
                        format!("{:.8}ss", f64::from(queue.seats_waiting) * 0.003),
                    ]);
                }
            });
        }
        table(&rows)
    }

    /// A line per request that waits.
    pub fn dump_requests(&self) -> String {
        let mut rows = vec![row(&[
            "PriorityLevelName",
            "FlowSchemaName",
            "QueueIndex",
            "RequestIndexInQueue",
            "FlowDistingsher",
            "ArriveTime",
            "InitialSeats",
            "FinalSeats",
            "AdditionalLatency",
        ])];
        for level in self.levels().values() {
            let waiting: Vec<(usize, usize, u32, Duration, String, String)> =
                level.show(|_, queues, _| {
                    let queued = queues.queued();
                    queued
                        .map(|(at, place, seats, since, waiter)| {
                            let schema = waiter.schema.config.name.clone();
                            (at, place, seats, since, schema, waiter.distinguisher.clone())
                        })
                        .collect()
                });
            for (at, place, seats, since, schema, distinguisher) in waiting {
                rows.push(vec![
                    level.name.clone(),
                    schema,
                    at.to_string(),
                    place.to_string(),
                    distinguisher,
                    self.time_of(since),
                    seats.to_string(),
                    "0".to_owned(),
                    "0s".to_owned(),
                ]);
            }
        }
        table(&rows)
    }
}

fn row(cells: &[&str]) -> Vec<String> {
    cells.iter().map(|&cell| cell.to_owned()).collect()
}

/// Cells with commas behind them, as wide as the widest of their column.
fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.first().map_or(0, Vec::len);
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        // As upstream's writer has it: no column is narrower than eight.
        cells.map(|cell| cell.chars().count() + 2).max().unwrap_or(0).max(8)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut out = String::new();
    for row in rows {
        for (at, cell) in row.iter().enumerate() {
            if at + 1 == row.len() {
                let _ = writeln!(out, "{cell}");
            } else {
                let _ = write!(out, "{:width$}", format!("{cell},"), width = widths[at]);
            }
        }
    }
    out
}
