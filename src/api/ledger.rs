//! The ledger as a whole: what conflicts are filtered by, how many there are, and a live stream of
//! those that change.

use std::time::Duration;

use anabranch_crdt::conflict::ConflictState;
use anabranch_crdt::edit::Path;
use anabranch_crdt::ids::Timestamp;
use axum::body::Body;
use axum::extract::Request;
use axum::http::HeaderValue;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::Response;
use bytes::Bytes;
use futures::{FutureExt as _, stream};
use serde::Serialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use crate::document::ConflictFilter;
use crate::error::Error;
use crate::subscription::{ConflictEvent, ConflictFollower};

use super::changes::{self, Format};
use super::conflicts::{ConflictJson, to_json};
use super::request::{Query, bad_query};
use super::{Answer, ApiState, Problem, reply, serve, session};

/// The query parameters that tell which conflicts are meant, besides times.
pub(super) const FILTERS: [&str; 6] = ["collection", "document", "path", "kind", "state", "region"];

/// Reads the parameters of [`FILTERS`].
pub(super) fn filter(query: &Query<'_>) -> Result<ConflictFilter, Problem> {
    Ok(ConflictFilter {
        collection: query.parsed("collection")?,
        document: query.parsed("document")?,
        path: query.parsed::<Path>("path")?,
        kind: query.parsed("kind")?,
        state: query.parsed("state")?,
        region: query.parsed("region")?,
        ..ConflictFilter::default()
    })
}

/// Reads a time that a parameter gives in RFC 3339.
pub(super) fn time(query: &Query<'_>, name: &str) -> Result<Option<Timestamp>, Problem> {
    let read = |text: &str| {
        parse_time(text).ok_or_else(|| {
            let example = "2026-01-31T12:00:00Z";
            bad_query(format!("the query parameter '{name}' is a time such as {example}"))
        })
    };
    query.text(name).map(read).transpose()
}

/// Reads a time in RFC 3339, as [`reply::rfc3339`] writes it. What is finer than a microsecond is
/// cut off; what is before 1970 is taken as 1970.
pub(super) fn parse_time(text: &str) -> Option<Timestamp> {
    let at = OffsetDateTime::parse(text, &Rfc3339).ok()?;
    let micros = (at.unix_timestamp_nanos() / 1_000).max(0);
    Some(Timestamp(u64::try_from(micros).ok()?.min(Timestamp::MAX.0)))
}

/// `GET /v1/conflicts/stats`.
pub(super) async fn stats(state: ApiState, request: Request) -> Answer {
    let (parts, _) = request.into_parts();
    let query = Query::parse(parts.uri.query(), &["collection"])?;
    let collection = query.parsed("collection")?;
    session::catch_up(&state, &parts.headers).await?;
    let counts = state.documents().conflict_stats(collection).await?;
    let open = counts.iter().filter(|count| count.state == ConflictState::Open);
    let stats = StatsJson {
        total: counts.iter().map(|count| count.count).sum(),
        open: open.map(|count| count.count).sum(),
        by: counts
            .iter()
            .map(|count| CountJson {
                collection: count.collection.as_ref().map(ToString::to_string),
                state: count.state.to_string(),
                kind: count.kind.to_string(),
                count: count.count,
            })
            .collect(),
        region: state.documents().region().as_str(),
    };
    let mut response = reply::json(&stats);
    reply::set_session(response.headers_mut(), &state.documents().position());
    Ok(response)
}

#[derive(Serialize)]
struct StatsJson<'a> {
    total: u64,
    open: u64,
    by: Vec<CountJson>,
    region: &'a str,
}

#[derive(Serialize)]
struct CountJson {
    collection: Option<String>,
    state: String,
    kind: String,
    count: u64,
}

/// `GET /v1/conflicts/stream`.
pub(super) async fn follow(state: ApiState, request: Request) -> Answer {
    let (parts, _) = request.into_parts();
    let known = [&FILTERS[..], &["format", "heartbeat"]].concat();
    let query = Query::parse(parts.uri.query(), &known)?;
    let format = Format::wanted(&query, &parts.headers)?;
    let heartbeat = changes::heartbeat(&query)?;
    let live = Live {
        follower: state.0.sources.conflicts.follow(filter(&query)?),
        closing: state.closing().subscribe(),
        format,
        heartbeat,
        next_beat: Instant::now() + heartbeat,
        failed: false,
        state,
    };
    let chunks = stream::unfold(live, |mut live| async move {
        let chunk = live.chunk().await?;
        Some((Ok::<_, std::convert::Infallible>(chunk), live))
    });
    let mut response = Response::new(Body::from_stream(chunks));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(format.media_type()));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

/// One open stream.
struct Live {
    state: ApiState,
    follower: ConflictFollower,
    closing: watch::Receiver<bool>,
    format: Format,
    heartbeat: Duration,
    next_beat: Instant,
    failed: bool,
}

impl Live {
    /// Waits for the next chunk; `None` ends the stream.
    async fn chunk(&mut self) -> Option<Bytes> {
        let mut out = Vec::new();
        if self.failed {
            return None;
        }
        tokio::select! {
            biased;
            () = serve::closed(&mut self.closing) => return None,
            () = sleep_until(self.next_beat) => self.format.sign_of_life(&mut out),
            event = self.follower.next() => self.take_ready(event, &mut out),
        }
        self.next_beat = Instant::now() + self.heartbeat;
        Some(out.into())
    }

