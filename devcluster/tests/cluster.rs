//! Clusters of real processes: what a test may do to one, and that nothing of it is left behind.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::fs::Permissions;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use devcluster::{Cluster, ClusterSpec, ProcessId};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sqlx::{Connection, PgConnection, query, query_scalar};

const PRIMARY: &str = "shard-1-primary";
const FIRST: &str = "shard-1-replica-1";
const SECOND: &str = "shard-1-replica-2";
const GONE_LIMIT: Duration = Duration::from_secs(60);

fn one_shard() -> ClusterSpec {
    ClusterSpec::default().shards(1).nodes(0).redis(false).guard(env!("CARGO_BIN_EXE_devcluster"))
}

async fn connect(cluster: &Cluster, name: &str) -> PgConnection {
    PgConnection::connect(&cluster.dsn(name).unwrap()).await.unwrap()
}

async fn insert(connection: &mut PgConnection, number: i32) {
    query("INSERT INTO public.kept VALUES ($1)").bind(number).execute(connection).await.unwrap();
}

async fn count(cluster: &Cluster, name: &str) -> i64 {
    let mut connection = connect(cluster, name).await;
    query_scalar("SELECT count(*) FROM public.kept").fetch_one(&mut connection).await.unwrap()
}

/// `None` while a replica does not even know the table.
async fn find_count(cluster: &Cluster, name: &str) -> Option<i64> {
    let mut connection = connect(cluster, name).await;
    query_scalar("SELECT count(*) FROM public.kept").fetch_one(&mut connection).await.ok()
}

