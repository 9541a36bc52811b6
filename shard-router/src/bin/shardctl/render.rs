//! Moves as text for people.

use chrono::{DateTime, Utc};
use shard_router::moves::{Move, MoveState, Progress, Proposal};
use std::fmt::Write;
use std::time::Duration;

const BAR: usize = 24;

/// The operator's own clock: only to say how long something takes.
#[expect(clippy::disallowed_methods, reason = "a command has no clock handed to it")]
pub fn now() -> DateTime<Utc> {
    Utc::now()
}

/// One move on one line, or two if there is something to say.
pub fn record(record: &Move, progress: Option<&Progress>) -> String {
    let Move { id, range, src, dst, state, attempt, .. } = record;
    let mut line = format!("move {id:<4} {range:<11} shard {src} -> {dst}  {:<11}", state.name());
    match progress {
        Some(progress) if *state == MoveState::Copying => {
            let done = (progress.share() * BAR as f64) as usize;
            let all = progress.rows_estimated.map_or_else(|| "?".to_owned(), |rows| rows.to_string());
            let _ = write!(line, " [{}{}] ", "#".repeat(done), ".".repeat(BAR - done));
            let _ = write!(
                line,
                "{} of {all} rows, tables {} of {}",
                progress.rows_copied, progress.tables.0, progress.tables.1
            );
            let _ = write!(
                line,
                "{}",
                progress.eta.map_or_else(String::new, |eta| format!(", {} left", time(eta)))
            );
        }
        Some(progress) if *state == MoveState::Soaking => {
            let since =
                record.soaking_since.and_then(|since| (now() - since).to_std().ok()).unwrap_or_default();
            let back = if record.reversible { "open" } else { "CLOSED" };
            let _ = write!(line, " for {}, way back {back}", time(since));
            let _ = write!(
                line,
                "{}",
                progress.lag_bytes.map_or_else(String::new, |lag| format!(" ({lag} bytes behind)"))
            );
        }
        _ if *attempt > 1 => {
            let _ = write!(line, " attempt {attempt}");
        }
        _ => {}
    }
    if let Some(progress) = progress.filter(|progress| progress.stream_errors > 0) {
        let _ = write!(line, "  STREAM ERRORS {}", progress.stream_errors);
    }
    line.push_str(match record.verified {
        Some(true) => "  every row equal",
        Some(false) => "  ROWS DIFFER",
        None => "",
    });
    line.push_str(if record.paused { "  paused" } else { "" });
    line.truncate(line.trim_end().len());
    if let Some(note) = &record.note {
        let _ = write!(line, "\n          {note}");
    }
    line + "\n"
}

pub fn proposal(proposal: &Proposal) -> String {
    let Proposal { range, from, to } = proposal;
    format!("  {:<11} {:>4} buckets  shard {from} -> {to}\n", range.to_string(), range.len())
}

/// Rounded to what a person wants to know.
pub fn time(time: Duration) -> String {
    match time.as_secs() {
        0 => format!("{} ms", time.as_millis()),
        s @ 1..=119 => format!("{s} s"),
        s @ 120..=7199 => format!("{} min", s / 60),
        s => format!("{} h", s / 3600),
    }
}
