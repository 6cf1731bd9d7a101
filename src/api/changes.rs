//! `GET /v1/changes`: the change feed, as server-sent events or as lines of JSON.
//!
//! The feed is pulled: the next chunk is made when the connection has room for it, so a slow
//! reader holds back only itself, and holds no more than one chunk.

use std::time::Duration;

use anabranch_crdt::ids::{CollectionName, RegionName};
use anabranch_crdt::token;
use anabranch_crdt::version::VersionVector;
use axum::body::Body;
use axum::extract::Request;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::response::Response;
use bytes::Bytes;
use futures::{FutureExt as _, stream};
use serde::Serialize;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use crate::error::{Error, ErrorKind};
use crate::subscription::{ChangeEvent, Follower};

use super::request::{Query, accepts, bad_query};
use super::{Answer, ApiState, Problem, reply, serve, session};

const SSE: &str = "text/event-stream";
const NDJSON: &str = "application/x-ndjson";

/// What a browser sends when it connects again.
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// Milliseconds between signs of life, when the request does not say.
const HEARTBEAT_DEFAULT: u64 = 15_000;

/// Bytes after which a chunk is sent although more events are ready.
const CHUNK_BYTES: usize = 32 << 10;

/// Events that are looked at for one chunk, so that a filter that passes nothing still lets other
/// connections have their turn.
const CHUNK_EVENTS: usize = 256;

/// `GET`.
pub(super) async fn follow(state: ApiState, request: Request) -> Answer {
    let (parts, _) = request.into_parts();
    let wanted = Wanted::parse(parts.uri.query(), &parts.headers)?;
    let (since, token) = start(&state, wanted.since)?;
    let feed = Feed {
        follower: state.0.sources.changes.follow(since),
        closing: state.closing().subscribe(),
        format: wanted.format,
        collection: wanted.collection,
        heartbeat: wanted.heartbeat,
        next_beat: Instant::now() + wanted.heartbeat,
        token: token.clone(),
        failed: false,
        state,
    };
    let chunks = stream::unfold(feed, |mut feed| async move {
        let chunk = feed.chunk().await?;
        Some((Ok::<_, std::convert::Infallible>(chunk), feed))
    });
    let mut response = Response::new(Body::from_stream(chunks));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(wanted.format.media_type()));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(reply::SESSION_TOKEN, reply::session(&token));
    Ok(response)
}

/// Returns where the feed starts, and the same as a token.
fn start(state: &ApiState, since: Since) -> Result<(VersionVector, String), Problem> {
    let vector = match since {
        Since::Start => VersionVector::new(),
        Since::Now => {
            let position = state.documents().position();
            return Ok((position.vector.clone(), position.token.clone()));
        }
        Since::Token(token) => session::vector(&token)?,
    };
    state.0.sources.changes.check(&vector).map_err(|error| gone(state, error))?;
    // Written anew, so that nothing of the request's own text gets into a header.
    let token = token::encode(&vector);
    Ok((vector, token))
}

/// Tells someone who comes too late from where to follow: whoever lists the documents after this
/// misses nothing.
fn gone(state: &ApiState, error: Error) -> Problem {
    let gone = error.kind() == ErrorKind::Gone;
    let problem = Problem::from(error);
    if !gone {
        return problem;
    }
    let token = state.documents().position().token.clone();
    problem.with_member("token", token.into())
}

/// What a request wants to follow.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Wanted {
    since: Since,
    format: Format,
    heartbeat: Duration,
    collection: Option<CollectionName>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Since {
    Start,
    Now,
    Token(String),
}

/// How the events of a feed are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    Sse,
    Ndjson,
}

/// Reads how long a feed may be silent.
pub(super) fn heartbeat(query: &Query<'_>) -> Result<Duration, Problem> {
    let heartbeat = query.number("heartbeat", 100..=60_000, HEARTBEAT_DEFAULT)?;
    Ok(Duration::from_millis(heartbeat))
}

impl Wanted {
    fn parse(query: Option<&str>, headers: &HeaderMap) -> Result<Self, Problem> {
        let query = Query::parse(query, &["since", "format", "heartbeat", "collection"])?;
        let resumed = headers.get(LAST_EVENT_ID).and_then(|value| value.to_str().ok());
        // A browser repeats the query as it was, so what it saw last is newer.
        let since = match resumed.filter(|id| !id.is_empty()).or_else(|| query.text("since")) {
            None | Some("now") => Since::Now,
            Some("start") => Since::Start,
            Some(token) => Since::Token(token.to_owned()),
        };
        let (format, heartbeat) = (Format::wanted(&query, headers)?, heartbeat(&query)?);
        Ok(Self { since, format, heartbeat, collection: query.parsed("collection")? })
    }
}

/// One open feed.
struct Feed {
    state: ApiState,
    follower: Follower,
    closing: watch::Receiver<bool>,
    format: Format,
    collection: Option<CollectionName>,
    heartbeat: Duration,
    next_beat: Instant,
    token: String,
    failed: bool,
}

