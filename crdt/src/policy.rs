//! Policies: how a path of a collection resolves concurrent values.
//!
//! The settings of a collection are JSON that replicates as a document of the store itself, so
//! every region that has the same settings decides alike; [`PolicyVersion`] names them.

use std::fmt;
use std::str::FromStr;

use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::edit::Path;
use crate::ids::{Origin, RegionName};
use crate::json::canonical;

/// How concurrent values at one path are resolved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Policy {
    /// Maps merge key by key, counters add, lists and texts interleave; a scalar keeps every
    /// concurrent value, of which Automerge's deterministic winner shows, until one is chosen.
    #[default]
    Auto,
    /// The write with the greatest (hybrid timestamp, writer) wins, deletes included.
    Lww,
    /// The write with the least (hybrid timestamp, writer) wins, deletes included.
    First,
    /// The greatest value wins: null, false, true, numbers, strings, then lists and objects.
    Max,
    /// The least value wins.
    Min,
    /// What `auto` would show shows; every collision stays open until somebody decides.
    Manual,
    /// The write of the region that stands first in the settings wins, deletes included; of one
    /// region's the latest.
    RegionPriority,
}

impl Policy {
    /// Every policy.
    pub const ALL: [Self; 7] = [
        Self::Auto,
        Self::Lww,
        Self::First,
        Self::Max,
        Self::Min,
        Self::Manual,
        Self::RegionPriority,
    ];

    /// Tells whether the policy chooses one value and lets go of the others.
    #[must_use]
    pub fn chooses(self) -> bool {
        match self {
            Self::Auto | Self::Manual => false,
            Self::Lww | Self::First | Self::Max | Self::Min | Self::RegionPriority => true,
        }
    }
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Lww => "lww",
            Self::First => "first",
            Self::Max => "max",
            Self::Min => "min",
            Self::Manual => "manual",
            Self::RegionPriority => "region-priority",
        })
    }
}

impl FromStr for Policy {
    type Err = PolicyError;

    fn from_str(text: &str) -> Result<Self, PolicyError> {
        let found = Self::ALL.into_iter().find(|policy| policy.to_string() == text);
        found.ok_or_else(|| PolicyError::Unknown(text.to_owned()))
    }
}

/// Settings that cannot be read; the message says what to write instead.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// The word is no policy.
    #[error("'{0}' is no policy: write auto, lww, first, max, min, manual or region-priority")]
    Unknown(String),
    /// The text is no path pattern.
    #[error("'{0}' is no path: write a JSON pointer such as /title or /items/*/price")]
    Pattern(String),
    /// The settings do not have the shape that they must have.
    #[error("{0}")]
    Shape(String),
}

/// A JSON pointer in which the token `*` stands for any one key or index.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PathPattern(Vec<String>);

impl PathPattern {
    /// Tells whether the pattern stands for `path` or for a container around it.
    #[must_use]
    pub fn covers(&self, path: &Path) -> bool {
        self.covers_tokens(path.tokens())
    }

    fn covers_tokens(&self, tokens: &[String]) -> bool {
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

/// What a rule takes as one value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Extent {
    /// Each field below the path by itself.
    #[default]
    Parts,
    /// The whole container at the path: concurrent edits of any of its parts collide.
    Whole,
}

/// The policy of the paths that a pattern covers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathRule {
    /// The paths.
    pub pattern: PathPattern,
    /// How they resolve.
    pub policy: Policy,
    /// What counts as one value.
    pub extent: Extent,
}

/// A container that is policed as one value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Whole {
    /// How many tokens of a path lead to it.
    pub depth: usize,
    /// How it resolves.
    pub policy: Policy,
}

/// Names settings by their content: equal settings have equal versions in every region.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct PolicyVersion(u64);

impl fmt::Display for PolicyVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => f.write_str("default"),
            version => write!(f, "{version:016x}"),
        }
    }
}

impl FromStr for PolicyVersion {
    type Err = PolicyError;

    fn from_str(text: &str) -> Result<Self, PolicyError> {
        if text == "default" {
            return Ok(Self::default());
        }
        let digits = text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let number = u64::from_str_radix(text, 16).ok().filter(|number| digits && *number != 0);
        number.map(Self).ok_or_else(|| {
            PolicyError::Shape(format!("'{text}' is no version of settings: it has 16 digits"))
        })
    }
}

/// The policies of one collection: a default, and exceptions by path.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Policies {
    default: Policy,
    rules: Vec<PathRule>,
    regions: Vec<RegionName>,
    version: PolicyVersion,
}

