//! Accounts: users with their identifiers and credentials.
use async_trait::async_trait;
use auth_core::domain::{DisplayName, RevokeReason, User};
use auth_core::ports::{
    Accounts, Freshness, Idempotency, NewAccount, Once, PasswordChange, Revoked, StoreError,
    StoredCredential, random_bytes,
};
use chrono::Duration;
use serde_json::json;
use shard_key::{Bucket, IdentifierKind, SessionId, TenantId, UserId};
use shard_router::{Gated, Position, gated, gated_read};
use sqlx::postgres::PgConnection;

use super::rows::{
    address_aad, credential, gated_one, get, name_aad, position, position_column, user, user_columns,
};
use super::{args, audit, credentials, idempotency, sessions, sticky};
use crate::Store;
use crate::errors::{Kind, TxError, corrupt};
use crate::tx::{Call, End, op};

/// The identifier decides: nothing else is written unless it was free, or its hold is over.
/// $1 bucket, $2 kind, $3 lookup hash, $4 tenant, $5 user, $6 name, $7 address, $8 phc, $9 pepper.
const INSERT: Gated = gated!(
    "n AS (
        INSERT INTO shard.identifiers AS i (bucket, kind, lookup_hash, tenant_id, user_id)
        VALUES ($1, $2, $3, $4, $5)
        ON CONFLICT (bucket, tenant_id, kind, lookup_hash) DO UPDATE SET user_id = excluded.user_id, state = 'active',
            held_until = NULL, created_at = now()
        WHERE i.state = 'held' AND i.held_until <= now()
        RETURNING i.user_id),
     l AS (
        INSERT INTO shard.user_identifiers (bucket, user_id, kind, lookup_hash, tenant_id, sealed)
        SELECT $1, n.user_id, $2, $3, $4, $7 FROM n),
     k AS (
        INSERT INTO shard.credentials (bucket, user_id, kind, tenant_id, phc, pepper_id)
        SELECT $1, n.user_id, 'password', $4, $8, $9 FROM n)";
    "INSERT INTO shard.users AS u (bucket, user_id, tenant_id, name)
     SELECT $1, n.user_id, $4, $6 FROM n
     RETURNING u.created_at"
);

const GET: Gated = gated_read!(
    concat!("SELECT u.user_id, u.tenant_id, ", user_columns!(), "
     FROM shard.users u LEFT JOIN shard.user_identifiers i
        ON i.bucket = $1 AND i.user_id = u.user_id AND i.is_primary AND i.state = 'active'
     WHERE u.bucket = $1 AND u.user_id = $2 AND u.status = 'active'");
    concat!("w.*, ", position_column!())
);

const RENAME: Gated = gated!(
    "UPDATE shard.users u SET name = $3, version = u.version + 1, updated_at = now()
     WHERE u.bucket = $1 AND u.user_id = $2 AND u.status = 'active'
     RETURNING u.user_id"
);

/// The user's addresses are held, on the user's shard; those elsewhere come with the saga that puts them there.
const DELETE: Gated = gated!(
    "h AS (
        UPDATE shard.identifiers i SET state = 'held', held_until = now() + $3
        WHERE i.bucket = $1 AND i.user_id = $2 AND i.state IN ('active', 'reserved')
            AND (i.tenant_id, i.kind, i.lookup_hash) IN (SELECT l.tenant_id, l.kind, l.lookup_hash
                FROM shard.user_identifiers l WHERE l.bucket = $1 AND l.user_id = $2)),
     l AS (
        UPDATE shard.user_identifiers l SET state = 'removed'
        WHERE l.bucket = $1 AND l.user_id = $2 AND l.state = 'active'),
     k AS (DELETE FROM shard.credentials k WHERE k.bucket = $1 AND k.user_id = $2),
     d AS (DELETE FROM shard.devices d WHERE d.bucket = $1 AND d.user_id = $2)";
    "UPDATE shard.users u SET status = 'deleted', deleted_at = now(), updated_at = now(), version = u.version + 1
     WHERE u.bucket = $1 AND u.user_id = $2 AND u.status = 'active'
     RETURNING u.user_id"
);

type MaybeEnded = Once<Option<Vec<Revoked>>>;

/// A new account with its personal values sealed.
struct Sealed<'a> {
    account: &'a NewAccount,
    name: Option<Vec<u8>>,
    address: Vec<u8>,
    once: Option<&'a Idempotency>,
}

