//! Which of several concurrent writes wins: the one rule for what shows and for what the ledger
//! says.

use std::cmp::Ordering;

use automerge::{ActorId, ObjId, ScalarValue};
use serde_json::{Number, Value};

use crate::ids::{Origin, Timestamp};
use crate::policy::Policy;

/// Everything about a write that a policy looks at.
#[derive(Debug, Clone)]
pub(super) struct Claim {
    /// Compared before anything else; see [`class`].
    pub(super) class: u8,
    pub(super) weight: Weight,
    pub(super) at: Timestamp,
    pub(super) writer: Origin,
    /// How far down the order of regions the writer's leader stands.
    pub(super) place: usize,
    pub(super) operation: (u64, ActorId),
}

impl Claim {
    /// Tells whether the claim is that of an operation itself, and not of its stand-in.
    pub(super) fn is_of(&self, operation: &ObjId) -> bool {
        let ObjId::Id(counter, actor, _) = operation else { return false };
        self.operation.0 == *counter && self.operation.1 == *actor
    }
}

/// What a write did, as far as it matters to who wins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Deed {
    /// It wrote a value, or edited a part of one.
    Write,
    /// It added to a counter.
    Increment,
    /// It deleted the field.
    Delete,
    /// It deleted or replaced an object around the field.
    Removal,
}

/// Nothing brings back a field whose object is gone. Where no time is compared, a write wins over
/// a delete, and over increments of a counter that it replaced.
pub(super) fn class(deed: Deed, policy: Policy) -> u8 {
    let timed = match policy {
        Policy::Lww | Policy::First | Policy::RegionPriority => true,
        Policy::Auto | Policy::Manual | Policy::Max | Policy::Min => false,
    };
    match deed {
        Deed::Removal => 3,
        Deed::Write => 2,
        Deed::Increment if policy.chooses() => 2,
        Deed::Delete if timed => 2,
        Deed::Delete => 1,
        Deed::Increment => 0,
    }
}

/// Compares two writes; the greater one wins.
pub(super) fn compare(policy: Policy, one: &Claim, other: &Claim) -> Ordering {
    let latest = || {
        let key = |claim: &Claim| (claim.at, claim.writer);
        key(one).cmp(&key(other)).then_with(|| one.operation.cmp(&other.operation))
    };
    one.class.cmp(&other.class).then_with(|| match policy {
        Policy::Auto | Policy::Manual => one.operation.cmp(&other.operation),
        Policy::Lww => latest(),
        Policy::First => latest().reverse(),
        Policy::Max if crate::bug!(WrongWinner, at 1) => {
            other.weight.compare(&one.weight).then_with(latest)
        }
        Policy::Max => one.weight.compare(&other.weight).then_with(latest),
        Policy::Min => other.weight.compare(&one.weight).then_with(latest),
        Policy::RegionPriority => other.place.cmp(&one.place).then_with(latest),
    })
}

/// A value in the order that `max` and `min` go by.
#[derive(Debug, Clone)]
pub(super) enum Weight {
    Null,
    Boolean(bool),
    Number(Number),
    Text(String),
    Container,
}

impl Weight {
    pub(super) fn of(value: &Value) -> Self {
        match value {
            Value::Null => Self::Null,
            Value::Bool(truth) => Self::Boolean(*truth),
            Value::Number(number) => Self::Number(number.clone()),
            Value::String(text) => Self::Text(text.clone()),
            Value::Array(_) | Value::Object(_) => Self::Container,
        }
    }

    pub(super) fn of_scalar(scalar: &ScalarValue) -> Self {
        Self::of(&super::view::scalar_json(scalar))
    }

    fn compare(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Self::Boolean(one), Self::Boolean(other)) => one.cmp(other),
            (Self::Text(one), Self::Text(other)) => one.cmp(other),
            (Self::Number(one), Self::Number(other)) => compare_numbers(one, other),
            (one, other) => one.kind().cmp(&other.kind()),
        }
    }

    fn kind(&self) -> u8 {
        match self {
            Self::Null => 0,
            Self::Boolean(_) => 1,
            Self::Number(_) => 2,
            Self::Text(_) => 3,
            Self::Container => 4,
        }
    }
}

fn compare_numbers(one: &Number, other: &Number) -> Ordering {
    match (one.as_i64(), other.as_i64()) {
        (Some(one), Some(other)) => one.cmp(&other),
        _ => {
            let float = |number: &Number| number.as_f64().unwrap_or_default();
            float(one).total_cmp(&float(other))
        }
    }
}
