//! Policies: how a path of a collection resolves concurrent values.

use std::fmt;
use std::str::FromStr;

use crate::edit::Path;

/// How concurrent values at one path are resolved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Policy {
    /// Maps merge key by key, counters add, lists and texts interleave; a scalar keeps every
    /// concurrent value, of which Automerge's deterministic winner shows, until one is chosen.
    #[default]
    Auto,
    /// The value with the greatest (hybrid timestamp, origin) wins.
    Lww,
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Lww => "lww",
        })
    }
}

impl FromStr for Policy {
    type Err = PolicyError;

    fn from_str(text: &str) -> Result<Self, PolicyError> {
        match text {
            "auto" => Ok(Self::Auto),
            "lww" => Ok(Self::Lww),
            _ => Err(PolicyError::Unknown(text.to_owned())),
        }
    }
}

/// A policy or a path pattern that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// The word is no policy.
    #[error("'{0}' is no policy: write auto or lww")]
    Unknown(String),
    /// The text is no path pattern.
    #[error("'{0}' is no path: write a JSON pointer such as /title or /items/*/price")]
    Pattern(String),
}

/// A JSON pointer in which the token `*` stands for any one key or index.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PathPattern(Vec<String>);

impl PathPattern {
    /// Tells whether the pattern stands for `path` or for a container around it.
    #[must_use]
    pub fn covers(&self, path: &Path) -> bool {
        let tokens = path.tokens();
        self.0.len() <= tokens.len()
            && self.0.iter().zip(tokens).all(|(pattern, token)| pattern == "*" || pattern == token)
    }
}

impl FromStr for PathPattern {
    type Err = PolicyError;

    fn from_str(text: &str) -> Result<Self, PolicyError> {
        let path: Path = text.parse().map_err(|_| PolicyError::Pattern(text.to_owned()))?;
        Ok(Self(path.into_tokens()))
    }
}

impl fmt::Display for PathPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Path::from(self.0.clone()).fmt(f)
    }
}

/// The policies of one collection: a default, and exceptions by path.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Policies {
    /// The policy of every path that no pattern covers.
    pub default: Policy,
    /// Exceptions; of several that cover a path the longest holds, of equally long ones the first.
    pub paths: Vec<(PathPattern, Policy)>,
}

impl Policies {
    /// Returns the policy of `path`.
    #[must_use]
    pub fn of(&self, path: &Path) -> Policy {
        let mut best: Option<(&PathPattern, Policy)> = None;
        for (pattern, policy) in self.paths.iter().filter(|(pattern, _)| pattern.covers(path)) {
            if best.is_none_or(|(longest, _)| pattern.0.len() > longest.0.len()) {
                best = Some((pattern, *policy));
            }
        }
        best.map_or(self.default, |(_, policy)| policy)
    }
}
