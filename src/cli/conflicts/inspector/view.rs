//! How the inspector looks: the model, drawn. It keeps nothing and decides nothing.

mod detail;
mod overlay;

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::Paragraph;

use super::super::row::{Row, State};
use super::model::{Focus, Link, Model, Overlay};
use crate::cli::output::{printable, thousands};
use crate::cli::panes::{fit, pad};

/// Draws everything.
pub(super) fn draw(model: &Model, frame: &mut Frame<'_>) {
    let banner = u16::from(model.link != Link::Live);
    let [title, warning, body, status, keys] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(banner),
        Constraint::Min(1),
        Constraint::Length(1),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    draw_title(model, frame, title);
    draw_banner(model, frame, warning);
    draw_body(model, frame, body);
    draw_status(model, frame, status);
    draw_keys(model, frame, keys);
    overlay::draw(model, frame, body);
}

fn draw_title(model: &Model, frame: &mut Frame<'_>, area: Rect) {
    let state = model.state.map_or("every state", State::name);
    let shown = model.visible().len() as u64;
    let mut count = thousands(shown);
    if model.total > shown {
        count.push_str(&format!(" of {}", thousands(model.total)));
    }
    let mut text = format!(" conflicts · {state} · {count}");
    if !model.search.is_empty() {
        text.push_str(&format!(" · /{}", model.search));
    }
    text.push_str(&format!(" · {}", model.node));
    let text = pad(&printable(&text), usize::from(area.width));
    frame.render_widget(Paragraph::new(text).style(reversed()), area);
}

/// Says that what shows may be old.
fn draw_banner(model: &Model, frame: &mut Frame<'_>, area: Rect) {
    let text = match &model.link {
        Link::Live => return,
        Link::Refreshing => " connected again, reading what changed".to_owned(),
        Link::Lost { since } => {
            format!(
                " disconnected, showing state of {since}; reconnecting, no decisions until then"
            )
        }
    };
    let text = pad(&text, usize::from(area.width));
    let style = Style::new().fg(Color::White).bg(Color::Red).add_modifier(Modifier::BOLD);
    frame.render_widget(Paragraph::new(text).style(style), area);
}

/// Draws list and conflict, or only what is in focus where there is no room for both.
fn draw_body(model: &Model, frame: &mut Frame<'_>, area: Rect) {
    if area.height < BOTH {
        match model.focus {
            Focus::List => draw_list(model, frame, area),
            Focus::Base | Focus::Sides | Focus::Result => detail::draw(model, frame, area),
        }
        return;
    }
    let rows = u16::try_from(model.visible().len().max(1)).unwrap_or(u16::MAX);
    let list = rows.saturating_add(1).min(area.height / 3).max(LEAST_LIST);
    let [list, conflict] =
        Layout::vertical([Constraint::Length(list), Constraint::Min(1)]).areas(area);
    draw_list(model, frame, list);
    detail::draw(model, frame, conflict);
}

fn draw_list(model: &Model, frame: &mut Frame<'_>, area: Rect) {
    let rows = model.visible();
    let width = usize::from(area.width);
    if rows.is_empty() {
        let text = if model.search.is_empty() && model.state.is_none() {
            "no conflicts; new ones appear here"
        } else {
            "no conflicts match (f changes the state, Esc clears the search)"
        };
        frame.render_widget(Paragraph::new(fit(text, width)), area);
        return;
    }
    let mut lines = vec![Line::styled(heading(width), Style::new().add_modifier(Modifier::DIM))];
    let room = usize::from(area.height).saturating_sub(1).max(1);
    let position = model.position();
    let first = position.saturating_sub(room / 2).min(rows.len().saturating_sub(room));
    for (index, row) in rows.iter().enumerate().skip(first).take(room) {
        let style = match (index == position, model.focus) {
            (true, Focus::List) => reversed(),
            (true, Focus::Base | Focus::Sides | Focus::Result) => {
                Style::new().add_modifier(Modifier::BOLD | Modifier::UNDERLINED)
            }
            (false, _) => Style::new(),
        };
        lines.push(Line::styled(list_line(row, width), style));
    }
    frame.render_widget(Paragraph::new(lines), area);
}

