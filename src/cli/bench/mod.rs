//! `anabranch bench`: how fast, next to what the machine could do at all.

mod ceiling;
mod cluster;
mod ledger;
mod load;
mod propagation;
mod report;
mod request;
mod returning;
mod settling;
mod wire;

use std::path::PathBuf;
use std::time::Duration;

use clap::ValueEnum;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use uuid::Uuid;

use self::ceiling::Ceiling;
use self::cluster::{Cluster, TemporaryDirectory};
use self::load::{Plan, ask, closed_loop, unreachable};
use self::report::Figures;
use self::request::{Requests, Template, document, document_path, one_field};
use self::wire::Wire;
use super::http::NodeUrl;
use super::output::{Format, note, print, print_json, terminal_width};
use crate::cli::Failure;

/// Measures writes, reads and propagation, next to what this machine could do at all
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct BenchArgs {
    /// Measure this node instead of a temporary one
    #[arg(long, value_name = "URL")]
    url: Option<NodeUrl>,

    /// Measure propagation to this node, from the one that --url names
    #[arg(long, value_name = "URL", requires = "url")]
    url_b: Option<NodeUrl>,

    /// Connections at a time
    #[arg(long, default_value_t = 32, value_name = "N",
        value_parser = clap::value_parser!(u64).range(1..=1_024))]
    connections: u64,

    /// How long to measure each workload
    #[arg(long, default_value_t = 5, value_name = "SECONDS",
        value_parser = clap::value_parser!(u64).range(1..=3_600))]
    seconds: u64,

    /// Documents that are updated and read
    #[arg(long, default_value_t = 1_000, value_name = "N",
        value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    documents: u64,

    /// Writes per second whose propagation is measured
    #[arg(long, default_value_t = 500, value_name = "N",
        value_parser = clap::value_parser!(u64).range(1..=100_000))]
    rate: u64,

    /// Only these workloads
    #[arg(long, value_delimiter = ',', value_name = "WORKLOAD")]
    only: Vec<Workload>,

    /// Where temporary nodes keep their data: on the disk that is to be measured
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,

    /// How to print
    #[arg(short, long, default_value = "table", value_name = "FORMAT")]
    output: Format,
}

const EXAMPLES: &str = "\
Examples:
  anabranch bench
  anabranch bench --seconds 20 --data /mnt/nvme --only updates,propagation
  anabranch bench --only catchup,reconnect,bootstrap,verify --documents 1000000
  anabranch bench --url http://127.0.0.1:3031 --url-b http://127.0.0.1:3032 -o json

Documents have ten fields of ninety letters, together 1 KB. Load, nodes and ceilings share this
machine. `http` is a server that stores nothing, asked with bodies of the same size; `http +
commit` also commits each body to redb, in groups, before it answers. With --url the documents
of the run stay in the node, in a collection of their own, and no conflicts are measured.
Regions that come back (`catchup`, `reconnect`, `bootstrap`, `verify`) are measured when they are
asked for, on two nodes in this process; what they sent is told on stderr.";

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Workload {
    /// Durable updates of one field
    Updates,
    /// Durable creations
    Creates,
    /// Reads
    Reads,
    /// From a write in one region to a read of it in the other
    Propagation,
    /// A ledger of 100,000 conflicts, listed and counted
    Conflicts,
    /// 10,000 conflicts, settled by one rule
    Settling,
    /// A region that missed 100,000 changes of 10,000 documents
    Catchup,
    /// A link that comes back when nothing has changed
    Reconnect,
    /// A region that takes over every document
    Bootstrap,
    /// Two regions that compare documents, which are all equal
    Verify,
}

impl Workload {
    fn title(self) -> &'static str {
        match self {
            Self::Updates => "one-field updates",
            Self::Creates => "creates",
            Self::Reads => "reads",
            Self::Propagation => "propagation",
            Self::Conflicts => "conflicts",
            Self::Settling => "settling",
            Self::Catchup => "catch-up",
            Self::Reconnect => "reconnect",
            Self::Bootstrap => "bootstrap",
            Self::Verify => "verify",
        }
    }

    /// Returns method, media type and body.
    fn shape(self) -> (&'static str, &'static str, String) {
        match self {
            Self::Updates => ("PATCH", "application/merge-patch+json", one_field()),
            Self::Creates => ("PUT", "application/json", document()),
            Self::Reads
            | Self::Propagation
            | Self::Conflicts
            | Self::Settling
            | Self::Catchup
            | Self::Reconnect
            | Self::Bootstrap
            | Self::Verify => ("GET", "", String::new()),
        }
    }
}

