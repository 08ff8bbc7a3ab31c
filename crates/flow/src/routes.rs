//! Where rows go: the cases of a `route`.

use arrow_array::cast::AsArray;
use arrow_array::{Array, RecordBatch, UInt32Array};
use arrow_cast::display::{ArrayFormatter, FormatOptions};
use arrow_select::take::take_record_batch;
use millstream_event::{Name, Schema};

use crate::error::{SqlError, nearest};
use crate::outcome::Failed;
use crate::predicate::{Predicate, plan_predicate};

/// How the cases share a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RouteMode {
    /// To the first case that is true.
    First,
    /// To every case that is true.
    All,
}

/// Where a case sends its rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RouteTarget {
    /// Always the same topic.
    Topic(Name),
    /// A topic by the value of a column.
    Template {
        /// A name with one column in braces, as in `orders_{country}`.
        text: String,
        /// The names that may come out; any other fails its row.
        topics: Vec<Name>,
    },
}

/// What becomes of rows that no case takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RouteOtherwise {
    /// They go there.
    To(RouteTarget),
    /// They are left out and counted.
    Drop,
    /// They fail with the code [`ROUTE_UNMATCHED`].
    DeadLetter,
}

/// The code of a row that no case of a route takes, where that is a failure.
pub const ROUTE_UNMATCHED: &str = "route-unmatched";

/// One case of a route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteCase {
    /// The condition; NULL does not match.
    pub when: String,
    /// Where the rows go.
    pub to: RouteTarget,
}

/// Plans a route. A fault tells which case has it; the number of cases stands for `otherwise`.
pub fn plan_routes(
    mode: RouteMode,
    cases: &[RouteCase],
    otherwise: &RouteOtherwise,
    schema: &Schema,
) -> Result<Routes, Vec<(usize, SqlError)>> {
    let mut errors = Vec::new();
    let mut targets = Vec::new();
    let mut planned = Vec::new();
    for (i, case) in cases.iter().enumerate() {
        let when = plan_predicate(&case.when, schema).map_err(|all| errors.extend(all.into_iter().map(|e| (i, e))));
        let to = plan_target(&case.to, schema, &mut targets).map_err(|e| errors.push((i, e)));
        if let (Ok(when), Ok(to)) = (when, to) {
            planned.push((when, to));
        }
    }
    let rest = match otherwise {
        RouteOtherwise::To(to) => plan_target(to, schema, &mut targets).map(Rest::To),
        RouteOtherwise::Drop => Ok(Rest::Drop),
        RouteOtherwise::DeadLetter => Ok(Rest::DeadLetter),
    };
    match rest {
        Ok(otherwise) if errors.is_empty() => Ok(Routes { mode, cases: planned, otherwise, targets }),
        Ok(_) => Err(errors),
        Err(error) => {
            errors.push((cases.len(), error));
            Err(errors)
        }
    }
}

/// A planned route.
#[derive(Debug)]
pub struct Routes {
    mode: RouteMode,
    cases: Vec<(Predicate, Target)>,
    otherwise: Rest,
    targets: Vec<Name>,
}

#[derive(Debug)]
enum Rest {
    To(Target),
    Drop,
    DeadLetter,
}

#[derive(Debug)]
enum Target {
    /// A place in the list of targets.
    One(usize),
    /// `before{column}behind`, and the places of the names allowed.
    Template { before: String, column: usize, behind: String, allowed: Vec<usize> },
}

/// Where each row of a batch goes.
#[derive(Debug, Clone)]
pub struct Routed {
    /// For each of [`Routes::targets`] its rows, in order.
    pub rows: Vec<Vec<u32>>,
    /// The rows that go nowhere because a condition failed, a name is not in its list, or no case takes them and that
    /// is a failure; in order.
    pub failed: Vec<Failed>,
    /// The rows that no case takes and that are left out ([`RouteOtherwise::Drop`]); in order.
    pub dropped: Vec<u32>,
}

fn unmatched(row: u32, failed: &mut [Option<Failed>]) {
    if let Some(slot) = failed.get_mut(row as usize) {
        let reason = "no case of the route is true for it".to_owned();
        slot.get_or_insert(Failed { row, code: ROUTE_UNMATCHED, reason });
    }
}

fn place(targets: &mut Vec<Name>, name: &Name) -> usize {
    targets.iter().position(|t| t == name).unwrap_or_else(|| {
        targets.push(name.clone());
        targets.len() - 1
    })
}

fn plan_target(target: &RouteTarget, schema: &Schema, targets: &mut Vec<Name>) -> Result<Target, SqlError> {
    let (text, topics) = match target {
        RouteTarget::Topic(name) => return Ok(Target::One(place(targets, name))),
        RouteTarget::Template { text, topics } => (text, topics),
    };
    let shape = || {
        SqlError::new("route-template", format!("`{text}` does not have one column in braces"))
            .help("write a name with one column, as in orders_{country}")
    };
    let (before, rest) = text.split_once('{').ok_or_else(shape)?;
    let (column, behind) = rest.split_once('}').ok_or_else(shape)?;
    if before.contains('}') || behind.contains(['{', '}']) {
        return Err(shape());
    }
    let column = column.trim();
    let Some((at, _)) = schema.column(column) else {
        let error = SqlError::new("sql-unknown-column", format!("there is no column `{column}` for `{text}`"));
        return Err(match nearest(column, schema.columns().iter().map(|c| c.name.as_str())) {
            Some(near) => error.help(format!("did you mean `{near}`?")),
            None => error,
        });
    };
    if topics.is_empty() {
        let error = SqlError::new("route-template", format!("`{text}` has no list of topics"));
        return Err(error.help("declare the topics that may come out"));
    }
    let stray = topics.iter().find(|t| !(t.as_str().starts_with(before) && t.as_str().ends_with(behind)));
    if let Some(stray) = stray {
        return Err(SqlError::new("route-template", format!("`{text}` can never give `{stray}`")));
    }
    let allowed = topics.iter().map(|t| place(targets, t)).collect();
    Ok(Target::Template { before: before.to_owned(), column: at, behind: behind.to_owned(), allowed })
}

