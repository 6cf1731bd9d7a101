//! Request bodies: read within bounds, then parsed.
//!
//! A body is bounded in bytes, in time, and together with all others that are in flight. What is
//! counted is what has arrived, so a client that announces much and sends little holds nothing.

use std::time::Duration;

use anabranch_crdt::json::{self, JsonError};
use axum::body::Body;
use axum::http::header::EXPECT;
use axum::http::{HeaderMap, StatusCode};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use hyper::body::Body as _;
use serde_json::Value;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::timeout;

use crate::settings::Limits;

use super::error::Problem;

/// How long a body may take to arrive: 8 MiB then need a line of 1.2 Mbit/s.
const SLOWEST: Duration = Duration::from_secs(60);

/// Larger bodies are parsed on a thread that may block, so that they hold up no other request.
const PARSE_INLINE: usize = 256 << 10;

/// Bytes of a refused body that are read and thrown away before the reply. A client that is still
/// sending when its connection closes would see a broken pipe and not the reason.
const DISCARD_BYTES: usize = 32 << 20;

/// How long that may take.
const DISCARD_TIME: Duration = Duration::from_secs(2);

/// Takes in request bodies.
#[derive(Debug)]
pub(super) struct Intake {
    largest: usize,
    nesting: usize,
    slowest: Duration,
    in_flight: Semaphore,
}

/// A parsed body. Its bytes count as in flight until it is dropped.
#[derive(Debug)]
pub(super) struct Payload<'a> {
    /// The JSON value.
    pub(super) value: Value,
    /// The bytes that it takes of what may be in flight.
    pub(super) held: Option<SemaphorePermit<'a>>,
}

impl Intake {
    /// Makes an intake with the limits of this node.
    pub(super) fn new(limits: &Limits) -> Self {
        let in_flight = limits.in_flight_bytes.min(Semaphore::MAX_PERMITS);
        Self {
            // A body larger than all that may be in flight could never be taken.
            largest: limits.body_bytes.min(in_flight),
            nesting: limits.nesting,
            slowest: SLOWEST,
            in_flight: Semaphore::new(in_flight),
        }
    }

    /// Reads and parses a body.
    pub(super) async fn json(&self, body: &mut Body) -> Result<Payload<'_>, Problem> {
        let (bytes, held) =
            timeout(self.slowest, self.collect(body)).await.map_err(|_| self.too_slow())??;
        let value = parse(bytes, self.nesting).await?;
        Ok(Payload { value, held })
    }

    async fn collect(
        &self,
        body: &mut Body,
    ) -> Result<(Bytes, Option<SemaphorePermit<'_>>), Problem> {
        self.check_announced(body.size_hint().lower())?;
        let mut held = None;
        let mut first = Bytes::new();
        let mut joined = BytesMut::new();
        while let Some(frame) = body.frame().await {
            let Ok(data) = frame.map_err(unreadable)?.into_data() else { continue };
            if first.len() + joined.len() + data.len() > self.largest {
                return Err(self.too_large());
            }
            self.hold(data.len(), &mut held)?;
            if first.is_empty() && joined.is_empty() {
                first = data;
                continue;
            }
            // Most bodies come in one piece, which is then not copied.
            joined.extend_from_slice(&std::mem::take(&mut first));
            joined.extend_from_slice(&data);
        }
        Ok((if joined.is_empty() { first } else { joined.freeze() }, held))
    }

    fn check_announced(&self, announced: u64) -> Result<(), Problem> {
        match usize::try_from(announced) {
            Ok(bytes) if bytes > self.in_flight.available_permits() && bytes <= self.largest => {
                Err(overloaded())
            }
            Ok(bytes) if bytes <= self.largest => Ok(()),
            Ok(_) | Err(_) => Err(self.too_large()),
        }
    }

    fn hold<'a>(
        &'a self,
        bytes: usize,
        held: &mut Option<SemaphorePermit<'a>>,
    ) -> Result<(), Problem> {
        let bytes = u32::try_from(bytes).map_err(|_| self.too_large())?;
        let permit = self.in_flight.try_acquire_many(bytes).map_err(|_| overloaded())?;
        match held {
            Some(held) => held.merge(permit),
            None => *held = Some(permit),
        }
        Ok(())
    }

    fn too_large(&self) -> Problem {
        Problem::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "body_too_large",
            format!("a request body has at most {} bytes", self.largest),
        )
    }

    fn too_slow(&self) -> Problem {
        Problem::new(
            StatusCode::REQUEST_TIMEOUT,
            "body_too_slow",
            format!("the request body did not arrive within {} s", self.slowest.as_secs()),
        )
    }
}

/// Reads what is left of a refused body, within bounds, and throws it away.
pub(super) async fn discard(headers: &HeaderMap, body: Body) {
    // Such a client has sent nothing yet, and sends nothing when it gets the reply.
    if !headers.contains_key(EXPECT) {
        discard_within(DISCARD_TIME, body).await;
    }
}

async fn discard_within(limit: Duration, mut body: Body) {
    let read = async {
        let mut left = DISCARD_BYTES;
        while let Some(Ok(frame)) = body.frame().await {
            let bytes = frame.data_ref().map_or(0, Bytes::len);
            let Some(rest) = left.checked_sub(bytes) else { return };
            left = rest;
        }
    };
    // Whether all of it came makes no difference: the reply is the same.
    let _ = timeout(limit, read).await;
}

