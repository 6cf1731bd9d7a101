//! The ledger of conflicts over HTTP: list, show, resolve.

use anabranch_crdt::conflict::{Candidate, Conflict, ConflictId, ConflictKind, ConflictState};
use anabranch_crdt::ids::{Origin, RegionName};
use anabranch_crdt::policy::Policy;
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
use super::request::{Query, no_query};
use super::{Answer, ApiState, Problem, body, ledger, reply, session};

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
    let resolved = state.documents().resolve(id, resolution, note).await;
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

fn method_not_allowed(allowed: &'static str) -> Problem {
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

pub(super) fn to_json<'a>(state: &ApiState, named: &'a NamedConflict) -> ConflictJson<'a> {
    ConflictJson::new(named, &|origin| state.documents().region_of(origin))
}

/// Finds the region of an origin.
type RegionOf<'a> = &'a dyn Fn(Origin) -> Option<RegionName>;

/// A conflict as it is told; stable, and described in OpenAPI.
#[derive(Serialize)]
pub(super) struct ConflictJson<'a> {
    id: String,
    document: Option<String>,
    document_id: String,
    path: String,
    kind: String,
    policy: String,
    state: String,
    winner: Option<&'a str>,
    why: &'static str,
    candidates: Vec<CandidateJson<'a>>,
    settled: Option<SettledJson<'a>>,
}

#[derive(Serialize)]
struct CandidateJson<'a> {
    id: &'a str,
    value: Option<&'a Value>,
    deleted: bool,
    region: Option<String>,
    origin: String,
    at: String,
    change: String,
}

#[derive(Serialize)]
struct SettledJson<'a> {
    region: Option<String>,
    origin: String,
    at: String,
    change: String,
    note: Option<&'a str>,
}

#[derive(Serialize)]
struct PageJson<'a> {
    conflicts: Vec<ConflictJson<'a>>,
    total: u64,
    next: Option<String>,
}

impl<'a> ConflictJson<'a> {
    fn new(named: &'a NamedConflict, region_of: RegionOf<'_>) -> Self {
        let conflict = &named.conflict;
        let winner = conflict.winner.and_then(|index| conflict.candidates.get(index));
        let candidate = |candidate| CandidateJson::new(candidate, region_of);
        Self {
            id: conflict.id.to_string(),
            document: named.name.as_ref().map(ToString::to_string),
            document_id: conflict.document.to_string(),
            path: conflict.path.to_string(),
            kind: conflict.kind.to_string(),
            policy: conflict.policy.to_string(),
            state: conflict.state.to_string(),
            winner: winner.map(|candidate| candidate.id.as_str()),
            why: why(conflict),
            candidates: conflict.candidates.iter().map(candidate).collect(),
            settled: conflict.settled.as_ref().map(|settled| SettledJson {
                region: region_of(settled.origin).map(|region| region.to_string()),
                origin: settled.origin.to_string(),
                at: reply::rfc3339(settled.at),
                change: settled.change.to_string(),
                note: settled.note.as_deref(),
            }),
        }
    }
}

impl<'a> CandidateJson<'a> {
    fn new(candidate: &'a Candidate, region_of: RegionOf<'_>) -> Self {
        Self {
            id: &candidate.id,
            value: candidate.value.as_ref(),
            deleted: candidate.value.is_none(),
            region: region_of(candidate.origin).map(|region| region.to_string()),
            origin: candidate.origin.to_string(),
            at: reply::rfc3339(candidate.at),
            change: candidate.change.to_string(),
        }
    }
}

/// Says by which rule the value that shows was chosen.
fn why(conflict: &Conflict) -> &'static str {
    match (conflict.state, conflict.policy, conflict.kind) {
        (ConflictState::Resolved, _, _) => "resolved: a later write superseded every candidate",
        (ConflictState::Open, Policy::Auto, _) => {
            "auto: Automerge's deterministic winner shows until someone chooses"
        }
        (ConflictState::AutoResolved, Policy::Auto, ConflictKind::Container) => {
            "auto: what was created twice under one key is merged"
        }
        (ConflictState::AutoResolved, Policy::Auto, ConflictKind::Delete) => {
            "auto: a write wins over a concurrent delete"
        }
        (ConflictState::AutoResolved, Policy::Auto, ConflictKind::Value | ConflictKind::Type) => {
            "auto: Automerge's deterministic winner"
        }
        (ConflictState::Open | ConflictState::AutoResolved, Policy::Lww, _) => {
            "lww: greatest timestamp, then greatest origin"
        }
    }
}

#[cfg(test)]
mod tests;
