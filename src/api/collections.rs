//! The settings of collections over HTTP: list, read, set, take back, simulate.

use std::time::Duration;

use anabranch_crdt::conflict::Candidate;
use anabranch_crdt::ids::CollectionName;
use anabranch_crdt::policy::{Policies, Policy};
use axum::body::Body;
use axum::extract::Request;
use axum::http::header::{CACHE_CONTROL, ETAG};
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode};
use axum::response::Response;
use serde::Serialize;
use serde_json::{Map, Value};

use crate::document::{CollectionSettings, NamedFlip, Redecided, SettingsWritten, Simulation};

use super::consistency::Concern;
use super::documents::expect_json;
use super::precondition::{self, Conditions, Verdict};
use super::request::{Query, author, no_query, set_collection};
use super::{Answer, ApiState, Problem, body, reply, session};

/// Collections of one page at most, and when the request does not say.
const PAGE_COLLECTIONS: u64 = 1_000;

/// Rules of one collection at most: each path of a document is compared with all of them.
const MAX_RULES: usize = 1_000;

/// Seconds that a request waits at most, and when it does not say, until documents are decided
/// again.
const WAIT_SECONDS: u64 = 60;
const WAIT_DEFAULT: u64 = 30;

const SIMULATE: &str = ":simulate";

/// `GET` of all collections.
pub(super) async fn list(state: ApiState, request: Request) -> Answer {
    let (parts, _) = request.into_parts();
    let query = Query::parse(parts.uri.query(), &["limit", "cursor"])?;
    let limit = query.number("limit", 1..=PAGE_COLLECTIONS, PAGE_COLLECTIONS)?;
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let after: Option<CollectionName> = query.parsed("cursor")?;
    session::catch_up(&state, &parts.headers).await?;
    // One more than fits tells whether there is a next page.
    let mut found = state.documents().collections(after.as_ref(), limit.saturating_add(1)).await?;
    let more = found.len() > limit;
    found.truncate(limit);
    let next = found.last().filter(|_| more).map(|last| last.name.to_string());
    let page = PageJson { collections: found.iter().map(SettingsJson::new).collect(), next };
    let mut response = reply::json(&page);
    reply::set_session(response.headers_mut(), &state.documents().position());
    Ok(response)
}

/// `GET` of one collection.
pub(super) async fn read(state: ApiState, request: Request) -> Answer {
    let (parts, _) = request.into_parts();
    no_query(parts.uri.query())?;
    let name = target(parts.uri.path(), Method::Settings)?;
    let conditions = Conditions::parse(&parts.headers)?;
    session::catch_up(&state, &parts.headers).await?;
    let settings = state.documents().settings(name).await?;
    let verdict = settings.digest.map(|digest| conditions.judge(digest));
    let mut response = match (verdict, &conditions) {
        (Some(Verdict::NotModified), _) => reply::empty(StatusCode::NOT_MODIFIED),
        (Some(Verdict::Failed), _) | (None, Conditions::Match(_)) => {
            return Err(precondition::failed());
        }
        (Some(Verdict::Send) | None, _) => reply::json(&SettingsJson::new(&settings)),
    };
    describe(&mut response, &settings);
    reply::set_session(response.headers_mut(), &state.documents().position());
    Ok(response)
}

/// `PUT` of the settings of a collection.
pub(super) async fn put(state: ApiState, request: Request) -> Answer {
    with_body(state, request, Method::Settings).await
}

/// `POST` of an action on a collection.
pub(super) async fn act(state: ApiState, request: Request) -> Answer {
    with_body(state, request, Method::Simulate).await
}

/// `DELETE`: back to the default.
pub(super) async fn delete(state: ApiState, request: Request) -> Answer {
    let (parts, body) = request.into_parts();
    let wait = wait(parts.uri.query())?;
    let name = target(parts.uri.path(), Method::Settings)?;
    let author = author(&parts.headers)?;
    let precondition = Conditions::parse(&parts.headers)?.for_write()?;
    let concern = Concern::of(&state, &parts.headers)?;
    drop(body);
    session::catch_up(&state, &parts.headers).await?;
    let written = state.documents().reset_settings(name, author, precondition, wait).await?;
    let mut response = written_reply(&written);
    concern.fulfil(&state, &written.position, &mut response).await;
    Ok(response)
}

async fn with_body(state: ApiState, request: Request, method: Method) -> Answer {
    let (parts, mut body) = request.into_parts();
    let result = match method {
        Method::Settings => set(&state, &parts, &mut body).await,
        Method::Simulate => simulate(&state, &parts, &mut body).await,
    };
    if result.is_err() {
        body::discard(&parts.headers, body).await;
    }
    result
}

async fn set(state: &ApiState, parts: &Parts, body: &mut Body) -> Answer {
    let wait = wait(parts.uri.query())?;
    let name = target(parts.uri.path(), Method::Settings)?;
    expect_json(&parts.headers)?;
    let author = author(&parts.headers)?;
    let precondition = Conditions::parse(&parts.headers)?.for_write()?;
    let concern = Concern::of(state, &parts.headers)?;
    session::catch_up(state, &parts.headers).await?;
    let policies = policies(state, body).await?;
    let set = state.documents().set_settings(name, &policies, author, precondition, wait).await?;
    let mut response = written_reply(&set);
    concern.fulfil(state, &set.position, &mut response).await;
    Ok(response)
}

async fn simulate(state: &ApiState, parts: &Parts, body: &mut Body) -> Answer {
    no_query(parts.uri.query())?;
    let name = target(parts.uri.path(), Method::Simulate)?;
    expect_json(&parts.headers)?;
    session::catch_up(state, &parts.headers).await?;
    let policies = policies(state, body).await?;
    let simulation = state.documents().simulate(&name, &policies).await?;
    let mut response = reply::json(&SimulationJson::new(&policies, &simulation));
    reply::set_session(response.headers_mut(), &state.documents().position());
    Ok(response)
}

