//! Plans a fold: every expression against the columns it may read, every fault with its place.

use std::sync::Arc;

use arrow_array::{ArrayRef, TimestampMicrosecondArray};
use arrow_schema::DataType;
use datafusion_physical_expr::PhysicalExpr;
use datafusion_physical_expr::expressions::Column as PhysicalColumn;
use millstream_event::{Column, ColumnType, INGESTED_AT, Name, Schema};

use crate::catalog::{Catalog, TimeColumn};
use crate::error::{Span, SqlError, nearest};
use crate::expr::batch_schema;
use crate::expr::value::{Kind, Val, first};
use crate::fold::program::{Case, Program, Rest, RowExpr};
use crate::fold::scope::{Planned, Scope};
use crate::fold::spec::{FoldAction, FoldBlock, FoldCase, FoldError, FoldOtherwise, FoldPart, FoldPlace, FoldSpec};
use crate::fold::state::StatePlan;
use crate::fold::types::{common, fits, type_of};
use crate::fold::{Fold, Timer};
use crate::ops::batch_of;

/// The most columns of a state.
const STATE_COLUMNS_MAX: usize = 256;
/// The most cases of a list.
const CASES_MAX: usize = 1000;
/// The most rows that a case gives out.
const ROWS_MAX: usize = 100;

/// Plans a fold over topics of the same columns. `catalog` tells their columns and event times.
pub fn plan_fold(spec: &FoldSpec, inputs: &[Name], catalog: &Catalog) -> Result<Fold, Vec<FoldError>> {
    let mut planner = Planner { errors: Vec::new() };
    let planned = planner.fold(spec, inputs, catalog);
    match planned {
        Some(fold) if planner.errors.is_empty() => Ok(fold),
        _ => Err(planner.errors),
    }
}

struct Planner {
    errors: Vec<FoldError>,
}

/// A case whose expressions were understood, but not yet compiled: the output's types follow from all cases.
struct Draft {
    when: Option<Planned>,
    set: Vec<(usize, Planned)>,
    emit: Vec<Vec<(String, Planned)>>,
    forget: bool,
}

/// One list of cases.
struct Drafts {
    block: FoldBlock,
    cases: Vec<Draft>,
}

/// A column of the output as far as it is known.
struct Emitted {
    name: String,
    kind: Option<ColumnType>,
    nullable: bool,
}

fn fault(code: &'static str, message: impl Into<String>, help: impl Into<String>) -> SqlError {
    SqlError::new(code, message).help(help)
}

impl Planner {
    fn report(&mut self, place: FoldPlace, error: SqlError) {
        self.errors.push(FoldError { place, error });
    }

    /// The value, or its faults are told.
    fn told<T>(&mut self, place: FoldPlace, result: Result<T, Vec<SqlError>>) -> Option<T> {
        result.map_err(|errors| errors.into_iter().for_each(|error| self.report(place, error))).ok()
    }

