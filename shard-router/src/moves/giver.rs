//! The giver of a stream may fail over. Up to PostgreSQL 16 the slot is lost with it. From 17 on standbys keep a copy of
//! the slot, and the stream goes on from there, if nothing was sent that the promoted standby lacks.
//!
//! Two things see to that: the giver sends nothing past the standbys in its `synchronized_standby_slots`; and what the
//! taker has received is compared with the place where the new primary's timeline branched off, before it is followed.

use super::site::{READER, Site};
use super::stream::{Stream, conninfo, literal};
use super::streamer::no_login;
use super::{MoveError, preflight, sql};
use crate::server::{Address, Login};
use sqlx::Row;
use std::time::{Duration, Instant};

/// The first server whose slots standbys can keep.
const KEEPING_SERVER: i32 = 170_000;
/// A standby that does not answer by then keeps nothing, as far as we know.
const STANDBY_LIMIT: Duration = Duration::from_secs(5);
const WORKER_LIMIT: Duration = Duration::from_secs(20);
const WORKER_POLL: Duration = Duration::from_millis(20);

/// Whether a server's slots survive its failover.
#[derive(Debug)]
pub(super) enum Keeping {
    /// It is too old, or has no standby.
    Never,
    /// It has standbys that it sends past; their names.
    Unsafe(Vec<String>),
    /// Standbys with these slots keep them.
    Kept(Vec<String>),
}

/// Why a failover of a giver would cost a stream.
#[derive(Debug)]
pub(super) struct Unkept {
    pub why: String,
    /// Whether waiting may help.
    pub passing: bool,
}

/// Whether this server's slots survive its failover.
pub(super) async fn keeping(site: &mut Site) -> Result<Keeping, MoveError> {
    if preflight::version(site).await? < KEEPING_SERVER {
        return Ok(Keeping::Never);
    }
    let place = site.place;
    let row = site.row(sqlx::query(sql::STANDBY_SLOTS)).await?;
    let row = row.ok_or_else(|| place.said()(sqlx::Error::RowNotFound))?;
    let read =
        || -> Result<(Vec<String>, Vec<String>), sqlx::Error> { Ok((row.try_get(0)?, row.try_get(1)?)) };
    let (named, others) = read().map_err(place.said())?;
    Ok(match (named.is_empty(), others.is_empty()) {
        (_, false) => Keeping::Unsafe(others),
        (true, true) => Keeping::Never,
        (false, true) => Keeping::Kept(named),
    })
}

/// Whether a subscription on this server may ask for a slot that is kept.
pub(super) async fn may_ask(site: &mut Site) -> Result<bool, MoveError> {
    Ok(preflight::version(site).await? >= KEEPING_SERVER)
}

impl Stream {
    /// Why a failover of the giver would cost this stream; `None` if it would not, or if nothing can be done about it.
    pub async fn unkept(
        &self,
        from: &mut Site,
        (replicas, login): (&[Address], &Login),
    ) -> Result<Option<Unkept>, MoveError> {
        let mut wanted = match keeping(from).await? {
            Keeping::Never => return Ok(None),
            Keeping::Unsafe(names) => {
                let (place, names) = (from.place, names.join(", "));
                let why = format!("{place}: synchronized_standby_slots names no slot of {names}");
                return Ok(Some(Unkept { why, passing: false }));
            }
            Keeping::Kept(slots) => slots,
        };
        for replica in replicas {
            let Ok(mut standby) = Site::open(from.place, replica, login, READER, STANDBY_LIMIT).await else {
                continue;
            };
            let Ok(Some(row)) = standby.row(sqlx::query(sql::IS_SLOT_KEPT).bind(self.name())).await else {
                continue;
            };
            if let (Ok(slot), Ok(true)) = (row.try_get::<String, _>(0), row.try_get::<bool, _>(1)) {
                wanted.retain(|name| *name != slot);
            }
        }
        if wanted.is_empty() {
            return Ok(None);
        }
        let (place, wanted) = (from.place, wanted.join(", "));
        let why = format!("{place}: the standby of {wanted} has no copy of the stream's slot");
        Ok(Some(Unkept { why, passing: true }))
    }

