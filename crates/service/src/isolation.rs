//! Which event kills a task: what survives its panics, so that its next run finds out.
//!
//! 1. A task notes what it works on: the runs of its inputs that it has read and, where it takes one event alone, that event.
//! 2. Panics over a run that begins at the same place again and again make its events suspects, up to where it ends. They
//!    are taken one by one; events of other inputs are no suspects, and commits of theirs clear nobody.
//! 3. An event that was alone when the task panicked is a killer: when it is met again, it becomes a dead letter.
//! 4. Panics that no event can be blamed for, while windows or timers are concluded for instance, end in a failure that
//!    somebody must mend, instead of starting again for ever.

use std::collections::{BTreeMap, VecDeque};

use millstream_event::Name;
use millstream_log::{Consumed, Position};

use crate::letters::Origin;

/// After so many panics over the same place its events are taken one by one.
const DEATHS_BEFORE_ISOLATION: u32 = 3;

/// After so many panics that no event can be blamed for a task gives up.
const BLAMELESS_MAX: u32 = 5;

/// So many killers are known: the oldest have passed first, and one that was forgotten too early costs another panic. An
/// event that is replayed is another one, see [`Origin::attempts`].
const KILLERS_MAX: usize = 1000;

/// What is known of a task's panics.
#[derive(Debug, Default)]
pub(crate) struct Isolation {
    /// The runs that are worked on.
    at_work: Vec<Consumed>,
    /// Whether their events are through, and what event time has closed is being concluded.
    concluding: bool,
    /// The event that is worked on alone.
    alone: Option<Origin>,
    /// The last panics over each input.
    deaths: BTreeMap<Name, Deaths>,
    killers: VecDeque<Origin>,
    blameless: u32,
}

#[derive(Debug)]
struct Deaths {
    from: Option<Position>,
    to: Position,
    times: u32,
}

impl Isolation {
    /// Work on these runs begins.
    pub(crate) fn begin<'a>(&mut self, runs: impl Iterator<Item = &'a Consumed>) {
        self.at_work = runs.cloned().collect();
        self.concluding = false;
    }

    /// The events are through.
    pub(crate) fn conclude(&mut self) {
        self.concluding = true;
    }

    /// The work is done.
    pub(crate) fn rest(&mut self) {
        self.at_work.clear();
        self.concluding = false;
    }

    /// Whether the events of a run must be taken one by one.
    pub(crate) fn suspects(&self, run: &Consumed) -> bool {
        let deaths = self.deaths.get(&run.input).filter(|deaths| deaths.times >= DEATHS_BEFORE_ISOLATION);
        let offset = |position: &Position| position.offset();
        deaths.is_some_and(|deaths| run.from.as_ref().and_then(offset) < offset(&deaths.to))
    }

    /// This event is worked on alone; `None`: none is any more.
    pub(crate) fn take_alone(&mut self, origin: Option<Origin>) {
        self.alone = origin;
    }

    /// Whether the task has panicked on this event.
    pub(crate) fn is_killer(&self, origin: &Origin) -> bool {
        self.killers.contains(origin)
    }

    /// The task has panicked. The number of panics, where it should not start again by itself.
    pub(crate) fn died(&mut self) -> Option<u32> {
        let (runs, concluding) = (std::mem::take(&mut self.at_work), std::mem::take(&mut self.concluding));
        if let Some(killer) = self.alone.take() {
            if self.killers.len() >= KILLERS_MAX {
                self.killers.pop_front();
            }
            self.killers.push_back(killer);
            self.blameless = 0;
            return None;
        }
        let blameless = concluding || runs.iter().any(|run| self.suspects(run));
        let nobody = runs.is_empty();
        let again = runs.into_iter().fold(nobody, |again, run| self.count(run) || again);
        self.blameless = match (blameless, again) {
            (true, true) => self.blameless + 1,
            (true, false) => 1,
            (false, _) => self.blameless,
        };
        if self.blameless < BLAMELESS_MAX {
            return None;
        }
        let times = self.blameless;
        // Whoever resumes it has mended something.
        *self = Self::default();
        Some(times)
    }

    /// Counts a panic over a run; whether the one before was at the same place.
    fn count(&mut self, run: Consumed) -> bool {
        let Consumed { input, from, to } = run;
        match self.deaths.get_mut(&input) {
            Some(deaths) if deaths.from == from => {
                deaths.times += 1;
                // A longer run is suspected as a whole, and a shorter one does not clear the rest.
                if deaths.to.offset() < to.offset() {
                    deaths.to = to;
                }
                true
            }
            _ => {
                self.deaths.insert(input, Deaths { from, to, times: 1 });
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use millstream_event::Offset;

    use super::*;

    fn run(input: &str, from: u64, to: u64) -> Consumed {
        let position = |offset| Position::Offset(Offset(offset));
        Consumed { input: Name::new(input).unwrap(), from: Some(position(from)), to: position(to) }
    }

    fn dies(isolation: &mut Isolation, runs: &[Consumed], times: usize) -> Option<u32> {
        let die = |_| {
            isolation.begin(runs.iter());
            isolation.died()
        };
        (0..times).filter_map(die).next()
    }

    #[test]
    fn panics_at_the_same_place_make_its_run_suspect_and_commits_of_others_do_not_clear_it() {
        let mut isolation = Isolation::default();
        for busy in 0..3 {
            assert_eq!(dies(&mut isolation, &[run("busy", busy * 10, busy * 10 + 10), run("calm", 5, 9)], 1), None);
        }
        assert!(isolation.suspects(&run("calm", 5, 7)) && isolation.suspects(&run("calm", 8, 20)));
        assert!(!isolation.suspects(&run("calm", 9, 20)), "they have passed");
        assert!(!isolation.suspects(&run("busy", 20, 30)), "only the place counts");
    }

    #[test]
    fn every_event_that_kills_alone_is_known_and_the_oldest_are_forgotten() {
        let origin = |offset: u64| Origin {
            topic: Name::new("calm").unwrap(),
            partition: 0,
            offset,
            schema_version: 1,
            attempts: 0,
            replayed_of: None,
        };
        let mut isolation = Isolation::default();
        for killer in 7..9 + KILLERS_MAX as u64 {
            isolation.begin([run("calm", 5, 9)].iter());
            isolation.take_alone(Some(origin(killer)));
            assert_eq!(isolation.died(), None);
        }
        assert!(!isolation.is_killer(&origin(8)) && isolation.is_killer(&origin(9)));
        assert!(!isolation.is_killer(&Origin { attempts: 1, ..origin(9) }), "replayed");
    }

    #[test]
    fn a_task_that_panics_without_an_event_to_blame_gives_up_in_the_end() {
        let mut isolation = Isolation::default();
        let mut conclude = || {
            isolation.begin([run("calm", 5, 9)].iter());
            isolation.conclude();
            isolation.died()
        };
        assert_eq!((0..10).filter_map(|_| conclude()).next(), Some(BLAMELESS_MAX));
        assert_eq!(conclude(), None, "who resumes it starts anew");
        // Nobody was at work: a fault that an operator injected.
        assert_eq!((0..20).filter_map(|_| isolation.died()).next(), None);
    }

    #[test]
    fn panics_at_ever_new_places_are_no_reason_to_give_up() {
        let mut isolation = Isolation::default();
        for place in 0..50 {
            isolation.begin([run("calm", place, place + 1)].iter());
            isolation.conclude();
            assert_eq!(isolation.died(), None);
        }
    }
}
