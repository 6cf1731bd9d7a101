//! What the inspector knows and shows: events in, commands out. No terminal, no network, no clock.
//!
//! What it never does: act on what is not on the screen. Every decision carries the revision that
//! is shown; a row that changed is reloaded before the next decision about it; and while there is
//! no connection nothing is decided at all.

mod answers;
mod decisions;
mod keys;

use std::collections::BTreeSet;

use super::super::ledger::{Act, Outcome};
use super::super::row::{Row, State};
use super::line::Line;
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
}

/// Returns everything of a row that a search looks at.
fn searched(row: &Row) -> String {
    let mut text = format!("{} {} {} {}", row.id, row.document_name(), row.place(), row.kind);
    for side in &row.candidates {
        text.push_str(&format!(" {} {}", side.writer(), side.text()));
    }
    text
}

/// Rows that are kept: the newest. Filters and searches find the others.
pub(super) const MOST_ROWS: usize = 1_000;

#[cfg(test)]
mod tests;
