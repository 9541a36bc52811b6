//! Questions of operators: where one bucket is, and how each shard is doing.

use super::client::{Directory, placements};
use super::section::ShardRow;
use super::sql;
use crate::map::{Placement, ShardId};
use crate::migrate::{Schema, shard_history, version_of};
use crate::server::{connect, plain_options, within};
use serde::Serialize;
use shard_key::Bucket;
use std::collections::BTreeMap;

/// What one shard's primary said.
#[derive(Clone, Debug, Serialize)]
pub struct ShardReport {
    /// How many buckets are in each state (`A`, `F`, `I`, `M`).
    pub buckets: BTreeMap<String, i64>,
    /// The highest migration it has applied.
    pub schema_version: i64,
    /// Whether this binary can work with it.
    pub schema_matches: bool,
}

impl Directory {
    /// The version of each section, by name.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub async fn versions(&self) -> Result<BTreeMap<String, i64>, sqlx::Error> {
        let mut connection = self.connect().await?;
        let rows = sqlx::query_as(sql::SECTION_VERSIONS).fetch_all(&mut connection);
        Ok(within(self.timeout, rows).await?.into_iter().collect())
    }

    /// Where the directory places a bucket; `None` before the bootstrap.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub async fn placement(&self, bucket: Bucket) -> Result<Option<Placement>, sqlx::Error> {
        let mut connection = self.connect().await?;
        let row = sqlx::query_as(sql::PLACEMENT).bind(i32::from(bucket)).fetch_optional(&mut connection);
        let row: Option<(i16, i64)> = within(self.timeout, row).await?;
        Ok(row.and_then(|(shard, epoch)| Some(Placement { shard: ShardId::new(shard)?, epoch })))
    }

    /// The owner of every bucket, in order.
    ///
    /// # Errors
    /// The directory cannot be read, or lacks a bucket.
    pub async fn placements(&self) -> Result<Vec<Placement>, sqlx::Error> {
        let mut connection = self.connect().await?;
        let rows = within(self.timeout, sqlx::query_as(sql::BUCKETS).fetch_all(&mut connection)).await?;
        placements(&rows).map_err(|reason| sqlx::Error::Decode(reason.into()))
    }

    /// Marks a shard as one that is to be emptied: it has no weight any more. Needs the owner's login.
    ///
    /// # Errors
    /// The directory cannot be written.
    pub async fn drain(&self, shard: ShardId) -> Result<(), sqlx::Error> {
        let mut connection = self.connect().await?;
        let query = sqlx::query(sql::DRAIN_SHARD).bind(shard.get());
        within(self.timeout, query.execute(&mut connection)).await.map(|_| ())
    }

    /// Asks a shard's primary how it is doing.
    ///
    /// # Errors
    /// It cannot be read.
    pub async fn inspect(&self, shard: &ShardRow) -> Result<ShardReport, sqlx::Error> {
        let mut connection = connect(&plain_options(&shard.primary, &self.login), self.timeout).await?;
        let questions = async {
            let buckets: Vec<(String, i64)> =
                sqlx::query_as(sql::OWNER_COUNTS).fetch_all(&mut connection).await?;
            Ok((buckets, shard_history(&mut connection).await?))
        };
        let (buckets, applied) = within(self.timeout, questions).await?;
        Ok(ShardReport {
            buckets: buckets.into_iter().collect(),
            schema_version: version_of(&applied),
            schema_matches: Schema::of_shards().serves(&applied).is_ok(),
        })
    }
}
