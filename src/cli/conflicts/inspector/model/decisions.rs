//! What is decided: nothing that is not on the screen, and nothing twice at a time.

use serde_json::Value;

use super::super::super::ledger::Act;
use super::super::super::row::Row;
use super::super::line::Line;
use super::keys::stroke;
use super::{Command, Editing, Key, Link, Model, Overlay};

impl Model {
    /// Says why nothing can be decided now, if so.
    pub(super) fn refusal(&self) -> Option<&'static str> {
        match self.link {
            Link::Lost { .. } => Some("disconnected: nothing is decided on what may be old"),
            Link::Refreshing => Some("the list is being read again: wait a moment"),
            Link::Live if self.deciding => Some("the last decision is still on its way"),
            Link::Live if self.reloading => Some("this conflict has just changed: look again"),
            Link::Live => None,
        }
    }

    /// Returns the row that may be decided about now.
    pub(super) fn decidable(&mut self) -> Option<Box<Row>> {
        if let Some(reason) = self.refusal() {
            self.complain(reason);
            return None;
        }
        self.current().cloned().map(Box::new)
    }

    pub(super) fn take(&mut self, digit: char) -> Vec<Command> {
        let side = self.current().map(|row| row.candidate(&digit.to_string()).map(str::to_owned));
        match side {
            Some(Ok(id)) => self.decide(Act::Take(id)),
            Some(Err(_)) => {
                self.complain(format!("there is no side {digit}"));
                Vec::new()
            }
            None => Vec::new(),
        }
    }

    pub(super) fn decide(&mut self, act: Act) -> Vec<Command> {
        match self.decidable() {
            Some(row) => self.send(row, act),
            None => Vec::new(),
        }
    }

    pub(super) fn send(&mut self, row: Box<Row>, act: Act) -> Vec<Command> {
        self.deciding = true;
        self.say(format!("{} …", act.verb()));
        vec![Command::Act { row, act }]
    }

    pub(super) fn edit(&mut self) -> Vec<Command> {
        let Some(row) = self.decidable() else { return Vec::new() };
        let value = row.winner().map(|side| side.value.clone()).unwrap_or_default();
        let draft = self.draft.as_ref().filter(|(id, _)| *id == row.id).map(|(_, text)| text);
        match self.editing {
            Editing::External => {
                let text = draft.cloned().unwrap_or_else(|| format!("{value:#}\n"));
                vec![Command::Edit { row, text }]
            }
            Editing::Inline => {
                let line = Line::new(draft.cloned().unwrap_or_else(|| value.to_string()));
                self.overlay = Overlay::Edit { row, line };
                self.say("Enter writes this value, Esc leaves everything as it is");
                Vec::new()
            }
        }
    }

    pub(super) fn press_in_edit(&mut self, key: Key) -> Vec<Command> {
        let Overlay::Edit { row, line } = &mut self.overlay else { return Vec::new() };
        if key == Key::Esc {
            self.overlay = Overlay::None;
            self.say("nothing was changed");
        } else if key == Key::Enter {
            let (row, text) = (row.clone(), line.text());
            if let Err(error) = serde_json::from_str::<Value>(&text) {
                self.complain(format!("no JSON: {error} (text needs its double quotes)"));
                return Vec::new();
            }
            self.overlay = Overlay::None;
            return self.edited(row, Ok(Some(text)));
        } else if let Some(stroke) = stroke(key) {
            line.press(stroke);
        }
        Vec::new()
    }

    /// Writes what was typed, for the row as it was when typing began.
    pub(super) fn edited(
        &mut self,
        row: Box<Row>,
        text: Result<Option<String>, String>,
    ) -> Vec<Command> {
        let text = match text {
            Ok(Some(text)) => text,
            Ok(None) => {
                self.say("nothing was changed");
                return Vec::new();
            }
            Err(why) => {
                self.complain(why);
                return Vec::new();
            }
        };
        let parsed = serde_json::from_str(&text);
        // It is kept until it is written: e brings it back.
        self.draft = Some((row.id.clone(), text));
        let value = match parsed {
            Ok(value) => value,
            Err(error) => {
                self.complain(format!("no JSON, e brings your text back: {error}"));
                return Vec::new();
            }
        };
        let has_changed = self.current().is_none_or(|now| now.revision != row.revision);
        if has_changed {
            self.complain("it changed while you were typing: look, and e brings your text back");
            return Vec::new();
        }
        if let Some(reason) = self.refusal() {
            self.complain(format!("{reason}; e brings your text back"));
            return Vec::new();
        }
        self.send(row, Act::Value(value))
    }
}
