//! Typed edits: what a request wants changed, before any document is touched.
//!
//! Every way to write a document over HTTP ends in a list of [`Edit`]s: a whole-document `PUT` as
//! the minimal difference to the current value, the two standard patch formats by their own rules,
//! and intent-preserving edits as they are.

use std::fmt;
use std::str::FromStr;

use serde_json::Value;

pub use apply::apply;
pub use difference::difference;
pub use intent::parse_edits;
pub use json_patch::json_patch;
pub use merge_patch::merge_patch;

mod apply;
mod difference;
mod intent;
mod json_patch;
mod members;
mod merge_patch;

/// The most edits of one request, and the most operations of one JSON patch.
pub const MAX_EDITS: usize = 10_000;

/// A place in a JSON document, as the tokens of a JSON pointer (RFC 6901).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Path(Vec<String>);

impl Path {
    /// Returns the tokens, unescaped.
    #[must_use]
    pub fn tokens(&self) -> &[String] {
        &self.0
    }

    /// Returns the tokens, unescaped.
    #[must_use]
    pub fn into_tokens(self) -> Vec<String> {
        self.0
    }

    /// Tells whether this is the path of the whole document.
    #[must_use]
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// Tells whether this is the path of a container around `inner`, however far inside that is.
    #[must_use]
    pub fn is_around(&self, inner: &Self) -> bool {
        self.0.len() < inner.0.len() && inner.0.starts_with(&self.0)
    }

    /// Returns the path of the child `token`.
    #[must_use]
    pub fn child(&self, token: impl Into<String>) -> Self {
        let mut tokens = self.0.clone();
        tokens.push(token.into());
        Self(tokens)
    }
}

impl From<Vec<String>> for Path {
    fn from(tokens: Vec<String>) -> Self {
        Self(tokens)
    }
}

impl FromStr for Path {
    type Err = PathError;

    fn from_str(text: &str) -> Result<Self, PathError> {
        if text.is_empty() {
            return Ok(Self::default());
        }
        let rest = text.strip_prefix('/').ok_or_else(|| PathError(text.to_owned()))?;
        let unescape = |token: &str| {
            let valid = token.split('~').skip(1).all(|s| s.starts_with(['0', '1']));
            valid.then(|| token.replace("~1", "/").replace("~0", "~"))
        };
        let tokens: Option<Vec<_>> = rest.split('/').map(unescape).collect();
        tokens.map(Self).ok_or_else(|| PathError(text.to_owned()))
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0
            .iter()
            .try_for_each(|token| write!(f, "/{}", token.replace('~', "~0").replace('/', "~1")))
    }
}

/// The text is no JSON pointer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "'{0}' is no JSON pointer: it is empty or starts with '/', and '~' stands only in ~0 and ~1"
)]
pub struct PathError(String);

/// One change to a document, applied in order with its neighbours, all or none.
#[derive(Debug, Clone, PartialEq)]
pub enum Edit {
    /// Writes `value` at a key of an object (new or not) or over an existing list element.
    Set {
        /// Where.
        path: Path,
        /// What.
        value: Value,
    },
    /// Removes a key of an object or an element of a list, which must exist.
    Remove {
        /// Where.
        path: Path,
    },
    /// Inserts `value` into a list before the index that ends the path; the length of the list or
    /// `-` appends.
    Insert {
        /// Where.
        path: Path,
        /// What.
        value: Value,
    },
    /// Adds `by` to a counter; a missing field becomes a counter that starts at zero, an integer
    /// becomes a counter that starts at its value.
    Increment {
        /// Where.
        path: Path,
        /// How much; may be negative.
        by: i64,
    },
    /// Replaces `delete` characters from character `at` of a text by `insert`; a string that is
    /// not yet a text becomes one. Characters are Unicode scalar values.
    Splice {
        /// Where.
        path: Path,
        /// The first character, from zero.
        at: usize,
        /// How many characters go.
        delete: usize,
        /// What comes in their place.
        insert: String,
    },
}

/// A patch or an edit that cannot be read, or does not fit the document.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EditError {
    /// The body is no list of edits or operations; the message says where and why.
    #[error("{0}")]
    Malformed(String),
    /// A path of the edit does not exist, or has another type; the message says which.
    #[error("{0}")]
    Unfit(String),
    /// A `test` operation of a JSON patch found another value; the message says which and where.
    #[error("test failed at {0}")]
    TestFailed(String),
}

#[cfg(test)]
mod tests;
