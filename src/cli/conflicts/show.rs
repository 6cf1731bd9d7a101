//! `anabranch conflicts show`: one conflict, with base, sides and result next to each other.

use super::ledger;
use super::row::{Candidate, Later, Row, State};
use crate::cli::Failure;
use crate::cli::http::NodeArgs;
use crate::cli::output::{Format, print, print_json, printable, render_table, terminal_width};
use crate::cli::panes::{Pane, side_by_side, value_lines, wrap};
use crate::cli::reading::ReadingArgs;

/// Shows one conflict: base, sides and result next to each other, and who did what
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  anabranch conflicts show 3f2a
  anabranch conflicts show 3f2a9c1b7d4e4f0a8b6c5d2e1f009a8b -o json
  anabranch conflicts show 3f2a -o json | jq '.candidates[].value'")]
pub(super) struct ShowArgs {
    /// The conflict's id, or the beginning of it
    #[arg(value_name = "CONFLICT")]
    id: String,

    /// How to print
    #[arg(short, long, default_value = "table", value_name = "FORMAT")]
    output: Format,

    #[command(flatten)]
    reading: ReadingArgs,

    #[command(flatten)]
    node: NodeArgs,
}

/// Runs the command.
pub(super) async fn run(args: ShowArgs) -> Result<(), Failure> {
    let mut client = args.reading.client(&args.node)?;
    let value = ledger::find(&mut client, &args.id).await?;
    if args.output == Format::Json {
        return print_json(&value);
    }
    let mut row = Row::read(value)?;
    ledger::look_up_result(&mut client, &mut row).await?;
    print(page(&row, terminal_width()))
}

/// Lays out everything that is known about one conflict.
fn page(row: &Row, width: Option<u16>) -> String {
    let width = width.unwrap_or(DEFAULT_WIDTH);
    let mut parts = vec![facts(row, width), side_by_side(&panes(row, width), usize::from(width))];
    if !row.past().is_empty() {
        let acts = row.past().iter().map(|act| format!("- {}", printable(&act.sentence())));
        let lines: Vec<String> = acts.flat_map(|act| wrap(&act, usize::from(width))).collect();
        parts.push(lines.join("\n"));
    }
    parts.push(next(row));
    parts.join("\n\n").trim_end().to_owned()
}

fn facts(row: &Row, width: u16) -> String {
    let policy = match &row.policy_version {
        Some(version) => format!("{} (settings {version})", row.policy),
        None => row.policy.clone(),
    };
    let facts = [
        ("conflict", row.id.clone()),
        ("document", row.document_name()),
        ("path", row.place()),
        ("kind", row.kind.clone()),
        ("policy", policy),
        ("state", row.state.name().to_owned()),
        ("why", row.why.clone().unwrap_or_else(|| "-".to_owned())),
    ];
    let facts = facts.map(|(name, value)| vec![name.to_owned(), printable(&value)]);
    render_table(&[], facts.to_vec(), Some(width))
}

/// Returns base, sides and result.
fn panes(row: &Row, width: u16) -> Vec<Pane> {
    let mut panes = vec![Pane { title: "BASE".to_owned(), lines: base(row, width) }];
    for (index, candidate) in row.candidates.iter().enumerate() {
        let mark = if row.winner_index() == Some(index) { " *" } else { "" };
        let mut lines = caption(candidate);
        lines.push(String::new());
        lines.extend(value(candidate, width));
        panes.push(Pane { title: format!("SIDE {}{mark}", index + 1), lines });
    }
    panes.push(Pane { title: "RESULT".to_owned(), lines: result(row, width) });
    panes
}

fn base(row: &Row, width: u16) -> Vec<String> {
    match &row.base {
        None => vec!["(nothing was there)".to_owned()],
        Some(base) => value_lines(&base.value, usize::from(width), VALUE_LINES),
    }
}

/// Returns who wrote a side, and when.
pub(super) fn caption(candidate: &Candidate) -> Vec<String> {
    let (date, clock) = candidate.at.date_and_clock();
    vec![printable(&candidate.writer()), printable(&date), printable(&clock)]
}

fn value(candidate: &Candidate, width: u16) -> Vec<String> {
    if candidate.deleted {
        return vec!["(deleted)".to_owned()];
    }
    value_lines(&candidate.value, usize::from(width), VALUE_LINES)
}

fn result(row: &Row, width: u16) -> Vec<String> {
    let mut lines = vec![row.state.name().to_owned()];
    let blank = [String::new(), String::new()];
    match (row.winner_index(), row.winner(), &row.later) {
        (Some(index), Some(winner), _) => {
            lines.push(format!("side {} shows", index + 1));
            lines.extend(blank);
            lines.extend(value(winner, width));
        }
        (_, _, Some(Later::Value(value))) => {
            lines.push("what is there now".to_owned());
            lines.extend(blank);
            lines.extend(value_lines(value, usize::from(width), VALUE_LINES));
        }
        (_, _, Some(Later::Nothing)) => lines.push("nothing is there now".to_owned()),
        (_, _, None) if row.is_merged() => lines.push("all sides show, merged".to_owned()),
        (_, _, None) => lines.push("a later value shows".to_owned()),
    }
    lines
}

