//! What the inspector knows and shows: events in, commands out. No terminal, no network, no clock.
//!
//! What it never does: act on what is not on the screen. Every decision carries the revision that
//! is shown; a row that changed is reloaded before the next decision about it; and while there is
//! no connection nothing is decided at all.

use std::collections::BTreeSet;

use serde_json::Value;

use super::super::ledger::{Act, Outcome};
use super::super::row::{Row, State};
use super::line::{Line, Stroke};
use crate::cli::Failure;
use crate::cli::doc::Change;

/// What happened.
#[derive(Debug)]
pub(super) enum Event {
    /// A key was pressed.
    Key(Key),
    /// The stream is connected, and tells of every change from now on.
    Connected,
    /// The stream is lost; what is known is as old as `since`.
    Lost { since: String, why: String },
    /// A row is new or has changed.
    Streamed(Box<Row>),
    /// The row of this id is gone.
    Removed(String),
    /// Events are missing.
    Lagged,
    /// The list that was asked for.
    Listed { ticket: u64, page: Result<Listing, Failure> },
    /// The row that was asked for.
    Loaded { id: String, ticket: u64, row: Result<Box<Row>, Failure> },
    /// How a decision went.
    Acted { row: Box<Row>, act: Act, outcome: Result<Outcome, Failure> },
    /// The history that was asked for.
    History { document: String, changes: Result<Vec<Change>, Failure> },
    /// The editor was closed; without a value, nothing was changed in it.
    Edited { row: Box<Row>, text: Result<Option<String>, String> },
}

/// Rows of a list.
#[derive(Debug, Default)]
pub(super) struct Listing {
    pub(super) rows: Vec<Row>,
    /// All that match.
    pub(super) total: u64,
}

/// A key, as far as the inspector knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Key {
    Char(char),
    Interrupt,
    Enter,
    Tab,
    BackTab,
    Esc,
    Backspace,
    Delete,
    Left,
    Right,
    Up,
    Down,
    Home,
    End,
    PageUp,
    PageDown,
}

/// What the shell is to do.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Command {
    List { state: Option<State>, ticket: u64 },
    Load { id: String, ticket: u64 },
    Act { row: Box<Row>, act: Act },
    History(String),
    Edit { row: Box<Row>, text: String },
    Quit(Quit),
}

/// How the inspector ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Quit {
    Asked,
    Interrupted,
}

/// Which part of the screen the arrows move in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Focus {
    List,
    Base,
    Sides,
    Result,
}

impl Focus {
    fn next(self) -> Self {
        match self {
            Self::List => Self::Base,
            Self::Base => Self::Sides,
            Self::Sides => Self::Result,
            Self::Result => Self::List,
        }
    }

    fn previous(self) -> Self {
        self.next().next().next()
    }
}

/// What lies over the screen, or is being typed.
#[derive(Debug, PartialEq)]
pub(super) enum Overlay {
    None,
    Help,
    History { document: String, changes: Option<Vec<Change>>, scroll: usize },
    Search(Line),
    Edit { row: Box<Row>, line: Line },
}

/// Whether what shows is what is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Link {
    Live,
    /// The stream is back, and the list is being read again.
    Refreshing,
    Lost {
        since: String,
    },
}

/// What is said in the status line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Status {
    pub(super) text: String,
    pub(super) is_bad: bool,
}

/// Whether the editor of `$EDITOR` is used for values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Editing {
    External,
    Inline,
}

/// Everything that shows.
#[derive(Debug)]
pub(super) struct Model {
    pub(super) node: String,
    pub(super) link: Link,
    pub(super) overlay: Overlay,
    pub(super) focus: Focus,
    pub(super) state: Option<State>,
    pub(super) search: String,
    pub(super) status: Status,
    pub(super) total: u64,
    /// Lines that the pane in focus is scrolled by.
    pub(super) scroll: usize,
    rows: Vec<Row>,
    selected: Option<String>,
    editing: Editing,
    /// The row on the screen is being read again.
    reloading: bool,
    /// Counts reads of the row on the screen: only the answer to the latest one is taken.
    ticket: u64,
    /// The list that was asked for last and has not come yet; only that one is taken.
    awaited: Option<u64>,
    /// Counts the lists that were asked for.
    lists: u64,
    /// A decision is on its way.
    deciding: bool,
    /// Rows that were streamed since the list was asked for, which is older than they are.
    touched: BTreeSet<String>,
    /// What was typed for a row and could not be written.
    draft: Option<(String, String)>,
}

