//! Whole replicas over HTTP: how a bootstrap goes, comparisons with other regions, what was found
//! broken, and how one document stands here.

use anabranch_crdt::entry::Dot;
use anabranch_crdt::ids::RegionName;
use anabranch_crdt::version::VersionVector;
use axum::body::Body;
use axum::extract::Request;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode};
use axum::response::Response;
use bytes::Bytes;
use futures::stream;
use serde::Serialize;
use serde_json::Value;
use std::sync::Arc;
use tokio::sync::watch;

use crate::document::{Condition, HeldBack};
use crate::replication::RegionView;
use crate::replication::reconcile::{
    BootstrapStatus, BrokenDocument, Lacking, ReconcileStatus, Repair, RequestId, VerifyReport,
    VerifyState,
};

use super::documents::expect_json;
use super::request::{document_below, no_query};
use super::{Answer, ApiState, Problem, body, reply};

/// What stands before the name of a document whose standing is asked for.
const SYNC: &str = "/v1/sync/";

/// `GET /v1/replication/differences`.
pub(super) async fn differences(state: ApiState, request: Request) -> Answer {
    no_query(request.uri().query())?;
    let status = state.0.sources.replicas.status();
    let mut differences = Vec::with_capacity(status.broken.len());
    for broken in status.broken.iter().rev() {
        let (name, _) = state.documents().named(broken.document).await.unwrap_or_default();
        differences.push(BrokenJson::new(broken, name.map(|name| name.to_string())));
    }
    Ok(reply::json(&DifferencesJson {
        total: status.totals.broken,
        repaired: status.totals.repaired,
        differences,
    }))
}

/// `POST /v1/replication:verify`.
pub(super) async fn verify(state: ApiState, request: Request) -> Answer {
    let (parts, mut body) = request.into_parts();
    let result = start(&state, &parts, &mut body).await;
    if result.is_err() {
        body::discard(&parts.headers, body).await;
    }
    result
}

