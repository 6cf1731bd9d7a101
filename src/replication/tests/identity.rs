//! Who may go on with an origin: a few machines wired by hand, with disks that can be copied.

use anabranch_crdt::ids::BootId;
use anabranch_crdt::token;

use super::*;

/// What is durable at a region.
#[derive(Debug, Clone)]
struct Disk {
    origin: Origin,
    vector: VersionVector,
    entries: BTreeMap<Dot, Entry>,
    names: BTreeMap<Origin, RegionName>,
    chains: Chains,
    vouched: BTreeMap<Origin, BootId>,
    /// The process that ended in order last.
    last: Option<BootId>,
}

/// A running process of a region.
#[derive(Debug)]
struct Machine {
    region: RegionName,
    boot: BootId,
    replication: Replication,
    disk: Disk,
    now: Duration,
    links: BTreeMap<LinkId, usize>,
    settled: bool,
    renewed: Vec<String>,
    /// The longest frame of each kind that was sent, in bytes.
    longest: BTreeMap<&'static str, usize>,
}

/// Machines by their place, and the frames between them.
#[derive(Debug, Default)]
struct Machines {
    all: Vec<Machine>,
    flights: VecDeque<(usize, usize, Bytes)>,
    drawn: u64,
}

fn disk(number: u8) -> Disk {
    Disk {
        origin: origin(number),
        vector: VersionVector::new(),
        entries: BTreeMap::new(),
        names: BTreeMap::new(),
        chains: Chains::new(),
        vouched: BTreeMap::new(),
        last: None,
    }
}

impl Machines {
    /// Starts fresh nodes of the regions `a`, `b` and `c`, and links them.
    fn linked() -> Self {
        let mut machines = Self::default();
        for number in 1..=3 {
            machines.start(number, disk(number));
        }
        machines.link_all();
        machines
    }

    /// Starts a process of a region on a disk; returns its place.
    fn start(&mut self, number: u8, disk: Disk) -> usize {
        self.drawn += 1;
        let boot = BootId(u128::from(self.drawn).to_be_bytes());
        let names = ["a", "b", "c"];
        let own = names[usize::from(number) - 1];
        let before = disk.last;
        let settings = ReplicationSettings {
            region: region(own),
            origin: disk.origin,
            peers: names.into_iter().filter(|name| *name != own).map(region).collect(),
            frame_bytes: 10_000,
            batch_entries: 10,
            digest_interval: SECOND,
            names: disk.names.clone().into_iter().collect(),
            reconcile: ReconcileSettings::default(),
            packing: Packing::default(),
            incarnation: Incarnation {
                boot,
                before,
                vouched: disk.vouched.clone().into_iter().collect(),
                chains: disk.chains.clone(),
                ..Incarnation::default()
            },
        };
        self.all.push(Machine {
            region: region(own),
            boot,
            replication: Replication::new(settings, disk.vector.clone()),
            disk: Disk { last: None, ..disk },
            now: SECOND,
            links: BTreeMap::new(),
            settled: before.is_none(),
            renewed: Vec::new(),
            longest: BTreeMap::new(),
        });
        self.all.len() - 1
    }

    /// Ends a process in order, and returns what it leaves; its links are gone.
    fn end(&mut self, place: usize) -> Disk {
        let others: Vec<usize> = self.all[place].links.values().copied().collect();
        for other in others {
            self.cut(place, other);
        }
        let left = std::mem::replace(&mut self.all[place].disk, disk(0));
        Disk { last: Some(self.all[place].boot), ..left }
    }

    fn link_all(&mut self) {
        self.link(0, 1);
        self.link(0, 2);
        self.link(1, 2);
    }

    fn link(&mut self, a: usize, b: usize) {
        for (here, there) in [(a, b), (b, a)] {
            self.drawn += 1;
            let link = LinkId(self.drawn);
            let region = self.all[there].region.clone();
            self.all[here].links.insert(link, there);
            self.handle(here, Input::Connected { link, region });
        }
        self.settle();
    }

    fn cut(&mut self, a: usize, b: usize) {
        for (here, there) in [(a, b), (b, a)] {
            let gone = self.all[here].links.iter().filter(|(_, other)| **other == there);
            let gone: Vec<LinkId> = gone.map(|(link, _)| *link).collect();
            for link in gone {
                self.all[here].links.remove(&link);
                self.handle(here, Input::Disconnected { link, reason: "cut".to_owned() });
            }
        }
        self.settle();
    }

    /// Admits `count` entries, if the process may.
    fn write(&mut self, place: usize, count: u64) {
        let machine = &mut self.all[place];
        assert!(machine.settled, "{} admits nothing", machine.region);
        let origin = machine.disk.origin;
        let first = machine.disk.vector.sequence(origin).0 + 1;
        let local: Vec<Entry> = (first..first + count).map(|n| entry(origin, n)).collect();
        machine.store(&local);
        let vector = machine.disk.vector.clone();
        self.handle(place, Input::Committed { local, vector });
        self.settle();
    }

