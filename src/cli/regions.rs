//! `anabranch regions`: who is in the cluster, and how replication stands, as one node sees it.

mod members;

use clap::Subcommand;
use serde::Deserialize;
use serde_json::Value;

use super::http::{Call, Client, NodeArgs};
use super::output::{
    Format, note, plural, print, print_json, printable, render_table, terminal_width, thousands,
};
use crate::cli::Failure;

/// Shows how replication between regions stands, and changes who is in the cluster
#[derive(Debug, clap::Args)]
pub(crate) struct RegionsArgs {
    #[command(subcommand)]
    command: RegionsCommand,
}

#[derive(Debug, Subcommand)]
enum RegionsCommand {
    Status(StatusArgs),
    List(members::ListArgs),
    Drain(members::DrainArgs),
    Undrain(members::UndrainArgs),
    Leave(members::LeaveArgs),
    Forget(members::ForgetArgs),
}

/// Shows every peer of a node: connected or not, and how far behind
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
struct StatusArgs {
    #[command(flatten)]
    node: NodeArgs,

    /// How to print
    #[arg(short, long, default_value = "table", value_name = "FORMAT")]
    output: Format,
}

const EXAMPLES: &str = "\
Examples:
  anabranch regions status
  anabranch regions status --url http://127.0.0.1:3032
  anabranch regions status -o json | jq '.peers[] | select(.connected | not)'

`clock` is how far the peer's wall clock is ahead of this node's, `rtt` the round trip over which
that was measured. `behind` is what the peer has not acknowledged of this node's entries, `missing` is what this
node knows to exist and does not have yet.";

/// Runs the command.
///
/// # Errors
/// The node cannot be reached.
pub(crate) async fn run(args: RegionsArgs) -> Result<(), Failure> {
    match args.command {
        RegionsCommand::Status(args) => status(args).await,
        RegionsCommand::List(args) => members::list(args).await,
        RegionsCommand::Drain(args) => members::drain(args).await,
        RegionsCommand::Undrain(args) => members::undrain(args).await,
        RegionsCommand::Leave(args) => members::leave(args).await,
        RegionsCommand::Forget(args) => members::forget(args).await,
    }
}

async fn status(args: StatusArgs) -> Result<(), Failure> {
    let reply = Client::new(&args.node).send(Call::get("/v1/replication")).await?;
    let body = reply.json()?;
    match args.output {
        Format::Json => print_json(&body),
        Format::Table => {
            let status = Status::read(body)?;
            note(format!(
                "region {}, origin {}{}",
                status.region,
                status.origin,
                status.standing()
            ));
            if status.clock_correction_ms != 0.0 {
                note(format!(
                    "the clock of this node is {} against the other regions', and is corrected: \
                     see that NTP runs on its machine",
                    distance(-status.clock_correction_ms)
                ));
            }
            status.bootstrap.iter().for_each(|bootstrap| note(bootstrap.text()));
            if status.broken > status.repaired {
                note(format!(
                    "{} broken here or in another region: anabranch verify --repair",
                    plural(status.broken - status.repaired, "document")
                ));
            }
            print(status.table(terminal_width()))
        }
    }
}

#[derive(Debug, Deserialize)]
struct Status {
    region: String,
    #[serde(default)]
    origin: String,
    #[serde(default = "settled")]
    settled: bool,
    #[serde(default)]
    renewals: u64,
    #[serde(default)]
    clock_correction_ms: f64,
    peers: Vec<Peer>,
    bootstrap: Option<Bootstrap>,
    #[serde(default)]
    broken: u64,
    #[serde(default)]
    repaired: u64,
}

#[derive(Debug, Deserialize)]
struct Bootstrap {
    source: Option<String>,
    progress: f64,
    documents_adopted: u64,
    documents_per_second: f64,
    bytes: u64,
    eta_seconds: Option<f64>,
}

#[derive(Debug, Deserialize)]
struct Peer {
    region: String,
    connected: bool,
    entries_behind: Option<u64>,
    seconds_behind: Option<f64>,
    entries_missing: Option<u64>,
    last_error: Option<String>,
    clock_offset_ms: Option<f64>,
    round_trip_ms: Option<f64>,
}

impl Status {
    fn read(body: Value) -> Result<Self, Failure> {
        serde_json::from_value(body)
            .map_err(|error| Failure::General(format!("unexpected answer of the node: {error}")))
    }

