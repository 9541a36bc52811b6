//! How often strangers may try: limits that are not about one account (those are on the shard, exact, `logins`).
//!
//! | what | counted for | where | without Redis |
//! |---|---|---|---|
//! | a call that needs no token (register, login) | the address | Redis, all nodes together | a bucket of this node, limit / nodes |
//! | no access token, or one that nobody of us signed | the address, together with those above | Redis | not counted |
//! | a refresh token with a bad MAC | the address, as above, and (session that it names, address) | Redis | not counted |
//! | a refresh token with a good MAC | its session | this node's memory | the same |
//!
//! The last one never leaves the node: a good refresh is the hottest call, its MAC cannot be guessed, and replaying one
//! token is limited exactly by the session's row. What is left to guard against is a client that went wild, and for
//! that each node can count by itself; with N nodes such a client gets at most N times the limit.
//!
//! A credential that is refused for want of counters would be an outage posing as a verdict: only calls that cost a
//! hash fall back to a tighter limit; all others go on uncounted.
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use shard_key::SessionId;

use super::buckets::Buckets;
use crate::domain::{Address, LimitRule, Limited, Standing};
use crate::ports::Limits;

const MINUTE: Duration = Duration::from_secs(60);

/// The numbers (NAMES: Limits).
#[derive(Clone, Debug)]
pub struct ThrottleSettings {
    /// False lifts everything that is counted for addresses.
    pub address_limits: bool,
    /// The window of what is counted for addresses.
    pub window: Duration,
    /// Calls without a valid token, an address and window.
    pub per_address: u32,
    /// Refresh tokens that we did not make, a session that they name, address and window.
    pub forged_per_session: u32,
    /// Refreshes a session, minute and node; 0: no limit.
    pub refreshes_per_session: u32,
    /// How many nodes there are; each takes that part of a limit while Redis is away.
    pub nodes: u32,
    /// Buckets in memory at most, of either kind.
    pub buckets: usize,
}

/// Counts tries and says when it is one too many.
pub struct Throttle {
    limits: Arc<dyn Limits>,
    lifted: bool,
    address: LimitRule,
    forged: LimitRule,
    fallback: Buckets,
    sessions: Option<Buckets>,
}

impl Throttle {
    /// Over the shared counters.
    pub fn new(limits: Arc<dyn Limits>, settings: &ThrottleSettings) -> Self {
        let rule = |name, limit, window| LimitRule { name, limit, window };
        let address = rule("address", settings.per_address, settings.window);
        let part = (settings.per_address / settings.nodes.max(1)).max(1);
        let sessions = rule("session", settings.refreshes_per_session, MINUTE);
        Self {
            limits,
            lifted: !settings.address_limits,
            address,
            forged: rule("forged", settings.forged_per_session, settings.window),
            fallback: Buckets::new(LimitRule { limit: part, ..address }, settings.buckets),
            sessions: (sessions.limit > 0).then(|| Buckets::new(sessions, settings.buckets)),
        }
    }

    /// A call that needs no token. `Ok(None)`: nothing is limited here.
    pub async fn open_call(&self, from: Address) -> Result<Option<Standing>, Limited> {
        if self.lifted {
            return Ok(None);
        }
        let scope = from.limit_scope();
        let standing = match self.limits.take(&self.address, &scope.to_string()).await {
            Some(standing) => told(standing, "shared"),
            None => told(self.fallback.take(bits(scope), Instant::now()), "node"),
        };
        if standing.granted { Ok(Some(standing)) } else { Err(Limited(standing)) }
    }

    /// Somebody came without a credential of ours where one is needed.
    pub async fn stranger(&self, from: Address) -> Result<(), Limited> {
        self.count(&self.address, || from.limit_scope().to_string()).await
    }

    /// A refresh token that we did not make, and the session that it names, if it names one.
    pub async fn forged(&self, named: Option<SessionId>, from: Address) -> Result<(), Limited> {
        self.stranger(from).await?;
        let Some(session) = named else { return Ok(()) };
        self.count(&self.forged, || format!("{session}:{}", from.limit_scope())).await
    }

    /// A refresh token of ours.
    pub fn refresh(&self, session: SessionId) -> Result<(), Limited> {
        let Some(sessions) = &self.sessions else { return Ok(()) };
        let standing = sessions.take(session.as_uuid().as_u128(), Instant::now());
        if standing.granted { Ok(()) } else { Err(Limited(told(standing, "node"))) }
    }

    async fn count(&self, rule: &LimitRule, subject: impl FnOnce() -> String) -> Result<(), Limited> {
        if self.lifted {
            return Ok(());
        }
        match self.limits.take(rule, &subject()).await {
            Some(standing) if !told(standing, "shared").granted => Err(Limited(standing)),
            Some(_) => Ok(()),
            None => {
                metrics::counter!("tessera_limits_total", "rule" => rule.name, "by" => "nobody", "result" => "granted")
                    .increment(1);
                Ok(())
            }
        }
    }
}

