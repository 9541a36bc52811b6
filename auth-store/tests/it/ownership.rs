//! Every method against every state of ownership: no verdict from a shard that does not own the bucket.
use std::sync::Arc;
use std::time::{Duration, Instant};

use auth_core::domain::{DisplayName, RevokeReason};
use auth_core::ports::{
    Accounts, Freshness, Idempotency, Judgement, Logins, NewAccount, Once, PasswordChange, Reserved,
    Sessions, StoreError,
};
use futures::future::{BoxFuture, join_all};
use shard_key::{Bucket, LookupHash};
use shard_router::{Hint, MAX_FENCE_WAIT};
use sqlx::PgConnection;
use sqlx::types::Json;

use crate::Trials;
use crate::env::{Account, Env, password, password_limits, session_limits, shard};

pub fn add(trials: &mut Trials) {
    trials.add("ownership::active_answers", active);
    trials.add("ownership::fenced_waits_and_gives_up", fenced);
    trials.add("ownership::fence_that_lifts_is_waited_out", lifted);
    trials.add("ownership::incoming_or_absent_is_unavailable", incoming);
    trials.add("ownership::moved_with_a_hint_is_followed", moved);
    trials.add("ownership::moved_and_cleaned_is_followed", cleaned);
    trials.add("ownership::between_decision_and_activation_is_waited_out", between);
    trials.add("ownership::a_circle_of_hints_ends", circle);
    trials.add("ownership::every_table_has_the_backstop", backstop);
}

type Method = for<'a> fn(&'a Env, &'a Account) -> BoxFuture<'a, Result<String, StoreError>>;

fn once<T>(outcome: Once<Option<T>>) -> String {
    match outcome {
        Once::Done(Some(_)) => "done".to_owned(),
        Once::Done(None) => "refused".to_owned(),
        Once::Replayed(_) => "replayed".to_owned(),
        Once::Mismatch => "mismatch".to_owned(),
        Once::Running => "running".to_owned(),
    }
}

fn verdict<T>(outcome: Option<T>) -> String {
    if outcome.is_some() { "some" } else { "none" }.to_owned()
}

fn key(env: &Env) -> Idempotency {
    Idempotency { key_hash: env.hash(), request_mac: [1; 32] }
}

