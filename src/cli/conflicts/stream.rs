//! The live stream of the ledger: one connection, and what its lines say.

use std::time::Duration;

use serde_json::Value;

use super::filter::LiveFilterArgs;
use super::row::Row;
use crate::cli::Failure;
use crate::cli::http::{Call, Client, Lines, NodeArgs, target};

/// What a line of the stream says.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Event {
    /// A row is new, or has changed.
    Conflict(Box<Row>),
    /// The row of this id is gone.
    Removed(String),
    /// The reader was too slow, and events are missing.
    Lagged,
    /// The node is there.
    Heartbeat,
}

/// A subscription to the stream of one node, which can be connected again and again.
#[derive(Debug)]
pub(super) struct Subscription {
    node: NodeArgs,
    target: String,
    lines: Option<Lines>,
}

impl Subscription {
    /// Prepares a subscription; nothing is dialled yet.
    pub(super) fn new(node: &NodeArgs, filter: &LiveFilterArgs) -> Self {
        let target = target("/v1/conflicts/stream", &filter.query());
        Self { node: node.clone(), target, lines: None }
    }

    /// Connects, and is told of everything from now on.
    ///
    /// # Errors
    /// `Unreachable`, or what the node said.
    pub(super) async fn connect(&mut self) -> Result<(), Failure> {
        let call = Call::get(self.target.clone()).header("accept", Some("application/x-ndjson"))?;
        self.lines = Some(Client::new(&self.node).stream(call).await?);
        Ok(())
    }

    /// Returns the next line.
    ///
    /// # Errors
    /// `Unreachable` once the connection is lost, or if it is not made.
    pub(super) async fn next(&mut self) -> Result<Vec<u8>, Failure> {
        let closed = || Failure::Unreachable("the node closed the stream".to_owned());
        let lines = self.lines.as_mut().ok_or_else(closed)?;
        let line = lines.next(SILENCE).await.and_then(|line| line.ok_or_else(closed));
        if line.is_err() {
            self.lines = None;
        }
        line
    }
}

/// Reads a line.
///
/// # Errors
/// `Unreachable` if the node says why it ends the stream, `General` if it says nothing known.
pub(super) fn read(line: &[u8]) -> Result<Event, Failure> {
    let unexpected = || {
        let text: String = String::from_utf8_lossy(line).chars().take(200).collect();
        Failure::General(format!("unexpected line in the stream of the node: {text}"))
    };
    let mut value: Value = serde_json::from_slice(line).map_err(|_| unexpected())?;
    if value.get("heartbeat").is_some() {
        return Ok(Event::Heartbeat);
    }
    if let Some(problem) = value.get("error") {
        let text = |key: &str| problem.get(key).and_then(Value::as_str);
        let why = text("detail").or_else(|| text("title")).unwrap_or("an error without a name");
        return Err(Failure::Unreachable(why.to_owned()));
    }
    match value.get("event").and_then(Value::as_str) {
        Some("conflict") => {
            let row = value.get_mut("conflict").map(Value::take).ok_or_else(unexpected)?;
            Ok(Event::Conflict(Box::new(Row::read(row)?)))
        }
        Some("removed") => {
            let id = value.get("id").or_else(|| value.pointer("/conflict/id"));
            let id = id.and_then(Value::as_str).ok_or_else(unexpected)?;
            Ok(Event::Removed(id.to_owned()))
        }
        Some("lagged") => Ok(Event::Lagged),
        Some("heartbeat") => Ok(Event::Heartbeat),
        _ => Err(unexpected()),
    }
}

/// Returns how long to wait after the next failure.
pub(super) fn next_wait(wait: Duration) -> Duration {
    (wait * 2).min(LONGEST_WAIT)
}

/// Before the second attempt to connect.
pub(super) const FIRST_WAIT: Duration = Duration::from_millis(250);

/// Between two attempts to connect at most.
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// A node says something every 15 seconds; one that missed three beats is gone.
const SILENCE: Duration = Duration::from_secs(45);

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::samples::{conflict, row};
    use super::*;

    #[test]
    fn every_kind_of_line_is_understood() {
        let read = |value: Value| read(value.to_string().as_bytes());
        assert_eq!(
            read(json!({"event": "conflict", "conflict": conflict()})),
            Ok(Event::Conflict(Box::new(row(|_| {}))))
        );
        assert_eq!(
            read(json!({"event": "removed", "id": "3f"})),
            Ok(Event::Removed("3f".to_owned()))
        );
        assert_eq!(read(json!({"event": "lagged"})), Ok(Event::Lagged));
        assert_eq!(read(json!({"heartbeat": true, "token": "x"})), Ok(Event::Heartbeat));
        assert_eq!(
            read(json!({"error": {"detail": "this row is damaged"}})),
            Err(Failure::Unreachable("this row is damaged".to_owned()))
        );
        assert!(read(json!({"event": "party"})).is_err());
        assert!(super::read(b"<html>").is_err());
    }

    #[test]
    fn waits_grow_to_a_bound() {
        let mut wait = FIRST_WAIT;
        for _ in 0..20 {
            wait = next_wait(wait);
        }
        assert_eq!(wait, LONGEST_WAIT);
    }
}