fn heading(width: usize) -> String {
    columns(["id", "state", "document", "path", "shows"], width)
}

fn list_line(row: &Row, width: usize) -> String {
    let [id, document, path, shows] =
        [row.short_id(), row.document_name(), row.place(), row.shown()]
            .map(|text| printable(&text));
    columns([&id, row.state.name(), &document, &path, &shows], width)
}

/// Lays out a line of the list. The first two columns are fixed, the others share the rest; where
/// it is narrow, only those are left that say which conflict it is.
fn columns([id, state, document, path, shows]: [&str; 5], width: usize) -> String {
    let cells = if width < NARROW {
        let half = width.saturating_sub(8 + 2 * 2) / 2;
        vec![pad(id, 8), pad(document, half), pad(path, half)]
    } else {
        let rest = width.saturating_sub(8 + 13 + 4 * 2);
        let third = rest / 3;
        vec![
            pad(id, 8),
            pad(state, 13),
            pad(document, third),
            pad(path, third),
            fit(shows, rest.saturating_sub(2 * third)),
        ]
    };
    fit(&pad(&cells.join("  "), width), width)
}

fn draw_status(model: &Model, frame: &mut Frame<'_>, area: Rect) {
    let width = usize::from(area.width);
    let line = match &model.overlay {
        Overlay::Search(line) => typed("/", line, width),
        // A complaint about what was typed is more important than the field's own label.
        Overlay::Edit { line, .. } => typed("value: ", line, width),
        Overlay::None | Overlay::Help | Overlay::History { .. } => {
            let style = if model.status.is_bad {
                Style::new().fg(Color::Red).add_modifier(Modifier::BOLD)
            } else {
                Style::new()
            };
            Line::styled(fit(&printable(&model.status.text), width), style)
        }
    };
    frame.render_widget(Paragraph::new(line), area);
}

/// Shows a line that is being typed, with its cursor, and the part around it where it is long.
fn typed(label: &str, line: &super::line::Line, width: usize) -> Line<'static> {
    let (before, after) = line.parts();
    let before: Vec<char> = printable(before).chars().collect();
    let room = width.saturating_sub(label.len() + 1);
    let tail: String = before.iter().skip(before.len().saturating_sub(room)).collect();
    let after = printable(after);
    let cursor = after.chars().next().unwrap_or(' ').to_string();
    let rest: String = after.chars().skip(1).collect();
    Line::from(vec![
        Span::raw(label.to_owned()),
        Span::raw(tail),
        Span::styled(cursor, reversed()),
        Span::raw(rest),
    ])
}

fn draw_keys(model: &Model, frame: &mut Frame<'_>, area: Rect) {
    let text = match &model.overlay {
        Overlay::Edit { .. } if model.status.is_bad => model.status.text.clone(),
        Overlay::Edit { .. } => "Enter write · Esc leave it".to_owned(),
        Overlay::Search(_) => "Enter keep · Esc clear".to_owned(),
        Overlay::History { .. } => "j k scroll · Esc back".to_owned(),
        Overlay::Help => "any key goes back".to_owned(),
        Overlay::None => KEYS.to_owned(),
    };
    let text = fit(&printable(&text), usize::from(area.width));
    let style = Style::new().add_modifier(Modifier::DIM);
    frame.render_widget(Paragraph::new(text).style(style), area);
}

fn reversed() -> Style {
    Style::new().add_modifier(Modifier::REVERSED)
}

const KEYS: &str = "1-9 take  e edit  m merge  d dismiss  u undo  r reopen  h history  f /  ?  q";

/// Columns below which the list has no room for states and values.
const NARROW: usize = 60;

/// Lines from which on list and conflict are shown at once.
const BOTH: u16 = 12;

/// Lines of the list at least, its heading among them.
const LEAST_LIST: u16 = 3;

#[cfg(test)]
mod tests;
