//! Leaves: offline-first clients, which dial a node with a client's certificate and open one
//! stream of frames per conversation.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anabranch_crdt::ids::{ClusterId, RegionName};
use bytes::Bytes;
use futures::future::BoxFuture;
use quinn::{Connection, Endpoint};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tracing::Instrument;

use super::framing::{FrameError, FrameReader, FrameWriter};
use super::greeting::Introduction;
use super::refusal::{CloseCode, Failure, explain};
use super::{BootId, HANDSHAKE_TIMEOUT, greeting, tls};

use crate::error::{Error, ErrorKind};
use crate::pki::{ClientName, Credentials, Role, SERVER_NAME, Subject};
use crate::settings::PkiPaths;

/// Serves what leaves ask for.
pub trait LeafService: Send + Sync {
    /// Serves one stream of an authenticated client until either side ends it. The future is
    /// dropped when the connection is gone; a client has at most 16 streams open.
    fn serve(&self, client: ClientName, stream: LeafStream) -> BoxFuture<'static, ()>;
}

impl fmt::Debug for dyn LeafService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LeafService")
    }
}

/// One conversation between a leaf and a node: frames in both directions.
#[derive(Debug)]
pub struct LeafStream {
    writer: FrameWriter,
    reader: FrameReader,
}

impl LeafStream {
    fn new(streams: (quinn::SendStream, quinn::RecvStream), frame_bytes: usize) -> Self {
        let (send, receive) = streams;
        Self {
            writer: FrameWriter::new(send, frame_bytes),
            reader: FrameReader::new(receive, frame_bytes),
        }
    }

    /// Sends a frame, waiting while the other side does not read.
    ///
    /// # Errors
    /// See [`FrameError`].
    ///
    /// # Cancel safety
    /// A frame whose future is dropped may be sent in part; the stream is of no use then.
    pub async fn send(&mut self, frame: Bytes) -> Result<(), FrameError> {
        self.writer.send(frame).await
    }

    /// Waits for the next frame; `None` when the other side has finished.
    ///
    /// # Errors
    /// See [`FrameError`].
    ///
    /// # Cancel safety
    /// Nothing is lost when the future is dropped.
    pub async fn receive(&mut self) -> Result<Option<Bytes>, FrameError> {
        self.reader.receive().await
    }

    /// Says that no more frames follow. What was sent still arrives.
    pub fn finish(&mut self) {
        self.writer.finish();
    }

    /// Takes both halves apart, to be used by two tasks.
    #[must_use]
    pub fn split(self) -> (FrameWriter, FrameReader) {
        (self.writer, self.reader)
    }
}

/// A leaf's connection to a node. Clones are cheap and share it; it closes with the last one.
#[derive(Debug, Clone)]
pub struct LeafConnection {
    endpoint: Endpoint,
    connection: Connection,
    region: RegionName,
    frame_bytes: usize,
}

/// Connects to the node at `address` with a client's certificate, and returns once the node has
/// accepted it. Frames of both sides are limited to `frame_bytes`, which is at best that of the
/// node's settings.
///
/// # Errors
/// `Invalid` for certificates that cannot be used; `Unavailable`, with the reason, when the node
/// cannot be reached or refuses.
pub async fn connect(
    address: SocketAddr,
    pki: &PkiPaths,
    cluster: ClusterId,
    frame_bytes: usize,
) -> Result<LeafConnection, Error> {
    let credentials = Credentials::load(pki)?;
    let endpoint = dialling_endpoint(address, &credentials)?;
    let attempt = timeout(HANDSHAKE_TIMEOUT, dial(&endpoint, address, cluster)).await;
    let outcome = attempt.unwrap_or_else(|_| {
        Err(Failure::warn(format!("{address} does not answer within {HANDSHAKE_TIMEOUT:?}")))
    });
    let (connection, region) = outcome
        .map_err(|failure| Error::new(ErrorKind::Unavailable, "node_refused", failure.reason))?;
    Ok(LeafConnection { endpoint, connection, region, frame_bytes })
}

impl LeafConnection {
    /// Opens a conversation, waiting while 16 are open.
    ///
    /// # Errors
    /// `Unavailable` when the connection is gone.
    pub async fn open(&self) -> Result<LeafStream, Error> {
        let streams = self.connection.open_bi().await.map_err(|error| {
            let failure = explain(&error, self.region.as_str());
            Error::new(ErrorKind::Unavailable, "connection_lost", failure.reason)
        })?;
        Ok(LeafStream::new(streams, self.frame_bytes))
    }

    /// Returns the region of the node.
    #[must_use]
    pub fn region(&self) -> &RegionName {
        &self.region
    }

    /// Waits until the connection is gone, and says why.
    pub async fn closed(&self) -> String {
        explain(&self.connection.closed().await, self.region.as_str()).reason
    }

    /// Closes the connection and gives the node a moment to hear of it.
    pub async fn close(&self) {
        self.connection.close(CloseCode::Done.into(), b"the client has finished");
        // A node that is gone does not matter: it notices by itself.
        let _ = timeout(Duration::from_secs(1), self.endpoint.wait_idle()).await;
    }
}

fn dialling_endpoint(address: SocketAddr, credentials: &Credentials) -> Result<Endpoint, Error> {
    let any: IpAddr = match address {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let mut endpoint = Endpoint::client(SocketAddr::new(any, 0)).map_err(|error| {
        let message = format!("cannot open a UDP socket: {error}");
        Error::new(ErrorKind::Unavailable, "no_socket", message)
    })?;
    endpoint.set_default_client_config(tls::client(credentials)?);
    Ok(endpoint)
}

async fn dial(
    endpoint: &Endpoint,
    address: SocketAddr,
    cluster: ClusterId,
) -> Result<(Connection, RegionName), Failure> {
    let peer = address.to_string();
    let connecting = endpoint
        .connect(address, SERVER_NAME)
        .map_err(|error| Failure::warn(format!("{peer} cannot be dialled: {error}")))?;
    let connection = connecting.await.map_err(|error| explain(&error, &peer))?;
    let region = node_region(&connection, cluster, &peer)?;
    let mut greeted =
        greeting::hello(&connection, BootId::random(), &Introduction::default(), &peer).await?;
    greeted.writer.finish();
    Ok((connection, region))
}

fn node_region(
    connection: &Connection,
    cluster: ClusterId,
    peer: &str,
) -> Result<RegionName, Failure> {
    let refused = |reason: String| {
        connection.close(CloseCode::Refused.into(), reason.as_bytes());
        Failure::warn(format!("{peer}: {reason}"))
    };
    match tls::subject(connection).map_err(refused)? {
        Subject { cluster: other, .. } if other != cluster => {
            Err(refused(format!("its certificate is of cluster {other}, not {cluster}")))
        }
        Subject { role: Role::Region(region), .. } => Ok(region),
        subject => Err(refused(format!("its certificate is of {subject}, which is no node"))),
    }
}

/// Hands every stream of an accepted client to the service, until the connection is gone.
pub(super) async fn serve(
    connection: &Connection,
    client: &ClientName,
    service: &Arc<dyn LeafService>,
    frame_bytes: usize,
) -> Failure {
    let mut streams = JoinSet::new();
    loop {
        tokio::select! {
            accepted = connection.accept_bi() => match accepted {
                Ok(halves) => {
                    let stream = LeafStream::new(halves, frame_bytes);
                    streams.spawn(service.serve(client.clone(), stream).in_current_span());
                }
                Err(error) => return explain(&error, client.as_str()),
            },
            Some(ended) = streams.join_next() => super::pass_on_panic(ended),
        }
    }
}
