//! The closed loop: every connection asks, waits for the answer, and asks again.

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use tokio::task::JoinSet;

use super::request::Requests;
use super::wire::{Answer, Wire};
use crate::cli::Failure;

/// How much load, and for how long.
#[derive(Debug, Clone, Copy)]
pub(super) struct Plan {
    /// Connections at a time.
    pub(super) connections: u64,
    /// How long is measured.
    pub(super) measured: Duration,
    /// How long the load runs before that.
    pub(super) warmup: Duration,
}

/// What was measured.
#[derive(Debug, Clone)]
pub(super) struct Measured {
    /// Operations per second.
    pub(super) rate: f64,
    /// Microseconds from request to answer.
    pub(super) latency: Histogram<u64>,
}

/// Runs a closed loop against `authority`; `requests` makes those of each connection.
pub(super) async fn closed_loop(
    authority: &str,
    plan: Plan,
    requests: impl Fn(u64) -> Requests,
) -> Result<Measured, Failure> {
    let begin = Instant::now() + plan.warmup;
    let end = begin + plan.measured;
    let mut connections = JoinSet::new();
    for connection in 0..plan.connections {
        let wire =
            Wire::connect(authority).await.map_err(|error| unreachable(authority, &error))?;
        connections.spawn(drive(wire, requests(connection), begin, end));
    }
    let latency = merge(connections).await?;
    let rate = latency.len() as f64 / plan.measured.as_secs_f64();
    Ok(Measured { rate, latency })
}

/// Adds up what the connections measured.
pub(super) async fn merge(
    mut connections: JoinSet<Result<Histogram<u64>, Failure>>,
) -> Result<Histogram<u64>, Failure> {
    let mut all = histogram()?;
    while let Some(ended) = connections.join_next().await {
        let one = ended.map_err(|error| Failure::General(format!("a task broke: {error}")))??;
        all.add(one).map_err(|error| Failure::General(error.to_string()))?;
    }
    Ok(all)
}

/// Makes a histogram of microseconds, up to a minute, with three digits.
pub(super) fn histogram() -> Result<Histogram<u64>, Failure> {
    Histogram::new_with_bounds(1, 60_000_000, 3)
        .map_err(|error| Failure::General(error.to_string()))
}

/// Counts one operation.
pub(super) fn record(latency: &mut Histogram<u64>, time: Duration) {
    latency.saturating_record(u64::try_from(time.as_micros()).unwrap_or(u64::MAX));
}

/// Sends one request, which must succeed.
pub(super) async fn ask(wire: &mut Wire, request: &[u8]) -> Result<Answer, Failure> {
    let answer = wire
        .exchange(request)
        .await
        .map_err(|error| Failure::Unreachable(format!("a connection broke: {error}")))?;
    if answer.is_success() {
        return Ok(answer);
    }
    let body = String::from_utf8_lossy(wire.body(answer)).into_owned();
    let said: String = body.chars().take(300).collect();
    Err(Failure::General(format!("the node answered {}: {said}", answer.status)))
}

/// Describes a node that cannot be connected to.
pub(super) fn unreachable(authority: &str, error: &std::io::Error) -> Failure {
    Failure::Unreachable(format!("cannot reach {authority}: {error}"))
}

async fn drive(
    mut wire: Wire,
    mut requests: Requests,
    begin: Instant,
    end: Instant,
) -> Result<Histogram<u64>, Failure> {
    let mut latency = histogram()?;
    loop {
        let asked = Instant::now();
        if asked >= end {
            return Ok(latency);
        }
        ask(&mut wire, requests.next()).await?;
        if asked >= begin {
            record(&mut latency, asked.elapsed());
        }
    }
}
