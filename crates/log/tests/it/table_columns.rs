//! Columns that are added to a table between the settling of its events and their compaction.

use std::cell::Cell;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use millstream_event::{Column, ColumnType, Schema};
use millstream_log::backup::{Image, Source, Step};
use millstream_log::conformance::kit::*;
use millstream_log::vfs::sim::SimVfs;
use millstream_log::vfs::{OpenOptions, Vfs};
use millstream_log::{EmbeddedLog, EmbeddedOptions, Log, Sabotage, Task, TopicSpec, repair, verify};

use crate::rig::{DIR, disk, options, run};

/// The table with so many columns more than it had.
fn wider(more: usize) -> TopicSpec {
    let added = (0..more).map(|i| Column::nullable(format!("more_{i}"), ColumnType::BigInt));
    let columns = schema().columns().iter().cloned().chain(added).collect();
    TopicSpec { schema: Schema::new(columns).unwrap(), ..table("t", &[]) }
}

/// Updates of the first columns; what is in the table after them.
async fn update(log: &Arc<dyn Log>, task: &Task, contents: &mut Contents, step: i64) {
    let rows: Vec<_> = (0..60).map(|i| (i % 30, Some(format!("step {step}, {i}")))).collect();
    put(log, task, vec![], vec![changes("t", &rows)]).await;
    change(contents, rows);
}

