//! The message of a change: what the change is for, who asked for it, and a note.
//!
//! It is kept inside the change, as a line of JSON, so it replicates and never gets lost, and
//! other Automerge readers can show it. An ordinary write of nobody in particular has none. A
//! message that another program wrote is the note of an ordinary write.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::conflict::ConflictId;
use crate::document::ClosingKind;
use crate::ids::AuthorName;

/// What a change is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Act {
    /// An ordinary write.
    #[default]
    Write,
    /// The delete of the document.
    Delete,
    /// The resolution of a conflict.
    Resolve(ConflictId),
    /// Nobody needs to look at the conflict any more; nothing is written.
    Dismiss(ConflictId),
    /// Somebody should look at the conflict again; nothing is written.
    Reopen(ConflictId),
    /// What showed before the conflict was resolved is written again, and the conflict is open.
    Undo(ConflictId),
    /// The document is as it was at an earlier point.
    Revert,
    /// The document is as it was before it was deleted.
    Undelete,
    /// The document goes on in its next epoch, where its history starts anew.
    Compact,
    /// The deleted document is gone for good; whatever is written under its name later starts a
    /// new one.
    Purge,
    /// The first change of an epoch; it holds what showed when the epoch before was closed.
    Open,
    /// What a change did that came to an epoch after it was closed, done in the next one.
    Late,
    /// What a policy calls for; every leader makes the same change.
    Policy,
}

impl Act {
    /// Returns the conflict that the change resolves.
    #[must_use]
    pub fn resolves(&self) -> Option<ConflictId> {
        match self {
            Self::Resolve(id) => Some(*id),
            Self::Write
            | Self::Delete
            | Self::Dismiss(_)
            | Self::Reopen(_)
            | Self::Undo(_)
            | Self::Revert
            | Self::Undelete
            | Self::Compact
            | Self::Purge
            | Self::Open
            | Self::Late
            | Self::Policy => None,
        }
    }

    /// Tells how the change closes its document, if it does.
    #[must_use]
    pub fn closes(&self) -> Option<ClosingKind> {
        match self {
            Self::Compact => Some(ClosingKind::Compact),
            Self::Purge => Some(ClosingKind::Purge),
            Self::Write
            | Self::Delete
            | Self::Resolve(_)
            | Self::Dismiss(_)
            | Self::Reopen(_)
            | Self::Undo(_)
            | Self::Revert
            | Self::Undelete
            | Self::Open
            | Self::Late
            | Self::Policy => None,
        }
    }

    /// Returns the act that a word stands for; those about a conflict need one.
    #[must_use]
    pub fn named(word: &str, conflict: Option<ConflictId>) -> Option<Self> {
        Some(match (word, conflict) {
            ("write", None) => Self::Write,
            ("delete", None) => Self::Delete,
            ("revert", None) => Self::Revert,
            ("undelete", None) => Self::Undelete,
            ("compact", None) => Self::Compact,
            ("purge", None) => Self::Purge,
            ("open", None) => Self::Open,
            ("late", None) => Self::Late,
            ("policy", None) => Self::Policy,
            ("resolve", Some(id)) => Self::Resolve(id),
            ("dismiss", Some(id)) => Self::Dismiss(id),
            ("reopen", Some(id)) => Self::Reopen(id),
            ("undo", Some(id)) => Self::Undo(id),
            _ => return None,
        })
    }

    /// Returns the conflict that the change is about.
    #[must_use]
    pub fn conflict(&self) -> Option<ConflictId> {
        match self {
            Self::Resolve(id) | Self::Dismiss(id) | Self::Reopen(id) | Self::Undo(id) => Some(*id),
            Self::Write
            | Self::Delete
            | Self::Revert
            | Self::Undelete
            | Self::Compact
            | Self::Purge
            | Self::Open
            | Self::Late
            | Self::Policy => None,
        }
    }
}

impl fmt::Display for Act {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Write => "write",
            Self::Delete => "delete",
            Self::Resolve(_) => "resolve",
            Self::Dismiss(_) => "dismiss",
            Self::Reopen(_) => "reopen",
            Self::Undo(_) => "undo",
            Self::Revert => "revert",
            Self::Undelete => "undelete",
            Self::Compact => "compact",
            Self::Purge => "purge",
            Self::Open => "open",
            Self::Late => "late",
            Self::Policy => "policy",
        })
    }
}

/// The message of a change.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Message {
    /// What the change is for.
    pub act: Act,
    /// Who asked for it.
    pub author: Option<AuthorName>,
    /// Why.
    pub note: Option<String>,
}

impl Message {
    /// Makes a message with neither author nor note.
    #[must_use]
    pub fn of(act: Act) -> Self {
        Self { act, author: None, note: None }
    }

    /// Returns the text that is kept in the change, if there is anything to keep.
    #[must_use]
    pub fn text(&self) -> Option<String> {
        (*self != Self::default()).then(|| self.stored(false))
    }

    /// Returns the text that is kept in a change after which the document is not there.
    pub(crate) fn deleting_text(&self) -> String {
        match self.act {
            Act::Write => Self { act: Act::Delete, ..self.clone() }.stored(false),
            Act::Delete => self.stored(false),
            Act::Resolve(_)
            | Act::Dismiss(_)
            | Act::Reopen(_)
            | Act::Undo(_)
            | Act::Revert
            | Act::Undelete
            | Act::Compact
            | Act::Purge
            | Act::Open
            | Act::Late
            | Act::Policy => self.stored(true),
        }
    }

