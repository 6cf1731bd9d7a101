//! Every change reaches every region, over whatever links there are: chains, hubs, rings, meshes,
//! and what is left of them when a link is cut.

use super::net::{Net, name};
use super::*;
use crate::replication::members::MemberAct;

type Edges = Vec<(usize, usize)>;

fn mesh(nodes: usize) -> Edges {
    (0..nodes).flat_map(|a| (a + 1..nodes).map(move |b| (a, b))).collect()
}

fn ring(nodes: usize) -> Edges {
    let around = (0..nodes).map(|a| (a, (a + 1) % nodes));
    around.map(|(a, b)| (a.min(b), a.max(b))).collect()
}

fn chain(nodes: usize) -> Edges {
    (1..nodes).map(|b| (b - 1, b)).collect()
}

fn hub(nodes: usize) -> Edges {
    (1..nodes).map(|b| (0, b)).collect()
}

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// Writes everywhere for a while, and checks that all have all.
fn load(net: &mut Net, nodes: usize, rounds: usize) {
    let mut last = Vec::new();
    for _ in 0..rounds {
        last = (0..nodes).map(|node| net.write(node)).collect();
        net.run(millis(40));
    }
    for dot in last {
        net.reaches_all(dot);
    }
    net.run(SECOND * 3);
}

#[test]
fn every_change_reaches_every_region_of_a_chain_a_hub_a_ring_and_a_mesh() {
    for (what, nodes, edges, hops) in [
        ("chain", 5, chain(5), 4),
        ("hub", 5, hub(5), 2),
        ("ring", 6, ring(6), 3),
        ("mesh", 5, mesh(5), 1),
    ] {
        for latency in [millis(1), millis(50), millis(150)] {
            let mut net = Net::new(nodes, &edges, latency);
            // What is told of an origin goes ahead of its first entry.
            net.run(SECOND);
            for node in 0..nodes {
                let dot = net.write(node);
                let took = net.reaches_all(dot);
                let direct = (latency + millis(1)) * hops;
                assert!(took <= direct, "{what}, {latency:?}: {took:?}, the way takes {direct:?}");
            }
        }
    }
}

#[test]
fn in_a_mesh_and_in_a_chain_every_change_crosses_each_link_once() {
    for (what, nodes, edges) in [
        ("mesh of 3", 3, mesh(3)),
        ("mesh of 5", 5, mesh(5)),
        ("chain", 4, chain(4)),
        ("hub", 4, hub(4)),
    ] {
        for latency in [millis(1), millis(95)] {
            let mut net = Net::new(nodes, &edges, latency);
            load(&mut net, nodes, 200);
            let (all, again) = net.traffic();
            assert!(all > 0);
            assert_eq!(again, 0, "{what}, {latency:?}: of {all} bytes");
        }
    }
}

#[test]
fn in_a_ring_a_change_meets_itself_once() {
    let mut net = Net::new(5, &ring(5), millis(20));
    load(&mut net, 5, 100);
    let (all, again) = net.traffic();
    // It goes around both ways: five links carry four copies that are needed, and two that meet.
    assert!(again * 100 <= all * 34, "{again} of {all} bytes came again");
}

/// Measures how long a change takes from one end of a link that was just cut to everybody.
fn routed_around(nodes: usize, edges: &Edges, latency: Duration, quiet: Duration) -> Duration {
    let mut net = Net::new(nodes, edges, latency);
    load(&mut net, nodes, 20);
    // One change is on its way over the link when it is cut, one comes after it.
    net.write(0);
    net.run(quiet);
    let lost = net.write(0);
    net.cut(0, 1);
    let after = net.write(0);
    net.reaches_all(lost).max(net.reaches_all(after))
}

#[test]
fn a_cut_link_is_routed_around_within_a_second() {
    let topologies = [
        ("mesh of 3", 3, mesh(3)),
        ("mesh of 4", 4, mesh(4)),
        ("mesh of 5", 5, mesh(5)),
        ("ring of 4", 4, ring(4)),
        ("ring of 6", 6, ring(6)),
    ];
    for (what, nodes, edges) in topologies {
        for latency in [millis(1), millis(20), millis(60), millis(95)] {
            for quiet in [millis(0), millis(130), millis(700)] {
                let took = routed_around(nodes, &edges, latency, quiet);
                assert!(took <= SECOND, "{what}, {latency:?} one way, {quiet:?}: {took:?}");
            }
        }
    }
}

