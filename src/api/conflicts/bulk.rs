//! `POST` of an action on many conflicts: by a filter, streamed as lines of JSON.
//!
//! The stream is pulled, so a slow reader slows down nothing but its own request, and when it goes
//! away nothing more is settled.

use anabranch_crdt::conflict::ConflictState;
use axum::body::Body;
use axum::extract::Request;
use axum::http::HeaderValue;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::request::Parts;
use axum::response::Response;
use bytes::Bytes;
use futures::stream::{BoxStream, ReadyChunks};
use futures::{StreamExt as _, stream};
use serde::Serialize;
use serde_json::{Map, Value};
use tokio::sync::watch;

use crate::document::{Bulk, Choice, ConflictFilter, Fate, Settled, Settling};
use crate::error::Error;

use super::settle::{Verb, Way, bad, note, nothing_else, way};
use crate::api::consistency::Concern;
use crate::api::documents::expect_json;
use crate::api::ledger::parse_time;
use crate::api::request::{author, no_query};
use crate::api::{Answer, ApiState, Problem, body, reply, serve, session};

/// Conflicts that one request settles at most, and when it does not say.
const MOST: u64 = 100_000;

/// Lines of one chunk at most.
const CHUNK_LINES: usize = 64;

/// `POST /v1/conflicts:resolve`.
pub(in crate::api) async fn resolve_all(state: ApiState, request: Request) -> Answer {
    act(state, request, Verb::Resolve).await
}

/// `POST /v1/conflicts:dismiss`.
pub(in crate::api) async fn dismiss_all(state: ApiState, request: Request) -> Answer {
    act(state, request, Verb::Dismiss).await
}

/// `POST /v1/conflicts:reopen`.
pub(in crate::api) async fn reopen_all(state: ApiState, request: Request) -> Answer {
    act(state, request, Verb::Reopen).await
}

async fn act(state: ApiState, request: Request, verb: Verb) -> Answer {
    let (parts, mut body) = request.into_parts();
    let result = settle(&state, &parts, &mut body, verb).await;
    if result.is_err() {
        body::discard(&parts.headers, body).await;
    }
    result
}