    /// Lets time pass everywhere.
    fn wait(&mut self, time: Duration) {
        let end = self.all[0].now + time;
        while self.all[0].now < end {
            for place in 0..self.all.len() {
                self.all[place].now += SECOND / 8;
                let due = self.all[place].replication.poll_timeout();
                if due.is_some_and(|due| due <= self.all[place].now) {
                    self.handle(place, Input::Timeout);
                }
            }
            self.settle();
        }
    }

    /// Delivers what is on its way.
    fn settle(&mut self) {
        while let Some((from, to, bytes)) = self.flights.pop_front() {
            let links = &self.all[to].links;
            let Some(link) = links.iter().find_map(|(id, other)| (*other == from).then_some(*id))
            else {
                continue;
            };
            self.handle(to, Input::Frame { link, bytes });
        }
    }

    fn handle(&mut self, place: usize, input: Input) {
        let mut inputs = VecDeque::from([input]);
        while let Some(input) = inputs.pop_front() {
            let machine = &mut self.all[place];
            let now = Now { monotonic: machine.now, wall: Timestamp(1) };
            let mut effects = Vec::new();
            machine.replication.handle(input, now, &mut effects);
            for effect in effects {
                self.carry_out(place, effect, &mut inputs);
            }
        }
    }

    fn carry_out(&mut self, place: usize, effect: Effect, inputs: &mut VecDeque<Input>) {
        self.drawn += 1;
        let fresh = Origin::from_bytes((u128::from(self.drawn) << 64).to_be_bytes());
        let machine = &mut self.all[place];
        match effect {
            Effect::Send { link, bytes, .. } => {
                machine.measure(&bytes);
                if let Some(to) = machine.links.get(&link) {
                    self.flights.push_back((place, *to, bytes));
                }
            }
            Effect::Append { ticket, entries } => {
                machine.store(&entries);
                let vector = machine.disk.vector.clone();
                inputs.push_back(Input::Committed { local: Vec::new(), vector });
                inputs.push_back(Input::Appended { ticket, error: None });
            }
            Effect::Read { ticket, origin, after, entries, .. } => {
                let range = machine.disk.entries.range(Dot { origin, sequence: after.next() }..);
                let found = range.map(|(_, entry)| entry.clone()).take(entries);
                let entries = found.take_while(|entry| entry.origin == origin).collect();
                inputs.push_back(Input::Read { ticket, entries });
            }
            Effect::Close { reason, .. } => panic!("{} closes a link: {reason}", machine.region),
            Effect::NameOrigin { origin, region, after } => {
                machine.disk.names.insert(origin, region);
                machine.disk.chains.note(origin, after);
            }
            Effect::ObserveClock { .. }
            | Effect::Asked { .. }
            | Effect::Members { .. }
            | Effect::Reconcile(_) => {}
            Effect::RenewOrigin { reason } => {
                machine.renewed.push(reason);
                let after = machine.disk.renew(fresh, &machine.region);
                machine.settled = true;
                inputs.push_back(Input::Renewed { origin: fresh, after });
            }
            Effect::ConfirmOrigin => machine.settled = true,
            Effect::Vouch { ticket, origin, boot } => {
                machine.disk.vouched.insert(origin, boot);
                inputs.push_back(Input::Vouched { ticket, error: None });
            }
        }
    }

    fn check_equal(&self, places: &[usize]) {
        let first = &self.all[places[0]].disk;
        for &place in places {
            let disk = &self.all[place].disk;
            assert_eq!(disk.vector, first.vector, "{}", self.all[place].region);
            assert!(disk.chains.are_kept_by(&disk.vector));
        }
    }

    fn check_kept(&self, place: usize, before: Origin) {
        let machine = &self.all[place];
        assert!(machine.settled && machine.renewed.is_empty(), "{:?}", machine.renewed);
        assert_eq!(machine.disk.origin, before);
    }

    #[track_caller]
    fn check_renewed(&self, place: usize, before: Origin, why: &str) {
        let machine = &self.all[place];
        assert!(machine.settled && machine.disk.origin != before);
        let [reason] = machine.renewed.as_slice() else { panic!("{:?}", machine.renewed) };
        assert!(reason.contains(why), "{reason}");
    }
}

impl Machine {
    fn store(&mut self, entries: &[Entry]) {
        for entry in entries {
            let next = self.disk.vector.sequence(entry.origin).next();
            if entry.sequence == next {
                assert!(self.disk.chains.allow(entry.origin, &self.disk.vector), "out of order");
                self.disk.vector.raise(entry.origin, entry.sequence);
                self.disk.entries.insert(entry.dot(), entry.clone());
            }
        }
    }

