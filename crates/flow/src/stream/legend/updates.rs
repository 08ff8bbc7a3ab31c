//! Aggregates without a window: groups, and the single values that some aggregates keep.

use arrow_schema::{Field, FieldRef};

use crate::stream::groups::Keys;
use crate::stream::kept::{GROUP, Kept};
use crate::stream::legend::values::{following, value_cells};
use crate::stream::legend::{KeyColumns, Legend, StateCell, StateRow, broken, cells, number, plain, word};
use crate::stream::lists::VALUE;
use crate::stream::operator::Broken;
use crate::stream::retract::{Retracting, value_key};
use crate::stream::update_aggregate::UpdateAggregatePlan;
use crate::stream::window_aggregate::time_of;

enum States {
    Growing(Kept),
    /// With the bytes of what each aggregate reads.
    Retracting(Retracting, Vec<(Vec<FieldRef>, Keys)>),
}

/// Reads the groups of an updating aggregate.
pub(crate) struct UpdateLegend {
    key: KeyColumns,
    results: Vec<FieldRef>,
    states: States,
}

impl UpdateLegend {
    pub(crate) fn new(plan: &UpdateAggregatePlan) -> Result<Self, Broken> {
        let fields = plan.schema.fields();
        let key = plan.key.iter().enumerate().map(|(place, (_, kind))| (place, kind.clone()));
        let key: Vec<_> = key.collect();
        let states = match &plan.retracting {
            None => States::Growing(Kept::new(&plan.aggregates)?),
            Some(arguments) => {
                let values = plan.aggregates.iter().map(|aggregate| {
                    let types = &aggregate.types;
                    let name = |number: usize| if number == 0 { "value".to_owned() } else { format!("order{number}") };
                    let fields = types.iter().enumerate().map(|(n, kind)| Field::new(name(n), kind.clone(), true));
                    Ok((fields.map(FieldRef::new).collect(), Keys::new(types)?))
                });
                let values = values.collect::<Result<_, Broken>>()?;
                States::Retracting(Retracting::new(&plan.aggregates, arguments)?, values)
            }
        };
        let results = fields.iter().skip(plan.key.len()).take(plan.aggregates.len()).cloned().collect();
        Ok(Self { key: KeyColumns::of(&plan.schema, fields.len(), &key)?, results, states })
    }

    fn group(&self, key: &[u8], value: &[u8]) -> Result<StateRow, Broken> {
        let (_, state) = time_of(value).ok_or_else(broken)?;
        let key = self.key.cells(key)?;
        let (value, note) = match &self.states {
            States::Growing(kept) => following(&kept.shown(state)?, &self.results),
            States::Retracting(retracting, _) => following(&retracting.numbers_of(state)?, &self.results),
        };
        Ok(StateRow { what: "group", key, value, note, ..StateRow::default() })
    }

    fn value(&self, key: &[u8], value: &[u8]) -> Result<StateRow, Broken> {
        let values = match &self.states {
            States::Growing(kept) => {
                let kept = kept.value(key, value)?;
                let (key, value) = (self.key.cells(kept.name)?, value_cells(&kept, &self.results));
                return Ok(StateRow { what: "value", key, value, ..StateRow::default() });
            }
            States::Retracting(_, values) => values,
        };
        let (slot, group, bytes) = value_key(key).ok_or_else(broken)?;
        let (fields, keys) = values.get(slot).ok_or_else(broken)?;
        let times = i64::from_be_bytes(value.try_into().map_err(|_| broken())?);
        let of = self.results.get(slot).map(|field| plain(field.name())).unwrap_or_default();
        let mut shown: Vec<StateCell> = vec![word("of", &of)];
        if !fields.is_empty() {
            shown.extend(cells(fields, &keys.decode([bytes])?));
        }
        shown.push(number("times", times));
        Ok(StateRow { what: "value", key: self.key.cells(group)?, value: shown, ..StateRow::default() })
    }
}

impl Legend for UpdateLegend {
    fn key(&self) -> Vec<String> {
        self.key.names()
    }

    fn row(&self, key: &[u8], value: &[u8]) -> Result<StateRow, Broken> {
        let (kind, key) = key.split_first_chunk::<1>().ok_or_else(broken)?;
        match *kind {
            GROUP => self.group(key, value),
            VALUE => self.value(key, value),
            _ => Err(broken()),
        }
    }
}
