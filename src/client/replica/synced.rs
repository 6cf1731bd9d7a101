//! The part of the replica that syncing uses: what to push, what was accepted, what came.

use std::collections::BTreeSet;

use anabranch_crdt::conflict::Conflict;
use anabranch_crdt::document::inspect;
use anabranch_crdt::ids::{ChangeHash, DocumentId, DocumentName};
use anabranch_crdt::version::VersionVector;
use bytes::Bytes;

use super::loaded::number_of;
use super::record::{damaged, decode_refusal, encode_refusal};
use super::{
    LEDGER, Prepared, REFUSALS, ROWS, Refusal, Replica, SNAPSHOTS, TAILS, UNSYNCED, change_key,
    fresh_writer, write_writer,
};
use crate::error::{Error, ErrorKind};

/// One change of this client that no node has accepted yet.
#[derive(Debug, Clone)]
pub(crate) struct Push {
    /// Its number in the document.
    pub(crate) number: u64,
    pub(crate) change: Bytes,
}

/// What a node sent for one document.
#[derive(Debug, Clone)]
pub(crate) struct Pulled {
    pub(crate) name: DocumentName,
    /// The epoch that it sent.
    pub(crate) document: DocumentId,
    pub(crate) changes: Vec<Bytes>,
}

/// What became of it.
#[derive(Debug)]
pub(crate) struct TakenIn {
    pub(crate) name: DocumentName,
    /// How many changes were new, and the conflicts that they changed; or why nothing was taken.
    pub(crate) outcome: Result<(usize, Vec<Conflict>), Error>,
}

impl Replica {
    /// Lists documents with changes that no node has accepted, after one, at most `most`.
    pub(crate) fn unsynced(
        &mut self,
        after: Option<&DocumentName>,
        most: usize,
    ) -> Result<Vec<DocumentName>, Error> {
        let mut next = after.map(|name| past(DocumentId::from(name).as_bytes()));
        let mut names = Vec::new();
        while names.len() < most {
            let first = next.take().unwrap_or_default();
            let found = self.store.read(|reading| reading.range(UNSYNCED, &[], &first, 1))?;
            let Some((key, _)) = found.first() else { break };
            let id = key.first_chunk::<16>().ok_or_else(|| damaged(UNSYNCED.name()))?;
            let row = self.row_of(id)?.ok_or_else(|| damaged(ROWS.name()))?;
            names.push(row.name);
            next = Some(past(id));
        }
        Ok(names)
    }

    /// Returns the changes of a document that no node has accepted, in causal order.
    pub(crate) fn pushes(&mut self, name: &DocumentName) -> Result<Vec<Push>, Error> {
        let id = DocumentId::from(name);
        let rows = self.store.read(|reading| reading.all(UNSYNCED, id.as_bytes()))?;
        let read = |(key, change): (Vec<u8>, Bytes)| {
            let number = number_of(&key).ok_or_else(|| damaged(UNSYNCED.name()))?;
            Ok(Push { number, change })
        };
        rows.into_iter().map(read).collect()
    }

    /// Returns every change of a document that no leader wrote, in causal order: what a node
    /// needs that has lost changes, or not yet heard of those that another node accepted.
    pub(crate) fn history(
        &mut self,
        name: &DocumentName,
        leaders: &VersionVector,
    ) -> Result<Vec<Bytes>, Error> {
        let loaded = self.take(name)?;
        let changes = loaded.document.changes_since(&[]).into_iter();
        self.cache.put(loaded);
        let leads = |bytes: &Bytes| {
            let writer = inspect(bytes).ok().and_then(|summary| summary.writer);
            writer.is_some_and(|writer| writer.is_of_any_region() || leaders.sequence(writer).0 > 0)
        };
        Ok(changes.map(|change| change.bytes).filter(|bytes| !leads(bytes)).collect())
    }

    /// Notes that a node has made changes of this client durable.
    pub(crate) fn accept(
        &mut self,
        name: &DocumentName,
        numbers: &BTreeSet<u64>,
    ) -> Result<(), Error> {
        let mut loaded = self.take(name)?;
        let id = loaded.id;
        let changes: Vec<_> =
            self.pushes(name)?.into_iter().filter(|push| numbers.contains(&push.number)).collect();
        loaded.accepted(changes.len());
        let prepared = Prepared::new(&mut loaded)?;
        self.store.write(|writing| {
            for Push { number, change } in &changes {
                let key = change_key(id, *number);
                writing.remove(UNSYNCED, &key)?;
                writing.put(TAILS, &key, change)?;
            }
            writing.remove(REFUSALS, id.as_bytes())?;
            prepared.write(writing, &loaded)
        })?;
        prepared.done(&mut loaded);
        self.cache.put(loaded);
        Ok(())
    }

    /// Notes why a node has not taken changes of this client; they stay.
    pub(crate) fn refuse(&mut self, name: &DocumentName, refusal: &Refusal) -> Result<(), Error> {
        let id = DocumentId::from(name);
        let row = encode_refusal(refusal);
        self.store.write(|writing| writing.put(REFUSALS, id.as_bytes(), &row))
    }

