//! Every call of the HTTP table: what it needs beforehand, and how it is made.
use std::sync::atomic::{AtomicU64, Ordering};

use reqwest::Method;
use serde_json::json;
use shard_key::Bucket;

use crate::Outcome;
use crate::client::{Client, PASSWORD, Session, session};

/// What a request needs that is not part of the measurement.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Needs {
    Nothing,
    /// A session that many requests share.
    Shared,
    /// A session of its own.
    Own,
    /// An account of its own.
    Account,
    /// An account of its own with two sessions.
    Two,
}

/// A call to measure.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Call {
    pub name: &'static str,
    pub needs: Needs,
    /// Computes a password hash, which is measured apart.
    pub hashes: bool,
    pub writes: bool,
    verb: Verb,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Verb {
    Keys,
    Health,
    Check,
    Refresh,
    Me,
    MeAfter,
    Sessions,
    SessionsAfter,
    Rename,
    Logout,
    EndOne,
    EndOthers,
    Register,
    Login,
    Password,
    Delete,
}

const fn call(name: &'static str, verb: Verb, needs: Needs, (hashes, writes): (bool, bool)) -> Call {
    Call { name, needs, hashes, writes, verb }
}

/// In the order of the table in the report.
pub const CALLS: [Call; 17] = [
    call("GET /.well-known/jwks.json", Verb::Keys, Needs::Nothing, (false, false)),
    call("GET /health", Verb::Health, Needs::Nothing, (false, false)),
    call("GET /auth/verify, a token seen before", Verb::Check, Needs::Shared, (false, false)),
    call("GET /auth/verify, a new token", Verb::Check, Needs::Own, (false, false)),
    call("POST /auth/v1/refresh", Verb::Refresh, Needs::Shared, (false, true)),
    call("GET /auth/v1/me", Verb::Me, Needs::Shared, (false, false)),
    call("GET /auth/v1/me, with a read position", Verb::MeAfter, Needs::Shared, (false, false)),
    call("PATCH /auth/v1/me", Verb::Rename, Needs::Shared, (false, true)),
    call("GET /auth/v1/sessions", Verb::Sessions, Needs::Shared, (false, false)),
    call("GET /auth/v1/sessions, with a read position", Verb::SessionsAfter, Needs::Shared, (false, false)),
    call("DELETE /auth/v1/sessions/{id}", Verb::EndOne, Needs::Two, (false, true)),
    call("DELETE /auth/v1/sessions", Verb::EndOthers, Needs::Two, (false, true)),
    call("POST /auth/v1/logout", Verb::Logout, Needs::Own, (false, true)),
    call("POST /auth/v1/register", Verb::Register, Needs::Nothing, (true, true)),
    call("POST /auth/v1/login", Verb::Login, Needs::Account, (true, true)),
    call("POST /auth/v1/me/password", Verb::Password, Needs::Own, (true, true)),
    call("DELETE /auth/v1/me", Verb::Delete, Needs::Two, (true, true)),
];

/// What one request works with.
#[derive(Clone, Default)]
pub struct Item {
    /// Where its user lives.
    pub bucket: Option<Bucket>,
    session: Session,
    other: Session,
    /// What its last answer said that the next read must see.
    position: Option<String>,
}

impl Item {
    /// In which of so many parts of the buckets, as even as shards are placed at first, its user lives: where there are as
    /// many shards, on which of them.
    pub fn part(&self, parts: usize) -> usize {
        self.bucket.map_or(0, |bucket| usize::from(u16::from(bucket)) * parts / Bucket::COUNT)
    }
}

/// How many sessions share the requests that need no own one.
const SHARED: usize = 16;
/// Below the most that a user may have.
const SESSIONS_A_USER: usize = 50;

static NEXT: AtomicU64 = AtomicU64::new(0);

