//! Transport: QUIC with mutual TLS between the nodes of a cluster.
//!
//! # Layout
//!
//! `endpoint` accepts and dials, and checks by certificate who the other side is; `region` keeps
//! one link per peer region; `link` carries frames; `driver` sits above, owns the replication
//! state machine, and is the only place where its clocks are read. `leaf` is the way in for
//! offline-first clients, and their way out.
//!
//! # Bounds
//!
//! A slow or hostile peer costs itself only: handshakes, connections, streams, windows, frames
//! and queues are bounded, and a link whose queue is full is closed. Whatever a link loses is
//! found again by anti-entropy.

mod commits;
mod driver;
mod endpoint;
mod framing;
mod greeting;
mod guests;
mod joining;
pub mod leaf;
mod link;
mod outbox;
mod pacer;
mod questions;
mod reconciling;
mod refusal;
mod region;
mod replicas;
mod roster;
mod tls;
mod traffic;
mod wire;

use std::any::Any;
use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::panic::resume_unwind;
use std::sync::Arc;
use std::time::Duration;

use anabranch_crdt::ids::{ClusterId, RegionName, Timestamp};
use anabranch_crdt::version::VersionVector;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{JoinError, JoinSet};
use tracing::Instrument;

pub use commits::{CommitReceiver, CommitSender, commit_channel};
pub use framing::{FrameError, FrameReader, FrameWriter};
pub use replicas::Replicas;

use crate::document::Documents;
use crate::error::{Error, ErrorKind};
use crate::journal::{Identity, Journal};
use crate::replication::frame::Packing;
use crate::replication::reconcile::ReconcileSettings;
use crate::replication::{ClusterView, Member, MemberAct, Members, PeerStatus, decode_members};
use crate::settings::{Joining, Neighbours, PkiPaths, RegionSettings, Settings};
use driver::{Driver, Published, Steering};
use endpoint::Links;
use leaf::LeafService;
use region::Region;
use wire::Wire;

/// How to reach the other regions, and the bounds of doing so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TransportSettings {
    /// The cluster; nodes and clients of another one are refused.
    pub cluster: ClusterId,
    /// The region of this node.
    pub region: RegionName,
    /// Where to listen (UDP); port 0 takes a free one.
    pub bind: SocketAddr,
    /// Every other region that the configuration names.
    pub regions: Vec<RegionSettings>,
    /// Where this node listens for HTTP; other regions tell it to applications.
    pub http: SocketAddr,
    /// The regions that this one wants links with.
    pub peers: Neighbours,
    /// How this node joins, and how others reach it.
    pub joining: Joining,
    /// Where this node's certificate is.
    pub pki: PkiPaths,
    /// Bytes that replication fills a frame up to. Default 4 MiB.
    pub frame_bytes: usize,
    /// Bytes of a frame that closes the connection if exceeded. More than `frame_bytes`, because
    /// one large entry travels alone in a longer frame. Default 16 MiB.
    pub max_frame_bytes: usize,
    /// Entries of one replication batch at most. Default 1,024.
    pub batch_entries: usize,
    /// Time between digests on an idle link. Default 1 s.
    pub digest_interval: Duration,
    /// How long the other regions may take to confirm that this node goes on with its origin;
    /// then it takes a new one. Nothing is admitted before. Default 2 s.
    pub settle_within: Duration,
    /// How replicas are compared.
    pub reconcile: ReconcileSettings,
    /// Delay added to frames on their way to a region, to try out distance. Default none.
    pub delay: BTreeMap<RegionName, Duration>,
    /// Bytes per second that may go to any one region. Default no cap.
    pub link_bandwidth: Option<u64>,
    /// Bytes per second that may go to a region, where that differs.
    pub bandwidth: BTreeMap<RegionName, u64>,
    /// How large frames travel.
    pub packing: Packing,
    /// Connections that others may have open here at once. Default 1,024.
    pub max_connections: usize,
}