async fn parse(bytes: Bytes, nesting: usize) -> Result<Value, Problem> {
    let parsed = if bytes.len() <= PARSE_INLINE {
        json::parse(&bytes, nesting)
    } else {
        let parsing = tokio::task::spawn_blocking(move || json::parse(&bytes, nesting));
        match parsing.await {
            Ok(parsed) => parsed,
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            Err(_) => return Err(shutting_down()),
        }
    };
    parsed.map_err(Problem::from)
}

impl From<JsonError> for Problem {
    fn from(error: JsonError) -> Self {
        let detail = error.to_string();
        match error {
            JsonError::Syntax(_) => Self::bad_request("invalid_json", detail),
            JsonError::TooDeep { .. } => Self::unprocessable("too_deep", detail),
            JsonError::NotRepresentable(_) => Self::unprocessable("not_representable", detail),
        }
    }
}

fn overloaded() -> Problem {
    Problem::new(
        StatusCode::TOO_MANY_REQUESTS,
        "too_many_bytes_in_flight",
        "too many bytes of request bodies are in flight: try again later",
    )
    .with_retry()
}

fn shutting_down() -> Problem {
    let detail = "the node is shutting down: try another one";
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, "shutting_down", detail).with_retry()
}

fn unreadable(error: axum::Error) -> Problem {
    Problem::bad_request("unreadable_body", format!("the request body cannot be read: {error}"))
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use axum::response::IntoResponse;
    use futures::{StreamExt as _, stream};

    use super::*;

    fn intake(body_bytes: usize, in_flight_bytes: usize) -> Intake {
        Intake::new(&Limits { body_bytes, in_flight_bytes, ..Limits::default() })
    }

    fn chunked(chunks: &[&'static str]) -> Body {
        let chunks: Vec<_> = chunks.iter().map(|&chunk| Ok::<_, Infallible>(chunk)).collect();
        Body::from_stream(stream::iter(chunks))
    }

    async fn collect(intake: &Intake, mut body: Body) -> Result<Bytes, u16> {
        let collected = intake.collect(&mut body).await;
        collected
            .map(|(bytes, _)| bytes)
            .map_err(|problem| problem.into_response().status().as_u16())
    }

    #[tokio::test]
    async fn body_in_one_piece_is_not_copied() {
        let bytes = Bytes::from_static(b"{\"a\":1}");
        let collected = collect(&intake(100, 100), Body::from(bytes.clone())).await.unwrap();
        assert_eq!(collected.as_ptr(), bytes.as_ptr());
    }

    #[tokio::test]
    async fn pieces_are_joined_in_order() {
        let intake = intake(8, 8);
        assert_eq!(collect(&intake, chunked(&["ab", "cd", "efgh"])).await.unwrap(), "abcdefgh");
        assert_eq!(collect(&intake, chunked(&["", "ab", "", "c"])).await.unwrap(), "abc");
        assert_eq!(collect(&intake, Body::empty()).await.unwrap(), "");
    }

    #[tokio::test]
    async fn large_body_is_refused_announced_or_not() {
        let intake = intake(8, 100);
        assert_eq!(collect(&intake, Body::from("123456789")).await, Err(413));
        assert_eq!(collect(&intake, chunked(&["12345678", "9"])).await, Err(413));
        assert_eq!(intake.in_flight.available_permits(), 100);
    }

    #[tokio::test]
    async fn body_larger_than_all_in_flight_is_too_large_and_not_too_early() {
        assert_eq!(collect(&intake(100, 8), Body::from("123456789")).await, Err(413));
    }

    #[tokio::test]
    async fn bytes_in_flight_are_bounded_and_given_back() {
        let intake = intake(8, 10);
        let mut body = chunked(&["1234", "5678"]);
        let held = intake.collect(&mut body).await.unwrap();
        assert_eq!(collect(&intake, Body::from("abc")).await, Err(429));
        assert_eq!(collect(&intake, chunked(&["abc"])).await, Err(429));
        assert_eq!(collect(&intake, Body::from("ab")).await.unwrap(), "ab");
        drop(held);
        assert_eq!(collect(&intake, Body::from("abc")).await.unwrap(), "abc");
    }

    #[tokio::test]
    async fn slow_body_is_refused() {
        let intake = Intake { slowest: Duration::from_millis(20), ..intake(8, 8) };
        let first = stream::iter([Ok::<_, Infallible>("{")]);
        let mut body = Body::from_stream(first.chain(stream::pending()));
        let problem = intake.json(&mut body).await.unwrap_err();
        assert_eq!(problem.into_response().status(), 408);
        assert_eq!(intake.in_flight.available_permits(), 8);
    }

    #[tokio::test]
    async fn broken_body_is_told() {
        let broken = stream::iter([Ok("{"), Err(std::io::Error::other("reset"))]);
        assert_eq!(collect(&intake(8, 8), Body::from_stream(broken)).await, Err(400));
    }

    #[tokio::test]
    async fn discarding_ends_with_the_body_its_bound_or_the_time() {
        let never = Duration::from_secs(600);
        discard_within(never, chunked(&["rest", "of it"])).await;
        let block = Bytes::from(vec![0; 1 << 20]);
        let flood = stream::repeat_with(move || Ok::<_, Infallible>(block.clone()));
        discard_within(never, Body::from_stream(flood)).await;
        let silent = stream::pending::<Result<Bytes, Infallible>>();
        discard_within(Duration::from_millis(20), Body::from_stream(silent)).await;
    }

    #[test]
    fn json_errors_have_their_status() {
        for (error, status) in [
            (JsonError::Syntax("line 1".into()), 400),
            (JsonError::TooDeep { limit: 128 }, 422),
            (JsonError::NotRepresentable("1e400".into()), 422),
        ] {
            assert_eq!(Problem::from(error).into_response().status().as_u16(), status);
        }
    }
}
