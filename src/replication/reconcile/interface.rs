//! The words between reconciliation and the shell that executes it.

use anabranch_crdt::bundle::{Bundle, IdRange};
use anabranch_crdt::ids::{ChangeHash, DocumentId, RegionName, Timestamp};
use anabranch_crdt::version::VersionVector;

use super::range::DocumentDigest;
use crate::replication::Ticket;

/// Names a request for documents within its run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct BatchNumber(pub u32);

/// A document that is asked for, and what the asker has of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Want {
    /// The document.
    pub document: DocumentId,
    /// Its heads at the asker; none if it has none, or cannot read them.
    pub have: Vec<ChangeHash>,
}

/// Names what an operator asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct RequestId(pub u64);

/// Whether what is broken is repaired.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Repair {
    /// It is told, and left as it is.
    Tell,
    /// Both replicas are given what they lack.
    Mend,
}

/// What happened.
#[derive(Debug, Clone)]
pub enum ReconcileInput {
    /// A [`ReconcileEffect::Digests`] is answered.
    Digests {
        /// The ticket of the effect.
        ticket: Ticket,
        /// The documents from the start of the range, in order.
        digests: Vec<DocumentDigest>,
        /// Whether the range holds more.
        more: bool,
    },
    /// A [`ReconcileEffect::Heads`] is answered, with every document that was asked for.
    Heads {
        /// The ticket of the effect.
        ticket: Ticket,
        /// The documents with their heads.
        heads: Vec<Want>,
    },
    /// A [`ReconcileEffect::Export`] is answered, perhaps in part.
    Exported {
        /// The ticket of the effect.
        ticket: Ticket,
        /// What was asked for.
        bundles: Vec<Bundle>,
        /// Documents that are not here.
        absent: Vec<DocumentId>,
        /// Documents that cannot be read.
        unreadable: Vec<DocumentId>,
    },
    /// A [`ReconcileEffect::Adopt`] is durable.
    Adopted {
        /// The ticket of the effect.
        ticket: Ticket,
        /// Documents of which there is more to come, because a bundle did not hold it all.
        partial: Vec<DocumentId>,
        /// Documents that could not be adopted; the others are.
        refused: Vec<DocumentId>,
    },
    /// A [`ReconcileEffect::Raise`] is durable (it is in the vector of the `Committed` before).
    Raised {
        /// The ticket of the effect.
        ticket: Ticket,
    },
    /// An effect could not be carried out.
    Failed {
        /// The ticket of the effect.
        ticket: Ticket,
        /// Why.
        reason: String,
    },
    /// How far back the own log does not go any more.
    Floors {
        /// Per origin the last entry that may be gone.
        floors: VersionVector,
    },
    /// Own documents that cannot be read whole.
    Damaged {
        /// The documents.
        documents: Vec<DocumentId>,
    },
    /// An operator wants replicas compared now.
    Verify {
        /// What the reports are named by.
        request: RequestId,
        /// With whom; with every region if none is named.
        peer: Option<RegionName>,
        /// Whether what is broken is repaired.
        repair: Repair,
    },
}

/// What to do.
#[derive(Debug, Clone)]
pub enum ReconcileEffect {
    /// Read the digests of documents in a range, from its start on.
    Digests {
        /// To answer with.
        ticket: Ticket,
        /// The range.
        range: IdRange,
        /// At most so many.
        limit: usize,
    },
    /// Read the heads of documents, with every entry applied that can be.
    Heads {
        /// To answer with.
        ticket: Ticket,
        /// The documents.
        documents: Vec<DocumentId>,
    },
    /// Read what of documents someone lacks who has these heads.
    Export {
        /// To answer with.
        ticket: Ticket,
        /// The documents.
        wants: Vec<Want>,
        /// At most so many bytes of bundles, but one change at least.
        bytes: usize,
    },
    /// Unite own documents with these, durably.
    Adopt {
        /// To answer with.
        ticket: Ticket,
        /// The documents.
        bundles: Vec<Bundle>,
    },
    /// Take note, durably, that everything up to a vector is here.
    Raise {
        /// To answer with.
        ticket: Ticket,
        /// The vector.
        vector: VersionVector,
    },
    /// Raise an alarm: two replicas are not equal although they should be.
    Alarm(BrokenDocument),
}

