//! What [`ownership`](crate::ownership) found, as a section.
use std::fmt::Write;

use benches::stats::{self, Estimate, median};

use crate::ownership::{Block, Cost, Series};
use crate::report::{load_average, made_by};

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
    /// µs of CPU a second while nobody asks.
    pub idle: f64,
    pub blocks: usize,
    pub transactions: usize,
}

/// The whole section.
pub fn text(facts: &Facts, found: &[Series]) -> String {
    let mut text = format!(
        "{} One primary without replicas, {}. {} blocks of rounds A B B A, {} transactions a round. Load average afterwards \
         {}.\n\n",
        made_by(COMMAND, &facts.server),
        facts.settings,
        facts.blocks,
        facts.transactions,
        load_average()
    );
    text += "| | connections | transactions a second without | with | ms each without | throughput lost, % (95 %) | ≤ 3 % \
             | server's CPU each without, µs | with | more a row, µs (95 %) |\n\
             |---|--:|--:|--:|--:|--:|---|--:|--:|--:|\n";
    for series in found {
        text += &row(series, facts.transactions);
    }
    let _ = writeln!(
        text,
        "\nIdle, taken off above: {:.1} ms of CPU a second. Without: the same statement on a table of the same shape, no \
         gate in it and no trigger on it.",
        facts.idle / 1000.0
    );
    text
}

fn row(series: &Series, transactions: usize) -> String {
    let Series { work, connections, blocks } = series;
    let done = (transactions / connections * connections) as f64 * ROUNDS;
    let middle = |of: &dyn Fn(&Block) -> f64| median(blocks.iter().map(of).collect());
    let rate = |cost: &Cost| done / cost.seconds;
    let slower: Vec<f64> = blocks.iter().map(|block| rate(&block.gated) / rate(&block.bare)).collect();
    let lost = stats::ratio(&slower).map(|ratio| Estimate {
        value: (1.0 - ratio.value) * 100.0,
        low: (1.0 - ratio.high) * 100.0,
        high: (1.0 - ratio.low) * 100.0,
    });
    let more = |block: &Block| (block.gated.cpu_us - block.bare.cpu_us) / done / work.rows();
    let more: Vec<f64> = blocks.iter().map(more).collect();
    let bare = middle(&|block| rate(&block.bare));
    format!(
        "| {} | {connections} | {bare:.0} | {:.0} | {:.1} | {} | {} | {:.0} | {:.0} | {} |\n",
        work.name(),
        middle(&|block| rate(&block.gated)),
        *connections as f64 * 1000.0 / bare,
        interval(lost),
        lost.map_or("–", |lost| lost.within(f64::NEG_INFINITY, GOAL_PERCENT).word()),
        middle(&|block| block.bare.cpu_us / done),
        middle(&|block| block.gated.cpu_us / done),
        interval(stats::mean(&more)),
    )
}

fn interval(estimate: Option<Estimate>) -> String {
    estimate.map_or_else(|| "–".to_owned(), |e| format!("{:.1} ({:.1} to {:.1})", e.value, e.low, e.high))
}
