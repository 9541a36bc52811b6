//! The HTML file: style and plots are inside, nothing is loaded, no script runs.
use std::fmt::Write;
use std::time::Duration;

use super::chart::{self, Bar, Chart, Line, Scale, time_ticks};
use super::table::{cell, rows};
use super::{Facts, Finding, count, findings, number, outcome_class, seconds};
use crate::histogram::Histogram;
use crate::record::{Outcome, Series, Slice, Tally, Totals};

const QUANTILES: [(&str, f64); 3] = [("p50", 0.50), ("p95", 0.95), ("p99", 0.99)];
/// A slice that was less than this far lived through says nothing about a rate.
const WHOLE_ENOUGH: f64 = 0.3;

/// The whole page.
pub fn html(facts: &Facts, tally: &Tally) -> String {
    let page = Page { facts, tally, end_s: tally.slices.len() as f64 * tally.slice.as_secs_f64() };
    let mut out = format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width\"><title>{}</title><style>{}</style></head><body>",
        facts.title(),
        include_str!("style.css")
    );
    out.push_str(&page.head());
    out.push_str(&page.latency());
    out.push_str(&page.rate());
    out.push_str(&page.errors());
    out.push_str(&page.table());
    if facts.open().is_some() {
        out.push_str(&page.by_percentile());
        out.push_str(&page.in_flight());
    }
    out.push_str("<footer>How to read this: docs/load.md.</footer></body></html>\n");
    out
}

pub(super) struct Page<'a> {
    pub facts: &'a Facts,
    pub tally: &'a Tally,
    end_s: f64,
}

