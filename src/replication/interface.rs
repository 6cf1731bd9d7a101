//! The words between the state machine and its shell: inputs, effects, settings, status.

use std::sync::Arc;
use std::time::Duration;

use anabranch_crdt::clock::MeasuredClock;
use anabranch_crdt::entry::{Dot, Entry};
use anabranch_crdt::ids::{BootId, Origin, RegionName, Sequence, Timestamp};
use anabranch_crdt::version::VersionVector;
use bytes::Bytes;

use super::frame::Packing;
use super::identity::Incarnation;
use super::members::{Member, MemberAct, Members, Standing};
use super::reconcile::{ReconcileEffect, ReconcileInput, ReconcileSettings};

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
        /// What stands before it, see [`anabranch_crdt::chain`].
        after: Vec<Dot>,
    },
    /// An [`Effect::Vouch`] is durable or has failed.
    Vouched {
        /// The ticket of the effect.
        ticket: Ticket,
        /// Why it failed.
        error: Option<String>,
    },
    /// A reader wants to know what is durable in a majority of the regions from now on; answered
    /// by [`Effect::Asked`].
    Ask {
        /// To answer with; chosen by who asks.
        ticket: Ticket,
        /// How long to wait for answers.
        wait: Duration,
    },
    /// What concerns the comparison of whole replicas.
    Reconcile(ReconcileInput),
    /// The moment that [`super::Replication::poll_timeout`] named has come.
    Timeout,
    /// A region whose certificate is of this cluster asks to join, or to return.
    Joining {
        /// Its own record.
        member: Member,
    },
    /// Another region said something of members outside of a link.
    Told {
        /// Who said it; its certificate is of this cluster.
        by: RegionName,
        /// What it said.
        members: Vec<Member>,
    },
    /// An operator changes the standing of a region; [`super::Members::judge`] has allowed it.
    Steer {
        /// The region.
        region: RegionName,
        /// What to do.
        act: MemberAct,
    },
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
        /// The link on which they are to go out, in [`Lane::Bulk`]. As long as much waits there, the
        /// read had better wait, too: that is what keeps a slow link from filling memory.
        link: LinkId,
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
    /// Remember the region of an origin, and what stands before it, no later than its first
    /// entry.
    NameOrigin {
        /// The origin.
        origin: Origin,
        /// Its region.
        region: RegionName,
        /// What stands before it, see [`anabranch_crdt::chain`].
        after: Vec<Dot>,
    },
    /// Move the node's hybrid clock up to a peer's, if that is within the allowed skew.
    ObserveClock {
        /// The peer's timestamp.
        seen: Timestamp,
    },
    /// An [`Input::Ask`] is answered.
    Asked {
        /// Its ticket.
        ticket: Ticket,
        /// Everything that was durable in the regions of a majority when they answered, this one
        /// included; or the regions that have not answered in time.
        vector: Result<VersionVector, Vec<RegionName>>,
    },
    /// Others may have this node's origin, or know more of it than the journal does: take a new
    /// origin before anything more is admitted, and answer with [`Input::Renewed`].
    RenewOrigin {
        /// Why, for the log.
        reason: String,
    },
    /// Admit changes under the present origin: every peer has confirmed it.
    ConfirmOrigin,
    /// Remember durably which process goes on with an origin of a peer, and answer with
    /// [`Input::Vouched`].
    Vouch {
        /// To answer with.
        ticket: Ticket,
        /// The origin.
        origin: Origin,
        /// The process.
        boot: BootId,
    },
    /// The member table has changed: store it, and dial and close links by it.
    Members {
        /// The table.
        members: Arc<Members>,
    },
    /// What concerns the comparison of whole replicas; answered with [`Input::Reconcile`].
    Reconcile(ReconcileEffect),
}

/// What an operator sees of one peer region.
#[derive(Debug, Clone, PartialEq)]
pub struct PeerStatus {
    /// The region.
    pub region: RegionName,
    /// Where it stands as a member.
    pub standing: Standing,
    /// Whether there is to be a link to it; else what it has comes over other regions.
    pub neighbour: bool,
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
    /// Entries that came and went over links to it since this node started.
    pub entries: EntryBytes,
    /// What its links carry.
    pub traffic: Traffic,
}

/// Entries that came and went over the links to one region, in bytes of their encoding.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct EntryBytes {
    /// Entries that were sent.
    pub entry_bytes_sent: u64,
    /// Entries that came.
    pub entry_bytes_received: u64,
    /// Those of them that were durable here already, or on their way into the journal.
    pub duplicate_bytes_received: u64,
}

/// What the link to a region carries, and what it and those before it have carried since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Traffic {
    /// Bytes that wait in [`Lane::Fresh`].
    pub fresh_waiting: u64,
    /// Bytes that wait in [`Lane::Bulk`].
    pub bulk_waiting: u64,
    /// How long frames to this region have waited for its bandwidth cap.
    pub throttled: Duration,
    /// Bytes of frames sent.
    pub sent: u64,
    /// Bytes of the same frames without compression.
    pub sent_unpacked: u64,
    /// Bytes of frames received.
    pub received: u64,
    /// Bytes of the same frames without compression, as they claim.
    pub received_unpacked: u64,
    /// The round trip of the connection, as QUIC measures it.
    pub round_trip: Option<Duration>,
}

/// Bounds and intervals of replication.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplicationSettings {
    /// The region of this node.
    pub region: RegionName,
    /// The origin of this node.
    pub origin: Origin,
    /// Every other region that the configuration names; [`super::Replication::with_members`] starts
    /// with a whole table instead.
    pub peers: Vec<RegionName>,
    /// Bytes of one frame at most. Default 4 MiB. An entry that does not fit in it by itself is
    /// sent alone in a longer frame, because an entry that is never sent would hold up its origin
    /// for ever; limits on admission keep that from happening.
    pub frame_bytes: usize,
    /// Entries of one batch at most. Default 1,024.
    pub batch_entries: usize,
    /// Time between digests on an idle link. Default 1 s.
    pub digest_interval: Duration,
    /// How large frames travel.
    pub packing: Packing,
    /// The regions of origins, as far as the journal knows them.
    pub names: Vec<(Origin, RegionName)>,
    /// Who this process is, and what the journal knows of those before it.
    pub incarnation: Incarnation,
    /// How replicas are compared.
    pub reconcile: ReconcileSettings,
}

impl ReplicationSettings {
    /// Returns the bytes that a frame which catches up is filled up to: less than a fresh one, so
    /// that a slow link is not busy with one of them for as long as a pull may take.
    pub(super) fn bulk_bytes(&self) -> usize {
        self.frame_bytes / BULK_FRAMES
    }
}

/// Bulk frames that are as long as one full frame.
const BULK_FRAMES: usize = 4;
