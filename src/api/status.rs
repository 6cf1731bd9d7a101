//! What a node says of itself: replication, status, limits, health, and its own description.

use std::collections::BTreeMap;
use std::sync::Arc;

use anabranch_crdt::clock::ClockOffset;
use anabranch_crdt::ids::{MAX_COLLECTION_BYTES, MAX_KEY_BYTES};
use axum::extract::Request;
use axum::http::StatusCode;
use bytes::Bytes;
use serde::Serialize;

use crate::document::{Closed, OriginStatus};
use crate::replication::{Member, PeerStatus};
use crate::settings::Compression;

use super::replicas::{ReconciliationJson, not_ready};
use super::request::no_query;
use super::{Answer, ApiState, Problem, conflicts, listing, reply, serve};

/// The description of every route; a test keeps it in step with the router.
pub(super) const OPENAPI: &str = include_str!("openapi.json");

/// `GET /v1/replication`.
pub(super) async fn replication(state: ApiState, request: Request) -> Answer {
    no_query(request.uri().query())?;
    let position = state.documents().position();
    let origin = |dot: anabranch_crdt::entry::Dot| OriginJson {
        origin: dot.origin.to_string(),
        region: state.documents().region_of(dot.origin).map(|region| region.to_string()),
        sequence: dot.sequence.0,
    };
    let peers = state.0.sources.peers.borrow().clone();
    let OriginStatus { settled, renewals } = state.documents().origin_status();
    let replicas = state.0.sources.replicas.status();
    let mut response = reply::json(&ReplicationJson {
        region: state.0.region.as_str(),
        origin: (state.0.sources.origin)().to_string(),
        settled,
        renewals,
        token: &position.token,
        origins: position.vector.iter().map(origin).collect(),
        clock_correction_ms: millis(state.0.sources.clock.status().correction),
        peers: peers.iter().map(PeerJson::new).collect(),
        reconciliation: ReconciliationJson::from(&*replicas),
    });
    reply::set_session(response.headers_mut(), &position);
    Ok(response)
}

/// `GET /v1/status`.
pub(super) async fn status(state: ApiState, request: Request) -> Answer {
    no_query(request.uri().query())?;
    let region = |member: &Member| {
        let contact = member.contact.as_ref()?;
        Some(RegionJson {
            name: member.region.to_string(),
            http: contact.http.to_string(),
            quic: contact.quic.to_string(),
            state: member.standing.as_str(),
        })
    };
    let members = Arc::clone(&state.0.sources.transport.members().borrow());
    Ok(reply::json(&StatusJson {
        cluster: ClusterJson { name: &state.0.cluster_name, id: state.0.cluster.to_string() },
        region: state.0.region.as_str(),
        regions: members.iter().filter_map(region).collect(),
        version: env!("CARGO_PKG_VERSION"),
    }))
}

/// `GET /v1/limits`.
pub(super) async fn limits(state: ApiState, request: Request) -> Answer {
    no_query(request.uri().query())?;
    let limits = state.limits();
    let millis =
        |duration: std::time::Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let bytes = |size: usize| u64::try_from(size).unwrap_or(u64::MAX);
    Ok(reply::json(&BTreeMap::from([
        ("batch_entries", bytes(limits.batch_entries)),
        ("body_bytes", bytes(limits.body_bytes)),
        ("cache_bytes", bytes(limits.cache_bytes)),
        ("changes_warning", limits.changes_warning),
        ("clock_skew_ms", millis(limits.clock_skew)),
        ("compression", u64::from(limits.compression == Compression::On)),
        ("concern_wait_ms", millis(limits.concern_wait)),
        ("conflict_age_ms", millis(limits.conflict_age)),
        ("conflict_rows", limits.conflict_rows),
        ("collection_bytes", bytes(MAX_COLLECTION_BYTES)),
        ("connections", bytes(serve::MAX_CONNECTIONS)),
        ("document_bytes", bytes(limits.document_bytes)),
        ("frame_bytes", bytes(limits.frame_bytes)),
        ("header_bytes", bytes(serve::MAX_HEADER_BYTES)),
        ("in_flight_bytes", bytes(limits.in_flight_bytes)),
        ("journal_age_ms", millis(limits.journal_age)),
        ("journal_bytes", limits.journal_bytes),
        ("journal_keep_ms", millis(limits.journal_keep)),
        ("key_bytes", bytes(MAX_KEY_BYTES)),
        // 0 is no cap; regions may have one of their own besides.
        ("link_bandwidth", limits.link_bandwidth.unwrap_or_default()),
        ("nesting", bytes(limits.nesting)),
        ("note_bytes", bytes(conflicts::NOTE_BYTES)),
        ("page_bytes", bytes(listing::PAGE_BYTES)),
        ("page_documents", listing::PAGE_DOCUMENTS),
        ("purge_age_ms", millis(limits.purge_age)),
        ("queue", bytes(limits.queue)),
        ("session_wait_ms", millis(limits.session_wait)),
        ("settle_within_ms", millis(limits.settle_within)),
        ("verify_interval_ms", millis(limits.verify_interval)),
        ("verify_rate", u64::from(limits.verify_rate)),
    ])))
}

