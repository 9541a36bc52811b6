//! The calls of the API as a client makes them, timed and recorded. Whoever sends them is a [`Caller`]: goose's user, or
//! a plain client.
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use reqwest::header::HeaderMap;
use reqwest::{Client, Method, RequestBuilder, Response};
use serde::Deserialize;
use serde_json::json;

use crate::record::{Outcome, Recorder, Sample, Series};
use crate::target::Target;

const PASSWORD: &str = "correct horse battery staple";
const DEVICE: &str = "tessera-device";
/// What a client that was refused waits unless it is told how long.
const PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// A token with less life than this is renewed before it is used.
const RENEW_BEFORE: Duration = Duration::from_secs(30);

/// What a run is about: shared by all its virtual users.
#[derive(Debug)]
pub struct Site {
    /// Whom we call.
    pub target: Target,
    /// What we saw.
    pub recorder: Recorder,
    run: String,
    people: AtomicU64,
    addresses: AtomicU64,
}

impl Site {
    /// `run` makes the addresses of this run's people different from any other's.
    pub fn new(target: Target, recorder: Recorder, run: &str) -> Self {
        let (people, addresses) = (AtomicU64::new(0), AtomicU64::new(0));
        Self { target, recorder, run: run.to_owned(), people, addresses }
    }

    /// The same people on, with nothing recorded yet.
    pub fn restart(self, recorder: Recorder) -> Self {
        Self { recorder, ..self }
    }

    /// Somebody who was never here.
    pub fn stranger(&self) -> Person {
        let number = self.people.fetch_add(1, Ordering::Relaxed);
        Person {
            email: format!("load-{}-{number}@example.com", self.run),
            address: self.address(),
            registered: false,
            device: None,
            grant: None,
        }
    }

    /// A client address that nobody else has now: limits by address are for one client, and we play many.
    fn address(&self) -> String {
        let [_, b, c, d] = (self.addresses.fetch_add(1, Ordering::Relaxed) as u32).to_be_bytes();
        format!("10.{b}.{c}.{d}")
    }
}

/// A virtual user's memory.
#[derive(Debug, Clone)]
pub struct Person {
    email: String,
    address: String,
    registered: bool,
    device: Option<String>,
    grant: Option<Grant>,
}

impl Person {
    /// Whether there is an account.
    pub fn is_registered(&self) -> bool {
        self.registered
    }

    /// Whether there is a session, as far as the person knows.
    pub fn has_session(&self) -> bool {
        self.grant.is_some()
    }

    /// Whether the access token is about to expire.
    pub fn must_renew(&self) -> bool {
        self.grant.as_ref().is_some_and(|grant| grant.expires <= Instant::now() + RENEW_BEFORE)
    }
}

#[derive(Debug, Clone)]
struct Grant {
    access: String,
    refresh: String,
    expires: Instant,
}

#[derive(Deserialize)]
struct GrantBody {
    access_token: String,
    refresh_token: String,
    expires_in: u64,
}

/// A call that did not go well: already recorded; the virtual user waits and goes on.
#[derive(Debug, Clone, Copy)]
pub struct Failure {
    /// How it ended.
    pub outcome: Outcome,
    /// For how long a decent client leaves the target alone now.
    pub pause: Duration,
}

/// Somebody who can send a request.
pub trait Caller: Send {
    /// Builds the request.
    fn client(&self) -> &Client;
    /// Sends it; an error is an outcome that has no answer.
    fn exchange(
        &mut self,
        series: Series,
        request: RequestBuilder,
    ) -> impl Future<Output = Result<Response, Outcome>> + Send;
}

/// A caller without ado.
#[derive(Debug, Clone)]
pub struct Plain(pub Client);

impl Caller for Plain {
    fn client(&self) -> &Client {
        &self.0
    }

    async fn exchange(&mut self, _: Series, request: RequestBuilder) -> Result<Response, Outcome> {
        request.send().await.map_err(|error| Outcome::from(&error))
    }
}

/// A virtual user in the middle of something.
#[derive(Debug)]
pub struct Visit<'a, C> {
    /// Who sends.
    pub caller: &'a mut C,
    /// Where.
    pub site: &'a Site,
    /// What for.
    pub journey: &'static str,
    /// When the next request was to start, if it has a fixed time; else it starts when it starts.
    pub due: Option<Instant>,
}