/// Name, the right answer, and the call.
const METHODS: &[(&str, &str, Method)] = &[
    ("accounts.insert", "done", |env, a| {
        Box::pin(
            async move { env.store.insert(&env.new_account(a.bucket()), Some(&key(env))).await.map(once) },
        )
    }),
    ("accounts.insert, taken", "refused", |env, a| {
        Box::pin(async move {
            let new = NewAccount { lookup_hash: a.lookup, ..env.new_account(a.bucket()) };
            env.store.insert(&new, None).await.map(once)
        })
    }),
    ("accounts.find_once", "none", |env, a| {
        Box::pin(async move { env.store.find_once(a.bucket(), &key(env)).await.map(verdict) })
    }),
    ("accounts.get", "some", |env, a| {
        Box::pin(async move { Accounts::get(&env.store, a.user.id, Freshness::Primary).await.map(verdict) })
    }),
    ("accounts.get, replica", "some", |env, a| {
        Box::pin(
            async move { Accounts::get(&env.store, a.user.id, Freshness::ReplicaAllowed).await.map(verdict) },
        )
    }),
    ("accounts.rename", "done", |env, a| {
        Box::pin(async move {
            let name = DisplayName::parse("Grace").unwrap();
            env.store.rename(a.user.id, a.session, Some(&name), Some(&key(env))).await.map(once)
        })
    }),
    ("accounts.get_password", "some", |env, a| {
        Box::pin(async move { env.store.get_password(a.user.id, a.session).await.map(verdict) })
    }),
    ("accounts.change_password", "done", |env, a| {
        Box::pin(async move {
            let change = PasswordChange {
                user_id: a.user.id,
                session: a.session,
                expected_version: 1,
                password: password("second"),
            };
            env.store.change_password(&change, Some(&key(env))).await.map(once)
        })
    }),
    ("accounts.delete", "done", |env, a| {
        Box::pin(async move {
            env.store
                .delete(a.user.id, a.session, 1, chrono::Duration::days(30), Some(&key(env)))
                .await
                .map(once)
        })
    }),
    ("logins.reserve", "candidate true", |env, a| {
        Box::pin(async move {
            let reserved = env.store.reserve(&a.attempt(), Some(a.device), &password_limits()).await?;
            let Reserved::Go { candidate, .. } = reserved else { return Ok("limited".to_owned()) };
            Ok(candidate.map_or("nobody".to_owned(), |c| format!("candidate {}", c.known_device)))
        })
    }),
    ("logins.reserve, unknown", "nobody", |env, a| {
        Box::pin(async move {
            let attempt = crate::env::attempt(a.bucket(), LookupHash::from(env.hash()), "x");
            let reserved = env.store.reserve(&attempt, None, &password_limits()).await?;
            let Reserved::Go { candidate, .. } = reserved else { return Ok("limited".to_owned()) };
            Ok(candidate.map_or("nobody".to_owned(), |_| "somebody".to_owned()))
        })
    }),
    ("logins.refund", "done", |env, a| {
        Box::pin(async move { env.store.refund(&a.attempt(), None).await.map(|()| "done".to_owned()) })
    }),
    ("logins.reserve_proof", "none", |env, a| {
        Box::pin(async move { env.store.reserve_proof(&a.attempt(), &password_limits()).await.map(verdict) })
    }),
    ("logins.clear_proof", "done", |env, a| {
        Box::pin(async move { env.store.clear_proof(&a.attempt()).await.map(|()| "done".to_owned()) })
    }),
    ("logins.open", "some", |env, a| {
        Box::pin(async move {
            let login = env.login(a.user.id, a.lookup, a.device);
            env.store.open(&login, &session_limits()).await.map(verdict)
        })
    }),
    ("sessions.rotate", "some", |env, a| {
        Box::pin(async move { env.store.rotate(&a.token(0), &session_limits()).await.map(verdict) })
    }),
    ("sessions.rotate, wrong generation", "none", |env, a| {
        Box::pin(async move { env.store.rotate(&a.token(7), &session_limits()).await.map(verdict) })
    }),
    ("sessions.replay", "some", |env, a| {
        Box::pin(async move { env.store.replay(&a.token(-1), &session_limits()).await.map(verdict) })
    }),
    ("sessions.judge, current", "current", |env, a| {
        Box::pin(async move { env.store.judge(&a.token(0), &session_limits()).await.map(judgement) })
    }),
    ("sessions.judge, reuse", "reused", |env, a| {
        Box::pin(async move { env.store.judge(&a.token(-2), &session_limits()).await.map(judgement) })
    }),
    ("sessions.judge, future", "dead", |env, a| {
        Box::pin(async move { env.store.judge(&a.token(2), &session_limits()).await.map(judgement) })
    }),
    ("sessions.get", "some", |env, a| {
        Box::pin(async move { Sessions::get(&env.store, a.session).await.map(verdict) })
    }),
    ("sessions.list", "1", |env, a| {
        Box::pin(async move {
            env.store.list(a.user.id, 100, Freshness::Primary).await.map(|found| found.len().to_string())
        })
    }),
    ("sessions.list, replica", "1", |env, a| {
        Box::pin(async move {
            env.store
                .list(a.user.id, 100, Freshness::ReplicaAllowed)
                .await
                .map(|found| found.len().to_string())
        })
    }),
    ("sessions.revoke", "some", |env, a| {
        Box::pin(
            async move { env.store.revoke(a.session, a.user.id, RevokeReason::Logout).await.map(verdict) },
        )
    }),
    ("sessions.list_ended", "some", |env, a| {
        Box::pin(async move { env.store.list_ended(a.user.id).await.map(|ended| verdict(Some(ended))) })
    }),
    ("sessions.revoke_others", "some", |env, a| {
        Box::pin(async move { env.store.revoke_others(a.user.id, a.session).await.map(verdict) })
    }),
    ("audit.verify_chain", "Whole", |env, a| {
        Box::pin(async move { env.store.verify_chain(a.bucket()).await.map(|chain| format!("{chain:?}")) })
    }),
];

fn judgement(judgement: Judgement) -> String {
    match judgement {
        Judgement::Late(_) => "late",
        Judgement::Storm => "storm",
        Judgement::Current => "current",
        Judgement::Reused(_) => "reused",
        Judgement::Dead => "dead",
    }
    .to_owned()
}

/// Tables in the order that a copy may be made in. No foreign keys, so any order would do.
const TABLES: [&str; 11] = [
    "users",
    "user_identifiers",
    "identifiers",
    "credentials",
    "devices",
    "sessions",
    "login_attempts",
    "idempotency",
    "outbox",
    "audit_head",
    "audit",
];

