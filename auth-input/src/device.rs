//! The device secret: 128 bits that a client was given at its first login and sends along.
use auth_core::domain::DeviceSecret;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::HeaderMap;

use crate::cookies::cookie;

/// Where a client that is no browser sends its device secret.
pub const DEVICE_HEADER: &str = "tessera-device";
/// Where a browser keeps it.
pub const DEVICE_COOKIE: &str = "__Host-tessera-device";

/// The secret, if one was sent that can be read. One that cannot is none: the device is then unknown, which is no fault.
pub fn device(headers: &HeaderMap) -> Option<DeviceSecret> {
    let text = headers
        .get(DEVICE_HEADER)
        .and_then(|v| v.to_str().ok())
        .or_else(|| cookie(headers, DEVICE_COOKIE))?;
    let bytes: [u8; 16] = URL_SAFE_NO_PAD.decode(text).ok()?.try_into().ok()?;
    Some(DeviceSecret::from_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "AAECAwQFBgcICQoLDA0ODw";

    fn read(name: &'static str, value: &str) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert(name, value.parse().unwrap());
        let read = device(&headers);
        assert!(read.as_ref().is_none_or(|secret| *secret.expose() == std::array::from_fn(|i| i as u8)));
        read.is_some()
    }

    #[test]
    fn from_the_header_or_the_cookie() {
        assert!(read(DEVICE_HEADER, TEXT));
        assert!(read("cookie", &format!("a=b; {DEVICE_COOKIE}={TEXT}; c")));
        for bad in ["", "AAEC", &format!("{TEXT}=="), &format!("{}x", &TEXT[..21]), &format!("{TEXT} ")] {
            assert!(!read(DEVICE_HEADER, bad), "{bad}");
            assert_eq!(read("cookie", &format!("{DEVICE_COOKIE}={bad}")), bad.trim() == TEXT, "{bad}");
        }
        assert!(!read("cookie", &format!("tessera-device={TEXT}")));
    }
}
