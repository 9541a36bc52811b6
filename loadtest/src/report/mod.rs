//! What a run says in the end: lines on the terminal and one HTML file that needs nothing else.
mod chart;
mod page;
mod requests;
mod table;

use std::time::Duration;

use chrono::{DateTime, Utc};

use crate::marks::Mark;
use crate::record::{Outcome, Tally, Totals};

pub use page::html;
pub use table::text;

/// A generator that is later than this tells of itself as much as of the target.
const LATE: Duration = Duration::from_millis(10);

/// What was run, and on what.
#[derive(Debug, Clone)]
pub struct Facts {
    /// How it was started.
    pub command: String,
    /// The base addresses.
    pub nodes: Vec<String>,
    /// When.
    pub begun: DateTime<Utc>,
    /// How long it was to be.
    pub length: Duration,
    /// How long it was until the last answer.
    pub took: Duration,
    /// Of the last minute, before and after.
    pub load_average: [String; 2],
    /// Of this machine.
    pub cores: usize,
    /// What the generator itself used.
    pub generator_cpu: Duration,
    /// Which kind of loop it was.
    pub kind: Kind,
    /// What happened meanwhile.
    pub marks: Vec<Mark>,
}

/// Closed or open.
#[derive(Debug, Clone)]
pub enum Kind {
    /// Virtual users that wait for their answers.
    Closed {
        /// How many.
        users: usize,
    },
    /// Arrivals on a schedule.
    Open {
        /// Intended arrivals a second.
        rate_per_s: f64,
        /// At most so many on their way.
        in_flight: usize,
    },
}

impl Facts {
    fn open(&self) -> Option<(f64, usize)> {
        match self.kind {
            Kind::Open { rate_per_s, in_flight, .. } => Some((rate_per_s, in_flight)),
            Kind::Closed { .. } => None,
        }
    }

    fn title(&self) -> String {
        match &self.kind {
            Kind::Closed { users } => format!("Journeys: {users} users for {}", seconds(self.length)),
            Kind::Open { rate_per_s, .. } => {
                format!("Open loop: {}/s for {}", number(*rate_per_s), seconds(self.length))
            }
        }
    }

    /// What good answers are divided by to get a rate.
    fn span_s(&self) -> f64 {
        let span = if self.open().is_some() { self.length } else { self.took };
        span.as_secs_f64().max(0.001)
    }

    /// How many cores the generator kept busy.
    fn busy(&self) -> f64 {
        self.generator_cpu.as_secs_f64() / self.took.as_secs_f64().max(0.001)
    }
}

/// One sentence of the summary, and whether it is a warning.
struct Finding {
    bad: bool,
    text: String,
}

/// What a reader has to know before any figure.
fn findings(facts: &Facts, tally: &Tally) -> Vec<Finding> {
    let total = tally.total();
    let mut found = vec![errors(&total)];
    if let Some((rate, in_flight)) = facts.open() {
        found.push(arrivals(facts, tally, rate, in_flight));
        let late = tally.lateness.quantile(0.99).unwrap_or_default();
        found.push(Finding {
            bad: late > LATE,
            text: format!(
                "Of 100 requests, 99 were sent at most {} after they were due. This is in the latency.{}",
                duration(late),
                if late > LATE { " The generator was held up: its machine is busy." } else { "" }
            ),
        });
    } else {
        found.push(Finding {
            bad: false,
            text: "A user waits for an answer before the next request: a slow target is asked less often. \
                   For latency at a given rate use OPEN=1."
                .to_owned(),
        });
    }
    found.extend(requests::finding(facts, tally));
    found.push(generator(facts));
    found
}

fn errors(total: &Totals) -> Finding {
    let (good, failed) = (total.latency.len(), total.failed());
    let text = match failed {
        0 => format!("All {} answers were good.", count(good)),
        _ => {
            let kinds: Vec<String> =
                total.errors.iter().map(|(outcome, n)| format!("{} × {outcome}", count(*n))).collect();
            let share = 100.0 * failed as f64 / (good + failed) as f64;
            format!(
                "{} of {} requests failed ({share:.2} %): {}. Latencies are of good answers only.",
                count(failed),
                count(good + failed),
                kinds.join(", ")
            )
        }
    };
    Finding { bad: failed > 0, text }
}

fn arrivals(facts: &Facts, tally: &Tally, rate: f64, in_flight: usize) -> Finding {
    let (due, dropped) = tally.arrivals();
    let good = tally.total().latency.len() as f64 / facts.span_s();
    let mut text = format!(
        "{} arrivals were due ({}/s); {}/s were answered well.",
        count(due),
        number(rate),
        number(good)
    );
    if dropped > 0 {
        text.push_str(&format!(
            " {} ({:.1} %) were dropped, since {in_flight} were on their way: the target did not keep up, and the \
             latencies, which are of those that were sent, look better than what all would have seen.",
            count(dropped),
            100.0 * dropped as f64 / due as f64
        ));
    }
    Finding { bad: dropped > 0, text }
}

fn generator(facts: &Facts) -> Finding {
    let (busy, cores) = (facts.busy(), facts.cores);
    let [before, after] = &facts.load_average;
    Finding {
        bad: busy > 0.5 * cores as f64,
        text: format!(
            "The generator kept {busy:.2} of {cores} cores busy; load average {before} before, {after} after.{}",
            if busy > 0.5 * cores as f64 { " It competed with the target: use another machine." } else { "" }
        ),
    }
}

/// `0.42 ms`, `14.2 ms`, `1.25 s`.
fn duration(duration: Duration) -> String {
    let ms = duration.as_secs_f64() * 1_000.0;
    match ms {
        _ if ms < 9.995 => format!("{ms:.2} ms"),
        _ if ms < 99.95 => format!("{ms:.1} ms"),
        _ if ms < 999.5 => format!("{ms:.0} ms"),
        _ => format!("{:.2} s", ms / 1_000.0),
    }
}

fn seconds(duration: Duration) -> String {
    format!("{} s", number(duration.as_secs_f64()))
}

/// With one decimal where it says something.
fn number(value: f64) -> String {
    if value >= 100.0 || value.fract() == 0.0 { count(value.round() as u64) } else { format!("{value:.1}") }
}

/// With thin gaps between thousands.
fn count(value: u64) -> String {
    let digits = value.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) && digits.len() > 4 {
            text.push('\u{202f}');
        }
        text.push(digit);
    }
    text
}

/// The colour class of an outcome: refusals that say "later" are not like the rest.
fn outcome_class(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Good => "good",
        Outcome::Status(503) => "e-503",
        Outcome::Status(429) => "e-429",
        Outcome::Status(400..=499) => "e-4xx",
        Outcome::Status(_) | Outcome::Nonsense => "e-5xx",
        Outcome::Timeout => "e-timeout",
        Outcome::Connection => "e-connection",
    }
}

#[cfg(test)]
mod tests;