fn told(standing: Standing, by: &'static str) -> Standing {
    let result = if standing.granted { "granted" } else { "refused" };
    metrics::counter!("tessera_limits_total", "rule" => standing.rule.name, "by" => by, "result" => result)
        .increment(1);
    standing
}

fn bits(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().to_bits(),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use async_trait::async_trait;
    use shard_key::Bucket;
    use std::collections::HashMap;
    use std::sync::Mutex;

    /// Counts for ever; away while `None`.
    struct Counters(Mutex<Option<HashMap<String, u32>>>);

    #[async_trait]
    impl Limits for Counters {
        async fn take(&self, rule: &LimitRule, subject: &str) -> Option<Standing> {
            let mut held = self.0.lock().unwrap();
            let count = held.as_mut()?.entry(format!("{}:{subject}", rule.name)).or_default();
            let granted = *count < rule.limit;
            *count += u32::from(granted);
            Some(Standing { rule: *rule, granted, left: rule.limit - *count, more_in: MINUTE })
        }
    }

    fn settings() -> ThrottleSettings {
        ThrottleSettings {
            address_limits: true,
            window: Duration::from_secs(900),
            per_address: 10,
            forged_per_session: 3,
            refreshes_per_session: 5,
            nodes: 3,
            buckets: 100,
        }
    }

    fn throttle(settings: &ThrottleSettings) -> (Throttle, Arc<Counters>) {
        let counters = Arc::new(Counters(Mutex::new(Some(HashMap::new()))));
        (Throttle::new(counters.clone(), settings), counters)
    }

    fn from(text: &str) -> Address {
        Address::new(text.parse().unwrap())
    }

    fn session(n: u8) -> SessionId {
        SessionId::generate(Bucket::new(1).unwrap(), 1, [n; 8])
    }

    async fn granted(throttle: &Throttle, address: &str) -> usize {
        let mut granted = 0;
        while throttle.open_call(from(address)).await.is_ok() {
            granted += 1;
        }
        granted
    }

    #[tokio::test]
    async fn an_address_is_one_ipv4_or_64_bits_of_ipv6() {
        let (throttle, _) = throttle(&settings());
        assert_eq!(granted(&throttle, "192.0.2.1").await, 10);
        assert_eq!(granted(&throttle, "192.0.2.2").await, 10);
        assert_eq!(granted(&throttle, "::ffff:192.0.2.1").await, 0);
        assert_eq!(granted(&throttle, "2001:db8::1").await, 10);
        assert_eq!(granted(&throttle, "2001:db8::2:3:4:5").await, 0);
        assert_eq!(granted(&throttle, "2001:db8:0:1::1").await, 10);
        assert!(throttle.stranger(from("192.0.2.1")).await.is_err(), "all of it is one count");
    }

    #[tokio::test]
    async fn without_counters_this_node_grants_its_part_and_refuses_no_credential() {
        let (throttle, counters) = throttle(&settings());
        *counters.0.lock().unwrap() = None;
        assert_eq!(granted(&throttle, "192.0.2.1").await, 3);
        assert!(throttle.stranger(from("192.0.2.1")).await.is_ok());
        assert!(throttle.forged(Some(session(1)), from("192.0.2.1")).await.is_ok());
    }

    #[tokio::test]
    async fn a_forged_token_counts_for_the_address_and_the_session_that_it_names() {
        let (throttle, _) = throttle(&settings());
        for _ in 0..3 {
            assert!(throttle.forged(Some(session(1)), from("192.0.2.1")).await.is_ok());
        }
        let Err(Limited(standing)) = throttle.forged(Some(session(1)), from("192.0.2.1")).await else {
            panic!("a fourth")
        };
        assert_eq!(standing.rule.name, "forged");
        assert!(throttle.forged(Some(session(2)), from("192.0.2.1")).await.is_ok());
        assert!(throttle.forged(Some(session(1)), from("192.0.2.2")).await.is_ok());
        assert!(throttle.refresh(session(1)).is_ok(), "its owner does not notice");
        assert_eq!(granted(&throttle, "192.0.2.1").await, 10 - 5);
    }

    #[tokio::test]
    async fn lifted_limits_ask_nobody_and_zero_means_none() {
        let (throttle, counters) =
            throttle(&ThrottleSettings { address_limits: false, refreshes_per_session: 0, ..settings() });
        for _ in 0..100 {
            assert_eq!(throttle.open_call(from("192.0.2.1")).await, Ok(None));
            assert!(throttle.forged(Some(session(1)), from("192.0.2.1")).await.is_ok());
            assert!(throttle.refresh(session(1)).is_ok());
        }
        assert!(counters.0.lock().unwrap().as_ref().unwrap().is_empty());
    }

    #[test]
    fn a_session_has_a_bucket_of_its_own() {
        let (throttle, _) = throttle(&settings());
        assert_eq!((0..20).filter(|_| throttle.refresh(session(1)).is_ok()).count(), 5);
        assert!(throttle.refresh(session(2)).is_ok());
    }
}
