//! Stories of nodes that were away too long, and of replicas that are not what they should be.

use proptest::prelude::*;

use super::world::{SECOND, Weather, World, id, origin, region};
use crate::replication::Input;
use crate::replication::reconcile::{
    Lacking, ReconcileInput, Repair, RequestId, VerifyReport, VerifyState,
};

const MINUTE: std::time::Duration = std::time::Duration::from_secs(60);

/// Two nodes with documents that both have, of which the log is gone at the first.
fn with_history(documents: u128) -> World {
    let mut world = World::new(2);
    (0..documents).for_each(|number| world.write(0, id(number)));
    world.truncate_log(0);
    world
}

fn verify(world: &mut World, node: usize, repair: Repair) -> VerifyReport {
    let request = RequestId(u64::try_from(node).unwrap() + 1);
    let input = ReconcileInput::Verify { request, peer: None, repair };
    world.handle(node, Input::Reconcile(input));
    let of_it = move |world: &World| {
        let now = crate::replication::Now { monotonic: world.now, wall: Default::default() };
        let status = world.nodes[node].machine.reconciliation(now);
        let report = status.reports.into_iter().rfind(|report| report.request == Some(request));
        report.filter(|report| !matches!(report.state, VerifyState::Running | VerifyState::Waiting))
    };
    assert!(world.run_until(20 * MINUTE, |world| of_it(world).is_some()), "it does not end");
    of_it(world).unwrap()
}

#[test]
fn a_new_node_bootstraps_where_no_log_goes_back_far_enough() {
    let mut world = with_history(3_000);
    world.write(0, id(5));
    world.connect(0, 1);
    assert!(world.run_until(MINUTE, World::converged));
    assert_eq!(world.nodes[1].adopted, 3_000);
    let log: Vec<_> = world.nodes[1].disk.log.keys().copied().collect();
    assert!(log.len() <= 1, "documents came as documents, not as entries: {log:?}");
}

#[test]
fn a_log_that_goes_back_far_enough_is_enough() {
    let mut world = World::new(2);
    (0..500).for_each(|number| world.write(0, id(number)));
    world.connect(0, 1);
    assert!(world.run_until(MINUTE, World::converged));
    assert_eq!(world.nodes[1].adopted, 0);
}

/// One peer has lost the log, another one has it still.
#[test]
fn any_peers_log_is_better_than_a_bootstrap() {
    let mut world = World::new(3);
    world.connect(0, 1);
    (0..300).for_each(|number| world.write(0, id(number)));
    world.run(2 * SECOND);
    world.truncate_log(0);
    world.connect(0, 2);
    world.connect(1, 2);
    assert!(world.run_until(MINUTE, World::converged));
    assert_eq!(world.nodes[2].adopted, 0);
}

/// It was away, its peers have dropped their logs, and all of them are written to meanwhile.
#[test]
fn a_region_that_returns_takes_over_only_what_changed() {
    let mut world = with_history(2_000);
    world.connect(0, 1);
    assert!(world.run_until(MINUTE, World::converged));
    let before = world.nodes[1].adopted;
    world.isolate(1);
    (0..40).for_each(|number| world.write(0, id(number * 50)));
    (0..10).for_each(|number| world.write(1, id(number * 70)));
    world.truncate_log(0);
    world.connect(0, 1);
    let mut number = 5_000;
    while !world.converged() {
        world.run(SECOND / 10);
        number += 1;
        assert!(number < 6_000, "it does not come back");
        if number < 5_050 {
            world.write(0, id(number));
            world.write(1, id(number / 2));
        }
    }
    assert!(world.nodes[1].adopted - before < 120, "{}", world.nodes[1].adopted - before);
    assert!(world.nodes.iter().all(|node| node.alarms.is_empty()));
}

/// Nothing is claimed before everything is there: a vector that was raised too early would hide
/// what is missing for ever.
#[test]
fn nothing_is_claimed_before_it_is_there() {
    let mut world = with_history(2_000);
    world.connect(0, 1);
    let honest = |world: &World| {
        let claimed = world.nodes[1].disk.vector.sequence(origin(0)).0;
        claimed == 0 || world.nodes[1].disk.documents.len() as u64 >= claimed
    };
    for _ in 0..200 {
        world.run(SECOND / 20);
        assert!(honest(&world));
    }
    assert!(world.converged());
}

#[test]
fn another_source_goes_on_where_the_first_one_died() {
    let mut world = World::new(3);
    world.connect(0, 1);
    (0..3_000).for_each(|number| world.write(0, id(number)));
    assert!(
        world.run_until(MINUTE, |world| {
            world.nodes[0].disk.vector == world.nodes[1].disk.vector
        })
    );
    world.truncate_log(0);
    world.truncate_log(1);
    world.connect(0, 2);
    world.connect(1, 2);
    let half = |world: &World| world.nodes[2].adopted > 1_500;
    assert!(world.run_until(MINUTE, half));
    // Only the one that it does not use stays.
    let status = world.nodes[2]
        .machine
        .reconciliation(crate::replication::Now { monotonic: world.now, wall: Default::default() });
    let source = status.bootstrap.unwrap().source.unwrap();
    world.isolate(if source == region(0) { 0 } else { 1 });
    let there = |world: &World| world.nodes[2].disk.vector.sequence(origin(0)).0 == 3_000;
    assert!(world.run_until(MINUTE, there));
    assert_eq!(world.nodes[2].disk.documents.len(), 3_000);
    assert!(world.nodes[2].adopted < 3_000 + 600, "{} documents", world.nodes[2].adopted);
}

