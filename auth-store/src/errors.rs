//! What can go wrong under a repository method, and what may be done about it.
//!
//! Text of the database never gets out of here: it can quote values. What is kept is the SQLSTATE and the name of the
//! constraint.
use auth_core::ports::StoreError;
use shard_router::{Hint, Ownership};
use sqlx::error::DatabaseError;

/// An attempt that did not end well.
#[derive(Debug)]
pub(crate) enum TxError {
    /// The shard does not own the bucket, or not now. Never `Active`.
    Owner(Ownership),
    /// The statement or the connection failed.
    Sql(sqlx::Error),
    /// Already judged, for example a row that does not decode.
    Store(StoreError),
}

impl From<StoreError> for TxError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<sqlx::Error> for TxError {
    fn from(error: sqlx::Error) -> Self {
        match Ownership::from_error(&error) {
            Some(owner) => Self::Owner(owner),
            None => Self::Sql(error),
        }
    }
}

/// How a unit of work reaches the database; decides what a lost connection means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Reads only.
    Read,
    /// One statement that commits itself.
    Write,
    /// `BEGIN` … `COMMIT`.
    Transaction,
}

/// What the error says about the work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The bucket is elsewhere.
    Elsewhere(Option<Hint>),
    /// A move decides in a moment.
    Fenced,
    /// Serialization failure or deadlock: rolled back.
    Conflict,
    /// The server's statement timeout.
    TimedOut,
    /// The connection broke, or the server did not answer in our own time.
    Lost,
    /// The server refused for a reason that passes (disk full, too many connections, read-only).
    Refused,
    /// A bug or a damaged row.
    Broken,
}

/// What to do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Apply the hint and ask again.
    Redirect(Hint),
    /// Learn where the bucket is; nothing to be had now.
    Refresh,
    /// Wait behind the bulkhead and ask again.
    Wait,
    /// Again after full jitter, a few times.
    RetryConflict,
    /// Again, once, if the retry budget allows.
    RetryLost,
    /// Nothing was written.
    Unavailable,
    /// Nobody knows.
    Unknown,
    /// A bug or a damaged row.
    Corrupt,
}

/// The rule of RELIABILITY's "a timeout is unknown": `committing` says that the commit was on its way.
pub(crate) fn decide(kind: Kind, committing: bool, fault: Fault) -> Step {
    let undecided = committing || kind == Kind::Write;
    match fault {
        Fault::Elsewhere(Some(hint)) => Step::Redirect(hint),
        Fault::Elsewhere(None) => Step::Refresh,
        Fault::Fenced => Step::Wait,
        Fault::Conflict => Step::RetryConflict,
        Fault::TimedOut | Fault::Lost if undecided => Step::Unknown,
        Fault::Lost => Step::RetryLost,
        Fault::TimedOut | Fault::Refused => Step::Unavailable,
        Fault::Broken => Step::Corrupt,
    }
}

impl Fault {
    /// Whether it is trouble of the server, which its breaker counts. Everything else is an answer, whatever it says.
    pub(crate) fn is_of_the_server(self) -> bool {
        matches!(self, Self::Lost | Self::Refused)
    }
}

impl TxError {
    /// The fault, and a text that holds no values.
    pub(crate) fn fault(&self) -> (Fault, String) {
        match self {
            Self::Owner(Ownership::Elsewhere(hint)) => {
                (Fault::Elsewhere(*hint), "bucket is elsewhere".to_owned())
            }
            Self::Owner(_) => (Fault::Fenced, "bucket is fenced".to_owned()),
            Self::Store(StoreError::Unavailable(why) | StoreError::Overloaded(why)) => {
                (Fault::Refused, why.clone())
            }
            Self::Store(StoreError::Unknown(why)) => (Fault::Lost, why.clone()),
            Self::Store(StoreError::Corrupt(why)) => (Fault::Broken, why.clone()),
            Self::Sql(sqlx::Error::Database(error)) => {
                (database_fault(error.as_ref()), database_text(error.as_ref()))
            }
            Self::Sql(sqlx::Error::Io(error)) => (Fault::Lost, format!("connection: {}", error.kind())),
            Self::Sql(sqlx::Error::Protocol(_) | sqlx::Error::Tls(_) | sqlx::Error::WorkerCrashed) => {
                (Fault::Lost, "connection: protocol".to_owned())
            }
            Self::Sql(sqlx::Error::ColumnDecode { index, .. }) => {
                (Fault::Broken, format!("column {index} does not decode"))
            }
            Self::Sql(sqlx::Error::ColumnNotFound(column)) => (Fault::Broken, format!("no column {column}")),
            Self::Sql(_) => (Fault::Broken, "statement or row does not fit".to_owned()),
        }
    }

