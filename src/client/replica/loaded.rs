//! A document in memory: its CRDT, its ledger, and what shows.

use std::collections::BTreeSet;

use anabranch_crdt::conflict::{Conflict, ConflictId};
use anabranch_crdt::document::{
    Admitted, ApplyError, Author, Change, Collisions, Document, Ledger, inspect,
};
use anabranch_crdt::edit::{self, Edit};
use anabranch_crdt::ids::{ChangeHash, DocumentId, DocumentName, Timestamp};
use anabranch_crdt::json;
use anabranch_crdt::policy::Policies;
use bytes::Bytes;
use serde_json::{Map, Value};

use super::record::{Row, damaged};
use super::store::Reading;
use super::{LEDGER, ROWS, SNAPSHOTS, TAILS, UNSYNCED};
use crate::document::{
    Digest, MAX_CHANGE_BYTES, MAX_CHANGE_OPERATIONS, check_size, check_value, edit_error,
};
use crate::error::{Error, ErrorKind};
use crate::settings::Limits;

/// What a caller wants changed.
#[derive(Debug, Clone, Copy)]
pub(crate) enum LocalWrite<'a> {
    /// Make the document equal to this object, by the fewest edits.
    Put(&'a Value),
    /// Apply edits as they are.
    Edits(&'a [Edit]),
    /// Delete the document.
    Delete,
}

/// One loaded document.
#[derive(Debug)]
pub(super) struct Loaded {
    /// Under which it is stored here; the same for all epochs.
    pub(super) id: DocumentId,
    /// The epoch that it holds.
    epoch: DocumentId,
    pub(super) name: DocumentName,
    pub(super) document: Document,
    pub(super) ledger: Ledger,
    value: Option<Value>,
    known: Vec<ChangeHash>,
    /// The number of the next change that is stored.
    pub(super) next: u64,
    /// Changes that were stored since the last snapshot.
    pub(super) since_snapshot: usize,
    /// Changes that no node has accepted yet.
    pub(super) unsynced: usize,
    /// For the cache: when it was used last.
    pub(super) used: u64,
}

/// What changes of a node did.
#[derive(Debug)]
pub(super) struct Absorbed {
    /// The changes that were new, in causal order.
    pub(super) new: Vec<Bytes>,
    /// Who wrote them.
    pub(super) writers: BTreeSet<anabranch_crdt::ids::Origin>,
}

impl Loaded {
    /// Reads a document, or makes an empty one.
    pub(super) fn read(
        reading: &Reading<'_>,
        name: &DocumentName,
        policies: &Policies,
    ) -> Result<Self, Error> {
        let id = DocumentId::from(name);
        let key = id.as_bytes();
        let row =
            reading.value(ROWS, key)?.map(|row| Row::decode(ROWS.name(), &row)).transpose()?;
        let mut document = match reading.value(SNAPSHOTS, key)? {
            Some(snapshot) => Document::load(&snapshot).map_err(|_| damaged(SNAPSHOTS.name()))?,
            None => Document::new(),
        };
        let tail = reading.all(TAILS, key)?;
        let unsynced = reading.all(UNSYNCED, key)?;
        let last = tail.iter().chain(&unsynced).filter_map(|(key, _)| number_of(key)).max();
        let changes = tail.iter().chain(&unsynced).map(|(_, change)| admitted(change.clone()));
        let applied = document.apply(&changes.collect::<Vec<_>>(), policies);
        if !applied.map_err(|_| damaged(TAILS.name()))?.waiting.is_empty() {
            return Err(damaged(TAILS.name()));
        }
        let rows = reading.all(LEDGER, key)?;
        let ledger = Ledger::read(rows.iter().map(|(_, row)| row.as_ref()));
        let value = document.value(policies);
        let epoch = row.as_ref().and_then(|row| row.epoch).unwrap_or(id);
        Ok(Self {
            id,
            epoch,
            name: name.clone(),
            ledger: ledger.map_err(|_| damaged(LEDGER.name()))?,
            value,
            known: row.map(|row| row.known).unwrap_or_default(),
            next: last.map_or(0, |last| last.saturating_add(1)),
            since_snapshot: tail.len(),
            unsynced: unsynced.len(),
            document,
            used: 0,
        })
    }

    /// Writes to the document; `None` if that changes nothing. After an error the document must
    /// be read again.
    pub(super) fn write(
        &mut self,
        write: LocalWrite<'_>,
        author: &Author,
        policies: &Policies,
        limits: &Limits,
    ) -> Result<Option<Change>, Error> {
        let change = match write {
            LocalWrite::Put(value) => {
                check_value(value, limits)?;
                let none = Value::Object(Map::new());
                let edits = edit::difference(self.value.as_ref().unwrap_or(&none), value);
                self.document.edit(&edits, author, policies).map_err(edit_error)?
            }
            LocalWrite::Edits(edits) => {
                let mut next = self.value.clone().ok_or_else(|| not_found(&self.name))?;
                edit::apply(&mut next, edits).map_err(edit_error)?;
                check_value(&next, limits)?;
                self.document.edit(edits, author, policies).map_err(edit_error)?
            }
            LocalWrite::Delete => {
                Some(self.document.delete(author).ok_or_else(|| not_found(&self.name))?)
            }
        };
        if let Some(change) = &change {
            check_change(change)?;
            let made = Collisions::made(&self.document, change.hash);
            self.ledger.absorb(&self.document, self.epoch, policies, &made);
            self.stored(1);
            self.unsynced = self.unsynced.saturating_add(1);
            self.show(policies);
            let shown = self.value.as_ref().map_or(0, |value| json::canonical(value).len());
            check_size(shown, limits)?;
        }
        Ok(change)
    }

    /// Goes on to the epoch that a node has, and tells whether that is another one: then the
    /// document is empty, and takes in the changes of that epoch.
    pub(super) fn follow(&mut self, there: DocumentId) -> Result<bool, Error> {
        if there == self.epoch {
            return Ok(false);
        }
        let after = |id: &DocumentId| Some(id.next_epoch());
        let later = std::iter::successors(Some(self.epoch), after).take(MAX_EPOCHS);
        if !later.into_iter().any(|id| id == there) {
            let message = format!("the region has not heard yet how {} goes on", self.name);
            return Err(Error::new(ErrorKind::Stale, "region_behind", message));
        }
        if self.unsynced > 0 {
            let message = format!(
                "{} goes on in a new epoch, and changes of this client are of the old one: they \
                 are kept until a region takes them, or they are discarded",
                self.name
            );
            return Err(Error::new(ErrorKind::Conflict, "epoch_closed", message));
        }
        self.epoch = there;
        self.document = Document::new();
        self.ledger = Ledger::default();
        (self.value, self.known, self.since_snapshot) = (None, Vec::new(), 0);
        Ok(true)
    }

    /// Takes in changes of a node.
    pub(super) fn absorb(
        &mut self,
        changes: &[Bytes],
        policies: &Policies,
    ) -> Result<Absorbed, ApplyError> {
        let batch: Vec<_> = changes.iter().cloned().map(admitted).collect();
        let applied = self.document.apply(&batch, policies)?;
        if !applied.waiting.is_empty() {
            let reason = "the node sent changes without those that they depend on";
            return Err(ApplyError::Unfit(reason.to_owned()));
        }
        let new: Vec<_> = applied.new.iter().filter_map(|at| changes.get(*at).cloned()).collect();
        let summaries = new.iter().map(inspect).collect::<Result<Vec<_>, _>>()?;
        let last = changes.last().map(inspect).transpose()?;
        self.ledger.absorb(&self.document, self.epoch, policies, &applied.collisions);
        self.note_known(last.map(|last| last.hash));
        self.stored(new.len());
        self.show(policies);
        Ok(Absorbed { new, writers: summaries.into_iter().filter_map(|s| s.writer).collect() })
    }

    /// Notes that nodes have accepted changes of this replica.
    pub(super) fn accepted(&mut self, count: usize) {
        self.unsynced = self.unsynced.saturating_sub(count);
        self.note_known(None);
    }

    /// The row that reads are answered from.
    pub(super) fn row(&self) -> Row {
        Row {
            name: self.name.clone(),
            digest: Digest(self.document.digest()),
            known: self.known.clone(),
            epoch: Some(self.epoch).filter(|epoch| *epoch != self.id),
            json: self.value.as_ref().map(|value| Bytes::from(json::canonical(value))),
        }
    }

    /// Changes that the replica has with all their ancestors, and that a node may know.
    pub(super) fn heads(&self) -> Vec<ChangeHash> {
        let mut heads = self.document.heads();
        let more: Vec<_> = self.known.iter().filter(|known| !heads.contains(known)).collect();
        heads.extend(more);
        heads.truncate(crate::leaf::MAX_HEADS);
        heads
    }

    /// The rows of the ledger to store, or to remove.
    pub(super) fn unsaved(&mut self) -> Vec<(ConflictId, Option<Vec<u8>>)> {
        let unsaved = self.ledger.unsaved().into_iter();
        unsaved.map(|(id, row)| (id, row.map(|(bytes, _)| bytes))).collect()
    }

    /// The conflicts of some rows.
    pub(super) fn conflicts_of(&self, rows: &[(ConflictId, Option<Vec<u8>>)]) -> Vec<Conflict> {
        let among = |conflict: &&Conflict| rows.iter().any(|(id, _)| *id == conflict.id);
        self.ledger.conflicts().filter(among).cloned().collect()
    }

    /// The document as bytes, loaded back and compared.
    pub(super) fn snapshot(&self) -> Result<Vec<u8>, Error> {
        let bytes = self.document.save();
        match Document::load(&bytes) {
            Ok(again) if again.heads() == self.document.heads() => Ok(bytes),
            Ok(_) | Err(_) => {
                let message = format!("{} does not load back equal", self.name);
                Err(Error::new(ErrorKind::Internal, "snapshot_unequal", message))
            }
        }
    }

    /// Throws away the changes `unwanted`, on which no other change depends.
    pub(super) fn without(
        &self,
        unwanted: &BTreeSet<ChangeHash>,
        policies: &Policies,
    ) -> Result<Self, ApplyError> {
        let kept = self.document.changes_since(&[]).into_iter();
        let kept = kept.filter(|change| !unwanted.contains(&change.hash));
        let mut left = Self {
            id: self.id,
            epoch: self.epoch,
            name: self.name.clone(),
            document: Document::new(),
            ledger: Ledger::default(),
            value: None,
            known: self.known.clone(),
            next: self.next,
            since_snapshot: 0,
            unsynced: 0,
            used: self.used,
        };
        let kept: Vec<_> = kept.map(|change| change.bytes).collect();
        left.absorb(&kept, policies)?;
        left.note_known(None);
        Ok(left)
    }

    fn stored(&mut self, count: usize) {
        let count_u64 = u64::try_from(count).unwrap_or(u64::MAX);
        self.next = self.next.saturating_add(count_u64);
        self.since_snapshot = self.since_snapshot.saturating_add(count);
    }

    fn show(&mut self, policies: &Policies) {
        if !self.ledger.is_empty() {
            self.ledger.decide(&self.document, self.epoch, policies);
        }
        self.value = self.document.value(policies);
    }

    /// Once nothing is left to push, a node knows everything. Until then the last change of a
    /// node's answer is one that it knows with all its ancestors.
    fn note_known(&mut self, last: Option<ChangeHash>) {
        if self.unsynced == 0 {
            self.known = self.document.heads();
        } else if let Some(last) = last
            && !self.known.contains(&last)
        {
            self.known.push(last);
            let surplus = self.known.len().saturating_sub(MAX_KNOWN);
            self.known.drain(..surplus);
        }
    }
}

/// A change that a node has admitted. A client is not told when; the policies of the leader,
/// which knows, decide what its own clock may claim.
fn admitted(change: Bytes) -> Admitted {
    Admitted { change, at: Timestamp::MAX, by: None }
}

/// Refuses at once what no leader would admit.
fn check_change(change: &Change) -> Result<(), Error> {
    let too_large = |what: String| {
        let message = format!("one edit makes a change of at most {what}: split it into several");
        Error::new(ErrorKind::TooLarge, "change_too_large", message)
    };
    if change.bytes.len() > MAX_CHANGE_BYTES {
        return Err(too_large(format!("{MAX_CHANGE_BYTES} bytes")));
    }
    let operations = inspect(&change.bytes).map_or(usize::MAX, |summary| summary.operations);
    if operations > MAX_CHANGE_OPERATIONS {
        return Err(too_large(format!("{MAX_CHANGE_OPERATIONS} operations")));
    }
    Ok(())
}

fn not_found(name: &DocumentName) -> Error {
    let message = format!("there is no document {name} in this replica");
    Error::new(ErrorKind::NotFound, "document_not_found", message)
}

/// The number of a change, from the key of its record.
pub(super) fn number_of(key: &[u8]) -> Option<u64> {
    key.last_chunk::<8>().filter(|_| key.len() == 24).map(|number| u64::from_be_bytes(*number))
}

/// Epochs that a client may have missed: a document is compacted when its history is long.
const MAX_EPOCHS: usize = 4_096;

/// Changes that are remembered as known to a node, while there is something to push.
const MAX_KNOWN: usize = 32;
