//! One keep-alive connection to each node, and the sessions that it has.
use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use shard_key::{Bucket, UserId};

use crate::Outcome;

pub const PASSWORD: &str = "correct horse battery staple";

/// A signed-in device.
#[derive(Clone, Debug, Default)]
pub struct Session {
    pub email: String,
    pub id: String,
    pub access: String,
    pub refresh: String,
}

/// A client.
pub struct Client {
    pub http: reqwest::Client,
    /// Where sessions come from: a node with a cheap hash.
    pub cheap: String,
}

impl Client {
    pub fn new(cheap: &str) -> Outcome<Self> {
        let http = reqwest::Client::builder().timeout(Duration::from_secs(30)).no_proxy().build()?;
        Ok(Self { http, cheap: cheap.to_owned() })
    }

    /// Sends one request; its status and its JSON, if it has any.
    pub async fn call(
        &self,
        method: Method,
        url: &str,
        token: Option<&str>,
        body: Option<Value>,
    ) -> Outcome<(u16, Value)> {
        let mut request = self.http.request(method, url);
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        if let Some(body) = body {
            request = request.json(&body);
        }
        let answer = request.send().await?;
        let (status, bytes) = (answer.status().as_u16(), answer.bytes().await?);
        Ok((status, serde_json::from_slice(&bytes).unwrap_or_default()))
    }

    /// Makes an account; the bucket that it lives in.
    pub async fn register(&self, email: &str) -> Outcome<Bucket> {
        let body = json!({ "email": email, "password": PASSWORD });
        let url = format!("{}/auth/v1/register", self.cheap);
        match self.call(Method::POST, &url, None, Some(body)).await? {
            (201, answer) => {
                let id = answer.pointer("/user/id").and_then(Value::as_str).unwrap_or_default();
                Ok(id.parse::<UserId>().map_err(|problem| format!("register: {id:?}: {problem}"))?.bucket())
            }
            (status, answer) => Err(format!("register: {status} {answer}").into()),
        }
    }

    pub async fn log_in(&self, email: &str) -> Outcome<Session> {
        let body = json!({ "email": email, "password": PASSWORD });
        let url = format!("{}/auth/v1/login", self.cheap);
        match self.call(Method::POST, &url, None, Some(body)).await? {
            (200, answer) => Ok(session(email, &answer)),
            (status, answer) => Err(format!("login: {status} {answer}").into()),
        }
    }
}

/// The session that a login or a refresh answered with.
pub fn session(email: &str, answer: &Value) -> Session {
    let text = |pointer: &str| answer.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
    Session {
        email: email.to_owned(),
        id: text("/session/id"),
        access: text("/access_token"),
        refresh: text("/refresh_token"),
    }
}
