//! What is at fault in a request, in words that are fit for its sender.

/// A field that was refused, and why. The value is never repeated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldError {
    /// The member, header or parameter.
    pub field: String,
    /// What it must be.
    pub reason: String,
}

impl FieldError {
    /// The field `field`, refused for `reason`.
    pub fn new(field: &str, reason: impl Into<String>) -> Self {
        Self { field: field.to_owned(), reason: reason.into() }
    }
}

/// Why a body was not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BadBody {
    /// It cannot be read at all.
    Malformed(&'static str),
    /// It can be read, and these fields are at fault: at least one, at most 32.
    Fields(Vec<FieldError>),
}