impl Model {
    /// Starts with a list, while the stream is connected.
    pub(super) fn new(node: String, editing: Editing, listing: Listing) -> Self {
        let mut model = Self {
            node,
            link: Link::Live,
            overlay: Overlay::None,
            focus: Focus::List,
            state: None,
            search: String::new(),
            status: Status { text: "? shows the keys".to_owned(), is_bad: false },
            total: 0,
            scroll: 0,
            rows: Vec::new(),
            selected: None,
            editing,
            reloading: false,
            ticket: 0,
            awaited: None,
            lists: 0,
            deciding: false,
            touched: BTreeSet::new(),
            draft: None,
        };
        model.list(listing);
        model
    }

    /// Takes an event, and returns what is to be done about it.
    pub(super) fn update(&mut self, event: Event) -> Vec<Command> {
        match event {
            Event::Key(key) => self.press(key),
            Event::Connected => {
                self.link = Link::Refreshing;
                self.say("connected again");
                self.refresh()
            }
            Event::Lost { since, why } => {
                self.link = Link::Lost { since };
                self.complain(why);
                Vec::new()
            }
            Event::Streamed(row) => self.streamed(*row),
            Event::Removed(id) => self.removed(&id),
            Event::Lagged => {
                self.say("events were missed: reading the list again");
                self.link = Link::Refreshing;
                self.refresh()
            }
            Event::Listed { ticket, page } => self.listed(ticket, page),
            Event::Loaded { id, ticket, row } => self.loaded(&id, ticket, row),
            Event::Acted { row, act, outcome } => self.acted(&row, &act, outcome),
            Event::History { document, changes } => self.history_read(document, changes),
            Event::Edited { row, text } => self.edited(row, text),
        }
    }

    /// Returns the rows that match state and text, in their order. The selected one stays, even
    /// when it no longer matches: it must not vanish under the hand that has just settled it.
    pub(super) fn visible(&self) -> Vec<&Row> {
        let is_selected = |row: &&Row| self.selected.as_ref() == Some(&row.id);
        self.rows.iter().filter(|row| self.matches(row) || is_selected(row)).collect()
    }

    /// Returns the selected row.
    pub(super) fn current(&self) -> Option<&Row> {
        let id = self.selected.as_ref()?;
        self.rows.iter().find(|row| row.id == *id)
    }

    /// Returns where the selected row is among those that are visible.
    pub(super) fn position(&self) -> usize {
        let position =
            self.visible().iter().position(|row| Some(&row.id) == self.selected.as_ref());
        position.unwrap_or(0)
    }

    /// Tells whether the row on the screen is being read again.
    pub(super) fn is_reloading(&self) -> bool {
        self.reloading
    }

    fn matches(&self, row: &Row) -> bool {
        if self.state.is_some_and(|state| state != row.state) {
            return false;
        }
        let search = self.search.to_lowercase();
        search.is_empty() || searched(row).to_lowercase().contains(&search)
    }

    fn say(&mut self, text: impl Into<String>) {
        self.status = Status { text: text.into(), is_bad: false };
    }

    fn complain(&mut self, text: impl Into<String>) {
        self.status = Status { text: text.into(), is_bad: true };
    }

    // What comes from the node.

    fn refresh(&mut self) -> Vec<Command> {
        let mut commands = vec![self.ask_for_list()];
        commands.extend(self.reload());
        commands
    }

    fn ask_for_list(&mut self) -> Command {
        self.touched.clear();
        self.lists += 1;
        self.awaited = Some(self.lists);
        Command::List { state: self.state, ticket: self.lists }
    }

    /// Reads the row on the screen again; until then nothing is decided about it.
    fn reload(&mut self) -> Option<Command> {
        let id = self.selected.clone()?;
        self.reloading = true;
        self.ticket += 1;
        Some(Command::Load { id, ticket: self.ticket })
    }

    fn streamed(&mut self, row: Row) -> Vec<Command> {
        self.touch(&row.id);
        let is_same = self.rows.iter().any(|old| old.id == row.id && old.revision == row.revision);
        if is_same && row.revision.is_some() {
            return Vec::new();
        }
        let is_selected = self.selected.as_ref() == Some(&row.id);
        self.put(row);
        if is_selected { self.reload().into_iter().collect() } else { Vec::new() }
    }

    fn touch(&mut self, id: &str) {
        if self.awaited.is_some() {
            self.touched.insert(id.to_owned());
        }
    }

    /// Replaces a row, or adds it in its place in the order.
    fn put(&mut self, row: Row) {
        if let Some(old) = self.rows.iter_mut().find(|old| old.id == row.id) {
            *old = row;
            return;
        }
        self.total += u64::from(self.matches(&row));
        self.rows.push(row);
        self.arrange();
    }

    /// Orders the rows, the newest first, and forgets the oldest where there are too many.
    fn arrange(&mut self) {
        self.rows.sort_by_cached_key(|row| std::cmp::Reverse((row.latest(), row.id.clone())));
        while self.rows.len() > MOST_ROWS {
            let oldest = self.rows.iter().rposition(|row| Some(&row.id) != self.selected.as_ref());
            match oldest {
                Some(oldest) => self.rows.remove(oldest),
                None => break,
            };
        }
        if self.current().is_none() {
            self.select_first();
        }
    }