async fn settle(state: &ApiState, parts: &Parts, body: &mut Body, verb: Verb) -> Answer {
    no_query(parts.uri.query())?;
    expect_json(&parts.headers)?;
    let author = author(&parts.headers)?;
    let concern = Concern::of(state, &parts.headers)?;
    session::catch_up(state, &parts.headers).await?;
    let payload = state.intake().json(body).await?;
    let bulk = Bulk { author, ..bulk(verb, payload.value)? };
    drop(payload.held);
    let lines = Lines {
        settled: state.documents().settle_all(bulk).boxed().ready_chunks(CHUNK_LINES),
        closing: state.closing().subscribe(),
        verb,
        summary: Summary { done: true, ..Summary::default() },
        ended: false,
        state: state.clone(),
        concern,
    };
    let chunks = stream::unfold(lines, |mut lines| async move {
        let chunk = lines.chunk().await?;
        Some((Ok::<_, std::convert::Infallible>(chunk), lines))
    });
    let mut response = Response::new(Body::from_stream(chunks));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

/// Reads the body of an action on many conflicts.
fn bulk(verb: Verb, body: Value) -> Result<Bulk, Problem> {
    let Value::Object(mut body) = body else { return Err(bad("the body is a JSON object")) };
    let note = note(&mut body)?;
    let all = switch(&mut body, "all")?;
    let rehearsal = switch(&mut body, "dry_run")?;
    let limit = match body.remove("limit") {
        None => MOST,
        Some(limit) => {
            let limit = limit.as_u64().filter(|limit| (1..=MOST).contains(limit));
            limit.ok_or_else(|| bad(&format!("'limit' is a number from 1 to {MOST}")))?
        }
    };
    let mut filter = match body.remove("filter") {
        None => ConflictFilter::default(),
        Some(Value::Object(members)) => filter(members)?,
        Some(_) => return Err(bad("'filter' is an object")),
    };
    if !all && filter == ConflictFilter::default() {
        let detail = "an empty filter means every conflict: say so with \"all\": true";
        return Err(Problem::unprocessable("empty_filter", detail));
    }
    filter.limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let choice = match verb {
        Verb::Resolve => choice(way(&mut body)?)?,
        Verb::Dismiss => Choice::Each(Settling::Dismiss),
        Verb::Reopen | Verb::Undo => Choice::Each(Settling::Reopen),
    };
    nothing_else(&body)?;
    let settled = choice == Choice::Each(Settling::Reopen);
    filter.state = filter.state.or((!settled).then_some(ConflictState::Open));
    Ok(Bulk { filter, choice, note, author: None, rehearsal })
}

fn choice(way: Way) -> Result<Choice, Problem> {
    let rule = match way {
        Way::Other(settling) => return Ok(Choice::Each(settling)),
        Way::Take(rule) => rule,
    };
    match rule.as_str() {
        "latest" => Ok(Choice::Latest),
        "earliest" => Ok(Choice::Earliest),
        "winner" => Ok(Choice::Winner),
        other => {
            let region = other.strip_prefix("region:").ok_or_else(|| {
                bad("'take' is latest, earliest, winner, or region: and the name of a region")
            })?;
            region.parse().map(Choice::Region).map_err(|error| bad(&format!("'take': {error}")))
        }
    }
}

fn switch(body: &mut Map<String, Value>, name: &str) -> Result<bool, Problem> {
    match body.remove(name) {
        None => Ok(false),
        Some(Value::Bool(truth)) => Ok(truth),
        Some(_) => Err(bad(&format!("'{name}' is true or false"))),
    }
}

fn filter(mut members: Map<String, Value>) -> Result<ConflictFilter, Problem> {
    let filter = ConflictFilter {
        collection: parsed(&mut members, "collection")?,
        document: parsed(&mut members, "document")?,
        path: parsed(&mut members, "path")?,
        kind: parsed(&mut members, "kind")?,
        state: parsed(&mut members, "state")?,
        region: parsed(&mut members, "region")?,
        since: time(&mut members, "since")?,
        until: time(&mut members, "until")?,
        ..ConflictFilter::default()
    };
    match members.keys().next() {
        Some(name) => Err(bad(&format!("the filter has no member '{name}'"))),
        None => Ok(filter),
    }
}

fn text(members: &mut Map<String, Value>, name: &str) -> Result<Option<String>, Problem> {
    match members.remove(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(bad(&format!("'{name}' of the filter is text"))),
    }
}

fn parsed<T>(members: &mut Map<String, Value>, name: &str) -> Result<Option<T>, Problem>
where
    T: std::str::FromStr,
    T::Err: std::fmt::Display,
{
    let parse = |text: String| {
        text.parse().map_err(|error| bad(&format!("'{name}' of the filter: {error}")))
    };
    text(members, name)?.map(parse).transpose()
}

fn time(
    members: &mut Map<String, Value>,
    name: &str,
) -> Result<Option<anabranch_crdt::ids::Timestamp>, Problem> {
    let read = |text: String| {
        let detail = format!("'{name}' of the filter is a time such as 2026-01-31T12:00:00Z");
        parse_time(&text).ok_or_else(|| bad(&detail))
    };
    text(members, name)?.map(read).transpose()
}

/// The lines of a reply under way.
struct Lines {
    settled: ReadyChunks<BoxStream<'static, Result<Settled, Error>>>,
    closing: watch::Receiver<bool>,
    verb: Verb,
    summary: Summary,
    ended: bool,
    state: ApiState,
    concern: Concern,
}

impl Lines {
    /// Waits for the next chunk; `None` ends the reply.
    async fn chunk(&mut self) -> Option<Bytes> {
        if self.ended {
            return None;
        }
        let settled = tokio::select! {
            biased;
            () = serve::closed(&mut self.closing) => return None,
            settled = self.settled.next() => settled,
        };
        let mut out = Vec::new();
        match settled {
            Some(settled) => settled.into_iter().for_each(|settled| self.line(settled, &mut out)),
            None => {
                self.ended = true;
                self.conclude().await;
                append(&mut out, &self.summary);
            }
        }
        Some(out.into())
    }

    /// Waits until what was settled is where the request wants it, and tells where it is.
    async fn conclude(&mut self) {
        let position = self.state.documents().position();
        let reached = self.concern.wait(&self.state, &position).await;
        let own = || vec![self.state.documents().region().clone()];
        let (regions, met) =
            reached.map_or_else(|| (own(), None), |reached| (reached.regions, Some(reached.met)));
        self.summary.acked_regions = regions.iter().map(ToString::to_string).collect();
        self.summary.write_concern_met = met;
        self.summary.session_token.clone_from(&position.token);
    }

    fn line(&mut self, settled: Result<Settled, Error>, out: &mut Vec<u8>) {
        match settled {
            Ok(settled) => {
                self.summary.count(&settled.fate);
                append(out, &LineJson::new(&settled, self.verb));
            }
            Err(error) => {
                self.ended = true;
                out.extend_from_slice(b"{\"error\":");
                out.extend_from_slice(&Problem::from(error).to_json());
                out.extend_from_slice(b"}\n");
            }
        }
    }
}

fn append(out: &mut Vec<u8>, line: &impl Serialize) {
    reply::append_json(out, line);
    out.push(b'\n');
}

#[derive(Serialize)]
struct LineJson<'a> {
    id: String,
    document: Option<String>,
    path: String,
    outcome: &'static str,
    value: Option<&'a Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<&'a str>,
}

impl<'a> LineJson<'a> {
    fn new(settled: &'a Settled, verb: Verb) -> Self {
        let (done, rehearsed) = match verb {
            Verb::Resolve => ("resolved", "would-resolve"),
            Verb::Dismiss => ("dismissed", "would-dismiss"),
            Verb::Reopen | Verb::Undo => ("reopened", "would-reopen"),
        };
        let (outcome, detail) = match &settled.fate {
            Fate::Done => (done, None),
            Fate::Rehearsed => (rehearsed, None),
            Fate::Skipped(detail) => ("skipped", Some(detail.as_str())),
            Fate::Failed(detail) => ("failed", Some(detail.as_str())),
        };
        Self {
            id: settled.id.to_string(),
            document: settled.name.as_ref().map(ToString::to_string),
            path: settled.path.to_string(),
            outcome,
            value: settled.value.as_ref(),
            detail,
        }
    }
}

/// The last line.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
struct Summary {
    done: bool,
    matched: u64,
    changed: u64,
    skipped: u64,
    failed: u64,
    acked_regions: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    write_concern_met: Option<bool>,
    session_token: String,
}

impl Summary {
    fn count(&mut self, fate: &Fate) {
        self.matched += 1;
        match fate {
            Fate::Done => self.changed += 1,
            Fate::Rehearsed => {}
            Fate::Skipped(_) => self.skipped += 1,
            Fate::Failed(_) => self.failed += 1,
        }
    }
}

#[cfg(test)]
mod tests;
