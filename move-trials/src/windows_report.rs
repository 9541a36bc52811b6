//! Windows as a section of `docs/figures.md`.

use crate::Problem;
use crate::windows::{PHASES, Window};
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

const BEGIN: &str = "<!-- written by `make move-windows` -->";
const END: &str = "<!-- until here -->";
/// Replicas from which on a commit waits for one of them.
const SYNCHRONOUS_FROM: u16 = 2;
/// The goals, p99 in milliseconds: of a window without synchronous standbys and with, and of what the comparison adds.
const GOAL: f64 = 100.0;
const GOAL_SYNCHRONOUS: f64 = 250.0;
const GOAL_PIN: f64 = 10.0;
/// Where the phase of the comparison stands in [`PHASES`].
const PIN: usize = 3;

/// The whole section, from all windows that were written down.
pub(crate) fn text(windows: &[Window], rate: f64) -> String {
    let built = if windows.iter().any(|window| window.debug) { "debug" } else { "release" };
    let mut text = format!(
        "`make move-windows`, {}, on {}; tools built as {built}. Moves of 64 buckets under {rate} operations a second, half \
         of them on the range; windows in ms, p50 / p99 / max (of fewer than 100 windows p99 is the max).\n\n",
        today(),
        machine()
    );
    let mut kinds: Vec<(u16, bool)> = windows.iter().map(|window| (window.replicas, window.back)).collect();
    kinds.sort_unstable();
    kinds.dedup();
    let of = |(replicas, back): (u16, bool)| -> Vec<&Window> {
        windows.iter().filter(|window| (window.replicas, window.back) == (replicas, back)).collect()
    };
    text += "| replicas | way | windows | window | p99 goal | met | pin p99 ≤ 10 | rows | load average |\n\
             |---|---|--:|--:|--:|---|---|--:|--:|\n";
    for kind in &kinds {
        text += &goals(kind.0, way(kind.1), &of(*kind));
        if kind.1 {
            let both: Vec<&Window> = windows.iter().filter(|window| window.replicas == kind.0).collect();
            text += &goals(kind.0, "both", &both);
        }
    }
    text += "\n| parts of it, p50 / p99 / max |";
    for (phase, _) in PHASES {
        let _ = write!(text, " {phase} |");
    }
    text += "\n|---|--:|--:|--:|--:|--:|--:|--:|\n";
    for kind in &kinds {
        let _ = write!(text, "| {} |", named(*kind));
        for phase in 0..PHASES.len() {
            let _ = write!(text, " {} |", three(&of(*kind), |window| window.phases[phase]));
        }
        text.push('\n');
    }
    text += "\n| what clients of the range saw, p50 / p99 / max | longest gap | as long before | slowest operation | as long \
             before | operations a window | failed | windows undone |\n|---|--:|--:|--:|--:|--:|--:|--:|\n";
    for kind in &kinds {
        text += &clients(*kind, &of(*kind));
    }
    text
}

fn goals(count: u16, way: &str, windows: &[&Window]) -> String {
    let goal = if count < SYNCHRONOUS_FROM { GOAL } else { GOAL_SYNCHRONOUS };
    let met = |of: fn(&Window) -> f64, goal| if quantile(windows, 0.99, of) <= goal { "yes" } else { "no" };
    let loads = windows.iter().map(|window| window.load_average);
    let (least, most) =
        loads.fold((f64::MAX, 0.0_f64), |(least, most), load| (least.min(load), most.max(load)));
    let rows: BTreeSet<i64> = windows.iter().map(|window| window.rows).collect();
    format!(
        "| {} | {} | {} | {} | {goal:.0} | {} | {} | {} | {least:.1}–{most:.1} |\n",
        replicas(count),
        way,
        windows.len(),
        three(windows, |window| window.window),
        met(|window| window.window, goal),
        met(|window| window.phases[PIN], GOAL_PIN),
        rows.last().copied().unwrap_or_default(),
    )
}

fn clients(kind: (u16, bool), windows: &[&Window]) -> String {
    let touched: usize = windows.iter().map(|window| window.touched).sum();
    format!(
        "| {} | {} | {} | {} | {} | {:.0} | {} | {} |\n",
        named(kind),
        three(windows, |window| window.gap),
        three(windows, |window| window.gap_before),
        three(windows, |window| window.slowest),
        three(windows, |window| window.slowest_before),
        touched as f64 / windows.len().max(1) as f64,
        windows.iter().map(|window| window.failed).sum::<usize>(),
        windows.iter().map(|window| window.undone).sum::<usize>(),
    )
}

fn named((count, back): (u16, bool)) -> String {
    format!("{}, {}", replicas(count), way(back))
}

fn replicas(count: u16) -> String {
    if count < SYNCHRONOUS_FROM {
        format!("{count}, asynchronous")
    } else {
        format!("{count}, any 1 synchronous")
    }
}

fn way(back: bool) -> &'static str {
    if back { "back" } else { "there" }
}

fn three(windows: &[&Window], of: impl Fn(&Window) -> f64 + Copy) -> String {
    let [p50, p99, max] = [0.5, 0.99, 1.0].map(|share| quantile(windows, share, of));
    format!("{p50:.0} / {p99:.0} / {max:.0}")
}

/// The smallest value that this share of the windows does not exceed.
fn quantile(windows: &[&Window], share: f64, of: impl Fn(&Window) -> f64) -> f64 {
    let mut values: Vec<f64> = windows.iter().map(|window| of(window)).collect();
    values.sort_by(f64::total_cmp);
    let rank = (values.len() as f64 * share).ceil() as usize;
    values.get(rank.saturating_sub(1)).copied().unwrap_or_default()
}

/// Puts the text between the marks of the document.
pub(crate) fn write(path: &Path, text: &str) -> Result<(), Problem> {
    let old = fs::read_to_string(path)?;
    let (head, rest) = old.split_once(BEGIN).ok_or("the document has no mark where windows begin")?;
    let (_, tail) = rest.split_once(END).ok_or("the document has no mark where windows end")?;
    Ok(fs::write(path, format!("{head}{BEGIN}\n{text}{END}{tail}"))?)
}

#[expect(clippy::disallowed_methods, reason = "a report carries the date on which it was made")]
fn today() -> String {
    chrono::Utc::now().format("%Y-%m-%d").to_string()
}

fn machine() -> String {
    let cpus = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpus.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    format!("{cores} cores of {}", model.map_or("an unknown processor", |(_, name)| name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_values_that_were_seen() {
        let windows: Vec<Window> =
            (1..=40).map(|n| Window { window: f64::from(n), ..Window::default() }).collect();
        let windows: Vec<&Window> = windows.iter().collect();
        assert_eq!(three(&windows, |window| window.window), "20 / 40 / 40");
        assert_eq!(three(&[], |window| window.window), "0 / 0 / 0");
    }

    #[test]
    fn the_comparison_is_the_phase_that_ends_with_pinned_snapshots() {
        assert_eq!(PHASES[PIN].0, "pin");
    }
}
