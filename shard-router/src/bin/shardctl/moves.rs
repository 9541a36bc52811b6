//! The verbs of moves, each printing what it does while it does it.

use crate::reach::{Reach, parse_weight};
use crate::{Failure, Report, render};
use clap::Args;
use serde_json::{Value, json};
use shard_key::Bucket;
use shard_router::ShardId;
use shard_router::moves::{
    BucketRange, Move, MoveError, MoveId, MoveState, Mover, MoverConfig, Proposal, Step, Watch, propose,
};
use std::sync::Arc;
use std::time::{Duration, Instant};

const HOUR_S: f64 = 3600.0;

#[derive(Args)]
pub struct PlanArgs {
    /// Most buckets a move.
    #[arg(long, default_value_t = 64)]
    chunk: u16,
    /// ID=WEIGHT: another share for a shard, in this plan only. 0 empties it.
    #[arg(long = "weight", value_parser = parse_weight)]
    weights: Vec<(ShardId, u32)>,
    /// At most so many moves.
    #[arg(long)]
    most: Option<usize>,
    /// Writes the moves down; `controller` or `move --id` carries them out.
    #[arg(long)]
    write: bool,
}

/// For exercises: what an accident does, on purpose.
#[derive(Args)]
pub struct Drill {
    /// Kills this process after a step (snake_case), leaving everything as it is then.
    #[arg(long, hide = true, value_parser = parse_step)]
    die_after: Option<Step>,
}

fn parse_step(text: &str) -> Result<Step, String> {
    serde_json::from_value(Value::String(text.to_owned())).map_err(|error| error.to_string())
}

/// Prints each step with the time since the one before it.
struct Teller {
    json: bool,
    die_after: Option<Step>,
    last: std::sync::Mutex<Instant>,
}

impl Watch for Teller {
    fn reached(&self, record: &Move, step: Step) -> Result<(), String> {
        let mut last = self.last.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let took = std::mem::replace(&mut *last, Instant::now()).elapsed();
        if self.json {
            let line = json!({ "move_id": record.id, "step": step, "state": record.state, "took_ms": took.as_secs_f64() * 1e3 });
            println!("{line}");
        } else {
            println!("move {}  {:>7.1} ms  {}", record.id, took.as_secs_f64() * 1e3, step.describe());
        }
        if self.die_after == Some(step) {
            std::process::abort();
        }
        Ok(())
    }
}

pub fn mover(reach: &Reach, json: bool, die_after: Option<Step>) -> Result<Mover, Failure> {
    let teller = Teller { json, die_after, last: std::sync::Mutex::new(Instant::now()) };
    let mover = Mover::new(reach.as_admin()?, MoverConfig::default(), Arc::new(teller));
    Ok(match reach.as_stream() {
        Some(login) => mover.streaming_as(login),
        None => mover,
    })
}

fn told(record: &Move) -> Report {
    Report { text: render::record(record, None), json: json!(record), well: true }
}

pub async fn plan(reach: &Reach, args: &PlanArgs, drained: Option<ShardId>) -> Result<Report, Failure> {
    let directory = reach.as_admin()?;
    let mut weights: Vec<(ShardId, u32)> =
        directory.shards().await?.iter().map(|row| (row.shard_id, row.weight)).collect();
    let changed = args.weights.iter().copied().chain(drained.map(|shard| (shard, 0)));
    for (shard, weight) in changed {
        let found = weights.iter_mut().find(|(id, _)| *id == shard);
        found.ok_or_else(|| MoveError::BadRange(format!("there is no shard {shard}")))?.1 = weight;
    }
    let mut proposals = propose(&directory.placements().await?, &weights, args.chunk);
    proposals.truncate(args.most.unwrap_or(usize::MAX));
    let buckets: u64 = proposals.iter().map(|proposal| proposal.range.len()).sum();
    let mut text: String = proposals.iter().map(render::proposal).collect();
    text.push_str(&format!("{} moves, {buckets} of {} buckets\n", proposals.len(), Bucket::COUNT));
    let mut ids = Vec::new();
    if args.write {
        if let Some(shard) = drained {
            directory.drain(shard).await?;
        }
        ids = write(&mover(reach, false, None)?, &proposals).await?;
        text.push_str(&format!("{} written down\n", ids.len()));
    } else {
        text.push_str("nothing is written down; --write does that\n");
    }
    Ok(Report { text, json: json!({ "proposals": proposals, "move_ids": ids }), well: true })
}

