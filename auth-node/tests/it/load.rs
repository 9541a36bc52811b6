//! What `make load` does, without goose and with a handful of requests: each journey, and a moment of the open loop.
use std::sync::Arc;
use std::time::Duration;

use loadtest::api::Site;
use loadtest::journeys::{Journey, walk};
use loadtest::open;
use loadtest::record::{Recorder, Tally};
use loadtest::schedule::{Arrivals, Schedule};
use loadtest::target::Target;

use crate::Suite;
use crate::world::World;

pub fn add(suite: &mut Suite) {
    for journey in Journey::ALL {
        suite.add(&format!("load: {}", journey.name()), move |world| every_call_is_good(world, journey));
    }
    suite.add("load: an open loop counts every arrival", open_loop);
}

fn site(world: &World, run: &str) -> Site {
    let target = Target::new(&[world.node(1), world.node(2)], false).expect("loopback");
    Site::new(target, Recorder::new(), run)
}

fn counts(tally: &Tally) -> Vec<(&'static str, u64)> {
    tally.series.iter().map(|(series, totals)| (series.call, totals.latency.len())).collect()
}

async fn every_call_is_good(world: Arc<World>, journey: Journey) {
    let site = site(&world, journey.name());
    let (turns, expected) = match journey {
        Journey::SessionLife => (2, vec![("login", 2), ("logout", 2), ("refresh", 6), ("register", 2)]),
        Journey::LoginStorm => (3, vec![("login", 3), ("register", 1)]),
        Journey::SessionChecks => (5, vec![("login", 1), ("register", 1), ("verify", 5)]),
        // The first turn and the eighth log in, the others refresh.
        Journey::ReturningUsers => {
            (9, vec![("login", 2), ("logout", 1), ("refresh", 7), ("register", 1), ("verify", 27)])
        }
    };
    walk(&site, journey, turns, 3).await.expect("no call fails");
    assert_eq!(counts(&site.recorder.tally()), expected);
}

async fn open_loop(world: Arc<World>) {
    let plan = open::Plan {
        rate_per_s: 30.0,
        length: Duration::from_secs(1),
        arrivals: Arrivals::Poisson,
        mix: "verify:5,refresh:4,login:1".parse().expect("a mix"),
        in_flight: 4,
        most_requests: 25,
        seed: 1,
    };
    let prepared = Arc::new(site(&world, "open"));
    let crowd = open::gather(&prepared, plan.in_flight).await.expect("people");
    assert_eq!(counts(&prepared.recorder.tally()), [("login", 4), ("register", 4)]);
    let site = Arc::into_inner(prepared).expect("nobody else").restart(Recorder::new());
    let site = Arc::new(site);
    let length = open::run(Arc::clone(&site), crowd, &plan).await.expect("a run");
    let schedule = Schedule::new(plan.arrivals, plan.rate_per_s, plan.length, 25, plan.seed);
    let (tally, moments) = (site.recorder.tally(), schedule.collect::<Vec<_>>());
    let (due, dropped) = tally.arrivals();
    assert_eq!(due, 25, "their number ends this run, not its time");
    assert_eq!(Some(&length), moments.last());
    assert_eq!((tally.total().latency.len() + dropped, tally.total().failed()), (due, 0));
}
