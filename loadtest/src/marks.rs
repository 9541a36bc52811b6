//! What happened while a run went on, as whoever did it wrote it down: drawn over the plots, so that a reader sees what
//! the latency has to do with it.
use std::path::Path;
use std::time::Duration;

use chrono::{DateTime, Utc};

/// More would hide the plots.
const MOST: usize = 200;

/// A moment or a span.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark {
    /// Since the run began.
    pub from: Duration,
    /// The end of a span; the same as `from` for a moment.
    pub until: Duration,
    /// What happened.
    pub label: String,
}

impl Mark {
    /// Whether it has a length.
    pub fn is_span(&self) -> bool {
        self.until > self.from
    }
}

/// Reads a file of marks; those from before the run are left out.
pub fn read(file: &Path, begun: DateTime<Utc>) -> Result<Vec<Mark>, String> {
    parse(&std::fs::read_to_string(file).map_err(|error| error.to_string())?, begun)
}

/// Lines of `UNIX_MILLIS<TAB>LABEL` or `FROM-UNTIL<TAB>LABEL`, in any order.
pub fn parse(text: &str, begun: DateTime<Utc>) -> Result<Vec<Mark>, String> {
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let read = |(index, line)| mark(line, begun).ok_or_else(|| format!("line {} is no mark", index + 1));
    let mut marks: Vec<Mark> =
        lines.map(read).filter_map(Result::transpose).collect::<Result<_, String>>()?;
    marks.sort_by_key(|mark| (mark.from, mark.until));
    marks.truncate(MOST);
    Ok(marks)
}

/// `None` if it makes no sense, `Some(None)` if it was over before the run began.
fn mark(line: &str, begun: DateTime<Utc>) -> Option<Option<Mark>> {
    let (when, label) = line.split_once('\t')?;
    let (from, until) = when.split_once('-').unwrap_or((when, when));
    let (from, until): (u64, u64) = (from.trim().parse().ok()?, until.trim().parse().ok()?);
    if until < from {
        return None;
    }
    let begun = Duration::from_micros(begun.timestamp_micros().try_into().ok()?);
    let since = |millis| Duration::from_millis(millis).checked_sub(begun);
    let label = label.trim().to_owned();
    Some(since(until).map(|until| Mark { from: since(from).unwrap_or_default(), until, label }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn begun() -> DateTime<Utc> {
        DateTime::from_timestamp_micros(1_700_000_000_000_400).expect("a moment")
    }

    #[test]
    fn moments_and_spans_are_read_and_put_in_order() {
        let text = "1700000002500-1700000002530\twindow 1\n\n1700000001000\t shard 4 <starts> \n";
        let marks = parse(text, begun()).expect("marks");
        let told: Vec<(u128, u128, &str)> =
            marks.iter().map(|m| (m.from.as_micros(), m.until.as_micros(), m.label.as_str())).collect();
        assert_eq!(told, [(999_600, 999_600, "shard 4 <starts>"), (2_499_600, 2_529_600, "window 1")]);
        assert_eq!(marks.iter().map(Mark::is_span).collect::<Vec<_>>(), [false, true]);
    }

    #[test]
    fn what_was_over_before_the_run_is_left_out_and_what_reached_into_it_is_cut() {
        let marks = parse("1600000000000\tlong ago\n1600000000000-1700000001000\tup to then", begun());
        let marks = marks.expect("marks");
        assert_eq!((marks.len(), marks[0].from, marks[0].label.as_str()), (1, Duration::ZERO, "up to then"));
    }

    #[test]
    fn a_line_that_is_no_mark_is_named() {
        for line in ["no tab", "x\tlabel", "-5\tlabel", "20-10\tlabel"] {
            let refused = parse(&format!("1700000001000\tgood\n{line}"), begun()).expect_err(line);
            assert_eq!(refused, "line 2 is no mark", "{line}");
        }
    }
}