    /// What there is to say of the origin.
    fn standing(&self) -> String {
        let renewed = match self.renewals {
            0 => String::new(),
            1 => ", renewed once".to_owned(),
            times => format!(", renewed {} times", thousands(times)),
        };
        let settling = if self.settled { "" } else { ", settling: writes wait for a moment" };
        format!("{renewed}{settling}")
    }

    fn table(&self, width: Option<u16>) -> String {
        let header =
            ["region", "connected", "behind", "seconds", "missing", "clock", "rtt", "last error"];
        render_table(&header, self.peers.iter().map(Peer::row).collect(), width)
    }
}

/// A node of an earlier release does not say it.
fn settled() -> bool {
    true
}

impl Bootstrap {
    fn text(&self) -> String {
        let source = self.source.as_deref().map_or_else(
            || "looks for a region to take over from".to_owned(),
            |source| format!("takes over what it lacks from {}", printable(source)),
        );
        let eta = self.eta_seconds.map_or_else(String::new, |eta| format!(", {eta:.0} s to go"));
        format!(
            "this region {source}: {:.1} %, {}, {}/s, {} bytes{eta}",
            self.progress * 100.0,
            plural(self.documents_adopted, "document"),
            thousands(self.documents_per_second as u64),
            thousands(self.bytes),
        )
    }
}

impl Peer {
    fn row(&self) -> Vec<String> {
        let count = |n: Option<u64>| n.map_or_else(|| "?".to_owned(), thousands);
        vec![
            printable(&self.region),
            if self.connected { "yes" } else { "NO" }.to_owned(),
            count(self.entries_behind),
            self.seconds_behind.map_or_else(|| "?".to_owned(), |s| format!("{s:.1}")),
            count(self.entries_missing),
            self.clock_offset_ms.map_or_else(|| "?".to_owned(), distance),
            self.round_trip_ms.map_or_else(|| "?".to_owned(), |ms| format!("{ms:.0} ms")),
            self.last_error.as_deref().map_or_else(|| "-".to_owned(), printable),
        ]
    }
}

/// Writes how far a clock is ahead, in the unit that fits.
fn distance(milliseconds: f64) -> String {
    let units = [("d", 86_400_000.0), ("h", 3_600_000.0), ("min", 60_000.0), ("s", 1_000.0)];
    let fitting = units.into_iter().find(|(_, length)| milliseconds.abs() >= *length);
    let (unit, length) = fitting.unwrap_or(("ms", 1.0));
    let value = milliseconds / length;
    if value.abs() < 10.0 { format!("{value:+.1} {unit}") } else { format!("{value:+.0} {unit}") }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn peers_are_shown_in_a_table_of_80_columns() {
        let status = Status::read(json!({
            "region": "eu-west", "origin": "o", "token": "t",
            "peers": [
                {"region": "us-east", "connected": true, "entries_behind": 0,
                 "seconds_behind": 0, "entries_missing": 0, "last_error": null,
                 "clock_offset_ms": -3.24, "round_trip_ms": 81.7},
                {"region": "ap-south", "connected": false, "entries_behind": 12345,
                 "seconds_behind": 61.25, "entries_missing": null,
                 "last_error": "the certificate is of another cluster",
                 "clock_offset_ms": null, "round_trip_ms": null},
            ],
        }))
        .unwrap();
        let expected = "\
REGION    CONNECTED  BEHIND  SECONDS  MISSING  CLOCK    RTT    LAST ERROR
us-east   yes        0       0.0      0        -3.2 ms  82 ms  -
ap-south  NO         12,345  61.2     ?        ?        ?      the certificate
                                                               is of another
                                                               cluster";
        assert_eq!(status.table(Some(80)), expected);
        assert_eq!(status.standing(), "");
        let renewed = Status { settled: false, renewals: 1_200, ..status };
        let expected = ", renewed 1,200 times, settling: writes wait for a moment";
        assert_eq!(renewed.standing(), expected);
    }

    #[test]
    fn a_distance_between_clocks_has_a_sign_and_a_fitting_unit() {
        let cases =
            [(0.0, "+0.0 ms"), (-31.2, "-31 ms"), (2_500.0, "+2.5 s"), (-90_000.0, "-1.5 min")];
        for (milliseconds, text) in cases {
            assert_eq!(distance(milliseconds), text);
        }
        assert_eq!(distance(3_650.0 * 86_400_000.0), "+3650 d");
    }
}
