//! What comes from the keyboard, as far as nothing is decided by it.

use super::super::super::ledger::Act;
use super::super::super::row::State;
use super::super::line::{Line, Stroke};
use super::{Command, Focus, Key, Model, Overlay, Quit};

impl Model {
    pub(super) fn press(&mut self, key: Key) -> Vec<Command> {
        if key == Key::Interrupt {
            return vec![Command::Quit(Quit::Interrupted)];
        }
        match &mut self.overlay {
            Overlay::None => self.press_in_screen(key),
            Overlay::Help => {
                self.overlay = Overlay::None;
                Vec::new()
            }
            Overlay::History { scroll, changes, .. } => {
                if matches!(key, Key::Esc | Key::Enter | Key::Char('q' | 'h')) {
                    self.overlay = Overlay::None;
                } else if let Some(lines) = lines(key) {
                    let last =
                        changes.as_ref().map_or(0, |changes| changes.len().saturating_sub(1));
                    *scroll = scroll.saturating_add_signed(lines).min(last);
                }
                Vec::new()
            }
            Overlay::Search(_) => self.press_in_search(key),
            Overlay::Edit { .. } => self.press_in_edit(key),
        }
    }

    pub(super) fn press_in_screen(&mut self, key: Key) -> Vec<Command> {
        if let Some(lines) = lines(key) {
            self.move_by(lines);
            return Vec::new();
        }
        match key {
            Key::Char('q') => return vec![Command::Quit(Quit::Asked)],
            Key::Char('?') => self.overlay = Overlay::Help,
            Key::Char('/') => self.overlay = Overlay::Search(Line::new(self.search.clone())),
            Key::Char('f') => return self.filter(next_state(self.state)),
            Key::Char(digit @ '1'..='9') => return self.take(digit),
            Key::Char('m') => return self.decide(Act::Merge),
            Key::Char('d') => return self.decide(Act::Dismiss),
            Key::Char('u') => return self.decide(Act::Undo),
            Key::Char('r') => return self.decide(Act::Reopen),
            Key::Char('e') => return self.edit(),
            Key::Char('h') => return self.history(),
            Key::Tab | Key::Right | Key::Char('l') => self.focus_on(self.focus.next()),
            Key::BackTab | Key::Left => self.focus_on(self.focus.previous()),
            Key::Enter => self.focus_on(Focus::Sides),
            Key::Esc if self.focus == Focus::List => self.search_for(String::new()),
            Key::Esc => self.focus_on(Focus::List),
            Key::Char(_)
            | Key::Interrupt
            | Key::Backspace
            | Key::Delete
            | Key::Up
            | Key::Down
            | Key::Home
            | Key::End
            | Key::PageUp
            | Key::PageDown => {}
        }
        Vec::new()
    }

    pub(super) fn focus_on(&mut self, focus: Focus) {
        self.focus = focus;
        self.scroll = 0;
    }

    pub(super) fn move_by(&mut self, lines: isize) {
        if self.focus == Focus::List {
            self.select_at(self.position().saturating_add_signed(lines));
        } else {
            self.scroll = self.scroll.saturating_add_signed(lines).min(DEEPEST);
        }
    }

    pub(super) fn select_at(&mut self, position: usize) {
        let id = {
            let visible = self.visible();
            let last = visible.len().saturating_sub(1);
            visible.get(position.min(last)).map(|row| row.id.clone())
        };
        if id != self.selected {
            self.scroll = 0;
            // Rows that are not on the screen follow the stream, too: this one is up to date.
            self.reloading = false;
            self.ticket += 1;
        }
        self.selected = id;
    }

    pub(super) fn select_first(&mut self) {
        self.selected = None;
        self.select_at(0);
    }

    pub(super) fn filter(&mut self, state: Option<State>) -> Vec<Command> {
        self.state = state;
        if self.current().is_some_and(|row| !self.matches(row)) {
            self.select_first();
        }
        let name = state.map_or("every state", State::name);
        self.say(format!("showing conflicts in {name}"));
        vec![self.ask_for_list()]
    }

    pub(super) fn search_for(&mut self, text: String) {
        self.search = text;
        if self.current().is_none_or(|row| !self.matches(row)) {
            self.select_first();
        }
    }

    pub(super) fn press_in_search(&mut self, key: Key) -> Vec<Command> {
        if key == Key::Enter {
            self.overlay = Overlay::None;
        } else if key == Key::Esc {
            self.overlay = Overlay::None;
            self.search_for(String::new());
        } else if let Overlay::Search(line) = &mut self.overlay {
            if let Some(stroke) = stroke(key) {
                line.press(stroke);
            }
            let text = line.text();
            self.search_for(text);
        }
        Vec::new()
    }

    pub(super) fn history(&mut self) -> Vec<Command> {
        match self.current().map(|row| row.document.clone()) {
            Some(Some(document)) => {
                let overlay =
                    Overlay::History { document: document.clone(), changes: None, scroll: 0 };
                self.overlay = overlay;
                vec![Command::History(document)]
            }
            Some(None) => {
                self.complain("this document has no name, and only named ones have a history here");
                Vec::new()
            }
            None => Vec::new(),
        }
    }
}

fn next_state(state: Option<State>) -> Option<State> {
    match state {
        None => Some(State::Open),
        Some(State::Open) => Some(State::AutoResolved),
        Some(State::AutoResolved) => Some(State::Resolved),
        Some(State::Resolved) => Some(State::Dismissed),
        Some(State::Dismissed) => None,
    }
}

/// Returns how far a key moves, in lines.
fn lines(key: Key) -> Option<isize> {
    match key {
        Key::Down | Key::Char('j') => Some(1),
        Key::Up | Key::Char('k') => Some(-1),
        Key::PageDown => Some(PAGE),
        Key::PageUp => Some(-PAGE),
        Key::Home | Key::Char('g') => Some(isize::MIN),
        Key::End | Key::Char('G') => Some(isize::MAX),
        Key::Char(_)
        | Key::Interrupt
        | Key::Enter
        | Key::Tab
        | Key::BackTab
        | Key::Esc
        | Key::Backspace
        | Key::Delete
        | Key::Left
        | Key::Right => None,
    }
}

pub(super) fn stroke(key: Key) -> Option<Stroke> {
    match key {
        Key::Char(c) => Some(Stroke::Type(c)),
        Key::Backspace => Some(Stroke::Backspace),
        Key::Delete => Some(Stroke::Delete),
        Key::Left => Some(Stroke::Left),
        Key::Right => Some(Stroke::Right),
        Key::Home => Some(Stroke::Home),
        Key::End => Some(Stroke::End),
        Key::Interrupt
        | Key::Enter
        | Key::Tab
        | Key::BackTab
        | Key::Esc
        | Key::Up
        | Key::Down
        | Key::PageUp
        | Key::PageDown => None,
    }
}

/// Lines that a page key moves.
const PAGE: isize = 10;

/// Lines that a pane can be scrolled by.
const DEEPEST: usize = 100_000;
