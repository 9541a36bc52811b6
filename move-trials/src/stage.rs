//! The servers of a trial, and the tables that its load writes to.

use crate::Problem;
use devcluster::{Cluster, ClusterSpec};
use shard_router::directory::{Directory, Fingerprints, NewShard, assign_buckets, register_shards};
use shard_router::migrate::{migrate_directory, migrate_shards};
use shard_router::moves::{Mover, MoverConfig, Watch};
use shard_router::shard_key::{LookupKey, RoutingKey};
use shard_router::{Address, Login, Router, RouterConfig, ShardId, plain_options};
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection};
use std::sync::Arc;
use std::time::Duration;

/// Shards of a trial.
pub const SHARDS: u16 = 2;
const TIMEOUT: Duration = Duration::from_secs(10);
const NEVER_MS: u64 = 24 * 3600 * 1000;

/// Two tables of our own beside everybody's: moves take whatever is protected.
const TABLES: &str = "
    CREATE SCHEMA IF NOT EXISTS trial;
    CREATE TABLE IF NOT EXISTS trial.counter (bucket int NOT NULL, id int NOT NULL, n bigint NOT NULL,
        filler text NOT NULL DEFAULT repeat('x', 200), PRIMARY KEY (bucket, id)) WITH (fillfactor = 70);
    CREATE TABLE IF NOT EXISTS trial.op (bucket int NOT NULL, seq bigint NOT NULL, PRIMARY KEY (bucket, seq));
    DO $$ BEGIN
        IF NOT EXISTS (SELECT FROM pg_trigger WHERE tgrelid = 'trial.op'::regclass AND tgname = 'owner_check') THEN
            PERFORM meta.protect('trial.counter'), meta.protect('trial.op');
        END IF;
    END $$;
    GRANT USAGE ON SCHEMA trial TO tessera_app;
    GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA trial TO tessera_app;";

/// A directory and two shards, placed half and half.
pub struct Stage {
    /// The processes, to be hurt by name.
    pub cluster: Cluster,
    directory: Address,
    admin: Login,
    app: Login,
    stream: Login,
    state: tempfile::TempDir,
}

/// The shard of a number from 1 on.
///
/// # Panics
/// For 0.
#[must_use]
pub fn shard(number: u16) -> ShardId {
    i16::try_from(number).ok().and_then(ShardId::new).expect("a small number from 1 on")
}

impl Stage {
    /// Starts servers and fills them with `counters` rows a bucket in the buckets of `hot`.
    ///
    /// # Errors
    /// Something does not start.
    pub async fn start(spec: ClusterSpec, hot: std::ops::Range<i32>, counters: i32) -> Result<Self, Problem> {
        let cluster = spec.nodes(0).redis(false).shards(SHARDS).start().await?;
        let secrets = cluster.home().secrets();
        let password = |file: &str| -> Result<String, Problem> {
            Ok(std::fs::read_to_string(secrets.join(file))?.trim().to_owned())
        };
        let admin = Login { user: "postgres".to_owned(), password: password("postgres-admin.password")? };
        let app = Login { user: "tessera_app".to_owned(), password: password("postgres.password")? };
        let stream =
            Login { user: "tessera_stream".to_owned(), password: password("postgres-stream.password")? };
        let directory = Address::new("127.0.0.1", cluster.port("directory")?, "tessera");
        let stage = Self { cluster, directory, admin, app, stream, state: tempfile::tempdir()? };
        stage.place().await?;
        stage.fill(hot, counters).await?;
        Ok(stage)
    }

    async fn place(&self) -> Result<(), Problem> {
        migrate_directory(&self.directory, &self.admin).await?;
        let directory = self.directory();
        let shards = (1..=SHARDS).map(|number| self.new_shard(number)).collect::<Result<Vec<_>, _>>()?;
        register_shards(&directory, &shards).await?;
        migrate_shards(&directory).await?;
        let keys = (RoutingKey::new([1; 32]), LookupKey::new([2; 32]));
        assign_buckets(&directory, &Fingerprints::of(&keys.0, &keys.1)).await?;
        Ok(())
    }

    fn new_shard(&self, number: u16) -> Result<NewShard, Problem> {
        let state = self.cluster.state()?;
        let at = |port| Address::new("127.0.0.1", port, "tessera");
        let primary = &state.primary(number)?.part;
        Ok(NewShard {
            shard_id: shard(number),
            primary: at(primary.port),
            replicas: state.siblings(primary).iter().map(|part| at(part.port)).collect(),
            weight: 1,
        })
    }

