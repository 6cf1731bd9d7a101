//! Ledger rows on disk: JSON with a format number, independent of the types in memory.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use super::{Member, Register, Row, Step, What};
use crate::conflict::{Candidate, Conflict, ConflictKind, ConflictState, Settlement};
use crate::edit::Path;
use crate::ids::{ChangeHash, DocumentId, Origin, Timestamp};
use crate::message::Act;
use crate::policy::PolicyVersion;

/// A stored row of the ledger that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a row of the ledger cannot be read: {0}")]
pub struct StoredConflictError(String);

impl StoredConflictError {
    pub(super) fn undecided() -> Self {
        Self("it was stored before it was decided".into())
    }

    fn field(name: &str) -> Self {
        Self(format!("its {name} is damaged"))
    }
}

pub(super) fn encode(row: &Row) -> Vec<u8> {
    let stored = StoredRow {
        format: FORMAT,
        register: row.register.0.iter().map(store_step).collect(),
        members: row.members.iter().map(|((c, o), m)| store_member(*c, o, m)).collect(),
        settled: row.settled.as_ref().map(store_settlement),
        conflict: row.conflict.as_ref().map(store_conflict),
    };
    serde_json::to_vec(&stored).expect("a row has only string keys and finite numbers")
}

pub(super) fn decode(bytes: &[u8]) -> Result<Row, StoredConflictError> {
    let stored: StoredRow =
        serde_json::from_slice(bytes).map_err(|error| StoredConflictError(error.to_string()))?;
    if stored.format != FORMAT {
        return Err(StoredConflictError(format!("format {} is not known", stored.format)));
    }
    let members: Result<BTreeMap<_, _>, _> = stored.members.iter().map(load_member).collect();
    let members = members?;
    let conflict = stored.conflict.map(|c| load_conflict(c, stored.settled.as_ref()));
    Ok(Row {
        register: Register(stored.register.into_iter().map(load_step).collect()),
        members,
        settled: stored.settled.as_ref().map(load_settlement).transpose()?,
        conflict: conflict.transpose()?,
        changed: false,
    })
}

