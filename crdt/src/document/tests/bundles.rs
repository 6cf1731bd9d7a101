//! A document that is rebuilt from a snapshot, or from bundles, after its entries are gone equals
//! the one that was made of entries, in everything that policies follow from.

use proptest::prelude::*;

use super::laws::{policies, run, step};
use super::*;
use crate::bundle::Bundle;

/// The parts in which a document travels.
fn parts(document: &Document, bytes: usize) -> Vec<Bundle> {
    let (mut taken, mut parts) = (Document::new(), Vec::new());
    loop {
        let part = document.bundle(ID, None, Vec::new(), &taken.heads(), bytes);
        let admitted: Vec<Admitted> = part.changes.iter().map(Admitted::from).collect();
        assert!(taken.missing(&part.changes).unwrap().is_empty());
        taken.apply(&admitted, &Policies::default()).unwrap();
        let whole = taken.contains_all(&part.heads);
        parts.push(part);
        if whole {
            return parts;
        }
    }
}

/// A region that never saw an entry, and was given a document in parts. It admits nothing, as one
/// that decides on the first parts may make a resolution that a later part makes needless.
fn given(number: u8, document: &Document, policies: &Policies, bytes: usize) -> Region {
    let mut region = Region::new(number, policies);
    let parts = parts(document, bytes);
    let changes = parts.iter().flat_map(|part| &part.changes);
    let changes: Vec<_> = changes.map(Admitted::from).collect();
    changes.chunks(4).for_each(|some| region.receive(some));
    region
}

/// Everything about a region that follows from the changes and their admissions.
fn shown(region: &Region) -> (Vec<ChangeHash>, Value, Vec<Conflict>, Vec<u8>) {
    let admissions = region.document.admissions.to_bytes();
    (region.document.heads(), region.json(), region.conflicts(), admissions)
}

proptest! {
    #[test]
    fn a_document_that_travels_whole_equals_the_one_made_of_entries(
        steps in prop::collection::vec(step(), 1..24),
        [first, second] in [policies(), policies()],
        bytes in prop::sample::select(vec![1_usize, 300, 1 << 20]),
    ) {
        let mut regions: Vec<_> = (1..=3).map(|n| Region::new(n, &first)).collect();
        steps.iter().for_each(|step| run(&mut regions, step));
        exchange(&mut regions);
        let document = &regions[0].document;
        let loaded = Document::load(&document.save()).unwrap();
        for source in [document, &loaded] {
            let late = given(9, source, &first, bytes);
            prop_assert_eq!(shown(&late), shown(&regions[0]));
            // What other settings would make of it is the same, too.
            let here = &regions[0].document;
            prop_assert_eq!(late.document.value(&second), here.value(&second));
            let decided = |document: &Document| {
                let mut ledger = Ledger::default();
                ledger.rebuild(document, ID, &second).unwrap();
                let mut conflicts: Vec<_> = ledger.conflicts().cloned().collect();
                conflicts.sort_by_key(|conflict| conflict.id);
                conflicts
            };
            prop_assert_eq!(decided(&late.document), decided(here));
        }
    }
}

/// The clock of a client's write counts for no more than its admission, wherever the document is
/// rebuilt.
#[test]
fn admissions_travel_with_the_changes() {
    let policies = Policies::new(Policy::Lww, Vec::new(), Vec::new());
    let mut region = Region::new(1, &policies);
    region.at(10).set("/title", json!("leader"));
    let mut client = region.clone();
    client.origin = Origin::from_bytes([9; 16]);
    client.at(1_000_000_000_000).set("/title", json!("client"));
    let change = client.log.last().unwrap().change.clone();
    region.at(70).set("/title", json!("leader again"));
    let start = region.log[0].at.0 - 10;
    let by = Some(region.origin);
    region.receive(&[Admitted { change: change.clone(), at: Timestamp(start + 50), by }]);
    assert_eq!(region.json(), json!({"title": "leader again"}));
    let late = given(2, &region.document, &policies, 1);
    assert_eq!(shown(&late), shown(&region));
    let bundle = region.document.bundle(ID, None, Vec::new(), &[], usize::MAX);
    let of_client = bundle.changes.iter().find(|bundled| bundled.change == change).unwrap();
    assert_eq!((of_client.admitted, Some(of_client.by)), (Timestamp(start + 50), by));
}
