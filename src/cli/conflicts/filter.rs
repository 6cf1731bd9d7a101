//! Which conflicts a command means.

use std::time::Duration;

use anabranch_crdt::ids::{CollectionName, DocumentName, RegionName};
use serde_json::{Map, Value};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::row::State;
use crate::cli::Failure;

/// Which conflicts; what is not given is not asked for.
#[derive(Debug, Clone, Default, clap::Args)]
#[command(next_help_heading = "Which conflicts")]
pub(super) struct FilterArgs {
    #[command(flatten)]
    pub(super) live: LiveFilterArgs,

    /// Only with a value written at or after this time: RFC 3339, or so long ago, as 2h or 3d
    #[arg(long, value_name = "TIME", value_parser = when)]
    pub(super) since: Option<When>,

    /// Only with no value written after this time, in the same forms
    #[arg(long, value_name = "TIME", value_parser = when)]
    pub(super) until: Option<When>,
}

/// The part of a filter that can be followed live.
#[derive(Debug, Clone, Default, clap::Args)]
#[command(next_help_heading = "Which conflicts")]
pub(super) struct LiveFilterArgs {
    /// Only of this collection
    #[arg(long, value_name = "NAME")]
    pub(super) collection: Option<CollectionName>,

    /// Only of this document, as collection/key
    #[arg(long, value_name = "DOCUMENT")]
    pub(super) document: Option<DocumentName>,

    /// Only at this place in the document, or below it: a JSON pointer
    #[arg(long, value_name = "PATH", value_parser = pointer)]
    pub(super) path: Option<String>,

    /// Only of this kind
    #[arg(long, value_name = "KIND")]
    pub(super) kind: Option<Kind>,

    /// Only in this state
    #[arg(long, value_name = "STATE")]
    pub(super) state: Option<State>,

    /// Only where this region wrote one of the values
    #[arg(long, value_name = "REGION")]
    pub(super) region: Option<RegionName>,
}

/// What collided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Kind {
    /// Values, list elements among them
    Value,
    /// A delete, or the removal of the object around it, and a write
    Delete,
    /// Two objects, lists or texts that were created under one key
    Container,
    /// Values of different types
    Type,
    /// Increments and an overwrite, or two counters
    Counter,
    /// The delete of the document and an edit
    Document,
    /// Parts of what is policed as one value
    Whole,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Value => "value",
            Self::Delete => "delete",
            Self::Container => "container",
            Self::Type => "type",
            Self::Counter => "counter",
            Self::Document => "document",
            Self::Whole => "whole",
        }
    }
}

/// A time as people write it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cli) enum When {
    /// This instant.
    At(OffsetDateTime),
    /// So long before now.
    Ago(Duration),
}

impl When {
    /// Returns the instant as RFC 3339.
    ///
    /// # Errors
    /// `Usage` if there is no such time.
    pub(in crate::cli) fn rfc3339(self, now: OffsetDateTime) -> Result<String, Failure> {
        let time = match self {
            Self::At(time) => Some(time),
            Self::Ago(ago) => ago.try_into().ok().and_then(|ago| now.checked_sub(ago)),
        };
        let text = time.and_then(|time| time.format(&Rfc3339).ok());
        text.ok_or_else(|| Failure::Usage("this time is too long ago".to_owned()))
    }
}

impl LiveFilterArgs {
    /// Returns the parts of a query.
    pub(super) fn query(&self) -> Vec<(&'static str, Option<String>)> {
        vec![
            ("collection", self.collection.as_ref().map(ToString::to_string)),
            ("document", self.document.as_ref().map(ToString::to_string)),
            ("path", self.path.clone()),
            ("kind", self.kind.map(|kind| kind.name().to_owned())),
            ("state", self.state.map(|state| state.name().to_owned())),
            ("region", self.region.as_ref().map(ToString::to_string)),
        ]
    }
}

