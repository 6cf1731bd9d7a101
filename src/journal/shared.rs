//! What the writer thread and the handles share besides the database.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock};

use anabranch_crdt::entry::Dot;
use anabranch_crdt::ids::{Origin, RegionName, Timestamp};
use anabranch_crdt::version::VersionVector;

use super::Identity;
use super::record::{LogRow, OriginRow};
use super::recovery::Recovered;
use super::store::Store;

/// Read by every handle, changed by the writer thread.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) store: Store,
    /// Rows of `pending-1`: raised before a commit and lowered after it, so never too low.
    pub(super) pending: AtomicU64,
    /// Whether the ledger may have rows: set before the first is written, so never too late.
    pub(super) any_conflicts: AtomicBool,
    origins: Mutex<Origins>,
    identity: RwLock<Identity>,
}

/// What is known of origins besides their sequence.
#[derive(Debug, Default)]
pub(super) struct Origins {
    pub(super) known: BTreeMap<Origin, Known>,
    /// Origins that were named since the last commit.
    pub(super) unsaved: BTreeSet<Origin>,
}

/// What is known of one origin.
#[derive(Debug, Clone, Default)]
pub(super) struct Known {
    pub(super) region: Option<RegionName>,
    pub(super) latest: Timestamp,
    pub(super) log: LogRow,
}

impl Shared {
    pub(super) fn new(store: Store, recovered: &Recovered) -> Self {
        let shared = Self {
            store,
            pending: AtomicU64::new(recovered.pending),
            any_conflicts: AtomicBool::new(recovered.conflicts > 0),
            origins: Mutex::default(),
            identity: RwLock::new(recovered.identity.clone()),
        };
        for (origin, row) in &recovered.origins {
            let known = Known { region: row.region.clone(), latest: row.latest, log: row.log };
            shared.origins().known.insert(*origin, known);
        }
        shared
    }

    pub(super) fn identity(&self) -> Identity {
        self.identity.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn origin(&self) -> Origin {
        self.identity.read().unwrap_or_else(PoisonError::into_inner).origin
    }

    pub(super) fn rename(&self, identity: Identity) {
        *self.identity.write().unwrap_or_else(PoisonError::into_inner) = identity;
    }

    pub(super) fn origins(&self) -> MutexGuard<'_, Origins> {
        self.origins.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes note of how much is left of each log, once that is durable.
    pub(super) fn note_logs(&self, rows: &[(Origin, OriginRow)]) {
        let mut origins = self.origins();
        for (origin, row) in rows {
            origins.known.entry(*origin).or_default().log = row.log;
        }
    }

    /// Returns the last entry of each origin that may be gone.
    pub(super) fn floors(&self) -> VersionVector {
        let origins = self.origins();
        let floor = |(&origin, known): (&Origin, &Known)| Dot { origin, sequence: known.log.floor };
        origins.known.iter().map(floor).collect()
    }

    pub(super) fn name_origin(&self, origin: Origin, region: &RegionName) {
        let mut origins = self.origins();
        let known = origins.known.entry(origin).or_default();
        if known.region.as_ref() != Some(region) {
            known.region = Some(region.clone());
            origins.unsaved.insert(origin);
        }
    }
}