async fn start(state: &ApiState, parts: &Parts, body: &mut Body) -> Answer {
    no_query(parts.uri.query())?;
    expect_json(&parts.headers)?;
    let payload = state.intake().json(body).await?;
    let (peer, repair) = asked(state, payload.value)?;
    let regions = peer.as_ref().map_or_else(|| state.0.sources.peers.borrow().len(), |_| 1);
    let replicas = &state.0.sources.replicas;
    let status = replicas.follow();
    let request = replicas.verify(peer, repair).await?;
    let closing = state.closing().subscribe();
    let lines = Lines { request, regions, status, closing, ended: false };
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

/// Reads the body of a request for a comparison.
fn asked(state: &ApiState, body: Value) -> Result<(Option<RegionName>, Repair), Problem> {
    let bad = |detail: &str| Problem::unprocessable("bad_verification", detail);
    let Value::Object(mut body) = body else { return Err(bad("the body is a JSON object")) };
    let repair = match body.remove("repair") {
        None | Some(Value::Bool(false)) => Repair::Tell,
        Some(Value::Bool(true)) => Repair::Mend,
        Some(_) => return Err(bad("'repair' is true or false")),
    };
    let peer = match body.remove("peer") {
        None | Some(Value::Null) => None,
        Some(Value::String(name)) => {
            let peers = state.0.sources.peers.borrow().clone();
            let known = peers.iter().find(|peer| peer.region.as_str() == name);
            let unknown = || {
                let detail = format!("'{name}' is no other region of this cluster");
                Problem::new(StatusCode::NOT_FOUND, "unknown_region", detail)
            };
            Some(known.ok_or_else(unknown)?.region.clone())
        }
        Some(_) => return Err(bad("'peer' is the name of a region")),
    };
    match body.keys().next() {
        Some(name) => Err(bad(&format!("there is no member '{name}'"))),
        None => Ok((peer, repair)),
    }
}

/// The lines of a reply under way.
struct Lines {
    request: RequestId,
    /// With how many regions.
    regions: usize,
    status: watch::Receiver<Arc<ReconcileStatus>>,
    closing: watch::Receiver<bool>,
    ended: bool,
}

impl Lines {
    /// Waits for news of the comparisons; `None` behind the last line.
    async fn chunk(&mut self) -> Option<Bytes> {
        if self.ended {
            return None;
        }
        tokio::select! {
            changed = self.status.changed() => changed.ok()?,
            // Whoever waits is told by the end of the stream without its last line.
            _ = self.closing.wait_for(|closing| *closing) => return None,
        }
        let status = Arc::clone(&self.status.borrow_and_update());
        let own = status.reports.iter().filter(|report| report.request == Some(self.request));
        let reports: Vec<ReportJson<'_>> = own.map(ReportJson::new).collect();
        let open = |report: &ReportJson<'_>| matches!(report.state, "waiting" | "running");
        self.ended = reports.len() >= self.regions && !reports.iter().any(open);
        let mut chunk = Vec::new();
        for report in &reports {
            reply::append_json(&mut chunk, report);
            chunk.push(b'\n');
        }
        if self.ended {
            reply::append_json(&mut chunk, &Summary::new(&reports));
            chunk.push(b'\n');
        }
        Some(chunk.into())
    }
}

/// `GET /v1/sync/{collection}/{key}`.
pub(super) async fn standing(state: ApiState, request: Request) -> Answer {
    no_query(request.uri().query())?;
    let name = document_below(SYNC, request.uri().path())?;
    let standing = state.documents().condition(&name).await?;
    let position = state.documents().position();
    let replicas = &state.0.sources.replicas;
    let (cluster, status) = (replicas.cluster(), replicas.status());
    let reached: VersionVector = standing.dots.iter().copied().collect();
    let dots = |dots: &mut dyn Iterator<Item = Dot>| -> Vec<DotJson> {
        dots.map(|dot| DotJson::new(&state, dot)).collect()
    };
    let name = name.to_string();
    let Condition { id, digest, live, heads, changes, held_back, damage, .. } = &standing;
    let mut response = reply::json(&StandingJson {
        document: &name,
        document_id: id.to_string(),
        region: state.0.region.as_str(),
        live: *live,
        etag: digest.map(reply::etag_text),
        heads: heads.iter().map(ToString::to_string).collect(),
        changes: *changes,
        dots: dots(&mut standing.dots.iter().copied()),
        held_back: held_back.iter().map(|held| HeldBackJson::new(&state, held)).collect(),
        damage: damage.as_deref(),
        bootstrapping: status.bootstrap.is_some(),
        vector: dots(&mut position.vector.iter()),
        regions: cluster.regions.iter().map(|view| RegionJson::new(view, &reached)).collect(),
    });
    reply::set_session(response.headers_mut(), &position);
    Ok(response)
}

/// Tells that a node is not ready because it takes over what it lacks.
pub(super) fn not_ready(bootstrap: &BootstrapStatus) -> Problem {
    let percent = bootstrap.progress * 100.0;
    let detail = format!(
        "this region takes over what it lacks from another one, and has come to {percent:.1} %: it \
         takes reads and writes, but others have newer data"
    );
    let problem = Problem::new(StatusCode::SERVICE_UNAVAILABLE, "bootstrapping", detail);
    let progress = serde_json::to_value(BootstrapJson::from(bootstrap)).unwrap_or_default();
    problem.with_retry().with_member("ready", false.into()).with_member("bootstrap", progress)
}

/// How far a bootstrap is.
#[derive(Serialize)]
pub(super) struct BootstrapJson {
    source: Option<String>,
    finished: bool,
    progress: f64,
    documents_compared: u64,
    documents_adopted: u64,
    bytes: u64,
    seconds: f64,
    documents_per_second: f64,
    eta_seconds: Option<f64>,
    last_error: Option<String>,
}

impl From<&BootstrapStatus> for BootstrapJson {
    fn from(status: &BootstrapStatus) -> Self {
        Self {
            source: status.source.as_ref().map(ToString::to_string),
            finished: status.finished,
            progress: status.progress,
            documents_compared: status.compared,
            documents_adopted: status.adopted,
            bytes: status.bytes,
            seconds: status.seconds,
            documents_per_second: status.adopted as f64 / status.seconds.max(0.001),
            eta_seconds: status.eta_seconds,
            last_error: status.last_error.clone(),
        }
    }
}

/// What a node knows of the equality of its replicas.
#[derive(Serialize)]
pub(super) struct ReconciliationJson<'a> {
    bootstrap: Option<BootstrapJson>,
    last_bootstrap: Option<BootstrapJson>,
    verifications: Vec<ReportJson<'a>>,
    broken: u64,
    repaired: u64,
}

impl<'a> From<&'a ReconcileStatus> for ReconciliationJson<'a> {
    fn from(status: &'a ReconcileStatus) -> Self {
        let first = status.reports.len().saturating_sub(REPORTS);
        Self {
            bootstrap: status.bootstrap.as_ref().map(BootstrapJson::from),
            last_bootstrap: status.last_bootstrap.as_ref().map(BootstrapJson::from),
            verifications: status.reports.iter().skip(first).map(ReportJson::new).collect(),
            broken: status.totals.broken,
            repaired: status.totals.repaired,
        }
    }
}

