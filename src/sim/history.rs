//! What happened in a run, as an observer outside the nodes saw it: what clients asked and were
//! answered, what nodes said to each other, what disks lost, what is there in the end.
//!
//! It holds plain numbers and text, none of the server's types of causality, because the checkers
//! judge by it what those types lead to.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;

/// The number of a client's request in its run; the change that it leads to carries it as author.
pub(crate) type CallId = u64;

/// An incarnation of a leader.
pub(crate) type OriginId = u128;

/// A document.
pub(crate) type DocumentNumber = u128;

/// How far something reaches, per origin.
pub(crate) type Reach = BTreeMap<OriginId, u64>;

/// Everything that is known of a run.
#[derive(Debug, Default)]
pub(crate) struct History {
    pub(crate) calls: BTreeMap<CallId, Call>,
    pub(crate) steps: Vec<(Duration, Step)>,
    /// The documents that clients use, with what they do to them.
    pub(crate) documents: BTreeMap<DocumentNumber, Subject>,
    pub(crate) finals: Vec<Final>,
}

/// What clients do to a document, which says how it is judged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Subject {
    pub(crate) name: String,
    pub(crate) kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// Elements are added under keys of their own, and never removed.
    Set,
    /// The same inside an object that regions may create at once.
    NestedSet,
    /// A number is counted up and down.
    Counter,
    /// Fields are assigned values that nobody else writes, and removed.
    Register,
    /// Anything, the delete of the document included.
    Wild,
}

/// One request of a client.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) session: usize,
    pub(crate) node: usize,
    pub(crate) document: DocumentNumber,
    pub(crate) intent: Intent,
    pub(crate) asked: Duration,
    pub(crate) answer: Answer,
    /// The first step of the history that happened after the question.
    pub(crate) after_step: usize,
    /// The first step of the history that happened after the answer.
    pub(crate) answered_step: usize,
    /// Whether the session showed the token of its last reply.
    pub(crate) with_token: bool,
}

/// What a client wants.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Intent {
    Read,
    /// Adds an element, which is named by the number of the call.
    Add,
    Count(i64),
    /// Assigns the number of the call, as text, to a field.
    Assign(u8),
    Erase(u8),
    Other,
    /// Changes that were made offline, by the calls with these numbers.
    Upload(Vec<CallId>),
    /// Bytes that no leader may admit.
    Attack(&'static str),
}

impl Intent {
    pub(crate) fn writes(&self) -> bool {
        !matches!(self, Self::Read)
    }
}

/// How a request ended.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Answer {
    /// It is under way, or nobody will ever say: the connection ended, or the disk is in doubt.
    Unknown,
    /// Done, and durable.
    Done,
    /// Not done, and the reason.
    Refused(&'static str),
    /// What a read showed; `None` if there is no such document.
    Shown(Option<String>),
}

/// One observation.
#[derive(Debug)]
pub(crate) enum Step {
    /// The journal of a node says that an entry is durable; the change is kept where the node
    /// admitted it.
    Durable { node: usize, entry: Logged, document: DocumentNumber, change: Option<Bytes> },
    /// A node has told somebody that so much is durable there.
    Told { node: usize, whom: Whom, upto: Vec<(OriginId, u64)> },
    /// A node has sent an entry.
    Sent { node: usize, entry: Logged },
    /// A node has stopped, and its disk is another: this is what is left.
    Replaced { node: usize, left: Reach },
    /// A node has started on the disk that it had, which holds so much.
    Opened { node: usize, held: Reach },
}

/// To whom a node has told what it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Whom {
    Client,
    Hello,
    Acknowledgement,
    Digest,
    Pull,
}

/// An entry, with the hash of all that it says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Logged {
    pub(crate) origin: OriginId,
    pub(crate) sequence: u64,
    pub(crate) content: u64,
}

/// What a node has in the end.
#[derive(Debug)]
pub(crate) struct Final {
    pub(crate) node: usize,
    /// Whether it stayed down when everything else was healed.
    pub(crate) absent: bool,
    pub(crate) log: Vec<FinalEntry>,
    pub(crate) documents: BTreeMap<DocumentNumber, FinalDocument>,
    pub(crate) conflicts: Vec<FinalConflict>,
    /// Documents with entries that are not applied.
    pub(crate) pending: Vec<DocumentNumber>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FinalEntry {
    pub(crate) origin: OriginId,
    pub(crate) sequence: u64,
    pub(crate) document: DocumentNumber,
    pub(crate) admitted: u64,
    pub(crate) content: u64,
    pub(crate) change: Bytes,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct FinalDocument {
    /// Canonical JSON, as a read shows it; `None` for one that is not there.
    pub(crate) json: Option<String>,
    pub(crate) digest: [u8; 16],
    /// The changes that the node says the document consists of.
    pub(crate) changes: Vec<[u8; 32]>,
}

/// A row of the ledger.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct FinalConflict {
    pub(crate) document: DocumentNumber,
    pub(crate) id: String,
    pub(crate) path: String,
    pub(crate) state: String,
    pub(crate) policy: String,
    /// The JSON of each candidate, `None` for a delete.
    pub(crate) candidates: Vec<Option<String>>,
    pub(crate) winner: Option<usize>,
}

impl History {
    pub(crate) fn note(&mut self, at: Duration, step: Step) {
        self.steps.push((at, step));
    }

    /// The nodes that had to agree in the end.
    pub(crate) fn present(&self) -> impl Iterator<Item = &Final> {
        self.finals.iter().filter(|last| !last.absent)
    }
}
