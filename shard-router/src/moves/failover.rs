//! What a failover means for a move: the taker's is never trusted, the giver's where its slot has survived.

use super::giver::Unkept;
use super::ledger::Ledger;
use super::mover::{Mover, Work};
use super::record::{Move, MoveState};
use super::site::{MOVER, Site};
use super::stream::Stream;
use super::window::Sides;
use super::{MoveError, Place, sql};
use crate::map::ShardId;
use std::time::{Duration, Instant};

/// An idle standby looks for slots every 30 s.
const KEPT_LIMIT: Duration = Duration::from_secs(75);
const KEPT_POLL: Duration = Duration::from_millis(500);
/// What is noted of a move whose way back is open, but would not survive a failover.
const UNKEPT: &str = "a failover would close the way back: ";

/// What has become of a stream.
pub(super) enum Stands {
    /// It goes on.
    Well,
    /// It never will.
    Lost(String),
}

impl Stands {
    /// What is copied so far is worth nothing without its stream.
    pub fn or_begin_anew(self) -> Result<(), MoveError> {
        match self {
            Self::Well => Ok(()),
            Self::Lost(why) => Err(MoveError::NotReady(format!("{why}: abort the move, and plan it again"))),
        }
    }

    pub fn or_not_ready(self) -> Result<(), MoveError> {
        match self {
            Self::Well => Ok(()),
            Self::Lost(why) => Err(MoveError::NotReady(why)),
        }
    }
}

impl Mover {
    /// What a stream has delivered to a server, its promoted standby may lack, and nobody sends it again.
    pub(super) async fn same_timeline(&self, work: &mut Work, taker: ShardId) -> Result<Stands, MoveError> {
        let Work { ledger, record, src, dst, .. } = work;
        self.timeline_of(ledger, record, if taker == record.src { src } else { dst }).await
    }

    /// Before each window: the taker is the server that the copy began on, and follows the giver of now.
    pub(super) async fn stream_stands(
        &self,
        work: &mut Work,
        stream: &Stream,
        sides: &mut Sides,
    ) -> Result<(), MoveError> {
        self.timeline_of(&mut work.ledger, &work.record, &mut sides.to).await?.or_not_ready()?;
        let lost = stream.follow_giver(&mut sides.from, &mut sides.to, self.streamer.as_ref()).await?;
        lost.map_or(Stands::Well, Stands::Lost).or_not_ready()
    }

    /// How many replicas the directory lists of two shards.
    pub(super) async fn listed(
        &self,
        ledger: &Ledger,
        (from, to): (ShardId, ShardId),
    ) -> Result<(usize, usize), MoveError> {
        Ok((ledger.shard(from).await?.replicas.len(), ledger.shard(to).await?.replicas.len()))
    }

    async fn timeline_of(
        &self,
        ledger: &mut Ledger,
        record: &Move,
        site: &mut Site,
    ) -> Result<Stands, MoveError> {
        let taker = if site.place == Place::Shard(record.src) { record.src } else { record.dst };
        let now: i32 = site.one(sqlx::query_scalar(sql::TIMELINE)).await?;
        let then = ledger.keep_timeline(record, taker, now).await?;
        if now == then {
            return Ok(Stands::Well);
        }
        let place = site.place;
        Ok(Stands::Lost(format!(
            "{place} has failed over since the stream to it began: its copy cannot be trusted any more"
        )))
    }

    /// The stream to the target goes on, wherever the source is now; else the move has to begin anew.
    pub(super) async fn copy_stands(&self, work: &mut Work, there: &Stream) -> Result<(), MoveError> {
        let login = self.streamer.as_ref();
        let lost = there.follow_giver(&mut work.src, &mut work.dst, login).await?;
        lost.map_or(Stands::Well, Stands::Lost).or_begin_anew()
    }

    /// Waits until a failover of neither giver would cost its stream; it costs a copy only, so that the move goes on
    /// without it in the end.
    pub(super) async fn wait_kept(
        &self,
        work: &mut Work,
        (there, back): (&Stream, &Stream),
    ) -> Result<(), MoveError> {
        let deadline = Instant::now() + KEPT_LIMIT;
        loop {
            // Nobody reads from the reserved slot yet: only we can make it forget what no standby has any more.
            let flushed: String = work.dst.one(sqlx::query_scalar(sql::FLUSHED)).await?;
            back.forget_before(&mut work.dst, &flushed).await?;
            let first = self.unkept(&work.ledger, there, (work.record.src, &mut work.src)).await?;
            let second = self.unkept(&work.ledger, back, (work.record.dst, &mut work.dst)).await?;
            let passing = first.iter().chain(&second).any(|unkept| unkept.passing);
            let Some(Unkept { why, .. }) = first.or(second) else { return Ok(()) };
            if !passing || Instant::now() > deadline {
                tracing::warn!(move.id = work.record.id.0, why, "a failover would cost a stream");
                return Ok(());
            }
            nudge(&mut work.src).await;
            nudge(&mut work.dst).await;
            tokio::time::sleep(KEPT_POLL).await;
        }
    }

