use std::collections::BTreeSet;

use super::*;

fn dir() -> (SimVfs, &'static Path) {
    let vfs = SimVfs::new();
    let dir = Path::new("/log");
    vfs.create_dir_all(dir).unwrap();
    vfs.sync_all();
    (vfs, dir)
}

#[test]
fn what_was_synced_survives_every_crash() {
    let (vfs, dir) = dir();
    let file = vfs.open(&dir.join("x"), OpenOptions::CREATE).unwrap();
    file.write_all_at(&[1; 3000], 0).unwrap();
    file.sync_data().unwrap();
    vfs.sync_dir(dir).unwrap();
    file.write_all_at(&[2; 1000], 1000).unwrap();
    for seed in 0..200 {
        let image = vfs.crash(seed).content(&dir.join("x")).unwrap();
        assert_eq!(image.len(), 3000);
        assert!(image[..512].iter().chain(&image[2048..]).all(|b| *b == 1));
        assert_eq!(image[..1000], vec![1; 1000]);
    }
}

#[test]
fn unsynced_sectors_are_lost_torn_and_reordered() {
    let (vfs, dir) = dir();
    let path = dir.join("x");
    let file = vfs.open(&path, OpenOptions::CREATE).unwrap();
    file.write_all_at(&[1; 2048], 0).unwrap();
    file.sync_data().unwrap();
    vfs.sync_dir(dir).unwrap();
    file.write_all_at(&[2; 2048], 0).unwrap();
    let images: BTreeSet<Vec<u8>> = (0..500).map(|seed| vfs.crash(seed).content(&path).unwrap()).collect();
    for image in &images {
        assert!(image.chunks(512).all(|sector| sector.iter().all(|b| *b == sector[0])));
    }
    assert_eq!(images.len(), 16, "each of four sectors is old or new");
    assert_eq!(vfs.crash(7).content(&path), vfs.crash(7).content(&path));
}

#[test]
fn names_are_lost_until_their_directory_is_synced() {
    let (vfs, dir) = dir();
    let (a, b) = (dir.join("a"), dir.join("b"));
    vfs.open(&a, OpenOptions::CREATE).unwrap();
    assert!((0..50).any(|seed| vfs.crash(seed).files().is_empty()));
    assert!((0..50).any(|seed| !vfs.crash(seed).files().is_empty()));
    vfs.sync_dir(dir).unwrap();
    vfs.rename(&a, &b).unwrap();
    let names: BTreeSet<Vec<(PathBuf, u64)>> = (0..50).map(|seed| vfs.crash(seed).files()).collect();
    assert_eq!(names, [vec![(a.clone(), 0)], vec![(b.clone(), 0)]].into(), "one name or the other, never both or none");
    vfs.sync_dir(dir).unwrap();
    vfs.remove(&b).unwrap();
    assert!((0..50).any(|seed| vfs.crash(seed).content(&b).is_some()));
    vfs.sync_dir(dir).unwrap();
    assert!((0..50).all(|seed| vfs.crash(seed).files().is_empty()));
}

#[test]
fn a_failed_sync_is_not_mended_by_the_next() {
    let mut lost = 0;
    for seed in 0..20 {
        let (vfs, dir) = dir();
        let path = dir.join("x");
        let file = vfs.open(&path, OpenOptions::CREATE).unwrap();
        vfs.sync_dir(dir).unwrap();
        (0..seed).for_each(|_| file.sync_data().unwrap());
        vfs.fail(Fault { op: Op::Sync, after: 0, kind: FaultKind::LostSync, for_good: false });
        file.write_all_at(&[9; 512], 0).unwrap();
        assert!(file.sync_data().is_err());
        file.sync_data().unwrap();
        assert_eq!(vfs.content(&path).unwrap(), [9; 512], "the page cache still has it");
        lost += usize::from(vfs.crash(0).content(&path).unwrap() != [9; 512]);
    }
    assert!(lost > 0);
}

#[test]
fn the_chosen_call_fails_and_no_other() {
    let (vfs, dir) = dir();
    let file = vfs.open(&dir.join("x"), OpenOptions::CREATE).unwrap();
    vfs.fail(Fault { op: Op::Write, after: 1, kind: FaultKind::NoSpace, for_good: false });
    file.write_all_at(b"a", 0).unwrap();
    assert_eq!(file.write_all_at(b"b", 1).unwrap_err().kind(), io::ErrorKind::StorageFull);
    file.write_all_at(b"c", 1).unwrap();
    vfs.fail(Fault { op: Op::Write, after: 0, kind: FaultKind::Part, for_good: false });
    assert_eq!(file.write_at(b"defg", 2).unwrap(), 2);
    assert_eq!(vfs.content(&dir.join("x")).unwrap(), b"acde");
    vfs.set_capacity(Some(6));
    assert_eq!(file.write_at(b"hijk", 4).unwrap(), 2);
    assert_eq!(file.write_at(b"jk", 6).unwrap_err().kind(), io::ErrorKind::StorageFull);
    vfs.power_off_after(1);
    file.sync_data().unwrap();
    assert!(file.sync_data().is_err() && vfs.open(&dir.join("x"), OpenOptions::READ).is_err());
    assert!(vfs.after_power_off(3).unwrap().files().len() <= 1);
}

#[test]
fn the_record_has_calls_and_remarks_in_order() {
    let (vfs, dir) = dir();
    let file = vfs.open(&dir.join("x"), OpenOptions::CREATE).unwrap();
    vfs.remark("written next");
    vfs.power_off_after(1);
    file.write_all_at(b"abc", 7).unwrap();
    assert!(vfs.rename(&dir.join("x"), &dir.join("y")).is_err());
    let record = vfs.record().to_string();
    let ends = ["Rename /log/x to /log/y at 0, 0 bytes, refused", "Write /log/x at 7, 3 bytes", "-- written next"];
    assert_eq!(record.lines().count(), 5, "{record}");
    assert!(record.lines().rev().zip(ends).all(|(line, end)| line.ends_with(end)), "{record}");
}

#[test]
fn a_disk_that_holds_threads_up_does_the_same_work() {
    let (vfs, dir) = dir();
    vfs.hold_up(5);
    let file = vfs.open(&dir.join("x"), OpenOptions::CREATE).unwrap();
    (0..200).for_each(|at| file.write_all_at(&[7], at).unwrap());
    assert_eq!(vfs.content(&dir.join("x")).unwrap(), [7; 200]);
}
