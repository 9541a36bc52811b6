//! Logging in with a password.
//!
//! Two durable steps with the hash between them: an attempt is counted *before* the password is looked at, so that
//! parallel guesses cannot outrun the limit, and success opens the session and clears the count. An unknown address
//! takes the same steps and the same time.
use std::sync::Arc;
use std::time::Duration;

use shard_key::{Bucket, LookupHash, SessionId, TenantId};

use super::issue::Pen;
use super::{IdentifierKeys, IssueError, TokenIssuer};
use crate::crypto::mac;
use crate::crypto::password::{HashClass, HashError, PasswordHasher, StoredPassword};
use crate::crypto::refresh_token::{RefreshCodec, RefreshToken};
use crate::domain::{ClientContext, DeviceSecret, Email, Grant, Password, PasswordLimits, SessionLimits};
use crate::ports::{
    AttemptKey, Candidate, Clock, Login, Logins, Opened, Random, Reserved, SessionCache, StoreError,
    random_bytes,
};

/// Somebody claims to be the owner of an address.
pub struct LoginRequest {
    /// The address.
    pub email: Email,
    /// The proof.
    pub password: Password,
    /// Who sends it.
    pub client: ClientContext,
}

/// The token pair, and the device secret if this login issued one.
pub struct LoggedIn {
    /// The tokens.
    pub grant: Grant,
    /// To be kept by the client: shown this once.
    pub new_device: Option<DeviceSecret>,
}

/// Why nobody was logged in.
#[derive(Debug)]
pub enum LoginError {
    /// Unknown address, wrong password, no password, inactive user: not told apart.
    InvalidCredentials,
    /// Too many failures; try again after that long.
    Limited(Duration),
    /// The hash queue is full.
    Hash(HashError),
    /// No key to sign with.
    Issue(IssueError),
    /// The shard could not say.
    Store(StoreError),
}

/// The capability to log in.
pub struct LoginService {
    /// Attempts, candidates and sessions.
    pub logins: Arc<dyn Logins>,
    /// Where the new session is kept hot.
    pub cache: Arc<dyn SessionCache>,
    /// Finds the bucket of an address.
    pub identifiers: Arc<IdentifierKeys>,
    /// Verifies passwords.
    pub hasher: Arc<PasswordHasher>,
    /// Makes the tokens.
    pub issuer: Arc<TokenIssuer>,
    /// Which refresh key is current.
    pub refresh: Arc<RefreshCodec>,
    /// Session life.
    pub session_limits: SessionLimits,
    /// Failure limits.
    pub password_limits: PasswordLimits,
    /// The time inside new ids.
    pub clock: Arc<dyn Clock>,
    /// Ids, seeds, salts.
    pub random: Arc<dyn Random>,
}

impl LoginService {
    /// Verifies the password and opens a session.
    #[tracing::instrument(level = "trace", name = "login", skip_all)]
    pub async fn run(&self, request: LoginRequest) -> Result<LoggedIn, LoginError> {
        let (bucket, lookup) = self.identifiers.locate(TenantId::DEFAULT, &request.email);
        let attempt = attempt_key(bucket, &lookup, &request.client);
        let candidate = self.reserve(&attempt, &request.client).await?;
        let candidate = self.verify(candidate, &attempt, &request).await?;
        let pen = self.issuer.pen().map_err(LoginError::Issue)?;
        let rehashed = self.rehash(&candidate, &request.password).await;
        self.open(&pen, candidate, (rehashed, attempt), &request.client).await
    }

    async fn reserve(
        &self,
        attempt: &AttemptKey,
        client: &ClientContext,
    ) -> Result<Option<Candidate>, LoginError> {
        let device = client.device.as_ref().map(DeviceSecret::hash);
        let reserved =
            self.logins.reserve(attempt, device, &self.password_limits).await.map_err(LoginError::Store)?;
        match reserved {
            Reserved::Limited(wait) => Err(LoginError::Limited(wait)),
            Reserved::Go { candidate, delayed } => {
                if delayed {
                    tokio::time::sleep(self.password_limits.delay.to_std().unwrap_or_default()).await;
                }
                Ok(candidate)
            }
        }
    }

