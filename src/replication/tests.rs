use anabranch_crdt::entry::Dot;
use anabranch_crdt::ids::DocumentId;

use super::frame::{Digest, Hello, Pull, encode_batch};
use super::*;

const SECOND: Duration = Duration::from_secs(1);

/// A node under test, with the peers `b` and `c`, at a time that the test moves.
struct Node {
    replication: Replication,
    vector: VersionVector,
    now: Duration,
}

/// What a node wants done, in a form that tests can compare.
#[derive(Debug, PartialEq)]
enum Done {
    Sent(u64, Frame),
    Append(Ticket, Vec<Dot>),
    Read(Ticket, Origin, u64),
    Closed(u64, String),
    Named(Origin, String),
    Renew,
}

impl Node {
    fn new() -> Self {
        Self::with(VersionVector::new())
    }

    fn with(vector: VersionVector) -> Self {
        let settings = ReplicationSettings {
            region: region("a"),
            origin: origin(1),
            peers: vec![region("b"), region("c")],
            frame_bytes: 10_000,
            batch_entries: 10,
            digest_interval: SECOND,
            names: Vec::new(),
        };
        let replication = Replication::new(settings, vector.clone());
        Self { replication, vector, now: SECOND }
    }

    fn handle(&mut self, input: Input) -> Vec<Done> {
        let mut effects = Vec::new();
        let now = Now { monotonic: self.now, wall: Timestamp(1) };
        self.replication.handle(input, now, &mut effects);
        effects.into_iter().filter_map(done).collect()
    }

    fn receive(&mut self, link: u64, frame: &Frame) -> Vec<Done> {
        self.handle(Input::Frame { link: LinkId(link), bytes: frame.encode() })
    }

    /// Connects a peer that has `vector` and direct links to `direct`.
    fn meet(&mut self, link: u64, name: &str, vector: &[Dot], direct: &[Origin]) -> Vec<Done> {
        self.handle(Input::Connected { link: LinkId(link), region: region(name) });
        self.receive(link, &hello(name, vector, direct))
    }

    /// Makes the next `count` own entries durable.
    fn commit(&mut self, count: u64) -> Vec<Done> {
        let last = self.vector.sequence(origin(1)).0;
        let local = (last + 1..=last + count).map(|sequence| entry(origin(1), sequence)).collect();
        self.vector.raise(origin(1), Sequence(last + count));
        self.handle(Input::Committed { local, vector: self.vector.clone() })
    }

    /// Makes an append durable.
    fn append(&mut self, ticket: Ticket, dots: &[Dot]) -> Vec<Done> {
        dots.iter().for_each(|dot| self.vector.raise(dot.origin, dot.sequence));
        let mut all = self.handle(Input::Committed { local: vec![], vector: self.vector.clone() });
        all.extend(self.handle(Input::Appended { ticket, error: None }));
        all
    }

    /// Lets time pass, with all timeouts, and returns what was sent besides digests.
    fn wait(&mut self, time: Duration) -> Vec<Done> {
        let end = self.now + time;
        let mut all = Vec::new();
        while let Some(at) = self.replication.poll_timeout().filter(|&at| at <= end) {
            self.now = self.now.max(at);
            all.extend(self.handle(Input::Timeout));
        }
        self.now = end;
        all.retain(|done| !matches!(done, Done::Sent(_, Frame::Digest(_))));
        all
    }

    fn status(&self, name: &str) -> PeerStatus {
        let now = Now { monotonic: self.now, wall: Timestamp(1) };
        let status = self.replication.status(now);
        status.into_iter().find(|peer| peer.region == region(name)).unwrap()
    }
}

fn done(effect: Effect) -> Option<Done> {
    Some(match effect {
        Effect::Send { link, bytes, .. } => Done::Sent(link.0, Frame::decode(&bytes).unwrap()),
        Effect::Append { ticket, entries } => {
            Done::Append(ticket, entries.iter().map(Entry::dot).collect())
        }
        Effect::Read { ticket, origin, after, .. } => Done::Read(ticket, origin, after.0),
        Effect::Close { link, reason } => Done::Closed(link.0, reason),
        Effect::NameOrigin { origin, region } => Done::Named(origin, region.to_string()),
        Effect::ObserveClock { .. } => return None,
        Effect::RenewOrigin => Done::Renew,
    })
}

