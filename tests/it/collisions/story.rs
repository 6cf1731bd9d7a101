//! What a story is, and how a kind of collision becomes one story for each policy.

use std::fmt;

use anabranch_crdt::edit::Edit;
use anabranch_crdt::policy::{Policies, Policy};
use serde_json::{Value, json};

/// Regions that write without hearing of each other, and what has to come of it.
#[derive(Debug, Clone)]
pub(crate) struct Story {
    pub(crate) kind: &'static str,
    pub(crate) policy: Policy,
    pub(crate) told: &'static str,
    pub(crate) settings: Value,
    /// What everybody knows.
    pub(crate) before: Vec<Edit>,
    /// What each region then does.
    pub(crate) sides: Vec<Side>,
    pub(crate) expected: Expected,
}

/// What one region does while it is alone.
#[derive(Debug, Clone)]
pub(crate) struct Side {
    pub(crate) region: &'static str,
    /// By its clock, in microseconds.
    pub(crate) at: u64,
    pub(crate) deed: Deed,
}

#[derive(Debug, Clone)]
pub(crate) enum Deed {
    Edits(Vec<Edit>),
    /// It deletes the document.
    Delete,
}

/// What every region shows in the end; `null` is a document that is gone.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Expected {
    pub(crate) json: Value,
    /// In the order of paths.
    pub(crate) rows: Vec<ExpectedRow>,
}

/// One row of the ledger.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ExpectedRow {
    pub(crate) path: String,
    pub(crate) kind: String,
    pub(crate) state: String,
    pub(crate) base: Option<Value>,
    /// Region and value of each candidate, in the order of regions; no value is a delete.
    pub(crate) candidates: Vec<(String, Option<Value>)>,
    /// The region whose value shows.
    pub(crate) winner: Option<String>,
    /// How the sentence begins that says why.
    pub(crate) why: String,
}

/// A kind of collision: what the sides do, and what each policy makes of it.
#[derive(Debug)]
pub(crate) struct Kind {
    pub(crate) name: &'static str,
    pub(crate) told: &'static str,
    pub(crate) before: Vec<Edit>,
    /// The container that counts as one value.
    pub(crate) whole: Option<&'static str>,
    /// Two regions are the first two.
    pub(crate) sides: [Side; 3],
    pub(crate) two: Ends,
    pub(crate) three: Ends,
}

/// How a kind ends, under each policy in the order of [`Policy::ALL`].
#[derive(Debug)]
pub(crate) struct Ends {
    pub(crate) shows: [Value; 7],
    pub(crate) rows: Vec<Row>,
}

/// A row as it is under all policies but for what they decide.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) path: &'static str,
    pub(crate) kind: &'static str,
    pub(crate) base: Option<Value>,
    pub(crate) candidates: Vec<(&'static str, Option<Value>)>,
    /// The winning region under each policy; `-` where all sides show.
    pub(crate) winners: [&'static str; 7],
    /// What `auto` leaves: `open`, or why it is settled.
    pub(crate) auto: &'static str,
    /// The reason under every policy that chooses, where that is not what it goes by.
    pub(crate) chosen: Option<&'static str>,
}

impl Kind {
    /// The stories of this kind, from two and from three regions.
    pub(crate) fn stories(&self) -> Vec<Story> {
        [(2, &self.two), (3, &self.three)]
            .into_iter()
            .flat_map(|(regions, ends)| {
                let story = move |(at, policy)| self.story(at, policy, regions, ends);
                Policy::ALL.into_iter().enumerate().map(story)
            })
            .collect()
    }

    fn story(&self, at: usize, policy: Policy, regions: usize, ends: &Ends) -> Story {
        Story {
            kind: self.name,
            policy,
            told: self.told,
            settings: self.settings(policy),
            before: self.before.clone(),
            sides: self.sides[..regions].to_vec(),
            expected: Expected {
                json: ends.shows[at].clone(),
                rows: ends.rows.iter().map(|row| row.under(at, policy)).collect(),
            },
        }
    }

    fn settings(&self, policy: Policy) -> Value {
        let policy = policy.to_string();
        match self.whole {
            None => json!({"policy": policy, "regions": PRIORITY}),
            Some(path) => {
                let paths = json!({path: {"policy": policy, "whole": true}});
                json!({"policy": "auto", "paths": paths, "regions": PRIORITY})
            }
        }
    }
}

impl Row {
    fn under(&self, at: usize, policy: Policy) -> ExpectedRow {
        let (state, why) = match policy {
            Policy::Auto if self.auto == "open" => ("open", OPEN),
            Policy::Auto => ("auto-resolved", self.auto),
            Policy::Manual => ("open", "manual: someone has to decide"),
            Policy::Lww => ("auto-resolved", "lww: the greatest timestamp"),
            Policy::First => ("auto-resolved", "first: the least timestamp"),
            Policy::Max => ("auto-resolved", "max: the greatest value"),
            Policy::Min => ("auto-resolved", "min: the least value"),
            Policy::RegionPriority => ("auto-resolved", "region-priority: the region that"),
        };
        let why = self
            .chosen
            .filter(|_| policy.chooses())
            .map_or_else(|| why.to_owned(), |why| format!("{policy}: {why}"));
        let mut candidates: Vec<_> = self
            .candidates
            .iter()
            .map(|(region, value)| ((*region).to_owned(), value.clone()))
            .collect();
        candidates.sort_by(|one, other| one.0.cmp(&other.0));
        ExpectedRow {
            path: self.path.to_owned(),
            kind: self.kind.to_owned(),
            state: state.to_owned(),
            base: self.base.clone(),
            candidates,
            winner: Some(self.winners[at].to_owned()).filter(|region| region != "-"),
            why,
        }
    }
}

impl fmt::Display for Expected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.json)?;
        self.rows.iter().try_for_each(|row| write!(f, "\n    {row}"))
    }
}

impl fmt::Display for ExpectedRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |value: &Option<Value>| {
            value.as_ref().map_or_else(|| "nothing".to_owned(), Value::to_string)
        };
        write!(f, "'{}' {} {}, from {}:", self.path, self.kind, self.state, shown(&self.base))?;
        for (region, value) in &self.candidates {
            write!(f, " {region} {},", shown(value))?;
        }
        write!(f, " winner {} ({})", self.winner.as_deref().unwrap_or("none"), self.why)
    }
}

impl Story {
    pub(crate) fn name(&self) -> String {
        format!("{}, {}, {} regions", self.kind, self.policy, self.sides.len())
    }

    pub(crate) fn policies(&self) -> Policies {
        Policies::read(&self.settings).unwrap()
    }
}

/// The order of regions under `region-priority`.
pub(crate) const PRIORITY: [&str; 3] = ["ap", "eu", "us"];

const OPEN: &str = "auto: a deterministic candidate shows until someone chooses";