/// Reads settings from a body.
async fn policies(state: &ApiState, body: &mut Body) -> Result<Policies, Problem> {
    let payload = state.intake().json(body).await?;
    let rules = payload.value.get("paths").and_then(Value::as_object).map_or(0, Map::len);
    if rules > MAX_RULES {
        let detail = format!("'paths' has {rules} rules, and the limit is {MAX_RULES}");
        return Err(Problem::unprocessable("bad_settings", detail));
    }
    let policies = Policies::read(&payload.value);
    policies.map_err(|error| Problem::unprocessable("bad_settings", error.to_string()))
}

fn wait(query: Option<&str>) -> Result<Duration, Problem> {
    let query = Query::parse(query, &["wait"])?;
    Ok(Duration::from_secs(query.number("wait", 0..=WAIT_SECONDS, WAIT_DEFAULT)?))
}

/// What a path below the collections names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Method {
    Settings,
    Simulate,
}

fn target(path: &str, wanted: Method) -> Result<CollectionName, Problem> {
    let (path, found) = match path.strip_suffix(SIMULATE) {
        Some(path) => (path, Method::Simulate),
        None => (path, Method::Settings),
    };
    if found != wanted {
        let allowed = match found {
            Method::Settings => "GET,HEAD,PUT,DELETE",
            Method::Simulate => "POST",
        };
        return Err(super::conflicts::method_not_allowed(allowed));
    }
    set_collection(path)
}

fn written_reply(written: &SettingsWritten) -> Response {
    let mut settings = SettingsJson::new(&written.settings);
    let status = match written.redecided {
        Ok(redecided) => {
            settings.redecided = Some(RedecidedJson::new(redecided));
            settings.redeciding = None;
            StatusCode::OK
        }
        Err(documents_left) => {
            settings.redeciding = Some(RedecidingJson { documents_left });
            StatusCode::ACCEPTED
        }
    };
    let mut response = reply::json_bytes(status, reply::to_json(&settings).into());
    describe(&mut response, &written.settings);
    reply::set_session(response.headers_mut(), &written.position);
    response
}

fn describe(response: &mut Response, settings: &CollectionSettings) {
    let headers = response.headers_mut();
    if let Some(digest) = settings.digest {
        headers.insert(ETAG, reply::etag(digest));
    }
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
}

#[derive(Serialize)]
struct PageJson<'a> {
    collections: Vec<SettingsJson<'a>>,
    next: Option<String>,
}

/// One collection as JSON.
#[derive(Serialize)]
struct SettingsJson<'a> {
    name: &'a str,
    settings: Value,
    version: String,
    source: &'static str,
    redeciding: Option<RedecidingJson>,
    #[serde(skip_serializing_if = "Option::is_none")]
    redecided: Option<RedecidedJson>,
}

#[derive(Serialize)]
struct RedecidingJson {
    documents_left: u64,
}

#[derive(Serialize)]
struct RedecidedJson {
    documents: u64,
    conflicts: u64,
    flipped: u64,
}

impl<'a> SettingsJson<'a> {
    fn new(settings: &'a CollectionSettings) -> Self {
        let redeciding = settings.redeciding;
        Self {
            name: settings.name.as_str(),
            settings: settings.policies.to_json(),
            version: settings.policies.version().to_string(),
            source: if settings.digest.is_some() { "set" } else { "default" },
            redeciding: redeciding.map(|documents_left| RedecidingJson { documents_left }),
            redecided: None,
        }
    }
}

impl RedecidedJson {
    fn new(redecided: Redecided) -> Self {
        let Redecided { documents, conflicts, flipped } = redecided;
        Self { documents, conflicts, flipped }
    }
}

#[derive(Serialize)]
struct SimulationJson<'a> {
    version: String,
    conflicts: u64,
    flips: Vec<FlipJson<'a>>,
    flipped: u64,
}

#[derive(Serialize)]
struct FlipJson<'a> {
    id: String,
    document: Option<String>,
    document_id: String,
    path: String,
    from: ShowsJson<'a>,
    to: ShowsJson<'a>,
}

/// What shows, and by which policy.
#[derive(Serialize)]
struct ShowsJson<'a> {
    candidate: Option<&'a str>,
    value: Option<&'a Value>,
    deleted: bool,
    policy: String,
}

impl<'a> SimulationJson<'a> {
    fn new(policies: &Policies, simulation: &'a Simulation) -> Self {
        Self {
            version: policies.version().to_string(),
            conflicts: simulation.conflicts,
            flips: simulation.flips.iter().map(FlipJson::new).collect(),
            flipped: simulation.flipped,
        }
    }
}

impl<'a> FlipJson<'a> {
    fn new(named: &'a NamedFlip) -> Self {
        let flip = &named.flip;
        let shows = |(policy, candidate): &'a (Policy, Option<Candidate>)| {
            let candidate = candidate.as_ref();
            ShowsJson {
                candidate: candidate.map(|candidate| candidate.id.as_str()),
                value: candidate.and_then(|candidate| candidate.value.as_ref()),
                deleted: candidate.is_some_and(|candidate| candidate.value.is_none()),
                policy: policy.to_string(),
            }
        };
        Self {
            id: flip.conflict.to_string(),
            document: named.name.as_ref().map(ToString::to_string),
            document_id: named.document.to_string(),
            path: flip.path.to_string(),
            from: shows(&flip.from),
            to: shows(&flip.to),
        }
    }
}
