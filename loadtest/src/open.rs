//! The open loop: requests start when the schedule says so, however slow the target is. Latency counts from the moment
//! at which a request was due, so a stall is charged to everybody who would have come during it (no coordinated
//! omission). What cannot be sent, because too many are on their way, is dropped and counted.
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::api::{Failure, Person, Plain, Site, Visit};
use crate::record::Recorder;
use crate::schedule::{Arrivals, Random, Schedule};
use crate::target;

/// The name of all series of an open loop.
pub const JOURNEY: &str = "open-loop";
/// So many people are signed up at a time before the run.
const PREPARED_AT_ONCE: usize = 4;
const TRIES: u32 = 20;
/// The dispatcher looks up from its sleep this often, to see whether it shall stop.
const NAP: Duration = Duration::from_millis(100);

/// What an arrival asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Call {
    /// `GET /auth/verify`
    Verify,
    /// `POST /auth/v1/refresh`
    Refresh,
    /// `POST /auth/v1/login`
    Login,
}

/// Calls with their shares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mix(Vec<(Call, u32)>);

impl std::str::FromStr for Mix {
    type Err = String;

    /// `verify:65,refresh:30,login:5`
    fn from_str(text: &str) -> Result<Self, String> {
        let part = |part: &str| {
            let (call, share) = part.split_once(':').unwrap_or((part, "1"));
            let call = match call.trim() {
                "verify" => Call::Verify,
                "refresh" => Call::Refresh,
                "login" => Call::Login,
                other => return Err(format!("{other:?} is none of verify, refresh, login")),
            };
            match share.trim().parse::<u32>() {
                Ok(share @ 1..=1_000_000) => Ok((call, share)),
                _ => Err(format!("{share:?} is no share from 1 to 1000000")),
            }
        };
        text.split(',').map(part).collect::<Result<_, _>>().map(Self)
    }
}

impl Mix {
    fn draw(&self, random: &mut Random) -> Call {
        let mut at = random.below(self.0.iter().map(|(_, share)| u64::from(*share)).sum());
        for (call, share) in &self.0 {
            match at.checked_sub(u64::from(*share)) {
                Some(rest) => at = rest,
                None => return *call,
            }
        }
        Call::Verify
    }
}

/// What to run.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Arrivals a second, on average.
    pub rate_per_s: f64,
    /// For how long.
    pub length: Duration,
    /// How they follow each other.
    pub arrivals: Arrivals,
    /// What they ask for.
    pub mix: Mix,
    /// At most so many on their way; each has a session of its own, made before the run.
    pub in_flight: usize,
    /// At most so many in all.
    pub most_requests: u64,
    /// Of the schedule.
    pub seed: u64,
}

/// People who are logged in and do nothing at the moment.
#[derive(Debug)]
pub struct Crowd(Mutex<VecDeque<Person>>);

impl Crowd {
    fn take(&self) -> Option<Person> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }

    fn give_back(&self, person: Person) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push_back(person);
    }
}

/// Signs `count` people up and in. A target that is too busy for that is asked again, but not for ever.
pub async fn gather(site: &Arc<Site>, count: usize) -> Result<Crowd, String> {
    let client = target::client().build().map_err(|error| error.to_string())?;
    let left = Arc::new(AtomicU64::new(count as u64));
    let mut workers = tokio::task::JoinSet::new();
    for _ in 0..PREPARED_AT_ONCE.min(count) {
        let (site, client, left) = (Arc::clone(site), client.clone(), Arc::clone(&left));
        workers.spawn(async move {
            let mut people = Vec::new();
            while left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok()
            {
                people.push(newcomer(&site, client.clone()).await?);
            }
            Ok::<_, String>(people)
        });
    }
    let mut crowd = VecDeque::with_capacity(count);
    while let Some(worker) = workers.join_next().await {
        crowd.extend(worker.map_err(|error| error.to_string())??);
    }
    Ok(Crowd(Mutex::new(crowd)))
}

async fn newcomer(site: &Site, client: reqwest::Client) -> Result<Person, String> {
    let mut person = site.stranger();
    let mut visit = Visit { caller: &mut Plain(client), site, journey: JOURNEY, due: None };
    for _ in 0..TRIES {
        let done = match person.is_registered() {
            true => visit.login(&mut person).await,
            false => visit.register(&mut person).await,
        };
        match done {
            Ok(()) if person.has_session() => return Ok(person),
            Ok(()) => {}
            Err(Failure { pause, .. }) => tokio::time::sleep(pause).await,
        }
    }
    Err("the target does not let people sign up and log in".to_owned())
}

