//! How conflicts look on a terminal.

use super::row::Row;
use crate::cli::output::{printable, render_table, shorten};

/// Lays out a list, one conflict per row.
pub(super) fn list(rows: &[Row], width: Option<u16>) -> String {
    let header = ["id", "document", "path", "state", "regions", "shows"];
    render_table(&header, rows.iter().map(line).collect(), width)
}

fn line(row: &Row) -> Vec<String> {
    let mut regions: Vec<&str> =
        row.candidates.iter().map(|c| c.region.as_deref().unwrap_or("client")).collect();
    regions.sort_unstable();
    regions.dedup();
    vec![
        row.id.chars().take(SHORT_ID).collect(),
        shorten(&printable(&row.document_name()), LIST_DOCUMENT),
        shorten(&printable(&row.place()), LIST_PATH),
        printable(&row.state),
        printable(&regions.join(" ")),
        shorten(&shown(row), LIST_VALUE),
    ]
}

/// Lays out everything that is known about one conflict.
pub(super) fn show(row: &Row, width: Option<u16>) -> String {
    let facts = [
        ("conflict", row.id.clone()),
        ("document", row.document_name()),
        ("path", row.place()),
        ("kind", row.kind.clone()),
        ("policy", row.policy.clone()),
        ("state", row.state.clone()),
        ("shows", shown(row)),
        ("why", row.why.clone().unwrap_or_else(|| "-".to_owned())),
    ];
    let facts = facts.map(|(name, value)| vec![name.to_owned(), printable(&value)]);
    let facts = render_table(&[], facts.to_vec(), width);
    let mut text = format!("{facts}\n\n{}\n", candidates(row, width));
    if let Some(settled) = &row.settled {
        text.push_str(&format!(
            "\nsettled by {} at {}, change {}\n",
            printable(&settled.writer()),
            printable(&settled.at.show()),
            shorten(&printable(&settled.change), SHORT_HASH)
        ));
        if let Some(note) = &settled.note {
            text.push_str(&format!("note: {}\n", printable(note)));
        }
    } else if row.is_open() {
        let id: String = row.id.chars().take(SHORT_ID).collect();
        text.push_str(&format!("\nTo settle it: anabranch conflicts resolve {id} --take NUMBER\n"));
    }
    text.trim_end().to_owned()
}

fn candidates(row: &Row, width: Option<u16>) -> String {
    let winner = row.winner_index();
    let lines = row.candidates.iter().enumerate().map(|(index, candidate)| {
        let mark = if winner == Some(index) { "*" } else { "" };
        vec![
            format!("{}{mark}", index + 1),
            shorten(&printable(&candidate.text()), SHOW_VALUE),
            printable(&candidate.writer()),
            printable(&candidate.at.show()),
            shorten(&printable(&candidate.id), SHORT_CANDIDATE),
        ]
    });
    let header = ["#", "value", "written by", "at", "candidate"];
    render_table(&header, lines.collect(), width)
}

fn shown(row: &Row) -> String {
    let winner = row.winner_index().and_then(|index| row.candidates.get(index));
    winner.map_or_else(|| "a later value".to_owned(), |candidate| printable(&candidate.text()))
}

