//! `move-trials`: as many seeded moves under load as you like, and everything that can die at every step.

use clap::{Args, Parser, Subcommand};
use devcluster::{ClusterSpec, ServerChoice};
use move_trials::drill::{Drill, DrillReport, Ending, STEPS, Victim};
use move_trials::failover::{
    FAILOVERS, KEEPS_SLOTS, REPLICAS, a_taker_that_ran_ahead_is_not_led_on, wait_well,
};
use move_trials::{History, Load, Problem, Stage, Verdict, windows};
use serde_json::{Value, json};
use shard_router::moves::Step;
use std::collections::BTreeSet;
use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

const BUCKETS: std::ops::Range<i32> = 0..256;
const COUNTERS: i32 = 4;
const WARM_UP: usize = 50;

/// Moves under load on real PostgreSQL. A run that is stopped goes on where it was: what is done stands in --state.
#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    command: Command,
}

#[derive(Args)]
struct Common {
    /// Where what is done is written down, a line each.
    #[arg(long, global = true, default_value = ".tessera/move-trials.jsonl")]
    state: PathBuf,
    /// Operations a second.
    #[arg(long, global = true, default_value_t = 150.0)]
    rate: f64,
    /// Replicas a shard; from two on they are synchronous.
    #[arg(long, global = true, default_value_t = 1)]
    replicas: u16,
    /// Where PostgreSQL comes from: auto, fetch or system.
    #[arg(long, global = true, default_value = "auto")]
    servers: ServerChoice,
}

impl Common {
    fn field(&self) -> windows::Field {
        windows::Field { rate: self.rate, replicas: self.replicas, servers: self.servers }
    }
}

#[derive(Subcommand)]
enum Command {
    /// Moves, each from its own seed.
    Moves {
        /// How many in all.
        #[arg(long, default_value_t = 200)]
        count: u64,
        /// The first seed.
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
    /// Every step with every victim.
    Crashes,
    /// Primaries that die for good, with two synchronous replicas each.
    Failovers,
    /// Write windows of 64 buckets, there and back, with their phases.
    Windows(windows::Options),
    /// Sums up what is written down.
    Report,
}

#[tokio::main]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    let outcome = match cli.command {
        Command::Moves { count, seed } => moves(&cli.common, count, seed).await,
        Command::Crashes => crashes(&cli.common).await,
        Command::Failovers => failovers(cli.common).await,
        Command::Windows(options) => windows::run(&options, cli.common.field()).await,
        Command::Report => report(&cli.common.state),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(problem) => {
            eprintln!("move-trials: {problem}");
            ExitCode::from(2)
        }
    }
}

async fn moves(common: &Common, count: u64, seed: u64) -> Result<bool, Problem> {
    let done = names(&common.state)?;
    let mut field = Field::start(common).await?;
    let mut clean = true;
    for seed in seed..seed + count {
        let name = format!("move {seed}");
        if !done.contains(&name) {
            let drill = Drill::seeded(&field.stage, BUCKETS, seed).await?;
            clean &= field.run(&name, drill).await?;
        }
    }
    Ok(clean)
}

async fn crashes(common: &Common) -> Result<bool, Problem> {
    let done = names(&common.state)?;
    let mut field = Field::start(common).await?;
    let mut clean = true;
    for (number, (step, victim)) in points().into_iter().enumerate() {
        let name = format!("{victim:?} after {step:?}");
        if !done.contains(&name) {
            let drill = Drill::seeded(&field.stage, BUCKETS, number as u64).await?;
            let ending = if number % 2 == 0 { Ending::Clean } else { Ending::Rollback };
            clean &= field.run(&name, Drill { ending, crash: Some((step, victim)), ..drill }).await?;
        }
    }
    Ok(clean)
}

async fn failovers(common: Common) -> Result<bool, Problem> {
    let common = Common { replicas: common.replicas.max(REPLICAS), ..common };
    let done = names(&common.state)?;
    let mut field = Field::start(&common).await?;
    let version = field.stage.version().await?;
    let mut clean = true;
    for (number, failover) in FAILOVERS.into_iter().enumerate() {
        let name = format!("{version}: {:?} fails over after {:?}", failover.victim, failover.step);
        if !done.contains(&name) {
            let drill = Drill::seeded(&field.stage, BUCKETS, number as u64).await?;
            let (well, report) = field.run_for(&name, failover.drill(drill)).await?;
            failover.judge(&report, version)?;
            clean &= well;
        }
    }
    drop(field);
    let name = format!("{version}: a taker that ran ahead of its giver, which fails over, is not led on");
    if version >= KEEPS_SLOTS && !done.contains(&name) {
        let field = Field::start(&common).await?;
        let drill = Drill::seeded(&field.stage, BUCKETS, 0).await?;
        a_taker_that_ran_ahead_is_not_led_on(&field.stage, &drill).await?;
        append(&common.state, &json!({ "name": name, "clean": true }))?;
        println!("{name}");
    }
    Ok(clean)
}

fn points() -> Vec<(Step, Victim)> {
    STEPS.into_iter().flat_map(|step| Victim::ALL.map(|victim| (step, victim))).collect()
}

/// Servers and everything that has ever been written to them.
struct Field<'a> {
    common: &'a Common,
    stage: Arc<Stage>,
    history: Arc<History>,
    loads: u64,
}

impl<'a> Field<'a> {
    async fn start(common: &'a Common) -> Result<Self, Problem> {
        let spec = ClusterSpec::default().replicas(common.replicas).servers(common.servers);
        let stage = Arc::new(Stage::start(spec, BUCKETS, COUNTERS).await?);
        Ok(Self { common, stage, history: Arc::new(History::new(BUCKETS, COUNTERS)), loads: 0 })
    }

