//! The chain holds through everything above, and shows what somebody changed.
use std::sync::Arc;

use auth_core::domain::RevokeReason;
use auth_core::ports::Sessions;
use auth_store::Chain;
use futures::future::join_all;
use shard_router::Ownership;

use crate::Trials;
use crate::env::{Account, Env, eventually};

pub fn add(trials: &mut Trials) {
    trials.add("audit::the_chain_holds_under_concurrency", holds);
    trials.add("audit::tampering_is_found", tampering);
    trials.add("audit::the_application_cannot_rewrite_it", append_only);
    trials.add("audit::a_fence_amid_an_append_refuses_it", amid_an_append);
}

async fn chain(env: &Env, a: &Account) -> Chain {
    env.store.verify_chain(a.bucket()).await.unwrap()
}

async fn holds(env: Arc<Env>) {
    let bucket = env.bucket();
    let accounts = join_all((0..8).map(|_| env.account_in(bucket))).await;
    join_all(accounts.iter().map(|a| env.store.revoke(a.session, a.user.id, RevokeReason::Logout))).await;
    assert_eq!(env.store.verify_chain(bucket).await.unwrap(), Chain::Whole);
    assert_eq!(env.count(format!("SELECT seq FROM shard.audit_head WHERE bucket = {bucket}")).await, 24);
    assert_eq!(env.count(format!("SELECT count(*) FROM shard.audit WHERE bucket = {bucket}")).await, 24);
    assert_eq!(env.store.verify_chain(env.bucket()).await.unwrap(), Chain::Whole, "nothing yet");
}

async fn tampering(env: Arc<Env>) {
    for (what, broken) in [
        ("UPDATE shard.audit SET detail = '{\"x\": 1}' WHERE seq = 2 AND bucket = ", 2),
        ("UPDATE shard.audit SET at = at + interval '1 microsecond' WHERE seq = 1 AND bucket = ", 1),
        ("UPDATE shard.audit SET event = 'user.deleted' WHERE seq = 1 AND bucket = ", 1),
        ("UPDATE shard.audit SET hash = sha256('x') WHERE seq = 1 AND bucket = ", 1),
        ("DELETE FROM shard.audit WHERE seq = 1 AND bucket = ", 2),
        ("DELETE FROM shard.audit WHERE seq = 3 AND bucket = ", 3),
        ("UPDATE shard.audit_head SET seq = 2 WHERE bucket = ", 2),
    ] {
        let a = env.account().await;
        env.store.revoke(a.session, a.user.id, RevokeReason::Logout).await.unwrap().unwrap();
        assert_eq!(chain(&env, &a).await, Chain::Whole);
        assert_eq!(env.exec(format!("{what}{}", a.bucket())).await, 1, "{what}");
        assert_eq!(chain(&env, &a).await, Chain::BrokenAt(broken), "{what}");
    }
}

async fn append_only(env: Arc<Env>) {
    let a = env.account().await;
    let mut app =
        <sqlx::PgConnection as sqlx::Connection>::connect(&env.cluster.app_dsn("shard-1-primary").unwrap())
            .await
            .unwrap();
    let months = "SELECT relid::regclass::text FROM pg_partition_tree('shard.audit')";
    let tables: Vec<String> = sqlx::query_scalar(months).fetch_all(&mut app).await.unwrap();
    assert!(tables.len() >= 4, "{tables:?}");
    for table in tables {
        for change in [
            format!("UPDATE {table} SET event = ''"),
            format!("DELETE FROM {table}"),
            format!("TRUNCATE {table}"),
        ] {
            let statement =
                format!("{change}{}", if change.starts_with('T') { "" } else { " WHERE bucket = -1" });
            let outcome = sqlx::query(sqlx::AssertSqlSafe(statement)).execute(&mut app).await;
            let code = outcome.unwrap_err().as_database_error().and_then(|e| e.code()).unwrap().into_owned();
            assert_eq!(code, "42501", "{change}");
        }
    }
    assert_eq!(chain(&env, &a).await, Chain::Whole);
}

/// The append is a function of three statements, each of which sees ownership as of its own start.
async fn amid_an_append(env: Arc<Env>) {
    let account = env.account().await;
    let bucket = account.bucket();
    let (mut holder, mut admin) = (env.admin(1).await, env.admin(1).await);
    let partition: String =
        sqlx::query_scalar("SELECT 'shard.audit_' || to_char(now() AT TIME ZONE 'UTC', 'YYYYMM')")
            .fetch_one(&mut admin)
            .await
            .unwrap();
    // It gets past the first statement, and waits in the second until the fence stands.
    let hold = format!("BEGIN; LOCK TABLE ONLY {partition} IN ACCESS EXCLUSIVE MODE");
    sqlx::raw_sql(sqlx::AssertSqlSafe(hold)).execute(&mut holder).await.unwrap();
    let mut app = env.app(1).await;
    let pid: i32 = sqlx::query_scalar("SELECT pg_backend_pid()").fetch_one(&mut app).await.unwrap();
    let append = async {
        let sql = "SELECT shard.audit_append($1, 1, $2, 'test.fenced', '{}')";
        sqlx::query(sql).bind(i32::from(bucket)).bind(account.user.id.as_uuid()).execute(&mut app).await
    };
    let waits = format!(
        "SELECT count(*) FROM pg_locks WHERE NOT granted AND pid = {pid} AND relation = '{partition}'::regclass"
    );
    let fence = async {
        eventually("the append waits", async || env.count(waits.clone()).await == 1).await;
        env.set_state(bucket, 'F').await;
        sqlx::raw_sql("COMMIT").execute(&mut holder).await.unwrap();
    };
    let (appended, ()) = tokio::join!(append, fence);
    assert_eq!(Ownership::from_error(&appended.unwrap_err()), Some(Ownership::Fenced));
    env.set_state(bucket, 'A').await;
    assert_eq!(chain(&env, &account).await, Chain::Whole, "what was refused left nothing behind");
}
