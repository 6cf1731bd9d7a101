//! Containers that count as one value, and documents that were deleted here and edited there.
//!
//! Automerge merges the parts of a container, and keeps of a deleted document only the fields that
//! were edited. Where a policy takes the whole as one value, the whole is written as the winner
//! saw it.

use std::collections::BTreeSet;

use automerge::legacy::{Key, OpType};
use automerge::{ChangeHash, ObjId, Prop, ROOT, ReadDoc, ScalarValue, hydrate};

use serde_json::Value;

use super::super::ledger::What;
use super::super::register::{Register, Step, object_name, operation, value_at};
use super::super::standin::knows;
use super::super::view::{Held, Slot, hydrated_json};
use super::{Candidate, Case, Content, Draft, Holder, later_write};
use crate::message::{is_delete, is_policy};

/// The change that leaves the winner's whole.
pub(super) fn draft<'a>(case: &Case<'a>) -> Option<Draft<'a>> {
    // Edits that came later are not the policy's to undo, and they stir no row.
    if !case.row.stirred {
        return None;
    }
    match (case.row.register.0.is_empty(), case.best()) {
        (true, Some(winner)) => document(case, winner),
        (false, Some(winner)) if case.conflict.policy.chooses() => container(case, winner),
        (_, _) => None,
    }
}

/// The content of a candidate, in the types that it had.
pub(super) fn content(case: &Case<'_>, winner: &Candidate) -> Option<Content> {
    let doc = &case.document.doc;
    let change = ChangeHash(winner.change.0);
    let value = match case.member(winner)? {
        What::Cleared | What::Deleted | What::Removed => return None,
        What::Scalar => {
            let OpType::Put(scalar) = operation(doc, &winner.id)?.action else { return None };
            hydrate::Value::Scalar(scalar)
        }
        // What was edited inside the object since is a part of it.
        What::Map | What::List | What::Text => {
            let object = doc.import_obj(&winner.id).ok()?;
            ReadDoc::hydrate(doc, object, None).ok()?
        }
        What::Counter | What::Edited => value_at(doc, &case.row.register, &[change])?,
        // A counter that was overwritten goes on from what the writer of the increment saw.
        What::Increment => {
            let counted = value_at(doc, &case.row.register, &[change])?;
            let number = hydrated_json(&counted).as_i64()?;
            hydrate::Value::Scalar(ScalarValue::counter(number))
        }
    };
    Some(Content::Value(value))
}

/// The content of a value that stands there.
pub(super) fn current(case: &Case<'_>, slot: &Slot) -> Option<Content> {
    Some(Content::Value(match &slot.value {
        Held::Scalar(scalar) => hydrate::Value::Scalar(scalar.clone()),
        Held::Object(_) => ReadDoc::hydrate(&case.document.doc, &slot.operation, None).ok()?,
    }))
}

fn container<'a>(case: &Case<'a>, winner: &Candidate) -> Option<Draft<'a>> {
    let slots = &case.standing.slots;
    let mut draft = case.new_draft(winner.at);
    case.row.changes().into_iter().for_each(|change| draft.follows(change));
    if winner.value.is_none() {
        case.delete(&mut draft, &slots.iter().collect::<Vec<&Slot>>())?;
        return (!slots.is_empty() && later_write(case.row, case.document).is_none())
            .then_some(draft);
    }
    let wanted = winner.value.as_ref()?;
    if shows(case, &case.row.register, slots, wanted)
        || later_write(case.row, case.document).is_some()
    {
        return None;
    }
    let holder = case.standing.holders.first()?;
    let content = content(case, winner)?;
    let (here, elsewhere): (Vec<&Slot>, Vec<&Slot>) =
        slots.iter().partition(|slot| slot.holder == *holder);
    let here: Vec<ObjId> = here.into_iter().map(|slot| slot.operation.clone()).collect();
    draft.put(Holder::Object(holder.clone()), case.key()?, &here, content, &winner.id);
    case.delete(&mut draft, &elsewhere)?;
    Some(draft)
}

fn document<'a>(case: &Case<'a>, winner: &Candidate) -> Option<Draft<'a>> {
    if superseded(case) {
        return None;
    }
    let doc = &case.document.doc;
    let mut draft = case.new_draft(winner.at);
    case.row.changes().into_iter().for_each(|change| draft.follows(change));
    if winner.value.is_none() {
        let mut keys: Vec<String> = doc.keys(ROOT).collect();
        keys.sort();
        let deleted = ChangeHash(winner.change.0);
        for key in keys {
            remove(case, &mut draft, &key, Some(&deleted))?;
        }
        draft.deletes();
        return (!draft.is_empty()).then_some(draft);
    }
    let whole = case.view.policies().whole(&[]).is_some() && case.conflict.policy.chooses();
    let edits = case.conflict.candidates.iter().filter(|candidate| candidate.value.is_some());
    let heads: BTreeSet<ChangeHash> = match whole {
        true => BTreeSet::from([ChangeHash(winner.change.0)]),
        false => edits.map(|candidate| ChangeHash(candidate.change.0)).collect(),
    };
    let heads: Vec<ChangeHash> = heads.into_iter().collect();
    restore(case, &mut draft, &heads, whole)?;
    if whole {
        let kept: BTreeSet<String> = doc.keys_at(ROOT, &heads).collect();
        let mut gone: Vec<String> = doc.keys(ROOT).filter(|key| !kept.contains(key)).collect();
        gone.sort();
        for key in gone {
            remove(case, &mut draft, &key, None)?;
        }
    }
    (!draft.is_empty()).then_some(draft)
}

