//! `anabranch pki`: the cluster's authority and the certificates of its nodes.

use crate::error::Error;

/// Makes the cluster's authority and node certificates.
#[derive(Debug, clap::Args)]
pub struct PkiArgs {}

/// Runs the command.
///
/// # Errors
/// Files cannot be read or written.
pub fn run(args: PkiArgs) -> Result<(), Error> {
    let _ = args;
    todo!()
}