/// `GET /v1/openapi.json`.
pub(super) async fn openapi(_: ApiState, request: Request) -> Answer {
    no_query(request.uri().query())?;
    Ok(reply::json_bytes(StatusCode::OK, Bytes::from_static(OPENAPI.as_bytes())))
}

/// `GET /livez`: the process answers.
pub(super) async fn livez(_: ApiState, request: Request) -> Answer {
    no_query(request.uri().query())?;
    Ok(reply::json_bytes(StatusCode::OK, Bytes::from_static(b"{\"live\":true}")))
}

/// `GET /readyz`: the node takes requests.
pub(super) async fn readyz(state: ApiState, request: Request) -> Answer {
    no_query(request.uri().query())?;
    if *state.closing().borrow() {
        let detail = "the node is shutting down: try another one";
        let problem = Problem::new(StatusCode::SERVICE_UNAVAILABLE, "shutting_down", detail);
        return Err(problem.with_retry().with_member("ready", false.into()));
    }
    if let Some(Closed { code, message }) = state.0.sources.door.closed() {
        let problem = Problem::new(StatusCode::SERVICE_UNAVAILABLE, code, message);
        return Err(problem.with_member("ready", false.into()));
    }
    if let Some(bootstrap) = &state.0.sources.replicas.status().bootstrap {
        return Err(not_ready(bootstrap));
    }
    // Reads are answered meanwhile, and writes wait for a moment.
    let body: &'static [u8] = match state.documents().origin_status().settled {
        true => b"{\"ready\":true}",
        false => b"{\"ready\":true,\"settling\":true}",
    };
    Ok(reply::json_bytes(StatusCode::OK, Bytes::from_static(body)))
}

#[derive(Serialize)]
struct ReplicationJson<'a> {
    region: &'a str,
    origin: String,
    settled: bool,
    renewals: u64,
    token: &'a str,
    origins: Vec<OriginJson>,
    clock_correction_ms: f64,
    peers: Vec<PeerJson<'a>>,
    #[serde(flatten)]
    reconciliation: ReconciliationJson<'a>,
}

#[derive(Serialize)]
struct OriginJson {
    origin: String,
    region: Option<String>,
    sequence: u64,
}

#[derive(Serialize)]
struct PeerJson<'a> {
    region: &'a str,
    state: &'static str,
    neighbour: bool,
    connected: bool,
    entries_behind: u64,
    seconds_behind: f64,
    entries_missing: u64,
    last_error: Option<&'a str>,
    clock_offset_ms: Option<f64>,
    round_trip_ms: Option<f64>,
    entry_bytes_sent: u64,
    entry_bytes_received: u64,
    duplicate_bytes_received: u64,
}

impl<'a> PeerJson<'a> {
    fn new(peer: &'a PeerStatus) -> Self {
        Self {
            region: peer.region.as_str(),
            state: peer.standing.as_str(),
            neighbour: peer.neighbour,
            connected: peer.connected,
            entries_behind: peer.entries_behind,
            seconds_behind: peer.seconds_behind,
            entries_missing: peer.entries_missing,
            last_error: peer.last_error.as_deref(),
            clock_offset_ms: peer.clock.map(|clock| millis(clock.offset)),
            round_trip_ms: peer.clock.map(|clock| clock.round_trip.as_secs_f64() * 1e3),
            entry_bytes_sent: peer.entries.entry_bytes_sent,
            entry_bytes_received: peer.entries.entry_bytes_received,
            duplicate_bytes_received: peer.entries.duplicate_bytes_received,
        }
    }
}

fn millis(offset: ClockOffset) -> f64 {
    offset.0 as f64 / 1e3
}

#[derive(Serialize)]
struct StatusJson<'a> {
    cluster: ClusterJson<'a>,
    region: &'a str,
    regions: Vec<RegionJson>,
    version: &'static str,
}

#[derive(Serialize)]
struct ClusterJson<'a> {
    name: &'a str,
    id: String,
}

#[derive(Serialize)]
struct RegionJson {
    name: String,
    http: String,
    quic: String,
    state: &'static str,
}

#[cfg(test)]
mod tests;
