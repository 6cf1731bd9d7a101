//! The selected conflict: base, sides and result next to each other.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Modifier, Style};
use ratatui::text::Line;
use ratatui::widgets::{Block, Borders, Paragraph};

use super::super::super::row::{Candidate, Row};
use super::super::model::{Focus, Model};
use crate::cli::output::printable;
use crate::cli::panes::{fit, value_lines, wrap};

/// Draws the selected conflict.
pub(super) fn draw(model: &Model, frame: &mut Frame<'_>, area: Rect) {
    let Some(row) = model.current() else { return };
    let [facts, panes] = Layout::vertical([Constraint::Length(1), Constraint::Min(1)]).areas(area);
    draw_facts(model, row, frame, facts);
    if area.width < THREE {
        draw_pane(model, row, one(model.focus), frame, panes);
        return;
    }
    let areas = Layout::horizontal([Constraint::Fill(2), Constraint::Fill(3), Constraint::Fill(3)])
        .areas::<3>(panes);
    for (focus, area) in [Focus::Base, Focus::Sides, Focus::Result].into_iter().zip(areas) {
        draw_pane(model, row, focus, frame, area);
    }
}

/// Returns the pane that is shown where there is room for one only.
fn one(focus: Focus) -> Focus {
    match focus {
        Focus::List | Focus::Sides => Focus::Sides,
        Focus::Base => Focus::Base,
        Focus::Result => Focus::Result,
    }
}

fn draw_facts(model: &Model, row: &Row, frame: &mut Frame<'_>, area: Rect) {
    let reading = if model.is_reloading() { " · reading it again" } else { "" };
    let text = format!(
        "{} {} · {} · {} · policy {}{reading}",
        row.document_name(),
        row.place(),
        row.kind,
        row.state.name(),
        row.policy,
    );
    let text = fit(&printable(&text), usize::from(area.width));
    let style = Style::new().add_modifier(Modifier::BOLD);
    frame.render_widget(Paragraph::new(text).style(style), area);
}

fn draw_pane(model: &Model, row: &Row, focus: Focus, frame: &mut Frame<'_>, area: Rect) {
    let in_focus = model.focus == focus;
    let title = match focus {
        Focus::Base => " base ",
        Focus::Sides => " sides ",
        Focus::Result | Focus::List => " result ",
    };
    let style = if in_focus { Modifier::BOLD } else { Modifier::DIM };
    let block = Block::new()
        .borders(Borders::ALL)
        .border_style(Style::new().add_modifier(style))
        .title(Line::styled(title, Style::new().add_modifier(style)));
    let inner = block.inner(area);
    let width = usize::from(inner.width);
    let lines = match focus {
        Focus::Base => base(row, width),
        Focus::Sides => sides(row, width),
        Focus::Result | Focus::List => result(row, width),
    };
    let room = usize::from(inner.height);
    let deepest = lines.len().saturating_sub(room);
    let skipped = if in_focus { model.scroll.min(deepest) } else { 0 };
    let more = lines.len() > skipped + room;
    let shown: Vec<Line<'_>> = lines.into_iter().skip(skipped).take(room).collect();
    let block = if more { block.title_bottom(Line::from(" more ").right_aligned()) } else { block };
    frame.render_widget(Paragraph::new(shown).block(block), area);
}

fn base(row: &Row, width: usize) -> Vec<Line<'static>> {
    match &row.base {
        None => plain(wrap("(nothing was there)", width)),
        Some(base) => plain(value_lines(&base.value, width, VALUE_LINES)),
    }
}

fn sides(row: &Row, width: usize) -> Vec<Line<'static>> {
    let mut lines = Vec::new();
    for (index, side) in row.candidates.iter().enumerate() {
        let mark = if row.winner_index() == Some(index) { "*" } else { " " };
        let title = format!("{}{mark} {}", index + 1, side.writer());
        let bold = Style::new().add_modifier(Modifier::BOLD);
        lines.extend(wrap(&printable(&title), width).into_iter().map(|t| Line::styled(t, bold)));
        lines.extend(plain(wrap(&printable(&side.at.show()), width)));
        lines.extend(plain(value(side, width)));
        lines.push(Line::default());
    }
    lines
}

fn result(row: &Row, width: usize) -> Vec<Line<'static>> {
    let mut lines = Vec::new();
    let which = match (row.winner_index(), row.winner()) {
        (Some(index), Some(winner)) => {
            lines.extend(plain(value(winner, width)));
            format!("side {} shows", index + 1)
        }
        (_, _) if row.is_merged() => "all sides show, merged".to_owned(),
        (_, _) => "a later value shows".to_owned(),
    };
    let bold = Style::new().add_modifier(Modifier::BOLD);
    lines.splice(0..0, wrap(&which, width).into_iter().map(|text| Line::styled(text, bold)));
    lines.push(Line::default());
    if let Some(why) = &row.why {
        lines.extend(plain(wrap(&printable(why), width)));
    }
    for act in row.past() {
        lines.extend(plain(wrap(&format!("- {}", printable(&act.sentence())), width)));
    }
    lines
}

fn value(side: &Candidate, width: usize) -> Vec<String> {
    if side.deleted {
        return vec![fit("(deleted)", width)];
    }
    value_lines(&side.value, width, VALUE_LINES)
}

fn plain(lines: Vec<String>) -> Vec<Line<'static>> {
    lines.into_iter().map(Line::from).collect()
}

/// Columns from which on three panes stand next to each other.
const THREE: u16 = 48;

/// Lines of a value; `-o json` has all of them.
const VALUE_LINES: usize = 500;
