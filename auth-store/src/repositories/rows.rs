//! Running gated statements, and turning rows into the domain's types.
//!
//! A row that does not decode is `Corrupt`: never "no such user", never a panic.
use auth_core::crypto::password::StoredPassword;
use auth_core::crypto::seal::{Aad, Sealer};
use auth_core::domain::{DisplayName, LiveSession, User};
use auth_core::ports::{Revoked, StoreError, StoredCredential};
use shard_key::{SessionId, TenantId, UserId};
use shard_router::{Gated, Ownership, Position};
use sqlx::postgres::{PgArguments, PgConnection, PgRow};
use sqlx::{Decode, Postgres, Row, Type};
use uuid::Uuid;

use crate::errors::{TxError, corrupt};

/// What a [`LiveSession`] is read from, of `shard.sessions s`.
macro_rules! live_columns {
    () => {
        "s.session_id, s.user_id, s.tenant_id, s.client_id, s.amr, s.auth_time, s.version, s.expires_at, \
         now() AS checked_at"
    };
}
pub(crate) use live_columns;

/// What a [`User`] is read from beside its ids, of `shard.users u` and the primary address `shard.user_identifiers i`.
macro_rules! user_columns {
    () => {
        "u.name, u.created_at AS user_created_at, i.sealed AS email_sealed, i.verified_at AS email_verified_at"
    };
}
pub(crate) use user_columns;

/// Where the primary's log stands, read after the snapshot of the statement's other rows, once for all of them; NULL on a
/// replica.
macro_rules! position_column {
    () => {
        concat!("(SELECT ", shard_router::position!(), ") AS read_position")
    };
}
pub(crate) use position_column;

/// What [`position_column`] gave.
pub(crate) fn position(row: &PgRow) -> Result<Option<Position>, StoreError> {
    let text: Option<String> = get(row, "read_position")?;
    text.map(|text| text.parse().map_err(|_| corrupt("a position of the log is none"))).transpose()
}

/// Runs a gated statement. `Ok`: the shard owns the bucket, and there is at least one row, whose work columns are all
/// NULL if the work found nothing.
pub(crate) async fn gated(
    conn: &mut PgConnection,
    statement: Gated,
    args: PgArguments,
) -> Result<Vec<PgRow>, TxError> {
    match statement.run(conn, args).await? {
        (Ownership::Active, rows) => Ok(rows),
        (other, _) => Err(TxError::Owner(other)),
    }
}

/// As [`gated`], for work that finds at most one row: `None` is a verdict. `found` is a column that is never NULL.
pub(crate) async fn gated_one(
    conn: &mut PgConnection,
    statement: Gated,
    args: PgArguments,
    found: &str,
) -> Result<Option<PgRow>, TxError> {
    let row = gated(conn, statement, args).await?.into_iter().next();
    row.map_or(Ok(None), |row| Ok(has(&row, found)?.then_some(row)))
}

/// Whether a column is there and not NULL.
pub(crate) fn has(row: &PgRow, column: &str) -> Result<bool, sqlx::Error> {
    use sqlx::ValueRef;
    Ok(!row.try_get_raw(column)?.is_null())
}

/// One column.
pub(crate) fn get<'r, T>(row: &'r PgRow, column: &str) -> Result<T, StoreError>
where
    T: Decode<'r, Postgres> + Type<Postgres>,
{
    row.try_get(column).map_err(|_| corrupt(&format!("column {column} does not decode")))
}

pub(crate) fn session_id(id: Uuid) -> Result<SessionId, StoreError> {
    SessionId::try_from(id).map_err(|_| corrupt("a session id is no session id"))
}

pub(crate) fn user_id(id: Uuid) -> Result<UserId, StoreError> {
    UserId::try_from(id).map_err(|_| corrupt("a user id is no user id"))
}

pub(crate) fn live_session(row: &PgRow) -> Result<LiveSession, StoreError> {
    Ok(LiveSession {
        id: session_id(get(row, "session_id")?)?,
        user_id: user_id(get(row, "user_id")?)?,
        tenant: TenantId::new(get(row, "tenant_id")?),
        client_id: get(row, "client_id")?,
        amr: get(row, "amr")?,
        auth_time: get(row, "auth_time")?,
        version: get(row, "version")?,
        expires_at: get(row, "expires_at")?,
        checked_at: get(row, "checked_at")?,
    })
}

/// Opens the sealed columns of an active user.
pub(crate) fn user(sealer: &Sealer, row: &PgRow) -> Result<User, StoreError> {
    let id = user_id(get(row, "user_id")?)?;
    let tenant = TenantId::new(get(row, "tenant_id")?);
    let sealed: Option<Vec<u8>> = get(row, "email_sealed")?;
    let sealed = sealed.ok_or_else(|| corrupt("an active user has no primary address"))?;
    let email = open(sealer, &address_aad(tenant, id), &sealed)?;
    let name = match get::<Option<Vec<u8>>>(row, "name")? {
        None => None,
        Some(sealed) => {
            let text = open(sealer, &name_aad(tenant, id), &sealed)?;
            Some(DisplayName::parse(&text).map_err(|_| corrupt("a stored name is no name"))?)
        }
    };
    Ok(User {
        id,
        tenant,
        email,
        email_verified: get::<Option<chrono::DateTime<chrono::Utc>>>(row, "email_verified_at")?.is_some(),
        name,
        created_at: get(row, "user_created_at")?,
    })
}

/// Where a sealed display name belongs.
pub(crate) fn name_aad(tenant: TenantId, user: UserId) -> Vec<u8> {
    Aad::user_column("users", "name", tenant, user)
}

/// Where a sealed address belongs.
pub(crate) fn address_aad(tenant: TenantId, user: UserId) -> Vec<u8> {
    Aad::user_column("user_identifiers", "sealed", tenant, user)
}

fn open(sealer: &Sealer, aad: &[u8], sealed: &[u8]) -> Result<String, StoreError> {
    let bytes = sealer.open(aad, sealed).map_err(|e| corrupt(&e.to_string()))?;
    String::from_utf8(bytes).map_err(|_| corrupt("a sealed value is no text"))
}

/// The columns `phc`, `pepper_id`, `credential_version`.
pub(crate) fn credential(row: &PgRow) -> Result<StoredCredential, StoreError> {
    let pepper: Option<i64> = get(row, "pepper_id")?;
    let pepper_id =
        pepper.map(|id| u32::try_from(id).map_err(|_| corrupt("a pepper id is out of range"))).transpose()?;
    let password = StoredPassword { phc: get(row, "phc")?, pepper_id };
    Ok(StoredCredential { password, version: get(row, "credential_version")? })
}

/// The arrays `ended_ids` and `ended_versions` that a revocation of several sessions returns.
pub(crate) fn revoked(row: &PgRow) -> Result<Vec<Revoked>, StoreError> {
    let ids: Option<Vec<Uuid>> = get(row, "ended_ids")?;
    let versions: Option<Vec<i64>> = get(row, "ended_versions")?;
    ids.unwrap_or_default()
        .into_iter()
        .zip(versions.unwrap_or_default())
        .map(|(id, version)| Ok(Revoked { session: session_id(id)?, version }))
        .collect()
}
