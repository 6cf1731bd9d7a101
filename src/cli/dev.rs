//! `anabranch dev`: every region of a topology in one process, for trying things out.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::net::{TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anabranch_crdt::ids::RegionName;
use tokio::task::JoinSet;
use tracing::{Instrument, Span, info_span};

use crate::cli::config::{Overrides, SHIPPED, Topology};
use crate::cli::failure::with_sources;
use crate::cli::output::{note, print};
use crate::cli::signals::{Stop, run_until_signal};
use crate::cli::{Failure, program};
use crate::node::{Node, NodeBuilder};
use crate::settings::{PkiPaths, RegionSettings};

/// Runs every region of a cluster on this machine, in one process
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct DevArgs {
    /// The cluster's topology; without it ./regions.toml, and without that three built-in regions
    #[arg(long, env = "ANABRANCH_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,

    /// Where the regions keep their data, from one run to the next
    #[arg(long, env = "ANABRANCH_DATA", default_value = "./anabranch-data", value_name = "DIR")]
    data: PathBuf,

    /// Throw away what earlier runs left in the data directory
    #[arg(long)]
    fresh: bool,

    /// Delay the links between us-east, eu-west and ap-south as the oceans would
    #[arg(long)]
    wan: bool,
}

const EXAMPLES: &str = "\
Examples:
  anabranch dev                       three regions, data in ./anabranch-data
  anabranch dev --wan                 round trips of 80, 110 and 190 ms between them
  anabranch dev --fresh               start from nothing
  anabranch dev --data /tmp/playground --config my-regions.toml

The first run makes a development authority and certificates below the data directory.
A first Ctrl-C stops cleanly (exit code 0), a second stops at once (130).";

/// Runs the command.
///
/// # Errors
/// The configuration is wrong, a port is taken, or a node cannot start or fails.
pub(crate) async fn run(args: DevArgs) -> Result<(), Failure> {
    let topology = topology(args.config.as_deref())?;
    let file = args.config.clone().unwrap_or_else(|| PathBuf::from(DEFAULT_FILE));
    topology.regions.iter().try_for_each(|region| check_ports(region, &file))?;
    prepare(&args.data, args.fresh)?;
    let names: Vec<RegionName> = topology.regions.iter().map(|r| r.name.clone()).collect();
    let pki = crate::pki::ensure_development(&args.data.join("pki"), topology.cluster, &names)
        .map_err(|error| Failure::General(with_sources(&error)))?;
    let plan = Plan { topology, pki, data: args.data, wan: args.wan };
    run_until_signal(|stop| run_regions(plan, stop)).await
}

/// Everything that is decided before the first node starts.
struct Plan {
    topology: Topology,
    pki: BTreeMap<RegionName, PkiPaths>,
    data: PathBuf,
    wan: bool,
}

fn topology(config: Option<&Path>) -> Result<Topology, Failure> {
    let file = config.unwrap_or(Path::new(DEFAULT_FILE));
    if config.is_none() && !file.exists() {
        note("there is no regions.toml here: running the three built-in regions");
        return Ok(Topology::parse(file, SHIPPED)?);
    }
    Ok(Topology::load(file)?)
}

async fn run_regions(plan: Plan, stop: Stop) -> Result<(), Failure> {
    let mut started = Vec::new();
    for region in &plan.topology.regions {
        let span = info_span!("node", region = %region.name);
        let node = start(&plan, region).instrument(span.clone()).await?;
        started.push((region.name.clone(), span, node));
    }
    print(welcome(&plan, &started))?;
    let mut running = JoinSet::new();
    for (name, span, node) in started {
        let stop = stop.clone();
        let service = async move { (name, node.run_until(stop.requested()).await) };
        running.spawn(service.instrument(span));
    }
    while let Some(ended) = running.join_next().await {
        let (name, outcome) =
            ended.map_err(|error| Failure::General(format!("a node stopped: {error}")))?;
        outcome.map_err(|error| {
            let cause = with_sources(&error);
            Failure::General(format!("the node of {name} failed: {cause}"))
        })?;
    }
    note("stopped");
    Ok(())
}

async fn start(plan: &Plan, region: &RegionSettings) -> Result<Node, Failure> {
    let name = region.name.clone();
    let pki = plan.pki.get(&name).cloned().ok_or_else(|| {
        Failure::General(format!("no development certificate was made for {name}"))
    })?;
    let data = plan.data.join(name.as_str());
    let settings = plan.topology.settings_with(name.clone(), data, &Overrides::default(), pki);
    let delays = if plan.wan { delays(&name, &plan.topology.regions) } else { BTreeMap::new() };
    NodeBuilder::new(settings).delays(delays).start().await.map_err(|error| {
        let cause = with_sources(&error);
        Failure::General(format!("the node of {name} cannot start: {cause}"))
    })
}

/// Returns the one-way delay from a region to every other one whose ocean is known.
fn delays(from: &RegionName, regions: &[RegionSettings]) -> BTreeMap<RegionName, Duration> {
    let others = regions.iter().map(|region| &region.name).filter(|name| *name != from);
    others
        .filter_map(|to| match round_trip(from.as_str(), to.as_str()) {
            Some(round_trip) => Some((to.clone(), round_trip / 2)),
            None => {
                note(format!("--wan knows no distance from {from} to {to}: not delayed"));
                None
            }
        })
        .collect()
}

fn round_trip(from: &str, to: &str) -> Option<Duration> {
    ROUND_TRIPS
        .iter()
        .find(|(a, b, _)| (from, to) == (*a, *b) || (to, from) == (*a, *b))
        .map(|(_, _, millis)| Duration::from_millis(*millis))
}