fn region(name: &str) -> RegionName {
    name.parse().unwrap()
}

fn origin(number: u8) -> Origin {
    Origin::from_bytes([number; 16])
}

/// The origin of the peer with this name.
fn origin_of(name: &str) -> Origin {
    origin(if name == "b" { 2 } else { 3 })
}

fn dot(number: u8, sequence: u64) -> Dot {
    Dot { origin: origin(number), sequence: Sequence(sequence) }
}

fn entry(origin: Origin, sequence: u64) -> Entry {
    Entry {
        origin,
        sequence: Sequence(sequence),
        document: DocumentId::from_bytes([9; 16]),
        name: None,
        admitted: Timestamp(sequence),
        change: Bytes::from(vec![7; 20]),
    }
}

fn hello(name: &str, vector: &[Dot], direct: &[Origin]) -> Frame {
    Frame::Hello(Hello {
        region: region(name),
        origin: origin_of(name),
        vector: vector.iter().copied().collect(),
        names: Vec::new(),
        direct: direct.to_vec(),
        heard: false,
    })
}

fn digest(vector: &[Dot], direct: &[Origin]) -> Frame {
    Frame::Digest(Digest {
        vector: vector.iter().copied().collect(),
        clock: Timestamp(5),
        direct: direct.to_vec(),
        unnamed: Vec::new(),
        reading: None,
    })
}

fn ack(vector: &[Dot]) -> Frame {
    Frame::Ack { vector: vector.iter().copied().collect() }
}

fn batch(origin: Origin, sequences: std::ops::RangeInclusive<u64>) -> Frame {
    let first = Sequence(*sequences.start());
    let entries: Vec<Entry> = sequences.map(|sequence| entry(origin, sequence)).collect();
    Frame::decode(&encode_batch(origin, first, entries.iter())).unwrap()
}

fn dots(number: u8, sequences: std::ops::RangeInclusive<u64>) -> Vec<Dot> {
    sequences.map(|sequence| dot(number, sequence)).collect()
}

fn ticket_of_append(done: &[Done]) -> Ticket {
    let ticket = done.iter().find_map(|done| match done {
        Done::Append(ticket, _) => Some(*ticket),
        Done::Sent(..) | Done::Read(..) | Done::Closed(..) | Done::Named(..) | Done::Renew => None,
    });
    ticket.unwrap_or_else(|| panic!("no append in {done:?}"))
}

#[test]
fn own_entries_go_to_every_peer_as_soon_as_they_are_durable() {
    let mut node = Node::new();
    node.meet(1, "b", &[], &[]);
    node.meet(2, "c", &[], &[]);
    let sent = batch(origin(1), 1..=3);
    assert_eq!(node.commit(3), [Done::Sent(1, sent.clone()), Done::Sent(2, sent)]);
}

#[test]
fn a_peer_that_comes_back_is_read_for_from_where_it_stands() {
    let mut node = Node::with([dot(1, 40)].into_iter().collect());
    let done = node.meet(1, "b", &[dot(1, 15)], &[]);
    let Some(Done::Read(ticket, _, 15)) = done.last() else { panic!("{done:?}") };
    let entries = (16..=25).map(|sequence| entry(origin(1), sequence)).collect();
    let done = node.handle(Input::Read { ticket: *ticket, entries });
    assert_eq!(done.first(), Some(&Done::Sent(1, batch(origin(1), 16..=25))));
    assert!(matches!(done.get(1), Some(Done::Read(_, _, 25))), "{done:?}");
}

#[test]
fn a_peer_that_does_not_acknowledge_costs_one_window() {
    let mut node = Node::new();
    node.meet(1, "b", &[], &[]);
    let sent: usize = (0..50).map(|_| node.commit(10).len()).sum();
    assert_eq!(sent, 8, "eight batches of ten are the window");
    assert_eq!(node.status("b").entries_behind, 500);
    let done = node.receive(1, &ack(&[dot(1, 80)]));
    assert!(matches!(done.as_slice(), [Done::Read(_, _, 80)]), "{done:?}");
}

