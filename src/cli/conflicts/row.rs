//! A conflict as the node's API writes it.

use serde::Deserialize;
use serde_json::Value;
use time::format_description::well_known::Rfc3339;
use time::{OffsetDateTime, UtcOffset};

use crate::cli::Failure;

/// One row of the ledger.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(super) struct Row {
    pub(super) id: String,
    /// Changes whenever the row does.
    #[serde(default)]
    pub(super) revision: Option<String>,
    pub(super) document: Option<String>,
    #[serde(default)]
    pub(super) document_id: String,
    pub(super) path: String,
    pub(super) kind: String,
    /// What stood there at the common ancestor.
    #[serde(default)]
    pub(super) base: Option<Base>,
    pub(super) policy: String,
    #[serde(default)]
    pub(super) policy_version: Option<String>,
    pub(super) state: State,
    #[serde(default)]
    pub(super) winner: Option<String>,
    #[serde(default)]
    pub(super) why: Option<String>,
    pub(super) candidates: Vec<Candidate>,
    #[serde(default)]
    pub(super) settled: Option<Act>,
    #[serde(default)]
    pub(super) acts: Vec<Act>,
    /// When the latest side was written.
    #[serde(default)]
    at: Option<Time>,
    /// What the document has there now, where that is none of the sides and was looked up.
    #[serde(skip)]
    pub(super) later: Option<Later>,
}

/// What a document has at the place of a conflict.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Later {
    Value(Value),
    Nothing,
}

/// Where a conflict stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(super) enum State {
    /// More than one value is still there, and none was chosen
    Open,
    /// The policy of the path chose
    AutoResolved,
    /// A later write superseded every value
    Resolved,
    /// Somebody said that it needs no decision
    Dismissed,
}

impl State {
    /// Returns the name that the API uses.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::AutoResolved => "auto-resolved",
            Self::Resolved => "resolved",
            Self::Dismissed => "dismissed",
        }
    }
}

/// The value at the common ancestor.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(super) struct Base {
    pub(super) value: Value,
}

/// One of the values that collided.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(super) struct Candidate {
    pub(super) id: String,
    #[serde(default)]
    pub(super) value: Value,
    #[serde(default)]
    pub(super) deleted: bool,
    pub(super) region: Option<String>,
    #[serde(default)]
    pub(super) author: Option<String>,
    pub(super) origin: String,
    /// A client wrote it, and a leader admitted it.
    #[serde(default)]
    pub(super) client: bool,
    pub(super) at: Time,
    #[serde(default)]
    pub(super) change: String,
}

/// What somebody did about a conflict.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(super) struct Act {
    #[serde(default)]
    pub(super) act: Option<String>,
    pub(super) region: Option<String>,
    #[serde(default)]
    pub(super) author: Option<String>,
    pub(super) origin: String,
    pub(super) at: Time,
    pub(super) change: String,
    pub(super) note: Option<String>,
}

/// A time as RFC 3339.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(in crate::cli) struct Time(pub(in crate::cli) String);

impl Row {
    /// Takes a row from an answer.
    pub(super) fn read(value: Value) -> Result<Self, Failure> {
        serde_json::from_value(value)
            .map_err(|error| Failure::General(format!("unexpected answer of the node: {error}")))
    }

    /// Tells whether somebody should decide.
    pub(super) fn is_open(&self) -> bool {
        self.state == State::Open
    }

    /// Returns when the latest side was written, which is the order of lists.
    pub(super) fn latest(&self) -> Option<OffsetDateTime> {
        let told = self.at.as_ref().and_then(Time::parsed);
        told.or_else(|| self.candidates.iter().filter_map(|side| side.at.parsed()).max())
    }

    /// Returns as much of the id as tells conflicts apart in practice.
    pub(super) fn short_id(&self) -> String {
        self.id.chars().take(SHORT_ID).collect()
    }

    /// Returns the place inside the document, for people.
    pub(super) fn place(&self) -> String {
        if self.path.is_empty() { "(whole document)".to_owned() } else { self.path.clone() }
    }

    /// Returns the document's name, for people.
    pub(super) fn document_name(&self) -> String {
        self.document.clone().unwrap_or_else(|| "(a document without a name)".to_owned())
    }

    /// Returns the index of the candidate whose value shows.
    pub(super) fn winner_index(&self) -> Option<usize> {
        let id = self.winner.as_ref()?;
        self.candidates.iter().position(|candidate| candidate.id == *id)
    }

    /// Returns the candidate whose value shows.
    pub(super) fn winner(&self) -> Option<&Candidate> {
        self.candidates.get(self.winner_index()?)
    }

