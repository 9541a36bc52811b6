//! One move from its plan to its end, with or without something that dies on the way.

use crate::stage::shard;
use crate::{Problem, Stage};
use devcluster::state::State;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use shard_router::moves::{BucketRange, Move, MoveError, MoveState, Mover, Step, Watch};
use shard_router::shard_key::Bucket;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

/// How long a killed part stays away.
const ABSENCE: Duration = Duration::from_millis(700);

/// Who dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Victim {
    /// The mover itself: everything that it holds is dropped on the spot.
    Mover,
    /// The primary that gives.
    Source,
    /// The primary that takes.
    Target,
    /// A replica of the primary that gives.
    Replica,
    /// The directory.
    Directory,
}

impl Victim {
    /// All five.
    pub const ALL: [Self; 5] = [Self::Mover, Self::Source, Self::Target, Self::Replica, Self::Directory];

    /// The part that is this now; the mover is none.
    fn part(self, state: &State, from: u16, to: u16) -> devcluster::Result<Option<String>> {
        let primary = |shard| state.primary(shard).map(|found| &found.part);
        Ok(match self {
            Self::Mover => None,
            Self::Source => Some(primary(from)?.name.clone()),
            Self::Target => Some(primary(to)?.name.clone()),
            Self::Replica => state.siblings(primary(from)?).first().map(|part| part.name.clone()),
            Self::Directory => Some("directory".to_owned()),
        })
    }
}

/// The steps after which something may die: everything durable that a move does on its way to the soak.
pub const STEPS: [Step; 12] = [
    Step::Prepared,
    Step::StreamMade,
    Step::Copied,
    Step::CaughtUp,
    Step::FenceDecided,
    Step::Fenced,
    Step::Drained,
    Step::MarkerArrived,
    Step::Decided,
    Step::Activated,
    Step::SourceMoved,
    Step::ForwardDropped,
];

/// How a drill ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Ending {
    /// The range stays at the target, and the source is emptied.
    Clean,
    /// The range goes back under load.
    Rollback,
    /// Given up before the window.
    Abort,
}

/// What is to happen.
#[derive(Clone, Copy, Debug)]
pub struct Drill {
    /// First bucket.
    pub lo: i32,
    /// Last bucket.
    pub hi: i32,
    /// Who gives.
    pub from: u16,
    /// Who takes.
    pub to: u16,
    /// How it ends.
    pub ending: Ending,
    /// Who dies after which step, on the way there.
    pub crash: Option<(Step, Victim)>,
    /// Whether it stays dead: a replica becomes the primary, and the old one comes back as a replica of it.
    pub for_good: bool,
}

/// What happened.
#[derive(Clone, Debug, Default, serde::Serialize)]
pub struct DrillReport {
    /// From the opening of the window there to the moment at which the source redirects.
    pub window: Option<Duration>,
    /// The same on the way back.
    pub window_back: Option<Duration>,
    /// Whether every row was compared in the window, and was equal.
    pub verified: Option<bool>,
    /// Rows that were copied.
    pub rows: Option<i64>,
    /// From the death of the victim to the end of the recovery.
    pub recovery: Option<Duration>,
    /// Where the move ended.
    pub state: Option<MoveState>,
    /// Whether the copy had to begin anew.
    pub recopied: bool,
    /// Whether the way back was open when all had settled.
    pub reversible: bool,
    /// What was noted then.
    pub note: Option<String>,
}

/// Called at each step, for planting faults.
pub type Plant = Box<dyn Fn(Step) + Send + Sync>;

struct Saboteur {
    stage: Arc<Stage>,
    drill: Drill,
    struck: AtomicBool,
    steps: Mutex<Vec<(Step, Instant)>>,
    plant: Option<Plant>,
    coming_back: Mutex<Option<JoinHandle<Result<(), String>>>>,
}

impl Watch for Saboteur {
    fn reached(&self, _: &Move, step: Step) -> Result<(), String> {
        self.steps.lock().unwrap_or_else(PoisonError::into_inner).push((step, Instant::now()));
        if let Some(plant) = &self.plant {
            plant(step);
        }
        if self.drill.ending == Ending::Abort
            && step == Step::Copied
            && !self.struck.swap(true, Ordering::SeqCst)
        {
            return Err("given up".to_owned());
        }
        let Some((when, victim)) = self.drill.crash else { return Ok(()) };
        if when != step || self.struck.swap(true, Ordering::SeqCst) {
            return Ok(());
        }
        let state = self.stage.cluster.state().map_err(|error| error.to_string())?;
        match victim.part(&state, self.drill.from, self.drill.to).map_err(|error| error.to_string())? {
            None => Err("killed".to_owned()),
            Some(part) => self.kill(part),
        }
    }
}

impl Saboteur {
    /// Kills a part, and brings it back a moment later, as a supervisor would while the mover goes on or gives up.
    fn kill(&self, part: String) -> Result<(), String> {
        tokio::task::block_in_place(|| {
            Handle::current().block_on(self.stage.cluster.kill(&part)).map_err(|error| error.to_string())
        })?;
        let (stage, for_good) = (Arc::clone(&self.stage), self.drill.for_good);
        let coming_back = tokio::spawn(async move {
            if for_good {
                return stage.replace(&part).await.map_err(|error| error.to_string());
            }
            tokio::time::sleep(ABSENCE).await;
            stage.cluster.start(&part).await.map_err(|error| error.to_string())
        });
        *self.coming_back.lock().unwrap_or_else(PoisonError::into_inner) = Some(coming_back);
        Ok(())
    }
}