#[test]
fn entries_that_are_left_out_under_load_are_read_back() {
    let mut node = Node::new();
    node.meet(1, "b", &[], &[]);
    node.vector.raise(origin(1), Sequence(4));
    let vector = node.vector.clone();
    let done = node.handle(Input::Committed { local: Vec::new(), vector });
    assert!(matches!(done.as_slice(), [Done::Read(_, _, 0)]), "{done:?}");
}

#[test]
fn what_the_journal_has_but_has_not_published_is_not_sent() {
    let mut node = Node::with([dot(1, 2)].into_iter().collect());
    let done = node.meet(1, "b", &[], &[]);
    let Some(Done::Read(ticket, ..)) = done.last() else { panic!("{done:?}") };
    let entries = (1..=5).map(|sequence| entry(origin(1), sequence)).collect();
    let done = node.handle(Input::Read { ticket: *ticket, entries });
    assert_eq!(done, [Done::Sent(1, batch(origin(1), 1..=2))]);
}

#[test]
fn an_entry_is_acknowledged_when_it_is_durable_and_not_before() {
    let mut node = Node::new();
    node.meet(1, "b", &[], &[]);
    let done = node.receive(1, &batch(origin(2), 1..=3));
    let ticket = ticket_of_append(&done);
    assert_eq!(done, [Done::Append(ticket, dots(2, 1..=3))]);
    assert_eq!(node.append(ticket, &[dot(2, 3)]), [Done::Sent(1, ack(&[dot(2, 3)]))]);
}

#[test]
fn what_comes_during_an_append_goes_into_the_next_one() {
    let mut node = Node::new();
    node.meet(1, "b", &[], &[]);
    let ticket = ticket_of_append(&node.receive(1, &batch(origin(2), 1..=1)));
    assert_eq!(node.receive(1, &batch(origin(2), 2..=3)), []);
    assert_eq!(node.receive(1, &batch(origin(2), 4..=4)), []);
    let done = node.append(ticket, &[dot(2, 1)]);
    assert!(done.contains(&Done::Append(ticket_of_append(&done), dots(2, 2..=4))), "{done:?}");
}

#[test]
fn repeated_entries_are_acknowledged_again_and_not_appended() {
    let mut node = Node::with([dot(2, 3)].into_iter().collect());
    node.meet(1, "b", &[dot(2, 3)], &[]);
    assert_eq!(node.receive(1, &batch(origin(2), 2..=3)), [Done::Sent(1, ack(&[dot(2, 3)]))]);
    let done = node.receive(1, &batch(origin(2), 3..=5));
    assert!(done.contains(&Done::Append(ticket_of_append(&done), dots(2, 4..=5))), "{done:?}");
}

#[test]
fn entries_of_others_are_relayed_only_to_peers_that_do_not_hear_them() {
    for (direct, relayed) in [(vec![origin(1), origin(2)], false), (vec![origin(1)], true)] {
        let mut node = Node::new();
        node.meet(1, "b", &[], &[origin(1)]);
        node.meet(2, "c", &[], &direct);
        let ticket = ticket_of_append(&node.receive(1, &batch(origin(2), 1..=2)));
        let done = node.append(ticket, &[dot(2, 2)]);
        let relay = Done::Sent(2, batch(origin(2), 1..=2));
        assert_eq!(done.contains(&relay), relayed, "{done:?}");
    }
}

#[test]
fn a_gap_is_left_to_its_origin_for_a_while_and_then_pulled() {
    let mut node = Node::new();
    node.meet(1, "b", &[], &[origin(1)]);
    assert_eq!(node.receive(1, &batch(origin(2), 5..=6)), [], "it would leave a gap");
    assert_eq!(node.wait(SECOND / 2), []);
    let pull = Pull { origin: origin(2), after: Sequence(0), entries: 40, bytes: 40_000 };
    assert_eq!(node.wait(SECOND), [Done::Sent(1, Frame::Pull(pull))]);
}

