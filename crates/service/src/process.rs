//! What a service does with a piece of work: check, then query, then place. Pure: no I/O, no clock.
//!
//! An event that fails anywhere fails as a whole: none of the rows derived from it goes out, so that replaying its dead
//! letter makes each of them exactly once.

mod with_state;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow_array::builder::{ListBuilder, StringBuilder};
use arrow_array::{ArrayRef, BooleanArray, RecordBatch, RecordBatchOptions, UInt32Array};
use arrow_select::take::take_record_batch;
use millstream_event::json::{Decimals, Encoder};
use millstream_event::{Name, PartitionId, Partitioner, Schema};
use millstream_flow::{LookupSet, Origin as Lineage, Processed};
use millstream_log::{TopicInfo, TopicSpec};

use crate::def::{Check, Else, Output, ServiceDef, Work, tagged};
use crate::letters::Letter;
use crate::meters::Tally;
use crate::piece::Piece;
use crate::placing::{Outlet, Placed, filter, keeps_place, unchanged};

/// A service's definition, prepared for one partition of its inputs.
pub(crate) struct Plan {
    def: Arc<ServiceDef>,
    /// The inputs, in the order of the definition.
    sides: Vec<Side>,
    /// The columns behind the check.
    checked: Schema,
    /// The output topics: one, or the route's targets in its order.
    outlets: Vec<Outlet>,
    /// Where events that break a rule go, with `else: <topic>`.
    aside: Option<Outlet>,
    /// Writes rows of the output.
    made: Encoder,
}

/// What is known of an input.
struct Side {
    schema: Schema,
    encoder: Encoder,
    key: Option<Partitioner>,
}

/// What a piece became.
#[derive(Default)]
pub(crate) struct Staged {
    pub(crate) appends: Vec<(Name, u32, PartitionId, RecordBatch)>,
    pub(crate) letters: Vec<Letter>,
    pub(crate) tally: Tally,
}

/// A fault in the machinery (not in an event): the definition does not fit the data.
pub(crate) type Broken = String;

/// Rows on their way into a topic, and which rows of the piece they come from.
type Part<'a> = (&'a Outlet, (Placed, Map));

/// Which row of the piece a row under work comes from.
#[derive(Clone)]
enum Map {
    Same,
    Rows(Vec<u32>),
}

impl Map {
    fn of(&self, row: u32) -> u32 {
        match self {
            Self::Same => row,
            Self::Rows(rows) => rows.get(row as usize).copied().unwrap_or(row),
        }
    }

    fn then(&self, lineage: &Lineage) -> Self {
        match (self, lineage) {
            (_, Lineage::Identity(_)) => self.clone(),
            (Self::Same, Lineage::Rows(rows)) => Self::Rows(rows.values().to_vec()),
            (Self::Rows(_), Lineage::Rows(rows)) => Self::Rows(rows.values().iter().map(|r| self.of(*r)).collect()),
        }
    }
}

/// Rows on their way, and the events that have failed so far.
struct Way {
    rows: RecordBatch,
    map: Map,
    /// Rows of the piece that the route left out, one entry for each row made of them.
    dropped: Vec<u32>,
    failed: BTreeMap<u32, Failure>,
}

struct Failure {
    code: String,
    reason: String,
    rules: Vec<String>,
}

