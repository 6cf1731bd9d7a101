//! What the rest of the node sees of the other replicas, and asks of their comparison.

use std::sync::Arc;

use anabranch_crdt::ids::RegionName;
use tokio::sync::{mpsc, watch};

use super::failed;
use crate::error::Error;
use crate::replication::ClusterView;
use crate::replication::reconcile::{ReconcileInput, ReconcileStatus, Repair, RequestId};

/// Looks at replicas in other regions, and has them compared; clones are cheap.
#[derive(Debug, Clone)]
pub struct Replicas {
    pub(super) cluster: watch::Receiver<Arc<ClusterView>>,
    pub(super) reconciliation: watch::Receiver<Arc<ReconcileStatus>>,
    pub(super) requests: mpsc::Sender<ReconcileInput>,
}

impl Replicas {
    /// Returns what is known of every region.
    #[must_use]
    pub fn cluster(&self) -> Arc<ClusterView> {
        Arc::clone(&self.cluster.borrow())
    }

    /// Returns what is known of the equality of this node's replicas.
    #[must_use]
    pub fn status(&self) -> Arc<ReconcileStatus> {
        Arc::clone(&self.reconciliation.borrow())
    }

    /// Follows what is known of the equality of this node's replicas, several times a second.
    #[must_use]
    pub fn follow(&self) -> watch::Receiver<Arc<ReconcileStatus>> {
        self.reconciliation.clone()
    }

    /// Has this node's documents compared with those of a region, or of every region, now; how it
    /// goes is in [`Replicas::status`] under the id that is returned.
    ///
    /// # Errors
    /// `Internal` when the node is stopping.
    pub async fn verify(
        &self,
        peer: Option<RegionName>,
        repair: Repair,
    ) -> Result<RequestId, Error> {
        let request = RequestId(rand::random());
        let input = ReconcileInput::Verify { request, peer, repair };
        let sent = self.requests.send(input).await;
        sent.map(|()| request).map_err(|_| failed("it is stopping"))
    }
}
