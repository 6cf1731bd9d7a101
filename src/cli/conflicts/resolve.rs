//! `anabranch conflicts resolve`: one conflict, or all that match a filter.

use serde_json::{Value, json};

use super::bulk;
use super::decision::{self, DecisionArgs, Target, TargetArgs};
use super::ledger::{Act, Policy};
use super::row::Row;
use crate::cli::Failure;

/// Settles one conflict, or all that match, in every region
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  anabranch conflicts resolve 3f2a --take 2 --note 'as the census says'
  anabranch conflicts resolve 3f2a --value '{\"name\": \"Paris\"}'
  anabranch conflicts resolve 3f2a --merge
  anabranch conflicts resolve --all-matching --collection cities --take latest --dry-run
  anabranch conflicts resolve --all-matching --path /mayor --take region:eu-west

A side is named by its number in `conflicts show`, its id, or the beginning of that; for all that
match it is latest, earliest, winner or region:NAME. A conflict that has changed since it was read
is left alone, and what changed is said (exit code 1).")]
pub(super) struct ResolveArgs {
    #[command(flatten)]
    target: TargetArgs,

    #[command(flatten)]
    choice: Choice,

    #[command(flatten)]
    decision: DecisionArgs,
}

#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
#[command(next_help_heading = "Which value")]
struct Choice {
    /// Take this side
    #[arg(long, value_name = "SIDE")]
    take: Option<String>,

    /// Write this value instead
    #[arg(long, value_name = "JSON", value_parser = json_value)]
    value: Option<Value>,

    /// Remove what is there
    #[arg(long)]
    delete: bool,

    /// Merge the sides: objects key by key, text by three-way merge
    #[arg(long)]
    merge: bool,

    /// Let this policy decide, this time
    #[arg(long, value_name = "POLICY")]
    policy: Option<Policy>,
}

impl Choice {
    /// Returns what to do about a conflict.
    fn act(self, row: &Row) -> Result<Act, Failure> {
        match self.take {
            Some(side) => Ok(Act::Take(row.candidate(&side)?.to_owned())),
            None => Ok(self.without_side()),
        }
    }

    fn without_side(self) -> Act {
        match (self.value, self.policy) {
            (Some(value), _) => Act::Value(value),
            (None, Some(policy)) => Act::Policy(policy),
            (None, None) if self.delete => Act::Delete,
            (None, None) => Act::Merge,
        }
    }

    /// Returns what to do about all that match, as the body of a request has it.
    fn body(self) -> Result<Value, Failure> {
        let Some(side) = self.take else { return Ok(self.without_side().body()) };
        let is_region = side.strip_prefix("region:").is_some_and(|name| !name.is_empty());
        if is_region || matches!(side.as_str(), "latest" | "earliest" | "winner") {
            return Ok(json!({ "take": side }));
        }
        Err(Failure::Usage(format!(
            "--take {side} means a side of one conflict; for all that match it is latest, \
             earliest, winner or region:NAME"
        )))
    }
}

/// Runs the command.
pub(super) async fn run(args: ResolveArgs) -> Result<(), Failure> {
    let ResolveArgs { target, choice, decision } = args;
    match target.target()? {
        Target::One(one) => decision::one(one, |row| choice.act(row), decision).await,
        Target::Matching(matching) => {
            let body = choice.body()?;
            bulk::run(matching, bulk::Verb::Resolve, body, decision).await
        }
    }
}

/// Reads a JSON value.
pub(super) fn json_value(text: &str) -> Result<Value, String> {
    serde_json::from_str(text)
        .map_err(|error| format!("{error} (a string needs its double quotes: '\"text\"')"))
}