#[derive(Serialize, Deserialize)]
struct StoredRow {
    format: u8,
    register: Vec<StoredStep>,
    members: Vec<StoredMember>,
    settled: Option<StoredSettlement>,
    conflict: Option<StoredConflict>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum StoredStep {
    Key(String),
    Element(String),
}

#[derive(Serialize, Deserialize)]
struct StoredMember {
    counter: u64,
    operation: String,
    writer: Uuid,
    at: u64,
    change: String,
    what: String,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    value: Option<Value>,
    replaced: Vec<String>,
}

#[derive(Serialize, Deserialize)]
struct StoredSettlement {
    origin: Uuid,
    at: u64,
    change: String,
    note: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct StoredConflict {
    id: String,
    document: Uuid,
    path: Vec<String>,
    kind: String,
    policy: String,
    candidates: Vec<StoredCandidate>,
    winner: Option<usize>,
    state: String,
    settled: bool,
}

#[derive(Serialize, Deserialize)]
struct StoredCandidate {
    id: String,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    value: Option<Value>,
    origin: Uuid,
    at: u64,
    change: String,
}

/// Tells a stored `null` from a value that is not there.
fn present<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(deserializer).map(Some)
}

fn store_step(step: &Step) -> StoredStep {
    match step {
        Step::Key(key) => StoredStep::Key(key.clone()),
        Step::Element(element) => StoredStep::Element(element.clone()),
    }
}

fn load_step(step: StoredStep) -> Step {
    match step {
        StoredStep::Key(key) => Step::Key(key),
        StoredStep::Element(element) => Step::Element(element),
    }
}

fn store_member(counter: u64, operation: &str, member: &Member) -> StoredMember {
    StoredMember {
        counter,
        operation: operation.to_owned(),
        writer: member.writer.0,
        at: member.at.0,
        change: member.change.to_string(),
        what: word(&WHATS, member.what).to_owned(),
        value: member.value.clone(),
        replaced: member.replaced.clone(),
    }
}

fn load_member(stored: &StoredMember) -> Result<((u64, String), Member), StoredConflictError> {
    let member = Member {
        writer: Origin(stored.writer),
        at: Timestamp(stored.at),
        change: load_hash(&stored.change)?,
        what: meaning(&WHATS, &stored.what, "member")?,
        value: stored.value.clone(),
        replaced: stored.replaced.clone(),
    };
    Ok(((stored.counter, stored.operation.clone()), member))
}

fn store_settlement(settlement: &Settlement) -> StoredSettlement {
    StoredSettlement {
        origin: settlement.origin.0,
        at: settlement.at.0,
        change: settlement.change.to_string(),
        note: settlement.note.clone(),
    }
}

fn load_settlement(stored: &StoredSettlement) -> Result<Settlement, StoredConflictError> {
    Ok(Settlement {
        act: Act::Write,
        leader: Origin(stored.origin),
        author: None,
        origin: Origin(stored.origin),
        at: Timestamp(stored.at),
        change: load_hash(&stored.change)?,
        note: stored.note.clone(),
    })
}

fn store_conflict(conflict: &Conflict) -> StoredConflict {
    StoredConflict {
        id: conflict.id.to_string(),
        document: conflict.document.0,
        path: conflict.path.tokens().to_vec(),
        kind: conflict.kind.to_string(),
        policy: conflict.policy.to_string(),
        candidates: conflict.candidates.iter().map(store_candidate).collect(),
        winner: conflict.winner,
        state: conflict.state.to_string(),
        settled: conflict.settled.is_some(),
    }
}

fn load_conflict(
    stored: StoredConflict,
    settled: Option<&StoredSettlement>,
) -> Result<Conflict, StoredConflictError> {
    let candidates: Result<Vec<_>, _> = stored.candidates.iter().map(load_candidate).collect();
    Ok(Conflict {
        base: None,
        version: PolicyVersion::default(),
        acts: Vec::new(),
        id: stored.id.parse().map_err(|_| StoredConflictError::field("id"))?,
        document: DocumentId(stored.document),
        path: Path::from(stored.path),
        kind: meaning(&KINDS, &stored.kind, "kind")?,
        policy: stored.policy.parse().map_err(|_| StoredConflictError::field("policy"))?,
        candidates: candidates?,
        winner: stored.winner,
        state: meaning(&STATES, &stored.state, "state")?,
        settled: settled.filter(|_| stored.settled).map(load_settlement).transpose()?,
    })
}

fn store_candidate(candidate: &Candidate) -> StoredCandidate {
    StoredCandidate {
        id: candidate.id.clone(),
        value: candidate.value.clone(),
        origin: candidate.origin.0,
        at: candidate.at.0,
        change: candidate.change.to_string(),
    }
}

fn load_candidate(stored: &StoredCandidate) -> Result<Candidate, StoredConflictError> {
    Ok(Candidate {
        leader: Origin(stored.origin),
        author: None,
        id: stored.id.clone(),
        value: stored.value.clone(),
        origin: Origin(stored.origin),
        at: Timestamp(stored.at),
        change: load_hash(&stored.change)?,
    })
}

fn load_hash(text: &str) -> Result<ChangeHash, StoredConflictError> {
    text.parse().map_err(|_| StoredConflictError::field("change hash"))
}

fn word<T: PartialEq>(words: &[(&'static str, T)], meaning: T) -> &'static str {
    words.iter().find(|(_, known)| *known == meaning).map_or("", |(word, _)| word)
}

fn meaning<T: Copy>(
    words: &[(&'static str, T)],
    word: &str,
    field: &str,
) -> Result<T, StoredConflictError> {
    let found = words.iter().find(|(known, _)| *known == word).map(|(_, meaning)| *meaning);
    found.ok_or_else(|| StoredConflictError::field(field))
}

const FORMAT: u8 = 1;

const WHATS: [(&str, What); 8] = [
    ("scalar", What::Scalar),
    ("counter", What::Counter),
    ("map", What::Map),
    ("list", What::List),
    ("text", What::Text),
    ("increment", What::Increment),
    ("deleted", What::Deleted),
    ("removed", What::Removed),
];

const KINDS: [(&str, ConflictKind); 4] = [
    ("value", ConflictKind::Value),
    ("delete", ConflictKind::Delete),
    ("container", ConflictKind::Container),
    ("type", ConflictKind::Type),
];

const STATES: [(&str, ConflictState); 3] = [
    ("open", ConflictState::Open),
    ("auto-resolved", ConflictState::AutoResolved),
    ("resolved", ConflictState::Resolved),
];
