//! Two that back the same log up to the same place, and rounds that are killed.

use std::future::Future as _;
use std::process::{Command, Stdio};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use millstream_backup::{Error, list, restore};

use crate::bed::{Bed, NAME};

/// Every backup that is there can be restored.
async fn all_restore(bed: &Bed, round: &str) -> usize {
    let all = list(&bed.store, NAME).await.unwrap();
    for (i, chosen) in all.iter().enumerate() {
        let dir = bed.data(&format!("check-{round}-{i}"));
        restore(&bed.store, chosen, &dir, |_| {}).await.unwrap_or_else(|e| panic!("{round}, {}: {e}", chosen.name));
        std::fs::remove_dir_all(dir).unwrap();
    }
    all.len()
}

#[tokio::test]
async fn a_copy_that_runs_takes_the_place_over_and_the_original_says_so() {
    let bed = Bed::new();
    let mut original = bed.open("data").await;
    let mut backup = bed.backup(&original, 3);
    for _ in 0..3 {
        original.add(60).await;
        original.settle();
        bed.round(&mut backup).await.unwrap();
    }
    bed.restored(None, "copy").await.unwrap();
    let mut copy = bed.open("copy").await;
    let mut other = bed.backup(&copy, 3);
    copy.add(30).await;
    bed.round(&mut other).await.unwrap();
    original.add(50).await;
    for _ in 0..2 {
        let objects = bed.objects().into_iter().filter(|path| path.to_string_lossy().contains("manifests"));
        let before: Vec<_> = objects.collect();
        let error = bed.round(&mut backup).await.unwrap_err();
        assert!(matches!(error, Error::TakenOver { .. }), "{error}");
        assert!(
            error.to_string().contains("another process") && error.to_string().contains("state snapshot"),
            "{error}"
        );
        let objects = bed.objects().into_iter().filter(|path| path.to_string_lossy().contains("manifests"));
        assert_eq!(before, objects.collect::<Vec<_>>());
    }
    for round in 0..5 {
        copy.add(40).await;
        copy.settle();
        bed.round(&mut other).await.unwrap();
        assert_eq!(all_restore(&bed, &format!("copy{round}")).await, 3);
    }
    backup.take_over();
    for round in 0..5 {
        original.add(40).await;
        original.settle();
        bed.round(&mut backup).await.unwrap();
        assert!(matches!(bed.round(&mut other).await, Err(Error::TakenOver { .. })));
        assert_eq!(all_restore(&bed, &format!("original{round}")).await, 3);
    }
    // A restart takes it over as well.
    bed.round(&mut bed.backup(&copy, 3)).await.unwrap();
    assert!(matches!(bed.round(&mut backup).await, Err(Error::TakenOver { .. })));
}

#[tokio::test]
async fn two_at_once_leave_nothing_that_cannot_be_restored() {
    let bed = Bed::new();
    let mut original = bed.open("data").await;
    original.add(100).await;
    let mut backup = bed.backup(&original, 2);
    bed.round(&mut backup).await.unwrap();
    bed.restored(None, "copy").await.unwrap();
    let mut copy = bed.open("copy").await;
    let mut other = bed.backup(&copy, 2);
    let (mut done, mut refused) = (0, 0);
    for round in 0..30 {
        original.add(20 + round % 7).await;
        copy.add(20 + round % 5).await;
        if round % 3 == 0 {
            backup.take_over();
        }
        if round % 4 == 0 {
            other.take_over();
        }
        let (one, two) = tokio::join!(bed.round(&mut backup), bed.round(&mut other));
        for result in [one, two] {
            match result {
                Ok(_) => done += 1,
                Err(Error::TakenOver { .. }) => refused += 1,
                Err(other) => panic!("{other}"),
            }
        }
        all_restore(&bed, &round.to_string()).await;
    }
    assert!(done > 10 && refused > 10, "{done} done, {refused} refused");
}

#[tokio::test]
async fn an_object_that_is_removed_while_rounds_go_on_is_written_again() {
    let bed = Bed::new();
    let mut open = bed.open("data").await;
    let mut backup = bed.backup(&open, 2);
    open.add(200).await;
    open.settle();
    bed.round(&mut backup).await.unwrap();
    let lost =
        bed.objects().into_iter().find(|path| path.extension().is_none() && path.to_string_lossy().contains(".ev/"));
    let lost = lost.unwrap();
    std::fs::remove_file(&lost).unwrap();
    let mut rounds = 0;
    while !lost.exists() {
        bed.round(&mut backup).await.unwrap();
        rounds += 1;
        assert!(rounds < 100, "it is never noticed");
    }
    open.add(1).await;
    bed.round(&mut backup).await.unwrap();
    all_restore(&bed, "after").await;
}

#[tokio::test]
async fn a_round_that_ends_anywhere_leaves_backups_that_restore() {
    let bed = Bed::new();
    let mut open = bed.open("data").await;
    let mut last = 0;
    for polls in (1..40).map(|n| n * n / 2 + 1) {
        open.add(25).await;
        open.settle();
        let mut backup = bed.backup(&open, 2);
        let mut round = Box::pin(bed.round(&mut backup));
        let mut left = polls;
        // What runs on other threads then comes to its end, as in a process that is killed a little later.
        let ended = std::future::poll_fn(|context: &mut Context<'_>| {
            if left == 0 {
                return Poll::Ready(false);
            }
            left -= 1;
            round.as_mut().poll(context).map(|done| done.is_ok())
        });
        last = if ended.await { polls } else { last };
        drop(round);
        all_restore(&bed, &polls.to_string()).await;
    }
    assert!(last > 0, "no round ever ended");
    bed.round(&mut bed.backup(&open, 2)).await.unwrap();
    assert_eq!(all_restore(&bed, "end").await, 2);
}

/// Where the child of the test below works.
const CHILD: &str = "MILLSTREAM_BACKUP_CHILD";

#[tokio::test]
async fn a_process_killed_during_a_round_leaves_backups_that_restore() {
    if let Some(dir) = std::env::var_os(CHILD) {
        let bed = Bed::below(std::path::Path::new(&dir));
        let mut open = bed.open("data").await;
        let mut backup = bed.backup(&open, 3);
        loop {
            open.add(30).await;
            bed.round(&mut backup).await.unwrap();
        }
    }
    let bed = Bed::new();
    let kills = if std::env::var_os("MILLSTREAM_LONG").is_some() { 100 } else { 8 };
    let begun = Instant::now();
    for kill in 0..kills {
        let before = list(&bed.store, NAME).await.unwrap().last().map(|chosen| chosen.name.clone());
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "owners::a_process_killed_during_a_round_leaves_backups_that_restore"])
            .env(CHILD, &bed.root)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // Until it has made a backup, and then a little.
        while list(&bed.store, NAME).await.unwrap().last().map(|chosen| chosen.name.clone()) == before {
            assert!(begun.elapsed() < Duration::from_secs(300), "no backup is made");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        tokio::time::sleep(Duration::from_millis(kill * 7 % 50)).await;
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(all_restore(&bed, &kill.to_string()).await >= 1);
    }
    bed.restored(None, "back").await.unwrap();
}
