//! The admission of changes that an offline-first client made: checked once, here, and by nobody
//! else after that.
//!
//! Each change must be readable, within the limits, written by the client and not by a leader, and
//! must fit the document with everything it depends on. It is tried on a copy first, which is then
//! saved and loaded again, because automerge accepts some changes whose documents it cannot load.

use anabranch_crdt::bug;
use anabranch_crdt::document::{Admitted, ApplyError, ChangeSummary, Document, inspect};
use anabranch_crdt::message::Act;
use bytes::Bytes;

use super::loaded::{Loaded, Outcome, Scene, damaged};
use super::write;
use crate::error::{Error, ErrorKind};

/// Admits changes of a client as entries of this leader; known ones are skipped.
pub(super) fn admit(
    loaded: &mut Loaded,
    scene: Scene<'_>,
    changes: &[Bytes],
) -> Result<((), Outcome), Error> {
    let mut new = Vec::new();
    for change in changes {
        let summary = check(scene, change)?;
        if !loaded.document.contains(summary.hash) {
            new.push((summary, change.clone()));
        }
    }
    if new.is_empty() {
        return Ok(((), Outcome::default()));
    }
    let at = scene.clock.tick();
    let admitted: Vec<_> = new
        .iter()
        .map(|(_, change)| Admitted { change: change.clone(), at, by: Some(scene.origin) })
        .collect();
    rehearse(loaded, scene, &admitted)?;
    let applied = loaded.document.apply(&admitted, scene.policies);
    let applied = applied.map_err(|error| damaged(loaded.id, error))?;
    let mut outcome = Outcome::default();
    for index in &applied.new {
        let Some((summary, bytes)) = new.get(*index) else { continue };
        let change = anabranch_crdt::document::Change { hash: summary.hash, bytes: bytes.clone() };
        outcome.drafts.push(loaded.draft(change, at));
    }
    write::conclude(loaded, scene, &applied.collisions, &mut outcome)?;
    scene.clock.count_clamped(new.iter().filter(|(change, _)| change.claimed > at).count());
    Ok(((), outcome))
}

fn check(scene: Scene<'_>, change: &Bytes) -> Result<ChangeSummary, Error> {
    if change.len() > MAX_CHANGE_BYTES {
        let message = format!("a change has at most {MAX_CHANGE_BYTES} bytes");
        return Err(Error::new(ErrorKind::TooLarge, "change_too_large", message));
    }
    write::check_change(change.len(), scene.limits)?;
    let summary = inspect(change).map_err(refused)?;
    if summary.operations > MAX_CHANGE_OPERATIONS {
        let message = format!("a change has at most {MAX_CHANGE_OPERATIONS} operations");
        return Err(Error::new(ErrorKind::TooLarge, "change_too_large", message));
    }
    if summary.message.act == Act::Policy {
        let message = "only leaders make the changes that a policy calls for";
        return Err(Error::new(ErrorKind::Invalid, "change_refused", message));
    }
    let leader = |origin| scene.journal.region_of(origin).is_some() && !bug!(AdmitForgedWriter);
    if summary.writer.is_none_or(leader) {
        let message = "a client writes under an id of its own, with 16 bytes";
        return Err(Error::new(ErrorKind::Invalid, "change_refused", message));
    }
    Ok(summary)
}

/// Applies the changes to a copy, and saves and loads that.
fn rehearse(loaded: &Loaded, scene: Scene<'_>, changes: &[Admitted]) -> Result<(), Error> {
    let mut copy = loaded.document.clone();
    let applied = copy.apply(changes, scene.policies).map_err(refused)?;
    if !applied.waiting.is_empty() {
        let message = "a change depends on others that are neither here nor in the request";
        return Err(Error::new(ErrorKind::Stale, "change_waits", message));
    }
    let again = Document::load(&copy.save()).map_err(refused)?;
    if again.heads() != copy.heads() {
        let message = "the changes leave a document that does not load back equal";
        return Err(Error::new(ErrorKind::Invalid, "change_refused", message));
    }
    again.value(scene.policies).map_or(Ok(()), |value| write::check_value(&value, scene.limits))
}

fn refused(error: ApplyError) -> Error {
    Error::new(ErrorKind::Invalid, "change_refused", error.to_string()).with_source(error)
}

/// Bytes of one change of a client: as much as the largest text that is typed or pasted at once.
pub(crate) const MAX_CHANGE_BYTES: usize = 1 << 20;

/// Operations of one change of a client; run-length encoding lets a hundred bytes claim millions.
pub(crate) const MAX_CHANGE_OPERATIONS: usize = 100_000;