    /// Takes an event and those that are ready behind it.
    fn take_ready(&mut self, event: Result<ConflictEvent, Error>, out: &mut Vec<u8>) {
        self.take(event, out);
        for _ in 1..CHUNK_EVENTS {
            if self.failed || out.len() >= CHUNK_BYTES {
                return;
            }
            let Some(event) = self.follower.next().now_or_never() else { return };
            self.take(event, out);
        }
    }

    fn take(&mut self, event: Result<ConflictEvent, Error>, out: &mut Vec<u8>) {
        match event {
            Ok(ConflictEvent::Row(named)) => self.format.row(&to_json(&self.state, &named), out),
            Ok(ConflictEvent::Removed(id)) => self.format.removed(&id.to_string(), out),
            Ok(ConflictEvent::Lagged(missed)) => self.format.lagged(missed, out),
            Err(error) => {
                self.failed = true;
                self.format.error(&Problem::from(error), out);
            }
        }
    }
}

impl Format {
    fn row(self, conflict: &ConflictJson<'_>, out: &mut Vec<u8>) {
        match self {
            Self::Sse => self.data("conflict", conflict, out),
            Self::Ndjson => self.data("", &RowLine { event: "conflict", conflict }, out),
        }
    }

    fn removed(self, id: &str, out: &mut Vec<u8>) {
        match self {
            Self::Sse => self.data("removed", &RemovedJson { event: None, id }, out),
            Self::Ndjson => self.data("", &RemovedJson { event: Some("removed"), id }, out),
        }
    }

    fn lagged(self, missed: u64, out: &mut Vec<u8>) {
        match self {
            Self::Sse => self.data("lagged", &LaggedJson { event: None, missed }, out),
            Self::Ndjson => self.data("", &LaggedJson { event: Some("lagged"), missed }, out),
        }
    }

    fn sign_of_life(self, out: &mut Vec<u8>) {
        match self {
            Self::Sse => out.extend_from_slice(b": heartbeat"),
            Self::Ndjson => out.extend_from_slice(b"{\"heartbeat\":true}"),
        }
        self.end(out);
    }

    fn data(self, event: &str, line: &impl Serialize, out: &mut Vec<u8>) {
        if self == Self::Sse {
            changes::push_all(out, &["event: ", event, "\ndata: "]);
        }
        reply::append_json(out, line);
        self.end(out);
    }
}

#[derive(Serialize)]
struct RowLine<'a, 'c> {
    event: &'static str,
    conflict: &'a ConflictJson<'c>,
}

#[derive(Serialize)]
struct RemovedJson<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    event: Option<&'static str>,
    id: &'a str,
}

#[derive(Serialize)]
struct LaggedJson {
    #[serde(skip_serializing_if = "Option::is_none")]
    event: Option<&'static str>,
    missed: u64,
}

/// Bytes after which a chunk is sent although more events are ready.
const CHUNK_BYTES: usize = 32 << 10;

/// Events of one chunk at most.
const CHUNK_EVENTS: usize = 256;

#[cfg(test)]
mod tests {
    use anabranch_crdt::conflict::ConflictKind;
    use axum::response::IntoResponse;
    use serde_json::{Value, json};

    use super::*;

    fn parsed(query: &str) -> Result<ConflictFilter, u16> {
        let known = [&FILTERS[..], &["since"]].concat();
        let query = Query::parse(Some(query), &known).unwrap();
        let filter = time(&query, "since").and_then(|_| filter(&query));
        filter.map_err(|problem| problem.into_response().status().as_u16())
    }

    #[test]
    fn filters_are_read() {
        let found = parsed("path=/a~1b&kind=type&state=auto-resolved&region=eu&document=c/k");
        let found = found.unwrap();
        assert_eq!(found.path.unwrap().tokens(), ["a/b"]);
        assert_eq!(found.kind, Some(ConflictKind::Type));
        assert_eq!(found.state, Some(ConflictState::AutoResolved));
        assert_eq!(found.region.unwrap().as_str(), "eu");
        assert_eq!(found.document.unwrap().to_string(), "c/k");
        for bad in ["path=a", "kind=x", "state=", "region=-", "document=c", "since=now"] {
            assert_eq!(parsed(bad).err(), Some(400), "{bad}");
        }
    }

    #[test]
    fn times_are_read_as_they_are_written() {
        let at = Timestamp(1_700_000_000_123_456);
        assert_eq!(parse_time(&reply::rfc3339(at)), Some(at));
        assert_eq!(parse_time("2023-11-15T00:13:20.123456789+02:00"), Some(at));
        assert_eq!(parse_time("1969-01-01T00:00:00Z"), Some(Timestamp(0)));
        assert_eq!(parse_time("2023-11-15"), None);
    }

    #[test]
    fn events_are_told_in_both_formats() {
        let text = |write: &dyn Fn(&mut Vec<u8>)| {
            let mut out = Vec::new();
            write(&mut out);
            String::from_utf8(out).unwrap()
        };
        let sse = text(&|out| Format::Sse.removed("ab", out));
        assert_eq!(sse, "event: removed\ndata: {\"id\":\"ab\"}\n\n");
        let line = text(&|out| Format::Ndjson.removed("ab", out));
        let json: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(json, json!({"event": "removed", "id": "ab"}));
        assert_eq!(
            text(&|out| Format::Sse.lagged(3, out)),
            "event: lagged\ndata: {\"missed\":3}\n\n"
        );
        let line = text(&|out| Format::Ndjson.lagged(3, out));
        assert_eq!(line, "{\"event\":\"lagged\",\"missed\":3}\n");
        assert_eq!(text(&|out| Format::Sse.sign_of_life(out)), ": heartbeat\n\n");
    }
}
