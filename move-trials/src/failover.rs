//! Failovers: a primary dies in the middle of a move and stays dead, and a replica takes over.

use crate::drill::{Drill, DrillReport, Ending, Victim};
use crate::{Load, Problem, Stage};
use shard_router::moves::{MoveState, Step};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Replicas of a shard; both are synchronous.
pub const REPLICAS: u16 = 2;
/// From here on the slots of a giver survive its failover.
pub const KEEPS_SLOTS: i32 = 17;
/// How many operations on the moved range must succeed afterwards.
const WELL: usize = 20;
const POLL: Duration = Duration::from_millis(50);
const WELL_LIMIT: Duration = Duration::from_secs(30);

/// One failover.
#[derive(Clone, Copy, Debug)]
pub struct Failover {
    /// After which step.
    pub step: Step,
    /// Which primary.
    pub victim: Victim,
    /// How the move ends, if it can.
    pub ending: Ending,
}

/// All of them, in the order in which they are run.
pub const FAILOVERS: [Failover; 7] = [
    Failover { step: Step::StreamMade, victim: Victim::Source, ending: Ending::Clean },
    Failover { step: Step::CaughtUp, victim: Victim::Source, ending: Ending::Clean },
    Failover { step: Step::Fenced, victim: Victim::Source, ending: Ending::Rollback },
    Failover { step: Step::MarkerArrived, victim: Victim::Target, ending: Ending::Clean },
    Failover { step: Step::Decided, victim: Victim::Target, ending: Ending::Clean },
    Failover { step: Step::Soaking, victim: Victim::Target, ending: Ending::Rollback },
    Failover { step: Step::Soaking, victim: Victim::Source, ending: Ending::Rollback },
];

impl Failover {
    /// The drill in which it happens.
    #[must_use]
    pub fn drill(self, like: Drill) -> Drill {
        Drill { ending: self.ending, crash: Some((self.step, self.victim)), for_good: true, ..like }
    }

    /// What of a report is not as it has to be with servers of this version.
    ///
    /// # Errors
    /// That, as a sentence.
    pub fn judge(self, report: &DrillReport, version: i32) -> Result<(), Problem> {
        let kept = version >= KEEPS_SLOTS;
        let note = report.note.as_deref().unwrap_or_default();
        let expected = match (self.step, self.victim) {
            // So early no standby needs to have a copy of the slot yet.
            (Step::StreamMade, Victim::Source) => kept || report.recopied,
            (Step::CaughtUp | Step::Fenced, Victim::Source) => report.recopied != kept,
            (Step::MarkerArrived, Victim::Target) => report.recopied,
            (Step::Decided, _) => !report.recopied && !report.reversible && note.starts_with("no way back"),
            (Step::Soaking, Victim::Target) if kept => report.state == Some(MoveState::RolledBack),
            (Step::Soaking, _) => {
                report.state == Some(MoveState::Done) && !report.reversible && note.starts_with("no way back")
            }
            _ => true,
        };
        if expected {
            Ok(())
        } else {
            Err(format!("not as it has to be on PostgreSQL {version}: {report:?}").into())
        }
    }
}

/// Waits until users of the range are served again.
///
/// # Errors
/// They are not.
pub async fn wait_well(load: &Load, drill: &Drill) -> Result<(), Problem> {
    let (since, started) = (load.elapsed(), Instant::now());
    while load.well_since(since, &(drill.lo..=drill.hi)) < WELL {
        if started.elapsed() > WELL_LIMIT {
            return Err(format!("users of the range are not served {WELL_LIMIT:?} after the failover").into());
        }
        tokio::time::sleep(POLL).await;
    }
    Ok(())
}

/// A giver that sends past its standbys, though it did not when the stream was made, and is then replaced by one of them
/// by force: the taker has a row that the new giver lacks, and would skip as much of its log. The way back must be closed.
///
/// # Errors
/// It is not.
pub async fn a_taker_that_ran_ahead_is_not_led_on(stage: &Stage, drill: &Drill) -> Result<(), Problem> {
    let mover = stage.mover(Arc::new(()));
    let planned =
        mover.plan(drill.range()?, crate::stage::shard(drill.from), crate::stage::shard(drill.to)).await?;
    let soaking = mover.run(planned.id).await?;
    if !soaking.reversible || soaking.note.is_some() {
        return Err(format!("the way back is not open, or not kept: {soaking:?}").into());
    }
    for setting in ["synchronized_standby_slots", "synchronous_standby_names"] {
        stage.sabotage(drill.to, &format!("ALTER SYSTEM SET {setting} = ''"), false).await?;
    }
    stage.sabotage(drill.to, "SELECT pg_reload_conf()", false).await?;
    let state = stage.cluster.state()?;
    let giver = &state.primary(drill.to)?.part;
    let standbys: Vec<String> = state.siblings(giver).into_iter().map(|part| part.name).collect();
    for standby in &standbys {
        stage.cluster.pause(standby).await?;
    }
    // Whoever connected before the settings were read again would wait for the standbys.
    let row = format!(
        "SET synchronous_commit = local; INSERT INTO trial.op (bucket, seq) VALUES ({}, -5)",
        drill.lo
    );
    stage.sabotage(drill.to, &row, false).await?;
    let arrived = "SELECT EXISTS (SELECT FROM trial.op WHERE seq = -5)";
    let (mut taker, started) = (stage.on_shard(drill.from).await?, Instant::now());
    while !sqlx::query_scalar::<_, bool>(arrived).fetch_one(&mut taker).await? {
        if started.elapsed() > WELL_LIMIT {
            return Err("the giver does not send past its standbys".into());
        }
        tokio::time::sleep(POLL).await;
    }
    stage.cluster.kill(&giver.name).await?;
    // What a stopped standby still has in its socket it may read and keep.
    for standby in &standbys {
        stage.cluster.kill(standby).await?;
        stage.cluster.start(standby).await?;
    }
    stage.cluster.promote_by_force(standbys.first().ok_or("there is no standby")?).await?;
    stage.follow_primaries().await?;
    for (_, outcome) in mover.recover().await? {
        outcome?;
    }
    let record = mover.get(planned.id).await?;
    match record.note {
        Some(note) if !record.reversible && note.contains("lacks") => Ok(()),
        note => Err(format!("reversible {}, note {note:?}", record.reversible).into()),
    }
}
