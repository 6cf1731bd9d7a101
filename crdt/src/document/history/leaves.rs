//! The leaves of what a document shows: everything that is no object and no list, and those that
//! are empty.

use std::collections::BTreeSet;

use automerge::{ObjId, ObjType, Prop, ROOT};

use crate::document::view::{Held, Replica, Slot, View, merged_maps};
use crate::edit::Path;

/// Something that shows and has nothing inside.
#[derive(Debug)]
pub(super) struct Leaf {
    pub(super) path: Path,
    /// What stands there.
    pub(super) slots: Vec<Slot>,
    /// The one of them that shows.
    pub(super) winner: Slot,
}

/// Finds the leaves of `doc`, which `view` reads, at `within`, inside it, or around it.
pub(super) fn leaves<D: Replica>(doc: &D, view: &View<'_, D>, within: Option<&Path>) -> Vec<Leaf> {
    let mut finder = Finder { doc, view, within, path: Vec::new(), found: Vec::new() };
    finder.map(&[ROOT]);
    finder.found
}

struct Finder<'a, 'v, D> {
    doc: &'a D,
    view: &'a View<'v, D>,
    within: Option<&'a Path>,
    path: Vec<String>,
    found: Vec<Leaf>,
}

impl<D: Replica> Finder<'_, '_, D> {
    fn map(&mut self, holders: &[ObjId]) -> bool {
        let keys: BTreeSet<String> = holders.iter().flat_map(|h| self.doc.keys(h)).collect();
        let mut any = false;
        for key in keys {
            any |= self.member(key.clone(), holders, &Prop::Map(key));
        }
        any
    }

    fn list(&mut self, list: &ObjId) -> bool {
        let length = self.doc.length(list);
        for index in 0..length {
            self.member(index.to_string(), std::slice::from_ref(list), &Prop::Seq(index));
        }
        length > 0
    }

    /// Goes into a member; tells whether there is one.
    fn member(&mut self, token: String, holders: &[ObjId], prop: &Prop) -> bool {
        self.path.push(token);
        if !self.wanted() {
            self.path.pop();
            return true;
        }
        let slots = self.view.slots(holders, prop);
        let there = !slots.is_empty();
        if let Some(winner) = self.view.winner(&slots, &self.path).cloned() {
            self.open(slots, winner);
        }
        self.path.pop();
        there
    }

    fn open(&mut self, slots: Vec<Slot>, winner: Slot) {
        let inside = match &winner.value {
            Held::Object(ObjType::Map | ObjType::Table) => self.map(&merged_maps(&slots, &winner)),
            Held::Object(ObjType::List) => self.list(&winner.operation),
            Held::Object(ObjType::Text) | Held::Scalar(_) => false,
        };
        if !inside {
            self.found.push(Leaf { path: Path::from(self.path.clone()), slots, winner });
        }
    }

    fn wanted(&self) -> bool {
        let tokens = |path: &Path| path.tokens().iter().zip(&self.path).all(|(a, b)| a == b);
        self.within.is_none_or(tokens)
    }
}
