use axum::http::HeaderValue;
use axum::http::header::ACCEPT;
use axum::response::IntoResponse;

use super::*;

fn status<T>(result: Result<T, Problem>) -> u16 {
    result.err().map_or(200, |problem| problem.into_response().status().as_u16())
}

fn check_name(path: &str, collection: &str, key: &str) {
    let name = document_name(path).unwrap();
    assert_eq!((name.collection.as_str(), name.key.as_str()), (collection, key), "{path}");
}

fn check_bad_name(path: &str, code: &str) {
    let problem = document_name(path).unwrap_err();
    assert!(format!("{problem:?}").contains(code), "{path}: {problem:?}");
    assert_eq!(problem.into_response().status(), 400, "{path}");
}

#[test]
fn document_names_are_decoded() {
    check_name("/v1/docs/cities/paris", "cities", "paris");
    check_name("/v1/docs/cities/fr/paris", "cities", "fr/paris");
    check_name("/v1/docs/cities/fr%2Fparis", "cities", "fr/paris");
    check_name("/v1/docs/cities//a/", "cities", "/a/");
    check_name("/v1/docs/cities/a+b%20c", "cities", "a+b c");
    check_name("/v1/docs/cities/%E6%9D%B1%e4%ba%ac", "cities", "東京");
    check_name("/v1/docs/%63ities/x", "cities", "x");
}

#[test]
fn bad_names_say_which_part_is_bad() {
    for path in ["a/", "a/%", "a/%4", "a/%zz", "a/%ff", "a/%00", "a/x%0Ay", "a/%C2%80"] {
        check_bad_name(&format!("/v1/docs/{path}"), "bad_key");
    }
    check_bad_name(&format!("/v1/docs/a/{}", "k".repeat(513)), "bad_key");
    for path in ["-a/k", "a%2Fb/k", "a%ff/k", "%20/k"] {
        check_bad_name(&format!("/v1/docs/{path}"), "bad_collection");
    }
    check_bad_name(&format!("/v1/docs/{}/k", "c".repeat(65)), "bad_collection");
}

#[test]
fn a_key_has_its_full_length() {
    check_name(&format!("/v1/docs/a/{}", "k".repeat(512)), "a", &"k".repeat(512));
}

#[test]
fn query_parameters_are_decoded() {
    let query = Query::parse(Some("prefix=a%2Bb+c&limit=7&values=true"), &KNOWN).unwrap();
    assert_eq!(query.text("prefix"), Some("a+b c"));
    assert_eq!(query.number("limit", 1..=1000, 100).ok(), Some(7));
    assert_eq!(query.switch("values").ok(), Some(true));
    assert_eq!(query.text("cursor"), None);
}

#[test]
fn absent_parameters_have_defaults() {
    let query = Query::parse(None, &KNOWN).unwrap();
    assert_eq!(query.number("limit", 1..=1000, 100).ok(), Some(100));
    assert_eq!(query.switch("values").ok(), Some(false));
    assert_eq!(query.parsed::<CollectionName>("prefix").ok(), Some(None));
    assert!(Query::parse(Some(""), &[]).is_ok());
}

#[test]
fn unknown_and_repeated_parameters_are_named() {
    let problem = Query::parse(Some("limit=1&sort=up"), &KNOWN).unwrap_err();
    assert!(format!("{problem:?}").contains("'sort'"), "{problem:?}");
    assert_eq!(status(Query::parse(Some("limit=1&limit=2"), &KNOWN)), 400);
    assert_eq!(status(Query::parse(Some("prefix=%ff"), &KNOWN)), 400);
    assert_eq!(status(no_query(Some("x"))), 400);
}

#[test]
fn parameters_out_of_range_are_refused() {
    for text in ["limit=0", "limit=1001", "limit=-1", "limit=", "limit=ten", "limit=1.5"] {
        let query = Query::parse(Some(text), &KNOWN).unwrap();
        assert_eq!(status(query.number("limit", 1..=1000, 100)), 400, "{text}");
    }
    let query = Query::parse(Some("values=1&prefix=-x"), &KNOWN).unwrap();
    assert_eq!(status(query.switch("values")), 400);
    assert_eq!(status(query.parsed::<CollectionName>("prefix")), 400);
}

#[test]
fn cursors_come_back() {
    for key in ["paris", "fr/paris", "東京", "a&b=c%"] {
        let cursor = to_cursor(key);
        assert!(cursor.bytes().all(|byte| byte.is_ascii_alphanumeric()), "{cursor}");
        assert_eq!(from_cursor(&cursor).as_deref(), Some(key));
    }
    for damaged in ["a", "zz", "ff", "616"] {
        assert_eq!(from_cursor(damaged), None, "{damaged}");
    }
}

#[test]
fn media_types_are_compared_without_case_and_parameters() {
    let json = |value| is_media_type(value, "application/json");
    assert!(json("application/json"));
    assert!(json("Application/JSON; charset=UTF-8"));
    assert!(json("application/json;charset=\"utf-8\";profile=x"));
    assert!(!json("application/json; charset=latin1"));
    assert!(!json("application/json-patch+json"));
    assert!(!json("text/json"));
    assert!(!json(""));
}

#[test]
fn preferences_and_accepted_types_are_found_in_lists() {
    let mut headers = HeaderMap::new();
    assert!(!prefers_minimal(&headers));
    assert!(!accepts(&headers, "text/event-stream"));
    headers.append("prefer", HeaderValue::from_static("wait=5, Return = Minimal; x=1"));
    headers.append(ACCEPT, HeaderValue::from_static("text/html, text/event-stream;q=0.9"));
    assert!(prefers_minimal(&headers));
    assert!(accepts(&headers, "text/event-stream"));
    headers.insert("prefer", HeaderValue::from_static("return=representation"));
    assert!(!prefers_minimal(&headers));
}

const KNOWN: [&str; 4] = ["prefix", "limit", "cursor", "values"];
