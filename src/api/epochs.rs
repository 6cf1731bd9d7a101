//! Epochs over HTTP: undelete, compact, purge, and what there is of earlier epochs.

use std::time::Duration;

use anabranch_crdt::document::{Carrying, Closing, ClosingKind, inspect};
use anabranch_crdt::entry::Dot;
use anabranch_crdt::ids::{ChangeHash, DocumentId, DocumentName, Origin, Sequence};
use axum::body::Body;
use axum::extract::Request;
use axum::http::request::Parts;
use axum::response::Response;
use serde::Serialize;
use serde_json::{Value, json};

use crate::document::{Epoch, LateChange};
use crate::journal::SetAside;

use super::conflicts::NOTE_BYTES;
use super::documents::{self, expect_json};
use super::precondition::Conditions;
use super::request::{Query, author, bad_query, document_below, from_cursor, no_query, to_cursor};
use super::{Answer, ApiState, Problem, body, reply, session};

const UNDELETE: &str = "/v1/undelete/";
const COMPACT: &str = "/v1/compact/";
const PURGE: &str = "/v1/purge/";
const EPOCHS: &str = "/v1/epochs/";

/// How long closing a document waits for other regions when the request does not say.
const WAIT_DEFAULT: Duration = Duration::from_secs(10);

/// Seconds that closing a document waits for other regions at most.
const WAIT_SECONDS: u64 = 600;

/// Entries of one page at most.
const PAGE_ENTRIES: u64 = 1_000;

/// Entries of one page when the request does not say.
const PAGE_DEFAULT: u64 = 100;

/// `POST` that brings a deleted document back.
pub(super) async fn undelete(state: ApiState, request: Request) -> Answer {
    with_body(state, request, |state, parts, body| Box::pin(bring_back(state, parts, body))).await
}

/// `POST` that starts a new epoch.
pub(super) async fn compact(state: ApiState, request: Request) -> Answer {
    with_body(state, request, |state, parts, body| Box::pin(start_anew(state, parts, body))).await
}

/// `POST` that purges a deleted document.
pub(super) async fn purge(state: ApiState, request: Request) -> Answer {
    with_body(state, request, |state, parts, body| Box::pin(purge_one(state, parts, body))).await
}

/// `GET` of the epochs of a document.
pub(super) async fn list(state: ApiState, request: Request) -> Answer {
    let (parts, _) = request.into_parts();
    no_query(parts.uri.query())?;
    let name = document_below(EPOCHS, parts.uri.path())?;
    session::catch_up(&state, &parts.headers).await?;
    let epochs = state.documents().epochs(&name).await?;
    let told: Vec<Value> = epochs.iter().map(|epoch| epoch_json(&state, epoch)).collect();
    Ok(answer(&state, &json!({ "document": name.to_string(), "epochs": told })))
}

/// `GET` of entries that were set aside.
pub(super) async fn quarantine(state: ApiState, request: Request) -> Answer {
    let (parts, _) = request.into_parts();
    let query = Query::parse(parts.uri.query(), &["limit", "cursor"])?;
    let limit = query.number("limit", 1..=PAGE_ENTRIES, PAGE_DEFAULT)?;
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let after = query.text("cursor").map(|cursor| {
        from_cursor(cursor)
            .and_then(|text| place(&text))
            .ok_or_else(|| bad_query("the query parameter 'cursor' is what 'next' of a page says"))
    });
    let found = state.documents().set_aside(after.transpose()?, limit).await?;
    let next = found.last().filter(|_| found.len() == limit).map(|aside| {
        let dot = aside.entry.dot();
        to_cursor(&format!("{} {} {}", aside.entry.document, dot.origin, dot.sequence))
    });
    let counts = state.documents().epoch_counts()?;
    let entries: Vec<Value> = found.iter().map(|aside| aside_json(&state, aside)).collect();
    let told = json!({ "entries": entries, "total": counts.set_aside, "next": next });
    Ok(answer(&state, &told))
}

