//! Intent-preserving edits, as a request writes them.

use serde_json::Value;

use super::members::Members;
use super::{Edit, EditError, Path};
use crate::json;

/// Reads the body of an `application/vnd.anabranch.edits+json` request: a list of at most
/// [`MAX_EDITS`](super::MAX_EDITS) objects.
///
/// | `op` | other members |
/// |---|---|
/// | `set` | `path`, `value` |
/// | `remove` | `path` |
/// | `insert` | `path` (its last token is an index or `-`), `value` |
/// | `increment` | `path`, `by` (an integer, 1 if absent) |
/// | `splice` | `path`, `at`, `delete` (0 if absent), `insert` (nothing if absent) |
///
/// # Errors
/// [`EditError::Malformed`] names the edit by its index and says what is wrong with it.
pub fn parse_edits(body: &Value) -> Result<Vec<Edit>, EditError> {
    Members::list("edit", body)?.map(|members| parse_edit(members?)).collect()
}

fn parse_edit(members: Members<'_>) -> Result<Edit, EditError> {
    match members.text("op")? {
        "set" => {
            members.only("set", &["op", "path", "value"])?;
            Ok(Edit::Set { path: inner_path(members)?, value: members.value("value")?.clone() })
        }
        "remove" => {
            members.only("remove", &["op", "path"])?;
            Ok(Edit::Remove { path: inner_path(members)? })
        }
        "insert" => {
            members.only("insert", &["op", "path", "value"])?;
            Ok(Edit::Insert { path: inner_path(members)?, value: members.value("value")?.clone() })
        }
        "increment" => {
            members.only("increment", &["op", "path", "by"])?;
            Ok(Edit::Increment { path: inner_path(members)?, by: step(members)? })
        }
        "splice" => parse_splice(members),
        other => Err(members.malformed(format_args!(
            "'{other}' is no op: write set, remove, insert, increment or splice"
        ))),
    }
}

fn parse_splice(members: Members<'_>) -> Result<Edit, EditError> {
    members.only("splice", &["op", "path", "at", "delete", "insert"])?;
    let insert = members.optional("insert").map(|_| members.text("insert")).transpose()?;
    Ok(Edit::Splice {
        path: inner_path(members)?,
        at: count(members, "at", members.value("at")?)?,
        delete: members
            .optional("delete")
            .map_or(Ok(0), |value| count(members, "delete", value))?,
        insert: insert.unwrap_or_default().to_owned(),
    })
}

fn inner_path(members: Members<'_>) -> Result<Path, EditError> {
    let path = members.path("path")?;
    if path.is_root() {
        return Err(members.malformed(
            "'path' is empty: an edit changes something inside the document, PUT replaces it whole",
        ));
    }
    Ok(path)
}

fn step(members: Members<'_>) -> Result<i64, EditError> {
    let Some(value) = members.optional("by") else { return Ok(1) };
    json::integer(value).filter(|&by| json::is_exact(by)).ok_or_else(|| {
        let limit = json::MAX_INTEGER;
        members.malformed(format_args!("'by' is no integer between -{limit} and {limit}"))
    })
}

fn count(members: Members<'_>, name: &str, value: &Value) -> Result<usize, EditError> {
    json::integer(value).and_then(|count| usize::try_from(count).ok()).ok_or_else(|| {
        members.malformed(format_args!("'{name}' is no number of characters from zero"))
    })
}
