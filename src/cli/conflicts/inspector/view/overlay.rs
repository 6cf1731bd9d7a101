//! What lies over the screen: the keys, and the history of a document.

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::widgets::{Block, Borders, Clear, Paragraph};

use super::super::model::{Model, Overlay};
use crate::cli::doc::Change;
use crate::cli::output::printable;
use crate::cli::panes::fit;

/// Draws what lies over the screen, if anything does.
pub(super) fn draw(model: &Model, frame: &mut Frame<'_>, area: Rect) {
    match &model.overlay {
        Overlay::None | Overlay::Search(_) | Overlay::Edit { .. } => {}
        Overlay::Help => draw_box(" keys ", HELP.lines().map(str::to_owned).collect(), frame, area),
        Overlay::History { document, changes, scroll } => {
            let width = usize::from(area.width.saturating_sub(2));
            let lines = match changes {
                None => vec!["reading …".to_owned()],
                Some(changes) if changes.is_empty() => vec!["no changes".to_owned()],
                Some(changes) => changes.iter().skip(*scroll).flat_map(change).collect(),
            };
            let lines = lines.iter().map(|line| fit(line, width)).collect();
            let title = format!(" history of {} ", printable(document));
            draw_box(&fit(&title, width), lines, frame, area);
        }
    }
}

fn change(change: &Change) -> [String; 2] {
    [
        format!("{}  {}  {}", change.short_hash(), change.when(), change.who()),
        format!("           {}", change.what()),
    ]
}

fn draw_box(title: &str, lines: Vec<String>, frame: &mut Frame<'_>, area: Rect) {
    frame.render_widget(Clear, area);
    let block = Block::new().borders(Borders::ALL).title(title.to_owned());
    frame.render_widget(Paragraph::new(lines.join("\n")).block(block), area);
}

const HELP: &str = "\
 arrows j k   move in the list, or scroll the pane in focus
 Enter Tab    focus the sides, the next pane        Esc  back to the list
 1 .. 9       take that side
 e            edit a value ($EDITOR, if it is set)
 m            merge the sides
 d            dismiss: no decision is needed
 u            undo: put back what showed before
 r            reopen: ask for a decision again
 h            history of the document
 f            filter by state: every, open, auto-resolved, resolved, dismissed
 /            search in ids, documents, paths, values, regions and authors
 q            quit

 * marks the side that shows. A row that changes is read again before anything
 is decided about it; without a connection nothing is decided.";
