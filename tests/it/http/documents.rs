//! The life of a document: created, replaced, read, deleted, created again.

use hyper::Method;
use serde_json::json;

use super::one;
use crate::support::{Cluster, eventually, seen};

#[tokio::test(flavor = "multi_thread")]
async fn a_document_is_created_replaced_read_and_deleted() {
    let cluster = one().await;
    let solo = cluster.at("solo");
    let city = json!({"name": "Paris", "population": 2_102_650});
    let created = solo.put("cities/paris", &city).send().await.expect(201);
    assert_eq!(created.value(), city);
    assert_eq!(created.header("location"), "/v1/docs/cities/paris");
    assert_eq!(created.header("content-type"), "application/json");
    let again = solo.put("cities/paris", &city).send().await.expect(200);
    assert_eq!(again.etag(), created.etag(), "the same again is no change");
    assert_eq!(again.token(), created.token());
    let larger = json!({"name": "Paris", "population": 2_113_705});
    let replaced = solo.put("cities/paris", &larger).send().await.expect(200);
    assert_ne!(replaced.etag(), created.etag());
    assert_eq!(replaced.find("location"), None);

    let read = solo.read("cities/paris").send().await.expect(200);
    assert_eq!((read.value(), read.etag()), (larger, replaced.etag()));
    for (header, value) in [("conflicts", "0"), ("region", "solo"), ("cache-control", "no-cache")] {
        assert_eq!(read.header(header), value);
    }
    assert_eq!(read.token(), replaced.token());

    let deleted = solo.delete("cities/paris").send().await.expect(204);
    assert!(deleted.body.is_empty() && deleted.find("etag").is_none());
    let gone = solo.read("cities/paris").refused(404, "document_not_found").await;
    assert_eq!(gone.token(), deleted.token(), "the token says that it is deleted, not missing");
    solo.delete("cities/paris").refused(404, "document_not_found").await;
    let reborn = solo.put("cities/paris", &city).send().await.expect(201);
    assert_eq!(reborn.value(), city);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn head_is_get_without_its_body() {
    let cluster = one().await;
    let solo = cluster.at("solo");
    solo.put("notes/a", &json!({"text": "a note"})).ok().await;
    let get = solo.read("notes/a").send().await.expect(200);
    let head = solo.call(Method::HEAD, "/v1/docs/notes/a").send().await.expect(200);
    assert!(head.body.is_empty());
    for header in ["etag", "content-length", "content-type", "session-token", "conflicts", "region"]
    {
        assert_eq!(head.header(header), get.header(header), "{header}");
    }
    solo.call(Method::HEAD, "/v1/docs/notes/b").send().await.expect(404);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_may_prefer_no_body() {
    let cluster = one().await;
    let solo = cluster.at("solo");
    let minimal = "respond-async, return=\"minimal\"; x=1";
    let created = solo.put("notes/a", &json!({"n": 1})).header("prefer", minimal).send().await;
    let created = created.expect(201);
    assert!(created.body.is_empty());
    assert_eq!(created.header("preference-applied"), "return=minimal");
    assert_eq!(created.header("location"), "/v1/docs/notes/a");
    let patched = solo.merge("notes/a", &json!({"n": 2})).header("prefer", minimal).send().await;
    let patched = patched.expect(204);
    assert_eq!(patched.header("preference-applied"), "return=minimal");
    assert_eq!(patched.etag(), solo.read("notes/a").ok().await.etag());
    let full = solo.merge("notes/a", &json!({"n": 3})).header("prefer", "return=representation");
    assert_eq!(full.send().await.expect(200).value(), json!({"n": 3}));
    cluster.stop().await;
}

/// A key is any text without control characters, and is found however it is encoded.
#[tokio::test(flavor = "multi_thread")]
async fn keys_are_any_text() {
    let cluster = one().await;
    let solo = cluster.at("solo");
    let keys = [
        "a/b/c",
        "a//b",
        "ключ 🗝",
        " ",
        "50%",
        "a?b#c",
        "a+b",
        "..",
        "~",
        "\"quoted\"",
        "é",
        "e\u{301}",
    ];
    for key in keys {
        let name = format!("keys/{key}");
        solo.put(&name, &json!({"key": key})).send().await.expect(201);
    }
    for key in keys {
        let name = format!("keys/{key}");
        assert_eq!(solo.value(&name).await, Some(json!({"key": key})), "{key}");
    }
    for (path, key) in [("a%2Fb%2fc", "a/b/c"), ("%61/b/c", "a/b/c"), ("a+b", "a+b")] {
        let read = solo.get(format!("/v1/docs/keys/{path}")).ok().await.value();
        assert_eq!(read, json!({"key": key}), "{path}");
    }
    let page = solo.get("/v1/docs/keys").ok().await.value();
    let listed = page["documents"].as_array().unwrap().iter().map(|d| d["key"].as_str().unwrap());
    let mut sorted = keys.to_vec();
    sorted.sort_unstable();
    assert_eq!(listed.collect::<Vec<_>>(), sorted);
    cluster.stop().await;
}

/// `PUT` writes what differs from the document as it is, so it takes nothing back that another
/// region writes at the same time.
#[tokio::test(flavor = "multi_thread")]
async fn put_is_a_minimal_diff_and_takes_nothing_back() {
    let cluster = Cluster::of(&["eu", "us"]).await;
    let (eu, us) = (cluster.at("eu"), cluster.at("us"));
    let start =
        json!({"title": "t", "tags": ["a", "b"], "by": {"name": "Ada", "age": 36}, "old": 1});
    us.put("notes/a", &start).ok().await;
    cluster.agreed(&["notes"]).await;
    cluster.cut("eu", "us").await;
    let from_us = json!({"title": "T", "tags": ["a", "b", "c"], "by": {"name": "Ada", "age": 37}});
    let from_eu = json!(
        {"title": "t", "tags": ["0", "a", "b"], "by": {"name": "Ada L.", "age": 36}, "old": 1, "new": 2}
    );
    us.put("notes/a", &from_us).ok().await;
    eu.put("notes/a", &from_eu).ok().await;
    cluster.heal("eu", "us");
    let picture = cluster.agreed(&["notes"]).await;
    let both = json!(
        {"title": "T", "tags": ["0", "a", "b", "c"], "by": {"name": "Ada L.", "age": 37}, "new": 2}
    );
    assert_eq!(picture.listed()[0]["value"], both);
    assert_eq!(picture.conflicts(), Vec::<serde_json::Value>::new());
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_answered_is_there_after_a_restart() {
    let mut cluster = one().await;
    let written = cluster.at("solo").put("notes/a", &json!({"kept": true})).ok().await;
    cluster.restart("solo").await;
    let read = cluster.at("solo").read("notes/a").header("session-token", written.token());
    let read = read.ok().await;
    assert_eq!((read.value(), read.etag()), (json!({"kept": true}), written.etag()));
    cluster.stop().await;
}

/// Many writers of one document: each increment counts, each reply tells what is durable.
#[tokio::test(flavor = "multi_thread")]
async fn concurrent_writers_of_one_document_lose_nothing() {
    let cluster = one().await;
    let solo = cluster.at("solo");
    solo.put("counters/a", &json!({"n": 0})).ok().await;
    let increment = json!([{"op": "increment", "path": "/n"}]);
    let edits = (0..50).map(|_| solo.edit("counters/a", &increment).ok());
    futures::future::join_all(edits).await;
    eventually("every increment", async || {
        let n = solo.value("counters/a").await.unwrap()["n"].clone();
        seen(n == 50, || n.to_string())
    })
    .await;
    cluster.stop().await;
}
