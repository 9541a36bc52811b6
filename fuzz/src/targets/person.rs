//! What people type, and what their browsers say of themselves.
use auth_core::domain::{DisplayName, Email, EmailError, Password, UserAgent};
use unicode_normalization::UnicodeNormalization;

/// The normal form decides who somebody is: stable under itself, and the same for every way of typing it.
pub fn email(data: &[u8]) {
    let Ok(raw) = std::str::from_utf8(data) else { return };
    let Ok(email) = Email::parse(raw) else { return };
    let normal = email.normalised();
    assert_eq!(email.as_written(), raw.trim());
    assert!(normal.len() <= Email::MAX_BYTES && normal.matches('@').count() == 1);
    assert!(normal.rsplit_once('@').is_some_and(|(_, domain)| domain.is_ascii() && domain.contains('.')));
    let typed = email.as_written();
    let spellings = [
        typed.to_ascii_uppercase(),
        typed.to_ascii_lowercase(),
        typed.nfc().collect(),
        typed.nfd().collect(),
        typed.nfkc().collect(),
        typed.nfkd().collect(),
    ];
    for again in spellings.iter().map(String::as_str).chain([normal, typed]) {
        match Email::parse(again) {
            Ok(other) => assert_eq!(other.normalised(), normal, "{again:?}"),
            // Spelt so it may have more bytes than an address may.
            Err(error) => {
                assert!(error == EmailError::TooLong && again.len() > typed.len(), "{again:?}: {error}")
            }
        }
    }
}

/// Trimmed, bounded, without control characters, and stable.
pub fn display_name(data: &[u8]) {
    let Ok(raw) = std::str::from_utf8(data) else { return };
    let Ok(name) = DisplayName::parse(raw) else { return };
    let text = name.as_str();
    assert_eq!(text, raw.trim());
    assert!((1..=DisplayName::MAX_BYTES).contains(&text.len()) && !text.chars().any(char::is_control));
    assert_eq!(DisplayName::parse(text), Ok(name.clone()));
}

/// One password however it is composed, between its bounds, and stable.
pub fn password(data: &[u8]) {
    let Ok(raw) = std::str::from_utf8(data) else { return };
    let decomposed: String = raw.nfd().collect();
    let Ok(password) = Password::presented(raw) else { return };
    let bytes = password.as_bytes();
    assert!(bytes.len() <= Password::MAX_BYTES);
    assert_eq!(Password::parse(raw).is_ok(), bytes.len() >= Password::MIN_BYTES);
    for again in [std::str::from_utf8(bytes).expect("text stays text"), &decomposed] {
        match Password::presented(again) {
            Ok(other) => assert_eq!(other.as_bytes(), bytes),
            Err(_) => assert!(again.len() > 4 * Password::MAX_BYTES),
        }
    }
}

/// Bounded, printable, a piece of what was sent, and stable.
pub fn user_agent(data: &[u8]) {
    let Ok(raw) = std::str::from_utf8(data) else { return };
    let agent = UserAgent::new(raw);
    let text = agent.as_str();
    assert!(text.len() <= UserAgent::MAX_BYTES && !text.chars().any(char::is_control));
    let printable: String = raw.chars().filter(|c| !c.is_control()).collect();
    assert!(printable.starts_with(text) && (printable == text || text.len() > UserAgent::MAX_BYTES - 4));
    assert_eq!(UserAgent::new(text), agent);
}
