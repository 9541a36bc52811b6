//! What [`ownership`](crate::ownership) found, as a section.
use std::fmt::Write;

use benches::stats::{self, Estimate, median};

use crate::ownership::{Block, Series};
use crate::report::{load_average, made_by};
use crate::statements::Guard;

/// What writes this section.
pub const COMMAND: &str = "make figures-ownership";
/// The goal: at most so much of the throughput.
const GOAL_PERCENT: f64 = 3.0;
/// A block has two rounds of each kind.
const ROUNDS: f64 = 2.0;

/// What the figures depend on.
pub struct Facts {
    pub server: String,
    pub settings: String,
    /// µs of CPU a second while nobody asks, of each cluster.
    pub idle: Vec<f64>,
    pub blocks: usize,
    pub transactions: usize,
}

/// The whole section.
pub fn text(facts: &Facts, found: &[Series]) -> String {
    let mut text = format!(
        "{} One primary, {}. {} blocks of rounds A B B A, {} transactions a round. Load average afterwards \
         {}.\n\n",
        made_by(COMMAND, &facts.server),
        facts.settings,
        facts.blocks,
        facts.transactions,
        load_average()
    );
    text += "| | replicas | µs before a flush | connections | transactions a second, bare | protected | ms each, bare | throughput lost, % \
             (95 %) | ≤ 3 % | server's CPU each, bare, µs | protected | more a row, µs (95 %) \
             |\n|---|--:|--:|--:|--:|--:|--:|--:|---|--:|--:|--:|\n";
    for series in found {
        text += &row(series, facts.transactions);
    }
    let idle: Vec<String> = facts.idle.iter().map(|idle| format!("{:.1}", idle / 1000.0)).collect();
    let _ = writeln!(
        text,
        "\nIdle, taken off above: {} ms of CPU a second. Bare: the same statement on a table of the same shape, with no \
         policy and no trigger on it. Replicas: none, or asynchronous, or from two on any one of them synchronous; their CPU is not \
         counted. µs before a flush: `commit_delay`, a sleep, as a slower disk would take longer.",
        idle.join(" and ")
    );
    text
}

fn row(series: &Series, transactions: usize) -> String {
    let Series { work, replicas, commit_delay_us, connections, blocks } = series;
    let [bare, protected] = Guard::ALL.map(|guard| guard as usize);
    let done = (transactions / connections * connections) as f64 * ROUNDS;
    let middle = |of: &dyn Fn(&Block) -> f64| median(blocks.iter().map(of).collect());
    let rate = |guard: usize| middle(&|block| done / block[guard].seconds);
    let cpu = |guard: usize| middle(&|block| block[guard].cpu_us / done);
    let slower: Vec<f64> =
        blocks.iter().map(|block| block[bare].seconds / block[protected].seconds).collect();
    let lost = stats::ratio(&slower).map(|ratio| Estimate {
        value: (1.0 - ratio.value) * 100.0,
        low: (1.0 - ratio.high) * 100.0,
        high: (1.0 - ratio.low) * 100.0,
    });
    let a_row = |block: &Block| (block[protected].cpu_us - block[bare].cpu_us) / done / work.rows();
    let more = stats::mean(&blocks.iter().map(a_row).collect::<Vec<f64>>());
    format!(
        "| {} | {replicas} | {commit_delay_us} | {connections} | {:.0} | {:.0} | {:.1} | {} | {} | {:.0} | {:.0} | {} |\n",
        work.name(),
        rate(bare),
        rate(protected),
        *connections as f64 * 1000.0 / rate(bare),
        interval(lost),
        lost.map_or("–", |lost| lost.within(f64::NEG_INFINITY, GOAL_PERCENT).word()),
        cpu(bare),
        cpu(protected),
        interval(more),
    )
}

fn interval(estimate: Option<Estimate>) -> String {
    estimate.map_or_else(|| "–".to_owned(), |e| format!("{:.1} ({:.1} to {:.1})", e.value, e.low, e.high))
}
