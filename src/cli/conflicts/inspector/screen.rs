//! The terminal: taken over for the inspector, and given back however it ends.

use std::io::{self, Stdout};
use std::sync::Once;

use crossterm::cursor::{Hide, Show};
use crossterm::event::{Event as Input, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use crossterm::execute;
use crossterm::terminal::{
    Clear, ClearType, EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode,
};
use ratatui::Terminal;
use ratatui::backend::CrosstermBackend;

use super::model::{Key, Model};
use super::view;
use crate::cli::Failure;

/// The screen, while it is taken over.
#[derive(Debug)]
pub(super) struct Screen {
    terminal: Terminal<CrosstermBackend<Stdout>>,
}

impl Screen {
    /// Takes the terminal over.
    ///
    /// # Errors
    /// It cannot be.
    pub(super) fn open() -> Result<Self, Failure> {
        restore_on_panic();
        take_over()?;
        match Terminal::new(CrosstermBackend::new(io::stdout())) {
            Ok(terminal) => Ok(Self { terminal }),
            Err(error) => {
                give_back();
                Err(failed(&error))
            }
        }
    }

    /// Draws the model.
    ///
    /// # Errors
    /// The terminal has gone.
    pub(super) fn draw(&mut self, model: &Model) -> Result<(), Failure> {
        let drawn = self.terminal.draw(|frame| view::draw(model, frame));
        drawn.map(|_| ()).map_err(|error| failed(&error))
    }

    /// Gives the terminal to another program for a while.
    pub(super) fn leave(&self) {
        give_back();
    }

    /// Takes the terminal back from another program.
    ///
    /// # Errors
    /// It cannot be.
    pub(super) fn come_back(&mut self) -> Result<(), Failure> {
        take_over()?;
        execute!(io::stdout(), Clear(ClearType::All)).map_err(|error| failed(&error))?;
        // A new one draws everything. Clearing the old one would ask the terminal where its cursor
        // is, and the answer would come between the keys.
        self.terminal =
            Terminal::new(CrosstermBackend::new(io::stdout())).map_err(|e| failed(&e))?;
        Ok(())
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        give_back();
    }
}

fn take_over() -> Result<(), Failure> {
    enable_raw_mode().map_err(|error| failed(&error))?;
    execute!(io::stdout(), EnterAlternateScreen, Hide).map_err(|error| {
        give_back();
        failed(&error)
    })
}

fn give_back() {
    // Nothing can be done about a terminal that has gone.
    let _ = execute!(io::stdout(), LeaveAlternateScreen, Show);
    let _ = disable_raw_mode();
}

/// Gives the terminal back before a panic is reported: on the other screen nobody would see it.
fn restore_on_panic() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let report = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            give_back();
            report(panic);
        }));
    });
}

fn failed(error: &io::Error) -> Failure {
    Failure::General(format!("cannot use the terminal: {error}"))
}

/// Returns the key that an input is, if the inspector knows it.
pub(super) fn key(input: &Input) -> Option<Key> {
    let Input::Key(KeyEvent { code, modifiers, kind, .. }) = input else { return None };
    if *kind == KeyEventKind::Release {
        return None;
    }
    if modifiers.contains(KeyModifiers::CONTROL) {
        return (*code == KeyCode::Char('c')).then_some(Key::Interrupt);
    }
    let keys = [
        (KeyCode::Enter, Key::Enter),
        (KeyCode::Tab, Key::Tab),
        (KeyCode::BackTab, Key::BackTab),
        (KeyCode::Esc, Key::Esc),
        (KeyCode::Backspace, Key::Backspace),
        (KeyCode::Delete, Key::Delete),
        (KeyCode::Left, Key::Left),
        (KeyCode::Right, Key::Right),
        (KeyCode::Up, Key::Up),
        (KeyCode::Down, Key::Down),
        (KeyCode::Home, Key::Home),
        (KeyCode::End, Key::End),
        (KeyCode::PageUp, Key::PageUp),
        (KeyCode::PageDown, Key::PageDown),
    ];
    if let KeyCode::Char(c) = code {
        return Some(Key::Char(*c));
    }
    keys.into_iter().find(|(known, _)| known == code).map(|(_, key)| key)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pressed(code: KeyCode, modifiers: KeyModifiers) -> Option<Key> {
        key(&Input::Key(KeyEvent::new(code, modifiers)))
    }

    #[test]
    fn keys_are_known_and_control_keys_do_nothing_else() {
        assert_eq!(pressed(KeyCode::Char('q'), KeyModifiers::NONE), Some(Key::Char('q')));
        assert_eq!(pressed(KeyCode::Char('G'), KeyModifiers::SHIFT), Some(Key::Char('G')));
        assert_eq!(pressed(KeyCode::Char('c'), KeyModifiers::CONTROL), Some(Key::Interrupt));
        assert_eq!(pressed(KeyCode::Char('d'), KeyModifiers::CONTROL), None);
        assert_eq!(pressed(KeyCode::PageUp, KeyModifiers::NONE), Some(Key::PageUp));
        assert_eq!(pressed(KeyCode::F(1), KeyModifiers::NONE), None);
        assert_eq!(key(&Input::FocusGained), None);
    }
}
