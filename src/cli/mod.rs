//! The command line: one file per subcommand. What a command prints as data goes to stdout,
//! messages go to stderr, and the exit code says how it went.

mod author;
mod bench;
mod collections;
mod config;
mod conflicts;
mod dev;
mod doc;
mod export;
mod failure;
mod http;
mod import;
mod logging;
mod output;
mod panes;
pub mod pki;
mod progress;
mod regions;
mod serve;
mod signals;
mod sim;
#[cfg(test)]
mod tests;

use clap::{Parser, Subcommand};

use self::failure::EXIT_CODES;
pub use self::failure::Failure;
use self::signals::unless_interrupted;

/// A multi-leader, geo-replicated CRDT document store
#[derive(Debug, Parser)]
#[command(name = "anabranch", version, after_help = EXIT_CODES, propagate_version = true)]
pub struct Cli {
    #[command(flatten)]
    log: logging::LogArgs,

    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Serve(serve::ServeArgs),
    Dev(dev::DevArgs),
    Pki(pki::PkiArgs),
    Doc(doc::DocArgs),
    Conflicts(Box<conflicts::ConflictsArgs>),
    Collections(collections::CollectionsArgs),
    Regions(regions::RegionsArgs),
    Import(import::ImportArgs),
    Export(export::ExportArgs),
    Bench(bench::BenchArgs),
    Sim(sim::SimArgs),
}

impl Cli {
    /// Starts the log.
    ///
    /// # Errors
    /// The filter cannot be read.
    pub fn init_log(&self) -> Result<(), Failure> {
        let default = match self.command {
            Command::Serve(_) | Command::Dev(_) => "info",
            Command::Pki(_)
            | Command::Doc(_)
            | Command::Conflicts(_)
            | Command::Collections(_)
            | Command::Regions(_)
            | Command::Import(_)
            | Command::Export(_)
            | Command::Bench(_) => "warn",
            // What goes wrong in a simulated cluster is no news.
            Command::Sim(_) => "off",
        };
        self.log.init(default)
    }

    /// Runs the command.
    ///
    /// # Errors
    /// Whatever kept it from doing what was asked; see [`Failure::code`].
    pub async fn run(self) -> Result<(), Failure> {
        match self.command {
            Command::Serve(args) => serve::run(args).await,
            Command::Dev(args) => dev::run(args).await,
            Command::Pki(args) => Ok(pki::run(args)?),
            Command::Doc(args) => unless_interrupted(doc::run(args)).await,
            Command::Conflicts(args) => conflicts::run(*args).await,
            Command::Collections(args) => unless_interrupted(collections::run(args)).await,
            Command::Regions(args) => unless_interrupted(regions::run(args)).await,
            Command::Import(args) => import::run(args).await,
            Command::Export(args) => unless_interrupted(export::run(args)).await,
            Command::Bench(args) => unless_interrupted(bench::run(args)).await,
            Command::Sim(args) => sim::run(args).await,
        }
    }
}

/// Returns how this program was called, so that commands that are shown can be copied.
fn program() -> String {
    let called = std::env::args_os().next();
    called.map_or_else(|| "anabranch".to_owned(), |name| name.to_string_lossy().into_owned())
}
