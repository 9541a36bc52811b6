//! A logged-in user proves the password again, before something that cannot be undone.
use std::sync::Arc;
use std::time::Duration;

use super::TokenSubject;
use crate::crypto::mac;
use crate::crypto::password::{HashClass, HashError, PasswordHasher};
use crate::domain::{Address, Password, PasswordLimits};
use crate::ports::{Accounts, AttemptKey, Logins, StoreError};
use shard_key::TenantId;

/// Why the proof failed.
#[derive(Debug)]
pub enum ProofError {
    /// The session is over or the user not active.
    InvalidToken,
    /// Wrong password.
    WrongPassword,
    /// Too many failures.
    Limited(Duration),
    /// The hash queue is full.
    Hash(HashError),
    /// The shard could not say.
    Store(StoreError),
}

/// Counts and verifies such proofs.
pub struct PasswordProof {
    /// The counters.
    pub logins: Arc<dyn Logins>,
    /// The credential.
    pub accounts: Arc<dyn Accounts>,
    /// The hash pool.
    pub hasher: Arc<PasswordHasher>,
    /// The limits.
    pub limits: PasswordLimits,
}

impl PasswordProof {
    /// The version of the credential that `password` matches.
    #[tracing::instrument(level = "trace", name = "prove_password", skip_all)]
    pub async fn run(
        &self,
        caller: TokenSubject,
        password: &Password,
        from: Address,
    ) -> Result<i64, ProofError> {
        let found =
            self.accounts.get_password(caller.user_id, caller.session_id).await.map_err(ProofError::Store)?;
        let found = found.ok_or(ProofError::InvalidToken)?;
        let attempt = AttemptKey {
            bucket: caller.user_id.bucket(),
            tenant: TenantId::DEFAULT,
            subject: mac::sha256(caller.user_id.as_uuid().as_bytes()),
            scope: from.failure_scope(),
        };
        let limited = self.logins.reserve_proof(&attempt, &self.limits).await.map_err(ProofError::Store)?;
        if let Some(wait) = limited {
            return Err(ProofError::Limited(wait));
        }
        match self.hasher.verify(password.as_bytes(), &found.password, HashClass::Known).await {
            Ok(verdict) if verdict.matches => {
                self.logins.clear_proof(&attempt).await.map_err(ProofError::Store)?;
                Ok(found.version)
            }
            Ok(_) => Err(ProofError::WrongPassword),
            Err(error) => {
                if let Err(error) = self.logins.refund(&attempt, None).await {
                    tracing::warn!(%error, "an attempt whose password was not looked at stays counted");
                }
                Err(ProofError::Hash(error))
            }
        }
    }
}
