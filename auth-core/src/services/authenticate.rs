//! Who is calling: an access token, and whether its session is still alive.
use std::sync::Arc;

use chrono::{DateTime, Duration, Utc};
use shard_key::{SessionId, UserId};

use super::single_flight::SingleFlight;
use super::{Keys, TokenSettings};
use crate::crypto::access_token::{BadAccessToken as Bad, Expected};
use crate::crypto::opened_tokens::{OpenedTokens, Verified};
use crate::domain::{LiveSession, Principal, SessionLimits};
use crate::ports::{CacheAnswer, Clock, SessionCache, Sessions, StoreError};

/// Why the caller is nobody.
#[derive(Debug)]
pub enum AuthError {
    /// The token is not valid now, or its session is over.
    InvalidToken,
    /// There is no token, or none that we signed. To the client the same as [`Self::InvalidToken`]; it counts against
    /// the address.
    NotOurs,
    /// The session could not be looked up.
    Store(StoreError),
}

/// What a valid token says; nobody has looked at the session yet. For calls whose own transaction does.
#[derive(Clone, Copy, Debug)]
pub struct TokenSubject {
    /// The user.
    pub user_id: UserId,
    /// The session.
    pub session_id: SessionId,
}

/// Checks access tokens and their sessions.
pub struct Authenticator {
    keys: Arc<Keys>,
    settings: TokenSettings,
    sessions: Arc<dyn Sessions>,
    cache: Arc<dyn SessionCache>,
    limits: SessionLimits,
    clock: Arc<dyn Clock>,
    opened: OpenedTokens,
    loads: SingleFlight<SessionId, Option<LiveSession>>,
}

/// How far the database's clock may be ahead of ours.
const CLOCK_SLACK: chrono::Duration = chrono::Duration::seconds(5);

impl Authenticator {
    /// Wires the checks.
    pub fn new(
        keys: Arc<Keys>,
        settings: TokenSettings,
        sessions: Arc<dyn Sessions>,
        cache: Arc<dyn SessionCache>,
        limits: SessionLimits,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let opened = OpenedTokens::default();
        Self { keys, settings, sessions, cache, limits, clock, opened, loads: SingleFlight::default() }
    }

    /// The caller, with a session that was live on its primary within the last minute.
    #[tracing::instrument(level = "trace", name = "authenticate", skip_all)]
    pub async fn principal(&self, token: &str) -> Result<Principal, AuthError> {
        let claims = self.claims(token)?;
        let session = self.live(claims.sid).await?;
        let session = session.filter(|s| s.user_id == claims.sub).ok_or(AuthError::InvalidToken)?;
        Ok(Principal { user_id: session.user_id, session_id: session.id, roles: claims.roles.clone() })
    }

    /// The caller as the token alone tells it. Only for calls that check the session in their own transaction.
    pub fn subject(&self, token: &str) -> Result<TokenSubject, AuthError> {
        let claims = self.claims(token)?;
        Ok(TokenSubject { user_id: claims.sub, session_id: claims.sid })
    }

    fn claims(&self, token: &str) -> Result<Verified, AuthError> {
        let set = self.keys.current();
        let expected = Expected {
            iss: &self.settings.issuer,
            aud: &self.settings.audience,
            now: self.clock.now().timestamp(),
            leeway_s: self.settings.leeway_s,
        };
        let opened = self.opened.verify(token, |kid| set.verifying_key(kid), &expected);
        opened.map_err(|bad| match bad {
            Bad::TooLong | Bad::Malformed | Bad::Header | Bad::Signature => AuthError::NotOurs,
            // An unknown key may be one that was removed or distrusted: then every honest client presents it.
            Bad::UnknownKey | Bad::Claims | Bad::Issuer | Bad::Audience | Bad::Expired | Bad::NotYet => {
                AuthError::InvalidToken
            }
        })
    }

    async fn live(&self, id: SessionId) -> Result<Option<LiveSession>, AuthError> {
        match self.cache.get(id).await {
            CacheAnswer::Dead => return Ok(None),
            CacheAnswer::Live(copy) if is_trusted(&copy, self.clock.now(), self.limits.cache_trust) => {
                return Ok(Some(copy));
            }
            CacheAnswer::Live(_) | CacheAnswer::Nothing => {}
        }
        let session = self.load(id).await.map_err(AuthError::Store)?;
        if let Some(session) = &session {
            self.cache.put(session).await;
        }
        Ok(session)
    }

    async fn load(&self, id: SessionId) -> Result<Option<LiveSession>, StoreError> {
        self.loads.run(id, || self.sessions.get(id)).await
    }
}

/// By two clocks: a copy from the future is no reason to believe it longer.
fn is_trusted(copy: &LiveSession, now: DateTime<Utc>, trust: Duration) -> bool {
    let age = now - copy.checked_at;
    now < copy.expires_at && age > -CLOCK_SLACK && age < trust
}

#[cfg(test)]
mod tests {
    use super::*;
    use shard_key::{Bucket, TenantId};

    #[test]
    fn a_copy_is_believed_for_its_time_and_no_longer() {
        let (bucket, at) = (Bucket::new(7).unwrap(), DateTime::UNIX_EPOCH);
        let copy = LiveSession {
            id: SessionId::generate(bucket, 1, [1; 8]),
            user_id: UserId::generate(bucket, 1, [2; 8]),
            tenant: TenantId::DEFAULT,
            client_id: "first-party".to_owned(),
            amr: Vec::new(),
            auth_time: at,
            version: 1,
            expires_at: at + Duration::hours(1),
            checked_at: at,
        };
        let trust = Duration::seconds(60);
        for (age_ms, trusted) in [(0, true), (59_999, true), (60_000, false), (-4_999, true), (-5_000, false)]
        {
            assert_eq!(is_trusted(&copy, at + Duration::milliseconds(age_ms), trust), trusted, "{age_ms}");
        }
        let over = LiveSession { expires_at: at + Duration::seconds(10), ..copy };
        assert!(!is_trusted(&over, at + Duration::seconds(10), trust), "a copy outlives no session");
    }
}
