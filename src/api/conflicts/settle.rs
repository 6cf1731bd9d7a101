//! `POST` of an action on one conflict: resolve, dismiss, reopen, undo.

use anabranch_crdt::conflict::{ConflictId, Revision};
use anabranch_crdt::policy::Policy;
use axum::body::Body;
use axum::extract::Request;
use axum::http::header::IF_MATCH;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue};
use serde_json::{Map, Value};

use crate::document::Settling;
use crate::error::{Error, ErrorKind};

use super::{Target, method_not_allowed, target, to_json};
use crate::api::consistency::Concern;
use crate::api::documents::{describe_write, expect_json};
use crate::api::request::{author, elements, no_query};
use crate::api::{Answer, ApiState, Problem, body, reply, session};

/// Bytes of a note: it is kept in the history of the document for ever.
pub(in crate::api) const NOTE_BYTES: usize = 1_024;

/// What can be done about a conflict.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verb {
    Resolve,
    Dismiss,
    Reopen,
    Undo,
}

impl Verb {
    /// Every verb.
    pub(super) const ALL: [Self; 4] = [Self::Resolve, Self::Dismiss, Self::Reopen, Self::Undo];

    /// How paths name it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Resolve => "resolve",
            Self::Dismiss => "dismiss",
            Self::Reopen => "reopen",
            Self::Undo => "undo",
        }
    }

    /// Reads what a body says besides its note.
    fn settling(self, body: &mut Map<String, Value>) -> Result<Settling, Problem> {
        match self {
            Self::Resolve => way(body).map(|way| match way {
                Way::Take(id) => Settling::Take(id),
                Way::Other(settling) => settling,
            }),
            Self::Dismiss => Ok(Settling::Dismiss),
            Self::Reopen => Ok(Settling::Reopen),
            Self::Undo => Ok(Settling::Undo),
        }
    }
}

/// `POST` of an action on one conflict.
pub(in crate::api) async fn act(state: ApiState, request: Request) -> Answer {
    let (parts, mut body) = request.into_parts();
    let result = settle(&state, &parts, &mut body).await;
    if result.is_err() {
        body::discard(&parts.headers, body).await;
    }
    result
}

async fn settle(state: &ApiState, parts: &Parts, body: &mut Body) -> Answer {
    no_query(parts.uri.query())?;
    let (id, verb) = match target(parts.uri.path())? {
        Target::Action(id, verb) => (id, verb),
        Target::Conflict(_) => return Err(method_not_allowed("GET,HEAD")),
    };
    expect_json(&parts.headers)?;
    let author = author(&parts.headers)?;
    let expected = expected(&parts.headers)?;
    let concern = Concern::of(state, &parts.headers)?;
    session::catch_up(state, &parts.headers).await?;
    let payload = state.intake().json(body).await?;
    let (settling, note) = order(verb, payload.value)?;
    let settled = match expected {
        Expected::Foreign => Err(changed()),
        Expected::Any => state.documents().settle(id, settling, None, note, author).await,
        Expected::Revision(revision) => {
            state.documents().settle(id, settling, Some(revision), note, author).await
        }
    };
    drop(payload.held);
    let (conflict, written) = match settled {
        Ok(settled) => settled,
        Err(error) => return Err(refused(state, id, error).await),
    };
    let mut response = reply::json(&to_json(state, &conflict));
    describe_write(response.headers_mut(), &written);
    concern.fulfil(state, &written.position, &mut response).await;
    Ok(response)
}

