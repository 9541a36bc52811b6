//! What virtual users do. A journey is a turn, again and again; who drives it decides about time.
use std::time::Duration;

use clap::ValueEnum;

use crate::api::{Caller, Failure, Person, Plain, Site, Visit};
use crate::target;

/// How often a session is refreshed before its user leaves.
pub const REFRESHES: u32 = 5;
/// How often a returning user's gateway asks about them between two pauses.
const CHECKS: u32 = 3;

/// A kind of virtual user.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Journey {
    /// register, login, N × refresh, logout; then somebody new.
    SessionLife,
    /// login, again and again, without a pause: the hash is the work.
    LoginStorm,
    /// GET /auth/verify, again and again, without a pause, as gateways ask.
    SessionChecks,
    /// refresh and a few checks, then 1 to 5 s of thinking; every eighth time logs out and in.
    ReturningUsers,
}

impl Journey {
    /// All of them.
    pub const ALL: [Self; 4] =
        [Self::SessionLife, Self::LoginStorm, Self::SessionChecks, Self::ReturningUsers];

    /// As the command line and the reports call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::SessionLife => "session-life",
            Self::LoginStorm => "login-storm",
            Self::SessionChecks => "session-checks",
            Self::ReturningUsers => "returning-users",
        }
    }

    /// How many of ten users do this when all journeys run together.
    pub fn weight(self) -> usize {
        match self {
            Self::SessionLife | Self::SessionChecks => 2,
            Self::LoginStorm => 1,
            Self::ReturningUsers => 5,
        }
    }

    /// The shortest and the longest pause between turns.
    pub fn thinking(self) -> Option<(Duration, Duration)> {
        (self == Self::ReturningUsers).then_some((Duration::from_secs(1), Duration::from_secs(5)))
    }

    /// Once around. `number` counts the turns of this user, from 0.
    pub async fn turn<C: Caller>(
        self,
        visit: &mut Visit<'_, C>,
        person: &mut Person,
        number: u64,
        refreshes: u32,
    ) -> Result<(), Failure> {
        match self {
            Self::SessionLife => {
                *person = visit.site.stranger();
                visit.register(person).await?;
                visit.login(person).await?;
                for _ in 0..refreshes {
                    visit.refresh(person).await?;
                }
                visit.logout(person).await
            }
            Self::LoginStorm => {
                sign_up(visit, person).await?;
                visit.login(person).await
            }
            Self::SessionChecks => {
                come_back(visit, person, false).await?;
                visit.verify(person).await
            }
            Self::ReturningUsers => {
                if number % 8 == 7 && person.has_session() {
                    visit.logout(person).await?;
                }
                come_back(visit, person, true).await?;
                for _ in 0..CHECKS {
                    visit.verify(person).await?;
                }
                Ok(())
            }
        }
    }
}

async fn sign_up<C: Caller>(visit: &mut Visit<'_, C>, person: &mut Person) -> Result<(), Failure> {
    if person.is_registered() { Ok(()) } else { visit.register(person).await }
}

/// A session that is good for a while: the one there is, its successor, or a new one.
async fn come_back<C: Caller>(
    visit: &mut Visit<'_, C>,
    person: &mut Person,
    always_renew: bool,
) -> Result<(), Failure> {
    sign_up(visit, person).await?;
    if !person.has_session() {
        visit.login(person).await
    } else if always_renew || person.must_renew() {
        visit.refresh(person).await
    } else {
        Ok(())
    }
}

/// One virtual user without a driver: so many turns, and the first failure is the end.
pub async fn walk(site: &Site, journey: Journey, turns: u64, refreshes: u32) -> Result<(), Failure> {
    let client = target::client().build().expect("a client without TLS settings can be built");
    let mut visit = Visit { caller: &mut Plain(client), site, journey: journey.name(), due: None };
    let mut person = site.stranger();
    for number in 0..turns {
        journey.turn(&mut visit, &mut person, number, refreshes).await?;
    }
    Ok(())
}
