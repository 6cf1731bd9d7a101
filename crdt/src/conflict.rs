//! Conflicts: concurrent values at one path, as the ledger keeps them.

use std::fmt;
use std::str::FromStr;

use serde_json::Value;

use crate::edit::Path;
use crate::ids::{ChangeHash, DocumentId, Origin, Timestamp};
use crate::policy::Policy;

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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ConflictKind {
    /// Concurrent values of one field or list element.
    Value,
    /// A delete against a concurrent write.
    Delete,
    /// Two objects, lists or texts created under one key.
    Container,
    /// Values of different types, such as an object against a number.
    Type,
}

impl fmt::Display for ConflictKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Value => "value",
            Self::Delete => "delete",
            Self::Container => "container",
            Self::Type => "type",
        })
    }
}

/// Where a conflict stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ConflictState {
    /// More than one value is still there, and none has been chosen.
    Open,
    /// The policy of the path chose the winner.
    AutoResolved,
    /// A later write superseded every candidate.
    Resolved,
}

impl fmt::Display for ConflictState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Open => "open",
            Self::AutoResolved => "auto-resolved",
            Self::Resolved => "resolved",
        })
    }
}

/// One of the values that collided.
#[derive(Debug, Clone, PartialEq)]
pub struct Candidate {
    /// The operation that wrote it, `counter@actor`; this is what `resolve --take` names.
    pub id: String,
    /// The value that it wrote; `None` for a delete.
    pub value: Option<Value>,
    /// The writer: the leader's origin, or the client's own id.
    pub origin: Origin,
    /// When it was written, by the writer's clock, never later than its admission.
    pub at: Timestamp,
    /// The change that holds it.
    pub change: ChangeHash,
}

/// How a conflict ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settlement {
    /// Who settled it.
    pub origin: Origin,
    /// When.
    pub at: Timestamp,
    /// The change that did.
    pub change: ChangeHash,
    /// The note that was left with it.
    pub note: Option<String>,
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
    /// The policy that holds for the path.
    pub policy: Policy,
    /// Every value that collided, in the order of their operation ids.
    pub candidates: Vec<Candidate>,
    /// The candidate whose value shows, as an index; `None` once a later write superseded all.
    pub winner: Option<usize>,
    /// Where the conflict stands.
    pub state: ConflictState,
    /// How it ended, if it did.
    pub settled: Option<Settlement>,
}
