//! The store: the redb database of a replica, how it is created, and how it is opened again after
//! a fault.
//!
//! A new file is built under a temporary name and renamed once it is complete and synced, so a
//! crash while creating leaves nothing that looks like a replica. redb refuses everything after
//! an I/O error until the file is opened again, which happens here on the next use. It also
//! panics on some kinds of damaged pages; such a panic becomes an error of the one call.

use std::fmt::{self, Display};
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use redb::{
    Database, DatabaseError, Durability, ReadTransaction, ReadableDatabase, TableDefinition,
    TableError, WriteTransaction,
};

use super::record;
use crate::error::{Error, ErrorKind};
use crate::file::{fingerprint, rename_durably};

/// A table and the name that its records are sealed with.
#[derive(Clone, Copy)]
pub(super) struct Table {
    name: &'static str,
    definition: TableDefinition<'static, &'static [u8], &'static [u8]>,
}

impl Table {
    pub(super) const fn new(name: &'static str) -> Self {
        Self { name, definition: TableDefinition::new(name) }
    }

    pub(super) fn name(&self) -> &'static str {
        self.name
    }
}

/// The database of one replica.
pub(super) struct Store {
    path: PathBuf,
    /// `None` after a fault, until the next use.
    database: Option<Database>,
    /// Set once redb has panicked. It writes when it closes, and on damaged pages it may panic
    /// while it unwinds, which ends the process; so a damaged database is left as it is.
    damaged: bool,
    _lock: File,
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").field("path", &self.path).finish_non_exhaustive()
    }
}

/// A snapshot to read from.
pub(super) struct Reading<'a>(&'a ReadTransaction);

/// A transaction to write to.
pub(super) struct Writing<'a>(&'a WriteTransaction);

