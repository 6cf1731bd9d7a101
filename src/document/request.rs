//! What the handles ask of an owner.

use std::sync::Arc;

use anabranch_crdt::bundle::Bundle;
use anabranch_crdt::conflict::{ConflictId, Revision};
use anabranch_crdt::document::Change;
use anabranch_crdt::ids::{
    AuthorName, ChangeHash, CollectionName, DocumentId, DocumentName, Timestamp,
};
use anabranch_crdt::message::Message;
use bytes::Bytes;
use tokio::sync::oneshot;

use super::bundles::Adopted;
use super::history::Replica;
use super::redecide::{Reach, Redecided};
use super::resolve::{Batch, Settled};
use super::{Document, NamedConflict, Precondition, Settling, Write};
use crate::error::Error;
use crate::journal::Position;

/// Where the answer goes, once everything it tells of is durable.
pub(super) type Reply<T> = oneshot::Sender<Answer<T>>;

/// An answer, and what is durable with it.
pub(super) type Answer<T> = Result<(T, Arc<Position>), Error>;

/// Who asked for something, and why.
pub(super) type Asked = (Option<AuthorName>, Option<String>);

/// One request to the owner of a document.
#[derive(Debug)]
pub(super) enum Request {
    Write {
        name: DocumentName,
        write: Write,
        author: Option<AuthorName>,
        precondition: Precondition,
        reply: Reply<(Option<Document>, bool)>,
    },
    Settle {
        document: DocumentId,
        conflict: ConflictId,
        settling: Settling,
        expected: Option<Revision>,
        note: Option<String>,
        author: Option<AuthorName>,
        reply: Reply<Resolved>,
    },
    SettleAll {
        document: DocumentId,
        conflicts: Vec<NamedConflict>,
        batch: Arc<Batch>,
        reply: Reply<Vec<Settled>>,
    },
    Admit {
        name: DocumentName,
        changes: Vec<Bytes>,
        reply: Reply<()>,
    },
    Read {
        id: DocumentId,
        reply: Reply<Option<Document>>,
    },
    ChangesSince {
        id: DocumentId,
        heads: Vec<ChangeHash>,
        reply: Reply<Vec<Change>>,
    },
    Replica {
        id: DocumentId,
        reply: Reply<Replica>,
    },
    /// Something about a document as a whole.
    Whole(Whole),
    Revert {
        name: DocumentName,
        heads: Vec<ChangeHash>,
        message: Message,
        precondition: Precondition,
        reply: Reply<(Option<Document>, bool)>,
    },
    /// To close an epoch of a document, or about what is left of one.
    Epoch(EpochRequest),
    /// Settled conflicts are old enough to be dropped; answers how many were.
    Forget {
        document: DocumentId,
        conflicts: Vec<ConflictId>,
        reply: Reply<usize>,
    },
    /// Starts a document with a change that every region makes alike, unless there is one already.
    Seed {
        name: DocumentName,
        change: Change,
        reply: Reply<bool>,
    },
    /// The settings of these documents are others than those they were decided by; answers once
    /// that, and everything that was asked for before, is durable.
    Redecide {
        documents: Vec<DocumentId>,
        reach: Reach,
        reply: Reply<Redecided>,
    },
    /// Entries of other regions are durable; their documents are to be brought up to date.
    Refresh {
        documents: Vec<DocumentId>,
    },
    /// This leader admits changes now: what waited for that is to be looked up on disk.
    Look,
    /// Nothing more comes.
    Stop,
}

/// A request about documents as a whole, which travel or are saved.
#[derive(Debug)]
pub(super) enum Whole {
    /// What someone lacks of a document.
    Export {
        id: DocumentId,
        have: Vec<ChangeHash>,
        reply: Reply<Bundle>,
    },
    Heads {
        id: DocumentId,
        reply: Reply<Vec<ChangeHash>>,
    },
    /// A document needs entries of the log; snapshots are taken if that saves room.
    Save {
        id: DocumentId,
        reply: Reply<bool>,
    },
    /// Documents come whole from another region; answers for each of them.
    Adopt {
        bundles: Vec<Bundle>,
        reply: Reply<Vec<Adopted>>,
    },
}

/// What settling a conflict left behind.
#[derive(Debug)]
pub(super) struct Resolved {
    pub(super) name: Option<DocumentName>,
    pub(super) conflict: anabranch_crdt::conflict::Conflict,
    pub(super) document: Option<Document>,
}