/// Runs the command.
///
/// # Errors
/// A node cannot start, cannot be reached, or refuses a request.
pub(crate) async fn run(args: BenchArgs) -> Result<(), Failure> {
    if cfg!(debug_assertions) {
        note("this is a debug build: the figures say nothing about a release build");
    }
    let bench = Bench::new(args);
    let mut all = bench.run_one_node().await?;
    all.extend(bench.run_propagation().await?);
    all.extend(bench.run_conflicts().await?);
    all.extend(bench.run_settling().await?);
    all.extend(bench.run_returning().await?);
    match bench.args.output {
        Format::Json => print_json(&report::json(&all, &bench.settings())),
        Format::Table => print(report::table(&all, terminal_width())),
    }
}

struct Bench {
    args: BenchArgs,
    plan: Plan,
    base: PathBuf,
    /// A collection that no run before has used.
    collection: String,
}

impl Bench {
    fn new(args: BenchArgs) -> Self {
        let plan = Plan {
            connections: args.connections,
            measured: Duration::from_secs(args.seconds),
            warmup: WARMUP,
        };
        let base = args.data.clone().unwrap_or_else(std::env::temp_dir);
        let collection = format!("bench-{}", Uuid::new_v4().simple());
        Self { args, plan, base, collection }
    }

    fn wants(&self, workload: Workload) -> bool {
        self.args.only.is_empty() || self.args.only.contains(&workload)
    }

    async fn run_one_node(&self) -> Result<Vec<Figures>, Failure> {
        let wanted: Vec<Workload> = [Workload::Updates, Workload::Creates, Workload::Reads]
            .into_iter()
            .filter(|workload| self.wants(*workload))
            .collect();
        if wanted.is_empty() {
            return Ok(Vec::new());
        }
        let dir = TemporaryDirectory::create(&self.base)?;
        let ceiling = Ceiling::start(&dir.path).await?;
        let cluster = match self.args.url {
            Some(_) => None,
            None => Some(Cluster::start(&self.base, 1).await?),
        };
        let node = self.first_of(cluster.as_ref())?;
        self.preload(&node).await?;
        let mut all = Vec::new();
        for workload in wanted {
            note(format!("measuring {} \u{2026}", workload.title()));
            all.push(self.measure(workload, &node, &ceiling).await?);
        }
        if let Some(cluster) = cluster {
            cluster.stop().await?;
        }
        Ok(all)
    }

    fn first_of(&self, cluster: Option<&Cluster>) -> Result<String, Failure> {
        let own = cluster.and_then(|cluster| cluster.authorities().into_iter().next());
        own.or_else(|| self.args.url.as_ref().map(NodeUrl::authority))
            .ok_or_else(|| Failure::General("there is no node to measure".to_owned()))
    }

    async fn run_propagation(&self) -> Result<Option<Figures>, Failure> {
        if !self.wants(Workload::Propagation) {
            return Ok(None);
        }
        let (cluster, from, to) = match (&self.args.url, &self.args.url_b) {
            (Some(from), Some(to)) => (None, from.authority(), to.authority()),
            (Some(_), None) => {
                note("propagation needs a second node: name it with --url-b");
                return Ok(None);
            }
            (None, _) => {
                let cluster = Cluster::start(&self.base, 2).await?;
                let mut nodes = cluster.authorities().into_iter();
                let pair = nodes.next().zip(nodes.next());
                let (from, to) =
                    pair.ok_or_else(|| Failure::General("two nodes did not start".to_owned()))?;
                (Some(cluster), from, to)
            }
        };
        let workload = Workload::Propagation.title();
        note(format!("measuring {workload} \u{2026}"));
        let collection = format!("{}-p", self.collection);
        let measured =
            propagation::open_loop(&from, &to, &collection, self.plan, self.args.rate).await?;
        if let Some(cluster) = cluster {
            cluster.stop().await?;
        }
        Ok(Some(Figures { workload, measured, http: None, commit: None }))
    }

    /// Measures the ledger of a journal of its own; that of a node is not to be filled with rows.
    async fn run_conflicts(&self) -> Result<Vec<Figures>, Failure> {
        if !self.wants(Workload::Conflicts) || self.args.url.is_some() {
            return Ok(Vec::new());
        }
        note(format!("measuring {} \u{2026}", Workload::Conflicts.title()));
        let (base, most) = (self.base.clone(), self.plan.measured);
        let measuring = tokio::task::spawn_blocking(move || ledger::measure(&base, most));
        measuring.await.map_err(|error| Failure::General(format!("a task broke: {error}")))?
    }

    /// Measures a node of its own, for the same reason.
    async fn run_settling(&self) -> Result<Vec<Figures>, Failure> {
        if !self.wants(Workload::Settling) || self.args.url.is_some() {
            return Ok(Vec::new());
        }
        note(format!("measuring {} \u{2026}", Workload::Settling.title()));
        settling::measure(&self.base).await
    }

