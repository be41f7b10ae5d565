//! What only this engine does.

use std::env;
use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use interleaf_store::env::{Deadline, Env};
use interleaf_store::kv::fdb::FdbKv;
use interleaf_store::kv::{Commit, Key, KeyRange, Kv, KvError, Mutation, Scan};
use interleaf_store::types::Version;

use crate::fdb_cluster::{Cluster, Tools};
use crate::{CHILD, Test};

/// Tests of a running cluster.
pub const TESTS: &[(&str, Test)] = &[
    ("only_logical_keys_conflict", only_logical_keys_conflict),
    ("a_commit_that_only_reads_is_validated", a_commit_that_only_reads_is_validated),
    ("versions_are_filled_in", versions_are_filled_in),
    ("an_old_snapshot_is_too_old", an_old_snapshot_is_too_old),
    ("a_transaction_does_not_see_its_versioned_writes", versioned_writes_are_unseen),
    ("long_scans_come_whole_both_ways", long_scans_come_whole),
    ("increments_are_not_lost", increments_are_not_lost),
    ("a_watch_ends_with_the_change", a_watch_ends_with_the_change),
    ("prefixes_keep_stores_apart", prefixes_keep_stores_apart),
    ("a_closed_store_is_unavailable", a_closed_store_is_unavailable),
    ("reads_of_an_earlier_moment_see_that_moment", an_earlier_moment),
    ("what_is_asked_together_is_one_wait", together_is_one_wait),
];

pub fn store(file: &Path, prefix: &str) -> FdbKv {
    FdbKv::open(file, prefix, Env::system()).unwrap()
}

pub fn soon() -> Deadline {
    Env::system().deadline(Duration::from_secs(20))
}

fn range(start: &[u8], end: &[u8]) -> KeyRange {
    start.to_vec()..end.to_vec()
}

fn put(key: &[u8], value: &[u8]) -> Mutation {
    Mutation::Put { key: key.to_vec(), value: Bytes::copy_from_slice(value) }
}

fn now(kv: &FdbKv) -> Version {
    kv.snapshot(soon()).unwrap().version()
}

fn get(kv: &FdbKv, key: &[u8]) -> Option<Bytes> {
    kv.snapshot(soon()).unwrap().get(key).unwrap()
}

fn scan(start: &[u8], end: &[u8], limit: usize, reverse: bool) -> Scan {
    Scan { range: range(start, end), reverse, limit }
}

fn only_logical_keys_conflict(file: &Path) {
    let kv = store(file, "logical");
    let snapshot = now(&kv);
    let commit = |snapshot, reads: &[KeyRange], writes: &[KeyRange], mutations: Vec<Mutation>| {
        let (read_conflicts, write_conflicts) = (reads.to_vec().into(), writes.to_vec());
        let commit =
            Commit { snapshot, read_conflicts, write_conflicts, mutations, ..Commit::default() };
        kv.commit_at(commit, soon())
    };
    // Written, and written with the version in the key, but announced as `x` only.
    let versioned =
        Mutation::PutVersionedKey { prefix: b"k".to_vec(), suffix: vec![], value: Bytes::new() };
    let x = range(b"x", b"x\0");
    let first = commit(snapshot, &[], std::slice::from_ref(&x), vec![put(b"key", b"1"), versioned]);
    let first = first.unwrap();
    // Everything that was written lies in what this one has read, and does not matter.
    let second = commit(snapshot, &[range(b"k", b"l")], &[], vec![put(b"key", b"2")]).unwrap();
    assert!(second > first);
    let third = commit(snapshot, &[range(b"a", b"y")], &[], vec![put(b"key", b"3")]);
    assert_eq!(third, Err(KvError::Conflict));
    // From a later snapshot it is no conflict any more.
    let later = now(&kv);
    assert!(later > second);
    commit(later, &[range(b"a", b"y")], &[], vec![put(b"key", b"4")]).unwrap();
    assert_eq!(get(&kv, b"key").unwrap(), "4");
}

fn a_commit_that_only_reads_is_validated(file: &Path) {
    let kv = store(file, "validate");
    let snapshot = now(&kv);
    let x = range(b"x", b"x\0");
    let read = || Commit { snapshot, read_conflicts: vec![x.clone()].into(), ..Commit::default() };
    kv.commit_at(read(), soon()).unwrap();
    let write = Commit { snapshot, write_conflicts: vec![x.clone()], ..Commit::default() };
    kv.commit_at(write, soon()).unwrap();
    assert_eq!(kv.commit_at(read(), soon()), Err(KvError::Conflict));
}

