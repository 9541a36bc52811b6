//! As much of the Redis protocol (RESP2) as forming a cluster takes: one command, one text or number back.

use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use crate::error::{Context, Error, Result};

const LIMIT: Duration = Duration::from_secs(2);
const LONGEST_REPLY_BYTES: usize = 1 << 20;

/// Sends one command on a connection of its own. Error replies are errors; lists are not understood.
pub(super) async fn command(port: u16, words: &[&str]) -> Result<String> {
    let exchange = tokio::time::timeout(LIMIT, exchange(port, words));
    exchange.await.could_not(format_args!("get an answer from Redis on port {port}"))?
}

async fn exchange(port: u16, words: &[&str]) -> Result<String> {
    let could_not = || format!("talk to Redis on port {port}");
    let mut stream = BufReader::new(TcpStream::connect(("127.0.0.1", port)).await.could_not(could_not())?);
    stream.get_mut().write_all(encode(words).as_bytes()).await.could_not(could_not())?;
    let mut line = String::new();
    stream.read_line(&mut line).await.could_not(could_not())?;
    match parse_head(&line) {
        Head::Text(text) => Ok(text),
        Head::Refused(text) => {
            Err(Error::new(format!("Redis on port {port} refused {}: {text}", words.join(" "))))
        }
        Head::Bulk(length) if length <= LONGEST_REPLY_BYTES => {
            let mut body = vec![0; length];
            stream.read_exact(&mut body).await.could_not(could_not())?;
            Ok(String::from_utf8_lossy(&body).into_owned())
        }
        Head::Bulk(_) | Head::Unknown => {
            Err(Error::new(format!("Redis on port {port} answered {:?}", line.trim_end())))
        }
    }
}

fn encode(words: &[&str]) -> String {
    let head = format!("*{}\r\n", words.len());
    words.iter().fold(head, |text, word| text + &format!("${}\r\n{word}\r\n", word.len()))
}

#[derive(Debug, PartialEq, Eq)]
enum Head {
    Text(String),
    Refused(String),
    Bulk(usize),
    Unknown,
}

fn parse_head(line: &str) -> Head {
    let line = line.trim_end();
    let rest = line.get(1..).unwrap_or_default().to_owned();
    match line.chars().next() {
        Some('+' | ':') => Head::Text(rest),
        Some('-') => Head::Refused(rest),
        Some('$') => rest.parse().map_or(Head::Unknown, Head::Bulk),
        _ => Head::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_a_list_of_bulk_strings() {
        assert_eq!(encode(&["CLUSTER", "MYID"]), "*2\r\n$7\r\nCLUSTER\r\n$4\r\nMYID\r\n");
    }

    #[test]
    fn replies_are_told_apart() {
        assert_eq!(parse_head("+OK\r\n"), Head::Text("OK".into()));
        assert_eq!(parse_head("-ERR no\r\n"), Head::Refused("ERR no".into()));
        assert_eq!(parse_head("$40\r\n"), Head::Bulk(40));
        assert_eq!(parse_head("$-1\r\n"), Head::Unknown);
        assert_eq!(parse_head(""), Head::Unknown);
    }
}
