//! The composition root: builds the parts, wires them, supervises them, shuts them down.

use std::collections::BTreeMap;
use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;

use anabranch_crdt::ids::RegionName;

use crate::error::Error;
use crate::settings::Settings;

/// Builds a node.
#[derive(Debug)]
pub struct NodeBuilder {}

impl NodeBuilder {
    /// Starts from settings.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        let _ = settings;
        Self {}
    }

    /// Delays what is sent to each region, one way.
    #[must_use]
    pub fn delays(self, delays: BTreeMap<RegionName, Duration>) -> Self {
        let _ = delays;
        self
    }

    /// Starts the node.
    ///
    /// # Errors
    /// A port is taken, or the data cannot be opened.
    pub async fn start(self) -> Result<Node, Error> {
        todo!()
    }
}

/// A running node.
#[derive(Debug)]
pub struct Node {}

impl Node {
    /// Returns where it listens for HTTP.
    #[must_use]
    pub fn http_addr(&self) -> SocketAddr {
        todo!()
    }

    /// Returns where it listens for other regions.
    #[must_use]
    pub fn quic_addr(&self) -> SocketAddr {
        todo!()
    }

    /// Runs until `shutdown` resolves, then stops cleanly.
    ///
    /// # Errors
    /// A part failed.
    pub async fn run_until(self, shutdown: impl Future<Output = ()>) -> Result<(), Error> {
        shutdown.await;
        todo!()
    }

    /// Stops cleanly.
    ///
    /// # Errors
    /// A part failed.
    pub async fn shutdown(self) -> Result<(), Error> {
        todo!()
    }
}
