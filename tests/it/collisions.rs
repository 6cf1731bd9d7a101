//! Every kind of conflict under every policy, from two and from three regions: seen, explained,
//! and settled alike, whatever the order in which regions hear of each other.

mod leader;
mod nodes;
mod page;
mod story;
mod table;

use anabranch_crdt::conflict::{Candidate, Conflict};
use anabranch_crdt::document::Admitted;
use serde_json::json;

use leader::Leader;
pub(crate) use story::Story;
use story::{Expected, ExpectedRow};
use table::kinds;

/// In which order regions hear of each other, and in which portions.
#[derive(Debug, Clone)]
struct Exchange {
    /// Who hears first, as indices of the regions.
    order: Vec<usize>,
    portions: Portions,
}

#[derive(Debug, Clone, Copy)]
enum Portions {
    Everything,
    OneChange,
    /// One change at a time, the latest first: most of them have to wait for others.
    OneChangeBackwards,
}

/// Tells a story up to where nobody knows of the other sides.
fn apart(story: &Story) -> Vec<Leader> {
    let policies = story.policies();
    let new = |side: &story::Side| Leader::new(side.region, &policies);
    let mut leaders: Vec<Leader> = story.sides.iter().map(new).collect();
    leaders[0].edit(1, &story.before);
    let known = leaders[0].log().to_vec();
    for (leader, side) in leaders.iter_mut().zip(&story.sides) {
        leader.receive(&known);
        leader.write(side);
    }
    leaders
}

/// Tells a story to its end.
fn told(story: &Story, exchange: &Exchange) -> Vec<Leader> {
    let mut leaders = apart(story);
    for _ in 0..ROUNDS {
        let mut quiet = true;
        for &to in &exchange.order {
            for &from in exchange.order.iter().filter(|from| **from != to) {
                let log = leaders[from].log().to_vec();
                quiet &= !deliver(&mut leaders[to], log, exchange.portions);
            }
        }
        if quiet {
            return leaders;
        }
    }
    panic!("the regions never come to rest: {} ({exchange:?})", story.name());
}

fn deliver(to: &mut Leader, mut log: Vec<Admitted>, portions: Portions) -> bool {
    match portions {
        Portions::Everything => to.receive(&log),
        Portions::OneChange | Portions::OneChangeBackwards => {
            if matches!(portions, Portions::OneChangeBackwards) {
                log.reverse();
            }
            let received: Vec<bool> = log.chunks(1).map(|change| to.receive(change)).collect();
            received.contains(&true)
        }
    }
}

fn exchanges(regions: usize) -> Vec<Exchange> {
    let orders: &[&[usize]] = match regions {
        2 => &[&[0, 1], &[1, 0]],
        _ => &[&[0, 1, 2], &[0, 2, 1], &[1, 0, 2], &[1, 2, 0], &[2, 0, 1], &[2, 1, 0]],
    };
    let all = [Portions::Everything, Portions::OneChange, Portions::OneChangeBackwards];
    let of =
        |portions| orders.iter().map(move |order| Exchange { order: order.to_vec(), portions });
    all.into_iter().flat_map(of).collect()
}

/// What a region shows, in the form in which stories say it.
fn shown(leader: &Leader, story: &Story) -> Expected {
    let rows = leader.conflicts().iter().map(|conflict| row(conflict, story)).collect();
    Expected { json: leader.json(), rows }
}

fn row(conflict: &Conflict, story: &Story) -> ExpectedRow {
    let region = |candidate: &Candidate| {
        let of = |side: &&story::Side| candidate.leader.is_of(&side.region.parse().unwrap());
        story.sides.iter().find(of).unwrap().region.to_owned()
    };
    let candidates = conflict.candidates.iter();
    let mut candidates: Vec<_> = candidates.map(|c| (region(c), c.value.clone())).collect();
    candidates.sort_by(|one, other| one.0.cmp(&other.0));
    ExpectedRow {
        path: conflict.path.to_string(),
        kind: conflict.kind.to_string(),
        state: conflict.state.to_string(),
        base: conflict.base.clone(),
        candidates,
        winner: conflict.winning().map(region),
        why: conflict.why(),
    }
}

/// Says what is wrong with the end of a story, in whatever order it is told.
fn mistakes(story: &Story) -> Option<String> {
    let all = exchanges(story.sides.len());
    let wrong: Vec<_> = all
        .iter()
        .filter_map(|exchange| Some((exchange, wrong(story, &told(story, exchange))?)))
        .collect();
    let (exchange, first) = wrong.first()?;
    let alike = wrong.iter().filter(|(_, wrong)| wrong == first).count();
    Some(format!(
        "{}\n  {}\n  settings: {}\n  before: {:?}\n  sides: {:?}\n  {exchange:?}, as in {alike} of \
         {} exchanges, of which {} go wrong\n  {first}\n",
        story.name(),
        story.told,
        story.settings,
        story.before,
        story.sides,
        all.len(),
        wrong.len(),
    ))
}

fn wrong(story: &Story, leaders: &[Leader]) -> Option<String> {
    let first = &leaders[0];
    for leader in leaders {
        if leader.json() != first.json() || leader.conflicts() != first.conflicts() {
            let [one, other] = [shown(leader, story), shown(first, story)];
            return Some(format!("the regions differ:\n  {one}\n  and\n  {other}"));
        }
    }
    let mut found = shown(first, story);
    for (found, expected) in found.rows.iter_mut().zip(&story.expected.rows) {
        if found.why.starts_with(&expected.why) {
            found.why.clone_from(&expected.why);
        }
    }
    if found != story.expected {
        let expected = &story.expected;
        return Some(format!("expected:\n  {expected}\n  found:\n  {found}"));
    }
    // A document that is gone is an empty one to Automerge.
    let json = Some(first.json()).filter(|json| !json.is_null());
    let (stock, json) = (first.stock(), json.unwrap_or_else(|| json!({})));
    (stock != json).then(|| format!("Automerge shows {stock}, and the API {json}"))
}

pub(crate) fn stories() -> Vec<Story> {
    kinds().iter().flat_map(story::Kind::stories).collect()
}

/// The first leader at the end of a story, told in the plainest order.
pub(crate) fn end_of(story: &Story) -> Leader {
    let order = (0..story.sides.len()).collect();
    told(story, &Exchange { order, portions: Portions::Everything }).swap_remove(0)
}

fn expect(stories: &[Story]) {
    let wrong: Vec<String> = stories.iter().filter_map(mistakes).collect();
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), stories.len(), wrong.join("\n"));
}

#[test]
fn every_kind_of_conflict_ends_as_its_story_says_under_every_policy() {
    let stories = stories();
    assert_eq!(stories.len(), 16 * 7 * 2);
    expect(&stories);
}

/// How often regions may tell each other news until nobody has any.
const ROUNDS: usize = 12;
