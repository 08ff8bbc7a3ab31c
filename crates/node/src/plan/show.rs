//! The pipeline as written: as text, as a picture (Graphviz, Mermaid), as JSON.

use millstream_service::event::Name;
use millstream_service::{Else, StateStore};
use serde_json::{Value, json};

use super::{Lookup, Pipeline, Service, Source};

/// One line more.
macro_rules! say {
    ($out:expr, $($arg:tt)*) => {{
        $out.push_str(&format!($($arg)*));
        $out.push('\n');
    }};
}

/// A node of the picture.
struct Part<'a> {
    name: &'a Name,
    shape: Shape,
}

#[derive(Clone, Copy)]
enum Shape {
    Source,
    Service,
    Sink,
}

impl Source {
    /// Whether it has an end.
    pub fn bounded(&self) -> bool {
        let s = &self.settings;
        match (&s.file, &s.generate) {
            (Some(file), _) => !file.follow,
            (_, Some(generate)) => generate.count.is_some(),
            _ => s.stdin.is_some(),
        }
    }

    /// `http`, `file`, `stdin` or `generate`.
    pub fn kind(&self) -> &'static str {
        let s = &self.settings;
        match (&s.http, &s.file, &s.stdin) {
            (Some(_), ..) => "http",
            (_, Some(_), _) => "file",
            (.., Some(_)) => "stdin",
            _ => "generate",
        }
    }
}

impl super::Sink {
    /// `file` or `stdout`.
    pub fn kind(&self) -> &'static str {
        if self.settings.file.is_some() { "file" } else { "stdout" }
    }
}

impl Pipeline {
    /// Where the rows of a lookup are.
    fn place(&self, lookup: &Lookup) -> String {
        let file = lookup.settings.file.as_ref().map(|file| super::define::within(&file.path.value, &self.dir));
        match (&lookup.topic, file) {
            (Some(topic), _) => format!("the newest rows of topic {topic}"),
            (None, file) => file.map(|file| file.display().to_string()).unwrap_or_default(),
        }
    }

    /// The lookups of a topic.
    fn lookups_of(&self, topic: &Name) -> impl Iterator<Item = &Lookup> {
        self.lookups.iter().filter(move |lookup| lookup.topic.as_ref() == Some(topic))
    }