    fn fold(&mut self, spec: &FoldSpec, inputs: &[Name], catalog: &Catalog) -> Option<Fold> {
        let lead = inputs.first();
        let Some((lead, input)) = lead.and_then(|lead| Some((lead, catalog.topics.get(lead)?))) else {
            self.report(FoldPlace::Whole, SqlError::new("sql-no-topic", "the fold reads no topic that is known"));
            return None;
        };
        for table in inputs.iter().filter(|input| catalog.tables.contains_key(*input)) {
            let message = format!("topic `{table}` is a table: its rows replace each other and are taken back");
            let help = "fold the events that the table is made of";
            self.report(FoldPlace::Whole, fault("fold-table", message, help));
        }
        let key = self.key(spec, input);
        let columns = self.state(spec)?;
        let state = StatePlan::new(columns);
        let scope = Scope::new(lead, input, &state.columns);
        let mut drafts =
            vec![Drafts { block: FoldBlock::Cases, cases: self.drafts(FoldBlock::Cases, &spec.cases, &scope, &state) }];
        if let FoldOtherwise::Do(action) = &spec.otherwise {
            let case = FoldCase { when: None, action: action.clone() };
            let cases = self.drafts(FoldBlock::Otherwise, &[case], &scope, &state);
            drafts.push(Drafts { block: FoldBlock::Otherwise, cases });
        }
        let keys = key.as_ref()?.iter().filter_map(|place| input.columns().get(*place).cloned()).collect::<Vec<_>>();
        let kinds: Vec<DataType> = keys.iter().map(|c| c.kind.to_arrow()).collect();
        let key_schema = Schema::new(keys).ok()?;
        let key_scope = Scope::new(lead, &key_schema, &state.columns);
        let mut timed = Vec::new();
        let time = spec.timer.as_ref().map(|timer| {
            let cases = self.drafts(FoldBlock::Timer, &timer.cases, &key_scope, &state);
            timed.push(Drafts { block: FoldBlock::Timer, cases });
            self.timer(&timer.column, &state, input, catalog.event_times.get(lead))
        });
        if !self.errors.is_empty() {
            return None;
        }
        let output = self.output(drafts.iter().chain(&timed))?;
        let schema = self.schema(&output)?;
        let rest = if spec.otherwise == FoldOtherwise::DeadLetter { Rest::DeadLetter } else { Rest::Drop };
        let events = self.program(drafts, &scope, input.columns().len(), &state, &output, rest)?;
        let timer = match time {
            None => None,
            Some(found) => {
                let (column, (time, plus_us)) = found?;
                let program = self.program(timed, &key_scope, kinds.len(), &state, &output, Rest::Drop)?;
                let own = program.passed(kinds.len() + column);
                let passed = events.passed(time).into_iter().find(|c| program.is_silent() || own.contains(c));
                let passed = passed.and_then(|c| schema.columns().get(c)).map(|c| c.name.clone());
                Some(Timer { column, time, plus_us, program, passed })
            }
        };
        Some(Fold {
            inputs: inputs.to_vec(),
            input: input.clone(),
            schema,
            key: spec.key.clone(),
            places: key?,
            kinds,
            state,
            events,
            timer,
            lines: lines(spec, inputs),
        })
    }

    fn key(&mut self, spec: &FoldSpec, input: &Schema) -> Option<Vec<usize>> {
        if spec.key.is_empty() {
            let help = "name the columns by which events belong together, as in `key: [sku]`";
            self.report(FoldPlace::Whole, fault("fold-key", "the fold has no key", help));
            return None;
        }
        let mut places = Vec::new();
        for (i, name) in spec.key.iter().enumerate() {
            match input.column(name) {
                Some((place, _)) if places.contains(&place) => {
                    let error = SqlError::new("fold-key", format!("the key names `{name}` twice"));
                    self.report(FoldPlace::Key(i), error);
                }
                Some((place, column)) if Kind::of(&column.kind.to_arrow()).is_some() => places.push(place),
                Some((_, column)) => {
                    let message = format!("`{name}` has the type {}, which no key can have", column.kind);
                    self.report(FoldPlace::Key(i), fault("fold-key", message, "name another column"));
                }
                None => {
                    let error = SqlError::new("sql-unknown-column", format!("there is no column `{name}`"));
                    let columns: Vec<&str> = input.columns().iter().map(|c| c.name.as_str()).collect();
                    let help = match nearest(name, columns.iter().copied()) {
                        Some(near) => format!("did you mean `{near}`?"),
                        None => format!("the columns are {}", columns.join(", ")),
                    };
                    self.report(FoldPlace::Key(i), error.help(help));
                }
            }
        }
        (places.len() == spec.key.len()).then_some(places)
    }

