//! One change of a client that two leaders admit, each at its own time: the earlier one counts,
//! in every region, whichever is heard of first.

use super::*;

const START: u64 = 1_700_000_000_000_000;

/// Three regions that know one title, and a client's write to it that claims to be of the future.
fn client_of_three() -> ([Region; 3], Bytes) {
    let policies = Policies::new(Policy::Lww, Vec::new(), Vec::new());
    let mut regions = [1, 2, 3].map(|number| Region::new(number, &policies));
    regions[0].at(0).set("/title", json!("one"));
    exchange(&mut regions);
    let mut client = regions[0].clone();
    client.origin = Origin::from_bytes([9; 16]);
    client.at(1_000_000_000_000).set("/title", json!("client"));
    let change = client.log.last().unwrap().change.clone();
    (regions, change)
}

fn admission(change: &Bytes, microseconds: u64, region: &Region) -> Admitted {
    let at = Timestamp(START + microseconds);
    Admitted { change: change.clone(), at, by: Some(region.origin) }
}

/// Checks that all regions show the same, and tell the same of the client's write.
#[track_caller]
fn check_agreed(regions: &[Region], client_at: u64) {
    for region in regions {
        assert_eq!(region.json(), regions[0].json());
        assert_eq!(region.document.heads(), regions[0].document.heads());
        assert_eq!(region.conflicts(), regions[0].conflicts(), "ledgers differ");
        let again = Document::load(&region.document.save()).unwrap();
        assert_eq!(again.admissions, regions[0].document.admissions);
    }
    let conflicts = regions[0].conflicts();
    let candidates = conflicts.iter().flat_map(|conflict| &conflict.candidates);
    let of_client = candidates.filter(|c| c.value == Some(json!("client")));
    let times: Vec<u64> = of_client.map(|candidate| candidate.at.0 - START).collect();
    assert_eq!(times, [client_at]);
}

#[test]
fn the_earlier_admission_counts_whichever_is_heard_of_first() {
    for turned in [false, true] {
        let (mut regions, change) = client_of_three();
        regions[2].at(70).set("/title", json!("leader"));
        let early = admission(&change, 50, &regions[0]);
        let late = admission(&change, 90, &regions[1]);
        regions[0].receive(std::slice::from_ref(&early));
        regions[0].log.push(early.clone());
        regions[1].receive(std::slice::from_ref(&late));
        regions[1].log.push(late.clone());
        let first = if turned { late } else { early };
        regions[2].receive(&[first]);
        exchange(&mut regions);
        check_agreed(&regions, 50);
    }
}

/// Two regions decide a collision by the two times of the client's write, each for itself.
#[test]
fn regions_that_decided_by_different_admissions_agree_in_the_end() {
    let (mut regions, change) = client_of_three();
    regions[0].at(70).set("/title", json!("first leader"));
    regions[2].at(80).set("/title", json!("third leader"));
    let early = admission(&change, 50, &regions[0]);
    let late = admission(&change, 90, &regions[1]);
    regions[0].receive(std::slice::from_ref(&early));
    regions[0].log.push(early);
    regions[1].receive(std::slice::from_ref(&late));
    regions[1].log.push(late.clone());
    regions[2].receive(&[late]);
    exchange(&mut regions);
    check_agreed(&regions, 50);
}

/// Each of two regions decides by the admission that it knows, and deletes what the other one
/// keeps: nothing is left of three writes, although the row names a winner.
#[test]
fn regions_that_decided_differently_do_not_delete_everything() {
    let (mut regions, change) = client_of_three();
    regions[0].at(70).set("/title", json!("first leader"));
    regions[2].at(80).set("/title", json!("third leader"));
    let early = admission(&change, 50, &regions[0]);
    let late = admission(&change, 90, &regions[1]);
    regions[0].receive(std::slice::from_ref(&early));
    regions[0].log.push(early);
    regions[1].receive(std::slice::from_ref(&late));
    regions[1].log.push(late.clone());
    let third = regions[2].log.clone();
    regions[0].receive(&third);
    regions[2].receive(&[late]);
    exchange(&mut regions);
    check_agreed(&regions, 50);
    assert_eq!(regions[0].json(), json!({"title": "third leader"}));
}
