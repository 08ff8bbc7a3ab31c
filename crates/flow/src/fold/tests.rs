//! Both ways of running a fold agree with each other, with the single rows, and with a model written out by hand.

use std::collections::BTreeMap;

use arrow_array::{ArrayRef, RecordBatch, TimestampMicrosecondArray};
use arrow_array::{BooleanArray, Decimal128Array, Float64Array, Int32Array, Int64Array, StringArray};
use millstream_event::{Column, Stamp};
use proptest::prelude::*;

use super::program::{Frame, HoistedColumns, Program, event_side};
use super::scope::Scope;
use super::*;
use crate::expr::value::{Sink, Val, first};
use crate::ops::batch_of;
use crate::stream::{Derived, Step};
use crate::{Catalog, Failed, LookupSet, TimeColumn};

fn columns(of: &[(&str, &str)]) -> Vec<Column> {
    of.iter().map(|(name, kind)| Column::parse(*name, kind).unwrap()).collect()
}

fn times(of: Vec<Option<i64>>) -> ArrayRef {
    Arc::new(TimestampMicrosecondArray::from(of).with_timezone("+00:00"))
}

mod expressions {
    use super::*;

    #[derive(Debug, Clone)]
    struct OneRow {
        i: Option<i32>,
        b: Option<i64>,
        d: Option<i128>,
        x: Option<f64>,
        s: Option<String>,
        flag: Option<bool>,
        at: Option<i64>,
    }

    fn rows() -> impl Strategy<Value = OneRow> {
        let i = prop_oneof![4 => -3..4i32, 1 => any::<i32>(), 1 => Just(i32::MAX), 1 => Just(i32::MIN)];
        let b = prop_oneof![4 => -3..4i64, 1 => any::<i64>(), 1 => Just(i64::MAX), 1 => Just(i64::MIN)];
        let d = prop_oneof![4 => -300..400i128, 1 => -999_999_999_999..1_000_000_000_000i128];
        let x = prop_oneof![3 => (-4..4i32).prop_map(f64::from), 1 => any::<f64>(), 1 => Just(-0.0)];
        let at = prop_oneof![4 => 0..5_000_000_000i64, 1 => any::<i64>()];
        let o = |p| move || prop::bool::weighted(p);
        let null = o(0.15);
        (i, b, d, x, "[ab]{0,2}", any::<bool>(), at, prop::array::uniform7(null())).prop_map(
            |(i, b, d, x, s, flag, at, n)| {
                let [n0, n1, n2, n3, n4, n5, n6] = n;
                OneRow {
                    i: (!n0).then_some(i),
                    b: (!n1).then_some(b),
                    d: (!n2).then_some(d),
                    x: (!n3).then_some(x),
                    s: (!n4).then_some(s),
                    flag: (!n5).then_some(flag),
                    at: (!n6).then_some(at),
                }
            },
        )
    }

    fn any_of(choices: Vec<BoxedStrategy<String>>) -> BoxedStrategy<String> {
        prop::strategy::Union::new(choices).boxed()
    }

    fn leaf(of: &[&'static str]) -> BoxedStrategy<String> {
        prop::sample::select(of.to_vec()).prop_map(str::to_owned).boxed()
    }

    fn two(form: &'static [&'static str], a: BoxedStrategy<String>, b: BoxedStrategy<String>) -> BoxedStrategy<String> {
        let fill = |(form, a, b): (&str, String, String)| form.replace("{a}", &a).replace("{b}", &b);
        (prop::sample::select(form.to_vec()), a, b).prop_map(fill).boxed()
    }

    fn chosen(depth: u32, of: fn(u32) -> BoxedStrategy<String>) -> BoxedStrategy<String> {
        let fill = |(when, a, b): (String, String, String)| format!("CASE WHEN {when} THEN {a} ELSE {b} END");
        (truth(depth - 1), of(depth - 1), of(depth - 1)).prop_map(fill).boxed()
    }

