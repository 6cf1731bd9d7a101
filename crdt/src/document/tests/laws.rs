//! Laws: whatever is written, in whatever order it arrives.

use proptest::prelude::*;

use super::*;
use crate::message::Act;

#[derive(Debug, Clone)]
pub(in crate::document) enum Step {
    Set(usize, &'static str, i64),
    Map(usize, &'static str, i64),
    Remove(usize, &'static str),
    Increment(usize, &'static str),
    Push(usize, i64),
    Delete(usize),
    Send(usize, usize),
    /// Takes a candidate of a conflict, dismisses it, or opens it again.
    Settle(usize, prop::sample::Index, u8),
}

pub(in crate::document) fn step() -> impl Strategy<Value = Step> {
    let key = prop::sample::select(vec!["/a", "/b", "/m/a", "/m/b", "/list/0"]);
    prop_oneof![
        6 => (0..3_usize, key.clone(), 0..4_i64).prop_map(|(r, k, v)| Step::Set(r, k, v)),
        2 => (0..3_usize, prop::sample::select(vec!["/m", "/a"]), 0..4_i64)
            .prop_map(|(r, k, v)| Step::Map(r, k, v)),
        2 => (0..3_usize, prop::sample::select(vec!["/a", "/b", "/m", "/m/a", "/list/0"]))
            .prop_map(|(r, k)| Step::Remove(r, k)),
        1 => (0..3_usize, prop::sample::select(vec!["/n", "/m/n"])).prop_map(|(r, k)| Step::Increment(r, k)),
        1 => (0..3_usize, 0..4_i64).prop_map(|(r, v)| Step::Push(r, v)),
        1 => (0..3_usize).prop_map(Step::Delete),
        6 => (0..3_usize, 0..3_usize).prop_map(|(from, to)| Step::Send(from, to)),
        1 => (0..3_usize, any::<prop::sample::Index>(), 0..4_u8)
            .prop_map(|(region, which, how)| Step::Settle(region, which, how)),
    ]
}

/// Edits that do not fit the document of the moment are skipped, as a user's would be refused.
pub(in crate::document) fn run(regions: &mut [Region], step: &Step) {
    let path = |path: &str| path.parse::<Path>().unwrap();
    let _ = match step {
        Step::Set(region, at, value) => regions[*region].edit(&[set(at, json!(value))]),
        Step::Map(region, at, value) => {
            regions[*region].edit(&[set(at, json!({"a": value, "list": [value]}))])
        }
        Step::Remove(region, at) => regions[*region].edit(&[Edit::Remove { path: path(at) }]),
        Step::Increment(region, at) => {
            regions[*region].edit(&[Edit::Increment { path: path(at), by: 1 }])
        }
        Step::Push(region, value) => {
            let region = &mut regions[*region];
            let list = set("/list", json!([]));
            let edits = match region.json().get("list") {
                Some(Value::Array(_)) => vec![],
                _ => vec![list],
            };
            let push = Edit::Insert { path: path("/list/-"), value: json!(value) };
            region.edit(&[edits, vec![push]].concat())
        }
        Step::Delete(region) => {
            regions[*region].delete();
            Ok(())
        }
        Step::Settle(region, which, how) => {
            settle(&mut regions[*region], *which, *how);
            Ok(())
        }
        Step::Send(from, to) => {
            let log = regions[*from].log.clone();
            regions[*to].receive(&log);
            Ok(())
        }
    };
}

fn settle(region: &mut Region, which: prop::sample::Index, how: u8) {
    let conflicts = region.conflicts();
    if conflicts.is_empty() || !region.document.exists() {
        return;
    }
    let conflict = which.get(&conflicts);
    let message = |act| Message { act, author: "ada".parse().ok(), note: None };
    let taken = conflict.candidates.get(usize::from(how));
    if let Some(value) = taken.and_then(|candidate| candidate.value.clone()) {
        let resolve = message(Act::Resolve(conflict.id));
        // The place may be gone, as it may be for a person.
        let _ = region.edit_with(&[set(&conflict.path.to_string(), value)], resolve);
        return;
    }
    let act = if how == 3 { Act::Reopen(conflict.id) } else { Act::Dismiss(conflict.id) };
    let author = region.author(message(act));
    let change = region.document.mark(&author);
    let made = Collisions::made(&region.document, change.hash);
    region.keep(Some(change), author.at);
    region.decide(&made);
}

pub(in crate::document) fn policies() -> impl Strategy<Value = Policies> {
    let policy = prop::sample::select(Policy::ALL.to_vec());
    let rule = prop::sample::select(vec!["", "/m", "/a", "/list/*", "/m/a"]);
    let rules = prop::collection::vec((rule, policy.clone(), prop::bool::weighted(0.3)), 0..3);
    (policy, rules).prop_map(|(default, rules)| {
        let mut settings = json!({
            "policy": default.to_string(),
            "regions": ["region-2", "region-1"],
            "paths": {},
        });
        for (path, policy, whole) in rules {
            settings["paths"][path] = json!({"policy": policy.to_string(), "whole": whole});
        }
        Policies::read(&settings).unwrap()
    })
}

/// Checks that every region has the same, and that it is what other Automerge readers see.
fn check_equal<'r>(regions: impl Iterator<Item = &'r Region>) -> Result<(), TestCaseError> {
    let regions: Vec<_> = regions.collect();
    for region in &regions {
        prop_assert_eq!(region.document.heads(), regions[0].document.heads());
        prop_assert_eq!(region.json(), regions[0].json());
        prop_assert_eq!(region.conflicts(), regions[0].conflicts());
        prop_assert_eq!(region.stock(), region.json(), "other readers see something else");
        let again = Document::load(&region.document.save()).unwrap();
        prop_assert_eq!(again.value(&region.policies), region.document.value(&region.policies));
        let mut rebuilt = Ledger::default();
        rebuilt.rebuild(&region.document, ID, &region.policies).unwrap();
        let mut rebuilt: Vec<_> = rebuilt.conflicts().cloned().collect();
        rebuilt.sort_by_key(|conflict| conflict.id);
        prop_assert_eq!(rebuilt, region.conflicts(), "the ledger differs from the history");
    }
    Ok(())
}

proptest! {
    /// Whatever is written, and in whatever order and batches it arrives: same JSON, same ledger.
    #[test]
    fn replicas_become_equal(
        steps in prop::collection::vec(step(), 1..24),
        policies in policies(),
        order in any::<prop::sample::Index>(),
        batch in 1..5_usize,
    ) {
        let mut regions: Vec<_> = (1..=3).map(|n| Region::new(n, &policies)).collect();
        steps.iter().for_each(|step| run(&mut regions, step));
        exchange(&mut regions);

        let mut log = regions[0].log.clone();
        let length = log.len().max(1);
        log.rotate_left(order.index(length));
        let mut late = Region::new(9, &policies);
        for _ in 0..log.len() {
            log.chunks(batch).for_each(|chunk| late.receive(chunk));
            if late.log.len() == log.len() {
                break;
            }
        }
        check_equal(regions.iter().chain([&late]))?;
    }

    /// Settings that change at any time, at another moment in each region, lead to the same.
    #[test]
    fn settings_may_change(
        before in prop::collection::vec(step(), 1..16),
        between in prop::collection::vec(step(), 0..6),
        [first, second] in [policies(), policies()],
    ) {
        let mut regions: Vec<_> = (1..=3).map(|n| Region::new(n, &first)).collect();
        before.iter().for_each(|step| run(&mut regions, step));
        regions[0].set_policies(&second);
        between.iter().for_each(|step| run(&mut regions, step));
        regions[1..].iter_mut().for_each(|region| region.set_policies(&second));
        exchange(&mut regions);
        check_equal(regions.iter())?;
    }
}

/// A write of what shows already, in one of two maps that show as one, clears the other map: the
/// deletes that does it with are no side of a conflict.
#[test]
fn what_clears_other_values_is_a_write() {
    let policies = Policies::default();
    let mut regions: Vec<_> = (1..=3).map(|n| Region::new(n, &policies)).collect();
    regions[1].set("/m", json!({"a": 0}));
    regions[2].set("/m", json!({"a": 0}));
    let log = regions[2].log.clone();
    regions[1].receive(&log);
    regions[0].set("/m", json!({"a": 1}));
    regions[1].set("/m/a", json!(0));
    exchange(&mut regions);
    check_equal(regions.iter()).unwrap();
    let values = |conflict: &Conflict| conflict.candidates.iter().all(|c| c.value.is_some());
    assert!(regions[0].conflicts().iter().all(values));
}

/// A policy wrote a side again that somebody else had deleted meanwhile, and settings changed.
#[test]
fn what_stands_in_for_a_deleted_side_goes() {
    let read = |policy: &str| Policies::read(&json!({ "policy": policy })).unwrap();
    let mut regions: Vec<_> = (1..=3).map(|n| Region::new(n, &read("min"))).collect();
    regions[2].set("/a", json!(0));
    regions[1].set("/a", json!(1));
    run(&mut regions, &Step::Send(1, 0));
    run(&mut regions, &Step::Send(0, 2));
    regions[0].set_policies(&read("manual"));
    regions[0].remove("/a");
    regions[1..].iter_mut().for_each(|region| region.set_policies(&read("manual")));
    exchange(&mut regions);
    check_equal(regions.iter()).unwrap();
    assert_eq!(regions[0].json(), json!({"a": 0}));
}

/// A container was taken as one value, and what was edited inside it won; under later settings,
/// which take it apart, what stands in for that edit is still that side of the conflict.
#[test]
fn what_stands_in_for_a_part_is_of_its_container() {
    let read = |settings: Value| Policies::read(&settings).unwrap();
    let first = read(json!({"policy": "auto", "paths": {"/a": {"policy": "lww", "whole": true}}}));
    let second = read(json!({"policy": "first"}));
    let mut regions: Vec<_> = (1..=3).map(|n| Region::new(n, &first)).collect();
    run(&mut regions, &Step::Map(2, "/a", 0));
    run(&mut regions, &Step::Map(1, "/a", 0));
    run(&mut regions, &Step::Send(1, 2));
    regions[0].set_policies(&second);
    run(&mut regions, &Step::Set(0, "/a", 0));
    regions[1..].iter_mut().for_each(|region| region.set_policies(&second));
    exchange(&mut regions);
    check_equal(regions.iter()).unwrap();
    assert_eq!(regions[0].json(), json!({"a": 0}));
}

/// A map was replaced, and a field set in the new one; elsewhere, in the old one. What was set in
/// the new one is no side of that conflict, although the write of the new map is.
#[test]
fn what_is_inside_of_a_removal_is_no_side() {
    let policies = Policies::default();
    let mut regions: Vec<_> = (1..=3).map(|n| Region::new(n, &policies)).collect();
    run(&mut regions, &Step::Map(1, "/m", 0));
    run(&mut regions, &Step::Send(1, 2));
    run(&mut regions, &Step::Send(1, 0));
    run(&mut regions, &Step::Set(2, "/m/a", 2));
    run(&mut regions, &Step::Map(0, "/m", 0));
    run(&mut regions, &Step::Set(0, "/m/a", 2));
    exchange(&mut regions);
    check_equal(regions.iter()).unwrap();
    assert_eq!(regions[0].log.len(), 4, "nothing is left to settle");
}

/// The document was deleted here; elsewhere a field was written twice at once. The delete is the
/// last write: what the field's own conflict would choose does not come back.
#[test]
fn a_document_that_a_policy_deletes_stays_deleted() {
    let read = |policy: &str| Policies::read(&json!({ "policy": policy })).unwrap();
    let mut regions: Vec<_> = (1..=3).map(|n| Region::new(n, &read("lww"))).collect();
    regions[0].set("/b", json!(1));
    run(&mut regions, &Step::Send(0, 1));
    run(&mut regions, &Step::Send(0, 2));
    regions[0].at(50).set("/a", json!("x"));
    regions[1].at(60).set("/a", json!("y"));
    regions[2].at(70).delete();
    exchange(&mut regions);
    check_equal(regions.iter()).unwrap();
    assert_eq!(regions[0].json(), Value::Null);
    // Under other settings everything that the delete took is there again.
    regions.iter_mut().for_each(|region| region.set_policies(&read("first")));
    exchange(&mut regions);
    check_equal(regions.iter()).unwrap();
    assert_eq!(regions[0].json(), json!({"a": "x", "b": 1}));
}

/// A field has a conflict of its own, and the document was deleted at the same time: two rows with
/// different ideas of what is to be in the field. Only one of them writes it.
#[test]
fn two_rows_never_take_turns() {
    let policies = Policies::read(&json!({"policy": "min"})).unwrap();
    let mut regions: Vec<_> = (1..=2).map(|n| Region::new(n, &policies)).collect();
    regions[1].set("/a", json!(0)).delete();
    run(&mut regions, &Step::Map(0, "/a", 0));
    exchange(&mut regions);
    check_equal(regions.iter()).unwrap();
    assert!(regions[0].log.len() < 6, "{} changes", regions[0].log.len());
}

/// A document without fields is deleted, and made again by the same writer: the delete and the
/// first write are two sides, although the delete had nothing to remove.
#[test]
fn the_delete_of_an_empty_document_is_a_side_of_its_own() {
    let policies = Policies::default();
    let mut regions: Vec<_> = (1..=3).map(|n| Region::new(n, &policies)).collect();
    regions[1].set("/b", json!(0)).remove("/b");
    run(&mut regions, &Step::Send(1, 2));
    for region in &mut regions[1..] {
        region.delete();
        region.set("/a", json!(0));
    }
    let orders = [regions.clone(), regions.iter().rev().cloned().collect()];
    for mut regions in orders {
        exchange(&mut regions);
        check_equal(regions.iter()).unwrap();
        let documents = regions[0].conflicts();
        assert!(documents.iter().flat_map(|c| &c.candidates).all(|c| c.id.contains('@')));
    }
}

/// A field was restored with its document while it had a conflict of its own: what shows is written
/// again once, above what was restored, so that other readers see it, too.
#[test]
fn what_is_written_again_is_above_what_was_restored() {
    let policies = Policies::default();
    let mut regions: Vec<_> = (1..=3).map(|n| Region::new(n, &policies)).collect();
    regions[1].set("/b", json!(2)).set("/a", json!(0)).set("/m", json!({"a": 1}));
    run(&mut regions, &Step::Send(1, 2));
    regions[2].set("/m/a", json!(0)).delete();
    regions[1].remove("/m");
    run(&mut regions, &Step::Send(2, 1));
    regions[0].set("/n", json!(1)).set("/b", json!(0));
    exchange(&mut regions);
    check_equal(regions.iter()).unwrap();
    assert!(regions[0].log.len() < 13, "{} changes", regions[0].log.len());
}

/// Two lists were created under one key, and the document counts as one value since: a later write
/// has settled that, and other readers see the list that shows.
#[test]
fn what_shows_of_a_whole_document_is_what_others_see() {
    let read = |settings: Value| Policies::read(&settings).unwrap();
    let whole = read(json!({"paths": {"": {"policy": "lww", "whole": true}}}));
    let mut regions: Vec<_> = (1..=3).map(|n| Region::new(n, &Policies::default())).collect();
    run(&mut regions, &Step::Push(1, 0));
    run(&mut regions, &Step::Push(2, 1));
    run(&mut regions, &Step::Send(1, 2));
    regions[2].set("/a", json!(0));
    regions.iter_mut().for_each(|region| region.set_policies(&whole));
    exchange(&mut regions);
    check_equal(regions.iter()).unwrap();
    assert_eq!(regions[0].json(), json!({"a": 0, "list": [1]}));
}

/// Two regions restored one map at once, and it was edited in one of the two: the maps are merged
/// for other readers, too, although no two people wrote them.
#[test]
fn maps_that_were_restored_twice_become_one() {
    let policies = Policies::read(&json!({"policy": "min"})).unwrap();
    let mut regions: Vec<_> = (1..=3).map(|n| Region::new(n, &policies)).collect();
    run(&mut regions, &Step::Map(1, "/m", 1));
    run(&mut regions, &Step::Send(1, 0));
    regions[0].set("/a", json!(2));
    regions[1].set("/m/a", json!(2));
    regions[2].set("/a", json!(0));
    regions[0].delete();
    run(&mut regions, &Step::Send(0, 2));
    run(&mut regions, &Step::Send(1, 0));
    regions[0].set("/m/a", json!(0));
    run(&mut regions, &Step::Send(2, 1));
    exchange(&mut regions);
    check_equal(regions.iter()).unwrap();
}
