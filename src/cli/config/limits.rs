//! The `[limits]` section: one table says which limits there are and how far each may be moved.

use std::time::Duration;

use toml::Spanned;
use toml::de::DeValue;

use super::reader::{ConfigError, Section};
use super::units::{
    format_millis, format_rate, format_size, parse_duration, parse_rate, parse_size,
};
use crate::settings::{Compression, Limits};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Measure {
    Bytes,
    Count,
    Millis,
    Rate,
    Switch,
}

struct Limit {
    key: &'static str,
    measure: Measure,
    least: u64,
    most: u64,
    set: fn(&mut Limits, u64),
}

impl Limit {
    fn show(&self, value: u64) -> String {
        match self.measure {
            Measure::Bytes => format_size(value),
            Measure::Count => value.to_string(),
            Measure::Millis => format_millis(value),
            Measure::Rate => format_rate(value),
            Measure::Switch => (value != 0).to_string(),
        }
    }

    fn example(&self) -> &'static str {
        match self.measure {
            Measure::Bytes => "a size such as \"4MiB\"",
            Measure::Count => "a whole number such as 1024",
            Measure::Millis => "a duration such as \"5s\"",
            Measure::Rate => "a rate such as \"10MB/s\"",
            Measure::Switch => "true or false",
        }
    }

    fn read(&self, value: &DeValue<'_>) -> Result<u64, String> {
        let whole = value
            .as_integer()
            .filter(|_| !matches!(self.measure, Measure::Millis | Measure::Switch))
            .and_then(|n| u64::from_str_radix(n.as_str(), n.radix()).ok());
        if let Some(number) = whole {
            return Ok(number);
        }
        if let (Measure::Switch, Some(switch)) = (self.measure, value.as_bool()) {
            return Ok(u64::from(switch));
        }
        match (self.measure, value.as_str()) {
            (Measure::Rate, Some(text)) => parse_rate(text).map_err(|e| e.to_string()),
            (Measure::Bytes, Some(text)) => parse_size(text).map_err(|e| e.to_string()),
            (Measure::Millis, Some(text)) => parse_duration(text)
                .map(|d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX))
                .map_err(|e| e.to_string()),
            (
                Measure::Bytes | Measure::Count | Measure::Millis | Measure::Rate | Measure::Switch,
                _,
            ) => Err(format!("'{}' must be {}", self.key, self.example())),
        }
    }
}

/// Reads the section; what it leaves out keeps its default.
pub(super) fn read(section: &Section<'_>) -> Result<Limits, ConfigError> {
    let known: Vec<&str> = LIMITS.iter().map(|limit| limit.key).collect();
    section.only(&known)?;
    let mut limits = Limits::default();
    for limit in LIMITS {
        if let Some(value) = section.optional(limit.key) {
            (limit.set)(&mut limits, within(section, limit, value)?);
        }
    }
    together(section, &limits)?;
    Ok(limits)
}

/// Reads the cap of a region, if its section has one.
pub(super) fn bandwidth(section: &Section<'_>) -> Result<Option<u64>, ConfigError> {
    let Some(value) = section.optional(BANDWIDTH.key) else { return Ok(None) };
    within(section, &BANDWIDTH, value).map(Some)
}

const BANDWIDTH: Limit = Limit {
    key: "bandwidth",
    measure: Measure::Rate,
    least: LEAST_BANDWIDTH,
    most: MOST_BANDWIDTH,
    set: |_, _| {},
};

fn within(
    section: &Section<'_>,
    limit: &Limit,
    value: &Spanned<DeValue<'_>>,
) -> Result<u64, ConfigError> {
    let complain = |message: String| {
        section.source.error(&value.span(), message).help(format!(
            "'{}' is {}, from {} to {}",
            limit.key,
            limit.example(),
            limit.show(limit.least),
            limit.show(limit.most)
        ))
    };
    let number = limit.read(value.get_ref()).map_err(complain)?;
    if number < limit.least {
        return Err(complain(format!("'{}' is too small", limit.key)));
    }
    if number > limit.most {
        return Err(complain(format!("'{}' is too great", limit.key)));
    }
    Ok(number)
}

/// Limits that contradict each other could never be met.
fn together(section: &Section<'_>, limits: &Limits) -> Result<(), ConfigError> {
    let pairs = [
        ("document", limits.document_bytes, "body", limits.body_bytes),
        ("body", limits.body_bytes, "in_flight", limits.in_flight_bytes),
    ];
    for (inner, small, outer, great) in pairs {
        if small > great {
            let culprit = section.optional(inner).or_else(|| section.optional(outer));
            let span = culprit.map_or_else(|| section.span.clone(), Spanned::span);
            let (small, great) = (format_size(small as u64), format_size(great as u64));
            return Err(section
                .source
                .error(&span, format!("'{inner}' ({small}) is greater than '{outer}' ({great})"))
                .help(format!("raise '{outer}' or lower '{inner}'")));
        }
    }
    Ok(())
}

