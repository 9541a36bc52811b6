//! `POST /auth/v1/login`
use auth_core::domain::DeviceSecret;
use auth_core::services::LoginRequest;
use auth_input::{DEVICE_COOKIE, DEVICE_HEADER, Fields, forms};
use axum::extract::State;
use axum::http::header::{HeaderName, HeaderValue, SET_COOKIE};
use axum::response::Response;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::views;
use crate::app::App;
use crate::extract::Client;
use crate::problem::Problem;

pub async fn create(
    State(app): State<App>,
    Client(client): Client,
    body: Fields,
) -> Result<Response, Problem> {
    let forms::Login { email, password } = forms::login(body)?;
    let done = app.login.run(LoginRequest { email, password, client }).await?;
    let mut response = views::grant(done.grant);
    if let Some(secret) = done.new_device {
        hand_out(&secret, &mut response);
    }
    Ok(response)
}

/// A browser keeps the cookie, anything else the header. Two years: a device is known for longer than a session lives.
fn hand_out(secret: &DeviceSecret, response: &mut Response) {
    let text = URL_SAFE_NO_PAD.encode(secret.expose());
    let cookie = format!("{DEVICE_COOKIE}={text}; Path=/; Max-Age=63072000; Secure; HttpOnly; SameSite=Lax");
    for (name, value) in [(HeaderName::from_static(DEVICE_HEADER), &text), (SET_COOKIE, &cookie)] {
        if let Ok(mut value) = HeaderValue::from_str(value) {
            value.set_sensitive(true);
            response.headers_mut().insert(name, value);
        }
    }
}
