//! Sessions: reading them and ending them. Refreshing is in `refresh.rs`.
use async_trait::async_trait;
use auth_core::domain::{LiveSession, RevokeReason, SessionLimits, SessionSummary};
use auth_core::ports::{Freshness, Judgement, Presented, Refreshed, Revoked, Sessions, StoreError};
use serde_json::json;
use shard_key::{SessionId, TenantId, UserId};
use shard_router::{Gated, gated, gated_read};
use sqlx::postgres::{PgConnection, PgRow};
use uuid::Uuid;

use super::rows::{
    gated_one, get, has, live_columns, live_session, position, position_column, revoked, session_id,
};
use super::{args, audit, outbox, rows, sticky};
use crate::Store;
use crate::errors::{Kind, TxError};
use crate::tx::{Call, End, op};

const GET: Gated = gated_read!(
    concat!("SELECT ", live_columns!(), "
     FROM shard.sessions s JOIN shard.users u ON u.bucket = $1 AND u.user_id = s.user_id AND u.status = 'active'
     WHERE s.bucket = $1 AND s.session_id = $2 AND s.revoked_at IS NULL AND s.expires_at > now()")
);

const LIST: Gated = gated_read!(
    "SELECT s.session_id, s.ip, s.user_agent, s.created_at, s.last_seen_at, s.expires_at
     FROM shard.sessions s
     WHERE s.bucket = $1 AND s.user_id = $2 AND s.revoked_at IS NULL AND s.expires_at > now()
     ORDER BY s.created_at DESC, s.session_id DESC LIMIT $3";
    concat!("w.*, ", position_column!())
);

/// By what was announced: ended sessions have no index of their own. Three minutes is the life of a tombstone.
const LIST_ENDED: Gated = gated_read!(
    "SELECT array_agg(s.session_id) AS ended_ids, array_agg(s.version) AS ended_versions
     FROM shard.outbox x
        CROSS JOIN LATERAL jsonb_array_elements_text(x.payload -> 'session_ids') AS e (id)
        JOIN shard.sessions s ON s.bucket = $1 AND s.session_id = e.id::uuid
     WHERE x.bucket = $1 AND x.user_id = $2 AND x.topic = 'session.revoked' AND s.revoked_at IS NOT NULL
        AND x.created_at > now() - interval '3 minutes'"
);

const END_ONE: Gated = gated!(
    "UPDATE shard.sessions s SET revoked_at = now(), revoke_reason = $4, version = s.version + 1
     WHERE s.bucket = $1 AND s.session_id = $2 AND s.user_id = $3 AND s.revoked_at IS NULL AND s.expires_at > now()
     RETURNING s.version, s.tenant_id"
);

/// All live sessions of a user but one (or none, for the nil UUID). Run it with the user's row locked.
const END_OTHERS: Gated = gated!(
    "e AS (
        UPDATE shard.sessions s SET revoked_at = now(), revoke_reason = $4, version = s.version + 1
        WHERE s.bucket = $1 AND s.user_id = $2 AND s.session_id <> $3
            AND s.revoked_at IS NULL AND s.expires_at > now()
        RETURNING s.session_id, s.version)";
    "SELECT array_agg(e.session_id) AS ended_ids, array_agg(e.version) AS ended_versions FROM e"
);

/// Locks an active user who calls with a live session, and that session. Everything that ends several sessions of a
/// user starts here, so that two of them cannot wait for each other.
const LOCK_CALLER: Gated = gated_read!(
    "SELECT u.tenant_id FROM shard.users u
     JOIN shard.sessions s ON s.bucket = $1 AND s.session_id = $3 AND s.user_id = $2
        AND s.revoked_at IS NULL AND s.expires_at > now()
     WHERE u.bucket = $1 AND u.user_id = $2 AND u.status = 'active' FOR NO KEY UPDATE OF u, s"
);

/// Locks user and session of a caller. `None`: one of them is not live.
pub(crate) async fn lock_caller(
    conn: &mut PgConnection,
    user: UserId,
    session: SessionId,
) -> Result<Option<TenantId>, TxError> {
    let args = args![i32::from(user.bucket()), user.as_uuid(), session.as_uuid()];
    let row = gated_one(conn, LOCK_CALLER, args, "tenant_id").await?;
    Ok(row.map(|row| get(&row, "tenant_id").map(TenantId::new)).transpose()?)
}

/// Ends one live session.
pub(crate) async fn end_one(
    conn: &mut PgConnection,
    user: UserId,
    session: SessionId,
    reason: RevokeReason,
) -> Result<Option<(Revoked, TenantId)>, TxError> {
    let args = args![i32::from(user.bucket()), session.as_uuid(), user.as_uuid(), reason.as_str()];
    let Some(row) = gated_one(conn, END_ONE, args, "version").await? else { return Ok(None) };
    let revoked = Revoked { session, version: get(&row, "version")? };
    Ok(Some((revoked, TenantId::new(get(&row, "tenant_id")?))))
}

/// Ends all live sessions but `keep`. The caller holds the user's row.
pub(crate) async fn end_others(
    conn: &mut PgConnection,
    user: UserId,
    keep: Option<SessionId>,
    reason: RevokeReason,
) -> Result<Vec<Revoked>, TxError> {
    let keep = keep.map_or(Uuid::nil(), |id| id.as_uuid());
    let args = args![i32::from(user.bucket()), user.as_uuid(), keep, reason.as_str()];
    let rows = rows::gated(conn, END_OTHERS, args).await?;
    Ok(rows.first().map_or(Ok(Vec::new()), revoked)?)
}

