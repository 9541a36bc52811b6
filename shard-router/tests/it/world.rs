//! The servers of all tests, and one test's own databases on them.

use devcluster::{Cluster, ClusterSpec};
use shard_router::directory::{Directory, Fingerprints, NewShard, assign_buckets, register_shards};
use shard_router::migrate::{migrate_directory, migrate_shards};
use shard_router::shard_key::{LookupKey, RoutingKey};
use shard_router::{Address, Login, Router, RouterConfig, ShardId, plain_options};
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{AssertSqlSafe, Connection};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Mutex;
use std::time::{Duration, Instant};
use tempfile::TempDir;

pub const TIMEOUT: Duration = Duration::from_secs(10);

/// Real servers, started when the first test wants them.
pub struct Servers {
    cluster: Mutex<Option<Cluster>>,
}

struct Found {
    ports: [u16; 5],
    admin: Login,
    app: Login,
    secrets: PathBuf,
}

impl Servers {
    pub fn new() -> Self {
        Self { cluster: Mutex::new(None) }
    }

    fn find(&self) -> Found {
        let mut cluster = self.cluster.lock().unwrap();
        let cluster = cluster.get_or_insert_with(|| {
            let spec = ClusterSpec::default().nodes(0).shards(2).replicas(1).redis(false);
            // A runtime of its own: the caller's must not be blocked inside itself.
            std::thread::spawn(|| tokio::runtime::Runtime::new().unwrap().block_on(spec.start()).unwrap())
                .join()
                .unwrap()
        });
        let names =
            ["directory", "shard-1-primary", "shard-2-primary", "shard-1-replica-1", "shard-2-replica-1"];
        let secrets = cluster.home().secrets();
        let password = |file: &str| std::fs::read_to_string(secrets.join(file)).unwrap().trim().to_owned();
        let user = |dsn: String| PgConnectOptions::from_str(&dsn).unwrap().get_username().to_owned();
        Found {
            ports: names.map(|name| cluster.port(name).unwrap()),
            admin: Login {
                user: user(cluster.directory_dsn().unwrap()),
                password: password("postgres-admin.password"),
            },
            app: Login {
                user: user(cluster.app_dsn("directory").unwrap()),
                password: password("postgres.password"),
            },
            secrets,
        }
    }

    pub fn stop(&self) {
        drop(self.cluster.lock().unwrap().take());
    }
}

/// One test's databases: a directory and two shards, migrated and placed.
pub struct World {
    pub directory: Address,
    pub shards: [Address; 2],
    pub replicas: [Address; 2],
    pub admin: Login,
    pub app: Login,
    pub secrets: PathBuf,
    pub state: TempDir,
}

pub fn shard(id: i16) -> ShardId {
    ShardId::new(id).unwrap()
}

pub fn keys() -> (RoutingKey, LookupKey) {
    (RoutingKey::new([1; 32]), LookupKey::new([2; 32]))
}

impl World {
    /// Empty databases called `name`.
    pub async fn empty(servers: &Servers, name: &str) -> Self {
        let found = servers.find();
        let address = |port| Address::new("127.0.0.1", port, name);
        for port in &found.ports[..3] {
            let server = Address::new("127.0.0.1", *port, "postgres");
            let mut connection =
                PgConnection::connect_with(&plain_options(&server, &found.admin)).await.unwrap();
            execute(&mut connection, &format!("CREATE DATABASE {name}")).await.unwrap();
        }
        Self {
            directory: address(found.ports[0]),
            shards: [address(found.ports[1]), address(found.ports[2])],
            replicas: [address(found.ports[3]), address(found.ports[4])],
            admin: found.admin,
            app: found.app,
            secrets: found.secrets,
            state: tempfile::tempdir().unwrap(),
        }
    }

    /// Migrated and placed: buckets below 8192 on shard 1.
    pub async fn new(servers: &Servers, name: &str) -> Self {
        let world = Self::empty(servers, name).await;
        migrate_directory(&world.directory, &world.admin).await.unwrap();
        let directory = world.as_admin();
        register_shards(&directory, &world.new_shards()).await.unwrap();
        migrate_shards(&directory).await.unwrap();
        let (routing, lookup) = keys();
        assign_buckets(&directory, &Fingerprints::of(&routing, &lookup)).await.unwrap();
        world
    }

    pub fn new_shards(&self) -> [NewShard; 2] {
        [0, 1].map(|i| NewShard {
            shard_id: shard(i as i16 + 1),
            primary: self.shards[i].clone(),
            replicas: vec![self.replicas[i].clone()],
            weight: 1,
        })
    }

    pub fn as_admin(&self) -> Directory {
        Directory::new(self.directory.clone(), self.admin.clone(), TIMEOUT)
    }

    pub fn config(&self) -> RouterConfig {
        let mut config =
            RouterConfig::new(self.directory.clone(), self.app.clone(), self.state.path().to_owned(), 4);
        // The machine that runs the tests may be busy with other things.
        config.checkout_timeout_ms = 2_000;
        config.connect_timeout_ms = 5_000;
        config.directory_timeout_ms = 5_000;
        config.poll_interval_ms = 200;
        config
    }

    pub async fn router(&self) -> Router {
        Router::start(self.config()).await.unwrap()
    }

    /// The owner's connection to the directory.
    pub async fn on_directory(&self) -> PgConnection {
        PgConnection::connect_with(&plain_options(&self.directory, &self.admin)).await.unwrap()
    }

    /// The owner's connection to a shard.
    pub async fn on_shard(&self, id: usize) -> PgConnection {
        PgConnection::connect_with(&plain_options(&self.shards[id - 1], &self.admin)).await.unwrap()
    }

    /// The application's connection to a shard.
    pub async fn as_app(&self, id: usize) -> PgConnection {
        PgConnection::connect_with(&plain_options(&self.shards[id - 1], &self.app)).await.unwrap()
    }

    pub fn state_dir(&self) -> &Path {
        self.state.path()
    }
}

/// Several statements at once, without parameters.
pub async fn execute(connection: &mut PgConnection, sql: &str) -> Result<(), sqlx::Error> {
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(connection).await.map(|_| ())
}

/// Waits until something holds.
pub async fn eventually(what: &str, holds: impl AsyncFn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !holds().await {
        assert!(Instant::now() < deadline, "never happened: {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
