//! The link layer over real QUIC on loopback, with real certificates.

// Some tests read the log, which takes a subscriber.
#![cfg(feature = "server")]

mod driving;
mod leaves;
mod refusals;
mod rig;
mod simulated;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::link::LinkEvent;
use super::refusal::Loudness;
use super::{LinkState, TransportSettings};
use crate::replication::Lane;
use crate::settings::{Joining, Limits, Neighbours, RegionSettings, Settings};
use rig::{Node, Pki, address, linked, nowhere, region, soon};

#[tokio::test]
async fn frames_arrive_whole_and_in_order_both_ways() {
    let (mut a, mut b) = linked(&Pki::new()).await;
    let large = Bytes::from(vec![7; rig::FRAME_BYTES]);
    for (from, to) in [(&a.link, &mut b.node), (&b.link, &mut a.node)] {
        from.send(Bytes::new(), Lane::Fresh);
        from.send(large.clone(), Lane::Fresh);
        (0..200_u8).for_each(|n| from.send(Bytes::copy_from_slice(&[n]), Lane::Fresh));
        assert_eq!(to.frame().await, Bytes::new());
        assert_eq!(to.frame().await, large);
        for n in 0..200_u8 {
            assert_eq!(to.frame().await.as_ref(), &[n]);
        }
    }
}

#[tokio::test]
async fn a_frame_over_the_peers_limit_closes_the_link_with_the_reason_on_both_sides() {
    let pki = Pki::new();
    let mut b =
        Node::start(&pki, "b", &[("a", nowhere())], |settings| settings.max_frame_bytes = 100);
    let mut a = Node::start(&pki, "a", &[("b", address(&b))], |_| {});
    let link = a.up("b").await;
    b.up("a").await;
    link.send(Bytes::from(vec![0; 101]), Lane::Fresh);
    let (here, there) = (a.down().await, b.down().await);
    for reason in [here, there] {
        assert!(reason.contains("a frame of 101 bytes is over the limit of 100"), "{reason}");
    }
    // The link comes back, because one bad frame is no reason to stay apart.
    a.up("b").await;
}

#[tokio::test]
async fn a_peer_that_does_not_read_loses_the_link_and_costs_bounded_memory() {
    let (mut a, mut b) = linked(&Pki::new()).await;
    let frame = Bytes::from(vec![0; 64 << 10]);
    let mut sent = 0;
    let reason = loop {
        a.link.send(frame.clone(), Lane::Fresh);
        sent += frame.len();
        assert!(sent < 64 << 20, "the queue grows without bound");
        tokio::task::yield_now().await;
        if let Some(reason) = a.node.try_down() {
            break reason;
        }
    };
    assert!(reason.contains("peer too slow"), "{reason}");
    // The other side hears it too, once it reads again.
    assert!(b.node.down().await.contains("peer too slow"));
    a.node.up("b").await;
}

#[tokio::test]
async fn a_cut_link_stays_down_until_it_is_healed() {
    for (cutter, other) in [("a", "b"), ("b", "a")] {
        let (a, b) = linked(&Pki::new()).await;
        let (mut here, mut there) = match cutter {
            "a" => (a.node, b.node),
            _ => (b.node, a.node),
        };
        here.links.region(&region(other)).unwrap().set_link(LinkState::Cut);
        assert!(here.down().await.contains("cut by an operator"));
        assert!(there.down().await.contains("cut by an operator"));

        // Attempts from the other side are refused, and say why.
        let region_here = there.links.region(&region(cutter)).unwrap();
        let refused = there.links.dial(&region_here, address(&here)).await.unwrap_err();
        assert!(refused.reason.contains("cut by an operator"), "{refused:?}");

        here.links.region(&region(other)).unwrap().set_link(LinkState::Up);
        here.up(other).await;
        there.up(cutter).await;
    }
}

#[tokio::test]
async fn a_delay_makes_frames_late_and_not_fewer() {
    const DELAY: Duration = Duration::from_millis(400);
    let (a, mut b) = linked(&Pki::new()).await;
    let region_b = a.node.links.region(&region("b")).unwrap();
    region_b.set_delay(DELAY);
    let sent = Instant::now();
    (0..100_u8).for_each(|n| a.link.send(Bytes::copy_from_slice(&[n]), Lane::Fresh));
    for n in 0..100_u8 {
        assert_eq!(b.node.frame().await.as_ref(), &[n]);
        assert!(sent.elapsed() >= DELAY);
    }
    // One delay for all of them, not one for each.
    assert!(sent.elapsed() < Duration::from_secs(5), "{:?}", sent.elapsed());

    region_b.set_delay(Duration::ZERO);
    let sent = Instant::now();
    a.link.send(Bytes::from_static(b"x"), Lane::Fresh);
    b.node.frame().await;
    assert!(sent.elapsed() < DELAY, "{:?}", sent.elapsed());
}

#[tokio::test]
async fn a_region_that_stops_is_noticed_at_once_and_linked_again_when_it_is_back() {
    let pki = Pki::new();
    let mut b = Node::start(&pki, "b", &[("a", nowhere())], |_| {});
    let at = address(&b);
    let mut a = Node::start(&pki, "a", &[("b", at)], |_| {});
    a.up("b").await;
    b.up("a").await;

    let stopped = Instant::now();
    b.stop().await;
    assert!(a.down().await.contains("the node is shutting down"));
    assert!(stopped.elapsed() < Duration::from_secs(5));

    let mut b = Node::start(&pki, "b", &[("a", nowhere())], |settings| settings.bind = at);
    a.up("b").await;
    b.up("a").await;
}

