//! The ledger of conflicts over HTTP: list, show, settle.

mod bulk;
mod row;
mod settle;

use anabranch_crdt::conflict::ConflictId;
use axum::extract::Request;
use axum::http::header::{ALLOW, ETAG};
use axum::http::{HeaderValue, StatusCode};
use serde::Serialize;

use crate::document::{ConflictFilter, NamedConflict};

use super::request::{Query, no_query};
use super::{Answer, ApiState, Problem, ledger, reply, session};

pub(super) use self::bulk::{dismiss_all, reopen_all, resolve_all};
pub(super) use self::row::ConflictJson;
use self::settle::Verb;
pub(super) use self::settle::{NOTE_BYTES, act};

/// Conflicts of one page at most.
const PAGE_CONFLICTS: u64 = 1_000;

/// Conflicts of one page when the request does not say.
const PAGE_DEFAULT: u64 = 100;

const PREFIX: &str = "/v1/conflicts/";

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
        Target::Action(_, _) => return Err(method_not_allowed("POST")),
    };
    session::catch_up(&state, &parts.headers).await?;
    let conflict = state.documents().conflict(id).await?;
    let mut response = reply::json(&to_json(&state, &conflict));
    response.headers_mut().insert(ETAG, settle::etag(conflict.conflict.revision()));
    reply::set_session(response.headers_mut(), &state.documents().position());
    Ok(response)
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
    Action(ConflictId, Verb),
}

fn target(path: &str) -> Result<Target, Problem> {
    let last = path.strip_prefix(PREFIX).unwrap_or_default();
    let verb = Verb::ALL.into_iter().find_map(|verb| {
        let id = last.strip_suffix(verb.name())?.strip_suffix(':')?;
        Some((id, verb))
    });
    let (id, verb) = verb.map_or((last, None), |(id, verb)| (id, Some(verb)));
    let id: Result<ConflictId, _> = id.parse();
    let id = id.map_err(|error| Problem::bad_request("bad_conflict_id", format!("{error}")))?;
    Ok(verb.map_or(Target::Conflict(id), |verb| Target::Action(id, verb)))
}

fn method_not_allowed(allowed: &'static str) -> Problem {
    let detail = format!("this route takes {allowed}");
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", detail)
        .with_header(ALLOW, HeaderValue::from_static(allowed))
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
