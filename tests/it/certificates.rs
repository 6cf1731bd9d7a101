//! Who may join: nodes that show certificates which are not right are refused, and both sides log
//! why. What exactly is checked has its tests at the transport; these show it on whole nodes.

use std::path::Path;

use anabranch::error::Error;
use anabranch::node::NodeBuilder;
use anabranch::pki::{self, Authority, Overwrite, Validity};
use anabranch::settings::PkiPaths;
use anabranch_crdt::ids::ClusterId;
use serde_json::json;
use uuid::Uuid;

use crate::support::cluster::region;
use crate::support::{Cluster, Plan, log};

/// Makes an authority of its own and lets it sign a certificate.
fn foreign(directory: &Path, name: &str, days: i64) -> PkiPaths {
    let authority = Authority::create(ClusterId(Uuid::new_v4()), "other").unwrap();
    authority.store(directory, Overwrite::Refuse).unwrap();
    let issued = authority.issue_node(&region(name), Validity::days(days)).unwrap();
    issued.store(directory, Overwrite::Refuse).unwrap();
    pki::paths(directory, name)
}

/// What the node of `here` logs.
async fn said(here: &str, text: &str) {
    log::said(&["WARN", &format!("region=\"{here}\""), text]).await;
}

async fn check_apart(cluster: &Cluster, one: &str, other: &str) {
    for (here, there) in [(one, other), (other, one)] {
        let peer = cluster.peer(here, there).await;
        assert_eq!(peer["connected"], false, "{peer}");
    }
}

/// Restarts a node on other certificates than those of its cluster, as an operator who mixed up
/// the files would.
#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_of_another_cluster_does_not_even_start() {
    let home = tempfile::tempdir().unwrap();
    let paths = foreign(home.path(), "mixed-b", 30);
    let cluster = Cluster::of(&["mixed-a", "mixed-b"]).await;
    let mut settings = cluster.settings("mixed-b");
    settings.pki = paths;
    settings.data = home.path().join("data");
    let error: Error = NodeBuilder::new(settings).start().await.unwrap_err();
    assert!(error.to_string().contains("issue the right one"), "{error}");
    cluster.stop().await;
}

/// A node of another cluster with the same region names, dialled by mistake.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_of_another_cluster_is_refused() {
    let ours = Cluster::of(&["ours-a", "ours-b"]).await;
    let theirs = Cluster::of(&["ours-a", "theirs-b"]).await;
    ours.meshed().await;
    let stray = theirs.node("theirs-b").quic_addr();
    ours.cut("ours-a", "ours-b").await;
    ours.node("ours-a").transport().set_peer_address(&region("ours-b"), stray).unwrap();
    ours.heal("ours-a", "ours-b");
    said("ours-a", "ours-b shows a certificate of another cluster's authority").await;
    said("theirs-b", "refused our certificate: it is of another cluster's authority").await;
    ours.stop().await;
    theirs.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_certificate_is_refused() {
    let cluster = Cluster::of(&["late-a", "late-b"]).await;
    let authority = Authority::load(&cluster.directory().join("pki")).unwrap();
    let issued = authority.issue_node(&region("late-b"), Validity::days(-1)).unwrap();
    issued.store(&cluster.directory().join("pki"), Overwrite::Replace).unwrap();
    let mut cluster = cluster;
    cluster.restart("late-b").await;
    said("late-a", "late-b shows a certificate that has expired").await;
    said("late-b", "refused our certificate: it has expired or is not valid yet").await;
    check_apart(&cluster, "late-a", "late-b").await;
    let written = cluster.at("late-a").put("notes/a", &json!({})).ok().await;
    assert_eq!(written.status, 201, "a region without peers still serves its clients");
    cluster.stop().await;
}

/// The addresses of two regions are mixed up: each has a good certificate, of another region.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_of_another_region_is_refused() {
    let cluster = Plan::new(&["swap-a", "swap-b", "swap-c"]).start().await;
    cluster.meshed().await;
    let wrong = cluster.node("swap-c").quic_addr();
    cluster.cut("swap-a", "swap-b").await;
    cluster.node("swap-a").transport().set_peer_address(&region("swap-b"), wrong).unwrap();
    cluster.node("swap-a").transport().set_link(&region("swap-b"), UP).unwrap();
    said("swap-a", "swap-b is refused: at").await;
    said("swap-c", "refused us: we dialled").await;
    check_apart(&cluster, "swap-a", "swap-b").await;
    cluster.stop().await;
}

const UP: anabranch::transport::LinkState = anabranch::transport::LinkState::Up;