async fn insert(conn: &mut PgConnection, new: &Sealed<'_>) -> Result<End<Once<Option<User>>>, TxError> {
    let (user, password) = (&new.account.user, &new.account.password);
    let bucket = user.id.bucket();
    if let Some(known) = idempotency::begin(conn, bucket, new.once).await? {
        return Ok(End::Undo(known));
    }
    let args = args![
        i32::from(bucket),
        IdentifierKind::Email.code(),
        new.account.lookup_hash.as_bytes().as_slice(),
        user.tenant.get(),
        user.id.as_uuid(),
        new.name.as_deref(),
        new.address.as_slice(),
        &password.phc,
        password.pepper_id.map(i64::from)
    ];
    let Some(row) = gated_one(conn, INSERT, args, "created_at").await? else {
        return Ok(End::Undo(Once::Done(None)));
    };
    let user = User { created_at: get(&row, "created_at")?, ..user.clone() };
    idempotency::finish(conn, bucket, user.tenant, new.once, user.id.as_uuid()).await?;
    let event = audit::Event { tenant: user.tenant, user: user.id, name: "user.created", detail: json!({}) };
    audit::append(conn, bucket, event).await?;
    Ok(End::Keep(Once::Done(Some(user))))
}

/// Who calls, and with which key.
struct Caller<'a> {
    user: UserId,
    session: SessionId,
    once: Option<&'a Idempotency>,
}

impl Caller<'_> {
    fn bucket(&self) -> Bucket {
        self.user.bucket()
    }

    /// Keeps the answer of the key and appends the event: the end of every change.
    async fn finish(
        &self,
        conn: &mut PgConnection,
        tenant: TenantId,
        name: &str,
        detail: serde_json::Value,
    ) -> Result<(), TxError> {
        idempotency::finish(conn, self.bucket(), tenant, self.once, self.user.as_uuid()).await?;
        audit::append(conn, self.bucket(), audit::Event { tenant, user: self.user, name, detail }).await
    }
}

async fn rename(
    store: &Store,
    conn: &mut PgConnection,
    caller: &Caller<'_>,
    name: Option<&DisplayName>,
) -> Result<End<Once<Option<User>>>, TxError> {
    let Some(tenant) = sessions::lock_caller(conn, caller.user, caller.session).await? else {
        return Ok(End::Undo(Once::Done(None)));
    };
    if let Some(known) = idempotency::begin(conn, caller.bucket(), caller.once).await? {
        return Ok(End::Undo(known));
    }
    let sealed = name.map(|name| store.seal(&name_aad(tenant, caller.user), name.as_str()));
    let bucket = i32::from(caller.bucket());
    gated_one(conn, RENAME, args![bucket, caller.user.as_uuid(), sealed], "user_id").await?;
    let row = gated_one(conn, GET, args![bucket, caller.user.as_uuid()], "user_id").await?;
    let row = row.ok_or_else(|| corrupt("a locked user is gone"))?;
    let renamed = user(&store.sealer, &row)?;
    caller.finish(conn, tenant, "user.renamed", json!({ "session_id": caller.session })).await?;
    Ok(End::Keep(Once::Done(Some(renamed))))
}

async fn change_password(
    conn: &mut PgConnection,
    caller: &Caller<'_>,
    change: &PasswordChange,
) -> Result<End<MaybeEnded>, TxError> {
    let Some(tenant) = sessions::lock_caller(conn, caller.user, caller.session).await? else {
        return Ok(End::Undo(Once::Done(None)));
    };
    if let Some(known) = idempotency::begin(conn, caller.bucket(), caller.once).await? {
        return Ok(End::Undo(known));
    }
    if !credentials::replace(conn, change).await? {
        return Ok(End::Undo(Once::Done(None)));
    }
    let reason = RevokeReason::PasswordChanged;
    let ended = sessions::end_others(conn, caller.user, Some(caller.session), reason).await?;
    sessions::announce(conn, tenant, caller.user, &ended, reason).await?;
    let detail = json!({ "session_id": caller.session, "ended": ended.len() });
    caller.finish(conn, tenant, "password.changed", detail).await?;
    Ok(End::Keep(Once::Done(Some(ended))))
}

async fn delete(
    conn: &mut PgConnection,
    caller: &Caller<'_>,
    expected_version: i64,
    hold: Duration,
) -> Result<End<MaybeEnded>, TxError> {
    // Before the session: the first run has ended it, and its repetition must still be answered.
    if let Some(known) = idempotency::begin(conn, caller.bucket(), caller.once).await? {
        return Ok(End::Undo(known));
    }
    let Some(tenant) = sessions::lock_caller(conn, caller.user, caller.session).await? else {
        return Ok(End::Undo(Once::Done(None)));
    };
    if !credentials::lock(conn, caller.user, expected_version).await? {
        return Ok(End::Undo(Once::Done(None)));
    }
    let args = args![i32::from(caller.bucket()), caller.user.as_uuid(), hold];
    let deleted = gated_one(conn, DELETE, args, "user_id").await?;
    deleted.ok_or_else(|| corrupt("a locked user is gone"))?;
    let reason = RevokeReason::UserDeleted;
    let ended = sessions::end_others(conn, caller.user, None, reason).await?;
    sessions::announce(conn, tenant, caller.user, &ended, reason).await?;
    let detail = json!({ "session_id": caller.session, "ended": ended.len() });
    caller.finish(conn, tenant, "user.deleted", detail).await?;
    Ok(End::Keep(Once::Done(Some(ended))))
}

