//! A value in the editor of the person who sits there.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use uuid::Uuid;

/// Opens a text in an editor, waits until it is closed, and returns the text if it was changed.
///
/// # Errors
/// The editor cannot be started, or ends with an error.
pub(super) fn edit(editor: &str, text: &str) -> Result<Option<String>, String> {
    let draft = Draft::create(text)?;
    // The variable may hold arguments, so a shell takes it apart.
    let status = Command::new("sh")
        .arg("-c")
        .arg(format!("{editor} \"$1\""))
        .arg(editor)
        .arg(&draft.0)
        .status()
        .map_err(|error| format!("cannot start {editor}: {error}"))?;
    if !status.success() {
        return Err(format!("{editor} ended with {status}: nothing was changed"));
    }
    let edited = fs::read_to_string(&draft.0)
        .map_err(|error| format!("cannot read what was edited: {error}"))?;
    Ok((edited.trim() != text.trim()).then_some(edited))
}

/// A file for the editor, which goes away with it.
struct Draft(PathBuf);

impl Draft {
    fn create(text: &str) -> Result<Self, String> {
        let path = std::env::temp_dir().join(format!("anabranch-{}.json", Uuid::new_v4()));
        write_private(&path, text).map_err(|error| format!("cannot write {path:?}: {error}"))?;
        Ok(Self(path))
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        // A draft that stays behind is in nobody's way.
        let _ = fs::remove_file(&self.0);
    }
}

/// Writes a file that nobody else can read, and that was not there before.
fn write_private(path: &Path, text: &str) -> std::io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        options.mode(0o600);
    }
    options.open(path)?.write_all(text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(unix)]
    #[test]
    fn the_editor_may_have_arguments_and_may_change_nothing() {
        assert_eq!(edit("sed -i s/1/2/", "{\"a\": 1}\n"), Ok(Some("{\"a\": 2}\n".to_owned())));
        assert_eq!(edit("true", "1\n"), Ok(None));
        assert!(edit("false", "1").unwrap_err().contains("nothing was changed"));
        assert!(edit("no-such-editor-here", "1").is_err());
    }
}