/// Finds out early, and says in words, that another program listens already.
fn check_ports(region: &RegionSettings, file: &Path) -> Result<(), Failure> {
    let http = TcpListener::bind(region.http).map(drop);
    let quic = UdpSocket::bind(region.quic).map(drop);
    for (key, address, outcome) in [("http", region.http, http), ("quic", region.quic, quic)] {
        if let Err(error) = outcome {
            let name = &region.name;
            let taken = error.kind() == ErrorKind::AddrInUse;
            let why =
                if taken { "is taken".to_owned() } else { format!("cannot be used: {error}") };
            return Err(Failure::General(format!(
                "the {key} address of {name}, {address}, {why}\n  help: stop the program that \
                 listens there, or change '{key}' of {name} in {}",
                file.display()
            )));
        }
    }
    Ok(())
}

/// Makes the data directory, or makes sure that it is one of ours.
fn prepare(data: &Path, fresh: bool) -> Result<(), Failure> {
    let failed = |error: std::io::Error| {
        Failure::General(format!("cannot use the data directory {}: {error}", data.display()))
    };
    let marker = data.join(MARKER);
    let occupied = match fs::read_dir(data) {
        Ok(mut entries) => entries.next().is_some(),
        Err(error) if error.kind() == ErrorKind::NotFound => false,
        Err(error) => return Err(failed(error)),
    };
    if occupied && !marker.is_file() {
        return Err(Failure::Usage(format!(
            "{} is not empty, and `anabranch dev` did not make it\n  help: choose another \
             directory with --data; nothing was touched",
            data.display()
        )));
    }
    if occupied && fresh {
        fs::remove_dir_all(data).map_err(failed)?;
    }
    fs::create_dir_all(data).map_err(failed)?;
    fs::write(marker, MARKER_TEXT).map_err(failed)
}

fn welcome(plan: &Plan, started: &[(RegionName, Span, Node)]) -> String {
    let urls: Vec<String> =
        started.iter().map(|(_, _, node)| format!("http://{}", node.http_addr())).collect();
    let regions: Vec<String> = started
        .iter()
        .zip(&urls)
        .map(|((name, _, _), url)| format!("  {:<12} {url}\n", name.as_str()))
        .collect();
    let first = urls.first().map_or("", String::as_str);
    let second = urls.get(1).map_or(first, String::as_str);
    let last = urls.last().map_or(first, String::as_str);
    format!(
        "cluster {} is up, data in {}{}\n\n{}\nTry, in another terminal:\n  \
         curl -X PUT {first}/v1/docs/cities/paris -H 'Content-Type: application/json' \
         -d '{{\"name\":\"Paris\",\"population\":2102650}}'\n  \
         curl {second}/v1/docs/cities/paris\n  \
         {} conflicts list --url {last}\n\nCtrl-C stops.",
        plan.topology.name,
        plan.data.display(),
        if plan.wan { ", links delayed as by oceans" } else { "" },
        regions.concat(),
        program(),
    )
}

const DEFAULT_FILE: &str = "regions.toml";

/// The file that says that a directory is ours to wipe.
const MARKER: &str = ".anabranch-dev";

const MARKER_TEXT: &str =
    "Made by `anabranch dev`; `anabranch dev --fresh` deletes this directory.\n";

/// Milliseconds from one region to another and back, as measured between clouds.
const ROUND_TRIPS: &[(&str, &str, u64)] =
    &[("us-east", "eu-west", 80), ("eu-west", "ap-south", 110), ("us-east", "ap-south", 190)];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn oceans_delay_both_ways_by_half_the_round_trip() {
        let topology = topology_of(SHIPPED);
        let from = |name: &str| {
            let delays = delays(&name.parse().unwrap(), &topology.regions);
            delays.iter().map(|(to, d)| format!("{to} {}", d.as_millis())).collect::<Vec<_>>()
        };
        assert_eq!(from("us-east"), ["ap-south 95", "eu-west 40"]);
        assert_eq!(from("eu-west"), ["ap-south 55", "us-east 40"]);
        assert_eq!(from("ap-south"), ["eu-west 55", "us-east 95"]);
        assert_eq!(delays(&"mars".parse().unwrap(), &topology.regions), BTreeMap::new());
    }

    #[test]
    fn a_foreign_directory_is_never_touched() {
        let folder = tempfile::tempdir().unwrap();
        let precious = folder.path().join("thesis.txt");
        fs::write(&precious, "years of work").unwrap();
        for fresh in [false, true] {
            let error = prepare(folder.path(), fresh).unwrap_err();
            assert_eq!(error.code(), 2, "{error}");
            assert_eq!(fs::read_to_string(&precious).unwrap(), "years of work");
        }
    }

    #[test]
    fn data_is_kept_until_fresh_data_is_asked_for() {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("a/b");
        prepare(&data, false).unwrap();
        let kept = data.join("journal");
        fs::write(&kept, "entries").unwrap();
        prepare(&data, false).unwrap();
        assert!(kept.exists());
        prepare(&data, true).unwrap();
        assert!(!kept.exists());
        assert!(data.join(MARKER).is_file(), "it is still ours");
    }

    #[test]
    fn a_taken_port_is_named_with_the_key_to_change() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut region = topology_of(SHIPPED).regions.remove(0);
        region.http = taken.local_addr().unwrap();
        region.quic = "127.0.0.1:0".parse().unwrap();
        let error = check_ports(&region, Path::new("r.toml")).unwrap_err().to_string();
        assert!(error.contains(&format!("http address of us-east, {}, is taken", region.http)));
        assert!(error.contains("change 'http' of us-east in r.toml"), "{error}");
    }

    fn topology_of(text: &str) -> Topology {
        Topology::parse(Path::new("regions.toml"), text).unwrap()
    }
}
