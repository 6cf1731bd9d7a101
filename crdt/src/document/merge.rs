//! Three-way merging of JSON values, for conflicts whose sides changed different parts.
//!
//! Objects merge key by key, texts by their edits, and everything else only where no more than one
//! side changed it. The result depends on the set of sides alone, not on their order.
//!
//! # Why texts go through Automerge
//!
//! Each side becomes edits of one text, made by a writer of its own, and merging them is what
//! Automerge does all day: every insertion of every side is kept, what any side deleted is gone,
//! and insertions at one place stand one behind the other.

use std::collections::BTreeSet;

use automerge::transaction::{CommitOptions, Transactable};
use automerge::{ActorId, Automerge, AutomergeError, ObjType, ROOT, ReadDoc};
use serde_json::{Map, Value};

use super::guarded;
use crate::edit::Path;

/// Sides that do not merge.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MergeError {
    /// There is nothing to merge.
    #[error("there are no sides")]
    Nothing,
    /// Both sides changed what has no parts.
    #[error("at '{path}' the sides have different values, and {what} cannot be merged")]
    Different {
        /// Where.
        path: Path,
        /// Why not.
        what: &'static str,
    },
    /// One side removed what another one changed.
    #[error("one side removed '{0}' and another one changed it")]
    Removed(Path),
    /// The texts are so long, or so different, that comparing them would take too long.
    #[error("the texts at '{0}' are too long and too different to merge")]
    TooDifferent(Path),
}

/// Merges what several sides made of one value; `base` is what they started from, if anything.
///
/// # Errors
/// See [`MergeError`].
pub fn merge(base: Option<&Value>, sides: &[&Value]) -> Result<Value, MergeError> {
    let mut merging = Merging { steps: MAX_STEPS };
    merging.values(&Path::default(), base, sides)
}

/// A merge under way.
struct Merging {
    /// How much work may still be spent on comparing texts.
    steps: usize,
}

impl Merging {
    fn values(
        &mut self,
        path: &Path,
        base: Option<&Value>,
        sides: &[&Value],
    ) -> Result<Value, MergeError> {
        let changed = distinct(sides.iter().copied().filter(|side| Some(*side) != base));
        if let [only] = changed.as_slice() {
            return Ok((*only).clone());
        }
        let Some(first) = changed.first() else {
            return base.cloned().ok_or(MergeError::Nothing);
        };
        if let Some(texts) = all(&changed, Value::as_str) {
            return self.texts(path, base.and_then(Value::as_str), &texts).map(Value::String);
        }
        match all(&changed, Value::as_object) {
            Some(objects) => self.objects(path, base.and_then(Value::as_object), &objects),
            None => {
                let same = changed.iter().all(|side| noun(side) == noun(first));
                let what = if same { noun(first) } else { "values of different types" };
                Err(MergeError::Different { path: path.clone(), what })
            }
        }
    }

    fn objects(
        &mut self,
        path: &Path,
        base: Option<&Map<String, Value>>,
        sides: &[&Map<String, Value>],
    ) -> Result<Value, MergeError> {
        let keys: BTreeSet<&String> =
            sides.iter().chain(base.as_ref()).flat_map(|object| object.keys()).collect();
        let mut merged = Map::new();
        for key in keys {
            let before = base.and_then(|base| base.get(key));
            let changed = sides.iter().map(|side| side.get(key)).filter(|side| *side != before);
            let changed: Vec<Option<&Value>> = changed.collect();
            let written: Vec<&Value> = changed.iter().copied().flatten().collect();
            let here = path.child(key);
            let value = match (written.is_empty(), written.len() == changed.len()) {
                (true, true) => before.cloned(),
                (true, false) => None,
                (false, true) => Some(self.values(&here, before, &written)?),
                (false, false) => return Err(MergeError::Removed(here)),
            };
            merged.extend(value.map(|value| (key.clone(), value)));
        }
        Ok(Value::Object(merged))
    }

    fn texts(
        &mut self,
        path: &Path,
        base: Option<&str>,
        sides: &[&str],
    ) -> Result<String, MergeError> {
        let Some(base) = base else {
            let what = "texts that were not made from one";
            return Err(MergeError::Different { path: path.clone(), what });
        };
        let old: Vec<char> = base.chars().collect();
        let mut new: Vec<Vec<char>> = sides.iter().map(|side| side.chars().collect()).collect();
        // The writers of the sides are numbered in this order.
        new.sort_unstable();
        let (start, end) = around(&old, &new);
        let middle = |text: &[char]| -> Vec<char> {
            let end = text.len().saturating_sub(end);
            text.get(start..end).unwrap_or_default().to_vec()
        };
        let (old_middle, new): (Vec<char>, Vec<Vec<char>>) =
            (middle(&old), new.iter().map(|side| middle(side)).collect());
        let too_different = || MergeError::TooDifferent(path.clone());
        let length = new.iter().chain([&old_middle]).map(Vec::len).sum::<usize>();
        if length > MAX_CHARACTERS
            || !new.iter().all(|side| within(&old_middle, side, &mut self.steps))
        {
            return Err(too_different());
        }
        let sides: Vec<String> = new.iter().map(|side| side.iter().collect()).collect();
        let old_middle: String = old_middle.iter().collect();
        let merged = guarded(|| merged_text(&old_middle, &sides)).ok().and_then(Result::ok);
        let merged = merged.ok_or_else(too_different)?;
        let (before, after) = (old.iter().take(start), old.iter().skip(old.len() - end));
        Ok(before.copied().chain(merged.chars()).chain(after.copied()).collect())
    }
}