/// `GET` of a document as an earlier epoch showed it last.
pub(super) async fn read(
    state: &ApiState,
    parts: &Parts,
    name: &DocumentName,
    epoch: u32,
) -> Answer {
    let conditions = Conditions::parse(&parts.headers)?;
    session::catch_up(state, &parts.headers).await?;
    let document = state.documents().archived(name, epoch).await?;
    documents::answer_past(state, &conditions, name, document)
}

type Work<'a> = futures::future::BoxFuture<'a, Answer>;

async fn with_body(
    state: ApiState,
    request: Request,
    run: impl for<'a> FnOnce(&'a ApiState, &'a Parts, &'a mut Body) -> Work<'a>,
) -> Answer {
    let (parts, mut body) = request.into_parts();
    let result = run(&state, &parts, &mut body).await;
    if result.is_err() {
        body::discard(&parts.headers, body).await;
    }
    result
}

async fn bring_back(state: &ApiState, parts: &Parts, body: &mut Body) -> Answer {
    let name = document_below(UNDELETE, parts.uri.path())?;
    let author = author(&parts.headers)?;
    let precondition = Conditions::parse(&parts.headers)?.for_write()?;
    let Wish { note, .. } = wish(state, parts, body).await?;
    let written = state.documents().undelete(name, note, author, precondition).await?;
    let location = parts.uri.path().replacen(UNDELETE, "/v1/docs/", 1);
    Ok(documents::written_reply(&parts.headers, &location, &written))
}

async fn start_anew(state: &ApiState, parts: &Parts, body: &mut Body) -> Answer {
    let name = document_below(COMPACT, parts.uri.path())?;
    let author = author(&parts.headers)?;
    let precondition = Conditions::parse(&parts.headers)?.for_write()?;
    let Wish { note, wait } = wish(state, parts, body).await?;
    let documents = state.documents();
    let compacted = documents.compact(name.clone(), note, author, precondition, wait).await;
    let compacted = compacted.map_err(|error| directed(state, error))?;
    let epochs = documents.epochs(&name).await?;
    let told = json!({
        "document": name.to_string(),
        "epoch": epochs.last().map(|epoch| epoch.number),
        "id": epochs.last().map(|epoch| epoch.id.to_string()),
        "archived_changes": compacted.changes,
    });
    let mut response = reply::json(&told);
    documents::describe_write(response.headers_mut(), &compacted.written);
    Ok(response)
}

async fn purge_one(state: &ApiState, parts: &Parts, body: &mut Body) -> Answer {
    let name = document_below(PURGE, parts.uri.path())?;
    let author = author(&parts.headers)?;
    let Wish { note, wait } = wish(state, parts, body).await?;
    let written = state.documents().purge(name, note, author, wait).await?;
    Ok(documents::written_reply(&parts.headers, parts.uri.path(), &written))
}

/// What a body asks for.
struct Wish {
    note: Option<String>,
    wait: Duration,
}

/// Reads `{"note", "wait_seconds"}`, both as one likes.
async fn wish(state: &ApiState, parts: &Parts, body: &mut Body) -> Result<Wish, Problem> {
    no_query(parts.uri.query())?;
    expect_json(&parts.headers)?;
    session::catch_up(state, &parts.headers).await?;
    let payload = state.intake().json(body).await?;
    let Value::Object(mut members) = payload.value else { return Err(bad_epoch(SHAPE)) };
    let note = match members.remove("note") {
        None | Some(Value::Null) => None,
        Some(Value::String(note)) if note.len() <= NOTE_BYTES => Some(note),
        Some(_) => {
            return Err(bad_epoch(&format!("'note' is text of at most {NOTE_BYTES} bytes")));
        }
    };
    let wait = match members.remove("wait_seconds").map(|wait| wait.as_u64()) {
        None => WAIT_DEFAULT,
        Some(Some(seconds)) if seconds <= WAIT_SECONDS => Duration::from_secs(seconds),
        Some(_) => {
            let detail = format!("'wait_seconds' is a whole number up to {WAIT_SECONDS}");
            return Err(bad_epoch(&detail));
        }
    };
    match members.keys().next() {
        Some(name) => Err(bad_epoch(&format!("unknown member '{name}': {SHAPE}"))),
        None => Ok(Wish { note, wait }),
    }
}

