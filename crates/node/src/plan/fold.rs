//! Plans the fold of a service.

use millstream_service::event::Schema;
use millstream_service::flow::{
    Fold, FoldAction, FoldBlock, FoldCase, FoldOtherwise, FoldPart, FoldPlace, FoldSpec, FoldTimer, SqlError, plan_fold,
};

use super::Planner;
use crate::config::{
    FoldActionSettings, FoldCaseSettings, FoldOtherwiseSettings, FoldSettings, ServiceSettings, Span, Spanned, Sql,
};
use crate::diagnostic::Diagnostic;

impl Planner<'_> {
    pub(super) fn fold(&mut self, settings: &ServiceSettings, schema: &Schema) -> Option<Option<Fold>> {
        let Some(fold) = &settings.fold else { return Some(None) };
        if settings.state.as_ref().is_some_and(|state| state.ttl.is_some()) {
            let diagnostic = Diagnostic::error("fold-ttl", "`state: {ttl: ...}` does not bound what a fold keeps");
            self.report(
                fold.span,
                diagnostic.label("end a key's state with `forget: true` in a case, or in a `timer`"),
            );
        }
        let mut catalog = self.catalog.clone();
        let inputs: Vec<_> = settings.from.iter().map(|from| from.value.clone()).collect();
        inputs.iter().for_each(|input| drop(catalog.topics.insert(input.clone(), schema.clone())));
        match plan_fold(&fold.spec(), &inputs, &catalog) {
            Ok(fold) => Some(Some(fold)),
            Err(errors) => {
                for error in errors {
                    self.fold_error(fold, error.place, &error.error);
                }
                None
            }
        }
    }

    fn fold_error(&mut self, fold: &FoldSettings, place: FoldPlace, error: &SqlError) {
        match fold.text(place) {
            Some(sql) => self.sql_error(sql, error),
            None => self.sql_error_at(fold.place(place), error),
        }
    }
}

impl FoldSettings {
    /// The fold as the planner of folds takes it.
    pub(super) fn spec(&self) -> FoldSpec {
        FoldSpec {
            key: self.key.iter().map(|name| name.value.clone()).collect(),
            state: texts(&self.state),
            cases: self.cases.iter().map(case).collect(),
            otherwise: match &self.otherwise {
                FoldOtherwiseSettings::Do(settings) => FoldOtherwise::Do(action(settings)),
                FoldOtherwiseSettings::Drop => FoldOtherwise::Drop,
                FoldOtherwiseSettings::DeadLetter => FoldOtherwise::DeadLetter,
            },
            timer: self.timer.as_ref().map(|timer| FoldTimer {
                column: timer.at.value.clone(),
                cases: timer.cases.iter().map(case).collect(),
            }),
        }
    }

    fn action(&self, block: FoldBlock, at: usize) -> Option<&FoldActionSettings> {
        match (block, &self.otherwise, &self.timer) {
            (FoldBlock::Cases, ..) => self.cases.get(at).map(|case| &case.action),
            (FoldBlock::Timer, _, Some(timer)) => timer.cases.get(at).map(|case| &case.action),
            (FoldBlock::Otherwise, FoldOtherwiseSettings::Do(action), _) => Some(action),
            _ => None,
        }
    }

    /// The SQL at a place.
    fn text(&self, place: FoldPlace) -> Option<&Sql> {
        let (block, at, part) = match place {
            FoldPlace::State(i) => return self.state.get(i).map(|(_, sql)| sql),
            FoldPlace::Case(block, at, part) => (block, at, part),
            _ => return None,
        };
        match part {
            FoldPart::When if block == FoldBlock::Timer => self.timer.as_ref()?.cases.get(at)?.when.as_ref(),
            FoldPart::When => self.cases.get(at)?.when.as_ref(),
            FoldPart::Set(i) => self.action(block, at)?.set.get(i).map(|(_, sql)| sql),
            FoldPart::Column(row, column) => {
                self.action(block, at)?.emit.get(row)?.value.get(column).map(|(_, sql)| sql)
            }
            FoldPart::Row(_) | FoldPart::Whole => None,
        }
    }

    /// Where a place without SQL is.
    fn place(&self, place: FoldPlace) -> Span {
        let found = match place {
            FoldPlace::Key(i) => self.key.get(i).map(|name| name.span),
            FoldPlace::Timer => self.timer.as_ref().map(|timer| timer.at.span),
            FoldPlace::Case(block, at, FoldPart::Row(row)) => {
                self.action(block, at).and_then(|action| action.emit.get(row)).map(|row| row.span)
            }
            FoldPlace::Case(block, at, _) => self.action(block, at).map(|action| action.span),
            _ => None,
        };
        found.unwrap_or(self.span)
    }
}

fn texts(of: &[(Spanned<String>, Sql)]) -> Vec<(String, String)> {
    of.iter().map(|(name, sql)| (name.value.clone(), sql.text.clone())).collect()
}

fn case(settings: &FoldCaseSettings) -> FoldCase {
    FoldCase { when: settings.when.as_ref().map(|when| when.text.clone()), action: action(&settings.action) }
}

fn action(settings: &FoldActionSettings) -> FoldAction {
    let emit = settings.emit.iter().map(|row| texts(&row.value));
    FoldAction { set: texts(&settings.set), emit: emit.collect(), forget: settings.forget }
}
