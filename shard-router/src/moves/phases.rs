//! The phases of a move outside the window, each from one state of the record to the next. Every one of them may be
//! entered again after its mover died in the middle.

use super::clean::{BURNT, EMPTYING, arm, delete_rows};
use super::failover::Stands;
use super::mover::{Mover, Work};
use super::record::{BucketRange, Direction, MoveState};
use super::site::{MOVER, READER, Site};
use super::stream::Stream;
use super::streamer::grant;
use super::verify::{Pinned, analyze, compare, sums};
use super::window::{Sides, Window, activate, mark_moved, unfence};
use super::{MoveError, Step, preflight, sql};
use crate::map::ShardId;
use std::time::{Duration, Instant};

const COPY_POLL: Duration = Duration::from_millis(100);
const MARKERS_IN_A_ROW: u32 = 3;
const MARKER_LIMIT: Duration = Duration::from_secs(30);
const WINDOW_PAUSE: Duration = Duration::from_millis(500);
/// Workers are started again after each; a stream that fails so often will not heal by itself.
const MOST_STREAM_ERRORS: i64 = 50;
/// How often buckets that differ are looked at again while writes go on.
const LOOKS: u32 = 12;
const LOOKS_UNLIKE: u32 = 3;

impl Mover {
    /// Planned → copying: looks at both shards, and empties the range on the target.
    pub(super) async fn prepare(&self, work: &mut Work) -> Result<(), MoveError> {
        let listed = self.listed(&work.ledger, (work.record.src, work.record.dst)).await?;
        preflight::check((&mut work.src, &mut work.dst), listed, self.streamer()?).await?;
        let (range, id) = (work.record.range, work.record.id.0);
        arm(&mut work.dst, range, id, EMPTYING).await?;
        self.delete(work, work.record.dst, EMPTYING).await?;
        work.src.bound(self.config.bulk);
        let rows = sums(&mut work.src, &work.tables, range).await?.values().map(|(count, _)| count).sum();
        work.src.bound(self.config.statement);
        work.ledger.set_rows(&work.record, rows).await?;
        work.record = work.ledger.advance(&work.record, MoveState::Copying).await?;
        work.reached(Step::Prepared, &*self.watch)
    }

    /// Copying: until the target keeps up. Nothing that users could notice.
    pub(super) async fn fill(&self, work: &mut Work) -> Result<(), MoveError> {
        unfence(&mut work.src, &work.record).await?;
        // From here on nothing may empty the target: a late `prepare` finds a later attempt.
        let attempt = work.record.attempt;
        arm(&mut work.dst, work.record.range, work.record.id.0, attempt).await?;
        self.same_timeline(work, work.record.dst).await?.or_begin_anew()?;
        let (there, back) = streams(work);
        let login = self.streamer()?;
        grant(&mut work.src, &work.tables, login).await?;
        grant(&mut work.dst, &work.tables, login).await?;
        there.publish(&mut work.src, &work.tables).await?;
        back.publish(&mut work.dst, &work.tables).await?;
        // Made now, because it waits for running transactions: in the window that wait would be everybody's.
        work.dst.bound(self.config.catch_up);
        back.reserve(&mut work.dst).await?;
        work.dst.bound(self.config.statement);
        there.copy(&mut work.src, &mut work.dst, login, attempt).await?;
        self.copy_stands(work, &there).await?;
        work.reached(Step::StreamMade, &*self.watch)?;
        self.wait_copied(work, &there).await?;
        work.reached(Step::Copied, &*self.watch)?;
        analyze(&mut work.dst, &work.tables, self.config.bulk).await?;
        self.catch_up(work, &there).await?;
        work.src.bound(self.config.bulk);
        work.dst.bound(self.config.bulk);
        let sites = (&mut work.src, &mut work.dst);
        let agreed = agree(&there, sites, &work.tables, work.record.range).await;
        work.src.bound(self.config.statement);
        work.dst.bound(self.config.statement);
        agreed?;
        self.wait_kept(work, (&there, &back)).await?;
        self.catch_up(work, &there).await?;
        work.reached(Step::CaughtUp, &*self.watch)
    }

