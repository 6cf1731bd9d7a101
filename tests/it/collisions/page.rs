//! The comparison with other stores: what its page says of Anabranch is what the stories show.

use std::collections::BTreeMap;

use anabranch_crdt::conflict::ConflictState;
use anabranch_crdt::policy::Policy;
use serde_json::Value;

use super::leader::Leader;
use super::{Story, end_of, row, stories};

/// Returns the line of the page for one kind of collision, from two regions.
fn line(stories: &[Story]) -> String {
    let ends: Vec<(Policy, Leader)> = stories.iter().map(|s| (s.policy, end_of(s))).collect();
    let shows = by_policy(ends.iter().map(|(policy, end)| (*policy, document(&end.json()))));
    let rows: Vec<String> = ends[0].1.conflicts().iter().map(|c| sides(c, &stories[0])).collect();
    let state = |end: &Leader| {
        let open = end.conflicts().iter().any(|c| c.state == ConflictState::Open);
        if open { "open" } else { "auto-resolved" }.to_owned()
    };
    let states = by_policy(ends.iter().map(|(policy, end)| (*policy, state(end))));
    format!("| **Anabranch** | {shows} | {}. {states} |", rows.join("; "))
}

/// Says for each thing under which policies it holds, in the order of policies.
fn by_policy(things: impl Iterator<Item = (Policy, String)>) -> String {
    let mut policies: BTreeMap<String, Vec<Policy>> = BTreeMap::new();
    things.for_each(|(policy, thing)| policies.entry(thing).or_default().push(policy));
    let mut groups: Vec<(String, Vec<Policy>)> = policies.into_iter().collect();
    groups.sort_by_key(|(_, policies)| policies.clone());
    let group = |(thing, policies): &(String, Vec<Policy>)| match policies.as_slice() {
        all if all == Policy::ALL => format!("{thing} under every policy"),
        some => {
            let names: Vec<String> = some.iter().map(ToString::to_string).collect();
            format!("{thing} under {}", names.join(", "))
        }
    };
    groups.iter().map(group).collect::<Vec<_>>().join("; ")
}

fn document(json: &Value) -> String {
    if json.is_null() { "nothing".to_owned() } else { format!("`{json}`") }
}

fn sides(conflict: &anabranch_crdt::conflict::Conflict, story: &Story) -> String {
    let row = row(conflict, story);
    let side = |(region, value): &(String, Option<Value>)| match value {
        Some(value) => format!("{region} `{value}`"),
        None => format!("{region} deleted"),
    };
    let sides: Vec<String> = row.candidates.iter().map(side).collect();
    let path =
        if row.path.is_empty() { "the document".to_owned() } else { format!("`{}`", row.path) };
    let base = row.base.map_or_else(|| "nothing".to_owned(), |base| format!("`{base}`"));
    format!("kept: {path}, `{}`, was {base}, {}", row.kind, sides.join(", "))
}

#[test]
fn the_comparison_says_of_anabranch_what_the_stories_show() {
    let stories = stories();
    let mut missing = Vec::new();
    for (number, kind) in (1..).zip(TWELVE) {
        let of = |story: &&Story| story.kind == kind && story.sides.len() == 2;
        let told: Vec<Story> = stories.iter().filter(of).cloned().collect();
        assert_eq!(told.len(), Policy::ALL.len(), "{kind}");
        let heading = format!("## {number}. {}{}", kind[..1].to_uppercase(), &kind[1..]);
        let line = line(&told);
        let section = PAGE.split_once(&heading).map_or("", |(_, after)| after);
        let section = section.split("\n## ").next().unwrap();
        if !section.contains(told[0].told) || !section.contains(&line) {
            missing.push(format!("{heading}\n\n{}\n{line}\n", told[0].told));
        }
    }
    assert!(missing.is_empty(), "docs/comparison.md has to say:\n{}", missing.join("\n"));
}

const PAGE: &str = include_str!("../../../docs/comparison.md");

/// The collisions that the page compares.
pub(crate) const TWELVE: [&str; 12] = [
    "two values of one field",
    "a field deleted before it was written elsewhere",
    "an edit inside a deleted object",
    "an edit inside a deleted list element",
    "two objects under one key",
    "two lists under one key",
    "two texts under one key",
    "an object against a number",
    "a counter created twice",
    "increments against an overwrite",
    "a document deleted before it was edited elsewhere",
    "one list element set twice",
];
