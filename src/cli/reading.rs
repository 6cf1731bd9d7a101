//! What a command that reads wants to see: what a majority of the regions has, or nothing too old.

use super::http::{Client, NodeArgs};
use crate::cli::Failure;
use crate::consistency::{Asked, ReadConcern};

/// What the answer has to reflect besides what is in the region that is asked.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct ReadingArgs {
    /// What the answer reflects: local, or majority, which is whatever more than half of the
    /// regions had when it was asked for; with a time limit as in 'majority; timeout=2s'
    #[arg(long, value_name = "CONCERN")]
    read_concern: Option<Asked<ReadConcern>>,

    /// Fail rather than answer from data of any region that may be older, in seconds
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    max_staleness: Option<String>,
}

impl ReadingArgs {
    /// Returns a client of a node that asks for this with every request.
    ///
    /// # Errors
    /// `Usage` if that cannot stand in headers.
    pub(crate) fn client(&self, node: &NodeArgs) -> Result<Client, Failure> {
        let concern = self.read_concern.as_ref().map(ToString::to_string);
        Client::new(node)
            .with_header("read-concern", concern.as_deref())?
            .with_header("max-staleness", self.max_staleness.as_deref())
    }
}

fn seconds(text: &str) -> Result<String, String> {
    let plain = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    match text.parse::<f64>() {
        Ok(_) if plain => Ok(text.to_owned()),
        Ok(_) | Err(_) => Err("write a number of seconds such as 5 or 0.5".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn staleness_is_written_as_nodes_read_it() {
        for good in ["5", "0.5", "0"] {
            assert_eq!(seconds(good).as_deref(), Ok(good));
        }
        for bad in ["", "5s", "-1", "1e3", "inf", "."] {
            assert!(seconds(bad).is_err(), "{bad}");
        }
    }
}
