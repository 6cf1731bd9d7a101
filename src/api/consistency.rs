//! Consistency that a request asks for, in headers: write concern, read concern, staleness.

use std::fmt::Display;
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anabranch_crdt::ids::RegionName;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::Response;
use serde_json::Value;
use tokio::sync::OwnedSemaphorePermit;

use crate::consistency::{Asked, ConcernError, Lag, Reached, ReadConcern, WriteConcern};
use crate::error::{Error, ErrorKind};
use crate::journal::Position;

use super::error::Problem;
use super::{ApiState, serve};

pub(super) const WRITE_CONCERN: HeaderName = HeaderName::from_static("write-concern");
pub(super) const ACKED_REGIONS: HeaderName = HeaderName::from_static("acked-regions");
pub(super) const DATA_LAG: HeaderName = HeaderName::from_static("data-lag");
const READ_CONCERN: HeaderName = HeaderName::from_static("read-concern");
const MAX_STALENESS: HeaderName = HeaderName::from_static("max-staleness");

/// How long a concern is waited for when the request does not say.
const DEFAULT_WAIT: Duration = Duration::from_secs(5);

/// What a write asks of other regions, and its place to wait in.
#[derive(Debug)]
pub(super) struct Concern {
    concern: WriteConcern,
    wait: Duration,
    /// Taken before the write, because a write is not undone when there is no place left.
    _place: Option<OwnedSemaphorePermit>,
}

impl Concern {
    /// Reads and checks what a write asks for; to be called before it is made.
    pub(super) fn of(state: &ApiState, headers: &HeaderMap) -> Result<Self, Problem> {
        let asked: Asked<WriteConcern> =
            read(headers, &WRITE_CONCERN, "bad_write_concern")?.unwrap_or_default();
        let wait = within(&asked, state, "bad_write_concern")?;
        let place = state.consistency().admit(&asked.concern)?;
        Ok(Self { concern: asked.concern, wait, _place: place })
    }

    /// Waits until the write is where it is wanted, and tells in the reply where it is. If it is
    /// not there in time the status becomes 202: it is written, and stays so.
    pub(super) async fn fulfil(
        self,
        state: &ApiState,
        position: &Arc<Position>,
        response: &mut Response,
    ) {
        let Some(reached) = self.wait(state, position).await else {
            let own = state.0.region_header.clone();
            response.headers_mut().insert(ACKED_REGIONS, own);
            return;
        };
        let headers = response.headers_mut();
        headers.insert(ACKED_REGIONS, header(&names(&reached.regions)));
        let outcome = if reached.met { "met" } else { "unmet" };
        headers.insert(WRITE_CONCERN, header(&format!("{}; {outcome}", self.concern)));
        if !reached.met {
            *response.status_mut() = StatusCode::ACCEPTED;
        }
    }

    /// Waits until what is durable here is where it is wanted; `None` if nothing is wanted.
    pub(super) async fn wait(&self, state: &ApiState, position: &Arc<Position>) -> Option<Reached> {
        if self.concern == WriteConcern::Local {
            return None;
        }
        let mut closing = state.closing().subscribe();
        let consistency = state.consistency();
        Some(tokio::select! {
            biased;
            // A node that shuts down tells what it knows rather than hold itself up.
            () = serve::closed(&mut closing) => {
                consistency.written(position, &self.concern, Duration::ZERO).await
            }
            reached = consistency.written(position, &self.concern, self.wait) => reached,
        })
    }
}

/// Waits, if the request wants that, until this region has what a majority has.
pub(super) async fn majority(state: &ApiState, headers: &HeaderMap) -> Result<(), Problem> {
    let asked: Option<Asked<ReadConcern>> = read(headers, &READ_CONCERN, "bad_read_concern")?;
    let Some(asked) = asked else { return Ok(()) };
    let wait = within(&asked, state, "bad_read_concern")?;
    match asked.concern {
        ReadConcern::Local => Ok(()),
        ReadConcern::Majority => {
            let mut closing = state.closing().subscribe();
            let read = tokio::select! {
                biased;
                () = serve::closed(&mut closing) => Err(shutting_down().into()),
                read = include_majority(state, wait) => read,
            };
            state.consistency().note_read(read.is_ok());
            read
        }
    }
}

fn shutting_down() -> Error {
    Error::new(ErrorKind::Unavailable, "shutting_down", "this node is shutting down")
}

async fn include_majority(state: &ApiState, wait: Duration) -> Result<(), Problem> {
    let began = Instant::now();
    let vector = state.consistency().majority(wait).await?;
    let left = wait.saturating_sub(began.elapsed());
    let Err(error) = state.documents().wait_for(&vector, left).await else { return Ok(()) };
    if error.kind() != ErrorKind::Stale {
        return Err(error.into());
    }
    let position = state.documents().position();
    let behind = position.vector.behind(&vector);
    let mut missing: Vec<String> = vector
        .iter()
        .filter(|dot| !position.vector.contains(*dot))
        .filter_map(|dot| Some(state.documents().region_of(dot.origin)?.to_string()))
        .collect();
    missing.sort_unstable();
    missing.dedup();
    let message = format!(
        "region {} lacks {behind} entries that a majority of the regions has: try again, or ask \
         another region",
        state.0.region,
    );
    let error = Error::new(ErrorKind::Stale, "majority_behind", message);
    Err(Problem::from(error)
        .with_member("behind", Value::from(behind))
        .with_member("missing_from", Value::from(missing)))
}

