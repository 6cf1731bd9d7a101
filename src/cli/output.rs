//! What commands print: data on stdout, messages on stderr, tables that fit the terminal.

use std::io::{self, ErrorKind, IsTerminal, Write};

use comfy_table::{ContentArrangement, Table, presets};
use serde_json::Value;

use crate::cli::Failure;

/// How data is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub(crate) enum Format {
    /// For people.
    #[default]
    Table,
    /// For programs.
    Json,
}

/// Writes a line of data to stdout.
///
/// # Errors
/// `OutputClosed` if the reader has gone, `General` if the output cannot be written.
pub(crate) fn print(line: impl AsRef<[u8]>) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    out.write_all(line.as_ref())
        .and_then(|()| out.write_all(b"\n"))
        .and_then(|()| out.flush())
        .map_err(|error| closed_or("stdout", &error))
}

/// Writes JSON to stdout, indented for a terminal and on one line for a program.
///
/// # Errors
/// As [`print`].
pub(crate) fn print_json(value: &Value) -> Result<(), Failure> {
    let text = if io::stdout().is_terminal() { format!("{value:#}") } else { value.to_string() };
    print(text)
}

/// Writes a message for people to stderr. A closed stderr is no reason to fail.
pub(crate) fn note(message: impl AsRef<str>) {
    // In one piece, so that the messages of commands that run at the same time do not mix.
    let line = format!("{}\n", message.as_ref());
    let _ = io::stderr().lock().write_all(line.as_bytes());
}

/// Turns a failed write into a failure; a reader that has gone, as `head` does, is none.
pub(crate) fn closed_or(what: &str, error: &io::Error) -> Failure {
    if error.kind() == ErrorKind::BrokenPipe {
        Failure::OutputClosed
    } else {
        Failure::General(format!("cannot write {what}: {error}"))
    }
}

/// Prints a table as wide as the terminal, or as wide as its content where there is none.
///
/// # Errors
/// As [`print`].
pub(crate) fn print_table(header: &[&str], rows: Vec<Vec<String>>) -> Result<(), Failure> {
    let width = terminal_width();
    print(render_table(header, rows, width))
}

/// Returns how wide the terminal is, if stdout is one.
pub(crate) fn terminal_width() -> Option<u16> {
    Table::new().width()
}

/// Lays out a table in at most `width` columns; without titles it has no header.
pub(crate) fn render_table(header: &[&str], rows: Vec<Vec<String>>, width: Option<u16>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_content_arrangement(ContentArrangement::Disabled);
    if let Some(width) = width {
        table.set_content_arrangement(ContentArrangement::Dynamic).set_width(width);
    }
    table.force_no_tty();
    if header.iter().any(|title| !title.is_empty()) {
        table.set_header(header.iter().map(|title| title.to_uppercase()).collect::<Vec<_>>());
    }
    table.add_rows(rows);
    table.column_iter_mut().for_each(|column| {
        column.set_padding((0, 2));
    });
    let lines: Vec<String> = table.lines().map(|line| line.trim_end().to_owned()).collect();
    lines.join("\n")
}

/// Makes text safe to show: whatever could move the cursor or reorder the line is escaped.
pub(crate) fn printable(text: &str) -> String {
    let reorders = |c: char| matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() || reorders(c) {
            safe.extend(c.escape_unicode());
        } else {
            safe.push(c);
        }
    }
    safe
}

/// Cuts text to `width` characters, and shows that it did.
pub(crate) fn shorten(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    let kept: String = text.chars().take(width.saturating_sub(1)).collect();
    format!("{kept}…")
}

/// Writes a count with commas between thousands.
pub(crate) fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Writes "1 document" or "2 documents".
pub(crate) fn plural(number: u64, noun: &str) -> String {
    let ending = if number == 1 { "" } else { "s" };
    format!("{} {noun}{ending}", thousands(number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_play_tricks_on_a_terminal_is_escaped() {
        assert_eq!(printable("caf\u{e9} \u{1f30d}"), "caf\u{e9} \u{1f30d}");
        assert_eq!(printable("a\u{1b}[31mb"), "a\\u{1b}[31mb");
        assert_eq!(printable("\u{9b}x\u{202e}y"), "\\u{9b}x\\u{202e}y");
    }

    #[test]
    fn long_text_is_cut_by_characters() {
        assert_eq!(shorten("éééé", 4), "éééé");
        assert_eq!(shorten("ééééé", 4), "ééé…");
    }

    #[test]
    fn counts_are_readable() {
        for (number, text) in [(0, "0"), (999, "999"), (1_000, "1,000"), (12_345_678, "12,345,678")]
        {
            assert_eq!(thousands(number), text);
        }
        assert_eq!(plural(1, "document"), "1 document");
        assert_eq!(plural(0, "document"), "0 documents");
    }

    #[test]
    fn a_table_without_titles_starts_with_its_first_row() {
        let rows = vec![vec!["etag".to_owned(), "x".to_owned()]];
        assert_eq!(render_table(&["", ""], rows, None), "etag  x");
    }

    #[test]
    fn a_table_has_no_trailing_blanks_and_keeps_its_width() {
        let rows = vec![vec!["a".to_owned(), "word ".repeat(30)]];
        let text = render_table(&["id", "text"], rows, Some(40));
        assert!(text.starts_with("ID"), "{text}");
        for line in text.lines() {
            assert!(line.chars().count() <= 40, "{line:?}");
            assert_eq!(line.trim_end(), line);
        }
    }
}