    fn measure(&mut self, bytes: &Bytes) {
        let kind = match Frame::decode(bytes).unwrap() {
            Frame::Hello(_) => "hello",
            Frame::Digest(_) => "digest",
            Frame::Ack { .. } => "ack",
            Frame::Entries(_)
            | Frame::Pull(_)
            | Frame::Names(_)
            | Frame::Claim(_)
            | Frame::Verdict(_)
            | Frame::Knowledge(_)
            | Frame::Probe(_)
            | Frame::ProbeAnswer(_)
            | Frame::Members(_)
            | Frame::TooOld(_)
            | Frame::Ranges(_)
            | Frame::Fetch(_)
            | Frame::Bundles(_) => return,
        };
        let longest = self.longest.entry(kind).or_default();
        *longest = bytes.len().max(*longest);
    }
}

impl Disk {
    fn renew(&mut self, origin: Origin, region: &RegionName) -> Vec<Dot> {
        let is_own =
            |dot: &Dot| self.names.get(&dot.origin) == Some(region) || dot.origin == self.origin;
        let own: VersionVector = self.vector.iter().filter(is_own).collect();
        let after: Vec<Dot> = self.chains.compact(&own).iter().collect();
        self.names.insert(origin, region.clone());
        self.chains.note(origin, after.clone());
        self.origin = origin;
        after
    }
}

#[test]
fn a_restart_that_every_peer_confirms_keeps_the_origin() {
    let mut machines = Machines::linked();
    machines.write(0, 3);
    let left = machines.end(0);
    let again = machines.start(1, left);
    assert!(!machines.all[again].settled);
    machines.link(again, 1);
    assert!(!machines.all[again].settled, "one of two is not enough");
    machines.link(again, 2);
    machines.check_kept(again, origin(1));
    machines.write(again, 1);
    machines.check_equal(&[again, 1, 2]);
}

#[test]
fn an_older_disk_takes_a_new_origin_before_it_writes_and_gets_back_what_it_lost() {
    let mut machines = Machines::linked();
    machines.write(0, 3);
    let backup = machines.end(0);
    let second = machines.start(1, backup.clone());
    machines.link(second, 1);
    machines.link(second, 2);
    machines.write(second, 4);
    machines.end(second);

    let third = machines.start(1, backup);
    assert!(!machines.all[third].settled);
    machines.link(third, 1);
    machines.check_renewed(third, origin(1), "b knows 7 entries");
    machines.write(third, 2);
    machines.link(third, 2);
    machines.wait(SECOND * 3);
    machines.check_equal(&[third, 1, 2]);
    assert_eq!(machines.all[third].disk.vector.sequence(origin(1)), Sequence(7));
}

/// What was written under the later process never left it, so no peer knows more; but they know
/// that there was another process.
#[test]
fn an_older_disk_is_known_by_its_process_even_if_nothing_of_it_had_been_sent() {
    let mut machines = Machines::linked();
    machines.write(0, 3);
    let backup = machines.end(0);
    let second = machines.start(1, backup.clone());
    machines.link(second, 1);
    machines.link(second, 2);
    machines.cut(second, 1);
    machines.cut(second, 2);
    machines.write(second, 4);
    machines.end(second);

    let third = machines.start(1, backup);
    machines.link(third, 1);
    machines.check_renewed(third, origin(1), "another process");
}

#[test]
fn of_two_copies_of_one_disk_at_most_one_keeps_the_origin() {
    for (first, second) in [(1, 2), (2, 1)] {
        let mut machines = Machines::linked();
        machines.write(0, 3);
        let left = machines.end(0);
        let one = machines.start(1, left.clone());
        let other = machines.start(1, left);
        machines.link(one, first);
        machines.cut(one, first);
        machines.link(other, second);
        machines.cut(other, second);
        machines.link(one, second);
        machines.check_renewed(one, origin(1), "another process");
        machines.link(other, first);
        machines.check_renewed(other, origin(1), "another process");
    }
}

#[test]
fn a_copy_that_comes_later_leaves_the_origin_to_the_one_that_has_it() {
    let mut machines = Machines::linked();
    machines.write(0, 3);
    let left = machines.end(0);
    let one = machines.start(1, left.clone());
    machines.link(one, 1);
    machines.link(one, 2);
    machines.check_kept(one, origin(1));
    machines.cut(one, 2);
    let other = machines.start(1, left);
    machines.link(other, 2);
    machines.check_renewed(other, origin(1), "another process");
    machines.write(one, 1);
    machines.write(other, 1);
}

