//! What the links to one region have carried.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::replication::Traffic;
use crate::replication::frame::unpacked_bytes;

/// Counts frames on their way. Every counter only rises.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    /// Bytes of frames sent, as they travelled.
    sent: AtomicU64,
    /// Bytes of the same frames before they were packed.
    sent_unpacked: AtomicU64,
    received: AtomicU64,
    received_unpacked: AtomicU64,
}

impl Counters {
    pub(crate) fn sent(&self, bytes: usize, unpacked: usize) {
        self.sent.fetch_add(bytes as u64, Ordering::Relaxed);
        self.sent_unpacked.fetch_add(unpacked as u64, Ordering::Relaxed);
    }

    pub(crate) fn received(&self, frame: &[u8]) {
        // A length that is only claimed is no more than a byte counts for.
        let unpacked = unpacked_bytes(frame).max(frame.len());
        self.received.fetch_add(frame.len() as u64, Ordering::Relaxed);
        self.received_unpacked.fetch_add(unpacked as u64, Ordering::Relaxed);
    }

    pub(crate) fn so_far(&self) -> Traffic {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Traffic {
            sent: read(&self.sent),
            sent_unpacked: read(&self.sent_unpacked),
            received: read(&self.received),
            received_unpacked: read(&self.received_unpacked),
            ..Traffic::default()
        }
    }
}
