//! `anabranch conflicts explain`: one conflict in plain sentences.

use super::ledger;
use super::row::{Candidate, Row, State};
use crate::cli::Failure;
use crate::cli::http::{Client, NodeArgs};
use crate::cli::output::{Format, print, print_json, printable, shorten, terminal_width};
use crate::cli::panes::wrap;

/// Tells what happened, why which value won, what others see, and what can be done
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  anabranch conflicts explain 3f2a
  anabranch conflicts explain 3f2a -o json | jq -r '.sentences[]'")]
pub(super) struct ExplainArgs {
    /// The conflict's id, or the beginning of it
    #[arg(value_name = "CONFLICT")]
    id: String,

    /// How to print
    #[arg(short, long, default_value = "table", value_name = "FORMAT")]
    output: Format,

    #[command(flatten)]
    node: NodeArgs,
}

/// Runs the command.
pub(super) async fn run(args: ExplainArgs) -> Result<(), Failure> {
    let mut client = Client::new(&args.node);
    let mut row = Row::read(ledger::find(&mut client, &args.id).await?)?;
    ledger::look_up_result(&mut client, &mut row).await?;
    let paragraphs = paragraphs(&row);
    match args.output {
        Format::Json => print_json(&serde_json::json!({
            "id": row.id,
            "sentences": paragraphs.concat(),
        })),
        Format::Table => {
            let width = terminal_width().map_or(DEFAULT_WIDTH, usize::from);
            print(lay_out(&paragraphs, width))
        }
    }
}

fn lay_out(paragraphs: &[Vec<String>], width: usize) -> String {
    let paragraph = |sentences: &Vec<String>| {
        let lines = sentences.iter().flat_map(|sentence| wrap(&printable(sentence), width));
        lines.collect::<Vec<_>>().join("\n")
    };
    paragraphs.iter().map(paragraph).collect::<Vec<_>>().join("\n\n")
}

/// Returns what happened, what was decided, what others see, and what can be done.
fn paragraphs(row: &Row) -> Vec<Vec<String>> {
    vec![happened(row), decided(row), seen(row), can_be_done(row)]
}

/// What happened, in the order of time.
fn happened(row: &Row) -> Vec<String> {
    let place = if row.path.is_empty() { String::new() } else { format!("{} of ", row.path) };
    let mut sentences = vec![format!("{place}{}: {}.", row.document_name(), collision(row))];
    sentences.push(match &row.base {
        None => "Before that, nothing was there.".to_owned(),
        Some(base) => format!("Before that, it was {}.", short(&base.value.to_string())),
    });
    let mut sides: Vec<(usize, &Candidate)> = (1..).zip(&row.candidates).collect();
    sides.sort_by_key(|(_, side)| side.at.parsed());
    sentences.extend(sides.iter().map(|(number, side)| {
        let what = if side.deleted { "deleted it".to_owned() } else { wrote(side) };
        format!("- {}: {} {what} (side {number}).", side.at.show(), side.writer())
    }));
    sentences.push("None of these writers had seen what the others wrote.".to_owned());
    sentences
}

fn wrote(side: &Candidate) -> String {
    format!("wrote {}", short(&side.value.to_string()))
}

/// Says what kind of collision it is.
fn collision(row: &Row) -> String {
    match row.kind.as_str() {
        "value" => "different values were written at the same time".to_owned(),
        "delete" => "it was deleted while somebody else wrote it".to_owned(),
        "container" => "two objects, lists or texts were created under one key".to_owned(),
        "type" => "values of different types were written at the same time".to_owned(),
        "counter" => "a counter was incremented while somebody else overwrote it".to_owned(),
        "document" => "the document was deleted while somebody else edited it".to_owned(),
        "whole" => "parts of what counts as one value were written at the same time".to_owned(),
        other => format!("a conflict of kind {other}"),
    }
}

/// What the policy did, and what people did after it.
fn decided(row: &Row) -> Vec<String> {
    let mut sentences = vec![format!("{}.", policy(row))];
    if let Some(why) = &row.why {
        sentences.push(format!("In the words of the store: {why}."));
    }
    sentences.extend(row.past().iter().map(|act| format!("- It was {}.", act.sentence())));
    sentences
}

fn policy(row: &Row) -> String {
    let rule = match row.policy.as_str() {
        "auto" => "merges what can be merged, and otherwise keeps every value and shows one",
        "lww" => "takes the value that was written last",
        "first" => "takes the value that was written first",
        "max" => "takes the greatest value",
        "min" => "takes the least value",
        "manual" => "leaves the choice to people",
        "region-priority" => "takes the value of the region that comes first in the settings",
        _ => "is one that this program does not know",
    };
    let version = match row.policy_version.as_deref() {
        None | Some("default") => "the default".to_owned(),
        Some(version) => format!("settings {version}"),
    };
    format!("The policy of this place, {} ({version}), {rule}", row.policy)
}

