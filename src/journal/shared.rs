//! What the writer thread and the handles share besides the database.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};

use anabranch_crdt::chain::Chains;
use anabranch_crdt::entry::Dot;
use anabranch_crdt::ids::{BootId, Origin, RegionName, Sequence, Timestamp};
use anabranch_crdt::version::VersionVector;
use tokio::sync::watch;

use super::apply::Dropped;
use super::epoch::ClosedDocuments;
use super::record::{LogRow, OriginRow};
use super::recovery::Recovered;
use super::store::Store;
use super::{Closed, Identity, Incarnation, Row, Standing};

/// Read by every handle, changed by the writer thread.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) store: Store,
    /// Rows of `pending-1`: raised before a commit and lowered after it, so never too low.
    pub(super) pending: AtomicU64,
    /// Whether the ledger may have rows: set before the first is written, so never too late.
    pub(super) any_conflicts: AtomicBool,
    /// Whether changes are admitted; only the writer thread acts on it.
    pub(super) standing: watch::Sender<Standing>,
    pub(super) incarnation: Incarnation,
    /// Entries that were dropped since the start, and bytes of their records.
    dropped: (AtomicU64, AtomicU64),
    origins: Mutex<Origins>,
    /// Closed documents; changed by the writer thread once that is durable.
    closed: RwLock<ClosedDocuments>,
    identity: RwLock<Identity>,
}

/// What is known of origins besides their sequence.
#[derive(Debug, Default)]
pub(super) struct Origins {
    pub(super) known: BTreeMap<Origin, Known>,
    /// What they imply of each other.
    pub(super) chains: Chains,
    /// Origins that were named since the last commit.
    pub(super) unsaved: BTreeSet<Origin>,
}

/// What is known of one origin.
#[derive(Debug, Clone, Default)]
pub(super) struct Known {
    pub(super) region: Option<RegionName>,
    pub(super) latest: Timestamp,
    /// The process that this node has last vouched for.
    pub(super) boot: Option<BootId>,
    pub(super) log: LogRow,
}

impl Known {
    pub(super) fn of(row: &OriginRow) -> Self {
        let OriginRow { latest, log, boot, .. } = *row;
        Self { region: row.region.clone(), latest, log, boot }
    }

    /// The row of an origin that stands after others.
    pub(super) fn row(self, sequence: Sequence, after: &[Dot]) -> OriginRow {
        let Self { region, latest, log, boot } = self;
        OriginRow { sequence, latest, region, log, after: after.to_vec(), boot }
    }
}

impl Shared {
    pub(super) fn new(store: Store, recovered: &Recovered, incarnation: Incarnation) -> Self {
        let shared = Self {
            store,
            pending: AtomicU64::new(recovered.pending),
            any_conflicts: AtomicBool::new(recovered.conflicts > 0),
            standing: watch::Sender::new(Standing::Settled),
            incarnation,
            dropped: Default::default(),
            origins: Mutex::default(),
            closed: RwLock::new(recovered.closed.clone()),
            identity: RwLock::new(recovered.identity.clone()),
        };
        for (origin, row) in &recovered.origins {
            let mut origins = shared.origins();
            origins.known.insert(*origin, Known::of(row));
            origins.chains.note(*origin, row.after.clone());
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

    pub(super) fn closed(&self) -> RwLockReadGuard<'_, ClosedDocuments> {
        self.closed.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes note of rows that are durable now.
    pub(super) fn close(&self, rows: &[Row]) {
        for row in rows {
            if let Row::Epoch(document, row) = row {
                let mut closed = self.closed.write().unwrap_or_else(PoisonError::into_inner);
                closed.insert(*document, Closed::from(row));
            }
        }
    }

    /// Exchanges what is known of closed documents for what the file says.
    pub(super) fn reclose(&self, closed: ClosedDocuments) {
        *self.closed.write().unwrap_or_else(PoisonError::into_inner) = closed;
    }

    /// Takes note of how much is left of each log, once that is durable.
    pub(super) fn note_logs(&self, rows: &[(Origin, OriginRow)]) {
        let mut origins = self.origins();
        for (origin, row) in rows {
            origins.known.entry(*origin).or_default().log = row.log;
        }
    }

    /// Counts what went from the log.
    pub(super) fn note_dropped(&self, dropped: Dropped) {
        self.dropped.0.fetch_add(dropped.entries, Ordering::AcqRel);
        self.dropped.1.fetch_add(dropped.bytes, Ordering::AcqRel);
    }

    pub(super) fn dropped(&self) -> Dropped {
        let (entries, bytes) = &self.dropped;
        let count = |counter: &AtomicU64| counter.load(Ordering::Acquire);
        Dropped { entries: count(entries), bytes: count(bytes) }
    }

    /// Returns the last entry of each origin that was swept.
    pub(super) fn swept(&self) -> VersionVector {
        let origins = self.origins();
        let swept = |(&origin, known): (&Origin, &Known)| Dot { origin, sequence: known.log.swept };
        origins.known.iter().map(swept).collect()
    }

    /// Returns the last entry of each origin that may be gone.
    pub(super) fn floors(&self) -> VersionVector {
        let origins = self.origins();
        let floor = |(&origin, known): (&Origin, &Known)| Dot { origin, sequence: known.log.floor };
        origins.known.iter().map(floor).collect()
    }

    /// Writes a record whose hash does not match over another one.
    #[cfg(test)]
    pub(super) fn rot(&self, table: &str, key: &[u8]) {
        use super::table::{DOCUMENTS, SNAPSHOTS};
        let rotten: &[u8] = &[1; 60];
        let write = |transaction: &redb::WriteTransaction| {
            if table == DOCUMENTS.name {
                let key: &[u8; 16] = key.try_into().expect("a test gives a key");
                transaction.open_table(DOCUMENTS.definition)?.insert(key, rotten)?;
            } else {
                let key: &[u8; 17] = key.try_into().expect("a test gives a key");
                transaction.open_table(SNAPSHOTS.definition)?.insert(key, rotten)?;
            }
            Ok(())
        };
        self.store.write(write).expect("the test's disk takes it");
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
