//! `anabranch verify`: compares the documents of a node with those of the other regions, now.

use std::collections::BTreeMap;

use hyper::Method;
use serde::Deserialize;
use serde_json::{Value, json};

use super::http::{Call, Client, Lines, NodeArgs};
use super::output::{Format, note, print, print_table, printable, thousands};
use crate::cli::Failure;

/// Proves that replicas are equal, or finds and repairs what is not
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct VerifyArgs {
    /// Give both replicas what they lack where one is broken
    #[arg(long)]
    repair: bool,

    /// Compare with this region only
    #[arg(long, value_name = "REGION")]
    peer: Option<String>,

    /// How to print
    #[arg(short, long, default_value = "table", value_name = "FORMAT")]
    output: Format,

    #[command(flatten)]
    node: NodeArgs,
}

const EXAMPLES: &str = "\
Examples:
  anabranch verify
  anabranch verify --peer us-east --repair
  anabranch verify -o json | jq 'select(.broken > 0)'

A document is broken where a replica lacks a change although it has been told that it has it. What
is merely on its way is looked at again, and counted as in flight if it keeps changing.
The exit code is 0 if every replica is equal or was repaired, and 4 if one is broken.";

/// What a line of the answer says about a region.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
struct Report {
    #[serde(default)]
    region: String,
    #[serde(default)]
    state: String,
    reason: Option<String>,
    #[serde(default)]
    compared: u64,
    #[serde(default)]
    equal: u64,
    #[serde(default)]
    in_flight: u64,
    #[serde(default)]
    broken: u64,
    #[serde(default)]
    repaired: u64,
    #[serde(default)]
    bytes: u64,
    #[serde(default)]
    seconds: f64,
    #[serde(default)]
    progress: f64,
}

/// Runs the command.
///
/// # Errors
/// `Differs` if a replica is broken, `General` if a comparison could not come to its end.
pub(crate) async fn run(args: VerifyArgs) -> Result<(), Failure> {
    let mut body = json!({"repair": args.repair});
    if let (Some(peer), Value::Object(members)) = (&args.peer, &mut body) {
        members.insert("peer".to_owned(), Value::from(peer.as_str()));
    }
    let call = Call::new(Method::POST, "/v1/replication:verify")
        .header("accept", Some("application/x-ndjson"))?
        .body("application/json", body.to_string());
    let mut lines = Client::new(&args.node).stream(call).await?;
    let reports = follow(&mut lines, &args).await?;
    if args.output == Format::Table {
        let header =
            ["region", "compared", "equal", "in flight", "broken", "repaired", "bytes", "seconds"];
        print_table(&header, reports.values().map(row).collect())?;
    }
    verdict(&reports)
}

/// Follows the comparisons to their end.
async fn follow(lines: &mut Lines, args: &VerifyArgs) -> Result<BTreeMap<String, Report>, Failure> {
    let mut reports = BTreeMap::new();
    let mut told = 0;
    while let Some(line) = lines.next(PATIENCE.max(args.node.timeout)).await? {
        let value: Value = serde_json::from_slice(&line).map_err(|error| unexpected(&error))?;
        let ends = value.get("done").is_some();
        let report: Report = serde_json::from_value(value).map_err(|error| unexpected(&error))?;
        let is_news = ends || report.state != "running";
        if args.output == Format::Json && is_news {
            print(&line)?;
        }
        if ends {
            return Ok(reports);
        }
        // Ten times in all, so that a terminal or a log is not filled.
        let tenth = (report.progress * 10.0) as u64;
        if report.state == "running" && tenth > told {
            note(format!("{}: {} %", printable(&report.region), tenth * 10));
            told = tenth;
        }
        reports.insert(report.region.clone(), report);
    }
    Err(Failure::Unreachable("the answer of the node ends in the middle".to_owned()))
}

fn verdict(reports: &BTreeMap<String, Report>) -> Result<(), Failure> {
    if reports.values().any(|report| report.broken > report.repaired) {
        return Err(Failure::Differs);
    }
    match reports.values().find(|report| report.state == "failed") {
        Some(Report { region, reason, .. }) => {
            let reason = reason.as_deref().unwrap_or("for a reason that the node does not tell");
            Err(Failure::General(format!("the comparison with {region} did not end: {reason}")))
        }
        None => Ok(()),
    }
}

fn row(report: &Report) -> Vec<String> {
    let counts = [
        report.compared,
        report.equal,
        report.in_flight,
        report.broken,
        report.repaired,
        report.bytes,
    ];
    let mut row = vec![printable(&report.region)];
    row.extend(counts.map(thousands));
    row.push(format!("{:.1}", report.seconds));
    row
}

fn unexpected(error: &serde_json::Error) -> Failure {
    Failure::General(format!("unexpected line in the answer of the node: {error}"))
}

/// How long a comparison may be silent: it tells whenever it has come on.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(120);

#[cfg(test)]
mod tests {
    use super::*;

    fn reports(broken: u64, repaired: u64, state: &str) -> BTreeMap<String, Report> {
        let report = Report { broken, repaired, state: state.to_owned(), ..Report::default() };
        BTreeMap::from([("us-east".to_owned(), report)])
    }

    #[test]
    fn the_exit_code_says_how_it_went() {
        assert_eq!(verdict(&reports(0, 0, "done")), Ok(()));
        assert_eq!(verdict(&reports(2, 2, "done")), Ok(()));
        assert_eq!(verdict(&reports(2, 1, "done")), Err(Failure::Differs));
        assert_eq!(verdict(&reports(2, 1, "failed")), Err(Failure::Differs));
        assert!(matches!(verdict(&reports(0, 0, "failed")), Err(Failure::General(_))));
    }
}
