//! Headers of one value, against what they must be in one line.
use auth_core::ports::Freshness;
use auth_core::services::OnceKey;
use auth_input::{DEVICE_COOKIE, DEVICE_HEADER, Hosts, Origins, READ_AFTER_HEADER};
use http::{HeaderMap, HeaderValue};

use super::lines::{first_line, headers, values};
use crate::world::b64;

/// One `Authorization` a line: the token is every byte behind the scheme and one space.
pub fn bearer(data: &[u8]) {
    let values = values(data);
    let headers = headers("authorization", &values);
    let expected = match &values[..] {
        [one]
            if one.to_str().is_ok()
                && one.len() > 7
                && one.as_bytes()[..7].eq_ignore_ascii_case(b"bearer ") =>
        {
            Some(&one.as_bytes()[7..])
        }
        _ => None,
    };
    assert_eq!(auth_input::bearer(&headers).map(str::as_bytes), expected);
}

/// The target's authority in the first line (none if empty), one `Host` in each of the others.
pub fn host(data: &[u8]) {
    let (authority, rest) = first_line(data);
    let Ok(authority) = std::str::from_utf8(authority) else { return };
    let authority = Some(authority).filter(|authority| !authority.is_empty());
    let values = values(rest);
    let headers = headers("host", &values);
    let names = ["auth.example", "127.0.0.1:3002", "[::1]:3002"];
    for (https, port) in [(true, ":443"), (false, ":80")] {
        let spellings = ["auth.example", "auth.example.", "127.0.0.1:3002", "127.0.0.1.:3002", "[::1]:3002"]
            .map(str::to_owned);
        let spellings =
            [&spellings[..], &[format!("auth.example{port}"), format!("auth.example.{port}")]].concat();
        let ours = |host: &[u8]| {
            let is = |name: &String| host.eq_ignore_ascii_case(name.as_bytes());
            spellings.iter().any(is)
        };
        let one = matches!(&values[..], [host] if ours(host.as_bytes()));
        let expected = one && authority.is_none_or(|authority| ours(authority.as_bytes()));
        assert_eq!(
            Hosts::new(names, https).check(&headers, authority).is_ok(),
            expected,
            "{values:?} {authority:?}"
        );
    }
}

/// `Origin` in the first line, `Sec-Fetch-Site` in the second; either may be empty, which is none.
pub fn origin(data: &[u8]) {
    let value = |line: &[u8]| HeaderValue::from_bytes(line).ok().filter(|value| !value.is_empty());
    let (origin, rest) = first_line(data);
    let (origin, site) = (value(origin), value(first_line(rest).0));
    let mut headers = headers("origin", origin.as_slice());
    site.iter().for_each(|site| drop(headers.insert("sec-fetch-site", site.clone())));
    let known = ["https://app.example", "http://127.0.0.1:3002"];
    let expected = match (&origin, &site) {
        (Some(origin), _) => known.iter().any(|known| origin == known),
        (None, Some(site)) => ["same-origin", "same-site", "none"].iter().any(|near| site == near),
        (None, None) => true,
    };
    assert_eq!(Origins::new(known).may_write(&headers), expected);
}

/// The device header in the first line (none if empty), one `Cookie` in each of the others: what is read stands there.
pub fn device(data: &[u8]) {
    let (header, cookies) = first_line(data);
    let header = HeaderValue::from_bytes(header).ok().filter(|value| !value.is_empty());
    let mut all = headers("cookie", &values(cookies));
    header.iter().for_each(|value| drop(all.insert(DEVICE_HEADER, value.clone())));
    let Some(secret) = auth_input::device(&all) else { return };
    let text = b64(secret.expose());
    match header.as_ref().and_then(|value| value.to_str().ok()) {
        Some(header) => assert_eq!(header, text),
        None => {
            let cookie = format!("{DEVICE_COOKIE}={text}");
            let cookies = all.get_all("cookie").iter().filter_map(|value| value.to_str().ok());
            assert!(cookies.flat_map(|value| value.split(';')).any(|pair| pair.trim() == cookie));
        }
    }
}

/// Each line as `Idempotency-Key`, `X-Request-Id`, `Content-Type` and query.
pub fn small(data: &[u8]) {
    let values = values(data);
    once(&values);
    let Some(value) = values.first() else { return };
    let bytes = value.as_bytes();
    let one = std::slice::from_ref(value);
    let named = headers("x-request-id", one);
    let harmless = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.".contains(byte);
    let fits = (1..=64).contains(&bytes.len()) && bytes.iter().all(harmless);
    assert_eq!(auth_input::request_id(&named), Some(value).filter(|_| fits));
    if auth_input::is_json(&headers("content-type", one)) {
        assert!(bytes.trim_ascii()[..16].eq_ignore_ascii_case(b"application/json"));
    }
    if let Ok(query) = value.to_str() {
        let eventual =
            auth_input::consistency(Some(query), &HeaderMap::new()) == Ok(Freshness::ReplicaAllowed);
        assert_eq!(eventual, query == "consistency=eventual");
    }
    read_after(one);
}

/// A position is ours to the letter, or none.
fn read_after(values: &[HeaderValue]) {
    let headers = headers(READ_AFTER_HEADER, values);
    if let Ok(Freshness::After(position)) = auth_input::consistency(None, &headers) {
        assert_eq!(position.to_string().as_bytes(), values[0].as_bytes());
    }
}

fn once(values: &[HeaderValue]) {
    let read = auth_input::idempotency_key(&headers("idempotency-key", values));
    match values {
        [] => assert_eq!(read, Ok(None)),
        [one] if (1..=255).contains(&one.len()) && one.as_bytes().iter().all(u8::is_ascii_graphic) => {
            assert_eq!(read, Ok(OnceKey::parse(one.to_str().expect("visible ASCII"))));
        }
        _ => assert!(read.is_err()),
    }
}
