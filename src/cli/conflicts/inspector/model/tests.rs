use serde_json::json;

use super::super::super::samples;
use super::*;

const FIRST: &str = "3f2a9c1b7d4e4f0a8b6c5d2e1f009a8b";

/// Returns a conflict of this id, written in this minute, in this revision.
fn conflict(id: &str, minute: u32, revision: &str) -> Row {
    samples::row(|v| {
        v["id"] = json!(id);
        v["revision"] = json!(revision);
        v["document"] = json!(format!("cities/{id}"));
        v["at"] = json!(format!("2026-03-01T10:{minute:02}:00Z"));
    })
}

fn settled(id: &str, minute: u32, revision: &str) -> Row {
    let mut row = conflict(id, minute, revision);
    row.state = State::Resolved;
    row.acts = samples::row(|v| v["acts"] = json!([samples::act("resolve", None)])).acts;
    row
}

fn listing(rows: Vec<Row>) -> Listing {
    let total = rows.len() as u64;
    Listing { rows, total }
}

/// Two conflicts, of which b is the newer one and selected.
fn model() -> Model {
    let rows = vec![conflict("b", 2, "b1"), conflict("a", 1, "a1")];
    Model::new("http://node".to_owned(), Editing::Inline, listing(rows))
}

fn press(model: &mut Model, keys: &str) -> Vec<Command> {
    let mut commands = Vec::new();
    for c in keys.chars() {
        let key = match c {
            '\n' => Key::Enter,
            '\u{1b}' => Key::Esc,
            '\t' => Key::Tab,
            c => Key::Char(c),
        };
        commands.extend(model.update(Event::Key(key)));
    }
    commands
}

fn ids(model: &Model) -> Vec<&str> {
    model.visible().iter().map(|row| row.id.as_str()).collect()
}

/// Answers the latest read of the row on the screen.
fn reload(model: &mut Model, commands: &[Command], row: Row) {
    let Some(Command::Load { ticket, .. }) = commands.last() else {
        panic!("no row is read again: {commands:?}")
    };
    let ticket = *ticket;
    model.update(Event::Loaded { id: row.id.clone(), ticket, row: Ok(Box::new(row)) });
}

fn revision_of_act(commands: &[Command]) -> Option<&str> {
    match commands {
        [Command::Act { row, .. }] => row.revision.as_deref(),
        _ => None,
    }
}

#[test]
fn a_side_is_taken_with_the_revision_on_the_screen() {
    let mut model = model();
    let commands = press(&mut model, "2");
    let [Command::Act { row, act }] = commands.as_slice() else { panic!("{commands:?}") };
    assert_eq!((row.id.as_str(), row.revision.as_deref()), ("b", Some("b1")));
    assert_eq!(*act, Act::Take("12@a1b2c3d4e5f60718293a4b5c6d7e8f90".to_owned()));
    assert_eq!(press(&mut model, "1"), [], "one decision at a time");
    assert!(model.status.text.contains("on its way"), "{:?}", model.status);
    assert_eq!(press(&mut self::model(), "3"), [], "there is no third side");
}

#[test]
fn a_row_that_changed_is_read_again_before_it_is_decided() {
    let mut model = model();
    let commands = model.update(Event::Streamed(Box::new(conflict("b", 2, "b2"))));
    assert_eq!(model.current().unwrap().revision.as_deref(), Some("b2"), "it shows at once");
    for key in ["1", "m", "d", "u", "r", "e"] {
        assert_eq!(press(&mut model, key), [], "{key}");
        assert!(model.status.is_bad && model.status.text.contains("look again"));
    }
    // Another event makes the answer that is on its way too old.
    let later = model.update(Event::Streamed(Box::new(conflict("b", 2, "b3"))));
    reload(&mut model, &commands, conflict("b", 2, "b2"));
    assert_eq!(model.current().unwrap().revision.as_deref(), Some("b3"));
    assert_eq!(press(&mut model, "1"), []);
    reload(&mut model, &later, conflict("b", 2, "b3"));
    assert_eq!(revision_of_act(&press(&mut model, "1")), Some("b3"));
}

