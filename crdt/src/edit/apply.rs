//! Edits applied to plain JSON: what they mean, without any CRDT.
//!
//! This is the reference that an edited document has to agree with. It also tells, before a
//! document is touched, whether edits fit it.

use std::iter;

use serde_json::map::Entry;
use serde_json::{Map, Value};

use super::{Edit, EditError, Path};
use crate::json;

/// Applies edits to `value`, one after the other.
///
/// # Errors
/// [`EditError::Unfit`] names the edit by its index and says why it does not fit; `value` has
/// then been changed by the edits before it, so work on a copy.
pub fn apply(value: &mut Value, edits: &[Edit]) -> Result<(), EditError> {
    for (index, edit) in edits.iter().enumerate() {
        apply_one(value, edit)
            .map_err(|reason| EditError::Unfit(format!("edit {index}: {reason}")))?;
    }
    Ok(())
}

/// Applies one edit, or says why it does not fit and changes nothing.
pub(super) fn apply_one(root: &mut Value, edit: &Edit) -> Result<(), String> {
    match edit {
        Edit::Set { path, value } => {
            check_nesting(path, value)?;
            set(root, path, value.clone())
        }
        Edit::Remove { path } => remove(root, path),
        Edit::Insert { path, value } => {
            check_nesting(path, value)?;
            insert(root, path, value.clone())
        }
        Edit::Increment { path, by } => increment(root, path, *by),
        Edit::Splice { path, at, delete, insert } => splice(root, path, *at, *delete, insert),
    }
}

/// Returns the value at `path`, if it exists.
pub(super) fn lookup<'a>(root: &'a Value, tokens: &[String]) -> Option<&'a Value> {
    tokens.iter().try_fold(root, |value, token| match value {
        Value::Object(members) => members.get(token),
        Value::Array(items) => items.get(list_index(token)?),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => None,
    })
}

fn set(root: &mut Value, path: &Path, value: Value) -> Result<(), String> {
    let (parent, token) = parent(root, path)?;
    match parent {
        Parent::Object(members) => {
            members.insert(token.to_owned(), value);
        }
        Parent::List(items) => *element(items, token, path)? = value,
    }
    Ok(())
}

fn remove(root: &mut Value, path: &Path) -> Result<(), String> {
    let (parent, token) = parent(root, path)?;
    let gone = match parent {
        Parent::Object(members) => members.remove(token),
        Parent::List(items) => {
            list_index(token).filter(|&index| index < items.len()).map(|index| items.remove(index))
        }
    };
    gone.map(drop).ok_or_else(|| missing(path))
}

fn insert(root: &mut Value, path: &Path, value: Value) -> Result<(), String> {
    let (parent, token) = parent(root, path)?;
    let Parent::List(items) = parent else {
        return Err(format!("'{path}' is in an object, and only lists take an insert: use set"));
    };
    let count = items.len();
    let index = if token == "-" { Some(count) } else { list_index(token) };
    let index = index.ok_or_else(|| {
        format!("'{path}' does not end in an index of the list (0, 1, 2) or '-' for its end")
    })?;
    if index > count {
        return Err(format!("'{path}' is past the end of the list, which has {count} elements"));
    }
    items.insert(index, value);
    Ok(())
}

fn increment(root: &mut Value, path: &Path, by: i64) -> Result<(), String> {
    let (parent, token) = parent(root, path)?;
    match parent {
        Parent::Object(members) => match members.entry(token) {
            Entry::Vacant(place) => {
                place.insert(sum(0, by, path)?);
            }
            Entry::Occupied(mut place) => add(place.get_mut(), by, path)?,
        },
        Parent::List(items) => add(element(items, token, path)?, by, path)?,
    }
    Ok(())
}

