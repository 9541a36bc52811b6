//! Logging in: attempts counted before the password is looked at, and the session that success opens.
use std::time::Duration;

use async_trait::async_trait;
use auth_core::crypto::seal::Sealer;
use auth_core::domain::{DeviceHash, PasswordLimits, SessionLimits};
use auth_core::ports::{AttemptKey, Candidate, Login, Logins, Opened, Reserved, StoreError};
use serde_json::json;
use shard_key::{IdentifierKind, TenantId};
use shard_router::{Gated, gated, gated_read};
use sqlx::postgres::{PgConnection, PgRow};

use super::refresh::device;
use super::rows::{
    credential, gated, gated_one, get, has, live_columns, live_session, revoked, user, user_columns,
};
use super::{args, audit, sessions};
use crate::Store;
use crate::errors::{Kind, TxError, corrupt};
use crate::tx::{Call, End, op};

/// One attempt in a window that doubles with each window that was used up, up to four hours, and forgets after a quiet
/// day. The upsert counts or refuses under the row's lock, so the limit is exact; a refused attempt counts nothing.
/// The wait counts from after that lock: whoever had it may have begun later than this statement.
/// $1 bucket, $2 subject, $3 scope, $4 tenant, $5 window, $6 limit.
macro_rules! count_in_scope {
    () => {
        "INSERT INTO shard.login_attempts AS a (bucket, subject, scope, tenant_id, failures, window_ends)
         VALUES ($1, $2, $3, $4, 1, now() + $5)
         ON CONFLICT (bucket, subject, scope) DO UPDATE SET
            granted = a.window_ends <= now() OR a.failures < $6,
            failures = CASE WHEN a.window_ends <= now() THEN 1 WHEN a.failures < $6 THEN a.failures + 1
                ELSE a.failures END,
            strikes = CASE WHEN a.window_ends > now() THEN a.strikes
                WHEN a.window_ends <= now() - interval '1 day' THEN 0
                WHEN a.failures >= $6 THEN LEAST(a.strikes + 1, 16) ELSE a.strikes END,
            window_ends = CASE WHEN a.window_ends > now() THEN a.window_ends
                WHEN a.window_ends <= now() - interval '1 day' THEN now() + $5
                ELSE now() + LEAST(GREATEST(interval '4 hours', $5),
                    $5 * power(2, CASE WHEN a.failures >= $6 THEN LEAST(a.strikes + 1, 16) ELSE a.strikes END)) END
         RETURNING a.granted, (extract(epoch FROM a.window_ends - clock_timestamp()) * 1000)::bigint AS wait_ms"
    };
}

/// Everything in one committed statement, and the same work for an address that nobody has: count for the scope; find
/// the account; count for the identifier, unless the device is known to the account. Rows are locked in the order
/// scope, identifier. $7 kind, $8 device.
const RESERVE: Gated = gated!(
    concat!(
        "c AS (
            SELECT u.user_id, u.tenant_id, ", user_columns!(), ", k.phc, k.pepper_id, k.version AS credential_version,
                dv.user_id IS NOT NULL AS known_device
            FROM shard.identifiers n
                JOIN shard.user_identifiers l ON l.bucket = $1 AND l.user_id = n.user_id AND l.kind = n.kind
                    AND l.lookup_hash = n.lookup_hash AND l.state = 'active'
                JOIN shard.users u ON u.bucket = $1 AND u.user_id = n.user_id AND u.status = 'active'
                JOIN shard.credentials k ON k.bucket = $1 AND k.user_id = u.user_id AND k.kind = 'password'
                LEFT JOIN shard.user_identifiers i ON i.bucket = $1 AND i.user_id = u.user_id AND i.is_primary
                    AND i.state = 'active'
                LEFT JOIN shard.devices dv ON dv.bucket = $1 AND dv.user_id = u.user_id AND dv.device_hash = $8
            WHERE n.bucket = $1 AND n.tenant_id = $4 AND n.kind = $7 AND n.lookup_hash = $2 AND n.state = 'active'),
         s AS (", count_in_scope!(), "),
         d AS (
            INSERT INTO shard.login_attempts AS a (bucket, subject, scope, tenant_id, failures, window_ends)
            SELECT $1, $2, '', $4, 1, now() + interval '1 hour' FROM s
            WHERE s.granted AND NOT EXISTS (SELECT FROM c WHERE c.known_device)
            ON CONFLICT (bucket, subject, scope) DO UPDATE SET
                failures = CASE WHEN a.window_ends <= now() THEN 1 ELSE LEAST(a.failures + 1, 1000000000) END,
                window_ends = CASE WHEN a.window_ends <= now() THEN now() + interval '1 hour' ELSE a.window_ends END
            RETURNING a.failures)"
    );
    "SELECT s.granted, s.wait_ms, d.failures, c.user_id, c.tenant_id, c.name, c.user_created_at, c.email_sealed,
        c.email_verified_at, c.phc, c.pepper_id, c.credential_version, c.known_device
     FROM s LEFT JOIN d ON true LEFT JOIN c ON true"
);

