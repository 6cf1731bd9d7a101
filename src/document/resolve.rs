//! Settling a conflict: one ordinary change that supersedes every candidate.

use anabranch_crdt::conflict::{Conflict, ConflictId, ConflictState};
use anabranch_crdt::document::Collisions;
use anabranch_crdt::edit::{Edit, Path};
use anabranch_crdt::ids::AuthorName;
use anabranch_crdt::message::{Act, Message};
use serde_json::{Map, Value};

use super::loaded::{Loaded, Outcome, Scene};
use super::request::Resolved;
use super::{Resolution, write};
use crate::error::{Error, ErrorKind};

/// Settles a conflict of a document.
pub(super) fn resolve(
    loaded: &mut Loaded,
    scene: Scene<'_>,
    id: ConflictId,
    resolution: &Resolution,
    note: Option<&str>,
    author: Option<AuthorName>,
) -> Result<(Resolved, Outcome), Error> {
    let conflict = find(loaded, id)?.clone();
    if conflict.state == ConflictState::Resolved {
        let message = format!("conflict {id} is resolved already: `conflicts show` tells how");
        return Err(Error::new(ErrorKind::Conflict, "already_resolved", message));
    }
    let value = wanted(&conflict, resolution)?;
    if value.is_none() && loaded.value.is_none() {
        return Err(write::not_found());
    }
    let place = loaded.ledger.place(&loaded.document, id).unwrap_or_else(|| conflict.path.clone());
    let message = Message { act: Act::Resolve(id), author, note: note.map(str::to_owned) };
    let edits = settling(loaded.value.as_ref(), &place, value);
    let mut outcome = match edits.is_empty() {
        true => Outcome::default(),
        false => write::apply(loaded, scene, &edits, None, message.clone())?,
    };
    if outcome.drafts.is_empty() {
        // What is wanted stands there alone already. The ledgers of other regions still have to
        // hear of the decision, and they hear by changes.
        let author = scene.author(message);
        let change = loaded.document.mark(&author);
        let made = Collisions::made(&loaded.document, change.hash);
        let draft = loaded.draft(change, author.at);
        outcome.drafts.push(draft);
        write::conclude(loaded, scene, &made, &mut outcome)?;
    }
    let conflict = find(loaded, id)?.clone();
    let resolved = Resolved { name: loaded.name.clone(), conflict, document: loaded.shown() };
    Ok((resolved, outcome))
}

fn find(loaded: &Loaded, id: ConflictId) -> Result<&Conflict, Error> {
    loaded.ledger.conflicts().find(|conflict| conflict.id == id).ok_or_else(|| not_found(id))
}

pub(super) fn not_found(id: ConflictId) -> Error {
    let message = format!("there is no conflict {id}: `conflicts list` shows those there are");
    Error::new(ErrorKind::NotFound, "conflict_not_found", message)
}

/// The value that is to stand; `None` for a delete.
fn wanted(conflict: &Conflict, resolution: &Resolution) -> Result<Option<Value>, Error> {
    match resolution {
        Resolution::Value(value) => Ok(Some(value.clone())),
        Resolution::Take(candidate) => {
            let found = conflict.candidates.iter().find(|c| c.id == *candidate);
            found.map(|candidate| candidate.value.clone()).ok_or_else(|| {
                let known: Vec<_> = conflict.candidates.iter().map(|c| c.id.as_str()).collect();
                let message = format!(
                    "'{candidate}' is no candidate of this conflict; they are {}",
                    known.join(", ")
                );
                Error::new(ErrorKind::Invalid, "unknown_candidate", message)
            })
        }
    }
}

/// The edits that leave `value` alone at `place`; objects around it that are gone come back.
fn settling(document: Option<&Value>, place: &Path, value: Option<Value>) -> Vec<Edit> {
    let at = |path: &Path| document.and_then(|document| document.pointer(&path.to_string()));
    let Some(mut value) = value else {
        let there = at(place).is_some();
        return there.then(|| Edit::Remove { path: place.clone() }).into_iter().collect();
    };
    let mut path = place.clone();
    loop {
        let mut tokens = path.clone().into_tokens();
        let Some(last) = tokens.pop() else {
            return vec![Edit::Set { path: place.clone(), value }];
        };
        let parent = Path::from(tokens);
        match at(&parent) {
            Some(Value::Array(_)) if at(&path).is_none() => {
                return vec![Edit::Insert { path: parent.child("-"), value }];
            }
            Some(Value::Object(_) | Value::Array(_)) => return vec![Edit::Set { path, value }],
            _ if parent.is_root() => return vec![Edit::Set { path, value }],
            _ => {
                value = Value::Object(Map::from_iter([(last, value)]));
                path = parent;
            }
        }
    }
}
