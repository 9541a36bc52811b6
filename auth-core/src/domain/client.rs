//! Who is at the other end of a request: address, user agent, device.
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

use crate::crypto::mac;

/// A client address, already resolved through the trusted proxies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address(IpAddr);

impl Address {
    /// Takes an address; IPv4 mapped into IPv6 becomes IPv4 again, so that one client has one address.
    pub fn new(ip: IpAddr) -> Self {
        Self(ip.to_canonical())
    }

    /// The network that failed passwords are counted for: IPv4 /24, IPv6 /64.
    pub fn failure_scope(self) -> String {
        match self.0 {
            IpAddr::V4(v4) => {
                let [a, b, c, _] = v4.octets();
                format!("{a}.{b}.{c}.0/24")
            }
            IpAddr::V6(v6) => {
                let [a, b, c, d, ..] = v6.segments();
                format!("{a:x}:{b:x}:{c:x}:{d:x}::/64")
            }
        }
    }

    /// What rate limits are counted for: one IPv4 address, or the 64 bits of IPv6 that one household gets.
    pub fn limit_scope(self) -> IpAddr {
        match self.0 {
            IpAddr::V4(v4) => v4.into(),
            IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX)).into(),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The User-Agent header, cut to [`UserAgent::MAX_BYTES`] and stripped of control characters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UserAgent(String);

impl UserAgent {
    /// The longest user agent that is kept, in bytes.
    pub const MAX_BYTES: usize = 256;

    /// Keeps what is printable of a header value.
    pub fn new(raw: &str) -> Self {
        let mut text: String = raw.chars().filter(|c| !c.is_control()).collect();
        let mut end = text.len().min(Self::MAX_BYTES);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
        Self(text)
    }

    /// The text; empty when the client sent none.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// 128 random bits that a browser or app keeps, issued at its first login. The server keeps the hash alone.
#[derive(Clone, PartialEq, Eq)]
pub struct DeviceSecret([u8; 16]);

impl DeviceSecret {
    /// Wraps 16 bytes, random or decoded from what the client sent.
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The bytes to hand to the client, once.
    pub fn expose(&self) -> &[u8; 16] {
        &self.0
    }

    /// What the server stores and compares.
    pub fn hash(&self) -> DeviceHash {
        DeviceHash(mac::sha256(&self.0))
    }
}

impl fmt::Debug for DeviceSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DeviceSecret([redacted])")
    }
}

/// SHA-256 of a device secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceHash(pub [u8; 32]);

/// What a request tells about its sender. Never proof of anything but the device secret.
#[derive(Clone, Debug)]
pub struct ClientContext {
    /// The client address.
    pub address: Address,
    /// The user agent.
    pub user_agent: UserAgent,
    /// The device secret, where the client has one.
    pub device: Option<DeviceSecret>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scope(ip: &str) -> String {
        ip.parse().map(|ip| Address::new(ip).failure_scope()).unwrap_or_default()
    }

    #[test]
    fn scopes_are_networks() {
        assert_eq!(scope("192.0.2.77"), "192.0.2.0/24");
        assert_eq!(scope("::ffff:192.0.2.77"), "192.0.2.0/24");
        assert_eq!(scope("2001:db8:1:2:3::4"), "2001:db8:1:2::/64");
    }

    #[test]
    fn user_agents_are_cut_at_a_character() {
        let ua = UserAgent::new(&format!("{}\n{}", "a".repeat(255), "é"));
        assert_eq!(ua.as_str().len(), 255);
    }
}
