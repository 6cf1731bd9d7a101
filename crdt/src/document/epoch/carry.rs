//! Late edits, done again in the next epoch.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::{Closing, ClosingKind, by_content, covering, covers, hashes};
use crate::document::{Author, Change, Document, write};
use crate::edit::{self, Edit, Path};
use crate::ids::{ChangeHash, Timestamp};
use crate::message::{Act, Message};
use crate::policy::Policies;

/// One late change, and what it became.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Carried {
    /// The late change.
    pub late: ChangeHash,
    /// What it became.
    pub became: Carrying,
}

/// What a late change became in the next epoch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Carrying {
    /// This change, which the next epoch lacks.
    Made(Change),
    /// This change, which the next epoch has.
    Known(ChangeHash),
    /// Nothing: it changed nothing that shows.
    Nothing,
    /// Nothing: what it changed is not to be found in the next epoch, for this reason.
    Unplaced(String),
    /// Nothing: the document was purged, and the change knew nothing of the delete before that.
    Purged,
    /// Nothing yet: the next epoch has not arrived.
    Waiting,
}

impl Document {
    /// Does again in the next epoch what came to this one after it was closed, as far as the next
    /// epoch does not have it yet; in causal order.
    #[must_use]
    pub fn carry(&self, closings: &[Closing], next: &Self) -> Vec<Carried> {
        let late = self.late(closings);
        if late.is_empty() {
            return Vec::new();
        }
        let known = next.known_late();
        let start = next.openings();
        let compacted = closings.iter().any(|closing| closing.kind == ClosingKind::Compact);
        if compacted && start.is_empty() {
            let waiting = |late| Carried { late, became: Carrying::Waiting };
            return late.into_iter().map(waiting).collect();
        }
        let covers: Vec<ChangeHash> =
            covers(closings).filter(|hash| self.contains(*hash)).collect();
        let mut carrier = Carrier {
            closed: self,
            covers,
            purged: super::covers(closings).collect(),
            compacted,
            next: next.clone(),
            start,
            became: BTreeMap::new(),
        };
        let carry = |hash| {
            let became = match known.get(&hash) {
                Some(change) => {
                    carrier.became.insert(hash, vec![*change]);
                    Carrying::Known(*change)
                }
                None => carrier.carry(hash),
            };
            Carried { late: hash, became }
        };
        late.into_iter().map(carry).collect()
    }

    /// The changes of an epoch that do again what came late to the one before, by that.
    fn known_late(&self) -> BTreeMap<ChangeHash, ChangeHash> {
        let metas = self.doc.get_changes_meta(&[]).into_iter();
        let late = |meta: automerge::ChangeMetadata<'_>| {
            let message = Message::read(meta.message.as_deref());
            let note = message.note.filter(|_| message.act == Act::Late)?;
            let late = note.get(..64)?.parse().ok()?;
            Some((late, ChangeHash(meta.hash.0)))
        };
        metas.filter_map(late).collect()
    }

    /// The changes that an epoch starts with: one, unless two leaders compacted different states.
    fn openings(&self) -> Vec<ChangeHash> {
        let metas = self.doc.get_changes_meta(&[]).into_iter();
        let opens = |meta: &automerge::ChangeMetadata<'_>| {
            meta.deps.is_empty() && Message::read(meta.message.as_deref()).act == Act::Open
        };
        let mut openings: Vec<_> =
            metas.filter(opens).map(|meta| ChangeHash(meta.hash.0)).collect();
        openings.sort_unstable();
        openings
    }
}

struct Carrier<'a> {
    closed: &'a Document,
    /// Those changes that the closings cover and that are here.
    covers: Vec<ChangeHash>,
    /// All that the closings cover.
    purged: Vec<ChangeHash>,
    compacted: bool,
    /// The next epoch, with what was made for it so far.
    next: Document,
    start: Vec<ChangeHash>,
    /// The heads in the next epoch that stand for each late change.
    became: BTreeMap<ChangeHash, Vec<ChangeHash>>,
}