    /// Measures regions that come back, with nodes of their own. It takes minutes, so it is done
    /// only when it is asked for.
    async fn run_returning(&self) -> Result<Vec<Figures>, Failure> {
        let mut all = Vec::new();
        for workload in &self.args.only {
            let documents = self.args.documents;
            let measured = match workload {
                Workload::Catchup => returning::catch_up(&self.base).await?,
                Workload::Reconnect => returning::reconnect(&self.base, documents).await?,
                Workload::Bootstrap => returning::bootstrap(&self.base, documents).await?,
                Workload::Verify => returning::verify(&self.base, documents).await?,
                Workload::Updates
                | Workload::Creates
                | Workload::Reads
                | Workload::Propagation
                | Workload::Conflicts
                | Workload::Settling => continue,
            };
            let workload = workload.title();
            all.push(Figures { workload, measured, http: None, commit: None });
        }
        Ok(all)
    }

    /// Measures the node, then the ceilings with answers as long as the node's.
    async fn measure(
        &self,
        workload: Workload,
        node: &str,
        ceiling: &Ceiling,
    ) -> Result<Figures, Failure> {
        let (method, media_type, body) = workload.shape();
        let template = Template::new(method, &self.path(workload), media_type, &body);
        let reply = reply_bytes(node, template.clone()).await?;
        let measured =
            closed_loop(node, self.plan, |i| self.requests(workload, &template, i)).await?;
        let method = if body.is_empty() { "GET" } else { "POST" };
        let run = async |path: &str| {
            let template = Template::new(method, &format!("/{path}/{reply}"), media_type, &body);
            let requests = |i| Requests::new_keys(template.clone(), i, self.plan.connections);
            closed_loop(&ceiling.authority, self.plan, requests).await
        };
        let http = Some(run("plain").await?);
        let commit = if body.is_empty() { None } else { Some(run("commit").await?) };
        Ok(Figures { workload: workload.title(), measured, http, commit })
    }

    fn path(&self, workload: Workload) -> String {
        match workload {
            Workload::Creates => document_path(&format!("{}-c", self.collection)),
            Workload::Updates
            | Workload::Reads
            | Workload::Propagation
            | Workload::Conflicts
            | Workload::Settling
            | Workload::Catchup
            | Workload::Reconnect
            | Workload::Bootstrap
            | Workload::Verify => document_path(&self.collection),
        }
    }

    fn requests(&self, workload: Workload, template: &Template, connection: u64) -> Requests {
        let (template, stride) = (template.clone(), self.plan.connections);
        match workload {
            Workload::Creates => Requests::new_keys(template, connection, stride),
            Workload::Updates
            | Workload::Reads
            | Workload::Propagation
            | Workload::Conflicts
            | Workload::Settling
            | Workload::Catchup
            | Workload::Reconnect
            | Workload::Bootstrap
            | Workload::Verify => {
                Requests::random(template, self.args.documents, connection, stride)
            }
        }
    }

    /// Writes the documents that are updated and read.
    async fn preload(&self, node: &str) -> Result<(), Failure> {
        let path = document_path(&self.collection);
        let template = Template::new("PUT", &path, "application/json", &document());
        let mut writers: JoinSet<Result<(), Failure>> = JoinSet::new();
        for first in 0..self.plan.connections {
            let mut wire = Wire::connect(node).await.map_err(|error| unreachable(node, &error))?;
            let (mut template, documents) = (template.clone(), self.args.documents);
            let stride = self.plan.connections;
            writers.spawn(async move {
                let mut key = first;
                while key < documents {
                    ask(&mut wire, template.fill(&[key, key])).await?;
                    key += stride;
                }
                Ok(())
            });
        }
        while let Some(ended) = writers.join_next().await {
            ended.map_err(|error| Failure::General(format!("a task broke: {error}")))??;
        }
        Ok(())
    }

    fn settings(&self) -> Value {
        json!({
            "connections": self.args.connections,
            "seconds": self.args.seconds,
            "documents": self.args.documents,
            "document_bytes": document().len(),
            "propagation_rate": self.args.rate,
            "own_nodes": self.args.url.is_none(),
        })
    }
}

/// Asks once, to learn how long the node's answers are.
async fn reply_bytes(node: &str, mut template: Template) -> Result<usize, Failure> {
    let mut wire = Wire::connect(node).await.map_err(|error| unreachable(node, &error))?;
    Ok(ask(&mut wire, template.fill(&[0, 0])).await?.body_bytes)
}

/// Caches and connections warm up for so long before anything counts.
const WARMUP: Duration = Duration::from_millis(500);