fn merged_text(base: &str, sides: &[String]) -> Result<String, AutomergeError> {
    let options = || CommitOptions::default().with_time(0);
    let mut merged = Automerge::new().with_actor(ActorId::from([0; 16]));
    let mut tx = merged.transaction();
    let text = tx.put_object(ROOT, "text", ObjType::Text)?;
    tx.splice_text(&text, 0, 0, base)?;
    tx.commit_with(options());
    let mut copies = Vec::new();
    for (number, side) in (1u64..).zip(sides) {
        let mut copy = merged.clone();
        copy.set_actor(ActorId::from(number.to_be_bytes()));
        let mut tx = copy.transaction();
        tx.update_text(&text, side)?;
        tx.commit_with(options());
        copies.push(copy);
    }
    for copy in &mut copies {
        merged.merge(copy)?;
    }
    merged.text(&text)
}

/// Returns how many characters all the texts have in common, at the start and at the end.
fn around(old: &[char], new: &[Vec<char>]) -> (usize, usize) {
    let shortest = new.iter().map(Vec::len).chain([old.len()]).min().unwrap_or_default();
    let common = |side: &Vec<char>| old.iter().zip(side).take_while(|(a, b)| a == b).count();
    let start = new.iter().map(common).min().unwrap_or_default();
    let reversed = |side: &Vec<char>| {
        old.iter().rev().zip(side.iter().rev()).take_while(|(a, b)| a == b).count()
    };
    let end = new.iter().map(reversed).min().unwrap_or_default();
    (start, end.min(shortest.saturating_sub(start)))
}

/// Tells whether two texts can be compared in the steps that are left, and takes those off.
///
/// This is the first half of the comparison itself (Myers, "An O(ND) difference algorithm"), which
/// costs time with the product of the lengths and the differences: nothing simpler tells how much.
fn within(old: &[char], new: &[char], steps: &mut usize) -> bool {
    let most = old.len().saturating_add(new.len());
    // How far each diagonal has come; diagonal k of -d..=d is at k + d of its round.
    let mut reached: Vec<usize> = vec![0];
    for round in 0..=most {
        let mut next = Vec::with_capacity(round.saturating_add(2));
        for (place, &from) in reached.iter().enumerate() {
            // `from` is a place in `old`; the diagonal says how far `new` is ahead of it.
            let there = from.saturating_add(round).saturating_sub(place.saturating_mul(2));
            let snake = old.iter().skip(from).zip(new.iter().skip(there));
            let equal = snake.take_while(|(a, b)| a == b).count();
            let Some(left) = steps.checked_sub(equal.saturating_add(1)) else { return false };
            *steps = left;
            if from.saturating_add(equal) >= old.len() && there.saturating_add(equal) >= new.len() {
                return true;
            }
            next.push(from.saturating_add(equal));
        }
        reached = grown(&next);
    }
    true
}

/// The starts of the next round: each diagonal is reached by a deletion from the one below, or by
/// an insertion from the one above.
fn grown(reached: &[usize]) -> Vec<usize> {
    let inserted = reached.iter().copied().map(Some).chain([None]);
    let deleted = [None].into_iter().chain(reached.iter().map(|x| Some(x.saturating_add(1))));
    inserted.zip(deleted).map(|(one, other)| one.max(other).unwrap_or_default()).collect()
}

fn distinct<'a>(values: impl Iterator<Item = &'a Value>) -> Vec<&'a Value> {
    let mut distinct: Vec<&Value> = Vec::new();
    for value in values {
        if !distinct.contains(&value) {
            distinct.push(value);
        }
    }
    distinct
}

fn all<'a, T>(values: &[&'a Value], of: impl Fn(&'a Value) -> Option<T>) -> Option<Vec<T>> {
    values.iter().map(|value| of(value)).collect()
}

fn noun(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "booleans",
        Value::Number(_) => "numbers",
        Value::String(_) => "texts",
        Value::Array(_) => "lists",
        Value::Object(_) => "objects",
    }
}

/// Work that one merge spends on comparing texts, in characters looked at: enough for two texts of
/// 1,500 characters that have nothing in common, and done in less than a second.
const MAX_STEPS: usize = 4_000_000;

/// Characters of a text and all its sides, without what all of them begin and end with; Automerge
/// takes some microseconds for each.
const MAX_CHARACTERS: usize = 1 << 18;

#[cfg(test)]
mod tests;