    fn whole(depth: u32) -> BoxedStrategy<String> {
        let simple = leaf(&["i", "b", "state.n", "state.k", "0", "2", "-7", "i + 1"]);
        if depth == 0 {
            return simple;
        }
        let ops = two(
            &[
                "({a} + {b})",
                "({a} - {b})",
                "({a} * {b})",
                "({a} / {b})",
                "({a} % {b})",
                "coalesce({a}, {b})",
                "(-{a})",
            ],
            whole(depth - 1),
            whole(depth - 1),
        );
        let cast = whole(depth - 1).prop_map(|a| format!("CAST({a} AS INT)")).boxed();
        any_of(vec![simple, ops.clone(), ops, cast, chosen(depth, whole)])
    }

    fn exact(depth: u32) -> BoxedStrategy<String> {
        let simple = leaf(&["d", "state.m", "1.5", "0.05", "state.m * 2"]);
        if depth == 0 {
            return simple;
        }
        let own =
            two(&["({a} + {b})", "({a} - {b})", "({a} * {b})", "({a} / {b})"], exact(depth - 1), exact(depth - 1));
        let mixed = two(&["({a} + {b})", "({a} * {b})"], exact(depth - 1), whole(depth - 1));
        any_of(vec![simple, own, mixed, chosen(depth, exact)])
    }

    fn double(depth: u32) -> BoxedStrategy<String> {
        let simple = leaf(&["x", "state.y", "CAST(b AS DOUBLE)", "CAST(state.n AS DOUBLE)"]);
        if depth == 0 {
            return simple;
        }
        let ops =
            two(&["({a} + {b})", "({a} * {b})", "({a} / {b})", "({a} % {b})"], double(depth - 1), double(depth - 1));
        any_of(vec![simple, ops])
    }

    fn text(depth: u32) -> BoxedStrategy<String> {
        let simple = leaf(&["s", "state.t", "'a'", "'ab'", "upper(state.t)"]);
        if depth == 0 {
            return simple;
        }
        let ops = two(&["({a} || {b})", "coalesce({a}, {b})"], text(depth - 1), text(depth - 1));
        any_of(vec![simple, ops, chosen(depth, text)])
    }

    fn time(_: u32) -> BoxedStrategy<String> {
        leaf(&[
            "at",
            "state.u",
            "(at + INTERVAL '15 minutes')",
            "(state.u - INTERVAL '2 days')",
            "(state.u + INTERVAL '1 month')",
        ])
    }

    fn truth(depth: u32) -> BoxedStrategy<String> {
        let simple = leaf(&["flag", "state.f", "s = 'a'", "state.n IS NULL", "state.n > 0", "i IS NOT NULL", "NULL"]);
        if depth == 0 {
            return simple;
        }
        const COMPARE: &[&str] = &[
            "({a} = {b})",
            "({a} <> {b})",
            "({a} < {b})",
            "({a} <= {b})",
            "({a} > {b})",
            "({a} >= {b})",
            "({a} IS DISTINCT FROM {b})",
            "({a} IS NOT DISTINCT FROM {b})",
            "({a} IN ({b}, {a}))",
            "({a} NOT IN ({b}, NULL))",
        ];
        let logic = two(&["({a} AND {b})", "({a} OR {b})", "(NOT {a})"], truth(depth - 1), truth(depth - 1));
        any_of(vec![
            simple,
            logic.clone(),
            logic,
            two(COMPARE, whole(depth - 1), whole(depth - 1)),
            two(COMPARE, exact(depth - 1), whole(depth - 1)),
            two(COMPARE, double(depth - 1), double(depth - 1)),
            two(COMPARE, text(depth - 1), text(depth - 1)),
            two(COMPARE, time(depth - 1), time(depth - 1)),
        ])
    }

    fn expression() -> BoxedStrategy<String> {
        any_of(vec![truth(3), whole(3), exact(2), double(2), text(2), time(0)])
    }

    const EVENT: &[(&str, &str)] = &[
        ("i", "int"),
        ("b", "bigint"),
        ("d", "decimal(12,2)"),
        ("x", "double"),
        ("s", "string"),
        ("flag", "bool"),
        ("at", "timestamp"),
    ];
    const STATE: &[(&str, &str)] = &[
        ("k", "int"),
        ("n", "bigint"),
        ("m", "decimal(12,2)"),
        ("y", "double"),
        ("t", "string"),
        ("f", "bool"),
        ("u", "timestamp"),
    ];