const RESERVE_PROOF: Gated = gated!(count_in_scope!());

/// Unknown devices are counted for the identifier too, and get that back too. The rows in the same order as above.
const REFUND: Gated = gated!(
    "s AS (
        UPDATE shard.login_attempts a SET failures = a.failures - 1
        WHERE a.bucket = $1 AND a.subject = $2 AND a.scope = $3
            AND a.failures > 0 AND a.window_ends > now()
        RETURNING a.failures)";
    "UPDATE shard.login_attempts a SET failures = a.failures - 1
     WHERE (SELECT count(*) FROM s) >= 0 AND a.bucket = $1 AND a.subject = $2 AND a.scope = ''
        AND a.failures > 0 AND a.window_ends > now()
        AND NOT EXISTS (
            SELECT FROM shard.identifiers n JOIN shard.devices dv ON dv.bucket = $1 AND dv.user_id = n.user_id
                AND dv.device_hash = $6
            WHERE n.bucket = $1 AND n.tenant_id = $4 AND n.kind = $5 AND n.lookup_hash = $2 AND n.state = 'active')
     RETURNING a.failures"
);

const CLEAR: Gated = gated!(
    "DELETE FROM shard.login_attempts a
     WHERE a.bucket = $1 AND a.subject = $2 AND a.scope = $3 RETURNING a.scope"
);

/// The user first, as everybody does who locks more than one row of a user. The version is compared under the lock.
const LOCK_USER: Gated = gated_read!(
    "SELECT u.tenant_id, EXISTS (SELECT FROM shard.devices d WHERE d.bucket = $1 AND d.user_id = $2
        AND d.device_hash = $4) AS known_device
     FROM shard.users u
        JOIN shard.credentials k ON k.bucket = $1 AND k.user_id = $2 AND k.kind = 'password' AND k.version = $3
     WHERE u.bucket = $1 AND u.user_id = $2 AND u.status = 'active' FOR NO KEY UPDATE OF u, k"
);

