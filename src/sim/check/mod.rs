//! The checkers.
use std::any::Any;
use std::fmt;

use super::history::History;
use super::tally::Tally;

/// A promise that was broken.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Violation {
    /// Which checker found it.
    pub check: &'static str,
    /// What it found.
    pub what: String,
}

impl Violation {
    pub(crate) fn panicked(panic: &(dyn Any + Send)) -> Self {
        let text = panic.downcast_ref::<&str>().copied();
        let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
        Self { check: "panic", what: text.unwrap_or("no message").to_owned() }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.check, self.what)
    }
}

/// Judges a run by its history.
pub(crate) fn check(_history: &History, _tally: &mut Tally) -> Vec<Violation> {
    Vec::new()
}
