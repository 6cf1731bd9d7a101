//! Recovery: creating and opening the file, who we are, and what is durable.
//!
//! A new file is built under a temporary name and renamed once it is complete and synced, so a
//! crash while creating leaves nothing that looks like a journal. A file whose device or inode
//! is not the one it was created with is a copy; it goes on under a new origin, because the
//! original may go on under the old one.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::ops::Bound;
use std::path::Path;

use anabranch_crdt::bug;
use anabranch_crdt::entry::Dot;
use anabranch_crdt::ids::{Origin, RegionName, Sequence, Timestamp};
use anabranch_crdt::version::VersionVector;
use redb::{Database, DatabaseError, ReadTransaction, ReadableDatabase, WriteTransaction};
use redb::{ReadableTable, ReadableTableMetadata};

use super::apply::{Tables, create_tables};
use super::ledger::{index, legacy};
use super::reader::open as open_table;
use super::record::{self, Encoder, Fields, OriginRow};
use super::store::{self, Store, guarded, transact};
use super::table;
use super::{Identity, JournalOptions, OpenError, ReadError};
use crate::file::{fingerprint, rename_durably};

/// What a journal holds, as far as it is kept in memory.
#[derive(Debug)]
pub(super) struct Recovered {
    pub(super) identity: Identity,
    pub(super) origins: Vec<(Origin, OriginRow)>,
    pub(super) vector: VersionVector,
    pub(super) pending: u64,
    /// Rows of the ledger.
    pub(super) conflicts: u64,
}

impl Recovered {
    /// Returns the greatest admission time of this region's own entries, and that of all.
    pub(super) fn clocks(&self, own: &RegionName) -> (Timestamp, Timestamp) {
        let is_own = |origin: Origin, row: &OriginRow| {
            origin == self.identity.origin || row.region.as_ref() == Some(own)
        };
        let latest = self.origins.iter().map(|(_, row)| row.latest);
        let mine = self.origins.iter().filter(|(origin, row)| is_own(*origin, row));
        let mine = mine.map(|(_, row)| row.latest);
        (mine.max().unwrap_or_default(), latest.max().unwrap_or_default())
    }
}

/// Opens the journal of a directory, and creates it if there is none.
pub(super) fn open_directory(
    directory: &Path,
    options: &mut JournalOptions,
) -> Result<(Store, Recovered), OpenError> {
    fs::create_dir_all(directory).map_err(failed)?;
    let lock = lock(&directory.join(LOCK_FILE))?;
    let path = directory.join(FILE);
    let cache = options.cache_bytes;
    let present = path.try_exists().map_err(failed)?;
    if !present {
        create(directory, options)?;
    }
    let open = move || Database::builder().set_cache_size(cache).open(&path);
    let database = opened(guarded(&open))?;
    let fingerprint = fingerprint(&directory.join(FILE)).map_err(failed)?;
    let recovered = settle(&database, options, &fingerprint)?;
    Ok((Store::new(database, Some(Box::new(open)), Some(lock)), recovered))
}

/// Opens the journal of a backend, and creates it if the backend is empty.
pub(super) fn open_backend(
    backend: impl redb::StorageBackend,
    options: &mut JournalOptions,
) -> Result<(Store, Recovered), OpenError> {
    let cache = options.cache_bytes;
    let create = || Database::builder().set_cache_size(cache).create_with_backend(backend);
    let database = opened(guarded(create))?;
    let recovered = settle(&database, options, NO_FILE)?;
    Ok((Store::new(database, None, None), recovered))
}

/// Opens the journal of a medium that can be opened again and again, and creates it if the medium
/// is empty. Like a file it has a fingerprint, which a copy of it does not share.
pub(super) fn open_medium<B: redb::StorageBackend>(
    medium: impl Fn() -> B + Send + Sync + 'static,
    fingerprint: &str,
    options: &mut JournalOptions,
) -> Result<(Store, Recovered), OpenError> {
    let cache = options.cache_bytes;
    let open = move || Database::builder().set_cache_size(cache).create_with_backend(medium());
    let database = opened(guarded(&open))?;
    let recovered = settle(&database, options, fingerprint)?;
    Ok((Store::new(database, Some(Box::new(open)), None), recovered))
}