impl Plan {
    /// Prepares a definition; `inputs` have the columns that it was planned for; `topic` finds a topic.
    pub(crate) fn new(
        def: Arc<ServiceDef>,
        inputs: &[TopicInfo],
        topic: &dyn Fn(&Name) -> Option<TopicInfo>,
    ) -> Result<Self, Broken> {
        // What passes through a query or fold does so from its first topic.
        let first = def.stateful().and_then(|work| work.inputs().first());
        let known_as = |info: &TopicInfo| def.aliases.get(&info.spec.name).cloned().unwrap_or(info.spec.name.clone());
        let lead = inputs.iter().find(|info| first.is_some_and(|first| known_as(info) == *first));
        let lead = lead.or(inputs.first()).ok_or("it has no input")?;
        let schema = lead.spec.schema.clone();
        let tags = def.check.as_ref().is_some_and(|c| c.otherwise == Else::Tag);
        let checked = if tags { tagged(&schema).map_err(|e| e.to_string())? } else { schema.clone() };
        let made = match &def.work {
            Work::None => checked.clone(),
            Work::Query(query) => query.schema().clone(),
            Work::Fold(fold) => fold.schema().clone(),
            Work::Processor(processor) => processor.schema().clone(),
        };
        let carries = |topic: &Name, input: &str, output: &str| match &def.work {
            Work::None => unchanged(topic, input, output),
            Work::Query(query) => query.carries(topic, input, output),
            Work::Fold(fold) => fold.carries(topic, input, output),
            Work::Processor(_) => false,
        };
        let specs: Vec<(Name, &TopicSpec)> = inputs.iter().map(|info| (known_as(info), &info.spec)).collect();
        let find = |name: &Name| topic(name).ok_or_else(|| format!("there is no topic `{name}`"));
        let outlet = |name: &Name| -> Result<Outlet, Broken> {
            let info = find(name)?;
            let kept = keeps_place(&specs, &info.spec, &carries);
            let outlet = Outlet::new(info, &made, kept)?;
            Ok(if def.repartitions() { outlet.taking_nulls() } else { outlet })
        };
        let outlets = match &def.output {
            Output::To(name) => vec![outlet(name)?],
            Output::Route(routes) => routes.targets().iter().map(outlet).collect::<Result<_, _>>()?,
        };
        let aside = match def.check.as_ref().map(|c| &c.otherwise) {
            Some(Else::Topic(name)) => {
                let info = find(name)?;
                let kept = keeps_place(&specs, &info.spec, &unchanged);
                Some(Outlet::new(info, &schema, kept)?)
            }
            _ => None,
        };
        let side = |info: &TopicInfo| Side {
            schema: info.spec.schema.clone(),
            encoder: Encoder::new(&info.spec.schema, Decimals::Numbers),
            key: Partitioner::new(&info.spec.schema, &info.spec.key, 1).ok(),
        };
        let sides = inputs.iter().map(side).collect();
        Ok(Self { def, sides, checked, outlets, aside, made: Encoder::new(&made, Decimals::Numbers) })
    }

    /// The columns that pieces of an input must have, by its number.
    pub(crate) fn schema(&self, input: usize) -> Option<&Schema> {
        self.sides.get(input).map(|side| &side.schema)
    }

    /// The ways into the topics that it writes, with the one aside.
    pub(crate) fn outlets(&self) -> impl Iterator<Item = &Outlet> {
        self.outlets.iter().chain(&self.aside)
    }

    /// Processes a piece from partition `from` of an input.
    pub(crate) fn process(
        &self,
        piece: &Piece,
        from: PartitionId,
        lookups: &LookupSet,
        staged: &mut Staged,
    ) -> Result<(), Broken> {
        let mut way = Way { rows: piece.rows.clone(), map: Map::Same, dropped: Vec::new(), failed: BTreeMap::new() };
        let mut aside = None;
        if let Some(check) = &self.def.check {
            aside = self.check(check, &mut way, staged)?;
        }
        self.work(&mut way, lookups, staged);
        let mut parts = self.place(&mut way, from)?;
        if let (Some(outlet), Some((rows, map))) = (&self.aside, aside) {
            let placed = put(outlet, &rows, None, from, &map, &mut way.failed)?;
            parts.extend(placed.into_iter().map(|placed| (outlet, placed)));
        }
        stage(parts, &way, staged)?;
        for (row, failure) in way.failed {
            staged.letters.push(self.letter(piece, row as usize, failure));
        }
        Ok(())
    }