    /// Tells whether all sides show, merged with each other.
    pub(super) fn is_merged(&self) -> bool {
        self.state == State::AutoResolved && self.winner_index().is_none()
    }

    /// Returns the value that shows as one line, or that it is none of the candidates.
    pub(super) fn shown(&self) -> String {
        match (self.winner(), &self.later) {
            (Some(winner), _) => winner.text(),
            (None, Some(Later::Value(value))) => value.to_string(),
            (None, Some(Later::Nothing)) => "(nothing)".to_owned(),
            (None, None) if self.is_merged() => "all sides, merged".to_owned(),
            (None, None) => "a later value".to_owned(),
        }
    }

    /// Returns what was done about it, the oldest first; a node may know only how it ended.
    pub(super) fn past(&self) -> &[Act] {
        if self.acts.is_empty() { self.settled.as_slice() } else { &self.acts }
    }

    /// Returns the value of the `If-Match` header that means this row as it is here.
    pub(super) fn if_match(&self) -> Option<String> {
        self.revision.as_ref().map(|revision| format!("\"{revision}\""))
    }

    /// Returns the id of the candidate that `text` names: its number, its id, or the beginning of
    /// its id. A number counts as number first, because that is what people read off the screen.
    pub(super) fn candidate(&self, text: &str) -> Result<&str, Failure> {
        let number = text.parse::<usize>().ok().and_then(|number| number.checked_sub(1));
        if let Some(candidate) = number.and_then(|index| self.candidates.get(index)) {
            return Ok(&candidate.id);
        }
        if let Some(candidate) = self.candidates.iter().find(|candidate| candidate.id == text) {
            return Ok(&candidate.id);
        }
        let mut matching = self
            .candidates
            .iter()
            .filter(|candidate| !text.is_empty() && candidate.id.starts_with(text));
        match (matching.next(), matching.next()) {
            (Some(candidate), None) => Ok(&candidate.id),
            (Some(_), Some(_)) => Err(Failure::Usage(format!(
                "'{text}' is the beginning of more than one candidate: write more of it"
            ))),
            (None, _) => Err(Failure::Usage(format!(
                "the conflict has no candidate '{text}': take a number from 1 to {}, or an id that \
                 `conflicts show -o json` prints",
                self.candidates.len()
            ))),
        }
    }

    /// Says in short lines what is different in `now`.
    pub(super) fn changes_to(&self, now: &Self) -> Vec<String> {
        let mut changes = Vec::new();
        if self.state != now.state {
            changes.push(format!("the state is {} (was {})", now.state.name(), self.state.name()));
        }
        for (n, candidate) in (1..).zip(&now.candidates) {
            if !self.candidates.iter().any(|old| old.id == candidate.id) {
                changes.push(format!("side {n} is new: {}", candidate.sentence()));
            }
        }
        if self.winner != now.winner {
            changes.push(format!("{} shows (was {})", now.shown(), self.shown()));
        }
        for act in now.past().iter().skip(self.past().len()) {
            changes.push(act.sentence());
        }
        if changes.is_empty() {
            changes.push("the row was written again".to_owned());
        }
        changes
    }
}

impl Candidate {
    /// Returns the value as JSON on one line, or that it is a delete.
    pub(super) fn text(&self) -> String {
        if self.deleted { "(deleted)".to_owned() } else { self.value.to_string() }
    }

    /// Returns who wrote it and where, as far as that is known.
    pub(super) fn writer(&self) -> String {
        let place = match (&self.region, self.client) {
            (Some(region), true) => format!("a client of {region}"),
            (Some(region), false) => region.clone(),
            (None, _) => "a client".to_owned(),
        };
        match &self.author {
            Some(author) if self.client => format!("{author}, {place}"),
            author => signed(author.as_deref(), &place, &self.origin),
        }
    }

    /// Says who wrote what.
    pub(super) fn sentence(&self) -> String {
        let what =
            if self.deleted { "deleted it".to_owned() } else { format!("wrote {}", self.value) };
        format!("{} {what} at {}", self.writer(), self.at.show())
    }
}

impl Act {
    /// Returns what was done, as a verb in the past.
    pub(super) fn verb(&self) -> &str {
        match self.act.as_deref() {
            Some("write") => "superseded",
            Some("resolve") => "resolved",
            Some("dismiss") => "dismissed",
            Some("reopen") => "reopened",
            Some("undo") => "undone",
            Some(other) => other,
            None => "settled",
        }
    }

