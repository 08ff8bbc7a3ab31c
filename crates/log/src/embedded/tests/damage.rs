//! Damage: seen, refused, and what a repair leaves.

use super::*;

#[tokio::test]
async fn a_flipped_byte_is_never_a_silent_loss() {
    let dir = tempfile::tempdir().unwrap();
    let log = filled(dir.path(), 4).await;
    log.close().await.unwrap();
    let all: Vec<i64> = (0..12).collect();
    let (mut refused, mut found) = (0, 0);
    for group in groups(dir.path()) {
        let used = group.header.bodies_at() + group.header.body_len;
        for at in (0..used).step_by(5) {
            let copy = tempfile::tempdir().unwrap();
            copy_dir(dir.path(), copy.path());
            let path = last_segment(copy.path());
            let mut bytes = std::fs::read(&path).unwrap();
            bytes[(group.at + at) as usize] ^= 0x10;
            std::fs::write(&path, bytes).unwrap();
            match EmbeddedLog::open(options(copy.path())) {
                Err(Error::Corrupt { .. }) => refused += 1,
                Err(other) => panic!("{other}"),
                Ok(log) => {
                    let read = tokio::spawn(async move { numbers(&log).await }).await;
                    // Where it is not seen at once it is seen when it is read.
                    if let Ok(read) = read {
                        assert_eq!(read, all, "group {} byte {at}", group.header.seq);
                    }
                    found += 1;
                }
            }
        }
    }
    assert!(refused > 0 && found > 0);
}

#[tokio::test]
async fn a_damaged_journal_is_cut_where_the_damage_is_and_says_what_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    let log = filled(dir.path(), 6).await;
    log.close().await.unwrap();
    assert!(verify(&options(dir.path())).unwrap().is_sound());
    let damaged = groups(dir.path()).into_iter().filter(|g| !g.frames.is_empty()).nth(5).unwrap();
    let path = last_segment(dir.path());
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[damaged.at as usize + 20] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let Err(error @ Error::Corrupt { .. }) = EmbeddedLog::open(options(dir.path())) else { panic!() };
    assert!(error.to_string().contains("log repair"), "{error}");
    let report = verify(&options(dir.path())).unwrap();
    assert_eq!(report.problems.len(), 1);
    assert_eq!(report.problems[0].at, damaged.at);
    let would = repair(&options(dir.path()), false).unwrap();
    assert!(EmbeddedLog::open(options(dir.path())).is_err(), "nothing was changed");
    let did = repair(&options(dir.path()), true).unwrap();
    assert_eq!(would.lost, did.lost);
    assert_eq!(did.lost.iter().map(|l| (l.from.0, l.to.0)).collect::<Vec<_>>(), [(12, 15), (15, 18)]);
    let log = EmbeddedLog::open(options(dir.path())).unwrap();
    assert_eq!(numbers(&log).await, (0..12).collect::<Vec<_>>());
    let mut source = Source::join(&log, "s").await;
    source.put(&log, 3, 10).await;
    assert!(dir.path().join("damaged").exists());
}

#[tokio::test]
async fn a_damaged_block_is_taken_out_and_the_rest_of_its_file_stays() {
    let dir = tempfile::tempdir().unwrap();
    let log = filled(dir.path(), 0).await;
    let mut source = Source::join(&log, "s").await;
    for _ in 0..100 {
        source.put(&log, 20, 200).await;
    }
    until("settling", || log.shared.sealed.lock().is_empty()).await;
    log.close().await.unwrap();
    let file = std::fs::read_dir(dir.path().join("topics/t/0")).unwrap().next().unwrap().unwrap().path();
    let mut bytes = std::fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&file, bytes).unwrap();
    let report = verify(&options(dir.path())).unwrap();
    assert_eq!(report.problems.len(), 1, "{:?}", report.problems);
    assert_eq!(report.problems[0].affected, "t/0");
    let report = repair(&options(dir.path()), true).unwrap();
    let lost: u64 = report.lost.iter().map(|l| l.to.0 - l.from.0).sum();
    assert!(lost > 0);
    assert!(verify(&options(dir.path())).unwrap().is_sound());
    let log = EmbeddedLog::open(options(dir.path())).unwrap();
    let at = TopicPartition::new(name("t"), 0);
    let mut reader = log.read(&at, Offset(0)).unwrap();
    let mut rows = 0;
    while let Read::Batch(batch) = reader.next().await.unwrap() {
        rows += batch.rows.num_rows() as u64;
    }
    assert_eq!(rows, 2000 - lost);
}

#[tokio::test]
async fn a_commit_that_no_frame_can_hold_is_refused_as_too_large() {
    let dir = tempfile::tempdir().unwrap();
    let log = filled(dir.path(), 1).await;
    let mut source = Source::join(&log, "many").await;
    let mut commit = source.commit("t", 1, 1);
    commit.appends = vec![commit.appends[0].clone(); 65_537];
    let outcome = log.commit(commit).await;
    assert!(matches!(&outcome, Outcome::Aborted(AbortReason::TooLarge(why)) if why.contains("65537")), "{outcome:?}");
}
