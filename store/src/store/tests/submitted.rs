//! Commits that are submitted rather than waited for.

use std::sync::mpsc;

use super::common::*;
use crate::api::{Backend, CommitReply, CommitRequest};
use crate::error::{Error, Result};
use crate::store::{OnCommit, Submitted};

/// Submits and leads where that is asked; runs what needs a thread.
fn submit(db: &Db, request: CommitRequest) -> (Result<CommitReply>, bool) {
    let (send, receive) = mpsc::channel();
    let done: OnCommit = Box::new(move |submitted| assert!(send.send(submitted).is_ok()));
    if db.store.submit(request, soon(), done) {
        db.store.lead_commits();
    }
    match receive.try_recv().unwrap() {
        Submitted::Reply(reply) => (reply, false),
        Submitted::Work(work) => (work.run(), true),
    }
}

#[test]
fn a_plain_commit_is_answered_by_whoever_writes_it_and_all_else_by_a_thread() {
    let store = mem_store();
    let db = Db::open(&store, "db");
    db.put(&[(1, 1), (2, 2), (3, 3)]);
    let (mut a, mut b) = (db.begin(), db.begin());
    a.write(2, filled(20));
    b.write(3, filled(30));
    b.read(2);

    let (reply, worked) = submit(&db, a.request());
    let reply = reply.unwrap();
    assert!(!worked);
    assert_eq!(reply.previous, [Some(a.begun.head)]);
    assert_eq!(first_bytes(&db.read_at(reply.version, &[2]).unwrap()), [20]);

    let (again, worked) = submit(&db, a.request());
    assert!(worked, "a duplicate needs the log");
    assert_eq!(again.unwrap().version, reply.version);

    let (conflict, worked) = submit(&db, b.request());
    assert!(worked, "only the log says Conflict");
    assert!(matches!(conflict, Err(Error::Conflict { what }) if what.contains("page 2")));
    let status = db.store.status(soon()).unwrap();
    assert_eq!(
        (status.numbers["commits"], status.numbers["conflicts"]),
        (3, 1),
        "each counted once"
    );

    let read_only = CommitRequest { parts: vec![db.begin().part()], ..db.begin().request() };
    let snapshot = read_only.parts[0].snapshot;
    let (nothing, worked) = submit(&db, read_only);
    assert!(worked && nothing.unwrap().version == snapshot);

    let mut bad = db.begin();
    bad.write(2, filled(21));
    let mut request = bad.request();
    request.parts.push(request.parts[0].clone());
    let (refused, worked) = submit(&db, request);
    assert!(worked && matches!(refused, Err(Error::InvalidRequest { .. })));
}
