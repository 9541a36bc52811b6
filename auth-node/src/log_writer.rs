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

/// Lines on their way to `out`.
struct Batches {
    waiting: Mutex<Vec<u8>>,
    something_waits: Condvar,
    /// Held while bytes are on their way, so that batches do not overtake each other. What it holds is spare memory.
    sending: Mutex<Vec<u8>>,
    out: fn(&[u8]),
}

static STDOUT: Batches = Batches::new(|bytes| {
    // A log that cannot be written must not stop the node; there is nowhere left to say so.
    let _ = io::stdout().lock().write_all(bytes).and_then(|()| io::stdout().flush());
});

impl Batches {
    const fn new(out: fn(&[u8])) -> Self {
        Self {
            waiting: Mutex::new(Vec::new()),
            something_waits: Condvar::new(),
            sending: Mutex::new(Vec::new()),
            out,
        }
    }

    fn add(&self, bytes: &[u8], urgent: bool) {
        let mut waiting = lock(&self.waiting);
        if waiting.is_empty() {
            self.something_waits.notify_one();
        }
        waiting.extend_from_slice(bytes);
        let full = waiting.len() >= MAX_WAITING_BYTES;
        drop(waiting);
        if full || urgent {
            self.send();
        }
    }

    fn send(&self) {
        let mut spare = lock(&self.sending);
        std::mem::swap(&mut *lock(&self.waiting), &mut *spare);
        (self.out)(&spare);
        spare.clear();
    }

    fn send_for_ever(&self) {
        loop {
            let waiting = lock(&self.waiting);
            let something = self.something_waits.wait_while(waiting, |waiting| waiting.is_empty());
            drop(something.unwrap_or_else(PoisonError::into_inner));
            std::thread::sleep(PAUSE);
            self.send();
        }
    }
}

fn lock(of: &Mutex<Vec<u8>>) -> MutexGuard<'_, Vec<u8>> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

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
        STDOUT.add(bytes, self.urgent);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Starts the thread that sends what waits.
pub fn start() {
    let thread = std::thread::Builder::new().name("log".to_owned());
    if let Err(error) = thread.spawn(|| STDOUT.send_for_ever()) {
        eprintln!("auth-node: no thread to write the log: {error}; lines come late");
    }
}

/// Sends all that waits. The last act of a process.
pub fn flush() {
    STDOUT.send();
}

#[cfg(test)]
mod tests {
    use super::*;

    static SENT: Mutex<Vec<Vec<u8>>> = Mutex::new(Vec::new());

    #[test]
    fn calm_lines_wait_in_order_and_an_urgent_one_takes_them_along() {
        let batches = Batches::new(|bytes| SENT.lock().unwrap().push(bytes.to_vec()));
        batches.add(b"one ", false);
        batches.add(b"two ", false);
        assert!(SENT.lock().unwrap().is_empty());
        batches.add(b"three", true);
        assert_eq!(*SENT.lock().unwrap(), [b"one two three"]);
        let large = vec![b'x'; MAX_WAITING_BYTES / 2];
        batches.add(&large, false);
        assert_eq!(SENT.lock().unwrap().len(), 1);
        batches.add(&large, false);
        assert_eq!(SENT.lock().unwrap()[1].len(), MAX_WAITING_BYTES, "bounded");
        assert!(lock(&batches.waiting).is_empty());
    }
}
