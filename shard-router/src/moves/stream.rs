//! One direction of logical replication for one move: publication and slot on the giver, subscription on the taker.
//!
//! Everything is named after the move and the two shards, so that whoever comes later finds what is there. Each step
//! looks first and may be repeated.

use super::giver::{Giver, Keeping, keeping, may_ask};
use super::record::Move;
use super::site::Site;
use super::{MoveError, preflight, sql};
use crate::map::ShardId;
use crate::server::Login;
use sha2::{Digest, Sha256};
use sqlx::Row;
use std::time::{Duration, Instant};

const POLL: Duration = Duration::from_micros(700);
const SLOT_POLL: Duration = Duration::from_millis(20);
const SLOT_LIMIT: Duration = Duration::from_secs(20);

/// A stream of one move. The two markers of a name never meet: every marker carries a number of its own.
#[derive(Clone, Debug)]
pub(super) struct Stream {
    name: String,
    move_id: i64,
    lo: i32,
    hi: i32,
}

/// What a stream has done so far.
#[derive(Clone, Copy, Debug)]
pub(super) struct Progress {
    pub tables: i64,
    pub ready: i64,
    pub errors: i64,
}

impl Stream {
    /// Slots belong to a server and not to a database, so the database is part of the name.
    pub fn of(record: &Move, from: ShardId, to: ShardId, dbname: &str) -> Self {
        let digest = Sha256::digest(dbname);
        let database: String = digest[..4].iter().map(|byte| format!("{byte:02x}")).collect();
        Self {
            name: format!("bucket_move_{database}_{}_{from}_{to}", record.id),
            move_id: record.id.0,
            lo: record.range.lo(),
            hi: record.range.hi(),
        }
    }

    /// Of publication, slot and subscription.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Names what is to be sent: the range of every table, and this move's markers. Never TRUNCATE: it knows no filter.
    pub async fn publish(&self, from: &mut Site, tables: &[String]) -> Result<(), MoveError> {
        if from.one(sqlx::query_scalar(sql::HAS_PUBLICATION).bind(&self.name)).await? {
            return Ok(());
        }
        let Self { name, move_id, lo, hi } = self;
        let tables: Vec<String> =
            tables.iter().map(|t| format!("TABLE {t} WHERE (bucket BETWEEN {lo} AND {hi})")).collect();
        from.command(format!(
            "CREATE PUBLICATION {name} FOR {}, TABLE meta.move_marker WHERE (move_id = {move_id})
             WITH (publish = 'insert, update, delete', publish_via_partition_root = true)",
            tables.join(", ")
        ))
        .await
    }

    /// Keeps everything from now on, for a subscription to come. Waits for running transactions.
    pub async fn reserve(&self, from: &mut Site) -> Result<(), MoveError> {
        if from.one(sqlx::query_scalar(sql::HAS_SLOT).bind(&self.name)).await? {
            return Ok(());
        }
        let kept = matches!(keeping(from).await?, Keeping::Kept(_));
        let make = if kept { sql::MAKE_KEPT_SLOT } else { sql::MAKE_SLOT };
        from.one::<String>(sqlx::query_scalar(make).bind(&self.name)).await.map(|_| ())
    }

    /// Lets the reserved slot forget what lies before a position.
    pub async fn forget_before(&self, from: &mut Site, position: &str) -> Result<(), MoveError> {
        let query = sqlx::query(sql::ADVANCE_SLOT).bind(&self.name).bind(position.to_owned());
        from.row(query).await.map(|_| ())
    }

    /// Whether the slot is still there and usable: a failover may have lost it, and too much WAL invalidates it.
    pub async fn is_reserved(&self, from: &mut Site) -> Result<bool, MoveError> {
        from.one(sqlx::query_scalar(sql::HAS_USABLE_SLOT).bind(&self.name)).await
    }

