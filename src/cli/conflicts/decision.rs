//! What all decisions about conflicts have in common: which conflicts, who decides, and what is
//! said when somebody else was faster.

use super::filter::FilterArgs;
use super::ledger::{self, Act, Outcome};
use super::row::Row;
use crate::cli::Failure;
use crate::cli::http::{Client, NodeArgs};
use crate::cli::output::{Format, note, print_json, printable};
use crate::cli::writing::WritingArgs;

/// One conflict, or all that match.
#[derive(Debug, clap::Args)]
pub(super) struct TargetArgs {
    /// The conflict's id, or the beginning of it
    #[arg(
        value_name = "CONFLICT",
        required_unless_present = "all_matching",
        conflicts_with = "all_matching"
    )]
    id: Option<String>,

    /// Only if the conflict still has this revision (`show -o json`)
    #[arg(long, value_name = "REVISION", conflicts_with = "all_matching")]
    if_match: Option<String>,

    /// All conflicts that match the filter, instead of one; the open ones, if it has no state
    #[arg(long)]
    all_matching: bool,

    /// Say what would be done, and do nothing
    #[arg(long, requires = "all_matching")]
    dry_run: bool,

    /// At most so many of those that match
    #[arg(long, value_name = "N", requires = "all_matching",
        value_parser = clap::value_parser!(u64).range(1..=100_000))]
    limit: Option<u64>,

    #[command(flatten)]
    filter: FilterArgs,
}

/// What is to be decided.
#[derive(Debug)]
pub(super) enum Target {
    One(OneArgs),
    Matching(Matching),
}

/// One conflict.
#[derive(Debug, clap::Args)]
pub(super) struct OneArgs {
    /// The conflict's id, or the beginning of it
    #[arg(value_name = "CONFLICT")]
    pub(super) id: String,

    /// Only if the conflict still has this revision (`show -o json`)
    #[arg(long, value_name = "REVISION")]
    pub(super) if_match: Option<String>,
}

/// All conflicts that match.
#[derive(Debug)]
pub(super) struct Matching {
    pub(super) filter: FilterArgs,
    pub(super) dry_run: bool,
    pub(super) limit: Option<u64>,
}

impl TargetArgs {
    /// Returns what is meant.
    ///
    /// # Errors
    /// `Usage` if one conflict is named and a filter is given as well, or neither.
    pub(super) fn target(self) -> Result<Target, Failure> {
        let Self { id, if_match, all_matching: _, dry_run, limit, filter } = self;
        let has_filter = !filter.body()?.is_empty();
        match id {
            Some(_) if has_filter => Err(Failure::Usage(
                "a filter means more than one conflict: it goes with --all-matching".to_owned(),
            )),
            Some(id) => Ok(Target::One(OneArgs { id, if_match })),
            None if has_filter => Ok(Target::Matching(Matching { filter, dry_run, limit })),
            None => Err(Failure::Usage(
                "--all-matching needs a filter, such as --collection NAME, or --state open for \
                 every open conflict there is"
                    .to_owned(),
            )),
        }
    }
}

/// Who decides and why, and where.
#[derive(Debug, clap::Args)]
pub(super) struct DecisionArgs {
    /// Why, for those who read the ledger later
    #[arg(long, value_name = "TEXT")]
    pub(super) note: Option<String>,

    #[command(flatten)]
    pub(super) writing: WritingArgs,

    /// How to print; json prints the conflict as it is then, or one object per line
    #[arg(short, long, default_value = "table", value_name = "FORMAT")]
    pub(super) output: Format,

    #[command(flatten)]
    pub(super) node: NodeArgs,
}

/// Decides about one conflict as it is now.
///
/// # Errors
/// It has changed meanwhile or is settled already, the choice does not fit, or what the node said.
pub(super) async fn one(
    target: OneArgs,
    choose: impl FnOnce(&Row) -> Result<Act, Failure>,
    args: DecisionArgs,
) -> Result<(), Failure> {
    let DecisionArgs { note: why, writing, output, node } = args;
    let mut client = Client::new(&node);
    let row = Row::read(ledger::find(&mut client, &target.id).await?)?;
    let act = choose(&row)?;
    let mut meant = row.clone();
    if let Some(revision) = target.if_match {
        meant.revision = Some(revision.trim_matches('"').to_owned());
    }
    let writing = writing.or_account();
    match ledger::act(&mut client, &meant, &act, why.as_deref(), &writing).await? {
        Outcome::Done(now) => {
            let place = format!("{} of {}", row.place(), row.document_name());
            note(format!("{} {}", act.done(), printable(&place)));
            if output == Format::Json {
                print_json(&now)?;
            }
            client.far_enough()
        }
        Outcome::Changed(now) => Err(Failure::General(changed(&row, &now))),
        Outcome::Settled(now) => Err(Failure::General(settled(&now))),
        Outcome::Refused(failure) => Err(failure),
    }
}

/// Says what changed since a conflict was read.
fn changed(row: &Row, now: &Row) -> String {
    let mut lines =
        vec!["the conflict has changed since it was read (conflict_changed):".to_owned()];
    let changes = if row.revision == now.revision {
        // It was read after the change: only the revision that was asked for is older.
        vec![format!("its revision is {}", now.revision.as_deref().unwrap_or("unknown"))]
    } else {
        row.changes_to(now)
    };
    lines.extend(changes.iter().map(|change| format!("  {}", printable(change))));
    lines.push(format!("look again: anabranch conflicts show {}", now.short_id()));
    lines.join("\n")
}

/// Says who settled a conflict before.
fn settled(now: &Row) -> String {
    let by = now.past().last().map(|act| printable(&act.sentence()));
    let by = by.unwrap_or_else(|| now.state.name().to_owned());
    let what = printable(&now.shown());
    let id = now.short_id();
    format!(
        "already {by} (already_{})\n  what shows: {what}\n  to decide again: anabranch conflicts \
         reopen {id}",
        now.state.name()
    )
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::samples::{act, row};
    use super::*;

    fn settled_row() -> Row {
        row(|v| {
            v["state"] = json!("resolved");
            v["revision"] = json!("00000000000000a2");
            v["winner"] = Value::Null;
            v["settled"] = act("resolve", Some("census"));
            v["acts"] = json!([act("resolve", Some("census"))]);
        })
    }

    #[test]
    fn the_second_resolver_sees_what_the_first_did() {
        assert_eq!(
            settled(&settled_row()),
            "already resolved by ben in ap-south at 2026-03-01 10:16:30.000Z: census \
             (already_resolved)\n  what shows: a later value\n  to decide again: anabranch \
             conflicts reopen 3f2a9c1b"
        );
    }

    #[test]
    fn what_changed_meanwhile_is_said() {
        let text = changed(&row(|_| {}), &settled_row());
        assert!(text.contains("\n  the state is resolved (was open)\n"), "{text}");
        assert!(text.ends_with("look again: anabranch conflicts show 3f2a9c1b"), "{text}");
        let text = changed(&settled_row(), &settled_row());
        assert!(text.contains("\n  its revision is 00000000000000a2\n"), "{text}");
    }
}
