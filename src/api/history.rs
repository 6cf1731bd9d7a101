//! The past of documents over HTTP: reads at a point, history, differences, blame, and the way
//! back.

use anabranch_crdt::conflict::ConflictState;
use anabranch_crdt::document::{Blamed, Difference, HistoryCursor, Recorded};
use anabranch_crdt::edit::Path;
use anabranch_crdt::ids::{ChangeHash, DocumentName, Origin, Timestamp};
use axum::body::Body;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::Response;
use serde::Serialize;
use serde_json::Value;

use crate::document::{ConflictFilter, Document, Point};

use super::conflicts::{ConflictJson, NOTE_BYTES};
use super::consistency::Concern;
use super::documents::{self, expect_json};
use super::ledger::parse_time;
use super::precondition::Conditions;
use super::request::{Query, author, bad_query, document_below, no_query};
use super::{Answer, ApiState, Problem, body, reply, session};

/// Changes of one page at most.
const PAGE_CHANGES: u64 = 1_000;

/// Changes of one page when the request does not say.
const PAGE_DEFAULT: u64 = 100;

/// Heads of one point: more than documents have, and as many as fit into a URL.
const POINT_HEADS: usize = 256;

/// Conflicts in each state that are told with a document; the ledger lists the others.
const CONFLICTS_TOLD: usize = 1_000;

const HISTORY: &str = "/v1/history/";
const DIFF: &str = "/v1/diff/";
const BLAME: &str = "/v1/blame/";
const REVERT: &str = "/v1/revert/";

/// `GET` of a document with `at`.
pub(super) async fn read_at(
    state: &ApiState,
    parts: &Parts,
    name: &DocumentName,
    at: &str,
) -> Answer {
    let point =
        point(at).map_err(|detail| bad_point(&format!("query parameter 'at': {detail}")))?;
    let conditions = Conditions::parse(&parts.headers)?;
    session::catch_up(state, &parts.headers).await?;
    let document = state.documents().at(name, point).await?;
    documents::answer_past(state, &conditions, name, document)
}

/// The body of a document with its conflicts.
pub(super) async fn with_conflicts(
    state: &ApiState,
    name: &DocumentName,
    document: &Document,
) -> Result<Response, Problem> {
    let mut conflicts = Vec::new();
    for wanted in [ConflictState::Open, ConflictState::AutoResolved] {
        let filter = ConflictFilter {
            document: Some(name.clone()),
            state: Some(wanted),
            limit: CONFLICTS_TOLD,
            ..ConflictFilter::default()
        };
        conflicts.extend(state.documents().conflicts(filter).await?.conflicts);
    }
    let region_of = |origin| state.documents().region_of(origin);
    let told: Vec<_> = conflicts.iter().map(|named| ConflictJson::new(named, &region_of)).collect();
    // The document is JSON already.
    let mut json = b"{\"value\":".to_vec();
    json.extend_from_slice(&document.json);
    json.extend_from_slice(b",\"conflicts\":");
    reply::append_json(&mut json, &told);
    json.push(b'}');
    Ok(reply::json_bytes(StatusCode::OK, json.into()))
}

/// `GET` of the history.
pub(super) async fn list(state: ApiState, request: Request) -> Answer {
    let (parts, _) = request.into_parts();
    let name = document_below(HISTORY, parts.uri.path())?;
    let query = Query::parse(parts.uri.query(), &["limit", "cursor", "path", "epoch"])?;
    let limit = query.number("limit", 1..=PAGE_CHANGES, PAGE_DEFAULT)?;
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let cursor = query.parsed::<HistoryCursor>("cursor")?;
    let within = query.parsed::<Path>("path")?;
    let epoch = query.parsed::<u32>("epoch")?;
    session::catch_up(&state, &parts.headers).await?;
    let page = state.documents().history(&name, epoch, within, cursor, limit).await?;
    Ok(answer(
        &state,
        &HistoryJson {
            changes: page.changes.iter().map(|change| ChangeJson::new(&state, change)).collect(),
            next: page.next.map(|next| next.to_string()),
        },
    ))
}

/// `GET` of the difference of two points.
pub(super) async fn diff(state: ApiState, request: Request) -> Answer {
    let (parts, _) = request.into_parts();
    let name = document_below(DIFF, parts.uri.path())?;
    let query = Query::parse(parts.uri.query(), &["from", "to"])?;
    let named = |name: &str| {
        let at = query.text(name).map(point).transpose();
        at.map_err(|detail| bad_point(&format!("query parameter '{name}': {detail}")))
    };
    let from = named("from")?.ok_or_else(|| bad_query("say 'from' which point"))?;
    let to = named("to")?;
    session::catch_up(&state, &parts.headers).await?;
    let found = state.documents().compare(&name, from, to).await?;
    Ok(answer(
        &state,
        &DiffJson {
            from: texts(&found.from),
            to: texts(&found.to),
            changes: found.changes.iter().map(DifferenceJson::new).collect(),
        },
    ))
}

