//! Reads that a replica may answer.
use std::sync::Arc;
use std::time::{Duration, Instant};

use auth_core::domain::{DisplayName, ReadPosition, RevokeReason};
use auth_core::ports::{Accounts, Freshness, Sessions, StoreError, trail};
use sqlx::{Connection, PgConnection};

use crate::Trials;
use crate::env::{Account, Env, POOL_SIZE, eventually, shard};

pub fn add(trials: &mut Trials) {
    trials.add("replicas::a_paused_replay_is_seen_only_where_allowed", stale);
    trials.add("replicas::own_writes_are_seen_and_only_what_is_missing_goes_to_the_primary", own_writes);
    trials.add("replicas::every_own_write_is_seen_at_once", hundred_writes);
    trials.add("replicas::a_read_of_the_primary_gives_a_position_and_one_of_a_replica_none", positions);
    trials.add(
        "replicas::without_replicas_the_primary_answers_with_half_of_its_pool",
        without_replicas_the_primary_answers_with_half_of_its_pool,
    );
}

async fn stale(env: Arc<Env>) {
    let (stale, fresh, unseen) = while_paused(&env, || async {
        let a = env.account().await;
        env.replica_has_all().await;
        let mut replica = paused(&env).await;
        env.store.revoke(a.session, a.user.id, RevokeReason::Logout).await.unwrap().unwrap();
        let stale = env.store.list(a.user.id, 10, Freshness::ReplicaAllowed).await.unwrap();
        let fresh = env.store.list(a.user.id, 10, Freshness::Primary).await.unwrap();
        let b = env.account().await;
        let unseen = Accounts::get(&env.store, b.user.id, Freshness::ReplicaAllowed).await.unwrap();
        ((stale, fresh, unseen), resume(&env, &mut replica).await)
    })
    .await;
    assert_eq!((stale.len(), fresh.len()), (1, 0), "the replica did answer, and only where it may");
    assert!(unseen.is_none());
}

/// Again, if the replica was taken out of use meanwhile: on a busy machine the test itself may take the second that a
/// replica may be behind.
async fn while_paused<T, F: Future<Output = (T, bool)>>(env: &Env, test: impl Fn() -> F) -> T {
    for _ in 0..20 {
        is_admitted(env).await;
        if let (outcome, true) = test().await {
            return outcome;
        }
    }
    panic!("no replica stood still for long enough");
}

async fn is_admitted(env: &Env) {
    eventually("the replica is admitted", || async { env.router.status().shards[0].replicas[0].admitted })
        .await;
}

