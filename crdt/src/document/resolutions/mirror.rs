//! What was created twice under one key and shows as one: maps, and counters.
//!
//! Other Automerge readers see only one of the maps. So what stands in the others is moved into
//! that one, field by field; the others stay where they are, emptied, so that late edits of them
//! still show, and are moved as well. Counters are added up in the one that is seen: it grows by
//! as much as another one shrinks, which leaves their sum as it is.

use automerge::{ObjId, ObjType, Prop, ReadDoc, ScalarValue, hydrate};

use super::super::register::object_name;
use super::super::standin::NOTHING;
use super::super::view::{Held, Slot, count, merged_maps};
use super::{Case, Content, Draft, Holder};

/// The change that makes what merges show to every reader.
pub(super) fn draft<'a>(case: &Case<'a>) -> Option<Draft<'a>> {
    let slots = &case.standing.slots;
    let shown = case.view.winner(slots, case.conflict.path.tokens())?;
    let mut draft = case.new_draft(case.conflict.at());
    if shown.value.is_map() {
        let maps = merged_maps(slots);
        let (target, shells) = maps.split_first().filter(|(_, shells)| !shells.is_empty())?;
        let mut path = case.conflict.path.tokens().to_vec();
        Mirror { case, draft: &mut draft }.fill(&Into::Object(target), shells, &mut path)?;
    } else if shown.value.is_counter() && !case.conflict.policy.chooses() {
        let total = case.view.show(slots, &mut case.conflict.path.tokens().to_vec())?.as_i64()?;
        let prop = case.standing.prop.as_ref()?;
        fold(case, &mut draft, prop, slots, total)?;
    }
    (!draft.is_empty()).then_some(draft)
}

/// Adds counters up in the last one, which other readers see.
fn fold(
    case: &Case<'_>,
    draft: &mut Draft<'_>,
    prop: &Prop,
    slots: &[Slot],
    total: i64,
) -> Option<()> {
    let seen = case.standing.holders.first()?;
    let counters: Vec<&Slot> = slots.iter().filter(|slot| slot.value.is_counter()).collect();
    let target = counters.iter().rev().find(|slot| slot.holder == *seen)?;
    let other = counters.iter().find(|slot| slot.operation != target.operation)?;
    let by = total.checked_sub(count(&target.value)?)?;
    if by != 0 {
        let key = draft.key(&target.holder, prop)?;
        draft.increment(&target.holder, key, &target.operation, by);
        let key = draft.key(&other.holder, prop)?;
        draft.increment(&other.holder, key, &other.operation, by.checked_neg()?);
    }
    Some(())
}

/// The map that the others are moved into.
enum Into<'m> {
    Object(&'m ObjId),
    /// One that is made by the step with this number.
    Made(usize),
}

impl Into<'_> {
    fn holder(&self) -> Holder {
        match self {
            Self::Object(object) => Holder::Object((*object).clone()),
            Self::Made(step) => Holder::Made(*step),
        }
    }

    fn slots(&self, case: &Case<'_>, prop: &Prop) -> Vec<Slot> {
        match self {
            Self::Object(object) => case.view.slots(&[(*object).clone()], prop),
            Self::Made(_) => Vec::new(),
        }
    }
}

struct Mirror<'c, 'a, 'd> {
    case: &'c Case<'a>,
    draft: &'d mut Draft<'a>,
}

impl Mirror<'_, '_, '_> {
    /// Moves what the shells hold into the target.
    fn fill(&mut self, target: &Into<'_>, shells: &[ObjId], path: &mut Vec<String>) -> Option<()> {
        let doc = &self.case.document.doc;
        let mut keys: Vec<String> = shells.iter().flat_map(|shell| doc.keys(shell)).collect();
        keys.sort();
        keys.dedup();
        for key in keys {
            path.push(key.clone());
            self.field(target, shells, &Prop::Map(key), path)?;
            path.pop();
        }
        Some(())
    }

    fn field(
        &mut self,
        target: &Into<'_>,
        shells: &[ObjId],
        prop: &Prop,
        path: &mut Vec<String>,
    ) -> Option<()> {
        let there = target.slots(self.case, prop);
        let mut all = self.case.view.slots(shells, prop);
        all.extend(there.iter().cloned());
        all.sort_by(|one, other| {
            let order = super::operation_order;
            order(&one.operation).cmp(&order(&other.operation))
        });
        let shown = self.case.view.winner(&all, path)?;
        let here = there.iter().any(|slot| slot.operation == shown.operation);
        let moved: Vec<ObjId> =
            all.iter().filter(|slot| slot.value.is_map()).map(|s| s.operation.clone()).collect();
        match &shown.value {
            Held::Object(ObjType::Map | ObjType::Table) => {
                let inner = there.iter().rev().find(|slot| slot.value.is_map());
                let shells: Vec<ObjId> = moved
                    .into_iter()
                    .filter(|map| inner.is_none_or(|inner| inner.operation != *map))
                    .collect();
                match inner {
                    _ if shells.is_empty() => Some(()),
                    Some(inner) => self.fill(&Into::Object(&inner.operation), &shells, path),
                    None => {
                        let made = self.put(target, prop, Content::EmptyMap, NOTHING)?;
                        self.fill(&Into::Made(made), &shells, path)
                    }
                }
            }
            Held::Scalar(ScalarValue::Counter(_)) => {
                // One that is in the target as well is a conflict with a row of its own.
                if there.iter().any(|slot| slot.value.is_counter()) {
                    return Some(());
                }
                let zero = ScalarValue::counter(0);
                let zero = Content::Value(hydrate::Value::Scalar(zero));
                self.put(target, prop, zero, NOTHING).map(drop)
            }
            Held::Object(_) | Held::Scalar(_) if here => Some(()),
            Held::Scalar(scalar) => {
                let value = hydrate::Value::Scalar(scalar.clone());
                self.take(target, prop, shown, value)
            }
            Held::Object(ObjType::List | ObjType::Text) => {
                let doc = &self.case.document.doc;
                let value = ReadDoc::hydrate(doc, &shown.operation, None).ok()?;
                self.take(target, prop, shown, value)
            }
        }
    }

    /// Moves one value into the target.
    fn take(
        &mut self,
        target: &Into<'_>,
        prop: &Prop,
        slot: &Slot,
        value: hydrate::Value,
    ) -> Option<()> {
        let source = object_name(&self.case.view.original(slot));
        self.put(target, prop, Content::Value(value), &source)?;
        let key = self.draft.key(&slot.holder, prop)?;
        self.draft.delete(slot.holder.clone(), key, std::slice::from_ref(&slot.operation));
        Some(())
    }

    fn put(
        &mut self,
        target: &Into<'_>,
        prop: &Prop,
        content: Content,
        source: &str,
    ) -> Option<usize> {
        let key = self.draft.key(&ObjId::Root, prop)?;
        Some(self.draft.put(target.holder(), key, &[], content, source))
    }
}
