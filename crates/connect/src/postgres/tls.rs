//! TLS on the way to the database: whether there is any, and whose certificates are believed.
//!
//! Where TLS is used the server's certificate is verified, with the name that the address has for it, as libpq does with
//! `sslmode=verify-full`. A server on this machine is asked for TLS only where the address demands it: nobody else can
//! listen, and the certificates that distributions give such servers are signed by nobody.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use millstream_service::ConnectError;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use tokio_postgres::config::{ChannelBinding, Host, SslMode, SslNegotiation};
use tokio_postgres::tls::{MakeTlsConnect, TlsConnect};
use tokio_postgres::{Client, Config, NoTls, Socket};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::{Place, Wrong};

/// What a server is told that begins with TLS at once (`sslnegotiation=direct`).
const ALPN: &[u8] = b"postgresql";

/// Whether and how a place is reached with TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Tls {
    /// Without.
    None,
    /// With certificates that are signed by these: the file's, or, without one, those that this machine believes.
    Verified(Option<PathBuf>),
}

impl Tls {
    /// Reads what an address says of TLS, and makes the address say it as the library needs it.
    pub(super) fn of(config: &mut Config, ca: Option<&Path>) -> Result<Self, Wrong> {
        let mode = config.get_ssl_mode();
        let demanded = ca.is_some() || mode == SslMode::Require;
        if ca.is_some() && mode == SslMode::Disable {
            return Err(Wrong::CaUnused("the address says `sslmode=disable`"));
        }
        let bound = config.get_channel_binding() == ChannelBinding::Require;
        let direct = config.get_ssl_negotiation() == SslNegotiation::Direct;
        if (bound || direct) && !demanded {
            return Err(Wrong::TlsNeeded(if bound { "channel_binding=require" } else { "sslnegotiation=direct" }));
        }
        if demanded && config.get_hosts().iter().any(|host| matches!(host, Host::Unix(_))) {
            return Err(Wrong::Socket);
        }
        if mode == SslMode::Disable || (!demanded && is_local(config)) {
            config.ssl_mode(SslMode::Disable);
            return Ok(Self::None);
        }
        if demanded {
            config.ssl_mode(SslMode::Require);
        }
        if config.get_hosts().is_empty() {
            // The certificate is for something: where no name is given, for the address.
            let addresses: Vec<String> = config.get_hostaddrs().iter().map(ToString::to_string).collect();
            for address in &addresses {
                config.host(address);
            }
        }
        Ok(Self::Verified(ca.map(Path::to_owned)))
    }

    /// How messages name those who are believed.
    pub(super) fn believed(&self) -> String {
        match self {
            Self::Verified(Some(ca)) => format!("the certificates in {}", ca.display()),
            Self::None | Self::Verified(None) => "the certificate authorities that this machine trusts".to_owned(),
        }
    }
}

/// Whether the server is on this machine, whatever its address.
fn is_local(config: &Config) -> bool {
    let named = config.get_hosts().iter().all(|host| match host {
        Host::Unix(_) => true,
        Host::Tcp(name) => {
            let address = name.parse::<std::net::IpAddr>();
            name.eq_ignore_ascii_case("localhost") || address.is_ok_and(|address| address.is_loopback())
        }
    });
    // An address that stands beside a name is the one that is used.
    match config.get_hostaddrs() {
        [] => named,
        addresses => addresses.iter().all(std::net::IpAddr::is_loopback),
    }
}

/// Whether a text has certificates that could be believed.
pub fn check_ca(pem: &str) -> Result<(), String> {
    parsed(pem.as_bytes()).map(drop)
}

/// The certificates in a PEM file.
fn parsed(pem: &[u8]) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for found in CertificateDer::pem_slice_iter(pem) {
        let found = found.map_err(|e| format!("it is no PEM file: {e}"))?;
        roots.add(found).map_err(|e| format!("a certificate in it cannot be used: {e}"))?;
    }
    match roots.is_empty() {
        true => Err("it has no certificate in it; one begins with `-----BEGIN CERTIFICATE-----`".to_owned()),
        false => Ok(roots),
    }
}

/// Those who are believed. Read for each connection: certificates are replaced while programs run.
fn roots(ca: Option<&Path>) -> Result<RootCertStore, String> {
    if let Some(ca) = ca {
        let read = std::fs::read(ca).map_err(|e| e.to_string()).and_then(|pem| parsed(&pem));
        return read.map_err(|why| format!("the file of `ca`, {}, cannot be used: {why}", ca.display()));
    }
    let mut roots = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        let why = found.errors.first().map(|e| format!(" ({e})")).unwrap_or_default();
        return Err(format!(
            "this machine trusts no certificate authority{why}: install its certificates (Debian: `ca-certificates`), or \
             name the server's own with `ca`"
        ));
    }
    Ok(roots)
}

impl Place {
    /// A connection under this name, at work until the client is dropped.
    pub(super) async fn dial(&self, name: &str) -> Result<Client, ConnectError> {
        let mut config = self.config.clone();
        if config.get_application_name().is_none() {
            config.application_name(name);
        }
        let connected = match self.connector().await? {
            None => self.within(driven(&config, NoTls)).await?,
            Some(tls) => self.within(driven(&config, tls)).await?,
        };
        connected.map_err(|e| self.error(&e))
    }

    async fn connector(&self) -> Result<Option<MakeRustlsConnect>, ConnectError> {
        let Tls::Verified(ca) = &self.tls else { return Ok(None) };
        let ca = ca.clone();
        let direct = self.config.get_ssl_negotiation() == SslNegotiation::Direct;
        let failed = |why: String| ConnectError::refused(format!("PostgreSQL at {}: {why}", self.address()));
        // It reads files.
        let made = tokio::task::spawn_blocking(move || {
            let provider = Arc::new(rustls::crypto::ring::default_provider());
            let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
            let config = config.map_err(|e| e.to_string())?;
            let mut config = config.with_root_certificates(roots(ca.as_deref())?).with_no_client_auth();
            if direct {
                config.alpn_protocols = vec![ALPN.to_vec()];
            }
            Ok(MakeRustlsConnect::new(config))
        });
        made.await.map_err(|e| failed(e.to_string()))?.map(Some).map_err(failed)
    }
}

/// Connects, and lets the connection work by itself.
async fn driven<T>(config: &Config, tls: T) -> Result<Client, tokio_postgres::Error>
where
    T: MakeTlsConnect<Socket>,
    T::Stream: Send + 'static,
    T::TlsConnect: Send,
    <T::TlsConnect as TlsConnect<Socket>>::Future: Send,
{
    let (client, connection) = config.connect(tls).await?;
    // It ends when the client is dropped; what went wrong the client's calls say.
    drop(tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "a connection to PostgreSQL ended");
        }
    }));
    Ok(client)
}