/// On the supported targets a limit that passed its upper bound fits.
fn usize_of(value: u64) -> usize {
    usize::try_from(value).unwrap_or(usize::MAX)
}

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const DAY: u64 = 24 * 3_600 * 1_000;

const LIMITS: &[Limit] = &[
    Limit {
        key: "document",
        measure: Measure::Bytes,
        least: KIB,
        most: 64 * MIB,
        set: |limits, value| limits.document_bytes = usize_of(value),
    },
    Limit {
        key: "nesting",
        measure: Measure::Count,
        least: 1,
        most: 128,
        set: |limits, value| limits.nesting = usize_of(value),
    },
    Limit {
        key: "body",
        measure: Measure::Bytes,
        least: KIB,
        most: 128 * MIB,
        set: |limits, value| limits.body_bytes = usize_of(value),
    },
    Limit {
        key: "in_flight",
        measure: Measure::Bytes,
        least: KIB,
        most: 16 * GIB,
        set: |limits, value| limits.in_flight_bytes = usize_of(value),
    },
    Limit {
        key: "changes_warning",
        measure: Measure::Count,
        least: 1,
        most: 1_000_000_000,
        set: |limits, value| limits.changes_warning = value,
    },
    Limit {
        key: "frame",
        measure: Measure::Bytes,
        least: 64 * KIB,
        most: 64 * MIB,
        set: |limits, value| limits.frame_bytes = usize_of(value),
    },
    Limit {
        key: "batch",
        measure: Measure::Count,
        least: 1,
        most: 65_536,
        set: |limits, value| limits.batch_entries = usize_of(value),
    },
    Limit {
        key: "queue",
        measure: Measure::Count,
        least: 1,
        most: 1_000_000,
        set: |limits, value| limits.queue = usize_of(value),
    },
    Limit {
        key: "cache",
        measure: Measure::Bytes,
        least: MIB,
        most: 1_024 * GIB,
        set: |limits, value| limits.cache_bytes = usize_of(value),
    },
    Limit {
        key: "session_wait",
        measure: Measure::Millis,
        least: 0,
        most: 60_000,
        set: |limits, value| limits.session_wait = Duration::from_millis(value),
    },
    Limit {
        key: "concern_wait",
        measure: Measure::Millis,
        least: 1,
        most: 3_600_000,
        set: |limits, value| limits.concern_wait = Duration::from_millis(value),
    },
    Limit {
        key: "settle_within",
        measure: Measure::Millis,
        least: 1,
        most: 60_000,
        set: |limits, value| limits.settle_within = Duration::from_millis(value),
    },
    Limit {
        key: "clock_skew",
        measure: Measure::Millis,
        least: 1,
        most: 60_000,
        set: |limits, value| limits.clock_skew = Duration::from_millis(value),
    },
    Limit {
        key: "conflict_age",
        measure: Measure::Millis,
        least: 1_000,
        most: 3_650 * DAY,
        set: |limits, value| limits.conflict_age = Duration::from_millis(value),
    },
    Limit {
        key: "purge_age",
        measure: Measure::Millis,
        least: 0,
        most: 3_650 * DAY,
        set: |limits, value| limits.purge_age = Duration::from_millis(value),
    },
    Limit {
        key: "conflict_rows",
        measure: Measure::Count,
        least: 0,
        most: 1_000_000_000,
        set: |limits, value| limits.conflict_rows = value,
    },
    Limit {
        key: "verify_interval",
        measure: Measure::Millis,
        least: 0,
        most: 365 * DAY,
        set: |limits, value| limits.verify_interval = Duration::from_millis(value),
    },
    Limit {
        key: "verify_rate",
        measure: Measure::Count,
        least: 0,
        most: 1_000_000_000,
        set: |limits, value| limits.verify_rate = u32::try_from(value).unwrap_or(u32::MAX),
    },
    Limit {
        key: "journal_keep",
        measure: Measure::Millis,
        least: 0,
        most: 3_650 * DAY,
        set: |limits, value| limits.journal_keep = Duration::from_millis(value),
    },
    Limit {
        key: "journal_age",
        measure: Measure::Millis,
        least: 60_000,
        most: 3_650 * DAY,
        set: |limits, value| limits.journal_age = Duration::from_millis(value),
    },
    Limit {
        key: "journal_bytes",
        measure: Measure::Bytes,
        least: MIB,
        most: 16_384 * GIB,
        set: |limits, value| limits.journal_bytes = value,
    },
    Limit {
        key: "link_bandwidth",
        measure: Measure::Rate,
        least: LEAST_BANDWIDTH,
        most: MOST_BANDWIDTH,
        set: |limits, value| limits.link_bandwidth = Some(value),
    },
    Limit {
        key: "compression",
        measure: Measure::Switch,
        least: 0,
        most: 1,
        set: |limits, value| {
            limits.compression = if value == 0 { Compression::Off } else { Compression::On };
        },
    },
];

/// Below this, digests and acknowledgements alone would fill a link.
pub(super) const LEAST_BANDWIDTH: u64 = 16_000;

/// A greater cap is none.
pub(super) const MOST_BANDWIDTH: u64 = 1_000_000_000_000;