fn versions_are_filled_in(file: &Path) {
    let kv = store(file, "versioned");
    let mutations = vec![
        Mutation::PutVersionedKey {
            prefix: b"log/".to_vec(),
            suffix: b"/end".to_vec(),
            value: Bytes::from_static(b"entry"),
        },
        Mutation::PutVersionedValue {
            key: b"head".to_vec(),
            prefix: b"<".to_vec(),
            suffix: b">".to_vec(),
        },
    ];
    let snapshot = now(&kv);
    let version =
        kv.commit_at(Commit { snapshot, mutations, ..Commit::default() }, soon()).unwrap();
    assert!(version > snapshot && version <= now(&kv));
    assert!(!kv.validates(version) && kv.validates(now(&kv)));
    let head = [b"<".as_slice(), &version.to_bytes(), b">"].concat();
    assert_eq!(get(&kv, b"head").unwrap(), head);
    let key = [b"log/".as_slice(), &version.to_bytes(), b"/end"].concat();
    let reads = kv.snapshot(soon()).unwrap();
    let log = reads.scan(&scan(b"log/", b"log0", 10, false)).unwrap();
    assert_eq!(log, [(Bytes::from(key), Bytes::from_static(b"entry"))]);
    let read_conflicts = vec![range(b"a", b"b")].into();
    let at_version = Commit { snapshot: version, read_conflicts, ..Commit::default() };
    assert_eq!(kv.commit_at(at_version, soon()), Err(KvError::TooOld));
}

fn an_old_snapshot_is_too_old(file: &Path) {
    let kv = store(file, "old");
    let reads = kv.snapshot(soon()).unwrap();
    thread::sleep(Duration::from_secs(8));
    let commit = Commit {
        snapshot: reads.version(),
        read_conflicts: vec![range(b"a", b"b")].into(),
        mutations: vec![put(b"a", b"")],
        ..Commit::default()
    };
    assert_eq!(kv.commit_at(commit, soon()), Err(KvError::TooOld));
    assert_eq!(reads.get(b"a"), Err(KvError::TooOld));
}

fn versioned_writes_are_unseen(file: &Path) {
    let kv = store(file, "unseen");
    let stamp = |key: &[u8]| Mutation::PutVersionedValue {
        key: key.to_vec(),
        prefix: vec![],
        suffix: vec![],
    };
    let committed = kv.transact(soon(), &mut |txn| {
        txn.mutate(stamp(b"a"));
        txn.mutate(stamp(b"b"));
        txn.mutate(Mutation::PutVersionedKey {
            prefix: b"c".to_vec(),
            suffix: vec![],
            value: Bytes::new(),
        });
        txn.put(b"b".to_vec(), Bytes::from_static(b"last"));
        assert_eq!(txn.get(b"a")?, None);
        let seen = txn.scan(&scan(b"a", b"z", 10, false))?;
        assert_eq!(seen, [(Bytes::from_static(b"b"), Bytes::from_static(b"last"))]);
        Ok(())
    });
    let version = committed.unwrap().unwrap();
    assert_eq!(get(&kv, b"a").unwrap(), version.to_bytes().as_slice());
    assert_eq!(get(&kv, b"b").unwrap(), "last");
    let reads = kv.snapshot(soon()).unwrap();
    assert_eq!(reads.scan(&scan(b"c", b"d", 10, false)).unwrap().len(), 1);
    assert_eq!(kv.transact(soon(), &mut |txn| Ok(txn.get(b"a").map(drop)?)), Ok(None));
}

fn long_scans_come_whole(file: &Path) {
    let kv = store(file, "scan");
    let key = |number: u32| number.to_be_bytes().to_vec();
    for hundred in 0..20 {
        let numbers = hundred * 100..(hundred + 1) * 100;
        let mutations = numbers
            .map(|n| Mutation::Put { key: key(n), value: Bytes::from(vec![7; 1000]) })
            .collect();
        kv.commit_at(Commit { snapshot: now(&kv), mutations, ..Commit::default() }, soon())
            .unwrap();
    }
    let reads = kv.snapshot(soon()).unwrap();
    let whole = |limit, reverse| Scan { range: key(0)..key(9999), reverse, limit };
    let scans = [whole(usize::MAX, false), whole(usize::MAX, true), whole(1500, true)];
    let found = reads.scan_many(&scans).unwrap();
    let keys = |index: usize| found[index].iter().map(|(k, _)| k.to_vec()).collect::<Vec<Key>>();
    assert!(keys(0).iter().eq((0..2000).map(key).collect::<Vec<_>>().iter()));
    assert!(keys(1).iter().eq((0..2000).rev().map(key).collect::<Vec<_>>().iter()));
    assert!(keys(2).iter().eq((500..2000).rev().map(key).collect::<Vec<_>>().iter()));
    assert_eq!(reads.scan(&whole(0, false)).unwrap(), []);
    assert_eq!(reads.scan(&scan(b"b", b"a", 5, false)).unwrap(), []);
    let many: Vec<Key> = (0..3000).map(key).collect();
    let values = reads.get_many(&many).unwrap();
    assert_eq!(values.iter().flatten().count(), 2000);
    assert!(kv.disk_bytes().is_some());
}

