//! What differs between two points, and how to go back to one.

use std::collections::BTreeMap;

use automerge::{ChangeHash as Hash, ObjType};
use serde_json::{Map, Value};

use super::at::At;
use super::leaves::leaves;
use crate::document::Document;
use crate::document::view::{Held, Replica, View};
use crate::edit::{self, Edit, Path};
use crate::ids::ChangeHash;
use crate::policy::Policies;

/// One place that differs. Differences are in an order in which the first value turns into the
/// second one step by step, and paths are those of that step.
#[derive(Debug, Clone, PartialEq)]
pub struct Difference {
    /// The place.
    pub path: Path,
    /// What is there first; `None` if nothing is.
    pub before: Option<Value>,
    /// What is there then; `None` if nothing is.
    pub after: Option<Value>,
}

/// Lists what differs between two values of a document, either of which may be missing.
#[must_use]
pub fn differences(before: Option<&Value>, after: Option<&Value>) -> Vec<Difference> {
    let (Some(old), Some(new)) = (before, after) else {
        let path = Path::default();
        let whole = Difference { path, before: before.cloned(), after: after.cloned() };
        return (before.is_some() || after.is_some()).then_some(whole).into_iter().collect();
    };
    let mut now = old.clone();
    let mut found = Vec::new();
    for step in edit::difference(old, new) {
        let (path, inserted, after) = match &step {
            Edit::Set { path, value } => (path, false, Some(value)),
            Edit::Insert { path, value } => (path, true, Some(value)),
            Edit::Remove { path } => (path, false, None),
            // The difference of two values has neither.
            Edit::Increment { path, .. } | Edit::Splice { path, .. } => (path, false, None),
        };
        let before = now.pointer(&path.to_string()).filter(|_| !inserted).cloned();
        found.push(Difference { path: path.clone(), before, after: after.cloned() });
        if edit::apply(&mut now, std::slice::from_ref(&step)).is_err() {
            break;
        }
    }
    found
}

impl Document {
    /// Returns the fewest edits that make the document show what it showed when the heads were
    /// these, and its texts and counters texts and counters again; `None` if it was not there then.
    #[must_use]
    pub fn edits_back_to(&self, heads: &[ChangeHash], policies: &Policies) -> Option<Vec<Edit>> {
        let wanted = self.value_at(heads, policies)?;
        let now = self.value(policies).unwrap_or_else(|| Value::Object(Map::new()));
        let mut edits = edit::difference(&now, &wanted);
        if edits.is_empty() {
            return Some(edits);
        }
        let heads: Vec<_> = heads.iter().map(|head| Hash(head.0)).collect();
        let then = self.kinds(&At { doc: &self.doc, heads: &heads }, policies);
        let now = self.kinds(&self.doc, policies);
        let kept = |path: &Path, kind: &Kind| now.get(path) == Some(kind);
        let written: Vec<(Path, bool)> = edits.iter().filter_map(written).collect();
        let again = then.iter().filter(|(path, kind)| {
            written.iter().any(|(place, inserted)| {
                place.is_around(path) || (place == *path && (*inserted || !kept(path, kind)))
            })
        });
        // The paths of values that are written are the same before and after the edits that
        // follow them, so what is made a text or a counter is what was written.
        edits.extend(again.map(|(path, kind)| kind.edit(path)));
        Some(edits)
    }

    /// Finds the texts and counters that show.
    fn kinds<D: Replica>(&self, doc: &D, policies: &Policies) -> BTreeMap<Path, Kind> {
        let view = View::new(doc, policies, &self.admissions);
        let kind = |held: &Held| match held {
            Held::Object(ObjType::Text) => Some(Kind::Text),
            held if held.is_counter() => Some(Kind::Counter),
            Held::Object(_) | Held::Scalar(_) => None,
        };
        let found = leaves(doc, &view, None).into_iter();
        found.filter_map(|leaf| Some((leaf.path, kind(&leaf.winner.value)?))).collect()
    }
}

/// Something whose JSON does not tell what it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Text,
    Counter,
}

impl Kind {
    /// The edit that makes a plain value of this kind, and leaves one that is of it as it is.
    fn edit(self, path: &Path) -> Edit {
        let path = path.clone();
        match self {
            Self::Text => Edit::Splice { path, at: 0, delete: 0, insert: String::new() },
            Self::Counter => Edit::Increment { path, by: 0 },
        }
    }
}

/// The place that an edit writes, and whether it inserts there.
fn written(edit: &Edit) -> Option<(Path, bool)> {
    match edit {
        Edit::Set { path, .. } => Some((path.clone(), false)),
        Edit::Insert { path, .. } => Some((path.clone(), true)),
        Edit::Remove { .. } | Edit::Increment { .. } | Edit::Splice { .. } => None,
    }
}
