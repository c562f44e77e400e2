//! One run of a seed: a wild part, then rest, then silence.

use std::sync::Arc;
use std::time::Duration;

use jiff::SignedDuration;

use crate::admin::Admin;
use crate::budget;
use crate::dice::Dice;
use crate::nodes::{Manner, NODES, Nodes};
use crate::panics;
use crate::programs::{Program, Running};
use crate::settled::problems;
use crate::storage::Storage;
use crate::user::{NAMESPACES, User};
use crate::world::{Faults, World};

/// How long everything may take to come to rest: a key that failed often waits 1,000 s, and what
/// waits for it may as well.
const REST: Duration = Duration::from_secs(2 * 3600);
/// How long nothing may happen afterwards.
const SILENCE: Duration = Duration::from_secs(900);
/// Between two looks at what has come to rest.
const LOOK: Duration = Duration::from_secs(2);

/// How long a run may be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Steps of the wild part; otherwise as many as the seed says.
    pub(crate) steps: Option<usize>,
    /// Requests and events of the whole.
    pub(crate) budget: u64,
}

/// What came of a run.
pub(crate) struct Outcome {
    /// What went wrong, if anything did.
    pub(crate) failure: Option<String>,
    /// The last lines of the trace.
    pub(crate) story: String,
    /// What all of the trace comes to: the same for every run of a seed.
    pub(crate) digest: u64,
    /// What went wrong how often, and for whom.
    pub(crate) counts: String,
    /// Requests and events.
    pub(crate) steps: u64,
    /// Changes of objects.
    pub(crate) changes: u64,
    /// When everything was as it should be.
    pub(crate) settled: Duration,
}

/// Runs a seed.
pub(crate) fn run(seed: u64, limits: Limits, print: bool) -> anyhow::Result<Outcome> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build()?;
    Ok(runtime.block_on(async {
        let world = World::new(seed, limits.budget, print);
        let watched = budget::watch(seed, &world);
        let result = tokio::select! {
            biased;
            steps = world.exhausted() => Err(format!("ran out of its budget of {steps} steps")),
            result = Course::begin(seed, &world).go(limits.steps) => result,
        };
        drop(watched);
        let (story, digest) = world.story();
        let (changes, steps) = (world.api().version(), world.budget.steps());
        let settled = *result.as_ref().unwrap_or(&Duration::ZERO);
        let counts = world.tally().to_string();
        Outcome { failure: result.err(), story, digest, counts, steps, changes, settled }
    }))
}

/// The parts of a run.
struct Course {
    world: Arc<World>,
    dice: Dice,
    nodes: Nodes,
    storage: Storage,
    user: User,
    admin: Admin,
    managers: Vec<Running>,
    scheduler: Running,
}

impl Course {
    fn begin(seed: u64, world: &Arc<World>) -> Self {
        let user = User::new(world);
        let system = ["default", "kube-system", "kube-node-lease", "kube-public"];
        for namespace in system.iter().chain(&NAMESPACES) {
            user.make_namespace(namespace);
        }
        let mut dice = Dice::new(seed, 3);
        // In some runs there are two, of which one works.
        let programs: &[Program] = if dice.chance(200) || world.strikes().need_rivals() {
            &[Program::Rival("first"), Program::Rival("second")]
        } else {
            &[Program::Manager]
        };
        Self {
            world: Arc::clone(world),
            dice,
            nodes: Nodes::start(world),
            storage: Storage::start(world),
            user,
            admin: Admin::start(world, seed),
            managers: programs.iter().map(|one| Running::start(world, *one)).collect(),
            scheduler: Running::start(world, Program::Scheduler),
        }
    }

    /// All of it; when everything had come to rest, or what went wrong.
    async fn go(mut self, steps: Option<usize>) -> Result<Duration, String> {
        let steps = steps.unwrap_or_else(|| 40 + self.dice.below(160));
        self.wild(steps).await?;
        let settled = self.rest().await?;
        self.silence().await?;
        Ok(settled)
    }

    async fn wild(&mut self, steps: usize) -> Result<(), String> {
        let faults = self.choose_faults();
        self.world.trace(&format!("{faults:?}"));
        self.world.set_faults(faults);
        let pace = Duration::from_millis([100, 1000, 5000][self.dice.below(3)]);
        let manner = Manner {
            fails: [0, 5, 50][self.dice.below(3)],
            flaps: [0, 5, 20][self.dice.below(3)],
            works: [200, 600, 1000][self.dice.below(3)],
        };
        let mischief = [0, 5, 20][self.dice.below(3)];
        for _ in 0..steps {
            let pause = self.dice.within(pace);
            tokio::time::sleep(pause).await;
            self.nodes.look(manner);
            self.storage.look(manner.works);
            if self.dice.chance(400) {
                self.user.act();
            }
            self.admin.look(250);
            self.mischief(mischief);
            self.check()?;
        }
        Ok(())
    }

