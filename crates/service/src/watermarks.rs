//! What a reader may expect of event time: the least of what its producers promised. Pure: no clock, no log.
//!
//! A reader waits for the producers that the plan names, each writer of an input with its tasks, so nothing is concluded
//! before all of them have opened. Idle and closed producers are not waited for, in the run in which they said so.
//!
//! Invariants: the time reached never goes back, also not when a producer is added, wakes up or is opened again.
//! Delaying a mark delays what is reached and changes nothing else.

use std::collections::BTreeMap;

use bytes::Bytes;
use millstream_event::{Mark, Name, PartitionId, Producer, Watermark};

use crate::def::{InputTime, Producers};

/// The version of [`Watermarks::state`].
const STATE_VERSION: u8 = 1;

/// The watermarks of one task's inputs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Watermarks {
    writers: Vec<Writer>,
    /// The greatest time that was reached.
    reached: Watermark,
}

/// A writer of an input and what its tasks promised.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Writer {
    input: usize,
    topic: Name,
    name: Name,
    /// Names the writer in a stored state.
    id: u64,
    /// By task; `None`: not heard of yet.
    tasks: BTreeMap<u32, Option<Watermark>>,
}

/// Who holds a reader back, and by how much.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Holder {
    pub(crate) topic: Name,
    pub(crate) producer: Producer,
    /// What it promised; [`Watermark::OPEN`] where nothing yet.
    pub(crate) promised: Watermark,
}

impl Watermarks {
    /// What the task on partition `partition` of inputs with `partitions` partitions waits for.
    pub(crate) fn new(inputs: &[InputTime], partition: u32, partitions: u32) -> Self {
        let mut writers = Vec::new();
        for (input, time) in inputs.iter().enumerate() {
            for producers in &time.producers {
                let tasks = tasks_of(producers, partition, partitions).map(|task| (task, None)).collect();
                let (topic, name) = (time.topic.clone(), producers.name.clone());
                let id = id_of(&topic, &name, producers.in_place);
                writers.push(Writer { input, topic, name, id, tasks });
            }
        }
        Self { writers, reached: Watermark::OPEN }
    }

    /// As if nothing had been heard.
    pub(crate) fn clear(&mut self) {
        self.reached = Watermark::OPEN;
        self.writers.iter_mut().flat_map(|writer| writer.tasks.values_mut()).for_each(|promised| *promised = None);
    }

    /// Takes in what a producer of an input promised. Who is not named by the plan is not listened to.
    pub(crate) fn heard(&mut self, input: usize, mark: &Mark) {
        self.hear(input, &mark.producer, Some(mark.watermark));
    }

    /// What a producer said last does not count any more: it is waited for until it says something else.
    pub(crate) fn unheard(&mut self, input: usize, producer: &Producer) {
        self.hear(input, producer, None);
    }

    /// Whoever writes to an input and was idle, or had closed, is waited for until it says so again.
    pub(crate) fn open_again(&mut self, input: usize) {
        let tasks = self.writers.iter_mut().filter(|w| w.input == input).flat_map(|w| w.tasks.values_mut());
        tasks.filter(|promised| said(**promised) >= Watermark::IDLE).for_each(|promised| *promised = None);
    }

    fn hear(&mut self, input: usize, producer: &Producer, word: Option<Watermark>) {
        let writer = self.writers.iter_mut().find(|w| w.input == input && w.name == producer.name);
        if let Some(promised) = writer.and_then(|w| w.tasks.get_mut(&producer.partition.0)) {
            *promised = word;
        }
        self.reached = self.reached.max(self.least());
    }

    /// What the task's own operators may conclude: [`Watermark::OPEN`] until all producers have opened, then a time,
    /// [`Watermark::CLOSED`] when all have closed. The time never goes back; behind `CLOSED` it goes on where it was, if
    /// a producer opens again.
    pub(crate) fn watermark(&self) -> Watermark {
        if self.all(&|w| w == Watermark::CLOSED) { Watermark::CLOSED } else { self.reached }
    }

    /// What the task itself may promise: as [`Watermarks::watermark`], and [`Watermark::IDLE`] when none of its producers
    /// is waited for.
    pub(crate) fn promise(&self) -> Watermark {
        match self.watermark() {
            Watermark::CLOSED => Watermark::CLOSED,
            _ if self.all(&|w| w >= Watermark::IDLE) => Watermark::IDLE,
            reached => reached,
        }
    }

