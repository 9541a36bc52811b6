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
    }
}

fn open() -> Kind {
    Kind::Open { rate_per_s: 2.0, in_flight: 7 }
}

fn recorder() -> (Recorder, Instant) {
    let recorder = Recorder::new(Duration::from_secs(3));
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
