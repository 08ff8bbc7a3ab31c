//! The state of services in PostgreSQL: exactly once across the log and the database.
//!
//! One table has a row for each task, with its owner and its staged commit; the other has the rows of all states. Each
//! commit is one statement, so it is one transaction and one round trip. One connection per task.
//!
//! Without TLS: an address that demands it is refused, so use a network that may be trusted, or a Unix socket.

mod error;
mod state;
mod tables;

use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use millstream_service::log::TaskId;
use millstream_service::{StateStore, StoreError, StoredState};
use tokio_postgres::Config;
use tokio_postgres::config::{ChannelBinding, Host, SslMode};

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
struct Place {
    config: Config,
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
    /// It demands TLS.
    #[error(
        "the address of the database demands TLS, which is not there yet; use `sslmode=disable` on a network that may be \
         trusted, or a Unix socket"
    )]
    Tls,
    /// It is no name for a schema.
    #[error("`{0}` is no name for a schema: letters, digits and `_`, at most {SCHEMA_BYTES_MAX}, no digit first")]
    Schema(String),
}

impl PostgresState {
    /// State in the database at `url`; nothing is connected yet.
    pub fn new(url: &str, schema: &str, pipeline: &str) -> Result<Self, Wrong> {
        let mut config = match Config::from_str(url) {
            Ok(config) => config,
            // The library does not know these words, and they mean the same.
            Err(_) if url.contains("sslmode=verify") || url.contains("sslrootcert") => return Err(Wrong::Tls),
            Err(_) => return Err(Wrong::Address),
        };
        if config.get_hosts().is_empty() && config.get_hostaddrs().is_empty() {
            return Err(Wrong::Host);
        }
        if config.get_ssl_mode() == SslMode::Require || config.get_channel_binding() == ChannelBinding::Require {
            return Err(Wrong::Tls);
        }
        let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let first = schema.chars().next().is_some_and(|c| word(c) && !c.is_ascii_digit());
        if !first || !schema.chars().all(word) || schema.len() > SCHEMA_BYTES_MAX {
            return Err(Wrong::Schema(schema.to_owned()));
        }
        if config.get_connect_timeout().is_none() {
            config.connect_timeout(CONNECT_WITHIN);
        }
        config.keepalives_idle(SILENT_MAX).keepalives_interval(SILENT_MAX / 3).tcp_user_timeout(SILENT_MAX);
        let place = Place { config, schema: schema.to_owned(), pipeline: pipeline.to_owned() };
        Ok(Self { place: Arc::new(place) })
    }
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
        format!("PostgreSQL ({}, schema {})", self.address(), self.schema)
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
    fn what_cannot_be_used_is_refused_without_repeating_it() {
        assert_eq!(wrong("postgres://bob:s3cret@db:port/shop", SCHEMA), Wrong::Address);
        assert_eq!(wrong("mysql://bob:s3cret@db/shop", SCHEMA), Wrong::Address);
        assert_eq!(wrong("postgres:///shop", SCHEMA), Wrong::Host);
        for mode in ["require", "verify-ca", "verify-full"] {
            assert_eq!(wrong(&format!("postgres://bob:s3cret@db/shop?sslmode={mode}"), SCHEMA), Wrong::Tls);
        }
        assert_eq!(wrong("postgres://bob@db/shop?channel_binding=require", SCHEMA), Wrong::Tls);
        for schema in ["", "1st", "a\"b", "a b", &"x".repeat(64)] {
            assert!(matches!(wrong("postgres://bob@db/shop", schema), Wrong::Schema(_)), "{schema}");
        }
        assert!(!Wrong::Address.to_string().contains("s3cret"));
    }
}
