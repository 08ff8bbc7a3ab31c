//! What the embedded log costs and how fast it is: `cargo bench -p millstream-log [-- DIR]`.
//!
//! Prints the CPU time of the whole process (encoding, committing, settling), so that "events per CPU second" is what a
//! hop costs in all. The sync mode is `group`. The disk's own figures stand beside.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::print_stdout, reason = "a bench prints, and may panic")]

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow_array::{
    ArrayRef, Decimal128Array, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
};
use millstream_event::{Name, Offset, PartitionId, Schema, TopicPartition};
use millstream_log::{
    Append, Change, Class, Commit, EmbeddedLog, EmbeddedOptions, Join, Lead, Log, Membership, Outcome, Pending, Read,
    Retention, Task, TopicKind, TopicSpec,
};

/// Commits of one task on their way at once.
const PIPELINE: usize = 4;

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn spec(topic: &str, columns: &[(&str, &str)], partitions: u32, age: Duration) -> TopicSpec {
    let columns = columns.iter().map(|(n, k)| millstream_event::Column::parse(*n, k).unwrap()).collect();
    TopicSpec {
        name: name(topic),
        partitions,
        key: vec![],
        schema: Schema::new(columns).unwrap(),
        kind: TopicKind::Stream,
        retention: Retention { until_read: true, age: Some(age), max_bytes: None },
        consumers: vec![],
    }
}

const CARDS: [(&str, &str); 7] = [
    ("id", "string!"),
    ("card_id", "string!"),
    ("merchant_id", "string"),
    ("amount", "decimal(12,2)!"),
    ("currency", "string"),
    ("risk", "double"),
    ("at", "timestamp!"),
];

/// Card transactions of about 130 bytes in 8 columns.
fn cards(n: i64, seed: i64) -> RecordBatch {
    let schema = spec("x", &CARDS, 1, Duration::ZERO).schema;
    let mix = |i: i64| (i + seed).wrapping_mul(0x5851_f42d_4c95_7f2d).unsigned_abs();
    let text = |f: &dyn Fn(i64) -> String| Arc::new(StringArray::from_iter_values((0..n).map(f))) as ArrayRef;
    let time =
        TimestampMicrosecondArray::from_iter_values((0..n).map(|i| 1_700_000_000_000_000 + i)).with_timezone("+00:00");
    let amount = Decimal128Array::from_iter_values((0..n).map(|i| i128::from(mix(i) % 100_000)));
    RecordBatch::try_new(
        schema.physical().clone(),
        vec![
            text(&|i| format!("{:020}", mix(i))),
            text(&|i| format!("card-{:09}", mix(i) % 1_000_000)),
            text(&|i| format!("merchant-{:05}", mix(i) % 20_000)),
            Arc::new(amount.with_precision_and_scale(12, 2).unwrap()),
            text(&|_| "EUR".to_owned()),
            Arc::new(Float64Array::from_iter_values((0..n).map(|i| mix(i) as f64 / 1e19))),
            Arc::new(time.clone()),
            Arc::new(time),
        ],
    )
    .unwrap()
}

/// Events of 1 KiB that do not compress.
fn kibibytes(n: i64, seed: i64) -> RecordBatch {
    let schema = spec("x", &[("n", "bigint!"), ("text", "string!")], 1, Duration::ZERO).schema;
    let mut x = seed.unsigned_abs() | 1;
    let mut next = || {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        char::from(b' ' + (x % 95) as u8)
    };
    let text = (0..n).map(|_| (0..1000).map(|_| next()).collect::<String>());
    let text: StringArray = text.map(Some).collect();
    let time = TimestampMicrosecondArray::from_iter_values(0..n).with_timezone("+00:00");
    RecordBatch::try_new(
        schema.physical().clone(),
        vec![Arc::new(Int64Array::from_iter_values(0..n)), Arc::new(text), Arc::new(time)],
    )
    .unwrap()
}

fn cpu() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    Duration::from_millis(ticks * 10)
}

