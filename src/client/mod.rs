//! The offline-first client: a replica on the user's own disk that syncs when there is a network.
//!
//! Reads and edits touch the replica alone. An edit is durable when the call returns, with or
//! without a network, and stays in the replica until a region has made it durable too. Syncing
//! pushes what is new here and pulls what is new there, over QUIC, as a leaf of the region that
//! answers first; what was written on both sides is merged, and every collision is reported with
//! both values.
//!
//! # What shows
//!
//! A client shows a document by the policies that it was told in [`ClientSettings::collections`],
//! and by `auto` where it was told none. The policies of the cluster's leaders decide what every
//! other reader sees; where they settle a collision, they write that into the document, and the
//! client shows it after the next sync.
//!
//! # Example
//!
//! ```no_run
//! use anabranch::client::{Client, ClientSettings};
//! # async fn example(settings: ClientSettings) -> Result<(), Box<dyn std::error::Error>> {
//! let client = Client::open(settings)?;
//! client.subscribe(&"lists".parse()?)?;
//! let name = "lists/shopping".parse()?;
//! client.put(&name, &serde_json::json!({ "milk": 2 }))?;
//! let report = client.sync_once().await?;
//! for (name, document) in &report.documents {
//!     println!("{name}: {} pushed, {} pulled", document.pushed, document.pulled);
//! }
//! # Ok(())
//! # }
//! ```

mod background;
mod link;
mod replica;
mod report;
mod sync;
#[cfg(test)]
#[cfg(feature = "server")]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::net::SocketAddr;
use std::panic::resume_unwind;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anabranch_crdt::edit::Edit;
use anabranch_crdt::ids::{ClusterId, CollectionName, DocumentName, NameError, Origin};
use anabranch_crdt::policy::Policies;
use anabranch_crdt::token;
use serde_json::Value;
use tokio::sync::watch;

pub use report::{
    CollidedValue, Collision, ConnectionState, DocumentReport, Side, SyncReport, SyncStatus,
};

pub use crate::consistency::{Reached, WriteConcern};
use crate::document::check_writable;
use crate::error::{Error, ErrorKind};
use crate::leaf::CONFIRM_WAIT;
use crate::leaf::{MAX_WATCHED_COLLECTIONS, MAX_WATCHED_NAMES};
pub use crate::leaf::{Outlook, Refusal};
use crate::settings::{Limits, PkiPaths};
use link::Link;
use replica::{LocalWrite, Replica, ReplicaSettings, Written};
use sync::Scope;

/// Everything that a client is told.
#[derive(Debug, Clone)]
pub struct ClientSettings {
    /// The directory of the replica; each client has its own.
    pub directory: PathBuf,
    /// The cluster; a node of another one is refused, and so is its replica.
    pub cluster: ClusterId,
    /// The QUIC addresses of nodes, of several regions, the preferred one first. The one that
    /// answers first is taken.
    pub nodes: Vec<SocketAddr>,
    /// Where the client's certificate is; see `anabranch pki`.
    pub pki: PkiPaths,
    /// The policies by which documents show here, by collection. Default: `auto` for all.
    pub collections: BTreeMap<CollectionName, Policies>,
    /// What is accepted at most, as in the nodes' settings; of it, the limits on documents count.
    pub limits: Limits,
    /// Bytes of a frame that closes the connection if exceeded. Default 16 MiB.
    pub frame_bytes: usize,
    /// The first wait before another attempt to connect; it doubles. Default 200 ms.
    pub retry_first: Duration,
    /// The longest wait before another attempt to connect. Default 30 s.
    pub retry_longest: Duration,
}

impl ClientSettings {
    /// Makes settings with the defaults.
    #[must_use]
    pub fn new(
        directory: impl Into<PathBuf>,
        cluster: ClusterId,
        nodes: Vec<SocketAddr>,
        pki: PkiPaths,
    ) -> Self {
        Self {
            directory: directory.into(),
            cluster,
            nodes,
            pki,
            collections: BTreeMap::new(),
            limits: Limits::default(),
            frame_bytes: 16 << 20,
            retry_first: Duration::from_millis(200),
            retry_longest: Duration::from_secs(30),
        }
    }
}

/// What a client keeps a copy of.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subscription {
    /// Every document of a collection.
    Collection(CollectionName),
    /// One document.
    Document(DocumentName),
}

/// Changes of this client that a region has not taken. They stay in the replica.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefusedDocument {
    /// The document.
    pub name: DocumentName,
    /// Why.
    pub refusal: Refusal,
}

