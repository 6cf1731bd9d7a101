//! The settings of collections: documents of the store itself, in the reserved collection.
//!
//! They replicate and merge like any document (the later write wins, path by path), so all regions
//! end up with the same. [`Collections`] holds them in memory for the owners, who look up the
//! policies of a document once for each step; it hears of new settings when they are durable.
//!
//! # Why broken settings are read as far as they can be
//!
//! Two regions may set what is sound in each and not together, such as `region-priority` in one
//! while the other removes the regions. What was in force before depends on which arrived first, so
//! going on with that would leave regions apart. Leaving out what cannot be read follows from the
//! document alone.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use anabranch_crdt::document::{Author, Change, Document};
use anabranch_crdt::edit::{Edit, Path};
use anabranch_crdt::ids::{CollectionName, DocumentKey, DocumentName, Origin, Timestamp};
use anabranch_crdt::json::{self, canonical};
use anabranch_crdt::message::Message;
use anabranch_crdt::policy::{Policies, Policy, PolicyError};
use serde_json::{Map, Value, json};
use tokio::sync::{Semaphore, SemaphorePermit, watch};
use tracing::warn;
use uuid::Uuid;

use super::redecide::{Progress, Reach};
use crate::error::{Error, ErrorKind};
use crate::journal::{CommitBatch, DocumentRow, Journal};

/// The settings of all collections in memory, shared by all owners; clones are cheap.
#[derive(Debug, Clone)]
pub struct Collections(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    policies: RwLock<BTreeMap<CollectionName, Arc<Policies>>>,
    default: Arc<Policies>,
    /// The policies of the reserved collection, which nobody changes.
    own: Arc<Policies>,
    /// Collections whose settings have changed, and what has to be decided again since.
    touched: Mutex<BTreeMap<CollectionName, Reach>>,
    changes: watch::Sender<u64>,
    simulations: Semaphore,
    progress: watch::Sender<BTreeMap<CollectionName, Progress>>,
}

impl Collections {
    /// Starts with settings that are known already.
    #[must_use]
    pub fn new(policies: impl IntoIterator<Item = (CollectionName, Policies)>) -> Self {
        let arc = |(name, policies)| (name, Arc::new(policies));
        Self(Arc::new(Shared {
            policies: RwLock::new(policies.into_iter().map(arc).collect()),
            default: Arc::default(),
            own: Arc::new(Policies::new(Policy::Lww, Vec::new(), Vec::new())),
            touched: Mutex::default(),
            changes: watch::Sender::new(0),
            simulations: Semaphore::new(1),
            progress: watch::Sender::new(BTreeMap::new()),
        }))
    }

    /// Takes over what a journal has.
    ///
    /// # Errors
    /// `Corrupt`, `Unavailable`.
    pub fn load(&self, journal: &Journal) -> Result<(), Error> {
        let (settings, mut after) = (CollectionName::settings(), None::<DocumentKey>);
        loop {
            let page = journal.list(&settings, "", after.as_ref(), PAGE)?;
            let Some(last) = page.last() else { break };
            after = Some(last.key.clone());
            for listed in page {
                self.note(&listed.row);
            }
        }
        // They were in force before the stop; what was left to do then is remembered elsewhere.
        self.lock_touched().clear();
        Ok(())
    }

    /// Takes note of what one transaction changed. It never blocks on anything but memory.
    pub fn committed(&self, batch: &CommitBatch) {
        batch.documents.iter().for_each(|(_, row)| self.note(row));
    }

    /// Returns the policies of a collection; those of a document without a name are the default.
    #[must_use]
    pub fn of(&self, collection: Option<&CollectionName>) -> Arc<Policies> {
        let Some(collection) = collection else { return Arc::clone(&self.0.default) };
        if collection.is_reserved() {
            return Arc::clone(&self.0.own);
        }
        let policies = self.0.policies.read().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(policies.get(collection).unwrap_or(&self.0.default))
    }

    /// Returns the collections that have settings of their own.
    #[must_use]
    pub fn named(&self) -> Vec<CollectionName> {
        let policies = self.0.policies.read().unwrap_or_else(PoisonError::into_inner);
        policies.keys().cloned().collect()
    }