impl TransportSettings {
    /// Takes from a node's settings what concerns the transport.
    ///
    /// # Errors
    /// `Invalid` when the node's own region is not among the regions.
    pub fn new(settings: &Settings) -> Result<Self, Error> {
        let own = |region: &&RegionSettings| region.name == settings.region;
        let own = settings.regions.iter().find(own).ok_or_else(|| unknown(&settings.region))?;
        let others = settings.regions.iter().filter(|region| region.name != settings.region);
        Ok(Self {
            cluster: settings.cluster,
            region: settings.region.clone(),
            bind: own.quic,
            regions: others.cloned().collect(),
            http: own.http,
            peers: own.peers.clone(),
            joining: settings.joining.clone(),
            pki: settings.pki.clone(),
            frame_bytes: settings.limits.frame_bytes,
            max_frame_bytes: settings.limits.longest_frame(),
            batch_entries: settings.limits.batch_entries,
            digest_interval: Duration::from_secs(1),
            settle_within: settings.limits.settle_within,
            reconcile: ReconcileSettings {
                verify_interval: settings.limits.verify_interval,
                verify_rate: settings.limits.verify_rate,
            },
            delay: BTreeMap::new(),
            link_bandwidth: settings.limits.link_bandwidth,
            bandwidth: settings.limits.region_bandwidth.clone(),
            packing: Packing {
                compression: settings.limits.compression,
                longest: settings.limits.longest_frame(),
            },
            max_connections: 1_024,
        })
    }

    /// Returns the bytes that replication fills a frame up to: on a link with a cap no more than
    /// goes over it in half a second, so that one frame is never waited for in vain.
    fn filled_frame(&self) -> usize {
        let caps = self.bandwidth.values().copied().chain(self.link_bandwidth);
        let least = caps.min().map(|cap| usize::try_from(cap / 2).unwrap_or(usize::MAX));
        self.frame_bytes.min(least.unwrap_or(usize::MAX).max(LEAST_FRAME))
    }
}

/// Takes what is known of the peers, and the monotonic clock of the process.
pub type JudgeClock = dyn Fn(&[PeerStatus], Duration) + Send + Sync;

/// What the transport asks of the rest of the node. It calls from its own tasks, so neither
/// function may block.
#[derive(Clone)]
pub struct TransportHooks {
    /// Moves the node's hybrid clock up to a peer's timestamp, if that is within the allowed skew.
    pub observe_clock: Arc<dyn Fn(Timestamp) + Send + Sync>,
    /// Reads the wall clock.
    pub wall: Arc<dyn Fn() -> Timestamp + Send + Sync>,
    /// Told several times a second what is known of the peers, with the monotonic clock of the
    /// process, so that the node can judge its own wall clock by theirs.
    pub judge_clock: Arc<JudgeClock>,
    /// Told that the journal has taken a new origin, before replication goes on.
    pub origin_renewed: Arc<dyn Fn(&Identity) + Send + Sync>,
    /// Told where this node's region stands, at the start and whenever the member table changes.
    pub standing: Arc<dyn Fn(&Members) + Send + Sync>,
    /// Serves offline-first clients; without it they are refused.
    pub leaf: Option<Arc<dyn LeafService>>,
    /// The documents, which go to other regions whole and come from there when no log goes back far
    /// enough, or replicas differ; without them this node can do neither.
    pub documents: Option<Documents>,
}

impl fmt::Debug for TransportHooks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TransportHooks").field("leaf", &self.leaf).finish_non_exhaustive()
    }
}

/// Whether a link to a region may be up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkState {
    /// It comes up by itself.
    Up,
    /// It is closed, and refused in both directions.
    Cut,
}

/// One run of one process. A peer that comes back with another one has restarted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BootId(pub(crate) [u8; 16]);

impl BootId {
    pub(crate) fn random() -> Self {
        Self(rand::random())
    }
}

/// The running transport: owns every task of it.
#[derive(Debug)]
pub struct Transport {
    handle: TransportHandle,
    tasks: JoinSet<Result<(), Error>>,
}

/// Looks at the transport and steers it; clones are cheap.
#[derive(Debug, Clone)]
pub struct TransportHandle {
    links: Arc<Links>,
    published: Published,
    steer: mpsc::Sender<Steering>,
}

