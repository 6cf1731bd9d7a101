//! What a sync did, for the user to see.

use std::collections::BTreeMap;
use std::sync::Arc;

use anabranch_crdt::conflict::{Conflict, ConflictId, ConflictKind, ConflictState};
use anabranch_crdt::edit::Path;
use anabranch_crdt::ids::{DocumentName, Origin, RegionName, Timestamp};
use serde_json::Value;

use crate::leaf::Refusal;

/// What one sync did.
#[derive(Debug, Clone, PartialEq)]
pub struct SyncReport {
    /// The region that the client synced with.
    pub region: RegionName,
    /// What happened to each document that something happened to.
    pub documents: BTreeMap<DocumentName, DocumentReport>,
}

/// What one sync did to one document.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct DocumentReport {
    /// Changes of this client that the region has made durable.
    pub pushed: usize,
    /// Changes of others that are in the replica now.
    pub pulled: usize,
    /// Fields that were written on both sides.
    pub collisions: Vec<Collision>,
    /// Why the region has not taken changes of this client; they stay in the replica.
    pub refused: Option<Refusal>,
    /// Why nothing was pulled, if that failed.
    pub not_pulled: Option<Refusal>,
}

/// A field that was written on both sides.
#[derive(Debug, Clone, PartialEq)]
pub struct Collision {
    /// The id of the conflict, the same as in every region.
    pub id: ConflictId,
    /// Where.
    pub path: Path,
    /// What collided.
    pub kind: ConflictKind,
    /// Where the conflict stands.
    pub state: ConflictState,
    /// Every value, in an order that is the same everywhere.
    pub values: Vec<CollidedValue>,
}

/// One of the values that collided.
#[derive(Debug, Clone, PartialEq)]
pub struct CollidedValue {
    /// The value; `None` for a delete.
    pub value: Option<Value>,
    /// Who wrote it.
    pub writer: Origin,
    /// Whether that was this client.
    pub side: Side,
    /// When, by the writer's clock.
    pub at: Timestamp,
    /// Whether it is the one that shows.
    pub shows: bool,
}

/// Who wrote a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// This client.
    Own,
    /// Someone else.
    Other,
}

/// How the client stands to the cluster.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct SyncStatus {
    /// Whether a region is connected.
    pub connection: ConnectionState,
    /// What the last sync did that went through.
    pub last: Option<Arc<SyncReport>>,
    /// Why the last attempt failed, if it did.
    pub error: Option<String>,
}

/// Whether a region is connected.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum ConnectionState {
    /// Nothing syncs in the background.
    #[default]
    Idle,
    /// The network is switched off.
    Offline,
    /// No region answers yet.
    Connecting,
    /// This region is.
    Connected(RegionName),
}

impl SyncReport {
    pub(super) fn new(region: RegionName) -> Self {
        Self { region, documents: BTreeMap::new() }
    }

    /// Counts the changes that the region has made durable.
    #[must_use]
    pub fn pushed(&self) -> usize {
        self.documents.values().map(|document| document.pushed).sum()
    }

    /// Counts the changes that came from the region.
    #[must_use]
    pub fn pulled(&self) -> usize {
        self.documents.values().map(|document| document.pulled).sum()
    }

    pub(super) fn of(&mut self, name: &DocumentName) -> &mut DocumentReport {
        self.documents.entry(name.clone()).or_default()
    }
}

impl Collision {
    /// Describes a conflict as `own` sees it.
    #[must_use]
    pub fn new(conflict: Conflict, own: Origin) -> Self {
        let winner = conflict.winner;
        let value = |(index, candidate): (usize, anabranch_crdt::conflict::Candidate)| {
            let side = if candidate.origin == own { Side::Own } else { Side::Other };
            CollidedValue {
                value: candidate.value,
                writer: candidate.origin,
                side,
                at: candidate.at,
                shows: winner == Some(index),
            }
        };
        Self {
            id: conflict.id,
            path: conflict.path,
            kind: conflict.kind,
            state: conflict.state,
            values: conflict.candidates.into_iter().enumerate().map(value).collect(),
        }
    }

    /// Returns the value of one side, the one that shows first.
    #[must_use]
    pub fn value_of(&self, side: Side) -> Option<&CollidedValue> {
        let mut of_side: Vec<_> = self.values.iter().filter(|value| value.side == side).collect();
        of_side.sort_by_key(|value| !value.shows);
        of_side.into_iter().next()
    }
}