/// Digits of an id that tell conflicts apart in practice; any unique beginning is accepted.
const SHORT_ID: usize = 8;
const SHORT_CANDIDATE: usize = 14;
const SHORT_HASH: usize = 9;
const LIST_DOCUMENT: usize = 40;
const LIST_PATH: usize = 40;
const LIST_VALUE: usize = 60;
const SHOW_VALUE: usize = 2_000;

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn conflict() -> Value {
        json!({
            "id": "3f2a9c1b7d4e4f0a8b6c5d2e1f009a8b",
            "document": "cities/paris",
            "path": "/population",
            "kind": "value",
            "policy": "auto",
            "state": "open",
            "winner": "12@a1b2c3d4e5f60718293a4b5c6d7e8f90",
            "why": "the greatest operation id shows until someone decides",
            "candidates": [
                {"id": "12@5d0c11223344556677889900aabbccdd", "value": 2102650, "deleted": false,
                 "region": "us-east", "origin": "5d0c1122-3344-5566-7788-9900aabbccdd",
                 "at": "2026-03-01T10:15:30.123456Z",
                 "change": "aa11bb22cc33dd44ee55ff66aa11bb22cc33dd44ee55ff66aa11bb22cc33dd44"},
                {"id": "12@a1b2c3d4e5f60718293a4b5c6d7e8f90", "value": 2099000, "deleted": false,
                 "region": "eu-west", "origin": "a1b2c3d4-e5f6-0718-293a-4b5c6d7e8f90",
                 "at": 1772360130124000_i64,
                 "change": "0011bb22cc33dd44ee55ff66aa11bb22cc33dd44ee55ff66aa11bb22cc33dd44"},
            ],
            "settled": null,
        })
    }

    fn row(change: impl FnOnce(&mut Value)) -> Row {
        let mut value = conflict();
        change(&mut value);
        Row::read(value).unwrap()
    }

    fn check_width(text: &str) {
        for line in text.lines() {
            assert!(line.chars().count() <= 80, "{line:?} is wider than 80 in\n{text}");
        }
    }

    #[test]
    fn a_list_fits_80_columns() {
        let deleted = row(|v| {
            v["id"] = json!("77aa0000000000000000000000000000");
            v["path"] = json!("");
            v["state"] = json!("auto-resolved");
            v["candidates"][1]["deleted"] = json!(true);
        });
        let text = list(&[row(|_| {}), deleted], Some(80));
        check_width(&text);
        let expected = "\
ID        DOCUMENT      PATH              STATE          REGIONS  SHOWS
3f2a9c1b  cities/paris  /population       open           eu-west  2099000
                                                         us-east
77aa0000  cities/paris  (whole document)  auto-resolved  eu-west  (deleted)
                                                         us-east";
        assert_eq!(text, expected);
    }

    #[test]
    fn long_names_and_values_wrap_inside_80_columns() {
        let long = row(|v| {
            v["document"] = json!(format!("cities/{}", "long-".repeat(30)));
            v["path"] = json!("/a/b/c".repeat(20));
            v["candidates"][1]["value"] = json!("word ".repeat(100));
        });
        check_width(&list(std::slice::from_ref(&long), Some(80)));
        check_width(&show(&long, Some(80)));
    }

    #[test]
    fn show_says_who_wrote_what_where_when_and_why() {
        let text = show(&row(|_| {}), Some(80));
        check_width(&text);
        let expected = "\
conflict  3f2a9c1b7d4e4f0a8b6c5d2e1f009a8b
document  cities/paris
path      /population
kind      value
policy    auto
state     open
shows     2099000
why       the greatest operation id shows until someone decides

#   VALUE    WRITTEN BY          AT                        CANDIDATE
1   2102650  us-east (5d0c1122)  2026-03-01 10:15:30.123Z  12@5d0c112233…
2*  2099000  eu-west (a1b2c3d4)  2026-03-01 10:15:30.124Z  12@a1b2c3d4e5…

To settle it: anabranch conflicts resolve 3f2a9c1b --take NUMBER";
        assert_eq!(text, expected);
    }

    #[test]
    fn show_says_how_a_conflict_ended() {
        let text = show(
            &row(|v| {
                v["state"] = json!("resolved");
                v["winner"] = Value::Null;
                v["settled"] = json!({
                    "region": "ap-south", "origin": "00ff00ff-0000-0000-0000-000000000000",
                    "at": 1772360190000000_i64, "change": "ffee", "note": "census\u{1b}[2J",
                });
            }),
            Some(80),
        );
        check_width(&text);
        assert!(text.contains("shows     a later value"), "{text}");
        assert!(
            text.contains("settled by ap-south (00ff00ff) at 2026-03-01 10:16:30.000Z"),
            "{text}"
        );
        assert!(text.ends_with("note: census\\u{1b}[2J"), "{text}");
    }

    #[test]
    fn candidates_are_named_by_number_id_or_beginning() {
        let row = row(|_| {});
        let first = "12@5d0c11223344556677889900aabbccdd";
        let second = "12@a1b2c3d4e5f60718293a4b5c6d7e8f90";
        for (text, id) in [("1", first), ("2", second), ("12@5", first), (second, second)] {
            assert_eq!(row.candidate(text), Ok(id));
        }
        for (text, part) in
            [("0", "1 to 2"), ("3", "1 to 2"), ("12@", "more than one"), ("", "1 to 2")]
        {
            let error = row.candidate(text).unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