    fn stored(&self, deletes: bool) -> String {
        let stored = Stored {
            anabranch: self.act.to_string(),
            deletes,
            conflict: self.act.conflict().map(|id| id.to_string()),
            author: self.author.as_ref().map(ToString::to_string),
            note: self.note.clone(),
        };
        serde_json::to_string(&stored).expect("a message is made of text")
    }

    /// Reads the message of a change.
    #[must_use]
    pub fn read(text: Option<&str>) -> Self {
        let Some(text) = text else { return Self::default() };
        let ours = text.starts_with(PREFIX).then(|| serde_json::from_str::<Stored>(text).ok());
        ours.flatten().and_then(|stored| stored.message()).unwrap_or_else(|| Self {
            note: Some(text.to_owned()).filter(|text| !text.is_empty()),
            ..Self::default()
        })
    }
}

/// Tells whether a message says that the document is not there after its change, without reading
/// all of it.
pub(crate) fn is_delete(text: &str) -> bool {
    let act = text.strip_prefix(PREFIX).and_then(|rest| rest.strip_prefix('"'));
    act.and_then(|act| act.split_once('"'))
        .is_some_and(|(act, rest)| act == "delete" || rest.starts_with(",\"deletes\":true"))
}

/// Tells whether a message says that its change closes an epoch, without reading all of it.
pub(crate) fn is_closing(text: &str) -> bool {
    ["compact", "purge"].iter().any(|act| {
        let rest = text.strip_prefix(PREFIX).and_then(|rest| rest.strip_prefix('"'));
        rest.and_then(|rest| rest.strip_prefix(act)).is_some_and(|rest| rest.starts_with('"'))
    })
}

/// Tells whether a message says that its change was called for by a policy.
pub(crate) fn is_policy(text: &str) -> bool {
    text.starts_with("{\"anabranch\":\"policy\"")
}

#[derive(Serialize, Deserialize)]
struct Stored {
    anabranch: String,
    /// Whether the document is not there after a change that is for something else than that. It
    /// stands second, where `is_delete` looks for it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    deletes: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    conflict: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    author: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    note: Option<String>,
}

impl Stored {
    fn message(self) -> Option<Message> {
        let conflict = self.conflict.as_deref().map(str::parse::<ConflictId>).transpose().ok()?;
        let act = Act::named(&self.anabranch, conflict)?;
        let author = self.author.as_deref().map(str::parse::<AuthorName>).transpose().ok()?;
        Some(Message { act, author, note: self.note })
    }
}

const PREFIX: &str = "{\"anabranch\":";

#[cfg(test)]
mod tests {
    use proptest::option;
    use proptest::prelude::*;

    use super::*;

    fn act() -> impl Strategy<Value = Act> {
        let id = any::<[u8; 16]>().prop_map(ConflictId);
        (0..13, id).prop_map(|(which, id)| match which {
            0 => Act::Write,
            1 => Act::Delete,
            2 => Act::Resolve(id),
            3 => Act::Dismiss(id),
            4 => Act::Reopen(id),
            5 => Act::Undo(id),
            6 => Act::Revert,
            7 => Act::Undelete,
            8 => Act::Compact,
            9 => Act::Purge,
            10 => Act::Open,
            11 => Act::Late,
            _ => Act::Policy,
        })
    }

    #[test]
    fn an_ordinary_write_has_no_message() {
        assert_eq!(Message::default().text(), None);
        assert_eq!(Message::read(None), Message::default());
        assert_eq!(Message::read(Some("")), Message::default());
    }

    #[test]
    fn deletes_and_policies_are_told_by_their_beginning() {
        let text = |act| Message { act, author: "ada".parse().ok(), note: None }.text().unwrap();
        assert!(is_delete(&text(Act::Delete)) && !is_delete(&text(Act::Policy)));
        assert!(is_policy(&text(Act::Policy)) && !is_policy(&text(Act::Write)));
        let resolve = Message::of(Act::Resolve(ConflictId([7; 16])));
        assert!(!is_delete(&resolve.text().unwrap()) && is_delete(&resolve.deleting_text()));
        assert!(is_delete(&Message::default().deleting_text()));
        assert_eq!(Message::read(Some(&resolve.deleting_text())), resolve);
    }

    #[test]
    fn what_others_wrote_is_a_note() {
        for text in ["fixed a typo", "{}", "{\"anabranch\":1}", "{\"anabranch\":\"resolve\"}"] {
            let message = Message::read(Some(text));
            assert_eq!((message.act, message.note.as_deref()), (Act::Write, Some(text)));
        }
    }

    proptest! {
        #[test]
        fn messages_are_read_as_written(
            act in act(), author in option::of("[a-zé ]{1,9}"), note in option::of(any::<String>()),
        ) {
            let author = author.map(|name| name.parse().unwrap());
            let message = Message { act, author, note };
            prop_assert_eq!(Message::read(message.text().as_deref()), message);
        }

        #[test]
        fn any_text_is_read(text in any::<String>()) {
            let _ = Message::read(Some(&text));
        }
    }
}