/// Shows who is refused because of what the conflict is by now what that is.
async fn refused(state: &ApiState, id: ConflictId, error: Error) -> Problem {
    let by_state = matches!(error.kind(), ErrorKind::Conflict | ErrorKind::Precondition);
    let problem = Problem::from(error);
    if !by_state {
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

/// The row that a request is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expected {
    Any,
    Revision(Revision),
    /// An entity tag that no row has.
    Foreign,
}

fn expected(headers: &HeaderMap) -> Result<Expected, Problem> {
    let mut tags = elements(headers, &IF_MATCH);
    match (tags.next(), tags.next(), headers.contains_key(IF_MATCH)) {
        (None, None, false) => Ok(Expected::Any),
        (Some("*"), None, _) => Ok(Expected::Any),
        (Some(tag), None, _) => {
            let strong = tag.strip_prefix("W/").unwrap_or(tag);
            let opaque = strong.strip_prefix('"').and_then(|tag| tag.strip_suffix('"'));
            let opaque = opaque.ok_or_else(bad_tag)?;
            // Weak tags never match, as RFC 9110 has it.
            let revision = opaque.parse().ok().filter(|_| tag == strong);
            Ok(revision.map_or(Expected::Foreign, Expected::Revision))
        }
        (_, _, _) => Err(bad_tag()),
    }
}

fn bad_tag() -> Problem {
    let detail = "If-Match has the revision of the conflict in quotes, or is *";
    Problem::bad_request("bad_precondition", detail)
}

fn changed() -> Error {
    let message = "the conflict is not what the request expects: read it again, then decide";
    Error::new(ErrorKind::Precondition, "conflict_changed", message)
}

/// The entity tag of a row.
pub(super) fn etag(revision: Revision) -> HeaderValue {
    HeaderValue::from_str(&format!("\"{revision}\"")).expect("hexadecimal digits and quotes")
}

/// Reads the body of an action.
pub(super) fn order(verb: Verb, body: Value) -> Result<(Settling, Option<String>), Problem> {
    let Value::Object(mut body) = body else { return Err(bad("the body is a JSON object")) };
    let note = note(&mut body)?;
    let settling = verb.settling(&mut body)?;
    nothing_else(&body)?;
    Ok((settling, note))
}

/// The ways to resolve a conflict, as bodies name them.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Way {
    /// A candidate by its id, or for many conflicts by a rule.
    Take(String),
    Other(Settling),
}

/// Takes the one way to resolve out of a body.
pub(super) fn way(body: &mut Map<String, Value>) -> Result<Way, Problem> {
    let mut found = WAYS.into_iter().filter_map(|name| Some((name, body.remove(name)?)));
    let (Some((name, value)), None) = (found.next(), found.next()) else {
        return Err(bad(&format!("give exactly one of {}", WAYS.join(", "))));
    };
    match (name, value) {
        ("take", Value::String(candidate)) => Ok(Way::Take(candidate)),
        ("take", _) => Err(bad("'take' is text")),
        ("value", value) => Ok(Way::Other(Settling::Value(value))),
        ("delete", Value::Bool(true)) => Ok(Way::Other(Settling::Delete)),
        ("merge", Value::Bool(true)) => Ok(Way::Other(Settling::Merge)),
        ("policy", Value::String(policy)) => {
            let policy: Policy =
                policy.parse().map_err(|error| bad(&format!("'policy': {error}")))?;
            match policy {
                Policy::Manual => Err(bad("the policy manual leaves every conflict to people")),
                Policy::Auto
                | Policy::Lww
                | Policy::First
                | Policy::Max
                | Policy::Min
                | Policy::RegionPriority => Ok(Way::Other(Settling::Policy(policy))),
            }
        }
        ("policy", _) => Err(bad("'policy' is the name of a policy")),
        (name, _) => Err(bad(&format!("'{name}' is true, or is left out"))),
    }
}

/// Takes the note out of a body.
pub(super) fn note(body: &mut Map<String, Value>) -> Result<Option<String>, Problem> {
    match body.remove("note") {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(note)) if note.len() <= NOTE_BYTES => Ok(Some(note)),
        Some(_) => Err(bad(&format!("'note' is text of at most {NOTE_BYTES} bytes"))),
    }
}

/// Refuses members that nobody has taken.
pub(super) fn nothing_else(body: &Map<String, Value>) -> Result<(), Problem> {
    match body.keys().next() {
        Some(name) => Err(bad(&format!("unknown member '{name}'"))),
        None => Ok(()),
    }
}

pub(super) fn bad(detail: &str) -> Problem {
    Problem::unprocessable("bad_resolution", detail)
}

const WAYS: [&str; 5] = ["take", "value", "delete", "merge", "policy"];

#[cfg(test)]
mod tests;
