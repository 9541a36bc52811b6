//! `X-Forwarded-For`.
use std::net::IpAddr;

use auth_core::domain::Address;
use auth_input::TrustedProxies;
use http::HeaderValue;

use super::lines::{first_line, headers, values};

const NAME: &str = "x-forwarded-for";

/// The peer's address in the first line, a header in each of the others. What a client writes in front of what our proxies
/// wrote moves nothing.
pub fn forwarded(data: &[u8]) {
    let (peer, rest) = first_line(data);
    let peer = std::str::from_utf8(peer).ok().and_then(|peer| peer.parse().ok());
    let peer: IpAddr = peer.unwrap_or(IpAddr::from([10, 0, 0, 1]));
    let nets = ["10.0.0.0/8", "192.0.2.0/28", "fd00::/8"].map(|net| net.parse().expect("a network"));
    let proxies = TrustedProxies(nets.to_vec());
    let trusted = |ip: IpAddr| nets.iter().any(|net| net.contains(&ip));
    let values = values(rest);
    let client = proxies.client(peer, &headers(NAME, &values));

    assert_eq!(client, client.to_canonical());
    if !trusted(peer.to_canonical()) {
        assert_eq!(client, peer.to_canonical());
    }
    // Somebody's invention on the left is believed only if every hop to its right is a proxy of ours.
    let invented = IpAddr::from([198, 51, 100, 66]);
    let more: Vec<HeaderValue> =
        std::iter::once(HeaderValue::from_static("198.51.100.66")).chain(values.clone()).collect();
    let moved = proxies.client(peer, &headers(NAME, &more));
    assert!(moved == client || (moved == invented && trusted(client)), "{client} became {moved}");
    // What the last proxy wrote is heard first: an address that is not ours ends the walk, and so does what is none.
    for (last, ends_at) in [("198.51.100.66", invented), ("unknown", peer.to_canonical())] {
        let more: Vec<HeaderValue> = values.iter().cloned().chain([HeaderValue::from_static(last)]).collect();
        let ended = proxies.client(peer, &headers(NAME, &more));
        assert_eq!(ended, if trusted(peer.to_canonical()) { ends_at } else { client }, "{last}");
    }
    one_line_says_the_same(&proxies, peer, &values);

    let address = Address::new(client);
    assert!(address.failure_scope().parse::<ipnet_text::Net>().is_ok(), "{}", address.failure_scope());
    assert_eq!(Address::new(address.limit_scope()).limit_scope(), address.limit_scope());
}

/// RFC 9110 section 5.3: several lines are one list.
fn one_line_says_the_same(proxies: &TrustedProxies, peer: IpAddr, values: &[HeaderValue]) {
    let texts: Result<Vec<&str>, _> = values.iter().map(HeaderValue::to_str).collect();
    let Ok(texts) = texts else { return };
    if texts.is_empty() {
        return;
    }
    let joined = HeaderValue::from_str(&texts.join(", ")).expect("texts of headers make a header");
    let (apart, together) = (headers(NAME, values), headers(NAME, &[joined]));
    assert_eq!(proxies.client(peer, &apart), proxies.client(peer, &together));
}

/// `address/bits`, enough of it to see that a scope is a network.
mod ipnet_text {
    use std::net::IpAddr;
    use std::str::FromStr;

    pub struct Net;

    impl FromStr for Net {
        type Err = ();

        fn from_str(text: &str) -> Result<Self, ()> {
            let (address, bits) = text.split_once('/').ok_or(())?;
            let address: IpAddr = address.parse().map_err(drop)?;
            let fits = matches!((address, bits), (IpAddr::V4(_), "24") | (IpAddr::V6(_), "64"));
            if fits { Ok(Self) } else { Err(()) }
        }
    }
}