impl Feed {
    /// Waits for the next chunk; `None` ends the feed.
    async fn chunk(&mut self) -> Option<Bytes> {
        let mut out = Vec::new();
        while out.is_empty() && !self.failed {
            tokio::select! {
                biased;
                () = serve::closed(&mut self.closing) => return None,
                () = sleep_until(self.next_beat) => self.format.heartbeat(&self.token, &mut out),
                event = self.follower.next() => self.take_ready(event, &mut out),
            }
        }
        if out.is_empty() {
            return None;
        }
        self.next_beat = Instant::now() + self.heartbeat;
        Some(out.into())
    }

    /// Takes an event and those that are ready behind it.
    fn take_ready(&mut self, event: Result<ChangeEvent, Error>, out: &mut Vec<u8>) {
        self.take(event, out);
        for _ in 1..CHUNK_EVENTS {
            if self.failed || out.len() >= CHUNK_BYTES {
                return;
            }
            let Some(event) = self.follower.next().now_or_never() else { return };
            self.take(event, out);
        }
    }

    fn take(&mut self, event: Result<ChangeEvent, Error>, out: &mut Vec<u8>) {
        match event {
            Ok(event) => {
                if passes(&event, self.collection.as_ref()) {
                    let region = self.state.documents().region_of(event.dot.origin);
                    self.format.change(&event, region.as_ref(), out);
                }
                self.token = event.token;
            }
            Err(error) => {
                self.failed = true;
                self.format.error(&gone(&self.state, error), out);
            }
        }
    }
}

fn passes(event: &ChangeEvent, collection: Option<&CollectionName>) -> bool {
    let of = event.name.as_ref().map(|name| &name.collection);
    collection.is_none_or(|wanted| of == Some(wanted))
}

impl Format {
    /// Reads which format a request wants.
    pub(super) fn wanted(query: &Query<'_>, headers: &HeaderMap) -> Result<Self, Problem> {
        match query.text("format") {
            Some("sse") => Ok(Self::Sse),
            Some("ndjson") => Ok(Self::Ndjson),
            Some(_) => Err(bad_query("the query parameter 'format' is sse or ndjson")),
            None if accepts(headers, SSE) => Ok(Self::Sse),
            None => Ok(Self::Ndjson),
        }
    }

    pub(super) fn media_type(self) -> &'static str {
        match self {
            Self::Sse => SSE,
            Self::Ndjson => NDJSON,
        }
    }

    fn change(self, event: &ChangeEvent, region: Option<&RegionName>, out: &mut Vec<u8>) {
        let line = ChangeJson {
            document: event.name.as_ref().map(ToString::to_string),
            id: event.document.to_string(),
            etag: event.digest.map(reply::etag_text),
            deleted: event.deleted,
            origin: event.dot.origin.to_string(),
            region: region.map(RegionName::as_str),
            sequence: event.dot.sequence.0,
            token: &event.token,
        };
        if self == Self::Sse {
            push_all(out, &["id: ", &event.token, "\nevent: change\ndata: "]);
        }
        reply::append_json(out, &line);
        self.end(out);
    }

    /// The token of a heartbeat moves on past events that a filter held back.
    fn heartbeat(self, token: &str, out: &mut Vec<u8>) {
        match self {
            Self::Sse => push_all(out, &["id: ", token, "\n: heartbeat"]),
            Self::Ndjson => reply::append_json(out, &HeartbeatJson { heartbeat: true, token }),
        }
        self.end(out);
    }

    /// The status is sent long ago, so an error is the last line.
    pub(super) fn error(self, problem: &Problem, out: &mut Vec<u8>) {
        match self {
            Self::Sse => push_all(out, &["event: error\ndata: "]),
            Self::Ndjson => push_all(out, &["{\"error\":"]),
        }
        out.extend_from_slice(&problem.to_json());
        if self == Self::Ndjson {
            out.push(b'}');
        }
        self.end(out);
    }

    pub(super) fn end(self, out: &mut Vec<u8>) {
        out.extend_from_slice(match self {
            Self::Sse => b"\n\n",
            Self::Ndjson => b"\n",
        });
    }
}

pub(super) fn push_all(out: &mut Vec<u8>, texts: &[&str]) {
    texts.iter().for_each(|text| out.extend_from_slice(text.as_bytes()));
}

#[derive(Serialize)]
struct ChangeJson<'a> {
    document: Option<String>,
    id: String,
    etag: Option<String>,
    deleted: bool,
    origin: String,
    region: Option<&'a str>,
    sequence: u64,
    token: &'a str,
}

#[derive(Serialize)]
struct HeartbeatJson<'a> {
    heartbeat: bool,
    token: &'a str,
}

#[cfg(test)]
mod tests {
    use anabranch_crdt::entry::Dot;
    use anabranch_crdt::ids::{DocumentId, Origin, Sequence};
    use axum::http::StatusCode;
    use axum::http::header::ACCEPT;
    use axum::response::IntoResponse;
    use serde_json::{Value, json};

    use crate::document::Digest;

    use super::*;

