//! The replica: what a client has of the store, on its own disk.
//!
//! Every operation is one durable transaction, so a crash leaves the state before or after it.
//! Changes of this client stay in a table of their own until a node has accepted them; they are
//! never folded away, so nothing that was confirmed to the user depends on a snapshot.
//!
//! A replica writes under an id of its own. A file whose device or inode is not the one that it
//! was created with is a copy, and takes a new id before its first write; so does a replica that
//! hears of changes under its id that it does not have, because it was rolled back.

mod cache;
mod loaded;
mod record;
mod store;
mod synced;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anabranch_crdt::conflict::Conflict;
use anabranch_crdt::document::Author;
use anabranch_crdt::ids::{ClusterId, CollectionName, DocumentId, DocumentName, Origin, Timestamp};
use anabranch_crdt::json;
use anabranch_crdt::message::Message;
use anabranch_crdt::policy::Policies;
use anabranch_crdt::token;
use anabranch_crdt::version::VersionVector;
use serde_json::Value;
use uuid::Uuid;

use super::Subscription;
use crate::document::{Digest, NodeClock};
use crate::error::{Error, ErrorKind};
use crate::leaf::Refusal;
use crate::settings::Limits;
use cache::Cache;
use loaded::Loaded;
pub(super) use loaded::LocalWrite;
use record::{Row, damaged};
use store::{Reading, Store, Table, Writing};
pub(super) use synced::{Pulled, Push, TakenIn};

/// What a replica is told when it is opened.
#[derive(Debug)]
pub(super) struct ReplicaSettings {
    pub(super) cluster: ClusterId,
    pub(super) collections: BTreeMap<CollectionName, Policies>,
    pub(super) limits: Limits,
}

/// The replica of one client.
#[derive(Debug)]
pub(super) struct Replica {
    settings: ReplicaSettings,
    store: Store,
    writer: Origin,
    clock: NodeClock,
    cache: Cache,
}

impl Replica {
    /// Opens the replica of a directory, and creates it if there is none.
    pub(super) fn open(directory: &Path, settings: ReplicaSettings) -> Result<Self, Error> {
        let cluster = settings.cluster;
        let mut store = Store::open(directory, |writing, fingerprint| {
            writing.put(META, FORMAT, FORMAT_VERSION)?;
            writing.put(META, CLUSTER, cluster.0.as_bytes())?;
            write_writer(writing, fresh_writer(), fingerprint)
        })?;
        let stored = store.read(|reading| Stored::read(&reading))?;
        stored.check(cluster)?;
        let fingerprint = store.fingerprint()?;
        let mut writer = stored.writer;
        if stored.fingerprint != fingerprint.as_bytes() {
            writer = fresh_writer();
            store.write(|writing| write_writer(writing, writer, &fingerprint))?;
            tracing::info!(retired = %stored.writer, %writer, "the replica is a copy: new writer");
        }
        let clock = NodeClock::new(Arc::new(wall), stored.clock, MAX_SKEW);
        Ok(Self { settings, store, writer, clock, cache: Cache::default() })
    }

    /// Returns the id under which this replica writes.
    pub(super) fn writer(&self) -> Origin {
        self.writer
    }

    /// Returns what a document shows; `None` if it is not here or deleted.
    pub(super) fn value(&mut self, name: &DocumentName) -> Result<Option<Value>, Error> {
        let Some(json) = self.row(name)?.and_then(|row| row.json) else { return Ok(None) };
        let value = json::parse(&json, json::MAX_NESTING);
        value.map(Some).map_err(|_| damaged(ROWS.name()))
    }

    /// Returns the digest of a document, and whether it exists, if it was ever here.
    pub(super) fn digest(&mut self, name: &DocumentName) -> Result<Option<(Digest, bool)>, Error> {
        Ok(self.row(name)?.map(|row| (row.digest, row.json.is_some())))
    }

