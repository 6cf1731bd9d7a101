//! `anabranch serve`: the node of one region.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anabranch_crdt::ids::RegionName;
use tracing::Instrument;

use crate::cli::Failure;
use crate::cli::config::{Overrides, Topology, parse_size};
use crate::cli::failure::with_sources;
use crate::cli::signals::{Stop, run_until_signal};
use crate::error::Error;
use crate::node::NodeBuilder;
use crate::pki::Role;
use crate::settings::{Advertised, Neighbours, Settings};

/// Runs the node of one region
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ServeArgs {
    /// The cluster's topology
    #[arg(long, env = "ANABRANCH_CONFIG", default_value = "regions.toml", value_name = "FILE")]
    config: PathBuf,

    /// Which region this node is; without it, the one whose certificate lies in the --pki directory
    #[arg(long, env = "ANABRANCH_REGION", value_name = "NAME")]
    region: Option<String>,

    /// Where this node keeps its data
    #[arg(long, env = "ANABRANCH_DATA", value_name = "DIR")]
    data: PathBuf,

    /// Listen for HTTP here instead of where the file says
    #[arg(long, env = "ANABRANCH_HTTP", value_name = "ADDRESS")]
    http: Option<SocketAddr>,

    /// Listen for other regions here instead of where the file says
    #[arg(long, env = "ANABRANCH_QUIC", value_name = "ADDRESS")]
    quic: Option<SocketAddr>,

    /// Keep at most so much of loaded documents in memory, such as 512MiB
    #[arg(long, env = "ANABRANCH_CACHE", value_parser = cache_size, value_name = "SIZE")]
    cache: Option<usize>,

    /// Ask the nodes at these QUIC addresses to take this one into their cluster; no file has to
    /// name its region
    #[arg(long, env = "ANABRANCH_JOIN", value_delimiter = ',', value_name = "ADDRESS")]
    join: Vec<SocketAddr>,

    /// Where the certificates are, instead of where the file says
    #[arg(long, env = "ANABRANCH_PKI_DIR", value_name = "DIR")]
    pki: Option<PathBuf>,

    /// Where applications reach this node, if that is not where it listens
    #[arg(long, env = "ANABRANCH_ADVERTISE_HTTP", value_name = "ADDRESS")]
    advertise_http: Option<SocketAddr>,

    /// Where other regions reach this node, if that is not where it listens
    #[arg(long, env = "ANABRANCH_ADVERTISE_QUIC", value_name = "ADDRESS")]
    advertise_quic: Option<SocketAddr>,

    /// Have links with these regions alone, if no file names this node's region
    #[arg(long, env = "ANABRANCH_PEERS", value_delimiter = ',', value_name = "REGION")]
    peers: Vec<RegionName>,
}

const EXAMPLES: &str = "\
Examples:
  anabranch serve --config regions.toml --region eu-west --data /var/lib/anabranch
  ANABRANCH_REGION=us-east ANABRANCH_DATA=/data anabranch serve
  anabranch serve --region eu-west --data eu --quic 0.0.0.0:4102 --http 0.0.0.0:3032

  anabranch serve --join 10.0.0.1:4101,10.0.0.2:4102 --pki /etc/anabranch/pki --data /data \
      --http 10.0.0.4:3034 --quic 10.0.0.4:4104

Certificates come first: `anabranch pki init --cluster-id UUID` once, then on each machine
`anabranch pki issue --region eu-west`.
A first Ctrl-C or SIGTERM stops cleanly (exit code 0), a second stops at once (130).";