    /// Counts the changes of settings since the start, to wait for the next.
    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.0.changes.subscribe()
    }

    /// Waits for the turn of a simulation: one after the other, because each loads documents.
    pub(super) async fn simulation(&self) -> Option<SemaphorePermit<'_>> {
        self.0.simulations.acquire().await.ok()
    }

    /// How far each collection is decided by its settings.
    pub(super) fn progress(&self) -> &watch::Sender<BTreeMap<CollectionName, Progress>> {
        &self.0.progress
    }

    /// Collections whose settings have changed since they were last taken in hand.
    pub(super) fn touched(&self) -> Vec<CollectionName> {
        self.lock_touched().keys().cloned().collect()
    }

    /// Tells, once, what has to be decided again since the settings of a collection changed.
    pub(super) fn take_touched(&self, collection: &CollectionName) -> Option<Reach> {
        self.lock_touched().remove(collection)
    }

    fn lock_touched(&self) -> MutexGuard<'_, BTreeMap<CollectionName, Reach>> {
        self.0.touched.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, row: &DocumentRow) {
        let Some(name) = row.name.as_ref().filter(|name| name.collection.is_reserved()) else {
            return;
        };
        let Ok(collection) = name.key.as_str().parse::<CollectionName>() else {
            return warn!(%name, "settings of what is no collection are ignored");
        };
        if collection.is_reserved() {
            return warn!(%name, "the collection of settings has none of its own");
        }
        let content = row.json.as_ref().map(|json| serde_json::from_slice(json));
        let content: Option<Value> = content.and_then(Result::ok);
        let found = content.map(|content| read(&content));
        for error in found.iter().flat_map(|(_, errors)| errors) {
            warn!(%collection, %error, "a part of its settings cannot be read and is left out");
        }
        self.set(collection, found.map(|(policies, _)| policies));
    }

    fn set(&self, collection: CollectionName, new: Option<Policies>) {
        let mut policies = self.0.policies.write().unwrap_or_else(PoisonError::into_inner);
        let new = new.map(Arc::new);
        let old = policies.get(&collection).unwrap_or(&self.0.default);
        let next = new.as_ref().unwrap_or(&self.0.default);
        let changed = old.version() != next.version();
        if changed {
            let reach = if old.same_wholes(next) { Reach::Rows } else { Reach::Whole };
            let mut touched = self.lock_touched();
            let known = touched.entry(collection.clone()).or_insert(reach);
            *known = reach.max(*known);
        }
        match new {
            Some(new) => policies.insert(collection, new),
            None => policies.remove(&collection),
        };
        drop(policies);
        if changed {
            self.0.changes.send_modify(|count| *count = count.wrapping_add(1));
        }
    }
}

/// Names the document that holds the settings of a collection.
///
/// # Errors
/// `Forbidden` for the reserved collection, which has no settings of its own.
pub(super) fn document_of(collection: &CollectionName) -> Result<DocumentName, Error> {
    check_writable(collection)?;
    let key = collection.as_str().parse().expect("a collection's name is a document key");
    Ok(DocumentName { collection: CollectionName::settings(), key })
}

/// Refuses the reserved collection.
pub(crate) fn check_writable(collection: &CollectionName) -> Result<(), Error> {
    if !collection.is_reserved() {
        return Ok(());
    }
    let message = format!(
        "the collection '{collection}' is reserved for the settings of the others, which are set by \
         PUT /v1/collections/{{collection}} or `anabranch collections set`"
    );
    Err(Error::new(ErrorKind::Forbidden, "reserved_collection", message))
}

/// Reads the content of a settings document as far as it can be read, and tells what cannot.
pub(super) fn read(content: &Value) -> (Policies, Vec<PolicyError>) {
    let error = match Policies::read(content) {
        Ok(policies) => return (policies, Vec::new()),
        Err(error) => error,
    };
    let (mut sound, mut errors) = (Map::new(), Vec::new());
    let mut keep = |sound: &mut Map<String, Value>, name: &str, value: Value| {
        let mut next = sound.clone();
        match (next.get_mut(name), value) {
            (Some(Value::Object(old)), Value::Object(new)) => old.extend(new),
            (_, value) => drop(next.insert(name.to_owned(), value)),
        }
        match Policies::read(&Value::Object(next.clone())) {
            Ok(_) => *sound = next,
            Err(error) => errors.push(error),
        }
    };
    // Regions first, because `region-priority` is nothing without them.
    for name in ["regions", "policy"] {
        if let Some(value) = content.get(name) {
            keep(&mut sound, name, value.clone());
        }
    }
    match content.get("paths") {
        Some(Value::Object(paths)) => paths.iter().for_each(|(path, rule)| {
            keep(&mut sound, "paths", json!({ path: rule }));
        }),
        Some(value) => keep(&mut sound, "paths", value.clone()),
        None => {}
    }
    if errors.is_empty() {
        // What is wrong is none of the members that are known.
        errors.push(error);
    }
    (Policies::read(&Value::Object(sound)).unwrap_or_default(), errors)
}

