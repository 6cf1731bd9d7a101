//! Conflicts: concurrent values at one path, as the ledger keeps them.

use std::fmt;
use std::str::FromStr;

use serde_json::Value;
use uuid::Uuid;

use crate::edit::Path;
use crate::ids::{AuthorName, ChangeHash, DocumentId, Origin, Timestamp};
use crate::message::Act;
use crate::policy::{Policy, PolicyVersion};

/// The id of a conflict, the same in every region.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConflictId(pub [u8; 16]);

impl fmt::Display for ConflictId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl FromStr for ConflictId {
    type Err = ConflictIdError;

    fn from_str(text: &str) -> Result<Self, ConflictIdError> {
        let digits = text.as_bytes();
        if digits.len() != 32 || !digits.iter().all(u8::is_ascii_hexdigit) {
            return Err(ConflictIdError(text.to_owned()));
        }
        u128::from_str_radix(text, 16)
            .map(|number| Self(number.to_be_bytes()))
            .map_err(|_| ConflictIdError(text.to_owned()))
    }
}

/// The text is no conflict id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is no conflict id: it has 32 hexadecimal digits, as `conflicts list` prints them")]
pub struct ConflictIdError(String);

/// What collided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ConflictKind {
    /// Concurrent values of one field or list element.
    Value,
    /// A delete, or the removal of an object around, against a concurrent write.
    Delete,
    /// Two objects, lists or texts created under one key.
    Container,
    /// Values of different types, such as an object against a number.
    Type,
    /// Increments against an overwrite, or counters created twice.
    Counter,
    /// The delete of a document against a concurrent edit.
    Document,
    /// Edits of different parts of a container that is policed as one value.
    Whole,
}

impl ConflictKind {
    /// Every kind.
    pub const ALL: [Self; 7] = [
        Self::Value,
        Self::Delete,
        Self::Container,
        Self::Type,
        Self::Counter,
        Self::Document,
        Self::Whole,
    ];
}

impl fmt::Display for ConflictKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Value => "value",
            Self::Delete => "delete",
            Self::Container => "container",
            Self::Type => "type",
            Self::Counter => "counter",
            Self::Document => "document",
            Self::Whole => "whole",
        })
    }
}

impl FromStr for ConflictKind {
    type Err = ConflictWordError;

    fn from_str(text: &str) -> Result<Self, ConflictWordError> {
        named(&Self::ALL, text)
    }
}

/// Where a conflict stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ConflictState {
    /// More than one value is still there, and none has been chosen.
    Open,
    /// The policy of the path chose the winner.
    AutoResolved,
    /// Somebody chose, or a later write superseded every candidate.
    Resolved,
    /// Somebody said that it does not matter; what showed goes on showing.
    Dismissed,
}

impl ConflictState {
    /// Every state.
    pub const ALL: [Self; 4] = [Self::Open, Self::AutoResolved, Self::Resolved, Self::Dismissed];
}

impl fmt::Display for ConflictState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Open => "open",
            Self::AutoResolved => "auto-resolved",
            Self::Resolved => "resolved",
            Self::Dismissed => "dismissed",
        })
    }
}

impl FromStr for ConflictState {
    type Err = ConflictWordError;

    fn from_str(text: &str) -> Result<Self, ConflictWordError> {
        named(&Self::ALL, text)
    }
}

/// The word names no kind, or no state, of a conflict.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{word}' is none of {known}")]
pub struct ConflictWordError {
    word: String,
    known: String,
}

fn named<T: Copy + fmt::Display>(all: &[T], text: &str) -> Result<T, ConflictWordError> {
    let found = all.iter().copied().find(|known| known.to_string() == text);
    found.ok_or_else(|| {
        let known: Vec<_> = all.iter().map(ToString::to_string).collect();
        ConflictWordError { word: text.to_owned(), known: known.join(", ") }
    })
}

/// One of the values that collided.
#[derive(Debug, Clone, PartialEq)]
pub struct Candidate {
    /// The operation that wrote it, `counter@actor`; this is what `resolve --take` names.
    pub id: String,
    /// The value that it wrote; `None` for a delete.
    pub value: Option<Value>,
    /// Whether it deleted or replaced an object around the field, and the field with it.
    pub removal: bool,
    /// The writer: the leader's origin, or the client's own id.
    pub origin: Origin,
    /// The leader that admitted it, which tells the region; the writer itself unless that is a
    /// client.
    pub leader: Origin,
    /// Who asked for it, if the request said so.
    pub author: Option<AuthorName>,
    /// When it was written, by the writer's clock, never later than its admission.
    pub at: Timestamp,
    /// The change that holds it.
    pub change: ChangeHash,
}

/// Something that was done about a conflict.
#[derive(Debug, Clone, PartialEq)]
pub struct Settlement {
    /// What was done: `Write` when a later ordinary write superseded every candidate.
    pub act: Act,
    /// The writer: the leader's origin, or the client's own id.
    pub origin: Origin,
    /// The leader that admitted it, which tells the region.
    pub leader: Origin,
    /// Who asked for it, if the request said so.
    pub author: Option<AuthorName>,
    /// When.
    pub at: Timestamp,
    /// The change that did.
    pub change: ChangeHash,
    /// The note that was left with it.
    pub note: Option<String>,
    /// What stood there after it; `None` if it deleted, or wrote nothing.
    pub value: Option<Value>,
}

