//! What is sent is what is understood.

use serde_json::json;

use super::*;

#[test]
fn a_place_in_a_topic_reads_as_it_prints() {
    for (text, from) in
        [("earliest", From::Earliest), ("latest", From::Latest), ("1200", From::Offset(1200)), ("-20", From::Last(20))]
    {
        assert_eq!(text.parse::<From>().unwrap(), from);
        assert_eq!(from.to_string(), text);
    }
    for wrong in ["", "newest", "-", "--1", "1.5", "-x"] {
        assert!(wrong.parse::<From>().is_err(), "{wrong}");
    }
}

#[test]
fn a_letter_is_named_by_partition_and_offset() {
    let id: LetterId = "3-1042".parse().unwrap();
    assert_eq!(id, LetterId { partition: 3, offset: 1042 });
    assert_eq!(serde_json::to_value(id).unwrap(), json!("3-1042"));
    assert!("3".parse::<LetterId>().is_err());
    assert!("-1-2".parse::<LetterId>().is_err());
}

#[test]
fn a_tapped_line_is_an_event_or_an_error() {
    let text = r#"{"partition":1,"offset":7,"ingested_at":"2026-01-01T00:00:00Z","event":{"b":1.50,"a":null}}"#;
    let line: EventLine = serde_json::from_str(text).unwrap();
    assert_eq!(serde_json::to_string(&line).unwrap(), text, "columns keep their order and decimals their digits");
    let error: EventLine = serde_json::from_value(json!({"error": {"code": "x", "message": "gone"}})).unwrap();
    assert!(matches!(error, EventLine::Error { error } if error.message == "gone" && error.help.is_none()));
}

#[test]
fn an_unknown_field_of_a_newer_node_is_ignored() {
    let state: LogState =
        serde_json::from_value(json!({"bytes": 1, "segments": 2, "sync": "group", "new": true})).unwrap();
    let expect = LogState {
        bytes: 1,
        segments: 2,
        segments_free: 0,
        settled_bytes: 0,
        commits: None,
        syncs: None,
        sync: "group".into(),
        stopped: None,
    };
    assert_eq!(state, expect);
}