fn peak_rss_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|l| l.starts_with("VmHWM")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
}

async fn owner(log: &EmbeddedLog, service: &str, tasks: u32) -> (Box<dyn Membership>, Vec<Task>) {
    let join = Join { service: name(service), instance: 0, lead: Lead::Tasks(tasks) };
    let mut membership = log.join(join).unwrap();
    let Change::Assigned(tasks) = membership.next().await else { panic!() };
    (membership, tasks)
}

/// Commits `batches` to the partitions of `topic` in turn and waits for all.
async fn write(log: &EmbeddedLog, topic: &str, tasks: &[Task], batches: &[RecordBatch], commits: usize) {
    let mut waiting: std::collections::VecDeque<Pending> = Default::default();
    for i in 0..commits {
        let task = &tasks[i % tasks.len()];
        let append = Append {
            topic: name(topic),
            partition: PartitionId((i % tasks.len()) as u32),
            schema_version: 1,
            rows: batches[i % batches.len()].clone(),
            watermark: None,
        };
        let (task, epoch) = (task.id.clone(), task.epoch);
        waiting.push_back(log.commit(Commit {
            task,
            epoch,
            class: Class::Processing,
            consumed: vec![],
            appends: vec![append],
        }));
        if waiting.len() >= PIPELINE * tasks.len() {
            assert!(matches!(waiting.pop_front().unwrap().await, Outcome::Committed(_)));
        }
    }
    for pending in waiting {
        assert!(matches!(pending.await, Outcome::Committed(_)));
    }
}

fn disk(dir: &Path) {
    use std::io::Write as _;
    let path = dir.join("disk");
    let mut file = std::fs::File::create(&path).unwrap();
    let zeros = vec![7; 8 << 20];
    let begun = Instant::now();
    for _ in 0..64 {
        file.write_all(&zeros).unwrap();
        file.sync_data().unwrap();
    }
    let rate = 512.0 / begun.elapsed().as_secs_f64();
    use std::os::unix::fs::FileExt as _;
    let begun = Instant::now();
    for i in 0..500 {
        file.write_all_at(&zeros[..4096], i * 4096).unwrap();
        file.sync_data().unwrap();
    }
    println!(
        "disk: {rate:.0} MiB/s written in 8 MiB syncs, fdatasync of 4 KiB {:.0} us",
        begun.elapsed().as_micros() / 500
    );
    std::fs::remove_file(path).unwrap();
}

async fn hop(dir: &Path, age: Duration, label: &str) {
    let log = EmbeddedLog::open(EmbeddedOptions::new(dir.join("hop"))).unwrap();
    log.create_topic(spec("t", &CARDS, 8, age)).await.unwrap();
    let (_m, tasks) = owner(&log, "s", 8).await;
    let batches: Vec<_> = (0..16).map(|i| cards(1000, i * 1000)).collect();
    write(&log, "t", &tasks, &batches, 500).await;
    let (begun, used, before) = (Instant::now(), cpu(), log.counts());
    write(&log, "t", &tasks, &batches, 12_000).await;
    let (wall, used, after) = (begun.elapsed().as_secs_f64(), (cpu() - used).as_secs_f64(), log.counts());
    let events = 12_000_000.0;
    println!(
        "hop, batches of 1000 rows of 130 B, {label}: {:.2} M events/s, {:.2} M events per CPU second ({:.3} us each), {} commits in {} groups, {} syncs",
        events / wall / 1e6,
        events / used / 1e6,
        used * 1e6 / events,
        after.commits - before.commits,
        after.groups - before.groups,
        after.syncs - before.syncs,
    );
    drop(log);
    std::fs::remove_dir_all(dir.join("hop")).unwrap();
}

