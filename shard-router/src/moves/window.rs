//! The window: from the fence to the decision. The only part of a move that users could notice.
//!
//! The order is the protocol. The fence commits on every standby that could be promoted; then the transactions that
//! passed the gate before it end; only then the marker is written; only when it has arrived the directory decides.

use super::ledger::{Decision, Ledger};
use super::mover::MoverConfig;
use super::record::{Direction, Move};
use super::site::{READER, Site};
use super::standbys::{all_have, candidates};
use super::stream::Stream;
use super::verify::Pinned;
use super::{MoveError, Step, Watch, clean, sql};
use sqlx::Row;
use std::time::{Duration, Instant};

const POLL: Duration = Duration::from_micros(500);

/// The two shards in the direction of a window.
pub(super) struct Sides {
    pub from: Site,
    pub to: Site,
}

/// What a passed window leaves behind.
pub(super) struct Passed {
    pub record: Move,
    pub pinned: Pinned,
    /// When the window was opened.
    pub opened: Instant,
}

/// Everything that a window needs; made before it opens, so that nothing is set up inside.
pub(super) struct Window<'a> {
    pub config: &'a MoverConfig,
    pub watch: &'a dyn Watch,
    pub ledger: &'a mut Ledger,
    pub sides: &'a mut Sides,
    pub way: Direction,
    pub stream: Stream,
    /// Replicas that the directory lists of either side.
    pub listed: (usize, usize),
}

impl Window<'_> {
    /// Fences, decides, or undoes what it began. After a decision nobody may go back.
    pub async fn pass(mut self, before: &Move, mut pinned: Pinned) -> Result<Passed, MoveError> {
        clean::arm(&mut self.sides.to, before.range, before.id.0, before.attempt + 1).await?;
        let giving = candidates(&mut self.sides.from, self.listed.0).await?;
        let taking = candidates(&mut self.sides.to, self.listed.1).await?;
        let opened = Instant::now();
        let record = self.ledger.open_window(before, self.way, self.config.window).await?;
        let passed = match self.watch.reached(&record, Step::FenceDecided) {
            Ok(()) => self.until_decided(&record, (&giving, &taking), &mut pinned).await,
            Err(_) => return Err(MoveError::Stopped(Step::FenceDecided)),
        };
        match passed {
            Ok(reverse_from) => {
                let reverse_from = Some(reverse_from);
                let record = Move {
                    state: self.way.decided,
                    fence_deadline: None,
                    reverse_from,
                    reversible: false,
                    verified: None,
                    note: None,
                    ..record
                };
                self.reached(&record, Step::Decided)?;
                Ok(Passed { record, pinned, opened })
            }
            Err(stopped @ MoveError::Stopped(_)) => Err(stopped),
            Err(why) => {
                undo(self.ledger, &mut self.sides.from, &record, self.way, &why.to_string()).await?;
                Err(why)
            }
        }
    }

    async fn until_decided(
        &mut self,
        record: &Move,
        (giving, taking): (&[String], &[String]),
        pinned: &mut Pinned,
    ) -> Result<String, MoveError> {
        let deadline = Instant::now() + self.config.window;
        self.sides.from.bound(self.config.window);
        self.sides.to.bound(self.config.window);
        self.fence(record).await?;
        all_have(&mut self.sides.from, giving, deadline).await?;
        self.reached(record, Step::Fenced)?;
        self.drain(deadline).await?;
        self.reached(record, Step::Drained)?;
        let left = deadline.saturating_duration_since(Instant::now());
        let fence = Some(epoch(record)?);
        self.stream.marker(&mut self.sides.from, &mut self.sides.to, left, fence).await?;
        // What has arrived must survive a failover of the taker: after the decision nobody sends it again. And what has
        // been sent must survive one of the giver, or a rollback would meet rows that it never had.
        all_have(&mut self.sides.to, taking, deadline).await?;
        all_have(&mut self.sides.from, giving, deadline).await?;
        self.reached(record, Step::MarkerArrived)?;
        pinned.pin().await?;
        self.reached(record, Step::SnapshotsPinned)?;
        let reverse_from: String = self.sides.to.one(sqlx::query_scalar(sql::INSERTED)).await?;
        self.decide(record, &reverse_from).await?;
        Ok(reverse_from)
    }

    fn reached(&self, record: &Move, step: Step) -> Result<(), MoveError> {
        self.watch.reached(record, step).map_err(|_| MoveError::Stopped(step))
    }

    async fn fence(&mut self, record: &Move) -> Result<(), MoveError> {
        let epoch = epoch(record)?;
        let query = sqlx::query(sql::FENCE)
            .bind(record.range.lo())
            .bind(record.range.hi())
            .bind(epoch)
            .bind(record.id.0)
            .bind(record.attempt)
            .bind(self.config.window.as_millis() as f64);
        let fenced = self.sides.from.run(query).await?;
        if fenced == record.range.len() {
            return Ok(());
        }
        let (place, all) = (self.sides.from.place, record.range.len());
        Err(MoveError::NotReady(format!("{place} owns only {fenced} of {all} buckets at an older epoch")))
    }

    /// Waits for every transaction that was open when the fence had committed, and ends those that take too long.
    async fn drain(&mut self, deadline: Instant) -> Result<(), MoveError> {
        let from = &mut self.sides.from;
        let patience = Instant::now() + self.config.drain;
        let mut left = open_transactions(from).await?;
        let mut told_to_end = false;
        while !left.is_empty() {
            if Instant::now() > deadline {
                return Err(MoveError::GaveUp(format!("{} transactions never ended", left.len())));
            }
            if Instant::now() > patience && !told_to_end {
                told_to_end = true;
                let pids: Vec<i32> = left.iter().map(|(_, pid)| *pid).collect();
                from.rows(sqlx::query(sql::TERMINATE).bind(pids)).await?;
            }
            tokio::time::sleep(POLL).await;
            let now = open_transactions(from).await?;
            left.retain(|transaction| now.contains(transaction));
        }
        let prepared: i64 = from.one(sqlx::query_scalar(sql::PREPARED)).await?;
        if prepared > 0 {
            return Err(MoveError::NotReady(format!("{prepared} prepared transactions on {}", from.place)));
        }
        Ok(())
    }

    /// An answer that does not come is no answer: it is asked for until the directory says what it has decided.
    async fn decide(&mut self, record: &Move, reverse_from: &str) -> Result<(), MoveError> {
        match self.ledger.decide(record, self.way, reverse_from).await {
            Ok(Decision::Ours) => Ok(()),
            Ok(Decision::Refused) => Err(MoveError::GaveUp("the window had run out".to_owned())),
            Err(unknown) => {
                self.ledger.reconnect(self.config.statement).await?;
                // Waits for a decision that is still on its way, and fails if there is one.
                let refused = self.ledger.undo_window(record, self.way, "the decision was lost").await?;
                match refused {
                    Decision::Refused if self.ledger.get(record.id).await?.state == self.way.decided => {
                        Ok(())
                    }
                    _ => Err(unknown),
                }
            }
        }
    }
}

