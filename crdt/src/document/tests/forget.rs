//! Settled rows may be dropped; the changes that they told of are still there.

use super::*;

fn forget(region: &mut Region, ids: &[crate::conflict::ConflictId]) -> usize {
    let mut ledger = Ledger::read(region.rows.values().map(Vec::as_slice)).unwrap();
    let forgotten = ledger.forget(ids);
    for (id, row) in ledger.unsaved() {
        assert!(row.is_none(), "nothing is written");
        region.rows.remove(&id.0);
    }
    assert_eq!(ledger.conflicts().count(), region.rows.len());
    assert_eq!(ledger.is_empty(), region.rows.is_empty());
    forgotten
}

#[test]
fn open_rows_are_never_dropped() {
    let mut regions = pair(Policy::Auto);
    regions[0].set("/open", json!(0)).set("/settled", json!(0));
    exchange(&mut regions);
    for (region, value) in regions.iter_mut().zip([1, 2]) {
        region.set("/open", json!(value)).set("/settled", json!(value));
    }
    exchange(&mut regions);
    regions[0].set("/settled", json!(3));
    let ids: Vec<_> = regions[0].conflicts().iter().map(|conflict| conflict.id).collect();
    assert_eq!(forget(&mut regions[0], &[]), 0);
    assert_eq!(forget(&mut regions[0], &ids), 1);
    let left = regions[0].conflicts();
    assert_eq!((left.len(), left[0].path.to_string()), (1, "/open".to_owned()));
    assert_eq!(left[0].state, ConflictState::Open);
    assert_eq!(forget(&mut regions[0], &ids), 0);
}

#[test]
fn a_late_change_brings_a_dropped_row_back() {
    let policies = Policies::new(Policy::Lww, Vec::new(), Vec::new());
    let [mut one, other, late] = [1, 2, 3].map(|number| Region::new(number, &policies));
    one.set("/a", json!(0));
    let mut regions = [one, other, late];
    exchange(&mut regions);
    for (region, value) in regions.iter_mut().zip([1, 2, 3]) {
        region.set("/a", json!(value));
    }
    exchange(&mut regions[..2]);
    let before = regions[0].conflicts();
    let [row] = before.as_slice() else { panic!("one row: {before:#?}") };
    assert_eq!(forget(&mut regions[0], &[row.id]), 1);
    assert!(regions[0].conflicts().is_empty());
    exchange(&mut regions);
    let back = regions[0].conflicts();
    let [again] = back.as_slice() else { panic!("one row: {back:#?}") };
    let values: Vec<_> = again.candidates.iter().filter_map(|c| c.value.clone()).collect();
    for value in [1, 2, 3] {
        assert!(values.contains(&json!(value)), "{values:?}");
    }
    assert_eq!((again.id, again.state), (row.id, ConflictState::AutoResolved));
    assert_eq!(back, regions[1].conflicts(), "regions that forgot nothing say the same");
}
