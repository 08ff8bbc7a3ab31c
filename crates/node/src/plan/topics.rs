//! Topics: declared ones, and those that writers create, with columns, key, partitions and event time.

use millstream_service::event::{Name, Schema};
use millstream_service::flow::TimeColumn;
use millstream_service::log::{Retention, TopicKind, TopicSpec};

use super::{EventTime, Planner, Topic};
use crate::config::{RetentionSettings, Span, TopicKindSettings, TopicSettings, UnknownFields};
use crate::diagnostic::{Diagnostic, did_you_mean};

/// What a writer knows of the topic it writes.
pub(super) struct Written<'a> {
    /// The columns.
    pub(super) schema: &'a Schema,
    /// The event time, where the writer passes one on.
    pub(super) event_time: Option<EventTime>,
    /// The key of the writer's input under its names in the output, where all of it is passed on.
    pub(super) key: Option<Vec<String>>,
    /// The partitions of the writer's input.
    pub(super) partitions: u32,
}

impl Planner<'_> {
    pub(super) fn settings(&self, topic: &Name) -> Option<&TopicSettings> {
        self.config.topics.iter().find(|(n, _)| n.value == *topic).map(|(_, s)| s)
    }

    /// The columns that a topic declares, with `_extra` where a source keeps unknown fields.
    fn declared(&self, name: &Name) -> Option<Schema> {
        let columns = self.settings(name)?.columns.as_ref()?;
        let schema = Schema::new(columns.iter().map(|(c, _)| c.clone()).collect()).ok()?;
        let keeps = |s: &crate::config::SourceSettings| s.to.value == *name && s.unknown == UnknownFields::Keep;
        Some(if self.config.sources.iter().any(|(_, s)| keeps(s)) { schema.with_extra() } else { schema })
    }

    /// Makes the topics whose columns are declared.
    pub(super) fn declared_topics(&mut self) {
        let config = self.config;
        for (name, settings) in &config.topics {
            let Some(schema) = self.declared(&name.value) else { continue };
            let event_time = settings.event_time.as_ref().and_then(|t| {
                self.event_time_column(&schema, &t.column.value, t.column.span)?;
                Some(EventTime::from(t))
            });
            let partitions = self.partitions(&name.value, 1);
            let key = self.key(&name.value, &schema, None);
            self.insert(&name.value, schema, key, partitions, event_time);
        }
    }

    fn event_time_column(&mut self, schema: &Schema, column: &str, span: Span) -> Option<()> {
        use millstream_service::event::ColumnType;
        match schema.column(column) {
            Some((_, c)) if matches!(c.kind, ColumnType::Timestamp | ColumnType::Date) => Some(()),
            Some((_, c)) => {
                let message = format!("the event time `{column}` is a {}", c.kind);
                self.report(span, Diagnostic::error("event-time-type", message).label("it must be a timestamp"));
                None
            }
            None => {
                let names = schema.columns().iter().map(|c| c.name.as_str());
                let message = format!("the event time `{column}` is no column of this topic");
                let label = did_you_mean(column, names);
                self.report(span, Diagnostic::error("column-unknown", message).label_if(label));
                None
            }
        }
    }

    fn partitions(&self, name: &Name, inherited: u32) -> u32 {
        let own = self.settings(name).and_then(|s| s.partitions.as_ref());
        let chosen = own.or(self.config.defaults.topic.partitions.as_ref());
        chosen.and_then(|p| u32::try_from(p.value).ok()).unwrap_or(inherited).max(1)
    }

    /// Whether the file makes a topic a table.
    pub(super) fn is_table(&self, name: &Name) -> bool {
        let kind = self.settings(name).and_then(|s| s.kind.as_ref());
        kind.is_some_and(|kind| kind.value == TopicKindSettings::Table)
    }

    /// A topic's key: its own, else the default where the topic has its columns, else the one of the writer's input.
    fn key(&mut self, name: &Name, schema: &Schema, passed: Option<&[String]>) -> Vec<String> {
        let config = self.config;
        let settings = config.topics.iter().find(|(n, _)| n.value == *name).map(|(_, s)| s);
        if let Some(key) = settings.and_then(|s| s.key.as_ref()) {
            for column in key.iter().filter(|k| schema.column(&k.value).is_none()) {
                let names = schema.columns().iter().map(|c| c.name.as_str());
                let label = did_you_mean(&column.value, names);
                let message =
                    format!("the key of topic `{name}` names `{}`, which is none of its columns", column.value);
                let note = format!("columns: {schema}");
                self.report(column.span, Diagnostic::error("column-unknown", message).label_if(label).note(note));
            }
            return key.iter().map(|k| k.value.clone()).collect();
        }
        // The newest row of each key: the default is about where events are, not about what they are.
        if let Some(passed) = passed.filter(|passed| self.is_table(name) && !passed.is_empty()) {
            return passed.to_vec();
        }
        let Some(key) = &config.defaults.topic.key else { return passed.unwrap_or_default().to_vec() };
        if key.iter().all(|k| schema.column(&k.value).is_some()) {
            return key.iter().map(|k| k.value.clone()).collect();
        }
        if let Some(passed) = passed.filter(|p| !p.is_empty()) {
            return passed.to_vec();
        }
        if let Some(missing) = key.iter().find(|k| schema.column(&k.value).is_none()) {
            let message =
                format!("topic `{name}` has no column `{}`, so the default key does not fit it", missing.value);
            let diagnostic = Diagnostic::warning("key-default", message);
            let label = format!("give it a `key:` of its own under `topics: {{{name}: …}}`; `[]` for none");
            self.report(missing.span, diagnostic.label(label));
        }
        Vec::new()
    }

    pub(super) fn insert(
        &mut self,
        name: &Name,
        schema: Schema,
        key: Vec<String>,
        partitions: u32,
        event_time: Option<EventTime>,
    ) {
        let retention = self.settings(name).and_then(|s| s.retention.clone());
        let retention = retention.or_else(|| self.config.defaults.topic.retention.clone());
        let kind = self.settings(name).and_then(|s| s.kind.clone());
        let table = self.is_table(name);
        if let Some(kind) = kind.filter(|_| table && key.is_empty()) {
            let message = format!("topic `{name}` is a table and has no key: it holds the newest event of each key");
            self.report(kind.span, Diagnostic::error("table-key", message).label("give it a `key`"));
        }
        let spec = TopicSpec {
            name: name.clone(),
            partitions,
            key,
            schema: schema.clone(),
            kind: if table { TopicKind::Table } else { TopicKind::Stream },
            retention: retention.map(kept).unwrap_or_default(),
            consumers: Vec::new(),
        };
        self.lookups_of(name, &schema, &spec.key);
        self.catalog.topics.insert(name.clone(), schema);
        if table {
            self.catalog.tables.insert(name.clone(), spec.key.clone());
        }
        if let Some(time) = &event_time {
            let time = TimeColumn { name: time.column.clone(), plus_us: time.plus_us };
            self.catalog.event_times.insert(name.clone(), time);
        }
        let topic = Topic { spec, event_time, writers: Vec::new(), readers: Vec::new() };
        self.topics.insert(name.clone(), topic);
    }

    /// Enters what a writer writes: creates the topic, or compares with what others write and what is declared.
    pub(super) fn write(&mut self, who: &Name, name: &Name, written: &Written<'_>) {
        let pinned = self.declared(name).is_some();
        if let Some(topic) = self.topics.get_mut(name) {
            if topic.spec.schema == *written.schema {
                topic.writers.push(who.clone());
                return;
            }
            let other = topic.writers.first().cloned();
            let theirs = topic.spec.schema.clone();
            self.differs(who, name, written.schema, other.as_ref().filter(|_| !pinned), &theirs);
            return;
        }
        let declared = self.settings(name).and_then(|s| s.event_time.clone());
        let event_time = match declared {
            Some(declared) => {
                self.event_time_column(written.schema, &declared.column.value, declared.column.span);
                Some(EventTime::from(&declared))
            }
            None => written.event_time.clone(),
        };
        let key = self.key(name, written.schema, written.key.as_deref());
        let partitions = self.partitions(name, written.partitions);
        self.insert(name, written.schema.clone(), key, partitions, event_time);
        if let Some(topic) = self.topics.get_mut(name) {
            topic.writers.push(who.clone());
        }
    }

    fn differs(&mut self, who: &Name, name: &Name, ours: &Schema, other: Option<&Name>, theirs: &Schema) {
        let Some(span) = self.writer_span(name, who) else { return };
        let by = other.map_or_else(|| "declared".to_owned(), |o| format!("`{o}`"));
        let message = match other {
            Some(other) => format!("`{who}` and `{other}` write different columns to topic `{name}`"),
            None => format!("`{who}` writes other columns to topic `{name}` than it declares"),
        };
        let diagnostic =
            Diagnostic::error("columns-differ", message).note(side_by_side(&by, theirs, &format!("`{who}`"), ours));
        let first = other.and_then(|o| self.writer_span(name, o)).map(|s| self.loaded.sources.place(s));
        let diagnostic = match first {
            Some(place) => diagnostic.related(place, "the other one"),
            None => diagnostic,
        };
        self.report(span, diagnostic);
    }
}

fn kept(settings: RetentionSettings) -> Retention {
    Retention { until_read: settings.until_read, age: settings.age, max_bytes: settings.max_bytes }
}

/// Two schemas in two columns; lines that differ are marked.
pub(crate) fn side_by_side(left: &str, a: &Schema, right: &str, b: &Schema) -> String {
    let text = |s: &Schema, i: usize| s.columns().get(i).map(ToString::to_string).unwrap_or_default();
    let rows: Vec<(String, String)> =
        (0..a.columns().len().max(b.columns().len())).map(|i| (text(a, i), text(b, i))).collect();
    let width = rows.iter().map(|(l, _)| l.chars().count()).chain([left.chars().count()]).max().unwrap_or(0);
    let mut out = format!("  {left:width$}  {right}");
    for (l, r) in rows {
        let mark = if l == r { ' ' } else { '!' };
        out.push_str(format!("\n{mark} {l:width$}  {r}").trim_end());
    }
    out
}