/// Reads what a database holds.
pub(super) fn recover(transaction: &ReadTransaction) -> Result<Recovered, ReadError> {
    let identity = identity(transaction)?;
    let mut origins = Vec::new();
    for pair in open_table(transaction, &table::ORIGINS)?.iter().map_err(store::unreadable)? {
        let (key, value) = pair.map_err(store::unreadable)?;
        let row = record::origin(key.value(), value.value())?;
        origins.push((Origin::from_bytes(*key.value()), row));
    }
    let dots = origins.iter().map(|(origin, row)| Dot { origin: *origin, sequence: row.sequence });
    let vector = dots.collect::<VersionVector>();
    let mut found = ends(transaction)?;
    // What was dropped, or never was an entry here, ends at the floor.
    for (origin, row) in &origins {
        found.raise(*origin, row.log.floor);
    }
    if found != vector {
        return Err(ReadError::Corrupt { table: table::ORIGINS.name });
    }
    let pending = open_table(transaction, &table::PENDING)?.len().map_err(store::unreadable)?;
    let conflicts = open_table(transaction, &table::CONFLICTS)?.len().map_err(store::unreadable)?;
    Ok(Recovered { identity, origins, vector, pending, conflicts })
}

/// Writes who we are, and names our origin.
pub(super) fn write_identity(
    transaction: &WriteTransaction,
    identity: &Identity,
) -> Result<(), redb::Error> {
    let mut encoder = Encoder::default();
    let mut meta = transaction.open_table(table::META.definition)?;
    let record = encoder.identity(table::META.name, IDENTITY.as_bytes(), identity);
    meta.insert(IDENTITY, record)?;
    let region = Some(identity.region.clone());
    let row = OriginRow { region, ..OriginRow::default() };
    Tables::new(transaction, &mut encoder).origin(identity.origin, &row)
}

/// Draws an origin that is not among `taken`.
pub(super) fn fresh_origin(
    draw: &mut (dyn FnMut() -> Origin + Send),
    taken: impl Fn(&Origin) -> bool,
) -> Result<Origin, String> {
    let drawn = std::iter::repeat_with(draw).take(DRAWS).find(|origin| !taken(origin));
    drawn.ok_or_else(|| "the source of new origins repeats itself".to_owned())
}

fn lock(path: &Path) -> Result<File, OpenError> {
    let file = OpenOptions::new().create(true).truncate(false).write(true).open(path);
    let file = file.map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(OpenError::Locked),
        // Where this lock is not to be had, the one that redb takes on its own file must do.
        Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::Unsupported => Ok(file),
        Err(TryLockError::Error(error)) => Err(failed(error)),
    }
}

fn create(directory: &Path, options: &mut JournalOptions) -> Result<(), OpenError> {
    let (new, path) = (directory.join(NEW_FILE), directory.join(FILE));
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    let database = opened(guarded(|| Database::builder().create(&new)))?;
    let fingerprint = fingerprint(&new).map_err(failed)?;
    initialise(&database, options, &fingerprint)?;
    drop(database);
    rename_durably(directory, &new, &path).map_err(failed)
}

/// Initialises what is empty, checks whose data it is, and recovers.
fn settle(
    database: &Database,
    options: &mut JournalOptions,
    fingerprint: &str,
) -> Result<Recovered, OpenError> {
    let empty = |transaction: ReadTransaction| Ok(transaction.list_tables()?.next().is_none());
    let empty = guarded(|| database.begin_read().map_err(redb::Error::from).and_then(empty));
    if empty.map_err(OpenError::Storage)?.map_err(failed)? {
        initialise(database, options, fingerprint)?;
    }
    let check = || {
        let transaction = database.begin_read().map_err(failed)?;
        let format = check_format(&transaction)?;
        check_owner(&identity(&transaction).map_err(failed)?, options)?;
        Ok(format)
    };
    if guarded(check).map_err(OpenError::Storage)?? == Format::WithoutSummaries {
        convert(database)?;
    }
    mend(database)?;
    let read = || {
        let transaction = database.begin_read().map_err(failed)?;
        let stored = meta(&transaction, FINGERPRINT).map_err(failed)?;
        Ok((recover(&transaction).map_err(failed)?, stored != fingerprint.as_bytes()))
    };
    let (mut recovered, copied) = guarded(read).map_err(OpenError::Storage)??;
    if bug!(RestoreTooMuch) {
        let foreign = recovered.vector.iter().find(|dot| dot.origin != recovered.identity.origin);
        foreign.into_iter().for_each(|dot| recovered.vector.raise(dot.origin, dot.sequence.next()));
    }
    if copied && !bug!(KeepOriginOfCopy) {
        adopt(database, options, &mut recovered, fingerprint)?;
    }
    Ok(recovered)
}

