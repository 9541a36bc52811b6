//! Refreshing: the table of docs/refresh.md, hot row first.
//!
//! The MAC is checked before any state is touched. Then one statement rotates; only when it found nothing to rotate is
//! the token looked at as a replay, and only then classified under a lock.
use std::sync::Arc;
use std::time::Duration;

use super::issue::Pen;
use super::{IssueError, Throttle, TokenIssuer};
use crate::crypto::mac;
use crate::crypto::refresh_token::{BadRefreshToken, RefreshCodec, RefreshToken};
use crate::domain::{ClientContext, DeviceSecret, Grant, Limited, SessionLimits};
use crate::ports::{Judgement, Presented, Refreshed, SessionCache, Sessions, StoreError};

/// Why no successor was handed out.
#[derive(Debug)]
pub enum RefreshError {
    /// Malformed, forged, over, reused: the client must log in again.
    InvalidToken,
    /// The successor was handed out often enough in this window; the family lives.
    Storm(Duration),
    /// Too many forged tokens from there, or too many refreshes of the session; nothing was looked at.
    Limited(Limited),
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
    /// Counts forgeries, and refreshes of one session.
    pub throttle: Arc<Throttle>,
    /// Windows and counts.
    pub limits: SessionLimits,
}

/// A token that is found current by the lock, but not by the statements before it, lost a race; it is tried again.
const ROUNDS: usize = 3;
/// What a storm is told. Short: another tab has stored the successor by then, while this token is worthless once its
/// window has passed.
const STORM_WAIT: Duration = Duration::from_secs(1);

impl RefreshService {
    /// Exchanges a refresh token for its successor and a fresh access token.
    #[tracing::instrument(level = "trace", name = "refresh", skip_all)]
    pub async fn run(&self, token: &str, client: &ClientContext) -> Result<Grant, RefreshError> {
        let token = match self.codec.decode(token) {
            Ok(token) => token,
            Err(error) => return Err(self.refuse(token, error, client).await),
        };
        self.throttle.refresh(token.sid).map_err(RefreshError::Limited)?;
        let presented = self.presented(&token, client);
        let pen = self.issuer.pen().map_err(RefreshError::Issue)?;
        for _ in 0..ROUNDS {
            if let Some(successor) = self.successor(&presented).await? {
                return self.grant(&pen, successor, token.seed);
            }
        }
        Err(RefreshError::Store(StoreError::Unavailable("the session kept changing".into())))
    }

