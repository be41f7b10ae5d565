//! Versions, publications, hooks and watches.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use interleaf_store::kv::{Commit, Durability, KvError, Mutation};
use interleaf_store::types::Version;

use crate::ON_PURPOSE;
use crate::support::{Case, Ctx, case, point, put, range, scan, threads};

pub const CASES: &[Case] = &[
    case!(Nothing, versions_grow_and_none_comes_twice),
    case!(Nothing, snapshots_validate),
    case!(Exclusive, publications_come_in_order_before_the_answer),
    case!(Exclusive, only_what_commits_is_published),
    case!(Exclusive, the_last_publication_of_a_transaction_counts),
    case!(Exclusive, a_panic_at_a_publication_hangs_nobody),
    case!(Exclusive, the_hook_writes_with_each_batch),
    case!(Exclusive, a_published_version_is_in_every_later_snapshot),
    case!(Nothing, a_watch_wakes_at_a_change),
    case!(Nothing, a_watch_ends_at_its_deadline),
];

fn versions_grow_and_none_comes_twice(ctx: &Ctx) {
    let kv = ctx.open();
    let all = Mutex::new(BTreeSet::new());
    threads(16, |t| {
        let mut last = Version::ZERO;
        for n in 0..30 {
            let version = kv.put(&format!("k{t}"), &n.to_string());
            assert!(version > last, "{version} after {last}");
            last = version;
            assert!(all.lock().unwrap().insert(version), "{version} came twice");
        }
    });
    assert!(kv.now() >= *all.lock().unwrap().last().unwrap());
}

fn snapshots_validate(ctx: &Ctx) {
    let kv = ctx.open();
    assert!(kv.validates(kv.now()));
    kv.put("a", "1");
    assert!(kv.validates(kv.now()));
    assert_eq!(kv.exclusive(), ctx.engine.exclusive);
    assert!(!kv.recovered(), "a new store has lost nothing");
}

fn publications_come_in_order_before_the_answer(ctx: &Ctx) {
    let kv = ctx.open();
    let published = Arc::new(Mutex::new(Vec::new()));
    threads(16, |t| {
        for n in 0..30 {
            let (to, done) = (Arc::clone(&published), Arc::new(AtomicBool::new(false)));
            let mark = Arc::clone(&done);
            let commit = Commit {
                mutations: vec![put(&format!("k{t}"), &format!("{n}"))],
                durability: if n % 3 == 0 { Durability::Synced } else { Durability::Buffered },
                on_publish: Some(Box::new(move |version| {
                    to.try_lock().expect("one at a time").push(version);
                    mark.store(true, Ordering::Relaxed);
                })),
                ..Commit::default()
            };
            let version = kv.commit_at(commit, kv.soon()).unwrap();
            assert!(done.load(Ordering::Relaxed), "{version} was answered before it was published");
        }
    });
    let published = published.lock().unwrap();
    assert_eq!(published.len(), 16 * 30);
    assert!(published.is_sorted_by(|a, b| a < b), "out of order");
}

fn only_what_commits_is_published(ctx: &Ctx) {
    let kv = ctx.open();
    let before = kv.now();
    kv.at(before, &[], &[point("a")]).unwrap();
    let commit = Commit {
        snapshot: before,
        read_conflicts: vec![point("a")].into(),
        on_publish: Some(Box::new(|_| panic!("must not be published"))),
        ..Commit::default()
    };
    assert_eq!(kv.commit_at(commit, kv.soon()), Err(KvError::Conflict));
}

fn the_last_publication_of_a_transaction_counts(ctx: &Ctx) {
    let kv = ctx.open();
    let published = Arc::new(Mutex::new(Vec::new()));
    let mut runs = 0;
    let version = kv.transact(kv.soon(), &mut |txn| {
        runs += 1;
        txn.get(b"a")?;
        txn.on_publish(Box::new(|_| panic!("replaced")));
        let (to, run) = (Arc::clone(&published), runs);
        txn.on_publish(Box::new(move |version| to.lock().unwrap().push((run, version))));
        if runs == 1 {
            kv.at(Version::ZERO, &[], &[point("a")]).unwrap();
        }
        txn.put(b"b".to_vec(), Bytes::new());
        Ok(())
    });
    assert_eq!(*published.lock().unwrap(), [(2, version.unwrap().unwrap())]);
}