impl Store {
    fn seal(&self, aad: &[u8], text: &str) -> Vec<u8> {
        self.sealer.seal(aad, text.as_bytes(), random_bytes(self.random.as_ref()))
    }
}

#[async_trait]
impl Accounts for Store {
    async fn insert(
        &self,
        account: &NewAccount,
        once: Option<&Idempotency>,
    ) -> Result<Once<Option<User>>, StoreError> {
        let User { id, tenant, .. } = account.user;
        let name = account.user.name.as_ref().map(|name| self.seal(&name_aad(tenant, id), name.as_str()));
        let address = self.seal(&address_aad(tenant, id), account.email.as_written());
        let call = Call { bucket: id.bucket(), op: op!("accounts.insert", P4), kind: Kind::Transaction };
        let new = Sealed { account, name, address, once };
        self.tx.run(call, &new, |new, conn| Box::pin(insert(conn, new))).await
    }

    async fn find_once(&self, bucket: Bucket, once: &Idempotency) -> Result<Option<Once<()>>, StoreError> {
        let call = Call { bucket, op: op!("accounts.find_once", P3), kind: Kind::Read };
        self.tx
            .run(call, &(bucket, once), |(bucket, once), conn| {
                Box::pin(async move {
                    let found = idempotency::find(conn, *bucket, once).await?;
                    // It may have been done a moment ago, and its answer lost.
                    let position = if found.is_some() { Position::now(conn).await? } else { None };
                    Ok(End::Seen(found, position))
                })
            })
            .await
    }

    async fn get(&self, id: UserId, freshness: Freshness) -> Result<Option<User>, StoreError> {
        let call = Call { bucket: id.bucket(), op: op!("accounts.get", P2), kind: Kind::Read };
        self.tx
            .run_read(call, freshness, sticky(id), &(self, id), |(store, id), conn| {
                Box::pin(async move {
                    let args = args![i32::from(id.bucket()), id.as_uuid()];
                    let Some(row) = gated_one(conn, GET, args, "user_id").await? else {
                        return Ok(End::Keep(None));
                    };
                    Ok(End::Seen(Some(user(&store.sealer, &row)?), position(&row)?))
                })
            })
            .await
    }

    async fn rename(
        &self,
        user: UserId,
        session: SessionId,
        name: Option<&DisplayName>,
        once: Option<&Idempotency>,
    ) -> Result<Once<Option<User>>, StoreError> {
        let call = Call { bucket: user.bucket(), op: op!("accounts.rename", P2), kind: Kind::Transaction };
        let caller = Caller { user, session, once };
        self.tx
            .run(call, &(self, caller, name), |(store, caller, name), conn| {
                Box::pin(rename(store, conn, caller, *name))
            })
            .await
    }

    async fn get_password(
        &self,
        user: UserId,
        session: SessionId,
    ) -> Result<Option<StoredCredential>, StoreError> {
        let call = Call { bucket: user.bucket(), op: op!("accounts.get_password", P2), kind: Kind::Read };
        self.tx
            .run(call, &(user, session), |(user, session), conn| {
                Box::pin(async move {
                    let args = args![i32::from(user.bucket()), user.as_uuid(), session.as_uuid()];
                    let row = gated_one(conn, credentials::GET, args, "phc").await?;
                    Ok(End::Keep(row.as_ref().map(credential).transpose()?))
                })
            })
            .await
    }

    async fn change_password(
        &self,
        change: &PasswordChange,
        once: Option<&Idempotency>,
    ) -> Result<Once<Option<Vec<Revoked>>>, StoreError> {
        let (user, session) = (change.user_id, change.session);
        let call =
            Call { bucket: user.bucket(), op: op!("accounts.change_password", P0), kind: Kind::Transaction };
        let caller = Caller { user, session, once };
        self.tx
            .run(call, &(caller, change), |(caller, change), conn| {
                Box::pin(change_password(conn, caller, change))
            })
            .await
    }

    async fn delete(
        &self,
        user: UserId,
        session: SessionId,
        expected_version: i64,
        hold: Duration,
        once: Option<&Idempotency>,
    ) -> Result<Once<Option<Vec<Revoked>>>, StoreError> {
        let call = Call { bucket: user.bucket(), op: op!("accounts.delete", P0), kind: Kind::Transaction };
        let caller = Caller { user, session, once };
        self.tx
            .run(call, &caller, |caller, conn| Box::pin(delete(conn, caller, expected_version, hold)))
            .await
    }
}