#[test]
fn other_rows_follow_the_stream_without_being_read_again() {
    let mut model = model();
    assert_eq!(model.update(Event::Streamed(Box::new(conflict("a", 1, "a2")))), []);
    assert_eq!(model.update(Event::Streamed(Box::new(conflict("c", 3, "c1")))), []);
    assert_eq!(ids(&model), ["c", "b", "a"], "a new row comes first and nothing else moves");
    assert_eq!(model.current().unwrap().id, "b", "and the selection stays");
    assert_eq!(model.total, 3);
    press(&mut model, "j");
    assert_eq!(revision_of_act(&press(&mut model, "d")), Some("a2"));
    model.update(Event::Removed("a".to_owned()));
    assert_eq!(ids(&model), ["c", "b"]);
    assert_eq!((model.current().unwrap().id.as_str(), model.total), ("b", 2));
}

#[test]
fn without_a_connection_nothing_is_decided_and_after_it_everything_is_read_again() {
    let mut model = model();
    let since = "12:34:56 UTC".to_owned();
    model.update(Event::Lost { since: since.clone(), why: "cut".to_owned() });
    assert_eq!(model.link, Link::Lost { since });
    assert_eq!(press(&mut model, "1mdure"), []);
    assert!(model.status.text.contains("disconnected"), "{:?}", model.status);
    let commands = model.update(Event::Connected);
    let [Command::List { state: None, ticket }, Command::Load { .. }] = commands.as_slice() else {
        panic!("{commands:?}")
    };
    assert_eq!(press(&mut model, "1"), [], "not before the list is there");
    let page = Ok(listing(vec![conflict("b", 2, "b9")]));
    model.update(Event::Listed { ticket: *ticket, page });
    assert_eq!(model.link, Link::Live);
    assert_eq!(ids(&model), ["b"], "a is gone");
    assert_eq!(press(&mut model, "1"), [], "not before the row is read");
    reload(&mut model, &commands, conflict("b", 2, "b9"));
    assert_eq!(revision_of_act(&press(&mut model, "1")), Some("b9"));
}

#[test]
fn a_list_never_takes_back_what_the_stream_told_after_it_was_asked_for() {
    let mut model = model();
    let commands = model.update(Event::Lagged);
    let [Command::List { ticket, .. }, Command::Load { .. }] = commands.as_slice() else {
        panic!("{commands:?}")
    };
    model.update(Event::Streamed(Box::new(settled("a", 1, "a2"))));
    model.update(Event::Removed("c".to_owned()));
    let old = vec![conflict("c", 3, "c1"), conflict("b", 2, "b1"), conflict("a", 1, "a1")];
    model.update(Event::Listed { ticket: *ticket, page: Ok(listing(old)) });
    assert_eq!(ids(&model), ["b", "a"], "c was removed meanwhile");
    press(&mut model, "j");
    assert_eq!(model.current().unwrap().revision.as_deref(), Some("a2"));
}

#[test]
fn only_the_list_that_was_asked_for_last_counts_and_a_failed_one_is_asked_for_again() {
    let mut model = model();
    let commands = press(&mut model, "ff");
    let [Command::List { ticket: first, .. }, Command::List { ticket: last, state }] =
        commands.as_slice()
    else {
        panic!("{commands:?}")
    };
    assert_eq!(*state, Some(State::AutoResolved));
    model.update(Event::Listed { ticket: *first, page: Ok(listing(Vec::new())) });
    assert_eq!(model.total, 2, "the first one is not wanted any more");
    let failure = Err(Failure::Unreachable("too slow".to_owned()));
    let again = model.update(Event::Listed { ticket: *last, page: failure });
    assert!(matches!(again.as_slice(), [Command::List { .. }]), "{again:?}");
    model.update(Event::Lost { since: String::new(), why: String::new() });
    let [Command::List { ticket, .. }] = again.as_slice() else { panic!("{again:?}") };
    let failure = Err(Failure::Unreachable("gone".to_owned()));
    assert_eq!(model.update(Event::Listed { ticket: *ticket, page: failure }), []);
}

#[test]
fn a_decision_shows_its_result_and_the_row_as_it_is_then() {
    let mut model = model();
    let commands = press(&mut model, "1");
    let [Command::Act { row, act }] = commands.as_slice() else { panic!("{commands:?}") };
    let mut now = samples::conflict();
    now["id"] = json!("b");
    now["revision"] = json!("b2");
    now["state"] = json!("resolved");
    let outcome = Ok(Outcome::Done(Box::new(now)));
    let after = model.update(Event::Acted { row: row.clone(), act: act.clone(), outcome });
    assert!(!model.status.is_bad, "{:?}", model.status);
    assert_eq!(model.status.text, "resolved /population of cities/b: 2102650 shows");
    assert_eq!(model.current().unwrap().state, State::Resolved);
    reload(&mut model, &after, settled("b", 2, "b2"));
    assert_eq!(revision_of_act(&press(&mut model, "u")), Some("b2"));
}