    /// The producer that is waited for; `None` where none is.
    pub(crate) fn holder(&self) -> Option<Holder> {
        let of = |writer: &Writer, task: u32, promised: Watermark| Holder {
            topic: writer.topic.clone(),
            producer: Producer { name: writer.name.clone(), partition: PartitionId(task) },
            promised,
        };
        let all = self.writers.iter().flat_map(|w| w.tasks.iter().map(move |(task, p)| (w, *task, said(*p))));
        let waited = all.filter(|(_, _, promised)| *promised < Watermark::IDLE);
        waited.min_by_key(|(_, _, promised)| *promised).map(|(writer, task, promised)| of(writer, task, promised))
    }

    /// The greatest time that a producer promised.
    pub(crate) fn furthest(&self) -> Option<i64> {
        self.promises().filter_map(Watermark::time).max()
    }

    fn promises(&self) -> impl Iterator<Item = Watermark> {
        self.writers.iter().flat_map(|w| w.tasks.values().map(|p| said(*p)))
    }

    fn all(&self, condition: &dyn Fn(Watermark) -> bool) -> bool {
        self.promises().all(condition)
    }

    /// The least time among those that are waited for, where all of them have opened.
    fn least(&self) -> Watermark {
        self.promises().filter(|w| *w < Watermark::IDLE).min().unwrap_or(Watermark::OPEN)
    }

    /// The longest that [`Watermarks::state`] can become, in bytes.
    pub(crate) fn state_bytes_max(&self) -> usize {
        let writers = self.writers.iter().map(|w| 8 + 2 + w.tasks.len() * (1 + 8));
        1 + (1 + 8) + writers.sum::<usize>()
    }

    /// What [`Watermarks::restore`] needs.
    pub(crate) fn state(&self) -> Bytes {
        let mut state = vec![STATE_VERSION];
        put(&mut state, Some(self.reached));
        for writer in &self.writers {
            state.extend(writer.id.to_le_bytes());
            state.extend(u16::try_from(writer.tasks.len()).unwrap_or(u16::MAX).to_le_bytes());
            writer.tasks.values().for_each(|promised| put(&mut state, *promised));
        }
        state.into()
    }

    /// Goes on from a stored state. Writers that the plan does not name any more are left out; new ones have not opened.
    pub(crate) fn restore(&mut self, state: &[u8]) -> Result<(), String> {
        let wrong = "the stored watermarks cannot be read; were they written by a newer version?";
        let mut rest = state;
        self.restored(&mut rest).filter(|()| rest.is_empty()).ok_or_else(|| wrong.to_owned())
    }

    fn restored(&mut self, state: &mut &[u8]) -> Option<()> {
        let [version] = take(state)?;
        (version == STATE_VERSION).then_some(())?;
        self.reached = get(state)??;
        while !state.is_empty() {
            let id = u64::from_le_bytes(take(state)?);
            let count = u16::from_le_bytes(take(state)?);
            let mut known = self.writers.iter_mut().find(|w| w.id == id).map(|w| w.tasks.values_mut());
            for _ in 0..count {
                let promised = get(state)?;
                if let Some(task) = known.as_mut().and_then(Iterator::next) {
                    *task = promised;
                }
            }
        }
        Some(())
    }
}

/// The state of who has heard nothing.
pub(crate) fn fresh() -> Bytes {
    Watermarks { writers: Vec::new(), reached: Watermark::OPEN }.state()
}

/// The greatest time that was reached, as a state says.
pub(crate) fn reached_in(state: &[u8]) -> Option<Watermark> {
    let mut state = state;
    let [version] = take(&mut state)?;
    (version == STATE_VERSION).then(|| get(&mut state))??
}

/// The tasks of a writer that write to a partition.
fn tasks_of(producers: &Producers, partition: u32, partitions: u32) -> impl Iterator<Item = u32> {
    let in_place = producers.in_place;
    (0..producers.tasks).filter(move |task| !in_place || task % partitions.max(1) == partition)
}

fn said(promised: Option<Watermark>) -> Watermark {
    promised.unwrap_or(Watermark::OPEN)
}

/// FNV-1a of what makes a writer another one.
fn id_of(topic: &Name, name: &Name, in_place: bool) -> u64 {
    let bytes = topic.as_str().bytes().chain([0]).chain(name.as_str().bytes()).chain([0, u8::from(in_place)]);
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3))
}

/// A promise: what it is, then the time where it is one.
fn put(state: &mut Vec<u8>, promised: Option<Watermark>) {
    match promised {
        None => state.push(0),
        Some(Watermark::OPEN) => state.push(1),
        Some(Watermark::IDLE) => state.push(2),
        Some(Watermark::CLOSED) => state.push(3),
        Some(Watermark(time)) => {
            state.push(4);
            state.extend(time.to_le_bytes());
        }
    }
}

