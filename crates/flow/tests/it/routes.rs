//! Routes, rules and conditions on a small batch.

use std::sync::Arc;

use arrow_array::{ArrayRef, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use millstream_event::{Column, Name, Schema};
use millstream_flow::{
    ROUTE_UNMATCHED, RouteCase, RouteMode, RouteOtherwise, RouteTarget, plan_predicate, plan_routes, plan_rules,
};

fn schema() -> Schema {
    let columns = [("country", "string"), ("a", "bigint!"), ("b", "bigint")];
    Schema::new(columns.iter().map(|(n, t)| Column::parse(*n, t).unwrap()).collect()).unwrap()
}

fn rows() -> RecordBatch {
    let columns: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from(vec![Some("de"), Some("fr"), None, Some("de")])),
        Arc::new(Int64Array::from(vec![1, 20, 30, 40])),
        Arc::new(Int64Array::from(vec![Some(1), Some(0), None, Some(5)])),
        Arc::new(TimestampMicrosecondArray::from(vec![10, 20, 30, 40]).with_timezone("+00:00")),
    ];
    RecordBatch::try_new(Arc::clone(schema().physical()), columns).unwrap()
}

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn rest() -> RouteOtherwise {
    RouteOtherwise::To(RouteTarget::Topic(name("rest")))
}

fn case(when: &str, to: &str) -> RouteCase {
    RouteCase { when: when.to_owned(), to: RouteTarget::Topic(name(to)) }
}

#[test]
fn the_first_true_case_takes_the_row_and_null_does_not_match() {
    let cases = [case("b > 0", "good"), case("a >= 20", "big")];
    let routes = plan_routes(RouteMode::First, &cases, &rest(), &schema()).unwrap();
    assert_eq!(routes.targets(), [name("good"), name("big"), name("rest")]);
    let routed = routes.run(&rows());
    assert_eq!(routed.rows, [vec![0, 3], vec![1, 2], vec![]]);
    assert!(routed.failed.is_empty());
}

#[test]
fn a_case_is_not_evaluated_on_rows_that_an_earlier_one_took() {
    let cases = [case("b = 0", "zero"), case("a / b > 1", "ratio")];
    let routes = plan_routes(RouteMode::First, &cases, &rest(), &schema()).unwrap();
    let routed = routes.run(&rows());
    assert_eq!(routed.rows, [vec![1], vec![3], vec![0, 2]]);
    assert!(routed.failed.is_empty());
    let routes = plan_routes(RouteMode::All, &cases, &rest(), &schema()).unwrap();
    let routed = routes.run(&rows());
    assert_eq!(routed.rows, [vec![], vec![3], vec![0, 2]]);
    assert_eq!(routed.failed.iter().map(|f| (f.row, f.code)).collect::<Vec<_>>(), [(1, "division-by-zero")]);
}

#[test]
fn all_sends_to_every_true_case_and_otherwise_takes_the_rest() {
    let cases = [case("b > 0", "good"), case("a >= 40", "big"), case("a > 39", "big")];
    let routes = plan_routes(RouteMode::All, &cases, &rest(), &schema()).unwrap();
    assert_eq!(routes.run(&rows()).rows, [vec![0, 3], vec![3], vec![1, 2]]);
}

#[test]
fn what_no_case_takes_can_be_dropped_or_fail_by_name() {
    let cases = [case("b > 0", "good"), case("a / b > 1000", "huge")];
    for mode in [RouteMode::First, RouteMode::All] {
        let routes = plan_routes(mode, &cases, &RouteOtherwise::Drop, &schema()).unwrap();
        assert_eq!(routes.targets(), [name("good"), name("huge")], "nothing is a topic");
        let routed = routes.run(&rows());
        assert_eq!((routed.rows, routed.dropped), (vec![vec![0, 3], vec![]], vec![2]));
        // A row that a condition fails on is not one that no case takes.
        assert_eq!(routed.failed.iter().map(|f| (f.row, f.code)).collect::<Vec<_>>(), [(1, "division-by-zero")]);
        let routes = plan_routes(mode, &cases, &RouteOtherwise::DeadLetter, &schema()).unwrap();
        let routed = routes.run(&rows());
        assert_eq!((routed.rows, routed.dropped), (vec![vec![0, 3], vec![]], vec![]));
        let failed: Vec<_> = routed.failed.iter().map(|f| (f.row, f.code)).collect();
        assert_eq!(failed, [(1, "division-by-zero"), (2, ROUTE_UNMATCHED)]);
    }
}

