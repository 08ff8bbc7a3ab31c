//! What rounds write, keep and remove.

use std::collections::HashSet;
use std::io::{Seek as _, Write as _};

use millstream_backup::log::backup::Source;
use millstream_backup::{Error, choose, list};

use crate::bed::{Bed, NAME};

#[tokio::test]
async fn a_round_copies_what_is_new_and_one_without_news_writes_nothing() {
    let bed = Bed::new();
    let mut open = bed.open("data").await;
    let mut backup = bed.backup(&open, 10);
    open.add(400).await;
    open.settle();
    let first = bed.round(&mut backup).await.unwrap();
    assert!(first.objects > 2 && first.written == first.bytes, "{first:?}");
    let again = bed.round(&mut backup).await.unwrap();
    assert_eq!((again.objects, &again.manifest), (0, &first.manifest));
    open.add(1).await;
    let second = bed.round(&mut backup).await.unwrap();
    // More than one where the commit began a segment, so that the one before was settled.
    assert!(second.objects >= 1 && second.written < 128 << 10 && second.written < first.written, "{second:?}");
    assert!(second.manifest > first.manifest);
    // Another process finds what is there.
    let after = bed.round(&mut bed.backup(&open, 10)).await.unwrap();
    assert_eq!((after.objects, after.manifest), (0, second.manifest));
}

#[tokio::test]
async fn the_newest_backups_are_kept_and_what_only_others_needed_goes() {
    let bed = Bed::new();
    let mut open = bed.open("data").await;
    let mut backup = bed.backup(&open, 2);
    let mut times = Vec::new();
    for _ in 0..6 {
        open.add(60).await;
        open.settle();
        times.push(bed.round(&mut backup).await.unwrap().time_us);
    }
    let kept = list(&bed.store, NAME).await.unwrap();
    assert_eq!(kept.iter().map(|k| k.manifest.time_us).collect::<Vec<_>>(), times[4..]);
    let named: HashSet<&str> = kept.iter().flat_map(|k| k.manifest.objects()).collect();
    let root = bed.data("store").join(NAME);
    let there = bed.objects();
    let there: HashSet<&str> = there.iter().map(|p| p.strip_prefix(&root).unwrap().to_str().unwrap()).collect();
    let objects: HashSet<&str> = there.iter().copied().filter(|p| p.starts_with("data/")).collect();
    assert_eq!(objects, named);
    let folders = bed.folders();
    assert!(folders.iter().all(|folder| std::fs::read_dir(folder).unwrap().count() > 0), "empty: {folders:?}");
    for (at, commits) in [(times[4], 300), (times[5], 360)] {
        assert_eq!(bed.restored(Some(at), &format!("at{at}")).await.unwrap(), commits * 50);
    }
}

#[tokio::test]
async fn an_object_that_somebody_removed_is_written_again() {
    let bed = Bed::new();
    let mut open = bed.open("data").await;
    open.add(100).await;
    open.settle();
    bed.round(&mut bed.backup(&open, 10)).await.unwrap();
    let lost = bed.objects().into_iter().find(|path| path.to_string_lossy().contains(".seg/")).unwrap();
    std::fs::remove_file(&lost).unwrap();
    let done = bed.round(&mut bed.backup(&open, 10)).await.unwrap();
    assert!(done.objects >= 1 && lost.exists(), "{done:?}");
    assert_eq!(bed.restored(None, "back").await.unwrap(), 5000);
}

#[tokio::test]
async fn a_round_that_fails_half_way_leaves_the_earlier_backup_and_the_next_goes_on() {
    let bed = Bed::new();
    let mut open = bed.open("data").await;
    let mut backup = bed.backup(&open, 10);
    open.add(20).await;
    let first = bed.round(&mut backup).await.unwrap();
    open.add(40).await;
    let image = Source::of(&open.log).image().unwrap();
    let last = image.files.last().unwrap();
    let segment = bed.data("data").join(&last.path);
    let flip = |at: u64| {
        let mut file = std::fs::OpenOptions::new().write(true).read(true).open(&segment).unwrap();
        let mut byte = [0];
        std::os::unix::fs::FileExt::read_exact_at(&file, &mut byte, at).unwrap();
        file.seek(std::io::SeekFrom::Start(at)).unwrap();
        file.write_all(&[byte[0] ^ 1]).unwrap();
    };
    // In the events of the last group.
    let at = last.end().to - 4096 + 700;
    flip(at);
    let error = bed.round(&mut backup).await.unwrap_err();
    assert!(matches!(error, Error::Log(_)), "{error}");
    assert_eq!(bed.restored(None, "first").await.unwrap(), 1000);
    flip(at);
    let second = bed.round(&mut backup).await.unwrap();
    assert!(second.manifest > first.manifest);
    assert_eq!(bed.restored(None, "second").await.unwrap(), 3000);
}

#[tokio::test]
async fn a_log_that_was_begun_anew_does_not_push_out_the_backups_of_the_one_before() {
    let bed = Bed::new();
    let mut lost = bed.open("data").await;
    lost.add(10).await;
    let before = bed.round(&mut bed.backup(&lost, 1)).await.unwrap();
    let mut fresh = bed.open("other").await;
    let mut backup = bed.backup(&fresh, 1);
    for _ in 0..3 {
        fresh.add(1).await;
        bed.round(&mut backup).await.unwrap();
    }
    assert_eq!(list(&bed.store, NAME).await.unwrap().len(), 2);
    assert_eq!(bed.restored(Some(before.time_us), "back").await.unwrap(), 500);
    // The newest one of all is not meant silently.
    let error = bed.restored(None, "newest").await.unwrap_err();
    assert!(matches!(&error, Error::SeveralLogs { logs, .. } if logs.len() == 2), "{error}");
    let logs: HashSet<String> =
        list(&bed.store, NAME).await.unwrap().into_iter().map(|chosen| chosen.manifest.log).collect();
    let mut times = HashSet::new();
    for log in logs {
        assert!(error.to_string().contains(&format!("--log {}", &log[..8])), "{error}");
        let chosen = choose(&bed.store, NAME, None, Some(&log[..8])).await.unwrap();
        assert_eq!(chosen.manifest.log, log);
        times.insert(chosen.manifest.time_us);
    }
    assert!(times.contains(&before.time_us) && times.len() == 2);
    assert!(matches!(choose(&bed.store, NAME, None, Some("x")).await, Err(Error::Nothing { .. })));
}

#[tokio::test]
async fn a_restored_log_goes_on_in_the_same_place() {
    let bed = Bed::new();
    let mut open = bed.open("data").await;
    let mut backup = bed.backup(&open, 10);
    open.add(200).await;
    let first = bed.round(&mut backup).await.unwrap();
    open.add(150).await;
    bed.round(&mut backup).await.unwrap();
    drop(open);
    // From the earlier one: the two logs have the same number and write segments of the same numbers.
    assert_eq!(bed.restored(Some(first.time_us), "again").await.unwrap(), 10_000);
    let mut again = bed.open("again").await;
    again.add(300).await;
    again.settle();
    let mut backup = bed.backup(&again, 10);
    bed.round(&mut backup).await.unwrap();
    again.add(5).await;
    bed.round(&mut backup).await.unwrap();
    assert_eq!(bed.restored(None, "third").await.unwrap(), 505 * 50);
}