    async fn wait_copied(&self, work: &mut Work, stream: &Stream) -> Result<(), MoveError> {
        let deadline = Instant::now() + self.config.copy;
        loop {
            let progress = stream.progress(&mut work.dst).await?;
            if progress.tables > 0 && progress.tables == progress.ready {
                return Ok(());
            }
            self.copy_stands(work, stream).await?;
            let paused = work.ledger.get(work.record.id).await?.paused;
            if paused {
                return Err(MoveError::Superseded(format!("move {} is paused", work.record.id)));
            }
            if Instant::now() > deadline || progress.errors > MOST_STREAM_ERRORS {
                let (ready, tables, errors) = (progress.ready, progress.tables, progress.errors);
                return Err(MoveError::GaveUp(format!(
                    "{ready} of {tables} tables copied, {errors} stream errors"
                )));
            }
            tokio::time::sleep(COPY_POLL).await;
        }
    }

    async fn catch_up(&self, work: &mut Work, stream: &Stream) -> Result<(), MoveError> {
        let deadline = Instant::now() + self.config.catch_up;
        let mut in_a_row = 0;
        while in_a_row < MARKERS_IN_A_ROW {
            let took = stream.marker(&mut work.src, &mut work.dst, self.config.catch_up, None).await?;
            in_a_row = if took <= self.config.caught_up { in_a_row + 1 } else { 0 };
            if Instant::now() > deadline {
                let took = took.as_millis();
                return Err(MoveError::GaveUp(format!(
                    "the target does not keep up: a marker took {took} ms"
                )));
            }
        }
        Ok(())
    }

