//! What an error of PostgreSQL means: whether waiting may help, and what to tell.

use std::error::Error as _;
use std::time::Duration;

use millstream_service::ConnectError;
use rustls::CertificateError;
use tokio_postgres::Error;
use tokio_postgres::error::SqlState;

use super::Place;
use super::tls::Tls;

/// Classes of SQLSTATE that pass by themselves: connection, transaction rolled back, resources (connections, disk),
/// the object in use, intervention of an operator (a server that stops or starts), the system.
const TEMPORARY: [&str; 6] = ["08", "40", "53", "55", "57", "58"];

/// What the library says of connections that cannot be made or end, without a cause.
const UNNAMED: [&str; 3] = ["timeout", "error connecting", "unexpected message"];

/// Classes of SQLSTATE that mean that nobody is let in, or that there is no such database.
const NOBODY_IN: [&str; 2] = ["28", "3D"];

/// What the library says of a handshake.
const HANDSHAKE: &str = "error performing TLS handshake";
/// What the library says of a server without TLS.
const NO_TLS: &str = "server does not support TLS";
/// What Rust says where a name has no address.
const NO_ADDRESS: &str = "failed to lookup address information";
/// What systems say where they cannot know at the moment.
const NOT_NOW: [&str; 2] = ["temporary failure", "try again"];

impl Place {
    /// An error of the database, for the task that waits or stops because of it.
    pub(super) fn error(&self, error: &Error) -> ConnectError {
        let who = self.address();
        let text = self.without_secret(&text(error));
        if error.to_string().starts_with(HANDSHAKE) {
            return self.handshake(error);
        }
        if text.contains(NO_ADDRESS) {
            return self.no_address(&text);
        }
        match temporary(error) {
            true => ConnectError::temporary(format!("PostgreSQL at {who} does not answer: {text}")),
            false if nobody_in(error) => ConnectError::refused(format!(
                "PostgreSQL at {who} lets nobody in: {text}; correct `url`, or what the database knows of the user"
            )),
            false => ConnectError::permanent(format!("PostgreSQL at {who} refuses: {text}")),
        }
    }

    /// The host's name leads nowhere.
    fn no_address(&self, text: &str) -> ConnectError {
        let why = text.rsplit(": ").next().unwrap_or(text);
        let said = why.to_lowercase();
        let who = self.address();
        match NOT_NOW.iter().any(|words| said.contains(words)) {
            true => ConnectError::temporary(format!("the host name of PostgreSQL at {who} cannot be looked up: {why}")),
            false => ConnectError::refused(format!(
                "the host name of PostgreSQL at {who} has no address ({why}): is it mistyped in `url`?"
            )),
        }
    }

    /// TLS did not come about.
    fn handshake(&self, error: &Error) -> ConnectError {
        let who = self.address();
        let cause = error.source();
        let of_io = cause.and_then(|cause| cause.downcast_ref::<std::io::Error>());
        if let Some(tls) = of_io.and_then(|io| io.get_ref()?.downcast_ref::<rustls::Error>()) {
            return ConnectError::refused(format!("PostgreSQL at {who}: {}", self.distrusted(tls)));
        }
        let why = cause.map(ToString::to_string).unwrap_or_default();
        if why == NO_TLS {
            let ca = if self.tls == Tls::Verified(None) { "" } else { ", and leave `ca` out" };
            return ConnectError::refused(format!(
                "PostgreSQL at {who} speaks no TLS, which is demanded: set `ssl = on` there, or say `sslmode=disable` in \
                 `url`{ca}, on a network that may be trusted"
            ));
        }
        ConnectError::temporary(format!("PostgreSQL at {who} did not finish the TLS handshake: {why}"))
    }

    /// Why the other side is not believed, and what to do.
    fn distrusted(&self, error: &rustls::Error) -> String {
        let rustls::Error::InvalidCertificate(wrong) = error else {
            return format!("TLS with it failed: {error}");
        };
        match wrong {
            CertificateError::UnknownIssuer if self.tls == Tls::Verified(None) => format!(
                "its certificate is signed by nobody among {}: name the certificate of who signed it with `ca: FILE` beside \
                 `url`, or say `sslmode=disable` on a network that may be trusted",
                self.tls.believed()
            ),
            CertificateError::UnknownIssuer | CertificateError::BadSignature => {
                format!("its certificate is not signed by {}: is that the one of this server?", self.tls.believed())
            }
            CertificateError::NotValidForNameContext { expected, presented } => {
                let named = if presented.is_empty() { "no name".to_owned() } else { presented.join(", ") };
                format!(
                    "its certificate is not for `{}` (it has {named}): reach it by a name that its certificate has, or \
                     give it one for this name",
                    expected.to_str()
                )
            }
            CertificateError::ExpiredContext { .. } | CertificateError::Expired => {
                "its certificate has expired (or the clock of this machine is wrong)".to_owned()
            }
            CertificateError::NotValidYetContext { .. } | CertificateError::NotValidYet => {
                "its certificate is not valid yet (or the clock of this machine is wrong)".to_owned()
            }
            wrong if format!("{wrong:?}").contains("CaUsedAsEndEntity") => {
                "its certificate is one that signs others (`CA:TRUE`): sign another with it for the server, and name this \
                 one with `ca: FILE`"
                    .to_owned()
            }
            wrong => format!("its certificate cannot be believed: {wrong}"),
        }
    }

    /// A statement took too long.
    pub(super) fn silent(&self, within: Duration) -> ConnectError {
        let within = within.as_secs();
        ConnectError::temporary(format!("PostgreSQL at {} did not answer within {within} s", self.address()))
    }
}

/// Whether the server lets nobody in with this address.
fn nobody_in(error: &Error) -> bool {
    match error.code() {
        Some(code) => NOBODY_IN.iter().any(|class| code.code().starts_with(class)),
        // A password that the address does not have, a way of proving it that the library does not know.
        None => error.to_string().starts_with("authentication error"),
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
