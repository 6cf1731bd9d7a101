//! Lanes: what goes first, and what happens to what overtakes.

use super::*;
use crate::replication::frame::unpacked_bytes;

fn frame_of(effect: Effect) -> Option<(Lane, Bytes)> {
    if let Effect::Send { bytes, lane, .. } = effect { Some((lane, bytes)) } else { None }
}

/// Returns the lane of every frame that an input has sent, with the frame.
fn sent(node: &mut Node, input: Input) -> Vec<(Lane, Frame)> {
    let mut effects = Vec::new();
    let now = Now { monotonic: node.now, wall: Timestamp(1) };
    node.replication.handle(input, now, &mut effects);
    let decoded = |(lane, bytes)| (lane, Frame::decode(&bytes).unwrap());
    effects.into_iter().filter_map(frame_of).map(decoded).collect()
}

#[test]
fn new_entries_and_control_are_fresh_and_what_is_read_back_is_bulk() {
    let mut node = Node::with([dot(1, 40), dot(3, 5)].into_iter().collect());
    let connected = Input::Connected { link: LinkId(1), region: region("b") };
    assert!(sent(&mut node, connected).iter().all(|(lane, _)| *lane == Lane::Fresh));
    let done = node.receive(1, &hello("b", &[dot(1, 38)], &[]));
    let Some(Done::Read(ticket, ..)) = done.last() else { panic!("{done:?}") };
    let entries = (39..=40).map(|sequence| entry(origin(1), sequence)).collect();
    let read = Input::Read { ticket: *ticket, entries };
    assert_eq!(sent(&mut node, read), [(Lane::Bulk, batch(origin(1), 39..=40))]);

    let local = vec![entry(origin(1), 41)];
    let vector = [dot(1, 41), dot(3, 5)].into_iter().collect();
    let committed = sent(&mut node, Input::Committed { local, vector });
    assert_eq!(committed, [(Lane::Fresh, batch(origin(1), 41..=41))]);

    let pull =
        Frame::Pull(Pull { origin: origin(3), after: Sequence(3), entries: 10, bytes: 1_000 });
    let done = node.receive(1, &pull);
    let Some(Done::Read(ticket, ..)) = done.last() else { panic!("{done:?}") };
    let entries = (4..=5).map(|sequence| entry(origin(3), sequence)).collect();
    let answer = sent(&mut node, Input::Read { ticket: *ticket, entries });
    assert_eq!(answer.len(), 2, "a batch and the end");
    assert!(answer.iter().all(|(lane, _)| *lane == Lane::Bulk), "{answer:?}");
}

/// A fresh frame passes the bulk frames that it follows. It waits for them here; to drop it would
/// mean to ask for it again, and to send everything behind it twice.
#[test]
fn what_overtakes_is_kept_until_what_it_follows_has_come() {
    let mut node = Node::new();
    node.meet(1, "b", &[], &[]);
    assert_eq!(node.receive(1, &batch(origin(2), 6..=8)), []);
    assert_eq!(node.receive(1, &batch(origin(2), 4..=5)), []);
    let done = node.receive(1, &batch(origin(2), 1..=3));
    let Some(Done::Append(_, appended)) = done.last() else { panic!("{done:?}") };
    assert_eq!(appended, &dots(2, 1..=8));
    node.append(ticket_of_append(&done), &dots(2, 1..=8));
    // Nothing was asked for.
    let waited = node.wait(SECOND / 2);
    assert!(!waited.iter().any(|done| matches!(done, Done::Sent(_, Frame::Pull(_)))), "{waited:?}");
}

#[test]
fn what_overtakes_is_taken_too_when_the_gap_is_closed_by_another_link() {
    let mut node = Node::new();
    node.meet(1, "b", &[], &[]);
    node.meet(2, "c", &[], &[]);
    node.receive(1, &batch(origin(2), 3..=4));
    let done = node.receive(2, &batch(origin(2), 1..=2));
    let done = node.append(ticket_of_append(&done), &dots(2, 1..=2));
    let next = done.iter().find(|done| matches!(done, Done::Append(..)));
    assert!(matches!(next, Some(Done::Append(_, early)) if *early == dots(2, 3..=4)), "{done:?}");
}

#[test]
fn what_comes_early_is_bounded_and_gives_way_to_what_comes_in_order() {
    let mut node = Node::new();
    node.meet(1, "b", &[], &[]);
    for batch_number in 1..200 {
        let first = batch_number * 10 + 1;
        node.receive(1, &batch(origin(2), first..=first + 9));
    }
    let link = node.replication.link_mut(&region("b")).unwrap();
    assert!(link.inbox.entries <= 10 * 26, "{} entries wait", link.inbox.entries);
    let done = node.receive(1, &batch(origin(2), 1..=10));
    assert!(done.iter().any(|done| matches!(done, Done::Append(..))), "{done:?}");
}

#[test]
fn a_batch_for_several_peers_is_packed_once_and_counts_unpacked_in_the_window() {
    let mut node = Node::new();
    node.meet(1, "b", &[], &[]);
    node.meet(2, "c", &[], &[]);
    let change = Bytes::from(vec![7; 5_000]);
    let local = vec![Entry { change, ..entry(origin(1), 1) }];
    let vector = [dot(1, 1)].into_iter().collect();
    let mut effects = Vec::new();
    let now = Now { monotonic: node.now, wall: Timestamp(1) };
    node.replication.handle(Input::Committed { local, vector }, now, &mut effects);
    let frames = effects.into_iter().filter_map(frame_of);
    let frames: Vec<Bytes> = frames.map(|(_, bytes)| bytes).collect();
    assert_eq!(frames.len(), 2);
    assert_eq!(frames[0].as_ptr(), frames[1].as_ptr(), "packed twice");
    assert!(frames[0].len() < 200 && unpacked_bytes(&frames[0]) > 5_000);
    let window = &node.replication.link_mut(&region("b")).unwrap().window;
    assert_eq!(window.bytes, unpacked_bytes(&frames[0]));
}