    /// A key that this node does not hold may be one that others have already: our trouble, unless no session from then
    /// can be alive. The time is unproven, and decides nothing but which refusal it is. Anything else is a forgery, and
    /// counted.
    async fn refuse(&self, text: &str, error: BadRefreshToken, client: &ClientContext) -> RefreshError {
        if let BadRefreshToken::UnknownKey { session_unix_ms } = error {
            let oldest = (self.issuer.clock.now() - self.limits.absolute).timestamp_millis();
            if session_unix_ms.cast_signed() >= oldest {
                return RefreshError::Issue(IssueError::NoRefreshKey);
            }
        }
        match self.throttle.forged(self.codec.named_session(text), client.address).await {
            Ok(()) => RefreshError::InvalidToken,
            Err(limited) => RefreshError::Limited(limited),
        }
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
            Judgement::Storm => Err(RefreshError::Storm(STORM_WAIT)),
            Judgement::Dead => Err(RefreshError::InvalidToken),
            Judgement::Reused(revoked) => {
                tracing::warn!(session.id = %revoked.session, "a refresh token was used twice: the session is revoked");
                self.cache.bury(&[revoked]).await;
                Err(RefreshError::InvalidToken)
            }
        }
    }

    fn grant(&self, pen: &Pen, successor: Refreshed, seed: [u8; 16]) -> Result<Grant, RefreshError> {
        let next = RefreshToken {
            kid: successor.refresh_kid,
            sid: successor.session.id,
            generation: successor.generation,
            seed,
        };
        self.issuer.grant(pen, successor.session, successor.user, &next).map_err(RefreshError::Issue)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::ring::SecretRing;
    use crate::crypto::seal::Sealer;
    use crate::domain::{
        Address, KeyTimes, LimitRule, LiveSession, RevokeReason, SessionSummary, Standing, UserAgent,
    };
    use crate::ports::{CacheAnswer, Clock, Freshness, KeyRow, KeyStore, Limits, Random, Revoked};
    use crate::services::{Keys, ThrottleSettings, TokenSettings};
    use chrono::{DateTime, Duration as Span, Utc};
    use shard_key::{Bucket, SessionId, UserId};

    /// A world in which nothing can be signed, and every touch of a session is a mistake.
    struct Nothing;

    impl Clock for Nothing {
        fn now(&self) -> DateTime<Utc> {
            DateTime::UNIX_EPOCH + Span::days(20_000)
        }
    }

    impl Random for Nothing {
        fn fill(&self, bytes: &mut [u8]) {
            bytes.fill(7);
        }
    }

    #[async_trait::async_trait]
    impl KeyStore for Nothing {
        fn snapshot(&self) -> Vec<KeyRow> {
            Vec::new()
        }
        fn distrusted(&self) -> Vec<String> {
            Vec::new()
        }
        async fn list(&self) -> Result<Vec<KeyRow>, StoreError> {
            Ok(Vec::new())
        }
        async fn insert(&self, _: &KeyRow, _: usize) -> Result<bool, StoreError> {
            unreachable!()
        }
        async fn set_signs_until(&self, _: &str, _: DateTime<Utc>) -> Result<bool, StoreError> {
            unreachable!()
        }
        async fn distrust(&self, _: &str) -> Result<Vec<String>, StoreError> {
            unreachable!()
        }
    }

    #[async_trait::async_trait]
    impl Limits for Nothing {
        async fn take(&self, _: &LimitRule, _: &str) -> Option<Standing> {
            None
        }
    }

    #[async_trait::async_trait]
    impl SessionCache for Nothing {
        async fn get(&self, _: SessionId) -> CacheAnswer {
            CacheAnswer::Nothing
        }
        async fn put(&self, _: &LiveSession) {}
        async fn bury(&self, _: &[Revoked]) {}
    }

    #[async_trait::async_trait]
    impl Sessions for Nothing {
        async fn rotate(&self, _: &Presented, _: &SessionLimits) -> Result<Option<Refreshed>, StoreError> {
            panic!("rotated although nobody can be told the successor")
        }
        async fn replay(&self, _: &Presented, _: &SessionLimits) -> Result<Option<Refreshed>, StoreError> {
            unreachable!()
        }
        async fn judge(&self, _: &Presented, _: &SessionLimits) -> Result<Judgement, StoreError> {
            unreachable!()
        }
        async fn get(&self, _: SessionId) -> Result<Option<LiveSession>, StoreError> {
            unreachable!()
        }
        async fn list(&self, _: UserId, _: i64, _: Freshness) -> Result<Vec<SessionSummary>, StoreError> {
            unreachable!()
        }
        async fn revoke(
            &self,
            _: SessionId,
            _: UserId,
            _: RevokeReason,
        ) -> Result<Option<Revoked>, StoreError> {
            unreachable!()
        }
        async fn revoke_others(&self, _: UserId, _: SessionId) -> Result<Option<Vec<Revoked>>, StoreError> {
            unreachable!()
        }
    }

    fn service(ring: &str) -> RefreshService {
        let day = Span::days(1);
        let times = KeyTimes { lead: day, rotation: day, horizon: day, overtime: day, linger: day };
        let ring = SecretRing::parse(ring).unwrap();
        let codec = Arc::new(RefreshCodec::new(ring.clone()));
        let nothing = Arc::new(Nothing);
        let keys =
            Keys::new(nothing.clone(), Arc::new(Sealer::new(ring)), times, nothing.clone(), nothing.clone());
        let settings =
            TokenSettings { issuer: String::new(), audience: Vec::new(), access_ttl_s: 300, leeway_s: 30 };
        let issuer = TokenIssuer {
            keys: Arc::new(keys),
            refresh: Arc::clone(&codec),
            settings,
            clock: nothing.clone(),
            random: nothing.clone(),
        };
        let limits = SessionLimits {
            idle: Span::days(30),
            absolute: Span::days(90),
            max_live: 100,
            replay_window: Span::seconds(30),
            max_replays: 3,
            late_replay_every: 8,
            cache_trust: Span::seconds(60),
        };
        let throttle = ThrottleSettings {
            address_limits: true,
            window: Duration::from_secs(900),
            per_address: 100,
            forged_per_session: 2,
            refreshes_per_session: 60,
            nodes: 1,
            buckets: 10,
        };
        let throttle = Arc::new(Throttle::new(nothing.clone(), &throttle));
        let issuer = Arc::new(issuer);
        RefreshService { sessions: nothing.clone(), cache: nothing, codec, issuer, throttle, limits }
    }

    fn client() -> ClientContext {
        let address = Address::new(std::net::IpAddr::from([127, 0, 0, 1]));
        ClientContext { address, user_agent: UserAgent::default(), device: None }
    }

    fn token(codec: &RefreshCodec, opened: DateTime<Utc>) -> String {
        let millis = opened.timestamp_millis().cast_unsigned();
        let sid = SessionId::generate(Bucket::new(1).unwrap(), millis, [1; 8]);
        codec.encode(&RefreshToken { kid: codec.current_kid(), sid, generation: 0, seed: [2; 16] }).unwrap()
    }

    const ONE: &str = "1 AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE";
    const TWO: &str = "2 AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE";

    #[tokio::test]
    async fn a_session_does_not_move_on_while_nothing_can_be_signed() {
        let service = service(ONE);
        let outcome = service.run(&token(&service.codec, Nothing.now()), &client()).await;
        assert!(matches!(outcome, Err(RefreshError::Issue(IssueError::NoSigningKey))));
    }

    #[tokio::test]
    async fn an_unknown_refresh_key_is_our_trouble_while_a_session_of_it_can_live() {
        let (service, elsewhere) = (service(ONE), service(TWO));
        let fresh = token(&elsewhere.codec, Nothing.now() - Span::days(89));
        let outcome = service.run(&fresh, &client()).await;
        assert!(matches!(outcome, Err(RefreshError::Issue(IssueError::NoRefreshKey))));
        let old = token(&elsewhere.codec, Nothing.now() - Span::days(91));
        assert!(matches!(service.run(&old, &client()).await, Err(RefreshError::InvalidToken)));
    }
}
