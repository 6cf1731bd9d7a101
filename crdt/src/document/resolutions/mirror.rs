//! What was created twice under one key and shows as one: maps, and counters.
//!
//! Other Automerge readers see only one of the maps. So what stands in the others is moved into
//! that one, field by field; the others stay where they are, emptied, so that late edits of them
//! still show, and are moved as well. Counters are added up in the one that is seen: it grows by
//! as much as another one shrinks, which leaves their sum as it is.

use automerge::legacy::Key;
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
        merge(case, &mut draft, slots, case.conflict.path.tokens())?;
    } else if shown.value.is_counter() && !case.conflict.policy.chooses() {
        let total = case.view.show(slots, &mut case.conflict.path.tokens().to_vec())?.as_i64()?;
        let seen = case.standing.holders.first()?;
        fold(case, &mut draft, seen, &case.key()?, slots, total)?;
    }
    (!draft.is_empty()).then_some(draft)
}

/// Moves maps that show as one into the one that other readers see.
pub(super) fn merge<'a>(
    case: &Case<'a>,
    draft: &mut Draft<'a>,
    slots: &[Slot],
    path: &[String],
) -> Option<()> {
    let maps = merged_maps(slots);
    let (target, shells) = maps.split_first().filter(|(_, shells)| !shells.is_empty())?;
    Mirror { case, draft }.fill(&Into::Object(target), shells, &mut path.to_vec())
}

/// Adds counters up in the last one, which other readers see.
fn fold(
    case: &Case<'_>,
    draft: &mut Draft<'_>,
    seen: &ObjId,
    key: &Key,
    slots: &[Slot],
    total: i64,
) -> Option<()> {
    let counters: Vec<&Slot> = slots.iter().filter(|slot| slot.value.is_counter()).collect();
    let target = counters.iter().rev().find(|slot| slot.holder == *seen)?;
    let other = counters.iter().find(|slot| slot.operation != target.operation)?;
    let by = total.checked_sub(count(&target.value)?)?;
    if by != 0 {
        // The same sum may be due again after what others added up.
        draft.follows_all();
        draft.leave_to(case.view.leader(&case.view.original(target)));
        draft.increment(&target.holder, key.clone(), &target.operation, by);
        draft.increment(&other.holder, key.clone(), &other.operation, by.checked_neg()?);
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

    fn slots(&self, case: &Case<'_>, key: &str) -> Vec<Slot> {
        match self {
            Self::Object(object) => {
                case.view.slots(&[(*object).clone()], &Prop::Map(key.to_owned()))
            }
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
            self.field(target, shells, &key, path)?;
            path.pop();
        }
        Some(())
    }

    fn field(
        &mut self,
        target: &Into<'_>,
        shells: &[ObjId],
        key: &str,
        path: &mut Vec<String>,
    ) -> Option<()> {
        let there = target.slots(self.case, key);
        let mut all = self.case.view.slots(shells, &Prop::Map(key.to_owned()));
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
                        let made = self.put(target, key, Content::EmptyMap, NOTHING)?;
                        self.fill(&Into::Made(made), &shells, path)
                    }
                }
            }
            Held::Scalar(ScalarValue::Counter(_)) => self.counter(target, key, shown, &all, path),
            Held::Object(_) | Held::Scalar(_) if here => Some(()),
            Held::Scalar(scalar) => {
                let value = hydrate::Value::Scalar(scalar.clone());
                self.take(target, key, shown, value)
            }
            Held::Object(ObjType::List | ObjType::Text) => {
                let doc = &self.case.document.doc;
                let value = ReadDoc::hydrate(doc, &shown.operation, None).ok()?;
                self.take(target, key, shown, value)
            }
        }
    }

    /// Has a counter in the target show what all of them show together. Those in the shells stay,
    /// so that late increments of them still count: what one grows by another one shrinks by.
    fn counter(
        &mut self,
        target: &Into<'_>,
        key: &str,
        shown: &Slot,
        all: &[Slot],
        path: &mut Vec<String>,
    ) -> Option<()> {
        let view = &self.case.view;
        let total = view.show(all, path)?.as_i64()?;
        let name = Key::Map(key.into());
        let counters = || all.iter().filter(|slot| slot.value.is_counter());
        if let Into::Object(object) = target
            && counters().any(|slot| slot.holder == **object)
        {
            // Those that were created apart are a conflict with a row of its own.
            let chosen = view.original(shown);
            let counts: Vec<Slot> = counters().cloned().collect();
            if counts.len() < 2 || counts.iter().any(|slot| view.original(slot) != chosen) {
                return Some(());
            }
            return fold(self.case, self.draft, object, &name, &counts, total).or(Some(()));
        }
        let first = counters().filter_map(|slot| view.first_count(slot)).max()?;
        let source = object_name(&view.original(shown));
        let content = Content::Value(hydrate::Value::Scalar(ScalarValue::counter(first)));
        let made = self.put(target, key, content, &source)?;
        let by = total.checked_sub(first)?;
        let other = counters().next().filter(|_| by != 0);
        if let Some(other) = other {
            self.draft.increment_made(made, by);
            self.draft.increment(&other.holder, name, &other.operation, by.checked_neg()?);
        }
        Some(())
    }

    /// Moves one value into the target.
    fn take(
        &mut self,
        target: &Into<'_>,
        key: &str,
        slot: &Slot,
        value: hydrate::Value,
    ) -> Option<()> {
        let source = object_name(&self.case.view.original(slot));
        self.put(target, key, Content::Value(value), &source)?;
        let key = Key::Map(key.into());
        self.draft.delete(slot.holder.clone(), key, std::slice::from_ref(&slot.operation));
        Some(())
    }

    fn put(
        &mut self,
        target: &Into<'_>,
        key: &str,
        content: Content,
        source: &str,
    ) -> Option<usize> {
        let key = Key::Map(key.into());
        Some(self.draft.put(target.holder(), key, &[], content, source))
    }
}
