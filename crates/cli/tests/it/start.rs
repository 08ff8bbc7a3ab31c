//! How `run` begins and ends.

use crate::support::{Dir, wait, wait_for};

#[test]
fn it_says_where_it_is_and_what_to_try() {
    let dir = Dir::new(10, true);
    let mut node = dir.start(&[]);
    let address = node.hear("http://127.0.0.1:");
    assert!(!address.contains(":0"), "the port taken, not the one asked for: {address}");
    node.hear("log (new)");
    node.hear("millstream tap doubled --follow");
    node.hear("millstream dlq list check");
    node.stop();
}

#[test]
fn a_taken_log_names_who_holds_it() {
    let dir = Dir::new(10, true);
    let node = dir.start(&[]);
    let pid = node.child.id().to_string();
    let second = dir.run(&["run", "--listen", "127.0.0.1:0"]).exits(1);
    assert!(second.stderr().contains(&pid), "no {pid} in {}", second.stderr());
    node.stop();
}

#[test]
fn a_taken_port_names_who_holds_it_and_how_to_take_another() {
    let held = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = held.local_addr().unwrap().port().to_string();
    let dir = Dir::new(10, true);
    let ran = dir.run(&["run", "--listen", &format!("127.0.0.1:{port}")]).exits(1);
    let said = ran.stderr();
    let holder = format!("in use by process {}", std::process::id());
    assert!(said.contains(&port) && said.contains("--listen") && said.contains(&holder), "{said}");
}

#[test]
fn a_signal_finishes_what_is_in_flight_and_the_next_run_goes_on() {
    let dir = Dir::new(500, true);
    let mut node = dir.start(&[]);
    wait_for(&dir, "twice", "some events", |s| s["events_in"].as_u64() > Some(0));
    node.signal("-INT");
    assert_eq!(node.ended(), Some(0));
    let node = dir.start(&[]);
    wait("all events to be out", || dir.out().len() == 450);
    node.stop();
    assert_eq!(dir.out().len(), 450, "none twice");
}

#[test]
fn plain_lines_say_how_it_is_doing() {
    let dir = Dir::new(100, true);
    let mut node = dir.start(&[]);
    node.hear("in 100 (");
    node.stop();
}