fn new_email() -> String {
    format!("user-{}-{}@example.com", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

impl Client {
    /// A read that sees what the item's last answer showed, from wherever.
    async fn read_after(&self, url: &str, item: &mut Item) -> Outcome<u16> {
        const POSITION: &str = "tessera-read-after";
        let mut request = self.http.get(url).bearer_auth(&item.session.access);
        if let Some(position) = &item.position {
            request = request.header(POSITION, position);
        }
        let answer = request.send().await?;
        let (status, position) = (answer.status().as_u16(), answer.headers().get(POSITION));
        if let Some(position) = position.and_then(|value| value.to_str().ok()) {
            item.position = Some(position.to_owned());
        }
        answer.bytes().await?;
        Ok(status)
    }
}

impl Call {
    /// Requests a round, of `most`: fewer where each needs preparation.
    pub fn requests(&self, most: usize) -> usize {
        match self.needs {
            Needs::Nothing | Needs::Shared if !self.hashes => most,
            _ => most / 10,
        }
    }

    /// Everything that `count` requests of one client need.
    pub async fn prepare(&self, client: &Client, count: usize) -> Outcome<Vec<Item>> {
        let users = match self.needs {
            Needs::Nothing => return Ok(vec![Item::default()]),
            Needs::Shared => SHARED,
            Needs::Own if self.verb == Verb::Password => count,
            Needs::Own => count.div_ceil(SESSIONS_A_USER),
            Needs::Account | Needs::Two => count,
        };
        let mut items = Vec::new();
        for _ in 0..users {
            let email = new_email();
            let bucket = Some(client.register(&email).await?);
            let (sessions, others) = match self.needs {
                Needs::Account => (0, false),
                Needs::Own if self.verb != Verb::Password => (SESSIONS_A_USER, false),
                Needs::Two => (1, true),
                _ => (1, false),
            };
            if sessions == 0 {
                let session = Session { email, ..Session::default() };
                items.push(Item { bucket, session, ..Item::default() });
                continue;
            }
            for _ in 0..sessions {
                let other = if others { client.log_in(&email).await? } else { Session::default() };
                items.push(Item { bucket, session: client.log_in(&email).await?, other, position: None });
            }
        }
        Ok(items)
    }

    /// Makes the request; whether the answer was the good one.
    pub async fn run(&self, client: &Client, node: &str, item: &mut Item) -> Outcome<bool> {
        let token = Some(item.session.access.as_str());
        let send = |method, path: &str, token, body| {
            let url = format!("{node}{path}");
            async move { client.call(method, &url, token, body).await }
        };
        let (status, good) = match self.verb {
            Verb::Keys => (send(Method::GET, "/.well-known/jwks.json", None, None).await?.0, 200),
            Verb::Health => (send(Method::GET, "/health", None, None).await?.0, 200),
            Verb::Check => (send(Method::GET, "/auth/verify", token, None).await?.0, 200),
            Verb::Me => (send(Method::GET, "/auth/v1/me", token, None).await?.0, 200),
            Verb::MeAfter => (client.read_after(&format!("{node}/auth/v1/me"), item).await?, 200),
            Verb::SessionsAfter => (client.read_after(&format!("{node}/auth/v1/sessions"), item).await?, 200),
            Verb::Sessions => (send(Method::GET, "/auth/v1/sessions", token, None).await?.0, 200),
            Verb::Logout => (send(Method::POST, "/auth/v1/logout", token, None).await?.0, 204),
            Verb::EndOthers => (send(Method::DELETE, "/auth/v1/sessions", token, None).await?.0, 204),
            Verb::EndOne => {
                let path = format!("/auth/v1/sessions/{}", item.other.id);
                (send(Method::DELETE, &path, token, None).await?.0, 204)
            }
            Verb::Rename => {
                let body = json!({ "name": "Ada Lovelace" });
                (send(Method::PATCH, "/auth/v1/me", token, Some(body)).await?.0, 200)
            }
            Verb::Register => {
                let body = json!({ "email": new_email(), "password": PASSWORD });
                (send(Method::POST, "/auth/v1/register", None, Some(body)).await?.0, 201)
            }
            Verb::Login => {
                let body = json!({ "email": item.session.email, "password": PASSWORD });
                (send(Method::POST, "/auth/v1/login", None, Some(body)).await?.0, 200)
            }
            Verb::Password => {
                let body = json!({ "current": PASSWORD, "new": format!("{PASSWORD} again") });
                (send(Method::POST, "/auth/v1/me/password", token, Some(body)).await?.0, 204)
            }
            Verb::Delete => {
                let body = json!({ "password": PASSWORD });
                (send(Method::DELETE, "/auth/v1/me", token, Some(body)).await?.0, 204)
            }
            Verb::Refresh => {
                let body = json!({ "refresh_token": item.session.refresh });
                let (status, answer) = send(Method::POST, "/auth/v1/refresh", None, Some(body)).await?;
                if status == 200 {
                    item.session = session(&item.session.email, &answer);
                }
                (status, 200)
            }
        };
        Ok(status == good)
    }
}
