//! What comes from the node: rows, lists, and how decisions went.

use std::collections::BTreeSet;

use super::super::super::ledger::{Act, Outcome};
use super::super::super::row::{Candidate, Row};
use super::{Command, Link, Listing, MOST_ROWS, Model, Overlay};
use crate::cli::Failure;
use crate::cli::doc::Change;

impl Model {
    pub(super) fn refresh(&mut self) -> Vec<Command> {
        let mut commands = vec![self.ask_for_list()];
        commands.extend(self.reload());
        commands
    }

    pub(super) fn ask_for_list(&mut self) -> Command {
        self.touched.clear();
        self.lists += 1;
        self.awaited = Some(self.lists);
        Command::List { state: self.state, ticket: self.lists }
    }

    /// Reads the row on the screen again; until then nothing is decided about it.
    pub(super) fn reload(&mut self) -> Option<Command> {
        let id = self.selected.clone()?;
        self.reloading = true;
        self.ticket += 1;
        Some(Command::Load { id, ticket: self.ticket })
    }

    pub(super) fn streamed(&mut self, row: Row) -> Vec<Command> {
        self.touch(&row.id);
        let is_same = self.rows.iter().any(|old| old.id == row.id && old.revision == row.revision);
        if is_same && row.revision.is_some() {
            return Vec::new();
        }
        let is_selected = self.selected.as_ref() == Some(&row.id);
        self.put(row);
        if is_selected { self.reload().into_iter().collect() } else { Vec::new() }
    }

    pub(super) fn touch(&mut self, id: &str) {
        if self.awaited.is_some() {
            self.touched.insert(id.to_owned());
        }
    }

    /// Replaces a row, or adds it in its place in the order.
    pub(super) fn put(&mut self, row: Row) {
        if let Some(old) = self.rows.iter_mut().find(|old| old.id == row.id) {
            *old = row;
            return;
        }
        self.total += u64::from(self.matches(&row));
        self.rows.push(row);
        self.arrange();
    }

    /// Orders the rows, the newest first, and forgets the oldest where there are too many.
    pub(super) fn arrange(&mut self) {
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

    pub(super) fn removed(&mut self, id: &str) -> Vec<Command> {
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

    pub(super) fn listed(&mut self, ticket: u64, page: Result<Listing, Failure>) -> Vec<Command> {
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
    pub(super) fn unless_lost(&mut self, ask: impl FnOnce(&mut Self) -> Command) -> Vec<Command> {
        match self.link {
            Link::Lost { .. } => Vec::new(),
            Link::Live | Link::Refreshing => vec![ask(self)],
        }
    }

    /// Takes a list; rows that were streamed after it was asked for are newer than it.
    pub(super) fn list(&mut self, listing: Listing) {
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

    pub(super) fn loaded(
        &mut self,
        id: &str,
        ticket: u64,
        row: Result<Box<Row>, Failure>,
    ) -> Vec<Command> {
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

    pub(super) fn acted(
        &mut self,
        row: &Row,
        act: &Act,
        outcome: Result<Outcome, Failure>,
    ) -> Vec<Command> {
        self.deciding = false;
        let place = format!("{} of {}", row.place(), row.document_name());
        match outcome {
            Ok(Outcome::Done(now)) => {
                self.draft = None;
                match Row::read(*now) {
                    Ok(now) => {
                        let what = written(row, act).unwrap_or_else(|| now.shown());
                        self.say(format!("{} {place}: {what} shows", act.done()));
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
    pub(super) fn take_answer(&mut self, asked: &Row, now: Row) {
        let shown = self.rows.iter().find(|row| row.id == now.id);
        if shown.is_some_and(|shown| shown.revision == asked.revision) {
            self.put(now);
        }
    }

    pub(super) fn history_read(
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
}

/// Returns what a decision wrote, where the decision itself says it.
fn written(row: &Row, act: &Act) -> Option<String> {
    match act {
        Act::Take(id) => row.candidates.iter().find(|side| side.id == *id).map(Candidate::text),
        Act::Value(value) => Some(value.to_string()),
        Act::Delete => Some("(nothing)".to_owned()),
        Act::Merge | Act::Policy(_) | Act::Dismiss | Act::Reopen | Act::Undo => None,
    }
}