/// Says what to type next.
fn next(row: &Row) -> String {
    let id = row.short_id();
    let commands: &[(&str, &str)] = match row.state {
        State::Open => &[
            ("resolve ID --take NUMBER", "take a side"),
            ("resolve ID --value JSON", "write another value"),
            ("dismiss ID", "leave it as it is"),
            ("explain ID", "what happened, in words"),
        ],
        State::AutoResolved => {
            &[("resolve ID --take NUMBER", "take another side"), ("explain ID", "why this one won")]
        }
        State::Resolved => {
            &[("undo ID", "put back what showed"), ("explain ID", "what happened, in words")]
        }
        State::Dismissed => &[("reopen ID", "ask for a decision")],
    };
    let lines = commands.iter().map(|(command, what)| {
        let command = format!("anabranch conflicts {}", command.replace("ID", &id));
        format!("  {command:<53}{what}")
    });
    let mut text = vec!["Next:".to_owned()];
    text.extend(lines);
    let json = "Long values are cut here; -o json has all of them.";
    if is_cut(row) {
        text.push(json.to_owned());
    }
    text.join("\n")
}

fn is_cut(row: &Row) -> bool {
    let long = |value: &serde_json::Value| format!("{value:#}").lines().count() > VALUE_LINES;
    row.candidates.iter().any(|candidate| long(&candidate.value) || candidate.text().len() > 200)
        || row.base.as_ref().is_some_and(|base| long(&base.value))
}

/// Where stdout is no terminal.
const DEFAULT_WIDTH: u16 = 80;

/// Lines of a value that are shown.
const VALUE_LINES: usize = 24;

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::samples::{act, check_width, row};
    use super::*;

    #[test]
    fn base_sides_and_result_stand_next_to_each_other() {
        let text = page(&row(|_| {}), Some(80));
        check_width(&text, 80);
        let expected = "\
conflict  3f2a9c1b7d4e4f0a8b6c5d2e1f009a8b
document  cities/paris
path      /population
kind      value
policy    auto (settings default)
state     open
why       the greatest operation id shows until someone decides

BASE              │ SIDE 1            │ SIDE 2 *          │ RESULT
2100000           │ us-east           │ alice in eu-west  │ open
                  │ (5d0c1122)        │ 2026-03-01        │ side 2 shows
                  │ 2026-03-01        │ 10:15:30.124Z     │
                  │ 10:15:30.123Z     │                   │
                  │                   │ 2099000           │ 2099000
                  │ 2102650           │                   │

Next:
  anabranch conflicts resolve 3f2a9c1b --take NUMBER   take a side
  anabranch conflicts resolve 3f2a9c1b --value JSON    write another value
  anabranch conflicts dismiss 3f2a9c1b                 leave it as it is
  anabranch conflicts explain 3f2a9c1b                 what happened, in words";
        assert_eq!(text, expected);
    }

    #[test]
    fn show_says_how_a_conflict_ended() {
        let text = page(
            &row(|v| {
                v["state"] = json!("resolved");
                v["winner"] = Value::Null;
                v["acts"] = json!([act("resolve", Some("census\u{1b}[2J"))]);
            }),
            Some(80),
        );
        check_width(&text, 80);
        assert!(text.contains("a later value"), "{text}");
        let mut row = super::super::samples::row(|v| v["winner"] = Value::Null);
        row.later = Some(Later::Value(json!({"n": 7})));
        let text_now = page(&row, Some(80));
        assert!(text_now.contains("│ what is there now\n"), "{text_now}");
        assert!(text_now.contains("│   \"n\": 7\n"), "{text_now}");
        let act = "- resolved by ben in ap-south at 2026-03-01 10:16:30.000Z: census\\u{1b}[2J\n";
        assert!(text.contains(act), "{text}");
        assert!(text.contains("conflicts undo 3f2a9c1b"), "{text}");
    }

    #[test]
    fn many_sides_and_long_values_stay_inside_every_width() {
        let many = row(|v| {
            let side = v["candidates"][0].clone();
            for n in 0..5 {
                v["candidates"].as_array_mut().unwrap().push(side.clone());
                v["candidates"][n]["value"] = json!({"text": "word ".repeat(400), "n": [n, n]});
            }
            v["base"] = Value::Null;
            v["document"] = json!(format!("cities/{}", "long-".repeat(30)));
            v["why"] = json!("because ".repeat(30));
        });
        for width in [60, 80, 120, 200] {
            let text = page(&many, Some(width));
            let panes: String = text.lines().filter(|line| line.contains('│')).collect();
            assert!(panes.contains("SIDE 5"), "{text}");
            check_width(&text, usize::from(width).max(80));
        }
        let text = page(&many, Some(80));
        check_width(&text, 80);
        assert!(text.contains("(nothing was"), "{text}");
        assert!(text.ends_with("-o json has all of them."), "{text}");
    }
}
