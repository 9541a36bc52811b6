//! One error type: a sentence for the person at the terminal. Nobody branches on the kind of a failure here.

use std::fmt;

/// Why the cluster could not do what it was asked, as one sentence.
#[derive(Debug, Clone)]
pub struct Error(String);

/// The result of everything in this crate.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// An error that reads as `sentence`.
    pub fn new(sentence: impl Into<String>) -> Self {
        Self(sentence.into())
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Error {}

/// Turns a foreign error into a sentence that says what was being done.
pub(crate) trait Context<T> {
    /// `what` completes "could not …".
    fn could_not(self, what: impl fmt::Display) -> Result<T>;
}

impl<T, E: fmt::Display> Context<T> for std::result::Result<T, E> {
    fn could_not(self, what: impl fmt::Display) -> Result<T> {
        self.map_err(|cause| Error(format!("could not {what}: {cause}")))
    }
}
