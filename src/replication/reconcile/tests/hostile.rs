//! Peers that do not keep to the protocol: they cost themselves only.

use anabranch_crdt::bundle::{Bundle, IdRange};
use anabranch_crdt::ids::{Sequence, Timestamp};
use bytes::Bytes;

use super::world::{SECOND, World, id, origin};
use crate::replication::frame::{Bundles, Fetch, Frame, Ranges, TooOld};
use crate::replication::reconcile::{
    Ask, AskNumber, BatchNumber, Content, Fingerprint, Part, ReconcileEffect, RunId, Want,
};
use crate::replication::{Effect, Input, LinkId, Now};

/// Two linked nodes with a few documents; the first one is under test, over the first link.
fn linked() -> World {
    let mut world = World::new(2);
    world.connect(0, 1);
    (0..50).for_each(|number| world.write(0, id(number)));
    world.run(3 * SECOND);
    world
}

/// Gives a frame to the first node, and returns what it wants done.
fn receive(world: &mut World, frame: &Frame) -> Vec<Effect> {
    let mut effects = Vec::new();
    let input = Input::Frame { link: LinkId(1), bytes: frame.encode() };
    let now = Now { monotonic: world.now, wall: Timestamp(1) };
    world.nodes[0].machine.handle(input, now, &mut effects);
    effects
}

fn ask(number: u32) -> Frame {
    let ask = Ask { range: IdRange::all(), count: 0, fingerprint: Fingerprint([0; 16]) };
    Frame::Ranges(Ranges::Ask { run: RunId(1), number: AskNumber(number), ask })
}

#[test]
fn questions_beyond_what_an_honest_peer_asks_are_dropped() {
    let mut world = linked();
    let mut reads = 0;
    for number in 0..1_000 {
        let effects = receive(&mut world, &ask(number));
        reads += effects
            .iter()
            .filter(|effect| matches!(effect, Effect::Reconcile(ReconcileEffect::Digests { .. })))
            .count();
    }
    assert!((1..20).contains(&reads), "{reads} reads at once");
}

#[test]
fn answers_that_nobody_asked_for_change_nothing() {
    let mut world = linked();
    let bundle = Bundle {
        document: id(1),
        name: None,
        heads: Vec::new(),
        changes: Vec::new(),
        dots: Vec::new(),
    };
    let frames = [
        Frame::Bundles(Bundles {
            run: RunId(3),
            number: BatchNumber(1),
            bundles: vec![bundle],
            absent: Vec::new(),
            unreadable: Vec::new(),
        }),
        Frame::Ranges(Ranges::Answer {
            run: RunId(3),
            number: AskNumber(1),
            parts: vec![Part { end: None, content: Content::Equal }],
        }),
    ];
    for frame in frames {
        let effects = receive(&mut world, &frame);
        assert!(effects.is_empty(), "{effects:?}");
    }
}

/// A floor that the peer cannot have would keep the node looking for a source for ever.
#[test]
fn a_floor_above_what_the_peer_has_is_not_believed() {
    let mut world = linked();
    let floor = Sequence(u64::MAX - 1);
    for origin in [origin(0), origin(1), origin(7)] {
        receive(&mut world, &Frame::TooOld(TooOld { origin, floor }));
    }
    world.run(10 * SECOND);
    let now = Now { monotonic: world.now, wall: Timestamp(1) };
    assert_eq!(world.nodes[0].machine.reconciliation(now).bootstrap, None);
}

#[test]
fn more_is_never_given_than_fits_in_a_frame() {
    let mut world = linked();
    let want = |number| Want { document: id(number), have: Vec::new() };
    let wants = (0..50).map(want).collect();
    let fetch = Fetch::Want { run: RunId(1), number: BatchNumber(1), bytes: u32::MAX, wants };
    let effects = receive(&mut world, &Frame::Fetch(fetch));
    let bytes = effects.iter().find_map(|effect| {
        let Effect::Reconcile(ReconcileEffect::Export { bytes, .. }) = effect else { return None };
        Some(*bytes)
    });
    assert_eq!(bytes, Some(10_000), "half of a frame");
}

/// A peer says that documents should be looked at: a bounded number of them is.
#[test]
fn offers_are_bounded() {
    let mut world = linked();
    for round in 0..20_u128 {
        let documents = (0..1_000).map(|number| id(round * 1_000 + number)).collect();
        receive(&mut world, &Frame::Fetch(Fetch::Offer { documents }));
    }
    world.run(60 * SECOND);
    assert!(world.nodes.iter().all(|node| node.alarms.is_empty()));
    assert!(world.converged());
}

#[test]
fn bytes_that_are_no_frame_close_the_link() {
    let mut world = linked();
    let mut effects = Vec::new();
    let bytes = Bytes::from_static(&[1, 14, 9, 9, 9]);
    let now = Now { monotonic: world.now, wall: Timestamp(1) };
    world.nodes[0].machine.handle(Input::Frame { link: LinkId(1), bytes }, now, &mut effects);
    let closes = |effect: &Effect| matches!(effect, Effect::Close { .. });
    assert!(effects.iter().any(closes), "{effects:?}");
}
