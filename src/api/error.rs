//! Errors of the HTTP edge: the one map from kinds to statuses, and their RFC 9457 bodies.
//!
//! The `type` of a problem is `urn:anabranch:error:` and its code; codes are stable.

use std::error::Error as _;

use axum::http::header::{CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::{Map, Value};

use crate::error::{Error, ErrorKind};

use super::reply;

/// Codes of [`ErrorKind::Invalid`] that mean: well-formed, but not what a document can take.
const UNPROCESSABLE: [&str; 11] = [
    "invalid_edit",
    "invalid_patch",
    "malformed_edit",
    "not_an_object",
    "not_decidable",
    "not_mergeable",
    "not_representable",
    "too_deep",
    "unfit_edit",
    "unknown_candidate",
    "unknown_heads",
];

/// Seconds after which a client is asked to try again.
const RETRY_SECONDS: HeaderValue = HeaderValue::from_static("1");

/// An error reply.
#[derive(Debug)]
pub(super) struct Problem(Box<Parts>);

#[derive(Debug)]
struct Parts {
    status: StatusCode,
    code: &'static str,
    detail: String,
    headers: HeaderMap,
    members: Map<String, Value>,
}

impl Problem {
    /// Makes a problem; `detail` says what to do.
    pub(super) fn new(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Self {
        Self(Box::new(Parts {
            status,
            code,
            detail: detail.into(),
            headers: HeaderMap::new(),
            members: Map::new(),
        }))
    }

    /// Makes a 400 problem.
    pub(super) fn bad_request(code: &'static str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, detail)
    }

    /// Makes a 422 problem.
    pub(super) fn unprocessable(code: &'static str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, code, detail)
    }

    /// Adds a header to the reply.
    #[must_use]
    pub(super) fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.0.headers.insert(name, value);
        self
    }

    /// Asks the client to try again soon.
    #[must_use]
    pub(super) fn with_retry(self) -> Self {
        self.with_header(RETRY_AFTER, RETRY_SECONDS)
    }

    /// Adds a member to the body.
    #[must_use]
    pub(super) fn with_member(mut self, name: &str, value: Value) -> Self {
        self.0.members.insert(name.to_owned(), value);
        self
    }

    /// Writes the body of the reply.
    pub(super) fn to_json(&self) -> Vec<u8> {
        let parts = &self.0;
        reply::to_json(&ProblemJson {
            r#type: format!("urn:anabranch:error:{}", parts.code),
            title: title(parts.code),
            status: parts.status.as_u16(),
            detail: &parts.detail,
            code: parts.code,
            members: &parts.members,
        })
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        let status = status(error.kind(), error.code());
        if status == StatusCode::INTERNAL_SERVER_ERROR {
            let cause = error.source().map(ToString::to_string);
            tracing::error!(code = error.code(), %error, cause, "request failed");
        }
        let problem = Self::new(status, error.code(), error.to_string());
        match error.kind() {
            ErrorKind::Overloaded | ErrorKind::Stale | ErrorKind::Unavailable => {
                problem.with_retry()
            }
            ErrorKind::Invalid
            | ErrorKind::Forbidden
            | ErrorKind::NotFound
            | ErrorKind::Gone
            | ErrorKind::Conflict
            | ErrorKind::Precondition
            | ErrorKind::TooLarge
            | ErrorKind::Corrupt
            | ErrorKind::Internal => problem,
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let body = self.to_json();
        let mut response = (self.0.status, body).into_response();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.extend(self.0.headers);
        response
    }
}

fn status(kind: ErrorKind, code: &str) -> StatusCode {
    match kind {
        ErrorKind::Invalid if UNPROCESSABLE.contains(&code) => StatusCode::UNPROCESSABLE_ENTITY,
        ErrorKind::Invalid => StatusCode::BAD_REQUEST,
        ErrorKind::Forbidden => StatusCode::FORBIDDEN,
        ErrorKind::NotFound => StatusCode::NOT_FOUND,
        ErrorKind::Gone => StatusCode::GONE,
        ErrorKind::Conflict => StatusCode::CONFLICT,
        ErrorKind::Precondition => StatusCode::PRECONDITION_FAILED,
        ErrorKind::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        ErrorKind::Overloaded => StatusCode::TOO_MANY_REQUESTS,
        ErrorKind::Stale | ErrorKind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        ErrorKind::Corrupt | ErrorKind::Internal => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// Turns `document_not_found` into `Document not found`.
fn title(code: &str) -> String {
    let mut words = code.replace('_', " ");
    if let Some(first) = words.get_mut(..1) {
        first.make_ascii_uppercase();
    }
    words
}

#[derive(Serialize)]
struct ProblemJson<'a> {
    r#type: String,
    title: String,
    status: u16,
    detail: &'a str,
    code: &'a str,
    #[serde(flatten)]
    members: &'a Map<String, Value>,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn problem_has_the_members_of_rfc_9457_and_its_own() {
        let problem = Problem::new(StatusCode::NOT_FOUND, "document_not_found", "no 'a/b' here")
            .with_member("behind", json!(3));
        let body: Value = serde_json::from_slice(&problem.to_json()).unwrap();
        let expected = json!({
            "type": "urn:anabranch:error:document_not_found",
            "title": "Document not found",
            "status": 404,
            "detail": "no 'a/b' here",
            "code": "document_not_found",
            "behind": 3,
        });
        assert_eq!(body, expected);
    }

    #[test]
    fn problem_reply_has_its_type_and_headers() {
        let response = Problem::new(StatusCode::TOO_MANY_REQUESTS, "overloaded", "later")
            .with_retry()
            .into_response();
        assert_eq!(response.status(), 429);
        assert_eq!(response.headers()[CONTENT_TYPE], "application/problem+json");
        assert_eq!(response.headers()[RETRY_AFTER], "1");
    }

    #[test]
    fn every_kind_has_its_status() {
        for (kind, expected, retried) in [
            (ErrorKind::Invalid, 400, false),
            (ErrorKind::Forbidden, 403, false),
            (ErrorKind::NotFound, 404, false),
            (ErrorKind::Gone, 410, false),
            (ErrorKind::Conflict, 409, false),
            (ErrorKind::Precondition, 412, false),
            (ErrorKind::TooLarge, 413, false),
            (ErrorKind::Overloaded, 429, true),
            (ErrorKind::Stale, 503, true),
            (ErrorKind::Unavailable, 503, true),
            (ErrorKind::Corrupt, 500, false),
            (ErrorKind::Internal, 500, false),
        ] {
            let response = Problem::from(Error::new(kind, "some_code", "x")).into_response();
            assert_eq!(response.status().as_u16(), expected, "{kind:?}");
            assert_eq!(response.headers().contains_key(RETRY_AFTER), retried, "{kind:?}");
        }
        let unfit = Error::new(ErrorKind::Invalid, "not_an_object", "x");
        assert_eq!(Problem::from(unfit).into_response().status(), 422);
    }
}
