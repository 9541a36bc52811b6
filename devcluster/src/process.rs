//! Processes by id and start time. A pid alone can be recycled, so nothing is ever signalled unless the process still
//! has the start time it was recorded with; nothing is ever found by name.

use std::collections::HashMap;
use std::fs::OpenOptions;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use crate::account::Account;
use crate::error::{Context, Error, Result};

/// A process that cannot be mistaken for another one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessId {
    /// The process id; also its process group.
    pub pid: i32,
    /// When it started, as the system tells it; opaque, compared only.
    pub started: String,
}

/// What the system says about one live process.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Row {
    parent: i32,
    state: char,
    started: String,
}

impl ProcessId {
    /// Records a process that runs now; `None` if there is no such process.
    pub fn of(pid: i32) -> Option<Self> {
        row(pid).map(|row| Self { pid, started: row.started })
    }

    /// Whether exactly this process still runs (a zombie does not).
    pub fn is_alive(&self) -> bool {
        row(self.pid).is_some_and(|row| row.started == self.started && row.state != 'Z' && row.state != 'X')
    }

    /// Whether it is stopped by SIGSTOP.
    pub fn is_paused(&self) -> bool {
        row(self.pid).is_some_and(|row| row.started == self.started && row.state == 'T')
    }

    /// Signals this one process, if it is still the same. A process that is gone is no error.
    pub fn signal(&self, signal: Signal) {
        if self.is_alive() {
            let _gone_meanwhile = kill(Pid::from_raw(self.pid), signal);
        }
    }

    /// Signals the process and everything below it. The parent is stopped first so that it forks nothing meanwhile
    /// (PostgreSQL's children are sessions of their own: a process group does not hold them).
    pub fn signal_tree(&self, signal: Signal) {
        if !self.is_alive() {
            return;
        }
        self.signal(Signal::SIGSTOP);
        let children = descendants(self.pid, &table());
        for child in &children {
            child.signal(signal);
        }
        self.signal(signal);
        if signal != Signal::SIGSTOP && signal != Signal::SIGKILL {
            self.signal(Signal::SIGCONT);
        }
    }

    /// Resumes what `signal_tree(SIGSTOP)` stopped.
    pub fn resume_tree(&self) {
        for child in descendants(self.pid, &table()) {
            child.signal(Signal::SIGCONT);
        }
        self.signal(Signal::SIGCONT);
    }

    /// Waits until it is gone; false if it is still there after `limit`.
    pub fn wait_gone(&self, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        while self.is_alive() {
            if Instant::now() >= deadline {
                return false;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        true
    }
}

/// Whether any process has this id; one that ended and was never reaped does not count.
pub(crate) fn runs(pid: i32) -> bool {
    row(pid).is_some_and(|row| row.state != 'Z' && row.state != 'X')
}

/// How to start one long-living process.
pub(crate) struct Launch<'a> {
    pub argv: &'a [String],
    /// Servers get a clean environment; nodes get ours, so that `RUST_LOG` and the like reach them.
    pub clean_environment: bool,
    pub directory: &'a Path,
    pub log: &'a Path,
    pub account: Option<&'a Account>,
}

/// Starts a process in its own process group, with its output appended to the log. A thread reaps it.
pub(crate) fn spawn(launch: &Launch<'_>) -> Result<ProcessId> {
    let (program, arguments) =
        launch.argv.split_first().ok_or_else(|| Error::new("an empty command line"))?;
    let log = OpenOptions::new()
        .create(true)
        .append(true)
        .open(launch.log)
        .could_not(format_args!("open the log {}", launch.log.display()))?;
    let errors = log.try_clone().could_not("share a log file")?;
    let mut command = Command::new(program);
    if launch.clean_environment {
        server_environment(&mut command, launch.directory);
    }
    command.args(arguments).current_dir(launch.directory).stdin(Stdio::null()).stdout(log).stderr(errors);
    command.process_group(0);
    if let Some(account) = launch.account {
        account.apply(&mut command);
    }
    let mut child = command.spawn().could_not(format_args!("start {program}"))?;
    let pid = i32::try_from(child.id()).could_not("read a process id")?;
    // Before the reaper: a zombie still has its start time, so this cannot miss.
    let id =
        ProcessId::of(pid).ok_or_else(|| Error::new(format!("{program} was gone before it was seen")))?;
    std::thread::spawn(move || child.wait());
    Ok(id)
}

/// A clean environment for servers: no PG* variable or locale of the caller reaches them.
pub(crate) fn server_environment(command: &mut Command, home: &Path) {
    let path = std::env::var_os("PATH").unwrap_or_default();
    command.env_clear().env("PATH", path).env("LC_ALL", "C").env("TZ", "UTC").env("HOME", home);
}

fn descendants(root: i32, table: &HashMap<i32, Row>) -> Vec<ProcessId> {
    let mut found = Vec::new();
    let mut parents = vec![root];
    while let Some(parent) = parents.pop() {
        for (pid, row) in table.iter().filter(|(_, row)| row.parent == parent) {
            parents.push(*pid);
            found.push(ProcessId { pid: *pid, started: row.started.clone() });
        }
    }
    found
}

#[cfg(target_os = "linux")]
fn row(pid: i32) -> Option<Row> {
    parse_stat(&std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

#[cfg(target_os = "linux")]
fn table() -> HashMap<i32, Row> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return HashMap::new() };
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.filter_map(|pid| Some((pid, row(pid)?))).collect()
}

/// `/proc/PID/stat`: the name may hold spaces and brackets, so fields count from the last bracket.
#[cfg(target_os = "linux")]
fn parse_stat(stat: &str) -> Option<Row> {
    const STARTED_AFTER_NAME: usize = 19;
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    Some(Row {
        state: fields.first()?.chars().next()?,
        parent: fields.get(1)?.parse().ok()?,
        started: format!("{}:{}", boot_id(), fields.get(STARTED_AFTER_NAME)?),
    })
}

/// Start times count from boot, and pids begin again after one.
#[cfg(target_os = "linux")]
fn boot_id() -> &'static str {
    static BOOT: std::sync::OnceLock<String> = std::sync::OnceLock::new();
    BOOT.get_or_init(|| {
        let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        id.chars().take_while(|c| *c != '-').collect()
    })
}