fn increments_are_not_lost(file: &Path) {
    let kv = store(file, "counter");
    thread::scope(|scope| {
        let kv = &kv;
        for thread in 0..8u8 {
            scope.spawn(move || {
                for round in 0..20u8 {
                    // A run may have taken effect and not have been told: then this is it.
                    let mark = vec![b'm', thread, round];
                    let done = kv.transact(soon(), &mut |txn| {
                        if txn.get(&mark)?.is_some() {
                            return Ok(());
                        }
                        let value = txn.get(b"n")?.map_or(0, |v| v[0]);
                        txn.put(b"n".to_vec(), Bytes::from(vec![value + 1]));
                        txn.put(mark.clone(), Bytes::new());
                        Ok(())
                    });
                    done.unwrap();
                }
            });
        }
    });
    assert_eq!(get(&kv, b"n").unwrap()[0], 160);
}

fn a_watch_ends_with_the_change(file: &Path) {
    let kv = store(file, "watch");
    let short = Env::system().deadline(Duration::from_millis(300));
    let after = Duration::from_millis(300);
    assert_eq!(kv.watch(b"w", None, short), Err(KvError::Timeout { after }));
    assert_eq!(kv.watch(b"w", Some(b"other"), soon()), Ok(()));
    thread::scope(|scope| {
        let watching = scope.spawn(|| kv.watch(b"w", None, soon()));
        thread::sleep(Duration::from_millis(200));
        let mutations = vec![put(b"w", b"1")];
        kv.commit_at(Commit { snapshot: now(&kv), mutations, ..Commit::default() }, soon())
            .unwrap();
        assert_eq!(watching.join().unwrap(), Ok(()));
    });
}

fn prefixes_keep_stores_apart(file: &Path) {
    let (app, app2) = (store(file, "app"), store(file, "app2"));
    let mutations = || vec![put(b"2\0k", b"app"), put(b"\xff\xff", b"end")];
    let commit = Commit { snapshot: now(&app), mutations: mutations(), ..Commit::default() };
    app.commit_at(commit, soon()).unwrap();
    assert_eq!(get(&app2, b"k"), None);
    let reads = app2.snapshot(soon()).unwrap();
    assert_eq!(reads.scan(&scan(b"", b"\xff\xff\xff", 9, false)).unwrap(), []);
    let reads = app.snapshot(soon()).unwrap();
    assert_eq!(reads.scan(&scan(b"", b"\xff\xff\xff", 9, false)).unwrap().len(), 2);
    assert!(FdbKv::open(file, "a\0b", Env::system()).is_err());
}

fn a_closed_store_is_unavailable(file: &Path) {
    let kv = store(file, "closed");
    let snapshot = now(&kv);
    kv.close().unwrap();
    let commit = Commit { snapshot, mutations: vec![put(b"a", b"")], ..Commit::default() };
    assert!(matches!(kv.commit_at(commit, soon()), Err(KvError::Unavailable { .. })));
}

