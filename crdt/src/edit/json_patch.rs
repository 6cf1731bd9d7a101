//! JSON patches (RFC 6902).

use serde_json::Value;

use super::apply::{apply_one, lookup};
use super::members::Members;
use super::{Edit, EditError, Path, difference};
use crate::json;

/// Turns a JSON patch (RFC 6902) into edits of `current`.
///
/// Each operation sees what the ones before it did. A patch that replaces the whole document
/// becomes the [`difference`] to the new one, which has to be an object.
///
/// # Errors
/// [`EditError`] names the operation by its index and says what is wrong with it.
pub fn json_patch(current: &Value, patch: &Value) -> Result<Vec<Edit>, EditError> {
    let operations = Members::list("operation", patch)?;
    let mut draft = Draft { value: current.clone(), edits: Vec::new(), copied: 0 };
    for members in operations {
        draft.operate(members?)?;
    }
    Ok(draft.edits)
}

/// The document as the operations so far leave it, and the edits that lead there.
struct Draft {
    value: Value,
    edits: Vec<Edit>,
    copied: usize,
}

impl Draft {
    fn operate(&mut self, members: Members<'_>) -> Result<(), EditError> {
        let op = members.text("op")?;
        let path = members.path("path")?;
        let done = match op {
            "add" => self.add(path, members.value("value")?.clone()),
            "remove" => self.remove(path),
            "replace" => self.replace(path, members.value("value")?.clone()),
            "move" => self.relocate(&members.path("from")?, path),
            "copy" => self.copy(&members.path("from")?, path),
            "test" => return self.test(members, &path),
            other => {
                return Err(members.malformed(format_args!(
                    "'{other}' is no op: write add, remove, replace, move, copy or test"
                )));
            }
        };
        done.map_err(|reason| members.unfit(reason))
    }

    fn add(&mut self, path: Path, value: Value) -> Result<(), String> {
        let Some((_, around)) = path.tokens().split_last() else {
            return self.replace_whole(value);
        };
        match lookup(&self.value, around) {
            Some(Value::Array(_)) => self.push(Edit::Insert { path, value }),
            _ => self.push(Edit::Set { path, value }),
        }
    }

    fn remove(&mut self, path: Path) -> Result<(), String> {
        if path.is_root() {
            return Err("a patch cannot remove the whole document: send DELETE".to_owned());
        }
        self.push(Edit::Remove { path })
    }

    fn replace(&mut self, path: Path, value: Value) -> Result<(), String> {
        if path.is_root() {
            return self.replace_whole(value);
        }
        self.existing(&path)?;
        self.push(Edit::Set { path, value })
    }

    fn relocate(&mut self, from: &Path, path: Path) -> Result<(), String> {
        if from.is_around(&path) {
            return Err(format!("'{from}' cannot move into itself, to '{path}'"));
        }
        if *from == path {
            return self.existing(from).map(drop);
        }
        let value = self.take_copy(from)?;
        if !path.is_root() {
            self.push(Edit::Remove { path: from.clone() })?;
        }
        self.add(path, value)
    }

    fn copy(&mut self, from: &Path, path: Path) -> Result<(), String> {
        let value = self.take_copy(from)?;
        self.add(path, value)
    }

    fn test(&self, members: Members<'_>, path: &Path) -> Result<(), EditError> {
        let expected = members.value("value")?;
        let index = members.index();
        let found = match lookup(&self.value, path.tokens()) {
            Some(value) if json::same(value, expected) => return Ok(()),
            Some(_) => "another value is there",
            None => "nothing is there",
        };
        Err(EditError::TestFailed(format!("'{path}' (operation {index}): {found}")))
    }

    fn existing(&self, path: &Path) -> Result<&Value, String> {
        lookup(&self.value, path.tokens()).ok_or_else(|| format!("'{path}' does not exist"))
    }

    /// Copies a value out of the document, as long as the patch has not copied too much: copies
    /// of copies would double the document with every operation.
    fn take_copy(&mut self, from: &Path) -> Result<Value, String> {
        let value = self.existing(from)?.clone();
        self.copied = self.copied.saturating_add(weight(&value));
        if self.copied > MAX_COPIED_BYTES {
            return Err(format!("the patch copies and moves more than {MAX_COPIED_BYTES} bytes"));
        }
        Ok(value)
    }

    fn replace_whole(&mut self, value: Value) -> Result<(), String> {
        if !value.is_object() {
            let kind = json::kind(&value);
            return Err(format!("the whole document cannot become {kind}, only an object"));
        }
        self.edits.extend(difference(&self.value, &value));
        self.value = value;
        Ok(())
    }

    fn push(&mut self, edit: Edit) -> Result<(), String> {
        apply_one(&mut self.value, &edit)?;
        self.edits.push(edit);
        Ok(())
    }
}

/// Estimates how many bytes a value takes in memory.
fn weight(value: &Value) -> usize {
    let own = size_of::<Value>();
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => own,
        Value::String(text) => own + text.len(),
        Value::Array(items) => items.iter().map(weight).fold(own, usize::saturating_add),
        Value::Object(members) => members
            .iter()
            .map(|(key, value)| size_of::<String>() + key.len() + weight(value))
            .fold(own, usize::saturating_add),
    }
}

/// The most that the `copy` and `move` operations of one patch may copy, in bytes of memory.
const MAX_COPIED_BYTES: usize = 64 * 1024 * 1024;
