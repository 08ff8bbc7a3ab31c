//! Lookups: those of files, whose columns are declared, and those of table topics, whose columns and key are the topic's.
//!
//! A topic's columns may follow from a service, so a lookup of it is known to SQL as soon as the topic is; that is
//! before whoever joins it is planned. What is wrong with it is said once, at the lookup.

use std::collections::BTreeSet;

use millstream_service::event::{Name, Schema};
use millstream_service::flow::{LookupSchema, relations};
use millstream_service::log::TopicKind;
use millstream_service::{LOOKUP_PARTITIONS_MAX, lookup_input};

use super::{Lookup, Planner, define};
use crate::config::{LookupSettings, ServiceSettings, Spanned};
use crate::diagnostic::Diagnostic;

impl Planner<'_> {
    /// Enters the lookups of files.
    pub(super) fn lookups(&mut self) {
        let config = self.config;
        for (name, settings) in config.lookups.iter().filter(|(_, settings)| settings.file.is_some()) {
            let columns = settings.columns.iter().map(|(c, _)| c.clone()).collect();
            // The columns were checked when they were read.
            let Ok(schema) = Schema::new(columns) else { continue };
            let key = settings.key.iter().map(|k| k.value.clone()).collect();
            self.enter(name, settings, LookupSchema { schema, key });
        }
    }

    /// Lets SQL join the lookups of a topic that is known now.
    pub(super) fn lookups_of(&mut self, topic: &Name, schema: &Schema, key: &[String]) {
        let of_topic = |settings: &LookupSettings| settings.topic.as_ref().is_some_and(|named| named.value == *topic);
        for (name, _) in self.config.lookups.iter().filter(|(_, settings)| of_topic(settings)) {
            let schema = LookupSchema { schema: schema.clone(), key: key.to_vec() };
            self.catalog.lookups.insert(name.value.clone(), schema);
        }
    }

    /// Enters the lookups of topics, now that all topics are known, and says what is wrong with them.
    pub(super) fn table_lookups(&mut self) {
        let config = self.config;
        for (name, settings) in &config.lookups {
            let Some(topic) = &settings.topic else { continue };
            let called = &name.value;
            let Some(spec) = self.input_topic(&format!("lookup `{called}`"), topic) else { continue };
            if spec.kind != TopicKind::Table {
                let message = format!("lookup `{called}` is of topic `{}`, which is no table", topic.value);
                let note = "a lookup finds the newest row of a key; a stream has every row of it";
                let label = format!("give the topic `kind: table` and a `key`, or join `{}` in `from`", topic.value);
                self.report(topic.span, Diagnostic::error("lookup-not-table", message).label(label).note(note));
                continue;
            }
            self.lookup_key(name, settings, &spec.key);
            if spec.partitions > LOOKUP_PARTITIONS_MAX {
                let message = format!("lookup `{called}` is of a topic with {} partitions", spec.partitions);
                let label = format!("at most {LOOKUP_PARTITIONS_MAX}: each task notes how far it has met each of them");
                self.report(topic.span, Diagnostic::error("lookup-partitions", message).label(label));
            }
            if let Err(error) = lookup_input(&name.value) {
                let message = format!("the name of lookup `{called}` is too long: {error}");
                self.report(name.span, Diagnostic::error("bad-name", message).label("choose a shorter one"));
            }
            self.enter(name, settings, LookupSchema { schema: spec.schema, key: spec.key });
        }
        let place = |lookup: &Lookup| config.lookups.iter().position(|(name, _)| name.value == lookup.name);
        self.lookups.sort_by_key(place);
    }

    /// The key of a lookup of a topic is the topic's: only so a key finds at most one row.
    fn lookup_key(&mut self, name: &Spanned<Name>, settings: &LookupSettings, key: &[String]) {
        let said: BTreeSet<&str> = settings.key.iter().map(|k| k.value.as_str()).collect();
        let is: BTreeSet<&str> = key.iter().map(String::as_str).collect();
        let Some(first) = settings.key.first().filter(|_| said != is) else { return };
        let called = &name.value;
        let (key, said) =
            (key.join(", "), settings.key.iter().map(|k| k.value.as_str()).collect::<Vec<_>>().join(", "));
        let message = format!("the key of lookup `{called}` is ({said}), and that of its topic is ({key})");
        let note = "a table has the newest row of each of its keys, so only such a key finds one row";
        let label = format!("write `key: [{key}]`, or let a service write a table with `key: [{said}]`");
        self.report(first.span, Diagnostic::error("lookup-key", message).label(label).note(note));
    }

    fn enter(&mut self, name: &Spanned<Name>, settings: &LookupSettings, schema: LookupSchema) {
        self.catalog.lookups.insert(name.value.clone(), schema.clone());
        let definition = define::lookup(settings, &schema, &self.loaded.dir);
        let topic = settings.topic.as_ref().map(|topic| topic.value.clone());
        let name = name.value.clone();
        self.lookups.push(Lookup { name, schema, topic, settings: settings.clone(), definition });
    }

    /// The lookups of topics that the SQL of a service names, with these topics.
    pub(super) fn tables_joined(&self, settings: &ServiceSettings) -> Vec<(Name, Name)> {
        let Some(sql) = &settings.sql else { return Vec::new() };
        let named = relations(&sql.text);
        let is_named = |name: &Name| named.iter().any(|named| named.eq_ignore_ascii_case(name.as_str()));
        let read = |name: &Name| settings.from.iter().any(|from| from.value == *name);
        let lookups = self.config.lookups.iter().filter(|(name, _)| is_named(&name.value) && !read(&name.value));
        lookups.filter_map(|(name, lookup)| Some((name.value.clone(), lookup.topic.as_ref()?.value.clone()))).collect()
    }

    /// Whether what a service joins is known; if not, that was said where the topic is.
    pub(super) fn lookups_known(&self, settings: &ServiceSettings) -> bool {
        self.tables_joined(settings).iter().all(|(lookup, _)| self.catalog.lookups.contains_key(lookup))
    }

    /// Enters a service as a reader of the topics in which it looks rows up.
    pub(super) fn looks_up(&mut self, name: &Name, settings: &ServiceSettings, lookups: &[Name]) {
        for lookup in lookups {
            let found = self.config.lookups.iter().find(|(name, _)| name.value == *lookup);
            let Some(topic) = found.and_then(|(_, settings)| settings.topic.as_ref()) else { continue };
            if let Some(from) = settings.from.iter().find(|from| from.value == topic.value) {
                let message = format!("service `{name}` reads topic `{}` and looks rows up in it", topic.value);
                let note =
                    "which of its rows a lookup finds when one comes in would depend on which of the two is faster";
                let label = format!("leave it out of `from`, or leave lookup `{lookup}` out of the SQL");
                self.report(from.span, Diagnostic::error("lookup-from", message).label(label).note(note));
            }
            // It holds nothing back in the topic: what it has read it does not need again but for the newest rows.
            if let Some(topic) = self.topics.get_mut(&topic.value).filter(|topic| !topic.readers.contains(name)) {
                topic.readers.push(name.clone());
            }
        }
    }
}
