//! The leaves of what a document shows: everything that is no object and no list, and those that
//! are empty.

use std::collections::BTreeSet;

use automerge::{ObjId, ObjType, Prop, ROOT, Value, ValueRef};

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
    /// The objects around it that show, the outermost first.
    pub(super) around: Vec<Slot>,
}

/// Finds the leaves of `doc`, which `view` reads, at `within`, inside it, or around it.
pub(super) fn leaves<D: Replica>(doc: &D, view: &View<'_, D>, within: Option<&Path>) -> Vec<Leaf> {
    let (path, around, found) = (Vec::new(), Vec::new(), Vec::new());
    let mut finder = Finder { doc, view, within, path, around, found };
    finder.map(&[ROOT]);
    finder.found
}

struct Finder<'a, 'v, D> {
    doc: &'a D,
    view: &'a View<'v, D>,
    within: Option<&'a Path>,
    path: Vec<String>,
    around: Vec<Slot>,
    found: Vec<Leaf>,
}

impl<D: Replica> Finder<'_, '_, D> {
    /// Goes into maps that show as one; tells whether there is anything inside.
    fn map(&mut self, holders: &[ObjId]) -> bool {
        match holders {
            [only] => self.single_map(only),
            several => self.merged_map(several),
        }
    }

    fn single_map(&mut self, holder: &ObjId) -> bool {
        let (doc, mut any) = (self.doc, false);
        for item in doc.map_range(holder, ..) {
            let alone = (!item.conflict).then(|| slot(&item.value, item.id(), holder));
            let prop = Prop::Map(item.key.into_owned());
            any |= self.member(std::slice::from_ref(holder), &prop, alone);
        }
        any
    }

    fn merged_map(&mut self, holders: &[ObjId]) -> bool {
        let keys: BTreeSet<String> = holders.iter().flat_map(|h| self.doc.keys(h)).collect();
        let mut any = false;
        for key in keys {
            any |= self.member(holders, &Prop::Map(key), None);
        }
        any
    }

    fn list(&mut self, list: &ObjId) -> bool {
        let (doc, mut any) = (self.doc, false);
        for item in doc.list_range(list, ..) {
            let alone = (!item.conflict).then(|| slot(&item.value, item.id(), list));
            any |= self.member(std::slice::from_ref(list), &Prop::Seq(item.index), alone);
        }
        any
    }

    /// Goes into a member, which may be known to be `alone`; tells whether there is one.
    fn member(&mut self, holders: &[ObjId], prop: &Prop, alone: Option<Slot>) -> bool {
        self.path.push(match prop {
            Prop::Map(key) => key.clone(),
            Prop::Seq(index) => index.to_string(),
        });
        let mut there = true;
        if self.wanted() {
            let slots = alone.map_or_else(|| self.view.slots(holders, prop), |slot| vec![slot]);
            there = !slots.is_empty();
            if let Some(winner) = self.view.winner(&slots, &self.path).cloned() {
                self.open(slots, winner);
            }
        }
        self.path.pop();
        there
    }

    fn open(&mut self, slots: Vec<Slot>, winner: Slot) {
        self.around.push(winner.clone());
        let inside = match &winner.value {
            Held::Object(ObjType::Map | ObjType::Table) => self.map(&merged_maps(&slots)),
            Held::Object(ObjType::List) => self.list(&winner.operation),
            Held::Object(ObjType::Text) | Held::Scalar(_) => false,
        };
        self.around.pop();
        if !inside {
            let (path, around) = (Path::from(self.path.clone()), self.around.clone());
            self.found.push(Leaf { path, slots, winner, around });
        }
    }

    fn wanted(&self) -> bool {
        let meets = |path: &Path| path.tokens().iter().zip(&self.path).all(|(a, b)| a == b);
        self.within.is_none_or(meets)
    }
}

fn slot(value: &ValueRef<'_>, operation: ObjId, holder: &ObjId) -> Slot {
    let value = match value.clone().into_value() {
        Value::Object(kind) => Held::Object(kind),
        Value::Scalar(scalar) => Held::Scalar(scalar.into_owned()),
    };
    Slot { value, operation, holder: holder.clone() }
}