fn add(place: &mut Value, by: i64, path: &Path) -> Result<(), String> {
    let start = json::integer(place).ok_or_else(|| match place {
        Value::Number(number) => format!("'{path}' is {number}: only integers are incremented"),
        Value::Null | Value::Bool(_) | Value::String(_) | Value::Array(_) | Value::Object(_) => {
            format!("'{path}' is {}: only integers are incremented", json::kind(place))
        }
    })?;
    *place = sum(start, by, path)?;
    Ok(())
}

fn sum(start: i64, by: i64, path: &Path) -> Result<Value, String> {
    let sum = start.checked_add(by).filter(|&sum| json::is_exact(sum));
    sum.map(Value::from).ok_or_else(|| {
        let limit = json::MAX_INTEGER;
        format!("'{path}' would leave ±{limit}, the integers that every client holds exactly")
    })
}

fn splice(
    root: &mut Value,
    path: &Path,
    at: usize,
    delete: usize,
    insert: &str,
) -> Result<(), String> {
    let (parent, token) = parent(root, path)?;
    let place = match parent {
        Parent::Object(members) => members.get_mut(token).ok_or_else(|| missing(path))?,
        Parent::List(items) => element(items, token, path)?,
    };
    let kind = json::kind(place);
    let Value::String(text) = place else {
        return Err(format!("'{path}' is {kind}: only a string is spliced"));
    };
    let end = at.checked_add(delete).and_then(|end| offset(text, end));
    let (Some(start), Some(end)) = (offset(text, at), end) else {
        let count = text.chars().count();
        return Err(format!(
            "'{path}' has {count} characters, and the splice reaches past them: at {at}, delete \
             {delete}"
        ));
    };
    text.replace_range(start..end, insert);
    Ok(())
}

/// Returns where a character begins, in bytes; the one after the last begins at the end.
fn offset(text: &str, character: usize) -> Option<usize> {
    text.char_indices().map(|(offset, _)| offset).chain(iter::once(text.len())).nth(character)
}

/// The container that holds the last token of a path.
enum Parent<'a> {
    Object(&'a mut Map<String, Value>),
    List(&'a mut Vec<Value>),
}

fn parent<'a, 'p>(root: &'a mut Value, path: &'p Path) -> Result<(Parent<'a>, &'p str), String> {
    let (token, around) = path
        .tokens()
        .split_last()
        .ok_or("the path is empty: an edit changes something inside the document")?;
    let name = || Path::from(around.to_vec());
    let mut here = root;
    for token in around {
        let next = match here {
            Value::Object(members) => members.get_mut(token),
            Value::Array(items) => list_index(token).and_then(|index| items.get_mut(index)),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => None,
        };
        here = next.ok_or_else(|| format!("'{path}' cannot be: {}", missing(&name())))?;
    }
    match here {
        Value::Object(members) => Ok((Parent::Object(members), token)),
        Value::Array(items) => Ok((Parent::List(items), token)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
            let kind = json::kind(here);
            Err(format!("'{path}' cannot be: '{}' is {kind}, not a container", name()))
        }
    }
}

fn element<'a>(items: &'a mut [Value], token: &str, path: &Path) -> Result<&'a mut Value, String> {
    list_index(token).and_then(|index| items.get_mut(index)).ok_or_else(|| missing(path))
}

fn missing(path: &Path) -> String {
    format!("'{path}' does not exist")
}

/// Reads an index as RFC 6901 writes it: decimal, without sign or leading zeros.
fn list_index(token: &str) -> Option<usize> {
    let plain = token.bytes().all(|byte| byte.is_ascii_digit());
    let shortest = token == "0" || !token.starts_with('0');
    if plain && shortest { token.parse().ok() } else { None }
}

/// Refuses what would nest deeper than anything in this crate is ready to walk through.
fn check_nesting(path: &Path, value: &Value) -> Result<(), String> {
    let limit = json::MAX_NESTING;
    if path.tokens().len().saturating_add(json::nesting(value)) > limit {
        return Err(format!("the document would be nested deeper than {limit} levels"));
    }
    Ok(())
}