    /// Leaves the rows that pass on their way. The others: failed, counted, tagged, or given back to be put aside.
    fn check(&self, check: &Check, way: &mut Way, staged: &mut Staged) -> Result<Option<(RecordBatch, Map)>, Broken> {
        let verdicts = check.rules.run(&way.rows);
        let clean = verdicts.pass.true_count() == way.rows.num_rows();
        if clean && check.otherwise != Else::Tag {
            return Ok(None);
        }
        for failed in verdicts.failed {
            let failure = Failure { code: failed.code.to_owned(), reason: failed.reason, rules: Vec::new() };
            way.failed.insert(failed.row, failure);
        }
        let names: Vec<&str> = check.rules.names().collect();
        let named = |rules: &[u16]| -> Vec<String> {
            rules.iter().filter_map(|r| names.get(usize::from(*r))).map(|name| (*name).to_owned()).collect()
        };
        let mut times = vec![0; names.len()];
        for rule in verdicts.broken.iter().flat_map(|(_, rules)| rules) {
            if let Some(n) = times.get_mut(usize::from(*rule)) {
                *n += 1;
            }
        }
        for (name, n) in names.iter().zip(times).filter(|(_, n)| *n > 0) {
            staged.tally.broken_rule(name, n);
        }
        match &check.otherwise {
            Else::Tag => {
                let keep: BooleanArray =
                    (0..way.rows.num_rows() as u32).map(|r| Some(!way.failed.contains_key(&r))).collect();
                let broken = verdicts.broken.iter().map(|(row, rules)| (*row, named(rules))).collect();
                way.rows = self.tag(&way.rows, &broken)?;
                way.keep(&keep)?;
                return Ok(None);
            }
            Else::DeadLetter => {
                for (row, rules) in &verdicts.broken {
                    let rules = named(rules);
                    let reason = format!("broke {}", rules.join(", "));
                    way.failed.insert(*row, Failure { code: "check".to_owned(), reason, rules });
                }
            }
            Else::Drop => staged.tally.dropped_by_check += verdicts.broken.len() as u64,
            Else::Topic(_) => {
                let rows: Vec<u32> = verdicts.broken.iter().map(|(row, _)| *row).collect();
                let aside = take(&way.rows, &rows)?;
                way.keep(&verdicts.pass)?;
                return Ok(Some((aside, Map::Rows(rows))));
            }
        }
        way.keep(&verdicts.pass)?;
        Ok(None)
    }

    fn tag(&self, rows: &RecordBatch, broken: &BTreeMap<u32, Vec<String>>) -> Result<RecordBatch, Broken> {
        let mut tags = ListBuilder::new(StringBuilder::new());
        for row in 0..rows.num_rows() as u32 {
            let rules = broken.get(&row);
            rules.into_iter().flatten().for_each(|rule| tags.values().append_value(rule));
            tags.append(rules.is_some());
        }
        let mut columns: Vec<ArrayRef> = rows.columns().to_vec();
        columns.insert(columns.len().saturating_sub(1), Arc::new(tags.finish()));
        RecordBatch::try_new(Arc::clone(self.checked.physical()), columns).map_err(|e| e.to_string())
    }

    fn work(&self, way: &mut Way, lookups: &LookupSet, staged: &mut Staged) {
        let processed = match &self.def.work {
            // A fold keeps state: its events are pushed.
            Work::None | Work::Fold(_) => return,
            Work::Query(query) => query.run(&way.rows, lookups),
            Work::Processor(processor) => processor.process(&way.rows),
        };
        let Processed { rows, origin, failed, dropped } = processed;
        for failed in failed {
            let failure = Failure { code: failed.code.to_owned(), reason: failed.reason, rules: Vec::new() };
            way.failed.insert(way.map.of(failed.row), failure);
        }
        staged.tally.dropped_by_lookup.extend(dropped.into_iter().filter(|(_, n)| *n > 0));
        way.map = way.map.then(&origin);
        way.rows = rows;
    }

    /// The rows by topic and partition.
    fn place(&self, way: &mut Way, from: PartitionId) -> Result<Vec<Part<'_>>, Broken> {
        let mut parts = Vec::new();
        match &self.def.output {
            Output::To(_) => {
                for outlet in &self.outlets {
                    let placed = put(outlet, &way.rows, None, from, &way.map, &mut way.failed)?;
                    parts.extend(placed.into_iter().map(|placed| (outlet, placed)));
                }
            }
            Output::Route(routes) => {
                let routed = routes.run(&way.rows);
                for failed in routed.failed {
                    let failure = Failure { code: failed.code.to_owned(), reason: failed.reason, rules: Vec::new() };
                    way.failed.insert(way.map.of(failed.row), failure);
                }
                way.dropped.extend(routed.dropped.into_iter().map(|row| way.map.of(row)));
                for (outlet, rows) in self.outlets.iter().zip(routed.rows) {
                    let placed = put(outlet, &way.rows, Some(rows), from, &way.map, &mut way.failed)?;
                    parts.extend(placed.into_iter().map(|placed| (outlet, placed)));
                }
            }
        }
        Ok(parts)
    }

    fn letter(&self, piece: &Piece, row: usize, failure: Failure) -> Letter {
        let side = self.sides.get(piece.input);
        let key = side.and_then(|s| s.key.as_ref()).and_then(|key| key.key_bytes(&piece.rows, row).ok().flatten());
        Letter {
            code: failure.code,
            reason: failure.reason,
            rules: failure.rules,
            origin: piece.origins.of(row),
            key: key.map(|key| String::from_utf8_lossy(&key).into_owned()),
            event: side.and_then(|side| side.encoder.encode_row(&piece.rows, row).ok()),
            ingested_at: piece.ingested_at(row),
            ..Letter::default()
        }
    }

    /// The letter of an event that makes the work panic.
    pub(crate) fn panic_letter(&self, piece: &Piece, reason: String) -> Letter {
        self.letter(piece, 0, Failure { code: "panic".to_owned(), reason, rules: Vec::new() })
    }
}