/// Opens the session, ends the oldest beyond $15, remembers the device (at most 100 a user), clears the scope's
/// counter, takes a success from an unknown device off the identifier's, keeps a rehash without a new version.
const OPEN: Gated = gated!(
    "e AS (
        UPDATE shard.sessions s SET revoked_at = now(), revoke_reason = 'too_many', version = s.version + 1
        FROM (SELECT t.session_id FROM shard.sessions t WHERE t.bucket = $1 AND t.user_id = $3
            AND t.revoked_at IS NULL AND t.expires_at > now()
            ORDER BY t.created_at DESC, t.session_id DESC OFFSET GREATEST($15 - 1, 0)) x
        WHERE s.bucket = $1 AND s.session_id = x.session_id AND s.revoked_at IS NULL
        RETURNING s.session_id, s.version),
     d AS (
        INSERT INTO shard.devices (bucket, user_id, device_hash, tenant_id) VALUES ($1, $3, $9, $4)
        ON CONFLICT (bucket, user_id, device_hash) DO UPDATE SET seen_at = now()),
     f AS (
        DELETE FROM shard.devices v WHERE NOT $18 AND v.bucket = $1 AND v.user_id = $3
            AND v.device_hash IN (SELECT g.device_hash FROM shard.devices g WHERE g.bucket = $1 AND g.user_id = $3
                ORDER BY g.seen_at DESC OFFSET 99)),
     a AS (
        DELETE FROM shard.login_attempts t
        WHERE t.bucket = $1 AND t.subject = $16 AND t.scope = $17 RETURNING t.scope),
     b AS (
        UPDATE shard.login_attempts t SET failures = t.failures - 1
        WHERE NOT $18 AND (SELECT count(*) FROM a) >= 0
            AND t.bucket = $1 AND t.subject = $16 AND t.scope = '' AND t.failures > 0),
     k AS (
        UPDATE shard.credentials c SET phc = $19, pepper_id = $20, updated_at = now()
        WHERE $19::text IS NOT NULL AND c.bucket = $1 AND c.user_id = $3 AND c.kind = 'password')";
    concat!("INSERT INTO shard.sessions AS s (bucket, session_id, user_id, tenant_id, client_id, amr, seed_hash, refresh_kid,
        device_hash, bound, ip, user_agent, expires_at, absolute_expires_at)
     VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, now() + LEAST($13, $14), now() + $14)
     RETURNING ", live_columns!());
    "w.*, (SELECT array_agg(e.session_id) FROM e) AS ended_ids, (SELECT array_agg(e.version) FROM e) AS ended_versions"
);

fn wait(row: &PgRow) -> Result<Duration, StoreError> {
    let ms: i64 = get(row, "wait_ms")?;
    Ok(Duration::from_millis(u64::try_from(ms).unwrap_or(0).max(1000)))
}

fn candidate(sealer: &Sealer, row: &PgRow) -> Result<Option<Candidate>, StoreError> {
    if !has(row, "user_id").map_err(|_| corrupt("no user column"))? {
        return Ok(None);
    }
    let (user, credential) = (user(sealer, row)?, credential(row)?);
    Ok(Some(Candidate { user, credential, known_device: get(row, "known_device")? }))
}

async fn open(
    conn: &mut PgConnection,
    login: &Login,
    limits: &SessionLimits,
) -> Result<End<Option<Opened>>, TxError> {
    let (bucket, whose) = (login.user_id.bucket(), login.user_id);
    let device = login.device.0.as_slice();
    let args = args![i32::from(bucket), whose.as_uuid(), login.credential_version, device];
    let Some(row) = gated_one(conn, LOCK_USER, args, "tenant_id").await? else { return Ok(End::Undo(None)) };
    let tenant: i32 = get(&row, "tenant_id")?;
    let known: bool = get(&row, "known_device")?;
    let rehash = login.rehashed.as_ref();
    let args = args![
        i32::from(bucket),
        login.session.as_uuid(),
        whose.as_uuid(),
        tenant,
        &login.client_id,
        &login.amr,
        login.seed_hash.as_slice(),
        i64::from(login.refresh_kid),
        device,
        login.bound,
        &login.ip,
        &login.user_agent,
        limits.idle,
        limits.absolute,
        limits.max_live,
        login.attempt.subject.as_slice(),
        &login.attempt.scope,
        known,
        rehash.map(|p| p.phc.as_str()),
        rehash.and_then(|p| p.pepper_id).map(i64::from)
    ];
    let row = gated_one(conn, OPEN, args, "session_id").await?;
    let row = row.ok_or_else(|| corrupt("a session was not inserted"))?;
    let opened = Opened { session: live_session(&row)?, ended: revoked(&row)? };
    let tenant = TenantId::new(tenant);
    let reason = auth_core::domain::RevokeReason::TooMany;
    sessions::announce(conn, tenant, whose, &opened.ended, reason).await?;
    let detail = json!({ "session_id": login.session, "amr": login.amr, "known_device": known,
        "ended": opened.ended.len() });
    audit::append(conn, bucket, audit::Event { tenant, user: whose, name: "session.created", detail })
        .await?;
    Ok(End::Keep(Some(opened)))
}