    /// One drill under load, then the checker.
    async fn run(&mut self, name: &str, drill: Drill) -> Result<bool, Problem> {
        Ok(self.run_for(name, drill).await?.0)
    }

    async fn run_for(&mut self, name: &str, drill: Drill) -> Result<(bool, DrillReport), Problem> {
        self.loads += 1;
        let fresh = format!("fresh-{}", self.loads);
        // A router that never hears of the directory again cannot find a primary that was promoted.
        let stale = !drill.for_good;
        let routers = vec![
            self.stage.router(&fresh, false).await?,
            self.stage.router(&format!("stale-{}", self.loads), stale).await?,
        ];
        let history = Arc::clone(&self.history);
        let load = Load::start(routers, history, BUCKETS, COUNTERS, (self.common.rate, self.loads));
        while load.count() < WARM_UP {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let outcome = drill.carry_out(&self.stage, None).await;
        let well = if drill.for_good && outcome.is_ok() { wait_well(&load, &drill).await } else { Ok(()) };
        let seen = load.stop().await?;
        let verdict = self.history.check(&self.stage).await?;
        let report = outcome?;
        well?;
        let range = drill.lo..=drill.hi;
        let mut on_range: Vec<Duration> =
            seen.samples.iter().filter(|s| range.contains(&s.bucket)).map(|s| s.took).collect();
        on_range.sort_unstable();
        let slowest = on_range.last().copied().unwrap_or_default();
        write_down(&self.common.state, name, drill, &report, &verdict, (seen.failed(), slowest))?;
        let clean = verdict.is_clean() && (drill.crash.is_some() || seen.failed() == 0);
        println!(
            "{name:32} {:9} window {:>6} back {:>6} slowest {:>5} ms failed {:>3} ops {:>6} {}",
            report.state.map_or("?", shard_router::moves::MoveState::name),
            ms(report.window),
            ms(report.window_back),
            slowest.as_millis(),
            seen.failed(),
            verdict.operations,
            if verdict.is_clean() { "clean".to_owned() } else { format!("{verdict:?}") },
        );
        if drill.for_good {
            let DrillReport { recopied, reversible, note, .. } = &report;
            println!("{:32} recopied {recopied} reversible {reversible} note {note:?}", "");
        }
        Ok((clean, report))
    }
}

fn ms(time: Option<Duration>) -> String {
    time.map_or_else(|| "-".to_owned(), |time| time.as_millis().to_string())
}

fn write_down(
    state: &Path,
    name: &str,
    drill: Drill,
    report: &DrillReport,
    verdict: &Verdict,
    (failed, slowest): (usize, Duration),
) -> Result<(), Problem> {
    let line = json!({
        "name": name, "lo": drill.lo, "hi": drill.hi, "from": drill.from, "to": drill.to,
        "ending": drill.ending, "state": report.state, "rows": report.rows, "verified": report.verified,
        "window_ms": report.window.map(|t| t.as_millis() as u64),
        "window_back_ms": report.window_back.map(|t| t.as_millis() as u64),
        "recovery_ms": report.recovery.map(|t| t.as_millis() as u64),
        "recopied": report.recopied, "reversible": report.reversible, "note": report.note,
        "failed": failed, "slowest_ms": slowest.as_millis() as u64,
        "clean": verdict.is_clean(), "verdict": verdict,
    });
    append(state, &line)
}

fn append(state: &Path, line: &Value) -> Result<(), Problem> {
    if let Some(folder) = state.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let mut file = OpenOptions::new().create(true).append(true).open(state)?;
    Ok(writeln!(file, "{line}")?)
}

fn lines(state: &Path) -> Result<Vec<Value>, Problem> {
    match std::fs::read_to_string(state) {
        Ok(text) => Ok(text.lines().map(serde_json::from_str).collect::<Result<_, _>>()?),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error.into()),
    }
}

fn names(state: &Path) -> Result<BTreeSet<String>, Problem> {
    Ok(lines(state)?.iter().filter_map(|line| Some(line["name"].as_str()?.to_owned())).collect())
}

fn report(state: &Path) -> Result<bool, Problem> {
    let lines = lines(state)?;
    let mut well = true;
    let of_moves = |line: &&Value| line["name"].as_str().is_some_and(|name| name.starts_with("move "));
    let of_failovers = |line: &&Value| line["name"].as_str().is_some_and(|name| name.contains(" fails over"));
    let (moves, rest): (Vec<_>, Vec<_>) = lines.iter().partition(|line| of_moves(line));
    let (failovers, crashes): (Vec<_>, Vec<_>) = rest.into_iter().partition(|line| of_failovers(line));
    for (what, lines) in [("moves", moves), ("crash points", crashes), ("failovers", failovers)] {
        let unclean = lines.iter().filter(|line| line["clean"] != true).count();
        let failed: u64 = lines.iter().filter_map(|line| line["failed"].as_u64()).sum();
        println!("{what}: {}, unclean {unclean}, requests that failed {failed}", lines.len());
        well &= unclean == 0;
        for key in ["window_ms", "window_back_ms", "slowest_ms", "recovery_ms"] {
            let mut times: Vec<u64> = lines.iter().filter_map(|line| line[key].as_u64()).collect();
            times.sort_unstable();
            let at = |share: f64| times.get((times.len() as f64 * share) as usize).or(times.last());
            if let (Some(p50), Some(p99), Some(max)) = (at(0.5), at(0.99), times.last()) {
                println!("  {key:15} p50 {p50} p99 {p99} max {max} of {}", times.len());
            }
        }
    }
    Ok(well)
}
