//! `state: {postgres: …}` of a service: where its state is kept, if not in the log.

use std::path::{Path, PathBuf};

use millstream_connect::PostgresState;
use millstream_connect::postgres::{SCHEMA, Wrong, check_ca};
use millstream_service::StateStore;
use millstream_service::event::Name;
use schemars::JsonSchema;

use super::decode::{Decoder, first_line};
use super::outside::UNDEFINED;
use super::source_text::Span;
use super::state::Secret;
use super::yaml::Node;
use crate::diagnostic::Diagnostic;

/// A database in which a service keeps its state.
#[derive(Debug, Clone, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct PostgresSettings {
    /// The address: `postgres://user:password@host:5432/database`, best as `${env:DATABASE_URL}`.
    #[schemars(with = "String")]
    pub url: Secret,
    /// The schema of the tables, which are made when they are missing. Default `millstream`.
    #[schemars(with = "Option<String>", default)]
    pub schema: String,
    /// A PEM file with the certificates of those who sign the server's; TLS is demanded then. Default: whom this machine
    /// trusts, where the address has `sslmode=require`.
    pub ca: Option<PathBuf>,
    /// Where the address stands.
    #[schemars(skip)]
    pub span: Span,
}

impl PostgresSettings {
    /// Where it is, without secrets.
    pub(crate) fn place(&self) -> String {
        self.state("").map(|state| state.place()).unwrap_or_default()
    }

    /// The database, for a pipeline's state. Nothing is connected.
    pub(crate) fn store(&self, pipeline: &Name) -> Result<PostgresState, Wrong> {
        self.state(pipeline.as_str())
    }

    fn state(&self, pipeline: &str) -> Result<PostgresState, Wrong> {
        PostgresState::trusting(self.url.reveal(), self.ca.as_deref(), &self.schema, pipeline)
    }
}

pub(super) fn read_postgres(decoder: &mut Decoder<'_>, node: &Node) -> Option<PostgresSettings> {
    let f = decoder.fields(node, first_line(node.span), "`postgres`", &["url", "schema", "ca"], &[])?;
    let url = f.need(decoder, "url").and_then(|n| decoder.text(n, "`url`"))?;
    if let Some(password) = password_in(&url.value) {
        decoder.secrets.add(password);
    }
    let schema = match f.get("schema") {
        Some(n) => decoder.text(n, "`schema`")?.value,
        None => SCHEMA.to_owned(),
    };
    let ca = match f.get("ca") {
        Some(n) => Some(read_ca(decoder, n)?),
        None => None,
    };
    let settings = PostgresSettings { span: url.span, url: Secret::of(url.value), schema, ca };
    // The pipeline's name decides nothing about the address.
    match settings.state("") {
        Ok(_) => Some(settings),
        Err(_) if settings.url.reveal() == UNDEFINED => None,
        Err(wrong) => {
            let key = match wrong {
                Wrong::Schema(_) => "schema",
                Wrong::CaUnused(_) => "ca",
                _ => "url",
            };
            let span = f.get(key).map_or(settings.span, |n| n.span);
            decoder.report(span, Diagnostic::error("state-postgres", wrong.to_string()));
            None
        }
    }
}

/// The file of those who are believed. It is looked at now, so that a wrong one is found before anything runs.
fn read_ca(decoder: &mut Decoder<'_>, node: &Node) -> Option<PathBuf> {
    let written = decoder.text(node, "`ca`")?;
    let path = decoder.path(node, "`ca`")?;
    let read = decoder.files.read(Path::new(&written.value)).and_then(|pem| check_ca(&pem));
    if let Err(why) = read {
        let message = format!("`ca` names a file that cannot be used: {why}");
        decoder.report(path.span, Diagnostic::error("state-postgres", message));
        return None;
    }
    Some(path.value)
}

/// The password in an address, also in one that is wrong otherwise: `scheme://user:password@…`, `password=…`.
fn password_in(url: &str) -> Option<&str> {
    if let Some((_, rest)) = url.split_once("password=") {
        return rest.split(['&', ' ']).next();
    }
    let (_, rest) = url.split_once("://")?;
    let (user, _) = rest.rsplit_once('@')?;
    user.split_once(':').map(|(_, password)| password)
}