/// One request about the epochs of a document.
#[derive(Debug)]
pub(super) enum EpochRequest {
    Undelete {
        name: DocumentName,
        message: Message,
        precondition: Precondition,
        reply: Reply<(Option<Document>, bool)>,
    },
    /// Answers how many changes the closed epoch has.
    Compact { name: DocumentName, by: Asked, precondition: Precondition, reply: Reply<u64> },
    /// Answers whether the document was purged; one that was deleted after `before` is not.
    Purge { document: DocumentId, by: Asked, before: Option<Timestamp>, reply: Reply<bool> },
    /// Drops what is left of a purged document; answers whether it was.
    Empty { document: DocumentId, reply: Reply<bool> },
    /// Looks again for late changes of a closed document.
    CarryOver { id: DocumentId, reply: Reply<()> },
}

impl EpochRequest {
    fn place(&self) -> Place<'_> {
        match self {
            Self::Undelete { name, .. } | Self::Compact { name, .. } => {
                Place::Of(Some(&name.collection), DocumentId::from(name))
            }
            Self::Purge { document, .. } | Self::Empty { document, .. } => {
                Place::Of(None, *document)
            }
            Self::CarryOver { id, .. } => Place::Of(None, *id),
        }
    }

    fn refuse(self, error: Error) {
        match self {
            Self::Undelete { reply, .. } => drop(reply.send(Err(error))),
            Self::Compact { reply, .. } => drop(reply.send(Err(error))),
            Self::Purge { reply, .. } | Self::Empty { reply, .. } => drop(reply.send(Err(error))),
            Self::CarryOver { reply, .. } => drop(reply.send(Err(error))),
        }
    }
}

/// What a request is about.
#[derive(Debug)]
pub(super) enum Place<'a> {
    /// A document, and its collection if the request names it.
    Of(Option<&'a CollectionName>, DocumentId),
    /// Many documents, and all that was asked before.
    Everywhere,
    /// Documents that are to be brought up to date.
    Refresh,
}

impl Request {
    pub(super) fn place(&self) -> Place<'_> {
        match self {
            Self::Write { name, .. }
            | Self::Admit { name, .. }
            | Self::Revert { name, .. }
            | Self::Seed { name, .. } => Place::Of(Some(&name.collection), DocumentId::from(name)),
            Self::Settle { document, .. }
            | Self::SettleAll { document, .. }
            | Self::Forget { document, .. } => Place::Of(None, *document),
            Self::Read { id, .. } | Self::ChangesSince { id, .. } | Self::Replica { id, .. } => {
                Place::Of(None, *id)
            }
            Self::Whole(
                Whole::Export { id, .. } | Whole::Heads { id, .. } | Whole::Save { id, .. },
            ) => Place::Of(None, *id),
            Self::Whole(Whole::Adopt { .. }) | Self::Redecide { .. } | Self::Look | Self::Stop => {
                Place::Everywhere
            }
            Self::Refresh { .. } => Place::Refresh,
            Self::Epoch(request) => request.place(),
        }
    }

    /// Answers with an error.
    pub(super) fn refuse(self, error: Error) {
        // Nobody may be waiting any more, here as everywhere.
        match self {
            Self::Write { reply, .. } | Self::Revert { reply, .. } => drop(reply.send(Err(error))),
            Self::Settle { reply, .. } => drop(reply.send(Err(error))),
            Self::SettleAll { reply, .. } => drop(reply.send(Err(error))),
            Self::Admit { reply, .. } => drop(reply.send(Err(error))),
            Self::Read { reply, .. } => drop(reply.send(Err(error))),
            Self::ChangesSince { reply, .. } => drop(reply.send(Err(error))),
            Self::Replica { reply, .. } => drop(reply.send(Err(error))),
            Self::Whole(Whole::Export { reply, .. }) => drop(reply.send(Err(error))),
            Self::Whole(Whole::Heads { reply, .. }) => drop(reply.send(Err(error))),
            Self::Whole(Whole::Save { reply, .. }) => drop(reply.send(Err(error))),
            Self::Whole(Whole::Adopt { reply, .. }) => drop(reply.send(Err(error))),
            Self::Forget { reply, .. } => drop(reply.send(Err(error))),
            Self::Seed { reply, .. } => drop(reply.send(Err(error))),
            Self::Redecide { reply, .. } => drop(reply.send(Err(error))),
            Self::Epoch(request) => request.refuse(error),
            Self::Refresh { .. } | Self::Look | Self::Stop => {}
        }
    }
}