/// Runs the plan with these people; what happened is in the site's recorder, whose start is the schedule's. Returns for
/// how long requests were due: less than planned if a signal or their number ended the run.
pub async fn run(site: Arc<Site>, crowd: Crowd, plan: &Plan) -> Result<Duration, String> {
    let client = target::client().pool_max_idle_per_host(plan.in_flight).build();
    let client = client.map_err(|error| error.to_string())?;
    let stop = Arc::new(AtomicBool::new(false));
    let state = Arc::new(Running { site, crowd, client, in_flight: AtomicU64::new(0) });
    let dispatcher = {
        let (state, stop, plan) = (Arc::clone(&state), Arc::clone(&stop), plan.clone());
        let runtime = tokio::runtime::Handle::current();
        // A thread of its own: it sleeps more exactly than a timer of the runtime, and no task can make it late.
        std::thread::spawn(move || dispatch(&state, &plan, &stop, &runtime))
    };
    let ended = tokio::task::spawn_blocking(move || dispatcher.join());
    tokio::pin!(ended);
    let joined = tokio::select! {
        joined = &mut ended => joined,
        _ = tokio::signal::ctrl_c() => {
            stop.store(true, Ordering::Relaxed);
            ended.await
        }
    };
    let length =
        joined.map_err(|error| error.to_string())?.map_err(|_| "the dispatcher panicked".to_owned())?;
    let limit = Instant::now() + target::ANSWER_LIMIT + Duration::from_secs(1);
    while state.in_flight.load(Ordering::Acquire) > 0 && Instant::now() < limit {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(length)
}

struct Running {
    site: Arc<Site>,
    crowd: Crowd,
    client: reqwest::Client,
    in_flight: AtomicU64,
}

fn dispatch(
    state: &Arc<Running>,
    plan: &Plan,
    stop: &AtomicBool,
    runtime: &tokio::runtime::Handle,
) -> Duration {
    let recorder: &Recorder = &state.site.recorder;
    let mut random = Random::new(plan.seed.wrapping_add(1));
    let schedule = Schedule::new(plan.arrivals, plan.rate_per_s, plan.length, plan.most_requests, plan.seed);
    let (mut arrived, mut latest) = (0, Duration::ZERO);
    for at in schedule {
        let due = recorder.start() + at;
        if !sleep_until(due, stop) {
            return recorder.start().elapsed().min(plan.length);
        }
        (arrived, latest) = (arrived + 1, at);
        let call = plan.mix.draw(&mut random);
        let Some(person) = state.crowd.take() else {
            recorder.arrived(due, false, state.in_flight.load(Ordering::Relaxed));
            continue;
        };
        let in_flight = state.in_flight.fetch_add(1, Ordering::AcqRel) + 1;
        recorder.arrived(due, true, in_flight);
        runtime.spawn(serve(Arc::clone(state), person, call, due));
    }
    if arrived == plan.most_requests { latest } else { plan.length }
}

/// Whether to go on.
fn sleep_until(due: Instant, stop: &AtomicBool) -> bool {
    while !stop.load(Ordering::Relaxed) {
        let left = due.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return true;
        }
        std::thread::sleep(left.min(NAP));
    }
    false
}

async fn serve(state: Arc<Running>, mut person: Person, call: Call, due: Instant) {
    let mut caller = Plain(state.client.clone());
    let mut visit = Visit { caller: &mut caller, site: &state.site, journey: JOURNEY, due: Some(due) };
    // A failure is recorded already, and nobody waits for this arrival: the next one comes when it comes.
    let _ = match call {
        _ if !person.has_session() => visit.login(&mut person).await,
        Call::Login => visit.login(&mut person).await,
        Call::Verify if !person.must_renew() => visit.verify(&mut person).await,
        Call::Verify | Call::Refresh => visit.refresh(&mut person).await,
    };
    state.crowd.give_back(person);
    state.in_flight.fetch_sub(1, Ordering::AcqRel);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mix_is_drawn_by_its_shares() {
        let mix: Mix = "verify:70, refresh:25,login:5".parse().expect("a mix");
        let mut random = Random::new(1);
        let drawn: Vec<Call> = (0..10_000).map(|_| mix.draw(&mut random)).collect();
        let share = |call| drawn.iter().filter(|drawn| **drawn == call).count() as f64 / 10_000.0;
        assert!((share(Call::Verify) - 0.70).abs() < 0.02);
        assert!((share(Call::Refresh) - 0.25).abs() < 0.02);
        assert!((share(Call::Login) - 0.05).abs() < 0.02);
        let one: Mix = "login".parse().expect("a mix");
        assert!((0..100).all(|_| one.draw(&mut random) == Call::Login));
    }

    #[test]
    fn what_is_no_mix_is_refused() {
        for text in ["", "verify:0", "verify:-1", "verify:x", "delete:1", "verify:1,,login:1"] {
            assert!(text.parse::<Mix>().is_err(), "{text:?}");
        }
    }
}