fn get(state: &mut &[u8]) -> Option<Option<Watermark>> {
    let [kind] = take(state)?;
    Some(match kind {
        0 => None,
        1 => Some(Watermark::OPEN),
        2 => Some(Watermark::IDLE),
        3 => Some(Watermark::CLOSED),
        4 => Some(Watermark(i64::from_le_bytes(take(state)?))),
        _ => return None,
    })
}

fn take<const N: usize>(state: &mut &[u8]) -> Option<[u8; N]> {
    let (head, rest) = state.split_first_chunk::<N>()?;
    *state = rest;
    Some(*head)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn name(text: &str) -> Name {
        Name::new(text).unwrap()
    }

    fn producers(writer: &str, tasks: u32, in_place: bool) -> Producers {
        Producers { name: name(writer), tasks, in_place }
    }

    fn input(topic: &str, producers: Vec<Producers>) -> InputTime {
        InputTime { topic: name(topic), producers }
    }

    fn mark(writer: &str, task: u32, watermark: Watermark) -> Mark {
        Mark { producer: Producer { name: name(writer), partition: PartitionId(task) }, watermark }
    }

    fn two() -> Watermarks {
        Watermarks::new(&[input("a", vec![producers("s", 2, false)]), input("b", vec![producers("t", 1, false)])], 0, 4)
    }

    #[test]
    fn nothing_is_concluded_before_all_have_opened() {
        let mut reader = two();
        assert_eq!((reader.watermark(), reader.promise()), (Watermark::OPEN, Watermark::OPEN));
        reader.heard(0, &mark("s", 0, Watermark(10)));
        reader.heard(0, &mark("s", 1, Watermark(20)));
        assert_eq!(reader.watermark(), Watermark::OPEN);
        let holder = reader.holder().unwrap();
        assert_eq!((holder.topic, holder.producer.name, holder.promised), (name("b"), name("t"), Watermark::OPEN));
        reader.heard(1, &mark("t", 0, Watermark::OPEN));
        assert_eq!(reader.watermark(), Watermark::OPEN, "an open producer has promised nothing");
        reader.heard(1, &mark("t", 0, Watermark(15)));
        assert_eq!((reader.watermark(), reader.promise()), (Watermark(10), Watermark(10)));
        assert_eq!(reader.holder().unwrap().producer, mark("s", 0, Watermark(0)).producer);
        assert_eq!(reader.furthest(), Some(20));
    }

    #[test]
    fn whoever_is_idle_or_closed_is_not_waited_for() {
        let mut reader = two();
        reader.heard(0, &mark("s", 0, Watermark(10)));
        reader.heard(0, &mark("s", 1, Watermark::IDLE));
        reader.heard(1, &mark("t", 0, Watermark::CLOSED));
        assert_eq!(reader.watermark(), Watermark(10));
        reader.heard(0, &mark("s", 0, Watermark::IDLE));
        assert_eq!((reader.watermark(), reader.promise()), (Watermark(10), Watermark::IDLE));
        assert_eq!(reader.holder(), None);
        reader.heard(0, &mark("s", 1, Watermark(5)));
        assert_eq!((reader.watermark(), reader.promise()), (Watermark(10), Watermark(10)), "time never goes back");
        reader.heard(0, &mark("s", 0, Watermark::CLOSED));
        reader.heard(0, &mark("s", 1, Watermark::CLOSED));
        assert_eq!((reader.watermark(), reader.promise()), (Watermark::CLOSED, Watermark::CLOSED));
        reader.heard(0, &mark("s", 1, Watermark(12)));
        assert_eq!(reader.watermark(), Watermark(12), "it has opened again");
    }

    #[test]
    fn in_a_new_run_whoever_was_idle_or_closed_is_waited_for() {
        let mut reader = two();
        reader.heard(0, &mark("s", 0, Watermark(10)));
        reader.heard(0, &mark("s", 1, Watermark::IDLE));
        reader.heard(1, &mark("t", 0, Watermark::CLOSED));
        (0..2).for_each(|input| reader.open_again(input));
        reader.heard(0, &mark("s", 0, Watermark(50)));
        reader.heard(0, &mark("s", 1, Watermark(40)));
        assert_eq!((reader.watermark(), reader.holder().unwrap().topic), (Watermark(10), name("b")));
        reader.heard(1, &mark("t", 0, Watermark(30)));
        assert_eq!(reader.watermark(), Watermark(30));
        reader.heard(1, &mark("t", 0, Watermark::CLOSED));
        assert_eq!(reader.watermark(), Watermark(40));
        reader.unheard(1, &mark("t", 0, Watermark::CLOSED).producer);
        reader.heard(0, &mark("s", 1, Watermark(50)));
        assert_eq!(reader.watermark(), Watermark(40));
    }

    #[test]
    fn of_a_writer_that_keeps_places_only_the_task_in_this_place_counts() {
        let inputs = [input("a", vec![producers("v", 4, true), producers("u", 2, true)])];
        let mut third = Watermarks::new(&inputs, 3, 4);
        third.heard(0, &mark("v", 0, Watermark(1)));
        assert_eq!(third.watermark(), Watermark::OPEN);
        third.heard(0, &mark("v", 3, Watermark(7)));
        assert_eq!(third.watermark(), Watermark(7), "`u` has no task that writes here");
        let nobody = Watermarks::new(&[input("a", vec![producers("u", 2, true)])], 3, 4);
        assert_eq!(nobody.watermark(), Watermark::CLOSED);
    }

    #[test]
    fn a_state_fits_where_64_partitions_have_4_writers() {
        let writers = ["a", "b", "c", "d"].map(|w| producers(w, 64, false));
        let mut reader = Watermarks::new(&[input("t", writers.to_vec())], 0, 64);
        assert!(reader.state_bytes_max() <= 3072, "{}", reader.state_bytes_max());
        for writer in ["a", "b", "c", "d"] {
            (0..64).for_each(|task| reader.heard(0, &mark(writer, task, Watermark(i64::from(task) - 7))));
        }
        assert_eq!(reader.state().len(), reader.state_bytes_max());
    }

    #[test]
    fn a_state_outlives_writers_that_come_and_go() {
        let mut before =
            Watermarks::new(&[input("a", vec![producers("s", 2, false), producers("gone", 1, false)])], 0, 1);
        before.heard(0, &mark("s", 0, Watermark(10)));
        before.heard(0, &mark("s", 1, Watermark(30)));
        before.heard(0, &mark("gone", 0, Watermark(20)));
        let mut after =
            Watermarks::new(&[input("a", vec![producers("s", 3, false), producers("new", 1, false)])], 0, 1);
        after.restore(&before.state()).unwrap();
        assert_eq!(after.watermark(), Watermark(10));
        after.heard(0, &mark("s", 0, Watermark(25)));
        assert_eq!(after.watermark(), Watermark(10), "two have not opened");
        after.heard(0, &mark("s", 2, Watermark(28)));
        after.heard(0, &mark("new", 0, Watermark::IDLE));
        assert_eq!(after.watermark(), Watermark(25));
    }

    #[test]
    fn a_state_that_is_none_is_refused() {
        for state in [&b""[..], b"\x02\x01", b"\x01\x04\x00", b"\x01\x00", b"\x01\x01\x00", b"\x01\x09"] {
            assert!(two().restore(state).is_err(), "{state:?}");
        }
    }

    /// What one of three producers of two inputs says.
    fn saying() -> impl Strategy<Value = (usize, u32, Watermark)> {
        let watermark = prop_oneof![
            6 => (-50_i64..50).prop_map(Watermark),
            1 => Just(Watermark::OPEN),
            1 => Just(Watermark::IDLE),
            1 => Just(Watermark::CLOSED),
        ];
        (0_usize..3, watermark).prop_map(|(who, watermark)| (who / 2, who as u32 % 2, watermark))
    }

    proptest! {
        #[test]
        fn the_watermark_is_the_least_and_never_goes_back(
            said in prop::collection::vec((saying(), any::<bool>()), 0..60),
        ) {
            let mut reader = two();
            let mut latest: BTreeMap<(usize, u32), Watermark> = BTreeMap::new();
            let mut reached = Watermark::OPEN;
            for ((input, task, watermark), restart) in said {
                reader.heard(input, &mark(if input == 0 { "s" } else { "t" }, task, watermark));
                latest.insert((input, task), watermark);
                if restart {
                    let state = reader.state();
                    reader = two();
                    reader.restore(&state).unwrap();
                }
                let waited = latest.values().filter(|w| **w < Watermark::IDLE);
                if latest.len() == 3 {
                    reached = reached.max(waited.clone().min().copied().unwrap_or(Watermark::OPEN));
                }
                let closed = latest.len() == 3 && latest.values().all(|w| *w == Watermark::CLOSED);
                let idle = latest.len() == 3 && waited.count() == 0;
                prop_assert_eq!(reader.watermark(), if closed { Watermark::CLOSED } else { reached });
                let promise = if closed { Watermark::CLOSED } else if idle { Watermark::IDLE } else { reached };
                prop_assert_eq!(reader.promise(), promise);
                prop_assert!(reader.state().len() <= reader.state_bytes_max());
            }
        }
    }
}
