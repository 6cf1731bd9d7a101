//! How a command writes: under whose name, and into how many regions.

use super::author::AuthorArgs;
use super::http::Call;
use crate::cli::Failure;
use crate::consistency::{Asked, WriteConcern};

/// Whose name a writing command signs with, and where its writes have to be.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct WritingArgs {
    #[command(flatten)]
    author: AuthorArgs,

    /// Wait until the write is durable in more regions than the one that takes it: regions=2,
    /// regions=eu-west,us-east, majority or all; with a time limit as in 'majority;
    /// timeout=500ms'. What is not there in time stays written, and the exit code is 6
    #[arg(long, env = "ANABRANCH_WRITE_CONCERN", value_name = "CONCERN")]
    write_concern: Option<Asked<WriteConcern>>,
}

impl WritingArgs {
    /// Returns who decides: decisions of people are signed with the name of their account, if
    /// they do not give another one.
    pub(crate) fn or_account(self) -> Self {
        Self { author: self.author.or_account(), ..self }
    }

    /// Signs a request, and says where the write has to be.
    ///
    /// # Errors
    /// `Usage` if the name cannot stand in a header.
    pub(crate) fn sign(&self, call: Call) -> Result<Call, Failure> {
        let concern = self.write_concern.as_ref().map(ToString::to_string);
        self.author.sign(call)?.header("write-concern", concern.as_deref())
    }
}