    fn parts(&self) -> Vec<Part<'_>> {
        let sources = self.sources.iter().map(|s| Part { name: &s.name, shape: Shape::Source });
        let services = self.services.iter().map(|s| Part { name: &s.name, shape: Shape::Service });
        let sinks = self.sinks.iter().map(|s| Part { name: &s.name, shape: Shape::Sink });
        sources.chain(services).chain(sinks).collect()
    }

    /// Writer, reader and topic of every arrow; a topic that nobody reads ends in itself.
    fn arrows(&self) -> Vec<(&Name, Option<&Name>, &Name)> {
        let mut arrows = Vec::new();
        for (topic, info) in &self.topics {
            let readers: Vec<&Name> = self.readers(topic);
            for writer in &info.writers {
                match readers.is_empty() && self.lookups_of(topic).next().is_none() {
                    true => arrows.push((writer, None, topic)),
                    false => arrows.extend(readers.iter().map(|r| (writer, Some(*r), topic))),
                }
            }
        }
        arrows
    }

    fn readers(&self, topic: &Name) -> Vec<&Name> {
        let services = self.services.iter().filter(|s| s.inputs.contains(topic)).map(|s| &s.name);
        let sinks = self.sinks.iter().filter(|s| s.inputs.contains(topic)).map(|s| &s.name);
        services.chain(sinks).collect()
    }

    /// For people.
    pub fn show_text(&self) -> String {
        let mut out = format!("pipeline {}\n", self.name);
        for source in &self.sources {
            say!(out, "\nsource {} ({}) -> {}", source.name, source.kind(), source.settings.to.value);
        }
        for service in &self.services {
            show_service(&mut out, service);
        }
        for sink in &self.sinks {
            say!(out, "\nsink {} ({}) <- {}", sink.name, sink.kind(), names(&sink.inputs));
        }
        for lookup in &self.lookups {
            say!(out, "\nlookup {} by [{}]\n  {}", lookup.name, lookup.schema.key.join(", "), self.place(lookup));
            columns(&mut out, &lookup.schema.schema);
        }
        for (name, topic) in &self.topics {
            let spec = &topic.spec;
            let key = if spec.key.is_empty() { "no key".to_owned() } else { format!("key [{}]", spec.key.join(", ")) };
            let plural = if spec.partitions == 1 { "" } else { "s" };
            out.push_str(&format!("\ntopic {name}: {} partition{plural}, {key}", spec.partitions));
            if let Some(time) = &topic.event_time {
                out.push_str(&format!(", event time {}", time.column));
            }
            say!(out, "\n  {} -> {}", names(&topic.writers), names(&topic.readers));
            columns(&mut out, &spec.schema);
        }
        out
    }

    /// For Graphviz.
    pub fn show_dot(&self) -> String {
        let mut out = format!("digraph \"{}\" {{\n  rankdir=LR;\n  node [fontname=\"sans-serif\"];\n", self.name);
        for part in self.parts() {
            let shape = match part.shape {
                Shape::Source => "cds",
                Shape::Service => "box",
                Shape::Sink => "folder",
            };
            say!(out, "  \"{}\" [shape={shape}];", part.name);
        }
        for lookup in &self.lookups {
            say!(out, "  \"lookup:{0}\" [shape=cylinder, label=\"{0}\"];", lookup.name);
        }
        for (from, to, topic) in self.arrows() {
            match to {
                Some(to) => say!(out, "  \"{from}\" -> \"{to}\" [label=\"{topic}\"];"),
                None => {
                    say!(out, "  \"topic:{topic}\" [shape=plain, label=\"{topic}\"];");
                    say!(out, "  \"{from}\" -> \"topic:{topic}\";");
                }
            }
        }
        for (topic, info) in &self.topics {
            for (writer, lookup) in info.writers.iter().flat_map(|w| self.lookups_of(topic).map(move |l| (w, l))) {
                say!(out, "  \"{writer}\" -> \"lookup:{}\" [label=\"{topic}\"];", lookup.name);
            }
        }
        for service in &self.services {
            for lookup in &service.lookups {
                say!(out, "  \"lookup:{lookup}\" -> \"{}\" [style=dashed];", service.name);
            }
        }
        out.push_str("}\n");
        out
    }

    /// For Markdown: every topic, and the dead letters of services that refuse on purpose.
    pub fn show_mermaid(&self) -> String {
        let mut out = String::from("flowchart LR\n");
        let id = |name: &Name| name.as_str().replace(['.', '-'], "_");
        for source in &self.sources {
            say!(out, "  p_{}([{}<br>{}])", id(&source.name), source.name, source.kind());
        }
        for service in &self.services {
            say!(out, "  p_{}[{}]", id(&service.name), service.name);
        }
        for sink in &self.sinks {
            say!(out, "  p_{}([{}<br>{}])", id(&sink.name), sink.name, sink.kind());
        }
        for lookup in &self.lookups {
            say!(out, "  l_{}[/{}/]", id(&lookup.name), lookup.name);
        }
        for (topic, info) in &self.topics {
            say!(out, "  t_{}[({topic})]", id(topic));
            info.writers.iter().for_each(|writer| say!(out, "  p_{} --> t_{}", id(writer), id(topic)));
            self.readers(topic).into_iter().for_each(|reader| say!(out, "  t_{} --> p_{}", id(topic), id(reader)));
            self.lookups_of(topic).for_each(|lookup| say!(out, "  t_{} -.-> l_{}", id(topic), id(&lookup.name)));
        }
        for service in &self.services {
            for lookup in &service.lookups {
                say!(out, "  l_{} -.-> p_{}", id(lookup), id(&service.name));
            }
        }
        let services = self.services.iter().map(|s| (&s.name, refuses(s)));
        for (name, refuses) in services.chain(self.sources.iter().map(|s| (&s.name, false))) {
            let Ok(letters) = Name::new(format!("{name}.dlq")) else { continue };
            let readers = self.readers(&letters);
            if refuses || !readers.is_empty() {
                say!(out, "  p_{} -. refused .-> t_{}[({letters})]", id(name), id(&letters));
            }
            readers.into_iter().for_each(|reader| say!(out, "  t_{} --> p_{}", id(&letters), id(reader)));
        }
        out
    }

    /// For programs.
    pub fn show_json(&self) -> Value {
        let service = |s: &Service| {
            json!({
                "name": s.name, "from": s.inputs, "to": s.outputs, "lookups": s.lookups, "columns": s.schema,
                "rules": s.rules.iter().map(|(n, sql)| json!({"name": n, "sql": sql})).collect::<Vec<_>>(),
                "route": s.cases.iter().map(|(when, to)| json!({"when": when, "to": to})).collect::<Vec<_>>(),
                "state": s.store.as_ref().map(StateStore::place), "instances": s.instances, "version": s.definition.version(),
            })
        };
        json!({
            "pipeline": self.name,
            "sources": self.sources.iter().map(|s| json!({
                "name": s.name, "kind": s.kind(), "to": s.settings.to.value, "version": s.definition.version(),
            })).collect::<Vec<_>>(),
            "services": self.services.iter().map(service).collect::<Vec<_>>(),
            "sinks": self.sinks.iter().map(|s| json!({
                "name": s.name, "kind": s.kind(), "from": s.inputs, "version": s.definition.version(),
            })).collect::<Vec<_>>(),
            "lookups": self.lookups.iter().map(|l| json!({
                "name": l.name, "key": l.schema.key, "topic": l.topic, "columns": l.schema.schema,
            })).collect::<Vec<_>>(),
            "topics": self.topics.iter().map(|(name, t)| json!({
                "name": name, "partitions": t.spec.partitions, "key": t.spec.key, "columns": t.spec.schema,
                "event_time": t.event_time.as_ref().map(|e| &e.column), "writers": t.writers, "readers": t.readers,
            })).collect::<Vec<_>>(),
        })
    }
}

