use proptest::prelude::*;

use super::arbitrary::{records, tables};
use super::*;

fn region(name: &str) -> RegionName {
    name.parse().unwrap()
}

fn contact(port: u16) -> Contact {
    let at = |port| SocketAddr::from(([10, 0, 0, 1], port));
    Contact { quic: at(port), http: at(port + 1_000), peers: Neighbours::All }
}

fn only(port: u16, peers: &[&str]) -> Contact {
    let peers = Neighbours::Only(peers.iter().map(|peer| region(peer)).collect());
    Contact { peers, ..contact(port) }
}

fn seed(name: &str, contact: Contact) -> Member {
    Member::seed(region(name), Some(contact))
}

/// The table of `a`, whose file names `a`, `b` and `c`.
fn table_of(own: &str) -> Members {
    let seeds = [("a", 1), ("b", 2), ("c", 3)].map(|(name, port)| seed(name, contact(port)));
    let mut members = Members::seeded(region(own), seeds.clone());
    let own = seeds.into_iter().find(|seed| seed.region == region(own)).unwrap();
    members.announce(own.contact.unwrap());
    members
}

fn standing(members: &Members, name: &str) -> &'static str {
    members.get(&region(name)).unwrap().standing.as_str()
}

fn everything(members: &Members) -> Vec<Member> {
    members.iter().cloned().collect()
}

/// Lets every table hear of every other one, until nothing changes.
fn gossip(tables: &mut [Members]) {
    let mut news = true;
    while std::mem::take(&mut news) {
        for teller in 0..tables.len() {
            let (by, told) = (tables[teller].own().clone(), everything(&tables[teller]));
            for hearer in (0..tables.len()).filter(|hearer| *hearer != teller) {
                news |= !tables[hearer].merge(told.clone(), &by).is_empty();
            }
        }
    }
}

proptest! {
    #[test]
    fn the_order_and_the_number_of_messages_do_not_matter(
        messages in proptest::collection::vec(records(), 1..5),
        again in any::<prop::sample::Index>(),
    ) {
        let stranger = region("z");
        let mut forth = Members::named(region("own"), &[]);
        let mut back = forth.clone();
        for message in &messages {
            forth.merge(message.clone(), &stranger);
        }
        for message in messages.iter().rev() {
            back.merge(message.clone(), &stranger);
        }
        prop_assert_eq!(everything(&forth), everything(&back));
        prop_assert_eq!(forth.digest(), back.digest());
        let repeated = forth.merge(again.get(&messages).clone(), &stranger);
        prop_assert_eq!(repeated, vec![]);
    }

    #[test]
    fn what_one_passes_on_is_worth_what_it_heard(
        first in records(), second in records(), third in records(),
    ) {
        let stranger = region("z");
        let mut between = Members::named(region("own"), &[]);
        let mut heard = between.clone();
        let mut passed = between.clone();
        for message in [&first, &second] {
            between.merge(message.clone(), &stranger);
            heard.merge(message.clone(), &stranger);
        }
        heard.merge(third.clone(), &stranger);
        passed.merge(third, &stranger);
        passed.merge(everything(&between), &stranger);
        prop_assert_eq!(everything(&heard), everything(&passed));
    }

    #[test]
    fn a_cluster_that_was_split_while_operators_acted_agrees_when_it_is_healed(
        here in proptest::collection::vec((0_usize..3, acts()), 0..6),
        there in proptest::collection::vec((0_usize..3, acts()), 0..6),
    ) {
        let names = ["a", "b", "c"].map(region);
        let mut tables = ["a", "b", "c"].map(table_of);
        let (left, right) = tables.split_at_mut(1);
        for (on, act) in here {
            drop(left[0].steer(&names[on], act));
        }
        for (at, (on, act)) in there.into_iter().enumerate() {
            drop(right[at % 2].steer(&names[on], act));
        }
        gossip(&mut tables);
        let standings = |members: &Members| names.clone().map(|name| members.get(&name).unwrap().standing);
        prop_assert_eq!(standings(&tables[0]), standings(&tables[1]));
        prop_assert_eq!(standings(&tables[1]), standings(&tables[2]));
        prop_assert_eq!(tables[0].digest(), tables[2].digest());
    }

    #[test]
    fn a_table_survives_the_disk(records in tables()) {
        let bytes = encode_members(&records);
        prop_assert_eq!(decode_members(&bytes).unwrap(), records);
    }

    #[test]
    fn bytes_that_are_no_table_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(members) = decode_members(&bytes) {
            prop_assert_eq!(encode_members(&members), bytes);
        }
    }
}

