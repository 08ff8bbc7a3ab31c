//! Dead letters looked after: listed, shown, replayed once, discarded.

use millstream_service::dead_letters::{LetterId, LetterStatus, OpenLetters, Select, list, open_letters, show};
use millstream_service::{Else, Handle};
use serde_json::{Value, json};

use crate::bed::{Bed, COLUMNS, Numbers, checked, name, pass, until};

fn field(view: &millstream_service::dead_letters::LetterView, field: &str) -> Value {
    serde_json::from_str::<Value>(view.letter.get()).unwrap()[field].clone()
}

/// Refuses odd numbers and those of 90 and above, until `mended`.
async fn validate(bed: &Bed, mended: bool) -> Handle {
    let rules: &[(&str, &str)] =
        if mended { &[("is_small", "n < 90")] } else { &[("is_even", "n % 2 = 0"), ("is_small", "n < 90")] };
    let def = checked(pass("validate", "raw", "valid"), COLUMNS, rules, Else::DeadLetter);
    bed.runner.start_service(def).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn letters_are_replayed_once_into_their_service_alone() {
    let bed = Bed::new();
    bed.topic("raw", COLUMNS, &["k"], 3).await;
    bed.topic("valid", COLUMNS, &["k"], 3).await;
    bed.topic("copy", COLUMNS, &["k"], 3).await;
    let service = validate(&bed, false).await;
    bed.runner.start_service(pass("bystander", "raw", "copy")).await.unwrap();
    bed.runner.start_source(Numbers::new(100).def("raw")).await.unwrap();
    bed.drained().await;
    assert_eq!(service.dead_letters(&Select::default(), 1000).await.unwrap().len(), 55);
    let small = Select { rule: Some("is_even".into()), ..Select::default() };
    assert_eq!(service.dead_letters(&small, 1000).await.unwrap().len(), 50);

    // Nothing was mended: every event is refused again, with its first origin and one attempt more.
    let one = service.dead_letters(&small, 1).await.unwrap().remove(0);
    let only = Select { ids: vec![one.id], ..Select::default() };
    let answer = service.replay(&only).await.unwrap();
    assert_eq!((answer.done, answer.refused), (1, 0), "{answer:?}");
    until("the event is refused again", async || bed.rows("validate.dlq").await.len() == 56).await;
    let second = service.dead_letters(&Select::default(), 1000).await.unwrap();
    let second = second.iter().find(|l| field(l, "attempts") == 2).unwrap();
    assert_eq!(field(second, "replayed_of"), json!(one.id.to_string()));
    for column in ["topic", "partition", "offset", "event", "ingested_at", "key"] {
        assert_eq!(field(second, column), field(&one, column), "{column}");
    }

    let answer = service.replay(&only).await.unwrap();
    assert_eq!((answer.done, answer.refused), (0, 1));
    assert_eq!(answer.refusals, [(one.id, "it was replayed already".to_owned())]);
    let nowhere = LetterId { partition: 9, offset: 7 };
    let answer = service.replay(&Select { ids: vec![nowhere], ..Select::default() }).await.unwrap();
    assert!(answer.refusals[0].1.contains("no such letter"), "{answer:?}");

    // The rule is mended in a new version; all that are open are replayed, and those above 90 fail for good.
    service.stop().await;
    let service = validate(&bed, true).await;
    let answer = service.replay(&Select::default()).await.unwrap();
    assert_eq!((answer.done, answer.refused), (55, 0), "{answer:?}");
    bed.drained().await;
    assert_eq!(bed.numbers("valid", "n").await, (0..90).collect::<Vec<_>>());
    assert_eq!(bed.numbers("copy", "n").await, (0..100).collect::<Vec<_>>(), "the bystander saw no replay");
    let open = Select { status: Some(LetterStatus::Open), ..Select::default() };
    let open = list(bed.log.as_ref(), &name("validate"), &open, 1000).await.unwrap();
    assert_eq!(open.len(), 10);
    let counted = open_letters(bed.log.as_ref(), &name("validate")).await.unwrap();
    assert_eq!((counted.total, counted.by_code["check"], counted.by_rule["is_small"]), (10, 10, 10));
    assert_eq!(open_letters(bed.log.as_ref(), &name("nobody")).await.unwrap(), OpenLetters::default());

    // The rest is put away; a letter is discarded once, and a replayed one not at all.
    let ids: Vec<LetterId> = open.iter().map(|l| l.id).collect();
    let rest = Select { ids: ids.clone(), ..Select::default() };
    assert_eq!(service.discard(&rest).await.unwrap().done, 10);
    assert_eq!(service.discard(&rest).await.unwrap().refused, 10);
    assert_eq!(service.discard(&only).await.unwrap().refused, 1);
    // Given up is given up, one by one and all together.
    let answer = service.replay(&rest).await.unwrap();
    assert_eq!((answer.done, answer.refused), (0, 10));
    assert_eq!(answer.refusals[0], (ids[0], "it was discarded already".to_owned()));
    assert_eq!(service.replay(&Select::default()).await.unwrap().done, 0);
    assert_eq!(bed.numbers("valid", "n").await.len(), 90);
    let shown = show(bed.log.as_ref(), &name("validate"), ids[0]).await.unwrap().unwrap();
    assert_eq!(shown.status, LetterStatus::Discarded);
    assert!(show(bed.log.as_ref(), &name("validate"), nowhere).await.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_source_decodes_its_letters_again() {
    let bed = Bed::new();
    bed.topic("raw", COLUMNS, &["k"], 2).await;
    let numbers = Numbers::new(10).making(|n| match n {
        3 => "{\"n\": 3 \"k\": \"a\"}".to_owned(),
        4 => "not json at all".to_owned(),
        _ => json!({"n": n, "k": "a"}).to_string(),
    });
    let source = bed.runner.start_source(numbers.def("raw")).await.unwrap();
    bed.drained().await;
    let letters = source.dead_letters(&Select::default(), 10).await.unwrap();
    assert_eq!(letters.len(), 2);
    // This source inserts a missing comma, and cannot mend anything else.
    let answer = source.replay(&Select::default()).await.unwrap();
    assert_eq!((answer.done, answer.refused), (2, 0), "{answer:?}");
    until("the mended event is there", async || bed.rows("raw").await.len() == 9).await;
    let open = Select { status: Some(LetterStatus::Open), ..Select::default() };
    let open = source.dead_letters(&open, 10).await.unwrap();
    assert_eq!(open.len(), 1);
    assert_eq!((field(&open[0], "attempts"), field(&open[0], "raw")), (json!(2), field(&letters[1], "raw")));
    assert_eq!(source.replay(&Select { ids: vec![letters[0].id], ..Select::default() }).await.unwrap().refused, 1);
    let left = Select { ids: vec![open[0].id], ..Select::default() };
    assert_eq!(source.discard(&left).await.unwrap().done, 1);
    let answer = source.replay(&left).await.unwrap();
    assert_eq!(answer.refusals, [(open[0].id, "it was discarded already".to_owned())]);
    assert_eq!(open_letters(bed.log.as_ref(), &name(source.name().as_str())).await.unwrap(), OpenLetters::default());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn letters_are_replayed_exactly_once_on_a_log_that_fails() {
    let log = std::sync::Arc::new(crate::bed::FaultyLog::new(11, 0));
    let bed = Bed::on(log.clone());
    bed.topic("raw", COLUMNS, &["k"], 3).await;
    bed.topic("valid", COLUMNS, &["k"], 3).await;
    let service = validate(&bed, false).await;
    bed.runner.start_source(Numbers::new(3_000).def("raw")).await.unwrap();
    bed.drained().await;
    service.stop().await;
    let service = validate(&bed, true).await;
    log.fail(150);
    let odd = Select { rule: Some("is_even".into()), ..Select::default() };
    let open = Select { status: Some(LetterStatus::Open), ..odd.clone() };
    until("every letter is replayed", async || {
        // A command may be refused, or be lost in an unknown outcome: its sender asks again.
        drop(service.replay(&odd).await);
        service.dead_letters(&open, 1).await.unwrap().is_empty()
    })
    .await;
    log.heal();
    bed.drained().await;
    assert_eq!(bed.numbers("valid", "n").await, (0..90).collect::<Vec<_>>());
    let again = bed.rows("validate.dlq").await.iter().filter(|(_, _, l)| l["attempts"] == 2).count();
    assert_eq!(again, 3_000 / 2 - 45, "each odd number above 90 was refused once more");
}