impl Saboteur {
    /// The times between the opening and the closing of each window that was decided.
    fn windows(&self) -> Vec<Duration> {
        let steps = self.steps.lock().unwrap_or_else(PoisonError::into_inner);
        let mut opened = None;
        let mut windows = Vec::new();
        for (step, at) in steps.iter() {
            match step {
                Step::FenceDecided => opened = Some(*at),
                Step::SourceMoved => windows.extend(opened.take().map(|opened| at.duration_since(opened))),
                _ => {}
            }
        }
        windows
    }
}

impl Drill {
    /// A range of `blocks` of 16 buckets that lies whole on one shard, and an ending, by chance.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub async fn seeded(stage: &Stage, buckets: std::ops::Range<i32>, seed: u64) -> Result<Self, Problem> {
        const BLOCK: i32 = 16;
        let mut random = StdRng::seed_from_u64(seed);
        let sql =
            "SELECT bucket, shard_id FROM directory.bucket_map WHERE bucket BETWEEN $1 AND $2 ORDER BY 1";
        let query = sqlx::query_as(sql).bind(buckets.start).bind(buckets.end - 1);
        let map: Vec<(i32, i16)> = query.fetch_all(&mut stage.on_directory().await?).await?;
        let mut whole = Vec::new();
        for blocks in 1..=4 {
            for lo in (buckets.start..=buckets.end - BLOCK * blocks).step_by(16) {
                let owners: Vec<i16> = map
                    .iter()
                    .filter(|(b, _)| (lo..lo + BLOCK * blocks).contains(b))
                    .map(|(_, s)| *s)
                    .collect();
                if owners.windows(2).all(|pair| pair[0] == pair[1]) {
                    whole.push((lo, lo + BLOCK * blocks - 1, owners[0]));
                }
            }
        }
        let (lo, hi, owner) = *whole.choose(&mut random).ok_or("no range lies whole on one shard")?;
        let from = u16::try_from(owner)?;
        let ending = match random.random_range(0..10) {
            0..6 => Ending::Clean,
            6..9 => Ending::Rollback,
            _ => Ending::Abort,
        };
        Ok(Self { lo, hi, from, to: 3 - from, ending, crash: None, for_good: false })
    }

    /// Its buckets.
    ///
    /// # Errors
    /// There are none of these numbers.
    pub fn range(&self) -> Result<BucketRange, Problem> {
        let (lo, hi) = (Bucket::try_from(self.lo), Bucket::try_from(self.hi));
        let range = BucketRange::new(lo.map_err(|_| "no bucket")?, hi.map_err(|_| "no bucket")?);
        Ok(range.ok_or("no range")?)
    }

    /// Carries it out, brings back whoever died, and recovers as an operator would.
    ///
    /// # Errors
    /// The move did not end as it had to.
    pub async fn carry_out(self, stage: &Arc<Stage>, plant: Option<Plant>) -> Result<DrillReport, Problem> {
        let watch = Arc::new(Saboteur {
            stage: Arc::clone(stage),
            drill: self,
            struck: AtomicBool::new(false),
            steps: Mutex::default(),
            plant,
            coming_back: Mutex::default(),
        });
        let mover = stage.mover(Arc::clone(&watch) as Arc<dyn Watch>);
        let planned = mover.plan(self.range()?, shard(self.from), shard(self.to)).await?;
        let outcome = mover.run(planned.id).await;
        let died = Instant::now();
        let mut report = DrillReport::default();
        if let Some((step, _)) = self.crash {
            if !watch.struck.load(Ordering::SeqCst) {
                return Err(format!("the move ended before {step:?}: {outcome:?}").into());
            }
            let coming_back = watch.coming_back.lock().unwrap_or_else(PoisonError::into_inner).take();
            if let Some(coming_back) = coming_back {
                coming_back.await??;
            }
        } else if self.ending == Ending::Abort {
            report.state = Some(mover.abort(planned.id).await?.state);
            return Ok(report);
        } else {
            outcome?;
        }
        let mut settled = settle(&mover, &planned).await?;
        if settled.is_none() && self.for_good {
            mover.abort(planned.id).await?;
            let again = mover.plan(planned.range, planned.src, planned.dst).await?;
            settled = settle(&mover, &again).await?;
            report.recopied = true;
        }
        let settled = settled.ok_or("the stream of a move was lost without a failover")?;
        (report.reversible, report.note) = (settled.reversible, settled.note.clone());
        report.recovery = self.crash.map(|_| died.elapsed());
        (report.verified, report.rows) = (settled.verified, settled.rows_estimated);
        report.window = watch.windows().first().copied();
        let ended = match self.ending {
            Ending::Rollback if settled.reversible => mover.rollback(settled.id).await?,
            _ => mover.clean(settled.id).await?,
        };
        report.window_back = watch.windows().get(1).copied();
        report.state = Some(ended.state);
        Ok(report)
    }
}

/// What an operator does after an accident: recover, and let the move go on; none if it cannot.
async fn settle(mover: &Mover, planned: &Move) -> Result<Option<Move>, Problem> {
    const PATIENCE: Duration = Duration::from_secs(90);
    let started = Instant::now();
    loop {
        let last = match mover.recover().await {
            Ok(touched) => touched.into_iter().find_map(|(_, outcome)| outcome.err()),
            Err(error) => Some(error),
        };
        let last = match mover.get(planned.id).await {
            Ok(record) if record.state == MoveState::Soaking || record.state.has_ended() => {
                return Ok(Some(record));
            }
            Ok(_) => mover.run(planned.id).await.err().or(last),
            Err(error) => Some(error),
        };
        if let Some(MoveError::Differs(what)) = &last {
            return Err(format!("the copies differ: {what}").into());
        }
        if matches!(&last, Some(MoveError::NotReady(why)) if why.contains("plan it again")) {
            return Ok(None);
        }
        if started.elapsed() > PATIENCE {
            return Err(format!("not recovered within {PATIENCE:?}: {last:?}").into());
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}