impl FilterArgs {
    /// Returns the parts of a query.
    ///
    /// # Errors
    /// `Usage` if a time cannot be written.
    pub(super) fn query(&self) -> Result<Vec<(&'static str, Option<String>)>, Failure> {
        let now = OffsetDateTime::now_utc();
        let time = |when: Option<When>| when.map(|when| when.rfc3339(now)).transpose();
        let mut query = self.live.query();
        query.extend([("since", time(self.since)?), ("until", time(self.until)?)]);
        Ok(query)
    }

    /// Returns the filter as the body of a request has it.
    ///
    /// # Errors
    /// `Usage` if a time cannot be written.
    pub(super) fn body(&self) -> Result<Map<String, Value>, Failure> {
        let given = self
            .query()?
            .into_iter()
            .filter_map(|(name, value)| value.map(|value| (name.to_owned(), Value::from(value))));
        Ok(given.collect())
    }
}

/// Reads a time, or how long ago it was.
pub(in crate::cli) fn when(text: &str) -> Result<When, String> {
    if let Ok(time) = OffsetDateTime::parse(text, &Rfc3339) {
        return Ok(When::At(time));
    }
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let seconds = match unit {
        "s" => Some(1),
        "min" | "m" => Some(60),
        "h" => Some(60 * 60),
        "d" => Some(24 * 60 * 60),
        "w" => Some(7 * 24 * 60 * 60),
        _ => None,
    };
    let seconds = number.parse::<u64>().ok().zip(seconds);
    seconds.and_then(|(number, unit)| number.checked_mul(unit)).map_or_else(
        || {
            Err("write it like 2026-03-01T10:15:30Z, or how long ago: 90s, 30min, 2h, 3d, 1w"
                .to_owned())
        },
        |seconds| Ok(When::Ago(Duration::from_secs(seconds))),
    )
}

fn pointer(text: &str) -> Result<String, String> {
    if text.is_empty() || text.starts_with('/') {
        return Ok(text.to_owned());
    }
    Err(format!("a JSON pointer starts with a slash: /{text}"))
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use serde_json::json;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        filter: FilterArgs,
    }

    fn parse(line: &str) -> Result<FilterArgs, clap::Error> {
        let words = std::iter::once("x").chain(line.split_whitespace());
        Line::try_parse_from(words).map(|line| line.filter)
    }

    #[test]
    fn a_filter_asks_only_for_what_was_given() {
        let filter = parse("--collection c --path /a --state open --kind type").unwrap();
        let body = Value::Object(filter.body().unwrap());
        assert_eq!(body, json!({"collection": "c", "path": "/a", "state": "open", "kind": "type"}));
        assert!(parse("").unwrap().body().unwrap().is_empty());
        for (line, part) in
            [("--path a", "starts with a slash"), ("--since now", "2h, 3d"), ("--kind x", "whole")]
        {
            let error = parse(line).unwrap_err().to_string();
            assert!(error.contains(part), "{line}: {error}");
        }
    }

    #[test]
    fn times_are_instants_or_how_long_ago() {
        let now = OffsetDateTime::from_unix_timestamp(1_772_360_130).unwrap();
        let text = |text: &str| when(text).unwrap().rfc3339(now);
        for (given, expected) in [
            ("2026-01-02T03:04:05.5Z", "2026-01-02T03:04:05.5Z"),
            ("30s", "2026-03-01T10:15:00Z"),
            ("2h", "2026-03-01T08:15:30Z"),
            ("3d", "2026-02-26T10:15:30Z"),
            ("1w", "2026-02-22T10:15:30Z"),
        ] {
            assert_eq!(text(given).as_deref(), Ok(expected), "{given}");
        }
        for bad in ["", "2", "h", "-1h", "1.5h", "99999999999999999999d", "2026-01-02"] {
            assert!(when(bad).is_err(), "{bad}");
        }
        assert!(text("99999999999d").is_err(), "before all calendars");
    }
}
