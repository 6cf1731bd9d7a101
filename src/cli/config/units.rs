//! Sizes and durations as people write them: `4MiB`, `250ms`.

use std::time::Duration;

/// A text that is no size or no duration; the message says what is expected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct UnitError(String);

/// Reads a number of bytes: a whole number with `B`, `KiB`, `MiB`, `GiB`, `KB`, `MB`, `GB`, or
/// without a unit.
///
/// # Errors
/// The text is no such size, or is too great to count.
pub(crate) fn parse_size(text: &str) -> Result<u64, UnitError> {
    let (number, unit) = split(text)
        .ok_or_else(|| UnitError(format!("'{text}' is no size: write 512KiB or 4MiB")))?;
    let factor: u64 = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "kib" => 1 << 10,
        "mib" => 1 << 20,
        "gib" => 1 << 30,
        "kb" => 1_000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        _ => {
            return Err(UnitError(format!(
                "'{unit}' is no unit of size: use B, KiB, MiB, GiB, KB, MB or GB"
            )));
        }
    };
    number.checked_mul(factor).ok_or_else(|| UnitError(format!("'{text}' is too great a size")))
}

/// Reads a number of bytes per second: a size with `/s`.
///
/// # Errors
/// The text is no such rate, or is too great to count.
pub(crate) fn parse_rate(text: &str) -> Result<u64, UnitError> {
    let wrong = || UnitError(format!("'{text}' is no rate: write 10MB/s or 512KiB/s"));
    let size = text.trim().strip_suffix("/s").ok_or_else(wrong)?;
    parse_size(size.trim()).map_err(|_| wrong())
}

/// Writes a number of bytes per second.
pub(crate) fn format_rate(rate: u64) -> String {
    let units = [("GB", 1_000_000_000), ("MB", 1_000_000), ("KB", 1_000)];
    let fits = |(_, factor): &&(&str, u64)| rate >= *factor && rate.is_multiple_of(*factor);
    units.iter().find(fits).map_or_else(
        || format!("{}/s", format_size(rate)),
        |(unit, factor)| format!("{}{unit}/s", rate / factor),
    )
}

/// Reads a duration: a whole number with `ms`, `s`, `min`, `h` or `d`. A unit is required, because a bare
/// number would leave open which is meant.
///
/// # Errors
/// The text is no such duration.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, UnitError> {
    let (number, unit) = split(text)
        .ok_or_else(|| UnitError(format!("'{text}' is no duration: write 250ms, 5s or 1min")))?;
    let factor: u64 = match unit {
        "ms" => 1,
        "s" => 1_000,
        "min" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        "" => {
            return Err(UnitError(format!(
                "'{text}' has no unit: write {text}ms, {text}s, {text}min, {text}h or {text}d"
            )));
        }
        _ => {
            return Err(UnitError(format!("'{unit}' is no unit of time: use ms, s, min, h or d")));
        }
    };
    number
        .checked_mul(factor)
        .map(Duration::from_millis)
        .ok_or_else(|| UnitError(format!("'{text}' is too long a duration")))
}

/// Writes a number of bytes in the greatest unit that gives a whole number.
pub(crate) fn format_size(bytes: u64) -> String {
    let units = [("GiB", 1_u64 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    units
        .iter()
        .find(|(_, factor)| bytes >= *factor && bytes.is_multiple_of(*factor))
        .map_or_else(|| format!("{bytes}B"), |(unit, factor)| format!("{}{unit}", bytes / factor))
}

/// Writes milliseconds in days, hours or seconds where that gives a whole number.
pub(crate) fn format_millis(millis: u64) -> String {
    let units = [("d", 86_400_000), ("h", 3_600_000), ("s", 1_000)];
    let whole = |(_, factor): &&(&str, u64)| {
        (millis >= *factor || *factor == 1_000) && millis.is_multiple_of(*factor)
    };
    units.iter().find(whole).map_or_else(
        || format!("{millis}ms"),
        |(unit, factor)| format!("{}{unit}", millis / factor),
    )
}

fn split(text: &str) -> Option<(u64, &str)> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    Some((number.parse().ok()?, unit.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read() {
        for (text, bytes) in [
            ("0", 0),
            ("17", 17),
            ("17B", 17),
            ("4KiB", 4_096),
            ("4 MiB", 4 << 20),
            ("1gib", 1 << 30),
            ("2MB", 2_000_000),
        ] {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
        for text in
            ["", "MiB", "-1", "1.5MiB", "4 MiBs", "99999999999999999999", "18446744073709551615KiB"]
        {
            assert!(parse_size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn durations_are_read_and_need_a_unit() {
        for (text, millis) in [
            ("250ms", 250),
            ("5s", 5_000),
            ("2min", 120_000),
            ("0s", 0),
            ("2h", 7_200_000),
            ("1d", 86_400_000),
        ] {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for text in ["", "5", "s", "1.5s", "5 hours", "18446744073709551615s"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
        assert!(
            parse_duration("5").unwrap_err().to_string().contains("write 5ms, 5s, 5min, 5h or 5d")
        );
    }

    #[test]
    fn sizes_and_times_are_written_as_they_are_read() {
        for text in ["4MiB", "512KiB", "3GiB", "1000B"] {
            assert_eq!(format_size(parse_size(text).unwrap()), text);
        }
        assert_eq!(format_millis(5_000), "5s");
        assert_eq!(format_millis(250), "250ms");
        for text in ["90d", "36h", "0s"] {
            let duration = parse_duration(text).unwrap();
            assert_eq!(format_millis(duration.as_millis() as u64), text);
        }
    }
}
