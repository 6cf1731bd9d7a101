use axum::http::StatusCode;
use axum::response::IntoResponse as _;
use serde_json::json;

use super::*;

fn status<T>(result: Result<T, Problem>) -> StatusCode {
    result.err().map_or(StatusCode::OK, |problem| problem.into_response().status())
}

#[test]
fn a_conflict_is_resolved_in_one_of_five_ways() {
    let read = |body| order(Verb::Resolve, body).ok();
    let take = Settling::Take("3@01".into());
    assert_eq!(read(json!({"take": "3@01"})), Some((take.clone(), None)));
    assert_eq!(read(json!({"take": "3@01", "note": "n"})), Some((take, Some("n".into()))));
    for (body, expected) in [
        (json!({"value": null}), Settling::Value(Value::Null)),
        (json!({"value": {"a": 1}, "note": null}), Settling::Value(json!({"a": 1}))),
        (json!({"delete": true}), Settling::Delete),
        (json!({"merge": true}), Settling::Merge),
        (json!({"policy": "lww"}), Settling::Policy(Policy::Lww)),
    ] {
        assert_eq!(read(body.clone()), Some((expected, None)), "{body}");
    }
}

#[test]
fn bad_resolutions_are_refused() {
    for body in [
        json!({}),
        json!([]),
        json!("take"),
        json!({"note": "n"}),
        json!({"take": 3}),
        json!({"take": "3@01", "value": 1}),
        json!({"take": "3@01", "force": true}),
        json!({"take": "3@01", "note": 1}),
        json!({"take": "3@01", "note": "n".repeat(NOTE_BYTES + 1)}),
        json!({"delete": false}),
        json!({"merge": "yes"}),
        json!({"policy": "coin"}),
        json!({"policy": "manual"}),
        json!({"policy": 1}),
    ] {
        let refused = status(order(Verb::Resolve, body.clone()));
        assert_eq!(refused, StatusCode::UNPROCESSABLE_ENTITY, "{body}");
    }
}

#[test]
fn other_actions_take_a_note_alone() {
    let verbs = [Verb::Dismiss, Verb::Reopen, Verb::Undo];
    let expected = [Settling::Dismiss, Settling::Reopen, Settling::Undo];
    for (verb, settling) in verbs.into_iter().zip(expected) {
        assert_eq!(order(verb, json!({})).ok(), Some((settling.clone(), None)));
        let noted = order(verb, json!({"note": "n"})).ok();
        assert_eq!(noted, Some((settling, Some("n".into()))));
        for body in [json!({"take": "1@00"}), json!(null), json!({"note": []})] {
            assert_eq!(status(order(verb, body)), StatusCode::UNPROCESSABLE_ENTITY);
        }
    }
}

#[test]
fn entity_tags_are_revisions() {
    let read = |tag: Option<&'static str>| {
        let headers = tag.map(|tag| (IF_MATCH, HeaderValue::from_static(tag)));
        expected(&headers.into_iter().collect())
    };
    let revision = Revision(0xab);
    assert_eq!(etag(revision), "\"00000000000000ab\"");
    let is = |tag, expected| assert_eq!(read(tag).ok(), Some(expected), "{tag:?}");
    is(None, Expected::Any);
    is(Some("*"), Expected::Any);
    is(Some("\"00000000000000ab\""), Expected::Revision(revision));
    is(Some("W/\"00000000000000ab\""), Expected::Foreign);
    is(Some("\"x\""), Expected::Foreign);
    for tag in ["", "00000000000000ab", "\"1\", \"2\"", "*, *"] {
        assert_eq!(status(read(Some(tag))), StatusCode::BAD_REQUEST, "{tag}");
    }
}
