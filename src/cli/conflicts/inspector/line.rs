//! One line of text that is being typed.

/// A line with a cursor.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Line {
    before: String,
    after: String,
}

/// A key that means something in a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stroke {
    Type(char),
    Backspace,
    Delete,
    Left,
    Right,
    Home,
    End,
}

impl Line {
    /// Starts with a text, and the cursor behind it.
    pub(super) fn new(text: impl Into<String>) -> Self {
        Self { before: text.into(), after: String::new() }
    }

    /// Returns the text.
    pub(super) fn text(&self) -> String {
        format!("{}{}", self.before, self.after)
    }

    /// Returns what is before and after the cursor.
    pub(super) fn parts(&self) -> (&str, &str) {
        (&self.before, &self.after)
    }

    /// Takes a key.
    pub(super) fn press(&mut self, stroke: Stroke) {
        match stroke {
            Stroke::Type(c) if self.before.len() + self.after.len() < LONGEST => {
                self.before.push(c)
            }
            Stroke::Type(_) => {}
            Stroke::Backspace => {
                self.before.pop();
            }
            Stroke::Delete => {
                self.take_next();
            }
            Stroke::Left => {
                if let Some(c) = self.before.pop() {
                    self.after.insert(0, c);
                }
            }
            Stroke::Right => {
                if let Some(c) = self.take_next() {
                    self.before.push(c);
                }
            }
            Stroke::Home => *self = Self { before: String::new(), after: self.text() },
            Stroke::End => *self = Self::new(self.text()),
        }
    }

    fn take_next(&mut self) -> Option<char> {
        (!self.after.is_empty()).then(|| self.after.remove(0))
    }
}

/// Bytes of a line: longer values are for an editor.
const LONGEST: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_edit_at_the_cursor() {
        let mut line = Line::new("päris");
        for stroke in [Stroke::Home, Stroke::Delete, Stroke::Type('P'), Stroke::Right] {
            line.press(stroke);
        }
        assert_eq!(line.parts(), ("Pä", "ris"));
        line.press(Stroke::Backspace);
        line.press(Stroke::Type('a'));
        line.press(Stroke::End);
        line.press(Stroke::Left);
        line.press(Stroke::Type('!'));
        assert_eq!(line.text(), "Pari!s");
        let mut empty = Line::default();
        for stroke in [Stroke::Backspace, Stroke::Delete, Stroke::Left, Stroke::Right, Stroke::Home]
        {
            empty.press(stroke);
        }
        assert_eq!(empty.text(), "");
    }
}
