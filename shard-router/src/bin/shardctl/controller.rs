//! `shardctl controller`: carries out what is written down, within limits, without anybody at the keyboard.

use crate::moves::{has_soaked, mover};
use crate::reach::Reach;
use crate::{Failure, Report, render};
use chrono::Timelike;
use clap::Args;
use serde_json::json;
use shard_router::moves::{Move, MoveId, MoveState, Mover};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinHandle;

#[derive(Args)]
pub struct ControllerArgs {
    /// Moves at a time; each pair of shards has one at most.
    #[arg(long, default_value_t = 1)]
    at_once: usize,
    /// FROM-TO in UTC: only in these hours a move begins. 22-6 goes over midnight.
    #[arg(long, value_parser = parse_hours)]
    hours: Option<(u32, u32)>,
    /// No move begins while a shard's stream is further behind, in bytes.
    #[arg(long, default_value_t = 256 * 1024 * 1024)]
    max_lag_bytes: i64,
    /// Cleans a move that has soaked for so many hours; without it, cleaning is left to people.
    #[arg(long)]
    clean_after_h: Option<f64>,
    /// Seconds between two looks.
    #[arg(long, default_value_t = 2.0)]
    interval_s: f64,
    /// Ends once nothing is planned or under way.
    #[arg(long)]
    until_idle: bool,
}

/// A move that has failed waits this long, twice as long after each further failure, up to a limit.
const FIRST_PAUSE: Duration = Duration::from_secs(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(600);

struct Controller<'a> {
    mover: Mover,
    limits: &'a ControllerArgs,
    running: BTreeMap<MoveId, JoinHandle<()>>,
    failures: std::sync::Arc<std::sync::Mutex<BTreeMap<MoveId, (u32, std::time::Instant)>>>,
}

pub async fn run(reach: &Reach, json: bool, limits: &ControllerArgs) -> Result<Report, Failure> {
    let mover = mover(reach, json, None)?;
    let mut controller =
        Controller { mover, limits, running: BTreeMap::new(), failures: std::sync::Arc::default() };
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let interval = Duration::from_secs_f64(limits.interval_s.clamp(0.1, 3600.0));
    loop {
        let idle = match controller.look().await {
            Ok(idle) => idle,
            Err(error) => {
                eprintln!("shardctl: {}", Failure::from(error).told().0);
                false
            }
        };
        if idle && limits.until_idle {
            break;
        }
        tokio::select! {
            () = tokio::time::sleep(interval) => {}
            _ = term.recv() => break,
            _ = int.recv() => break,
        }
    }
    // A window that is open ends by itself; whatever else is under way is taken up by the next controller.
    let left: Vec<_> = controller.running.into_keys().collect();
    Ok(Report { text: "controller ended\n".to_owned(), json: json!({ "left": left }), well: true })
}

impl Controller<'_> {
    /// Begins what may begin; whether nothing is left to do.
    async fn look(&mut self) -> Result<bool, shard_router::moves::MoveError> {
        self.running.retain(|_, task| !task.is_finished());
        for (id, outcome) in self.mover.recover().await? {
            if let Err(error) = outcome {
                eprintln!("shardctl: move {id}: {error}");
            }
        }
        let open = self.mover.open_moves().await?;
        for record in &open {
            if self.running.len() >= self.limits.at_once {
                break;
            }
            if self.may_begin(record).await {
                self.begin(record);
            }
        }
        let waits = |record: &Move| match record.state {
            MoveState::Soaking => self.limits.clean_after_h.is_some(),
            _ => !record.paused,
        };
        Ok(self.running.is_empty() && !open.iter().any(waits))
    }

    async fn may_begin(&self, record: &Move) -> bool {
        let wanted = match record.state {
            MoveState::Soaking => self.limits.clean_after_h.is_some_and(|hours| {
                record.verified != Some(false) && has_soaked(record, Duration::from_secs_f64(hours * 3600.0))
            }),
            _ => true,
        };
        wanted
            && !record.paused
            && !self.running.contains_key(&record.id)
            && self.has_paused(record.id)
            && self.is_time(record)
            && self.keeps_up(record).await
    }

    /// What was begun goes on at any hour: it holds disk on the source until it has ended.
    fn is_time(&self, record: &Move) -> bool {
        record.state != MoveState::Planned
            || self.limits.hours.is_none_or(|hours| within(render::now().hour(), hours))
    }

    async fn keeps_up(&self, record: &Move) -> bool {
        if record.state != MoveState::Planned {
            return true;
        }
        let Ok(open) = self.mover.open_moves().await else { return false };
        for other in open.iter().filter(|other| other.state != MoveState::Planned) {
            let progress = self.mover.progress(other, render::now()).await;
            let lag = progress.ok().and_then(|progress| progress.lag_bytes).unwrap_or(0);
            if lag > self.limits.max_lag_bytes {
                return false;
            }
        }
        true
    }

    fn has_paused(&self, id: MoveId) -> bool {
        let failures = self.failures.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        failures.get(&id).is_none_or(|(count, at)| {
            at.elapsed()
                >= LONGEST_PAUSE.min(FIRST_PAUSE * 2_u32.saturating_pow(count.saturating_sub(1).min(10)))
        })
    }

    fn begin(&mut self, record: &Move) {
        let (mover, id, state) = (self.mover.clone(), record.id, record.state);
        let failures = std::sync::Arc::clone(&self.failures);
        let work = async move {
            let outcome =
                if state == MoveState::Soaking { mover.clean(id).await } else { mover.run(id).await };
            let mut failures = failures.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            match outcome {
                Ok(_) => drop(failures.remove(&id)),
                Err(error) => {
                    eprintln!("shardctl: move {id}: {error}");
                    let count = failures.get(&id).map_or(0, |(count, _)| *count);
                    failures.insert(id, (count + 1, std::time::Instant::now()));
                }
            }
        };
        self.running.insert(id, tokio::spawn(work));
    }
}

fn parse_hours(text: &str) -> Result<(u32, u32), String> {
    let (from, to) = text.split_once('-').ok_or("expected FROM-TO")?;
    let hour = |text: &str| text.parse().ok().filter(|hour| *hour < 24).ok_or(format!("{text} is no hour"));
    Ok((hour(from)?, hour(to)?))
}

fn within(hour: u32, (from, to): (u32, u32)) -> bool {
    if from <= to { (from..to).contains(&hour) } else { hour >= from || hour < to }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn hours_may_go_over_midnight() {
        assert_eq!(parse_hours("22-6"), Ok((22, 6)));
        assert!(parse_hours("22-24").is_err() && parse_hours("6").is_err());
        assert!(within(23, (22, 6)) && within(5, (22, 6)) && !within(6, (22, 6)) && !within(21, (22, 6)));
        assert!(within(6, (6, 8)) && !within(8, (6, 8)));
    }
}
