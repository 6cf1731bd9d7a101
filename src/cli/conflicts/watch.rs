//! `anabranch conflicts watch`: every change of the ledger, as it happens.

use super::filter::LiveFilterArgs;
use super::row::Row;
use super::stream::{self, Event, Subscription};
use crate::cli::Failure;
use crate::cli::http::NodeArgs;
use crate::cli::output::{Format, note, print, printable, terminal_width};
use crate::cli::panes::fit;

/// Follows the ledger: a line for every conflict that appears or changes
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  anabranch conflicts watch
  anabranch conflicts watch --collection cities --state open
  anabranch conflicts watch -o json | jq -r '.conflict.document'

It runs until Ctrl-C (exit code 130), and reconnects by itself. What changed while there was no
connection is not told: `anabranch conflicts list --since 5min` shows it.")]
pub(super) struct WatchArgs {
    #[command(flatten)]
    filter: LiveFilterArgs,

    /// How to print; json is one object per line
    #[arg(short, long, default_value = "table", value_name = "FORMAT")]
    output: Format,

    #[command(flatten)]
    node: NodeArgs,
}

/// Runs the command.
pub(super) async fn run(args: WatchArgs) -> Result<(), Failure> {
    let mut subscription = Subscription::new(&args.node, &args.filter);
    // The first connection must succeed: an address that is wrong never will.
    subscription.connect().await?;
    note(format!("watching the conflicts of {}", args.node.url));
    loop {
        let failure = follow(&mut subscription, args.output).await?;
        note(format!("the connection is lost: {failure}"));
        note("reconnecting");
        let mut wait = stream::FIRST_WAIT;
        // A node that ends every stream at once must not be asked as fast as it answers.
        tokio::time::sleep(wait).await;
        while let Err(failure) = subscription.connect().await {
            if !matches!(failure, Failure::Unreachable(_)) {
                return Err(failure);
            }
            tokio::time::sleep(wait).await;
            wait = stream::next_wait(wait);
        }
        note("connected again; `anabranch conflicts list --since 5min` shows what was missed");
    }
}

/// Prints events until the connection is lost, and returns why it was.
async fn follow(subscription: &mut Subscription, output: Format) -> Result<Failure, Failure> {
    loop {
        let line = match subscription.next().await {
            Ok(line) => line,
            Err(failure) => return Ok(failure),
        };
        let event = match stream::read(&line) {
            Ok(event) => event,
            Err(failure @ Failure::Unreachable(_)) => return Ok(failure),
            Err(failure) => return Err(failure),
        };
        match output {
            Format::Json if event == Event::Heartbeat => {}
            Format::Json => print(&line)?,
            Format::Table => {
                let width = terminal_width().map_or(usize::MAX, usize::from);
                if let Some(text) = text(&event) {
                    print(fit(&text, width))?;
                }
            }
        }
        if event == Event::Lagged {
            note("too slow for the node, and some events are missing: list again");
        }
    }
}

/// Writes an event on one line.
fn text(event: &Event) -> Option<String> {
    let row = match event {
        Event::Conflict(row) => row,
        Event::Removed(id) => return Some(format!("{id:.8}  removed")),
        Event::Lagged | Event::Heartbeat => return None,
    };
    let (what, by) = match row.past().last() {
        Some(act) => (act.verb().to_owned(), act.writer()),
        None => (row.state.name().to_owned(), sides(row)),
    };
    let text = format!(
        "{}  {what:<13}  {} {}  {}  {by}",
        row.short_id(),
        row.document_name(),
        row.place(),
        row.shown()
    );
    Some(printable(&text))
}

/// Names the regions that wrote the sides.
fn sides(row: &Row) -> String {
    let regions = row.candidates.iter().map(|side| side.region.as_deref().unwrap_or("a client"));
    regions.collect::<Vec<_>>().join(" | ")
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::samples::{act, row};
    use super::*;

    #[test]
    fn an_event_is_one_line() {
        let open = text(&Event::Conflict(Box::new(row(|_| {}))));
        let expected =
            "3f2a9c1b  open           cities/paris /population  2099000  us-east | eu-west";
        assert_eq!(open.as_deref(), Some(expected));
        let settled = row(|v| {
            v["state"] = json!("resolved");
            v["winner"] = Value::Null;
            v["document"] = json!("cities/\u{1b}[2J");
            v["acts"] = json!([act("resolve", None)]);
        });
        assert_eq!(
            text(&Event::Conflict(Box::new(settled))).as_deref(),
            Some(
                "3f2a9c1b  resolved       cities/\\u{1b}[2J /population  a later value  \
                 ben in ap-south"
            )
        );
        let removed = Event::Removed("3f2a9c1b7d4e4f0a8b6c5d2e1f009a8b".to_owned());
        assert_eq!(text(&removed).as_deref(), Some("3f2a9c1b  removed"));
        assert_eq!(text(&Event::Heartbeat), None);
    }
}
