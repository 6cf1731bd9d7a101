//! JSON comes back as it was sent, byte for byte in its canonical form, or is refused.

use anabranch_crdt::json::{canonical, parse};
use hyper::Method;
use serde_json::json;

use super::one;
use crate::support::{Client, Cluster};

/// Writes a body as it is, and expects its canonical form from every region.
async fn check_round_trip(cluster: &Cluster, key: &str, body: &str, expected: &str) {
    let path = format!("/v1/docs/json/{key}");
    let written = cluster.at("us").call(Method::PUT, &path);
    let written = written.body("application/json", body.to_owned()).send().await.expect(201);
    for name in ["us", "eu"] {
        let read = cluster.at(name).get(&path).header("session-token", written.token()).ok().await;
        assert_eq!(str::from_utf8(&read.body).unwrap(), expected, "{name}: {body}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_json_value_comes_back_as_it_was_sent() {
    let mut cluster = Cluster::of(&["eu", "us"]).await;
    let cases = [
        ("{}", "{}"),
        (
            r#"{"a":null,"b":true,"c":false,"d":"","e":[],"f":{}}"#,
            r#"{"a":null,"b":true,"c":false,"d":"","e":[],"f":{}}"#,
        ),
        (r#"{"":{"":[{"":null}]}}"#, r#"{"":{"":[{"":null}]}}"#),
        (
            r#"{"z":1,"a":{"y":[1,[2,[3]]],"b":[{"k":[]}]}}"#,
            r#"{"a":{"b":[{"k":[]}],"y":[1,[2,[3]]]},"z":1}"#,
        ),
        (
            r#"{"n":[9007199254740991,-9007199254740991,0,-1]}"#,
            r#"{"n":[9007199254740991,-9007199254740991,0,-1]}"#,
        ),
        (r#"{"n":[1.0,1e0,10e-1,-0.0]}"#, r#"{"n":[1,1,1,-0.0]}"#),
        (
            r#"{"n":[1.5,0.1,-2.25e-7,5e-324,1.7976931348623157e308,1e21]}"#,
            r#"{"n":[1.5,0.1,-2.25e-7,5e-324,1.7976931348623157e308,1e21]}"#,
        ),
        (r#"{"n":9007199254740992.0}"#, r#"{"n":9007199254740992.0}"#),
        (
            "{\"u\":\"\u{1f30a} e\u{301} \u{2028} \u{10ffff}\"}",
            "{\"u\":\"\u{1f30a} e\u{301} \u{2028} \u{10ffff}\"}",
        ),
        (r#"{"u":"\u0000\t\"\\\/\ud83c\udf0a"}"#, "{\"u\":\"\\u0000\\t\\\"\\\\/\u{1f30a}\"}"),
        ("{\"~/ \":{\"\u{65e5}\":1}}", "{\"~/ \":{\"\u{65e5}\":1}}"),
    ];
    for (number, (body, expected)) in cases.iter().enumerate() {
        check_round_trip(&cluster, &number.to_string(), body, expected).await;
        assert_eq!(canonical(&parse(body.as_bytes(), 128).unwrap()), expected.as_bytes());
    }
    let before = cluster.agreed(&["json"]).await;
    cluster.restart("eu").await;
    assert_eq!(cluster.agreed(&["json"]).await, before);
    cluster.stop().await;
}

async fn check_refused(solo: &Client, body: impl Into<Vec<u8>>, status: u16, code: &str) -> String {
    let put = solo.call(Method::PUT, "/v1/docs/json/a").body("application/json", body.into());
    put.refused(status, code).await.value()["detail"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_kept_exactly_is_refused_and_not_bent() {
    let cluster = one().await;
    let solo = cluster.at("solo");
    solo.put("json/a", &json!({"kept": 1})).ok().await;
    for body in [
        r#"{"n":9007199254740992}"#,
        r#"{"n":-9007199254740992}"#,
        r#"{"n":123456789012345678901234567890}"#,
        r#"{"n":1e400}"#,
        r#"{"a":1,"a":2}"#,
        r#"{"a":{"b":1,"c":2,"b":1}}"#,
    ] {
        check_refused(solo, body, 422, "not_representable").await;
    }
    let told = check_refused(solo, "{\n\"n\": 9007199254740992}", 422, "not_representable").await;
    assert!(told.contains("line 2 column 6"), "{told}");
    for body in
        ["", "{", "{\"n\":NaN}", "{\"n\":Infinity}", "{'a':1}", "{\"a\":1,}", "{} {}", "{\"n\":01}"]
    {
        check_refused(solo, body, 400, "invalid_json").await;
    }
    check_refused(solo, b"{\"a\":\"\xff\"}".to_vec(), 400, "invalid_json").await;
    check_refused(solo, r#"{"a":"\ud800"}"#, 400, "invalid_json").await;
    for body in ["[]", "null", "1", "\"text\"", "[{}]"] {
        check_refused(solo, body, 422, "not_an_object").await;
    }
    let deep = format!("{{\"a\":{}{}}}", "[".repeat(128), "]".repeat(128));
    check_refused(solo, deep, 422, "too_deep").await;
    let bomb = format!("{{\"a\":{}", "[".repeat(1_000_000));
    check_refused(solo, bomb, 422, "too_deep").await;
    assert_eq!(solo.value("json/a").await, Some(json!({"kept": 1})));
    cluster.stop().await;
}
