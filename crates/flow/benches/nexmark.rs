//! Queries of the Nexmark benchmark in memory, in events per second of CPU time:
//! `cargo bench -p millstream-flow --bench nexmark -- [q5 …] [--events N]`.
//!
//! The SQL is that of `examples/nexmark`. Events are made before the clock starts, in batches of 8192 of all three kinds
//! together, and counted as the benchmark does: all events, of whatever kind, that a query's topics are taken from. State
//! changes are taken out after each batch, as a service does for its changelog.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;

use arrow_array::builder::{Int64Builder, StringBuilder, TimestampMicrosecondBuilder};
use arrow_array::{ArrayRef, RecordBatch, TimestampMicrosecondArray};
use millstream_event::{Column, Name, Schema};
use millstream_flow::{Catalog, LookupSet, TimeColumn, plan_query};
use nexmark::EventGenerator;
use nexmark::config::NexmarkConfig;
use nexmark::event::Event;

const QUERIES: [&str; 12] = ["q0", "q1", "q2", "q5", "q7", "q8", "q11", "q12", "q17", "q18", "q21", "q22"];
const BATCH_EVENTS: usize = 8192;

/// The CPU time of this process so far, in nanoseconds.
fn cpu_nanos() -> u64 {
    let stat = std::fs::read_to_string("/proc/self/schedstat").unwrap_or_default();
    stat.split_whitespace().next().and_then(|n| n.parse().ok()).unwrap_or(0)
}

fn peak_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|n| n.parse::<u64>().ok()).unwrap_or(0) / 1024
}

fn name(text: &str) -> Name {
    Name::new(text).expect("a name")
}

fn schema(columns: &str) -> Schema {
    let columns = columns.split(", ").map(|c| {
        let (name, kind) = c.split_once(": ").expect("name: type");
        Column::parse(name, kind).expect("a column")
    });
    Schema::new(columns.collect()).expect("a schema")
}

const BID: &str =
    "auction: bigint!, bidder: bigint!, price: bigint!, channel: string!, url: string!, at: timestamp!, extra: string!";
const AUCTION: &str = "id: bigint!, item_name: string!, description: string!, initial_bid: bigint!, reserve: bigint!, \
                       at: timestamp!, expires: timestamp!, seller: bigint!, category: bigint!, extra: string!";
const PERSON: &str = "id: bigint!, name: string!, email_address: string!, credit_card: string!, city: string!, \
                      state: string!, at: timestamp!, extra: string!";

#[derive(Default)]
struct Table {
    ints: BTreeMap<&'static str, Int64Builder>,
    texts: BTreeMap<&'static str, StringBuilder>,
    times: BTreeMap<&'static str, TimestampMicrosecondBuilder>,
    rows: usize,
}

impl Table {
    fn int(&mut self, column: &'static str, value: usize) {
        self.ints.entry(column).or_default().append_value(i64::try_from(value).unwrap_or(i64::MAX));
    }

    fn text(&mut self, column: &'static str, value: &str) {
        self.texts.entry(column).or_default().append_value(value);
    }

    fn time(&mut self, column: &'static str, millis: u64) {
        self.times.entry(column).or_default().append_value(millis as i64 * 1000);
    }

    fn finish(mut self, schema: &Schema) -> RecordBatch {
        let stamps = TimestampMicrosecondArray::from(vec![1_767_225_600_000_000; self.rows]).with_timezone("+00:00");
        let columns = schema.columns().iter().map(|column| -> ArrayRef {
            let name = column.name.as_str();
            if let Some(ints) = self.ints.get_mut(name) {
                return Arc::new(ints.finish());
            }
            match self.texts.get_mut(name) {
                Some(texts) => Arc::new(texts.finish()),
                None => {
                    let times = self.times.get_mut(name).expect("a column of times").finish();
                    Arc::new(times.with_timezone("+00:00"))
                }
            }
        });
        let columns = columns.chain([Arc::new(stamps) as ArrayRef]).collect();
        RecordBatch::try_new(Arc::clone(schema.physical()), columns).expect("rows")
    }
}

/// Batches of each topic, and the watermark behind them.
type Fed = Vec<(Vec<(Name, RecordBatch)>, i64)>;

