//! Dead letters, as the API shows them.

use millstream_service::dead_letters::{LIST_MAX, LetterStatus, LetterView, Select, list};
use millstream_service::event::Name;
use millstream_service::log::Log;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::log_error;
use crate::api::{ApiError, Letter, LetterId, LetterState, LettersQuery, codes};
use crate::diagnostic::did_you_mean;
use crate::plan::Pipeline;

/// Letters of a service or source, oldest first in each partition.
pub async fn letters(
    log: &dyn Log,
    pipeline: &Pipeline,
    service: &str,
    query: &LettersQuery,
) -> Result<Vec<Letter>, ApiError> {
    let name = known(pipeline, service)?;
    let select = Select {
        ids: query.id.iter().map(|id| inner(*id)).collect(),
        code: query.code.clone(),
        rule: query.rule.clone(),
        status: query.state.map(|state| match state {
            LetterState::Open => LetterStatus::Open,
            LetterState::Replayed => LetterStatus::Replayed,
            LetterState::Discarded => LetterStatus::Discarded,
        }),
    };
    let limit = query.limit.and_then(|n| usize::try_from(n).ok()).unwrap_or(LIST_MAX);
    let views = list(log, &name, &select, limit).await.map_err(|e| log_error(&e))?;
    views.iter().map(letter).collect()
}

/// The service or source of this name, or a refusal with the nearest one and the list.
fn known(pipeline: &Pipeline, name: &str) -> Result<Name, ApiError> {
    let sources = pipeline.sources.iter().map(|s| &s.name);
    let known: Vec<&Name> = pipeline.services.iter().map(|s| &s.name).chain(sources).collect();
    if let Some(found) = known.iter().find(|n| n.as_str() == name) {
        return Ok((*found).clone());
    }
    let names: Vec<&str> = known.iter().map(|n| n.as_str()).collect();
    let near = did_you_mean(name, names.iter().copied()).map(|h| h + "\n").unwrap_or_default();
    let message = format!("there is no service or source `{name}`");
    Err(ApiError::new(codes::SERVICE_UNKNOWN, message).help(format!("{near}there are: {}", names.join(", "))))
}

fn inner(id: LetterId) -> millstream_service::dead_letters::LetterId {
    millstream_service::dead_letters::LetterId { partition: id.partition, offset: id.offset }
}

/// The columns of a dead-letter topic.
#[derive(Deserialize)]
struct Columns {
    at: String,
    code: String,
    reason: String,
    rules: Option<Vec<String>>,
    service: String,
    service_version: String,
    topic: Option<String>,
    partition: Option<u32>,
    offset: Option<u64>,
    place: Option<String>,
    attempts: u32,
    event: Option<Box<RawValue>>,
    raw: Option<String>,
}

fn letter(view: &LetterView) -> Result<Letter, ApiError> {
    let c: Columns = serde_json::from_str(view.letter.get()).map_err(|e| log_error(&e))?;
    Ok(Letter {
        id: LetterId { partition: view.id.partition, offset: view.id.offset },
        state: match view.status {
            LetterStatus::Open => LetterState::Open,
            LetterStatus::Replayed => LetterState::Replayed,
            LetterStatus::Discarded => LetterState::Discarded,
        },
        at: c.at,
        code: c.code,
        reason: c.reason,
        rules: c.rules.unwrap_or_default(),
        topic: c.topic.unwrap_or_else(|| c.service.clone()),
        service: c.service,
        service_version: c.service_version,
        partition: c.partition,
        offset: c.offset,
        origin: c.place,
        attempts: c.attempts,
        event: c.event.filter(|e| e.get() != "null"),
        raw: c.raw.map(|raw| String::from_utf8_lossy(&unbase64(&raw)).into_owned()),
    })
}

/// Reads what the encoder wrote for bytes.
fn unbase64(text: &str) -> Vec<u8> {
    let value = |b: u8| match b {
        b'A'..=b'Z' => Some(b - b'A'),
        b'a'..=b'z' => Some(b - b'a' + 26),
        b'0'..=b'9' => Some(b - b'0' + 52),
        b'+' => Some(62),
        b'/' => Some(63),
        _ => None,
    };
    let mut out = Vec::with_capacity(text.len() / 4 * 3);
    let (mut held, mut bits) = (0u32, 0u32);
    for six in text.bytes().filter_map(value) {
        held = held << 6 | u32::from(six);
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            out.push((held >> bits & 0xff) as u8);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_come_back_from_base64() {
        for (text, bytes) in [("", &b""[..]), ("YQ==", b"a"), ("YWI=", b"ab"), ("YWJj", b"abc"), ("/+8=", b"\xff\xef")]
        {
            assert_eq!(unbase64(text), bytes);
        }
    }
}