#[async_trait]
impl Logins for Store {
    async fn reserve(
        &self,
        attempt: &AttemptKey,
        presented: Option<DeviceHash>,
        limits: &PasswordLimits,
    ) -> Result<Reserved, StoreError> {
        let args = args![
            i32::from(attempt.bucket),
            attempt.subject.as_slice(),
            &attempt.scope,
            attempt.tenant.get(),
            limits.scope_window,
            limits.per_scope,
            IdentifierKind::Email.code(),
            device(presented)
        ];
        // Whether the device is known is in the row; who claims it falsely is shed with those whom it is true for.
        let op = if presented.is_some() { op!("logins.reserve", P2) } else { op!("logins.reserve", P3) };
        let call = Call { bucket: attempt.bucket, op, kind: Kind::Write };
        let row = self
            .tx
            .run(call, &args, |args, conn| {
                Box::pin(
                    async move { Ok(End::Keep(gated_one(conn, RESERVE, args.clone(), "granted").await?)) },
                )
            })
            .await?
            .ok_or_else(|| corrupt("an attempt was not counted"))?;
        if !get::<bool>(&row, "granted")? {
            return Ok(Reserved::Limited(wait(&row)?));
        }
        let tried: Option<i32> = get(&row, "failures")?;
        let delayed = tried.is_some_and(|n| n > limits.per_identifier);
        Ok(Reserved::Go { candidate: candidate(&self.sealer, &row)?, delayed })
    }

    async fn refund(&self, attempt: &AttemptKey, presented: Option<DeviceHash>) -> Result<(), StoreError> {
        let args = args![
            i32::from(attempt.bucket),
            attempt.subject.as_slice(),
            &attempt.scope,
            attempt.tenant.get(),
            IdentifierKind::Email.code(),
            device(presented)
        ];
        let call = Call { bucket: attempt.bucket, op: op!("logins.refund", P1), kind: Kind::Write };
        self.tx
            .run(call, &args, |args, conn| {
                Box::pin(async move { gated(conn, REFUND, args.clone()).await.map(|_| End::Keep(())) })
            })
            .await
    }

    async fn reserve_proof(
        &self,
        attempt: &AttemptKey,
        limits: &PasswordLimits,
    ) -> Result<Option<Duration>, StoreError> {
        let args = args![
            i32::from(attempt.bucket),
            attempt.subject.as_slice(),
            &attempt.scope,
            attempt.tenant.get(),
            limits.scope_window,
            limits.per_scope
        ];
        let call = Call { bucket: attempt.bucket, op: op!("logins.reserve_proof", P2), kind: Kind::Write };
        let row = self
            .tx
            .run(call, &args, |args, conn| {
                Box::pin(async move {
                    Ok(End::Keep(gated_one(conn, RESERVE_PROOF, args.clone(), "granted").await?))
                })
            })
            .await?
            .ok_or_else(|| corrupt("an attempt was not counted"))?;
        if get(&row, "granted")? { Ok(None) } else { wait(&row).map(Some) }
    }

    async fn clear_proof(&self, attempt: &AttemptKey) -> Result<(), StoreError> {
        let args = args![i32::from(attempt.bucket), attempt.subject.as_slice(), &attempt.scope];
        let call = Call { bucket: attempt.bucket, op: op!("logins.clear_proof", P2), kind: Kind::Write };
        self.tx
            .run(call, &args, |args, conn| {
                Box::pin(async move { gated(conn, CLEAR, args.clone()).await.map(|_| End::Keep(())) })
            })
            .await
    }

    async fn open(&self, login: &Login, limits: &SessionLimits) -> Result<Option<Opened>, StoreError> {
        let call =
            Call { bucket: login.user_id.bucket(), op: op!("logins.open", P1), kind: Kind::Transaction };
        self.tx.run(call, &(login, limits), |(login, limits), conn| Box::pin(open(conn, login, limits))).await
    }
}
