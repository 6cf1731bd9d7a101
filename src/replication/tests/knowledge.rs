//! Who is known to have what: over chains, over cuts, after disks were rolled back; and what a
//! majority read may miss, which is nothing.

use proptest::prelude::*;
use proptest::sample::Index;

use super::super::*;
use super::wired::Wired;
use super::{SECOND, dot, origin, region};

const KNOWLEDGE: u8 = 7;
const PROBE: u8 = 8;
const ANSWER: u8 = 9;

#[test]
fn the_far_end_of_a_chain_is_heard_of_without_waiting_for_a_digest() {
    let mut chain = Wired::chain(4);
    chain.wait(SECOND * 3);
    chain.write(0);
    chain.wait(Duration::from_millis(20));
    let known: Vec<u64> = (1..4).map(|node| chain.knows(0, node, 0)).collect();
    assert_eq!(known, [1, 1, 1]);
    assert_eq!(chain.view(0).stable().sequence(origin(1)), Sequence(1));
}

#[test]
fn what_comes_in_quick_succession_is_told_together() {
    let mut chain = Wired::chain(3);
    chain.wait(SECOND * 3);
    let before = chain.delivered.get(&KNOWLEDGE).copied().unwrap_or_default();
    for _ in 0..50 {
        chain.write(0);
        chain.settle();
    }
    assert!(chain.knows(0, 2, 0) < 50, "the second acknowledgement waits for the pause");
    chain.wait(Duration::from_millis(10));
    assert_eq!(chain.knows(0, 2, 0), 50);
    let told = chain.delivered[&KNOWLEDGE] - before;
    assert!(told <= 4, "{told} frames for fifty acknowledgements");
}

#[test]
fn a_full_mesh_tells_nothing_by_hearsay() {
    let mut mesh = Wired::mesh(4);
    // While the links come up, some do not say yet to whom they have one.
    mesh.wait(SECOND * 3);
    mesh.delivered.clear();
    for node in 0..4 {
        mesh.write(node);
        mesh.wait(SECOND * 2);
    }
    assert_eq!(mesh.knows(0, 3, 0), 1);
    mesh.ask(0, 1);
    mesh.settle();
    assert_eq!(mesh.delivered.get(&KNOWLEDGE), None);
    assert_eq!((mesh.delivered[&PROBE], mesh.delivered[&ANSWER]), (3, 3));
}

#[test]
fn a_cut_in_a_mesh_is_talked_around() {
    let mut mesh = Wired::mesh(3);
    mesh.wait(SECOND * 2);
    mesh.cut(0, 2);
    mesh.wait(SECOND / 2);
    mesh.write(0);
    mesh.wait(Duration::from_millis(20));
    assert_eq!(mesh.knows(0, 2, 0), 1, "told at once, since the cut is known");
}

#[test]
fn what_a_region_has_is_not_known_while_it_is_cut_off() {
    let mut chain = Wired::chain(3);
    chain.wait(SECOND * 2);
    chain.cut(1, 2);
    chain.write(0);
    chain.wait(SECOND * 10);
    assert_eq!((chain.knows(0, 1, 0), chain.knows(0, 2, 0)), (1, 0));
    assert_eq!(chain.view(0).stable(), VersionVector::new());
    chain.link(1, 2);
    chain.wait(SECOND * 2);
    assert_eq!(chain.knows(0, 2, 0), 1);
}

/// A row that only grows would claim for ever that a rolled-back disk still has what it lost.
#[test]
fn a_disk_that_was_rolled_back_is_known_to_have_less_at_both_ends_of_a_chain() {
    // The clock of the second run may be ahead, or was set back: then the stamp has to be raised.
    for wall_ahead in [60_000_000, 0] {
        let mut chain = Wired::chain(4);
        chain.wait(SECOND * 2);
        (0..3).for_each(|_| _ = chain.write(0));
        chain.wait(SECOND);
        assert_eq!((chain.knows(0, 3, 0), chain.knows(1, 3, 0)), (3, 3));

        // It cannot get its entries back: the machine before it has the link, and no log of them.
        chain.cut(1, 2);
        chain.roll_back(3, VersionVector::from_iter([dot(1, 1)]), wall_ahead);
        chain.settle();
        assert_eq!(chain.knows(2, 3, 0), 3, "it is repaired by its neighbour at once");
        chain.cut(2, 3);
        chain.roll_back(3, VersionVector::from_iter([dot(1, 1)]), wall_ahead + 1);
        chain.link(1, 3);
        while let Some(&choice) = chain.choices().iter().find(|choice| !is_append(choice)) {
            chain.take(choice);
        }
        assert_eq!(chain.knows(1, 3, 0), 1, "ahead by {wall_ahead}");
        assert_eq!(chain.knows(0, 3, 0), 1, "by hearsay, ahead by {wall_ahead}");
    }
}