    /// Lists the documents of a collection that were ever here, in the order of their keys.
    pub(super) fn names(
        &mut self,
        collection: &CollectionName,
    ) -> Result<Vec<DocumentName>, Error> {
        let prefix = name_key(collection, "");
        let rows = self.store.read(|reading| reading.all(NAMES, &prefix))?;
        rows.into_iter().map(|(key, _)| name_of(&key)).collect()
    }

    /// Returns the conflicts of a document.
    pub(super) fn conflicts(&mut self, name: &DocumentName) -> Result<Vec<Conflict>, Error> {
        let loaded = self.take(name)?;
        let conflicts = loaded.ledger.conflicts().cloned().collect();
        self.cache.put(loaded);
        Ok(conflicts)
    }

    /// Writes to a document, and returns once that is durable; tells whether it changed anything.
    pub(super) fn write(
        &mut self,
        name: &DocumentName,
        write: LocalWrite<'_>,
    ) -> Result<Written, Error> {
        // After an error the document is read again: it was taken out of the cache.
        let mut loaded = self.take(name)?;
        let author =
            Author { origin: self.writer, at: self.clock.tick(), message: Message::default() };
        let number = loaded.next;
        let policies = self.settings.collections.get(&name.collection).cloned();
        let policies = policies.unwrap_or_default();
        let change = loaded.write(write, &author, &policies, &self.settings.limits)?;
        let Some(change) = change else {
            self.cache.put(loaded);
            return Ok(Written::Nothing);
        };
        let prepared = Prepared::new(&mut loaded)?;
        self.store.write(|writing| {
            writing.put(UNSYNCED, &change_key(loaded.id, number), &change.bytes)?;
            writing.put(META, CLOCK, &author.at.0.to_be_bytes())?;
            // The document is another one now, which the next sync may bring through.
            writing.remove(REFUSALS, loaded.id.as_bytes())?;
            prepared.write(writing, &loaded)
        })?;
        prepared.done(&mut loaded);
        self.cache.put(loaded);
        Ok(Written::Change)
    }

    /// Returns what is subscribed to.
    pub(super) fn subscriptions(&mut self) -> Result<Vec<Subscription>, Error> {
        let rows = self.store.read(|reading| reading.all(SUBSCRIPTIONS, &[]))?;
        let read = |(key, _): (Vec<u8>, _)| {
            let text = String::from_utf8(key).ok();
            let parsed = text.and_then(|text| text.parse().ok());
            parsed.ok_or_else(|| damaged(SUBSCRIPTIONS.name()))
        };
        rows.into_iter().map(read).collect()
    }

    /// Subscribes, unless that is done already.
    pub(super) fn subscribe(&mut self, subscription: &Subscription) -> Result<(), Error> {
        let key = subscription.to_string();
        self.store.write(|writing| writing.put(SUBSCRIPTIONS, key.as_bytes(), &[]))
    }

    /// Ends a subscription; what is here stays.
    pub(super) fn unsubscribe(&mut self, subscription: &Subscription) -> Result<(), Error> {
        let key = subscription.to_string();
        self.store.write(|writing| writing.remove(SUBSCRIPTIONS, key.as_bytes()))
    }

    /// Returns everything that nodes have confirmed to this client.
    pub(super) fn vector(&mut self) -> Result<VersionVector, Error> {
        let stored = self.store.read(|reading| reading.value(META, VECTOR))?;
        let Some(stored) = stored else { return Ok(VersionVector::new()) };
        let token = std::str::from_utf8(&stored).ok().and_then(|text| token::decode(text).ok());
        token.ok_or_else(|| damaged(META.name()))
    }

    /// Raises what nodes have confirmed.
    pub(super) fn raise(&mut self, seen: &VersionVector) -> Result<(), Error> {
        let mut vector = self.vector()?;
        if vector.includes(seen) {
            return Ok(());
        }
        vector.merge(seen);
        self.store.write(|writing| writing.put(META, VECTOR, token::encode(&vector).as_bytes()))
    }

