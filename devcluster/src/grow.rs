//! One more shard in a running cluster: servers only. That it exists is told to the directory by `shardctl add-shard`,
//! as it would be in a cluster of any other kind.

use crate::control::stop_parts;
use crate::error::{Error, Result};
use crate::home::Home;
use crate::launch::{lock_start, start_group};
use crate::plan::{Part, check_ports_free, plan_shard};
use crate::site::Site;
use crate::spec::Ports;
use crate::state::{self, PartState, State};

/// Starts a primary with as many replicas as the other shards have, all empty; the shard's number. From then on the
/// cluster knows them as it knows the others, also when it is started again with this data.
pub async fn add_shard(home: &Home) -> Result<u16> {
    let _starting = lock_start(home)?;
    let state = state::require(home)?;
    let shard = state.primaries.keys().next_back().map_or(1, |last| last + 1);
    let parts = plan_shard(shard, state.replicas, highest_port(&state))?;
    check_ports_free(&parts)?;
    let (primary, replicas) = parts.split_first().ok_or_else(|| Error::new("a shard has no part"))?;
    state::update(home, |state| {
        insert(state, &parts);
        state.primaries.insert(shard, primary.name.clone());
        Ok(())
    })?;
    if let Err(problem) = start_group(&Site::of(home, &state)?, primary, replicas).await {
        forget(home, shard)?;
        return Err(problem);
    }
    let state = state::require(home)?;
    state::keep_primaries(home, &state.primaries)?;
    Ok(shard)
}

/// After which port free ones are taken; none if the cluster has the fixed ones.
fn highest_port(state: &State) -> Option<u16> {
    let ports = |found: &PartState| found.part.second_port.into_iter().chain([found.part.port]);
    (state.ports == Ports::Free).then(|| state.parts.iter().flat_map(ports).max()).flatten()
}

/// Behind the shards that there are, where a later `up` lists them, too.
fn insert(state: &mut State, parts: &[Part]) {
    let at = state.parts.iter().rposition(|found| found.part.kind.is_postgres()).map_or(0, |last| last + 1);
    let new = parts.iter().map(|part| PartState { part: part.clone(), argv: Vec::new(), process: None });
    state.parts.splice(at..at, new);
}

/// What did not start is no part of the cluster.
fn forget(home: &Home, shard: u16) -> Result<()> {
    let state = state::require(home)?;
    stop_parts(state.parts.iter().filter(|found| found.part.kind.shard() == Some(shard)))?;
    state::update(home, |state| {
        state.parts.retain(|found| found.part.kind.shard() != Some(shard));
        state.primaries.remove(&shard);
        Ok(())
    })?;
    Ok(())
}