/// Which replica of a document lacks something that its version vector claims.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lacking {
    /// That of this node.
    Here,
    /// That of the peer.
    There,
    /// The peer's cannot be read.
    Unreadable,
}

/// A document of which a replica is broken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BrokenDocument {
    /// The document.
    pub document: DocumentId,
    /// The region that it was compared with.
    pub peer: RegionName,
    /// Whose replica is broken.
    pub lacking: Lacking,
    /// How many changes it lacks at least.
    pub changes: u64,
    /// When that was found, by the wall clock.
    pub found: Timestamp,
    /// When it was found to be equal again.
    pub repaired: Option<Timestamp>,
}

/// How a comparison with one region went, or how far it is.
#[derive(Debug, Clone, PartialEq)]
pub struct VerifyReport {
    /// What asked for it; `None` for one that began by itself.
    pub request: Option<RequestId>,
    /// The region.
    pub region: RegionName,
    /// Whether it goes on, and how it ended.
    pub state: VerifyState,
    /// Documents compared.
    pub compared: u64,
    /// Documents that are the same.
    pub equal: u64,
    /// Documents that kept changing while they were compared.
    pub in_flight: u64,
    /// Documents of which a replica is broken.
    pub broken: u64,
    /// Of these, documents that are equal now.
    pub repaired: u64,
    /// Bytes of frames in both directions.
    pub bytes: u64,
    /// Seconds that it took so far.
    pub seconds: f64,
    /// How far it is, from 0 to 1.
    pub progress: f64,
}

/// Where a comparison stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VerifyState {
    /// It has not begun.
    Waiting,
    /// It goes on.
    Running,
    /// It has come to its end.
    Done,
    /// It could not come to its end.
    Failed(String),
}

/// How far a bootstrap is.
#[derive(Debug, Clone, PartialEq)]
pub struct BootstrapStatus {
    /// The region that documents come from; `None` while one is looked for.
    pub source: Option<RegionName>,
    /// Whether it has come to its end.
    pub finished: bool,
    /// Documents compared with the source.
    pub compared: u64,
    /// Documents taken over.
    pub adopted: u64,
    /// Bytes of frames in both directions.
    pub bytes: u64,
    /// Seconds since it began.
    pub seconds: f64,
    /// How far it is, from 0 to 1.
    pub progress: f64,
    /// Seconds that it will take from now on, if that can be said.
    pub eta_seconds: Option<f64>,
    /// Why the last attempt ended early.
    pub last_error: Option<String>,
}

/// What a node knows of the equality of its replicas.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ReconcileStatus {
    /// The bootstrap under way.
    pub bootstrap: Option<BootstrapStatus>,
    /// The last one that came to its end since this process started.
    pub last_bootstrap: Option<BootstrapStatus>,
    /// Comparisons: what goes on, what waits, and the last that ended, the newest last.
    pub reports: Vec<VerifyReport>,
    /// The last documents that were found broken, the newest last.
    pub broken: Vec<BrokenDocument>,
    /// What was counted since this process started.
    pub totals: Totals,
}

/// What reconciliation has done since this process started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Totals {
    /// Bootstraps that came to their end.
    pub bootstraps: u64,
    /// Documents taken over from other regions.
    pub adopted: u64,
    /// Documents compared.
    pub compared: u64,
    /// Comparisons of all documents with a region that came to their end.
    pub verifications: u64,
    /// Documents found broken.
    pub broken: u64,
    /// Documents that are equal again.
    pub repaired: u64,
    /// Bytes of frames in both directions.
    pub bytes: u64,
}
