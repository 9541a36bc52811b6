//! Carries moves out: from whatever state the record is in, to where that state leads.

use super::ledger::Ledger;
use super::phases::{Agreement, agree};
use super::record::{BucketRange, Direction, Move, MoveId, MoveState};
use super::site::{MOVER, Site};
use super::stream::Stream;
use super::verify::Pinned;
use super::window::{activate, undo, unfence};
use super::{MoveError, Place, Step, Watch, sql};
use crate::directory::Directory;
use crate::map::ShardId;
use crate::server::Login;
use std::sync::Arc;
use std::time::Duration;

/// How long things may take.
#[derive(Clone, Debug)]
pub struct MoverConfig {
    /// The window: a fence that is older is undone.
    pub window: Duration,
    /// In the window, how long open transactions may go on before they are ended.
    pub drain: Duration,
    /// The whole copy.
    pub copy: Duration,
    /// How fast a marker must travel, three times in a row, before the window may open.
    pub caught_up: Duration,
    /// How long to try for that.
    pub catch_up: Duration,
    /// One statement outside the window.
    pub statement: Duration,
    /// One statement that reads or deletes a whole range.
    pub bulk: Duration,
    /// How many windows to try before giving up; each failed one undoes itself.
    pub windows: u32,
}

impl Default for MoverConfig {
    fn default() -> Self {
        Self {
            window: Duration::from_secs(2),
            drain: Duration::from_millis(250),
            copy: Duration::from_secs(6 * 3600),
            caught_up: Duration::from_millis(50),
            catch_up: Duration::from_secs(600),
            statement: Duration::from_secs(30),
            bulk: Duration::from_secs(3600),
            windows: 3,
        }
    }
}

/// Runs moves. Holds no state of its own: everything is in the directory and on the shards.
#[derive(Clone)]
pub struct Mover {
    pub(super) directory: Directory,
    /// Whom a taker logs in as at its giver.
    pub(super) streamer: Option<Login>,
    pub(super) config: MoverConfig,
    pub(super) watch: Arc<dyn Watch>,
}

/// One move at work: its record, and connections to everybody concerned.
pub(super) struct Work {
    pub ledger: Ledger,
    pub record: Move,
    pub src: Site,
    pub dst: Site,
    pub tables: Vec<String>,
    /// Left by the window for the comparison; lost when the mover dies, and then there is none.
    pub pinned: Option<Pinned>,
    /// How long the latest window was open, up to the decision.
    pub window: Option<Duration>,
    /// What the comparison found, once it has found something.
    pub differs: Option<String>,
}

impl Mover {
    /// The directory's login must be the owner's of every database.
    #[must_use]
    pub fn new(directory: Directory, config: MoverConfig, watch: Arc<dyn Watch>) -> Self {
        Self { directory, streamer: None, config, watch }
    }

    /// Writes a move down, and does nothing else.
    ///
    /// # Errors
    /// The range is not whole at `src`, or is being moved already.
    pub async fn plan(&self, range: BucketRange, src: ShardId, dst: ShardId) -> Result<Move, MoveError> {
        self.ledger().await?.plan(range, src, dst).await
    }

    /// A move as it is now.
    ///
    /// # Errors
    /// There is none of that number, or the directory cannot be read.
    pub async fn get(&self, id: MoveId) -> Result<Move, MoveError> {
        self.ledger().await?.get(id).await
    }

