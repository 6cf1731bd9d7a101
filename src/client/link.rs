//! The connection to a region, and one conversation on it.

use std::net::SocketAddr;
use std::time::Duration;

use anabranch_crdt::ids::{CollectionName, DocumentName, RegionName};
use anabranch_crdt::version::VersionVector;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::time::{sleep, timeout};

use super::ClientSettings;
use crate::consistency::{Reached, WriteConcern};
use crate::error::{Error, ErrorKind};
use crate::leaf::{DecodeError, PROTOCOL, Reply, Request, Since};
use crate::transport::leaf::{self, LeafConnection};
use crate::transport::{FrameError, FrameReader, FrameWriter};

/// A connection to the node of a region.
#[derive(Debug)]
pub(super) struct Link {
    connection: LeafConnection,
    /// What was durable there when it greeted.
    pub(super) vector: VersionVector,
    pub(super) region: RegionName,
}

/// One conversation: requests go out on one half, replies come in on the other.
#[derive(Debug)]
pub(super) struct Talk {
    pub(super) requests: Requests,
    pub(super) replies: Replies,
}

/// The way of requests.
#[derive(Debug)]
pub(super) struct Requests(FrameWriter);

/// The way of replies.
#[derive(Debug)]
pub(super) struct Replies(FrameReader);

/// A stream of events.
#[derive(Debug)]
pub(super) struct Watching {
    replies: Replies,
    /// Kept, because the node takes its end for the end of the conversation.
    _requests: Requests,
}

impl Link {
    /// Connects to the region that answers first. The ones that stand first in the settings have
    /// a small lead, so that a near one that is listed first is taken.
    pub(super) async fn connect(settings: &ClientSettings) -> Result<Self, Error> {
        let attempt = |(place, address): (u32, SocketAddr)| async move {
            sleep(LEAD * place).await;
            Self::dial(settings, address).await
        };
        let addresses = (0..).zip(settings.nodes.iter().copied());
        let mut attempts: FuturesUnordered<_> = addresses.map(attempt).collect();
        let mut reasons = Vec::new();
        while let Some(attempted) = attempts.next().await {
            match attempted {
                Ok(link) => return Ok(link),
                Err(error) => reasons.push(error.to_string()),
            }
        }
        let message = match reasons.as_slice() {
            [] => "the client knows the address of no node".to_owned(),
            reasons => format!("no region answers: {}", reasons.join("; ")),
        };
        Err(Error::new(ErrorKind::Unavailable, "no_region", message))
    }

    async fn dial(settings: &ClientSettings, address: SocketAddr) -> Result<Self, Error> {
        let frame_bytes = settings.frame_bytes;
        let connection =
            leaf::connect(address, &settings.pki, settings.cluster, frame_bytes).await?;
        let (_, region, vector) = greet(&connection).await?;
        Ok(Self { connection, vector, region })
    }

    /// Begins a conversation.
    pub(super) async fn converse(&self) -> Result<Talk, Error> {
        greet(&self.connection).await.map(|(talk, _, _)| talk)
    }

    /// Begins to watch what changes from when the link was made.
    pub(super) async fn watch(
        &self,
        collections: Vec<CollectionName>,
        names: Vec<DocumentName>,
    ) -> Result<Watching, Error> {
        let Talk { mut requests, replies } = self.converse().await?;
        let since = Since::Vector(self.vector.clone());
        requests.send(&Request::Watch { collections, names, since }).await?;
        Ok(Watching { replies, _requests: requests })
    }

    /// Asks the region to wait until what `vector` includes is where `concern` wants it.
    pub(super) async fn confirm(
        &self,
        vector: VersionVector,
        concern: WriteConcern,
        wait: Duration,
    ) -> Result<Reached, Error> {
        let mut talk = self.converse().await?;
        talk.requests.send(&Request::Confirm { vector, concern, wait }).await?;
        let reply = talk.replies.next().await?;
        let Reply::Confirmed { regions, met } = reply else { return Err(unexpected(reply)) };
        talk.finish();
        Ok(Reached { regions, met })
    }

    /// Waits until the connection is gone.
    pub(super) async fn closed(&self) -> Error {
        lost(self.connection.closed().await)
    }

    /// Closes the connection, and gives the node a moment to hear of it.
    pub(super) async fn close(&self) {
        self.connection.close().await;
    }
}

impl Talk {
    /// Says that no more requests follow.
    pub(super) fn finish(mut self) {
        self.requests.0.finish();
    }
}

impl Requests {
    pub(super) async fn send(&mut self, request: &Request) -> Result<(), Error> {
        self.0.send(request.encode()).await.map_err(cut)
    }
}

impl Replies {
    pub(super) async fn next(&mut self) -> Result<Reply, Error> {
        let frame = timeout(REPLY_TIMEOUT, self.0.receive()).await;
        let frame = frame.map_err(|_| {
            lost(format!("the node does not answer within {} s", REPLY_TIMEOUT.as_secs()))
        })?;
        let frame = frame.map_err(cut)?;
        let frame = frame.ok_or_else(|| lost("the node has ended the conversation".to_owned()))?;
        Reply::decode(&frame).map_err(unreadable)
    }
}

impl Watching {
    /// Waits for the next document that changed.
    ///
    /// # Cancel safety
    /// No event is lost when the future is dropped.
    pub(super) async fn next(&mut self) -> Result<DocumentName, Error> {
        loop {
            let reply = self.replies.next().await?;
            if matches!(reply, Reply::Heartbeat { .. }) {
                continue;
            }
            let Reply::Changed { name, .. } = reply else { return Err(unexpected(reply)) };
            return Ok(name);
        }
    }
}

async fn greet(connection: &LeafConnection) -> Result<(Talk, RegionName, VersionVector), Error> {
    let (writer, reader) = connection.open().await?.split();
    let (mut requests, mut replies) = (Requests(writer), Replies(reader));
    requests.send(&Request::Hello { protocol: PROTOCOL }).await?;
    let reply = replies.next().await?;
    let Reply::Welcome { region, vector } = reply else { return Err(unexpected(reply)) };
    Ok((Talk { requests, replies }, region, vector))
}

/// A reply that does not fit the request; a refusal says why itself.
pub(super) fn unexpected(reply: Reply) -> Error {
    match reply {
        Reply::Refused(refusal) => {
            let message = format!("the node refuses ({}): {}", refusal.code, refusal.message);
            Error::new(ErrorKind::Unavailable, "node_refused", message)
        }
        Reply::Welcome { .. }
        | Reply::Accepted { .. }
        | Reply::Changes { .. }
        | Reply::Listed { .. }
        | Reply::Changed { .. }
        | Reply::Heartbeat { .. }
        | Reply::Confirmed { .. } => {
            let message = "the node answers something else than it was asked";
            Error::new(ErrorKind::Unavailable, "answer_unexpected", message)
        }
    }
}

fn unreadable(error: DecodeError) -> Error {
    let message = format!("the node's answer cannot be read: {error}");
    Error::new(ErrorKind::Unavailable, "answer_unreadable", message).with_source(error)
}

fn cut(error: FrameError) -> Error {
    lost(error.to_string())
}

fn lost(reason: String) -> Error {
    Error::new(ErrorKind::Unavailable, "connection_lost", reason)
}

/// The lead that each node of the settings has over the next.
const LEAD: Duration = Duration::from_millis(150);

/// How long a node may be silent: longer than three heartbeats, and than a commit on a slow disk.
const REPLY_TIMEOUT: Duration = Duration::from_secs(35);