fn acts() -> impl Strategy<Value = MemberAct> {
    prop_oneof![
        Just(MemberAct::Drain),
        Just(MemberAct::Undrain),
        Just(MemberAct::Leave),
        Just(MemberAct::Forget),
    ]
}

#[test]
fn a_draining_region_counts_and_a_forgotten_one_does_not() {
    let mut members = table_of("a");
    let voters = |members: &Members| members.voters().count();
    members.steer(&region("b"), MemberAct::Drain).unwrap();
    assert_eq!((standing(&members, "b"), voters(&members)), ("draining", 3));
    members.steer(&region("b"), MemberAct::Undrain).unwrap();
    members.steer(&region("b"), MemberAct::Leave).unwrap();
    assert_eq!((standing(&members, "b"), voters(&members)), ("leaving", 3));
    members.steer(&region("b"), MemberAct::Forget).unwrap();
    assert_eq!((standing(&members, "b"), voters(&members)), ("forgotten", 2));
    let gone = NoLink::Gone(Standing { state: MemberState::Forgotten, leaving: false });
    assert_eq!(members.link_with(&region("b")), Err(gone));
    assert_eq!(members.link_with(&region("c")), Ok(()));
}

#[test]
fn acts_that_would_do_harm_are_refused_with_a_reason() {
    let mut members = table_of("a");
    let mut refused = |name: &str, act| members.steer(&region(name), act).unwrap_err().to_string();
    assert_eq!(refused("mars", MemberAct::Drain), "there is no region mars in this cluster");
    assert!(refused("a", MemberAct::Forget).contains("this node's own region"));
    for name in ["b", "c"] {
        members.steer(&region(name), MemberAct::Drain).unwrap();
    }
    let mut refused = |name: &str, act| members.steer(&region(name), act).unwrap_err().to_string();
    assert_eq!(refused("a", MemberAct::Leave), "a is the last region that takes writes");
    members.steer(&region("b"), MemberAct::Forget).unwrap();
    let error = members.steer(&region("b"), MemberAct::Undrain).unwrap_err().to_string();
    assert_eq!(error, "b is forgotten: it returns by `anabranch serve --join`");
}

#[test]
fn of_two_acts_at_once_the_graver_one_stands() {
    let mut tables = ["a", "c"].map(table_of);
    tables[0].steer(&region("b"), MemberAct::Drain).unwrap();
    tables[1].steer(&region("b"), MemberAct::Forget).unwrap();
    gossip(&mut tables);
    assert_eq!(standing(&tables[0], "b"), "forgotten");
}

#[test]
fn a_region_that_returns_is_active_everywhere_whatever_it_remembers() {
    let mut tables = ["a", "b", "c"].map(table_of);
    tables[0].steer(&region("c"), MemberAct::Forget).unwrap();
    // The forgotten one has not heard of it.
    let asks = tables[2].itself().unwrap().clone();
    let changed = tables[0].admit(asks);
    assert_eq!(changed.len(), 1);
    gossip(&mut tables);
    for table in &tables {
        assert_eq!(standing(table, "c"), "active");
    }
    let again = tables[2].itself().unwrap().clone();
    assert_eq!(tables[0].admit(again), [], "to ask again changes nothing");
}

