//! `state`: what becomes of what the pipeline knows; for now its backup.

use std::fmt;
use std::time::Duration;

use millstream_backup::Place;
use schemars::JsonSchema;

use super::decode::{Decoder, first_line};
use super::source_text::Spanned;
use super::yaml::Node;
use crate::diagnostic::Diagnostic;

/// How often the log is copied unless the file says so.
const EVERY: Duration = Duration::from_secs(60);
/// The shortest time between two rounds.
const EVERY_MIN: Duration = Duration::from_millis(100);
/// How many backups are kept unless the file says so.
const KEEP: u64 = 10;
/// The most backups that may be kept: each one's manifest is in memory.
const KEEP_MAX: u64 = 1000;

/// What becomes of what the pipeline knows.
#[derive(Debug, Clone, Default, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct PipelineStateSettings {
    /// Copies of the log, with all state, positions and events, in a directory or a bucket.
    pub backup: Option<BackupSettings>,
}

/// Copies of the log in a directory or a bucket.
#[derive(Debug, Clone, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct BackupSettings {
    /// Where to: `file:///path` or `s3://bucket/prefix`.
    #[schemars(with = "String")]
    pub to: Spanned<String>,
    /// How often; so much may be lost with the machine. Default `1m`.
    #[schemars(with = "Option<String>", default)]
    pub every: Duration,
    /// How many backups are kept. Default 10.
    #[schemars(with = "Option<u64>", default)]
    pub keep: usize,
    /// The address of a store that speaks S3 but is not Amazon's.
    pub endpoint: Option<String>,
    /// The bucket's region. Default: `AWS_REGION` or `AWS_DEFAULT_REGION`.
    pub region: Option<String>,
    /// Whether the endpoint may be reached without TLS. Default false.
    #[schemars(default)]
    pub allow_http: bool,
    /// The key. Default: the usual AWS environment variables, or the machine's role.
    #[schemars(with = "Option<String>")]
    pub access_key_id: Option<Secret>,
    /// Its secret.
    #[schemars(with = "Option<String>")]
    pub secret_access_key: Option<Secret>,
}

impl BackupSettings {
    /// The place, or another one that is reached in the same way.
    pub(crate) fn place(&self, to: Option<&str>) -> Place {
        let secret = |secret: &Option<Secret>| secret.as_ref().map(|secret| secret.0.clone());
        Place {
            to: to.unwrap_or(&self.to.value).to_owned(),
            endpoint: self.endpoint.clone(),
            region: self.region.clone(),
            allow_http: self.allow_http,
            access_key_id: secret(&self.access_key_id),
            secret_access_key: secret(&self.secret_access_key),
        }
    }
}

/// A value that is never printed.
#[derive(Clone)]
pub struct Secret(String);

impl Secret {
    pub(crate) fn of(text: String) -> Self {
        Self(text)
    }

    /// The value, for whom it is meant.
    pub(crate) fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

pub(crate) fn read_state(decoder: &mut Decoder<'_>, node: &Node) -> PipelineStateSettings {
    let Some(f) = decoder.fields(node, first_line(node.span), "`state`", &["backup"], &[]) else {
        return PipelineStateSettings::default();
    };
    PipelineStateSettings { backup: f.get("backup").and_then(|node| read_backup(decoder, node)) }
}

fn read_backup(decoder: &mut Decoder<'_>, node: &Node) -> Option<BackupSettings> {
    let keys = ["to", "every", "keep", "endpoint", "region", "allow_http", "access_key_id", "secret_access_key"];
    let f = decoder.fields(node, first_line(node.span), "`backup`", &keys, &[])?;
    let to = f.need(decoder, "to").and_then(|n| decoder.text(n, "`to`"));
    let every = f.get("every").map_or(Some(EVERY), |n| {
        let every = decoder.duration(n, "`every`")?;
        if every < EVERY_MIN {
            let diagnostic = Diagnostic::error("bad-value", "`every` is out of range");
            decoder.report(n.span, diagnostic.label(format!("at least {}ms", EVERY_MIN.as_millis())));
            return None;
        }
        Some(every)
    });
    let keep = f.get("keep").map_or(Some(KEEP), |n| Some(decoder.integer(n, "`keep`", 1, KEEP_MAX)?.value));
    let mut text = |key: &str| f.get(key).and_then(|n| decoder.text(n, &format!("`{key}`"))).map(|text| text.value);
    let (endpoint, region) = (text("endpoint"), text("region"));
    let (access_key_id, secret_access_key) = (text("access_key_id"), text("secret_access_key"));
    let allow_http = f.get("allow_http").map_or(Some(false), |n| decoder.boolean(n, "`allow_http`"));
    let settings = BackupSettings {
        to: to?,
        every: every?,
        keep: usize::try_from(keep?).unwrap_or(usize::MAX),
        endpoint,
        region,
        allow_http: allow_http?,
        access_key_id: access_key_id.map(Secret),
        secret_access_key: secret_access_key.map(Secret),
    };
    if let Err(error) = settings.place(None).check() {
        decoder.report(settings.to.span, Diagnostic::error("backup-place", error.to_string()));
        return None;
    }
    Some(settings)
}
