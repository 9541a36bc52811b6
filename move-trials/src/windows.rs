//! Write windows of moves of exactly 64 buckets, there and back, under an open loop.
//!
//! What [`drill`](crate::drill) tries is whether moves are safe; here it is how long users wait. One range lives on
//! either shard and the two take turns; half of the load is on each. Every window is written down with its phases, as
//! the mover's watch was told of them, and with what the clients of the range saw meanwhile.

use crate::stage::shard;
use crate::{History, Load, Problem, Sample, Stage};
use devcluster::{ClusterSpec, ServerChoice};
use serde::{Deserialize, Serialize};
use shard_router::moves::{BucketRange, Move, MoveState, Mover, Step, Watch};
use shard_router::shard_key::Bucket;
use std::fs::OpenOptions;
use std::io::Write;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Buckets of a move.
const WIDTH: i32 = 64;
/// The first bucket of shard 2, as [`Stage`] places them: one range lies before it and one from it on.
const BORDER: i32 = 8192;
const BUCKETS: std::ops::Range<i32> = BORDER - WIDTH..BORDER + WIDTH;
const WARM_UP: usize = 200;
/// Between the way there and the way back, and after it: so that what one window delays is not the other's.
const CALM: Duration = Duration::from_millis(400);

/// What to measure.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// Moves there and back, in all, with this number of replicas.
    #[arg(long, default_value_t = 50)]
    pub moves: usize,
    /// Rows in each bucket when the load begins.
    #[arg(long, default_value_t = 200)]
    pub rows: i32,
    /// Where windows are written down, a line each; a run that was stopped goes on there.
    #[arg(long, default_value = ".tessera/move-windows.jsonl")]
    pub record: PathBuf,
    /// The document whose section is written anew, from all that is written down.
    #[arg(long)]
    pub write: Option<PathBuf>,
}

/// What every subcommand is told.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    /// Operations a second.
    pub rate: f64,
    /// Replicas a shard; from two on they are synchronous.
    pub replicas: u16,
    /// Where PostgreSQL comes from.
    pub servers: ServerChoice,
}

/// One window, in milliseconds.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Window {
    /// Replicas a shard.
    pub replicas: u16,
    /// The way back.
    pub back: bool,
    /// From the directory's word that the window opens until the source redirects.
    pub window: f64,
    /// Its parts, in the order of [`PHASES`].
    pub phases: [f64; 7],
    /// The longest time in which no operation on the range ended.
    pub gap: f64,
    /// The same in as long a time before the window.
    pub gap_before: f64,
    /// The operation on the range that took longest, from the moment at which it was due.
    pub slowest: f64,
    /// The same before the window.
    pub slowest_before: f64,
    /// Operations on the range that were under way in the window, or due.
    pub touched: usize,
    /// Operations that ended since the last look, on any range, for which a node would have answered 503.
    pub failed: usize,
    /// Windows of this way that were undone before this one.
    pub undone: usize,
    /// Rows of the range that were compared; none, or unequal ones, are a failure of the trial.
    pub rows: i64,
    /// Processes that ran or waited to, over the last minute.
    pub load_average: f64,
    /// Whether these tools were built without optimisation.
    pub debug: bool,
}

/// Names of the parts of a window, and the step with which each ends.
pub const PHASES: [(&str, Step); 7] = [
    ("fence", Step::Fenced),
    ("drain", Step::Drained),
    ("marker", Step::MarkerArrived),
    ("pin", Step::SnapshotsPinned),
    ("decision", Step::Decided),
    ("activation", Step::Activated),
    ("redirect", Step::SourceMoved),
];

/// When each step was taken.
#[derive(Default)]
struct Clock(Mutex<Vec<(Step, Instant)>>);

impl Watch for Clock {
    fn reached(&self, _: &Move, step: Step) -> Result<(), String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push((step, Instant::now()));
        Ok(())
    }
}

/// The steps of the last window that was passed: when it opened, and when each of its parts ended.
struct Passed {
    opened: Instant,
    ends: [Instant; 7],
    undone: usize,
}