    /// The same for the way back alone; what is missing in the end.
    pub(super) async fn wait_way_back_kept(
        &self,
        work: &mut Work,
        back: &Stream,
    ) -> Result<Option<String>, MoveError> {
        let deadline = Instant::now() + KEPT_LIMIT;
        loop {
            let unkept = self.unkept(&work.ledger, back, (work.record.dst, &mut work.dst)).await?;
            if unkept.as_ref().is_none_or(|unkept| !unkept.passing) || Instant::now() > deadline {
                return Ok(unkept.map(|unkept| format!("{UNKEPT}{}", unkept.why)));
            }
            nudge(&mut work.dst).await;
            tokio::time::sleep(KEPT_POLL).await;
        }
    }

    async fn unkept(
        &self,
        ledger: &Ledger,
        stream: &Stream,
        (giver, site): (ShardId, &mut Site),
    ) -> Result<Option<Unkept>, MoveError> {
        let replicas = ledger.shard(giver).await?.replicas;
        stream.unkept(site, (&replicas, &self.directory.login)).await
    }

    /// The way back goes on, wherever the target is now; else it is closed, and that is written down.
    pub(super) async fn way_back_stands(&self, work: &mut Work) -> Result<(), MoveError> {
        let Work { ledger, record, src, dst, .. } = work;
        match self.look_back(ledger, record, (src, dst)).await? {
            Stands::Well => Ok(()),
            Stands::Lost(why) => {
                Err(MoveError::WrongState(format!("move {}: the way back is closed: {why}", record.id)))
            }
        }
    }

    async fn look_back(
        &self,
        ledger: &mut Ledger,
        record: &Move,
        (src, dst): (&mut Site, &mut Site),
    ) -> Result<Stands, MoveError> {
        let back = Stream::of(record, record.dst, record.src, &src.address.dbname);
        let lost = match self.timeline_of(ledger, record, src).await? {
            Stands::Lost(why) => Some(why),
            Stands::Well => match back.follow_giver(dst, src, self.streamer.as_ref()).await? {
                None if !back.is_reserved(dst).await? => Some(format!("{} has lost its slot", dst.place)),
                lost => lost,
            },
        };
        let Some(why) = lost else { return Ok(Stands::Well) };
        let why = format!("no way back: {why}");
        tracing::warn!(move.id = record.id.0, why, "the way back of a move is lost");
        ledger.set_reversible(record, false).await?;
        ledger.note(record, &why).await?;
        Ok(Stands::Lost(why))
    }

    /// Between two runs of a mover: whether the stream of an open move still has its giver.
    pub(super) async fn look_after(
        &self,
        ledger: &mut Ledger,
        record: &Move,
        giver: &mut Site,
    ) -> Result<(), MoveError> {
        let back = record.state == MoveState::Soaking;
        if back && !record.reversible {
            return Ok(());
        }
        let taker = if back { record.src } else { record.dst };
        let from = if back { record.dst } else { record.src };
        let stream = Stream::of(record, from, taker, &giver.address.dbname);
        let unkept = record.note.as_deref().is_some_and(|note| note.starts_with(UNKEPT));
        if back && unkept && self.unkept(ledger, &stream, (from, giver)).await?.is_none() {
            ledger.note(record, "").await?;
        }
        let mut taker = match self.site(ledger, taker, MOVER).await {
            Ok(site) => site,
            // It will ask for its stream when it is back.
            Err(error) => {
                tracing::debug!(move.id = record.id.0, %error, "a stream has nobody to follow it");
                return Ok(());
            }
        };
        if back {
            return self.look_back(ledger, record, (&mut taker, giver)).await.map(|_| ());
        }
        if let Some(why) = stream.follow_giver(giver, &mut taker, self.streamer.as_ref()).await? {
            ledger.note(record, &format!("{why}: abort the move, and plan it again")).await?;
        }
        Ok(())
    }
}

/// Where we may not, it takes a few seconds longer.
async fn nudge(site: &mut Site) {
    if let Err(error) = site.row(sqlx::query(sql::LOG_SNAPSHOT)).await {
        tracing::debug!(%error, "no snapshot logged");
    }
}
