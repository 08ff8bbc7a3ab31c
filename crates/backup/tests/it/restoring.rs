//! What a restore refuses, and that it leaves nothing half.

use std::path::PathBuf;

use millstream_backup::log::backup::Source;
use millstream_backup::log::{EmbeddedLog, EmbeddedOptions, repair};
use millstream_backup::{Backup, Error, choose, restore};

use crate::bed::{Bed, NAME, options};

async fn backed_up(bed: &Bed) {
    let mut open = bed.open("data").await;
    open.add(400).await;
    open.settle();
    bed.round(&mut bed.backup(&open, 10)).await.unwrap();
}

fn nothing_is_left(bed: &Bed, dir: &str) {
    assert!(!bed.data(dir).exists());
}

#[tokio::test]
async fn a_directory_in_which_something_is_stays_as_it_is() {
    let bed = Bed::new();
    backed_up(&bed).await;
    std::fs::create_dir_all(bed.data("used/topics")).unwrap();
    std::fs::write(bed.data("used/checkpoint"), "x").unwrap();
    let error = bed.restored(None, "used").await.unwrap_err();
    assert!(matches!(&error, Error::Used { found, .. } if found == "`checkpoint`, `topics`"), "{error}");
    assert_eq!(std::fs::read(bed.data("used/checkpoint")).unwrap(), b"x");
    // An empty one will do, and so will what a restore left that did not end.
    std::fs::create_dir_all(bed.data("empty")).unwrap();
    std::fs::create_dir_all(bed.data("empty/.restoring/journal/left")).unwrap();
    assert_eq!(bed.restored(None, "empty").await.unwrap(), 20_000);
}

#[tokio::test]
async fn the_root_of_a_disk_is_filled_in_its_place() {
    let bed = Bed::new();
    backed_up(&bed).await;
    std::fs::create_dir_all(bed.data("disk/lost+found")).unwrap();
    // A directory that cannot get another one's name, as one where a disk is mounted.
    let before = std::os::unix::fs::MetadataExt::ino(&std::fs::metadata(bed.data("disk")).unwrap());
    assert_eq!(bed.restored(None, "disk").await.unwrap(), 20_000);
    assert_eq!(std::os::unix::fs::MetadataExt::ino(&std::fs::metadata(bed.data("disk")).unwrap()), before);
    assert!(bed.data("disk/lost+found").exists() && !bed.data("disk/.restoring").exists());
    let error = bed.restored(None, "disk").await.unwrap_err();
    assert!(matches!(error, Error::Used { .. }), "{error}");
    // One that fails leaves what was there before.
    std::fs::create_dir_all(bed.data("other/lost+found")).unwrap();
    let mut chosen = choose(&bed.store, NAME, None, None).await.unwrap();
    chosen.manifest.files.retain(|file| !file.path.starts_with("topics/"));
    restore(&bed.store, &chosen, &bed.data("other"), |_| {}).await.unwrap_err();
    let left: Vec<_> = std::fs::read_dir(bed.data("other")).unwrap().flatten().map(|e| e.file_name()).collect();
    assert_eq!(left, ["lost+found"]);
}

#[tokio::test]
async fn a_restore_that_ended_while_files_moved_up_is_begun_again() {
    let bed = Bed::new();
    backed_up(&bed).await;
    assert_eq!(bed.restored(None, "whole").await.unwrap(), 20_000);
    let dir = bed.data("half");
    std::fs::create_dir_all(dir.join(".restoring/topics")).unwrap();
    std::fs::create_dir_all(dir.join("journal")).unwrap();
    std::fs::write(dir.join("journal/left"), "x").unwrap();
    std::fs::write(dir.join(".restoring/checkpoint"), "x").unwrap();
    std::fs::write(dir.join(".restoring-moves"), "journal\ntopics\npaused.json").unwrap();
    let options = EmbeddedOptions::new(&dir);
    let opened = EmbeddedLog::open(options.clone()).err().unwrap();
    let repaired = repair(&options, true).err().unwrap();
    for refused in [opened, repaired] {
        assert!(refused.to_string().contains("run `millstream state restore` again"), "{refused}");
    }
    assert!(dir.join("journal/left").exists() && !dir.join("checkpoint").exists(), "nothing was touched");
    assert!(bed.restored(None, "half").await.unwrap() == 20_000 && !dir.join("journal/left").exists());
    // Without the word of a restore, what is there is somebody's.
    std::fs::create_dir_all(bed.data("mine/journal")).unwrap();
    assert!(matches!(bed.restored(None, "mine").await, Err(Error::Used { .. })));
}

#[tokio::test]
async fn a_damaged_or_missing_object_is_named_and_nothing_is_left() {
    let bed = Bed::new();
    backed_up(&bed).await;
    let objects: Vec<PathBuf> =
        bed.objects().into_iter().filter(|path| path.to_string_lossy().contains("/data/")).collect();
    assert!(objects.len() > 3);
    for object in &objects {
        let whole = std::fs::read(object).unwrap();
        let mut bad = whole.clone();
        let middle = bad.len() / 2;
        bad[middle] ^= 4;
        for bad in [Some(bad), Some(whole[..whole.len() - 1].to_vec()), None] {
            match bad {
                Some(bad) => std::fs::write(object, bad).unwrap(),
                None => std::fs::remove_file(object).unwrap(),
            }
            let error = bed.restored(None, "back").await.unwrap_err();
            assert!(matches!(error, Error::Damaged { .. } | Error::Store { .. }), "{error}");
            nothing_is_left(&bed, "back");
        }
        std::fs::write(object, whole).unwrap();
    }
    assert_eq!(bed.restored(None, "back").await.unwrap(), 20_000);
}

#[tokio::test]
async fn a_backup_whose_parts_do_not_fit_together_is_not_put_in_its_place() {
    let bed = Bed::new();
    backed_up(&bed).await;
    let mut chosen = choose(&bed.store, NAME, None, None).await.unwrap();
    chosen.manifest.files.retain(|file| !file.path.starts_with("topics/"));
    let error = restore(&bed.store, &chosen, &bed.data("back"), |_| {}).await.unwrap_err();
    assert!(matches!(error, Error::Unsound { .. }), "{error}");
    nothing_is_left(&bed, "back");
}

#[tokio::test]
async fn where_there_is_no_backup_the_place_and_the_time_are_named() {
    let bed = Bed::new();
    backed_up(&bed).await;
    let error = choose(&bed.store, NAME, Some(1_000_000), None).await.unwrap_err().to_string();
    assert!(error.contains("counting") && error.contains("before 1970-01-01T00:00:01Z"), "{error}");
    assert!(choose(&bed.store, "other", None, None).await.is_err());
    assert_eq!(bed.store.folders().await.unwrap(), [NAME]);
}

#[tokio::test]
async fn a_stopped_log_is_backed_up_whole() {
    let bed = Bed::new();
    let mut open = bed.open("data").await;
    open.add(123).await;
    drop(open);
    let source = Source::stopped(options(&bed.data("data"))).unwrap();
    let mut backup = Backup::new(&bed.store, source, NAME, 10);
    bed.round(&mut backup).await.unwrap();
    assert_eq!(bed.restored(None, "back").await.unwrap(), 123 * 50);
}
