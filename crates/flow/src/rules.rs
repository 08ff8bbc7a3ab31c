//! The named rules of a `check`: an event passes only when all are true.

use arrow_array::{BooleanArray, RecordBatch};
use millstream_event::Schema;

use crate::error::SqlError;
use crate::outcome::Failed;
use crate::predicate::{Predicate, plan_predicate};

/// The most rules of one check.
pub const RULES_MAX: usize = 1024;

/// Plans rules, given as (name, condition). A fault tells which rule has it.
pub fn plan_rules(rules: &[(String, String)], schema: &Schema) -> Result<Rules, Vec<(usize, SqlError)>> {
    if rules.len() > RULES_MAX {
        let message = format!("a check has at most {RULES_MAX} rules, this one has {}", rules.len());
        return Err(vec![(RULES_MAX, SqlError::new("rules-too-many", message))]);
    }
    let mut planned = Vec::with_capacity(rules.len());
    let mut errors = Vec::new();
    for (i, (name, sql)) in rules.iter().enumerate() {
        match plan_predicate(sql, schema) {
            Ok(predicate) => planned.push((name.clone(), predicate)),
            Err(faults) => errors.extend(faults.into_iter().map(|e| (i, e))),
        }
    }
    if errors.is_empty() { Ok(Rules { rules: planned }) } else { Err(errors) }
}

/// Planned rules.
#[derive(Debug)]
pub struct Rules {
    rules: Vec<(String, Predicate)>,
}

/// What the rules say of each row.
#[derive(Debug, Clone)]
pub struct Verdicts {
    /// Whether the row passes; never null.
    pub pass: BooleanArray,
    /// The rows that break rules, in order, and the rules each breaks. NULL breaks a rule.
    pub broken: Vec<(u32, Vec<u16>)>,
    /// The rows that break no rule, but on which a rule failed, in order.
    pub failed: Vec<Failed>,
}

impl Rules {
    /// The names of the rules, in order: what [`Verdicts::broken`] counts.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.rules.iter().map(|(name, _)| name.as_str())
    }

    /// Judges rows with the columns of [`Schema::physical`].
    ///
    /// Each rule is judged alone. A row that breaks one rule and on which another fails is broken: the rule that it
    /// breaks is what its author wants to hear of. If several rules fail on a row, the first is told.
    pub fn run(&self, rows: &RecordBatch) -> Verdicts {
        let count = rows.num_rows();
        let results: Vec<(BooleanArray, Vec<Failed>)> = self.rules.iter().map(|(_, rule)| rule.run(rows)).collect();
        let clean = results.iter().all(|(mask, failed)| failed.is_empty() && mask.true_count() == count);
        if clean {
            return Verdicts { pass: vec![true; count].into(), broken: Vec::new(), failed: Vec::new() };
        }
        let mut broken: Vec<Vec<u16>> = vec![Vec::new(); count];
        let mut failed: Vec<Option<Failed>> = vec![None; count];
        for (i, (mask, faults)) in (0_u16..).zip(&results) {
            for fault in faults {
                if let Some(place) = failed.get_mut(fault.row as usize) {
                    place.get_or_insert_with(|| self.named(i, fault));
                }
            }
            let mut faults = faults.iter().map(|f| f.row as usize).peekable();
            for (row, (value, broken)) in mask.iter().zip(&mut broken).enumerate() {
                let fault = faults.next_if_eq(&row).is_some();
                if value != Some(true) && !fault {
                    broken.push(i);
                }
            }
        }
        let pass = broken.iter().zip(&failed).map(|(b, f)| Some(b.is_empty() && f.is_none())).collect();
        let failed = failed.into_iter().zip(&broken).filter(|(_, b)| b.is_empty()).filter_map(|(f, _)| f).collect();
        let broken = (0_u32..).zip(broken).filter(|(_, rules)| !rules.is_empty()).collect();
        Verdicts { pass, broken, failed }
    }

    fn named(&self, rule: u16, fault: &Failed) -> Failed {
        let name = self.rules.get(usize::from(rule)).map_or("?", |(name, _)| name.as_str());
        Failed { reason: format!("rule {name}: {}", fault.reason), ..fault.clone() }
    }
}
