use anabranch_crdt::conflict::{ConflictId, ConflictKind};
use anabranch_crdt::ids::Timestamp;
use axum::http::StatusCode;
use axum::response::IntoResponse as _;
use serde_json::json;

use super::*;

fn read(verb: Verb, body: Value) -> Bulk {
    bulk(verb, body.clone()).unwrap_or_else(|problem| panic!("{body}: {problem:?}"))
}

#[test]
fn many_conflicts_are_named_by_a_filter() {
    let body = json!({
        "filter": {
            "collection": "c", "document": "c/a", "path": "/a", "kind": "value",
            "state": "auto-resolved", "region": "eu", "since": "1970-01-01T00:00:01Z",
            "until": "1970-01-01T00:00:02Z",
        },
        "take": "region:us", "note": "n", "dry_run": true, "limit": 7,
    });
    let bulk = read(Verb::Resolve, body);
    let expected = ConflictFilter {
        collection: "c".parse().ok(),
        document: "c/a".parse().ok(),
        path: "/a".parse().ok(),
        kind: Some(ConflictKind::Value),
        state: Some(ConflictState::AutoResolved),
        region: "eu".parse().ok(),
        since: Some(Timestamp(1_000_000)),
        until: Some(Timestamp(2_000_000)),
        after: None,
        limit: 7,
    };
    assert_eq!(bulk.filter, expected);
    assert_eq!(bulk.choice, Choice::Region("us".parse().unwrap()));
    assert_eq!((bulk.note.as_deref(), bulk.rehearsal), (Some("n"), true));
}

#[test]
fn open_ones_are_meant_unless_they_are_reopened() {
    let state = |verb, mut body: Value| {
        body["all"] = json!(true);
        read(verb, body).filter.state
    };
    let open = Some(ConflictState::Open);
    assert_eq!(state(Verb::Resolve, json!({"take": "latest"})), open);
    assert_eq!(state(Verb::Dismiss, json!({})), open);
    assert_eq!(state(Verb::Reopen, json!({})), None);
}

#[test]
fn rules_are_read() {
    let choice = |mut body: Value| {
        body["all"] = json!(true);
        read(Verb::Resolve, body).choice
    };
    assert_eq!(choice(json!({"take": "latest"})), Choice::Latest);
    assert_eq!(choice(json!({"take": "earliest"})), Choice::Earliest);
    assert_eq!(choice(json!({"take": "winner"})), Choice::Winner);
    assert_eq!(choice(json!({"merge": true})), Choice::Each(Settling::Merge));
    assert_eq!(choice(json!({"value": 1})), Choice::Each(Settling::Value(json!(1))));
}

#[test]
fn wrong_requests_are_refused() {
    let all = |mut body: Value| {
        body["all"] = json!(true);
        body
    };
    for (body, code) in [
        (json!({"take": "latest"}), "empty_filter"),
        (json!({"take": "latest", "filter": {}}), "empty_filter"),
        (json!([]), "bad_resolution"),
        (all(json!({})), "bad_resolution"),
        (all(json!({"take": "1@00"})), "bad_resolution"),
        (all(json!({"take": "region:"})), "bad_resolution"),
        (all(json!({"take": "latest", "limit": 0})), "bad_resolution"),
        (all(json!({"take": "latest", "limit": 100_001})), "bad_resolution"),
        (all(json!({"take": "latest", "dry_run": 1})), "bad_resolution"),
        (all(json!({"take": "latest", "author": "x"})), "bad_resolution"),
        (json!({"take": "latest", "filter": {"colour": "red"}}), "bad_resolution"),
        (json!({"take": "latest", "filter": {"kind": "odd"}}), "bad_resolution"),
        (json!({"take": "latest", "filter": {"since": "today"}}), "bad_resolution"),
        (json!({"take": "latest", "filter": {"path": 1}}), "bad_resolution"),
        (json!({"take": "latest", "filter": []}), "bad_resolution"),
    ] {
        let problem = bulk(Verb::Resolve, body.clone()).unwrap_err();
        let told: Value = serde_json::from_slice(&problem.to_json()).unwrap();
        assert_eq!(told["code"], code, "{body}");
        assert_eq!(problem.into_response().status(), StatusCode::UNPROCESSABLE_ENTITY);
    }
}

#[test]
fn lines_tell_what_became_of_each() {
    let line = |fate: Fate, verb| {
        let settled = Settled {
            id: ConflictId([1; 16]),
            name: "c/a".parse().ok(),
            path: "/x".parse().unwrap(),
            fate,
            value: Some(json!(7)),
        };
        serde_json::to_value(LineJson::new(&settled, verb)).unwrap()
    };
    let done = line(Fate::Done, Verb::Resolve);
    let id = "01".repeat(16);
    let expected =
        json!({"id": id, "document": "c/a", "path": "/x", "outcome": "resolved", "value": 7});
    assert_eq!(done, expected);
    assert_eq!(line(Fate::Rehearsed, Verb::Dismiss)["outcome"], "would-dismiss");
    let skipped = line(Fate::Skipped("why".into()), Verb::Reopen);
    assert_eq!((&skipped["outcome"], &skipped["detail"]), (&json!("skipped"), &json!("why")));
    let mut summary = Summary::default();
    for fate in [Fate::Done, Fate::Failed("x".into()), Fate::Skipped("y".into())] {
        summary.count(&fate);
    }
    let expected = Summary { matched: 3, changed: 1, skipped: 1, failed: 1, ..Summary::default() };
    assert_eq!(summary, expected);
}
