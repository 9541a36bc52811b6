//! Refreshing: the table of docs/refresh.md, hot row first.
//!
//! The MAC is checked before any state is touched. Then one statement rotates; only when it found nothing to rotate is
//! the token looked at as a replay, and only then classified under a lock.
use std::sync::Arc;
use std::time::Duration;

use super::{IssueError, TokenIssuer};
use crate::crypto::mac;
use crate::crypto::refresh_token::{RefreshCodec, RefreshToken};
use crate::domain::{ClientContext, DeviceSecret, Grant, SessionLimits};
use crate::ports::{Judgement, Presented, Refreshed, SessionCache, Sessions, StoreError};

/// Why no successor was handed out.
#[derive(Debug)]
pub enum RefreshError {
    /// Malformed, forged, over, reused: the client must log in again.
    InvalidToken,
    /// The successor was handed out often enough in this window; the family lives.
    Storm(Duration),
    /// No key to make a token with.
    Issue(IssueError),
    /// The shard could not say.
    Store(StoreError),
}

/// The capability to refresh.
pub struct RefreshService {
    /// The sessions.
    pub sessions: Arc<dyn Sessions>,
    /// Where tombstones go. A refresh itself writes no copy: whoever checks the session next fetches one.
    pub cache: Arc<dyn SessionCache>,
    /// Reads and writes refresh tokens.
    pub codec: Arc<RefreshCodec>,
    /// Makes the tokens.
    pub issuer: Arc<TokenIssuer>,
    /// Windows and counts.
    pub limits: SessionLimits,
}

/// A token that is found current by the lock, but not by the statements before it, lost a race; it is tried again.
const ROUNDS: usize = 3;

impl RefreshService {
    /// Exchanges a refresh token for its successor and a fresh access token.
    pub async fn run(&self, token: &str, client: &ClientContext) -> Result<Grant, RefreshError> {
        let token = self.codec.decode(token).map_err(|_| RefreshError::InvalidToken)?;
        let presented = self.presented(&token, client);
        for _ in 0..ROUNDS {
            if let Some(successor) = self.successor(&presented).await? {
                return self.grant(successor, token.seed);
            }
        }
        Err(RefreshError::Store(StoreError::Unavailable("the session kept changing".into())))
    }

    fn presented(&self, token: &RefreshToken, client: &ClientContext) -> Presented {
        Presented {
            session: token.sid,
            generation: token.generation,
            seed_hash: mac::sha256(&token.seed),
            device: client.device.as_ref().map(DeviceSecret::hash),
            new_kid: self.codec.current_kid(),
            ip: client.address.to_string(),
            user_agent: client.user_agent.as_str().to_owned(),
        }
    }

    /// `None`: the session changed between the statements; try again.
    async fn successor(&self, presented: &Presented) -> Result<Option<Refreshed>, RefreshError> {
        if let Some(rotated) =
            self.sessions.rotate(presented, &self.limits).await.map_err(RefreshError::Store)?
        {
            return Ok(Some(rotated));
        }
        if let Some(again) =
            self.sessions.replay(presented, &self.limits).await.map_err(RefreshError::Store)?
        {
            tracing::debug!(session.id = %presented.session, "the same successor was handed out again");
            return Ok(Some(again));
        }
        match self.sessions.judge(presented, &self.limits).await.map_err(RefreshError::Store)? {
            Judgement::Current => Ok(None),
            Judgement::Late(successor) => Ok(Some(*successor)),
            Judgement::Storm => {
                Err(RefreshError::Storm(self.limits.replay_window.to_std().unwrap_or_default()))
            }
            Judgement::Dead => Err(RefreshError::InvalidToken),
            Judgement::Reused(revoked) => {
                tracing::warn!(session.id = %revoked.session, "a refresh token was used twice: the session is revoked");
                self.cache.bury(&[revoked]).await;
                Err(RefreshError::InvalidToken)
            }
        }
    }

    fn grant(&self, successor: Refreshed, seed: [u8; 16]) -> Result<Grant, RefreshError> {
        let next = RefreshToken {
            kid: successor.refresh_kid,
            sid: successor.session.id,
            generation: successor.generation,
            seed,
        };
        self.issuer.grant(successor.session, successor.user, &next).map_err(RefreshError::Issue)
    }
}
