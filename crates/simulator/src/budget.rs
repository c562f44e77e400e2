//! What a run may take, and how one that never ends is ended.
//!
//! A run is measured in its own steps: requests and events. How long the machine takes for them
//! says nothing. Whoever takes no steps at all is in a loop that nothing inside can leave: a thread
//! beside the run sees that by the processor time, which a busy machine does not take from it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use crate::world::World;

/// Requests and events of a run. The longest of thousands of seeds took a tenth of it.
pub(crate) const STEPS_MAX: u64 = 1_000_000;
/// Processor time without a step: a whole run takes a few seconds of it in a debug build.
const STUCK_SECS: i64 = 60;
/// Between two looks at that.
const LOOK: Duration = Duration::from_secs(1);

/// Steps that may be taken, and that have been.
#[derive(Debug)]
pub(crate) struct Budget {
    taken: AtomicU64,
    most: u64,
}

impl Budget {
    /// This many.
    pub(crate) fn new(most: u64) -> Self {
        Self { taken: AtomicU64::new(0), most }
    }

    /// Takes a step; whether there are none left.
    pub(crate) fn step(&self) -> bool {
        self.taken.fetch_add(1, Ordering::Relaxed) >= self.most
    }

    /// How many have been taken.
    pub(crate) fn steps(&self) -> u64 {
        self.taken.load(Ordering::Relaxed)
    }
}

/// Watches a run until what it returns is dropped: one that takes no steps any more is told and
/// ended, and the process with it.
pub(crate) fn watch(seed: u64, world: &Arc<World>) -> Sender<()> {
    let (running, ended) = channel();
    let world = Arc::clone(world);
    std::thread::spawn(move || {
        let (mut steps, mut since) = (0, processor_secs());
        while ended.recv_timeout(LOOK) == Err(RecvTimeoutError::Timeout) {
            let now = world.budget.steps();
            if now != steps {
                (steps, since) = (now, processor_secs());
            } else if processor_secs() - since > STUCK_SECS {
                let (story, digest) = world.story();
                crate::print(&story);
                crate::print(&format!(
                    "seed {seed}: ran out of its budget: {STUCK_SECS} s of the processor for no \
                     step after {steps} (trace {digest:016x})"
                ));
                std::process::exit(1);
            }
        }
    });
    running
}

fn processor_secs() -> i64 {
    clock_gettime(ClockId::ProcessCPUTime).tv_sec
}