/// Refuses, if the request wants that, to answer from data that is too old.
pub(super) fn not_too_old(state: &ApiState, headers: &HeaderMap) -> Result<(), Problem> {
    let Some(limit) = staleness(headers)? else { return Ok(()) };
    let lag = state.consistency().lag();
    if matches!(lag, Lag::Known(lag) if lag <= limit) {
        return Ok(());
    }
    let region = state.consistency().slowest().map(|region| region.to_string());
    let what = match lag {
        Lag::Known(lag) => format!("may be {} s old", seconds(lag)),
        Lag::Unknown => "is of unknown age".to_owned(),
    };
    let message = format!(
        "what region {} wrote {what} here, and the request takes {} s",
        region.as_deref().unwrap_or("?"),
        seconds(limit),
    );
    let lag = match lag {
        Lag::Known(lag) => Value::from(lag.as_secs_f64()),
        Lag::Unknown => Value::Null,
    };
    Err(Problem::from(Error::new(ErrorKind::Stale, "too_stale", message))
        .with_member("lag", lag)
        .with_member("region", Value::from(region)))
}

/// Writes how old the data of the slowest region may be.
pub(super) fn set_lag(state: &ApiState, headers: &mut HeaderMap) {
    let lag = match state.consistency().lag() {
        Lag::Known(lag) => header(&seconds(lag)),
        Lag::Unknown => HeaderValue::from_static("Infinity"),
    };
    headers.insert(DATA_LAG, lag);
}

/// Writes a duration in seconds with three decimals, rounded up: data is never older than said.
fn seconds(duration: Duration) -> String {
    let millis = duration.as_micros().div_ceil(1_000);
    format!("{}.{:03}", millis / 1_000, millis % 1_000)
}

fn staleness(headers: &HeaderMap) -> Result<Option<Duration>, Problem> {
    let Some(text) = single(headers, &MAX_STALENESS, "bad_max_staleness")? else {
        return Ok(None);
    };
    let plain = text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    let limit = text.parse().ok().filter(|_| plain);
    let limit = limit.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    limit.map(Some).ok_or_else(|| {
        let detail =
            format!("the header 'max-staleness' is seconds such as 5 or 0.5, not '{text}'");
        Problem::bad_request("bad_max_staleness", detail)
    })
}

/// Reads a concern from its header.
fn read<C>(
    headers: &HeaderMap,
    name: &HeaderName,
    code: &'static str,
) -> Result<Option<Asked<C>>, Problem>
where
    Asked<C>: FromStr<Err = ConcernError>,
{
    let Some(text) = single(headers, name, code)? else { return Ok(None) };
    let parsed = text.parse().map(Some);
    parsed.map_err(|error| Problem::bad_request(code, format!("the header '{name}': {error}")))
}

/// Returns the text of a header that may be given once.
fn single<'a>(
    headers: &'a HeaderMap,
    name: &HeaderName,
    code: &'static str,
) -> Result<Option<&'a str>, Problem> {
    let mut values = headers.get_all(name).iter();
    let (Some(value), None) = (values.next(), values.next()) else {
        return match headers.contains_key(name) {
            false => Ok(None),
            true => Err(Problem::bad_request(code, format!("the header '{name}' is given twice"))),
        };
    };
    let text = value.to_str().map(str::trim);
    text.map(Some)
        .map_err(|_| Problem::bad_request(code, format!("the header '{name}' is ASCII text")))
}

/// Returns how long to wait.
fn within<C: Display>(
    asked: &Asked<C>,
    state: &ApiState,
    code: &'static str,
) -> Result<Duration, Problem> {
    let limit = state.limits().concern_wait;
    match asked.timeout {
        None => Ok(DEFAULT_WAIT.min(limit)),
        Some(wait) if wait <= limit => Ok(wait),
        Some(wait) => {
            let detail = format!(
                "a timeout of {} ms is longer than the limit concern_wait, {} ms",
                wait.as_millis(),
                limit.as_millis()
            );
            Err(Problem::bad_request(code, detail))
        }
    }
}

/// Writes regions as one header.
pub(super) fn names(regions: &[RegionName]) -> String {
    let names: Vec<&str> = regions.iter().map(RegionName::as_str).collect();
    names.join(", ")
}

fn header(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).expect("names of regions, numbers and plain words")
}

#[cfg(test)]
mod tests {
    use axum::response::IntoResponse;

    use super::*;

    fn headers(name: &HeaderName, values: &[&'static str]) -> HeaderMap {
        values.iter().map(|value| (name.clone(), HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn staleness_is_a_number_of_seconds() {
        let read = |value| staleness(&headers(&MAX_STALENESS, &[value])).ok().flatten();
        assert_eq!(read("5"), Some(Duration::from_secs(5)));
        assert_eq!(read(" 0.25 "), Some(Duration::from_millis(250)));
        assert_eq!(read("0"), Some(Duration::ZERO));
        for bad in ["", "-1", "5s", "1e3", "inf", "NaN", ".", "99999999999999999999999999"] {
            assert_eq!(read(bad), None, "{bad}");
        }
        assert_eq!(staleness(&HeaderMap::new()).unwrap(), None);
    }

    #[test]
    fn a_concern_that_is_given_twice_is_refused() {
        let twice = headers(&WRITE_CONCERN, &["local", "majority"]);
        let read: Result<Option<Asked<WriteConcern>>, _> =
            read(&twice, &WRITE_CONCERN, "bad_write_concern");
        assert_eq!(read.unwrap_err().into_response().status(), 400);
    }

    #[test]
    fn data_is_never_older_than_said() {
        assert_eq!(seconds(Duration::from_micros(1)), "0.001");
        assert_eq!(seconds(Duration::from_millis(61_250)), "61.250");
    }
}
