//! Listing and ending sessions.
use std::sync::Arc;

use shard_key::SessionId;

use super::TokenSubject;
use crate::domain::{Principal, RevokeReason, SessionLimits, SessionSummary};
use crate::ports::{Freshness, SessionCache, Sessions, StoreError};

/// Why a session call did nothing.
#[derive(Debug)]
pub enum SessionError {
    /// The caller's own session is over.
    InvalidToken,
    /// No such live session of this user.
    NotFound,
    /// The shard could not say.
    Store(StoreError),
}

/// The capability to see and end sessions.
pub struct SessionService {
    /// The sessions.
    pub sessions: Arc<dyn Sessions>,
    /// Where tombstones go.
    pub cache: Arc<dyn SessionCache>,
    /// How many there can be.
    pub limits: SessionLimits,
}

impl SessionService {
    /// The caller's live sessions, the newest first.
    #[tracing::instrument(level = "trace", name = "sessions.list", skip_all)]
    pub async fn list(
        &self,
        caller: &Principal,
        freshness: Freshness,
    ) -> Result<Vec<SessionSummary>, SessionError> {
        let list = self.sessions.list(caller.user_id, self.limits.max_live, freshness);
        list.await.map_err(SessionError::Store)
    }

    /// Ends the caller's own session. Ending it again is no error.
    #[tracing::instrument(level = "trace", name = "sessions.logout", skip_all)]
    pub async fn logout(&self, caller: TokenSubject) -> Result<(), SessionError> {
        let revoked = self.sessions.revoke(caller.session_id, caller.user_id, RevokeReason::Logout);
        if let Some(revoked) = revoked.await.map_err(SessionError::Store)? {
            self.cache.bury(&[revoked]).await;
        }
        Ok(())
    }

    /// Ends one session of the caller, whose own must be live by the primary's word.
    #[tracing::instrument(level = "trace", name = "sessions.end", skip_all)]
    pub async fn end(&self, caller: TokenSubject, session: SessionId) -> Result<(), SessionError> {
        let own = self.sessions.get(caller.session_id).await.map_err(SessionError::Store)?;
        own.filter(|own| own.user_id == caller.user_id).ok_or(SessionError::InvalidToken)?;
        let revoked = self.sessions.revoke(session, caller.user_id, RevokeReason::EndedByUser);
        let revoked = revoked.await.map_err(SessionError::Store)?.ok_or(SessionError::NotFound)?;
        self.cache.bury(&[revoked]).await;
        Ok(())
    }

    /// Ends all sessions of the caller but this one.
    #[tracing::instrument(level = "trace", name = "sessions.end_others", skip_all)]
    pub async fn end_others(&self, caller: TokenSubject) -> Result<(), SessionError> {
        let revoked = self.sessions.revoke_others(caller.user_id, caller.session_id);
        let revoked = revoked.await.map_err(SessionError::Store)?.ok_or(SessionError::InvalidToken)?;
        self.cache.bury(&revoked).await;
        Ok(())
    }
}
