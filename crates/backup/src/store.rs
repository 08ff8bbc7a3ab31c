//! An object store: a directory (`file:///path`) or a bucket (`s3://bucket/prefix`). Retries and time limits are the
//! library's.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use futures::TryStreamExt as _;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt as _};

use crate::Error;
use crate::error::io_error;

/// Where backups are.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Place {
    /// `file:///path` or `s3://bucket/prefix`.
    pub to: String,
    /// The address of a store that speaks S3 but is not Amazon's, e.g. `https://minio.example:9000`.
    pub endpoint: Option<String>,
    /// The bucket's region; else `AWS_REGION` or `AWS_DEFAULT_REGION` says it.
    pub region: Option<String>,
    /// Whether the endpoint may be reached without TLS.
    pub allow_http: bool,
    /// The key; else the usual AWS environment variables, or the machine's role, say it.
    pub access_key_id: Option<String>,
    /// Its secret.
    pub secret_access_key: Option<String>,
}

impl Place {
    /// A place without further settings.
    pub fn new(to: impl Into<String>) -> Self {
        Self { to: to.into(), ..Self::default() }
    }

    /// Looks whether the address can be understood, without going there.
    pub fn check(&self) -> Result<(), Error> {
        self.parse().map(drop)
    }

    fn parse(&self) -> Result<Address<'_>, Error> {
        let wrong = |why: &str| Error::Place { to: self.to.clone(), why: why.to_owned() };
        if let Some(path) = self.to.strip_prefix("file://") {
            let path = PathBuf::from(path);
            return if path.is_absolute() && path.parent().is_some() {
                Ok(Address::Directory(path))
            } else {
                Err(wrong("write an absolute path, for example `file:///var/backups`"))
            };
        }
        let Some(rest) = self.to.strip_prefix("s3://") else {
            return Err(wrong("write `file:///path` or `s3://bucket/prefix`"));
        };
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        if bucket.is_empty() {
            return Err(wrong("write `s3://bucket/prefix`"));
        }
        if !cfg!(feature = "s3") {
            return Err(wrong("this program was built without the feature `s3`"));
        }
        if self.endpoint.as_ref().is_some_and(|e| e.starts_with("http://")) && !self.allow_http {
            return Err(wrong("its endpoint has no TLS; write `allow_http: true` where that is meant"));
        }
        Ok(Address::Bucket(bucket, prefix))
    }
}

// Not derived: a secret is never printed.
impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Place").field("to", &self.to).field("endpoint", &self.endpoint).finish_non_exhaustive()
    }
}

enum Address<'a> {
    Directory(PathBuf),
    Bucket(&'a str, &'a str),
}

/// An open store, or a folder in it. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Store {
    inner: Arc<dyn ObjectStore>,
    folder: Path,
    /// Of a directory: what is written is synced, which the library does not do.
    directory: Option<PathBuf>,
    shown: String,
}

impl Store {
    /// Opens a store. `make` makes a directory that does not exist.
    pub fn open(place: &Place, make: bool) -> Result<Self, Error> {
        match place.parse()? {
            Address::Directory(path) => Self::directory(place, path, make),
            Address::Bucket(bucket, prefix) => Self::bucket(place, bucket, prefix),
        }
    }