#[test]
fn equal_replicas_are_proven_equal() {
    let mut world = World::new(2);
    world.connect(0, 1);
    (0..9_000).for_each(|number| world.write(0, id(number)));
    assert!(world.run_until(MINUTE, World::converged));
    let before = world.bytes;
    let report = verify(&mut world, 1, Repair::Tell);
    assert_eq!((report.compared, report.equal, report.broken), (9_000, 9_000, 0));
    assert!(world.bytes - before < 2_000, "{} bytes", world.bytes - before);
    assert_eq!(report.state, VerifyState::Done);
}

/// A record is lost on disk, and nobody notices until the documents are compared.
#[test]
fn a_broken_replica_is_found_and_repaired_whichever_side_it_is_on() {
    for asker in [0, 1] {
        let mut world = World::new(2);
        world.connect(0, 1);
        (0..2_000).for_each(|number| world.write(0, id(number % 1_000)));
        assert!(world.run_until(MINUTE, World::converged));
        world.nodes[1].disk.documents.remove(&id(77));
        let changes = world.nodes[1].disk.documents.get_mut(&id(500)).unwrap();
        changes.pop_first();

        let told = verify(&mut world, asker, Repair::Tell);
        assert_eq!((told.broken, told.repaired, told.in_flight), (2, 0, 0), "{told:?}");
        assert!(!world.converged());
        let lacking = if asker == 1 { Lacking::Here } else { Lacking::There };
        let alarms = &world.nodes[asker].alarms;
        assert!(alarms.len() == 2 && alarms.iter().all(|alarm| alarm.lacking == lacking));

        let mended = verify(&mut world, asker, Repair::Mend);
        assert_eq!((mended.broken, mended.repaired), (2, 2), "{mended:?}");
        assert!(world.converged());
        let clean = verify(&mut world, asker, Repair::Mend);
        assert_eq!((clean.equal, clean.broken), (1_000, 0));
    }
}

/// Both replicas lost something of one document: each is given what it lacks.
#[test]
fn replicas_are_united() {
    let mut world = World::new(2);
    world.connect(0, 1);
    (0..20).for_each(|_| world.write(0, id(3)));
    assert!(world.run_until(MINUTE, World::converged));
    world.nodes[0].disk.documents.get_mut(&id(3)).unwrap().pop_first();
    world.nodes[1].disk.documents.get_mut(&id(3)).unwrap().pop_last();
    let report = verify(&mut world, 0, Repair::Mend);
    assert_eq!((report.broken, report.repaired), (1, 1), "{report:?}");
    assert!(world.converged());
    assert_eq!(world.nodes[0].disk.documents[&id(3)].len(), 20);
}

/// Documents that are written to all the time are in flight, and never counted as broken.
#[test]
fn what_is_in_flight_is_not_broken() {
    let mut world = World::new(2);
    world.connect(0, 1);
    (0..200).for_each(|number| world.write(0, id(number)));
    world.run(5 * SECOND);
    world.handle(
        1,
        Input::Reconcile(ReconcileInput::Verify {
            request: RequestId(9),
            peer: None,
            repair: Repair::Mend,
        }),
    );
    for round in 0..600_u128 {
        world.write(0, id(round % 3));
        world.write(1, id(round % 3 + 1));
        world.run_until(SECOND / 50, |_| false);
        world.now += SECOND / 50;
    }
    world.run(MINUTE);
    assert!(world.nodes.iter().all(|node| node.alarms.is_empty()));
    assert!(world.converged());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Whatever the network loses, repeats or delays, and whenever the node or its source is
    /// killed: in the end it has everything, and it never claims what it has not.
    #[test]
    fn a_bootstrap_survives_the_network_and_crashes(
        seed in any::<u64>(),
        one_in in 8_u64..40,
        crashes in proptest::collection::vec((0_usize..2, 1_u32..40), 0..4),
    ) {
        let mut world = with_history(700);
        world.weather = Weather::Foul(seed, one_in);
        world.connect(0, 1);
        for (node, tenths) in crashes {
            world.run(SECOND / 10 * tenths);
            world.restart(node);
            world.write(0, id(9_000 + u128::from(tenths)));
            let claimed = world.nodes[1].disk.vector.sequence(origin(0)).0;
            prop_assert!(claimed == 0 || world.nodes[1].disk.documents.len() >= 700);
        }
        prop_assert!(world.run_until(20 * MINUTE, World::converged), "it does not come back");
        world.weather = Weather::Fair;
        let report = verify(&mut world, 1, Repair::Tell);
        prop_assert_eq!((report.broken, report.in_flight), (0, 0));
        prop_assert_eq!(report.equal, world.nodes[0].disk.documents.len() as u64);
    }
}
