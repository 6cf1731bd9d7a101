//! No value vanishes unseen: texts that were assigned to one field by writers who did not know each
//! other are together in a row of the ledger, unless someone who knew them replaced them while the
//! conflict went on.

use std::collections::BTreeMap;

use super::Violation;
use super::changes::{Changes, Hash, Known};
use crate::sim::history::{DocumentNumber, FinalConflict, History, Kind};
use crate::sim::tally::Tally;

/// One assignment of a text to a field, or its removal.
struct Assigned<'a> {
    change: Hash,
    text: Option<&'a str>,
}

impl Assigned<'_> {
    /// Tells whether neither knew the other, and they wanted different things.
    fn collides(&self, other: &Self, changes: &Changes) -> bool {
        self.text != other.text
            && !changes.follows(self.change, other.change)
            && !changes.follows(other.change, self.change)
    }
}

pub(super) fn check(history: &History, changes: &Changes, tally: &mut Tally) -> Vec<Violation> {
    let mut found = Vec::new();
    for (number, subject) in &history.documents {
        if subject.kind != Kind::Register {
            continue;
        }
        let known: Vec<&Known> = changes.of_document(*number).collect();
        for (field, assigned) in assigned(&known) {
            for group in groups(&assigned, changes) {
                let last: Vec<&str> = last(&group, changes);
                tally.overwritten += last.len() as u64;
                found.extend(unseen(history, *number, &field, &last));
            }
        }
    }
    found
}

fn assigned<'a>(known: &[&'a Known]) -> BTreeMap<String, Vec<Assigned<'a>>> {
    let mut fields: BTreeMap<String, Vec<Assigned<'a>>> = BTreeMap::new();
    for change in known.iter().filter(|change| change.act != "policy") {
        for operation in &change.operations {
            let Some(field) = &operation.field else { continue };
            let assigned = Assigned { change: change.hash, text: operation.text.as_deref() };
            fields.entry(field.clone()).or_default().push(assigned);
        }
    }
    fields
}

/// What collided, directly or through others, belongs together.
fn groups<'a, 'b>(assigned: &'b [Assigned<'a>], changes: &Changes) -> Vec<Vec<&'b Assigned<'a>>> {
    let mut groups: Vec<Vec<&Assigned<'a>>> = Vec::new();
    for one in assigned {
        let touches =
            |group: &Vec<&Assigned<'a>>| group.iter().any(|other| one.collides(other, changes));
        let (mut joined, apart): (Vec<_>, Vec<_>) = groups.into_iter().partition(touches);
        joined.push(vec![one]);
        groups = apart;
        groups.push(joined.into_iter().flatten().collect());
    }
    groups.retain(|group| group.len() > 1);
    groups
}

/// The texts of a group that nobody in it replaced who knew them.
fn last<'a>(group: &[&Assigned<'a>], changes: &Changes) -> Vec<&'a str> {
    let followed = |one: &Assigned<'_>| {
        let later = |other: &&&Assigned<'_>| {
            other.change != one.change && changes.follows(other.change, one.change)
        };
        group.iter().any(|other| later(&other))
    };
    group.iter().filter(|one| !followed(one)).filter_map(|one| one.text).collect()
}

fn unseen(
    history: &History,
    number: DocumentNumber,
    field: &str,
    texts: &[&str],
) -> Option<Violation> {
    let path = format!("/{field}");
    let wanted: Vec<String> = texts.iter().map(|text| format!("\"{text}\"")).collect();
    let there = |row: &&FinalConflict| row.document == number && row.path == path;
    let holds = |row: &FinalConflict| {
        let has = |text: &String| row.candidates.iter().flatten().any(|value| value == text);
        wanted.iter().all(has)
    };
    let blind = history
        .present()
        .find(|last| wanted.len() > 1 && !last.conflicts.iter().filter(there).any(holds))?;
    let name = history.documents.get(&number).map(|subject| subject.name.as_str());
    let rows = blind.conflicts.iter().filter(there).map(|row| &row.candidates);
    let what = format!(
        "region-{} has no row for {wanted:?} at {path} of {}, but for {:?}",
        blind.node,
        name.unwrap_or_default(),
        rows.collect::<Vec<_>>()
    );
    Some(Violation::new("ledger", what))
}
