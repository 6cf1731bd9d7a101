//! Stand-ins: values that a policy wrote again, because the operation that won had been deleted.
//!
//! A policy change that writes names, in its note, the operation that each of its values stands in
//! for. Wherever operations are compared a stand-in has the time and the writer of that operation,
//! and it loses to whatever knew the operation already: what superseded the original supersedes
//! its stand-in.

use std::collections::BTreeSet;

use automerge::legacy::{ObjectId, Op, OpId, OpType};
use automerge::{ActorId, ChangeHash, ObjId};

use super::view::Replica;
use crate::message::{self, Message};

/// What stands for no operation.
pub(super) const NOTHING: &str = "-";

/// Returns the operation that a stand-in stands for; `None` for any other operation.
pub(super) fn source(change: &automerge::Change, operation: &ObjId) -> Option<ObjId> {
    if !change.message().is_some_and(message::is_policy) {
        return None;
    }
    let ObjId::Id(counter, _, _) = operation else { return None };
    let index = usize::try_from(counter.checked_sub(change.start_op().get())?).ok()?;
    let operations = change.decode().operations;
    let own = change.actor_id();
    let place = operations.iter().take(index).filter(|operation| stands(operation, own)).count();
    operations.get(index).filter(|operation| stands(operation, own))?;
    let message = Message::read(change.message());
    let named = message.note.as_deref().unwrap_or_default().split(' ').nth(place)?;
    parse(named).map(|(counter, actor)| ObjId::Id(counter, actor, 0))
}

/// Tells whether an operation of a policy change has a source: it writes into an object that the
/// change did not make itself.
pub(super) fn stands(operation: &Op, own: &ActorId) -> bool {
    let writes = matches!(operation.action, OpType::Put(_) | OpType::Make(_));
    let inside = matches!(&operation.obj, ObjectId::Id(object) if object.actor() == own);
    writes && !inside
}

/// Tells whether a change knows another: whether it is the same or a later one.
pub(super) fn knows(doc: &impl Replica, change: &ChangeHash, other: &ChangeHash) -> bool {
    let Some(sought) = doc.header(other) else { return false };
    let (mut left, mut seen) = (vec![*change], BTreeSet::from([*change]));
    while let Some(next) = left.pop() {
        if next == *other {
            return true;
        }
        let Some(later) = doc.header(&next) else { continue };
        // The operations of a change are numbered above everything that it knows.
        if later.start > sought.max {
            left.extend(later.deps.iter().filter(|dep| seen.insert(**dep)));
        }
    }
    false
}

/// Reads the name of an operation, `counter@actor`.
pub(super) fn parse(name: &str) -> Option<(u64, ActorId)> {
    let (counter, actor) = name.split_once('@')?;
    Some((counter.parse().ok()?, ActorId::try_from(actor).ok()?))
}

/// Reads the name of an operation as change operations hold it.
pub(super) fn parse_operation(name: &str) -> Option<OpId> {
    parse(name).map(|(counter, actor)| OpId::new(counter, &actor))
}