impl Store {
    /// Opens the replica of a directory; `initialise` fills a new one.
    pub(super) fn open(
        directory: &Path,
        initialise: impl FnOnce(&Writing<'_>, &str) -> Result<(), redb::Error>,
    ) -> Result<Self, Error> {
        fs::create_dir_all(directory).map_err(|error| unavailable(&error))?;
        let lock = lock(directory)?;
        let path = directory.join(FILE);
        if !path.try_exists().map_err(|error| unavailable(&error))? {
            create(directory, &path, initialise)?;
        }
        let mut store = Self { path, database: None, damaged: false, _lock: lock };
        store.database()?;
        Ok(store)
    }

    /// Returns what tells the file from a copy of it.
    pub(super) fn fingerprint(&self) -> Result<String, Error> {
        fingerprint(&self.path).map_err(|error| unavailable(&error))
    }

    /// Runs `f` on a snapshot.
    pub(super) fn read<T>(
        &mut self,
        f: impl FnOnce(Reading<'_>) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let database = self.database()?;
        let read = || f(Reading(&database.begin_read().map_err(|error| unavailable(&error))?));
        let outcome = catch_unwind(AssertUnwindSafe(read));
        outcome.unwrap_or_else(|_| Err(self.distrust()))
    }

    /// Runs `f` in a transaction, and returns once it is durable.
    pub(super) fn write(
        &mut self,
        f: impl FnOnce(&Writing<'_>) -> Result<(), redb::Error>,
    ) -> Result<(), Error> {
        let database = self.database()?;
        match catch_unwind(AssertUnwindSafe(|| transact(database, f))) {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => {
                // What reached the disk is found out by opening it again.
                let faulty = self.database.take();
                if catch_unwind(AssertUnwindSafe(|| drop(faulty))).is_err() {
                    return Err(self.distrust());
                }
                Err(unavailable(&error))
            }
            Err(_) => Err(self.distrust()),
        }
    }

    fn database(&mut self) -> Result<&Database, Error> {
        if self.damaged {
            return Err(record::damaged("any"));
        }
        if self.database.is_none() {
            match catch_unwind(|| Database::open(&self.path)) {
                Ok(opened) => self.database = Some(opened.map_err(|error| unopened(&error))?),
                Err(_) => return Err(self.distrust()),
            }
        }
        let closed = || Error::new(ErrorKind::Internal, "replica_closed", "the replica is closed");
        self.database.as_ref().ok_or_else(closed)
    }

    fn distrust(&mut self) -> Error {
        self.damaged = true;
        mem::forget(self.database.take());
        record::damaged("any")
    }
}

impl Reading<'_> {
    /// Reads a record, and checks it.
    pub(super) fn value(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, Error> {
        let rows = match self.0.open_table(table.definition) {
            Err(TableError::TableDoesNotExist(_)) => return Ok(None),
            opened => opened.map_err(|error| unavailable(&error))?,
        };
        let record = rows.get(key).map_err(|error| unavailable(&error))?;
        record.map(|record| unsealed(table, key, record.value())).transpose()
    }

    /// Reads the records from `first` on whose keys start with `prefix`, at most `most`.
    pub(super) fn range(
        &self,
        table: Table,
        prefix: &[u8],
        first: &[u8],
        most: usize,
    ) -> Result<Vec<(Vec<u8>, Bytes)>, Error> {
        let rows = match self.0.open_table(table.definition) {
            Err(TableError::TableDoesNotExist(_)) => return Ok(Vec::new()),
            opened => opened.map_err(|error| unavailable(&error))?,
        };
        let mut found = Vec::new();
        for pair in rows.range(first..).map_err(|error| unavailable(&error))? {
            let (key, record) = pair.map_err(|error| unavailable(&error))?;
            if !key.value().starts_with(prefix) || found.len() >= most {
                break;
            }
            found.push((key.value().to_vec(), unsealed(table, key.value(), record.value())?));
        }
        Ok(found)
    }

    /// Reads all records whose keys start with `prefix`.
    pub(super) fn all(&self, table: Table, prefix: &[u8]) -> Result<Vec<(Vec<u8>, Bytes)>, Error> {
        self.range(table, prefix, prefix, usize::MAX)
    }
}

impl Writing<'_> {
    /// Writes a record.
    pub(super) fn put(&self, table: Table, key: &[u8], body: &[u8]) -> Result<(), redb::Error> {
        let record = record::seal(table.name, key, body);
        self.0.open_table(table.definition)?.insert(key, record.as_slice())?;
        Ok(())
    }

    /// Removes a record, if it is there.
    pub(super) fn remove(&self, table: Table, key: &[u8]) -> Result<(), redb::Error> {
        self.0.open_table(table.definition)?.remove(key)?;
        Ok(())
    }

    /// Removes every record whose key is a document and more.
    pub(super) fn clear(&self, table: Table, document: &[u8; 16]) -> Result<(), redb::Error> {
        let last = [document.as_slice(), &[0xff; 16]].concat();
        let range = document.as_slice()..=last.as_slice();
        self.0.open_table(table.definition)?.retain_in(range, |_, _| false)?;
        Ok(())
    }
}

fn unsealed(table: Table, key: &[u8], record: &[u8]) -> Result<Bytes, Error> {
    record::unseal(table.name, key, record).map(Bytes::copy_from_slice)
}

fn transact(
    database: &Database,
    f: impl FnOnce(&Writing<'_>) -> Result<(), redb::Error>,
) -> Result<(), redb::Error> {
    let mut transaction = database.begin_write()?;
    transaction.set_durability(Durability::Immediate)?;
    transaction.set_two_phase_commit(true);
    f(&Writing(&transaction))?;
    Ok(transaction.commit()?)
}

fn lock(directory: &Path) -> Result<File, Error> {
    let path = directory.join(LOCK_FILE);
    let file = OpenOptions::new().create(true).truncate(false).write(true).open(path);
    let file = file.map_err(|error| unavailable(&error))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            let message = format!(
                "the replica in {} is open already, here or in another process: close it there, \
                 or give this client a directory of its own",
                directory.display()
            );
            Err(Error::new(ErrorKind::Conflict, "replica_in_use", message))
        }
        // Where this lock is not to be had, the one that redb takes on its own file must do.
        Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::Unsupported => Ok(file),
        Err(TryLockError::Error(error)) => Err(unavailable(&error)),
    }
}

fn create(
    directory: &Path,
    path: &Path,
    initialise: impl FnOnce(&Writing<'_>, &str) -> Result<(), redb::Error>,
) -> Result<(), Error> {
    let draft = directory.join(NEW_FILE);
    match fs::remove_file(&draft) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(unavailable(&error)),
        _ => {}
    }
    let database = Database::create(&draft).map_err(|error| unopened(&error))?;
    let fingerprint = fingerprint(&draft).map_err(|error| unavailable(&error))?;
    transact(&database, |writing| initialise(writing, &fingerprint))
        .map_err(|error| unavailable(&error))?;
    drop(database);
    rename_durably(directory, &draft, path).map_err(|error| unavailable(&error))
}

fn unopened(error: &DatabaseError) -> Error {
    #[expect(clippy::wildcard_enum_match_arm, reason = "the enum of redb may grow")]
    let (kind, code) = match error {
        DatabaseError::DatabaseAlreadyOpen => (ErrorKind::Conflict, "replica_in_use"),
        DatabaseError::UpgradeRequired(_) => (ErrorKind::Invalid, "replica_format"),
        _ => (ErrorKind::Unavailable, "replica_unavailable"),
    };
    Error::new(kind, code, format!("the replica cannot be opened: {error}"))
}

fn unavailable(error: &impl Display) -> Error {
    let message = format!("the replica cannot be read or written: {error}");
    Error::new(ErrorKind::Unavailable, "replica_unavailable", message)
}

/// The database, inside the replica's directory.
pub(super) const FILE: &str = "replica.redb";
/// Its name until it is complete.
const NEW_FILE: &str = "replica.redb.new";
/// Locked while a client uses the directory.
const LOCK_FILE: &str = "replica.lock";