    /// One hash for everybody: a missing candidate pays for it too.
    #[tracing::instrument(level = "trace", name = "login.verify_password", skip_all)]
    async fn verify(
        &self,
        candidate: Option<Candidate>,
        attempt: &AttemptKey,
        request: &LoginRequest,
    ) -> Result<VerifiedCandidate, LoginError> {
        let password = request.password.as_bytes();
        let verdict = match &candidate {
            Some(found) => self.hasher.verify(password, &found.credential.password, class(found)).await,
            None => self.hasher.verify_dummy(password).await,
        };
        match verdict {
            Ok(verdict) => match candidate {
                Some(found) if verdict.matches => {
                    Ok(VerifiedCandidate { found, needs_rehash: verdict.needs_rehash })
                }
                _ => Err(LoginError::InvalidCredentials),
            },
            Err(error) => {
                // Nobody looked at the password, so it is not a failure. A lost refund costs one attempt for a while.
                let device = request.client.device.as_ref().map(DeviceSecret::hash);
                if let Err(error) = self.logins.refund(attempt, device).await {
                    tracing::warn!(%error, "an attempt whose password was not looked at stays counted");
                }
                Err(LoginError::Hash(error))
            }
        }
    }

    /// A hash with old parameters is renewed in passing; a full queue leaves that to the next login.
    async fn rehash(&self, candidate: &VerifiedCandidate, password: &Password) -> Option<StoredPassword> {
        if !candidate.needs_rehash {
            return None;
        }
        self.hasher.hash(password.as_bytes(), random_bytes(&*self.random), HashClass::Register).await.ok()
    }

    async fn open(
        &self,
        pen: &Pen,
        candidate: VerifiedCandidate,
        (rehashed, attempt): (Option<StoredPassword>, AttemptKey),
        client: &ClientContext,
    ) -> Result<LoggedIn, LoginError> {
        let Candidate { user, credential, .. } = candidate.found;
        // A device keeps its one secret for every account: a second one would take the first one's place in the browser,
        // and the first account's sessions would look moved.
        let presented = client.device.clone();
        let fresh = || DeviceSecret::from_bytes(random_bytes(&*self.random));
        let device = presented.clone().unwrap_or_else(fresh);
        let millis = self.clock.now().timestamp_millis().max(0).cast_unsigned();
        let session = SessionId::generate(user.id.bucket(), millis, random_bytes(&*self.random));
        let seed: [u8; 16] = random_bytes(&*self.random);
        let kid = self.refresh.current_kid();
        let login = Login {
            user_id: user.id,
            session,
            client_id: "first-party".to_owned(),
            amr: vec!["pwd".to_owned()],
            seed_hash: mac::sha256(&seed),
            refresh_kid: kid,
            device: device.hash(),
            bound: presented.is_some(),
            ip: client.address.to_string(),
            user_agent: client.user_agent.as_str().to_owned(),
            credential_version: credential.version,
            rehashed,
            attempt,
        };
        let opened = self.logins.open(&login, &self.session_limits).await.map_err(LoginError::Store)?;
        let Opened { session: live, ended } = opened.ok_or(LoginError::InvalidCredentials)?;
        self.cache.bury(&ended).await;
        self.cache.put(&live).await;
        let token = RefreshToken { kid, sid: session, generation: 0, seed };
        let grant = self.issuer.grant(pen, live, user, &token).map_err(LoginError::Issue)?;
        Ok(LoggedIn { grant, new_device: presented.is_none().then_some(device) })
    }
}

struct VerifiedCandidate {
    found: Candidate,
    needs_rehash: bool,
}

/// What a stranger presents must not get past those who have been here: only a device that this account knows counts.
fn class(found: &Candidate) -> HashClass {
    if found.known_device { HashClass::Known } else { HashClass::Login }
}

fn attempt_key(bucket: Bucket, lookup: &LookupHash, client: &ClientContext) -> AttemptKey {
    AttemptKey {
        bucket,
        tenant: TenantId::DEFAULT,
        subject: *lookup.as_bytes(),
        scope: client.address.failure_scope(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::User;
    use crate::ports::StoredCredential;
    use chrono::DateTime;
    use shard_key::UserId;

    #[test]
    fn only_a_device_that_the_account_knows_hashes_first() {
        let email = Email::parse("ada@example.com").unwrap();
        let id = UserId::generate(Bucket::new(7).unwrap(), 1, [1; 8]);
        let password = StoredPassword { phc: String::new(), pepper_id: None };
        let candidate = |known_device| Candidate {
            user: User::new(id, &email, None, DateTime::UNIX_EPOCH),
            credential: StoredCredential { password: password.clone(), version: 1 },
            known_device,
        };
        assert_eq!(class(&candidate(true)), HashClass::Known);
        assert_eq!(class(&candidate(false)), HashClass::Login);
    }
}
