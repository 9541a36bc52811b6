//! The background of a router: boot from the directory or the disk, poll, follow the topology.
//!
//! When a poll fails nothing changes for callers; a gauge and a counter tell. Work is constant: everything is
//! read again each minute, so that an outage of the directory does not end in a rush.

use crate::directory::client::{Known, Offer, Polled};
use crate::directory::disk;
use crate::directory::held::{Held, Verdict};
use crate::directory::{BadSection, Directory, KeyRow, Section, Snapshot, Topology, Versioned, check_keys};
use crate::map::BucketMap;
use crate::router::{DirectoryProblem, DiskProblem, Inner, StartError, read_distrusted};
use crate::shards;
use serde::de::DeserializeOwned;
use sqlx::postgres::PgConnection;
use std::path::Path;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// The shortest time between two polls, however many redirects ask for one.
const MIN_POLL_GAP: Duration = Duration::from_millis(100);

/// Both sections, each with its last good content.
pub(crate) struct Sections {
    pub(crate) topology: Held<Topology>,
    pub(crate) keys: Held<Vec<KeyRow>>,
}

impl Sections {
    fn empty() -> Self {
        Self { topology: Held::new(Section::Topology), keys: Held::new(Section::Keys) }
    }

    pub(crate) fn quarantined(&self) -> Vec<&'static str> {
        let mut names = Vec::new();
        if self.topology.is_quarantined() {
            names.push(self.topology.section().name());
        }
        if self.keys.is_quarantined() {
            names.push(self.keys.section().name());
        }
        names
    }

    fn known(&self) -> Known {
        Known { topology: self.topology.seen_version(), keys: self.keys.seen_version() }
    }

    fn snapshot(&self) -> Option<Snapshot> {
        let none = Versioned { version: 0, content: Vec::new() };
        Some(Snapshot {
            topology: self.topology.good()?.clone(),
            keys: self.keys.good().cloned().unwrap_or(none),
        })
    }
}

/// What a router starts with.
pub(crate) struct Boot {
    pub(crate) sections: Sections,
    pub(crate) snapshot: Snapshot,
    pub(crate) map: BucketMap,
    pub(crate) directory_up: bool,
    pub(crate) connection: Option<PgConnection>,
}

/// Reads the disk first, so that the directory cannot take us back, and then the directory.
pub(crate) async fn boot(directory: &Directory, state_dir: &Path) -> Result<Boot, StartError> {
    let mut sections = Sections::empty();
    let disk = load(&mut sections.topology, state_dir, Topology::check);
    if let Err(problem) = load(&mut sections.keys, state_dir, |keys| check_keys(keys)) {
        tracing::warn!(error = %problem, "signing keys not read from disk");
    }
    let asked = async {
        let mut connection = directory.connect().await?;
        let polled = directory.poll(&mut connection, Known::default()).await?;
        Ok((connection, polled))
    };
    let (connection, problem) = match asked.await {
        Ok((connection, polled)) => {
            let problem = bad_topology(&polled);
            let accepted = accept(&mut sections, polled);
            save(&sections, accepted, state_dir).await;
            (Some(connection), problem)
        }
        Err(error) => {
            tracing::warn!(%error, "the directory is down; starting from the copy on disk");
            (None, DirectoryProblem::Unreachable(error))
        }
    };
    let ready = sections.snapshot().and_then(|snapshot| Some((snapshot.topology.content.map()?, snapshot)));
    let Some((map, snapshot)) = ready else {
        let disk = disk.err().unwrap_or(DiskProblem::Absent);
        return Err(StartError { directory: problem, disk });
    };
    Ok(Boot { sections, snapshot, map, directory_up: connection.is_some(), connection })
}

/// Why a poll that answered gave no topology; looked at only then.
fn bad_topology(polled: &Polled) -> DirectoryProblem {
    let reason = match &polled.topology.content {
        Some(Err(bad)) => return DirectoryProblem::Bad(bad.clone()),
        _ => "directory.section_version has no row for it".to_owned(),
    };
    DirectoryProblem::Bad(BadSection { section: Section::Topology, reason })
}

