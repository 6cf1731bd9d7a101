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

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn path(text: &str) -> Path {
        text.parse().unwrap()
    }

    fn policies(default: Policy, paths: &[(&str, Policy)]) -> Policies {
        let read = |&(text, policy): &(&str, Policy)| (text.parse().unwrap(), policy);
        Policies { default, paths: paths.iter().map(read).collect() }
    }

    fn check_covers(pattern: &str, covered: &[&str], others: &[&str]) {
        let pattern: PathPattern = pattern.parse().unwrap();
        for text in covered {
            assert!(pattern.covers(&path(text)), "{pattern} does not cover {text}");
        }
        for text in others {
            assert!(!pattern.covers(&path(text)), "{pattern} covers {text}");
        }
    }

    #[test]
    fn a_pattern_covers_its_path_and_what_is_inside() {
        check_covers("/a", &["/a", "/a/b", "/a/0/c"], &["", "/b", "/b/a", "/ab"]);
        check_covers("/a/*/c", &["/a/b/c", "/a/0/c/d"], &["/a/c", "/a/b", "/a/b/d"]);
        check_covers("/*", &["/a", "/*", "/a/b"], &[""]);
        check_covers("", &["", "/a"], &[]);
        check_covers("/a~1b", &["/a~1b"], &["/a/b"]);
    }

    #[test]
    fn the_longest_pattern_holds_and_of_equal_ones_the_first() {
        let policies = policies(
            Policy::Auto,
            &[("/a", Policy::Lww), ("/a/b", Policy::Auto), ("/a/*", Policy::Lww)],
        );
        for (text, policy) in [
            ("", Policy::Auto),
            ("/z", Policy::Auto),
            ("/a", Policy::Lww),
            ("/a/b/c", Policy::Auto),
            ("/a/c", Policy::Lww),
        ] {
            assert_eq!(policies.of(&path(text)), policy, "{text}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        let refusal = "last".parse::<Policy>().unwrap_err().to_string();
        assert_eq!(refusal, "'last' is no policy: write auto or lww");
        for text in ["a", "a/b", "/~", "/~2"] {
            let refusal = text.parse::<PathPattern>().unwrap_err().to_string();
            assert!(refusal.starts_with(&format!("'{text}' is no path")), "{refusal}");
        }
    }

    proptest! {
        #[test]
        fn policies_and_patterns_are_read_as_written(tokens in vec(any::<String>(), 0..5)) {
            let pattern = PathPattern(tokens);
            prop_assert_eq!(pattern.to_string().parse::<PathPattern>(), Ok(pattern.clone()));
            for policy in [Policy::Auto, Policy::Lww] {
                prop_assert_eq!(policy.to_string().parse::<Policy>(), Ok(policy));
            }
        }

        #[test]
        fn every_prefix_of_a_path_covers_it_with_any_stars(
            tokens in vec(("[abc]", any::<bool>()), 0..6), inside in vec("[abc*]", 0..3),
        ) {
            let starred = tokens.iter().map(|(token, star)| if *star { "*" } else { token });
            let pattern = PathPattern(starred.map(str::to_owned).collect());
            let path: Vec<_> = tokens.into_iter().map(|(token, _)| token).chain(inside).collect();
            prop_assert!(pattern.covers(&Path::from(path)));
        }

        #[test]
        fn a_path_that_no_pattern_covers_has_the_default(tokens in vec("[abc]", 0..4)) {
            let path = Path::from(tokens);
            let exceptions = policies(Policy::Lww, &[("/d", Policy::Auto), ("/*/d", Policy::Auto)]);
            prop_assert_eq!(exceptions.of(&path), Policy::Lww);
        }
    }
}