    fn state(&mut self, spec: &FoldSpec) -> Option<Vec<(Column, Val<'static>)>> {
        if spec.state.is_empty() || spec.state.len() > STATE_COLUMNS_MAX {
            let message =
                format!("a fold has from 1 to {STATE_COLUMNS_MAX} state columns, this one has {}", spec.state.len());
            let help = "name what is kept for each key, as in `state: {stock: bigint! = 0}`";
            self.report(FoldPlace::Whole, fault("fold-state", message, help));
            return None;
        }
        let columns = spec.state.iter().enumerate().map(|(i, (name, text))| {
            let result = state_column(name, text);
            self.told(FoldPlace::State(i), result.map_err(|e| vec![e]))
        });
        let columns: Vec<Option<(Column, Val<'static>)>> = columns.collect();
        for (i, (name, _)) in spec.state.iter().enumerate() {
            if spec.state.iter().take(i).any(|(other, _)| other == name) {
                let error = SqlError::new("fold-state", format!("two state columns are named `{name}`"));
                self.report(FoldPlace::State(i), error);
                return None;
            }
        }
        columns.into_iter().collect()
    }

    /// The timer's column and the place of the event time.
    fn timer(
        &mut self,
        column: &str,
        state: &StatePlan,
        input: &Schema,
        time: Option<&TimeColumn>,
    ) -> Option<(usize, (usize, i64))> {
        let found = state.columns.iter().position(|c| c.name == column);
        let Some(place) = found else {
            let error = SqlError::new("sql-unknown-column", format!("there is no state column `{column}`"));
            let near = nearest(column, state.columns.iter().map(|c| c.name.as_str()));
            let help = near.map_or_else(
                || format!("add it to the state, as in `{column}: timestamp`"),
                |near| format!("did you mean `{near}`?"),
            );
            self.report(FoldPlace::Timer, error.help(help));
            return None;
        };
        let fits = state.columns.get(place).is_some_and(|c| c.kind == ColumnType::Timestamp && c.nullable);
        if !fits || state.initial.get(place).is_some_and(|v| !v.is_null()) {
            let message = format!("the timer `{column}` is not a time that may be missing");
            let help = format!("write `{column}: timestamp` in the state; NULL means that no timer runs");
            self.report(FoldPlace::Timer, fault("fold-timer", message, help));
            return None;
        }
        let time = time.and_then(|time| Some((input.column(&time.name)?.0, time.plus_us)));
        if time.is_none() {
            let help = "give its topic one, as in `event_time: {column: at, max_out_of_orderness: 10s}`";
            let message = "a timer runs by event time, which the fold's input does not have";
            self.report(FoldPlace::Timer, fault("fold-event-time", message, help));
        }
        Some((place, time?))
    }

    fn drafts(&mut self, block: FoldBlock, cases: &[FoldCase], scope: &Scope, state: &StatePlan) -> Vec<Draft> {
        if (cases.is_empty() && block != FoldBlock::Otherwise) || cases.len() > CASES_MAX {
            let message = format!("a fold has from 1 to {CASES_MAX} cases, this one has {}", cases.len());
            self.report(FoldPlace::Whole, SqlError::new("fold-cases", message));
            return Vec::new();
        }
        let drafts = cases.iter().enumerate().map(|(i, case)| self.draft(block, i, case, scope, state));
        drafts.collect()
    }

    fn draft(&mut self, block: FoldBlock, at: usize, case: &FoldCase, scope: &Scope, state: &StatePlan) -> Draft {
        let place = |part| FoldPlace::Case(block, at, part);
        let when = case.when.as_ref().and_then(|when| {
            let planned = self.told(place(FoldPart::When), scope.plan(when))?;
            let kind = planned.field.data_type();
            if !matches!(kind, DataType::Boolean | DataType::Null) {
                let message = format!("a condition is true or false, this is of the type {kind}");
                self.report(place(FoldPart::When), fault("sql-condition", message, "compare it with something"));
            }
            Some(planned)
        });
        let FoldAction { set, emit, forget } = &case.action;
        let set = set.iter().enumerate().filter_map(|(i, (name, sql))| {
            let place = place(FoldPart::Set(i));
            let planned = self.told(place, scope.plan(sql));
            Some((self.target(place, name, state)?, i, planned?))
        });
        let set: Vec<(usize, usize, Planned)> = set.collect();
        for (column, i, planned) in &set {
            self.settable(place(FoldPart::Set(*i)), *column, planned, state);
        }
        if emit.len() > ROWS_MAX {
            let message = format!("a case gives out at most {ROWS_MAX} rows");
            self.report(place(FoldPart::Whole), SqlError::new("fold-emit", message));
        }
        let mut rows = Vec::with_capacity(emit.len());
        for (r, row) in emit.iter().take(ROWS_MAX).enumerate() {
            let columns = row.iter().enumerate().filter_map(|(c, (name, sql))| {
                Some((name.clone(), self.told(place(FoldPart::Column(r, c)), scope.plan(sql))?))
            });
            rows.push(columns.collect());
        }
        let set = set.into_iter().map(|(column, _, planned)| (column, planned)).collect();
        Draft { when, set, emit: rows, forget: *forget }
    }

    fn target(&mut self, place: FoldPlace, name: &str, state: &StatePlan) -> Option<usize> {
        let found = state.columns.iter().position(|c| c.name == name);
        if found.is_none() {
            let bare = name.strip_prefix("state.").unwrap_or(name);
            let near = nearest(bare, state.columns.iter().map(|c| c.name.as_str()));
            let error = SqlError::new("sql-unknown-column", format!("there is no state column `{name}`"));
            let names = || state.columns.iter().map(|c| c.name.as_str()).collect::<Vec<_>>().join(", ");
            let help = near.map_or_else(|| format!("they are {}", names()), |near| format!("did you mean `{near}`?"));
            self.report(place, error.help(help));
        }
        found
    }

    /// Whether the type of a new value fits its state column.
    fn settable(&mut self, place: FoldPlace, column: usize, planned: &Planned, state: &StatePlan) {
        let Some(column) = state.columns.get(column) else { return };
        match type_of(&planned.field) {
            Ok(Some(kind)) if !fits(&kind, &column.kind) => {
                let message = format!("`{}` is {}, and this is {kind}", column.name, column.kind);
                let help =
                    format!("cast it, as in CAST(… AS {}), or give the column the type {kind}", sql_name(&column.kind));
                self.report(place, fault("fold-type", message, help));
            }
            Ok(None) if !column.nullable => {
                let message = format!("`{}` is never null", column.name);
                let help = format!("write its type without `!`, as in `{}: {}`", column.name, column.kind);
                self.report(place, fault("fold-type", message, help));
            }
            Err(kind) => {
                let message = format!("this has the type {kind}, which no column can have");
                self.report(place, fault("sql-no-column-type", message, "cast it"));
            }
            _ => {}
        }
    }

    /// The output's columns: those of the first row, which all rows have.
    fn output<'d>(&mut self, drafts: impl Iterator<Item = &'d Drafts> + Clone) -> Option<Vec<Emitted>> {
        let rows = drafts.flat_map(|d| {
            let cases = d.cases.iter().enumerate();
            cases.flat_map(move |(case, draft)| {
                draft.emit.iter().enumerate().map(move |(row, columns)| (d.block, case, row, columns))
            })
        });
        let Some((.., lead)) = rows.clone().next() else {
            let help = "add `emit` to a case: a map of columns and their values";
            self.report(FoldPlace::Whole, fault("fold-emit", "no case gives anything out", help));
            return None;
        };
        let of = |(name, _): &(String, Planned)| Emitted { name: name.clone(), kind: None, nullable: false };
        let mut output: Vec<Emitted> = lead.iter().map(of).collect();
        for (block, case, row, columns) in rows {
            let place = |part| FoldPlace::Case(block, case, part);
            for emitted in &mut output {
                let Some(at) = columns.iter().position(|(name, _)| *name == emitted.name) else {
                    let message = format!("the row has no column `{}`", emitted.name);
                    let help = "all rows of a fold have the same columns; write NULL where there is no value";
                    self.report(place(FoldPart::Row(row)), fault("fold-emit", message, help));
                    continue;
                };
                if let Some((_, planned)) = columns.get(at) {
                    let told = emitted.add(planned);
                    self.told(place(FoldPart::Column(row, at)), told.map_err(|e| vec![e]));
                }
            }
            for (at, (name, _)) in columns.iter().enumerate() {
                if !output.iter().any(|emitted| emitted.name == *name) {
                    let message = format!("the fold's first row has no column `{name}`");
                    let near = nearest(name, output.iter().map(|e| e.name.as_str()));
                    let help = match near {
                        Some(near) => format!("did you mean `{near}`? All rows of a fold have the same columns"),
                        None => "all rows of a fold have the same columns".to_owned(),
                    };
                    self.report(place(FoldPart::Column(row, at)), fault("fold-emit", message, help));
                }
            }
        }
        self.errors.is_empty().then_some(output)
    }