    /// The moves that have not ended, oldest first.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub async fn open_moves(&self) -> Result<Vec<Move>, MoveError> {
        self.ledger().await?.open_moves().await
    }

    /// The latest moves, newest first.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub async fn latest(&self, count: i64) -> Result<Vec<Move>, MoveError> {
        self.ledger().await?.latest(count).await
    }

    /// Makes a move wait before its next window, or go on.
    ///
    /// # Errors
    /// It has ended, or the directory cannot be written.
    pub async fn pause(&self, id: MoveId, paused: bool) -> Result<Move, MoveError> {
        let mut ledger = self.ledger().await?;
        if ledger.pause(id, paused).await? {
            return ledger.get(id).await;
        }
        Err(MoveError::WrongState(format!("move {id} has ended, or was never planned")))
    }

    /// Carries a move on until it soaks, has ended, or needs somebody's word.
    ///
    /// # Errors
    /// What stopped it. Whatever was begun is undone, or is taken up by the next run.
    pub async fn run(&self, id: MoveId) -> Result<Move, MoveError> {
        let mut work = self.begin(id).await?;
        let outcome = self.drive(&mut work).await;
        noted(work, outcome).await
    }

    /// Gives a move up that has not been decided, and deletes the copy.
    ///
    /// # Errors
    /// It has been decided already: then [`rollback`](Self::rollback) is the way.
    pub async fn abort(&self, id: MoveId) -> Result<Move, MoveError> {
        let mut work = match self.begin(id).await {
            Ok(work) => work,
            Err(error) => return Err(self.abandon(id, error).await?),
        };
        if work.record.state == MoveState::Fencing {
            work.undo(work.record.forward(), "aborted by an operator", &*self.watch).await?;
        }
        match work.record.state {
            MoveState::Planned | MoveState::Copying => {
                // A fence that an undone attempt left behind must be gone before the record says that all is over.
                unfence(&mut work.src, &work.record).await?;
                work.record = work.ledger.advance(&work.record, MoveState::Aborting).await?;
                work.reached(Step::CleaningDecided, &*self.watch)?;
            }
            MoveState::Aborting => {}
            state => {
                return Err(MoveError::WrongState(format!("move {id} is {state}: it has been decided")));
            }
        }
        let outcome = self.drive(&mut work).await;
        noted(work, outcome).await
    }

    /// The target is dead: the source is freed all the same, and the move stays `aborting` until the target is cleaned.
    async fn abandon(&self, id: MoveId, error: MoveError) -> Result<MoveError, MoveError> {
        let mut ledger = self.ledger().await?;
        let record = ledger.get(id).await?;
        if !matches!(&error, MoveError::Database { place, .. } if *place == Place::Shard(record.dst)) {
            return Ok(error);
        }
        ledger.lock(&record).await?;
        let record = match record.state {
            MoveState::Fencing => self.end_window(&mut ledger, id).await?,
            _ => record,
        };
        if matches!(record.state, MoveState::Planned | MoveState::Copying) {
            let mut src = self.site(&ledger, record.src, MOVER).await?;
            unfence(&mut src, &record).await?;
            ledger.advance(&record, MoveState::Aborting).await?;
            let stream = Stream::of(&record, record.src, record.dst, &src.address.dbname);
            stream.let_go(&mut src).await?;
        }
        Ok(error)
    }

    /// Hands a soaking range back, with everything written since.
    ///
    /// # Errors
    /// It does not soak, or the way back is closed.
    pub async fn rollback(&self, id: MoveId) -> Result<Move, MoveError> {
        let mut work = self.begin(id).await?;
        let outcome = self.go_back(&mut work).await;
        noted(work, outcome).await
    }

    /// Ends the soak: closes the way back and deletes the source's copy.
    ///
    /// # Errors
    /// It does not soak.
    pub async fn clean(&self, id: MoveId) -> Result<Move, MoveError> {
        let mut work = self.begin(id).await?;
        match work.record.state {
            MoveState::Soaking => {
                unfence(&mut work.dst, &work.record).await?;
                work.record = work.ledger.advance(&work.record, MoveState::Cleaning).await?;
                work.reached(Step::CleaningDecided, &*self.watch)?;
            }
            MoveState::Cleaning => {}
            state => {
                return Err(MoveError::WrongState(format!(
                    "move {id} is {state}: only a soaking one is cleaned"
                )));
            }
        }
        let outcome = self.drive(&mut work).await;
        noted(work, outcome).await
    }

    /// Compares both copies of a soaking move again, under whatever load there is: what differs is looked at again
    /// after a marker, until it agrees or does not.
    ///
    /// # Errors
    /// They differ, the way back is closed, or the move does not soak.
    pub async fn verify(&self, id: MoveId) -> Result<Agreement, MoveError> {
        let mut work = self.begin(id).await?;
        if work.record.state != MoveState::Soaking || !work.record.reversible {
            let state = work.record.state;
            return Err(MoveError::WrongState(format!("move {id} is {state} or its way back is closed")));
        }
        self.way_back_stands(&mut work).await?;
        let stream = Stream::of(&work.record, work.record.dst, work.record.src, &work.src.address.dbname);
        work.dst.bound(self.config.bulk);
        work.src.bound(self.config.bulk);
        let range = work.record.range;
        agree(&stream, (&mut work.dst, &mut work.src), &work.tables, range).await
    }

    /// Ends every window that nobody is at work on, and finishes whatever has been decided; a copy that was
    /// interrupted stays for [`run`](Self::run). Returns the moves that were touched, each with what became of it.
    ///
    /// # Errors
    /// The directory cannot be read. What goes wrong with one move stands beside it.
    pub async fn recover(&self) -> Result<Vec<(MoveId, Result<Move, MoveError>)>, MoveError> {
        let mut touched = Vec::new();
        for record in self.open_moves().await? {
            let outcome = match self.recover_one(&record).await {
                Err(MoveError::Superseded(_)) => self.end_overdue(record.id).await,
                outcome => outcome,
            };
            match outcome {
                Ok(now) if now.state == record.state && now.attempt == record.attempt => {}
                outcome => touched.push((record.id, outcome)),
            }
        }
        Ok(touched)
    }

    async fn recover_one(&self, record: &Move) -> Result<Move, MoveError> {
        let mut ledger = self.ledger().await?;
        ledger.try_lock(record).await?;
        match ledger.get(record.id).await?.state {
            MoveState::Fencing | MoveState::Returning => self.end_window(&mut ledger, record.id).await,
            MoveState::Copying | MoveState::Soaking => {
                let now = ledger.get(record.id).await?;
                let owner = if now.state == MoveState::Copying { now.src } else { now.dst };
                let mut owner = self.site(&ledger, owner, MOVER).await?;
                unfence(&mut owner, &now).await?;
                self.look_after(&mut ledger, &now, &mut owner).await?;
                Ok(now)
            }
            state if state.is_busy() => {
                drop(ledger);
                self.run(record.id).await
            }
            _ => Ok(record.clone()),
        }
    }

    /// Ends a window over the head of a mover that lives, once it has run out.
    async fn end_overdue(&self, id: MoveId) -> Result<Move, MoveError> {
        let mut ledger = self.ledger().await?;
        if ledger.is_overdue(id).await? {
            self.end_window(&mut ledger, id).await
        } else {
            ledger.get(id).await
        }
    }

    /// Needs nobody but the directory and the owner: the other shard may be dead.
    async fn end_window(&self, ledger: &mut Ledger, id: MoveId) -> Result<Move, MoveError> {
        let record = ledger.get(id).await?;
        let way = match record.state {
            MoveState::Fencing => record.forward(),
            MoveState::Returning => record.back(),
            _ => return Ok(record),
        };
        let mut from = self.site(ledger, way.from, MOVER).await?;
        undo(ledger, &mut from, &record, way, "its mover died in the window").await
    }

    pub(super) async fn ledger(&self) -> Result<Ledger, MoveError> {
        Ledger::open(&self.directory, self.config.statement).await
    }

    pub(super) async fn site(&self, ledger: &Ledger, shard: ShardId, name: &str) -> Result<Site, MoveError> {
        let row = ledger.shard(shard).await?;
        let login = &self.directory.login;
        Site::open(Place::Shard(shard), &row.primary, login, name, self.config.statement).await
    }

    /// Becomes this move's mover.
    async fn begin(&self, id: MoveId) -> Result<Work, MoveError> {
        let mut ledger = self.ledger().await?;
        let record = ledger.get(id).await?;
        ledger.lock(&record).await?;
        // Somebody may have worked on it until a moment ago.
        let record = ledger.get(id).await?;
        // What has been decided is done first, and needs the new owner alone: the old one may be dead.
        match record.state {
            MoveState::Committed => {
                activate(&mut self.site(&ledger, record.dst, MOVER).await?, &record).await?
            }
            MoveState::Returned => {
                activate(&mut self.site(&ledger, record.src, MOVER).await?, &record).await?
            }
            _ => {}
        }
        let mut src = self.site(&ledger, record.src, MOVER).await?;
        let dst = self.site(&ledger, record.dst, MOVER).await?;
        let tables = src.all(sqlx::query_scalar(sql::TABLES)).await?;
        Ok(Work { ledger, record, src, dst, tables, pinned: None, window: None, differs: None })
    }

    pub(super) async fn drive(&self, work: &mut Work) -> Result<(), MoveError> {
        loop {
            let record = work.record.clone();
            match record.state {
                MoveState::Planned => self.prepare(work).await?,
                MoveState::Copying => {
                    self.fill(work).await?;
                    self.window(work, record.forward()).await?;
                }
                MoveState::Fencing => {
                    work.undo(record.forward(), "its mover died in the window", &*self.watch).await?;
                }
                MoveState::Returning => {
                    work.undo(record.back(), "its mover died in the window", &*self.watch).await?;
                }
                MoveState::Committed => self.settle_there(work).await?,
                MoveState::Returned => self.settle_back(work).await?,
                MoveState::Aborting => self.empty(work, record.dst, MoveState::Aborted).await?,
                MoveState::Undoing => self.empty(work, record.dst, MoveState::RolledBack).await?,
                MoveState::Cleaning => self.empty(work, record.src, MoveState::Done).await?,
                // The copies differ: everything goes back, with what was written since.
                MoveState::Soaking if work.differs.is_some() && record.reversible => {
                    self.window(work, record.back()).await?;
                }
                MoveState::Soaking | MoveState::Done | MoveState::Aborted | MoveState::RolledBack => {
                    return work.differs.take().map_or(Ok(()), |what| Err(MoveError::Differs(what)));
                }
            }
        }
    }
}

impl Work {
    pub fn reached(&self, step: Step, watch: &dyn Watch) -> Result<(), MoveError> {
        watch.reached(&self.record, step).map_err(|_| MoveError::Stopped(step))
    }

    async fn undo(&mut self, way: Direction, why: &str, watch: &dyn Watch) -> Result<(), MoveError> {
        let from = if way.from == self.record.src { &mut self.src } else { &mut self.dst };
        self.record = undo(&mut self.ledger, from, &self.record, way, why).await?;
        self.reached(Step::Undone, watch)
    }
}

/// Leaves the reason of a failure where the next operator looks for it, and the record as it now is.
async fn noted(mut work: Work, outcome: Result<(), MoveError>) -> Result<Move, MoveError> {
    match outcome {
        Ok(()) => Ok(work.record),
        Err(stopped @ MoveError::Stopped(_)) => Err(stopped),
        Err(error) => {
            if let Ok(record) = work.ledger.get(work.record.id).await {
                let noted = work.ledger.note(&record, &error.to_string()).await;
                if let Err(why) = noted {
                    tracing::warn!(move.id = record.id.0, error = %why, "reason not written down");
                }
            }
            Err(error)
        }
    }
}
