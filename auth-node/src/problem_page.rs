//! `type` of a problem is an address that resolves: a page that says when it happens and what to do, from the very table
//! of `docs/errors.md`.
use std::sync::LazyLock;

const ERRORS: &str = include_str!("../../docs/errors.md");
const PAGE: &str = include_str!("../assets/problem.html");

struct Row {
    name: &'static str,
    status: &'static str,
    when: &'static str,
    client: &'static str,
}

static ROWS: LazyLock<Vec<Row>> = LazyLock::new(|| ERRORS.lines().filter_map(row).collect());

/// `` | `name` | status | when | what a client does | ``
fn row(line: &'static str) -> Option<Row> {
    let cells: Vec<&str> = line.trim().trim_matches('|').split('|').map(str::trim).collect();
    let [name, status, when, client] = cells[..] else { return None };
    let name = name.strip_prefix('`')?.strip_suffix('`')?;
    status.parse::<u16>().is_ok().then_some(Row { name, status, when, client })
}

/// Every problem that has a page.
pub fn names() -> Vec<&'static str> {
    ROWS.iter().map(|row| row.name).collect()
}

/// The page of a problem, if there is one of this name.
pub fn render(name: &str) -> Option<String> {
    let row = ROWS.iter().find(|row| row.name == name)?;
    let client = if row.client.is_empty() { "Nothing in particular." } else { row.client };
    let page = PAGE.replace("{name}", row.name).replace("{status}", row.status);
    Some(page.replace("{when}", &prose(row.when)).replace("{client}", &prose(client)))
}

/// Markdown's code spans, and nothing else: the table has no more.
fn prose(text: &str) -> String {
    let safe = text.replace('&', "&amp;").replace('<', "&lt;");
    let pieces = safe.split('`').enumerate();
    pieces
        .map(|(n, piece)| if n % 2 == 1 { format!("<code>{piece}</code>") } else { piece.to_owned() })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_read_and_shown() {
        assert!(names().len() >= 17, "{:?}", names());
        let page = render("forbidden").unwrap();
        assert!(page.contains("403") && !page.contains('{'), "{page}");
        assert!(render("idempotency-mismatch").unwrap().contains("<code>Idempotency-Key</code>"));
        assert!(render("name").is_none());
    }
}
