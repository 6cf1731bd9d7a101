//! Stories of points in the past, and the laws that hold for any history.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::{Value, json};

use crate::document::Document;
use crate::document::tests::laws::{run, step};
use crate::document::tests::{Region, exchange, pair};
use crate::ids::ChangeHash;
use crate::policy::{Policies, Policy};

#[test]
fn a_document_is_read_as_it_was() {
    let mut regions = pair(Policy::Auto);
    assert_eq!(regions[0].document.value_at(&[], &regions[0].policies), None);
    regions[0].set("/title", json!("one"));
    let one = regions[0].document.heads();
    regions[0].set("/title", json!("two")).delete();
    let deleted = regions[0].document.heads();
    regions[0].set("/title", json!("three"));
    exchange(&mut regions);
    let Region { document, policies, .. } = &regions[1];
    assert_eq!(document.value_at(&one, policies), Some(json!({"title": "one"})));
    assert_eq!(document.value_at(&deleted, policies), None);
    assert_eq!(document.value_at(&[], policies), None);
    assert_eq!(document.value_at(&[one[0], deleted[0]], policies), None, "one is before deleted");
    assert_eq!(document.value_at(&[ChangeHash([7; 32])], policies), None);
    assert_eq!(document.value_at(&document.heads(), policies), Some(json!({"title": "three"})));
}

/// What a document showed whenever its heads were new.
type Seen = BTreeMap<Vec<ChangeHash>, Option<Value>>;

fn look(regions: &[Region], seen: &mut Seen) {
    for Region { document, policies, .. } in regions {
        seen.entry(document.heads()).or_insert_with(|| document.value(policies));
    }
}

proptest! {
    #[test]
    fn every_point_that_was_seen_is_read_as_it_was(
        steps in prop::collection::vec(step(), 1..20),
        lww in any::<bool>(),
    ) {
        let policy = if lww { Policy::Lww } else { Policy::Auto };
        let policies = Policies::new(policy, Vec::new(), Vec::new());
        let mut regions: Vec<_> = (1..=3).map(|n| Region::new(n, &policies)).collect();
        let mut seen = Seen::new();
        for step in &steps {
            run(&mut regions, step);
            look(&regions, &mut seen);
        }
        exchange(&mut regions);
        look(&regions, &mut seen);
        let loaded = Document::load(&regions[0].document.save()).unwrap();
        for (heads, value) in &seen {
            for document in regions.iter().map(|r| &r.document).chain([&loaded]) {
                prop_assert_eq!(&document.value_at(heads, &policies), value);
            }
        }
    }
}
