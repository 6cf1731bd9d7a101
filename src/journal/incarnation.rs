//! Incarnations: under which origin this process may admit changes, and what is implied of the
//! origins before.
//!
//! No two different changes may carry the same (document, actor, sequence), and the origin is the
//! actor. So a process goes on with an origin only if nobody else can: the process before it ended
//! in order, the file is the one that it left, and the peers say that they know no more of the
//! origin and nobody else who took it over. In any other case it takes a new origin, which is
//! always safe and costs a row.
//!
//! # Why a process that did not end in order is not trusted
//!
//! What it leaves is the image that a clone of a running machine starts from, and the machine may
//! go on for longer than any peer hears of it. Nothing but the end of the process before proves
//! that it admits no more.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::Path;

use anabranch_crdt::chain::Chains;
use anabranch_crdt::entry::Dot;
use anabranch_crdt::ids::{BootId, Origin, RegionName};
use anabranch_crdt::version::VersionVector;
use redb::{Database, ReadTransaction, WriteTransaction};
use tokio::sync::watch;
use uuid::Uuid;

use super::record::{self, BootRow, Encoder, Ending};
use super::shared::Known;
use super::store::{self, guarded, transact};
use super::writer::Order;
use super::{CommitError, Journal, OpenError, ReadError, reader, table};

/// Whether this leader admits changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Not yet: somebody else may have its origin, or know more of it.
    Settling,
    /// Under its present origin.
    Settled,
}

/// How a process came to its origin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// It drew the origin itself.
    Fresh,
    /// It goes on where another process ended in order.
    Kept {
        /// That process.
        before: BootId,
    },
    /// The process before did not end in order, or its end is not known.
    Broken,
}

/// One process with a journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Incarnation {
    /// The process.
    pub boot: BootId,
    /// How it came to its origin.
    pub start: Start,
}

impl Journal {
    /// Returns which process this is, and how it came to the origin that it opened with.
    #[must_use]
    pub fn incarnation(&self) -> Incarnation {
        self.inner.shared.incarnation
    }

    /// Admits nothing from now on, until [`Journal::settle`] or [`Journal::renew_origin`].
    pub fn hold(&self) {
        self.inner.shared.standing.send_replace(Standing::Settling);
    }

    /// Admits changes under the present origin: every peer has confirmed it.
    pub fn settle(&self) {
        self.inner.shared.standing.send_replace(Standing::Settled);
    }

    /// Follows whether this leader admits changes.
    #[must_use]
    pub fn standing(&self) -> watch::Receiver<Standing> {
        self.inner.shared.standing.subscribe()
    }

    /// Tells whether this leader admits changes.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        *self.inner.shared.standing.borrow() == Standing::Settled
    }

    /// Remembers that a process goes on with an origin of a peer, durably; blocks. Whoever claims
    /// the origin later has to be its successor.
    ///
    /// # Errors
    /// See [`CommitError`].
    pub fn vouch(&self, origin: Origin, boot: BootId) -> Result<(), CommitError> {
        {
            let mut origins = self.inner.shared.origins();
            origins.known.entry(origin).or_default().boot = Some(boot);
            origins.unsaved.insert(origin);
        }
        let (answer, answered) = std::sync::mpsc::sync_channel(1);
        let orders = self.orders().ok_or(CommitError::Closed)?;
        orders.blocking_send(Order::Save(answer)).map_err(|_| CommitError::Closed)?;
        answered.recv().unwrap_or(Err(CommitError::Closed))
    }

    /// Returns the process that was last vouched for, of each origin.
    #[must_use]
    pub fn vouched(&self) -> Vec<(Origin, BootId)> {
        let origins = self.inner.shared.origins();
        origins.known.iter().filter_map(|(origin, known)| Some((*origin, known.boot?))).collect()
    }

    /// Remembers the region of an origin, and what stands before it. Idempotent; durable with the
    /// next commit, or with the first entry of the origin.
    pub fn name_chained(&self, origin: Origin, region: &RegionName, after: Vec<Dot>) {
        self.name_origin(origin, region);
        let mut origins = self.inner.shared.origins();
        if origins.chains.note(origin, after) {
            origins.unsaved.insert(origin);
        }
    }

    /// Returns what the known origins imply of each other.
    #[must_use]
    pub fn chains(&self) -> Chains {
        self.inner.shared.origins().chains.clone()
    }

    /// Leaves out of a vector what the rest of it implies, see [`Chains::compact`].
    #[must_use]
    pub fn compact(&self, vector: &VersionVector) -> VersionVector {
        self.inner.shared.origins().chains.compact(vector)
    }

    /// Adds to a vector what it implies, see [`Chains::expand`].
    #[must_use]
    pub fn expand(&self, vector: &VersionVector) -> VersionVector {
        self.inner.shared.origins().chains.expand(vector)
    }

    /// Returns the first of some dots of which the entries may follow on `told`.
    pub(crate) fn first_in_order(
        &self,
        mut dots: impl Iterator<Item = Dot>,
        told: &VersionVector,
    ) -> Option<Dot> {
        let origins = self.inner.shared.origins();
        dots.find(|dot| origins.chains.allow(dot.origin, told))
    }

    /// Brings a short form in step with a vector, see [`Chains::lengthen`].
    pub(crate) fn lengthen(
        &self,
        short: &mut VersionVector,
        whole: &VersionVector,
        dot: Dot,
        first: bool,
    ) {
        self.inner.shared.origins().chains.lengthen(short, whole, dot, first);
    }

    /// Counts the origins that this region took after its first.
    #[must_use]
    pub fn renewals(&self) -> u64 {
        let region = self.identity().region;
        let origins = self.inner.shared.origins();
        let own = origins.known.values().filter(|known| known.region.as_ref() == Some(&region));
        (own.count() as u64).saturating_sub(1)
    }
}