    fn batch(rows: &[OneRow], program: &Program) -> RecordBatch {
        let columns: Vec<ArrayRef> = vec![
            Arc::new(rows.iter().map(|r| r.i).collect::<Int32Array>()),
            Arc::new(rows.iter().map(|r| r.b).collect::<Int64Array>()),
            Arc::new(rows.iter().map(|r| r.d).collect::<Decimal128Array>().with_precision_and_scale(12, 2).unwrap()),
            Arc::new(rows.iter().map(|r| r.x).collect::<Float64Array>()),
            Arc::new(rows.iter().map(|r| r.s.clone()).collect::<StringArray>()),
            Arc::new(rows.iter().map(|r| r.flag).collect::<BooleanArray>()),
            times(rows.iter().map(|r| r.at).collect()),
            times(vec![Some(0); rows.len()]),
        ];
        batch_of(&event_side(&program.schema, EVENT.len()), columns, rows.len()).unwrap()
    }

    fn state(row: &OneRow) -> Vec<Val<'static>> {
        fn of<T>(value: Option<T>, val: impl Fn(T) -> Val<'static>) -> Val<'static> {
            value.map_or(Val::Null, val)
        }
        vec![
            of(row.i, |v| Val::Int(i64::from(v))),
            of(row.b, Val::Int),
            of(row.d, Val::Decimal),
            of(row.x, Val::Double),
            of(row.s.clone(), |v| Val::Text(v.into())),
            of(row.flag, Val::Bool),
            of(row.at, Val::Int),
        ]
    }

    /// What an expression yields row by row without a batch, and what DataFusion says on a batch of the row; and whether
    /// the first knew.
    fn both(sql: &str, events: &[OneRow], states: &[OneRow]) -> Vec<(bool, String, String)> {
        let scope = Scope::new(&Name::new("events").unwrap(), &Schema::new(columns(EVENT)).unwrap(), &columns(STATE));
        let Ok(planned) = scope.plan(sql) else { return Vec::new() };
        let Ok(compiled) = planned.compile(None) else { return Vec::new() };
        let mut program = Program::new(scope.batch_schema().unwrap(), EVENT.len());
        let expr = program.expr(compiled);
        let batch = batch(events, &program);
        let Ok(hoisted) = HoistedColumns::compute(&program, &batch) else { panic!("{sql}") };
        let frame = Frame::new(&program, &batch, &hoisted);
        let mut all = Vec::new();
        for (row, state_row) in (0..events.len()).zip(states.iter().cycle()) {
            let state = state(state_row);
            let input = frame.input(row, &state);
            let known = expr.node.as_ref().is_some_and(|node| node.value(&input).is_ok());
            let mine = expr.value(&input).map(|v| format!("{v:?}")).unwrap_or_else(|e| e.reason);
            let mut cells: Vec<ArrayRef> = batch.columns().iter().take(EVENT.len()).map(|c| c.slice(row, 1)).collect();
            for (value, field) in state.iter().zip(program.schema.fields().iter().skip(EVENT.len())) {
                let mut sink = Sink::new(field.data_type());
                sink.push(value);
                cells.push(sink.finish().unwrap());
            }
            cells.push(batch.column(EVENT.len()).slice(row, 1));
            let one = batch_of(&program.schema, cells, 1).unwrap();
            let theirs = expr.column(&one).map(|v| format!("{:?}", first(&v))).unwrap_or_else(|e| e.reason);
            all.push((known, mine, theirs));
        }
        all
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(if std::env::var_os("MILLSTREAM_LONG").is_some() { 20_000 } else { 600 }))]
        #[test]
        fn an_expression_on_a_row_is_what_it_is_on_a_batch_of_that_row(
            sql in expression(),
            events in prop_oneof![prop::collection::vec(rows(), 1..4), prop::collection::vec(rows(), 16..24)],
            states in prop::collection::vec(rows(), 1..4),
        ) {
            for (_, mine, theirs) in both(&sql, &events, &states) {
                prop_assert_eq!(mine, theirs, "{}", sql);
            }
        }
    }

    #[test]
    fn the_common_forms_are_computed_without_a_batch() {
        let row = OneRow {
            i: Some(3),
            b: Some(5),
            d: Some(250),
            x: Some(0.5),
            s: Some("a".into()),
            flag: Some(true),
            at: Some(1_000_000),
        };
        for sql in [
            "s = 'a' AND state.n - state.k >= i",
            "state.n + i",
            "state.m - d * i",
            "CASE WHEN state.n > 2 THEN state.t ELSE s END",
            "coalesce(state.t, 'x') || s",
            "at + INTERVAL '15 minutes'",
            "state.u + INTERVAL '15 minutes' < at",
            "state.t IN ('a', 'b') OR NOT state.f",
            "state.n IS NULL OR state.y > CAST(state.n AS DOUBLE)",
            "upper(s) = state.t",
            "date_trunc('day', at) <> state.u",
        ] {
            let found = both(sql, std::slice::from_ref(&row), std::slice::from_ref(&row));
            assert_eq!(found.len(), 1, "{sql}");
            assert!(found[0].0, "{sql} is not known row by row");
        }
    }
}

