use ratatui::Terminal;
use ratatui::backend::TestBackend;
use serde_json::{Value, json};

use super::super::super::samples;
use super::super::model::{Editing, Event, Key, Listing};
use super::*;

fn model(rows: Vec<Row>) -> Model {
    let total = rows.len() as u64;
    Model::new("http://127.0.0.1:3031".to_owned(), Editing::Inline, Listing { rows, total })
}

/// Returns the screen as text.
fn screen(model: &Model, width: u16, height: u16) -> String {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| draw(model, frame)).unwrap();
    let buffer = terminal.backend().buffer();
    let line = |y: u16| -> String {
        (0..width).map(|x| buffer[(x, y)].symbol()).collect::<String>().trim_end().to_owned()
    };
    (0..height).map(line).collect::<Vec<_>>().join("\n")
}

fn press(model: &mut Model, keys: &str) {
    for c in keys.chars() {
        model.update(Event::Key(Key::Char(c)));
    }
}

fn settled() -> Row {
    samples::row(|v| {
        v["id"] = json!("77aa0000000000000000000000000000");
        v["document"] = json!("cities/lyon");
        v["path"] = json!("");
        v["state"] = json!("resolved");
        v["kind"] = json!("document");
        v["winner"] = Value::Null;
        v["base"] = Value::Null;
        v["candidates"][0]["deleted"] = json!(true);
        v["acts"] = json!([samples::act("resolve", Some("census"))]);
        v["at"] = json!("2026-03-01T09:00:00Z");
    })
}

#[test]
fn list_sides_and_result_fit_80_by_24() {
    let model = model(vec![samples::row(|_| {}), settled()]);
    let expected = "\
conflicts · every state · 2 · http://127.0.0.1:3031
id        state          document           path               shows
3f2a9c1b  open           cities/paris       /population        2099000
77aa0000  resolved       cities/lyon        (whole document)   a later value
cities/paris /population · value · open · policy auto
┌ base ────────────┐┌ sides ─────────────────────┐┌ result ────────────────────┐
│2100000           ││1  us-east (5d0c1122)       ││side 2 shows                │
│                  ││2026-03-01 10:15:30.123Z    ││2099000                     │
│                  ││2102650                     ││                            │
│                  ││                            ││the greatest operation id   │
│                  ││2* alice in eu-west         ││shows until someone decides │
│                  ││2026-03-01 10:15:30.124Z    ││                            │
│                  ││2099000                     ││                            │
";
    let drawn = screen(&model, 80, 24);
    assert!(drawn.trim_start().starts_with(expected), "{drawn}");
    let last: Vec<&str> = drawn.lines().skip(22).collect();
    assert_eq!(last, ["? shows the keys", KEYS]);
}

#[test]
fn a_lost_connection_is_a_banner_over_everything() {
    let mut model = model(vec![samples::row(|_| {})]);
    let since = "12:34:56 UTC".to_owned();
    model.update(Event::Lost { since, why: "the node closed the stream".to_owned() });
    let drawn = screen(&model, 80, 24);
    let banner = " disconnected, showing state of 12:34:56 UTC; reconnecting, no decisions until";
    assert!(drawn.lines().nth(1).unwrap().starts_with(banner), "{drawn}");
    assert!(drawn.contains("the node closed the stream"), "{drawn}");
}

#[test]
fn a_row_that_is_read_again_says_so() {
    let mut model = model(vec![samples::row(|_| {})]);
    let now = samples::row(|v| {
        v["revision"] = json!("00000000000000a2");
        v["candidates"][1]["value"] = json!(7);
    });
    model.update(Event::Streamed(Box::new(now)));
    let drawn = screen(&model, 80, 24);
    assert!(drawn.contains("policy auto · reading it again"), "{drawn}");
    assert!(drawn.contains("│7  ") && !drawn.contains("2099000"), "{drawn}");
}

#[test]
fn how_it_was_settled_stands_with_the_result() {
    let mut model = model(vec![settled()]);
    let drawn = screen(&model, 100, 30);
    for part in ["a later value shows", "- resolved by ben in", "(deleted)", "(nothing was there)"]
    {
        assert!(drawn.contains(part), "{part}\n{drawn}");
    }
    press(&mut model, "?");
    assert!(screen(&model, 80, 24).contains("undo: put back what showed before"));
    press(&mut model, " h");
    assert!(screen(&model, 80, 24).contains(" history of cities/lyon "));
}

#[test]
fn control_characters_are_escaped_and_long_values_are_scrolled() {
    let long = samples::row(|v| {
        v["document"] = json!("cities/\u{1b}[2J");
        v["candidates"][0]["value"] = json!({"a\u{9b}": (0..100).collect::<Vec<_>>()});
        v["candidates"][0]["author"] = json!("mal\u{202e}lory");
    });
    let mut model = model(vec![long]);
    let drawn = screen(&model, 80, 24);
    assert!(drawn.contains("cities/\\u{1b}[2J"), "{drawn}");
    assert!(drawn.contains("mal\\u{202e}lory"), "{drawn}");
    assert!(drawn.contains("a\\u{9b}") && drawn.contains(" more ┘"), "{drawn}");
    model.update(Event::Key(Key::Enter));
    model.update(Event::Key(Key::End));
    let drawn = screen(&model, 80, 24);
    assert!(drawn.contains("2* alice in eu-west"), "the end of the sides:\n{drawn}");
}

#[test]
fn every_size_is_drawn_in_every_mode() {
    let many: Vec<Row> = (0..40)
        .map(|n| {
            samples::row(|v| {
                v["id"] = json!(format!("{n:032x}"));
                v["candidates"][0]["value"] = json!("東京 and words ".repeat(n));
            })
        })
        .collect();
    for keys in ["", "?", "h", "/abc", "e", "\t", "fffff"] {
        let mut model = model(many.clone());
        press(&mut model, keys);
        model.update(Event::Lost { since: "12:34:56 UTC".to_owned(), why: "x".repeat(200) });
        for width in 1..=81 {
            for height in 1..=25 {
                screen(&model, width, height);
            }
        }
    }
    screen(&model(many), 250, 80);
    screen(&model(Vec::new()), 80, 24);
}

#[test]
fn what_is_typed_shows_with_its_end() {
    let mut model = model(vec![samples::row(|_| {})]);
    press(&mut model, "/par");
    let drawn = screen(&model, 80, 24);
    assert!(drawn.lines().any(|line| line == "/par"), "{drawn}");
    model.update(Event::Key(Key::Enter));
    press(&mut model, "e");
    press(&mut model, &"9".repeat(100));
    let drawn = screen(&model, 40, 24);
    assert!(drawn.contains(&format!("value: {}", "9".repeat(32))), "{drawn}");
    model.update(Event::Key(Key::Char('x')));
    model.update(Event::Key(Key::Enter));
    assert!(screen(&model, 80, 24).contains("no JSON"), "what is wrong is said below");
}
