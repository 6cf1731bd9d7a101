//! Settings: plain data with documented defaults and bounds. `cli::config` reads them from
//! `regions.toml`; components such as clocks and storage enter through `NodeBuilder` instead.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anabranch_crdt::ids::{ClusterId, CollectionName, RegionName};
use anabranch_crdt::policy::Policies;

pub use crate::replication::Neighbours;
pub use crate::replication::frame::Compression;

/// Everything that a node is told about its cluster.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The name of the cluster, for people.
    pub cluster_name: String,
    /// The id of the cluster; nodes of another cluster are refused.
    pub cluster: ClusterId,
    /// The region of this node.
    pub region: RegionName,
    /// Every region, in the order of the file, this one included.
    pub regions: Vec<RegionSettings>,
    /// The settings that collections start with; once a collection has replicated ones, those hold.
    /// A collection that never got any resolves by `auto`.
    pub collections: BTreeMap<CollectionName, Policies>,
    /// Limits of this node.
    pub limits: Limits,
    /// The directory that holds the journal.
    pub data: PathBuf,
    /// Where the certificates are; see `anabranch pki`.
    pub pki: PkiPaths,
    /// How this node joins its cluster, and how others reach it.
    pub joining: Joining,
}

/// How a node joins its cluster, and how others reach it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Joining {
    /// Nodes (QUIC addresses) that are asked to take this node in. They are asked until one has
    /// done so; a node that is a member already loses nothing by asking.
    pub ask: Vec<SocketAddr>,
    /// Where others reach this node, if that is not where it listens.
    pub advertised: Advertised,
    /// Whether no file names this node's region: its addresses then go to the others by gossip.
    pub unlisted: bool,
}

/// Where others reach a node; `None` is what the configuration says of its region.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Advertised {
    /// For other regions and offline-first clients (UDP).
    pub quic: Option<SocketAddr>,
    /// For applications (TCP).
    pub http: Option<SocketAddr>,
}

/// One region and the addresses of its node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegionSettings {
    /// The name of the region.
    pub name: RegionName,
    /// Where the node listens for other regions and for offline-first clients (UDP).
    pub quic: SocketAddr,
    /// Where the node listens for HTTP (TCP).
    pub http: SocketAddr,
    /// The regions that it has links with. A link needs the will of both.
    pub peers: Neighbours,
}

/// The files of this node's identity, in PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PkiPaths {
    /// The certificate of the cluster's authority.
    pub authority: PathBuf,
    /// This node's certificate.
    pub certificate: PathBuf,
    /// This node's private key.
    pub key: PathBuf,
}

/// What a node accepts at most. Each limit is enforced, and its error names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a document as canonical JSON. Default 4 MiB.
    pub document_bytes: usize,
    /// Levels of nested objects and lists in a document. Default and maximum 128.
    pub nesting: usize,
    /// Bytes of one HTTP request body. Default 8 MiB.
    pub body_bytes: usize,
    /// Bytes of request bodies in flight at once; more answer 429. Default 64 MiB.
    pub in_flight_bytes: usize,
    /// Changes of one document after which a warning is logged. Default 10,000.
    pub changes_warning: u64,
    /// Bytes of one replication frame. Default 4 MiB.
    pub frame_bytes: usize,
    /// Entries of one replication batch. Default 1,024.
    pub batch_entries: usize,
    /// Requests that may wait for a document owner; more answer 429. Default 4,096.
    pub queue: usize,
    /// Bytes of loaded documents that the owners keep, together. Default 256 MiB.
    pub cache_bytes: usize,
    /// How long a read with a session token waits for this region to catch up. Default 5 s.
    pub session_wait: Duration,
    /// How long a request waits for other regions at most, whatever its concern says. Default
    /// 60 s.
    pub concern_wait: Duration,
    /// How long the other regions may take, after a start, to confirm that this node goes on with
    /// its origin; then it takes a new one. Writes wait as long. Default 2 s.
    pub settle_within: Duration,
    /// How far clocks may be apart: further ahead no peer moves this node's clock, and a node whose
    /// own clock is further off corrects it. Default 1 s.
    pub clock_skew: Duration,
    /// How long a settled conflict stays in the ledger; an open one stays. Default 90 days.
    pub conflict_age: Duration,
    /// How long after its delete a document is purged; 0 for never, which is the default.
    pub purge_age: Duration,
    /// Settled conflicts in the ledger; the oldest of more are dropped. Default 1,000,000.
    pub conflict_rows: u64,
    /// Time between two comparisons of this node's documents with those of a region; zero for
    /// none. Default 1 h.
    pub verify_interval: Duration,
    /// Documents that such a comparison reads in a second at most; zero for no limit.
    /// Default 10,000.
    pub verify_rate: u32,
    /// How long entries stay in the journal that every region has; change feeds and tokens reach
    /// back as far. Default 1 day.
    pub journal_keep: Duration,
    /// How long entries stay in the journal for a region that is away. Default 7 days.
    pub journal_age: Duration,
    /// Bytes of changes in the journal; of more, the oldest go that only regions lack which are
    /// away. Default 4 GiB.
    pub journal_bytes: u64,
    /// Bytes per second that this node sends to any one region at most. Default no cap.
    pub link_bandwidth: Option<u64>,
    /// Bytes per second that this node sends to single regions at most, where that differs: the
    /// `bandwidth` of their sections.
    pub region_bandwidth: BTreeMap<RegionName, u64>,
    /// Whether large frames travel compressed. Default on.
    pub compression: Compression,
}

impl Limits {
    /// Returns the bytes of the longest frame that is sent or taken. A large change travels alone
    /// in a frame that is longer than `frame_bytes`, and a change may be several times as large as
    /// the document that it writes: it names what it replaces besides.
    #[must_use]
    pub fn longest_frame(&self) -> usize {
        self.frame_bytes.max(self.document_bytes).saturating_mul(4)
    }

    /// Returns the bytes of the largest change that is admitted, which is what fits into the
    /// longest frame: one that no peer takes would hold up all that follow it for ever.
    #[must_use]
    pub fn change_bytes(&self) -> usize {
        self.longest_frame().saturating_sub(FRAME_OVERHEAD)
    }
}

/// Bytes of a frame around one change, with the longest name of a document.
const FRAME_OVERHEAD: usize = 1_024;

impl Default for Limits {
    fn default() -> Self {
        Self {
            document_bytes: 4 << 20,
            nesting: 128,
            body_bytes: 8 << 20,
            in_flight_bytes: 64 << 20,
            changes_warning: 10_000,
            frame_bytes: 4 << 20,
            batch_entries: 1_024,
            queue: 4_096,
            cache_bytes: 256 << 20,
            session_wait: Duration::from_secs(5),
            concern_wait: Duration::from_secs(60),
            settle_within: Duration::from_secs(2),
            clock_skew: Duration::from_secs(1),
            conflict_age: Duration::from_secs(90 * 24 * 3_600),
            purge_age: Duration::ZERO,
            conflict_rows: 1_000_000,
            verify_interval: Duration::from_secs(3_600),
            verify_rate: 10_000,
            journal_keep: Duration::from_secs(24 * 3_600),
            journal_age: Duration::from_secs(7 * 24 * 3_600),
            journal_bytes: 4 << 30,
            link_bandwidth: None,
            region_bandwidth: BTreeMap::new(),
            compression: Compression::On,
        }
    }
}
