//! JSON that a command is given: as an argument, from a file or from stdin.

use std::io::Read;
use std::path::{Path, PathBuf};

use crate::cli::Failure;

/// Where the JSON is.
#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
pub(super) struct BodyArgs {
    /// The JSON, or - to read it from stdin
    #[arg(value_name = "JSON")]
    json: Option<String>,

    /// Read the JSON from a file
    #[arg(short, long, value_name = "FILE")]
    file: Option<PathBuf>,
}

impl BodyArgs {
    /// Reads the JSON.
    ///
    /// # Errors
    /// It cannot be read, or is no JSON.
    pub(super) async fn read(self) -> Result<Vec<u8>, Failure> {
        let bytes = match (self.json, self.file) {
            (Some(text), _) if text == "-" => read_blocking(None).await?,
            (Some(text), _) => text.into_bytes(),
            (None, Some(file)) => return read_file(file).await,
            (None, None) => read_blocking(None).await?,
        };
        checked(bytes)
    }
}

/// Reads JSON from a file, or from stdin if that is called -.
///
/// # Errors
/// It cannot be read, or is no JSON.
pub(in crate::cli) async fn read_file(file: PathBuf) -> Result<Vec<u8>, Failure> {
    let file = Some(file).filter(|file| file != Path::new("-"));
    checked(read_blocking(file).await?)
}

fn checked(bytes: Vec<u8>) -> Result<Vec<u8>, Failure> {
    match serde_json::from_slice::<serde::de::IgnoredAny>(&bytes) {
        Ok(_) => Ok(bytes),
        Err(error) => Err(Failure::Usage(format!("this is no JSON: {error}"))),
    }
}

async fn read_blocking(file: Option<PathBuf>) -> Result<Vec<u8>, Failure> {
    let what = file.as_ref().map_or_else(|| "stdin".to_owned(), |f| f.display().to_string());
    let read = tokio::task::spawn_blocking(move || match file {
        Some(file) => std::fs::read(file),
        None => {
            let mut bytes = Vec::new();
            std::io::stdin().lock().read_to_end(&mut bytes).map(|_| bytes)
        }
    });
    read.await
        .map_err(|error| Failure::General(format!("cannot read {what}: {error}")))?
        .map_err(|error| Failure::General(format!("cannot read {what}: {error}")))
}