#[cfg(not(target_os = "linux"))]
fn row(pid: i32) -> Option<Row> {
    let output = Command::new("ps").args(["-o", PS_FIELDS, "-p", &pid.to_string()]).output().ok()?;
    parse_ps(&String::from_utf8_lossy(&output.stdout)).remove(&pid)
}

#[cfg(not(target_os = "linux"))]
fn table() -> HashMap<i32, Row> {
    let output = Command::new("ps").args(["-ax", "-o", PS_FIELDS]).output();
    output.map(|output| parse_ps(&String::from_utf8_lossy(&output.stdout))).unwrap_or_default()
}

#[cfg(not(target_os = "linux"))]
const PS_FIELDS: &str = "pid=,ppid=,state=,lstart=";

/// Lines of `ps -o pid=,ppid=,state=,lstart=`.
#[cfg(any(test, not(target_os = "linux")))]
fn parse_ps(output: &str) -> HashMap<i32, Row> {
    let parse = |line: &str| {
        let mut words = line.split_whitespace();
        let pid = words.next()?.parse().ok()?;
        let parent = words.next()?.parse().ok()?;
        let state = words.next()?.chars().next()?;
        Some((pid, Row { parent, state, started: words.collect::<Vec<_>>().join(" ") }))
    };
    output.lines().filter_map(parse).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_os = "linux")]
    #[test]
    fn a_stat_line_with_an_awkward_name_is_read() {
        let stat = "7 (a) b (c) T 3 7 7 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 777 1 1 1";
        let row = parse_stat(stat).unwrap();
        assert_eq!((row.parent, row.state), (3, 'T'));
        assert!(row.started.ends_with(":777"));
    }

    #[test]
    fn ps_lines_are_read() {
        let rows = parse_ps("  12   1 Ss   Sun Nov 22 19:16:00 2026\n 13  12 T+ Sun Nov 22 19:17:00 2026\n");
        assert_eq!(rows[&13].parent, 12);
        assert_eq!(rows[&13].state, 'T');
        assert_eq!(rows[&12].started, "Sun Nov 22 19:16:00 2026");
    }

    #[test]
    fn descendants_are_found_at_any_depth() {
        let row = |parent| Row { parent, state: 'S', started: String::new() };
        let table = HashMap::from([(2, row(1)), (3, row(2)), (4, row(3)), (9, row(8))]);
        let mut found: Vec<i32> = descendants(2, &table).into_iter().map(|id| id.pid).collect();
        found.sort_unstable();
        assert_eq!(found, [3, 4]);
    }

    #[test]
    fn a_recycled_pid_is_not_the_same_process() {
        let me = ProcessId::of(i32::try_from(std::process::id()).unwrap()).unwrap();
        assert!(me.is_alive());
        assert!(!ProcessId { started: "another time".into(), ..me }.is_alive());
    }
}
