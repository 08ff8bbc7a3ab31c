//! Sources and sinks, and what is left over: what nobody reads, uses or writes.

use std::collections::BTreeSet;

use millstream_service::event::Name;

use super::{Planner, Sink, Source, define};
use crate::config::{Format, HttpSourceSettings, SinkSettings, Spanned};
use crate::diagnostic::{Diagnostic, did_you_mean};

impl Planner<'_> {
    pub(super) fn sources(&mut self) {
        let config = self.config;
        let mut paths: Vec<&Spanned<String>> = Vec::new();
        for (name, settings) in &config.sources {
            let to = &settings.to;
            let declared = self.settings(&to.value).is_some_and(|s| s.columns.is_some());
            let topic = self.topics.get(&to.value).filter(|_| declared);
            let Some((schema, event_time)) = topic.map(|t| (t.spec.schema.clone(), t.event_time.clone())) else {
                let message =
                    format!("source `{}` writes topic `{}`, whose columns are not declared", name.value, to.value);
                let names: Vec<&str> =
                    config.topics.iter().filter(|(_, s)| s.columns.is_some()).map(|(n, _)| n.value.as_str()).collect();
                let label = did_you_mean(to.value.as_str(), names)
                    .unwrap_or_else(|| format!("add `topics: {{{}: {{columns: …}}}}`", to.value));
                self.report(to.span, Diagnostic::error("topic-columns", message).label(label));
                continue;
            };
            if let Some(topic) = self.topics.get_mut(&to.value) {
                topic.writers.insert(0, name.value.clone());
            }
            if let Some(http) = &settings.http {
                if let Some(first) = paths.iter().find(|p| p.value == http.path.value) {
                    let place = self.loaded.sources.place(first.span);
                    let message = format!("two sources listen at `{}`", http.path.value);
                    self.report(http.path.span, Diagnostic::error("path-twice", message).related(place, "first here"));
                }
                paths.push(&http.path);
                self.reply(&name.value, http, &to.value);
            }
            let definition = define::source(settings, &schema, event_time.as_ref(), &self.loaded.dir);
            let (name, settings) = (name.value.clone(), settings.clone());
            self.sources.push(Source { name, settings, schema, event_time, definition });
        }
    }

    /// The topics of a reply exist and have the column that is matched.
    fn reply(&mut self, name: &Name, http: &HttpSourceSettings, to: &Name) {
        let Some(reply) = &http.reply else { return };
        let who = format!("the reply of source `{name}`");
        let input = Spanned { value: to.clone(), span: reply.matching.span };
        for from in reply.from.iter().chain([&input]) {
            let Some(spec) = self.input_topic(&who, from) else { continue };
            if spec.schema.column(&reply.matching.value).is_none() {
                let names = spec.schema.columns().iter().map(|c| c.name.as_str());
                let label = did_you_mean(&reply.matching.value, names);
                let message = format!("topic `{}` has no column `{}` to match", from.value, reply.matching.value);
                let note = format!("columns: {}", spec.schema);
                let diagnostic = Diagnostic::error("column-unknown", message).label_if(label).note(note);
                self.report(reply.matching.span, diagnostic);
            }
        }
        // Whoever waits for an answer reads, but does not hold events back.
        for from in &reply.from {
            if let Some(topic) = self.topics.get_mut(&from.value) {
                topic.readers.push(name.clone());
            }
        }
    }

    pub(super) fn sinks(&mut self) {
        let config = self.config;
        for (name, settings) in &config.sinks {
            let who = format!("sink `{}`", name.value);
            let specs: Vec<_> = settings.from.iter().map(|f| self.input_topic(&who, f)).collect();
            let Some(specs) = specs.into_iter().collect::<Option<Vec<_>>>().filter(|s| !s.is_empty()) else { continue };
            let inputs: Vec<_> = specs.into_iter().map(|s| (s.name, s.schema)).collect();
            if let Some(file) = &settings.file {
                let clash = self.sinks.iter().find_map(|s| Some((s.settings.file.as_ref()?, clash(s, settings)?)));
                if let Some((first, topic)) = clash {
                    let place = self.loaded.sources.place(first.path.span);
                    let message = format!("two sinks write topic `{topic}` to the same files");
                    let diagnostic = Diagnostic::error("path-twice", message)
                        .related(place, "the other one")
                        .note("files have one writer: the second sink would wait for the first as long as that runs");
                    self.report(file.path.span, diagnostic.label("give each a directory of its own"));
                }
            }
            let from: Vec<Name> = settings.from.iter().map(|f| f.value.clone()).collect();
            self.read(&name.value, &from);
            self.sinks.push(Sink {
                name: name.value.clone(),
                settings: settings.clone(),
                inputs: settings.from.iter().map(|f| f.value.clone()).collect(),
                definition: define::sink(settings, &inputs, &self.loaded.dir),
            });
        }
    }

    /// Warnings about what has no use. Where there are errors, they would mislead.
    pub(super) fn leftovers(&mut self) {
        if self.found.errors() > 0 {
            return;
        }
        let config = self.config;
        let used: BTreeSet<Name> = self.services.iter().flat_map(|s| s.lookups.iter().cloned()).collect();
        for (name, _) in config.lookups.iter().filter(|(n, _)| !used.contains(&n.value)) {
            let message = format!("no SQL joins lookup `{}`", name.value);
            self.report(name.span, Diagnostic::warning("lookup-unused", message).label("leave it out, or join it"));
        }
        let mut unread = Vec::new();
        for (name, topic) in &self.topics {
            let declared = config.topics.iter().find(|(n, _)| n.value == *name).map(|(n, _)| n.span);
            let written = self.writers.get(name).and_then(|w| w.first()).map(|(_, span)| *span);
            let Some(span) = written.or(declared) else { continue };
            if topic.writers.is_empty() {
                unread.push((declared.unwrap_or(span), "topic-unwritten", format!("nobody writes topic `{name}`")));
            } else if topic.readers.is_empty() {
                unread.push((span, "topic-unread", format!("nobody reads topic `{name}`")));
            }
        }
        let stray = config.topics.iter().filter(|(n, _)| !self.topics.contains_key(&n.value));
        unread.extend(
            stray.map(|(n, _)| (n.span, "topic-unused", format!("nobody writes or reads topic `{}`", n.value))),
        );
        for (span, code, message) in unread {
            self.report(span, Diagnostic::warning(code, message));
        }
    }

    /// The topics of tests exist.
    pub(super) fn tests(&mut self) {
        if self.found.errors() > 0 {
            return;
        }
        let config = self.config;
        for test in &config.tests {
            for given in &test.given {
                self.input_topic("a test", &given.topic);
            }
            for expected in &test.expect {
                self.input_topic("a test", &expected.topic);
            }
        }
    }
}

/// The topic that two sinks would write to the same files, if there is one. Directories may be shared: each topic and
/// format has files of its own there.
fn clash<'a>(one: &'a Sink, other: &SinkSettings) -> Option<&'a Name> {
    let (file, files) = (one.settings.file.as_ref()?, other.file.as_ref()?);
    let format = |given: Option<Format>| given.unwrap_or(Format::Ndjson);
    let same = file.path.value == files.path.value && format(file.format) == format(files.format);
    one.inputs.iter().find(|topic| same && other.from.iter().any(|from| from.value == **topic))
}
