//! JSON merge patches (RFC 7396).

use serde_json::{Map, Value};

use super::difference::Differ;
use super::{Edit, EditError};
use crate::json;

/// Turns a JSON merge patch (RFC 7396) into the fewest edits of `current`; anything but an
/// object counts there as an empty document.
///
/// # Errors
/// [`EditError::Malformed`] when the patch is no object.
pub fn merge_patch(current: &Value, patch: &Value) -> Result<Vec<Edit>, EditError> {
    let patch = patch.as_object().ok_or_else(|| {
        let kind = json::kind(patch);
        EditError::Malformed(format!(
            "the merge patch is {kind}: send an object with the members that change"
        ))
    })?;
    let mut differ = Differ::default();
    merge(&mut differ, current.as_object().unwrap_or(&Map::new()), patch);
    Ok(differ.into_edits())
}

fn merge(differ: &mut Differ, current: &Map<String, Value>, patch: &Map<String, Value>) {
    for (key, value) in patch {
        differ.enter(key);
        match (current.get(key), value) {
            (None, Value::Null) => {}
            (Some(_), Value::Null) => differ.remove(),
            (Some(Value::Object(current)), Value::Object(patch)) => merge(differ, current, patch),
            (_, Value::Object(patch)) => differ.set(Value::Object(without_nulls(patch))),
            (None, value) => differ.set(value.clone()),
            (Some(current), value) => differ.change(current, value),
        }
        differ.leave();
    }
}

/// Returns what a patch makes of nothing; nulls inside lists are values and stay.
fn without_nulls(patch: &Map<String, Value>) -> Map<String, Value> {
    let mut members = Map::new();
    for (key, value) in patch {
        match value {
            Value::Null => {}
            Value::Object(inner) => {
                members.insert(key.clone(), Value::Object(without_nulls(inner)));
            }
            Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
                members.insert(key.clone(), value.clone());
            }
        }
    }
    members
}
