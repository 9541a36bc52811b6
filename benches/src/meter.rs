//! What servers used so far: CPU from the kernel, WAL from PostgreSQL.
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::sync::{Arc, Mutex, PoisonError};

use sqlx::{Connection, PgConnection};

use crate::Outcome;

/// The processes of a kind, whose CPU is counted together with everything below them.
#[derive(Clone, Debug)]
pub struct Group {
    pub roots: BTreeSet<i32>,
    /// Only these threads, where not all count.
    pub threads: Option<BTreeSet<i32>>,
    /// Only processes whose title contains this.
    title: Option<&'static str>,
    /// What each thread had used when it was last seen: a pool closes connections that are old, and their backends' work was
    /// done all the same.
    seen: Arc<Mutex<BTreeMap<i32, u64>>>,
}

impl Group {
    /// Everything below these processes.
    pub fn of(roots: BTreeSet<i32>) -> Self {
        Self { roots, threads: None, title: None, seen: Arc::default() }
    }

    /// Of these, only what calls itself so: PostgreSQL's processes say whom they serve.
    pub fn of_titled(roots: BTreeSet<i32>, title: &'static str) -> Self {
        Self { title: Some(title), ..Self::of(roots) }
    }

    /// Only the threads that run now. Hashes run on threads that are made for them and end soon after.
    pub fn of_present_threads(roots: BTreeSet<i32>) -> Self {
        let threads = roots.iter().flat_map(|pid| tasks(*pid)).collect();
        Self { threads: Some(threads), ..Self::of(roots) }
    }

    /// CPU time on the processor so far, in microseconds; of threads that ended, what they had used when last asked.
    pub fn cpu_us(&self) -> f64 {
        self.cpu_us_among(&parents())
    }

    /// The same, of processes that were listed for several groups.
    pub fn cpu_us_among(&self, parents: &Parents) -> f64 {
        let titled = |pid: &&i32| self.title.is_none_or(|part| title(**pid).contains(part));
        let threads = parents
            .keys()
            .filter(|pid| below(&self.roots, parents, **pid))
            .filter(titled)
            .flat_map(|pid| tasks(*pid));
        let counted = threads.filter(|id| self.threads.as_ref().is_none_or(|only| only.contains(id)));
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        for thread in counted {
            let used = seen.entry(thread).or_default();
            *used = on_cpu_ns(thread).max(*used);
        }
        seen.values().sum::<u64>() as f64 / 1000.0
    }
}

/// Keeps processes, and what they start, to one core. Where the scheduler puts two that talk to each other is worth more than
/// what is compared here, and stays for a whole run.
pub fn pin(roots: &BTreeSet<i32>, core: usize) -> Outcome<()> {
    let parents = parents();
    for pid in parents.keys().filter(|pid| below(roots, &parents, **pid)) {
        let arguments = ["-acp".to_owned(), core.to_string(), pid.to_string()];
        // A process may have ended meanwhile.
        std::process::Command::new("taskset").args(arguments).output()?;
    }
    Ok(())
}

/// Whether it is one of them or was started by one, however many steps down.
fn below(roots: &BTreeSet<i32>, parents: &Parents, pid: i32) -> bool {
    let mut up = pid;
    while !roots.contains(&up) {
        match parents.get(&up) {
            Some(parent) => up = *parent,
            None => return false,
        }
    }
    true
}

/// Resident memory of a process, in MiB.
pub fn resident_mib(pid: i32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
    line.split_whitespace().next().and_then(|kib| kib.parse::<u64>().ok()).unwrap_or_default() / 1024
}

/// Every process and its parent.
pub type Parents = BTreeMap<i32, i32>;

/// As they are now.
pub fn parents() -> Parents {
    let Ok(folder) = fs::read_dir("/proc") else { return BTreeMap::new() };
    let pids = folder.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter_map(|pid: i32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let (_, rest) = stat.rsplit_once(')')?;
        Some((pid, rest.split_whitespace().nth(1)?.parse().ok()?))
    })
    .collect()
}

/// What a process calls itself.
fn title(pid: i32) -> String {
    fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default()
}

/// The threads of a process.
fn tasks(pid: i32) -> Vec<i32> {
    let folder = fs::read_dir(format!("/proc/{pid}/task"));
    let names = folder.into_iter().flatten().flatten();
    names.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

fn on_cpu_ns(thread: i32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{thread}/schedstat")).unwrap_or_default();
    text.split_whitespace().next().and_then(|ns| ns.parse().ok()).unwrap_or_default()
}

/// The primaries' write-ahead logs together.
pub struct Wal(Vec<PgConnection>);

impl Wal {
    /// With superuser URLs of the primaries.
    pub async fn open(urls: &[String]) -> Outcome<Self> {
        let mut connections = Vec::new();
        for url in urls {
            connections.push(PgConnection::connect(url).await?);
        }
        Ok(Self(connections))
    }

    /// Bytes so far.
    pub async fn bytes(&mut self) -> Outcome<f64> {
        self.sum("SELECT (pg_current_wal_insert_lsn() - '0/0'::pg_lsn)::float8").await
    }

    /// Syncs so far. Backends report theirs up to 10 s late.
    pub async fn syncs(&mut self) -> Outcome<f64> {
        let Some(first) = self.0.first_mut() else { return Ok(0.0) };
        let version: i32 =
            sqlx::query_scalar("SELECT current_setting('server_version_num')::int").fetch_one(first).await?;
        self.sum(if version >= 180_000 {
            "SELECT coalesce(sum(fsyncs), 0)::float8 FROM pg_stat_io WHERE object = 'wal'"
        } else {
            "SELECT wal_sync::float8 FROM pg_stat_wal"
        })
        .await
    }

    async fn sum(&mut self, question: &'static str) -> Outcome<f64> {
        let mut sum = 0.0;
        for connection in &mut self.0 {
            sum += sqlx::query_scalar::<_, f64>(question).fetch_one(connection).await?;
        }
        Ok(sum)
    }
}