const SHAPE: &str = "the body is {}, with a \"note\" and \"wait_seconds\" if you like";

fn bad_epoch(detail: &str) -> Problem {
    Problem::unprocessable("bad_epoch", detail)
}

/// Says where the region is that compacts.
fn directed(state: &ApiState, error: crate::error::Error) -> Problem {
    let elsewhere = error.code() == "other_leader";
    let problem = Problem::from(error);
    let leader = state.documents().compacting_region().filter(|_| elsewhere);
    let members = state.0.sources.transport.members();
    let members = members.borrow();
    let contact = |leader| members.get(&leader)?.contact.clone();
    match leader.and_then(contact) {
        Some(contact) => {
            problem.with_member("leader", Value::from(format!("http://{}", contact.http)))
        }
        None => problem,
    }
}

fn answer(state: &ApiState, json: &impl Serialize) -> Response {
    let mut response = reply::json(json);
    reply::set_session(response.headers_mut(), &state.documents().position());
    response
}

fn epoch_json(state: &ApiState, epoch: &Epoch) -> Value {
    let closings = epoch.closings.iter().map(closing_json);
    let late = epoch.late.iter().map(|late| late_json(state, late));
    json!({
        "epoch": epoch.number,
        "id": epoch.id.to_string(),
        "state": match epoch.closed {
            None => "current",
            Some(ClosingKind::Compact) => "compacted",
            Some(ClosingKind::Purge) => "purged",
        },
        "changes": epoch.changes,
        "closed": closings.collect::<Vec<_>>(),
        "late": late.collect::<Vec<_>>(),
    })
}

fn closing_json(closing: &Closing) -> Value {
    json!({
        "change": closing.change.to_string(),
        "at": reply::rfc3339(closing.at),
        "author": closing.author.as_ref().map(ToString::to_string),
        "note": closing.note,
    })
}

fn late_json(state: &ApiState, late: &LateChange) -> Value {
    let (became, change, detail) = match &late.carried.became {
        Carrying::Known(change) => ("merged", Some(*change), None),
        Carrying::Made(_) | Carrying::Waiting => ("waiting", None, None),
        Carrying::Nothing => ("nothing", None, None),
        Carrying::Unplaced(reason) => ("unplaced", None, Some(reason.clone())),
        Carrying::Purged => ("purged", None, None),
    };
    let region = late.leader.and_then(|leader| state.documents().region_of(leader));
    json!({
        "change": late.carried.late.to_string(),
        "region": region.map(|region| region.to_string()),
        "became": became,
        "merged_as": change.as_ref().map(ChangeHash::to_string),
        "detail": detail,
    })
}

fn aside_json(state: &ApiState, aside: &SetAside) -> Value {
    let entry = &aside.entry;
    let change = inspect(&entry.change).ok();
    let message = change.as_ref().map(|change| &change.message);
    json!({
        "document": aside.name.as_ref().map(ToString::to_string),
        "document_id": entry.document.to_string(),
        "origin": entry.origin.to_string(),
        "region": state.documents().region_of(entry.origin).map(|region| region.to_string()),
        "sequence": entry.sequence.0,
        "at": reply::rfc3339(entry.admitted),
        "reason": "purged",
        "change": change.as_ref().map(|change| change.hash.to_string()),
        "author": message.and_then(|message| message.author.as_ref()).map(ToString::to_string),
        "operations": change.as_ref().map(|change| change.operations),
        "bytes": entry.change.len(),
        "data": hex(&entry.change),
    })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Reads where a page ended.
fn place(text: &str) -> Option<(DocumentId, Dot)> {
    let mut parts = text.split(' ');
    let document = DocumentId(parts.next()?.parse().ok()?);
    let origin = Origin(parts.next()?.parse().ok()?);
    let sequence = Sequence(parts.next()?.parse().ok()?);
    parts.next().is_none().then_some((document, Dot { origin, sequence }))
}