impl Policies {
    /// Makes settings of a default, of exceptions, and of the order of regions for
    /// [`Policy::RegionPriority`], the first one first.
    #[must_use]
    pub fn new(default: Policy, mut rules: Vec<PathRule>, regions: Vec<RegionName>) -> Self {
        rules.sort_by(|one, other| one.pattern.cmp(&other.pattern));
        let mut policies = Self { default, rules, regions, version: PolicyVersion::default() };
        if policies != Self::default() {
            policies.version = policies.content_version();
        }
        policies
    }

    /// Reads settings from JSON, as [`Policies::to_json`] writes them; nothing is required.
    ///
    /// # Errors
    /// See [`PolicyError`].
    pub fn read(settings: &Value) -> Result<Self, PolicyError> {
        let shape = |message: &str| PolicyError::Shape(message.to_owned());
        let members = settings.as_object().ok_or_else(|| shape("settings are a JSON object"))?;
        if let Some(name) = members.keys().find(|name| !MEMBERS.contains(&name.as_str())) {
            let known = MEMBERS.join(", ");
            return Err(PolicyError::Shape(format!("unknown setting '{name}': there are {known}")));
        }
        let default = members.get("policy").map(read_policy).transpose()?.unwrap_or_default();
        let none = Map::new();
        let paths = match members.get("paths") {
            None => &none,
            Some(Value::Object(paths)) => paths,
            Some(_) => return Err(shape("'paths' is an object from JSON pointers to policies")),
        };
        let rules: Result<Vec<_>, _> =
            paths.iter().map(|(path, rule)| read_rule(path, rule)).collect();
        let regions = members.get("regions").map(read_regions).transpose()?.unwrap_or_default();
        let policies = Self::new(default, rules?, regions);
        if policies.regions.is_empty() && policies.uses(Policy::RegionPriority) {
            return Err(shape("region-priority needs 'regions', a list with the first one first"));
        }
        Ok(policies)
    }

    /// Returns the settings as JSON.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let rule = |rule: &PathRule| match rule.extent {
            Extent::Parts => json!(rule.policy.to_string()),
            Extent::Whole => json!({ "policy": rule.policy.to_string(), "whole": true }),
        };
        let paths: Map<String, Value> =
            self.rules.iter().map(|r| (r.pattern.to_string(), rule(r))).collect();
        let regions: Vec<_> = self.regions.iter().map(RegionName::as_str).collect();
        let mut members = Map::from_iter([("policy".to_owned(), json!(self.default.to_string()))]);
        members.extend((!paths.is_empty()).then(|| ("paths".to_owned(), Value::Object(paths))));
        members.extend((!regions.is_empty()).then(|| ("regions".to_owned(), json!(regions))));
        Value::Object(members)
    }

    /// Returns the name of these settings.
    #[must_use]
    pub fn version(&self) -> PolicyVersion {
        self.version
    }

    /// Returns the policy of `path`. Of several rules that cover it the longest holds, of equally
    /// long ones the one whose first different token is no `*`.
    #[must_use]
    pub fn of(&self, path: &Path) -> Policy {
        self.rule(path.tokens()).map_or(self.default, |rule| rule.policy)
    }

    /// Returns the outermost container around `path`, or at it, that is policed as one value.
    #[must_use]
    pub fn whole(&self, path: &[String]) -> Option<Whole> {
        let depth = |rule: &PathRule| rule.pattern.0.len();
        let wholes = self.rules.iter().filter(|rule| rule.extent == Extent::Whole);
        let covering = wholes.filter(|rule| rule.pattern.covers_tokens(path));
        let depth = covering.map(depth).min()?;
        let policy = self.rule(path.get(..depth)?).map_or(self.default, |rule| rule.policy);
        Some(Whole { depth, policy })
    }

    /// Tells whether any container is policed as one value.
    #[must_use]
    pub fn has_wholes(&self) -> bool {
        self.rules.iter().any(|rule| rule.extent == Extent::Whole)
    }

    /// Tells whether two settings take the same containers as one value, and choose one of them
    /// or leave that to somebody alike.
    #[must_use]
    pub fn same_wholes(&self, other: &Self) -> bool {
        let wholes = |policies: &Self| -> Vec<(PathPattern, bool)> {
            let whole = policies.rules.iter().filter(|rule| rule.extent == Extent::Whole);
            whole.map(|rule| (rule.pattern.clone(), rule.policy.chooses())).collect()
        };
        wholes(self) == wholes(other)
    }

    /// Returns how far down the order of regions the region of a leader stands; the last place is
    /// for those that are not named.
    #[must_use]
    pub fn priority(&self, leader: Origin) -> usize {
        let place = self.regions.iter().position(|region| leader.is_of(region));
        place.unwrap_or(self.regions.len())
    }

    /// Returns these settings with another policy for one path.
    #[must_use]
    pub fn with(&self, path: &Path, policy: Policy) -> Self {
        let pattern = PathPattern(path.tokens().to_vec());
        let covers = |rule: &PathRule| rule.pattern.0.len() == pattern.0.len();
        let extent = self.rule(path.tokens()).filter(|r| covers(r)).map(|r| r.extent);
        let mut rules = self.rules.clone();
        rules.retain(|rule| rule.pattern != pattern);
        rules.push(PathRule { pattern, policy, extent: extent.unwrap_or_default() });
        Self::new(self.default, rules, self.regions.clone())
    }

    fn uses(&self, policy: Policy) -> bool {
        self.default == policy || self.rules.iter().any(|rule| rule.policy == policy)
    }

    fn rule(&self, tokens: &[String]) -> Option<&PathRule> {
        let mut best: Option<&PathRule> = None;
        for rule in self.rules.iter().filter(|rule| rule.pattern.covers_tokens(tokens)) {
            if best.is_none_or(|best| rule.is_closer_than(best)) {
                best = Some(rule);
            }
        }
        best
    }

    fn content_version(&self) -> PolicyVersion {
        let id = Uuid::new_v5(&VERSION_NAMESPACE, &canonical(&self.to_json()));
        let (high, _) = id.as_u64_pair();
        PolicyVersion(high.max(1))
    }
}

