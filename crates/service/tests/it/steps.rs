//! What a step does with good and bad events.

use std::sync::Arc;

use millstream_service::event::Schema;
use millstream_service::flow::{
    LookupSchema, LookupTable, ROUTE_UNMATCHED, RouteCase, RouteMode, RouteOtherwise, RouteTarget, plan_query,
    plan_routes,
};
use millstream_service::{Else, LookupPublisher, Output, State, Work};
use serde_json::json;

use crate::bed::{Bed, COLUMNS, Numbers, checked, name, pass, querying, schema, until};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refused_events_are_dead_letters_with_their_exact_origin() {
    let bed = Bed::new();
    bed.topic("raw", COLUMNS, &["k"], 4).await;
    bed.topic("valid", COLUMNS, &["k"], 4).await;
    let rules = [("is_even", "n % 2 = 0"), ("is_small", "n < 90"), ("divides", "100 / (n - 4) > -1000")];
    let def = checked(pass("validate", "raw", "valid"), COLUMNS, &rules, Else::DeadLetter);
    bed.runner.start_service(def).await.unwrap();
    bed.runner.start_source(Numbers::new(100).def("raw")).await.unwrap();
    bed.drained().await;
    let valid: Vec<i64> = (0..90).filter(|n| n % 2 == 0 && *n != 4).collect();
    assert_eq!(bed.numbers("valid", "n").await, valid);
    let raw = bed.rows("raw").await;
    let letters = bed.rows("validate.dlq").await;
    assert_eq!(letters.len(), 100 - valid.len());
    for (partition, _, letter) in &letters {
        let place = (letter["partition"].as_u64().unwrap() as u32, letter["offset"].as_u64().unwrap());
        let (p, _, event) = raw.iter().find(|(p, o, _)| (*p, *o) == place).unwrap();
        assert_eq!((p, &letter["event"]), (partition, event), "the event is the one at its origin");
        let n = event["n"].as_i64().unwrap();
        let mut rules = vec![];
        if n % 2 != 0 {
            rules.push("is_even");
        }
        if n >= 90 {
            rules.push("is_small");
        }
        if n == 4 {
            assert_eq!(letter["code"], "division-by-zero");
        } else {
            assert_eq!((&letter["code"], &letter["rules"]), (&json!("check"), &json!(rules)));
        }
        assert_eq!((&letter["topic"], &letter["attempts"]), (&json!("raw"), &json!(1)));
        assert_eq!((&letter["service"], &letter["key"]), (&json!("validate"), &event["k"]));
    }
    let counts = bed.runner.handle(&name("validate")).unwrap().counts();
    assert_eq!((counts.events_in, counts.events_out), (100, valid.len() as u64));
    assert_eq!(counts.dead_letters["division-by-zero"], 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_check_can_drop_tag_or_put_aside() {
    let bed = Bed::new();
    bed.topic("raw", COLUMNS, &["k"], 2).await;
    let tagged = [COLUMNS[0], COLUMNS[1], ("broken_rules", "array<string>")];
    for (topic, columns) in [("dropped", COLUMNS), ("aside", COLUMNS), ("rest", COLUMNS), ("tagged", &tagged[..])] {
        bed.topic(topic, columns, &["k"], 2).await;
    }
    let rules = [("is_even", "n % 2 = 0")];
    let services =
        [("drops", "dropped", Else::Drop), ("puts", "rest", Else::Topic(name("aside"))), ("tags", "tagged", Else::Tag)];
    for (service, to, or) in services {
        bed.runner.start_service(checked(pass(service, "raw", to), COLUMNS, &rules, or)).await.unwrap();
    }
    bed.runner.start_source(Numbers::new(50).def("raw")).await.unwrap();
    bed.drained().await;
    let even: Vec<i64> = (0..50).filter(|n| n % 2 == 0).collect();
    let odd: Vec<i64> = (0..50).filter(|n| n % 2 == 1).collect();
    assert_eq!(bed.numbers("dropped", "n").await, even);
    assert_eq!(bed.runner.handle(&name("drops")).unwrap().counts().dropped_by_check, 25);
    assert_eq!(bed.numbers("rest", "n").await, even);
    assert_eq!(bed.numbers("aside", "n").await, odd);
    for (_, _, row) in bed.rows("tagged").await {
        let broken = if row["n"].as_i64().unwrap() % 2 == 0 { json!(null) } else { json!(["is_even"]) };
        assert_eq!(row["broken_rules"], broken);
    }
    assert_eq!(bed.rows("tagged").await.len(), 50);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_null_key_is_a_dead_letter_and_its_neighbours_go_on() {
    let bed = Bed::new();
    bed.topic("raw", COLUMNS, &["n"], 3).await;
    bed.topic("by_k", COLUMNS, &["k"], 2).await;
    bed.runner.start_service(pass("rekey", "raw", "by_k")).await.unwrap();
    let numbers = Numbers::new(60).making(|n| match n % 6 {
        0 => json!({"n": n}).to_string(),
        1 => format!("{{\"n\": {n}, \"k\": "),
        _ => json!({"n": n, "k": format!("k{n}")}).to_string(),
    });
    bed.runner.start_source(numbers.def("raw")).await.unwrap();
    bed.drained().await;
    assert_eq!(bed.numbers("by_k", "n").await, (0..60).filter(|n| n % 6 > 1).collect::<Vec<_>>());
    let letters = bed.rows("rekey.dlq").await;
    assert_eq!(letters.len(), 10);
    assert!(letters.iter().all(|(_, _, l)| l["code"] == "key-null" && l["event"]["n"].as_i64().unwrap() % 6 == 0));
    let raw = bed.rows("numbers.dlq").await;
    assert_eq!(raw.len(), 10);
    assert!(
        raw.iter().all(|(_, _, l)| l["code"] == "json-syntax" && l["place"].as_str().unwrap().starts_with("numbers:"))
    );
    assert!(raw.iter().all(|(_, _, l)| !l["raw"].as_str().unwrap().is_empty()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_source_refuses_null_keys_and_spreads_events_without_a_key() {
    let bed = Bed::new();
    bed.topic("keyed", COLUMNS, &["k"], 2).await;
    bed.topic("unkeyed", COLUMNS, &[], 4).await;
    let make = |n: u64| if n.is_multiple_of(3) { json!({"n": n}) } else { json!({"n": n, "k": "a"}) }.to_string();
    bed.runner.start_source(Numbers::new(30).making(make).def("keyed")).await.unwrap();
    let mut def = Numbers::new(200).def("unkeyed");
    def.name = name("others");
    bed.runner.start_source(def).await.unwrap();
    bed.drained().await;
    assert_eq!(bed.rows("keyed").await.len(), 20);
    let letters = bed.rows("numbers.dlq").await;
    assert_eq!(letters.len(), 10);
    assert!(letters.iter().all(|(_, _, l)| l["code"] == "key-null"));
    let mut partitions: Vec<u32> = bed.rows("unkeyed").await.iter().map(|(p, _, _)| *p).collect();
    partitions.dedup();
    assert_eq!(partitions, [0, 1, 2, 3]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn routes_send_each_event_to_its_topics_and_a_failed_event_to_none() {
    let bed = Bed::new();
    for topic in ["raw", "high", "low"] {
        bed.topic(topic, COLUMNS, &["k"], 2).await;
    }
    // With mode `all` an event goes to several topics; one that cannot be placed in one of them goes to none.
    bed.topic("by_null", &[("k", "string!"), ("n", "bigint!")], &["n"], 3).await;
    let case = |when: &str, to: &str| RouteCase { when: when.into(), to: RouteTarget::Topic(name(to)) };
    let cases = [case("n >= 50", "high"), case("n % 10 = 0", "by_null")];
    let low = RouteOtherwise::To(RouteTarget::Topic(name("low")));
    let routes = plan_routes(RouteMode::All, &cases, &low, &schema(COLUMNS)).unwrap();
    let mut def = pass("decide", "raw", "low");
    def.output = Output::Route(Arc::new(routes));
    bed.runner.start_service(def).await.unwrap();
    let make = |n: u64| if n == 70 { json!({"n": n}) } else { json!({"n": n, "k": format!("k{}", n % 7)}) }.to_string();
    bed.topic("first", COLUMNS, &[], 2).await;
    let mut raw = pass("copy", "first", "raw");
    raw.output = Output::To(name("raw"));
    bed.runner.start_service(raw).await.unwrap();
    bed.runner.start_source(Numbers::new(100).making(make).def("first")).await.unwrap();
    bed.drained().await;
    // 70 has no key and is refused on the way into `raw`.
    assert_eq!(bed.rows("copy.dlq").await.len(), 1);
    assert_eq!(bed.numbers("high", "n").await, (50..100).filter(|n| *n != 70).collect::<Vec<_>>());
    assert_eq!(bed.numbers("by_null", "n").await, (0..100).step_by(10).filter(|n| *n != 70).collect::<Vec<_>>());
    assert_eq!(bed.numbers("low", "n").await, (0..50).filter(|n| n % 10 != 0).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_no_case_takes_is_dropped_and_counted_or_a_dead_letter_by_name() {
    let bed = Bed::new();
    bed.topic("raw", COLUMNS, &["k"], 2).await;
    for (service, to, otherwise) in
        [("drops", "high", RouteOtherwise::Drop), ("refuses", "also_high", RouteOtherwise::DeadLetter)]
    {
        bed.topic(to, COLUMNS, &["k"], 2).await;
        let case = RouteCase { when: "100 / (n - 4) >= 0".into(), to: RouteTarget::Topic(name(to)) };
        let routes = plan_routes(RouteMode::First, &[case], &otherwise, &schema(COLUMNS)).unwrap();
        let mut def = pass(service, "raw", to);
        def.output = Output::Route(Arc::new(routes));
        bed.runner.start_service(def).await.unwrap();
    }
    bed.runner.start_source(Numbers::new(50).def("raw")).await.unwrap();
    bed.drained().await;
    for to in ["high", "also_high"] {
        assert_eq!(bed.numbers(to, "n").await, (5..50).collect::<Vec<_>>());
    }
    let counts = bed.runner.handle(&name("drops")).unwrap().counts();
    assert_eq!((counts.dropped_by_route, counts.dropped_total(), counts.dead_letters_total()), (4, 4, 1));
    let letters = bed.rows("drops.dlq").await;
    assert_eq!((letters.len(), &letters[0].2["code"]), (1, &json!("division-by-zero")), "a failure is not dropped");
    let counts = bed.runner.handle(&name("refuses")).unwrap().counts();
    assert_eq!((counts.dropped_total(), counts.dead_letters[ROUTE_UNMATCHED]), (0, 4));
    let letters = bed.rows("refuses.dlq").await;
    let mut unmatched: Vec<i64> = letters
        .iter()
        .filter(|(_, _, l)| l["code"] == ROUTE_UNMATCHED)
        .map(|(_, _, l)| l["event"]["n"].as_i64().unwrap())
        .collect();
    unmatched.sort_unstable();
    assert_eq!((unmatched, letters.len()), (vec![0, 1, 2, 3], 5));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_that_fails_beside_one_that_is_put_aside_is_a_dead_letter_all_the_same() {
    let bed = Bed::new();
    for topic in ["raw", "good", "aside"] {
        bed.topic(topic, COLUMNS, &["k"], 1).await;
    }
    let rules = [("is_even", "n % 2 = 0"), ("divides", "100 / (n - 4) > -1000")];
    let def = checked(pass("sorts", "raw", "good"), COLUMNS, &rules, Else::Topic(name("aside")));
    bed.runner.start_service(def).await.unwrap();
    bed.runner.start_source(Numbers::new(10).def("raw")).await.unwrap();
    bed.drained().await;
    assert_eq!(bed.numbers("good", "n").await, [0, 2, 6, 8]);
    assert_eq!(bed.numbers("aside", "n").await, [1, 3, 5, 7, 9]);
    let letters = bed.rows("sorts.dlq").await;
    assert_eq!(letters.len(), 1);
    assert_eq!((&letters[0].2["code"], &letters[0].2["event"]["n"]), (&json!("division-by-zero"), &json!(4)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_whose_rows_cannot_all_be_placed_goes_out_not_at_all() {
    let bed = Bed::new();
    let columns: &[(&str, &str)] = &[("n", "bigint!"), ("tags", "array<string>")];
    bed.topic("raw", columns, &[], 1).await;
    bed.topic("tags", &[("n", "bigint!"), ("tag", "string")], &["tag"], 3).await;
    let def = querying(pass("explode", "raw", "tags"), columns, "SELECT n, UNNEST(tags) AS tag FROM raw");
    bed.runner.start_service(def).await.unwrap();
    let mut numbers = Numbers::new(20).making(|n| {
        json!({"n": n, "tags": if n == 7 { json!(["a", null, "b"]) } else { json!(["a", "b"]) }}).to_string()
    });
    numbers.schema = schema(columns);
    bed.runner.start_source(numbers.def("raw")).await.unwrap();
    bed.drained().await;
    assert_eq!(bed.numbers("tags", "n").await.len(), 38);
    assert!(!bed.numbers("tags", "n").await.contains(&7));
    let letters = bed.rows("explode.dlq").await;
    assert_eq!(letters.len(), 1);
    assert_eq!((&letters[0].2["code"], &letters[0].2["event"]["tags"]), (&json!("key-null"), &json!(["a", null, "b"])));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_waits_for_its_lookup_and_sees_it_swapped() {
    let bed = Bed::new();
    bed.topic("raw", COLUMNS, &["k"], 1).await;
    bed.topic("rich", &[("n", "bigint!"), ("colour", "string")], &[], 1).await;
    let lookup = LookupSchema { schema: schema(&[("k", "string!"), ("colour", "string")]), key: vec!["k".into()] };
    let mut def = pass("enrich", "raw", "rich");
    let mut catalog = millstream_service::flow::Catalog::default();
    catalog.topics.insert(name("raw"), schema(COLUMNS));
    catalog.lookups.insert(name("colours"), lookup.clone());
    let sql = "SELECT n, colours.colour FROM raw JOIN colours ON raw.k = colours.k";
    def.work = Work::Query(Arc::new(plan_query(sql, &catalog).unwrap()));
    let (publisher, handle) = LookupPublisher::new(name("colours"));
    def.lookups = vec![handle.clone()];
    let service = bed.runner.start_service(def).await.unwrap();
    bed.runner.start_source(Numbers::new(13).def("raw")).await.unwrap();
    publisher.failed("no such file");
    let waiting = |state: &State| matches!(state, State::Waiting { reason } if reason.contains("no such file"));
    until("the service waits", async || waiting(&service.state())).await;
    publisher.publish(Arc::new(LookupTable::build(&lookup, table(&lookup.schema, "red")).unwrap()), 1);
    bed.drained().await;
    publisher.publish(Arc::new(LookupTable::build(&lookup, table(&lookup.schema, "blue")).unwrap()), 2);
    let mut more = Numbers::new(13).def("raw");
    more.name = name("more");
    bed.runner.start_source(more).await.unwrap();
    bed.drained().await;
    let colours: Vec<String> =
        bed.rows("rich").await.iter().map(|(_, _, r)| r["colour"].as_str().unwrap().to_owned()).collect();
    assert_eq!(colours, [vec!["red"; 3], vec!["blue"; 3]].concat());
    assert_eq!(service.counts().dropped_by_lookup[&name("colours")], 20);
    assert_eq!(handle.status().loads, 2);
}

fn table(columns: &Schema, colour: &str) -> arrow_array::RecordBatch {
    let lines: Vec<String> = (0..3).map(|i| json!({"k": format!("k{i}"), "colour": colour}).to_string()).collect();
    let mut decoder = millstream_service::event::json::Decoder::new(columns, millstream_service::event::Unknown::Drop);
    decoder.decode_lines(lines.join("\n").as_bytes()).unwrap().rows
}
