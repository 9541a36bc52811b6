//! The closed loop: goose launches virtual users, gives each a journey and lets them think. Each waits for its answer
//! before it asks again, so a slow target is asked less often; [`crate::open`] is the other way.
use std::sync::Arc;
use std::time::{Duration, Instant};

use goose::config::GooseConfiguration;
use goose::prelude::*;
use reqwest::{Client, RequestBuilder, Response};

use crate::api::{Caller, Person, Site, Visit};
use crate::journeys::Journey;
use crate::record::{Outcome, Series};
use crate::target;

/// All users are there after this, or after a fifth of the run.
const LAUNCH: Duration = Duration::from_secs(2);

/// What to run.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Virtual users in all, shared out by the journeys' weights.
    pub users: usize,
    /// How long after all are launched.
    pub length: Duration,
    /// Which journeys.
    pub journeys: Vec<Journey>,
    /// In a session's life.
    pub refreshes: u32,
    /// Ends the run after so many requests.
    pub most_requests: u64,
}

/// A user's own memory, which goose keeps between turns.
#[derive(Clone)]
struct Memory {
    person: Person,
    turns: u64,
}

/// Runs the plan; what happened is in the site's recorder. Returns the number of requests that goose itself counted.
pub async fn run(site: Arc<Site>, plan: &Plan) -> Result<u64, String> {
    let attack = GooseAttack::initialize_with_config(configuration(&site, plan)).map_err(told)?;
    let attack = plan.journeys.iter().try_fold(attack, |attack, journey| {
        Ok::<_, GooseError>(attack.register_scenario(scenario(&site, *journey, plan)?))
    });
    let guard = tokio::spawn(stop_at(Arc::clone(&site), plan.most_requests));
    let metrics = attack.map_err(told)?.execute().await.map_err(told);
    guard.abort();
    let requests = metrics?.requests;
    Ok(requests.values().map(|request| (request.success_count + request.fail_count) as u64).sum())
}

fn told(error: GooseError) -> String {
    error.to_string()
}

fn configuration(site: &Site, plan: &Plan) -> GooseConfiguration {
    let launch = LAUNCH.min(plan.length / 5).as_secs().max(1);
    let mut configuration = GooseConfiguration::default();
    configuration.host = site.target.nodes().first().cloned();
    configuration.users = Some(plan.users);
    configuration.increase_time = Some(launch.to_string());
    configuration.run_time = Some(plan.length.as_secs().to_string());
    // Users that are still being launched count as well.
    configuration.no_reset_metrics = true;
    // The report is ours: goose's loads its plots from elsewhere. So is the one line on the terminal.
    configuration.no_print_metrics = true;
    configuration.no_error_summary = true;
    configuration.quiet = 3;
    // No listeners.
    configuration.no_telnet = true;
    configuration
}

fn scenario(site: &Arc<Site>, journey: Journey, plan: &Plan) -> Result<Scenario, GooseError> {
    let (turns_at, prepared_at, refreshes) = (Arc::clone(site), Arc::clone(site), plan.refreshes);
    let prepare: TransactionFunction =
        Arc::new(move |user| Box::pin(prepare(user, Arc::clone(&prepared_at))));
    let turn: TransactionFunction =
        Arc::new(move |user| Box::pin(turn(user, Arc::clone(&turns_at), journey, refreshes)));
    let scenario = Scenario::new(journey.name())
        .set_weight(journey.weight())?
        .register_transaction(Transaction::new(prepare).set_name("prepare").set_on_start())
        .register_transaction(Transaction::new(turn).set_name("turn"));
    match journey.thinking() {
        Some((shortest, longest)) => scenario.set_wait_time(shortest, longest),
        None => Ok(scenario),
    }
}

async fn prepare(user: &mut GooseUser, site: Arc<Site>) -> TransactionResult {
    // A client of its own, so connections of its own.
    user.set_client_builder(target::client()).await.map_err(Box::new)?;
    user.set_session_data(Memory { person: site.stranger(), turns: 0 });
    Ok(())
}

async fn turn(user: &mut GooseUser, site: Arc<Site>, journey: Journey, refreshes: u32) -> TransactionResult {
    let mut memory = user.get_session_data_unchecked::<Memory>().clone();
    let mut goose = Goose(user);
    let mut visit = Visit { caller: &mut goose, site: &site, journey: journey.name(), due: None };
    let result = journey.turn(&mut visit, &mut memory.person, memory.turns, refreshes).await;
    memory.turns += 1;
    user.set_session_data(memory);
    if let Err(failure) = result {
        tokio::time::sleep(failure.pause).await;
    }
    Ok(())
}

struct Goose<'a>(&'a mut GooseUser);

impl Caller for Goose<'_> {
    fn client(&self) -> &Client {
        &self.0.client
    }

    async fn exchange(&mut self, series: Series, request: RequestBuilder) -> Result<Response, Outcome> {
        let name = format!("{} {}", series.journey, series.call);
        let request = GooseRequest::builder().name(name.as_str()).set_request_builder(request).build();
        let answer = self.0.request(request).await.map_err(|_| Outcome::Connection)?;
        answer.response.map_err(|error| Outcome::from(&error))
    }
}

async fn stop_at(site: Arc<Site>, most_requests: u64) {
    let end = Instant::now() + Duration::from_secs(24 * 3_600);
    while Instant::now() < end && site.recorder.count() < most_requests {
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    goose::trigger_killswitch("the highest number of requests was made");
}