/// One row of the ledger.
#[derive(Debug, Clone, PartialEq)]
pub struct Conflict {
    /// The same in every region.
    pub id: ConflictId,
    /// The document.
    pub document: DocumentId,
    /// The path inside the document.
    pub path: Path,
    /// What collided.
    pub kind: ConflictKind,
    /// What stood there at the common ancestor of the candidates; `None` if nothing did.
    pub base: Option<Value>,
    /// The policy that holds for the path.
    pub policy: Policy,
    /// The settings that the policy is from.
    pub version: PolicyVersion,
    /// Every value that collided, in the order of their operation ids.
    pub candidates: Vec<Candidate>,
    /// The candidate whose value shows, as an index; `None` once a later write superseded all.
    pub winner: Option<usize>,
    /// Where the conflict stands.
    pub state: ConflictState,
    /// The act that the state follows from, if one does.
    pub settled: Option<Settlement>,
    /// Everything that was done about it, the earliest first.
    pub acts: Vec<Settlement>,
}

impl Conflict {
    /// Returns the time of the latest candidate.
    #[must_use]
    pub fn at(&self) -> Timestamp {
        self.candidates.iter().map(|candidate| candidate.at).max().unwrap_or_default()
    }

    /// Returns the candidate whose value shows.
    #[must_use]
    pub fn winning(&self) -> Option<&Candidate> {
        self.candidates.get(self.winner?)
    }

    /// Says in a sentence by which rule the value that shows was chosen.
    #[must_use]
    pub fn why(&self) -> String {
        if let Some(settled) = &self.settled {
            let author = settled.author.as_ref();
            let who = author.map_or(String::new(), |author| format!(" by {author}"));
            return match settled.act {
                Act::Dismiss(_) => format!("dismissed{who}: what shows goes on showing"),
                Act::Resolve(_) => format!("resolved{who}"),
                Act::Reopen(_) => format!("reopened{who}: someone has to decide"),
                Act::Undo(_) => format!("the resolution was undone{who}: someone has to decide"),
                Act::Write
                | Act::Delete
                | Act::Revert
                | Act::Undelete
                | Act::Compact
                | Act::Purge
                | Act::Open
                | Act::Late
                | Act::Policy => {
                    format!("a later write{who} superseded every candidate")
                }
            };
        }
        let automatic = self.state == ConflictState::AutoResolved;
        if automatic && self.candidates.iter().any(|candidate| candidate.removal) {
            let why = "the object around is gone";
            return format!("{}: {why}", self.policy);
        }
        let merged = self.candidates.iter().all(|candidate| candidate.value.is_some());
        if automatic && merged && self.winner.is_none() {
            return format!("{}: all sides show, merged", self.policy);
        }
        match self.policy {
            Policy::Auto => self.why_auto().to_owned(),
            Policy::Lww => "lww: the greatest timestamp, then the greatest writer".to_owned(),
            Policy::First => "first: the least timestamp, then the least writer".to_owned(),
            Policy::Max => "max: the greatest value".to_owned(),
            Policy::Min => "min: the least value".to_owned(),
            Policy::Manual => "manual: someone has to decide; until then a deterministic \
                               candidate shows"
                .to_owned(),
            Policy::RegionPriority => {
                "region-priority: the region that stands first in the settings".to_owned()
            }
        }
    }

    fn why_auto(&self) -> &'static str {
        match (self.state, self.kind) {
            (ConflictState::Open, _) => {
                "auto: a deterministic candidate shows until someone chooses"
            }
            (_, ConflictKind::Delete) => "auto: a write wins over a concurrent delete",
            (_, ConflictKind::Document) => "auto: an edit wins over a concurrent delete",
            (_, ConflictKind::Counter) => "auto: an overwrite wins over concurrent increments",
            (
                _,
                ConflictKind::Container
                | ConflictKind::Value
                | ConflictKind::Type
                | ConflictKind::Whole,
            ) => "auto: a deterministic candidate shows",
        }
    }

    /// Returns a number that changes whenever candidates, winner, state or acts do.
    #[must_use]
    pub fn revision(&self) -> Revision {
        let mut text = format!("{}|{:?}|{}|{}", self.state, self.winner, self.policy, self.version);
        let candidates = self.candidates.iter().map(|candidate| candidate.id.clone());
        let acts = self.acts.iter().map(|act| act.change.to_string());
        candidates.chain(acts).for_each(|id| {
            text.push('|');
            text.push_str(&id);
        });
        let (high, _) = Uuid::new_v5(&REVISION_NAMESPACE, text.as_bytes()).as_u64_pair();
        Revision(high)
    }
}

/// Tells one state of a row from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Revision(pub u64);

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl FromStr for Revision {
    type Err = ConflictIdError;

    fn from_str(text: &str) -> Result<Self, ConflictIdError> {
        let digits = text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let number = u64::from_str_radix(text, 16).ok().filter(|_| digits);
        number.map(Self).ok_or_else(|| ConflictIdError(text.to_owned()))
    }
}

/// The UUID namespace of revisions.
const REVISION_NAMESPACE: Uuid = Uuid::from_bytes([
    0xd0, 0x24, 0x5b, 0xe9, 0x18, 0x77, 0x4f, 0x61, 0xa4, 0x3f, 0x90, 0x0c, 0x62, 0xbd, 0x15, 0xce,
]);
