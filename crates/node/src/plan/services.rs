//! Plans one service: its input, rules, SQL and route, and what it writes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use millstream_connect::PostgresState;
use millstream_service::event::{Name, Schema};
use millstream_service::flow::{
    Fold, Order, Query, RouteCase, RouteMode, RouteOtherwise, RouteTarget, Routes, Rules, SqlError, plan_query,
    plan_routes, plan_rules,
};
use millstream_service::log::TopicSpec;
use millstream_service::{Carries, Else, Late, Output, dead_letter, tagged, unchanged, writes_in_place};

use super::graph::{letters_of, targets};
use super::pipeline::Way;
use super::topics::{Written, side_by_side};
use super::{EventTime, Planner, Service, define};
use crate::config::{
    KeepSettings, LateSettings, OrderSettings, Otherwise, RouteSettings, ServiceSettings, Span, Spanned, Sql,
};
use crate::diagnostic::{Diagnostic, did_you_mean};

impl Planner<'_> {
    /// Plans the service at a place of the file. Where its input is not known, its outputs are not known either.
    pub(super) fn service(&mut self, place: usize) {
        let config = self.config;
        let Some((name, settings)) = config.services.get(place) else { return };
        let outputs = targets(settings);
        if self.plan_service(name, settings, &outputs).is_none() {
            self.unknown.extend(outputs.into_iter().map(|t| t.value));
            self.unknown.extend(Name::new(format!("{}.dlq", name.value)).ok());
        }
    }

    fn plan_service(
        &mut self,
        name: &Spanned<Name>,
        settings: &ServiceSettings,
        outputs: &[Spanned<Name>],
    ) -> Option<()> {
        let several = settings.sql.is_some() && settings.from.len() > 1;
        let specs = match several {
            true => self.joined(name, settings)?,
            false => {
                self.times_differ(&name.value, &settings.from);
                vec![self.input(&name.value, "service", &settings.from)?]
            }
        };
        let input = specs.first()?.clone();
        let otherwise = settings.otherwise.as_ref().map_or(&Otherwise::DeadLetter, |o| &o.value);
        let rules = self.rules(settings, &input.schema);
        let checked = match otherwise {
            Otherwise::Tag if !settings.check.is_empty() => tagged(&input.schema).ok()?,
            _ => input.schema.clone(),
        };
        let query = self.query(name, settings, &checked);
        // Rules and routes do not change columns: what is behind a wrong one is planned all the same, so that one pass
        // finds all that is wrong. What was made up here goes nowhere, because a pipeline with an error is none.
        let fold = self.fold(settings, &checked);
        self.table_rows(settings, outputs);
        let (rules, query, fold) = (rules.flatten(), query?, fold?);
        let made = query.as_ref().map(Query::schema).or(fold.as_ref().map(Fold::schema));
        let schema = made.unwrap_or(&checked).clone();
        let output = self.output(settings, &schema).or_else(|| Some(Output::To(outputs.first()?.value.clone())))?;
        let pass = |column: &str| match (&query, &fold) {
            (Some(query), _) => query.passes_through(column),
            (_, Some(fold)) => fold.passes_through(column),
            _ => Some(column.to_owned()),
        };
        // What the SQL groups or joins by decides where rows must be.
        let inputs: Vec<Name> = settings.from.iter().map(|f| f.value.clone()).collect();
        let (inputs, aliases) = match (&query, &fold) {
            (Some(query), _) if query.is_stateful() => {
                self.meet(name, settings, &|topic| query.key(topic).map(<[String]>::to_vec))?
            }
            (_, Some(fold)) => self.meet(name, settings, &|topic| fold.key(topic).map(<[String]>::to_vec))?,
            _ => (inputs, BTreeMap::new()),
        };
        let carries = |topic: &Name, input: &str, output: &str| match (&query, &fold) {
            (Some(query), _) => query.carries(topic, input, output),
            (_, Some(fold)) => fold.carries(topic, input, output),
            _ => unchanged(topic, input, output),
        };
        let first = query.as_ref().map(Query::inputs).or(fold.as_ref().map(Fold::inputs));
        let first = first.and_then(|inputs| inputs.first().cloned());
        let known_as =
            |input: &&Name| first.as_ref().is_none_or(|first| aliases.get(*input).unwrap_or(*input) == first);
        let lead = inputs.iter().find(known_as).and_then(|input| self.topics.get(input));
        let input = lead.map_or(input, |lead| lead.spec.clone());
        let event_time = lead.and_then(|t| t.event_time.clone()).and_then(|t| {
            let (column, plus_us) = match (&query, &fold) {
                (Some(query), _) => query.event_time(&t.column)?,
                (_, Some(fold)) => fold.event_time(&t.column)?,
                _ => (t.column.clone(), 0),
            };
            // What passes through keeps what is added to it; a window's end has its own.
            let plus_us = if plus_us == 0 { t.plus_us } else { plus_us };
            Some(EventTime { column, plus_us, ..t })
        });
        let read: Vec<(Name, TopicSpec)> = inputs
            .iter()
            .filter_map(|input| Some((aliases.get(input).unwrap_or(input).clone(), self.known_spec(input)?)))
            .collect();
        let read: Vec<(Name, &TopicSpec)> = read.iter().map(|(name, spec)| (name.clone(), spec)).collect();
        let mut ways = Vec::new();
        let key: Option<Vec<String>> = input.key.iter().map(|k| pass(k)).collect();
        let partitions = input.partitions;
        let updates = query.as_ref().and_then(|q| q.updates()).map(|key| key.into_iter().map(str::to_owned).collect());
        let key = updates.or(key);
        for target in outputs {
            let broken = matches!(otherwise, Otherwise::Topic(t) if *t == target.value);
            let written = if broken {
                let event_time = lead_event_time(self, settings);
                Written { schema: &input.schema, event_time, key: Some(input.key.clone()), partitions }
            } else {
                Written { schema: &schema, event_time: event_time.clone(), key: key.clone(), partitions }
            };
            self.write(&name.value, &target.value, &written);
            let carries: Carries<'_> = if broken { &unchanged } else { &carries };
            let to = self.topics.get(&target.value);
            ways.push(Way {
                topic: target.value.clone(),
                time: written.event_time.map(|time| time.column),
                in_place: to.is_some_and(|to| writes_in_place(&read, &to.spec, carries)),
            });
        }
        let timed = query.as_ref().is_some_and(Query::is_timed) || fold.as_ref().is_some_and(Fold::is_timed);
        let late = self.late(name, settings, timed, query.as_ref());
        let stateful = fold.is_some() || query.as_ref().is_some_and(Query::is_stateful);
        let in_memory = self.in_memory(name, settings, stateful, timed, &inputs);
        let store = self.store(name, settings, stateful);
        if let Some(query) = &query {
            self.updated(&name.value, outputs, query);
        } else if fold.is_none() && self.reads_table(settings).is_some() {
            self.copied(&name.value, outputs, &input.key);
        }
        self.read(&name.value, &inputs);
        let lookups: Vec<Name> = query.as_ref().map(|q| q.lookups().to_vec()).unwrap_or_default();
        self.looks_up(&name.value, settings, &lookups);
        let joined = self.catalog.lookups.iter().filter(|(name, _)| lookups.contains(name)).collect();
        let stateful = fold.is_some() || query.as_ref().is_some_and(Query::is_stateful);
        let lead = (aliases.get(&input.name).unwrap_or(&input.name), &input.schema);
        let others: &[Spanned<Name>] = if several { &settings.from } else { &[] };
        let definition = define::service(settings, &self.read_as(lead, others, stateful), &joined);
        self.services.push(Service {
            name: name.value.clone(),
            inputs,
            aliases,
            late,
            in_memory,
            check: rules.map(|r| (Arc::new(r), otherwise_of(otherwise))),
            rules: settings.check.iter().map(|(n, sql)| (n.value.clone(), sql.text.clone())).collect(),
            query: query.map(Arc::new),
            fold: fold.map(Arc::new),
            output,
            outputs: outputs.iter().map(|t| t.value.clone()).collect(),
            cases: cases(settings.route.as_ref()),
            schema,
            lookups,
            instances: settings.instances.unwrap_or(1),
            batch_max: settings.batch_max,
            store,
            time: None,
            ways,
            definition,
        });
        Some(())
    }

    /// The table topic that a service reads.
    fn reads_table(&self, settings: &ServiceSettings) -> Option<Spanned<Name>> {
        settings.from.iter().find(|from| self.is_table(&from.value)).cloned()
    }

    /// Refuses what would take rows of a table topic, which replace each other and are removed, for events. SQL and folds
    /// have their own refusals.
    fn table_rows(&mut self, settings: &ServiceSettings, outputs: &[Spanned<Name>]) {
        let Some(from) = self.reads_table(settings) else { return };
        let plain = settings.sql.is_none() && settings.fold.is_none();
        let (why, way) = if !settings.check.is_empty() {
            ("a row that breaks a rule would leave the one that it replaces", "write the rule as WHERE of an `sql`")
        } else if plain && settings.route.is_some() {
            (
                "a row that goes another way would leave the one that it replaces",
                "write one service with `sql` for each way",
            )
        } else if plain && outputs.iter().any(|to| !self.is_table(&to.value)) {
            ("its rows replace each other", "write to a topic with `kind: table`, or read what the table is made from")
        } else {
            return;
        };
        let message = format!("topic `{}` is a table: {why}", from.value);
        self.report(from.span, Diagnostic::error("table-rows", message).label(way));
    }

    /// What the definition says of the inputs: the columns of each that has its own, and the time of each that keeps state by
    /// it.
    fn read_as(&self, lead: (&Name, &Schema), others: &[Spanned<Name>], stateful: bool) -> Vec<define::Input> {
        let input = |name: &Name, schema: Schema| {
            let time = self.topics.get(name).and_then(|topic| topic.event_time.clone()).filter(|_| stateful);
            define::Input { name: name.clone(), schema, event_time: time }
        };
        let others = others.iter().filter(|other| other.value != *lead.0);
        let others = others.filter_map(|other| Some(input(&other.value, self.known_spec(&other.value)?.schema)));
        std::iter::once(input(lead.0, lead.1.clone())).chain(others).collect()
    }

    /// Only what waits for the end of a window can be late for it.
    /// Whether the state is in memory alone, and what that means where it may surprise.
    fn in_memory(
        &mut self,
        name: &Spanned<Name>,
        settings: &ServiceSettings,
        stateful: bool,
        timed: bool,
        inputs: &[Name],
    ) -> bool {
        let Some(state) = &settings.state else { return false };
        let Some(keep) = state.keep.as_ref().filter(|keep| keep.value == KeepSettings::Memory) else { return false };
        let name = &name.value;
        if !stateful {
            let message = format!("service `{name}` keeps nothing: what it does with an event depends on no other");
            self.report(keep.span, Diagnostic::error("state-unused", message).label("leave `keep` out"));
            return false;
        }
        if inputs.len() > 1 {
            let message = format!("the state of service `{name}` may not come back quite as it was");
            let note = "at a start its inputs are read again in the order in which their events came in, as far as their \
                        times tell; what depends on which of two came first may differ";
            let diagnostic = Diagnostic::warning("state-memory-order", message).note(note);
            self.report(keep.span, diagnostic.label("keep it in the log (`keep: local`) where that matters"));
        }
        if state.ttl.is_none() && !timed {
            let ages = inputs.iter().filter_map(|i| Some((i, self.topics.get(i)?.spec.retention.age?)));
            let ages: Vec<String> = ages.map(|(topic, age)| format!("`{topic}` for {} s", age.as_secs())).collect();
            if !ages.is_empty() {
                let message = format!("after a start service `{name}` knows only what its inputs still keep");
                let note = format!("events that were read are kept: {}", ages.join(", "));
                let diagnostic = Diagnostic::warning("state-memory-retention", message).note(note);
                let label = "give these topics `retention: forever`, bound the state with `ttl`, or keep it in the log";
                self.report(keep.span, diagnostic.label(label));
            }
        }
        true
    }

    fn late(&mut self, name: &Spanned<Name>, settings: &ServiceSettings, timed: bool, query: Option<&Query>) -> Late {
        let Some(late) = &settings.late else { return Late::default() };
        // Where rows of a table are updated with each event, a late one is an event like others.
        let counts = query.is_some_and(|query| query.updates().is_some());
        match late.value {
            LateSettings::DeadLetter if timed => return Late::DeadLetter,
            LateSettings::Drop if timed => return Late::Drop,
            LateSettings::Update if timed => {
                if let Some(diagnostic) = self.late_refused(settings, query) {
                    self.report(late.span, diagnostic);
                }
                return Late::Update;
            }
            LateSettings::Update if counts => return Late::Update,
            _ => {}
        }
        let message = format!("service `{}` says what becomes of late events, and none can be late for it", name.value);
        let note = "it takes each event as it comes; only windows, timers and what else waits for event time do not";
        let diagnostic = Diagnostic::error("late-without-window", message).note(note);
        self.report(late.span, diagnostic.label("leave `late` out"));
        Late::default()
    }

    /// Why late events cannot update what went out: they do so for windows' rows in a table, as long as these are kept.
    fn late_refused(&self, settings: &ServiceSettings, query: Option<&Query>) -> Option<Diagnostic> {
        let refused = |message: String| Diagnostic::error("late-update", message);
        let otherwise = "write `dead_letter` or `drop`";
        let Some(query) = query else {
            let message = "a late event cannot update what the timers of a fold have given out".to_owned();
            return Some(refused(message).label(otherwise));
        };
        if let Some(step) = query.refuses_late() {
            let message = format!("a late event cannot update what this step has given out: {step}");
            let note = "windows of tumble(), hop() and cumulate() with GROUP BY can be updated";
            return Some(refused(message).note(note).label(otherwise));
        }
        if !settings.to.as_ref().is_some_and(|to| self.is_table(&to.value)) {
            let message = "late events update results that went out, and only a table replaces its rows".to_owned();
            let label = format!("write to a topic with `kind: table`, or {otherwise}");
            return Some(refused(message).label(label));
        }
        if settings.state.as_ref().is_some_and(|state| state.ttl.is_some()) {
            return None;
        }
        let message = "for how long late events update a window is not said".to_owned();
        Some(refused(message).label("say it, as in `state: {ttl: 1h}`"))
    }

    /// The database that keeps the state.
    fn store(&mut self, name: &Spanned<Name>, settings: &ServiceSettings, stateful: bool) -> Option<PostgresState> {
        let postgres = settings.state.as_ref()?.postgres.as_ref()?;
        if !stateful {
            let message =
                format!("service `{}` keeps nothing: what it does with an event depends on no other", name.value);
            let diagnostic = Diagnostic::error("state-unused", message);
            self.report(postgres.span, diagnostic.label("leave `postgres` out"));
            return None;
        }
        if self.config.state.backup.is_some() {
            let message = format!("the pipeline is backed up, and service `{}` keeps its state elsewhere", name.value);
            let note = "a backup copies the log; its state in the database would be of another time, and a service does \
                        not go on with state that is older or younger than its position";
            let diagnostic = Diagnostic::error("state-backup", message).note(note);
            self.report(postgres.span, diagnostic.label("keep the state in the log, or leave `backup` out"));
            return None;
        }
        // The address was looked at when it was read.
        postgres.store(&self.config.pipeline.value).ok()
    }

    /// A topic that is known: a planned one, or the dead letters of a component.
    pub(super) fn known_spec(&self, topic: &Name) -> Option<TopicSpec> {
        let planned = self.topics.get(topic).map(|topic| topic.spec.clone());
        planned.or_else(|| if self.unknown.contains(topic) { None } else { self.letters(topic) })
    }

    /// The topic that a name in `from` means.
    pub(super) fn input_topic(&mut self, who: &str, from: &Spanned<Name>) -> Option<TopicSpec> {
        if let Some(spec) = self.known_spec(&from.value) {
            return Some(spec);
        }
        if self.unknown.contains(&from.value) {
            return None;
        }
        if self.settings(&from.value).is_some() {
            let message = format!("{who} reads topic `{}`, which nobody writes", from.value);
            let label = "declare its columns, or let a service write it";
            self.report(from.span, Diagnostic::error("topic-columns", message).label(label));
            return None;
        }
        let known: Vec<String> = self.topics.keys().chain(self.writers.keys()).map(ToString::to_string).collect();
        let message = format!("{who} reads topic `{}`, which no line defines", from.value);
        let label = did_you_mean(from.value.as_str(), known.iter().map(String::as_str));
        self.report(from.span, Diagnostic::error("topic-unknown", message).label_if(label));
        None
    }

    /// The dead letters of a service or source of this pipeline.
    pub(super) fn letters(&self, topic: &Name) -> Option<TopicSpec> {
        let owner = letters_of(topic)?;
        if let Some(service) = self.services.iter().find(|s| s.name == owner) {
            let lead = self.known_spec(service.inputs.first()?)?;
            let specs = dead_letter::service_topics(&owner, lead.partitions).ok()?;
            return specs.into_iter().find(|s| s.name == *topic);
        }
        self.config.sources.iter().find(|(n, _)| n.value == owner)?;
        dead_letter::source_topics(&owner, 1).ok()?.into_iter().find(|s| s.name == *topic)
    }

    /// Rows of inputs that are read as one have their event time in one column: which of two an event is meant by, nobody
    /// could tell behind the service.
    fn times_differ(&mut self, name: &Name, from: &[Spanned<Name>]) {
        let time = |from: &Spanned<Name>| {
            let time = self.topics.get(&from.value)?.event_time.as_ref()?;
            Some((from.value.clone(), time.column.clone(), time.plus_us))
        };
        let times: Vec<_> = from.iter().filter_map(|from| Some((from.span, time(from)?))).collect();
        let Some((_, (lead, column, plus))) = times.first().cloned() else { return };
        let other = times.into_iter().find(|(_, (_, other, added))| (other, added) != (&column, &plus));
        if let Some((span, (topic, other, _))) = other {
            let message = format!("service `{name}` reads topics with different event times");
            let note = format!("`{lead}`: {column}\n`{topic}`: {other}");
            let diagnostic = Diagnostic::error("event-times-differ", message).note(note);
            let label = "give both the same `event_time`, or read each in a service that names its time alike";
            self.report(span, diagnostic.label(label));
        }
    }

    /// The one input of several topics: they have the same columns, partitions and key.
    fn input(&mut self, name: &Name, kind: &str, from: &[Spanned<Name>]) -> Option<TopicSpec> {
        let who = format!("{kind} `{name}`");
        let specs: Vec<Option<TopicSpec>> = from.iter().map(|f| self.input_topic(&who, f)).collect();
        // All inputs have the same columns, so those that are known tell them; the others have had their error.
        let (specs, from): (Vec<TopicSpec>, Vec<&Spanned<Name>>) =
            specs.into_iter().zip(from).filter_map(|(spec, from)| Some((spec?, from))).unzip();
        let lead = specs.first()?.clone();
        for (spec, from) in specs.iter().zip(from).skip(1) {
            if spec.schema != lead.schema {
                let message = format!("{who} reads topics with different columns");
                let (a, b) = (format!("`{}`", lead.name), format!("`{}`", spec.name));
                let note = side_by_side(&a, &lead.schema, &b, &spec.schema);
                self.report(from.span, Diagnostic::error("columns-differ", message).note(note));
                return None;
            }
            if (spec.partitions, &spec.key) != (lead.partitions, &lead.key) {
                let message = format!("{who} reads topics that are not partitioned alike");
                let line =
                    |s: &TopicSpec| format!("`{}`: {} partitions by [{}]", s.name, s.partitions, s.key.join(", "));
                let note = format!("{}\n{}", line(&lead), line(spec));
                let diagnostic = Diagnostic::error("not-co-partitioned", message).note(note);
                self.report(from.span, diagnostic.label("give both the same `partitions` and `key`"));
                return None;
            }
        }
        Some(lead)
    }

    fn rules(&mut self, settings: &ServiceSettings, schema: &Schema) -> Option<Option<Rules>> {
        if settings.check.is_empty() {
            return Some(None);
        }
        let rules: Vec<(String, String)> =
            settings.check.iter().map(|(name, sql)| (name.value.clone(), sql.text.clone())).collect();
        match plan_rules(&rules, schema) {
            Ok(rules) => Some(Some(rules)),
            Err(errors) => {
                for (i, error) in errors {
                    if let Some((_, sql)) = settings.check.get(i) {
                        self.sql_error(sql, &error);
                    }
                }
                None
            }
        }
    }

    fn query(&mut self, name: &Spanned<Name>, settings: &ServiceSettings, schema: &Schema) -> Option<Option<Query>> {
        let Some(sql) = &settings.sql else { return Some(None) };
        let from = settings.from.first()?;
        if !self.lookups_known(settings) {
            return None;
        }
        let mut catalog = self.catalog.clone();
        // A lookup may have the name of its topic: who does not read the topic means the lookup.
        let read = |name: &Name| settings.from.iter().any(|from| from.value == *name);
        for name in self.catalog.lookups.keys().filter(|name| !read(name)) {
            catalog.topics.remove(name);
            catalog.tables.remove(name);
            catalog.event_times.remove(name);
        }
        catalog.topics.insert(from.value.clone(), schema.clone());
        let ttl = settings.state.as_ref().and_then(|state| state.ttl);
        catalog.state_ttl_us = ttl.and_then(|ttl| i64::try_from(ttl.as_micros()).ok());
        catalog.order = match settings.order {
            Some(OrderSettings::EventTime) => Order::EventTime,
            _ => Order::Arrival,
        };
        catalog.updating = settings.to.as_ref().is_some_and(|to| self.is_table(&to.value));
        let update = settings.late.as_ref().is_some_and(|late| late.value == LateSettings::Update);
        catalog.late_us = update.then(|| catalog.state_ttl_us.unwrap_or(0));
        let listed: BTreeSet<&Name> = settings.from.iter().map(|f| &f.value).collect();
        match plan_query(&sql.text, &catalog) {
            Ok(query) if query.inputs().iter().collect::<BTreeSet<_>>() == listed => Some(Some(query)),
            Ok(query) => {
                let named: Vec<String> = query.inputs().iter().map(|n| format!("`{n}`")).collect();
                let listed: Vec<String> = listed.iter().map(|n| format!("`{n}`")).collect();
                let (named_text, listed) = (named.join(", "), listed.join(", "));
                let message = format!("the SQL of service `{}` reads {named_text}, not {listed}", name.value);
                let label = format!("write `from: {}`, or change the SQL", named.join(", ").replace('`', ""));
                self.report(from.span, Diagnostic::error("from-differs", message).label(label));
                None
            }
            Err(errors) => {
                errors.iter().for_each(|e| self.sql_error(sql, e));
                None
            }
        }
    }

    fn output(&mut self, settings: &ServiceSettings, schema: &Schema) -> Option<Output> {
        let Some(route) = &settings.route else { return Some(Output::To(settings.to.as_ref()?.value.clone())) };
        let listed: Vec<Name> = route.targets.iter().flatten().map(|t| t.value.clone()).collect();
        let cases: Vec<Option<RouteCase>> = route
            .cases()
            .iter()
            .map(|c| Some(RouteCase { when: c.when.text.clone(), to: self.target(&c.to, &listed)? }))
            .collect();
        let otherwise = match route.otherwise_topic() {
            Some(to) => RouteOtherwise::To(self.target(to, &[])?),
            None if route.otherwise.value == "drop" => RouteOtherwise::Drop,
            None => RouteOtherwise::DeadLetter,
        };
        let cases: Vec<RouteCase> = cases.into_iter().collect::<Option<_>>()?;
        let mode = if route.first.is_some() { RouteMode::First } else { RouteMode::All };
        match plan_routes(mode, &cases, &otherwise, schema) {
            Ok(routes) => Some(Output::Route(Arc::<Routes>::new(routes))),
            Err(errors) => {
                for (i, error) in errors {
                    match route.cases().get(i) {
                        Some(case) if error.code.starts_with("route") => self.sql_error_at(case.to.span, &error),
                        Some(case) => self.sql_error(&case.when, &error),
                        None => self.sql_error_at(route.otherwise.span, &error),
                    }
                }
                None
            }
        }
    }

    fn target(&mut self, to: &Spanned<String>, listed: &[Name]) -> Option<RouteTarget> {
        if to.value.contains('{') {
            if listed.is_empty() {
                let message = format!("`{}` is a template, and the route does not list its topics", to.value);
                let label = "add `targets: [...]` to the route, with every topic that may come out";
                self.report(to.span, Diagnostic::error("route-targets", message).label(label));
                return None;
            }
            return Some(RouteTarget::Template { text: to.value.clone(), topics: matching(&to.value, listed) });
        }
        match Name::new(&to.value) {
            Ok(name) => Some(RouteTarget::Topic(name)),
            Err(error) => {
                self.report(to.span, Diagnostic::error("bad-name", error.to_string()));
                None
            }
        }
    }

    pub(super) fn sql_error(&mut self, sql: &Sql, error: &SqlError) {
        let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let span = error.span.map_or(sql.span, |s| {
            sql.locate((number(s.start.0), number(s.start.1)), (number(s.end.0), number(s.end.1)))
        });
        self.sql_error_at(span, error);
    }

    pub(super) fn sql_error_at(&mut self, span: Span, error: &SqlError) {
        self.report(span, Diagnostic::error(error.code, error.message.clone()).label_if(error.help.clone()));
    }

    /// Results that update go to a table topic with their key: a later row replaces the one with the same key.
    fn updated(&mut self, name: &Name, outputs: &[Spanned<Name>], query: &Query) {
        let (Some(updates), Some(to)) = (query.updates(), outputs.first()) else { return };
        let Some(key) = self.topics.get(&to.value).map(|topic| topic.spec.key.clone()) else { return };
        // Where a window's end is in the key, its start may be there as well.
        let fits = |column: &String| updates.contains(&column.as_str()) || query.is_window(column);
        let same = updates.iter().all(|column| key.iter().any(|c| c == column)) && key.iter().all(fits);
        if !same {
            let (key, updates) = (key.join(", "), updates.join(", "));
            let message =
                format!("service `{name}` updates its results by ({updates}); the key of `{}` is ({key})", to.value);
            let label = format!("give topic `{}` the `key: [{updates}]`", to.value);
            self.report(to.span, Diagnostic::error("table-key", message).label(label));
        }
    }

    /// Rows of a table go on as they are: what replaces or removes one does so there too, if the key is the same.
    fn copied(&mut self, name: &Name, outputs: &[Spanned<Name>], own: &[String]) {
        for to in outputs {
            let Some(key) = self.topics.get(&to.value).map(|topic| topic.spec.key.clone()) else { continue };
            if key != own {
                let (key, own) = (key.join(", "), own.join(", "));
                let message =
                    format!("service `{name}` copies a table with the key ({own}); that of `{}` is ({key})", to.value);
                let label = format!("give topic `{}` the `key: [{own}]`", to.value);
                self.report(to.span, Diagnostic::error("table-key", message).label(label));
            }
        }
    }

    /// Enters a reader.
    pub(super) fn read(&mut self, who: &Name, from: &[Name]) {
        for from in from {
            if let Some(topic) = self.topics.get_mut(from) {
                topic.readers.push(who.clone());
                topic.spec.consumers.push(who.clone());
            }
        }
    }
}

/// The listed topics that a template can give.
fn matching(template: &str, listed: &[Name]) -> Vec<Name> {
    let before = template.split('{').next().unwrap_or_default();
    let behind = template.rsplit('}').next().unwrap_or_default();
    let fits = |n: &&Name| n.as_str().starts_with(before) && n.as_str().ends_with(behind);
    listed.iter().filter(fits).cloned().collect()
}

fn lead_event_time(planner: &Planner<'_>, settings: &ServiceSettings) -> Option<EventTime> {
    planner.topics.get(&settings.from.first()?.value)?.event_time.clone()
}

fn otherwise_of(otherwise: &Otherwise) -> Else {
    match otherwise {
        Otherwise::DeadLetter => Else::DeadLetter,
        Otherwise::Drop => Else::Drop,
        Otherwise::Tag => Else::Tag,
        Otherwise::Topic(name) => Else::Topic(name.clone()),
    }
}

fn cases(route: Option<&RouteSettings>) -> Vec<(String, String)> {
    let Some(route) = route else { return Vec::new() };
    let cases = route.cases().iter().map(|c| (c.when.text.clone(), c.to.value.clone()));
    cases.chain([("otherwise".to_owned(), route.otherwise.value.clone())]).collect()
}
