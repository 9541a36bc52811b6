//! The table, for the terminal and for the document.
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use crate::Outcome;

/// One line of the table, in µs of CPU.
#[derive(Clone, Copy, Default)]
pub struct Row {
    pub name: &'static str,
    /// auth-node, PostgreSQL's primaries, Redis.
    pub cpu: [f64; 3],
    pub replicas: f64,
    pub wal_bytes: Option<f64>,
    pub syncs: Option<f64>,
    /// Computes hashes, whose threads are not counted.
    pub hashes: bool,
}

/// What the figures depend on.
pub struct Facts {
    pub idle: crate::bench::Used,
    pub rss_mib: (u64, u64),
    pub servers: String,
    pub requests: usize,
    pub rounds: usize,
    pub clients: usize,
}

/// What every measurement is of, and where it is written.
#[derive(clap::Args)]
pub struct Subject {
    /// The release executable
    #[arg(long)]
    pub auth_node: PathBuf,
    /// The document whose section is written anew; without it the section is printed only
    #[arg(long)]
    write: Option<PathBuf>,
}

impl Subject {
    /// Prints the section of a command, and writes it where it was asked for.
    pub fn report(&self, command: &str, text: &str) -> Outcome<()> {
        println!("{text}");
        self.write.as_deref().map_or(Ok(()), |path| write(path, command, text))
    }
}

const END: &str = "<!-- until here -->";

/// A line while it runs.
pub fn progress(row: &Row) {
    let [node, postgres, redis] = row.cpu;
    let replicas = row.replicas;
    eprintln!(
        "{:<46} node {node:>6.0}  primaries {postgres:>6.0}  replicas {replicas:>5.0}  Redis {redis:>4.0} µs",
        row.name
    );
}

/// The whole table with what it depends on.
pub fn text(facts: &Facts, floors: &[Row], rows: &[Row]) -> String {
    let Facts { idle, rss_mib, .. } = facts;
    let mut text = format!(
        "{} Load average afterwards {}.\n{} requests a round (a tenth where each needs an account or a session of its \
         own) over {} connections, median of {} rounds.\n\n",
        made_by(crate::run::COMMAND, &facts.servers),
        load_average(),
        facts.requests,
        facts.clients,
        facts.rounds
    );
    text += "| µs of CPU an answer | auth-node | primaries | replicas | Redis | WAL bytes | WAL syncs |\n|---|--:|--:|--:|--:|--:|--:|\n";
    for row in floors {
        let _ = writeln!(text, "| *floor: {}* | {:.0} | | | | | |", row.name, row.cpu[0]);
    }
    for row in rows {
        let beside = if row.hashes { ", beside the hashes" } else { "" };
        let zero = |value: f64| if value < 0.5 { "–".to_owned() } else { format!("{value:.0}") };
        let wal = row.wal_bytes.map_or_else(String::new, zero);
        let syncs = row.syncs.map_or_else(|| "–".to_owned(), |syncs| format!("{syncs:.1}"));
        let [node, postgres, redis] = row.cpu;
        let _ = writeln!(
            text,
            "| {}{beside} | {node:.0} | {} | {} | {} | {wal} | {syncs} |",
            ticked(row.name),
            zero(postgres),
            zero(row.replicas),
            zero(redis),
        );
    }
    let _ = writeln!(
        text,
        "\nIdle, taken off above: node {:.1}, all three primaries {:.1}, their replicas {:.1}, all six Redis {:.1} ms of CPU a second. \
         Resident memory of the node: {} MiB before its first request, {} MiB afterwards.",
        idle[0] / 1000.0,
        idle[1] / 1000.0,
        idle[4] / 1000.0,
        idle[2] / 1000.0,
        rss_mib.0,
        rss_mib.1
    );
    text
}

/// The call in code, what is special about it not.
pub fn ticked(name: &str) -> String {
    name.split_once(',').map_or_else(|| format!("`{name}`"), |(call, rest)| format!("`{call}`,{rest}"))
}

/// Puts the text between the marks of the document that are this command's.
fn write(path: &Path, command: &str, text: &str) -> Outcome<()> {
    let begin = format!("<!-- written by `{command}` -->");
    let old = fs::read_to_string(path)?;
    let (head, rest) = old.split_once(&begin).ok_or(format!("the document has no {begin}"))?;
    let (_, tail) = rest.split_once(END).ok_or("the document has no mark where figures end")?;
    fs::write(path, format!("{head}{begin}\n{text}{END}{tail}"))?;
    Ok(())
}

/// Which command, when, on what: the first sentence of a section.
pub fn made_by(command: &str, servers: &str) -> String {
    format!("`{command}`, {}, on {}; {servers}.", today(), machine())
}

/// Processes that ran or waited to, over the last minute.
pub fn load_average() -> String {
    fs::read_to_string("/proc/loadavg").unwrap_or_default().split(' ').next().unwrap_or_default().to_owned()
}

#[expect(clippy::disallowed_methods, reason = "a report carries the date on which it was made")]
fn today() -> String {
    chrono::Utc::now().format("%Y-%m-%d").to_string()
}

/// Cores, processor, memory.
fn machine() -> String {
    let cpus = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpus.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kib = memory.lines().next().and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let gib = kib.unwrap_or_default().div_ceil(1 << 20);
    format!("{cores} cores of {}, {gib} GiB", model.map_or("an unknown processor", |(_, name)| name))
}
