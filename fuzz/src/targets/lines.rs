//! An input cut into pieces.
use http::{HeaderMap, HeaderName, HeaderValue};

/// What stands before the first line break, and what stands behind it.
pub fn first_line(data: &[u8]) -> (&[u8], &[u8]) {
    match data.iter().position(|byte| *byte == b'\n') {
        Some(at) => (&data[..at], &data[at + 1..]),
        None => (data, &[]),
    }
}

/// The lines that can be header values at all; hyper refuses the others before we see them. At most 32.
pub fn values(data: &[u8]) -> Vec<HeaderValue> {
    let lines = data.split(|byte| *byte == b'\n').take(32);
    lines.filter_map(|line| HeaderValue::from_bytes(line).ok()).collect()
}

/// One header of that name a value.
pub fn headers(name: &'static str, values: &[HeaderValue]) -> HeaderMap {
    let name = HeaderName::from_static(name);
    let mut headers = HeaderMap::new();
    for value in values {
        headers.append(name.clone(), value.clone());
    }
    headers
}
