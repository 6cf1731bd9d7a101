//! The composition root: builds the parts, wires them, supervises them, shuts them down.
//!
//! The parts are started from the disk outwards: journal, owners, transport, HTTP edge. A part
//! that fails or panics stops the node, and the next start recovers from the journal. The parts
//! are stopped from the edge inwards, so that nothing is accepted that cannot be answered.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anabranch_crdt::ids::{Origin, RegionName, Timestamp};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::{JoinError, JoinSet};
use tracing::{Instrument, info};
use uuid::Uuid;

use crate::api::{self, ApiState, Sources};
use crate::document::{
    Cleaner, Cluster, Collections, Documents, Doorbell, NodeClock, OwnerQueues, Owners, Redecider,
    Retention, Setting, WallClock, owner_queues,
};
use crate::error::{Error, ErrorKind};
use crate::journal::{Journal, JournalOptions, OpenError};
use crate::leaf;
use crate::replication::PeerStatus;
use crate::settings::{RegionSettings, Settings};
use crate::subscription::{Changes, ConflictBell, Conflicts};
use crate::transport::{
    CommitSender, Transport, TransportHandle, TransportHooks, TransportSettings, commit_channel,
};

/// Builds a node from settings and components.
pub struct NodeBuilder {
    settings: Settings,
    delays: BTreeMap<RegionName, Duration>,
    wall: WallClock,
}

impl fmt::Debug for NodeBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NodeBuilder").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl NodeBuilder {
    /// Starts from settings, with the clock of this machine.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self { settings, delays: BTreeMap::new(), wall: Arc::new(system_clock) }
    }

    /// Delays what is sent to each region, one way, to try out distance.
    #[must_use]
    pub fn delays(mut self, delays: BTreeMap<RegionName, Duration>) -> Self {
        self.delays = delays;
        self
    }

    /// Takes the time from another clock than this machine's.
    #[must_use]
    pub fn wall_clock(mut self, wall: WallClock) -> Self {
        self.wall = wall;
        self
    }

    /// Starts the node.
    ///
    /// # Errors
    /// `Unavailable` if a port is taken or the data is in use, `Invalid` if the data or the
    /// certificates belong elsewhere, `Corrupt` if the data is damaged.
    pub async fn start(self) -> Result<Node, Error> {
        let own = own_region(&self.settings)?.clone();
        let listener = listen(own.http).await?;
        let http = listener.local_addr().map_err(|error| cannot_listen(own.http, &error))?;
        let parts = self.storage()?;
        if let Err(error) = parts.documents.seed(&self.settings.collections).await {
            parts.close().await;
            return Err(error);
        }
        let parts = match self.connect(parts) {
            Ok(parts) => parts,
            Err(failed) => {
                let (error, storage) = *failed;
                storage.close().await;
                return Err(error);
            }
        };
        match Node::assemble(&self.settings, listener, http, parts) {
            Ok(node) => Ok(node),
            Err(failed) => {
                let (error, parts) = *failed;
                parts.transport.shutdown().await;
                parts.storage.close().await;
                Err(error)
            }
        }
    }

    /// Opens the journal and starts the owners.
    fn storage(&self) -> Result<Storage, Error> {
        let limits = &self.settings.limits;
        let owners = owner_threads();
        let (doorbell, queues) = owner_queues(owners, limits.queue);
        let (commits, commit_receiver) = commit_channel();
        let bell = ConflictBell::new();
        let collections = Collections::new([]);
        let journal = self.open_journal(doorbell, commits, bell.clone(), collections.clone())?;
        let clock =
            NodeClock::new(Arc::clone(&self.wall), journal.clock_floor(), limits.clock_skew);
        clock.observe(journal.latest_admission());
        journal.name_origin(journal.origin(), &self.settings.region);
        let loaded = collections.load(&journal);
        loaded.inspect_err(|_| journal.close())?;
        let documents = self.documents(&journal, &clock, collections, (owners, queues));
        let (documents, owners) = documents.inspect_err(|_| journal.close())?;
        let commits = Some(commit_receiver);
        Ok(Storage { journal, documents, owners, clock, bell, commits })
    }

    fn documents(
        &self,
        journal: &Journal,
        clock: &NodeClock,
        collections: Collections,
        (owners, queues): (usize, OwnerQueues),
    ) -> Result<(Documents, Owners), Error> {
        let mut limits = self.settings.limits.clone();
        limits.cache_bytes = limits.cache_bytes.saturating_sub(page_cache(limits.cache_bytes));
        let setting = Setting {
            region: self.settings.region.clone(),
            collections,
            limits,
            owners,
            journal: journal.clone(),
            clock: clock.clone(),
            cluster: Cluster::default(),
        };
        Documents::start(setting, queues)
    }

    fn open_journal(
        &self,
        doorbell: Doorbell,
        commits: CommitSender,
        bell: ConflictBell,
        collections: Collections,
    ) -> Result<Journal, Error> {
        let directory = &self.settings.data;
        fs::create_dir_all(directory).map_err(|error| {
            let message = format!("{}: cannot be created: {error}", directory.display());
            Error::new(ErrorKind::Unavailable, "data_unavailable", message).with_source(error)
        })?;
        let region = self.settings.region.clone();
        let options = JournalOptions {
            cluster: self.settings.cluster,
            region: self.settings.region.clone(),
            cache_bytes: page_cache(self.settings.limits.cache_bytes),
            new_origin: Box::new(move || Origin::of_region(&region, *Uuid::new_v4().as_bytes())),
            publish: Box::new(move |batch| {
                // First, so that who hears of new settings finds them in force.
                collections.committed(batch);
                doorbell.committed(batch);
                commits.committed(batch);
                bell.committed(batch);
            }),
        };
        Journal::open(directory, options).map_err(|error| {
            let (kind, code) = match &error {
                OpenError::Locked => (ErrorKind::Unavailable, "data_in_use"),
                OpenError::Foreign(_) => (ErrorKind::Invalid, "data_of_another_node"),
                OpenError::Format(_) | OpenError::Storage(_) => {
                    (ErrorKind::Corrupt, "data_unreadable")
                }
            };
            let message = format!("{}: {error}", directory.display());
            Error::new(kind, code, message).with_source(error)
        })
    }

    /// Starts the transport; gives the storage back for closing if that fails.
    fn connect(&self, mut storage: Storage) -> Result<Parts, Box<(Error, Storage)>> {
        let changes = Changes::new(storage.journal.clone(), storage.documents.clone());
        let settings = TransportSettings::new(&self.settings)
            .map(|settings| TransportSettings { delay: self.delays.clone(), ..settings });
        let started = match (settings, storage.commits.take()) {
            (Ok(settings), Some(commits)) => {
                let hooks = self.hooks(&storage, &changes);
                Transport::start(&settings, storage.journal.clone(), commits, hooks)
            }
            (Err(error), _) => Err(error),
            (Ok(_), None) => {
                Err(Error::new(ErrorKind::Internal, "node_started_twice", "started twice"))
            }
        };
        match started {
            Ok(transport) => Ok(Parts { storage, changes, transport }),
            Err(error) => Err(Box::new((error, storage))),
        }
    }

    fn hooks(&self, storage: &Storage, changes: &Changes) -> TransportHooks {
        let clock = storage.clock.clone();
        let judged = storage.clock.clone();
        let journal = storage.journal.clone();
        let region = self.settings.region.clone();
        let limits = self.settings.limits.clone();
        let leaves = leaf::Service::new(storage.documents.clone(), changes.clone(), limits);
        TransportHooks {
            observe_clock: Arc::new(move |seen| clock.observe(seen)),
            wall: Arc::clone(&self.wall),
            judge_clock: Arc::new(move |peers, now| {
                let clock = |peer: &PeerStatus| (peer.region.clone(), peer.clock);
                let clocks: Vec<_> = peers.iter().map(clock).collect();
                judged.judge(&clocks, now);
            }),
            origin_renewed: Arc::new(move |identity| {
                journal.name_origin(identity.origin, &region);
            }),
            leaf: Some(Arc::new(leaves)),
        }
    }
}

