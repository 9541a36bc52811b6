//! Service errors → problems. Exhaustive: a new refusal does not compile until it has its answer here.
//!
//! Rule 2: trouble of ours is 503 and never a verdict. It is logged here, once, where it is handled.
use auth_core::crypto::password::HashError;
use auth_core::ports::StoreError;
use auth_core::services::{
    AccountError, AuthError, IssueError, LoginError, OnceError, ProofError, RefreshError, RegisterError,
    SessionError,
};

use crate::problem::Problem;

impl From<AuthError> for Problem {
    fn from(error: AuthError) -> Self {
        match error {
            AuthError::InvalidToken | AuthError::NotOurs => Self::InvalidToken,
            AuthError::Store(error) => store(&error),
        }
    }
}

impl From<RegisterError> for Problem {
    fn from(error: RegisterError) -> Self {
        match error {
            RegisterError::EmailTaken => Self::EmailTaken,
            RegisterError::Once(error) => once(error),
            RegisterError::Hash(error) => hash(&error),
            RegisterError::Store(error) => store(&error),
        }
    }
}

impl From<LoginError> for Problem {
    fn from(error: LoginError) -> Self {
        match error {
            LoginError::InvalidCredentials => Self::InvalidCredentials,
            LoginError::Limited(wait) => Self::RateLimited(wait),
            LoginError::Hash(error) => hash(&error),
            LoginError::Issue(error) => issue(error),
            LoginError::Store(error) => store(&error),
        }
    }
}

impl From<RefreshError> for Problem {
    fn from(error: RefreshError) -> Self {
        match error {
            RefreshError::InvalidToken => Self::InvalidRefreshToken,
            RefreshError::Storm(wait) => Self::RateLimited(wait),
            RefreshError::Limited(limited) => limited.into(),
            RefreshError::Issue(error) => issue(error),
            RefreshError::Store(error) => store(&error),
        }
    }
}

impl From<SessionError> for Problem {
    fn from(error: SessionError) -> Self {
        match error {
            SessionError::InvalidToken => Self::InvalidToken,
            SessionError::NotFound => Self::NotFound,
            SessionError::Store(error) => store(&error),
        }
    }
}

impl From<AccountError> for Problem {
    fn from(error: AccountError) -> Self {
        match error {
            AccountError::InvalidToken => Self::InvalidToken,
            AccountError::Proof(error) => proof(error),
            AccountError::Once(error) => once(error),
            AccountError::Hash(error) => hash(&error),
            AccountError::Store(error) => store(&error),
        }
    }
}

fn proof(error: ProofError) -> Problem {
    match error {
        ProofError::InvalidToken => Problem::InvalidToken,
        ProofError::WrongPassword => Problem::InvalidCredentials,
        ProofError::Limited(wait) => Problem::RateLimited(wait),
        ProofError::Hash(error) => hash(&error),
        ProofError::Store(error) => store(&error),
    }
}

fn once(error: OnceError) -> Problem {
    match error {
        OnceError::Mismatch => Problem::IdempotencyMismatch,
        OnceError::Running => Problem::IdempotencyRunning,
    }
}

fn store(error: &StoreError) -> Problem {
    match error {
        StoreError::Unavailable(_) | StoreError::Unknown(_) => {
            tracing::warn!(%error, "the store could not say");
            Problem::Unavailable
        }
        StoreError::Overloaded(_) => {
            tracing::debug!(%error, "shed");
            Problem::Overloaded
        }
        StoreError::Corrupt(_) => {
            tracing::error!(%error, "a row does not decode");
            Problem::Internal
        }
    }
}

fn issue(error: IssueError) -> Problem {
    match error {
        // Logged when it was found out; every request would say it again.
        IssueError::ClockOff => {}
        IssueError::NoSigningKey | IssueError::NoRefreshKey => {
            tracing::error!(%error, "no token can be issued");
        }
    }
    Problem::Unavailable
}

fn hash(error: &HashError) -> Problem {
    match error {
        HashError::Busy => Problem::Overloaded,
        HashError::Stopped | HashError::OutOfMemory | HashError::UnknownPepper(_) => {
            tracing::error!(%error, "a password was not looked at");
            Problem::Unavailable
        }
        HashError::Stored(_) => {
            tracing::error!(%error, "a password row cannot be used");
            Problem::Internal
        }
    }
}
