use std::fs;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::*;
use crate::event::{Column, ColumnType, Schema};

fn schema() -> LookupSchema {
    let columns = vec![Column::required("id", ColumnType::String), Column::nullable("risk", ColumnType::Double)];
    LookupSchema { schema: Schema::new(columns).unwrap(), key: vec!["id".to_owned()] }
}

fn settings(dir: &TempDir, file: &str, refresh: Option<Duration>) -> Settings {
    let format = if file.contains("csv") { Format::Csv } else { Format::Ndjson };
    Settings { path: dir.path().join(file), format, compression: Compression::Auto, refresh }
}

async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[test]
fn csv_and_ndjson_files_load_with_other_columns_left_out() {
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("a.csv"), "name,risk,id\nx,0.5,a\ny,,b\n").unwrap();
    assert_eq!(load(&settings(&dir, "a.csv", None), &schema()).unwrap().len(), 2);
    fs::write(dir.path().join("a.ndjson"), "{\"id\":\"a\"}\n{\"id\":\"b\",\"x\":1}").unwrap();
    assert_eq!(load(&settings(&dir, "a.ndjson", None), &schema()).unwrap().len(), 2);
    let zst = zstd::encode_all(b"id,risk\na,1\n".as_slice(), 1).unwrap();
    fs::write(dir.path().join("b.csv.zst"), zst).unwrap();
    assert_eq!(load(&settings(&dir, "b.csv.zst", None), &schema()).unwrap().len(), 1);
}

#[test]
fn what_is_wrong_with_a_file_is_said_with_its_place() {
    let dir = TempDir::new().unwrap();
    let fault = |file: &str, text: &str| {
        fs::write(dir.path().join(file), text).unwrap();
        load(&settings(&dir, file, None), &schema()).unwrap_err()
    };
    let twice = fault("a.csv", "id,risk\na,1\nb,2\na,3\n");
    assert!(twice.contains("records 2 and 4 have the same key"), "{twice}");
    let twice = fault("a.ndjson", "{\"id\":\"a\"}\n\n{\"id\":\"a\"}\n");
    assert!(twice.contains("lines 1 and 3 have the same key"), "{twice}");
    let bad = fault("b.csv", "id,risk\na,1\nb,high\n");
    assert!(bad.contains("b.csv:3:"), "{bad}");
    let missing = load(&settings(&dir, "none.csv", None), &schema()).unwrap_err();
    assert!(missing.contains("does not exist"), "{missing}");
    let header = fault("c.csv", "risk\n1\n");
    assert!(header.contains("id"), "{header}");
}

#[tokio::test]
async fn a_changed_file_is_swapped_and_a_bad_one_keeps_the_old_table() {
    let dir = TempDir::new().unwrap();
    let settings = settings(&dir, "a.csv", Some(Duration::from_millis(5)));
    let path = settings.path.clone();
    fs::write(&path, "id,risk\na,1\n").unwrap();
    let (_lookup, handle) = FileLookup::start(Name::new("l").unwrap(), settings, schema());
    until("the first table", || handle.status().rows == Some(1)).await;
    fs::write(&path, "id,risk\na,1\nb,2\n").unwrap();
    until("the second table", || handle.status().rows == Some(2)).await;
    fs::write(&path, "id,risk\na,1\na,2\nc,5\n").unwrap();
    until("the fault", || handle.status().fault.is_some()).await;
    assert_eq!(handle.table().unwrap().len(), 2, "the old table stays");
    fs::remove_file(&path).unwrap();
    until("another fault", || handle.status().fault.is_some_and(|f| f.contains("does not exist"))).await;
    assert_eq!(handle.table().unwrap().len(), 2);
    fs::write(&path, "id,risk\na,1\nb,2\nc,3\n").unwrap();
    until("the third table", || handle.status().rows == Some(3) && handle.status().fault.is_none()).await;
}

#[tokio::test]
async fn a_lookup_without_a_file_has_no_table_and_says_why() {
    let dir = TempDir::new().unwrap();
    let (_lookup, handle) = FileLookup::start(Name::new("l").unwrap(), settings(&dir, "a.csv", None), schema());
    until("the reason", || handle.status().fault.is_some()).await;
    assert!(handle.table().is_none());
}