/// `hard`: with an expression that is not computed without a batch.
fn spec(hard: bool) -> FoldSpec {
    let pairs = |of: &[(&str, &str)]| of.iter().map(|(n, e)| ((*n).to_owned(), (*e).to_owned())).collect::<Vec<_>>();
    let row = |id: &str, what: &str| {
        let last = if hard { "character_length(state.last)" } else { "state.count" };
        pairs(&[("key", "k"), ("id", id), ("what", what), ("stock", "state.stock"), ("count", last)])
    };
    let case = |when: &str, set: &[(&str, &str)], emit: Vec<Vec<(String, String)>>, forget: bool| FoldCase {
        when: Some(when.to_owned()),
        action: FoldAction { set: pairs(set), emit, forget },
    };
    let cases = vec![
        case(
            "kind = 'receipt'",
            &[("stock", "state.stock + qty"), ("last", "kind"), ("count", "coalesce(state.count, 0) + 1")],
            vec![row("id", "'in'")],
            false,
        ),
        case(
            "kind = 'sale' AND state.stock >= qty",
            &[("stock", "state.stock - qty"), ("last", "kind")],
            vec![row("id", "'out'"), row("-id", "'again'")],
            false,
        ),
        case(
            "kind = 'hold'",
            &[("until", "at + INTERVAL '10 seconds'"), ("stock", "state.stock - 1")],
            Vec::new(),
            false,
        ),
        case("kind = 'divide'", &[("stock", "100 / state.stock")], vec![row("id / qty", "'divided'")], false),
        case("kind = 'gone'", &[], vec![row("id", "'gone'")], true),
    ];
    let timer = FoldTimer {
        column: "until".to_owned(),
        cases: vec![case(
            "state.stock < 5",
            &[
                ("stock", "state.stock + 2"),
                ("until", "CASE WHEN state.stock < 1 THEN state.until + INTERVAL '4 seconds' END"),
            ],
            vec![row("NULL", "'back'")],
            false,
        )],
    };
    FoldSpec {
        key: vec!["k".to_owned()],
        state: pairs(&[("stock", "bigint! = 0"), ("last", "string"), ("count", "int"), ("until", "timestamp")]),
        cases,
        otherwise: FoldOtherwise::DeadLetter,
        timer: Some(timer),
    }
}

#[derive(Debug, Clone)]
struct Event {
    key: u8,
    kind: &'static str,
    qty: i32,
    at: i64,
}

fn topic() -> Name {
    Name::new("movements").unwrap()
}

fn plan(hard: bool) -> Arc<Fold> {
    let mut catalog = Catalog::default();
    let kinds = [("id", "bigint!"), ("k", "string!"), ("kind", "string!"), ("qty", "int!"), ("at", "timestamp!")];
    catalog.topics.insert(topic(), Schema::new(columns(&kinds)).unwrap());
    catalog.event_times.insert(topic(), TimeColumn { name: "at".to_owned(), plus_us: 0 });
    Arc::new(plan_fold(&spec(hard), &[topic()], &catalog).unwrap_or_else(|e| panic!("{}", e[0])))
}

