//! The cluster, and the accounts that tests are made of.
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use auth_core::crypto::password::StoredPassword;
use auth_core::crypto::ring::SecretRing;
use auth_core::crypto::seal::Sealer;
use auth_core::domain::{DeviceHash, DisplayName, Email, PasswordLimits, SessionLimits, User};
use auth_core::ports::{
    Accounts, AttemptKey, Clock, Login, Logins, NewAccount, Once, Opened, Presented, Random,
};
use auth_store::Store;
use chrono::{DateTime, Utc};
use devcluster::{Cluster, ClusterSpec};
use shard_key::{Bucket, LookupHash, LookupKey, RoutingKey, SessionId, TenantId, UserId};
use shard_router::directory::{Directory, Fingerprints, NewShard, assign_buckets, register_shards};
use shard_router::{Address, Router, RouterConfig, ShardId, migrate};
use sqlx::{Connection, PgConnection};

/// Connections to each server.
pub const POOL_SIZE: usize = 16;

pub struct Env {
    pub store: Store,
    pub router: Router,
    pub cluster: Cluster,
    _state_dir: tempfile::TempDir,
    next_bucket: AtomicU16,
    numbers: AtomicU64,
}

pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> DateTime<Utc> {
        Utc::now()
    }
}

/// Different bytes at every call; nothing here guards a secret.
#[derive(Default)]
pub struct Counter(AtomicU64);

impl Random for Counter {
    fn fill(&self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            let n = self.0.fetch_add(1, Ordering::Relaxed).wrapping_mul(0x9E37_79B9_7F4A_7C15).to_be_bytes();
            chunk.copy_from_slice(&n[..chunk.len()]);
        }
    }
}

/// An account with one session.
pub struct Account {
    pub user: User,
    pub email: Email,
    pub lookup: LookupHash,
    pub session: SessionId,
    pub seed: [u8; 32],
    pub device: DeviceHash,
}

pub fn shard(number: i16) -> ShardId {
    ShardId::new(number).unwrap()
}

pub fn session_limits() -> SessionLimits {
    SessionLimits {
        idle: chrono::Duration::days(30),
        absolute: chrono::Duration::days(90),
        max_live: 100,
        replay_window: chrono::Duration::seconds(30),
        max_replays: 3,
        late_replay_every: 8,
        cache_trust: chrono::Duration::seconds(60),
    }
}

pub fn password_limits() -> PasswordLimits {
    PasswordLimits {
        per_scope: 10,
        scope_window: chrono::Duration::minutes(15),
        per_identifier: 20,
        delay: chrono::Duration::seconds(1),
    }
}

pub fn password(text: &str) -> StoredPassword {
    StoredPassword { phc: format!("$test${text}"), pepper_id: Some(1) }
}

impl Env {
    pub async fn start() -> Self {
        let guard = std::env::current_exe().unwrap();
        let cluster =
            ClusterSpec::default().nodes(0).shards(2).replicas(1).guard(guard).start().await.unwrap();
        let admin = login(&cluster.directory_dsn().unwrap());
        let app = login(&cluster.app_dsn("shard-1-primary").unwrap());
        let address = |name: &str| Address::new("127.0.0.1", cluster.port(name).unwrap(), "tessera");
        let directory = Directory::new(address("directory"), admin.clone(), Duration::from_secs(10));
        migrate::migrate_directory(&address("directory"), &admin).await.unwrap();
        let shards: Vec<NewShard> = [1, 2]
            .map(|n| NewShard {
                shard_id: shard(n),
                primary: address(&format!("shard-{n}-primary")),
                replicas: vec![address(&format!("shard-{n}-replica-1"))],
                weight: 1,
            })
            .into();
        register_shards(&directory, &shards).await.unwrap();
        migrate::migrate_shards(&directory).await.unwrap();
        let fingerprints = Fingerprints::of(&RoutingKey::new([1; 32]), &LookupKey::new([2; 32]));
        assign_buckets(&directory, &fingerprints).await.unwrap();
        let state_dir = tempfile::tempdir().unwrap();
        let mut config = RouterConfig::new(address("directory"), app, state_dir.path().to_owned(), POOL_SIZE);
        // Bursts on a busy machine: who waits longer for a connection is not what these tests are about.
        config.checkout_timeout_ms = 5_000;
        let router = Router::start(config).await.unwrap();
        let sealer =
            Sealer::new(SecretRing::parse("1 AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE\n").unwrap());
        let store = Store::new(router.clone(), sealer, Arc::new(Counter::default()));
        Self {
            store,
            router,
            cluster,
            _state_dir: state_dir,
            next_bucket: AtomicU16::new(0),
            numbers: AtomicU64::new(1),
        }
    }

    /// A superuser's connection to a shard's primary.
    pub async fn admin(&self, number: u16) -> PgConnection {
        PgConnection::connect(&self.cluster.shard_primary_dsn(number).unwrap()).await.unwrap()
    }

    /// A connection to a shard's primary in the role of the nodes, with none of their limits.
    pub async fn app(&self, number: u16) -> PgConnection {
        PgConnection::connect(&self.cluster.app_dsn(&format!("shard-{number}-primary")).unwrap())
            .await
            .unwrap()
    }

    /// Runs a statement as superuser on shard 1.
    pub async fn exec(&self, statement: String) -> u64 {
        let mut admin = self.admin(1).await;
        sqlx::query(sqlx::AssertSqlSafe(statement)).execute(&mut admin).await.unwrap().rows_affected()
    }

