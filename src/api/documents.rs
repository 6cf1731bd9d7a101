//! Documents over HTTP: `PUT`, `PATCH`, `GET`, `HEAD` and `DELETE`.

use anabranch_crdt::edit::{self, EditError};
use anabranch_crdt::ids::DocumentName;
use axum::body::Body;
use axum::extract::Request;
use axum::http::header::{ACCEPT, CONTENT_ENCODING, CONTENT_TYPE, LOCATION};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::Response;
use serde_json::Value;

use crate::document::{Document, Write, Written};

use super::consistency::Concern;
use super::error::Problem;
use super::precondition::{self, Conditions, Verdict};
use super::request::{
    Query, author, bad_query, document_name, is_media_type, no_query, prefers_minimal,
};
use super::{Answer, ApiState, body, epochs, history, reply, session};

/// The media type of a document.
pub(super) const JSON: &str = "application/json";
const MERGE_PATCH: &str = "application/merge-patch+json";
const JSON_PATCH: &str = "application/json-patch+json";
const EDITS: &str = "application/vnd.anabranch.edits+json";

/// The media types of `PATCH`, as its errors name them.
const PATCHES: HeaderValue = HeaderValue::from_static(
    "application/merge-patch+json, application/json-patch+json, application/vnd.anabranch.edits+json",
);

const ACCEPT_PATCH: HeaderName = HeaderName::from_static("accept-patch");
const PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");

/// `GET` and `HEAD`.
pub(super) async fn read(state: ApiState, request: Request) -> Answer {
    let (parts, _) = request.into_parts();
    let query = Query::parse(parts.uri.query(), &["at", "conflicts", "epoch"])?;
    let name = document_name(parts.uri.path())?;
    let with_conflicts = query.switch("conflicts")?;
    if let Some(epoch) = query.parsed::<u32>("epoch")? {
        if with_conflicts || query.text("at").is_some() {
            return Err(bad_query("'epoch' stands alone: an epoch shows what it showed last"));
        }
        return epochs::read(&state, &parts, &name, epoch).await;
    }
    if let Some(at) = query.text("at") {
        if with_conflicts {
            return Err(bad_query("conflicts are those of now: ask for 'at' or for 'conflicts'"));
        }
        return history::read_at(&state, &parts, &name, at).await;
    }
    let conditions = Conditions::parse(&parts.headers)?;
    session::catch_up(&state, &parts.headers).await?;
    let document = state.documents().read(&name).await?;
    // Taken after the read, so that the token includes everything the read has seen.
    let position = state.documents().position();
    let Some(document) = document else {
        let token = reply::session(&position.token);
        return Err(not_found(&name).with_header(reply::SESSION_TOKEN, token));
    };
    let mut response = answer(&conditions, &document)?;
    // Conflicts change when the document does not, so what the client has may be out of date.
    if with_conflicts {
        response = history::with_conflicts(&state, &name, &document).await?;
    }
    reply::describe(response.headers_mut(), &document);
    reply::set_session(response.headers_mut(), &position);
    Ok(response)
}

/// Answers with a document as it was, or that it was not there.
pub(super) fn answer_past(
    state: &ApiState,
    conditions: &Conditions,
    name: &DocumentName,
    document: Option<Document>,
) -> Answer {
    let position = state.documents().position();
    let Some(document) = document else {
        let problem = not_found(name);
        return Err(problem.with_header(reply::SESSION_TOKEN, reply::session(&position.token)));
    };
    let mut response = answer(conditions, &document)?;
    reply::describe(response.headers_mut(), &document);
    reply::set_session(response.headers_mut(), &position);
    Ok(response)
}

pub(super) fn answer(conditions: &Conditions, document: &Document) -> Answer {
    match conditions.judge(document.digest) {
        Verdict::Send => Ok(reply::json_bytes(StatusCode::OK, document.json.clone())),
        Verdict::NotModified => Ok(reply::empty(StatusCode::NOT_MODIFIED)),
        Verdict::Failed => Err(precondition::failed()),
    }
}

pub(super) fn not_found(name: &DocumentName) -> Problem {
    let detail = format!("there is no document '{name}'");
    Problem::new(StatusCode::NOT_FOUND, "document_not_found", detail)
}

/// `PUT`.
pub(super) async fn put(state: ApiState, request: Request) -> Answer {
    write(state, request, Format::of_put).await
}

/// `PATCH`.
pub(super) async fn patch(state: ApiState, request: Request) -> Answer {
    write(state, request, Format::of_patch).await
}

/// `DELETE`.
pub(super) async fn delete(state: ApiState, request: Request) -> Answer {
    let (parts, body) = request.into_parts();
    no_query(parts.uri.query())?;
    let name = document_name(parts.uri.path())?;
    let author = author(&parts.headers)?;
    let precondition = Conditions::parse(&parts.headers)?.for_write()?;
    let concern = Concern::of(&state, &parts.headers)?;
    drop(body);
    session::catch_up(&state, &parts.headers).await?;
    let written = state.documents().write(name, Write::Delete, author, precondition).await?;
    let mut response = written_reply(&parts.headers, parts.uri.path(), &written);
    concern.fulfil(&state, &written.position, &mut response).await;
    Ok(response)
}