fn events(count: usize, catalog: &Catalog) -> Fed {
    let mut generator = EventGenerator::new(NexmarkConfig::default());
    let mut fed = Vec::new();
    let mut left = count;
    while left > 0 {
        let mut tables: BTreeMap<&str, Table> = BTreeMap::new();
        let mut last = 0;
        for event in generator.by_ref().take(BATCH_EVENTS.min(left)) {
            last = event.timestamp();
            match event {
                Event::Bid(bid) => {
                    let t = tables.entry("bid").or_default();
                    t.rows += 1;
                    t.int("auction", bid.auction);
                    t.int("bidder", bid.bidder);
                    t.int("price", bid.price);
                    t.text("channel", &bid.channel);
                    t.text("url", &bid.url);
                    t.time("at", bid.date_time);
                    t.text("extra", &bid.extra);
                }
                Event::Auction(auction) => {
                    let t = tables.entry("auction").or_default();
                    t.rows += 1;
                    t.int("id", auction.id);
                    t.text("item_name", &auction.item_name);
                    t.text("description", &auction.description);
                    t.int("initial_bid", auction.initial_bid);
                    t.int("reserve", auction.reserve);
                    t.time("at", auction.date_time);
                    t.time("expires", auction.expires);
                    t.int("seller", auction.seller);
                    t.int("category", auction.category);
                    t.text("extra", &auction.extra);
                }
                Event::Person(person) => {
                    let t = tables.entry("person").or_default();
                    t.rows += 1;
                    t.int("id", person.id);
                    t.text("name", &person.name);
                    t.text("email_address", &person.email_address);
                    t.text("credit_card", &person.credit_card);
                    t.text("city", &person.city);
                    t.text("state", &person.state);
                    t.time("at", person.date_time);
                    t.text("extra", &person.extra);
                }
            }
        }
        left -= BATCH_EVENTS.min(left);
        let topics = tables.into_iter().map(|(topic, table)| {
            let topic = name(topic);
            let schema = catalog.topics.get(&topic).expect("declared");
            let rows = table.finish(schema);
            (topic, rows)
        });
        fed.push((topics.collect(), last as i64 * 1000));
    }
    fed
}

fn catalog() -> Catalog {
    let mut catalog = Catalog { updating: true, ..Catalog::default() };
    for (topic, columns) in [("bid", BID), ("bid_by_bidder", BID), ("auction", AUCTION), ("person", PERSON)] {
        catalog.topics.insert(name(topic), schema(columns));
        catalog.event_times.insert(name(topic), TimeColumn { name: "at".to_owned(), plus_us: 0 });
    }
    catalog
}

#[expect(clippy::print_stdout, reason = "the benchmark's result")]
fn main() {
    let args: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    let count =
        args.iter().position(|a| a == "--events").and_then(|i| args.get(i + 1)?.parse().ok()).unwrap_or(2_000_000);
    let wanted: Vec<&str> = QUERIES.into_iter().filter(|q| args.iter().any(|a| a == q)).collect();
    let catalog = catalog();
    let fed = events(count, &catalog);
    let lookups = LookupSet::default();
    println!("{count} events in memory: {} MiB", peak_mib());
    for query in if wanted.is_empty() { QUERIES.to_vec() } else { wanted } {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../../examples/nexmark/sql/{query}.sql"));
        let sql = std::fs::read_to_string(&path).expect("the example's SQL").replace("bid_by_bidder", "bid");
        let planned = match plan_query(&sql, &catalog) {
            Ok(planned) => Arc::new(planned),
            Err(errors) => {
                println!(
                    "{query:4} refused: {}",
                    errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
                );
                continue;
            }
        };
        let (mut out, mut changed) = (0, 0);
        let start = cpu_nanos();
        if planned.is_stateful() {
            let mut running = planned.open().expect("it opens");
            for (topics, watermark) in &fed {
                for (topic, rows) in topics.iter().filter(|(topic, _)| planned.inputs().contains(topic)) {
                    let step = running.push(topic, rows, &lookups).expect("it runs");
                    out += step.rows.iter().map(RecordBatch::num_rows).sum::<usize>();
                }
                loop {
                    let step = running.advance(*watermark, &lookups).expect("it runs");
                    out += step.rows.iter().map(RecordBatch::num_rows).sum::<usize>();
                    changed += running.changes().map_or(0, |changes| black_box(changes).len());
                    if !step.more {
                        break;
                    }
                }
            }
        } else {
            for (topics, _) in &fed {
                for (_, rows) in topics.iter().filter(|(topic, _)| planned.inputs().contains(topic)) {
                    out += black_box(planned.run(rows, &lookups)).rows.num_rows();
                }
            }
        }
        let seconds = (cpu_nanos() - start) as f64 / 1e9;
        let rate = count as f64 / seconds;
        println!(
            "{query:4} {rate:12.0} events/CPU s  {:8.1} ns/event  {out:9} rows out  {changed:9} changes  {} MiB",
            1e9 * seconds / count as f64,
            peak_mib()
        );
    }
}