/// Gives the ledger of format 1 its summaries, index and counts.
fn convert(database: &Database) -> Result<(), OpenError> {
    let write = |transaction: &WriteTransaction| {
        create_tables(transaction)?;
        let converted = legacy::convert(transaction)?;
        write_meta(transaction, FORMAT, FORMAT_VERSION)?;
        Ok(converted)
    };
    let converted = guarded(|| transact(database, write)).map_err(OpenError::Storage)?;
    let legacy::Converted { rows, unreadable } = converted.map_err(failed)?;
    tracing::info!(rows, "the ledger was converted to format {FORMAT_VERSION}");
    if unreadable > 0 {
        tracing::warn!(unreadable, "rows of the ledger could not be read, and are gone from it");
    }
    Ok(())
}

/// Makes the index of the ledger anew unless it is as large as it must be.
fn mend(database: &Database) -> Result<(), OpenError> {
    let sound = || index::in_step(&database.begin_read().map_err(store::unreadable)?);
    if guarded(sound).map_err(OpenError::Storage)?.map_err(failed)? {
        return Ok(());
    }
    let write =
        |transaction: &WriteTransaction| index::rebuild(transaction, &mut Encoder::default());
    let rows = guarded(|| transact(database, write)).map_err(OpenError::Storage)?;
    tracing::warn!(rows = rows.map_err(failed)?, "the index of the ledger was made anew");
    Ok(())
}

/// Gives a copied file a new origin before anything is admitted.
fn adopt(
    database: &Database,
    options: &mut JournalOptions,
    recovered: &mut Recovered,
    fingerprint: &str,
) -> Result<(), OpenError> {
    let taken = |origin: &Origin| recovered.origins.iter().any(|(known, _)| known == origin);
    let origin = fresh_origin(&mut options.new_origin, taken).map_err(OpenError::Storage)?;
    let retired = recovered.identity.origin;
    recovered.identity.origin = origin;
    let write = |transaction: &WriteTransaction| {
        write_identity(transaction, &recovered.identity)?;
        write_meta(transaction, FINGERPRINT, fingerprint)
    };
    guarded(|| transact(database, write)).map_err(OpenError::Storage)?.map_err(failed)?;
    let region = Some(recovered.identity.region.clone());
    recovered.origins.push((origin, OriginRow { region, ..OriginRow::default() }));
    tracing::info!(%retired, %origin, "the journal is a copy or was restored: new origin");
    Ok(())
}

fn initialise(
    database: &Database,
    options: &mut JournalOptions,
    fingerprint: &str,
) -> Result<(), OpenError> {
    let (cluster, region) = (options.cluster, options.region.clone());
    let identity = Identity { cluster, region, origin: (options.new_origin)() };
    let write = |transaction: &WriteTransaction| {
        create_tables(transaction)?;
        write_identity(transaction, &identity)?;
        write_meta(transaction, FORMAT, FORMAT_VERSION)?;
        write_meta(transaction, FINGERPRINT, fingerprint)
    };
    guarded(|| transact(database, write)).map_err(OpenError::Storage)?.map_err(failed)?;
    tracing::info!(origin = %identity.origin, region = %identity.region, "journal created");
    Ok(())
}

/// The formats that this release reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    /// Format 1: rows of the ledger have no summary.
    WithoutSummaries,
    Present,
}

fn check_format(transaction: &ReadTransaction) -> Result<Format, OpenError> {
    let format = meta(transaction, FORMAT).map_err(failed)?;
    match format.as_slice() {
        b"1" => Ok(Format::WithoutSummaries),
        format if format == FORMAT_VERSION.as_bytes() => Ok(Format::Present),
        _ => Err(OpenError::Format(String::from_utf8_lossy(&format).into_owned())),
    }
}