async fn write(
    state: ApiState,
    request: Request,
    format: fn(&HeaderMap) -> Result<Format, Problem>,
) -> Answer {
    let (parts, mut body) = request.into_parts();
    let result = take(&state, &parts, &mut body, format).await;
    if result.is_err() {
        body::discard(&parts.headers, body).await;
    }
    result
}

async fn take(
    state: &ApiState,
    parts: &Parts,
    body: &mut Body,
    format: fn(&HeaderMap) -> Result<Format, Problem>,
) -> Answer {
    no_query(parts.uri.query())?;
    let name = document_name(parts.uri.path())?;
    let format = format(&parts.headers)?;
    let author = author(&parts.headers)?;
    let precondition = Conditions::parse(&parts.headers)?.for_write()?;
    let concern = Concern::of(state, &parts.headers)?;
    // Before the body, so that a waiting request holds none of the bytes in flight.
    session::catch_up(state, &parts.headers).await?;
    let payload = state.intake().json(body).await?;
    let write = format.write(payload.value)?;
    let written = state.documents().write(name, write, author, precondition).await?;
    drop(payload.held);
    let mut response = written_reply(&parts.headers, parts.uri.path(), &written);
    concern.fulfil(state, &written.position, &mut response).await;
    Ok(response)
}

/// What the body of a write holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Document,
    MergePatch,
    JsonPatch,
    Edits,
}

impl Format {
    fn of_put(headers: &HeaderMap) -> Result<Self, Problem> {
        expect_json(headers).map(|()| Self::Document)
    }

    fn of_patch(headers: &HeaderMap) -> Result<Self, Problem> {
        no_encoding(headers)?;
        let formats =
            [(MERGE_PATCH, Self::MergePatch), (JSON_PATCH, Self::JsonPatch), (EDITS, Self::Edits)];
        let is = |expected| media_type(headers).is_some_and(|value| is_media_type(value, expected));
        let found = formats.into_iter().find(|(expected, _)| is(*expected));
        found.map(|(_, format)| format).ok_or_else(|| {
            let detail = format!("PATCH takes {}", PATCHES.to_str().unwrap_or_default());
            unsupported(&detail).with_header(ACCEPT_PATCH, PATCHES)
        })
    }

    fn write(self, value: Value) -> Result<Write, Problem> {
        match self {
            Self::Document if !value.is_object() => {
                Err(not_an_object("the root of a document is an object"))
            }
            Self::MergePatch if !value.is_object() => Err(not_an_object(
                "a merge patch is an object; any other would replace the root of the document",
            )),
            Self::Document => Ok(Write::Put(value)),
            Self::MergePatch => Ok(Write::MergePatch(value)),
            Self::JsonPatch => Ok(Write::JsonPatch(value)),
            Self::Edits => edit::parse_edits(&value).map(Write::Edits).map_err(bad_edits),
        }
    }
}

/// Refuses a body that does not say it is JSON.
pub(super) fn expect_json(headers: &HeaderMap) -> Result<(), Problem> {
    no_encoding(headers)?;
    if media_type(headers).is_some_and(|value| is_media_type(value, JSON)) {
        return Ok(());
    }
    let problem = unsupported("the body is application/json, and Content-Type says so");
    Err(problem.with_header(ACCEPT, HeaderValue::from_static(JSON)))
}

fn media_type(headers: &HeaderMap) -> Option<&str> {
    headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok())
}

fn no_encoding(headers: &HeaderMap) -> Result<(), Problem> {
    match headers.get(CONTENT_ENCODING) {
        Some(value) if !value.as_bytes().eq_ignore_ascii_case(b"identity") => {
            Err(unsupported("bodies are taken without a Content-Encoding"))
        }
        _ => Ok(()),
    }
}

fn unsupported(detail: &str) -> Problem {
    Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", detail)
}

fn not_an_object(detail: &str) -> Problem {
    Problem::unprocessable("not_an_object", detail)
}

fn bad_edits(error: EditError) -> Problem {
    Problem::unprocessable("malformed_edit", error.to_string())
}

/// Makes the reply to a write of the document at `location`.
pub(super) fn written_reply(asked: &HeaderMap, location: &str, written: &Written) -> Response {
    let minimal = prefers_minimal(asked);
    let mut response = match &written.document {
        Some(document) if !minimal => {
            let status = if written.created { StatusCode::CREATED } else { StatusCode::OK };
            reply::json_bytes(status, document.json.clone())
        }
        Some(_) if written.created => reply::empty(StatusCode::CREATED),
        Some(_) | None => reply::empty(StatusCode::NO_CONTENT),
    };
    let headers = response.headers_mut();
    describe_write(headers, written);
    if minimal && written.document.is_some() {
        headers.insert(PREFERENCE_APPLIED, HeaderValue::from_static("return=minimal"));
    }
    if written.created
        && let Ok(location) = HeaderValue::from_str(location)
    {
        headers.insert(LOCATION, location);
    }
    response
}

/// Adds the headers that every reply to a write has.
pub(super) fn describe_write(headers: &mut HeaderMap, written: &Written) {
    if let Some(document) = &written.document {
        reply::describe(headers, document);
    }
    reply::set_session(headers, &written.position);
}

#[cfg(test)]
mod tests;
