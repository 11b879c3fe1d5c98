//! Callers that wait for their commit: somebody commits it, whoever else commits.

use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use crate::gates::{EXPIRE, Gates};
use crate::two_stores;

/// The time in which a thread that may run has run.
const SOON: Duration = Duration::from_millis(200);

#[test]
fn a_caller_that_found_another_committing_is_answered_when_that_one_leaves() {
    const LEADER: &str = "leader";
    let gates = Gates::new();
    // With less memory, a caller that waits for room in the group calls the commit thread.
    let options = two_stores::options().memory_budget_bytes(64 * 1024 * 1024);
    let (_engine, store) = gates.open_with(options);
    store.append(b"t", b"the log file is there").expect("appends");
    // It would call the commit thread for the waiting group, too.
    gates.hold(EXPIRE);
    while !gates.waits(EXPIRE) {
        thread::yield_now();
    }
    gates.hold(LEADER);
    let (answers, answered) = channel();
    let append = |name: &str| {
        let (store, answers) = (store.clone(), answers.clone());
        let run = move || answers.send(store.append(b"t", b"x")).expect("the test listens");
        thread::Builder::new().name(name.into()).spawn(run).expect("a thread")
    };
    let leader = append(LEADER);
    while !gates.waits(LEADER) {
        thread::yield_now();
    }
    // Two, so that one of them commits for both, or one after the other.
    let followers = [append("one"), append("other")];
    assert!(answered.recv_timeout(SOON).is_err(), "the sync is under way");
    gates.release(LEADER);
    let all: Vec<_> = (0..3).map(|_| answered.recv_timeout(Duration::from_mins(1))).collect();
    gates.release(EXPIRE);
    let sequence = |answer: strandline::Result<u64>| answer.expect("appends");
    let mut sequences: Vec<u64> =
        all.into_iter().map(|answer| sequence(answer.expect("is answered"))).collect();
    sequences.sort_unstable();
    assert_eq!(sequences, [2, 3, 4]);
    for thread in followers.into_iter().chain([leader]) {
        thread.join().expect("no panic");
    }
}
