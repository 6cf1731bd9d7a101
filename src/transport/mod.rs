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
pub mod leaf;
mod link;
mod outbox;
mod refusal;
mod region;
mod tls;

use std::any::Any;
use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::panic::resume_unwind;
use std::sync::Arc;
use std::time::Duration;

use anabranch_crdt::ids::{ClusterId, RegionName, Timestamp};
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinError, JoinSet};
use tracing::Instrument;

pub use commits::{CommitReceiver, CommitSender, commit_channel};
pub use framing::{FrameError, FrameReader, FrameWriter};

use crate::error::{Error, ErrorKind};
use crate::journal::{Identity, Journal};
use crate::replication::{ClusterView, PeerStatus};
use crate::settings::{PkiPaths, Settings};
use driver::{Driver, Published};
use endpoint::Links;
use leaf::LeafService;

/// How to reach the other regions, and the bounds of doing so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TransportSettings {
    /// The cluster; nodes and clients of another one are refused.
    pub cluster: ClusterId,
    /// The region of this node.
    pub region: RegionName,
    /// Where to listen (UDP); port 0 takes a free one.
    pub bind: SocketAddr,
    /// Every other region, with the address of its node.
    pub peers: BTreeMap<RegionName, SocketAddr>,
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
    /// Delay added to frames on their way to a region, to try out distance. Default none.
    pub delay: BTreeMap<RegionName, Duration>,
    /// Connections that others may have open here at once. Default 1,024.
    pub max_connections: usize,
}

impl TransportSettings {
    /// Takes from a node's settings what concerns the transport.
    ///
    /// # Errors
    /// `Invalid` when the node's own region is not among the regions.
    pub fn new(settings: &Settings) -> Result<Self, Error> {
        let own = |region: &&crate::settings::RegionSettings| region.name == settings.region;
        let bind = settings.regions.iter().find(own).ok_or_else(|| unknown(&settings.region))?.quic;
        let others = settings.regions.iter().filter(|region| region.name != settings.region);
        Ok(Self {
            cluster: settings.cluster,
            region: settings.region.clone(),
            bind,
            peers: others.map(|region| (region.name.clone(), region.quic)).collect(),
            pki: settings.pki.clone(),
            frame_bytes: settings.limits.frame_bytes,
            max_frame_bytes: settings.limits.longest_frame(),
            batch_entries: settings.limits.batch_entries,
            digest_interval: Duration::from_secs(1),
            delay: BTreeMap::new(),
            max_connections: 1_024,
        })
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
    /// Serves offline-first clients; without it they are refused.
    pub leaf: Option<Arc<dyn LeafService>>,
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
        let mut tasks = JoinSet::new();
        let (events, link_events) = mpsc::channel(MAX_EVENTS);
        let links = Links::start(settings, hooks.leaf.clone(), events, &mut tasks)?;
        let (driver, published) = Driver::new(settings, journal, commits, hooks);
        tasks.spawn(driver.run(link_events).in_current_span());
        Ok(Self { handle: TransportHandle { links, published }, tasks })
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

    /// Changes where the node of a region is.
    ///
    /// # Errors
    /// `NotFound` for an unknown region.
    pub fn set_peer_address(&self, region: &RegionName, address: SocketAddr) -> Result<(), Error> {
        self.region(region).map(|region| region.set_address(address))
    }

    /// Cuts the link to a region in both directions, or lets it come up again.
    ///
    /// # Errors
    /// `NotFound` for an unknown region.
    pub fn set_link(&self, region: &RegionName, state: LinkState) -> Result<(), Error> {
        self.region(region).map(|region| region.set_link(state))
    }

    /// Delays frames on their way to a region; their order is kept.
    ///
    /// # Errors
    /// `NotFound` for an unknown region.
    pub fn set_delay(&self, region: &RegionName, delay: Duration) -> Result<(), Error> {
        self.region(region).map(|region| region.set_delay(delay))
    }

    fn region(&self, name: &RegionName) -> Result<&Arc<region::Region>, Error> {
        self.links.region(name).ok_or_else(|| unknown(name))
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

fn unknown(region: &RegionName) -> Error {
    let message = format!("{region} is no region of this node's configuration");
    Error::new(ErrorKind::NotFound, "unknown_region", message)
}

/// Handshake and greeting together take no longer.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// Events of all links that wait for the driver; their bytes are bounded per link besides.
const MAX_EVENTS: usize = 256;

#[cfg(test)]
mod tests;