    /// Opens a window, again if it had to be undone. Leaves the record decided.
    pub(super) async fn window(&self, work: &mut Work, way: Direction) -> Result<(), MoveError> {
        let mut tries = 1;
        loop {
            let error = match self.one_window(work, way).await {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            let passes = matches!(error, MoveError::GaveUp(_) | MoveError::NotReady(_));
            if !passes || tries >= self.config.windows {
                return Err(error);
            }
            work.record = work.ledger.get(work.record.id).await?;
            if work.record.state != way.before {
                return Err(error);
            }
            tracing::warn!(move.id = work.record.id.0, %error, tries, "window undone, trying again");
            tries += 1;
            tokio::time::sleep(WINDOW_PAUSE).await;
        }
    }

    async fn one_window(&self, work: &mut Work, way: Direction) -> Result<(), MoveError> {
        let stream = Stream::of(&work.record, way.from, way.to, &work.src.address.dbname);
        let pinned = Pinned {
            from: self.site(&work.ledger, way.from, READER).await?,
            to: self.site(&work.ledger, way.to, READER).await?,
        };
        let mut sides = Sides {
            from: self.site(&work.ledger, way.from, MOVER).await?,
            to: self.site(&work.ledger, way.to, MOVER).await?,
        };
        // Asked of the very connections of the window: an older one may still lead to a server that was replaced.
        self.stream_stands(work, &stream, &mut sides).await?;
        let listed = self.listed(&work.ledger, (way.from, way.to)).await?;
        if way == work.record.forward() {
            let (_, back) = streams(work);
            let flushed: String = sides.to.one(sqlx::query_scalar(sql::FLUSHED)).await?;
            back.forget_before(&mut sides.to, &flushed).await?;
        }
        let window = Window {
            config: &self.config,
            watch: &*self.watch,
            ledger: &mut work.ledger,
            sides: &mut sides,
            way,
            stream,
            listed,
        };
        let passed = window.pass(&work.record, pinned).await?;
        work.record = passed.record;
        work.pinned = Some(passed.pinned);
        // The connections of the window are warm: the new owner answers before anything else is done.
        activate(&mut sides.to, &work.record).await?;
        work.reached(Step::Activated, &*self.watch)?;
        mark_moved(&mut sides.from, &work.record, way).await?;
        work.window = Some(passed.opened.elapsed());
        work.reached(Step::SourceMoved, &*self.watch)
    }

    /// Committed → soaking: the target answers, the source redirects, and the stream turns round.
    pub(super) async fn settle_there(&self, work: &mut Work) -> Result<(), MoveError> {
        activate(&mut work.dst, &work.record).await?;
        mark_moved(&mut work.src, &work.record, work.record.forward()).await?;
        let (there, back) = streams(work);
        there.drop(&mut work.src, &mut work.dst).await?;
        work.reached(Step::ForwardDropped, &*self.watch)?;
        let closed = self.turn_round(work, &back).await?;
        work.ledger.set_reversible(&work.record, closed.is_none()).await?;
        if closed.is_none() {
            work.reached(Step::ReverseStarted, &*self.watch)?;
        }
        self.compare_pinned(work).await?;
        let reserved = match closed.or_else(|| work.differs.clone()) {
            None => self.wait_way_back_kept(work, &back).await?,
            reason => reason,
        };
        work.record = work.ledger.advance(&work.record, MoveState::Soaking).await?;
        if let Some(reason) = reserved {
            tracing::warn!(move.id = work.record.id.0, reason, "soaking with a reservation");
            work.ledger.note(&work.record, &reason).await?;
            work.record = work.ledger.get(work.record.id).await?;
        }
        work.reached(Step::Soaking, &*self.watch)
    }

    /// Opens the way back; says why it stays closed. Only a marker that has come back proves it.
    async fn turn_round(&self, work: &mut Work, back: &Stream) -> Result<Option<String>, MoveError> {
        if !back.is_reserved(&mut work.dst).await? {
            return Ok(Some("no way back: the target has lost its slot, in a failover perhaps".to_owned()));
        }
        // A position from before a failover says nothing of the log since.
        if let Stands::Lost(_) = self.same_timeline(work, work.record.dst).await? {
            return Ok(Some("no way back: the target failed over before it was open".to_owned()));
        }
        if let Stands::Lost(why) = self.same_timeline(work, work.record.src).await? {
            return Ok(Some(format!("no way back: {why}")));
        }
        if let Some(position) = work.record.reverse_from.clone() {
            back.forget_before(&mut work.dst, &position).await?;
        }
        back.follow(&mut work.dst, &mut work.src, self.streamer()?, work.record.attempt).await?;
        match back.marker(&mut work.dst, &mut work.src, MARKER_LIMIT, None).await {
            Ok(_) => Ok(None),
            Err(MoveError::GaveUp(reason)) => Ok(Some(format!("no way back: {reason}"))),
            Err(error) => Err(error),
        }
    }

    /// Returned → undoing: the source answers again, the target redirects.
    pub(super) async fn settle_back(&self, work: &mut Work) -> Result<(), MoveError> {
        activate(&mut work.src, &work.record).await?;
        mark_moved(&mut work.dst, &work.record, work.record.back()).await?;
        let found = work.differs.take();
        self.compare_pinned(work).await?;
        if work.differs.is_some() || work.ledger.get(work.record.id).await?.verified == Some(false) {
            let what = work.differs.take().unwrap_or_else(|| "as noted".to_owned());
            return Err(MoveError::Differs(format!("{what}; the target's copy is kept for you to look at")));
        }
        work.differs = found;
        work.record = work.ledger.advance(&work.record, MoveState::Undoing).await?;
        work.reached(Step::Undone, &*self.watch)
    }

    async fn compare_pinned(&self, work: &mut Work) -> Result<(), MoveError> {
        let Some(pinned) = work.pinned.take() else { return Ok(()) };
        let found = pinned.compare(&work.tables, work.record.range, self.config.bulk).await?;
        work.ledger.set_verified(&work.record, found.is_equal()).await?;
        if !found.is_equal() {
            work.differs = Some(found.describe());
        }
        tracing::info!(move.id = work.record.id.0, rows = found.rows, equal = found.is_equal(), "compared");
        work.reached(Step::Verified, &*self.watch)
    }

    /// Ends a move: no stream is left, and no row on the shard that does not own the range.
    pub(super) async fn empty(
        &self,
        work: &mut Work,
        shard: ShardId,
        end: MoveState,
    ) -> Result<(), MoveError> {
        let (there, back) = streams(work);
        // First nobody may stream into it any more, then the streams end, and only then rows are deleted: a deletion
        // that is streamed would be carried out on the other side, too.
        let site = if shard == work.record.src { &mut work.src } else { &mut work.dst };
        arm(site, work.record.range, work.record.id.0, BURNT).await?;
        there.drop(&mut work.src, &mut work.dst).await?;
        back.drop(&mut work.dst, &mut work.src).await?;
        work.reached(Step::StreamsDropped, &*self.watch)?;
        self.delete(work, shard, BURNT).await?;
        work.reached(Step::RowsDeleted, &*self.watch)?;
        for site in [&mut work.src, &mut work.dst] {
            site.run(sqlx::query(sql::DELETE_MARKERS).bind(work.record.id.0)).await?;
        }
        work.record = work.ledger.advance(&work.record, end).await?;
        work.reached(Step::Ended, &*self.watch)
    }

    async fn delete(&self, work: &Work, shard: ShardId, attempt: i32) -> Result<u64, MoveError> {
        let mut site = self.site(&work.ledger, shard, MOVER).await?;
        site.bound(self.config.bulk);
        delete_rows(site, &work.tables, work.record.range, (work.record.id.0, attempt)).await
    }

    /// Soaking → returned, and on to where that leads.
    pub(super) async fn go_back(&self, work: &mut Work) -> Result<(), MoveError> {
        let record = work.record.clone();
        match record.state {
            MoveState::Soaking if record.reversible => {
                unfence(&mut work.dst, &record).await?;
                self.way_back_stands(work).await?;
                let (_, back) = streams(work);
                back.marker(&mut work.dst, &mut work.src, MARKER_LIMIT, None).await?;
                self.window(work, record.back()).await?;
            }
            MoveState::Soaking => {
                let why = record.note.unwrap_or_default();
                return Err(MoveError::WrongState(format!(
                    "move {}: the way back is closed: {why}",
                    record.id
                )));
            }
            MoveState::Returned | MoveState::Undoing => {}
            state => {
                return Err(MoveError::WrongState(format!(
                    "move {} is {state}: only a soaking one goes back",
                    record.id
                )));
            }
        }
        self.drive(work).await
    }
}

/// There, and back.
fn streams(work: &Work) -> (Stream, Stream) {
    let (record, dbname) = (&work.record, &work.src.address.dbname);
    (Stream::of(record, record.src, record.dst, dbname), Stream::of(record, record.dst, record.src, dbname))
}

/// What a comparison under load came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Agreement {
    /// Rows compared.
    pub rows: i64,
    /// Places (a table's bucket) that agree.
    pub agreed: usize,
    /// Places that changed whenever they were looked at; nothing is known of them.
    pub busy: usize,
}