/// What a move does to one bucket, without its care: nobody writes here meanwhile.
async fn move_bucket(env: &Env, bucket: Bucket, clean: bool) {
    let (mut from, mut to) = (env.admin(1).await, env.admin(2).await);
    for conn in [&mut from, &mut to] {
        sqlx::query("SET session_replication_role = replica").execute(conn).await.unwrap();
    }
    for table in TABLES {
        let read =
            format!("SELECT coalesce(jsonb_agg(to_jsonb(t)), '[]') FROM shard.{table} t WHERE t.bucket = $1");
        let rows: Json<serde_json::Value> = sqlx::query_scalar(sqlx::AssertSqlSafe(read))
            .bind(i32::from(bucket))
            .fetch_one(&mut from)
            .await
            .unwrap();
        let write = format!(
            "INSERT INTO shard.{table} SELECT p.* FROM jsonb_populate_recordset(NULL::shard.{table}, $1) p"
        );
        sqlx::query(sqlx::AssertSqlSafe(write)).bind(rows).execute(&mut to).await.unwrap();
        if clean {
            let delete = format!("DELETE FROM shard.{table} WHERE bucket = $1");
            sqlx::query(sqlx::AssertSqlSafe(delete))
                .bind(i32::from(bucket))
                .execute(&mut from)
                .await
                .unwrap();
        }
    }
    let own = "UPDATE meta.bucket_owner SET state = 'A', epoch = 5 WHERE bucket = $1";
    sqlx::query(own).bind(i32::from(bucket)).execute(&mut to).await.unwrap();
    let give = "UPDATE meta.bucket_owner SET state = 'M', epoch = 5, moved_to = 2 WHERE bucket = $1";
    sqlx::query(give).bind(i32::from(bucket)).execute(&mut from).await.unwrap();
}

/// What a state's set-up does to an account's bucket before the method is called.
async fn outcomes<F>(
    env: &Env,
    prepare: impl Fn(Bucket) -> F,
) -> Vec<(&'static str, &'static str, Result<String, StoreError>)>
where
    F: Future<Output = ()>,
{
    let mut ready = Vec::new();
    for (name, right, method) in METHODS {
        let account = env.account().await;
        prepare(account.bucket()).await;
        ready.push((*name, *right, *method, account));
    }
    // The replicas must have the states, so that a reader of theirs is tested too.
    env.replica_has_all().await;
    // Ten at a time: fewer than connections, so that none waits for one.
    let mut all = Vec::new();
    for some in ready.chunks(10) {
        all.extend(
            join_all(some.iter().map(|(name, right, method, account)| async move {
                (*name, *right, method(env, account).await)
            }))
            .await,
        );
    }
    all
}

async fn active(env: Arc<Env>) {
    for (name, right, outcome) in outcomes(&env, |_| async {}).await {
        assert_eq!(outcome.unwrap_or_else(|e| panic!("{name}: {e}")), right, "{name}");
    }
}

async fn fenced(env: Arc<Env>) {
    for (name, _, outcome) in outcomes(&env, |bucket| env.set_state(bucket, 'F')).await {
        assert!(matches!(outcome, Err(StoreError::Unavailable(_))), "{name}: {outcome:?}");
    }
}

async fn lifted(env: Arc<Env>) {
    let mut admin = env.admin(1).await;
    // On a busy machine a fence may last longer than anybody waits for one: then it says nothing, and there is another.
    for _ in 0..20 {
        match lift(&env, &mut admin).await {
            Ok(()) => return,
            Err(took) => println!("the fence stood for {took:?}"),
        }
    }
    panic!("no fence was short enough");
}

/// Every method meets a fence that is lifted. `Err`: it took so long that they may give up.
async fn lift(env: &Env, admin: &mut PgConnection) -> Result<(), Duration> {
    let accounts: Vec<Account> = join_all((0..METHODS.len()).map(|_| env.account())).await;
    for account in &accounts {
        env.set_state(account.bucket(), 'F').await;
    }
    let began = Instant::now();
    let calls = join_all(METHODS.iter().zip(&accounts).map(|((_, _, method), account)| method(env, account)));
    let lift = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let lift = "UPDATE meta.bucket_owner SET state = 'A' WHERE state = 'F'";
        sqlx::query(lift).execute(admin).await.unwrap();
        began.elapsed()
    };
    let (outcomes, took) = tokio::join!(calls, lift);
    if took > MAX_FENCE_WAIT / 2 || began.elapsed() > MAX_FENCE_WAIT {
        return Err(took);
    }
    for ((name, right, _), outcome) in METHODS.iter().zip(outcomes) {
        assert_eq!(outcome.unwrap_or_else(|e| panic!("{name}: {e}")), *right, "{name}");
    }
    Ok(())
}

