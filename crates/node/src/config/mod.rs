//! Reads a pipeline file: YAML to settings, with every error of the file in one pass.

mod decode;
mod files;
mod outside;
mod plain;
mod postgres;
mod read;
mod read_flow;
mod read_fold;
mod read_generate;
mod read_source;
mod read_test;
mod scalars;
mod settings;
mod source_text;
mod sql_text;
mod state;
mod yaml;

use std::path::{Path, PathBuf};

pub use files::{Disk, Files, Sent};
pub use plain::plain;
pub use postgres::PostgresSettings;
pub use read::format_of;
pub use settings::*;
pub use source_text::{Pos, SourceText, SourceTexts, Span, Spanned};
pub use sql_text::Sql;
pub use state::{BackupSettings, PipelineStateSettings, Secret};

use crate::diagnostic::{Diagnostic, Diagnostics};

/// The name that a directory's pipeline file has.
pub const FILE_NAME: &str = "pipeline.yaml";

/// A pipeline file that could be read.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The settings.
    pub config: Config,
    /// The file and the SQL files that it names.
    pub sources: SourceTexts,
    /// The pipeline file.
    pub path: PathBuf,
    /// Its directory: what its paths are relative to.
    pub dir: PathBuf,
    /// Its text.
    pub text: String,
    /// The SQL files, as written in the pipeline file, and their texts.
    pub sql_files: Vec<(String, String)>,
    /// Values from outside, to be kept out of messages.
    pub(crate) secrets: outside::Secrets,
}

impl Config {
    /// Reads a pipeline file, or the `pipeline.yaml` of a directory.
    pub fn load(path: &Path) -> Result<Loaded, Diagnostics> {
        let path = if path.is_dir() { path.join(FILE_NAME) } else { path.to_owned() };
        let dir = match path.parent() {
            Some(dir) if !dir.as_os_str().is_empty() => dir.to_owned(),
            _ => PathBuf::from("."),
        };
        let name = path.file_name().map(PathBuf::from).unwrap_or_default();
        // Absolute, so that a path means the same wherever it is looked at from.
        let disk = Disk { dir: std::path::absolute(&dir).unwrap_or(dir) };
        let text = disk.read(&name).map_err(|why| {
            let message = format!("`{}` cannot be read: {why}", path.display());
            let hint = "name a pipeline file or its directory, or write one with `millstream init`";
            Diagnostic::error("file-unreadable", message).note(hint)
        })?;
        Self::parse(&path, text, &disk)
    }

    /// Reads the text of a pipeline file. `path` is where it lies; `files` answers for everything it names.
    pub fn parse(path: &Path, text: String, files: &dyn Files) -> Result<Loaded, Diagnostics> {
        let mut decoder = decode::Decoder::new(files);
        let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        let file = decoder.sources.add(name, text.clone());
        let mut root = match yaml::parse(&text, file) {
            Ok(root) => root,
            Err(problem) => {
                let (span, diagnostic) = *problem;
                decoder.report(span, diagnostic);
                return Err(decoder.found);
            }
        };
        outside::resolve(&mut root, &mut decoder);
        let config = read::read_config(&mut decoder, &root);
        let decode::Decoder { sources, found, sql_files, secrets, .. } = decoder;
        match config {
            Some(config) if found.errors() == 0 => Ok(Loaded {
                config,
                sources,
                path: path.to_owned(),
                dir: files.resolve(Path::new("")),
                text,
                sql_files,
                secrets,
            }),
            Some(config) => {
                // What could be read is planned too, so that one pass finds what is wrong there.
                let dir = files.resolve(Path::new(""));
                let partly = Loaded { config, sources, path: path.to_owned(), dir, text, sql_files, secrets };
                let mut found = found;
                found.0.extend(crate::plan::plan_partly(&partly));
                Err(found.sorted())
            }
            None => Err(found.sorted()),
        }
    }

    /// The JSON Schema of the pipeline file, for editors.
    pub fn json_schema() -> serde_json::Value {
        serde_json::to_value(schemars::schema_for!(Self)).unwrap_or_default()
    }
}
