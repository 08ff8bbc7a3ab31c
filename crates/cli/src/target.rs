//! Which pipeline a command means, and whether it runs.
//!
//! A running node leaves a note in its data directory with its process and address, so that a command finds it also
//! when the file's `server.listen` says port 0, was overridden by `--listen`, or has been edited since. Without a note
//! the file's own address is tried.

use std::path::{Path, PathBuf};

use millstream_node::api::{Status, paths};
use millstream_node::config::{Config, Loaded};
use serde::{Deserialize, Serialize};

use crate::client::Client;
use crate::failure::Failure;

/// The note's name in the data directory.
const NOTE: &str = "node.json";

/// Which pipeline, and which node.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct TargetArgs {
    /// The pipeline: a directory with pipeline.yaml, or a file
    #[arg(short, long, value_name = "PATH", default_value = ".", global = true)]
    pub(crate) pipeline: PathBuf,
    /// Ask the node at this address instead of the pipeline's own
    #[arg(long, value_name = "HOST:PORT", global = true)]
    pub(crate) address: Option<String>,
}

/// Where to get the answer from.
pub(crate) enum Target {
    /// A node that runs.
    Running(Client),
    /// The log of one that does not.
    Stopped(Box<Loaded>),
}

impl TargetArgs {
    /// Finds the running node, or else the pipeline's log.
    pub(crate) async fn find(&self) -> Result<Target, Failure> {
        if let Some(address) = &self.address {
            return Ok(Target::Running(Client::new(address)?));
        }
        let loaded = Config::load(&self.pipeline)?;
        Ok(match running(&loaded).await? {
            Some(client) => Target::Running(client),
            None => Target::Stopped(Box::new(loaded)),
        })
    }

    /// How everything stands: from the node, or from the log of a stopped one.
    pub(crate) async fn status(&self) -> Result<Status, Failure> {
        match self.find().await? {
            Target::Running(client) => client.get(paths::STATUS).await,
            Target::Stopped(loaded) => crate::stopped::status(&loaded).await,
        }
    }

    /// Finds the running node; a stopped one cannot do what is asked.
    pub(crate) async fn node(&self, to: &str) -> Result<Client, Failure> {
        match self.find().await? {
            Target::Running(client) => Ok(client),
            Target::Stopped(loaded) => Err(Failure::refused(
                "node-stopped",
                format!("pipeline `{}` is not running, and {to} needs it", loaded.config.pipeline.value),
                format!("start it with `millstream run {}`", shown(&self.pipeline)),
            )),
        }
    }
}

/// The node that runs this pipeline, if there is one.
pub(crate) async fn running(loaded: &Loaded) -> Result<Option<Client>, Failure> {
    let noted = Note::read(&data_dir(loaded)).map(|note| note.address);
    for address in noted.into_iter().chain([loaded.config.server.listen.to_string()]) {
        let client = Client::new(&address)?;
        if !client.connects().await {
            continue;
        }
        // Something else may listen there; only a node that runs this pipeline will do.
        if let Ok(status) = client.get::<Status>(paths::STATUS).await
            && status.pipeline == loaded.config.pipeline.value.as_str()
        {
            return Ok(Some(client));
        }
    }
    Ok(None)
}

/// Where the pipeline's log is.
pub(crate) fn data_dir(loaded: &Loaded) -> PathBuf {
    loaded.config.log.embedded.dir.clone()
}

/// A path as a person would type it; the current directory is `.`.
pub(crate) fn shown(path: &Path) -> String {
    let text = path.display().to_string();
    match text.contains(|c: char| c.is_whitespace() || c == '\'') {
        true => format!("'{}'", text.replace('\'', r"'\''")),
        false => text,
    }
}

/// What a running node leaves in its data directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Note {
    /// The process.
    pub(crate) pid: u32,
    /// Where it listens, `host:port`.
    pub(crate) address: String,
}

impl Note {
    /// What the node of a data directory left, or one before it.
    pub(crate) fn read(dir: &Path) -> Option<Self> {
        serde_json::from_slice(&std::fs::read(dir.join(NOTE)).ok()?).ok()
    }

    /// Leaves the note, and takes it away again when dropped.
    pub(crate) fn leave(self, dir: &Path) -> Result<LeftNote, Failure> {
        let path = dir.join(NOTE);
        let part = dir.join(format!("{NOTE}.part"));
        std::fs::write(&part, serde_json::to_vec(&self)?)?;
        std::fs::rename(&part, &path)?;
        Ok(LeftNote { path })
    }
}

/// A note in its place.
pub(crate) struct LeftNote {
    path: PathBuf,
}

impl Drop for LeftNote {
    fn drop(&mut self) {
        // A note that stays is harmless: nobody answers there, or somebody with another pipeline.
        drop(std::fs::remove_file(&self.path));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_lasts_as_long_as_its_node() {
        let dir = tempfile::tempdir().unwrap();
        let note = Note { pid: 7, address: "127.0.0.1:1".into() };
        let left = note.clone().leave(dir.path()).unwrap();
        assert_eq!(Note::read(dir.path()), Some(note));
        drop(left);
        assert_eq!(Note::read(dir.path()), None);
    }

    #[test]
    fn a_path_can_be_pasted_into_a_shell() {
        assert_eq!(shown(Path::new("a/b")), "a/b");
        assert_eq!(shown(Path::new("my dir/it's")), r"'my dir/it'\''s'");
    }
}
