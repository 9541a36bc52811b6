//! `loadtest journeys` and `loadtest open`; `make load` calls them.
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::{Args, Parser, Subcommand};
use loadtest::api::Site;
use loadtest::marks;
use loadtest::open::{self, Mix};
use loadtest::record::Recorder;
use loadtest::report::{self, Facts, Kind};
use loadtest::schedule::Arrivals;
use loadtest::target::Target;
use loadtest::{journeys::Journey, machine};

/// Puts load on a running cluster and says how it fared: a table here, and an HTML file with plots.
///
/// Only this machine (127.0.0.0/8, ::1, localhost) is taken as a target, unless you say --i-own-this-target. Every
/// virtual user speaks from an address of its own (X-Forwarded-For), which a node believes only from its trusted
/// proxies. People that a run signs up are called load-…@example.com and stay. Runs are bounded: at most an hour,
/// 10,000 users or requests in flight, 50,000 arrivals a second, and --max-requests.
#[derive(Debug, Parser)]
#[command(name = "loadtest")]
struct Cli {
    #[command(subcommand)]
    mode: Mode,
}

#[derive(Debug, Subcommand)]
enum Mode {
    /// Closed loop: virtual users walk through journeys (goose); each waits for its answers.
    Journeys(JourneysArgs),
    /// Open loop: requests start on a schedule, latency counts from the moment they were due.
    Open(OpenArgs),
}

#[derive(Debug, Args)]
struct Common {
    /// Base addresses of the nodes, which take turns.
    #[arg(
        long = "host",
        value_delimiter = ',',
        default_value = "http://127.0.0.1:3002,http://127.0.0.1:3012"
    )]
    hosts: Vec<String>,
    /// The hosts are mine to load, though they are not this machine.
    #[arg(long)]
    i_own_this_target: bool,
    /// Seconds.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=3_600))]
    time: u64,
    /// Ends the run after so many requests.
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    max_requests: u64,
    /// Exit with 1 if more requests failed or were dropped than this.
    #[arg(long)]
    max_errors: Option<u64>,
    /// What happened meanwhile, to be drawn over the plots: lines `UNIX_MILLIS<TAB>LABEL`, or `FROM-UNTIL<TAB>LABEL`
    /// for a span. Read when the run ends.
    #[arg(long)]
    marks: Option<PathBuf>,
    /// Where the HTML file goes.
    #[arg(long, default_value = ".tessera/reports")]
    reports: PathBuf,
}

#[derive(Debug, Args)]
struct JourneysArgs {
    #[command(flatten)]
    common: Common,
    /// Virtual users in all.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    users: u64,
    /// Which journeys: all together, or some. Of ten users two live session-life, one login-storm, two session-checks,
    /// five returning-users.
    #[arg(long, value_enum, value_delimiter = ',')]
    journeys: Vec<Journey>,
    /// In a session-life.
    #[arg(long, default_value_t = loadtest::journeys::REFRESHES, value_parser = clap::value_parser!(u32).range(0..=1_000))]
    refreshes: u32,
}

