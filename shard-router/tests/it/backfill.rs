//! A backfill on a test's own table: rows with `wide` to be filled from `narrow`, and a count of how often that happened.

use crate::world::{Servers, World, eventually, execute};
use shard_router::migrate::{Backfill, Backfilled, MigrateError, Pace};
use sqlx::postgres::PgConnection;
use std::time::Duration;

pub const FILL: Backfill = Backfill {
    name: "fill",
    step: shard_router::backfill_step!(
        "SELECT f.id AS key FROM public.filled f
         WHERE f.bucket = $1 AND ($2 IS NULL OR f.id > $2::int) ORDER BY f.id LIMIT $3";
        "UPDATE public.filled f SET wide = f.narrow, times = f.times + 1 FROM o, batch
         WHERE o.state = 'A' AND f.bucket = $1 AND f.id = batch.key"
    ),
};

/// Three rows a batch; the replicas' lag is another test's business.
const PACE: Pace = Pace { batch: 3, lag_bytes: i64::MAX, lag_wait: Duration::ZERO };

/// Rows in buckets 0–9 of shard 1 and 8192–8193 of shard 2, eight in each. All other buckets are done already, so that
/// nobody waits for 16384 of them.
async fn table(world: &World) {
    let done = "INSERT INTO directory.backfill (name, done) VALUES ('fill', '{[10, 8192), [8194, 16384)}')";
    execute(&mut world.on_directory().await, done).await.unwrap();
    let make = "CREATE TABLE public.filled (bucket int, id int, narrow int NOT NULL, wide bigint,
            times int NOT NULL DEFAULT 0, PRIMARY KEY (bucket, id))";
    for (id, buckets) in [(1, "0, 9"), (2, "8192, 8193")] {
        let mut shard = world.on_shard(id).await;
        execute(&mut shard, make).await.unwrap();
        let rows = format!(
            "INSERT INTO public.filled (bucket, id, narrow) SELECT b, i, i FROM generate_series({buckets}) b, generate_series(1, 8) i"
        );
        execute(&mut shard, &rows).await.unwrap();
        execute(&mut shard, "SELECT meta.protect('public.filled')").await.unwrap();
    }
}

/// How many rows of some buckets were rewritten how often.
async fn counts(shard: &mut PgConnection, buckets: &str) -> Vec<(i32, i64)> {
    let query = format!(
        "SELECT times, count(*) FROM public.filled WHERE bucket IN ({buckets})
         AND (times = 0) = (wide IS NULL) GROUP BY 1 ORDER BY 1"
    );
    sqlx::query_as(sqlx::AssertSqlSafe(query)).fetch_all(shard).await.unwrap()
}

/// Moves ownership and rows as a move leaves them: the source's copy stays for a while.
async fn hand_over(world: &World, bucket: i32) {
    let (mut from, mut to) = (world.on_shard(1).await, world.on_shard(2).await);
    let leave =
        format!("UPDATE meta.bucket_owner SET state = 'M', moved_to = 2, epoch = 2 WHERE bucket = {bucket}");
    execute(&mut from, &leave).await.unwrap();
    let arrive = format!(
        "UPDATE meta.bucket_owner SET state = 'A', epoch = 2 WHERE bucket = {bucket};
         INSERT INTO public.filled (bucket, id, narrow) SELECT {bucket}, i, i FROM generate_series(1, 8) i"
    );
    execute(&mut to, &arrive).await.unwrap();
}

pub async fn every_row_is_rewritten_once_by_its_owner(servers: &Servers) {
    let world = World::new(servers, "backfill_once").await;
    table(&world).await;
    hand_over(&world, 5).await;
    // In the window of a move: not now.
    let mut first = world.on_shard(1).await;
    execute(&mut first, "UPDATE meta.bucket_owner SET state = 'F' WHERE bucket = 7").await.unwrap();
    let done = FILL.run(&world.as_admin(), PACE).await.unwrap();
    assert_eq!(done, Backfilled { changed: 11 * 8, left: 1 });
    assert_eq!(counts(&mut first, "5, 7").await, [(0, 16)], "not ours, not now");
    assert_eq!(counts(&mut first, "0, 1, 2, 3, 4, 6, 8, 9").await, [(1, 64)]);
    assert_eq!(counts(&mut world.on_shard(2).await, "5, 8192, 8193").await, [(1, 24)]);

    execute(&mut first, "UPDATE meta.bucket_owner SET state = 'A' WHERE bucket = 7").await.unwrap();
    let done = FILL.run(&world.as_admin(), PACE).await.unwrap();
    assert_eq!(done, Backfilled { changed: 8, left: 0 });
    assert_eq!(FILL.run(&world.as_admin(), PACE).await.unwrap(), Backfilled { changed: 0, left: 0 });
    let ended = "SELECT finished_at IS NOT NULL FROM directory.backfill WHERE name = 'fill'";
    assert!(sqlx::query_scalar::<_, bool>(ended).fetch_one(&mut world.on_directory().await).await.unwrap());
}

