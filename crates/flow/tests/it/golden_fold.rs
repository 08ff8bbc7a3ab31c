//! Golden tests of folds: as [`crate::golden_state`], with a fold in each case.
//!
//! A fold is a line for each part: `key COLUMN …`, `state NAME: TYPE = VALUE`, then cases: `when CONDITION` (or `always`),
//! `set COLUMN = VALUE`, `emit COLUMN = VALUE; …`, `forget`. `otherwise drop`, `otherwise dead_letter`, or `otherwise` and
//! what is done. `timer COLUMN` and its cases end it.
//!
//! Each case runs at once, event by event, with a restart from its changes after every 1, 2 and 3 events, and on 2 and 5
//! partitions. All agree, but for the order of different keys across partitions and where there is a timer.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use arrow_array::{Array, RecordBatch};
use millstream_event::Name;
use millstream_event::json::{Decimals, Encoder};
use millstream_flow::{
    Fold, FoldAction, FoldCase, FoldError, FoldOtherwise, FoldSpec, FoldTimer, Folding, LookupSet, Step, plan_fold,
};

use crate::golden::{blocks, hold, show};
use crate::golden_state::{Event, World, runs};

#[test]
fn every_golden_file_of_folds_holds() {
    hold("tests/golden_fold", &mut rerun);
}

fn rerun(text: &str) -> String {
    let mut world = World::default();
    let mut out = String::new();
    for block in blocks(text) {
        let (head, body) = block.split_once('\n').unwrap_or((block, ""));
        let words: Vec<&str> = head.split_whitespace().collect();
        match words.as_slice() {
            ["@topic", name, spec @ ..] => world.declare(name, spec, body),
            ["@feed", ..] => world.feed(body),
            ["@case", ..] => {
                out.push_str(block.trim_end());
                write!(out, "\n@expect\n{}\n", outcome(&world, head, &read(body))).unwrap();
                continue;
            }
            ["@expect"] => continue,
            _ => {}
        }
        out.push_str(block);
    }
    out
}

/// Where the lines of a fold go.
enum At {
    Cases,
    Otherwise,
    Timer,
}

fn read(body: &str) -> FoldSpec {
    let mut spec = FoldSpec::default();
    let mut at = At::Cases;
    let pair = |text: &str| {
        let (name, value) = text.split_once(" = ").expect("NAME = VALUE");
        (name.trim().to_owned(), value.trim().to_owned())
    };
    for line in body.lines().map(str::trim).filter(|l| !l.is_empty()) {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        let timer = spec.timer.get_or_insert_default();
        let cases = if matches!(at, At::Timer) { &mut timer.cases } else { &mut spec.cases };
        match (word, &at) {
            ("when", _) => cases.push(FoldCase { when: Some(rest.to_owned()), ..FoldCase::default() }),
            ("always", _) => cases.push(FoldCase::default()),
            ("key", _) => spec.key = rest.split_whitespace().map(str::to_owned).collect(),
            ("state", _) => {
                let (name, text) = rest.split_once(": ").unwrap();
                spec.state.push((name.to_owned(), text.to_owned()));
            }
            ("otherwise", _) => {
                at = At::Otherwise;
                spec.otherwise = match rest {
                    "drop" => FoldOtherwise::Drop,
                    "dead_letter" => FoldOtherwise::DeadLetter,
                    _ => FoldOtherwise::Do(FoldAction::default()),
                };
            }
            ("timer", _) => {
                at = At::Timer;
                timer.column = rest.to_owned();
            }
            (word, at) => {
                let action = match (at, &mut spec.otherwise) {
                    (At::Otherwise, FoldOtherwise::Do(action)) => action,
                    _ => &mut cases.last_mut().expect("a case").action,
                };
                match word {
                    "set" => action.set.push(pair(rest)),
                    "emit" => action.emit.push(rest.split("; ").map(pair).collect()),
                    "forget" => action.forget = true,
                    other => panic!("{other}"),
                }
            }
        }
    }
    spec.timer = spec.timer.filter(|timer: &FoldTimer| !timer.column.is_empty());
    spec
}