fn batch(fold: &Fold, events: &[(usize, Event)]) -> RecordBatch {
    let columns: Vec<ArrayRef> = vec![
        Arc::new(events.iter().map(|(id, _)| Some(*id as i64)).collect::<Int64Array>()),
        Arc::new(events.iter().map(|(_, e)| Some(format!("k{}", e.key))).collect::<StringArray>()),
        Arc::new(events.iter().map(|(_, e)| Some(e.kind)).collect::<StringArray>()),
        Arc::new(events.iter().map(|(_, e)| Some(e.qty)).collect::<Int32Array>()),
        times(events.iter().map(|(_, e)| Some(e.at)).collect()),
        times(events.iter().map(|(id, _)| Some(Stamp::at(*id as i64 * 4).0)).collect()),
    ];
    RecordBatch::try_new(Arc::clone(fold.input_schema().physical()), columns).unwrap()
}

/// What a run gave out: lines `key …` in order, and the ids of the events that failed.
#[derive(Debug, Default, PartialEq, Eq)]
struct Told {
    lines: Vec<String>,
    failed: Vec<(i64, &'static str)>,
    derived: Vec<String>,
}

impl Told {
    fn take(&mut self, step: Step, ids: &[(usize, Event)]) {
        for rows in &step.rows {
            for row in 0..rows.num_rows() {
                let cells = rows.columns().iter().map(|c| arrow_cast::display::array_value_to_string(c, row).unwrap());
                self.lines.push(cells.take(5).collect::<Vec<_>>().join(" "));
            }
        }
        self.failed.extend(step.failed.iter().map(|Failed { row, code, .. }| (ids[*row as usize].0 as i64, *code)));
        self.derived.extend(step.derived.into_iter().map(|Derived { row, code, .. }| format!("{row} {code}")));
    }