#[test]
fn after_a_reconnect_what_others_wrote_is_pulled_at_once() {
    let mut node = Node::new();
    let done = node.meet(1, "b", &[dot(3, 7)], &[]);
    let pull = Pull { origin: origin(3), after: Sequence(0), entries: 40, bytes: 40_000 };
    assert!(done.contains(&Done::Sent(1, Frame::Pull(pull))), "{done:?}");
}

#[test]
fn one_pull_per_origin_moves_on_to_the_next_peer_when_it_is_not_answered() {
    let mut node = Node::new();
    let pulls = |done: &[Done]| -> Vec<u64> {
        let link = |done: &Done| match done {
            Done::Sent(link, Frame::Pull(_)) => Some(*link),
            Done::Sent(..)
            | Done::Append(..)
            | Done::Read(..)
            | Done::Closed(..)
            | Done::Named(..)
            | Done::Renew => None,
        };
        done.iter().filter_map(link).collect()
    };
    assert_eq!(pulls(&node.meet(1, "b", &[dot(8, 7)], &[])), [1]);
    assert_eq!(pulls(&node.meet(2, "c", &[dot(8, 7)], &[])), [] as [u64; 0]);
    assert_eq!(pulls(&node.wait(SECOND * 4)), [] as [u64; 0]);
    assert_eq!(pulls(&node.wait(SECOND * 2)), [2], "after five seconds the other is asked");
    let lost = Input::Disconnected { link: LinkId(2), reason: "gone".to_owned() };
    assert_eq!(pulls(&node.handle(lost)), [1]);
}

#[test]
fn a_pull_of_others_entries_is_answered_from_the_journal_and_ends_with_an_empty_batch() {
    let mut node = Node::with([dot(3, 7)].into_iter().collect());
    node.meet(1, "b", &[], &[]);
    let pull = Pull { origin: origin(3), after: Sequence(5), entries: 10, bytes: 10_000 };
    let done = node.receive(1, &Frame::Pull(pull));
    let [Done::Read(ticket, _, 5)] = done.as_slice() else { panic!("{done:?}") };
    let entries = vec![entry(origin(3), 6), entry(origin(3), 7)];
    let done = node.handle(Input::Read { ticket: *ticket, entries });
    let end =
        Frame::Entries(frame::Batch { origin: origin(3), first: Sequence(8), entries: Vec::new() });
    assert_eq!(done, [Done::Sent(1, batch(origin(3), 6..=7)), Done::Sent(1, end)]);
}

#[test]
fn a_pull_of_own_entries_moves_the_stream_back() {
    let mut node = Node::new();
    node.meet(1, "b", &[], &[]);
    node.commit(5);
    let pull = Pull { origin: origin(1), after: Sequence(2), entries: 10, bytes: 10_000 };
    let done = node.receive(1, &Frame::Pull(pull));
    assert_eq!(done, [Done::Sent(1, batch(origin(1), 3..=5))]);
}

#[test]
fn a_failed_append_is_not_acknowledged_and_is_pulled_again() {
    let mut node = Node::new();
    node.meet(1, "b", &[], &[]);
    let ticket = ticket_of_append(&node.receive(1, &batch(origin(2), 1..=2)));
    let error = Some("disk full".to_owned());
    assert_eq!(node.handle(Input::Appended { ticket, error }), []);
    let done = node.wait(SECOND * 2);
    assert!(matches!(done.first(), Some(Done::Sent(1, Frame::Pull(_)))), "{done:?}");
}

/// A node whose disk was rolled back finds that its peers have more of it than itself. It must
/// not write under the old origin again, or two entries would have one identity.
#[test]
fn a_node_that_is_outrun_by_its_own_past_takes_a_new_origin_and_fetches_the_past() {
    let mut node = Node::with([dot(1, 5)].into_iter().collect());
    let done = node.meet(1, "b", &[dot(1, 8)], &[]);
    assert_eq!(done.iter().filter(|done| **done == Done::Renew).count(), 1, "{done:?}");
    assert_eq!(node.receive(1, &digest(&[dot(1, 8)], &[])), [], "it asks once");
    let done = node.handle(Input::Renewed { origin: origin(4) });
    assert!(matches!(&done[1], Done::Sent(1, Frame::Hello(hello)) if hello.origin == origin(4)));
    let pull = Pull { origin: origin(1), after: Sequence(5), entries: 40, bytes: 40_000 };
    assert_eq!(done.last(), Some(&Done::Sent(1, Frame::Pull(pull))));
    let done = node.receive(1, &batch(origin(1), 6..=8));
    assert!(done.contains(&Done::Append(ticket_of_append(&done), dots(1, 6..=8))));
}

