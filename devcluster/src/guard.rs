//! Ends a test's cluster when the test dies in whatever way. The guard is a process of its own that holds the reading
//! end of a pipe; the writing end is the test's alone, so the pipe closes with it, even at SIGKILL.

use std::io::{Read, stdin};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};

use crate::control::{Stop, stop_all};
use crate::error::{Context, Result};
use crate::home::Home;

const PROGRAM: &str = "devcluster";

/// The test's end.
pub(crate) struct Guard {
    process: Child,
    pipe: Option<ChildStdin>,
}

impl Guard {
    /// Starts a guard over the cluster in `home`; `temporary` has it remove the folder, too.
    pub fn start(program: &Path, home: &Home, temporary: bool) -> Result<Self> {
        let mut command = Command::new(program);
        command.arg("guard").arg("--dir").arg(home.root()).args(temporary.then_some("--temporary"));
        // In a group of its own, for Ctrl-C reaches the test's whole group.
        command.stdin(Stdio::piped()).stdout(Stdio::null()).process_group(0);
        let mut process = command.spawn().could_not(format_args!("start the guard {}", program.display()))?;
        let pipe = process.stdin.take();
        Ok(Self { process, pipe })
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        drop(self.pipe.take());
        let _ended = self.process.wait();
    }
}

/// The `devcluster` executable beside ours: in the same folder, or above `deps` for a test.
pub(crate) fn find_program() -> Option<PathBuf> {
    let own = std::env::current_exe().ok()?;
    let folders = own.ancestors().skip(1).take(2);
    folders.map(|folder| folder.join(PROGRAM)).find(|program| program.is_file())
}

/// What `devcluster guard` does: waits for the end of its input, then ends what is left.
pub fn run(home: &Home, temporary: bool) -> Result<()> {
    let mut ignored = Vec::new();
    let _closed = stdin().read_to_end(&mut ignored);
    stop_all(home, if temporary { Stop::Sharply } else { Stop::Gently })?;
    if temporary { home.remove_all() } else { Ok(()) }
}
