//! The state of services in PostgreSQL: exactly once across the log and the database.
//!
//! One table has a row for each task, with its owner and its staged commit; the other has the rows of all states. Each
//! commit is one statement, so it is one transaction and one round trip. One connection per task.
//!
//! With TLS as the address says: see [`tls`].

mod error;
mod pages;
mod state;
mod tables;
mod tls;

use std::error::Error as _;
use std::future::Future;
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use millstream_service::log::TaskId;
use millstream_service::{ConnectError, StateStore, StoreError, StoredRows, StoredState};
use tokio_postgres::Config;
use tokio_postgres::config::{Host, SslMode};

pub use self::tls::check_ca;

use self::tls::Tls;

/// The schema of the tables unless told otherwise.
pub const SCHEMA: &str = "millstream";
/// PostgreSQL cuts longer names.
const SCHEMA_BYTES_MAX: usize = 63;
/// How long to wait for a connection unless the address says so.
const CONNECT_WITHIN: Duration = Duration::from_secs(10);
/// How long a statement may take; a server that is silent for longer is treated as gone.
const STATEMENT_WITHIN: Duration = Duration::from_secs(120);
/// A connection on which nothing comes back for so long is dead.
const SILENT_MAX: Duration = Duration::from_secs(30);
/// A password shorter than this is not looked for in messages: it would be found in every one.
const SECRET_BYTES_MIN: usize = 3;

/// Where the state of a pipeline's services is kept. Cheap to clone.
#[derive(Clone)]
pub struct PostgresState {
    place: Arc<Place>,
}

/// A database, a schema in it, and a pipeline whose rows are there among others'.
#[derive(PartialEq, Eq)]
struct Place {
    config: Config,
    tls: Tls,
    schema: String,
    pipeline: String,
}

