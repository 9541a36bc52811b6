//! The values that the rules are about. Parsed once, at the edge; a value that exists is valid.
#![deny(missing_docs)]

mod client;
mod email;
mod grant;
mod keys;
mod limits;
mod name;
mod password;
mod read_position;
mod session;
mod user;

pub use client::{Address, ClientContext, DeviceHash, DeviceSecret, UserAgent};
pub use email::{Email, EmailError};
pub use grant::{Grant, Principal};
pub use keys::{KeyRecord, KeySchedule, KeyState, KeyTimes};
pub use limits::{LimitRule, Limited, PasswordLimits, SessionLimits, Standing};
pub use name::{DisplayName, NameError};
pub use password::{Password, PasswordError};
pub use read_position::{BadReadPosition, ReadPosition};
pub use session::{LiveSession, RevokeReason, SessionSummary};
pub use user::{User, tenant_slug};
