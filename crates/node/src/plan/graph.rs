//! Who writes and who reads: the order of services.

use std::collections::{BTreeMap, BTreeSet};

use millstream_service::event::Name;

use super::Planner;
use crate::config::{Otherwise, ServiceSettings, Span, Spanned};
use crate::diagnostic::Diagnostic;

/// The topics that a service writes, dead letters apart, with where that is said. Templates count with all targets.
pub(super) fn targets(settings: &ServiceSettings) -> Vec<Spanned<Name>> {
    let mut out: Vec<Spanned<Name>> = settings.to.iter().cloned().collect();
    if let Some(Spanned { value: Otherwise::Topic(name), span }) = &settings.otherwise {
        out.push(Spanned { value: name.clone(), span: *span });
    }
    if let Some(route) = &settings.route {
        let plain = route.cases().iter().map(|c| &c.to).chain(route.otherwise_topic());
        let plain = plain.filter(|to| !to.value.contains('{'));
        out.extend(plain.filter_map(|to| Some(Spanned { value: Name::new(&to.value).ok()?, span: to.span })));
        if route.cases().iter().any(|c| c.to.value.contains('{')) {
            out.extend(route.targets.iter().flatten().cloned());
        }
    }
    let mut seen = BTreeSet::new();
    out.retain(|name| seen.insert(name.value.clone()));
    out
}

impl Planner<'_> {
    /// Gathers who writes which topic.
    pub(super) fn written(&mut self) {
        let config = self.config;
        for (name, source) in &config.sources {
            self.writer(&name.value, &source.to);
        }
        for (name, service) in &config.services {
            for target in targets(service) {
                self.writer(&name.value, &target);
            }
        }
    }

    fn writer(&mut self, who: &Name, topic: &Spanned<Name>) {
        let own = [".dlq", ".dlq.commands", ".dlq.status", ".replay", ".idempotency"];
        if own.iter().any(|suffix| topic.value.as_str().ends_with(suffix)) {
            let message = format!("topic `{}` is written by the system only", topic.value);
            self.report(topic.span, Diagnostic::error("topic-reserved", message).label("choose another name"));
            return;
        }
        self.writers.entry(topic.value.clone()).or_default().push((who.clone(), topic.span));
    }

    /// The places of the services in an order in which each comes behind those whose output it reads.
    pub(super) fn order(&mut self) -> Vec<usize> {
        let config = self.config;
        let place: BTreeMap<&Name, usize> =
            config.services.iter().enumerate().map(|(i, (name, _))| (&name.value, i)).collect();
        let needs: Vec<BTreeSet<usize>> = config
            .services
            .iter()
            .map(|(_, service)| {
                let from = service.from.iter().map(|f| &f.value);
                let writers = from.filter_map(|topic| self.writers.get(topic.as_str()));
                let services = writers.flatten().filter_map(|(who, _)| place.get(who).copied());
                let joined = self.tables_joined(service);
                let joined = joined.iter().filter_map(|(_, topic)| self.writers.get(topic.as_str()));
                let joined: Vec<usize> = joined.flatten().filter_map(|(who, _)| place.get(who).copied()).collect();
                // Dead letters of a service come from that service.
                let letters = service.from.iter().filter_map(|f| letters_of(&f.value));
                services.chain(letters.filter_map(|s| place.get(&s).copied())).chain(joined).collect()
            })
            .collect();
        let mut order: Vec<usize> = Vec::new();
        let mut left: BTreeSet<usize> = (0..needs.len()).collect();
        loop {
            let ready = |i: &usize| needs.get(*i).is_none_or(|n| n.iter().all(|d| order.contains(d)));
            let Some(next) = left.iter().copied().find(ready) else { break };
            left.remove(&next);
            order.push(next);
        }
        if !left.is_empty() {
            self.cycle(&needs, &left);
        }
        // As far as columns are known by another way, what is on a circle and behind it is planned too: first whatever
        // has an input from elsewhere.
        while !left.is_empty() {
            let known = |i: &usize| {
                let from = config.services.get(*i).map(|(_, s)| s.from.as_slice()).unwrap_or_default();
                from.iter().any(|topic| {
                    let writers = self.writers.get(topic.value.as_str()).map(Vec::as_slice).unwrap_or_default();
                    let places = writers.iter().filter_map(|(who, _)| place.get(who));
                    !writers.is_empty() && places.into_iter().all(|p| order.contains(p))
                })
            };
            let Some(next) = left.iter().copied().find(known).or(left.first().copied()) else { break };
            left.remove(&next);
            order.push(next);
        }
        order
    }

    fn cycle(&mut self, needs: &[BTreeSet<usize>], left: &BTreeSet<usize>) {
        // Every service left needs another one left, so walking on must come back somewhere.
        let mut path: Vec<usize> = Vec::new();
        let mut at = left.first().copied();
        while let Some(i) = at {
            if let Some(start) = path.iter().position(|p| *p == i) {
                path.drain(..start);
                break;
            }
            path.push(i);
            at = needs.get(i).and_then(|n| n.iter().copied().find(|d| left.contains(d)));
        }
        path.reverse();
        let config = self.config;
        let names: Vec<String> = path
            .iter()
            .chain(path.first())
            .filter_map(|i| config.services.get(*i))
            .map(|(n, _)| n.to_string())
            .collect();
        let span = path.first().and_then(|i| config.services.get(*i)).map(|(n, _)| n.span);
        if let Some(span) = span {
            let message = format!("services read each other's output in a circle: {}", names.join(" -> "));
            let diagnostic = Diagnostic::error("cycle", message).label("let one of them read another topic");
            self.report(span, diagnostic);
        }
        // What a circle writes stays unknown, and its readers are not told again.
        for i in left {
            if let Some((_, service)) = config.services.get(*i) {
                self.unknown.extend(targets(service).into_iter().map(|t| t.value));
            }
        }
    }

    /// Where a name was said for the first time by one of its writers.
    pub(super) fn writer_span(&self, topic: &Name, who: &Name) -> Option<Span> {
        self.writers.get(topic)?.iter().find(|(w, _)| w == who).map(|(_, span)| *span)
    }
}

/// The service whose dead letters a topic holds.
pub(super) fn letters_of(topic: &Name) -> Option<Name> {
    Name::new(topic.as_str().strip_suffix(".dlq")?).ok()
}
