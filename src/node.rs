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
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anabranch_crdt::ids::{CollectionName, Origin, RegionName, Timestamp};
use anabranch_crdt::policy::Policies;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::{JoinError, JoinSet};
use tracing::{Instrument, info, warn};
use uuid::Uuid;

use crate::api::{self, ApiState, Sources};
use crate::consistency::Consistency;
use crate::document::{
    Cleaner, Closed, Cluster, Collections, Documents, Door, Doorbell, NodeClock, OwnerQueues,
    Owners, Redecider, Retention, Seeded, Setting, Trimmer, WallClock, owner_queues,
};
use crate::error::{Error, ErrorKind};
use crate::journal::{Journal, JournalOptions, OpenError, Start};
use crate::leaf;
use crate::replication::{Member, MemberState, Members, PeerStatus, decode_members};
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
        let seeded = match parts.documents.seed(&self.settings.collections).await {
            Ok(seeded) => seeded,
            Err(error) => {
                parts.close().await;
                return Err(error);
            }
        };
        let parts = match self.connect(parts, http) {
            Ok(parts) => parts,
            Err(failed) => {
                let (error, storage) = *failed;
                storage.close().await;
                return Err(error);
            }
        };
        match Node::assemble(&self.settings, listener, http, parts) {
            Ok(mut node) => {
                if seeded == Seeded::WhenSettled {
                    node.seed_when_settled(self.settings.collections);
                }
                Ok(node)
            }
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
        self.settle_origin(&journal).inspect_err(|_| journal.close())?;
        journal.name_origin(journal.origin(), &self.settings.region);
        let loaded = collections.load(&journal);
        loaded.inspect_err(|_| journal.close())?;
        let door = Door::default();
        let documents = self.documents(&journal, &clock, collections, &door, (owners, queues));
        let (documents, owners) = documents.inspect_err(|_| journal.close())?;
        let commits = Some(commit_receiver);
        let consistency = Arc::default();
        Ok(Storage { journal, documents, owners, clock, bell, door, consistency, commits })
    }

    /// Makes sure that nothing is admitted under an origin that others may have: see
    /// [`crate::journal::Standing`].
    fn settle_origin(&self, journal: &Journal) -> Result<(), Error> {
        match journal.incarnation().start {
            Start::Fresh => {}
            Start::Broken => {
                warn!(
                    "the node was not stopped in order, so a copy of its machine may go on as it: \
                     it takes a new origin; nothing is to be done"
                );
                // As short as the opening of the journal; but it must not be called in a runtime.
                std::thread::scope(|scope| scope.spawn(|| journal.renew_origin()).join())
                    .map_err(|_| failed("the journal panicked when it took a new origin"))??;
            }
            // Nobody else has the data, and the file is the one that this node left.
            Start::Kept { .. } if self.is_alone(journal)? => {}
            Start::Kept { .. } => journal.hold(),
        }
        Ok(())
    }

    /// Tells whether no other region was ever known, nor is to be found.
    fn is_alone(&self, journal: &Journal) -> Result<bool, Error> {
        let told = self.settings.regions.len() > 1 || !self.settings.joining.ask.is_empty();
        Ok(!told && journal.members()?.is_none_or(|stored| is_one_member(&stored)))
    }

    fn documents(
        &self,
        journal: &Journal,
        clock: &NodeClock,
        collections: Collections,
        door: &Door,
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
            door: door.clone(),
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
    fn connect(
        &self,
        mut storage: Storage,
        http: SocketAddr,
    ) -> Result<Parts, Box<(Error, Storage)>> {
        let changes = Changes::new(storage.journal.clone(), storage.documents.clone());
        let settings = TransportSettings::new(&self.settings).map(|settings| TransportSettings {
            delay: self.delays.clone(),
            http,
            ..settings
        });
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
        let door = storage.door.clone();
        let documents = storage.documents.clone();
        let limits = &self.settings.limits;
        let leaves = leaf::Service::new(
            documents,
            changes.clone(),
            limits,
            Arc::clone(&storage.consistency),
        );
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
            standing: Arc::new(move |members| door.set(closed(members))),
            leaf: Some(Arc::new(leaves)),
            documents: Some(storage.documents.clone()),
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
    door: Door,
    /// Filled once the transport runs, which is after the first client may have come.
    consistency: Arc<OnceLock<Consistency>>,
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
        let consistency = Consistency::new(settings.region.clone(), handle.clone());
        let consistency = parts.storage.consistency.get_or_init(|| consistency).clone();
        let sources = Sources {
            conflicts: Conflicts::new(journal.clone(), documents.clone(), bell),
            documents: documents.clone(),
            changes: parts.changes.clone(),
            peers: handle.status(),
            replicas: handle.replicas(),
            clock: parts.storage.clock.clone(),
            consistency: consistency.clone(),
            door: parts.storage.door.clone(),
            transport: handle.clone(),
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
        chores.spawn(consistency.run().in_current_span());
        chores.spawn(documents.clone().look_when_settled().in_current_span());
        chores.spawn(Redecider::new(documents.clone()).run().in_current_span());
        let members = handle.members();
        let peers = move || members.borrow().others().count();
        chores.spawn(Trimmer::new(documents.clone(), handle.cluster()).run().in_current_span());
        documents.follow_cluster(handle.cluster());
        chores.spawn(Cleaner::new(documents.clone(), handle.cluster()).run().in_current_span());
        chores.spawn(Retention::new(documents, peers).run().in_current_span());
        info!(%http, %quic, origin = %parts.storage.journal.origin(), "serving");
        Ok(Self { http, quic, parts, handle, edge, chores, edge_stop })
    }

    /// Gives collections the settings of the configuration file as soon as that can be.
    fn seed_when_settled(&mut self, file: BTreeMap<CollectionName, Policies>) {
        let documents = self.documents();
        let seeding = async move {
            loop {
                let settled = documents.settled().await;
                match settled.and(documents.seed(&file).await) {
                    Ok(Seeded::All) => break,
                    Ok(Seeded::WhenSettled) => {}
                    Err(error) => warn!(%error, "collections did not get the file's settings"),
                }
                tokio::time::sleep(SEED_PAUSE).await;
            }
            std::future::pending().await
        };
        self.chores.spawn(seeding.in_current_span());
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
            Some(_) = self.chores.join_next() => failed("a chore of the node panicked"),
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

/// Tells why a region that stands like this takes no writes, if it takes none.
/// A table that cannot be read is one of who knows how many.
fn is_one_member(stored: &[u8]) -> bool {
    decode_members(stored).is_ok_and(|members| members.len() < 2)
}

fn closed(members: &Members) -> Option<Closed> {
    let standing = members.own_standing();
    let own = members.own();
    let (code, why) = match standing.state {
        MemberState::Active => return None,
        MemberState::Draining => ("draining", format!("{own} is draining")),
        MemberState::Left => ("region_left", format!("{own} has left the cluster")),
        MemberState::Forgotten => {
            let cure = "it returns when it is started with `--join ADDRESS`";
            ("region_forgotten", format!("the other regions go on without {own}; {cure}"))
        }
    };
    let active = |member: &&Member| member.standing.state == MemberState::Active;
    let http = |member: &Member| Some(format!("http://{}", member.contact.as_ref()?.http));
    let others: Vec<String> = members.others().filter(active).filter_map(http).collect();
    let elsewhere = match others.is_empty() {
        true => String::new(),
        false => format!(": write at {}", others.join(", ")),
    };
    Some(Closed { code, message: format!("{why}, and takes no writes{elsewhere}") })
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

/// Between attempts to give collections the settings of the configuration file.
const SEED_PAUSE: Duration = Duration::from_secs(1);

/// With more owners the one journal thread is the limit.
const MAX_OWNERS: usize = 4;
