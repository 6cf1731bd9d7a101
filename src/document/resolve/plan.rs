//! What settling a conflict comes to: the value that is to stand, and the edits that make it so.

use anabranch_crdt::conflict::{Candidate, Conflict, ConflictKind};
use anabranch_crdt::document::{self, Place, Typed};
use anabranch_crdt::edit::{self, Path};
use anabranch_crdt::message::Act;
use anabranch_crdt::policy::Policy;
use serde_json::{Map, Value};

use super::edits::{Wanted, settling};
use super::{Deed, Settling};
use crate::document::loaded::{Loaded, Scene};
use crate::error::{Error, ErrorKind};

/// Plans how a conflict is settled; nothing is changed yet.
pub(super) fn plan(
    loaded: &Loaded,
    scene: Scene<'_>,
    conflict: &Conflict,
    how: &Settling,
) -> Result<Deed, Error> {
    let planner = Planner { loaded, scene, conflict };
    let wanted = match how {
        Settling::Dismiss | Settling::Reopen => return Ok(Deed::Mark),
        Settling::Delete => None,
        Settling::Value(value) => Some(planner.given(value.clone())),
        Settling::Take(id) => planner.candidate(named(conflict, id)?)?,
        Settling::Policy(policy) => planner.candidate(planner.chosen(*policy)?)?,
        Settling::Merge => Some(planner.merged()?),
        Settling::Undo => planner.before()?,
    };
    planner.deed(wanted)
}

/// Returns what shows at the place of a conflict.
pub(super) fn shown(loaded: &Loaded, scene: Scene<'_>, conflict: &Conflict) -> Option<Value> {
    let place = place(&loaded.document, scene, conflict);
    at(loaded.value.as_ref(), &place).cloned()
}

/// Returns what would show at the place of a conflict after a deed.
pub(super) fn foreseen(
    loaded: &Loaded,
    scene: Scene<'_>,
    conflict: &Conflict,
    deed: &Deed,
) -> Option<Value> {
    match deed {
        Deed::Mark => shown(loaded, scene, conflict),
        Deed::Delete => None,
        Deed::Edit(edits) => {
            let mut next = loaded.value.clone().unwrap_or_else(|| Value::Object(Map::new()));
            edit::apply(&mut next, edits).ok()?;
            // The first edit is the one that writes, and it may write objects around the value.
            next.pointer(&place(&loaded.document, scene, conflict).path.to_string()).cloned()
        }
    }
}

struct Planner<'a> {
    loaded: &'a Loaded,
    scene: Scene<'a>,
    conflict: &'a Conflict,
}

