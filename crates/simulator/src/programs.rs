//! What is tested: the controllers and the scheduler, which die and start again.

use std::io;
use std::path::Path;
use std::sync::Arc;

use client::LeaderElection;
use clock::{Clock, SharedClock};
use futures::future::BoxFuture;
use jiff::SignedDuration;
use stdx::ready::Ready;
use stdx::shutdown::Shutdown;

use crate::sim_clock::SimClock;
use crate::transport::{Life, MANAGER, Wire};
use crate::world::World;

/// Which program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Program {
    /// All controllers.
    Manager,
    /// One of several that compete for a lease, by its name.
    Rival(&'static str),
    /// The scheduler.
    Scheduler,
}

/// A running program.
pub(crate) struct Running {
    world: Arc<World>,
    program: Program,
    life: Arc<Life>,
    shutdown: Shutdown,
    clock: Arc<SimClock>,
    /// How often it was started.
    starts: u32,
}

/// The lease that rivals compete for.
const LEASE: &str = "kube-controller-manager";

impl Running {
    /// Starts a program.
    pub(crate) fn start(world: &Arc<World>, program: Program) -> Self {
        let shutdown = Shutdown::new();
        let clock = Arc::new(world.clock.another());
        let life = Arc::new(Life::new(&clock, identity(program, 1)));
        let running = Self { world: Arc::clone(world), program, life, shutdown, clock, starts: 1 };
        running.spawn();
        running
    }

    /// Kills it at whatever it is waiting for, and starts it again.
    pub(crate) fn restart(&mut self) {
        self.life.end();
        self.shutdown.begin();
        self.starts += 1;
        self.life = Arc::new(Life::new(&self.clock, identity(self.program, self.starts)));
        self.shutdown = Shutdown::new();
        self.spawn();
    }

    /// Asks it to end. What supervises it starts it again then, see [`Self::look`].
    pub(crate) fn stop(&self) {
        self.shutdown.begin();
    }

    /// Starts it again if it has ended by itself.
    pub(crate) fn look(&mut self) {
        if self.life.is_over() {
            self.restart();
        }
    }

    /// Sets its time of day wrong.
    pub(crate) fn skew(&self, by: SignedDuration) {
        self.clock.skew(by);
    }

    fn spawn(&self) {
        let (ready, _) = stdx::ready::signal();
        let clock = Arc::clone(&self.clock) as Arc<dyn Clock>;
        let metrics = telemetry::Registry::new();
        match self.program {
            Program::Rival(_) => self.spawn_rival(),
            Program::Manager => {
                let run = self.controllers(ready);
                self.spawn_until_shutdown("controllers", run);
            }
            Program::Scheduler => {
                let deps = scheduler::Deps {
                    client: Wire::client(&self.world, "scheduler", &self.life),
                    clock,
                    metrics,
                };
                let config = scheduler::Config::default();
                let run = scheduler::run(config, deps, ready, self.shutdown.clone());
                self.spawn_until_shutdown("scheduler", run);
            }
        }
    }

    /// Works when it has the lease. When it has it no longer the process ends, as the real one.
    fn spawn_rival(&self) {
        let election = LeaderElection::new(LEASE, self.life.identity().to_owned());
        let client = Wire::client(&self.world, "leader-election", &self.life);
        let clock: SharedClock = Arc::clone(&self.clock) as SharedClock;
        let (ready, _) = stdx::ready::signal();
        let run = self.controllers(ready);
        let (life, shutdown) = (Arc::clone(&self.life), self.shutdown.clone());
        let world = Arc::clone(&self.world);
        drop(stdx::task::spawn("rival", async move {
            let work = async {
                run.await.ok();
            };
            let led = client::lead(&election, &client, &clock, &shutdown, work).await;
            world.trace(&format!("{} ends: {led:?}", election.identity));
            life.end();
            shutdown.begin();
        }));
    }

    fn controllers(&self, ready: Ready) -> BoxFuture<'static, Result<(), controllers::RunError>> {
        let (world, life) = (Arc::clone(&self.world), Arc::clone(&self.life));
        let deps = controllers::Deps {
            client: Wire::client(&world, MANAGER, &life),
            client_for: Arc::new(move |account| Wire::client(&world, account, &life)),
            sign_token: Some(Arc::new(|of| Ok(format!("token of {}", of.account)))),
            directories: Arc::new(NoDirectories(Arc::clone(&self.world))),
            clock: Arc::clone(&self.clock) as SharedClock,
            metrics: telemetry::Registry::new(),
        };
        controllers::run(config(), deps, ready, self.shutdown.clone())
    }

    /// A program that ends though nobody told it to is a finding.
    fn spawn_until_shutdown<T: Send + 'static>(
        &self,
        name: &'static str,
        run: BoxFuture<'static, T>,
    ) {
        let (world, shutdown) = (Arc::clone(&self.world), self.shutdown.clone());
        let life = Arc::clone(&self.life);
        drop(stdx::task::spawn(name, async move {
            run.await;
            life.end();
            if !shutdown.is_begun() {
                world.api().checks.violated(format!("the {name} ended by themselves"));
            }
        }));
    }
}

/// Nothing in the simulated cluster is a directory of the controllers' host.
struct NoDirectories(Arc<World>);

impl NoDirectories {
    fn refuse(&self, path: &Path) -> BoxFuture<'static, io::Result<()>> {
        self.0.api().checks.violated(format!("a controller wants {} of its host", path.display()));
        Box::pin(async { Err(io::ErrorKind::Unsupported.into()) })
    }
}

impl controllers::HostDirectories for NoDirectories {
    fn make<'a>(&'a self, path: &'a Path) -> BoxFuture<'a, io::Result<()>> {
        self.refuse(path)
    }

    fn remove<'a>(&'a self, path: &'a Path) -> BoxFuture<'a, io::Result<()>> {
        self.refuse(path)
    }
}

/// Under which name a program holds a lease, if it competes for one.
fn identity(program: Program, starts: u32) -> String {
    match program {
        Program::Rival(name) => format!("{name}_{starts}"),
        _ => String::new(),
    }
}

fn config() -> controllers::Config {
    controllers::Config {
        // All of them, and those that are off unless they are named.
        controllers: ["*", "bootstrap-signer-controller", "token-cleaner-controller"]
            .map(str::to_owned)
            .to_vec(),
        cluster_cidrs: vec!["10.42.0.0/16".parse().expect("a range")],
        node_cidr_mask_size_v4: 24,
        node_cidr_mask_size_v6: 64,
        root_ca: "PEM".to_owned(),
        signing: None,
        unused_tokens: controllers::UNUSED_TOKENS,
        nodes: controllers::NodeHealth::default(),
        features: features::Features::default(),
        force_detach_on_timeout: true,
        volumes: controllers::VolumeSettings::default(),
    }
}