async fn large(dir: &Path) {
    let options = EmbeddedOptions::new(dir.join("large"));
    let log = EmbeddedLog::open(options.clone()).unwrap();
    log.create_topic(spec("t", &[("n", "bigint!"), ("text", "string!")], 64, Duration::from_secs(86_400)))
        .await
        .unwrap();
    let (_m, tasks) = owner(&log, "s", 64).await;
    let batches: Vec<_> = (0..8).map(|i| kibibytes(250, i + 1)).collect();
    let (begun, used) = (Instant::now(), cpu());
    write(&log, "t", &tasks, &batches, 8_000).await;
    let (wall, used) = (begun.elapsed().as_secs_f64(), (cpu() - used).as_secs_f64());
    let mib = 8_000.0 * 250.0 / 1024.0;
    println!(
        "1 KiB events, 64 partitions: {:.0} MiB/s (settling beside), {:.2} us CPU each",
        mib / wall,
        used * 1e6 / 2e6
    );
    let deadline = Instant::now();
    while log.waiting_to_settle() > 0 && deadline.elapsed() < Duration::from_secs(120) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    drop(log);
    let begun = Instant::now();
    let log = EmbeddedLog::open(options.clone()).unwrap();
    println!("opening {:.1} GiB: {:.0} ms", mib / 1024.0, begun.elapsed().as_secs_f64() * 1e3);
    let stat = millstream_log::stat(&options).unwrap();
    let topic = &stat.topics[0];
    println!(
        "settled: {} events, {:.0} bytes each on the disk, {:.2}x of their columns",
        topic.settled_events,
        topic.settled_bytes as f64 / topic.settled_events as f64,
        topic.settled_bytes as f64 / topic.column_bytes as f64,
    );
    let (begun, used) = (Instant::now(), cpu());
    let (mut rows, mut bytes) = (0, 0);
    for partition in 0..8 {
        let mut reader = log.read(&TopicPartition::new(name("t"), partition), Offset(0)).unwrap();
        while let Read::Batch(batch) = reader.next().await.unwrap() {
            rows += batch.rows.num_rows();
            bytes += batch.rows.get_array_memory_size();
        }
    }
    let (wall, used) = (begun.elapsed().as_secs_f64(), (cpu() - used).as_secs_f64());
    println!(
        "catching up from settled files: {:.0} MiB/s, {rows} events, {:.2} us CPU each",
        bytes as f64 / wall / f64::from(1 << 20),
        used * 1e6 / rows as f64,
    );
    drop(log);
    std::fs::remove_dir_all(dir.join("large")).unwrap();
}

async fn latency(dir: &Path) {
    let log = EmbeddedLog::open(EmbeddedOptions::new(dir.join("latency"))).unwrap();
    log.create_topic(spec("t", &CARDS, 1, Duration::from_secs(86_400))).await.unwrap();
    let (_m, tasks) = owner(&log, "s", 1).await;
    let batches = [cards(1, 1)];
    tokio::time::sleep(Duration::from_millis(300)).await;
    let mut times: Vec<u128> = Vec::new();
    for _ in 0..1000 {
        let begun = Instant::now();
        write(&log, "t", &tasks, &batches, 1).await;
        times.push(begun.elapsed().as_micros());
        tokio::time::sleep(Duration::from_micros(500)).await;
    }
    times.sort_unstable();
    println!("a lone commit of one event: p50 {} us, p99 {} us", times[500], times[990]);
    drop(log);
    std::fs::remove_dir_all(dir.join("latency")).unwrap();
}

fn main() {
    let given = std::env::args().skip(1).find(|arg| !arg.starts_with('-'));
    let base = tempfile::tempdir_in(given.unwrap_or_else(|| env!("CARGO_TARGET_TMPDIR").to_owned())).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    println!("sync mode group, {} cores", std::thread::available_parallelism().unwrap());
    disk(base.path());
    runtime.block_on(async {
        latency(base.path()).await;
        hop(base.path(), Duration::from_secs(86_400), "settled").await;
        hop(base.path(), Duration::ZERO, "gone once read").await;
        large(base.path()).await;
    });
    println!("peak memory {} MiB", peak_rss_mib());
}
