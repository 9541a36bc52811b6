//! The text of an entry. Anything that does not parse is treated as nothing.
use auth_core::domain::LiveSession;
use auth_core::ports::CacheAnswer;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use shard_key::{SessionId, TenantId, UserId};

#[derive(Serialize, Deserialize)]
struct Body {
    u: UserId,
    t: i32,
    c: String,
    a: Vec<String>,
    /// Microseconds, like PostgreSQL's.
    at: i64,
    x: i64,
}

/// The entry of a live session.
pub(super) fn live(session: &LiveSession) -> Option<String> {
    let body = Body {
        u: session.user_id,
        t: session.tenant.get(),
        c: session.client_id.clone(),
        a: session.amr.clone(),
        at: session.auth_time.timestamp_micros(),
        x: session.expires_at.timestamp_micros(),
    };
    let body = serde_json::to_string(&body).ok()?;
    Some(format!("L {} {} {body}", session.version, session.checked_at.timestamp_micros()))
}

/// A tombstone.
pub(super) fn dead(version: i64) -> String {
    format!("D {version} 0")
}

/// What an entry says about the session whose key it stands under.
pub(super) fn parse(id: SessionId, text: &str) -> CacheAnswer {
    parse_live(id, text).unwrap_or(if text.starts_with("D ") {
        CacheAnswer::Dead
    } else {
        CacheAnswer::Nothing
    })
}

fn parse_live(id: SessionId, text: &str) -> Option<CacheAnswer> {
    let (version, rest) = text.strip_prefix("L ")?.split_once(' ')?;
    let (checked_at, body) = rest.split_once(' ')?;
    let body: Body = serde_json::from_str(body).ok()?;
    // A session lives in its user's bucket: anything else was not written by us.
    if body.u.bucket() != id.bucket() {
        return None;
    }
    Some(CacheAnswer::Live(LiveSession {
        id,
        user_id: body.u,
        tenant: TenantId::new(body.t),
        client_id: body.c,
        amr: body.a,
        auth_time: time(body.at)?,
        version: version.parse().ok()?,
        expires_at: time(body.x)?,
        checked_at: time(checked_at.parse().ok()?)?,
    }))
}

fn time(micros: i64) -> Option<DateTime<Utc>> {
    DateTime::from_timestamp_micros(micros)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use shard_key::Bucket;

    fn session() -> LiveSession {
        let bucket = Bucket::new(7).unwrap();
        let at = time(1_700_000_000_123_456).unwrap();
        LiveSession {
            id: SessionId::generate(bucket, 1, [1; 8]),
            user_id: UserId::generate(bucket, 1, [2; 8]),
            tenant: TenantId::DEFAULT,
            client_id: "first-party".to_owned(),
            amr: vec!["pwd".to_owned()],
            auth_time: at,
            version: 3,
            expires_at: at,
            checked_at: at,
        }
    }

    #[test]
    fn entries_round_trip() {
        let session = session();
        let text = live(&session).unwrap();
        assert!(text.starts_with("L 3 1700000000123456 {"));
        assert_eq!(parse(session.id, &text), CacheAnswer::Live(session.clone()));
        assert_eq!(parse(session.id, &dead(4)), CacheAnswer::Dead);
    }

    #[test]
    fn strange_entries_are_nothing() {
        let id = session().id;
        let foreign = SessionId::generate(Bucket::new(8).unwrap(), 1, [1; 8]);
        assert_eq!(parse(foreign, &live(&session()).unwrap()), CacheAnswer::Nothing);
        for text in ["", "L", "L 1", "L 1 2 {}", "L x y {}", "X 1 2", "\u{0}"] {
            assert_eq!(parse(id, text), CacheAnswer::Nothing, "{text:?}");
        }
    }
}
