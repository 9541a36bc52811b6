//! The cluster from outside: every test speaks HTTP to two nodes that stand on three shards with replicas and a Redis
//! Cluster, all real processes on free ports. This binary starts the cluster, runs the tests and ends it.
//!
//! Two parts: tests that may run side by side, then tests that break things, one after the other.
mod accounts;
mod announced;
mod bad_input;
mod breakers;
mod clock;
mod collector;
mod config;
mod coverage;
mod drain;
mod edge;
mod faults;
mod gateways;
mod idempotency;
mod interop;
mod limits;
mod load;
mod metrics;
mod passwords;
mod reads;
mod refresh;
mod schemathesis;
mod sessions;
mod solo;
mod tokens;
mod tracing;
mod world;

use std::process::ExitCode;
use std::sync::Arc;

use libtest_mimic::{Arguments, Trial};
use world::World;

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let runtime = Arc::new(tokio::runtime::Runtime::new().expect("a runtime"));
    if arguments.list {
        libtest_mimic::run(&arguments, Vec::new()).exit();
    }
    let started = std::time::Instant::now();
    let world = Arc::new(runtime.block_on(World::start()));
    eprintln!("the cluster runs after {:.1} s", started.elapsed().as_secs_f64());

    let mut calm = Suite { world: &world, runtime: &runtime, trials: Vec::new() };
    accounts::add(&mut calm);
    bad_input::add(&mut calm);
    clock::add(&mut calm);
    config::add(&mut calm);
    coverage::add(&mut calm);
    edge::add(&mut calm);
    gateways::add(&mut calm);
    idempotency::add(&mut calm);
    interop::add(&mut calm);
    load::add(&mut calm);
    metrics::add(&mut calm);
    passwords::add(&mut calm);
    reads::add(&mut calm);
    refresh::add(&mut calm);
    sessions::add(&mut calm);
    tokens::add(&mut calm);
    tracing::add(&mut calm);
    let calm = libtest_mimic::run(&arguments, calm.trials);

    let mut stormy = Suite { world: &world, runtime: &runtime, trials: Vec::new() };
    schemathesis::add(&mut stormy);
    limits::add(&mut stormy);
    faults::add(&mut stormy);
    breakers::add(&mut stormy);
    drain::add(&mut stormy);
    let one_by_one = Arguments { test_threads: Some(1), ..arguments };
    let stormy = libtest_mimic::run(&one_by_one, stormy.trials);

    let Some(world) = Arc::into_inner(world) else { panic!("a test still holds the cluster") };
    let failed = calm.has_failed() || stormy.has_failed();
    runtime.block_on(world.stop(failed));
    if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// Tests that share the cluster.
pub struct Suite<'a> {
    world: &'a Arc<World>,
    runtime: &'a Arc<tokio::runtime::Runtime>,
    trials: Vec<Trial>,
}

impl Suite<'_> {
    /// A test is an async function of the world that panics to fail.
    pub fn add<F>(&mut self, name: &str, test: impl FnOnce(Arc<World>) -> F + Send + 'static)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.add_unless(name, None, test);
    }

    /// The same, counted as ignored, with the reason shown, where a part is missing that CI must have.
    pub fn add_unless<F>(
        &mut self,
        name: &str,
        missing: Option<String>,
        test: impl FnOnce(Arc<World>) -> F + Send + 'static,
    ) where
        F: Future<Output = ()> + Send + 'static,
    {
        let (world, runtime) = (Arc::clone(self.world), Arc::clone(self.runtime));
        let ci = std::env::var_os("CI").is_some();
        if let (Some(reason), false) = (&missing, ci) {
            eprintln!("SKIPPED {name}: {reason}");
        }
        let skipped = missing.is_some() && !ci;
        let trial = Trial::test(name, move || {
            if let Some(reason) = missing {
                return Err(reason.into());
            }
            // On a task of its own, so that a failed assertion is a failed test and not the end of the run.
            let outcome = runtime.block_on(async { tokio::spawn(test(world)).await });
            outcome.map_err(|error| match error.try_into_panic() {
                Ok(panic) => message(panic.as_ref()).into(),
                Err(error) => error.to_string().into(),
            })
        });
        self.trials.push(trial.with_ignored_flag(skipped));
    }
}

fn message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned()))
        .unwrap_or_else(|| "panicked".to_owned())
}