async fn shard_2_is_through(world: &World) {
    let through = "SELECT done @> int4multirange(int4range(8192, 8194)) FROM directory.backfill";
    eventually("shard 2 is through", async || {
        let done = sqlx::query_scalar(through).fetch_optional(&mut world.on_directory().await).await.unwrap();
        done == Some(true)
    })
    .await;
}

pub async fn a_killed_worker_goes_on_where_it_was(servers: &Servers) {
    let world = World::new(servers, "backfill_kill").await;
    table(&world).await;
    let mut first = world.on_shard(1).await;
    let mut holder = world.on_shard(1).await;
    // The second batch of bucket 3 cannot go on.
    execute(&mut holder, "BEGIN; SELECT FROM public.filled WHERE bucket = 3 AND id = 5 FOR UPDATE")
        .await
        .unwrap();
    let directory = world.as_admin();
    let worker = tokio::spawn(async move { FILL.run(&directory, PACE).await });
    let stuck =
        "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
    eventually("the worker waits in bucket 3", async || {
        let pids: Vec<i32> = sqlx::query_scalar(stuck).fetch_all(&mut world.on_shard(1).await).await.unwrap();
        !pids.is_empty()
    })
    .await;
    // Killed in the middle, it would repeat a batch as well.
    shard_2_is_through(&world).await;
    worker.abort();
    assert!(worker.await.unwrap_err().is_cancelled());
    execute(&mut first, &format!("SELECT pg_terminate_backend(pid) FROM ({stuck}) s")).await.unwrap();
    eventually("its statement is gone", async || {
        let pids: Vec<i32> = sqlx::query_scalar(stuck).fetch_all(&mut world.on_shard(1).await).await.unwrap();
        pids.is_empty()
    })
    .await;
    execute(&mut holder, "ROLLBACK").await.unwrap();

    let cursor: (i32, String) =
        sqlx::query_as("SELECT bucket, last_key FROM directory.backfill_cursor WHERE shard_id = 1")
            .fetch_one(&mut world.on_directory().await)
            .await
            .unwrap();
    assert_eq!(cursor, (3, "3".to_owned()));
    assert_eq!(counts(&mut first, "0, 1, 2, 3").await, [(0, 5), (1, 27)]);
    // Meanwhile a bucket leaves that was not begun, for a shard that is through.
    hand_over(&world, 4).await;
    let done = FILL.run(&world.as_admin(), PACE).await.unwrap();
    assert_eq!(done.left, 0);
    assert_eq!(counts(&mut first, "0, 1, 2, 3, 5, 6, 7, 8, 9").await, [(1, 72)], "no row twice");
    assert_eq!(counts(&mut first, "4").await, [(0, 8)]);
    assert_eq!(counts(&mut world.on_shard(2).await, "4, 8192, 8193").await, [(1, 24)]);
}

pub async fn a_bucket_that_leaves_meanwhile_is_done_where_it_went(servers: &Servers) {
    let world = World::new(servers, "backfill_move").await;
    table(&world).await;
    let mut holder = world.on_shard(1).await;
    execute(&mut holder, "BEGIN; SELECT FROM public.filled WHERE bucket = 0 AND id = 5 FOR UPDATE")
        .await
        .unwrap();
    let directory = world.as_admin();
    let worker = tokio::spawn(async move { FILL.run(&directory, PACE).await });
    // Shard 2 is through with what it has, shard 1 still has bucket 4 on its list.
    shard_2_is_through(&world).await;
    hand_over(&world, 4).await;
    execute(&mut holder, "ROLLBACK").await.unwrap();
    assert_eq!(worker.await.unwrap().unwrap(), Backfilled { changed: 12 * 8, left: 0 });
    assert_eq!(counts(&mut world.on_shard(1).await, "4").await, [(0, 8)], "not touched after it left");
    assert_eq!(counts(&mut world.on_shard(2).await, "4").await, [(1, 8)]);
}

pub async fn replicas_set_the_pace(servers: &Servers) {
    let world = World::new(servers, "backfill_pace").await;
    table(&world).await;
    // No replica is ever closer than 0 bytes.
    let error = FILL.run(&world.as_admin(), Pace { lag_bytes: 0, ..PACE }).await.unwrap_err();
    assert!(matches!(&error, MigrateError::GaveUp(why) if why.contains("bytes behind")), "{error}");
    assert_eq!(counts(&mut world.on_shard(1).await, "0, 1").await, [(0, 16)]);
}
