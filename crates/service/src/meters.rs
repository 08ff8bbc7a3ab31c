//! What a service, source or sink counts. Updated once per batch or commit, never per event; labels are bounded by the
//! rules, lookups and codes of a definition.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use millstream_event::Name;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

/// The upper bounds of the commit latency buckets, in microseconds; one more bucket holds what is slower.
pub const LATENCY_BOUNDS_US: [u64; 14] =
    [100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 5_000_000];

/// The most distinct codes counted; further ones count as `other`.
const CODES_MAX: usize = 64;

/// The counters of one service, source or sink.
#[derive(Debug, Default)]
pub struct Meters {
    pub(crate) events_in: AtomicU64,
    pub(crate) events_out: AtomicU64,
    pub(crate) dropped_by_check: AtomicU64,
    pub(crate) dropped_by_route: AtomicU64,
    pub(crate) dropped_by_fold: AtomicU64,
    pub(crate) dropped_late: AtomicU64,
    pub(crate) late: AtomicU64,
    pub(crate) idled: AtomicU64,
    pub(crate) commits: AtomicU64,
    pub(crate) commits_failed: AtomicU64,
    pub(crate) restarts: AtomicU64,
    pub(crate) panics: AtomicU64,
    pub(crate) busy_ns: AtomicU64,
    /// Commits handed to the log and not yet counted.
    pub(crate) in_flight: AtomicU64,
    dead_letters: Mutex<BTreeMap<String, u64>>,
    broken_rules: Mutex<BTreeMap<String, u64>>,
    dropped_by_lookup: Mutex<BTreeMap<Name, u64>>,
    out_by_topic: Mutex<BTreeMap<Name, u64>>,
    latency: Histogram,
}

#[derive(Debug, Default)]
struct Histogram {
    counts: [AtomicU64; LATENCY_BOUNDS_US.len() + 1],
    sum_us: AtomicU64,
}

/// A copy of [`Meters`] at one moment. Counters only grow while the component runs.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Counts {
    /// Events read (a source: events that came in, good and bad).
    pub events_in: u64,
    /// Events committed to topics, without dead letters (a sink: events committed as written).
    pub events_out: u64,
    /// The same, by topic.
    pub out_by_topic: BTreeMap<Name, u64>,
    /// Dead letters by code.
    pub dead_letters: BTreeMap<String, u64>,
    /// How often each rule of the check was broken, whatever became of the event; an event may break several.
    #[serde(default)]
    pub broken_rules: BTreeMap<String, u64>,
    /// Events that a check with `else: drop` dropped.
    pub dropped_by_check: u64,
    /// Events that no case of a route with `otherwise: drop` took.
    #[serde(default)]
    pub dropped_by_route: u64,
    /// Events that no case of a fold with `otherwise: drop` took.
    #[serde(default)]
    pub dropped_by_fold: u64,
    /// Events that came too late and were dropped, as `late: drop` says.
    #[serde(default)]
    pub dropped_late: u64,
    /// Events that a source marked as late.
    #[serde(default)]
    pub late: u64,
    /// How often a task of a source became idle.
    #[serde(default)]
    pub idled: u64,
    /// Events that inner joins dropped, by lookup.
    pub dropped_by_lookup: BTreeMap<Name, u64>,
    /// Commits that succeeded.
    pub commits: u64,
    /// Commits that did not.
    pub commits_failed: u64,
    /// How often a task started again after a failure.
    pub restarts: u64,
    /// How many of these failures were panics.
    pub panics: u64,
    /// Time spent processing, not waiting, in nanoseconds, summed over the tasks.
    pub busy_ns: u64,
    /// Commits by the time they took: one entry per bound of [`LATENCY_BOUNDS_US`] and one for slower ones; not
    /// cumulative.
    pub latency_buckets: Vec<u64>,
    /// The sum of these times, in microseconds.
    pub latency_sum_us: u64,
}

impl Counts {
    /// All events left out on purpose: by a check, a lookup join, a route, a fold or for being late.
    pub fn dropped_total(&self) -> u64 {
        let by_lookup: u64 = self.dropped_by_lookup.values().sum();
        self.dropped_by_check + self.dropped_by_route + self.dropped_by_fold + self.dropped_late + by_lookup
    }

    /// All dead letters.
    pub fn dead_letters_total(&self) -> u64 {
        self.dead_letters.values().sum()
    }
}

/// What one batch adds to the counters once its commit is durable.
#[derive(Debug, Default, Clone)]
pub(crate) struct Tally {
    pub(crate) events_in: u64,
    pub(crate) out: Vec<(Name, u64)>,
    pub(crate) dead_letters: Vec<(String, u64)>,
    pub(crate) broken_rules: Vec<(String, u64)>,
    pub(crate) dropped_by_check: u64,
    pub(crate) dropped_by_route: u64,
    pub(crate) dropped_by_fold: u64,
    pub(crate) dropped_late: u64,
    pub(crate) late: u64,
    pub(crate) idled: u64,
    pub(crate) dropped_by_lookup: Vec<(Name, u64)>,
}

impl Tally {
    pub(crate) fn dead_letter(&mut self, code: &str) {
        add_to(&mut self.dead_letters, code, 1);
    }

    pub(crate) fn broken_rule(&mut self, rule: &str, events: u64) {
        add_to(&mut self.broken_rules, rule, events);
    }

