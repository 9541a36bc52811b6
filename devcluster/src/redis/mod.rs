//! The Redis (or Valkey) cluster: three masters with a replica each. It holds copies only, so nothing of it is kept on
//! disk but who is who in the cluster.

mod resp;

use std::time::{Duration, Instant};

use futures::future::try_join_all;

use crate::error::{Context, Error, Result};
use crate::home::remove;
use crate::plan::{Part, REDIS_MASTERS};
use crate::postgres::write_owned;
use crate::process::ProcessId;
use crate::site::Site;

const SLOTS: u16 = 16_384;
const START_LIMIT: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(25);
/// Written when the cluster was formed for the first time; data without it is thrown away.
const FORMED: &str = "redis.formed";

/// Starts one server.
pub(crate) fn start(site: &Site, part: &Part) -> Result<ProcessId> {
    let folder = site.home.data_of(&part.name);
    if !folder.is_dir() {
        std::fs::create_dir_all(&folder).could_not(format_args!("create {}", folder.display()))?;
        site.account.as_ref().map_or(Ok(()), |account| account.own(&folder))?;
    }
    let file = folder.join("redis.conf");
    write_owned(site, &file, &configuration(part), 0o600)?;
    site.launch(part, vec![site.servers.redis.display().to_string(), file.display().to_string()])
}

/// Starts all servers and forms the cluster, or lets it find itself again if it was formed before on these ports.
pub(crate) async fn start_cluster(site: &Site, parts: &[Part]) -> Result<()> {
    let formed = site.home.data().join(FORMED);
    let ports: Vec<String> = parts.iter().map(|part| part.port.to_string()).collect();
    let signature = ports.join(" ");
    let known = std::fs::read_to_string(&formed).is_ok_and(|text| text == signature);
    if !known {
        for part in parts {
            remove(&site.home.data_of(&part.name))?;
        }
    }
    let started = parts.iter().map(|part| Ok((part, start(site, part)?))).collect::<Result<Vec<_>>>()?;
    try_join_all(started.iter().map(|(part, process)| wait_ready(site, part, process))).await?;
    if !known {
        form(parts).await?;
    }
    wait_whole(parts).await?;
    std::fs::write(&formed, signature).could_not(format_args!("write {}", formed.display()))
}

/// Waits until one server answers.
pub(crate) async fn wait_ready(site: &Site, part: &Part, process: &ProcessId) -> Result<()> {
    let deadline = Instant::now() + START_LIMIT;
    while !resp::command(part.port, &["PING"]).await.is_ok_and(|answer| answer == "PONG") {
        if !process.is_alive() {
            return Err(site.did_not_start(&part.name, "ended at once"));
        }
        if Instant::now() >= deadline {
            return Err(site.did_not_start(&part.name, "did not answer in time"));
        }
        tokio::time::sleep(POLL).await;
    }
    Ok(())
}

/// Empties every server that is a master now. Those that are down or paused are reported after the others are done.
pub(crate) async fn flush_all(parts: &[Part]) -> Result<()> {
    let mut failed = Vec::new();
    for part in parts {
        match resp::command(part.port, &["FLUSHALL"]).await {
            Ok(_) => {}
            Err(cause) if cause.to_string().contains("READONLY") => {}
            Err(_) => failed.push(part.name.as_str()),
        }
    }
    if failed.is_empty() {
        return Ok(());
    }
    Err(Error::new(format!("could not flush {}", failed.join(", "))))
}

/// The server that is the master of a key now, by its own word.
pub(crate) async fn master_of(parts: &[Part], key: &str) -> Result<String> {
    let mut slot = None;
    for part in parts {
        // Servers that are down or paused know nothing, and hold nothing.
        let Ok(nodes) = resp::command(part.port, &["CLUSTER", "NODES"]).await else { continue };
        if slot.is_none() {
            slot = resp::command(part.port, &["CLUSTER", "KEYSLOT", key]).await?.parse::<u16>().ok();
        }
        let own = nodes.lines().find(|line| line.contains("myself,master")).unwrap_or_default();
        if slot.is_some_and(|slot| holds(own, slot)) {
            return Ok(part.name.clone());
        }
    }
    Err(Error::new(format!("no Redis says that it is the master of {key}")))
}

/// A line of `CLUSTER NODES`: eight fields, then slots and ranges of slots.
fn holds(line: &str, slot: u16) -> bool {
    line.split(' ').skip(8).any(|range| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        matches!((first.parse(), last.parse()), (Ok(first), Ok(last)) if (first..=last).contains(&slot))
    })
}

