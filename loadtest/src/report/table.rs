//! The same figures for a terminal.
use std::fmt::Write;
use std::time::Duration;

use super::{Facts, count, duration, findings, number};
use crate::record::{Tally, Totals};

/// The lines on the terminal.
pub fn text(facts: &Facts, tally: &Tally) -> String {
    let open = facts.open().is_some();
    let mut out = format!("{}\n\n", facts.title());
    let service = if open { "  p99 sent" } else { "" };
    let _ = writeln!(
        out,
        "{:<28} {:>9} {:>8} {:>8} {:>9} {:>9} {:>9} {:>9}{service}",
        "", "good", "errors", "good/s", "p50", "p95", "p99", "max"
    );
    for row in rows(tally) {
        let name = if row.call.is_empty() { row.journey.to_owned() } else { format!("  {}", row.call) };
        let Totals { latency, service, .. } = &row.totals;
        let at = |q| cell(latency.quantile(q));
        let _ = write!(
            out,
            "{name:<28} {:>9} {:>8} {:>8} {:>9} {:>9} {:>9} {:>9}",
            count(latency.len()),
            count(row.totals.failed()),
            number(latency.len() as f64 / facts.span_s()),
            at(0.50),
            at(0.95),
            at(0.99),
            cell(latency.quantile(1.0)),
        );
        if open {
            let _ = write!(out, "  {:>8}", cell(service.quantile(0.99)));
        }
        out.push('\n');
    }
    out.push('\n');
    for finding in findings(facts, tally) {
        let _ = writeln!(out, "{} {}", if finding.bad { "!" } else { "·" }, finding.text);
    }
    out
}

/// A line of the tables; without a call it is a whole journey.
pub struct Row {
    pub journey: &'static str,
    pub call: &'static str,
    pub totals: Totals,
}

/// Each journey, and below it its calls.
pub fn rows(tally: &Tally) -> Vec<Row> {
    let mut rows = Vec::new();
    for journey in tally.journeys() {
        rows.push(Row { journey, call: "", totals: tally.journey(journey) });
        let calls = tally.series.iter().filter(|(series, _)| series.journey == journey);
        rows.extend(calls.map(|(series, totals)| Row { journey, call: series.call, totals: totals.clone() }));
    }
    rows
}

/// A quantile of a table, or a dash.
pub fn cell(value: Option<Duration>) -> String {
    value.map_or("–".to_owned(), duration)
}