fn is_append(choice: &super::wired::Choice) -> bool {
    matches!(choice, super::wired::Choice::Append(_))
}

#[test]
fn hearsay_of_an_origin_that_has_more_than_its_own_disk_makes_it_take_a_new_one() {
    let mut chain = Wired::chain(3);
    chain.write(2);
    chain.wait(SECOND * 2);
    let own_row = |node: &Replication| node.origin;
    assert_eq!(own_row(&chain.nodes[2].replication), origin(3));
    chain.roll_back(2, VersionVector::new(), 0);
    chain.settle();
    assert_eq!(own_row(&chain.nodes[2].replication), origin(102));
}

#[test]
fn the_age_of_data_grows_while_a_region_is_cut_off_and_falls_when_it_is_back() {
    let mut chain = Wired::chain(3);
    chain.wait(SECOND * 5);
    let fresh = |lag: Option<Duration>| lag.is_some_and(|lag| lag < SECOND * 5 / 2);
    assert!(fresh(chain.lag(0, 1)) && fresh(chain.lag(0, 2)), "{:?}", chain.lag(0, 2));
    chain.cut(1, 2);
    chain.wait(SECOND * 30);
    assert!(fresh(chain.lag(0, 1)));
    assert!(chain.lag(0, 2).unwrap() >= SECOND * 30);
    chain.link(1, 2);
    chain.wait(SECOND * 4);
    assert!(fresh(chain.lag(0, 2)), "{:?}", chain.lag(0, 2));
}

#[test]
fn data_is_as_old_as_the_first_entry_that_is_missing() {
    let mut pair = Wired::mesh(2);
    pair.wait(SECOND * 5);
    pair.write(1);
    // The entry never arrives, the digests do.
    pair.frames.clear();
    let held_back = |pair: &mut Wired| {
        while let Some(&choice) = pair.choices().iter().find(|choice| !is_append(choice)) {
            pair.take(choice);
        }
    };
    for _ in 0..10 {
        pair.now += SECOND;
        pair.time_out();
        held_back(&mut pair);
    }
    assert!(pair.lag(0, 1).unwrap() >= SECOND * 9, "{:?}", pair.lag(0, 1));
    pair.wait(SECOND * 2);
    assert!(pair.lag(0, 1).unwrap() < SECOND * 2);
}

#[test]
fn a_region_that_was_never_heard_is_of_unknown_age() {
    let mut pair = Wired::new(2);
    pair.wait(SECOND * 5);
    assert_eq!(pair.lag(0, 1), None);
}

#[test]
fn a_majority_answers_over_a_chain() {
    let mut chain = Wired::chain(5);
    chain.wait(SECOND * 3);
    chain.write(2);
    // Nothing of it has arrived at the end that asks.
    chain.frames.clear();
    chain.ask(0, 1);
    chain.wait(SECOND);
    let answer = chain.nodes[0].asked[&1].clone().unwrap();
    assert!(answer.contains(dot(3, 1)), "two of the other four answer, one of them has it");
}

#[test]
fn a_question_that_is_lost_is_asked_again() {
    let mut mesh = Wired::mesh(3);
    mesh.wait(SECOND * 2);
    mesh.ask(0, 1);
    mesh.frames.clear();
    mesh.wait(SECOND / 2);
    assert!(mesh.nodes[0].asked[&1].is_ok());
}

