//! The difference between two pipelines.

use std::collections::{BTreeMap, BTreeSet};

use millstream_service::StateStore;
use millstream_service::event::Name;
use millstream_service::log::{self, spec_change};

use crate::api::{ApiError, Change, ChangeKind, PartKind, Plan, codes};
use crate::config::Loaded;
use crate::diagnostic::Diagnostics;
use crate::plan::{Definition, Pipeline, Service};

/// How many topics a refusal names for one reason.
const REFUSED_SHOWN: usize = 3;

/// What differs.
pub(crate) fn diff(old: (&Loaded, &Pipeline), new: (&Loaded, &Pipeline)) -> Plan {
    let (before, after) = (old.1, new.1);
    let mut out = Plan {
        pipeline: after.name.to_string(),
        changes: settings(old, new),
        unchanged: Vec::new(),
        warnings: after.warnings.0.clone(),
    };
    topics(before, after, &mut out);
    let lookups = changed_lookups(before, after);
    let none = |_: &Name| Vec::new();
    compare(
        PartKind::Lookup,
        before.lookups.iter().map(|l| (&l.name, &l.definition)).collect(),
        after.lookups.iter().map(|l| (&l.name, &l.definition)).collect(),
        &none,
        &mut out,
    );
    compare(
        PartKind::Source,
        before.sources.iter().map(|s| (&s.name, &s.definition)).collect(),
        after.sources.iter().map(|s| (&s.name, &s.definition)).collect(),
        &none,
        &mut out,
    );
    refuse_stdin(before, after, &mut out);
    let also = |name: &Name| {
        let mut lines = Vec::new();
        if let (Some(a), Some(b)) = (service(before, name), service(after, name)) {
            if a.instances != b.instances {
                lines.push(format!("instances: {} -> {}", a.instances, b.instances));
            }
            let changed = b.lookups.iter().filter(|l| lookups.contains(*l));
            lines.extend(changed.map(|l| format!("lookup {l} is another one")));
            // What is not shown is no line of the definition.
            if let (Some(old), Some(new)) = (&a.store, &b.store)
                && old.place() == new.place()
                && !old.is(new)
            {
                lines.push("state.postgres: another user, password or way to get there".to_owned());
            }
        }
        lines
    };
    compare(
        PartKind::Service,
        before.services.iter().map(|s| (&s.name, &s.definition)).collect(),
        after.services.iter().map(|s| (&s.name, &s.definition)).collect(),
        &also,
        &mut out,
    );
    compare(
        PartKind::Sink,
        before.sinks.iter().map(|s| (&s.name, &s.definition)).collect(),
        after.sinks.iter().map(|s| (&s.name, &s.definition)).collect(),
        &none,
        &mut out,
    );
    // Lookups and topics that stay are of no interest.
    out.changes.retain(|c| c.change != ChangeKind::Changed || !c.details.is_empty());
    out
}

fn service<'p>(pipeline: &'p Pipeline, name: &Name) -> Option<&'p Service> {
    pipeline.services.iter().find(|service| service.name == *name)
}

/// Standard input has one reader as long as the process lives: what it has read ahead cannot be handed to another.
fn refuse_stdin(before: &Pipeline, after: &Pipeline, out: &mut Plan) {
    let reads =
        |p: &Pipeline, name: &str| p.sources.iter().any(|s| s.name.as_str() == name && s.settings.stdin.is_some());
    for change in out.changes.iter_mut().filter(|c| c.part == PartKind::Source) {
        let built = matches!(change.change, ChangeKind::Added | ChangeKind::Changed);
        if built && (reads(before, &change.name) || reads(after, &change.name)) {
            change.change = ChangeKind::Refused;
            let why =
                "standard input cannot be handed over to another source; end the node and start it with this file";
            change.reason = Some(why.to_owned());
        }
    }
}

fn changed_lookups(before: &Pipeline, after: &Pipeline) -> BTreeSet<Name> {
    let same = |name: &Name, d: &Definition| before.lookups.iter().any(|l| l.name == *name && l.definition == *d);
    after.lookups.iter().filter(|l| !same(&l.name, &l.definition)).map(|l| l.name.clone()).collect()
}

fn change(part: PartKind, name: &Name, change: ChangeKind) -> Change {
    let name = name.to_string();
    Change { part, name, change, before: None, after: None, details: Vec::new(), reason: None }
}

fn compare(
    part: PartKind,
    before: BTreeMap<&Name, &Definition>,
    after: BTreeMap<&Name, &Definition>,
    also: &dyn Fn(&Name) -> Vec<String>,
    out: &mut Plan,
) {
    let names: BTreeSet<&Name> = before.keys().chain(after.keys()).copied().collect();
    for name in names {
        let (old, new) = (before.get(name), after.get(name));
        let mut found = match (old, new) {
            (None, _) => change(part, name, ChangeKind::Added),
            (_, None) => change(part, name, ChangeKind::Removed),
            (Some(old), Some(new)) => {
                let details: Vec<String> = old.differences(new).into_iter().chain(also(name)).collect();
                if details.is_empty() {
                    if part != PartKind::Lookup {
                        out.unchanged.push(name.to_string());
                    }
                    continue;
                }
                Change { details, ..change(part, name, ChangeKind::Changed) }
            }
        };
        found.before = old.map(|d| d.version());
        found.after = new.map(|d| d.version());
        out.changes.push(found);
    }
}

