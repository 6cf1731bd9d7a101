use anabranch_crdt::conflict::{Candidate, Conflict, ConflictKind, Settlement};
use anabranch_crdt::ids::{ChangeHash, DocumentId, Origin, RegionName, Timestamp};
use anabranch_crdt::message::Act;
use anabranch_crdt::policy::{Policy, PolicyVersion};
use axum::response::IntoResponse;
use serde_json::{Value, json};

use super::*;
use anabranch_crdt::conflict::ConflictState;

const ID: &str = "000102030405060708090a0b0c0d0e0f";
const CURSOR: &str = "00000000000000ff000102030405060708090a0b0c0d0e0f";

fn status<T>(result: Result<T, Problem>) -> u16 {
    result.err().map_or(200, |problem| problem.into_response().status().as_u16())
}

fn conflict() -> NamedConflict {
    let candidate = |id: &str, value, origin| Candidate {
        id: id.to_owned(),
        removal: false,
        value,
        origin: Origin::from_bytes([origin; 16]),
        leader: Origin::from_bytes([1; 16]),
        author: "ada".parse().ok(),
        at: Timestamp(1_700_000_000_000_001),
        change: ChangeHash([origin; 32]),
    };
    let conflict = Conflict {
        id: ID.parse().unwrap(),
        document: DocumentId::from_bytes([9; 16]),
        path: "/title/a~1b".parse().unwrap(),
        kind: ConflictKind::Delete,
        base: Some(json!(null)),
        policy: Policy::Lww,
        version: PolicyVersion::default(),
        candidates: vec![candidate("3@01", Some(json!("x")), 1), candidate("3@02", None, 2)],
        winner: Some(0),
        state: ConflictState::AutoResolved,
        settled: None,
        acts: Vec::new(),
    };
    NamedConflict { name: Some("cities/paris".parse().unwrap()), conflict }
}

fn told(conflict: &NamedConflict) -> Value {
    let eu_west: RegionName = "eu-west".parse().unwrap();
    let region_of = |origin| (origin == Origin::from_bytes([1; 16])).then(|| eu_west.clone());
    serde_json::to_value(ConflictJson::new(conflict, &region_of)).unwrap()
}

#[test]
fn conflict_has_its_stable_shape() {
    let expected = json!({
        "id": ID,
        "revision": conflict().conflict.revision().to_string(),
        "document": "cities/paris",
        "document_id": "09090909-0909-0909-0909-090909090909",
        "path": "/title/a~1b",
        "kind": "delete",
        "base": {"value": null},
        "policy": "lww",
        "policy_version": "default",
        "state": "auto-resolved",
        "winner": "3@01",
        "why": "lww: the greatest timestamp, then the greatest writer",
        "candidates": [
            {
                "id": "3@01",
                "value": "x",
                "deleted": false,
                "removal": false,
                "region": "eu-west",
                "author": "ada",
                "client": false,
                "origin": "01010101-0101-0101-0101-010101010101",
                "at": "2023-11-14T22:13:20.000001Z",
                "change": "01".repeat(32),
            },
            {
                "id": "3@02",
                "value": null,
                "deleted": true,
                "removal": false,
                "region": "eu-west",
                "author": "ada",
                "client": true,
                "origin": "02020202-0202-0202-0202-020202020202",
                "at": "2023-11-14T22:13:20.000001Z",
                "change": "02".repeat(32),
            },
        ],
        "settled": null,
        "acts": [],
        "at": "2023-11-14T22:13:20.000001Z",
    });
    assert_eq!(told(&conflict()), expected);
}

#[test]
fn resolved_conflict_tells_who_settled_it() {
    let mut resolved = conflict();
    resolved.conflict.state = ConflictState::Resolved;
    resolved.conflict.winner = None;
    resolved.conflict.settled = Some(Settlement {
        act: Act::Resolve(ConflictId([5; 16])),
        value: Some(json!("y")),
        leader: Origin::from_bytes([1; 16]),
        author: "ada".parse().ok(),
        origin: Origin::from_bytes([1; 16]),
        at: Timestamp(1_700_000_000_000_002),
        change: ChangeHash([4; 32]),
        note: Some("as agreed".into()),
    });
    let told = told(&resolved);
    assert_eq!(told["winner"], Value::Null);
    let expected = json!({
        "act": "resolve",
        "author": "ada",
        "region": "eu-west",
        "origin": "01010101-0101-0101-0101-010101010101",
        "at": "2023-11-14T22:13:20.000002Z",
        "change": "04".repeat(32),
        "note": "as agreed",
        "value": "y",
    });
    assert_eq!(told["settled"], expected);
}

#[test]
fn paths_name_a_conflict_or_what_to_do_about_it() {
    let id: ConflictId = ID.parse().unwrap();
    let of = |last: &str| target(&format!("/v1/conflicts/{last}"));
    assert_eq!(of(ID).ok(), Some(Target::Conflict(id)));
    for verb in Verb::ALL {
        assert_eq!(of(&format!("{ID}:{}", verb.name())).ok(), Some(Target::Action(id, verb)));
    }
    for last in ["x", ":resolve", &ID[1..], &format!("{ID}:forget"), &format!("{ID}0")] {
        assert_eq!(status(of(last)), 400, "{last}");
    }
}

#[test]
fn filters_are_read() {
    let all = filter(None).unwrap();
    assert!(all.collection.is_none() && all.document.is_none() && all.state.is_none());
    assert_eq!((all.limit, all.after), (100, None));
    let query =
        format!("collection=c&document=c/a%2Fb&state=auto-resolved&limit=9&cursor={CURSOR}");
    let some = filter(Some(&query)).unwrap();
    assert_eq!(some.collection, "c".parse().ok());
    assert_eq!(some.document, "c/a/b".parse().ok());
    assert_eq!(some.state, Some(ConflictState::AutoResolved));
    assert_eq!((some.limit, some.after), (9, CURSOR.parse().ok()));
}

#[test]
fn bad_filters_are_refused() {
    for query in ["state=closed", "limit=0", "limit=1001", "cursor=1", "document=x", "since=1"] {
        assert_eq!(status(filter(Some(query))), 400, "{query}");
    }
}
