//! Making the token pair of a session.
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::{ClockGuard, ClockState, Keys};
use crate::crypto::access_token::AccessClaims;
use crate::crypto::refresh_token::{RefreshCodec, RefreshToken};
use crate::crypto::signing_key::SigningKey;
use crate::domain::{Grant, LiveSession, User, tenant_slug};
use crate::ports::{Clock, Random, random_bytes};

/// What every access token says alike.
#[derive(Clone, Debug)]
pub struct TokenSettings {
    /// `iss`: our public URL.
    pub issuer: String,
    /// `aud`.
    pub audience: Vec<String>,
    /// The life of an access token, in seconds.
    pub access_ttl_s: i64,
    /// The clock difference that our own checks forgive, in seconds.
    pub leeway_s: i64,
}

/// Why no token could be made; an outage, never the caller's fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum IssueError {
    /// No key may sign at this time.
    #[error("no signing key is valid now")]
    NoSigningKey,
    /// This node's clock is off.
    #[error("the clock is off")]
    ClockOff,
    /// The session's refresh key is not in this node's ring.
    #[error("the refresh key of the session is not on this node")]
    NoRefreshKey,
}

/// Makes access and refresh tokens.
pub struct TokenIssuer {
    /// The signing keys.
    pub keys: Arc<Keys>,
    /// The refresh token codec.
    pub refresh: Arc<RefreshCodec>,
    /// The settings.
    pub settings: TokenSettings,
    /// `iat` and `exp`.
    pub clock: Arc<dyn Clock>,
    /// Whether that clock may be believed.
    pub guard: Arc<ClockGuard>,
    /// `jti`.
    pub random: Arc<dyn Random>,
}

/// The promise that a token can be signed. Taken before state changes: a session must not move on while nobody can tell
/// its owner the successor.
pub struct Pen(Arc<SigningKey>);

impl TokenIssuer {
    /// A key that may sign now.
    pub fn pen(&self) -> Result<Pen, IssueError> {
        if self.guard.state() != ClockState::Good {
            return Err(IssueError::ClockOff);
        }
        self.keys.signer(self.clock.now()).map(Pen).ok_or(IssueError::NoSigningKey)
    }

    /// Signs a fresh access token and encodes the refresh token.
    pub fn grant(
        &self,
        pen: &Pen,
        session: LiveSession,
        user: User,
        refresh: &RefreshToken,
    ) -> Result<Grant, IssueError> {
        let iat = self.clock.now().timestamp();
        let jti: [u8; 16] = random_bytes(&*self.random);
        let claims = AccessClaims {
            iss: self.settings.issuer.clone(),
            sub: session.user_id,
            aud: self.settings.audience.clone(),
            client_id: session.client_id.clone(),
            sid: session.id,
            jti: URL_SAFE_NO_PAD.encode(jti),
            iat,
            exp: iat + self.settings.access_ttl_s,
            auth_time: session.auth_time.timestamp(),
            amr: session.amr.clone(),
            tenant: tenant_slug(session.tenant).to_owned(),
            roles: Vec::new(),
            scope: None,
        };
        let refresh_token = self.refresh.encode(refresh).map_err(|_| IssueError::NoRefreshKey)?;
        Ok(Grant {
            access_token: pen.0.sign(&claims),
            expires_in: self.settings.access_ttl_s,
            refresh_token,
            session,
            user,
        })
    }
}