async fn open_transactions(site: &mut Site) -> Result<Vec<(String, i32)>, MoveError> {
    let rows = site.rows(sqlx::query(sql::OPEN_TRANSACTIONS).bind(READER)).await?;
    let read = |row: &sqlx::postgres::PgRow| Ok((row.try_get(0)?, row.try_get(1)?));
    rows.iter().map(read).collect::<Result<_, _>>().map_err(site.place.said())
}

/// Ends an undecided window: the directory says no, and only then the fence is lifted. Safe to call at any time, by
/// anybody: where the decision has fallen already, nothing happens.
pub(super) async fn undo(
    ledger: &mut Ledger,
    from: &mut Site,
    record: &Move,
    way: Direction,
    why: &str,
) -> Result<Move, MoveError> {
    ledger.undo_window(record, way, why).await?;
    let now = ledger.get(record.id).await?;
    if now.state == way.before {
        unfence(from, &now).await?;
    }
    Ok(now)
}

/// Lifts whatever fence an undone attempt of this move left or may yet set.
pub(super) async fn unfence(from: &mut Site, record: &Move) -> Result<(), MoveError> {
    let Some(epoch) = record.epoch else { return Ok(()) };
    let query = sqlx::query(sql::UNFENCE)
        .bind(record.range.lo())
        .bind(record.range.hi())
        .bind(epoch)
        .bind(record.id.0)
        .bind(record.attempt);
    from.run(query).await.map(|_| ())
}

/// The target takes over; the decision has fallen. May be repeated.
pub(super) async fn activate(to: &mut Site, record: &Move) -> Result<(), MoveError> {
    let (epoch, range) = (epoch(record)?, record.range);
    let query = sqlx::query(sql::ACTIVATE)
        .bind(range.lo())
        .bind(range.hi())
        .bind(epoch)
        .bind(record.id.0)
        .bind(record.attempt);
    let activated = to.run(query).await?;
    if activated == range.len() {
        return Ok(());
    }
    let query = sqlx::query_scalar(sql::COUNT_STATE).bind(range.lo()).bind(range.hi()).bind("A").bind(epoch);
    let active: i64 = to.one(query).await?;
    if u64::try_from(active) == Ok(range.len()) {
        return Ok(());
    }
    let (place, all) = (to.place, range.len());
    Err(MoveError::NotReady(format!(
        "{place} has {active} of {all} buckets, though they are decided to be its own"
    )))
}

/// The source redirects from now on. May be repeated.
pub(super) async fn mark_moved(from: &mut Site, record: &Move, way: Direction) -> Result<(), MoveError> {
    let query = sqlx::query(sql::MARK_MOVED)
        .bind(record.range.lo())
        .bind(record.range.hi())
        .bind(epoch(record)?)
        .bind(record.id.0)
        .bind(record.attempt)
        .bind(way.to.get());
    from.run(query).await.map(|_| ())
}

fn epoch(record: &Move) -> Result<i64, MoveError> {
    record.epoch.ok_or_else(|| MoveError::WrongState(format!("move {} has no epoch yet", record.id)))
}
