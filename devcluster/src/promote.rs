//! Makes a replica its shard's primary without losing what was acknowledged (RELIABILITY, Replication profiles).
//!
//! The old primary must be dead first: two primaries would both take writes. With one asynchronous replica, the old
//! primary's disk says how far the log went, and the replica must have all of it. With synchronous replicas every
//! acknowledged write is on at least one of them, so either all of them are asked, or the old disk is; the replica
//! that is furthest is promoted.

use std::time::{Duration, Instant};

use crate::bootstrap;
use crate::error::{Error, Result};
use crate::home::Home;
use crate::plan::{Kind, Part};
use crate::postgres::admin::{self, Lsn};
use crate::postgres::{self, Role};
use crate::site::Site;
use crate::state::{self, State};

const SYNCHRONOUS_FROM: u16 = 2;
const REPLAY_LIMIT: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(50);
const WAL_PAGE_BYTES: u64 = 8_192;
/// A log position just behind a page's head and one just before it are the same place.
const LONGEST_PAGE_HEAD_BYTES: u64 = 40;
const WAL_SEGMENT_SHIFT: u64 = 24;

/// What a promotion may cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Promotion {
    /// Nothing: it is refused unless every acknowledged write is there.
    Lossless,
    /// Whatever the replica lacks. The shard is in quarantine afterwards.
    Forced,
}

/// Promotes `name`, or with synchronous replicas the one that is furthest; says which it was.
pub async fn promote(home: &Home, name: &str, how: Promotion) -> Result<String> {
    let state = state::require(home)?;
    let site = Site::of(home, &state)?;
    let candidate = &state.part(name)?.part;
    let shard = candidate.kind.shard().ok_or_else(|| Error::new(format!("{name} is no part of a shard")))?;
    let old = state.primary(shard)?;
    if old.part.name == name {
        // Perhaps an earlier promotion was cut off before everybody was told; telling them twice harms nobody.
        settle(&site, &state, candidate).await?;
        return Ok(name.to_owned());
    }
    if old.is_alive() {
        return Err(Error::new(format!(
            "{} still runs, and two primaries would both take writes: kill it first",
            old.part.name
        )));
    }
    let chosen = match how {
        Promotion::Lossless => choose(&site, &state, candidate, &old.part).await?,
        Promotion::Forced => candidate.clone(),
    };
    wait_replayed(&site, &chosen).await?;
    admin::promote(&site, &chosen).await?;
    // Before anybody learns of its address.
    if how == Promotion::Forced && has_directory(&state) {
        bootstrap::quarantine(&site, &chosen).await?;
    }
    let state = state::update(home, |state| {
        state.primaries.insert(shard, chosen.name.clone());
        state::keep_primaries(home, &state.primaries)
    })?;
    settle(&site, &state, &chosen).await?;
    Ok(chosen.name)
}

/// The replica to promote, if it is sure that it has every acknowledged write.
async fn choose(site: &Site, state: &State, candidate: &Part, old: &Part) -> Result<Part> {
    if state.replicas < SYNCHRONOUS_FROM {
        let end = end_of_log(site, old).await?;
        let (received, _) = admin::positions(site, candidate).await?;
        return check_caught_up(candidate, received, end).map(|()| candidate.clone());
    }
    let candidates: Vec<Part> = state.siblings(old);
    let mut reached = Vec::new();
    for part in &candidates {
        if let Ok((received, _)) = admin::positions(site, part).await {
            reached.push((part.clone(), received));
        }
    }
    let furthest = furthest(&reached, &candidate.name)
        .ok_or_else(|| Error::new(format!("no replica of {} can be asked how far it is", old.name)))?;
    if reached.len() < candidates.len() {
        let end = end_of_log(site, old).await?;
        check_caught_up(&furthest.0, furthest.1, end)?;
    }
    Ok(furthest.0.clone())
}

/// The one with the highest position; among equals the one that was named.
fn furthest<'a>(reached: &'a [(Part, Lsn)], named: &str) -> Option<&'a (Part, Lsn)> {
    reached.iter().max_by_key(|(part, position)| (*position, part.name == named))
}

fn check_caught_up(replica: &Part, received: Lsn, end: Lsn) -> Result<()> {
    if settled(received) >= settled(end) {
        return Ok(());
    }
    Err(Error::new(format!(
        "{} has the log up to {received} and the old primary's disk up to {end}: promoting it could lose acknowledged \
         writes, so start the old primary instead",
        replica.name
    )))
}

/// The same place in the log has the same number, wherever the page's head is counted.
fn settled(position: Lsn) -> u64 {
    let offset = position.0 % WAL_PAGE_BYTES;
    if offset <= LONGEST_PAGE_HEAD_BYTES { position.0 - offset } else { position.0 }
}

/// All that was received must be replayed before the promotion, so that its position is final.
async fn wait_replayed(site: &Site, replica: &Part) -> Result<()> {
    let deadline = Instant::now() + REPLAY_LIMIT;
    loop {
        let (received, replayed) = admin::positions(site, replica).await?;
        if settled(replayed) >= settled(received) {
            return Ok(());
        }
        if Instant::now() >= deadline {
            return Err(Error::new(format!("{} replayed only up to {replayed} of {received}", replica.name)));
        }
        tokio::time::sleep(POLL).await;
    }
}