    fn schema(&mut self, output: &[Emitted]) -> Option<Schema> {
        for emitted in output.iter().filter(|e| e.name.starts_with("__")) {
            let message = format!("`{}` starts with `__`, which is reserved", emitted.name);
            self.report(FoldPlace::Whole, fault("sql-reserved-name", message, "choose another name"));
        }
        let columns = output.iter().map(|e| Column { name: e.name.clone(), kind: e.kind(), nullable: e.nullable });
        let schema = Schema::new(columns.collect());
        self.told(FoldPlace::Whole, schema.map_err(|e| vec![SqlError::new("sql-columns", e.to_string())]))
    }

    fn program(
        &mut self,
        blocks: Vec<Drafts>,
        scope: &Scope,
        events: usize,
        state: &StatePlan,
        output: &[Emitted],
        rest: Rest,
    ) -> Option<Program> {
        let schema = scope.batch_schema();
        let mut program = Program::new(self.told(FoldPlace::Whole, schema)?, events);
        program.rest = rest;
        for Drafts { block, cases } in blocks {
            for (at, draft) in cases.into_iter().enumerate() {
                let case = self.case(&mut program, |part| FoldPlace::Case(block, at, part), draft, state, output)?;
                program.cases.push(case);
            }
        }
        Some(program)
    }