async fn incoming(env: Arc<Env>) {
    for (name, _, outcome) in outcomes(&env, |bucket| env.set_state(bucket, 'I')).await {
        assert!(matches!(outcome, Err(StoreError::Unavailable(_))), "{name}: {outcome:?}");
    }
    let absent = |bucket| {
        let env = &env;
        async move {
            env.exec(format!("DELETE FROM meta.bucket_owner WHERE bucket = {bucket}")).await;
        }
    };
    for (name, _, outcome) in outcomes(&env, absent).await {
        assert!(matches!(outcome, Err(StoreError::Unavailable(_))), "{name}: {outcome:?}");
    }
}

async fn moved(env: Arc<Env>) {
    for (name, right, outcome) in outcomes(&env, |bucket| move_bucket(&env, bucket, false)).await {
        assert_eq!(outcome.unwrap_or_else(|e| panic!("{name}: {e}")), right, "{name}");
    }
}

async fn cleaned(env: Arc<Env>) {
    for (name, right, outcome) in outcomes(&env, |bucket| move_bucket(&env, bucket, true)).await {
        assert_eq!(outcome.unwrap_or_else(|e| panic!("{name}: {e}")), right, "{name}");
    }
}

/// The directory has decided, and this node knows; the new owner does not yet. So on the way there, where the new owner
/// is still `I`, and on the way back, where it is still `M` with an older epoch.
async fn between(env: Arc<Env>) {
    let (there, back) = (env.account().await, env.account().await);
    for account in [&there, &back] {
        move_bucket(&env, account.bucket(), false).await;
    }
    let (mut first, mut second) = (env.admin(1).await, env.admin(2).await);
    let own = "UPDATE meta.bucket_owner SET state = $2::text::\"char\", epoch = $3, moved_to = NULL WHERE bucket = $1";
    let set = |bucket: Bucket, state: &'static str, epoch: i64| {
        sqlx::query(own).bind(i32::from(bucket)).bind(state).bind(epoch)
    };
    set(there.bucket(), "I", 1).execute(&mut second).await.unwrap();
    set(back.bucket(), "F", 7).execute(&mut second).await.unwrap();
    env.router.hint(there.bucket(), Hint { to: shard(2), epoch: 5 });
    env.router.hint(back.bucket(), Hint { to: shard(1), epoch: 7 });
    let ask = async |account: &Account| Sessions::get(&env.store, account.session).await;
    let activate = async {
        // Too early, and nothing had to be waited out: it is no verdict that depends on it.
        tokio::time::sleep(Duration::from_millis(100)).await;
        set(there.bucket(), "A", 5).execute(&mut second).await.unwrap();
        set(back.bucket(), "A", 7).execute(&mut first).await.unwrap();
    };
    let (there, back, ()) = tokio::join!(ask(&there), ask(&back), activate);
    assert!(there.unwrap().is_some() && back.unwrap().is_some());
}

async fn circle(env: Arc<Env>) {
    let account = env.account().await;
    let bucket = account.bucket();
    move_bucket(&env, bucket, false).await;
    let mut there = env.admin(2).await;
    let back = "UPDATE meta.bucket_owner SET state = 'M', epoch = 6, moved_to = 1 WHERE bucket = $1";
    sqlx::query(back).bind(i32::from(bucket)).execute(&mut there).await.unwrap();
    let outcome = Sessions::get(&env.store, account.session).await;
    assert!(matches!(outcome, Err(StoreError::Unavailable(_))), "{outcome:?}");
    assert_eq!(env.router.place(bucket).shard, shard(1), "the highest epoch stands");
}

async fn backstop(env: Arc<Env>) {
    let without = "SELECT count(*) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'bucket'
        WHERE n.nspname = 'shard' AND c.relkind IN ('r', 'p') AND NOT EXISTS (
            SELECT FROM pg_trigger t JOIN pg_proc p ON p.oid = t.tgfoid
            WHERE c.relrowsecurity AND t.tgrelid = c.oid AND p.proname = 'check_owner' AND t.tgenabled = 'O')";
    assert_eq!(env.count(without.to_owned()).await, 0);
    let all = "SELECT count(*) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE n.nspname = 'shard' AND c.relkind IN ('r', 'p') AND NOT c.relispartition";
    assert_eq!(env.count(all.to_owned()).await, TABLES.len() as i64, "TABLES names them all");
}
