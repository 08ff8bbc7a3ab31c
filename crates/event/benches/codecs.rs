//! What one event costs in each codec: nanoseconds of CPU time, one thread. `cargo bench -p millstream-event`.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a benchmark prints, and ends where it fails")]

use std::collections::HashMap;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use arrow_buffer::Buffer;
use millstream_event::{Column, Partitioner, Schema, Unknown, csv, ipc, json};

const EVENTS: usize = 8192;

fn main() {
    let columns = [
        ("id", "string!"),
        ("card_id", "string!"),
        ("merchant_id", "string"),
        ("amount", "decimal(12,2)!"),
        ("currency", "string"),
        ("country", "string"),
        ("at", "timestamp!"),
    ];
    let schema = Schema::new(columns.map(|(n, k)| Column::parse(n, k).unwrap()).to_vec()).unwrap();
    let lines: String = (0..EVENTS)
        .map(|i| {
            let (card, merchant, cents) = (i * 7919 % 5000, i * 104_729 % 900, i * 31 % 100);
            format!(
                "{{\"id\":\"t{i:07}\",\"card_id\":\"c{card}\",\"merchant_id\":\"m{merchant}\",\"amount\":{}.{cents:02},\
                 \"currency\":\"EUR\",\"country\":\"DE\",\"at\":\"2026-01-01T{:02}:{:02}:{:02}Z\"}}\n",
                i % 300,
                i / 3600 % 24,
                i / 60 % 60,
                i % 60
            )
        })
        .collect();
    let text = lines.as_bytes();
    println!("{EVENTS} events of {} bytes, CPU time per event", text.len() / EVENTS);

    let mut decoder = json::Decoder::new(&schema, Unknown::Keep);
    measure("JSON decode", EVENTS, || decoder.decode_lines(text).unwrap());
    measure("  serde_json, grammar only", EVENTS, || {
        for line in lines.lines() {
            black_box(serde_json::from_str::<serde::de::IgnoredAny>(line).unwrap());
        }
    });
    let rows = decoder.decode_lines(text).unwrap().rows;
    let encoder = json::Encoder::new(&schema, json::Decimals::Numbers);
    let mut out = Vec::new();
    measure("JSON encode", EVENTS, || {
        out.clear();
        encoder.encode(&rows, &mut out).unwrap();
    });

    let mut cells = Vec::new();
    let csv_encoder = csv::Encoder::new(&schema);
    csv_encoder.header(&mut cells);
    csv_encoder.encode(&rows, &mut cells).unwrap();
    measure("CSV decode", EVENTS, || csv::Decoder::new(&schema, Unknown::Keep).decode(&cells, true).unwrap());
    measure("CSV encode", EVENTS, || {
        out.clear();
        csv_encoder.encode(&rows, &mut out).unwrap();
    });

    let partitioner = Partitioner::new(&schema, &["card_id".to_owned()], 8).unwrap();
    measure("partitions", EVENTS, || partitioner.partitions(&rows).unwrap());
    measure("split into 8", EVENTS, || partitioner.split(&rows).unwrap());

    let physical = schema.with_system(&rows, 1).unwrap();
    for (label, rows) in [("8192 events", physical.clone()), ("1 event", physical.slice(77, 1))] {
        let n = rows.num_rows();
        let mut message = Vec::new();
        measure(&format!("stored form, encode {label}"), n, || {
            message.clear();
            ipc::encode(&rows, &mut message).unwrap();
        });
        println!("    {} bytes", message.len());
        let buffer = Buffer::from(message.as_slice());
        measure(&format!("stored form, decode {label}"), n, || ipc::decode(schema.physical(), &buffer).unwrap());
        arrow_ipc_itself(label, &rows);
    }
}

/// The same with arrow-ipc's own message, for comparison.
fn arrow_ipc_itself(label: &str, rows: &arrow_array::RecordBatch) {
    use arrow_ipc::writer::{DictionaryTracker, IpcDataGenerator, IpcWriteContext, IpcWriteOptions};
    let options = IpcWriteOptions::try_new(8, false, arrow_ipc::MetadataVersion::V5).unwrap();
    let generator = IpcDataGenerator::default();
    let mut context = IpcWriteContext::default();
    let mut message = Vec::new();
    let mut encoded = None;
    measure(&format!("  arrow-ipc, encode {label}"), rows.num_rows(), || {
        message.clear();
        let mut tracker = DictionaryTracker::new(false);
        let (_, data) = generator.encode(rows, &mut tracker, &options, &mut context).unwrap();
        arrow_ipc::writer::write_message(&mut message, data, &options).unwrap();
        encoded = Some(generator.encode(rows, &mut tracker, &options, &mut context).unwrap().1);
    });
    println!("    (encoded twice per round: halve it) {} bytes", message.len());
    let encoded = encoded.unwrap();
    let body = Buffer::from(encoded.arrow_data.as_slice());
    let schema = Arc::clone(rows.schema_ref());
    measure(&format!("  arrow-ipc, decode {label}"), rows.num_rows(), || {
        let message = arrow_ipc::root_as_message(&encoded.ipc_message).unwrap();
        let batch = message.header_as_record_batch().unwrap();
        let version = message.version();
        arrow_ipc::reader::read_record_batch(&body, batch, Arc::clone(&schema), &HashMap::new(), None, &version)
            .unwrap()
    });
}

/// How much CPU time each measurement takes, where the system tells it.
const CPU_NS: f64 = 3e8;

/// Runs `work`, which handles `events` events, and prints the CPU time of each: the mean, because the system brings its
/// count of a running thread up to date only every few milliseconds.
fn measure<T>(label: &str, events: usize, mut work: impl FnMut() -> T) {
    let (began, from) = (Instant::now(), cpu_ns());
    let (mut rounds, mut ns) = (0, 0.0);
    while ns < CPU_NS {
        for _ in 0..16 {
            black_box(work());
        }
        rounds += 16;
        ns = match (from, cpu_ns()) {
            (Some(from), Some(to)) => to.saturating_sub(from) as f64,
            _ => began.elapsed().as_nanos() as f64,
        };
    }
    let per_event = ns / (rounds * events) as f64;
    println!("{label:<34} {per_event:>9.1} ns {:>8.2} M/s", 1e3 / per_event);
}

/// This thread's time on a CPU, where the system tells it.
fn cpu_ns() -> Option<u64> {
    std::fs::read_to_string("/proc/thread-self/schedstat").ok()?.split(' ').next()?.parse().ok()
}
