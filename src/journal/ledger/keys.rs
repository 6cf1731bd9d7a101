//! The keys of the ledger's index and of its counts.
//!
//! Scope, state and inverted time: a range of the index is all rows of one state, in the whole
//! store or in one collection, from the newest to the oldest. Rows without a document's name are
//! in the index of the whole store alone, and are counted apart.

use anabranch_crdt::conflict::{ConflictId, ConflictKind, ConflictState};
use anabranch_crdt::ids::{CollectionName, Timestamp};

use super::{ConflictSummary, LedgerFilter, LedgerPosition};
use crate::journal::ReadError;
use crate::journal::record::Fields;
use crate::journal::table::CONFLICT_COUNTS;

/// Which rows a part of the index or of the counts is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::journal) enum Scope<'a> {
    /// All of the store.
    All,
    /// Those of one collection.
    Collection(&'a CollectionName),
    /// Those of documents that have no name; only counted.
    Unnamed,
}

impl<'a> Scope<'a> {
    /// The scope that a filter is about.
    pub(super) fn of(filter: &'a LedgerFilter) -> Self {
        filter.collection.as_ref().map_or(Self::All, Self::Collection)
    }

    /// The scope of the documents that are alike, under which a row is counted.
    pub(super) fn own(summary: &'a ConflictSummary) -> Self {
        summary.collection().map_or(Self::Unnamed, Self::Collection)
    }

    fn start(self) -> Vec<u8> {
        match self {
            Self::All => vec![ALL],
            Self::Collection(name) => [&[COLLECTION], name.as_str().as_bytes(), &[0]].concat(),
            Self::Unnamed => vec![UNNAMED],
        }
    }

    /// The start of the keys of one state.
    pub(super) fn state(self, state: ConflictState) -> Vec<u8> {
        let mut key = self.start();
        key.push(state_number(state));
        key
    }

    /// The key of a row.
    pub(super) fn row(self, state: ConflictState, position: LedgerPosition) -> Vec<u8> {
        let mut key = self.state(state);
        key.extend_from_slice(&(!position.at.0).to_be_bytes());
        key.extend_from_slice(&position.conflict.0);
        key
    }

    /// The key of a count.
    pub(super) fn count(self, state: ConflictState, kind: ConflictKind) -> Vec<u8> {
        let mut key = self.state(state);
        key.push(kind_number(kind));
        key
    }
}

/// The place that a key of the index ends with.
pub(in crate::journal) fn position(
    table: &'static str,
    key: &[u8],
) -> Result<LedgerPosition, ReadError> {
    let (_, place) = key.split_last_chunk::<24>().ok_or(ReadError::Corrupt { table })?;
    let mut fields = Fields::of(table, place);
    let at = Timestamp(!fields.number()?);
    Ok(LedgerPosition { at, conflict: ConflictId(fields.array()?) })
}

/// What a key of the counts is about; `None` for the collection of the whole store.
pub(in crate::journal) fn count_parts(key: &[u8]) -> Result<CountKey, ReadError> {
    let damaged = ReadError::Corrupt { table: CONFLICT_COUNTS.name };
    let Some((scope, &[state, kind])) = key.split_last_chunk::<2>() else { return Err(damaged) };
    let scope = match scope {
        [ALL] => None,
        [UNNAMED] => Some(None),
        [COLLECTION, name @ .., 0] => {
            let name = std::str::from_utf8(name).ok().and_then(|name| name.parse().ok());
            Some(Some(name.ok_or_else(|| damaged.clone())?))
        }
        _ => return Err(damaged),
    };
    let state = state_of(state).ok_or_else(|| damaged.clone())?;
    Ok(CountKey { scope, state, kind: kind_of(kind).ok_or(damaged)? })
}

/// What a count is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::journal) struct CountKey {
    /// `None` is the whole store, `Some(None)` the documents without a name.
    pub(in crate::journal) scope: Option<Option<CollectionName>>,
    pub(in crate::journal) state: ConflictState,
    pub(in crate::journal) kind: ConflictKind,
}

pub(super) fn state_number(state: ConflictState) -> u8 {
    STATES.iter().find(|(_, known)| *known == state).map_or(u8::MAX, |(number, _)| *number)
}

pub(super) fn state_of(number: u8) -> Option<ConflictState> {
    STATES.iter().find(|(known, _)| *known == number).map(|(_, state)| *state)
}

pub(super) fn kind_number(kind: ConflictKind) -> u8 {
    KINDS.iter().find(|(_, known)| *known == kind).map_or(u8::MAX, |(number, _)| *number)
}

pub(super) fn kind_of(number: u8) -> Option<ConflictKind> {
    KINDS.iter().find(|(known, _)| *known == number).map(|(_, kind)| *kind)
}

/// Every state.
pub(super) fn states() -> impl Iterator<Item = ConflictState> {
    STATES.iter().map(|(_, state)| *state)
}

const ALL: u8 = 0;
const COLLECTION: u8 = 1;
const UNNAMED: u8 = 2;

const STATES: [(u8, ConflictState); 4] = [
    (0, ConflictState::Open),
    (1, ConflictState::AutoResolved),
    (2, ConflictState::Resolved),
    (3, ConflictState::Dismissed),
];

const KINDS: [(u8, ConflictKind); 7] = [
    (0, ConflictKind::Value),
    (1, ConflictKind::Delete),
    (2, ConflictKind::Container),
    (3, ConflictKind::Type),
    (4, ConflictKind::Counter),
    (5, ConflictKind::Document),
    (6, ConflictKind::Whole),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_state_and_kind_has_a_number() {
        for state in ConflictState::ALL {
            assert_eq!(state_of(state_number(state)), Some(state));
        }
        for kind in ConflictKind::ALL {
            assert_eq!(kind_of(kind_number(kind)), Some(kind));
        }
    }
}
