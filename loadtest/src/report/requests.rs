//! Requests one by one: what a slice of a second hides, such as a window of some ms that was marked.
use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

use super::chart::{Chart, Dots, Scale};
use super::page::{Page, escape, legend, ms, ms_label};
use super::table::cell;
use super::{Facts, Finding, count, duration, number};
use crate::histogram::Histogram;
use crate::marks::Mark;
use crate::record::{Outcome, Request, Tally};

/// Of each place on the axis so many dots are drawn, the slowest.
const DOTS: usize = 8;
/// About as many places as the plot is pixels wide.
const PLACES: f64 = 800.0;
/// Colours of calls, in the order of their names.
const COLOURS: [&str; 3] = ["p50", "good", "plan"];

/// Requests of one kind, counted.
#[derive(Default)]
struct Group {
    latency: Histogram,
    failed: u64,
}

impl Group {
    fn add(&mut self, request: &Request) {
        match request.outcome {
            Outcome::Good => self.latency.record(request.latency()),
            _ => self.failed += 1,
        }
    }

    fn of<'a>(requests: impl Iterator<Item = &'a Request>) -> Self {
        let mut some = Self::default();
        requests.for_each(|request| some.add(request));
        some
    }

    fn at(&self, quantile: f64) -> String {
        cell(self.latency.quantile(quantile))
    }
}

fn meets(request: &Request, mark: &Mark) -> bool {
    request.meets(mark.from, mark.until)
}

/// How those fared who came in a marked span, beside all others.
pub(super) fn finding(facts: &Facts, tally: &Tally) -> Option<Finding> {
    let spans: Vec<&Mark> = facts.marks.iter().filter(|mark| mark.is_span()).collect();
    if spans.is_empty() {
        return None;
    }
    let (mut inside, mut outside) = (Group::default(), Group::default());
    for request in &tally.requests {
        let within = spans.iter().any(|mark| meets(request, mark));
        (if within { &mut inside } else { &mut outside }).add(request);
    }
    let longest = spans.iter().map(|mark| mark.until - mark.from).max().unwrap_or_default();
    let text = format!(
        "{} marked spans, the longest {}: {} requests were on their way in one of them, p50 {}, p99 {}, slowest {}, \
         {} failed. All others: p50 {}, p99 {}, slowest {}, {} failed.",
        spans.len(),
        duration(longest),
        count(inside.latency.len() + inside.failed),
        inside.at(0.50),
        inside.at(0.99),
        inside.at(1.0),
        count(inside.failed),
        outside.at(0.50),
        outside.at(0.99),
        outside.at(1.0),
        count(outside.failed)
    );
    Some(Finding { bad: inside.failed > 0, text })
}

impl Page<'_> {
    /// The marks by their numbers.
    pub fn marked(&self) -> String {
        if self.facts.marks.is_empty() {
            return String::new();
        }
        let mut out = "<div class=\"scroll\"><table><tr><th>mark</th><th></th><th>at</th><th>for</th>\
                       <th>on their way</th><th>failed</th><th>p50</th><th>slowest</th></tr>"
            .to_owned();
        for (index, mark) in self.facts.marks.iter().enumerate() {
            let _ = write!(
                out,
                "<tr class=\"{}\"><td>{}</td><td class=\"words\">{}</td><td>{:.2} s</td>",
                if mark.is_span() { "" } else { "quiet" },
                index + 1,
                escape(&mark.label),
                mark.from.as_secs_f64()
            );
            let met = Group::of(self.tally.requests.iter().filter(|request| meets(request, mark)));
            let _ = match mark.is_span() {
                true => write!(
                    out,
                    "<td>{}</td><td>{}</td><td{}>{}</td><td>{}</td><td>{}</td></tr>",
                    duration(mark.until - mark.from),
                    count(met.latency.len() + met.failed),
                    if met.failed > 0 { " class=\"some\"" } else { "" },
                    count(met.failed),
                    met.at(0.50),
                    met.at(1.0)
                ),
                false => write!(out, "<td></td><td></td><td></td><td></td><td></td></tr>"),
            };
        }
        out + "</table></div>"
    }

    /// A dot for each request where they are few, for the slowest where they are many.
    pub fn every_request(&self) -> String {
        let mut places: BTreeMap<(&str, u64), Vec<&Request>> = BTreeMap::new();
        let mut failed = Vec::new();
        let width = self.over_time().x_end.max(0.001) / PLACES;
        for request in &self.tally.requests {
            let place = (seconds(request) / width) as u64;
            match request.outcome {
                Outcome::Good => places.entry((request.call, place)).or_default().push(request),
                _ => failed.push(request),
            }
        }
        let most = places.values().map(Vec::len).max().unwrap_or_default();
        let mut calls: BTreeMap<&str, Vec<(f64, f64)>> = BTreeMap::new();
        for ((call, _), mut requests) in places {
            requests.sort_by_key(|request| std::cmp::Reverse(request.latency_us));
            requests.truncate(DOTS);
            calls.entry(call).or_default().extend(requests.into_iter().map(point));
        }
        let tips = self.slowest();
        let colours = COLOURS.iter().cycle();
        let mut names: Vec<(&str, &str)> = calls.keys().zip(colours).map(|(call, c)| (*c, *call)).collect();
        let mut dots: Vec<Dots> = calls
            .into_values()
            .zip(&names)
            .map(|(points, (class, _))| Dots { class, crosses: false, points })
            .collect();
        if !failed.is_empty() {
            let points = spread(failed);
            dots.push(Dots { class: "failed", crosses: true, points });
            names.push(("failed", "failed"));
        }
        let label = "latency of single requests by the moment they were due".to_owned();
        let chart = Chart {
            height: 260.0,
            scale: Scale::Log,
            format: ms_label,
            dots,
            tips,
            label,
            ..self.over_time()
        };
        let what = match most > DOTS {
            true => format!("At each place the slowest {DOTS} of a call."),
            false => "A dot is a request, where it was due.".to_owned(),
        };
        format!("<h3>every request</h3><p class=\"soft\">{what}</p>{}{}", legend(&names), chart.svg())
    }

    fn slowest(&self) -> Vec<((f64, f64), String)> {
        let width = self.tally.slice.as_secs_f64();
        let mut slices: Vec<Group> = self.tally.slices.iter().map(|_| Group::default()).collect();
        for request in &self.tally.requests {
            if let Some(slice) = slices.get_mut((seconds(request) / width) as usize) {
                slice.add(request);
            }
        }
        let told = slices.iter().map(|slice| {
            let all = number((slice.latency.len() + slice.failed) as f64);
            format!("{all} requests, slowest {}, {} failed", slice.at(1.0), count(slice.failed))
        });
        self.tips(told)
    }
}

/// Failed ones are drawn all, unless they are so many that crosses cover crosses.
fn spread(failed: Vec<&Request>) -> Vec<(f64, f64)> {
    let step = failed.len().div_ceil(PLACES as usize).max(1);
    failed.into_iter().step_by(step).map(point).collect()
}

fn seconds(request: &Request) -> f64 {
    Duration::from_micros(request.due_us).as_secs_f64()
}

fn point(request: &Request) -> (f64, f64) {
    (seconds(request), ms(request.latency()))
}