#[test]
fn a_template_sends_by_value_and_refuses_names_outside_its_list() {
    let template = |topics: &[&str]| {
        let topics = topics.iter().map(|t| name(t)).collect();
        RouteOtherwise::To(RouteTarget::Template { text: "orders_{country}".to_owned(), topics })
    };
    let routes = plan_routes(RouteMode::First, &[], &template(&["orders_de", "orders_uk"]), &schema()).unwrap();
    let routed = routes.run(&rows());
    assert_eq!(routed.rows, [vec![0, 3], vec![]]);
    assert_eq!(
        routed.failed.iter().map(|f| (f.row, f.code)).collect::<Vec<_>>(),
        [(1, "route-target"), (2, "route-target")]
    );
    assert!(routed.failed[0].reason.contains("orders_fr"));
    let wrong = RouteTarget::Template { text: "orders_{contry}".to_owned(), topics: vec![name("orders_de")] };
    let wrong = RouteOtherwise::To(wrong);
    let errors = plan_routes(RouteMode::First, &[], &wrong, &schema()).unwrap_err();
    assert_eq!(errors[0].0, 0);
    assert_eq!(errors[0].1.help.as_deref(), Some("did you mean `country`?"));
    assert!(plan_routes(RouteMode::First, &[], &template(&["other_de"]), &schema()).is_err());
}

#[test]
fn every_faulty_rule_is_told_in_one_pass() {
    let rules = ["a > 0", "amuont > 0", "b", "sum(a) > 1", "a >"].map(|sql| ("r".to_owned(), sql.to_owned()));
    let errors = plan_rules(&rules, &schema()).unwrap_err();
    let told: Vec<_> = errors.iter().map(|(rule, e)| (*rule, e.code)).collect();
    let expected = [(1, "sql-unknown-column"), (2, "sql-condition"), (3, "sql-aggregate"), (4, "sql-syntax")];
    assert_eq!(told, expected);
}

#[test]
fn a_row_that_breaks_a_rule_is_broken_even_if_another_rule_fails_on_it() {
    let rules = [("nonzero", "b <> 0"), ("ratio", "a / b > 0")].map(|(n, s)| (n.to_owned(), s.to_owned()));
    let verdicts = plan_rules(&rules, &schema()).unwrap().run(&rows());
    assert_eq!(verdicts.broken, [(1, vec![0]), (2, vec![0, 1])]);
    assert!(verdicts.failed.is_empty());
    assert_eq!(verdicts.pass.iter().map(Option::unwrap).collect::<Vec<_>>(), [true, false, false, true]);
    let verdicts = plan_rules(&rules[1..], &schema()).unwrap().run(&rows());
    assert_eq!(verdicts.failed.iter().map(|f| f.row).collect::<Vec<_>>(), [1]);
    assert!(verdicts.failed[0].reason.starts_with("rule ratio: "), "{}", verdicts.failed[0].reason);
}

#[test]
fn a_condition_reads_the_time_of_ingestion() {
    // The two lowest bits of a stamp are marks, no time: 30 us are 28.
    let predicate = plan_predicate("now() >= TIMESTAMP '1970-01-01 00:00:00.000028'", &schema()).unwrap();
    let (mask, failed) = predicate.run(&rows());
    assert_eq!(mask.iter().map(Option::unwrap).collect::<Vec<_>>(), [false, false, true, true]);
    assert!(failed.is_empty());
}