/// Whether a service makes dead letters on purpose: of events that break a rule or fit no case.
fn refuses(service: &Service) -> bool {
    let rules = service.check.as_ref().is_some_and(|(_, otherwise)| *otherwise == Else::DeadLetter);
    rules || service.cases.last().is_some_and(|(when, to)| when == "otherwise" && to == "dead_letter")
}

fn show_service(out: &mut String, service: &Service) {
    say!(out, "\nservice {} <- {} -> {}", service.name, names(&service.inputs), names(&service.outputs));
    for (name, sql) in &service.rules {
        say!(out, "  check {name}: {}", one_line(sql));
    }
    if let Some(query) = &service.query {
        query.explain().lines().for_each(|line| say!(out, "  {line}"));
    }
    if let Some(fold) = &service.fold {
        fold.explain().lines().for_each(|line| say!(out, "  {}", one_line(line)));
    }
    if let Some(store) = &service.store {
        say!(out, "  state in {}", store.place());
    }
    for (when, to) in &service.cases {
        say!(out, "  route {}: {to}", one_line(when));
    }
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn names(names: &[Name]) -> String {
    if names.is_empty() {
        return "(nobody)".into();
    }
    names.iter().map(Name::as_str).collect::<Vec<_>>().join(", ")
}

fn columns(out: &mut String, schema: &millstream_service::event::Schema) {
    for column in schema.columns() {
        say!(out, "    {column}");
    }
}
