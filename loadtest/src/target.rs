//! Whom a load may be put on, and the HTTP client that keeps to it.
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use reqwest::Url;

/// Longer than the nodes' own deadline of 10 s, so that what a node gives up is seen as its 503.
pub const ANSWER_LIMIT: Duration = Duration::from_secs(15);
const CONNECT_LIMIT: Duration = Duration::from_secs(3);
/// The flag that allows more than this machine.
pub const OWNED: &str = "--i-own-this-target";

/// The nodes; each request goes to the next one, as behind a load balancer.
#[derive(Debug)]
pub struct Target {
    nodes: Vec<String>,
    next: AtomicUsize,
}

impl Target {
    /// Base addresses like `http://127.0.0.1:3002`. Unless they are `owned`, only this machine's own are taken.
    pub fn new(hosts: &[String], owned: bool) -> Result<Self, String> {
        let nodes: Vec<String> = hosts.iter().map(|host| base(host, owned)).collect::<Result<_, _>>()?;
        if nodes.is_empty() {
            return Err("no host".to_owned());
        }
        Ok(Self { nodes, next: AtomicUsize::new(0) })
    }

    /// The path at the node whose turn it is.
    pub fn url(&self, path: &str) -> String {
        let turn = self.next.fetch_add(1, Ordering::Relaxed);
        format!("{}{path}", self.nodes[turn % self.nodes.len()])
    }

    /// The base address of each node.
    pub fn nodes(&self) -> &[String] {
        &self.nodes
    }

    /// Asks every node for its health, so that a run against nothing ends before it begins.
    pub async fn check(&self) -> Result<(), String> {
        let client = client().build().map_err(|error| error.to_string())?;
        for node in &self.nodes {
            let answer = client.get(format!("{node}/health")).send().await;
            match answer.map(|answer| answer.status()) {
                Ok(status) if status.is_success() => {}
                Ok(status) => {
                    return Err(format!("{node}/health answers {status}: not a node, or not ready"));
                }
                Err(_) => {
                    return Err(format!("nothing answers at {node}: is the cluster up? make up DETACH=1"));
                }
            }
        }
        Ok(())
    }
}

/// A client that goes nowhere but where it is told: no proxy, no redirect, and `localhost` is this machine whatever a
/// name server says.
pub fn client() -> reqwest::ClientBuilder {
    let here = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
    reqwest::Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .resolve_to_addrs("localhost", &here.map(|address| SocketAddr::new(address, 0)))
        .connect_timeout(CONNECT_LIMIT)
        .timeout(ANSWER_LIMIT)
        .tcp_nodelay(true)
        .user_agent("tessera-loadtest")
}

fn base(host: &str, owned: bool) -> Result<String, String> {
    let url = Url::parse(host).map_err(|error| format!("{host}: {error}"))?;
    let bare = url.path() == "/" && url.query().is_none() && url.fragment().is_none();
    if !matches!(url.scheme(), "http" | "https") || !bare || !url.username().is_empty() {
        return Err(format!("{host}: must look like http://127.0.0.1:3002"));
    }
    if !owned && !is_loopback(&url) {
        return Err(format!(
            "{host} is not this machine. A load test of somebody else's servers is an attack; if they are yours, say {OWNED}"
        ));
    }
    Ok(url.as_str().trim_end_matches('/').to_owned())
}

fn is_loopback(url: &Url) -> bool {
    let name = url.host_str().unwrap_or_default();
    let address = name.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    name == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(host: &str, owned: bool) -> Result<Target, String> {
        Target::new(&[host.to_owned()], owned)
    }

    #[test]
    fn this_machine_may_be_loaded() {
        for host in ["http://127.0.0.1:3002", "http://127.9.9.9", "http://[::1]:80/", "http://localhost:3002"]
        {
            assert!(target(host, false).is_ok(), "{host}");
        }
    }

    #[test]
    fn anybody_else_only_by_its_owner() {
        let others = [
            "http://example.com",
            "http://10.0.0.1:3002",
            "http://0.0.0.0:3002",
            "http://localhost.example.com",
            "http://127.0.0.1.example.com",
            "http://[::ffff:10.0.0.1]",
        ];
        for host in others {
            let refused = target(host, false).expect_err(host);
            assert!(refused.contains(OWNED), "{refused}");
            assert!(target(host, true).is_ok(), "{host}");
        }
    }

    #[test]
    fn what_is_no_base_address_is_refused_even_to_an_owner() {
        for host in ["", "127.0.0.1:3002", "ftp://127.0.0.1", "http://127.0.0.1/auth", "http://u@127.0.0.1"] {
            assert!(target(host, true).is_err(), "{host}");
        }
        assert!(Target::new(&[], true).is_err());
    }

    #[test]
    fn nodes_take_turns() {
        let hosts = ["http://127.0.0.1:1".to_owned(), "http://127.0.0.1:2".to_owned()];
        let target = Target::new(&hosts, false).expect("loopback");
        let seen: Vec<String> = (0..3).map(|_| target.url("/x")).collect();
        assert_eq!(seen, ["http://127.0.0.1:1/x", "http://127.0.0.1:2/x", "http://127.0.0.1:1/x"]);
    }
}
