//! The node's side of a conversation with a leaf.
//!
//! One conversation holds one message and one answer at a time, so what a client can make a node
//! hold is bounded by its streams. Whoever is slow to read waits in the transport.

use std::collections::BTreeSet;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anabranch_crdt::ids::{ChangeHash, CollectionName, DocumentId, DocumentKey, DocumentName};
use anabranch_crdt::token;
use anabranch_crdt::version::VersionVector;
use bytes::Bytes;
use futures::future::BoxFuture;
use tokio::time::{Instant, sleep_until, timeout};
use tracing::{debug, trace};

use super::message::pages;
use super::{Outlook, PAGE_BYTES, PROTOCOL, Refusal, Reply, Request, Since};
use crate::consistency::{Consistency, Reached, WriteConcern};
use crate::document::Documents;
use crate::error::{Error, ErrorKind};
use crate::pki::ClientName;
use crate::settings::Limits;
use crate::subscription::{ChangeEvent, Changes};
use crate::transport::leaf::{LeafService, LeafStream};
use crate::transport::{FrameError, FrameReader, FrameWriter};

/// Serves leaves from the documents of this node.
#[derive(Debug, Clone)]
pub struct Service {
    documents: Documents,
    changes: Changes,
    page_bytes: usize,
    consistency: Arc<OnceLock<Consistency>>,
}

impl Service {
    /// Makes the service; it fills messages with changes up to the frame size of `limits`, and
    /// never beyond [`PAGE_BYTES`]. Until there is a `consistency`, clients that want to wait for
    /// other regions are asked to come again.
    #[must_use]
    pub fn new(
        documents: Documents,
        changes: Changes,
        limits: &Limits,
        consistency: Arc<OnceLock<Consistency>>,
    ) -> Self {
        let page_bytes = limits.frame_bytes.min(PAGE_BYTES);
        Self { documents, changes, page_bytes, consistency }
    }
}

impl LeafService for Service {
    fn serve(&self, client: ClientName, stream: LeafStream) -> BoxFuture<'static, ()> {
        let (writer, reader) = stream.split();
        let conversation = Conversation { service: self.clone(), writer, reader };
        Box::pin(conversation.run(client))
    }
}

/// One stream of a client.
struct Conversation {
    service: Service,
    writer: FrameWriter,
    reader: FrameReader,
}

/// Why a conversation ended before the client finished it.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error("{0}")]
    Lost(#[from] FrameError),
    #[error("{0}")]
    Refused(Refusal),
}

impl Conversation {
    async fn run(mut self, client: ClientName) {
        match self.converse().await {
            Ok(()) => trace!(%client, "a client has finished a conversation"),
            Err(Ended::Lost(error)) => debug!(%client, %error, "a conversation was cut off"),
            Err(Ended::Refused(refusal)) => {
                debug!(%client, code = refusal.code, reason = refusal.message, "a client is refused");
                // The client may be gone already.
                let _ = self.send(&Reply::Refused(refusal)).await;
            }
        }
        self.writer.finish();
    }

    async fn converse(&mut self) -> Result<(), Ended> {
        self.greet().await?;
        while let Some(request) = self.next(IDLE_TIMEOUT).await? {
            match request {
                Request::Hello { .. } => return Err(violated("a second hello")),
                Request::Push { name, changes } => self.push(name, changes).await?,
                Request::Pull { name, heads } => self.pull(name, heads).await?,
                Request::List { collection, prefix, after, limit } => {
                    self.list(&collection, &prefix, after.as_ref(), limit).await?;
                }
                Request::Confirm { vector, concern, wait } => {
                    self.confirm(&vector, &concern, wait).await?;
                }
                Request::Watch { collections, names, since } => {
                    let wanted = Wanted::new(collections, names);
                    return self.watch(&wanted, since).await;
                }
            }
        }
        Ok(())
    }

    async fn greet(&mut self) -> Result<(), Ended> {
        match self.next(HELLO_TIMEOUT).await? {
            Some(Request::Hello { protocol: PROTOCOL }) => {
                let vector = self.service.documents.session();
                let region = self.service.documents.region().clone();
                Ok(self.send(&Reply::Welcome { region, vector }).await?)
            }
            Some(Request::Hello { protocol }) => {
                let reason = format!(
                    "this node speaks protocol {PROTOCOL} of leaves, the client {protocol}: \
                     bring both to the same release"
                );
                let refusal = Refusal::violation(reason);
                Err(Ended::Refused(Refusal { code: "protocol_unknown".to_owned(), ..refusal }))
            }
            Some(_) => Err(violated("the first message is no hello")),
            None => Ok(()),
        }
    }

    /// Admits changes of a client, and answers once they are durable.
    async fn push(&mut self, name: DocumentName, changes: Vec<Bytes>) -> Result<(), Ended> {
        let reply = match self.service.documents.admit(name.clone(), changes).await {
            Ok(position) => {
                Reply::Accepted { vector: self.service.documents.session_of(&position) }
            }
            Err(error) => {
                debug!(%name, code = error.code(), %error, "a client's changes are refused");
                Reply::Refused(Refusal::from(&error))
            }
        };
        Ok(self.send(&reply).await?)
    }

    async fn pull(&mut self, name: DocumentName, heads: Vec<ChangeHash>) -> Result<(), Ended> {
        let (document, changes, exists, vector) = match self.beyond(name, heads).await {
            Ok(found) => found,
            Err(error) => return Ok(self.send(&Reply::Refused(Refusal::from(&error))).await?),
        };
        let pages = pages(changes, self.service.page_bytes, Bytes::len);
        let mut pages = pages.into_iter().peekable();
        while let Some(changes) = pages.next() {
            let more = pages.peek().is_some();
            let vector = vector.clone();
            let reply = Reply::Changes { document, changes, exists, more, vector };
            match self.send(&reply).await {
                Err(FrameError::TooLarge { bytes, limit }) => {
                    let refusal = too_large(bytes, limit);
                    return Ok(self.send(&Reply::Refused(refusal)).await?);
                }
                sent => sent?,
            }
        }
        Ok(())
    }

