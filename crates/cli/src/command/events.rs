//! How an event looks.

use millstream_node::api::EventLine;

use crate::failure::Failure;
use crate::terminal::Out;

/// An event with its place: on a terminal the place and the time stand before it, for programs `--json` has all of it
/// as one object.
pub(crate) fn print(line: &EventLine, bare: bool, out: &mut Out) -> Result<(), Failure> {
    let EventLine::Event { partition, offset, ingested_at, deleted, event } = line else { return Ok(()) };
    if out.json && !bare {
        return out.value_line(line);
    }
    let text = event.get();
    // In a pipe a line is just the event, so that the next program can read it, in the form of the file sinks.
    if bare || !out.people {
        return match text.strip_suffix('}').filter(|_| *deleted) {
            Some("{") => out.line("{\"_deleted\":true}"),
            Some(open) => out.line(&format!("{open},\"_deleted\":true}}")),
            None => out.line(text),
        };
    }
    let time = ingested_at.get(11..23).unwrap_or(ingested_at);
    let place = out.style.dim(&format!("{:>9} {time}", format!("{partition}:{offset}")));
    let gone = if *deleted { out.style.dim("deleted ") } else { String::new() };
    out.line(&format!("{place} {gone}{text}"))
}