/// The content of the document that holds these settings. It always has an object for the paths:
/// one that came and went with its members would take along what another region adds to it.
pub(super) fn content(policies: &Policies) -> Value {
    let mut content = policies.to_json();
    if let Value::Object(members) = &mut content {
        members.entry("paths").or_insert_with(|| Value::Object(Map::new()));
    }
    content
}

/// The edits from one content to another. A rule, and the order of regions, is one value each:
/// half of one region's order and half of another's would be neither.
pub(super) fn edits(old: &Value, new: &Value) -> Vec<Edit> {
    let mut edits = Vec::new();
    differ(&Path::default(), old, new, &mut edits);
    edits
}

fn differ(at: &Path, old: &Value, new: &Value, edits: &mut Vec<Edit>) {
    let none = Map::new();
    let (old, new) = (old.as_object().unwrap_or(&none), new.as_object().unwrap_or(&none));
    let gone = old.keys().filter(|key| !new.contains_key(*key));
    edits.extend(gone.map(|key| Edit::Remove { path: at.child(key) }));
    for (key, value) in new {
        match old.get(key) {
            Some(old) if json::same(old, value) => {}
            Some(old) if at.is_root() && old.is_object() && value.is_object() => {
                differ(&at.child(key), old, value, edits);
            }
            _ => edits.push(Edit::Set { path: at.child(key), value: value.clone() }),
        }
    }
}

/// The change that starts the settings of a collection as a file has them: the same bytes on every
/// node that has the same file, and of no time, so that whatever anybody sets is later.
pub(super) fn seed(policies: &Policies) -> Result<Change, Error> {
    let content = content(policies);
    let origin = Origin(Uuid::new_v5(&SEED_NAMESPACE, &canonical(&content)));
    let message = Message { note: Some(SEED_NOTE.to_owned()), ..Message::default() };
    let author = Author { origin, at: Timestamp(0), message };
    let mut edits = Vec::new();
    one_by_one(&Path::default(), &content, &mut edits);
    let change = Document::new().edit(&edits, &author, &Policies::default());
    let change = change.map_err(super::edit_error)?;
    change.ok_or_else(|| Error::new(ErrorKind::Internal, "seed_empty", "the seed changes nothing"))
}

/// Edits that write one scalar or empty container each: several at once would be written in the
/// order of a hash map, which differs from node to node.
fn one_by_one(at: &Path, value: &Value, edits: &mut Vec<Edit>) {
    let empty = match value {
        Value::Object(_) => json!({}),
        Value::Array(_) => json!([]),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value.clone(),
    };
    let listed = at.tokens().last().is_some_and(|token| token == "-");
    if listed {
        edits.push(Edit::Insert { path: at.clone(), value: empty });
    } else if !at.is_root() {
        edits.push(Edit::Set { path: at.clone(), value: empty });
    }
    if let Value::Object(members) = value {
        members.iter().for_each(|(key, member)| one_by_one(&at.child(key), member, edits));
    }
    if let Value::Array(elements) = value {
        elements.iter().for_each(|element| one_by_one(&at.child("-"), element, edits));
    }
}

/// Settings documents that are read at once.
const PAGE: usize = 256;

const SEED_NOTE: &str = "from the configuration file";

/// The UUID namespace of seeds; it never changes, because equal files must make equal changes.
const SEED_NAMESPACE: Uuid = Uuid::from_bytes([
    0x6e, 0x0b, 0x83, 0xd1, 0x2f, 0x94, 0x4e, 0x37, 0xb5, 0x40, 0xc9, 0x7a, 0x15, 0xe8, 0x5d, 0x22,
]);

#[cfg(test)]
mod tests;
