//! What the handles ask of an owner.

use std::sync::Arc;

use anabranch_crdt::bundle::Bundle;
use anabranch_crdt::conflict::{ConflictId, Revision};
use anabranch_crdt::document::Change;
use anabranch_crdt::ids::{AuthorName, ChangeHash, DocumentId, DocumentName};
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
    /// Documents come whole from another region; answers for each of them.
    Adopt {
        bundles: Vec<Bundle>,
        reply: Reply<Vec<Adopted>>,
    },
    Revert {
        name: DocumentName,
        heads: Vec<ChangeHash>,
        message: Message,
        precondition: Precondition,
        reply: Reply<(Option<Document>, bool)>,
    },
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
    /// Nothing more comes.
    Stop,
}

/// What settling a conflict left behind.
#[derive(Debug)]
pub(super) struct Resolved {
    pub(super) name: Option<DocumentName>,
    pub(super) conflict: anabranch_crdt::conflict::Conflict,
    pub(super) document: Option<Document>,
}
