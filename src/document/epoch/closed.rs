//! Closing a document in its owner's memory, and what a closed one still takes in.

use anabranch_crdt::bundle::{Bundle, BundledChange};
use anabranch_crdt::document::{
    Admitted, Closing, ClosingKind, Collisions, Document, closes, inspect,
};
use anabranch_crdt::entry::{Dot, Entry};
use anabranch_crdt::ids::{AuthorName, ChangeHash, Timestamp};
use anabranch_crdt::message::{Act, Message};
use bytes::Bytes;
use tracing::warn;

use super::super::loaded::{Loaded, Outcome, Scene, damaged};
use super::super::{Document as Shown, Precondition, history, write};
use crate::error::{Error, ErrorKind};
use crate::journal::{EpochRow, Row};

/// What makes a loaded document a closed one.
#[derive(Debug, Clone)]
pub(in crate::document) struct Sealed {
    /// The changes that closed it: one, unless two leaders did at once.
    pub(in crate::document) closings: Vec<Closing>,
    /// Changes that came late and are not in the next epoch.
    pub(super) late: u32,
    pub(in crate::document) emptied: bool,
    /// The heads up to which late changes were looked at; `None` to look again.
    pub(super) looked: Option<[u8; 16]>,
}

impl Sealed {
    /// Of several, the closing that loses nothing counts.
    pub(in crate::document) fn kind(&self) -> ClosingKind {
        let kinds = self.closings.iter().map(|closing| closing.kind);
        kinds.min().unwrap_or(ClosingKind::Compact)
    }

    /// The hashes of the closing changes, sorted.
    pub(in crate::document) fn changes(&self) -> Vec<ChangeHash> {
        self.closings.iter().map(|closing| closing.change).collect()
    }

    fn covers(&self) -> Vec<ChangeHash> {
        self.closings.iter().flat_map(|closing| closing.covers.iter().copied()).collect()
    }
}

impl Loaded {
    /// Takes note that the document is closed, if one of its changes says so.
    pub(in crate::document) fn seal(&mut self, known: Option<&EpochRow>) {
        let closings = self.document.closings();
        if closings.is_empty() {
            return;
        }
        let before = self.closed.take();
        let late = known.map(|row| row.late).or(before.as_ref().map(|sealed| sealed.late));
        let emptied = known.map(|row| row.emptied).or(before.map(|sealed| sealed.emptied));
        let (late, emptied) = (late.unwrap_or_default(), emptied.unwrap_or_default());
        self.closed = Some(Sealed { closings, late, emptied, looked: None });
    }

