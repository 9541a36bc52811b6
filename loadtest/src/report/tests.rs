use std::time::Instant;

use super::*;
use crate::record::{Recorder, Sample, Series};

const VERIFY: Series = Series { journey: "open-loop", call: "verify" };

fn facts(kind: Kind) -> Facts {
    Facts {
        command: "loadtest <x> & \"y\"".to_owned(),
        nodes: vec!["http://127.0.0.1:3002".to_owned()],
        begun: DateTime::UNIX_EPOCH,
        length: Duration::from_secs(3),
        took: Duration::from_secs(3),
        load_average: ["0.10".to_owned(), "0.20".to_owned()],
        cores: 2,
        generator_cpu: Duration::from_millis(300),
        kind,
        marks: Vec::new(),
    }
}

fn open() -> Kind {
    Kind::Open { rate_per_s: 2.0, in_flight: 7 }
}

fn recorder() -> (Recorder, Instant) {
    let recorder = Recorder::new();
    let start = recorder.start();
    (recorder, start)
}

fn sample(due: Instant, took_ms: u64, outcome: Outcome) -> Sample {
    Sample { series: VERIFY, due, sent: due, ended: due + Duration::from_millis(took_ms), outcome }
}

#[test]
fn a_report_says_what_was_not_sent_and_what_failed() {
    let (recorder, start) = recorder();
    recorder.arrived(start, true, 1);
    recorder.arrived(start, false, 7);
    recorder.record(&sample(start, 12, Outcome::Good));
    recorder.record(&sample(start, 1, Outcome::Status(503)));
    let (facts, tally) = (facts(open()), recorder.tally());
    for report in [text(&facts, &tally), html(&facts, &tally)] {
        assert!(report.contains("1 (50.0 %) were dropped, since 7 were on their way"), "{report}");
        assert!(report.contains("1 of 2 requests failed (50.00 %): 1 × 503"), "{report}");
        assert!(report.contains("12.0 ms"), "{report}");
    }
}

#[test]
fn a_page_is_one_file_without_script_and_without_foreign_addresses() {
    let (recorder, start) = recorder();
    recorder.record(&sample(start, 12, Outcome::Good));
    for kind in [open(), Kind::Closed { users: 3 }] {
        let page = html(&facts(kind), &recorder.tally());
        let own = page.replace("http://127.0.0.1:3002", "");
        for foreign in ["http", "<script", "<link", "@import", "url(", "src="] {
            assert!(!own.contains(foreign), "{foreign}");
        }
        assert!(page.contains("&lt;x&gt; &amp; &quot;y&quot;"), "the command is text");
    }
}

#[test]
fn nothing_at_all_still_is_a_report() {
    let (recorder, _) = recorder();
    for kind in [open(), Kind::Closed { users: 3 }] {
        let (facts, tally) = (facts(kind), recorder.tally());
        assert!(!html(&facts, &tally).contains("NaN") && !html(&facts, &tally).contains("inf"));
        assert!(text(&facts, &tally).contains("All 0 answers were good."));
    }
}

#[test]
fn numbers_are_short() {
    let told: Vec<String> = [83_u64, 9_994, 14_230, 104_900, 1_249_000, 75_000_000]
        .map(|us| duration(Duration::from_micros(us)))
        .into();
    assert_eq!(told, ["0.08 ms", "9.99 ms", "14.2 ms", "105 ms", "1.25 s", "75.00 s"]);
    assert_eq!([number(0.25), number(5.0), number(99.96), number(1234.5)], ["0.2", "5", "100.0", "1235"]);
    assert_eq!([count(0), count(9_999), count(1_234_567)], ["0", "9999", "1\u{202f}234\u{202f}567"]);
}

fn mark(from_ms: u64, until_ms: u64, label: &str) -> Mark {
    let (from, until) = (Duration::from_millis(from_ms), Duration::from_millis(until_ms));
    Mark { from, until, label: label.to_owned() }
}

#[test]
fn marks_stand_over_every_plot_of_time_and_are_listed_with_who_met_them() {
    let (recorder, start) = recorder();
    let at = |ms| start + Duration::from_millis(ms);
    recorder.record(&sample(at(500), 10, Outcome::Good));
    recorder.record(&sample(at(1_010), 45, Outcome::Good));
    recorder.record(&sample(at(1_020), 30, Outcome::Status(503)));
    let mut facts = facts(open());
    let plots = html(&facts, &recorder.tally()).matches("<svg").count();
    facts.marks = vec![mark(200, 200, "shard <4>"), mark(1_000, 1_030, "window 1")];
    let page = html(&facts, &recorder.tally());
    assert_eq!(
        page.matches("class=\"mark\"").count(),
        2 * (plots - 1),
        "all plots but the one by percentile"
    );
    assert_eq!(page.matches("<td class=\"words\">shard &lt;4&gt;</td>").count(), 1);
    let listed =
        "window 1</td><td>1.00 s</td><td>30.0 ms</td><td>2</td><td class=\"some\">1</td><td>45.0 ms</td>";
    assert!(page.contains(listed), "{page}");
    let sentence = "2 requests were on their way in one of them, p50 45.0 ms, p99 45.0 ms, slowest 45.0 ms, 1 failed. \
                    All others: p50 10.0 ms, p99 10.0 ms, slowest 10.0 ms, 0 failed.";
    assert!(text(&facts, &recorder.tally()).contains(sentence), "{}", text(&facts, &recorder.tally()));
}

#[test]
fn a_plot_of_requests_has_all_of_few_and_the_slowest_of_many() {
    let (recorder, start) = recorder();
    let drawn = |recorder: &Recorder| html(&facts(open()), &recorder.tally()).matches("h0").count();
    (0..5).for_each(|ms| recorder.record(&sample(start, ms + 1, Outcome::Good)));
    assert_eq!(drawn(&recorder), 5);
    (0..5_000).for_each(|_| recorder.record(&sample(start, 1, Outcome::Good)));
    recorder.record(&sample(start, 900, Outcome::Good));
    assert_eq!(drawn(&recorder), 8);
    assert!(!html(&facts(open()), &recorder.tally()).contains("class=\"crosses"));
    (0..5_000).for_each(|_| recorder.record(&sample(start, 1, Outcome::Timeout)));
    let page = html(&facts(open()), &recorder.tally());
    assert!(page.contains("class=\"crosses failed\"") && page.matches("l6 6").count() <= 800);
}
