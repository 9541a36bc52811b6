//! Where log lines go: into memory, and from there to standard output in batches.
//!
//! One `write` a request costs more than everything else that its log line needs. So lines wait, for [`PAUSE`] at most
//! and until there are [`MAX_WAITING_BYTES`]; a warning or an error takes all that wait along at once. Order is kept.
//! What is lost when the process is killed: the `info` lines of its last [`PAUSE`]. A reader that is slow slows us down
//! only when the memory is full; nothing is ever dropped.
use std::io::{self, Write};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tracing::{Level, Metadata};
use tracing_subscriber::fmt::MakeWriter;

const PAUSE: Duration = Duration::from_millis(50);
const MAX_WAITING_BYTES: usize = 64 * 1024;

static WAITING: Mutex<Vec<u8>> = Mutex::new(Vec::new());
static SOMETHING_WAITS: Condvar = Condvar::new();
/// Held while bytes are on their way, so that batches do not overtake each other. What it holds is spare memory.
static SENDING: Mutex<Vec<u8>> = Mutex::new(Vec::new());

/// For `tracing_subscriber`.
pub struct BatchedStdout;

/// One event's way out.
pub struct Line {
    urgent: bool,
}

impl<'a> MakeWriter<'a> for BatchedStdout {
    type Writer = Line;

    fn make_writer(&'a self) -> Line {
        Line { urgent: true }
    }

    fn make_writer_for(&'a self, meta: &Metadata<'_>) -> Line {
        Line { urgent: *meta.level() <= Level::WARN }
    }
}

impl Write for Line {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut waiting = lock(&WAITING);
        if waiting.is_empty() {
            SOMETHING_WAITS.notify_one();
        }
        waiting.extend_from_slice(bytes);
        let full = waiting.len() >= MAX_WAITING_BYTES;
        drop(waiting);
        if full || self.urgent {
            flush();
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Starts the thread that sends what waits.
pub fn start() {
    let sender = std::thread::Builder::new().name("log".to_owned());
    let started = sender.spawn(|| {
        loop {
            let waiting = lock(&WAITING);
            let something = SOMETHING_WAITS.wait_while(waiting, |waiting| waiting.is_empty());
            drop(something.unwrap_or_else(PoisonError::into_inner));
            std::thread::sleep(PAUSE);
            flush();
        }
    });
    if let Err(error) = started {
        eprintln!("auth-node: no thread to write the log: {error}; lines come late");
    }
}

/// Sends all that waits. The last act of a process.
pub fn flush() {
    let mut spare = lock(&SENDING);
    std::mem::swap(&mut *lock(&WAITING), &mut *spare);
    // A log that cannot be written must not stop the node; there is nowhere left to say so.
    let _ = io::stdout().lock().write_all(&spare).and_then(|()| io::stdout().flush());
    spare.clear();
}

fn lock(of: &Mutex<Vec<u8>>) -> MutexGuard<'_, Vec<u8>> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calm_lines_wait_in_order_and_an_urgent_one_takes_them_along() {
        for text in ["one ", "two "] {
            Line { urgent: false }.write_all(text.as_bytes()).unwrap();
        }
        assert_eq!(*lock(&WAITING), b"one two ");
        Line { urgent: true }.write_all(b"three\n").unwrap();
        assert!(lock(&WAITING).is_empty());
        Line { urgent: false }.write_all(&vec![b' '; MAX_WAITING_BYTES]).unwrap();
        assert!(lock(&WAITING).is_empty(), "bounded");
    }
}