    fn directory(place: &Place, path: PathBuf, make: bool) -> Result<Self, Error> {
        use std::os::unix::fs::DirBuilderExt as _;
        if make {
            // Events are in it: its owner's alone.
            let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&path);
            made.map_err(io_error("making", &path))?;
        }
        // Folders go with their last object: a log makes new ones without end.
        let opened = LocalFileSystem::new_with_prefix(&path).map(|files| files.with_automatic_cleanup(true));
        let inner = opened.map_err(|e| Error::Place { to: place.to.clone(), why: e.to_string() })?;
        let path = path.canonicalize().map_err(io_error("opening", &path))?;
        Ok(Self { inner: Arc::new(inner), folder: Path::default(), directory: Some(path), shown: place.to.clone() })
    }

    #[cfg(feature = "s3")]
    fn bucket(place: &Place, bucket: &str, prefix: &str) -> Result<Self, Error> {
        use object_store::aws::AmazonS3Builder;
        use object_store::{ClientOptions, RetryConfig};
        use std::time::Duration;
        let retry = RetryConfig { max_retries: 5, retry_timeout: Duration::from_secs(60), ..RetryConfig::default() };
        let client = ClientOptions::new()
            .with_connect_timeout(Duration::from_secs(5))
            .with_timeout(Duration::from_secs(60))
            .with_allow_http(place.allow_http);
        let mut builder = AmazonS3Builder::from_env()
            .with_bucket_name(bucket)
            .with_retry(retry)
            .with_client_options(client)
            .with_allow_http(place.allow_http);
        if let Some(endpoint) = &place.endpoint {
            builder = builder.with_endpoint(endpoint);
        }
        if let Some(region) = &place.region {
            builder = builder.with_region(region);
        }
        if let Some(key) = &place.access_key_id {
            builder = builder.with_access_key_id(key);
        }
        if let Some(secret) = &place.secret_access_key {
            builder = builder.with_secret_access_key(secret);
        }
        let inner = builder.build().map_err(|e| Error::Place { to: place.to.clone(), why: e.to_string() })?;
        Ok(Self {
            inner: Arc::new(inner),
            folder: Path::from(prefix),
            directory: None,
            shown: place.to.trim_end_matches('/').to_owned(),
        })
    }

    #[cfg(not(feature = "s3"))]
    fn bucket(place: &Place, _bucket: &str, _prefix: &str) -> Result<Self, Error> {
        Err(Error::Place { to: place.to.clone(), why: "this program was built without the feature `s3`".into() })
    }

    /// A folder below this one.
    #[must_use]
    pub fn folder(&self, name: &str) -> Self {
        Self { folder: self.folder.clone().join(name), ..self.clone() }
    }

    /// The address, for messages.
    pub fn shown(&self) -> &str {
        &self.shown
    }

    /// The folders right below this one, in the order of their names.
    pub async fn folders(&self) -> Result<Vec<String>, Error> {
        let listed = self.inner.list_with_delimiter(Some(&self.folder)).await;
        let listed = listed.map_err(|e| self.failed("listing", "", &e))?;
        let mut names: Vec<String> =
            listed.common_prefixes.iter().filter_map(|path| Some(path.filename()?.to_owned())).collect();
        names.sort();
        Ok(names)
    }

    /// The objects below a folder of this one, with their lengths, in the order of their names.
    pub(crate) async fn list(&self, folder: &str) -> Result<Vec<(String, u64)>, Error> {
        let under = self.path(folder);
        let found: Result<Vec<_>, _> = self.inner.list(Some(&under)).try_collect().await;
        let found = found.map_err(|e| self.failed("listing", folder, &e))?;
        let skip = self.folder.parts().count();
        let name = |path: &Path| path.parts().skip(skip).map(|p| p.as_ref().to_owned()).collect::<Vec<_>>().join("/");
        let mut objects: Vec<_> = found.iter().map(|meta| (name(&meta.location), meta.size)).collect();
        objects.sort();
        Ok(objects)
    }

    /// Writes an object; it is durable when this returns.
    pub(crate) async fn put(&self, name: &str, bytes: Vec<u8>) -> Result<(), Error> {
        let path = self.path(name);
        self.inner.put(&path, bytes.into()).await.map_err(|e| self.failed("writing", name, &e))?;
        let Some(directory) = self.directory.clone() else { return Ok(()) };
        let synced = tokio::task::spawn_blocking(move || sync(&directory, path.as_ref())).await;
        synced.map_err(|e| Error::Ended(e.to_string()))?
    }

    /// Reads an object.
    pub(crate) async fn get(&self, name: &str) -> Result<Vec<u8>, Error> {
        let path = self.path(name);
        let found = async { self.inner.get(&path).await?.bytes().await }.await;
        found.map(|bytes| bytes.to_vec()).map_err(|e| self.failed("reading", name, &e))
    }

    /// Reads an object that may not be there, or no longer.
    pub(crate) async fn find(&self, name: &str) -> Result<Option<Vec<u8>>, Error> {
        let path = self.path(name);
        match async { self.inner.get(&path).await?.bytes().await }.await {
            Ok(bytes) => Ok(Some(bytes.to_vec())),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(e) => Err(self.failed("reading", name, &e)),
        }
    }

    /// Removes an object; one that is not there is removed.
    pub(crate) async fn remove(&self, name: &str) -> Result<(), Error> {
        match self.inner.delete(&self.path(name)).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(e) => Err(self.failed("removing", name, &e)),
        }
    }

    fn path(&self, name: &str) -> Path {
        name.split('/').filter(|part| !part.is_empty()).fold(self.folder.clone(), |path, part| path.join(part))
    }

    fn failed(&self, doing: &'static str, object: &str, e: &object_store::Error) -> Error {
        Error::Store { doing, object: object.to_owned(), place: self.shown.clone(), reason: e.to_string() }
    }
}

/// Makes a file and the names that lead to it durable.
fn sync(directory: &std::path::Path, name: &str) -> Result<(), Error> {
    let file = directory.join(name);
    let upwards = file.ancestors().take_while(|path| path.starts_with(directory));
    for path in upwards {
        std::fs::File::open(path).and_then(|file| file.sync_all()).map_err(io_error("syncing", path))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_understood_or_explained() {
        for (to, good) in [
            ("file:///var/backups", true),
            ("file://var/backups", false),
            ("file:///", false),
            ("s3://", false),
            ("s3://bucket", cfg!(feature = "s3")),
            ("s3://bucket/a/b", cfg!(feature = "s3")),
            ("gs://bucket", false),
            ("/var/backups", false),
            ("", false),
        ] {
            assert_eq!(Place::new(to).check().is_ok(), good, "{to}");
        }
        let open = Place { endpoint: Some("http://127.0.0.1:1".into()), ..Place::new("s3://bucket") };
        assert!(open.check().is_err());
        let secret = Place { secret_access_key: Some("hidden".into()), ..Place::new("s3://bucket") };
        assert!(!format!("{secret:?}").contains("hidden"));
    }
}
