//! Syncing in the background: connected while there is a network, and told of what changes.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use anabranch_crdt::ids::DocumentName;
use futures::FutureExt;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};

use super::link::{Link, Watching};
use super::report::ConnectionState;
use super::sync::{Scope, has_to_be_repeated, sync};
use super::{Network, Shared, Subscription};
use crate::error::{Error, ErrorKind};

/// Keeps the replica synced, for ever.
pub(super) async fn keep_synced(shared: &Arc<Shared>) -> Infallible {
    let mut network = shared.network.subscribe();
    let mut backoff = Backoff::new(shared);
    loop {
        if *network.borrow_and_update() == Network::Off {
            shared.show(|status| status.connection = ConnectionState::Offline);
            turned(&mut network, Network::On).await;
            backoff.reset();
        }
        shared.show(|status| status.connection = ConnectionState::Connecting);
        let error = tokio::select! {
            () = turned(&mut network, Network::Off) => continue,
            error = stay_connected(shared, &mut backoff) => error,
        };
        tracing::debug!(%error, "the connection to the region is lost");
        shared.show(|status| {
            status.connection = ConnectionState::Connecting;
            status.error = Some(error.to_string());
        });
        tokio::select! {
            () = turned(&mut network, Network::Off) => {}
            () = sleep(backoff.next()) => {}
        }
    }
}

/// Connects, syncs, and goes on until something fails.
async fn stay_connected(shared: &Arc<Shared>, backoff: &mut Backoff) -> Error {
    let link = match Link::connect(&shared.settings).await {
        Ok(link) => link,
        Err(error) => return error,
    };
    let outcome = tokio::select! {
        outcome = follow(shared, &link, backoff) => outcome,
        error = link.closed() => Err(error),
    };
    match outcome {
        Err(error) => error,
        Ok(never) => match never {},
    }
}

async fn follow(
    shared: &Arc<Shared>,
    link: &Link,
    backoff: &mut Backoff,
) -> Result<Infallible, Error> {
    let mut subscribed = shared.subscribed.subscribe();
    loop {
        subscribed.borrow_and_update();
        let watching = watch_subscribed(shared, link).await?;
        let mut following = Following::new(shared, link, watching);
        following.sync(Scope::Subscribed).await?;
        backoff.reset();
        tokio::select! {
            outcome = following.run() => return outcome,
            _ = subscribed.changed() => {}
        }
    }
}

async fn watch_subscribed(shared: &Arc<Shared>, link: &Link) -> Result<Watching, Error> {
    let (mut collections, mut names) = (Vec::new(), Vec::new());
    for subscription in shared.with(|replica| replica.subscriptions()).await? {
        match subscription {
            Subscription::Collection(collection) => collections.push(collection),
            Subscription::Document(name) => names.push(name),
        }
    }
    link.watch(collections, names).await
}

/// One connection with one set of subscriptions.
struct Following<'a> {
    shared: &'a Arc<Shared>,
    link: &'a Link,
    watching: Watching,
    edits: watch::Receiver<u64>,
    /// When to try again what was refused for now.
    again: Option<Instant>,
    retry: Backoff,
}

impl<'a> Following<'a> {
    fn new(shared: &'a Arc<Shared>, link: &'a Link, watching: Watching) -> Self {
        let edits = shared.edits.subscribe();
        Self { shared, link, watching, edits, again: None, retry: Backoff::new(shared) }
    }

    async fn run(&mut self) -> Result<Infallible, Error> {
        loop {
            let names = tokio::select! {
                name = self.watching.next() => self.ready(name?)?,
                edited = self.edits.changed() => {
                    edited.map_err(|_| closed())?;
                    BTreeSet::new()
                }
                () = due(self.again) => {
                    self.sync(Scope::Subscribed).await?;
                    continue;
                }
            };
            self.sync(Scope::Documents(names)).await?;
        }
    }

    /// Takes the names that wait behind one, so that a document that changes often is pulled once.
    fn ready(&mut self, first: DocumentName) -> Result<BTreeSet<DocumentName>, Error> {
        let mut names = BTreeSet::from([first]);
        while names.len() < MAX_READY {
            let Some(name) = self.watching.next().now_or_never() else { break };
            names.insert(name?);
        }
        Ok(names)
    }

    async fn sync(&mut self, scope: Scope) -> Result<(), Error> {
        let _one_at_a_time = self.shared.syncing.lock().await;
        self.edits.borrow_and_update();
        let report = sync(self.shared, self.link, scope).await?;
        if has_to_be_repeated(&report) {
            self.again = Some(Instant::now() + self.retry.next());
        } else {
            self.again = None;
            self.retry.reset();
        }
        self.shared.show(|status| {
            status.connection = ConnectionState::Connected(report.region.clone());
            status.error = None;
            status.last = Some(Arc::new(report));
        });
        Ok(())
    }
}

/// Waits until the network is as wanted; for ever, once nobody can turn it.
async fn turned(network: &mut watch::Receiver<Network>, wanted: Network) {
    if network.wait_for(|network| *network == wanted).await.is_err() {
        std::future::pending::<()>().await;
    }
}

async fn due(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}

fn closed() -> Error {
    Error::new(ErrorKind::Unavailable, "client_closed", "the client is closed")
}

/// Waits that grow, with jitter, so that clients of a region that was away do not all come back
/// in one moment.
struct Backoff {
    first: Duration,
    longest: Duration,
    next: Duration,
}

impl Backoff {
    fn new(shared: &Shared) -> Self {
        let settings = &shared.settings;
        let (first, longest) = (settings.retry_first, settings.retry_longest);
        Self { first, longest, next: first }
    }

    fn reset(&mut self) {
        self.next = self.first;
    }

    fn next(&mut self) -> Duration {
        let wait = self.next.mul_f64(rand::random_range(0.5..1.0));
        self.next = self.next.saturating_mul(2).min(self.longest);
        wait
    }
}

/// Names that are taken from the stream of events before they are pulled.
const MAX_READY: usize = 1_024;