/// A disk on which a compaction came behind the settling of events and a new column that is not settled, and what must
/// be in the table. Told by `is_so`, which is shown a copy of the disk again and again.
fn widened(sabotage: Option<Sabotage>, is_so: impl Fn(&SimVfs) -> bool) -> (SimVfs, Contents) {
    let vfs = disk();
    let settings = EmbeddedOptions { sabotage, ..options(&vfs) };
    let log = Arc::new(EmbeddedLog::open(settings).unwrap());
    let shared: Arc<dyn Log> = log.clone();
    run(async {
        shared.create_topic(wider(0)).await.unwrap();
        let (_m, task) = one(&shared, "s").await;
        let (mut contents, begun) = (Contents::new(), Instant::now());
        for round in 0.. {
            assert!(begun.elapsed() < DEADLINE / 2, "no compaction came between a new column and its settling");
            // A segment is full and settled now and then; the column comes right behind.
            let waiting = log.counts().settled_bytes;
            let mut step = 0;
            while log.counts().settled_bytes == waiting {
                update(&shared, &task, &mut contents, round * 1000 + step).await;
                step += 1;
            }
            update(&shared, &task, &mut contents, round * 1000 + step).await;
            let compacted = log.counts().compacted_bytes;
            shared.create_topic(wider(round as usize + 1)).await.unwrap();
            let until = Instant::now() + Duration::from_millis(if sabotage.is_some() { 2000 } else { 20 });
            while log.counts().compacted_bytes == compacted && Instant::now() < until {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            // The checkpoint is written behind it.
            tokio::time::sleep(Duration::from_millis(5)).await;
            let copy = vfs.copy();
            if is_so(&copy) {
                return (copy, contents);
            }
        }
        unreachable!()
    })
}

fn holds(vfs: &SimVfs, contents: &Contents) {
    let report = verify(&options(vfs)).unwrap();
    assert!(report.is_sound(), "{:?}", report.problems);
    let log: Arc<dyn Log> = Arc::new(EmbeddedLog::open(options(vfs)).unwrap());
    assert_eq!(&run(whole_table(&log, "t")).unwrap().0, contents);
}

/// The copy of an image, as a restore makes it.
fn restored(source: &Source, image: &Image) -> SimVfs {
    let to = disk();
    let put = |path: &str, bytes: &[u8]| {
        let path = Path::new(DIR).join(path);
        to.create_dir_all(path.parent().unwrap()).unwrap();
        to.open(&path, OpenOptions::CREATE).unwrap().write_all_at(bytes, 0).unwrap();
    };
    for dir in ["journal", "topics"] {
        to.create_dir_all(&Path::new(DIR).join(dir)).unwrap();
    }
    for file in &image.files {
        put(&file.path, &source.read(image, &file.path, Step::default(), file.end()).unwrap().unwrap());
    }
    put("checkpoint", &image.checkpoint);
    to.sync_all();
    to
}

fn image_of(vfs: &SimVfs) -> SimVfs {
    let source = Source::stopped(options(vfs)).unwrap();
    let image = source.image().unwrap();
    restored(&source, &image)
}

/// Whether a settled file has columns that the checkpoint does not know: then the journal is needed to read it.
fn is_ahead(vfs: &SimVfs) -> bool {
    let cut = vfs.copy();
    let segments = cut.files().into_iter().map(|(path, _)| path).filter(|path| path.starts_with("/log/journal"));
    segments.for_each(|path| cut.remove(&path).unwrap());
    verify(&options(&cut)).unwrap().problems.iter().any(|problem| problem.what.contains("schema version"))
}

/// A copy with a damaged group of the journal, but not the one that defines the columns.
fn flipped_in_journal(vfs: &SimVfs) -> Option<SimVfs> {
    let segments = vfs.files().into_iter().filter(|(path, _)| path.extension().is_some_and(|e| e == "seg"));
    let mut flips = segments.flat_map(|(segment, len)| (0..len).step_by(64).map(move |at| (segment.clone(), at)));
    flips.find_map(|(segment, at)| {
        let flipped = vfs.copy();
        flipped.flip(&segment, at, 1);
        let problems = verify(&options(&flipped)).unwrap().problems;
        let apart = !problems.is_empty() && problems.iter().all(|problem| problem.path == segment);
        apart.then_some(flipped)
    })
}

#[test]
fn a_compaction_writes_no_column_that_only_the_journal_knows() {
    let rounds = Cell::new(0);
    let (vfs, contents) = widened(None, |vfs| {
        assert!(!is_ahead(vfs));
        rounds.set(rounds.get() + 1);
        rounds.get() > 20
    });
    let made = |path: &Path| path.to_string_lossy().contains("topics") && path.to_string_lossy().contains('-');
    assert!(vfs.files().iter().any(|(path, _)| made(path)), "nothing was compacted");
    holds(&vfs, &contents);
    holds(&image_of(&vfs), &contents);
}

#[test]
fn what_early_builds_compacted_ahead_of_the_checkpoint_is_verified_copied_and_repaired() {
    let (vfs, contents) = widened(Some(Sabotage::CompactAhead), is_ahead);
    holds(&vfs.copy(), &contents);
    holds(&image_of(&vfs.copy()), &contents);
    // A log that goes on compacts it again, when its journal is settled.
    let goes_on = vfs.copy();
    let log: Arc<dyn Log> = Arc::new(EmbeddedLog::open(options(&goes_on)).unwrap());
    run(async {
        let (_m, task) = one(&log, "s").await;
        let mut contents = contents.clone();
        for step in 0..200 {
            update(&log, &task, &mut contents, step).await;
        }
        assert_eq!(whole_table(&log, "t").await.unwrap().0, contents);
        log.close().await.unwrap();
    });
    // A damaged journal goes with the definition in it; what was settled stays and is read.
    // Where the definition stands first in the journal, it is what is damaged: then another is made.
    let flipped = (0..50).find_map(|_| flipped_in_journal(&widened(Some(Sabotage::CompactAhead), is_ahead).0));
    let flipped = flipped.expect("a commit came before the column");
    let report = repair(&options(&flipped), true).unwrap();
    let lost = report.lost.iter().filter(|lost| lost.from.0 == 0).count();
    assert_eq!(lost, 0, "{:?}", report.lost);
    assert!(verify(&options(&flipped)).unwrap().is_sound());
    assert!(!is_ahead(&flipped), "the checkpoint knows the columns now");
    let log: Arc<dyn Log> = Arc::new(EmbeddedLog::open(options(&flipped)).unwrap());
    assert!(!run(whole_table(&log, "t")).unwrap().0.is_empty());
}
