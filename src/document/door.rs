//! The door for writes: open, or closed because of where this region stands in the cluster.
//!
//! What a client wants written is refused while the door is closed. What follows from entries of
//! other regions is not: replication goes on as long as there are links.

use std::sync::{Arc, PoisonError, RwLock};

use super::request::{EpochRequest, Request};
use crate::error::{Error, ErrorKind};

/// Whether this node takes writes; clones share the door.
#[derive(Debug, Clone, Default)]
pub struct Door(Arc<RwLock<Option<Closed>>>);

/// Why the door is closed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Closed {
    /// A stable code.
    pub code: &'static str,
    /// Why, and where to write instead.
    pub message: String,
}

impl Door {
    /// Opens the door, or closes it with a reason.
    pub fn set(&self, closed: Option<Closed>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = closed;
    }

    /// Returns why the door is closed, if it is.
    #[must_use]
    pub fn closed(&self) -> Option<Closed> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Lets a request pass, if it is no write or the door is open.
    pub(super) fn check(&self, request: &Request) -> Result<(), Error> {
        if !is_write(request) {
            return Ok(());
        }
        self.closed().map_or(Ok(()), |Closed { code, message }| {
            Err(Error::new(ErrorKind::Unavailable, code, message))
        })
    }
}

/// Tells whether a request is somebody's wish to change a document.
fn is_write(request: &Request) -> bool {
    match request {
        Request::Write { .. }
        | Request::Settle { .. }
        | Request::SettleAll { .. }
        | Request::Admit { .. }
        | Request::Revert { .. }
        | Request::Epoch(
            EpochRequest::Undelete { .. }
            | EpochRequest::Compact { .. }
            | EpochRequest::Purge { before: None, .. },
        ) => true,
        // What has to be cleaned up is no wish of anybody.
        Request::Epoch(
            EpochRequest::Purge { .. }
            | EpochRequest::Empty { .. }
            | EpochRequest::CarryOver { .. },
        )
        | Request::Read { .. }
        | Request::ChangesSince { .. }
        | Request::Replica { .. }
        | Request::Forget { .. }
        | Request::Whole(_)
        | Request::Seed { .. }
        | Request::Redecide { .. }
        | Request::Refresh { .. }
        | Request::Look
        | Request::Stop => false,
    }
}
