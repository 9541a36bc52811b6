//! Who sends the request: the address behind the trusted proxies, the user agent, the device.
use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};

use auth_core::domain::{Address, ClientContext, DeviceSecret, UserAgent};
use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{Extensions, HeaderMap, header};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ipnet::IpNet;

use crate::app::App;

/// Where a client that is no browser sends its device secret.
pub const DEVICE_HEADER: &str = "tessera-device";
/// Where a browser keeps it.
pub const DEVICE_COOKIE: &str = "__Host-tessera-device";

/// What the request tells about its sender.
pub struct Client(pub ClientContext);

impl FromRequestParts<App> for Client {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Infallible> {
        let agent = parts.headers.get(header::USER_AGENT).and_then(|v| v.to_str().ok()).unwrap_or_default();
        Ok(Self(ClientContext {
            address: client_address(parts, app),
            user_agent: UserAgent::new(agent),
            device: device(&parts.headers),
        }))
    }
}

/// The client's address, behind the trusted proxies.
pub(super) fn client_address(parts: &Parts, app: &App) -> Address {
    let peer = parts.extensions.get::<SocketAddr>().map_or(IpAddr::from([0, 0, 0, 0]), SocketAddr::ip);
    Address::new(app.proxies.client(peer, &parts.headers))
}

fn device(headers: &HeaderMap) -> Option<DeviceSecret> {
    let text = headers.get(DEVICE_HEADER).and_then(|v| v.to_str().ok()).or_else(|| cookie(headers))?;
    let bytes: [u8; 16] = URL_SAFE_NO_PAD.decode(text).ok()?.try_into().ok()?;
    Some(DeviceSecret::from_bytes(bytes))
}

fn cookie(headers: &HeaderMap) -> Option<&str> {
    let all = headers.get_all(header::COOKIE).iter().filter_map(|v| v.to_str().ok());
    let mut pairs = all.flat_map(|v| v.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(name, _)| *name == DEVICE_COOKIE).map(|(_, value)| value)
}

/// The networks whose `X-Forwarded-For` is believed.
pub struct TrustedProxies(pub Vec<IpNet>);

impl TrustedProxies {
    /// Walks the chain from our side: the first hop that is not a trusted proxy is the client. What it claims about
    /// itself further left is its own invention. An unreadable entry ends the walk at the proxy that sent it.
    pub fn client(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        let mut client = peer.to_canonical();
        if !self.trusts(client) {
            return client;
        }
        // A line that is no text is one unreadable hop: left out, it would hand the word to the client's own lines.
        let lines = headers.get_all("x-forwarded-for").iter();
        let values: Vec<&str> = lines.map(|v| v.to_str().unwrap_or("?")).collect();
        for hop in values.iter().rev().flat_map(|value| value.rsplit(',')) {
            let Some(ip) = address(hop.trim()) else { return client };
            client = ip.to_canonical();
            if !self.trusts(client) {
                break;
            }
        }
        client
    }

    /// Whether the other end of the connection is one of them.
    pub fn sent(&self, request: &Extensions) -> bool {
        request.get::<SocketAddr>().is_some_and(|peer| self.trusts(peer.ip().to_canonical()))
    }

    fn trusts(&self, ip: IpAddr) -> bool {
        self.0.iter().any(|net| net.contains(&ip))
    }
}

/// An address, with a port where a proxy writes one.
fn address(hop: &str) -> Option<IpAddr> {
    let with_port = || hop.parse::<SocketAddr>().ok().map(|hop| hop.ip());
    hop.parse().ok().or_else(with_port)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(trusted: &str, peer: &str, forwarded: &[&str]) -> String {
        let mut headers = HeaderMap::new();
        for value in forwarded {
            headers.append("x-forwarded-for", value.parse().unwrap());
        }
        TrustedProxies(vec![trusted.parse().unwrap()]).client(peer.parse().unwrap(), &headers).to_string()
    }

    #[test]
    fn only_trusted_hops_are_walked() {
        assert_eq!(client("10.0.0.0/8", "192.0.2.1", &["198.51.100.1"]), "192.0.2.1");
        assert_eq!(client("10.0.0.0/8", "10.0.0.1", &["198.51.100.1"]), "198.51.100.1");
        assert_eq!(client("10.0.0.0/8", "10.0.0.1", &["1.1.1.1, 198.51.100.1"]), "198.51.100.1");
        assert_eq!(client("10.0.0.0/8", "10.0.0.1", &["1.1.1.1", "198.51.100.1, 10.0.0.7"]), "198.51.100.1");
        assert_eq!(client("10.0.0.0/8", "::ffff:10.0.0.1", &["198.51.100.1"]), "198.51.100.1");
        assert_eq!(client("10.0.0.0/8", "10.0.0.1", &["198.51.100.1, rubbish"]), "10.0.0.1");
        assert_eq!(client("10.0.0.0/8", "10.0.0.1", &[]), "10.0.0.1");
        assert_eq!(client("10.0.0.0/8", "10.0.0.1", &["198.51.100.1:4711"]), "198.51.100.1");
        let mut headers = HeaderMap::new();
        headers.append("x-forwarded-for", "6.6.6.6".parse().unwrap());
        headers.append("x-forwarded-for", axum::http::HeaderValue::from_bytes(b"\xff, 9.9.9.9").unwrap());
        let proxies = TrustedProxies(vec!["10.0.0.0/8".parse().unwrap()]);
        assert_eq!(proxies.client([10, 0, 0, 1].into(), &headers).to_string(), "10.0.0.1");
    }
}
