//! Ledger rows on disk: JSON with a format number, independent of the types in memory.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use super::{Member, Register, Row, Step, What};
use crate::conflict::{Candidate, Conflict, ConflictId, Settlement};
use crate::edit::Path;
use crate::ids::{AuthorName, ChangeHash, DocumentId, Origin, Timestamp};
use crate::message::Act;

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
        acts: row.acts.values().map(store_act).collect(),
        conflict: row.conflict.as_ref().map(|conflict| store_conflict(row, conflict)),
    };
    serde_json::to_vec(&stored).expect("a row has only string keys and finite numbers")
}

pub(super) fn decode(bytes: &[u8]) -> Result<Row, StoredConflictError> {
    let stored: StoredRow =
        serde_json::from_slice(bytes).map_err(|error| StoredConflictError(error.to_string()))?;
    if stored.format != FORMAT {
        return Err(StoredConflictError(format!("format {} is not known", stored.format)));
    }
    let members: Result<Vec<_>, _> = stored.members.into_iter().map(load_member).collect();
    let members = members?;
    let acts: Result<Vec<_>, _> = stored.acts.into_iter().map(load_act).collect();
    let acts = acts?;
    let conflict = stored.conflict.map(|c| load_conflict(c, &members, &acts)).transpose()?;
    Ok(Row {
        register: Register(stored.register.into_iter().map(load_step).collect()),
        members: members.into_iter().collect(),
        acts: acts.into_iter().map(|act| (act.change, act)).collect(),
        conflict,
        grown: false,
        stirred: false,
        near: false,
        news: BTreeSet::new(),
        changed: false,
    })
}

#[derive(Serialize, Deserialize)]
struct StoredRow {
    format: u8,
    register: Vec<StoredStep>,
    members: Vec<StoredMember>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    acts: Vec<StoredAct>,
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
    #[serde(default, skip_serializing_if = "Option::is_none")]
    leader: Option<Uuid>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    author: Option<String>,
    at: u64,
    change: String,
    what: String,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    value: Option<Value>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    replaced: Vec<String>,
}

#[derive(Serialize, Deserialize)]
struct StoredAct {
    act: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    conflict: Option<String>,
    origin: Uuid,
    leader: Uuid,
    author: Option<String>,
    at: u64,
    change: String,
    note: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    value: Option<Value>,
}

/// What was decided. Candidates are members, by their place among them.
#[derive(Serialize, Deserialize)]
struct StoredConflict {
    id: String,
    document: Uuid,
    path: Vec<String>,
    kind: String,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    base: Option<Value>,
    policy: String,
    version: String,
    candidates: Vec<usize>,
    winner: Option<usize>,
    state: String,
    settled: Option<StoredAct>,
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
        leader: (member.leader != member.writer).then_some(member.leader.0),
        author: member.author.as_ref().map(ToString::to_string),
        at: member.at.0,
        change: member.change.to_string(),
        what: word(member.what).to_owned(),
        value: member.value.clone(),
        replaced: member.replaced.clone(),
    }
}

type Known = ((u64, String), Member);

fn load_member(stored: StoredMember) -> Result<Known, StoredConflictError> {
    let what = WHATS.iter().find(|(word, _)| *word == stored.what).map(|(_, what)| *what);
    let member = Member {
        writer: Origin(stored.writer),
        leader: Origin(stored.leader.unwrap_or(stored.writer)),
        author: load_author(stored.author)?,
        at: Timestamp(stored.at),
        change: load_hash(&stored.change)?,
        what: what.ok_or_else(|| StoredConflictError::field("member"))?,
        value: stored.value,
        replaced: stored.replaced,
    };
    Ok(((stored.counter, stored.operation), member))
}

fn store_act(act: &Settlement) -> StoredAct {
    StoredAct {
        act: act.act.to_string(),
        conflict: act.act.conflict().map(|id| id.to_string()),
        origin: act.origin.0,
        leader: act.leader.0,
        author: act.author.as_ref().map(ToString::to_string),
        at: act.at.0,
        change: act.change.to_string(),
        note: act.note.clone(),
        value: act.value.clone(),
    }
}

fn load_act(stored: StoredAct) -> Result<Settlement, StoredConflictError> {
    let damaged = || StoredConflictError::field("act");
    let conflict = stored.conflict.as_deref().map(str::parse::<ConflictId>).transpose();
    let conflict = conflict.map_err(|_| damaged())?;
    Ok(Settlement {
        act: Act::named(&stored.act, conflict).ok_or_else(damaged)?,
        origin: Origin(stored.origin),
        leader: Origin(stored.leader),
        author: load_author(stored.author)?,
        at: Timestamp(stored.at),
        change: load_hash(&stored.change)?,
        note: stored.note,
        value: stored.value,
    })
}

fn store_conflict(row: &Row, conflict: &Conflict) -> StoredConflict {
    let place = |candidate: &Candidate| {
        row.members.keys().position(|(_, operation)| *operation == candidate.id)
    };
    StoredConflict {
        id: conflict.id.to_string(),
        document: conflict.document.0,
        path: conflict.path.tokens().to_vec(),
        kind: conflict.kind.to_string(),
        base: conflict.base.clone(),
        policy: conflict.policy.to_string(),
        version: conflict.version.to_string(),
        candidates: conflict.candidates.iter().filter_map(place).collect(),
        winner: conflict.winner,
        state: conflict.state.to_string(),
        settled: conflict.settled.as_ref().map(store_act),
    }
}

fn load_conflict(
    stored: StoredConflict,
    members: &[Known],
    acts: &[Settlement],
) -> Result<Conflict, StoredConflictError> {
    let candidates: Option<Vec<Candidate>> =
        stored.candidates.iter().map(|place| members.get(*place).map(candidate)).collect();
    let mut acts = acts.to_vec();
    acts.sort_by_key(|act| (act.at, act.change));
    Ok(Conflict {
        id: stored.id.parse().map_err(|_| StoredConflictError::field("id"))?,
        document: DocumentId(stored.document),
        path: Path::from(stored.path),
        kind: stored.kind.parse().map_err(|_| StoredConflictError::field("kind"))?,
        base: stored.base,
        policy: stored.policy.parse().map_err(|_| StoredConflictError::field("policy"))?,
        version: stored.version.parse().map_err(|_| StoredConflictError::field("version"))?,
        candidates: candidates.ok_or_else(|| StoredConflictError::field("candidates"))?,
        winner: stored.winner,
        state: stored.state.parse().map_err(|_| StoredConflictError::field("state"))?,
        settled: stored.settled.map(load_act).transpose()?,
        acts,
    })
}

fn candidate(((_, operation), member): &Known) -> Candidate {
    super::decide::candidate(operation, member)
}

fn load_author(stored: Option<String>) -> Result<Option<AuthorName>, StoredConflictError> {
    let parsed = stored.as_deref().map(str::parse).transpose();
    parsed.map_err(|_| StoredConflictError::field("author"))
}

fn load_hash(text: &str) -> Result<ChangeHash, StoredConflictError> {
    text.parse().map_err(|_| StoredConflictError::field("change hash"))
}

fn word(what: What) -> &'static str {
    WHATS.iter().find(|(_, known)| *known == what).map_or("", |(word, _)| word)
}

const FORMAT: u8 = 2;

const WHATS: [(&str, What); 10] = [
    ("scalar", What::Scalar),
    ("counter", What::Counter),
    ("map", What::Map),
    ("list", What::List),
    ("text", What::Text),
    ("increment", What::Increment),
    ("edited", What::Edited),
    ("cleared", What::Cleared),
    ("deleted", What::Deleted),
    ("removed", What::Removed),
];