fn an_earlier_moment(file: &Path) {
    let kv = store(file, "earlier");
    let commit = |value: &[u8]| {
        let commit = Commit { mutations: vec![put(b"a", value)], ..Commit::default() };
        kv.commit_at(commit, soon()).unwrap()
    };
    let all = [scan(b"a", b"b", 9, false)];
    let found = |at| {
        let (reads, found) = kv.snapshot_with(at, &all, soon()).unwrap();
        assert_eq!(reads.get(b"a").unwrap(), found[0].first().map(|(_, value)| value.clone()));
        (reads.version(), found[0].first().map(|(_, value)| value.to_vec()))
    };
    let first = commit(b"1");
    let before = now(&kv);
    commit(b"2");
    assert_eq!(found(Some(before)), (before, Some(b"1".to_vec())));
    let (later, value) = found(None);
    assert!(later > before && value == Some(b"2".to_vec()));
    // What validates nothing, and what nobody was given, is answered with now.
    let beyond = Version::new(later.commit() + 1_000_000_000_000, Version::BATCH_ALL);
    for at in [first, beyond, Version::ZERO] {
        let (version, value) = found(Some(at));
        assert!(version >= later && value == Some(b"2".to_vec()), "{at}");
    }
    // FoundationDB keeps 5 s, or more: what it has forgotten is answered with now, too.
    thread::sleep(Duration::from_secs(7));
    match found(Some(before)) {
        (version, value) if version == before => assert_eq!(value, Some(b"1".to_vec())),
        (version, value) => assert!(version >= later && value == Some(b"2".to_vec())),
    }
    // And once this process knows how much later it is, it does not even ask.
    let again = now(&kv);
    assert_eq!(found(Some(again)), (again, Some(b"2".to_vec())));
    assert_eq!(found(Some(before)).1, Some(b"2".to_vec()));
}

fn together_is_one_wait(file: &Path) {
    let kv = store(file, "waits");
    let waits = |what: &dyn Fn()| {
        let before = kv.round_trips();
        what();
        kv.round_trips() - before
    };
    let scans = [scan(b"a", b"b", 9, false), scan(b"c", b"d", 9, true), scan(b"a", b"b", 0, true)];
    assert_eq!(waits(&|| drop(kv.snapshot_with(None, &scans, soon()).unwrap())), 1);
    let reads = kv.snapshot(soon()).unwrap();
    assert_eq!(waits(&|| drop(reads.scan_many(&scans).unwrap())), 1);
    assert_eq!(waits(&|| drop(reads.get_many(&[b"a".to_vec(), b"b".to_vec()]).unwrap())), 1);
    let commit = || Commit { mutations: vec![put(b"a", b"")], ..Commit::default() };
    assert_eq!(waits(&|| assert!(kv.commit_at(commit(), soon()).is_ok())), 1);
}

/// In a process of its own, since a library that is loaded once stays.
pub fn a_missing_library_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let file = deserted(dir.path());
    let open = |file: &Path| {
        let output = Command::new(env::current_exe().unwrap())
            .env(CHILD, file)
            .env("FDB_CLIENT_LIB", "/nowhere/libfdb_c.so")
            .output()
            .unwrap();
        assert!(output.status.success());
        String::from_utf8(output.stdout).unwrap()
    };
    let error = open(&file);
    assert!(error.contains("/nowhere/libfdb_c.so") && error.contains("FDB_CLIENT_LIB"), "{error}");
    let error = open(Path::new("/nowhere/fdb.cluster"));
    assert!(error.contains("/nowhere/fdb.cluster"), "{error}");
}

/// A cluster file that leads to nobody.
fn deserted(dir: &Path) -> PathBuf {
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let file = dir.join("deserted.cluster");
    fs::write(&file, format!("test:test@{address}\n")).unwrap();
    file
}

pub fn a_deserted_cluster() {
    let dir = tempfile::tempdir().unwrap();
    let kv = store(&deserted(dir.path()), "");
    let begun = Instant::now();
    let deadline = Env::system().deadline(Duration::from_millis(500));
    let answer = kv.snapshot(deadline).map(|reads| reads.version());
    assert_eq!(answer, Err(KvError::Timeout { after: Duration::from_millis(500) }));
    assert!(kv.transact(deadline, &mut |txn| Ok(txn.get(b"a").map(drop)?)).is_err());
    assert!(begun.elapsed() < Duration::from_secs(5));
}

pub fn a_dead_server(tools: &Tools) {
    let mut cluster = Cluster::start(tools).unwrap();
    let kv = store(&cluster.file(), "");
    let snapshot = now(&kv);
    let mutations = vec![put(b"a", b"1")];
    let commit = || Commit { snapshot, mutations: mutations.clone(), ..Commit::default() };
    kv.commit_at(commit(), soon()).unwrap();
    cluster.kill().unwrap();
    let deadline = Env::system().deadline(Duration::from_secs(1));
    assert_eq!(kv.commit_at(commit(), deadline), Err(KvError::UnknownResult));
    let deadline = Env::system().deadline(Duration::from_millis(500));
    assert!(matches!(kv.snapshot(deadline).map(drop), Err(KvError::Timeout { .. })));
}