fn outcome(world: &World, head: &str, spec: &FoldSpec) -> String {
    let input = world.events.first().map(|e| e.topic.clone());
    let input = input.unwrap_or_else(|| world.catalog.topics.keys().next().unwrap().clone());
    let fold = match plan_fold(spec, std::slice::from_ref(&input), &world.catalog) {
        Ok(fold) => Arc::new(fold),
        Err(errors) => {
            let one = |FoldError { place, error }: &FoldError| format!("{place}: {}", show(error));
            return errors.iter().map(one).collect();
        }
    };
    let all: Vec<&Event> = world.events.iter().collect();
    let whole = run(&fold, &runs(&all), usize::MAX);
    let compared = |mut lines: Vec<String>, sorted: bool| {
        if sorted {
            lines.sort();
        }
        lines
    };
    for every in [usize::MAX, 1, 2, 3] {
        let single: Vec<Event> = all.iter().map(|e| e.one()).collect();
        let one = compared(run(&fold, &single, every), fold.is_timed());
        assert_eq!(one, compared(whole.clone(), fold.is_timed()), "{head}: event by event, restarted after {every}");
    }
    let keys: BTreeMap<Name, Vec<String>> = [(input.clone(), fold.key(&input).unwrap().to_vec())].into();
    let nulls = all
        .iter()
        .any(|e| fold.key(&input).unwrap().iter().any(|k| e.rows.column_by_name(k).unwrap().null_count() > 0));
    for partitions in [2, 5].into_iter().filter(|_| !nulls) {
        let parts = world.parts(&all, &keys, partitions);
        let lines = parts.iter().flat_map(|part| run(&fold, part, 2)).collect();
        assert_eq!(compared(lines, true), compared(whole.clone(), true), "{head}: on {partitions} partitions");
    }
    let lines: String = whole.iter().map(|line| format!("{line}\n")).collect();
    format!("{}\n{lines}", fold.schema())
}

type Kept = BTreeMap<Vec<u8>, Vec<u8>>;

fn keep(folding: &mut Folding, kept: &mut Kept) {
    for (key, value) in folding.changes().iter().flat_map(|changes| changes.iter()) {
        match value {
            Some(value) => drop(kept.insert(key.to_vec(), value.to_vec())),
            None => drop(kept.remove(key)),
        }
    }
}

fn reopened(fold: &Arc<Fold>, kept: &Kept) -> Folding {
    let mut folding = fold.open().unwrap();
    kept.iter().for_each(|(key, value)| folding.restore(key, Some(value)).unwrap());
    folding
}

/// Runs the fold on events; after every so many it is opened again from its changes.
fn run(fold: &Arc<Fold>, events: &[Event], every: usize) -> Vec<String> {
    let lookups = LookupSet::default();
    let mut lines = Vec::new();
    let mut folding = fold.open().unwrap();
    let mut kept = Kept::new();
    for (at, event) in events.iter().enumerate() {
        take(fold, folding.push(&event.topic, &event.rows, &lookups).unwrap(), Some(&event.rows), &mut lines);
        take(fold, folding.advance(event.watermark, &lookups).unwrap(), None, &mut lines);
        keep(&mut folding, &mut kept);
        if (at + 1) % every == 0 {
            folding = reopened(fold, &kept);
        }
    }
    take(fold, folding.advance(i64::MAX, &lookups).unwrap(), None, &mut lines);
    // The end is concluded once, whoever goes on from there.
    keep(&mut folding, &mut kept);
    for again in [&mut folding, &mut reopened(fold, &kept)] {
        let step = again.advance(i64::MAX, &lookups).unwrap();
        assert!(step.rows.is_empty() && step.derived.is_empty());
    }
    // Rows as they come, then notes; of these each push tells one kind after the other.
    let (rows, mut notes): (Vec<String>, Vec<String>) = lines.into_iter().partition(|line| line.starts_with('{'));
    notes.sort();
    rows.into_iter().chain(notes).collect()
}

fn take(fold: &Fold, step: Step, rows: Option<&RecordBatch>, lines: &mut Vec<String>) {
    let mut text = Vec::new();
    let encoder = Encoder::new(fold.schema(), Decimals::Numbers);
    step.rows.iter().for_each(|rows| encoder.encode(rows, &mut text).unwrap());
    lines.extend(String::from_utf8(text).unwrap().lines().map(str::to_owned));
    let texts = |row: u32| {
        let rows = rows.expect("rows were pushed");
        let cells = rows.columns().iter().take(rows.num_columns() - 1);
        let cells = cells.map(|c| arrow_cast::display::array_value_to_string(c, row as usize).unwrap());
        cells.collect::<Vec<_>>().join(" ")
    };
    lines.extend(step.failed.iter().map(|f| format!("failed {}: {} {}", texts(f.row), f.code, f.reason)));
    lines.extend(step.late.iter().map(|row| format!("late {}", texts(*row))));
    lines.extend(step.unmatched.iter().map(|row| format!("left out {}", texts(*row))));
    lines.extend(step.derived.iter().map(|d| format!("derived {}: {} {}", d.row, d.code, d.reason)));
}