#[derive(Serialize)]
struct ReportJson<'a> {
    region: &'a str,
    state: &'static str,
    reason: Option<&'a str>,
    compared: u64,
    equal: u64,
    in_flight: u64,
    broken: u64,
    repaired: u64,
    bytes: u64,
    seconds: f64,
    progress: f64,
}

impl<'a> ReportJson<'a> {
    fn new(report: &'a VerifyReport) -> Self {
        let (state, reason) = match &report.state {
            VerifyState::Waiting => ("waiting", None),
            VerifyState::Running => ("running", None),
            VerifyState::Done => ("done", None),
            VerifyState::Failed(reason) => ("failed", Some(reason.as_str())),
        };
        Self {
            region: report.region.as_str(),
            state,
            reason,
            compared: report.compared,
            equal: report.equal,
            in_flight: report.in_flight,
            broken: report.broken,
            repaired: report.repaired,
            bytes: report.bytes,
            seconds: report.seconds,
            progress: report.progress,
        }
    }
}

#[derive(Serialize)]
struct Summary {
    done: bool,
    regions: usize,
    failed: usize,
    compared: u64,
    broken: u64,
    repaired: u64,
    in_flight: u64,
}

impl Summary {
    fn new(reports: &[ReportJson<'_>]) -> Self {
        let sum = |of: fn(&ReportJson<'_>) -> u64| reports.iter().map(of).sum();
        Self {
            done: true,
            regions: reports.len(),
            failed: reports.iter().filter(|report| report.state == "failed").count(),
            compared: sum(|report| report.compared),
            broken: sum(|report| report.broken),
            repaired: sum(|report| report.repaired),
            in_flight: sum(|report| report.in_flight),
        }
    }
}

#[derive(Serialize)]
struct DifferencesJson {
    total: u64,
    repaired: u64,
    differences: Vec<BrokenJson>,
}

#[derive(Serialize)]
struct BrokenJson {
    document: Option<String>,
    document_id: String,
    peer: String,
    lacking: &'static str,
    changes: u64,
    found: String,
    repaired: Option<String>,
}

impl BrokenJson {
    fn new(broken: &BrokenDocument, document: Option<String>) -> Self {
        Self {
            document,
            document_id: broken.document.to_string(),
            peer: broken.peer.to_string(),
            lacking: match broken.lacking {
                Lacking::Here => "here",
                Lacking::There => "there",
                Lacking::Unreadable => "unreadable",
            },
            changes: broken.changes,
            found: reply::rfc3339(broken.found),
            repaired: broken.repaired.map(reply::rfc3339),
        }
    }
}

#[derive(Serialize)]
struct StandingJson<'a> {
    document: &'a str,
    document_id: String,
    region: &'a str,
    live: bool,
    etag: Option<String>,
    heads: Vec<String>,
    changes: u64,
    dots: Vec<DotJson>,
    held_back: Vec<HeldBackJson>,
    damage: Option<&'a str>,
    bootstrapping: bool,
    vector: Vec<DotJson>,
    regions: Vec<RegionJson<'a>>,
}

#[derive(Serialize)]
struct DotJson {
    origin: String,
    region: Option<String>,
    sequence: u64,
}

impl DotJson {
    fn new(state: &ApiState, dot: Dot) -> Self {
        let region = state.documents().region_of(dot.origin).map(|region| region.to_string());
        Self { origin: dot.origin.to_string(), region, sequence: dot.sequence.0 }
    }
}

#[derive(Serialize)]
struct HeldBackJson {
    #[serde(flatten)]
    dot: DotJson,
    admitted: String,
    quarantined: Option<String>,
}

impl HeldBackJson {
    fn new(state: &ApiState, held: &HeldBack) -> Self {
        Self {
            dot: DotJson::new(state, held.dot),
            admitted: reply::rfc3339(held.admitted),
            quarantined: held.quarantined.clone(),
        }
    }
}

#[derive(Serialize)]
struct RegionJson<'a> {
    region: &'a str,
    connected: bool,
    durable: bool,
    entries_missing: u64,
}

impl<'a> RegionJson<'a> {
    fn new(view: &'a RegionView, reached: &VersionVector) -> Self {
        Self {
            region: view.region.as_str(),
            connected: view.connected,
            durable: view.held.includes(reached),
            entries_missing: view.held.behind(reached),
        }
    }
}

/// Comparisons that are told with the state of replication; those asked for are told on their own.
const REPORTS: usize = 16;
