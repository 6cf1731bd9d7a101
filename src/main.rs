//! The `anabranch` program.

use std::io::Write;
use std::process::ExitCode;

use anabranch::cli::{Cli, Failure};
use clap::Parser;

/// Changes and rows are made on owner threads and dropped on the journal thread. The system's
/// allocator makes such threads wait for each other, which cost a tenth of all updates.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli = Cli::parse();
    match start(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if !failure.is_silent() {
                // With stderr closed, the exit code has to do.
                let _ = writeln!(std::io::stderr(), "error: {failure}");
            }
            ExitCode::from(failure.code())
        }
    }
}

fn start(cli: Cli) -> Result<(), Failure> {
    cli.init_log()?;
    // One provider, chosen once: with two linked, rustls refuses to guess and panics.
    rustls::crypto::ring::default_provider()
        .install_default()
        .map_err(|_| Failure::General("a TLS provider is installed already".to_owned()))?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::General(format!("cannot start the runtime: {error}")))?;
    let outcome = runtime.block_on(cli.run());
    // A thread that still waits for stdin must not keep the process.
    runtime.shutdown_background();
    outcome
}
