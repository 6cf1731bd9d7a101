//! Documents over HTTP/JSON: what every application meets first.

mod documents;
mod history;
mod json;
mod listing;
mod patches;
mod preconditions;
mod refusals;

use crate::support::Cluster;

/// One region, for what needs no other.
async fn one() -> Cluster {
    Cluster::of(&["solo"]).await
}
