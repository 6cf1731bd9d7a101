//! Reading TOML with positions: every complaint names file, line, column, and the cure.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::suggestion::closest;

/// What is wrong with the configuration, where, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ConfigError {
    file: PathBuf,
    place: Option<Place>,
    message: String,
    help: Option<String>,
}

/// A place in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    line: usize,
    column: usize,
    width: usize,
    text: String,
}

impl ConfigError {
    /// Makes an error about a file as a whole.
    pub(crate) fn of_file(file: &Path, message: impl Into<String>) -> Self {
        Self { file: file.to_owned(), place: None, message: message.into(), help: None }
    }

    /// Makes an error about a place in a file.
    pub(crate) fn at(file: &Path, place: Place, message: impl Into<String>) -> Self {
        Self { place: Some(place), ..Self::of_file(file, message) }
    }

    /// Adds what to do about it.
    #[must_use]
    pub(crate) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        match &self.place {
            None => write!(f, ": {}", self.message)?,
            Some(place) => {
                writeln!(f, ":{}:{}: {}", place.line, place.column, self.message)?;
                writeln!(f, "{:>5} | {}", place.line, place.text)?;
                let (indent, width) = (place.column - 1, place.width.max(1));
                write!(f, "      | {:indent$}{:^<width$}", "", "")?;
            }
        }
        self.help.as_ref().map_or(Ok(()), |help| write!(f, "\n  help: {help}"))
    }
}

impl std::error::Error for ConfigError {}

/// The text that is read, and where it comes from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Source<'s> {
    /// The file, for messages.
    pub(crate) file: &'s Path,
    /// Its text.
    pub(crate) text: &'s str,
}

impl<'s> Source<'s> {
    /// Returns the line, the column and the text around a span of bytes.
    pub(crate) fn place(&self, span: &Range<usize>) -> Place {
        let before = self.text.get(..span.start).unwrap_or(self.text);
        let start = before.rfind('\n').map_or(0, |newline| newline + 1);
        let text = self.text.get(start..).and_then(|rest| rest.lines().next()).unwrap_or("");
        let column = before.get(start..).unwrap_or("").chars().count() + 1;
        let marked = self.text.get(span.clone()).and_then(|s| s.lines().next()).unwrap_or("");
        Place {
            line: before.matches('\n').count() + 1,
            column,
            width: marked.chars().count(),
            text: text.trim_end().to_owned(),
        }
    }

    /// Returns the line of a span of bytes; the first is 1.
    pub(crate) fn line(&self, span: &Range<usize>) -> usize {
        self.place(span).line
    }

    /// Makes an error about a span of bytes.
    pub(crate) fn error(&self, span: &Range<usize>, message: impl Into<String>) -> ConfigError {
        ConfigError::at(self.file, self.place(span), message)
    }

    /// Reads the whole text as a table.
    pub(crate) fn parse(&self) -> Result<Spanned<DeTable<'s>>, ConfigError> {
        DeTable::parse(self.text).map_err(|error| {
            let span = error.span().unwrap_or(0..0);
            self.error(&span, error.message().replace('\n', ", "))
                .help("the file is TOML: see https://toml.io")
        })
    }
}

/// One table of the file.
#[derive(Debug, Clone)]
pub(crate) struct Section<'a> {
    /// Where it was read.
    pub(crate) source: Source<'a>,
    /// Its name as it stands in the file, such as `[[region]]`.
    pub(crate) title: String,
    /// Its place.
    pub(crate) span: Range<usize>,
    /// Its keys and values.
    pub(crate) table: &'a DeTable<'a>,
}

impl<'a> Section<'a> {
    /// Takes a value as a table.
    pub(crate) fn new(
        source: Source<'a>,
        title: impl Into<String>,
        value: &'a Spanned<DeValue<'a>>,
    ) -> Result<Self, ConfigError> {
        let title = title.into();
        let table = value.get_ref().as_table().ok_or_else(|| {
            let kind = value.get_ref().type_str();
            source
                .error(&value.span(), format!("{title} must be a section, this is of type {kind}"))
                .help(format!("write a line {title} and the keys below it"))
        })?;
        Ok(Self { source, title, span: value.span(), table })
    }

    /// Refuses every key that is not in `known`.
    pub(crate) fn only(&self, known: &[&str]) -> Result<(), ConfigError> {
        let stranger = self
            .table
            .keys()
            .filter(|key| !known.contains(&key.get_ref().as_ref()))
            .min_by_key(|key| key.span().start);
        stranger.map_or(Ok(()), |key| {
            let all = format!("known here: {}", known.join(", "));
            let help = match closest(key.get_ref(), known) {
                Some(word) => format!("did you mean '{word}'? ({all})"),
                None => all,
            };
            let message = format!("unknown key '{}' in {}", key.get_ref(), self.title);
            Err(self.source.error(&key.span(), message).help(help))
        })
    }

    /// Returns the value of `key`, if it is there.
    pub(crate) fn optional(&self, key: &str) -> Option<&'a Spanned<DeValue<'a>>> {
        self.table.get(key)
    }

    /// Returns the text under `key`, if it is there.
    pub(crate) fn optional_text(&self, key: &str) -> Result<Option<Spanned<&'a str>>, ConfigError> {
        self.optional(key).map(|value| self.text_of(key, value)).transpose()
    }

    /// Returns the text under `key`; `example` is shown when it is missing.
    pub(crate) fn text(&self, key: &str, example: &str) -> Result<Spanned<&'a str>, ConfigError> {
        self.optional_text(key)?.ok_or_else(|| {
            self.source
                .error(&self.span, format!("{} has no '{key}'", self.title))
                .help(format!("add a line such as  {key} = \"{example}\""))
        })
    }

    /// Takes a value as text.
    pub(crate) fn text_of(
        &self,
        key: &str,
        value: &'a Spanned<DeValue<'a>>,
    ) -> Result<Spanned<&'a str>, ConfigError> {
        let text = value.get_ref().as_str().ok_or_else(|| {
            let kind = value.get_ref().type_str();
            self.source
                .error(&value.span(), format!("'{key}' must be a string, this is of type {kind}"))
                .help("write it in double quotes")
        })?;
        Ok(Spanned::new(value.span(), text))
    }

    /// Reads the text under `key` as a `T`, whose own message is shown if that fails.
    pub(crate) fn parse<T>(&self, key: &str, example: &str) -> Result<Spanned<T>, ConfigError>
    where
        T: std::str::FromStr,
        T::Err: fmt::Display,
    {
        let text = self.text(key, example)?;
        match text.get_ref().parse() {
            Ok(value) => Ok(Spanned::new(text.span(), value)),
            Err(error) => Err(self
                .source
                .error(&text.span(), format!("bad {key}: {error}"))
                .help(format!("write it like  {key} = \"{example}\""))),
        }
    }
}