    /// Takes note if one of these changes, which are applied now, closes the document.
    pub(in crate::document) fn seal_by<'a>(&mut self, applied: impl Iterator<Item = &'a Bytes>) {
        let mut changes = applied.filter(|change| may_close(change));
        let closing =
            |change: &Bytes| inspect(change).is_ok_and(|summary| closes(&summary).is_some());
        if changes.any(closing) {
            self.seal(None);
        }
    }

    /// All that other regions are to know of a purged document: that it is purged. `None` for any
    /// other.
    pub(in crate::document) fn tombstone(&self) -> Option<Document> {
        let sealed = self.closed.as_ref().filter(|s| s.kind() == ClosingKind::Purge)?;
        Some(self.document.only(&sealed.changes()))
    }

    /// Tells whether all that a bundle brings are changes that purge the document.
    pub(in crate::document) fn is_purged_by(bundle: &Bundle) -> bool {
        let purges = |change: &BundledChange| {
            inspect(&change.change).is_ok_and(|change| closes(&change) == Some(ClosingKind::Purge))
        };
        bundle.changes.iter().all(purges)
    }

    /// The record that keeps a closed document closed.
    pub(in crate::document) fn epoch_row(&self) -> Option<Row> {
        let sealed = self.closed.as_ref()?;
        let at = sealed.closings.iter().map(|closing| closing.at).max().unwrap_or_default();
        let row = EpochRow {
            kind: sealed.kind(),
            at,
            name: self.name.clone(),
            late: sealed.late,
            emptied: sealed.emptied,
        };
        Some(Row::Epoch(self.id, row))
    }

    /// Divides entries for a purged document into those that it still takes and those that are to
    /// be set aside: what knew nothing of the delete does not bring it back. What follows changes
    /// that are not here yet waits, as long as there is something that it could follow.
    pub(in crate::document) fn screen(&self, new: Vec<Entry>) -> (Vec<Entry>, Vec<Dot>) {
        let Some(sealed) = self.closed.as_ref().filter(|s| s.kind() == ClosingKind::Purge) else {
            return (new, Vec::new());
        };
        let covers = sealed.covers();
        let mut fresh = Vec::<ChangeHash>::new();
        let (mut taken, mut left) = (Vec::new(), new);
        loop {
            let before = taken.len();
            let (some, rest): (Vec<Entry>, Vec<Entry>) = left.into_iter().partition(|entry| {
                let takes = self.takes(entry, &covers, &fresh);
                fresh.extend(takes);
                takes.is_some()
            });
            taken.extend(some);
            left = rest;
            if taken.len() == before || left.is_empty() {
                break;
            }
        }
        let here = |entry: &Entry| {
            let summary = inspect(&entry.change);
            sealed.emptied
                || summary.map_or(true, |change| {
                    change.deps.iter().all(|dep| self.document.contains(*dep))
                })
        };
        let aside = left.iter().filter(|entry| here(entry)).map(Entry::dot).collect();
        (taken, aside)
    }

    /// The hash of a change that a purged document takes.
    fn takes(
        &self,
        entry: &Entry,
        covers: &[ChangeHash],
        fresh: &[ChangeHash],
    ) -> Option<ChangeHash> {
        let change = inspect(&entry.change).ok()?;
        let known = self.document.contains(change.hash) || closes(&change).is_some();
        let knows = || {
            change.deps.iter().any(|dep| fresh.contains(dep))
                || self.document.knows_all(&change.deps, covers)
        };
        (known || knows()).then_some(change.hash)
    }
}

/// Closes a document; it goes on in its next epoch, whose first change is left in the document for
/// whoever carries it over.
pub(in crate::document) fn compact(
    loaded: &mut Loaded,
    scene: Scene<'_>,
    (author, note): (Option<AuthorName>, Option<String>),
    precondition: &Precondition,
) -> Result<(u64, Outcome), Error> {
    write::check(loaded, precondition)?;
    if loaded.value.is_none() {
        return Err(write::not_found());
    }
    check_open(loaded, "compacted")?;
    let opening = loaded.document.opening(author.clone(), note.clone(), scene.policies);
    let opening = opening.map_err(|error| {
        Error::new(ErrorKind::Conflict, "not_compactable", error.to_string()).with_source(error)
    })?;
    write::check_change(opening.bytes.len(), scene.limits)?;
    let changes = loaded.document.changes();
    let by = scene.author(Message { act: Act::Compact, author, note });
    let change = loaded.document.close(&by);
    let outcome = sealed(loaded, scene, (change, by.at))?;
    loaded.opening = Some(opening);
    Ok((changes, outcome))
}

/// Purges a deleted document; answers whether it did. One that was deleted after `before` stays.
pub(in crate::document) fn purge(
    loaded: &mut Loaded,
    scene: Scene<'_>,
    (author, note): (Option<AuthorName>, Option<String>),
    before: Option<Timestamp>,
) -> Result<(bool, Outcome), Error> {
    if loaded.value.is_some() {
        let message = "the document is not deleted: delete it first";
        return Err(Error::new(ErrorKind::Conflict, "not_deleted", message));
    }
    if loaded.document.changes() == 0 || loaded.closed.is_some() {
        return Err(write::not_found());
    }
    if before.is_some_and(|before| loaded.document.deleted_at() > before) {
        return Ok((false, Outcome::default()));
    }
    check_open(loaded, "purged")?;
    let change = loaded.document.purging(author, note.as_deref());
    let at = scene.clock.tick();
    let admitted = Admitted { change: change.bytes.clone(), at, by: Some(scene.origin) };
    let applied = loaded.document.apply(&[admitted], scene.policies);
    applied.map_err(|error| damaged(loaded.id, error))?;
    Ok((true, sealed(loaded, scene, (change, at))?))
}