/// An offline-first client. Clones are cheap and share the replica; it closes with the last one.
#[derive(Debug, Clone)]
pub struct Client {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    settings: ClientSettings,
    replica: Mutex<Replica>,
    network: watch::Sender<Network>,
    /// Counts edits.
    edits: watch::Sender<u64>,
    /// Counts changes of the subscriptions.
    subscribed: watch::Sender<u64>,
    status: watch::Sender<SyncStatus>,
    syncing: tokio::sync::Mutex<()>,
}

/// Whether the client may use the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Network {
    On,
    Off,
}

impl Client {
    /// Opens the replica, and creates it if there is none. No network is needed.
    ///
    /// # Errors
    /// `Conflict` with code `replica_in_use` while another client has it open, `Invalid` for a
    /// replica of another cluster, `Corrupt` and `Unavailable` for one that cannot be read.
    pub fn open(settings: ClientSettings) -> Result<Self, Error> {
        let replica = Replica::open(
            &settings.directory,
            ReplicaSettings {
                cluster: settings.cluster,
                collections: settings.collections.clone(),
                limits: settings.limits.clone(),
            },
        )?;
        let shared = Shared {
            settings,
            replica: Mutex::new(replica),
            network: watch::Sender::new(Network::On),
            edits: watch::Sender::new(0),
            subscribed: watch::Sender::new(0),
            status: watch::Sender::new(SyncStatus::default()),
            syncing: tokio::sync::Mutex::new(()),
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Reads a document from the replica; `None` if it is not here, or deleted.
    ///
    /// # Errors
    /// `Corrupt`, `Unavailable`.
    pub fn read(&self, name: &DocumentName) -> Result<Option<Value>, Error> {
        self.shared.replica().value(name)
    }

    /// Lists the documents of a collection that are in the replica, in the order of their keys.
    ///
    /// # Errors
    /// `Corrupt`, `Unavailable`.
    pub fn list(&self, collection: &CollectionName) -> Result<Vec<DocumentName>, Error> {
        let mut replica = self.shared.replica();
        let mut live = Vec::new();
        for name in replica.names(collection)? {
            if replica.digest(&name)?.is_some_and(|(_, exists)| exists) {
                live.push(name);
            }
        }
        Ok(live)
    }

    /// Makes a document equal to `value`, by the fewest edits, and returns once that is durable
    /// in the replica. A document that does not exist is created.
    ///
    /// # Errors
    /// `Invalid` and `TooLarge` for a value that a document cannot hold; `Forbidden` (the reserved
    /// collection); `Corrupt`, `Unavailable`.
    pub fn put(&self, name: &DocumentName, value: &Value) -> Result<(), Error> {
        self.write(name, LocalWrite::Put(value))
    }

    /// Edits a document, and returns once that is durable in the replica.
    ///
    /// # Errors
    /// `NotFound` if it is not in the replica, `Invalid` and `TooLarge` for edits that do not fit;
    /// `Corrupt`, `Unavailable`.
    pub fn edit(&self, name: &DocumentName, edits: &[Edit]) -> Result<(), Error> {
        self.write(name, LocalWrite::Edits(edits))
    }

    /// Deletes a document, and returns once that is durable in the replica.
    ///
    /// # Errors
    /// `NotFound` if it is not in the replica; `Corrupt`, `Unavailable`.
    pub fn delete(&self, name: &DocumentName) -> Result<(), Error> {
        self.write(name, LocalWrite::Delete)
    }

    fn write(&self, name: &DocumentName, write: LocalWrite<'_>) -> Result<(), Error> {
        check_writable(&name.collection)?;
        let written = self.shared.replica().write(name, write)?;
        if written == Written::Change {
            self.shared.edits.send_modify(|edits| *edits = edits.wrapping_add(1));
        }
        Ok(())
    }

    /// Keeps a copy of every document of a collection, from the next sync on.
    ///
    /// # Errors
    /// `TooLarge` with too many subscriptions; `Corrupt`, `Unavailable`.
    pub fn subscribe(&self, collection: &CollectionName) -> Result<(), Error> {
        self.subscribe_to(&Subscription::Collection(collection.clone()))
    }

    /// Keeps a copy of a document, from the next sync on.
    ///
    /// # Errors
    /// `TooLarge` with too many subscriptions; `Corrupt`, `Unavailable`.
    pub fn subscribe_document(&self, name: &DocumentName) -> Result<(), Error> {
        self.subscribe_to(&Subscription::Document(name.clone()))
    }

    /// Ends a subscription. What is in the replica stays, and is synced no more.
    ///
    /// # Errors
    /// `Corrupt`, `Unavailable`.
    pub fn unsubscribe(&self, subscription: &Subscription) -> Result<(), Error> {
        self.shared.replica().unsubscribe(subscription)?;
        self.shared.subscribed.send_modify(|changes| *changes = changes.wrapping_add(1));
        Ok(())
    }

    /// Returns what the client keeps a copy of.
    ///
    /// # Errors
    /// `Corrupt`, `Unavailable`.
    pub fn subscriptions(&self) -> Result<Vec<Subscription>, Error> {
        self.shared.replica().subscriptions()
    }

    fn subscribe_to(&self, subscription: &Subscription) -> Result<(), Error> {
        let mut replica = self.shared.replica();
        let present = replica.subscriptions()?;
        if present.contains(subscription) {
            return Ok(());
        }
        check_room(subscription, &present)?;
        replica.subscribe(subscription)?;
        self.shared.subscribed.send_modify(|changes| *changes = changes.wrapping_add(1));
        Ok(())
    }

    /// Tells whether the replica holds changes that no region has made durable.
    ///
    /// # Errors
    /// `Corrupt`, `Unavailable`.
    pub fn has_unsynced_changes(&self) -> Result<bool, Error> {
        Ok(!self.shared.replica().unsynced(None, 1)?.is_empty())
    }

    /// Lists the documents with changes that no region has made durable.
    ///
    /// # Errors
    /// `Corrupt`, `Unavailable`.
    pub fn unsynced(&self) -> Result<Vec<DocumentName>, Error> {
        let mut names = self.shared.replica().unsynced(None, usize::MAX)?;
        names.sort_unstable();
        Ok(names)
    }

    /// Lists the documents whose changes a region has refused, with the reasons. The changes stay
    /// in the replica. They are tried again by [`Client::sync_once`], on each connection of
    /// [`Client::run`], and after the next edit of the document; [`Client::discard`] gives them up.
    ///
    /// # Errors
    /// `Corrupt`, `Unavailable`.
    pub fn refused(&self) -> Result<Vec<RefusedDocument>, Error> {
        let refused = self.shared.replica().refused()?.into_iter();
        let mut refused: Vec<_> =
            refused.map(|(name, refusal)| RefusedDocument { name, refusal }).collect();
        refused.sort_unstable_by(|one, other| one.name.cmp(&other.name));
        Ok(refused)
    }

    /// Throws away the changes of a document that no region has made durable, and returns how
    /// many they were. The document shows what the region had when it was last pulled.
    ///
    /// # Errors
    /// `Corrupt`, `Unavailable`.
    pub fn discard(&self, name: &DocumentName) -> Result<usize, Error> {
        self.shared.replica().discard(name)
    }

    /// Lists the collisions of a document, open and settled.
    ///
    /// # Errors
    /// `Corrupt`, `Unavailable`.
    pub fn collisions(&self, name: &DocumentName) -> Result<Vec<Collision>, Error> {
        let mut replica = self.shared.replica();
        let own = replica.writer();
        let conflicts = replica.conflicts(name)?.into_iter();
        Ok(conflicts.map(|conflict| Collision::new(conflict, own)).collect())
    }

    /// Returns the id under which this replica writes; it stands in every change.
    #[must_use]
    pub fn writer(&self) -> Origin {
        self.shared.replica().writer()
    }

    /// Returns a session token that includes everything that regions have confirmed or sent to
    /// this client; an HTTP request that carries it is answered from a state that has it too.
    ///
    /// # Errors
    /// `Corrupt`, `Unavailable`.
    pub fn token(&self) -> Result<String, Error> {
        Ok(token::encode(&self.shared.replica().vector()?))
    }

    /// Switches the network off: a sync under way ends, and none begins.
    pub fn offline(&self) {
        self.shared.network.send_replace(Network::Off);
    }

    /// Switches the network on again.
    pub fn online(&self) {
        self.shared.network.send_replace(Network::On);
    }

    /// Connects to the region that answers first, pushes every unsynced change, and pulls every
    /// document that is subscribed to and differs, and those that were pushed.
    ///
    /// # Errors
    /// `Unavailable` when no region answers, when the connection is lost, and while the network
    /// is switched off; what was done until then stays done. `Corrupt` for a damaged replica.
    ///
    /// # Cancel safety
    /// A sync whose future is dropped resumes with the next.
    pub async fn sync_once(&self) -> Result<SyncReport, Error> {
        let mut network = self.shared.network.subscribe();
        tokio::select! {
            biased;
            _ = network.wait_for(|network| *network == Network::Off) => {
                let message = "the network of this client is switched off";
                Err(Error::new(ErrorKind::Unavailable, "client_offline", message))
            }
            outcome = self.sync() => outcome,
        }
    }

    async fn sync(&self) -> Result<SyncReport, Error> {
        let _one_at_a_time = self.shared.syncing.lock().await;
        let link = Link::connect(&self.shared.settings).await?;
        let report = sync::sync(&self.shared, &link, Scope::Subscribed).await;
        link.close().await;
        report
    }

    /// Waits until everything that regions have confirmed or sent to this client, which is what
    /// [`Client::token`] stands for, is durable where `concern` wants it; for `wait` at most, of
    /// which the longest is 30 s. So after a sync a user can be told that a change survives the
    /// loss of the region that took it. Changes that are not synced are not waited for.
    ///
    /// # Errors
    /// `Unavailable` when no region answers, or the one that does is behind this client, or the
    /// cluster can never meet the concern. That it is not met in time is no error.
    ///
    /// # Cancel safety
    /// Nothing is lost when the future is dropped.
    pub async fn confirm(&self, concern: &WriteConcern, wait: Duration) -> Result<Reached, Error> {
        let vector = self.shared.with(|replica| replica.vector()).await?;
        let link = Link::connect(&self.shared.settings).await?;
        let confirmed = link.confirm(vector, concern.clone(), wait.min(CONFIRM_WAIT)).await;
        link.close().await;
        confirmed
    }

    /// Keeps the replica synced until `shutdown` resolves: edits are pushed as they are made, and
    /// what changes in the region is pulled at once. A lost connection is made again, in growing
    /// intervals. [`Client::status`] tells how it goes.
    pub async fn run(&self, shutdown: impl Future<Output = ()>) {
        tokio::select! {
            biased;
            () = shutdown => {}
            never = background::keep_synced(&self.shared) => match never {},
        }
        self.shared.show(|status| status.connection = ConnectionState::Idle);
    }

    /// Follows how [`Client::run`] is doing.
    #[must_use]
    pub fn status(&self) -> watch::Receiver<SyncStatus> {
        self.shared.status.subscribe()
    }
}

impl Shared {
    fn replica(&self) -> MutexGuard<'_, Replica> {
        // A panic leaves at worst a document out of the cache, which is read again.
        self.replica.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Works on the replica where blocking harms nobody.
    async fn with<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&mut Replica) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let shared = Arc::clone(self);
        let done = tokio::task::spawn_blocking(move || work(&mut shared.replica())).await;
        done.unwrap_or_else(|error| match error.try_into_panic() {
            Ok(panic) => resume_unwind(panic),
            Err(_) => {
                let message = "the program is ending";
                Err(Error::new(ErrorKind::Unavailable, "shutting_down", message))
            }
        })
    }

    fn show(&self, change: impl FnOnce(&mut SyncStatus)) {
        self.status.send_modify(change);
    }
}

impl fmt::Display for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Collection(collection) => collection.fmt(f),
            Self::Document(name) => name.fmt(f),
        }
    }
}

impl FromStr for Subscription {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        if text.contains('/') {
            text.parse().map(Self::Document)
        } else {
            text.parse().map(Self::Collection)
        }
    }
}

/// A node takes so many subscriptions in one request.
fn check_room(subscription: &Subscription, present: &[Subscription]) -> Result<(), Error> {
    let collection = |other: &&Subscription| matches!(other, Subscription::Collection(_));
    let collections = present.iter().filter(collection).count();
    let (count, limit, what) = match subscription {
        Subscription::Collection(_) => (collections, MAX_WATCHED_COLLECTIONS, "collections"),
        Subscription::Document(_) => {
            (present.len().saturating_sub(collections), MAX_WATCHED_NAMES, "documents")
        }
    };
    if count < limit {
        return Ok(());
    }
    let message = format!(
        "a client subscribes to at most {limit} {what}: subscribe to whole collections, or end \
         subscriptions"
    );
    Err(Error::new(ErrorKind::TooLarge, "too_many_subscriptions", message))
}