/// Why an address or schema cannot be used. Says nothing of what is in the address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Wrong {
    /// It cannot be read.
    #[error("the address of the database is not one: it reads `postgres://user:password@host:5432/database`")]
    Address,
    /// It names no server.
    #[error("the address of the database names no host")]
    Host,
    /// It says something of TLS that there is not.
    #[error(
        "`sslmode` in the address of the database is `disable`, `prefer` (the default) or `require`, which verifies the \
         server's certificate and its name as `verify-full` does"
    )]
    SslMode,
    /// It names certificates.
    #[error(
        "the address of the database cannot say `{0}`: name who signs the server's certificate with `ca: FILE` beside `url`"
    )]
    Certificates(&'static str),
    /// It names a client's certificate.
    #[error(
        "the address of the database says `{0}`, and proving who one is by a certificate is not there yet: use a password"
    )]
    ClientCertificate(&'static str),
    /// It has a CA that nobody asks for.
    #[error("`ca` is for TLS, and {0}: leave one of the two out")]
    CaUnused(&'static str),
    /// It says what has no meaning without TLS.
    #[error("`{0}` in the address of the database needs `sslmode=require`")]
    TlsNeeded(&'static str),
    /// It demands TLS of a socket.
    #[error("PostgreSQL speaks no TLS on a Unix socket, which never leaves the machine: leave `sslmode` and `ca` out")]
    Socket,
    /// It is no name for a schema.
    #[error("`{0}` is no name for a schema: letters, digits and `_`, at most {SCHEMA_BYTES_MAX}, no digit first")]
    Schema(String),
}

impl PostgresState {
    /// State in the database at `url`; nothing is connected yet.
    pub fn new(url: &str, schema: &str, pipeline: &str) -> Result<Self, Wrong> {
        Self::trusting(url, None, schema, pipeline)
    }

    /// The same, with TLS: the server's certificate is signed by one of those in the PEM file `ca`.
    pub fn trusting(url: &str, ca: Option<&Path>, schema: &str, pipeline: &str) -> Result<Self, Wrong> {
        let mut config = read(url)?;
        if config.get_hosts().is_empty() && config.get_hostaddrs().is_empty() {
            return Err(Wrong::Host);
        }
        let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let first = schema.chars().next().is_some_and(|c| word(c) && !c.is_ascii_digit());
        if !first || !schema.chars().all(word) || schema.len() > SCHEMA_BYTES_MAX {
            return Err(Wrong::Schema(schema.to_owned()));
        }
        let tls = Tls::of(&mut config, ca)?;
        if config.get_connect_timeout().is_none() {
            config.connect_timeout(CONNECT_WITHIN);
        }
        config.keepalives_idle(SILENT_MAX).keepalives_interval(SILENT_MAX / 3).tcp_user_timeout(SILENT_MAX);
        let place = Place { config, tls, schema: schema.to_owned(), pipeline: pipeline.to_owned() };
        Ok(Self { place: Arc::new(place) })
    }

    /// Whether the other one is the same in everything, the password too.
    pub fn is(&self, other: &Self) -> bool {
        self.place == other.place
    }
}

/// Reads an address.
fn read(url: &str) -> Result<Config, Wrong> {
    let (before, options) = match url.split_once('?') {
        Some((before, options)) if url.contains("://") => (format!("{before}?"), options),
        _ if url.contains("://") => (url.to_owned(), ""),
        _ => (String::new(), url),
    };
    for name in ["sslrootcert", "sslcrl", "sslcrldir"] {
        if options.contains(&format!("{name}=")) {
            return Err(Wrong::Certificates(name));
        }
    }
    for name in ["sslcert", "sslkey"] {
        if options.contains(&format!("{name}=")) {
            return Err(Wrong::ClientCertificate(name));
        }
    }
    // What the library calls `require` is verified here.
    let options = options.replace("sslmode=verify-full", "sslmode=require");
    Config::from_str(&format!("{before}{options}")).map_err(|error| {
        let why = error.source().map(ToString::to_string).unwrap_or_default();
        if why.contains("`sslmode`") { Wrong::SslMode } else { Wrong::Address }
    })
}

impl Place {
    /// Host, port and database: what may be shown.
    fn address(&self) -> String {
        let host = match (self.config.get_hosts().first(), self.config.get_hostaddrs().first()) {
            (Some(Host::Tcp(host)), _) => host.clone(),
            (Some(Host::Unix(path)), _) => path.display().to_string(),
            (None, Some(address)) => address.to_string(),
            (None, None) => "nowhere".to_owned(),
        };
        let port = self.config.get_ports().first().copied().unwrap_or(5432);
        let database = self.config.get_dbname().or(self.config.get_user()).unwrap_or_default();
        format!("{host}:{port}/{database}")
    }

    fn text(&self) -> String {
        let tls = if self.config.get_ssl_mode() == SslMode::Require { ", TLS" } else { "" };
        format!("PostgreSQL ({}, schema {}{tls})", self.address(), self.schema)
    }

    /// Does not wait for a silent server for ever.
    async fn within<T>(&self, work: impl Future<Output = T>) -> Result<T, ConnectError> {
        self.within_at_most(STATEMENT_WITHIN, work).await
    }

    async fn within_at_most<T>(&self, limit: Duration, work: impl Future<Output = T>) -> Result<T, ConnectError> {
        tokio::time::timeout(limit, work).await.map_err(|_| self.silent(limit))
    }

    /// A message without the password, whoever put it there.
    fn without_secret(&self, message: &str) -> String {
        match self.config.get_password().and_then(|password| std::str::from_utf8(password).ok()) {
            Some(password) if password.len() >= SECRET_BYTES_MIN => message.replace(password, "***"),
            _ => message.to_owned(),
        }
    }
}

impl StateStore for PostgresState {
    fn place(&self) -> String {
        self.place.text()
    }

    fn connect<'a>(&'a self, task: &'a TaskId) -> BoxFuture<'a, Result<Box<dyn StoredState>, StoreError>> {
        Box::pin(async move { Ok(state::connect(&self.place, task).await?) })
    }

    fn look<'a>(&'a self, task: &'a TaskId) -> BoxFuture<'a, Result<Option<Box<dyn StoredRows>>, StoreError>> {
        Box::pin(async move { Ok(pages::look(&self.place, task).await?) })
    }
}

/// A task's partition as the tables have it.
fn partition(task: &TaskId) -> i32 {
    i32::try_from(task.partition.0).unwrap_or(i32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrong(url: &str, schema: &str) -> Wrong {
        PostgresState::new(url, schema, "shop").err().unwrap()
    }

    #[test]
    fn an_address_is_shown_without_user_and_password() {
        let state = PostgresState::new("postgres://bob:s3cret@db.local:5433/shop", SCHEMA, "p").unwrap();
        assert_eq!(state.place(), "PostgreSQL (db.local:5433/shop, schema millstream)");
        assert_eq!(state.place.without_secret("no s3cret here"), "no *** here");
        let socket = PostgresState::new("postgresql:///shop?host=/run/pg&user=bob", "own", "p").unwrap();
        assert_eq!(socket.place(), "PostgreSQL (/run/pg:5432/shop, schema own)");
    }

    #[test]
    fn tls_is_as_the_address_says_and_on_this_machine_only_where_it_is_demanded() {
        let mode = |url: &str, ca: Option<&str>| {
            let state = PostgresState::trusting(url, ca.map(Path::new), SCHEMA, "shop").unwrap();
            (state.place.config.get_ssl_mode(), state.place.tls.clone())
        };
        let system = Tls::Verified(None);
        for url in [
            "postgres://db/shop?sslmode=require",
            "postgres://db/shop?sslmode=verify-full",
            "host=db sslmode=verify-full",
        ] {
            assert_eq!(mode(url, None), (SslMode::Require, system.clone()), "{url}");
        }
        assert_eq!(mode("postgres://db/shop", None), (SslMode::Prefer, system.clone()));
        assert_eq!(mode("hostaddr=10.0.0.1 user=bob", None), (SslMode::Prefer, system.clone()));
        for url in ["postgres://localhost/shop", "postgres://127.0.0.1/shop", "postgres://[::1]/shop", "host=/run/pg"] {
            assert_eq!(mode(url, None), (SslMode::Disable, Tls::None), "{url}");
        }
        assert_eq!(mode("postgres://db/shop?sslmode=disable", None), (SslMode::Disable, Tls::None));
        assert_eq!(mode("postgres://localhost/shop?sslmode=require", None), (SslMode::Require, system));
        let ca = Tls::Verified(Some("ca.pem".into()));
        assert_eq!(mode("postgres://localhost/shop", Some("ca.pem")), (SslMode::Require, ca));
    }

    #[test]
    fn what_cannot_be_used_is_refused_without_repeating_it() {
        assert_eq!(wrong("postgres://bob:s3cret@db:port/shop", SCHEMA), Wrong::Address);
        assert_eq!(wrong("mysql://bob:s3cret@db/shop", SCHEMA), Wrong::Address);
        assert_eq!(wrong("postgres:///shop", SCHEMA), Wrong::Host);
        let url = |options: &str| format!("postgres://bob:s3cret@db/shop?{options}");
        assert_eq!(wrong(&url("sslmode=verify-ca"), SCHEMA), Wrong::SslMode);
        assert_eq!(wrong(&url("sslmode=maybe"), SCHEMA), Wrong::SslMode);
        assert_eq!(wrong(&url("sslrootcert=a.pem"), SCHEMA), Wrong::Certificates("sslrootcert"));
        assert_eq!(wrong(&url("sslkey=a.pem"), SCHEMA), Wrong::ClientCertificate("sslkey"));
        assert_eq!(wrong(&url("channel_binding=require"), SCHEMA), Wrong::TlsNeeded("channel_binding=require"));
        assert_eq!(wrong(&url("sslnegotiation=direct"), SCHEMA), Wrong::TlsNeeded("sslnegotiation=direct"));
        assert_eq!(wrong("postgres:///shop?host=/run/pg&sslmode=require", SCHEMA), Wrong::Socket);
        let ca = Some(Path::new("ca.pem"));
        let disabled = PostgresState::trusting(&url("sslmode=disable"), ca, SCHEMA, "shop").err().unwrap();
        assert!(matches!(disabled, Wrong::CaUnused(_)), "{disabled}");
        for schema in ["", "1st", "a\"b", "a b", &"x".repeat(64)] {
            assert!(matches!(wrong("postgres://bob@db/shop", schema), Wrong::Schema(_)), "{schema}");
        }
        assert!(!Wrong::Address.to_string().contains("s3cret"));
    }
}