/// Tells the outside world, in the same transaction.
pub(crate) async fn announce(
    conn: &mut PgConnection,
    tenant: TenantId,
    user: UserId,
    ended: &[Revoked],
    reason: RevokeReason,
) -> Result<(), TxError> {
    if ended.is_empty() {
        return Ok(());
    }
    let ids: Vec<SessionId> = ended.iter().map(|r| r.session).collect();
    let payload = json!({ "session_ids": ids, "reason": reason.as_str() });
    outbox::insert(conn, user.bucket(), tenant, user, outbox::SESSIONS_ENDED, payload).await
}

async fn revoke(
    conn: &mut PgConnection,
    session: SessionId,
    user: UserId,
    reason: RevokeReason,
) -> Result<End<Option<Revoked>>, TxError> {
    let Some((revoked, tenant)) = end_one(conn, user, session, reason).await? else {
        return Ok(End::Undo(None));
    };
    announce(conn, tenant, user, &[revoked], reason).await?;
    let detail = json!({ "session_id": session, "reason": reason.as_str() });
    audit::append(conn, user.bucket(), audit::Event { tenant, user, name: "session.revoked", detail })
        .await?;
    Ok(End::Keep(Some(revoked)))
}

async fn revoke_others(
    conn: &mut PgConnection,
    user: UserId,
    keep: SessionId,
) -> Result<End<Option<Vec<Revoked>>>, TxError> {
    let reason = RevokeReason::EndedByUser;
    let Some(tenant) = lock_caller(conn, user, keep).await? else { return Ok(End::Undo(None)) };
    let ended = end_others(conn, user, Some(keep), reason).await?;
    if ended.is_empty() {
        return Ok(End::Undo(Some(ended)));
    }
    announce(conn, tenant, user, &ended, reason).await?;
    let detail = json!({ "kept": keep, "ended": ended.len(), "reason": reason.as_str() });
    audit::append(conn, user.bucket(), audit::Event { tenant, user, name: "sessions.revoked", detail })
        .await?;
    Ok(End::Keep(Some(ended)))
}

fn summary(row: &PgRow) -> Result<SessionSummary, StoreError> {
    Ok(SessionSummary {
        id: session_id(get(row, "session_id")?)?,
        ip: get(row, "ip")?,
        user_agent: get(row, "user_agent")?,
        created_at: get(row, "created_at")?,
        last_seen_at: get(row, "last_seen_at")?,
        expires_at: get(row, "expires_at")?,
    })
}

#[async_trait]
impl Sessions for Store {
    async fn rotate(
        &self,
        token: &Presented,
        limits: &SessionLimits,
    ) -> Result<Option<Refreshed>, StoreError> {
        self.rotate_session(token, limits).await
    }

    async fn replay(
        &self,
        token: &Presented,
        limits: &SessionLimits,
    ) -> Result<Option<Refreshed>, StoreError> {
        self.replay_session(token, limits).await
    }

    async fn judge(&self, token: &Presented, limits: &SessionLimits) -> Result<Judgement, StoreError> {
        self.judge_session(token, limits).await
    }

    async fn get(&self, session: SessionId) -> Result<Option<LiveSession>, StoreError> {
        let call = Call { bucket: session.bucket(), op: op!("sessions.get", P1), kind: Kind::Read };
        self.tx
            .run_load(call, &session, |session, conn| {
                Box::pin(async move {
                    let args = args![i32::from(session.bucket()), session.as_uuid()];
                    let row = gated_one(conn, GET, args, "session_id").await?;
                    Ok(End::Keep(row.as_ref().map(live_session).transpose()?))
                })
            })
            .await
    }

    async fn list(
        &self,
        user: UserId,
        limit: i64,
        freshness: Freshness,
    ) -> Result<Vec<SessionSummary>, StoreError> {
        let call = Call { bucket: user.bucket(), op: op!("sessions.list", P2), kind: Kind::Read };
        self.tx
            .run_read(call, freshness, sticky(user), &(user, limit), |(user, limit), conn| {
                Box::pin(async move {
                    let args = args![i32::from(user.bucket()), user.as_uuid(), *limit];
                    let rows = rows::gated(conn, LIST, args).await?;
                    let mut found = Vec::new();
                    for row in &rows {
                        if has(row, "session_id")? {
                            found.push(summary(row)?);
                        }
                    }
                    Ok(End::Seen(found, rows.first().map_or(Ok(None), position)?))
                })
            })
            .await
    }

    async fn revoke(
        &self,
        session: SessionId,
        user: UserId,
        reason: RevokeReason,
    ) -> Result<Option<Revoked>, StoreError> {
        let call = Call { bucket: user.bucket(), op: op!("sessions.revoke", P0), kind: Kind::Transaction };
        self.tx
            .run(call, &(session, user, reason), |(session, user, reason), conn| {
                Box::pin(revoke(conn, *session, *user, *reason))
            })
            .await
    }

    async fn revoke_others(&self, user: UserId, keep: SessionId) -> Result<Option<Vec<Revoked>>, StoreError> {
        let call =
            Call { bucket: user.bucket(), op: op!("sessions.revoke_others", P0), kind: Kind::Transaction };
        self.tx
            .run(call, &(user, keep), |(user, keep), conn| Box::pin(revoke_others(conn, *user, *keep)))
            .await
    }

    async fn list_ended(&self, user: UserId) -> Result<Vec<Revoked>, StoreError> {
        let call = Call { bucket: user.bucket(), op: op!("sessions.list_ended", P0), kind: Kind::Read };
        self.tx
            .run(call, &user, |user, conn| {
                Box::pin(async move {
                    let args = args![i32::from(user.bucket()), user.as_uuid()];
                    let rows = rows::gated(conn, LIST_ENDED, args).await?;
                    Ok(End::Keep(rows.first().map_or(Ok(Vec::new()), revoked)?))
                })
            })
            .await
    }
}