    pub(crate) fn out(&mut self, topic: &Name, events: u64) {
        match self.out.iter_mut().find(|(t, _)| t == topic) {
            Some((_, n)) => *n += events,
            None => self.out.push((topic.clone(), events)),
        }
    }

    pub(crate) fn add(&mut self, other: Self) {
        self.events_in += other.events_in;
        self.dropped_by_check += other.dropped_by_check;
        self.dropped_by_route += other.dropped_by_route;
        self.dropped_by_fold += other.dropped_by_fold;
        self.dropped_late += other.dropped_late;
        self.late += other.late;
        self.idled += other.idled;
        for (topic, n) in &other.out {
            self.out(topic, *n);
        }
        for (code, n) in &other.dead_letters {
            add_to(&mut self.dead_letters, code, *n);
        }
        for (rule, n) in &other.broken_rules {
            add_to(&mut self.broken_rules, rule, *n);
        }
        self.dropped_by_lookup.extend(other.dropped_by_lookup);
    }
}

fn add_to(counts: &mut Vec<(String, u64)>, name: &str, n: u64) {
    match counts.iter_mut().find(|(known, _)| known == name) {
        Some((_, sum)) => *sum += n,
        None => counts.push((name.to_owned(), n)),
    }
}

impl Meters {
    /// The counters as they are now.
    pub fn counts(&self) -> Counts {
        let get = |n: &AtomicU64| n.load(Ordering::Relaxed);
        Counts {
            events_in: get(&self.events_in),
            events_out: get(&self.events_out),
            out_by_topic: self.out_by_topic.lock().clone(),
            dead_letters: self.dead_letters.lock().clone(),
            broken_rules: self.broken_rules.lock().clone(),
            dropped_by_check: get(&self.dropped_by_check),
            dropped_by_route: get(&self.dropped_by_route),
            dropped_by_fold: get(&self.dropped_by_fold),
            dropped_late: get(&self.dropped_late),
            late: get(&self.late),
            idled: get(&self.idled),
            dropped_by_lookup: self.dropped_by_lookup.lock().clone(),
            commits: get(&self.commits),
            commits_failed: get(&self.commits_failed),
            restarts: get(&self.restarts),
            panics: get(&self.panics),
            busy_ns: get(&self.busy_ns),
            latency_buckets: self.latency.counts.iter().map(get).collect(),
            latency_sum_us: get(&self.latency.sum_us),
        }
    }

    pub(crate) fn committed(&self, tally: &Tally, took: Duration) {
        add(&self.commits, 1);
        self.latency.record(took);
        add(&self.events_in, tally.events_in);
        add(&self.dropped_by_check, tally.dropped_by_check);
        add(&self.dropped_by_route, tally.dropped_by_route);
        add(&self.dropped_by_fold, tally.dropped_by_fold);
        add(&self.dropped_late, tally.dropped_late);
        add(&self.late, tally.late);
        add(&self.idled, tally.idled);
        if !tally.out.is_empty() {
            add(&self.events_out, tally.out.iter().map(|(_, n)| n).sum());
            let mut topics = self.out_by_topic.lock();
            for (topic, n) in &tally.out {
                *topics.entry(topic.clone()).or_default() += n;
            }
        }
        if !tally.dead_letters.is_empty() {
            let mut codes = self.dead_letters.lock();
            for (code, n) in &tally.dead_letters {
                let known = codes.contains_key(code) || codes.len() < CODES_MAX;
                *codes.entry(if known { code.clone() } else { "other".to_owned() }).or_default() += n;
            }
        }
        if !tally.broken_rules.is_empty() {
            let mut rules = self.broken_rules.lock();
            for (rule, n) in &tally.broken_rules {
                *rules.entry(rule.clone()).or_default() += n;
            }
        }
        if !tally.dropped_by_lookup.is_empty() {
            let mut lookups = self.dropped_by_lookup.lock();
            for (lookup, n) in &tally.dropped_by_lookup {
                *lookups.entry(lookup.clone()).or_default() += n;
            }
        }
    }

    pub(crate) fn busy(&self, time: Duration) {
        add(&self.busy_ns, u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
    }
}

impl Histogram {
    fn record(&self, took: Duration) {
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let bucket = LATENCY_BOUNDS_US.iter().position(|bound| us <= *bound).unwrap_or(LATENCY_BOUNDS_US.len());
        if let Some(count) = self.counts.get(bucket) {
            add(count, 1);
        }
        add(&self.sum_us, us);
    }
}

pub(crate) fn sub(gauge: &AtomicU64, n: u64) {
    gauge.fetch_sub(n, Ordering::AcqRel);
}

pub(crate) fn add(counter: &AtomicU64, n: u64) {
    counter.fetch_add(n, Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_commit_counts_once_in_its_bucket() {
        let meters = Meters::default();
        let mut tally = Tally { events_in: 10, ..Tally::default() };
        tally.out(&Name::new("a").unwrap(), 7);
        tally.dead_letter("check");
        tally.dead_letter("check");
        meters.committed(&tally, Duration::from_micros(300));
        let counts = meters.counts();
        assert_eq!((counts.events_in, counts.events_out, counts.commits), (10, 7, 1));
        assert_eq!(counts.dead_letters["check"], 2);
        assert_eq!(counts.latency_buckets[2], 1);
        assert_eq!(counts.latency_buckets.iter().sum::<u64>(), 1);
    }
}