impl Transport {
    /// Starts to listen, to dial, and to replicate what `journal` holds and `commits` tells.
    ///
    /// # Errors
    /// `Invalid` or `NotFound` for certificates that are not this node's, `Unavailable` when the
    /// address cannot be bound.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn start(
        settings: &TransportSettings,
        journal: Journal,
        commits: CommitReceiver,
        hooks: TransportHooks,
    ) -> Result<Self, Error> {
        Self::start_on(Wire::bind(settings.bind), settings, journal, commits, hooks)
    }

    /// Does the same on any wire.
    pub(crate) fn start_on(
        wire: io::Result<Wire>,
        settings: &TransportSettings,
        journal: Journal,
        commits: CommitReceiver,
        hooks: TransportHooks,
    ) -> Result<Self, Error> {
        let mut tasks = JoinSet::new();
        let (events, link_events) = mpsc::channel(MAX_EVENTS);
        let stored = stored_members(&journal)?;
        let leaf = hooks.leaf.clone();
        let links = Links::start(settings, (wire, stored), leaf, events, &mut tasks)?;
        let (steer, steering) = mpsc::channel(MAX_STEERING);
        let table = links.table().clone();
        let shared = (table, links.room());
        let (driver, published) = Driver::new(settings, journal, commits, hooks, shared);
        tasks.spawn(driver.run(link_events, steering).in_current_span());
        Ok(Self { handle: TransportHandle { links, published, steer }, tasks })
    }

    /// Returns a handle.
    #[must_use]
    pub fn handle(&self) -> TransportHandle {
        self.handle.clone()
    }

    /// Waits until a part of the transport fails or panics, which it should never do: the node
    /// cannot go on without it.
    ///
    /// # Cancel safety
    /// Nothing is lost when the future is dropped.
    pub async fn wait(&mut self) -> Error {
        match self.tasks.join_next().await {
            Some(Ok(Err(error))) => error,
            Some(Err(error)) => failed(&panic_message(error)),
            Some(Ok(Ok(()))) | None => failed("a task ended too early"),
        }
    }

    /// Closes the links, tells the peers why, and ends every task.
    pub async fn shutdown(mut self) {
        self.handle.links.close().await;
        self.tasks.shutdown().await;
    }
}

impl TransportHandle {
    /// Returns where this node listens.
    ///
    /// # Errors
    /// `Unavailable` when the socket is gone.
    pub fn local_addr(&self) -> Result<SocketAddr, Error> {
        self.links.local_addr()
    }

    /// Follows what is known of every peer region: told at once when a link comes or goes, else
    /// every 200 ms.
    #[must_use]
    pub fn status(&self) -> watch::Receiver<Arc<Vec<PeerStatus>>> {
        self.published.status.clone()
    }

    /// Follows what is known of every region of the cluster, this node's own included: told at
    /// once when an acknowledgement arrives.
    #[must_use]
    pub fn cluster(&self) -> watch::Receiver<Arc<ClusterView>> {
        self.published.cluster.clone()
    }

    /// Asks the regions what is durable there from now on, for `wait` at most: everything that is
    /// durable in a majority, or the regions that did not answer; `None` when the transport ends.
    ///
    /// # Cancel safety
    /// Nothing is lost when the future is dropped.
    pub async fn ask(&self, wait: Duration) -> Option<Result<VersionVector, Vec<RegionName>>> {
        self.published.asker.ask(wait).await
    }

    /// Returns the moment from which the monotonic clock of [`ClusterView`] is counted.
    #[must_use]
    pub fn began(&self) -> tokio::time::Instant {
        self.published.began
    }

    /// Follows the member table.
    #[must_use]
    pub fn members(&self) -> watch::Receiver<Arc<Members>> {
        self.links.table().subscribe()
    }

    /// Changes where a region stands, and returns once that is durable here; gossip tells the
    /// others.
    ///
    /// # Errors
    /// `NotFound` for an unknown region, `Conflict` if the act would do harm (see
    /// [`crate::replication::SteerError`]), `Unavailable` if it cannot be made durable.
    ///
    /// # Cancel safety
    /// An act whose future is dropped may still happen.
    pub async fn steer(&self, region: &RegionName, act: MemberAct) -> Result<(), Error> {
        let (reply, answer) = oneshot::channel();
        let steering = Steering { region: region.clone(), act, reply };
        let stopping =
            || Error::new(ErrorKind::Unavailable, "shutting_down", "the node is shutting down");
        self.steer.send(steering).await.map_err(|_| stopping())?;
        answer.await.map_err(|_| stopping())?
    }

