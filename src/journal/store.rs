//! The store: the redb database, how it is opened again after a fault, and a wall against panics.
//!
//! redb refuses everything after an I/O error until the file is opened again, so the database is
//! behind a lock that reads share and that the writer takes to exchange it. redb also panics on
//! some kinds of damaged pages; here such a panic becomes an error of the one call.

use std::any::Any;
use std::fmt::{self, Display};
use std::fs::File;
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError, RwLock, RwLockReadGuard};

use anabranch_crdt::bug;
use redb::{
    Database, DatabaseError, Durability, ReadTransaction, ReadableDatabase, WriteTransaction,
};

use super::ReadError;

/// Opens the database again; `None` where a backend came from the caller and cannot.
pub(super) type Opener = Box<dyn Fn() -> Result<Database, DatabaseError> + Send + Sync>;

/// The database, shared by the writer thread and all readers.
pub(super) struct Store {
    database: RwLock<Option<Database>>,
    opener: Option<Opener>,
    /// Held until the store is closed.
    lock: Mutex<Option<File>>,
    /// Set once damage was met. redb writes when it closes, and on damaged pages it may panic
    /// while it unwinds from a panic, which ends the process; so a damaged database is left as
    /// it is, and the next open repairs it.
    damaged: AtomicBool,
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").field("reopens", &self.opener.is_some()).finish_non_exhaustive()
    }
}

impl Store {
    pub(super) fn new(database: Database, opener: Option<Opener>, lock: Option<File>) -> Self {
        let (database, lock) = (RwLock::new(Some(database)), Mutex::new(lock));
        Self { database, opener, lock, damaged: AtomicBool::new(false) }
    }

    /// Runs `f` on a snapshot of the database.
    pub(super) fn read<T>(
        &self,
        f: impl FnOnce(&ReadTransaction) -> Result<T, ReadError>,
    ) -> Result<T, ReadError> {
        let guard = self.shared();
        let database = guard.as_ref().ok_or_else(|| ReadError::Storage(CLOSED.to_owned()))?;
        self.watched(|| f(&database.begin_read().map_err(unreadable)?))
            .unwrap_or_else(|panic| Err(ReadError::Storage(panic)))
    }

    /// Runs `f` on a snapshot for a long read, which does not keep the database from being
    /// reopened; if it is, the snapshot answers with errors.
    pub(super) fn read_long<T>(
        &self,
        f: impl FnOnce(&ReadTransaction) -> Result<T, ReadError>,
    ) -> Result<T, ReadError> {
        let snapshot = match self.shared().as_ref() {
            Some(database) => database.begin_read().map_err(unreadable)?,
            None => return Err(ReadError::Storage(CLOSED.to_owned())),
        };
        self.watched(|| f(&snapshot)).unwrap_or_else(|panic| Err(ReadError::Storage(panic)))
    }

    /// Runs `f` in a write transaction, and returns once it is durable.
    pub(super) fn write<T>(
        &self,
        f: impl FnOnce(&WriteTransaction) -> Result<T, redb::Error>,
    ) -> Result<T, String> {
        let guard = self.shared();
        let database = guard.as_ref().ok_or_else(|| CLOSED.to_owned())?;
        self.watched(|| transact(database, f))?.map_err(|error| error.to_string())
    }

    /// Closes the database and opens it anew.
    pub(super) fn reopen(&self) -> Result<(), String> {
        let opener =
            self.opener.as_ref().ok_or("it is open on a backend that cannot be reopened")?;
        if self.damaged.load(Ordering::Acquire) {
            return Err("the file is damaged; restart the node to repair it".to_owned());
        }
        let mut slot = self.database.write().unwrap_or_else(PoisonError::into_inner);
        self.discard(slot.take());
        let database = guarded(opener)?.map_err(|error| error.to_string())?;
        *slot = Some(database);
        Ok(())
    }

    /// Notes that the file holds damage.
    pub(super) fn distrust(&self) {
        self.damaged.store(true, Ordering::Release);
    }

    /// Closes the database for good.
    pub(super) fn close(&self) {
        self.discard(self.database.write().unwrap_or_else(PoisonError::into_inner).take());
        drop(self.lock.lock().unwrap_or_else(PoisonError::into_inner).take());
    }

    /// Ends a database, which writes to the file unless that is damaged.
    fn discard(&self, database: Option<Database>) {
        if self.damaged.load(Ordering::Acquire) {
            tracing::error!("the journal is damaged and left as it is");
            return mem::forget(database);
        }
        if let Err(message) = guarded(|| drop(database)) {
            tracing::error!(message, "closing the journal failed");
        }
    }

    fn watched<T>(&self, f: impl FnOnce() -> T) -> Result<T, String> {
        guarded(f).inspect_err(|_| self.distrust())
    }

    fn shared(&self) -> RwLockReadGuard<'_, Option<Database>> {
        self.database.read().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Runs `f` in a transaction of `database` with the durability that every commit here has.
pub(super) fn transact<T>(
    database: &Database,
    f: impl FnOnce(&WriteTransaction) -> Result<T, redb::Error>,
) -> Result<T, redb::Error> {
    let mut transaction = database.begin_write()?;
    let safely = if bug!(SkipSync) { Durability::None } else { Durability::Immediate };
    transaction.set_durability(safely)?;
    transaction.set_two_phase_commit(true);
    let value = f(&transaction)?;
    transaction.commit()?;
    Ok(value)
}

/// Runs `f`, and returns the message of a panic as an error.
pub(super) fn guarded<T>(f: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(f)).map_err(|panic| {
        format!("the database is damaged and gave up: {}", panic_message(panic.as_ref()))
    })
}

pub(super) fn unreadable(error: impl Display) -> ReadError {
    ReadError::Storage(error.to_string())
}

fn panic_message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}

const CLOSED: &str = "the journal is not open";