async fn write(mover: &Mover, proposals: &[Proposal]) -> Result<Vec<MoveId>, Failure> {
    let mut ids = Vec::new();
    for Proposal { range, from, to } in proposals {
        ids.push(mover.plan(*range, *from, *to).await?.id);
    }
    Ok(ids)
}

pub async fn go(
    reach: &Reach,
    json: bool,
    (range, to, id): (Option<BucketRange>, Option<ShardId>, Option<i64>),
    drill: &Drill,
) -> Result<Report, Failure> {
    let mover = mover(reach, json, drill.die_after)?;
    let id = match (range, to, id) {
        (Some(range), Some(to), _) => {
            let from = owner(reach, range).await?;
            mover.plan(range, from, to).await?.id
        }
        (_, _, Some(id)) => MoveId(id),
        _ => return Err(Failure::Unavailable("a range and --to, or --id".to_owned())),
    };
    Ok(told(&mover.run(id).await?))
}

async fn owner(reach: &Reach, range: BucketRange) -> Result<ShardId, Failure> {
    let first = Bucket::try_from(range.lo()).map_err(|number| format!("{number} is no bucket"))?;
    let placement = reach.as_app()?.placement(first).await?;
    Ok(placement.ok_or_else(|| format!("bucket {first} is not placed: bootstrap first"))?.shard)
}

pub async fn list(reach: &Reach, count: i64) -> Result<Report, Failure> {
    let moves = mover(reach, false, None)?.latest(count).await?;
    let text = moves.iter().map(|record| render::record(record, None)).collect();
    Ok(Report { text, json: json!(moves), well: true })
}

pub async fn pause(reach: &Reach, id: i64, paused: bool) -> Result<Report, Failure> {
    Ok(told(&mover(reach, false, None)?.pause(MoveId(id), paused).await?))
}

pub async fn abort(reach: &Reach, json: bool, id: i64) -> Result<Report, Failure> {
    Ok(told(&mover(reach, json, None)?.abort(MoveId(id)).await?))
}

pub async fn rollback(reach: &Reach, json: bool, id: i64, drill: &Drill) -> Result<Report, Failure> {
    Ok(told(&mover(reach, json, drill.die_after)?.rollback(MoveId(id)).await?))
}

pub async fn verify(reach: &Reach, id: i64) -> Result<Report, Failure> {
    let found = mover(reach, false, None)?.verify(MoveId(id)).await?;
    let text = format!(
        "{} rows compared: {} places agree, {} were too busy to say\n",
        found.rows, found.agreed, found.busy
    );
    Ok(Report { text, json: json!(found), well: found.busy == 0 })
}

pub async fn clean(reach: &Reach, json: bool, id: i64, soaked_h: f64) -> Result<Report, Failure> {
    let mover = mover(reach, json, None)?;
    let record = mover.get(MoveId(id)).await?;
    if record.state == MoveState::Soaking
        && !has_soaked(&record, Duration::from_secs_f64(soaked_h.max(0.0) * HOUR_S))
    {
        let wanted = format!("move {id} has not soaked for {soaked_h} h; --soaked-h says how long is enough");
        return Err(MoveError::WrongState(wanted).into());
    }
    Ok(told(&mover.clean(record.id).await?))
}

/// Whether users have been at the target for so long.
pub fn has_soaked(record: &Move, enough: Duration) -> bool {
    let soaked = record.soaking_since.and_then(|since| (render::now() - since).to_std().ok());
    soaked.is_some_and(|soaked| soaked >= enough)
}

pub async fn recover(reach: &Reach) -> Result<Report, Failure> {
    let touched = mover(reach, false, None)?.recover().await?;
    let mut report = Report { text: String::new(), json: Value::Null, well: true };
    let mut rows = Vec::new();
    for (id, outcome) in touched {
        report.well &= outcome.is_ok();
        match outcome {
            Ok(record) => {
                report.text.push_str(&render::record(&record, None));
                rows.push(json!({ "move_id": id, "move": record }));
            }
            Err(error) => {
                report.text.push_str(&format!("move {id}: {error}\n"));
                rows.push(json!({ "move_id": id, "error": error.to_string() }));
            }
        }
    }
    if rows.is_empty() {
        report.text.push_str("nothing to recover\n");
    }
    report.json = json!(rows);
    Ok(report)
}
