//! The SQL that sets servers up and asks them how far they are. No table of the product is touched here.

use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgConnection, PgSslMode};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, query, query_scalar};

use super::{ADMIN, APP, DATABASE, MAINTENANCE, STREAM, config};
use crate::error::{Context, Error, Result};
use crate::plan::Part;
use crate::site::Site;

const PROBE_LIMIT: Duration = Duration::from_secs(2);
const PROMOTE_LIMIT_S: i32 = 30;

/// A log position, comparable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Lsn(pub u64);

impl Lsn {
    /// `16/B374D848`.
    pub fn parse(text: &str) -> Option<Self> {
        let (high, low) = text.trim().split_once('/')?;
        Some(Self(u64::from_str_radix(high, 16).ok()? << 32 | u64::from(u32::from_str_radix(low, 16).ok()?)))
    }
}

impl std::fmt::Display for Lsn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xffff_ffff)
    }
}

async fn connect(site: &Site, port: u16) -> Result<PgConnection> {
    let options = PgConnectOptions::new_without_pgpass()
        .host("127.0.0.1")
        .port(port)
        .username(ADMIN)
        .password(&site.passwords.admin)
        .database(MAINTENANCE)
        .ssl_mode(PgSslMode::Disable)
        .application_name("devcluster")
        // Setting up must not wait for standbys that are not there yet.
        .options([("synchronous_commit", "local")]);
    let connecting = tokio::time::timeout(PROBE_LIMIT, options.connect());
    connecting.await.could_not("connect in time")?.could_not(format_args!("connect to port {port}"))
}

/// Whether the server answers.
pub(crate) async fn answers(site: &Site, port: u16) -> bool {
    let probe = async {
        let mut connection = connect(site, port).await.ok()?;
        let one = query_scalar::<_, i32>("SELECT 1").fetch_one(&mut connection).await.ok();
        let _closing = connection.close().await;
        one
    };
    tokio::time::timeout(PROBE_LIMIT, probe).await.ok().flatten().is_some()
}

/// Creates the roles, the database and one slot a replica, whatever of it is missing; drops slots nobody will use.
pub(crate) async fn set_up_primary(site: &Site, primary: &Part, replicas: &[Part]) -> Result<()> {
    let mut connection = connect(site, primary.port).await?;
    let set_up = async {
        create_role(&mut connection, (APP, "LOGIN", &site.passwords.app)).await?;
        if primary.kind.shard().is_some() {
            create_role(&mut connection, (STREAM, "LOGIN REPLICATION", &site.passwords.stream)).await?;
        }
        create_database(&mut connection).await?;
        let wanted: Vec<String> = replicas.iter().map(|part| config::slot(&part.name)).collect();
        query(DROP_OTHER_SLOTS).bind(&wanted).execute(&mut connection).await?;
        query(CREATE_SLOTS).bind(&wanted).execute(&mut connection).await?;
        Ok::<(), sqlx::Error>(())
    };
    set_up.await.could_not(format_args!("set {} up", primary.name))?;
    connection.close().await.could_not("close a connection")
}

const DROP_OTHER_SLOTS: &str = "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots \
    WHERE slot_type = 'physical' AND NOT active AND slot_name <> ALL ($1::text[])";
const CREATE_SLOTS: &str = "SELECT pg_create_physical_replication_slot(wanted, true) FROM unnest($1::text[]) AS wanted \
    WHERE NOT EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = wanted)";

async fn create_role(
    connection: &mut PgConnection,
    (role, rights, password): (&str, &str, &str),
) -> sqlx::Result<()> {
    let exists = "SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = $1)";
    if query_scalar(exists).bind(role).fetch_one(&mut *connection).await? {
        return Ok(());
    }
    // Utility statements take no parameters, so PostgreSQL quotes the text for us.
    let quoted = "SELECT format('CREATE ROLE %I %s PASSWORD %L', $1::text, $2::text, $3::text)";
    let statement: String =
        query_scalar(quoted).bind(role).bind(rights).bind(password).fetch_one(&mut *connection).await?;
    query(AssertSqlSafe(statement)).execute(connection).await?;
    Ok(())
}

async fn create_database(connection: &mut PgConnection) -> sqlx::Result<()> {
    let exists = "SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)";
    if !query_scalar::<_, bool>(exists).bind(DATABASE).fetch_one(&mut *connection).await? {
        query("CREATE DATABASE tessera").execute(connection).await?;
    }
    Ok(())
}

/// The names of the replicas that stream from this server.
pub(crate) async fn streaming(site: &Site, port: u16) -> Result<Vec<String>> {
    let mut connection = connect(site, port).await?;
    let names = "SELECT application_name FROM pg_stat_replication WHERE state = 'streaming'";
    let names = query_scalar(names).fetch_all(&mut connection).await;
    let _closing = connection.close().await;
    names.could_not("ask who streams")
}

/// How far a replica has received, and how far it has replayed.
pub(crate) async fn positions(site: &Site, replica: &Part) -> Result<(Lsn, Lsn)> {
    let mut connection = connect(site, replica.port).await?;
    let asked = "SELECT greatest(coalesce(pg_last_wal_receive_lsn(), '0/0'), pg_last_wal_replay_lsn())::text, \
         pg_last_wal_replay_lsn()::text WHERE pg_is_in_recovery()";
    let found = sqlx::query_as::<_, (String, String)>(asked).fetch_optional(&mut connection).await;
    let _closing = connection.close().await;
    let found = found.could_not(format_args!("ask how far {} is", replica.name))?;
    let lsns = found.and_then(|(received, replayed)| Some((Lsn::parse(&received)?, Lsn::parse(&replayed)?)));
    lsns.ok_or_else(|| Error::new(format!("{} is not a replica any more", replica.name)))
}

/// Ends recovery and waits until the server takes writes.
pub(crate) async fn promote(site: &Site, replica: &Part) -> Result<()> {
    let mut connection = connect(site, replica.port).await?;
    let promoted: sqlx::Result<bool> =
        query_scalar("SELECT pg_promote(true, $1)").bind(PROMOTE_LIMIT_S).fetch_one(&mut connection).await;
    let _closing = connection.close().await;
    match promoted.could_not(format_args!("promote {}", replica.name))? {
        true => Ok(()),
        false => {
            Err(Error::new(format!("{} did not finish its promotion in {PROMOTE_LIMIT_S} s", replica.name)))
        }
    }
}

/// Makes a running server read its settings again.
pub(crate) async fn reload(site: &Site, part: &Part) -> Result<()> {
    let mut connection = connect(site, part.port).await?;
    let reloaded = query("SELECT pg_reload_conf()").execute(&mut connection).await;
    let _closing = connection.close().await;
    reloaded.could_not(format_args!("reload {}", part.name)).map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_are_read_compared_and_shown() {
        let read = |text| Lsn::parse(text).unwrap();
        assert_eq!(read("16/B374D848").0, 0x16_B374_D848);
        assert!(read("1/0") > read("0/FFFFFFFF"));
        assert_eq!(read("16/B374D848").to_string(), "16/B374D848");
        assert!(Lsn::parse("nonsense").is_none());
    }
}
