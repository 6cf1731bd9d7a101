//! `anabranch regions list`, `drain`, `undrain`, `leave` and `forget`: who is in the cluster.

use std::time::Duration;

use anabranch_crdt::ids::RegionName;
use serde::Deserialize;
use serde_json::Value;

use crate::cli::Failure;
use crate::cli::author::AuthorArgs;
use crate::cli::http::{Call, Client, NodeArgs};
use crate::cli::output::{
    Format, note, print, print_json, printable, render_table, terminal_width,
};

/// Lists the regions of the cluster, those that are gone included
#[derive(Debug, clap::Args)]
#[command(after_help = LIST_EXAMPLES)]
pub(super) struct ListArgs {
    #[command(flatten)]
    node: NodeArgs,

    /// How to print
    #[arg(short, long, default_value = "table", value_name = "FORMAT")]
    output: Format,
}

/// Lets a region take no more writes; reads and replication go on
#[derive(Debug, clap::Args)]
#[command(after_help = DRAIN_EXAMPLES)]
pub(super) struct DrainArgs {
    #[command(flatten)]
    of: RegionArgs,
}

/// Lets a draining region take writes again
#[derive(Debug, clap::Args)]
#[command(after_help = UNDRAIN_EXAMPLES)]
pub(super) struct UndrainArgs {
    #[command(flatten)]
    of: RegionArgs,
}

/// Lets a region leave, once every other one has all that it has
#[derive(Debug, clap::Args)]
#[command(after_help = LEAVE_EXAMPLES)]
pub(super) struct LeaveArgs {
    #[command(flatten)]
    of: RegionArgs,

    /// Do not wait until it has left
    #[arg(long)]
    no_wait: bool,
}

/// Gives up a region that does not come back
#[derive(Debug, clap::Args)]
#[command(after_help = FORGET_EXAMPLES)]
pub(super) struct ForgetArgs {
    #[command(flatten)]
    of: RegionArgs,

    /// Yes: the others may go on without what only that region has
    #[arg(long)]
    yes: bool,
}

#[derive(Debug, clap::Args)]
struct RegionArgs {
    /// The region
    #[arg(value_name = "REGION")]
    region: RegionName,

    #[command(flatten)]
    node: NodeArgs,

    #[command(flatten)]
    author: AuthorArgs,
}

const LIST_EXAMPLES: &str = "\
Examples:
  anabranch regions list
  anabranch regions list -o json | jq '.regions[] | select(.state != \"active\")'";

const DRAIN_EXAMPLES: &str = "\
Examples:
  anabranch regions drain eu-west
  anabranch regions drain eu-west --url http://us-east.example:3031

Any node takes the command; gossip tells the others. Writes at eu-west answer 503 `draining`
and name the regions that take them.";

const UNDRAIN_EXAMPLES: &str = "\
Examples:
  anabranch regions undrain eu-west";

const LEAVE_EXAMPLES: &str = "\
Examples:
  anabranch regions leave eu-west
  anabranch regions leave eu-west --no-wait

The region drains first. When it has left, its process can be stopped and its data be removed.
It returns when it is started with `anabranch serve --join ADDRESS`.";

const FORGET_EXAMPLES: &str = "\
Examples:
  anabranch regions forget eu-west --yes --url http://us-east.example:3031

For a region that is lost. What it had not passed on comes back only if it returns, by
`anabranch serve --join ADDRESS`. A region that can still be reached leaves instead:
`anabranch regions leave`.";

pub(super) async fn list(args: ListArgs) -> Result<(), Failure> {
    let body = Client::new(&args.node).send(Call::get("/v1/regions")).await?.json()?;
    match args.output {
        Format::Json => print_json(&body),
        Format::Table => {
            let listed = Listed::read(body)?;
            note(format!("as region {} knows them", printable(&listed.region)));
            print(listed.table(terminal_width()))
        }
    }
}

pub(super) async fn drain(args: DrainArgs) -> Result<(), Failure> {
    args.of.act("drain").await.map(|listed| args.of.tell(&listed))
}

