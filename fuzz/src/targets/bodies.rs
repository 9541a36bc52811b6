//! Every body that a call takes, against a reading by another parser.
use auth_core::domain::{DisplayName, Email, Password};
use auth_input::{BadBody, Fields, forms};
use serde_json::{Map, Value};

/// What the form makes of a body, with the body as a plain parser reads it: `None` if it was refused.
///
/// A body that is taken has the names of the form and no other; one that is refused says which fields are at fault, and never
/// what stood in them.
fn read<T>(
    data: &[u8],
    names: &[&str],
    form: impl Fn(Fields) -> Result<T, BadBody>,
) -> Option<(T, Map<String, Value>)> {
    match Fields::parse(data).and_then(form) {
        Ok(taken) => {
            let value: Value = serde_json::from_slice(data).expect("a body that is taken is JSON");
            let Value::Object(members) = value else { panic!("a body that is taken is an object") };
            assert!(members.keys().all(|name| names.contains(&name.as_str())), "{members:?}");
            Some((taken, members))
        }
        Err(BadBody::Malformed(_)) => None,
        Err(BadBody::Fields(errors)) => {
            assert!((1..=32).contains(&errors.len()));
            for error in errors {
                assert!(error.field.chars().count() <= 64 && !error.field.chars().any(char::is_control));
                assert!(
                    error.reason.starts_with("must ") || REASONS.contains(&error.reason.as_str()),
                    "{error:?}"
                );
            }
            None
        }
    }
}

const REASONS: [&str; 6] = [
    "is required",
    "is not a known field",
    "is too long",
    "has a name with characters that are not accepted",
    "has no valid domain",
    "has characters that are not assigned in Unicode",
];

fn text<'a>(members: &'a Map<String, Value>, name: &str) -> &'a str {
    members.get(name).and_then(Value::as_str).expect("a required text")
}

fn same_email(email: &Email, members: &Map<String, Value>) {
    let again = Email::parse(text(members, "email")).expect("an address that was taken");
    assert_eq!((email.as_written(), email.normalised()), (again.as_written(), again.normalised()));
}

fn same_password(password: &Password, members: &Map<String, Value>, name: &str) {
    let again = Password::presented(text(members, name)).expect("a password that was taken");
    assert_eq!(password.as_bytes(), again.as_bytes());
}

fn same_name(name: Option<&DisplayName>, members: &Map<String, Value>) {
    let written = members.get("name").filter(|value| !value.is_null());
    assert_eq!(name.map(DisplayName::as_str), written.map(|value| value.as_str().expect("a text").trim()));
}

/// `POST /auth/v1/register`
pub fn register(data: &[u8]) {
    let Some((form, members)) = read(data, &["email", "password", "name"], forms::register) else { return };
    same_email(&form.email, &members);
    same_password(&form.password, &members, "password");
    assert!(form.password.as_bytes().len() >= Password::MIN_BYTES);
    same_name(form.name.as_ref(), &members);
}

/// `POST /auth/v1/login`
pub fn login(data: &[u8]) {
    let Some((form, members)) = read(data, &["email", "password"], forms::login) else { return };
    same_email(&form.email, &members);
    same_password(&form.password, &members, "password");
}

/// `POST /auth/v1/refresh`
pub fn refresh(data: &[u8]) {
    let Some((token, members)) = read(data, &["refresh_token"], forms::refresh) else { return };
    assert_eq!(token, text(&members, "refresh_token"));
}

/// `PATCH /auth/v1/me`
pub fn rename(data: &[u8]) {
    let Some((name, members)) = read(data, &["name"], forms::rename) else { return };
    assert!(members.contains_key("name"));
    same_name(name.as_ref(), &members);
}

/// `POST /auth/v1/me/password`
pub fn change_password(data: &[u8]) {
    let Some((form, members)) = read(data, &["current", "new"], forms::change_password) else { return };
    same_password(&form.current, &members, "current");
    same_password(&form.new, &members, "new");
    assert!(form.new.as_bytes().len() >= Password::MIN_BYTES);
}

/// `DELETE /auth/v1/me`
pub fn delete_account(data: &[u8]) {
    let Some((password, members)) = read(data, &["password"], forms::delete_account) else { return };
    same_password(&password, &members, "password");
}