    /// Counts the bytes of the UDP datagrams that the live link to a region has sent and received;
    /// `None` while there is no link.
    ///
    /// # Errors
    /// `NotFound` for an unknown region.
    pub fn datagram_bytes(&self, region: &RegionName) -> Result<Option<(u64, u64)>, Error> {
        let mut counted = None;
        self.on_region(region, |region| counted = region.datagram_bytes())?;
        Ok(counted)
    }

    /// Returns a view of the replicas in other regions.
    #[must_use]
    pub fn replicas(&self) -> Replicas {
        self.published.replicas.clone()
    }

    /// Changes where the node of a region is, until the region itself says where it is.
    ///
    /// # Errors
    /// `NotFound` for an unknown region.
    pub fn set_peer_address(&self, region: &RegionName, address: SocketAddr) -> Result<(), Error> {
        self.on_region(region, |region| region.set_address(address))
    }

    /// Cuts the link to a region in both directions, or lets it come up again.
    ///
    /// # Errors
    /// `NotFound` for an unknown region.
    pub fn set_link(&self, region: &RegionName, state: LinkState) -> Result<(), Error> {
        self.on_region(region, |region| region.set_link(state))
    }

    /// Delays frames on their way to a region; their order is kept.
    ///
    /// # Errors
    /// `NotFound` for an unknown region.
    pub fn set_delay(&self, region: &RegionName, delay: Duration) -> Result<(), Error> {
        self.on_region(region, |region| region.set_delay(delay))
    }

    /// Changes how many bytes per second may go to a region; `None` lifts the cap.
    ///
    /// # Errors
    /// `NotFound` for an unknown region.
    pub fn set_bandwidth(&self, region: &RegionName, cap: Option<u64>) -> Result<(), Error> {
        self.on_region(region, |region| region.pacer().set_rate(cap))
    }

    /// Does something to the link with a region; a region without one is left as it is.
    fn on_region(&self, name: &RegionName, act: impl FnOnce(&Region)) -> Result<(), Error> {
        if self.links.table().borrow().get(name).is_none() {
            return Err(unknown(name));
        }
        if let Some(region) = self.links.region(name) {
            act(&region);
        }
        Ok(())
    }
}

/// Lets a panic of a child task go on in its parent, up to [`Transport::wait`].
fn pass_on_panic(ended: Result<(), JoinError>) {
    if let Err(error) = ended
        && let Ok(panic) = error.try_into_panic()
    {
        resume_unwind(panic);
    }
}

fn panic_message(error: JoinError) -> String {
    match error.try_into_panic() {
        Ok(panic) => format!("a task panicked: {}", text_of_panic(panic.as_ref())),
        Err(_) => "a task was cancelled".to_owned(),
    }
}

fn text_of_panic(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}

fn failed(reason: &str) -> Error {
    Error::new(ErrorKind::Internal, "transport_failed", format!("the transport failed: {reason}"))
}

/// Reads the member table of an earlier run.
fn stored_members(journal: &Journal) -> Result<Vec<Member>, Error> {
    let unreadable = |error: String| {
        let message = format!("the stored member table cannot be read: {error}");
        Error::new(ErrorKind::Corrupt, "members_unreadable", message)
    };
    let Some(stored) = journal.members().map_err(|error| unreadable(error.to_string()))? else {
        return Ok(Vec::new());
    };
    decode_members(&stored).map_err(|error| unreadable(error.to_string()))
}

fn unknown(region: &RegionName) -> Error {
    let message = format!("{region} is no region of this cluster");
    Error::new(ErrorKind::NotFound, "unknown_region", message)
}

/// A frame is filled up to this however low a cap is.
const LEAST_FRAME: usize = 16 << 10;

/// Handshake and greeting together take no longer.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// Events of all links that wait for the driver; their bytes are bounded per link besides.
const MAX_EVENTS: usize = 256;

/// Acts of operators that wait for the driver.
const MAX_STEERING: usize = 16;

#[cfg(test)]
mod tests;