impl Page<'_> {
    fn head(&self) -> String {
        let facts = self.facts;
        let mut out = format!(
            "<h1>{}</h1><p class=\"soft\">{} · {} · <code>{}</code></p><ul class=\"findings\">",
            facts.title(),
            facts.begun.format("%Y-%m-%d %H:%M UTC"),
            escape(&facts.nodes.join(", ")),
            escape(&facts.command)
        );
        for Finding { bad, text } in findings(facts, self.tally) {
            let _ = write!(out, "<li{}>{}</li>", if bad { " class=\"bad\"" } else { "" }, escape(&text));
        }
        out.push_str("</ul><div class=\"tiles\">");
        for (value, name) in self.tiles() {
            let _ = write!(out, "<div class=\"tile\"><b>{value}</b><span>{name}</span></div>");
        }
        out.push_str("</div>");
        out
    }

    fn tiles(&self) -> Vec<(String, &'static str)> {
        let total = self.tally.total();
        let good = number(total.latency.len() as f64 / self.facts.span_s());
        let errors = (count(total.failed()), "errors");
        let Some((rate, _)) = self.facts.open() else {
            let requests = count(total.latency.len() + total.failed());
            return vec![(requests, "requests"), (good, "good answers a second"), errors];
        };
        let at = |q| cell(total.latency.quantile(q));
        vec![
            (number(rate), "due a second"),
            (good, "good a second"),
            (at(0.50), "p50"),
            (at(0.95), "p95"),
            (at(0.99), "p99"),
            errors,
            (count(self.tally.arrivals().1), "dropped"),
        ]
    }

    fn latency(&self) -> String {
        if self.facts.open().is_none() {
            let note = "Good answers, by when the request was sent. Each journey has its own scale.";
            let mut out =
                section("Latency over time", note, &legend(&QUANTILES.map(|(name, _)| (name, name))));
            for journey in self.tally.journeys() {
                let _ = write!(out, "<h3>{journey}</h3>");
                out.push_str(&self.latency_chart(160.0, journey, &|series| series.journey == journey));
            }
            out.push_str(&self.marked());
            return out;
        }
        let note = "Good answers, from the moment at which a request was due, by that moment.";
        let mut out = section("Latency over time", note, &legend(&QUANTILES.map(|(name, _)| (name, name))));
        out.push_str(&self.latency_chart(230.0, "all calls", &|_| true));
        out.push_str(&self.marked());
        out.push_str(&self.every_request());
        for call in self.tally.series.keys().map(|series| series.call) {
            let _ = write!(out, "<h3>{call}</h3>");
            out.push_str(&self.latency_chart(150.0, call, &|series| series.call == call));
        }
        out
    }

    fn latency_chart(&self, height: f64, what: &str, wanted: &dyn Fn(&Series) -> bool) -> String {
        let slices: Vec<Histogram> =
            self.tally.slices.iter().map(|slice| latency_of(slice, wanted)).collect();
        let lines = QUANTILES.map(|(class, quantile)| {
            let values = slices.iter().map(|slice| slice.quantile(quantile).map(ms));
            Line { class, points: self.middles().zip(values).collect() }
        });
        let tips = slices.iter().map(|slice| match slice.is_empty() {
            true => "nothing".to_owned(),
            false => {
                let told = QUANTILES.map(|(name, q)| format!("{name} {}", cell(slice.quantile(q))));
                format!("{} answers, {}", count(slice.len()), told.join(", "))
            }
        });
        let chart = Chart {
            height,
            scale: Scale::Log,
            format: ms_label,
            lines: lines.into(),
            tips: self.tips(tips),
            label: format!("latency of {what} over time"),
            ..self.over_time()
        };
        chart.svg()
    }

    fn rate(&self) -> String {
        let per_s = |value: &dyn Fn(&Slice) -> u64| -> Vec<(f64, Option<f64>)> {
            let values = self.tally.slices.iter().enumerate().map(|(index, slice)| {
                let covered = self.covered_s(index);
                let enough = covered >= WHOLE_ENOUGH * self.tally.slice.as_secs_f64();
                enough.then(|| value(slice) as f64 / covered)
            });
            self.middles().zip(values).collect()
        };
        let mut lines = vec![Line { class: "good", points: per_s(&|slice| slice.good) }];
        let mut names = vec![("good", "good answers")];
        if self.facts.open().is_some() {
            let mut due = per_s(&|slice| slice.due);
            due.retain(|(at, _)| *at < self.facts.length.as_secs_f64());
            lines.insert(0, Line { class: "plan", points: due });
            names.insert(0, ("plan", "due"));
        }
        let tips = lines[0].points.iter().zip(&lines[lines.len() - 1].points).map(|((_, due), (_, good))| {
            let of = |value: &Option<f64>| value.map_or("–".to_owned(), number);
            match names.len() {
                1 => format!("{} good a second", of(good)),
                _ => format!("{} due, {} good a second", of(due), of(good)),
            }
        });
        let tips = self.tips(tips);
        let label = "requests a second over time".to_owned();
        let chart = Chart { height: 190.0, format: number, lines, tips, label, ..self.over_time() };
        section("Rate achieved", "A second, by when the answer came.", &legend(&names)) + &chart.svg()
    }

    fn errors(&self) -> String {
        let total = self.tally.total();
        let dropped = self.tally.arrivals().1;
        if total.failed() == 0 && dropped == 0 {
            return section("Errors by status", "None.", "");
        }
        let mut kinds: Vec<(&str, String)> =
            total.errors.keys().map(|outcome| (outcome_class(*outcome), outcome.to_string())).collect();
        let part = |(outcome, count): (&Outcome, &u64)| (outcome_class(*outcome), *count as f64);
        let bars = self.tally.slices.iter().enumerate().map(|(index, slice)| {
            let mut parts: Vec<(&str, f64)> = slice.errors.iter().map(part).collect();
            parts.push(("plan", slice.dropped as f64));
            Bar { span: self.span(index), parts }
        });
        let tips = self.tally.slices.iter().map(|slice| {
            let told: Vec<String> = slice.errors.iter().map(|(o, n)| format!("{o}: {}", count(*n))).collect();
            format!("{}; dropped: {}", told.join(", "), count(slice.dropped))
        });
        if dropped > 0 {
            kinds.push(("plan", "dropped, never sent".to_owned()));
        }
        let names: Vec<(&str, &str)> = kinds.iter().map(|(class, name)| (*class, name.as_str())).collect();
        let (bars, tips) = (bars.collect(), self.tips(tips));
        let label = "errors over time".to_owned();
        let chart = Chart { height: 170.0, format: number, bars, tips, label, ..self.over_time() };
        let note = format!("In each {}.", seconds(self.tally.slice));
        section("Errors by status", &note, &legend(&names)) + &chart.svg() + &self.error_table()
    }

    fn error_table(&self) -> String {
        let mut out = "<div class=\"scroll\"><table><tr><th>call</th><th>error</th><th>requests</th>\
                       <th>share of the call's</th></tr>"
            .to_owned();
        for (series, totals) in &self.tally.series {
            for (outcome, n) in &totals.errors {
                let all = totals.latency.len() + totals.failed();
                let _ = write!(
                    out,
                    "<tr><td>{} · {}</td><td>{outcome}</td><td>{}</td><td>{:.2} %</td></tr>",
                    series.journey,
                    series.call,
                    count(*n),
                    100.0 * *n as f64 / all as f64
                );
            }
        }
        out + "</table></div>"
    }

    fn table(&self) -> String {
        let open = self.facts.open().is_some();
        let mut out = section("By journey and call", "Latencies of good answers.", "");
        let sent = if open { "<th>p99 from sending</th>" } else { "" };
        let _ = write!(
            out,
            "<div class=\"scroll\"><table><tr><th></th><th>good</th><th>errors</th><th>good/s</th><th>p50</th>\
             <th>p95</th><th>p99</th><th>max</th>{sent}</tr>"
        );
        for row in rows(self.tally) {
            let Totals { latency, service, .. } = &row.totals;
            let whole = row.call.is_empty();
            let failed = row.totals.failed();
            let _ = write!(
                out,
                "<tr class=\"{}\"><td>{}</td><td>{}</td><td{}>{}</td><td>{}</td>",
                if whole { "whole" } else { "part" },
                if whole { row.journey } else { row.call },
                count(latency.len()),
                if failed > 0 { " class=\"some\"" } else { "" },
                count(failed),
                number(latency.len() as f64 / self.facts.span_s())
            );
            for quantile in [0.50, 0.95, 0.99, 1.0] {
                let _ = write!(out, "<td>{}</td>", cell(latency.quantile(quantile)));
            }
            if open {
                let _ = write!(out, "<td>{}</td>", cell(service.quantile(0.99)));
            }
            out.push_str("</tr>");
        }
        out + "</table></div>"
    }

    /// Nines along the axis: 0 is 0 %, 1 is 90 %, 2 is 99 %.
    fn by_percentile(&self) -> String {
        let total = self.tally.total();
        let most = total.latency.len().max(10) as f64;
        let end = most.log10().clamp(1.0, 5.0);
        let curve = |class: &'static str, histogram: &Histogram| {
            let at = |step: u32| f64::from(step) / 100.0 * end;
            let point = |x: f64| (x, histogram.quantile(1.0 - 10_f64.powf(-x)).map(ms));
            Line { class, points: (0..=100).map(at).map(point).collect() }
        };
        let marks = ["0 %", "90 %", "99 %", "99.9 %", "99.99 %", "99.999 %"];
        let half = (50_f64 / 100.0).recip().log10();
        let mut x_ticks: Vec<(f64, String)> =
            (0_u32..).map(f64::from).zip(marks.map(str::to_owned)).collect();
        x_ticks.retain(|(x, _)| *x <= end);
        x_ticks.insert(1, (half, "50 %".to_owned()));
        let chart = Chart {
            height: 230.0,
            x_end: end,
            x_ticks,
            scale: Scale::Log,
            format: ms_label,
            lines: vec![curve("plan", &total.service), curve("p99", &total.latency)],
            label: "latency by percentile".to_owned(),
            marks: Vec::new(),
            ..self.over_time()
        };
        let note = "The share of requests that was answered within a time. Where the lines part, the generator itself was \
                    late; that is charged to the run, as the people who waited would.";
        let names = [("p99", "from the moment it was due"), ("plan", "from the moment it was sent")];
        section("Latency by percentile", note, &legend(&names)) + &chart.svg()
    }

    fn in_flight(&self) -> String {
        let Some((_, most)) = self.facts.open() else { return String::new() };
        let during = (self.facts.length.as_secs_f64() / self.tally.slice.as_secs_f64()).ceil() as usize;
        let values: Vec<f64> = self.tally.slices.iter().take(during).map(|s| s.in_flight as f64).collect();
        let points: Vec<(f64, Option<f64>)> =
            self.middles().zip(values.iter().map(|value| Some(*value))).collect();
        let tips = self.tips(values.iter().map(|value| format!("at most {} at once", number(*value))));
        let lines = vec![Line { class: "p50", points }];
        let label = "requests on their way over time".to_owned();
        let chart = Chart { height: 150.0, format: number, lines, tips, label, ..self.over_time() };
        let note = format!("The most at once, in each {}; {most} are allowed.", seconds(self.tally.slice));
        section("On their way", &note, "") + &chart.svg()
    }

    pub fn over_time(&self) -> Chart {
        let marks = self.facts.marks.iter().filter(|mark| mark.from.as_secs_f64() <= self.end_s);
        let marks = marks.enumerate().map(|(index, mark)| chart::Mark {
            span: (mark.from.as_secs_f64(), mark.until.as_secs_f64().min(self.end_s)),
            name: (index + 1).to_string(),
        });
        Chart {
            height: 200.0,
            x_end: self.end_s,
            x_ticks: time_ticks(self.end_s),
            scale: Scale::Linear,
            format: number,
            lines: Vec::new(),
            bars: Vec::new(),
            dots: Vec::new(),
            marks: marks.collect(),
            tips: Vec::new(),
            label: String::new(),
        }
    }

    fn span(&self, index: usize) -> (f64, f64) {
        let width = self.tally.slice.as_secs_f64();
        (index as f64 * width, (index + 1) as f64 * width)
    }

    /// Of a slice, the part that lies in the run.
    fn covered_s(&self, index: usize) -> f64 {
        let (from, to) = self.span(index);
        to.min(self.facts.took.as_secs_f64()) - from
    }

    fn middles(&self) -> impl Iterator<Item = f64> {
        (0..self.tally.slices.len()).map(|index| {
            let (from, to) = self.span(index);
            f64::midpoint(from, to)
        })
    }

    pub fn tips(&self, texts: impl Iterator<Item = String>) -> Vec<((f64, f64), String)> {
        let told = texts.enumerate().map(|(index, text)| {
            let span = self.span(index);
            (span, format!("{:.0}–{:.0} s: {text}", span.0, span.1))
        });
        told.collect()
    }
}

fn section(title: &str, note: &str, legend: &str) -> String {
    format!("<h2>{title}</h2><p class=\"soft\">{note}</p>{legend}")
}

pub(super) fn legend(entries: &[(&str, &str)]) -> String {
    let mut out = "<div class=\"legend\">".to_owned();
    for (class, name) in entries {
        let _ = write!(out, "<span><i class=\"{class}\"></i>{name}</span>");
    }
    out + "</div>"
}

fn latency_of(slice: &Slice, wanted: &dyn Fn(&Series) -> bool) -> Histogram {
    let mut all = Histogram::default();
    let chosen = slice.latency.iter().filter(|(series, _)| wanted(series));
    chosen.for_each(|(_, histogram)| all.merge(histogram));
    all
}

pub(super) fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1_000.0
}

pub(super) fn ms_label(ms: f64) -> String {
    match ms {
        _ if ms >= 999.0 => format!("{} s", trim(ms / 1_000.0)),
        _ => format!("{} ms", trim(ms)),
    }
}

fn trim(value: f64) -> String {
    let text = format!("{value:.2}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

pub(super) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