/// What is on the disk side of a node.
struct Storage {
    journal: Journal,
    documents: Documents,
    owners: Owners,
    clock: NodeClock,
    bell: ConflictBell,
    commits: Option<crate::transport::CommitReceiver>,
}

impl Storage {
    /// Lets the owners finish, and closes the journal.
    async fn close(self) -> Option<Error> {
        self.documents.stop().await;
        let Self { journal, owners, .. } = self;
        let closing = tokio::task::spawn_blocking(move || {
            let ended = owners.join();
            journal.close();
            ended.err()
        });
        closing.await.unwrap_or_else(|_| Some(failed("closing the journal panicked")))
    }
}

struct Parts {
    storage: Storage,
    changes: Changes,
    transport: Transport,
}

/// A running node.
pub struct Node {
    http: SocketAddr,
    quic: SocketAddr,
    parts: Parts,
    handle: TransportHandle,
    edge: JoinSet<std::io::Result<()>>,
    /// Work that never ends by itself.
    chores: JoinSet<()>,
    edge_stop: watch::Sender<bool>,
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Node")
            .field("http", &self.http)
            .field("quic", &self.quic)
            .finish_non_exhaustive()
    }
}

impl Node {
    fn assemble(
        settings: &Settings,
        listener: TcpListener,
        http: SocketAddr,
        parts: Parts,
    ) -> Result<Self, Box<(Error, Parts)>> {
        let handle = parts.transport.handle();
        let quic = match handle.local_addr() {
            Ok(quic) => quic,
            Err(error) => return Err(Box::new((error, parts))),
        };
        let journal = parts.storage.journal.clone();
        let documents = parts.storage.documents.clone();
        let bell = parts.storage.bell.clone();
        let sources = Sources {
            conflicts: Conflicts::new(journal.clone(), documents.clone(), bell),
            documents: documents.clone(),
            changes: parts.changes.clone(),
            peers: handle.status(),
            clock: parts.storage.clock.clone(),
            origin: Box::new(move || journal.origin()),
        };
        let (edge_stop, mut stopped) = watch::channel(false);
        let stop = async move {
            // A node that is dropped stops its edge as well.
            drop(stopped.wait_for(|stopped| *stopped).await);
        };
        let mut edge = JoinSet::new();
        edge.spawn(api::serve(listener, ApiState::new(settings, sources), stop).in_current_span());
        let mut chores = JoinSet::new();
        chores.spawn(Redecider::new(documents.clone()).run().in_current_span());
        let peers = settings.regions.len().saturating_sub(1);
        documents.follow_cluster(handle.cluster());
        chores.spawn(Cleaner::new(documents.clone(), handle.cluster()).run().in_current_span());
        chores.spawn(Retention::new(documents, peers).run().in_current_span());
        info!(%http, %quic, origin = %parts.storage.journal.origin(), "serving");
        Ok(Self { http, quic, parts, handle, edge, chores, edge_stop })
    }