#[test]
fn without_a_majority_the_regions_that_do_not_answer_are_named() {
    let mut chain = Wired::chain(5);
    chain.cut(1, 2);
    chain.wait(SECOND * 2);
    chain.ask(0, 1);
    chain.wait(SECOND * 6);
    let missing = chain.nodes[0].asked[&1].clone().unwrap_err();
    assert_eq!(missing, [region("c"), region("d"), region("e")]);
}

#[test]
fn a_region_alone_is_its_own_majority() {
    let mut alone = Wired::new(1);
    alone.write(0);
    alone.ask(0, 1);
    assert_eq!(alone.nodes[0].asked[&1], Ok(VersionVector::from_iter([dot(1, 1)])));
}

/// What one step of a schedule does besides letting something arrive.
#[derive(Debug, Clone)]
enum Step {
    Arrive(Index),
    Write(usize),
    Ask(usize),
    Cut(usize),
    Link(usize),
    Pass(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        12 => any::<Index>().prop_map(Step::Arrive),
        2 => (0..4_usize).prop_map(Step::Write),
        2 => (0..4_usize).prop_map(Step::Ask),
        1 => (0..5_usize).prop_map(Step::Cut),
        1 => (0..5_usize).prop_map(Step::Link),
        1 => (1..400_u64).prop_map(Step::Pass),
    ];
    proptest::collection::vec(step, 1..160)
}

/// The links that a schedule cuts and mends: a ring of four, and one across.
const LINKS: [(usize, usize); 5] = [(0, 1), (1, 2), (2, 3), (0, 3), (0, 2)];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Whatever the order of messages and whichever links are cut: a majority read includes every
    /// write that was known to be on a majority when the read began; and nobody is ever believed
    /// to have what it has not.
    #[test]
    fn a_majority_read_includes_every_majority_write_before_it(steps in steps()) {
        let mut world = Wired::new(4);
        let mut up = [true; 5];
        LINKS.iter().for_each(|&(one, other)| world.link(one, other));
        // What each read has to include, by its ticket.
        let mut wanted: Vec<(usize, VersionVector)> = Vec::new();
        for step in steps {
            match step {
                Step::Arrive(index) => {
                    let choices = world.choices();
                    if !choices.is_empty() {
                        world.take(choices[index.index(choices.len())]);
                    }
                }
                Step::Write(node) => _ = world.write(node),
                Step::Ask(node) => {
                    let ticket = wanted.len() as u64;
                    wanted.push((node, acknowledged_by_majorities(&world)));
                    world.ask(node, ticket);
                }
                Step::Cut(index) => {
                    up[index] = false;
                    world.cut(LINKS[index].0, LINKS[index].1);
                }
                Step::Link(index) => {
                    if !std::mem::replace(&mut up[index], true) {
                        world.link(LINKS[index].0, LINKS[index].1);
                    }
                }
                Step::Pass(millis) => {
                    world.now += Duration::from_millis(millis);
                    world.time_out();
                }
            }
            nobody_is_believed_to_have_more_than_it_has(&world)?;
        }
        for (ticket, (node, wanted)) in wanted.iter().enumerate() {
            if let Some(Ok(vector)) = world.nodes[*node].asked.get(&(ticket as u64)) {
                prop_assert!(vector.includes(wanted), "read {ticket} of node {node}");
            }
        }
    }
}

/// What some writer knows to be durable in three of four regions.
fn acknowledged_by_majorities(world: &Wired) -> VersionVector {
    let mut all = VersionVector::new();
    for node in 0..4 {
        let own = origin(node as u8 + 1);
        let view = world.view(node);
        let mut held: Vec<Sequence> =
            view.regions.iter().map(|region| region.held.sequence(own)).collect();
        held.sort_unstable();
        all.raise(own, held[1]);
    }
    all
}

fn nobody_is_believed_to_have_more_than_it_has(world: &Wired) -> Result<(), TestCaseError> {
    for node in 0..4 {
        for (other, view) in world.view(node).regions.iter().filter_map(|view| {
            let other = (0..4).find(|&other| view.region == region(["a", "b", "c", "d"][other]))?;
            Some((other, view))
        }) {
            prop_assert!(world.nodes[other].disk.includes(&view.held));
        }
    }
    Ok(())
}
