//! Building replies: the headers of documents, and JSON bodies.

use anabranch_crdt::ids::Timestamp;
use axum::body::Body;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::Response;
use bytes::Bytes;
use serde::Serialize;
use time::OffsetDateTime;

use crate::document::{Digest, Document};
use crate::journal::Position;

pub(super) const REGION: HeaderName = HeaderName::from_static("region");
pub(super) const SESSION_TOKEN: HeaderName = HeaderName::from_static("session-token");
pub(super) const CONFLICTS: HeaderName = HeaderName::from_static("conflicts");

const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// A cache may keep a reply, but asks again before it uses it: any region may write at any time.
const REVALIDATE: HeaderValue = HeaderValue::from_static("no-cache");

/// Makes a reply without a body.
pub(super) fn empty(status: StatusCode) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}

/// Makes a reply from bytes that are JSON already, without copying them.
pub(super) fn json_bytes(status: StatusCode, json: Bytes) -> Response {
    let mut response = Response::new(Body::from(json));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, JSON);
    response
}

/// Makes a 200 reply of a wire type.
pub(super) fn json(value: &impl Serialize) -> Response {
    json_bytes(StatusCode::OK, to_json(value).into())
}

/// Writes a wire type as JSON.
pub(super) fn to_json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("wire types have text keys and write to memory")
}

/// Writes a wire type as JSON behind what is in `out`.
pub(super) fn append_json(out: &mut Vec<u8>, value: &impl Serialize) {
    serde_json::to_writer(out, value).expect("wire types have text keys and write to memory");
}

/// Adds what a reply says of a document.
pub(super) fn describe(headers: &mut HeaderMap, document: &Document) {
    headers.insert(ETAG, etag(document.digest));
    headers.insert(CONFLICTS, HeaderValue::from(document.conflicts));
    headers.insert(CACHE_CONTROL, REVALIDATE);
}

/// Adds the session token.
pub(super) fn set_session(headers: &mut HeaderMap, position: &Position) {
    headers.insert(SESSION_TOKEN, session(&position.token));
}

/// Returns a session token as a header.
pub(super) fn session(token: &str) -> HeaderValue {
    HeaderValue::from_str(token).expect("session tokens are safe in headers")
}

/// Returns the entity tag of a digest as a header.
pub(super) fn etag(digest: Digest) -> HeaderValue {
    HeaderValue::from_bytes(&quoted(digest)).expect("hexadecimal digits and quotes")
}

/// Returns the entity tag of a digest as text, quotes included, as `If-Match` takes it.
pub(super) fn etag_text(digest: Digest) -> String {
    quoted(digest).iter().copied().map(char::from).collect()
}

fn quoted(digest: Digest) -> [u8; 34] {
    let hex = |nibble: u8| if nibble < 10 { b'0' + nibble } else { b'a' + nibble - 10 };
    let mut tag = [b'"'; 34];
    let digits = digest.0.iter().flat_map(|byte| [hex(byte >> 4), hex(byte & 15)]);
    tag.iter_mut().skip(1).zip(digits).for_each(|(place, digit)| *place = digit);
    tag
}

/// Writes a timestamp as RFC 3339 in UTC, with microseconds.
pub(super) fn rfc3339(at: Timestamp) -> String {
    let at =
        OffsetDateTime::from_unix_timestamp_nanos(i128::from(at.0.min(Timestamp::MAX.0)) * 1000)
            .expect("2^53 microseconds end in the year 2255");
    format!(
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:06}Z",
        at.year(),
        u8::from(at.month()),
        at.day(),
        at.hour(),
        at.minute(),
        at.second(),
        at.microsecond()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entity_tag_is_quoted_hex() {
        let mut digest = [0u8; 16];
        digest[0] = 0xab;
        digest[15] = 0x09;
        let expected = "\"ab000000000000000000000000000009\"";
        assert_eq!(etag(Digest(digest)), expected);
        assert_eq!(etag_text(Digest(digest)), expected);
    }

    #[test]
    fn timestamps_are_rfc_3339_with_microseconds() {
        assert_eq!(rfc3339(Timestamp(0)), "1970-01-01T00:00:00.000000Z");
        assert_eq!(rfc3339(Timestamp(1_700_000_000_123_456)), "2023-11-14T22:13:20.123456Z");
        assert_eq!(rfc3339(Timestamp(u64::MAX)), rfc3339(Timestamp::MAX));
    }
}
