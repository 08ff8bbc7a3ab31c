//! The tables of the workload. Each task overwrites and removes keys of its own, with promises of time, so that what must
//! be left is a fold of its steps: each key's newest row, at the offset that was acknowledged, and the task's last promise.

use std::collections::BTreeMap;
use std::sync::Arc;

use millstream_event::{Mark, Offset, PartitionId, Watermark};
use millstream_log::conformance::kit::*;
use millstream_log::vfs::sim::Rng;
use millstream_log::{Append, Error, Log, Read, Reader};

/// The partitions of tables that the workload writes. Tombstones of `t` may go at once; those of `u` stay, because
/// somebody has not read them.
pub(crate) const TABLES: [(&str, u32); 2] = [("t", 0), ("u", 0)];

/// How many keys a task has in a partition.
const KEYS: u64 = 24;
/// Between the keys of two tasks.
const TASK: i64 = 1_000_000;

/// Rows by key: each one's offset and text.
pub(crate) type Rows = BTreeMap<i64, (u64, String)>;

/// What a step does to one partition.
struct Changes {
    rows: Vec<(i64, Option<String>)>,
    watermark: Option<i64>,
}

/// `None` where the step leaves the partition out.
fn changes_in(seed: u64, task: u32, step: u64, place: usize) -> Option<Changes> {
    let mut rng = Rng::new(seed ^ (u64::from(task) << 40) ^ (step << 8) ^ (0x80 | place as u64));
    let count = match rng.below(10) {
        0..=4 => 0,
        5 => 20 + rng.below(30),
        _ => 1 + rng.below(8),
    };
    let text = |rng: &mut Rng| {
        let words = 1 + rng.below(4);
        (!rng.chance(20)).then(|| (0..words).map(|_| format!("{:016x}", rng.next_u64())).collect::<String>())
    };
    let rows: Vec<_> = (0..count).map(|_| (i64::from(task) * TASK + rng.below(KEYS) as i64, text(&mut rng))).collect();
    let watermark = rng.chance(40).then_some(step as i64 * 10 + 1);
    (count > 0 || watermark.is_some()).then_some(Changes { rows, watermark })
}

/// Makes the tables.
pub(crate) async fn make(log: &Arc<dyn Log>) -> Result<(), Error> {
    log.create_topic(table("t", &[])).await?;
    log.create_topic(table("u", &["reader"])).await.map(drop)
}

/// What a step appends to tables, in their order.
pub(crate) fn appends_of(seed: u64, task: u32, step: u64) -> Vec<Append> {
    let of = |(place, (topic, partition)): (usize, &(&str, u32))| {
        let step = changes_in(seed, task, step, place)?;
        let watermark = step.watermark.map(Watermark);
        Some(Append { partition: PartitionId(*partition), watermark, ..changes(topic, &step.rows) })
    };
    TABLES.iter().enumerate().filter_map(of).collect()
}

/// Where acknowledged rows are: the first offset, by task, step and place.
#[derive(Debug, Default)]
pub(crate) struct Acknowledged(BTreeMap<(u32, u64, usize), u64>);

impl Acknowledged {
    /// Takes in the offsets of a step's appends, of which those to tables are the last.
    pub(crate) fn note(&mut self, seed: u64, task: u32, step: u64, offsets: &[Option<Offset>]) {
        let places = (0..TABLES.len()).filter(|place| changes_in(seed, task, step, *place).is_some());
        let places: Vec<usize> = places.collect();
        for (place, base) in places.iter().rev().zip(offsets.iter().rev()) {
            self.0.extend(base.map(|base| ((task, step, *place), base.0)));
        }
    }
}

/// A reader that goes on while its table is compacted.
pub(crate) struct Tail {
    reader: Box<dyn Reader>,
    rows: Rows,
    marks: BTreeMap<u32, i64>,
}

impl Tail {
    pub(crate) fn begin(log: &Arc<dyn Log>, place: usize) -> Result<Self, Error> {
        let (topic, partition) = TABLES[place];
        let reader = log.read(&at(topic, partition), Offset(0))?;
        Ok(Self { reader, rows: Rows::new(), marks: BTreeMap::new() })
    }

