//! `/v1/regions`: the member table, and what operators do with it.

use std::collections::BTreeMap;
use std::sync::Arc;

use anabranch_crdt::ids::RegionName;
use axum::extract::Request;
use axum::http::StatusCode;
use serde::Serialize;

use super::request::{author, no_query};
use super::{Answer, ApiState, Problem, reply};
use crate::replication::{Member, MemberAct, Members, Neighbours};

/// `GET /v1/regions`.
pub(super) async fn list(state: ApiState, request: Request) -> Answer {
    no_query(request.uri().query())?;
    Ok(reply::json(&listed(&state)))
}

/// `POST /v1/regions/{region}:drain`, `:undrain`, `:leave` and `:forget`.
pub(super) async fn act(state: ApiState, request: Request) -> Answer {
    no_query(request.uri().query())?;
    let (region, act) = target(request.uri().path())?;
    let author = author(request.headers())?;
    // The trace of who did it: the table itself says only what holds.
    let by = author.as_ref().map_or("nobody named", |author| author.as_str());
    tracing::warn!(%region, ?act, by, "an operator changes where a region stands");
    state.0.sources.transport.steer(&region, act).await?;
    Ok(reply::json(&listed(&state)))
}

/// Returns where else to write, for a region that takes no writes.
pub(super) fn elsewhere(members: &Members) -> Vec<serde_json::Value> {
    let takes_writes =
        |member: &&Member| member.standing.state == crate::replication::MemberState::Active;
    let others = members.others().filter(takes_writes);
    let named = others.filter_map(|member| {
        let http = member.contact.as_ref()?.http;
        Some(serde_json::json!({"name": member.region.as_str(), "http": http.to_string()}))
    });
    named.collect()
}

/// Tells whether a problem with this code is about where the own region stands.
pub(super) fn is_standing(code: &str) -> bool {
    STANDINGS.contains(&code)
}

fn target(path: &str) -> Result<(RegionName, MemberAct), Problem> {
    let unknown = || {
        let detail = format!("'{path}' is no act on a region: drain, undrain, leave or forget it");
        Problem::new(StatusCode::NOT_FOUND, "no_such_route", detail)
    };
    let rest = path.strip_prefix("/v1/regions/").ok_or_else(unknown)?;
    let (name, act) = rest.rsplit_once(':').ok_or_else(unknown)?;
    let act = match act {
        "drain" => MemberAct::Drain,
        "undrain" => MemberAct::Undrain,
        "leave" => MemberAct::Leave,
        "forget" => MemberAct::Forget,
        _ => return Err(unknown()),
    };
    let name = name
        .parse()
        .map_err(|error| Problem::bad_request("bad_region", format!("bad region name: {error}")))?;
    Ok((name, act))
}

fn listed(state: &ApiState) -> RegionsJson {
    let members: Arc<Members> = Arc::clone(&state.0.sources.transport.members().borrow());
    let peers = state.0.sources.peers.borrow().clone();
    let connected: BTreeMap<&RegionName, bool> =
        peers.iter().map(|peer| (&peer.region, peer.connected)).collect();
    let region = |member: &Member| {
        let contact = member.contact.as_ref();
        let restricted = contact.and_then(|contact| match &contact.peers {
            Neighbours::All => None,
            Neighbours::Only(names) => Some(names.iter().map(ToString::to_string).collect()),
        });
        let own = member.region == *members.own();
        RegionJson {
            name: member.region.to_string(),
            state: member.standing.as_str(),
            voter: member.standing.state.counts(),
            quic: contact.map(|contact| contact.quic.to_string()),
            http: contact.map(|contact| contact.http.to_string()),
            peers: restricted,
            connected: own || connected.get(&member.region).copied().unwrap_or_default(),
        }
    };
    RegionsJson { region: members.own().to_string(), regions: members.iter().map(region).collect() }
}

#[derive(Serialize)]
struct RegionsJson {
    region: String,
    regions: Vec<RegionJson>,
}

#[derive(Serialize)]
struct RegionJson {
    name: String,
    state: &'static str,
    voter: bool,
    quic: Option<String>,
    http: Option<String>,
    peers: Option<Vec<String>>,
    connected: bool,
}

/// The codes of [`crate::document::Closed`] that a node answers because of its standing.
const STANDINGS: [&str; 3] = ["draining", "region_left", "region_forgotten"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_act_is_what_follows_the_last_colon() {
        let (region, act) = target("/v1/regions/eu-west:drain").unwrap();
        assert_eq!((region.as_str(), act), ("eu-west", MemberAct::Drain));
        for path in ["/v1/regions/eu-west", "/v1/regions/eu-west:explode", "/v1/regions/:drain"] {
            assert!(target(path).is_err(), "{path}");
        }
    }
}
