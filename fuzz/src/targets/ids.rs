//! Ids that carry their bucket.
use shard_key::{Bucket, SessionId, UserId};
use uuid::Uuid;

/// Any text, and any sixteen bytes: one kind of UUID in one form, in either case.
pub fn ids(data: &[u8]) {
    if let Ok(text) = std::str::from_utf8(data) {
        let (user, session) = (text.parse::<UserId>(), text.parse::<SessionId>());
        assert_eq!(user.map(|id| id.as_uuid()), session.map(|id| id.as_uuid()));
        let json = serde_json::to_string(text).expect("a text is JSON");
        assert_eq!(serde_json::from_str::<UserId>(&json).ok(), user.ok());
        if let Ok(id) = user {
            assert!(id.to_string().eq_ignore_ascii_case(text), "{text}");
            check(id);
        }
    }
    if let Ok(bytes) = <[u8; 16]>::try_from(data) {
        let id = UserId::try_from(Uuid::from_bytes(bytes));
        assert_eq!(id.is_ok(), bytes[6] >> 4 == 8 && bytes[8] >> 6 == 0b10);
        id.into_iter().for_each(check);
    }
}

fn check(id: UserId) {
    assert_eq!(id.to_string().parse(), Ok(id));
    assert!(id.bucket().index() < Bucket::COUNT && id.unix_ms() < 1 << 48);
    let bytes = *id.as_uuid().as_bytes();
    let random = [bytes[6], bytes[7], bytes[10], bytes[11], bytes[12], bytes[13], bytes[14], bytes[15]];
    assert_eq!(UserId::generate(id.bucket(), id.unix_ms(), random), id);
}