fn check_owner(identity: &Identity, options: &JournalOptions) -> Result<(), OpenError> {
    if identity.cluster != options.cluster {
        return Err(OpenError::Foreign(format!(
            "the data directory belongs to cluster {}, this node to cluster {}: give the node \
             another data directory, or correct its cluster id",
            identity.cluster, options.cluster
        )));
    }
    if identity.region != options.region {
        return Err(OpenError::Foreign(format!(
            "the data directory belongs to region '{}', this node to region '{}': give the node \
             another data directory, or correct its region",
            identity.region, options.region
        )));
    }
    Ok(())
}

fn identity(transaction: &ReadTransaction) -> Result<Identity, ReadError> {
    let meta = open_table(transaction, &table::META)?;
    let value = meta.get(IDENTITY).map_err(store::unreadable)?;
    let value = value.ok_or(ReadError::Corrupt { table: table::META.name })?;
    record::identity(table::META.name, IDENTITY.as_bytes(), value.value())
}

fn meta(transaction: &ReadTransaction, key: &str) -> Result<Vec<u8>, ReadError> {
    let meta = open_table(transaction, &table::META)?;
    let value = meta.get(key).map_err(store::unreadable)?;
    let value = value.ok_or(ReadError::Corrupt { table: table::META.name })?;
    let fields = Fields::unseal(table::META.name, key.as_bytes(), value.value())?;
    Ok(fields.rest().to_vec())
}

fn write_meta(transaction: &WriteTransaction, key: &str, text: &str) -> Result<(), redb::Error> {
    let mut encoder = Encoder::default();
    let record = encoder.blob(table::META.name, key.as_bytes(), text.as_bytes());
    transaction.open_table(table::META.definition)?.insert(key, record)?;
    Ok(())
}

/// The last sequence of each origin in `entries-1`.
fn ends(transaction: &ReadTransaction) -> Result<VersionVector, ReadError> {
    let entries = open_table(transaction, &table::ENTRIES)?;
    let mut ends = VersionVector::new();
    let mut cursor: Option<[u8; 24]> = None;
    loop {
        let first = cursor.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
        let range = entries.range::<&[u8; 24]>((first, Bound::Unbounded));
        let Some(pair) = range.map_err(store::unreadable)?.next() else { return Ok(ends) };
        let origin = table::entry_dot(pair.map_err(store::unreadable)?.0.value())?.origin;
        let bound = |sequence| table::entry_key(Dot { origin, sequence });
        let (first, last) = (bound(Sequence::ZERO), bound(Sequence(u64::MAX)));
        let mut range = entries.range::<&[u8; 24]>(&first..=&last).map_err(store::unreadable)?;
        if let Some(pair) = range.next_back() {
            let dot = table::entry_dot(pair.map_err(store::unreadable)?.0.value())?;
            ends.raise(origin, dot.sequence);
        }
        cursor = Some(last);
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "redb may add errors; they are storage errors")]
fn opened(result: Result<Result<Database, DatabaseError>, String>) -> Result<Database, OpenError> {
    result.map_err(OpenError::Storage)?.map_err(|error| match error {
        DatabaseError::DatabaseAlreadyOpen => OpenError::Locked,
        DatabaseError::UpgradeRequired(version) => OpenError::Format(format!("redb {version}")),
        other => failed(other),
    })
}

fn failed(error: impl std::fmt::Display) -> OpenError {
    OpenError::Storage(error.to_string())
}

/// The database, inside the data directory.
const FILE: &str = "journal.redb";
/// Its name until it is complete.
const NEW_FILE: &str = "journal.redb.new";
/// Locked while a process uses the directory, also while the database is opened again.
const LOCK_FILE: &str = "journal.lock";
/// The fingerprint of a backend, which has no file.
const NO_FILE: &str = "none";

const FORMAT: &str = "format";
const FORMAT_VERSION: &str = "2";
const IDENTITY: &str = "identity";
const FINGERPRINT: &str = "fingerprint";

/// So many origins are drawn before the source of them is taken to be broken.
const DRAWS: usize = 8;