    /// Returns who did it and where, as far as that is known.
    pub(super) fn writer(&self) -> String {
        let place = self.region.as_deref().unwrap_or("a client");
        signed(self.author.as_deref(), place, &self.origin)
    }

    /// Says who did what, when and why.
    pub(super) fn sentence(&self) -> String {
        let note = self.note.as_ref().map(|note| format!(": {note}")).unwrap_or_default();
        format!("{} by {} at {}{note}", self.verb(), self.writer(), self.at.show())
    }
}

impl Time {
    /// Returns the time to the millisecond, in UTC; a text that is no time is shown as it is.
    pub(in crate::cli) fn show(&self) -> String {
        self.parsed()
            .map_or_else(|| self.0.clone(), |time| format!("{} {}", time.date(), clock(time)))
    }

    /// Returns the date and the time of day.
    pub(super) fn date_and_clock(&self) -> (String, String) {
        let text = self.show();
        let parts = text.split_once(' ').map(|(a, b)| (a.to_owned(), b.to_owned()));
        parts.unwrap_or((text, String::new()))
    }

    /// Returns the instant, for an order.
    pub(super) fn parsed(&self) -> Option<OffsetDateTime> {
        let time = OffsetDateTime::parse(&self.0, &Rfc3339).ok()?;
        Some(time.to_offset(UtcOffset::UTC))
    }
}

fn clock(time: OffsetDateTime) -> String {
    let (hour, minute, second, milli) = time.to_hms_milli();
    format!("{hour:02}:{minute:02}:{second:02}.{milli:03}Z")
}

/// Names a writer: a person if one signed, and else the origin, which is all that is known.
fn signed(author: Option<&str>, place: &str, origin: &str) -> String {
    match author {
        Some(author) => format!("{author} in {place}"),
        None => format!("{place} ({})", origin.chars().take(SHORT_ORIGIN).collect::<String>()),
    }
}

/// Digits of an id that tell conflicts apart in practice; any unique beginning is accepted.
const SHORT_ID: usize = 8;
const SHORT_ORIGIN: usize = 8;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::samples::{conflict, row};
    use super::*;

    #[test]
    fn candidates_are_named_by_number_id_or_beginning() {
        let row = row(|_| {});
        let first = "12@5d0c11223344556677889900aabbccdd";
        let second = "12@a1b2c3d4e5f60718293a4b5c6d7e8f90";
        for (text, id) in [("1", first), ("2", second), ("12@5", first), (second, second)] {
            assert_eq!(row.candidate(text), Ok(id));
        }
        for (text, part) in
            [("0", "1 to 2"), ("3", "1 to 2"), ("12@", "more than one"), ("", "1 to 2")]
        {
            let error = row.candidate(text).unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn writers_are_people_regions_or_clients() {
        let writer = |author: Value, region: Value, client: bool| {
            let row = row(|v| {
                v["candidates"][0]["author"] = author;
                v["candidates"][0]["region"] = region;
                v["candidates"][0]["client"] = json!(client);
            });
            row.candidates[0].writer()
        };
        assert_eq!(writer(json!("zoë"), json!("eu-west"), false), "zoë in eu-west");
        assert_eq!(writer(json!("zoë"), json!("eu-west"), true), "zoë, a client of eu-west");
        assert_eq!(writer(json!(null), json!("eu-west"), false), "eu-west (5d0c1122)");
        assert_eq!(writer(json!(null), json!(null), true), "a client (5d0c1122)");
    }

    #[test]
    fn what_changed_meanwhile_is_said() {
        let old = row(|_| {});
        let mut value = conflict();
        value["state"] = json!("resolved");
        value["winner"] = json!(null);
        value["acts"] = json!([{"act": "resolve", "region": "ap-south", "author": "ben",
            "origin": "00ff00ff-0000-0000-0000-000000000000", "at": "2026-03-01T10:16:30Z",
            "change": "ffee", "note": "census"}]);
        assert_eq!(
            old.changes_to(&Row::read(value).unwrap()),
            [
                "the state is resolved (was open)",
                "a later value shows (was 2099000)",
                "resolved by ben in ap-south at 2026-03-01 10:16:30.000Z: census",
            ]
        );
        assert_eq!(old.changes_to(&old), ["the row was written again"]);
    }

    #[test]
    fn times_are_shown_in_utc_and_other_text_as_it_is() {
        assert_eq!(Time("2026-03-01T10:15:30+02:00".to_owned()).show(), "2026-03-01 08:15:30.000Z");
        assert_eq!(Time("soon".to_owned()).show(), "soon");
    }
}