    fn by_key(&self) -> BTreeMap<String, Vec<String>> {
        let mut keys: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for line in &self.lines {
            keys.entry(line.split(' ').next().unwrap().to_owned()).or_default().push(line.clone());
        }
        keys
    }
}

/// The greatest time so far, as a watermark behind which no event is: events are made so.
fn watermark(events: &[(usize, Event)]) -> i64 {
    events.iter().map(|(_, e)| e.at).max().unwrap_or(i64::MIN).saturating_sub(OUT_OF_ORDER)
}

const OUT_OF_ORDER: i64 = 3_000_000;

/// Pushes events in batches of the sizes `cuts`, and after each the watermark; after every third it goes on from the
/// changes.
fn run(fold: &Arc<Fold>, events: &[Event], cuts: &[usize], rounds: bool, restart: bool) -> Told {
    let mut told = Told::default();
    let open = || {
        let mut folding = fold.open().unwrap();
        if rounds {
            folding.in_rounds();
        }
        folding
    };
    let mut folding = open();
    let mut kept: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
    let numbered: Vec<(usize, Event)> = events.iter().cloned().enumerate().map(|(i, e)| (i + 1, e)).collect();
    let (mut at, mut cuts) = (0, cuts.iter().cycle().enumerate());
    while at < numbered.len() {
        let (turn, cut) = cuts.next().unwrap();
        let part = &numbered[at..(at + cut).min(numbered.len())];
        at += part.len();
        told.take(folding.push(&topic(), &batch(fold, part), &LookupSet::default()).unwrap(), part);
        told.take(folding.advance(watermark(&numbered[..at]), &LookupSet::default()).unwrap(), &[]);
        if let Some(changes) = folding.changes() {
            for (key, value) in changes.iter() {
                match value {
                    Some(value) => drop(kept.insert(key.to_vec(), value.to_vec())),
                    None => drop(kept.remove(key)),
                }
            }
        }
        assert_eq!(folding.size().0, kept.len());
        if restart && turn % 3 == 2 {
            folding = open();
            kept.iter().for_each(|(key, value)| folding.restore(key, Some(value)).unwrap());
        }
    }
    told.take(folding.advance(i64::MAX, &LookupSet::default()).unwrap(), &[]);
    told
}

/// Lines by key, and the ids of the events that failed.
type ByKey = (BTreeMap<String, Vec<String>>, Vec<(i64, &'static str)>);

/// What a model says: a key, an event's id, what was done, the state.
type Say<'a, S> = &'a mut dyn FnMut(u8, Option<i64>, &str, &S);

/// The same by hand, key by key.
fn model(events: &[Event], hard: bool) -> ByKey {
    #[derive(Default, Clone)]
    struct State {
        stock: i64,
        last: Option<&'static str>,
        count: Option<i32>,
        until: Option<i64>,
    }
    let mut states: BTreeMap<u8, State> = BTreeMap::new();
    let mut lines: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut failed = Vec::new();
    let mut say = |key: u8, id: Option<i64>, what: &str, state: &State| {
        let last = if hard { state.last.map(|l| l.len() as i32) } else { state.count };
        let text = |v: Option<String>| v.unwrap_or_default();
        let line = format!(
            "k{key} {} {what} {} {}",
            text(id.map(|i| i.to_string())),
            state.stock,
            text(last.map(|l| l.to_string()))
        );
        lines.entry(format!("k{key}")).or_default().push(line);
    };
    fn due(key: u8, state: &mut State, time: i64, say: Say<'_, State>) {
        while let Some(at) = state.until.filter(|at| *at <= time) {
            state.until = None;
            if state.stock < 5 {
                state.until = (state.stock < 1).then_some(at + 4_000_000);
                state.stock += 2;
                say(key, None, "back", state);
            }
        }
    }
    for (number, event) in events.iter().enumerate() {
        let id = number as i64 + 1;
        let state = states.entry(event.key).or_default();
        due(event.key, state, event.at, &mut say);
        let qty = i64::from(event.qty);
        match event.kind {
            "receipt" => {
                state.stock += qty;
                state.last = Some("receipt");
                state.count = Some(state.count.unwrap_or(0) + 1);
                say(event.key, Some(id), "in", state);
            }
            "sale" if state.stock >= qty => {
                state.stock -= qty;
                state.last = Some("sale");
                say(event.key, Some(id), "out", state);
                say(event.key, Some(-id), "again", state);
            }
            "hold" => {
                state.until = Some(event.at + 10_000_000);
                state.stock -= 1;
            }
            "divide" if state.stock == 0 || qty == 0 => failed.push((id, "division-by-zero")),
            "divide" => {
                state.stock = 100 / state.stock;
                say(event.key, Some(id / qty), "divided", state);
            }
            "gone" => {
                say(event.key, Some(id), "gone", state);
                *state = State::default();
            }
            _ => failed.push((id, FOLD_UNMATCHED)),
        }
    }
    let heard = events.iter().map(|event| event.at).max().unwrap_or(i64::MIN);
    for (key, state) in &mut states {
        due(*key, state, heard, &mut say);
        // At the end each timer runs once more.
        let last = state.until.unwrap_or(i64::MIN);
        due(*key, state, last, &mut say);
    }
    (lines, failed)
}

fn events(keys: u8) -> impl Strategy<Value = Vec<Event>> {
    let kind = prop::sample::select(vec!["receipt", "sale", "sale", "hold", "divide", "gone", "other"]);
    // Skewed to the first key; times go forward, at most OUT_OF_ORDER back.
    let key = prop_oneof![Just(0), 0..keys];
    let one = (key, kind, 0..5i32, 0..4_000_000i64, 0..OUT_OF_ORDER);
    prop::collection::vec(one, 1..80).prop_map(|all| {
        let mut now = 1_767_225_600_000_000;
        let event = |(key, kind, qty, step, back): (u8, &'static str, i32, i64, i64)| {
            now += step;
            Event { key, kind, qty, at: now - back }
        };
        all.into_iter().map(event).collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if std::env::var_os("MILLSTREAM_LONG").is_some() { 3_000 } else { 60 }))]
    #[test]
    fn a_fold_is_its_model_however_it_is_cut_run_and_restarted(
        events in events(6),
        cuts in prop::collection::vec(1..40usize, 1..4),
        hard in any::<bool>(),
    ) {
        let fold = plan(hard);
        let (lines, failed) = model(&events, hard);
        let one_by_one = run(&fold, &events, &[1], false, false);
        prop_assert_eq!(&one_by_one.by_key(), &lines);
        prop_assert_eq!(&one_by_one.failed, &failed);
        for rounds in [false, true] {
            for (cuts, restart) in [(cuts.as_slice(), false), (cuts.as_slice(), true), (&[1000][..], false)] {
                let told = run(&fold, &events, cuts, rounds, restart);
                prop_assert_eq!(&told.by_key(), &lines);
                prop_assert_eq!(&told.failed, &failed);
            }
            let (a, b) = (run(&fold, &events, &cuts, rounds, false), run(&fold, &events, &cuts, !rounds, true));
            prop_assert_eq!(a, b);
        }
    }
}
