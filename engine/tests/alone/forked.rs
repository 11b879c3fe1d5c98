//! A child of the process that opened an engine.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

use strandline::{Batch, Engine, Error};

use crate::{alone, two_stores};

/// Whether a call in a child is refused with a sentence.
fn is_refused<T>(called: Result<T, Error>) -> bool {
    called.is_err_and(|error| error.to_string().contains("was forked"))
}

#[test]
fn a_forked_child_gets_errors_and_leaves_the_directory_to_its_parent() {
    let _alone = alone();
    let dir = tempfile::tempdir().expect("a directory");
    let engine = Engine::open(dir.path(), two_stores::options()).expect("opens");
    let store = engine.store("messages").expect("is there");
    store.append(b"t", b"parent").expect("appends");
    let mut handles = Some((engine.clone(), store.clone()));
    let child = move || {
        let (engine, store) = handles.take().expect("one child");
        let refused = is_refused(store.append(b"t", b"child"))
            && is_refused(store.trim(b"t", strandline::Trim::Keep(0)))
            && is_refused(engine.submit(Batch::new().append(&store, b"t", b"child")))
            && is_refused(engine.flush())
            && is_refused(engine.close());
        drop((engine, store));
        if refused { Ok(()) } else { Err(io::Error::from_raw_os_error(95)) }
    };
    let mut command = Command::new("true");
    // SAFETY: the child calls the engine, whose refusals take no lock that another thread may have
    // held at the fork, and the allocator, which the C library makes usable in a child.
    #[allow(unsafe_code, reason = "there is no other way to call something in a child")]
    unsafe {
        command.pre_exec(child);
    }
    assert!(command.status().expect("all calls are refused").success());
    drop(command);
    assert_eq!(store.append(b"t", b"parent").expect("the engine goes on"), 2);
    engine.close().expect("closes");
    drop((engine, store));
    let engine = Engine::open(dir.path(), two_stores::options()).expect("opens again");
    let last = engine.store("messages").expect("is there").end(b"t").expect("reads").0;
    assert_eq!(last, 2);
}