#[derive(Debug, Args)]
struct OpenArgs {
    #[command(flatten)]
    common: Common,
    /// Arrivals a second, on average.
    #[arg(long, default_value_t = 100.0, value_parser = rate)]
    rate: f64,
    /// How arrivals follow each other.
    #[arg(long, value_enum, default_value_t = Arrivals::Poisson)]
    arrivals: Arrivals,
    /// What they ask for, with shares.
    #[arg(long, default_value = "verify:65,refresh:30,login:5")]
    mix: Mix,
    /// At most so many on their way, each with a session of its own that is made first; further arrivals are dropped.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    in_flight: u64,
    /// Of the schedule: the same seed, the same moments.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

fn rate(text: &str) -> Result<f64, String> {
    let rate: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    if (0.1..=50_000.0).contains(&rate) { Ok(rate) } else { Err("must be from 0.1 to 50000".to_owned()) }
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let done = runtime.block_on(async {
        match cli.mode {
            Mode::Journeys(arguments) => run_journeys(arguments).await,
            Mode::Open(arguments) => run_open(arguments).await,
        }
    });
    done.unwrap_or_else(|error| {
        eprintln!("loadtest: {error}");
        ExitCode::from(2)
    })
}

#[cfg(not(feature = "goose"))]
async fn run_journeys(_: JourneysArgs) -> Result<ExitCode, String> {
    Err("built without goose: cargo run -p loadtest --features goose".to_owned())
}

#[cfg(feature = "goose")]
async fn run_journeys(arguments: JourneysArgs) -> Result<ExitCode, String> {
    use loadtest::closed;
    let JourneysArgs { common, users, mut journeys, refreshes } = arguments;
    if journeys.is_empty() {
        journeys = Journey::ALL.to_vec();
    }
    let length = Duration::from_secs(common.time);
    let users = usize::try_from(users).expect("at most 10,000");
    let plan = closed::Plan { users, length, journeys, refreshes, most_requests: common.max_requests };
    let target = checked(&common).await?;
    let watch = Watch::start(&target);
    let site = Arc::new(Site::new(target, Recorder::new(), &run_id()));
    let counted = closed::run(Arc::clone(&site), &plan).await?;
    let tally = site.recorder.tally();
    if counted != tally.lateness.len() {
        eprintln!("goose counted {counted} requests, we {}", tally.lateness.len());
    }
    let length = length.min(watch.start.elapsed());
    finish(&common, watch.facts(length, Kind::Closed { users }), &tally)
}

async fn run_open(arguments: OpenArgs) -> Result<ExitCode, String> {
    let OpenArgs { common, rate, arrivals, mix, in_flight, seed } = arguments;
    let length = Duration::from_secs(common.time);
    let in_flight = usize::try_from(in_flight).expect("at most 10,000");
    let most_requests = common.max_requests;
    let plan = open::Plan { rate_per_s: rate, length, arrivals, mix, in_flight, most_requests, seed };
    let target = checked(&common).await?;
    eprintln!("signing up {in_flight} people …");
    let site = Arc::new(Site::new(target, Recorder::new(), &run_id()));
    let crowd = open::gather(&site, in_flight).await?;
    let site = Arc::into_inner(site).expect("everybody is signed up").restart(Recorder::new());
    eprintln!("{rate}/s for {} s …", common.time);
    let watch = Watch::start(&site.target);
    let site = Arc::new(site);
    let length = open::run(Arc::clone(&site), crowd, &plan).await?;
    let kind = Kind::Open { rate_per_s: rate, in_flight };
    finish(&common, watch.facts(length, kind), &site.recorder.tally())
}

async fn checked(common: &Common) -> Result<Target, String> {
    let target = Target::new(&common.hosts, common.i_own_this_target)?;
    target.check().await?;
    Ok(target)
}

/// No two runs sign up the same people.
fn run_id() -> String {
    format!("{:x}-{}", machine::now().timestamp_micros(), std::process::id())
}

/// The state of the machine when the run began.
struct Watch {
    nodes: Vec<String>,
    begun: chrono::DateTime<chrono::Utc>,
    start: Instant,
    cpu: Duration,
    load_average: String,
}

impl Watch {
    fn start(target: &Target) -> Self {
        Self {
            nodes: target.nodes().to_vec(),
            begun: machine::now(),
            start: Instant::now(),
            cpu: machine::cpu_used(),
            load_average: machine::load_average(),
        }
    }

    fn facts(self, length: Duration, kind: Kind) -> Facts {
        let arguments: Vec<String> = std::env::args().skip(1).collect();
        Facts {
            command: format!("loadtest {}", arguments.join(" ")),
            nodes: self.nodes,
            begun: self.begun,
            length,
            took: self.start.elapsed(),
            load_average: [self.load_average, machine::load_average()],
            cores: machine::cores(),
            generator_cpu: machine::cpu_used().saturating_sub(self.cpu),
            kind,
            marks: Vec::new(),
        }
    }
}

fn finish(common: &Common, mut facts: Facts, tally: &loadtest::record::Tally) -> Result<ExitCode, String> {
    if let Some(file) = &common.marks {
        match marks::read(file, facts.begun) {
            Ok(marks) => facts.marks = marks,
            // The run is worth its report without them.
            Err(reason) => eprintln!("loadtest: {}: {reason}", file.display()),
        }
    }
    let file = save(&common.reports, &facts, &report::html(&facts, tally));
    let file = file.map_err(|error| format!("{}: {error}", common.reports.display()))?;
    // Whoever reads only the first lines is no error.
    let _ = writeln!(std::io::stdout(), "{}\nreport: {}", report::text(&facts, tally), file.display());
    let total = tally.total();
    let failed = total.failed() + tally.arrivals().1;
    let too_many = common.max_errors.is_some_and(|most| failed > most);
    Ok(if too_many || total.latency.is_empty() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn save(folder: &Path, facts: &Facts, page: &str) -> std::io::Result<PathBuf> {
    std::fs::create_dir_all(folder)?;
    let kind = if matches!(facts.kind, Kind::Open { .. }) { "open" } else { "journeys" };
    let file = folder.join(format!("{}-{kind}.html", facts.begun.format("%Y%m%d-%H%M%S")));
    std::fs::write(&file, page)?;
    Ok(file)
}
