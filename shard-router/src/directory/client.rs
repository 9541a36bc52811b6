//! Reading the directory: a tiny query each second, a changed section whole, in one snapshot.

use super::section::{BadSection, KeyRow, Section, ShardRow, Topology, check_keys};
use super::sql;
use crate::map::{Placement, ShardId};
use crate::server::{Address, Login, connect, plain_options, within};
use serde::Deserialize;
use shard_key::Bucket;
use sqlx::postgres::{PgConnection, PgRow};
use sqlx::{Connection, Row};
use std::collections::BTreeMap;
use std::time::Duration;

/// The directory database, and how we log in there.
#[derive(Clone, Debug)]
pub struct Directory {
    address: Address,
    pub(crate) login: Login,
    pub(super) timeout: Duration,
}

/// A section as the directory has it now.
#[derive(Debug)]
pub(crate) struct Offer<T> {
    pub(crate) version: i64,
    /// `None`: not fetched, because the version is known.
    pub(crate) content: Option<Result<T, BadSection>>,
}

/// The answer of one poll.
#[derive(Debug)]
pub(crate) struct Polled {
    pub(crate) topology: Offer<Topology>,
    pub(crate) keys: Offer<Vec<KeyRow>>,
}

/// Versions that need not be fetched again.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Known {
    pub(crate) topology: i64,
    pub(crate) keys: i64,
}

impl Directory {
    /// Names the directory; connects to nothing yet. `timeout` bounds every operation on it.
    #[must_use]
    pub fn new(address: Address, login: Login, timeout: Duration) -> Self {
        Self { address, login, timeout }
    }

    pub(crate) fn address(&self) -> &Address {
        &self.address
    }

    /// A connection of its own: the directory is off the request path and needs no pool.
    ///
    /// # Errors
    /// The directory cannot be reached.
    pub async fn connect(&self) -> Result<PgConnection, sqlx::Error> {
        connect(&plain_options(&self.address, &self.login), self.timeout).await
    }

    /// The fingerprints of the permanent keys, by name.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub async fn fingerprints(&self) -> Result<BTreeMap<String, String>, sqlx::Error> {
        let mut connection = self.connect().await?;
        within(self.timeout, read_fingerprints(&mut connection, sql::FINGERPRINTS)).await
    }

    /// The rows of `directory.shard`, by id.
    ///
    /// # Errors
    /// The directory cannot be read, or a row makes no sense.
    pub async fn shards(&self) -> Result<Vec<ShardRow>, sqlx::Error> {
        let mut connection = self.connect().await?;
        let rows = within(self.timeout, sqlx::query(sql::SHARDS).fetch_all(&mut connection)).await?;
        rows.iter()
            .map(shard_row)
            .collect::<Result<_, _>>()
            .map_err(|reason| sqlx::Error::Decode(format!("directory.shard: {reason}").into()))
    }

    /// One poll over `connection`: versions, and the sections that are not `known`.
    pub(crate) async fn poll(
        &self,
        connection: &mut PgConnection,
        known: Known,
    ) -> Result<Polled, sqlx::Error> {
        within(self.timeout, poll(connection, known)).await
    }
}

async fn poll(connection: &mut PgConnection, known: Known) -> Result<Polled, sqlx::Error> {
    let mut tx = connection.begin_with(sql::READ_SNAPSHOT).await?;
    let versions: BTreeMap<String, i64> =
        sqlx::query_as(sql::SECTION_VERSIONS).fetch_all(&mut *tx).await?.into_iter().collect();
    let version_of = |section: Section| versions.get(section.name()).copied().unwrap_or(0);
    let (topology, keys) = (version_of(Section::Topology), version_of(Section::Keys));
    let topology = Offer {
        version: topology,
        content: if topology > known.topology { Some(read_topology(&mut tx).await?) } else { None },
    };
    let keys = Offer {
        version: keys,
        content: if keys > known.keys { Some(read_keys(&mut tx).await?) } else { None },
    };
    tx.rollback().await?;
    Ok(Polled { topology, keys })
}

