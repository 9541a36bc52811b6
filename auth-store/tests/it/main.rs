//! The contract of the ports, held against real PostgreSQL and Redis: two shards with a replica each, and a Redis
//! cluster. One cluster for the whole binary, one test at a time (some of them stop servers), each on buckets of its own.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

mod accounts;
mod audit;
mod cache;
mod env;
mod faults;
mod keys;
mod limits;
mod logins;
mod ownership;
mod refresh;
mod replicas;
mod sweeps;
mod tombstones;

use std::future::Future;
use std::process::ExitCode;
use std::sync::Arc;

use env::Env;
use libtest_mimic::{Arguments, Trial};
use tokio::runtime::Runtime;

/// Makes a trial of an async test.
struct Trials {
    runtime: Arc<Runtime>,
    env: Arc<Env>,
    all: Vec<Trial>,
}

impl Trials {
    fn add<F>(&mut self, name: &str, test: fn(Arc<Env>) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let (runtime, env) = (Arc::clone(&self.runtime), Arc::clone(&self.env));
        self.all.push(Trial::test(name, move || {
            runtime.block_on(async move { tokio::spawn(test(env)).await }).map_err(|e| e.to_string().into())
        }));
    }
}

fn main() -> ExitCode {
    // The cluster's guard: a copy of this program that outlives it and ends its servers.
    let words: Vec<String> = std::env::args().skip(1).collect();
    if let [guard, dir, home, temporary @ ..] = words.as_slice()
        && (guard.as_str(), dir.as_str()) == ("guard", "--dir")
    {
        let outcome = devcluster::run_guard(&devcluster::Home::new(home), !temporary.is_empty());
        return if outcome.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    let mut arguments = Arguments::from_args();
    arguments.test_threads = Some(1);
    let runtime =
        Arc::new(tokio::runtime::Builder::new_multi_thread().worker_threads(4).enable_all().build().unwrap());
    // Listing needs no servers.
    if arguments.list {
        return ExitCode::SUCCESS;
    }
    let env = Arc::new(runtime.block_on(Env::start()));
    let mut trials = Trials { runtime: Arc::clone(&runtime), env, all: Vec::new() };
    accounts::add(&mut trials);
    audit::add(&mut trials);
    cache::add(&mut trials);
    faults::add(&mut trials);
    keys::add(&mut trials);
    limits::add(&mut trials);
    logins::add(&mut trials);
    ownership::add(&mut trials);
    refresh::add(&mut trials);
    replicas::add(&mut trials);
    sweeps::add(&mut trials);
    tombstones::add(&mut trials);
    let Trials { env, all, .. } = trials;
    let conclusion = libtest_mimic::run(&arguments, all);
    drop(env);
    conclusion.exit_code()
}
