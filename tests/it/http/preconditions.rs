//! Entity tags, `If-Match` and `If-None-Match`.

use serde_json::json;

use super::one;
use crate::support::Cluster;

#[tokio::test(flavor = "multi_thread")]
async fn reads_are_conditional() {
    let cluster = one().await;
    let solo = cluster.at("solo");
    let old = solo.put("notes/a", &json!({"n": 1})).ok().await.etag();
    let new = solo.put("notes/a", &json!({"n": 2})).ok().await.etag();
    for condition in [new.clone(), format!("{old}, W/{new}"), "*".to_owned()] {
        let read = solo.read("notes/a").header("if-none-match", condition).send().await;
        let read = read.expect(304);
        assert!(read.body.is_empty());
        assert_eq!(read.etag(), new);
        assert!(read.find("session-token").is_some());
    }
    solo.read("notes/a").header("if-none-match", &old).send().await.expect(200);
    solo.read("notes/a").header("if-match", &new).send().await.expect(200);
    solo.read("notes/a").header("if-match", &old).refused(412, "precondition_failed").await;
    solo.read("notes/b").header("if-none-match", &old).refused(404, "document_not_found").await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn writes_are_conditional() {
    let cluster = one().await;
    let solo = cluster.at("solo");
    let put = |n: u64| solo.put("notes/a", &json!({"n": n}));
    put(0).header("if-match", "*").refused(412, "precondition_failed").await;
    let first = put(1).header("if-none-match", "*").send().await.expect(201).etag();
    put(2).header("if-none-match", "*").refused(412, "precondition_failed").await;
    let second = put(2).header("if-match", &first).send().await.expect(200).etag();
    put(3).header("if-match", &first).refused(412, "precondition_failed").await;
    put(3).header("if-match", format!("W/{second}")).refused(412, "precondition_failed").await;
    put(3).header("if-match", "\"foreign\"").refused(412, "precondition_failed").await;
    let patch = solo.merge("notes/a", &json!({"n": 3})).header("if-match", &first);
    patch.refused(412, "precondition_failed").await;
    let patch =
        solo.merge("notes/a", &json!({"n": 3})).header("if-match", format!("{first}, {second}"));
    let third = patch.send().await.expect(200).etag();
    let delete = solo.delete("notes/a").header("if-match", &second);
    delete.refused(412, "precondition_failed").await;
    assert_eq!(solo.value("notes/a").await, Some(json!({"n": 3})));
    solo.delete("notes/a").header("if-match", &third).send().await.expect(204);
    put(4).header("if-match", &third).refused(412, "precondition_failed").await;
    for (header, value) in [("if-match", "plain"), ("if-none-match", ""), ("if-match", "\"a")] {
        put(5).header(header, value).refused(400, "bad_precondition").await;
    }
    let both = put(5).header("if-match", &third).header("if-none-match", "*");
    both.refused(400, "bad_precondition").await;
    cluster.stop().await;
}

/// The tag names what is shown: regions that have the same history give the same tag, and a change
/// that arrives from elsewhere makes an old one fail.
#[tokio::test(flavor = "multi_thread")]
async fn an_entity_tag_is_the_same_in_every_region() {
    let cluster = Cluster::of(&["eu", "us"]).await;
    let (eu, us) = (cluster.at("eu"), cluster.at("us"));
    let written = us.put("notes/a", &json!({"n": 1})).ok().await;
    let read = eu.read("notes/a").header("session-token", written.token()).ok().await;
    assert_eq!(read.etag(), written.etag());
    let changed = eu.put("notes/a", &json!({"n": 2})).header("if-match", read.etag()).ok().await;
    let late = us.put("notes/a", &json!({"n": 3})).header("if-match", written.etag());
    late.header("session-token", changed.token()).refused(412, "precondition_failed").await;
    cluster.stop().await;
}