    /// What shard 1 says about a bucket from now on.
    pub async fn set_state(&self, bucket: Bucket, state: char) {
        self.exec(format!("UPDATE meta.bucket_owner SET state = '{state}' WHERE bucket = {bucket}")).await;
    }

    /// One number, asked as superuser on shard 1.
    pub async fn count(&self, statement: String) -> i64 {
        let mut admin = self.admin(1).await;
        sqlx::query_scalar(sqlx::AssertSqlSafe(statement)).fetch_one(&mut admin).await.unwrap()
    }

    /// Until the replica of shard 1 has replayed all that is committed now.
    pub async fn replica_has_all(&self) {
        let mut admin = self.admin(1).await;
        let end: String =
            sqlx::query_scalar("SELECT pg_current_wal_lsn()::text").fetch_one(&mut admin).await.unwrap();
        let has = format!("SELECT (replay_lsn >= '{end}')::int::bigint FROM pg_stat_replication");
        eventually("the replica has it", || async {
            let mut admin = self.admin(1).await;
            let has = sqlx::query_scalar::<_, Option<i64>>(sqlx::AssertSqlSafe(has.clone()));
            has.fetch_optional(&mut admin).await.unwrap().flatten() == Some(1)
        })
        .await;
    }

    /// A bucket of shard 1 that no test has used.
    pub fn bucket(&self) -> Bucket {
        loop {
            let bucket =
                Bucket::new(self.next_bucket.fetch_add(1, Ordering::Relaxed)).expect("there are 16384");
            if self.router.place(bucket).shard == shard(1) {
                return bucket;
            }
        }
    }

    pub fn number(&self) -> u64 {
        self.numbers.fetch_add(1, Ordering::Relaxed)
    }

    fn bytes<const N: usize>(&self) -> [u8; N] {
        let mut bytes = [0; N];
        bytes[..8].copy_from_slice(&self.number().to_be_bytes());
        bytes
    }

    pub fn session_id(&self, bucket: Bucket) -> SessionId {
        SessionId::generate(bucket, self.number(), self.bytes())
    }

    pub fn hash(&self) -> [u8; 32] {
        self.bytes()
    }

    /// An account that is not inserted yet.
    pub fn new_account(&self, bucket: Bucket) -> NewAccount {
        let email = Email::parse(&format!("User{}@Example.com", self.number())).unwrap();
        let name = DisplayName::parse("Ada Lovelace").unwrap();
        let user =
            User::new(UserId::generate(bucket, self.number(), self.bytes()), &email, Some(name), Utc::now());
        NewAccount { user, email, lookup_hash: LookupHash::from(self.hash()), password: password("first") }
    }

    /// A login to open.
    pub fn login(&self, user: UserId, lookup: LookupHash, device: DeviceHash) -> Login {
        Login {
            user_id: user,
            session: self.session_id(user.bucket()),
            client_id: "first-party".to_owned(),
            amr: vec!["pwd".to_owned()],
            seed_hash: self.hash(),
            refresh_kid: 1,
            device,
            bound: true,
            ip: "192.0.2.7".to_owned(),
            user_agent: "test".to_owned(),
            credential_version: 1,
            rehashed: None,
            attempt: attempt(user.bucket(), lookup, "192.0.2.0/24"),
        }
    }

    /// An account with a session, in an unused bucket of shard 1.
    pub async fn account(&self) -> Account {
        self.account_in(self.bucket()).await
    }

    pub async fn account_in(&self, bucket: Bucket) -> Account {
        let new = self.new_account(bucket);
        let Once::Done(Some(user)) = self.store.insert(&new, None).await.unwrap() else {
            panic!("not inserted")
        };
        let device = DeviceHash(self.hash());
        let login = self.login(user.id, new.lookup_hash, device);
        let opened = self.open(&login).await;
        assert!(opened.ended.is_empty());
        Account {
            user,
            email: new.email,
            lookup: new.lookup_hash,
            session: login.session,
            seed: login.seed_hash,
            device,
        }
    }

    pub async fn open(&self, login: &Login) -> Opened {
        self.store.open(login, &session_limits()).await.unwrap().expect("the user and the version are right")
    }
}

impl Account {
    /// The token of a generation, presented by the account's own device.
    pub fn token(&self, generation: i64) -> Presented {
        Presented {
            session: self.session,
            generation,
            seed_hash: self.seed,
            device: Some(self.device),
            new_kid: 2,
            ip: "192.0.2.8".to_owned(),
            user_agent: "test 2".to_owned(),
        }
    }

    pub fn attempt(&self) -> AttemptKey {
        attempt(self.user.id.bucket(), self.lookup, "192.0.2.0/24")
    }

    pub fn bucket(&self) -> Bucket {
        self.user.id.bucket()
    }
}

pub fn attempt(bucket: Bucket, lookup: LookupHash, scope: &str) -> AttemptKey {
    AttemptKey { bucket, tenant: TenantId::DEFAULT, subject: *lookup.as_bytes(), scope: scope.to_owned() }
}

/// `postgres://user:password@…`
fn login(dsn: &str) -> shard_router::Login {
    let rest = dsn.split_once("://").unwrap().1;
    let (user, password) = rest.split_once('@').unwrap().0.split_once(':').unwrap();
    shard_router::Login { user: user.to_owned(), password: password.to_owned() }
}

/// Asks until the answer is yes; the bound is only there so that a broken test ends.
pub async fn eventually<F: Future<Output = bool>>(what: &str, mut ask: impl FnMut() -> F) {
    let end = Instant::now() + Duration::from_secs(30);
    while !ask().await {
        assert!(Instant::now() < end, "never happened: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
