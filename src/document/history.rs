//! Documents at earlier points: what they were, what changed, who wrote it, and the way back.
//!
//! An owner does no more for a question about the past than to hand out a copy of the document,
//! which is cheap; the question is answered on a thread where waiting is allowed, and only a few at
//! a time, because a copy of a long history is large.

use anabranch_crdt::document::{
    Blamed, Difference, Document as Crdt, HistoryCursor, HistoryPage, differences,
};
use anabranch_crdt::edit::Path;
use anabranch_crdt::ids::{AuthorName, ChangeHash, DocumentId, DocumentName, Timestamp};
use anabranch_crdt::json;
use anabranch_crdt::message::{Act, Message};
use anabranch_crdt::policy::Policies;

use super::epoch::Sealed;
use super::loaded::{Loaded, Outcome, Scene};
use super::request::Request;
use super::{Digest, Document, Documents, Precondition, Written, shutting_down, write};
use crate::error::{Error, ErrorKind};

/// A point in the history of a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Point {
    /// These changes and everything before them.
    Heads(Vec<ChangeHash>),
    /// Every change with an effective time up to this, and everything before them.
    Time(Timestamp),
}

/// What differs between two points.
#[derive(Debug, Clone, PartialEq)]
pub struct Comparison {
    /// The heads of the first point.
    pub from: Vec<ChangeHash>,
    /// The heads of the second point.
    pub to: Vec<ChangeHash>,
    /// The places that differ.
    pub changes: Vec<Difference>,
}

/// A copy of a document, to ask about its past.
#[derive(Debug)]
pub(super) struct Replica {
    pub(super) document: Crdt,
    pub(super) sealed: Option<Sealed>,
    policies: Policies,
    conflicts: u32,
}

impl Replica {
    pub(super) fn of(loaded: &Loaded, policies: &Policies) -> Self {
        Self {
            document: loaded.document.clone(),
            sealed: loaded.closed.clone(),
            policies: policies.clone(),
            conflicts: loaded.row.conflicts,
        }
    }

    fn heads(&self, point: &Point) -> Result<Vec<ChangeHash>, Error> {
        match point {
            Point::Time(time) => Ok(self.document.heads_at(*time)),
            Point::Heads(heads) => self.document.heads_of(heads).ok_or_else(unknown_heads),
        }
    }

    pub(super) fn at(&self, id: DocumentId, point: &Point) -> Result<Option<Document>, Error> {
        let heads = self.heads(point)?;
        let value = self.document.value_at(&heads, &self.policies);
        Ok(value.map(|value| Document {
            id,
            digest: Digest(anabranch_crdt::document::digest(&heads)),
            conflicts: self.conflicts,
            json: json::canonical(&value).into(),
        }))
    }

    fn compare(&self, from: &Point, to: Option<&Point>) -> Result<Comparison, Error> {
        let from = self.heads(from)?;
        let to = to.map_or_else(|| Ok(self.document.heads()), |to| self.heads(to))?;
        let [before, after] =
            [&from, &to].map(|heads| self.document.value_at(heads, &self.policies));
        let changes = differences(before.as_ref(), after.as_ref());
        Ok(Comparison { from, to, changes })
    }
}

impl Documents {
    /// Reads a document as it was at a point, under the policies of now; `None` if it was not there
    /// then. Its conflicts are counted as of now.
    ///
    /// # Errors
    /// `NotFound`; `Invalid` with code `unknown_heads`; `Corrupt`, `Overloaded`, `Unavailable`.
    pub async fn at(&self, name: &DocumentName, point: Point) -> Result<Option<Document>, Error> {
        let id = self.current(name).await?;
        self.of_past(id, move |replica| replica.at(id, &point)).await
    }

    /// Lists up to `limit` changes of an epoch of a document, the newest unless it is given, the
    /// newest change first; under `within` only those that
    /// touched it, something in it, or something around it.
    ///
    /// # Errors
    /// `NotFound`; `Invalid` with code `unknown_cursor`; `Corrupt`, `Overloaded`, `Unavailable`.
    pub async fn history(
        &self,
        name: &DocumentName,
        epoch: Option<u32>,
        within: Option<Path>,
        from: Option<HistoryCursor>,
        limit: usize,
    ) -> Result<HistoryPage, Error> {
        let list = move |replica: &Replica| {
            let page = replica.document.history(within.as_ref(), from.as_ref(), limit);
            page.ok_or_else(|| {
                let message = "the cursor is not of this document: list again from the start";
                Error::new(ErrorKind::Invalid, "unknown_cursor", message)
            })
        };
        let id = match epoch {
            Some(epoch) => self.epoch_id(name, epoch)?,
            None => self.current(name).await?,
        };
        self.of_past(id, list).await
    }