pub(super) async fn undrain(args: UndrainArgs) -> Result<(), Failure> {
    args.of.act("undrain").await.map(|listed| args.of.tell(&listed))
}

pub(super) async fn leave(args: LeaveArgs) -> Result<(), Failure> {
    let mut listed = args.of.act("leave").await?;
    args.of.tell(&listed);
    while !args.no_wait && args.of.state(&listed) == "leaving" {
        tokio::time::sleep(POLL_INTERVAL).await;
        let mut client = Client::new(&args.of.node);
        listed = Listed::read(client.send(Call::get("/v1/regions")).await?.json()?)?;
        if args.of.state(&listed) != "leaving" {
            args.of.tell(&listed);
        }
    }
    Ok(())
}

pub(super) async fn forget(args: ForgetArgs) -> Result<(), Failure> {
    if !args.yes {
        let region = &args.of.region;
        return Err(Failure::Usage(format!(
            "the others will go on without {region}, and without what only {region} has\n  help: \
             say --yes if it is lost, or `anabranch regions leave {region}` if it can be reached"
        )));
    }
    args.of.act("forget").await.map(|listed| args.of.tell(&listed))
}

impl RegionArgs {
    async fn act(&self, act: &str) -> Result<Listed, Failure> {
        let target = format!("/v1/regions/{}:{act}", self.region);
        let call = self.author.clone().or_account().sign(Call::new(hyper::Method::POST, target))?;
        Listed::read(Client::new(&self.node).send(call).await?.json()?)
    }

    fn state<'a>(&self, listed: &'a Listed) -> &'a str {
        let found = listed.regions.iter().find(|region| region.name == self.region.as_str());
        found.map_or("unknown", |region| region.state.as_str())
    }

    fn tell(&self, listed: &Listed) {
        note(format!("{} is {}", self.region, printable(self.state(listed))));
    }
}

#[derive(Debug, Deserialize)]
struct Listed {
    region: String,
    regions: Vec<Region>,
}

#[derive(Debug, Deserialize)]
struct Region {
    name: String,
    state: String,
    quic: Option<String>,
    http: Option<String>,
    peers: Option<Vec<String>>,
    #[serde(default)]
    connected: bool,
}

impl Listed {
    fn read(body: Value) -> Result<Self, Failure> {
        serde_json::from_value(body)
            .map_err(|error| Failure::General(format!("unexpected answer of the node: {error}")))
    }

    fn table(&self, width: Option<u16>) -> String {
        let header = ["region", "state", "connected", "http", "quic", "peers"];
        render_table(&header, self.regions.iter().map(Region::row).collect(), width)
    }
}

impl Region {
    fn row(&self) -> Vec<String> {
        let or_dash = |text: &Option<String>| text.as_deref().map_or_else(|| "-".into(), printable);
        vec![
            printable(&self.name),
            printable(&self.state),
            if self.connected { "yes" } else { "no" }.to_owned(),
            or_dash(&self.http),
            or_dash(&self.quic),
            self.peers
                .as_ref()
                .map_or_else(|| "all".to_owned(), |names| printable(&names.join(" "))),
        ]
    }
}

/// How often a region that leaves is looked at.
const POLL_INTERVAL: Duration = Duration::from_millis(500);

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn regions_are_shown_with_where_they_stand() {
        let listed = Listed::read(json!({
            "region": "us-east",
            "regions": [
                {"name": "eu-west", "state": "forgotten", "voter": false, "quic": "10.0.0.2:4102",
                 "http": "10.0.0.2:3032", "peers": ["us-east"], "connected": false},
                {"name": "us-east", "state": "active", "voter": true, "quic": null, "http": null,
                 "peers": null, "connected": true},
            ],
        }))
        .unwrap();
        let expected = "\
REGION   STATE      CONNECTED  HTTP           QUIC           PEERS
eu-west  forgotten  no         10.0.0.2:3032  10.0.0.2:4102  us-east
us-east  active     yes        -              -              all";
        assert_eq!(listed.table(Some(100)), expected);
    }
}