impl Routes {
    /// All topics that rows may go to, each once.
    pub fn targets(&self) -> &[Name] {
        &self.targets
    }

    /// Routes rows with the columns of [`Schema::physical`]. A failing row is in no target's list.
    pub fn run(&self, rows: &RecordBatch) -> Routed {
        let count = rows.num_rows();
        let mut failed: Vec<Option<Failed>> = vec![None; count];
        // (row, target) in the order of cases; a failing row is taken out at the end.
        let mut sent: Vec<(u32, usize)> = Vec::with_capacity(count);
        let mut open: Vec<u32> = (0..count as u32).collect();
        let mut matched = vec![false; count];
        for (when, to) in &self.cases {
            if open.is_empty() {
                break;
            }
            let (mask, faults) = self.judge(when, rows, &open);
            for fault in faults {
                if let Some(slot) = failed.get_mut(fault.row as usize) {
                    slot.get_or_insert(fault);
                }
            }
            let hits: Vec<u32> = open.iter().zip(&mask).filter(|(_, m)| **m).map(|(row, _)| *row).collect();
            self.send(to, rows, &hits, &mut sent, &mut failed);
            hits.iter().for_each(|row| matched.iter_mut().skip(*row as usize).take(1).for_each(|m| *m = true));
            let is_failed = |row: &u32| failed.get(*row as usize).is_some_and(Option::is_some);
            let done = |row: &u32| self.mode == RouteMode::First && matched.get(*row as usize) == Some(&true);
            open.retain(|row| !is_failed(row) && !done(row));
        }
        let rest: Vec<u32> = open.into_iter().filter(|row| matched.get(*row as usize) == Some(&false)).collect();
        let mut dropped = Vec::new();
        match &self.otherwise {
            Rest::To(to) => self.send(to, rows, &rest, &mut sent, &mut failed),
            Rest::Drop => dropped = rest,
            Rest::DeadLetter => rest.into_iter().for_each(|row| unmatched(row, &mut failed)),
        }
        let mut lists = vec![Vec::new(); self.targets.len()];
        for (row, target) in sent {
            if failed.get(row as usize).is_some_and(Option::is_none)
                && let Some(list) = lists.get_mut(target)
            {
                list.push(row);
            }
        }
        for list in &mut lists {
            list.sort_unstable();
            list.dedup();
        }
        Routed { rows: lists, failed: failed.into_iter().flatten().collect(), dropped }
    }

    /// The condition on the rows still open.
    fn judge(&self, when: &Predicate, rows: &RecordBatch, open: &[u32]) -> (Vec<bool>, Vec<Failed>) {
        let whole = open.len() == rows.num_rows();
        let part = if whole { Ok(rows.clone()) } else { take_record_batch(rows, &UInt32Array::from(open.to_vec())) };
        let part = match part {
            Ok(part) => part,
            Err(error) => {
                let fail = |row: &u32| Failed { row: *row, code: "expression", reason: error.to_string() };
                return (vec![false; open.len()], open.iter().map(fail).collect());
            }
        };
        let (mask, mut faults) = when.run(&part);
        for fault in &mut faults {
            fault.row = open.get(fault.row as usize).copied().unwrap_or(fault.row);
            fault.reason = format!("when {}: {}", when.sql(), fault.reason);
        }
        (mask.iter().map(|m| m == Some(true)).collect(), faults)
    }

    fn send(
        &self,
        to: &Target,
        rows: &RecordBatch,
        hits: &[u32],
        sent: &mut Vec<(u32, usize)>,
        failed: &mut [Option<Failed>],
    ) {
        let (before, column, behind, allowed) = match to {
            Target::One(target) => return sent.extend(hits.iter().map(|row| (*row, *target))),
            Target::Template { before, column, behind, allowed } => (before, column, behind, allowed),
        };
        let Some(values) = rows.columns().get(*column) else { return };
        let options = FormatOptions::new();
        let formatter = ArrayFormatter::try_new(values.as_ref(), &options).ok();
        for row in hits {
            let at = *row as usize;
            let value = match values.as_string_opt::<i32>() {
                _ if values.is_null(at) => None,
                Some(texts) => Some(texts.value(at).to_owned()),
                None => formatter.as_ref().map(|f| f.value(at).to_string()),
            };
            let name = value.map(|v| format!("{before}{v}{behind}"));
            let is = |target: &&usize| self.targets.get(**target).map(Name::as_str) == name.as_deref();
            match (allowed.iter().find(is), failed.get_mut(at)) {
                (Some(target), _) if name.is_some() => sent.push((*row, *target)),
                (_, Some(slot)) => {
                    let shown: String = name.as_deref().unwrap_or("NULL").chars().take(100).collect();
                    let reason = format!("no topic `{shown}` is declared for {before}{{…}}{behind}");
                    slot.get_or_insert(Failed { row: *row, code: "route-target", reason });
                }
                (_, None) => {}
            }
        }
    }
}