    /// Lists the documents whose changes were refused, with the reasons.
    pub(crate) fn refused(&mut self) -> Result<Vec<(DocumentName, Refusal)>, Error> {
        let rows = self.store.read(|reading| reading.all(REFUSALS, &[]))?;
        let mut refused = Vec::new();
        for (key, row) in rows {
            let id = key.first_chunk::<16>().ok_or_else(|| damaged(REFUSALS.name()))?;
            let name = self.row_of(id)?.ok_or_else(|| damaged(ROWS.name()))?.name;
            refused.push((name, decode_refusal(REFUSALS.name(), &row)?));
        }
        Ok(refused)
    }

    /// Returns changes that a node may know; what it has beyond them is what to pull.
    pub(crate) fn heads(&mut self, name: &DocumentName) -> Result<Vec<ChangeHash>, Error> {
        let loaded = self.take(name)?;
        let heads = loaded.heads();
        self.cache.put(loaded);
        Ok(heads)
    }

    /// Takes in what a node sent, all in one transaction; what cannot be applied is told.
    pub(crate) fn take_in(&mut self, pulled: Vec<Pulled>) -> Result<Vec<TakenIn>, Error> {
        let (mut taken, mut staged) = (Vec::new(), Vec::new());
        let mut rolled_back = false;
        for Pulled { name, document, changes } in pulled {
            let mut loaded = match self.take(&name) {
                Ok(loaded) => loaded,
                Err(error) => {
                    taken.push(TakenIn { name, outcome: Err(error) });
                    continue;
                }
            };
            let begins_anew = match loaded.follow(document) {
                Ok(begins_anew) => begins_anew,
                Err(error) => {
                    self.cache.put(loaded);
                    taken.push(TakenIn { name, outcome: Err(error) });
                    continue;
                }
            };
            let (number, policies) = (loaded.next, self.policies(&name));
            match loaded.absorb(&changes, &policies) {
                Ok(absorbed) if absorbed.new.is_empty() && changes.is_empty() && !begins_anew => {
                    self.cache.put(loaded);
                }
                Ok(absorbed) => {
                    rolled_back |= absorbed.writers.contains(&self.writer);
                    let prepared = Prepared::new(&mut loaded)?;
                    let counted = (absorbed.new.len(), prepared.changed.clone());
                    taken.push(TakenIn { name, outcome: Ok(counted) });
                    staged.push((loaded, number, absorbed.new, prepared, begins_anew));
                }
                Err(error) => {
                    let message = format!("{name}: what the node sent {error}");
                    let error = Error::new(ErrorKind::Corrupt, "changes_unusable", message);
                    taken.push(TakenIn { name, outcome: Err(error) });
                }
            }
        }
        if staged.is_empty() {
            return Ok(taken);
        }
        let renewed = rolled_back.then(fresh_writer);
        let fingerprint = self.store.fingerprint()?;
        self.store.write(|writing| {
            if let Some(writer) = renewed {
                write_writer(writing, writer, &fingerprint)?;
            }
            for (loaded, number, new, prepared, begins_anew) in &staged {
                let of_old = [SNAPSHOTS, TAILS, LEDGER].into_iter().filter(|_| *begins_anew);
                of_old
                    .into_iter()
                    .try_for_each(|table| writing.clear(table, loaded.id.as_bytes()))?;
                for (number, change) in (*number..).zip(new) {
                    writing.put(TAILS, &change_key(loaded.id, number), change)?;
                }
                prepared.write(writing, loaded)?;
            }
            Ok(())
        })?;
        if let Some(writer) = renewed {
            tracing::warn!(retired = %self.writer, %writer, "the replica was rolled back: new writer");
            self.writer = writer;
        }
        for (mut loaded, _, _, prepared, _) in staged {
            prepared.done(&mut loaded);
            self.cache.put(loaded);
        }
        Ok(taken)
    }

    /// Throws away the changes of a document that no node has accepted; tells how many.
    ///
    /// What follows is written under a new id, because a node may have received the old changes.
    pub(crate) fn discard(&mut self, name: &DocumentName) -> Result<usize, Error> {
        let pushes = self.pushes(name)?;
        if pushes.is_empty() {
            return Ok(0);
        }
        let unreadable = |_| damaged(UNSYNCED.name());
        let hash = |push: &Push| inspect(&push.change).map(|summary| summary.hash);
        let unwanted: Result<BTreeSet<_>, _> = pushes.iter().map(hash).collect();
        let loaded = self.take(name)?;
        let mut left = loaded
            .without(&unwanted.map_err(unreadable)?, &self.policies(name))
            .map_err(unreadable)?;
        let id = left.id;
        let snapshot = left.snapshot()?;
        let prepared = Prepared::new(&mut left)?;
        let (writer, fingerprint) = (fresh_writer(), self.store.fingerprint()?);
        self.store.write(|writing| {
            for table in [UNSYNCED, TAILS, LEDGER, REFUSALS] {
                writing.clear(table, id.as_bytes())?;
            }
            write_writer(writing, writer, &fingerprint)?;
            prepared.write(writing, &left)?;
            writing.put(SNAPSHOTS, id.as_bytes(), &snapshot)?;
            writing.clear(TAILS, id.as_bytes())
        })?;
        self.writer = writer;
        left.since_snapshot = 0;
        self.cache.put(left);
        Ok(pushes.len())
    }
}

/// The first key after those of a document.
fn past(id: &[u8; 16]) -> Vec<u8> {
    [id.as_slice(), &[0xff; 9]].concat()
}
