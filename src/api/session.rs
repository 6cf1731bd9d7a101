//! What a request wants its answer to reflect, whatever it asks for: its session token, a majority
//! of the regions, data that is not too old. It is answered from such a state, or told why not.

use std::time::Duration;

use anabranch_crdt::token;
use anabranch_crdt::version::VersionVector;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::Response;
use serde_json::Value;

use crate::error::ErrorKind;

use super::error::Problem;
use super::reply::SESSION_TOKEN;
use super::{ApiState, consistency, reply, request};

/// Lowers the bound of the wait; milliseconds.
const SESSION_WAIT: HeaderName = HeaderName::from_static("session-wait");

/// Waits until this region has what the request wants its answer to reflect.
pub(super) async fn catch_up(state: &ApiState, headers: &HeaderMap) -> Result<(), Problem> {
    catch_up_with_token(state, headers).await?;
    consistency::majority(state, headers).await?;
    consistency::not_too_old(state, headers)
}

/// Waits until this region has what the request's session token includes.
async fn catch_up_with_token(state: &ApiState, headers: &HeaderMap) -> Result<(), Problem> {
    if !headers.contains_key(SESSION_TOKEN) {
        return Ok(());
    }
    let vector = wanted(headers)?;
    let bound = bound(headers, state.limits().session_wait)?;
    match state.documents().wait_for(&vector, bound).await {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == ErrorKind::Stale => {
            let behind = state.documents().position().vector.behind(&vector);
            Err(Problem::from(error).with_member("behind", Value::from(behind)))
        }
        Err(error) => Err(error.into()),
    }
}

/// Adds the session token to a refusal that tells what is in this region: a client that goes on
/// elsewhere must see no older state there. Not where this region is behind the client's own
/// token, which a client that keeps only the latest one would lose.
pub(super) fn complete(state: &ApiState, asked: Option<&HeaderValue>, response: &mut Response) {
    let tells = matches!(
        response.status(),
        StatusCode::NOT_FOUND | StatusCode::CONFLICT | StatusCode::PRECONDITION_FAILED
    );
    if !tells || response.headers().contains_key(SESSION_TOKEN) {
        return;
    }
    let position = state.documents().position();
    let included = |token: &HeaderValue| {
        let vector = token.to_str().ok().and_then(|token| token::decode(token).ok());
        vector.is_some_and(|vector| position.vector.includes(&vector))
    };
    if asked.is_none_or(included) {
        reply::set_session(response.headers_mut(), &position);
    }
}

/// Reads a token.
pub(super) fn vector(token: &str) -> Result<VersionVector, Problem> {
    token::decode(token).map_err(|error| bad_token(&error.to_string()))
}

/// Reads the tokens of a request; several mean everything that any of them includes.
fn wanted(headers: &HeaderMap) -> Result<VersionVector, Problem> {
    if headers.get_all(SESSION_TOKEN).iter().any(|value| value.to_str().is_err()) {
        return Err(bad_token("a session token is ASCII text"));
    }
    let mut wanted = VersionVector::new();
    for token in request::elements(headers, &SESSION_TOKEN) {
        wanted.merge(&vector(token)?);
    }
    Ok(wanted)
}

fn bound(headers: &HeaderMap, limit: Duration) -> Result<Duration, Problem> {
    let Some(value) = headers.get(SESSION_WAIT) else { return Ok(limit) };
    let asked = value.to_str().ok().and_then(|text| text.trim().parse().ok());
    let asked = asked.map(Duration::from_millis).ok_or_else(|| {
        let detail = "the Session-Wait header is a number of milliseconds";
        Problem::bad_request("bad_session_wait", detail)
    })?;
    Ok(asked.min(limit))
}

fn bad_token(detail: &str) -> Problem {
    Problem::bad_request("bad_session_token", detail)
}

#[cfg(test)]
mod tests {
    use axum::response::IntoResponse;

    use super::*;

    fn check_bound(header: &'static str, expected: Option<u64>) {
        let mut headers = HeaderMap::new();
        headers.insert(SESSION_WAIT, HeaderValue::from_static(header));
        let bound = bound(&headers, Duration::from_secs(5)).ok();
        assert_eq!(bound, expected.map(Duration::from_millis), "{header}");
    }

    #[test]
    fn wait_is_lowered_and_never_raised() {
        assert_eq!(bound(&HeaderMap::new(), Duration::MAX).ok(), Some(Duration::MAX));
        check_bound("0", Some(0));
        check_bound("250", Some(250));
        check_bound("60000", Some(5_000));
        check_bound("-1", None);
        check_bound("1s", None);
        check_bound("", None);
    }

    #[test]
    fn tokens_that_are_no_text_are_refused() {
        let mut headers = HeaderMap::new();
        headers.insert(SESSION_TOKEN, HeaderValue::from_bytes(b"\xff").unwrap());
        let problem = wanted(&headers).unwrap_err();
        assert_eq!(problem.into_response().status(), 400);
    }
}