/// The outer error is the database's, the inner one is a row's.
async fn read_topology(tx: &mut PgConnection) -> Result<Result<Topology, BadSection>, sqlx::Error> {
    let shards = sqlx::query(sql::SHARDS).fetch_all(&mut *tx).await?;
    let buckets = sqlx::query_as(sql::BUCKETS).fetch_all(&mut *tx).await?;
    let fingerprints = read_fingerprints(tx, sql::FINGERPRINTS).await?;
    Ok(parse_topology(&shards, &buckets, fingerprints))
}

fn parse_topology(
    shards: &[PgRow],
    buckets: &[(i32, i16, i64)],
    fingerprints: BTreeMap<String, String>,
) -> Result<Topology, BadSection> {
    let bad = |reason| BadSection { section: Section::Topology, reason };
    let shards = shards.iter().map(shard_row).collect::<Result<Vec<_>, _>>().map_err(bad)?;
    let topology = Topology { shards, buckets: placements(buckets).map_err(bad)?, fingerprints };
    topology.check()?;
    Ok(topology)
}

/// The placements in the order of their buckets; a missing bucket is an error, since no index may shift.
pub(super) fn placements(rows: &[(i32, i16, i64)]) -> Result<Vec<Placement>, String> {
    let mut placements = Vec::with_capacity(Bucket::COUNT);
    for (bucket, shard_id, epoch) in rows {
        let expected = placements.len();
        if usize::try_from(*bucket) != Ok(expected) {
            return Err(format!("directory.bucket_map lacks bucket {expected}"));
        }
        placements.push(Placement { shard: ShardId::try_from(*shard_id)?, epoch: *epoch });
    }
    Ok(placements)
}

#[derive(Deserialize)]
struct ReplicaJson {
    host: String,
    port: u16,
}

fn shard_row(row: &PgRow) -> Result<ShardRow, String> {
    let text = |error: sqlx::Error| error.to_string();
    let shard_id = ShardId::try_from(row.try_get::<i16, _>("shard_id").map_err(text)?)?;
    let in_row = |reason: String| format!("shard {shard_id}: {reason}");
    let port: i32 = row.try_get("port").map_err(text)?;
    let port = u16::try_from(port).map_err(|_| in_row(format!("port {port}")))?;
    let dbname: String = row.try_get("dbname").map_err(text)?;
    let weight: i32 = row.try_get("weight").map_err(text)?;
    let sqlx::types::Json(replicas): sqlx::types::Json<serde_json::Value> =
        row.try_get("replicas").map_err(text)?;
    let replicas: Vec<ReplicaJson> =
        serde_json::from_value(replicas).map_err(|error| in_row(format!("replicas: {error}")))?;
    Ok(ShardRow {
        shard_id,
        primary: Address::new(row.try_get::<String, _>("host").map_err(text)?, port, &dbname),
        replicas: replicas.into_iter().map(|r| Address::new(r.host, r.port, &dbname)).collect(),
        weight: u32::try_from(weight).map_err(|_| in_row(format!("weight {weight}")))?,
    })
}

async fn read_keys(connection: &mut PgConnection) -> Result<Result<Vec<KeyRow>, BadSection>, sqlx::Error> {
    let rows = sqlx::query(sql::KEYS).fetch_all(connection).await?;
    let keys = rows.iter().map(key_row).collect::<Result<Vec<_>, _>>();
    let keys = keys.map_err(|error| BadSection { section: Section::Keys, reason: error.to_string() });
    Ok(keys.and_then(|keys| check_keys(&keys).map(|()| keys)))
}

pub(super) fn key_row(row: &PgRow) -> Result<KeyRow, sqlx::Error> {
    Ok(KeyRow {
        kid: row.try_get("kid")?,
        alg: row.try_get("alg")?,
        public: row.try_get("public")?,
        sealed_private: row.try_get("sealed_private")?,
        created_at: row.try_get("created_at")?,
        published_at: row.try_get("published_at")?,
        signs_from: row.try_get("signs_from")?,
        signs_until: row.try_get("signs_until")?,
        removed_at: row.try_get("removed_at")?,
        distrusted_at: row.try_get("distrusted_at")?,
    })
}

/// From either kind of database: `statement` is one of the two fingerprint queries.
pub(crate) async fn read_fingerprints(
    connection: &mut PgConnection,
    statement: &'static str,
) -> Result<BTreeMap<String, String>, sqlx::Error> {
    Ok(sqlx::query_as(statement).fetch_all(connection).await?.into_iter().collect())
}
