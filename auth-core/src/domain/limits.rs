//! The numbers that sessions and failed passwords are held to (NAMES: every one is a configuration key).
use chrono::Duration;

/// How long sessions live and how many a user may have.
#[derive(Clone, Debug)]
pub struct SessionLimits {
    /// A session ends when it was not used for this long.
    pub idle: Duration,
    /// A session ends this long after it was opened, used or not.
    pub absolute: Duration,
    /// Live sessions a user; at one more the oldest is ended.
    pub max_live: i64,
    /// How long after a rotation the same successor is handed out again.
    pub replay_window: Duration,
    /// How often it is handed out inside that window.
    pub max_replays: i16,
    /// A late replay is forgiven once in this many generations.
    pub late_replay_every: i64,
    /// How long a cached copy is believed before the primary is asked again.
    pub cache_trust: Duration,
}

/// Failed passwords, exact, in PostgreSQL.
#[derive(Clone, Debug)]
pub struct PasswordLimits {
    /// Failures for one (identifier, address prefix) in one window.
    pub per_scope: i32,
    /// The length of that window.
    pub scope_window: Duration,
    /// Failures for one identifier from unknown devices in an hour, before answers are delayed.
    pub per_identifier: i32,
    /// The delay then.
    pub delay: Duration,
}

/// So many of something in any window of this length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LimitRule {
    /// The stable name for keys, headers and metrics.
    pub name: &'static str,
    /// How many.
    pub limit: u32,
    /// In how long.
    pub window: std::time::Duration,
}

/// Where somebody stands with a rule, after one more try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// The rule.
    pub rule: LimitRule,
    /// Whether the try was granted.
    pub granted: bool,
    /// How many more would be granted at once.
    pub left: u32,
    /// How long until there is more than now: for who was refused, until a try may succeed.
    pub more_in: std::time::Duration,
}

/// The try was one too many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limited(pub Standing);
