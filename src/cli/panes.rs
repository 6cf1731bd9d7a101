//! Text in columns of a terminal: wrapped by the width that is seen, and panes next to each other.

use serde_json::Value;
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use super::output::printable;

/// One of several texts that stand next to each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pane {
    /// Its title.
    pub(crate) title: String,
    /// Its lines, which are wrapped.
    pub(crate) lines: Vec<String>,
}

/// Lays out panes next to each other, and below each other where they would be too narrow.
pub(crate) fn side_by_side(panes: &[Pane], width: usize) -> String {
    let per_band = ((width + GAP.width()) / (NARROWEST + GAP.width())).max(1);
    let bands: Vec<String> = panes.chunks(per_band).map(|band| lay_out(band, width)).collect();
    bands.join("\n\n")
}

fn lay_out(band: &[Pane], width: usize) -> String {
    let gaps = GAP.width() * band.len().saturating_sub(1);
    let column = width.saturating_sub(gaps) / band.len().max(1);
    let columns: Vec<Vec<String>> = band
        .iter()
        .map(|pane| {
            let lines = std::iter::once(&pane.title).chain(&pane.lines);
            lines.flat_map(|line| wrap(line, column)).collect()
        })
        .collect();
    let height = columns.iter().map(Vec::len).max().unwrap_or(0);
    let row = |n: usize| {
        let cells: Vec<String> =
            columns.iter().map(|lines| pad(lines.get(n).map_or("", |line| line), column)).collect();
        cells.join(GAP).trim_end().to_owned()
    };
    (0..height).map(row).collect::<Vec<_>>().join("\n")
}

/// Fills a text with blanks, or cuts it, so that it takes `width` columns.
pub(crate) fn pad(text: &str, width: usize) -> String {
    let mut fitted = fit(text, width);
    fitted.push_str(&" ".repeat(width.saturating_sub(fitted.width())));
    fitted
}

/// Cuts a text to `width` columns, and shows that it did.
pub(crate) fn fit(text: &str, width: usize) -> String {
    if text.width() <= width {
        return text.to_owned();
    }
    let mut kept = String::new();
    let mut used = 0;
    for c in text.chars() {
        used += c.width().unwrap_or(0);
        if used >= width {
            break;
        }
        kept.push(c);
    }
    if width > 0 {
        kept.push('…');
    }
    kept
}

/// Breaks a line into lines of at most `width` columns, after a blank where there is one in the
/// last two thirds of the line.
pub(crate) fn wrap(line: &str, width: usize) -> Vec<String> {
    let width = width.max(2);
    let mut lines = Vec::new();
    let mut rest = line;
    while rest.width() > width {
        let end = break_point(rest, width);
        let (head, tail) = rest.split_at(end);
        lines.push(head.trim_end().to_owned());
        rest = tail.trim_start_matches(' ');
    }
    if !rest.is_empty() || lines.is_empty() {
        lines.push(rest.to_owned());
    }
    lines
}

/// Returns the byte at which a line that is too long goes on in the next one; never 0.
fn break_point(line: &str, width: usize) -> usize {
    let mut used = 0;
    let mut blank = None;
    for (at, c) in line.char_indices() {
        used += c.width().unwrap_or(0);
        if c == ' ' && used > width / 3 {
            blank = Some(at + 1);
        }
        if used > width && at > 0 {
            return blank.filter(|blank| *blank <= at + 1).unwrap_or(at);
        }
    }
    line.len()
}

/// Writes JSON over several lines of `width` columns, safe to show, and cut after `most` lines.
pub(crate) fn value_lines(value: &Value, width: usize, most: usize) -> Vec<String> {
    let text = format!("{value:#}");
    let mut lines = text.lines().flat_map(|line| wrap(&printable(line), width));
    let mut shown: Vec<String> = lines.by_ref().take(most).collect();
    let more = lines.take(MORE_COUNTED).count();
    match more {
        0 => {}
        MORE_COUNTED => shown.push(format!("… over {MORE_COUNTED} lines more")),
        more => shown.push(format!("… {more} lines more")),
    }
    shown
}

/// Between two panes.
const GAP: &str = " │ ";

/// A narrower pane cannot be read: four of this width fit into 80 columns.
const NARROWEST: usize = 17;

/// Lines that are counted of what is cut off.
const MORE_COUNTED: usize = 9_999;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pane(title: &str, lines: &[&str]) -> Pane {
        Pane {
            title: title.to_owned(),
            lines: lines.iter().map(|line| (*line).to_owned()).collect(),
        }
    }

    #[test]
    fn lines_break_at_blanks_and_long_words_anywhere() {
        assert_eq!(wrap("", 10), [""]);
        assert_eq!(wrap("one two three", 8), ["one two", "three"]);
        assert_eq!(wrap("abcdefghij", 4), ["abcd", "efgh", "ij"]);
        assert_eq!(wrap("a bcdefghij", 6), ["a bcde", "fghij"]);
    }

    #[test]
    fn wide_characters_take_two_columns() {
        assert_eq!(wrap("東京都庁", 5), ["東京", "都庁"]);
        assert_eq!(wrap("東", 1), ["東"]);
        assert_eq!(pad("東京", 3), "東…");
        assert_eq!(pad("ab", 4), "ab  ");
        assert_eq!(fit("abc", 0), "");
    }

    #[test]
    fn every_width_ends_and_loses_nothing() {
        let text = "a東b c\u{301} some words 京 and_a_long_one_here";
        for width in 0..60 {
            let lines = wrap(text, width);
            let without = |text: &str| text.replace(' ', "");
            assert_eq!(without(&lines.concat()), without(text), "{width}");
            assert!(lines.iter().all(|line| line.width() <= width.max(2)), "{width}: {lines:?}");
        }
    }

    #[test]
    fn panes_stand_side_by_side_and_below_each_other_where_it_is_narrow() {
        let panes = [pane("ONE", &["a", "b"]), pane("TWO", &["some longer text here"])];
        assert_eq!(
            side_by_side(&panes, 40),
            "ONE                │ TWO\na                  │ some longer text\nb                  │ here"
        );
        assert_eq!(side_by_side(&panes, 20), "ONE\na\nb\n\nTWO\nsome longer text\nhere");
        assert_eq!(side_by_side(&[], 80), "");
    }

    #[test]
    fn values_are_indented_safe_and_cut() {
        let value = json!({"a": "x\u{9b}y", "b": [1, 2, 3, 4]});
        let lines = value_lines(&value, 20, 3);
        assert_eq!(lines, ["{", "  \"a\": \"x\\u{9b}y\",", "  \"b\": [", "… 6 lines more"]);
        assert_eq!(value_lines(&json!("two words"), 80, 1), ["\"two words\""]);
    }
}