    /// Lets the taker follow its giver to where that is now; says why it cannot. Nothing happens while the giver is
    /// where it was, and without a subscription.
    pub async fn follow_giver(
        &self,
        from: &mut Site,
        to: &mut Site,
        login: Option<&Login>,
    ) -> Result<Option<String>, MoveError> {
        let Some(row) = to.row(sqlx::query(sql::GIVER_OF).bind(self.name())).await? else { return Ok(None) };
        let read =
            || -> Result<(Option<String>, bool), sqlx::Error> { Ok((row.try_get(0)?, row.try_get(1)?)) };
        let (told, enabled) = read().map_err(to.place.said())?;
        if !self.is_reserved(from).await? {
            return Ok(Some(format!("{} has lost the stream's slot, in a failover perhaps", from.place)));
        }
        let now = Giver::at(from).await?;
        let then = told.as_deref().and_then(Giver::parse);
        if then.as_ref() == Some(&now) {
            // Somebody looked while another server was called the giver, and died.
            if !enabled {
                to.command(format!("ALTER SUBSCRIPTION {} ENABLE", self.name())).await?;
            }
            return Ok(None);
        }
        let login = login.ok_or_else(no_login)?;
        if let Some(then) = then.filter(|then| then.timeline != now.timeline)
            && let Some(why) = self.against_following(from, to, (&then, &now)).await?
        {
            return Ok(Some(why));
        }
        let name = self.name();
        let source = literal(&conninfo(from, login));
        to.command(format!(
            "BEGIN; ALTER SUBSCRIPTION {name} CONNECTION {source}; ALTER SUBSCRIPTION {name} ENABLE; {}; COMMIT",
            self.tell(&now)
        ))
        .await?;
        tracing::info!(stream = name, giver = %now.address, timeline = now.timeline, "stream follows its giver");
        Ok(None)
    }

    /// What keeps the taker from going on with a giver that was promoted. Its workers are ended first, so that nothing
    /// changes meanwhile; they stay away until it follows.
    async fn against_following(
        &self,
        from: &mut Site,
        to: &mut Site,
        (then, now): (&Giver, &Giver),
    ) -> Result<Option<String>, MoveError> {
        let (giver, taker) = (from.place, to.place);
        if preflight::version(from).await? < KEEPING_SERVER {
            return Ok(Some(format!("{giver} has failed over, and its slot is an older one")));
        }
        self.end_workers(to).await?;
        let copied = sqlx::query_scalar(sql::COPIED_FROM).bind(self.name());
        let copied: Vec<String> = to.all(copied).await?;
        let missing: Vec<String> = from.all(sqlx::query_scalar(sql::MISSING_SLOTS).bind(copied)).await?;
        if !missing.is_empty() {
            return Ok(Some(format!(
                "{giver} has failed over, and lost {} slots of table copies",
                missing.len()
            )));
        }
        // An address that moves with the primary has led the workers there already: then it is the giver's
        // configuration alone that kept the taker from running ahead.
        if then.address == now.address {
            let kept = matches!(keeping(from).await?, Keeping::Kept(_));
            let why = format!("{giver} was promoted behind its address, and nothing kept its takers back");
            return Ok((!kept).then_some(why));
        }
        let query = sqlx::query_scalar(sql::FORK).bind(now.timeline).bind(then.timeline);
        let Some(fork) = from.one::<Option<String>>(query).await? else {
            return Ok(Some(format!("{giver} has failed over, and its log does not say where")));
        };
        let query = sqlx::query_scalar(sql::HAS_NOTHING_BEYOND).bind(self.name()).bind(fork);
        let behind: bool = to.one(query).await?;
        Ok((!behind).then(|| format!("{taker} has received what the promoted standby of {giver} lacks")))
    }

    async fn end_workers(&self, to: &mut Site) -> Result<(), MoveError> {
        to.command(format!("ALTER SUBSCRIPTION {} DISABLE", self.name())).await?;
        let deadline = Instant::now() + WORKER_LIMIT;
        loop {
            let workers: Vec<i32> = to.all(sqlx::query_scalar(sql::WORKERS).bind(self.name())).await?;
            if workers.is_empty() {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(MoveError::GaveUp(format!("a worker of {} stays on {}", self.name(), to.place)));
            }
            for pid in workers {
                to.row(sqlx::query(sql::END_BACKEND).bind(pid)).await?;
            }
            tokio::time::sleep(WORKER_POLL).await;
        }
    }

    /// Notes beside the subscription whom it was made to follow.
    pub fn tell(&self, giver: &Giver) -> String {
        format!("COMMENT ON SUBSCRIPTION {} IS {}", self.name(), literal(&giver.to_string()))
    }
}

/// Whom a subscription follows. Kept as its comment: it fails over with the taker, and ends with the subscription.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Giver {
    address: String,
    timeline: i32,
}

impl Giver {
    /// The server behind a connection.
    pub async fn at(site: &mut Site) -> Result<Self, MoveError> {
        let timeline = site.one(sqlx::query_scalar(sql::TIMELINE)).await?;
        Ok(Self { address: site.address.to_string(), timeline })
    }

    fn parse(text: &str) -> Option<Self> {
        let (timeline, address) = text.strip_prefix("giver on timeline ")?.split_once(" at ")?;
        Some(Self { address: address.to_owned(), timeline: timeline.parse().ok()? })
    }
}

impl std::fmt::Display for Giver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "giver on timeline {} at {}", self.timeline, self.address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_noted_is_read_back() {
        let giver = Giver { address: "db at home:5601".to_owned(), timeline: 3 };
        assert_eq!(Giver::parse(&giver.to_string()), Some(giver));
        assert_eq!(Giver::parse("something else"), None);
    }
}
