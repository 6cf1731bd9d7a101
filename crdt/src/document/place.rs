//! Where the value of a conflict is now, and what JSON does not tell of it.
//!
//! The index of a list element changes as others come and go, and an object around a value may be
//! gone. So a place is followed step by step, by the names that its operations give to it.

use automerge::legacy::OpType;
use automerge::{ChangeHash as Hash, ObjId, ObjType, ROOT, ReadDoc, ScalarValue, hydrate};

use super::Document;
use super::register::{
    Places, Register, Step, descend, object_name, operation, path_now, prop, register_in,
};
use super::view::View;
use crate::edit::Path;
use crate::ids::ChangeHash;
use crate::policy::Policies;

/// A place in a document as it is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The path. An element that is gone has the index at which it would be.
    pub path: Path,
    /// For each token, whether it is the index of a list element.
    pub elements: Vec<bool>,
    /// How many tokens lead to something that is there.
    pub standing: usize,
    /// The operation whose value shows, if all of the path is there.
    pub shown: Option<String>,
}

impl Place {
    /// The place of the whole document, which is always there.
    #[must_use]
    pub fn root() -> Self {
        Self { path: Path::default(), elements: Vec::new(), standing: 0, shown: None }
    }

    /// Tells whether all of the path is there.
    #[must_use]
    pub fn stands(&self) -> bool {
        self.standing == self.elements.len()
    }
}

/// A type that a JSON value does not tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Typed {
    /// A number that concurrent increments add to.
    Counter,
    /// A string that concurrent edits merge in.
    Text,
}

impl Document {
    /// Returns the place of the outermost `depth` steps of what operations, named
    /// `counter@actor`, wrote to; `None` if none of them reaches so deep.
    #[must_use]
    pub fn place<'a>(
        &self,
        operations: impl IntoIterator<Item = &'a str>,
        depth: usize,
        policies: &Policies,
    ) -> Option<Place> {
        let registers = operations.into_iter().filter_map(|name| self.register(name));
        let mut register = registers.max_by_key(|register| register.0.len())?;
        if register.0.len() < depth {
            return None;
        }
        register.0.truncate(depth);
        Some(self.place_of(&register, policies))
    }

    /// Lists the counters and the texts in what an operation wrote, by their paths inside of it.
    #[must_use]
    pub fn typed(&self, name: &str) -> Vec<(Path, Typed)> {
        let Some(written) = operation(&self.doc, name) else { return Vec::new() };
        let mut found = Vec::new();
        match &written.action {
            OpType::Put(ScalarValue::Counter(_)) | OpType::Increment(_) => {
                found.push((Path::default(), Typed::Counter));
            }
            OpType::Make(ObjType::Text) => found.push((Path::default(), Typed::Text)),
            OpType::Make(ObjType::Map | ObjType::Table | ObjType::List) => {
                if let Some(content) = self.as_made(name) {
                    find_typed(&content, &Path::default(), &mut found);
                }
            }
            OpType::Put(_) | OpType::Delete | OpType::MarkBegin(_) | OpType::MarkEnd(_) => {}
        }
        found
    }

    /// Returns what a change was made on; `None` if it is unknown.
    #[must_use]
    pub fn dependencies(&self, change: ChangeHash) -> Option<Vec<ChangeHash>> {
        let meta = self.doc.get_change_meta_by_hash(&Hash(change.0))?;
        Some(meta.deps.iter().map(|dep| ChangeHash(dep.0)).collect())
    }

    fn register(&self, name: &str) -> Option<Register> {
        let written = operation(&self.doc, name)?;
        let ancestors = Places::new(&self.doc).ancestors(&written.obj)?;
        Some(register_in(&ancestors, &written.key, written.insert.then_some(name)))
    }

    fn place_of(&self, register: &Register, policies: &Policies) -> Place {
        let view = View::new(&self.doc, policies, &self.admissions);
        let path = path_now(&self.doc, register);
        let (mut holders, mut standing, mut shown) = (vec![ROOT], 0, None);
        for (depth, step) in register.0.iter().enumerate() {
            let prop = prop(&self.doc, &holders, step).filter(|_| self.is_there(&holders, step));
            let slots = prop.map(|prop| view.slots(&holders, &prop)).unwrap_or_default();
            let tokens = path.tokens().get(..=depth).unwrap_or_default();
            let winner = view.winner(&slots, tokens);
            shown = winner.map(|slot| object_name(&slot.operation));
            if shown.is_none() {
                break;
            }
            holders = descend(&view, &slots, tokens);
            standing = depth.saturating_add(1);
        }
        let elements = register.0.iter().map(|step| matches!(step, Step::Element(_))).collect();
        Place { path, elements, standing, shown }
    }

    /// Tells whether a list element is still there; a cursor to one that is gone leads to the next.
    fn is_there(&self, holders: &[ObjId], step: &Step) -> bool {
        let (Step::Element(element), [list, ..]) = (step, holders) else { return true };
        let index = match prop(&self.doc, holders, step) {
            Some(automerge::Prop::Seq(index)) => index,
            Some(automerge::Prop::Map(_)) | None => return false,
        };
        let there = index < self.doc.length(list);
        there
            && self
                .doc
                .get_cursor(list, index, None)
                .is_ok_and(|cursor| cursor.to_string() == *element)
    }

    /// The content of an object right after the change that made it.
    fn as_made(&self, name: &str) -> Option<hydrate::Value> {
        let object = self.doc.import_obj(name).ok()?;
        let change = self.doc.hash_for_opid(&object)?;
        ReadDoc::hydrate(&self.doc, object, Some(&[change])).ok()
    }
}

fn find_typed(content: &hydrate::Value, path: &Path, found: &mut Vec<(Path, Typed)>) {
    match content {
        hydrate::Value::Scalar(ScalarValue::Counter(_)) => {
            found.push((path.clone(), Typed::Counter));
        }
        hydrate::Value::Scalar(_) => {}
        hydrate::Value::Text(_) => found.push((path.clone(), Typed::Text)),
        hydrate::Value::Map(map) => {
            let mut members: Vec<_> = map.iter().collect();
            members.sort_by_key(|(key, _)| key.as_str());
            for (key, member) in members {
                find_typed(&member.value, &path.child(key), found);
            }
        }
        hydrate::Value::List(list) => {
            for (index, element) in list.iter().enumerate() {
                find_typed(&element.value, &path.child(index.to_string()), found);
            }
        }
    }
}

#[cfg(test)]
mod tests;