/// Asynchronous replication: a primary that dies at once takes its last rows with it.
async fn wait_replicated(cluster: &Cluster, name: &str, rows: i64) {
    while find_count(cluster, name).await.is_none_or(|found| found < rows) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn create_table(cluster: &Cluster) {
    let mut connection = connect(cluster, PRIMARY).await;
    query("CREATE TABLE public.kept (number int)").execute(&mut connection).await.unwrap();
    insert(&mut connection, 1).await;
}

fn processes(cluster: &Cluster) -> Vec<ProcessId> {
    cluster.state().unwrap().parts.into_iter().filter_map(|part| part.process).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_primary_keeps_what_it_acknowledged() {
    let cluster = one_shard().start().await.unwrap();
    create_table(&cluster).await;
    let before = cluster.process(PRIMARY).unwrap().unwrap();
    cluster.kill(PRIMARY).await.unwrap();
    assert!(!before.is_alive() && cluster.process(PRIMARY).unwrap().is_none());
    assert!(cluster.kill(PRIMARY).await.is_err(), "what is dead cannot be killed");
    cluster.start(PRIMARY).await.unwrap();
    assert_eq!(count(&cluster, PRIMARY).await, 1);
    let all = processes(&cluster);
    cluster.stop().await.unwrap();
    assert!(all.iter().all(|process| !process.is_alive()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_server_is_silent_and_goes_on_where_it_was() {
    let cluster = one_shard().replicas(0).start().await.unwrap();
    create_table(&cluster).await;
    let mut connection = connect(&cluster, PRIMARY).await;
    cluster.pause(PRIMARY).await.unwrap();
    let asked = query_scalar::<_, i64>("SELECT count(*) FROM public.kept").fetch_one(&mut connection);
    assert!(tokio::time::timeout(Duration::from_millis(300), asked).await.is_err());
    cluster.resume(PRIMARY).await.unwrap();
    assert_eq!(count(&cluster, PRIMARY).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_caught_up_is_promoted_and_the_old_primary_follows_it() {
    let cluster = one_shard().start().await.unwrap();
    create_table(&cluster).await;
    assert!(cluster.promote(FIRST).await.is_err(), "the primary still runs");
    wait_replicated(&cluster, FIRST, 1).await;
    cluster.kill(PRIMARY).await.unwrap();
    assert_eq!(cluster.promote(FIRST).await.unwrap(), FIRST);
    assert_eq!(cluster.promote(FIRST).await.unwrap(), FIRST, "again is no harm");
    insert(&mut PgConnection::connect(&cluster.shard_primary_dsn(1).unwrap()).await.unwrap(), 2).await;
    cluster.start(PRIMARY).await.unwrap();
    wait_replicated(&cluster, PRIMARY, 2).await;
    cluster.kill(FIRST).await.unwrap();
    assert_eq!(cluster.promote(PRIMARY).await.unwrap(), PRIMARY);
    assert_eq!(count(&cluster, PRIMARY).await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_is_behind_is_not_promoted() {
    let cluster = one_shard().start().await.unwrap();
    create_table(&cluster).await;
    cluster.pause(FIRST).await.unwrap();
    insert(&mut connect(&cluster, PRIMARY).await, 2).await;
    cluster.kill(PRIMARY).await.unwrap();
    // What the stopped replica still has in its socket it may read and keep; so it dies, too, and comes back alone.
    cluster.kill(FIRST).await.unwrap();
    cluster.start(FIRST).await.unwrap();
    let refused = cluster.promote(FIRST).await.unwrap_err().to_string();
    assert!(refused.contains("could lose acknowledged writes"), "{refused}");
    cluster.start(PRIMARY).await.unwrap();
    assert_eq!(count(&cluster, PRIMARY).await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_synchronous_replicas_the_furthest_is_promoted_and_nothing_is_lost() {
    let cluster = one_shard().replicas(2).start().await.unwrap();
    create_table(&cluster).await;
    let mut connection = connect(&cluster, PRIMARY).await;
    let names: String =
        query_scalar("SHOW synchronous_standby_names").fetch_one(&mut connection).await.unwrap();
    assert_eq!(names, format!("ANY 1 (\"{FIRST}\", \"{SECOND}\")"));
    cluster.kill(FIRST).await.unwrap();
    insert(&mut connection, 2).await;
    cluster.kill(PRIMARY).await.unwrap();
    cluster.start(FIRST).await.unwrap();
    assert_eq!(cluster.promote(FIRST).await.unwrap(), SECOND, "the one that has the second row");
    let mut connection = PgConnection::connect(&cluster.shard_primary_dsn(1).unwrap()).await.unwrap();
    // Acknowledged only because the other replica follows the new primary.
    insert(&mut connection, 3).await;
    assert_eq!(count(&cluster, SECOND).await, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_replaces_a_killed_master_and_is_flushed_whole() {
    let spec = ClusterSpec::default().shards(1).replicas(0).nodes(0);
    let cluster = spec.guard(env!("CARGO_BIN_EXE_devcluster")).start().await.unwrap();
    assert_eq!(cluster.redis_addrs().unwrap().len(), 6);
    cluster.redis_flush_all().await.unwrap();
    cluster.kill("redis-1").await.unwrap();
    let failed = cluster.redis_flush_all().await.unwrap_err().to_string();
    assert!(failed.contains("redis-1"), "{failed}");
    cluster.start("redis-1").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_left_when_a_test_is_killed() {
    let ours = std::env::current_exe().unwrap();
    let victim = ours.parent().unwrap().parent().unwrap().join("examples/own_cluster");
    assert!(victim.is_file(), "cargo build --package devcluster --examples makes what this test kills");
    let mut victim = Command::new(victim)
        .arg(env!("CARGO_BIN_EXE_devcluster"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(victim.stdout.take().unwrap()).lines().map_while(Result::ok);
    let mut told = lines.filter_map(|line| line.split_once("folder: ").map(|(_, rest)| rest.to_owned()));
    let home = std::path::PathBuf::from(told.next().unwrap());
    let state = devcluster::state::require(&devcluster::Home::new(&home)).unwrap();
    let all: Vec<ProcessId> = state.parts.into_iter().filter_map(|part| part.process).collect();
    assert!(all.len() == 3 && all.iter().all(ProcessId::is_alive));
    kill(Pid::from_raw(i32::try_from(victim.id()).unwrap()), Signal::SIGKILL).unwrap();
    victim.wait().unwrap();
    assert!(all.iter().all(|process| process.wait_gone(GONE_LIMIT)));
    let deadline = std::time::Instant::now() + GONE_LIMIT;
    while home.exists() && std::time::Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(!home.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shard_is_added_to_a_running_cluster_and_known_to_the_next_one_with_its_data() {
    let folder = tempfile::Builder::new().permissions(Permissions::from_mode(0o711)).tempdir().unwrap();
    let cluster = one_shard().home(folder.path()).start().await.unwrap();
    let before = processes(&cluster);
    assert_eq!(cluster.add_shard().await.unwrap(), 2);
    let names = |cluster: &Cluster| {
        cluster.state().unwrap().parts.into_iter().map(|part| part.part.name).collect::<Vec<_>>()
    };
    let all = ["directory", PRIMARY, FIRST, "shard-2-primary", "shard-2-replica-1"];
    assert_eq!(names(&cluster), all);
    assert_eq!(processes(&cluster)[..before.len()], before, "the others were left alone");
    let mut connection = PgConnection::connect(&cluster.shard_primary_dsn(2).unwrap()).await.unwrap();
    query("CREATE TABLE public.kept (number int)").execute(&mut connection).await.unwrap();
    insert(&mut connection, 1).await;
    wait_replicated(&cluster, "shard-2-replica-1", 1).await;
    cluster.kill("shard-2-primary").await.unwrap();
    cluster.start("shard-2-primary").await.unwrap();
    let started = processes(&cluster);
    cluster.stop().await.unwrap();
    assert!(started.len() == all.len() && started.iter().all(|process| !process.is_alive()));

    let again = one_shard().home(folder.path()).start().await.unwrap();
    assert_eq!(names(&again), all);
    assert_eq!(count(&again, "shard-2-replica-1").await, 1);
    again.stop().await.unwrap();
}