/// Drops everything of a purged document but the change that purged it; answers whether nothing
/// had to be kept.
pub(in crate::document) fn empty(
    loaded: &mut Loaded,
    scene: Scene<'_>,
) -> Result<(bool, Outcome), Error> {
    let purged = loaded.closed.as_ref().filter(|sealed| {
        sealed.kind() == ClosingKind::Purge && !sealed.emptied && sealed.late == 0
    });
    let Some(changes) = purged.map(Sealed::changes) else {
        return Ok((false, Outcome::default()));
    };
    let stored = scene.journal.load(loaded.id)?;
    let bare = |entry: &&Entry| {
        let summary = inspect(&entry.change);
        summary.is_ok_and(|summary| closes(&summary).is_none())
    };
    let strip = stored.tail.iter().filter(bare).map(Entry::dot).collect();
    let left = loaded.document.only(&changes);
    let mut outcome = Outcome::default();
    let conflicts: Vec<_> = loaded.ledger.conflicts().map(|conflict| conflict.id).collect();
    outcome.rows.extend(conflicts.into_iter().map(|id| Row::Conflict(loaded.id, id, None)));
    loaded.ledger = Default::default();
    let snapshot = left.save().into();
    loaded.document = left;
    outcome.rows.push(Row::Emptied { document: loaded.id, snapshot, strip });
    loaded.unsaved_changes = 0;
    if let Some(sealed) = &mut loaded.closed {
        sealed.emptied = true;
    }
    let (_, aside) = loaded.screen(stored.pending);
    if !aside.is_empty() {
        warn_aside(loaded, &aside);
        outcome.rows.push(Row::SetAside(loaded.id, aside));
    }
    loaded.show(scene, &mut outcome);
    Ok((true, outcome))
}

/// Brings a deleted document back as it was, by one ordinary change.
pub(in crate::document) fn undelete(
    loaded: &mut Loaded,
    scene: Scene<'_>,
    message: Message,
    precondition: &Precondition,
) -> Result<((Option<Shown>, bool), Outcome), Error> {
    if loaded.value.is_some() {
        let message = "the document is not deleted";
        return Err(Error::new(ErrorKind::Conflict, "not_deleted", message));
    }
    let heads = loaded.document.heads_before_delete().ok_or_else(write::not_found)?;
    history::revert(loaded, scene, &heads, precondition, message)
}

pub(in crate::document) fn warn_aside(loaded: &Loaded, aside: &[Dot]) {
    warn!(
        document = %loaded.id,
        name = loaded.name.as_ref().map(ToString::to_string),
        entries = aside.len(),
        "changes came for a purged document by someone who did not know that it was deleted: they \
         are set aside, and `anabranch doc quarantine` lists them"
    );
}

/// Makes the row and the record of a document that was closed just now.
fn sealed(
    loaded: &mut Loaded,
    scene: Scene<'_>,
    (change, at): (anabranch_crdt::document::Change, Timestamp),
) -> Result<Outcome, Error> {
    let made = Collisions::made(&loaded.document, change.hash);
    let mut outcome = Outcome::default();
    let draft = loaded.draft(change, at);
    outcome.drafts.push(draft);
    loaded.seal(None);
    write::conclude(loaded, scene, &made, &mut outcome)?;
    Ok(outcome)
}

/// Refuses to close a document while somebody has to decide something about it.
fn check_open(loaded: &Loaded, what: &str) -> Result<(), Error> {
    let open = loaded
        .ledger
        .conflicts()
        .filter(|conflict| conflict.state == anabranch_crdt::conflict::ConflictState::Open);
    let open: Vec<String> = open.map(|conflict| conflict.id.to_string()).collect();
    if open.is_empty() {
        return Ok(());
    }
    let named = open.iter().take(NAMED).cloned().collect::<Vec<_>>().join(", ");
    let message = format!(
        "the document has {} open conflicts, which would be out of sight once it is {what}: \
         resolve or dismiss them first ({named})",
        open.len()
    );
    Err(Error::new(ErrorKind::Conflict, "open_conflicts", message))
}

/// Tells whether bytes of a change may be those of one that closes a document, without reading it.
fn may_close(change: &[u8]) -> bool {
    let holds = |text: &[u8]| change.windows(text.len()).any(|window| window == text);
    holds(br#"{"anabranch":"compact""#) || holds(br#"{"anabranch":"purge""#)
}

/// Conflicts that a refusal names.
const NAMED: usize = 5;
