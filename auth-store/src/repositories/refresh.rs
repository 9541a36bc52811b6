//! Refresh: rotate, replay, judge. The table is in `docs/refresh.md`; the windows are measured by the database's clock.
use auth_core::crypto::seal::Sealer;
use auth_core::domain::{DeviceHash, RevokeReason, SessionLimits};
use auth_core::ports::{Judgement, Presented, Refreshed, Revoked, StoreError};
use serde_json::json;
use shard_key::{TenantId, UserId};
use shard_router::{Gated, gated, gated_read};
use sqlx::postgres::{PgArguments, PgConnection, PgRow};

use super::rows::{gated_one, get, live_columns, live_session, user, user_columns, user_id};
use super::{args, audit, outbox, sessions};
use crate::Store;
use crate::errors::{Kind, TxError, corrupt};
use crate::tx::{Call, End, op};

/// What the statements below return of session, user and primary address.
macro_rules! returned {
    () => {
        concat!(live_columns!(), ", s.generation, s.refresh_kid, ", user_columns!())
    };
}

/// The user and the primary address beside a session. The address is joined loosely: an account without one is
/// damaged, and a damaged row must not look like a refused token.
macro_rules! with_user {
    () => {
        "shard.users u LEFT JOIN shard.user_identifiers i
            ON i.bucket = $1 AND i.user_id = u.user_id AND i.is_primary AND i.state = 'active'"
    };
}

/// The hot path: one statement, one durable write, heap-only (no indexed column changes).
const ROTATE: Gated = gated!(
    concat!(
        "UPDATE shard.sessions s SET generation = s.generation + 1, rotated_at = now(), replays = 0, refresh_kid = $5,
            last_seen_at = now(), ip = $6, user_agent = $7,
            expires_at = LEAST(s.absolute_expires_at, now() + $8),
            bound = s.bound OR coalesce(s.device_hash = $9, false)
         FROM ", with_user!(), "
         WHERE s.bucket = $1 AND s.session_id = $2 AND s.generation = $3 AND s.seed_hash = $4
            AND s.revoked_at IS NULL AND s.expires_at > now()
            AND u.bucket = $1 AND u.user_id = s.user_id AND u.status = 'active'
         RETURNING ", returned!()
    )
);

const REPLAY: Gated = gated!(concat!(
    "UPDATE shard.sessions s SET replays = s.replays + 1, last_seen_at = now()
         FROM ",
    with_user!(),
    "
         WHERE s.bucket = $1 AND s.session_id = $2 AND s.generation = $3 + 1 AND s.seed_hash = $4
            AND s.rotated_at > now() - $5 AND s.replays < $6 AND (NOT s.bound OR s.device_hash = $7)
            AND s.revoked_at IS NULL AND s.expires_at > now()
            AND u.bucket = $1 AND u.user_id = s.user_id AND u.status = 'active'
         RETURNING ",
    returned!()
));

const LOCK: Gated = gated_read!(
    "SELECT s.user_id, s.tenant_id, s.generation, s.replays, s.bound, s.last_late_generation,
        s.seed_hash = $3 AS same_seed, coalesce(s.device_hash = $4, false) AS same_device,
        s.rotated_at > now() - $5 AS in_window,
        s.revoked_at IS NULL AND s.expires_at > now() AND u.status = 'active' AS live
     FROM shard.sessions s JOIN shard.users u ON u.bucket = $1 AND u.user_id = s.user_id
     WHERE s.bucket = $1 AND s.session_id = $2 FOR UPDATE OF s"
);

/// The window opens anew: a device that wakes up with two tabs presents the same token twice, and must find the same
/// successor twice.
const FORGIVE: Gated = gated!(concat!(
    "UPDATE shard.sessions s SET last_late_generation = s.generation, rotated_at = now(), replays = 0,
            last_seen_at = now(), ip = $3, user_agent = $4
         FROM ",
    with_user!(),
    "
         WHERE s.bucket = $1 AND s.session_id = $2 AND s.revoked_at IS NULL
            AND u.bucket = $1 AND u.user_id = s.user_id AND u.status = 'active'
         RETURNING ",
    returned!()
));

