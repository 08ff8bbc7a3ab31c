//! Where the files that a pipeline names come from, and the values of `${env:X}` and `${file:X}`.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

/// The largest file that is read into a configuration.
const FILE_BYTES_MAX: u64 = 4 << 20;

/// The world outside of the pipeline file, as far as the configuration may see it.
pub trait Files: Send + Sync {
    /// The text of a file named in the pipeline file.
    fn read(&self, path: &Path) -> Result<String, String>;

    /// A path of the pipeline file as seen from this process.
    fn resolve(&self, path: &Path) -> PathBuf;

    /// An environment variable.
    fn env(&self, name: &str) -> Option<String>;
}

/// Files on disk beside the pipeline file, and this process's environment.
#[derive(Debug, Clone)]
pub struct Disk {
    /// The pipeline file's directory.
    pub dir: PathBuf,
}

impl Files for Disk {
    fn read(&self, path: &Path) -> Result<String, String> {
        let path = self.resolve(path);
        let size = std::fs::metadata(&path).map_err(|e| said(&e))?.len();
        if size > FILE_BYTES_MAX {
            return Err(format!("it has {size} bytes, and at most {FILE_BYTES_MAX} are read"));
        }
        std::fs::read_to_string(&path).map_err(|e| said(&e))
    }

    fn resolve(&self, path: &Path) -> PathBuf {
        // `a/./b` and `./a` are tidied, `..` is left to the file system (it may cross a link).
        self.dir.join(path).components().filter(|c| *c != Component::CurDir).collect()
    }

    fn env(&self, name: &str) -> Option<String> {
        std::env::var(name).ok()
    }
}

fn said(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::NotFound => "there is no such file".into(),
        std::io::ErrorKind::PermissionDenied => "this user may not read it".into(),
        std::io::ErrorKind::InvalidData => "it is not UTF-8 text".into(),
        _ => error.to_string(),
    }
}

/// Files sent along with a pipeline (`apply`); what was not sent is looked for on disk.
#[derive(Debug, Clone)]
pub struct Sent {
    /// Text by the path as written in the pipeline file.
    pub files: BTreeMap<String, String>,
    /// The rest.
    pub disk: Disk,
}

impl Files for Sent {
    fn read(&self, path: &Path) -> Result<String, String> {
        match path.to_str().and_then(|p| self.files.get(p)) {
            Some(text) => Ok(text.clone()),
            None => self.disk.read(path),
        }
    }

    fn resolve(&self, path: &Path) -> PathBuf {
        self.disk.resolve(path)
    }

    fn env(&self, name: &str) -> Option<String> {
        self.disk.env(name)
    }
}
