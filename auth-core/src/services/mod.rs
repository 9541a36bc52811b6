//! What callers may ask for. One struct of ports and configuration a capability, one entry verb, private steps below it.
//!
//! Every service has one error enum; the edge maps it with an exhaustive match. A [`StoreError`](crate::ports::StoreError)
//! inside one is never a verdict about a credential.
mod account;
mod authenticate;
mod buckets;
mod clock_guard;
mod issue;
mod keys;
mod login;
mod once;
mod password_proof;
mod refresh;
mod register;
mod sessions;
mod single_flight;
mod throttle;

pub use account::{Account, AccountError};
pub use authenticate::{AuthError, Authenticator, TokenSubject};
pub use clock_guard::{ClockGuard, ClockState, DRAIN, Reading, STOP_SIGNING};
pub use issue::{IssueError, TokenIssuer, TokenSettings};
pub use keys::{Jwks, Keys, KeysError, ListedKey};
pub use login::{LoggedIn, LoginError, LoginRequest, LoginService};
pub use once::{OnceError, OnceKey, OnceKeys};
pub use password_proof::{PasswordProof, ProofError};
pub use refresh::{RefreshError, RefreshService};
pub use register::{RegisterError, RegisterRequest, RegisterService};
pub use sessions::{SessionError, SessionService};
pub use throttle::{Throttle, ThrottleSettings};

use shard_key::{Bucket, IdentifierKind, LookupHash, LookupKey, RoutingKey, TenantId};

use crate::domain::Email;

/// The two permanent keys that find an identifier.
pub struct IdentifierKeys {
    /// Decides the bucket.
    pub routing: RoutingKey,
    /// Decides the key of the row in it.
    pub lookup: LookupKey,
}

impl IdentifierKeys {
    /// Where an address lives: its bucket and its key there.
    fn locate(&self, tenant: TenantId, email: &Email) -> (Bucket, LookupHash) {
        let normal = email.normalised();
        (
            self.routing.bucket_of(tenant, IdentifierKind::Email, normal),
            self.lookup.lookup_hash(tenant, IdentifierKind::Email, normal),
        )
    }
}