    fn removed(&mut self, id: &str) -> Vec<Command> {
        self.touch(id);
        let before = self.rows.len();
        let position = self.position();
        self.rows.retain(|row| row.id != id);
        self.total = self.total.saturating_sub((before - self.rows.len()) as u64);
        if self.current().is_none() {
            self.select_at(position);
            self.reloading = false;
        }
        Vec::new()
    }

    fn listed(&mut self, ticket: u64, page: Result<Listing, Failure>) -> Vec<Command> {
        if self.awaited != Some(ticket) {
            // Another list was asked for since, and is on its way.
            return Vec::new();
        }
        match page {
            Ok(listing) => {
                self.awaited = None;
                self.list(listing);
                if self.link == Link::Refreshing {
                    self.link = Link::Live;
                }
                Vec::new()
            }
            Err(failure) => {
                self.complain(failure.to_string());
                self.unless_lost(Self::ask_for_list)
            }
        }
    }

    /// Asks again. Without a connection that is in vain, and everything is asked for once it is
    /// back.
    fn unless_lost(&mut self, ask: impl FnOnce(&mut Self) -> Command) -> Vec<Command> {
        match self.link {
            Link::Lost { .. } => Vec::new(),
            Link::Live | Link::Refreshing => vec![ask(self)],
        }
    }

    /// Takes a list; rows that were streamed after it was asked for are newer than it.
    fn list(&mut self, listing: Listing) {
        let mut rows = listing.rows;
        rows.retain(|row| !self.touched.contains(&row.id));
        let listed: BTreeSet<String> = rows.iter().map(|row| row.id.clone()).collect();
        let old = std::mem::take(&mut self.rows);
        rows.extend(old.into_iter().filter(|row| {
            let is_selected = self.selected.as_ref() == Some(&row.id);
            self.touched.contains(&row.id) || is_selected && !listed.contains(&row.id)
        }));
        self.rows = rows;
        self.total = listing.total;
        self.touched.clear();
        self.arrange();
    }

    fn loaded(&mut self, id: &str, ticket: u64, row: Result<Box<Row>, Failure>) -> Vec<Command> {
        if ticket != self.ticket {
            // It changed again since, and the answer may be older than that.
            return Vec::new();
        }
        match row {
            Ok(row) => {
                self.put(*row);
                self.reloading = false;
            }
            Err(Failure::NotFound(_)) => {
                self.reloading = false;
                self.removed(id);
            }
            Err(failure) => {
                self.complain(failure.to_string());
                let ticket = self.ticket;
                return self.unless_lost(|_| Command::Load { id: id.to_owned(), ticket });
            }
        }
        Vec::new()
    }

    fn acted(&mut self, row: &Row, act: &Act, outcome: Result<Outcome, Failure>) -> Vec<Command> {
        self.deciding = false;
        let place = format!("{} of {}", row.place(), row.document_name());
        match outcome {
            Ok(Outcome::Done(now)) => {
                self.draft = None;
                match Row::read(*now) {
                    Ok(now) => {
                        self.say(format!("{} {place}: {} shows", act.done(), now.shown()));
                        self.take_answer(row, now);
                    }
                    Err(failure) => self.complain(failure.to_string()),
                }
            }
            Ok(Outcome::Changed(now)) => {
                let changes = row.changes_to(&now).join("; ");
                self.complain(format!("not done, {place} has changed: {changes}"));
                self.take_answer(row, *now);
            }
            Ok(Outcome::Settled(now)) => {
                let by = now.past().last();
                let by = by.map_or_else(|| now.state.name().to_owned(), |act| act.sentence());
                self.complain(format!("not done, already {by}"));
                self.take_answer(row, *now);
            }
            Ok(Outcome::Refused(failure)) => self.complain(format!("not done: {failure}")),
            Err(failure) => {
                self.complain(format!("no answer, look whether it was done: {failure}"))
            }
        }
        if self.link == Link::Live { self.reload().into_iter().collect() } else { Vec::new() }
    }

    /// Shows the row of an answer, unless the stream has told of a later one meanwhile.
    fn take_answer(&mut self, asked: &Row, now: Row) {
        let shown = self.rows.iter().find(|row| row.id == now.id);
        if shown.is_some_and(|shown| shown.revision == asked.revision) {
            self.put(now);
        }
    }

    fn history_read(
        &mut self,
        read: String,
        outcome: Result<Vec<Change>, Failure>,
    ) -> Vec<Command> {
        let Overlay::History { document, changes, .. } = &mut self.overlay else {
            return Vec::new();
        };
        match outcome {
            Ok(found) if *document == read => *changes = Some(found),
            Ok(_) => {}
            Err(failure) => {
                self.overlay = Overlay::None;
                self.complain(failure.to_string());
            }
        }
        Vec::new()
    }

