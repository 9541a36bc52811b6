//! Registering: one address, one user, one transaction on one shard.
use std::sync::Arc;

use shard_key::{Bucket, LookupHash, TenantId, UserId};

use super::{IdentifierKeys, OnceError, OnceKey, OnceKeys};
use crate::crypto::password::{HashClass, HashError, PasswordHasher};
use crate::domain::{DisplayName, Email, Password, User};
use crate::ports::{
    Accounts, Clock, Freshness, Idempotency, NewAccount, Once, Random, StoreError, random_bytes,
};

/// A new account, as its owner asked for it.
pub struct RegisterRequest {
    /// The address that becomes the login name.
    pub email: Email,
    /// The password.
    pub password: Password,
    /// The display name.
    pub name: Option<DisplayName>,
    /// The idempotency key, where one was sent.
    pub once: Option<OnceKey>,
}

/// Why no account was made.
#[derive(Debug)]
pub enum RegisterError {
    /// Somebody has the address, or had it and it is still held.
    EmailTaken,
    /// The idempotency key stopped it.
    Once(OnceError),
    /// The hash queue is full.
    Hash(HashError),
    /// The shard could not say.
    Store(StoreError),
}

/// The capability to register.
pub struct RegisterService {
    /// Where accounts go.
    pub accounts: Arc<dyn Accounts>,
    /// Finds the bucket of an address.
    pub identifiers: Arc<IdentifierKeys>,
    /// Hashes passwords.
    pub hasher: Arc<PasswordHasher>,
    /// Binds idempotency keys.
    pub once: Arc<OnceKeys>,
    /// The time inside new ids.
    pub clock: Arc<dyn Clock>,
    /// Ids and salts.
    pub random: Arc<dyn Random>,
}

impl RegisterService {
    /// Makes the account and returns its user; the same user again for a repeated idempotency key.
    #[tracing::instrument(level = "trace", name = "register", skip_all)]
    pub async fn run(&self, request: RegisterRequest) -> Result<User, RegisterError> {
        let (bucket, lookup_hash) = self.identifiers.locate(TenantId::DEFAULT, &request.email);
        let once = request.once.as_ref().map(|key| self.bind(key, &request, &lookup_hash));
        if let Some(user) = self.answered_before(bucket, once.as_ref()).await? {
            return Ok(user);
        }
        let account = self.build(bucket, lookup_hash, &request).await?;
        let outcome = self.accounts.insert(&account, once.as_ref()).await.map_err(RegisterError::Store)?;
        match outcome {
            Once::Done(Some(user)) => Ok(user),
            Once::Done(None) => Err(RegisterError::EmailTaken),
            Once::Replayed(id) => self.load(id).await,
            Once::Mismatch => Err(RegisterError::Once(OnceError::Mismatch)),
            Once::Running => Err(RegisterError::Once(OnceError::Running)),
        }
    }

    fn bind(&self, key: &OnceKey, request: &RegisterRequest, lookup: &LookupHash) -> Idempotency {
        let name = request.name.as_ref().map_or("", DisplayName::as_str);
        let open: [&[u8]; 2] = [request.email.as_written().as_bytes(), name.as_bytes()];
        self.once.bind(key, "register", lookup.as_bytes(), &open, &[request.password.as_bytes()])
    }

    /// A repeated call is answered before its password costs a hash.
    async fn answered_before(
        &self,
        bucket: Bucket,
        once: Option<&Idempotency>,
    ) -> Result<Option<User>, RegisterError> {
        let Some(once) = once else { return Ok(None) };
        match self.accounts.find_once(bucket, once).await.map_err(RegisterError::Store)? {
            Some(Once::Replayed(id)) => self.load(id).await.map(Some),
            Some(Once::Mismatch) => Err(RegisterError::Once(OnceError::Mismatch)),
            Some(Once::Running) => Err(RegisterError::Once(OnceError::Running)),
            Some(Once::Done(())) | None => Ok(None),
        }
    }

    async fn load(&self, id: Option<uuid::Uuid>) -> Result<User, RegisterError> {
        let id = id.and_then(|id| UserId::try_from(id).ok());
        let id = id.ok_or_else(|| {
            RegisterError::Store(StoreError::Corrupt("idempotency row names no user".into()))
        })?;
        let user = self.accounts.get(id, Freshness::Primary).await.map_err(RegisterError::Store)?;
        // Deleted since: the address is not free, which is what the caller must know.
        user.ok_or(RegisterError::EmailTaken)
    }

    #[tracing::instrument(level = "trace", name = "register.hash_password", skip_all)]
    async fn build(
        &self,
        bucket: Bucket,
        lookup_hash: LookupHash,
        request: &RegisterRequest,
    ) -> Result<NewAccount, RegisterError> {
        let salt = random_bytes(&*self.random);
        let password = self
            .hasher
            .hash(request.password.as_bytes(), salt, HashClass::Register)
            .await
            .map_err(RegisterError::Hash)?;
        let now = self.clock.now();
        let id = UserId::generate(
            bucket,
            now.timestamp_millis().max(0).cast_unsigned(),
            random_bytes(&*self.random),
        );
        let user = User::new(id, &request.email, request.name.clone(), now);
        Ok(NewAccount { user, email: request.email.clone(), lookup_hash, password })
    }
}