#[test]
fn a_move_and_a_drain_at_once_are_both_kept() {
    let mut tables = ["a", "b"].map(table_of);
    tables[0].steer(&region("b"), MemberAct::Drain).unwrap();
    tables[1].announce(contact(77));
    gossip(&mut tables);
    for table in &tables {
        let member = table.get(&region("b")).unwrap();
        assert_eq!(member.contact, Some(contact(77)));
        assert_eq!(member.standing.as_str(), "draining");
    }
}

#[test]
fn a_file_speaks_for_its_node_until_a_region_moves() {
    let tunnel = contact(99);
    let seeds = [seed("a", contact(1)), seed("b", tunnel.clone())];
    let mut tables = [Members::seeded(region("a"), seeds), table_of("b")];
    gossip(&mut tables);
    assert_eq!(tables[0].get(&region("b")).unwrap().contact, Some(tunnel));
    tables[1].announce(contact(50));
    gossip(&mut tables);
    assert_eq!(tables[0].get(&region("b")).unwrap().contact, Some(contact(50)));
}

#[test]
fn what_was_stored_counts_more_than_the_file_and_a_new_address_is_told() {
    let mut before = table_of("a");
    before.steer(&region("b"), MemberAct::Drain).unwrap();
    let stored = decode_members(&before.encode()).unwrap();
    let mut after = Members::seeded(region("a"), [seed("a", contact(1)), seed("b", contact(8))]);
    after.restore(stored);
    after.announce(contact(1));
    assert_eq!(after.itself().unwrap().contact_version, MemberVersion(0), "nothing has changed");
    assert_eq!(standing(&after, "b"), "draining");
    assert_eq!(after.get(&region("b")).unwrap().contact, Some(contact(8)), "the file was edited");
    assert!(after.get(&region("c")).is_some(), "the file has forgotten it, the cluster has not");
    after.announce(contact(5));
    assert_eq!(after.itself().unwrap().contact_version, MemberVersion(1));
}

#[test]
fn a_region_defends_its_address_against_what_it_said_in_an_earlier_life() {
    let mut old = table_of("b");
    for port in 20..24 {
        old.announce(contact(port));
    }
    let mut tables = [table_of("a"), old];
    gossip(&mut tables);
    // Its disk is new, and its file says where it is now.
    tables[1] = table_of("b");
    gossip(&mut tables);
    assert_eq!(tables[0].get(&region("b")).unwrap().contact, Some(contact(2)));
    assert_eq!(tables[0].digest(), tables[1].digest());
}

#[test]
fn a_link_needs_the_will_of_both() {
    let chain = [seed("a", only(1, &["b"])), seed("b", contact(2)), seed("c", contact(3))];
    for (own, linked) in [("a", vec!["b"]), ("b", vec!["a", "c"]), ("c", vec!["b"])] {
        let members = Members::seeded(region(own), chain.clone());
        let others = ["a", "b", "c"].into_iter().filter(|name| *name != own);
        let found: Vec<&str> =
            others.filter(|name| members.link_with(&region(name)).is_ok()).collect();
        assert_eq!(found, linked, "{own}");
    }
}

#[test]
fn a_table_is_bounded() {
    let mut members = table_of("a");
    let crowd = |from: usize, to: usize| -> Vec<Member> {
        (from..to).map(|n| seed(&format!("r{n:04}"), contact(4))).collect()
    };
    members.merge(crowd(0, 1_000), &region("b"));
    assert_eq!(members.iter().count(), MAX_MEMBERS);
    assert!(!members.has_room_for(&region("stranger")));
    assert!(members.has_room_for(&region("b")), "it is there already");
    let too_many = encode_members(&crowd(0, MAX_MEMBERS + 1));
    assert!(matches!(decode_members(&too_many), Err(MemberDecodeError::Range("count of members"))));
}