    fn choose_faults(&mut self) -> Faults {
        let mut rate = |of: [u64; 4]| of[self.dice.below(4)];
        Faults {
            lost: rate([0, 0, 5, 40]),
            unanswered: rate([0, 0, 5, 40]),
            conflict: rate([0, 0, 10, 60]),
            busy: rate([0, 0, 5, 40]),
            slow: rate([0, 0, 10, 50]),
            watch_ends: rate([0, 0, 5, 30]),
            watch_expires: rate([0, 0, 5, 30]),
        }
    }

    fn mischief(&mut self, rate: u64) {
        if self.dice.chance(rate) {
            let number = self.dice.below(self.managers.len());
            let manager = &mut self.managers[number];
            if self.dice.chance(500) {
                self.world.trace(&format!("manager {number} is told to end"));
                manager.stop();
            } else {
                self.world.trace(&format!("manager {number} dies and starts again"));
                manager.restart();
            }
        }
        if self.dice.chance(rate) {
            self.world.trace("the scheduler dies and starts again");
            self.scheduler.restart();
        }
        if self.dice.chance(rate) {
            let most = if self.dice.chance(200) { 2400 } else { 240 };
            let seconds = i64::try_from(self.dice.below(most)).unwrap_or(0)
                - i64::try_from(most / 2).unwrap_or(0);
            self.world.trace(&format!("the programs' clocks are {seconds} s wrong"));
            self.skew(SignedDuration::from_secs(seconds));
        }
        if self.dice.chance(rate) {
            self.world.trace("old changes are forgotten");
            self.world.api().compact();
        }
        if self.dice.chance(rate / 2) {
            self.nodes.toggle(self.dice.below(NODES));
        }
    }

    fn skew(&self, by: SignedDuration) {
        self.managers.iter().for_each(|manager| manager.skew(by));
        self.scheduler.skew(by);
        self.world.api().checks.skewed(by);
    }

    /// Until everything is as it should be.
    async fn rest(&mut self) -> Result<Duration, String> {
        self.world.set_faults(Faults::default());
        self.world.strikes().end();
        self.nodes.all_up();
        self.skew(SignedDuration::ZERO);
        self.user.rest();
        let begun = tokio::time::Instant::now();
        let mut quiet = 0;
        loop {
            tokio::time::sleep(LOOK).await;
            self.nodes.look(Manner { fails: 0, flaps: 0, works: 1000 });
            self.storage.look(1000);
            self.user.tend();
            self.check()?;
            let found = problems(&self.world.api());
            quiet = if found.is_empty() { quiet + 1 } else { 0 };
            if quiet == 3 {
                return Ok(begun.elapsed());
            }
            if begun.elapsed() > REST {
                return Err(format!("does not come to rest: {}", found.join("; ")));
            }
        }
    }

    /// Nothing changes any more.
    async fn silence(&mut self) -> Result<(), String> {
        self.world.trace("silence");
        // Counts of what is there may follow for a moment.
        let begun = tokio::time::Instant::now();
        let mut version = self.world.api().version();
        while begun.elapsed() < SILENCE {
            tokio::time::sleep(LOOK).await;
            self.nodes.look(Manner { fails: 0, flaps: 0, works: 1000 });
            self.storage.look(1000);
            self.check()?;
            if begun.elapsed() < Duration::from_secs(60) {
                version = self.world.api().version();
            }
        }
        let api = self.world.api();
        let heard = |collection: &str| {
            // Nodes say that they live, and what repeats is told again.
            ["coordination.k8s.io/leases", "/events"].contains(&collection)
        };
        let late = api.log().iter().filter(|commit| commit.version > version);
        let late: Vec<String> = late
            .filter(|commit| !heard(&commit.key.0))
            .map(|commit| format!("{:?}", commit.key))
            .collect();
        let found = problems(&api);
        if !late.is_empty() {
            return Err(format!("changes though all was well: {}", late.join("; ")));
        }
        if !found.is_empty() {
            return Err(format!("does not stay as it was: {}", found.join("; ")));
        }
        Ok(())
    }

    fn check(&mut self) -> Result<(), String> {
        self.managers.iter_mut().for_each(Running::look);
        self.scheduler.look();
        let mut violations = self.world.api().checks.take();
        violations.extend(panics::take());
        if violations.is_empty() { Ok(()) } else { Err(violations.join("; ")) }
    }
}
