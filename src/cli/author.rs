//! Who writes: the name that goes into the history of every document that a command changes.

use super::http::Call;
use crate::cli::Failure;

/// Whose name a writing command signs with.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct AuthorArgs {
    /// The name that is kept with the change
    #[arg(long, env = "ANABRANCH_AUTHOR", value_name = "NAME", value_parser = author)]
    author: Option<String>,
}

impl AuthorArgs {
    /// Returns who decides: decisions of people are signed with the name of their account, if
    /// they do not give another one.
    pub(crate) fn or_account(self) -> Self {
        let account = || std::env::var("USER").ok().filter(|name| author(name).is_ok());
        Self { author: self.author.or_else(account) }
    }

    /// Returns the name.
    pub(crate) fn name(&self) -> Option<&str> {
        self.author.as_deref()
    }

    /// Signs a request.
    ///
    /// # Errors
    /// `Usage` if the name cannot stand in a header.
    pub(crate) fn sign(&self, call: Call) -> Result<Call, Failure> {
        call.header("author", self.name())
    }
}

fn author(text: &str) -> Result<String, String> {
    if text.is_empty() || text.len() > AUTHOR_BYTES || text.chars().any(char::is_control) {
        return Err(format!("a name has 1 to {AUTHOR_BYTES} bytes and no control characters"));
    }
    Ok(text.to_owned())
}

/// What nodes take.
const AUTHOR_BYTES: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_of_any_language_and_have_no_control_characters() {
        for good in ["a", "Zoë Ågren", &"x".repeat(256)] {
            assert_eq!(author(good).as_deref(), Ok(good));
        }
        for bad in ["", "a\nb", "\u{1b}[31m", &"x".repeat(257)] {
            assert!(author(bad).is_err(), "{bad:?}");
        }
    }
}
