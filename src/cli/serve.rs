//! `anabranch serve`: the node of one region.

use std::net::SocketAddr;
use std::path::PathBuf;

use tracing::Instrument;

use crate::cli::Failure;
use crate::cli::config::{Overrides, Topology, parse_size};
use crate::cli::failure::with_sources;
use crate::cli::signals::{Stop, run_until_signal};
use crate::error::Error;
use crate::node::NodeBuilder;
use crate::settings::Settings;

/// Runs the node of one region
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ServeArgs {
    /// The cluster's topology
    #[arg(long, env = "ANABRANCH_CONFIG", default_value = "regions.toml", value_name = "FILE")]
    config: PathBuf,

    /// Which region of the file this node is
    #[arg(long, env = "ANABRANCH_REGION", value_name = "NAME")]
    region: String,

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
}

const EXAMPLES: &str = "\
Examples:
  anabranch serve --config regions.toml --region eu-west --data /var/lib/anabranch
  ANABRANCH_REGION=us-east ANABRANCH_DATA=/data anabranch serve
  anabranch serve --region eu-west --data eu --quic 0.0.0.0:4102 --http 0.0.0.0:3032

Certificates come first: `anabranch pki init --cluster-id UUID` once, then on each machine
`anabranch pki issue --region eu-west`.
A first Ctrl-C or SIGTERM stops cleanly (exit code 0), a second stops at once (130).";

/// Runs the command.
///
/// # Errors
/// The configuration is wrong, or the node cannot start or fails.
pub(crate) async fn run(args: ServeArgs) -> Result<(), Failure> {
    let topology = Topology::load(&args.config)?;
    let overrides = Overrides { http: args.http, quic: args.quic, cache_bytes: args.cache };
    let settings = topology.settings(&args.region, args.data, &overrides)?;
    run_until_signal(|stop| serve(settings, stop)).await
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
