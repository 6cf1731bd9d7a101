//! One link: a connection to the node of another region, with two streams of frames each way.
//!
//! # Why two streams
//! Each lane has its own, so that a lost packet of what catches up never holds up what is fresh, and
//! each has its own window, so that neither can fill the other's. Where both have something to send,
//! QUIC takes packets of both in turn: a fresh frame waits for no more bulk bytes than it has itself.
//! The fresh stream is the one that the nodes greeted on; the bulk stream opens with its first frame.

use std::sync::{Arc, OnceLock};

use anabranch_crdt::ids::RegionName;
use bytes::Bytes;
use quinn::{Connection, VarInt};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use super::framing::{FrameError, FrameReader, FrameWriter};
use super::outbox::Outbox;
use super::pacer::Pacer;
use super::refusal::{CloseCode, Failure, explain};
use super::region::{Region, Registration};
use crate::replication::frame::unpacked_bytes;
use crate::replication::{Lane, LinkId, Member, Traffic};

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
    _bytes: OwnedSemaphorePermit,
    _frame: OwnedSemaphorePermit,
}

/// Sends on a link and closes it. Clones are cheap.
#[derive(Debug, Clone)]
pub(crate) struct LinkHandle {
    id: LinkId,
    connection: Connection,
    outbox: Arc<Outbox>,
    region: Arc<Region>,
    /// Told when the bulk lane has room again.
    room: Arc<Notify>,
    ending: Arc<OnceLock<String>>,
    frame_bytes: usize,
}

impl LinkHandle {
    pub(crate) fn new(
        id: LinkId,
        connection: Connection,
        region: &Arc<Region>,
        room: &Arc<Notify>,
        frame_bytes: usize,
    ) -> Self {
        connection.set_receive_window(VarInt::from_u32(LINK_WINDOW));
        Self {
            id,
            connection,
            outbox: Arc::new(Outbox::new(frame_bytes)),
            region: Arc::clone(region),
            room: Arc::clone(room),
            ending: Arc::default(),
            frame_bytes,
        }
    }

    pub(crate) fn id(&self) -> LinkId {
        self.id
    }

    /// Counts the bytes of datagrams sent and received.
    pub(crate) fn datagram_bytes(&self) -> (u64, u64) {
        let stats = self.connection.stats();
        (stats.udp_tx.bytes, stats.udp_rx.bytes)
    }

    /// Returns the region at the other end.
    pub(crate) fn region(&self) -> &RegionName {
        &self.region.name
    }

    /// Queues a frame. A peer that reads nothing loses the link in the end; it catches up by
    /// anti-entropy. One that is slow is given less: see [`LinkHandle::has_room`].
    pub(crate) fn send(&self, frame: Bytes, lane: Lane) {
        if frame.len() > self.frame_bytes {
            let reason = format!("a frame of {} bytes is over the limit", frame.len());
            tracing::error!(link = self.id.0, "{reason}");
            return self.close(CloseCode::BadFrame, &reason);
        }
        if self.outbox.push(frame, lane, self.region.delay()).is_err() {
            self.close(CloseCode::TooSlow, "peer too slow: its queue is full");
        }
    }

    /// Tells whether more should be read for the bulk lane.
    pub(crate) fn has_room(&self) -> bool {
        self.outbox.waiting(Lane::Bulk) < BULK_BACKLOG
    }

    /// Returns what the link has carried, and what waits.
    pub(crate) fn traffic(&self) -> Traffic {
        let waiting = |lane| self.outbox.waiting(lane) as u64;
        Traffic {
            fresh_waiting: waiting(Lane::Fresh),
            bulk_waiting: waiting(Lane::Bulk),
            throttled: self.pacer().throttled(),
            round_trip: Some(self.connection.rtt()),
            ..self.region.counters().so_far()
        }
    }

