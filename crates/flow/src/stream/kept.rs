//! The aggregates of a query: those whose state is a row of bytes for each group, and those that keep all values.

use arrow_array::{ArrayRef, RecordBatch};

use crate::stream::aggregates::{Aggregate, Aggregates};
use crate::stream::changes::Changes;
use crate::stream::groups::Groups;
use crate::stream::lists::{Lists, needs_all};
use crate::stream::operator::Broken;

/// One of the values of a group.
pub(crate) struct Value<'k> {
    /// The name of the group.
    pub(crate) name: &'k [u8],
    /// Whose value it is.
    pub(crate) aggregate: usize,
    /// The aggregate's arguments and what orders them.
    pub(crate) columns: Vec<ArrayRef>,
    /// Its number in the order of arrival, where each is kept as often as it comes.
    pub(crate) number: Option<u64>,
}

/// The aggregates of a query.
pub(crate) struct Kept {
    states: Aggregates,
    lists: Lists,
    /// Of each aggregate, whether it keeps all values.
    listed: Vec<bool>,
}

impl Kept {
    /// Prepares aggregates.
    pub(crate) fn new(aggregates: &[Aggregate]) -> Result<Self, Broken> {
        let (lists, states): (Vec<Aggregate>, Vec<Aggregate>) = aggregates.iter().cloned().partition(needs_all);
        let listed = aggregates.iter().map(needs_all).collect();
        Ok(Self { states: Aggregates::new(&states)?, lists: Lists::new(lists)?, listed })
    }

    /// All of them with states, also those that could keep all values.
    pub(crate) fn whole(aggregates: &[Aggregate]) -> Result<Self, Broken> {
        let lists = Lists::new(Vec::new())?;
        Ok(Self { states: Aggregates::new(aggregates)?, lists, listed: vec![false; aggregates.len()] })
    }

    /// The results that a group's state has in itself; `None` where an aggregate keeps its values beside it.
    pub(crate) fn shown(&self, state: &[u8]) -> Result<Vec<Option<ArrayRef>>, Broken> {
        let mut plain = self.states.results(&[state], &[0], 1)?.into_iter();
        Ok(self.listed.iter().map(|listed| if *listed { None } else { plain.next() }).collect())
    }

    /// What a value's row of the changelog says, without what stands in front of it: the name of its group, the number of
    /// its aggregate, the value's columns and, if it has one, its own number.
    pub(crate) fn value<'k>(&self, key: &'k [u8], value: &[u8]) -> Result<Value<'k>, Broken> {
        let (slot, name, columns, number) = self.lists.value(key, value)?;
        let mut aggregates = self.listed.iter().enumerate().filter(|(_, listed)| **listed).map(|(at, _)| at);
        let aggregate = aggregates.nth(slot).unwrap_or_default();
        Ok(Value { name, aggregate, columns, number })
    }

    /// What decides the form of the state.
    pub(crate) fn signature(&self) -> String {
        match self.lists.is_empty() {
            true => self.states.signature().to_owned(),
            false => format!("{}; values of {}", self.states.signature(), self.lists.signature()),
        }
    }

    /// What stands in front of a group's key in the changelog, so that it is told from that of a value.
    pub(crate) fn group(&self) -> &'static [u8] {
        if self.lists.is_empty() { &[] } else { &GROUP }
    }

    /// Whether values are kept.
    pub(crate) fn has_lists(&self) -> bool {
        !self.lists.is_empty()
    }

    /// Adds a batch's rows to its groups. `state` gives the state of a group before; the states after are given to `put`,
    /// by group. `name` is that of a group in the changelog.
    pub(crate) fn update<'s>(
        &mut self,
        rows: &RecordBatch,
        groups: &Groups,
        name: &dyn Fn(usize) -> Vec<u8>,
        state: impl Fn(usize) -> Option<&'s [u8]>,
        put: impl FnMut(usize, &[u8]),
        changes: &mut Changes,
    ) -> Result<(), Broken> {
        self.lists.add(rows, groups, name, changes)?;
        self.states.update(rows, groups, state, put)
    }

    /// The results of groups, given states (one or more for each group: `of[i]` is the group of `states[i]`, which has the
    /// name `name(i)` in the changelog).
    pub(crate) fn results(
        &self,
        states: &[&[u8]],
        of: &[usize],
        groups: usize,
        name: &dyn Fn(usize) -> Vec<u8>,
    ) -> Result<Vec<ArrayRef>, Broken> {
        let mut plain = self.states.results(states, of, groups)?.into_iter();
        let mut lists = Vec::new().into_iter();
        if self.has_lists() {
            let mut names = vec![Vec::new(); groups];
            for (at, group) in of.iter().enumerate() {
                if let Some(names) = names.get_mut(*group) {
                    names.push(name(at));
                }
            }
            lists = self.lists.results(&names)?.into_iter();
        }
        let next = |listed: &bool| if *listed { lists.next() } else { plain.next() };
        Ok(self.listed.iter().filter_map(next).collect())
    }

    /// Lets go of a group's values.
    pub(crate) fn forget(&mut self, name: &[u8], changes: &mut Changes) {
        self.lists.forget(name, changes);
    }

    /// Takes a value that was told before, without what stands in front of it.
    pub(crate) fn restore_value(&mut self, key: &[u8], value: Option<&[u8]>) -> Result<(), Broken> {
        self.lists.restore(key, value)
    }

    /// How many values there are, and about how many bytes they take.
    pub(crate) fn size(&self) -> (usize, usize) {
        self.lists.size()
    }
}

/// In front of a group's key in the changelog, where values are kept.
pub(crate) const GROUP: [u8; 1] = [0];