    // What comes from the keyboard.

    fn press(&mut self, key: Key) -> Vec<Command> {
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

    fn press_in_screen(&mut self, key: Key) -> Vec<Command> {
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

    fn focus_on(&mut self, focus: Focus) {
        self.focus = focus;
        self.scroll = 0;
    }

    fn move_by(&mut self, lines: isize) {
        if self.focus == Focus::List {
            self.select_at(self.position().saturating_add_signed(lines));
        } else {
            self.scroll = self.scroll.saturating_add_signed(lines).min(DEEPEST);
        }
    }

    fn select_at(&mut self, position: usize) {
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

    fn select_first(&mut self) {
        self.selected = None;
        self.select_at(0);
    }

    fn filter(&mut self, state: Option<State>) -> Vec<Command> {
        self.state = state;
        if self.current().is_some_and(|row| !self.matches(row)) {
            self.select_first();
        }
        let name = state.map_or("every state", State::name);
        self.say(format!("showing conflicts in {name}"));
        vec![self.ask_for_list()]
    }

    fn search_for(&mut self, text: String) {
        self.search = text;
        if self.current().is_none_or(|row| !self.matches(row)) {
            self.select_first();
        }
    }

    fn press_in_search(&mut self, key: Key) -> Vec<Command> {
        let Overlay::Search(line) = &mut self.overlay else { return Vec::new() };
        match key {
            Key::Enter => self.overlay = Overlay::None,
            Key::Esc => {
                self.overlay = Overlay::None;
                self.search_for(String::new());
            }
            key => {
                if let Some(stroke) = stroke(key) {
                    line.press(stroke);
                }
                let text = line.text();
                self.search_for(text);
            }
        }
        Vec::new()
    }

    fn history(&mut self) -> Vec<Command> {
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

    // What is decided.

    /// Says why nothing can be decided now, if so.
    fn refusal(&self) -> Option<&'static str> {
        match self.link {
            Link::Lost { .. } => Some("disconnected: nothing is decided on what may be old"),
            Link::Refreshing => Some("the list is being read again: wait a moment"),
            Link::Live if self.deciding => Some("the last decision is still on its way"),
            Link::Live if self.reloading => Some("this conflict has just changed: look again"),
            Link::Live => None,
        }
    }

    /// Returns the row that may be decided about now.
    fn decidable(&mut self) -> Option<Box<Row>> {
        if let Some(reason) = self.refusal() {
            self.complain(reason);
            return None;
        }
        self.current().cloned().map(Box::new)
    }

    fn take(&mut self, digit: char) -> Vec<Command> {
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

    fn decide(&mut self, act: Act) -> Vec<Command> {
        match self.decidable() {
            Some(row) => self.send(row, act),
            None => Vec::new(),
        }
    }

    fn send(&mut self, row: Box<Row>, act: Act) -> Vec<Command> {
        self.deciding = true;
        self.say(format!("{} …", act.verb()));
        vec![Command::Act { row, act }]
    }

    fn edit(&mut self) -> Vec<Command> {
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

    fn press_in_edit(&mut self, key: Key) -> Vec<Command> {
        let Overlay::Edit { row, line } = &mut self.overlay else { return Vec::new() };
        match key {
            Key::Esc => {
                self.overlay = Overlay::None;
                self.say("nothing was changed");
                Vec::new()
            }
            Key::Enter => {
                let (row, text) = (row.clone(), line.text());
                if let Err(error) = serde_json::from_str::<Value>(&text) {
                    self.complain(format!("no JSON: {error} (text needs its double quotes)"));
                    return Vec::new();
                }
                self.overlay = Overlay::None;
                self.edited(row, Ok(Some(text)))
            }
            key => {
                if let Some(stroke) = stroke(key) {
                    line.press(stroke);
                }
                Vec::new()
            }
        }
    }

    /// Writes what was typed, for the row as it was when typing began.
    fn edited(&mut self, row: Box<Row>, text: Result<Option<String>, String>) -> Vec<Command> {
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

/// Returns everything of a row that a search looks at.
fn searched(row: &Row) -> String {
    let mut text = format!("{} {} {} {}", row.id, row.document_name(), row.place(), row.kind);
    for side in &row.candidates {
        text.push_str(&format!(" {} {}", side.writer(), side.text()));
    }
    text
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

fn stroke(key: Key) -> Option<Stroke> {
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

/// Rows that are kept: the newest. Filters and searches find the others.
pub(super) const MOST_ROWS: usize = 1_000;

/// Lines that a page key moves.
const PAGE: isize = 10;

/// Lines that a pane can be scrolled by.
const DEEPEST: usize = 100_000;

#[cfg(test)]
mod tests;