impl PathRule {
    fn is_closer_than(&self, other: &Self) -> bool {
        let stars =
            |rule: &Self| -> Vec<bool> { rule.pattern.0.iter().map(|t| t == "*").collect() };
        let length = |rule: &Self| rule.pattern.0.len();
        (length(self), stars(other)) > (length(other), stars(self))
    }
}

fn read_policy(value: &Value) -> Result<Policy, PolicyError> {
    let shape = || PolicyError::Shape("a policy is text, such as \"lww\"".to_owned());
    value.as_str().ok_or_else(shape)?.parse()
}

fn read_rule(path: &str, rule: &Value) -> Result<PathRule, PolicyError> {
    let pattern: PathPattern = path.parse()?;
    let Value::Object(members) = rule else {
        return Ok(PathRule { pattern, policy: read_policy(rule)?, extent: Extent::Parts });
    };
    let shape = || {
        let text = "is a policy, or {\"policy\": …, \"whole\": true} for a container as one value";
        PolicyError::Shape(format!("'{path}' {text}"))
    };
    if members.keys().any(|name| name != "policy" && name != "whole") {
        return Err(shape());
    }
    let extent = match members.get("whole") {
        None | Some(Value::Bool(false)) => Extent::Parts,
        Some(Value::Bool(true)) => Extent::Whole,
        Some(_) => return Err(shape()),
    };
    let policy = members.get("policy").ok_or_else(shape).and_then(read_policy)?;
    Ok(PathRule { pattern, policy, extent })
}

fn read_regions(value: &Value) -> Result<Vec<RegionName>, PolicyError> {
    let shape = |message: String| PolicyError::Shape(message);
    let list = value.as_array().filter(|list| list.len() <= MAX_REGIONS).ok_or_else(|| {
        shape(format!("'regions' is a list of at most {MAX_REGIONS} regions, the first one first"))
    })?;
    let mut regions: Vec<RegionName> = Vec::new();
    for name in list {
        let name = name.as_str().ok_or_else(|| shape("a region is named by text".into()))?;
        let region: RegionName = name.parse().map_err(|error| shape(format!("{error}")))?;
        if regions.contains(&region) {
            return Err(shape(format!("region '{name}' is named twice")));
        }
        regions.push(region);
    }
    Ok(regions)
}

const MEMBERS: [&str; 3] = ["policy", "paths", "regions"];

/// Regions of one order: more than any cluster has.
const MAX_REGIONS: usize = 256;

/// The UUID namespace of settings; it never changes, because versions follow from it.
const VERSION_NAMESPACE: Uuid = Uuid::from_bytes([
    0x47, 0xf0, 0x9e, 0x2b, 0xd1, 0x3c, 0x4a, 0x85, 0x90, 0x6e, 0x58, 0x1f, 0xc7, 0xa2, 0x33, 0x0d,
]);

#[cfg(test)]
mod tests;