/// Writes every field of the document as it was at `heads`, where it is not.
fn restore(
    case: &Case<'_>,
    draft: &mut Draft<'_>,
    heads: &[ChangeHash],
    whole: bool,
) -> Option<()> {
    let doc = &case.document.doc;
    let mut keys: Vec<String> = doc.keys_at(ROOT, heads).collect();
    keys.sort();
    let taken = taken(case);
    for name in keys {
        let prop = Prop::Map(name.clone());
        let register = Register(vec![Step::Key(name.clone())]);
        let wanted = value_at(doc, &register, heads)?;
        let there = case.view.slots(&[ROOT], &prop);
        let (_, source) = doc.get_at(ROOT, prop.clone(), heads).ok()??;
        let due = if whole {
            !shows(case, &register, &there, &hydrated_json(&wanted))
        } else {
            // What the delete did not take, or what stands there again, is not for it to undo: two
            // rows that both say what is to be in one field would do so in turns for ever.
            there.is_empty() && taken.contains(&object_name(&case.view.original_of(&source)))
        };
        if !due {
            continue;
        }
        let there: Vec<ObjId> = there.into_iter().map(|slot| slot.operation).collect();
        let key = Key::Map(name.as_str().into());
        let content = Content::Value(wanted);
        draft.put(Holder::Object(ROOT), key, &there, content, &object_name(&source));
    }
    Some(())
}

/// Returns what the deletes of the document took from it, and what policies did when a delete won.
fn taken(case: &Case<'_>) -> BTreeSet<String> {
    let doc = &case.document.doc;
    let sides: Vec<ChangeHash> = case.row.changes().into_iter().collect();
    let by_policy = |text: &str| is_policy(text) && is_delete(text);
    let later = doc.get_changes_meta(&sides).into_iter();
    let later = later.filter(|meta| meta.message.as_deref().is_some_and(by_policy));
    let deletes = case.row.members.values().filter(|member| member.what == What::Deleted);
    let deletes = deletes.map(|member| ChangeHash(member.change.0));
    let mut taken = BTreeSet::new();
    for change in deletes.chain(later.map(|meta| meta.hash)) {
        let operations = doc.get_change_by_hash(&change).map(|change| change.decode().operations);
        for id in operations.into_iter().flatten().flat_map(|operation| operation.pred) {
            let id = ObjId::Id(id.counter(), id.actor().clone(), 0);
            taken.insert(object_name(&case.view.original_of(&id)));
        }
    }
    taken
}

/// Tells whether a value shows already, alone, here and to other readers.
fn shows(case: &Case<'_>, register: &Register, slots: &[Slot], wanted: &Value) -> bool {
    let doc = &case.document.doc;
    let stock = value_at(doc, register, &doc.get_heads());
    let mut path = register.tokens();
    slots.len() == 1
        && stock.is_some_and(|stock| hydrated_json(&stock) == *wanted)
        && case.view.show(slots, &mut path).as_ref() == Some(wanted)
}

/// Deletes a field of the document, but not what was written after the delete that won.
fn remove(
    case: &Case<'_>,
    draft: &mut Draft<'_>,
    key: &str,
    deleted: Option<&ChangeHash>,
) -> Option<()> {
    let doc = &case.document.doc;
    let after = |slot: &Slot| {
        let change = case.view.change_of(&slot.operation);
        deleted.is_some_and(|deleted| change.is_some_and(|change| knows(doc, &change, deleted)))
    };
    let prop = Prop::Map(key.to_owned());
    let there = case.view.slots(&[ROOT], &prop);
    let there = there.into_iter().filter(|slot| !after(slot));
    let there: Vec<ObjId> = there.map(|slot| slot.operation).collect();
    if !there.is_empty() {
        draft.delete(ROOT, Key::Map(key.into()), &there);
    }
    Some(())
}

/// Tells whether anything was written since that knew every side.
fn superseded(case: &Case<'_>) -> bool {
    let doc = &case.document.doc;
    let sides = case.row.changes();
    let heads: Vec<_> = sides.iter().copied().collect();
    doc.get_changes_meta(&heads).iter().any(|meta| {
        let message = crate::message::Message::read(meta.message.as_deref());
        message.act != crate::message::Act::Policy
            && !sides.contains(&meta.hash)
            && sides.iter().all(|side| knows(doc, &meta.hash, side))
    })
}
