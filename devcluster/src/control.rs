//! What can be done to a running cluster by anybody who finds its state file: look, kill, pause, resume, start, stop.

use std::time::Duration;

use nix::sys::signal::Signal;

use crate::error::{Error, Result};
use crate::home::{Home, remove};
use crate::launch::start_replica;
use crate::plan::Kind;
use crate::postgres::{self, Role};
use crate::site::Site;
use crate::state::{self, PartState, State};
use crate::{node, redis};

const KILL_LIMIT: Duration = Duration::from_secs(10);
/// A node drains up to 25 s after 5 s of being unready (RELIABILITY).
const NODE_DRAIN_LIMIT: Duration = Duration::from_secs(40);
const SERVER_STOP_LIMIT: Duration = Duration::from_secs(30);
const SHARP_LIMIT: Duration = Duration::from_secs(5);

/// How a whole cluster is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// Nodes drain, then Redis, then PostgreSQL with a checkpoint.
    Gently,
    /// At once; PostgreSQL recovers at its next start. For clusters whose data is thrown away.
    Sharply,
}

/// SIGKILL to every process of a part, and waits until it is gone.
pub fn kill(home: &Home, name: &str) -> Result<()> {
    let state = state::require(home)?;
    let process = running(state.part(name)?)?;
    process.signal_tree(Signal::SIGKILL);
    if !process.wait_gone(KILL_LIMIT) {
        return Err(Error::new(format!("{name} (process {}) did not go away", process.pid)));
    }
    state::set_process(home, name, None, None)
}

/// SIGSTOP to every process of a part.
pub fn pause(home: &Home, name: &str) -> Result<()> {
    let state = state::require(home)?;
    running(state.part(name)?)?.signal_tree(Signal::SIGSTOP);
    Ok(())
}

/// SIGCONT to every process of a part.
pub fn resume(home: &Home, name: &str) -> Result<()> {
    let state = state::require(home)?;
    running(state.part(name)?)?.resume_tree();
    Ok(())
}

/// Starts a part that was killed, and waits until it answers.
pub async fn start(home: &Home, name: &str) -> Result<()> {
    let state = state::require(home)?;
    let found = state.part(name)?;
    if found.is_alive() {
        let doing = if found.is_paused() { "is paused: resume it" } else { "runs already" };
        return Err(Error::new(format!("{name} {doing}")));
    }
    let (site, part) = (Site::of(home, &state)?, &found.part);
    match part.kind {
        Kind::Node { .. } => {
            let process = node::start(&site, part)?;
            node::wait_ready(&site, part, &process).await
        }
        Kind::Redis { .. } => {
            let process = redis::start(&site, part)?;
            redis::wait_ready(&site, part, &process).await
        }
        Kind::Directory | Kind::ShardPrimary { .. } | Kind::ShardReplica { .. } => {
            start_postgres(&site, &state, found).await
        }
    }
}

async fn start_postgres(site: &Site, state: &State, found: &PartState) -> Result<()> {
    let part = &found.part;
    if state.is_primary(part) {
        let replicas = state.siblings(part);
        let process = postgres::start(site, part, &Role::Primary { replicas: &replicas })?;
        return postgres::wait_ready(site, part, &process).await;
    }
    let shard =
        part.kind.shard().ok_or_else(|| Error::new(format!("{} is no part of a shard", part.name)))?;
    let primary = state.primary(shard)?;
    start_replica(site, part, &primary.part).await?;
    if primary.is_alive() && !primary.is_paused() {
        postgres::wait_streaming(site, &primary.part, std::slice::from_ref(part)).await?;
    }
    Ok(())
}

/// Stops everything that still runs and forgets the cluster. Its data stays.
pub fn stop_all(home: &Home, how: Stop) -> Result<()> {
    if state::read(home)?.is_none() {
        return Ok(());
    }
    let state = state::update(home, |state| {
        state.stopping = true;
        Ok(())
    })?;
    let of = |wanted: fn(Kind) -> bool| -> Vec<&PartState> {
        state.parts.iter().filter(|part| wanted(part.part.kind) && part.is_alive()).collect()
    };
    let nodes = of(|kind| matches!(kind, Kind::Node { .. }));
    let redis = of(|kind| matches!(kind, Kind::Redis { .. }));
    let postgres = of(Kind::is_postgres);
    let gently = how == Stop::Gently;
    let (ask, limit) =
        if gently { (Signal::SIGTERM, NODE_DRAIN_LIMIT) } else { (Signal::SIGKILL, SHARP_LIMIT) };
    let mut left = end(&nodes, ask, limit);
    let (ask, limit) =
        if gently { (Signal::SIGTERM, SERVER_STOP_LIMIT) } else { (Signal::SIGKILL, SHARP_LIMIT) };
    left.extend(end(&redis, ask, limit));
    // SIGINT is PostgreSQL's fast shutdown; SIGQUIT its immediate one, which still gives shared memory back.
    let (ask, limit) =
        if gently { (Signal::SIGINT, SERVER_STOP_LIMIT) } else { (Signal::SIGQUIT, SHARP_LIMIT) };
    left.extend(end(&postgres, ask, limit));
    all_gone(&left)?;
    remove(&home.state_file())
}

/// Ends PostgreSQL servers whose start went wrong.
pub(crate) fn stop_parts<'a>(parts: impl Iterator<Item = &'a PartState>) -> Result<()> {
    let parts: Vec<&PartState> = parts.filter(|part| part.is_alive()).collect();
    all_gone(&end(&parts, Signal::SIGQUIT, SHARP_LIMIT))
}

fn all_gone(left: &[String]) -> Result<()> {
    if left.is_empty() { Ok(()) } else { Err(Error::new(format!("{} did not go away", left.join(", ")))) }
}

/// Asks all, waits for all, kills the rest; names those that survive even that.
fn end(parts: &[&PartState], ask: Signal, limit: Duration) -> Vec<String> {
    let processes = || parts.iter().filter_map(|part| Some((&part.part.name, part.process.as_ref()?)));
    for (_, process) in processes() {
        process.signal(ask);
        process.resume_tree();
    }
    let deadline = std::time::Instant::now() + limit;
    for (_, process) in processes() {
        process.wait_gone(deadline.saturating_duration_since(std::time::Instant::now()));
        process.signal_tree(Signal::SIGKILL);
    }
    processes().filter(|(_, process)| !process.wait_gone(KILL_LIMIT)).map(|(name, _)| name.clone()).collect()
}

fn running(part: &PartState) -> Result<&crate::process::ProcessId> {
    let process = part.process.as_ref().filter(|process| process.is_alive());
    process.ok_or_else(|| Error::new(format!("{} does not run", part.part.name)))
}
