//! Laws of counters: whoever creates them, and whatever they know of each other, every increment
//! counts once.

use super::super::*;
use super::check_equal;
use proptest::prelude::*;

#[derive(Debug, Clone)]
enum Step {
    Increment(usize, &'static str, i64),
    /// Creates the map that some counters are in, where there is none.
    Map(usize),
    /// Sends the first so many changes that a region has.
    Send(usize, usize, prop::sample::Index),
}

fn step() -> impl Strategy<Value = Step> {
    let path = prop::sample::select(vec!["/n", "/m/n", "/list/0"]);
    prop_oneof![
        4 => (0..3_usize, path, -5..50_i64).prop_map(|(r, p, by)| Step::Increment(r, p, by)),
        1 => (0..3_usize).prop_map(Step::Map),
        4 => (0..3_usize, 0..3_usize, any::<prop::sample::Index>())
            .prop_map(|(from, to, many)| Step::Send(from, to, many)),
    ]
}

/// What is to be counted: what each change added, and where.
#[derive(Debug, Default)]
struct Count {
    start: i64,
    added: BTreeMap<Bytes, (&'static str, i64)>,
}

impl Count {
    fn run(&mut self, regions: &mut [Region], step: &Step) {
        match step {
            Step::Increment(region, path, by) => {
                let region = &mut regions[*region];
                let changes = region.log.len();
                let edit = |by| Edit::Increment { path: path.parse().unwrap(), by };
                if region.edit(&[edit(by - 2), edit(2)]).is_ok() {
                    self.added.insert(region.log[changes].change.clone(), (*path, *by));
                }
            }
            Step::Map(region) if regions[*region].json().get("m").is_none() => {
                regions[*region].set("/m", json!({}));
            }
            Step::Map(_) => {}
            Step::Send(from, to, many) => {
                let log = regions[*from].log.clone();
                let many = many.index(log.len() + 1);
                regions[*to].receive(&log[..many]);
            }
        }
    }

    /// Checks that a region shows the sum of the increments that it knows of.
    fn check(&self, region: &Region) -> Result<(), TestCaseError> {
        let json = region.json();
        for (path, start) in [("/n", self.start), ("/m/n", 0), ("/list/0", self.start)] {
            let known = region.log.iter().filter_map(|change| self.added.get(&change.change));
            let sum: i64 = known.filter(|(at, _)| *at == path).map(|(_, by)| by).sum();
            let shown = json.pointer(path).map_or(0, |count| count.as_i64().unwrap());
            prop_assert_eq!(shown, start + sum, "{} in {}", path, json);
        }
        Ok(())
    }
}

proptest! {
    /// Every region shows the sum of all increments that it knows of, at any time; in the end all
    /// show the same sum, and so do other readers.
    #[test]
    fn every_increment_counts_once(
        start in prop_oneof![Just(None), Just(Some(7_i64))],
        steps in prop::collection::vec(step(), 1..24),
    ) {
        let mut regions: Vec<_> = (1..=3).map(|n| Region::new(n, &Policies::default())).collect();
        if let Some(start) = start {
            regions[0].set("/n", json!(start)).set("/list", json!([start]));
            exchange(&mut regions);
        }
        let mut count = Count { start: start.unwrap_or_default(), ..Count::default() };
        for step in &steps {
            count.run(&mut regions, step);
            regions.iter().filter(|r| !r.log.is_empty()).try_for_each(|r| count.check(r))?;
        }
        exchange(&mut regions);
        regions.iter().try_for_each(|region| count.check(region))?;
        check_equal(regions.iter())?;
    }
}

/// Two regions created a map and a counter in it at once. One of the maps was merged into the other
/// before the other's counter was known, so the counter stood in both; and it was added to in the
/// one that had been written for other readers. When the other's counter came, that was deleted as
/// something superseded, and what had been added was lost.
#[test]
fn what_is_added_to_a_merged_counter_counts() {
    let mut regions: Vec<_> = (1..=3).map(|n| Region::new(n, &Policies::default())).collect();
    regions[0].set("/m", json!({})).increment("/m/n", 1);
    regions[2].set("/m", json!({})).increment("/m/n", 10);
    let map = regions[2].log[..1].to_vec();
    regions[0].receive(&map);
    regions[0].increment("/m/n", 100);
    exchange(&mut regions);
    check_equal(regions.iter()).unwrap();
    assert_eq!(regions[0].json(), json!({"m": {"n": 111}}));
}

/// Two regions created one counter at once. The third saw both and added to them, while one of the
/// two went on with its own. The third wrote a new counter, with the sum of what it saw, in place
/// of both, and what was added to the old one meanwhile was lost. And two regions that did so at
/// once counted only the greater one of their two sums.
#[test]
fn counters_that_were_created_apart_are_never_replaced_by_their_sum() {
    let mut regions: Vec<_> = (1..=3).map(|n| Region::new(n, &Policies::default())).collect();
    regions[0].increment("/n", 1);
    regions[1].increment("/n", 10);
    let both = [regions[0].log.clone(), regions[1].log.clone()].concat();
    regions[2].receive(&both);
    regions[2].increment("/n", 100);
    regions[0].increment("/n", 1_000);
    assert_eq!(regions[2].json(), json!({"n": 111}));
    exchange(&mut regions);
    check_equal(regions.iter()).unwrap();
    assert_eq!(regions[0].json(), json!({"n": 1_111}));
}