#[test]
fn who_was_too_late_sees_what_changed() {
    for (outcome, part) in [
        (
            Outcome::Changed(Box::new(settled("b", 2, "b2"))),
            "not done, /population of cities/b has changed: the state is resolved (was open); \
             resolved by ben in ap-south",
        ),
        (Outcome::Settled(Box::new(settled("b", 2, "b2"))), "not done, already resolved by ben"),
        (Outcome::Refused(Failure::General("two numbers".to_owned())), "not done: two numbers"),
    ] {
        let mut model = model();
        let commands = press(&mut model, "m");
        let [Command::Act { row, act }] = commands.as_slice() else { panic!("{commands:?}") };
        let has_row = !matches!(outcome, Outcome::Refused(_));
        let after =
            model.update(Event::Acted { row: row.clone(), act: act.clone(), outcome: Ok(outcome) });
        assert!(model.status.is_bad && model.status.text.contains(part), "{:?}", model.status);
        assert_eq!(model.current().unwrap().state == State::Resolved, has_row);
        assert!(matches!(after.as_slice(), [Command::Load { .. }]), "{after:?}");
        assert_eq!(press(&mut model, "1"), [], "nothing more before it is read again");
    }
}

#[test]
fn an_answer_never_takes_back_what_the_stream_told_meanwhile() {
    let mut model = model();
    let commands = press(&mut model, "1");
    let [Command::Act { row, act }] = commands.as_slice() else { panic!("{commands:?}") };
    model.update(Event::Streamed(Box::new(conflict("b", 2, "b3"))));
    let outcome = Ok(Outcome::Changed(Box::new(settled("b", 2, "b2"))));
    model.update(Event::Acted { row: row.clone(), act: act.clone(), outcome });
    assert_eq!(model.current().unwrap().revision.as_deref(), Some("b3"));
}

#[test]
fn a_value_is_typed_and_a_draft_is_not_lost() {
    let mut model = model();
    assert_eq!(press(&mut model, "e"), []);
    let Overlay::Edit { line, .. } = &model.overlay else { panic!("{:?}", model.overlay) };
    assert_eq!(line.text(), "2099000", "it starts with what shows");
    assert_eq!(press(&mut model, "x\n"), []);
    assert!(model.status.is_bad && model.status.text.starts_with("no JSON"));
    model.update(Event::Key(Key::Backspace));
    model.update(Event::Streamed(Box::new(conflict("b", 2, "b2"))));
    assert_eq!(press(&mut model, "7\n"), [], "it changed while it was typed");
    assert!(model.status.text.contains("e brings your text back"), "{:?}", model.status);
    let commands = model.reload().into_iter().collect::<Vec<_>>();
    reload(&mut model, &commands, conflict("b", 2, "b2"));
    let commands = press(&mut model, "e\n");
    let [Command::Act { row, act: Act::Value(value) }] = commands.as_slice() else {
        panic!("{commands:?}")
    };
    assert_eq!((row.revision.as_deref(), value), (Some("b2"), &json!(20_990_007)));
}

#[test]
fn an_editor_gets_the_value_indented_and_may_leave_it() {
    let mut model = model();
    model.editing = Editing::External;
    let commands = press(&mut model, "e");
    let [Command::Edit { row, text }] = commands.as_slice() else { panic!("{commands:?}") };
    assert_eq!(text, "2099000\n");
    assert_eq!(model.update(Event::Edited { row: row.clone(), text: Ok(None) }), []);
    assert_eq!(model.status.text, "nothing was changed");
    let broken = Event::Edited { row: row.clone(), text: Ok(Some("{".to_owned())) };
    assert_eq!(model.update(broken), []);
    let commands = press(&mut model, "e");
    let [Command::Edit { text, .. }] = commands.as_slice() else { panic!("{commands:?}") };
    assert_eq!(text, "{", "the draft comes back");
    let good = Event::Edited { row: row.clone(), text: Ok(Some("[1]".to_owned())) };
    assert_eq!(revision_of_act(&model.update(good)), Some("b1"));
}