    /// Whether the connection is still good for the next caller.
    pub(crate) fn spares_connection(&self) -> bool {
        let fault = self.fault().0;
        fault != Fault::Broken && !fault.is_of_the_server()
    }
}

fn database_fault(error: &dyn DatabaseError) -> Fault {
    code_fault(&error.code().unwrap_or_default())
}

fn code_fault(code: &str) -> Fault {
    match code {
        "40001" | "40P01" => Fault::Conflict,
        "57014" => Fault::TimedOut,
        // Terminated, crashing, starting, idle too long in a transaction: the server closes the connection.
        "57P01" | "57P02" | "57P03" | "57P04" | "57P05" | "25P03" => Fault::Lost,
        code if code.starts_with("08") => Fault::Lost,
        // Data, constraints, syntax, missing privileges: ours to repair, no use in trying again.
        code if ["22", "23", "42", "SH", "P0"].iter().any(|class| code.starts_with(class)) => Fault::Broken,
        _ => Fault::Refused,
    }
}

fn database_text(error: &dyn DatabaseError) -> String {
    let code = error.code().unwrap_or_default();
    match error.constraint() {
        Some(constraint) => format!("SQLSTATE {code} ({constraint})"),
        None => format!("SQLSTATE {code}"),
    }
}

/// A value that does not encode for the wire.
pub(crate) fn unencodable(_: sqlx::error::BoxDynError) -> StoreError {
    StoreError::Corrupt("a value does not encode".to_owned())
}

/// A row that does not say what it must.
pub(crate) fn corrupt(what: &str) -> StoreError {
    StoreError::Corrupt(what.to_owned())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn only_what_surely_did_not_happen_is_tried_again() {
        use Fault as F;
        use Kind as K;
        let hint = Hint { to: shard_router::ShardId::new(2).unwrap(), epoch: 7 };
        for (kind, committing, fault, step) in [
            (K::Read, false, F::Lost, Step::RetryLost),
            (K::Read, false, F::TimedOut, Step::Unavailable),
            (K::Write, false, F::Lost, Step::Unknown),
            (K::Write, false, F::TimedOut, Step::Unknown),
            (K::Write, false, F::Conflict, Step::RetryConflict),
            (K::Transaction, false, F::Lost, Step::RetryLost),
            (K::Transaction, false, F::TimedOut, Step::Unavailable),
            (K::Transaction, true, F::Lost, Step::Unknown),
            (K::Transaction, true, F::TimedOut, Step::Unknown),
            (K::Transaction, true, F::Conflict, Step::RetryConflict),
            (K::Write, false, F::Refused, Step::Unavailable),
            (K::Write, false, F::Broken, Step::Corrupt),
            (K::Write, false, F::Fenced, Step::Wait),
            (K::Read, false, F::Elsewhere(None), Step::Refresh),
            (K::Read, false, F::Elsewhere(Some(hint)), Step::Redirect(hint)),
        ] {
            assert_eq!(decide(kind, committing, fault), step, "{kind:?} {committing} {fault:?}");
        }
    }
    #[test]
    fn what_a_server_says_is_no_trouble_of_the_server() {
        for (code, is_trouble) in [
            ("23505", false),
            ("40001", false),
            ("57014", false),
            ("SH301", false),
            ("SH503", false),
            ("42P01", false),
            ("53100", true),
            ("53300", true),
            ("57P01", true),
            ("57P03", true),
            ("08006", true),
            ("25006", true),
        ] {
            assert_eq!(code_fault(code).is_of_the_server(), is_trouble, "{code}");
        }
        assert!(
            TxError::from(sqlx::Error::Io(std::io::ErrorKind::TimedOut.into())).fault().0.is_of_the_server()
        );
        assert!(!TxError::Owner(Ownership::Fenced).fault().0.is_of_the_server());
    }
}
