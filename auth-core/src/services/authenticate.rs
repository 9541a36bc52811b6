//! Who is calling: an access token, and whether its session is still alive.
use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use shard_key::{SessionId, UserId};
use tokio::sync::OnceCell;

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
    loads: Mutex<HashMap<SessionId, Arc<Load>>>,
}

/// How far the database's clock may be ahead of ours.
const CLOCK_SLACK: chrono::Duration = chrono::Duration::seconds(5);

/// One look at the primary, shared by everybody who asks for the session meanwhile.
type Load = OnceCell<Option<LiveSession>>;

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
        Self { keys, settings, sessions, cache, limits, clock, opened, loads: Mutex::default() }
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
            CacheAnswer::Live(copy) if self.is_trusted(&copy) => return Ok(Some(copy)),
            CacheAnswer::Live(_) | CacheAnswer::Nothing => {}
        }
        let session = self.load(id).await.map_err(AuthError::Store)?;
        if let Some(session) = &session {
            self.cache.put(session).await;
        }
        Ok(session)
    }

    fn is_trusted(&self, copy: &LiveSession) -> bool {
        let now = self.clock.now();
        // By two clocks: a copy from the future is no reason to believe it longer.
        let age = now - copy.checked_at;
        now < copy.expires_at && age > -CLOCK_SLACK && age < self.limits.cache_trust
    }

    /// Single flight: one statement on the primary however many requests wait for the same session.
    async fn load(&self, id: SessionId) -> Result<Option<LiveSession>, StoreError> {
        let load = Arc::clone(self.lock_loads().entry(id).or_default());
        let _leaves = Leaves { of: self, id, load: &load };
        load.get_or_try_init(|| self.sessions.get(id)).await.cloned()
    }

    fn lock_loads(&self) -> std::sync::MutexGuard<'_, HashMap<SessionId, Arc<Load>>> {
        self.loads.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// Whoever is done first, or gives up, takes the entry out: later callers look again instead of sharing an old answer,
/// and nothing stays behind.
struct Leaves<'a> {
    of: &'a Authenticator,
    id: SessionId,
    load: &'a Arc<Load>,
}

impl Drop for Leaves<'_> {
    fn drop(&mut self) {
        let mut loads = self.of.lock_loads();
        if loads.get(&self.id).is_some_and(|current| Arc::ptr_eq(current, self.load)) {
            loads.remove(&self.id);
        }
    }
}
