//! What each call takes in its body. One struct and one function a form; the function takes every field by name.
use auth_core::domain::{DisplayName, Email, Password};

use crate::{BadBody, Fields};

/// `POST /auth/v1/register`
#[derive(Debug)]
pub struct Register {
    /// The address to sign up with.
    pub email: Email,
    /// The password to set.
    pub password: Password,
    /// What the user wants to be called.
    pub name: Option<DisplayName>,
}

/// `POST /auth/v1/login`
#[derive(Debug)]
pub struct Login {
    /// The address.
    pub email: Email,
    /// The proof.
    pub password: Password,
}

/// `POST /auth/v1/me/password`
#[derive(Debug)]
pub struct ChangePassword {
    /// The proof.
    pub current: Password,
    /// The password to set.
    pub new: Password,
}

/// # Errors
/// See [`BadBody`].
pub fn register(mut body: Fields) -> Result<Register, BadBody> {
    let (email, password) = (body.email("email"), body.new_password("password"));
    let name = body.optional_name("name");
    let (email, password) = body.finish(email.zip(password))?;
    Ok(Register { email, password, name })
}

/// # Errors
/// See [`BadBody`].
pub fn login(mut body: Fields) -> Result<Login, BadBody> {
    let (email, password) = (body.email("email"), body.password("password"));
    let (email, password) = body.finish(email.zip(password))?;
    Ok(Login { email, password })
}

/// `POST /auth/v1/refresh`: the refresh token, unread.
///
/// # Errors
/// See [`BadBody`].
pub fn refresh(mut body: Fields) -> Result<String, BadBody> {
    let token = body.string("refresh_token");
    body.finish(token)
}

/// `PATCH /auth/v1/me`: the name to take, or none.
///
/// # Errors
/// See [`BadBody`].
pub fn rename(mut body: Fields) -> Result<Option<DisplayName>, BadBody> {
    let name = body.name_or_null("name");
    body.finish(name)
}

/// # Errors
/// See [`BadBody`].
pub fn change_password(mut body: Fields) -> Result<ChangePassword, BadBody> {
    let (current, new) = (body.password("current"), body.new_password("new"));
    let (current, new) = body.finish(current.zip(new))?;
    Ok(ChangePassword { current, new })
}

/// `DELETE /auth/v1/me`: the proof.
///
/// # Errors
/// See [`BadBody`].
pub fn delete_account(mut body: Fields) -> Result<Password, BadBody> {
    let password = body.password("password");
    body.finish(password)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at_fault<T: std::fmt::Debug>(form: impl Fn(Fields) -> Result<T, BadBody>, body: &str) -> Vec<String> {
        match Fields::parse(body.as_bytes()).and_then(form) {
            Err(BadBody::Fields(errors)) => errors.into_iter().map(|e| e.field).collect(),
            other => panic!("{body}: {other:?}"),
        }
    }

    #[test]
    fn every_field_at_fault_is_named() {
        let good = Fields::parse(br#"{"email":"a@example.com","password":"x"}"#).and_then(login).unwrap();
        assert_eq!((good.email.normalised(), good.password.as_bytes()), ("a@example.com", &b"x"[..]));
        assert_eq!(at_fault(login, "{}"), ["email", "password"]);
        assert_eq!(
            at_fault(login, r#"{"email":1,"password":null,"more":true}"#),
            ["email", "password", "more"]
        );
        assert_eq!(at_fault(login, r#"{"email":"a@example.com","password":"x","Email":"b"}"#), ["Email"]);
        assert_eq!(
            at_fault(register, r#"{"email":"a","password":"x","name":""}"#),
            ["email", "password", "name"]
        );
        assert_eq!(at_fault(refresh, r#"{"refresh_token":["x"]}"#), ["refresh_token"]);
        assert_eq!(at_fault(rename, "{}"), ["name"]);
        assert_eq!(at_fault(change_password, r#"{"current":"x","new":"x"}"#), ["new"]);
        assert_eq!(at_fault(delete_account, r#"{"password":null}"#), ["password"]);
    }

    #[test]
    fn null_clears_a_name_and_leaves_out_another() {
        let rename = |body: &str| Fields::parse(body.as_bytes()).and_then(rename);
        assert!(rename(r#"{"name":null}"#).unwrap().is_none());
        assert_eq!(rename(r#"{"name":" Ada "}"#).unwrap().unwrap().as_str(), "Ada");
        let body = br#"{"name":null,"email":"a@example.com","password":"12345678"}"#;
        assert!(Fields::parse(body).and_then(register).unwrap().name.is_none());
    }
}