    fn row(&mut self, name: &DocumentName) -> Result<Option<Row>, Error> {
        let id = DocumentId::from(name);
        self.row_of(id.as_bytes())
    }

    fn row_of(&mut self, id: &[u8; 16]) -> Result<Option<Row>, Error> {
        let row = self.store.read(|reading| reading.value(ROWS, id))?;
        row.map(|row| Row::decode(ROWS.name(), &row)).transpose()
    }

    /// Takes a document out of the cache, or reads it.
    fn take(&mut self, name: &DocumentName) -> Result<Loaded, Error> {
        if let Some(loaded) = self.cache.take(DocumentId::from(name)) {
            return Ok(loaded);
        }
        let policies = self.policies(name);
        self.store.read(|reading| Loaded::read(&reading, name, &policies))
    }

    fn policies(&self, name: &DocumentName) -> Policies {
        self.settings.collections.get(&name.collection).cloned().unwrap_or_default()
    }
}

/// Whether a write changed anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Written {
    Change,
    Nothing,
}

/// What a document needs written besides its changes.
struct Prepared {
    row: Vec<u8>,
    conflicts: Vec<([u8; 32], Option<Vec<u8>>)>,
    changed: Vec<Conflict>,
    snapshot: Option<Vec<u8>>,
}

impl Prepared {
    fn new(loaded: &mut Loaded) -> Result<Self, Error> {
        let rows = loaded.unsaved();
        let changed = loaded.conflicts_of(&rows);
        let id = loaded.id;
        let keyed = |(conflict, row): (anabranch_crdt::conflict::ConflictId, _)| {
            let mut key = [0; 32];
            key.iter_mut().zip(id.as_bytes().iter().chain(&conflict.0)).for_each(|(to, from)| {
                *to = *from;
            });
            (key, row)
        };
        let due = loaded.since_snapshot >= SNAPSHOT_EVERY;
        Ok(Self {
            row: loaded.row().encode(),
            conflicts: rows.into_iter().map(keyed).collect(),
            changed,
            snapshot: if due { Some(loaded.snapshot()?) } else { None },
        })
    }

    fn write(&self, writing: &Writing<'_>, loaded: &Loaded) -> Result<(), redb::Error> {
        let id = loaded.id.as_bytes();
        writing.put(ROWS, id, &self.row)?;
        let name = name_key(&loaded.name.collection, loaded.name.key.as_str());
        writing.put(NAMES, &name, &[])?;
        for (key, row) in &self.conflicts {
            match row {
                Some(row) => writing.put(LEDGER, key, row)?,
                None => writing.remove(LEDGER, key)?,
            }
        }
        if let Some(snapshot) = &self.snapshot {
            writing.put(SNAPSHOTS, id, snapshot)?;
            writing.clear(TAILS, id)?;
        }
        Ok(())
    }

    fn done(&self, loaded: &mut Loaded) {
        if self.snapshot.is_some() {
            loaded.since_snapshot = 0;
        }
    }
}

/// What the file says of itself.
struct Stored {
    format: Vec<u8>,
    cluster: Vec<u8>,
    writer: Origin,
    fingerprint: Vec<u8>,
    clock: Timestamp,
}

impl Stored {
    fn read(reading: &Reading<'_>) -> Result<Self, Error> {
        let damage = || damaged(META.name());
        let value = |key| reading.value(META, key)?.ok_or_else(damage);
        let writer = value(WRITER)?.as_ref().try_into().map_err(|_| damage())?;
        let clock = match reading.value(META, CLOCK)? {
            Some(clock) => u64::from_be_bytes(clock.as_ref().try_into().map_err(|_| damage())?),
            None => 0,
        };
        Ok(Self {
            format: value(FORMAT)?.to_vec(),
            cluster: value(CLUSTER)?.to_vec(),
            writer: Origin::from_bytes(writer),
            fingerprint: value(FINGERPRINT)?.to_vec(),
            clock: Timestamp(clock),
        })
    }

