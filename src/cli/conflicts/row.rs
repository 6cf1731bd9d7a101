//! A conflict as the node's API writes it.

use serde::Deserialize;
use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::cli::Failure;

/// One row of the ledger.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Row {
    pub(super) id: String,
    pub(super) document: Option<String>,
    pub(super) path: String,
    pub(super) kind: String,
    pub(super) policy: String,
    pub(super) state: String,
    #[serde(default)]
    pub(super) winner: Value,
    #[serde(default)]
    pub(super) why: Option<String>,
    pub(super) candidates: Vec<Candidate>,
    #[serde(default)]
    pub(super) settled: Option<Settlement>,
}

/// One of the values that collided.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Candidate {
    pub(super) id: String,
    #[serde(default)]
    pub(super) value: Value,
    #[serde(default)]
    pub(super) deleted: bool,
    pub(super) region: Option<String>,
    pub(super) origin: String,
    pub(super) at: Time,
}

/// How a conflict ended.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Settlement {
    pub(super) region: Option<String>,
    pub(super) origin: String,
    pub(super) at: Time,
    pub(super) change: String,
    pub(super) note: Option<String>,
}

/// A time, as text or as microseconds since 1970.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub(super) enum Time {
    Text(String),
    Micros(i64),
}

impl Row {
    /// Takes a row from an answer.
    pub(super) fn read(value: Value) -> Result<Self, Failure> {
        serde_json::from_value(value)
            .map_err(|error| Failure::General(format!("unexpected answer of the node: {error}")))
    }

    /// Tells whether somebody should decide.
    pub(super) fn is_open(&self) -> bool {
        self.state == "open"
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
        if let Some(id) = self.winner.as_str() {
            return self.candidates.iter().position(|candidate| candidate.id == id);
        }
        let index = usize::try_from(self.winner.as_u64()?).ok()?;
        (index < self.candidates.len()).then_some(index)
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
                 `conflicts show` prints",
                self.candidates.len()
            ))),
        }
    }
}

impl Candidate {
    /// Returns the value as JSON, or that it is a delete.
    pub(super) fn text(&self) -> String {
        if self.deleted { "(deleted)".to_owned() } else { self.value.to_string() }
    }

    /// Returns where it was written, as far as that is known.
    pub(super) fn writer(&self) -> String {
        writer(self.region.as_deref(), &self.origin)
    }
}

impl Settlement {
    /// Returns who settled it.
    pub(super) fn writer(&self) -> String {
        writer(self.region.as_deref(), &self.origin)
    }
}

impl Time {
    /// Returns the time to the millisecond, in UTC; a text that is no time is shown as it is.
    pub(super) fn show(&self) -> String {
        let time = match self {
            Self::Micros(micros) => {
                OffsetDateTime::from_unix_timestamp_nanos(i128::from(*micros) * 1_000).ok()
            }
            Self::Text(text) => OffsetDateTime::parse(text, &Rfc3339).ok(),
        };
        match (time, self) {
            (Some(time), _) => readable(time.to_offset(time::UtcOffset::UTC)),
            (None, Self::Text(text)) => text.clone(),
            (None, Self::Micros(micros)) => micros.to_string(),
        }
    }
}

fn writer(region: Option<&str>, origin: &str) -> String {
    let short: String = origin.chars().take(8).collect();
    match region {
        Some(region) => format!("{region} ({short})"),
        None => format!("a client ({short})"),
    }
}

fn readable(time: OffsetDateTime) -> String {
    let (hour, minute, second, milli) = time.to_hms_milli();
    format!("{} {hour:02}:{minute:02}:{second:02}.{milli:03}Z", time.date())
}
