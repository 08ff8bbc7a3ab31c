//! Brings together what a query groups or joins: events that must meet have to be in one partition.
//!
//! Where the key of an input is among the columns that the query groups or joins by, they are. Where it is not, a service
//! of its own copies the input into an internal topic with that key: `<service>.repartition.<topic>`.

use std::collections::BTreeMap;

use millstream_service::event::Name;
use millstream_service::log::TopicSpec;
use millstream_service::{Late, Output, unchanged, writes_in_place};

use super::pipeline::Way;
use super::version::Definition;
use super::{Planner, Service};
use crate::config::{ServiceSettings, Spanned};
use crate::diagnostic::Diagnostic;

/// The inputs of a service as it reads them, and the names that its SQL has for those that are repartitioned.
type Inputs = (Vec<Name>, BTreeMap<Name, Name>);

impl Planner<'_> {
    /// The inputs of a query over several topics, in the order of `from`.
    pub(super) fn joined(&mut self, name: &Spanned<Name>, settings: &ServiceSettings) -> Option<Vec<TopicSpec>> {
        let who = format!("service `{}`", name.value);
        let specs: Vec<Option<TopicSpec>> = settings.from.iter().map(|from| self.input_topic(&who, from)).collect();
        if let Some((rule, _)) = settings.check.first() {
            let message = format!("{who} checks events and joins several topics");
            let label = "check each topic in a service before";
            self.report(rule.span, Diagnostic::error("check-join", message).label(label));
            return None;
        }
        specs.into_iter().collect()
    }

    /// Where the service reads the topics of its SQL, so that what must meet does.
    /// `key` tells by which columns of a topic it groups, joins or folds.
    pub(super) fn meet(
        &mut self,
        name: &Spanned<Name>,
        settings: &ServiceSettings,
        key: &dyn Fn(&Name) -> Option<Vec<String>>,
    ) -> Option<Inputs> {
        let specs: Vec<TopicSpec> = settings.from.iter().filter_map(|from| self.known_spec(&from.value)).collect();
        let asked: Vec<Option<Vec<String>>> = specs.iter().map(|spec| key(&spec.name)).collect();
        if specs.len() != settings.from.len() || meets(&specs, &asked) {
            return Some((settings.from.iter().map(|f| f.value.clone()).collect(), BTreeMap::new()));
        }
        let most = specs.iter().map(|spec| spec.partitions).max().unwrap_or(1);
        let alone = asked.iter().flatten().any(Vec::is_empty);
        let partitions = if alone { 1 } else { most };
        let (mut inputs, mut aliases) = (Vec::new(), BTreeMap::new());
        for (spec, asked) in specs.into_iter().zip(asked) {
            let key = asked.unwrap_or_else(|| spec.key.clone());
            if spec.partitions == partitions && (alone || spec.key == key) {
                inputs.push(spec.name);
                continue;
            }
            let copy = self.repartition(name, &spec, key, partitions)?;
            aliases.insert(copy.clone(), spec.name);
            inputs.push(copy);
        }
        Some((inputs, aliases))
    }

    /// An internal service that copies a topic into one with another key.
    fn repartition(
        &mut self,
        owner: &Spanned<Name>,
        spec: &TopicSpec,
        key: Vec<String>,
        partitions: u32,
    ) -> Option<Name> {
        let copy = match Name::new(format!("{}.repartition.{}", owner.value, spec.name)) {
            Ok(name) => name,
            Err(error) => {
                let message =
                    format!("service `{}` needs an internal topic, whose name is too long: {error}", owner.value);
                self.report(owner.span, Diagnostic::error("bad-name", message).label("choose a shorter name"));
                return None;
            }
        };
        let mut definition = Definition::default();
        definition.set("from", &spec.name);
        definition.set("key", key.join(", "));
        definition.set("partitions", partitions);
        definition.set("columns", &spec.schema);
        let event_time = self.topics.get(&spec.name).and_then(|topic| topic.event_time.clone());
        let way = Way { topic: copy.clone(), time: event_time.as_ref().map(|t| t.column.clone()), in_place: false };
        self.insert(&copy, spec.schema.clone(), key, partitions, event_time);
        let mut in_place = false;
        if let Some(topic) = self.topics.get_mut(&copy) {
            topic.writers.push(copy.clone());
            in_place = writes_in_place(&[(spec.name.clone(), spec)], &topic.spec, &unchanged);
        }
        self.read(&copy, std::slice::from_ref(&spec.name));
        self.services.push(Service {
            name: copy.clone(),
            inputs: vec![spec.name.clone()],
            aliases: BTreeMap::new(),
            late: Late::default(),
            in_memory: false,
            check: None,
            rules: Vec::new(),
            query: None,
            fold: None,
            output: Output::To(copy.clone()),
            outputs: vec![copy.clone()],
            cases: Vec::new(),
            schema: spec.schema.clone(),
            lookups: Vec::new(),
            instances: 1,
            batch_max: None,
            store: None,
            time: None,
            ways: vec![Way { in_place, ..way }],
            definition,
        });
        Some(copy)
    }
}

/// Whether rows that must meet are in one partition already.
fn meets(specs: &[TopicSpec], asked: &[Option<Vec<String>>]) -> bool {
    let Some(first) = specs.first() else { return true };
    if specs.iter().any(|spec| spec.partitions != first.partitions) {
        return false;
    }
    if first.partitions == 1 {
        return true;
    }
    // Where each column of a topic's key stands in what is asked: alike for all topics of a join.
    let places = |(spec, asked): (&TopicSpec, &Option<Vec<String>>)| -> Option<Vec<usize>> {
        let Some(asked) = asked else { return Some(Vec::new()) };
        let place = |column: &String| asked.iter().position(|a| a == column);
        let places: Option<Vec<usize>> = spec.key.iter().map(place).collect();
        places.filter(|places| !places.is_empty())
    };
    let all: Option<Vec<Vec<usize>>> = specs.iter().zip(asked).map(places).collect();
    all.is_some_and(|all| all.windows(2).all(|two| two.first() == two.last()))
}
