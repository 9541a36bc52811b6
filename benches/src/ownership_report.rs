//! What [`ownership`](crate::ownership) found, as a section.
use std::fmt::Write;

use benches::stats::{self, Estimate, median};

use crate::ownership::{Block, Cost};
use crate::report::{load_average, made_by};
use crate::statements::Work;

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
    pub connections: usize,
}

/// The whole section.
pub fn text(facts: &Facts, found: &[Vec<Block>; 2]) -> String {
    let mut text = format!(
        "{} One primary without replicas, {}. {} blocks of rounds A B B A, {} transactions a round over {} connections. \
         Load average afterwards {}.\n\n",
        made_by(COMMAND, &facts.server),
        facts.settings,
        facts.blocks,
        facts.transactions,
        facts.connections,
        load_average()
    );
    text += "| | transactions a second without | with | throughput lost, % (95 %) | ≤ 3 % | server's CPU without, µs | with \
             | more a row, µs (95 %) |\n|---|--:|--:|--:|---|--:|--:|--:|\n";
    for (work, blocks) in Work::ALL.into_iter().zip(found) {
        let share = facts.transactions / facts.connections * facts.connections;
        let done = share as f64 * ROUNDS;
        let middle = |of: &dyn Fn(&Block) -> f64| median(blocks.iter().map(of).collect());
        let rate = |cost: &Cost| done / cost.seconds;
        let slower: Vec<f64> = blocks.iter().map(|block| rate(&block.gated) / rate(&block.bare)).collect();
        let lost = stats::ratio(&slower).map(|ratio| Estimate {
            value: (1.0 - ratio.value) * 100.0,
            low: (1.0 - ratio.high) * 100.0,
            high: (1.0 - ratio.low) * 100.0,
        });
        let more: Vec<f64> = blocks
            .iter()
            .map(|block| (block.gated.cpu_us - block.bare.cpu_us) / done / work.rows())
            .collect();
        let _ = writeln!(
            text,
            "| {} | {:.0} | {:.0} | {} | {} | {:.0} | {:.0} | {} |",
            work.name(),
            middle(&|block| rate(&block.bare)),
            middle(&|block| rate(&block.gated)),
            interval(lost),
            lost.map_or("–", |lost| lost.within(f64::NEG_INFINITY, GOAL_PERCENT).word()),
            middle(&|block| block.bare.cpu_us / done),
            middle(&|block| block.gated.cpu_us / done),
            interval(stats::mean(&more)),
        );
    }
    let _ = writeln!(
        text,
        "\nIdle, taken off above: {:.1} ms of CPU a second. Without: the same statement on a table of the same shape, no \
         gate in it and no trigger on it.",
        facts.idle / 1000.0
    );
    text
}

fn interval(estimate: Option<Estimate>) -> String {
    estimate.map_or_else(|| "–".to_owned(), |e| format!("{:.1} ({:.1} to {:.1})", e.value, e.low, e.high))
}
