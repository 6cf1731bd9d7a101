use std::sync::Arc;

use anabranch_crdt::ids::DocumentId;
use axum::http::header::{ALLOW, ETAG};
use axum::response::IntoResponse;
use bytes::Bytes;
use serde_json::json;

use crate::document::Digest;
use crate::journal::Position;

use super::*;

fn headers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
    let line = |&(name, value): &(&'static str, &'static str)| {
        (HeaderName::from_static(name), HeaderValue::from_static(value))
    };
    lines.iter().map(line).collect()
}

fn document() -> Document {
    Document {
        id: DocumentId::from_bytes([7; 16]),
        digest: Digest([1; 16]),
        conflicts: 2,
        json: Bytes::from_static(b"{}"),
    }
}

fn reply_to(lines: &[(&'static str, &'static str)], written: Written) -> Response {
    let mut parts = Request::new(Body::empty()).into_parts().0;
    parts.uri = "/v1/docs/c/k%20k".parse().unwrap();
    parts.headers = headers(lines);
    written_reply(&parts.headers, parts.uri.path(), &written)
}

fn written(document: Option<Document>, created: bool) -> Written {
    let position = Position { token: "token-1".into(), ..Position::default() };
    Written { document, created, position: Arc::new(position) }
}

fn status(problem: Problem) -> u16 {
    problem.into_response().status().as_u16()
}

#[test]
fn put_takes_json_that_says_so() {
    let format = |lines: &[_]| Format::of_put(&headers(lines)).map_err(status);
    assert_eq!(format(&[("content-type", JSON)]), Ok(Format::Document));
    assert_eq!(
        format(&[("content-type", "application/json; charset=utf-8")]),
        Ok(Format::Document)
    );
    assert_eq!(format(&[]), Err(415));
    assert_eq!(format(&[("content-type", "text/plain")]), Err(415));
    assert_eq!(format(&[("content-type", MERGE_PATCH)]), Err(415));
    assert_eq!(format(&[("content-type", JSON), ("content-encoding", "gzip")]), Err(415));
}

#[test]
fn patch_goes_by_its_media_type() {
    for (media_type, format) in
        [(MERGE_PATCH, Format::MergePatch), (JSON_PATCH, Format::JsonPatch), (EDITS, Format::Edits)]
    {
        let found = Format::of_patch(&headers(&[("content-type", media_type)]));
        assert_eq!(found.map_err(status), Ok(format));
    }
    let problem = Format::of_patch(&headers(&[("content-type", JSON)])).unwrap_err();
    let response = problem.into_response();
    assert_eq!(response.status(), 415);
    assert_eq!(response.headers()[ACCEPT_PATCH], PATCHES);
    assert!(!response.headers().contains_key(ALLOW));
}

#[test]
fn roots_are_objects() {
    let object = json!({"a": 1});
    assert_eq!(Format::Document.write(object.clone()).ok(), Some(Write::Put(object.clone())));
    assert_eq!(Format::MergePatch.write(object.clone()).ok(), Some(Write::MergePatch(object)));
    for value in [json!([]), json!(null), json!(1), json!("x")] {
        assert_eq!(Format::Document.write(value.clone()).map_err(status), Err(422));
        assert_eq!(Format::MergePatch.write(value).map_err(status), Err(422));
    }
}

#[test]
fn reply_to_a_write_is_the_document() {
    let response = reply_to(&[], written(Some(document()), true));
    assert_eq!(response.status(), 201);
    assert_eq!(response.headers()[LOCATION], "/v1/docs/c/k%20k");
    assert_eq!(response.headers()[CONTENT_TYPE], JSON);
    assert_eq!(response.headers()[ETAG], reply::etag(Digest([1; 16])));
    assert_eq!(response.headers()[reply::CONFLICTS], "2");
    assert_eq!(response.headers()[reply::SESSION_TOKEN], "token-1");
    let response = reply_to(&[], written(Some(document()), false));
    assert_eq!(response.status(), 200);
    assert!(!response.headers().contains_key(LOCATION));
}

#[test]
fn reply_to_a_write_is_minimal_when_preferred() {
    let minimal = [("prefer", "return=minimal")];
    let response = reply_to(&minimal, written(Some(document()), false));
    assert_eq!(response.status(), 204);
    assert_eq!(response.headers()[PREFERENCE_APPLIED], "return=minimal");
    assert_eq!(response.headers()[ETAG], reply::etag(Digest([1; 16])));
    assert_eq!(reply_to(&minimal, written(Some(document()), true)).status(), 201);
}

#[test]
fn reply_to_a_delete_is_empty_and_has_a_token() {
    let response = reply_to(&[], written(None, false));
    assert_eq!(response.status(), 204);
    assert_eq!(response.headers()[reply::SESSION_TOKEN], "token-1");
    assert!(!response.headers().contains_key(ETAG));
}

#[test]
fn reads_answer_by_their_conditions() {
    let answered = |lines: &[_]| {
        let conditions = Conditions::parse(&headers(lines)).unwrap_or(Conditions::None);
        let response = answer(&conditions, &document());
        response.unwrap_or_else(IntoResponse::into_response).status().as_u16()
    };
    assert_eq!(answered(&[]), 200);
    assert_eq!(answered(&[("if-none-match", "W/\"01010101010101010101010101010101\"")]), 304);
    assert_eq!(answered(&[("if-match", "\"02020202020202020202020202020202\"")]), 412);
}
