//! The three formats of `PATCH`.

use serde_json::{Value, json};

use super::one;
use crate::support::Client;

async fn reset(solo: &Client, value: &Value) {
    solo.put("notes/a", value).ok().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn merge_patch_sets_and_removes() {
    let cluster = one().await;
    let solo = cluster.at("solo");
    solo.merge("notes/a", &json!({"a": 1})).refused(404, "document_not_found").await;
    reset(solo, &json!({"title": "t", "by": {"name": "Ada", "age": 36}, "tags": [1, 2]})).await;
    let patch = json!({"title": null, "by": {"age": null, "town": "London"}, "tags": [2], "n": {"x": null}});
    let patched = solo.merge("notes/a", &patch).send().await.expect(200);
    let expected = json!({"by": {"name": "Ada", "town": "London"}, "tags": [2], "n": {}});
    assert_eq!(patched.value(), expected);
    let nothing = solo.merge("notes/a", &json!({})).send().await.expect(200);
    assert_eq!(nothing.etag(), patched.etag());
    solo.merge("notes/a", &json!([1])).refused(422, "not_an_object").await;
    assert_eq!(solo.value("notes/a").await, Some(expected));
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn json_patch_does_all_or_nothing() {
    let cluster = one().await;
    let solo = cluster.at("solo");
    let start = json!({"a": {"b": [1, 2, 3]}, "c": "x"});
    reset(solo, &start).await;
    let patch = json!([
        {"op": "test", "path": "/c", "value": "x"},
        {"op": "add", "path": "/a/b/1", "value": {"new": true}},
        {"op": "remove", "path": "/a/b/0"},
        {"op": "replace", "path": "/c", "value": null},
        {"op": "copy", "from": "/a/b/0", "path": "/copied"},
        {"op": "move", "from": "/c", "path": "/moved"},
        {"op": "add", "path": "/a/b/-", "value": 4},
    ]);
    let patched = solo.json_patch("notes/a", &patch).ok().await.value();
    let expected =
        json!({"a": {"b": [{"new": true}, 2, 3, 4]}, "copied": {"new": true}, "moved": null});
    assert_eq!(patched, expected);

    reset(solo, &start).await;
    let set = json!({"op": "replace", "path": "/c", "value": "y"});
    for (second, status, code) in [
        (json!({"op": "test", "path": "/c", "value": "x"}), 409, "test_failed"),
        (json!({"op": "remove", "path": "/gone"}), 422, "unfit_edit"),
        (json!({"op": "add", "path": "/a/b/9", "value": 1}), 422, "unfit_edit"),
        (json!({"op": "add", "path": "no pointer", "value": 1}), 422, "malformed_edit"),
        (json!({"op": "twist", "path": "/c"}), 422, "malformed_edit"),
        (json!({"op": "add", "path": "/c"}), 422, "malformed_edit"),
    ] {
        solo.json_patch("notes/a", &json!([set, second])).refused(status, code).await;
    }
    solo.json_patch("notes/a", &json!({"op": "add"})).refused(422, "malformed_edit").await;
    assert_eq!(solo.value("notes/a").await, Some(start));
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn edits_say_what_is_meant() {
    let cluster = one().await;
    let solo = cluster.at("solo");
    reset(solo, &json!({"likes": 3, "tags": ["a", "c"], "text": "wörld 🌊", "old": 1})).await;
    let edits = json!([
        {"op": "increment", "path": "/likes", "by": 2},
        {"op": "increment", "path": "/views"},
        {"op": "insert", "path": "/tags/1", "value": "b"},
        {"op": "insert", "path": "/tags/-", "value": {"d": null}},
        {"op": "splice", "path": "/text", "at": 0, "insert": "hello "},
        {"op": "splice", "path": "/text", "at": 12, "delete": 1, "insert": "🏝"},
        {"op": "remove", "path": "/old"},
        {"op": "set", "path": "/deep", "value": {"er": []}},
    ]);
    let edited = solo.edit("notes/a", &edits).ok().await.value();
    let expected = json!({
        "likes": 5, "views": 1, "tags": ["a", "b", "c", {"d": null}], "text": "hello wörld 🏝",
        "deep": {"er": []},
    });
    assert_eq!(edited, expected);
    for (edit, code) in [
        (json!({"op": "set", "path": "/no/where", "value": 1}), "unfit_edit"),
        (json!({"op": "increment", "path": "/text"}), "unfit_edit"),
        (json!({"op": "splice", "path": "/text", "at": 99}), "unfit_edit"),
        (json!({"op": "remove", "path": "/gone"}), "unfit_edit"),
        (
            json!({"op": "increment", "path": "/likes", "by": 9_007_199_254_740_991_i64}),
            "unfit_edit",
        ),
        (json!({"op": "increment", "path": "/likes", "by": 1.5}), "malformed_edit"),
        (json!({"op": "set", "path": "", "value": {}}), "malformed_edit"),
        (json!({"op": "turn", "path": "/text"}), "malformed_edit"),
        (json!({"op": "remove", "path": "/text", "values": 1}), "malformed_edit"),
    ] {
        let first = json!({"op": "set", "path": "/likes", "value": 1});
        solo.edit("notes/a", &json!([first, edit])).refused(422, code).await;
    }
    assert_eq!(solo.value("notes/a").await, Some(expected));
    cluster.stop().await;
}