/// Compares both sides while writes go on. What differs is looked at again: source, marker, target, source. Where the
/// source stood still and the target is different all the same, three times in a row, the copies differ.
pub(super) async fn agree(
    stream: &Stream,
    (from, to): (&mut Site, &mut Site),
    tables: &[String],
    range: BucketRange,
) -> Result<Agreement, MoveError> {
    let ours = sums(from, tables, range).await?;
    let found = compare(&ours, &sums(to, tables, range).await?);
    let mut agreement = Agreement { rows: found.rows, agreed: ours.len(), busy: 0 };
    for (table, bucket) in &found.different {
        match look_again(stream, (from, to), table, *bucket).await? {
            Look::Agrees => {}
            Look::Busy => agreement.busy += 1,
            Look::Differs => return Err(MoveError::Differs(found.describe())),
        }
    }
    agreement.agreed = agreement.agreed.saturating_sub(agreement.busy);
    Ok(agreement)
}

enum Look {
    Agrees,
    Busy,
    Differs,
}

async fn look_again(
    stream: &Stream,
    (from, to): (&mut Site, &mut Site),
    table: &str,
    bucket: i32,
) -> Result<Look, MoveError> {
    let (one, table) = (BucketRange::single(bucket)?, [table.to_owned()]);
    let mut unlike = 0;
    for _ in 0..LOOKS {
        let before = sums(from, &table, one).await?;
        stream.marker(from, to, MARKER_LIMIT, None).await?;
        let there = sums(to, &table, one).await?;
        if compare(&before, &there).is_equal() {
            return Ok(Look::Agrees);
        }
        let stood_still = compare(&before, &sums(from, &table, one).await?).is_equal();
        unlike = if stood_still { unlike + 1 } else { 0 };
        if unlike == LOOKS_UNLIKE {
            return Ok(Look::Differs);
        }
    }
    Ok(Look::Busy)
}