/// What the API and stock Automerge clients see.
fn seen(row: &Row) -> Vec<String> {
    let shows = match (row.winner_index(), row.winner()) {
        (Some(index), Some(winner)) => {
            format!("Side {} shows: {}.", index + 1, short(&winner.text()))
        }
        (_, _) if row.is_merged() && row.later.is_some() => {
            format!("All sides show, merged: {}.", short(&row.shown()))
        }
        (_, _) if row.is_merged() => "All sides show, merged.".to_owned(),
        (_, _) if row.later.is_some() => {
            format!("What shows was written later than all sides: {}.", short(&row.shown()))
        }
        (_, _) => "What shows was written later than all sides.".to_owned(),
    };
    let stock = match row.state {
        State::Open | State::Dismissed => {
            "Stock Automerge clients see the value that Automerge picks, and all others among the \
             conflicts of that key; that changes when somebody decides."
        }
        State::AutoResolved => {
            "Stock Automerge clients see the same value as soon as a leader has written the \
             policy's choice into the document."
        }
        State::Resolved => {
            "Stock Automerge clients see the same value: it was written as an ordinary change."
        }
    };
    vec![shows, stock.to_owned()]
}

/// What to type next.
fn can_be_done(row: &Row) -> Vec<String> {
    let id = row.short_id();
    let commands: &[&str] = match row.state {
        State::Open => &["show ID", "resolve ID --take NUMBER", "resolve ID --merge", "dismiss ID"],
        State::AutoResolved => &["show ID", "resolve ID --take NUMBER", "reopen ID"],
        State::Resolved => &["show ID", "undo ID", "reopen ID"],
        State::Dismissed => &["show ID", "reopen ID"],
    };
    let mut lines = vec!["What you can do:".to_owned()];
    let command = |command: &&str| format!("  anabranch conflicts {}", command.replace("ID", &id));
    lines.extend(commands.iter().map(command));
    if let Some(document) = &row.document {
        lines.push(format!("  anabranch doc history '{document}'"));
    }
    lines
}

fn short(text: &str) -> String {
    shorten(text, VALUE)
}

/// Where stdout is no terminal.
const DEFAULT_WIDTH: usize = 80;

/// Characters of a value in a sentence.
const VALUE: usize = 300;

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::samples::{act, check_width, row};
    use super::*;

    #[test]
    fn an_open_conflict_is_told_in_the_order_of_time() {
        let late_first = row(|v| {
            let sides = v["candidates"].as_array_mut().unwrap();
            sides.reverse();
        });
        let text = lay_out(&paragraphs(&late_first), 80);
        check_width(&text, 80);
        let expected = "\
/population of cities/paris: different values were written at the same time.
Before that, it was 2100000.
- 2026-03-01 10:15:30.123Z: us-east (5d0c1122) wrote 2102650 (side 2).
- 2026-03-01 10:15:30.124Z: alice in eu-west wrote 2099000 (side 1).
None of these writers had seen what the others wrote.

The policy of this place, auto (the default), merges what can be merged, and
otherwise keeps every value and shows one.
In the words of the store: the greatest operation id shows until someone
decides.

Side 1 shows: 2099000.
Stock Automerge clients see the value that Automerge picks, and all others among
the conflicts of that key; that changes when somebody decides.

What you can do:
  anabranch conflicts show 3f2a9c1b
  anabranch conflicts resolve 3f2a9c1b --take NUMBER
  anabranch conflicts resolve 3f2a9c1b --merge
  anabranch conflicts dismiss 3f2a9c1b
  anabranch doc history 'cities/paris'";
        assert_eq!(text, expected);
    }

    #[test]
    fn deletes_acts_and_unknown_words_are_told_safely() {
        let text = lay_out(
            &paragraphs(&row(|v| {
                v["base"] = Value::Null;
                v["kind"] = json!("delete");
                v["policy"] = json!("lww");
                v["policy_version"] = json!("00000000000000b7");
                v["state"] = json!("resolved");
                v["winner"] = Value::Null;
                v["candidates"][0]["deleted"] = json!(true);
                v["acts"] = json!([act("resolve", Some("\u{1b}[2J"))]);
            })),
            80,
        );
        check_width(&text, 80);
        for part in [
            "it was deleted while somebody else wrote it",
            "nothing was there",
            "us-east (5d0c1122) deleted it (side 1)",
            "lww (settings 00000000000000b7), takes the value",
            "- It was resolved by ben in ap-south at 2026-03-01 10:16:30.000Z: \\u{1b}[2J.",
            "written later than all sides",
            "anabranch conflicts undo 3f2a9c1b",
        ] {
            assert!(text.contains(part), "{part} in\n{text}");
        }
    }
}
