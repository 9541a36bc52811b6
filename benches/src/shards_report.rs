//! What [`shards`](crate::shards) found, as a section.
use std::fmt::Write;

use benches::stats::{self, Estimate, median};

use crate::report::{load_average, made_by};
use crate::shards::{Arm, Cost, Order};

/// What writes this section.
pub const COMMAND: &str = "make figures-shards";
/// The goal: flat, give or take this.
const FLAT: (f64, f64) = (0.95, 1.05);
/// Below so many µs an answer there is nothing to compare.
const NOTHING: f64 = 5.0;

/// What the figures depend on.
pub struct Facts {
    pub servers: String,
    pub replicas: u16,
    pub blocks: usize,
    pub requests: usize,
    pub clients: usize,
    /// What is measured of a stretch in the middle, in seconds.
    pub stretches_s: f64,
}

/// The whole section.
pub fn text(facts: &Facts, arms: &[Arm], costs: &[Cost]) -> String {
    let counts: Vec<String> = arms.iter().map(|arm| arm.shards.to_string()).collect();
    let mut text = format!(
        "{} {} replicas a shard. Clusters of {} shards side by side; {} blocks, {} requests of a call in each (a tenth of \
         logins, four times as many session checks and bare reads) over {} connection(s), in stretches A B B A, half of \
         each to warm up and {:.2} s measured. Load average afterwards {}.\n\n",
        made_by(COMMAND, &facts.servers),
        facts.replicas,
        counts.join(" and "),
        facts.blocks,
        facts.requests,
        facts.clients,
        facts.stretches_s,
        load_average()
    );
    let first = arms[0].shards;
    let _ = writeln!(
        text,
        "| µs of CPU an answer | users | shards | auth-node | PostgreSQL | its backends | Redis | node against {first} | \
         backends against {first} | node and backends (95 %) | within 5 % | node and all of PostgreSQL (95 %) | within 5 % \
         |\n|---|---|--:|--:|--:|--:|--:|--:|--:|--:|---|--:|---|"
    );
    for cost in costs {
        for (at, arm) in arms.iter().enumerate() {
            text += &row(cost, at, arm.shards);
        }
    }
    text += "\nOf each while another was asked, taken off above, ms of CPU a second, the least and the most of all blocks:";
    for arm in arms {
        let of = |part: usize| {
            let rates = arm.rest.iter().skip(1).map(|rest| rest.a_second()[part] / 1000.0);
            let (least, most) = rates.fold((f64::MAX, 0.0_f64), |(l, m), rate| (l.min(rate), m.max(rate)));
            format!("{least:.1} to {most:.1}")
        };
        let (shards, [node, postgres, backends, redis]) = (arm.shards, [0, 1, 5, 2].map(of));
        let _ = write!(
            text,
            " {shards} shards: node {node}, all primaries {postgres}, of these the backends {backends}, Redis {redis};"
        );
    }
    text.pop();
    text += ".\n";
    text
}

fn row(cost: &Cost, at: usize, shards: u16) -> String {
    let Cost { work, order, arms } = cost;
    let of = |part: usize| median(arms[at].iter().map(|block| block[part]).collect());
    let [node, postgres, backends, redis] = [0, 1, 3, 2].map(|part| number(of(part)));
    let order = match order {
        Order::Mixed => "mixed",
        Order::InTurn => "in turn",
    };
    let start =
        format!("| {} | {order} | {shards} | {node} | {postgres} | {backends} | {redis} |", work.name());
    if at == 0 {
        return format!("{start} | | | | | |\n");
    }
    let against = |cost: fn(&[f64; 4]) -> f64| ratio(&arms[0], &arms[at], cost);
    let verdict = |ratio: Option<Estimate>| ratio.map_or("–", |ratio| ratio.within(FLAT.0, FLAT.1).word());
    let (serving, all) = (against(|block| block[0] + block[3]), against(|block| block[0] + block[1]));
    let [node, backends] = [against(|block| block[0]), against(|block| block[3])].map(interval);
    let verdicts = [verdict(serving), verdict(all)];
    let [serving, all] = [serving, all].map(interval);
    format!("{start} {node} | {backends} | {serving} | {} | {all} | {} |\n", verdicts[0], verdicts[1])
}

/// Blocks in pairs. None where the first has next to nothing.
fn ratio(base: &[[f64; 4]], other: &[[f64; 4]], cost: fn(&[f64; 4]) -> f64) -> Option<Estimate> {
    if median(base.iter().map(cost).collect()) < NOTHING {
        return None;
    }
    let ratios: Vec<f64> = base.iter().zip(other).map(|(base, other)| cost(other) / cost(base)).collect();
    stats::ratio(&ratios)
}

fn number(us: f64) -> String {
    if us < 0.5 { "–".to_owned() } else { format!("{us:.0}") }
}

fn interval(estimate: Option<Estimate>) -> String {
    estimate.map_or_else(|| "–".to_owned(), |e| format!("{:.3} ({:.3}–{:.3})", e.value, e.low, e.high))
}