    fn pacer(&self) -> &Pacer {
        self.region.pacer()
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
    let greeted = Notify::new();
    let ended = tokio::select! {
        error = receive(handle, Lane::Fresh, reader, events, &greeted) => error,
        error = receive_bulk(handle, events, &greeted) => error,
        error = transmit(handle, Lane::Fresh, writer) => error,
        error = transmit_bulk(handle) => error,
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
    lane: Lane,
    mut reader: FrameReader,
    events: &mpsc::Sender<LinkEvent>,
    greeted: &Notify,
) -> FrameError {
    let bytes_left = Arc::new(Semaphore::new(RECEIVE_BYTES.max(handle.frame_bytes)));
    let frames_left = Arc::new(Semaphore::new(RECEIVE_FRAMES));
    loop {
        let bytes = match reader.receive().await {
            Ok(Some(bytes)) => bytes,
            Ok(None) => return FrameError::Stopped,
            Err(error) => return error,
        };
        handle.region.counters().received(&bytes);
        let share = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        let all_bytes = Arc::clone(&bytes_left).acquire_many_owned(share);
        let one_frame = Arc::clone(&frames_left).acquire_owned();
        // They are never closed, and no frame is larger than the bytes.
        let (Ok(all_bytes), Ok(one_frame)) = (all_bytes.await, one_frame.await) else {
            return FrameError::Stopped;
        };
        let credit = Credit { _bytes: all_bytes, _frame: one_frame };
        if events.send(LinkEvent::Frame { link: handle.id, bytes, credit }).await.is_err() {
            return FrameError::Stopped;
        }
        if lane == Lane::Fresh {
            greeted.notify_one();
        }
    }
}

/// Receives the bulk lane, but nothing before the first fresh frame, which says who the peer is.
async fn receive_bulk(
    handle: &LinkHandle,
    events: &mpsc::Sender<LinkEvent>,
    greeted: &Notify,
) -> FrameError {
    greeted.notified().await;
    match handle.connection.accept_uni().await {
        Ok(stream) => {
            let reader = FrameReader::new(stream, handle.frame_bytes);
            receive(handle, Lane::Bulk, reader, events, greeted).await
        }
        Err(error) => FrameError::Connection(error),
    }
}

async fn transmit(handle: &LinkHandle, lane: Lane, mut writer: FrameWriter) -> FrameError {
    loop {
        let frame = handle.outbox.next(lane).await;
        if let Err(error) = send(handle, lane, frame, &mut writer).await {
            return error;
        }
    }
}

async fn transmit_bulk(handle: &LinkHandle) -> FrameError {
    let first = handle.outbox.next(Lane::Bulk).await;
    let mut writer = match handle.connection.open_uni().await {
        Ok(stream) => FrameWriter::new(stream, handle.frame_bytes),
        Err(error) => return FrameError::Connection(error),
    };
    match send(handle, Lane::Bulk, first, &mut writer).await {
        Ok(()) => transmit(handle, Lane::Bulk, writer).await,
        Err(error) => error,
    }
}

/// Sends one frame as fast as the cap allows.
async fn send(
    handle: &LinkHandle,
    lane: Lane,
    frame: Bytes,
    writer: &mut FrameWriter,
) -> Result<(), FrameError> {
    if lane == Lane::Bulk && handle.has_room() {
        handle.room.notify_one();
    }
    handle.region.counters().sent(frame.len(), unpacked_bytes(&frame));
    let pacer = handle.pacer();
    let Some(piece) = pacer.piece() else { return writer.send(frame).await };
    let mut rest = writer.begin(frame)?;
    while !rest.is_empty() {
        let piece = rest.split_to(piece.min(rest.len()));
        pacer.take(lane, piece.len()).await;
        writer.go_on(piece).await?;
    }
    Ok(())
}

/// Bytes that may be on their way to one node on both lanes: a window for each.
pub(super) const LINK_WINDOW: u32 = 2 * LANE_WINDOW;

/// Bytes that may be on their way on one lane: 190 ms of round trip at 20 MB/s.
pub(super) const LANE_WINDOW: u32 = 4 << 20;

/// Bytes of one lane of one link that may wait to be handled.
const RECEIVE_BYTES: usize = 8 << 20;

/// Frames of one lane of one link that may wait to be handled: it bounds how long the frames of
/// other links wait for those of one that floods.
const RECEIVE_FRAMES: usize = 8;

/// Bytes in the bulk lane from which on nothing more is read for it: enough for a window, so that
/// the disk is never what a fast link waits for.
const BULK_BACKLOG: usize = 4 << 20;
