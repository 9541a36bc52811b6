//! What each metric is, told to whoever scrapes, from the very tables of `docs/metrics.md`: the page is the one list.
const PAGE: &str = include_str!("../../docs/metrics.md");

struct Row {
    name: &'static str,
    kind: &'static str,
    what: &'static str,
}

/// Gives every documented metric its help text. Once, after the recorder is installed.
pub fn describe() {
    for Row { name, kind, what } in PAGE.lines().filter_map(row) {
        let help = plain(what);
        match kind {
            "counter" => metrics::describe_counter!(name, help),
            "gauge" => metrics::describe_gauge!(name, help),
            _ => metrics::describe_histogram!(name, help),
        }
    }
}

/// `` | `name` | type | labels | what | ``
fn row(line: &'static str) -> Option<Row> {
    let cells: Vec<&str> = line.trim().trim_matches('|').split('|').map(str::trim).collect();
    let [name, kind, _labels, what] = cells[..] else { return None };
    let name = name.strip_prefix('`')?.strip_suffix('`')?;
    Some(Row { name, kind, what })
}

/// Without the marks of Markdown: of a link its text.
fn plain(what: &str) -> String {
    let mut pieces = what.split("](");
    let mut text = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        text.push_str(piece.split_once(')').map_or(piece, |(_, after)| after));
    }
    text.replace(['`', '['], "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_has_a_type_and_a_text() {
        let rows: Vec<Row> = PAGE.lines().filter_map(row).collect();
        let listed = PAGE.lines().filter(|line| line.starts_with("| `tessera_")).count();
        assert!(rows.len() >= 25 && rows.len() == listed, "{} of {listed} rows are read", rows.len());
        for Row { name, kind, what } in rows {
            assert!(["counter", "gauge", "histogram"].contains(&kind), "{name} is a {kind}");
            assert_eq!(kind == "counter", name.ends_with("_total"), "{name} is a {kind}");
            assert!(what.len() > 10, "{name}: {what}");
        }
    }

    #[test]
    fn markdown_becomes_text() {
        assert_eq!(
            plain("1 while it is `one` that it [serves](a.md#b) (now)"),
            "1 while it is one that it serves (now)"
        );
    }
}