    /// Copies the range and follows it, if the taker is armed for this attempt.
    pub async fn copy(
        &self,
        from: &mut Site,
        to: &mut Site,
        login: &Login,
        attempt: i32,
    ) -> Result<(), MoveError> {
        if self.is_subscribed(to).await? {
            return Ok(());
        }
        // A slot without a subscription is what a mover left that died between the two.
        self.drop_slots(from, None).await?;
        self.reserve(from).await?;
        self.subscribe(from, to, login, (true, attempt)).await
    }

    /// Follows the range from the reserved slot on, without a copy, if the taker is armed for this attempt.
    pub async fn follow(
        &self,
        from: &mut Site,
        to: &mut Site,
        login: &Login,
        attempt: i32,
    ) -> Result<(), MoveError> {
        if self.is_subscribed(to).await? {
            return Ok(());
        }
        self.subscribe(from, to, login, (false, attempt)).await
    }

    async fn is_subscribed(&self, to: &mut Site) -> Result<bool, MoveError> {
        to.one(sqlx::query_scalar(sql::HAS_SUBSCRIPTION).bind(&self.name)).await
    }

    /// In one transaction with a look at the arming: a subscription that is made too late would stream into rows that
    /// somebody owns by then.
    async fn subscribe(
        &self,
        from: &mut Site,
        to: &mut Site,
        login: &Login,
        (copy_data, attempt): (bool, i32),
    ) -> Result<(), MoveError> {
        let origins = preflight::knows_origins(from).await? && preflight::knows_origins(to).await?;
        let origin = if origins { ", origin = none" } else { "" };
        let kept = matches!(keeping(from).await?, Keeping::Kept(_)) && may_ask(to).await?;
        let failover = if kept { ", failover = true" } else { "" };
        let tell = self.tell(&Giver::at(from).await?);
        let name = &self.name;
        let source = literal(&conninfo(from, login));
        // Not 'off' or 'local', tempting as they are for an applier: what it reports as flushed the giver never sends
        // again. A crash of the taker would lose that a table is copied, and a failover the rows themselves.
        let command = format!(
            "CREATE SUBSCRIPTION {name} CONNECTION {source} PUBLICATION {name} WITH (copy_data = {copy_data},
             create_slot = false, slot_name = '{name}', binary = true, synchronous_commit = 'on'{origin}{failover});
             {tell}"
        );
        to.command("BEGIN".to_owned()).await?;
        let done = self.subscribe_armed(to, command, attempt).await;
        let end = if done.is_ok() { "COMMIT" } else { "ROLLBACK" };
        to.command(end.to_owned()).await.and(done)
    }

    async fn subscribe_armed(&self, to: &mut Site, command: String, attempt: i32) -> Result<(), MoveError> {
        let query = sqlx::query(sql::LOCK_ARMED).bind(self.lo).bind(self.hi).bind(self.move_id).bind(attempt);
        let armed = to.rows(query).await?.len();
        if usize::try_from(self.hi - self.lo + 1) != Ok(armed) {
            let place = to.place;
            return Err(MoveError::Superseded(format!(
                "{place} is armed for attempt {attempt} in {armed} buckets"
            )));
        }
        to.command(command).await
    }

    pub async fn progress(&self, to: &mut Site) -> Result<Progress, MoveError> {
        let place = to.place;
        let row = to.row(sqlx::query(sql::SYNCED).bind(&self.name)).await?;
        let row = row.ok_or_else(|| place.said()(sqlx::Error::RowNotFound))?;
        let errors = to.one(sqlx::query_scalar(sql::STREAM_ERRORS).bind(&self.name)).await?;
        let read = || Ok(Progress { tables: row.try_get(0)?, ready: row.try_get(1)?, errors });
        read().map_err(place.said())
    }

    /// Bytes that the taker has yet to confirm; none without a slot.
    pub async fn lag_bytes(&self, from: &mut Site) -> Result<Option<i64>, MoveError> {
        let place = from.place;
        let row = from.row(sqlx::query(sql::STREAM_LAG).bind(&self.name)).await?;
        row.map_or(Ok(None), |row| row.try_get(0).map_err(place.said()))
    }

    /// Writes a marker on one side and waits until it is seen on the other: commits arrive in their order, so that
    /// everything committed before it has then arrived, too. Written only by the owner, or under the fence of this
    /// epoch. Returns how long that took.
    pub async fn marker(
        &self,
        from: &mut Site,
        to: &mut Site,
        limit: Duration,
        fence: Option<i64>,
    ) -> Result<Duration, MoveError> {
        let phase = format!("{}_{:016x}", self.name, rand::random::<u64>());
        let started = Instant::now();
        let write = if fence.is_some() { sql::WRITE_FENCED_MARKER } else { sql::WRITE_MARKER };
        let query = sqlx::query(write).bind(self.move_id).bind(&phase).bind(self.lo).bind(self.hi);
        let query = if let Some(epoch) = fence { query.bind(epoch) } else { query };
        if from.run(query).await? != 1 {
            return Err(MoveError::Superseded(format!("{} has changed its ownership meanwhile", from.place)));
        }
        while !to.one(sqlx::query_scalar(sql::SEE_MARKER).bind(self.move_id).bind(&phase)).await? {
            if started.elapsed() > limit {
                let waited = limit.as_millis();
                return Err(MoveError::GaveUp(format!("no marker reached {} within {waited} ms", to.place)));
            }
            tokio::time::sleep(POLL).await;
        }
        Ok(started.elapsed())
    }

    /// Ends the stream on both sides.
    pub async fn drop(&self, from: &mut Site, to: &mut Site) -> Result<(), MoveError> {
        let name = &self.name;
        let copies: Option<String> =
            to.all(sqlx::query_scalar(sql::COPY_SLOTS).bind(name)).await?.into_iter().next();
        if self.is_subscribed(to).await? {
            // The slot is let go first: dropping must not depend on reaching the other side.
            to.command(format!("ALTER SUBSCRIPTION {name} DISABLE")).await?;
            to.command(format!("ALTER SUBSCRIPTION {name} SET (slot_name = NONE)")).await?;
            to.command(format!("DROP SUBSCRIPTION {name}")).await?;
        }
        self.drop_slots(from, copies).await?;
        from.command(format!("DROP PUBLICATION IF EXISTS {name}")).await
    }

    /// Ends the giver's half alone, so that a dead taker costs it no disk. The taker's half is for later.
    pub async fn let_go(&self, from: &mut Site) -> Result<(), MoveError> {
        self.drop_slots(from, None).await?;
        from.command(format!("DROP PUBLICATION IF EXISTS {}", self.name)).await
    }

    async fn drop_slots(&self, from: &mut Site, copies: Option<String>) -> Result<(), MoveError> {
        let copies = copies.unwrap_or_default();
        let deadline = Instant::now() + SLOT_LIMIT;
        loop {
            let found = from.rows(sqlx::query(sql::SLOTS_OF).bind(&self.name).bind(&copies)).await?;
            if found.is_empty() {
                return Ok(());
            }
            for slot in &found {
                let read = || Ok((slot.try_get(0)?, slot.try_get(1)?));
                let (name, active): (String, Option<i32>) = read().map_err(from.place.said())?;
                if let Some(pid) = active {
                    from.row(sqlx::query(sql::END_BACKEND).bind(pid)).await?;
                }
                // Somebody may have taken it in between: then it is tried again.
                match from.row(sqlx::query(sql::DROP_SLOT).bind(name)).await {
                    Err(error) if matches!(error.sqlstate().as_deref(), Some("55006" | "42704")) => {}
                    other => drop(other?),
                }
            }
            if Instant::now() > deadline {
                return Err(MoveError::GaveUp(format!("a slot of {} stays in use", self.name)));
            }
            tokio::time::sleep(SLOT_POLL).await;
        }
    }
}

/// How the other server reaches this one.
pub(super) fn conninfo(site: &Site, login: &Login) -> String {
    let value = |text: &str| format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"));
    format!(
        "host={} port={} dbname={} user={} password={}",
        value(&site.address.host),
        site.address.port,
        value(&site.address.dbname),
        value(&login.user),
        value(&login.password)
    )
}

/// An SQL literal, whatever the text.
pub(super) fn literal(text: &str) -> String {
    format!("E'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"))
}