    fn parse(query: &str, headers: &[(HeaderName, &'static str)]) -> Result<Wanted, u16> {
        let headers: HeaderMap = headers
            .iter()
            .map(|(name, value)| (name.clone(), HeaderValue::from_static(value)))
            .collect();
        Wanted::parse(Some(query), &headers)
            .map_err(|problem| problem.into_response().status().as_u16())
    }

    fn event(name: Option<&str>) -> ChangeEvent {
        ChangeEvent {
            dot: Dot { origin: Origin::from_bytes([1; 16]), sequence: Sequence(9) },
            document: DocumentId::from_bytes([2; 16]),
            name: name.map(|name| name.parse().unwrap()),
            digest: Some(Digest([3; 16])),
            deleted: false,
            token: "t9".into(),
        }
    }

    fn written(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).unwrap()
    }

    fn event_json() -> Value {
        json!({
            "document": "cities/paris",
            "id": "02020202-0202-0202-0202-020202020202",
            "etag": "\"03030303030303030303030303030303\"",
            "deleted": false,
            "origin": "01010101-0101-0101-0101-010101010101",
            "region": "eu-west",
            "sequence": 9,
            "token": "t9",
        })
    }

    #[test]
    fn feed_starts_now_in_lines_unless_told() {
        let wanted = parse("", &[]).unwrap();
        let heartbeat = Duration::from_secs(15);
        let expected =
            Wanted { since: Since::Now, format: Format::Ndjson, heartbeat, collection: None };
        assert_eq!(wanted, expected);
        assert_eq!(parse("since=now", &[]).unwrap(), expected);
        assert_eq!(parse("since=start", &[]).unwrap().since, Since::Start);
        assert_eq!(parse("since=abc", &[]).unwrap().since, Since::Token("abc".into()));
        let collection = parse("collection=cities&heartbeat=100", &[]).unwrap();
        assert_eq!(collection.collection, "cities".parse().ok());
        assert_eq!(collection.heartbeat, Duration::from_millis(100));
    }

    #[test]
    fn format_is_chosen_by_query_before_accept() {
        let sse = [(ACCEPT, SSE)];
        assert_eq!(parse("", &sse).unwrap().format, Format::Sse);
        assert_eq!(parse("format=ndjson", &sse).unwrap().format, Format::Ndjson);
        assert_eq!(parse("format=sse", &[]).unwrap().format, Format::Sse);
        assert_eq!(parse("", &[(ACCEPT, "*/*")]).unwrap().format, Format::Ndjson);
    }

    #[test]
    fn last_event_id_wins_over_since() {
        let resumed = parse("since=start", &[(LAST_EVENT_ID, "t7")]).unwrap();
        assert_eq!(resumed.since, Since::Token("t7".into()));
        assert_eq!(parse("since=start", &[(LAST_EVENT_ID, "")]).unwrap().since, Since::Start);
    }

    #[test]
    fn bad_requests_are_refused() {
        for query in ["format=xml", "heartbeat=99", "heartbeat=60001", "collection=-", "after=1"] {
            assert_eq!(parse(query, &[]), Err(400), "{query}");
        }
    }

    #[test]
    fn change_is_one_line_of_json() {
        let region: RegionName = "eu-west".parse().unwrap();
        let event = event(Some("cities/paris"));
        let line = written(|out| Format::Ndjson.change(&event, Some(&region), out));
        let json = line.strip_suffix('\n').unwrap();
        assert!(!json.contains('\n'));
        assert_eq!(serde_json::from_str::<Value>(json).unwrap(), event_json());
    }

    #[test]
    fn change_is_one_server_sent_event() {
        let region: RegionName = "eu-west".parse().unwrap();
        let event = event(Some("cities/paris"));
        let text = written(|out| Format::Sse.change(&event, Some(&region), out));
        let data = text.strip_prefix("id: t9\nevent: change\ndata: ").unwrap();
        let data = data.strip_suffix("\n\n").unwrap();
        assert_eq!(serde_json::from_str::<Value>(data).unwrap(), event_json());
    }

    #[test]
    fn heartbeats_carry_the_token() {
        let line = written(|out| Format::Ndjson.heartbeat("t1", out));
        assert_eq!(line, "{\"heartbeat\":true,\"token\":\"t1\"}\n");
        let event = written(|out| Format::Sse.heartbeat("t1", out));
        assert_eq!(event, "id: t1\n: heartbeat\n\n");
    }

    #[test]
    fn errors_end_the_feed_as_data() {
        let problem = Problem::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", "later");
        let line = written(|out| Format::Ndjson.error(&problem, out));
        let json: Value = serde_json::from_str(line.trim_end()).unwrap();
        assert_eq!(json["error"]["code"], "unavailable");
        let event = written(|out| Format::Sse.error(&problem, out));
        assert!(event.starts_with("event: error\ndata: {") && event.ends_with("}\n\n"), "{event}");
    }

    #[test]
    fn filter_passes_its_collection_only() {
        let cities: CollectionName = "cities".parse().unwrap();
        assert!(passes(&event(Some("cities/paris")), Some(&cities)));
        assert!(!passes(&event(Some("towns/paris")), Some(&cities)));
        assert!(!passes(&event(None), Some(&cities)));
        assert!(passes(&event(None), None));
    }
}