fn load<T: DeserializeOwned + PartialEq>(
    held: &mut Held<T>,
    state_dir: &Path,
    check: impl FnOnce(&T) -> Result<(), BadSection>,
) -> Result<(), DiskProblem> {
    let Some(copy) = disk::load::<T>(state_dir, held.section())? else { return Err(DiskProblem::Absent) };
    check(&copy.content)?;
    held.offer(copy.version, Ok(copy.content));
    Ok(())
}

/// Takes what a poll offers.
fn accept(sections: &mut Sections, polled: Polled) -> Accepted {
    let accepted = Accepted {
        topology: take(&mut sections.topology, polled.topology),
        keys: take(&mut sections.keys, polled.keys),
    };
    for (section, quarantined) in [
        (Section::Topology, sections.topology.is_quarantined()),
        (Section::Keys, sections.keys.is_quarantined()),
    ] {
        metrics::gauge!("tessera_directory_quarantined", "section" => section.name())
            .set(f64::from(u8::from(quarantined)));
    }
    accepted
}

/// What became of each section.
#[derive(Clone, Copy)]
struct Accepted {
    topology: Took,
    keys: Took,
}

impl Accepted {
    fn backwards(self) -> bool {
        self.topology == Took::Backwards || self.keys == Took::Backwards
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Took {
    Changed,
    Nothing,
    Backwards,
}

fn take<T: PartialEq>(held: &mut Held<T>, offer: Offer<T>) -> Took {
    if offer.version < held.version() {
        return Took::Backwards;
    }
    let Some(content) = offer.content else { return Took::Nothing };
    match held.offer(offer.version, content) {
        Verdict::Taken => Took::Changed,
        Verdict::Same => Took::Nothing,
        Verdict::Backwards { .. } => Took::Backwards,
        Verdict::Quarantined { error, news } => {
            if news {
                tracing::error!(%error, version = offer.version, held = held.version(), "section quarantined");
            }
            Took::Nothing
        }
    }
}

/// Writes what changed to disk. A node that cannot write its disk still serves.
async fn save(sections: &Sections, accepted: Accepted, state_dir: &Path) {
    let topology = sections.topology.good().filter(|_| accepted.topology == Took::Changed).cloned();
    let keys = sections.keys.good().filter(|_| accepted.keys == Took::Changed).cloned();
    write(topology, keys, state_dir).await;
}

async fn write(
    topology: Option<Versioned<Topology>>,
    keys: Option<Versioned<Vec<KeyRow>>>,
    state_dir: &Path,
) {
    let dir = state_dir.to_owned();
    let written = tokio::task::spawn_blocking(move || {
        topology.map_or(Ok(true), |held| disk::save(&dir, Section::Topology, &held))?;
        keys.map_or(Ok(true), |held| disk::save(&dir, Section::Keys, &held))
    });
    match written.await {
        Ok(Ok(_)) => {}
        Ok(Err(error)) => tracing::error!(%error, "last good section not saved"),
        Err(error) => tracing::error!(%error, "last good section not saved"),
    }
}

/// Makes pools and map agree with the snapshot held.
pub(crate) fn follow_topology(inner: &Inner) {
    let snapshot = inner.snapshot.borrow().clone();
    let changed = inner.map.merge(&snapshot.topology.content.buckets);
    let shards = shards::follow(&snapshot.topology.content.shards, &inner.shards.load(), &inner.reach());
    inner.shards.store(Arc::new(shards));
    metrics::gauge!("tessera_map_version").set(snapshot.topology.version as f64);
    tracing::info!(version = snapshot.topology.version, buckets_changed = changed, "topology taken");
}

/// Runs `work` until the sender says so or is gone.
pub(crate) async fn until(mut ended: watch::Receiver<bool>, work: impl Future<Output = ()>) {
    tokio::select! {
        () = work => {}
        _ = ended.wait_for(|ended| *ended) => {}
    }
}

/// Polls the directory for ever.
pub(crate) async fn poll_forever(inner: Arc<Inner>, mut connection: Option<PgConnection>) {
    let interval = Duration::from_millis(inner.config.poll_interval_ms);
    let full = Duration::from_millis(inner.config.full_read_interval_ms);
    let mut read_all_at = Instant::now() + crate::jitter(full);
    let mut backwards = false;
    loop {
        tokio::time::sleep(MIN_POLL_GAP.min(interval)).await;
        tokio::select! {
            () = tokio::time::sleep(crate::jitter(interval.saturating_sub(MIN_POLL_GAP))) => {}
            () = inner.refresh.notified() => {}
        }
        let everything = Instant::now() >= read_all_at;
        if everything {
            read_all_at = Instant::now() + crate::jitter(full);
        }
        let result = match poll_once(&inner, &mut connection, everything).await {
            Ok(accepted) => {
                if accepted.backwards() && !backwards {
                    tracing::error!(
                        "the directory is older than what this node holds; refused (restored from a backup?)"
                    );
                }
                backwards = accepted.backwards();
                if backwards { "backwards" } else { "ok" }
            }
            Err(error) => {
                connection = None;
                poll_failed(&inner, &error);
                "error"
            }
        };
        metrics::counter!("tessera_directory_polls_total", "result" => result).increment(1);
        report(&inner);
    }
}

async fn poll_once(
    inner: &Inner,
    connection: &mut Option<PgConnection>,
    everything: bool,
) -> Result<Accepted, sqlx::Error> {
    let mut alive = match connection.take() {
        Some(alive) => alive,
        None => inner.directory.connect().await?,
    };
    // Only this task changes the sections, so a copy of what is known cannot be outdated.
    let known = if everything {
        Known::default()
    } else {
        inner.sections.lock().unwrap_or_else(PoisonError::into_inner).known()
    };
    let polled = inner.directory.poll(&mut alive, known).await?;
    *connection = Some(alive);
    let (accepted, snapshot) = {
        let mut sections = inner.sections.lock().unwrap_or_else(PoisonError::into_inner);
        (accept(&mut sections, polled), sections.snapshot())
    };
    if let Some(snapshot) = snapshot {
        publish(inner, accepted, snapshot).await;
    }
    let mut last = inner.last_poll.lock().unwrap_or_else(PoisonError::into_inner);
    if !last.up {
        tracing::info!("the directory answers again");
    }
    last.up = true;
    last.succeeded_at = Instant::now();
    Ok(accepted)
}

/// To callers first, to the disk second: a slow disk delays nobody.
async fn publish(inner: &Inner, accepted: Accepted, snapshot: Snapshot) {
    let topology = (accepted.topology == Took::Changed).then(|| snapshot.topology.clone());
    let keys = (accepted.keys == Took::Changed).then(|| snapshot.keys.clone());
    if topology.is_none() && keys.is_none() {
        return;
    }
    inner.snapshot.send_replace(Arc::new(snapshot));
    if topology.is_some() {
        follow_topology(inner);
    }
    write(topology, keys, &inner.config.state_dir).await;
}

fn poll_failed(inner: &Inner, error: &sqlx::Error) {
    let mut last = inner.last_poll.lock().unwrap_or_else(PoisonError::into_inner);
    if last.up {
        tracing::warn!(%error, "the directory is down; going on with what we hold");
    }
    last.up = false;
}

fn report(inner: &Inner) {
    let age = inner.last_poll.lock().unwrap_or_else(PoisonError::into_inner).succeeded_at.elapsed();
    metrics::gauge!("tessera_map_age_seconds").set(age.as_secs_f64());
    for shard in inner.shards.load().values() {
        shard.report();
    }
}

/// Reads what the shards distrust, for ever.
pub(crate) async fn read_distrusted_forever(inner: Arc<Inner>) {
    let interval = Duration::from_millis(inner.config.distrusted_interval_ms);
    loop {
        read_distrusted(&inner).await;
        tokio::time::sleep(crate::jitter(interval)).await;
    }
}