/// Nobody says that the link is dead. Two digests that did not come make the others pass on what
/// does not arrive any more; that is what detection costs.
#[test]
fn a_link_that_dies_silently_is_routed_around_a_second_after_two_digests_are_missing() {
    for (what, nodes, edges) in
        [("mesh of 3", 3, mesh(3)), ("mesh of 5", 5, mesh(5)), ("ring of 4", 4, ring(4))]
    {
        for latency in [millis(1), millis(60), millis(95)] {
            let mut net = Net::new(nodes, &edges, latency);
            load(&mut net, nodes, 20);
            net.silence(0, 1);
            let dot = net.write(0);
            let took = net.reaches_all(dot);
            assert!(took <= SECOND * 3 + SECOND, "{what}, {latency:?}: {took:?}");
        }
    }
}

#[test]
fn who_is_drained_or_forgotten_is_known_everywhere_at_once_and_costs_nothing_afterwards() {
    let mut net = Net::new(5, &chain(5), millis(20));
    net.run(SECOND * 10);
    assert_eq!(net.members_frames, 0, "tables that agree are not sent");
    net.input(0, Input::Steer { region: name(4), act: MemberAct::Drain });
    net.run(millis(100));
    for node in 0..5 {
        let standing = net.of(node).members().get(&name(4)).unwrap().standing;
        assert_eq!(standing.as_str(), "draining", "at node {node}");
    }
    let told = net.members_frames;
    net.run(SECOND * 20);
    assert_eq!(net.members_frames, told, "nothing more to say");
}

#[test]
fn a_region_leaves_when_the_others_have_everything_and_no_sooner() {
    let mut net = Net::new(3, &mesh(3), millis(20));
    net.cut(1, 2);
    net.cut(0, 2);
    let dot = net.write(2);
    net.input(2, Input::Steer { region: name(2), act: MemberAct::Leave });
    net.run(SECOND * 10);
    let standing = |net: &Net, node: usize| net.of(node).members().get(&name(2)).unwrap().standing;
    assert_eq!(standing(&net, 2).as_str(), "leaving", "what it has is nowhere else");
    net.heal();
    net.reaches_all(dot);
    net.run(SECOND * 3);
    for node in 0..3 {
        assert_eq!(standing(&net, node).as_str(), "left", "at node {node}");
    }
    let voters: Vec<String> = net.of(0).voters().map(ToString::to_string).collect();
    assert_eq!(voters, ["n0", "n1"]);
}

#[test]
fn a_forgotten_region_is_cut_off_by_all_and_knows_it() {
    let mut net = Net::new(4, &mesh(4), millis(20));
    net.input(1, Input::Steer { region: name(3), act: MemberAct::Forget });
    net.run(SECOND);
    for node in 0..4 {
        let standing = net.of(node).members().get(&name(3)).unwrap().standing;
        assert_eq!(standing.as_str(), "forgotten", "at node {node}");
    }
    let behind = net.write(0);
    net.run(SECOND * 2);
    assert!(!net.has(3, behind), "its links are closed");
    let view = net.of(0).cluster(Now { monotonic: net.now, wall: Timestamp(1) });
    assert_eq!(view.voters().count(), 3, "nothing waits for it any more");

    // It asks node 2 to be taken in again.
    let record = net.of(3).members().itself().unwrap().clone();
    net.input(2, Input::Joining { member: record });
    let told = vec![net.of(2).members().get(&name(3)).unwrap().clone()];
    net.input(3, Input::Told { by: name(2), members: told });
    net.reconnect();
    net.reaches_all(behind);
    for node in 0..4 {
        assert_eq!(net.of(node).voters().count(), 4, "at node {node}");
    }
}

#[test]
fn operators_who_act_on_both_sides_of_a_split_end_up_with_one_table() {
    let mut net = Net::new(4, &mesh(4), millis(20));
    for (a, b) in [(0, 2), (0, 3), (1, 2), (1, 3)] {
        net.cut(a, b);
    }
    net.input(0, Input::Steer { region: name(3), act: MemberAct::Drain });
    net.input(2, Input::Steer { region: name(3), act: MemberAct::Leave });
    net.input(3, Input::Steer { region: name(1), act: MemberAct::Drain });
    net.run(SECOND);
    net.heal();
    net.run(SECOND * 2);
    let table = |node: usize| net.of(node).members().to_string();
    for node in 1..4 {
        assert_eq!(table(node), table(0), "at node {node}");
    }
    assert!(table(0).contains("n1 (draining)"), "{}", table(0));
}