async fn form(parts: &[Part]) -> Result<()> {
    let masters = usize::from(REDIS_MASTERS);
    let first = parts.first().ok_or_else(|| Error::new("a Redis cluster without servers"))?;
    let mut ids = Vec::new();
    for (index, part) in parts.iter().enumerate() {
        let epoch = (index + 1).to_string();
        resp::command(part.port, &["CLUSTER", "SET-CONFIG-EPOCH", &epoch]).await?;
        ids.push(resp::command(part.port, &["CLUSTER", "MYID"]).await?);
    }
    for (part, (from, to)) in parts.iter().zip(slot_ranges(REDIS_MASTERS)) {
        let (from, to) = (from.to_string(), to.to_string());
        resp::command(part.port, &["CLUSTER", "ADDSLOTSRANGE", &from, &to]).await?;
    }
    for part in parts.iter().skip(1) {
        let (port, bus) = (first.port.to_string(), first.second_port.unwrap_or_default().to_string());
        resp::command(part.port, &["CLUSTER", "MEET", "127.0.0.1", &port, &bus]).await?;
    }
    for (part, master) in parts.iter().skip(masters).zip(&ids) {
        follow(part, master).await?;
    }
    Ok(())
}

/// A replica can follow only once gossip has told it of its master.
async fn follow(part: &Part, master: &str) -> Result<()> {
    let deadline = Instant::now() + START_LIMIT;
    loop {
        match resp::command(part.port, &["CLUSTER", "REPLICATE", master]).await {
            Ok(_) => return Ok(()),
            Err(cause) if Instant::now() >= deadline => return Err(cause),
            Err(_) => tokio::time::sleep(POLL).await,
        }
    }
}

/// Every server sees all slots served and all others, and every replica's link is up: a master killed before that is
/// not replaced.
async fn wait_whole(parts: &[Part]) -> Result<()> {
    let deadline = Instant::now() + START_LIMIT;
    loop {
        let mut all = true;
        let mut replicas = 0;
        for part in parts {
            let cluster = resp::command(part.port, &["CLUSTER", "INFO"]).await?;
            let replication = resp::command(part.port, &["INFO", "replication"]).await?;
            replicas += usize::from(has(&replication, "role:slave"));
            all &= is_whole(&cluster, &replication, parts.len());
        }
        if all && replicas == parts.len() - usize::from(REDIS_MASTERS) {
            return Ok(());
        }
        if Instant::now() >= deadline {
            return Err(Error::new(
                "the Redis cluster did not become whole in time: see the logs of redis-1 to redis-6",
            ));
        }
        tokio::time::sleep(POLL).await;
    }
}

fn is_whole(cluster: &str, replication: &str, servers: usize) -> bool {
    let linked = has(replication, "role:master") || has(replication, "master_link_status:up");
    let known = format!("cluster_known_nodes:{servers}");
    has(cluster, "cluster_state:ok") && has(cluster, &known) && linked
}

fn has(info: &str, line: &str) -> bool {
    info.lines().any(|found| found.trim_end() == line)
}

fn slot_ranges(masters: u16) -> Vec<(u16, u16)> {
    let bound = |index: u16| u32::from(SLOTS) * u32::from(index) / u32::from(masters);
    let range = |index| (bound(index), bound(index + 1) - 1);
    (0..masters).map(range).map(|(from, to)| (from as u16, to as u16)).collect()
}

fn configuration(part: &Part) -> String {
    let bus = part.second_port.unwrap_or_default();
    let port = part.port;
    format!(
        "# Written by devcluster at every start.\n\
         bind 127.0.0.1\nport {port}\ncluster-port {bus}\ncluster-enabled yes\ncluster-config-file nodes.conf\n\
         cluster-node-timeout 2000\ncluster-require-full-coverage no\ncluster-announce-ip 127.0.0.1\ndaemonize no\nlogfile \"\"\nsave \"\"\n\
         appendonly no\nrepl-diskless-sync-delay 0\nmaxmemory 256mb\nmaxmemory-policy volatile-ttl\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_slots_are_given_once() {
        let ranges = slot_ranges(3);
        assert_eq!(ranges, [(0, 5460), (5461, 10_921), (10_922, 16_383)]);
    }

    #[test]
    fn a_master_says_which_slots_it_holds() {
        let line = "07c3 127.0.0.1:7600@17600 myself,master - 0 0 1 connected 0-5460 7000";
        assert!([0, 5460, 7000].iter().all(|slot| holds(line, *slot)));
        assert!(![5461, 7001].iter().any(|slot| holds(line, *slot)));
        assert!(!holds("", 0));
    }

    #[test]
    fn a_replica_counts_only_with_its_link_up() {
        let cluster = "cluster_state:ok\r\ncluster_known_nodes:6\r\n";
        assert!(is_whole(cluster, "role:master\r\n", 6));
        assert!(!is_whole(cluster, "role:slave\r\nmaster_link_status:down\r\n", 6));
        assert!(is_whole(cluster, "role:slave\r\nmaster_link_status:up\r\n", 6));
        assert!(!is_whole("cluster_state:fail\r\ncluster_known_nodes:6\r\n", "role:master\r\n", 6));
        assert!(!is_whole(cluster, "role:master\r\n", 5));
    }
}