/// A killed process closes nothing. When it is back, its peer still holds the dead link, which is
/// even the preferred one; only the boot id tells that it is dead.
#[tokio::test]
async fn a_region_that_was_killed_is_linked_again_as_soon_as_it_is_back() {
    let pki = Pki::new();
    let mut b = Node::start(&pki, "b", &[("a", nowhere())], |_| {});
    let at = address(&b);
    let mut a = Node::start(&pki, "a", &[("b", at)], |_| {});
    a.up("b").await;
    b.up("a").await;

    let killed = Instant::now();
    b.links.free_port().unwrap();
    let mut again = soon(restart(&pki, "b", at, &[("a", address(&a))])).await;
    again.up("a").await;
    assert!(a.next_is_down_and_up().await.contains("newer link"));
    assert!(killed.elapsed() < Duration::from_secs(8), "the idle timeout was waited for");
}

/// Starts a node on a port that is about to become free.
async fn restart(pki: &Pki, name: &str, at: SocketAddr, peers: &[(&str, SocketAddr)]) -> Node {
    loop {
        match Node::try_start(pki, name, peers, |settings| settings.bind = at) {
            Ok(node) => return node,
            Err(_) => tokio::task::yield_now().await,
        }
    }
}

#[tokio::test]
async fn a_silent_cut_is_noticed_within_seconds() {
    let (mut a, b) = linked(&Pki::new()).await;
    let cut = Instant::now();
    // From now on `b` neither hears `a` nor is heard.
    b.node.links.free_port().unwrap();
    let reason = a.node.down().await;
    assert_eq!(reason, "b does not answer");
    assert!(cut.elapsed() < Duration::from_secs(15), "{:?}", cut.elapsed());
}

#[tokio::test]
async fn the_region_that_does_not_dial_first_dials_when_the_other_one_cannot() {
    let pki = Pki::new();
    let mut a = Node::start(&pki, "a", &[("b", nowhere())], |_| {});
    let mut b = Node::start(&pki, "b", &[("a", address(&a))], |_| {});
    a.up("b").await;
    b.up("a").await;
}

#[tokio::test]
async fn a_peer_can_move_to_another_address() {
    let pki = Pki::new();
    let mut a = Node::start(&pki, "a", &[("b", nowhere())], |_| {});
    let mut b = Node::start(&pki, "b", &[("a", nowhere())], |_| {});
    a.links.region(&region("b")).unwrap().set_address(address(&b));
    a.up("b").await;
    b.up("a").await;
}

#[test]
fn a_node_dials_every_region_but_its_own() {
    let pki = Pki::new();
    let at = |port| SocketAddr::from(([127, 0, 0, 1], port));
    let regions = [("a", 1), ("b", 2), ("c", 3)].map(|(name, port)| RegionSettings {
        name: region(name),
        quic: at(port),
        http: at(9),
        peers: Neighbours::All,
    });
    let mut node = Settings {
        cluster_name: "test".to_owned(),
        cluster: pki.authority.cluster(),
        region: region("b"),
        regions: regions.into(),
        collections: BTreeMap::new(),
        limits: Limits::default(),
        data: PathBuf::new(),
        pki: pki.paths("b", 30),
        joining: Joining::default(),
    };
    let settings = TransportSettings::new(&node).unwrap();
    assert_eq!(settings.bind, at(2));
    let dialled: Vec<_> =
        settings.regions.iter().map(|region| (&region.name, region.quic)).collect();
    assert_eq!(dialled, [(&region("a"), at(1)), (&region("c"), at(3))]);
    assert!(settings.max_frame_bytes > settings.frame_bytes);
    node.region = region("d");
    assert!(TransportSettings::new(&node).unwrap_err().to_string().contains("d is no region"));
}

/// The rule for two links of the same two processes: what the lower region dialled stays.
#[tokio::test]
async fn of_two_links_both_sides_keep_the_same_one() {
    let pki = Pki::new();
    let mut a = Node::start(&pki, "a", &[("b", nowhere())], |_| {});
    let mut b = Node::start(&pki, "b", &[("a", address(&a))], |_| {});
    a.up("b").await;
    b.up("a").await;

    // `b` dialled; now `a` dials too, and its link takes the place of the other one.
    let b_from_a = a.links.region(&region("b")).unwrap();
    let link = a.links.dial(&b_from_a, address(&b)).await.unwrap();
    assert!(a.down().await.contains("newer link"));
    assert!(b.next_is_down_and_up().await.contains("newer link"));

    // A second one of `b` is not wanted, and nobody is alarmed.
    let a_from_b = b.links.region(&region("a")).unwrap();
    let refused = b.links.dial(&a_from_b, address(&a)).await.unwrap_err();
    assert_eq!(refused.loudness, Loudness::Quiet, "{refused:?}");
    let live = link.registration.handle.clone();
    live.send(Bytes::from_static(b"still here"), Lane::Fresh);
    a.run(link);
    assert_eq!(b.frame().await, Bytes::from_static(b"still here"));
}

#[tokio::test]
async fn an_address_that_is_taken_is_named() {
    let pki = Pki::new();
    let a = Node::start(&pki, "a", &[], |_| {});
    let error = Node::try_start(&pki, "b", &[], |s| s.bind = address(&a)).unwrap_err().to_string();
    assert!(error.contains(&format!("cannot listen on {} (UDP)", address(&a))), "{error}");
}

#[tokio::test]
async fn failed_attempts_are_told_with_the_reason() {
    let pki = Pki::new();
    let c = Node::start(&pki, "c", &[("a", nowhere())], |_| {});
    let mut a = Node::start(&pki, "a", &[("b", address(&c))], |_| {});
    let event = a.event().await;
    let LinkEvent::Failed { region: failed, reason } = event else { panic!("{event:?}") };
    assert_eq!(failed, region("b"));
    assert!(reason.contains("region/c"), "{reason}");
}