impl Clock {
    fn take(&self) -> Option<Passed> {
        let steps = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        let last = steps.iter().rposition(|(step, _)| *step == Step::FenceDecided)?;
        let opened = steps[last].1;
        let end = |wanted| steps[last..].iter().find(|(step, _)| *step == wanted).map(|(_, at)| *at);
        let mut ends = [opened; 7];
        for (at, (_, step)) in ends.iter_mut().zip(PHASES) {
            *at = end(step)?;
        }
        let undone = steps[..last].iter().filter(|(step, _)| *step == Step::FenceDecided).count();
        Some(Passed { opened, ends, undone })
    }
}

/// Measures what is not yet written down; whether nothing failed and nothing was lost.
///
/// # Errors
/// A move did not end as it had to.
pub async fn run(options: &Options, field: Field) -> Result<bool, Problem> {
    let done = read(&options.record)?.iter().filter(|w| w.replicas == field.replicas && w.back).count();
    if done < options.moves {
        let spec = ClusterSpec::default().replicas(field.replicas).servers(field.servers);
        let stage = Arc::new(Stage::start(spec, BUCKETS, options.rows).await?);
        let history = Arc::new(History::new(BUCKETS, options.rows));
        let routers = vec![stage.router("fresh", false).await?, stage.router("stale", true).await?];
        let load =
            Load::start(routers, Arc::clone(&history), BUCKETS, options.rows, (field.rate, done as u64 + 1));
        while load.count() < WARM_UP {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let mut seen = 0;
        for number in done..options.moves {
            there_and_back(&stage, &load, &mut seen, (field.replicas, number), &options.record).await?;
        }
        load.stop().await?;
        let verdict = history.check(&stage).await?;
        if !verdict.is_clean() {
            return Err(format!("the checker is not content: {verdict:?}").into());
        }
        println!("{} operations, none lost, none twice, no stale read", verdict.operations);
    }
    let windows = read(&options.record)?;
    let text = crate::windows_report::text(&windows, field.rate);
    println!("{text}");
    if let Some(path) = &options.write {
        crate::windows_report::write(path, &text)?;
    }
    Ok(windows.iter().all(|window| window.failed == 0))
}

async fn there_and_back(
    stage: &Arc<Stage>,
    load: &Load,
    seen: &mut usize,
    (replicas, number): (u16, usize),
    record: &Path,
) -> Result<(), Problem> {
    let (lo, from, to) = if number % 2 == 0 { (BORDER - WIDTH, 1, 2) } else { (BORDER, 2, 1) };
    let (first, last) = (Bucket::try_from(lo), Bucket::try_from(lo + WIDTH - 1));
    let range = BucketRange::new(first.map_err(|_| "no bucket")?, last.map_err(|_| "no bucket")?);
    let clock = Arc::new(Clock::default());
    let mover = stage.mover(Arc::clone(&clock) as Arc<dyn Watch>);
    let planned = mover.plan(range.ok_or("no range")?, shard(from), shard(to)).await?;
    for back in [false, true] {
        let ended = one_way(&mover, &planned, back).await?;
        let passed = clock.take().ok_or("the move passed no window")?;
        tokio::time::sleep(CALM).await;
        let samples = load.since(*seen);
        *seen += samples.len();
        let mut window = look(&samples, load.began(), &passed, lo..=lo + WIDTH - 1);
        (window.replicas, window.back) = (replicas, back);
        window.rows = ended.rows_estimated.unwrap_or_default();
        write_down(record, &window)?;
        println!(
            "move {number:3} {} window {:6.1} gap {:6.1} slowest {:6.1} ms failed {} load {}",
            if back { "back " } else { "there" },
            window.window,
            window.gap,
            window.slowest,
            window.failed,
            window.load_average
        );
    }
    Ok(())
}

async fn one_way(mover: &Mover, planned: &Move, back: bool) -> Result<Move, Problem> {
    let ended = if back { mover.rollback(planned.id).await? } else { mover.run(planned.id).await? };
    let wanted = if back { MoveState::RolledBack } else { MoveState::Soaking };
    if ended.state != wanted || (!back && ended.verified != Some(true)) {
        return Err(format!("move {} is {}, verified {:?}", ended.id, ended.state, ended.verified).into());
    }
    Ok(ended)
}

/// What the load saw of a window.
fn look(samples: &[Sample], began: Instant, passed: &Passed, range: RangeInclusive<i32>) -> Window {
    let since = |at: Instant| at.saturating_duration_since(began);
    let (opened, closed) = (since(passed.opened), since(passed.ends[6]));
    let on_range: Vec<(Duration, Duration)> = samples
        .iter()
        .filter(|sample| range.contains(&sample.bucket))
        .map(|sample| (sample.at, sample.at + sample.took))
        .collect();
    // As long a time, a little earlier.
    let length = closed - opened;
    let before = (opened.saturating_sub(length * 2), opened.saturating_sub(length));
    let ms = |time: Duration| time.as_secs_f64() * 1000.0;
    let mut phases = [0.0; 7];
    let mut begun = passed.opened;
    for (phase, end) in phases.iter_mut().zip(passed.ends) {
        *phase = ms(end.saturating_duration_since(begun));
        begun = end;
    }
    Window {
        window: ms(closed - opened),
        phases,
        gap: ms(gap(&on_range, (opened, closed))),
        gap_before: ms(gap(&on_range, before)),
        slowest: ms(slowest(&on_range, (opened, closed))),
        slowest_before: ms(slowest(&on_range, before)),
        touched: on_range.iter().filter(|(due, end)| *due <= closed && *end >= opened).count(),
        failed: samples.iter().filter(|sample| sample.failed).count(),
        undone: passed.undone,
        load_average: load_average(),
        debug: cfg!(debug_assertions),
        ..Window::default()
    }
}

/// The longest time without an end that touches `within`.
fn gap(operations: &[(Duration, Duration)], within: (Duration, Duration)) -> Duration {
    let mut ends: Vec<Duration> = operations.iter().map(|(_, end)| *end).collect();
    ends.sort_unstable();
    let touching = ends.windows(2).filter(|pair| pair[0] <= within.1 && pair[1] >= within.0);
    touching.map(|pair| pair[1] - pair[0]).max().unwrap_or_default()
}

/// The longest of the operations that were under way within a time.
fn slowest(operations: &[(Duration, Duration)], within: (Duration, Duration)) -> Duration {
    let touching = operations.iter().filter(|(due, end)| *due <= within.1 && *end >= within.0);
    touching.map(|(due, end)| *end - *due).max().unwrap_or_default()
}

fn load_average() -> f64 {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().and_then(|word| word.parse().ok()).unwrap_or_default()
}

fn write_down(record: &Path, window: &Window) -> Result<(), Problem> {
    if let Some(folder) = record.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let mut file = OpenOptions::new().create(true).append(true).open(record)?;
    Ok(writeln!(file, "{}", serde_json::to_string(window)?)?)
}

fn read(record: &Path) -> Result<Vec<Window>, Problem> {
    match std::fs::read_to_string(record) {
        Ok(text) => Ok(text.lines().map(serde_json::from_str).collect::<Result<_, _>>()?),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn gaps_and_slow_operations_are_those_that_touch_the_window() {
        let operations =
            [(at(0), at(5)), (at(10), at(12)), (at(20), at(90)), (at(95), at(97)), (at(200), at(400))];
        assert_eq!(gap(&operations, (at(30), at(80))), at(78));
        assert_eq!(slowest(&operations, (at(30), at(80))), at(70));
        assert_eq!(slowest(&operations, (at(6), at(9))), Duration::ZERO);
        assert_eq!(gap(&operations, (at(0), at(6))), at(7));
    }

    #[test]
    fn the_last_window_counts_and_what_was_undone_before_it() {
        let clock = Clock::default();
        let start = Instant::now();
        let first = [Step::FenceDecided, Step::Fenced, Step::FenceDecided];
        for (step, ms) in first.into_iter().chain(PHASES.map(|(_, step)| step)).zip(0..) {
            clock.0.lock().unwrap().push((step, start + at(ms)));
        }
        let passed = clock.take().unwrap();
        assert_eq!((passed.opened, passed.undone), (start + at(2), 1));
        assert_eq!(passed.ends[6], start + at(9));
        assert!(clock.take().is_none());
    }
}
