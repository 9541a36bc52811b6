//! The settings of a local server, as text. Pure.

use std::fmt::Write;
use std::path::Path;

use super::{ADMIN, MAINTENANCE};
use crate::plan::Part;

/// Included at the end of `postgresql.conf`, written anew at every start.
pub(super) const FILE: &str = "tessera.conf";
/// From two replicas on, a commit waits for any one of them.
const SYNCHRONOUS_FROM: usize = 2;

const COMMON: &str = "\
listen_addresses = '127.0.0.1'
unix_socket_directories = ''
max_connections = 120
shared_buffers = 32MB
dynamic_shared_memory_type = mmap
fsync = on
synchronous_commit = on
full_page_writes = on
wal_level = logical
hot_standby = on
max_prepared_transactions = 0
max_wal_senders = 32
max_replication_slots = 48
max_worker_processes = 32
max_logical_replication_workers = 24
max_sync_workers_per_subscription = 4
max_slot_wal_keep_size = 1GB
max_wal_size = 256MB
min_wal_size = 64MB
wal_receiver_status_interval = 1s
wal_retrieve_retry_interval = 200ms
wal_receiver_timeout = 5s
wal_sender_timeout = 5s
tcp_keepalives_idle = 5
jit = off
timezone = 'UTC'
log_timezone = 'UTC'
log_line_prefix = '%m [%p] '
log_min_error_statement = panic
password_encryption = 'scram-sha-256'
";

/// Slots of logical replication survive a failover from here on.
const FAILOVER_SLOTS_FROM: u32 = 17;
/// Its slots are kept up to date by a worker that needs a database to connect to.
const SLOT_SYNC: &str = "sync_replication_slots = on\nhot_standby_feedback = on\n";

/// What a replica follows.
pub(super) struct Upstream<'a> {
    pub primary_port: u16,
    pub passfile: &'a Path,
}

/// All settings of one server, of this major version.
pub(super) fn configuration(
    part: &Part,
    version: u32,
    replicas: &[Part],
    upstream: Option<&Upstream<'_>>,
) -> String {
    let failover_slots = version >= FAILOVER_SLOTS_FROM;
    let mut text = format!("# Written by devcluster at every start.\n{COMMON}port = {}\n", part.port);
    text.push_str(&setting("cluster_name", &part.name));
    text.push_str(&setting("synchronous_standby_names", &synchronous_names(replicas)));
    if let Some(upstream) = upstream {
        text.push_str(&setting("primary_conninfo", &conninfo(&part.name, upstream)));
        text.push_str(&setting("primary_slot_name", &slot(&part.name)));
    }
    match upstream {
        Some(_) if failover_slots => text.push_str(SLOT_SYNC),
        // What a replica lacks no subscriber gets: else it would be ahead of the replica that is promoted.
        None if failover_slots => text.push_str(&setting("synchronized_standby_slots", &slots(replicas))),
        _ => {}
    }
    text
}

/// The name of the slot through which a server follows.
pub(super) fn slot(name: &str) -> String {
    name.replace('-', "_")
}

fn slots(replicas: &[Part]) -> String {
    replicas.iter().map(|part| slot(&part.name)).collect::<Vec<_>>().join(", ")
}

/// Named one by one, so that no stranger can acknowledge a commit.
fn synchronous_names(replicas: &[Part]) -> String {
    if replicas.len() < SYNCHRONOUS_FROM {
        return String::new();
    }
    let names: Vec<String> = replicas.iter().map(|part| format!("\"{}\"", part.name)).collect();
    format!("ANY 1 ({})", names.join(", "))
}

fn conninfo(name: &str, upstream: &Upstream<'_>) -> String {
    let passfile = upstream.passfile.display().to_string().replace('\\', "\\\\").replace('\'', "\\'");
    let port = upstream.primary_port;
    format!(
        "host=127.0.0.1 port={port} user={ADMIN} passfile='{passfile}' application_name={name} dbname={MAINTENANCE}"
    )
}

fn setting(key: &str, value: &str) -> String {
    let mut line = String::new();
    let _infallible = writeln!(line, "{key} = '{}'", value.replace('\'', "''"));
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Kind;

    fn part(kind: Kind) -> Part {
        Part { name: kind.name(), kind, port: 5601, second_port: None }
    }

    #[test]
    fn one_replica_is_asynchronous_and_two_are_named() {
        let replicas = [1, 2].map(|replica| part(Kind::ShardReplica { shard: 1, replica }));
        assert_eq!(synchronous_names(&replicas[..1]), "");
        assert_eq!(synchronous_names(&replicas), r#"ANY 1 ("shard-1-replica-1", "shard-1-replica-2")"#);
    }

    #[test]
    fn durability_is_on_and_sockets_are_off() {
        let text = configuration(&part(Kind::Directory), 15, &[], None);
        for line in ["fsync = on", "synchronous_commit = on", "unix_socket_directories = ''", "port = 5601"] {
            assert!(text.lines().any(|l| l == line), "{line}");
        }
        assert!(!text.contains("primary_conninfo"));
    }

    #[test]
    fn a_passfile_with_quotes_survives_both_kinds_of_quoting() {
        let upstream = Upstream { primary_port: 1, passfile: Path::new("/it's here/pgpass") };
        let text =
            configuration(&part(Kind::ShardReplica { shard: 1, replica: 1 }), 15, &[], Some(&upstream));
        assert!(text.contains(r"passfile=''/it\''s here/pgpass''"), "{text}");
        assert!(text.contains("primary_slot_name = 'shard_1_replica_1'"));
    }

    #[test]
    fn slots_survive_a_failover_where_servers_can_do_that() {
        let replicas = [1, 2].map(|replica| part(Kind::ShardReplica { shard: 1, replica }));
        let upstream = Upstream { primary_port: 1, passfile: Path::new("/pgpass") };
        let primary = configuration(&part(Kind::ShardPrimary { shard: 1 }), 18, &replicas, None);
        assert!(primary.contains("synchronized_standby_slots = 'shard_1_replica_1, shard_1_replica_2'"));
        let replica = configuration(&replicas[0], 18, &[], Some(&upstream));
        assert!(replica.contains("sync_replication_slots = on") && replica.contains("dbname=postgres"));
        for older in [
            configuration(&replicas[0], 16, &replicas, None),
            configuration(&replicas[0], 16, &[], Some(&upstream)),
        ] {
            assert!(!older.contains("standby_slots") && !older.contains("sync_replication_slots"), "{older}");
        }
    }
}