/// The new primary gets its slots, the other replicas follow it, the directory learns its address.
async fn settle(site: &Site, state: &State, primary: &Part) -> Result<()> {
    let replicas = state.siblings(primary);
    postgres::configure(site, primary, &Role::Primary { replicas: &replicas })?;
    admin::set_up_primary(site, primary, &replicas).await?;
    admin::reload(site, primary).await?;
    for replica in &replicas {
        if state.part(&replica.name)?.is_alive() {
            postgres::configure(site, replica, &Role::Replica { of: primary })?;
            admin::reload(site, replica).await?;
        }
    }
    match primary.kind.shard() {
        // Only this one: another may have been added, and lacks its schema yet.
        Some(shard) if has_directory(state) => bootstrap::register_shards(site, state, [shard]).await,
        _ => Ok(()),
    }
}

/// Without nodes nothing was migrated, so there is no directory to tell.
fn has_directory(state: &State) -> bool {
    state.parts.iter().any(|part| matches!(part.part.kind, Kind::Node { .. }))
}

/// Where the log on a dead server's disk ends.
async fn end_of_log(site: &Site, old: &Part) -> Result<Lsn> {
    let unreadable = || {
        Error::new(format!("the disk of {} does not say how far its log went: start it instead", old.name))
    };
    let data = site.home.data_of(&old.name);
    let shown = site.tool("pg_controldata", &[data.display().to_string()]).await?;
    let shown = shown.expect(&format!("read the disk of {}", old.name))?;
    let redo = field(&shown, "Latest checkpoint's REDO location:").ok_or_else(unreadable)?;
    let timeline = field(&shown, "Latest checkpoint's TimeLineID:").ok_or_else(unreadable)?;
    let path = format!("--path={}", data.join("pg_wal").display());
    let arguments = [path, format!("--timeline={timeline}"), format!("--start={redo}"), "--stats".into()];
    // It reads to the end of what is valid and then complains that there is no more: the complaint is what we want.
    let dumped = site.tool("pg_waldump", &arguments).await?;
    parse_end(&dumped.err).ok_or_else(unreadable)
}

fn field<'a>(text: &'a str, label: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.strip_prefix(label)).map(str::trim)
}

/// `… error in WAL record at 0/3000110: invalid record length at 0/3000148: …`: the last position is the end. At the
/// end of a segment it is the missing file that is named.
fn parse_end(complaint: &str) -> Option<Lsn> {
    let error = complaint.lines().rev().find(|line| line.contains("error:"))?;
    if error.contains("could not find file") || error.contains("could not open file") {
        return error.split(['"', '/', ' ']).find_map(segment_start);
    }
    error.split([' ', ':', ',', ';']).rev().find_map(Lsn::parse)
}

/// `000000010000000000000004` starts at 0/4000000 (segments of 16 MiB).
fn segment_start(file: &str) -> Option<Lsn> {
    if file.len() != 24 {
        return None;
    }
    let part = |range| u64::from_str_radix(file.get(range)?, 16).ok();
    Some(Lsn(part(8..16)? << 32 | part(16..24)? << WAL_SEGMENT_SHIFT))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replica(replica: u16) -> Part {
        let kind = Kind::ShardReplica { shard: 1, replica };
        Part { name: kind.name(), kind, port: 1, second_port: None }
    }

    #[test]
    fn the_end_of_the_log_is_read_from_the_complaint() {
        let end = |text| parse_end(text).map(|lsn| lsn.to_string());
        let usual = "pg_waldump: error: error in WAL record at 0/3000110: invalid record length at 0/3000148: wanted 24, got 0";
        assert_eq!(end(usual).as_deref(), Some("0/3000148"));
        let newer = "pg_waldump: error: error in WAL record at 0/1955C88: invalid record length at 0/1955D00: expected at least 24, got 0\n";
        assert_eq!(end(newer).as_deref(), Some("0/1955D00"));
        let segment =
            "pg_waldump: error: could not find file \"000000010000000A00000004\": No such file or directory";
        assert_eq!(end(segment).as_deref(), Some("A/4000000"));
        assert_eq!(end("pg_waldump: first record is after 0/1, skipping"), None);
    }

    #[test]
    fn a_page_head_makes_no_difference() {
        assert_eq!(settled(Lsn(0x0300_2000)), settled(Lsn(0x0300_2018)));
        assert!(settled(Lsn(0x0300_2100)) > settled(Lsn(0x0300_2018)));
    }

    #[test]
    fn a_replica_that_is_behind_is_refused() {
        assert!(check_caught_up(&replica(1), Lsn(500), Lsn(500)).is_ok());
        let refused = check_caught_up(&replica(1), Lsn(500), Lsn(600)).unwrap_err().to_string();
        assert!(refused.contains("shard-1-replica-1"), "{refused}");
    }

    #[test]
    fn the_furthest_is_chosen_and_the_named_one_among_equals() {
        let reached = [(replica(1), Lsn(500)), (replica(2), Lsn(500)), (replica(3), Lsn(400))];
        assert_eq!(furthest(&reached, "shard-1-replica-1").unwrap().0.name, "shard-1-replica-1");
        assert_eq!(furthest(&reached, "shard-1-replica-2").unwrap().0.name, "shard-1-replica-2");
        assert_ne!(furthest(&reached, "shard-1-replica-3").unwrap().0.name, "shard-1-replica-3");
    }
}