    /// Tells what differs between two points of a document; the second is now unless it is given.
    ///
    /// # Errors
    /// `NotFound`; `Invalid` with code `unknown_heads`; `Corrupt`, `Overloaded`, `Unavailable`.
    pub async fn compare(
        &self,
        name: &DocumentName,
        from: Point,
        to: Option<Point>,
    ) -> Result<Comparison, Error> {
        self.of_past(self.current(name).await?, move |replica| replica.compare(&from, to.as_ref()))
            .await
    }

    /// Tells for everything that shows at `within`, or inside it, which change it is from.
    ///
    /// # Errors
    /// `NotFound`, `Corrupt`, `Overloaded`, `Unavailable`.
    pub async fn blame(
        &self,
        name: &DocumentName,
        within: Option<Path>,
    ) -> Result<Vec<Blamed>, Error> {
        let blame = move |replica: &Replica| match replica.document.exists() {
            true => Ok(replica.document.blame(&replica.policies, within.as_ref())),
            false => Err(write::not_found()),
        };
        self.of_past(self.current(name).await?, blame).await
    }

    /// Makes a document what it was at a point, by the fewest edits, as one ordinary change: what
    /// others write meanwhile merges with it. Returns once it is durable here.
    ///
    /// # Errors
    /// `NotFound`, also if the document was not there then; `Invalid` with code `unknown_heads`;
    /// `Precondition`, `TooLarge`, `Corrupt`, `Overloaded`, `Unavailable`.
    ///
    /// # Cancel safety
    /// A write whose future is dropped may still happen.
    pub async fn revert(
        &self,
        name: &DocumentName,
        to: Point,
        note: Option<String>,
        author: Option<AuthorName>,
        precondition: Precondition,
    ) -> Result<Written, Error> {
        super::check_writable(&name.collection)?;
        let id = self.current(name).await?;
        let heads = self.of_past(id, move |replica| replica.heads(&to)).await?;
        let message = Message { act: Act::Revert, author, note };
        let name = name.clone();
        let ask = |reply| Request::Revert { name, heads, message, precondition, reply };
        let ((document, created), position) = self.ask_to_write(id, ask).await?;
        Ok(Written { document, created, position })
    }

    /// Answers a question about the past of a document that has a history.
    async fn of_past<T: Send + 'static>(
        &self,
        id: DocumentId,
        answer: impl FnOnce(&Replica) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let held = self.past.clone().acquire_owned().await.map_err(|_| shutting_down())?;
        let (replica, _) = self.ask(id, |reply| Request::Replica { id, reply }).await?;
        if replica.document.changes() == 0 {
            return Err(write::not_found());
        }
        let answered = tokio::task::spawn_blocking(move || {
            let _held = held;
            answer(&replica)
        });
        answered.await.map_err(|error| {
            let message = "a question about the past of a document was not answered";
            Error::new(ErrorKind::Internal, "history_failed", message).with_source(error)
        })?
    }
}

/// Goes back to a point; returns the document after it, and whether that made it.
pub(super) fn revert(
    loaded: &mut Loaded,
    scene: Scene<'_>,
    heads: &[ChangeHash],
    precondition: &Precondition,
    message: Message,
) -> Result<((Option<Document>, bool), Outcome), Error> {
    write::check(loaded, precondition)?;
    let created = loaded.value.is_none();
    let edits = loaded.document.edits_back_to(heads, scene.policies).ok_or_else(was_not_there)?;
    let outcome = write::apply(loaded, scene, &edits, None, message)?;
    Ok(((loaded.shown(), created), outcome))
}

fn unknown_heads() -> Error {
    let message = "the document has no such change, or this region has not heard of it yet: \
                   its history lists those that it has";
    Error::new(ErrorKind::Invalid, "unknown_heads", message)
}

fn was_not_there() -> Error {
    let message = "the document was not there at that point: delete it instead";
    Error::new(ErrorKind::NotFound, "document_not_found", message)
}
