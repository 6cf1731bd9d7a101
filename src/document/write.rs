//! A write of a client: checked, turned into edits, made into one change.

use anabranch_crdt::document::Collisions;
use anabranch_crdt::edit::{self, Edit, EditError};
use anabranch_crdt::json::{self, JsonError};
use anabranch_crdt::message::Message;
use bytes::Bytes;
use serde_json::{Map, Value};

use super::loaded::{Loaded, Outcome, Scene};
use super::{Digest, Document, Precondition, Write};
use crate::error::{Error, ErrorKind};
use crate::settings::Limits;

/// Performs a write; returns the document after it, and whether the write made it.
pub(super) fn write(
    loaded: &mut Loaded,
    scene: Scene<'_>,
    write: Write,
    precondition: &Precondition,
    message: Message,
) -> Result<((Option<Document>, bool), Outcome), Error> {
    check(loaded, precondition)?;
    let created = loaded.value.is_none();
    let outcome = match write {
        Write::Delete => delete(loaded, scene, message)?,
        Write::Put(value) => {
            let none = Value::Object(Map::new());
            let edits = edit::difference(loaded.value.as_ref().unwrap_or(&none), &value);
            apply(loaded, scene, &edits, Some(&value), message)?
        }
        Write::MergePatch(patch) => {
            let edits = edit::merge_patch(present(loaded)?, &patch).map_err(edit_error)?;
            apply(loaded, scene, &edits, None, message)?
        }
        Write::JsonPatch(patch) => {
            let edits = edit::json_patch(present(loaded)?, &patch).map_err(edit_error)?;
            apply(loaded, scene, &edits, None, message)?
        }
        Write::Edits(edits) => {
            present(loaded)?;
            apply(loaded, scene, &edits, None, message)?
        }
    };
    let shown = loaded.shown();
    let created = created && shown.is_some();
    Ok(((shown, created), outcome))
}

/// Applies edits as one change. `next` is what they lead to, if the caller knows.
pub(super) fn apply(
    loaded: &mut Loaded,
    scene: Scene<'_>,
    edits: &[Edit],
    next: Option<&Value>,
    message: Message,
) -> Result<Outcome, Error> {
    match next {
        Some(next) => check_value(next, scene.limits)?,
        None => {
            let mut next = loaded.value.clone().unwrap_or_else(|| Value::Object(Map::new()));
            edit::apply(&mut next, edits).map_err(edit_error)?;
            check_value(&next, scene.limits)?;
        }
    }
    let author = scene.author(message);
    let changed = loaded.document.edit(edits, &author, scene.policies).map_err(edit_error)?;
    let Some(change) = changed else { return Ok(Outcome::default()) };
    check_change(change.bytes.len(), scene.limits)?;
    let made = Collisions::made(&loaded.document, change.hash);
    let mut outcome = Outcome::default();
    let draft = loaded.draft(change, author.at);
    outcome.drafts.push(draft);
    conclude(loaded, scene, &made, &mut outcome)?;
    Ok(outcome)
}

/// Decides the ledger again and brings the row up to date after a change of this leader.
pub(super) fn conclude(
    loaded: &mut Loaded,
    scene: Scene<'_>,
    collisions: &Collisions,
    outcome: &mut Outcome,
) -> Result<(), Error> {
    let id = loaded.id;
    let judged = loaded.judge(collisions, scene, outcome);
    judged.map_err(|error| super::loaded::damaged(id, error))?;
    loaded.show(scene, outcome);
    check_size(loaded.row.json.as_ref().map_or(0, Bytes::len), scene.limits)
}

fn delete(loaded: &mut Loaded, scene: Scene<'_>, message: Message) -> Result<Outcome, Error> {
    let author = scene.author(message);
    let change = loaded.document.delete(&author).ok_or_else(not_found)?;
    let made = Collisions::made(&loaded.document, change.hash);
    let mut outcome = Outcome::default();
    let draft = loaded.draft(change, author.at);
    outcome.drafts.push(draft);
    conclude(loaded, scene, &made, &mut outcome)?;
    Ok(outcome)
}

fn present(loaded: &Loaded) -> Result<&Value, Error> {
    loaded.value.as_ref().ok_or_else(not_found)
}

pub(super) fn not_found() -> Error {
    Error::new(ErrorKind::NotFound, "document_not_found", "there is no such document")
}

pub(super) fn check(loaded: &Loaded, precondition: &Precondition) -> Result<(), Error> {
    let digest = Digest(loaded.row.digest);
    let exists = loaded.value.is_some();
    let holds = match precondition {
        Precondition::None => true,
        Precondition::Match(digests) => exists && (digests.is_empty() || digests.contains(&digest)),
        Precondition::NoneMatch(digests) if digests.is_empty() => !exists,
        Precondition::NoneMatch(digests) => !(exists && digests.contains(&digest)),
    };
    if holds {
        return Ok(());
    }
    let message = match (precondition, exists) {
        (Precondition::Match(_), false) => "the document does not exist",
        (Precondition::NoneMatch(digests), true) if digests.is_empty() => {
            "the document exists already"
        }
        _ => "the document is not in the state that the request asks for: read it again",
    };
    Err(Error::new(ErrorKind::Precondition, "precondition_failed", message))
}

/// Checks a whole document for what it may hold; see [`check_size`] for how much.
pub(crate) fn check_value(value: &Value, limits: &Limits) -> Result<(), Error> {
    if !value.is_object() {
        let message = "a document is a JSON object";
        return Err(Error::new(ErrorKind::Invalid, "not_an_object", message));
    }
    json::check(value, limits.nesting).map_err(|error| {
        let code = match error {
            JsonError::TooDeep { .. } => "too_deep",
            JsonError::Syntax(_) | JsonError::NotRepresentable(_) => "not_representable",
        };
        Error::new(ErrorKind::Invalid, code, format!("the document would be {error}"))
    })?;
    Ok(())
}

/// Checks the size of a document's canonical JSON. A document that is too large is dropped from
/// memory, and nothing of it is committed.
pub(crate) fn check_size(bytes: usize, limits: &Limits) -> Result<(), Error> {
    if bytes > limits.document_bytes {
        let message = format!(
            "the document would have {bytes} bytes of JSON, and the limit is {}",
            limits.document_bytes
        );
        return Err(Error::new(ErrorKind::TooLarge, "document_too_large", message));
    }
    Ok(())
}

/// Checks that a change can be sent to other regions.
pub(super) fn check_change(bytes: usize, limits: &Limits) -> Result<(), Error> {
    let most = limits.change_bytes();
    if bytes <= most {
        return Ok(());
    }
    let message = format!("the change would have {bytes} bytes, and the limit is {most}");
    Err(Error::new(ErrorKind::TooLarge, "change_too_large", message))
}

pub(crate) fn edit_error(error: EditError) -> Error {
    let message = error.to_string();
    match error {
        EditError::Malformed(_) => Error::new(ErrorKind::Invalid, "malformed_edit", message),
        EditError::Unfit(_) => Error::new(ErrorKind::Invalid, "unfit_edit", message),
        EditError::TestFailed(_) => Error::new(ErrorKind::Conflict, "test_failed", message),
    }
}