    /// Reads to the end.
    pub(crate) async fn go_on(&mut self) -> Result<(), Error> {
        let mut before = None;
        while let Read::Batch(batch) = self.reader.next().await? {
            for (offset, key, text) in changes_of(&batch) {
                assert!(before < Some(offset), "offsets grow");
                before = Some(offset);
                match text {
                    Some(text) => drop(self.rows.insert(key, (offset, text))),
                    None => drop(self.rows.remove(&key)),
                }
            }
            self.marks.extend(batch.marks.iter().map(by_task));
        }
        Ok(())
    }

    /// Compares what it has seen with what one sees that begins now.
    pub(crate) async fn agrees_with_a_fresh_one(&mut self, log: &Arc<dyn Log>, place: usize) -> Result<(), Error> {
        self.go_on().await?;
        let mut fresh = Self::begin(log, place)?;
        fresh.go_on().await?;
        assert_eq!((&self.rows, &self.marks), (&fresh.rows, &fresh.marks), "{:?}: two readers differ", TABLES[place]);
        Ok(())
    }
}

fn by_task(mark: &Mark) -> (u32, i64) {
    (mark.producer.partition.0, mark.watermark.0)
}

/// What a table's partition holds.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Table {
    pub(crate) rows: Rows,
    /// Each task's last promise, for a reader from the start and for one from the end.
    marks: BTreeMap<u32, i64>,
    marks_at_end: BTreeMap<u32, i64>,
}

/// Reads the tables.
pub(crate) async fn find(log: &Arc<dyn Log>) -> Result<Vec<Table>, Error> {
    let mut tables = Vec::new();
    for (place, (topic, partition)) in TABLES.into_iter().enumerate() {
        if log.topic(&name(topic)).is_none() {
            tables.push(Table::default());
            continue;
        }
        let mut all = Tail::begin(log, place)?;
        all.go_on().await?;
        let end = log.end(&at(topic, partition)).await?;
        let mut last =
            Tail { reader: log.read(&at(topic, partition), end)?, rows: Rows::new(), marks: BTreeMap::new() };
        last.go_on().await?;
        tables.push(Table { rows: all.rows, marks: all.marks, marks_at_end: last.marks });
    }
    Ok(tables)
}

/// What a task has left in a partition.
struct Left {
    /// By key: the step, the row in it, and the text.
    rows: BTreeMap<i64, (u64, u64, String)>,
    promise: Option<i64>,
}

/// What a task at a position must have left in a partition.
fn left_by(seed: u64, task: u32, position: u64, place: usize) -> Left {
    let (mut rows, mut promise) = (BTreeMap::new(), None);
    for step in 0..position {
        let Some(changes) = changes_in(seed, task, step, place) else { continue };
        for (row, (key, text)) in (0..).zip(changes.rows) {
            match text {
                Some(text) => drop(rows.insert(key, (step, row, text))),
                None => drop(rows.remove(&key)),
            }
        }
        promise = changes.watermark.or(promise);
    }
    Left { rows, promise }
}

/// Compares what tasks at these positions must have left with what is there; says what is wrong.
pub(crate) fn judge(
    seed: u64,
    acknowledged: &Acknowledged,
    positions: &BTreeMap<u32, u64>,
    tables: &[Table],
) -> Result<(), String> {
    for (place, table) in tables.iter().enumerate() {
        let mut rows = 0;
        for (task, position) in positions {
            let Left { rows: want, promise } = left_by(seed, *task, *position, place);
            let is = |what: String| format!("table {:?}: task {task} at {position}: {what}", TABLES[place]);
            rows += want.len();
            for (key, (step, row, text)) in &want {
                let Some((offset, found)) = table.rows.get(key) else {
                    return Err(is(format!("key {key} of step {step} is gone")));
                };
                if found != text {
                    return Err(is(format!("key {key} of step {step} is `{found}` instead of `{text}`")));
                }
                let base = acknowledged.0.get(&(*task, *step, place));
                if base.is_some_and(|base| base + row != *offset) {
                    return Err(is(format!("key {key} was acknowledged at {base:?} + {row} and is at {offset}")));
                }
            }
            for (from, marks) in [("the start", &table.marks), ("the end", &table.marks_at_end)] {
                if marks.get(task) != promise.as_ref() {
                    return Err(is(format!("promised {promise:?}, but {:?} from {from}", marks.get(task))));
                }
            }
        }
        if rows != table.rows.len() {
            return Err(format!("table {:?}: {} rows are there, not {rows}", TABLES[place], table.rows.len()));
        }
    }
    Ok(())
}