fn a_panic_at_a_publication_hangs_nobody(ctx: &Ctx) {
    let kv = ctx.open();
    threads(8, |t| {
        for n in 0..10 {
            let commit = Commit {
                mutations: vec![put(&format!("k{t}"), &n.to_string())],
                on_publish: Some(Box::new(move |_| assert!(t != 0, "{ON_PURPOSE}"))),
                ..Commit::default()
            };
            kv.commit_at(commit, kv.soon()).unwrap();
        }
    });
    assert_eq!(kv.all().len(), 8);
}

/// A time sample a batch: its version is that of the newest commit in the batch, and
/// whoever sees the commit sees the sample.
fn the_hook_writes_with_each_batch(ctx: &Ctx) {
    let kv = ctx.open();
    let calls = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&calls);
    kv.set_batch_hook(Box::new(move |version| {
        count.fetch_add(1, Ordering::Relaxed);
        let key = [b"t", &version.to_bytes()[..]].concat();
        vec![Mutation::Put { key, value: Bytes::new() }]
    }));
    let versions = Mutex::new(BTreeSet::new());
    threads(8, |_| {
        for _ in 0..20 {
            let version = kv.put("a", "1");
            versions.lock().unwrap().insert(version);
            let snapshot = kv.snapshot(kv.soon()).unwrap();
            let from = [b"t", &version.to_bytes()[..]].concat();
            assert_eq!(scan(&*snapshot, &from, b"u", false, 1).len(), 1, "no sample for {version}");
        }
    });
    let samples = scan(&*kv.snapshot(kv.soon()).unwrap(), b"t", b"u", false, usize::MAX);
    assert_eq!(samples.len() as u64, calls.load(Ordering::Relaxed), "once a batch");
    let versions = versions.lock().unwrap();
    for (key, _) in samples {
        let version = Version::from_bytes(key[1..].try_into().unwrap());
        assert!(versions.contains(&version), "the newest of a batch is a commit's");
    }
}

/// Whoever learns of a version by its publication finds it in a snapshot taken then.
fn a_published_version_is_in_every_later_snapshot(ctx: &Ctx) {
    let kv = ctx.open();
    let (done, head) = (AtomicBool::new(false), Arc::new(AtomicU64::new(0)));
    threads(4, |t| {
        if t == 0 {
            for n in 1..=300 {
                let head = Arc::clone(&head);
                let commit = Commit {
                    mutations: vec![put("n", &n.to_string())],
                    on_publish: Some(Box::new(move |v| head.store(v.commit(), Ordering::SeqCst))),
                    ..Commit::default()
                };
                kv.commit_at(commit, kv.soon()).unwrap();
            }
            done.store(true, Ordering::SeqCst);
        }
        while !done.load(Ordering::SeqCst) {
            let known = head.load(Ordering::SeqCst);
            assert!(kv.now().commit() >= known);
        }
    });
}

fn a_watch_wakes_at_a_change(ctx: &Ctx) {
    let kv = ctx.open();
    kv.put("a", "1");
    kv.watch(b"a", None, kv.soon()).unwrap();
    kv.watch(b"a", Some(b"0"), kv.soon()).unwrap();
    for (n, known) in (2..20).zip(1..) {
        threads(3, |t| {
            if t == 0 {
                std::thread::sleep(Duration::from_millis(n % 3));
                kv.write(vec![put("a", &n.to_string())]);
            } else {
                // The simulated clock runs while a watch waits: it may need many deadlines.
                let known = known.to_string();
                while kv.watch(b"a", Some(known.as_bytes()), kv.soon()).is_err() {}
                assert_eq!(kv.value("a").unwrap(), n.to_string());
            }
        });
    }
    threads(2, |t| {
        if t == 0 {
            kv.write(vec![Mutation::DeleteRange { range: range("a", "b") }]);
        } else {
            while kv.watch(b"a", Some(b"19"), kv.soon()).is_err() {}
        }
    });
}

fn a_watch_ends_at_its_deadline(ctx: &Ctx) {
    let kv = ctx.open();
    let result = kv.watch(b"a", None, kv.within(50));
    assert_eq!(result, Err(KvError::Timeout { after: Duration::from_millis(50) }));
}
