//! The members of one edit or operation of a request, and the messages about what is wrong there.

use serde_json::{Map, Value};

use super::{EditError, MAX_EDITS, Path};
use crate::json;

/// The members of one edit or one operation, with its place in the request.
#[derive(Debug, Clone, Copy)]
pub(super) struct Members<'a> {
    noun: &'static str,
    index: usize,
    members: &'a Map<String, Value>,
}

impl<'a> Members<'a> {
    /// Reads the list that a request is: every element an object, and not too many of them.
    pub(super) fn list(
        noun: &'static str,
        body: &'a Value,
    ) -> Result<impl Iterator<Item = Result<Self, EditError>>, EditError> {
        let items = body.as_array().ok_or_else(|| {
            let kind = json::kind(body);
            EditError::Malformed(format!("the body is {kind}: send a list of {noun}s"))
        })?;
        if items.len() > MAX_EDITS {
            let count = items.len();
            return Err(EditError::Malformed(format!(
                "the body has {count} {noun}s, at most {MAX_EDITS} are taken: send several requests"
            )));
        }
        Ok(items.iter().enumerate().map(move |(index, item)| match item.as_object() {
            Some(members) => Ok(Self { noun, index, members }),
            None => {
                let kind = json::kind(item);
                Err(EditError::Malformed(format!("{noun} {index} is {kind}, not an object")))
            }
        }))
    }

    /// Returns the place in the request, from zero.
    pub(super) fn index(self) -> usize {
        self.index
    }

    /// Makes the error of an edit that cannot be read.
    pub(super) fn malformed(self, reason: impl std::fmt::Display) -> EditError {
        EditError::Malformed(format!("{} {}: {reason}", self.noun, self.index))
    }

    /// Makes the error of an edit that does not fit the document.
    pub(super) fn unfit(self, reason: impl std::fmt::Display) -> EditError {
        EditError::Unfit(format!("{} {}: {reason}", self.noun, self.index))
    }

    /// Returns a member that may be absent.
    pub(super) fn optional(self, name: &str) -> Option<&'a Value> {
        self.members.get(name)
    }

    /// Returns a member that has to be there.
    pub(super) fn value(self, name: &str) -> Result<&'a Value, EditError> {
        self.optional(name).ok_or_else(|| self.malformed(format_args!("'{name}' is missing")))
    }

    /// Returns a member that is a string.
    pub(super) fn text(self, name: &str) -> Result<&'a str, EditError> {
        let value = self.value(name)?;
        value.as_str().ok_or_else(|| {
            let kind = json::kind(value);
            self.malformed(format_args!("'{name}' is {kind}, not a string"))
        })
    }

    /// Returns a member that is a JSON pointer.
    pub(super) fn path(self, name: &str) -> Result<Path, EditError> {
        self.text(name)?.parse().map_err(|error| self.malformed(error))
    }

    /// Refuses every member that is not among `known`.
    pub(super) fn only(self, op: &str, known: &[&str]) -> Result<(), EditError> {
        match self.members.keys().find(|name| !known.contains(&name.as_str())) {
            None => Ok(()),
            Some(name) => Err(self.malformed(format_args!(
                "'{name}' is no member of '{op}', which has {}",
                known.join(", ")
            ))),
        }
    }
}