    fn case(
        &mut self,
        program: &mut Program,
        place: impl Fn(FoldPart) -> FoldPlace,
        draft: Draft,
        state: &StatePlan,
        output: &[Emitted],
    ) -> Option<Case> {
        let mut compile = |planned: &Planned, part, kind: Option<&DataType>| -> Option<RowExpr> {
            let compiled = self.told(place(part), planned.compile(kind))?;
            Some(program.expr(compiled))
        };
        let when = match &draft.when {
            Some(when) => Some(compile(when, FoldPart::When, None)?),
            None => None,
        };
        let set = draft.set.iter().enumerate().map(|(i, (column, planned))| {
            Some((*column, compile(planned, FoldPart::Set(i), state.kind(*column).as_ref())?))
        });
        let set = set.collect::<Option<Vec<_>>>()?;
        let mut emit = Vec::with_capacity(draft.emit.len());
        for (r, row) in draft.emit.iter().enumerate() {
            let columns = output.iter().map(|emitted| {
                let (at, (_, planned)) = row.iter().enumerate().find(|(_, (name, _))| *name == emitted.name)?;
                compile(planned, FoldPart::Column(r, at), Some(&emitted.kind().to_arrow()))
            });
            emit.push(columns.collect::<Option<Vec<_>>>()?);
        }
        Some(Case { when, set, emit, forget: draft.forget })
    }
}

impl Emitted {
    fn kind(&self) -> ColumnType {
        self.kind.clone().unwrap_or(ColumnType::String)
    }

    /// The column also has the values of this expression.
    fn add(&mut self, planned: &Planned) -> Result<(), SqlError> {
        self.nullable |= planned.field.is_nullable();
        let found = type_of(&planned.field).map_err(|kind| {
            let message = format!("`{}` has the type {kind}, which no column can have", self.name);
            fault("sql-no-column-type", message, "cast it, as in CAST(… AS VARCHAR)")
        })?;
        self.kind = match (self.kind.take(), found) {
            (None, found) => found,
            (known, None) => known,
            (Some(known), Some(found)) => match common(&known, &found) {
                Some(kind) => Some(kind),
                None => {
                    let message = format!("`{}` is {known} in a row before, and this is {found}", self.name);
                    self.kind = Some(known);
                    return Err(fault("fold-type", message, "cast one of them"));
                }
            },
        };
        Ok(())
    }
}

fn sql_name(kind: &ColumnType) -> String {
    match kind {
        ColumnType::String => "VARCHAR".to_owned(),
        ColumnType::Bytes => "BYTEA".to_owned(),
        other => other.to_string().to_uppercase(),
    }
}

/// Reads `TYPE` or `TYPE = VALUE`.
fn state_column(name: &str, text: &str) -> Result<(Column, Val<'static>), SqlError> {
    if name.starts_with("__") || name.is_empty() {
        let message = format!("`{name}` is no name for a state column");
        return Err(fault("fold-state", message, "a name does not start with `__`, which is reserved"));
    }
    let (kind, value) = match text.split_once('=') {
        Some((kind, value)) => (kind, Some(value)),
        None => (text, None),
    };
    let column = Column::parse(name, kind).map_err(|e| {
        let near = nearest(&e.word, ColumnType::names().iter().copied()).filter(|_| !e.word.is_empty());
        let error = SqlError::new("column-type", e.message.clone());
        match near {
            Some(near) => error.help(format!("did you mean `{near}`?")),
            None => error.help("write a type and, if need be, an initial value, as in `bigint! = 0`"),
        }
    })?;
    if Kind::of(&column.kind.to_arrow()).is_none() {
        let message = format!("a state column cannot have the type {}", column.kind);
        return Err(fault("fold-state", message, "keep single values, or all of it as `json`"));
    }
    let Some(value) = value else {
        if !column.nullable {
            let message = format!("`{name}` is never null and has no initial value");
            return Err(fault(
                "fold-state",
                message,
                format!("write one, as in `{} = …`, or leave `!` away", text.trim()),
            ));
        }
        return Ok((column, Val::Null));
    };
    let before = kind.chars().count() + 1;
    initial(&column, value).map(|value| (column, value)).map_err(|e| moved(e, before))
}