/// What a new origin of a region comes after: all that is durable of its earlier ones.
pub(super) fn heritage(
    region: &RegionName,
    known: &BTreeMap<Origin, Known>,
    chains: &Chains,
    vector: &VersionVector,
) -> Vec<Dot> {
    let is_own =
        |dot: &Dot| known.get(&dot.origin).is_some_and(|k| k.region.as_ref() == Some(region));
    let own: VersionVector = vector.iter().filter(is_own).collect();
    chains.compact(&own).iter().collect()
}

/// Reads which process had the journal last; older data does not say.
pub(super) fn last_boot(transaction: &ReadTransaction) -> Result<Option<BootRow>, ReadError> {
    let meta = reader::open(transaction, &table::META)?;
    let value = meta.get(BOOT).map_err(store::unreadable)?;
    value.map(|value| record::boot(table::META.name, BOOT.as_bytes(), value.value())).transpose()
}

/// Makes a process the one that has the journal, until it ends.
pub(super) fn begin(
    database: &Database,
    last: Option<BootRow>,
    adopted: bool,
) -> Result<Incarnation, OpenError> {
    let boot = BootId(*Uuid::new_v4().as_bytes());
    let row = BootRow { boot, ending: Ending::None };
    let write = |transaction: &WriteTransaction| write_boot(transaction, row);
    let written = guarded(|| transact(database, write)).map_err(OpenError::Storage)?;
    written.map_err(|error| OpenError::Storage(error.to_string()))?;
    let start = match last {
        _ if adopted => Start::Fresh,
        Some(BootRow { boot: before, ending: Ending::Orderly }) => Start::Kept { before },
        Some(BootRow { ending: Ending::None, .. }) | None => Start::Broken,
    };
    Ok(Incarnation { boot, start })
}

/// Notes which process has the journal, and whether it has ended.
pub(super) fn write_boot(transaction: &WriteTransaction, row: BootRow) -> Result<(), redb::Error> {
    let mut encoder = Encoder::default();
    let record = encoder.boot(table::META.name, BOOT.as_bytes(), row);
    transaction.open_table(table::META.definition)?.insert(BOOT, record)?;
    Ok(())
}

/// Tells whether a journal that ended in order is an older one than the one that was last open in
/// this directory: a file beside it names the process.
pub(super) fn is_put_back(directory: &Path, last: Option<BootRow>) -> io::Result<bool> {
    let Some(BootRow { boot, ending: Ending::Orderly }) = last else { return Ok(false) };
    match fs::read_to_string(directory.join(BOOT_FILE)) {
        Ok(text) => Ok(text.trim() != boot.to_string()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        // Not even text.
        Err(error) if error.kind() == io::ErrorKind::InvalidData => Ok(true),
        Err(error) => Err(error),
    }
}

/// Writes the file that [`is_put_back`] reads. If a crash leaves half of it, the next process is
/// one whose predecessor did not end in order anyway.
pub(super) fn write_boot_file(directory: &Path, boot: BootId) -> io::Result<()> {
    let mut file = File::create(directory.join(BOOT_FILE))?;
    writeln!(file, "{boot}")?;
    file.sync_all()
}

/// The key in `meta-1`.
const BOOT: &str = "boot";

/// The process that last opened the journal of a directory.
const BOOT_FILE: &str = "journal.boot";