impl Way {
    fn keep(&mut self, keep: &BooleanArray) -> Result<(), Broken> {
        if keep.true_count() == keep.len() {
            return Ok(());
        }
        let rows = (0_u32..).zip(keep.iter()).filter(|(_, keep)| *keep == Some(true)).map(|(row, _)| row);
        self.map = Map::Rows(rows.map(|row| self.map.of(row)).collect());
        self.rows = filter(&self.rows, keep).map_err(|e| e.to_string())?;
        Ok(())
    }
}

/// Places some rows into one topic; those that cannot be placed fail their event.
fn put(
    outlet: &Outlet,
    rows: &RecordBatch,
    chosen: Option<Vec<u32>>,
    from: PartitionId,
    map: &Map,
    failed: &mut BTreeMap<u32, Failure>,
) -> Result<Vec<(Placed, Map)>, Broken> {
    let (rows, map) = match chosen {
        Some(chosen) if chosen.is_empty() => return Ok(Vec::new()),
        Some(chosen) if chosen.len() < rows.num_rows() => {
            let taken = take(rows, &chosen)?;
            (taken, Map::Rows(chosen.into_iter().map(|row| map.of(row)).collect()))
        }
        _ => (rows.clone(), map.clone()),
    };
    let placing = outlet.place(&rows, from).map_err(|e| format!("topic `{}`: {e}", outlet.info.spec.name))?;
    for (row, code, reason) in placing.refused {
        failed.insert(map.of(row), Failure { code: code.to_owned(), reason, rules: Vec::new() });
    }
    Ok(placing.placed.into_iter().map(|placed| (placed, map.clone())).collect())
}

/// Stages placed rows without those whose event has failed, and counts those that the route left out.
fn stage(parts: Vec<Part<'_>>, way: &Way, staged: &mut Staged) -> Result<(), Broken> {
    let failed: BTreeSet<u32> = way.failed.keys().copied().collect();
    for (outlet, (placed, map)) in parts {
        let rows = without(placed, &map, &failed)?;
        if rows.1.num_rows() > 0 {
            let name = &outlet.info.spec.name;
            staged.tally.out(name, rows.1.num_rows() as u64);
            staged.appends.push((name.clone(), outlet.info.schema_version, rows.0, rows.1));
        }
    }
    staged.tally.dropped_by_route += way.dropped.iter().filter(|row| !failed.contains(row)).count() as u64;
    Ok(())
}

/// Placed rows without those whose event has failed.
fn without(placed: Placed, map: &Map, failed: &BTreeSet<u32>) -> Result<(PartitionId, RecordBatch), Broken> {
    let Placed { partition, rows, indices } = placed;
    // Rows that failed before the query are not among them; the look-up is only for those that failed behind it.
    if failed.is_empty() {
        return Ok((partition, rows));
    }
    let number = |row: u32| match &indices {
        Some(indices) => indices.get(row as usize).copied().unwrap_or(row),
        None => row,
    };
    let keep: BooleanArray =
        (0..rows.num_rows() as u32).map(|row| Some(!failed.contains(&map.of(number(row))))).collect();
    if keep.true_count() == keep.len() {
        return Ok((partition, rows));
    }
    Ok((partition, filter(&rows, &keep).map_err(|e| e.to_string())?))
}

fn take(rows: &RecordBatch, chosen: &[u32]) -> Result<RecordBatch, Broken> {
    if rows.num_columns() == 0 {
        let options = RecordBatchOptions::new().with_row_count(Some(chosen.len()));
        return RecordBatch::try_new_with_options(rows.schema(), Vec::new(), &options).map_err(|e| e.to_string());
    }
    take_record_batch(rows, &UInt32Array::from(chosen.to_vec())).map_err(|e| e.to_string())
}
