//! Which rows must come together: topics that are joined must be parted by columns that correspond.

use std::collections::{BTreeMap, BTreeSet};

use millstream_event::{Name, Schema};

use millstream_event::ColumnType;

use crate::error::SqlError;
use crate::lower::{Lowering, Result, Trace};
use crate::stream::{STAGES_MAX, Source, Stage};

/// What joins have said about the topics of a query.
#[derive(Debug, Default)]
pub(crate) struct Meet {
    /// Columns of topics that are equal in rows that meet.
    equal: Vec<(Trace, Trace)>,
    /// Topics whose rows meet.
    topics: Vec<BTreeSet<usize>>,
}

/// A column of a topic, and the column of the output that it is.
pub(crate) type Carried = (String, String);

impl Lowering<'_> {
    /// The event times of the topics that have one. A date says too little for steps that need the time.
    pub(crate) fn times(&self) -> Vec<Trace> {
        let time = |(table, name): (usize, &millstream_event::Name)| {
            let column = self.catalog.event_times.get(name)?;
            let (place, column) = self.catalog.topics.get(name)?.column(&column.name)?;
            (column.kind == ColumnType::Timestamp).then_some(())?;
            Some(Trace::Column { table: Some(table), place })
        };
        self.topics.iter().enumerate().filter_map(time).collect()
    }

    /// What is added to a column that is a time to get the event time, in microseconds.
    pub(super) fn shift(&self, trace: Option<Trace>) -> i64 {
        match trace {
            // The last moment of a window is a microsecond before its end.
            Some(Trace::WindowEnd) => -1,
            Some(Trace::Column { table: Some(table), .. }) => {
                let time = self.topics.get(table).and_then(|name| self.catalog.event_times.get(name));
                time.map_or(0, |time| time.plus_us)
            }
            _ => 0,
        }
    }

    /// Adds a step with state. One that is there already is not made twice: a query often says the same of its input more
    /// than once.
    pub(crate) fn add_stage(&mut self, stage: Stage) -> Result<Source> {
        let text = format!("{stage:?}");
        if let Some(at) = self.stages.iter().position(|known| format!("{known:?}") == text) {
            return Ok(Source::Stage(at));
        }
        if self.stages.len() >= STAGES_MAX {
            let message = format!("the query has more than {STAGES_MAX} steps with state");
            return Err(SqlError::new("sql-too-long", message).help("part it into several services"));
        }
        self.stages.push(stage);
        Ok(Source::Stage(self.stages.len() - 1))
    }

    /// From now on the two are equal in the rows that go on.
    pub(crate) fn equate(&mut self, one: Option<Trace>, another: Option<Trace>) {
        if let (Some(one), Some(another)) = (one, another)
            && one != another
        {
            self.meet.equal.push((one, another));
        }
    }

    /// Rows of these topics meet.
    pub(super) fn together(&mut self, topics: &[usize]) {
        let mut all: BTreeSet<usize> = topics.iter().copied().collect();
        self.meet.topics.retain(|known| {
            let apart = known.is_disjoint(&all);
            if !apart {
                all.extend(known);
            }
            apart
        });
        self.meet.topics.push(all);
    }

    /// The traces, and behind each those that are equal to it.
    pub(super) fn alike(&self, traces: &[Option<Trace>]) -> Vec<Option<Trace>> {
        let classes = traces.iter().flatten().flat_map(|trace| self.class(*trace));
        let mut all: Vec<Option<Trace>> = Vec::new();
        for trace in classes {
            if !all.contains(&Some(trace)) {
                all.push(Some(trace));
            }
        }
        all
    }

    fn class(&self, trace: Trace) -> Vec<Trace> {
        let mut class = vec![trace];
        let mut at = 0;
        while let Some(one) = class.get(at).copied() {
            at += 1;
            for (a, b) in &self.meet.equal {
                let next = if *a == one {
                    *b
                } else if *b == one {
                    *a
                } else {
                    continue;
                };
                if !class.contains(&next) {
                    class.push(next);
                }
            }
        }
        class
    }

    /// Of the columns by which topics must be parted, where several meet, those that all of them have.
    pub(crate) fn settle_keys(&mut self) {
        for topics in self.meet.topics.clone() {
            if topics.len() < 2 {
                continue;
            }
            let Some(first) = topics.first().copied() else { continue };
            let rows: Vec<Vec<Trace>> = self.key_traces(first).into_iter().map(|trace| self.class(trace)).collect();
            let of = |lowering: &Self, table: usize| -> Vec<Option<Trace>> {
                let own = lowering.key_traces(table);
                rows.iter().map(|class| class.iter().find(|trace| own.contains(trace)).copied()).collect()
            };
            let columns: Vec<Vec<Option<Trace>>> = topics.iter().map(|table| of(self, *table)).collect();
            let whole = |at: usize| columns.iter().all(|own| own.get(at).is_some_and(Option::is_some));
            let standing: Vec<usize> = (0..rows.len()).filter(|at| whole(*at)).collect();
            for (table, own) in topics.iter().zip(&columns) {
                let kept = standing.iter().filter_map(|at| self.column_name(own.get(*at).copied().flatten()));
                let kept = kept.collect();
                if let Some(name) = self.topics.get(*table).cloned() {
                    self.keys.insert(name, kept);
                }
            }
        }
    }

    /// For each topic, which of its columns is which column of the output in every row that comes of the topic: unchanged,
    /// or equal to it by a join, or in its place in a UNION.
    pub(crate) fn carried(&self, lineage: &[Option<Trace>], output: &Schema) -> BTreeMap<Name, BTreeSet<Carried>> {
        let mut carried: BTreeMap<Name, BTreeSet<Carried>> = BTreeMap::new();
        for (table, name) in self.topics.iter().enumerate() {
            let columns = self.catalog.topics.get(name).map_or(&[][..], Schema::columns);
            for (place, column) in columns.iter().enumerate() {
                let own = Trace::Column { table: Some(table), place };
                let class = self.certain(own);
                let outputs = lineage.iter().zip(output.columns());
                let outputs = outputs.filter(|(trace, _)| trace.is_some_and(|trace| class.contains(&trace)));
                let pairs = outputs.map(|(_, made)| (column.name.clone(), made.name.clone()));
                carried.entry(name.clone()).or_default().extend(pairs);
            }
        }
        carried
    }

    /// What is equal to a column in each row. A topic that is joined with itself by two columns is there twice, and the
    /// traces do not tell which of the two a column is of: then it is equal to itself alone.
    fn certain(&self, own: Trace) -> Vec<Trace> {
        let class = self.class(own);
        let table = |trace: &Trace| match trace {
            Trace::Column { table, .. } => *table,
            Trace::WindowStart | Trace::WindowEnd => None,
        };
        let tables: BTreeSet<Option<usize>> = class.iter().map(table).collect();
        if tables.len() == class.len() { class } else { vec![own] }
    }

    fn key_traces(&self, table: usize) -> Vec<Trace> {
        let Some(name) = self.topics.get(table) else { return Vec::new() };
        let place = |column: &String| self.catalog.topics.get(name)?.column(column).map(|(place, _)| place);
        let places = self.keys.get(name).into_iter().flatten().filter_map(place);
        places.map(|place| Trace::Column { table: Some(table), place }).collect()
    }

    fn column_name(&self, trace: Option<Trace>) -> Option<String> {
        let Some(Trace::Column { table: Some(table), place }) = trace else { return None };
        let schema = self.catalog.topics.get(self.topics.get(table)?)?;
        schema.columns().get(place).map(|column| column.name.clone())
    }
}