impl<C: Caller> Visit<'_, C> {
    /// Signs up.
    pub async fn register(&mut self, person: &mut Person) -> Result<(), Failure> {
        let body = json!({ "email": person.email, "password": PASSWORD });
        let request = self.request(Method::POST, "/auth/v1/register", person).json(&body);
        let done = self.call("register", request, 201, |_, _| Some(())).await;
        // The address is ours alone: if it is taken, an earlier try did go through.
        person.registered = matches!(done, Ok(()) | Err(Failure { outcome: Outcome::Status(409), .. }));
        done
    }

    /// Logs in, from the device that the person has, at an address that is new.
    pub async fn login(&mut self, person: &mut Person) -> Result<(), Failure> {
        person.address = self.site.address();
        let body = json!({ "email": person.email, "password": PASSWORD });
        let mut request = self.request(Method::POST, "/auth/v1/login", person).json(&body);
        if let Some(device) = &person.device {
            request = request.header(DEVICE, device);
        }
        let (grant, device) = self.call("login", request, 200, grant).await?;
        person.grant = Some(grant);
        person.device = device.or(person.device.take());
        Ok(())
    }

    /// Takes the next refresh token. Who is told 401 has no session any more.
    pub async fn refresh(&mut self, person: &mut Person) -> Result<(), Failure> {
        let token = person.grant.as_ref().map_or("", |grant| grant.refresh.as_str());
        let body = json!({ "refresh_token": token });
        let mut request = self.request(Method::POST, "/auth/v1/refresh", person).json(&body);
        if let Some(device) = &person.device {
            request = request.header(DEVICE, device);
        }
        let renewed = self.call("refresh", request, 200, grant).await;
        person.grant = Some(forget_if_refused(person, renewed)?.0);
        Ok(())
    }

    /// Asks whether the session lives, as a gateway does for each request.
    pub async fn verify(&mut self, person: &mut Person) -> Result<(), Failure> {
        let request = self.with_token(Method::GET, "/auth/verify", person);
        let checked = self
            .call("verify", request, 200, |headers, _| headers.contains_key("x-auth-subject").then_some(()))
            .await;
        forget_if_refused(person, checked)
    }

    /// Ends the session.
    pub async fn logout(&mut self, person: &mut Person) -> Result<(), Failure> {
        let request = self.with_token(Method::POST, "/auth/v1/logout", person);
        let done = self.call("logout", request, 204, |_, _| Some(())).await;
        forget_if_refused(person, done)?;
        person.grant = None;
        Ok(())
    }

    fn request(&self, method: Method, path: &str, person: &Person) -> RequestBuilder {
        let request = self.caller.client().request(method, self.site.target.url(path));
        request.header("x-forwarded-for", &person.address)
    }

    fn with_token(&self, method: Method, path: &str, person: &Person) -> RequestBuilder {
        let token = person.grant.as_ref().map_or("", |grant| grant.access.as_str());
        self.request(method, path, person).bearer_auth(token)
    }

    async fn call<T>(
        &mut self,
        call: &'static str,
        request: RequestBuilder,
        hoped_for: u16,
        read: impl Fn(&HeaderMap, &[u8]) -> Option<T>,
    ) -> Result<T, Failure> {
        let series = Series { journey: self.journey, call };
        let sent = Instant::now();
        let due = self.due.take().unwrap_or(sent);
        let answer = whole(self.caller.exchange(series, request).await).await;
        let ended = Instant::now();
        let (outcome, pause, value) = match answer {
            Ok((status, headers, body)) if status == hoped_for => match read(&headers, &body) {
                Some(value) => (Outcome::Good, PAUSE, Some(value)),
                None => (Outcome::Nonsense, PAUSE, None),
            },
            Ok((status, headers, _)) => (Outcome::Status(status), retry_after(&headers), None),
            Err(outcome) => (outcome, PAUSE, None),
        };
        self.site.recorder.record(&Sample { series, due, sent, ended, outcome });
        value.ok_or(Failure { outcome, pause })
    }
}

type Whole = (u16, HeaderMap, Vec<u8>);

async fn whole(answer: Result<Response, Outcome>) -> Result<Whole, Outcome> {
    let mut answer = answer?;
    let (status, headers) = (answer.status().as_u16(), std::mem::take(answer.headers_mut()));
    let body = answer.bytes().await.map_err(|error| Outcome::from(&error))?;
    Ok((status, headers, body.to_vec()))
}

fn grant(headers: &HeaderMap, body: &[u8]) -> Option<(Grant, Option<String>)> {
    let body: GrantBody = serde_json::from_slice(body).ok()?;
    let device = headers.get(DEVICE).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let expires = Instant::now() + Duration::from_secs(body.expires_in);
    Some((Grant { access: body.access_token, refresh: body.refresh_token, expires }, device))
}

fn forget_if_refused<T>(person: &mut Person, result: Result<T, Failure>) -> Result<T, Failure> {
    if let Err(Failure { outcome: Outcome::Status(401), .. }) = &result {
        person.grant = None;
    }
    result
}

fn retry_after(headers: &HeaderMap) -> Duration {
    let told = headers.get("retry-after").and_then(|value| value.to_str().ok()?.parse().ok());
    told.map_or(PAUSE, Duration::from_secs).min(LONGEST_PAUSE)
}