#[test]
fn while_it_waits_for_a_new_origin_nothing_of_the_old_one_is_sent() {
    let mut node = Node::with([dot(1, 5)].into_iter().collect());
    node.meet(1, "b", &[dot(1, 5)], &[]);
    assert_eq!(node.receive(1, &batch(origin(1), 6..=6)), [Done::Renew]);
    assert_eq!(node.commit(1), []);
}

#[test]
fn of_two_links_to_a_region_the_newer_one_stays() {
    let mut node = Node::new();
    node.meet(1, "b", &[], &[]);
    let done = node.handle(Input::Connected { link: LinkId(7), region: region("b") });
    assert_eq!(done[0], Done::Closed(1, "replaced by a newer link".to_owned()));
    assert!(matches!(done[1], Done::Sent(7, Frame::Hello(_))));
    assert_eq!(node.receive(1, &batch(origin(2), 1..=1)), [], "the old link is forgotten");
}

#[test]
fn a_link_is_closed_for_what_a_peer_must_not_do() {
    let closed = |bytes: Bytes| {
        let mut node = Node::new();
        node.handle(Input::Connected { link: LinkId(1), region: region("b") });
        match node.handle(Input::Frame { link: LinkId(1), bytes }).pop() {
            Some(Done::Closed(1, reason)) => reason,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(closed(hello("c", &[], &[]).encode()), "b introduced itself as c");
    assert_eq!(closed(Bytes::from_static(b"\x02")), "bad frame: unknown frame format 2");
    let Frame::Hello(mut twin) = hello("b", &[], &[]) else { unreachable!() };
    twin.origin = origin(1);
    let reason = closed(Frame::Hello(twin).encode());
    assert!(reason.contains("uses the origin of this node"), "{reason}");
    let mut node = Node::new();
    let done = node.handle(Input::Connected { link: LinkId(5), region: region("nowhere") });
    assert!(matches!(done.as_slice(), [Done::Closed(5, _)]), "{done:?}");
}

#[test]
fn a_hello_that_was_lost_is_sent_again() {
    let mut node = Node::new();
    node.handle(Input::Connected { link: LinkId(1), region: region("b") });
    let done = node.wait(SECOND * 2);
    assert!(matches!(done.first(), Some(Done::Sent(1, Frame::Hello(_)))), "{done:?}");
    node.receive(1, &hello("b", &[], &[]));
    let done = node.receive(1, &hello("b", &[], &[]));
    assert!(matches!(done.as_slice(), [Done::Sent(1, Frame::Hello(again))] if again.heard));
}

#[test]
fn a_peer_that_says_nothing_is_given_up() {
    let mut node = Node::new();
    node.handle(Input::Connected { link: LinkId(1), region: region("b") });
    let done = node.wait(SECOND * 11);
    assert_eq!(done.last(), Some(&Done::Closed(1, "peer sends no hello".to_owned())));
    node.meet(2, "b", &[], &[]);
    let done = node.wait(SECOND * 31);
    assert_eq!(done.last(), Some(&Done::Closed(2, "peer is silent".to_owned())));
    assert_eq!(node.status("b").last_error.as_deref(), Some("peer is silent"));
}

#[test]
fn names_of_origins_spread_to_those_who_ask() {
    let mut node = Node::new();
    let done = node.meet(1, "b", &[], &[]);
    assert_eq!(done[0], Done::Named(origin(2), "b".to_owned()));
    let question = Frame::Digest(Digest {
        vector: VersionVector::new(),
        clock: Timestamp(0),
        direct: Vec::new(),
        unnamed: vec![origin(2), origin(9)],
        reading: None,
    });
    let answer = Frame::Names(vec![(origin(2), region("b"))]);
    assert_eq!(node.receive(1, &question), [Done::Sent(1, answer)]);
    let news = Frame::Names(vec![(origin(2), region("c")), (origin(9), region("c"))]);
    let learned = [Done::Named(origin(9), "c".to_owned())];
    assert_eq!(node.receive(1, &news), learned, "hearsay does not rename an origin");
}

#[test]
fn status_tells_how_far_behind_a_peer_is_and_for_how_long() {
    let mut node = Node::new();
    node.meet(1, "b", &[], &[]);
    node.commit(2);
    node.now += SECOND * 3;
    node.commit(1);
    let status = node.status("b");
    assert_eq!((status.entries_behind, status.seconds_behind), (3, 3.0));
    node.receive(1, &ack(&[dot(1, 2)]));
    node.now += SECOND;
    let status = node.status("b");
    assert_eq!((status.entries_behind, status.seconds_behind), (1, 1.0));
    node.receive(1, &digest(&[dot(1, 3), dot(2, 4)], &[]));
    let status = node.status("b");
    assert_eq!((status.entries_behind, status.seconds_behind), (0, 0.0));
    assert_eq!((status.entries_missing, status.connected), (4, true));
    assert!(!node.status("c").connected);
}

#[test]
fn a_digest_moves_the_clock() {
    let mut node = Node::new();
    node.meet(1, "b", &[], &[]);
    let mut effects = Vec::new();
    let now = Now { monotonic: node.now, wall: Timestamp(1) };
    let bytes = digest(&[], &[]).encode();
    node.replication.handle(Input::Frame { link: LinkId(1), bytes }, now, &mut effects);
    assert!(matches!(effects.as_slice(), [Effect::ObserveClock { seen: Timestamp(5) }]));
}

/// The peer's clock is a minute ahead, and a digest takes a tenth of a second each way.
#[test]
fn a_digest_that_brings_a_mark_back_measures_the_peers_clock() {
    let mut node = Node::new();
    node.meet(1, "b", &[], &[]);
    assert_eq!(node.status("b").clock, None);
    let reading = |wall: u64, mark, echo| {
        Frame::Digest(Digest {
            vector: VersionVector::new(),
            clock: Timestamp(0),
            direct: Vec::new(),
            unnamed: Vec::new(),
            reading: Some(frame::Reading { wall: Timestamp(wall), mark, echo }),
        })
    };
    node.receive(1, &reading(60_000_000, 77, None));
    let before = node.now;
    let sent = digest_sent(&mut node);
    assert!(node.now < before + SECOND / 2, "the first answer does not wait for its turn");
    let echo = sent.reading.unwrap().echo.unwrap();
    assert_eq!((echo.mark, echo.held), (77, micros(node.now - before)));
    let mark = sent.reading.unwrap().mark;
    node.now += SECOND;
    let echo = frame::Echo { mark, held: 800_000 };
    node.receive(1, &reading(60_900_000, 78, Some(echo)));
    let measured = node.status("b").clock.unwrap();
    assert_eq!(measured.round_trip, SECOND / 5);
    assert_eq!(measured.offset.0, 61_000_000 - 1, "the own clock shows 1");
    node.handle(Input::Disconnected { link: LinkId(1), reason: "cut".to_owned() });
    assert_eq!(node.status("b").clock, Some(measured), "it is kept while the peer is away");
}

/// Lets time pass until a digest is sent.
fn digest_sent(node: &mut Node) -> Digest {
    loop {
        node.now = node.now.max(node.replication.poll_timeout().unwrap());
        let sent = node.handle(Input::Timeout).into_iter().find_map(|done| match done {
            Done::Sent(_, Frame::Digest(digest)) => Some(digest),
            Done::Sent(..)
            | Done::Append(..)
            | Done::Read(..)
            | Done::Closed(..)
            | Done::Named(..)
            | Done::Renew => None,
        });
        if let Some(digest) = sent {
            return digest;
        }
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap()
}
