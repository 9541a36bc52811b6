//! What `make up` does: starts the local cluster, shows it, and holds it in the foreground or leaves it running.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::control::{Stop, stop_all};
use crate::error::{Context, Result};
use crate::home::Home;
use crate::launch::{prepare, start_all};
use crate::node;
use crate::plan::Kind;
use crate::spec::ClusterSpec;
use crate::state::{self, PartState, State};

const WATCH: Duration = Duration::from_secs(1);

/// How an `up` ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// All parts run and are left running.
    Running,
    /// A signal came, or somebody ran `down`; nothing runs any more.
    Stopped,
}

/// Starts the cluster in `home`; with `detach` returns once it is ready, else stays until a signal ends it.
pub async fn up(spec: &ClusterSpec, home: &Home, detach: bool) -> Result<Outcome> {
    let mut signals = Signals::new()?;
    let prepared = match prepare(spec, home)? {
        Ok(prepared) => prepared,
        Err(running) => {
            say(format_args!("the cluster runs already; make down ends it\n\n{}", table(&running)));
            return Ok(Outcome::Running);
        }
    };
    let started = tokio::select! {
        started = start_all(spec, &prepared) => started.map(|()| true),
        () = signals.next() => Ok(false),
    };
    match started {
        Ok(true) => {}
        Ok(false) => return stop(home, Stop::Sharply).map(|()| Outcome::Stopped),
        Err(problem) => {
            stop_all(home, Stop::Sharply)?;
            return Err(problem);
        }
    }
    let _claimed = prepared.started();
    let state = state::require(home)?;
    say(format_args!("\n{}\n{}", table(&state), ready_line(&state)));
    if detach {
        return Ok(Outcome::Running);
    }
    tokio::select! {
        () = signals.next() => stop(home, Stop::Gently)?,
        () = watch(home) => {}
    }
    Ok(Outcome::Stopped)
}

/// Name, address, what it is and how it is, a line a part.
pub fn table(state: &State) -> String {
    let rows: Vec<[String; 4]> = state.parts.iter().map(|part| row(state, part)).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let (name, address, what) = (width(0), width(1), width(2));
    let mut text = String::new();
    for row in &rows {
        let line = format!("{:name$}  {:address$}  {:what$}  {}", row[0], row[1], row[2], row[3]);
        let _infallible = writeln!(text, "{}", line.trim_end());
    }
    text
}

fn row(state: &State, found: &PartState) -> [String; 4] {
    let part = &found.part;
    let host = format!("127.0.0.1:{}", part.port);
    let postgres = format!("PostgreSQL {}", state.servers.postgres_version);
    let (address, what) = match part.kind {
        Kind::Directory => (host, format!("{postgres}, directory")),
        Kind::ShardPrimary { shard } | Kind::ShardReplica { shard, .. } => {
            let role = if state.is_primary(part) { "primary" } else { "replica" };
            (host, format!("{postgres}, {role} of shard {shard}"))
        }
        Kind::Redis { .. } => {
            let program = state.servers.redis.file_name().unwrap_or_default().to_string_lossy();
            let program = if program.starts_with("valkey") { "Valkey" } else { "Redis" };
            (host, format!("{program} {}", state.servers.redis_version))
        }
        Kind::Node { .. } => {
            let ops = node::url(part.second_port.unwrap_or_default());
            (node::url(part.port), format!("auth node, ops {ops}"))
        }
    };
    [part.name.clone(), address, what, condition(found)]
}

fn condition(part: &PartState) -> String {
    match &part.process {
        Some(process) if part.is_paused() => format!("paused ({})", process.pid),
        Some(process) if part.is_alive() => format!("runs ({})", process.pid),
        Some(_) => "has ended by itself: see its log".into(),
        None => "does not run".into(),
    }
}

/// The one line that scripts wait for.
fn ready_line(state: &State) -> String {
    let node = state.parts.iter().find(|part| matches!(part.part.kind, Kind::Node { number: 1 }));
    node.map_or_else(|| "ready (without nodes)".into(), |node| format!("ready {}", node::url(node.part.port)))
}

fn stop(home: &Home, how: Stop) -> Result<()> {
    say(format_args!("stopping"));
    stop_all(home, how)
}

/// Says when a part ends by itself, and returns when somebody else stopped the cluster.
async fn watch(home: &Home) {
    let mut told: Vec<String> = Vec::new();
    loop {
        tokio::time::sleep(WATCH).await;
        let Ok(Some(state)) = state::read(home) else { return };
        if state.stopping {
            continue;
        }
        let ended = |part: &&PartState| part.process.is_some() && !part.is_alive();
        let ended: Vec<String> =
            state.parts.iter().filter(ended).map(|part| part.part.name.clone()).collect();
        for name in ended.iter().filter(|name| !told.contains(name)) {
            say(format_args!("{name} has ended by itself: see {}", home.log(name).display()));
        }
        told = ended;
    }
}

/// Prints a line. A reader that went away must not end us half way: what was started has to be stopped in order.
pub fn say(text: impl std::fmt::Display) {
    let _reader_gone = writeln!(std::io::stdout(), "{text}");
}

/// A cluster's folder, absolute whether it exists or not.
pub fn home_at(folder: &Path) -> Result<Home> {
    std::path::absolute(folder).map(Home::new).could_not(format_args!("find {}", folder.display()))
}

struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl Signals {
    fn new() -> Result<Self> {
        let on = |kind| signal(kind).could_not("listen for signals");
        Ok(Self {
            interrupt: on(SignalKind::interrupt())?,
            terminate: on(SignalKind::terminate())?,
            hangup: on(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = self.hangup.recv() => {}
        }
    }
}
