//! All SQL about users. One file a noun, one method of a port = one atomic, shard-local unit of work.
//!
//! Rules of this folder: statements are constants and gate themselves (`shard_router::gated!`), so that a shard that
//! does not own a bucket never gives a verdict; no `SELECT *`; the audit event comes last, because it locks the chain's
//! head until commit; whoever locks more than one row of a user locks the user's row first.
pub(crate) mod accounts;
pub mod audit;
pub mod backfills;
pub(crate) mod credentials;
pub(crate) mod idempotency;
pub mod keys;
pub(crate) mod logins;
pub(crate) mod outbox;
pub(crate) mod refresh;
pub(crate) mod rows;
pub(crate) mod sessions;
pub mod sweeps;

/// Binds values in order: `args![a, b]`, or returns an error from the enclosing function.
macro_rules! args {
    ($($value:expr),* $(,)?) => {{
        #[allow(unused_imports)]
        use sqlx::Arguments as _;
        let mut args = sqlx::postgres::PgArguments::default();
        $( args.add($value).map_err($crate::errors::unencodable)?; )*
        args
    }};
}
pub(crate) use args;

/// Which replica a user's reads prefer: the same one each time, so that they do not travel back in time.
pub(crate) fn sticky(user: shard_key::UserId) -> u64 {
    user.as_uuid().as_u64_pair().1
}
