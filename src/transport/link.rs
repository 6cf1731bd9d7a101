//! One link: a connection to the node of another region, with one stream of frames each way.

use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anabranch_crdt::ids::RegionName;
use bytes::Bytes;
use quinn::Connection;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use super::framing::{FrameError, FrameReader, FrameWriter};
use super::outbox::Outbox;
use super::refusal::{CloseCode, Failure, explain};
use super::region::{Delay, Registration};
use crate::replication::{LinkId, Member};

/// What happens on the links of this node.
#[derive(Debug)]
pub(crate) enum LinkEvent {
    /// A peer is authenticated and its link is up.
    Up {
        /// The region that its certificate names.
        region: RegionName,
        /// The new link.
        link: LinkHandle,
    },
    /// A frame arrived.
    Frame {
        /// The link.
        link: LinkId,
        /// The bytes.
        bytes: Bytes,
        /// Dropped once the frame is handled, so that more may come.
        credit: Credit,
    },
    /// A link is gone.
    Down {
        /// The link.
        link: LinkId,
        /// Why.
        reason: String,
    },
    /// An attempt to connect failed.
    Failed {
        /// The region that was dialled.
        region: RegionName,
        /// Why.
        reason: String,
    },
    /// A region with a certificate of this cluster asks to join, or to return.
    Joining {
        /// Its own record.
        member: Member,
        /// Dropped once that is decided, and the member table says how.
        decided: oneshot::Sender<()>,
    },
    /// A region said something of members in its greeting.
    Told {
        /// Who said it.
        by: RegionName,
        /// What it said.
        members: Vec<Member>,
        /// Dropped once the member table says it.
        heard: oneshot::Sender<()>,
    },
}

/// The share of a link's receive budget that one frame takes.
#[derive(Debug)]
pub(crate) struct Credit {
    _permit: OwnedSemaphorePermit,
}

/// Sends on a link and closes it. Clones are cheap.
#[derive(Debug, Clone)]
pub(crate) struct LinkHandle {
    id: LinkId,
    connection: Connection,
    outbox: Arc<Outbox>,
    delay: Delay,
    ending: Arc<OnceLock<String>>,
    frame_bytes: usize,
}

impl LinkHandle {
    pub(crate) fn new(
        id: LinkId,
        connection: Connection,
        delay: Delay,
        frame_bytes: usize,
    ) -> Self {
        let outbox = Arc::new(Outbox::new(frame_bytes));
        Self { id, connection, outbox, delay, ending: Arc::default(), frame_bytes }
    }

    pub(crate) fn id(&self) -> LinkId {
        self.id
    }

    /// Counts the bytes of datagrams sent and received.
    pub(crate) fn datagram_bytes(&self) -> (u64, u64) {
        let stats = self.connection.stats();
        (stats.udp_tx.bytes, stats.udp_rx.bytes)
    }

    /// Queues a frame. A peer that is too slow for what it is sent loses the link; it catches up
    /// by anti-entropy.
    pub(crate) fn send(&self, frame: Bytes) {
        if frame.len() > self.frame_bytes {
            let reason = format!("a frame of {} bytes is over the limit", frame.len());
            tracing::error!(link = self.id.0, "{reason}");
            return self.close(CloseCode::BadFrame, &reason);
        }
        let delay = Duration::from_micros(self.delay.load(Ordering::Relaxed));
        if self.outbox.push(frame, delay).is_err() {
            self.close(CloseCode::TooSlow, "peer too slow: its queue is full");
        }
    }

    /// Closes the link; the first reason counts.
    pub(crate) fn close(&self, code: CloseCode, reason: &str) {
        // A second reason has nothing to add.
        let _ = self.ending.set(reason.to_owned());
        self.connection.close(code.into(), reason.as_bytes());
    }
}

/// A link that is registered and not yet running.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) registration: Registration,
    pub(crate) reader: FrameReader,
    pub(crate) writer: FrameWriter,
}

impl Link {
    /// Carries frames until the link ends; tells [`LinkEvent::Up`] first and [`LinkEvent::Down`]
    /// last.
    pub(crate) async fn run(self, events: &mpsc::Sender<LinkEvent>) {
        let Self { registration, reader, writer } = self;
        let handle = registration.handle.clone();
        let name = registration.region.name.clone();
        tracing::info!(region = %name, link = handle.id.0, "link up");
        let up = LinkEvent::Up { region: name.clone(), link: handle.clone() };
        // Without a driver there is nobody left to tell, here and below.
        let failure = match events.send(up).await {
            Ok(()) => carry(&handle, &name, reader, writer, events).await,
            Err(_) => Failure::quiet("the node is stopping"),
        };
        handle.close(CloseCode::Done, &failure.reason);
        let reason = handle.ending.get().unwrap_or(&failure.reason).clone();
        tracing::info!(region = %name, link = handle.id.0, reason, "link down");
        drop(registration);
        let _ = events.send(LinkEvent::Down { link: handle.id, reason }).await;
    }
}

async fn carry(
    handle: &LinkHandle,
    region: &RegionName,
    reader: FrameReader,
    writer: FrameWriter,
    events: &mpsc::Sender<LinkEvent>,
) -> Failure {
    let ended = tokio::select! {
        error = receive(handle, reader, events) => error,
        error = transmit(&handle.outbox, writer) => error,
        error = handle.connection.closed() => FrameError::Connection(error),
    };
    match ended {
        FrameError::Connection(error) => explain(&error, region.as_str()),
        error @ (FrameError::TooLarge { .. } | FrameError::Truncated | FrameError::Stopped) => {
            handle.close(CloseCode::BadFrame, &format!("{error}"));
            Failure::warn(format!("{region}: {error}"))
        }
    }
}

async fn receive(
    handle: &LinkHandle,
    mut reader: FrameReader,
    events: &mpsc::Sender<LinkEvent>,
) -> FrameError {
    let budget = Arc::new(Semaphore::new(RECEIVE_BYTES.max(handle.frame_bytes)));
    loop {
        let bytes = match reader.receive().await {
            Ok(Some(bytes)) => bytes,
            Ok(None) => return FrameError::Stopped,
            Err(error) => return error,
        };
        let share = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        // The budget is never closed, and no frame is larger than it.
        let Ok(permit) = Arc::clone(&budget).acquire_many_owned(share).await else {
            return FrameError::Stopped;
        };
        let frame = LinkEvent::Frame { link: handle.id, bytes, credit: Credit { _permit: permit } };
        if events.send(frame).await.is_err() {
            return FrameError::Stopped;
        }
    }
}

async fn transmit(outbox: &Outbox, mut writer: FrameWriter) -> FrameError {
    loop {
        let frame = outbox.next().await;
        if let Err(error) = writer.send(frame).await {
            return error;
        }
    }
}

/// Bytes of frames of one link that may wait to be handled.
const RECEIVE_BYTES: usize = 8 << 20;
