//! What extensions cost: custom resources beside built-in ones, rules, webhooks, and what a crowd of
//! clients takes from one that is not of it.
//!
//! Two things that are compared are done in turns, so that both have the same machine.

mod crowd;
mod hooks;
mod objects;
mod seats;

use std::path::Path;
use std::time::Duration;

use super::Figure;
use super::api::Cost;
use super::server::Server;

pub(crate) use crowd::{Role, play};

/// Turns of a comparison, and objects of each.
const TURNS: usize = 4;
const OBJECTS: usize = 500;

pub(crate) fn measure(ironclad: &Path, in_flight: usize) -> anyhow::Result<Vec<Figure>> {
    let mut figures = Vec::new();
    let server = Server::start(ironclad)?;
    figures.extend(objects::measure(&server, in_flight)?);
    drop(server);
    let server = Server::start(ironclad)?;
    figures.push(hooks::measure(&server, &hooks::program(ironclad)?, in_flight)?);
    drop(server);
    figures.push(seats::measure()?);
    Ok(figures)
}

/// How long one client waits beside many of another user.
pub(crate) fn beside_a_crowd(ironclad: &Path) -> anyhow::Result<Vec<Figure>> {
    crowd::measure(&Server::start(ironclad)?)
}

/// What all turns of one side took.
#[derive(Default)]
struct Sum {
    count: usize,
    cpu: Duration,
}

impl Sum {
    fn add(&mut self, cost: &Cost) {
        self.count += cost.count;
        self.cpu += cost.cpu;
    }

    /// Milliseconds of the server's CPU for each.
    #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
    fn ms(&self) -> f64 {
        self.cpu.as_secs_f64() * 1e3 / self.count as f64
    }
}
