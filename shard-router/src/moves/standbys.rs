//! The standbys of a shard that takes part in a move: who they are, and what they have on their disks.

use super::site::Site;
use super::{MoveError, sql};
use std::time::{Duration, Instant};

const POLL: Duration = Duration::from_micros(500);
const FROM_THE_START: &str = "0/0";

/// The names of all standbys that stream. Refused unless those are among them that the server waits for, and as many as
/// the directory lists: one that is away now may be promoted later, without what the window is about to write.
pub(super) async fn candidates(site: &mut Site, listed: usize) -> Result<Vec<String>, MoveError> {
    let setting: String = site.one(sqlx::query_scalar(sql::SYNCHRONOUS)).await?;
    let named = names(&setting);
    let place = site.place;
    if named.iter().any(|name| name == "*") {
        return Err(MoveError::NotReady(format!(
            "{place}: synchronous_standby_names has a *, which the move's own subscription would satisfy: name the \
             standbys one by one"
        )));
    }
    let streaming = with(site, FROM_THE_START).await?;
    if let Some(missing) =
        named.iter().find(|name| !streaming.iter().any(|found| found.eq_ignore_ascii_case(name)))
    {
        return Err(MoveError::NotReady(format!("{place}: its standby {missing} does not stream")));
    }
    if streaming.len() < listed {
        let there = streaming.len();
        return Err(MoveError::NotReady(format!(
            "{place}: the directory lists {listed} replicas, and {there} standbys stream"
        )));
    }
    Ok(streaming)
}

/// A cancelled wait for a synchronous standby reports success, so the command's word is not enough: each standby that
/// streamed before the window must say itself that it has everything on its disk.
pub(super) async fn all_have(
    site: &mut Site,
    expected: &[String],
    deadline: Instant,
) -> Result<(), MoveError> {
    let position: String = site.one(sqlx::query_scalar(sql::FLUSHED)).await?;
    loop {
        let Some(missing) = first_missing(expected, with(site, &position).await?) else { return Ok(()) };
        if Instant::now() > deadline {
            return Err(MoveError::GaveUp(format!(
                "{missing}, a standby of {}, does not have it",
                site.place
            )));
        }
        tokio::time::sleep(POLL).await;
    }
}

async fn with(site: &mut Site, position: &str) -> Result<Vec<String>, MoveError> {
    site.all(sqlx::query_scalar(sql::STANDBYS).bind(position.to_owned())).await
}

/// Standbys may share a name: then as many must be found as were expected.
fn first_missing(expected: &[String], mut found: Vec<String>) -> Option<&String> {
    expected.iter().find(|name| match found.iter().position(|other| other == *name) {
        Some(at) => {
            found.swap_remove(at);
            false
        }
        None => true,
    })
}

/// The names in a `synchronous_standby_names`: `a, b`, `2 (a, b)`, `FIRST 2 (a, "b c")`, `ANY 1 (a, b)`.
fn names(setting: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut rest = setting.chars().peekable();
    while let Some(c) = rest.next() {
        match c {
            // What stood before it is a method and a number.
            '(' => names.clear(),
            '"' => {
                let mut name = String::new();
                while let Some(c) = rest.next() {
                    // Two quotes are one that belongs to the name.
                    if c == '"' && rest.next_if_eq(&'"').is_none() {
                        break;
                    }
                    name.push(c);
                }
                names.push(name);
            }
            c if c == ')' || c == ',' || c.is_whitespace() => {}
            c => {
                let mut name = String::from(c);
                while let Some(c) =
                    rest.next_if(|c| !matches!(c, '(' | ')' | ',' | '"') && !c.is_whitespace())
                {
                    name.push(c);
                }
                names.push(name);
            }
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_in_every_form() {
        assert!(names("").is_empty());
        assert_eq!(names("a, b"), ["a", "b"]);
        assert_eq!(names("2 (a,b)"), ["a", "b"]);
        assert_eq!(names("FIRST 1 (\"shard-1 (east)\", b)"), ["shard-1 (east)", "b"]);
        assert_eq!(names("any 1(a,\"x\"\"y\")"), ["a", "x\"y"]);
        assert_eq!(names("*"), ["*"]);
        assert_eq!(names("ANY 1 (a, \"*\")"), ["a", "*"]);
    }

    #[test]
    fn everybody_who_was_there_must_be_found_again() {
        let names = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(first_missing(&names("a b"), names("b c a")), None);
        assert_eq!(first_missing(&names("a b"), names("a c")), Some(&"b".to_owned()));
        assert_eq!(first_missing(&names("w w"), names("w x")), Some(&"w".to_owned()));
    }
}
