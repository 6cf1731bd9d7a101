//! The ledger of conflicts over HTTP: list, show, resolve.

mod row;

use anabranch_crdt::conflict::ConflictId;
use axum::body::Body;
use axum::extract::Request;
use axum::http::header::ALLOW;
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode};
use serde::Serialize;
use serde_json::{Map, Value};

use crate::document::{ConflictFilter, NamedConflict, Resolution};
use crate::error::Error;

use super::documents::{describe_write, expect_json};
use super::request::{Query, author, no_query};
use super::{Answer, ApiState, Problem, body, ledger, reply, session};

pub(super) use self::row::ConflictJson;

/// Conflicts of one page at most.
const PAGE_CONFLICTS: u64 = 1_000;

/// Conflicts of one page when the request does not say.
const PAGE_DEFAULT: u64 = 100;

/// Bytes of a note: it is kept in the history of the document for ever.
pub(super) const NOTE_BYTES: usize = 1_024;

const PREFIX: &str = "/v1/conflicts/";
const RESOLVE: &str = ":resolve";

/// `GET` of the ledger.
pub(super) async fn list(state: ApiState, request: Request) -> Answer {
    let (parts, _) = request.into_parts();
    let filter = filter(parts.uri.query())?;
    session::catch_up(&state, &parts.headers).await?;
    let found = state.documents().conflicts(filter).await?;
    let page = PageJson {
        conflicts: found.conflicts.iter().map(|conflict| to_json(&state, conflict)).collect(),
        total: found.total,
        next: found.next.map(|next| next.to_string()),
    };
    let mut response = reply::json(&page);
    reply::set_session(response.headers_mut(), &state.documents().position());
    Ok(response)
}

/// `GET` of one conflict.
pub(super) async fn read(state: ApiState, request: Request) -> Answer {
    let (parts, _) = request.into_parts();
    no_query(parts.uri.query())?;
    let id = match target(parts.uri.path())? {
        Target::Conflict(id) => id,
        Target::Resolution(_) => return Err(method_not_allowed("POST")),
    };
    session::catch_up(&state, &parts.headers).await?;
    let conflict = state.documents().conflict(id).await?;
    let mut response = reply::json(&to_json(&state, &conflict));
    reply::set_session(response.headers_mut(), &state.documents().position());
    Ok(response)
}

/// `POST` of an action on one conflict.
pub(super) async fn act(state: ApiState, request: Request) -> Answer {
    let (parts, mut body) = request.into_parts();
    let result = resolve(&state, &parts, &mut body).await;
    if result.is_err() {
        body::discard(&parts.headers, body).await;
    }
    result
}

async fn resolve(state: &ApiState, parts: &Parts, body: &mut Body) -> Answer {
    no_query(parts.uri.query())?;
    let id = match target(parts.uri.path())? {
        Target::Resolution(id) => id,
        Target::Conflict(_) => return Err(method_not_allowed("GET,HEAD")),
    };
    expect_json(&parts.headers)?;
    session::catch_up(state, &parts.headers).await?;
    let payload = state.intake().json(body).await?;
    let (resolution, note) = resolution(payload.value)?;
    let author = author(&parts.headers)?;
    let resolved = state.documents().resolve(id, resolution, note, author).await;
    drop(payload.held);
    let (conflict, written) = match resolved {
        Ok(resolved) => resolved,
        Err(error) => return Err(refused(state, id, error).await),
    };
    let mut response = reply::json(&to_json(state, &conflict));
    describe_write(response.headers_mut(), &written);
    Ok(response)
}

/// Shows the second of two resolvers what the first one did.
async fn refused(state: &ApiState, id: ConflictId, error: Error) -> Problem {
    let resolved = error.code() == "already_resolved";
    let problem = Problem::from(error);
    if !resolved {
        return problem;
    }
    match state.documents().conflict(id).await {
        Ok(conflict) => {
            let json = serde_json::to_value(to_json(state, &conflict)).unwrap_or_default();
            problem.with_member("conflict", json)
        }
        // The first error says what matters.
        Err(_) => problem,
    }
}

fn filter(query: Option<&str>) -> Result<ConflictFilter, Problem> {
    let known = [&ledger::FILTERS[..], &["since", "until", "limit", "cursor"]].concat();
    let query = Query::parse(query, &known)?;
    let limit = query.number("limit", 1..=PAGE_CONFLICTS, PAGE_DEFAULT)?;
    Ok(ConflictFilter {
        since: ledger::time(&query, "since")?,
        until: ledger::time(&query, "until")?,
        after: query.parsed("cursor")?,
        limit: usize::try_from(limit).unwrap_or(usize::MAX),
        ..ledger::filter(&query)?
    })
}

/// What a path below the ledger names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Target {
    Conflict(ConflictId),
    Resolution(ConflictId),
}

fn target(path: &str) -> Result<Target, Problem> {
    let last = path.strip_prefix(PREFIX).unwrap_or_default();
    let (id, make): (&str, fn(ConflictId) -> Target) = match last.strip_suffix(RESOLVE) {
        Some(id) => (id, Target::Resolution),
        None => (last, Target::Conflict),
    };
    let parsed = id.parse().map(make);
    parsed.map_err(|error| Problem::bad_request("bad_conflict_id", format!("{error}")))
}

pub(super) fn method_not_allowed(allowed: &'static str) -> Problem {
    let detail = format!("this route takes {allowed}");
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", detail)
        .with_header(ALLOW, HeaderValue::from_static(allowed))
}

/// Reads the body of a resolution.
fn resolution(body: Value) -> Result<(Resolution, Option<String>), Problem> {
    let Value::Object(mut body) = body else { return Err(bad_resolution(SHAPE)) };
    let note = note(&mut body)?;
    let resolution = match (body.remove("take"), body.remove("value")) {
        (Some(Value::String(candidate)), None) => Resolution::Take(candidate),
        (None, Some(value)) => Resolution::Value(value),
        (Some(_), None) => return Err(bad_resolution("'take' is the id of a candidate, as text")),
        (Some(_), Some(_)) => return Err(bad_resolution("give 'take' or 'value', not both")),
        (None, None) => return Err(bad_resolution(SHAPE)),
    };
    match body.keys().next() {
        Some(name) => Err(bad_resolution(&format!("unknown member '{name}': {SHAPE}"))),
        None => Ok((resolution, note)),
    }
}

const SHAPE: &str =
    "the body is {\"take\": \"<candidate id>\"} or {\"value\": …}, with a \"note\" if you like";

fn note(body: &mut Map<String, Value>) -> Result<Option<String>, Problem> {
    match body.remove("note") {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(note)) if note.len() <= NOTE_BYTES => Ok(Some(note)),
        Some(_) => Err(bad_resolution(&format!("'note' is text of at most {NOTE_BYTES} bytes"))),
    }
}

fn bad_resolution(detail: &str) -> Problem {
    Problem::unprocessable("bad_resolution", detail)
}

#[derive(Serialize)]
struct PageJson<'a> {
    conflicts: Vec<ConflictJson<'a>>,
    total: u64,
    next: Option<String>,
}

pub(super) fn to_json<'a>(state: &ApiState, named: &'a NamedConflict) -> ConflictJson<'a> {
    ConflictJson::new(named, &|origin| state.documents().region_of(origin))
}

#[cfg(test)]
mod tests;