impl Planner<'_> {
    fn deed(&self, wanted: Option<Wanted>) -> Result<Deed, Error> {
        if !self.conflict.path.is_root() {
            let place = place(&self.loaded.document, self.scene, self.conflict);
            let edits = settling(self.loaded.value.as_ref(), &place, wanted.as_ref());
            return Ok(if edits.is_empty() { Deed::Mark } else { Deed::Edit(edits) });
        }
        match (wanted, &self.loaded.value) {
            (None, None) => Ok(Deed::Mark),
            (None, Some(_)) => Ok(Deed::Delete),
            (Some(Wanted { value, .. }), now) if value.is_object() => {
                let none = Value::Object(Map::new());
                Ok(Deed::Edit(edit::difference(now.as_ref().unwrap_or(&none), &value)))
            }
            (Some(_), _) => {
                let message = "a document is a JSON object";
                Err(Error::new(ErrorKind::Invalid, "not_an_object", message))
            }
        }
    }

    /// A value of the request. It stays a counter or a text where every candidate is one.
    fn given(&self, value: Value) -> Wanted {
        let root = |candidate: &Candidate| {
            let typed = self.loaded.document.typed(&candidate.id);
            typed.into_iter().find(|(path, _)| path.is_root()).map(|(_, typed)| typed)
        };
        let written = self.conflict.candidates.iter().filter(|c| c.value.is_some());
        let types: Vec<Option<Typed>> = written.map(root).collect();
        let same = types.iter().all(|typed| Some(typed) == types.first());
        let typed = types.first().copied().flatten().filter(|_| same);
        Wanted { value, typed: typed.map(|typed| (Path::default(), typed)).into_iter().collect() }
    }

    fn candidate(&self, candidate: &Candidate) -> Result<Option<Wanted>, Error> {
        let document = &self.loaded.document;
        let Some(value) = candidate.value.clone() else { return Ok(None) };
        Ok(Some(Wanted { value, typed: document.typed(&candidate.id) }))
    }

    fn chosen(&self, policy: Policy) -> Result<&Candidate, Error> {
        let ordered = self.scene.policies.to_json().get("regions").is_some();
        if policy == Policy::RegionPriority && !ordered {
            let message = "the settings of the collection name no order of regions";
            return Err(Error::new(ErrorKind::Invalid, "not_decidable", message));
        }
        let policies = self.scene.policies.with(&self.conflict.path, policy);
        let Loaded { ledger, document, .. } = self.loaded;
        let winner = ledger.winner_under(document, self.conflict.id, &policies);
        winner.and_then(|index| self.conflict.candidates.get(index)).ok_or_else(|| {
            let message = format!("the policy {policy} chooses none of the candidates");
            Error::new(ErrorKind::Invalid, "not_decidable", message)
        })
    }

    /// The candidates, and what was made of them since, as one value.
    fn merged(&self) -> Result<Wanted, Error> {
        let refuse = |why: String| Error::new(ErrorKind::Invalid, "not_mergeable", why);
        match self.conflict.kind {
            ConflictKind::Counter => {
                return Err(refuse("a counter and what replaced it do not merge".into()));
            }
            ConflictKind::Document => {
                return Err(refuse("the delete of a document does not merge with edits".into()));
            }
            ConflictKind::Value
            | ConflictKind::Delete
            | ConflictKind::Container
            | ConflictKind::Type
            | ConflictKind::Whole => {}
        }
        let candidates = &self.conflict.candidates;
        if candidates.len() > MAX_SIDES {
            return Err(refuse(format!("more than {MAX_SIDES} candidates do not merge")));
        }
        let values: Option<Vec<&Value>> = candidates.iter().map(|c| c.value.as_ref()).collect();
        let mut sides = values.ok_or_else(|| refuse("one side deleted it".into()))?;
        // Containers may have been edited since, in parts that did not collide.
        let now = shown(self.loaded, self.scene, self.conflict);
        sides.extend(now.as_ref());
        let merged = document::merge(self.conflict.base.as_ref(), &sides);
        Ok(self.given(merged.map_err(|error| refuse(error.to_string()))?))
    }

    /// What showed before the resolution that stands.
    fn before(&self) -> Result<Option<Wanted>, Error> {
        let document = &self.loaded.document;
        let place_now = place(document, self.scene, self.conflict);
        let now = at(self.loaded.value.as_ref(), &place_now);
        let resolutions =
            self.conflict.acts.iter().rev().filter(|act| matches!(act.act, Act::Resolve(_)));
        for act in resolutions.take(MAX_SIDES) {
            let Some(deps) = document.dependencies(act.change) else { continue };
            let (after, _) = self.at_heads(&[act.change]);
            if after.as_ref() == now {
                let (before, typed) = self.at_heads(&deps);
                return Ok(before.map(|value| Wanted { value, typed }));
            }
        }
        let message = "the value was changed since the conflict was resolved: write what you want";
        Err(Error::new(ErrorKind::Conflict, "changed_since", message))
    }

    /// What showed at the place of the conflict when the heads were these.
    fn at_heads(
        &self,
        heads: &[anabranch_crdt::ids::ChangeHash],
    ) -> (Option<Value>, Vec<(Path, Typed)>) {
        let Some(then) = self.loaded.document.past(heads) else { return (None, Vec::new()) };
        let place = place(&then, self.scene, self.conflict);
        let value = then.value(self.scene.policies);
        let typed = place.shown.as_deref().map(|shown| then.typed(shown)).unwrap_or_default();
        (at(value.as_ref(), &place).cloned(), typed)
    }
}

/// Finds the place of a conflict in a document.
fn place(document: &document::Document, scene: Scene<'_>, conflict: &Conflict) -> Place {
    let operations = conflict.candidates.iter().map(|candidate| candidate.id.as_str());
    let depth = conflict.path.tokens().len();
    document.place(operations, depth, scene.policies).unwrap_or_else(|| Place {
        // Without operations, all that can be said is where the conflict was listed.
        elements: vec![false; depth],
        path: conflict.path.clone(),
        standing: 0,
        shown: None,
    })
}

fn at<'a>(document: Option<&'a Value>, place: &Place) -> Option<&'a Value> {
    document.filter(|_| place.stands()).and_then(|value| value.pointer(&place.path.to_string()))
}

fn named<'a>(conflict: &'a Conflict, id: &str) -> Result<&'a Candidate, Error> {
    conflict.candidates.iter().find(|candidate| candidate.id == id).ok_or_else(|| {
        let known: Vec<_> = conflict.candidates.iter().map(|c| c.id.as_str()).collect();
        let message =
            format!("'{id}' is no candidate of this conflict; they are {}", known.join(", "));
        Error::new(ErrorKind::Invalid, "unknown_candidate", message)
    })
}

/// Candidates that are merged, and resolutions that are looked at to undo one: each costs work
/// with the size of the value or of the document.
const MAX_SIDES: usize = 16;
