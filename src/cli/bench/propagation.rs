//! Propagation: from the start of a write in one region to the answer of the other that has it.
//!
//! # Why not poll
//! Each write hands back a session token, and a read in the other region that carries the token is
//! answered as soon as that region has the write. So a reader is woken rather than kept asking,
//! which on a shared machine would slow down what is measured, and the figure is what a user gets
//! who writes here and reads there: it includes both requests.

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use tokio::task::JoinSet;

use super::load::{Measured, Plan, ask, histogram, merge, record, unreachable};
use super::request::{SLOT, Template, document, document_path, number, one_field};
use super::wire::Wire;
use crate::cli::Failure;

/// Writes at a steady rate in one region, whatever the answers take, and reads in the other.
pub(super) async fn open_loop(
    from: &str,
    to: &str,
    collection: &str,
    plan: Plan,
    rate: u64,
) -> Result<Measured, Failure> {
    let mut pairs = Vec::new();
    for key in 0..plan.connections {
        pairs.push(Pair::connect(from, to, collection, key).await?);
    }
    let every = Duration::from_secs(1) / u32::try_from(rate.max(1)).unwrap_or(u32::MAX);
    let start = Instant::now();
    let clock =
        Clock { start, begin: start + plan.warmup, end: start + plan.warmup + plan.measured };
    let mut workers = JoinSet::new();
    for (turn, pair) in (0_u32..).zip(pairs) {
        let turns = u32::try_from(plan.connections).unwrap_or(u32::MAX);
        workers.spawn(pair.run(clock, every * turn, every * turns));
    }
    let latency = merge(workers).await?;
    let rate = latency.len() as f64 / plan.measured.as_secs_f64();
    Ok(Measured { rate, latency })
}

#[derive(Debug, Clone, Copy)]
struct Clock {
    start: Instant,
    begin: Instant,
    end: Instant,
}

/// A writer in one region and a reader in the other, with a document of their own.
#[derive(Debug)]
struct Pair {
    from: Wire,
    to: Wire,
    path: String,
    patch: Template,
    written: u64,
}

impl Pair {
    async fn connect(from: &str, to: &str, collection: &str, key: u64) -> Result<Self, Failure> {
        let digits = String::from_utf8(number(key)).map_err(|e| Failure::General(e.to_string()))?;
        let path = document_path(collection).replace(SLOT, &digits);
        let mut pair = Self {
            from: Wire::connect(from).await.map_err(|error| unreachable(from, &error))?,
            to: Wire::connect(to).await.map_err(|error| unreachable(to, &error))?,
            patch: Template::new("PATCH", &path, "application/merge-patch+json", &one_field()),
            path,
            written: 0,
        };
        pair.create().await?;
        Ok(pair)
    }

    /// Makes the document and waits, for as long as regions may need to find each other, until it
    /// is there on the other side.
    async fn create(&mut self) -> Result<(), Failure> {
        let mut put = Template::new("PUT", &self.path, "application/json", &document());
        let request = put.fill(&[0]).to_vec();
        let token = write(&mut self.from, &request).await?;
        let patience = Instant::now() + FIRST_CONTACT;
        loop {
            match self.read(&token).await {
                Err(Failure::General(message)) if Instant::now() > patience => {
                    return Err(Failure::Unreachable(format!(
                        "the other region did not get a write within {FIRST_CONTACT:?}: {message}"
                    )));
                }
                Err(Failure::General(_)) => tokio::time::sleep(Duration::from_millis(50)).await,
                outcome => return outcome,
            }
        }
    }

    async fn run(
        mut self,
        clock: Clock,
        offset: Duration,
        every: Duration,
    ) -> Result<Histogram<u64>, Failure> {
        let mut latency = histogram()?;
        let mut due = clock.start + offset;
        while due < clock.end {
            tokio::time::sleep_until(due.into()).await;
            let now = Instant::now();
            // Who could not start in time has waited, and that counts; the timer's own slack of
            // a millisecond does not.
            let begun = if now > due + TIMER_SLACK { due } else { now };
            self.round().await?;
            if due >= clock.begin {
                record(&mut latency, begun.elapsed());
            }
            due += every;
        }
        Ok(latency)
    }

    async fn round(&mut self) -> Result<(), Failure> {
        self.written += 1;
        let token = write(&mut self.from, self.patch.fill(&[self.written])).await?;
        self.read(&token).await
    }

    /// Reads on the other side, and makes sure that the answer has the last write.
    async fn read(&mut self, token: &str) -> Result<(), Failure> {
        let request =
            format!("GET {} HTTP/1.1\r\nHost: bench\r\nSession-Token: {token}\r\n\r\n", self.path);
        let answer = ask(&mut self.to, request.as_bytes()).await?;
        let expected = number(self.written);
        let body = self.to.body(answer);
        if body.windows(expected.len()).any(|window| window == expected) {
            return Ok(());
        }
        Err(Failure::General("the other region answered without the write it was asked for".into()))
    }
}

async fn write(wire: &mut Wire, request: &[u8]) -> Result<String, Failure> {
    let answer = ask(wire, request).await?;
    wire.header(answer, "session-token")
        .map(str::to_owned)
        .ok_or_else(|| Failure::General("the node answered a write without a token".to_owned()))
}

/// How long two regions may take to connect.
const FIRST_CONTACT: Duration = Duration::from_secs(20);

const TIMER_SLACK: Duration = Duration::from_millis(2);