    async fn beyond(
        &self,
        name: DocumentName,
        heads: Vec<ChangeHash>,
    ) -> Result<(DocumentId, Vec<Bytes>, bool, VersionVector), Error> {
        let documents = &self.service.documents;
        let exists = documents.read(&name).await?.is_some();
        let (id, changes) = documents.changes_beyond(&name, heads).await?;
        let vector = documents.session();
        Ok((id, changes.into_iter().map(|change| change.bytes).collect(), exists, vector))
    }

    async fn list(
        &mut self,
        collection: &CollectionName,
        prefix: &str,
        after: Option<&DocumentKey>,
        limit: usize,
    ) -> Result<(), Ended> {
        let documents = &self.service.documents;
        // One more than asked for tells whether there are more.
        let listed = documents.list(collection, prefix, after, limit.saturating_add(1)).await;
        let reply = match listed {
            Ok(mut listed) => {
                let more = listed.len() > limit;
                listed.truncate(limit);
                let documents = listed.into_iter().map(|(key, document)| (key, document.digest));
                Reply::Listed { documents: documents.collect(), more }
            }
            Err(error) => Reply::Refused(Refusal::from(&error)),
        };
        Ok(self.send(&reply).await?)
    }

    /// Waits until what a client names is where it is wanted, and tells where it is.
    async fn confirm(
        &mut self,
        vector: &VersionVector,
        concern: &WriteConcern,
        wait: Duration,
    ) -> Result<(), Ended> {
        let reply = match self.reached(vector, concern, wait).await {
            Ok(Reached { regions, met }) => Reply::Confirmed { regions, met },
            Err(error) => Reply::Refused(Refusal::from(&error)),
        };
        Ok(self.send(&reply).await?)
    }

    async fn reached(
        &self,
        vector: &VersionVector,
        concern: &WriteConcern,
        wait: Duration,
    ) -> Result<Reached, Error> {
        let (began, documents) = (Instant::now(), &self.service.documents);
        let Some(consistency) = self.service.consistency.get() else {
            let message = "this node is starting: ask again";
            return Err(Error::new(ErrorKind::Unavailable, "starting", message));
        };
        let _place = consistency.admit(concern)?;
        documents.wait_for(vector, wait).await?;
        // What is durable here by now includes it, and is what others in the queue wait for.
        let (position, left) = (documents.position(), wait.saturating_sub(began.elapsed()));
        Ok(consistency.written(&position, concern, left).await)
    }

    /// Tells of changes until the client finishes its side.
    async fn watch(&mut self, wanted: &Wanted, since: Since) -> Result<(), Ended> {
        let now = || self.service.documents.session();
        let mut told = match since {
            Since::Now => now(),
            Since::Vector(vector) => vector,
        };
        let mut follower = self.service.changes.follow(told.clone());
        let mut beat = Instant::now() + HEARTBEAT;
        loop {
            let reply = tokio::select! {
                frame = self.reader.receive() => return match frame? {
                    None => Ok(()),
                    Some(_) => Err(violated("a message on a stream that watches")),
                },
                event = follower.next() => {
                    let event = event.map_err(|error| Ended::Refused(Refusal::from(&error)))?;
                    told = vector_of(&event).unwrap_or(told);
                    match event.name.filter(|name| wanted.has(name)) {
                        Some(name) => Reply::Changed { name, vector: told.clone() },
                        None => continue,
                    }
                }
                () = sleep_until(beat) => Reply::Heartbeat { vector: told.clone() },
            };
            self.send(&reply).await?;
            beat = Instant::now() + HEARTBEAT;
        }
    }

    /// Waits for the next request; `None` when the client has finished.
    async fn next(&mut self, limit: Duration) -> Result<Option<Request>, Ended> {
        let Ok(frame) = timeout(limit, self.reader.receive()).await else {
            return Err(violated(format!("nothing was said for {} s", limit.as_secs())));
        };
        let Some(frame) = frame? else { return Ok(None) };
        Request::decode(&frame).map(Some).map_err(|error| violated(error.to_string()))
    }

    async fn send(&mut self, reply: &Reply) -> Result<(), FrameError> {
        self.writer.send(reply.encode()).await
    }
}

/// What a client watches.
struct Wanted {
    collections: BTreeSet<CollectionName>,
    names: BTreeSet<DocumentName>,
}

impl Wanted {
    fn new(collections: Vec<CollectionName>, names: Vec<DocumentName>) -> Self {
        Self { collections: collections.into_iter().collect(), names: names.into_iter().collect() }
    }

    fn has(&self, name: &DocumentName) -> bool {
        self.collections.contains(&name.collection) || self.names.contains(name)
    }
}

fn vector_of(event: &ChangeEvent) -> Option<VersionVector> {
    token::decode(&event.token).ok()
}

/// A change that no frame holds: an entry of replication has the same limit, so it is not met.
fn too_large(bytes: usize, limit: usize) -> Refusal {
    let message = format!("a change needs a frame of {bytes} bytes, over the limit of {limit}");
    Refusal { code: "change_too_large".to_owned(), message, outlook: Outlook::Never }
}

fn violated(reason: impl Into<String>) -> Ended {
    Ended::Refused(Refusal::violation(reason))
}

/// A client that opens a conversation says so at once.
const HELLO_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a conversation may stay silent between two requests.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// How often a watching client hears that the node is still there.
const HEARTBEAT: Duration = Duration::from_secs(10);
