//! What is tested: the controllers and the scheduler, which die and start again.

use std::sync::Arc;

use clock::Clock;
use futures::future::BoxFuture;
use jiff::SignedDuration;
use stdx::shutdown::Shutdown;

use crate::sim_clock::SimClock;
use crate::transport::{Life, MANAGER, Wire};
use crate::world::World;

/// Which program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Program {
    /// All controllers.
    Manager,
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
}

impl Running {
    /// Starts a program.
    pub(crate) fn start(world: &Arc<World>, program: Program) -> Self {
        let shutdown = Shutdown::new();
        let clock = Arc::new(world.clock.another());
        let life = Arc::new(Life::new(&clock));
        let running = Self { world: Arc::clone(world), program, life, shutdown, clock };
        running.spawn();
        running
    }

    /// Kills it at whatever it is waiting for, and starts it again.
    pub(crate) fn restart(&mut self) {
        self.life.end();
        self.shutdown.begin();
        self.life = Arc::new(Life::new(&self.clock));
        self.shutdown = Shutdown::new();
        self.spawn();
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
            Program::Manager => {
                let (world, life) = (Arc::clone(&self.world), Arc::clone(&self.life));
                let deps = controllers::Deps {
                    client: Wire::client(&world, MANAGER, &life),
                    client_for: Arc::new(move |account| Wire::client(&world, account, &life)),
                    sign_token: None,
                    clock,
                    metrics,
                };
                let run = controllers::run(config(), deps, ready, self.shutdown.clone());
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

    /// A program that ends though nobody told it to is a finding.
    fn spawn_until_shutdown<T: Send + 'static>(
        &self,
        name: &'static str,
        run: BoxFuture<'static, T>,
    ) {
        let (world, shutdown) = (Arc::clone(&self.world), self.shutdown.clone());
        drop(stdx::task::spawn(name, async move {
            run.await;
            if !shutdown.is_begun() {
                world.api().checks.violated(format!("the {name} ended by themselves"));
            }
        }));
    }
}

fn config() -> controllers::Config {
    controllers::Config {
        controllers: vec!["*".to_owned()],
        cluster_cidrs: vec!["10.42.0.0/16".parse().expect("a range")],
        node_cidr_mask_size_v4: 24,
        node_cidr_mask_size_v6: 64,
        root_ca: "PEM".to_owned(),
        signing: None,
        unused_tokens: controllers::UNUSED_TOKENS,
        device_taint_rules: false,
        force_detach_on_timeout: true,
    }
}
