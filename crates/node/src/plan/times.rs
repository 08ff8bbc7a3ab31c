//! Event time through the whole pipeline: who tells whom how far time is.
//!
//! A topic's readers can wait for event time only where *each* of its writers passes time on: a source, which decides
//! lateness, or a service whose inputs have it and whose output column with the time follows from theirs. One writer that
//! does not, and nobody could say when an event is still to come: the topic then has a column with times and no watermark.

use std::collections::BTreeSet;

use millstream_service::event::Name;
use millstream_service::{InputTime, Producers, ServiceTime};

use super::{Planner, Service, Topic, define};
use crate::diagnostic::Diagnostic;

impl Planner<'_> {
    /// Gives each service its part in event time. Services come behind those whose output they read.
    pub(super) fn times(&mut self) {
        let mut silent: BTreeSet<Name> = BTreeSet::new();
        let mut times = Vec::with_capacity(self.services.len());
        for service in &self.services {
            let inputs = service.inputs.iter().map(|topic| self.input_time(topic, &silent)).collect::<Option<Vec<_>>>();
            let mut outputs = Vec::new();
            for way in &service.ways {
                let Some(column) = self.event_time(&way.topic) else { continue };
                if inputs.is_some() && way.time.as_deref() == Some(column) {
                    outputs.push(way.topic.clone());
                } else {
                    silent.insert(way.topic.clone());
                }
            }
            let column = |topic: &Name| Some((topic.clone(), self.event_time(topic)?.to_owned()));
            let columns = outputs.iter().filter_map(column).collect();
            times.push(inputs.map(|inputs| ServiceTime { inputs, outputs, columns }));
        }
        for (service, time) in self.services.iter_mut().zip(times) {
            time.iter().for_each(|time| define::time(&mut service.definition, time));
            service.time = time;
        }
        self.silent_topics(&silent);
    }

    fn event_time(&self, topic: &Name) -> Option<&str> {
        Some(self.topics.get(topic)?.event_time.as_ref()?.column.as_str())
    }

    /// Whom readers of a topic wait for; `None` where they cannot.
    fn input_time(&self, topic: &Name, silent: &BTreeSet<Name>) -> Option<InputTime> {
        let known: &Topic = self.topics.get(topic).filter(|t| t.event_time.is_some() && !silent.contains(topic))?;
        let producers = known.writers.iter().map(|writer| self.producers(topic, writer)).collect::<Option<_>>()?;
        Some(InputTime { topic: topic.clone(), producers })
    }

    fn producers(&self, topic: &Name, writer: &Name) -> Option<Producers> {
        if let Some(source) = self.sources.iter().find(|s| s.name == *writer) {
            return Some(Producers { name: writer.clone(), tasks: source.tasks(), in_place: false });
        }
        let service: &Service = self.services.iter().find(|s| s.name == *writer)?;
        let in_place = service.ways.iter().find(|way| way.topic == *topic)?.in_place;
        let tasks = self.topics.get(service.inputs.first()?)?.spec.partitions;
        Some(Producers { name: writer.clone(), tasks, in_place })
    }

    /// Warns of times that were declared and that nobody can wait for.
    fn silent_topics(&mut self, silent: &BTreeSet<Name>) {
        if self.found.errors() > 0 {
            return;
        }
        let config = self.config;
        for (name, settings) in config.topics.iter().filter(|(name, _)| silent.contains(&name.value)) {
            let Some(time) = &settings.event_time else { continue };
            let message =
                format!("nothing can wait for the event time `{}` of topic `{}`", time.column.value, name.value);
            let note = "a service passes time on from its inputs' event time only; one that writes this topic does not";
            let diagnostic = Diagnostic::warning("event-time-silent", message).note(note);
            self.report(time.column.span, diagnostic);
        }
    }
}