/// The value of a constant.
fn initial(column: &Column, sql: &str) -> Result<Val<'static>, SqlError> {
    let nothing = Schema::new(Vec::new()).map_err(|e| SqlError::new("sql-columns", e.to_string()))?;
    let lead = Name::new("initial").map_err(|e| SqlError::new("sql-columns", e.to_string()))?;
    let scope = Scope::new(&lead, &nothing, &[]);
    let only = |errors: Vec<SqlError>| {
        let first = errors.into_iter().next();
        let error = first.unwrap_or_else(|| SqlError::new("fold-state", "the initial value is not understood"));
        if error.code == "sql-unknown-column" { error.help("an initial value is a constant") } else { error }
    };
    let planned = scope.plan(sql).map_err(only)?;
    match type_of(&planned.field) {
        Ok(Some(kind)) if !fits(&kind, &column.kind) => {
            let message = format!("`{}` is {}, and its initial value is {kind}", column.name, column.kind);
            let help = format!("cast it, as in CAST(… AS {})", sql_name(&column.kind));
            return Err(fault("fold-type", message, help));
        }
        _ => {}
    }
    let compiled = planned.compile(Some(&column.kind.to_arrow())).map_err(only)?;
    let constant = |expr: &Arc<dyn PhysicalExpr>| !reads(expr);
    if !constant(compiled.physical()) {
        return Err(fault("fold-state", "an initial value is a constant", "set it by the key's first event"));
    }
    let none = datafusion_common::DFSchema::empty();
    let stamps: ArrayRef = Arc::new(TimestampMicrosecondArray::from(vec![0]).with_timezone("+00:00"));
    let one = batch_of(&batch_schema(&none), vec![stamps], 1);
    let one = one.map_err(|e| SqlError::new("fold-state", format!("{INGESTED_AT}: {e}")))?;
    let value = compiled.evaluate(&one).and_then(|value| compiled.check(&value).map(|()| value));
    let value = first(&value.map_err(|e| SqlError::new("fold-state", e.reason))?);
    if value.is_null() && !column.nullable {
        return Err(fault("fold-state", format!("`{}` is never null", column.name), "leave `!` away"));
    }
    Ok(value)
}

fn reads(expr: &Arc<dyn PhysicalExpr>) -> bool {
    expr.is::<PhysicalColumn>() || expr.children().into_iter().any(reads)
}

/// The error in a text that begins `columns` characters further left.
fn moved(mut error: SqlError, columns: usize) -> SqlError {
    let by = |(line, column): (usize, usize)| if line == 1 { (line, column + columns) } else { (line, column) };
    error.span = error.span.map(|span| Span { start: by(span.start), end: by(span.end) });
    error
}

/// What the fold does, for a person to read.
fn lines(spec: &FoldSpec, inputs: &[Name]) -> Vec<String> {
    let inputs: Vec<&str> = inputs.iter().map(Name::as_str).collect();
    let state = spec.state.iter().map(|(name, text)| format!("{name}: {text}")).collect::<Vec<_>>().join(", ");
    let mut lines = vec![format!("read {}", inputs.join(", ")), format!("fold by {}: {state}", spec.key.join(", "))];
    lines.extend(spec.cases.iter().map(|case| line("case", case)));
    lines.push(match &spec.otherwise {
        FoldOtherwise::Do(action) => line("otherwise", &FoldCase { when: None, action: action.clone() }),
        FoldOtherwise::Drop => "otherwise drop".to_owned(),
        FoldOtherwise::DeadLetter => "otherwise dead letter".to_owned(),
    });
    if let Some(timer) = &spec.timer {
        lines.extend(timer.cases.iter().map(|case| line(&format!("at state.{}", timer.column), case)));
    }
    lines
}

fn line(head: &str, case: &FoldCase) -> String {
    let pairs =
        |of: &[(String, String)]| of.iter().map(|(n, e)| format!("{n} = {}", e.trim())).collect::<Vec<_>>().join(", ");
    let mut text = head.to_owned();
    if let Some(when) = &case.when {
        text.push_str(&format!(" {}", when.trim()));
    }
    if !case.action.set.is_empty() {
        text.push_str(&format!("; set {}", pairs(&case.action.set)));
    }
    for row in &case.action.emit {
        text.push_str(&format!("; emit {}", pairs(row)));
    }
    if case.action.forget {
        text.push_str("; forget");
    }
    text
}