/// `GET` of who wrote what shows.
pub(super) async fn blame(state: ApiState, request: Request) -> Answer {
    let (parts, _) = request.into_parts();
    let name = document_below(BLAME, parts.uri.path())?;
    let within = Query::parse(parts.uri.query(), &["path"])?.parsed::<Path>("path")?;
    session::catch_up(&state, &parts.headers).await?;
    let found = state.documents().blame(&name, within).await?;
    let fields = found.iter().map(|field| FieldJson::new(&state, field)).collect();
    Ok(answer(&state, &BlameJson { fields }))
}

/// `POST` of the way back.
pub(super) async fn revert(state: ApiState, request: Request) -> Answer {
    let (parts, mut body) = request.into_parts();
    let result = take_back(&state, &parts, &mut body).await;
    if result.is_err() {
        body::discard(&parts.headers, body).await;
    }
    result
}

async fn take_back(state: &ApiState, parts: &Parts, body: &mut Body) -> Answer {
    no_query(parts.uri.query())?;
    let path = parts.uri.path();
    let name = document_below(REVERT, path)?;
    expect_json(&parts.headers)?;
    let author = author(&parts.headers)?;
    let precondition = Conditions::parse(&parts.headers)?.for_write()?;
    let concern = Concern::of(state, &parts.headers)?;
    session::catch_up(state, &parts.headers).await?;
    let payload = state.intake().json(body).await?;
    let (to, note) = reversion(payload.value)?;
    drop(payload.held);
    let written = state.documents().revert(&name, to, note, author, precondition).await?;
    let location = path.replacen("/revert/", "/docs/", 1);
    let mut response = documents::written_reply(&parts.headers, &location, &written);
    concern.fulfil(state, &written.position, &mut response).await;
    Ok(response)
}

/// Reads the body of a reversion.
fn reversion(body: Value) -> Result<(Point, Option<String>), Problem> {
    let Value::Object(mut body) = body else { return Err(bad_revert(SHAPE)) };
    let note = match body.remove("note") {
        None | Some(Value::Null) => None,
        Some(Value::String(note)) if note.len() <= NOTE_BYTES => Some(note),
        Some(_) => {
            return Err(bad_revert(&format!("'note' is text of at most {NOTE_BYTES} bytes")));
        }
    };
    let Some(Value::String(to)) = body.remove("to") else { return Err(bad_revert(SHAPE)) };
    if let Some(name) = body.keys().next() {
        return Err(bad_revert(&format!("unknown member '{name}': {SHAPE}")));
    }
    let to = point(&to).map_err(|detail| bad_point(&format!("'to': {detail}")))?;
    Ok((to, note))
}

const SHAPE: &str = "the body is {\"to\": \"<heads or time>\"}, with a \"note\" if you like";

fn bad_revert(detail: &str) -> Problem {
    Problem::unprocessable("bad_revert", detail)
}

fn bad_point(detail: &str) -> Problem {
    Problem::bad_request("bad_point", detail)
}

/// Reads a point, or says what one looks like.
fn point(text: &str) -> Result<Point, String> {
    let parts: Vec<&str> = text.split(',').collect();
    let heads: Option<Vec<ChangeHash>> = parts.iter().map(|part| part.parse().ok()).collect();
    if let Some(heads) = heads {
        return match heads.len() <= POINT_HEADS {
            true => Ok(Point::Heads(heads)),
            false => Err(format!("a point has at most {POINT_HEADS} heads")),
        };
    }
    time(text).map(Point::Time).ok_or_else(|| {
        format!(
            "'{}' is no point: write a time such as 2027-01-31T12:00:00Z, or the hashes of changes \
             with ',' between them",
            text.chars().take(100).collect::<String>()
        )
    })
}

/// Reads a time. A '+' that came as it is through a query has become a space.
fn time(text: &str) -> Option<Timestamp> {
    match text.rsplit_once(' ') {
        Some((time, offset)) if time.contains(['T', 't']) => {
            parse_time(&format!("{time}+{offset}"))
        }
        _ => parse_time(text),
    }
}

fn answer(state: &ApiState, json: &impl Serialize) -> Response {
    let mut response = reply::json(json);
    reply::set_session(response.headers_mut(), &state.documents().position());
    response
}

fn region(state: &ApiState, leader: Origin) -> Option<String> {
    state.documents().region_of(leader).map(|region| region.to_string())
}

fn texts<T: ToString>(values: &[T]) -> Vec<String> {
    values.iter().map(ToString::to_string).collect()
}

#[derive(Serialize)]
struct HistoryJson<'a> {
    changes: Vec<ChangeJson<'a>>,
    next: Option<String>,
}

#[derive(Serialize)]
struct ChangeJson<'a> {
    hash: String,
    deps: Vec<String>,
    region: Option<String>,
    author: Option<&'a str>,
    origin: String,
    client: bool,
    at: String,
    act: String,
    note: Option<&'a str>,
    operations: usize,
    paths: Vec<String>,
}

