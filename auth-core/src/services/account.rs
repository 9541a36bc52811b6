//! The user's own account: read, rename, change the password, delete.
use std::sync::Arc;

use chrono::Duration;

use super::{OnceError, OnceKey, OnceKeys, PasswordProof, ProofError, TokenSubject};
use crate::crypto::password::{HashClass, HashError, PasswordHasher};
use crate::domain::{Address, DisplayName, Password, Principal, User};
use crate::ports::{
    Accounts, Freshness, Idempotency, Once, PasswordChange, Random, Revoked, SessionCache, StoreError,
    random_bytes,
};

/// Why an account call did nothing.
#[derive(Debug)]
pub enum AccountError {
    /// The session is over or the user not active.
    InvalidToken,
    /// The password could not be proven.
    Proof(ProofError),
    /// The idempotency key stopped it.
    Once(OnceError),
    /// The hash queue is full.
    Hash(HashError),
    /// The shard could not say.
    Store(StoreError),
}

/// The capabilities over one's own account.
pub struct Account {
    /// The accounts.
    pub accounts: Arc<dyn Accounts>,
    /// Where tombstones go.
    pub cache: Arc<dyn SessionCache>,
    /// Proves the current password.
    pub proof: Arc<PasswordProof>,
    /// Hashes the new one.
    pub hasher: Arc<PasswordHasher>,
    /// Binds idempotency keys.
    pub once: Arc<OnceKeys>,
    /// How long a deleted account's identifiers are held.
    pub hold: Duration,
    /// Salts.
    pub random: Arc<dyn Random>,
}

impl Account {
    /// The caller's user.
    #[tracing::instrument(level = "trace", name = "account.get", skip_all)]
    pub async fn get(&self, caller: &Principal, freshness: Freshness) -> Result<User, AccountError> {
        let mut user = self.accounts.get(caller.user_id, freshness).await.map_err(AccountError::Store)?;
        if user.is_none() && freshness != Freshness::Primary {
            // A replica that lags does not know a new user; only the primary's "no" is one.
            user =
                self.accounts.get(caller.user_id, Freshness::Primary).await.map_err(AccountError::Store)?;
        }
        user.ok_or(AccountError::InvalidToken)
    }

    /// Sets or clears the display name.
    #[tracing::instrument(level = "trace", name = "account.rename", skip_all)]
    pub async fn rename(
        &self,
        caller: TokenSubject,
        name: Option<DisplayName>,
        once: Option<&OnceKey>,
    ) -> Result<User, AccountError> {
        let text = name.as_ref().map_or("", DisplayName::as_str);
        let once = self.bind(once, "me.rename", caller, &[text.as_bytes()], &[]);
        let renamed = self.accounts.rename(caller.user_id, caller.session_id, name.as_ref(), once.as_ref());
        match renamed.await.map_err(AccountError::Store)? {
            Once::Replayed(_) => {
                let user = self
                    .accounts
                    .get(caller.user_id, Freshness::Primary)
                    .await
                    .map_err(AccountError::Store)?;
                user.ok_or(AccountError::InvalidToken)
            }
            other => other.settle(|_| None).map_err(AccountError::Once)?.ok_or(AccountError::InvalidToken),
        }
    }

    /// Changes the password; all other sessions end.
    #[tracing::instrument(level = "trace", name = "account.change_password", skip_all)]
    pub async fn change_password(
        &self,
        caller: TokenSubject,
        (current, new): (&Password, &Password),
        from: Address,
        once: Option<&OnceKey>,
    ) -> Result<(), AccountError> {
        let once = self.bind(once, "me.password", caller, &[], &[current.as_bytes(), new.as_bytes()]);
        let found = self.accounts.get_password(caller.user_id, caller.session_id).await;
        found.map_err(AccountError::Store)?.ok_or(AccountError::InvalidToken)?;
        if self.ran_before(caller, once.as_ref()).await? {
            return Ok(());
        }
        let expected_version = self.proof.run(caller, current, from).await.map_err(AccountError::Proof)?;
        let salt = random_bytes(&*self.random);
        let password =
            self.hasher.hash(new.as_bytes(), salt, HashClass::Known).await.map_err(AccountError::Hash)?;
        let change = PasswordChange {
            user_id: caller.user_id,
            session: caller.session_id,
            expected_version,
            password,
        };
        let changed =
            self.accounts.change_password(&change, once.as_ref()).await.map_err(AccountError::Store)?;
        self.finish(changed).await
    }

    /// Deletes the account; all sessions end, the identifiers are held for a while.
    #[tracing::instrument(level = "trace", name = "account.delete", skip_all)]
    pub async fn delete(
        &self,
        caller: TokenSubject,
        password: &Password,
        from: Address,
        once: Option<&OnceKey>,
    ) -> Result<(), AccountError> {
        let once = self.bind(once, "me.delete", caller, &[], &[password.as_bytes()]);
        if self.ran_before(caller, once.as_ref()).await? {
            return Ok(());
        }
        let version = self.proof.run(caller, password, from).await.map_err(AccountError::Proof)?;
        let deleted =
            self.accounts.delete(caller.user_id, caller.session_id, version, self.hold, once.as_ref());
        let deleted = deleted.await.map_err(AccountError::Store)?;
        self.finish(deleted).await
    }

    fn bind(
        &self,
        key: Option<&OnceKey>,
        route: &str,
        caller: TokenSubject,
        open: &[&[u8]],
        secret: &[&[u8]],
    ) -> Option<Idempotency> {
        let principal = caller.user_id.as_uuid();
        key.map(|key| self.once.bind(key, route, principal.as_bytes(), open, secret))
    }

    /// A repeated call is answered before its password costs a hash, also when the first one ended the session.
    async fn ran_before(
        &self,
        caller: TokenSubject,
        once: Option<&Idempotency>,
    ) -> Result<bool, AccountError> {
        let Some(once) = once else { return Ok(false) };
        let found =
            self.accounts.find_once(caller.user_id.bucket(), once).await.map_err(AccountError::Store)?;
        let Some(found) = found else { return Ok(false) };
        found.settle(|_| ()).map_err(AccountError::Once)?;
        Ok(true)
    }

    async fn finish(&self, outcome: Once<Option<Vec<Revoked>>>) -> Result<(), AccountError> {
        let revoked = outcome.settle(|_| Some(Vec::new())).map_err(AccountError::Once)?;
        // The primary's word: session, user or password changed while the hash was computed.
        let revoked = revoked.ok_or(AccountError::InvalidToken)?;
        self.cache.bury(&revoked).await;
        Ok(())
    }
}