impl Carrier<'_> {
    fn carry(&mut self, late: ChangeHash) -> Carrying {
        let Some(meta) = self.closed.doc.get_change_meta_by_hash(&automerge::ChangeHash(late.0))
        else {
            return Carrying::Waiting;
        };
        let deps: Vec<ChangeHash> = meta.deps.iter().map(|dep| ChangeHash(dep.0)).collect();
        if !self.compacted && !self.closed.knows_all(&deps, &self.purged) {
            return Carrying::Purged;
        }
        let base = self.base(&deps);
        let at = crate::clock::normalise(meta.timestamp);
        let Message { author, note, .. } = Message::read(meta.message.as_deref());
        let note = Some(covering(&[late], note.as_deref()));
        let message = Message { act: Act::Late, author, note };
        let [before, after] = self.around(late, &deps);
        let made = match make(&self.next, &base, (before, after), (at, &message)) {
            Ok(made) => made,
            Err(reason) => {
                self.became.insert(late, base);
                return Carrying::Unplaced(reason);
            }
        };
        let Some(change) = made else {
            self.became.insert(late, base);
            return Carrying::Nothing;
        };
        self.became.insert(late, vec![change.hash]);
        let admitted = crate::document::Admitted { change: change.bytes.clone(), at, by: None };
        match self.next.apply(&[admitted], &Policies::default()) {
            Ok(_) => Carrying::Made(change),
            Err(error) => Carrying::Unplaced(error.to_string()),
        }
    }

    /// The heads behind which a change with these dependencies is made again.
    fn base(&self, deps: &[ChangeHash]) -> Vec<ChangeHash> {
        let late = deps.iter().filter_map(|dep| self.became.get(dep)).flatten().copied();
        let mut base: Vec<_> = self.start.iter().copied().chain(late).collect();
        base.sort_unstable();
        base.dedup();
        base
    }

    /// What showed right before and right after a late change, to stock readers: what a policy
    /// chose otherwise is a change of its own.
    fn around(&self, late: ChangeHash, deps: &[ChangeHash]) -> [Option<Value>; 2] {
        let mut heads: Vec<_> = self.covers.iter().chain(deps).copied().collect();
        let before = self.closed.value_at(&heads, &Policies::default());
        heads.push(late);
        [before, self.closed.value_at(&heads, &Policies::default())]
    }
}

/// Makes a change behind `base` that turns the one value into the other; `None` if they are equal.
fn make(
    next: &Document,
    base: &[ChangeHash],
    (before, after): (Option<Value>, Option<Value>),
    (at, message): (Timestamp, &Message),
) -> Result<Option<Change>, String> {
    let from = if base.is_empty() { Some(Document::new()) } else { next.past(base) };
    let from = from.ok_or_else(|| "the next epoch lacks what it follows".to_owned())?;
    debug_assert!(hashes(&from.doc).len() <= base.len(), "a document has no more heads than asked");
    let edits = match (&before, &after) {
        (None, None) => return Ok(None),
        (Some(_), None) => {
            let delete = |origin| {
                let author = Author { origin, at, message: message.clone() };
                write::delete(&mut from.clone(), &author)
            };
            return Ok(Some(by_content(delete)));
        }
        (before, Some(after)) => {
            let none = Value::Object(Map::new());
            stepwise(edit::difference(before.as_ref().unwrap_or(&none), after))
        }
    };
    if edits.is_empty() && before.is_some() {
        return Ok(None);
    }
    let policies = Policies::default();
    let author = |origin| Author { origin, at, message: message.clone() };
    // Tried once, so that what follows cannot fail.
    write::steps(&mut from.clone(), &edits, &author(NOBODY), &policies)
        .map_err(|error| error.to_string())?;
    Ok(Some(by_content(|origin| {
        let made = write::steps(&mut from.clone(), &edits, &author(origin), &policies);
        made.expect("the same edits were made a moment ago")
    })))
}

/// Turns edits into such as write one scalar or empty container each: several at once would be
/// written in the order of a hash map, which differs from node to node.
fn stepwise(edits: Vec<Edit>) -> Vec<Edit> {
    let mut steps = Vec::new();
    for edit in edits {
        match edit {
            Edit::Set { path, value } => one_by_one(&path, &value, false, &mut steps),
            Edit::Insert { path, value } => one_by_one(&path, &value, true, &mut steps),
            Edit::Remove { .. } | Edit::Increment { .. } | Edit::Splice { .. } => steps.push(edit),
        }
    }
    steps
}

fn one_by_one(path: &Path, value: &Value, insert: bool, steps: &mut Vec<Edit>) {
    let bare = match value {
        Value::Object(_) => json!({}),
        Value::Array(_) => json!([]),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value.clone(),
    };
    let path = path.clone();
    steps.push(match insert {
        true => Edit::Insert { path: path.clone(), value: bare },
        false => Edit::Set { path: path.clone(), value: bare },
    });
    if let Value::Object(members) = value {
        members.iter().for_each(|(key, member)| one_by_one(&path.child(key), member, false, steps));
    }
    if let Value::Array(elements) = value {
        for (index, element) in elements.iter().enumerate() {
            one_by_one(&path.child(index.to_string()), element, true, steps);
        }
    }
}

/// Who makes a change that is thrown away.
const NOBODY: crate::ids::Origin = crate::ids::Origin(uuid::Uuid::nil());