    fn check(&self, cluster: ClusterId) -> Result<(), Error> {
        if self.format != FORMAT_VERSION {
            let message = format!(
                "the replica has format {}, this release knows format 1",
                String::from_utf8_lossy(&self.format)
            );
            return Err(Error::new(ErrorKind::Invalid, "replica_format", message));
        }
        if self.cluster != cluster.0.as_bytes() {
            let message = format!(
                "the replica is of another cluster than {cluster}: give this client another \
                 directory, or correct the cluster id"
            );
            return Err(Error::new(ErrorKind::Invalid, "replica_of_other_cluster", message));
        }
        Ok(())
    }
}

fn write_writer(
    writing: &Writing<'_>,
    writer: Origin,
    fingerprint: &str,
) -> Result<(), redb::Error> {
    writing.put(META, WRITER, writer.as_bytes())?;
    writing.put(META, FINGERPRINT, fingerprint.as_bytes())
}

fn fresh_writer() -> Origin {
    Origin(Uuid::new_v4())
}

fn wall() -> Timestamp {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(u64::try_from(elapsed.as_micros()).unwrap_or(Timestamp::MAX.0))
}

fn change_key(id: DocumentId, number: u64) -> [u8; 24] {
    let mut key = [0; 24];
    let bytes = id.as_bytes().iter().copied().chain(number.to_be_bytes());
    key.iter_mut().zip(bytes).for_each(|(to, from)| *to = from);
    key
}

/// Neither part of a name can hold a NUL.
fn name_key(collection: &CollectionName, key: &str) -> Vec<u8> {
    [collection.as_str().as_bytes(), &[0], key.as_bytes()].concat()
}

fn name_of(key: &[u8]) -> Result<DocumentName, Error> {
    let text = std::str::from_utf8(key).ok();
    let parts = text.and_then(|text| text.split_once('\0'));
    let name = parts.and_then(|(collection, key)| {
        Some(DocumentName { collection: collection.parse().ok()?, key: key.parse().ok()? })
    });
    name.ok_or_else(|| damaged(NAMES.name()))
}

/// Key: a text. Value: whatever the text names.
const META: Table = Table::new("meta-1");
/// Key: document (16). Value: name, digest, known changes, canonical JSON.
const ROWS: Table = Table::new("documents-1");
/// Key: collection, NUL, key. Value: nothing.
const NAMES: Table = Table::new("names-1");
/// Key: document (16). Value: `save()` bytes.
const SNAPSHOTS: Table = Table::new("snapshots-1");
/// Key: document (16), number (8), of a change that a node has and the snapshot may not have.
/// Value: its bytes.
const TAILS: Table = Table::new("tails-1");
/// Key: document (16), number (8), of a change of this client that no node has accepted yet.
/// Value: its bytes.
const UNSYNCED: Table = Table::new("unsynced-1");
/// Key: document (16), conflict (16). Value: the row of the ledger.
const LEDGER: Table = Table::new("conflicts-1");
/// Key: document (16). Value: why its changes were refused.
const REFUSALS: Table = Table::new("refusals-1");
/// Key: a collection, or a document's name. Value: nothing.
const SUBSCRIPTIONS: Table = Table::new("subscriptions-1");

const FORMAT: &[u8] = b"format";
const FORMAT_VERSION: &[u8] = b"1";
const CLUSTER: &[u8] = b"cluster";
const WRITER: &[u8] = b"writer";
const FINGERPRINT: &[u8] = b"fingerprint";
const CLOCK: &[u8] = b"clock";
const VECTOR: &[u8] = b"vector";

/// Changes after which a document is folded into a snapshot: reading so many back takes about
/// as long as one commit.
const SNAPSHOT_EVERY: usize = 64;

/// How far a node's clock may move this client's clock ahead.
const MAX_SKEW: Duration = Duration::from_secs(1);
