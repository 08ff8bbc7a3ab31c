//! Reads `sources:`.

use super::decode::{Decoder, Later, first_line};
use super::read::{check_format, format_of, read_compression, read_file_format, read_text_format};
use super::read_generate::read_generate;
use super::settings::*;
use super::source_text::{Span, Spanned};
use super::yaml::Node;
use crate::diagnostic::Diagnostic;

const KINDS: [&str; 4] = ["http", "file", "stdin", "generate"];
const LATER: Later = &[
    ("kafka", "Kafka sources come later"),
    ("postgres", "Postgres sources come later"),
    ("mqtt", "MQTT sources come later"),
    ("s3", "object storage comes later; use a file"),
    ("object", "object storage comes later; use a file"),
    ("priority", "priorities come later"),
    ("rate", "only `generate` has a rate"),
];

pub(crate) fn read_source(decoder: &mut Decoder<'_>, node: &Node, what: &str, head: Span) -> Option<SourceSettings> {
    let keys = ["http", "file", "stdin", "generate", "to", "unknown"];
    let before = decoder.found.0.len();
    let f = decoder.fields(node, head, what, &keys, LATER)?;
    let later = decoder.found.0.iter().skip(before).any(|d| d.code == "not-yet");
    let given: Vec<&str> = KINDS.into_iter().filter(|k| f.get(k).is_some()).collect();
    if given.len() != 1 && !later {
        let message = match given.len() {
            0 => format!("{what} does not say where its events come from"),
            _ => format!("{what} has more than one of {}", given.join(", ")),
        };
        let label = "give one of `http`, `file`, `stdin`, `generate`";
        decoder.report(head, Diagnostic::error("source-kind", message).label(label));
    }
    let choices = [("keep", UnknownFields::Keep), ("drop", UnknownFields::Drop), ("reject", UnknownFields::Reject)];
    let unknown = f.get("unknown").and_then(|n| decoder.choice(n, "`unknown`", &choices));
    let http = f.get("http").map(|n| read_http(decoder, n));
    let file = f.get("file").map(|n| read_file(decoder, n));
    let stdin = f.get("stdin").map(|n| read_stdin(decoder, n));
    let generate = f.get("generate").map(|n| read_generate(decoder, n));
    let to = f.need(decoder, "to").and_then(|n| decoder.name(n, "`to`"));
    let failed = [http.as_ref().map(Option::is_none), file.as_ref().map(Option::is_none)]
        .into_iter()
        .chain([stdin.as_ref().map(Option::is_none), generate.as_ref().map(Option::is_none)])
        .any(|f| f == Some(true));
    (!failed && !later && given.len() == 1).then_some(())?;
    Some(SourceSettings {
        http: http.flatten(),
        file: file.flatten(),
        stdin: stdin.flatten(),
        generate: generate.flatten(),
        to: to?,
        unknown: unknown.unwrap_or_default(),
        span: head,
    })
}

fn read_http(decoder: &mut Decoder<'_>, node: &Node) -> Option<HttpSourceSettings> {
    let keys = ["path", "format", "reply", "idempotency", "max_body", "max_event", "max_requests"];
    let f = decoder.fields(node, first_line(node.span), "`http`", &keys, &[])?;
    let path = f.need(decoder, "path").and_then(|n| {
        let path = decoder.text(n, "`path`")?;
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | '-' | '_' | '.' | '~');
        if !path.value.starts_with('/') || !path.value.chars().all(plain) || path.value.len() > 200 {
            let label = "starts with `/` and has letters, digits, `-`, `_`, `.` and `/`";
            decoder.report(n.span, Diagnostic::error("bad-value", "`path` is not usable").label(label));
            return None;
        }
        let reserved = ["/api", "/healthz", "/readyz", "/metrics"];
        if reserved.iter().any(|r| path.value == *r || path.value.starts_with(&format!("{r}/"))) {
            let message = format!("`{}` belongs to the node itself", path.value);
            decoder.report(n.span, Diagnostic::error("path-reserved", message).label("choose another path"));
            return None;
        }
        Some(path)
    });
    let format = f
        .get("format")
        .and_then(|n| decoder.choice(n, "`format`", &[("json", Format::Json), ("ndjson", Format::Json)]));
    let idempotency = f.get("idempotency").and_then(|n| {
        let f = decoder.fields(n, first_line(n.span), "`idempotency`", &["ttl"], &[])?;
        let ttl = f.need(decoder, "ttl").and_then(|n| decoder.duration(n, "`ttl`"))?;
        Some(IdempotencySettings { ttl })
    });
    Some(HttpSourceSettings {
        path: path?,
        format,
        reply: f.get("reply").and_then(|n| read_reply(decoder, n)),
        idempotency,
        max_body: f.get("max_body").and_then(|n| decoder.size(n, "`max_body`")),
        max_event: f.get("max_event").and_then(|n| decoder.size(n, "`max_event`")),
        max_requests: f
            .get("max_requests")
            .and_then(|n| decoder.integer(n, "`max_requests`", 1, 100_000))
            .map(|n| n.value),
    })
}

fn read_reply(decoder: &mut Decoder<'_>, node: &Node) -> Option<ReplySettings> {
    let f = decoder.fields(node, first_line(node.span), "`reply`", &["from", "match", "timeout"], &[])?;
    let from = f.need(decoder, "from").and_then(|n| decoder.names(n, "`from`"));
    let matching = f.need(decoder, "match").and_then(|n| decoder.text(n, "`match`"));
    let timeout = f.get("timeout").and_then(|n| decoder.duration(n, "`timeout`"));
    Some(ReplySettings { from: from?, matching: matching?, timeout })
}

fn read_file(decoder: &mut Decoder<'_>, node: &Node) -> Option<FileSourceSettings> {
    let keys = ["path", "format", "compression", "follow"];
    let f = decoder.fields(node, first_line(node.span), "`file`", &keys, &[])?;
    let path = f.need(decoder, "path").and_then(|n| decoder.path(n, "`path`"));
    let format = f.get("format").and_then(|n| read_file_format(decoder, n));
    let compression = f.get("compression").and_then(|n| read_compression(decoder, n));
    if let Some(path) = &path {
        plain_arrow(decoder, path, format, compression);
    }
    Some(FileSourceSettings {
        format,
        compression,
        follow: f.get("follow").and_then(|n| decoder.boolean(n, "`follow`")).unwrap_or(false),
        path: check_format(decoder, &f, path?),
    })
}

/// Arrow files are packed inside, not as a whole.
fn plain_arrow(
    decoder: &mut Decoder<'_>,
    path: &Spanned<std::path::PathBuf>,
    format: Option<Format>,
    compression: Option<Compression>,
) {
    let suffix = path.value.extension().and_then(|e| e.to_str());
    let packed = match compression {
        Some(compression) => compression != Compression::None,
        None => matches!(suffix, Some("gz" | "zst")),
    };
    if packed && format.or_else(|| format_of(&path.value)) == Some(Format::Arrow) {
        let diagnostic = Diagnostic::error("not-yet", "an Arrow file that is packed as a whole is not read");
        decoder.report(path.span, diagnostic.label("unpack it; inside, LZ4 is read"));
    }
}

fn read_stdin(decoder: &mut Decoder<'_>, node: &Node) -> Option<StdinSettings> {
    if node.is_null() {
        return Some(StdinSettings { format: None });
    }
    let f = decoder.fields(node, first_line(node.span), "`stdin`", &["format"], &[])?;
    Some(StdinSettings { format: f.get("format").and_then(|n| read_text_format(decoder, n)) })
}