/// What the locked row says about the token.
#[derive(Clone, Copy, Debug)]
struct Facts {
    live: bool,
    same_seed: bool,
    /// The row's generation minus the token's.
    behind: i64,
    in_window: bool,
    replays: i16,
    bound: bool,
    same_device: bool,
    /// Generations since the last forgiven late replay.
    since_late: Option<i64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Dead,
    Current,
    Storm,
    Late,
    /// With its cause, for the audit trail.
    Reused(&'static str),
}

/// RELIABILITY's table. Pure.
fn classify(facts: Facts, limits: &SessionLimits) -> Verdict {
    if !facts.live || !facts.same_seed || facts.behind < 0 {
        return Verdict::Dead;
    }
    let bound_elsewhere = facts.bound && !facts.same_device;
    match facts.behind {
        0 => Verdict::Current,
        1 if bound_elsewhere => Verdict::Reused("other_device"),
        1 if facts.in_window && facts.replays < limits.max_replays => Verdict::Current,
        1 if facts.in_window => Verdict::Storm,
        1 if !facts.bound => Verdict::Reused("late_unbound"),
        1 if facts.since_late.is_some_and(|n| n < limits.late_replay_every) => Verdict::Reused("late_again"),
        1 => Verdict::Late,
        _ => Verdict::Reused("older_generation"),
    }
}

impl Store {
    pub(crate) async fn rotate_session(
        &self,
        token: &Presented,
        limits: &SessionLimits,
    ) -> Result<Option<Refreshed>, StoreError> {
        let args = args![
            i32::from(token.session.bucket()),
            token.session.as_uuid(),
            token.generation,
            token.seed_hash.as_slice(),
            i64::from(token.new_kid),
            &token.ip,
            &token.user_agent,
            limits.idle,
            device(token.device)
        ];
        let call = Call { bucket: token.session.bucket(), op: op!("sessions.rotate", P1), kind: Kind::Write };
        self.refreshing(call, ROTATE, args).await
    }

    pub(crate) async fn replay_session(
        &self,
        token: &Presented,
        limits: &SessionLimits,
    ) -> Result<Option<Refreshed>, StoreError> {
        let args = args![
            i32::from(token.session.bucket()),
            token.session.as_uuid(),
            token.generation,
            token.seed_hash.as_slice(),
            limits.replay_window,
            limits.max_replays,
            device(token.device)
        ];
        let call = Call { bucket: token.session.bucket(), op: op!("sessions.replay", P1), kind: Kind::Write };
        self.refreshing(call, REPLAY, args).await
    }

    async fn refreshing(
        &self,
        call: Call,
        statement: Gated,
        args: PgArguments,
    ) -> Result<Option<Refreshed>, StoreError> {
        let row = self
            .tx
            .run(call, &args, |args, conn| {
                Box::pin(async move {
                    Ok(End::Keep(gated_one(conn, statement, args.clone(), "session_id").await?))
                })
            })
            .await?;
        row.map(|row| refreshed(&self.sealer, &row)).transpose()
    }