/// Runs the command.
///
/// # Errors
/// The configuration is wrong, or the node cannot start or fails.
pub(crate) async fn run(args: ServeArgs) -> Result<(), Failure> {
    let mut topology = topology(&args)?;
    if let Some(pki) = &args.pki {
        topology.pki.clone_from(pki);
    }
    let region = match &args.region {
        Some(region) => region.clone(),
        None => certified_region(&topology.pki)?,
    };
    let overrides = Overrides {
        http: args.http,
        quic: args.quic,
        cache_bytes: args.cache,
        join: args.join,
        advertised: Advertised { quic: args.advertise_quic, http: args.advertise_http },
        peers: match args.peers.is_empty() {
            true => Neighbours::All,
            false => Neighbours::Only(args.peers.into_iter().collect()),
        },
    };
    let unlisted = topology.regions.is_empty() || !overrides.join.is_empty();
    let settings = match unlisted && !topology.names(&region) {
        true => topology.unlisted(&region, args.data, &overrides)?,
        false => topology.settings(&region, args.data, &overrides)?,
    };
    run_until_signal(|stop| serve(settings, stop)).await
}

/// Reads the topology, or does without one: a node that joins, or has joined, gets it by gossip.
fn topology(args: &ServeArgs) -> Result<Topology, Failure> {
    let default = args.config == Path::new(DEFAULT_FILE) && !args.config.exists();
    let member = !args.join.is_empty() || args.data.join("journal.redb").exists();
    match &args.pki {
        Some(pki) if default && member => {
            let region = args.region.clone().map_or_else(|| certified_region(pki), Ok)?;
            let file = crate::pki::paths(pki, &region).certificate;
            let summary = crate::pki::CertificateSummary::of_file(&file)
                .map_err(|error| Failure::Usage(error.to_string()))?;
            Ok(Topology::of_nothing(summary.subject.cluster, pki.clone()))
        }
        Some(_) | None => Ok(Topology::load(&args.config)?),
    }
}

/// Finds the one region whose certificate and key are in a directory.
fn certified_region(pki: &Path) -> Result<String, Failure> {
    let say = |what: String| {
        Failure::Usage(format!("{what}\n  help: say with --region which region this node is"))
    };
    let entries = std::fs::read_dir(pki)
        .map_err(|error| say(format!("cannot read {}: {error}", pki.display())))?;
    let names = entries.filter_map(Result::ok).filter_map(|entry| {
        let certificate = entry.path();
        let paired =
            certificate.extension()? == "pem" && certificate.with_extension("key").exists();
        let summary = crate::pki::CertificateSummary::of_file(&certificate).ok()?;
        match summary.subject.role {
            Role::Region(name) if paired => Some(name.to_string()),
            Role::Region(_) | Role::Client(_) | Role::Authority => None,
        }
    });
    let mut names: Vec<String> = names.collect();
    names.sort_unstable();
    match names.as_slice() {
        [one] => Ok(one.clone()),
        [] => Err(say(format!("{} has no region's certificate with its key", pki.display()))),
        many => Err(say(format!("{} has the certificates of {}", pki.display(), many.join(", ")))),
    }
}

async fn serve(settings: Settings, stop: Stop) -> Result<(), Failure> {
    let span = tracing::info_span!("node", region = %settings.region);
    async move {
        let node = NodeBuilder::new(settings).start().await.map_err(cannot_start)?;
        tracing::info!(http = %node.http_addr(), quic = %node.quic_addr(), "serving");
        let failed = |error: Error| Failure::General(with_sources(&error));
        node.run_until(stop.requested()).await.map_err(failed)?;
        tracing::info!("stopped");
        Ok(())
    }
    .instrument(span)
    .await
}

/// The file that is read when none is named.
const DEFAULT_FILE: &str = "regions.toml";

fn cannot_start(error: Error) -> Failure {
    let message = with_sources(&error);
    Failure::General(if error.code() == "cannot_listen" {
        format!(
            "{message}\n  help: stop the program that listens there, or listen elsewhere with \
             --http and --quic"
        )
    } else {
        message
    })
}

fn cache_size(text: &str) -> Result<usize, String> {
    let bytes = parse_size(text).map_err(|error| error.to_string())?;
    if bytes < 1 << 20 {
        return Err("the cache has at least 1MiB".to_owned());
    }
    usize::try_from(bytes).map_err(|_| "more than this machine can address".to_owned())
}
