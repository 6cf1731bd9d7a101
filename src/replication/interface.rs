//! The words between the state machine and its shell: inputs, effects, settings, status.

use std::time::Duration;

use anabranch_crdt::clock::MeasuredClock;
use anabranch_crdt::entry::Entry;
use anabranch_crdt::ids::{Origin, RegionName, Sequence, Timestamp};
use anabranch_crdt::version::VersionVector;
use bytes::Bytes;

/// One connection to a peer; never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkId(pub u64);

/// Pairs an effect with the input that answers it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// The two clocks of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// Time since some fixed moment of this process; never goes back.
    pub monotonic: Duration,
    /// The wall clock.
    pub wall: Timestamp,
}

/// Which of the two queues of a link a frame takes. Frames of one lane arrive in the order in which
/// they were sent; a frame of one lane may overtake any of the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Lane {
    /// Control frames, and entries that have only just become durable: sent first.
    Fresh,
    /// What catches up or compares: it has a share of a busy link, and all of an idle one.
    Bulk,
}

/// What happened.
#[derive(Debug, Clone)]
pub enum Input {
    /// The transport has authenticated a peer of another region.
    Connected {
        /// The new link.
        link: LinkId,
        /// The region that the peer's certificate names.
        region: RegionName,
    },
    /// A link is gone; frames on it are lost from some point on.
    Disconnected {
        /// The link.
        link: LinkId,
        /// Why, for people.
        reason: String,
    },
    /// A frame arrived.
    Frame {
        /// The link.
        link: LinkId,
        /// Its bytes, no longer than the frame limit.
        bytes: Bytes,
    },
    /// Entries became durable in the own journal, whoever asked for it.
    Committed {
        /// Those that this leader admitted. May be left out under load: they are then read back.
        local: Vec<Entry>,
        /// Everything that is durable now.
        vector: VersionVector,
    },
    /// An [`Effect::Append`] is durable (its entries are in the vector of the [`Input::Committed`]
    /// before this) or has failed.
    Appended {
        /// The ticket of the effect.
        ticket: Ticket,
        /// Why it failed.
        error: Option<String>,
    },
    /// An [`Effect::Read`] is answered.
    Read {
        /// The ticket of the effect.
        ticket: Ticket,
        /// The entries, in order; empty if there are none or the read failed.
        entries: Vec<Entry>,
    },
    /// The origin of this node has changed, after [`Effect::RenewOrigin`].
    Renewed {
        /// The new origin.
        origin: Origin,
    },
    /// The moment that [`super::Replication::poll_timeout`] named has come.
    Timeout,
}

impl Input {
    /// Tells whether it may change what is known of the regions.
    pub(super) fn may_teach(&self) -> bool {
        match self {
            Self::Connected { .. }
            | Self::Disconnected { .. }
            | Self::Frame { .. }
            | Self::Committed { .. }
            | Self::Renewed { .. } => true,
            Self::Appended { .. } | Self::Read { .. } | Self::Timeout => false,
        }
    }
}

/// What to do.
#[derive(Debug, Clone)]
pub enum Effect {
    /// Send a frame; if the link's queue is full, close the link instead.
    Send {
        /// The link.
        link: LinkId,
        /// The frame.
        bytes: Bytes,
        /// What it shares its order with.
        lane: Lane,
    },
    /// Append entries of other origins to the journal, durably, and answer with
    /// [`Input::Appended`].
    Append {
        /// To answer with.
        ticket: Ticket,
        /// Entries without gaps per origin.
        entries: Vec<Entry>,
    },
    /// Read entries of an origin from the journal and answer with [`Input::Read`].
    Read {
        /// To answer with.
        ticket: Ticket,
        /// Whose entries.
        origin: Origin,
        /// The entry before the first one wanted.
        after: Sequence,
        /// At most so many.
        entries: usize,
        /// At most so many bytes of changes, but at least one entry.
        bytes: usize,
    },
    /// Close a link.
    Close {
        /// The link.
        link: LinkId,
        /// Why, for the log of both sides.
        reason: String,
    },
    /// Remember the region of an origin.
    NameOrigin {
        /// The origin.
        origin: Origin,
        /// Its region.
        region: RegionName,
    },
    /// Move the node's hybrid clock up to a peer's, if that is within the allowed skew.
    ObserveClock {
        /// The peer's timestamp.
        seen: Timestamp,
    },
    /// A peer knows more of this node's origin than the journal does: take a new origin before
    /// anything more is admitted, and answer with [`Input::Renewed`].
    RenewOrigin,
}

/// What an operator sees of one peer region.
#[derive(Debug, Clone, PartialEq)]
pub struct PeerStatus {
    /// The region.
    pub region: RegionName,
    /// Whether a link to it is up.
    pub connected: bool,
    /// Entries that are durable here and not acknowledged by the peer.
    pub entries_behind: u64,
    /// Age of the oldest such entry of this node's own origin, in seconds; 0 if there is none.
    pub seconds_behind: f64,
    /// Entries that the peer has, as far as known, and this node has not.
    pub entries_missing: u64,
    /// Why the last link went down, or the last connection attempt failed.
    pub last_error: Option<String>,
    /// What was measured of its wall clock, if it was ever heard.
    pub clock: Option<MeasuredClock>,
}

/// Bounds and intervals of replication.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplicationSettings {
    /// The region of this node.
    pub region: RegionName,
    /// The origin of this node.
    pub origin: Origin,
    /// Every other region of the cluster.
    pub peers: Vec<RegionName>,
    /// Bytes of one frame at most. Default 4 MiB. An entry that does not fit in it by itself is
    /// sent alone in a longer frame, because an entry that is never sent would hold up its origin
    /// for ever; limits on admission keep that from happening.
    pub frame_bytes: usize,
    /// Entries of one batch at most. Default 1,024.
    pub batch_entries: usize,
    /// Time between digests on an idle link. Default 1 s.
    pub digest_interval: Duration,
    /// The regions of origins, as far as the journal knows them.
    pub names: Vec<(Origin, RegionName)>,
}