impl<'a> ChangeJson<'a> {
    fn new(state: &ApiState, change: &'a Recorded) -> Self {
        Self {
            hash: change.hash.to_string(),
            deps: texts(&change.deps),
            region: region(state, change.leader),
            author: change.message.author.as_ref().map(|author| author.as_str()),
            origin: change.writer.to_string(),
            client: change.writer != change.leader,
            at: reply::rfc3339(change.at),
            act: change.message.act.to_string(),
            note: change.message.note.as_deref(),
            operations: change.operations,
            paths: texts(&change.paths),
        }
    }
}

#[derive(Serialize)]
struct DiffJson<'a> {
    from: Vec<String>,
    to: Vec<String>,
    changes: Vec<DifferenceJson<'a>>,
}

#[derive(Serialize)]
struct DifferenceJson<'a> {
    path: String,
    before: Option<&'a Value>,
    after: Option<&'a Value>,
    kind: &'static str,
}

impl<'a> DifferenceJson<'a> {
    fn new(difference: &'a Difference) -> Self {
        Self {
            path: difference.path.to_string(),
            before: difference.before.as_ref(),
            after: difference.after.as_ref(),
            kind: match (&difference.before, &difference.after) {
                (None, _) => "added",
                (Some(_), None) => "removed",
                (Some(_), Some(_)) => "changed",
            },
        }
    }
}

#[derive(Serialize)]
struct BlameJson<'a> {
    fields: Vec<FieldJson<'a>>,
}

#[derive(Serialize)]
struct FieldJson<'a> {
    path: String,
    value: &'a Value,
    region: Option<String>,
    author: Option<&'a str>,
    origin: String,
    client: bool,
    at: String,
    change: String,
}

impl<'a> FieldJson<'a> {
    fn new(state: &ApiState, blamed: &'a Blamed) -> Self {
        Self {
            path: blamed.path.to_string(),
            value: &blamed.value,
            region: region(state, blamed.leader),
            author: blamed.author.as_ref().map(|author| author.as_str()),
            origin: blamed.writer.to_string(),
            client: blamed.writer != blamed.leader,
            at: reply::rfc3339(blamed.at),
            change: blamed.change.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::response::IntoResponse;
    use serde_json::json;

    use super::*;

    fn check_point(text: &str, expected: Option<Point>) {
        assert_eq!(point(text).ok(), expected, "{text}");
    }

    #[test]
    fn a_point_is_heads_or_a_time() {
        let [one, two] = [ChangeHash([1; 32]), ChangeHash([0xab; 32])];
        check_point(&one.to_string(), Some(Point::Heads(vec![one])));
        check_point(&format!("{one},{two}"), Some(Point::Heads(vec![one, two])));
        let at = |micros| Some(Point::Time(Timestamp(micros)));
        check_point("2023-11-14T22:13:20Z", at(1_700_000_000_000_000));
        check_point("2023-11-14T22:13:20.1234567Z", at(1_700_000_000_123_456));
        check_point("2023-11-14T23:13:20+01:00", at(1_700_000_000_000_000));
        check_point("2023-11-14T23:13:20 01:00", at(1_700_000_000_000_000));
        check_point("1931-01-01T00:00:00Z", at(0));
        check_point("9999-12-31T23:59:59Z", at(Timestamp::MAX.0));
        let wide = vec![one.to_string(); POINT_HEADS + 1].join(",");
        for text in [
            "",
            ",",
            "now",
            "2023-11-14",
            "2023-11-14 22:13:20",
            "1700000000",
            &one.to_string()[1..],
            &wide,
        ] {
            check_point(text, None);
        }
    }

    #[test]
    fn a_reversion_says_where_to() {
        let hash = ChangeHash([7; 32]);
        let (to, note) = reversion(json!({"to": hash.to_string(), "note": "oops"})).unwrap();
        assert_eq!((to, note.as_deref()), (Point::Heads(vec![hash]), Some("oops")));
        let status = |body| reversion(body).unwrap_err().into_response().status().as_u16();
        assert_eq!(status(json!({"to": "yesterday"})), 400);
        let long = "x".repeat(NOTE_BYTES + 1);
        for body in [
            json!([]),
            json!({}),
            json!({"to": 1}),
            json!({"to": hash.to_string(), "x": 1}),
            json!({"to": hash.to_string(), "note": long}),
        ] {
            assert_eq!(status(body), 422);
        }
    }

    #[test]
    fn a_difference_says_what_became_of_a_place() {
        let one = |before, after| {
            let difference = Difference { path: "/a".parse().unwrap(), before, after };
            serde_json::to_value(DifferenceJson::new(&difference)).unwrap()
        };
        let json = |kind, before: Value, after: Value| json!({"path": "/a", "kind": kind, "before": before, "after": after});
        assert_eq!(one(None, Some(json!(1))), json("added", Value::Null, json!(1)));
        assert_eq!(one(Some(json!(1)), None), json("removed", json!(1), Value::Null));
        assert_eq!(one(Some(json!(null)), Some(json!(1))), json("changed", Value::Null, json!(1)));
    }
}
