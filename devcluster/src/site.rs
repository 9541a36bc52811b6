//! What every step of starting, stopping and hurting parts needs to know: where the cluster lives and what it runs.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::account::Account;
use crate::error::{Context, Error, Result};
use crate::home::Home;
use crate::plan::Part;
use crate::process::{Launch, ProcessId, server_environment, spawn};
use crate::secrets::{Passwords, passwords};
use crate::servers::Servers;
use crate::state::{self, State};

const SHOWN_LOG_LINES: usize = 3;

/// One cluster's folder, executables and passwords.
#[derive(Clone)]
pub(crate) struct Site {
    pub home: Home,
    pub servers: Servers,
    pub account: Option<Account>,
    pub auth_node: Option<PathBuf>,
    pub passwords: Passwords,
}

impl Site {
    /// The site of a cluster whose state was read.
    pub fn of(home: &Home, state: &State) -> Result<Self> {
        Ok(Self {
            home: home.clone(),
            servers: state.servers.clone(),
            account: state.account.clone(),
            auth_node: state.auth_node.clone(),
            passwords: passwords(&home.secrets())?,
        })
    }

    /// Starts a part as a long-living process and records it.
    pub fn launch(&self, part: &Part, argv: Vec<String>) -> Result<ProcessId> {
        let server = !matches!(part.kind, crate::plan::Kind::Node { .. });
        let directory = if server { self.home.data_of(&part.name) } else { self.home.root().to_path_buf() };
        let log = self.home.log(&part.name);
        let account = self.account.as_ref().filter(|_| server);
        let process = spawn(&Launch {
            argv: &argv,
            clean_environment: server,
            directory: &directory,
            log: &log,
            account,
        })?;
        state::set_process(&self.home, &part.name, Some(process.clone()), Some(argv))?;
        Ok(process)
    }

    /// Runs one of PostgreSQL's tools to its end, as the servers' user, and returns what it printed.
    pub async fn tool(&self, name: &str, arguments: &[String]) -> Result<ToolOutput> {
        let mut command = Command::new(self.servers.tool(name));
        server_environment(&mut command, &self.home.data());
        command.args(arguments).current_dir(self.home.data()).stdin(Stdio::null());
        command.env("PGPASSFILE", self.home.data().join(crate::postgres::PASSFILE));
        if let Some(account) = &self.account {
            account.apply(&mut command);
        }
        let mut command = tokio::process::Command::from(command);
        let output = command.kill_on_drop(true).output().await.could_not(format_args!("run {name}"))?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Ok(ToolOutput { ok: output.status.success(), out: text(&output.stdout), err: text(&output.stderr) })
    }

    /// The end of a part's log, for a sentence that says why it did not start.
    pub fn log_tail(&self, name: &str) -> String {
        let text = std::fs::read(self.home.log(name)).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let mut lines: Vec<&str> =
            text.lines().rev().filter(|l| !l.is_empty()).take(SHOWN_LOG_LINES).collect();
        lines.reverse();
        lines.join(" / ")
    }

    /// Why a part did not come up.
    pub fn did_not_start(&self, name: &str, what: &str) -> Error {
        let log = self.home.log(name);
        Error::new(format!("{name} {what}; the end of {}: {}", log.display(), self.log_tail(name)))
    }
}

/// What a tool printed.
pub(crate) struct ToolOutput {
    pub ok: bool,
    pub out: String,
    pub err: String,
}

impl ToolOutput {
    /// Its last line of complaint as an error, unless it succeeded.
    pub fn expect(self, what: &str) -> Result<String> {
        if self.ok {
            return Ok(self.out);
        }
        Err(Error::new(format!("could not {what}: {}", self.err.lines().next_back().unwrap_or("no message"))))
    }
}
