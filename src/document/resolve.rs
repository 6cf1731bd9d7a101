//! Settling a conflict: one ordinary, replicated change, with an author and a note.
//!
//! A resolution, and its undoing, write the value that is to stand, which supersedes every
//! candidate; a dismissal and a reopening write nothing. The ledger of every region follows the
//! messages of these changes, so two regions that settle one conflict at once agree.

mod batch;
mod edits;
mod plan;

use anabranch_crdt::conflict::{Conflict, ConflictId, ConflictState, Revision};
use anabranch_crdt::document::{Change, Collisions};
use anabranch_crdt::edit::{self, Edit};
use anabranch_crdt::ids::{AuthorName, ChangeHash};
use anabranch_crdt::message::{Act, Message};
use anabranch_crdt::policy::Policy;
use serde_json::{Map, Value};

use super::loaded::{Loaded, Outcome, Scene};
use super::request::Resolved;
use super::write;
use crate::error::{Error, ErrorKind};

pub(super) use batch::{Batch, settle_all};
pub use batch::{Bulk, Choice, Fate, Settled};

/// How to settle a conflict.
#[derive(Debug, Clone, PartialEq)]
pub enum Settling {
    /// Take the candidate with this id.
    Take(String),
    /// Write this value instead.
    Value(Value),
    /// Delete what is there.
    Delete,
    /// Merge the candidates: objects key by key, texts by their edits.
    Merge,
    /// Take the candidate that this policy chooses.
    Policy(Policy),
    /// Leave it as it is; nobody needs to look at it any more.
    Dismiss,
    /// Somebody should look at it again.
    Reopen,
    /// Write again what showed before the conflict was resolved.
    Undo,
}

impl Settling {
    fn act(&self, id: ConflictId) -> Act {
        match self {
            Self::Take(_) | Self::Value(_) | Self::Delete | Self::Merge | Self::Policy(_) => {
                Act::Resolve(id)
            }
            Self::Dismiss => Act::Dismiss(id),
            Self::Reopen => Act::Reopen(id),
            Self::Undo => Act::Undo(id),
        }
    }
}

/// One conflict to settle.
#[derive(Debug)]
pub(super) struct Order<'a> {
    pub(super) id: ConflictId,
    pub(super) settling: &'a Settling,
    /// The row that the request is about; `None` takes it as it is.
    pub(super) expected: Option<Revision>,
    pub(super) note: Option<&'a str>,
    pub(super) author: Option<&'a AuthorName>,
}

/// Settles a conflict of a document.
pub(super) fn settle(
    loaded: &mut Loaded,
    scene: Scene<'_>,
    order: &Order<'_>,
) -> Result<(Resolved, Outcome), Error> {
    let deed = decide(loaded, scene, order)?;
    let mut outcome = Outcome::default();
    let change = perform(loaded, scene, order, deed, &mut outcome)?;
    let made = Collisions::made(&loaded.document, change);
    write::conclude(loaded, scene, &made, &mut outcome)?;
    let conflict = find(loaded, order.id)?.clone();
    let resolved = Resolved { name: loaded.name.clone(), conflict, document: loaded.shown() };
    Ok((resolved, outcome))
}

/// What settling a conflict comes to.
#[derive(Debug, Clone, PartialEq)]
enum Deed {
    /// Nothing is written but the message.
    Mark,
    /// These edits are made.
    Edit(Vec<Edit>),
    /// The document is deleted.
    Delete,
}

/// Decides what an order comes to, or why it cannot be carried out; nothing is changed yet.
fn decide(loaded: &Loaded, scene: Scene<'_>, order: &Order<'_>) -> Result<Deed, Error> {
    let conflict = find(loaded, order.id)?;
    check_state(conflict, order.settling)?;
    if order.expected.is_some_and(|expected| expected != conflict.revision()) {
        let message = "the conflict is not what the request expects: read it again, then decide";
        return Err(Error::new(ErrorKind::Precondition, "conflict_changed", message));
    }
    plan::plan(loaded, scene, conflict, order.settling)
}

fn check_state(conflict: &Conflict, settling: &Settling) -> Result<(), Error> {
    let id = conflict.id;
    let refuse = |code, message: String| Err(Error::new(ErrorKind::Conflict, code, message));
    match (settling, conflict.state) {
        (Settling::Reopen, ConflictState::Open) => {
            refuse("already_open", format!("conflict {id} is open already"))
        }
        (Settling::Reopen, _) => Ok(()),
        (Settling::Undo, state) => {
            let act = conflict.settled.as_ref().map(|settled| settled.act);
            if state == ConflictState::Resolved && matches!(act, Some(Act::Resolve(_))) {
                return Ok(());
            }
            refuse("not_resolved", format!("conflict {id} has no resolution that could be undone"))
        }
        (_, ConflictState::Resolved) => {
            let message = format!("conflict {id} is resolved already: `conflicts show` tells how");
            refuse("already_resolved", message)
        }
        (_, ConflictState::Dismissed) => {
            refuse("already_dismissed", format!("conflict {id} is dismissed: reopen it first"))
        }
        (_, ConflictState::Open | ConflictState::AutoResolved) => Ok(()),
    }
}

/// Makes the one change of an order, and returns its name. The ledger and the row are left to
/// [`write::conclude`].
fn perform(
    loaded: &mut Loaded,
    scene: Scene<'_>,
    order: &Order<'_>,
    deed: Deed,
    outcome: &mut Outcome,
) -> Result<ChangeHash, Error> {
    let author = scene.author(Message {
        act: order.settling.act(order.id),
        author: order.author.cloned(),
        note: order.note.map(str::to_owned),
    });
    let made = match deed {
        Deed::Mark => None,
        Deed::Delete => {
            let change = loaded.document.delete(&author);
            loaded.value = None;
            change
        }
        Deed::Edit(edits) => {
            let mut next = loaded.value.clone().unwrap_or_else(|| Value::Object(Map::new()));
            edit::apply(&mut next, &edits).map_err(write::edit_error)?;
            write::check_value(&next, scene.limits)?;
            let made = loaded.document.edit(&edits, &author, scene.policies);
            let made = made.map_err(write::edit_error)?;
            loaded.value = Some(next);
            made
        }
    };
    // What is wanted may stand there alone already. The ledgers of other regions still have to
    // hear of the decision, and they hear by changes.
    let change: Change = made.unwrap_or_else(|| loaded.document.mark(&author));
    write::check_change(change.bytes.len(), scene.limits)?;
    let hash = change.hash;
    let draft = loaded.draft(change, author.at);
    outcome.drafts.push(draft);
    Ok(hash)
}

fn find(loaded: &Loaded, id: ConflictId) -> Result<&Conflict, Error> {
    loaded.ledger.conflicts().find(|conflict| conflict.id == id).ok_or_else(|| not_found(id))
}

pub(super) fn not_found(id: ConflictId) -> Error {
    let message = format!("there is no conflict {id}: `conflicts list` shows those there are");
    Error::new(ErrorKind::NotFound, "conflict_not_found", message)
}