    pub(crate) async fn judge_session(
        &self,
        token: &Presented,
        limits: &SessionLimits,
    ) -> Result<Judgement, StoreError> {
        let call =
            Call { bucket: token.session.bucket(), op: op!("sessions.judge", P1), kind: Kind::Transaction };
        self.tx
            .run(call, &(self, token, limits), |(store, token, limits), conn| {
                Box::pin(judge(store, conn, token, limits))
            })
            .await
    }
}

async fn judge(
    store: &Store,
    conn: &mut PgConnection,
    token: &Presented,
    limits: &SessionLimits,
) -> Result<End<Judgement>, TxError> {
    let bucket = i32::from(token.session.bucket());
    let args = args![
        bucket,
        token.session.as_uuid(),
        token.seed_hash.as_slice(),
        device(token.device),
        limits.replay_window
    ];
    let Some(row) = gated_one(conn, LOCK, args, "user_id").await? else {
        return Ok(End::Undo(Judgement::Dead));
    };
    let whose = user_id(get(&row, "user_id")?)?;
    let tenant = TenantId::new(get(&row, "tenant_id")?);
    match classify(facts(&row, token)?, limits) {
        Verdict::Dead => Ok(End::Undo(Judgement::Dead)),
        Verdict::Current => Ok(End::Undo(Judgement::Current)),
        Verdict::Storm => Ok(End::Undo(Judgement::Storm)),
        Verdict::Late => forgive(store, conn, token, tenant, whose).await,
        Verdict::Reused(cause) => revoke(conn, token, tenant, whose, cause).await,
    }
}

fn facts(row: &PgRow, token: &Presented) -> Result<Facts, StoreError> {
    let generation: i64 = get(row, "generation")?;
    Ok(Facts {
        live: get(row, "live")?,
        same_seed: get(row, "same_seed")?,
        behind: generation.saturating_sub(token.generation),
        in_window: get(row, "in_window")?,
        replays: get(row, "replays")?,
        bound: get(row, "bound")?,
        same_device: get(row, "same_device")?,
        since_late: get::<Option<i64>>(row, "last_late_generation")?.map(|late| generation - late),
    })
}

async fn forgive(
    store: &Store,
    conn: &mut PgConnection,
    token: &Presented,
    tenant: TenantId,
    whose: UserId,
) -> Result<End<Judgement>, TxError> {
    let bucket = token.session.bucket();
    let args = args![i32::from(bucket), token.session.as_uuid(), &token.ip, &token.user_agent];
    let row = gated_one(conn, FORGIVE, args, "session_id").await?;
    // The row is locked and was live: only the user can have been deactivated since.
    let Some(row) = row else { return Ok(End::Undo(Judgement::Dead)) };
    let refreshed = refreshed(&store.sealer, &row)?;
    let detail = json!({ "session_id": token.session, "generation": token.generation });
    outbox::insert(conn, bucket, tenant, whose, outbox::NOTICE_LATE, detail.clone()).await?;
    audit::append(conn, bucket, audit::Event { tenant, user: whose, name: "refresh_late_replay", detail })
        .await?;
    Ok(End::Keep(Judgement::Late(Box::new(refreshed))))
}

async fn revoke(
    conn: &mut PgConnection,
    token: &Presented,
    tenant: TenantId,
    whose: UserId,
    cause: &str,
) -> Result<End<Judgement>, TxError> {
    let (bucket, reason) = (token.session.bucket(), RevokeReason::RefreshReuse);
    let ended = sessions::end_one(conn, whose, token.session, reason).await?;
    let Some((revoked, _)) = ended else { return Ok(End::Undo(Judgement::Dead)) };
    let detail = json!({ "session_id": token.session, "generation": token.generation, "cause": cause });
    sessions::announce(conn, tenant, whose, &[revoked], reason).await?;
    outbox::insert(conn, bucket, tenant, whose, outbox::NOTICE_REUSE, detail.clone()).await?;
    audit::append(conn, bucket, audit::Event { tenant, user: whose, name: "refresh_reuse", detail }).await?;
    Ok(End::Keep(Judgement::Reused(Revoked { session: token.session, version: revoked.version })))
}

fn refreshed(sealer: &Sealer, row: &PgRow) -> Result<Refreshed, StoreError> {
    let kid: i64 = get(row, "refresh_kid")?;
    Ok(Refreshed {
        session: live_session(row)?,
        user: user(sealer, row)?,
        generation: get(row, "generation")?,
        refresh_kid: u32::try_from(kid).map_err(|_| corrupt("a refresh kid is out of range"))?,
    })
}

/// The device as bound to a statement.
pub(crate) fn device(device: Option<DeviceHash>) -> Option<Vec<u8>> {
    device.map(|d| d.0.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::Duration;

    const FRESH: Facts = Facts {
        live: true,
        same_seed: true,
        behind: 1,
        in_window: true,
        replays: 0,
        bound: true,
        same_device: true,
        since_late: None,
    };

    fn limits() -> SessionLimits {
        SessionLimits {
            idle: Duration::days(30),
            absolute: Duration::days(90),
            max_live: 100,
            replay_window: Duration::seconds(30),
            max_replays: 3,
            late_replay_every: 8,
            cache_trust: Duration::seconds(60),
        }
    }

    #[test]
    fn the_table_row_by_row() {
        let late = Facts { in_window: false, ..FRESH };
        for (facts, verdict) in [
            (Facts { behind: 0, ..FRESH }, Verdict::Current),
            (FRESH, Verdict::Current),
            (Facts { replays: 3, ..FRESH }, Verdict::Storm),
            (Facts { replays: 3, bound: false, same_device: false, ..FRESH }, Verdict::Storm),
            (Facts { same_device: false, ..FRESH }, Verdict::Reused("other_device")),
            (Facts { same_device: false, replays: 3, ..FRESH }, Verdict::Reused("other_device")),
            (late, Verdict::Late),
            (Facts { replays: 3, ..late }, Verdict::Late),
            (Facts { since_late: Some(8), ..late }, Verdict::Late),
            (Facts { since_late: Some(7), ..late }, Verdict::Reused("late_again")),
            (Facts { since_late: Some(0), ..late }, Verdict::Reused("late_again")),
            (Facts { bound: false, ..late }, Verdict::Reused("late_unbound")),
            (Facts { same_device: false, ..late }, Verdict::Reused("other_device")),
            (Facts { behind: 2, ..FRESH }, Verdict::Reused("older_generation")),
            (Facts { behind: i64::MAX, ..FRESH }, Verdict::Reused("older_generation")),
            (Facts { behind: -1, ..FRESH }, Verdict::Dead),
            (Facts { same_seed: false, ..FRESH }, Verdict::Dead),
            (Facts { live: false, behind: 5, ..FRESH }, Verdict::Dead),
        ] {
            assert_eq!(classify(facts, &limits()), verdict, "{facts:?}");
        }
    }
}