#[test]
fn a_region_that_cannot_be_reached_costs_a_new_origin_and_no_more_than_the_bound() {
    let mut machines = Machines::linked();
    machines.write(0, 3);
    let left = machines.end(0);
    let again = machines.start(1, left);
    machines.link(again, 1);
    machines.wait(SECOND * 2 - SECOND / 4);
    assert!(!machines.all[again].settled);
    machines.wait(SECOND / 2);
    machines.check_renewed(again, origin(1), "c did not confirm");
    machines.write(again, 1);
    machines.wait(SECOND * 2);
    machines.check_equal(&[again, 1]);
}

#[test]
fn a_peer_that_restarts_remembers_whom_it_vouched_for() {
    let mut machines = Machines::linked();
    machines.write(0, 3);
    let left = machines.end(0);
    let one = machines.start(1, left.clone());
    machines.link(one, 1);
    machines.cut(one, 1);
    let peer = machines.end(1);
    let peer = machines.start(2, peer);
    let other = machines.start(1, left);
    machines.link(other, peer);
    machines.check_renewed(other, origin(1), "another process");
}

#[test]
fn a_whole_cluster_that_restarts_keeps_its_origins() {
    let mut machines = Machines::linked();
    (0..3).for_each(|place| machines.write(place, 2));
    let left: Vec<Disk> = (0..3).map(|place| machines.end(place)).collect();
    let mut again = Machines { drawn: machines.drawn, ..Machines::default() };
    for (number, disk) in (1..).zip(left) {
        again.start(number, disk);
    }
    again.link_all();
    for (place, number) in (0..3).zip(1..) {
        again.check_kept(place, origin(number));
    }
}

/// A relay once knew a new origin only by its entries: nobody could have told what they imply.
#[test]
fn entries_wait_for_what_stands_before_their_origin() {
    let mut machines = Machines::linked();
    machines.cut(0, 2);
    machines.cut(1, 2);
    machines.write(0, 25);
    let mut left = machines.end(0);
    let new = Origin::from_bytes([77; 16]);
    left.renew(new, &region("a"));
    left.last = None;
    let again = machines.start(1, left);
    machines.link(again, 1);
    machines.write(again, 25);
    // It hears of both origins by its neighbour alone.
    machines.link(1, 2);
    machines.wait(SECOND * 8);
    machines.check_equal(&[again, 1, 2]);
    assert_eq!(machines.all[2].disk.vector.sequence(new), Sequence(25));
    assert_eq!(machines.all[2].disk.chains.after(new), [dot(1, 25)]);
}

/// Each restart costs an origin here, and neither tokens nor frames grow with them.
#[test]
fn a_thousand_new_origins_are_told_in_a_few_bytes() {
    let mut machines = Machines::linked();
    let mut places = [0, 1, 2];
    for round in 0..1_000_usize {
        let region = round % 3;
        let (others, number) =
            ([places[(region + 1) % 3], places[(region + 2) % 3]], region as u8 + 1);
        let mut left = machines.end(places[region]);
        machines.drawn += 1;
        let origin = Origin::from_bytes((u128::from(machines.drawn).rotate_right(9)).to_be_bytes());
        left.renew(origin, &machines.all[places[region]].region.clone());
        left.last = None;
        machines.all[places[region]].replication = Node::new().replication;
        places[region] = machines.start(number, left);
        machines.link(places[region], others[0]);
        machines.link(places[region], others[1]);
        machines.write(places[region], 2);
    }
    machines.all = {
        let all = std::mem::take(&mut machines.all);
        all.into_iter().enumerate().filter(|(at, _)| places.contains(at)).map(|(_, m)| m).collect()
    };
    for machine in &machines.all {
        let Disk { vector, chains, .. } = &machine.disk;
        assert!(vector.len() >= 1_000, "{}", vector.len());
        let token = token::encode(&chains.compact(vector));
        assert!(token.len() < 512, "{} characters", token.len());
        let most = machine.longest.values().copied().max();
        assert!(most.is_some_and(|most| most < 2_048), "{:?}", machine.longest);
    }
    let vectors: Vec<_> = machines.all.iter().map(|machine| &machine.disk.vector).collect();
    assert!(vectors.windows(2).all(|pair| pair[0] == pair[1]));

    // A node that was never there learns it all.
    let mut fresh = Machines { drawn: machines.drawn + 1_000_000, ..Machines::default() };
    let donor = machines.all.remove(1).disk;
    let wanted = donor.vector.clone();
    let donor = fresh.start(2, Disk { last: None, ..donor });
    let empty = fresh.start(3, disk(99));
    fresh.link(donor, empty);
    fresh.wait(SECOND * 10);
    assert!(
        fresh.all[empty].disk.vector.includes(&wanted),
        "{}",
        fresh.all[empty].disk.vector.len()
    );
}
