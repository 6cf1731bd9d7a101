//! The one public error: what kind it is tells the caller what to do.

use std::fmt;

/// What the caller can do about an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The request is wrong: correct it.
    Invalid,
    /// Nobody may do this: do something else.
    Forbidden,
    /// There is no such document, conflict or collection.
    NotFound,
    /// What was asked for was there and is not kept any longer: start from the present state.
    Gone,
    /// The request does not fit the present state: read again, then decide.
    Conflict,
    /// A precondition (`If-Match`, `If-None-Match`) did not hold: read again, then decide.
    Precondition,
    /// A limit is exceeded: send less.
    TooLarge,
    /// Too much at once: try again later.
    Overloaded,
    /// This node does not have what the session token asks for yet: try again, or elsewhere.
    Stale,
    /// The node or its disk cannot answer now: try again later.
    Unavailable,
    /// Stored bytes are damaged.
    Corrupt,
    /// A defect of this program.
    Internal,
}

/// An error with a kind, a stable code, and a message for people.
#[derive(Debug, thiserror::Error)]
pub struct Error {
    kind: ErrorKind,
    code: &'static str,
    message: String,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    /// Makes an error; `code` is stable and in `snake_case`, `message` says what to do.
    pub fn new(kind: ErrorKind, code: &'static str, message: impl Into<String>) -> Self {
        Self { kind, code, message: message.into(), source: None }
    }

    /// Adds the error behind this one.
    #[must_use]
    pub fn with_source(
        mut self,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        self.source = Some(source.into());
        self
    }

    /// Returns what the caller can do.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// Returns the stable code, such as `key_too_long`.
    #[must_use]
    pub fn code(&self) -> &'static str {
        self.code
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}