    async fn fill(&self, hot: std::ops::Range<i32>, counters: i32) -> Result<(), Problem> {
        for number in 1..=SHARDS {
            let mut connection = self.on_shard(number).await?;
            sqlx::raw_sql(TABLES).execute(&mut connection).await?;
            let fill = "INSERT INTO trial.counter (bucket, id, n)
                SELECT b, i, 0 FROM generate_series($1::int, $2::int) b, generate_series(1, $3::int) i
                JOIN meta.bucket_owner o ON true WHERE o.bucket = b AND o.state = 'A'";
            sqlx::query(fill)
                .bind(hot.start)
                .bind(hot.end - 1)
                .bind(counters)
                .execute(&mut connection)
                .await?;
        }
        Ok(())
    }

    /// Tells the directory of another primary, as an operator would after a promotion.
    ///
    /// # Errors
    /// The directory cannot be written.
    pub async fn follow_primaries(&self) -> Result<(), Problem> {
        let shards = (1..=SHARDS).map(|number| self.new_shard(number)).collect::<Result<Vec<_>, _>>()?;
        Ok(register_shards(&self.directory(), &shards).await?)
    }

    /// What an operator does about a primary that is dead for good: the replica that is furthest takes over, the directory
    /// is told, and the old one comes back as a replica.
    ///
    /// # Errors
    /// No replica may be promoted, or something does not start.
    pub async fn replace(&self, dead: &str) -> Result<(), Problem> {
        let state = self.cluster.state()?;
        let replica = state.siblings(&state.part(dead)?.part).into_iter().next();
        self.cluster.promote(&replica.ok_or("it has no replica")?.name).await?;
        self.follow_primaries().await?;
        Ok(self.cluster.start(dead).await?)
    }

    /// The major version of its servers.
    ///
    /// # Errors
    /// They cannot be asked.
    pub async fn version(&self) -> Result<i32, Problem> {
        let asked = sqlx::query_scalar("SELECT current_setting('server_version_num')::int / 10000");
        Ok(asked.fetch_one(&mut self.on_directory().await?).await?)
    }

    /// The directory, as its owner.
    #[must_use]
    pub fn directory(&self) -> Directory {
        Directory::new(self.directory.clone(), self.admin.clone(), TIMEOUT)
    }

    /// A mover whose limits suit a busy machine.
    #[must_use]
    pub fn mover(&self, watch: Arc<dyn Watch>) -> Mover {
        let config = MoverConfig {
            caught_up: Duration::from_millis(250),
            catch_up: Duration::from_secs(60),
            copy: Duration::from_secs(120),
            ..MoverConfig::default()
        };
        Mover::new(self.directory(), config, watch).streaming_as(self.stream.clone())
    }

    /// A node's router. With `stale` it never hears of the directory again: hints are all that it gets.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub async fn router(&self, name: &str, stale: bool) -> Result<Router, Problem> {
        let folder = self.state.path().join(name);
        std::fs::create_dir_all(&folder)?;
        let mut config = RouterConfig::new(self.directory.clone(), self.app.clone(), folder, 8);
        config.directory_timeout_ms = 5_000;
        config.connect_timeout_ms = 5_000;
        config.checkout_timeout_ms = 2_000;
        if stale {
            config.poll_interval_ms = NEVER_MS;
            config.full_read_interval_ms = NEVER_MS;
        }
        Ok(Router::start(config).await?)
    }

    /// The owner's connection to the present primary of a shard.
    ///
    /// # Errors
    /// It cannot be reached.
    pub async fn on_shard(&self, number: u16) -> Result<PgConnection, Problem> {
        let port = self.cluster.state()?.primary(number)?.part.port;
        let address = Address::new("127.0.0.1", port, "tessera");
        Ok(PgConnection::connect_with(&plain_options(&address, &self.admin)).await?)
    }

    /// The owner's connection to the directory.
    ///
    /// # Errors
    /// It cannot be reached.
    pub async fn on_directory(&self) -> Result<PgConnection, Problem> {
        Ok(PgConnection::connect_with(&plain_options(&self.directory, &self.admin)).await?)
    }

    /// Runs statements on a shard as its owner; with `unchecked`, past the ownership trigger. For planting faults.
    ///
    /// # Errors
    /// The shard refuses.
    pub async fn sabotage(&self, number: u16, sql: &str, unchecked: bool) -> Result<(), Problem> {
        let mut connection = self.on_shard(number).await?;
        if unchecked {
            sqlx::raw_sql("SET session_replication_role = replica").execute(&mut connection).await?;
        }
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut connection).await?;
        connection.close().await?;
        Ok(())
    }
}