    /// Returns where the node listens for HTTP.
    #[must_use]
    pub fn http_addr(&self) -> SocketAddr {
        self.http
    }

    /// Returns where the node listens for other regions and for offline-first clients.
    #[must_use]
    pub fn quic_addr(&self) -> SocketAddr {
        self.quic
    }

    /// Returns the node's documents, for programs that embed it.
    #[must_use]
    pub fn documents(&self) -> Documents {
        self.parts.storage.documents.clone()
    }

    /// Returns the node's change feed.
    #[must_use]
    pub fn changes(&self) -> Changes {
        self.parts.changes.clone()
    }

    /// Returns a handle by which links can be watched, cut and delayed.
    #[must_use]
    pub fn transport(&self) -> TransportHandle {
        self.handle.clone()
    }

    /// Runs until `shutdown` resolves, then stops cleanly.
    ///
    /// # Errors
    /// A part failed; the node is stopped all the same.
    pub async fn run_until(mut self, shutdown: impl Future<Output = ()>) -> Result<(), Error> {
        let failure = tokio::select! {
            () = shutdown => None,
            failure = self.failure() => Some(failure),
        };
        let stopped = self.shutdown().await;
        failure.map_or(stopped, Err)
    }

    /// Stops cleanly: no more requests, then no more links, then the disk.
    ///
    /// # Errors
    /// A part failed while it was stopped.
    pub async fn shutdown(mut self) -> Result<(), Error> {
        self.edge_stop.send_replace(true);
        self.chores.shutdown().await;
        while let Some(ended) = self.edge.join_next().await {
            if let Some(error) = edge_failure(Some(ended)) {
                tracing::error!(%error, "the HTTP edge failed while it was stopped");
            }
        }
        let Parts { storage, transport, .. } = self.parts;
        transport.shutdown().await;
        let failure = storage.close().await;
        info!("stopped");
        failure.map_or(Ok(()), Err)
    }

    /// Waits until a part fails.
    async fn failure(&mut self) -> Error {
        tokio::select! {
            ended = self.edge.join_next() => {
                edge_failure(ended).unwrap_or_else(|| failed("the HTTP edge ended"))
            }
            error = self.parts.transport.wait() => error,
            Some(_) = self.chores.join_next() => failed("the retention of conflicts panicked"),
            () = self.parts.storage.owners.ended() => failed("a document owner panicked"),
        }
    }
}

fn edge_failure(ended: Option<Result<std::io::Result<()>, JoinError>>) -> Option<Error> {
    match ended? {
        Ok(Ok(())) => None,
        Ok(Err(error)) => Some(failed(&format!("the HTTP edge failed: {error}"))),
        Err(error) => Some(failed(&format!("the HTTP edge panicked: {error}"))),
    }
}

fn failed(what: &str) -> Error {
    Error::new(ErrorKind::Internal, "part_failed", what)
}

fn own_region(settings: &Settings) -> Result<&RegionSettings, Error> {
    let own = settings.regions.iter().find(|region| region.name == settings.region);
    own.ok_or_else(|| {
        let message = format!("{} is no region of the configuration", settings.region);
        Error::new(ErrorKind::Invalid, "unknown_region", message)
    })
}

async fn listen(address: SocketAddr) -> Result<TcpListener, Error> {
    TcpListener::bind(address).await.map_err(|error| cannot_listen(address, &error))
}

fn cannot_listen(address: SocketAddr, error: &std::io::Error) -> Error {
    let message = format!("cannot listen for HTTP at {address}: {error}");
    Error::new(ErrorKind::Unavailable, "cannot_listen", message)
}

/// Owners are busy with automerge, and the journal thread with the disk: more owners than cores
/// would only take turns.
fn owner_threads() -> usize {
    std::thread::available_parallelism().map_or(1, |cores| cores.get().min(MAX_OWNERS))
}

/// A quarter of the cache is redb's, the rest holds loaded documents.
fn page_cache(cache_bytes: usize) -> usize {
    cache_bytes / 4
}

fn system_clock() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(u64::try_from(since.as_micros()).unwrap_or(u64::MAX)).min(Timestamp::MAX)
}

/// With more owners the one journal thread is the limit.
const MAX_OWNERS: usize = 4;
