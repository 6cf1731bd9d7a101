//! A conflict as it is told: stable, and described in OpenAPI.

use anabranch_crdt::conflict::{Candidate, Settlement};
use anabranch_crdt::ids::{Origin, RegionName};
use serde::Serialize;
use serde_json::Value;

use crate::api::reply;
use crate::document::NamedConflict;

/// Finds the region of a leader.
pub(in crate::api) type RegionOf<'a> = &'a dyn Fn(Origin) -> Option<RegionName>;

/// A row of the ledger.
#[derive(Serialize)]
pub(in crate::api) struct ConflictJson<'a> {
    id: String,
    revision: String,
    document: Option<String>,
    document_id: String,
    path: String,
    kind: String,
    base: Option<BaseJson<'a>>,
    policy: String,
    policy_version: String,
    state: String,
    winner: Option<&'a str>,
    why: String,
    candidates: Vec<CandidateJson<'a>>,
    settled: Option<ActJson<'a>>,
    acts: Vec<ActJson<'a>>,
    at: String,
}

#[derive(Serialize)]
struct BaseJson<'a> {
    value: &'a Value,
}

#[derive(Serialize)]
struct CandidateJson<'a> {
    id: &'a str,
    value: Option<&'a Value>,
    deleted: bool,
    removal: bool,
    region: Option<String>,
    author: Option<&'a str>,
    origin: String,
    client: bool,
    at: String,
    change: String,
}

#[derive(Serialize)]
struct ActJson<'a> {
    act: String,
    region: Option<String>,
    author: Option<&'a str>,
    origin: String,
    at: String,
    change: String,
    note: Option<&'a str>,
    value: Option<&'a Value>,
}

impl<'a> ConflictJson<'a> {
    /// Tells of a row; `region_of` finds the region of a leader.
    pub(in crate::api) fn new(named: &'a NamedConflict, region_of: RegionOf<'_>) -> Self {
        let conflict = &named.conflict;
        let winner = conflict.winner.and_then(|index| conflict.candidates.get(index));
        let act = |act| ActJson::new(act, region_of);
        Self {
            id: conflict.id.to_string(),
            revision: conflict.revision().to_string(),
            document: named.name.as_ref().map(ToString::to_string),
            document_id: conflict.document.to_string(),
            path: conflict.path.to_string(),
            kind: conflict.kind.to_string(),
            base: conflict.base.as_ref().map(|value| BaseJson { value }),
            policy: conflict.policy.to_string(),
            policy_version: conflict.version.to_string(),
            state: conflict.state.to_string(),
            winner: winner.map(|candidate| candidate.id.as_str()),
            why: conflict.why(),
            candidates: conflict
                .candidates
                .iter()
                .map(|c| CandidateJson::new(c, region_of))
                .collect(),
            settled: conflict.settled.as_ref().map(act),
            acts: conflict.acts.iter().map(act).collect(),
            at: reply::rfc3339(conflict.at()),
        }
    }
}

impl<'a> CandidateJson<'a> {
    fn new(candidate: &'a Candidate, region_of: RegionOf<'_>) -> Self {
        Self {
            id: &candidate.id,
            value: candidate.value.as_ref(),
            deleted: candidate.value.is_none(),
            removal: candidate.removal,
            region: region_of(candidate.leader).map(|region| region.to_string()),
            author: candidate.author.as_ref().map(|author| author.as_str()),
            origin: candidate.origin.to_string(),
            client: candidate.origin != candidate.leader,
            at: reply::rfc3339(candidate.at),
            change: candidate.change.to_string(),
        }
    }
}

impl<'a> ActJson<'a> {
    fn new(act: &'a Settlement, region_of: RegionOf<'_>) -> Self {
        Self {
            act: act.act.to_string(),
            region: region_of(act.leader).map(|region| region.to_string()),
            author: act.author.as_ref().map(|author| author.as_str()),
            origin: act.origin.to_string(),
            at: reply::rfc3339(act.at),
            change: act.change.to_string(),
            note: act.note.as_deref(),
            value: act.value.as_ref(),
        }
    }
}