#[test]
fn filters_and_searches_keep_the_row_that_was_just_settled() {
    let mut model = model();
    let commands = press(&mut model, "f");
    assert!(matches!(commands.as_slice(), [Command::List { state: Some(State::Open), .. }]));
    let commands = model.update(Event::Streamed(Box::new(settled("b", 2, "b2"))));
    reload(&mut model, &commands, settled("b", 2, "b2"));
    assert_eq!(ids(&model), ["b", "a"], "b is settled, and still there to be undone");
    assert_eq!(revision_of_act(&press(&mut model, "u")), Some("b2"));
    press(&mut model, "j");
    assert_eq!(ids(&model), ["a"], "after the selection moved on it is gone");

    let mut model = self::model();
    press(&mut model, "/CITIES/A");
    assert_eq!(ids(&model), ["a"]);
    assert_eq!(model.current().unwrap().id, "a");
    press(&mut model, "\u{1b}");
    assert_eq!(ids(&model), ["b", "a"]);
    press(&mut model, "/alice\nq");
    assert_eq!(ids(&model), ["b", "a"], "authors are searched, too");
    press(&mut model, "/nowhere\n");
    assert_eq!(ids(&model), Vec::<&str>::new());
    assert_eq!(press(&mut model, "1mh"), [], "nothing is selected");
}

#[test]
fn the_history_is_an_overlay_and_late_answers_are_dropped() {
    let mut model = model();
    assert_eq!(press(&mut model, "h"), [Command::History("cities/b".to_owned())]);
    let late = Event::History { document: "cities/a".to_owned(), changes: Ok(Vec::new()) };
    model.update(late);
    assert!(matches!(model.overlay, Overlay::History { changes: None, .. }));
    let read = Event::History { document: "cities/b".to_owned(), changes: Ok(Vec::new()) };
    model.update(read);
    assert!(matches!(model.overlay, Overlay::History { changes: Some(_), .. }));
    assert_eq!(press(&mut model, "jjk1"), [], "keys scroll here");
    press(&mut model, "q");
    assert_eq!(model.overlay, Overlay::None);
    press(&mut model, "h");
    let failed = Err(Failure::NotFound("no such document".to_owned()));
    model.update(Event::History { document: "cities/b".to_owned(), changes: failed });
    assert_eq!((&model.overlay, model.status.is_bad), (&Overlay::None, true));
}

#[test]
fn the_focus_goes_round_and_the_ends_are_safe() {
    let mut model = model();
    press(&mut model, "\n");
    assert_eq!(model.focus, Focus::Sides);
    press(&mut model, "jjj");
    assert_eq!(model.scroll, 3);
    press(&mut model, "\t\t");
    assert_eq!((model.focus, model.scroll), (Focus::List, 0));
    press(&mut model, "GGjjj");
    assert_eq!(model.current().unwrap().id, "a");
    press(&mut model, "gkkk");
    assert_eq!(model.current().unwrap().id, "b");
    assert_eq!(press(&mut model, "?q"), [], "any key leaves the help");
    assert_eq!(press(&mut model, "q"), [Command::Quit(Quit::Asked)]);
    press(&mut model, "/");
    let commands = model.update(Event::Key(Key::Interrupt));
    assert_eq!(commands, [Command::Quit(Quit::Interrupted)]);
}

#[test]
fn only_so_many_rows_are_kept_and_the_selected_one_is() {
    let mut model = model();
    press(&mut model, "G");
    for n in 0..MOST_ROWS + 50 {
        let row = conflict(&format!("n{n}"), 30, "1");
        model.update(Event::Streamed(Box::new(row)));
    }
    assert_eq!(model.visible().len(), MOST_ROWS);
    assert_eq!(model.current().unwrap().id, "a");
    assert_eq!(model.total, 2 + MOST_ROWS as u64 + 50);
}

#[test]
fn an_empty_ledger_takes_every_key() {
    let mut model = Model::new(String::new(), Editing::Inline, Listing::default());
    for key in [Key::Tab, Key::Down, Key::End, Key::Home, Key::PageUp, Key::Left, Key::Right] {
        assert_eq!(model.update(Event::Key(key)), []);
    }
    assert_eq!(press(&mut model, "19mdureh\u{1b}\n"), []);
    model.update(Event::Streamed(Box::new(conflict(FIRST, 1, "1"))));
    assert_eq!(model.current().unwrap().id, FIRST, "the first row is selected");
}
