//! Every limit of a node has a request that runs into it here, and is told which limit it was.

mod bodies;
mod replicated;

use anabranch::settings::Limits;
use serde_json::{Value, json};

use crate::support::{Client, Cluster, Plan, log};

async fn with(limits: Limits) -> Cluster {
    Plan::new(&["solo"]).limits(limits).start().await
}

/// A document whose canonical JSON has so many bytes.
fn sized(bytes: usize) -> Value {
    json!({"text": "x".repeat(bytes - "{\"text\":\"\"}".len())})
}

async fn detail(solo: &Client, value: &Value, status: u16, code: &str) -> String {
    let problem = solo.put("notes/a", value).refused(status, code).await.value();
    problem["detail"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_size_of_a_document() {
    let cluster = with(Limits { document_bytes: 1_000, ..Limits::default() }).await;
    let solo = cluster.at("solo");
    solo.put("notes/a", &sized(1_000)).send().await.expect(201);
    let told = detail(solo, &sized(1_001), 413, "document_too_large").await;
    assert!(told.contains("1001 bytes") && told.contains("limit is 1000"), "{told}");
    for call in [
        solo.merge("notes/a", &json!({"more": 1})),
        solo.json_patch("notes/a", &json!([{"op": "add", "path": "/more", "value": 1}])),
        solo.edit("notes/a", &json!([{"op": "set", "path": "/more", "value": 1}])),
        solo.edit("notes/a", &json!([{"op": "splice", "path": "/text", "at": 0, "insert": "y"}])),
    ] {
        call.refused(413, "document_too_large").await;
    }
    assert_eq!(solo.value("notes/a").await, Some(sized(1_000)));
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_depth_of_nesting() {
    let cluster = with(Limits { nesting: 5, ..Limits::default() }).await;
    let solo = cluster.at("solo");
    let deep = |levels: usize| (1..levels).fold(json!({}), |inner, _| json!({"in": inner}));
    solo.put("notes/a", &deep(5)).send().await.expect(201);
    let told = detail(solo, &deep(6), 422, "too_deep").await;
    assert!(told.contains("5 levels"), "{told}");
    let patch = json!({"in": {"in": {"in": deep(3)}}});
    solo.merge("notes/a", &patch).refused(422, "too_deep").await;
    let edit = json!([{"op": "set", "path": "/in/in/in/in/in", "value": []}]);
    solo.edit("notes/a", &edit).refused(422, "too_deep").await;
    assert_eq!(solo.value("notes/a").await, Some(deep(5)));
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_default_depth_of_nesting() {
    let cluster = Cluster::of(&["solo"]).await;
    let solo = cluster.at("solo");
    let deep = |levels: usize| (1..levels).fold(json!({}), |inner, _| json!([inner]));
    solo.put("notes/a", &json!({"in": deep(127)})).send().await.expect(201);
    solo.put("notes/a", &json!({"in": deep(128)})).refused(422, "too_deep").await;
    let kept = solo.read("notes/a").ok().await.body;
    assert_eq!(kept, json!({"in": deep(127)}).to_string());
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_length_of_names() {
    let cluster = Cluster::of(&["solo"]).await;
    let solo = cluster.at("solo");
    let key = "é".repeat(256);
    solo.put(&format!("notes/{key}"), &json!({})).send().await.expect(201);
    solo.put(&format!("notes/{key}x"), &json!({})).refused(400, "bad_key").await;
    let collection = "c".repeat(64);
    solo.put(&format!("{collection}/a"), &json!({})).send().await.expect(201);
    solo.put(&format!("{collection}c/a"), &json!({})).refused(400, "bad_collection").await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_edits_of_one_request() {
    let cluster = Cluster::of(&["solo"]).await;
    let solo = cluster.at("solo");
    solo.put("notes/a", &json!({"n": 0})).ok().await;
    let edits = |count: usize| json!(vec![json!({"op": "increment", "path": "/n"}); count]);
    let patch = |count: usize| json!(vec![json!({"op": "test", "path": "/n", "value": 0}); count]);
    solo.json_patch("notes/a", &patch(10_000)).ok().await;
    solo.json_patch("notes/a", &patch(10_001)).refused(422, "malformed_edit").await;
    solo.edit("notes/a", &edits(10_001)).refused(422, "malformed_edit").await;
    assert_eq!(solo.edit("notes/a", &edits(10_000)).ok().await.value(), json!({"n": 10_000}));
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_documents_and_conflicts_of_one_page() {
    let cluster = Cluster::of(&["solo"]).await;
    let solo = cluster.at("solo");
    for path in ["/v1/docs/notes", "/v1/conflicts"] {
        solo.get(format!("{path}?limit=1000")).ok().await;
        solo.get(format!("{path}?limit=1001")).refused(400, "bad_query").await;
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_bytes_of_values_on_one_page() {
    let cluster = Cluster::of(&["solo"]).await;
    let solo = cluster.at("solo");
    for key in ["a", "b", "c"] {
        solo.put(&format!("notes/{key}"), &sized(1_800_000)).ok().await;
    }
    let page = solo.get("/v1/docs/notes?values=true").ok().await.value();
    assert_eq!(page["documents"].as_array().unwrap().len(), 2, "a third one is over 4 MiB");
    let next = page["next"].as_str().unwrap();
    let page = solo.get(format!("/v1/docs/notes?values=true&cursor={next}")).ok().await.value();
    assert_eq!((&page["documents"][0]["key"], &page["next"]), (&json!("c"), &Value::Null));
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_length_of_tokens_and_headers() {
    let cluster = Cluster::of(&["solo"]).await;
    let solo = cluster.at("solo");
    solo.put("notes/a", &json!({})).ok().await;
    let long = solo.read("notes/a").header("session-token", "A".repeat(4_097));
    let problem = long.refused(400, "bad_session_token").await.value();
    assert!(problem["detail"].as_str().unwrap().contains("at most 4096"), "{problem}");
    let endless = solo.read("notes/a").header("x-padding", "x".repeat(40_000)).send().await;
    assert_eq!(endless.status, 431);
    cluster.stop().await;
}

/// The owner of a document logs once when its history gets long, and again each time it has grown by as much.
#[tokio::test(flavor = "multi_thread")]
async fn the_changes_of_a_document() {
    let cluster = with(Limits { changes_warning: 8, ..Limits::default() }).await;
    let solo = cluster.at("solo");
    let name = "histories/the_changes_of_a_document";
    let id = anabranch_crdt::ids::DocumentId::from(&name.parse().unwrap()).to_string();
    let warnings = || log::with(&["WARN", "a document has a long history", &id]).len();
    for n in 0..7 {
        solo.put(name, &json!({"n": n})).ok().await;
    }
    assert_eq!(warnings(), 0);
    for n in 7..15 {
        solo.put(name, &json!({"n": n})).ok().await;
    }
    assert_eq!(warnings(), 1);
    solo.put(name, &json!({"n": 15})).ok().await;
    assert_eq!(warnings(), 2);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_limits_are_told() {
    let limits = Limits { document_bytes: 1_234, queue: 7, ..Limits::default() };
    let cluster = with(limits).await;
    let told = cluster.at("solo").get("/v1/limits").ok().await.value();
    for (name, value) in
        [("document_bytes", 1_234), ("queue", 7), ("nesting", 128), ("key_bytes", 512)]
    {
        assert_eq!(told[name], value, "{name}");
    }
    cluster.stop().await;
}