/// A superuser on the replica of shard 1, whose replay stands still.
async fn paused(env: &Env) -> PgConnection {
    let mut replica = PgConnection::connect(&env.cluster.dsn("shard-1-replica-1").unwrap()).await.unwrap();
    sqlx::query("SELECT pg_wal_replay_pause()").execute(&mut replica).await.unwrap();
    // It stops before the next record, not at once.
    let end = Instant::now() + Duration::from_secs(30);
    let paused = "SELECT pg_get_wal_replay_pause_state() = 'paused'";
    while !sqlx::query_scalar::<_, bool>(paused).fetch_one(&mut replica).await.unwrap() {
        assert!(Instant::now() < end, "replay does not stop");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    replica
}

/// Whether the replica was in use all the while.
async fn resume(env: &Env, replica: &mut PgConnection) -> bool {
    let admitted = env.router.status().shards[0].replicas[0].admitted;
    sqlx::query("SELECT pg_wal_replay_resume()").execute(replica).await.unwrap();
    admitted
}

async fn rename(env: &Env, account: &Account, name: &str) -> ReadPosition {
    let name = DisplayName::parse(name).unwrap();
    let renamed = env.store.rename(account.user.id, account.session, Some(&name), None);
    let (renamed, position) = trail::follow(renamed).await;
    renamed.unwrap();
    position.expect("a write leaves a position")
}

async fn name(env: &Env, account: &Account, freshness: Freshness) -> Result<String, StoreError> {
    let user = Accounts::get(&env.store, account.user.id, freshness).await?.unwrap();
    Ok(user.name.unwrap().as_str().to_owned())
}

async fn own_writes(env: Arc<Env>) {
    let (before, after, seen) = while_paused(&env, || async {
        let a = env.account().await;
        let before = rename(&env, &a, "before").await;
        env.replica_has_all().await;
        let mut replica = paused(&env).await;
        let after = rename(&env, &a, "after").await;
        let seen = [
            name(&env, &a, Freshness::After(before)).await,
            name(&env, &a, Freshness::After(after)).await,
            name(&env, &a, Freshness::After(ReadPosition { timeline: before.timeline + 1, ..before })).await,
            name(&env, &a, Freshness::After(ReadPosition { shard: before.shard + 1, ..before })).await,
        ];
        // One that took longer than a reader waits has not answered.
        let answered = seen[0].as_ref().is_ok_and(|name| name == "before");
        ((before, after, seen), resume(&env, &mut replica).await && answered)
    })
    .await;
    // The first is from the replica: nobody else still says so.
    assert_eq!(seen.map(|seen| seen.unwrap()), ["before", "after", "after", "after"]);
    assert_eq!(before.shard, 1);
    assert!(before.timeline == after.timeline && before.lsn < after.lsn, "{before:?} {after:?}");
}

async fn hundred_writes(env: Arc<Env>) {
    let a = env.account().await;
    let (mut by_replica, mut written) = (0, 0);
    // What a replica serves leaves no position.
    while by_replica < 100 {
        written += 1;
        assert!(written < 10_000, "only {by_replica} were served by a replica");
        let text = format!("name {written}");
        let position = rename(&env, &a, &text).await;
        let (seen, of_primary) = trail::follow(name(&env, &a, Freshness::After(position))).await;
        assert_eq!(seen.unwrap(), text);
        by_replica += u32::from(of_primary.is_none());
    }
}

async fn positions(env: Arc<Env>) {
    let a = env.account().await;
    let at = async |freshness| trail::follow(name(&env, &a, freshness)).await.1;
    let listed = async |freshness| trail::follow(env.store.list(a.user.id, 10, freshness)).await.1;
    let position = at(Freshness::Primary).await.expect("the primary says where it is");
    assert!(listed(Freshness::Primary).await.expect("it does").lsn >= position.lsn);
    // What was done before may have been done a moment ago, and its answer lost.
    let again = async || trail::follow(env.store.revoke_others(a.user.id, a.session)).await;
    let (first, second) = (again().await, again().await);
    assert!(first.0.unwrap().is_some() && second.0.unwrap().is_some());
    assert!(second.1.expect("also with nothing left to end").lsn >= first.1.expect("it wrote").lsn);
    eventually("a replica answers", async || {
        at(Freshness::After(position)).await.is_none() && listed(Freshness::After(position)).await.is_none()
    })
    .await;
}

async fn without_replicas_the_primary_answers_with_half_of_its_pool(env: Arc<Env>) {
    let a = env.account().await;
    env.cluster.kill("shard-1-replica-1").await.unwrap();
    for _ in 0..5 {
        assert_eq!(env.store.list(a.user.id, 10, Freshness::ReplicaAllowed).await.unwrap().len(), 1);
    }
    // Its reads get half of the primary's pool. One more is turned away, and whoever needs the primary still finds it.
    let mut held = Vec::new();
    for _ in 0..POOL_SIZE / 2 {
        held.push(env.router.reader(shard(1), 1, None).await.unwrap());
    }
    let (refused, fresh) = tokio::join!(
        env.store.list(a.user.id, 10, Freshness::ReplicaAllowed),
        env.store.list(a.user.id, 10, Freshness::Primary)
    );
    held.into_iter().for_each(shard_router::Conn::release);
    assert!(matches!(refused, Err(StoreError::Overloaded(_))), "{refused:?}");
    assert_eq!(fresh.unwrap().len(), 1);
    env.cluster.start("shard-1-replica-1").await.unwrap();
}
