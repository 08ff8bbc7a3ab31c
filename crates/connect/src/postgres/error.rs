//! What an error of PostgreSQL means: whether waiting may help, and what to tell.

use std::error::Error as _;

use millstream_service::ConnectError;
use tokio_postgres::Error;
use tokio_postgres::error::SqlState;

use super::Place;

/// Classes of SQLSTATE that pass by themselves: connection, transaction rolled back, resources (connections, disk),
/// the object in use, intervention of an operator (a server that stops or starts), the system.
const TEMPORARY: [&str; 6] = ["08", "40", "53", "55", "57", "58"];

/// What the library says of connections that cannot be made or end, without a cause.
const UNNAMED: [&str; 3] = ["timeout", "error connecting", "unexpected message"];

impl Place {
    /// An error of the database, for the task that waits or stops because of it.
    pub(super) fn error(&self, error: &Error) -> ConnectError {
        let who = self.address();
        let text = self.without_secret(&text(error));
        match temporary(error) {
            true => ConnectError::temporary(format!("PostgreSQL at {who} does not answer: {text}")),
            false => ConnectError::permanent(format!("PostgreSQL at {who} refuses: {text}")),
        }
    }

    /// A statement took too long.
    pub(super) fn silent(&self) -> ConnectError {
        let within = super::STATEMENT_WITHIN.as_secs();
        ConnectError::temporary(format!("PostgreSQL at {} did not answer within {within} s", self.address()))
    }
}

fn temporary(error: &Error) -> bool {
    match error.code() {
        // A server that only reads is on its way to become another, or the address leads to the wrong one.
        Some(code) if *code == SqlState::READ_ONLY_SQL_TRANSACTION => true,
        Some(code) => TEMPORARY.iter().any(|class| code.code().starts_with(class)),
        None => {
            let said = error.to_string();
            // A connection that ends in the middle has no better name.
            from_system(error) || error.is_closed() || UNNAMED.iter().any(|words| said.starts_with(words))
        }
    }
}

/// Whether the operating system said it.
fn from_system(error: &Error) -> bool {
    let mut cause = error.source();
    while let Some(error) = cause {
        if error.is::<std::io::Error>() {
            return true;
        }
        cause = error.source();
    }
    false
}

/// The server's own words where it said some, with what it advises.
fn text(error: &Error) -> String {
    if let Some(db) = error.as_db_error() {
        let hint = db.hint().map(|hint| format!(" ({hint})")).unwrap_or_default();
        return format!("{}{hint} [{}]", db.message(), db.code().code());
    }
    match error.source() {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}