fn topics(before: &Pipeline, after: &Pipeline, out: &mut Plan) {
    let names: BTreeSet<&Name> = before.topics.keys().chain(after.topics.keys()).collect();
    for name in names {
        match (before.topics.get(name), after.topics.get(name)) {
            (None, Some(_)) => out.changes.push(change(PartKind::Topic, name, ChangeKind::Added)),
            (Some(_), None) => {
                let reason = Some("its events stay in the log until their retention ends".to_owned());
                out.changes.push(Change { reason, ..change(PartKind::Topic, name, ChangeKind::Removed) });
            }
            (Some(old), Some(new)) => {
                let line = |what: &str, a: String, b: String| (a != b).then(|| format!("{what}: {a} -> {b}"));
                let details: Vec<String> = [
                    line("columns", old.spec.schema.to_string(), new.spec.schema.to_string()),
                    line("partitions", old.spec.partitions.to_string(), new.spec.partitions.to_string()),
                    line("key", old.spec.key.join(", "), new.spec.key.join(", ")),
                    line("retention", format!("{:?}", old.spec.retention), format!("{:?}", new.spec.retention)),
                ]
                .into_iter()
                .flatten()
                .collect();
                let refused = spec_change(&old.spec, &new.spec).err();
                let kind = if refused.is_some() { ChangeKind::Refused } else { ChangeKind::Changed };
                let reason = refused.map(|error| match error {
                    log::Error::Incompatible { why, .. } => why,
                    error => error.to_string(),
                });
                out.changes.push(Change { details, reason, ..change(PartKind::Topic, name, kind) });
            }
            (None, None) => {}
        }
    }
}

/// What takes effect at the next start only.
fn settings(old: (&Loaded, &Pipeline), new: (&Loaded, &Pipeline)) -> Vec<Change> {
    let (a, b) = (&old.0.config, &new.0.config);
    let lines = [
        ("pipeline", old.1.name.to_string(), new.1.name.to_string()),
        ("server.listen", a.server.listen.to_string(), b.server.listen.to_string()),
        ("log", format!("{:?}", a.log.embedded), format!("{:?}", b.log.embedded)),
    ];
    let differ = lines.into_iter().filter(|(_, a, b)| a != b);
    differ
        .map(|(name, before, after)| Change {
            part: PartKind::Setting,
            name: name.to_owned(),
            change: ChangeKind::Restart,
            before: Some(before),
            after: Some(after),
            details: Vec::new(),
            reason: Some("takes effect when the node starts the next time".to_owned()),
        })
        .collect()
}

/// Why a plan cannot be applied: each reason once, with the topics that it holds for.
pub(super) fn refusals(plan: &Plan) -> String {
    let mut parts: BTreeMap<(&str, &str), Vec<&str>> = BTreeMap::new();
    for change in plan.changes.iter().filter(|c| c.change == ChangeKind::Refused) {
        let part = if change.part == PartKind::Source { "source" } else { "topic" };
        parts.entry((part, change.reason.as_deref().unwrap_or_default())).or_default().push(&change.name);
    }
    let text = |((part, why), names): ((&str, &str), Vec<&str>)| {
        let shown: Vec<String> = names.iter().take(REFUSED_SHOWN).map(|n| format!("`{n}`")).collect();
        let more = names.len() - shown.len();
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        let plural = if names.len() == 1 { "" } else { "s" };
        format!("{part}{plural} {}{more}: {why}", shown.join(", "))
    };
    parts.into_iter().map(text).collect::<Vec<_>>().join("; ")
}

/// A refusal that carries everything that is wrong with a pipeline.
pub(crate) fn wrong(found: Diagnostics) -> ApiError {
    let message = match found.errors() {
        1 => "the pipeline has an error".to_owned(),
        n => format!("the pipeline has {n} errors"),
    };
    ApiError { diagnostics: found.0, ..ApiError::new(codes::PIPELINE_WRONG, message) }
}

/// Whether a part has to stop for its change.
pub(super) fn stops(change: &Change) -> bool {
    match change.change {
        ChangeKind::Removed => true,
        ChangeKind::Changed => !only_instances(change),
        ChangeKind::Added | ChangeKind::Refused | ChangeKind::Restart => false,
    }
}

/// A service whose number of instances alone has changed goes on while it is scaled.
pub(super) fn only_instances(change: &Change) -> bool {
    change.part == PartKind::Service && change.details.iter().all(|d| d.starts_with("instances: "))
}
